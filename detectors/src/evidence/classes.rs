//! Classes: predicted labels, categorical features, languages, finish reasons.
//!
//! **Idea.** The baseline's at most 32 most frequent classes and one more for all others are the bins. **Formula.** For a class of
//! quiet share p the predictive of "this class against the rest" is beta-binomial (the Dirichlet-multinomial, added up), moved to
//! the edge of tolerance p (1 + t) or p / (1 + t); the bets are odds of 1.5, 2.5, 6 and .33 on that class beyond the edge. One more
//! bet reaches everything: Dirichlet(1/2) against the Dirichlet-multinomial of whatever lies within tolerance and explains the pane
//! best. The sixteen most frequent classes have a level by hour of the day as far as the hours are seen to differ. **Sees** a share that moves beyond its tolerance, classes that vanish, and classes never seen before (in the rest, and by
//! name with `is_known`); does not see which inputs moved with them, nor moves of less than half a percentage point. **Knob.**
//! `tolerance` is relative and per class: 0.2 forgives 5 % -> 6 %. **False alarms**: as for rates; panes that resemble each other are held by one ladder for each of the sixteen most
//! frequent classes, measured below.

use serde::{Deserialize, Serialize};

use super::climb::{BARE, Climb};
use super::levels::{Course, HOUR_SHARE_MIN, HOURLY_PANES, Level, Levels};
use super::trail::{Rates, Row, Rows};
use super::{
    Band, Ladder, Mixture, Sees, apart, decay, excess_rising, ln, ln_rising, ln_rising_of_half, nats, nats_per_pane_max, overshoot,
    recovery_injection, stops_learning_at,
};
use crate::ahead::{Ahead, ask_for, ask_for_first};
use crate::verdict::{Call, Change, Reading, Release, State};

/// Classes that are told apart; all others are one.
pub const CLASSES_MAX: usize = 32;
/// Classes remembered by name. Beyond, every class counts as known.
pub const KNOWN_MAX: usize = 10_000;
/// A class first met after arming is known once it has lasted so long.
const NEWCOMER_MS: i64 = 7 * 86_400_000;
const NEWCOMERS_MAX: usize = 256;
const SLOTS_MAX: usize = CLASSES_MAX + 1;
const ODDS: [f64; 4] = [1.5, 2.5, 6.0, 0.33];
const LN_ODDS: [f64; ODDS.len()] = [0.405_465_108_108_164_4, 0.916_290_731_874_155, 1.791_759_469_228_055, -1.108_662_624_521_611_5];
/// Parts of the injection per bet on a class, all classes alike; what is left is for the bet on anything.
const WEIGHTS: [f64; ODDS.len()] = [0.33, 0.37, 0.13, 0.13];
const WEIGHT_OF_ANYTHING: f64 = 0.04;
/// The bets from here on are on a fall.
const FALLS: usize = 3;
/// Quiet events, as many as panes of independent ones would have, that a class must have at its lower edge before a fall of it is bet on. The
/// most that its absence could ever say is .44 nats each (ln 3 - 2/3), so fewer reach no threshold; and of a few, parts of events make evidence from nothing.
const FALL_EVENTS_MIN: f64 = 20.0;
/// Classes with a ladder and a course of the day of their own; the rest take the noisiest ladder. Of eight, a class that doubles by day was
/// the ninth when it was met at its trough, and paged day after day.
const LADDERS: usize = 16;
const NOISE_LAG: usize = 12;
/// Panes of which the noise must be known before the first bet.
const NOISE_PANES_MIN: u32 = 24;
/// The noise is asked for after so many panes.
const DISPERSION_PANES: u32 = 32;
/// Standard errors of a level of the ladders that are not believed: of 160 noisy levels the largest counts, and four would be beyond two.
const DOUBT: f64 = 3.0;
/// Bets are made anew after so many panes, or when the baseline has grown by this part.
const REFRESH_PANES: u8 = 32;
const REFRESH_GROWTH: f64 = 1.0 / 128.0;
/// The series of the predictive is used while the first term left out is below this, in units of 12 nats.
const SERIES_ERROR_MAX: f64 = 0.02;
/// A pane is strange, and the bet on anything is looked at, from this chi-squared per class on.
const STRANGE: f64 = 4.0;
/// What that bet gains in a pane in which it is not looked at: its evidence is given up.
const LET_GO: f64 = -50.0;
const MERGE_EVENTS: f64 = 10.0;
const MERGE_MS: i64 = 600_000;
const HOUR_MS: i64 = 3_600_000;
const STARVED_EVENTS_PER_HOUR: f64 = 5.0;
const RECOVERY_ARMS: usize = 3;
/// Recovery must refute a share that is still this factor away, or half way to the incident if that is nearer.
const RECOVERY_FACTOR_MAX: f64 = 1.5;
/// Absolute change of a share that is forgiven and, at the alarm's end, what recovery need not refute: a class of one in a
/// hundred thousand that triples is no incident, and its return could never be shown.
const AT_LEAST: f64 = 0.005;
/// The share for which a doubling must be visible before the bank is armed.
const ARMING_SHARE: f64 = 0.05;

