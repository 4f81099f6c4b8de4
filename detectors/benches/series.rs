//! What the judge of plain series costs: false pages on quiet series, time and memory; and its answers to data with labels.
//!
//! ```text
//! cargo bench -p bellwether-detectors --bench series -- --quiet [--seeds 6]
//! cargo bench -p bellwether-detectors --bench series -- --speed
//! cargo bench -p bellwether-detectors --bench series -- --data FOLDER --out FOLDER [--answers label]
//! ```
//! `--data`: every `*.csv` below FOLDER (or below its `data`), one judge a column of values; written at the same relative path with
//! `timestamp,value,anomaly_score,alarm`. Columns named `label`, `anomaly` or `changepoint` are never judged. With several columns
//! a row's score is the largest of them. `--answers COLUMN`: a person says "this was real" of every page on a row where that
//! column is 1, at once. `--set NAME=NUMBER` (repeatable) turns one of the frozen constants, for study;
//! `--threshold SCORE` is the setting of that name.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bellwether_detectors::series::{Answer, Constants, Judge, Settings};

const ROW_MS: i64 = 300_000;
const WEEK_ROWS: usize = 2016;
/// Rows after which pages are counted: the data with labels have a probation too.
const FROM_ROW: usize = 604;
const LAWS: [&str; 16] = [
    "normal",
    "AR(1) .5",
    "AR(1) .9",
    "AR(1) .99",
    "random walk",
    "log-normal",
    "Student t(3)",
    "Pareto 2.5",
    "log AR(1) .9",
    "daily + AR .5",
    "daily x weekly x log AR .9",
    "Poisson .2",
    "Poisson 20, daily, weekly",
    "negative binomial bursts",
    "on / off",
    "constant",
];

/// SplitMix64 and what is drawn from it.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// By Knuth for small means, in pieces for large ones.
    fn poisson(&mut self, mean: f64) -> f64 {
        let (mut left, mut n) = (mean, 0.0);
        while left > 0.0 {
            let part = left.min(20.0);
            let (limit, mut product) = ((-part).exp(), self.uniform());
            while product > limit {
                n += 1.0;
                product *= self.uniform();
            }
            left -= part;
        }
        n
    }

    /// Gamma of integer shape, mean 1.
    fn gamma(&mut self, shape: u32) -> f64 {
        -(0..shape).map(|_| self.uniform().ln()).sum::<f64>() / f64::from(shape)
    }
}

/// One quiet series: `law` is an index into [`LAWS`]; starts on a Thursday at midnight.
fn quiet(law: usize, seed: u64, rows: usize) -> Vec<f64> {
    let mut r = Chance::new(seed * 101 + law as u64);
    let (mut x, mut on, mut left) = (r.normal(), false, 0u32);
    (0..rows)
        .map(|i| {
            let day = (std::f64::consts::TAU * i as f64 / 288.0).sin();
            let weekend = matches!((i / 288) % 7, 2 | 3);
            let mut ar = |r: &mut Chance, rho: f64| {
                x = rho * x + (1.0 - rho * rho).sqrt() * r.normal();
                x
            };
            match law {
                0 => r.normal(),
                1 => ar(&mut r, 0.5),
                2 => ar(&mut r, 0.9),
                3 => ar(&mut r, 0.99),
                4 => {
                    x += r.normal();
                    x
                }
                5 => r.normal().exp(),
                6 => r.normal() / r.gamma_half3().sqrt(),
                7 => r.uniform().powf(-1.0 / 2.5),
                8 => ar(&mut r, 0.9).exp(),
                9 => 10.0 * day + ar(&mut r, 0.5),
                10 => 100.0 * (1.0 + 0.5 * day) * if weekend { 0.6 } else { 1.0 } * (0.3 * ar(&mut r, 0.9)).exp(),
                11 => r.poisson(0.2),
                12 => {
                    let mean = 20.0 * (1.0 + 0.6 * day) * if weekend { 0.5 } else { 1.0 };
                    r.poisson(mean)
                }
                13 => {
                    let mean = if r.uniform() < 0.05 { 20.0 * r.gamma(1) } else { 0.5 * r.gamma(2) };
                    r.poisson(mean)
                }
                14 => {
                    if left == 0 {
                        on = !on;
                        left = 1 + (-r.uniform().ln() * if on { 24.0 } else { 72.0 }) as u32;
                    }
                    left -= 1;
                    if on { 50.0 + 2.0 * r.normal() } else { 5.0 + 0.5 * r.normal() }
                }
                _ => 42.0,
            }
        })
        .collect()
}

