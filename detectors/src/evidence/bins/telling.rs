//! What is told of an alarm: when it began, how large it is, and the values before and after.

use std::array::from_fn;

use super::{Armed, BINS_MAX, HOUR_MS, Regrouped, SINCE_BINS_MAX, Told, UPPER_TENTH, add_counts, quantile_of};
use crate::evidence::trail::{PARTS, Row, over_parts, place_of};
use crate::evidence::{exp, ln, normal_cdf};
use crate::verdict::{Change, Onset};

/// Shifts that a change may have, evenly in their logarithm.
const SIZES: usize = 64;
const SIZE_MIN: f64 = 0.03;
const SIZE_MAX: f64 = 5.0;
/// Sizes up to here are told by the baseline's own quantiles.
pub(super) const SIZE_TOLD_MAX: f64 = 2.0;
/// Stretches that a tail may have.
const STRETCHES: [f64; 8] = [1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 6.0];
const STRETCHED_FROM: [f64; 3] = [UPPER_TENTH, 1.6449, 1.8808];

// === impl Armed ===

impl Armed {
    /// Events and scores of a row of the trail, these as if it were of the present hour.
    pub(super) fn score_of(&self, row: &Row) -> (f64, f64) {
        let counts = &row.sums[..BINS_MAX];
        let (mut n, mut score) = (0.0, 0.0);
        for (c, z) in counts.iter().zip(&self.scores.of_bin) {
            n += f64::from(*c);
            score += f64::from(c * z);
        }
        let levels = &self.hours.levels;
        let (then, now) = (row.start_ms.div_euclid(HOUR_MS), levels.hour());
        let moved = if self.now.width > 0.0 && then != now { levels.level(then).middle - levels.level(now).middle } else { 0.0 };
        (n, score - n * moved)
    }

    /// Everything that came in from a time on, by whole rows.
    pub(super) fn since(&self, start_ms: i64) -> Regrouped {
        let mut counts = [0.0; BINS_MAX];
        for row in self.trail.newest_first().take_while(|row| row.start_ms >= start_ms) {
            for (sum, c) in counts.iter_mut().zip(&row.sums[..BINS_MAX]) {
                *sum += f64::from(*c);
            }
        }
        Regrouped { counts, n: counts.iter().sum() }
    }

    /// The same on the grid: each bin's values spread evenly over some of its grid bins, those of open bins as in the newest pane.
    pub(super) fn on_grid(&self, seen: &Regrouped, newest: &[(u16, u32)]) -> Vec<(u16, u32)> {
        const SPREAD: u32 = 8;
        let mut grid = Vec::new();
        let cuts = self.cuts();
        for (b, c) in seen.counts[..self.bins].iter().enumerate() {
            let c = c.round() as u32;
            let low = b.checked_sub(1).map(|i| cuts[i]);
            let mut places: Vec<u16> = match (low, cuts.get(b)) {
                (Some(low), Some(high)) => {
                    let width = u32::from(high.saturating_sub(low)).max(1);
                    let parts = SPREAD.min(width);
                    (1..=parts).map(|i| low.saturating_add((width * i / parts) as u16)).collect()
                }
                (Some(low), None) => newest.iter().map(|k| k.0).filter(|bin| *bin > low).collect(),
                (None, high) => newest.iter().map(|k| k.0).filter(|bin| high.is_none_or(|high| bin <= high)).collect(),
            };
            if places.is_empty() {
                places.push(low.map_or_else(|| cuts.first().copied().unwrap_or(0), |low| low.saturating_add(1)));
            }
            let parts = places.len() as u32;
            for (i, bin) in (0u32..).zip(&places) {
                let share = c / parts + u32::from(i < c % parts);
                if share > 0 {
                    add_counts(&mut grid, &[(*bin, share)], SINCE_BINS_MAX);
                }
            }
        }
        grid
    }