/// What is asked for of the names of a bank that is warming: they may be ten thousand, and a pane brings few.
const WARMING_BYTES_MAX: usize = 1_024;
/// What evidence is gathered with while nothing may be paged: only its climbs are looked at, and those do not depend on it.
const SHADOW_INJECTION: f64 = 1e-9;
/// Evidence in nats below which readings do not go.
const NO_EVIDENCE: f64 = -50.0;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassSettings {
    /// Relative change of a class's share that is forgiven.
    pub tolerance: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassBank {
    settings: ClassSettings,
    /// Classes met in quiet times with their counts while warming (0 afterwards), sorted by class.
    known: Vec<(u16, f64)>,
    /// Classes first met after arming, and when.
    newcomers: Vec<(u16, i64)>,
    total: f64,
    slots: Option<Slots>,
    armed: bool,
    pending: Option<(Vec<(u16, u32)>, i64, f64)>,
    /// End of the hour that is counted, and its events.
    hour_end_ms: i64,
    hour_events: f64,
    starved: bool,
    told: Option<u16>,
    /// The last injection and its threshold in nats, and the evidence in nats: what most readings repeat.
    injection: f64,
    threshold: f64,
    log_evidence: f64,
    climb: Climb,
    /// The evidence was gathered while nothing might be paged, and is forgotten when something may.
    shadow: bool,
}

/// The classes told apart, from the middle of warming on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Slots {
    /// Most frequent first; the slot after the last is the rest.
    classes: Vec<u16>,
    of: Vec<Slot>,
    sum: f64,
    /// Panes until the bets are made anew; 0 is stale. And the weight of the baseline at which that is due earlier.
    panes: u8,
    refresh_at: f64,
    ladders: Vec<Ladder>,
    /// The hours of the day of the classes with a ladder, what is normal in this hour, and their courses within it where hours come again.
    hours: Vec<Levels>,
    levels: [Level; LADDERS],
    courses: [Option<Course>; LADDERS],
    /// How much noisier panes are than independent events, per ladder and at most, as of some panes ago.
    dispersions: [f32; LADDERS],
    dispersion: f64,
    lagged: Lag,
    evidence: Mixture,
    /// Counts per slot and, last, the events of a row that were learned: what is given back at an alarm, and the size of the change.
    trail: Rows,
    held_since_ms: Option<i64>,
    frozen: Option<Frozen>,
}

/// A class's quiet count, and its bets as of the last refresh. A bet of odds r on a share p is a tilt: e hits of v events make
/// e ln r - v ln(1 - p + p r), whatever p was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Slot {
    count: f64,
    ln_norm: [f64; ODDS.len()],
    /// Half the reciprocals of the shares of hits and misses, at the upper edge of tolerance and at the lower one. A `low` of 0 is too
    /// rare to fall by anything that matters.
    high: [f32; 2],
    low: [f32; 2],
}

/// Panes that wait to tell how noisy the classes are, in a ring: counts of the classes with a ladder, and of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Lag {
    panes: [[f32; LADDERS + 1]; NOISE_LAG],
    oldest: u8,
    count: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    alarm_ms: i64,
    recovery: Mixture,
    /// Logarithms of what "still moved", which recovery refutes, makes of the slots' shares; 0 for those that had not moved.
    half_way: Vec<f64>,
    /// The slot that the incident is told by, and its quiet share.
    slot: usize,
    before: f64,
    /// Seen since the onset by class (at most `KNOWN_MAX`), and per slot since the recovery test began to speak.
    seen: Vec<(u16, u32)>,
    since: Vec<f64>,
}

// === impl ClassBank ===

impl Ahead for ClassBank {
    #[inline]
    fn ask_for_own(&self) {
        ask_for(self);
    }

    #[inline]
    fn ask_for_state(&self) {
        match &self.slots {
            Some(slots) => {
                ask_for(&*slots.classes);
                ask_for(&*slots.of);
                slots.evidence.ask_for();
                slots.trail.ask_for_end();
            }
            None => ask_for_first(&*self.known, WARMING_BYTES_MAX),
        }
    }

    #[inline]
    fn ask_for_trail(&self) {
        if let Some(slots) = &self.slots {
            ask_for(&*slots.ladders);
        }
    }
}

impl ClassBank {
    pub fn new(settings: ClassSettings) -> ClassBank {
        ClassBank {
            settings,
            known: Vec::new(),
            newcomers: Vec::new(),
            total: 0.0,
            slots: None,
            armed: false,
            pending: None,
            hour_end_ms: i64::MIN,
            hour_events: 0.0,
            starved: false,
            told: None,
            injection: 0.0,
            threshold: f64::INFINITY,
            log_evidence: NO_EVIDENCE,
            climb: Climb::default(),
            shadow: false,
        }
    }

    /// The class that the last change was told by; `None` is the rest.
    pub fn told(&self) -> Option<u16> {
        self.told
    }

    /// Has this class been met in quiet times? Everything is known until the bank is armed, and when it knows too many to tell.
    pub fn is_known(&self, class: u16) -> bool {
        !self.armed || self.known.len() >= KNOWN_MAX || self.known.binary_search_by_key(&class, |k| k.0).is_ok()
    }

    /// Judges first, learns after. `pane`: counts per class, in any order, each class once.
    pub fn judge(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let n: f64 = pane.iter().map(|(_, c)| f64::from(*c)).sum();
        self.count_hour(n, at_ms);
        // Sparse panes are merged, decided on the number of events and the time alone.
        if let Some((mut held, start, spent)) = self.pending.take() {
            add_classes(&mut held, pane);
            let length = at_ms + pane_ms - start;
            let stretch_ms = i64::from(self.climb.stretch()) * pane_ms;
            if length < MERGE_MS.max(stretch_ms) && (total(&held) < MERGE_EVENTS || length < stretch_ms) {
                self.pending = Some((held, start, spent + injection));
                return self.reading(Call::Quiet, injection);
            }
            return self.judge_merged(&held, start, length, spent + injection);
        }
        if n <= 0.0 {
            return self.reading(Call::Quiet, injection);
        }
        if self.climb.stretch() > 1 || n < MERGE_EVENTS && pane_ms < MERGE_MS {
            let mut held = Vec::new();
            add_classes(&mut held, pane);
            self.pending = Some((held, at_ms, injection));
            return self.reading(Call::Quiet, injection);
        }
        self.judge_merged(pane, at_ms, pane_ms, injection)
    }

