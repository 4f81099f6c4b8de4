//! How do the named tests do, side by side, on the same streams?
//!
//! `--errors DIR` scores them on 0/1 error streams (`<name>.txt`, one digit a line; `--streams` lists each), `--tcpd DIR` writes the
//! change points of a test on annotated series (`series/<name>.json`) for their scorer, `--quiet` counts alarms on streams without a
//! change, `--speed` times updates, and those of River, frouros and alibi-detect in the same run with `--python INTERPRETER`, once for each that
//! has any of them. `--test NAME` and
//! `--set KNOB=VALUE` (again and again) choose one test and its settings, `--out FILE` writes its alarms or change points as JSON.
//! Results and conditions stand in `benches/results/streams.md`.

use std::collections::BTreeMap;
use std::path::Path;

use bellwether_detectors::population::{self, Sample};
use bellwether_detectors::stream::{self, Detector, Signal, Takes};

/// Rows after a drift in which an alarm counts as its discovery.
const TOLERANCE: usize = 2_000;

/// Rows at which the streams drift, by the rules of their makers; none where it is not known.
fn drifts(name: &str, rows: usize) -> Vec<usize> {
    if name.contains("abrupt") {
        vec![10_000, 20_000, 30_000]
    } else if name.contains("gradual") {
        vec![9_000, 19_500, 30_000]
    } else if name.starts_with("sea50k") {
        vec![12_500, 25_000, 37_500]
    } else if name.starts_with("interchanging_rbf") {
        (1..).map(|i| i * 3_000).take_while(|d| *d < rows).collect()
    } else {
        Vec::new()
    }
}

#[derive(Default)]
struct Score {
    drifts: usize,
    false_alarms: usize,
    delays: Vec<usize>,
}

impl Score {
    fn add(&mut self, drifts: &[usize], alarms: &[usize]) {
        let gap = drifts.windows(2).map(|w| w[1] - w[0]).min().unwrap_or(usize::MAX);
        let tolerance = TOLERANCE.min(gap - 1);
        let within = |d: usize, a: usize| a >= d && a < d + tolerance;
        self.drifts += drifts.len();
        self.delays.extend(drifts.iter().filter_map(|d| alarms.iter().find(|a| within(*d, **a)).map(|a| a - d)));
        self.false_alarms += alarms.iter().filter(|a| !drifts.iter().any(|d| within(*d, **a))).count();
    }

    fn f1(&self) -> f64 {
        2.0 * self.delays.len() as f64 / (self.drifts + self.delays.len() + self.false_alarms) as f64
    }

    fn median_delay(&self) -> f64 {
        let mut d = self.delays.clone();
        d.sort_unstable();
        match d.len() {
            0 => f64::NAN,
            n if n % 2 == 0 => (d[n / 2 - 1] + d[n / 2]) as f64 / 2.0,
            n => d[n / 2] as f64,
        }
    }
}

/// Rows at which the test alarmed; it is reset after each.
fn alarms(test: &mut Detector, stream: &[f64]) -> Vec<usize> {
    test.reset();
    let mut out = Vec::new();
    for (i, x) in stream.iter().enumerate() {
        if test.update(*x).signal == Signal::Drift {
            out.push(i);
            test.reset();
        }
    }
    out
}

fn read_errors(folder: &Path) -> Vec<(String, Vec<f64>)> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).expect("the folder of --errors").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    let read = |p: &Path| std::fs::read_to_string(p).expect("text").split_whitespace().map(|d| d.parse().expect("a digit")).collect();
    paths.iter().map(|p| (p.file_stem().expect("a name").to_string_lossy().into_owned(), read(p))).collect()
}

struct Arguments {
    errors: Option<String>,
    tcpd: Option<String>,
    out: Option<String>,
    test: Option<String>,
    settings: Vec<(String, f64)>,
    quiet: bool,
    speed: bool,
    streams: bool,
    python: Vec<String>,
}

fn arguments() -> Arguments {
    let mut a = Arguments {
        errors: None,
        tcpd: None,
        out: None,
        test: None,
        settings: Vec::new(),
        quiet: false,
        speed: false,
        streams: false,
        python: Vec::new(),
    };
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let mut value = || given.next().unwrap_or_else(|| panic!("{name} needs a value"));
        match name.as_str() {
            "--errors" => a.errors = Some(value()),
            "--tcpd" => a.tcpd = Some(value()),
            "--out" => a.out = Some(value()),
            "--test" => a.test = Some(value()),
            "--set" => {
                let text = value();
                let (knob, number) = text.split_once('=').expect("KNOB=VALUE");
                a.settings.push((knob.to_owned(), number.parse().expect("a number")));
            }
            "--python" => a.python.push(value()),
            "--quiet" => a.quiet = true,
            "--speed" => a.speed = true,
            "--streams" => a.streams = true,
            "--bench" => {}
            other => panic!("unknown argument {other}"),
        }
    }
    a
}

