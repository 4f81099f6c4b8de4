//! One model's events in the order of their time.
//!
//! The picture is a turnstile. Customers come by an exponential clock whose speed changes from second to second; each carries a
//! number, and all that is by chance about him follows from that number. What a customer causes later (an evaluation, a
//! complaint) waits on a shelf until its time has come. A fault changes what is written about a customer, never who comes next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Made;
use super::chance::{Chance, mix};
use super::fault::{CANARY, Fault};
use super::lever::{Lever, Order, Turn, Turned};
use super::line::{Line, quoted};
use super::plan::{Kind, ModelPlan, Plan};
use super::season::Season;
use crate::domain::Time;
use crate::domain::observation::Body;
use crate::domain::time::HOUR_MS;

/// Traffic and wander change their level this often.
const SLOT_MS: i64 = 1_000;
/// Memory of the wandering levels, in slots.
const WANDER_SLOTS: f64 = 120.0;
/// What a request costs that runs into the time limit.
const TIMEOUT_MS: f64 = 30_000.0;
/// The 90th percentile in standard deviations.
const P90: f64 = 1.281_551_565_545;
/// Share of traffic that a new version gets when it is tried out.
const TRIAL_SHARE: f64 = 0.5;
/// Price of a token, in and out.
const USD_IN: f64 = 0.3e-6;
const USD_OUT: f64 = 1.2e-6;

/// What the numbers of a key are for, so that no two uses share a stream.
mod purpose {
    pub const GAP: u64 = 0x1000_0000_0000_0000;
    pub const SLOT: u64 = 0x2000_0000_0000_0000;
    pub const BODY: u64 = 0x3000_0000_0000_0000;
    pub const TROUBLE: u64 = 0x4000_0000_0000_0000;
    pub const WAY: u64 = 0x5000_0000_0000_0000;
    pub const SHELF: u64 = 0x6000_0000_0000_0000;
    pub const DEPLOY: u64 = 0x7000_0000_0000_0000;
    pub const PRICE: u64 = 0x8000_0000_0000_0000;
    pub const LEVER: u64 = 0x9000_0000_0000_0000;
    pub const GROUP: u64 = 0xa000_0000_0000_0000;
}
/// Marks the number of a request that came only because of a spike: three bits tell which of its copies.
const EXTRA_BIT: u32 = 48;

const ANSWERS: &[&str] = &[
    "Your order has left the warehouse and should reach you within two days.",
    "You can change the delivery address until the parcel is handed over.",
    "The invoice shows the amount before tax in its second column.",
    "Please restart the device and try to connect again.",
    "The refund takes three to five working days to appear.",
    "Here is a short summary of the document you asked about.",
    "The meeting is best moved to the afternoon, when all are free.",
    "I could not find that item; the closest match is listed below.",
];

/// What waits on the shelf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Heartbeat,
    Deploy(u64),
    PipelineRun(u64),
    /// A trial begins; it is stamped with this time.
    TrialOn(Time),
    TrialOff,
    PipelineFailed(Time),
    PipelineMended,
    /// By its number.
    Order(usize),
    Quality(u64),
    Thumb(u64),
    Complaint(u64),
    /// A request that came only because of a spike.
    Extra(u64),
}

/// A fault of this model.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub fault: Fault,
    pub from: Time,
    pub to: Time,
    /// A fault of one event has had its event.
    is_done: bool,
}

/// An event and its place among those that arrive at the same moment.
#[derive(Clone)]
pub struct Ready {
    pub arrival: Time,
    pub lane: usize,
    pub number: u64,
    pub kind: usize,
    pub made: Made,
}

#[derive(Clone)]
pub struct Lane {
    at: usize,
    pub model: ModelPlan,
    plan: Plan,
    season: Season,
    seed: u64,
    start: Time,
    /// Parts of every event, as JSON.
    stem: String,
    whose: String,
    segments: Vec<String>,
    /// Sums of the weights up to and with each segment, from 0 to 1.
    weights: Vec<f64>,

    index: u64,
    next_ms: f64,
    slot: i64,
    /// Requests per millisecond in this slot.
    speed: f64,
    rate_level: f64,
    latency_level: f64,
    shelf: BinaryHeap<Reverse<(Time, u64, Task)>>,
    shelved: u64,
    emitted: u64,
    versions: u64,
    version: String,
    /// A version that is tried out, and its share of the traffic.
    trial: Option<(String, f64)>,
    /// The version before the last order.
    before: Option<String>,
    pub spans: Vec<Span>,
    levers: Vec<Lever>,
    /// What is to be done, with its stamp, by number.
    orders: Vec<(Order, Time)>,
}

/// What a request meets, and whose it is.
struct Placed {
    segment: usize,
    on_trial: bool,
    user: u64,
}

/// An answer of a language model, before it is told how it went.
struct Tokens {
    input: f64,
    output: f64,
}

// === impl Lane ===

