//! Sums per interval with a daily and weekly season: traffic and cost.
//!
//! **Idea.** Learn what this hour of this week usually brings, look at the surprise that is left, and bet on a step in it.
//! **Formula.** y = ln(max(x, 2 % of the median)). Level = median per cell of the week, drawn towards the median of its time of day
//! on workdays or weekends with weight kappa (variance within a cell over excess variance between cells), plus a slow level (EWMA of
//! 14 days, surprises clipped at .3). The surprise e = y - level has lag-1 correlation phi and an innovation's deviation s, both from
//! surprises known beforehand only (prequential), s times a factor per hour of day. u = (e - phi e_before) / s. A step of size d
//! shows in u as d / s in its first interval and as d (1 - phi) / s in every later one, so with t the tolerance on the side of d
//! R_d <- R_d LR(u; d (1 - phi), t (1 - phi)) + w B LR(u; d, t): the accumulated arm and the point arm in one recursion. **Sees**
//! steps from about twice the tolerance, spikes of three intervals or very large ones, stops, ramps; does not see what grows slower
//! than the slow level, nor spikes shorter than the cap allows. **Knobs.** `tolerance` 5 %: smaller is faster and pages on life;
//! `interval_ms`: 10 minutes. **False alarms**: at most the injected sum when surprises are as modelled; an evidence cap of 4 nats per
//! interval holds heavier tails, measured below. Weeks are counted in UTC; a change to summer time is a shift by an hour.

use serde::{Deserialize, Serialize};

use super::{Band, HELD_RESET_MS, RECOVERY_PER_DAY, Sees, nats};
use crate::verdict::{Call, Change, Onset, Reading, Release, State};