impl Chance {
    /// Chi-squared of three degrees over three.
    fn gamma_half3(&mut self) -> f64 {
        (0..3).map(|_| self.normal().powi(2)).sum::<f64>() / 3.0
    }
}

/// Pages of one series in rows [604, 4032) and in the rest.
fn quiet_pages(c: &Constants, settings: Settings, values: &[f64]) -> [usize; 2] {
    let mut judge = Judge::new(settings);
    let mut pages = [0; 2];
    for (i, &v) in values.iter().enumerate() {
        if judge.update_under(c, i as i64 * ROW_MS, v).pages() && i >= FROM_ROW {
            pages[usize::from(i >= 2 * WEEK_ROWS)] += 1;
        }
    }
    pages
}

/// Pages a week of each law: first fortnight, after it, all.
fn quiet_rates(c: &Constants, settings: Settings, seeds: u64) -> Vec<[f64; 3]> {
    let rows = 8 * WEEK_ROWS;
    let weeks = |n: usize| n as f64 / WEEK_ROWS as f64 * seeds as f64;
    (0..LAWS.len())
        .map(|law| {
            let mut sum = [0.0; 2];
            for seed in 0..seeds {
                let pages = quiet_pages(c, settings, &quiet(law, seed, rows));
                (sum[0], sum[1]) = (sum[0] + pages[0] as f64, sum[1] + pages[1] as f64);
            }
            [sum[0] / weeks(2 * WEEK_ROWS - FROM_ROW), sum[1] / weeks(rows - 2 * WEEK_ROWS), (sum[0] + sum[1]) / weeks(rows - FROM_ROW)]
        })
        .collect()
}

fn quiet_table(c: &Constants, settings: Settings, seeds: u64) {
    println!("Quiet series: pages a week, {seeds} seeds, 8 weeks of 5-minute rows, from row {FROM_ROW}\n");
    println!("| series | week 1-2 | week 3-8 | all |\n| --- | --- | --- | --- |");
    let rates = quiet_rates(c, settings, seeds);
    for (law, [young, later, all]) in LAWS.iter().zip(&rates) {
        println!("| {law} | {young:.2} | {later:.2} | {all:.2} |");
    }
    let mean = |k: usize| rates.iter().map(|r| r[k]).sum::<f64>() / rates.len() as f64;
    println!("| mean | {:.2} | {:.2} | {:.2} |", mean(0), mean(1), mean(2));
}

/// A file of columns; `times` in milliseconds.
struct Table {
    names: Vec<String>,
    stamps: Vec<String>,
    times: Vec<i64>,
    columns: Vec<Vec<f64>>,
}

fn read(path: &Path) -> Table {
    let text = fs::read_to_string(path).expect("the file can be read");
    let mut lines = text.lines();
    let head = lines.next().expect("a heading");
    let by = if head.contains(';') { ';' } else { ',' };
    let names: Vec<String> = head.split(by).skip(1).map(str::to_owned).collect();
    let mut table = Table { stamps: Vec::new(), times: Vec::new(), columns: vec![Vec::new(); names.len()], names };
    for line in lines.filter(|l| !l.trim().is_empty()) {
        let mut cells = line.trim().split(by);
        let stamp = cells.next().unwrap_or_default();
        table.stamps.push(stamp.to_owned());
        table.times.push(milliseconds(stamp));
        for column in &mut table.columns {
            column.push(cells.next().and_then(|c| c.parse().ok()).unwrap_or(f64::NAN));
        }
    }
    table
}

/// `YYYY-MM-DD HH:MM:SS` or seconds.
fn milliseconds(text: &str) -> i64 {
    if let Ok(seconds) = text.parse::<f64>() {
        return (seconds * 1e3) as i64;
    }
    let part: Vec<i64> = text.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().unwrap_or(0)).collect();
    let get = |i: usize| part.get(i).copied().unwrap_or(0);
    // Days since the epoch (H. Hinnant, chrono-compatible low-level date algorithms).
    let (y, m, d) = (get(0) - i64::from(get(1) <= 2), get(1), get(2));
    let (era, yoe) = (y.div_euclid(400), y.rem_euclid(400));
    let doy = (153 * (m + if m > 2 { -3 } else { 9 }) + 2) / 5 + d - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    1000 * (86_400 * days + 3600 * get(3) + 60 * get(4) + get(5))
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut wait = vec![root.to_owned()];
    while let Some(folder) = wait.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                wait.push(path);
            } else if path.extension().is_some_and(|e| e == "csv") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Score and alarm of each row, over all columns that are judged.
