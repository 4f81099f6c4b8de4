//! The level of this time of day and of this time of the week.
//!
//! A day is cut into 48 bins and a week into 336. The mean of each finished bin teaches the level of its time of day, and what is
//! left the level of its time of the week; both are slow means, and the week's counts by n / (n + 1), so that a first week is
//! believed by half. A series without a season gets levels near its mean, and loses little.

use serde::{Deserialize, Serialize};

use super::constants::Constants;
use super::fixed;

const DAY_BINS: usize = 48;
const WEEK_BINS: usize = 7 * DAY_BINS;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Season {
    bin_ms: i64,
    #[serde(with = "fixed")]
    day: [f32; DAY_BINS],
    #[serde(with = "fixed")]
    day_seen: [u8; DAY_BINS],
    #[serde(with = "fixed")]
    week: [f32; WEEK_BINS],
    #[serde(with = "fixed")]
    week_seen: [u8; WEEK_BINS],
    /// The bin being filled.
    bin: i64,
    sum: f64,
    rows: u32,
}

// === impl Season ===

impl Season {
    /// `cycle_ms`: the length of a day; seven of them are a week.
    pub fn new(cycle_ms: i64) -> Season {
        Season {
            bin_ms: (cycle_ms / DAY_BINS as i64).max(1),
            day: [0.0; DAY_BINS],
            day_seen: [0; DAY_BINS],
            week: [0.0; WEEK_BINS],
            week_seen: [0; WEEK_BINS],
            bin: 0,
            sum: 0.0,
            rows: 0,
        }
    }

    /// Whether the present time of the week was ever seen before.
    pub fn week_is_seen(&self) -> bool {
        self.week_seen[self.bin.rem_euclid(WEEK_BINS as i64) as usize] > 0
    }

    /// Distance of `x` from what is usual at this time, once that is known; then learns.
    #[inline]
    pub fn step(&mut self, c: &Constants, at_ms: i64, x: f64, kept_out: bool) -> Option<f64> {
        let bin = at_ms.div_euclid(self.bin_ms);
        if bin != self.bin && self.rows > 0 {
            self.learn(c);
        }
        self.bin = bin;
        let (d, w) = (bin.rem_euclid(DAY_BINS as i64) as usize, bin.rem_euclid(WEEK_BINS as i64) as usize);
        let seen = f64::from(self.week_seen[w]);
        let usual = f64::from(self.day[d]) + f64::from(self.week[w]) * seen / (seen + 1.0);
        if !kept_out {
            self.sum += x;
            self.rows += 1;
        }
        (self.day_seen[d] >= c.season_days).then_some(x - usual)
    }

    fn learn(&mut self, c: &Constants) {
        let mean = self.sum / f64::from(self.rows);
        let (d, w) = (self.bin.rem_euclid(DAY_BINS as i64) as usize, self.bin.rem_euclid(WEEK_BINS as i64) as usize);
        let rate = |seen: u8| (1.0 / (f64::from(seen) + 1.0)).max(c.season_rate_min);
        let day = f64::from(self.day[d]);
        let day = day + rate(self.day_seen[d]) * (mean - day);
        let week = f64::from(self.week[w]);
        self.week[w] = (week + rate(self.week_seen[w]) * (mean - day - week)) as f32;
        self.day[d] = day as f32;
        self.day_seen[d] = self.day_seen[d].saturating_add(1);
        self.week_seen[w] = self.week_seen[w].saturating_add(1);
        (self.sum, self.rows) = (0.0, 0);
    }
}
