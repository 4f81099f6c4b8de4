//! Counts with an exposure: predictions per pane (traffic), complaints per predictions of the last hour.
//!
//! **Idea.** A count over an exposure (panes, or predictions) is judged against the gamma-Poisson predictive of everything quiet,
//! moved to the edge of tolerance. **Formula.** With S counts over exposure T, phi the over-dispersion, e = count / phi and
//! w = exposure / phi: ln D = ln G(A + e) - ln G(A) + A ln(T'/(T' + w)) + e ln(w/(T' + w)), where T' = T / (phi (1 + tolerance)) and
//! A / T' is the edge; an alternative of rate q has ln L = e ln(q w) - q w - ln D (the factorial cancels). **Alternatives** are five
//! ratios beyond each edge and a gamma of shape 1/2 with a far mean, which reaches everything. **Sees** rises and, with `both`, falls
//! down to a stop: a pane with nothing in it is evidence as long as it had an exposure. Does not see what stays within
//! `max(p (1 + tolerance), p + at_least)`, nor seasons: divide those out first or leave them to `seasonal_step`. **Knobs.** `tolerance`
//! buys quiet for delay; `at_least` arms a signal that normally never happens. **False alarms**: at most the injected sum on average;
//! bursty counts (Fano 4) are held by a ladder of pair differences and by the cap per pane, measured below.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Band, Ladder, Mixture, Sees, decay, ln_gamma, nats, onset_of, recovery_injection};
use crate::verdict::{Call, Change, Onset, Reading, Release, State};

/// Beyond the upper edge; then the gamma that reaches everything; then below the lower edge.
const UP: [f64; 5] = [1.4, 2.0, 3.0, 5.0, 8.0];
const DOWN: [f64; 5] = [0.7, 0.5, 0.3, 0.1, 0.02];
const ANYTHING: usize = UP.len();
const ARMS_UP: usize = UP.len() + 1;
const ARMS: usize = ARMS_UP + DOWN.len();
/// Mean of the gamma that reaches everything, in units of the upper edge.
const ANYTHING_MEAN: f64 = 20.0;
const RECOVERY_ARMS: usize = 5;
const RECOVERY_FACTOR_MAX: f64 = 1.5;
/// Panes by which learning the noise lags behind.
const NOISE_LAG: usize = 12;
/// Panes of which the noise must be known before the first bet.
const NOISE_PANES_MIN: u32 = 48;
/// Armed when a change of this factor could be seen, once the noise is known and so many came. A doubling is seen long after.
const YOUNG_FACTOR: f64 = 5.0;
const YOUNG_COUNT: f64 = 8.0;
/// Evidence, in nats since its pointer, below which what is known of the noise holds nothing of an incident; looked at every so many
/// panes that the ladder took in.
const CALM_NATS: f32 = 2.0;
const CALM_PANES: u32 = 16;
/// Summaries of recent panes kept for the onset interval.
const RECENT: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountsSettings {
    /// Relative change that is forgiven: 0.2 forgives 100 -> 120 and, with `both`, 100 -> 83.
    pub tolerance: f64,
    /// Absolute change that is forgiven, per unit of exposure.
    pub at_least: f64,
    /// Falls too, not rises only.
    pub both: bool,
}

/// What came in over how much exposure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tally {
    count: f64,
    exposure: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountsBank {
    settings: CountsSettings,
    quiet: Tally,
    /// Panes that wait to tell how noisy this series is, oldest first.
    lagged: VecDeque<Tally>,
    ladder: Ladder,
    /// The noise as it was when there was last no evidence to speak of: what it is again after an alarm.
    noise: Option<Box<Ladder>>,
    evidence: Mixture,
    /// Taken in since each pointer: seen, and of that learned, to be given back at an alarm.
    since: [(Tally, Tally); ARMS],
    recent: VecDeque<(i64, Tally)>,
    armed: bool,
    held_since_ms: Option<i64>,
    hour: (i64, f64),
    starved: bool,
    frozen: Option<Frozen>,
}

