//! How often does the fairness bank page on pairs that are treated alike, how soon does it find pairs that are not, and are its
//! intervals true? `cargo bench -p bellwether-detectors --bench fairness`; `PAIRS`, `PANES` and `SEED` in the environment.
//!
//! A pair is two groups in two segments over `PANES` panes of ten minutes with 50 to 50,000 events in all. The common level has a
//! day and a walk, the shares of the groups walk between a tenth and nine tenths, and the segments, whose levels differ, walk apart
//! between the groups. `rho` makes the events of a group in a pane resemble each other (beta-binomial).

mod noise;

use bellwether_detectors::Call;
use bellwether_detectors::evidence::rate::CountPane;
use bellwether_detectors::evidence::two_group::{Against, Fairness, GROUPS_MAX, Outcome, Stratum, TwoGroupBank, TwoGroupSettings};
use noise::{Noise, quantile, setting};

const PANE_MS: i64 = 600_000;

struct Pair {
    noise: Noise,
    base: f64,
    level: f64,
    share: f64,
    mix: f64,
    per_pane: f64,
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Pair {
    fn new(seed: u64, events: f64, panes: usize) -> Pair {
        let mut noise = Noise::new(seed);
        let base = [-2.5, -1.4, -0.4, 0.4][noise.below(4) as usize];
        Pair { noise, base, level: 0.0, share: 0.0, mix: 0.0, per_pane: events / panes as f64 }
    }

    /// Group 0 has `ratio` times the rate of group 1 in every segment.
    fn pane(&mut self, at_ms: i64, ratio: f64, rho: f64) -> [Stratum; 2] {
        let noise = &mut self.noise;
        self.level = 0.98 * self.level + 0.08 * noise.normal();
        self.share = (0.995 * self.share + 0.12 * noise.normal()).clamp(-2.2, 2.2);
        self.mix = (0.995 * self.mix + 0.12 * noise.normal()).clamp(-2.2, 2.2);
        let day = (at_ms as f64 / 86_400_000.0 * std::f64::consts::TAU).sin();
        let mut out = [[CountPane { hits: 0.0, total: 0.0 }; GROUPS_MAX]; 2];
        for (segment, stratum) in out.iter_mut().enumerate() {
            let p = logistic(self.base + self.level + 0.6 * day + if segment == 0 { -0.6 } else { 0.6 });
            for (group, count) in stratum.iter_mut().enumerate().take(2) {
                let own = logistic(if group == 0 { self.share } else { -self.share });
                let here = logistic(if (group == 0) == (segment == 0) { self.mix } else { -self.mix });
                let n = noise.poisson(self.per_pane * own * here);
                let mut q = (if group == 0 { ratio * p } else { p }).min(0.999);
                if rho > 0.0 {
                    q = noise.beta(q * (1.0 / rho - 1.0), (1.0 - q) * (1.0 / rho - 1.0));
                }
                *count = CountPane { hits: f64::from(noise.binomial(n, q)), total: f64::from(n) };
            }
        }
        out
    }
}

/// Without strata what comes in is one heap, and a ratio of it compares different things.
fn heap(pane: &[Stratum; 2]) -> [Stratum; 1] {
    [std::array::from_fn(|g| CountPane { hits: pane[0][g].hits + pane[1][g].hits, total: pane[0][g].total + pane[1][g].total })]
}

fn main() {
    let pairs = setting("PAIRS", 1_000.0) as u64;
    let panes = setting("PANES", 600.0) as usize;
    let seed = setting("SEED", 1.0) as u64;
    let budget = 10.0;
    let b = budget / (pairs * panes as u64) as f64;
    let sizes = |i: u64| 50.0 * 1_000f64.powf(i as f64 / pairs.max(2) as f64);
    println!("{pairs} pairs x {panes} panes, seed {seed}, budget {budget} pages\n");
    println!("| pairs | ratio | rho | false pages of {budget} | fair so far, by size < 500 / < 5,000 / more | not enough evidence |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let judged = |bank: &mut TwoGroupBank, pair: &mut Pair, ratio: f64, rho: f64, strata: bool| -> u32 {
        let mut pages = 0;
        for i in 0..panes as i64 {
            let pane = pair.pane(i * PANE_MS, ratio, rho);
            let reading = if strata { bank.judge(&pane, i * PANE_MS, PANE_MS, b) } else { bank.judge(&heap(&pane), i * PANE_MS, PANE_MS, b) };
            if let Call::Alarm { .. } = reading.call {
                pages += 1;
                bank.release(bellwether_detectors::Release::FalseAlarm);
            }
        }
        pages
    };
    for (name, against, outcome, ratio, rho, strata) in [
        ("equal", Against::Parity, Outcome::Favourable, 1.0, 0.0, true),
        ("equal, bursts", Against::Parity, Outcome::Favourable, 1.0, 0.02, true),
        ("equal, bursts", Against::Parity, Outcome::Favourable, 1.0, 0.1, true),
        ("equal, adverse", Against::Parity, Outcome::Adverse, 1.0, 0.0, true),
        ("equal, no strata given", Against::Parity, Outcome::Favourable, 1.0, 0.0, false),
        ("within", Against::Parity, Outcome::Favourable, 0.85, 0.02, true),
        ("at the edge", Against::Parity, Outcome::Favourable, 0.8, 0.0, true),
        ("at the edge, bursts", Against::Parity, Outcome::Favourable, 0.8, 0.02, true),
        ("own baseline, usual .6", Against::OwnBaseline, Outcome::Favourable, 0.6, 0.0, true),
        ("own baseline, usual .6, bursts", Against::OwnBaseline, Outcome::Favourable, 0.6, 0.02, true),
    ] {
        let (mut pages, mut fair, mut unsure) = (0, [(0, 0); 3], 0);
        for i in 0..pairs {
            let mut pair = Pair::new(seed * 1_000_003 + i, sizes(i), panes);
            let mut bank = TwoGroupBank::new(TwoGroupSettings { against, outcome, ..TwoGroupSettings::default() });
            pages += judged(&mut bank, &mut pair, ratio, rho, strata);
            let place = if sizes(i) < 500.0 { 0 } else { usize::from(sizes(i) >= 5_000.0) + 1 };
            fair[place].1 += 1;
            match bank.fairness(0) {
                Some(Fairness::FairSoFar { .. }) => fair[place].0 += 1,
                Some(Fairness::Violated { .. }) => {}
                Some(Fairness::NotEnoughEvidence { .. }) | None => unsure += 1,
            }
        }
        let share = |x: (i32, i32)| format!("{:.0} %", 100.0 * f64::from(x.0) / f64::from(x.1.max(1)));
        println!("| {name} | {ratio} | {rho} | {pages} | {} / {} / {} | {unsure} |", share(fair[0]), share(fair[1]), share(fair[2]));
    }
    println!("\nViolated from a third of the run on; a fair pair before. Sizes: events of the whole run.\n");
    println!(
        "| ratio | rho | events | found | panes to the page: median, 90 % | ratio told: median | interval of 95 % holds the ratio: at the page, at the end | onset interval holds | called fair at the end |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for (ratio, rho) in [(0.7, 0.0), (0.6, 0.0), (0.5, 0.0), (0.6, 0.02)] {
        for events in [200.0, 1_000.0, 5_000.0, 20_000.0, 50_000.0] {
            let runs = (pairs / 10).max(20);
            let (mut delays, mut told) = (Vec::new(), Vec::new());
            let (mut at_page, mut at_end, mut onset_holds, mut fair) = (0, 0, 0, 0);
            for i in 0..runs {
                let mut pair = Pair::new(seed * 7_000_003 + i, events, panes);
                let mut bank = TwoGroupBank::new(TwoGroupSettings::default());
                let began = panes / 3;
                let mut found = false;
                for k in 0..panes {
                    let at = k as i64 * PANE_MS;
                    let pane = pair.pane(at, if k < began { 1.0 } else { ratio }, rho);
                    if let Call::Alarm { change, onset } = bank.judge(&pane, at, PANE_MS, b).call
                        && k >= began
                        && !found
                    {
                        found = true;
                        delays.push((k - began + 1) as f64);
                        told.push(change.after);
                        at_page += usize::from(change.low <= ratio && ratio <= change.high);
                        let truth = began as i64 * PANE_MS;
                        onset_holds += usize::from(onset.from_ms <= truth && truth <= onset.to_ms);
                    }
                }
                match bank.fairness(0) {
                    Some(Fairness::Violated { low, high, .. }) => at_end += usize::from(low <= ratio && ratio <= high),
                    Some(Fairness::FairSoFar { .. }) => fair += 1,
                    Some(Fairness::NotEnoughEvidence { .. }) | None => {}
                }
            }
            let found = delays.len();
            let of = |n: usize| format!("{:.0} %", 100.0 * n as f64 / found.max(1) as f64);
            println!(
                "| {ratio} | {rho} | {events} | {:.0} % | {:.0}, {:.0} | {:.2} | {}, {} | {} | {fair} of {runs} |",
                100.0 * found as f64 / runs as f64,
                quantile(&delays, 0.5),
                quantile(&delays, 0.9),
                quantile(&told, 0.5),
                of(at_page),
                of(at_end),
                of(onset_holds)
            );
        }
    }
}
