//! The banks: small mixtures of bets that gather evidence pane by pane.
//!
//! The everyday picture is a gambler with a fixed allowance per pane, who bets against "nothing has changed" at several odds at
//! once and lets his winnings ride. If nothing has changed his fortune stays near what he was given; when it reaches 1 the house
//! was lying. What he is given per pane is the share of false pages that this series may spend (Shiryaev-Roberts with injection).

pub mod bins;
pub mod classes;
mod climb;
pub mod counts;
pub mod embedding;
pub mod gap;
pub mod joint;
mod levels;
mod mixture;
mod overshoot;
pub mod rate;
pub mod seasonal_step;
mod trail;
mod week;
pub mod two_group;

use serde::{Deserialize, Serialize};

use self::mixture::Mixture;
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

/// Panes resemble each other: how much noisier are sums over 2^i panes than independent events would be?
///
/// Level i compares neighbouring blocks of 2^i panes; pair differences ignore slow level changes. Each level is shrunk on the one
/// below it, so a level with few pairs says little, and what it differs by within one standard error (or as many as a bank asks for) of a
/// level of independent events is not believed: the largest of ten noisy levels would otherwise call every quiet series noisy, and slow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[repr(C)]
pub struct Ladder {
    phi: f64,
    fed: u32,
    /// Decaying sum of variance times events, and of panes: their ratio tells how skewed a pane is.
    information: f32,
    panes: f32,
    levels: [Level; LADDER_LEVELS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Level {
    /// A block that waits for its neighbour; `n` of 0 is none.
    pending_sum: f32,
    pending_n: f32,
    sum: f32,
    count: f32,
}

const LADDER_LEVELS: usize = 10;
const SHRINK_PAIRS: f64 = 24.0;
/// Memory of a level in pairs; older ones fade.
const PAIRS_MAX: f32 = 20_000.0;

impl Default for Ladder {
    fn default() -> Self {
        Ladder { levels: [Level::default(); LADDER_LEVELS], phi: 1.0, fed: 0, information: 0.0, panes: 0.0 }
    }
}

impl Ladder {
    /// One pane: the sum of what was measured, over `n` events each of variance `variance`.
    pub fn feed(&mut self, sum: f64, n: f64, variance: f64) {
        self.feed_doubting(sum, n, variance, 1.0);
    }

    /// The same when only what exceeds so many standard errors is believed.
    fn feed_doubting(&mut self, sum: f64, n: f64, variance: f64, errors: f64) {
        if n <= 0.0 || variance <= 0.0 {
            return;
        }
        self.information += (n * variance) as f32;
        self.panes += 1.0;
        if self.panes > PAIRS_MAX {
            self.information *= 0.5;
            self.panes *= 0.5;
        }
        let (mut sum, mut n) = (sum, n);
        let per_variance = 1.0 / variance;
        for level in &mut self.levels {
            if level.pending_n <= 0.0 {
                (level.pending_sum, level.pending_n) = (sum as f32, n as f32);
                break;
            }
            let (s0, n0) = (f64::from(level.pending_sum), f64::from(level.pending_n));
            level.pending_n = 0.0;
            let cross = s0 * n - sum * n0;
            // (s0/n0 - s/n)^2 / (variance (1/n0 + 1/n)), with one division.
            level.sum += (cross * cross * per_variance / (n0 * n * (n0 + n))) as f32;
            level.count += 1.0;
            if level.count > PAIRS_MAX {
                level.sum *= 0.5;
                level.count *= 0.5;
            }
            sum += s0;
            n += n0;
        }
        self.fed += 1;
        if self.fed.is_multiple_of(16) {
            self.phi = self.phi_beyond(errors);
        }
    }

    /// What comes now is no neighbour of what came before.
    pub fn part(&mut self) {
        for level in &mut self.levels {
            (level.pending_sum, level.pending_n) = (0.0, 0.0);
        }
    }

    fn refit(&mut self) {
        self.phi = self.phi_beyond(1.0);
    }

    /// The same when only what exceeds so many standard errors is believed, at this moment.
    fn phi_beyond(&self, errors: f64) -> f64 {
        self.phi_of(LADDER_LEVELS, errors)
    }

    /// The same of stretches shorter than so many panes.
    fn phi_below(&self, panes: u32, errors: f64) -> f64 {
        self.phi_of(panes.ilog2() as usize, errors)
    }

    fn phi_of(&self, levels: usize, errors: f64) -> f64 {
        let mut below = 1.0;
        let mut phi: f64 = 1.0;
        // Squares of sums of rare events are more erratic than those of normal ones (variance 2): fourth moment of a Poisson count.
        let mut skew = 0.5 * f64::from(self.panes) / f64::from(self.information).max(1e-9);
        for level in self.levels.iter().take(levels) {
            let (sum, count) = (f64::from(level.sum), f64::from(level.count));
            let raised = (sum - count * below) / (count + SHRINK_PAIRS);
            let error = errors * below * ((2.0 + skew) * count).sqrt() / (count + SHRINK_PAIRS);
            below += if raised > 0.0 { (raised - error).max(0.0) } else { (raised + error).min(0.0) };
            phi = phi.max(below);
            skew *= 0.5;
        }
        phi
    }

    /// What the levels of so many panes and more hold is not believed any more.
    fn forget_from(&mut self, panes: u32) {
        for (i, level) in self.levels.iter_mut().enumerate() {
            if 1 << i >= panes {
                *level = Level::default();
            }
        }
        self.refit();
    }

    /// Panes six times as long come from now on: each level takes over from the one of eight times its panes, with the weight of
    /// a few pairs.
    fn lengthen(&mut self) {
        for i in 0..LADDER_LEVELS {
            let old = self.levels[(i + 3).min(LADDER_LEVELS - 1)];
            let keep = (SHRINK_PAIRS as f32 / old.count.max(1.0)).min(1.0);
            self.levels[i] = Level { sum: old.sum * keep, count: old.count * keep, ..Level::default() };
        }
    }

    /// Panes that were fed.
    fn fed(&self) -> u32 {
        self.fed
    }

    /// Variance of sums over that of independent events, at least 1.
    pub fn phi(&self) -> f64 {
        self.phi
    }
}

/// How much one pane may say: the more, the more nearly the panes so far behaved like independent events.
///
/// The cap is paid in delay where luck counts: a pane that by chance shows more than its share is cut, one that shows less is not.
/// A series whose dispersion was measured at 1 is allowed twice the cap; from 1.15 on, where bursts begin, the cap is 3 nats.
fn nats_per_pane_max(dispersion: f64) -> f64 {
    NATS_PER_PANE_MAX * (1.0 + ((1.15 - dispersion) / 0.15).clamp(0.0, 1.0))
}

/// exp by a table and a polynomial, the same on every machine; for |x| < 700 too small by at most 1e-9 of itself.
#[inline]
pub fn exp(x: f64) -> f64 {
    // Rounds to the nearest whole number by pushing the fraction out of the mantissa.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const PARTS: f64 = 32.0;
    let x = x.clamp(-700.0, 700.0);
    let k = x * (PARTS * std::f64::consts::LOG2_E) + ROUND;
    let r = x - (k - ROUND) * (std::f64::consts::LN_2 / PARTS);
    // The low bits of k hold the whole number in two's complement: five for the table, the others for the exponent.
    let whole = k.to_bits();
    let power = f64::from_bits(POWERS_OF_2[(whole & 31) as usize].to_bits().wrapping_add((whole >> 5) << 52));
    power * (1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0))))
}

