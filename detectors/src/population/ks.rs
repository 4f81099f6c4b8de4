//! Kolmogorov-Smirnov: the largest gap between two distribution functions.
//!
//! **Formula.** D = max |F(x) - G(x)|, two-sided. The exact p-value counts the lattice paths from (0, 0) to (n, m) that leave the
//! band of width D (Hodges 1957); it is taken up to 10,000 values a side, as SciPy's `ks_2samp` does. Above that (or with `method`
//! 2) the p-value is that of one sample of round(n m / (n + m)) values, SciPy's "asymptotic": not the limit law, but the
//! distribution at that size (Marsaglia, Tsang and Wang 2003; Smirnov's tail; Pelz and Good 1976, as arranged by Simard and L'Ecuyer
//! 2011). Ties make the test conservative. **Sees** a change of place best, of spread less, of the tails hardly. **False alarms**:
//! `alpha` per comparison if the events are independent, which production data are not. **Source**: Smirnov 1939.

use super::{Compare, Kind, Outcome, Sample, Takes, Unfit, sorted, two_lists};
use crate::evidence::ln_gamma;
use crate::stream::knob::Knob;

pub const KIND: Kind = Kind {
    name: "ks",
    about: "Kolmogorov-Smirnov test of two samples",
    takes: Takes::Values,
    knobs: &[
        Knob::real("alpha", 0.05, 0.0, 1.0, "p-value at which it has drifted"),
        Knob::whole("method", 0.0, 0.0, 2.0, "p-value: 0 exact up to 10,000 values a side, 1 exact, 2 asymptotic"),
    ],
    build: |k| Ok(Box::new(Ks { alpha: k.get("alpha"), method: k.count("method") })),
};

/// The exact count takes n m steps: a fraction of a second at this size.
const EXACT_MAX: usize = 10_000;

#[derive(Clone, Debug)]
pub struct Ks {
    alpha: f64,
    method: usize,
}

// === impl Ks ===

impl Compare for Ks {
    fn compare(&self, reference: Sample<'_>, current: Sample<'_>) -> Result<Outcome, Unfit> {
        let (a, b) = two_lists(reference, current, 1)?;
        let (n, m) = (a.len(), b.len());
        let gap = largest_gap(&sorted(a), &sorted(b));
        let statistic = gap as f64 / (n as f64 * m as f64);
        let exact = self.method == 1 || (self.method == 0 && n.max(m) <= EXACT_MAX);
        let p_value = if !exact {
            let size = (n as f64 * m as f64 / (n + m) as f64).round_ties_even();
            one_sample(size, statistic)
        } else if n == m {
            exact_equal_sizes(n, (gap / n as u64) as usize)
        } else {
            exact_paths(n, m, gap)
        };
        Ok(Outcome::of_p_value(statistic, p_value.clamp(0.0, 1.0), self.alpha))
    }
}

/// max |F - G| times n m, in whole numbers so that the boundary of the exact test is exact.
fn largest_gap(a: &[f64], b: &[f64]) -> u64 {
    let (n, m) = (a.len() as u64, b.len() as u64);
    let (mut i, mut j, mut largest) = (0, 0, 0);
    while i < a.len() && j < b.len() {
        let x = a[i].min(b[j]);
        while i < a.len() && a[i] <= x {
            i += 1;
        }
        while j < b.len() && b[j] <= x {
            j += 1;
        }
        largest = largest.max((i as u64 * m).abs_diff(j as u64 * n));
    }
    largest
}

/// P(D >= h / n) for two samples of n values each, by reflection: 2 sum of (-1)^(k+1) C(2n, n + k h) / C(2n, n), summed from the
/// innermost factor so that nothing cancels.
pub fn exact_equal_sizes(n: usize, h: usize) -> f64 {
    if h == 0 {
        return 1.0;
    }
    let (n_f, h_f) = (n as f64, h as f64);
    let mut p = 0.0;
    for k in (0..=n / h).rev() {
        let from = n_f - k as f64 * h_f;
        let to = n_f + k as f64 * h_f;
        let ratio: f64 = (0..h).map(|j| (from - j as f64) / (to + j as f64 + 1.0)).product();
        p = ratio * (1.0 - p);
    }
    (2.0 * p).min(1.0)
}

