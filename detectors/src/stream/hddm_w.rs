//! HDDM_W: fading means against each other, by McDiarmid's inequality.
//!
//! **Idea.** As HDDM_A, but what lies back fades, so that a slow change is not averaged away. **Formula.** Two fading averages
//! (weight lambda for the newest value): one up to the cut where average + bound was least, one since; drift when the second
//! exceeds the first by more than sqrt((c_1 + c_2) ln(1 / confidence) / 2), where c starts at one and follows c <- lambda^2 + (1 -
//! lambda)^2 c. **Sees** rises of any value in 0..1 (and falls with `two_sided`), slow ones too. **False alarms**: many, see the page.
//! **Source**: Frias-Blanco et al. 2015 (W-test); defaults as in River. River's fading average starts anew whenever it is exactly
//! 0, so the first error after nothing but zeros sets it to 1; `restart_at_zero` 0 switches that off and gives the paper's average.
//! frouros starts its average at 0 and uses lambda in place of the confidence for its cut: another test.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "hddm_w",
    about: "fading means before and after a cut, by McDiarmid's bound; slow rises",
    takes: Takes::Errors,
    knobs: &[
        Knob::real("drift", 0.001, 1e-300, 1.0, "confidence: error probability of one comparison that alarms"),
        Knob::real("warning", 0.005, 1e-300, 1.0, "error probability of one comparison that warns"),
        Knob::real("lambda", 0.05, 0.0, 1.0, "weight of the newest value"),
        Knob::whole("two_sided", 0.0, 0.0, 1.0, "1 sees falls as well"),
        Knob::whole("restart_at_zero", 1.0, 0.0, 1.0, "1: an average of exactly 0 takes over the next value whole, as in River"),
    ],
    build,
};

/// A fading average and the sum of its squared weights.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Fading {
    mean: f64,
    weights: f64,
    begun: bool,
}

const NOTHING: Fading = Fading { mean: 0.0, weights: 1.0, begun: false };

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HddmW {
    drift: f64,
    warning: f64,
    lambda: f64,
    two_sided: bool,
    restart_at_zero: bool,
    all: Fading,
    /// For rises: up to the cut and since, and the bound at the cut. Then the same for falls.
    low: [Fading; 2],
    low_cut: f64,
    high: [Fading; 2],
    high_cut: f64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    Ok(Detector::HddmW(HddmW {
        drift: k.get("drift"),
        warning: k.get("warning"),
        lambda: k.get("lambda"),
        two_sided: k.get("two_sided") > 0.0,
        restart_at_zero: k.get("restart_at_zero") > 0.0,
        all: NOTHING,
        low: [NOTHING; 2],
        low_cut: f64::MAX,
        high: [NOTHING; 2],
        high_cut: f64::MIN,
    }))
}

// === impl HddmW ===

impl HddmW {
    fn fed(&self, average: Fading, x: f64) -> Fading {
        let begins = !average.begun || (self.restart_at_zero && average.mean == 0.0);
        Fading {
            mean: if begins { x } else { self.lambda * x + (1.0 - self.lambda) * average.mean },
            weights: self.lambda * self.lambda + (1.0 - self.lambda) * (1.0 - self.lambda) * average.weights,
            begun: true,
        }
    }

    fn bound(weights: f64, confidence: f64) -> f64 {
        (weights * (1.0 / confidence).ln() / 2.0).sqrt()
    }

    /// How far the second lies above the first, and what it must exceed to alarm and to warn.
    fn compared(&self, first: Fading, second: Fading) -> (f64, f64, f64) {
        if !(first.begun && second.begun) {
            return (0.0, f64::INFINITY, f64::INFINITY);
        }
        let weights = first.weights + second.weights;
        (second.mean - first.mean, Self::bound(weights, self.drift), Self::bound(weights, self.warning))
    }
}

impl Stream for HddmW {
    fn update(&mut self, x: f64) -> Verdict {
        let x = x.clamp(0.0, 1.0);
        self.all = self.fed(self.all, x);
        let bound = Self::bound(self.all.weights, self.drift);
        if self.all.mean + bound < self.low_cut {
            self.low_cut = self.all.mean + bound;
            self.low = [self.all, NOTHING];
        } else {
            self.low[1] = self.fed(self.low[1], x);
        }
        if self.all.mean - bound > self.high_cut {
            self.high_cut = self.all.mean - bound;
            self.high = [self.all, NOTHING];
        } else {
            self.high[1] = self.fed(self.high[1], x);
        }
        let (rise, limit, limit_warning) = self.compared(self.low[0], self.low[1]);
        let (mut drift, mut warning) = (rise > limit, rise > limit_warning);
        if self.two_sided {
            let (fall, limit, limit_warning) = self.compared(self.high[1], self.high[0]);
            drift |= fall > limit;
            warning |= fall > limit_warning;
        }
        Verdict::graded(drift, warning, rise, limit)
    }

    fn reset(&mut self) {
        self.all = NOTHING;
        (self.low, self.low_cut) = ([NOTHING; 2], f64::MAX);
        (self.high, self.high_cut) = ([NOTHING; 2], f64::MIN);
    }
}
