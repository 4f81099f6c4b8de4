//! HDDM_A: the mean of everything against the mean of a prefix, by Hoeffding's inequality.
//!
//! **Idea.** Remember the prefix of the stream whose mean (with its uncertainty) is lowest, and ask whether the mean of all is
//! surely above it. **Formula.** Prefix of n_0 values with mean x, all n values with mean z: drift when z - x >= sqrt((n - n_0) /
//! (n_0 n) / 2 ln(2 / confidence)); the prefix is renewed when z + sqrt(ln(1/a) / 2n) falls to or below its own. **Sees** rises of
//! any bounded value in 0..1 (and falls with `two_sided`), fast when they are abrupt; makes no assumption on the distribution.
//! **False alarms**: the bound holds for one cut; here it is asked at every value. **Source**: Frias-Blanco et al. 2015 (A-test);
//! defaults and the 2 in ln(2 / confidence) for one side as in River; frouros uses ln(1 / confidence) and waits for 30 values.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "hddm_a",
    about: "mean against the mean of the best prefix, by Hoeffding's bound; abrupt rises",
    takes: Takes::Errors,
    knobs: &[
        Knob::real("drift", 0.001, 1e-300, 1.0, "confidence: error probability of one comparison that alarms"),
        Knob::real("warning", 0.005, 1e-300, 1.0, "error probability of one comparison that warns"),
        Knob::whole("two_sided", 0.0, 0.0, 1.0, "1 sees falls as well"),
    ],
    build,
};

/// Values and their mean, the mean kept by increments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Mean {
    n: f64,
    mean: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HddmA {
    drift: f64,
    warning: f64,
    two_sided: bool,
    all: Mean,
    lowest: Mean,
    highest: Mean,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    Ok(Detector::HddmA(HddmA {
        drift: k.get("drift"),
        warning: k.get("warning"),
        two_sided: k.get("two_sided") > 0.0,
        all: Mean::default(),
        lowest: Mean::default(),
        highest: Mean::default(),
    }))
}

// === impl HddmA ===

impl HddmA {
    fn bound(&self, n: f64) -> f64 {
        (1.0 / (2.0 * n) * (1.0 / self.drift).ln()).sqrt()
    }

    /// What a difference to a prefix of n values must reach at this error probability; infinite while the prefix is everything.
    fn needed(&self, n: f64, confidence: f64) -> f64 {
        if n == self.all.n {
            return f64::INFINITY;
        }
        let m = (self.all.n - n) / n * (1.0 / self.all.n);
        (m / 2.0 * (2.0 / confidence).ln()).sqrt()
    }
}

impl Stream for HddmA {
    fn update(&mut self, x: f64) -> Verdict {
        self.all.n += 1.0;
        self.all.mean += (x.clamp(0.0, 1.0) - self.all.mean) / self.all.n;
        let mine = self.bound(self.all.n);
        if self.lowest.n == 0.0 || self.lowest.mean + self.bound(self.lowest.n) >= self.all.mean + mine {
            self.lowest = self.all;
        }
        if self.highest.n == 0.0 || self.highest.mean - self.bound(self.highest.n) <= self.all.mean - mine {
            self.highest = self.all;
        }
        let rise = self.all.mean - self.lowest.mean;
        let limit = self.needed(self.lowest.n, self.drift);
        let mut drift = rise >= limit;
        let mut warning = rise >= self.needed(self.lowest.n, self.warning);
        if self.two_sided {
            let fall = self.highest.mean - self.all.mean;
            drift |= fall >= self.needed(self.highest.n, self.drift);
            warning |= fall >= self.needed(self.highest.n, self.warning);
        }
        Verdict::graded(drift, warning, rise, limit)
    }

    fn reset(&mut self) {
        (self.all, self.lowest, self.highest) = (Mean::default(), Mean::default(), Mean::default());
    }
}
