//! The outbox is worked here: one lane per incident and receiver.
//!
//! The picture is a post office with many counters. Letters about one incident to one receiver stand in one line and are handed
//! over one by one; the lines do not wait for each other. Each letter is taken under a lease, so that after a kill it is found
//! again; what nobody knows is whether a letter that was in hand at that moment arrived.
//!
//! Everything that decides is a pure function here ([`before_sending`], [`after_sending`]) and is tested as a table; everything
//! that waits, locks or spawns is the small shell around it. State publishers have no lane: each is told what is open at the
//! start, every minute, and when somebody wakes us.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tracing::{info, warn};

use crate::domain::Time;
use crate::domain::delivery::{Delivery, DeliveryState, Message, Notice, Outcome};
use crate::domain::incident::Incident;
use crate::domain::series::StableHash;
use crate::domain::time::{DAY_MS, MINUTE_MS, SECOND_MS};
use crate::notify::{Act, Errand, Manner, Receiver, Repeat, Schedule, http};

/// A delivery under a lease.
#[derive(Clone, Debug)]
pub struct Claimed {
    pub delivery: Delivery,
    /// How often it has been claimed, this time included. Settling names it, so that a claim which ran out cannot settle.
    pub attempts: u32,
    /// When it was first claimed for sending; `None` if this is the first time.
    pub first_attempt_at: Option<Time>,
    /// The answer to an earlier attempt was lost, or a process died with it in hand.
    pub was_uncertain: bool,
    /// What this receiver gave us for this incident, if it gave anything.
    pub reference: Option<String>,
}

/// The table of due messages, wherever it is kept. Every method may block.
pub trait Outbox: Send + Sync {
    /// Takes up to `max` due deliveries, oldest first, under a lease of `lease_ms`: of one incident and receiver only the first
    /// that is not final.
    fn claim(&self, now: Time, lease_ms: i64, max: usize) -> Result<Vec<Claimed>, String>;
    /// Writes down what came of a claim. `false` when the claim was no longer ours.
    fn settle(&self, id: &str, attempts: u32, state: DeliveryState, detail: &str, next_at: Option<Time>, now: Time) -> Result<bool, String>;
    /// Keeps what a receiver gave us for an incident; the claims of the same lane bring it back. Durable when it returns.
    fn keep_reference(&self, incident: &str, receiver: &str, reference: &str, now: Time) -> Result<(), String>;
    fn open_incidents(&self) -> Result<Vec<Incident>, String>;
    /// Incidents that are no longer live and were so at `t` or later.
    fn resolved_since(&self, t: Time) -> Result<Vec<Incident>, String>;
    fn incident(&self, id: &str) -> Result<Option<Incident>, String>;
    /// Adds a delivery; one whose id is known already is left as it is, and the answer is `false`.
    fn add(&self, delivery: Delivery) -> Result<bool, String>;
    /// Was anything of this incident handed on to `receiver` instead of `other`?
    fn stood_in(&self, incident: &str, receiver: &str, other: &str) -> Result<bool, String>;
}

pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;
/// Told of every attempt: receiver, what came of it, how long it took.
pub type Observer = Arc<dyn Fn(&str, &Outcome, Duration) + Send + Sync>;
/// Told of every message that is handed on: from whom, and to whom if anybody is left.
pub type HandedOn = Arc<dyn Fn(&str, Option<&str>) + Send + Sync>;

/// Numbers of the worker.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How often the outbox is looked at when nobody wakes us.
    pub poll: Duration,
    /// How often publishers are told what is open.
    pub publish_every: Duration,
    pub lease_ms: i64,
    /// A claim with less than this left is given back unsent.
    pub lease_left_ms_min: i64,
    /// Claims in hand, over all lanes.
    pub in_flight_max: usize,
    /// Of these, to one receiver: one that hangs must leave room for the others.
    pub per_receiver_max: usize,
    /// How long a shutdown waits for attempts in the air. What is cut off is uncertain.
    pub drain: Duration,
    /// For the jitter.
    pub seed: u64,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            poll: Duration::from_secs(1),
            publish_every: Duration::from_secs(60),
            lease_ms: 30 * SECOND_MS,
            // As long as one request may take.
            lease_left_ms_min: 15 * SECOND_MS,
            in_flight_max: 64,
            per_receiver_max: 16,
            drain: Duration::from_secs(10),
            seed: 0,
        }
    }
}

/// A trigger whose answer was lost is not repeated after this, since nobody can ask the receiver yet, milliseconds.
const UNCERTAIN_TRIGGER_MS_MAX: i64 = 10 * MINUTE_MS;
/// A trigger older than this calls nobody if somebody is already at it, milliseconds.
const TRIGGER_MS_MAX: i64 = 15 * MINUTE_MS;
/// Whatever is not about a live incident is given up after this, milliseconds.
const GIVE_UP_MS: i64 = 2 * DAY_MS;
/// How far back publishers are told of incidents that are over, milliseconds.
const RESOLVED_SINCE_MS: i64 = 15 * MINUTE_MS;

// === decisions ===

/// What to do with a claim before its first byte leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Before {
    Send,
    GiveUp {
        state: DeliveryState,
        why: String,
        /// Somebody else must hear it.
        fall_back: bool,
    },
}

