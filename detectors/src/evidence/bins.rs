//! Values of any shape: latency, tokens, cost, scores, features.
//!
//! **Idea.** The baseline's own quantiles cut the line into bins, so that any continuous law looks the same: normal scores. What
//! comes in is judged against the Dirichlet-multinomial predictive of the quiet counts, moved by the tolerance. **Alternatives**
//! tilt the bins' probabilities by their scores (a shift of the normal scores, both ways) or as a stretch of the upper tail would, and
//! Dirichlet(1/2) reaches everything. A tilt needs one sum of a pane, its scores, for all shifts together. Each hour of the day has a
//! level of its own as far as the hours are seen to differ: the quiet law is moved there before anything is judged. **Sees** shifts
//! beyond the tolerance (0.1 sigma is about 6 % of a latency's median) and tails that grow while the median stays; does not see
//! changes that keep all quantiles. **False alarms**: as for rates; every alternative lies beyond the tolerance, since one inside
//! it would make evidence from nothing.

use std::array::from_fn;

use serde::{Deserialize, Serialize};

use super::climb::{BARE, Climb};
use super::levels::{Course, HOURLY_PANES, Levels};
use super::mixture::Block;
use super::trail::Rows;
use super::{Band, Ladder, Mixture, NormalTable, Sees, decay, exp, ln, nats, nats_per_pane_max, normal_cdf, overshoot, stops_learning_at};
use crate::ahead::{Ahead, ask_for};
use crate::sketch::log_linear::{middle, upper_edge};
use crate::sketch::once_each;
use crate::verdict::{Call, Reading, Release, State};

mod bets;
mod recovery;
mod telling;

use bets::{ARMS, BLOCKS, Bets, DOWN, KNOWN, SHARES, TAIL};
use recovery::{Frozen, RECOVERY_ARMS};
use telling::SIZE_TOLD_MAX;

const CUTS: [f64; 23] =
    [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99995, 0.99998];
/// Quantile bins: one more than there are cuts.
const BINS_MAX: usize = CUTS.len() + 1;
/// The normal score from which on a bin is of the upper tenth.
const UPPER_TENTH: f64 = 1.2816;
/// A cut is kept when the baseline has at least this many values beyond it.
const BEYOND_CUT_MIN: f64 = 2.0;
const MERGE_EVENTS: f64 = 10.0;
const MERGE_MS: i64 = 600_000;
const HOUR_MS: i64 = 3_600_000;
const NOISE_LAG: usize = 12;
/// Panes whose resemblance must be known before the first bet: bins exist only from arming on, and so do their ladders.
const NOISE_PANES_MIN: u32 = 24;
/// The noise is asked for after so many panes.
const DISPERSION_PANES: u32 = 32;
/// Standard errors of a level of the ladders that are not believed: of twenty noisy levels the largest is taken, and every hundredth
/// too much is one more of the delay. And while nobody knows whether hours come again: what looks like noise may be their course.
const DOUBT: f64 = 3.0;
const DOUBT_YOUNG: f64 = 2.0;
/// Entries for which memory is taken at once while warming.
const GATHERED_MIN: usize = 64;
const STARVED_EVENTS_PER_HOUR: f64 = 5.0;
/// Bins of the grid remembered since the evidence began, to tell the size of the change.
const SINCE_BINS_MAX: usize = 512;
/// Tables of alternatives are renewed after so many panes, or when the baseline has grown by this part.
const REFRESH_PANES: u32 = 1_024;
const REFRESH_GROWTH: f64 = 1.0 / 48.0;
/// Bins of the grid kept of values beyond the last cut, from which farther cuts are made when there are enough of them.
const FAR_BINS_MAX: usize = 64;
/// Evidence in nats, since its pointer, below which nothing speaks of a fault.
const CALM_NATS: f32 = 4.0;
/// Steps of Newton's method towards the level of an hour.
const HOUR_STEPS: usize = 4;
/// A row of the trail: counts per bin, and the events of them that were learned.
const ROW: usize = BINS_MAX + 1;

/// What evidence is gathered with while nothing may be paged: only its climbs are looked at, and those do not depend on it.
const SHADOW_INJECTION: f64 = 1e-9;
/// Evidence in nats below which readings do not go.
const NO_EVIDENCE: f64 = -50.0;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BinsSettings {
    /// Shift that is forgiven, in standard deviations of the normal scores.
    pub tolerance_sigma: f64,
}

/// Which quantile a change is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    Median,
    P95,
}

/// What every pane touches stands first, in lines of a cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[repr(C)]
pub struct BinsBank {
    settings: BinsSettings,
    armed: Option<Box<Armed>>,
    /// End of the hour that is counted, and its events.
    hour_end_ms: i64,
    hour_events: f64,
    /// The last injection and its threshold in nats, and the evidence in nats: what most readings repeat.
    injection: f64,
    threshold: f64,
    log_evidence: f64,
    climb: Climb,
    starved: bool,
    told: Told,
    /// The evidence was gathered while nothing might be paged, and is forgotten when something may.
    shadow: bool,
    pending: Option<(Vec<(u16, u32)>, f64, i64, f64)>,
    /// While warming: counts on the grid, put in order now and then.
    gathered: Gathered,
    total: f64,
}