/// From the alarm to recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    /// The incident is a fall.
    down: bool,
    before: f64,
    boundary: f64,
    recovery: Mixture,
    /// Seen since the onset, and since each pointer of the recovery test.
    seen: Tally,
    since: [Tally; RECOVERY_ARMS],
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, other: Tally) {
        self.count += other.count;
        self.exposure += other.exposure;
    }

    fn take(&mut self, other: Tally) {
        self.count = (self.count - other.count).max(0.0);
        self.exposure = (self.exposure - other.exposure).max(0.0);
    }

    /// Jeffreys' half an event keeps it above nothing.
    fn rate(self) -> f64 {
        (self.count + 0.5) / self.exposure.max(1e-9)
    }
}

// === impl CountsBank ===

impl CountsSettings {
    /// Alternatives that are bet on.
    fn arms(&self) -> usize {
        if self.both { ARMS } else { ARMS_UP }
    }
}

impl CountsBank {
    pub fn new(settings: CountsSettings) -> CountsBank {
        CountsBank {
            settings,
            quiet: Tally::default(),
            lagged: VecDeque::new(),
            ladder: Ladder::default(),
            noise: None,
            evidence: Mixture::new(settings.arms()),
            since: [(Tally::default(), Tally::default()); ARMS],
            recent: VecDeque::new(),
            armed: false,
            held_since_ms: None,
            hour: (i64::MIN, 0.0),
            starved: false,
            frozen: None,
        }
    }

    /// Judges first, learns after. A pane without exposure says nothing; one with exposure and a count of 0 does.
    /// `injection`: false pages this bank may spend on this pane; 0 gathers no evidence but learns.
    pub fn judge(&mut self, count: f64, exposure: f64, at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        self.count_hour(exposure, at_ms);
        if exposure <= 0.0 || !exposure.is_finite() || !count.is_finite() {
            return self.reading(Call::Quiet, injection);
        }
        let pane = Tally { count: count.max(0.0), exposure };
        if self.frozen.is_some() {
            return self.watch_recovery(pane, at_ms, pane_ms);
        }
        if !self.armed {
            let young = self.ladder.fed >= NOISE_PANES_MIN && self.quiet.count >= YOUNG_COUNT && self.sees_factor(YOUNG_FACTOR, injection).armed;
            self.armed = young || self.sees(injection).armed;
        }
        if !self.armed || injection <= 0.0 {
            self.learn(pane, pane_ms);
            return self.reading(Call::Quiet, injection);
        }

        let l = self.likelihoods(pane);
        let sum = self.evidence.step(&l[..self.settings.arms()], injection, at_ms);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((at_ms, pane));
        // Learning stops while evidence is high: at B^(1/4) it does not bias the null. A baseline too young for a doubling stops earlier,
        // for it would learn most faults before it could show them.
        let gate = injection.powf(if self.sees(injection).armed { 0.25 } else { 0.375 });
        let learns = sum < gate && sum < 1.0;
        for (j, (seen, learned)) in self.since.iter_mut().enumerate().take(self.settings.arms()) {
            if self.evidence.start_of(j) == at_ms {
                (*seen, *learned) = (Tally::default(), Tally::default());
            }
            seen.add(pane);
            if learns {
                learned.add(pane);
            }
        }
        if sum >= 1.0 {
            return self.speak(at_ms, pane_ms, injection, sum);
        }
        self.held_since_ms = None;
        if self.evidence.gathered() < CALM_NATS && (self.noise.is_none() || self.ladder.fed.is_multiple_of(CALM_PANES)) {
            self.noise = Some(Box::new(self.ladder.clone()));
        }
        if learns {
            self.learn(pane, pane_ms);
        }
        self.reading(Call::Quiet, injection)
    }

    /// History that is not judged.
    pub fn learn_only(&mut self, count: f64, exposure: f64, at_ms: i64, pane_ms: i64) {
        self.judge(count, exposure, at_ms, pane_ms, 0.0);
    }

    /// Counts of an imported reference.
    pub fn import(&mut self, count: f64, exposure: f64) {
        self.quiet.add(Tally { count, exposure });
    }

