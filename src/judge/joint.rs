//! Numeric features taken together: which of them are compared, by name, before the evidence that knows them by place.

use std::sync::Arc;

use bellwether_detectors::evidence::joint::{Agreement, FEATURES_MAX, JointBank, JointSettings};
use bellwether_detectors::evidence::{Band, Sees};
use bellwether_detectors::{Reading, Release, State};
use serde::{Deserialize, Serialize};

use crate::pane::{Row, Samples, SlotName};

/// Events looked at before it is decided which features are compared.
const CHOICE_EVENTS: u32 = 200;
/// A slot that this process has not given out yet.
const UNKNOWN: u16 = u16::MAX;
/// Features between which is chosen.
const CANDIDATES_MAX: usize = 64;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JointLine {
    tolerance: f64,
    /// Before the choice: features met, and in how many events. After it: those that are compared, in the order of their names.
    features: Vec<Candidate>,
    events: u32,
    bank: Option<Box<JointBank>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Candidate {
    slot: u16,
    name: Arc<str>,
    events: u32,
}

// === impl JointLine ===

impl JointLine {
    /// `tolerance`: change of the share of events in which two features agree that is forgiven, absolute.
    pub fn new(tolerance: f64) -> JointLine {
        JointLine { tolerance, features: Vec::new(), events: 0, bank: None }
    }

    pub fn default_tolerance() -> f64 {
        JointSettings::default().tolerance
    }

    /// Judges the events of one pane. `slots` tell features' names.
    pub fn judge(&mut self, samples: &Samples, slots: &[SlotName], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        if self.bank.is_none() {
            samples.rows().for_each(|row| self.count(row, slots));
            self.choose();
        }
        let Some(bank) = &mut self.bank else {
            return Reading { state: State::Warming, log_evidence: 0.0, threshold: f64::INFINITY, call: bellwether_detectors::Call::Quiet };
        };
        for feature in self.features.iter_mut().filter(|f| f.slot == UNKNOWN) {
            let place = slots.iter().position(|s| matches!(s, SlotName::Number(name) if *name == feature.name));
            feature.slot = place.map_or(UNKNOWN, |p| p as u16);
        }
        for row in samples.rows() {
            let mut values = [f64::NAN; FEATURES_MAX];
            for (slot, value) in row.iter() {
                if let Some(at) = self.features.iter().position(|f| f.slot == slot) {
                    values[at] = value;
                }
            }
            bank.observe(&values);
        }
        bank.judge(at_ms, pane_ms, injection)
    }

    fn count(&mut self, row: &Row, slots: &[SlotName]) {
        self.events += 1;
        for (slot, _) in row.iter() {
            if let Some(f) = self.features.iter_mut().find(|f| f.slot == slot) {
                f.events += 1;
            } else if self.features.len() < CANDIDATES_MAX
                && let Some(SlotName::Number(name)) = slots.get(usize::from(slot))
            {
                self.features.push(Candidate { slot, name: name.clone(), events: 1 });
            }
        }
    }

    /// The most frequent features are compared, and of equals the first by name; numbers of slots must not matter.
    fn choose(&mut self) {
        if self.events < CHOICE_EVENTS {
            return;
        }
        self.features.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.name.cmp(&b.name)));
        self.features.truncate(FEATURES_MAX);
        self.features.sort_by(|a, b| a.name.cmp(&b.name));
        self.bank = Some(Box::new(JointBank::new(self.features.len(), JointSettings { tolerance: self.tolerance })));
    }

    /// Numbers of slots mean nothing to another judge: they are looked up by their names.
    pub fn moved(mut self) -> JointLine {
        self.features.iter_mut().for_each(|f| f.slot = UNKNOWN);
        self
    }

    /// Events of a pane, and the correlation (or share) that has moved most.
    pub fn seen(&self, samples: &Samples) -> (f64, f64) {
        match self.bank.as_ref().and_then(|b| b.shown()) {
            Some(shown) => (samples.rows().count() as f64, shown.recent),
            None => (0.0, 0.0),
        }
    }

    /// The pair that an alarm names, and what of it.
    pub fn named(&self) -> Option<String> {
        let (a, b, what) = self.bank.as_ref()?.named()?;
        let (a, b) = (&self.features.get(a)?.name, &self.features.get(b)?.name);
        Some(match what {
            Agreement::Side => format!("correlation of {a} and {b}"),
            Agreement::Distance => format!("share of events in which {a} and {b} are both usual or both not"),
        })
    }

    /// What is compared, for people.
    pub fn words(&self) -> String {
        if self.bank.is_none() {
            return "features are being chosen".to_owned();
        }
        let names: Vec<&str> = self.features.iter().map(|f| &*f.name).collect();
        let pair = self.bank.as_ref().and_then(|b| b.shown()).and_then(|s| Some((self.features.get(s.pair.0)?, self.features.get(s.pair.1)?)));
        let most = pair.map(|(a, b)| format!("; of these {} and {} have moved most", a.name, b.name)).unwrap_or_default();
        format!("how {} stand together{most}", names.join(", "))
    }

    pub fn release(&mut self, how: Release) {
        if let Some(bank) = &mut self.bank {
            bank.release(how);
        }
    }

    pub fn start_live(&mut self) {
        if let Some(bank) = &mut self.bank {
            bank.start_live();
        }
    }

    pub fn state(&self) -> State {
        self.bank.as_ref().map_or(State::Warming, |b| b.state())
    }

    pub fn sees(&self, injection: f64) -> Sees {
        self.bank.as_ref().map_or(Sees { armed: false, needs_events: f64::INFINITY }, |b| b.sees(injection))
    }

    pub fn baseline(&self) -> Option<Band> {
        self.bank.as_ref()?.shown().map(|s| s.band)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_features_are_compared_whatever_their_slots() {
        let slots: Vec<SlotName> = (0..12).map(|i| SlotName::Number(format!("f{:02}", 11 - i).into())).collect();
        let mut line = JointLine::new(0.05);
        let mut at_ms = 0;
        while line.bank.is_none() {
            let mut samples = Samples::default();
            for e in 0..20u64 {
                let (mut row, mut len) = (Row::default(), 0);
                // Every event has f00 and f01, and six of the others in turn.
                row.push(&mut len, 11, e as f64);
                row.push(&mut len, 10, e as f64);
                (0..6).for_each(|i| row.push(&mut len, ((e + i) % 10) as u16, 1.0));
                samples.row(e, &row);
            }
            line.judge(&samples, &slots, at_ms, 10_000, 0.0);
            at_ms += 10_000;
        }
        let names: Vec<&str> = line.features.iter().map(|f| &*f.name).collect();
        assert_eq!(names, ["f00", "f01", "f02", "f03", "f04", "f05", "f06", "f07"]);
    }
}
