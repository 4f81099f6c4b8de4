//! One seed, one life: engine, journal, store, outbox, receiver, errands, switches and clock, with everything going wrong that can.
//!
//! What decides is real (the engine, the incident machine, the runbook's steps, the decisions of dispatcher and errands, the actor
//! and what it makes of an answer); what waits or writes is a model of a hundred lines each: a ledger that keeps what a transaction
//! kept, a keeper that dies between any two writes, a receiver that loses answers, a panel of switches that somebody else turns as
//! well, a clock that goes back. A life is a few minutes of two models' events with faults, what people do meanwhile, kills, and
//! then peace; after which all that was promised is asked. The seed of a life that fails is printed, and makes the same life again.
//!
//! A check that finds nothing proves nothing: [`Bug`] lists mistakes that can be planted one at a time, and each must be found.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bellwether::act::Actor;
use bellwether::daemon::errands::{Course, before_doing, heard, is_enough, left_behind};
use bellwether::decode::{self, Decoder};
use bellwether::dispatch::{Before, Claimed, Tries, after_sending, before_sending};
use bellwether::domain::delivery::{Delivery, DeliveryState, Notice, Outcome as Answered};
use bellwether::domain::incident::{Incident, IncidentKey, TimelineEntry};
use bellwether::domain::observation::{Body, Envelope, Flag, Prediction, Status};
use bellwether::domain::response::{Action, Errand, Job, Receipt};
use bellwether::domain::{Category, ClosedAs, HoldKind, IncidentState, Matcher, Observation, Role, Severity, StepKind, StepState, Time};
use bellwether::engine::{Control, Engine, Entry, Outcome, Settings};
use bellwether::fleet::CANARY;
use bellwether::incident::Command;
use bellwether::notify::{Act, Manner};
use bellwether::respond::{self, StepCommand};

use crate::scenario::{START, settings};

mod ledger;
mod switch;

use ledger::{JobState, Ledger, Row};
use switch::{Fate, Panel, Said};

const PANE_MS: i64 = 2_000;
/// Event time of one life.
const SECONDS: i64 = 90;
const MODELS: [&str; 2] = ["assistant", "ranker"];
/// What people do about incidents goes on for so many turns after the last event.
const TURNS_AFTER: u32 = 40;
/// How long a plan holds here: short, so that many run out.
const PLAN_EXPIRES_MS: i64 = 25_000;
/// Errands under way at once.
const AT_ONCE_MAX: usize = 4;
/// One life in so many is read through the decoder.
const DECODES_ONE_IN: u64 = 16;
/// By this name actions are known.
const SWITCH: &str = "switch";

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
    /// After a kill, a change that was in hand is due again.
    ChangeInHandForgotten,
    /// A change whose answer was lost is asked for again.
    LostChangeRepeated,
    /// A change is marked when its answer is there, not before it leaves.
    MarkedAfterCall,
    /// An errand is settled before its answer is in the journal.
    SettledBeforeHeard,
    /// What was planned is applied.
    AppliedWithoutApproval,
    /// An approval is dated as its plan is, whenever it is given.
    ExpiredApproval,
    /// What was approved in time is applied whenever its turn comes.
    AppliedAfterExpiry,
    /// Whoever approves, approves the newest plan, whichever he saw.
    NewestPlanApproved,
    /// The machine signs as the second person.
    SecondSignatureMade,
    /// The switch is turned whatever became of it since the plan.
    VersionForgotten,
    /// A change whose answer was lost counts as done.
    LostChangeIsDone,
    /// A change whose answer was lost counts as not sent.
    LostChangeIsNotSent,
    /// What reads back as wanted is no longer unknown.
    ReadBackSettles,
    /// Errands are not written with what asks for them.
    ErrandsForgotten,
}

const BUGS: [Bug; 34] = [
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
    Bug::ChangeInHandForgotten,
    Bug::LostChangeRepeated,
    Bug::MarkedAfterCall,
    Bug::SettledBeforeHeard,
    Bug::AppliedWithoutApproval,
    Bug::ExpiredApproval,
    Bug::AppliedAfterExpiry,
    Bug::NewestPlanApproved,
    Bug::SecondSignatureMade,
    Bug::VersionForgotten,
    Bug::LostChangeIsDone,
    Bug::LostChangeIsNotSent,
    Bug::ReadBackSettles,
    Bug::ErrandsForgotten,
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

/// One event, whichever way it is read.
struct Happened {
    model: &'static str,
    /// After [`START`].
    at_ms: i64,
    /// Of its id, in the ids of the log.
    id: Range<usize>,
    what: Shown,
}

/// What an event shows.
#[derive(Clone, Copy)]
enum Shown {
    Nothing,
    Error,
    Harm,
    /// An output in which a secret stands.
    Secret,
}

/// What happened, and when each record of it arrived.
struct Log {
    ids: String,
    events: Vec<Happened>,
    /// Arrival and event, in the order of the log.
    records: Vec<(Time, usize)>,
    /// Models that did harm in it.
    harmed: BTreeSet<&'static str>,
}

impl Happened {
    /// As a producer writes it.
    fn json(&self, ids: &str) -> String {
        let (id, time, model) = (&ids[self.id.clone()], START.plus_ms(self.at_ms).rfc3339(), self.model);
        let shown = match self.what {
            Shown::Nothing => String::new(),
            Shown::Error => r#","status":"error""#.to_owned(),
            Shown::Harm => r#","flags":{"harmful":"confirmed"}"#.to_owned(),
            Shown::Secret => format!(r#","output":"see {CANARY}""#),
        };
        format!(r#"{{"kind":"prediction","id":"{id}","time":"{time}","model":"{model}","version":"1","environment":"prod"{shown}}}"#)
    }

    /// As the decoder reads it.
    fn seen<'l>(&self, log: &'l Log) -> Observation<'l> {
        let word = |word: &'static str| Some(Cow::Borrowed(word));
        let mut prediction = Box::<Prediction<'_>>::default();
        match self.what {
            Shown::Nothing => {}
            Shown::Error => prediction.status = Status::Error,
            Shown::Harm => prediction.flags.push((Cow::Borrowed("harmful"), Flag::Confirmed)),
            Shown::Secret => prediction.output = Some(Cow::Owned(format!("see {CANARY}"))),
        }
        let envelope = Envelope {
            id: Some(Cow::Borrowed(&log.ids[self.id.clone()])),
            time: Some(START.plus_ms(self.at_ms)),
            model: word(self.model),
            version: word("1"),
            environment: word("prod"),
            ..Envelope::default()
        };
        Observation { envelope, body: Body::Prediction(prediction), faults: Vec::new() }
    }
}

impl Log {
    /// Every event as the decoder reads it. Reading takes no part in what is tested here, so only some lives go through the decoder,
    /// and it must read what the others are given.
    fn read(&self, decodes: bool) -> Vec<Observation<'_>> {
        let seen: Vec<Observation<'_>> = self.events.iter().map(|e| e.seen(self)).collect();
        if decodes {
            let decoder = Decoder::canonical(decode::Settings::new([0; 16]));
            for (event, seen) in self.events.iter().zip(&seen) {
                let (json, at) = (event.json(&self.ids), START.plus_ms(event.at_ms));
                let decoded = decoder.decode(json.as_bytes(), at, None).expect("valid");
                assert_eq!(decoded, *seen, "{json}");
            }
        }
        seen
    }
}

