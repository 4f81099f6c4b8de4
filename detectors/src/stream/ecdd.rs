//! ECDD: an EWMA chart for errors, whose limit is chosen for a promised run length.
//!
//! **Idea.** For 0/1 values the mean also tells the variance, so the limit can be tabulated: a polynomial in the error rate gives
//! the width at which a quiet stream of that rate alarms once in `run_length` values. **Formula.** z_t = lambda x_t + (1 - lambda)
//! z_{t-1} (z_0 = 0), p_t the mean of all; drift when z_t > p_t + L(p_t) sqrt(p_t (1 - p_t) lambda / (2 - lambda) (1 - (1 -
//! lambda)^(2t))); warning at half of L. **Sees** rises only. **False alarms** are promised and many: the longest run length
//! tabulated is 1,000 values. **Source**: Ross, Adams, Tasoulis and Hand 2012 (ECDD-WT); defaults as in frouros.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Moments, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "ecdd",
    about: "EWMA chart for errors with a tabulated run length; rises of the error rate",
    takes: Takes::Errors,
    knobs: &[
        Knob::real("lambda", 0.2, 0.001, 1.0, "weight of the newest value; the tables were made for 0.2"),
        Knob::whole("run_length", 400.0, 100.0, 1000.0, "quiet values per false alarm: 100, 400 or 1000"),
        Knob::real("warning", 0.5, 0.0, 1.0, "share of the limit at which it warns"),
        Knob::whole("values_min", 30.0, 1.0, 1e9, "values before the first alarm"),
    ],
    build,
};

/// Width L(p) = sum of c_i p^i with these powers, for lambda 0.2 (table 1 of the paper).
const POWERS: [i32; 5] = [0, 1, 3, 5, 7];
const WIDTH_100: [f64; 5] = [2.76, -6.23, 18.12, -312.45, 1002.18];
const WIDTH_400: [f64; 5] = [3.97, -6.56, 48.73, -330.13, 848.18];
const WIDTH_1000: [f64; 5] = [1.17, 7.56, -21.24, 112.12, -987.23];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ecdd {
    lambda: f64,
    width: [f64; 5],
    warning: f64,
    values_min: f64,
    seen: Moments,
    smoothed: f64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    let width = match k.count("run_length") {
        100 => WIDTH_100,
        400 => WIDTH_400,
        1000 => WIDTH_1000,
        _ => return Err(Refusal::Conflict { name: "run_length", why: "the paper tabulates 100, 400 and 1000 only" }),
    };
    Ok(Detector::Ecdd(Ecdd {
        lambda: k.get("lambda"),
        width,
        warning: k.get("warning"),
        values_min: k.get("values_min"),
        seen: Moments::default(),
        smoothed: 0.0,
    }))
}

// === impl Ecdd ===

impl Stream for Ecdd {
    fn update(&mut self, x: f64) -> Verdict {
        let x = x.clamp(0.0, 1.0);
        self.seen.add(x);
        self.smoothed = self.lambda * x + (1.0 - self.lambda) * self.smoothed;
        if self.seen.n < self.values_min {
            return Verdict::SILENT;
        }
        let p = self.seen.mean;
        let fade = (1.0 - self.lambda).powf(2.0 * self.seen.n);
        let deviation = (self.lambda / (2.0 - self.lambda) * (1.0 - fade) * (p * (1.0 - p)).max(0.0)).sqrt();
        let width: f64 = self.width.iter().zip(POWERS).map(|(c, power)| c * p.powi(power)).sum();
        let limit = p + width * deviation;
        Verdict::graded(self.smoothed > limit, self.smoothed > p + self.warning * width * deviation, self.smoothed, limit)
    }

    fn reset(&mut self) {
        self.seen = Moments::default();
        self.smoothed = 0.0;
    }
}
