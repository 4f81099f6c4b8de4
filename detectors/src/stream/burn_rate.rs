//! Burn rate: is the error budget of an SLO burning too fast, over a long window and still now?
//!
//! **Idea.** An objective of 99.9 % leaves 0.1 % of errors to spend in a period. Burn rate 1 spends exactly that; 14.4 spends two
//! hundredths of a 30-day budget in an hour. A page needs a long window (it matters) and a short one (it still goes on). **Formula.**
//! burn = (bad / total) / (1 - objective) in each window; drift (page) when it is at least 14.4 over 1 h and 5 min, or 6 over 6 h
//! and 30 min; warning (ticket) when at least 1 over 3 d and 6 h. **Sees** error rates far beyond the budget; a rate within it is
//! none of its business, however much it changed. Windows count from the first tick: a young series is judged on what it has.
//! **Source**: Google, The Site Reliability Workbook (2018), chapter 5, table 5-8; factors and windows as given there.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "burn_rate",
    about: "multi-window multi-burn-rate alert on an error budget; 14.4x 1h/5m, 6x 6h/30m page, 1x 3d/6h warn",
    takes: Takes::Errors,
    knobs: &[
        Knob::real("objective", 0.999, 0.0, 0.999_999_999, "share of events that must be good"),
        Knob::whole("tick_s", 60.0, 1.0, 300.0, "seconds per value"),
    ],
    build,
};

/// Burn rate, seconds of the long and of the short window; the last pair only warns.
const PAIRS: [(f64, usize, usize); 3] = [(14.4, 3_600, 300), (6.0, 21_600, 1_800), (1.0, 259_200, 21_600)];
/// The windows by length in seconds; each is summed once.
const WINDOWS: [usize; 5] = [300, 1_800, 3_600, 21_600, 259_200];

/// A burn that equals its factor counts as reached in spite of the last digit of 1 - objective.
const ROUNDING: f64 = 1e-9;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BurnRate {
    budget: f64,
    /// Ticks in each window.
    ticks: [usize; WINDOWS.len()],
    /// Bad and total of each tick of the longest window, as a ring.
    ring: Vec<(f64, f64)>,
    at: usize,
    filled: usize,
    sums: [(f64, f64); WINDOWS.len()],
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    let tick = k.count("tick_s");
    let ticks = WINDOWS.map(|seconds| seconds.div_ceil(tick));
    Ok(Detector::BurnRate(BurnRate {
        budget: 1.0 - k.get("objective"),
        ticks,
        ring: vec![(0.0, 0.0); ticks[WINDOWS.len() - 1]],
        at: 0,
        filled: 0,
        sums: [(0.0, 0.0); WINDOWS.len()],
    }))
}

// === impl BurnRate ===

impl BurnRate {
    /// One tick: `bad` of `total` events. The score is the burn rate over one hour, or that of the pair that spoke (its smaller
    /// window); the limit is the factor it is compared with.
    pub fn tick(&mut self, bad: f64, total: f64) -> Verdict {
        let length = self.ring.len();
        for (sum, ticks) in self.sums.iter_mut().zip(self.ticks) {
            let (bad_gone, total_gone) = if self.filled >= ticks { self.ring[(self.at + length - ticks) % length] } else { (0.0, 0.0) };
            // Never below zero by rounding.
            *sum = ((sum.0 + bad - bad_gone).max(0.0), (sum.1 + total - total_gone).max(0.0));
        }
        self.ring[self.at] = (bad, total);
        self.at = (self.at + 1) % length;
        self.filled = (self.filled + 1).min(length);
        for (i, (factor, long, short)) in PAIRS.iter().enumerate() {
            let burn = self.burn(*long).min(self.burn(*short));
            if burn >= *factor * (1.0 - ROUNDING) {
                let last = i + 1 == PAIRS.len();
                return Verdict::graded(!last, last, burn, *factor);
            }
        }
        Verdict::drift_if(false, self.burn(PAIRS[0].1), PAIRS[0].0)
    }

    fn burn(&self, seconds: usize) -> f64 {
        let at = WINDOWS.iter().position(|w| *w == seconds).expect("every window of a pair is in the list");
        let (bad, total) = self.sums[at];
        if total > 0.0 { bad / total / self.budget } else { 0.0 }
    }
}

impl Stream for BurnRate {
    /// A value is the share of bad events of one tick; all ticks weigh the same. Use [`BurnRate::tick`] where counts are known.
    fn update(&mut self, x: f64) -> Verdict {
        self.tick(x.clamp(0.0, 1.0), 1.0)
    }

    fn reset(&mut self) {
        self.ring.fill((0.0, 0.0));
        (self.at, self.filled) = (0, 0);
        self.sums = [(0.0, 0.0); WINDOWS.len()];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Signal, build};

    /// Ticks from the start of a constant error rate until it says more than quiet, after three quiet days.
    fn first(rate: f64) -> Option<(usize, Signal)> {
        let Ok(Detector::BurnRate(mut test)) = build("burn_rate", &[]) else { panic!("built") };
        for _ in 0..4_320 {
            assert_eq!(test.tick(0.0, 1_000.0).signal, Signal::Quiet);
        }
        (0..4_320).find_map(|i| {
            let signal = test.tick(rate * 1_000.0, 1_000.0).signal;
            (signal != Signal::Quiet).then_some((i + 1, signal))
        })
    }

    #[test]
    fn it_takes_as_long_as_the_workbook_says() {
        // Detection time = factor / burn rate * long window: of a total outage (burn 1000) 14.4 / 1000 of an hour = 52 s, one tick.
        assert_eq!(first(1.0), Some((1, Signal::Drift)));
        assert_eq!(first(0.0144 * 2.0), Some((30, Signal::Drift)));
        // Burn 10: below the fast page, 6 / 10 of six hours on the slow one; the ticket (1 / 10 of three days) comes later.
        assert_eq!(first(0.01), Some((216, Signal::Drift)));
        assert_eq!(first(0.002), Some((2_160, Signal::Warning)));
        assert_eq!(first(0.000_9), None);
    }

    #[test]
    fn sums_agree_with_adding_up_the_windows_anew() {
        let Ok(Detector::BurnRate(mut test)) = build("burn_rate", &[("tick_s", 300.0)]) else { panic!("built") };
        let mut noise = crate::evidence::noise::Noise::new(9);
        let mut all: Vec<(f64, f64)> = Vec::new();
        for _ in 0..3_000 {
            let total = noise.poisson(50.0);
            let bad = f64::from(noise.binomial(total as u32, 0.01));
            test.tick(bad, total);
            all.push((bad, total));
            for (ticks, sum) in test.ticks.iter().zip(test.sums) {
                let from = all.len().saturating_sub(*ticks);
                let naive = all[from..].iter().fold((0.0, 0.0), |s, t| (s.0 + t.0, s.1 + t.1));
                assert_eq!(sum, naive);
            }
        }
    }
}
