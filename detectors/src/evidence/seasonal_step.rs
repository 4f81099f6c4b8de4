//! Sums per interval with a daily and weekly season: traffic and cost.
//!
//! **Idea.** Learn what this hour of this week usually brings, look at the surprise that is left, and bet on a step in it, against
//! everything that a quiet load may do instead: go on as usual, go by another clock, or have a holiday.
//! **Formula.** y = ln(max(x, half a hundredth of the median)). Level = median per cell of the week, drawn towards the median of its time
//! of day on workdays or days of rest by (variance within a cell over excess variance between cells); which two days are those of rest,
//! and so where the load's own midnight lies, is read from the load. Beside it a slow level (EWMA of 14 days). The surprise e = y -
//! level is a slow part, AR(1), under the white noise of counting, whose variance goes with one over the level; a Kalman filter follows
//! the slow part, and its innovation u has a Student t law as heavy as seen, widened by what the level itself is unsure. A step d
//! shows in u as d c_a, a intervals after it began: c_0 = 1, c_a = 1 - what the filter took in of it. So every step is followed by age:
//! R_{d,a} <- (R_{d,a-1}, or the injection for a = 0) LR(u; d c_a, t c_a), t the tolerance on the side of d; the last age gathers all
//! older ones. Densities are at most 6 nats below the best one of the interval. **Excuses** are alternatives in the null: each has odds
//! against the usual life, and page when sum R / (1 + sum of odds) >= 1 (a likelihood ratio against the mixture of quiet lives). Clocks: an
//! hour ahead or behind, from a weekend on; when certain, history is moved there. Low days: one that begins in the load's own night,
//! as usual but lower or like a day of rest, for at most a day and a night; a load without days of rest has none. **Sees** steps from
//! about three times the tolerance, spikes of two intervals or more, stops, ramps. Does not see what grows slower than the slow level;
//! a drop that begins in the night before a workday is told only when the next night ends, unless it is deeper than any holiday; from
//! then on it is evidence from its begin, and so is the second of two holidays in a row.
//! **Knobs.** `tolerance` 5 %: smaller is faster and pages on life; `interval_ms`: 10 minutes. **False alarms**: at most the injected
//! sum if surprises are as modelled; measured in `benches/results/cost_traffic.md`. **Sources**: Shiryaev-Roberts recursion (Roberts
//! 1966), steps in autoregressive noise (Lorden 1971; Harvey 1989 for the filter), mixture nulls (Wasserman, Ramdas, Balakrishnan 2020).

use serde::{Deserialize, Serialize};

use super::{Band, HELD_RESET_MS, RECOVERY_PER_DAY, Sees, nats};
use crate::verdict::{Call, Change, Onset, Reading, Release, State};

const DAY_MS: i64 = 86_400_000;
const WEEK_MS: i64 = 7 * DAY_MS;
const HOUR_MS: i64 = 3_600_000;
/// 1970-01-05 was a Monday.
const MONDAY_MS: i64 = 4 * DAY_MS;
const WEEKS_KEPT: usize = 8;
/// Weeks of surprises from which the noise is learned.
const NOISE_WEEKS: usize = 4;
/// From three times the usual tolerance to five times the usual load, geometric; the last is a stop, which is no lower from a holiday than
/// from a workday.
const STEPS: [f64; 11] = [0.15, 0.275, 0.5, 0.92, 1.7, -0.15, -0.275, -0.5, -0.92, -1.7, -3.0];
const STOP: usize = STEPS.len() - 1;
/// Parts of the injection. A small step is found with few nats an interval, each of them minutes; a large one has them to spare.
const WEIGHTS: [f64; STEPS.len()] = [0.12, 0.20, 0.08, 0.04, 0.03, 0.12, 0.20, 0.08, 0.04, 0.03, 0.06];
/// Surprises beyond these are alike: a stop, and seven times the usual.
const SURPRISE_MIN: f64 = -3.0;
const SURPRISE_MAX: f64 = 2.0;
/// Where nothing at all is not lower than this (ln), it is no stop.
const STOP_LEAST: f64 = 1.0;
/// Ages of a step, in intervals since it began, that are followed one by one; the last holds all older ones.
const AGES: usize = 8;
/// The most that one interval may say.
const NATS_MAX: f64 = 6.0;
/// Innovations follow Student's t, as heavy as they were seen to be: degrees of freedom, the median size and the density at 0.
const TAILS: [(f64, f64, f64); 5] =
    [(3.0, 0.7649, 0.36755), (5.0, 0.7267, 0.37961), (8.0, 0.7064, 0.38670), (15.0, 0.6912, 0.39239), (40.0, 0.6807, 0.39647)];
/// The heaviest tail within this many nats of the best one is taken.
const TAIL_NATS: f64 = 2.0;
/// Below this part of the median all values are alike.
const FLOOR: f64 = 0.005;
/// Above this evidence (in thresholds) a cell is fed its own level: nothing is learned from an incident.
const LEARN_BELOW: f64 = 0.05;
const SLOW_MS: f64 = 14.0 * DAY_MS as f64;
const SLOW_CLIP: f64 = 0.3;
/// A series that never varied still varies this much: otherwise its first cent of change were infinite evidence.
const DEVIATION_MIN: f64 = 0.01;
/// Weight of the overall variance in that of an hour, in intervals.
const HOUR_SHRINK: f64 = 30.0;
/// Surprises are kept from here on; bets begin at two weeks, with a wider deviation until three.
const PROFILE_FROM_MS: i64 = WEEK_MS;
const ARMED_FROM_MS: i64 = 2 * WEEK_MS;
const GROWN_MS: i64 = 3 * WEEK_MS;
const YOUNG_FACTOR: f64 = 1.2;
const SURPRISES_MIN: usize = 3 * 24;
/// Variance of a median over that of a mean.
const MEDIAN_COST: f64 = 1.4;
/// Mean square of neighbouring cells, over what noise alone gives on average, beyond which the neighbourhood is its own.
const NEAR_COST: f64 = 2.5;
const PHI_MAX: f64 = 0.97;
/// Blocks of innovations, in intervals, by which resemblance over longer times is told, and the pairs by which it is shrunk.
const BLOCKS: [usize; 3] = [6, 24, 72];
const BLOCK_SHRINK: f64 = 24.0;
/// What else a quiet load may do than what it usually does: go by a clock an hour ahead or behind since the weekend; have a day that is
/// its usual one made lower by these nats; have a day like a day of rest, times these nats.
const CLOCKS_MS: [i64; 2] = [HOUR_MS, -HOUR_MS];
const LOW_DAYS: [f64; 5] = [-0.15, -0.275, -0.5, -0.92, -1.7];
const REST_DAYS: [f64; 5] = [0.15, 0.0, -0.2, -0.4, -0.7];
const DAYS: usize = LOW_DAYS.len() + REST_DAYS.len();
/// Clocks, then the low days that began on nights of even number, then those of odd.
const EXCUSES: usize = CLOCKS_MS.len() + 2 * DAYS + 1;
/// The last excuse: there was a low day, and it is over. Any interval of it may be the last.
const OVER: usize = EXCUSES - 1;
/// Odds against all else at which an excuse is taken for true.
const SURE: f64 = 20.0;
/// Odds beyond which they and the evidence are made less by this factor.
const ODDS_MAX: f64 = 1e100;
const ODDS_LESS: f64 = 1e-50;
/// Odds beforehand of another clock in a week, and of a low day.
const CLOCK_ODDS: f64 = 0.02;
const LOW_DAY_ODDS: f64 = 0.05;
/// Clocks change somewhere on earth from Saturday noon to Sunday afternoon, UTC.
const CLOCKS_CHANGE_MS: std::ops::Range<i64> = 11 * DAY_MS / 2..WEEK_MS - DAY_MS / 3;
/// A low day begins this long before to this long after the load's own midnight, and lasts until the end of the same time next day.
const LOW_DAY_BEGINS_MS: std::ops::Range<i64> = -2 * HOUR_MS..6 * HOUR_MS;
/// Time of the load's own day from which the low day before it has to be over.
const LOW_DAY_ENDS_MS: i64 = 4 * HOUR_MS;
/// A rest day nearer to a workday than this is none, and such a load has no holidays.
const REST_LEAST: f64 = 0.05;
/// Odds for another clock at which history is moved to it.
const CLOCK_SURE: f64 = 160_000.0;
const RECOVERY_FACTOR_MAX: f64 = 1.5;
const RECOVERY_PARTS: [f64; 3] = [-0.3, 0.0, 0.4];

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeasonalSettings {
    /// Relative change that is forgiven.
    pub tolerance: f64,
    /// Length of an interval; divides an hour or is a multiple of it that divides a day.
    pub interval_ms: i64,
}