/// The log of a life.
fn happenings(dice: &mut Dice) -> Log {
    let (mut ids, mut events) = (String::with_capacity(12_000), Vec::with_capacity(600));
    let mut records: Vec<(i64, i64, usize)> = Vec::with_capacity(700);
    let mut harmed: BTreeSet<&'static str> = BTreeSet::new();
    let mut n = 0;
    let outage = (dice.below(2) as usize, 30_000 + dice.below(40_000) as i64);
    let has_outage = dice.one_in(2);
    for second in 0..SECONDS {
        for (m, model) in MODELS.into_iter().enumerate() {
            for _ in 0..1 + dice.below(2) {
                n += 1;
                let at_ms = second * 1_000 + dice.below(1_000) as i64;
                let is_out = has_outage && outage.0 == m && (outage.1..outage.1 + 12_000).contains(&at_ms);
                // In an outage there are enough requests to see it.
                for copy in 0..if is_out { 8 } else { 1 } {
                    let begins = ids.len();
                    write!(ids, "{model}-{n}-{copy}").expect("room");
                    let what = if is_out {
                        Shown::Error
                    } else if second > 20 && dice.one_in(60) {
                        harmed.insert(model);
                        Shown::Harm
                    } else if second > 20 && dice.one_in(80) {
                        Shown::Secret
                    } else {
                        Shown::Nothing
                    };
                    let event = events.len();
                    events.push(Happened { model, at_ms, id: begins..ids.len(), what });
                    // Some are late, within what is waited for; some come twice.
                    let late = if dice.one_in(8) { dice.below(1_500) as i64 } else { 0 };
                    records.push((at_ms + late, n, event));
                    if dice.one_in(15) {
                        records.push((at_ms + late + 200, n, event));
                    }
                }
            }
        }
    }
    records.sort_unstable();
    let records = records.into_iter().map(|(arrival_ms, _, event)| (START.plus_ms(arrival_ms), event)).collect();
    Log { ids, events, records, harmed }
}

/// Every incident has two steps: one that is planned at once, and one on a switch of its own. The ranker's first step, at severity
/// 1, is approved by the runbook itself and taken back at recovery.
fn runbooks() -> respond::Settings {
    let step = |id: &str, kind, target: &str| respond::Template {
        id: id.to_owned(),
        kind,
        say: String::new(),
        action: Some(Action { using: SWITCH.to_owned(), target: target.to_owned(), set: [("mode".to_owned(), "safe".to_owned())].into() }),
        needs: Role::Approver,
        two_people: None,
        automatic: false,
        undo_at_recovery: false,
        expires_ms: Some(PLAN_EXPIRES_MS),
        only_if_exposed: false,
        draft: None,
        raise: None,
    };
    let runbook = |category, severity: &[u8], models: &[&str], first| respond::Runbook {
        place: String::new(),
        category,
        severity: severity.to_vec(),
        models: models.iter().map(|m| (*m).to_owned()).collect(),
        owner: String::new(),
        fallback: String::new(),
        steps: vec![first, step("reroute", StepKind::Reroute, "{model}-route")],
    };
    let first = || step("safe_default", StepKind::SafeDefault, "{model}-mode");
    let by_itself = || respond::Template { two_people: Some(false), automatic: true, undo_at_recovery: true, ..first() };
    let mut runbooks = Vec::new();
    // All that can happen in a life.
    for category in [Category::HarmfulOutput, Category::DataBreach, Category::ModelFailure] {
        runbooks.push(runbook(category, &[1], &["ranker"], by_itself()));
        runbooks.push(runbook(category, &[1, 2, 3], &[], first()));
    }
    respond::Settings { runbooks, two_people: true, ..respond::Settings::default() }
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

/// Something that a person did about a step, as it was: not as the product has it.
struct Deed {
    seq: u64,
    incident: String,
    step: String,
    what: What,
    wall: Time,
    /// The engine has taken it.
    is_taken: bool,
}

enum What {
    Planned,
    /// Of the plan that he saw; each serves once.
    Approved {
        by: &'static str,
        role: Role,
        plan: String,
        is_used: bool,
    },
    Undone,
    Settled,
}

struct Life<'l> {
    settings: &'l Settings,
    dice: Dice,
    bug: Option<Bug>,
    log: &'l Log,
    /// The events of the log as they are read: what was read before changes no reading, so one serves every replay.
    seen: &'l [Observation<'l>],
    ledger: Ledger,
    oracle: Oracle,
    panel: Panel,
    actor: Actor,
    engine: Option<Engine>,
    /// Of the process: what it has read, and what it remembers of its attempts.
    read: i64,
    /// How far any process has read: until it is there again, a new one takes no acts, as the keeper does not.
    read_once: i64,
    tries: BTreeMap<String, Tries>,
    /// Claims whose answer has not come; they may come after their lease.
    in_air: Vec<(Claimed, Answered)>,
    /// Errands whose answer is there and not told yet.
    in_hand: Vec<(Arc<Job>, Receipt, Said)>,
    /// What the last process left under way has been looked over.
    is_looked_over: bool,
    now: Time,
    kills: u32,
    peace: bool,
    /// The newest revision of each incident that was on disk.
    newest: BTreeMap<String, u64>,
    deeds: Vec<Deed>,
    /// The plan that somebody saw, by incident and step: he may approve it much later.
    screen: BTreeMap<(String, String), String>,
    /// The entry with the newest plan of each step.
    planned: BTreeMap<(String, String), u64>,
    /// What was truly said of a change, once that is in the journal.
    said: BTreeMap<String, Said>,
    /// Applications by target.
    applied: BTreeMap<String, usize>,
}