impl Lane {
    pub fn new(at: usize, plan: &Plan, seed: u64, start: Time) -> Option<Lane> {
        let model = plan.models.get(at)?.clone();
        let total: f64 = model.segments.iter().map(|s| s.1.max(0.0)).sum();
        let mut sum = 0.0;
        let weights = model.segments.iter().map(|s| {
            sum += s.1.max(0.0) / total.max(f64::MIN_POSITIVE);
            sum
        });
        let weights = weights.collect();
        let dimension = quoted(&model.dimension);
        let segments = model.segments.iter().map(|(value, _)| format!(",\"segments\":{{{dimension}:{}}}", quoted(value))).collect();
        let versions = 1 + mix(seed ^ at as u64) % 6;
        let mut lane = Lane {
            at,
            season: Season::new(plan, &model),
            seed: mix(seed ^ mix(at as u64 + 1)),
            start,
            stem: format!("{}-{:x}-", model.name.chars().filter(char::is_ascii_alphanumeric).take(12).collect::<String>(), start.0.max(0) / 1_000)
                + &format!("{at}-"),
            whose: format!(",\"model\":{},\"environment\":{}", quoted(&model.name), quoted(&model.environment)),
            segments,
            weights,
            index: 0,
            next_ms: 0.0,
            slot: -1,
            speed: 0.0,
            rate_level: 0.0,
            latency_level: 0.0,
            shelf: BinaryHeap::new(),
            shelved: 0,
            emitted: 0,
            versions,
            version: format!("1.{versions}.0"),
            trial: None,
            before: None,
            spans: Vec::new(),
            levers: Vec::new(),
            orders: Vec::new(),
            plan: plan.clone(),
            model,
        };
        lane.enter_slot(0);
        lane.next_arrival();
        if plan.heartbeat_s > 0 {
            let first = mix(lane.seed) % (u64::from(plan.heartbeat_s) * 1_000);
            lane.shelve(start.plus_ms(first as i64), Task::Heartbeat);
        }
        if plan.deploy_every_s > 0.0 {
            lane.shelve_deploy(start, 0);
        }
        if lane.model.pipeline.is_some() {
            // Five minutes past each full hour.
            lane.shelve(start.floor(HOUR_MS).plus_ms(HOUR_MS + 300_000), Task::PipelineRun(0));
        }
        Some(lane)
    }

    fn chance(&self, purpose: u64, key: u64) -> Chance {
        Chance::keyed(self.seed ^ purpose, key)
    }

    fn shelve(&mut self, time: Time, task: Task) {
        self.shelved += 1;
        self.shelf.push(Reverse((time, self.shelved, task)));
    }

    fn shelve_deploy(&mut self, after: Time, nth: u64) {
        let wait = self.chance(purpose::DEPLOY, nth).exponential() * self.plan.deploy_every_s;
        self.shelve(after.plus_ms((wait * 1_000.0) as i64 + 1_000), Task::Deploy(nth));
    }

    // --- when ---

    fn enter_slot(&mut self, slot: i64) {
        self.slot = slot;
        let mut chance = self.chance(purpose::SLOT, slot as u64);
        let burst = self.plan.burst.clamp(0.0, 1.0);
        let unruly = if burst > 0.0 { chance.gamma(1.0 / (burst * burst)) * burst * burst } else { 1.0 };
        let season = self.season.at(self.start.plus_ms(slot * SLOT_MS));
        self.speed = (self.model.per_second * self.plan.share).max(0.0) * season * unruly / 1_000.0;
        // AR(1) with standard deviation 1; the first slot starts in the middle of things.
        let keep = if slot == 0 { 0.0 } else { (-1.0 / WANDER_SLOTS).exp() };
        let fresh = (1.0 - keep * keep).sqrt();
        self.rate_level = keep * self.rate_level + fresh * chance.normal();
        self.latency_level = keep * self.latency_level + fresh * chance.normal();
    }

    /// Moves the clock to the next request. `next_ms` is infinite when nobody will ever come.
    fn next_arrival(&mut self) {
        if self.model.per_second * self.plan.share <= 0.0 {
            self.next_ms = f64::INFINITY;
            return;
        }
        let mut left = self.chance(purpose::GAP, self.index).exponential();
        loop {
            let end = ((self.slot + 1) * SLOT_MS) as f64;
            let room = self.speed * (end - self.next_ms);
            if left <= room {
                self.next_ms += left / self.speed;
                return;
            }
            left -= room;
            self.next_ms = end;
            self.enter_slot(self.slot + 1);
        }
    }

    fn next_time(&self) -> Time {
        if self.next_ms.is_finite() { self.start.plus_ms(self.next_ms as i64) } else { Time::MAX }
    }

    /// Everything whose time comes before `until`.
    pub fn make(&mut self, until: Time, out: &mut Vec<Ready>) {
        loop {
            let customer = self.next_time();
            let shelved = self.shelf.peek().map_or(Time::MAX, |Reverse((time, ..))| *time);
            if customer.min(shelved) >= until {
                return;
            }
            if shelved <= customer {
                if let Some(Reverse((time, _, task))) = self.shelf.pop() {
                    self.carry_out(time, task, out);
                }
            } else {
                let index = self.index;
                self.index += 1;
                self.next_arrival();
                self.customer(customer, index, out);
            }
        }
    }

    // --- faults ---