    /// When a shift began, and its 2.5, 50 and 97.5 % points.
    pub(super) fn onset_of_shift(&self, up: bool, pointer_ms: i64, pane_ms: i64) -> (Onset, Option<[f64; 3]>) {
        let side = if up { 1.0 } else { -1.0 };
        let size = |place: f64| side * SIZE_MIN * (SIZE_MAX / SIZE_MIN).powf(place / SIZES as f64);
        let tilts: [(f64, f64); SIZES] = from_fn(|j| {
            let d = size(j as f64 + 0.5);
            (d, self.ln_norm(d))
        });
        let per = 1.0 / self.dispersion();
        let add = |row: &Row, nats: &mut [f64]| {
            let (n, score) = self.score_of(row);
            for (sum, (d, ln_norm)) in nats.iter_mut().zip(&tilts) {
                *sum += (d * score - n * ln_norm) * per;
            }
        };
        // A pane of which a part is changed is a mixture.
        let mut mixed = vec![[[0.0f32; BINS_MAX]; PARTS.len()]; SIZES];
        for ((d, ln_norm), tables) in tilts.iter().zip(&mut mixed) {
            for b in 0..self.bins {
                let ratio = exp(d * f64::from(self.scores.of_bin[b]) - ln_norm);
                for (table, part) in tables.iter_mut().zip(PARTS) {
                    table[b] = ln(1.0 - part + part * ratio) as f32;
                }
            }
        }
        let first = |row: &Row, nats: &mut [f64]| {
            for (sum, tables) in nats.iter_mut().zip(&mixed) {
                *sum += over_parts(from_fn(|part| per * f64::from(row.sums.iter().zip(&tables[part]).map(|(c, l)| c * l).sum::<f32>())));
            }
        };
        let (onset, weights) = self.trail.explain(SIZES, pointer_ms, pane_ms, add, first);
        (onset, Some([0.025, 0.5, 0.975].map(|level| size(place_of(&weights, level)))))
    }

    pub(super) fn onset_of_tail(&self, pointer_ms: i64, pane_ms: i64) -> Onset {
        let edges = self.edges();
        let per = 1.0 / self.dispersion();
        let tables: Vec<([f32; BINS_MAX], f64)> = STRETCHED_FROM
            .iter()
            .flat_map(|from| STRETCHES.map(|stretch| self.stretched(&edges, *from, stretch)))
            .map(|table| {
                let norm: f64 = (0..self.bins).map(|b| self.share(b) * exp(f64::from(table[b]))).sum();
                (table, ln(norm))
            })
            .collect();
        let add = |row: &Row, nats: &mut [f64]| {
            let counts = &row.sums[..BINS_MAX];
            let n: f64 = counts.iter().map(|c| f64::from(*c)).sum();
            for (sum, (table, ln_norm)) in nats.iter_mut().zip(&tables) {
                let tail: f64 = counts.iter().zip(table).map(|(c, l)| f64::from(c * l)).sum();
                *sum += (tail - n * ln_norm) * per;
            }
        };
        let (onset, _) = self.trail.explain(tables.len(), pointer_ms, pane_ms, add, add);
        onset
    }

    /// The change of a quantile. A shift of moderate size is told by the baseline's own quantiles over all starts that it may have
    /// had; anything else by what came in since the likeliest start, its interval by the binomial law of ranks. What lies beyond all
    /// cuts is told by the newest pane alone, which has no part in what was before.
    pub(super) fn change(&self, since: &Regrouped, told: Told, size: Option<[f64; 3]>, newest: &[(u16, u32)]) -> Change {
        let q = if told == Told::P95 { 0.95 } else { 0.5 };
        let before = self.quantile(q);
        let rank = |n: f64, deviations: f64| (q + deviations * (q * (1.0 - q) * self.dispersion() / n.max(1.0)).sqrt()).clamp(0.0, 1.0);
        let [low, after, high] = [-1.96, 0.0, 1.96].map(|deviations| self.quantile_of(&since.counts, rank(since.n, deviations)));
        if low.1 || after.1 || high.1 {
            let n = newest.iter().map(|k| f64::from(k.1)).sum();
            let [low, after, high] = [-1.96, 0.0, 1.96].map(|deviations| quantile_of(newest, rank(n, deviations)));
            return Change { before, after, low, high };
        }
        if let (Told::Median, Some(size)) = (told, size)
            && size.iter().all(|d| d.abs() <= SIZE_TOLD_MAX)
        {
            let [a, shifted, b] = size.map(|d| self.quantile(normal_cdf(d)));
            // Not when the median denies it: then it is another change than a shift.
            let [least, most] = [-4.0, 4.0].map(|deviations| self.quantile_of(&since.counts, rank(since.n, deviations)).0);
            if least <= shifted && shifted <= most {
                return Change { before, after: shifted, low: a.min(b), high: a.max(b) };
            }
        }
        Change { before, after: after.0, low: low.0, high: high.0 }
    }
}
