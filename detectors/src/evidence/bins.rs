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
use super::levels::Levels;
use super::trail::{PARTS, Row, Rows, over_parts, place_of};
use super::{
    Arm, Band, Ladder, Mixture, NormalTable, Sees, decay, exp, ln, ln_rising, ln_rising_of_half, nats, nats_per_pane_max, normal_cdf, overshoot,
};
use crate::sketch::log_linear::{middle, upper_edge};
use crate::sketch::once_each;
use crate::verdict::{Call, Change, Onset, Reading, Release, State};

mod recovery;

use recovery::{Frozen, RECOVERY_ARMS};

const CUTS: [f64; 23] =
    [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99995, 0.99998];
/// Quantile bins: one more than there are cuts.
const BINS_MAX: usize = CUTS.len() + 1;
const SHIFTS: [f64; 5] = [0.1, 0.2, 0.4, 0.8, 1.6];
/// The normal score from which on a bin is of the upper tenth.
const UPPER_TENTH: f64 = 1.2816;
/// Stretch of everything above a normal score, that of the upper 10, 5 and 3 %: (score of the quantile, factor).
const TAILS: [(f64, f64); 5] = [(UPPER_TENTH, 1.5), (UPPER_TENTH, 2.5), (1.6449, 2.5), (1.8808, 2.0), (1.8808, 4.0)];
/// Alternatives that are known beforehand, in this order: shifts up, shifts down, tails.
const KNOWN: usize = 2 * SHIFTS.len() + TAILS.len();
/// And two that reach anything, up and down.
const ARMS: usize = KNOWN + 2;
const DOWN: usize = SHIFTS.len();
const TAIL: usize = 2 * SHIFTS.len();
/// Parts of the injection, in the order of the alternatives. Small changes get the greater part, so that every change pays about
/// the same share of its delay for not being known.
const WEIGHTS: [f64; ARMS] = [0.125, 0.095, 0.085, 0.055, 0.02, 0.125, 0.095, 0.085, 0.055, 0.02, 0.04, 0.03, 0.05, 0.04, 0.02, 0.03, 0.03];
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
const REFRESH_GROWTH: f64 = 1.0 / 128.0;
/// Bins of the grid kept of values beyond the last cut, from which farther cuts are made when there are enough of them.
const FAR_BINS_MAX: usize = 64;
/// Evidence in nats, since its pointer, below which nothing speaks of a fault.
const CALM_NATS: f32 = 4.0;
/// Steps of Newton's method towards the level of an hour.
const HOUR_STEPS: usize = 4;
/// Stretches of panes so long and longer hold the course of the day.
const HOURLY_PANES: u32 = 32;
/// The series of the predictive is used while the first term left out is below this, in units of 12 nats.
const SERIES_ERROR_MAX: f64 = 0.02;
/// A pane is strange, and the bets on anything are looked at, from this chi-squared per bin on.
const STRANGE: f64 = 4.0;
/// What an alternative gains in a pane in which it is not looked at: its evidence is given up.
const LET_GO: f64 = -50.0;
/// A row of the trail: counts per bin, and the events of them that were learned.
const ROW: usize = BINS_MAX + 1;
/// Shifts that a change may have, evenly in their logarithm.
const SIZES: usize = 64;
const SIZE_MIN: f64 = 0.03;
const SIZE_MAX: f64 = 5.0;
/// Sizes up to here are told by the baseline's own quantiles.
const SIZE_TOLD_MAX: f64 = 2.0;
/// Stretches that a tail may have.
const STRETCHES: [f64; 8] = [1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 6.0];
const STRETCHED_FROM: [f64; 3] = [UPPER_TENTH, 1.6449, 1.8808];

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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BinsBank {
    settings: BinsSettings,
    /// While warming: counts on the grid, put in order now and then.
    gathered: Gathered,
    total: f64,
    armed: Option<Box<Armed>>,
    pending: Option<(Vec<(u16, u32)>, f64, i64, f64)>,
    /// End of the hour that is counted, and its events.
    hour_end_ms: i64,
    hour_events: f64,
    starved: bool,
    told: Told,
    /// The last injection and its threshold in nats, and the evidence in nats: what most readings repeat.
    injection: f64,
    threshold: f64,
    log_evidence: f64,
    climb: Climb,
    /// The evidence was gathered while nothing might be paged, and is forgotten when something may.
    shadow: bool,
}

/// Counts on the grid in four bytes each: of a hundred thousand young series these are most of the memory. A bin that holds more
/// stands more than once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Gathered(Vec<(u16, u16)>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Armed {
    /// The last grid bin of every quantile bin but the last; beyond those in use the grid's end, which nothing lies beyond.
    cuts: [u16; CUTS.len()],
    bins: usize,
    /// Quiet counts per quantile bin.
    counts: [f64; BINS_MAX],
    sum: f64,
    scores: Scores,
    bets: Bets,
    evidence: Mixture<[Arm; ARMS]>,
    ladders: [Ladder; 2],
    /// How much noisier panes are than independent values, as of some panes ago.
    dispersion: f64,
    lagged: Lag,
    panes: u32,
    refresh_at: f64,
    trail: Rows,
    held_since_ms: Option<i64>,
    /// Quiet values beyond the last cut, on the grid. A young baseline has no far quantiles, and tails are seen by those.
    far: Vec<(u16, u32)>,
    hours: Box<Hours>,
    frozen: Option<Box<Frozen>>,
}

/// The hours of the day: what is normal now is the law of all hours, moved to the level of the present one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Hours {
    levels: Levels,
    /// Scores of the bins as of arming: a scale that does not move.
    scale: [f32; BINS_MAX],
    /// Ratios of this hour's shares to those of all hours; 1 while hours are not told apart.
    ratios: [f32; BINS_MAX],
    /// How far the level of this hour may lie from that, in normal scores: forgiven beside the tolerance.
    width: f64,
    /// Hours come again: the course of the day is no noise. And the level that the shares stand for, with the deviation within hours.
    come_again: bool,
    middle: f64,
    deviation: f64,
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

/// Null and alternatives, as of the last refresh. All are tilts: the probability of a bin is its quiet share times the exponential of
/// a number per bin, divided by the sum of those. Of the quiet share itself, which all have in common, nothing is left in the ratios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bets {
    /// Made from the scores when a pane is judged: a bank that only learns renews its scores often and never bets.
    made: bool,
    /// Half the reciprocals of the bins' probabilities at the upper and lower edge of tolerance.
    up: [f32; BINS_MAX],
    down: [f32; BINS_MAX],
    tails: [[f32; BINS_MAX]; TAILS.len()],
    /// The first bin that any stretch changes: the bin in which it begins too, of which it takes a part away.
    tails_from: usize,
    /// ln of the sum that divides each alternative, over that of its null.
    ln_norm: [f64; KNOWN],
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