/// Counts on the grid in four bytes each: of a hundred thousand young series these are most of the memory. A bin that holds more
/// stands more than once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Gathered(Vec<(u16, u16)>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[repr(C, align(64))]
struct Armed {
    now: Now,
    /// The last grid bin of every quantile bin but the last; beyond those in use the grid's end, which nothing lies beyond.
    cuts: [u16; CUTS.len()],
    bins: usize,
    sum: f64,
    /// Quiet counts per quantile bin.
    counts: [f64; BINS_MAX],
    /// Scores of the bins as of arming: a scale that does not move.
    scale: [f32; BINS_MAX],
    scores: Scores,
    /// How much noisier panes are than independent values, as of some panes ago.
    dispersion: f64,
    refresh_at: f64,
    panes: u32,
    evidence: Mixture<[Block; BLOCKS]>,
    bets: Bets,
    held_since_ms: Option<i64>,
    trail: Rows,
    frozen: Option<Box<Frozen>>,
    /// Quiet values beyond the last cut, on the grid. A young baseline has no far quantiles, and tails are seen by those.
    far: Vec<(u16, u32)>,
    ladders: [Ladder; 2],
    lagged: Lag,
    hours: Box<Hours>,
    /// What the last incident brought that is over by itself: learned if it was normal life.
    past: Vec<(u16, u32)>,
}

/// The present hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Now {
    /// Hours since 1970; nothing before the first.
    hour: Option<i64>,
    /// How far the level of this hour may lie from that, in normal scores: forgiven beside the tolerance.
    width: f64,
    /// Hours come again: the course of the day is no noise. And the level that the shares stand for, with the deviation within hours.
    course: Option<Course>,
    middle: f64,
    deviation: f64,
    /// What was learned that the levels of hours were not told yet: sum of the unmoving scores, and values.
    untold: [f64; 2],
}

/// The hours of the day: what is normal now is the law of all hours, moved to the level of the present one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Hours {
    levels: Levels,
    /// Ratios of this hour's shares to those of all hours; 1 while hours are not told apart.
    ratios: [f32; BINS_MAX],
}

/// Normal scores of the bins, as of the last refresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Scores {
    /// Mean score of a bin.
    of_bin: [f32; BINS_MAX],
    /// Variance of the scores, the first bin of the upper tenth, and the share from there on.
    variance: f64,
    tail_from: usize,
    tail_share: f64,
    /// By how much that share grows with the mean score: the share times the mean score there.
    tail_score: f64,
    /// The median and the quantiles to which twice the tolerance would move it.
    median: f64,
    low: f64,
    high: f64,
}

/// Panes that wait to tell how noisy the series is, in a ring: sum of scores, events of the upper tenth, events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Lag {
    panes: [[f32; 3]; NOISE_LAG],
    oldest: u8,
    count: u8,
}

/// A pane in the bank's own bins.
struct Regrouped {
    counts: [f64; BINS_MAX],
    n: f64,
}

impl Regrouped {
    /// The sum of a number per bin over all that was seen.
    #[inline]
    fn dot(&self, of_bin: &[f32; BINS_MAX]) -> f64 {
        const SIDE_BY_SIDE: usize = 4;
        let mut sums = [0.0; SIDE_BY_SIDE];
        for row in 0..BINS_MAX / SIDE_BY_SIDE {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum += self.counts[row * SIDE_BY_SIDE + j] * f64::from(of_bin[row * SIDE_BY_SIDE + j]);
            }
        }
        (sums[0] + sums[2]) + (sums[1] + sums[3])
    }
}

// === impl BinsBank ===

impl Ahead for BinsBank {
    #[inline]
    fn ask_for_own(&self) {
        ask_for(self);
    }

    #[inline]
    fn ask_for_state(&self) {
        match &self.armed {
            Some(armed) => ask_for(&**armed),
            None => self.gathered.ask_for_end(),
        }
    }

    #[inline]
    fn ask_for_trail(&self) {
        if let Some(armed) = &self.armed {
            armed.trail.ask_for_end();
        }
    }
}

impl BinsBank {
    pub fn new(settings: BinsSettings) -> BinsBank {
        BinsBank {
            settings,
            gathered: Gathered::default(),
            total: 0.0,
            armed: None,
            pending: None,
            hour_end_ms: i64::MIN,
            hour_events: 0.0,
            starved: false,
            told: Told::Median,
            injection: 0.0,
            threshold: f64::INFINITY,
            log_evidence: NO_EVIDENCE,
            climb: Climb::default(),
            shadow: false,
        }
    }

    /// Which quantile the last change was told by.
    pub fn told(&self) -> Told {
        self.told
    }

    /// Judges first, learns after. `pane`: counts on the log-linear grid, sorted by bin.
    pub fn judge(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let n: f64 = pane.iter().map(|(_, c)| f64::from(*c)).sum();
        self.count_hour(n, at_ms);
        if n <= 0.0 && self.pending.is_none() {
            return self.reading(Call::Quiet, injection);
        }
        let (merged, start, length, spent);
        if let Some((mut held, mut held_n, held_start, held_b)) = self.pending.take() {
            add_counts(&mut held, pane, usize::MAX);
            held_n += n;
            let long = at_ms + pane_ms - held_start;
            let stretch_ms = i64::from(self.climb.stretch()) * pane_ms;
            if long < MERGE_MS.max(stretch_ms) && (held_n < MERGE_EVENTS || long < stretch_ms) {
                self.pending = Some((held, held_n, held_start, held_b + injection));
                return self.reading(Call::Quiet, injection);
            }
            (merged, start, length, spent) = (held, held_start, long, held_b + injection);
        } else if self.climb.stretch() > 1 || n < MERGE_EVENTS && pane_ms < MERGE_MS {
            self.pending = Some((pane.to_vec(), n, at_ms, injection));
            return self.reading(Call::Quiet, injection);
        } else {
            return self.judge_merged(pane, at_ms, pane_ms, injection);
        }
        self.judge_merged(&merged, start, length, spent)
    }

