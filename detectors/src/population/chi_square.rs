//! Chi-square: do two sets of class counts come from one table?
//!
//! **Formula.** Sum over classes and both samples of (observed - expected)^2 / expected, expected from the pooled shares; degrees of
//! freedom: classes seen at all, less one. With two classes Yates' correction moves every difference a half towards zero, as SciPy's
//! `chi2_contingency` and NannyML do; `yates` 0 leaves it out. Evidently tests the current counts against the reference as if that
//! were known exactly (`chisquare`), which ignores the noise of the reference and has smaller p-values. **False alarms**: its level
//! holds for independent events with five or more expected per class; with large samples everything is significant.
//! **Source**: Pearson 1900; Yates 1934.

use statrs::function::gamma::gamma_ur;

use super::{Compare, Kind, Outcome, Sample, Takes, Unfit, two_counts};
use crate::stream::knob::Knob;

pub const KIND: Kind = Kind {
    name: "chi_square",
    about: "chi-square test of two sets of class counts",
    takes: Takes::Counts,
    knobs: &[
        Knob::real("alpha", 0.05, 0.0, 1.0, "p-value at which it has drifted"),
        Knob::whole("yates", 1.0, 0.0, 1.0, "1: continuity correction where there are two classes"),
    ],
    build: |k| Ok(Box::new(ChiSquare { alpha: k.get("alpha"), yates: k.get("yates") > 0.0 })),
};

#[derive(Clone, Debug)]
pub struct ChiSquare {
    alpha: f64,
    yates: bool,
}

// === impl ChiSquare ===

impl Compare for ChiSquare {
    fn compare(&self, reference: Sample<'_>, current: Sample<'_>) -> Result<Outcome, Unfit> {
        let (a, b) = two_counts(reference, current)?;
        let seen: Vec<(f64, f64)> = a.iter().zip(b).filter(|(a, b)| **a + **b > 0).map(|(a, b)| (*a as f64, *b as f64)).collect();
        let (n, m) = seen.iter().fold((0.0, 0.0), |s, c| (s.0 + c.0, s.1 + c.1));
        let freedom = seen.len() as f64 - 1.0;
        let corrected = self.yates && seen.len() == 2;
        let term = |observed: f64, expected: f64| {
            let off = (observed - expected).abs();
            let off = if corrected { off - off.min(0.5) } else { off };
            off * off / expected
        };
        let statistic: f64 = seen
            .iter()
            .map(|(a, b)| {
                let share = (a + b) / (n + m);
                term(*a, share * n) + term(*b, share * m)
            })
            .sum();
        // One class only: nothing can differ.
        let p_value = if freedom > 0.0 && statistic > 0.0 { gamma_ur(freedom / 2.0, statistic / 2.0) } else { 1.0 };
        Ok(Outcome::of_p_value(statistic, p_value, self.alpha))
    }
}
