//! One series from its first pane to its last, through the line that the daemon would open for it.

use super::law::{Law, Mood, Pane};
use super::{Kind, Plan};
use crate::domain::{GroupKey, SeriesKey, Signal, Time};
use crate::fleet::Chance;
use crate::judge::Line;
use bellwether_detectors::{Call, Release};

/// A series is not heard for this long after a false page: what a person takes to close it.
const CLOSED_AFTER_MS: i64 = 3_600_000;
/// Panes between the snapshot and the kill.
const REPLAYED_PANES: u32 = 50;

/// When a series lives, in panes after the learning of the fleet, and what it may spend on each.
#[derive(Clone, Debug)]
pub struct Span {
    pub from: u32,
    pub to: u32,
    /// Injection from a pane on.
    pub may_spend: Vec<(u32, f64)>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fate {
    pub false_pages: u32,
    pub spent: f64,
    /// Events from the fault to the page; infinite when it was not found.
    pub delay: Option<f64>,
    /// The same for a bank that knows as much and is asked from the first pane on.
    pub single: Option<f64>,
    /// After a kill and a replay something else came out.
    pub differs: bool,
}

struct Life<'a> {
    plan: &'a Plan,
    law: Law,
    pane: Pane,
    now: Now,
}

/// All that a snapshot holds.
#[derive(Clone)]
struct Now {
    line: Line,
    chance: Chance,
    at: Time,
    fate: Fate,
    closed_at: Option<Time>,
}

/// Lives one series. `twin` is the number by which it draws: series with the same draw see the same events.
pub fn live(plan: &Plan, twin: usize, seed: u64, baseline: u64, span: &Span, fault_at: Option<u32>, learned: Time) -> Fate {
    let law = Law::of(twin);
    let born = learned.plus_ms(i64::from(span.from) * plan.pane_ms());
    let mut life = Life::new(plan, law, Chance::keyed(seed, twin as u64), born, baseline);
    let kill_at = (plan.kind == Kind::Killed).then(|| span.from + (span.to - span.from) / 2);
    let mut snapshot: Option<(Vec<u8>, Now)> = None;
    for pane in span.from..span.to {
        if kill_at == Some(pane) {
            snapshot = Some((postcard::to_stdvec(&life.now.line).unwrap_or_default(), life.now.clone()));
        }
        if life.turn(pane, span, fault_at) {
            break;
        }
        // Killed a while after its snapshot: what came since is read again.
        if kill_at.is_some_and(|k| pane == (k + REPLAYED_PANES).min(span.to - 1))
            && let Some((line, saved)) = snapshot.take()
        {
            let was = std::mem::replace(&mut life.now, saved);
            match postcard::from_bytes(&line) {
                Ok(line) => life.now.line = line,
                Err(_) => life.now.fate.differs = true,
            }
            for again in kill_at.unwrap_or(pane)..=pane {
                life.turn(again, span, fault_at);
            }
            let same = postcard::to_stdvec(&life.now.line) == postcard::to_stdvec(&was.line) && life.now.fate == was.fate;
            life.now.fate.differs |= !same;
        }
    }
    let mut fate = life.now.fate;
    if let Some(at) = fault_at {
        fate.delay = Some(fate.delay.unwrap_or(f64::INFINITY));
        let known = baseline + u64::from(at - span.from) * u64::from(plan.pane_events);
        fate.single = Some(single(plan, law, Chance::keyed(!seed, twin as u64), known, span.injection_at(at)));
    }
    fate
}

/// Events that a bank needs which has learned `known` events and is asked from then on.
fn single(plan: &Plan, law: Law, chance: Chance, known: u64, injection: f64) -> f64 {
    let mut life = Life::new(plan, law, chance, Time(0), known);
    life.now.line.injection = injection;
    let mut panes = 0u32;
    while panes < plan.panes() {
        panes += 1;
        if let Some(Call::Alarm { .. }) = life.step(Mood::Faulty) {
            return f64::from(panes * plan.pane_events);
        }
    }
    f64::INFINITY
}

impl Span {
    pub fn injection_at(&self, pane: u32) -> f64 {
        self.may_spend.iter().rev().find(|s| s.0 <= pane).map_or(0.0, |s| s.1)
    }
}

impl<'a> Life<'a> {
    /// A line that has learned `baseline` events before `from`.
    fn new(plan: &'a Plan, law: Law, chance: Chance, from: Time, baseline: u64) -> Life<'a> {
        let panes = baseline.div_ceil(u64::from(plan.pane_events)) as i64;
        let signal = match law {
            Law::Rate { .. } => Signal::ErrorRate,
            Law::Values(_) => Signal::Latency,
            Law::Classes => Signal::Prediction,
            Law::Counts { .. } => Signal::ComplaintRate,
        };
        let mut line = Line::new(SeriesKey { group: GroupKey::roll_up("simulated", "model"), signal }, law.bank(), 1.0);
        line.judged_from = from;
        let now = Now { line, chance, at: from.plus_ms(-panes * plan.pane_ms()), fate: Fate::default(), closed_at: None };
        let mut life = Life { plan, law, pane: Pane::default(), now };
        for _ in 0..panes {
            life.step(Mood::Usual);
        }
        life
    }

    /// One pane of the daemon's life; true when it found the fault.
    fn turn(&mut self, pane: u32, span: &Span, fault_at: Option<u32>) -> bool {
        let injection = span.injection_at(pane);
        self.now.fate.spent += if self.now.closed_at.is_none() { injection } else { 0.0 };
        self.now.line.injection = injection;
        let is_faulty = fault_at.is_some_and(|at| pane >= at);
        let mood = match self.plan.kind {
            _ if is_faulty => Mood::Faulty,
            Kind::Edge => Mood::Edge,
            Kind::Steady | Kind::Churn | Kind::Twins | Kind::Killed => Mood::Usual,
        };
        if let Some(Call::Alarm { .. }) = self.step(mood) {
            if let Some(at) = fault_at.filter(|_| is_faulty) {
                self.now.fate.delay = Some(f64::from((pane + 1 - at) * self.plan.pane_events));
                return true;
            }
            self.now.fate.false_pages += 1;
            self.now.closed_at = Some(self.now.at);
        }
        if self.now.closed_at.is_some_and(|c| self.now.at.since_ms(c) >= CLOSED_AFTER_MS) {
            self.now.line.release(Release::FalseAlarm);
            self.now.closed_at = None;
        }
        false
    }

    fn step(&mut self, mood: Mood) -> Option<Call> {
        let n = self.plan.pane_events;
        self.law.draw(n, mood, &mut self.now.chance, &mut self.pane);
        let call = self.now.line.judge(&self.pane.feed(self.law, n), self.now.at, self.plan.pane_ms(), 1.0);
        self.now.at = self.now.at.plus_ms(self.plan.pane_ms());
        call
    }
}
