//! Does the joint bank keep its budget on quiet features and find a dependence that no marginal shows? Beside it: eight random
//! projections of normal scores in quantile bins. `cargo bench -p bellwether-detectors --bench joint`; `SERIES`, `RUNS`, `SEED`;
//! `KEPT`: how many of a pane's events the joint bank is shown, as where only a sample of each pane is carried.
//!
//! Six features, panes of 100 events: a pair whose correlation is the matter, the others normal, skewed, discrete and heavy-tailed.

mod noise;

use bellwether_detectors::Call;
use bellwether_detectors::evidence::bins::{BinsBank, BinsSettings};
use bellwether_detectors::evidence::joint::{JointBank, JointSettings};
use bellwether_detectors::sketch::log_linear::bin_of;
use noise::{Noise, quantile, setting};

const PANE_MS: i64 = 10_000;
const EVENTS: usize = 100;
const FEATURES: usize = 6;
const PROJECTIONS: usize = 8;

#[derive(Clone, Copy)]
struct Law {
    rho: f64,
    /// The size of the fourth follows that of the third.
    swell: bool,
    /// Autocorrelation between events of all features.
    ar: f64,
    /// Features move alone, in standard deviations over an hour or so.
    wander: f64,
}

struct Source {
    noise: Noise,
    state: [f64; FEATURES],
    events: f64,
}

impl Source {
    /// Normal scores and, from them, values.
    fn event(&mut self, law: Law) -> ([f64; FEATURES], [f64; FEATURES]) {
        self.events += 1.0;
        let fresh = (1.0 - law.ar * law.ar).sqrt();
        for x in &mut self.state {
            *x = law.ar * *x + fresh * self.noise.normal();
        }
        let mut z = self.state;
        z[1] = law.rho * z[0] + (1.0 - law.rho * law.rho).sqrt() * z[1];
        if law.swell {
            // The size of z3 goes with that of z2, its law stays normal: the sizes change places, the sign is its own.
            z[3] = z[3].signum() * if self.noise.unit() < 0.6 { z[2].abs() } else { z[3].abs() };
        }
        let move_by = |k: f64| law.wander * (self.events / (EVENTS as f64 * (150.0 + 40.0 * k)) * std::f64::consts::TAU).sin();
        let values = [
            z[0] + move_by(0.0),
            100.0 + 5.0 * (z[1] + move_by(1.0)),
            (0.8 * (z[2] + move_by(2.0))).exp(),
            z[3],
            (2.0 * (z[4] + move_by(3.0))).round(),
            z[5] * (1.0 + z[5].abs()),
        ];
        (z, values)
    }
}

/// Panes until the joint bank, and until the bins, page.
fn race(seed: u64, quiet: Law, fault: Law, learn: usize, panes: usize, injection: f64, kept: usize) -> [Option<usize>; 2] {
    let mut source = Source { noise: Noise::new(seed), state: [0.0; FEATURES], events: 0.0 };
    let rows: Vec<[f64; FEATURES]> = (0..PROJECTIONS)
        .map(|_| {
            let row: [f64; FEATURES] = std::array::from_fn(|_| source.noise.normal());
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.map(|x| x / length)
        })
        .collect();
    let mut bins: Vec<BinsBank> = (0..PROJECTIONS).map(|_| BinsBank::new(BinsSettings { tolerance_sigma: 0.1 })).collect();
    let mut joint = JointBank::new(FEATURES, JointSettings::default());
    let mut found = [None; 2];
    for i in 0..learn + panes {
        let mut projected = vec![Vec::new(); PROJECTIONS];
        for e in 0..EVENTS {
            let (scores, values) = source.event(if i < learn { quiet } else { fault });
            if e < kept {
                joint.observe(&values);
            }
            for (out, row) in projected.iter_mut().zip(&rows) {
                out.push(bin_of(row.iter().zip(&scores).map(|(a, b)| a * b).sum()));
            }
        }
        let b = if i < learn { 0.0 } else { injection };
        let at = i as i64 * PANE_MS;
        let mut page = [matches!(joint.judge(at, PANE_MS, b).call, Call::Alarm { .. }), false];
        for (bank, list) in bins.iter_mut().zip(&mut projected) {
            list.sort_unstable();
            let mut pane: Vec<(u16, u32)> = Vec::new();
            for bin in list.iter() {
                match pane.last_mut() {
                    Some(last) if last.0 == *bin => last.1 += 1,
                    _ => pane.push((*bin, 1)),
                }
            }
            page[1] |= matches!(bank.judge(&pane, at, PANE_MS, b / PROJECTIONS as f64).call, Call::Alarm { .. });
        }
        for (found, page) in found.iter_mut().zip(page) {
            if page && found.is_none() && i >= learn {
                *found = Some(i - learn + 1);
            }
        }
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found
}

fn main() {
    let series = setting("SERIES", 100.0) as u64;
    let runs = setting("RUNS", 40.0) as u64;
    let panes = setting("PANES", 1_000.0) as usize;
    let seed = setting("SEED", 1.0) as u64;
    let kept = setting("KEPT", EVENTS as f64) as usize;
    let plain = Law { rho: 0.3, swell: false, ar: 0.0, wander: 0.0 };
    println!("{FEATURES} features, {EVENTS} events a pane ({kept} shown to the joint bank), 600 panes learned, seed {seed}\n");
    println!("| quiet | series x panes | series that page, of 10 allowed |\n| --- | --- | --- |");
    for (name, law) in [
        ("independent events, correlation .3", plain),
        ("events resemble their neighbours, AR(1) .5", Law { ar: 0.5, ..plain }),
        ("events resemble their neighbours, AR(1) .9", Law { ar: 0.9, ..plain }),
        ("features move alone by half a deviation", Law { wander: 0.5, ..plain }),
    ] {
        let b = 10.0 / (series as usize * panes) as f64;
        let pages = (0..series).filter(|i| race(seed * 1_000 + i, law, law, 600, panes, b, kept)[0].is_some()).count();
        println!("| {name} | {series} x {panes} | {pages} |");
    }
    println!(
        "\n| change of the pair (threshold: one page in 1e6 panes) | joint: found, median and 90 % panes | bins of {PROJECTIONS} projections |\n| --- | --- | --- |"
    );
    let at = |rho: f64| Law { rho, ..plain };
    for (name, from, to) in [
        ("rho 0 -> .5", at(0.0), at(0.5)),
        ("rho 0 -> .3", at(0.0), at(0.3)),
        ("rho .5 -> -.5", at(0.5), at(-0.5)),
        ("rho .8 -> .4", at(0.8), at(0.4)),
        ("rho .5 -> 0", at(0.5), at(0.0)),
        ("sizes go together, signs do not", at(0.3), Law { swell: true, ..plain }),
    ] {
        let mut delays = [Vec::new(), Vec::new()];
        for i in 0..runs {
            for (delays, found) in delays.iter_mut().zip(race(seed * 77_000 + i, from, to, 600, 300, 1e-6, kept)) {
                delays.extend(found.map(|n| n as f64));
            }
        }
        let cell = |d: &Vec<f64>| format!("{:.0} %, {:.0}, {:.0}", 100.0 * d.len() as f64 / runs as f64, quantile(d, 0.5), quantile(d, 0.9));
        println!("| {name} | {} | {} |", cell(&delays[0]), cell(&delays[1]));
    }
}
