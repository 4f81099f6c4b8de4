//! The banks: small mixtures of bets that gather evidence pane by pane.
//!
//! The everyday picture is a gambler with a fixed allowance per pane, who bets against "nothing has changed" at several odds at
//! once and lets his winnings ride. If nothing has changed his fortune stays near what he was given; when it reaches 1 the house
//! was lying. What he is given per pane is the share of false pages that this series may spend (Shiryaev-Roberts with injection).

pub mod bins;
pub mod classes;
pub mod counts;
pub mod embedding;
pub mod gap;
pub mod joint;
pub mod rate;
pub mod seasonal_step;
pub mod two_group;

use serde::{Deserialize, Serialize};

use crate::verdict::Onset;

/// The most that one pane may say, in nats. Real data are burstier than any model; one pane alone must never page.
pub const NATS_PER_PANE_MAX: f64 = 3.0;
/// False recoveries asked for: one in a hundred days.
pub const RECOVERY_PER_DAY: f64 = 0.01;
/// A change that evidence confirms but tolerance forgives is forgotten after a day.
pub const HELD_RESET_MS: i64 = 86_400_000;
/// Half-life of what is learned.
pub const HALF_LIFE_MS: f64 = 28.0 * 86_400_000.0;
const DAY_MS: f64 = 86_400_000.0;

/// Can the bank see a doubling, and how many more events would it take?
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sees {
    pub armed: bool,
    pub needs_events: f64,
}

/// What is normal, in natural units, for charts: the level and the edges of tolerance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    pub value: f64,
    pub low: f64,
    pub high: f64,
    pub events: f64,
}

/// A mixture of Shiryaev-Roberts recursions, and for each a pointer to where its evidence began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixture {
    /// Evidence of each alternative, in units of the threshold.
    r: Vec<f64>,
    /// Cumulative sum since its pointer (Page), and the pointer: start of the pane after the last zero.
    cusum: Vec<f64>,
    start_ms: Vec<i64>,
}

impl Mixture {
    pub fn new(arms: usize) -> Mixture {
        Mixture { r: vec![0.0; arms], cusum: vec![0.0; arms], start_ms: vec![i64::MIN; arms] }
    }

    /// One pane: `nats[j]` is the log-likelihood ratio of alternative j, `injection` what the whole mixture may spend.
    /// Returns the sum of evidence.
    pub fn step(&mut self, nats: &[f64], injection: f64, at_ms: i64) -> f64 {
        let share = injection / self.r.len() as f64;
        let mut sum = 0.0;
        for (j, l) in nats.iter().enumerate() {
            let l = l.min(NATS_PER_PANE_MAX);
            self.r[j] = ((share + self.r[j]) * l.exp()).min(1e200);
            sum += self.r[j];
            if self.cusum[j] <= 0.0 {
                self.start_ms[j] = at_ms;
            }
            self.cusum[j] = (self.cusum[j] + l).max(0.0);
        }
        sum
    }

    pub fn sum(&self) -> f64 {
        self.r.iter().sum()
    }

    /// The alternative with the most evidence.
    pub fn best(&self) -> usize {
        (0..self.r.len()).fold(0, |best, j| if self.r[j] > self.r[best] { j } else { best })
    }

    pub fn start_of(&self, arm: usize) -> i64 {
        self.start_ms[arm]
    }

    /// Has any alternative something to say?
    pub fn is_idle(&self) -> bool {
        self.cusum.iter().all(|c| *c <= 0.0)
    }

    pub fn clear(&mut self) {
        self.r.fill(0.0);
        self.cusum.fill(0.0);
    }
}

/// Panes resemble each other: how much noisier are sums over 2^i panes than independent events would be?
///
/// Level i compares neighbouring blocks of 2^i panes; pair differences ignore slow level changes. Each level is shrunk on the one
/// below it, so a level with few pairs says little.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ladder {
    levels: Vec<Level>,
    phi: f64,
    fed: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Level {
    pending: Option<(f64, f64)>,
    sum: f64,
    count: f64,
}