/// What came of an attempt, for the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    pub state: DeliveryState,
    pub detail: String,
    pub next_at: Option<Time>,
    pub fall_back: bool,
}

/// `current` is the incident as the store has it now.
pub fn before_sending(claimed: &Claimed, manner: &Manner, current: Option<&Incident>, now: Time) -> Before {
    let message = &claimed.delivery.message;
    let incident = current.unwrap_or(&message.incident);
    let is_live = incident.state.is_live();
    let age_ms = now.since_ms(claimed.first_attempt_at.unwrap_or(now));
    let expired = |why: &str, fall_back| Before::GiveUp { state: DeliveryState::Expired, why: why.to_owned(), fall_back };
    if is_past_end(manner, is_live, age_ms) {
        return expired("given up: the receiver could not be reached for too long", is_live);
    }
    // Only a trigger at a receiver of alerts can do harm by coming twice or late.
    if manner.repeat != Repeat::SameAlert || Act::of(message) != Act::Trigger {
        return Before::Send;
    }
    if claimed.was_uncertain && !is_live {
        return expired("not repeated: nobody knows whether it arrived, and the incident is over", false);
    }
    if claimed.was_uncertain && age_ms > UNCERTAIN_TRIGGER_MS_MAX {
        return expired("not repeated: nobody knows whether it arrived, and the receiver cannot be asked", true);
    }
    let waited_ms = now.since_ms(message.at);
    if waited_ms > TRIGGER_MS_MAX && !is_live {
        return expired("not sent: late, and the incident is over", false);
    }
    if waited_ms > TRIGGER_MS_MAX && incident.acknowledged_at.is_some_and(|at| at >= message.at) {
        return expired("not sent: late, and somebody has acknowledged the incident", false);
    }
    Before::Send
}

/// How often this process has sent a delivery, and how often it was refused. Claims that were given back unsent do not count.
/// Forgotten at a restart, after which waits begin short again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    pub sent: u32,
    pub refused: u32,
}

/// `tries` counts this one; `unit` is a random number in 0 .. 1 for the jitter.
pub fn after_sending(claimed: &Claimed, manner: &Manner, outcome: &Outcome, tries: Tries, is_live: bool, unit: f64, now: Time) -> After {
    let detail = outcome.detail().to_owned();
    let done = |state, fall_back| After { state, detail: detail.clone(), next_at: None, fall_back };
    let again = |is_uncertain: bool, after_ms: Option<i64>| {
        let age_ms = now.since_ms(claimed.first_attempt_at.unwrap_or(now));
        if is_past_end(manner, is_live, age_ms) {
            return After { detail: format!("given up: {detail}"), ..done(DeliveryState::Expired, is_live) };
        }
        let look_after_ms = if is_uncertain { manner.look_after_ms } else { 0 };
        let wait_ms = wait_ms(&manner.schedule, tries.sent, unit).max(after_ms.unwrap_or(0)).max(look_after_ms);
        // Once nobody knows, a later "did not arrive" does not make it known.
        let state = if is_uncertain || claimed.was_uncertain { DeliveryState::Uncertain } else { DeliveryState::Waiting };
        After { next_at: Some(now.plus_ms(wait_ms)), ..done(state, false) }
    };
    match outcome {
        Outcome::Accepted { .. } => done(DeliveryState::Accepted, false),
        Outcome::Refused { status: None | Some(410), .. } => done(DeliveryState::Refused, true),
        Outcome::Refused { .. } if tries.refused >= manner.refusals_max => done(DeliveryState::Refused, true),
        Outcome::Refused { .. } => again(false, None),
        Outcome::Retry { after_ms, .. } => again(false, *after_ms),
        Outcome::Uncertain { .. } => again(true, None),
        Outcome::Untrusted { .. } => After { fall_back: true, ..again(false, None) },
    }
}

fn is_past_end(manner: &Manner, is_live: bool, age_ms: i64) -> bool {
    match manner.schedule {
        Schedule::Steps { until_ms, .. } => age_ms > until_ms,
        Schedule::Doubling { .. } => !is_live && age_ms > GIVE_UP_MS,
    }
}

/// The wait after the attempt with number `sent` (from 1), with full jitter but never below a second.
fn wait_ms(schedule: &Schedule, sent: u32, unit: f64) -> i64 {
    let nth = sent.saturating_sub(1);
    let most_ms = match *schedule {
        Schedule::Doubling { first_ms, max_ms } => first_ms.saturating_mul(1_i64 << nth.min(32)).min(max_ms),
        Schedule::Steps { steps_ms, then_ms, .. } => steps_ms.get(nth as usize).copied().unwrap_or(then_ms),
    };
    ((most_ms as f64 * unit.clamp(0.0, 1.0)) as i64).clamp(SECOND_MS.min(most_ms), most_ms)
}

/// What was in hand when the last process ended may have been made a moment ago, and a search shows it only after a while: whoever
/// searched at once would make it a second time.
fn found_at(claimed: &Claimed, manner: &Manner, began: Time) -> Time {
    let is_searched = claimed.was_uncertain && manner.repeat == Repeat::Looked;
    if is_searched { began.plus_ms(manner.look_after_ms) } else { Time::MIN }
}

/// A message that stands behind in the same lane makes this one stale.
fn is_overtaken(claimed: &Claimed, behind: &VecDeque<Job>) -> bool {
    claimed.delivery.message.notice.may_be_superseded()
        && behind.iter().any(|j| j.claimed.delivery.message.incident.revision > claimed.delivery.message.incident.revision)
}