fn main() {
    let a = arguments();
    let settings: Vec<(&str, f64)> = a.settings.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    if let Some(folder) = &a.errors {
        let streams = read_errors(Path::new(folder));
        println!("{:<18} {:>6} {:>6} {:>6} {:>6} {:>8}", "test", "drifts", "found", "false", "F1", "delay");
        for kind in stream::ALL.iter().filter(|k| k.takes == Takes::Errors || a.test.is_some()) {
            if a.test.as_ref().is_some_and(|t| t != kind.name) {
                continue;
            }
            let mut test = stream::build(kind.name, &settings).expect("built");
            let mut all: BTreeMap<String, Vec<usize>> = BTreeMap::new();
            let mut score = Score::default();
            for (name, stream) in &streams {
                let alarms = alarms(&mut test, stream);
                let truth = drifts(name, stream.len());
                if !truth.is_empty() {
                    let mut one = Score::default();
                    one.add(&truth, &alarms);
                    if a.streams {
                        println!(
                            "  {name:<40} {:>3} of {:>3} false {:>3} delays {:?} alarms {:?}",
                            one.delays.len(),
                            one.drifts,
                            one.false_alarms,
                            one.delays,
                            &alarms[..alarms.len().min(12)]
                        );
                    }
                    score.add(&truth, &alarms);
                }
                all.insert(name.clone(), alarms);
            }
            let found = score.delays.len();
            println!("{:<18} {:>6} {found:>6} {:>6} {:>6.3} {:>8.0}", kind.name, score.drifts, score.false_alarms, score.f1(), score.median_delay());
            if let (Some(out), true) = (&a.out, a.test.is_some()) {
                std::fs::write(out, serde_json::to_string(&all).expect("JSON")).expect("--out can be written");
            }
        }
    }
    if let Some(folder) = &a.tcpd {
        change_points(Path::new(folder), a.test.as_deref().unwrap_or("level_shift"), &settings, a.out.as_deref());
    }
    if a.quiet {
        if a.test.as_ref().is_none_or(|t| stream::ALL.iter().any(|k| k.name == t)) {
            quiet(a.test.as_deref(), &settings);
        }
        if a.test.as_ref().is_none_or(|t| population::ALL.iter().any(|k| k.name == t)) {
            quiet_populations(a.test.as_deref(), &settings);
        }
    }
    if a.speed {
        speed(&a.python);
    }
}

/// Where the regimes begin that a test believes in, told while the series runs; the union over the columns of a series.
fn change_points(folder: &Path, name: &str, settings: &[(&str, f64)], out: Option<&str>) {
    let mut paths: Vec<_> = std::fs::read_dir(folder.join("series")).expect("series/").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    let (mut points, mut said): (BTreeMap<String, Vec<u64>>, BTreeMap<String, Vec<usize>>) = (BTreeMap::new(), BTreeMap::new());
    for path in paths {
        let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).expect("text")).expect("JSON");
        let series = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let (points, said) = (points.entry(series.clone()).or_default(), said.entry(series).or_default());
        for column in file["series"].as_array().expect("columns") {
            let mut test = stream::build(name, settings).expect("built");
            // Begun anew after an alarm, unless the test goes on by itself from the change that it found.
            let mut offset = 0;
            for (i, x) in column["raw"].as_array().expect("values").iter().enumerate() {
                if test.update(x.as_f64().unwrap_or(f64::NAN)).signal != Signal::Drift {
                    continue;
                }
                said.push(i);
                match &test {
                    Detector::LevelShift(t) => points.push(t.since()),
                    Detector::Bocpd(t) => {
                        points.push(offset + t.since());
                        offset = i as u64 + 1;
                        test.reset();
                    }
                    _ => {
                        points.push(i as u64);
                        test.reset();
                    }
                }
            }
        }
        points.sort_unstable();
        points.dedup();
        said.sort_unstable();
        said.dedup();
    }
    for (series, points) in &points {
        println!("{series:<22} {points:?} said at {:?}", said[series]);
    }
    if let Some(out) = out {
        std::fs::write(out, serde_json::to_string(&points).expect("JSON")).expect("--out can be written");
        std::fs::write(format!("{out}.alarms"), serde_json::to_string(&said).expect("JSON")).expect("--out can be written");
    }
}

/// Knuth's MMIX generator, and nearly normal numbers as twelve uniform ones less six, as in `reference/compare.py`.
struct Lcg(u64);

impl Lcg {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn bell(&mut self) -> f64 {
        (0..12).fold(0.0, |sum, _| sum + self.unit()) - 6.0
    }

    fn bits(&mut self, n: usize, rate: f64) -> Vec<f64> {
        (0..n).map(|_| f64::from(u8::from(self.unit() < rate))).collect()
    }
}