    fn judge_merged(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let settled = self.settings.tolerance_sigma;
        let Some(armed) = self.armed.as_mut() else {
            self.gathered.add(pane);
            self.total += pane.iter().map(|(_, c)| f64::from(*c)).sum::<f64>();
            if self.sees(injection).needs_events <= 0.0 {
                self.armed = Armed::from_grid(&self.gathered.grid(), self.total, settled).map(Box::new);
                if self.armed.is_some() {
                    self.gathered = Gathered::default();
                }
            }
            return self.reading(Call::Quiet, injection);
        };
        armed.turn_hour(at_ms, settled);
        let tolerance = settled + armed.now.width;
        let seen = armed.regroup(pane);
        if armed.frozen.is_some() {
            self.log_evidence = NO_EVIDENCE;
            let (reading, told) = armed.watch_recovery(pane, &seen.counts, at_ms, pane_ms);
            if let Some(told) = told {
                self.told = told;
            }
            return reading;
        }
        if !armed.knows_noise() {
            armed.learn(pane, &seen, at_ms, pane_ms, tolerance);
            return self.reading(Call::Quiet, injection);
        }
        let shadow = injection <= 0.0;
        if self.shadow && !shadow {
            armed.forget();
        }
        self.shadow = shadow;
        let share = if shadow { SHADOW_INJECTION } else { injection };
        let dispersion = armed.dispersion();
        let l = armed.likelihoods(&seen, dispersion, share, tolerance);
        let cap = nats_per_pane_max(dispersion);
        if !shadow && self.log_evidence - self.threshold >= overshoot::LN_AT_STAKE_MIN {
            let lift = armed.handed_out(seen.n / dispersion, share, tolerance);
            armed.evidence.lift(overshoot::tempered(lift, cap));
        }
        let sum = armed.evidence.step_lanes(&l, &SHARES, share, cap, at_ms);
        if self.climb.step(sum / share, 1.0 / share, settled, at_ms) {
            // The panes of this series are too short for it. Evidence on the old ones is forgotten, and their noise fades.
            armed.lengthen();
            self.log_evidence = NO_EVIDENCE;
            return self.reading(Call::Quiet, injection);
        }
        if shadow {
            armed.learn(pane, &seen, at_ms, pane_ms, tolerance);
            return self.reading(Call::Quiet, injection);
        }
        let learns = sum < stops_learning_at(injection);
        armed.remember(&seen, learns, at_ms, pane_ms);
        if injection != self.injection {
            (self.injection, self.threshold) = (injection, -injection.ln());
        }
        self.log_evidence = (ln(sum.max(1e-300)) + self.threshold).max(NO_EVIDENCE);
        if sum >= 1.0 {
            let (reading, told) = armed.speak(sum, injection, at_ms, pane_ms, tolerance, pane);
            if armed.evidence.is_idle() {
                self.log_evidence = NO_EVIDENCE;
            }
            self.told = told;
            return reading;
        }
        armed.held_since_ms = None;
        if learns {
            armed.learn(pane, &seen, at_ms, pane_ms, tolerance);
        }
        self.reading(Call::Quiet, injection)
    }

    pub fn learn_only(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64) {
        self.judge(pane, at_ms, pane_ms, 0.0);
    }

    pub fn release(&mut self, how: Release) {
        self.log_evidence = NO_EVIDENCE;
        let Some(armed) = self.armed.as_mut() else {
            return;
        };
        let Some(frozen) = armed.frozen.take() else {
            return;
        };
        armed.calm();
        armed.told_levels().settle_aside(how == Release::FalseAlarm);
        match how {
            Release::Fixed | Release::Expected => {}
            Release::FalseAlarm => {
                let seen = armed.regroup(&frozen.seen);
                armed.learn(&frozen.seen, &seen, frozen.alarm_ms, 0, self.settings.tolerance_sigma);
                if self.climb.lengthen(frozen.alarm_ms) {
                    armed.lengthen();
                }
            }
            Release::NewNormal => {
                self.total = frozen.seen.iter().map(|g| f64::from(g.1)).sum();
                self.gathered.add(&frozen.seen);
                self.armed = None;
            }
        }
    }

    /// The last incident is over by itself: if it was normal life, what it brought belongs to its hours; else it is forgotten.
    pub fn settle(&mut self, was_normal: bool) {
        let tolerance = self.settings.tolerance_sigma;
        if let Some(armed) = &mut self.armed {
            armed.told_levels().settle_aside(was_normal);
            let past = std::mem::take(&mut armed.past);
            if was_normal {
                let seen = armed.regroup(&past);
                armed.learn(&past, &seen, 0, 0, tolerance);
            }
        }
    }

    pub fn start_live(&mut self) {
        self.log_evidence = NO_EVIDENCE;
        if let Some(armed) = self.armed.as_mut() {
            armed.frozen = None;
            armed.told_levels().settle_aside(false);
            armed.past = Vec::new();
            armed.calm();
        }
        self.pending = None;
    }

    /// Panes that are judged as one, because evidence on single ones climbed more often than was promised; 1 is the rule.
    pub fn stretch(&self) -> u8 {
        self.climb.stretch()
    }

    pub fn state(&self) -> State {
        match &self.armed {
            None => State::Warming,
            Some(a) if a.frozen.is_some() => State::Frozen,
            Some(a) if !a.knows_noise() => State::Warming,
            Some(_) if self.starved => State::Starved,
            Some(_) => State::Armed,
        }
    }

