//! The keeper: the one thread that owns the engine. It takes what the source read and what people ask, hands it to the engine,
//! and writes what the engine said before anybody hears of it.
//!
//! Nothing is written per event or per pane. Now and then the engine's state is written with the positions it is a function of;
//! incidents, deliveries and alarms are written when they happen. After a kill the log is read again from the last snapshot, and
//! since the engine is a pure function of log and journal, the same rows come out and the store absorbs them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};
use tracing::{error, info, warn};

use super::build::TopicDecoder;
use super::{errands, now};
use crate::domain::incident::Incident;
use crate::domain::observation::Body;
use crate::domain::response::{Job, Receipt};
use crate::domain::time::DAY_MS;
use crate::domain::{BY_CONFIGURATION, Decision, Hold, HoldKind, SeriesId, Time};
use crate::engine::view::{BaselineView, EngineView, ModelView, SeriesPage, SeriesView};
use crate::engine::{Control, Engine, Entry, ModelSettings, Outcome, Route, STATE_VERSION};
use crate::incident::Command;
use crate::pane::PartitionId;
use crate::reference;
use crate::respond;
use crate::serve::{CommandError, LagRow};
use crate::settings::Window;
use crate::source::dead_letters::{DeadLetters, Letter};
use crate::source::{self, Batch, Message, Place};
use crate::store::{self, Commit, SnapshotHead, Store};
use crate::telemetry::Metrics;

/// A partition may read ahead of the slowest by so many panes before it is held back, and goes on below half of it.
const PANES_AHEAD_MAX: i64 = 10_000;
/// Cells that wait for the slowest partition, about 1 KiB each: above this, whoever is ahead at all is held back as well.
const CELLS_WAITING_MAX: usize = 120_000;
/// How often progress is told while history is read.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// When a partition wakes, the others that rest are looked at afresh before anything is judged without them; not longer than this.
const DOUBT_MAX: Duration = Duration::from_secs(5);
/// How often a silence of everything is looked for.
const LISTEN_EVERY: Duration = Duration::from_secs(5);
/// What is answered to an act that is durable and not applied yet.
pub const WRITTEN_DOWN: &str = "it is written down and will be applied when the panes before it are judged";
/// How often it is asked whether something is due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is asked which windows of the configuration come next.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(60);
/// A window of the week comes again within this, milliseconds.
const WINDOW_COMES_MS: i64 = 9 * DAY_MS;
/// Named in the store's table of facts.
const META_ORIGIN: &str = "origin";

/// Where reading a source is steered: the Kafka client, or nothing.
pub enum Steering {
    Kafka(source::kafka::Handle),
    Files(source::file::Handle),
}

/// What people and the shell ask of the engine.
pub enum Ask {
    Engine(oneshot::Sender<EngineView>),
    Models(oneshot::Sender<Vec<ModelView>>),
    Baselines {
        model: Option<String>,
        to: oneshot::Sender<Vec<BaselineView>>,
    },
    Teach {
        model: String,
        control: Box<Control>,
        to: oneshot::Sender<Result<Vec<BaselineView>, CommandError>>,
    },
    Series {
        model: Option<String>,
        limit: usize,
        to: oneshot::Sender<Vec<SeriesView>>,
    },
    Page {
        id: SeriesId,
        to: oneshot::Sender<Option<SeriesPage>>,
    },
    Act {
        incident: String,
        command: Command,
        revision: Option<u64>,
        key: Option<String>,
        to: oneshot::Sender<Result<Incident, CommandError>>,
    },
    /// What came of an errand; the answer says that it is written down.
    Answered {
        job: Box<Job>,
        receipt: Receipt,
        to: oneshot::Sender<()>,
    },
    Holds(oneshot::Sender<Vec<Hold>>),
    /// A silence or a window begins, or the one called `id` ends.
    Hold {
        control: Control,
        id: Option<String>,
        to: oneshot::Sender<Result<Hold, CommandError>>,
    },
    Reroute {
        models: BTreeMap<String, ModelSettings>,
        routes: Vec<Route>,
        respond: Arc<respond::Settings>,
        windows: Vec<Window>,
        to: oneshot::Sender<()>,
    },
    Stop,
}

/// What others may see of the keeper without asking it.
#[derive(Default)]
pub struct Status {
    /// Wall time of the keeper's last turn.
    pub turned_at: AtomicI64,
    pub is_assigned: AtomicBool,
    pub is_caught_up: AtomicBool,
    pub trouble: Mutex<Option<String>>,
    /// Why the keeper gave up, if it did.
    pub died: Mutex<Option<String>>,
    pub lag: Mutex<Vec<LagRow>>,
    pub rejected: Mutex<BTreeMap<&'static str, u64>>,
}

/// What the keeper is made of.
pub struct Keeper {
    pub engine: Engine,
    pub store: Store,
    pub metrics: Arc<Metrics>,
    pub status: Arc<Status>,
    pub wake: Arc<Notify>,
    pub wake_errands: Arc<Notify>,
    pub decoders: Vec<TopicDecoder>,
    pub dead_letters: Option<DeadLetters>,
    pub steering: Option<Steering>,
    pub snapshot_every: Duration,
    /// Of the configuration.
    pub windows: Vec<Window>,
    /// Told once when history has been read and what comes pages.
    pub on_live: Option<Box<dyn FnOnce() + Send>>,
    /// Told of everything that was written, after it was.
    pub on_outcome: Option<Box<dyn FnMut(&Outcome) + Send>>,
    pub origin: Option<Origin>,
    pub state: Turning,
}