/// Alarms per 100,000 values on streams without a change; the test is reset after each.
fn quiet(only: Option<&str>, settings: &[(&str, f64)]) {
    const VALUES: usize = 100_000;
    const RUNS: u64 = 5;
    println!("alarms per {VALUES} quiet values, mean of {RUNS} streams (seeds 1 to {RUNS})");
    println!("{:<18} {:>10} {:>10} {:>10} {:>10}", "test", "rate 1 %", "rate 10 %", "rate 30 %", "normal");
    for kind in stream::ALL.iter().filter(|k| only.is_none_or(|t| t == k.name)) {
        let mut test = stream::build(kind.name, settings).expect("built");
        let mut cells = Vec::new();
        for rate in [0.01, 0.1, 0.3, f64::NAN] {
            if rate.is_nan() && kind.takes == Takes::Errors {
                cells.push("-".to_owned());
                continue;
            }
            let mut count = 0;
            for seed in 1..=RUNS {
                let mut g = Lcg(seed);
                let stream = if rate.is_nan() { (0..VALUES).map(|_| g.bell()).collect() } else { g.bits(VALUES, rate) };
                count += alarms(&mut test, &stream).len();
            }
            cells.push(format!("{:.1}", count as f64 / RUNS as f64));
        }
        println!("{:<18} {:>10} {:>10} {:>10} {:>10}", kind.name, cells[0], cells[1], cells[2], cells[3]);
    }
}

/// Share of comparisons of two samples of one population that say "drifted".
fn quiet_populations(only: Option<&str>, settings: &[(&str, f64)]) {
    const COMPARISONS: usize = 500;
    println!("drifted of 100 comparisons of two samples of one population, from {COMPARISONS} comparisons");
    println!("{:<18} {:>10} {:>10} {:>10}", "test", "n = 100", "n = 500", "n = 2000");
    for kind in population::ALL.iter().filter(|k| only.is_none_or(|t| t == k.name)) {
        let test = population::build(kind.name, settings).expect("built");
        let mut cells = Vec::new();
        for n in [100, 500, 2_000] {
            let mut g = Lcg(n as u64);
            // The quadratic one gets fewer.
            let comparisons = if kind.name == "mmd" { COMPARISONS * 100 / n / 5 } else { COMPARISONS };
            let mut drifted = 0;
            for _ in 0..comparisons {
                let mut values = || (0..n).map(|_| g.bell()).collect::<Vec<f64>>();
                let (a, b) = (values(), values());
                let outcome = if kind.takes == population::Takes::Counts {
                    let classes = |v: &[f64]| [-1.0, -0.3, 0.3, 1.0, 99.0].map(|edge| v.iter().filter(|x| **x < edge).count() as u64);
                    let steps = |c: [u64; 5]| [c[0], c[1] - c[0], c[2] - c[1], c[3] - c[2], c[4] - c[3]];
                    test.compare(Sample::Counts(&steps(classes(&a))), Sample::Counts(&steps(classes(&b))))
                } else {
                    test.compare(Sample::Values(&a), Sample::Values(&b))
                };
                drifted += usize::from(outcome.expect("comparable").drifted);
            }
            cells.push(format!("{:.1}", 100.0 * drifted as f64 / comparisons as f64));
        }
        println!("{:<18} {:>10} {:>10} {:>10}", kind.name, cells[0], cells[1], cells[2]);
    }
}

/// Nanoseconds per update at the defaults, on the streams of `compare.py --speed`, reset after an alarm; the best of five.
fn speed(pythons: &[String]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/reference/compare.py");
    let theirs = pythons.iter().map(|p| {
        let run = std::process::Command::new(p).args([script, "--speed", "tsv"]).output().expect("the interpreter of --python runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).expect("text")
    });
    let theirs: String = theirs.collect();
    let of =
        |library: &str, test: &str| -> Option<f64> { theirs.lines().find_map(|l| l.strip_prefix(&format!("{library}\t{test}\t"))?.parse().ok()) };
    println!("{:<18} {:>10} {:>12} {:>12} {:>16}", "test", "ours ns", "River", "frouros", "alibi-detect");
    let bits = Lcg(71).bits(20_000, 0.1);
    let mut g = Lcg(72);
    let values: Vec<f64> = (0..20_000).map(|_| g.bell()).collect();
    for kind in stream::ALL {
        let stream = if kind.takes == Takes::Errors { &bits } else { &values };
        let mut test = stream::build(kind.name, &[]).expect("built");
        let mut best = f64::INFINITY;
        for _ in 0..5 {
            let start = std::time::Instant::now();
            std::hint::black_box(alarms(&mut test, stream));
            best = best.min(start.elapsed().as_nanos() as f64 / stream.len() as f64);
        }
        let told = |library: &str| of(library, kind.name).map_or("-".to_owned(), |ns| format!("{ns:.0} ({:.0}x)", ns / best));
        println!("{:<18} {best:>10.1} {:>12} {:>12} {:>16}", kind.name, told("river"), told("frouros"), told("alibi"));
    }
}