    fn judge_merged(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let tolerance = self.settings.tolerance;
        let Some(slots) = self.slots.as_mut() else {
            self.meet(pane, at_ms);
            self.total += total(pane);
            if self.total >= 0.5 * self.needed(injection, 1.0) {
                self.slots = Some(Slots::new(&self.known, self.total));
            }
            return self.reading(Call::Quiet, injection);
        };
        slots.turn_hour(at_ms, tolerance);
        let counts = slots.regroup(pane);
        let counts = &counts[..slots.of.len()];
        let n: f64 = counts.iter().sum();
        if slots.frozen.is_some() {
            self.log_evidence = NO_EVIDENCE;
            let (reading, told) = slots.watch_recovery(pane, counts, at_ms, pane_ms);
            if let Some(told) = told {
                self.told = told;
            }
            return reading;
        }
        if !self.armed {
            slots.learn(counts, n, at_ms, pane_ms);
            self.meet(pane, at_ms);
            if self.sees(injection).armed {
                self.armed = true;
                self.known.iter_mut().for_each(|k| k.1 = 0.0);
            }
            return self.reading(Call::Quiet, injection);
        }
        let shadow = injection <= 0.0;
        if self.shadow && !shadow {
            slots.forget();
        }
        self.shadow = shadow;
        let share = if shadow { SHADOW_INJECTION } else { injection };
        let gathered = if shadow { f64::NEG_INFINITY } else { self.log_evidence - self.threshold };
        let sum = slots.judge(counts, n, share, tolerance, at_ms, gathered);
        if self.climb.step(sum / share, 1.0 / share, tolerance, at_ms) {
            // The panes of this series are too short for it. Evidence on the old ones is forgotten, and their noise fades.
            slots.lengthen();
            self.log_evidence = NO_EVIDENCE;
            return self.reading(Call::Quiet, injection);
        }
        if shadow {
            slots.learn(counts, n, at_ms, pane_ms);
            self.meet(pane, at_ms);
            return self.reading(Call::Quiet, injection);
        }
        let learns = sum < stops_learning_at(injection);
        slots.remember(counts, n, learns, at_ms, pane_ms);
        if injection != self.injection {
            (self.injection, self.threshold) = (injection, -injection.ln());
        }
        self.log_evidence = (ln(sum.max(1e-300)) + self.threshold).max(NO_EVIDENCE);
        if sum >= 1.0 {
            let (reading, told) = slots.speak(sum, injection, at_ms, pane_ms, tolerance, pane);
            if slots.evidence.is_idle() {
                self.log_evidence = NO_EVIDENCE;
            }
            self.told = told;
            return reading;
        }
        slots.held_since_ms = None;
        if learns {
            slots.learn(counts, n, at_ms, pane_ms);
            self.meet(pane, at_ms);
        }
        self.reading(Call::Quiet, injection)
    }

    pub fn learn_only(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64) {
        self.judge(pane, at_ms, pane_ms, 0.0);
    }

    pub fn release(&mut self, how: Release) {
        self.log_evidence = NO_EVIDENCE;
        let Some(slots) = self.slots.as_mut() else {
            return;
        };
        let Some(frozen) = slots.frozen.take() else {
            return;
        };
        slots.calm();
        slots.hours.iter_mut().for_each(|hours| hours.settle_aside(how == Release::FalseAlarm));
        match how {
            Release::Fixed | Release::Expected => {}
            Release::FalseAlarm => {
                let counts = slots.regroup(&frozen.seen);
                let n = counts.iter().sum();
                slots.learn(&counts[..slots.of.len()], n, frozen.alarm_ms, 0);
                if self.climb.lengthen(frozen.alarm_ms) {
                    slots.lengthen();
                }
            }
            Release::NewNormal => {
                self.armed = false;
                self.slots = None;
                self.newcomers.clear();
                self.known = frozen.seen.iter().map(|(class, c)| (*class, f64::from(*c))).collect();
                self.total = total(&frozen.seen);
            }
        }
    }

    /// The last incident is over by itself: if it was normal life, what it brought belongs to its hours; else it is forgotten.
    pub fn settle(&mut self, was_normal: bool) {
        if let Some(slots) = &mut self.slots {
            slots.hours.iter_mut().for_each(|hours| hours.settle_aside(was_normal));
        }
    }

    /// The boundary between history and live: what was found in history is listed, never paged, and evidence starts anew.
    pub fn start_live(&mut self) {
        self.log_evidence = NO_EVIDENCE;
        if let Some(slots) = self.slots.as_mut() {
            slots.frozen = None;
            slots.hours.iter_mut().for_each(|hours| hours.settle_aside(false));
            slots.calm();
        }
        self.pending = None;
    }

    /// Panes that are judged as one, because evidence on single ones climbed more often than was promised; 1 is the rule.
    pub fn stretch(&self) -> u8 {
        self.climb.stretch()
    }

    pub fn state(&self) -> State {
        match &self.slots {
            Some(s) if s.frozen.is_some() => State::Frozen,
            _ if !self.armed => State::Warming,
            _ if self.starved => State::Starved,
            _ => State::Armed,
        }
    }

    /// Armed when a doubling of a class of 5 % could ever be shown: twice the evidence needed, and its noise is known.
    pub fn sees(&self, injection: f64) -> Sees {
        if self.armed {
            return Sees { armed: true, needs_events: 0.0 };
        }
        let (have, phi, panes) = self.slots.as_ref().map_or((self.total, 1.0, 0), |s| (s.sum, s.dispersion, s.ladders[0].fed()));
        let needed = self.needed(injection, phi);
        Sees { armed: have >= needed && panes >= NOISE_PANES_MIN, needs_events: (needed - have).max(0.0) }
    }

    /// The share of the most frequent class.
    pub fn baseline(&self) -> Option<Band> {
        let slots = self.slots.as_ref()?;
        let value = slots.share(0);
        let t = 1.0 + self.settings.tolerance;
        Some(Band { value, low: value / t, high: (value * t).min(1.0), events: slots.sum })
    }

