//! Mixtures of Shiryaev-Roberts recursions, eight alternatives side by side.
//!
//! **Formula.** An alternative that is given s of each pane's injection holds R <- (s + R) min(L, e^cap), where L is its likelihood ratio
//! in this pane; the evidence is the sum of all R, in units of the threshold. Its pointer is the start of the pane after the last zero
//! of the cumulative sum of ln L (Page), where its evidence began.
//! **Why eight side by side, and in f32.** All alternatives take the same steps, so a compiler takes four of them at once, and what a pane
//! touches are three lines of memory. A pane errs by one to three millionths of itself, downwards: exp is made two millionths too small, more than
//! nats up to the cap, products and sums are rounded by, so that the bound on false pages holds as it does for exact numbers; in ten thousand
//! panes that is a fiftieth of a nat.

use serde::{Deserialize, Serialize};

use super::NATS_PER_PANE_MAX;
use crate::ahead::ask_for;

/// Alternatives side by side.
pub const LANES: usize = 8;
/// No pane says less: e^-30 of what is held is nothing, and numbers stay normal.
const NATS_PER_PANE_MIN: f32 = -30.0;
/// Evidence is in units of the threshold; more than this is not told apart.
const HELD_MAX: f32 = 1e30;

/// Eight recursions, each with a pointer to where its evidence began.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Evidence, in units of the threshold.
    held: [f32; LANES],
    cusum: [f32; LANES],
    /// Start of the pane after the last zero of the cumulative sum.
    start_ms: [i64; LANES],
}

/// `A` is an array where the number of alternatives is fixed, else a `Vec`. Lanes beyond the alternatives are given nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixture<A = Vec<Block>> {
    blocks: A,
}

const IDLE: Block = Block { held: [0.0; LANES], cusum: [0.0; LANES], start_ms: [i64::MIN; LANES] };

impl Block {
    /// One pane. Returns the sum of evidence.
    #[inline]
    fn step(&mut self, nats: &[f32; LANES], weights: &[f32; LANES], injection: f32, nats_max: f32, at_ms: i64) -> f64 {
        let mut l = [0.0; LANES];
        for j in 0..LANES {
            let low = if nats[j] > NATS_PER_PANE_MIN { nats[j] } else { NATS_PER_PANE_MIN };
            l[j] = if low < nats_max { low } else { nats_max };
        }
        let ratios = exp_lanes(&l);
        for j in 0..LANES {
            let held = (weights[j] * injection + self.held[j]) * ratios[j];
            self.held[j] = if held < HELD_MAX { held } else { HELD_MAX };
        }
        for (start, cusum) in self.start_ms.iter_mut().zip(&self.cusum) {
            // Without a branch: which lanes go on is a matter of chance.
            *start = at_ms ^ ((*start ^ at_ms) & -i64::from(*cusum > 0.0));
        }
        for (cusum, l) in self.cusum.iter_mut().zip(&l) {
            let sum = *cusum + l;
            *cusum = if sum > 0.0 { sum } else { 0.0 };
        }
        f64::from(sum_of(&self.held))
    }
}

/// Parts of the injection for lanes, from a list; those beyond are given nothing.
pub const fn lanes_of<const N: usize>(weights: &[f64]) -> [[f32; LANES]; N] {
    let mut lanes = [[0.0; LANES]; N];
    let mut j = 0;
    while j < weights.len() {
        lanes[j / LANES][j % LANES] = weights[j] as f32;
        j += 1;
    }
    lanes
}

/// In pairs, so that the order does not hang on how many are taken at once.
#[inline]
pub fn sum_of(x: &[f32; LANES]) -> f32 {
    ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]))
}

/// exp for |x| up to 80, the same on every machine; too small by 1e-6 to 3e-6 of itself, up to e^6 at least.
#[inline]
fn exp_lanes(x: &[f32; LANES]) -> [f32; LANES] {
    // Rounds to the nearest whole number by pushing the fraction out of the mantissa, whose low bits then hold it in two's complement.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, of which the first has few bits.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const BELOW: f32 = 1.0 - 2e-6;
    let mut out = [0.0; LANES];
    for j in 0..LANES {
        let k = x[j] * std::f32::consts::LOG2_E + ROUND;
        let n = k - ROUND;
        let r = (x[j] - n * LN_2_HIGH) - n * LN_2_LOW;
        let high = r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0)))));
        out[j] = f32::from_bits((BELOW + (r + r * high)).to_bits().wrapping_add(k.to_bits() << 23));
    }
    out
}

