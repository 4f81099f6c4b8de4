//! The bets on a pane: what each alternative gains against what lies within tolerance.

use std::array::from_fn;

use serde::{Deserialize, Serialize};

use super::{Armed, BINS_MAX, Regrouped, UPPER_TENTH};
use crate::evidence::mixture::{LANES, lanes_of, sum_of};
use crate::evidence::{NormalTable, apart, excess_rising, exp, ln, ln_rising, ln_rising_of_half, overshoot};

pub(super) const SHIFTS: [f64; 5] = [0.1, 0.2, 0.4, 0.8, 1.6];
/// Stretch of everything above a normal score, that of the upper 10, 5 and 3 %: (score of the quantile, factor).
const TAILS: [(f64, f64); 5] = [(UPPER_TENTH, 1.5), (UPPER_TENTH, 2.5), (1.6449, 2.5), (1.8808, 2.0), (1.8808, 4.0)];
/// Alternatives that are known beforehand, in this order: shifts up, shifts down, tails.
pub(super) const KNOWN: usize = 2 * SHIFTS.len() + TAILS.len();
/// And two that reach anything, up and down.
pub(super) const ARMS: usize = KNOWN + 2;
pub(super) const BLOCKS: usize = ARMS.div_ceil(LANES);
pub(super) const DOWN: usize = SHIFTS.len();
pub(super) const TAIL: usize = 2 * SHIFTS.len();
/// Parts of the injection, in the order of the alternatives. Small changes get the greater part, so that every change pays about
/// the same share of its delay for not being known.
pub(super) const WEIGHTS: [f64; ARMS] = [0.13, 0.087, 0.13, 0.03, 0.003, 0.13, 0.087, 0.13, 0.03, 0.003, 0.04, 0.03, 0.05, 0.04, 0.02, 0.03, 0.03];
/// The same for lanes; those beyond are given nothing.
pub(super) const SHARES: [[f32; LANES]; BLOCKS] = lanes_of(&WEIGHTS);
/// The series of the predictive is used while the first term left out is below this, in units of 12 nats.
const SERIES_ERROR_MAX: f64 = 0.02;
/// A pane is strange, and the bets on anything are looked at, from this chi-squared per bin on.
const STRANGE: f64 = 4.0;
/// What an alternative gains in a pane in which it is not looked at: its evidence is given up.
const LET_GO: f32 = -50.0;

/// Null and alternatives, as of the last refresh. All are tilts: the probability of a bin is its quiet share times the exponential of
/// a number per bin, divided by the sum of those. Of the quiet share itself, which all have in common, nothing is left in the ratios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[repr(C)]
pub(super) struct Bets {
    /// Made from the scores when a pane is judged: a bank that only learns renews its scores often and never bets.
    pub(super) made: bool,
    /// Half the reciprocals of the bins' probabilities at the upper and lower edge of tolerance.
    up: [f32; BINS_MAX],
    down: [f32; BINS_MAX],
    /// ln of the sum that divides each alternative, over that of its null.
    ln_norm: [f32; KNOWN],
    /// The first bin that any stretch changes: the bin in which it begins too, of which it takes a part away.
    tails_from: usize,
    /// By how much the tails change a bin, in nats.
    tails: [[f32; TAILS.len()]; BINS_MAX],
}

/// What the predictives at both edges of tolerance add beyond their shares, in nats; chi-squared and the largest error of the series, each
/// in units that `likelihoods` knows.
struct Series {
    up: f64,
    down: f64,
    chi: f64,
    error: f64,
}

/// The first terms in d / a of ln of Gamma(a + d) / Gamma(a), eight bins side by side.
#[inline(never)]
fn series(divided: &[f32; BINS_MAX], up: &[f32; BINS_MAX], down: &[f32; BINS_MAX], per_weight: f32) -> Series {
    let (mut ups, mut downs, mut chis, mut errors) = ([0.0; LANES], [0.0; LANES], [0.0; LANES], [0.0f32; LANES]);
    fn rows(of_bins: &[f32]) -> &[[f32; LANES]] {
        of_bins.as_chunks().0
    }
    for ((divided, up), down) in rows(divided).iter().zip(rows(up)).zip(rows(down)) {
        for j in 0..LANES {
            let d = divided[j];
            let (a, c) = (up[j] * per_weight, down[j] * per_weight);
            let (more, twice) = (d * (d - 1.0), (2.0 * d - 1.0) * (1.0 / 3.0));
            ups[j] += more * a * (1.0 - twice * a);
            downs[j] += more * c * (1.0 - twice * c);
            let most = if a > c { a } else { c };
            chis[j] += d * d * most;
            // A part of an event is as far from none, in a bin that holds next to nothing, as a whole one is.
            let far = if d > 1.0 { d } else { 1.0 } * most;
            let error = d * far * far * far;
            errors[j] = if error > errors[j] { error } else { errors[j] };
        }
    }
    let error = errors.iter().fold(0.0f32, |most, error| if *error > most { *error } else { most });
    Series { up: f64::from(sum_of(&ups)), down: f64::from(sum_of(&downs)), chi: f64::from(sum_of(&chis)), error: f64::from(error) }
}