/// Where reading began at the very first start, and where history ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    pub places: Vec<OriginPlace>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OriginPlace {
    pub source: String,
    pub partition: i32,
    pub next: i64,
    pub high: i64,
}

/// What changes as the keeper turns.
#[derive(Default)]
pub struct Turning {
    ids: HashMap<(u16, i32), PartitionId>,
    /// High watermarks at the last assignment, until they are reached.
    behind: BTreeMap<PartitionId, i64>,
    held: Vec<(u16, i32)>,
    topics: Vec<String>,
    last_snapshot: Option<Instant>,
    last_metrics: Option<Instant>,
    last_progress: Option<Instant>,
    last_listen: Option<Instant>,
    last_look: Option<Instant>,
    last_announced: Option<Instant>,
    /// A moment of the clock that only runs forward, and what the wall said then.
    clock: Option<(Instant, Time)>,
    counted: Counted,
    /// Acts that came with a key and are not answered yet, by the number of their entry: what was written down before a kill is answered
    /// when it has been reached again, so that whoever repeats himself hears what became of it.
    unanswered: BTreeMap<u64, String>,
    ended: usize,
    /// A partition woke then, and whether those that rest have something as well is not known yet.
    doubt: Option<Instant>,
}

impl Turning {
    /// At a start, with what is still to be answered.
    pub fn with(unanswered: BTreeMap<u64, String>) -> Turning {
        Turning { unanswered, ..Turning::default() }
    }
}

#[derive(Default)]
struct Counted {
    duplicates: u64,
    late: u64,
}

/// Why a keeper stops before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the store failed")]
    Store(#[from] crate::store::Error),
    #[error("{0}")]
    State(String),
}

// === impl Keeper ===

impl Keeper {
    /// Turns until it is told to stop or cannot go on. On the way out the state is written once more.
    pub fn run(mut self, source: &Receiver<Message>, asks: &Receiver<Ask>) {
        let ended = self.turn_until_stopped(source, asks);
        if let Err(e) = &ended {
            error!(error = %chain(e), "the keeper stops");
            *lock(&self.status.died) = Some(chain(e));
        } else if let Err(e) = self.snapshot() {
            warn!(error = %chain(&e), "the last snapshot was not written; the log will be read again from the one before");
        }
        match self.steering.take() {
            Some(Steering::Kafka(handle)) => {
                if let Err(e) = handle.stop() {
                    warn!(error = %e, "kafka");
                }
            }
            Some(Steering::Files(handle)) => {
                let _ = handle.stop();
            }
            None => {}
        }
        if let Some(letters) = self.dead_letters.take() {
            letters.close();
        }
    }

    fn turn_until_stopped(&mut self, source: &Receiver<Message>, asks: &Receiver<Ask>) -> Result<(), Error> {
        self.state.topics = self.decoders.iter().map(|d| d.name.clone()).collect();
        self.state.last_snapshot = Some(Instant::now());
        self.settle()?;
        let mut open = true;
        loop {
            self.status.turned_at.store(now().0, Ordering::Relaxed);
            if self.store.is_dead() {
                return Err(Error::State(format!("the store at {} no longer takes writes", self.store.path().display())));
            }
            while let Ok(ask) = asks.try_recv() {
                if matches!(ask, Ask::Stop) {
                    return Ok(());
                }
                self.answer(ask)?;
            }
            if open {
                match source.recv_timeout(Duration::from_millis(10)) {
                    Ok(message) => self.take(message)?,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => open = false,
                }
            } else {
                std::thread::sleep(Duration::from_millis(10));
            }
            self.settle()?;
            self.announce()?;
            self.go_live()?;
            self.listen()?;
            self.look_at_the_clock()?;
            if self.state.last_snapshot.is_none_or(|t| t.elapsed() >= self.snapshot_every) {
                self.snapshot()?;
            }
            self.measure();
        }
    }

    /// Judges what is ready and writes what came of it.
    fn settle(&mut self) -> Result<(), Error> {
        if self.doubts()? {
            return Ok(());
        }
        let began = Instant::now();
        let mut out = Outcome::default();
        self.engine.advance(&mut out);
        if out.panes > 0 {
            self.metrics.pane_closed(out.panes, began.elapsed().as_secs_f64() / out.panes as f64);
        }
        self.write(out)
    }

    /// A partition that rests is not waited for. So when traffic comes back after a pause, the first partition to be read would be
    /// judged alone, and what lies in the others would be late. Therefore nothing is judged until the source has looked at all
    /// of them after the waking; those with something to read are waited for again, from the same boundary on.
    fn doubts(&mut self) -> Result<bool, Error> {
        let Some(since) = self.state.doubt else { return Ok(false) };
        let Some(Steering::Kafka(handle)) = &self.steering else {
            self.state.doubt = None;
            return Ok(false);
        };
        let Some((_, high)) = handle.looked().filter(|(asked, _)| *asked >= since) else { return Ok(since.elapsed() < DOUBT_MAX) };
        self.state.doubt = None;
        let resting: Vec<((u16, i32), PartitionId)> =
            self.state.ids.iter().map(|(place, id)| (*place, *id)).filter(|(_, id)| self.engine.rests(*id)).collect();
        for (place, id) in resting {
            if high.get(&place).is_some_and(|high| self.engine.next_position(id).is_none_or(|next| next < *high)) {
                self.wake(id)?;
            }
        }
        Ok(false)
    }