    pub fn switch(&mut self, fault: Fault, on: bool, at: Time, frontier: Time) {
        let at = at.max(frontier);
        let open = self.spans.iter().position(|s| s.fault == fault && s.to == Time::MAX);
        match (on, open) {
            (true, None) => {
                self.spans.push(Span { fault, from: at, to: Time::MAX, is_done: false });
                let cause = at.plus_ms(-self.plan.lead_ms.max(0));
                if fault == Fault::Timeouts {
                    self.shelve(cause.max(frontier), Task::TrialOn(cause));
                } else if fault == Fault::FeatureMissing {
                    self.shelve(cause.max(frontier), Task::PipelineFailed(cause));
                }
            }
            (false, Some(i)) => {
                let at = at.max(self.spans[i].from);
                self.spans[i].to = at;
                if fault == Fault::Timeouts {
                    self.shelve(at, Task::TrialOff);
                } else if fault == Fault::FeatureMissing {
                    self.shelve(at, Task::PipelineMended);
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    // --- levers and orders ---

    pub fn turn(&mut self, lever: Lever) {
        if let Turn::Mix(value, _) = &lever.turn
            && !self.model.segments.iter().any(|(known, _)| known == value)
        {
            // Nobody comes from it but by the lever.
            self.model.segments.push((value.clone(), 0.0));
            self.segments.push(format!(",\"segments\":{{{}:{}}}", quoted(&self.model.dimension), quoted(value)));
        }
        self.levers.push(lever);
    }

    pub fn order(&mut self, order: Order, at: Time, stamp: Time) {
        self.orders.push((order, stamp));
        self.shelve(at, Task::Order(self.orders.len() - 1));
    }

    fn obey(&mut self, time: Time, number: usize, out: &mut Vec<Ready>) {
        let Some((order, stamp)) = self.orders.get(number).cloned() else { return };
        match order {
            Order::Deploy { version, share, told } => {
                let before = std::mem::replace(&mut self.version, version.clone());
                if told {
                    self.deployment(time, stamp, "finished", &before, (share * 100.0).round() as u64, "a new version", out);
                }
                self.before = Some(before.clone());
                if share < 1.0 {
                    self.version = before;
                    self.trial = Some((version, share));
                }
            }
            Order::Told => self.deployment(time, stamp, "finished", "1.0.0", 100, "told late", out),
            Order::RollBack => {
                let from = match (self.trial.take(), self.before.take()) {
                    (Some((trial, _)), _) => trial,
                    (None, Some(before)) => std::mem::replace(&mut self.version, before),
                    (None, None) => return,
                };
                self.deployment(time, stamp, "rolled_back", &from, 100, "back to the version before", out);
            }
            Order::Changed { kind, name } => {
                let mut line = self.open("deployment", Some(self.emitted), stamp);
                line.raw(",\"target\":{\"kind\":").raw(&quoted(&kind)).raw(",\"name\":").raw(&quoted(&name));
                line.raw("},\"phase\":\"finished\",\"actor\":\"ci\"");
                self.close_plain("deployment", time, stamp, line, out);
            }
            Order::Run { job, is_good } => self.run(time, stamp, &job, is_good, out),
        }
    }

    /// The levers that hold for the request of this number.
    fn turned(&mut self, time: Time, index: u64, version: &str, segment: usize, group: &str) -> Turned {
        let mut turned = Turned::none(self.chance(purpose::LEVER, index));
        if self.levers.is_empty() {
            return turned;
        }
        let value = self.model.segments.get(segment).map_or("", |(value, _)| value.as_str());
        for lever in &mut self.levers {
            let reach = lever.reach(time);
            if reach > 0.0 && lever.whom.is_met(version, value, group) {
                turned.add(&lever.turn, reach);
                if lever.is_once() {
                    lever.to = lever.from;
                }
            }
        }
        turned
    }

    /// How many requests come where one would.
    fn crowd(&self, time: Time, segment: usize) -> f64 {
        let value = self.model.segments.get(segment).map_or("", |(value, _)| value.as_str());
        let factor = |l: &Lever| match l.turn {
            Turn::Traffic(factor) if l.whom.is_met(&self.version, value, "") => 1.0 + (factor.clamp(0.0, 8.0) - 1.0) * l.reach(time),
            _ => 1.0,
        };
        self.levers.iter().map(factor).product()
    }

    /// What levers add to the evaluator's value, without taking up the chance of an answer.
    fn shifts(&self, time: Time, version: &str, segment: usize) -> f64 {
        let value = self.model.segments.get(segment).map_or("", |(value, _)| value.as_str());
        let shift = |l: &Lever| match l.turn {
            Turn::Quality(by) if l.whom.is_met(version, value, "") => by * l.reach(time),
            _ => 0.0,
        };
        self.levers.iter().map(shift).sum()
    }

    /// The process is gone, and its heartbeat with it.
    fn is_hung(&self, time: Time) -> bool {
        let stops = |l: &Lever| matches!(l.turn, Turn::Traffic(f) if f <= 0.0) && l.whom.segment.is_none() && l.reach(time) >= 1.0;
        self.levers.iter().any(stops)
    }

    /// The protected attribute and its value that belong to the request of this number.
    fn group_of(&self, index: u64) -> Option<(&str, &str)> {
        let (attribute, values) = self.model.groups.as_ref()?;
        let total: f64 = values.iter().map(|v| v.1.max(0.0)).sum();
        let mut left = self.chance(purpose::GROUP, index).unit() * total;
        let value = values.iter().find(|(_, weight)| {
            left -= weight.max(0.0);
            left < 0.0
        });
        value.or(values.last()).map(|(value, _)| (attribute.as_str(), value.as_str()))
    }

    /// Faults that are on, one bit each.
    fn troubles(&self, time: Time) -> u32 {
        self.spans.iter().filter(|s| s.from <= time && time < s.to).fold(0, |bits, s| bits | s.fault.bit())
    }

    /// True once for a fault of one event.
    fn strikes(&mut self, fault: Fault, time: Time) -> bool {
        let span = self.spans.iter_mut().find(|s| s.fault == fault && !s.is_done && s.from <= time && time < s.to);
        span.is_some_and(|s| {
            s.is_done = true;
            true
        })
    }

    // --- what ---

    fn customer(&mut self, time: Time, index: u64, out: &mut Vec<Ready>) {
        let troubles = self.troubles(time);
        let is_on = |fault: Fault| troubles & fault.bit() != 0;
        if is_on(Fault::TrafficSpike) {
            // Two more for each, somewhere in the time until the next one comes.
            let gap = self.next_time().since_ms(time).clamp(0, 60_000) as u64;
            let mut chance = self.chance(purpose::TROUBLE, index ^ 1 << EXTRA_BIT);
            for copy in 1..=2 {
                self.shelve(time.plus_ms(chance.below(gap + 1) as i64), Task::Extra(index | copy << EXTRA_BIT));
            }
        }
        if is_on(Fault::Silence) {
            return;
        }
        if self.levers.iter().any(|l| matches!(l.turn, Turn::Traffic(_))) {
            let crowd = self.crowd(time, self.placed(index, time).segment);
            let gap = self.next_time().since_ms(time).clamp(0, 60_000) as u64;
            let mut chance = self.chance(purpose::LEVER, index ^ 1 << EXTRA_BIT);
            let more = (crowd - 1.0).max(0.0);
            let copies = more.floor() as u64 + u64::from(chance.unit() < more.fract());
            for copy in 1..=copies.min(7) {
                self.shelve(time.plus_ms(chance.below(gap + 1) as i64), Task::Extra(index | copy << EXTRA_BIT));
            }
            if chance.unit() >= crowd {
                return;
            }
        }
        if is_on(Fault::TrafficDrop) && self.chance(purpose::TROUBLE, index ^ 7 << EXTRA_BIT).unit() >= 1.0 / 3.0 {
            return;
        }
        self.prediction(time, index, troubles, out);
    }

    fn carry_out(&mut self, time: Time, task: Task, out: &mut Vec<Ready>) {
        match task {
            Task::Extra(index) => {
                let troubles = self.troubles(time);
                self.prediction(time, index, troubles, out);
            }
            Task::Heartbeat => {
                let wait = i64::from(self.plan.heartbeat_s) * 1_000;
                self.shelve(time.plus_ms(wait), Task::Heartbeat);
                if self.troubles(time) & Fault::Silence.bit() == 0 && !self.is_hung(time) {
                    let mut line = self.open("heartbeat", None, time);
                    line.raw(",\"expected_interval_s\":").int(u64::from(self.plan.heartbeat_s));
                    self.close_plain("heartbeat", time, time, line, out);
                }
            }
            Task::Deploy(nth) => {
                self.shelve_deploy(time, nth + 1);
                if self.trial.is_none() {
                    let fresh = self.next_version();
                    let before = std::mem::replace(&mut self.version, fresh);
                    self.deployment(time, time, "finished", &before, 100, "weekly release", out);
                }
            }
            Task::TrialOn(stamp) => {
                let trial = self.next_version();
                let before = std::mem::replace(&mut self.version, trial.clone());
                self.deployment(time, stamp, "finished", &before, (TRIAL_SHARE * 100.0) as u64, "new ranking backend, half of the traffic", out);
                self.version = before;
                self.trial = Some((trial, TRIAL_SHARE));
            }
            Task::TrialOff => {
                if let Some((trial, _)) = self.trial.take() {
                    self.deployment(time, time, "rolled_back", &trial, 100, "back to the version before", out);
                }
            }
            Task::PipelineRun(nth) => {
                self.shelve(time.plus_ms(HOUR_MS), Task::PipelineRun(nth + 1));
                if self.troubles(time) & Fault::FeatureMissing.bit() == 0 {
                    self.pipeline(time, time, true, out);
                }
            }
            Task::PipelineFailed(stamp) => self.pipeline(time, stamp, false, out),
            Task::PipelineMended => self.pipeline(time, time, true, out),
            Task::Order(number) => self.obey(time, number, out),
            Task::Quality(index) => self.quality(time, index, out),
            Task::Thumb(index) => self.thumb(time, index, out),
            Task::Complaint(index) => self.complaint(time, index, out),
        }
    }

    fn next_version(&mut self) -> String {
        self.versions += 1;
        format!("1.{}.0", self.versions)
    }

    fn placed(&self, index: u64, time: Time) -> Placed {
        let mut chance = self.chance(purpose::BODY, index);
        let (segment, trial, user) = (chance.unit(), chance.unit(), chance.unit());
        let mut segment = self.weights.iter().position(|w| segment < *w).unwrap_or(self.weights.len().saturating_sub(1));
        for lever in &self.levers {
            if let Turn::Mix(value, share) = &lever.turn
                && let Some(at) = self.model.segments.iter().position(|(known, _)| known == value)
                && self.chance(purpose::LEVER, index ^ 2 << EXTRA_BIT).unit() < share * lever.reach(time)
            {
                segment = at;
            }
        }
        let on_trial = self.trial.as_ref().is_some_and(|(_, share)| trial < *share);
        Placed { segment, on_trial, user: (user * user * self.model.users.max(1) as f64) as u64 }
    }

    fn version_of(&self, placed: &Placed) -> &str {
        self.trial.as_ref().filter(|_| placed.on_trial).map_or(&self.version, |(version, _)| version)
    }

    fn prediction(&mut self, time: Time, index: u64, troubles: u32, out: &mut Vec<Ready>) {
        let is_on = |fault: Fault| troubles & fault.bit() != 0;
        let placed = self.placed(index, time);
        let (segment, user) = (placed.segment, placed.user);
        // Skips what `placed` used: the same stream goes on.
        let mut chance = self.chance(purpose::BODY, index);
        for _ in 0..3 {
            chance.bits();
        }
        let mut trouble = self.chance(purpose::TROUBLE, index);
        let version = self.version_of(&placed).to_owned();
        let group = self.group_of(index).map(|(attribute, value)| (attribute.to_owned(), value.to_owned()));
        let mut turned = self.turned(time, index, &version, segment, group.as_ref().map_or("", |g| &g.1));

        let wander = 1.0 + (self.plan.rate_wander * self.rate_level).clamp(-0.1, 0.1);
        let (mut error_rate, mut timeout_rate) = (self.model.error_rate * wander, self.model.timeout_rate * wander);
        if is_on(Fault::ErrorSpike) && segment == 0 {
            error_rate = error_rate.max(0.12);
        }
        if is_on(Fault::Timeouts) && placed.on_trial {
            timeout_rate = timeout_rate.max(0.06);
        }
        (error_rate, timeout_rate) = (error_rate.max(turned.errors), timeout_rate.max(turned.timeouts));
        if is_on(Fault::TotalFailure) {
            (error_rate, timeout_rate) = (1.0, 0.0);
        }
        let fate = chance.unit();
        let is_timeout = fate < timeout_rate;
        // Errors at the other end, so that one fault cannot move events of the other.
        let is_error = !is_timeout && fate >= 1.0 - error_rate;
        let is_good = !is_timeout && !is_error;

        let pace = chance.normal();
        let level = (self.plan.latency_wander * self.latency_level).clamp(-0.06, 0.06);
        let mut latency_ms = self.model.latency_ms * (self.model.latency_sigma * (pace + level)).exp();
        if is_on(Fault::LatencyTail) && pace > P90 {
            latency_ms *= 3.0;
        }
        latency_ms *= turned.latency * if pace > P90 { turned.tail } else { 1.0 };
        if is_timeout {
            latency_ms = TIMEOUT_MS;
        }
        let is_garbled = turned.strikes(turned.garbled);

        let mut line = self.open("prediction", Some(index), time);
        line.raw(",\"version\":\"").raw(&version).raw("\"");
        line.raw(self.segments.get(segment).map_or("", String::as_str));
        if let Some((attribute, value)) = &group {
            line.raw(",\"groups\":{").raw(&quoted(attribute)).raw(":").raw(&quoted(value)).raw("}");
        }
        line.raw(",\"user\":\"u-").int(user).raw("\",\"latency_ms\":");
        if is_garbled {
            line.raw("\"a while\"");
        } else {
            line.fixed(latency_ms, 2);
        }
        if is_timeout {
            line.raw(",\"status\":\"timeout\",\"error\":{\"type\":\"timeout\",\"code\":\"504\"}");
        } else if is_error {
            let (kind, code) = [("upstream", "502"), ("overloaded", "503"), ("internal", "500")][trouble.below(3) as usize];
            line.raw(",\"status\":\"error\",\"error\":{\"type\":\"").raw(kind).raw("\",\"code\":\"").raw(code).raw("\"}");
        }
        match self.model.kind {
            Kind::Scorer => scorer(&mut line, &mut chance, &mut trouble, troubles, &mut turned, is_good),
            Kind::Ranker => ranker(&mut line, &mut chance, troubles, &mut turned, is_good),
            Kind::Assistant if is_good => {
                if self.strikes(Fault::HarmfulOutput, time) {
                    turned.confirmed = Some("harmful".to_owned());
                }
                turned.canary |= self.strikes(Fault::CanaryLeak, time);
                assistant(&mut line, &mut chance, &mut trouble, troubles, &mut turned);
                self.aftermath(time, index, is_on(Fault::Complaints), turned.complaints);
            }
            Kind::Assistant => {}
        }
        self.close(0, index, time, user, line, out);
    }

    /// What an answer causes later.
    fn aftermath(&mut self, time: Time, index: u64, are_angry: bool, complaints_min: f64) {
        let mut chance = self.chance(purpose::SHELF, index);
        let (evaluated, thumb, complaint) = (chance.unit(), chance.unit(), chance.unit());
        let wait = |chance: &mut Chance| time.plus_ms(500 + chance.below(3_500) as i64);
        let (when_evaluated, when_thumb, when_complaint) = (wait(&mut chance), wait(&mut chance), wait(&mut chance));
        if self.model.quality.as_ref().is_some_and(|q| evaluated < q.share) {
            self.shelve(when_evaluated, Task::Quality(index));
        }
        if thumb < self.model.thumbs {
            self.shelve(when_thumb, Task::Thumb(index));
        }
        let complaints = if are_angry { self.model.complaints.max(0.015) } else { self.model.complaints };
        if complaint < complaints.max(complaints_min) {
            self.shelve(when_complaint, Task::Complaint(index));
        }
    }

    fn quality(&mut self, time: Time, index: u64, out: &mut Vec<Ready>) {
        let Some(quality) = self.model.quality.clone() else { return };
        let mut chance = self.chance(purpose::SHELF, index ^ 1 << 60);
        let shift = if self.troubles(time) & Fault::QualityDrop.bit() != 0 { -0.08 } else { 0.0 };
        // The scale ends at one; the mean is set a little higher, so that what is left below it has the mean asked for.
        let value = (uncapped_mean(quality.mean, quality.sigma) + quality.sigma * chance.normal()).min(1.0);
        let placed = self.placed(index, time);
        let user = placed.user;
        let shift = shift + self.shifts(time, self.version_of(&placed), placed.segment);
        let mut line = self.open("quality", Some(index), time);
        self.about(&mut line, index, &placed);
        line.raw(",\"name\":").raw(&quoted(&quality.name)).raw(",\"value\":").fixed((value + shift).clamp(0.0, 1.0), 3);
        line.raw(",\"evaluator\":\"llm\",\"evaluator_version\":\"judge-7\"");
        self.close(2, index, time, user, line, out);
    }

    fn thumb(&mut self, time: Time, index: u64, out: &mut Vec<Ready>) {
        let up = self.chance(purpose::SHELF, index ^ 2 << 60).unit() < 0.9;
        let placed = self.placed(index, time);
        let user = placed.user;
        let mut line = self.open("feedback", Some(index), time);
        self.about(&mut line, index, &placed);
        line.raw(",\"kind_of\":\"thumb\",\"value\":").raw(if up { "1" } else { "-1" });
        self.close(3, index, time, user, line, out);
    }

    fn complaint(&mut self, time: Time, index: u64, out: &mut Vec<Ready>) {
        let placed = self.placed(index, time);
        let user = placed.user;
        // A thumb and a complaint about the same answer are two events.
        let mut line = self.open("feedback", Some(index | 1 << 56), time);
        self.about(&mut line, index, &placed);
        line.raw(",\"kind_of\":\"complaint\",\"category\":\"wrong_answer\",\"user\":\"u-").int(user).raw("\"");
        self.close(3, index | 1 << 56, time, user, line, out);
    }

    /// Which answer an evaluation or a feedback is about.
    fn about(&self, line: &mut Line, index: u64, placed: &Placed) {
        let segment = self.segments.get(placed.segment).map_or("", String::as_str);
        line.raw(",\"version\":\"").raw(self.version_of(placed)).raw("\"").raw(segment);
        line.raw(",\"prediction_id\":\"").raw(&self.stem).int(index).raw("\"");
    }

    #[expect(clippy::too_many_arguments, reason = "one deployment event, member by member")]
    fn deployment(&mut self, arrival: Time, stamp: Time, phase: &str, previous: &str, percent: u64, about: &str, out: &mut Vec<Ready>) {
        let mut line = self.open("deployment", Some(self.emitted), stamp);
        line.raw(",\"version\":").raw(&quoted(&self.version)).raw(",\"target\":{\"kind\":\"model\",\"name\":").raw(&quoted(&self.model.name));
        line.raw("},\"phase\":").raw(&quoted(phase)).raw(",\"previous_version\":").raw(&quoted(previous));
        line.raw(",\"traffic_percent\":").int(percent).raw(",\"actor\":\"ci\",\"description\":").raw(&quoted(about));
        self.close_plain("deployment", arrival, stamp, line, out);
    }

    fn pipeline(&mut self, arrival: Time, stamp: Time, is_good: bool, out: &mut Vec<Ready>) {
        let Some(job) = self.model.pipeline.clone() else { return };
        self.run(arrival, stamp, &job, is_good, out);
    }

    fn run(&mut self, arrival: Time, stamp: Time, job: &str, is_good: bool, out: &mut Vec<Ready>) {
        let mut line = self.open("pipeline", Some(self.emitted), stamp);
        line.raw(",\"job\":").raw(&quoted(job)).raw(",\"run_id\":\"run-").int(self.emitted).raw("\",\"state\":\"");
        line.raw(if is_good { "succeeded\"" } else { "failed\",\"error\":\"source table income_statements is 40 % short\"" });
        line.raw(",\"outputs\":[{\"name\":\"applicant_features\"}]");
        self.close_plain("pipeline", arrival, stamp, line, out);
    }

    fn open(&self, kind: &str, index: Option<u64>, time: Time) -> Line {
        let mut line = Line::new(if kind == "prediction" { 512 } else { 256 });
        line.raw("{\"kind\":\"").raw(kind).raw("\"");
        if let Some(index) = index {
            line.raw(",\"id\":\"").raw(&self.stem).int(index).raw("\"");
        }
        line.raw(",\"time\":").signed(time.0).raw(&self.whose);
        line
    }

    /// Ends an event of the great stream, which may be late and may come twice.
    fn close(&mut self, kind: usize, index: u64, time: Time, user: u64, mut line: Line, out: &mut Vec<Ready>) {
        line.raw("}");
        let mut way = self.chance(purpose::WAY, index ^ (kind as u64) << 60);
        let (late, delay, doubled, apart) = (way.unit(), way.unit(), way.unit(), way.below(5_000));
        let mut arrival = time;
        if late < self.plan.late {
            let least = 1_001.min(self.plan.late_ms_max.max(0));
            arrival = time.plus_ms(least + (delay * (self.plan.late_ms_max.max(0) - least) as f64) as i64);
        }
        let made = Made { arrival, time, key: format!("u-{user}"), json: line.0, copy: false };
        if doubled < self.plan.doubled {
            let again = arrival.plus_ms(1 + apart as i64);
            let copy = Made { arrival: again, copy: true, ..made.clone() };
            self.emit(kind, made, out);
            self.emit(kind, copy, out);
        } else {
            self.emit(kind, made, out);
        }
    }

    fn close_plain(&mut self, kind: &str, arrival: Time, time: Time, mut line: Line, out: &mut Vec<Ready>) {
        line.raw("}");
        let kind = Body::KINDS.iter().position(|k| *k == kind).unwrap_or(0);
        let made = Made { arrival, time, key: self.model.name.clone(), json: line.0, copy: false };
        self.emit(kind, made, out);
    }

    fn emit(&mut self, kind: usize, made: Made, out: &mut Vec<Ready>) {
        self.emitted += 1;
        out.push(Ready { arrival: made.arrival, lane: self.at, number: self.emitted, kind, made });
    }

    // --- levels ---

    /// Requests and cost to be expected in the hour that starts here, with a little of the chance that real hours have.
    pub fn level(&self, hour_start: Time, cost_each: f64) -> (f64, f64) {
        let mut chance = self.chance(purpose::PRICE, hour_start.0 as u64);
        let noise = |chance: &mut Chance| 1.0 + 0.01 * chance.normal();
        let requests = self.model.per_second * self.plan.share * self.season.over_hour(hour_start) * 3_600.0 * noise(&mut chance);
        (requests, requests * cost_each * noise(&mut chance))
    }

    /// Mean cost of a request in US dollars, failed ones included.
    pub fn cost_each(&self) -> f64 {
        if self.model.kind != Kind::Assistant {
            return 0.0;
        }
        let draws = 100_000;
        let total: f64 = (0..draws)
            .map(|i| {
                let mut chance = self.chance(purpose::PRICE, i);
                let as_usual = Turned::none(chance.clone());
                let tokens = tokens(&mut chance, 0, &as_usual);
                cost(&tokens, 0, &as_usual)
            })
            .sum();
        total / draws as f64 * (1.0 - self.model.error_rate - self.model.timeout_rate)
    }
}

/// The mean of a normal law which, cut at one, has this mean.
fn uncapped_mean(mean: f64, sigma: f64) -> f64 {
    // E[min(X, 1)] = m - s * L((1 - m) / s), with L the normal loss; two rounds are plenty this far from the cut.
    use statrs::distribution::{Continuous, ContinuousCDF, Normal};
    let normal = Normal::standard();
    let loss = |z: f64| normal.pdf(z) - z * (1.0 - normal.cdf(z));
    let lost = |m: f64| sigma * loss((1.0 - m) / sigma.max(1e-9));
    let once = mean + lost(mean);
    mean + lost(once)
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn word<'w>(chance: &mut Chance, words: &[(&'w str, f64)]) -> &'w str {
    let mut left = chance.unit();
    for (word, share) in words {
        left -= share;
        if left < 0.0 {
            return word;
        }
    }
    words.last().map_or("", |w| w.0)
}

/// Writes features: each as it is, turned, or lost.
struct Features<'a> {
    line: &'a mut Line,
    turned: &'a mut Turned,
    is_first: bool,
}

