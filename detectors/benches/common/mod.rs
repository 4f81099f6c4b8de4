//! What the benches of the banks share: a seeded generator, the laws of the scenarios, and tables.
#![allow(dead_code)]

use bellwether_detectors::sketch::log_linear::bin_of;

/// xoshiro256++ (Blackman and Vigna 2019), seeded by splitmix64.
pub struct Rng([u64; 4]);

impl Rng {
    pub fn new(seed: u64, stream: u64) -> Rng {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03);
        Rng(std::array::from_fn(|_| {
            x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = x;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    pub fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.unit() * n as f64) as u64
    }

    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let s = x * x + y * y;
            if s < 1.0 && s > 0.0 {
                return x * (-2.0 * s.ln() / s).sqrt();
            }
        }
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

    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (x, y) = (a * self.gamma(a), b * self.gamma(b));
        x / (x + y)
    }

    /// Exact below a variance of 100, rounded normal beyond.
    pub fn binomial(&mut self, n: u32, p: f64) -> u32 {
        if p <= 0.0 {
            return 0;
        }
        if p >= 1.0 {
            return n;
        }
        if p > 0.5 {
            return n - self.binomial(n, 1.0 - p);
        }
        let nf = f64::from(n);
        if nf * p * (1.0 - p) > 100.0 {
            return (nf * p + (nf * p * (1.0 - p)).sqrt() * self.normal()).round().clamp(0.0, nf) as u32;
        }
        // Inversion of the distribution function, from 0 up.
        let (ratio, mut term, mut k) = (p / (1.0 - p), (nf * (1.0 - p).ln()).exp(), 0u32);
        let mut u = self.unit();
        while u > term && k < n {
            u -= term;
            term *= ratio * (nf - f64::from(k)) / f64::from(k + 1);
            k += 1;
        }
        k
    }

    pub fn poisson(&mut self, mean: f64) -> u32 {
        if mean > 100.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0) as u32;
        }
        let (limit, mut product, mut k) = ((-mean).exp(), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            k += 1;
        }
        k
    }
}

pub const SIGMA: f64 = 0.6;
pub const Z95: f64 = 1.644_853_626_951_472_2;
pub const Z99: f64 = 2.326_347_874_040_840_8;
pub const CLASSES: [f64; 10] = [0.30, 0.22, 0.15, 0.10, 0.08, 0.06, 0.04, 0.03, 0.015, 0.005];
const MIXED: f64 = 0.05;

/// How one event is drawn; numeric laws are drawn in normal scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    Bernoulli(f64),
    /// Normal scores moved by a shift; `true`: the values are exp(SIGMA z).
    Shift(f64, bool),
    /// Everything above the 95 % point is stretched so that p99 doubles.
    Tail,
    Class(f64),
}

/// 1 + ln 2 / (SIGMA (z99 - z95)).
pub fn tail_stretch() -> f64 {
    1.0 + std::f64::consts::LN_2 / (SIGMA * (Z99 - Z95))
}

impl Law {
    /// One event as a number: 0 or 1, a normal score, or a class.
    pub fn draw(self, r: &mut Rng) -> f64 {
        match self {
            Law::Bernoulli(p) => f64::from(u8::from(r.unit() < p)),
            Law::Shift(d, _) => r.normal() + d,
            Law::Tail => {
                let z = r.normal();
                if z > Z95 { Z95 + (z - Z95) * tail_stretch() } else { z }
            }
            Law::Class(moved) => {
                let mut u = r.unit();
                for (c, p) in CLASSES.iter().enumerate() {
                    let p = match c {
                        0 => p - moved,
                        7 => p + moved,
                        _ => *p,
                    };
                    if u < p {
                        return c as f64;
                    }
                    u -= p;
                }
                9.0
            }
        }
    }

    /// ln of this law over the quiet one at an event.
    pub fn llr(self, x: f64) -> f64 {
        match self {
            Law::Shift(d, _) => d * x - d * d / 2.0,
            Law::Tail => {
                if x > Z95 {
                    let z = Z95 + (x - Z95) / tail_stretch();
                    0.5 * (x * x - z * z) - tail_stretch().ln()
                } else {
                    0.0
                }
            }
            Law::Class(moved) => match x as usize {
                0 => ((CLASSES[0] - moved) / CLASSES[0]).ln(),
                7 => ((CLASSES[7] + moved) / CLASSES[7]).ln(),
                _ => 0.0,
            },
            Law::Bernoulli(_) => f64::NAN,
        }
    }
}

pub struct Scenario {
    pub name: &'static str,
    pub quiet: Law,
    pub changed: Law,
}

/// The twelve abrupt changes whose best possible delay is known.
pub fn scenarios() -> Vec<Scenario> {
    let s = |name, quiet, changed| Scenario { name, quiet, changed };
    vec![
        s("errors 0.1 % x2", Law::Bernoulli(0.001), Law::Bernoulli(0.002)),
        s("errors 0.1 % x5", Law::Bernoulli(0.001), Law::Bernoulli(0.005)),
        s("errors 1 % x2", Law::Bernoulli(0.01), Law::Bernoulli(0.02)),
        s("errors 1 % x5", Law::Bernoulli(0.01), Law::Bernoulli(0.05)),
        s("errors 5 % x2", Law::Bernoulli(0.05), Law::Bernoulli(0.10)),
        s("errors 5 % x5", Law::Bernoulli(0.05), Law::Bernoulli(0.25)),
        s("latency median +20 %", Law::Shift(0.0, true), Law::Shift(1.2f64.ln() / SIGMA, true)),
        s("latency p99 x2", Law::Shift(0.0, true), Law::Tail),
        s("mean +0.1 sigma", Law::Shift(0.0, false), Law::Shift(0.1, false)),
        s("mean +0.25 sigma", Law::Shift(0.0, false), Law::Shift(0.25, false)),
        s("mean +0.5 sigma", Law::Shift(0.0, false), Law::Shift(0.5, false)),
        s("classes 5 % of mass moves", Law::Class(0.0), Law::Class(MIXED)),
    ]
}

/// A value's bin on the grid: latencies are exp(SIGMA z) in milliseconds around 400, plain normals as they are.
pub fn bin(z: f64, lognormal: bool) -> u16 {
    bin_of(if lognormal { 400.0 * (SIGMA * z).exp() } else { z })
}

pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len().max(1) as f64
}

/// Standard error of a mean.
pub fn error(x: &[f64]) -> f64 {
    let m = mean(x);
    (x.iter().map(|v| (v - m).powi(2)).sum::<f64>() / (x.len().max(2) - 1) as f64 / x.len().max(1) as f64).sqrt()
}

pub fn quantile(x: &[f64], q: f64) -> f64 {
    let mut x = x.to_vec();
    x.sort_by(f64::total_cmp);
    x.get((q * x.len() as f64) as usize).or(x.last()).copied().unwrap_or(f64::NAN)
}

/// A setting from the environment.
pub fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
