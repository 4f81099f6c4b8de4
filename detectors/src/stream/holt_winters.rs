//! Holt-Winters residual: does the value lie where level, trend and season say?
//!
//! **Idea.** Three fading averages forecast the next value: a level, its trend, and what this place in the season adds. How far off
//! forecasts usually are is a fourth one. **Formula** (additive). l_t = alpha (x_t - s_{t-m}) + (1 - alpha)(l_{t-1} + b_{t-1}), b_t
//! = beta (l_t - l_{t-1}) + (1 - beta) b_{t-1}, s_t = gamma (x_t - l_t) + (1 - gamma) s_{t-m}; residual e_t = x_t - (l_{t-1} +
//! b_{t-1} + s_{t-m}); alarm when |e_t| > limit * 1.2533 * (fading mean of |e|), 1.2533 = sqrt(pi / 2) turning it into a normal
//! standard deviation. The first two seasons start it (level their mean, trend their difference, season the first's deviations);
//! `period` 0 leaves the season out. **Sees** spikes and jumps on seasonal series; learns a lasting change within 1 / alpha values
//! and then says no more. **Source**: Holt 1957, Winters 1960; the residual band is Brutlag 2000.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "holt_winters",
    about: "newest value against a forecast of level, trend and season; spikes and jumps on seasonal series",
    takes: Takes::Values,
    knobs: &[
        Knob::whole("period", 0.0, 0.0, 100_000.0, "values in one season; 0 for none"),
        Knob::real("alpha", 0.1, 0.0, 1.0, "weight of the newest value in the level"),
        Knob::real("beta", 0.01, 0.0, 1.0, "weight of the newest step in the trend"),
        Knob::real("gamma", 0.1, 0.0, 1.0, "weight of the newest value in its place of the season"),
        Knob::real("limit", 4.0, 0.0, 1e6, "usual deviations at which it alarms"),
        Knob::whole("learn", 50.0, 2.0, 1e9, "forecasts that say how large residuals usually are before any is judged"),
    ],
    build,
};

/// sqrt(pi / 2): standard deviation over mean distance of normal values.
const DEVIATION_PER_MEAN_DISTANCE: f64 = 1.253_314_137_315_500_3;
/// Fading of the usual size of residuals, at most; in the beginning it is a plain mean.
const USUAL_WEIGHT_MIN: f64 = 0.01;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HoltWinters {
    period: usize,
    alpha: f64,
    beta: f64,
    gamma: f64,
    limit: f64,
    learn: f64,
    /// What each place of the season adds; until two seasons have passed, their values.
    season: Vec<f64>,
    n: usize,
    level: f64,
    trend: f64,
    usual: f64,
    forecasts: f64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    let period = k.count("period");
    Ok(Detector::HoltWinters(HoltWinters {
        period,
        alpha: k.get("alpha"),
        beta: k.get("beta"),
        gamma: k.get("gamma"),
        limit: k.get("limit"),
        learn: k.get("learn"),
        season: vec![0.0; 2 * period.max(1)],
        n: 0,
        level: 0.0,
        trend: 0.0,
        usual: 0.0,
        forecasts: 0.0,
    }))
}

// === impl HoltWinters ===

impl HoltWinters {
    /// Level, trend and season from the first two seasons (two values where there is no season).
    fn begin(&mut self) {
        let m = self.period.max(1);
        let first = self.season[..m].iter().sum::<f64>() / m as f64;
        let second = self.season[m..].iter().sum::<f64>() / m as f64;
        self.trend = (second - first) / m as f64;
        // The mean of the second season stands at its middle; the level at its end.
        self.level = second + self.trend * (m as f64 - 1.0) / 2.0;
        for i in 0..m {
            let along = self.trend * (i as f64 - (m as f64 - 1.0) / 2.0);
            let deviation = (self.season[i] - first - along + self.season[m + i] - second - along) / 2.0;
            self.season[i] = if self.period > 0 { deviation } else { 0.0 };
        }
        self.season[m..].fill(0.0);
    }
}

impl Stream for HoltWinters {
    fn update(&mut self, x: f64) -> Verdict {
        let m = self.period.max(1);
        let at = self.n;
        self.n += 1;
        if at < 2 * m {
            self.season[at] = x;
            if self.n == 2 * m {
                self.begin();
            }
            return Verdict::SILENT;
        }
        let place = at % m;
        let expected = self.level + self.trend + self.season[place];
        let off = x - expected;
        let limit = self.limit * DEVIATION_PER_MEAN_DISTANCE * self.usual;
        let verdict = if self.forecasts >= self.learn { Verdict::drift_if(off.abs() > limit, off.abs(), limit) } else { Verdict::SILENT };
        self.forecasts += 1.0;
        self.usual += (off.abs() - self.usual) * (1.0 / self.forecasts).max(USUAL_WEIGHT_MIN);
        let before = self.level;
        self.level = self.alpha * (x - self.season[place]) + (1.0 - self.alpha) * (before + self.trend);
        self.trend = self.beta * (self.level - before) + (1.0 - self.beta) * self.trend;
        if self.period > 0 {
            self.season[place] = self.gamma * (x - self.level) + (1.0 - self.gamma) * self.season[place];
        }
        verdict
    }

    fn reset(&mut self) {
        self.season.fill(0.0);
        (self.n, self.level, self.trend, self.usual, self.forecasts) = (0, 0.0, 0.0, 0.0, 0.0);
    }
}