    /// From now on the partition is waited for: there is something to be read of it.
    fn wake(&mut self, id: PartitionId) -> Result<(), Error> {
        let position = self.engine.next_position(id).unwrap_or(0);
        if self.engine.must_wake(id, position) {
            let floor = self.engine.boundary();
            self.enter(floor, Control::Wake { partition: id, position, floor }, None)?;
        }
        Ok(())
    }

    fn write(&mut self, out: Outcome) -> Result<(), Error> {
        if out.is_empty() {
            return Ok(());
        }
        let answers: Vec<(String, Result<Option<Incident>, String>)> =
            out.answers.iter().filter_map(|(seq, answer)| Some((self.state.unanswered.remove(seq)?, answer.clone()))).collect();
        for (_, alarm) in &out.alarms {
            self.metrics.alarm(alarm.category, alarm.decision);
            if alarm.decision == Decision::Raised {
                info!(series = %alarm.series.id(), reason = %alarm.reason, "alarm");
            }
        }
        for (id, what) in &out.happened {
            if let Some(i) = out.incidents.iter().rfind(|i| i.id == *id) {
                info!(incident = %id, state = %i.state, severity = %i.severity, title = %i.title, "incident {what}");
                self.metrics.transition(i.state);
                let since = |t: Option<Time>| t.map(|t| t.since_ms(i.onset.at) as f64 / 1e3);
                match *what {
                    "opened" => self.metrics.time_to_detect(i.severity, i.opened_at.since_ms(i.onset.at) as f64 / 1e3),
                    "acknowledged" => {
                        since(i.acknowledged_at).into_iter().for_each(|s| self.metrics.time_to_acknowledge(i.severity, s));
                    }
                    "mitigated" => since(i.mitigated_at).into_iter().for_each(|s| self.metrics.time_to_mitigate(i.severity, s)),
                    _ => {}
                }
            }
        }
        let tells = !out.deliveries.is_empty() || !out.incidents.is_empty();
        let acts = !out.jobs.is_empty();
        let told = self.on_outcome.is_some().then(|| out.clone());
        let commit =
            Commit { incidents: out.incidents, timeline: out.timeline, deliveries: out.deliveries, alarms: out.alarms, jobs: out.jobs, now: now() };
        self.store.commit(commit).inspect_err(|_| self.metrics.store_error())?;
        for (key, answer) in answers {
            self.keep_answer(&key, &answer)?;
        }
        if tells {
            self.wake.notify_one();
        }
        if acts {
            self.wake_errands.notify_one();
        }
        if let (Some(tell), Some(out)) = (&mut self.on_outcome, told) {
            tell(&out);
        }
        Ok(())
    }

    fn enter(&mut self, at: Time, control: Control, key: Option<&str>) -> Result<(u64, bool), Error> {
        let body = serde_json::to_vec(&control).map_err(|e| Error::State(format!("a journal entry cannot be written: {e}")))?;
        let appended = self.store.journal_append(at, &body, key, now()).inspect_err(|_| self.metrics.store_error())?;
        if appended.is_new {
            self.engine.enter(Entry { seq: appended.seq, at, control });
        }
        Ok((appended.seq, appended.is_new))
    }

    // --- what the source says ---

    fn take(&mut self, message: Message) -> Result<(), Error> {
        match message {
            Message::Named { topic, name } => {
                let at = usize::from(topic);
                if self.state.topics.len() <= at {
                    self.state.topics.resize(at + 1, String::new());
                }
                self.state.topics[at] = name;
            }
            Message::Batch(batch) => {
                self.read(&batch)?;
                if let Some(Steering::Kafka(handle)) = &self.steering {
                    handle.give_back(batch);
                }
            }
            Message::Assigned(places) => self.assigned(&places)?,
            Message::Revoked(partitions) => {
                self.state.held.retain(|p| !partitions.contains(p));
                warn!(partitions = partitions.len(), "partitions were taken away");
            }
            Message::Idle { topic, partition, position } => {
                if let Some(id) = self.id_of(topic, partition)?
                    && !self.engine.rests(id)
                    && self.engine.next_position(id).is_none_or(|next| next >= position)
                {
                    self.state.behind.remove(&id);
                    let position = self.engine.next_position(id).unwrap_or(0);
                    self.enter(self.engine.boundary(), Control::Rest { partition: id, position }, None)?;
                }
            }
            Message::Gap { topic, partition, from, to, words } => {
                let name = self.topic(topic).to_owned();
                error!(topic = %name, partition, from, to, words = %words, "records are lost to us");
                self.metrics.source_error("kafka");
                if let Some(id) = self.id_of(topic, partition)? {
                    self.store.set_meta(&format!("gap/{name}/{partition}/{from}"), &format!("{to} {words}"))?;
                    self.engine.rejected(id, to);
                }
                let at = self.engine.boundary();
                let words = format!("{name}[{partition}]: records {from} to {to} cannot be read: {words}");
                self.enter(at, Control::Blind { words: words.clone(), wall: now() }, None)?;
                self.enter(at, Control::Sighted { words: format!("reading goes on at {to}"), wall: now() }, None)?;
            }
            Message::Trouble { words, since } => {
                warn!(words = %words, "cannot read");
                self.metrics.source_error("kafka");
                *lock(&self.status.trouble) = Some(words.clone());
                if self.status.is_caught_up.load(Ordering::Relaxed) && !self.engine.is_blind() {
                    self.enter(self.engine.boundary(), Control::Blind { words: format!("the source cannot be read: {words}"), wall: since }, None)?;
                }
            }
            Message::Well => {
                info!("reading again");
                *lock(&self.status.trouble) = None;
                if self.engine.is_blind() {
                    self.enter(self.engine.boundary(), Control::Sighted { words: "the source can be read again".to_owned(), wall: now() }, None)?;
                }
            }
            Message::Ended { topic, partition } => {
                if let Some(id) = self.id_of(topic, partition)? {
                    self.engine.finish(id);
                    self.state.behind.remove(&id);
                    self.state.ended += 1;
                }
            }
        }
        Ok(())
    }