impl Mixture {
    pub fn new(arms: usize) -> Mixture {
        Mixture { blocks: vec![IDLE; arms.div_ceil(LANES)] }
    }

    /// Asks for its memory.
    #[inline]
    pub fn ask_for(&self) {
        ask_for(&*self.blocks);
    }

    /// One pane of alternatives that share the injection alike.
    pub fn step(&mut self, nats: &[f64], injection: f64, at_ms: i64) -> f64 {
        self.step_all(nats, |_| 1.0 / nats.len() as f64, injection, NATS_PER_PANE_MAX, at_ms)
    }
}

impl<const N: usize> Default for Mixture<[Block; N]> {
    fn default() -> Self {
        Mixture { blocks: [IDLE; N] }
    }
}

impl<const N: usize> Mixture<[Block; N]> {
    /// `step_weighted` of lanes.
    #[inline]
    pub fn step_lanes(&mut self, nats: &[[f32; LANES]; N], weights: &[[f32; LANES]; N], injection: f64, nats_max: f64, at_ms: i64) -> f64 {
        let lanes = self.blocks.iter_mut().zip(nats).zip(weights);
        lanes.map(|((block, nats), weights)| block.step(nats, weights, injection as f32, nats_max as f32, at_ms)).sum()
    }
}

impl<A: AsRef<[Block]> + AsMut<[Block]>> Mixture<A> {
    /// One pane: `nats[j]` is the log-likelihood ratio of alternative j and `weights[j]` its part of the injection (they add up to
    /// at most 1); no alternative may gain more than `nats_max`. Returns the sum of evidence.
    #[inline]
    pub fn step_weighted(&mut self, nats: &[f64], weights: &[f64], injection: f64, nats_max: f64, at_ms: i64) -> f64 {
        self.step_all(nats, |j| weights[j], injection, nats_max, at_ms)
    }

    #[inline]
    fn step_all(&mut self, nats: &[f64], weight: impl Fn(usize) -> f64, injection: f64, nats_max: f64, at_ms: i64) -> f64 {
        let mut sum = 0.0;
        for (block, nats) in self.blocks.as_mut().iter_mut().zip(nats.chunks(LANES).enumerate()) {
            let (mut lanes, mut weights) = ([NATS_PER_PANE_MIN; LANES], [0.0; LANES]);
            for (j, l) in nats.1.iter().enumerate() {
                (lanes[j], weights[j]) = (*l as f32, weight(nats.0 * LANES + j) as f32);
            }
            sum += block.step(&lanes, &weights, injection as f32, nats_max as f32, at_ms);
        }
        sum
    }

    fn lanes(&self) -> impl Iterator<Item = (f32, f32, i64)> {
        self.blocks.as_ref().iter().flat_map(|block| (0..LANES).map(move |j| (block.held[j], block.cusum[j], block.start_ms[j])))
    }

    pub fn sum(&self) -> f64 {
        self.blocks.as_ref().iter().map(|block| f64::from(sum_of(&block.held))).sum()
    }

    /// What some alternatives have at stake in a pane: what they hold and what is injected.
    pub fn at_stake<const M: usize>(&self, first: usize, weights: &[f64], injection: f64) -> [f64; M] {
        std::array::from_fn(|j| self.of(first + j) + weights[first + j] * injection)
    }

    /// Multiplies what all hold, by what `overshoot` allows.
    pub fn lift(&mut self, by: f64) {
        self.blocks.as_mut().iter_mut().flat_map(|block| &mut block.held).for_each(|held| *held *= by as f32);
    }

    /// The alternative with the most evidence.
    pub fn best(&self) -> usize {
        self.lanes().enumerate().fold((0, 0.0), |best, (j, (held, ..))| if held > best.1 { (j, held) } else { best }).0
    }

