//! A seeded generator and small summaries for the benches.
#![allow(dead_code)]

/// xorshift64* (Vigna 2016), one stream per seed.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        let mut noise = Noise(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..8).for_each(|_| {
            noise.unit();
        });
        noise
    }

    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.unit() * n as f64) as u64
    }

    /// Standard normal (Marsaglia's polar method).
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (2.0 * self.unit() - 1.0, 2.0 * self.unit() - 1.0);
            let s = x * x + y * y;
            if s < 1.0 && s > 0.0 {
                return x * (-2.0 * s.ln() / s).sqrt();
            }
        }
    }

    /// Student's t with 4 degrees of freedom, of variance 1.
    pub fn t4(&mut self) -> f64 {
        let chi = -2.0 * (1.0 - self.unit()).ln() - 2.0 * (1.0 - self.unit()).ln();
        self.normal() / (chi / 4.0).sqrt() / 2f64.sqrt()
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
        if p <= 0.0 || n == 0 {
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

/// The q-th quantile of values in any order, or NaN of none.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((q * sorted.len() as f64) as usize).or(sorted.last()).copied().unwrap_or(f64::NAN)
}

/// A setting from the environment.
pub fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
