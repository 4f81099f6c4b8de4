//! Where records go that no decoder could read: nothing that arrived is thrown away unseen.
//!
//! A letter is the record as it came (key, value, headers) and why it was refused. With Kafka it goes to
//! `<topic>.bellwether.dlq`. That topic may be missing, forbidden or too small for the record; then the letter goes to a file
//! beside our state, one JSON object a line, and when that is full it is counted. In no case does reading wait: the queue to
//! Kafka is bounded, and what finds it full takes the way to the file.
//!
//! Not taken: waiting for Kafka. A producer of broken events would then stop the watching of all the others.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use serde_json::json;

use super::{Batch, Error, Record};
use crate::domain::Time;

/// Letters that wait for Kafka's thread; the rest takes the way to the file.
const QUEUE_LETTERS_MAX: usize = 1_024;
/// Their bytes, for a letter may be large.
const QUEUE_BYTES_MAX: u64 = 16 << 20;
/// The file's bytes; beyond them letters are counted only.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// How long the broker may take before a letter goes to the file.
const DELIVERY_MS_MAX: u64 = 10_000;
/// How long closing waits for what is on its way.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// A record that was refused, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Letter {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The record's own time.
    pub time: Option<Time>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Of the closed set of reasons.
    pub reason: &'static str,
    /// A sentence for the producer of the record.
    pub detail: String,
}

/// What became of the letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by Kafka.
    pub sent: u64,
    pub filed: u64,
    /// Neither: the file is full or cannot be written.
    pub lost: u64,
}

/// The way out for refused records.
pub struct DeadLetters {
    /// None: to the file only.
    kafka: Option<(SyncSender<Box<Letter>>, Receiver<()>)>,
    state: Arc<State>,
}

struct State {
    sent: AtomicU64,
    filed: AtomicU64,
    lost: AtomicU64,
    queued_bytes: AtomicU64,
    close: AtomicBool,
    file: Mutex<Filing>,
}

/// The file, opened with its first letter.
struct Filing {
    path: PathBuf,
    open: Option<(File, u64)>,
}

/// Files what Kafka did not take.
struct Deliveries(Arc<State>);

// === impl Letter ===

impl Letter {
    pub fn of(topic: &str, batch: &Batch, record: &Record, reason: &'static str, detail: String) -> Letter {
        Letter {
            topic: topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
            time: record.time,
            key: batch.key(record).map(<[u8]>::to_vec),
            value: batch.value(record).map(<[u8]>::to_vec),
            headers: batch.headers(record),
            reason,
            detail,
        }
    }

    /// The topic that it goes to.
    pub fn destination(&self) -> String {
        format!("{}.bellwether.dlq", self.topic)
    }

    /// What we add to the record's own headers.
    fn stamps(&self) -> [(&'static str, String); 7] {
        [
            ("bellwether_reason", self.reason.to_owned()),
            ("bellwether_detail", self.detail.clone()),
            ("bellwether_topic", self.topic.clone()),
            ("bellwether_partition", self.partition.to_string()),
            ("bellwether_offset", self.offset.to_string()),
            ("bellwether_time", self.time.map(Time::rfc3339).unwrap_or_default()),
            ("bellwether_version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
    }

    fn bytes(&self) -> u64 {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len)).sum::<usize>();
        (self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers + self.detail.len() + 256) as u64
    }

    /// The line of the file: bytes in base64, headers in their order.
    fn line(&self, why_here: &str) -> Vec<u8> {
        let base64 = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| STANDARD.encode(b));
        let stamps: serde_json::Map<_, _> = self.stamps().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        let headers: Vec<_> = self.headers.iter().map(|(name, value)| json!([name, base64(value)])).collect();
        let mut line = json!({"key": base64(&self.key), "value": base64(&self.value), "headers": headers, "filed_because": why_here});
        if let Some(members) = line.as_object_mut() {
            members.extend(stamps);
        }
        let mut line = line.to_string().into_bytes();
        line.push(b'\n');
        line
    }
}

// === impl DeadLetters ===