/// The process is dead.
struct Killed;
type Step = Result<(), Killed>;

impl<'l> Life<'l> {
    /// One whole life, and what is told of it at its end.
    fn of<T>(seed: u64, bug: Option<Bug>, world: &World, tell: impl FnOnce(&Life<'_>) -> T) -> Result<T, String> {
        let mut dice = Dice(seed);
        let log = happenings(&mut dice);
        let seen = log.read(seed.is_multiple_of(DECODES_ONE_IN));
        let mut life = Life::new(dice, &log, &seen, bug, world);
        life.live()?;
        Ok(tell(&life))
    }

    fn new(dice: Dice, log: &'l Log, seen: &'l [Observation<'l>], bug: Option<Bug>, world: &'l World) -> Life<'l> {
        let panel = Panel::default();
        panel.lock().forgets_the_version = bug == Some(Bug::VersionForgotten);
        let targets = MODELS.iter().flat_map(|m| [format!("{m}-mode"), format!("{m}-route")]).collect();
        Life {
            settings: &world.settings,
            dice,
            bug,
            log,
            seen,
            ledger: Ledger::default(),
            oracle: Oracle::default(),
            actor: panel.actor(targets),
            panel,
            engine: None,
            read: 0,
            read_once: 0,
            tries: BTreeMap::new(),
            in_air: Vec::new(),
            in_hand: Vec::new(),
            is_looked_over: false,
            now: START.plus_ms(SECONDS * 1_000),
            kills: 0,
            peace: false,
            newest: BTreeMap::new(),
            deeds: Vec::new(),
            screen: BTreeMap::new(),
            planned: BTreeMap::new(),
            said: BTreeMap::new(),
            applied: BTreeMap::new(),
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
            (Engine::restore(self.settings.clone(), &self.ledger.rows).expect("what was saved can be read"), self.ledger.snapshot_seq)
        } else {
            let mut engine = Engine::new(self.settings.clone());
            engine.declare(0);
            (engine, 0)
        };
        let seq = if self.is(Bug::JournalTwice) { 0 } else { seq };
        if !self.is(Bug::JournalForgotten) {
            self.ledger.journal.iter().filter(|e| e.seq > seq).for_each(|e| engine.enter(e.clone()));
        }
        self.ledger.reopen(self.bug);
        self.read = self.ledger.position;
        self.engine = Some(engine);
        self.tries.clear();
        self.in_air.clear();
        self.in_hand.clear();
        self.is_looked_over = false;
    }

    fn die(&mut self) {
        self.engine = None;
        self.kills += 1;
        self.ledger.is_new = true;
        if self.is(Bug::TimelineCut)
            && let Some(mut last) = self.ledger.timeline.last_entry()
        {
            last.get_mut().pop();
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
        for (seq, answer) in &out.answers {
            if let Some(deed) = self.deeds.iter_mut().find(|d| d.seq == *seq && answer.is_ok()) {
                deed.is_taken = true;
            }
        }
        self.may_die()?;
        let (now, bug, replays) = (self.now, self.bug, self.kills);
        if self.is(Bug::CommitInTwoPieces) {
            let incidents = Outcome { deliveries: vec![], ..out.clone() };
            self.ledger.commit(incidents, now, bug, replays);
            // What is there already is not written again, so that the deliveries are never made up for.
            let first = self.kills;
            self.may_die()?;
            if first != 0 && !self.peace && self.dice.one_in(3) {
                return Ok(());
            }
        }
        if self.is(Bug::ErrandsForgotten) && !self.peace && self.dice.one_in(10) {
            out.jobs.clear();
        }
        self.ledger.commit(out, now, bug, replays);
        self.may_die()
    }

    fn enter(&mut self, at: Time, control: Control) -> Step {
        if self.is(Bug::JournalAfterAct) && matches!(control, Control::Act { .. }) {
            let entry = Entry { seq: self.ledger.seq + 1, at, control: control.clone() };
            self.engine().enter(entry);
            self.settle()?;
            self.may_die()?;
            self.ledger.append(at, control);
            return Ok(());
        }
        if self.is(Bug::LiveNotWritten) && matches!(control, Control::Live { .. }) {
            let entry = Entry { seq: self.ledger.seq, at, control };
            self.engine().enter(entry);
            return Ok(());
        }
        let entry = self.ledger.append(at, control);
        self.may_die()?;
        self.engine().enter(entry);
        self.settle()
    }

    fn read_some(&mut self) -> Step {
        let some = 1 + self.dice.below(12);
        let engine = self.engine.as_mut().expect("alive");
        for _ in 0..some {
            let Some((arrival, event)) = self.log.records.get(self.read as usize) else { break };
            let position = self.read;
            let skips = engine.next_position(0).is_some_and(|next| position < next);
            if !skips {
                engine.observe(0, position + 1, *arrival, &self.seen[*event]);
            }
            self.read += 1;
        }
        self.read_once = self.read_once.max(self.read);
        if !self.engine().is_live() && !self.engine().awaits_live() && self.read as usize > self.log.records.len() / 10 {
            let at = self.engine().horizon();
            let control = self.engine().end_of_history();
            self.enter(at, control)?;
        }
        self.settle()
    }

    fn snapshot(&mut self) -> Step {
        self.settle()?;
        let rows = self.engine().save().expect("saved");
        self.may_die()?;
        let position = self.engine().next_position(0).unwrap_or(0);
        self.ledger.keep(rows);
        self.ledger.position = match self.bug {
            Some(Bug::SnapshotAhead) => position + 1,
            _ => position,
        };
        self.ledger.snapshot_seq = self.engine().journal_seq();
        self.ledger.has_snapshot = true;
        self.may_die()?;
        // What the snapshot holds may go; here it stays, for the undisturbed life that all is held against.
        if self.is(Bug::JournalPrunedTooFar) {
            self.ledger.journal.clear();
        }
        Ok(())
    }

    /// What was done before the last kill has been reached again.
    fn is_caught_up(&mut self) -> bool {
        self.read >= self.read_once && !self.engine().awaits_acts()
    }

    /// Somebody does something, sensible or not.
    fn person(&mut self) -> Step {
        if !self.is_caught_up() {
            return Ok(());
        }
        let n = self.ledger.incidents.len() as u64;
        let at = self.engine().boundary();
        let wall = self.now;
        let by = || "ana".to_owned();
        if n == 0 || self.dice.one_in(10) {
            let matcher = Matcher { model: Some(MODELS[self.dice.below(2) as usize].to_owned()), ..Matcher::default() };
            let until = at.max(START).plus_ms(5_000 + self.dice.below(40_000) as i64);
            let hold =
                Control::Hold { kind: HoldKind::Silence, matcher, from: START, until, by: by(), why: String::new(), harm: self.dice.one_in(2) };
            return self.enter(at, hold);
        }
        let some = self.dice.below(n) as usize;
        let incident = self.ledger.incidents.keys().nth(some).expect("one of them").clone();
        if self.dice.below(5) < 3 {
            return self.person_at_a_step(incident);
        }
        let why = String::new;
        let command = match self.dice.below(9) {
            0 | 1 => Command::Acknowledge { by: by(), why: why() },
            2 => Command::Mitigate { by: by(), why: why() },
            3 => Command::Resolve { by: by(), closed_as: [ClosedAs::Fixed, ClosedAs::FalseAlarm][self.dice.below(2) as usize], why: why() },
            4 => Command::Reopen { by: by(), why: why() },
            5 => Command::Note { by: by(), text: "hm".to_owned() },
            6 => {
                let other = self.dice.below(n) as usize;
                Command::Merge { into: self.ledger.incidents.keys().nth(other).expect("one of them").clone(), by: by(), why: why() }
            }
            7 => Command::Split { by: by(), why: why() },
            _ => Command::Suppress { by: by(), why: why(), until: Some(at.max(START).plus_ms(self.dice.below(30_000) as i64)) },
        };
        self.enter(at, Control::Act { incident, command, wall })
    }

    /// What fits the step's state, mostly; the plan that is approved may be one that was on the screen long ago.
    fn person_at_a_step(&mut self, incident: String) -> Step {
        let steps = &self.ledger.incidents[&incident].response.steps;
        if steps.is_empty() {
            return Ok(());
        }
        // The first, mostly.
        let at_first = self.dice.below(4) < 3;
        let step = if at_first { &steps[0] } else { &steps[self.dice.below(steps.len() as u64) as usize] };
        let (id, state, plan) = (step.id.clone(), step.state, step.plan.as_ref().map(|p| (p.hash.clone(), p.at)));
        let by = ["ana", "ben", "cem"][self.dice.below(3) as usize];
        let role = if self.dice.one_in(8) { Role::Responder } else { Role::Approver };
        let fits = match state {
            StepState::Planned => 1,
            StepState::Idle | StepState::Failed | StepState::Moved | StepState::Undone => 0,
            StepState::Done | StepState::Unverified | StepState::Unknown | StepState::UndoFailed | StepState::UndoUnknown => {
                [0, 2, 2, 3][self.dice.below(4) as usize]
            }
            StepState::Planning | StepState::Applying | StepState::Verifying | StepState::Undoing | StepState::VerifyingUndo => 4,
        };
        let choice = if fits == 4 || self.dice.one_in(6) { self.dice.below(4) } else { fits };
        let mut wall = self.now;
        let (command, what) = match choice {
            0 => (StepCommand::Plan { by: by.to_owned(), step: id.clone() }, What::Planned),
            1 => {
                let Some((newest, planned_at)) = plan else { return Ok(()) };
                let place = (incident.clone(), id.clone());
                if self.dice.one_in(4) {
                    // He only looks, and comes back.
                    self.screen.insert(place, newest);
                    return Ok(());
                }
                let before = if self.dice.one_in(2) { self.screen.get(&place).cloned() } else { None };
                let seen = before.unwrap_or_else(|| {
                    self.screen.insert(place, newest.clone());
                    newest.clone()
                });
                if self.is(Bug::ExpiredApproval) {
                    wall = planned_at;
                }
                let plan = if self.is(Bug::NewestPlanApproved) { newest } else { seen.clone() };
                let what = What::Approved { by, role, plan: seen, is_used: false };
                (StepCommand::Approve { by: by.to_owned(), role, step: id.clone(), plan }, what)
            }
            2 => (StepCommand::Undo { by: by.to_owned(), role, step: id.clone() }, What::Undone),
            _ => (StepCommand::Settle { by: by.to_owned(), step: id.clone(), why: String::new() }, What::Settled),
        };
        let second = match &command {
            StepCommand::Approve { role, step, plan, .. } if self.is(Bug::SecondSignatureMade) => {
                Some(StepCommand::Approve { by: "duty".to_owned(), role: *role, step: step.clone(), plan: plan.clone() })
            }
            _ => None,
        };
        let seq = self.ledger.seq + 1;
        self.deeds.push(Deed { seq, incident: incident.clone(), step: id, what, wall: self.now, is_taken: false });
        let at = self.engine().boundary();
        self.enter(at, Control::Act { incident: incident.clone(), command: Command::Step(command), wall })?;
        match second {
            Some(command) => self.enter(at, Control::Act { incident, command: Command::Step(command), wall }),
            None => Ok(()),
        }
    }

    // --- errands ---

    /// One turn of the errands: what is due is marked and done, and some answers come later or never.
    fn errands(&mut self) -> Step {
        if !self.is_caught_up() {
            return Ok(());
        }
        if !self.is_looked_over {
            self.is_looked_over = true;
            self.look_over()?;
        }
        for _ in 0..1 + self.dice.below(3) {
            let due = self.ledger.due_job(self.now).filter(|_| self.in_hand.len() < AT_ONCE_MAX);
            let Some(due) = due else { break };
            let row = &mut self.ledger.jobs[due];
            let job = Arc::clone(&row.job);
            let marks_late = self.bug == Some(Bug::MarkedAfterCall) && !job.errand.only_reads();
            if !marks_late {
                row.state = JobState::Doing;
                self.may_die()?;
            }
            self.go(job)?;
        }
        if !self.in_hand.is_empty() && (self.peace || self.dice.one_in(3)) {
            let (job, receipt, said) = self.in_hand.remove(0);
            self.bring_back(&job, receipt, said)?;
        }
        Ok(())
    }

    fn look_over(&mut self) -> Step {
        let mut left = Vec::new();
        for row in self.ledger.jobs.iter_mut().filter(|r| r.state == JobState::Doing) {
            match left_behind(&row.job) {
                Some(receipt) if self.bug != Some(Bug::ChangeInHandForgotten) => left.push((Arc::clone(&row.job), receipt)),
                Some(_) | None => row.state = JobState::Waiting,
            }
        }
        left.into_iter().try_for_each(|(job, receipt)| self.bring_back(&job, receipt, Said::Nothing))
    }

    fn fate(&mut self) {
        let fate = match self.dice.below(16) {
            _ if self.peace => Fate::Well,
            0..=8 => Fate::Well,
            9 => Fate::NotSent,
            10 => Fate::Busy,
            11 => Fate::LostBefore,
            12 | 13 => Fate::LostAfter,
            14 => Fate::BreaksBefore,
            _ => Fate::BreaksAfter,
        };
        self.panel.lock().fate = fate;
    }

    fn go(&mut self, job: Arc<Job>) -> Step {
        let now = if self.is(Bug::AppliedAfterExpiry) { Time::MIN } else { self.now };
        match before_doing(&job, true, now) {
            Course::Answer(receipt) => self.bring_back(&job, receipt, Said::NotDone),
            Course::Once => {
                self.fate();
                if !job.errand.only_reads() {
                    self.asked_of_change(&job);
                }
                let receipt = switch::run(&self.actor, &job, self.now);
                let said = self.panel.lock().said.take().unwrap_or(Said::Nothing);
                self.may_die()?;
                if self.is(Bug::MarkedAfterCall) {
                    self.ledger.job(&job.id).state = JobState::Doing;
                }
                if !self.peace && self.dice.one_in(6) {
                    self.in_hand.push((job, receipt, said));
                    return Ok(());
                }
                self.bring_back(&job, receipt, said)
            }
            Course::LookBack => {
                if !self.peace && self.dice.one_in(10) {
                    // The process is told to end while it looks: whoever comes next looks again.
                    let now = self.now;
                    let row = self.ledger.job(&job.id);
                    (row.state, row.next_at) = (JobState::Waiting, now);
                    return Ok(());
                }
                let mut last = Receipt::NotSent(String::new());
                for _ in 0..2 {
                    self.fate();
                    last = switch::run(&self.actor, &job, self.now);
                    if is_enough(&last) {
                        break;
                    }
                }
                self.may_die()?;
                self.bring_back(&job, last, Said::Nothing)
            }
        }
    }

    fn bring_back(&mut self, job: &Arc<Job>, receipt: Receipt, said: Said) -> Step {
        let is_lost = matches!(receipt, Receipt::Unknown(_)) && !job.errand.only_reads();
        let receipt = match self.bug {
            Some(Bug::LostChangeRepeated) if is_lost => {
                self.ledger.job(&job.id).state = JobState::Waiting;
                return Ok(());
            }
            Some(Bug::LostChangeIsDone) if is_lost => Receipt::Done(String::new()),
            Some(Bug::LostChangeIsNotSent) if is_lost => Receipt::NotSent(String::new()),
            _ => receipt,
        };
        if self.is(Bug::SettledBeforeHeard) {
            self.ledger.job(&job.id).state = JobState::Done;
            self.may_die()?;
        }
        let is_plan = matches!(receipt, Receipt::Planned(_));
        let reads_as_wanted = matches!(receipt, Receipt::Read { as_wanted: true, .. });
        let (incident, step) = (job.incident.id.clone(), job.step.id.clone());
        let (key, command) = heard(job, receipt);
        // As the keeper does: by its key once, and only to the newest incident of its kind.
        let waiting = self.engine().incidents().find(|i| i.id == incident).map(|i| i.response.step(&step).map(|s| s.state));
        if let Some(state) = waiting.filter(|_| !self.ledger.keys.contains(&key)) {
            self.ledger.keys.insert(key);
            if !job.errand.only_reads() {
                self.said.insert(job.id.clone(), said);
            }
            // A second plan, made because somebody was called anew, is heard by nobody.
            if is_plan && state == Some(StepState::Planning) {
                self.planned.insert((incident.clone(), step.clone()), self.ledger.seq + 1);
            }
            let (at, wall) = (self.engine().boundary(), self.now);
            self.enter(at, Control::Act { incident: incident.clone(), command, wall })?;
            self.may_die()?;
        }
        self.ledger.job(&job.id).state = JobState::Done;
        let current = self.ledger.incidents.get(&incident).and_then(|i| Some((i, i.response.step(&step)?)));
        if self.is(Bug::AppliedWithoutApproval)
            && let Some((i, s)) = current.filter(|(_, s)| is_plan && s.state == StepState::Planned)
        {
            let (job, now) = (Job::new(i, s, Errand::Apply), self.now);
            self.ledger.add_job(job, now);
        } else if self.is(Bug::ReadBackSettles) && reads_as_wanted && current.is_some_and(|(_, s)| s.state == StepState::Unknown) {
            let (at, wall) = (self.engine().boundary(), self.now);
            let command = Command::Step(StepCommand::Settle { by: "duty".to_owned(), step, why: String::new() });
            return self.enter(at, Control::Act { incident, command, wall });
        }
        Ok(())
    }

    /// What must be so when the request for a change leaves, by what people truly did.
    fn asked_of_change(&mut self, job: &Job) {
        let wrong = self.wrong_with(job);
        if self.oracle.wrong.is_none() {
            self.oracle.wrong = wrong;
        }
    }

    fn wrong_with(&mut self, job: &Job) -> Option<String> {
        let id = &job.id;
        let target = |j: &Job| j.step.action.as_ref().map(|a| a.target.clone());
        let mine = target(job)?;
        let under_way = |r: &&ledger::JobRow| r.state == JobState::Doing && !r.job.errand.only_reads() && r.job.id != *id;
        if let Some(other) = self.ledger.jobs.iter().filter(under_way).find(|r| target(&r.job).as_ref() == Some(&mine)) {
            return Some(format!("{id} and {} are at {mine} at once", other.job.id));
        }
        if job.errand != Errand::Apply {
            return None;
        }
        let Some(plan) = &job.step.plan else { return Some(format!("{id} has no plan")) };
        if self.now > plan.expires_at || plan.expires_at.since_ms(plan.at) != PLAN_EXPIRES_MS {
            return Some(format!("{id} is applied at {}, and its plan was good until {}", self.now.rfc3339(), plan.expires_at.rfc3339()));
        }
        let times = self.applied.entry(mine.clone()).or_default();
        *times += 1;
        if *times > respond::PER_HOUR_MAX as usize {
            return Some(format!("{mine} is changed {times} times within minutes"));
        }
        let is_harm = job.incident.severity == Severity::HARM;
        let by_itself = job.incident.key.model == "ranker" && job.step.id == "safe_default" && is_harm;
        if by_itself && job.step.approvals.iter().any(|a| a.by == respond::steps::RUNBOOK) {
            return None;
        }
        // A step keeps the signatures of the severity for which it was prepared.
        let was_harm = self.ledger.opened_as.get(&job.incident.id) == Some(&Severity::HARM);
        let needed = if was_harm && is_harm && !by_itself { 2 } else { 1 };
        let planned = self.planned.get(&(job.incident.id.clone(), job.step.id.clone())).copied().unwrap_or(u64::MAX);
        let mut signed: BTreeSet<&str> = BTreeSet::new();
        for deed in self.deeds.iter_mut().filter(|d| d.seq > planned && d.incident == job.incident.id && d.step == job.step.id) {
            if let What::Approved { by, role, plan: seen, is_used } = &mut deed.what
                && *seen == plan.hash
                && *role >= Role::Approver
                && deed.wall <= plan.expires_at
                && !std::mem::replace(is_used, true)
            {
                signed.insert(*by);
            }
        }
        (signed.len() < needed).then(|| format!("{id} is applied, {needed} people had to approve, and it was approved by {signed:?}"))
    }

    /// How a step stands must be what is known of its last change, unless a person has spoken since.
    fn asked_of_steps(&self) -> Result<(), String> {
        let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
        for row in self.ledger.jobs.iter().rev().filter(|r| !r.job.errand.only_reads()) {
            let (incident, step) = (row.job.incident.id.as_str(), row.job.step.id.as_str());
            if !seen.insert((incident, step)) {
                continue;
            }
            let spoken = |d: &Deed| d.is_taken && d.seq > row.seq && d.incident == incident && d.step == step;
            if self.deeds.iter().any(spoken) {
                continue;
            }
            let Some(step) = self.ledger.incidents.get(incident).and_then(|i| i.response.step(step)) else {
                return Err(format!("{} has lost its step", row.job.id));
            };
            use StepState::*;
            let is_apply = row.job.errand == Errand::Apply;
            let fits = match self.said.get(&row.job.id).copied() {
                None | Some(Said::Nothing) if is_apply => matches!(step.state, Applying | Unknown),
                None | Some(Said::Nothing) => matches!(step.state, Undoing | UndoUnknown),
                Some(Said::NotDone) if is_apply => matches!(step.state, Applying | Moved | Failed),
                Some(Said::NotDone) => matches!(step.state, Undoing | UndoFailed),
                Some(Said::Done) if is_apply => matches!(step.state, Applying | Verifying | Done | Unverified),
                Some(Said::Done) => matches!(step.state, Undoing | VerifyingUndo | Undone | UndoFailed),
            };
            if !fits {
                return Err(format!(
                    "{} heard {:?}, nobody has spoken since, and the step is {}",
                    row.job.id,
                    self.said.get(&row.job.id),
                    step.state
                ));
            }
        }
        Ok(())
    }

    // --- messages ---

    /// One turn of the dispatcher: what is claimed goes out, and some answers come later or never.
    fn dispatch(&mut self) -> Step {
        let (now, bug) = (self.now, self.bug);
        let claims = self.ledger.claim(now, bug);
        for claimed in claims {
            self.may_die()?;
            let current = self.ledger.incidents.get(&claimed.delivery.message.incident.id);
            if self.is(Bug::StaleDropped) && current.is_some_and(|c| c.revision > claimed.delivery.message.incident.revision + 1) {
                self.ledger.settle(&claimed, DeliveryState::Superseded, None, now, bug);
                continue;
            }
            let is_over = current.is_some_and(|c| !c.state.is_live());
            if let Before::GiveUp { state, .. } = before_sending(&claimed, &Manner::VENDOR, current, now) {
                self.ledger.settle(&claimed, state, None, now, bug);
                continue;
            }
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
        match self.dice.below(25) {
            0..=9 if (self.read as usize) < self.log.records.len() => self.read_some(),
            0..=13 => self.dispatch(),
            14..=16 => self.person(),
            17 => self.snapshot(),
            18 => {
                let back = self.dice.below(20_000) as i64;
                self.now = self.now.plus_ms(-back);
                Ok(())
            }
            19 | 20 => {
                self.now = self.now.plus_ms(self.dice.below(15_000) as i64);
                Ok(())
            }
            21 if self.dice.one_in(2) => {
                // Somebody turns a switch himself.
                let (model, which) = (MODELS[self.dice.below(2) as usize], ["mode", "route"][self.dice.below(2) as usize]);
                let value = ["live", "half", "safe"][self.dice.below(3) as usize];
                self.panel.lock().turn(&format!("{model}-{which}"), value);
                Ok(())
            }
            _ => self.errands(),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        self.start();
        let mut after = 0;
        for _ in 0..4_000 {
            if self.read as usize >= self.log.records.len() {
                after += 1;
            }
            if after > TURNS_AFTER {
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
        while (self.read as usize) < self.log.records.len() {
            let _ = self.read_some();
        }
        // The end of the log: what is open is sealed.
        self.engine().finish(0);
        let _ = self.settle();
        for _ in 0..400 {
            self.now = self.now.plus_ms(20_000);
            let _ = self.dispatch();
            let _ = self.errands();
            if self.in_hand.is_empty() && self.ledger.is_all_said() {
                break;
            }
        }
        self.asked_at_the_end()
    }

    // --- what was promised ---

    fn asked_at_any_time(&mut self) -> Result<(), String> {
        if let Some(wrong) = self.oracle.wrong.take().or_else(|| self.panel.lock().wrong.take()) {
            return Err(wrong);
        }
        if let Some(id) = &self.oracle.twice {
            return Err(format!("{id} was sent again although its acceptance was known"));
        }
        if !std::mem::take(&mut self.ledger.is_new) {
            return Ok(());
        }
        for i in self.ledger.incidents.values() {
            match self.newest.get_mut(&i.id) {
                Some(newest) if i.revision < *newest => {
                    return Err(format!("{} went back from revision {newest} to {}", i.id, i.revision));
                }
                Some(newest) => *newest = i.revision,
                None => drop(self.newest.insert(i.id.clone(), i.revision)),
            }
        }
        let mut keys: BTreeSet<&IncidentKey> = BTreeSet::new();
        for i in self.ledger.incidents.values().filter(|i| i.state.is_live()) {
            if !keys.insert(&i.key) {
                return Err(format!("two live incidents of {:?}", i.key));
            }
        }
        self.asked_of_steps()
    }

    fn asked_at_the_end(&mut self) -> Result<(), String> {
        self.asked_at_any_time()?;
        // The same log and the same journal, undisturbed, say the same.
        let mut engine = Engine::new(self.settings.clone());
        engine.declare(0);
        self.ledger.journal.iter().for_each(|e| engine.enter(e.clone()));
        let mut out = Outcome::default();
        for (n, (arrival, event)) in self.log.records.iter().enumerate() {
            engine.observe(0, n as i64 + 1, *arrival, &self.seen[*event]);
        }
        engine.advance(&mut out);
        engine.finish(0);
        engine.advance(&mut out);
        let mut told = Ledger::default();
        told.commit(out, self.now, None, 0);
        if told.incidents != self.ledger.incidents {
            let one = told.incidents.values().find(|i| self.ledger.incidents.get(&i.id) != Some(i));
            let one = one.or_else(|| self.ledger.incidents.values().find(|i| !told.incidents.contains_key(&i.id)));
            return Err(format!("incidents differ from an undisturbed life: {one:?}"));
        }
        if told.timeline != self.ledger.timeline {
            let line = |t: &TimelineEntry| format!("{} {} at {}: {} {}", t.incident_id, t.revision, t.at.rfc3339(), t.what, t.why);
            let odd = |a: &Ledger, b: &Ledger| {
                let odd = a.timeline.values().flatten().filter(|t| !b.timeline.get(&t.incident_id).is_some_and(|all| all.contains(t)));
                odd.map(line).collect::<Vec<_>>()
            };
            let (lacks, extra) = (odd(&told, &self.ledger), odd(&self.ledger, &told));
            return Err(format!("timelines differ from an undisturbed life: it lacks {lacks:?} and has {extra:?}"));
        }
        let ids = |l: &Ledger| l.deliveries.iter().map(|r| r.delivery.id.clone()).collect::<BTreeSet<_>>();
        if ids(&told) != ids(&self.ledger) {
            return Err("other deliveries than in an undisturbed life".to_owned());
        }
        let jobs = |l: &Ledger| l.jobs.iter().map(|r| (r.job.id.clone(), Arc::clone(&r.job))).collect::<BTreeMap<_, _>>();
        if jobs(&told) != jobs(&self.ledger) {
            return Err("other errands than in an undisturbed life".to_owned());
        }
        // Whoever was harmed has an incident, under its own key or told by another.
        for model in &self.log.harmed {
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
        let mut expected = 1;
        for r in self.ledger.timeline.get(id).into_iter().flatten().map(|t| t.revision) {
            if r > expected {
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
        // Every errand was answered, and nothing waits for an answer that will not come.
        if let Some(row) = self.ledger.jobs.iter().find(|r| r.job.incident.id == *id && r.state != JobState::Done) {
            return Err(format!("{}: still {:?} after two hours of peace", row.job.id, row.state));
        }
        for step in &i.response.steps {
            use StepState::*;
            let is_asked = self.ledger.jobs.iter().any(|r| r.job.incident.id == *id && r.job.step.id == step.id);
            if matches!(step.state, Applying | Verifying | Undoing | VerifyingUndo) || step.state == Planning && is_asked {
                return Err(format!("{id}: step {} is {} for ever", step.id, step.state));
            }
        }
        let rows: Vec<&Row> = self.ledger.deliveries.iter().filter(|r| r.delivery.message.incident.id == *id).collect();
        if let Some(row) = rows.iter().find(|r| !r.state.is_final()) {
            return Err(format!("{}: still {:?} after two hours of peace", row.delivery.id, row.state));
        }
        let none = Vec::new();
        let seen = self.oracle.seen.get(id).unwrap_or(&none);
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
        let none = Vec::new();
        let calls = self.oracle.calls.get(id).unwrap_or(&none);
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
        let jobs: Vec<(&String, Option<&Said>)> = self.ledger.jobs.iter().map(|r| (&r.job.id, self.said.get(&r.job.id))).collect();
        format!("{incidents:?}{:?}{rows:?}{:?}{jobs:?}", self.ledger.timeline, self.oracle.seen)
    }
}

/// What all lives share.
struct World {
    settings: Settings,
}

impl World {
    fn new() -> World {
        let mut settings = settings(PANE_MS, PANE_MS, &[]);
        settings.judge.false_pages = 0.0001;
        settings.respond = runbooks().into();
        World { settings }
    }
}

/// What happened in the lives, so that nobody has to believe that it did.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    kills: u64,
    incidents: u64,
    messages: u64,
    /// Requests for a change that left, of these unknown.
    changes: u64,
    unknown: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.kills += other.kills;
        self.incidents += other.incidents;
        self.messages += other.messages;
        self.changes += other.changes;
        self.unknown += other.unknown;
    }

    fn of(life: &Life<'_>) -> Count {
        let unknown = life.said.values().filter(|s| **s == Said::Nothing).count();
        Count {
            kills: u64::from(life.kills),
            incidents: life.ledger.incidents.len() as u64,
            messages: life.ledger.deliveries.len() as u64,
            changes: life.said.len() as u64,
            unknown: unknown as u64,
        }
    }
}

/// Lives from `first` on, over all cores; the first that fails.
fn lives(first: u64, count: u64, bug: Option<Bug>) -> Result<Count, (u64, String)> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let threads = number("BELLWETHER_THREADS", cores).clamp(1, count.max(1));
    let world = World::new();
    std::thread::scope(|scope| {
        let hands: Vec<_> = (0..threads)
            .map(|t| {
                let world = &world;
                scope.spawn(move || {
                    let (mut seed, mut count_here) = (first + t, Count::default());
                    while seed < first + count {
                        count_here.add(Life::of(seed, bug, world, Count::of).map_err(|why| (seed, why))?);
                        seed += threads;
                    }
                    Ok(count_here)
                })
            })
            .collect();
        let mut all = Count::default();
        let mut failed: Vec<(u64, String)> = Vec::new();
        for hand in hands {
            match hand.join().expect("a life does not panic") {
                Ok(count) => all.add(count),
                Err(why) => failed.push(why),
            }
        }
        failed.into_iter().min().map_or(Ok(all), Err)
    })
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Lives of one line of a record.
const PART: u64 = 100_000;

/// With `BELLWETHER_LIVES_RECORD=FILE` lives go in parts, each of which becomes a line of the file once it is over: the same command
/// goes on after them another day.
#[test]
fn many_lives_keep_every_promise() {
    let (first, count) = (number("BELLWETHER_SEED", 1), number("BELLWETHER_LIVES", 50_000));
    let record = std::env::var_os("BELLWETHER_LIVES_RECORD").map(PathBuf::from);
    let lived = record.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
    let part = if record.is_some() { PART } else { count.max(1) };
    for from in (first..first + count).step_by(part as usize) {
        let some = part.min(first + count - from);
        let name = format!("{some} lives from seed {from} ");
        if lived.lines().any(|line| line.starts_with(&name)) {
            continue;
        }
        let began = Instant::now();
        let all = lives(from, some, None).unwrap_or_else(|(seed, why)| panic!("seed {seed} (BELLWETHER_SEED={seed} BELLWETHER_LIVES=1): {why}"));
        let line = format!(
            "{name}in {:.1} s: no promise broken over {} kills, {} incidents, {} messages, {} changes ({} with an unknown outcome)",
            began.elapsed().as_secs_f64(),
            all.kills,
            all.incidents,
            all.messages,
            all.changes,
            all.unknown
        );
        println!("{line}");
        if let Some(file) = &record {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file).expect("the record");
            std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).expect("the record");
        }
    }
}

/// 1032456: harm in the rest of the pane in which history ended was judged as history, and nobody was told.
#[test]
fn lives_that_broke_a_promise_once_keep_it() {
    for seed in [1_032_456] {
        if let Err((seed, why)) = lives(seed, 1, None) {
            panic!("seed {seed}: {why}");
        }
    }
}

/// Seed 1032456: the end of history was written between two records of one pane, and the second was of somebody harmed.
#[test]
fn harm_in_the_pane_in_which_history_ends_is_told() {
    let mut engine = Engine::new(World::new().settings);
    engine.declare(0);
    let decoder = Decoder::canonical(decode::Settings::new([0; 16]));
    let read = |engine: &mut Engine, n: i64, ms: i64, flags: &str| {
        let at = START.plus_ms(ms);
        let time = at.rfc3339();
        let json = format!(r#"{{"kind":"prediction","id":"{n}","time":"{time}","model":"ranker","version":"1","environment":"prod"{flags}}}"#);
        engine.record(0, n, at, json.as_bytes(), &decoder, None).expect("valid");
    };
    read(&mut engine, 1, 20_364, "");
    let at = engine.horizon();
    let control = engine.end_of_history();
    engine.enter(Entry { seq: 1, at, control });
    read(&mut engine, 2, 21_278, r#","flags":{"harmful":"confirmed"}"#);
    engine.finish(0);
    let mut out = Outcome::default();
    engine.advance(&mut out);
    assert!(out.incidents.iter().any(|i| i.severity == Severity::HARM), "{:?}", out.incidents);
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    let world = World::new();
    for seed in 1..20 {
        let [one, two] =
            [(); 2].map(|()| Life::of(seed, None, &world, |life| (life.print(), life.kills)).unwrap_or_else(|why| panic!("seed {seed}: {why}")));
        assert_eq!(one, two, "seed {seed}");
    }
}

#[test]
fn every_planted_mistake_is_found() {
    let most = number("BELLWETHER_BUG_LIVES", 3_000);
    let mut missed = Vec::new();
    for bug in BUGS {
        match lives(1, most, Some(bug)) {
            Err((seed, why)) => println!("{bug:?}: found by seed {seed}: {}", why.chars().take(110).collect::<String>()),
            Ok(_) => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {most} lives: {missed:?}");
}
