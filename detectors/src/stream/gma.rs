//! Geometric moving average: how far has the fading average of the deviations gone?
//!
//! **Idea.** CUSUM with a leak instead of a drain: old deviations fade by `alpha` per value. **Formula.** s_t = alpha s_{t-1} +
//! (1 - alpha)(x_t - mean_t), drift when s_t > threshold. **Sees** rises of the mean larger than `threshold` in the unit of the
//! data: at the default of 1 no stream of 0/1 errors can ever alarm, as in frouros, whose defaults these are; for errors set it to
//! the rise that matters. **Source**: Roberts 1959.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Moments, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "gma",
    about: "geometric moving average of deviations from the running mean; rises beyond a fixed size",
    takes: Takes::Values,
    knobs: &[
        Knob::real("alpha", 0.99, 0.0, 1.0, "what remains of a deviation after one more value"),
        Knob::real("threshold", 1.0, 0.0, 1e12, "average deviation at which it alarms, in the unit of the data"),
        Knob::whole("values_min", 30.0, 1.0, 1e9, "values before the first alarm"),
    ],
    build,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gma {
    alpha: f64,
    threshold: f64,
    values_min: f64,
    seen: Moments,
    average: f64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    Ok(Detector::Gma(Gma {
        alpha: k.get("alpha"),
        threshold: k.get("threshold"),
        values_min: k.get("values_min"),
        seen: Moments::default(),
        average: 0.0,
    }))
}

// === impl Gma ===

impl Stream for Gma {
    fn update(&mut self, x: f64) -> Verdict {
        self.seen.add(x);
        self.average = self.alpha * self.average + (1.0 - self.alpha) * (x - self.seen.mean);
        Verdict::drift_if(self.seen.n >= self.values_min && self.average > self.threshold, self.average, self.threshold)
    }

    fn reset(&mut self) {
        self.seen = Moments::default();
        self.average = 0.0;
    }
}
