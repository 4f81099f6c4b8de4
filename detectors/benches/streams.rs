//! How do the named tests do, side by side, on the same streams?
//!
//! `--errors DIR` scores them on 0/1 error streams (`<name>.txt`, one digit a line), `--tcpd DIR` the change-point test on annotated
//! series, `--quiet` counts alarms on streams without a change, `--speed` times updates. `--test NAME` and `--set KNOB=VALUE` (again
//! and again) choose one test and its settings, `--out FILE` writes its alarms (or change points) as JSON. Results and conditions stand in `benches/results/streams.md`.

use std::collections::BTreeMap;
use std::path::Path;

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
}

fn arguments() -> Arguments {
    let mut a = Arguments { errors: None, tcpd: None, out: None, test: None, settings: Vec::new(), quiet: false, speed: false, streams: false };
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
}