/// 2 to the power of 0/32 to 31/32.
#[rustfmt::skip]
const POWERS_OF_2: [f64; 32] = [
    1.0, 1.021_897_148_654_116_6, 1.044_273_782_427_413_8, 1.067_140_400_676_823_7,
    1.090_507_732_665_257_7, 1.114_386_742_595_892_4, 1.138_788_634_756_691_6, 1.163_724_858_777_577_5,
    1.189_207_115_002_721, 1.215_247_359_980_469, 1.241_857_812_073_484, 1.269_050_957_191_733_2,
    1.296_839_554_651_009_6, 1.325_236_643_159_741_3, 1.354_255_546_936_892_7, 1.383_909_881_963_832,
    std::f64::consts::SQRT_2, 1.445_180_806_977_046_7, 1.476_826_145_939_499_3, 1.509_164_427_593_422_8,
    1.542_210_825_407_940_7, 1.575_980_845_107_886_5, 1.610_490_331_949_254_3, 1.645_755_478_153_965,
    1.681_792_830_507_429, 1.718_619_298_122_478, 1.756_252_160_373_299_5, 1.794_709_075_003_107_2,
    1.834_008_086_409_342_4, 1.874_167_634_110_3, 1.915_206_561_397_147_4, 1.957_144_124_175_400_2,
];

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
    // exp(-x) for a small x: a pane is short beside a month.
    let x = pane_ms as f64 * (std::f64::consts::LN_2 / HALF_LIFE_MS);
    if x < 1e-3 { 1.0 - x * (1.0 - 0.5 * x) } else { (-x).exp() }
}

