//! Joint drift: features that keep their own laws but no longer go together as they did.
//!
//! **Idea.** Two clocks may both be right on average and yet no longer strike together. For every pair of features count how often
//! both lie on the same side of their medians; that share is 1/2 + asin(rho) / pi for a normal pair of correlation rho (Sheppard
//! 1899; Kendall's tau counts the same), and asks nothing of the shapes. A second count, whether both are near or both far from
//! their medians, sees what has no sign: scales that swell together. Every count is a rate, both ways, for `rate.rs`. The medians
//! follow the features, so a feature that moves alone soon makes no difference here: that is `bins`' business. **Sees** correlations
//! that appear, vanish or turn; does not see dependence of three that no pair shows. **Knob.** `tolerance`: change of the share of
//! agreement that is forgiven; .05 is a correlation of about .16 appearing. **False alarms**: at most the injected sum, as for
//! rates. **Road not taken**: quantile bins of random projections of normal scores; a turn of one correlation among many features
//! hardly shows in a random direction, and what it shows has no name. Here the pair is named and its correlation told.

use serde::{Deserialize, Serialize};

use super::rate::{CountPane, Direction, RateBank, RateSettings};
use super::{Band, Sees};
use crate::verdict::{Call, Change, Reading, Release, State};

/// Features of one bank; the pairs are 28 at most.
pub const FEATURES_MAX: usize = 8;
/// Values of a feature before its median is trusted.
const SETTLE_EVENTS: f64 = 300.0;
/// Step of the median in spreads per value, once settled: a shift of a spread is followed within two hundred values.
const STEP: f64 = 0.02;
/// Panes over which the recent share is told to people.
const SHOWN_PANES: f32 = 32.0;
const KINDS: usize = 2;
const WAYS: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct JointSettings {
    /// Change of the share of agreement that is forgiven, absolute.
    pub tolerance: f64,
}

impl Default for JointSettings {
    fn default() -> Self {
        JointSettings { tolerance: 0.05 }
    }
}

/// What of a pair is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Agreement {
    /// Same side of the medians: the change is told as correlations.
    Side,
    /// Both near or both far: the change is told as shares.
    Distance,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JointBank {
    settings: JointSettings,
    features: Vec<Feature>,
    /// Open pane by pair and kind: agreements and events.
    open: Vec<CountPane>,
    /// By pair, kind and way: more agreement, less agreement.
    banks: Vec<RateBank>,
    /// By pair and kind: agreements and events of the last panes, for people only.
    recent: Vec<[f32; 2]>,
    /// The bank that speaks while an alarm is out.
    named: Option<usize>,
}

/// The pair that has moved most in the last panes, or the one that an alarm names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// Places of the two features.
    pub pair: (usize, usize),
    pub what: Agreement,
    /// Correlation, or share of events, in the last panes; and what is normal of it.
    pub recent: f64,
    pub band: Band,
}

/// Median and spread of one feature, both followed value by value (Robbins and Monro 1951).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Feature {
    n: f64,
    median: f64,
    /// Median distance from the median.
    spread: f64,
}

// === impl JointBank ===

impl JointBank {
    /// For so many features, at most `FEATURES_MAX`; more are not looked at.
    pub fn new(features: usize, settings: JointSettings) -> JointBank {
        let features = features.min(FEATURES_MAX);
        let pairs = features * features.saturating_sub(1) / 2;
        // Less agreement is more disagreement: one formula for both ways.
        let rate = RateSettings { direction: Direction::Up, tolerance: 0.0, at_least: settings.tolerance.clamp(0.0, 0.4) };
        JointBank {
            settings,
            features: vec![Feature::default(); features],
            open: vec![CountPane { hits: 0.0, total: 0.0 }; pairs * KINDS],
            banks: vec![RateBank::new(rate); pairs * KINDS * WAYS],
            recent: vec![[0.0; 2]; pairs * KINDS],
            named: None,
        }
    }