    /// The quiet share of a class, for charts; `None` when it is one of the rest.
    pub fn share(&self, class: u16) -> Option<f64> {
        let slots = self.slots.as_ref()?;
        slots.classes.iter().position(|c| *c == class).map(|i| slots.share(i))
    }

    pub fn succeed(&self, weight_max: f64) -> ClassBank {
        let mut next = ClassBank::new(self.settings);
        next.known.clone_from(&self.known);
        next.newcomers.clone_from(&self.newcomers);
        next.climb = self.climb;
        if let Some(s) = &self.slots {
            let mut slots = s.clone();
            slots.frozen = None;
            slots.calm();
            let share = (weight_max / s.sum.max(1.0)).min(1.0);
            slots.of.iter_mut().for_each(|s| s.count *= share);
            slots.hours.iter_mut().for_each(|hours| hours.discount(share));
            slots.sum *= share;
            slots.panes = 0;
            next.total = slots.sum;
            next.armed = self.armed;
            next.slots = Some(slots);
        }
        next
    }

    pub fn reset(&mut self) {
        *self = ClassBank::new(self.settings);
    }

    fn needed(&self, injection: f64, phi: f64) -> f64 {
        let b = if injection > 0.0 { injection } else { 1e-9 };
        let wanted = 2.0 * (-b.ln() + ((CLASSES_MAX * ODDS.len()) as f64).ln());
        let p = ARMING_SHARE;
        let q = moved(p, 2.0 / (1.0 + self.settings.tolerance));
        wanted * phi / (p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln()).max(1e-6)
    }

    /// Names met in quiet times. After arming a new name is a newcomer first, so that a new class goes on counting as unseen.
    fn meet(&mut self, pane: &[(u16, u32)], at_ms: i64) {
        for (class, n) in pane {
            let place = match self.known.binary_search_by_key(class, |k| k.0) {
                Ok(i) => {
                    self.known[i].1 += f64::from(*n);
                    continue;
                }
                Err(i) => i,
            };
            if self.known.len() >= KNOWN_MAX {
                continue;
            }
            if !self.armed {
                self.known.insert(place, (*class, f64::from(*n)));
                continue;
            }
            match self.newcomers.iter().position(|k| k.0 == *class) {
                Some(i) if at_ms - self.newcomers[i].1 >= NEWCOMER_MS => {
                    self.newcomers.swap_remove(i);
                    self.known.insert(place, (*class, 0.0));
                }
                None if self.newcomers.len() < NEWCOMERS_MAX => self.newcomers.push((*class, at_ms)),
                // Too many at once are no newcomers but noise: they stay unseen until there is room.
                Some(_) | None => {}
            }
        }
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
        let sum = self.slots.as_ref().map_or(0.0, |s| s.evidence.sum());
        let (log_evidence, threshold) = nats(sum, injection);
        Reading { state, log_evidence, threshold, call }
    }
}

fn total(pane: &[(u16, u32)]) -> f64 {
    pane.iter().map(|(_, c)| f64::from(*c)).sum()
}

/// Adds to counts sorted by class; beyond the bound a class never met is dropped.
fn add_classes(into: &mut Vec<(u16, u32)>, pane: &[(u16, u32)]) {
    for (class, n) in pane {
        match into.binary_search_by_key(class, |k| k.0) {
            Ok(i) => into[i].1 = into[i].1.saturating_add(*n),
            Err(i) if into.len() < KNOWN_MAX => into.insert(i, (*class, *n)),
            Err(_) => {}
        }
    }
}

/// A share under odds multiplied by `r`.
fn moved(p: f64, r: f64) -> f64 {
    p * r / (1.0 - p + p * r)
}

/// The edges of tolerance around a share. A low edge below 0 means that no fall matters.
fn edges(p: f64, tolerance: f64) -> (f64, f64) {
    let edge = 1.0 + tolerance;
    if tolerance <= 0.0 {
        // Nothing is forgiven, small shares neither.
        return (p, p);
    }
    ((p / edge).min(p - AT_LEAST), (p * edge).max(p + AT_LEAST).min(0.5 + 0.5 * p))
}

// === impl Slots ===

impl Slots {
    fn new(known: &[(u16, f64)], sum: f64) -> Slots {
        let mut by_count: Vec<(u16, f64)> = known.to_vec();
        by_count.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        // Where classes had to be chosen the lucky ones were: what chose them would make them all seem to fall later, so their counts
        // begin anew.
        let chosen = by_count.len() > CLASSES_MAX;
        by_count.truncate(CLASSES_MAX);
        let sum = if chosen { 0.0 } else { sum };
        let counts = by_count.iter().map(|k| if chosen { 0.0 } else { k.1 }).chain([0.0]);
        let of: Vec<Slot> = counts.map(|count| Slot { count, ..Slot::default() }).collect();
        Slots {
            ladders: vec![Ladder::default(); of.len().min(LADDERS)],
            hours: vec![Levels::default(); of.len().min(LADDERS)],
            levels: [Level::default(); LADDERS],
            courses: [None; LADDERS],
            evidence: Mixture::new(of.len() * ODDS.len() + 1),
            classes: by_count.iter().map(|k| k.0).collect(),
            of,
            sum,
            panes: 0,
            refresh_at: 0.0,
            dispersions: [1.0; LADDERS],
            dispersion: 1.0,
            lagged: Lag::default(),
            trail: Rows::default(),
            held_since_ms: None,
            frozen: None,
        }
    }

    /// Counts per slot; those after the rest are 0.
    fn regroup(&self, pane: &[(u16, u32)]) -> [f64; SLOTS_MAX] {
        let rest = self.classes.len();
        let mut counts = [0.0; SLOTS_MAX];
        for (class, n) in pane {
            let slot = self.classes.iter().position(|c| c == class).unwrap_or(rest);
            counts[slot] += f64::from(*n);
        }
        counts
    }

