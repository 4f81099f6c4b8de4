//! Two samples as shares of the same bins or classes: what PSI, Jensen-Shannon, Hellinger and total variation look at.
//!
//! Numbers are put into bins of equal width over the range of both samples; by default as many as Sturges' rule asks for (ceil(log2
//! n) + 1), which is what Evidently does. A reference with few distinct values (at most 20) is taken as classes, one per distinct
//! value, again as Evidently does. Bins at the quantiles of the reference are the other custom: `layout` 2.

use super::{Sample, Unfit, Wanted, sorted, two_counts, two_lists};
use crate::stream::knob::{Knob, Knobs};

/// At most so many distinct reference values are classes, not numbers.
const CLASSES_MAX: usize = 20;
/// More bins than this say nothing and cost memory.
const BINS_MAX: usize = 10_000;

pub const LAYOUT: Knob = Knob::whole(
    "layout",
    0.0,
    0.0,
    2.0,
    "bins for numbers: 0 Sturges' rule (few distinct values: classes), 1 equal width, 2 quantiles of the reference",
);
pub const BINS: Knob = Knob::whole("bins", 10.0, 2.0, BINS_MAX as f64, "number of bins for layouts 1 and 2");

/// How numbers are put into bins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    Sturges { few_are_classes: bool },
    EqualWidth(usize),
    Quantiles(usize),
}

impl Layout {
    pub fn of(k: &Knobs, few_are_classes: bool) -> Layout {
        match k.count("layout") {
            1 => Layout::EqualWidth(k.count("bins")),
            2 => Layout::Quantiles(k.count("bins")),
            _ => Layout::Sturges { few_are_classes },
        }
    }
}

/// Shares of the reference and of the current sample in the same bins.
///
/// # Errors
/// As [`super::Compare::compare`].
pub fn shares(reference: Sample<'_>, current: Sample<'_>, layout: Layout) -> Result<Vec<(f64, f64)>, Unfit> {
    match (reference, current) {
        (Sample::Counts(_), Sample::Counts(_)) => {
            let (a, b) = two_counts(reference, current)?;
            let total = |counts: &[u64]| counts.iter().map(|c| *c as f64).sum::<f64>();
            let (n, m) = (total(a), total(b));
            Ok(a.iter().zip(b).filter(|(a, b)| **a + **b > 0).map(|(a, b)| (*a as f64 / n, *b as f64 / m)).collect())
        }
        (Sample::Values(_), Sample::Values(_)) => {
            let (a, b) = two_lists(reference, current, 1)?;
            let (a, b) = (sorted(a), sorted(b));
            Ok(match layout {
                Layout::Sturges { few_are_classes: true } if distinct(&a) <= CLASSES_MAX => by_value(&a, &b),
                Layout::Sturges { .. } => {
                    let n = a.len() + b.len();
                    by_edges(&a, &b, &equal_width(&a, &b, sturges(n)))
                }
                Layout::EqualWidth(bins) => by_edges(&a, &b, &equal_width(&a, &b, bins)),
                Layout::Quantiles(bins) => by_edges(&a, &b, &at_quantiles(&a, bins)),
            })
        }
        _ => Err(Unfit::WrongKind { takes: Wanted::TwoOfAKind }),
    }
}

/// Shares in Sturges bins whose number follows from the distinct values of both samples (Evidently's Hellinger).
pub(super) fn shares_by_distinct(a: &[f64], b: &[f64]) -> Vec<(f64, f64)> {
    let (a, b) = (sorted(a), sorted(b));
    let mut both: Vec<f64> = a.iter().chain(&b).copied().collect();
    both.sort_unstable_by(f64::total_cmp);
    let n = distinct(&both);
    by_edges(&a, &b, &equal_width(&a, &b, sturges(n)))
}

/// Bins for n values by Sturges' rule: the range divided by (log2 n + 1), rounded up.
fn sturges(n: usize) -> usize {
    ((n as f64).log2() + 1.0).ceil() as usize
}

fn distinct(sorted: &[f64]) -> usize {
    usize::from(!sorted.is_empty()) + sorted.windows(2).filter(|w| w[0] != w[1]).count()
}

/// Edges of equal bins over the range of both; a range of nothing is widened by a half to each side.
fn equal_width(a: &[f64], b: &[f64], bins: usize) -> Vec<f64> {
    let (mut low, mut high) = (a[0].min(b[0]), a[a.len() - 1].max(b[b.len() - 1]));
    let bins = if low == high { 1 } else { bins };
    if low == high {
        (low, high) = (low - 0.5, high + 0.5);
    }
    let step = (high - low) / bins as f64;
    let mut edges: Vec<f64> = (0..bins).map(|i| low + i as f64 * step).collect();
    edges.push(high);
    edges
}

/// Edges at the quantiles of the reference (linear between order statistics), open to both sides; equal ones are merged.
fn at_quantiles(a: &[f64], bins: usize) -> Vec<f64> {
    let mut edges = vec![f64::NEG_INFINITY];
    for i in 1..bins {
        let at = i as f64 / bins as f64 * (a.len() - 1) as f64;
        let (low, part) = (at.floor() as usize, at.fract());
        let edge = a[low] + part * (a[(low + 1).min(a.len() - 1)] - a[low]);
        if edges.last().is_none_or(|last| edge > *last) {
            edges.push(edge);
        }
    }
    edges.push(f64::INFINITY);
    edges
}

/// A bin holds its lower edge but not its upper one; the last holds both.
fn by_edges(a: &[f64], b: &[f64], edges: &[f64]) -> Vec<(f64, f64)> {
    let last = edges.len() - 2;
    let below = |sorted: &[f64], i: usize| {
        if i > last { sorted.partition_point(|v| *v <= edges[i]) } else { sorted.partition_point(|v| *v < edges[i]) }
    };
    (0..=last)
        .map(|i| {
            let share = |sorted: &[f64]| (below(sorted, i + 1) - below(sorted, i)) as f64 / sorted.len() as f64;
            (share(a), share(b))
        })
        .collect()
}

fn by_value(a: &[f64], b: &[f64]) -> Vec<(f64, f64)> {
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() || j < b.len() {
        let x = match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) => x.min(*y),
            (Some(x), None) => *x,
            (None, Some(y)) => *y,
            (None, None) => break,
        };
        let (from_i, from_j) = (i, j);
        while i < a.len() && a[i] <= x {
            i += 1;
        }
        while j < b.len() && b[j] <= x {
            j += 1;
        }
        out.push(((i - from_i) as f64 / a.len() as f64, (j - from_j) as f64 / b.len() as f64));
    }
    out
}