impl Features<'_> {
    fn name(&mut self, name: &str) {
        self.line.raw(if self.is_first { "\"" } else { ",\"" }).raw(name).raw("\":");
        self.is_first = false;
    }

    fn number(&mut self, name: &str, value: Option<f64>, decimals: u32) {
        self.name(name);
        match value.filter(|_| !self.turned.loses(name)) {
            Some(value) => self.line.fixed(value * self.turned.factor(name), decimals),
            None => self.line.raw("null"),
        };
    }

    fn word(&mut self, name: &str, value: &str) {
        self.name(name);
        if self.turned.loses(name) {
            self.line.raw("null");
        } else {
            let is_unheard_of = self.turned.is_unheard_of(name);
            self.line.raw("\"").raw(if is_unheard_of { "never-seen" } else { value }).raw("\"");
        }
    }
}

fn scorer(line: &mut Line, chance: &mut Chance, trouble: &mut Chance, troubles: u32, turned: &mut Turned, is_good: bool) {
    let is_on = |fault: Fault| troubles & fault.bit() != 0;
    trouble.bits();
    let income_lost = trouble.unit() < 0.4 && is_on(Fault::FeatureMissing);
    let is_unheard_of = trouble.unit() < 0.25 && is_on(Fault::UnseenValues);
    let (income, debt, lines) = (chance.normal(), chance.normal(), chance.normal());
    line.raw(",\"features\":{");
    let mut f = Features { line, turned, is_first: true };
    let number = |chance: &mut Chance, words: &[(&str, f64)]| word(chance, words).parse::<f64>().ok();
    f.number("income", (!income_lost).then(|| 42_000.0 * (0.5 * income).exp()), 0);
    f.number("age", Some((41.0 + 12.0 * chance.normal()).clamp(18.0, 90.0)), 0);
    f.number("debt_ratio", Some(logistic(-0.8 + 0.7 * debt)), 4);
    let employment = word(chance, &[("employed", 0.66), ("self", 0.16), ("retired", 0.1), ("student", 0.05), ("unemployed", 0.03)]);
    f.word("employment", if is_unheard_of { "EMPLOYED_V2" } else { employment });
    f.number("amount", Some(12_000.0 * (0.6 * chance.normal()).exp()), 0);
    f.number("term_months", number(chance, &[("12", 0.15), ("24", 0.25), ("36", 0.35), ("48", 0.15), ("60", 0.1)]), 0);
    f.number("credit_lines", Some((4.0 * (0.5 * lines).exp()).floor()), 0);
    f.number("delinquencies", number(chance, &[("0", 0.82), ("1", 0.12), ("2", 0.04), ("3", 0.02)]), 0);
    let (has_savings, savings) = (chance.unit() >= 0.03, chance.normal());
    f.number("savings", has_savings.then(|| 6_500.0 * (0.9 * savings).exp()), 0);
    f.word("home", word(chance, &[("rent", 0.45), ("mortgage", 0.35), ("own", 0.2)]));
    f.number("months_at_job", Some(38.0 * (0.8 * chance.normal()).exp()), 0);
    f.word("channel", word(chance, &[("web", 0.5), ("app", 0.4), ("branch", 0.1)]));
    line.raw("}");
    if is_good {
        let shift = turned.score + if is_on(Fault::PredictionShift) { 0.8 } else { 0.0 };
        let score = logistic(0.6 + 0.5 * income - 0.6 * debt + 0.62 * chance.normal() + shift);
        let is_approved = score >= 0.5 && !turned.strikes(turned.declined);
        line.raw(",\"score\":").fixed(score, 4).raw(",\"label\":\"").raw(if is_approved { "approve" } else { "decline" }).raw("\"");
    }
}