fn judge_table(c: &Constants, settings: Settings, table: &Table, answers: Option<&str>) -> Vec<(f64, bool)> {
    let truth = answers.and_then(|a| table.names.iter().position(|n| n == a));
    let mut out = vec![(0.0, false); table.times.len()];
    for (name, column) in table.names.iter().zip(&table.columns) {
        if matches!(name.as_str(), "label" | "anomaly" | "changepoint") {
            continue;
        }
        let mut judge = Judge::new(settings);
        for (i, (&at, &v)) in table.times.iter().zip(column).enumerate() {
            let said = judge.update_under(c, at, v);
            if let Some(page) = said.page
                && truth.is_some_and(|t| table.columns[t][i] > 0.5)
            {
                judge.answer(page, Answer::Real);
            }
            out[i] = (f64::max(out[i].0, said.score), out[i].1 || said.pages());
        }
    }
    out
}

fn judge_folder(c: &Constants, settings: Settings, data: &Path, out: &Path, answers: Option<&str>) {
    let inner = data.join("data");
    let root = if inner.is_dir() { inner } else { data.to_owned() };
    let (mut rows, mut pages) = (0, 0);
    let all = files(&root);
    for path in &all {
        let table = read(path);
        let said = judge_table(c, settings, &table, answers);
        let value = table.columns.first().expect("a column of values");
        let mut text = String::from("timestamp,value,anomaly_score,alarm\n");
        for (i, (score, alarm)) in said.iter().enumerate() {
            text.push_str(&format!("{},{},{score:.6},{}\n", table.stamps[i], value[i], u8::from(*alarm)));
            pages += usize::from(*alarm);
        }
        rows += said.len();
        let target = out.join(path.strip_prefix(&root).expect("found below the root"));
        fs::create_dir_all(target.parent().expect("a file lies in a folder")).expect("the folder can be made");
        fs::write(target, text).expect("the result can be written");
    }
    println!("{} files, {rows} rows, {pages} rows page", all.len());
}

fn speed(c: &Constants) {
    println!("A judge is {} bytes.", size_of::<Judge>());
    for series in [1usize, 100, 1000, 5000] {
        let rows = (2_000_000 / series).min(20_000);
        let mut r = Chance::new(7);
        let values: Vec<f64> = (0..rows).map(|i| 50.0 + 10.0 * (i as f64 / 45.0).sin() + r.normal()).collect();
        let mut judges = vec![Judge::new(Settings::default()); series];
        let start = Instant::now();
        for (i, &v) in values.iter().enumerate() {
            for judge in &mut judges {
                std::hint::black_box(judge.update_under(c, i as i64 * ROW_MS, v));
            }
        }
        println!("{series:>5} series in turn: {:.0} ns a value", start.elapsed().as_nanos() as f64 / (rows * series) as f64);
    }
}

fn main() {
    let (mut c, mut settings) = (Constants::FROZEN, Settings::default());
    let (mut seeds, mut data, mut out, mut answers) = (6, None, None, None);
    let mut wants = (false, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--quiet" => wants.0 = true,
            "--speed" => wants.1 = true,
            "--seeds" => seeds = next().parse().expect("a number of seeds"),
            "--data" => data = Some(PathBuf::from(next())),
            "--out" => out = Some(PathBuf::from(next())),
            "--answers" => answers = Some(next()),
            "--threshold" => settings.threshold = next().parse().expect("a score"),
            "--set" => {
                let text = next();
                let (name, number) = text.split_once('=').expect("NAME=NUMBER");
                c.set(name, number.parse().expect("a number")).unwrap_or_else(|e| panic!("{e}"));
            }
            // Cargo's own.
            "--bench" => {}
            other => panic!("unknown argument {other}"),
        }
    }
    if wants.0 {
        quiet_table(&c, settings, seeds);
    }
    if wants.1 {
        speed(&c);
    }
    if let Some(data) = data {
        judge_folder(&c, settings, &data, &out.expect("--data needs --out"), answers.as_deref());
    }
}
