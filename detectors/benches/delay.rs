//! How fast is a change found, against the best that is possible?
//!
//! Panes of 10 events, an injection of 10 in a million per pane (at most one false alarm in a million events is promised), tolerance 0,
//! a learned baseline. The change comes at a random event of a pane; the delay counts events from it to the close of the alarming
//! pane. The rival is Page's CUSUM event by event that knows both laws, its threshold tuned by simulation to the same mean time
//! between false alarms: the promised million, and once more the time that the bank really had on quiet data.
//!
//! `cargo bench -p bellwether-detectors --bench delay`; RUNS (400), BASELINE (200000 events), TOLERANCE (0: also sigma and classes;
//! negative: the daemon's defaults), SEED (71), QUIET (1: measure the quiet time per false alarm), QUIET_EVENTS,
//! QUIET_PANES (100000: panes that a quiet series lasts beyond its baseline; fewer show the young), ONLY (parts of names, with commas).

mod common;

use bellwether_detectors::evidence::bins::{BinsBank, BinsSettings};
use bellwether_detectors::evidence::classes::{ClassBank, ClassSettings};
use bellwether_detectors::evidence::rate::{CountPane, Direction, RateBank, RateSettings};
use bellwether_detectors::{Call, Release};
use common::{Law, Rng, Scenario, error, mean, scenarios, setting};

const N: usize = 10;
const PANE_MS: i64 = 10_000;
const PROMISED_EVENTS: f64 = 1e6;
/// Of the baseline, the last part is judged, so that the evidence is in its steady state when the change comes.
const JUDGED_EVENTS: usize = 20_000;
const GIVE_UP_EVENTS: usize = 400_000;

#[derive(Clone)]
enum Bank {
    Rate(Box<RateBank>),
    Bins(BinsBank, Vec<(u16, u32)>),
    Classes(Box<ClassBank>),
}

impl Bank {
    fn new(law: Law, tolerance: f64) -> Bank {
        let or = |default: f64| if tolerance < 0.0 { default } else { tolerance };
        match law {
            Law::Bernoulli(_) => Bank::Rate(Box::new(RateBank::new(RateSettings { direction: Direction::Up, tolerance: or(0.2), at_least: 0.0 }))),
            Law::Shift(..) | Law::Tail => Bank::Bins(BinsBank::new(BinsSettings { tolerance_sigma: or(0.1) }), Vec::new()),
            Law::Class(_) => Bank::Classes(Box::new(ClassBank::new(ClassSettings { tolerance: or(0.2) }))),
        }
    }

    fn judge(&mut self, events: &[f64], lognormal: bool, at_ms: i64, injection: f64) -> Call {
        match self {
            Bank::Rate(bank) => {
                let hits = events.iter().sum();
                bank.judge(CountPane { hits, total: events.len() as f64 }, at_ms, PANE_MS, injection).call
            }
            Bank::Bins(bank, pane) => {
                pane.clear();
                for x in events {
                    add(pane, common::bin(*x, lognormal));
                }
                bank.judge(pane, at_ms, PANE_MS, injection).call
            }
            Bank::Classes(bank) => {
                let mut pane: Vec<(u16, u32)> = Vec::with_capacity(N);
                for x in events {
                    add(&mut pane, *x as u16);
                }
                bank.judge(&pane, at_ms, PANE_MS, injection).call
            }
        }
    }

    fn release(&mut self) {
        match self {
            Bank::Rate(b) => b.release(Release::FalseAlarm),
            Bank::Bins(b, _) => b.release(Release::FalseAlarm),
            Bank::Classes(b) => b.release(Release::FalseAlarm),
        }
    }
}

fn add(pane: &mut Vec<(u16, u32)>, key: u16) {
    match pane.binary_search_by_key(&key, |p| p.0) {
        Ok(i) => pane[i].1 += 1,
        Err(i) => pane.insert(i, (key, 1)),
    }
}

fn lognormal(law: Law) -> bool {
    matches!(law, Law::Shift(_, true) | Law::Tail)
}

/// A stream with its bank: panes are drawn from a law and judged.
struct Stream {
    bank: Bank,
    rng: Rng,
    pane: Vec<f64>,
    at_ms: i64,
    /// The values are exp of the scores.
    lognormal: bool,
}

