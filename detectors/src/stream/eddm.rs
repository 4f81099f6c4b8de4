//! EDDM: the distance between errors against the longest it has been.
//!
//! **Idea.** DDM turned round for slow changes: as a model gets worse, the number of values between two errors shrinks long before
//! the overall rate shows it. **Formula.** Over the distances between errors, mean m and standard deviation s; level = (m + 2 s) /
//! max(m + 2 s); warning below `alpha`, drift below `beta`, after 30 errors. Compared only when an error comes; the answer between
//! errors is quiet or the standing warning. **Sees** slow rises of the rate. **False alarms**: very many on noisy streams, since the
//! maximum is a lucky one. **Source**: Baena-Garcia et al. 2006; defaults, the sample variance and the count of `warm_start` for
//! both values and errors as in River (frouros divides by n, so its levels differ slightly).

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Moments, Signal, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "eddm",
    about: "distance between errors against its own maximum; slow rises of the error rate",
    takes: Takes::Errors,
    knobs: &[
        Knob::whole("warm_start", 30.0, 1.0, 1e9, "values, and errors, before anything is compared"),
        Knob::real("alpha", 0.95, 0.0, 1.0, "level below which it warns"),
        Knob::real("beta", 0.9, 0.0, 1.0, "level below which it alarms"),
    ],
    build,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Eddm {
    warm_start: f64,
    alpha: f64,
    beta: f64,
    n: f64,
    last_error: f64,
    distances: Moments,
    longest: Option<f64>,
    warned: bool,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    if k.get("alpha") < k.get("beta") {
        return Err(Refusal::Conflict { name: "alpha", why: "must not lie below beta" });
    }
    Ok(Detector::Eddm(Eddm {
        warm_start: k.get("warm_start"),
        alpha: k.get("alpha"),
        beta: k.get("beta"),
        n: 0.0,
        last_error: 0.0,
        distances: Moments::default(),
        longest: None,
        warned: false,
    }))
}

// === impl Eddm ===

impl Eddm {
    fn standing(&self) -> Verdict {
        Verdict { signal: if self.warned { Signal::Warning } else { Signal::Quiet }, ..Verdict::SILENT }
    }
}

impl Stream for Eddm {
    /// The score is 1 - level, so that more is worse; the limit is 1 - beta.
    fn update(&mut self, x: f64) -> Verdict {
        self.n += 1.0;
        if x < 0.5 {
            return self.standing();
        }
        self.distances.add(self.n - self.last_error);
        self.last_error = self.n;
        if self.n <= self.warm_start {
            return self.standing();
        }
        let reach = self.distances.mean + 2.0 * self.distances.variance().sqrt();
        match self.longest {
            Some(longest) if reach <= longest => {
                if self.distances.n <= self.warm_start {
                    return self.standing();
                }
                let level = reach / longest;
                if level >= self.beta {
                    self.warned = level < self.alpha;
                }
                Verdict::graded(level < self.beta, level < self.alpha, 1.0 - level, 1.0 - self.beta)
            }
            _ => {
                self.longest = Some(reach);
                self.standing()
            }
        }
    }

    fn reset(&mut self) {
        (self.n, self.last_error, self.longest, self.warned) = (0.0, 0.0, None, false);
        self.distances = Moments::default();
    }
}
