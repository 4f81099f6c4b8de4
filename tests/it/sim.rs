//! One seed, one life: engine, journal, store, outbox, receiver and clock, with everything going wrong that can.
//!
//! What decides is real (the engine, the incident machine, the dispatcher's two decisions); what waits or writes is a model of a
//! hundred lines each: a ledger that keeps what a transaction kept, a keeper that dies between any two writes, a receiver that
//! loses answers, a clock that goes back. A life is a few minutes of two models' events with faults, what people do meanwhile,
//! kills, and then peace; after which all that was promised is asked. The seed of a life that fails is printed, and makes the same
//! life again.
//!
//! A check that finds nothing proves nothing: [`Bug`] lists mistakes that can be planted one at a time, and each must be found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bellwether::decode::{self, Decoder};
use bellwether::dispatch::{Before, Claimed, Tries, after_sending, before_sending};
use bellwether::domain::delivery::{Delivery, DeliveryState, Notice, Outcome as Answered};
use bellwether::domain::incident::{Incident, IncidentKey, TimelineEntry};
use bellwether::domain::{ClosedAs, HoldKind, IncidentState, Matcher, Time};
use bellwether::engine::{Control, Engine, Entry, Outcome, Settings};
use bellwether::fleet::CANARY;
use bellwether::incident::Command;
use bellwether::notify::{Act, Manner};

use crate::scenario::{START, settings};

const PANE_MS: i64 = 2_000;
const LEASE_MS: i64 = 30_000;
/// Event time of one life.
const SECONDS: i64 = 90;
const MODELS: [&str; 2] = ["assistant", "ranker"];

/// Mistakes that can be planted, each of a kind that has been made somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    /// The snapshot names a position one too far.
    SnapshotAhead,
    /// After a kill the journal is replayed from its beginning.
    JournalTwice,
    /// A person's act is applied before it is in the journal.
    JournalAfterAct,
    /// The journal is pruned up to the newest entry, not up to the snapshot's.
    JournalPrunedTooFar,
    /// After a kill the journal is not replayed.
    JournalForgotten,
    /// An older revision of an incident overwrites a newer one.
    OlderRevisionWins,
    /// Incidents are written, and the kill comes before their deliveries.
    CommitInTwoPieces,
    /// The id of a delivery is new at every replay.
    NewIdAtReplay,
    /// After a kill, what was in hand counts as never sent.
    InHandForgotten,
    /// What was in hand counts as sent.
    InHandCountsAsSent,
    /// A lost answer counts as accepted.
    LostIsAccepted,
    /// A lost answer counts as not arrived, without a memory of it.
    LostIsWaiting,
    /// The second in a lane is sent while the first still waits.
    LaneOvertakes,
    /// Everything that waits is superseded by what is newer, also the call itself.
    EverythingSuperseded,
    /// A late settlement of a lease that ran out counts.
    StaleSettle,
    /// Leases run out at once when the clock goes back.
    LeaseByClock,
    /// The receiver's refusal is repeated for ever.
    RefusalRepeated,
    /// One entry of a timeline is lost with every kill.
    TimelineCut,
    /// The end of history is not in the journal.
    LiveNotWritten,
    /// A delivery is dropped when its incident has gone on meanwhile.
    StaleDropped,
}

const BUGS: [Bug; 20] = [
    Bug::SnapshotAhead,
    Bug::JournalTwice,
    Bug::JournalAfterAct,
    Bug::JournalPrunedTooFar,
    Bug::JournalForgotten,
    Bug::OlderRevisionWins,
    Bug::CommitInTwoPieces,
    Bug::NewIdAtReplay,
    Bug::InHandForgotten,
    Bug::InHandCountsAsSent,
    Bug::LostIsAccepted,
    Bug::LostIsWaiting,
    Bug::LaneOvertakes,
    Bug::EverythingSuperseded,
    Bug::StaleSettle,
    Bug::LeaseByClock,
    Bug::RefusalRepeated,
    Bug::TimelineCut,
    Bug::LiveNotWritten,
    Bug::StaleDropped,
];

/// splitmix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

// === the world ===