/// A call that has not got through for so long is told to the fallback as well, while it is tried on.
fn is_overdue(claimed: &Claimed, is_live: bool, now: Time) -> bool {
    let calls = matches!(claimed.delivery.message.notice, Notice::Opened | Notice::Escalated | Notice::Reopened);
    calls && is_live && claimed.first_attempt_at.is_some_and(|first| now.since_ms(first) > TRIGGER_MS_MAX)
}

/// At most `per_minute` sends in a minute, with as many at once after a quiet minute. What finds no token is given a moment of
/// its own to come back, so that ten thousand of them do not come back together.
#[derive(Debug)]
struct Bucket {
    per_minute: f64,
    tokens: f64,
    at: Time,
    booked_until: Time,
}

impl Bucket {
    fn full(per_minute: u32, now: Time) -> Bucket {
        let per_minute = f64::from(per_minute.max(1));
        Bucket { per_minute, tokens: per_minute, at: now, booked_until: now }
    }

    /// # Errors
    /// With the time at which to come back.
    fn take(&mut self, now: Time) -> Result<(), Time> {
        // A clock that runs backwards fills nothing.
        let passed_ms = now.since_ms(self.at).max(0) as f64;
        self.tokens = (self.tokens + passed_ms * self.per_minute / MINUTE_MS as f64).min(self.per_minute);
        self.at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let step_ms = (MINUTE_MS as f64 / self.per_minute).ceil() as i64;
        self.booked_until = self.booked_until.max(now).plus_ms(step_ms);
        Err(self.booked_until)
    }
}

/// The door of one receiver: only so many at once, and who finds it full is given a moment of his own, as far off as the last
/// attempt was long.
struct Door {
    room: Semaphore,
    room_max: usize,
    /// (length of the last attempt in milliseconds, moments given away until)
    pace: Mutex<(i64, Time)>,
    /// It has asked to be left alone until then.
    quiet_until: Mutex<Time>,
}

impl Door {
    /// Before anything is known of a receiver.
    const LENGTH_MS: i64 = 800;
    /// Nearer moments than this are not worth a row's rewriting.
    const STEP_MS_MIN: i64 = 10;

    fn new(room_max: usize) -> Door {
        let room_max = room_max.max(1);
        Door { room: Semaphore::new(room_max), room_max, pace: Mutex::new((Door::LENGTH_MS, Time::MIN)), quiet_until: Mutex::new(Time::MIN) }
    }

    fn moment(&self, now: Time) -> Time {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let step_ms = (pace.0 / self.room_max as i64).max(Door::STEP_MS_MIN);
        pace.1 = pace.1.max(now).plus_ms(step_ms);
        pace.1
    }

    /// "Too many requests" is said to all of us, not to one message.
    fn hush(&self, until: Time) {
        let mut quiet = self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        *quiet = (*quiet).max(until);
    }

    /// A moment after the quiet that the receiver asked for, if it lasts.
    fn quiet(&self, now: Time) -> Option<Time> {
        let until = *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner);
        (until > now).then(|| self.moment(until))
    }

    fn took(&self, time: Duration) {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).0 = time.as_millis() as i64;
    }
}

// === the worker ===

pub struct Dispatcher {
    desk: Arc<Desk>,
}

/// What all lanes share.
struct Desk {
    outbox: Arc<dyn Outbox>,
    receivers: BTreeMap<String, Receiver>,
    /// By receiver, who hears what it would not take. Leads nowhere in a circle.
    fallbacks: BTreeMap<String, String>,
    clock: Clock,
    observer: Observer,
    handed_on: HandedOn,
    tuning: Tuning,
    buckets: Mutex<HashMap<String, Bucket>>,
    /// By receiver.
    doors: BTreeMap<String, Door>,
    /// By delivery that is not final yet.
    tries: Mutex<HashMap<String, Tries>>,
    /// When this one began: what the last process had in hand was made before.
    began: Time,
}

/// (incident, receiver)
type Lane = (String, String);

struct Job {
    claimed: Claimed,
    lease_until: Time,
}

impl Dispatcher {
    pub fn new(
        outbox: Arc<dyn Outbox>,
        receivers: BTreeMap<String, Receiver>,
        fallbacks: BTreeMap<String, String>,
        clock: Clock,
        (observer, handed_on): (Observer, HandedOn),
        tuning: Tuning,
    ) -> Dispatcher {
        let (buckets, tries) = Default::default();
        let doors = receivers.keys().map(|name| (name.clone(), Door::new(tuning.per_receiver_max))).collect();
        let began = clock();
        Dispatcher { desk: Arc::new(Desk { outbox, receivers, fallbacks, clock, observer, handed_on, tuning, buckets, doors, tries, began }) }
    }