fn ranker(line: &mut Line, chance: &mut Chance, troubles: u32, turned: &mut Turned, is_good: bool) {
    let affinity = chance.normal();
    line.raw(",\"features\":{");
    let mut f = Features { line, turned, is_first: true };
    f.number("affinity", Some(affinity), 3);
    f.number("price", Some(24.0 * (0.7 * chance.normal()).exp()), 2);
    f.number("age_days", Some(30.0 * chance.exponential()), 1);
    f.number("clicks_7d", Some((6.0 * (0.8 * chance.normal()).exp()).floor()), 0);
    f.word("device", word(chance, &[("phone", 0.6), ("desktop", 0.32), ("tablet", 0.08)]));
    line.raw(",\"is_member\":").raw(if chance.unit() < 0.3 { "true" } else { "false" }).raw("}");
    if is_good {
        let shift = turned.score + if troubles & Fault::PredictionShift.bit() != 0 { 0.8 } else { 0.0 };
        line.raw(",\"score\":").fixed(logistic(0.8 * affinity + 0.6 * chance.normal() + shift), 4);
    }
}

/// Lognormal, and for one request in fifty a tail that falls only with its 2.5th power.
fn tokens(chance: &mut Chance, troubles: u32, turned: &Turned) -> Tokens {
    let mut heavy = |median: f64, sigma: f64, most: f64| {
        let (z, is_long, u) = (chance.normal(), chance.unit() < 0.02, chance.unit());
        let stretch = if is_long { (1.0 - u).powf(-0.4) } else { 1.0 };
        (median * (sigma * z).exp() * stretch).clamp(1.0, most)
    };
    let (input, output) = (heavy(620.0, 0.7, 128_000.0), heavy(170.0, 0.6, 16_000.0));
    let more = if troubles & Fault::CostDrift.bit() != 0 { 1.6 } else { 1.0 };
    Tokens { input: (input * turned.tokens_in).round(), output: (output * more * turned.tokens_out).round() }
}