    fn topic(&self, topic: u16) -> &str {
        self.state.topics.get(usize::from(topic)).map_or("?", String::as_str)
    }

    fn id_of(&mut self, topic: u16, partition: i32) -> Result<Option<PartitionId>, Error> {
        if let Some(id) = self.state.ids.get(&(topic, partition)) {
            return Ok(Some(*id));
        }
        let Some(name) = self.state.topics.get(usize::from(topic)).cloned() else { return Ok(None) };
        let id = self.store.partition_id(&name, partition)?;
        self.state.ids.insert((topic, partition), id);
        Ok(Some(id))
    }

    fn assigned(&mut self, places: &[Place]) -> Result<(), Error> {
        info!(partitions = places.len(), "partitions assigned");
        let first = self.origin.is_none();
        if first && !places.is_empty() {
            let origin = Origin {
                places: (places.iter())
                    .map(|p| OriginPlace { source: self.topic(p.topic).to_owned(), partition: p.partition, next: p.next, high: p.high })
                    .collect(),
            };
            let text = serde_json::to_string(&origin).map_err(|e| Error::State(format!("the origin cannot be written: {e}")))?;
            self.store.set_meta(META_ORIGIN, &text)?;
            self.origin = Some(origin);
        }
        for place in places {
            let Some(id) = self.id_of(place.topic, place.partition)? else { continue };
            if !self.engine.knows(id) {
                if self.engine.boundary() == Time::MIN {
                    self.engine.declare(id);
                } else {
                    // At position 0: it is waited for from now on, whatever of it has been read.
                    let control = Control::Wake { partition: id, position: 0, floor: self.engine.boundary() };
                    self.enter(self.engine.boundary(), control, None)?;
                }
            }
            let read = self.engine.next_position(id).unwrap_or(place.next);
            if place.high == Place::UNTIL_ENDED {
                // A file has no history: all of it pages. But what the last run had read of it is to be reached again, before anybody
                // acts on what came of it.
                if self.engine.is_live() || self.engine.awaits_live() {
                    self.state.behind.insert(id, place.high);
                }
            } else if place.high > read {
                self.state.behind.insert(id, place.high);
                self.wake(id)?;
            }
        }
        self.status.is_assigned.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn read(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut last: Option<(u16, i32, PartitionId)> = None;
        let mut kinds = [0u64; 8];
        let mut format = String::new();
        let mut source = String::new();
        let arrived = now();
        let mut delay_told = false;
        for record in &batch.records {
            let id = match last {
                Some((t, p, id)) if t == record.topic && p == record.partition => id,
                _ => {
                    let Some(id) = self.id_of(record.topic, record.partition)? else { continue };
                    last = Some((record.topic, record.partition, id));
                    self.topic(record.topic).clone_into(&mut source);
                    id
                }
            };
            let offset = record.offset;
            if self.engine.next_position(id).is_some_and(|next| offset < next) {
                continue; // Read before the kill.
            }
            if self.engine.must_wake(id, offset) {
                let floor = self.engine.boundary();
                self.enter(floor, Control::Wake { partition: id, position: offset, floor }, None)?;
                self.state.doubt.get_or_insert_with(Instant::now);
            }
            let time = record.time.unwrap_or(Time::MAX);
            let known = self.decoders.get(usize::from(record.topic)).or(self.decoders.first());
            let Some(decoder) = known else { continue };
            if format != decoder.format {
                decoder.format.clone_into(&mut format);
            }
            let rejected = if record.oversize > 0 {
                self.engine.rejected(id, offset + 1);
                Some((crate::decode::Reason::TooLarge.as_str(), format!("the record has {} bytes", record.oversize)))
            } else {
                let payload = batch.value(record).unwrap_or(b"");
                match self.engine.record(id, offset + 1, time, payload, &decoder.decoder, decoder.kind.as_deref()) {
                    Ok(kind) => {
                        kinds[kind] += 1;
                        if !delay_told && record.time.is_some() {
                            delay_told = true;
                            self.metrics.delay(&source, arrived.since_ms(time).max(0) as f64 / 1e3);
                        }
                        None
                    }
                    Err(reject) => Some((reject.reason.as_str(), reject.detail)),
                }
            };
            if let Some((reason, detail)) = rejected {
                self.metrics.rejected(&source, reason, 1);
                *lock(&self.status.rejected).entry(reason).or_default() += 1;
                if let Some(letters) = &self.dead_letters {
                    letters.post(Letter::of(&source, batch, record, reason, detail));
                }
            }
            if let Some(high) = self.state.behind.get(&id)
                && offset + 1 >= *high
            {
                self.state.behind.remove(&id);
            }
        }
        if kinds.iter().any(|n| *n > 0) && self.engine.is_blind() && lock(&self.status.trouble).is_none() {
            self.enter(self.engine.boundary(), Control::Sighted { words: "events come again".to_owned(), wall: now() }, None)?;
        }
        for (kind, n) in kinds.iter().enumerate().filter(|k| *k.1 > 0) {
            self.metrics.events(&source, Body::KINDS[kind], &format, *n);
        }
        self.hold_back();
        Ok(())
    }

    /// Partitions that are far ahead of the slowest wait, so that memory has a ceiling while history is read.
    fn hold_back(&mut self) {
        let Some(Steering::Kafka(handle)) = &self.steering else { return };
        let mut hold = Vec::new();
        let mut release = Vec::new();
        let cells = self.engine.cells_waiting();
        // Everybody is ahead of what is sealed by the lateness; the slowest must never be held.
        let usual = 2 * self.engine.panes_of_lateness() + 8;
        let (most, enough) = match cells {
            n if n > CELLS_WAITING_MAX => (usual, usual),
            n if n > CELLS_WAITING_MAX / 2 => (PANES_AHEAD_MAX, usual),
            _ => (PANES_AHEAD_MAX, PANES_AHEAD_MAX / 2),
        };
        for (place, id) in &self.state.ids {
            let ahead = self.engine.panes_ahead(*id);
            let is_held = self.state.held.contains(place);
            if ahead > most && !is_held && !self.engine.rests(*id) {
                hold.push(*place);
            } else if is_held && ahead < enough {
                release.push(*place);
            }
        }
        if !hold.is_empty() {
            self.state.held.extend(&hold);
            handle.hold(hold);
        }
        if !release.is_empty() {
            self.state.held.retain(|h| !release.contains(h));
            handle.release(release);
        }
    }

    /// No record from anywhere: a model's silence has no witness then, but that of all of them is ours to tell.
    fn listen(&mut self) -> Result<(), Error> {
        if self.state.last_listen.is_some_and(|t| t.elapsed() < LISTEN_EVERY) || !self.status.is_caught_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.state.last_listen = Some(Instant::now());
        if self.engine.is_blind() || lock(&self.status.trouble).is_some() {
            return Ok(());
        }
        match self.engine.everything_silent(now()) {
            Some(words) => self.enter(self.engine.boundary(), Control::Blind { words, wall: now() }, None).map(drop),
            None => Ok(()),
        }
    }

    /// Writes the windows of the configuration that are on or come next into the journal, where they are holds like any other, and
    /// ends those of which the configuration no longer speaks. A person may have ended one before its time: it stays ended.
    fn announce(&mut self) -> Result<(), Error> {
        let is_fresh = self.state.last_announced.is_some_and(|t| t.elapsed() < ANNOUNCE_EVERY);
        let may = self.status.is_assigned.load(Ordering::Relaxed) && self.state.behind.is_empty() && !self.engine.awaits_acts();
        if is_fresh || !may {
            return Ok(());
        }
        self.state.last_announced = Some(Instant::now());
        let wall = now();
        let ours = |h: &&Hold| h.kind == HoldKind::Maintenance && h.by == BY_CONFIGURATION;
        let is_of = |h: &Hold, w: &Window| h.matcher == w.matcher && h.why == w.why && h.harm == w.harm;
        let known: Vec<Hold> = self.engine.holds().filter(ours).cloned().collect();
        let mut due: Vec<Control> = Vec::new();
        for window in &self.windows {
            let all = window.within(wall, wall.plus_ms(WINDOW_COMES_MS));
            let next = all.iter().position(|(from, _)| *from > wall).map_or(all.len(), |at| at + 1);
            for (from, until) in &all[..next] {
                let same = |h: &&Hold| is_of(h, window) && (h.from, h.until) == (*from, *until);
                let is_known = known.iter().filter(same).any(|h| h.ended.as_ref().is_none_or(|(_, by)| by != BY_CONFIGURATION));
                if !is_known {
                    let (matcher, why, harm, by) = (window.matcher.clone(), window.why.clone(), window.harm, BY_CONFIGURATION.to_owned());
                    due.push(Control::Hold { kind: HoldKind::Maintenance, matcher, from: *from, until: *until, by, why, harm });
                }
            }
        }
        for hold in known.iter().filter(|h| h.ended.is_none() && h.until > wall) {
            let still = |w: &Window| is_of(hold, w) && w.within(hold.from, hold.until).contains(&(hold.from, hold.until));
            if !self.windows.iter().any(still) {
                due.push(Control::EndHold { id: hold.id.clone(), by: BY_CONFIGURATION.to_owned(), wall });
            }
        }
        for control in due {
            if let Err(why) = self.put(control, None)? {
                warn!(why = %why, "a maintenance window of the configuration");
            }
        }
        Ok(())
    }

    /// What waits for people runs in wall time: escalation, duties to report. A clock that is put forward while this runs moves
    /// nobody: the time since the start is counted by another one.
    fn look_at_the_clock(&mut self) -> Result<(), Error> {
        if self.state.last_look.is_some_and(|t| t.elapsed() < LOOK_EVERY) || !self.status.is_caught_up.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.state.last_look = Some(Instant::now());
        let (began, at) = *self.state.clock.get_or_insert_with(|| (Instant::now(), now()));
        let wall = at.plus_ms(began.elapsed().as_millis() as i64);
        if self.engine.wants_tick(wall) {
            self.enter(self.engine.boundary(), Control::Tick { wall }, None)?;
            self.settle()?;
        }
        Ok(())
    }

    /// History has been read: from here on findings page.
    fn go_live(&mut self) -> Result<(), Error> {
        if !self.status.is_assigned.load(Ordering::Relaxed) || !self.state.behind.is_empty() || self.engine.awaits_acts() {
            return Ok(());
        }
        if !self.status.is_caught_up.swap(true, Ordering::Relaxed) {
            info!("caught up with the log");
        }
        if self.engine.is_live() || self.engine.awaits_live() {
            if self.engine.is_live()
                && let Some(tell) = self.on_live.take()
            {
                tell();
            }
            return Ok(());
        }
        let at = self.engine.horizon();
        self.enter(at, self.engine.end_of_history(), None)?;
        info!(at = %at, "history is read; what is found from here on pages");
        self.settle()
    }

    // --- what people ask ---

    fn answer(&mut self, ask: Ask) -> Result<(), Error> {
        // Whoever asked may have gone; that is his affair.
        match ask {
            Ask::Engine(to) => drop(to.send(self.engine.view())),
            Ask::Models(to) => drop(to.send(self.engine.models())),
            Ask::Series { model, limit, to } => drop(to.send(self.engine.series(model.as_deref(), limit))),
            Ask::Page { id, to } => drop(to.send(self.engine.series_page(id))),
            Ask::Baselines { model, to } => drop(to.send(self.engine.baselines(model.as_deref()))),
            Ask::Teach { model, control, to } => {
                let result = self.teach(&model, *control)?;
                let _ = to.send(result);
            }
            Ask::Act { incident, command, revision, key, to } => {
                let result = self.act(&incident, command, revision, key.as_deref())?;
                let _ = to.send(result);
            }
            Ask::Answered { job, receipt, to } => {
                let (key, command) = errands::heard(&job, receipt);
                let heard = self.act(&job.incident.id, command, None, Some(&key))?;
                if let Err(CommandError::Refused(why) | CommandError::NotFound(why)) = heard {
                    warn!(errand = %job.id, why = %why, "an answer came for what nobody waits for");
                }
                let _ = to.send(());
            }
            Ask::Holds(to) => drop(to.send(self.engine.holds().cloned().collect())),
            Ask::Hold { control, id, to } => {
                let result = self.hold(control, id)?;
                let _ = to.send(result);
            }
            Ask::Reroute { models, routes, respond, windows, to } => {
                self.engine.reroute(models, routes, respond);
                self.windows = windows;
                self.state.last_announced = None;
                self.announce()?;
                let _ = to.send(());
            }
            Ask::Stop => {}
        }
        Ok(())
    }

    /// A reference, or an order to forget: written down, applied, and answered with what is normal now.
    fn teach(&mut self, model: &str, control: Control) -> Result<Result<Vec<BaselineView>, CommandError>, Error> {
        if let Err(not_yet) = self.may_act() {
            return Ok(Err(not_yet));
        }
        Ok(self.put(control, None)?.map(|_| self.engine.baselines(Some(model))))
    }

    /// Nobody acts before what was done earlier has been reached again: his act would come before it.
    fn may_act(&self) -> Result<(), CommandError> {
        match self.status.is_caught_up.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(CommandError::Unavailable("still reading what came before; try again in a moment".to_owned())),
        }
    }