impl Stream {
    fn pane(&mut self, first: Law, then: Law, change_at: usize, injection: f64) -> Call {
        self.pane.clear();
        for i in 0..N {
            let law = if i < change_at { first } else { then };
            self.pane.push(law.draw(&mut self.rng));
        }
        let call = self.bank.judge(&self.pane, self.lognormal, self.at_ms, injection);
        self.at_ms += PANE_MS;
        call
    }

    /// The whole baseline; `None` when the judged part of it alarmed.
    fn with_baseline(s: &Scenario, tolerance: f64, baseline: usize, injection: f64, seed: u64, run: u64) -> Option<Stream> {
        let mut stream =
            Stream { bank: Bank::new(s.quiet, tolerance), rng: Rng::new(seed, run), pane: Vec::new(), at_ms: 0, lognormal: lognormal(s.quiet) };
        let judged = JUDGED_EVENTS.min(baseline / 2);
        for i in 0..baseline / N {
            let b = if i * N < baseline - judged { 0.0 } else { injection };
            if matches!(stream.pane(s.quiet, s.quiet, N, b), Call::Alarm { .. }) {
                return None;
            }
        }
        Some(stream)
    }
}

struct Found {
    delays: Vec<f64>,
    missed: usize,
}

fn delays(s: &Scenario, tolerance: f64, baseline: usize, runs: usize, seed: u64) -> Found {
    let injection = N as f64 / PROMISED_EVENTS;
    let mut found = Found { delays: Vec::new(), missed: 0 };
    let mut run = 0;
    while found.delays.len() < runs {
        run += 1;
        let Some(stream) = Stream::with_baseline(s, tolerance, baseline, injection, seed, run) else { continue };
        for reuse in 0..setting("REUSE", 1.0) as u64 {
            let mut stream = Stream {
                bank: stream.bank.clone(),
                rng: Rng::new(seed + 77, run * 64 + reuse),
                pane: Vec::new(),
                at_ms: stream.at_ms,
                lognormal: stream.lognormal,
            };
            let at = stream.rng.below(N as u64) as usize;
            let mut events = N - at;
            let mut call = stream.pane(s.quiet, s.changed, at, injection);
            while !matches!(call, Call::Alarm { .. }) && events < GIVE_UP_EVENTS {
                call = stream.pane(s.changed, s.changed, 0, injection);
                events += N;
            }
            found.missed += usize::from(!matches!(call, Call::Alarm { .. }));
            found.delays.push(events as f64);
        }
    }
    found
}

/// Quiet events per false alarm: series of a fresh baseline and then as long as the promise, or so many panes.
fn quiet_time(s: &Scenario, tolerance: f64, baseline: usize, events: f64, seed: u64) -> (f64, f64) {
    let injection = N as f64 / PROMISED_EVENTS;
    let (mut judged, mut alarms, mut run) = (0.0, 0.0, 1_000_000);
    let panes = setting("QUIET_PANES", 100_000.0) as usize;
    while judged < events {
        run += 1;
        let Some(mut stream) = Stream::with_baseline(s, tolerance, baseline, injection, seed, run) else {
            alarms += 1.0;
            judged += JUDGED_EVENTS as f64 / 2.0;
            continue;
        };
        for _ in 0..panes {
            if matches!(stream.pane(s.quiet, s.quiet, N, injection), Call::Alarm { .. }) {
                alarms += 1.0;
                stream.bank.release();
            }
        }
        judged += (panes * N + JUDGED_EVENTS) as f64;
    }
    (judged, alarms)
}

/// Page's CUSUM that knows both laws.
struct Oracle {
    s: &'static Scenario,
    threshold: f64,
}

impl Oracle {
    /// Events until it alarms; `warm` quiet events first (an alarm in them starts again), then the changed law.
    fn run(&self, r: &mut Rng, warm: usize, changed: bool) -> f64 {
        let law = if changed { self.s.changed } else { self.s.quiet };
        if let (Law::Bernoulli(p0), Law::Bernoulli(p1)) = (self.s.quiet, self.s.changed) {
            return self.run_rare(r, p0, p1, warm, if changed { p1 } else { p0 });
        }
        let mut c: f64 = 0.0;
        for _ in 0..warm {
            c = (c + self.s.changed.llr(self.s.quiet.draw(r))).max(0.0);
            c = if c >= self.threshold { 0.0 } else { c };
        }
        let mut events = 0.0;
        loop {
            events += 1.0;
            c = (c + self.s.changed.llr(law.draw(r))).max(0.0);
            if c >= self.threshold {
                return events;
            }
        }
    }