const LADDER_LEVELS: usize = 10;
const SHRINK_PAIRS: f64 = 24.0;

impl Default for Ladder {
    fn default() -> Self {
        Ladder { levels: vec![Level::default(); LADDER_LEVELS], phi: 1.0, fed: 0 }
    }
}

impl Ladder {
    /// One pane: the sum of what was measured, over `n` events each of variance `variance`.
    pub fn feed(&mut self, sum: f64, n: f64, variance: f64) {
        if n <= 0.0 || variance <= 0.0 {
            return;
        }
        let (mut sum, mut n) = (sum, n);
        for level in &mut self.levels {
            let Some((s0, n0)) = level.pending.take() else {
                level.pending = Some((sum, n));
                break;
            };
            let d = s0 / n0 - sum / n;
            level.sum += d * d / (variance * (1.0 / n0 + 1.0 / n));
            level.count += 1.0;
            // A month of pairs is memory enough; older ones fade.
            if level.count > 20_000.0 {
                level.sum *= 0.5;
                level.count *= 0.5;
            }
            sum += s0;
            n += n0;
        }
        self.fed += 1;
        if self.fed.is_multiple_of(16) {
            let mut below = 1.0;
            let mut phi: f64 = 1.0;
            for level in &self.levels {
                below = (level.sum + SHRINK_PAIRS * below) / (level.count + SHRINK_PAIRS);
                phi = phi.max(below);
            }
            self.phi = phi;
        }
    }

    /// Variance of sums over that of independent events, at least 1.
    pub fn phi(&self) -> f64 {
        self.phi
    }
}

/// Where the evidence began: over recent panes, newest first, with the nats of the winning alternative, the start that explains
/// most; the interval holds 5 to 95 % of the weight of all starts and is one pane wider on both sides.
fn onset_of(newest_first: impl Iterator<Item = (i64, f64)>, pointer_ms: i64, pane_ms: i64) -> Onset {
    let mut tail = 0.0;
    let weights: Vec<(i64, f64)> = newest_first
        .map(|(at, nats)| {
            tail += nats;
            (at, tail)
        })
        .collect();
    let best = weights.iter().fold(f64::NEG_INFINITY, |m, w| m.max(w.1));
    let total: f64 = weights.iter().map(|w| (w.1 - best).exp()).sum();
    let (mut at, mut from, mut to) = (pointer_ms, pointer_ms, pointer_ms);
    let mut cumulative = 0.0;
    let mut low_found = false;
    for (start, lp) in weights.iter().rev() {
        if *lp == best {
            at = *start;
        }
        cumulative += (lp - best).exp() / total;
        if !low_found && cumulative >= 0.05 {
            from = *start;
            low_found = true;
        }
        if cumulative <= 0.95 {
            to = *start;
        }
    }
    Onset { at_ms: at, from_ms: from.min(at) - pane_ms, to_ms: to.max(at) + pane_ms }
}

/// What the recovery test may spend in a pane.
fn recovery_injection(pane_ms: i64) -> f64 {
    RECOVERY_PER_DAY * pane_ms as f64 / DAY_MS
}

fn decay(pane_ms: i64) -> f64 {
    (-std::f64::consts::LN_2 * pane_ms as f64 / HALF_LIFE_MS).exp()
}

/// Evidence and threshold in nats, for people: evidence reaches the threshold when the sum reaches 1.
fn nats(sum: f64, injection: f64) -> (f64, f64) {
    if injection <= 0.0 {
        return (0.0, f64::INFINITY);
    }
    let threshold = -injection.ln();
    ((sum.max(1e-300).ln() + threshold).max(-50.0), threshold)
}

/// ln Gamma(x) for x > 0: recurrence up to 7, then Stirling's series (Abramowitz and Stegun 6.1.41); error below 1e-12.
pub fn ln_gamma(x: f64) -> f64 {
    let mut shift = 1.0;
    let mut x = x;
    while x < 7.0 {
        shift *= x;
        x += 1.0;
    }
    let i = 1.0 / x;
    let i2 = i * i;
    let series = i * (1.0 / 12.0 - i2 * (1.0 / 360.0 - i2 * (1.0 / 1260.0 - i2 * (1.0 / 1680.0 - i2 * (1.0 / 1188.0 - i2 * 691.0 / 360_360.0)))));
    (x - 0.5) * x.ln() - x + 0.918_938_533_204_672_7 + series - shift.ln()
}