impl DeadLetters {
    /// To Kafka, and to `fallback` what Kafka does not take. The producer's properties are the consumer's; what a producer does
    /// not know is left out by the library.
    ///
    /// # Errors
    /// A property that the library does not know, or no thread.
    pub fn kafka(brokers: &str, properties: &BTreeMap<String, String>, fallback: PathBuf) -> Result<DeadLetters, Error> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            // The broker decides what is too large, not we.
            .set("message.max.bytes", "16777216")
            .set("message.timeout.ms", DELIVERY_MS_MAX.to_string())
            .set("topic.metadata.propagation.max.ms", "2000")
            .set("queue.buffering.max.kbytes", (QUEUE_BYTES_MAX / 1024).to_string())
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.keepalive.enable", "true");
        for (key, value) in properties {
            config.set(key, value);
        }
        let state = State::new(fallback);
        let producer = BaseProducer::from_config_and_context(&config, Deliveries(state.clone())).map_err(Error::Client)?;
        let (queue, letters) = sync_channel(QUEUE_LETTERS_MAX);
        let (done_tx, done) = sync_channel(1);
        let run = move || {
            send_all(&producer, &letters);
            let _ = done_tx.send(());
        };
        std::thread::Builder::new().name("dead-letters".into()).spawn(run).map_err(Error::Thread)?;
        Ok(DeadLetters { kafka: Some((queue, done)), state })
    }

    /// To a file only.
    pub fn file(path: PathBuf) -> DeadLetters {
        DeadLetters { kafka: None, state: State::new(path) }
    }

    /// Takes a letter. Does not wait for the network.
    pub fn post(&self, letter: Letter) {
        let Some((queue, _)) = &self.kafka else { return self.state.file(&letter, "no topic is configured") };
        let bytes = letter.bytes();
        if self.state.queued_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            self.state.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return self.state.file(&letter, "the queue to kafka is full");
        }
        if let Err(TrySendError::Full(letter) | TrySendError::Disconnected(letter)) = queue.try_send(Box::new(letter)) {
            self.state.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.state.file(&letter, "the queue to kafka is full");
        }
    }

    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts { sent: read(&self.state.sent), filed: read(&self.state.filed), lost: read(&self.state.lost) }
    }

    /// Sends what waits, for five seconds at most; the rest goes to the file.
    pub fn close(self) -> Counts {
        self.state.close.store(true, Ordering::Release);
        if let Some((_, done)) = &self.kafka {
            // The thread files what it could not send; a library that hangs is left behind.
            let _ = done.recv_timeout(CLOSE_WAIT + Duration::from_secs(2));
        }
        self.counts()
    }
}

// === impl State ===

impl State {
    fn new(path: PathBuf) -> Arc<State> {
        let zero = || AtomicU64::new(0);
        let file = Mutex::new(Filing { path, open: None });
        Arc::new(State { sent: zero(), filed: zero(), lost: zero(), queued_bytes: zero(), close: AtomicBool::new(false), file })
    }