    /// The same from hit to hit: between hits the sum only falls.
    fn run_rare(&self, r: &mut Rng, p0: f64, p1: f64, warm: usize, p: f64) -> f64 {
        let (hit, miss) = ((p1 / p0).ln(), ((1.0 - p1) / (1.0 - p0)).ln());
        let gap = |r: &mut Rng, p: f64| 1.0 + ((1.0 - r.unit()).ln() / (1.0 - p).ln()).floor();
        let (mut c, mut events): (f64, f64) = (0.0, -(warm as f64));
        loop {
            let law = if events < 0.0 { p0 } else { p };
            let mut g = gap(r, law);
            if events < 0.0 && events + g > 0.0 {
                // The change falls into this gap: misses up to it, then a fresh gap (the law has no memory).
                g = -events;
                c = (c + g * miss).max(0.0);
                events = 0.0;
                continue;
            }
            events += g;
            c = (c + (g - 1.0) * miss).max(0.0) + hit;
            if c >= self.threshold {
                if events > 0.0 {
                    return events;
                }
                c = 0.0;
            }
        }
    }

    /// Tuned so that the mean time between false alarms is `events` within about a twentieth.
    fn tuned(s: &'static Scenario, events: f64, seed: u64) -> Oracle {
        let mut oracle = Oracle { s, threshold: 4.0 };
        let mut r = Rng::new(seed, 9);
        for target in [3e3, 3e4, 3e5, events, events] {
            let runs = if target < events { 100 } else { 300 };
            let arl = (0..runs).map(|_| oracle.run(&mut r, 0, false)).sum::<f64>() / f64::from(runs);
            oracle.threshold += (target / arl).ln();
            oracle.threshold = oracle.threshold.max(0.5);
        }
        oracle
    }

    fn delay(&self, runs: usize, seed: u64) -> f64 {
        let mut r = Rng::new(seed, 10);
        (0..runs).map(|_| self.run(&mut r, 20_000, true)).sum::<f64>() / runs as f64
    }
}

fn main() {
    let runs = setting("RUNS", 400.0) as usize;
    let baseline = setting("BASELINE", 200_000.0) as usize;
    let tolerance = setting("TOLERANCE", 0.0);
    let seed = setting("SEED", 71.0) as u64;
    let quiet = setting("QUIET", 1.0) > 0.0;
    let only = std::env::var("ONLY").unwrap_or_default();
    let all: &'static [Scenario] = Box::leak(scenarios().into_boxed_slice());
    println!("panes of {N}, promise 1e6 events, baseline {baseline}, tolerance {tolerance} (negative: defaults), {runs} runs, seed {seed}\n");
    println!("| scenario | mean delay (s.e.) | median | missed | oracle | x oracle | quiet events per false alarm (alarms) | oracle there | x |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut known: Vec<(Law, (f64, f64))> = Vec::new();
    for s in all.iter().filter(|s| only.split(',').any(|part| s.name.contains(part))) {
        let found = delays(s, tolerance, baseline, runs, seed);
        let oracle = Oracle::tuned(s, PROMISED_EVENTS, seed);
        let best = oracle.delay(4_000, seed);
        let mut line = format!(
            "| {} | {:.0} ({:.0}) | {:.0} | {} | {:.0} | {:.2} |",
            s.name,
            mean(&found.delays),
            error(&found.delays),
            common::quantile(&found.delays, 0.5),
            found.missed,
            best,
            mean(&found.delays) / best
        );
        if quiet {
            let have = known.iter().find(|k| k.0 == s.quiet).map(|k| k.1);
            let (judged, alarms) = have.unwrap_or_else(|| {
                let events = if matches!(s.quiet, Law::Bernoulli(_)) { 1e8 } else { 3e7 };
                quiet_time(s, tolerance, baseline, setting("QUIET_EVENTS", events), seed)
            });
            known.push((s.quiet, (judged, alarms)));
            let arl = judged / f64::max(alarms, 1.0);
            let there = Oracle { s, threshold: oracle.threshold + (arl / PROMISED_EVENTS).ln() }.delay(4_000, seed);
            line += &format!(" {:.2e} ({alarms:.0}) | {there:.0} | {:.2} |", arl, mean(&found.delays) / there);
        }
        println!("{line}");
    }
}
