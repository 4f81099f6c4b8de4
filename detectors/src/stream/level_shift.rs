//! Level shift: did this series move from one level to another, and where?
//!
//! **Idea.** Try every cut of a window. A step is believed when it is large against the noise on both sides *and* that noise is
//! noise: on a ramp or a wandering series neighbours resemble each other, each value brings little that is new, and the same step
//! counts for little. **Formula.** For a cut into n and m values with means a and b, common variance v around them and correlation r
//! of neighbours within the parts (plus 3 / (n + m), for it is estimated too low): z = |b - a| / sqrt(v (1/n + 1/m) (1 + r) / (1 -
//! r)). Drift where z > `limit` and |b - a| >= `deviations` sqrt(v), with at least `before_min` and `after_min` values on the sides.
//! After an alarm it goes on with what lies after the cut; `since` says where that was. **Sees** lasting steps of the level either
//! way in any unit, without a prior (a ramp of about the size of its noise is still taken for a step); not trends, seasons or
//! changes of spread, and nothing before `after_min` values. **Cost**: one
//! pass over the window per value; a window that is full drops its older quarter. **Source**: the two-sample statistic over all cuts
//! is Worsley 1979, the effective number of correlated values Bartlett 1946; settings were chosen on sixteen annotated series, see
//! `benches/results/streams.md`.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "level_shift",
    about: "best cut of a window by a t-statistic that discounts correlation; lasting steps of the level and where they were",
    takes: Takes::Values,
    knobs: &[
        Knob::real("limit", 6.5, 0.0, 1e6, "z of the best cut at which it alarms"),
        Knob::real("deviations", 1.5, 0.0, 1e6, "least step, in standard deviations of what lies around the two levels"),
        Knob::whole("before_min", 20.0, 2.0, 1e6, "values before a cut"),
        Knob::whole("after_min", 12.0, 2.0, 1e6, "values after a cut"),
        Knob::whole("window", 512.0, 8.0, 100_000.0, "values kept"),
    ],
    build,
};

/// By so much over the number of values the correlation of neighbours is estimated too low around fitted means (Kendall 1954).
const CORRELATION_BIAS: f64 = 3.0;
/// A correlation beyond this would say that a window holds no information at all.
const CORRELATION_MAX: f64 = 0.99;
/// Steps below this share of the largest value are rounding.
const ROUNDING: f64 = 1e-9;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelShift {
    limit: f64,
    deviations: f64,
    before_min: usize,
    after_min: usize,
    window: usize,
    /// Oldest first.
    values: Vec<f64>,
    /// Values dropped so far: the index of the first one in the window.
    dropped: u64,
    /// Where the present level began.
    since: u64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    let window = k.count("window");
    if k.count("before_min") + k.count("after_min") > window {
        return Err(Refusal::Conflict { name: "window", why: "must hold before_min and after_min" });
    }
    Ok(Detector::LevelShift(LevelShift {
        limit: k.get("limit"),
        deviations: k.get("deviations"),
        before_min: k.count("before_min"),
        after_min: k.count("after_min"),
        window,
        values: Vec::with_capacity(window),
        dropped: 0,
        since: 0,
    }))
}

// === impl LevelShift ===

impl LevelShift {
    /// Index (values since building or reset) at which the present level began; 0 before the first alarm.
    pub fn since(&self) -> u64 {
        self.since
    }

    fn drop_oldest(&mut self, n: usize) {
        self.values.copy_within(n.., 0);
        self.values.truncate(self.values.len() - n);
        self.dropped += n as u64;
    }

    /// The cut with the largest z among those whose step is large enough: z, and values before it.
    fn best_cut(&self) -> (f64, usize) {
        let w = &self.values;
        let (n, last) = (w.len(), w.len() - 1);
        // Seen from the first value, so that a large level costs no digits.
        let at = |i: usize| w[i] - w[0];
        let (mut sum, mut squares, mut products, mut largest) = (0.0, 0.0, 0.0, 0.0f64);
        for (i, value) in w.iter().enumerate() {
            sum += at(i);
            squares += at(i) * at(i);
            products += if i > 0 { at(i) * at(i - 1) } else { 0.0 };
            largest = largest.max(value.abs());
        }
        let mut best = (0.0, 0);
        let (mut sum_before, mut products_before) = (0.0, 0.0);
        for k in 1..=n - self.after_min {
            sum_before += at(k - 1);
            products_before += if k > 1 { at(k - 1) * at(k - 2) } else { 0.0 };
            if k < self.before_min {
                continue;
            }
            let (n1, n2) = (k as f64, (n - k) as f64);
            let sum_after = sum - sum_before;
            let (m1, m2) = (sum_before / n1, sum_after / n2);
            let around = (squares - n1 * m1 * m1 - n2 * m2 * m2).max(0.0);
            let step = (m2 - m1).abs();
            let variance = around / (n as f64 - 2.0);
            if step < ROUNDING * largest || step * step < self.deviations * self.deviations * variance {
                continue;
            }
            // Products of neighbours around their own mean; the pair across the cut belongs to neither side.
            let before = products_before - m1 * (2.0 * sum_before - at(k - 1)) + (n1 - 1.0) * m1 * m1;
            let after = products - products_before - at(k) * at(k - 1) - m2 * (2.0 * sum_after - at(k) - at(last)) + (n2 - 1.0) * m2 * m2;
            let correlation = if around > 0.0 { (before + after) / around } else { 0.0 };
            let r = (correlation + CORRELATION_BIAS / n as f64).clamp(0.0, CORRELATION_MAX);
            let z = step / (variance * (1.0 / n1 + 1.0 / n2) * (1.0 + r) / (1.0 - r)).sqrt();
            if z > best.0 {
                best = (z, k);
            }
        }
        best
    }
}

