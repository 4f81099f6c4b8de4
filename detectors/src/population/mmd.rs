//! MMD, maximum mean discrepancy: are values of one sample as near to each other as to those of the other?
//!
//! **Formula.** mean k(x, x') over pairs of the reference + mean k(y, y') over pairs of the current sample - 2 mean k(x, y), with k(u,
//! v) = exp(-(u - v)^2 / (2 sigma^2)), pairs of different values only (the unbiased form, which may be slightly negative). `sigma` 0
//! takes Evidently's heuristic: sigma^2 is half the median squared distance of all ordered pairs of the reference, each value with
//! itself included; `sigma` 1 is frouros' kernel. **Sees** any change of a distribution at the scale of sigma. The p-values of both
//! libraries come from random permutations, which have no place here: the statistic stands alone, and its default threshold was
//! measured (see the page). Costs n^2 and is refused above `VALUES_MAX` a side. **Source**: Gretton et al. 2012.

use super::{Compare, Kind, Outcome, Sample, Side, Takes, Unfit, two_lists};
use crate::stream::knob::Knob;

pub const KIND: Kind = Kind {
    name: "mmd",
    about: "maximum mean discrepancy with a Gaussian kernel",
    takes: Takes::Values,
    knobs: &[
        Knob::real("threshold", 0.02, 0.0, 10.0, "discrepancy at which it has drifted"),
        Knob::real("sigma", 0.0, 0.0, 1e300, "width of the kernel in the unit of the data; 0 for the median heuristic"),
    ],
    build: |k| Ok(Box::new(Mmd { threshold: k.get("threshold"), sigma: k.get("sigma") })),
};

/// More values than this a side would take seconds and, for the median, hundreds of megabytes.
pub const VALUES_MAX: u64 = 5_000;

#[derive(Clone, Debug)]
pub struct Mmd {
    threshold: f64,
    sigma: f64,
}

// === impl Mmd ===

impl Compare for Mmd {
    fn compare(&self, reference: Sample<'_>, current: Sample<'_>) -> Result<Outcome, Unfit> {
        let (a, b) = two_lists(reference, current, 2)?;
        for (side, values) in [(Side::Reference, a), (Side::Current, b)] {
            if values.len() as u64 > VALUES_MAX {
                return Err(Unfit::TooMany { side, has: values.len() as u64, at_most: VALUES_MAX });
            }
        }
        let two_sigma_squared = if self.sigma > 0.0 { 2.0 * self.sigma * self.sigma } else { median_squared_distance(a) };
        let kernel = |u: f64, v: f64| (-(u - v) * (u - v) / two_sigma_squared).exp();
        let within = |s: &[f64]| {
            let sum: f64 = s.iter().enumerate().map(|(i, u)| s[i + 1..].iter().map(|v| kernel(*u, *v)).sum::<f64>()).sum();
            2.0 * sum / (s.len() as f64 * (s.len() as f64 - 1.0))
        };
        let between: f64 = a.iter().map(|u| b.iter().map(|v| kernel(*u, *v)).sum::<f64>()).sum();
        let statistic = within(a) + within(b) - 2.0 * between / (a.len() as f64 * b.len() as f64);
        Ok(Outcome::of_distance(statistic, self.threshold))
    }
}

/// Twice the squared width of the heuristic: the median over all n^2 ordered pairs, at the nearest rank; 1 if that is nothing.
fn median_squared_distance(a: &[f64]) -> f64 {
    let n = a.len();
    let mut squares: Vec<f64> = Vec::with_capacity(n * (n - 1) / 2);
    for (i, u) in a.iter().enumerate() {
        squares.extend(a[i + 1..].iter().map(|v| (u - v) * (u - v)));
    }
    // Rank (n^2 - 1) / 2 of all, half way to even; n of them are zeros, the others come in pairs.
    let rank = (((n * n - 1) as f64) / 2.0).round_ties_even() as usize;
    let median = if rank < n { 0.0 } else { *squares.select_nth_unstable_by((rank - n) / 2, f64::total_cmp).1 };
    if median > 0.0 { median } else { 1.0 }
}