    pub fn release(&mut self, how: Release) {
        let Some(frozen) = self.frozen.take() else {
            return;
        };
        match how {
            Release::Fixed | Release::Expected => {}
            Release::NewNormal => {
                self.quiet = frozen.seen;
                self.armed = false;
            }
            Release::FalseAlarm => self.quiet.add(frozen.seen),
        }
        self.calm();
    }

    /// The boundary between history and live: what was found in history is listed, never paged, and evidence starts anew.
    pub fn start_live(&mut self) {
        self.frozen = None;
        self.calm();
    }

    pub fn state(&self) -> State {
        if self.frozen.is_some() {
            State::Frozen
        } else if !self.armed {
            State::Warming
        } else if self.starved {
            State::Starved
        } else {
            State::Armed
        }
    }

    /// Armed when the baseline could ever show a doubling (or the floor) beyond the threshold: twice the evidence needed.
    /// `needs_events` counts units of exposure.
    pub fn sees(&self, injection: f64) -> Sees {
        self.sees_factor(2.0, injection)
    }

    fn sees_factor(&self, factor: f64, injection: f64) -> Sees {
        let b = if injection > 0.0 { injection } else { 1e-9 };
        let wanted = 2.0 * (-b.ln() + (self.settings.arms() as f64).ln());
        let phi = self.ladder.phi();
        let p = self.quiet.rate();
        let q = (p * factor / (1.0 + self.settings.tolerance)).max(p + self.settings.at_least);
        let per_unit = p * (p / q).ln() + q - p;
        let have = self.quiet.exposure / phi * per_unit;
        let noise_known = self.ladder.fed >= NOISE_PANES_MIN;
        let armed = noise_known && have >= wanted && self.quiet.exposure > 0.0;
        Sees { armed, needs_events: if have >= wanted { 0.0 } else { (wanted - have) / per_unit.max(1e-12) * phi } }
    }

    /// The usual count per unit of exposure.
    pub fn baseline(&self) -> Option<Band> {
        (self.quiet.exposure > 0.0).then(|| {
            let value = self.quiet.count / self.quiet.exposure;
            let low = if self.settings.both { self.edge_down(value) } else { 0.0 };
            Band { value, low, high: self.edge_up(value), events: self.quiet.count }
        })
    }

    /// A successor that starts from these counts, discounted to at most `weight_max` units of exposure.
    pub fn succeed(&self, weight_max: f64) -> CountsBank {
        let share = (weight_max / self.quiet.exposure.max(1e-9)).min(1.0);
        let mut next = CountsBank::new(self.settings);
        next.quiet = Tally { count: self.quiet.count * share, exposure: self.quiet.exposure * share };
        next.ladder = self.ladder.clone();
        next.armed = self.armed;
        next
    }

    pub fn reset(&mut self) {
        *self = CountsBank::new(self.settings);
    }

    // --- the recipe, step by step ---

    fn calm(&mut self) {
        self.evidence.clear();
        self.since = [(Tally::default(), Tally::default()); ARMS];
        self.recent.clear();
        self.lagged.clear();
        self.held_since_ms = None;
        self.noise = None;
    }

    /// An armed series is starved when an hour had no exposure: no events is evidence, nothing to count over is not.
    fn count_hour(&mut self, exposure: f64, at_ms: i64) {
        let hour = at_ms.div_euclid(3_600_000);
        if hour != self.hour.0 {
            self.starved = self.hour.0 != i64::MIN && self.hour.1 <= 0.0;
            self.hour = (hour, 0.0);
        }
        self.hour.1 += exposure.max(0.0);
    }

    fn edge_up(&self, p: f64) -> f64 {
        (p * (1.0 + self.settings.tolerance)).max(p + self.settings.at_least)
    }

    fn edge_down(&self, p: f64) -> f64 {
        (p / (1.0 + self.settings.tolerance)).min(p - self.settings.at_least).max(p * 1e-3)
    }