    fn file(&self, letter: &Letter, why_here: &str) {
        let written = self.file.lock().unwrap_or_else(PoisonError::into_inner).write(&letter.line(why_here));
        let counter = if matches!(written, Ok(true)) { &self.filed } else { &self.lost };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Filing ===

impl Filing {
    /// False: the file is full.
    fn write(&mut self, line: &[u8]) -> std::io::Result<bool> {
        if self.open.is_none() {
            let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            let size = file.metadata()?.len();
            self.open = Some((file, size));
        }
        let Some((file, size)) = &mut self.open else { return Ok(false) };
        if *size + line.len() as u64 > FILE_BYTES_MAX {
            return Ok(false);
        }
        *size += line.len() as u64;
        file.write_all(line)?;
        Ok(true)
    }
}

// === impl Deliveries ===

impl ClientContext for Deliveries {
    fn error(&self, _: KafkaError, _: &str) {
        // What matters comes with the delivery reports.
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Letter>;

    fn delivery(&self, result: &DeliveryResult<'_>, letter: Box<Letter>) {
        self.0.queued_bytes.fetch_sub(letter.bytes(), Ordering::Relaxed);
        match result {
            Ok(_) => {
                self.0.sent.fetch_add(1, Ordering::Relaxed);
            }
            Err((why, _)) => self.0.file(&letter, &why.to_string()),
        }
    }
}

// === the thread ===

fn send_all(producer: &BaseProducer<Deliveries>, letters: &Receiver<Box<Letter>>) {
    let state = producer.context().0.clone();
    loop {
        let wait = if producer.in_flight_count() > 0 { Duration::from_millis(5) } else { Duration::from_millis(100) };
        match letters.recv_timeout(wait) {
            Ok(letter) => send(producer, letter),
            Err(RecvTimeoutError::Timeout) if !state.close.load(Ordering::Acquire) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
        producer.poll(Duration::ZERO);
    }
    let until = Instant::now() + CLOSE_WAIT;
    while producer.in_flight_count() > 0 && Instant::now() < until {
        let _ = producer.flush(Duration::from_millis(100));
    }
    // What is left is given up, which brings its report, and so it is filed.
    producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
    producer.poll(Duration::from_millis(100));
}

fn send(producer: &BaseProducer<Deliveries>, letter: Box<Letter>) {
    let topic = letter.destination();
    let (key, value) = (letter.key.clone(), letter.value.clone());
    let mut headers = OwnedHeaders::new_with_capacity(letter.headers.len() + 7);
    for (key, value) in &letter.headers {
        headers = headers.insert(Header { key, value: value.as_ref() });
    }
    for (key, value) in &letter.stamps() {
        headers = headers.insert(Header { key, value: Some(value) });
    }
    let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(&topic, letter).headers(headers);
    record.key = key.as_deref();
    record.payload = value.as_deref();
    if let Err((why, record)) = producer.send(record) {
        let state = &producer.context().0;
        state.queued_bytes.fetch_sub(record.delivery_opaque.bytes(), Ordering::Relaxed);
        state.file(&record.delivery_opaque, &why.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: i64, value: &[u8]) -> Letter {
        Letter {
            topic: "events".into(),
            partition: 2,
            offset,
            time: Some(Time(1_795_166_044_505)),
            key: Some(b"k\xff".to_vec()),
            value: Some(value.to_vec()),
            headers: vec![("ce_id".into(), Some(b"7".to_vec())), ("empty".into(), None)],
            reason: "bad_json",
            detail: "expected value at line 1 column 1".into(),
        }
    }

    #[test]
    fn a_line_of_the_file_holds_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.ndjson");
        let letters = DeadLetters::file(path.clone());
        letters.post(letter(5, b"{\n\xfe"));
        letters.post(letter(6, b""));
        assert_eq!(letters.close(), Counts { sent: 0, filed: 2, lost: 0 });
        let text = std::fs::read_to_string(path).unwrap();
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["value"], STANDARD.encode(b"{\n\xfe"));
        assert_eq!(line["key"], STANDARD.encode(b"k\xff"));
        assert_eq!(line["headers"], json!([["ce_id", "Nw=="], ["empty", null]]));
        assert_eq!(line["bellwether_reason"], "bad_json");
        assert_eq!(line["bellwether_topic"], "events");
        assert_eq!(line["bellwether_offset"], "5");
        assert_eq!(line["bellwether_time"], "2026-11-20T09:14:04.505Z");
    }

    #[test]
    fn a_full_file_and_a_missing_folder_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dead.ndjson");
        File::create(&path).unwrap().set_len(FILE_BYTES_MAX - 10).unwrap();
        let letters = DeadLetters::file(path);
        letters.post(letter(1, b"x"));
        assert_eq!(letters.close().lost, 1);
        let letters = DeadLetters::file("/nowhere/dead.ndjson".into());
        letters.post(letter(1, b"x"));
        assert_eq!(letters.close().lost, 1);
    }

    #[test]
    fn without_a_broker_nothing_waits_and_everything_is_filed() {
        let folder = tempfile::tempdir().unwrap();
        let quick = BTreeMap::from([("message.timeout.ms".to_owned(), "500".to_owned())]);
        let letters = DeadLetters::kafka("127.0.0.1:1", &quick, folder.path().join("dead.ndjson")).unwrap();
        let began = Instant::now();
        for offset in 0..3_000 {
            letters.post(letter(offset, &[b'x'; 9_000]));
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let counts = letters.close();
        assert_eq!((counts.sent, counts.filed + counts.lost), (0, 3_000));
        assert_eq!(counts.lost, 0);
    }
}