impl Default for SeasonalSettings {
    fn default() -> Self {
        SeasonalSettings { tolerance: 0.05, interval_ms: 600_000 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeasonalStepBank {
    settings: SeasonalSettings,
    first_ms: i64,
    /// Start of the newest interval.
    last_ms: i64,
    /// The last eight weeks; an interval never reported is NaN. The place in the ring is the interval's number modulo its length.
    values: Vec<f32>,
    /// Surprises of the last four weeks, NaN where none was known beforehand or none was learned.
    surprises: Vec<f32>,
    model: Option<Model>,
    /// Evidence by step, then by age.
    r: [[f64; AGES]; STEPS.len()],
    /// Page's maximum by step, and what came in since its start.
    best: [f64; STEPS.len()],
    since: [Since; STEPS.len()],
    /// Where the slow part of the surprise is expected, in nats, and the variance of that as a part of the slow part's own.
    drift: f64,
    unsure: f64,
    excuses: [Excuse; EXCUSES],
    /// The night that the newest low days began in, by its number; and the parity of those of the night before once they have to be over
    /// by the clock: from then on they are evidence.
    night: i64,
    overdue: Option<u8>,
    held_since_ms: Option<i64>,
    frozen: Option<Frozen>,
}

/// A quiet life other than the usual one: its odds against that, and where the slow part of its surprise is expected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Excuse {
    odds: f64,
    drift: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Since {
    start_ms: i64,
    intervals: f64,
    surprise: f64,
    value: f64,
    expected: f64,
}

/// What was learned, rebuilt daily.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Model {
    built_ms: i64,
    floor: f64,
    /// ln level per cell of the week.
    profile: Vec<f32>,
    /// Variance of that level over the variance of a surprise.
    lever: Vec<f32>,
    /// Cell at which the two days of rest begin, and so the load's own midnight.
    rest_from: usize,
    /// ln level of a day of rest by the time of the load's own day.
    rest: Vec<f32>,
    /// ln of a rest day over a workday, on average.
    contrast: f64,
    slow: f64,
    /// The surprise is a slow part, an autoregression with this correlation and this variance, under the white noise of counting, whose
    /// variance is `grain` over the level.
    phi: f64,
    variance: f64,
    grain: f64,
    /// Scale of standardised innovations, by hour of day too.
    scale: f64,
    /// Degrees of freedom of innovations.
    freedom: f64,
    hour_factor: Vec<f32>,
    /// Variance of sums of innovations over that of independent ones.
    long_run: f64,
    /// Surprises behind the noise; too few and no bet is made.
    known: usize,
}

/// What an interval is expected to bring.
#[derive(Clone, Copy)]
struct Expected {
    level: f64,
    /// Variance of the noise of counting, unscaled, and the square of the scale.
    white: f64,
    scale_square: f64,
}

/// Student's t of an innovation: degrees of freedom, square of the scale.
#[derive(Clone, Copy)]
struct Law {
    freedom: f64,
    square: f64,
}

/// What all lives share in one interval.
struct Interval {
    law: Law,
    /// How much of an innovation the filter takes in, and how much of that is left an interval later.
    gain: f64,
    phi: f64,
    /// The least and the usual life's ln density.
    least: f64,
    usual: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    /// ln of the change that recovery must refute.
    boundary: f64,
    r: [f64; RECOVERY_PARTS.len()],
    since: Since,
    onset: Since,
    /// What came in since the onset, for `Release`; at most a week.
    seen: Vec<(i64, f32)>,
}

// === impl SeasonalStepBank ===

impl SeasonalStepBank {
    pub fn new(settings: SeasonalSettings) -> SeasonalStepBank {
        let settings = SeasonalSettings { interval_ms: settings.interval_ms.clamp(1_000, DAY_MS), ..settings };
        SeasonalStepBank {
            settings,
            first_ms: i64::MIN,
            last_ms: i64::MIN,
            values: Vec::new(),
            surprises: Vec::new(),
            model: None,
            r: [[0.0; AGES]; STEPS.len()],
            best: [0.0; STEPS.len()],
            since: [Since::default(); STEPS.len()],
            drift: 0.0,
            unsure: 1.0,
            excuses: [Excuse::default(); EXCUSES],
            night: i64::MIN,
            overdue: None,
            held_since_ms: None,
            frozen: None,
        }
    }

    /// Judges first, learns after. `value`: the sum over the interval that starts at `at_ms`; an interval without anything is 0 and
    /// must be reported. `injection`: false pages this bank may spend on this interval; 0 gathers no evidence but learns.
    pub fn judge(&mut self, value: f64, at_ms: i64, injection: f64) -> Reading {
        let step = self.settings.interval_ms;
        let at_ms = at_ms - at_ms.rem_euclid(step);
        if !value.is_finite() || (self.last_ms != i64::MIN && at_ms <= self.last_ms) {
            // An interval that was reported already: the first word stands.
            return self.reading(Call::Quiet, injection);
        }
        let value = value.max(0.0);
        self.advance(at_ms);
        let day = at_ms.div_euclid(DAY_MS);
        self.follow_clock();
        if at_ms - self.first_ms >= PROFILE_FROM_MS && self.model.as_ref().is_none_or(|m| m.built_ms.div_euclid(DAY_MS) < day) {
            self.rebuild(at_ms);
        }
        let Some(expected) = self.expects(at_ms) else {
            self.keep(at_ms, value, None);
            return self.reading(Call::Quiet, injection);
        };
        let level = expected.level;
        let e = (self.log(value) - level).clamp(SURPRISE_MIN, SURPRISE_MAX);
        if self.frozen.is_some() {
            return self.watch_recovery(value, e, expected, at_ms);
        }
        if !self.is_armed(at_ms) || injection <= 0.0 {
            self.follow(e, expected);
            self.keep(at_ms, value, Some(e));
            return self.reading(Call::Quiet, injection);
        }
        self.weigh(value, e, expected, at_ms, injection);
        let sum = self.sum();
        if sum >= 1.0 {
            return self.speak(value, e, at_ms, injection);
        }
        self.held_since_ms = None;
        if sum < LEARN_BELOW && self.excused() < 1.0 {
            self.keep(at_ms, value, Some(e));
        } else {
            self.keep(at_ms, level.exp(), None);
        }
        self.reading(Call::Quiet, injection)
    }

    /// Evidence against the usual life and every excuse together, in units of the threshold.
    fn sum(&self) -> f64 {
        (self.r.iter().flatten().sum::<f64>() + self.lasting()) / (1.0 + self.excused())
    }

    /// Evidence that a low day goes on when it has to be over.
    fn lasting(&self) -> f64 {
        self.overdue.map_or(0.0, |group| self.excuses[low_days(group)].iter().map(|x| x.odds).sum())
    }

    /// Odds of all excuses together.
    fn excused(&self) -> f64 {
        let overdue = self.overdue.map_or(0..0, low_days);
        self.excuses.iter().enumerate().filter(|(k, _)| !overdue.contains(k)).map(|(_, x)| x.odds).sum()
    }

    /// One interval of evidence for every step at every age, and for every excuse.
    fn weigh(&mut self, value: f64, e: f64, expected: Expected, at_ms: i64, injection: f64) {
        let Some(model) = self.model.as_ref() else {
            return;
        };
        let prior = self.unsure * model.variance;
        let gain = prior / (prior + expected.white);
        let law = Law { freedom: model.freedom, square: (prior + expected.white) * expected.scale_square };
        let settled = Law { square: law.square * model.long_run, ..law };
        let u = e - self.drift;
        // What a step of 1 shows in the innovation, by age: the filter takes it in bit by bit.
        let mut shows = [1.0; AGES];
        let mut taken_in = 0.0;
        for a in 1..AGES {
            taken_in = model.phi * (taken_in + gain * shows[a - 1]);
            shows[a] = 1.0 - taken_in;
        }
        let tolerance = self.settings.tolerance.max(0.0);
        let (mut moved, mut forgiven) = ([[0.0; AGES]; STEPS.len()], [[0.0; AGES]; STEPS.len()]);
        // Nothing comes any more, whatever life it was before.
        let nothing = (model.floor.ln() - expected.level).max(SURPRISE_MIN);
        let stopped = law.nats(e - nothing);
        let mut top = law.nats(u).max(stopped);
        for (j, d) in STEPS[..STOP].iter().enumerate() {
            for (a, part) in shows.iter().enumerate() {
                let law = if a + 1 == AGES { &settled } else { &law };
                moved[j][a] = law.nats(u - d * part);
                forgiven[j][a] = law.nats(u - tolerance.copysign(*d) * part);
                top = top.max(moved[j][a]).max(forgiven[j][a]);
            }
        }
        // No life is worse than the best one by more than an interval may say: something else may have happened.
        let least = top - NATS_MAX;
        let usual = law.nats(u).max(least);
        let excused = self.excused();
        for (j, d) in STEPS.iter().enumerate() {
            let share = injection * WEIGHTS[j];
            // A step within tolerance is no step: that arm is idle.
            let idle = if j == STOP { nothing > -STOP_LEAST } else { d.abs() <= tolerance };
            let ratio = |a: usize| match (idle, j) {
                (true, _) => f64::NEG_INFINITY,
                (_, STOP) => stopped.max(least) - usual,
                _ => moved[j][a].max(least) - forgiven[j][a].max(least),
            };
            let (mut younger, first) = if j == STOP { (share * (1.0 + excused), AGES - 1) } else { (share, 0) };
            for (a, r) in self.r[j].iter_mut().enumerate().skip(first) {
                let now = (younger + if a + 1 == AGES { *r } else { 0.0 }) * ratio(a).exp();
                younger = *r;
                *r = now.min(1e200);
            }
            let lasting = self.best[j] + ratio((self.since[j].intervals as usize).min(AGES - 1));
            if ratio(0) >= lasting || lasting <= 0.0 {
                self.best[j] = ratio(0).max(0.0);
                self.since[j] = Since { start_ms: at_ms, ..Since::default() };
            } else {
                self.best[j] = lasting;
            }
            self.since[j].add(value, e, expected.level);
        }
        self.excuse(e, expected, at_ms, injection, &Interval { law: settled, gain, phi: model.phi, least, usual: settled.nats(u).max(least) });
        self.follow(e, expected);
        let over = self.excuses[OVER];
        if over.odds > SURE && over.odds > SURE * (self.r.iter().flatten().sum::<f64>() + self.lasting() + self.excused() - over.odds) {
            // The low day is over beyond doubt: evidence starts anew.
            self.calm();
            self.drift = over.drift;
        }
        if self.excused() > ODDS_MAX {
            // A deep low day tells so much that all would come to the end of the numbers and be alike. Less of both evidence and odds is
            // less evidence.
            self.r.iter_mut().flatten().for_each(|r| *r *= ODDS_LESS);
            self.excuses.iter_mut().for_each(|x| x.odds *= ODDS_LESS);
        }
    }

    /// The odds of every excuse after one more interval.
    fn excuse(&mut self, e: f64, expected: Expected, at_ms: i64, injection: f64, interval: &Interval) {
        let Some(model) = self.model.as_ref() else {
            return;
        };
        let (step, cells, per_day) = (self.settings.interval_ms, self.per_week(), self.per_day());
        let count = |range: std::ops::Range<i64>| ((range.end - range.start) / step).max(1) as f64;
        let y = e + expected.level;
        let clocks_change = CLOCKS_CHANGE_MS.contains(&(at_ms - MONDAY_MS).rem_euclid(WEEK_MS));
        for (x, shift) in self.excuses.iter_mut().zip(CLOCKS_MS) {
            let share = if clocks_change { CLOCK_ODDS / CLOCKS_MS.len() as f64 / count(CLOCKS_CHANGE_MS) } else { 0.0 };
            let cell = ((at_ms - shift - MONDAY_MS).rem_euclid(WEEK_MS) / step) as usize % cells;
            x.goes_on(y - f64::from(model.profile[cell]) - model.slow, share, self.drift, interval);
        }

        // The load's own day, its number, and whether this is the night that leads into it.
        let place = (self.cell(at_ms) + cells - model.rest_from) % cells;
        let own_ms = (place % per_day) as i64 * step;
        let early = own_ms - DAY_MS >= LOW_DAY_BEGINS_MS.start;
        let night = early || own_ms < LOW_DAY_BEGINS_MS.end;
        let number = (at_ms - own_ms).div_euclid(DAY_MS) + i64::from(early);
        let workday = (place / per_day + usize::from(early)) % (cells / per_day).max(1) >= 2;
        let may_begin = night && workday && model.contrast.abs() > REST_LEAST;
        let rest = f64::from(model.rest.get(place % per_day).copied().unwrap_or(0.0)) + model.slow;
        let this_group = number.rem_euclid(2) as u8;
        if number != self.night {
            // What began two nights ago is evidence no longer, or the night before began without it.
            (self.night, self.overdue) = (number, None);
            self.excuses[low_days(this_group)].fill(Excuse::default());
        }
        // After a day and a night it is over at the latest. What then goes on was no low day: it counts as a step that began with it.
        let ends = self.overdue.is_none() && !early && own_ms >= LOW_DAY_ENDS_MS;
        if ends {
            self.overdue = Some(1 - this_group);
        }
        let begun = LOW_DAY_ODDS / count(LOW_DAY_BEGINS_MS);
        let (mut ended, mut ended_drift) = (0.0, 0.0);
        for (k, x) in self.excuses[CLOCKS_MS.len()..OVER].iter_mut().enumerate() {
            let group = (k / DAYS) as u8;
            let level = match LOW_DAYS.get(k % DAYS) {
                Some(low) => expected.level + low,
                None => rest + REST_DAYS[k % DAYS - LOW_DAYS.len()],
            };
            // Where days of rest are busier, a low day is none.
            let known = k % DAYS >= LOW_DAYS.len() || model.contrast < 0.0;
            let share = if may_begin && group == this_group && known { begun / DAYS as f64 } else { 0.0 };
            // Any interval may be its last.
            let part = match self.overdue {
                Some(overdue) if overdue == group => f64::from(u8::from(ends)),
                _ => 1.0 / per_day as f64,
            };
            if part > 0.0 && x.odds > 0.0 {
                ended += part * x.odds;
                ended_drift += part * x.odds * x.drift;
                x.odds *= if ends && part == 1.0 { (injection / begun).min(1.0) } else { 1.0 - part };
            }
            x.goes_on(y - level, share, self.drift, interval);
        }
        let over = &mut self.excuses[OVER];
        if ended > 0.0 {
            over.drift = (over.drift * over.odds + ended_drift) / (over.odds + ended);
            over.odds += ended;
        }
        over.goes_on(e, 0.0, self.drift, interval);
    }

    /// Lets the slow part follow a surprise.
    fn follow(&mut self, e: f64, expected: Expected) {
        let Some(model) = self.model.as_ref() else {
            return;
        };
        (self.drift, self.unsure) = model.follow(self.drift, self.unsure, e, expected.white);
    }

    /// History that is not judged.
    pub fn learn_only(&mut self, value: f64, at_ms: i64) {
        self.judge(value, at_ms, 0.0);
    }

    /// An imported reference, oldest first.
    pub fn import(&mut self, at_ms: i64, value: f64) {
        self.judge(value, at_ms, 0.0);
    }

    pub fn release(&mut self, how: Release) {
        let Some(frozen) = self.frozen.take() else {
            return;
        };
        self.calm();
        match how {
            Release::Fixed | Release::Expected => {}
            Release::FalseAlarm => {
                for (at, value) in frozen.seen {
                    if let Some(slot) = self.slot(at) {
                        self.values[slot] = value;
                    }
                }
            }
            Release::NewNormal => {
                // The seasons stay, moved by the change; the slow level need not crawl there.
                let moved = frozen.onset.surprise / frozen.onset.intervals.max(1.0);
                let factor = moved.exp() as f32;
                self.values.iter_mut().for_each(|v| *v *= factor);
                if let Some(model) = self.model.as_mut() {
                    model.profile.iter_mut().for_each(|p| *p += moved as f32);
                    model.floor *= moved.exp();
                }
            }
        }
    }

    /// The boundary between history and live: what was found in history is listed, never paged, and evidence starts anew.
    pub fn start_live(&mut self) {
        self.frozen = None;
        self.calm();
    }

    pub fn state(&self) -> State {
        if self.frozen.is_some() {
            State::Frozen
        } else if self.is_armed(self.last_ms) {
            State::Armed
        } else {
            State::Warming
        }
    }

    /// `needs_events` counts intervals.
    pub fn sees(&self, _injection: f64) -> Sees {
        let armed = self.is_armed(self.last_ms);
        let have = if self.first_ms == i64::MIN { 0 } else { self.last_ms - self.first_ms };
        Sees { armed, needs_events: if armed { 0.0 } else { ((ARMED_FROM_MS - have).max(0) / self.settings.interval_ms) as f64 } }
    }

    /// What the newest interval should have brought, with two deviations or the tolerance, whichever is wider.
    pub fn baseline(&self) -> Option<Band> {
        self.band_at(self.last_ms)
    }

    /// What an interval at this time should bring, once that is known well enough to bet on.
    pub fn level_at(&self, at_ms: i64) -> Option<f64> {
        if !self.is_armed(at_ms) {
            return None;
        }
        self.expects(at_ms).map(|x| x.level.exp())
    }

    /// Sums over hours of an imported reference, oldest first and without holes: intervals lie on the line through their
    /// neighbours, so that the day has no stairs.
    pub fn import_hours(&mut self, first_ms: i64, hours: &[f64]) {
        let parts = (3_600_000 / self.settings.interval_ms).max(1);
        for (i, sum) in hours.iter().enumerate() {
            let slope = match (i.checked_sub(1).and_then(|b| hours.get(b)), hours.get(i + 1)) {
                (Some(before), Some(after)) => (after - before) / 2.0,
                (None, Some(after)) => after - sum,
                (Some(before), None) => sum - before,
                (None, None) => 0.0,
            };
            for part in 0..parts {
                let place = (part as f64 + 0.5) / parts as f64 - 0.5;
                self.import(first_ms + i as i64 * 3_600_000 + part * self.settings.interval_ms, ((sum + slope * place) / parts as f64).max(0.0));
            }
        }
    }

    /// What an interval should bring, for charts.
    pub fn band_at(&self, at_ms: i64) -> Option<Band> {
        let (x, model) = (self.expects(at_ms)?, self.model.as_ref()?);
        let level = x.level;
        let half = (2.0 * ((model.variance + x.white) * x.scale_square).sqrt()).max(self.settings.tolerance);
        let events = self.values.iter().filter(|v| v.is_finite()).count() as f64;
        Some(Band { value: level.exp(), low: (level - half).exp(), high: (level + half).exp(), events })
    }

    /// A successor with the same seasons; weeks are not worth less for being a predecessor's.
    pub fn succeed(&self, _weight_max: f64) -> SeasonalStepBank {
        let mut next = self.clone();
        next.frozen = None;
        next.calm();
        next
    }

    pub fn reset(&mut self) {
        *self = SeasonalStepBank::new(self.settings);
    }

    // --- the recipe, step by step ---

    fn calm(&mut self) {
        self.r = [[0.0; AGES]; STEPS.len()];
        self.best = [0.0; STEPS.len()];
        self.since = [Since::default(); STEPS.len()];
        (self.drift, self.unsure) = (0.0, 1.0);
        self.excuses = [Excuse::default(); EXCUSES];
        self.overdue = None;
        self.held_since_ms = None;
    }

    fn per_week(&self) -> usize {
        (WEEK_MS / self.settings.interval_ms).max(1) as usize
    }

    fn per_day(&self) -> usize {
        (DAY_MS / self.settings.interval_ms).max(1) as usize
    }

    /// Cell of the week, Monday 00:00 UTC first.
    fn cell(&self, at_ms: i64) -> usize {
        ((at_ms - MONDAY_MS).rem_euclid(WEEK_MS) / self.settings.interval_ms) as usize % self.per_week()
    }

    /// Place in the ring of values, if the interval is still in it.
    fn slot(&self, at_ms: i64) -> Option<usize> {
        let length = self.values.len() as i64;
        let old = (self.last_ms - at_ms) / self.settings.interval_ms;
        (length > 0 && at_ms <= self.last_ms && old < length).then(|| at_ms.div_euclid(self.settings.interval_ms).rem_euclid(length) as usize)
    }

    /// The rings are a day long in the beginning and grow with what is known, so that a young bank is small.
    fn make_room(&mut self, known: usize) {
        let (step, last) = (self.settings.interval_ms, self.last_ms.div_euclid(self.settings.interval_ms));
        for (weeks, ring) in [(WEEKS_KEPT, &mut self.values), (NOISE_WEEKS, &mut self.surprises)] {
            let most = weeks * (WEEK_MS / step).max(1) as usize;
            if known <= ring.len() || ring.len() >= most {
                continue;
            }
            let mut wider = vec![f32::NAN; (2 * ring.len()).max(known).min(most)];
            let (old, new) = (ring.len() as i64, wider.len() as i64);
            for number in last - old + 1..=last {
                wider[number.rem_euclid(new) as usize] = ring[number.rem_euclid(old) as usize];
            }
            *ring = wider;
        }
    }

    /// Makes room for an interval; those skipped are unknown.
    fn advance(&mut self, at_ms: i64) {
        let step = self.settings.interval_ms;
        if !self.values.is_empty() && (at_ms - self.last_ms) / step >= (WEEKS_KEPT * self.per_week()) as i64 {
            // Nothing that is known is younger than what is kept.
            self.reset();
        }
        if !self.values.is_empty() {
            let known = usize::try_from((at_ms - self.first_ms) / step).unwrap_or(usize::MAX).saturating_add(1);
            self.make_room(known);
        }
        if self.values.is_empty() {
            self.values = vec![f32::NAN; self.per_day()];
            self.surprises = vec![f32::NAN; self.per_day()];
            self.first_ms = at_ms;
            self.last_ms = at_ms;
            return;
        }
        let skipped = ((at_ms - self.last_ms) / step - 1).max(0);
        if skipped > 0 {
            (self.drift, self.unsure) = (0.0, 1.0);
        }
        for i in 1..=skipped.min(self.values.len() as i64) {
            let number = (at_ms - i * step).div_euclid(step);
            let (a, b) = (number.rem_euclid(self.values.len() as i64) as usize, number.rem_euclid(self.surprises.len() as i64) as usize);
            self.values[a] = f32::NAN;
            self.surprises[b] = f32::NAN;
        }
        self.last_ms = at_ms;
    }

    /// Writes the newest interval down and lets the slow level follow.
    fn keep(&mut self, at_ms: i64, value: f64, surprise: Option<f64>) {
        let number = at_ms.div_euclid(self.settings.interval_ms);
        let (a, b) = (number.rem_euclid(self.values.len() as i64) as usize, number.rem_euclid(self.surprises.len() as i64) as usize);
        self.values[a] = value as f32;
        let unsure = self.model.as_ref().map_or(1.0, |m| 1.0 + f64::from(m.lever[self.cell(at_ms)]));
        self.surprises[b] = surprise.map_or(f32::NAN, |e| (e / unsure.sqrt()) as f32);
        let weight = self.settings.interval_ms as f64 / SLOW_MS;
        if let (Some(model), Some(e)) = (self.model.as_mut(), surprise) {
            model.slow += weight * e.clamp(-SLOW_CLIP, SLOW_CLIP);
        }
    }

    fn log(&self, value: f64) -> f64 {
        let floor = self.model.as_ref().map_or(1e-9, |m| m.floor);
        value.max(floor).ln()
    }

    fn is_armed(&self, at_ms: i64) -> bool {
        self.first_ms != i64::MIN && at_ms - self.first_ms >= ARMED_FROM_MS && self.model.as_ref().is_some_and(|m| m.known >= SURPRISES_MIN)
    }

    fn expects(&self, at_ms: i64) -> Option<Expected> {
        let model = self.model.as_ref()?;
        let level = f64::from(*model.profile.get(self.cell(at_ms))?) + model.slow;
        let hour = (at_ms.rem_euclid(DAY_MS) / HOUR_MS) as usize;
        let young = if at_ms - self.first_ms < GROWN_MS { YOUNG_FACTOR } else { 1.0 };
        let scale = model.scale * f64::from(*model.hour_factor.get(hour)?) * young;
        let unsure = 1.0 + f64::from(*model.lever.get(self.cell(at_ms))?);
        Some(Expected { level, white: model.white(level), scale_square: scale * scale * unsure })
    }

    /// Summer time: once the load goes by another clock beyond doubt, what is kept of the past and what was learned from it is moved
    /// there.
    fn follow_clock(&mut self) {
        let against = 1.0 + self.r.iter().flatten().sum::<f64>();
        let sure = |x: &usize| self.excuses[*x].odds > CLOCK_SURE.max(SURE * against);
        let Some(x) = (0..CLOCKS_MS.len()).find(sure) else {
            return;
        };
        let moved = CLOCKS_MS[x] / self.settings.interval_ms;
        let drift = self.excuses[x].drift;
        self.calm();
        self.drift = drift;
        if moved == 0 || self.frozen.is_some() {
            return;
        }
        let turn = |values: &mut [f32]| {
            let by = moved.unsigned_abs() as usize % values.len().max(1);
            if moved > 0 { values.rotate_right(by) } else { values.rotate_left(by) }
        };
        turn(&mut self.values);
        if let Some(model) = self.model.as_mut() {
            turn(&mut model.profile);
            turn(&mut model.lever);
            let cells = model.profile.len() as i64;
            model.rest_from = (model.rest_from as i64 + moved).rem_euclid(cells.max(1)) as usize;
        }
    }

    /// Values still in the ring, oldest first, with their times.
    fn history(&self) -> impl Iterator<Item = (i64, f32)> {
        let (step, length, last) = (self.settings.interval_ms, self.values.len() as i64, self.last_ms);
        (1..length).rev().filter_map(move |i| {
            let at = last - i * step;
            let value = self.values[at.div_euclid(step).rem_euclid(length) as usize];
            (at >= self.first_ms && value.is_finite()).then_some((at, value))
        })
    }

    /// Learns seasons and noise anew from what is kept. The newest interval is not yet written and stays out.
    fn rebuild(&mut self, at_ms: i64) {
        let mut all: Vec<f64> = self.history().map(|(_, v)| f64::from(v)).collect();
        let usual = median(&mut all);
        if usual <= 0.0 {
            // More than half of the time nothing: no season to speak of, and no ratio either.
            self.model = None;
            return;
        }
        let floor = FLOOR * usual;
        let (cells, per_day) = (self.per_week(), self.per_day());
        let mut by_cell: Vec<Vec<f64>> = vec![Vec::new(); cells];
        let mut turns: Vec<f64> = Vec::new();
        for (at, value) in self.history() {
            let cell = self.cell(at);
            let y = f64::from(value).max(floor).ln();
            if let Some(last) = by_cell[cell].last() {
                turns.push((y - last).abs());
            }
            by_cell[cell].push(y);
        }
        let in_cell: Vec<f64> = by_cell.iter().map(|v| if v.is_empty() { f64::NAN } else { median(&mut v.clone()) }).collect();
        let hour = (HOUR_MS / self.settings.interval_ms).max(1) as usize;
        let (rest_from, contrast) = rest_days(&in_cell, per_day, hour);
        // Place in the load's own day, workdays first.
        let time_of = |cell: usize| {
            let own = (cell + cells - rest_from) % cells;
            own % per_day + if own < 2 * per_day { per_day } else { 0 }
        };
        let mut by_time: Vec<Vec<f64>> = vec![Vec::new(); 2 * per_day];
        for (cell, values) in by_cell.iter().enumerate() {
            by_time[time_of(cell)].extend(values);
        }
        let pooled: Vec<f64> = by_time.iter().map(|v| v.len() as f64).collect();
        let medians: Vec<f64> = by_time.iter_mut().map(|v| median(v)).collect();
        let over_all = median(&mut all).max(floor).ln();
        let usual_at: Vec<f64> = (0..2 * per_day)
            .map(|time| match (by_time[time].is_empty(), by_time[(time + per_day) % (2 * per_day)].is_empty()) {
                (false, _) => medians[time],
                // A first weekend looks like a workday until it was seen.
                (true, false) => medians[(time + per_day) % (2 * per_day)],
                (true, true) => over_all,
            })
            .collect();
        // Variance within cells from turns between weeks, excess between cells beyond what a median of c values varies itself.
        let within = (1.4826 * median(&mut turns)).powi(2) / 2.0;
        let mut apart: Vec<f64> = Vec::with_capacity(cells);
        let mut filled = 0.0;
        for (cell, values) in by_cell.iter().enumerate() {
            if !values.is_empty() {
                apart.push((in_cell[cell] - usual_at[time_of(cell)]).abs());
                filled += values.len() as f64;
            }
        }
        let usual_count = (filled / apart.len().max(1) as f64).max(1.0);
        let between = ((1.4826 * median(&mut apart)).powi(2) - 1.3 * within / usual_count).max(0.0);
        let near = hour;
        let (profile, lever): (Vec<f32>, Vec<f32>) = by_cell
            .iter()
            .enumerate()
            .map(|(cell, values)| {
                let c = values.len() as f64;
                let base = usual_at[time_of(cell)];
                // A single week tells no season of its own weekdays.
                if turns.is_empty() || c < 1.0 {
                    return (base as f32, (MEDIAN_COST / pooled[time_of(cell)].max(1.0)) as f32);
                }
                // The neighbourhood's own excess where that is larger: an evening that is a weekend's elsewhere.
                let mut between = between;
                if near > 0 {
                    let (mut n, mut square) = (0.0, 0.0);
                    for k in 0..=2 * near {
                        let other = (cell + cells + k - near) % cells;
                        let d = in_cell[other] - usual_at[time_of(other)];
                        if d.is_finite() {
                            n += 1.0;
                            square += d * d;
                        }
                    }
                    between = between.max(square / f64::max(n, 1.0) - NEAR_COST * within / c);
                }
                let weight = if between > 0.0 { c / (c + within / between) } else { 0.0 };
                // Own values are part of what is usual too.
                let all = pooled[time_of(cell)].max(1.0);
                let parts = weight * weight / c + (1.0 - weight * weight) / all;
                ((weight * in_cell[cell] + (1.0 - weight) * base) as f32, (MEDIAN_COST * parts) as f32)
            })
            .unzip();
        let weight = self.settings.interval_ms as f64 / SLOW_MS;
        let mut slow = 0.0;
        for (at, value) in self.history() {
            let e = f64::from(value).max(floor).ln() - f64::from(profile[self.cell(at)]) - slow;
            slow += weight * e.clamp(-SLOW_CLIP, SLOW_CLIP);
        }
        let rest = usual_at[per_day..].iter().map(|y| *y as f32).collect();
        let mut model = Model {
            built_ms: at_ms,
            floor,
            profile,
            lever,
            rest_from,
            rest,
            contrast,
            slow,
            phi: 0.0,
            variance: DEVIATION_MIN * DEVIATION_MIN,
            grain: 0.0,
            scale: 1.0,
            freedom: TAILS[0].0,
            hour_factor: vec![1.0; 24],
            long_run: 1.0,
            known: 0,
        };
        self.learn_noise(&mut model);
        self.model = Some(model);
    }

    /// Correlation and size of the surprises, robust.
    fn learn_noise(&self, model: &mut Model) {
        let (step, length) = (self.settings.interval_ms, self.surprises.len() as i64);
        // Hour of day, surprise, and one over the level.
        let series: Vec<(usize, f64, f64)> = (1..length)
            .rev()
            .map(|i| {
                let at = self.last_ms - i * step;
                let e = f64::from(self.surprises[at.div_euclid(step).rem_euclid(length) as usize]);
                let level = f64::from(model.profile[self.cell(at)]) + model.slow;
                ((at.rem_euclid(DAY_MS) / HOUR_MS) as usize, e, (-level.max(model.floor.ln())).exp())
            })
            .collect();
        let mut sizes: Vec<f64> = series.iter().filter(|s| s.1.is_finite()).map(|s| s.1.abs()).collect();
        model.known = sizes.len();
        let wide = (4.0 * 1.4826 * median(&mut sizes)).max(3.0 * DEVIATION_MIN);
        let clipped = |e: f64| e.clamp(-wide, wide);
        // Autocovariances: the slow part alone from lag 1 on.
        const LAGS: usize = 7;
        let mut gamma = [0.0; LAGS];
        for (lag, g) in gamma.iter_mut().enumerate() {
            let (mut n, mut product) = (0.0, 0.0);
            for (a, b) in series.iter().zip(&series[lag.min(series.len())..]) {
                if a.1.is_finite() && b.1.is_finite() {
                    n += 1.0;
                    product += clipped(a.1) * clipped(b.1);
                }
            }
            *g = product / f64::max(n, 1.0);
        }
        let least = DEVIATION_MIN * DEVIATION_MIN;
        let (early, late): (f64, f64) = (gamma[1..LAGS - 1].iter().sum(), gamma[2..].iter().sum());
        model.phi = if early > 0.0 { (late / early).clamp(0.0, PHI_MAX) } else { 0.0 };
        let weights: f64 = (1..LAGS - 1).map(|k| model.phi.powi(k as i32)).sum();
        model.variance = if weights > 0.05 { (early / weights).clamp(0.0, gamma[0]) } else { 0.0 };
        let (mut n, mut inverse) = (0.0, 0.0);
        for s in series.iter().filter(|s| s.1.is_finite()) {
            n += 1.0;
            inverse += s.2;
        }
        model.grain = if inverse > 0.0 { (gamma[0] - model.variance).max(0.0) * n / inverse } else { 0.0 };
        model.variance = model.variance.max(least);

        // The filter over what is known tells how well it fits.
        let mut sizes: Vec<f64> = Vec::with_capacity(series.len());
        let mut by_hour: Vec<Vec<f64>> = vec![Vec::new(); 24];
        let mut signed: Vec<f64> = Vec::with_capacity(series.len());
        let (mut drift, mut unsure) = (0.0, 1.0);
        for (hour, e, inverse) in &series {
            if !e.is_finite() {
                (drift, unsure) = (0.0, 1.0);
                signed.push(f64::NAN);
                continue;
            }
            let white = model.grain * inverse;
            let z = (e - drift) / (unsure * model.variance + white).sqrt();
            sizes.push(z.abs());
            by_hour[*hour].push(z.abs());
            signed.push(z);
            (drift, unsure) = model.follow(drift, unsure, *e, white);
        }
        let clipped: f64 = sizes.iter().map(|z| z.min(6.0).powi(2)).sum::<f64>() / sizes.len().max(1) as f64;
        let middle = median(&mut sizes).max(1e-6);
        let fits = TAILS.map(|(free, mid, peak): (f64, f64, f64)| {
            let scale = middle / mid;
            sizes.iter().map(|z| (peak / scale).ln() - 0.5 * (free + 1.0) * (z * z / (scale * scale * free)).ln_1p()).sum::<f64>()
        });
        let best = fits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let tail = fits.iter().position(|f| *f >= best - TAIL_NATS).unwrap_or(0);
        let (free, typical, _) = TAILS[tail];
        model.freedom = free;
        model.scale = (middle / typical).max(0.6 * clipped.sqrt()).max(0.1);
        for (factor, sizes) in model.hour_factor.iter_mut().zip(&mut by_hour) {
            let n = sizes.len() as f64;
            let own = (median(sizes) / typical / model.scale).powi(2);
            *factor = ((n * own + HOUR_SHRINK) / (n + HOUR_SHRINK)).sqrt().clamp(0.5, 3.0) as f32;
        }
        // Blocks of innovations against single ones.
        let wide = 3.0 * model.scale;
        let variance = |sums: &[f64]| sums.iter().map(|s| s * s).sum::<f64>() / sums.len().max(1) as f64;
        let single: Vec<f64> = signed.iter().filter(|z| z.is_finite()).map(|z| z.clamp(-wide, wide)).collect();
        let alone = variance(&single).max(1e-12);
        let mut before = 1.0;
        for block in BLOCKS {
            let sums: Vec<f64> = single.chunks_exact(block).map(|c| c.iter().sum::<f64>()).collect();
            let own = variance(&sums) / (block as f64 * alone);
            let n = sums.len() as f64;
            before = (n * own + BLOCK_SHRINK * before) / (n + BLOCK_SHRINK);
            model.long_run = model.long_run.max(before);
        }
    }

    fn speak(&mut self, value: f64, e: f64, at_ms: i64, injection: f64) -> Reading {
        let sum = self.sum();
        let of = |j: usize| self.r[j].iter().sum::<f64>();
        let arm = (0..STEPS.len()).fold(0, |best, j| if of(j) > of(best) { j } else { best });
        let since = self.since[arm];
        let per_interval = self.model.as_ref().map_or(1.0, Model::per_interval);
        let change = since.change(per_interval);
        let (log_evidence, threshold) = nats(sum, injection);
        let moved = since.mean();
        if moved * STEPS[arm].signum() <= (1.0 + self.settings.tolerance).ln() {
            let held = *self.held_since_ms.get_or_insert(at_ms);
            self.keep(at_ms, value, None);
            if at_ms - held >= HELD_RESET_MS {
                self.calm();
            }
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Held { change, why: "the change is within tolerance" } };
        }
        let step = self.settings.interval_ms;
        let onset = Onset { at_ms: since.start_ms, from_ms: since.start_ms - step, to_ms: (since.start_ms + (at_ms - since.start_ms) / 2) + step };
        // What came in since the onset and was learned is taken out again: those cells get their own level.
        let mut seen = Vec::new();
        let mut at = since.start_ms.max(at_ms - WEEK_MS);
        while at < at_ms {
            if let (Some(slot), Some(x)) = (self.slot(at), self.expects(at)) {
                seen.push((at, self.values[slot]));
                self.values[slot] = x.level.exp() as f32;
                let b = at.div_euclid(step).rem_euclid(self.surprises.len() as i64) as usize;
                self.surprises[b] = f32::NAN;
            }
            at += step;
        }
        seen.push((at_ms, value as f32));
        let level = self.expects(at_ms).map_or(e, |x| x.level);
        self.keep(at_ms, level.exp(), None);
        let boundary = (0.5 * moved).clamp(-RECOVERY_FACTOR_MAX.ln(), RECOVERY_FACTOR_MAX.ln());
        let least = 2.0 * self.settings.tolerance.max(DEVIATION_MIN);
        let boundary = boundary.abs().max(least).copysign(moved);
        self.calm();
        self.frozen = Some(Frozen { boundary, r: [0.0; RECOVERY_PARTS.len()], since: Since::default(), onset: since, seen });
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }
    }

