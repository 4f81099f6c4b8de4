//! Records from Kafka, read so that nothing is skipped in silence.
//!
//! The picture: one reader sits at the tap (an OS thread that polls the library and never waits long for anybody), one scout
//! walks to the broker every second and asks how far the log goes by now. The reader alone touches positions; the scout alone
//! waits for the network. So a broker that hangs costs the scout its patience and the reader nothing.
//!
//! The rules, and why:
//! - **Where reading begins is ours to say.** On assignment our durable state is asked first, then the log by time. The
//!   offsets that the group keeps are written for people and lag tools, never read: a state directory that was lost must lead
//!   to reading again, not to a hole.
//! - **A hole is said.** `auto.offset.reset=error`; whoever finds his place gone gets a [`Message::Gap`] and the earliest
//!   place that is left. The library does not tell which partition it was, so all places are compared with the log.
//! - **A full channel does not cost the membership.** For half a second the reader waits; then it pauses all partitions and
//!   goes on polling. Not at once, because a pause throws the prefetched records away.
//! - **The rebalance callback only writes down what happened.** Looking up the places needs the network and is done outside;
//!   until then the library waits.
//!
//! Not taken: the library's batch call. It returns nothing on a subscribed consumer unless queues are forwarded by hand, which
//! needs unsafe code.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::{Batch, Error, Message, Outbox, Place, Record, Sent};
use crate::domain::Time;

/// Records in a batch; more gains nothing (43 ns a record for the hand-over at 1,000).
const BATCH_RECORDS_MAX: usize = 1_000;
/// Bytes after which a batch goes out, so that the channel's memory is bounded by its length.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Empty batches kept for the next reads, a megabyte each: as many as may wait for the keeper, and a few.
const SPARE_BATCHES_MAX: usize = 20;
/// How long the first record of a batch waits for company.
const BATCH_WAIT: Duration = Duration::from_millis(5);
/// How long a poll waits for a first record; wishes of the handle wait as long at most.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// A full channel is waited for so long before everything is paused.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the scout asks for the high watermarks.
const SCOUT_EVERY: Duration = Duration::from_millis(1_000);
/// How long the scout waits for an answer before it says that the broker is away.
const SCOUT_WAIT: Duration = Duration::from_millis(3_000);
/// How often the scout looks whether all topics exist.
const TOPICS_EVERY: Duration = Duration::from_secs(10);
/// How long the reader waits for an answer about places; nothing can be read meanwhile.
const PLACES_WAIT: Duration = Duration::from_millis(2_000);
/// Between two attempts to find the places.
const PLACES_AGAIN: Duration = Duration::from_millis(500);
/// How often quiet and trouble are looked at.
const TICK_EVERY: Duration = Duration::from_millis(100);
/// All brokers are away: said after so long without an answer, for brokers also close connections that are merely idle.
const DOWN_FOR: Duration = Duration::from_secs(2);
/// An older error of the library's is not the reason for today's trouble.
const REASON_FOR: Duration = Duration::from_secs(30);
/// What stopping may take; leaving the group needs a broker that answers.
const STOP_SECONDS_MAX: u64 = 8;

/// Properties that are ours, and why.
const OURS: &[(&str, &str)] = &[
    ("auto.offset.reset", "a hole in the log is said, never jumped over"),
    ("bootstrap.servers", "it is the setting `brokers`"),
    ("metadata.broker.list", "it is the setting `brokers`"),
    ("check.crcs", "damaged records must be noticed"),
    ("client.id", "each instance needs its own"),
    ("auto.commit.enable", "positions are confirmed only behind durable state"),
    ("enable.auto.commit", "positions are confirmed only behind durable state"),
    ("auto.commit.interval.ms", "positions are confirmed only behind durable state"),
    ("enable.auto.offset.store", "positions are confirmed only behind durable state"),
    ("enable.partition.eof", "the end of a partition is found by asking for it"),
    ("group.id", "it is the setting `group`"),
    ("group.instance.id", "static membership keeps partitions with an instance that is gone"),
    ("group.protocol", "partitions are assigned by range"),
    ("group.remote.assignor", "partitions are assigned by range"),
    ("partition.assignment.strategy", "partitions are assigned by range"),
    ("plugin.library.paths", "no foreign code is loaded"),
    ("test.mock.num.brokers", "it replaces the brokers"),
];