    /// Evidence of one alternative, in units of the threshold.
    pub fn of(&self, arm: usize) -> f64 {
        f64::from(self.blocks.as_ref()[arm / LANES].held[arm % LANES])
    }

    pub fn start_of(&self, arm: usize) -> i64 {
        self.blocks.as_ref()[arm / LANES].start_ms[arm % LANES]
    }

    /// The largest cumulative sum, in nats: what the alternative with most to say has gathered since its pointer.
    pub fn gathered(&self) -> f32 {
        self.lanes().fold(0.0, |most, (_, cusum, _)| cusum.max(most))
    }

    /// Since when the alternative with most to say, of some, has had it; nothing when none has.
    pub fn speaks_since(&self, arms: std::ops::Range<usize>) -> Option<i64> {
        let some = self.lanes().skip(arms.start).take(arms.len());
        let (_, cusum, start_ms) = some.reduce(|most, lane| if lane.1 > most.1 { lane } else { most })?;
        (cusum > 0.0).then_some(start_ms)
    }

    /// Has any alternative something to say?
    pub fn is_idle(&self) -> bool {
        self.lanes().all(|(_, cusum, _)| cusum <= 0.0)
    }

    pub fn clear(&mut self) {
        for block in self.blocks.as_mut() {
            (block.held, block.cusum) = ([0.0; LANES], [0.0; LANES]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_of_lanes_is_a_little_too_small() {
        for i in -8_000..=8_000 {
            let x = i as f32 / 100.0 + [0.0, 0.001, 0.0049][i as usize % 3];
            let (told, truth) = (f64::from(exp_lanes(&[x; LANES])[0]), f64::from(x).exp());
            let least = if x <= 6.0 { 1e-6 } else { 0.0 };
            assert!(told <= truth * (1.0 - least) && told > truth * (1.0 - 4e-6), "{x}: {told} of {truth}, {:e}", told / truth - 1.0);
        }
    }

    #[test]
    fn lanes_are_the_recursion_one_by_one() {
        let mut all = Mixture::new(11);
        let (mut held, mut cusum, mut start_ms) = ([0.0f64; 11], [0.0f64; 11], [i64::MIN; 11]);
        let mut noise = super::super::noise::Noise::new(1);
        for at_ms in 0..2_000i64 {
            let nats: [f64; 11] = std::array::from_fn(|j| noise.normal() * (0.1 + 0.2 * j as f64) - 0.02 * (0.1 + 0.2 * j as f64).powi(2));
            let sum = all.step(&nats, 1e-9, at_ms);
            for j in 0..11 {
                held[j] = (1e-9 / 11.0 + held[j]) * nats[j].min(NATS_PER_PANE_MAX).exp();
                if cusum[j] <= 0.0 {
                    start_ms[j] = at_ms;
                }
                cusum[j] = (cusum[j] + nats[j].min(NATS_PER_PANE_MAX)).max(0.0);
            }
            let truth: f64 = held.iter().sum();
            assert!(sum <= truth * (1.0 + 1e-5) && sum > 0.99 * truth, "{at_ms}: {sum:e} of {truth:e}");
            for j in 0..11 {
                // A sum within rounding of nothing may be nothing.
                assert!(all.start_of(j) == start_ms[j] || cusum[j] < 0.01, "{at_ms}, {j}");
            }
        }
        let best = (0..11).fold(0, |best, j| if held[j] > held[best] { j } else { best });
        assert_eq!(all.best(), best);
        assert!(!all.is_idle() && f64::from(all.gathered()) > 0.0);
        all.clear();
        assert!(all.is_idle() && all.sum() == 0.0);
    }

    #[test]
    fn evidence_stays_a_number_whatever_a_pane_says() {
        let mut mixture = Mixture::new(2);
        for at_ms in 0..100 {
            mixture.step(&[-1e300, f64::INFINITY], 1e-18, at_ms);
        }
        assert!(mixture.of(0) > 0.0 && mixture.of(0).is_normal() && mixture.of(1) == f64::from(HELD_MAX));
        mixture.step(&[f64::NAN, -1e300], 1e-18, 100);
        assert!(mixture.sum().is_finite());
    }
}
