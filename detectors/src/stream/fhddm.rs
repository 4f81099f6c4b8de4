//! FHDDM: the best accuracy of a window against the newest window, by Hoeffding's inequality.
//!
//! **Idea.** Keep the last `window` answers and the highest share of right ones that any window ever had; when the newest window
//! is surely below it, alarm. **Formula.** drift when u_max - u > sqrt(ln(1 / delta) / (2 window)), u the share of zeros (no error)
//! in the window. At the defaults that is 0.263: the accuracy must drop by 26 points. `short_window` adds a second, quicker window
//! (stacking FHDDM). **Sees** large rises of the error rate within the window; nothing smaller, ever. **Source**: Pesaranghader and
//! Viktor 2016; defaults as in River. River's counts ones as right answers; feed it 1 - error and the alarms are equal.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "fhddm",
    about: "best against newest window of answers, by Hoeffding's bound; large rises of the error rate",
    takes: Takes::Errors,
    knobs: &[
        Knob::whole("window", 100.0, 1.0, 1e6, "answers in the window"),
        Knob::real("delta", 0.000_001, 1e-300, 1.0, "error probability of one comparison"),
        Knob::whole("short_window", 0.0, 0.0, 1e6, "answers in the second, quicker window; 0 for none"),
    ],
    build,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fhddm {
    short: usize,
    limit: f64,
    limit_short: f64,
    /// The last answers, 1 for right, as a ring; `at` is where the next one goes.
    ring: Vec<f64>,
    at: usize,
    filled: usize,
    /// Right answers in the window and in its newest part.
    right: f64,
    right_short: f64,
    best: f64,
    best_short: f64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    let (window, short) = (k.count("window"), k.count("short_window"));
    if short > window {
        return Err(Refusal::Conflict { name: "short_window", why: "must not be longer than window" });
    }
    let limit = |n: usize| ((1.0 / k.get("delta")).ln() / (2.0 * n as f64)).sqrt();
    Ok(Detector::Fhddm(Fhddm {
        short,
        limit: limit(window),
        limit_short: if short > 0 { limit(short) } else { f64::MAX },
        ring: vec![0.0; window],
        at: 0,
        filled: 0,
        right: 0.0,
        right_short: 0.0,
        best: 0.0,
        best_short: 0.0,
    }))
}

// === impl Fhddm ===

impl Stream for Fhddm {
    fn update(&mut self, x: f64) -> Verdict {
        let right = if x < 0.5 { 1.0 } else { 0.0 };
        let window = self.ring.len();
        if self.short > 0 {
            let leaves = (self.at + window - self.short) % window;
            self.right_short += right - if self.filled >= self.short { self.ring[leaves] } else { 0.0 };
        }
        self.right += right - self.ring[self.at];
        self.ring[self.at] = right;
        self.at = (self.at + 1) % window;
        self.filled = (self.filled + 1).min(window);
        if self.filled < window {
            return Verdict::SILENT;
        }
        let u = self.right / window as f64;
        self.best = self.best.max(u);
        let mut drift = self.best - u > self.limit;
        if self.short > 0 {
            let u = self.right_short / self.short as f64;
            self.best_short = self.best_short.max(u);
            drift |= self.best_short - u > self.limit_short;
        }
        Verdict::drift_if(drift, self.best - u, self.limit)
    }

    fn reset(&mut self) {
        self.ring.fill(0.0);
        (self.at, self.filled, self.right, self.right_short, self.best, self.best_short) = (0, 0, 0.0, 0.0, 0.0, 0.0);
    }
}