/// What to read and how.
#[derive(Clone, Debug, Default)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    pub topics: Vec<String>,
    pub group: String,
    /// Unique for each instance; empty makes one from the process id and the time.
    pub client_id: String,
    /// Passed through to librdkafka, after everything else.
    pub properties: BTreeMap<String, String>,
    /// Where our state knows no offset, reading begins this long ago. As long as the epoch or longer means the beginning.
    pub from_ms: i64,
    /// A partition without records for so long, read to its end, is idle.
    pub idle_ms: u64,
    /// Bound of the records that the library fetches ahead; 0 = the library's default (64 MiB).
    pub memory_bytes: u64,
    /// Whether records carry their headers: reading four costs 340 to 760 ns a record.
    pub headers: bool,
}

/// Reads Kafka on a thread of its own.
pub struct KafkaSource;

/// The running source. Dropped, it stops without being waited for.
pub struct Handle {
    shared: Arc<Shared>,
    done: Receiver<()>,
}

/// What reader, scout and handle know together.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    wishes: Mutex<Wishes>,
    view: Mutex<View>,
    /// (topic, partition, records behind), from the last look of the scout.
    lag: Mutex<Vec<(u16, i32, i64)>>,
    /// Batches that were read and given back, empty, the last one on top: fresh memory for each would cost more than filling it.
    spare: Mutex<Vec<Batch>>,
}

impl Shared {
    /// Empties a batch and keeps it for the next read.
    fn keep(&self, mut batch: Batch) {
        batch.bytes.clear();
        batch.records.clear();
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE_BATCHES_MAX && (1..=2 * BATCH_BYTES_MAX).contains(&batch.bytes.capacity()) {
            spare.push(batch);
        }
    }
}

#[derive(Default)]
struct Wishes {
    /// The newest offset to confirm by partition: bounded, and an older wish is no loss.
    commits: BTreeMap<(u16, i32), i64>,
    held: BTreeSet<(u16, i32)>,
    held_changed: bool,
}

/// What the scout saw.
#[derive(Default)]
struct View {
    /// Whom to ask about; written by the reader.
    assigned: Vec<(u16, i32)>,
    /// When the question behind `high` was put.
    asked: Option<Instant>,
    high: HashMap<(u16, i32), i64>,
    /// Why the broker could not be asked.
    failing: Option<String>,
    /// The topics that do not exist.
    missing: Option<String>,
    /// Partitions of each topic when it was first looked at: those above are new, and read from their beginning.
    partitions_at_start: BTreeMap<u16, i32>,
    /// A missing topic has appeared: subscribe again rather than wait for the library to look.
    appeared: bool,
}

/// What the library told us while it was polled.
#[derive(Default)]
struct Witness {
    /// While the client closes, an assignment is answered by giving it back.
    closing: AtomicBool,
    changed: AtomicBool,
    changes: Mutex<Vec<Change>>,
    /// The last error in the library's words, and when.
    words: Mutex<Option<(Instant, String)>>,
    /// When all brokers were last said to be away.
    all_down: Mutex<Option<Instant>>,
}

enum Change {
    Assigned(Vec<(String, i32)>),
    Revoked,
}

/// One partition that we read.
struct Part {
    topic: u16,
    partition: i32,
    /// Offset of the next record to hand over.
    next: i64,
    read_at: Instant,
    /// Touched by the batch in the making.
    touched: bool,
    idle_said: bool,
}

type Resume = Box<dyn Fn(&str, i32) -> Option<i64> + Send>;

/// The thread that polls.
struct Reader {
    settings: KafkaSettings,
    consumer: Arc<BaseConsumer<Witness>>,
    resume: Resume,
    outbox: Outbox,
    shared: Arc<Shared>,
    parts: Vec<Part>,
    /// Where in `parts` the last record belonged: records come in runs.
    last_part: usize,
    /// Assigned by the group, places not found yet.
    pending: Option<Vec<(String, i32)>>,
    /// A place is out of range.
    mend: bool,
    /// Not before then is the broker asked about places again.
    places_at: Instant,
    held: BTreeSet<(u16, i32)>,
    paused: BTreeSet<(u16, i32)>,
    /// Since when the channel is full.
    full_since: Option<Instant>,
    tick_at: Instant,
    /// The scout's look that was last worked on.
    seen: Option<Instant>,
    trouble_said: bool,
    bytes_hint: usize,
}

// === impl KafkaSource ===