// === impl Armed ===

impl Armed {
    /// ln of what divides a tilt of the quiet shares by their scores.
    pub(super) fn ln_norm(&self, tilt: f64) -> f64 {
        let tilted = (0..self.bins).map(|b| self.share(b) * exp(tilt * f64::from(self.scores.of_bin[b])));
        ln(tilted.sum())
    }

    /// ln of the ratios by which stretching everything above a score changes the bins' shares.
    pub(super) fn stretched(&self, edges: &[f64; BINS_MAX], from: f64, stretch: f64) -> [f32; BINS_MAX] {
        let normal = NormalTable::get();
        let above = |z: f64| normal.cdf(-(from + (z - from) / stretch));
        let mut out = [0.0; BINS_MAX];
        for b in 0..self.bins {
            if edges[b] <= from {
                continue;
            }
            let low = if b == 0 { f64::NEG_INFINITY } else { edges[b - 1] };
            let inside = if low >= from { above(low) } else { normal.cdf(-low.max(-8.0)) };
            let beyond = if b + 1 < self.bins { above(edges[b]) } else { 0.0 };
            out[b] = ln(((inside - beyond) / self.share(b)).max(1e-6)) as f32;
        }
        out
    }

    pub(super) fn make_bets(&mut self, t: f64) {
        let edges = self.edges();
        let mut bets = Bets { made: true, ..Bets::default() };
        let (ln_up, ln_down) = if t > 0.0 { (self.ln_norm(t), self.ln_norm(-t)) } else { (0.0, 0.0) };
        let mut at_edge = [0.0; BINS_MAX];
        for (b, at_edge) in at_edge.iter_mut().enumerate().take(self.bins) {
            let (share, score) = (self.share(b), f64::from(self.scores.of_bin[b]));
            let tilt = if t > 0.0 { exp(t * score) } else { 1.0 };
            *at_edge = share * tilt * exp(-ln_up);
            bets.up[b] = (0.5 / *at_edge) as f32;
            bets.down[b] = (0.5 * tilt * exp(ln_down) / share) as f32;
        }
        for (j, d) in SHIFTS.iter().enumerate() {
            bets.ln_norm[j] = (self.ln_norm(d + t) - ln_up) as f32;
            bets.ln_norm[DOWN + j] = (self.ln_norm(-(d + t)) - ln_down) as f32;
        }
        bets.tails_from = self.bins;
        for (j, (from, stretch)) in TAILS.iter().enumerate() {
            let tail = self.stretched(&edges, *from, *stretch);
            // Divided by the most that any edge of tolerance makes of it: what lies below the stretch may lose.
            let (mut low, mut middle, mut high) = (0.0, 0.0, 0.0);
            for (b, (l, up)) in tail.iter().zip(&at_edge).enumerate().take(self.bins) {
                let ratio = exp(f64::from(*l));
                low += 0.5 / f64::from(bets.down[b]) * ratio;
                middle += self.share(b) * ratio;
                high += up * ratio;
            }
            bets.tails_from = bets.tails_from.min(tail.iter().position(|l| *l != 0.0).unwrap_or(self.bins));
            bets.tails.iter_mut().zip(tail).for_each(|(of_bin, l)| of_bin[j] = l);
            bets.ln_norm[TAIL + j] = ln(high.max(middle).max(low)) as f32;
        }
        self.bets = bets;
    }