    /// Armed when a shift of 0.3 sigma beyond the tolerance could ever be shown.
    pub fn sees(&self, injection: f64) -> Sees {
        let b = if injection > 0.0 { injection } else { 1e-9 };
        let needed = 2.0 * ln(ARMS as f64 / b) / (0.3f64 * 0.3 / 2.0);
        let have = self.armed.as_ref().map_or(self.total, |a| a.sum);
        Sees { armed: self.armed.as_ref().is_some_and(|a| a.knows_noise()), needs_events: (needed - have).max(0.0) }
    }

    /// The median, and the quantiles to which a shift of twice the tolerance would move it.
    pub fn baseline(&self) -> Option<Band> {
        let armed = self.armed.as_ref()?;
        let Scores { median: value, low, high, .. } = armed.scores;
        Some(Band { value, low, high, events: armed.sum })
    }

    pub fn succeed(&self, weight_max: f64) -> BinsBank {
        let mut next = BinsBank::new(self.settings);
        if let Some(a) = &self.armed {
            let share = (weight_max / a.sum.max(1.0)).min(1.0);
            let mut armed = a.clone();
            armed.frozen = None;
            armed.calm();
            armed.counts.iter_mut().for_each(|c| *c *= share);
            armed.sum *= share;
            armed.told_levels().discount(share);
            next.armed = Some(armed);
            next.climb = self.climb;
        }
        next
    }

    pub fn reset(&mut self) {
        *self = BinsBank::new(self.settings);
    }

    fn count_hour(&mut self, n: f64, at_ms: i64) {
        // Also when time runs backwards, as after a restart from an older position.
        if at_ms >= self.hour_end_ms || at_ms < self.hour_end_ms - HOUR_MS {
            self.starved = self.hour_end_ms != i64::MIN && self.hour_events < STARVED_EVENTS_PER_HOUR;
            (self.hour_end_ms, self.hour_events) = ((at_ms.div_euclid(HOUR_MS) + 1) * HOUR_MS, 0.0);
        }
        self.hour_events += n;
    }

    fn reading(&self, call: Call, injection: f64) -> Reading {
        let state = self.state();
        if injection <= 0.0 {
            return Reading { state, log_evidence: 0.0, threshold: f64::INFINITY, call };
        }
        if injection == self.injection && state != State::Warming {
            return Reading { state, log_evidence: self.log_evidence, threshold: self.threshold, call };
        }
        let sum = self.armed.as_ref().map_or(0.0, |a| a.evidence.sum());
        let (log_evidence, threshold) = nats(sum, injection);
        Reading { state, log_evidence, threshold, call }
    }
}

/// Adds a pane to a sorted histogram of at most so many bins.
fn add_counts(into: &mut Vec<(u16, u32)>, pane: &[(u16, u32)], bins_max: usize) {
    for (bin, c) in pane {
        match into.binary_search_by_key(bin, |g| g.0) {
            Ok(i) => into[i].1 = into[i].1.saturating_add(*c),
            Err(i) if into.len() < bins_max => into.insert(i, (*bin, *c)),
            // Full: the neighbour takes it, which moves a quantile by less than one bin.
            Err(i) => {
                let i = i.min(into.len() - 1);
                into[i].1 = into[i].1.saturating_add(*c);
            }
        }
    }
}

fn quantile_of(grid: &[(u16, u32)], q: f64) -> f64 {
    let total: f64 = grid.iter().map(|g| f64::from(g.1)).sum();
    let mut below = 0.0;
    for (bin, c) in grid {
        below += f64::from(*c);
        if below >= q * total {
            return middle(*bin);
        }
    }
    0.0
}

/// Inverse of the normal distribution function to seven digits (Wichura 1988, AS 241, PPND7): tables are renewed often.
fn quick_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        let over = ((59.109_374_720 * r + 159.291_132_02) * r + 50.434_271_938) * r + 3.387_132_717_9;
        return q * over / (((67.187_563_600 * r + 78.757_757_664) * r + 17.895_169_469) * r + 1.0);
    }
    let r = (-ln(p.min(1.0 - p).max(1e-300))).sqrt();
    let z = if r <= 5.0 {
        let r = r - 1.6;
        (((0.170_238_211_03 * r + 1.306_728_481_6) * r + 2.756_815_390_0) * r + 1.423_437_277_7)
            / ((0.120_211_329_75 * r + 0.737_001_642_50) * r + 1.0)
    } else {
        let r = r - 5.0;
        (((0.017_337_203_997 * r + 0.428_682_943_37) * r + 3.081_226_386_0) * r + 6.657_905_115_0)
            / ((0.012_258_202_635 * r + 0.241_978_942_25) * r + 1.0)
    };
    if q < 0.0 { -z } else { z }
}

fn density(z: f64) -> f64 {
    // 1 / sqrt(2 pi).
    0.398_942_280_401_432_7 * exp(-0.5 * z * z)
}

// === impl Gathered ===

impl Gathered {
    /// Appends a pane. All is put in order only when it would outgrow its memory, so that a pane of a bank that merely gathers costs a copy.
    fn add(&mut self, pane: &[(u16, u32)]) {
        if self.0.len() + pane.len() > self.0.capacity() {
            self.put_in_order();
            if 2 * (self.0.len() + pane.len()) > self.0.capacity() {
                self.0.reserve(GATHERED_MIN.max(self.0.len() + pane.len()));
            }
        }
        for &(bin, count) in pane {
            let whole = (count / u32::from(u16::MAX)) as usize;
            self.0.extend(std::iter::repeat_n((bin, u16::MAX), whole));
            self.0.push((bin, (count % u32::from(u16::MAX)) as u16));
        }
    }

