//! CUSUM: add up what exceeds the mean and forget what falls below it.
//!
//! **Idea.** A bucket with a hole: every value pours in what it has above the running mean, the hole drains `delta` per value, and
//! a bucket above `threshold` is an alarm. **Formula.** g_t = max(0, g_{t-1} + x_t - mean_t - delta), drift when g_t > threshold,
//! where mean_t includes x_t. **Sees** rises of the mean that last; not falls (feed -x), not a change of spread. The unit is that
//! of the data: the defaults suit 0/1 errors. **Source**: Page 1954; defaults and the running mean as in frouros.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Moments, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "cusum",
    about: "cumulative sum of what exceeds the running mean; rises that last",
    takes: Takes::Values,
    knobs: &[
        Knob::real("delta", 0.005, 0.0, 1e12, "what is forgiven per value, in the unit of the data"),
        Knob::real("threshold", 50.0, 0.0, 1e12, "sum at which it alarms, in the unit of the data"),
        Knob::whole("values_min", 30.0, 1.0, 1e9, "values before the first alarm"),
    ],
    build,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cusum {
    delta: f64,
    threshold: f64,
    values_min: f64,
    seen: Moments,
    sum: f64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    Ok(Detector::Cusum(Cusum {
        delta: k.get("delta"),
        threshold: k.get("threshold"),
        values_min: k.get("values_min"),
        seen: Moments::default(),
        sum: 0.0,
    }))
}

// === impl Cusum ===

impl Stream for Cusum {
    fn update(&mut self, x: f64) -> Verdict {
        self.seen.add(x);
        self.sum = (self.sum + x - self.seen.mean - self.delta).max(0.0);
        Verdict::drift_if(self.seen.n >= self.values_min && self.sum > self.threshold, self.sum, self.threshold)
    }

    fn reset(&mut self) {
        self.seen = Moments::default();
        self.sum = 0.0;
    }
}
