//! Wasserstein: how far must the sand be carried to turn one heap into the other?
//!
//! **Formula.** The area between the two empirical distribution functions; for `normed` 1 divided by the standard deviation of the
//! reference (population form, at least 0.001), so that it has no unit, as in Evidently, whose default threshold of 0.1 it is.
//! `normed` 0 gives the plain distance in the unit of the data, as in SciPy, frouros and NannyML. **Sees** how far values moved,
//! which KS does not; one huge outlier moves it. **Source**: Kantorovich 1942; Vallender 1974 for the form in one dimension.

use super::{Compare, Kind, Outcome, Sample, Takes, Unfit, sorted, two_lists};
use crate::stream::knob::Knob;

pub const KIND: Kind = Kind {
    name: "wasserstein",
    about: "area between two distribution functions, in standard deviations of the reference",
    takes: Takes::Values,
    knobs: &[
        Knob::real("threshold", 0.1, 0.0, 1e300, "distance at which it has drifted"),
        Knob::whole("normed", 1.0, 0.0, 1.0, "1: in standard deviations of the reference; 0: in the unit of the data"),
    ],
    build: |k| Ok(Box::new(Wasserstein { threshold: k.get("threshold"), normed: k.get("normed") > 0.0 })),
};

/// Below this a reference has no spread worth dividing by.
const DEVIATION_MIN: f64 = 0.001;

#[derive(Clone, Debug)]
pub struct Wasserstein {
    threshold: f64,
    normed: bool,
}

// === impl Wasserstein ===

impl Compare for Wasserstein {
    fn compare(&self, reference: Sample<'_>, current: Sample<'_>) -> Result<Outcome, Unfit> {
        let (a, b) = two_lists(reference, current, 1)?;
        let mut distance = area_between(&sorted(a), &sorted(b));
        if self.normed {
            let n = a.len() as f64;
            let mean = a.iter().sum::<f64>() / n;
            let variance = a.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            distance /= variance.sqrt().max(DEVIATION_MIN);
        }
        Ok(Outcome::of_distance(distance, self.threshold))
    }
}

fn area_between(a: &[f64], b: &[f64]) -> f64 {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j, mut area) = (0, 0, 0.0);
    let mut at = a[0].min(b[0]);
    while i < a.len() || j < b.len() {
        let next = a.get(i).copied().unwrap_or(f64::INFINITY).min(b.get(j).copied().unwrap_or(f64::INFINITY));
        area += (i as f64 / n - j as f64 / m).abs() * (next - at);
        at = next;
        while i < a.len() && a[i] <= at {
            i += 1;
        }
        while j < b.len() && b[j] <= at {
            j += 1;
        }
    }
    area
}