    /// What is normal at this hour.
    fn share(&self, slot: usize) -> f64 {
        self.now(slot, (self.of[slot].count + 0.5) / (self.sum + 0.5 * self.of.len() as f64))
    }

    /// The share in this hour of a slot that has this one over all hours.
    fn now(&self, slot: usize, p: f64) -> f64 {
        self.levels.get(slot).map_or(p, |level| (p + level.middle).clamp(HOUR_SHARE_MIN * p, 1.0 - HOUR_SHARE_MIN * (1.0 - p)))
    }

    /// The edges of tolerance, as far apart as the levels that this hour may have.
    fn edges(&self, slot: usize, p: f64, tolerance: f64) -> (f64, f64) {
        let (low, high) = edges(p, tolerance);
        self.levels.get(slot).map_or((low, high), |level| (low - level.half, (high + level.half).min(0.5 + 0.5 * p)))
    }

    /// Another hour may have other levels.
    fn turn_hour(&mut self, at_ms: i64, tolerance: f64) {
        let hour = at_ms.div_euclid(HOUR_MS);
        if self.hours.first().is_none_or(|hours| hours.hour() == hour) {
            return;
        }
        let total = self.sum + 0.5 * self.of.len() as f64;
        let before = self.levels;
        for (slot, hours) in self.hours.iter_mut().enumerate() {
            let p = (self.of[slot].count + 0.5) / total;
            let forgiven = if tolerance > 0.0 { (tolerance * p).max(AT_LEAST) } else { 0.0 };
            let arms = slot * ODDS.len()..(slot + 1) * ODDS.len();
            let suspect_from_ms = (tolerance < BARE).then(|| self.evidence.speaks_since(arms)).flatten();
            // The course of the day is not what makes its hours uncertain.
            hours.turn(hour, p, p * (1.0 - p), self.ladders[slot].phi_below(HOURLY_PANES, DOUBT), forgiven, suspect_from_ms);
            self.levels[slot] = hours.level(hour);
            let known = std::mem::replace(&mut self.courses[slot], hours.course_now());
            if self.courses[slot].is_some() && known.is_none() {
                // What noise there seemed to be in long stretches was the course of the day.
                self.ladders[slot].forget_from(HOURLY_PANES);
                self.lagged = Lag::default();
            }
        }
        if self.levels != before {
            self.panes = 0;
        }
    }

    /// Mixtures of what is normal at this hour with "still moved", and the share of a slot that is "still moved". Where this hour's
    /// level is not known for sure, the one farthest from the incident counts: healthy is what would be healthy wherever it lies.
    fn recovery_tables(&self, half_way: &[f64], told: usize, at_ms: i64) -> (Vec<f64>, f64) {
        let total = self.sum + 0.5 * self.of.len() as f64;
        let quiet = |slot: usize, h: f64| {
            let p = (self.of[slot].count + 0.5) / total;
            // A course that tolerance forgives too.
            let level = self.hours.get(slot).map_or(Level::default(), |hours| hours.course_at(at_ms));
            let away = match () {
                _ if h > 0.0 => -level.half,
                _ if h < 0.0 => level.half,
                _ => 0.0,
            };
            (p + level.middle + away).clamp(HOUR_SHARE_MIN * p, 1.0 - HOUR_SHARE_MIN * (1.0 - p))
        };
        let (mut norm, mut sum) = (0.0, 0.0);
        for (slot, h) in half_way.iter().enumerate() {
            norm += quiet(slot, *h) * h.exp();
            sum += quiet(slot, *h);
        }
        let quiet_to_still = |h: &f64| norm / sum * (-h).exp();
        let tables = [1.0, 0.8, 0.6].iter().flat_map(|part| half_way.iter().map(move |h| (part * quiet_to_still(h) + (1.0 - part)).ln()));
        let h = half_way.get(told).copied().unwrap_or(0.0);
        (tables.collect(), quiet(told, h) * h.exp() / norm)
    }

    /// The noisiest class speaks for those without a ladder and for the bet on everything.
    fn dispersion_of(&self, slot: usize) -> f64 {
        if slot < self.ladders.len() { f64::from(self.dispersions[slot]) } else { self.dispersion }
    }

    fn make_bets(&mut self, tolerance: f64) {
        (self.panes, self.refresh_at) = (REFRESH_PANES, self.sum * (1.0 + REFRESH_GROWTH));
        for slot in 0..self.of.len() {
            let p = self.share(slot);
            let (low, high) = self.edges(slot, p, tolerance);
            let bets = &mut self.of[slot];
            let halves = |p: f64| [(0.5 / p) as f32, (0.5 / (1.0 - p).max(1e-9)) as f32];
            bets.high = halves(high);
            bets.low = if low > 0.0 { halves(low) } else { [0.0; 2] };
            for (j, r) in ODDS.iter().enumerate() {
                let from = if j < FALLS { high } else { low.max(0.0) };
                bets.ln_norm[j] = ln(1.0 - from + from * r);
            }
        }
    }