    /// Takes one event into the open pane: a value for each feature; NaN or infinite where it is missing.
    pub fn observe(&mut self, values: &[f64]) {
        let mut sides = [None; FEATURES_MAX];
        for ((feature, value), side) in self.features.iter_mut().zip(values).zip(&mut sides) {
            if value.is_finite() {
                *side = feature.look(*value);
            }
        }
        let mut pair = 0;
        for i in 0..self.features.len() {
            for j in i + 1..self.features.len() {
                if let (Some((side, far)), Some((other_side, other_far))) = (sides[i], sides[j]) {
                    for (kind, agree) in [side == other_side, far == other_far].into_iter().enumerate() {
                        let open = &mut self.open[pair * KINDS + kind];
                        open.hits += f64::from(u8::from(agree));
                        open.total += 1.0;
                    }
                }
                pair += 1;
            }
        }
    }

    /// Closes the open pane: judges first, learns after. `injection`: false pages this bank may spend on this pane, shared by all
    /// pairs; 0 gathers no evidence but learns.
    pub fn judge(&mut self, at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let share = injection / self.banks.len().max(1) as f64;
        let out_before = self.named.is_some();
        let (mut call, mut log_evidence) = (Call::Quiet, f64::NEG_INFINITY);
        for b in 0..self.banks.len() {
            // What a pair has changed to is not learned as usual from the other side.
            if self.banks[b ^ 1].state() == State::Frozen {
                continue;
            }
            let open = self.open[b / WAYS];
            let less = b % WAYS == 1;
            let pane = if less { CountPane { hits: open.total - open.hits, ..open } } else { open };
            let reading = self.banks[b].judge(pane, at_ms, pane_ms, share);
            log_evidence = log_evidence.max(reading.log_evidence);
            match reading.call {
                Call::Alarm { change, onset } if self.named.is_none() => {
                    self.named = Some(b);
                    call = Call::Alarm { change: told(change, b), onset };
                }
                Call::Held { change, why } if matches!(call, Call::Quiet) => call = Call::Held { change: told(change, b), why },
                // Other pairs of the same cause freeze silently; the last to come back tells the recovery.
                Call::Recovered { change } => {
                    if self.banks.iter().all(|bank| bank.state() != State::Frozen) {
                        self.named = None;
                        call = Call::Recovered { change: told(change, b) };
                    }
                }
                Call::Alarm { .. } | Call::Held { .. } | Call::Quiet => {}
            }
        }
        if out_before && matches!(call, Call::Held { .. }) {
            call = Call::Quiet;
        }
        for (recent, open) in self.recent.iter_mut().zip(&self.open) {
            let keep = if open.total > 0.0 { 1.0 - 1.0 / SHOWN_PANES } else { 1.0 };
            *recent = [recent[0] * keep + open.hits as f32, recent[1] * keep + open.total as f32];
        }
        self.open.fill(CountPane { hits: 0.0, total: 0.0 });
        let threshold = if injection > 0.0 { -share.ln() } else { f64::INFINITY };
        Reading { state: self.state(), log_evidence: if log_evidence.is_finite() { log_evidence } else { 0.0 }, threshold, call }
    }

    /// History that is not judged.
    pub fn learn_only(&mut self, at_ms: i64, pane_ms: i64) {
        self.judge(at_ms, pane_ms, 0.0);
    }

    /// The two features that an alarm names, by place, and what of them, while it is out.
    pub fn named(&self) -> Option<(usize, usize, Agreement)> {
        let b = self.named?;
        let (i, j) = self.places(b / (KINDS * WAYS))?;
        Some((i, j, kind_of(b)))
    }

    /// What a person may look at; `None` before anything is known.
    pub fn shown(&self) -> Option<Shown> {
        let moved = |at: usize| -> Option<(usize, f64, f64)> {
            let [hits, total] = self.recent[at].map(f64::from);
            let usual = self.banks[at * WAYS].baseline()?.value;
            (total > 0.0).then(|| (at, hits / total, (hits / total - usual).abs()))
        };
        let most = match self.named {
            Some(b) => moved(b / WAYS),
            None => (0..self.recent.len()).filter_map(moved).max_by(|a, b| a.2.total_cmp(&b.2)),
        };
        let (at, recent, _) = most?;
        let (more, less) = (self.banks[at * WAYS].baseline()?, self.banks[at * WAYS + 1].baseline()?);
        let tell = |share: f64| tell(share.clamp(0.0, 1.0), kind_of(at * WAYS));
        let band = Band { value: tell(more.value), low: tell(1.0 - less.high), high: tell(more.high), events: more.events };
        Some(Shown { pair: self.places(at / KINDS)?, what: kind_of(at * WAYS), recent: tell(recent), band })
    }