    /// Writes an act into the journal, applies it, and says what the engine answers.
    fn put(&mut self, control: Control, key: Option<&str>) -> Result<Result<Option<Incident>, CommandError>, Error> {
        let (seq, is_new) = self.enter(self.engine.boundary(), control, key)?;
        if let Some(key) = key.filter(|_| is_new) {
            self.state.unanswered.insert(seq, key.to_owned());
        }
        let mut out = Outcome::default();
        self.engine.advance(&mut out);
        let result = out.answers.iter().find(|a| a.0 == seq).map(|a| a.1.clone());
        self.write(out)?;
        Ok(match result {
            Some(answer) => answer.map_err(CommandError::Refused),
            None => Err(CommandError::Unavailable(WRITTEN_DOWN.to_owned())),
        })
    }

    fn act(&mut self, id: &str, command: Command, revision: Option<u64>, key: Option<&str>) -> Result<Result<Incident, CommandError>, Error> {
        if let Some(known) = key.map(|k| self.store.answer(k, now())).transpose()?.flatten() {
            return Ok(answered_before(&known));
        }
        if let Err(not_yet) = self.may_act() {
            return Ok(Err(not_yet));
        }
        let Some(current) = self.engine.incidents().find(|i| i.id == id) else {
            return Ok(Err(match self.store.incident(id)? {
                Some(old) => CommandError::Refused(format!("incident {id} is {} and a newer one of the same kind has followed", old.state)),
                None => CommandError::NotFound(id.to_owned()),
            }));
        };
        if let Some(asked) = revision.filter(|r| *r != current.revision) {
            return Ok(Err(CommandError::Conflict { at: current.revision, asked }));
        }
        let act = Control::Act { incident: id.to_owned(), command, wall: now() };
        Ok(match self.put(act, key)? {
            Ok(Some(incident)) => Ok(incident),
            Ok(None) => Err(CommandError::NotFound(id.to_owned())),
            Err(why) => Err(why),
        })
    }