    /// The same loop with sides exchanged: "still moved by the boundary" against levels on the good side of it.
    fn watch_recovery(&mut self, value: f64, e: f64, expected: Expected, at_ms: i64) -> Reading {
        let level = expected.level;
        let per_interval = self.model.as_ref().map_or(1.0, Model::per_interval);
        let injection = RECOVERY_PER_DAY * self.settings.interval_ms as f64 / DAY_MS as f64;
        // While the incident lasts its cells are fed their own level.
        self.keep(at_ms, level.exp(), None);
        let Some(frozen) = self.frozen.as_mut() else {
            return self.reading(Call::Quiet, injection);
        };
        if frozen.seen.len() < (WEEK_MS / self.settings.interval_ms) as usize {
            frozen.seen.push((at_ms, value as f32));
        }
        frozen.onset.add(value, e, level);
        // Surprises resemble their neighbours: each counts for so much less.
        let weight = 1.0 / (per_interval * per_interval);
        let c = frozen.boundary;
        let mut sum = 0.0;
        for (r, part) in frozen.r.iter_mut().zip(RECOVERY_PARTS) {
            let m = part * c;
            let l = (weight * (e * (m - c) - 0.5 * (m * m - c * c))).min(NATS_MAX);
            *r = ((*r + injection / RECOVERY_PARTS.len() as f64) * l.exp()).min(1e200);
            sum += *r;
        }
        if (e - 0.7 * c) * c > 0.0 {
            // Still there: the recovery has not begun.
            frozen.since = Since { start_ms: at_ms, ..Since::default() };
        } else {
            frozen.since.add(value, e, level);
        }
        let (log_evidence, threshold) = nats(sum, injection);
        let inside = frozen.since.intervals > 0.0 && (c - frozen.since.mean()) * c >= 0.0;
        if sum >= 1.0 && inside {
            let change = frozen.since.change(per_interval);
            self.frozen = None;
            self.calm();
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Recovered { change } };
        }
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }
    }

    fn reading(&self, call: Call, injection: f64) -> Reading {
        let (log_evidence, threshold) = nats(self.sum(), injection);
        Reading { state: self.state(), log_evidence, threshold, call }
    }
}