/// Evidence from which on a bank of values or classes does not learn: the injection to the power of 1/4. The earlier it stops the less of a
/// fault is taken for normal; what the null refuses on its way there is too little to show.
fn stops_learning_at(injection: f64) -> f64 {
    injection.sqrt().sqrt().min(1.0)
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

/// ln((1 + s) / (1 - s)) for |s| up to .1716, by its odd series; the first term left out is below 1e-15.
#[inline]
fn ln_of_fraction(s: f64) -> f64 {
    let z = s * s;
    if z < 1e-3 {
        // What a pane adds to a baseline is little of it: the next term is below 1e-16.
        return 2.0 * s * (1.0 + z * (1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0)))));
    }
    let even =
        1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * (1.0 / 11.0 + z * (1.0 / 13.0 + z * (1.0 / 15.0 + z * (1.0 / 17.0)))))));
    2.0 * s * (1.0 + z * even)
}

/// ln by a polynomial, the same on every machine, for a normal x > 0; error below 1e-15 of the larger of 1 and the result.
#[inline]
pub fn ln(x: f64) -> f64 {
    // x = m 2^e with m between the roots of 1/2 and 2, so that the series is short.
    let bits = x.to_bits();
    let e = (bits.wrapping_sub(std::f64::consts::FRAC_1_SQRT_2.to_bits()) as i64) >> 52;
    let m = f64::from_bits(bits.wrapping_sub((e as u64) << 52));
    e as f64 * std::f64::consts::LN_2 + ln_of_fraction((m - 1.0) / (m + 1.0))
}

/// ln without a division, for a normal x > 0; error below 2e-8. The polynomial is fitted at Chebyshev's points between the roots of 1/2 and 2.
#[inline]
fn ln_near(x: f64) -> f64 {
    let bits = x.to_bits();
    let e = (bits.wrapping_sub(std::f64::consts::FRAC_1_SQRT_2.to_bits()) as i64) >> 52;
    let m = f64::from_bits(bits.wrapping_sub((e as u64) << 52)) - 1.0;
    let high = 0.333_333_286
        + m * (-0.250_002_965
            + m * (0.200_014_686 + m * (-0.166_422_476 + m * (0.142_021_738 + m * (-0.129_722_389 + m * (0.127_123_08 - m * 0.081_015_588_9))))));
    e as f64 * std::f64::consts::LN_2 + m * (1.0 + m * (-0.5 + m * high))
}

/// ln (Gamma(x + d) / Gamma(x)) less d ln x: what a predictive adds to the likelihood of d events at their share itself. The predictive of one event is
/// its share; where next to nothing is held, that of a part of one must not be less, or each such part would be evidence from nothing.
fn excess_rising(x: f64, ln_x: f64, d: f64) -> f64 {
    let excess = ln_rising(x, ln_x, d) - d * ln_x;
    if d < 1.0 && x < 1.0 { excess.max(0.0) } else { excess }
}

/// What the predictive of events that are divided by `dispersion` says too little, in nats, where panes are only noisy over many of them.
///
/// A pane of v = n / dispersion divided events is given less by the predictive than by the shares themselves where they lie apart, and more where
/// they coincide, which evens out. Parts of events of a pane that is not noisy in itself coincide too seldom: by v (1 - 1/dispersion) / 2w for
/// each share that is free (of weight w altogether), which would be evidence from nothing, pane after pane.
fn apart(v: f64, free: f64, dispersion: f64, weight: f64) -> f64 {
    0.5 * v * free * (1.0 - 1.0 / dispersion) / weight
}

/// ln (Gamma(x + d) / Gamma(x)) for x > 0 and d >= 0, with ln x at hand, and no difference of large numbers. Below 8 both are
/// raised by the recurrence first.
#[inline]
fn ln_rising(x: f64, ln_x: f64, d: f64) -> f64 {
    if d <= 0.0 {
        return 0.0;
    }
    if x < 8.0 {
        return ln_rising_of_small(x, d);
    }
    let y = x + d;
    let i = 1.0 / x;
    let j = 1.0 / y;
    let (i2, j2) = (i * i, j * j);
    let series = (j - i) * (1.0 / 12.0 - (j2 + i * j + i2) / 360.0 + (j2 * j2 + i2 * i2 + i * j * (j2 + i * j + i2)) / 1260.0);
    let s = d / (x + y);
    let ln_ratio = if s < 0.17 { ln_of_fraction(s) } else { ln(y * i) };
    (y - 0.5) * ln_ratio + d * (ln_x - 1.0) + series
}

/// The same for x = 1/2, from where a law that reaches anything begins.
#[inline]
fn ln_rising_of_half(d: f64) -> f64 {
    const LN_8_5: f64 = 2.140_066_163_496_270_8;
    /// The product of 1/2, 3/2, ... 15/2.
    const BELOW: f64 = 2_027_025.0 / 256.0;
    if d <= 0.0 {
        return 0.0;
    }
    let above = ((d + 0.5) * (d + 1.5)) * ((d + 2.5) * (d + 3.5)) * (((d + 4.5) * (d + 5.5)) * ((d + 6.5) * (d + 7.5)));
    ln_rising(8.5, LN_8_5, d) - ln(above * (1.0 / BELOW))
}