/// P(D n m >= gap): share of the paths from (0, 0) to (n, m) that touch the boundary. Every number is a sum of positive ones.
fn exact_paths(n: usize, m: usize, gap: u64) -> f64 {
    if gap == 0 {
        return 1.0;
    }
    // Rows along the longer sample, so that a row is short.
    let (n, m) = (n.max(m), n.min(m));
    let outside = |i: usize, j: usize| (i as u64 * m as u64).abs_diff(j as u64 * n as u64) >= gap;
    let mut row = vec![0.0; m + 1];
    for i in 0..=n {
        for j in 0..=m {
            row[j] = if outside(i, j) {
                1.0
            } else if i + j == 0 {
                0.0
            } else {
                let before = if j > 0 { row[j - 1] } else { 0.0 };
                (i as f64 * row[j] + j as f64 * before) / (i + j) as f64
            };
        }
    }
    row[m]
}

/// P(D_n >= d) of the one-sample statistic.
fn one_sample(n: f64, d: f64) -> f64 {
    let t = n * d;
    if d >= 1.0 {
        return 0.0;
    }
    if t <= 0.5 {
        return 1.0;
    }
    let scaled = t * d;
    // Where the tails on both sides exclude each other (or nearly), twice one of them is the answer.
    if d >= 0.5 || t >= n - 1.0 || scaled >= if n <= 140.0 { 4.0 } else { 2.2 } {
        return if scaled >= 370.0 { 0.0 } else { 2.0 * one_sided(n, d) };
    }
    if t <= 1.0 {
        return 1.0 - (ln_gamma(n + 1.0) - n * n.ln() + n * (2.0 * t - 1.0).ln()).exp();
    }
    if n <= 140.0 || (n <= 100_000.0 && n * d.powf(1.5) <= 1.4) { 1.0 - durbin(n as usize, d) } else { 1.0 - pelz_good(n, d) }
}

/// Smirnov: P(D_n^+ >= d) = d sum over j of C(n, j) (d + j / n)^(j - 1) (1 - d - j / n)^(n - j).
fn one_sided(n: f64, d: f64) -> f64 {
    let steps = (n * (1.0 - d)).floor() as usize;
    let mut sum = 0.0;
    for j in 0..=steps {
        let j = j as f64;
        let rest = 1.0 - d - j / n;
        if rest <= 0.0 {
            continue;
        }
        let choose = ln_gamma(n + 1.0) - ln_gamma(j + 1.0) - ln_gamma(n - j + 1.0);
        sum += (choose + (j - 1.0) * (d + j / n).ln() + (n - j) * rest.ln()).exp();
    }
    d * sum
}

/// P(D_n < d) as an entry of the n-th power of a matrix (Durbin 1973; Marsaglia, Tsang and Wang 2003).
fn durbin(n: usize, d: f64) -> f64 {
    let t = n as f64 * d;
    let k = t.ceil() as usize;
    let h = k as f64 - t;
    let m = 2 * k - 1;
    let mut matrix = vec![0.0; m * m];
    let mut factorials = vec![1.0; m + 2];
    for i in 1..m + 2 {
        factorials[i] = factorials[i - 1] * i as f64;
    }
    for i in 0..m {
        for j in 0..m {
            if j <= i + 1 {
                let mut entry = 1.0;
                if j == 0 {
                    entry -= h.powi(i as i32 + 1);
                }
                if i == m - 1 {
                    entry -= h.powi((m - j) as i32);
                }
                if j == 0 && i == m - 1 {
                    entry += (2.0 * h - 1.0).max(0.0).powi(m as i32);
                }
                matrix[i * m + j] = entry / factorials[i + 1 - j];
            }
        }
    }
    let (power, exponent) = matrix_power(&matrix, m, n);
    let mut p = power[(k - 1) * m + k - 1];
    // n! / n^n, factor by factor; the exponent of two keeps both ends in range.
    let mut log_scale = exponent;
    for i in 1..=n {
        p *= i as f64 / n as f64;
        if p < 1e-140 {
            p *= 1e140;
            log_scale -= 140;
        }
    }
    p * 10f64.powi(log_scale)
}

