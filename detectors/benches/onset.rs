//! Does the interval of the onset hold it, how large is the change said to be, and is recovery declared only when it is one?
//!
//! Rates as in the delay bench (tolerance 0, baseline of 200,000 events, a promise of one false alarm in a million events), panes of 10
//! and of 100: the onset interval of 90 % should hold the start of the changed pane in 85 to 97 % of runs, the size interval of 95 %
//! the true rate. Then recovery at the daemon's tolerance of 20 %, panes of 100 a 10 s: events until healthy is declared, and how often
//! "recovered" is declared within a day when the fault is repaired half. Numeric values and classes likewise, without recovery, from
//! baselines of BASELINE events; the size is of what the bank tells it by: median, 95 % point or the share of the class that it names.
//!
//! `cargo bench -p bellwether-detectors --bench onset`; RUNS (400), SEED (57), BASELINE (60000 events of values), RATES (1: also rates), ONLY (part of a
//! name of values), ONSET (1; 0 leaves out the tables of onsets).
//!
//! Recovery of values and classes under a daily course, at the daemon's tolerances of 0.1 sigma and 20 %: panes of a minute with 100 events,
//! LEARN days learned, then a fault (half a sigma; 5 % of all events move from the first class to the eighth) at any hour. It is repaired,
//! or repaired half, or not at all half an hour after its page. RECOVERY (100 runs; 0 leaves it out), LEARN (4 days).

mod common;

use bellwether_detectors::evidence::bins::{BinsBank, BinsSettings, Told};
use bellwether_detectors::evidence::classes::{ClassBank, ClassSettings};
use bellwether_detectors::evidence::rate::{CountPane, Direction, RateBank, RateSettings};
use bellwether_detectors::{Call, State};
use common::{CLASSES, Law, Rng, SIGMA, Z95, bin, quantile, scenarios, setting};

const PANE_MS: i64 = 10_000;

struct Stream {
    bank: RateBank,
    rng: Rng,
    at_ms: i64,
    n: u32,
}

impl Stream {
    fn new(tolerance: f64, n: u32, seed: u64, run: u64) -> Stream {
        let bank = RateBank::new(RateSettings { direction: Direction::Up, tolerance, at_least: 0.0 });
        Stream { bank, rng: Rng::new(seed, run), at_ms: 0, n }
    }

    /// `changed` of the pane's events come at rate `p`, the others at `usual`.
    fn pane(&mut self, usual: f64, p: f64, changed: u32, injection: f64) -> Call {
        let hits = self.rng.binomial(self.n - changed, usual) + self.rng.binomial(changed, p);
        let pane = CountPane { hits: f64::from(hits), total: f64::from(self.n) };
        let call = self.bank.judge(pane, self.at_ms, PANE_MS, injection).call;
        self.at_ms += PANE_MS;
        call
    }

    fn quiet(&mut self, p: f64, events: u32, injection: f64) -> bool {
        (0..events / self.n).all(|_| !matches!(self.pane(p, p, 0, injection), Call::Alarm { .. }))
    }
}

/// Numeric values and classes, with tolerance 0 as the rates.
enum Bank {
    Bins(BinsBank),
    Classes(Box<ClassBank>),
}

struct Values {
    bank: Bank,
    rng: Rng,
    at_ms: i64,
    n: usize,
    lognormal: bool,
    pane: Vec<(u16, u32)>,
}

impl Values {
    fn pane(&mut self, first: Law, then: Law, change_at: usize, injection: f64) -> Call {
        self.pane.clear();
        for i in 0..self.n {
            let x = if i < change_at { first } else { then }.draw(&mut self.rng);
            let key = if matches!(first, Law::Class(_)) { x as u16 } else { bin(x, self.lognormal) };
            match self.pane.binary_search_by_key(&key, |p| p.0) {
                Ok(at) => self.pane[at].1 += 1,
                Err(at) => self.pane.insert(at, (key, 1)),
            }
        }
        let call = match &mut self.bank {
            Bank::Bins(bank) => bank.judge(&self.pane, self.at_ms, PANE_MS, injection),
            Bank::Classes(bank) => bank.judge(&self.pane, self.at_ms, PANE_MS, injection),
        };
        self.at_ms += PANE_MS;
        call.call
    }
}