    /// Takes in a pane and returns the sum of evidence, which was `gathered` before, in nats.
    fn judge(&mut self, counts: &[f64], n: f64, injection: f64, tolerance: f64, at_ms: i64, gathered: f64) -> f64 {
        if self.panes == 0 || self.sum >= self.refresh_at {
            self.make_bets(tolerance);
        }
        self.panes -= 1;
        let mut l = [0.0; SLOTS_MAX * ODDS.len() + 1];
        let mut weights = [0.0; SLOTS_MAX * ODDS.len() + 1];
        let exposure = (self.sum + 1.0) / (1.0 + tolerance);
        let part = 1.0 / self.of.len() as f64;
        let mut chi = 0.0;
        for (slot, (bets, count)) in self.of.iter().zip(counts).enumerate() {
            let f = self.dispersion_of(slot);
            let per = 1.0 / f;
            let (e, v) = (count * per, n * per);
            let weight = exposure * per;
            let apart = apart(v, 1.0, f, weight);
            let up = excess(e, v, bets.high, weight) + apart;
            let at = slot * ODDS.len();
            for j in 0..FALLS {
                l[at + j] = e * LN_ODDS[j] - v * bets.ln_norm[j] - up;
            }
            let falls = bets.low[0] > 0.0 && 0.5 * weight >= FALL_EVENTS_MIN * f64::from(bets.low[0]);
            for j in FALLS..ODDS.len() {
                l[at + j] = if falls { e * LN_ODDS[j] - v * bets.ln_norm[j] - excess(e, v, bets.low, weight) - apart } else { -1.0 };
            }
            for (into, weight) in weights[at..at + ODDS.len()].iter_mut().zip(&WEIGHTS) {
                *into = weight * part;
            }
            chi += count * count * f64::from(bets.high[0]);
        }
        let last = self.of.len() * ODDS.len();
        // In a pane like all others the bet on anything only loses: it is let go, unless it holds something.
        let strange = 2.0 * chi > n * n + STRANGE * self.of.len() as f64 * n;
        l[last] = if strange || self.evidence.of(last) > injection { self.anything(counts, n, tolerance) } else { LET_GO };
        weights[last] = WEIGHT_OF_ANYTHING;
        let cap = nats_per_pane_max(self.dispersion);
        if gathered >= overshoot::LN_AT_STAKE_MIN {
            let lift = self.handed_out(n, exposure, &weights, injection);
            self.evidence.lift(overshoot::tempered(lift, cap));
        }
        self.evidence.step_weighted(&l[..=last], &weights[..=last], injection, cap, at_ms)
    }

    /// What evidence may be multiplied by before a pane of so many events.
    fn handed_out(&self, n: f64, exposure: f64, weights: &[f64], injection: f64) -> f64 {
        let all = self.evidence.sum() + injection;
        let held = |slot: usize| -> [f64; ODDS.len()] { self.evidence.at_stake(slot * ODDS.len(), weights, injection) };
        let of = |stakes: &[f64]| stakes.iter().sum::<f64>();
        // Rises and falls of a class are two statistics: hits and misses.
        let most = |slot: usize| of(&held(slot)[..FALLS]).max(held(slot)[FALLS]);
        let slot = (0..self.of.len()).fold(0, |best, slot| if most(slot) > most(best) { slot } else { best });
        let (f, bets, stakes) = (self.dispersion_of(slot), &self.of[slot], held(slot));
        let (rises, falls) = stakes.split_at(FALLS);
        let (stakes, tilts, edge) = if of(rises) >= of(falls) { (rises, &LN_ODDS[..FALLS], bets.high) } else { (falls, &LN_ODDS[FALLS..], bets.low) };
        if !overshoot::worth_asking(all, n / f, exposure / f) || edge[0] <= 0.0 {
            return 1.0;
        }
        overshoot::Family { tilts, stakes, others: all - of(stakes) }.lift_of_counts(n / f, 0.5 / f64::from(edge[0]))
    }

    /// Dirichlet(1/2) against the best that tolerance allows.
    fn anything(&self, counts: &[f64], n: f64, tolerance: f64) -> f64 {
        let f = self.dispersion;
        let half = 0.5 * counts.len() as f64;
        let weight = self.sum / (f * (1.0 + tolerance));
        let mut nearest = [0.0; SLOTS_MAX];
        for (slot, (p, c)) in nearest.iter_mut().zip(counts).enumerate() {
            let (low, high) = self.edges(slot, self.share(slot), tolerance);
            *p = (c / n.max(1.0)).clamp(low.max(1e-9), high);
        }
        let norm: f64 = nearest.iter().sum();
        let (mut bet, mut null) = (0.0, 0.0);
        for (c, p) in counts.iter().zip(&nearest) {
            if *c > 0.0 {
                let a = p / norm * weight + 0.5;
                bet += ln_rising_of_half(c / f);
                null += ln_rising(a, ln(a), c / f);
            }
        }
        let v = n / f;
        bet - ln_rising(half, ln(half), v) - (null - ln_rising(weight + half, ln(weight + half), v))
    }