    /// Whoever repeats himself under this key hears this again.
    fn keep_answer(&self, key: &str, answer: &Result<Option<Incident>, String>) -> Result<(), Error> {
        let body = match answer {
            Ok(Some(incident)) => serde_json::to_vec(incident),
            Ok(None) => return Ok(()),
            Err(why) => serde_json::to_vec(&Refused { refused: why.clone() }),
        };
        let body = body.map_err(|e| Error::State(format!("an answer cannot be written: {e}")))?;
        Ok(self.store.set_answer(key, &body, now())?)
    }

    fn hold(&mut self, control: Control, id: Option<String>) -> Result<Result<Hold, CommandError>, Error> {
        if let Err(not_yet) = self.may_act() {
            return Ok(Err(not_yet));
        }
        let known = |engine: &Engine, id: &str| engine.holds().find(|h| h.id == id).cloned();
        if let Some(id) = &id
            && known(&self.engine, id).is_none()
        {
            return Ok(Err(CommandError::NotFound(id.clone())));
        }
        if let Err(why) = self.put(control, None)? {
            return Ok(Err(why));
        }
        let id = id.unwrap_or_else(|| self.engine.holds().next().map_or_else(String::new, |h| h.id.clone()));
        Ok(known(&self.engine, &id).ok_or(CommandError::NotFound(id)))
    }