    /// Log-likelihood ratios of all alternatives against the predictive at the edge of tolerance.
    pub(super) fn likelihoods(&mut self, seen: &Regrouped, dispersion: f64, injection: f64, tolerance: f64) -> [[f32; LANES]; BLOCKS] {
        if !self.bets.made {
            self.make_bets(tolerance);
        }
        let per = 1.0 / dispersion;
        let v = seen.n * per;
        let weight = (self.sum + 0.5 * self.bins as f64) * per;
        let per_weight = 1.0 / weight;
        // ln of Gamma(a + d) / Gamma(a) is d ln a, of which only tilts remain in the ratios, and a series in d / a.
        let divided = seen.counts.map(|c| (c * per) as f32);
        let Series { mut up, mut down, chi, error } = series(&divided, &self.bets.up, &self.bets.down, per_weight as f32);
        let score = per * seen.dot(&self.scores.of_bin);
        let mut tails = [0.0; TAILS.len()];
        for (c, of_bin) in seen.counts.iter().zip(&self.bets.tails).skip(self.bets.tails_from) {
            if *c > 0.0 {
                tails.iter_mut().zip(of_bin).for_each(|(sum, l)| *sum += c * f64::from(*l));
            }
        }
        let all = v * 0.5 * per_weight;
        if error.max(v * all * all * all) * 8.0 < SERIES_ERROR_MAX * 12.0 {
            let series = (v - 1.0) * all * (1.0 - (2.0 * v - 1.0) * per_weight / 6.0);
            up -= series;
            down -= series;
        } else {
            (up, down) = self.risen(seen, per, weight);
        }
        let apart = apart(v, (self.bins - 1) as f64, dispersion, weight);
        (up, down) = (up + apart, down + apart);
        let mut lanes = [[f32::NEG_INFINITY; LANES]; BLOCKS];
        let l = lanes.as_flattened_mut();
        for (j, d) in SHIFTS.iter().enumerate() {
            l[j] = (d * score - v * f64::from(self.bets.ln_norm[j]) - up) as f32;
            l[DOWN + j] = (-d * score - v * f64::from(self.bets.ln_norm[DOWN + j]) - down) as f32;
        }
        for (j, sum) in tails.iter().enumerate() {
            l[TAIL + j] = (sum * per - v * f64::from(self.bets.ln_norm[TAIL + j]) - up) as f32;
        }
        // In a pane like all others the bets on anything only lose: they are let go, unless they hold something.
        let strange = 2.0 * weight * chi > v * v + STRANGE * self.bins as f64 * v;
        let holds = self.evidence.of(KNOWN).max(self.evidence.of(KNOWN + 1)) > injection;
        (l[KNOWN], l[KNOWN + 1]) = if strange || holds {
            // Against the shift within tolerance that explains the pane best: the far edge would make evidence from nothing.
            let nearest = (score / (v * self.scores.variance).max(1e-9)).clamp(-tolerance, tolerance);
            let over = (self.anything(seen, per) - (nearest * score - v * self.ln_norm(nearest) + up.max(down))) as f32;
            // It bets on the side to which the pane leans.
            if score > 0.0 { (over, over.min(-0.5)) } else { (over.min(-0.5), over) }
        } else {
            (LET_GO, LET_GO)
        };
        lanes
    }

    /// What evidence may be multiplied by before a pane of so many events.
    pub(super) fn handed_out(&self, events: f64, injection: f64, tolerance: f64) -> f64 {
        let stakes: [f64; ARMS] = self.evidence.at_stake(0, &WEIGHTS, injection);
        let all: f64 = stakes.iter().sum();
        if !overshoot::worth_asking(all, events, self.sum / self.dispersion) {
            return 1.0;
        }
        let at_edge = |halves: &[f32; BINS_MAX]| -> [f64; BINS_MAX] { from_fn(|b| if b < self.bins { 0.5 / f64::from(halves[b]) } else { 0.0 }) };
        let (up, down, tails) = (&stakes[..DOWN], &stakes[DOWN..TAIL], &stakes[TAIL..KNOWN]);
        let tail = (0..TAILS.len()).fold(0, |best, j| if tails[j] > tails[best] { j } else { best });
        let (of_up, of_down): (f64, f64) = (up.iter().sum(), down.iter().sum());
        if of_up.max(of_down) >= tails[tail] {
            let scores = self.scores.of_bin.map(f64::from);
            let (tilts, stakes, law) =
                if of_up >= of_down { (SHIFTS, up, at_edge(&self.bets.up)) } else { (SHIFTS.map(|d| -d), down, at_edge(&self.bets.down)) };
            let others = all - of_up.max(of_down);
            overshoot::Family { tilts: &tilts, stakes, others }.lift_of_scores(events, &law[..self.bins], &scores[..self.bins])
        } else if tolerance > 0.0 {
            // Which law within tolerance a tail is judged by is another one for each.
            1.0
        } else {
            let scores = self.bets.tails.map(|of_bin| f64::from(of_bin[tail]));
            let law = at_edge(&self.bets.up);
            overshoot::Family { tilts: &[1.0], stakes: &tails[tail..=tail], others: all - tails[tail] }.lift_of_scores(
                events,
                &law[..self.bins],
                &scores[..self.bins],
            )
        }
    }

    /// What the series in `likelihoods` stands for, exactly: for young baselines and large panes.
    pub(super) fn risen(&self, seen: &Regrouped, per: f64, weight: f64) -> (f64, f64) {
        let excess = |a: f64, d: f64| excess_rising(a, ln(a), d);
        let (mut up, mut down) = (0.0, 0.0);
        for b in 0..self.bins {
            if seen.counts[b] > 0.0 {
                let d = seen.counts[b] * per;
                up += excess(0.5 * weight / f64::from(self.bets.up[b]), d);
                down += excess(0.5 * weight / f64::from(self.bets.down[b]), d);
            }
        }
        let all = excess(weight, seen.n * per);
        (up - all, down - all)
    }

    /// Dirichlet(1/2) over the quiet shares.
    pub(super) fn anything(&self, seen: &Regrouped, per: f64) -> f64 {
        let mut sum = 0.0;
        for b in 0..self.bins {
            if seen.counts[b] > 0.0 {
                let d = seen.counts[b] * per;
                sum += ln_rising_of_half(d) - d * ln(self.share(b));
            }
        }
        let half = 0.5 * self.bins as f64;
        sum - ln_rising(half, ln(half), seen.n * per)
    }
}