// === impl Excuse ===

impl Excuse {
    /// One more interval. `e`: the surprise if this were so; `share`: the odds that it begins now; `drift`: where the slow part is
    /// expected if it did not begin before.
    fn goes_on(&mut self, e: f64, share: f64, drift: f64, interval: &Interval) {
        if self.odds <= 0.0 && share <= 0.0 {
            return;
        }
        if self.odds <= share {
            self.drift = drift;
        }
        let u = e - self.drift;
        self.odds = ((self.odds + share) * (interval.law.nats(u).max(interval.least) - interval.usual).exp()).min(1e200);
        self.drift = interval.phi * (self.drift + interval.gain * u);
    }
}

// === impl Law ===

impl Law {
    /// ln density of an innovation, but for what is the same for all.
    fn nats(&self, u: f64) -> f64 {
        -0.5 * (self.freedom + 1.0) * (u * u / (self.freedom * self.square)).ln_1p()
    }
}

// === impl Model ===

impl Model {
    /// Variance of the noise of counting at a level.
    fn white(&self, level: f64) -> f64 {
        self.grain * (-level.max(self.floor.ln())).exp()
    }

    /// The slow part after a surprise.
    fn follow(&self, drift: f64, unsure: f64, e: f64, white: f64) -> (f64, f64) {
        let prior = unsure * self.variance;
        let gain = prior / (prior + white);
        let left = unsure * (1.0 - gain);
        (self.phi * (drift + gain * (e - drift)), (self.phi * self.phi * (left - 1.0) + 1.0).clamp(1e-6, 1.0))
    }