    /// Works until `shutdown` turns true (or its sender is gone), then waits a little for what is in the air.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>, wake: Arc<Notify>) {
        let desk = self.desk;
        let (ticks, _) = watch::channel(());
        let mut publishers = JoinSet::new();
        for (name, receiver) in &desk.receivers {
            if let Receiver::State(_) = receiver {
                publishers.spawn(publish_for_ever(Arc::clone(&desk), name.clone(), ticks.subscribe(), shutdown.clone()));
            }
        }
        let mut lanes = Lanes::default();
        while !*shutdown.borrow_and_update() {
            let free = desk.tuning.in_flight_max.saturating_sub(lanes.in_hand());
            if free > 0 {
                for job in desk.claim(free).await {
                    lanes.put(&desk, job);
                }
            }
            tokio::select! {
                changed = shutdown.changed() => if changed.is_err() { break },
                () = wake.notified() => drop(ticks.send(())),
                () = tokio::time::sleep(desk.tuning.poll) => {}
                // Only waiting may be broken off here; what follows from an end is done below, in one piece.
                Some(done) = lanes.running.join_next_with_id() => lanes.ended(&desk, done).await,
            }
        }
        drop(ticks);
        lanes.give_back(&desk).await;
        let drained = tokio::time::timeout(desk.tuning.drain, async {
            while let Some(done) = lanes.running.join_next_with_id().await {
                lanes.ended(&desk, done).await;
            }
        });
        if drained.await.is_err() {
            warn!(in_flight = lanes.in_hand(), "deliveries were cut off by the shutdown and are uncertain");
        }
        publishers.shutdown().await;
    }
}

#[derive(Default)]
struct Lanes {
    running: JoinSet<Option<Time>>,
    by_task: HashMap<Id, Lane>,
    /// Busy lanes, each with what stands behind the one in hand.
    waiting: HashMap<Lane, VecDeque<Job>>,
    behind: usize,
}

impl Lanes {
    fn in_hand(&self) -> usize {
        self.by_task.len() + self.behind
    }

    fn put(&mut self, desk: &Arc<Desk>, job: Job) {
        let lane = (job.claimed.delivery.message.incident.id.clone(), job.claimed.delivery.receiver.clone());
        match self.waiting.get_mut(&lane) {
            Some(queue) => {
                queue.push_back(job);
                self.behind += 1;
            }
            None => {
                self.waiting.insert(lane.clone(), VecDeque::new());
                self.start(desk, lane, job);
            }
        }
    }

    fn start(&mut self, desk: &Arc<Desk>, lane: Lane, job: Job) {
        let is_overtaken = self.waiting.get(&lane).is_some_and(|behind| is_overtaken(&job.claimed, behind));
        let task = self.running.spawn(Arc::clone(desk).work(job, is_overtaken));
        self.by_task.insert(task.id(), lane);
    }

    /// After one attempt has ended, starts the next of its lane; if the attempt must be repeated, so must wait those behind.
    async fn ended(&mut self, desk: &Arc<Desk>, done: Result<(Id, Option<Time>), JoinError>) {
        let (id, come_back_at) = match done {
            Ok((id, come_back_at)) => (id, come_back_at),
            Err(e) => {
                warn!(error = %e, "a delivery broke off; its lease will run out");
                (e.id(), Some((desk.clock)().plus_ms(desk.tuning.lease_ms)))
            }
        };
        let Some(lane) = self.by_task.remove(&id) else { return };
        let mut behind = self.waiting.remove(&lane).unwrap_or_default();
        if let Some(at) = come_back_at {
            self.behind -= behind.len();
            for job in behind {
                desk.put_back(&job, "waits for an earlier message", at).await;
            }
        } else if let Some(next) = behind.pop_front() {
            self.behind -= 1;
            self.waiting.insert(lane.clone(), behind);
            self.start(desk, lane, next);
        }
    }

    async fn give_back(&mut self, desk: &Arc<Desk>) {
        for job in self.waiting.values_mut().flat_map(std::mem::take) {
            desk.put_back(&job, "not sent: shutting down", (desk.clock)()).await;
        }
        self.behind = 0;
    }
}

// === impl Desk ===

impl Desk {
    async fn claim(self: &Arc<Desk>, max: usize) -> Vec<Job> {
        let now = (self.clock)();
        let lease_ms = self.tuning.lease_ms;
        match self.ask(move |o| o.claim(now, lease_ms, max)).await {
            Ok(claims) => claims.into_iter().map(|claimed| Job { claimed, lease_until: now.plus_ms(lease_ms) }).collect(),
            Err(error) => {
                warn!(error, "the outbox cannot be read");
                Vec::new()
            }
        }
    }

