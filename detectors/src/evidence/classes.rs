//! Classes: predicted labels, categorical features, languages, finish reasons.
//!
//! **Idea.** The baseline's at most 32 most frequent classes and one more for all others are the bins. **Formula.** For a class of
//! quiet share p the predictive of "this class against the rest" is beta-binomial (the Dirichlet-multinomial, added up), moved to
//! the edge of tolerance p (1 + t) or p / (1 + t); the bets are odds of 1.5, 2.5, 6 and .33 on that class beyond the edge. One more
//! bet reaches everything: Dirichlet(1/2) against the Dirichlet-multinomial of whatever lies within tolerance and explains the pane
//! best. **Sees** a share that moves beyond its tolerance, classes that vanish, and classes never seen before (in the rest, and by
//! name with `is_known`); does not see which inputs moved with them, nor moves of less than half a percentage point. **Knob.**
//! `tolerance` is relative and per class: 0.2 forgives 5 % -> 6 %. **False alarms**: as for rates; panes that resemble each other are held by one ladder for each of the eight most
//! frequent classes, measured below.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Band, Ladder, Mixture, Sees, decay, ln_gamma, nats, nats_per_pane_max, onset_of, recovery_injection};
use crate::verdict::{Call, Change, Onset, Reading, Release, State};

/// Classes that are told apart; all others are one.
pub const CLASSES_MAX: usize = 32;
/// Classes remembered by name. Beyond, every class counts as known.
pub const KNOWN_MAX: usize = 10_000;
/// A class first met after arming is known once it has lasted so long.
const NEWCOMER_MS: i64 = 7 * 86_400_000;
const NEWCOMERS_MAX: usize = 256;
const ODDS: [f64; 4] = [1.5, 2.5, 6.0, 0.33];
/// Parts of the injection per bet on a class, all classes alike; what is left is for the bet on anything.
const WEIGHTS: [f64; ODDS.len()] = [0.30, 0.28, 0.15, 0.20];
const WEIGHT_OF_ANYTHING: f64 = 0.07;
/// The bets from here on are on a fall.
const FALLS: usize = 3;
/// Classes with a ladder of their own; the rest take the noisiest of these.
const LADDERS: usize = 8;
const NOISE_LAG: usize = 12;
/// Panes of which the noise must be known before the first bet.
const NOISE_PANES_MIN: u32 = 24;
/// Panes kept for the size and the onset of a change.
const RECENT: usize = 48;
const MERGE_EVENTS: f64 = 10.0;
const MERGE_MS: i64 = 600_000;
const STARVED_EVENTS_PER_HOUR: f64 = 5.0;
const RECOVERY_ARMS: usize = 3;
/// Recovery must refute a share that is still this factor away, or half way to the incident if that is nearer.
const RECOVERY_FACTOR_MAX: f64 = 1.5;
/// Absolute change of a share that is forgiven and, at the alarm's end, what recovery need not refute: a class of one in a
/// hundred thousand that triples is no incident, and its return could never be shown.
const AT_LEAST: f64 = 0.005;
/// The share for which a doubling must be visible before the bank is armed.
const ARMING_SHARE: f64 = 0.05;

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
    hour: (i64, f64),
    starved: bool,
    told: Option<u16>,
}

/// The classes told apart, from the middle of warming on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Slots {
    /// Most frequent first; the slot after the last is the rest.
    classes: Vec<u16>,
    /// Quiet counts per slot, the rest last.
    counts: Vec<f64>,
    sum: f64,
    /// Parts of the injection, in the order of the alternatives.
    weights: Vec<f64>,
    ladders: Vec<Ladder>,
    lagged: VecDeque<Vec<f32>>,
    evidence: Mixture,
    /// The last judged panes, and whether they were learned: what is given back at an alarm, and the size of the change.
    recent: VecDeque<(i64, bool, Vec<f32>)>,
    held_since_ms: Option<i64>,
    frozen: Option<Frozen>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    recovery: Mixture,
    /// Log-likelihood ratios per slot of each recovery alternative against "still moved".
    tables: Vec<f64>,
    /// The slot that the incident is told by, its quiet share, and the boundary that recovery refutes.
    slot: usize,
    before: f64,
    boundary: f64,
    /// Seen since the onset by class (at most `KNOWN_MAX`), and per slot since the recovery test began to speak.
    seen: Vec<(u16, u32)>,
    since: Vec<f64>,
}