    #[inline]
    fn ask_for_end(&self) {
        if let Some(last) = self.0.last() {
            ask_for(last);
        }
    }

    /// As few entries as their counts allow.
    fn put_in_order(&mut self) {
        self.0.sort_unstable_by_key(|e| e.0);
        self.0.dedup_by(|next, kept| {
            let room = u16::MAX - kept.1;
            let same = next.0 == kept.0;
            if same {
                let moved = room.min(next.1);
                (kept.1, next.1) = (kept.1 + moved, next.1 - moved);
            }
            same && next.1 == 0
        });
    }

    /// Each bin once, in order.
    fn grid(&self) -> Vec<(u16, u32)> {
        let mut grid = self.0.iter().map(|(bin, count)| (*bin, u32::from(*count))).collect();
        once_each(&mut grid, u32::saturating_add);
        grid
    }
}

// === impl Armed ===

impl Armed {
    /// Regroups a gathered histogram into quantile bins; `None` when there is none.
    fn from_grid(grid: &[(u16, u32)], total: f64, tolerance: f64) -> Option<Armed> {
        let mut cuts: Vec<u16> = Vec::new();
        for q in CUTS {
            if total * (1.0 - q) < BEYOND_CUT_MIN {
                break;
            }
            let mut below = 0.0;
            let last = grid.len().saturating_sub(1);
            for (bin, c) in &grid[..last] {
                below += f64::from(*c);
                if below >= q * total {
                    if cuts.last().is_none_or(|k| k < bin) {
                        cuts.push(*bin);
                    }
                    break;
                }
            }
        }
        if cuts.is_empty() {
            // A series that never varied: whatever differs from it lands in another bin.
            cuts = vec![grid.first()?.0.saturating_sub(1), grid.last()?.0];
        }
        let bins = cuts.len() + 1;
        let mut armed = Armed {
            now: Now::default(),
            scale: [0.0; BINS_MAX],
            cuts: from_fn(|i| cuts.get(i).copied().unwrap_or(u16::MAX)),
            bins,
            counts: [0.0; BINS_MAX],
            sum: total,
            scores: Scores::default(),
            bets: Bets::default(),
            evidence: Mixture::default(),
            ladders: [Ladder::default(), Ladder::default()],
            dispersion: 1.0,
            lagged: Lag::default(),
            panes: 0,
            refresh_at: 0.0,
            trail: Rows::default(),
            held_since_ms: None,
            far: Vec::new(),
            hours: Box::new(Hours { ratios: [1.0; BINS_MAX], ..Hours::default() }),
            frozen: None,
            past: Vec::new(),
        };
        armed.counts = armed.regroup(grid).counts;
        let last = cuts.last().copied().unwrap_or(u16::MAX);
        add_counts(&mut armed.far, &grid[grid.partition_point(|(bin, _)| *bin <= last)..], FAR_BINS_MAX);
        armed.refresh(tolerance);
        armed.scale = armed.scores.of_bin;
        Some(armed)
    }

    fn cuts(&self) -> &[u16] {
        &self.cuts[..self.bins - 1]
    }

    /// Counts per quantile bin of a sorted pane; those after the last bin are 0.
    fn regroup(&self, pane: &[(u16, u32)]) -> Regrouped {
        const STEPS: [usize; 5] = [16, 8, 4, 2, 1];
        const DENSE: usize = 2 * BINS_MAX;
        let mut counts = [0.0; BINS_MAX];
        let n: u64 = pane.iter().map(|(_, c)| u64::from(*c)).sum();
        let mut cuts = [u16::MAX; 1 << STEPS.len()];
        cuts[..CUTS.len()].copy_from_slice(&self.cuts);
        if pane.len() > DENSE {
            let mut before = 0;
            for (bin, c) in pane {
                while cuts[before] < *bin {
                    before += 1;
                }
                counts[before.min(CUTS.len())] += f64::from(*c);
            }
        } else {
            // Where each of a few values lies is a matter of chance: steps that are always taken are quicker than to guess when to stop.
            for (bin, c) in pane {
                let mut before = 0;
                for step in STEPS {
                    before += if cuts[before + step - 1] < *bin { step } else { 0 };
                }
                counts[before.min(CUTS.len())] += f64::from(*c);
            }
        }
        Regrouped { counts, n: n as f64 }
    }

    fn remember(&mut self, seen: &Regrouped, learned: bool, at_ms: i64, pane_ms: i64) {
        let of_learned = if learned { seen.n as f32 } else { 0.0 };
        let row: [f32; ROW] = from_fn(|b| seen.counts.get(b).map_or(of_learned, |c| *c as f32));
        self.trail.push(row.into_iter(), at_ms, pane_ms);
    }

    fn calm(&mut self) {
        self.forget();
        self.lagged = Lag::default();
    }

    fn forget(&mut self) {
        self.evidence.clear();
        self.trail.clear();
        self.held_since_ms = None;
    }

    /// Panes get longer: what is known of the noise of the shorter ones is kept as a few panes' worth.
    fn lengthen(&mut self) {
        self.ladders.iter_mut().for_each(Ladder::lengthen);
        self.ask_for_noise();
        self.calm();
    }

    /// A quantile of the baseline, at the resolution of its cuts (exact at a cut).
    fn quantile(&self, q: f64) -> f64 {
        let now = from_fn(|b| self.counts[b] * f64::from(self.hours.ratios[b]));
        self.quantile_of(&now, q).0
    }