impl KafkaSource {
    /// Begins to read. `resume` is asked on every assignment, on the source's thread, for the next offset of our durable
    /// state; what it says wins over what the group confirmed.
    ///
    /// A broker that is absent is no error here: the source says [`Message::Trouble`] and goes on by itself when it is back.
    ///
    /// # Errors
    /// A property that is ours to set, one that the library does not know, no topics, no thread.
    pub fn start(settings: KafkaSettings, resume: Resume, out: SyncSender<Message>) -> Result<Handle, Error> {
        if settings.topics.is_empty() {
            return Err(Error::Nothing("topic"));
        }
        let config = client_config(&settings)?;
        let consumer: Arc<BaseConsumer<Witness>> = Arc::new(config.create_with_context(Witness::default()).map_err(Error::Client)?);
        subscribe(&consumer, &settings.topics).map_err(Error::Client)?;
        let shared = Arc::new(Shared::default());
        let scout = {
            let (consumer, shared, topics) = (consumer.clone(), shared.clone(), settings.topics.clone());
            let run = move || scout(&consumer, &shared, &topics);
            std::thread::Builder::new().name("kafka-scout".into()).spawn(run).map_err(Error::Thread)?
        };
        let (done_tx, done) = sync_channel(1);
        let now = Instant::now();
        let reader = Reader {
            settings,
            consumer,
            resume,
            outbox: Outbox::new(out),
            shared: shared.clone(),
            parts: Vec::new(),
            last_part: 0,
            pending: None,
            mend: false,
            places_at: now,
            held: BTreeSet::new(),
            paused: BTreeSet::new(),
            full_since: None,
            tick_at: now,
            seen: None,
            trouble_said: false,
            bytes_hint: 0,
        };
        let run = move || {
            let consumer = reader.run();
            // The last owner closes the client; it must be this thread, so that `done` means closed.
            let _ = scout.join();
            drop(consumer);
            let _ = done_tx.send(());
        };
        if let Err(why) = std::thread::Builder::new().name("kafka-reader".into()).spawn(run) {
            shared.stop.store(true, Ordering::Release);
            return Err(Error::Thread(why));
        }
        Ok(Handle { shared, done })
    }
}

// === impl Handle ===

impl Handle {
    /// Confirms that everything below these offsets is durable. Does not wait; an offset of a partition that was given away
    /// meanwhile is dropped.
    pub fn commit(&self, next: Vec<(u16, i32, i64)>) {
        let mut wishes = lock(&self.shared.wishes);
        wishes.commits.extend(next.into_iter().map(|(topic, partition, offset)| ((topic, partition), offset)));
    }

    /// Takes back a batch that was read, for its memory.
    pub fn give_back(&self, batch: Batch) {
        self.shared.keep(batch);
    }

    /// Stops reading these partitions, for they are too far ahead of the others, until they are released or revoked.
    pub fn hold(&self, partitions: Vec<(u16, i32)>) {
        let mut wishes = lock(&self.shared.wishes);
        wishes.held.extend(partitions);
        wishes.held_changed = true;
    }

    pub fn release(&self, partitions: Vec<(u16, i32)>) {
        let mut wishes = lock(&self.shared.wishes);
        for partition in partitions {
            wishes.held.remove(&partition);
        }
        wishes.held_changed = true;
    }

    /// Records between our place and the fresh high watermark, as of the last second.
    pub fn lag(&self) -> Vec<(u16, i32, i64)> {
        lock(&self.shared.lag).clone()
    }

    /// How far each partition went when the scout last asked, and when it asked.
    pub fn looked(&self) -> Option<(Instant, HashMap<(u16, i32), i64>)> {
        let view = lock(&self.shared.view);
        view.asked.map(|asked| (asked, view.high.clone()))
    }

    /// Sends what was confirmed, leaves the group and closes the client.
    ///
    /// # Errors
    /// The library did not let go in time. Its thread is abandoned; ending the process is safe, for nothing depends on it.
    pub fn stop(self) -> Result<(), Error> {
        self.shared.stop.store(true, Ordering::Release);
        self.done.recv_timeout(Duration::from_secs(STOP_SECONDS_MAX)).map_err(|_| Error::Abandoned(STOP_SECONDS_MAX))
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
    }
}

// === impl Witness ===

impl ClientContext for Witness {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            // It counts brokers; the reason came before it.
            *lock(&self.all_down) = Some(Instant::now());
        } else {
            *lock(&self.words) = Some((Instant::now(), reason.to_owned()));
        }
    }
}

