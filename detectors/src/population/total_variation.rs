//! Total variation: the share of events that would have to change class to make the populations equal.
//!
//! **Formula.** half the sum of |p - q|, between 0 and 1. Evidently compares it with its permutations (random, hence not here); the
//! statistic is the same for classes. NannyML's "L-infinity" is the largest single |p - q| instead. The threshold of 0.1 means that
//! a tenth of the events have moved. **Source**: Levin, Peres and Wilmer 2009, chapter 4.

use super::bins::{BINS, LAYOUT, Layout, shares};
use super::{Compare, Kind, Outcome, Sample, Takes, Unfit};
use crate::stream::knob::Knob;

pub const KIND: Kind = Kind {
    name: "total_variation",
    about: "share of events that changed class or bin",
    takes: Takes::Both,
    knobs: &[Knob::real("threshold", 0.1, 0.0, 1.0, "distance at which it has drifted"), LAYOUT, BINS],
    build: |k| Ok(Box::new(TotalVariation { threshold: k.get("threshold"), layout: Layout::of(k, true) })),
};

#[derive(Clone, Debug)]
pub struct TotalVariation {
    threshold: f64,
    layout: Layout,
}

// === impl TotalVariation ===

impl Compare for TotalVariation {
    fn compare(&self, reference: Sample<'_>, current: Sample<'_>) -> Result<Outcome, Unfit> {
        let sum: f64 = shares(reference, current, self.layout)?.iter().map(|(p, q)| (p - q).abs()).sum();
        Ok(Outcome::of_distance(sum / 2.0, self.threshold))
    }
}