impl Stream for LevelShift {
    fn update(&mut self, x: f64) -> Verdict {
        if self.values.len() == self.window {
            self.drop_oldest((self.window / 4).max(1));
        }
        self.values.push(x);
        if self.values.len() < self.before_min + self.after_min {
            return Verdict::SILENT;
        }
        let (z, cut) = self.best_cut();
        if z > self.limit {
            self.drop_oldest(cut);
            self.since = self.dropped;
        }
        Verdict::drift_if(z > self.limit, z, self.limit)
    }

    fn reset(&mut self) {
        self.values.clear();
        (self.dropped, self.since) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::noise::Noise;
    use crate::stream::{Signal, build};

    /// The same statistic, each cut on its own.
    fn naive(w: &[f64], before_min: usize, after_min: usize, deviations: f64) -> f64 {
        let mut best: f64 = 0.0;
        for k in before_min..=w.len() - after_min {
            let (a, b) = w.split_at(k);
            let mean = |s: &[f64]| s.iter().sum::<f64>() / s.len() as f64;
            let (m1, m2) = (mean(a), mean(b));
            let off: Vec<Vec<f64>> = vec![a.iter().map(|v| v - m1).collect(), b.iter().map(|v| v - m2).collect()];
            let around: f64 = off.iter().flatten().map(|d| d * d).sum();
            let near: f64 = off.iter().flat_map(|s| s.windows(2)).map(|p| p[0] * p[1]).sum();
            let variance = around / (w.len() as f64 - 2.0);
            let r = (near / around + CORRELATION_BIAS / w.len() as f64).clamp(0.0, CORRELATION_MAX);
            let z = (m2 - m1).abs() / (variance * (1.0 / a.len() as f64 + 1.0 / b.len() as f64) * (1.0 + r) / (1.0 - r)).sqrt();
            if (m2 - m1).abs() >= deviations * variance.sqrt() {
                best = best.max(z);
            }
        }
        best
    }

    #[test]
    fn it_agrees_with_looking_at_each_cut_on_its_own() {
        let mut noise = Noise::new(6);
        let Ok(Detector::LevelShift(mut test)) = build("level_shift", &[("limit", 1e6), ("deviations", 0.5)]) else { panic!("built") };
        let mut all = Vec::new();
        let mut level = 1e6;
        for i in 0..200 {
            level += 0.1 * noise.normal();
            let x = level + noise.normal() + if i > 120 { 3.0 } else { 0.0 };
            all.push(x);
            let score = test.update(x).score;
            if all.len() >= 32 {
                let slow = naive(&all, 20, 12, 0.5);
                assert!((score - slow).abs() < 1e-6 * slow.max(1.0), "{i}: {score} {slow}");
            }
        }
    }

    #[test]
    fn it_tells_a_step_from_a_ramp_and_says_where() {
        let mut noise = Noise::new(8);
        let Ok(Detector::LevelShift(mut test)) = build("level_shift", &[]) else { panic!("built") };
        let step: Vec<f64> = (0..200).map(|i| noise.normal() + if i < 100 { 0.0 } else { 3.0 }).collect();
        let alarms: Vec<usize> = (0..200).filter(|i| test.update(step[*i]).signal == Signal::Drift).collect();
        assert!(alarms.len() == 1 && (105..125).contains(&alarms[0]), "{alarms:?}");
        assert!(test.since().abs_diff(100) <= 3, "{}", test.since());
        test.reset();
        let ramp = (0..500).find(|i| test.update(f64::from(*i) * 0.05 + 0.05 * noise.normal()).signal == Signal::Drift);
        assert_eq!(ramp, None);
    }
}