    /// Deviation that a mean over many intervals has, times the root of their number.
    fn per_interval(&self) -> f64 {
        let white = self.profile.iter().map(|p| self.white(f64::from(*p) + self.slow)).sum::<f64>() / self.profile.len().max(1) as f64;
        let long = self.variance * (1.0 + self.phi) / (1.0 - self.phi) + white;
        let unsure = 1.0 + self.lever.iter().map(|l| f64::from(*l)).sum::<f64>() / self.lever.len().max(1) as f64;
        self.scale * (long * self.long_run * unsure).sqrt()
    }
}

// === impl Since ===

impl Since {
    fn add(&mut self, value: f64, surprise: f64, level: f64) {
        self.intervals += 1.0;
        self.surprise += surprise;
        self.value += value;
        self.expected += level.exp();
    }

    fn mean(&self) -> f64 {
        self.surprise / self.intervals.max(1.0)
    }

    /// Per interval, in the unit of the values; the interval of 95 % from the mean surprise.
    fn change(&self, per_interval: f64) -> Change {
        let n = self.intervals.max(1.0);
        let before = self.expected / n;
        let after = self.value / n;
        let half = 1.96 * per_interval / n.sqrt();
        Change { before, after, low: after * (-half).exp(), high: after * half.exp() }
    }
}