    /// Log-likelihood ratios of all alternatives, each against the predictive at the edge of tolerance on its side.
    fn likelihoods(&self, pane: Tally) -> [f64; ARMS] {
        let phi = self.ladder.phi();
        let (e, w) = (pane.count / phi, pane.exposure / phi);
        let p = self.quiet.rate();
        // Tolerance divides the exposure: evidence counts only beyond it.
        let t = self.quiet.exposure / (phi * (1.0 + self.settings.tolerance));
        let predictive = |edge: f64| {
            let a = edge * t;
            ln_gamma(a + e) - ln_gamma(a) - a * (w / t).ln_1p() + e * (w / (t + w)).ln()
        };
        let fixed = |q: f64| e * (q * w).ln() - q * w;
        let mut l = [0.0; ARMS];
        let edge = self.edge_up(p);
        let up = predictive(edge);
        for (l, ratio) in l.iter_mut().zip(UP) {
            *l = fixed(edge * ratio) - up;
        }
        let t0 = 0.5 / (ANYTHING_MEAN * edge);
        let anything = ln_gamma(0.5 + e) - ln_gamma(0.5) - 0.5 * (w / t0).ln_1p() + e * (w / (t0 + w)).ln() - up;
        l[ANYTHING] = if e > edge * w { anything } else { anything.min(-0.5) };
        if self.settings.both {
            let edge = self.edge_down(p);
            let down = predictive(edge);
            for (l, ratio) in l[ARMS_UP..].iter_mut().zip(DOWN) {
                *l = fixed(edge * ratio) - down;
            }
        }
        l
    }