    // --- state ---

    fn snapshot(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        self.settle()?;
        let positions: Vec<(PartitionId, i64)> =
            self.state.ids.values().filter_map(|id| self.engine.next_position(*id).map(|next| (*id, next))).collect();
        let journal_seq = self.engine.journal_seq();
        let head = SnapshotHead { positions, journal_seq, judged_through: self.engine.boundary(), version: STATE_VERSION };
        let written = match self.write_state(head.clone()) {
            Err(Error::Store(store::Error::TakenBack { .. })) => self.write_state(head),
            other => other,
        };
        if let Err(Error::Store(_)) = &written {
            self.metrics.store_error();
        }
        written?;
        self.engine.saved();
        self.store.journal_prune(journal_seq + 1)?;
        if let Some(Steering::Kafka(handle)) = &self.steering {
            let next = self.state.ids.iter().filter_map(|((t, p), id)| self.engine.next_position(*id).map(|next| (*t, *p, next)));
            handle.commit(next.collect());
        }
        self.state.last_snapshot = Some(Instant::now());
        // A snapshot must not eat the time of the work that it protects.
        let took = began.elapsed();
        if took * 10 > self.snapshot_every {
            self.state.last_snapshot = Some(Instant::now() + took * 5);
        }
        Ok(())
    }

    /// Row by row: nothing else may be asked of the store meanwhile.
    fn write_state(&mut self, head: SnapshotHead) -> Result<(), Error> {
        let mut rows = self.store.begin_snapshot()?;
        self.engine.save_to(&mut |name, body| rows.put(name, body)).map_err(Error::State)?;
        Ok(rows.finish(head)?)
    }

    fn measure(&mut self) {
        if self.state.last_metrics.is_some_and(|t| t.elapsed() < Duration::from_secs(1)) {
            return;
        }
        self.state.last_metrics = Some(Instant::now());
        let view = self.engine.view();
        self.metrics.series(&view.series);
        self.metrics.bounds(&view.bounds);
        self.metrics.budget_spent(view.budget_spent / view.budget.max(1e-9));
        let source = self.state.topics.first().cloned().unwrap_or_default();
        self.metrics.duplicate(&source, view.duplicates.saturating_sub(std::mem::replace(&mut self.state.counted.duplicates, view.duplicates)));
        self.metrics.late(&source, view.late.saturating_sub(std::mem::replace(&mut self.state.counted.late, view.late)));
        if let Some(t) = view.judged_through.filter(|t| *t > Time(0)) {
            self.metrics.watermark(&source, t);
        }
        let incidents: Vec<Incident> = self.engine.incidents().cloned().collect();
        self.metrics.incidents(&incidents);
        if let Ok(stats) = self.store.outbox_stats() {
            for s in stats {
                self.metrics.outbox(&s.receiver, s.pending as u64, s.oldest);
            }
        }
        if let Some(Steering::Kafka(handle)) = &self.steering {
            let mut rows = Vec::new();
            for (topic, partition, records) in handle.lag() {
                let name = self.topic(topic).to_owned();
                let id = self.state.ids.get(&(topic, partition)).copied();
                let behind =
                    if records > 0 { id.and_then(|i| self.engine.watermark(i)).map(|w| now().since_ms(w).max(0) as f64 / 1e3) } else { None };
                let seconds = behind.unwrap_or(0.0);
                self.metrics.lag(&name, partition, records, seconds);
                rows.push(LagRow { topic: name, partition, records: records.max(0) as u64, seconds });
            }
            *lock(&self.status.lag) = rows;
        }
        if !self.status.is_caught_up.load(Ordering::Relaxed) && self.state.last_progress.is_none_or(|t| t.elapsed() >= PROGRESS_EVERY) {
            self.state.last_progress = Some(Instant::now());
            if let Some(t) = view.judged_through {
                info!(events = view.events, judged_through = %t, partitions_behind = self.state.behind.len(), "reading history");
            }
        }
    }
}