    /// Places of the two features of a pair.
    fn places(&self, mut pair: usize) -> Option<(usize, usize)> {
        for i in 0..self.features.len() {
            let here = self.features.len() - 1 - i;
            if pair < here {
                return Some((i, i + 1 + pair));
            }
            pair -= here;
        }
        None
    }

    pub fn release(&mut self, how: Release) {
        self.named = None;
        for bank in &mut self.banks {
            bank.release(how);
        }
    }

    /// The boundary between history and live: what was found in history is listed, never paged, and evidence starts anew.
    pub fn start_live(&mut self) {
        self.named = None;
        self.banks.iter_mut().for_each(RateBank::start_live);
    }

    pub fn state(&self) -> State {
        if self.named.is_some() {
            return State::Frozen;
        }
        let any = |state: State| self.banks.iter().any(|bank| bank.state() == state);
        if any(State::Armed) {
            State::Armed
        } else if any(State::Starved) {
            State::Starved
        } else {
            State::Warming
        }
    }

    /// That of the pair which is seen best.
    pub fn sees(&self, injection: f64) -> Sees {
        let share = injection / self.banks.len().max(1) as f64;
        let best = self.banks.iter().map(|bank| bank.sees(share)).min_by(|a, b| a.needs_events.total_cmp(&b.needs_events));
        best.unwrap_or(Sees { armed: false, needs_events: f64::INFINITY })
    }

    pub fn reset(&mut self) {
        *self = JointBank::new(self.features.len(), self.settings);
    }
}

fn kind_of(bank: usize) -> Agreement {
    if (bank / WAYS).is_multiple_of(KINDS) { Agreement::Side } else { Agreement::Distance }
}

/// A share of agreement, as a correlation where sides agree.
fn tell(agree: f64, what: Agreement) -> f64 {
    match what {
        Agreement::Side => (std::f64::consts::PI * (agree - 0.5)).sin(),
        Agreement::Distance => agree,
    }
}

/// A change of the share of (dis)agreement, as correlations where sides agree.
fn told(change: Change, bank: usize) -> Change {
    let turned = bank % WAYS == 1;
    let tell = |share: f64| tell(if turned { 1.0 - share } else { share }, kind_of(bank));
    let (low, high) = (tell(change.low), tell(change.high));
    Change { before: tell(change.before), after: tell(change.after), low: low.min(high), high: low.max(high) }
}

// === impl Feature ===