const DAY_MS: i64 = 86_400_000;
const WEEK_MS: i64 = 7 * DAY_MS;
/// 1970-01-05 was a Monday.
const MONDAY_MS: i64 = 4 * DAY_MS;
const WEEKS_KEPT: usize = 8;
/// Weeks of surprises from which the noise is learned.
const NOISE_WEEKS: usize = 4;
const STEPS: [f64; 13] = [0.12, 0.2, 0.3, 0.5, 0.8, 1.2, -0.12, -0.2, -0.3, -0.5, -0.8, -1.2, -3.0];
const NATS_MAX: f64 = 4.0;
/// Below this part of the median all values are alike.
const FLOOR: f64 = 0.02;
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
const YOUNG_FACTOR: f64 = 1.5;
const SURPRISES_MIN: usize = 3 * 24;
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
    /// Start of the newest interval, whose value lies at `newest` of the ring.
    last_ms: i64,
    /// The last eight weeks; an interval never reported is NaN. The place in the ring is the interval's number modulo its length.
    values: Vec<f32>,
    /// Surprises of the last four weeks, NaN where none was known beforehand or none was learned.
    surprises: Vec<f32>,
    model: Option<Model>,
    r: [f64; STEPS.len()],
    /// Page's sums, the start of each, and (intervals, sum of surprises, sum of values, sum of expected values) since then.
    cusum: [f64; STEPS.len()],
    since: [Since; STEPS.len()],
    /// The surprise before, for the innovation.
    previous: Option<f64>,
    held_since_ms: Option<i64>,
    frozen: Option<Frozen>,
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
    slow: f64,
    phi: f64,
    deviation: f64,
    hour_factor: Vec<f32>,
    /// Surprises behind the noise; too few and no bet is made.
    known: usize,
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
            r: [0.0; STEPS.len()],
            cusum: [0.0; STEPS.len()],
            since: [Since::default(); STEPS.len()],
            previous: None,
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
        if at_ms - self.first_ms >= PROFILE_FROM_MS && self.model.as_ref().is_none_or(|m| m.built_ms.div_euclid(DAY_MS) < day) {
            self.rebuild(at_ms);
        }
        let Some((level, deviation, phi, marginal)) = self.expects(at_ms) else {
            self.keep(at_ms, value, None);
            return self.reading(Call::Quiet, injection);
        };
        let y = self.log(value);
        let e = y - level;
        if self.frozen.is_some() {
            return self.watch_recovery(value, e, level, marginal, phi, at_ms);
        }
        let (armed, previous) = (self.is_armed(at_ms), self.previous);
        if !armed || injection <= 0.0 {
            self.keep(at_ms, value, Some(e));
            return self.reading(Call::Quiet, injection);
        }

        // Without a surprise before, the innovation is the whole surprise and as wide as that.
        let (u, s, later) = match previous {
            Some(before) => (e - phi * before, deviation, 1.0 - phi),
            None => (e, marginal, 1.0),
        };
        let share = injection / STEPS.len() as f64;
        let mut sum = 0.0;
        for (j, d) in STEPS.iter().enumerate() {
            let t = self.settings.tolerance.max(0.0).copysign(*d);
            let ratio = |d: f64, t: f64| ((u * (d - t) - 0.5 * (d * d - t * t)) / (s * s)).min(NATS_MAX);
            // A step within tolerance is no step: that arm is idle.
            let (more, begun) = if d.abs() > t.abs() { (ratio(d * later, t * later), ratio(*d, t)) } else { (f64::NEG_INFINITY, f64::NEG_INFINITY) };
            self.r[j] = (self.r[j] * more.exp() + share * begun.exp()).min(1e200);
            sum += self.r[j];
            if self.cusum[j] <= 0.0 {
                self.since[j] = Since { start_ms: at_ms, ..Since::default() };
                self.cusum[j] = begun.max(0.0);
            } else {
                self.cusum[j] = (self.cusum[j] + more).max(0.0);
            }
            self.since[j].add(value, e, level);
        }
        if sum >= 1.0 {
            return self.speak(value, e, at_ms, injection, (deviation, phi));
        }
        self.held_since_ms = None;
        if sum < LEARN_BELOW {
            self.keep(at_ms, value, Some(e));
        } else {
            self.keep(at_ms, level.exp(), None);
            self.previous = Some(e);
        }
        self.reading(Call::Quiet, injection)
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
        self.expects(at_ms).map(|(level, ..)| level.exp())
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
        let (level, _, _, marginal) = self.expects(at_ms)?;
        let half = (2.0 * marginal).max(self.settings.tolerance);
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
        self.r = [0.0; STEPS.len()];
        self.cusum = [0.0; STEPS.len()];
        self.previous = None;
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

    /// Makes room for an interval; those skipped are unknown.
    fn advance(&mut self, at_ms: i64) {
        let step = self.settings.interval_ms;
        if !self.values.is_empty() && (at_ms - self.last_ms) / step >= self.values.len() as i64 {
            // Nothing that is known is younger than what is kept.
            self.reset();
        }
        if self.values.is_empty() {
            self.values = vec![f32::NAN; WEEKS_KEPT * self.per_week()];
            self.surprises = vec![f32::NAN; NOISE_WEEKS * self.per_week()];
            self.first_ms = at_ms;
            self.last_ms = at_ms;
            return;
        }
        let skipped = ((at_ms - self.last_ms) / step - 1).max(0);
        if skipped > 0 {
            self.previous = None;
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
        self.surprises[b] = surprise.map_or(f32::NAN, |e| e as f32);
        self.previous = surprise;
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

    /// ln level, deviation of the innovation, its lag-1 correlation, and deviation of the surprise itself.
    fn expects(&self, at_ms: i64) -> Option<(f64, f64, f64, f64)> {
        let model = self.model.as_ref()?;
        let level = f64::from(*model.profile.get(self.cell(at_ms))?) + model.slow;
        let hour = (at_ms.rem_euclid(DAY_MS) / 3_600_000) as usize;
        let young = if at_ms - self.first_ms < GROWN_MS { YOUNG_FACTOR } else { 1.0 };
        let deviation = model.deviation * f64::from(*model.hour_factor.get(hour)?) * young;
        Some((level, deviation, model.phi, deviation / (1.0 - model.phi * model.phi).sqrt()))
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
        let mut by_time: Vec<Vec<f64>> = vec![Vec::new(); 2 * per_day];
        let time_of = |cell: usize| cell % per_day + if cell / per_day >= 5 { per_day } else { 0 };
        let mut turns: Vec<f64> = Vec::new();
        for (at, value) in self.history() {
            let cell = self.cell(at);
            let y = f64::from(value).max(floor).ln();
            if let Some(last) = by_cell[cell].last() {
                turns.push((y - last).abs());
            }
            by_cell[cell].push(y);
            by_time[time_of(cell)].push(y);
        }
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
        let mut in_cell: Vec<f64> = Vec::with_capacity(cells);
        let mut filled = 0.0;
        for (cell, values) in by_cell.iter_mut().enumerate() {
            let m = median(values);
            in_cell.push(m);
            if !values.is_empty() {
                apart.push((m - usual_at[time_of(cell)]).abs());
                filled += values.len() as f64;
            }
        }
        let usual_count = (filled / apart.len().max(1) as f64).max(1.0);
        let between = ((1.4826 * median(&mut apart)).powi(2) - 1.3 * within / usual_count).max(0.0);
        let kappa = if between > 0.0 { (within / between).min(1e6) } else { 1e6 };
        let profile: Vec<f32> = by_cell
            .iter()
            .enumerate()
            .map(|(cell, values)| {
                let c = values.len() as f64;
                // A single week tells no season of its own weekdays.
                let weight = if turns.is_empty() { 0.0 } else { c / (c + kappa) };
                (weight * in_cell[cell] + (1.0 - weight) * usual_at[time_of(cell)]) as f32
            })
            .collect();
        let weight = self.settings.interval_ms as f64 / SLOW_MS;
        let mut slow = 0.0;
        for (at, value) in self.history() {
            let e = f64::from(value).max(floor).ln() - f64::from(profile[self.cell(at)]) - slow;
            slow += weight * e.clamp(-SLOW_CLIP, SLOW_CLIP);
        }
        let mut model = Model { built_ms: at_ms, floor, profile, slow, phi: 0.0, deviation: 0.0, hour_factor: vec![1.0; 24], known: 0 };
        self.learn_noise(&mut model);
        self.model = Some(model);
    }

    /// Correlation and deviation of the surprises, robust.
    fn learn_noise(&self, model: &mut Model) {
        let (step, length) = (self.settings.interval_ms, self.surprises.len() as i64);
        let at = |i: i64| (self.last_ms - i * step).div_euclid(step).rem_euclid(length) as usize;
        let series: Vec<(usize, f64)> = (1..length)
            .rev()
            .map(|i| (((self.last_ms - i * step).rem_euclid(DAY_MS) / 3_600_000) as usize, f64::from(self.surprises[at(i)])))
            .collect();
        let mut sizes: Vec<f64> = series.iter().filter(|s| s.1.is_finite()).map(|s| s.1.abs()).collect();
        model.known = sizes.len();
        let wide = (3.0 * 1.4826 * median(&mut sizes)).max(3.0 * DEVIATION_MIN);
        let (mut product, mut square) = (0.0, 0.0);
        for pair in series.windows(2) {
            let (a, b) = (pair[0].1.clamp(-wide, wide), pair[1].1.clamp(-wide, wide));
            if a.is_finite() && b.is_finite() {
                product += a * b;
                square += a * a;
            }
        }
        model.phi = if square > 0.0 { (product / square).clamp(0.0, 0.95) } else { 0.0 };
        let mut innovations: Vec<f64> = Vec::with_capacity(series.len());
        let mut by_hour: Vec<Vec<f64>> = vec![Vec::new(); 24];
        for pair in series.windows(2) {
            let u = (pair[1].1 - model.phi * pair[0].1).abs();
            if u.is_finite() {
                innovations.push(u);
                by_hour[pair[1].0].push(u);
            }
        }
        let clipped: f64 = innovations.iter().map(|u| u.min(2.0 * wide).powi(2)).sum::<f64>() / innovations.len().max(1) as f64;
        // A median alone would call a series of few values silent.
        model.deviation = (1.4826 * median(&mut innovations)).max(0.7 * clipped.sqrt()).max(DEVIATION_MIN);
        for (factor, sizes) in model.hour_factor.iter_mut().zip(&mut by_hour) {
            let n = sizes.len() as f64;
            let own = (1.4826 * median(sizes)).powi(2) / model.deviation.powi(2);
            *factor = ((n * own + HOUR_SHRINK) / (n + HOUR_SHRINK)).sqrt().clamp(0.5, 3.0) as f32;
        }
    }

    fn speak(&mut self, value: f64, e: f64, at_ms: i64, injection: f64, (deviation, phi): (f64, f64)) -> Reading {
        let sum: f64 = self.r.iter().sum();
        let arm = (0..STEPS.len()).fold(0, |best, j| if self.r[j] > self.r[best] { j } else { best });
        let since = self.since[arm];
        let change = since.change(deviation, phi);
        let (log_evidence, threshold) = nats(sum, injection);
        let moved = since.mean();
        if moved.abs() <= (1.0 + self.settings.tolerance).ln() {
            let held = *self.held_since_ms.get_or_insert(at_ms);
            self.keep(at_ms, value, None);
            self.previous = Some(e);
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
            if let (Some(slot), Some((level, ..))) = (self.slot(at), self.expects(at)) {
                seen.push((at, self.values[slot]));
                self.values[slot] = level.exp() as f32;
                let b = at.div_euclid(step).rem_euclid(self.surprises.len() as i64) as usize;
                self.surprises[b] = f32::NAN;
            }
            at += step;
        }
        seen.push((at_ms, value as f32));
        let level = self.expects(at_ms).map_or(e, |x| x.0);
        self.keep(at_ms, level.exp(), None);
        let boundary = (0.5 * moved).clamp(-RECOVERY_FACTOR_MAX.ln(), RECOVERY_FACTOR_MAX.ln());
        let least = 2.0 * self.settings.tolerance.max(DEVIATION_MIN);
        let boundary = boundary.abs().max(least).copysign(moved);
        self.calm();
        self.frozen = Some(Frozen { boundary, r: [0.0; RECOVERY_PARTS.len()], since: Since::default(), onset: since, seen });
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }
    }

    /// The same loop with sides exchanged: "still moved by the boundary" against levels on the good side of it.
    fn watch_recovery(&mut self, value: f64, e: f64, level: f64, marginal: f64, phi: f64, at_ms: i64) -> Reading {
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
        let weight = (1.0 - phi) / (1.0 + phi) / (marginal * marginal);
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
            let change = frozen.since.change(marginal, 0.0);
            self.frozen = None;
            self.calm();
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Recovered { change } };
        }
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }
    }

    fn reading(&self, call: Call, injection: f64) -> Reading {
        let (log_evidence, threshold) = nats(self.r.iter().sum(), injection);
        Reading { state: self.state(), log_evidence, threshold, call }
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
    fn change(&self, deviation: f64, phi: f64) -> Change {
        let n = self.intervals.max(1.0);
        let before = self.expected / n;
        let after = self.value / n;
        let half = 1.96 * deviation / (1.0 - phi) / n.sqrt();
        Change { before, after, low: after * (-half).exp(), high: after * half.exp() }
    }
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
mod tests {
    use super::super::noise::Noise;
    use super::*;

    const STEP: i64 = 600_000;
    /// One page in 1,000 hours.
    const B: f64 = 1.0 / 6_000.0;

    /// A made-up office: a day, a second harmonic, quiet weekends, AR(1) noise of .6 per interval and 8 %, or heavy tails.
    struct Office {
        noise: Noise,
        ar: f64,
        heavy: bool,
        mean: f64,
    }

    impl Office {
        fn new(seed: u64, heavy: bool) -> Office {
            Office { noise: Noise::new(seed), ar: 0.0, heavy, mean: 1_500.0 }
        }

        fn value(&mut self, at_ms: i64) -> f64 {
            let day = at_ms as f64 / DAY_MS as f64 * std::f64::consts::TAU;
            let weekend = if (at_ms - MONDAY_MS).rem_euclid(WEEK_MS) >= 5 * DAY_MS { 0.6 } else { 1.0 };
            let z = if self.heavy { self.noise.normal() / (self.noise.gamma(2.0)).sqrt() / 2f64.sqrt() } else { self.noise.normal() };
            self.ar = 0.6 * self.ar + 0.064 * z;
            self.mean * weekend * (1.0 - 0.5 * day.cos() + 0.15 * (2.0 * day).sin()) * self.ar.exp()
        }
    }

    fn learned(office: &mut Office, weeks: i64) -> (SeasonalStepBank, i64) {
        let mut bank = SeasonalStepBank::new(SeasonalSettings::default());
        for i in 0..weeks * 1_008 {
            bank.import(i * STEP, office.value(i * STEP));
        }
        (bank, weeks * 1_008 * STEP)
    }

    fn run(bank: &mut SeasonalStepBank, office: &mut Office, t: &mut i64, factor: f64, b: f64, intervals: usize) -> (usize, Call) {
        for i in 1..=intervals {
            let r = bank.judge(factor * office.value(*t), *t, b);
            *t += STEP;
            if !matches!(r.call, Call::Quiet) {
                return (i, r.call);
            }
        }
        (intervals, Call::Quiet)
    }

    #[test]
    fn quiet_weeks_stay_within_the_budget() {
        // Injected: 12 x 8 weeks x 1,008 / 6,000 = 16 pages.
        for (heavy, weeks, allowed) in [(false, 8, 8), (false, 2, 8), (true, 4, 16)] {
            let mut pages = 0;
            for seed in 0..12 {
                let mut office = Office::new(100 + seed, heavy);
                let (mut bank, mut t) = learned(&mut office, weeks);
                for _ in 0..8 * 1_008 {
                    if let (_, Call::Alarm { .. }) = run(&mut bank, &mut office, &mut t, 1.0, B, 1) {
                        pages += 1;
                        bank.release(Release::FalseAlarm);
                    }
                }
                assert_eq!(bank.state(), State::Armed);
            }
            println!("heavy {heavy}, {weeks} weeks learned: {pages} pages of 16 injected");
            assert!(pages <= allowed, "heavy {heavy}, {weeks} weeks: {pages}");
        }
    }

    #[test]
    fn steps_spikes_and_stops_are_found_in_time() {
        for (factor, intervals_max) in [(1.3, 36), (3.0, 6), (0.0, 6), (0.6, 24), (2.0, 9)] {
            let mut delays = Vec::new();
            for seed in 0..12 {
                let mut office = Office::new(200 + seed, false);
                let (mut bank, mut t) = learned(&mut office, 8);
                let lead = 300 + 80 * seed as usize;
                for _ in 0..lead {
                    bank.judge(office.value(t), t, 1e-9);
                    t += STEP;
                }
                let (n, call) = run(&mut bank, &mut office, &mut t, factor, B, 288);
                assert!(matches!(call, Call::Alarm { .. }), "{factor} {call:?}");
                delays.push(n);
            }
            delays.sort_unstable();
            println!("x{factor}: median {} intervals, worst {}", delays[6], delays[11]);
            assert!(delays[6] <= intervals_max, "x{factor}: {delays:?}");
        }
    }

    #[test]
    fn it_tells_the_size_recovers_and_learns_nothing_from_an_incident() {
        for factor in [1.5, 0.0, 4.0] {
            let mut office = Office::new(7, false);
            let (mut bank, mut t) = learned(&mut office, 6);
            for _ in 0..2 {
                let began = t;
                let (_, call) = run(&mut bank, &mut office, &mut t, factor, 1e-8, 100);
                let Call::Alarm { change, onset } = call else { panic!("{factor} {call:?}") };
                assert!((change.after / change.before - factor).abs() < 0.25 * factor.max(0.1), "{change:?}");
                assert!(onset.from_ms <= began && began <= onset.to_ms, "{began} {onset:?}");
                assert_eq!(run(&mut bank, &mut office, &mut t, factor, 1e-8, 1_500).1, Call::Quiet, "no recovery while it lasts");
                let (n, call) = run(&mut bank, &mut office, &mut t, 1.0, 1e-8, 60);
                assert!(matches!(call, Call::Recovered { .. }), "{factor}: {call:?}");
                assert!(n <= 30, "{factor}: {n}");
                assert_eq!(run(&mut bank, &mut office, &mut t, 1.0, 1e-8, 500).1, Call::Quiet);
            }
        }
    }

    #[test]
    fn a_lasting_change_closed_as_new_normal_is_normal() {
        let mut office = Office::new(8, false);
        let (mut bank, mut t) = learned(&mut office, 6);
        assert!(matches!(run(&mut bank, &mut office, &mut t, 2.0, 1e-8, 50).1, Call::Alarm { .. }));
        run(&mut bank, &mut office, &mut t, 2.0, 1e-8, 100);
        bank.release(Release::NewNormal);
        assert_eq!(run(&mut bank, &mut office, &mut t, 2.0, 1e-8, 2_000).1, Call::Quiet);
        assert!(matches!(run(&mut bank, &mut office, &mut t, 1.0, 1e-8, 50).1, Call::Alarm { .. }));
    }

    #[test]
    fn constants_zeros_gaps_and_repeats_do_no_harm() {
        for law in [0, 1, 2] {
            let mut bank = SeasonalStepBank::new(SeasonalSettings::default());
            let value = |i: i64| match law {
                0 => 0.0,
                1 => 7.0,
                _ => f64::from(u8::from(i % 10 == 0)),
            };
            for i in 0..5 * 1_008 {
                if (2_000..2_050).contains(&i) {
                    continue;
                }
                let r = bank.judge(value(i), i * STEP, B);
                bank.judge(99.0, i * STEP, B);
                assert!(matches!(r.call, Call::Quiet) && r.log_evidence.is_finite(), "{law} {i} {r:?}");
            }
            if law == 1 {
                assert_eq!(bank.state(), State::Armed);
                let found = (0..6).any(|i| matches!(bank.judge(0.0, (5 * 1_008 + i) * STEP, B).call, Call::Alarm { .. }));
                assert!(found, "a constant that stops");
            }
        }
    }

    #[test]
    fn a_copy_goes_on_the_same() {
        let mut office = Office::new(9, false);
        let (mut bank, mut t) = learned(&mut office, 4);
        let mut twin = bank.clone();
        for _ in 0..300 {
            let v = office.value(t);
            assert_eq!(twin.judge(v, t, B), bank.judge(v, t, B));
            t += STEP;
        }
    }
}
