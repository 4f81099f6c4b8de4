//! The shape of the day and of the week: how far traffic lies above or below its level, without chance.

use super::plan::{ModelPlan, Plan};
use crate::domain::Time;
use crate::domain::time::{DAY_MS, HOUR_MS, MINUTE_MS};

/// 1970-01-01 was a Thursday; this is the first Monday.
const FIRST_MONDAY_MS: i64 = 4 * DAY_MS;
const WEEK_MS: i64 = 7 * DAY_MS;
/// How long the week takes to turn into the weekend and back.
const TURN_HOURS: f64 = 4.0;

/// The season of one model: a factor with mean 1 over the week.
#[derive(Clone, Debug)]
pub struct Season {
    daily: f64,
    weekly: f64,
    peak_hour: f64,
    mean: f64,
}

// === impl Season ===

impl Season {
    pub fn new(plan: &Plan, model: &ModelPlan) -> Season {
        let bounded = |share: f64| share.clamp(0.0, 0.9);
        let mut season = Season { daily: bounded(plan.daily), weekly: bounded(plan.weekly), peak_hour: model.peak_hour, mean: 1.0 };
        let steps = WEEK_MS / (15 * MINUTE_MS);
        season.mean = (0..steps).map(|i| season.at(Time(i * 15 * MINUTE_MS))).sum::<f64>() / steps as f64;
        season
    }

    /// The factor at this moment.
    pub fn at(&self, time: Time) -> f64 {
        let hour_of_week = (time.0 - FIRST_MONDAY_MS).rem_euclid(WEEK_MS) as f64 / HOUR_MS as f64;
        let turn = std::f64::consts::TAU * (hour_of_week - self.peak_hour) / 24.0;
        // The weekend begins as Friday ends and is over as Monday begins: each edge is a smooth step around midnight.
        let step = |edge: f64| {
            let x = ((hour_of_week - edge) / TURN_HOURS + 0.5).clamp(0.0, 1.0);
            x * x * (3.0 - 2.0 * x)
        };
        let weekend = step(120.0) - step(168.0) + (1.0 - step(0.0));
        (1.0 + self.daily * turn.cos()) * (1.0 - self.weekly * weekend) / self.mean
    }

    /// Mean of the factor over the hour that starts here.
    pub fn over_hour(&self, start: Time) -> f64 {
        (0..12).map(|i| self.at(start.plus_ms(i * 5 * MINUTE_MS + 150_000))).sum::<f64>() / 12.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_week_has_mean_one_and_no_jumps() {
        let plan = Plan::demo();
        let season = Season::new(&plan, &plan.models[0]);
        let monday = Time::parse_rfc3339("2026-11-16T00:00:00Z").unwrap();
        let minutes: Vec<f64> = (0..=7 * 1_440).map(|i| season.at(monday.plus_ms(i * MINUTE_MS))).collect();
        let mean = minutes.iter().sum::<f64>() / minutes.len() as f64;
        assert!((mean - 1.0).abs() < 1e-3, "{mean}");
        let step = minutes.windows(2).map(|w| (w[1] / w[0] - 1.0).abs()).fold(0.0, f64::max);
        assert!(step < 0.004, "{step}");
        let at = |text: &str| season.at(Time::parse_rfc3339(text).unwrap());
        assert!(at("2026-11-18T13:00:00Z") > 1.7 * at("2026-11-18T01:00:00Z"));
        assert!((at("2026-11-21T13:00:00Z") / at("2026-11-18T13:00:00Z") - 0.8).abs() < 1e-9);
        assert!((at("2026-11-22T13:00:00Z") / at("2026-11-18T13:00:00Z") - 0.8).abs() < 1e-9);
    }
}