// === impl ClassBank ===

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
            hour: (i64::MIN, 0.0),
            starved: false,
            told: None,
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
            if total(&held) < MERGE_EVENTS && length < MERGE_MS {
                self.pending = Some((held, start, spent + injection));
                return self.reading(Call::Quiet, injection);
            }
            return self.judge_merged(&held, start, length, spent + injection);
        }
        if n <= 0.0 {
            return self.reading(Call::Quiet, injection);
        }
        if n < MERGE_EVENTS && pane_ms < MERGE_MS {
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
        let counts = slots.regroup(pane);
        let n: f64 = counts.iter().sum();
        if slots.frozen.is_some() {
            let (reading, told) = slots.watch_recovery(pane, &counts, at_ms, pane_ms);
            if let Some(told) = told {
                self.told = told;
            }
            return reading;
        }
        if !self.armed || injection <= 0.0 {
            slots.learn(&counts, n, pane_ms);
            self.meet(pane, at_ms);
            if !self.armed && self.sees(injection).armed {
                self.armed = true;
                self.known.iter_mut().for_each(|k| k.1 = 0.0);
            }
            return self.reading(Call::Quiet, injection);
        }
        let l = slots.likelihoods(&counts, n, tolerance);
        let cap = nats_per_pane_max(slots.dispersion());
        let sum = slots.evidence.step_weighted(&l, &slots.weights, injection, cap, at_ms);
        let learns = sum < injection.powf(0.125) && sum < 1.0;
        slots.remember(at_ms, learns, &counts);
        if sum >= 1.0 {
            let (reading, told) = slots.speak(sum, injection, at_ms, pane_ms, tolerance, pane);
            self.told = told;
            return reading;
        }
        slots.held_since_ms = None;
        if learns {
            slots.learn(&counts, n, pane_ms);
            self.meet(pane, at_ms);
        }
        self.reading(Call::Quiet, injection)
    }

    pub fn learn_only(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64) {
        self.judge(pane, at_ms, pane_ms, 0.0);
    }

    pub fn release(&mut self, how: Release) {
        let Some(slots) = self.slots.as_mut() else {
            return;
        };
        let Some(frozen) = slots.frozen.take() else {
            return;
        };
        slots.calm();
        match how {
            Release::Fixed | Release::Expected => {}
            Release::FalseAlarm => {
                let counts = slots.regroup(&frozen.seen);
                let n = counts.iter().sum();
                slots.learn(&counts, n, 0);
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

    /// The boundary between history and live: what was found in history is listed, never paged, and evidence starts anew.
    pub fn start_live(&mut self) {
        if let Some(slots) = self.slots.as_mut() {
            slots.frozen = None;
            slots.calm();
        }
        self.pending = None;
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
        let (have, phi, panes) = self.slots.as_ref().map_or((self.total, 1.0, 0), |s| (s.sum, s.dispersion(), s.ladders[0].fed));
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
        if let Some(s) = &self.slots {
            let mut slots = s.clone();
            slots.frozen = None;
            slots.calm();
            let share = (weight_max / s.sum.max(1.0)).min(1.0);
            slots.counts.iter_mut().for_each(|c| *c *= share);
            slots.sum *= share;
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
        let hour = at_ms.div_euclid(3_600_000);
        if hour != self.hour.0 {
            self.starved = self.hour.0 != i64::MIN && self.hour.1 < STARVED_EVENTS_PER_HOUR;
            self.hour = (hour, 0.0);
        }
        self.hour.1 += n;
    }

    fn reading(&self, call: Call, injection: f64) -> Reading {
        let sum = self.slots.as_ref().map_or(0.0, |s| s.evidence.sum());
        let (log_evidence, threshold) = nats(sum, injection);
        Reading { state: self.state(), log_evidence, threshold, call }
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

fn weights(slots: usize) -> Vec<f64> {
    let mut weights: Vec<f64> = (0..slots * ODDS.len()).map(|j| WEIGHTS[j % ODDS.len()] / slots as f64).collect();
    weights.push(WEIGHT_OF_ANYTHING);
    weights
}

// === impl Slots ===

impl Slots {
    fn new(known: &[(u16, f64)], sum: f64) -> Slots {
        let mut by_count: Vec<(u16, f64)> = known.to_vec();
        by_count.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let rest: f64 = by_count.iter().skip(CLASSES_MAX).map(|k| k.1).sum();
        by_count.truncate(CLASSES_MAX);
        let mut counts: Vec<f64> = by_count.iter().map(|k| k.1).collect();
        counts.push(rest);
        Slots {
            ladders: vec![Ladder::default(); counts.len().min(LADDERS)],
            evidence: Mixture::new(counts.len() * ODDS.len() + 1),
            weights: weights(counts.len()),
            classes: by_count.iter().map(|k| k.0).collect(),
            counts,
            sum,
            lagged: VecDeque::new(),
            recent: VecDeque::new(),
            held_since_ms: None,
            frozen: None,
        }
    }

    fn regroup(&self, pane: &[(u16, u32)]) -> Vec<f64> {
        let rest = self.classes.len();
        let mut counts = vec![0.0; rest + 1];
        for (class, n) in pane {
            let slot = self.classes.iter().position(|c| c == class).unwrap_or(rest);
            counts[slot] += f64::from(*n);
        }
        counts
    }

    fn share(&self, slot: usize) -> f64 {
        (self.counts[slot] + 0.5) / (self.sum + 0.5 * self.counts.len() as f64)
    }

    /// The noisiest class speaks for those without a ladder and for the bet on everything.
    fn dispersion(&self) -> f64 {
        self.ladders.iter().fold(1.0, |phi, ladder| ladder.phi().max(phi))
    }

    fn dispersion_of(&self, slot: usize) -> f64 {
        self.ladders.get(slot).map_or_else(|| self.dispersion(), Ladder::phi)
    }

    fn likelihoods(&self, counts: &[f64], n: f64, tolerance: f64) -> Vec<f64> {
        let slots = counts.len();
        let edge = 1.0 + tolerance;
        let mut l = Vec::with_capacity(slots * ODDS.len() + 1);
        for (slot, count) in counts.iter().enumerate() {
            let f = self.dispersion_of(slot);
            let (e, v) = (count / f, n / f);
            let weight = self.sum / (f * edge);
            let p = self.share(slot);
            let predictive = |p: f64| {
                let (a, b) = (p * weight + 0.5, (1.0 - p) * weight + 0.5);
                ln_gamma(a + e) - ln_gamma(a) + ln_gamma(b + v - e) - ln_gamma(b) - ln_gamma(a + b + v) + ln_gamma(a + b)
            };
            let (low, high) = edges(p, tolerance);
            let (up, down) = (predictive(high), if low > 0.0 { predictive(low) } else { 0.0 });
            for (j, r) in ODDS.iter().enumerate() {
                if j >= FALLS && low <= 0.0 {
                    // Too rare to fall by anything that matters.
                    l.push(-1.0);
                    continue;
                }
                let (from, against) = if j < FALLS { (high, up) } else { (low, down) };
                let q = moved(from, *r);
                l.push(e * q.ln() + (v - e) * (1.0 - q).ln() - against);
            }
        }
        l.push(self.anything(counts, n, tolerance));
        l
    }

    /// Dirichlet(1/2) against the best that tolerance allows.
    fn anything(&self, counts: &[f64], n: f64, tolerance: f64) -> f64 {
        let f = self.dispersion();
        let half = 0.5 * counts.len() as f64;
        let weight = self.sum / (f * (1.0 + tolerance));
        let nearest: Vec<f64> = counts
            .iter()
            .enumerate()
            .map(|(slot, c)| {
                let (low, high) = edges(self.share(slot), tolerance);
                (c / n.max(1.0)).clamp(low.max(1e-9), high)
            })
            .collect();
        let norm: f64 = nearest.iter().sum();
        let (mut bet, mut null) = (0.0, 0.0);
        for (c, p) in counts.iter().zip(&nearest) {
            if *c > 0.0 {
                let a = p / norm * weight + 0.5;
                bet += ln_gamma(0.5 + c / f) - ln_gamma(0.5);
                null += ln_gamma(a + c / f) - ln_gamma(a);
            }
        }
        let v = n / f;
        bet - ln_gamma(half + v) + ln_gamma(half) - (null - ln_gamma(weight + half + v) + ln_gamma(weight + half))
    }

    /// Keeps the last panes; the oldest one's memory is used again.
    fn remember(&mut self, at_ms: i64, learned: bool, counts: &[f64]) {
        let mut slot = if self.recent.len() >= RECENT { self.recent.pop_front().map(|r| r.2).unwrap_or_default() } else { Vec::new() };
        slot.clear();
        slot.extend(counts.iter().map(|c| *c as f32));
        self.recent.push_back((at_ms, learned, slot));
    }

    fn calm(&mut self) {
        self.evidence.clear();
        self.recent.clear();
        self.lagged.clear();
        self.held_since_ms = None;
    }

    fn learn(&mut self, counts: &[f64], n: f64, pane_ms: i64) {
        let fade = decay(pane_ms);
        for (have, c) in self.counts.iter_mut().zip(counts) {
            *have = *have * fade + c;
        }
        self.sum = self.sum * fade + n;
        // Noise is learned some panes late: the first panes of a fault would otherwise call themselves noise.
        let mut slot = if self.lagged.len() > NOISE_LAG { self.lagged.pop_front().unwrap_or_default() } else { Vec::new() };
        if !slot.is_empty() {
            let n: f64 = slot.iter().map(|c| f64::from(*c)).sum();
            let total = self.sum + 0.5 * self.counts.len() as f64;
            for ((ladder, seen), quiet) in self.ladders.iter_mut().zip(&slot).zip(&self.counts) {
                let p = ((quiet + 0.5) / total).min(0.999);
                ladder.feed(f64::from(*seen), n, p * (1.0 - p));
            }
        }
        slot.clear();
        slot.extend(counts.iter().map(|c| *c as f32));
        self.lagged.push_back(slot);
    }

    fn speak(&mut self, sum: f64, injection: f64, at_ms: i64, pane_ms: i64, tolerance: f64, newest: &[(u16, u32)]) -> (Reading, Option<u16>) {
        let slots = self.counts.len();
        let arm = self.evidence.best();
        let start = self.evidence.start_of(arm);
        let (mut since, mut learned) = (vec![0.0; slots], vec![0.0; slots]);
        for (_, was_learned, pane) in self.recent.iter().filter(|r| r.0 >= start) {
            for (i, c) in pane.iter().enumerate() {
                since[i] += f64::from(*c);
                if *was_learned {
                    learned[i] += f64::from(*c);
                }
            }
        }
        let n: f64 = since.iter().sum::<f64>().max(1.0);
        let mut quiet = self.counts.clone();
        for (have, c) in quiet.iter_mut().zip(&learned) {
            *have = (*have - c).max(0.0);
        }
        let quiet_sum: f64 = quiet.iter().sum();
        let share = |i: usize| (quiet[i] + 0.5) / (quiet_sum + 0.5 * slots as f64);
        // The class that moved most, by what it adds to the evidence (binomial deviance).
        let deviance = |i: usize| {
            let (p, s) = (share(i), (since[i] / n).clamp(1e-9, 1.0 - 1e-9));
            (s * (s / p).ln() + (1.0 - s) * ((1.0 - s) / (1.0 - p)).ln()) / self.dispersion_of(i)
        };
        let slot = (0..slots).fold(0, |best, i| if deviance(i) > deviance(best) { i } else { best });
        let told = self.classes.get(slot).copied();
        let change = self.change(slot, share(slot), since[slot], n);
        let (low, high) = edges(change.before, tolerance);
        let (log_evidence, threshold) = nats(sum, injection);
        if change.after <= high && change.after >= low {
            let held = *self.held_since_ms.get_or_insert(at_ms);
            if at_ms - held >= super::HELD_RESET_MS {
                self.calm();
            }
            let call = Call::Held { change, why: "no class moved beyond tolerance" };
            return (Reading { state: State::Armed, log_evidence, threshold, call }, told);
        }
        let onset = self.onset(arm, pane_ms, tolerance);
        self.counts = quiet;
        self.sum = quiet_sum;
        // Half way from the baseline to what was seen, but not farther than a factor of 1.5 or two floors; the class that moved most
        // is never inside its tolerance: that is what recovery must refute.
        let quiet: Vec<f64> = (0..slots).map(|i| self.share(i)).collect();
        let still: Vec<f64> = quiet
            .iter()
            .enumerate()
            .map(|(i, p)| {
                let seen = (since[i] + 0.5) / (n + 0.5 * slots as f64);
                let (low, high) = edges(*p, tolerance);
                let middle = if seen > *p {
                    (p * seen).sqrt().max((p + 2.0 * AT_LEAST).min(0.5 * (p + seen))).min((p * RECOVERY_FACTOR_MAX).max(p + 2.0 * AT_LEAST))
                } else {
                    (p * seen).sqrt().max(p / RECOVERY_FACTOR_MAX)
                };
                match i == slot {
                    true if seen > *p => middle.max(high),
                    true => middle.min(low.max(1e-6)),
                    false => middle,
                }
            })
            .collect();
        let norm: f64 = still.iter().sum();
        let mut tables = Vec::with_capacity(RECOVERY_ARMS * slots);
        for part in [1.0, 0.8, 0.6] {
            tables.extend(quiet.iter().zip(&still).map(|(p, s)| (part * p * norm / s + (1.0 - part)).ln()));
        }
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
            recovery: Mixture::new(RECOVERY_ARMS),
            tables,
            slot,
            before: quiet[slot],
            boundary: still[slot] / norm,
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

    fn onset(&self, arm: usize, pane_ms: i64, tolerance: f64) -> Onset {
        let panes = self.recent.iter().rev().map(|(at, _, pane)| {
            let counts: Vec<f64> = pane.iter().map(|c| f64::from(*c)).collect();
            let n = counts.iter().sum();
            (*at, self.likelihoods(&counts, n, tolerance)[arm])
        });
        onset_of(panes, self.evidence.start_of(arm), pane_ms)
    }

    /// The second part, on recovery: the class by which it is told.
    fn watch_recovery(&mut self, pane: &[(u16, u32)], counts: &[f64], at_ms: i64, pane_ms: i64) -> (Reading, Option<Option<u16>>) {
        let f = self.dispersion();
        let injection = recovery_injection(pane_ms);
        let slots = counts.len();
        let Some(frozen) = self.frozen.as_mut() else {
            return (Reading { state: State::Armed, log_evidence: 0.0, threshold: f64::INFINITY, call: Call::Quiet }, None);
        };
        add_classes(&mut frozen.seen, pane);
        let l: [f64; RECOVERY_ARMS] =
            std::array::from_fn(|j| counts.iter().zip(&frozen.tables[j * slots..(j + 1) * slots]).map(|(c, w)| c / f * w).sum());
        let sum = frozen.recovery.step(&l, injection, at_ms);
        if frozen.recovery.is_idle() {
            frozen.since.fill(0.0);
        } else {
            for (have, c) in frozen.since.iter_mut().zip(counts) {
                *have += c;
            }
        }
        let (log_evidence, threshold) = nats(sum, injection);
        let (slot, before, boundary) = (frozen.slot, frozen.before, frozen.boundary);
        let (hits, n) = (frozen.since[slot], frozen.since.iter().sum::<f64>());
        let share = hits / n.max(1.0);
        let inside = if boundary > before { share <= boundary } else { share >= boundary };
        if sum < 1.0 || !inside {
            return (Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }, None);
        }
        let change = self.change(slot, before, hits, n);
        let told = self.classes.get(slot).copied();
        self.frozen = None;
        self.calm();
        (Reading { state: State::Armed, log_evidence, threshold, call: Call::Recovered { change } }, Some(told))
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    const PANE: i64 = 10_000;
    const B: f64 = 4e-9;

    fn pane(noise: &mut Noise, n: u32, shares: &[f64]) -> Vec<(u16, u32)> {
        let total: f64 = shares.iter().sum();
        let mut counts = vec![0u32; shares.len()];
        for _ in 0..n {
            let mut x = noise.unit() * total;
            let class = shares.iter().position(|s| {
                x -= s;
                x < 0.0
            });
            counts[class.unwrap_or(0)] += 1;
        }
        counts.iter().enumerate().filter(|(_, c)| **c > 0).map(|(i, c)| (i as u16, *c)).collect()
    }

    fn run(bank: &mut ClassBank, noise: &mut Noise, t: &mut i64, n: u32, shares: &[f64], injection: f64, panes: usize) -> (usize, Call) {
        for i in 1..=panes {
            let r = bank.judge(&pane(noise, n, shares), *t, PANE, injection);
            *t += PANE;
            if !matches!(r.call, Call::Quiet) {
                return (i, r.call);
            }
        }
        (panes, Call::Quiet)
    }

    const FEW: [f64; 4] = [0.6, 0.25, 0.1, 0.05];

    fn many() -> Vec<f64> {
        (1..=60).map(|rank| 1.0 / f64::from(rank)).collect()
    }

    #[test]
    fn quiet_classes_stay_within_the_budget_plain_and_wavy() {
        for wavy in [false, true] {
            let mut noise = Noise::new(21);
            let mut pages = 0;
            let (series, panes) = (30, 1_500);
            for i in 0..series {
                let shares = if i % 2 == 0 { FEW.to_vec() } else { many() };
                let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
                let mut t = 0;
                for k in 0..600 + panes {
                    let mut now = shares.clone();
                    if wavy {
                        now.iter_mut().for_each(|s| *s *= (0.3 * noise.normal()).exp());
                    }
                    let b = if k < 600 { 0.0 } else { 10.0 / (series * panes) as f64 };
                    let r = bank.judge(&pane(&mut noise, 100, &now), t, PANE, b);
                    t += PANE;
                    if matches!(r.call, Call::Alarm { .. }) {
                        pages += 1;
                        bank.start_live();
                    }
                }
                assert_eq!(bank.state(), State::Armed);
            }
            assert!(pages <= 10, "wavy {wavy}: {pages} of 10");
        }
    }

    #[test]
    fn moved_vanished_and_new_classes_are_found_told_and_recover() {
        let swap = vec![0.45, 0.25, 0.25, 0.05];
        let gone = vec![0.6, 0.0, 0.1, 0.05];
        let new = vec![0.6, 0.25, 0.1, 0.05, 0.2];
        let all = vec![0.0, 0.0, 0.0, 0.0, 1.0];
        for (to, told, panes_max) in [(swap, Some(2), 16), (gone, Some(1), 9), (new, None, 14), (all, None, 9)] {
            let mut noise = Noise::new(22);
            let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
            let mut t = 0;
            assert_eq!(run(&mut bank, &mut noise, &mut t, 100, &FEW, B, 400).1, Call::Quiet);
            assert!(bank.is_known(3) && !bank.is_known(4) && bank.state() == State::Armed);
            for _ in 0..2 {
                let (panes, call) = run(&mut bank, &mut noise, &mut t, 100, &to, B, 60);
                let Call::Alarm { change, onset } = call else { panic!("{to:?} {call:?}") };
                let began = t - panes as i64 * PANE;
                assert!(panes <= panes_max, "{to:?}: {panes} panes");
                assert!(onset.from_ms <= began && began <= onset.to_ms, "{began} {onset:?}");
                assert!(bank.told() == told || to.len() == 5 && to[0] == 0.0, "{to:?}: {:?} {change:?}", bank.told());
                assert_eq!(run(&mut bank, &mut noise, &mut t, 100, &to, B, 500).1, Call::Quiet, "no recovery while it lasts");
                let (panes, call) = run(&mut bank, &mut noise, &mut t, 100, &FEW, B, 300);
                assert!(matches!(call, Call::Recovered { .. }), "{call:?}");
                assert!(panes < 100, "{panes}");
                assert_eq!(run(&mut bank, &mut noise, &mut t, 100, &FEW, B, 500).1, Call::Quiet);
            }
            assert!((bank.share(0).expect("armed") - 0.6).abs() < 0.02, "nothing was learned from the incident");
        }
    }

    #[test]
    fn changes_within_tolerance_never_page_even_in_big_panes() {
        for n in [100, 5_000] {
            let mut noise = Noise::new(23);
            let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
            let mut t = 0;
            run(&mut bank, &mut noise, &mut t, n, &FEW, B, 200);
            for _ in 0..800 {
                let (_, call) = run(&mut bank, &mut noise, &mut t, n, &[0.58, 0.25, 0.115, 0.055], B, 1);
                assert!(!matches!(call, Call::Alarm { .. }), "{n}: {call:?}");
            }
        }
    }

    #[test]
    fn sparse_panes_many_names_and_a_copy() {
        let mut noise = Noise::new(24);
        let mut bank = ClassBank::new(ClassSettings { tolerance: 0.2 });
        let mut t = 0;
        run(&mut bank, &mut noise, &mut t, 2, &FEW, B, 12_000);
        assert_eq!(bank.state(), State::Armed, "{:?}", bank.sees(B));
        let mut twin = bank.clone();
        let p = pane(&mut noise, 2, &FEW);
        assert_eq!(twin.judge(&p, t, PANE, B), bank.judge(&p, t, PANE, B));
        assert_eq!(twin, bank);
        assert!(matches!(run(&mut bank, &mut noise, &mut t, 2, &[0.0, 0.2, 0.8], B, 600).1, Call::Alarm { .. }));
        bank.release(Release::NewNormal);
        assert_eq!(run(&mut bank, &mut noise, &mut t, 30, &[0.0, 0.2, 0.8], B, 2_000).1, Call::Quiet);
        assert_eq!(bank.state(), State::Armed);
        let mut crowd = ClassBank::new(ClassSettings { tolerance: 0.2 });
        let everyone: Vec<(u16, u32)> = (0..u16::MAX).map(|c| (c, 1)).collect();
        for k in 0..60 {
            crowd.judge(&everyone, k * PANE, PANE, B);
        }
        assert!(crowd.is_known(65_000));
    }
}