/// A refusal as it is kept under the key of whoever asked.
#[derive(Serialize, Deserialize)]
struct Refused {
    refused: String,
}

fn answered_before(body: &[u8]) -> Result<Incident, CommandError> {
    if let Ok(Refused { refused }) = serde_json::from_slice(body) {
        return Err(CommandError::Refused(refused));
    }
    serde_json::from_slice(body).map_err(|e| CommandError::Unavailable(format!("the answer cannot be read: {e}")))
}

/// Reads where the very first start began.
///
/// # Errors
/// The store cannot be read, or holds something else.
pub fn origin(store: &Store) -> Result<Option<Origin>, Error> {
    let Some(text) = store.get_meta(META_ORIGIN)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| Error::State(format!("the stored origin cannot be read: {e}")))
}

/// What a start finds: the engine, the positions it has been read to, and [`Turning::unanswered`].
pub type Opened = (Engine, BTreeMap<PartitionId, i64>, BTreeMap<u64, String>);

/// The engine as it stood, or a new one; with the journal behind it.
///
/// # Errors
/// The store cannot be read, or holds a state of another version.
pub fn open_engine(store: &Store, settings: crate::engine::Settings) -> Result<Opened, Error> {
    let snapshot = store.load_snapshot()?;
    let (mut engine, positions, mut seq) = match snapshot {
        Some(s) if s.version == STATE_VERSION => {
            let engine = Engine::restore(settings, &s.rows).map_err(Error::State)?;
            (engine, s.positions.into_iter().collect(), s.journal_seq)
        }
        Some(s) => {
            return Err(Error::State(format!(
                "the stored state is of version {}, this build reads {STATE_VERSION}; move the data folder away to learn anew from the log",
                s.version
            )));
        }
        None => (Engine::new(settings), BTreeMap::new(), 0),
    };
    let mut unanswered = BTreeMap::new();
    loop {
        let rows = store.journal_after(seq)?;
        let Some(last) = rows.last() else { break };
        seq = last.seq;
        for row in rows {
            let control: Control =
                serde_json::from_slice(&row.body).map_err(|e| Error::State(format!("journal row {} cannot be read: {e}", row.seq)))?;
            engine.enter(Entry { seq: row.seq, at: row.at, control });
            if let Some(key) = row.key
                && store.answer(&key, now())?.is_none()
            {
                unanswered.insert(row.seq, key);
            }
        }
    }
    Ok((engine, positions, unanswered))
}

/// What the configuration says is normal: each reference is written to the journal once, when it is new. A file that cannot be
/// read keeps nobody from watching: it is told, and the model learns from its traffic.
///
/// # Errors
/// The store cannot be written.
pub fn teach(store: &Store, engine: &mut Engine, references: &[(String, std::path::PathBuf)], pane_ms: i64) -> Result<(), Error> {
    for (model, path) in references {
        let asked = reference::Asked { roles: BTreeMap::new(), by: "the configuration".to_owned(), now: now(), pane_ms };
        let packed = reference::read(path, &asked).and_then(|found| Ok((found.import.pack()?, found.import.provenance)));
        let (packed, provenance) = match packed {
            Ok(packed) => packed,
            Err(why) => {
                error!(model = %model, why = %why, "the reference was not learned");
                continue;
            }
        };
        let fact = format!("reference/{model}");
        if store.get_meta(&fact)?.as_deref() == Some(provenance.sha256.as_str()) {
            continue;
        }
        let control = Control::Baseline { model: model.clone(), environment: None, packed };
        let body = serde_json::to_vec(&control).map_err(|e| Error::State(format!("a journal entry cannot be written: {e}")))?;
        let at = engine.boundary();
        // A kill between the two writes does not teach it twice.
        let appended = store.journal_append(at, &body, Some(&format!("{fact}/{}", provenance.sha256)), now())?;
        if appended.is_new {
            engine.enter(Entry { seq: appended.seq, at, control });
        }
        store.set_meta(&fact, &provenance.sha256)?;
        info!(model = %model, reference = %provenance.words(), "a reference was learned");
    }
    Ok(())
}

pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What is behind these locks is whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