    /// One claim from beginning to end. Answers when to come back, or nothing if it is final.
    async fn work(self: Arc<Desk>, job: Job, is_overtaken: bool) -> Option<Time> {
        let claimed = &job.claimed;
        let message = &claimed.delivery.message;
        let name = claimed.delivery.receiver.as_str();
        if is_overtaken {
            return self.finish(claimed, DeliveryState::Superseded, "a newer message stands behind it", None, false).await;
        }
        let notifier = match self.receivers.get(name) {
            Some(Receiver::Messages(notifier)) => notifier,
            Some(Receiver::State(_)) => {
                return self.finish(claimed, DeliveryState::Superseded, "this receiver is told the state as a whole", None, false).await;
            }
            None => return self.finish(claimed, DeliveryState::Refused, &format!("no receiver is called {name:?}"), None, true).await,
        };
        let door = self.doors.get(name)?;
        let Ok(_room) = door.room.try_acquire() else {
            return self.put_back(&job, "waits: too many are on their way to this receiver", door.moment((self.clock)())).await;
        };
        if let Some(at) = door.quiet((self.clock)()) {
            return self.put_back(&job, "waits: the receiver has asked for time", at).await;
        }
        let manner = notifier.manner();
        let found_at = found_at(claimed, &manner, self.began);
        if found_at > (self.clock)() {
            return self.put_back(&job, "waits: what may have been made before the restart is not found by a search yet", found_at).await;
        }
        let id = message.incident.id.clone();
        let current = match self.ask(move |o| o.incident(&id)).await {
            Ok(current) => current,
            Err(error) => return self.put_back(&job, &format!("not sent: {error}"), (self.clock)().plus_ms(SECOND_MS)).await,
        };
        if let Before::GiveUp { state, why, fall_back } = before_sending(claimed, &manner, current.as_ref(), (self.clock)()) {
            return self.finish(claimed, state, &why, None, fall_back).await;
        }
        if let Some(per_minute) = manner.per_minute_max
            && let Err(at) = self.token(name, per_minute)
        {
            return self.put_back(&job, "waits: the receiver takes no more for now", at).await;
        }
        let now = (self.clock)();
        if job.lease_until.since_ms(now) < self.tuning.lease_left_ms_min {
            return self.put_back(&job, "not sent: the lease was running out", now).await;
        }
        let began = Instant::now();
        let errand = Errand { delivery: &claimed.delivery, reference: claimed.reference.as_deref(), may_have_arrived: claimed.was_uncertain };
        let receipt = notifier.deliver(errand, now).await;
        let (outcome, time) = (receipt.outcome, began.elapsed());
        door.took(time);
        (self.observer)(name, &outcome, time);
        let now = (self.clock)();
        if let Some(reference) = receipt.reference.filter(|r| claimed.reference.as_ref() != Some(r)) {
            let (incident, receiver) = (message.incident.id.clone(), name.to_owned());
            // Before the end is written down: a kill in between leaves a message that is uncertain and a ticket that is known.
            if let Err(error) = self.ask(move |o| o.keep_reference(&incident, &receiver, &reference, now)).await {
                warn!(receiver = name, incident = %message.incident.id, error, "what the receiver gave us cannot be written down");
                return Some(now.plus_ms(self.tuning.lease_ms));
            }
        }
        if let Outcome::Retry { status: Some(429), after_ms: Some(ms), .. } = &outcome {
            door.hush(now.plus_ms(*ms));
        }
        let is_live = current.as_ref().unwrap_or(&message.incident).state.is_live();
        let tries = self.tried(&claimed.delivery.id, matches!(outcome, Outcome::Refused { .. }));
        let unit = jitter(self.tuning.seed, &claimed.delivery.id, claimed.attempts);
        let after = after_sending(claimed, &manner, &outcome, tries, is_live, unit, now);
        match after.state {
            DeliveryState::Accepted => info!(receiver = name, incident = %message.incident.id, notice = message.notice.as_str(), "delivered"),
            state => warn!(
                receiver = name, incident = %message.incident.id, notice = message.notice.as_str(), attempt = claimed.attempts,
                state = state.as_str(), detail = %after.detail, "delivery failed"
            ),
        }
        let is_overdue = !after.state.is_final() && is_overdue(claimed, is_live, now);
        self.finish(claimed, after.state, &after.detail, after.next_at, after.fall_back || is_overdue).await
    }

    /// Writes the end of an attempt down. The fallback's message is written first: a kill in between makes it twice the same row.
    async fn finish(self: &Arc<Desk>, claimed: &Claimed, state: DeliveryState, detail: &str, next_at: Option<Time>, fall_back: bool) -> Option<Time> {
        let mut detail = detail.to_owned();
        match self.hand_on(claimed, state, fall_back).await {
            Ok(words) => detail.push_str(&words),
            Err(error) => {
                warn!(error, "the fallback cannot be written down; the delivery stays");
                let at = (self.clock)().plus_ms(SECOND_MS);
                return self.settle(claimed, stays(claimed), &format!("{detail}; fallback: {error}"), Some(at)).await;
            }
        }
        if state.is_final() {
            self.tries.lock().unwrap_or_else(PoisonError::into_inner).remove(&claimed.delivery.id);
        }
        self.settle(claimed, state, &detail, next_at).await
    }

    /// Hands a message on to the fallback, if it is one that others must hear. Answers what is added to the outcome's words.
    ///
    /// Whoever was told in place of another hears what follows as well, whichever of the two takes it: nobody is left with a
    /// telephone that rings on after the end.
    async fn hand_on(self: &Arc<Desk>, claimed: &Claimed, state: DeliveryState, fall_back: bool) -> Result<String, String> {
        let (delivery, message) = (&claimed.delivery, &claimed.delivery.message);
        let follows = match state {
            DeliveryState::Accepted => matches!(Act::of(message), Act::Acknowledge | Act::Resolve),
            DeliveryState::Refused | DeliveryState::Expired => Act::of(message) != Act::Trigger,
            DeliveryState::Waiting | DeliveryState::Sending | DeliveryState::Uncertain | DeliveryState::Superseded => false,
        };
        let calls = fall_back && is_worth_a_fallback(message);
        if !calls && !follows {
            return Ok(String::new());
        }
        let from = delivery.receiver.as_str();
        let Some(other) = self.fallback_of(from) else {
            if calls && state.is_final() {
                (self.handed_on)(from, None);
                return Ok("; no fallback is left".to_owned());
            }
            return Ok(String::new());
        };
        if !calls {
            let (incident, receiver, instead_of) = (message.incident.id.clone(), other.to_owned(), from.to_owned());
            if !self.ask(move |o| o.stood_in(&incident, &receiver, &instead_of)).await? {
                return Ok(String::new());
            }
        }
        let substitute = Delivery::instead_of(other, delivery);
        if self.ask(move |o| o.add(substitute)).await? {
            (self.handed_on)(from, Some(other));
        }
        Ok(match state {
            DeliveryState::Refused | DeliveryState::Expired => format!("; sent to {other} instead"),
            DeliveryState::Accepted | DeliveryState::Waiting | DeliveryState::Sending | DeliveryState::Uncertain | DeliveryState::Superseded => {
                format!("; sent to {other} as well")
            }
        })
    }

