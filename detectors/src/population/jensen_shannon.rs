//! Jensen-Shannon: how far are both populations from their own average?
//!
//! **Formula.** With m = (p + q) / 2: sqrt((KL(p, m) + KL(q, m)) / 2), natural logarithms, hence between 0 and sqrt(ln 2) = 0.833; a
//! metric. Empty bins cost nothing special, which is its advantage over PSI. Bins and threshold as in Evidently, the square root as
//! in SciPy. **Source**: Lin 1991; Endres and Schindelin 2003 for the metric.

use super::bins::{BINS, LAYOUT, Layout, shares};
use super::{Compare, Kind, Outcome, Sample, Takes, Unfit};
use crate::stream::knob::Knob;

pub const KIND: Kind = Kind {
    name: "jensen_shannon",
    about: "Jensen-Shannon distance over bins or classes",
    takes: Takes::Both,
    knobs: &[Knob::real("threshold", 0.1, 0.0, 1.0, "distance at which it has drifted"), LAYOUT, BINS],
    build: |k| Ok(Box::new(JensenShannon { threshold: k.get("threshold"), layout: Layout::of(k, true) })),
};

#[derive(Clone, Debug)]
pub struct JensenShannon {
    threshold: f64,
    layout: Layout,
}

// === impl JensenShannon ===

impl Compare for JensenShannon {
    fn compare(&self, reference: Sample<'_>, current: Sample<'_>) -> Result<Outcome, Unfit> {
        let towards = |p: f64, m: f64| if p > 0.0 { p * (p / m).ln() } else { 0.0 };
        let sum: f64 = shares(reference, current, self.layout)?
            .iter()
            .map(|(p, q)| {
                let m = (p + q) / 2.0;
                towards(*p, m) + towards(*q, m)
            })
            .sum();
        Ok(Outcome::of_distance((sum.max(0.0) / 2.0).sqrt(), self.threshold))
    }
}
