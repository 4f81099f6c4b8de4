//! PSI, the population stability index: the symmetrised Kullback-Leibler divergence of credit scoring.
//!
//! **Formula.** sum over bins of (p - q) ln(p / q), p and q the shares of reference and current. An empty bin would cost infinity, so
//! it gets the share `floor` (a millionth of the smallest share where that is below the floor already), as in Evidently, whose
//! threshold of 0.1 is the default (the trade's older rule: below 0.1 stable, above 0.25 changed). frouros puts the smallest positive
//! number into empty bins instead, so that one empty bin alone costs about 700 times its share. **False alarms**: without any change
//! the index is about (bins - 1)(1/n + 1/m): small samples look unstable. **Source**: Lewis 1994; Kullback and Leibler 1951.

use super::bins::{BINS, LAYOUT, Layout, shares};
use super::{Compare, Kind, Outcome, Sample, Takes, Unfit};
use crate::stream::knob::Knob;

pub const KIND: Kind = Kind {
    name: "psi",
    about: "population stability index over bins or classes",
    takes: Takes::Both,
    knobs: &[
        Knob::real("threshold", 0.1, 0.0, 1e6, "index at which it has drifted"),
        Knob::real("floor", 0.0001, 1e-300, 0.1, "share that an empty bin is given"),
        LAYOUT,
        BINS,
    ],
    build: |k| Ok(Box::new(Psi { threshold: k.get("threshold"), floor: k.get("floor"), layout: Layout::of(k, true) })),
};

#[derive(Clone, Debug)]
pub struct Psi {
    threshold: f64,
    floor: f64,
    layout: Layout,
}

// === impl Psi ===

impl Psi {
    /// What stands in for an empty bin among shares whose smallest that is not zero is given.
    fn stand_in(&self, shares: impl Iterator<Item = f64>) -> f64 {
        let smallest = shares.filter(|p| *p > 0.0).fold(f64::INFINITY, f64::min);
        if smallest <= self.floor { smallest / 1e6 } else { self.floor }
    }
}

impl Compare for Psi {
    fn compare(&self, reference: Sample<'_>, current: Sample<'_>) -> Result<Outcome, Unfit> {
        let shares = shares(reference, current, self.layout)?;
        let (p_empty, q_empty) = (self.stand_in(shares.iter().map(|s| s.0)), self.stand_in(shares.iter().map(|s| s.1)));
        let index = shares
            .iter()
            .map(|(p, q)| {
                let (p, q) = (if *p > 0.0 { *p } else { p_empty }, if *q > 0.0 { *q } else { q_empty });
                (p - q) * (p / q).ln()
            })
            .sum();
        Ok(Outcome::of_distance(index, self.threshold))
    }
}