impl ConsumerContext for Witness {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let change = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && !self.closing.load(Ordering::Acquire) {
            Change::Assigned(partitions.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect())
        } else {
            // An error here means that the client is closing or was never assigned; there is nothing to give back.
            let _ = consumer.unassign();
            Change::Revoked
        };
        lock(&self.changes).push(change);
        self.changed.store(true, Ordering::Release);
    }
}

// === impl Reader ===

impl Reader {
    fn run(mut self) -> Arc<BaseConsumer<Witness>> {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.serve_wishes();
            self.take_changes();
            self.find_places();
            self.tick();
            match self.outbox.send() {
                Sent::Gone => break,
                Sent::Waits => self.wait_for_room(),
                Sent::All => {
                    if self.full_since.take().is_some() {
                        self.apply_pauses();
                    }
                    self.read();
                }
            }
        }
        self.serve_wishes();
        self.consumer.context().closing.store(true, Ordering::Release);
        self.shared.stop.store(true, Ordering::Release);
        self.consumer
    }

    /// Reads one batch: up to 1,000 records, or what comes within 5 ms of the first.
    fn read(&mut self) {
        let consumer = self.consumer.clone();
        let spare = lock(&self.shared.spare).pop();
        let mut batch = spare.unwrap_or_else(|| Batch { bytes: Vec::with_capacity(self.bytes_hint), records: Vec::new() });
        let mut wait = POLL_WAIT;
        let mut until: Option<Instant> = None;
        loop {
            let read = match consumer.poll(wait) {
                Some(Ok(message)) => {
                    if batch.records.is_empty() {
                        batch.records.reserve(BATCH_RECORDS_MAX);
                    }
                    self.take(&message, &mut batch);
                    true
                }
                Some(Err(error)) => {
                    self.note(&error);
                    false
                }
                None => false,
            };
            let full = batch.records.len() >= BATCH_RECORDS_MAX || batch.bytes.len() >= BATCH_BYTES_MAX;
            if full || batch.records.is_empty() || consumer.context().changed.load(Ordering::Acquire) {
                break;
            }
            // While records flow, the clock is looked at for every 16th only.
            if !read || until.is_none() || batch.records.len().is_multiple_of(16) {
                let now = Instant::now();
                wait = until.get_or_insert(now + BATCH_WAIT).saturating_duration_since(now);
                if wait.is_zero() {
                    break;
                }
            }
        }
        self.hand_over(batch);
    }

    fn hand_over(&mut self, batch: Batch) {
        if batch.is_empty() {
            return self.shared.keep(batch);
        }
        let now = Instant::now();
        for part in self.parts.iter_mut().filter(|part| part.touched) {
            part.touched = false;
            part.idle_said = false;
            part.read_at = now;
        }
        // Half again as much, so that the arena seldom grows while it is filled.
        self.bytes_hint = (batch.bytes.len() + batch.bytes.len() / 2).min(2 * BATCH_BYTES_MAX);
        self.outbox.push(Message::Batch(batch));
    }

    /// Copies a record into the batch, unless it is not (or no longer) ours to hand over.
    fn take(&mut self, message: &BorrowedMessage<'_>, batch: &mut Batch) {
        let (topics, topic, partition) = (&self.settings.topics, message.topic(), message.partition());
        let is = |part: &Part| part.partition == partition && topics.get(usize::from(part.topic)).is_some_and(|t| t == topic);
        let at = match self.parts.get(self.last_part) {
            Some(part) if is(part) => Some(self.last_part),
            _ => self.parts.iter().position(is),
        };
        let Some(at) = at else { return };
        self.last_part = at;
        let part = &mut self.parts[at];
        let offset = message.offset();
        // After a re-assignment the library may still hold what we have had.
        if offset < part.next {
            return;
        }
        part.next = offset + 1;
        part.touched = true;
        let record = Record {
            topic: part.topic,
            partition,
            offset,
            time: message.timestamp().to_millis().filter(|ms| *ms >= 0).map(Time),
            key: message.key().map(|key| batch.push(key)),
            value: message.payload().map(|value| batch.push(value)),
            headers: match self.settings.headers {
                true => message.headers().map(|headers| batch.push_headers(headers.iter().map(|h| (h.key, h.value)))),
                false => None,
            },
            oversize: 0,
        };
        batch.records.push(record);
    }

    fn note(&mut self, error: &KafkaError) {
        if let Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) = error.rdkafka_error_code() {
            self.mend = true;
        }
    }

    /// The channel is full: first wait, then pause everything and serve the library.
    fn wait_for_room(&mut self) {
        let since = *self.full_since.get_or_insert_with(Instant::now);
        if since.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(1));
            return;
        }
        self.apply_pauses();
        let consumer = self.consumer.clone();
        let mut batch = Batch::default();
        // What was already on its way is taken, never dropped; the pause keeps it little.
        while batch.records.len() < BATCH_RECORDS_MAX {
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => self.take(&message, &mut batch),
                Some(Err(error)) => self.note(&error),
                None => break,
            }
        }
        self.hand_over(batch);
        std::thread::sleep(Duration::from_millis(5));
    }

    fn serve_wishes(&mut self) {
        let (commits, held) = {
            let mut wishes = lock(&self.shared.wishes);
            let held = std::mem::take(&mut wishes.held_changed).then(|| wishes.held.clone());
            (std::mem::take(&mut wishes.commits), held)
        };
        if !commits.is_empty() {
            let ours = self.parts.iter().filter_map(|p| commits.get(&(p.topic, p.partition)).map(|offset| (p.topic, p.partition, *offset)));
            let list = self.list(ours);
            // A commit that fails is no loss: the next one covers it, and our own state decides where reading begins.
            if list.count() > 0 {
                let _ = self.consumer.commit(&list, CommitMode::Async);
            }
        }
        if let Some(held) = held {
            self.held = held;
            self.apply_pauses();
        }
    }

    /// Brings what is paused in line with what should be.
    fn apply_pauses(&mut self) {
        let all = self.full_since.is_some_and(|since| since.elapsed() >= PATIENCE);
        let keys = self.parts.iter().map(|p| (p.topic, p.partition));
        let wanted: BTreeSet<_> = keys.filter(|key| all || self.held.contains(key)).collect();
        let pause = self.list(wanted.difference(&self.paused).map(|(topic, partition)| (*topic, *partition, 0)));
        let resume = self.list(self.paused.difference(&wanted).map(|(topic, partition)| (*topic, *partition, 0)));
        // Both fail only for partitions that are no longer ours.
        if pause.count() > 0 {
            let _ = self.consumer.pause(&pause);
        }
        if resume.count() > 0 {
            let _ = self.consumer.resume(&resume);
        }
        self.paused = wanted;
    }

    /// What the group decided while we polled.
    fn take_changes(&mut self) {
        if !self.consumer.context().changed.swap(false, Ordering::AcqRel) {
            return;
        }
        let changes = std::mem::take(&mut *lock(&self.consumer.context().changes));
        for change in changes {
            match change {
                Change::Assigned(list) => {
                    self.pending = Some(list);
                    self.places_at = Instant::now();
                }
                Change::Revoked => {
                    self.pending = None;
                    self.mend = false;
                    let gone: Vec<_> = self.parts.drain(..).map(|p| (p.topic, p.partition)).collect();
                    self.paused.clear();
                    self.held.clear();
                    lock(&self.shared.wishes).held.clear();
                    lock(&self.shared.lag).clear();
                    lock(&self.shared.view).assigned.clear();
                    if !gone.is_empty() {
                        self.outbox.push(Message::Revoked(gone));
                    }
                }
            }
        }
    }

    /// Finds where to begin after an assignment, and where to go on after a hole. Tried again until the broker answers.
    fn find_places(&mut self) {
        if (self.pending.is_none() && !self.mend) || Instant::now() < self.places_at {
            return;
        }
        let found = if self.pending.is_some() { self.begin() } else { self.go_on() };
        match found {
            Ok(()) => {
                self.pending = None;
                self.mend = false;
            }
            Err(words) => {
                *lock(&self.consumer.context().words) = Some((Instant::now(), words));
                self.places_at = Instant::now() + PLACES_AGAIN;
            }
        }
    }

    fn begin(&mut self) -> Result<(), String> {
        let mut keys = Vec::new();
        for (name, partition) in self.pending.iter().flatten() {
            let topic = self.settings.topics.iter().position(|t| t == name).ok_or_else(|| format!("assigned unasked: {name}"))?;
            keys.push((topic as u16, *partition));
        }
        let low = self.ask(&keys, Offset::Beginning)?;
        let high = self.ask(&keys, Offset::End)?;
        self.count_partitions(&keys)?;
        let at_start = lock(&self.shared.view).partitions_at_start.clone();
        let since = wall_clock().plus_ms(-self.settings.from_ms.max(0));
        let mut by_time = Vec::new();
        let mut places = Vec::new();
        let mut gaps = Vec::new();
        for (topic, partition) in keys {
            let key = (topic, partition);
            let (low, high) = (*low.get(&key).unwrap_or(&0), *high.get(&key).unwrap_or(&0));
            let next = match (self.resume)(&self.settings.topics[usize::from(topic)], partition) {
                Some(next) => {
                    let (next, gap) = place_or_gap(key, next, low, high);
                    gaps.extend(gap);
                    next
                }
                None if since.0 <= 0 || partition >= at_start.get(&topic).copied().unwrap_or(i32::MAX) => low,
                None => {
                    by_time.push(key);
                    high
                }
            };
            places.push(Place { topic, partition, next, high });
        }
        if !by_time.is_empty() {
            let found = self.ask(&by_time, Offset::Offset(since.0))?;
            for place in &mut places {
                if let Some(next) = found.get(&(place.topic, place.partition)) {
                    place.next = *next;
                }
            }
        }
        let now = Instant::now();
        let part = |p: &Place| Part { topic: p.topic, partition: p.partition, next: p.next, read_at: now, touched: false, idle_said: false };
        self.parts = places.iter().map(part).collect();
        self.assign()?;
        self.outbox.push(Message::Assigned(places));
        gaps.into_iter().for_each(|gap| self.outbox.push(gap));
        Ok(())
    }

    /// After the library lost a place: which one it does not say, so all are compared with the log, and all are assigned anew
    /// (a seek is refused in this state).
    fn go_on(&mut self) -> Result<(), String> {
        let keys: Vec<_> = self.parts.iter().map(|p| (p.topic, p.partition)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let low = self.ask(&keys, Offset::Beginning)?;
        let high = self.ask(&keys, Offset::End)?;
        // Control records that were passed and then deleted are no loss.
        let passed = positions(&self.consumer, &self.settings.topics);
        for part in &mut self.parts {
            let key = (part.topic, part.partition);
            part.next = part.next.max(passed.get(&key).copied().unwrap_or(0));
            let (Some(low), Some(high)) = (low.get(&key), high.get(&key)) else { continue };
            let (next, gap) = place_or_gap(key, part.next, *low, *high);
            part.next = next;
            if let Some(gap) = gap {
                self.outbox.push(gap);
            }
        }
        self.assign()
    }

    /// Tells the library to read all our partitions from our places.
    fn assign(&mut self) -> Result<(), String> {
        let list = self.list(self.parts.iter().map(|p| (p.topic, p.partition, p.next)));
        self.consumer.assign(&list).map_err(|why| why.to_string())?;
        self.last_part = 0;
        self.paused.clear();
        self.apply_pauses();
        lock(&self.shared.view).assigned = self.parts.iter().map(|p| (p.topic, p.partition)).collect();
        Ok(())
    }

    /// Offsets of the beginning, of the end or of a time; where nothing is as young as that, the end.
    fn ask(&self, keys: &[(u16, i32)], what: Offset) -> Result<HashMap<(u16, i32), i64>, String> {
        let mut found = ask(&self.consumer, &self.settings.topics, keys, what, PLACES_WAIT)?;
        let rest: Vec<_> = keys.iter().copied().filter(|key| !found.contains_key(key)).collect();
        if !rest.is_empty() {
            if what == Offset::End {
                return Err("the broker did not say where the log ends".into());
            }
            found.extend(ask(&self.consumer, &self.settings.topics, &rest, Offset::End, PLACES_WAIT)?);
        }
        Ok(found)
    }

    /// Notes how many partitions each topic has, where the scout has not done so.
    fn count_partitions(&self, keys: &[(u16, i32)]) -> Result<(), String> {
        let topics: BTreeSet<u16> = keys.iter().map(|(topic, _)| *topic).collect();
        for topic in topics {
            if lock(&self.shared.view).partitions_at_start.contains_key(&topic) {
                continue;
            }
            let count = partitions(&self.consumer, &self.settings.topics[usize::from(topic)], PLACES_WAIT)?;
            lock(&self.shared.view).partitions_at_start.entry(topic).or_insert(count);
        }
        Ok(())
    }

    /// Quiet, lag and trouble, from what the scout saw. Waits while the channel is full, so that little piles up.
    fn tick(&mut self) {
        let now = Instant::now();
        if now < self.tick_at || !self.outbox.is_empty() {
            return;
        }
        self.tick_at = now + TICK_EVERY;
        let (asked, high, mut trouble, appeared) = {
            let mut view = lock(&self.shared.view);
            let fresh = view.asked != self.seen;
            let trouble = view.failing.clone().or_else(|| view.missing.clone());
            (view.asked, fresh.then(|| view.high.clone()), trouble, std::mem::take(&mut view.appeared))
        };
        if appeared {
            // Refused only for names that the library refused before.
            let _ = subscribe(&self.consumer, &self.settings.topics);
        }
        let witness = self.consumer.context();
        let down = lock(&witness.all_down).is_some_and(|at| at.elapsed() > DOWN_FOR && asked.is_none_or(|asked| asked < at));
        if down && trouble.is_none() {
            trouble = Some("no broker can be reached".into());
        }
        match trouble {
            Some(mut words) if !self.trouble_said => {
                if let Some((_, why)) = lock(&witness.words).as_ref().filter(|(at, _)| at.elapsed() < REASON_FOR) {
                    words = format!("{words}: {why}");
                }
                self.trouble_said = true;
                self.outbox.push(Message::Trouble { words, since: wall_clock() });
            }
            None if self.trouble_said && asked.is_some() => {
                self.trouble_said = false;
                *lock(&witness.words) = None;
                self.outbox.push(Message::Well);
            }
            Some(_) | None => {}
        }
        if let (Some(asked), Some(high)) = (asked, high) {
            self.seen = Some(asked);
            self.measure(asked, &high);
        }
    }

    /// Compares our places with the watermarks that were asked for at `asked`.
    fn measure(&mut self, asked: Instant, high: &HashMap<(u16, i32), i64>) {
        // The library's place also passes control records and aborted transactions, of which we see nothing.
        let passed = positions(&self.consumer, &self.settings.topics);
        let idle = Duration::from_millis(self.settings.idle_ms);
        let mut lag = Vec::new();
        for part in &mut self.parts {
            let key = (part.topic, part.partition);
            let Some(high) = high.get(&key) else { continue };
            let position = part.next.max(passed.get(&key).copied().unwrap_or(0));
            lag.push((part.topic, part.partition, (high - position).max(0)));
            if !part.idle_said && position >= *high && asked >= part.read_at + idle {
                part.idle_said = true;
                part.next = position;
                self.outbox.push(Message::Idle { topic: part.topic, partition: part.partition, position });
            }
        }
        *lock(&self.shared.lag) = lag;
    }

    fn list(&self, partitions: impl Iterator<Item = (u16, i32, i64)>) -> TopicPartitionList {
        list(&self.settings.topics, partitions.map(|(topic, partition, offset)| (topic, partition, Offset::Offset(offset))))
    }
}