/// Places of the low days that began on nights of this parity.
fn low_days(group: u8) -> std::ops::Range<usize> {
    let from = CLOCKS_MS.len() + usize::from(group) * DAYS;
    from..from + DAYS
}

/// The two days in a row that differ most from the other five, as the cell where they begin, and by how much (ln, on average).
fn rest_days(in_cell: &[f64], per_day: usize, hour: usize) -> (usize, f64) {
    let cells = in_cell.len();
    let (mut best, mut from, mut contrast) = (0.0, 5 * per_day % cells.max(1), 0.0);
    for start in (0..cells).step_by(hour) {
        let (mut gain, mut apart, mut times) = (0.0, 0.0, 0.0);
        for time in 0..per_day {
            let (mut rest, mut work) = ((0.0, 0.0), (0.0, 0.0));
            for day in 0..cells / per_day {
                let y = in_cell[(start + time + day * per_day) % cells];
                let side = if day < 2 { &mut rest } else { &mut work };
                if y.is_finite() {
                    side.0 += 1.0;
                    side.1 += y;
                }
            }
            if rest.0 > 0.0 && work.0 > 0.0 {
                let d = rest.1 / rest.0 - work.1 / work.0;
                gain += d * d * rest.0 * work.0 / (rest.0 + work.0);
                apart += d;
                times += 1.0;
            }
        }
        if gain > best {
            (best, from, contrast) = (gain, start, apart / times);
        }
    }
    (from, contrast)
}

/// The middle of a list (it is sorted); 0 of none.
fn median(values: &mut [f64]) -> f64 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    values.sort_unstable_by(f64::total_cmp);
    if n % 2 == 1 { values[n / 2] } else { 0.5 * (values[n / 2 - 1] + values[n / 2]) }
}

#[cfg(test)]
mod tests;
