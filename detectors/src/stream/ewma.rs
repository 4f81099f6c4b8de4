//! EWMA control chart: a smoothed value against limits that know how long it has been smoothing.
//!
//! **Idea.** The first `learn` values say what is normal (mean and standard deviation). From then on a fading average starts at
//! that mean, and its own standard deviation is known exactly; beyond `width` of them it alarms, beyond two thirds it warns.
//! **Formula.** z_t = lambda x_t + (1 - lambda) z_{t-1}; limit = width sd sqrt(lambda / (2 - lambda) (1 - (1 - lambda)^(2t))).
//! **Sees** rises and falls; small lambda sees small ones, late. A normal period that is too short makes the limits themselves
//! noisy: with 100 values the chart alarms more often than its tables say. **Source**: Roberts 1959; lambda 0.2 and width 2.962
//! (one false alarm in 500 values if mean and deviation were known) from Lucas and Saccucci 1990.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Moments, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "ewma",
    about: "smoothed value against the limits of a learned normal; small rises and falls",
    takes: Takes::Values,
    knobs: &[
        Knob::real("lambda", 0.2, 0.001, 1.0, "weight of the newest value"),
        Knob::real("width", 2.962, 0.1, 100.0, "limit in standard deviations of the smoothed value"),
        Knob::whole("learn", 100.0, 2.0, 1e9, "values that say what is normal"),
    ],
    build,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ewma {
    lambda: f64,
    width: f64,
    learn: f64,
    normal: Moments,
    smoothed: f64,
    /// (1 - lambda)^(2t), t counted from the end of learning.
    fade: f64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    Ok(Detector::Ewma(Ewma {
        lambda: k.get("lambda"),
        width: k.get("width"),
        learn: k.get("learn"),
        normal: Moments::default(),
        smoothed: 0.0,
        fade: 1.0,
    }))
}

// === impl Ewma ===

impl Stream for Ewma {
    fn update(&mut self, x: f64) -> Verdict {
        if self.normal.n < self.learn {
            self.normal.add(x);
            self.smoothed = self.normal.mean;
            return Verdict::SILENT;
        }
        self.smoothed = self.lambda * x + (1.0 - self.lambda) * self.smoothed;
        self.fade *= (1.0 - self.lambda) * (1.0 - self.lambda);
        let score = (self.smoothed - self.normal.mean).abs();
        let limit = self.width * (self.normal.variance() * self.lambda / (2.0 - self.lambda) * (1.0 - self.fade)).sqrt();
        Verdict::graded(score > limit, score > limit * 2.0 / 3.0, score, limit)
    }

    fn reset(&mut self) {
        self.normal = Moments::default();
        (self.smoothed, self.fade) = (0.0, 1.0);
    }
}