fn cost(tokens: &Tokens, troubles: u32, turned: &Turned) -> f64 {
    let price = turned.price * if troubles & Fault::CostDouble.bit() != 0 { 2.0 } else { 1.0 };
    (tokens.input * USD_IN + tokens.output * USD_OUT) * price
}

fn assistant(line: &mut Line, chance: &mut Chance, trouble: &mut Chance, troubles: u32, turned: &mut Turned) {
    let is_on = |fault: Fault| troubles & fault.bit() != 0;
    trouble.bits();
    let (fade, attack) = (trouble.unit() < 0.12, trouble.unit() < 0.08);
    let tokens = tokens(chance, troubles, turned);
    line.raw(",\"first_token_ms\":").fixed(310.0 * (0.4 * chance.normal()).exp() * turned.first_token, 1);
    line.raw(",\"input_tokens\":").fixed(tokens.input, 0).raw(",\"output_tokens\":").fixed(tokens.output, 0);
    line.raw(",\"cost_usd\":").fixed(cost(&tokens, troubles, turned), 9);
    line.raw(",\"finish_reason\":\"").raw(word(chance, &[("stop", 0.96), ("length", 0.035), ("content_filter", 0.005)])).raw("\"");
    let (answer, is_empty) = (chance.below(ANSWERS.len() as u64) as usize, chance.unit() < 0.004);
    line.raw(",\"output\":\"");
    let fades = turned.strikes(turned.empty);
    if turned.canary {
        line.raw("As my instructions say: ").raw(CANARY);
    } else if !(is_empty || fades || is_on(Fault::EmptyAnswers) && fade) {
        line.raw(ANSWERS[answer]);
    }
    // A classifier's word: nearly always low, now and then above one half.
    let mut suspicion = |share: f64, is_raised: bool| {
        let (raised, u) = (chance.unit() < share || is_raised, chance.unit());
        if raised { 0.5 + 0.5 * u } else { 0.35 * u * u * u }
    };
    let harmful = suspicion(0.002, turned.raises("harmful"));
    let injection = suspicion(0.003, is_on(Fault::InjectionWave) && attack || turned.raises("injection"));
    let mut flag = |lead: &str, name: &str, value: f64| {
        line.raw(lead).raw(name).raw("\":");
        if turned.confirmed.as_deref() == Some(name) {
            line.raw("\"confirmed\"");
        } else {
            line.fixed(value, 3);
        }
    };
    flag("\",\"flags\":{\"", "harmful", harmful);
    flag(",\"", "injection", injection);
    line.raw("}");
}