    /// A quantile of counts per bin, between cuts evenly, and whether it lies in a bin that is open on one side.
    fn quantile_of(&self, counts: &[f64; BINS_MAX], q: f64) -> (f64, bool) {
        let cuts = self.cuts();
        let sum: f64 = counts.iter().sum();
        let mut below = 0.0;
        for (b, c) in counts[..self.bins].iter().enumerate() {
            let share = c / sum.max(1e-9);
            if below + share >= q {
                let low = upper_edge(cuts[b.saturating_sub(1)]);
                let high = cuts.get(b).map_or(low, |c| upper_edge(*c));
                let value = low + (high - low) * if share > 0.0 { ((q - below) / share).clamp(0.0, 1.0) } else { 1.0 };
                return (value, b == 0 || b == cuts.len());
            }
            below += share;
        }
        (cuts.last().map_or(0.0, |c| upper_edge(*c)), true)
    }

    fn share(&self, b: usize) -> f64 {
        (self.counts[b] + 0.5) / (self.sum + 0.5 * self.bins as f64) * f64::from(self.hours.ratios[b])
    }

    /// Another hour may have another level, and what is normal moves with it.
    fn turn_hour(&mut self, at_ms: i64, tolerance: f64) {
        let hour = at_ms.div_euclid(HOUR_MS);
        if self.now.hour == Some(hour) {
            return;
        }
        self.now.hour = Some(hour);
        let (mean, variance) = self.moments();
        let suspect_from_ms = (tolerance < BARE).then(|| self.evidence.speaks_since(0..ARMS)).flatten();
        // The course of the day is not what makes its hours uncertain.
        let short = self.ladders[0].phi_below(HOURLY_PANES, DOUBT);
        self.told_levels().turn(hour, mean, variance, short, tolerance * variance.sqrt(), suspect_from_ms);
        let known = std::mem::replace(&mut self.now.course, self.hours.levels.course_now());
        if self.now.course.is_some() && known.is_none() {
            // What noise there seemed to be in long stretches was the course of the day.
            self.ladders.iter_mut().for_each(|ladder| ladder.forget_from(HOURLY_PANES));
            self.lagged = Lag::default();
        }
        if self.set_hour(mean, variance) {
            self.refresh(tolerance + self.now.width);
        }
    }

    /// Levels of the hours, with all that was learned.
    fn told_levels(&mut self) -> &mut Levels {
        let [sum, n] = std::mem::take(&mut self.now.untold);
        self.hours.levels.learn(sum, n);
        &mut self.hours.levels
    }

    /// Mean and variance of all hours on the scale that does not move.
    fn moments(&self) -> (f64, f64) {
        let (mut mean, mut squares) = (0.0, 0.0);
        for (c, z) in self.counts.iter().zip(&self.scale) {
            let z = f64::from(*z);
            mean += c * z;
            squares += c * z * z;
        }
        let n = self.sum.max(1.0);
        (mean / n, squares / n - (mean / n).powi(2))
    }

    /// What the present hour makes of the shares of all hours, if each hour's law is the same one tilted to its level: the tilt of this hour over
    /// the mean of the tilts of all. (A normal law narrowed to the variance within hours would be too light in the tail at the crest, which is all of
    /// the tail there is.) True when that is anything, or was.
    fn set_hour(&mut self, mean: f64, variance: f64) -> bool {
        let (hours, now) = (&mut self.hours, &mut self.now);
        let level = hours.levels.level(hours.levels.hour());
        let was = now.width > 0.0;
        hours.ratios = [1.0; BINS_MAX];
        (now.width, now.middle, now.deviation) = (0.0, 0.0, variance.max(1e-12).sqrt());
        if level.half <= 0.0 {
            return was;
        }
        let all = (self.sum + 0.5 * self.bins as f64).recip();
        let within = (variance - hours.levels.tau2()).max(0.25 * variance);
        let mut all_hours = [0.0; BINS_MAX];
        for (of_hour, weight) in hours.levels.all() {
            for (sum, z) in all_hours.iter_mut().zip(&self.scale).take(self.bins) {
                *sum += weight * exp(of_hour * (f64::from(*z) - mean - 0.5 * of_hour) / within);
            }
        }
        // The bins are coarse and the law is not normal: the shift is set so that the mean comes out right (Newton's method).
        let mut shift = level.middle / within;
        for _ in 0..HOUR_STEPS {
            let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
            for (b, all_hours) in all_hours.iter().enumerate().take(self.bins) {
                let z = f64::from(self.scale[b]) - mean;
                let share = (self.counts[b] + 0.5) * all * exp(z * shift) / all_hours;
                sum += share;
                first += share * z;
                second += share * z * z;
            }
            let mean_now = first / sum;
            let spread = (second / sum - mean_now * mean_now).max(0.1 * within);
            shift += ((level.middle - mean_now) / spread).clamp(-1.0, 1.0);
        }
        let mut sum = 0.0;
        let ratios: [f64; BINS_MAX] = from_fn(|b| {
            let z = f64::from(self.scale[b]) - mean;
            let ratio = if b < self.bins { exp(z * shift) / all_hours[b] } else { 1.0 };
            sum += if b < self.bins { (self.counts[b] + 0.5) * all * ratio } else { 0.0 };
            ratio
        });
        hours.ratios = ratios.map(|ratio| (ratio / sum) as f32);
        now.deviation = within.sqrt();
        now.middle = level.middle;
        now.width = level.half / now.deviation;
        true
    }