    /// Evidence has reached the threshold: alarm, or held because the change is not worth one.
    fn speak(&mut self, at_ms: i64, pane_ms: i64, injection: f64, sum: f64) -> Reading {
        let arm = self.evidence.best();
        let down = arm >= ARMS_UP;
        let (seen, learned) = self.since[arm];
        let mut quiet = self.quiet;
        quiet.take(learned);
        let change = self.change(quiet.rate(), seen);
        let p0 = change.before;
        let beyond = if down { change.after < self.edge_down(p0) } else { change.after > self.edge_up(p0) };
        let (log_evidence, threshold) = nats(sum, injection);
        if !beyond {
            let since = *self.held_since_ms.get_or_insert(at_ms);
            if at_ms - since >= super::HELD_RESET_MS {
                self.calm();
            }
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Held { change, why: "the change is within tolerance" } };
        }
        let onset = self.onset(arm, pane_ms);
        self.quiet = quiet;
        if let Some(ladder) = self.noise.take() {
            self.ladder = *ladder;
        }
        // What comes after the incident is no neighbour of what came before it.
        self.ladder.part();
        // Recovery must refute the geometric middle of quiet and incident, but no more than a factor of 1.5 or two floors.
        let middle = (p0 * change.after.max(1e-12)).sqrt();
        let floors = 2.0 * self.settings.at_least;
        let boundary = if down {
            middle.max((p0 / RECOVERY_FACTOR_MAX).min(p0 - floors)).min(self.edge_down(p0))
        } else {
            middle.min((p0 * RECOVERY_FACTOR_MAX).max(p0 + floors)).max(self.edge_up(p0))
        };
        self.calm();
        self.frozen =
            Some(Frozen { down, before: p0, boundary, recovery: Mixture::new(RECOVERY_ARMS), seen, since: [Tally::default(); RECOVERY_ARMS] });
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }
    }

    /// Interval of 95 % for a Poisson mean (score), widened by the over-dispersion.
    fn change(&self, before: f64, after: Tally) -> Change {
        let phi = self.ladder.phi();
        let (x, w) = (after.count / phi, (after.exposure / phi).max(1e-12));
        let half = 1.96 * (x + 0.9604).sqrt();
        let value = if after.exposure > 0.0 { after.count / after.exposure } else { 0.0 };
        Change { before, after: value, low: ((x + 1.9208 - half) / w).max(0.0).min(value), high: (x + 1.9208 + half) / w }
    }

    fn onset(&self, arm: usize, pane_ms: i64) -> Onset {
        let panes = self.recent.iter().rev().map(|(at, pane)| (*at, self.likelihoods(*pane)[arm]));
        onset_of(panes, self.evidence.start_of(arm), pane_ms)
    }

    fn watch_recovery(&mut self, pane: Tally, at_ms: i64, pane_ms: i64) -> Reading {
        let phi = self.ladder.phi();
        let injection = recovery_injection(pane_ms);
        let Some(frozen) = self.frozen.as_mut() else {
            return self.reading(Call::Quiet, injection);
        };
        frozen.seen.add(pane);
        let (e, w) = (pane.count / phi, pane.exposure / phi);
        let (p0, c) = (frozen.before, frozen.boundary);
        let far = if frozen.down { p0 / 0.7 } else { 0.7 * p0 };
        let alternatives = [far, p0, p0 + 0.25 * (c - p0), p0 + 0.5 * (c - p0), p0 + 0.7 * (c - p0)];
        let l = alternatives.map(|q| e * (q / c).ln() - w * (q - c));
        let sum = frozen.recovery.step(&l, injection, at_ms);
        for (j, since) in frozen.since.iter_mut().enumerate() {
            if frozen.recovery.start_of(j) == at_ms {
                *since = Tally::default();
            }
            since.add(pane);
        }
        let (log_evidence, threshold) = nats(sum, injection);
        let since = frozen.since[frozen.recovery.best()];
        let rate = since.count / since.exposure.max(1e-12);
        // What came back may lie anywhere on the good side of the boundary, and in a fall also well above it.
        let inside = if frozen.down { rate >= c } else { rate <= c };
        if sum >= 1.0 && inside {
            let before = frozen.before;
            let change = self.change(before, since);
            self.frozen = None;
            self.calm();
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Recovered { change } };
        }
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }
    }

    fn learn(&mut self, pane: Tally, pane_ms: i64) {
        let fade = decay(pane_ms);
        self.quiet.count *= fade;
        self.quiet.exposure *= fade;
        // Noise is learned some panes late: the first panes of a fault would otherwise call themselves noise.
        self.lagged.push_back(pane);
        if self.lagged.len() > NOISE_LAG
            && let Some(old) = self.lagged.pop_front()
        {
            let rate = self.quiet.rate().max(self.settings.at_least);
            self.ladder.feed(old.count, old.exposure, rate);
        }
        self.quiet.add(pane);
    }

    fn reading(&self, call: Call, injection: f64) -> Reading {
        let (log_evidence, threshold) = nats(self.evidence.sum(), injection);
        Reading { state: self.state(), log_evidence, threshold, call }
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    const PANE: i64 = 10_000;
    const B: f64 = 4e-9;

    fn traffic() -> CountsSettings {
        CountsSettings { tolerance: 0.2, at_least: 0.0, both: true }
    }

    /// Counts of mean `mean` and Fano factor `fano` until the bank calls something; panes used and the call.
    fn run(bank: &mut CountsBank, noise: &mut Noise, t: &mut i64, mean: f64, fano: f64, injection: f64, panes: usize) -> (usize, Call) {
        for i in 1..=panes {
            let r = bank.judge(noise.count(mean, fano), 1.0, *t, PANE, injection);
            *t += PANE;
            if !matches!(r.call, Call::Quiet) {
                return (i, r.call);
            }
        }
        (panes, Call::Quiet)
    }

    #[test]
    fn quiet_traffic_stays_within_the_budget_plain_and_bursty() {
        for fano in [1.0, 4.0] {
            let mut noise = Noise::new(11);
            let mut pages = 0;
            let (series, panes) = (90, 3_000);
            for i in 0..series {
                let mean = [1.0, 5.0, 50.0][i % 3];
                let mut bank = CountsBank::new(traffic());
                let mut t = 0;
                run(&mut bank, &mut noise, &mut t, mean, fano, 0.0, 1_000);
                let b = 10.0 / (series * panes) as f64;
                let (_, call) = run(&mut bank, &mut noise, &mut t, mean, fano, b, panes);
                pages += usize::from(matches!(call, Call::Alarm { .. }));
            }
            assert!(pages <= 10, "fano {fano}: {pages} of 10");
        }
    }

    #[test]
    fn a_stop_a_fall_and_a_flood_are_found_told_and_recover() {
        for (mean, fano) in [(50.0, 1.0), (50.0, 4.0), (1_000.0, 10.0)] {
            for (to, panes_max) in [(0.0, 12), (0.4, 60), (2.0, 40), (100.0, 9)] {
                let mut noise = Noise::new(12);
                let mut bank = CountsBank::new(traffic());
                let mut t = 0;
                assert_eq!(run(&mut bank, &mut noise, &mut t, mean, fano, B, 2_000).1, Call::Quiet);
                assert_eq!(bank.state(), State::Armed);
                for _ in 0..2 {
                    let began = t;
                    let (panes, call) = run(&mut bank, &mut noise, &mut t, mean * to, fano, B, 300);
                    let Call::Alarm { change, onset } = call else { panic!("{mean} {fano} {to}: {call:?}") };
                    assert!(panes <= panes_max, "{mean} {fano} {to}: {panes} panes");
                    assert!((change.before / mean - 1.0).abs() < 0.1, "{change:?}");
                    assert!((change.after - mean * to).abs() <= 0.25 * mean * to, "{change:?}");
                    assert!(onset.from_ms <= began && began <= onset.to_ms, "{began} {onset:?}");
                    assert_eq!(run(&mut bank, &mut noise, &mut t, mean * to, fano, B, 1_000).1, Call::Quiet, "no recovery while it lasts");
                    let (panes, call) = run(&mut bank, &mut noise, &mut t, mean, fano, B, 400);
                    assert!(matches!(call, Call::Recovered { .. }), "{mean} {fano} {to}: {call:?}");
                    assert!(panes < 100, "{panes}");
                    assert_eq!(run(&mut bank, &mut noise, &mut t, mean, fano, B, 1_000).1, Call::Quiet);
                }
                assert!((bank.baseline().expect("learned").value / mean - 1.0).abs() < 0.1, "nothing was learned from the incident");
            }
        }
    }

    #[test]
    fn complaints_that_never_happen_arm_on_the_floor_and_are_seen() {
        let mut bank = CountsBank::new(CountsSettings { tolerance: 0.2, at_least: 0.001, both: false });
        let mut noise = Noise::new(13);
        let mut t = 0;
        let mut next = |bank: &mut CountsBank, rate: f64| {
            t += PANE;
            bank.judge(noise.count(500.0 * rate, 1.0), 500.0, t, PANE, B)
        };
        for _ in 0..1_000 {
            assert_eq!(next(&mut bank, 0.0).call, Call::Quiet);
        }
        assert_eq!(bank.state(), State::Armed, "{:?}", bank.sees(B));
        let alarm = (0..60).position(|_| matches!(next(&mut bank, 0.01).call, Call::Alarm { .. }));
        assert!(alarm.is_some_and(|panes| panes < 12), "{alarm:?}");
        let back = (0..200).position(|_| matches!(next(&mut bank, 0.0).call, Call::Recovered { .. }));
        assert!(back.is_some_and(|panes| panes < 60), "{back:?}");
    }

    /// Complaints of a young service: some dozens in all. A doubling cannot be seen yet, fifteen times as many can, and must not become
    /// what is normal; and quiet ones page no more than was promised.
    #[test]
    fn a_young_baseline_sees_large_changes_and_keeps_the_budget() {
        let settings = CountsSettings { tolerance: 0.2, at_least: 0.0, both: false };
        let (panes, series) = (600u32, 60u32);
        let injection = 1.0 / f64::from(panes * series);
        let (mut pages, mut found) = (0, 0);
        for k in 0..series {
            let mut noise = Noise::new(900 + u64::from(k));
            let mut bank = CountsBank::new(settings);
            let mut t = 0;
            for i in 0..300 + panes {
                let count = noise.count(0.2, 1.0);
                let r = bank.judge(count, 50.0, t, 10_000, if i < 300 { 0.0 } else { injection });
                t += 10_000;
                if matches!(r.call, Call::Alarm { .. }) {
                    pages += 1;
                    bank.release(Release::Fixed);
                }
            }
            assert!(!bank.sees(1e-8).armed, "a doubling is not to be seen");
            for _ in 0..30 {
                let r = bank.judge(noise.count(3.0, 1.0), 50.0, t, 10_000, 1e-8);
                t += 10_000;
                if matches!(r.call, Call::Alarm { .. }) {
                    found += 1;
                    break;
                }
            }
        }
        assert!(pages <= 3, "{pages} pages where one was promised");
        assert_eq!(found, series, "fifteen times as many within five minutes");
    }

    #[test]
    fn a_change_within_tolerance_never_pages() {
        let mut noise = Noise::new(14);
        let mut bank = CountsBank::new(traffic());
        let mut t = 0;
        run(&mut bank, &mut noise, &mut t, 100.0, 2.0, B, 2_000);
        for _ in 0..3_000 {
            let (_, call) = run(&mut bank, &mut noise, &mut t, 113.0, 2.0, B, 1);
            assert!(!matches!(call, Call::Alarm { .. }), "{call:?}");
        }
    }

    #[test]
    fn closing_as_new_normal_starts_anew_and_a_copy_goes_on_the_same() {
        let mut noise = Noise::new(15);
        let mut bank = CountsBank::new(traffic());
        let mut t = 0;
        run(&mut bank, &mut noise, &mut t, 100.0, 2.0, B, 1_000);
        assert!(matches!(run(&mut bank, &mut noise, &mut t, 300.0, 2.0, B, 60).1, Call::Alarm { .. }));
        run(&mut bank, &mut noise, &mut t, 300.0, 2.0, B, 500);
        let mut twin = bank.clone();
        assert_eq!(twin.judge(299.0, 1.0, t, PANE, B), bank.judge(299.0, 1.0, t, PANE, B));
        assert_eq!(twin, bank);
        bank.release(Release::NewNormal);
        assert_eq!(run(&mut bank, &mut noise, &mut t, 300.0, 2.0, B, 2_000).1, Call::Quiet);
        assert_eq!(bank.state(), State::Armed);
        assert!((bank.baseline().expect("learned").value - 300.0).abs() < 10.0);
    }

    #[test]
    fn the_same_fault_is_found_as_often_as_it_comes_and_teaches_nothing() {
        for (mean, to, panes, pause) in [(40.0, 10.0, 45, 200), (40.0, 2.0, 60, 200), (20.0, 0.4, 90, 300), (200.0, 0.65, 60, 300)] {
            for how in [None, Some(panes / 2), Some(panes)] {
                let mut noise = Noise::new(16);
                let mut bank = CountsBank::new(traffic());
                let mut t = 0;
                run(&mut bank, &mut noise, &mut t, mean, 1.0, B, 1_000);
                let mut found = Vec::new();
                for _ in 0..10 {
                    let (at, call) = run(&mut bank, &mut noise, &mut t, mean * to, 1.0, B, panes);
                    assert!(matches!(call, Call::Alarm { .. }), "{mean} x {to}, {how:?}: found {found:?}, then {call:?}");
                    found.push(at);
                    run(&mut bank, &mut noise, &mut t, mean * to, 1.0, B, panes / 2);
                    if how.is_some() {
                        bank.release(Release::Fixed);
                    }
                    if how == Some(panes / 2) {
                        run(&mut bank, &mut noise, &mut t, mean * to, 1.0, B, panes);
                    }
                    run(&mut bank, &mut noise, &mut t, mean, 1.0, B, pause);
                    bank.release(Release::Fixed);
                    run(&mut bank, &mut noise, &mut t, mean, 1.0, B, 50);
                }
                let band = bank.baseline().expect("learned");
                assert!((band.value / mean - 1.0).abs() < 0.05, "{mean} x {to}, {how:?}: {band:?}");
                assert!(bank.ladder.phi() < 1.3, "{mean} x {to}, {how:?}: noise {}, {found:?}", bank.ladder.phi());
            }
        }
    }
}
