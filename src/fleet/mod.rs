//! Traffic with known truth: what the demo shows, what tests and benches are held against.
//!
//! A watch can be judged only where the truth is known. So the fleet makes events of models whose laws are written down
//! ([`Plan`]), breaks them by name ([`Fault`]) and keeps the books ([`Truth`]). It is a pure function of plan, seed, start and
//! switches: the same events in the same order, however the caller slices time. Nothing here knows how the watch works.
//!
//! The road not taken is a recorded trace. It would be more real and less true: nobody can say of a trace when its faults
//! began, and nobody may publish the trace that would be worth it.

use crate::domain::Time;
use crate::domain::time::{DAY_MS, HOUR_MS};

mod chance;
mod fault;
mod lane;
mod lever;
mod line;
mod plan;
mod season;
#[cfg(test)]
mod tests;
mod truth;

pub use chance::Chance;
pub use fault::{CANARY, Expected, Fault, UnknownFault};
pub use lever::{Lever, Order, Turn, Whom};
pub use plan::{Kind, ModelPlan, Plan, QualityPlan};
pub use truth::{FaultTruth, ModelTruth, Truth};

use lane::{Lane, Ready};

/// Time made in one go: enough to sort few events at once.
const STEP_MS: i64 = 1_000;

/// One record of the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// When the record reaches the topic.
    pub arrival: Time,
    /// The event's own time.
    pub time: Time,
    /// The record's key: the user, or the model where an event has no user.
    pub key: String,
    /// The event in Bellwether's own form.
    pub json: Vec<u8>,
    /// The second copy of an event that came twice.
    pub copy: bool,
}

/// What an hour of a model held, as imported reference data would say.
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    pub model: String,
    pub environment: String,
    pub hour_start: Time,
    /// Predictions in this hour.
    pub requests: f64,
    /// US dollars in this hour; 0 for models without cost.
    pub cost: f64,
}

/// Models at work. A clone goes on as its original would.
///
/// ```
/// use bellwether::domain::Time;
/// use bellwether::fleet::{Fault, Fleet, Plan};
///
/// let start = Time(1_795_166_040_000);
/// let mut fleet = Fleet::new(Plan::demo(), 7, start);
/// fleet.switch(Fault::ErrorSpike, true, start.plus_ms(2_000));
/// let mut events = Vec::new();
/// fleet.next_before(start.plus_ms(3_000), &mut events);
/// assert!(events.windows(2).all(|pair| pair[0].arrival <= pair[1].arrival));
/// assert_eq!(fleet.truth().events() + fleet.truth().copies(), events.len() as u64);
/// ```
#[derive(Clone)]
pub struct Fleet {
    lanes: Vec<Lane>,
    start: Time,
    /// Everything that arrives before this has been given out.
    frontier: Time,
    /// Made, and not yet arrived.
    waiting: Vec<Ready>,
    truth: Truth,
}

// === impl Fleet ===

impl Fleet {
    pub fn new(plan: Plan, seed: u64, start: Time) -> Fleet {
        let lanes: Vec<Lane> = (0..plan.models.len()).filter_map(|at| Lane::new(at, &plan, seed, start)).collect();
        let models = plan.models.iter().map(|m| ModelTruth { model: m.name.clone(), ..ModelTruth::default() }).collect();
        Fleet { lanes, start, frontier: start, waiting: Vec::new(), truth: Truth { models, faults: Vec::new() } }
    }

    /// Everything that arrives before `until` and was not given out yet, in the order of arrival.
    pub fn next_before(&mut self, until: Time, out: &mut Vec<Made>) {
        while self.frontier < until {
            let to = until.min(self.frontier.floor(STEP_MS).plus_ms(STEP_MS));
            let mut batch = std::mem::take(&mut self.waiting);
            for lane in &mut self.lanes {
                lane.make(to, &mut batch);
            }
            batch.sort_unstable_by_key(|ready| (ready.arrival, ready.lane, ready.number));
            self.waiting = batch.split_off(batch.partition_point(|ready| ready.arrival < to));
            out.reserve(batch.len());
            for ready in batch {
                self.note(&ready);
                out.push(ready.made);
            }
            self.frontier = to;
        }
    }

