//! Hellinger: the Euclidean distance of the square roots of two sets of shares.
//!
//! **Formula.** sqrt(1 - sum sqrt(p q)), between 0 and 1; a metric, and mild to empty bins. By default bins and threshold as in
//! Evidently, which for numbers takes Sturges' rule on the number of *distinct* values. frouros takes ten bins of equal width
//! (`layout` 1) and is equal then. **Source**: Hellinger 1909.

use super::bins::{BINS, LAYOUT, Layout, shares, shares_by_distinct};
use super::{Compare, Kind, Outcome, Sample, Takes, Unfit, two_lists};
use crate::stream::knob::Knob;

pub const KIND: Kind = Kind {
    name: "hellinger",
    about: "Hellinger distance over bins or classes",
    takes: Takes::Both,
    knobs: &[Knob::real("threshold", 0.1, 0.0, 1.0, "distance at which it has drifted"), LAYOUT, BINS],
    build: |k| Ok(Box::new(Hellinger { threshold: k.get("threshold"), layout: Layout::of(k, false) })),
};

#[derive(Clone, Debug)]
pub struct Hellinger {
    threshold: f64,
    layout: Layout,
}

// === impl Hellinger ===

impl Compare for Hellinger {
    fn compare(&self, reference: Sample<'_>, current: Sample<'_>) -> Result<Outcome, Unfit> {
        let shares = match (reference, current, self.layout) {
            (Sample::Values(_), Sample::Values(_), Layout::Sturges { .. }) => {
                let (a, b) = two_lists(reference, current, 1)?;
                shares_by_distinct(a, b)
            }
            _ => shares(reference, current, self.layout)?,
        };
        // The sum of squared differences says the same as 1 - sum sqrt(p q) without losing small distances to rounding.
        let squares: f64 = shares.iter().map(|(p, q)| (p.sqrt() - q.sqrt()).powi(2)).sum();
        Ok(Outcome::of_distance((squares / 2.0).sqrt(), self.threshold))
    }
}
