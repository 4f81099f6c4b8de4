//! Sums per interval with a daily and weekly season: traffic and cost.
//!
//! **Idea.** Learn what this hour of this week usually brings, look at the surprise that is left, and bet on a step in it.
//! **Formula.** y = ln(max(x, 2 % of the median)). Level = median per cell of the week, drawn towards the median of its time of day
//! on workdays or weekends with weight kappa (variance within a cell over excess variance between cells, the neighbourhood's own where
//! that is larger: an evening that is already weekend elsewhere), plus a slow level (EWMA of 14 days, surprises clipped at .3). The
//! surprise e = y - level is an autoregression of six lags, since counted events lay white noise over the slow one; its innovation u
//! has deviation s, times a factor per hour of day; both from surprises known beforehand only. A step d shows in u as d c_a, a
//! intervals after it began, with c_0 = 1 and c_a = 1 - phi_1 - .. - phi_a, so every step is followed by age: R_{d,a} <- R_{d,a-1}
//! LR(u; d c_a, t c_a), t the tolerance on the side of d; the last age gathers all older ones and is tempered by what innovations
//! resemble each other for longer. **Excuses.** A load that goes by another clock from a weekend on (summer time) is refuted
//! separately, and the least evidence counts; once the other clock is beyond doubt, history is moved to it. A drop that begins in the
//! load's night and stays above .45 of a weekend's level is held for a day and a night, since it may be a holiday; a load that knows
//! no weekends has none. **Sees** steps from about twice the tolerance, spikes of three intervals or very large ones, stops, ramps;
//! does not see what grows slower than the slow level, nor spikes shorter than the cap allows, and a drop by night only the day
//! after. **Knobs.** `tolerance` 5 %: smaller is faster and pages on life; `interval_ms`: 10 minutes. **False alarms**: measured in
//! `benches/results/cost_traffic.md`, below the injected sum but for holidays; a cap of 4 nats per interval holds heavier tails.

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
/// Order of the autoregression of the surprises. Counted events lay white noise over the slow one, and one lag alone would call the
/// slow noise a step.
const LAGS: usize = 6;
/// A step shows in later innovations at least by this part.
const LATER_MIN: f64 = 0.04;
/// Blocks of innovations, in intervals, by which resemblance over longer times is told, and the pairs by which it is shrunk.
const BLOCKS: [usize; 3] = [6, 24, 72];
const BLOCK_SHRINK: f64 = 12.0;
/// What else a quiet load may do, beside what it usually does: go by a clock an hour ahead or behind from some moment on.
const CLOCKS_MS: [i64; 2] = [3_600_000, -3_600_000];
const EXCUSES: usize = 1 + CLOCKS_MS.len();
/// A low day is one that begins in the load's own night and is no lower than this part of a weekend's level: a holiday.
const LOW_DAY_LEAST: f64 = 0.45;
/// A weekend lower by less than this is none, and such a load has no holidays.
const WEEKEND_LEAST: f64 = 0.05;
/// How far the night reaches to either side of the hour of least load; a low day lasts no longer than a day and a night.
const NIGHT_MS: i64 = 5 * 3_600_000;
/// Nats for another clock at which history is moved to it.
const CLOCK_NATS: f64 = 25.0;
/// Cells within this time tell each other how far they may be from what is usual at their time of day.
const NEIGHBOURHOOD_MS: i64 = 3_600_000;
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
    /// Evidence under every excuse, the usual level first.
    excuses: Vec<Excuse>,
    /// Page's sums, the start of each, and (intervals, sum of surprises, sum of values, sum of expected values) since then.
    cusum: [f64; STEPS.len()],
    since: [Since; STEPS.len()],
    /// Surprises known in a row before this one, at most `LAGS`.
    lags: usize,
    /// Since when a low day is suspected instead of a step.
    low_day_ms: Option<i64>,
    /// Nats in favour of each other clock (Page's sum).
    clocks: [f64; CLOCKS_MS.len()],
    held_since_ms: Option<i64>,
    frozen: Option<Frozen>,
}

