//! Chance by seed: the same numbers on every run, and the numbers of one event do not depend on those of another.
//!
//! Every event owns a small generator that is keyed by its place (seed, model, number). So a fault can change one field of an
//! event and leave all others, and all other events, as they would have been: tests compare a troubled fleet with its healthy
//! twin event by event. SplitMix64 is used because its state may be any number: a key is a generator.
//!
//! Normal numbers come from a table of quantiles. A stream of a thousand events per second with a dozen values each is then
//! no burden for the demo, and the tail reaches four standard deviations, which is all that a fleet of this size shows.

use std::sync::LazyLock;

use statrs::distribution::{ContinuousCDF, Normal};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// Cells of the table of quantiles, a power of two.
const CELLS: usize = 4_096;
/// Where the outermost cells end, in standard deviations.
const TAIL: f64 = 4.1;

static QUANTILES: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let normal = Normal::standard();
    let mut table: Vec<f64> = (0..=CELLS).map(|i| if i == 0 || i == CELLS { 0.0 } else { normal.inverse_cdf(i as f64 / CELLS as f64) }).collect();
    table[0] = -TAIL;
    table[CELLS] = TAIL;
    table
});

/// SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub struct Chance(u64);

/// Scatters the bits of a number.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

// === impl Chance ===

impl Chance {
    /// The generator that belongs to `key` under `seed`.
    pub fn keyed(seed: u64, key: u64) -> Chance {
        Chance(mix(seed ^ mix(key.wrapping_add(GOLDEN))))
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// From 0 up to, not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// From 0 up to, not including, `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// Mean 0, standard deviation 1.
    pub fn normal(&mut self) -> f64 {
        let place = self.unit() * CELLS as f64;
        let cell = place as usize;
        let table = &**QUANTILES;
        table[cell] + (table[cell + 1] - table[cell]) * (place - cell as f64)
    }

    /// Mean 1.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }

    /// Mean `shape`, variance `shape`; `shape` of at least 1 (Marsaglia and Tsang, "A simple method for generating gamma variables").
    pub fn gamma(&mut self, shape: f64) -> f64 {
        let d = shape.max(1.0) - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moments(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let n = 200_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let x = draw();
            sum += x;
            squares += x * x;
        }
        let mean = sum / f64::from(n);
        (mean, squares / f64::from(n) - mean * mean)
    }

    #[test]
    fn laws_have_their_moments() {
        let mut chance = Chance::keyed(1, 2);
        let near = |(mean, variance): (f64, f64), m: f64, v: f64| {
            assert!((mean - m).abs() < 0.02 * v.sqrt() && (variance / v - 1.0).abs() < 0.03, "{mean} {variance}, expected {m} {v}");
        };
        near(moments(|| chance.normal()), 0.0, 1.0);
        near(moments(|| chance.exponential()), 1.0, 1.0);
        near(moments(|| chance.unit()), 0.5, 1.0 / 12.0);
        near(moments(|| chance.gamma(11.0)), 11.0, 11.0);
        near(moments(|| chance.gamma(1.0)), 1.0, 1.0);
    }

    #[test]
    fn the_published_sequence_of_splitmix64() {
        let mut chance = Chance(1_234_567);
        assert_eq!([chance.bits(), chance.bits()], [6_457_827_717_110_365_317, 3_203_168_211_198_807_973]);
    }
}
