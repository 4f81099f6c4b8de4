//! DDM: the error rate against the best it has ever been.
//!
//! **Idea.** A model that keeps learning errs less and less; when its error rate stands well above its best, the world has changed.
//! **Formula.** p the mean of all errors, s = sqrt(p (1 - p) / n); p and s are kept where p + s was least; warning when p + s >
//! p_min + 2 s_min, drift above p_min + 3 s_min. **Sees** rises, abrupt better than slow; the longer the quiet, the slower, since
//! p is a mean over everything. **False alarms**: the least of a wandering value is a lucky one, so quiet streams alarm often.
//! **Source**: Gama, Medas, Castillo and Rodrigues 2004; defaults and strict inequalities as in River.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Moments, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "ddm",
    about: "error rate against its own minimum; abrupt rises of the error rate",
    takes: Takes::Errors,
    knobs: &[
        Knob::whole("warm_start", 30.0, 1.0, 1e9, "values before anything is compared"),
        Knob::real("warning", 2.0, 0.0, 100.0, "standard deviations above the minimum at which it warns"),
        Knob::real("drift", 3.0, 0.0, 100.0, "standard deviations above the minimum at which it alarms"),
    ],
    build,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ddm {
    warm_start: f64,
    warning: f64,
    drift: f64,
    seen: Moments,
    /// Rate and standard deviation where their sum was least.
    best: Option<(f64, f64)>,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    if k.get("warning") > k.get("drift") {
        return Err(Refusal::Conflict { name: "warning", why: "must not lie above drift" });
    }
    Ok(Detector::Ddm(Ddm { warm_start: k.get("warm_start"), warning: k.get("warning"), drift: k.get("drift"), seen: Moments::default(), best: None }))
}

// === impl Ddm ===

impl Stream for Ddm {
    fn update(&mut self, x: f64) -> Verdict {
        self.seen.add(x.clamp(0.0, 1.0));
        if self.seen.n <= self.warm_start {
            return Verdict::SILENT;
        }
        let p = self.seen.mean;
        let s = (p * (1.0 - p) / self.seen.n).max(0.0).sqrt();
        let (p_min, s_min) = match self.best {
            Some((p_min, s_min)) if p + s > p_min + s_min => (p_min, s_min),
            _ => *self.best.insert((p, s)),
        };
        let limit = p_min + self.drift * s_min;
        Verdict::graded(p + s > limit, p + s > p_min + self.warning * s_min, p + s, limit)
    }

    fn reset(&mut self) {
        self.seen = Moments::default();
        self.best = None;
    }
}