fn ln_rising_of_small(x: f64, d: f64) -> f64 {
    let (mut x, mut above, mut below) = (x, 1.0, 1.0);
    while x < 8.0 {
        above *= x + d;
        below *= x;
        x += 1.0;
    }
    ln_rising(x, ln(x), d) - ln(above / below)
}

/// Normal distribution function and its inverse.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * statrs::function::erf::erfc(-z / std::f64::consts::SQRT_2)
}

pub fn normal_quantile(p: f64) -> f64 {
    -std::f64::consts::SQRT_2 * statrs::function::erf::erfc_inv(2.0 * p.clamp(1e-12, 1.0 - 1e-12))
}

/// The normal distribution function from a table, for many values at once: Taylor's series about the nearest node. The series errs by
/// less than 1e-13; the nodes err as `normal_cdf` does, which was seen to be 2.4e-11 off (at -0.718).
struct NormalTable {
    /// The function and its density at every sixteenth of a deviation.
    nodes: Vec<(f64, f64)>,
}

impl NormalTable {
    const FAR: f64 = 8.0;
    const PER_UNIT: f64 = 16.0;

    fn get() -> &'static NormalTable {
        static TABLE: std::sync::LazyLock<NormalTable> = std::sync::LazyLock::new(|| {
            let last = (2.0 * NormalTable::FAR * NormalTable::PER_UNIT) as usize;
            let node = |i| {
                let x = i as f64 / NormalTable::PER_UNIT - NormalTable::FAR;
                (normal_cdf(x), (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt())
            };
            NormalTable { nodes: (0..=last).map(node).collect() }
        });
        &TABLE
    }

    #[inline]
    fn cdf(&self, z: f64) -> f64 {
        let z = z.clamp(-Self::FAR, Self::FAR);
        let i = ((z + Self::FAR) * Self::PER_UNIT + 0.5) as usize;
        let Some((at, density)) = self.nodes.get(i) else {
            return normal_cdf(z);
        };
        let x = i as f64 / Self::PER_UNIT - Self::FAR;
        let h = z - x;
        let x2 = x * x;
        // Derivatives of the density are Hermite polynomials times the density.
        let (h2, h3) = ((x2 - 1.0) / 6.0, x * (3.0 - x2) / 24.0);
        let (h4, h5) = ((x2 * (x2 - 6.0) + 3.0) / 120.0, -x * (x2 * (x2 - 10.0) + 15.0) / 720.0);
        at + density * h * (1.0 + h * (-0.5 * x + h * (h2 + h * (h3 + h * (h4 + h * h5)))))
    }
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
        /// Counts of so many independent events, one for each part; the parts need not add up to 1.
        pub fn multinomial(&mut self, n: u32, parts: &[f64]) -> Vec<u32> {
            let (mut left, mut rest) = (n, parts.iter().sum::<f64>());
            let last = parts.len().saturating_sub(1);
            let draw = |(i, part): (usize, &f64)| {
                let c = if i == last { left } else { self.binomial(left, (part / rest).clamp(0.0, 1.0)) };
                (left, rest) = (left - c, (rest - part).max(1e-300));
                c
            };
            parts.iter().enumerate().map(draw).collect()
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
    fn short_forms_of_logarithm_gamma_and_normal_law_agree_with_the_long_ones() {
        for x in [1e-300, 1e-9, 0.3, 0.707, 0.7072, 1.0, 1.0 + 1e-12, 1.414, 1.4143, 2.0, 9.5, 1e9, 1e200] {
            assert!((ln(x) - x.ln()).abs() <= 1e-15 * x.ln().abs().max(1.0), "{x}: {} {}", ln(x), x.ln());
            assert!((ln_near(x) - x.ln()).abs() < 2e-8, "{x}: {} {}", ln_near(x), x.ln());
        }
        for x in [1e-4, 0.5, 3.2, 7.9, 8.0, 31.4, 1e3, 1e6] {
            for d in [0.0, 0.01, 0.5, 1.0, 2.5, 7.0, 12.0, 13.0, 900.0] {
                let long = statrs::function::gamma::ln_gamma(x + d) - statrs::function::gamma::ln_gamma(x);
                let near = 1e-8 + 1e-13 * statrs::function::gamma::ln_gamma(x + d).abs();
                assert!((ln_rising(x, ln(x), d) - long).abs() < near, "{x} {d}: {} {long}", ln_rising(x, ln(x), d));
            }
        }
        let table = NormalTable::get();
        for i in -9_000..=9_000 {
            let z = f64::from(i) / 1_000.0;
            // Either side carries the error of `normal_cdf`, 2.4e-11 at -0.718, where the table is right to 1e-14.
            assert!((table.cdf(z) - normal_cdf(z)).abs() < 1e-10, "{z}: {} {}", table.cdf(z), normal_cdf(z));
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