    /// Who hears what `receiver` would not. What is addressed to nobody in the configuration goes to the first who takes messages.
    fn fallback_of(&self, receiver: &str) -> Option<&str> {
        let first = || self.receivers.iter().find(|(_, r)| matches!(r, Receiver::Messages(_))).map(|(name, _)| name.as_str());
        match self.receivers.contains_key(receiver) {
            true => self.fallbacks.get(receiver).map(String::as_str),
            false => first(),
        }
    }

    async fn put_back(self: &Arc<Desk>, job: &Job, why: &str, at: Time) -> Option<Time> {
        self.settle(&job.claimed, stays(&job.claimed), why, Some(at)).await
    }

    /// When it cannot be written down, the lease runs out and the message is uncertain: the honest answer.
    async fn settle(self: &Arc<Desk>, claimed: &Claimed, state: DeliveryState, detail: &str, next_at: Option<Time>) -> Option<Time> {
        let (id, attempts, detail, now) = (claimed.delivery.id.clone(), claimed.attempts, detail.to_owned(), (self.clock)());
        match self.ask(move |o| o.settle(&id, attempts, state, &detail, next_at, now)).await {
            Ok(true) => next_at,
            Ok(false) => {
                warn!(delivery = claimed.delivery.id, "somebody else has taken this delivery over");
                Some(now)
            }
            Err(error) => {
                warn!(delivery = claimed.delivery.id, error, "what came of a delivery cannot be written down");
                Some(now.plus_ms(self.tuning.lease_ms))
            }
        }
    }

    fn token(&self, receiver: &str, per_minute: u32) -> Result<(), Time> {
        let now = (self.clock)();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.entry(receiver.to_owned()).or_insert_with(|| Bucket::full(per_minute, now)).take(now)
    }

    fn tried(&self, id: &str, is_refused: bool) -> Tries {
        let mut all = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let tries = all.entry(id.to_owned()).or_default();
        tries.sent = tries.sent.saturating_add(1);
        tries.refused = tries.refused.saturating_add(u32::from(is_refused));
        *tries
    }

    /// The outbox on a thread of its own.
    async fn ask<T: Send + 'static>(self: &Arc<Desk>, question: impl FnOnce(&dyn Outbox) -> Result<T, String> + Send + 'static) -> Result<T, String> {
        let outbox = Arc::clone(&self.outbox);
        match tokio::task::spawn_blocking(move || question(&*outbox)).await {
            Ok(answer) => answer,
            Err(e) => Err(format!("outbox: {e}")),
        }
    }

    async fn publish(self: &Arc<Desk>, name: &str) {
        let Some(Receiver::State(publisher)) = self.receivers.get(name) else { return };
        let since = (self.clock)().plus_ms(-RESOLVED_SINCE_MS);
        let (open, resolved) = match self.ask(move |o| Ok((o.open_incidents()?, o.resolved_since(since)?))).await {
            Ok(state) => state,
            Err(error) => return warn!(receiver = name, error, "what is open cannot be read"),
        };
        // What called nobody by message calls nobody by state.
        let paged = |all: Vec<Incident>| all.into_iter().filter(|i| i.paged).collect::<Vec<_>>();
        let began = Instant::now();
        let outcome = publisher.publish(&paged(open), &paged(resolved), (self.clock)()).await;
        (self.observer)(name, &outcome, began.elapsed());
        if !matches!(outcome, Outcome::Accepted { .. }) {
            warn!(receiver = name, outcome = outcome.as_str(), detail = outcome.detail(), "publishing failed");
        }
    }
}

async fn publish_for_ever(desk: Arc<Desk>, name: String, mut ticks: watch::Receiver<()>, mut shutdown: watch::Receiver<bool>) {
    while !*shutdown.borrow_and_update() {
        desk.publish(&name).await;
        tokio::select! {
            changed = shutdown.changed() => if changed.is_err() { return },
            changed = ticks.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(desk.tuning.publish_every) => {}
        }
    }
}

/// The state of a claim that is given back unsent.
fn stays(claimed: &Claimed) -> DeliveryState {
    if claimed.was_uncertain { DeliveryState::Uncertain } else { DeliveryState::Waiting }
}

/// Small news is not worth waking a second receiver, which does not know the first part of the story.
fn is_worth_a_fallback(message: &Message) -> bool {
    match message.notice {
        Notice::Opened | Notice::Escalated | Notice::Reopened | Notice::Resolved | Notice::Merged | Notice::Suppressed | Notice::Reminder => true,
        Notice::Updated | Notice::Acknowledged | Notice::Mitigated | Notice::Recovering => false,
    }
}