/// A quiet life that has to be refuted: evidence by step and age, and the surprises before, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Excuse {
    /// By step, then by the intervals since it began; the last place holds all older ones.
    r: Vec<f64>,
    past: [f64; LAGS],
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
    /// ln level of the lower day of a weekend by time of day, never above a workday's.
    low_day: Vec<f32>,
    /// Time of day at which the load is least.
    night_ms: i64,
    /// Autoregression of every order up to `LAGS`, and the deviation of each innovation over that of the highest.
    coefficients: Vec<[f64; LAGS]>,
    wider: [f64; LAGS + 1],
    /// Variance of sums of innovations over that of independent ones.
    long_run: f64,
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
            excuses: vec![Excuse::new(); EXCUSES],
            cusum: [0.0; STEPS.len()],
            since: [Since::default(); STEPS.len()],
            lags: 0,
            low_day_ms: None,
            clocks: [0.0; CLOCKS_MS.len()],
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
        let Some((level, deviation, later, _)) = self.expects(at_ms) else {
            self.keep(at_ms, value, None);
            return self.reading(Call::Quiet, injection);
        };
        let y = self.log(value);
        let e = y - level;
        if self.frozen.is_some() {
            return self.watch_recovery(value, e, level, deviation / later, at_ms);
        }
        let armed = self.is_armed(at_ms);
        if !armed || injection <= 0.0 {
            self.keep(at_ms, value, Some(e));
            for excuse in &mut self.excuses {
                excuse.past.rotate_right(1);
                excuse.past[0] = e;
            }
            return self.reading(Call::Quiet, injection);
        }
        let (sum, excuse, own) = self.weigh(y, e, deviation, at_ms, injection);
        for ((cusum, since), (begun, more)) in self.cusum.iter_mut().zip(&mut self.since).zip(own) {
            if *cusum <= 0.0 {
                *since = Since { start_ms: at_ms, ..Since::default() };
                *cusum = begun.max(0.0);
            } else {
                *cusum = (*cusum + more).max(0.0);
            }
            since.add(value, e, level);
        }
        if let Some(since) = self.low_day_ms {
            let usual = self.excuses[0].past.iter().take(3).filter(|e| **e > (1.0 - WEEKEND_LEAST).ln() * 2.0).count();
            if usual == 3 || at_ms - since > DAY_MS + NIGHT_MS {
                // It is over, or it is no low day: evidence starts anew.
                self.calm();
            }
        }
        if sum >= 1.0 {
            return self.speak(value, at_ms, injection, sum, deviation / later);
        }
        self.held_since_ms = None;
        if sum < LEARN_BELOW {
            let past = self.excuses[excuse].past[0];
            self.keep(at_ms, value, Some(past));
        } else {
            let lags = self.lags;
            self.keep(at_ms, level.exp(), None);
            self.lags = (lags + 1).min(LAGS);
        }
        self.reading(Call::Quiet, injection)
    }

    /// One interval of evidence under every excuse. Returns the least sum, whose it is, and for the usual level the nats of each step
    /// if it began now and if it goes on.
    fn weigh(&mut self, y: f64, e: f64, deviation: f64, at_ms: i64, injection: f64) -> (f64, usize, [(f64, f64); STEPS.len()]) {
        let mut own = [(0.0, 0.0); STEPS.len()];
        let Some(model) = self.model.as_ref() else {
            return (0.0, 0, own);
        };
        let order = self.lags;
        let phi = &model.coefficients[order];
        let s = deviation * model.wider[order];
        let share = injection / STEPS.len() as f64;
        let tolerance = self.settings.tolerance.max(0.0);
        // Somewhere on earth the clocks change from Saturday noon to Sunday afternoon, UTC.
        let of_week = (at_ms - MONDAY_MS).rem_euclid(WEEK_MS);
        let clocks_change = (11 * DAY_MS / 2..WEEK_MS - DAY_MS / 3).contains(&of_week);
        let usual = self.excuses[0].clone();
        let (mut least, mut whose) = (f64::INFINITY, 0);
        let mut surprise_of = [0.0; EXCUSES];
        for (x, told) in surprise_of.iter_mut().enumerate() {
            let level = match x {
                0 => Some(y - e),
                x => {
                    let cell = self.cell(at_ms - CLOCKS_MS[x - 1]);
                    model.profile.get(cell).map(|p| f64::from(*p) + model.slow)
                }
            };
            let Some(level) = level else {
                continue;
            };
            let surprise = y - level;
            *told = surprise;
            if x > 0 && clocks_change && usual.sum() <= self.excuses[x].sum() {
                self.excuses[x] = usual.clone();
            }
            let excuse = &mut self.excuses[x];
            let u = surprise - (0..order).map(|k| phi[k] * excuse.past[k]).sum::<f64>();
            let mut sum = 0.0;
            for (j, d) in STEPS.iter().enumerate() {
                let t = tolerance.copysign(*d);
                let row = &mut excuse.r[j * (LAGS + 1)..(j + 1) * (LAGS + 1)];
                if d.abs() <= t.abs() {
                    // A step within tolerance is no step: that arm is idle.
                    row.fill(0.0);
                    continue;
                }
                let nats = |part: f64, temper: f64| {
                    let (d, t) = (d * part, t * part);
                    ((u * (d - t) - 0.5 * (d * d - t * t)) / (s * s * temper)).min(NATS_MAX)
                };
                let mut part = 1.0;
                let mut younger = share;
                for (age, r) in row.iter_mut().enumerate() {
                    let settled = age == LAGS;
                    let l = nats(part, if settled { model.long_run.sqrt() } else { 1.0 });
                    let now = (younger + if settled { *r } else { 0.0 }) * l.exp();
                    younger = *r;
                    *r = now.min(1e200);
                    sum += *r;
                    if x == 0 && age == 0 {
                        own[j].0 = l;
                    }
                    if x == 0 && settled {
                        own[j].1 = l;
                    }
                    if age < order {
                        part = (part - phi[age]).max(LATER_MIN);
                    }
                }
            }
            excuse.past.rotate_right(1);
            excuse.past[0] = surprise;
            if sum < least {
                (least, whose) = (sum, x);
            }
        }
        for (x, nats) in self.clocks.iter_mut().enumerate() {
            let marginal = s * s;
            let innovation = |e: f64, past: &[f64; LAGS]| e - (0..order).map(|k| phi[k] * past[(k + 1).min(LAGS - 1)]).sum::<f64>();
            let (a, b) = (innovation(surprise_of[0], &self.excuses[0].past), innovation(surprise_of[x + 1], &self.excuses[x + 1].past));
            *nats = (*nats + ((a * a - b * b) / (2.0 * marginal)).clamp(-NATS_MAX, NATS_MAX)).max(0.0);
        }
        (least, whose, own)
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
        self.excuses.fill(Excuse::new());
        self.cusum = [0.0; STEPS.len()];
        self.lags = 0;
        self.low_day_ms = None;
        self.clocks = [0.0; CLOCKS_MS.len()];
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

    /// Summer time: once the load goes by another clock beyond doubt, what is kept of the past and what was learned from it is moved
    /// there.
    fn follow_clock(&mut self) {
        // A step on a flank looks like another clock for an hour or two; but the other clock was refuted on the flanks since the weekend.
        let holds = |x: &usize| self.clocks[*x] >= CLOCK_NATS && self.excuses[0].sum() >= 1.0 && self.excuses[1 + x].sum() < LEARN_BELOW;
        let Some(x) = (0..CLOCKS_MS.len()).find(holds) else {
            return;
        };
        let moved = CLOCKS_MS[x] / self.settings.interval_ms;
        self.clocks = [0.0; CLOCKS_MS.len()];
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
            turn(&mut model.low_day);
        }
        let excuse = self.excuses[1 + x].clone();
        self.excuses.fill(excuse);
        self.cusum = [0.0; STEPS.len()];
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
            self.lags = 0;
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
        self.lags = if surprise.is_some() { (self.lags + 1).min(LAGS) } else { 0 };
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

    /// ln level, deviation of the innovation, the part of a lasting step that shows in it (over the square root of what neighbours
    /// resemble each other for longer), and deviation of the surprise itself.
    fn expects(&self, at_ms: i64) -> Option<(f64, f64, f64, f64)> {
        let model = self.model.as_ref()?;
        let level = f64::from(*model.profile.get(self.cell(at_ms))?) + model.slow;
        let hour = (at_ms.rem_euclid(DAY_MS) / 3_600_000) as usize;
        let young = if at_ms - self.first_ms < GROWN_MS { YOUNG_FACTOR } else { 1.0 };
        let deviation = model.deviation * f64::from(*model.hour_factor.get(hour)?) * young;
        Some((level, deviation, model.later() / model.long_run.sqrt(), deviation * model.wider[0]))
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
        // Most hours of most days are alike, and a few are not: the evening that is already weekend elsewhere, a weekly batch. So the
        // excess is told by the neighbourhood too, and a cell amid such others keeps its own level.
        let reach = (NEIGHBOURHOOD_MS / self.settings.interval_ms).max(0) as usize;
        let kappa: Vec<f64> = (0..cells)
            .map(|cell| {
                let (mut sum, mut n) = (0.0, 0.0);
                for near in (0..=2 * reach).map(|k| (cell + cells + k - reach.min(cells)) % cells) {
                    let c = by_cell[near].len() as f64;
                    if c > 0.0 {
                        sum += (in_cell[near] - usual_at[time_of(near)]).powi(2) - 1.57 * within / c;
                        n += 1.0;
                    }
                }
                let between = between.max(sum / f64::max(n, 1.0));
                if between > 0.0 { (within / between).min(1e6) } else { 1e6 }
            })
            .collect();
        let profile: Vec<f32> = by_cell
            .iter()
            .enumerate()
            .map(|(cell, values)| {
                let c = values.len() as f64;
                // A single week tells no season of its own weekdays.
                let weight = if turns.is_empty() { 0.0 } else { c / (c + kappa[cell]) };
                (weight * in_cell[cell] + (1.0 - weight) * usual_at[time_of(cell)]) as f32
            })
            .collect();
        let weight = self.settings.interval_ms as f64 / SLOW_MS;
        let mut slow = 0.0;
        for (at, value) in self.history() {
            let e = f64::from(value).max(floor).ln() - f64::from(profile[self.cell(at)]) - slow;
            slow += weight * e.clamp(-SLOW_CLIP, SLOW_CLIP);
        }
        // The lower of both days: where the clock is far from UTC, part of one of them is a workday.
        let low_day: Vec<f32> =
            (0..per_day).map(|time| profile[5 * per_day + time].min(profile[6 * per_day + time]).min(usual_at[time] as f32)).collect();
        let mut model = Model {
            built_ms: at_ms,
            floor,
            slow,
            low_day,
            night_ms: night(&usual_at[..per_day], self.settings.interval_ms),
            coefficients: vec![[0.0; LAGS]; LAGS + 1],
            wider: [1.0; LAGS + 1],
            long_run: 1.0,
            deviation: 0.0,
            hour_factor: vec![1.0; 24],
            known: 0,
            profile,
        };
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
        // Autocovariances of clipped surprises, then Levinson's recursion for every order.
        let mut covariances = [0.0; LAGS + 1];
        for (lag, covariance) in covariances.iter_mut().enumerate() {
            let (mut sum, mut n) = (0.0, 0.0);
            for i in lag..series.len() {
                let (a, b) = (series[i - lag].1.clamp(-wide, wide), series[i].1.clamp(-wide, wide));
                if a.is_finite() && b.is_finite() {
                    sum += a * b;
                    n += 1.0;
                }
            }
            *covariance = sum / f64::max(n, 1.0);
        }
        let mut variance = [covariances[0].max(1e-12); LAGS + 1];
        for order in 1..=LAGS {
            let before = model.coefficients[order - 1];
            let left = covariances[order] - (0..order - 1).map(|k| before[k] * covariances[order - 1 - k]).sum::<f64>();
            let reflection = (left / variance[order - 1]).clamp(-0.9, 0.95);
            let now = &mut model.coefficients[order];
            for k in 0..order - 1 {
                now[k] = before[k] - reflection * before[order - 2 - k];
            }
            now[order - 1] = reflection;
            variance[order] = variance[order - 1] * (1.0 - reflection * reflection);
        }
        model.wider = variance.map(|v| (v / variance[LAGS]).sqrt());
        let phi = model.coefficients[LAGS];
        let mut innovations: Vec<f64> = Vec::with_capacity(series.len());
        let mut signed: Vec<f64> = Vec::with_capacity(series.len());
        let mut by_hour: Vec<Vec<f64>> = vec![Vec::new(); 24];
        for run in series.windows(LAGS + 1) {
            let u = run[LAGS].1 - (0..LAGS).map(|k| phi[k] * run[LAGS - 1 - k].1).sum::<f64>();
            signed.push(u);
            if u.is_finite() {
                innovations.push(u.abs());
                by_hour[run[LAGS].0].push(u.abs());
            }
        }
        let clipped: f64 = innovations.iter().map(|u| u.min(2.0 * wide).powi(2)).sum::<f64>() / innovations.len().max(1) as f64;
        // A median alone would call a series of few values silent.
        model.deviation = (1.4826 * median(&mut innovations)).max(0.7 * clipped.sqrt()).max(DEVIATION_MIN);
        let mut below = 1.0;
        for block in BLOCKS {
            let (mut sum, mut n) = (0.0, 0.0);
            for run in signed.chunks_exact(block) {
                if run.iter().all(|u| u.is_finite()) {
                    let total: f64 = run.iter().map(|u| u.clamp(-2.0 * wide, 2.0 * wide)).sum();
                    sum += total * total / (block as f64 * model.deviation * model.deviation);
                    n += 1.0;
                }
            }
            below = (sum + BLOCK_SHRINK * below) / (n + BLOCK_SHRINK);
            model.long_run = model.long_run.max(below);
        }
        for (factor, sizes) in model.hour_factor.iter_mut().zip(&mut by_hour) {
            let n = sizes.len() as f64;
            let own = (1.4826 * median(sizes)).powi(2) / model.deviation.powi(2);
            *factor = ((n * own + HOUR_SHRINK) / (n + HOUR_SHRINK)).sqrt().clamp(0.5, 3.0) as f32;
        }
    }

    fn speak(&mut self, value: f64, at_ms: i64, injection: f64, sum: f64, per_interval: f64) -> Reading {
        let arm = self.excuses[0].best();
        let since = self.since[arm];
        let change = since.change(per_interval);
        let (log_evidence, threshold) = nats(sum, injection);
        let moved = since.mean();
        if STEPS[arm] < 0.0 && self.is_low_day(since.start_ms, at_ms, value) {
            self.low_day_ms.get_or_insert(since.start_ms);
            let (lags, level) = (self.lags, self.expects(at_ms).map_or(value, |x| x.0.exp()));
            self.keep(at_ms, level, None);
            self.lags = (lags + 1).min(LAGS);
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Held { change, why: "a low day so far, like a holiday" } };
        }
        if moved.abs() <= (1.0 + self.settings.tolerance).ln() {
            let held = *self.held_since_ms.get_or_insert(at_ms);
            let lags = self.lags;
            self.keep(at_ms, value, None);
            self.lags = (lags + 1).min(LAGS);
            if at_ms - held >= HELD_RESET_MS {
                self.calm();
            }
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Held { change, why: "the change is within tolerance" } };
        }
        let step = self.settings.interval_ms;
        // Pointers restart late in noise that resembles itself, and a smaller step of the same side may have begun to win before: the
        // interval reaches back twice as long as the oldest pointer is old.
        let earliest = (0..STEPS.len()).filter(|j| STEPS[*j] * STEPS[arm] > 0.0 && self.cusum[*j] > 0.0).map(|j| self.since[j].start_ms);
        let earliest = earliest.fold(since.start_ms, i64::min).max(since.start_ms - DAY_MS);
        let onset = Onset {
            at_ms: since.start_ms,
            from_ms: earliest - step - 2 * (at_ms - earliest),
            to_ms: (since.start_ms + (at_ms - since.start_ms) / 2) + step,
        };
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
        let level = self.expects(at_ms).map_or(value, |x| x.0.exp());
        self.keep(at_ms, level, None);
        let boundary = (0.5 * moved).clamp(-RECOVERY_FACTOR_MAX.ln(), RECOVERY_FACTOR_MAX.ln());
        let least = 2.0 * self.settings.tolerance.max(DEVIATION_MIN);
        let boundary = boundary.abs().max(least).copysign(moved);
        self.calm();
        self.frozen = Some(Frozen { boundary, r: [0.0; RECOVERY_PARTS.len()], since: Since::default(), onset: since, seen });
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }
    }

    /// Did the step begin in the load's own night, less than a day and a night ago, and is the load not far below a weekend's? A stop is
    /// none: its last two hours are looked at alone.
    fn is_low_day(&self, start_ms: i64, at_ms: i64, value: f64) -> bool {
        let Some(model) = self.model.as_ref() else {
            return false;
        };
        let begins = self.low_day_ms.unwrap_or(start_ms);
        let off = (begins - model.night_ms).rem_euclid(DAY_MS);
        let night = off <= NIGHT_MS || off >= DAY_MS - NIGHT_MS;
        let cell = self.cell(at_ms);
        let (weekend, usual) = (f64::from(model.low_day[cell % self.per_day()]), f64::from(model.profile[cell]));
        let least = weekend.min(usual) + model.slow + LOW_DAY_LEAST.ln();
        night && at_ms - begins <= DAY_MS + NIGHT_MS && weekend < usual - WEEKEND_LEAST && self.log(value) >= least
    }

    /// The same loop with sides exchanged: "still moved by the boundary" against levels on the good side of it.
    fn watch_recovery(&mut self, value: f64, e: f64, level: f64, per_interval: f64, at_ms: i64) -> Reading {
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
        // Surprises resemble their neighbours: each counts for so much less, and for half of that, since levels are only known so well.
        let weight = 0.5 / (per_interval * per_interval);
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
        let sum = match &self.frozen {
            Some(frozen) => frozen.r.iter().sum(),
            None => self.excuses.iter().map(Excuse::sum).fold(f64::INFINITY, f64::min),
        };
        let (log_evidence, threshold) = nats(sum, injection);
        Reading { state: self.state(), log_evidence, threshold, call }
    }
}