    fn remember(&mut self, counts: &[f64], n: f64, learned: bool, at_ms: i64, pane_ms: i64) {
        let of_learned = if learned { n as f32 } else { 0.0 };
        let mut row = [of_learned; SLOTS_MAX + 1];
        for (into, c) in row.iter_mut().zip(counts) {
            *into = *c as f32;
        }
        self.trail.push(row[..=counts.len()].iter().copied(), at_ms, pane_ms);
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

    fn ask_for_noise(&mut self) {
        for (phi, ladder) in self.dispersions.iter_mut().zip(&self.ladders) {
            *phi = ladder.phi_beyond(DOUBT) as f32;
        }
        self.dispersion = self.dispersions.iter().fold(1.0, |most, phi| most.max(f64::from(*phi)));
    }

    fn learn(&mut self, counts: &[f64], n: f64, at_ms: i64, pane_ms: i64) {
        let fade = decay(pane_ms);
        for (have, c) in self.of.iter_mut().zip(counts) {
            have.count = have.count * fade + c;
        }
        self.sum = self.sum * fade + n;
        let mut newest = [0.0; LADDERS + 1];
        for (into, c) in newest[..LADDERS].iter_mut().zip(counts) {
            *into = *c as f32;
        }
        newest[LADDERS] = n as f32;
        // What is learned at once, as a false alarm is, belongs to no one hour.
        if pane_ms > 0 {
            for (slot, hours) in self.hours.iter_mut().enumerate() {
                hours.learn(counts[slot], n);
                if let Some(course) = self.courses[slot] {
                    newest[slot] -= (n * course.at(at_ms, pane_ms)) as f32;
                }
            }
        }
        // Noise is learned some panes late: the first panes of a fault would otherwise call themselves noise.
        let Some(pane) = self.lagged.push(newest) else {
            return;
        };
        let total = self.sum + 0.5 * self.of.len() as f64;
        for ((ladder, seen), quiet) in self.ladders.iter_mut().zip(&pane).zip(&self.of) {
            let p = ((quiet.count + 0.5) / total).min(0.999);
            ladder.feed(f64::from(*seen), f64::from(pane[LADDERS]), p * (1.0 - p));
        }
        if self.ladders[0].fed().is_multiple_of(DISPERSION_PANES) {
            self.ask_for_noise();
        }
    }

    fn speak(&mut self, sum: f64, injection: f64, at_ms: i64, pane_ms: i64, tolerance: f64, newest: &[(u16, u32)]) -> (Reading, Option<u16>) {
        let slots = self.of.len();
        let arm = self.evidence.best();
        let start = self.evidence.start_of(arm);
        let (mut since, mut learned) = ([0.0; SLOTS_MAX], [0.0; SLOTS_MAX]);
        for row in self.trail.newest_first().take_while(|row| row.start_ms >= start) {
            let (counts, was_learned) = row.sums.split_at(slots);
            let part = f64::from(was_learned[0]) / counts.iter().map(|c| f64::from(*c)).sum::<f64>().max(1.0);
            for (i, c) in counts.iter().enumerate() {
                since[i] += f64::from(*c);
                learned[i] += f64::from(*c) * part;
            }
        }
        let n: f64 = since.iter().sum::<f64>().max(1.0);
        let mut quiet = [0.0; SLOTS_MAX];
        for (have, (slot, c)) in quiet.iter_mut().zip(self.of.iter().zip(&learned)) {
            *have = (slot.count - c).max(0.0);
        }
        let quiet_sum: f64 = quiet.iter().sum();
        let share = |i: usize| self.now(i, (quiet[i] + 0.5) / (quiet_sum + 0.5 * slots as f64));
        // The class that moved most, by what it adds to the evidence (binomial deviance).
        let deviance = |i: usize| {
            let (p, s) = (share(i), (since[i] / n).clamp(1e-9, 1.0 - 1e-9));
            (s * (s / p).ln() + (1.0 - s) * ((1.0 - s) / (1.0 - p)).ln()) / self.dispersion_of(i)
        };
        let slot = (0..slots).fold(0, |best, i| if deviance(i) > deviance(best) { i } else { best });
        let told = self.classes.get(slot).copied();
        // Onset and size together: over all starts that the change may have had, the luck that made the alarm come just then weighs
        // less than in a count from the pointer on.
        let before = share(slot);
        let rates = Rates::new(before, since[slot] / n > before, self.dispersion_of(slot));
        // Counts of a row as if it were of the present hour.
        let hours = self.hours.get(slot).filter(|_| self.levels[slot] != Level::default());
        let of = |row: &Row| {
            let n = row.sums[..slots].iter().map(|c| f64::from(*c)).sum::<f64>();
            let moved = hours.map_or(0.0, |hours| hours.level(row.start_ms.div_euclid(HOUR_MS)).middle - self.levels[slot].middle);
            ((f64::from(row.sums[slot]) - n * moved).clamp(0.0, n), n)
        };
        let add = |row: &Row, nats: &mut [f64]| {
            let (hits, n) = of(row);
            rates.add(hits, n, nats);
        };
        let first = |row: &Row, nats: &mut [f64]| {
            let (hits, n) = of(row);
            rates.add_first(hits, n, nats);
        };
        let (onset, over_starts) = self.trail.explain(Rates::LEN, start, pane_ms, add, first);
        let [least, after, most] = rates.points(&over_starts);
        let change = Change { before, after, low: least, high: most };
        let (low, high) = self.edges(slot, change.before, tolerance);
        let (log_evidence, threshold) = nats(sum, injection);
        if change.after <= high && change.after >= low {
            let held = *self.held_since_ms.get_or_insert(at_ms);
            if at_ms - held >= super::HELD_RESET_MS {
                self.calm();
            }
            let call = Call::Held { change, why: "no class moved beyond tolerance" };
            return (Reading { state: State::Armed, log_evidence, threshold, call }, told);
        }
        for (slot, c) in self.of.iter_mut().zip(&quiet) {
            slot.count = *c;
        }
        self.hours.iter_mut().for_each(|hours| hours.settle_aside(false));
        for row in self.trail.newest_first().take_while(|row| row.start_ms >= start) {
            let n: f64 = row.sums[..slots].iter().map(|c| f64::from(*c)).sum();
            let part = f64::from(row.sums[slots]) / n.max(1.0);
            for (hours, c) in self.hours.iter_mut().zip(&row.sums) {
                let hour = row.start_ms.div_euclid(HOUR_MS);
                hours.give_back(hour, f64::from(*c) * part, n * part);
                hours.set_aside(hour, f64::from(*c), n);
            }
        }
        self.sum = quiet_sum;
        self.panes = 0;
        // Half way from the baseline to what was seen, but not farther than a factor of 1.5 or two floors; the class that moved most
        // is never inside its tolerance: that is what recovery must refute.
        let quiet: Vec<f64> = (0..slots).map(|i| self.share(i)).collect();
        let still: Vec<f64> = quiet
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let seen = (since[i] + 0.5) / (n + 0.5 * slots as f64);
                let (low, high) = self.edges(i, *p, tolerance);
                let middle = if seen > *p {
                    (p * seen).sqrt().max((p + 2.0 * AT_LEAST).min(0.5 * (p + seen))).min((p * RECOVERY_FACTOR_MAX).max(p + 2.0 * AT_LEAST))
                } else {
                    (p * seen).sqrt().max(p / RECOVERY_FACTOR_MAX)
                };
                match i == slot {
                    true if seen > *p => middle.max(high),
                    true => middle.min(low.max(1e-6)),
                    // What is forgiven has not moved: most of it is chance, or the hour of the alarm.
                    false if low <= seen && seen <= high => *p,
                    false => middle,
                }
            })
            .collect();
        let half_way: Vec<f64> = quiet.iter().zip(&still).map(|(p, s)| (s / p).ln()).collect();
        let mut seen = Vec::new();
        add_classes(&mut seen, newest);
        for (i, class) in self.classes.iter().enumerate() {
            let before_newest = since[i] - newest.iter().filter(|k| k.0 == *class).map(|k| f64::from(k.1)).sum::<f64>();
            if before_newest > 0.0 {
                add_classes(&mut seen, &[(*class, before_newest as u32)]);
            }
        }
        self.calm();
        self.frozen = Some(Frozen {
            alarm_ms: at_ms,
            recovery: Mixture::new(RECOVERY_ARMS),
            half_way,
            slot,
            before: quiet[slot],
            seen,
            since: vec![0.0; slots],
        });
        (Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }, told)
    }

    /// Interval of 95 % by Wilson's score, widened by the over-dispersion.
    fn change(&self, slot: usize, before: f64, hits: f64, n: f64) -> Change {
        let n_eff = (n / self.dispersion_of(slot)).max(1.0);
        let p = hits / n.max(1.0);
        let z2 = 1.96f64 * 1.96;
        let centre = (p + z2 / (2.0 * n_eff)) / (1.0 + z2 / n_eff);
        let half = 1.96 / (1.0 + z2 / n_eff) * (p * (1.0 - p) / n_eff + z2 / (4.0 * n_eff * n_eff)).sqrt();
        Change { before, after: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }

    /// The second part, on recovery: the class by which it is told.
    fn watch_recovery(&mut self, pane: &[(u16, u32)], counts: &[f64], at_ms: i64, pane_ms: i64) -> (Reading, Option<Option<u16>>) {
        let injection = recovery_injection(pane_ms);
        let slots = counts.len();
        let Some(mut frozen) = self.frozen.take() else {
            return (Reading { state: State::Armed, log_evidence: 0.0, threshold: f64::INFINITY, call: Call::Quiet }, None);
        };
        add_classes(&mut frozen.seen, pane);
        let all: f64 = counts.iter().sum();
        for (hours, c) in self.hours.iter_mut().zip(counts) {
            hours.set_aside(at_ms.div_euclid(HOUR_MS), *c, all);
        }
        // Only the slots that had moved speak, against all others together: what noise the others have among themselves does not count.
        let moved = (0..slots).filter(|slot| frozen.half_way[*slot] != 0.0);
        let f = moved.map(|slot| self.dispersion_of(slot)).fold(1.0, f64::max);
        let (tables, boundary) = self.recovery_tables(&frozen.half_way, frozen.slot, at_ms + pane_ms / 2);
        let l: [f64; RECOVERY_ARMS] = std::array::from_fn(|j| counts.iter().zip(&tables[j * slots..(j + 1) * slots]).map(|(c, w)| c / f * w).sum());
        let sum = frozen.recovery.step(&l, injection, at_ms);
        if frozen.recovery.is_idle() {
            frozen.since.fill(0.0);
        } else {
            for (have, c) in frozen.since.iter_mut().zip(counts) {
                *have += c;
            }
        }
        let (log_evidence, threshold) = nats(sum, injection);
        let (slot, before) = (frozen.slot, frozen.before);
        let (hits, n) = (frozen.since[slot], frozen.since.iter().sum::<f64>());
        let share = hits / n.max(1.0);
        let inside = if frozen.half_way[slot] > 0.0 { share <= boundary } else { share >= boundary };
        if sum < 1.0 || !inside {
            self.frozen = Some(frozen);
            return (Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }, None);
        }
        let change = self.change(slot, before, hits, n);
        let told = self.classes.get(slot).copied();
        self.calm();
        (Reading { state: State::Armed, log_evidence, threshold, call: Call::Recovered { change } }, Some(told))
    }
}