/// A number in 0 .. 1 that depends on nothing but its arguments.
fn jitter(seed: u64, id: &str, attempts: u32) -> f64 {
    let bits = StableHash::new().part(&seed.to_be_bytes()).part(id.as_bytes()).part(&attempts.to_be_bytes()).finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

// === heartbeat ===

/// Says "alive" to an outside watchman, by GET, as long as `is_whole` finds nothing wrong. Silence is the alarm.
pub async fn heartbeat(
    client: http::Client,
    url: SecretString,
    every: Duration,
    is_whole: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    clock: Clock,
    mut shutdown: watch::Receiver<bool>,
) {
    let url = match http::endpoint(url.expose_secret()) {
        Ok(url) => url,
        Err(why) => return warn!("heartbeat url {why}"),
    };
    let mut last = Ok(());
    while !*shutdown.borrow_and_update() {
        let question = Arc::clone(&is_whole);
        let mut state = tokio::task::spawn_blocking(move || question()).await.unwrap_or_else(|e| Err(format!("broke off: {e}")));
        if state.is_ok() {
            state = match client.get(&url, clock()).await {
                Ok(answer) if answer.is_success() => Ok(()),
                Ok(answer) => Err(answer.detail()),
                Err(failure) => Err(failure.to_string()),
            };
        }
        if state != last {
            match &state {
                Ok(()) => info!("heartbeat goes out again"),
                Err(why) => warn!(why, "heartbeat is withheld or does not arrive"),
            }
            last = state;
        }
        tokio::select! {
            changed = shutdown.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(every) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::IncidentState;
    use crate::notify::fixtures;

    const NOW: Time = Time(1_795_166_080_000);

    fn claimed(notice: Notice) -> Claimed {
        let mut message = fixtures::message(notice);
        message.at = NOW;
        Claimed { delivery: Delivery::new("pd", message), attempts: 1, first_attempt_at: None, was_uncertain: false, reference: None }
    }

    fn verdict(claimed: &Claimed, manner: Manner, state: IncidentState, minutes: i64) -> &'static str {
        let mut current = fixtures::incident();
        current.state = state;
        match before_sending(claimed, &manner, Some(&current), NOW.plus_ms(minutes * MINUTE_MS)) {
            Before::Send => "send",
            Before::GiveUp { fall_back: true, .. } => "fall back",
            Before::GiveUp { fall_back: false, .. } => "give up",
        }
    }

    #[test]
    fn f33_an_uncertain_trigger_is_repeated_only_while_it_can_do_no_harm() {
        use IncidentState::{Open, Resolved};
        let uncertain = |notice| Claimed { was_uncertain: true, first_attempt_at: Some(NOW), ..claimed(notice) };
        let sure = |notice| Claimed { first_attempt_at: Some(NOW), ..claimed(notice) };
        for (claim, manner, state, minutes, expected) in [
            (uncertain(Notice::Opened), Manner::VENDOR, Open, 1, "send"),
            (uncertain(Notice::Opened), Manner::VENDOR, Open, 10, "send"),
            (uncertain(Notice::Opened), Manner::VENDOR, Open, 11, "fall back"),
            (uncertain(Notice::Opened), Manner::VENDOR, Resolved, 1, "give up"),
            (uncertain(Notice::Opened), Manner::VENDOR, Resolved, 16, "give up"),
            (uncertain(Notice::Resolved), Manner::VENDOR, Resolved, 60, "send"),
            (uncertain(Notice::Resolved), Manner::VENDOR, Resolved, 49 * 60, "give up"),
            (sure(Notice::Opened), Manner::VENDOR, Open, 60 * 24 * 7, "send"),
            (sure(Notice::Opened), Manner::VENDOR, Resolved, 14, "send"),
            (sure(Notice::Opened), Manner::VENDOR, Resolved, 16, "give up"),
            (uncertain(Notice::Opened), Manner::WEBHOOK, Open, 60, "send"),
            (uncertain(Notice::Opened), Manner::WEBHOOK, Resolved, 60, "send"),
            (sure(Notice::Opened), Manner::WEBHOOK, Open, 49 * 60, "fall back"),
        ] {
            assert_eq!(verdict(&claim, manner, state, minutes), expected, "{:?} {state} after {minutes} min", claim.delivery.message.notice);
        }
    }

    #[test]
    fn after_a_restart_nothing_is_searched_for_before_it_can_be_found() {
        let at = |was_uncertain, manner| found_at(&Claimed { was_uncertain, ..claimed(Notice::Opened) }, &manner, NOW);
        assert_eq!(at(true, Manner::TICKETS), NOW.plus_ms(Manner::TICKETS.look_after_ms));
        const { assert!(Manner::TICKETS.look_after_ms > 0) };
        // What never left need not be found, and a pager knows its key.
        assert_eq!([at(false, Manner::TICKETS), at(true, Manner::VENDOR)], [Time::MIN; 2]);
    }

    #[test]
    fn a_late_trigger_does_not_call_when_somebody_is_at_it() {
        let claim = claimed(Notice::Opened);
        let mut current = fixtures::incident();
        current.state = IncidentState::Acknowledged;
        current.acknowledged_at = Some(NOW.plus_ms(MINUTE_MS));
        let at = |minutes| before_sending(&claim, &Manner::VENDOR, Some(&current), NOW.plus_ms(minutes * MINUTE_MS));
        assert_eq!(at(2), Before::Send);
        assert_ne!(at(16), Before::Send);
    }

    #[test]
    fn refusals_end_at_once_for_vendors_and_at_the_third_for_webhooks() {
        let refused = |status| Outcome::Refused { status: Some(status), detail: "no".into() };
        let state = |manner, status, refusals| {
            let tries = Tries { sent: refusals, refused: refusals };
            let after = after_sending(&claimed(Notice::Opened), &manner, &refused(status), tries, true, 0.5, NOW);
            assert_eq!(after.fall_back, after.state == DeliveryState::Refused);
            after.state
        };
        assert_eq!(state(Manner::VENDOR, 400, 1), DeliveryState::Refused);
        assert_eq!(state(Manner::WEBHOOK, 404, 1), DeliveryState::Waiting);
        assert_eq!(state(Manner::WEBHOOK, 404, 2), DeliveryState::Waiting);
        assert_eq!(state(Manner::WEBHOOK, 404, 3), DeliveryState::Refused);
        assert_eq!(state(Manner::WEBHOOK, 410, 1), DeliveryState::Refused);
    }

    #[test]
    fn what_nobody_knows_stays_unknown_and_a_receiver_may_ask_for_more_time() {
        let mut claim = claimed(Notice::Opened);
        let after =
            |claim: &Claimed, outcome: Outcome| after_sending(claim, &Manner::VENDOR, &outcome, Tries { sent: 1, refused: 0 }, true, 0.5, NOW);
        let retry = |after_ms| Outcome::Retry { status: Some(503), detail: "busy".into(), after_ms };
        assert_eq!(after(&claim, retry(None)).state, DeliveryState::Waiting);
        assert_eq!(after(&claim, retry(Some(60_000))).next_at, Some(NOW.plus_ms(60_000)));
        assert_eq!(after(&claim, Outcome::Uncertain { detail: "cut".into() }).state, DeliveryState::Uncertain);
        claim.was_uncertain = true;
        assert_eq!(after(&claim, retry(None)).state, DeliveryState::Uncertain);
        let lost =
            after_sending(&claim, &Manner::TICKETS, &Outcome::Uncertain { detail: "cut".into() }, Tries { sent: 1, refused: 0 }, true, 0.0, NOW);
        assert_eq!(lost.next_at, Some(NOW.plus_ms(10_000)), "a search that lags behind is not asked at once");
    }

    #[test]
    fn waits_grow_within_their_bounds() {
        for manner in [Manner::VENDOR, Manner::WEBHOOK] {
            for attempts in 0..100 {
                for unit in [-1.0, 0.0, 0.3, 1.0, f64::NAN] {
                    let ms = wait_ms(&manner.schedule, attempts, unit);
                    assert!((SECOND_MS..=4 * 60 * MINUTE_MS).contains(&ms), "{attempts} {unit} {ms}");
                }
            }
        }
        let most = |manner: Manner| (1..=10).map(|n| wait_ms(&manner.schedule, n, 1.0) / SECOND_MS).collect::<Vec<_>>();
        assert_eq!(most(Manner::VENDOR), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(most(Manner::WEBHOOK), [5, 30, 120, 600, 1_800, 3_600, 7_200, 14_400, 14_400, 14_400]);
    }

    #[test]
    fn a_storm_is_spread_and_a_clock_that_jumps_back_does_no_harm() {
        let mut bucket = Bucket::full(100, NOW);
        assert_eq!((0..100).filter(|_| bucket.take(NOW).is_ok()).count(), 100);
        let later: Vec<_> = (0..1_000).map(|_| bucket.take(NOW).expect_err("empty").since_ms(NOW)).collect();
        assert_eq!((later[0], later[999]), (600, 600_000));
        assert!(bucket.take(NOW.plus_ms(-1_000_000)).is_err());
    }

    #[test]
    fn a_call_that_does_not_get_through_is_overdue_after_a_quarter_of_an_hour() {
        let tried = |notice| Claimed { first_attempt_at: Some(NOW), ..claimed(notice) };
        let at = |notice, minutes, is_live| is_overdue(&tried(notice), is_live, NOW.plus_ms(minutes * MINUTE_MS));
        assert!(!at(Notice::Opened, 15, true) && at(Notice::Opened, 16, true) && at(Notice::Escalated, 16, true));
        assert!(!at(Notice::Opened, 16, false) && !at(Notice::Resolved, 16, true) && !at(Notice::Updated, 16, true));
        assert!(!is_overdue(&claimed(Notice::Opened), true, NOW.plus_ms(DAY_MS)), "the first attempt");
    }

    #[test]
    fn jitter_is_spread_and_repeats_with_its_seed() {
        let all: Vec<f64> = (0..1_000).map(|n| jitter(7, "d", n)).collect();
        assert!(all.iter().all(|u| (0.0..1.0).contains(u)));
        assert!((all.iter().sum::<f64>() / 1_000.0 - 0.5).abs() < 0.05);
        assert_eq!(jitter(7, "d", 3), all[3]);
    }
}