/// The true value of what a change is told by: the median, the 95 % point, or the share of a class.
fn truth(changed: Law, told: Option<u16>, p95: bool) -> f64 {
    match changed {
        Law::Class(moved) => match told {
            Some(0) => CLASSES[0] - moved,
            Some(7) => CLASSES[7] + moved,
            Some(class) => CLASSES[usize::from(class).min(CLASSES.len() - 1)],
            None => 0.0,
        },
        Law::Shift(d, lognormal) => {
            let z = d + if p95 { Z95 } else { 0.0 };
            if lognormal { 400.0 * (SIGMA * z).exp() } else { z }
        }
        // It leaves everything below its 95 % point as it was.
        Law::Tail => 400.0 * (SIGMA * if p95 { Z95 } else { 0.0 }).exp(),
        Law::Bernoulli(p) => p,
    }
}

fn values(runs: usize, seed: u64, baseline: usize) {
    println!(
        "\n| scenario, n | delay median | error of the onset: median, 90 % | interval of 90 % holds, median width | error of the size / change: median [5, 95 %] | interval of 95 % holds |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut rows: Vec<(String, Law, Law)> = scenarios().into_iter().map(|s| (s.name.to_string(), s.quiet, s.changed)).collect();
    rows.retain(|row| !matches!(row.1, Law::Bernoulli(_)));
    rows.push(("latency x2.5".to_string(), Law::Shift(0.0, true), Law::Shift(2.5f64.ln() / SIGMA, true)));
    rows.push(("mean -1 sigma".to_string(), Law::Shift(0.0, false), Law::Shift(-1.0, false)));
    rows.push(("mean +6 sigma".to_string(), Law::Shift(0.0, false), Law::Shift(6.0, false)));
    rows.push(("classes 25 % of mass moves".to_string(), Law::Class(0.0), Law::Class(0.25)));
    let only = std::env::var("ONLY").unwrap_or_default();
    rows.retain(|row| row.0.contains(&only));
    for (name, quiet, changed) in rows {
        for n in [10usize, 100] {
            let injection = n as f64 / 1e6;
            let (mut delays, mut errors, mut widths, mut sizes) = (vec![], vec![], vec![], vec![]);
            let (mut held, mut held_size, mut run) = (0, 0, 0);
            let lognormal = matches!(quiet, Law::Shift(_, true));
            while delays.len() < runs {
                run += 1;
                let bank = match quiet {
                    Law::Class(_) => Bank::Classes(Box::new(ClassBank::new(ClassSettings { tolerance: 0.0 }))),
                    _ => Bank::Bins(BinsBank::new(BinsSettings { tolerance_sigma: 0.0 })),
                };
                let mut s = Values { bank, rng: Rng::new(seed, run), at_ms: 0, n, lognormal, pane: Vec::new() };
                let judged = 20_000 / n;
                let pages = (0..baseline / n).any(|i| {
                    let b = if i + judged < baseline / n { 0.0 } else { injection };
                    matches!(s.pane(quiet, quiet, 0, b), Call::Alarm { .. })
                });
                if pages {
                    continue;
                }
                let before = s.rng.below(n as u64) as usize;
                let per_ms = n as f64 / PANE_MS as f64;
                let began_ms = s.at_ms + (before as f64 / per_ms) as i64;
                let mut call = s.pane(quiet, changed, before, injection);
                while !matches!(call, Call::Alarm { .. }) && s.at_ms - began_ms < (400_000.0 / per_ms) as i64 {
                    call = s.pane(changed, changed, 0, injection);
                }
                let Call::Alarm { change, onset } = call else { continue };
                let (told, p95) = match &s.bank {
                    Bank::Bins(bank) => (None, bank.told() == Told::P95),
                    Bank::Classes(bank) => (bank.told(), false),
                };
                let (was, is) = (truth(quiet, told, p95), truth(changed, told, p95));
                delays.push((s.at_ms - began_ms) as f64 * per_ms);
                errors.push((onset.at_ms - began_ms).abs() as f64 * per_ms);
                widths.push((onset.to_ms - onset.from_ms) as f64 * per_ms);
                sizes.push((change.after - is) / if (is - was).abs() > 1e-9 { (is - was).abs() } else { is.abs() });
                held += usize::from(onset.from_ms <= began_ms && began_ms <= onset.to_ms);
                // Values are told to the width of a bin of the grid, one in 128.
                let width = if matches!(quiet, Law::Class(_)) { 0.0 } else { is.abs() / 128.0 };
                held_size += usize::from(change.low - width <= is && is <= change.high + width);
            }
            let percent = |k: usize| 100.0 * k as f64 / runs as f64;
            println!(
                "| {name}, {n} | {:.0} | {:.0}, {:.0} | {:.0} %, {:.0} | {:+.2} [{:+.2}, {:+.2}] | {:.0} % |",
                quantile(&delays, 0.5),
                quantile(&errors, 0.5),
                quantile(&errors, 0.9),
                percent(held),
                quantile(&widths, 0.5),
                quantile(&sizes, 0.5),
                quantile(&sizes, 0.05),
                quantile(&sizes, 0.95),
                percent(held_size),
            );
        }
    }
}

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: usize = 1_440;

/// A series with a daily course, and the bank that watches it.
#[derive(Clone)]
enum Watched {
    Bins(BinsBank),
    Classes(Box<ClassBank>),
}

struct Course {
    bank: Watched,
    rng: Rng,
    minute: usize,
    daily: f64,
    phase: f64,
}

impl Course {
    fn pane(&mut self, fault: f64, injection: f64) -> Call {
        let turn = std::f64::consts::TAU * (self.minute as f64 / DAY_MINUTES as f64 + self.phase);
        let level = self.daily * turn.sin();
        let at_ms = self.minute as i64 * MINUTE_MS;
        self.minute += 1;
        let mut pane: Vec<(u16, u32)> = Vec::new();
        match &mut self.bank {
            Watched::Bins(bank) => {
                for _ in 0..100 {
                    let key = bin(self.rng.normal() + level + 0.5 * fault, true);
                    match pane.binary_search_by_key(&key, |p| p.0) {
                        Ok(at) => pane[at].1 += 1,
                        Err(at) => pane.insert(at, (key, 1)),
                    }
                }
                bank.judge(&pane, at_ms, MINUTE_MS, injection).call
            }
            Watched::Classes(bank) => {
                let mut weights = CLASSES;
                weights[0] = (weights[0] - 0.05 * fault) * (-level).exp();
                weights[7] = (weights[7] + 0.05 * fault) * level.exp();
                let (mut left, mut rest) = (100, weights.iter().sum::<f64>());
                for (class, weight) in weights.iter().enumerate() {
                    let k = self.rng.binomial(left, (weight / rest).min(1.0));
                    if k > 0 {
                        pane.push((class as u16, k));
                    }
                    left -= k;
                    rest = (rest - weight).max(1e-12);
                }
                bank.judge(&pane, at_ms, MINUTE_MS, injection).call
            }
        }
    }

    /// Minutes until healthy is declared, within a day.
    fn until_healthy(&self, seed: u64, run: u64, fault: f64, injection: f64) -> Option<usize> {
        let mut one = Course { bank: self.bank.clone(), rng: Rng::new(seed, run), ..*self };
        (1..=DAY_MINUTES).find(|_| matches!(one.pane(fault, injection), Call::Recovered { .. }))
    }
}

fn recoveries_of_values(runs: usize, seed: u64, learned: f64) {
    println!(
        "\n| learned {learned} days | found: minutes, median (90 %), not in a day | minutes until healthy is declared: median, 90 % | not within six hours, a day | declared within a day though repaired half | though not repaired |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    const INJECTION: f64 = 1e-7;
    let only = std::env::var("ONLY").unwrap_or_default();
    for of in ["values", "classes"] {
        for (row, daily) in [0.0, 0.1, 0.2, 0.5].into_iter().enumerate() {
            let name = if daily > 0.0 { format!("{of}, daily swing {daily}") } else { format!("{of}, no course") };
            if !name.contains(&only) {
                continue;
            }
            let (mut found, mut healthy) = (vec![], vec![]);
            let (mut missed, mut late, mut never, mut false_half, mut false_full, mut run) = (0, 0, 0, 0, 0, 0);
            while run < runs as u64 {
                run += 1;
                let bank = if of == "values" {
                    Watched::Bins(BinsBank::new(BinsSettings { tolerance_sigma: 0.1 }))
                } else {
                    Watched::Classes(Box::new(ClassBank::new(ClassSettings { tolerance: 0.2 })))
                };
                let mut rng = Rng::new(seed, 500_000 + 10_000 * row as u64 + run);
                let phase = rng.unit();
                let quiet = 60 + rng.below(DAY_MINUTES as u64);
                let mut s = Course { bank, rng, minute: 0, daily, phase };
                for _ in 0..(learned * DAY_MINUTES as f64) as usize {
                    s.pane(0.0, 0.0);
                }
                match &mut s.bank {
                    Watched::Bins(bank) => bank.start_live(),
                    Watched::Classes(bank) => bank.start_live(),
                }
                if (0..quiet).any(|_| matches!(s.pane(0.0, INJECTION), Call::Alarm { .. })) {
                    // A false page is the question of another bench.
                    continue;
                }
                let Some(minutes) = (1..=DAY_MINUTES).find(|_| matches!(s.pane(1.0, INJECTION), Call::Alarm { .. })) else {
                    missed += 1;
                    continue;
                };
                found.push(minutes as f64);
                if (0..30).any(|_| matches!(s.pane(1.0, INJECTION), Call::Recovered { .. })) {
                    false_full += 1;
                    continue;
                }
                let back = s.until_healthy(seed + 1, run, 0.0, INJECTION);
                late += usize::from(back.is_none_or(|minutes| minutes > 360));
                never += usize::from(back.is_none());
                healthy.push(back.map_or(f64::INFINITY, |minutes| minutes as f64));
                false_half += usize::from(s.until_healthy(seed + 2, run, 0.5, INJECTION).is_some());
                false_full += usize::from(s.until_healthy(seed + 3, run, 1.0, INJECTION).is_some());
            }
            let percent = |k: usize| 100.0 * k as f64 / found.len().max(1) as f64;
            println!(
                "| {name} | {:.0} ({:.0}), {missed} | {:.0}, {:.0} | {late}, {never} | {:.1} % | {:.1} % of {} |",
                quantile(&found, 0.5),
                quantile(&found, 0.9),
                quantile(&healthy, 0.5),
                quantile(&healthy, 0.9),
                percent(false_half),
                percent(false_full),
                found.len(),
            );
        }
    }
}

fn main() {
    let runs = setting("RUNS", 400.0) as usize;
    let seed = setting("SEED", 57.0) as u64;
    println!("{runs} runs, seed {seed}");
    let recovery = setting("RECOVERY", 100.0) as usize;
    if recovery > 0 {
        recoveries_of_values(recovery, seed + 10, setting("LEARN", 4.0));
    }
    if setting("ONSET", 1.0) > 0.0 {
        values(runs, seed, setting("BASELINE", 60_000.0) as usize);
    }
    if setting("RATES", 1.0) <= 0.0 {
        return;
    }
    println!();
    if setting("ONSET", 1.0) > 0.0 {
        onsets(runs, seed);
    }
    recoveries(runs.min(300), seed);
}

fn onsets(runs: usize, seed: u64) {
    println!(
        "| scenario, n | delay median | error of the onset: median, 90 % | interval of 90 % holds, median width | size / true: median [5, 95 %] | interval of 95 % holds |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (p, factor) in [(0.001, 2.0), (0.001, 5.0), (0.01, 2.0), (0.01, 5.0), (0.05, 2.0), (0.05, 5.0)] {
        for n in [10u32, 100] {
            let injection = f64::from(n) / 1e6;
            let (mut delays, mut errors, mut widths, mut sizes) = (vec![], vec![], vec![], vec![]);
            let (mut held, mut held_size, mut run) = (0, 0, 0);
            while delays.len() < runs {
                run += 1;
                let mut s = Stream::new(0.0, n, seed, run);
                s.quiet(p, 180_000, 0.0);
                if !s.quiet(p, 20_000, injection) {
                    continue;
                }
                let changed = 1 + s.rng.below(u64::from(n)) as u32;
                // In events, as everything is told; a pane's events lie evenly in it.
                let per_ms = f64::from(n) / PANE_MS as f64;
                let began_ms = s.at_ms + (f64::from(n - changed) / per_ms) as i64;
                let mut call = s.pane(p, p * factor, changed, injection);
                while !matches!(call, Call::Alarm { .. }) && s.at_ms - began_ms < (400_000.0 / per_ms) as i64 {
                    call = s.pane(p, p * factor, n, injection);
                }
                let Call::Alarm { change, onset } = call else { continue };
                delays.push((s.at_ms - began_ms) as f64 * per_ms);
                errors.push((onset.at_ms - began_ms).abs() as f64 * per_ms);
                widths.push((onset.to_ms - onset.from_ms) as f64 * per_ms);
                sizes.push(change.after / (p * factor));
                held += usize::from(onset.from_ms <= began_ms && began_ms <= onset.to_ms);
                held_size += usize::from(change.low <= p * factor && p * factor <= change.high);
            }
            let percent = |k: usize| 100.0 * k as f64 / runs as f64;
            println!(
                "| {} % x{factor}, {n} | {:.0} | {:.0}, {:.0} | {:.0} %, {:.0} | {:.2} [{:.2}, {:.2}] | {:.0} % |",
                p * 100.0,
                quantile(&delays, 0.5),
                quantile(&errors, 0.5),
                quantile(&errors, 0.9),
                percent(held),
                quantile(&widths, 0.5),
                quantile(&sizes, 0.5),
                quantile(&sizes, 0.05),
                quantile(&sizes, 0.95),
                percent(held_size),
            );
        }
    }
}

fn recoveries(runs: usize, seed: u64) {
    println!(
        "\n| incident | events until healthy is declared: median, 90 % | if it lasted another hour | declared within a day though repaired half | though not repaired |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for (p, factor) in [(0.001, 2.0), (0.001, 5.0), (0.01, 2.0), (0.01, 5.0), (0.05, 1.5), (0.05, 2.0), (0.05, 5.0)] {
        let (mut healthy, mut later) = (vec![], vec![]);
        let (mut false_half, mut false_full, mut run, mut done) = (0, 0, 0, 0);
        while done < runs && run < 2 * runs as u64 {
            run += 1;
            let mut s = Stream::new(0.2, 100, seed + 1, run);
            let injection = 100.0 / 1e6;
            s.quiet(p, 200_000, 0.0);
            // A bank that is not armed learns what comes, a fault too: that is not the question here.
            for _ in 0..100 {
                if s.bank.state() != State::Warming {
                    break;
                }
                s.quiet(p, 20_000, 0.0);
            }
            let found = (0..20_000).any(|_| matches!(s.pane(p, p * factor, 100, injection), Call::Alarm { .. }));
            if !found {
                continue;
            }
            done += 1;
            let within = |bank: &RateBank, run: u64, rate: f64, panes: usize| -> Option<usize> {
                let mut s = Stream { bank: bank.clone(), rng: Rng::new(seed + 2, run), at_ms: s.at_ms, n: 100 };
                (0..panes).find(|_| matches!(s.pane(rate, rate, 0, injection), Call::Recovered { .. }))
            };
            healthy.push(within(&s.bank, run, p, 50_000).map_or(5e6, |panes| 100.0 * (panes + 1) as f64));
            let mut lasting = Stream { bank: s.bank.clone(), rng: Rng::new(seed + 3, run), at_ms: s.at_ms, n: 100 };
            if (0..360).all(|_| matches!(lasting.pane(p * factor, p * factor, 0, injection), Call::Quiet)) {
                let back = (0..50_000).find(|_| matches!(lasting.pane(p, p, 0, injection), Call::Recovered { .. }));
                later.push(back.map_or(5e6, |panes| 100.0 * (panes + 1) as f64));
            }
            false_half += usize::from(within(&s.bank, run, p * (1.0 + factor) / 2.0, 8_640).is_some());
            false_full += usize::from(within(&s.bank, run, p * factor, 8_640).is_some());
        }
        println!(
            "| {} % x{factor} | {:.0}, {:.0} | {:.0}, {:.0} | {:.1} % | {:.1} % of {done} |",
            p * 100.0,
            quantile(&healthy, 0.5),
            quantile(&healthy, 0.9),
            quantile(&later, 0.5),
            quantile(&later, 0.9),
            100.0 * f64::from(false_half as u32) / done.max(1) as f64,
            100.0 * f64::from(false_full as u32) / done.max(1) as f64,
        );
    }
}