// === impl BinsBank ===

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
        let tolerance = settled + armed.hours.width;
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
        let sum = armed.evidence.step_weighted(&l, &WEIGHTS, share, cap, at_ms);
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
        let learns = sum < injection.sqrt().sqrt().sqrt() && sum < 1.0;
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

    pub fn start_live(&mut self) {
        self.log_evidence = NO_EVIDENCE;
        if let Some(armed) = self.armed.as_mut() {
            armed.frozen = None;
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
            armed.hours.levels.discount(share);
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
        };
        armed.counts = armed.regroup(grid).counts;
        let last = cuts.last().copied().unwrap_or(u16::MAX);
        add_counts(&mut armed.far, &grid[grid.partition_point(|(bin, _)| *bin <= last)..], FAR_BINS_MAX);
        armed.refresh(tolerance);
        armed.hours.scale = armed.scores.of_bin;
        Some(armed)
    }

    fn cuts(&self) -> &[u16] {
        &self.cuts[..self.bins - 1]
    }

    /// Counts per quantile bin of a sorted pane; those after the last bin are 0.
    fn regroup(&self, pane: &[(u16, u32)]) -> Regrouped {
        let mut counts = [0.0; BINS_MAX];
        let (mut b, mut n) = (0, 0);
        for (bin, c) in pane {
            while self.cuts.get(b).is_some_and(|cut| cut < bin) {
                b += 1;
            }
            counts[b] += f64::from(*c);
            n += u64::from(*c);
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
        if hour == self.hours.levels.hour() {
            return;
        }
        let (mean, variance) = self.moments();
        let suspect_from_ms = (tolerance < BARE).then(|| self.evidence.speaks_since(0..ARMS)).flatten();
        self.hours.levels.turn(hour, mean, variance, self.dispersion, tolerance * variance.sqrt(), suspect_from_ms);
        let known = std::mem::replace(&mut self.hours.come_again, self.hours.levels.come_again());
        if self.hours.come_again && !known {
            // What noise there seemed to be in long stretches was the course of the day.
            self.ladders.iter_mut().for_each(|ladder| ladder.forget_from(HOURLY_PANES));
            self.lagged = Lag::default();
        }
        if self.set_hour(mean, variance) {
            self.refresh(tolerance + self.hours.width);
        }
    }

    /// Mean and variance of all hours on the scale that does not move.
    fn moments(&self) -> (f64, f64) {
        let (mut mean, mut squares) = (0.0, 0.0);
        for (c, z) in self.counts.iter().zip(&self.hours.scale) {
            let z = f64::from(*z);
            mean += c * z;
            squares += c * z * z;
        }
        let n = self.sum.max(1.0);
        (mean / n, squares / n - (mean / n).powi(2))
    }

    /// What the present hour makes of the shares of all hours: as much as turns a normal law of theirs into one of its own level and of
    /// the variance within hours. True when that is anything, or was.
    fn set_hour(&mut self, mean: f64, variance: f64) -> bool {
        let hours = &mut self.hours;
        let level = hours.levels.level(hours.levels.hour());
        let was = hours.width > 0.0;
        hours.ratios = [1.0; BINS_MAX];
        (hours.width, hours.middle, hours.deviation) = (0.0, 0.0, variance.max(1e-12).sqrt());
        if level.half <= 0.0 {
            return was;
        }
        let all = (self.sum + 0.5 * self.bins as f64).recip();
        let within = (variance - hours.levels.tau2()).max(0.25 * variance);
        let narrower = 0.5 * (within.recip() - variance.recip());
        // The bins are coarse and the law is not normal: the shift is set so that the mean comes out right (Newton's method).
        let mut shift = level.middle / within;
        for _ in 0..HOUR_STEPS {
            let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
            for b in 0..self.bins {
                let z = f64::from(hours.scale[b]) - mean;
                let share = (self.counts[b] + 0.5) * all * exp(z * (shift - narrower * z));
                sum += share;
                first += share * z;
                second += share * z * z;
            }
            let now = first / sum;
            let spread = (second / sum - now * now).max(0.1 * within);
            shift += ((level.middle - now) / spread).clamp(-1.0, 1.0);
        }
        let mut sum = 0.0;
        let ratios: [f64; BINS_MAX] = from_fn(|b| {
            let z = f64::from(hours.scale[b]) - mean;
            let ratio = if b < self.bins { exp(z * (shift - narrower * z)) } else { 1.0 };
            sum += if b < self.bins { (self.counts[b] + 0.5) * all * ratio } else { 0.0 };
            ratio
        });
        hours.ratios = ratios.map(|ratio| (ratio / sum) as f32);
        hours.deviation = within.sqrt();
        hours.middle = level.middle;
        hours.width = level.half / hours.deviation;
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
            if above >= 0.5 {
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

    /// ln of what divides a tilt of the quiet shares by their scores.
    fn ln_norm(&self, tilt: f64) -> f64 {
        let tilted = (0..self.bins).map(|b| self.share(b) * exp(tilt * f64::from(self.scores.of_bin[b])));
        ln(tilted.sum())
    }

    /// ln of the ratios by which stretching everything above a score changes the bins' shares.
    fn stretched(&self, edges: &[f64; BINS_MAX], from: f64, stretch: f64) -> [f32; BINS_MAX] {
        let normal = NormalTable::get();
        let above = |z: f64| normal.cdf(-(from + (z - from) / stretch));
        let mut out = [0.0; BINS_MAX];
        for b in 0..self.bins {
            if edges[b] <= from {
                continue;
            }
            let low = if b == 0 { f64::NEG_INFINITY } else { edges[b - 1] };
            let inside = if low >= from { above(low) } else { normal.cdf(-low.max(-8.0)) };
            let beyond = if b + 1 < self.bins { above(edges[b]) } else { 0.0 };
            out[b] = ln(((inside - beyond) / self.share(b)).max(1e-6)) as f32;
        }
        out
    }

    fn make_bets(&mut self, t: f64) {
        let edges = self.edges();
        let mut bets = Bets { made: true, ..Bets::default() };
        let (ln_up, ln_down) = if t > 0.0 { (self.ln_norm(t), self.ln_norm(-t)) } else { (0.0, 0.0) };
        let mut at_edge = [0.0; BINS_MAX];
        for (b, at_edge) in at_edge.iter_mut().enumerate().take(self.bins) {
            let (share, score) = (self.share(b), f64::from(self.scores.of_bin[b]));
            let tilt = if t > 0.0 { exp(t * score) } else { 1.0 };
            *at_edge = share * tilt * exp(-ln_up);
            bets.up[b] = (0.5 / *at_edge) as f32;
            bets.down[b] = (0.5 * tilt * exp(ln_down) / share) as f32;
        }
        for (j, d) in SHIFTS.iter().enumerate() {
            bets.ln_norm[j] = self.ln_norm(d + t) - ln_up;
            bets.ln_norm[DOWN + j] = self.ln_norm(-(d + t)) - ln_down;
        }
        bets.tails_from = self.bins;
        for (j, (from, stretch)) in TAILS.iter().enumerate() {
            let tail = self.stretched(&edges, *from, *stretch);
            // Divided by the most that any edge of tolerance makes of it: what lies below the stretch may lose.
            let (mut low, mut middle, mut high) = (0.0, 0.0, 0.0);
            for (b, (l, up)) in tail.iter().zip(&at_edge).enumerate().take(self.bins) {
                let ratio = exp(f64::from(*l));
                low += 0.5 / f64::from(bets.down[b]) * ratio;
                middle += self.share(b) * ratio;
                high += up * ratio;
            }
            bets.tails_from = bets.tails_from.min(tail.iter().position(|l| *l != 0.0).unwrap_or(self.bins));
            bets.tails[j] = tail;
            bets.ln_norm[TAIL + j] = ln(high.max(middle).max(low));
        }
        self.bets = bets;
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

    /// Log-likelihood ratios of all alternatives against the predictive at the edge of tolerance.
    fn likelihoods(&mut self, seen: &Regrouped, dispersion: f64, injection: f64, tolerance: f64) -> [f64; ARMS] {
        if !self.bets.made {
            self.make_bets(tolerance);
        }
        let per = 1.0 / dispersion;
        let v = seen.n * per;
        let weight = (self.sum + 0.5 * self.bins as f64) * per;
        let per_weight = 1.0 / weight;
        // ln of Gamma(a + d) / Gamma(a) is d ln a, of which only tilts remain in the ratios, and a series in d / a.
        let (mut score, mut up, mut down, mut chi, mut error) = (0.0, 0.0, 0.0, 0.0, 0.0f64);
        let mut tails = [0.0; TAILS.len()];
        for b in 0..BINS_MAX {
            let d = seen.counts[b] * per;
            let (a, c) = (f64::from(self.bets.up[b]) * per_weight, f64::from(self.bets.down[b]) * per_weight);
            let (more, twice) = (d * (d - 1.0), (2.0 * d - 1.0) * (1.0 / 3.0));
            up += more * a * (1.0 - twice * a);
            down += more * c * (1.0 - twice * c);
            score += d * f64::from(self.scores.of_bin[b]);
            let most = d * a.max(c);
            chi += d * most;
            error = error.max(d * most * most * most);
        }
        for (sum, tail) in tails.iter_mut().zip(&self.bets.tails) {
            *sum = seen.counts.iter().zip(tail).skip(self.bets.tails_from).map(|(c, l)| c * f64::from(*l)).sum();
        }
        let all = v * 0.5 * per_weight;
        if error.max(v * all * all * all) * 8.0 < SERIES_ERROR_MAX * 12.0 {
            let series = (v - 1.0) * all * (1.0 - (2.0 * v - 1.0) * per_weight / 6.0);
            up -= series;
            down -= series;
        } else {
            (up, down) = self.risen(seen, per, weight);
        }
        let mut l = [0.0; ARMS];
        for (j, d) in SHIFTS.iter().enumerate() {
            l[j] = d * score - v * self.bets.ln_norm[j] - up;
            l[DOWN + j] = -d * score - v * self.bets.ln_norm[DOWN + j] - down;
        }
        for (j, sum) in tails.iter().enumerate() {
            l[TAIL + j] = sum * per - v * self.bets.ln_norm[TAIL + j] - up;
        }
        // In a pane like all others the bets on anything only lose: they are let go, unless they hold something.
        let strange = 2.0 * weight * chi > v * v + STRANGE * self.bins as f64 * v;
        let holds = self.evidence.of(KNOWN).max(self.evidence.of(KNOWN + 1)) > injection;
        (l[KNOWN], l[KNOWN + 1]) = if strange || holds {
            // Against the shift within tolerance that explains the pane best: the far edge would make evidence from nothing.
            let nearest = (score / (v * self.scores.variance).max(1e-9)).clamp(-tolerance, tolerance);
            let over = self.anything(seen, per) - (nearest * score - v * self.ln_norm(nearest) + up.max(down));
            // It bets on the side to which the pane leans.
            if score > 0.0 { (over, over.min(-0.5)) } else { (over.min(-0.5), over) }
        } else {
            (LET_GO, LET_GO)
        };
        l
    }

    /// What evidence may be multiplied by before a pane of so many events.
    fn handed_out(&self, events: f64, injection: f64, tolerance: f64) -> f64 {
        let stakes: [f64; ARMS] = self.evidence.at_stake(0, &WEIGHTS, injection);
        let all: f64 = stakes.iter().sum();
        if !overshoot::worth_asking(all, events, self.sum / self.dispersion) {
            return 1.0;
        }
        let at_edge = |halves: &[f32; BINS_MAX]| -> [f64; BINS_MAX] { from_fn(|b| if b < self.bins { 0.5 / f64::from(halves[b]) } else { 0.0 }) };
        let (up, down, tails) = (&stakes[..DOWN], &stakes[DOWN..TAIL], &stakes[TAIL..KNOWN]);
        let tail = (0..TAILS.len()).fold(0, |best, j| if tails[j] > tails[best] { j } else { best });
        let (of_up, of_down): (f64, f64) = (up.iter().sum(), down.iter().sum());
        if of_up.max(of_down) >= tails[tail] {
            let scores = self.scores.of_bin.map(f64::from);
            let (tilts, stakes, law) =
                if of_up >= of_down { (SHIFTS, up, at_edge(&self.bets.up)) } else { (SHIFTS.map(|d| -d), down, at_edge(&self.bets.down)) };
            let others = all - of_up.max(of_down);
            overshoot::Family { tilts: &tilts, stakes, others }.lift_of_scores(events, &law[..self.bins], &scores[..self.bins])
        } else if tolerance > 0.0 {
            // Which law within tolerance a tail is judged by is another one for each.
            1.0
        } else {
            let scores = self.bets.tails[tail].map(f64::from);
            let law = at_edge(&self.bets.up);
            overshoot::Family { tilts: &[1.0], stakes: &tails[tail..=tail], others: all - tails[tail] }.lift_of_scores(
                events,
                &law[..self.bins],
                &scores[..self.bins],
            )
        }
    }

    /// What the series in `likelihoods` stands for, exactly: for young baselines and large panes.
    fn risen(&self, seen: &Regrouped, per: f64, weight: f64) -> (f64, f64) {
        let excess = |a: f64, d: f64| ln_rising(a, ln(a), d) - d * ln(a);
        let (mut up, mut down) = (0.0, 0.0);
        for b in 0..self.bins {
            if seen.counts[b] > 0.0 {
                let d = seen.counts[b] * per;
                up += excess(0.5 * weight / f64::from(self.bets.up[b]), d);
                down += excess(0.5 * weight / f64::from(self.bets.down[b]), d);
            }
        }
        let all = excess(weight, seen.n * per);
        (up - all, down - all)
    }

    /// Dirichlet(1/2) over the quiet shares.
    fn anything(&self, seen: &Regrouped, per: f64) -> f64 {
        let mut sum = 0.0;
        for b in 0..self.bins {
            if seen.counts[b] > 0.0 {
                let d = seen.counts[b] * per;
                sum += ln_rising_of_half(d) - d * ln(self.share(b));
            }
        }
        let half = 0.5 * self.bins as f64;
        sum - ln_rising(half, ln(half), seen.n * per)
    }

    fn learn(&mut self, pane: &[(u16, u32)], seen: &Regrouped, at_ms: i64, pane_ms: i64, tolerance: f64) {
        let fade = decay(pane_ms);
        let (mut score, mut tail, mut fixed) = (0.0, 0.0, 0.0);
        for b in 0..BINS_MAX {
            let c = seen.counts[b];
            self.counts[b] = self.counts[b] * fade + c;
            score += c * f64::from(self.scores.of_bin[b]);
            fixed += c * f64::from(self.hours.scale[b]);
            tail += if b >= self.scores.tail_from { c } else { 0.0 };
        }
        self.sum = self.sum * fade + seen.n;
        // What is learned at once, as a false alarm is, belongs to no one hour.
        if pane_ms > 0 {
            self.hours.levels.learn(fixed, seen.n);
        }
        // Beyond what is normal at this hour; which bins are the upper tenth may change with it.
        tail -= self.scores.tail_share * seen.n;
        let hours = &self.hours;
        if hours.come_again && pane_ms > 0 {
            // The course within the hour is no noise either.
            let moved = (hours.levels.at(at_ms + pane_ms / 2) - hours.middle) / hours.deviation;
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
                self.hours.scale[self.bins - 1] = self.hours.scale[last];
            }
            if self.hours.width > 0.0 {
                let (mean, variance) = self.moments();
                self.set_hour(mean, variance);
            }
            self.refresh(tolerance);
            for b in last + 1..self.bins {
                self.hours.scale[b] = self.hours.scale[last] + self.scores.of_bin[b] - self.scores.of_bin[last];
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
        // What was learned since the evidence began is given back.
        for row in self.trail.newest_first().take_while(|row| row.start_ms >= pointer_ms) {
            let n: f32 = row.sums[..BINS_MAX].iter().sum();
            let part = row.sums[BINS_MAX] / n.max(1.0);
            let mut fixed = 0.0;
            for (b, (have, c)) in self.counts.iter_mut().zip(&row.sums[..BINS_MAX]).enumerate() {
                *have = (*have - f64::from(c * part)).max(0.0);
                fixed += c * part * self.hours.scale[b];
            }
            self.hours.levels.give_back(row.start_ms.div_euclid(HOUR_MS), f64::from(fixed), f64::from(n * part));
        }
        self.sum = self.counts.iter().sum();
        if self.hours.width > 0.0 {
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
        let settled = tolerance - self.hours.width;
        let way = self.way(toward, shift, settled, n, at_ms);
        let seen = self.on_grid(&since, newest);
        self.calm();
        let frozen = Frozen { alarm_ms: at_ms, recovery: Mixture::new(RECOVERY_ARMS), way, before: change.before, told, seen, since: Vec::new() };
        self.frozen = Some(Box::new(frozen));
        (Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }, told)
    }

    /// Events and scores of a row of the trail, these as if it were of the present hour.
    fn score_of(&self, row: &Row) -> (f64, f64) {
        let counts = &row.sums[..BINS_MAX];
        let (mut n, mut score) = (0.0, 0.0);
        for (c, z) in counts.iter().zip(&self.scores.of_bin) {
            n += f64::from(*c);
            score += f64::from(c * z);
        }
        let levels = &self.hours.levels;
        let (then, now) = (row.start_ms.div_euclid(HOUR_MS), levels.hour());
        let moved = if self.hours.width > 0.0 && then != now { levels.level(then).middle - levels.level(now).middle } else { 0.0 };
        (n, score - n * moved)
    }

    /// Everything that came in from a time on, by whole rows.
    fn since(&self, start_ms: i64) -> Regrouped {
        let mut counts = [0.0; BINS_MAX];
        for row in self.trail.newest_first().take_while(|row| row.start_ms >= start_ms) {
            for (sum, c) in counts.iter_mut().zip(&row.sums[..BINS_MAX]) {
                *sum += f64::from(*c);
            }
        }
        Regrouped { counts, n: counts.iter().sum() }
    }

    /// The same on the grid: each bin's values spread evenly over some of its grid bins, those of open bins as in the newest pane.
    fn on_grid(&self, seen: &Regrouped, newest: &[(u16, u32)]) -> Vec<(u16, u32)> {
        const SPREAD: u32 = 8;
        let mut grid = Vec::new();
        let cuts = self.cuts();
        for (b, c) in seen.counts[..self.bins].iter().enumerate() {
            let c = c.round() as u32;
            let low = b.checked_sub(1).map(|i| cuts[i]);
            let mut places: Vec<u16> = match (low, cuts.get(b)) {
                (Some(low), Some(high)) => {
                    let width = u32::from(high.saturating_sub(low)).max(1);
                    let parts = SPREAD.min(width);
                    (1..=parts).map(|i| low.saturating_add((width * i / parts) as u16)).collect()
                }
                (Some(low), None) => newest.iter().map(|k| k.0).filter(|bin| *bin > low).collect(),
                (None, high) => newest.iter().map(|k| k.0).filter(|bin| high.is_none_or(|high| bin <= high)).collect(),
            };
            if places.is_empty() {
                places.push(low.map_or_else(|| cuts.first().copied().unwrap_or(0), |low| low.saturating_add(1)));
            }
            let parts = places.len() as u32;
            for (i, bin) in (0u32..).zip(&places) {
                let share = c / parts + u32::from(i < c % parts);
                if share > 0 {
                    add_counts(&mut grid, &[(*bin, share)], SINCE_BINS_MAX);
                }
            }
        }
        grid
    }

    /// When a shift began, and its 2.5, 50 and 97.5 % points.
    fn onset_of_shift(&self, up: bool, pointer_ms: i64, pane_ms: i64) -> (Onset, Option<[f64; 3]>) {
        let side = if up { 1.0 } else { -1.0 };
        let size = |place: f64| side * SIZE_MIN * (SIZE_MAX / SIZE_MIN).powf(place / SIZES as f64);
        let tilts: [(f64, f64); SIZES] = from_fn(|j| {
            let d = size(j as f64 + 0.5);
            (d, self.ln_norm(d))
        });
        let per = 1.0 / self.dispersion();
        let add = |row: &Row, nats: &mut [f64]| {
            let (n, score) = self.score_of(row);
            for (sum, (d, ln_norm)) in nats.iter_mut().zip(&tilts) {
                *sum += (d * score - n * ln_norm) * per;
            }
        };
        // A pane of which a part is changed is a mixture.
        let mut mixed = vec![[[0.0f32; BINS_MAX]; PARTS.len()]; SIZES];
        for ((d, ln_norm), tables) in tilts.iter().zip(&mut mixed) {
            for b in 0..self.bins {
                let ratio = exp(d * f64::from(self.scores.of_bin[b]) - ln_norm);
                for (table, part) in tables.iter_mut().zip(PARTS) {
                    table[b] = ln(1.0 - part + part * ratio) as f32;
                }
            }
        }
        let first = |row: &Row, nats: &mut [f64]| {
            for (sum, tables) in nats.iter_mut().zip(&mixed) {
                *sum += over_parts(from_fn(|part| per * f64::from(row.sums.iter().zip(&tables[part]).map(|(c, l)| c * l).sum::<f32>())));
            }
        };
        let (onset, weights) = self.trail.explain(SIZES, pointer_ms, pane_ms, add, first);
        (onset, Some([0.025, 0.5, 0.975].map(|level| size(place_of(&weights, level)))))
    }

    fn onset_of_tail(&self, pointer_ms: i64, pane_ms: i64) -> Onset {
        let edges = self.edges();
        let per = 1.0 / self.dispersion();
        let tables: Vec<([f32; BINS_MAX], f64)> = STRETCHED_FROM
            .iter()
            .flat_map(|from| STRETCHES.map(|stretch| self.stretched(&edges, *from, stretch)))
            .map(|table| {
                let norm: f64 = (0..self.bins).map(|b| self.share(b) * exp(f64::from(table[b]))).sum();
                (table, ln(norm))
            })
            .collect();
        let add = |row: &Row, nats: &mut [f64]| {
            let counts = &row.sums[..BINS_MAX];
            let n: f64 = counts.iter().map(|c| f64::from(*c)).sum();
            for (sum, (table, ln_norm)) in nats.iter_mut().zip(&tables) {
                let tail: f64 = counts.iter().zip(table).map(|(c, l)| f64::from(c * l)).sum();
                *sum += (tail - n * ln_norm) * per;
            }
        };
        let (onset, _) = self.trail.explain(tables.len(), pointer_ms, pane_ms, add, add);
        onset
    }

    /// The change of a quantile. A shift of moderate size is told by the baseline's own quantiles over all starts that it may have
    /// had; anything else by what came in since the likeliest start, its interval by the binomial law of ranks. What lies beyond all
    /// cuts is told by the newest pane alone, which has no part in what was before.
    fn change(&self, since: &Regrouped, told: Told, size: Option<[f64; 3]>, newest: &[(u16, u32)]) -> Change {
        let q = if told == Told::P95 { 0.95 } else { 0.5 };
        let before = self.quantile(q);
        let rank = |n: f64, deviations: f64| (q + deviations * (q * (1.0 - q) * self.dispersion() / n.max(1.0)).sqrt()).clamp(0.0, 1.0);
        let [low, after, high] = [-1.96, 0.0, 1.96].map(|deviations| self.quantile_of(&since.counts, rank(since.n, deviations)));
        if low.1 || after.1 || high.1 {
            let n = newest.iter().map(|k| f64::from(k.1)).sum();
            let [low, after, high] = [-1.96, 0.0, 1.96].map(|deviations| quantile_of(newest, rank(n, deviations)));
            return Change { before, after, low, high };
        }
        if let (Told::Median, Some(size)) = (told, size)
            && size.iter().all(|d| d.abs() <= SIZE_TOLD_MAX)
        {
            let [a, shifted, b] = size.map(|d| self.quantile(normal_cdf(d)));
            // Not when the median denies it: then it is another change than a shift.
            let [least, most] = [-4.0, 4.0].map(|deviations| self.quantile_of(&since.counts, rank(since.n, deviations)).0);
            if least <= shifted && shifted <= most {
                return Change { before, after: shifted, low: a.min(b), high: a.max(b) };
            }
        }
        Change { before, after: after.0, low: low.0, high: high.0 }
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
mod tests {
    use super::super::noise::Noise;
    use super::super::normal_quantile;
    use super::*;
    use crate::sketch::log_linear::bin_of;

    const PANE: i64 = 10_000;
    const B: f64 = 4e-9;

    fn pane(noise: &mut Noise, n: usize, value: &dyn Fn(f64) -> f64) -> Vec<(u16, u32)> {
        let mut bins: Vec<u16> = (0..n).map(|_| bin_of(value(noise.normal()))).collect();
        bins.sort_unstable();
        let mut out: Vec<(u16, u32)> = vec![];
        for b in bins {
            match out.last_mut() {
                Some(last) if last.0 == b => last.1 += 1,
                _ => out.push((b, 1)),
            }
        }
        out
    }

    fn run(bank: &mut BinsBank, noise: &mut Noise, t: &mut i64, value: &dyn Fn(f64) -> f64, injection: f64, panes: usize) -> (usize, Call) {
        for i in 1..=panes {
            let r = bank.judge(&pane(noise, 100, value), *t, PANE, injection);
            *t += PANE;
            if !matches!(r.call, Call::Quiet) {
                return (i, r.call);
            }
        }
        (panes, Call::Quiet)
    }

    #[test]
    fn near_the_threshold_evidence_is_multiplied_by_what_it_would_waste() {
        let mut seen = 0;
        for seed in 91..97 {
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.0 });
            let mut noise = Noise::new(seed);
            for i in 0..20_000 {
                bank.judge(&pane(&mut noise, 10, &|z| z), i * PANE, PANE, 0.0);
            }
            for i in 20_000.. {
                let shifted = pane(&mut noise, 10, &|z| z + 0.1);
                let mut plain = bank.clone();
                // As if nothing had been gathered yet.
                plain.log_evidence = NO_EVIDENCE;
                let (far, armed) = (bank.threshold - bank.log_evidence, bank.armed.as_ref().expect("it has learned"));
                let handed_out = if armed.bets.made { armed.handed_out(10.0 / armed.dispersion, 1e-5, 0.0) } else { 1.0 };
                let lift = if far > 3.9 { 1.0 } else { overshoot::tempered(handed_out, nats_per_pane_max(armed.dispersion)) };
                let (lifted, plain) = (bank.judge(&shifted, i * PANE, PANE, 1e-5), plain.judge(&shifted, i * PANE, PANE, 1e-5));
                let more = lifted.log_evidence - plain.log_evidence;
                assert!((0.0..0.7).contains(&more) && (more - lift.ln()).abs() < 1e-3, "{more} more, {lift}");
                seen += usize::from(more > 0.02);
                if matches!(lifted.call, Call::Alarm { .. }) {
                    break;
                }
            }
        }
        assert!(seen > 5, "{seen}");
    }

    #[test]
    fn without_tolerance_no_more_than_promised_is_used() {
        let used = overshoot::promise::used(8, 20_000, 120_000, |seed| {
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.0 });
            let mut noise = Noise::new(7_300 + seed);
            move |i, spent| {
                let alarmed = matches!(bank.judge(&pane(&mut noise, 10, &|z| z), i * PANE, PANE, spent).call, Call::Alarm { .. });
                if alarmed {
                    bank.release(Release::Fixed);
                }
                alarmed
            }
        });
        assert!((0.4..1.1).contains(&used), "{used} of the promise used");
    }

    #[test]
    fn what_is_gathered_is_what_was_added_however_much_it_is() {
        let mut gathered = Gathered::default();
        let mut truth = std::collections::BTreeMap::<u16, u32>::new();
        for n in 0..3_000u32 {
            let pane = [((n * 7 % 90) as u16, 1 + n % 3), (200, 70_000), (201, u32::from(u16::MAX))];
            gathered.add(&pane);
            pane.iter().for_each(|(bin, count)| *truth.entry(*bin).or_default() += count);
        }
        assert_eq!(gathered.grid(), truth.clone().into_iter().collect::<Vec<_>>());
        gathered.put_in_order();
        assert_eq!(gathered.grid(), truth.into_iter().collect::<Vec<_>>());
        assert!(gathered.0.len() < 90 + 2 * 3_300 && gathered.0.is_sorted_by_key(|e| e.0));
    }

    #[test]
    fn quiet_values_of_any_shape_stay_within_the_budget() {
        let laws: [&dyn Fn(f64) -> f64; 4] = [&|z| (6.0 + 0.6 * z).exp(), &|z| z, &|z| (3.0 * z).round(), &|z| (0.86 + 0.08 * z).min(1.0)];
        let mut pages = 0;
        let mut noise = Noise::new(1);
        for law in laws {
            for _ in 0..8 {
                let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
                let mut t = 0;
                let (_, call) = run(&mut bank, &mut noise, &mut t, law, 10.0 / (32.0 * 1_000.0), 1_000);
                assert_ne!(bank.state(), State::Warming);
                pages += usize::from(matches!(call, Call::Alarm { .. }));
            }
        }
        assert!(pages <= 10, "{pages} of 10");
    }

    /// Laws of few values and many, each value with its part: what counts, flags and rounded numbers look like.
    fn discrete_laws() -> Vec<(&'static str, Vec<(f64, f64)>)> {
        let normal = |z: f64| (-0.5 * z * z).exp();
        vec![
            ("four values", vec![(0.0, 0.82), (1.0, 0.12), (2.0, 0.04), (3.0, 0.02)]),
            ("a constant and 1 % above", vec![(7.0, 0.99), (9.0, 0.01)]),
            ("a constant and 1 % below", vec![(5.0, 0.01), (7.0, 0.99)]),
            ("a coin", vec![(0.0, 0.5), (1.0, 0.5)]),
            ("integers", (0..=10).map(|i| (f64::from(i), 1.0)).collect()),
            ("geometric", (0..40).map(|i| (f64::from(i), 0.6f64.powi(i))).collect()),
            ("rounded lognormal", (1..=80).map(|i| (f64::from(i), normal((f64::from(i).ln() - 1.5) / 0.8) / f64::from(i))).collect()),
        ]
    }

    /// Values that tie make bins that no cut of the alternatives falls between. Baselines are learned from nothing, by a bank that may
    /// page from its first pane on.
    #[test]
    fn quiet_values_that_tie_stay_within_the_budget_from_the_first_pane_on() {
        let laws = discrete_laws();
        for tolerance_sigma in [0.1, 0.0] {
            let (mut pages, mut promised) = (0, 0);
            for n in [1u32, 40, 800, 5_000] {
                let panes = if n == 1 { 3_000 } else { 300 };
                for (name, law) in &laws {
                    let (values, parts): (Vec<u16>, Vec<f64>) = law.iter().map(|(v, p)| (bin_of(*v), *p)).unzip();
                    promised += 1;
                    for k in 0..2 {
                        let mut noise = Noise::new(31 + k);
                        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma });
                        for i in 0..panes {
                            let drawn = values.iter().copied().zip(noise.multinomial(n, &parts)).filter(|k| k.1 > 0);
                            let r = bank.judge(&drawn.collect::<Vec<_>>(), i * 2_000, 2_000, 1.0 / (2 * panes) as f64);
                            if matches!(r.call, Call::Alarm { .. }) {
                                pages += 1;
                                bank.start_live();
                            }
                        }
                        assert!(tolerance_sigma <= 0.0 || bank.climb.stretch() == 1, "{name} {n}");
                        assert_ne!(bank.state(), State::Warming, "{name} {n}");
                    }
                }
            }
            assert!(pages <= promised, "tolerance {tolerance_sigma}: {pages} of {promised}");
        }
    }

    /// A bet on one event makes no more than 1 on the average under any shift within tolerance, whatever bins the values make. To one
    /// event the predictive adds nothing.
    #[test]
    fn every_alternative_is_divided_by_at_least_its_mean() {
        for tolerance in [0.1, 0.0] {
            let smooth: Vec<(f64, f64)> = (0..4_000).map(|i| (normal_quantile((f64::from(i) + 0.5) / 4_000.0), 1.0)).collect();
            for (name, law) in discrete_laws().into_iter().chain([("normal", smooth)]) {
                let all: f64 = law.iter().map(|k| k.1).sum();
                let mut grid: Vec<(u16, u32)> = law.iter().map(|(v, p)| (bin_of(*v), (p / all * 1e6) as u32)).collect();
                once_each(&mut grid, u32::saturating_add);
                let total = grid.iter().map(|k| f64::from(k.1)).sum();
                let mut armed = Armed::from_grid(&grid, total, tolerance).expect("there are values");
                let bins = armed.bins;
                for share in [-1.0, -0.5, 0.0, 0.5, 1.0] {
                    let tilt = share * tolerance;
                    let mut means = [0.0; KNOWN];
                    for b in 0..bins {
                        let mut one = Regrouped { counts: [0.0; BINS_MAX], n: 1.0 };
                        one.counts[b] = 1.0;
                        let l = armed.likelihoods(&one, 1.0, B, tolerance);
                        let p = armed.share(b) * (tilt * f64::from(armed.scores.of_bin[b]) - armed.ln_norm(tilt)).exp();
                        means.iter_mut().zip(l).for_each(|(mean, l)| *mean += p * l.exp());
                    }
                    for (arm, mean) in means.iter().enumerate() {
                        assert!(*mean < 1.0 + 1e-5, "{name}: alternative {arm} makes {mean} of 1 at {tilt}");
                    }
                }
            }
        }
    }

    #[test]
    fn shifts_and_tails_are_found_told_and_recover() {
        let usual: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp();
        let slow: &dyn Fn(f64) -> f64 = &|z| 1.6 * (6.0 + 0.6 * z).exp();
        let tail: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp() * if z > 1.2816 { 3.0 } else { 1.0 };
        let huge: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * (z + 6.0)).exp();
        for (fault, panes_max, told) in [(slow, 20, Told::Median), (tail, 30, Told::P95), (huge, 10, Told::Median)] {
            let mut noise = Noise::new(2);
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
            let mut t = 0;
            assert_eq!(run(&mut bank, &mut noise, &mut t, usual, B, 400).1, Call::Quiet);
            for _ in 0..2 {
                let (panes, call) = run(&mut bank, &mut noise, &mut t, fault, B, 60);
                let Call::Alarm { change, .. } = call else { panic!("{call:?}") };
                assert!(panes <= panes_max, "{panes} > {panes_max}");
                assert!(change.after > 1.3 * change.before, "{change:?}");
                assert_eq!(bank.told(), told);
                assert_eq!(run(&mut bank, &mut noise, &mut t, fault, B, 500).1, Call::Quiet, "no recovery while it lasts");
                let (panes, call) = run(&mut bank, &mut noise, &mut t, usual, B, 300);
                assert!(matches!(call, Call::Recovered { .. }), "{call:?}");
                assert!(panes < 100, "{panes}");
                assert_eq!(run(&mut bank, &mut noise, &mut t, usual, B, 500).1, Call::Quiet);
            }
        }
    }

    /// A course of the day three times as high as the tolerance, or just within it, is learned in one day, and a fault in it is found, dated and
    /// repaired; half of it is no repair. The incident lasts over a turn of the hour. At the trough, where a rise must pass the level of all hours while little is known,
    /// forty panes were seen not to be enough: that hour is not among these.
    #[test]
    fn a_daily_course_is_normal_and_faults_are_found_in_it() {
        const MINUTE: i64 = 60_000;
        for (hour, swing) in [(0, 0.3), (6, 0.3), (13, 0.3), (6, 0.09), (18, 0.09)] {
            let mut noise = Noise::new(70 + hour);
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
            let mut t = 0;
            let mut feed = |bank: &mut BinsBank, t: &mut i64, shift: f64, injection: f64| {
                let level = shift + swing * (*t as f64 / 86_400_000.0 * std::f64::consts::TAU).sin();
                *t += MINUTE;
                bank.judge(&pane(&mut noise, 100, &|z| (6.0 + 0.6 * (z + level)).exp()), *t - MINUTE, MINUTE, injection).call
            };
            for _ in 0..1_440 {
                feed(&mut bank, &mut t, 0.0, 0.0);
            }
            bank.start_live();
            for _ in 0..2 * 1_440 + 60 * hour {
                assert_eq!(feed(&mut bank, &mut t, 0.0, B), Call::Quiet, "{hour}: minute {}", t / MINUTE);
            }
            let began = t;
            let call = (0..40).map(|_| feed(&mut bank, &mut t, 0.5, B)).find(|call| matches!(call, Call::Alarm { .. }));
            let Some(Call::Alarm { change, onset }) = call else { panic!("{hour}: {call:?}") };
            println!("{hour}: {} minutes, {change:?}, onset off by {} s", (t - began) / MINUTE, (onset.at_ms - began) / 1_000);
            assert!((onset.at_ms - began).abs() <= 30 * MINUTE, "{hour}: {onset:?} of {began}");
            let usual = (6.0 + 0.6 * swing * (began as f64 / 86_400_000.0 * std::f64::consts::TAU).sin()).exp();
            assert!((change.before / usual).ln().abs() < 0.08, "{hour}: {} of {usual}", change.before);
            for _ in 0..90 {
                assert_eq!(feed(&mut bank, &mut t, 0.5, B), Call::Quiet, "{hour}: no recovery while it lasts");
            }
            let (mut half, mut later) = (bank.clone(), t);
            for minute in 0..1_440 {
                assert_eq!(feed(&mut half, &mut later, 0.25, B), Call::Quiet, "{hour}: half of it lasts, minute {minute}");
            }
            let back = (1..=60).find(|_| matches!(feed(&mut bank, &mut t, 0.0, B), Call::Recovered { .. }));
            println!("{hour}, {swing}: back after {back:?}");
            assert!(back.is_some(), "{hour}");
        }
    }

    /// A young baseline took it for a course of the day: of a thousand such series nine did not page, three of these among them.
    #[test]
    fn a_small_rise_in_the_sixth_hour_is_no_course_of_the_day() {
        for seed in 160..300 {
            let mut noise = Noise::new(9_000 + seed);
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.0 });
            let mut t = 0;
            let mut found = false;
            for i in 0..3_500 {
                let shift = if i < 2_000 { 0.0 } else { 0.1 };
                let injection = if i < 1_000 { 0.0 } else { 1e-5 };
                let call = bank.judge(&pane(&mut noise, 10, &|z| (6.0 + 0.6 * (z + shift)).exp()), t, PANE, injection).call;
                t += PANE;
                if matches!(call, Call::Alarm { .. }) {
                    // One that came too early is a false alarm, of which one in a hundred is promised.
                    found = true;
                    break;
                }
            }
            assert!(found, "{seed}");
        }
    }

    #[test]
    fn a_drop_of_a_bounded_score_is_found() {
        let mut noise = Noise::new(4);
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
        let mut t = 0;
        assert_eq!(run(&mut bank, &mut noise, &mut t, &|z| (0.86 + 0.08 * z).min(1.0), B, 400).1, Call::Quiet);
        let (panes, call) = run(&mut bank, &mut noise, &mut t, &|z| (0.78 + 0.08 * z).min(1.0), B, 60);
        let Call::Alarm { change, .. } = call else { panic!("{call:?}") };
        assert!(panes <= 12 && (0.75..0.81).contains(&change.after) && (0.84..0.88).contains(&change.before), "{panes} {change:?}");
    }

    #[test]
    fn a_series_that_never_varied_sees_a_change() {
        let mut noise = Noise::new(4);
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
        let mut t = 0;
        assert_eq!(run(&mut bank, &mut noise, &mut t, &|_| 1.0, B, 400).1, Call::Quiet);
        assert!(matches!(run(&mut bank, &mut noise, &mut t, &|_| 2.0, B, 60).1, Call::Alarm { .. }));
    }

    /// Panes of two seconds with 100 to 300 events, half an hour of baseline: what a demo shows.
    #[test]
    fn short_panes_page_within_half_a_minute_and_recover_within_two() {
        let latency: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp();
        let tail: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp() * if z > 1.2816 { 3.0 } else { 1.0 };
        let tokens: &dyn Fn(f64) -> f64 = &|z| (5.0 + 0.8 * z).exp().round();
        let more: &dyn Fn(f64) -> f64 = &|z| (1.6 * (5.0 + 0.8 * z).exp()).round();
        let score: &dyn Fn(f64) -> f64 = &|z| (0.86 + 0.08 * z).clamp(0.0, 1.0);
        let worse: &dyn Fn(f64) -> f64 = &|z| (0.78 + 0.08 * z).clamp(0.0, 1.0);
        for (name, usual, fault) in [("latency tail", latency, tail), ("tokens", tokens, more), ("score", score, worse)] {
            let mut pages = Vec::new();
            for seed in 0..3 {
                let mut noise = Noise::new(400 + seed);
                let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
                let mut t = 0;
                let mut feed = |bank: &mut BinsBank, law: &dyn Fn(f64) -> f64, seconds: usize| -> (usize, Call) {
                    for i in 1..=seconds / 2 {
                        let n = 100 + (noise.unit() * 200.0) as usize;
                        let r = bank.judge(&pane(&mut noise, n, law), t, 2_000, 1e-8);
                        t += 2_000;
                        if !matches!(r.call, Call::Quiet) {
                            return (2 * i, r.call);
                        }
                    }
                    (seconds, Call::Quiet)
                };
                assert_eq!(feed(&mut bank, usual, 1_800).1, Call::Quiet);
                assert_eq!(bank.state(), State::Armed);
                assert_eq!(feed(&mut bank, usual, 7_200).1, Call::Quiet, "{name}: two quiet hours");
                for _ in 0..2 {
                    let (found, call) = feed(&mut bank, fault, 60);
                    assert!(matches!(call, Call::Alarm { .. }) && found <= 30, "{name}: {found} s, {call:?}");
                    feed(&mut bank, fault, 120);
                    let (back, call) = feed(&mut bank, usual, 600);
                    assert!(matches!(call, Call::Recovered { .. }) && back <= 120, "{name}: {back} s, {call:?}");
                    pages.push((found, back));
                }
            }
            println!("{name}: (seconds to page, to recover) {pages:?}");
        }
    }

    /// From baselines of no events at all (the bank arms itself on what comes) to panes of 100,000: a pane of the cap's nats is enough.
    #[test]
    fn a_huge_fault_is_found_in_the_least_panes_the_cap_allows() {
        // Nats to the threshold of the alternative that reaches anything, at 3 nats a pane.
        let least = ((1.0f64 / (B * WEIGHTS[KNOWN])).ln() / 3.0).ceil() as usize;
        for n in [1usize, 10, 100, 1_000, 100_000] {
            let merged = (MERGE_EVENTS as usize).div_ceil(n);
            // The law on the grid, by its quantiles; large panes are drawn bin by bin.
            let on_grid = |shift: f64| -> Vec<(u16, u32)> {
                let mut out: Vec<(u16, u32)> =
                    (0..20_000).map(|i| (bin_of((6.0 + 0.6 * (normal_quantile((f64::from(i) + 0.5) / 20_000.0) + shift)).exp()), 1)).collect();
                once_each(&mut out, u32::saturating_add);
                out
            };
            let draw = |noise: &mut Noise, shift: f64, law: &[(u16, u32)]| -> Vec<(u16, u32)> {
                if n <= 1_000 {
                    return pane(noise, n, &|z| (6.0 + 0.6 * (z + shift)).exp());
                }
                let all = law.iter().map(|(bin, c)| (*bin, noise.poisson(f64::from(*c) * n as f64 / 20_000.0) as u32));
                all.filter(|k| k.1 > 0).collect()
            };
            let usual = on_grid(0.0);
            for sigma in [3.0, 6.0, -6.0] {
                let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
                let mut noise = Noise::new(n as u64);
                let mut t = 0;
                let mut quiet = 0;
                while bank.state() != State::Armed || quiet < 20 {
                    let call = bank.judge(&draw(&mut noise, 0.0, &usual), t, PANE, B).call;
                    assert_eq!(call, Call::Quiet, "{n}");
                    t += PANE;
                    quiet += usize::from(bank.state() == State::Armed);
                }
                let (fault, mut found) = (on_grid(sigma), None);
                for i in 1..=60 * merged {
                    let call = bank.judge(&draw(&mut noise, sigma, &fault), t, PANE, B).call;
                    t += PANE;
                    if matches!(call, Call::Alarm { .. }) {
                        found = Some(i);
                        break;
                    }
                }
                let found = found.unwrap_or(usize::MAX);
                // Panes of one event wait for ten of them, and a pane that began before the fault is not counted as one of it.
                assert!(found <= (least + 1) * merged, "{n} {sigma}: {found} panes of {least}");
            }
        }
    }

    #[test]
    fn the_series_of_the_predictive_agrees_with_the_exact_one() {
        for tolerance in [0.0, 0.1] {
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: tolerance });
            let mut noise = Noise::new(9);
            let mut t = 0;
            run(&mut bank, &mut noise, &mut t, &|z| z, 0.0, 600);
            let armed = bank.armed.as_mut().expect("60,000 values arm it");
            armed.make_bets(tolerance);
            for n in [10, 100, 3_000] {
                let seen = armed.regroup(&pane(&mut noise, n, &|z| z + 0.3));
                let l = armed.likelihoods(&seen, 1.0, B, tolerance);
                let weight = armed.sum + 0.5 * armed.bins as f64;
                let (up, down) = armed.risen(&seen, 1.0, weight);
                let score: f64 = seen.counts.iter().zip(&armed.scores.of_bin).map(|(c, z)| c * f64::from(*z)).sum();
                let long_up = 0.2 * score - seen.n * (armed.ln_norm(0.2 + tolerance) - armed.ln_norm(tolerance)) - up;
                let long_down = -0.2 * score - seen.n * (armed.ln_norm(-0.2 - tolerance) - armed.ln_norm(-tolerance)) - down;
                assert!((l[1] - long_up).abs() < 0.03, "{n}: {} {long_up}", l[1]);
                assert!((l[DOWN + 1] - long_down).abs() < 0.03, "{n}: {} {long_down}", l[DOWN + 1]);
            }
        }
    }

    /// The naive twin: Dirichlet-multinomial by gamma functions, alternatives by their probabilities.
    #[test]
    fn likelihoods_agree_with_the_formula_written_out() {
        use super::super::ln_gamma;
        let tolerance = 0.1;
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: tolerance });
        let mut noise = Noise::new(10);
        let mut t = 0;
        run(&mut bank, &mut noise, &mut t, &|z| (6.0 + 0.6 * z).exp(), 0.0, 600);
        let armed = bank.armed.as_mut().expect("60,000 values arm it");
        armed.make_bets(tolerance);
        let bins = armed.bins;
        let shares: Vec<f64> = (0..bins).map(|b| armed.share(b)).collect();
        let scores: Vec<f64> = armed.scores.of_bin[..bins].iter().map(|z| f64::from(*z)).collect();
        let tilted = |d: f64| -> Vec<f64> {
            let raw: Vec<f64> = shares.iter().zip(&scores).map(|(p, z)| p * (d * z).exp()).collect();
            let norm: f64 = raw.iter().sum();
            raw.iter().map(|r| r / norm).collect()
        };
        let weight = armed.sum + 0.5 * bins as f64;
        for f in [1.0, 1.7] {
            let seen = armed.regroup(&pane(&mut noise, 200, &|z| (6.0 + 0.6 * (z + 0.2)).exp()));
            let l = armed.likelihoods(&seen, f, B, tolerance);
            let predictive = |null: &[f64]| -> f64 {
                let one: f64 = null.iter().zip(&seen.counts).map(|(p, c)| ln_gamma(p * weight / f + c / f) - ln_gamma(p * weight / f)).sum();
                one - ln_gamma((weight + seen.n) / f) + ln_gamma(weight / f)
            };
            for (arm, d) in [(0, 0.1), (3, 0.8), (DOWN, -0.1), (DOWN + 4, -1.6)] {
                let edge = if d > 0.0 { tolerance } else { -tolerance };
                let bet: f64 = tilted(d + edge).iter().zip(&seen.counts).map(|(q, c)| c / f * q.ln()).sum();
                let long = bet - predictive(&tilted(edge));
                assert!((l[arm] - long).abs() < 0.02, "{d} at {f}: {} {long}", l[arm]);
            }
        }
    }

    #[test]
    fn the_quick_quantile_is_one() {
        for i in 1..2_000 {
            let p = f64::from(i) / 2_000.0;
            assert!((quick_quantile(p) - normal_quantile(p)).abs() < 1e-6, "{p}");
        }
        for p in [1e-12, 1e-7, 1e-4] {
            assert!((quick_quantile(p) - normal_quantile(p)).abs() < 1e-5, "{p}");
        }
    }
}
