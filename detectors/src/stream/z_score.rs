//! Z-score: how many standard deviations is this value from the mean of the window before it?
//!
//! **Idea.** The simplest instrument of all. **Formula.** z = (x - mean) / sd over the `window` values before x (sample deviation);
//! alarm when |z| > `limit`; the value joins the window after it was judged. **Sees** single spikes and the first values of a jump;
//! no slow change, and an outlier in the window blinds it (see `mad`). Where the window has no spread at all, any other value is
//! infinitely far away and alarms. **False alarms**: for normal values one in 370 at 3 deviations, more with small windows and
//! far more with heavy tails. **Source**: Shewhart 1931.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "z_score",
    about: "newest value against mean and deviation of a window; spikes",
    takes: Takes::Values,
    knobs: &[
        Knob::whole("window", 100.0, 2.0, 1e6, "values before this one that say what is normal"),
        Knob::real("limit", 3.0, 0.0, 1e6, "standard deviations at which it alarms"),
    ],
    build,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZScore {
    limit: f64,
    ring: Vec<f64>,
    at: usize,
    filled: usize,
    mean: f64,
    /// Sum of squared deviations from the mean.
    squares: f64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    Ok(Detector::ZScore(ZScore { limit: k.get("limit"), ring: vec![0.0; k.count("window")], at: 0, filled: 0, mean: 0.0, squares: 0.0 }))
}

// === impl ZScore ===

/// How far x lies from the centre in units of the spread: 0 at the centre, infinite elsewhere if there is no spread.
pub(super) fn distance(x: f64, centre: f64, spread: f64) -> f64 {
    let off = (x - centre).abs();
    if off == 0.0 {
        0.0
    } else if spread > 0.0 {
        off / spread
    } else {
        f64::INFINITY
    }
}

impl Stream for ZScore {
    fn update(&mut self, x: f64) -> Verdict {
        let window = self.ring.len();
        let mut verdict = Verdict::SILENT;
        if self.filled == window {
            let z = distance(x, self.mean, (self.squares / (window as f64 - 1.0)).sqrt());
            verdict = Verdict::drift_if(z > self.limit, z, self.limit);
        }
        self.ring[self.at] = x;
        self.at = (self.at + 1) % window;
        self.filled = (self.filled + 1).min(window);
        // Summed anew: 100 additions cost less than an alarm from what rounding leaves behind after a huge value.
        let n = self.filled as f64;
        self.mean = self.ring[..self.filled].iter().sum::<f64>() / n;
        self.squares = self.ring[..self.filled].iter().map(|v| (v - self.mean) * (v - self.mean)).sum();
        verdict
    }

    fn reset(&mut self) {
        self.ring.fill(0.0);
        (self.at, self.filled, self.mean, self.squares) = (0, 0, 0.0, 0.0);
    }
}