/// Normal distribution function and its inverse.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * statrs::function::erf::erfc(-z / std::f64::consts::SQRT_2)
}

pub fn normal_quantile(p: f64) -> f64 {
    -std::f64::consts::SQRT_2 * statrs::function::erf::erfc_inv(2.0 * p.clamp(1e-12, 1.0 - 1e-12))
}

#[cfg(test)]
pub mod noise {
    //! A small generator for simulations: xorshift64* (Vigna 2016).
    pub struct Noise(u64);

    impl Noise {
        pub fn new(seed: u64) -> Noise {
            Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
        }
        pub fn unit(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
        }
        pub fn normal(&mut self) -> f64 {
            (-2.0 * (1.0 - self.unit()).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
        }
        /// Gamma of mean 1 and the given shape (Marsaglia and Tsang 2000).
        pub fn gamma(&mut self, shape: f64) -> f64 {
            let boost = if shape < 1.0 { self.unit().max(1e-300).powf(1.0 / shape) } else { 1.0 };
            let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
            loop {
                let x = self.normal();
                let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
                if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                    return boost * d * v / shape;
                }
            }
        }
        pub fn poisson(&mut self, mean: f64) -> f64 {
            if mean > 200.0 {
                return (mean + mean.sqrt() * self.normal()).round().max(0.0);
            }
            let (limit, mut product, mut k) = ((-mean).exp(), self.unit(), 0.0);
            while product > limit {
                product *= self.unit();
                k += 1.0;
            }
            k
        }
        /// A count whose variance is `fano` times its mean.
        pub fn count(&mut self, mean: f64, fano: f64) -> f64 {
            if fano <= 1.0 || mean <= 0.0 {
                return self.poisson(mean);
            }
            let level = self.gamma(mean / (fano - 1.0));
            self.poisson(mean * level)
        }
        pub fn binomial(&mut self, n: u32, p: f64) -> u32 {
            let mean = f64::from(n) * p;
            if n > 400 && mean.min(f64::from(n) - mean) > 30.0 {
                let x = mean + (mean * (1.0 - p)).sqrt() * self.normal();
                return x.round().clamp(0.0, f64::from(n)) as u32;
            }
            if p > 0.2 {
                return (0..n).filter(|_| self.unit() < p).count() as u32;
            }
            // Geometric skips: cheap when hits are rare.
            if p <= 0.0 {
                return 0;
            }
            let (mut k, mut i) = (0, 0.0);
            loop {
                i += 1.0 + ((1.0 - self.unit()).ln() / (1.0 - p).ln()).floor();
                if i > f64::from(n) {
                    return k;
                }
                k += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_gamma_agrees_with_statrs() {
        for x in [0.5, 0.501, 1.0, 2.5, 6.999, 7.0, 31.4, 1e3, 1e6, 2.5e9] {
            let reference = statrs::function::gamma::ln_gamma(x);
            assert!((ln_gamma(x) - reference).abs() <= 1e-10 * reference.abs().max(1.0), "{x}: {} {reference}", ln_gamma(x));
        }
    }

    #[test]
    fn the_ladder_sees_correlation_between_panes_and_none_where_there_is_none() {
        let mut noise = noise::Noise::new(1);
        let (mut plain, mut wavy) = (Ladder::default(), Ladder::default());
        let mut level = 0.0;
        for _ in 0..4_096 {
            plain.feed(10.0 * noise.normal(), 100.0, 1.0);
            level = 0.9 * level + 0.1 * noise.normal();
            wavy.feed(10.0 * noise.normal() + 100.0 * level, 100.0, 1.0);
        }
        assert!(plain.phi() < 1.5, "{}", plain.phi());
        assert!(wavy.phi() > 5.0, "{}", wavy.phi());
    }
}
