//! Page-Hinkley: CUSUM that remembers its lowest and highest point.
//!
//! **Idea.** Draw the sum of the deviations from the running mean; while all is well it wanders about, after a rise it climbs away
//! from its lowest point, after a fall it drops away from its highest. **Formula.** u_t = alpha u_{t-1} + (x_t - mean_t) - delta,
//! alarm when u_t - min u > threshold; v_t = alpha v_{t-1} + (x_t - mean_t) + delta, alarm when max v - v_t > threshold.
//! **Sees** lasting changes of the mean either way. **Source**: Page 1954, Hinkley 1971; defaults as in River. River starts the
//! running maximum at -1, which matters only for the first values and is kept so that alarms are equal. The test of that name in
//! frouros keeps no minimum (it compares u_t itself): another test, which alarms later.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Moments, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "page_hinkley",
    about: "cumulative deviation from the running mean against its own extreme; rises and falls that last",
    takes: Takes::Values,
    knobs: &[
        Knob::whole("values_min", 30.0, 1.0, 1e9, "values before the first alarm"),
        Knob::real("delta", 0.005, 0.0, 1e12, "what is forgiven per value, in the unit of the data"),
        Knob::real("threshold", 50.0, 0.0, 1e12, "distance from the extreme at which it alarms, in the unit of the data"),
        Knob::real("alpha", 0.9999, 0.0, 1.0, "what remains of the sum after one more value"),
        Knob::whole("direction", 0.0, -1.0, 1.0, "1 sees rises, -1 falls, 0 both"),
    ],
    build,
};

/// Where River starts the running maximum.
const HIGHEST_AT_START: f64 = -1.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PageHinkley {
    values_min: f64,
    delta: f64,
    threshold: f64,
    alpha: f64,
    direction: f64,
    seen: Moments,
    /// Sum that looks for rises and its lowest point; sum that looks for falls and its highest.
    up: f64,
    lowest: f64,
    down: f64,
    highest: f64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    Ok(Detector::PageHinkley(PageHinkley {
        values_min: k.get("values_min"),
        delta: k.get("delta"),
        threshold: k.get("threshold"),
        alpha: k.get("alpha"),
        direction: k.get("direction"),
        seen: Moments::default(),
        up: 0.0,
        lowest: f64::MAX,
        down: 0.0,
        highest: HIGHEST_AT_START,
    }))
}

// === impl PageHinkley ===

impl Stream for PageHinkley {
    fn update(&mut self, x: f64) -> Verdict {
        self.seen.add(x);
        let deviation = x - self.seen.mean;
        self.up = self.alpha * self.up + deviation - self.delta;
        self.down = self.alpha * self.down + deviation + self.delta;
        self.lowest = self.lowest.min(self.up);
        self.highest = self.highest.max(self.down);
        let (rise, fall) = (self.up - self.lowest, self.highest - self.down);
        let score = if self.direction > 0.0 {
            rise
        } else if self.direction < 0.0 {
            fall
        } else {
            rise.max(fall)
        };
        Verdict::drift_if(self.seen.n >= self.values_min && score > self.threshold, score, self.threshold)
    }

    fn reset(&mut self) {
        self.seen = Moments::default();
        (self.up, self.lowest, self.down, self.highest) = (0.0, f64::MAX, 0.0, HIGHEST_AT_START);
    }
}