/// The n-th power of an m by m matrix, with a power of ten taken out.
fn matrix_power(matrix: &[f64], m: usize, n: usize) -> (Vec<f64>, i32) {
    let times = |a: &[f64], b: &[f64]| {
        let mut out = vec![0.0; m * m];
        for i in 0..m {
            for l in 0..m {
                let left = a[i * m + l];
                if left != 0.0 {
                    for j in 0..m {
                        out[i * m + j] += left * b[l * m + j];
                    }
                }
            }
        }
        out
    };
    let scaled = |mut a: Vec<f64>, mut exponent: i32| {
        if a[(m / 2) * m + m / 2] > 1e140 {
            a.iter_mut().for_each(|v| *v *= 1e-140);
            exponent += 140;
        }
        (a, exponent)
    };
    let mut result: Option<(Vec<f64>, i32)> = None;
    let mut square = (matrix.to_vec(), 0);
    let mut left = n;
    while left > 0 {
        if left % 2 == 1 {
            result = Some(match result {
                None => square.clone(),
                Some((r, e)) => scaled(times(&r, &square.0), e + square.1),
            });
        }
        left /= 2;
        if left > 0 {
            square = scaled(times(&square.0, &square.0), 2 * square.1);
        }
    }
    result.unwrap_or_else(|| (matrix.to_vec(), 0))
}

/// P(D_n < d) by the limit law and its first three corrections in 1 / sqrt(n) (Pelz and Good 1976).
fn pelz_good(n: f64, d: f64) -> f64 {
    use std::f64::consts::PI;
    let z = n.sqrt() * d;
    let (z2, z4) = (z * z, z.powi(4));
    let p2 = PI * PI;
    let mut sums = [0.0; 4];
    let terms = (16.0 * z / PI).ceil() as i32;
    for k in (1..=terms).rev() {
        let m2 = f64::from((2 * k - 1) * (2 * k - 1));
        let e = (-p2 * m2 / (8.0 * z2)).exp();
        sums[0] += e;
        sums[1] += e * (p2 / 4.0 * m2 - z2);
        sums[2] += e * (6.0 * z.powi(6) + 2.0 * z4 + (2.0 * z4 - 5.0 * z2) * p2 / 4.0 * m2 + p2 * p2 * (1.0 - 2.0 * z2) / 16.0 * m2 * m2);
        sums[3] += e
            * (-30.0 * z.powi(6) - 90.0 * z.powi(8)
                + p2 * (135.0 * z4 - 96.0 * z.powi(6)) / 4.0 * m2
                + p2 * p2 * (212.0 * z4 - 60.0 * z2) / 16.0 * m2 * m2
                + p2 * p2 * p2 * (5.0 - 30.0 * z2) / 64.0 * m2 * m2 * m2);
    }
    let root = (2.0 * PI).sqrt();
    let mut parts = [root * sums[0] / z, root * sums[1] / (6.0 * z4), root * sums[2] / (72.0 * z.powi(7)), root * sums[3] / (6480.0 * z.powi(10))];
    for k in 1..=terms {
        let k2 = f64::from(k * k);
        let e = (-p2 * k2 / (2.0 * z2)).exp();
        parts[2] -= p2 * root / (36.0 * z.powi(3)) * k2 * e;
        parts[3] += p2 * root / (216.0 * z.powi(6)) * (3.0 * z2 - p2 * k2) * k2 * e;
    }
    parts[0] + parts[1] / n.sqrt() + parts[2] / n + parts[3] / n.powf(1.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_exact_counts_agree() {
        for n in [1, 2, 7, 30, 150] {
            for h in 1..=n {
                let (a, b) = (exact_equal_sizes(n, h), exact_paths(n, n, (h * n) as u64));
                assert!((a - b).abs() < 1e-12 && (a - b).abs() < 1e-9 * b, "{n} {h}: {a} {b}");
            }
        }
    }

    #[test]
    fn the_exact_count_agrees_with_trying_every_order() {
        // All C(7, 3) ways in which 3 of 7 ranks belong to one sample.
        let (n, m) = (4usize, 3usize);
        let mut gaps = Vec::new();
        for mask in 0u32..1 << (n + m) {
            if mask.count_ones() as usize == m {
                let a: Vec<f64> = (0..n + m).filter(|i| mask >> i & 1 == 0).map(|i| i as f64).collect();
                let b: Vec<f64> = (0..n + m).filter(|i| mask >> i & 1 == 1).map(|i| i as f64).collect();
                gaps.push(largest_gap(&a, &b));
            }
        }
        for gap in 1..=(n * m) as u64 {
            let share = gaps.iter().filter(|g| **g >= gap).count() as f64 / gaps.len() as f64;
            assert!((exact_paths(n, m, gap) - share).abs() < 1e-12, "{gap}");
        }
    }
}