/// What happened, as the log has it: arrival, and the event.
fn happenings(dice: &mut Dice) -> (Vec<(Time, String)>, BTreeSet<&'static str>) {
    let mut log: Vec<(i64, i64, String)> = Vec::new();
    let mut harmed: BTreeSet<&'static str> = BTreeSet::new();
    let mut n = 0;
    let outage = (dice.below(2) as usize, 30_000 + dice.below(40_000) as i64);
    let has_outage = dice.one_in(2);
    for second in 0..SECONDS {
        for (m, model) in MODELS.iter().enumerate() {
            for _ in 0..1 + dice.below(2) {
                n += 1;
                let at = second * 1_000 + dice.below(1_000) as i64;
                let is_out = has_outage && outage.0 == m && (outage.1..outage.1 + 12_000).contains(&at);
                // In an outage there are enough requests to see it.
                for copy in 0..if is_out { 8 } else { 1 } {
                    let mut members = String::new();
                    if is_out {
                        members.push_str(r#","status":"error""#);
                    } else if second > 20 && dice.one_in(60) {
                        members.push_str(r#","flags":{"harmful":"confirmed"}"#);
                        harmed.insert(model);
                    } else if second > 20 && dice.one_in(80) {
                        members.push_str(&format!(r#","output":"see {CANARY}""#));
                    }
                    let time = START.plus_ms(at).rfc3339();
                    let json = format!(
                        r#"{{"kind":"prediction","id":"{model}-{n}-{copy}","time":"{time}","model":"{model}","version":"1","environment":"prod"{members}}}"#
                    );
                    // Some are late, within what is waited for; some come twice.
                    let late = if dice.one_in(8) { dice.below(1_500) as i64 } else { 0 };
                    log.push((at + late, n, json.clone()));
                    if dice.one_in(15) {
                        log.push((at + late + 200, n, json));
                    }
                }
            }
        }
    }
    log.sort();
    (log.into_iter().map(|(arrival, _, json)| (START.plus_ms(arrival), json)).collect(), harmed)
}

/// What is on disk: it outlives a kill.
#[derive(Clone, Default)]
struct Ledger {
    rows: BTreeMap<String, Vec<u8>>,
    position: i64,
    snapshot_seq: u64,
    has_snapshot: bool,
    journal: Vec<Entry>,
    seq: u64,
    incidents: BTreeMap<String, Incident>,
    timeline: BTreeMap<(String, u64, u32, String), TimelineEntry>,
    deliveries: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    delivery: Delivery,
    state: DeliveryState,
    attempts: u32,
    next_at: Time,
    lease_until: Option<Time>,
    first_attempt_at: Option<Time>,
}

impl Ledger {
    /// Everything of one step or nothing; what is there stays.
    fn commit(&mut self, out: &Outcome, now: Time, bug: Option<Bug>, replays: u32) {
        for i in &out.incidents {
            let known = self.incidents.get(&i.id).map(|k| k.revision);
            if known.is_none_or(|k| i.revision > k) || bug == Some(Bug::OlderRevisionWins) {
                self.incidents.insert(i.id.clone(), i.clone());
            }
        }
        for t in &out.timeline {
            self.timeline.entry((t.incident_id.clone(), t.revision, t.ordinal, t.what.clone())).or_insert_with(|| t.clone());
        }
        for d in &out.deliveries {
            let mut delivery = d.clone();
            if bug == Some(Bug::NewIdAtReplay) {
                delivery.id = format!("{}-{replays}", delivery.id);
            }
            if self.deliveries.iter().all(|r| r.delivery.id != delivery.id) {
                let row = Row { delivery, state: DeliveryState::Waiting, attempts: 0, next_at: now, lease_until: None, first_attempt_at: None };
                self.deliveries.push(row);
            }
        }
    }

    /// The first of each lane that is due.
    fn claim(&mut self, now: Time, bug: Option<Bug>) -> Vec<Claimed> {
        let mut claimed = Vec::new();
        let mut lanes: BTreeSet<(String, String)> = BTreeSet::new();
        for n in 0..self.deliveries.len() {
            let row = &self.deliveries[n];
            if row.state.is_final() {
                continue;
            }
            let lane = (row.delivery.message.incident.id.clone(), row.delivery.receiver.clone());
            let is_first = !lanes.contains(&lane);
            let newer = self.deliveries[n + 1..].iter().any(|r| {
                !r.state.is_final()
                    && r.delivery.message.incident.id == lane.0
                    && r.delivery.receiver == lane.1
                    && r.delivery.message.incident.revision > row.delivery.message.incident.revision
            });
            let may_go = row.delivery.message.notice.may_be_superseded() || bug == Some(Bug::EverythingSuperseded);
            let row = &mut self.deliveries[n];
            if is_first && newer && may_go && row.state == DeliveryState::Waiting {
                row.state = DeliveryState::Superseded;
                continue;
            }
            let stays_first = bug != Some(Bug::LaneOvertakes) || row.next_at <= now;
            if stays_first {
                lanes.insert(lane);
            }
            if row.state == DeliveryState::Sending {
                let ran_out = row.lease_until.is_some_and(|t| t <= now || bug == Some(Bug::LeaseByClock));
                if !ran_out {
                    continue;
                }
                row.state = if bug == Some(Bug::LeaseByClock) { DeliveryState::Waiting } else { DeliveryState::Uncertain };
            }
            if !is_first || row.next_at > now {
                continue;
            }
            let was_uncertain = row.state == DeliveryState::Uncertain;
            row.state = DeliveryState::Sending;
            row.attempts += 1;
            row.lease_until = Some(now.plus_ms(LEASE_MS));
            let first_attempt_at = row.first_attempt_at;
            row.first_attempt_at.get_or_insert(now);
            claimed.push((row.delivery.clone(), row.attempts, first_attempt_at, was_uncertain));
        }
        let claims = claimed.into_iter();
        // A receiver of alerts hands out nothing.
        let claim = |(delivery, attempts, first_attempt_at, was_uncertain)| {
            let reference = None;
            Claimed { delivery, attempts, first_attempt_at, was_uncertain, reference }
        };
        claims.map(claim).collect()
    }

    fn settle(&mut self, claimed: &Claimed, state: DeliveryState, next_at: Option<Time>, now: Time, bug: Option<Bug>) {
        let row = self.deliveries.iter_mut().find(|r| r.delivery.id == claimed.delivery.id).expect("claimed");
        let is_ours = row.attempts == claimed.attempts && matches!(row.state, DeliveryState::Sending | DeliveryState::Uncertain);
        if is_ours || bug == Some(Bug::StaleSettle) {
            row.state = state;
            row.next_at = next_at.unwrap_or(now);
            row.lease_until = None;
        }
    }
}

/// A receiver of alerts by PagerDuty's rules, and what it saw.
#[derive(Default)]
struct Oracle {
    open: BTreeSet<String>,
    /// Calls that opened an alert, by incident: (delivery, was it a repeat after a lost answer).
    calls: BTreeMap<String, Vec<String>>,
    /// Revisions in the order of acceptance, by incident.
    seen: BTreeMap<String, Vec<(u64, String)>>,
    /// Deliveries whose acceptance the sender knows.
    known: BTreeSet<String>,
    twice: Option<String>,
    wrong: Option<String>,
    /// Deliveries of which an attempt may have arrived without the sender's knowing.
    perhaps: BTreeSet<String>,
}

impl Oracle {
    fn accept(&mut self, d: &Delivery, sender_will_know: bool) {
        if self.known.contains(&d.id) {
            self.twice = Some(d.id.clone());
        }
        if sender_will_know {
            self.known.insert(d.id.clone());
        }
        let id = d.message.incident.id.clone();
        match Act::of(&d.message) {
            Act::Trigger => {
                if self.open.insert(id.clone()) {
                    self.calls.entry(id.clone()).or_default().push(d.id.clone());
                }
            }
            Act::Resolve => {
                self.open.remove(&id);
            }
            Act::Acknowledge | Act::Nothing => {}
        }
        self.seen.entry(id).or_default().push((d.message.incident.revision, d.id.clone()));
    }
}

impl Oracle {
    /// The sender does not know of this answer. What was turned away did not arrive.
    fn arrived_perhaps(&mut self, d: &Delivery, answer: &Answered) {
        if matches!(answer, Answered::Accepted { .. } | Answered::Uncertain { .. }) {
            self.perhaps.insert(d.id.clone());
        }
    }
}

// === one life ===

struct Life {
    settings: Settings,
    dice: Dice,
    bug: Option<Bug>,
    log: Vec<(Time, String)>,
    harmed: BTreeSet<&'static str>,
    ledger: Ledger,
    oracle: Oracle,
    engine: Option<Engine>,
    decoder: Decoder,
    /// Of the process: what it has read, and what it remembers of its attempts.
    read: i64,
    /// How far any process has read: until it is there again, a new one takes no acts, as the keeper does not.
    read_once: i64,
    tries: BTreeMap<String, Tries>,
    /// Claims whose answer has not come; they may come after their lease.
    in_air: Vec<(Claimed, Answered)>,
    now: Time,
    kills: u32,
    peace: bool,
    /// The newest revision of each incident that was on disk.
    newest: BTreeMap<String, u64>,
}

/// The process is dead.
struct Killed;
type Step = Result<(), Killed>;

impl Life {
    fn new(seed: u64, bug: Option<Bug>) -> Life {
        let mut dice = Dice(seed);
        let (log, harmed) = happenings(&mut dice);
        let mut settings = settings(PANE_MS, PANE_MS, &[]);
        settings.judge.false_pages = 0.0001;
        Life {
            settings,
            dice,
            bug,
            log,
            harmed,
            ledger: Ledger::default(),
            oracle: Oracle::default(),
            engine: None,
            decoder: Decoder::canonical(decode::Settings::new([0; 16])),
            read: 0,
            read_once: 0,
            tries: BTreeMap::new(),
            in_air: Vec::new(),
            now: START.plus_ms(SECONDS * 1_000),
            kills: 0,
            peace: false,
            newest: BTreeMap::new(),
        }
    }

    fn is(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Between any two writes.
    fn may_die(&mut self) -> Step {
        if !self.peace && self.dice.one_in(40) { Err(Killed) } else { Ok(()) }
    }

    fn start(&mut self) {
        let (mut engine, seq) = if self.ledger.has_snapshot {
            let rows: Vec<(String, Vec<u8>)> = self.ledger.rows.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            (Engine::restore(self.settings.clone(), &rows).expect("what was saved can be read"), self.ledger.snapshot_seq)
        } else {
            let mut engine = Engine::new(self.settings.clone());
            engine.declare(0);
            (engine, 0)
        };
        let seq = if self.is(Bug::JournalTwice) { 0 } else { seq };
        if !self.is(Bug::JournalForgotten) {
            self.ledger.journal.iter().filter(|e| e.seq > seq).for_each(|e| engine.enter(e.clone()));
        }
        for row in self.ledger.deliveries.iter_mut().filter(|r| r.state == DeliveryState::Sending) {
            row.state = match self.bug {
                Some(Bug::InHandForgotten) => DeliveryState::Waiting,
                Some(Bug::InHandCountsAsSent) => DeliveryState::Accepted,
                _ => DeliveryState::Uncertain,
            };
            row.lease_until = None;
        }
        self.read = self.ledger.position;
        self.engine = Some(engine);
        self.tries.clear();
        self.in_air.clear();
    }

    fn die(&mut self) {
        self.engine = None;
        self.kills += 1;
        if self.is(Bug::TimelineCut)
            && let Some(last) = self.ledger.timeline.keys().next_back().cloned()
        {
            self.ledger.timeline.remove(&last);
        }
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("alive")
    }

    fn settle(&mut self) -> Step {
        let mut out = Outcome::default();
        self.engine().advance(&mut out);
        if out.is_empty() {
            return Ok(());
        }
        self.may_die()?;
        let (now, bug, replays) = (self.now, self.bug, self.kills);
        if self.is(Bug::CommitInTwoPieces) {
            let incidents = Outcome { deliveries: vec![], ..out.clone() };
            self.ledger.commit(&incidents, now, bug, replays);
            // What is there already is not written again, so that the deliveries are never made up for.
            let first = self.kills;
            self.may_die()?;
            if first != 0 && !self.peace && self.dice.one_in(3) {
                return Ok(());
            }
        }
        self.ledger.commit(&out, now, bug, replays);
        self.may_die()
    }

    fn append(&mut self, at: Time, control: Control) -> Entry {
        self.ledger.seq += 1;
        let entry = Entry { seq: self.ledger.seq, at, control };
        self.ledger.journal.push(entry.clone());
        entry
    }

    fn enter(&mut self, at: Time, control: Control) -> Step {
        if self.is(Bug::JournalAfterAct) && matches!(control, Control::Act { .. }) {
            let entry = Entry { seq: self.ledger.seq + 1, at, control: control.clone() };
            self.engine().enter(entry);
            self.settle()?;
            self.may_die()?;
            self.append(at, control);
            return Ok(());
        }
        if self.is(Bug::LiveNotWritten) && matches!(control, Control::Live) {
            let entry = Entry { seq: self.ledger.seq, at, control };
            self.engine().enter(entry);
            return Ok(());
        }
        let entry = self.append(at, control);
        self.may_die()?;
        self.engine().enter(entry);
        self.settle()
    }

    fn read_some(&mut self) -> Step {
        let some = 1 + self.dice.below(12);
        for _ in 0..some {
            let Some((arrival, json)) = self.log.get(self.read as usize).cloned() else { break };
            let position = self.read;
            let skips = self.engine().next_position(0).is_some_and(|next| position < next);
            if !skips {
                let decoder = &self.decoder;
                let engine = self.engine.as_mut().expect("alive");
                engine.record(0, position + 1, arrival, json.as_bytes(), decoder, None).expect("valid");
            }
            self.read += 1;
        }
        self.read_once = self.read_once.max(self.read);
        if !self.engine().is_live() && !self.engine().awaits_live() && self.read as usize > self.log.len() / 10 {
            let at = self.engine().horizon();
            self.enter(at, Control::Live)?;
        }
        self.settle()
    }

    fn snapshot(&mut self) -> Step {
        self.settle()?;
        let saved = self.engine().save().expect("saved");
        self.may_die()?;
        let position = self.engine().next_position(0).unwrap_or(0);
        self.ledger.rows.extend(saved.rows);
        self.ledger.position = match self.bug {
            Some(Bug::SnapshotAhead) => position + 1,
            _ => position,
        };
        self.ledger.snapshot_seq = saved.journal_seq;
        self.ledger.has_snapshot = true;
        self.may_die()?;
        // What the snapshot holds may go; here it stays, for the undisturbed life that all is held against.
        if self.is(Bug::JournalPrunedTooFar) {
            self.ledger.journal.clear();
        }
        Ok(())
    }

    /// Somebody does something, sensible or not.
    fn person(&mut self) -> Step {
        if self.read < self.read_once {
            return Ok(());
        }
        let ids: Vec<String> = self.ledger.incidents.keys().cloned().collect();
        let at = self.engine().boundary();
        let wall = self.now;
        let by = || "ana".to_owned();
        if ids.is_empty() || self.dice.one_in(6) {
            let matcher = Matcher { model: Some(MODELS[self.dice.below(2) as usize].to_owned()), ..Matcher::default() };
            let until = at.max(START).plus_ms(5_000 + self.dice.below(40_000) as i64);
            let hold =
                Control::Hold { kind: HoldKind::Silence, matcher, from: START, until, by: by(), why: String::new(), harm: self.dice.one_in(2) };
            return self.enter(at, hold);
        }
        let incident = ids[self.dice.below(ids.len() as u64) as usize].clone();
        let why = String::new;
        let command = match self.dice.below(9) {
            0 | 1 => Command::Acknowledge { by: by(), why: why() },
            2 => Command::Mitigate { by: by(), why: why() },
            3 => Command::Resolve { by: by(), closed_as: [ClosedAs::Fixed, ClosedAs::FalseAlarm][self.dice.below(2) as usize], why: why() },
            4 => Command::Reopen { by: by(), why: why() },
            5 => Command::Note { by: by(), text: "hm".to_owned() },
            6 => Command::Merge { into: ids[self.dice.below(ids.len() as u64) as usize].clone(), by: by(), why: why() },
            7 => Command::Split { by: by(), why: why() },
            _ => Command::Suppress { by: by(), why: why(), until: Some(at.max(START).plus_ms(self.dice.below(30_000) as i64)) },
        };
        self.enter(at, Control::Act { incident, command, wall })
    }

    /// One turn of the dispatcher: what is claimed goes out, and some answers come later or never.
    fn dispatch(&mut self) -> Step {
        let (now, bug) = (self.now, self.bug);
        let claims = self.ledger.claim(now, bug);
        for claimed in claims {
            self.may_die()?;
            let current = self.ledger.incidents.get(&claimed.delivery.message.incident.id).cloned();
            if self.is(Bug::StaleDropped) && current.as_ref().is_some_and(|c| c.revision > claimed.delivery.message.incident.revision + 1) {
                self.ledger.settle(&claimed, DeliveryState::Superseded, None, now, bug);
                continue;
            }
            if let Before::GiveUp { state, .. } = before_sending(&claimed, &Manner::VENDOR, current.as_ref(), now) {
                self.ledger.settle(&claimed, state, None, now, bug);
                continue;
            }
            let is_over = current.as_ref().is_some_and(|c| !c.state.is_live());
            if is_over && Act::of(&claimed.delivery.message) == Act::Trigger && self.oracle.perhaps.contains(&claimed.delivery.id) {
                self.oracle.wrong = Some(format!("{} may have arrived, and calls again for what is over", claimed.delivery.id));
            }
            let fate = if self.peace { 0 } else { self.dice.below(10) };
            let answer = match fate {
                0..=5 => {
                    self.oracle.accept(&claimed.delivery, true);
                    Answered::Accepted { status: 202, detail: String::new() }
                }
                6 => {
                    self.oracle.accept(&claimed.delivery, false);
                    Answered::Uncertain { detail: String::new() }
                }
                7 => Answered::Uncertain { detail: String::new() },
                8 => Answered::Retry { status: Some(503), detail: String::new(), after_ms: None },
                _ => Answered::Retry { status: Some(429), detail: String::new(), after_ms: Some(5_000) },
            };
            if let Err(killed) = self.may_die() {
                // It may have arrived, and the sender will never know.
                self.oracle.known.remove(&claimed.delivery.id);
                self.oracle.arrived_perhaps(&claimed.delivery, &answer);
                return Err(killed);
            }
            if !self.peace && self.dice.one_in(12) {
                self.oracle.known.remove(&claimed.delivery.id);
                self.oracle.arrived_perhaps(&claimed.delivery, &answer);
                self.in_air.push((claimed, answer));
            } else {
                if matches!(answer, Answered::Uncertain { .. }) {
                    self.oracle.arrived_perhaps(&claimed.delivery, &answer);
                }
                self.answered(&claimed, &answer);
            }
        }
        if !self.in_air.is_empty() && (self.peace || self.dice.one_in(4)) {
            let (claimed, answer) = self.in_air.remove(0);
            self.answered(&claimed, &answer);
        }
        Ok(())
    }

    fn answered(&mut self, claimed: &Claimed, answer: &Answered) {
        let current = self.ledger.incidents.get(&claimed.delivery.message.incident.id);
        let is_live = current.is_some_and(|i| i.state.is_live());
        let tries = self.tries.entry(claimed.delivery.id.clone()).or_default();
        tries.sent += 1;
        let unit = (self.dice.below(1_000) as f64) / 1_000.0;
        let after = after_sending(claimed, &Manner::VENDOR, answer, *tries, is_live, unit, self.now);
        let state = match (self.bug, answer) {
            (Some(Bug::LostIsAccepted), Answered::Uncertain { .. }) => DeliveryState::Accepted,
            (Some(Bug::LostIsWaiting), Answered::Uncertain { .. }) => DeliveryState::Waiting,
            (Some(Bug::RefusalRepeated), Answered::Accepted { .. }) if self.dice.one_in(4) => DeliveryState::Waiting,
            _ => after.state,
        };
        self.ledger.settle(claimed, state, after.next_at, self.now, self.bug);
    }

    fn turn(&mut self) -> Step {
        match self.dice.below(20) {
            0..=9 => self.read_some(),
            10..=13 => self.dispatch(),
            14 | 15 => self.person(),
            16 => self.snapshot(),
            17 => {
                let back = self.dice.below(20_000) as i64;
                self.now = self.now.plus_ms(-back);
                Ok(())
            }
            _ => {
                self.now = self.now.plus_ms(self.dice.below(15_000) as i64);
                Ok(())
            }
        }
    }

    fn live(&mut self) -> Result<(), String> {
        self.start();
        for _ in 0..4_000 {
            if self.read as usize >= self.log.len() {
                break;
            }
            if self.turn().is_err() {
                self.die();
                self.now = self.now.plus_ms(self.dice.below(10_000) as i64);
                self.start();
            }
            self.asked_at_any_time()?;
        }
        self.peace = true;
        while (self.read as usize) < self.log.len() {
            let _ = self.read_some();
        }
        // The end of the log: what is open is sealed.
        self.engine().finish(0);
        let _ = self.settle();
        for _ in 0..400 {
            self.now = self.now.plus_ms(20_000);
            let _ = self.dispatch();
            if self.ledger.deliveries.iter().all(|r| r.state.is_final()) {
                break;
            }
        }
        self.asked_at_the_end()
    }

    // --- what was promised ---

    fn asked_at_any_time(&mut self) -> Result<(), String> {
        for i in self.ledger.incidents.values() {
            let newest = self.newest.entry(i.id.clone()).or_default();
            if i.revision < *newest {
                return Err(format!("{} went back from revision {newest} to {}", i.id, i.revision));
            }
            *newest = i.revision;
        }
        if let Some(wrong) = &self.oracle.wrong {
            return Err(wrong.clone());
        }
        let mut keys: BTreeSet<&IncidentKey> = BTreeSet::new();
        for i in self.ledger.incidents.values().filter(|i| i.state.is_live()) {
            if !keys.insert(&i.key) {
                return Err(format!("two live incidents of {:?}", i.key));
            }
        }
        match &self.oracle.twice {
            Some(id) => Err(format!("{id} was sent again although its acceptance was known")),
            None => Ok(()),
        }
    }

    fn asked_at_the_end(&mut self) -> Result<(), String> {
        self.asked_at_any_time()?;
        // The same log and the same journal, undisturbed, say the same.
        let mut engine = Engine::new(self.settings.clone());
        engine.declare(0);
        self.ledger.journal.iter().for_each(|e| engine.enter(e.clone()));
        let mut out = Outcome::default();
        for (n, (arrival, json)) in self.log.iter().enumerate() {
            engine.record(0, n as i64 + 1, *arrival, json.as_bytes(), &self.decoder, None).expect("valid");
        }
        engine.advance(&mut out);
        engine.finish(0);
        engine.advance(&mut out);
        let mut told = Ledger::default();
        told.commit(&out, self.now, None, 0);
        if told.incidents != self.ledger.incidents {
            let one = told.incidents.values().find(|i| self.ledger.incidents.get(&i.id) != Some(i));
            let one = one.or_else(|| self.ledger.incidents.values().find(|i| !told.incidents.contains_key(&i.id)));
            return Err(format!("incidents differ from an undisturbed life: {one:?}"));
        }
        if told.timeline.values().ne(self.ledger.timeline.values()) {
            let line = |t: &TimelineEntry| format!("{} {} at {}: {} {}", t.incident_id, t.revision, t.at.rfc3339(), t.what, t.why);
            let odd = |a: &Ledger, b: &Ledger| {
                let odd = a.timeline.iter().filter(|(k, t)| b.timeline.get(*k) != Some(t));
                odd.map(|(_, t)| line(t)).collect::<Vec<_>>()
            };
            let (lacks, extra) = (odd(&told, &self.ledger), odd(&self.ledger, &told));
            return Err(format!("timelines differ from an undisturbed life: it lacks {lacks:?} and has {extra:?}"));
        }
        let ids = |l: &Ledger| l.deliveries.iter().map(|r| r.delivery.id.clone()).collect::<BTreeSet<_>>();
        if ids(&told) != ids(&self.ledger) {
            return Err("other deliveries than in an undisturbed life".to_owned());
        }
        // Whoever was harmed has an incident, under its own key or told by another.
        for model in &self.harmed {
            let is_told = |i: &&Incident| i.findings.iter().any(|f| *f.series.group.model == **model && f.series.signal.to_string().contains("harm"));
            if !self.ledger.incidents.values().any(|i| is_told(&i)) {
                return Err(format!("somebody was harmed by {model}, and there is no incident"));
            }
        }
        for i in self.ledger.incidents.values() {
            self.asked_of(i)?;
        }
        Ok(())
    }

    fn asked_of(&self, i: &Incident) -> Result<(), String> {
        let id = &i.id;
        let revisions: Vec<u64> = self.ledger.timeline.keys().filter(|k| k.0 == *id).map(|k| k.1).collect();
        let mut expected = 1;
        for r in &revisions {
            if *r > expected {
                return Err(format!("{id}: nothing on the timeline of revision {expected}"));
            }
            expected = r + 1;
        }
        if expected != i.revision + 1 {
            return Err(format!("{id}: the timeline ends at {}, the incident is at {}", expected - 1, i.revision));
        }
        if let Some(into) = &i.merged_into
            && i.state == IncidentState::Merged
            && !self.ledger.incidents.get(into).is_some_and(|p| p.state.is_live() || p.state == IncidentState::Merged)
        {
            return Err(format!("{id} is merged into {into}, which is over"));
        }
        let rows: Vec<&Row> = self.ledger.deliveries.iter().filter(|r| r.delivery.message.incident.id == *id).collect();
        if let Some(row) = rows.iter().find(|r| !r.state.is_final()) {
            return Err(format!("{}: still {:?} after two hours of peace", row.delivery.id, row.state));
        }
        let seen = self.oracle.seen.get(id).cloned().unwrap_or_default();
        if let Some(w) = seen.windows(2).find(|w| w[1].0 < w[0].0) {
            return Err(format!("{id}: the receiver heard {} after {}", w[1].1, w[0].1));
        }
        // Every accepted call was heard, and no call opened a second alert.
        for row in rows.iter().filter(|r| r.state == DeliveryState::Accepted) {
            if !seen.iter().any(|(_, d)| *d == row.delivery.id) {
                return Err(format!("{} counts as accepted, and the receiver never heard it", row.delivery.id));
            }
        }
        for row in rows.iter().filter(|r| r.state == DeliveryState::Superseded) {
            if !row.delivery.message.notice.may_be_superseded() {
                return Err(format!("{} was never sent", row.delivery.id));
            }
        }
        let calls = self.oracle.calls.get(id).cloned().unwrap_or_default();
        if let Some(again) = calls.iter().enumerate().find(|(n, c)| calls[..*n].contains(c)) {
            return Err(format!("{}: opened a second alert", again.1));
        }
        // Where nothing had to be given up, the receiver's alert stands as the incident does.
        let all_went = rows.iter().all(|r| matches!(r.state, DeliveryState::Accepted | DeliveryState::Superseded));
        let should_be_open = i.state.is_live() && i.state.is_audible() && i.paged;
        if all_went && self.oracle.open.contains(id) != should_be_open {
            return Err(format!("{id} is {} and the receiver's alert {}", i.state, if should_be_open { "closed" } else { "open" }));
        }
        let calls_made = rows.iter().filter(|r| matches!(r.delivery.message.notice, Notice::Opened | Notice::Reopened | Notice::Escalated)).count();
        if calls.len() > calls_made.max(1) {
            return Err(format!("{id}: {} alerts were opened by {calls_made} calls", calls.len()));
        }
        Ok(())
    }

    /// For "same seed, same bytes".
    fn print(&self) -> String {
        let incidents: Vec<&Incident> = self.ledger.incidents.values().collect();
        let rows: Vec<(&String, DeliveryState, u32)> = self.ledger.deliveries.iter().map(|r| (&r.delivery.id, r.state, r.attempts)).collect();
        format!("{incidents:?}{:?}{rows:?}{:?}", self.ledger.timeline, self.oracle.seen)
    }
}

/// Lives from `first` on, over all cores; the first that fails.
fn lives(first: u64, count: u64, bug: Option<Bug>) -> Option<(u64, String)> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64).min(count.max(1));
    std::thread::scope(|scope| {
        let hands: Vec<_> = (0..threads)
            .map(|t| {
                scope.spawn(move || {
                    let mut seed = first + t;
                    while seed < first + count {
                        if let Err(why) = Life::new(seed, bug).live() {
                            return Some((seed, why));
                        }
                        seed += threads;
                    }
                    None
                })
            })
            .collect();
        hands.into_iter().filter_map(|h| h.join().expect("a life does not panic")).min()
    })
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

#[test]
fn many_lives_keep_every_promise() {
    let (first, count) = (number("BELLWETHER_SEED", 1), number("BELLWETHER_LIVES", 50_000));
    let began = Instant::now();
    if let Some((seed, why)) = lives(first, count, None) {
        panic!("seed {seed} (BELLWETHER_SEED={seed} BELLWETHER_LIVES=1): {why}");
    }
    println!("{count} lives from seed {first} in {:?}: no promise broken", began.elapsed());
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    for seed in 1..20 {
        let [one, two] = [(); 2].map(|()| {
            let mut life = Life::new(seed, None);
            life.live().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            (life.print(), life.kills)
        });
        assert_eq!(one, two, "seed {seed}");
    }
}

#[test]
fn every_planted_mistake_is_found() {
    let most = number("BELLWETHER_BUG_LIVES", 3_000);
    let mut missed = Vec::new();
    for bug in BUGS {
        match lives(1, most, Some(bug)) {
            Some((seed, why)) => println!("{bug:?}: found by seed {seed}: {}", why.chars().take(110).collect::<String>()),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {most} lives: {missed:?}");
}