    fn note(&mut self, ready: &Ready) {
        let Some(model) = self.truth.models.get_mut(ready.lane) else { return };
        if ready.made.copy {
            model.copies += 1;
            return;
        }
        model.per_kind[ready.kind] += 1;
        model.late += u64::from(ready.made.arrival.since_ms(ready.made.time) > 1_000);
    }

    /// Switches a fault for events from `at` on, on the model that [`Fleet::target`] names. A moment that has been given out
    /// already counts as now. What belongs to the fault (a deployment, a failed run) comes `Plan::lead_ms` before it if that
    /// lies ahead, and at once with that stamp if not. False when no model can have this fault.
    pub fn switch(&mut self, fault: Fault, on: bool, at: Time) -> bool {
        let Some(model) = self.target(fault).map(str::to_owned) else { return false };
        self.switch_model(&model, fault, on, at)
    }

    /// The same for a model of choice. False when there is no such model or when it cannot have this fault.
    pub fn switch_model(&mut self, model: &str, fault: Fault, on: bool, at: Time) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|l| l.model.name == model && fault.suits(l.model.kind)) else { return false };
        lane.switch(fault, on, at, self.frontier);
        let spans = self.lanes.iter().flat_map(|lane| {
            lane.spans.iter().map(|s| FaultTruth {
                fault: s.fault,
                model: lane.model.name.clone(),
                from: s.from,
                to: (s.to != Time::MAX).then_some(s.to),
            })
        });
        self.truth.faults = spans.collect();
        self.truth.faults.sort_by_key(|f| f.from);
        true
    }

    /// Turns a lever of a model. False when there is no such model. Levers are no faults: the books do not hold them.
    pub fn turn(&mut self, model: &str, lever: Lever) -> bool {
        let Some(lane) = self.lanes.iter_mut().find(|l| l.model.name == model) else { return false };
        lane.turn(lever);
        true
    }

    /// Does something to a model at `at`, with the stamp `stamp` on what tells of it. False when there is no such model.
    pub fn order(&mut self, model: &str, order: Order, at: Time, stamp: Time) -> bool {
        let frontier = self.frontier;
        let Some(lane) = self.lanes.iter_mut().find(|l| l.model.name == model) else { return false };
        lane.order(order, at.max(frontier), stamp);
        true
    }

    /// Names of the models, in the order of the plan.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.lanes.iter().map(|l| l.model.name.as_str())
    }

    /// The model that a fault hits: the demo's, or else the first that can have it.
    pub fn target(&self, fault: Fault) -> Option<&str> {
        let usual = fault.expected().model;
        let mut able = self.lanes.iter().filter(|l| fault.suits(l.model.kind)).map(|l| l.model.name.as_str());
        able.clone().find(|name| *name == usual).or_else(|| able.next())
    }

    /// Is this fault on, for events of this time, whatever the model?
    pub fn is_on(&self, fault: Fault, at: Time) -> bool {
        self.truth.faults.iter().any(|f| f.fault == fault && f.from <= at && f.to.is_none_or(|to| at < to))
    }

    /// What was given out so far, and the faults.
    pub fn truth(&self) -> &Truth {
        &self.truth
    }

    /// Everything that arrives before this has been given out.
    pub fn frontier(&self) -> Time {
        self.frontier
    }

    /// Hour by hour, what the two weeks before the start held: an imported reference.
    pub fn levels(&self) -> Vec<Level> {
        let last = self.start.floor(HOUR_MS);
        let hours = 14 * DAY_MS / HOUR_MS;
        let mut levels = Vec::with_capacity(self.lanes.len() * hours as usize);
        for lane in &self.lanes {
            let cost_each = lane.cost_each();
            for i in (1..=hours).rev() {
                let hour_start = last.plus_ms(-i * HOUR_MS);
                let (requests, cost) = lane.level(hour_start, cost_each);
                levels.push(Level { model: lane.model.name.clone(), environment: lane.model.environment.clone(), hour_start, requests, cost });
            }
        }
        levels
    }
}