    /// Normal scores of the upper edges of all bins, the last one's infinite.
    fn edges(&self) -> [f64; BINS_MAX] {
        let mut edges = [f64::INFINITY; BINS_MAX];
        // From the nearer end, so that small shares are not lost beside 1.
        let mut below = 0.0;
        for (b, edge) in edges.iter_mut().enumerate().take(self.bins - 1) {
            below += self.share(b);
            if below > 0.5 {
                break;
            }
            *edge = quick_quantile(below);
        }
        let mut above = 0.0;
        for b in (1..self.bins).rev() {
            above += self.share(b);
            // An edge at the median itself may be beyond it from both ends, by a rounding.
            if edges[b - 1].is_finite() {
                break;
            }
            edges[b - 1] = -quick_quantile(above);
        }
        edges
    }

    /// Recomputes the scores from the quiet counts; the bets follow when they are asked for.
    fn refresh(&mut self, t: f64) {
        self.refresh_at = self.sum * (1.0 + REFRESH_GROWTH);
        self.bets.made = false;
        let edges = self.edges();
        let mut scores = Scores { tail_from: self.bins, ..Scores::default() };
        let mut before = 0.0;
        for (b, edge) in edges.iter().enumerate().take(self.bins) {
            let share = self.share(b);
            let upto = if b + 1 < self.bins { density(*edge) } else { 0.0 };
            let score = (before - upto) / share;
            before = upto;
            scores.of_bin[b] = score as f32;
            scores.variance += share * score * score;
            if score > UPPER_TENTH {
                scores.tail_from = scores.tail_from.min(b);
                scores.tail_share += share;
                scores.tail_score += share * score;
            }
        }
        let normal = NormalTable::get();
        let median = self.quantile(0.5);
        (scores.median, scores.low) = (median, self.quantile(normal.cdf(-2.0 * t)).min(median));
        scores.high = self.quantile(normal.cdf(2.0 * t)).max(median);
        self.scores = scores;
    }

    fn ask_for_noise(&mut self) {
        let doubt = if self.hours.levels.have_been_compared() { DOUBT } else { DOUBT_YOUNG };
        self.dispersion = self.ladders.iter().fold(1.0, |most, ladder| ladder.phi_beyond(doubt).max(most));
    }

    fn knows_noise(&self) -> bool {
        self.ladders[0].fed() >= NOISE_PANES_MIN
    }

    fn dispersion(&self) -> f64 {
        self.dispersion
    }

    fn learn(&mut self, pane: &[(u16, u32)], seen: &Regrouped, at_ms: i64, pane_ms: i64, tolerance: f64) {
        let fade = decay(pane_ms);
        for (quiet, c) in self.counts.iter_mut().zip(&seen.counts) {
            *quiet = *quiet * fade + c;
        }
        let (mut score, fixed) = (seen.dot(&self.scores.of_bin), seen.dot(&self.scale));
        let mut tail: f64 = seen.counts[self.scores.tail_from..].iter().sum();
        self.sum = self.sum * fade + seen.n;
        // What is learned at once, as a false alarm is, belongs to no one hour.
        if pane_ms > 0 {
            self.now.untold[0] += fixed;
            self.now.untold[1] += seen.n;
        }
        // Beyond what is normal at this hour; which bins are the upper tenth may change with it.
        tail -= self.scores.tail_share * seen.n;
        let now = &self.now;
        if let Some(course) = now.course.filter(|_| pane_ms > 0) {
            // The course within the hour is no noise either.
            let moved = (course.at(at_ms, pane_ms) - now.middle) / now.deviation;
            score -= moved * self.scores.variance * seen.n;
            tail -= moved * self.scores.tail_score * seen.n;
        }
        if let Some([score, tail, n]) = self.lagged.push([score as f32, tail as f32, seen.n as f32]) {
            let p = self.scores.tail_share;
            self.ladders[0].feed(f64::from(score), f64::from(n), self.scores.variance);
            self.ladders[1].feed(f64::from(tail), f64::from(n), p * (1.0 - p));
            if self.ladders[0].fed().is_multiple_of(DISPERSION_PANES) {
                self.ask_for_noise();
            }
        }
        if seen.counts[self.bins - 1] > 0.0 {
            let last = self.cuts().last().copied().unwrap_or(u16::MAX);
            add_counts(&mut self.far, &pane[pane.partition_point(|(bin, _)| *bin <= last)..], FAR_BINS_MAX);
        }
        self.panes += 1;
        if self.panes.is_multiple_of(REFRESH_PANES) || self.sum >= self.refresh_at {
            let last = self.bins - 1;
            // The trail is lost with it, and the values beyond the last cut may be a fault.
            while self.evidence.gathered() < CALM_NATS && self.cut_farther() {
                self.scale[self.bins - 1] = self.scale[last];
            }
            if self.now.width > 0.0 {
                let (mean, variance) = self.moments();
                self.set_hour(mean, variance);
            }
            self.refresh(tolerance);
            for b in last + 1..self.bins {
                self.scale[b] = self.scale[last] + self.scores.of_bin[b] - self.scores.of_bin[last];
            }
        }
    }