// === helpers ===

/// Goes to the broker every second: how far does the log go, do the topics exist.
fn scout(consumer: &BaseConsumer<Witness>, shared: &Shared, topics: &[String]) {
    let mut topics_at = Instant::now();
    let mut was_missing = false;
    while !shared.stop.load(Ordering::Acquire) {
        let began = Instant::now();
        let assigned = lock(&shared.view).assigned.clone();
        let mut seen = Ok(HashMap::new());
        if !assigned.is_empty() {
            seen = ask(consumer, topics, &assigned, Offset::End, SCOUT_WAIT);
        }
        if began >= topics_at || assigned.is_empty() {
            topics_at = began + TOPICS_EVERY;
            match look_at_topics(consumer, shared, topics) {
                Ok(missing) => {
                    let mut view = lock(&shared.view);
                    view.appeared |= was_missing && missing.is_none();
                    was_missing = missing.is_some();
                    view.missing = missing;
                }
                Err(why) => seen = seen.and(Err(why)),
            }
        }
        {
            let mut view = lock(&shared.view);
            match seen {
                Ok(high) => {
                    view.failing = None;
                    view.asked = Some(began);
                    view.high = high;
                }
                Err(why) => view.failing = Some(why),
            }
        }
        while !shared.stop.load(Ordering::Acquire) && began.elapsed() < SCOUT_EVERY {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Notes how many partitions the topics have; says which are missing.
fn look_at_topics(consumer: &BaseConsumer<Witness>, shared: &Shared, topics: &[String]) -> Result<Option<String>, String> {
    let mut missing = Vec::new();
    for (index, topic) in topics.iter().enumerate() {
        if shared.stop.load(Ordering::Acquire) {
            break;
        }
        let count = partitions(consumer, topic, SCOUT_WAIT)?;
        lock(&shared.view).partitions_at_start.entry(index as u16).or_insert(count);
        if count == 0 {
            missing.push(topic.as_str());
        }
    }
    Ok((!missing.is_empty()).then(|| format!("topic {} does not exist or may not be read", missing.join(", "))))
}

/// Partitions of a topic; 0 where there is none.
fn partitions(consumer: &BaseConsumer<Witness>, topic: &str, wait: Duration) -> Result<i32, String> {
    let metadata = consumer.fetch_metadata(Some(topic), wait).map_err(|why| why.to_string())?;
    let count = metadata.topics().iter().filter(|t| t.name() == topic).map(|t| t.partitions().len()).sum::<usize>();
    Ok(count as i32)
}

/// One question to the leaders of all these partitions. Those for which there is no answer (no record as young as that) are absent.
fn ask(
    consumer: &BaseConsumer<Witness>,
    topics: &[String],
    keys: &[(u16, i32)],
    what: Offset,
    wait: Duration,
) -> Result<HashMap<(u16, i32), i64>, String> {
    let question = list(topics, keys.iter().map(|(topic, partition)| (*topic, *partition, what)));
    let answer = consumer.offsets_for_times(question, wait).map_err(|why| why.to_string())?;
    let mut out = HashMap::new();
    for element in answer.elements() {
        element.error().map_err(|why| format!("{} {}: {why}", element.topic(), element.partition()))?;
        let topic = topics.iter().position(|t| t == element.topic());
        if let (Some(topic), Offset::Offset(offset)) = (topic, element.offset()) {
            out.insert((topic as u16, element.partition()), offset);
        }
    }
    Ok(out)
}

/// The library's own places.
fn positions(consumer: &BaseConsumer<Witness>, topics: &[String]) -> HashMap<(u16, i32), i64> {
    let Ok(list) = consumer.position() else { return HashMap::new() };
    let mut out = HashMap::new();
    for element in list.elements() {
        if let (Some(topic), Offset::Offset(offset)) = (topics.iter().position(|t| t == element.topic()), element.offset()) {
            out.insert((topic as u16, element.partition()), offset);
        }
    }
    out
}

fn list(topics: &[String], partitions: impl Iterator<Item = (u16, i32, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in partitions {
        if let Some(name) = topics.get(usize::from(topic)) {
            // Refused are negative offsets only; then the partition stands there without one.
            let _ = list.add_partition(name, partition).set_offset(offset);
        }
    }
    list
}

/// Our place where the log still has it; else the earliest, and what was lost.
fn place_or_gap((topic, partition): (u16, i32), next: i64, low: i64, high: i64) -> (i64, Option<Message>) {
    let words = if next < low {
        format!("offsets {next} to {} were deleted before they were read", low - 1)
    } else if next > high {
        format!("the log ends at {high}, before our place {next}: the topic was made anew or lost records")
    } else {
        return (next, None);
    };
    (low, Some(Message::Gap { topic, partition, from: next, to: low, words }))
}

fn subscribe(consumer: &BaseConsumer<Witness>, topics: &[String]) -> Result<(), KafkaError> {
    consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What we set, and then what the user added.
fn client_config(settings: &KafkaSettings) -> Result<ClientConfig, Error> {
    let client_id = match settings.client_id.as_str() {
        "" => format!("bellwether-{}-{}", std::process::id(), wall_clock().0),
        id => id.to_owned(),
    };
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("group.id", &settings.group)
        .set("client.id", client_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("partition.assignment.strategy", "range")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "2000")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true")
        .set("fetch.queue.backoff.ms", "5")
        .set("topic.metadata.refresh.interval.ms", "30000");
    if settings.memory_bytes > 0 {
        config.set("queued.max.messages.kbytes", (settings.memory_bytes / 1024).clamp(1_024, 2_097_151).to_string());
    }
    for (key, value) in &settings.properties {
        if let Some((_, why)) = OURS.iter().find(|(ours, _)| ours.eq_ignore_ascii_case(key.trim())) {
            return Err(Error::Refused { key: key.clone(), why });
        }
        config.set(key, value);
    }
    Ok(config)
}

fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A lock whose holder panicked still guards plain values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