impl Feature {
    /// Above its median? Far from it? `None` while these are not known. Looks first, learns after.
    fn look(&mut self, value: f64) -> Option<(bool, bool)> {
        let (off, seen) = (value - self.median, self.n >= SETTLE_EVENTS);
        let answer = seen.then_some((off > 0.0, off.abs() > self.spread));
        self.n += 1.0;
        if self.n <= 1.0 {
            self.median = value;
            return answer;
        }
        if self.spread <= 0.0 {
            self.spread = off.abs();
        }
        // Large steps first, then small ones for ever.
        let step = self.spread * STEP.max(3.0 / self.n);
        self.median += step * f64::from(i8::from(off > 0.0) - i8::from(off < 0.0));
        self.spread *= (STEP.max(3.0 / self.n) * if off.abs() > self.spread { 1.0 } else { -1.0 }).exp();
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    const PANE: i64 = 10_000;
    const B: f64 = 1e-6;

    /// Four features: 0 and 1 with a correlation, 2 skewed and alone, 3 follows 2 in scale when `swell`.
    fn event(noise: &mut Noise, rho: f64, swell: bool) -> [f64; 4] {
        let (a, b, c) = (noise.normal(), noise.normal(), noise.normal());
        let scale = if swell { (0.8 * c.abs() - 0.6).exp() } else { (0.8 * noise.normal().abs() - 0.6).exp() };
        [a, 10.0 + 3.0 * (rho * a + (1.0 - rho * rho).sqrt() * b), c.exp(), scale * noise.normal()]
    }

    fn run(bank: &mut JointBank, noise: &mut Noise, t: &mut i64, rho: f64, swell: bool, b: f64, panes: usize) -> (usize, Call) {
        for i in 1..=panes {
            for _ in 0..60 {
                bank.observe(&event(noise, rho, swell));
            }
            let r = bank.judge(*t, PANE, b);
            *t += PANE;
            if !matches!(r.call, Call::Quiet) {
                return (i, r.call);
            }
        }
        (panes, Call::Quiet)
    }

    #[test]
    fn quiet_features_stay_within_the_budget_also_when_they_move_alone() {
        let (mut pages, series, panes) = (0, 30, 400);
        for seed in 0..series {
            let mut noise = Noise::new(50 + seed);
            let mut bank = JointBank::new(4, JointSettings::default());
            for i in 0..150 + panes {
                for _ in 0..60 {
                    let mut e = event(&mut noise, 0.4, false);
                    e[0] += 0.5 * (i as f64 / 60.0).sin();
                    e[2] *= 1.0 + 0.3 * (i as f64 / 90.0).cos();
                    bank.observe(&e);
                }
                let b = if i < 150 { 0.0 } else { 6.0 / (series as usize * panes) as f64 };
                if let Call::Alarm { .. } = bank.judge(i as i64 * PANE, PANE, b).call {
                    pages += 1;
                    break;
                }
            }
        }
        println!("{pages} pages of 6");
        assert!(pages <= 6, "{pages}");
    }

    #[test]
    fn a_correlation_that_appears_or_turns_is_found_named_and_recovers() {
        for (from, to, panes_max) in [(0.0, 0.5, 25), (0.5, -0.5, 15), (0.5, 0.0, 25)] {
            let mut noise = Noise::new(6);
            let mut bank = JointBank::new(4, JointSettings::default());
            let mut t = 0;
            assert_eq!(run(&mut bank, &mut noise, &mut t, from, false, B, 500).1, Call::Quiet);
            for _ in 0..2 {
                let (panes, call) = run(&mut bank, &mut noise, &mut t, to, false, B, 60);
                let Call::Alarm { change, .. } = call else { panic!("{from} -> {to}: {call:?}") };
                println!("{from} -> {to}: {panes} panes, {change:?}");
                assert_eq!(bank.named(), Some((0, 1, Agreement::Side)));
                let shown = bank.shown().expect("a pair");
                assert!(
                    shown.pair == (0, 1) && (shown.band.value - from).abs() < 0.12 && shown.band.low < from && from < shown.band.high,
                    "{shown:?}"
                );
                assert!(panes <= panes_max && (change.before - from).abs() < 0.12 && (change.after - to).abs() < 0.25, "{panes} {change:?}");
                assert_eq!(run(&mut bank, &mut noise, &mut t, to, false, B, 300).1, Call::Quiet, "no recovery while it lasts");
                let (panes, call) = run(&mut bank, &mut noise, &mut t, from, false, B, 200);
                assert!(matches!(call, Call::Recovered { .. }) && panes <= 120, "{panes} {call:?}");
                assert_eq!(run(&mut bank, &mut noise, &mut t, from, false, B, 300).1, Call::Quiet);
            }
        }
    }

    #[test]
    fn scales_that_swell_together_are_found_and_missing_values_are_left_out() {
        let mut noise = Noise::new(7);
        let mut bank = JointBank::new(4, JointSettings::default());
        let mut t = 0;
        assert_eq!(run(&mut bank, &mut noise, &mut t, 0.0, false, B, 500).1, Call::Quiet);
        bank.observe(&[f64::NAN, 1.0, f64::INFINITY, 2.0]);
        bank.observe(&[]);
        let (panes, call) = run(&mut bank, &mut noise, &mut t, 0.0, true, B, 100);
        println!("{panes} panes, {call:?}, {:?}", bank.named());
        assert!(matches!(call, Call::Alarm { .. }), "{call:?}");
        assert_eq!(bank.named(), Some((2, 3, Agreement::Distance)));
    }

    #[test]
    fn constants_and_single_features_do_no_harm() {
        let (mut one, mut still) = (JointBank::new(1, JointSettings::default()), JointBank::new(2, JointSettings::default()));
        for i in 0..400 {
            for _ in 0..30 {
                one.observe(&[1.0]);
                still.observe(&[1.0, 0.0]);
            }
            for bank in [&mut one, &mut still] {
                let r = bank.judge(i * PANE, PANE, B);
                assert!(matches!(r.call, Call::Quiet) && r.log_evidence.is_finite());
            }
        }
    }
}