    /// Makes one more cut beyond the last when enough values lie beyond it.
    fn cut_farther(&mut self) -> bool {
        if self.bins >= BINS_MAX {
            return false;
        }
        let (Some(last), beyond) = (self.cuts().last().copied(), self.counts[self.bins - 1]) else {
            return false;
        };
        let share = beyond / self.sum.max(1.0);
        let far: f64 = self.far.iter().map(|f| f64::from(f.1)).sum();
        let Some(q) = CUTS.into_iter().find(|q| 1.0 - q < 0.8 * share) else {
            return false;
        };
        if far < 4.0 * BEYOND_CUT_MIN || self.sum * (1.0 - q) < 2.0 * BEYOND_CUT_MIN {
            return false;
        }
        let wanted = (1.0 - (1.0 - q) / share) * far;
        let mut below = 0.0;
        let Some(at) = self.far.iter().position(|(_, c)| {
            below += f64::from(*c);
            below >= wanted
        }) else {
            return false;
        };
        let cut = self.far[at].0;
        if at + 1 >= self.far.len() || cut <= last {
            return false;
        }
        self.far.drain(..=at);
        self.cuts[self.bins - 1] = cut;
        let nearer = beyond * below / far;
        (self.counts[self.bins - 1], self.counts[self.bins]) = (nearer, beyond - nearer);
        self.bins += 1;
        // Rows of the trail told the two bins as one.
        self.trail.clear();
        true
    }

    fn speak(&mut self, sum: f64, injection: f64, at_ms: i64, pane_ms: i64, tolerance: f64, newest: &[(u16, u32)]) -> (Reading, Told) {
        let arm = self.evidence.best();
        let pointer_ms = self.evidence.start_of(arm);
        let (log_evidence, threshold) = nats(sum, injection);
        let stretched = (TAIL..KNOWN).contains(&arm);
        let up = arm < DOWN || arm == KNOWN || stretched;
        let (onset, size) = if stretched { (self.onset_of_tail(pointer_ms, pane_ms), None) } else { self.onset_of_shift(up, pointer_ms, pane_ms) };
        // The pane in which it began is changed in part: it tells only when there is no other.
        let later = self.since(onset.at_ms + 1);
        let (since, from_ms) = if later.n > 0.0 { (later, onset.at_ms + 1) } else { (self.since(onset.at_ms), onset.at_ms) };
        let n = since.n;
        let rows = self.trail.newest_first().take_while(|row| row.start_ms >= from_ms);
        let mean: f64 = rows.map(|row| self.score_of(&row).1).sum::<f64>() / n.max(1.0);
        let (median, _) = self.quantile_of(&since.counts, 0.5);
        let stays = self.quantile(normal_cdf(-2.0 * tolerance)) <= median && median <= self.quantile(normal_cdf(2.0 * tolerance));
        let tail = stays && (stretched || arm == KNOWN);
        let told = if tail { Told::P95 } else { Told::Median };
        let change = self.change(&since, told, size, newest);
        let moved = size.map_or(mean.abs(), |size| size[1].abs().min(mean.abs().max(0.5 * size[1].abs())));
        if !tail && moved <= tolerance {
            let since = *self.held_since_ms.get_or_insert(at_ms);
            if at_ms - since >= super::HELD_RESET_MS {
                self.calm();
            }
            let call = Call::Held { change, why: "the shift is within tolerance" };
            return (Reading { state: State::Armed, log_evidence, threshold, call }, told);
        }
        // What was learned since the evidence began is given back, and set aside with what comes.
        self.told_levels().settle_aside(false);
        self.past = Vec::new();
        for row in self.trail.newest_first().take_while(|row| row.start_ms >= pointer_ms) {
            let n: f32 = row.sums[..BINS_MAX].iter().sum();
            let part = row.sums[BINS_MAX] / n.max(1.0);
            let (mut fixed, mut all) = (0.0, 0.0);
            for (b, (have, c)) in self.counts.iter_mut().zip(&row.sums[..BINS_MAX]).enumerate() {
                *have = (*have - f64::from(c * part)).max(0.0);
                fixed += c * part * self.scale[b];
                all += c * self.scale[b];
            }
            self.hours.levels.set_aside(row.start_ms.div_euclid(HOUR_MS), f64::from(all), f64::from(n));
            self.hours.levels.give_back(row.start_ms.div_euclid(HOUR_MS), f64::from(fixed), f64::from(n * part));
        }
        self.sum = self.counts.iter().sum();
        if self.now.width > 0.0 {
            let (mean, variance) = self.moments();
            self.set_hour(mean, variance);
        }
        self.refresh(tolerance);
        let shift = size.map(|size| size[1]).filter(|d| arm < TAIL && (1e-3..SIZE_TOLD_MAX).contains(&d.abs()));
        let toward = match shift {
            Some(d) => self.scores.of_bin[..self.bins].iter().map(|z| d * f64::from(*z)).collect(),
            None => {
                let seen = |b: usize| (since.counts[b] + 0.5) / (n + 0.5 * self.bins as f64);
                (0..self.bins).map(|b| ln(seen(b) / self.share(b))).collect()
            }
        };
        let settled = tolerance - self.now.width;
        let way = self.way(toward, shift, settled, n, at_ms);
        let seen = self.on_grid(&since, newest);
        self.calm();
        let frozen = Frozen { alarm_ms: at_ms, recovery: Mixture::new(RECOVERY_ARMS), way, before: change.before, told, seen, since: Vec::new() };
        self.frozen = Some(Box::new(frozen));
        (Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }, told)
    }
}

// === impl Lag ===

impl Lag {
    /// Takes in the newest and gives the oldest once the ring is full.
    fn push(&mut self, pane: [f32; 3]) -> Option<[f32; 3]> {
        let at = usize::from(self.oldest + self.count) % NOISE_LAG;
        if usize::from(self.count) < NOISE_LAG {
            self.panes[at] = pane;
            self.count += 1;
            return None;
        }
        self.oldest = (self.oldest + 1) % NOISE_LAG as u8;
        Some(std::mem::replace(&mut self.panes[at], pane))
    }
}

#[cfg(test)]
mod tests;