/// What the predictive of e hits of v, from a baseline of so much weight, adds to the likelihood at the shares themselves: the series
/// of ln(Gamma(a + d) / Gamma(a)) in d / a without its first term, or what it stands for. `halves` are half the reciprocals of the
/// shares of hits and misses.
#[inline]
fn excess(e: f64, v: f64, halves: [f32; 2], weight: f64) -> f64 {
    let per = 1.0 / weight;
    let series = |d: f64, half_per_a: f64| d * (d - 1.0) * half_per_a * (1.0 - (2.0 * d - 1.0) * half_per_a * (1.0 / 3.0));
    let error = |d: f64, half_per_a: f64| {
        // A part of an event is as far from none, in a class that holds next to nothing, as a whole one is.
        let x = 2.0 * d.max(1.0) * half_per_a;
        d * x * x * x
    };
    let (a, b, all) = (f64::from(halves[0]) * per, f64::from(halves[1]) * per, 0.5 * per);
    let misses = (v - e).max(0.0);
    if error(e, a).max(error(misses, b)).max(error(v, all)) < SERIES_ERROR_MAX * 12.0 {
        return series(e, a) + series(misses, b) - series(v, all);
    }
    let exact = |d: f64, half_per_a: f64| {
        let a = 0.5 / half_per_a;
        excess_rising(a, ln(a), d)
    };
    exact(e, a) + exact(misses, b) - exact(v, all)
}

// === impl Lag ===

impl Lag {
    /// Takes in the newest and gives the oldest once the ring is full.
    fn push(&mut self, pane: [f32; LADDERS + 1]) -> Option<[f32; LADDERS + 1]> {
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