// === impl Excuse ===

impl Excuse {
    fn new() -> Excuse {
        Excuse { r: vec![0.0; STEPS.len() * (LAGS + 1)], past: [0.0; LAGS] }
    }

    fn sum(&self) -> f64 {
        self.r.iter().sum()
    }

    /// The step with the most evidence.
    fn best(&self) -> usize {
        let of = |j: usize| self.r[j * (LAGS + 1)..(j + 1) * (LAGS + 1)].iter().sum::<f64>();
        (0..STEPS.len()).fold(0, |best, j| if of(j) > of(best) { j } else { best })
    }
}

// === impl Model ===

impl Model {
    /// Part of a lasting step that shows in every later innovation.
    fn later(&self) -> f64 {
        (1.0 - self.coefficients[LAGS].iter().sum::<f64>()).max(LATER_MIN)
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

/// Time of day, UTC, at which a smoothed workday is least.
fn night(workday: &[f64], interval_ms: i64) -> i64 {
    let reach = (2 * 3_600_000 / interval_ms).max(1) as usize;
    let n = workday.len();
    let smooth = |i: usize| (0..=2 * reach).map(|k| workday[(i + n + k - reach.min(n)) % n]).sum::<f64>();
    (0..n).min_by(|a, b| smooth(*a).total_cmp(&smooth(*b))).map_or(0, |i| i as i64 * interval_ms)
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
                // By day: a drop that begins in the night and stays above half a weekend is held for a day, since it may be a holiday.
                while !(9 * 3_600_000..18 * 3_600_000).contains(&t.rem_euclid(DAY_MS)) {
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
                let (n, call) = run(&mut bank, &mut office, &mut t, 1.0, 1e-8, 100);
                assert!(matches!(call, Call::Recovered { .. }), "{factor}: {call:?}");
                assert!(n <= 72, "{factor}: {n}");
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
