//! Tests of kafka: the source and the dead letters, against a real broker, and the quick ones against the embedded one.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use bellwether::domain::Time;
use bellwether::source::dead_letters::{DeadLetters, Letter};
use bellwether::source::embedded::{Embedded, Outgoing, Producer};
use bellwether::source::kafka::{Handle, KafkaSettings, KafkaSource};
use bellwether::source::{Batch, Error, Message, Place};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::broker::{Broker, unique};

const FROM_THE_BEGINNING: i64 = i64::MAX;

/// Everything a source said.
#[derive(Default)]
struct Seen {
    records: BTreeMap<(u16, i32), Vec<i64>>,
    assigned: Vec<Place>,
    revoked: Vec<(u16, i32)>,
    idle: Vec<(u16, i32, i64)>,
    /// topic, partition, from, to
    gaps: Vec<(u16, i32, i64, i64)>,
    troubles: Vec<String>,
    wells: usize,
    batches: Vec<Batch>,
}

impl Seen {
    fn count(&self) -> usize {
        self.records.values().map(Vec::len).sum()
    }

    fn add(&mut self, message: Message) {
        match message {
            Message::Batch(batch) => {
                for record in &batch.records {
                    self.records.entry((record.topic, record.partition)).or_default().push(record.offset);
                }
                self.batches.push(batch);
            }
            Message::Assigned(places) => self.assigned.extend(places),
            Message::Revoked(partitions) => self.revoked.extend(partitions),
            Message::Idle { topic, partition, position } => self.idle.push((topic, partition, position)),
            Message::Gap { topic, partition, from, to, .. } => self.gaps.push((topic, partition, from, to)),
            Message::Trouble { words, .. } => self.troubles.push(words),
            Message::Well => self.wells += 1,
            Message::Named { .. } | Message::Ended { .. } => panic!("only files say {message:?}"),
        }
    }

    /// Listens until the test has seen enough.
    fn listen(&mut self, messages: &Receiver<Message>, seconds: u64, what: &str, enough: impl Fn(&Seen) -> bool) {
        let until = Instant::now() + Duration::from_secs(seconds);
        while !enough(self) {
            match messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(message) => self.add(message),
                Err(RecvTimeoutError::Timeout) => panic!(
                    "no {what} within {seconds} s: {} records, idle {:?}, gaps {:?}, troubles {:?}, wells {}",
                    self.count(),
                    self.idle,
                    self.gaps,
                    self.troubles,
                    self.wells
                ),
                Err(RecvTimeoutError::Disconnected) => panic!("the source ended"),
            }
        }
    }

    /// What comes within a time, be it nothing.
    fn listen_for(&mut self, messages: &Receiver<Message>, time: Duration) {
        let until = Instant::now() + time;
        while let Ok(message) = messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.add(message);
        }
    }
}

fn settings(brokers: &str, topics: &[&str], group: &str) -> KafkaSettings {
    KafkaSettings {
        brokers: brokers.into(),
        topics: topics.iter().map(|&t| t.into()).collect(),
        group: group.into(),
        client_id: String::new(),
        properties: BTreeMap::from([("topic.metadata.refresh.interval.ms".to_owned(), "2000".to_owned())]),
        from_ms: FROM_THE_BEGINNING,
        idle_ms: 1_000,
        memory_bytes: 64 << 20,
        headers: false,
    }
}

fn start(settings: KafkaSettings, resume: impl Fn(&str, i32) -> Option<i64> + Send + 'static, room: usize) -> (Handle, Receiver<Message>) {
    let (out, messages): (SyncSender<Message>, _) = sync_channel(room);
    (KafkaSource::start(settings, Box::new(resume), out).expect("a source"), messages)
}

/// All records of a partition, once and in order.
fn assert_all(seen: &Seen, partition: i32, expected: std::ops::Range<i64>) {
    let read = seen.records.get(&(0, partition)).cloned().unwrap_or_default();
    assert!(read.iter().copied().eq(expected.clone()), "partition {partition}: {} records for {expected:?}", read.len());
}

#[test]
fn twelve_partitions_are_read_exactly_once_from_our_places() {
    let Some(broker) = Broker::shared() else { return };
    let (topic, group) = (unique("twelve"), unique("group"));
    broker.create_topic(&topic, 12, &[]);
    broker.produce(&topic, 12, 0, 3_000);
    let (handle, messages) = start(settings(&broker.bootstrap, &[&topic], &group), |_, p| (p > 0).then_some(i64::from(p) * 10), 4);
    let mut seen = Seen::default();
    let total = 12 * 3_000 - 10 * (1..12).sum::<usize>();
    seen.listen(&messages, 60, "records", |s| s.count() >= total);
    (0..12).for_each(|p| assert_all(&seen, p, i64::from(p) * 10..3_000));
    assert_eq!(seen.assigned.len(), 12);
    assert!(seen.assigned.iter().all(|place| place.high == 3_000 && place.next == i64::from(place.partition) * 10));
    let record = &seen.batches[0].records[0];
    let value: serde_json::Value = serde_json::from_slice(seen.batches[0].value(record).expect("a value")).expect("json");
    assert_eq!(value["offset"], record.offset);
    assert_eq!(seen.batches[0].key(record), Some(record.offset.to_string().as_bytes()));
    assert!(record.time.is_some());
    // Lag is told from a fresh watermark.
    seen.listen(&messages, 20, "idleness", |s| s.idle.len() == 12);
    assert!(handle.lag().len() == 12 && handle.lag().iter().all(|(_, _, behind)| *behind == 0), "{:?}", handle.lag());
    // The group's offsets are written, and do not decide where reading begins.
    handle.commit((0..12).map(|p| (0, p, 2_000)).collect());
    handle.stop().expect("it stops");
    assert_eq!(broker.committed(&group, &topic, 11), Some(2_000));
    let (handle, messages) = start(settings(&broker.bootstrap, &[&topic], &group), |_, _| Some(1_500), 4);
    let mut seen = Seen::default();
    seen.listen(&messages, 60, "records", |s| s.count() >= 12 * 1_500);
    seen.listen_for(&messages, Duration::from_millis(500));
    (0..12).for_each(|p| assert_all(&seen, p, 1_500..3_000));
    handle.stop().expect("it stops");
}

#[test]
fn a_full_channel_for_twenty_seconds_keeps_the_membership() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("full");
    broker.create_topic(&topic, 4, &[]);
    broker.produce(&topic, 4, 0, 5_000);
    let mut settings = settings(&broker.bootstrap, &[&topic], &unique("group"));
    settings.properties.insert("max.poll.interval.ms".into(), "10000".into());
    let (handle, messages) = start(settings, |_, _| None, 1);
    let mut seen = Seen::default();
    seen.listen(&messages, 30, "first records", |s| s.count() > 0);
    std::thread::sleep(Duration::from_secs(20));
    seen.listen(&messages, 30, "records", |s| s.count() >= 20_000);
    assert!(seen.revoked.is_empty() && seen.assigned.len() == 4, "membership was kept: {:?}", seen.revoked);
    (0..4).for_each(|p| assert_all(&seen, p, 0..5_000));
    assert!(seen.gaps.is_empty());
    handle.stop().expect("it stops");
}

#[test]
fn f14_a_killed_broker_comes_back_and_reading_goes_on() {
    let Some(mut broker) = Broker::own() else { return };
    broker.create_topic("events", 4, &[]);
    broker.produce("events", 4, 0, 2_000);
    let (handle, messages) = start(settings(&broker.bootstrap, &["events"], "group"), |_, _| None, 64);
    let mut seen = Seen::default();
    seen.listen(&messages, 60, "records", |s| s.count() >= 8_000);
    broker.kill();
    let killed = Instant::now();
    seen.listen(&messages, 20, "trouble", |s| !s.troubles.is_empty());
    eprintln!("trouble after {:?}: {}", killed.elapsed(), seen.troubles[0]);
    broker.restart();
    let back = Instant::now();
    broker.produce("events", 4, 2_000, 2_000);
    seen.listen(&messages, 30, "wellness", |s| s.wells == 1);
    let resumed = |s: &Seen| s.records.values().all(|r| r.last() == Some(&3_999));
    seen.listen(&messages, 30, "records after the restart", resumed);
    eprintln!("all read {:?} after the port was back", back.elapsed());
    if seen.revoked.is_empty() {
        (0..4).for_each(|p| assert_all(&seen, p, 0..4_000));
    } else {
        // The group began anew, and without places of ours the source reads again; nothing may be missing.
        for offsets in seen.records.values_mut() {
            offsets.sort_unstable();
            offsets.dedup();
        }
        (0..4).for_each(|p| assert_all(&seen, p, 0..4_000));
    }
    assert!(seen.gaps.is_empty(), "{:?}", seen.gaps);
    // Stopping does not hang where the broker is gone.
    broker.kill();
    let stopping = Instant::now();
    handle.stop().expect("it stops without a broker");
    eprintln!("stopped without a broker in {:?}", stopping.elapsed());
}

#[test]
fn f19_what_was_deleted_before_it_was_read_is_a_gap() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("gap");
    broker.create_topic(&topic, 2, &[]);
    broker.produce(&topic, 2, 0, 1_000);
    // Found at the assignment.
    broker.delete_records(&topic, 1, 300);
    let (handle, messages) = start(settings(&broker.bootstrap, &[&topic], &unique("group")), |_, _| Some(100), 64);
    let mut seen = Seen::default();
    seen.listen(&messages, 30, "records", |s| s.count() >= 900 + 700);
    assert_eq!(seen.gaps, [(0, 1, 100, 300)]);
    assert_all(&seen, 0, 100..1_000);
    assert_all(&seen, 1, 300..1_000);
    // Found while reading: the partition is held while its log is cut.
    handle.hold(vec![(0, 0)]);
    std::thread::sleep(Duration::from_millis(500));
    broker.produce(&topic, 2, 1_000, 1_000);
    seen.listen(&messages, 30, "records of the other partition", |s| s.records[&(0, 1)].len() >= 1_700);
    assert_eq!(seen.records[&(0, 0)].last(), Some(&999), "held");
    broker.delete_records(&topic, 0, 1_500);
    handle.release(vec![(0, 0)]);
    seen.listen(&messages, 30, "records after the gap", |s| s.records[&(0, 0)].last() == Some(&1_999));
    assert_eq!(seen.gaps, [(0, 1, 100, 300), (0, 0, 1_000, 1_500)]);
    assert_eq!(seen.records[&(0, 0)].len(), 900 + 500);
    assert_all(&seen, 1, 300..2_000);
    handle.stop().expect("it stops");
}

#[test]
fn f20_a_topic_made_anew_is_a_gap() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("anew");
    broker.create_topic(&topic, 1, &[]);
    broker.produce(&topic, 1, 0, 50);
    let (handle, messages) = start(settings(&broker.bootstrap, &[&topic], &unique("group")), |_, _| Some(400), 64);
    let mut seen = Seen::default();
    seen.listen(&messages, 30, "records", |s| s.count() >= 50);
    assert_eq!(seen.gaps, [(0, 0, 400, 0)]);
    assert_all(&seen, 0, 0..50);
    // And under our hands.
    broker.delete_topic(&topic);
    std::thread::sleep(Duration::from_secs(3));
    broker.create_topic(&topic, 1, &[]);
    broker.produce(&topic, 1, 0, 20);
    seen.listen(&messages, 60, "records of the new topic", |s| s.count() >= 70);
    assert_eq!(seen.gaps.len(), 2, "{:?}", seen.gaps);
    handle.stop().expect("it stops");
}

#[test]
fn f45_a_quiet_partition_is_idle_once() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("idle");
    broker.create_topic(&topic, 2, &[]);
    broker.produce(&topic, 1, 0, 10);
    let (handle, messages) = start(settings(&broker.bootstrap, &[&topic], &unique("group")), |_, _| None, 64);
    let mut seen = Seen::default();
    seen.listen(&messages, 30, "idleness", |s| s.idle.len() == 2);
    seen.listen_for(&messages, Duration::from_secs(4));
    seen.idle.sort_unstable();
    assert_eq!(seen.idle, [(0, 0, 10), (0, 1, 0)], "said once");
    broker.produce(&topic, 1, 10, 5);
    seen.listen(&messages, 30, "idleness again", |s| s.idle.len() == 3);
    assert_eq!(seen.idle[2], (0, 0, 15));
    handle.stop().expect("it stops");
}

#[test]
fn f24_aborted_transactions_are_not_read_and_leave_no_lag() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("aborted");
    broker.create_topic(&topic, 1, &[]);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.bootstrap).set("transactional.id", unique("writer"));
    let writer: BaseProducer = config.create().expect("a producer");
    let wait = Duration::from_secs(30);
    writer.init_transactions(wait).expect("transactions");
    for commit in [true, false] {
        writer.begin_transaction().expect("begun");
        for _ in 0..5 {
            writer.send(BaseRecord::<(), str>::to(&topic).payload("x")).map_err(|(why, _)| why).expect("sent");
        }
        writer.flush(wait).expect("written");
        if commit { writer.commit_transaction(wait).expect("committed") } else { writer.abort_transaction(wait).expect("aborted") }
    }
    let (handle, messages) = start(settings(&broker.bootstrap, &[&topic], &unique("group")), |_, _| None, 64);
    let mut seen = Seen::default();
    seen.listen(&messages, 30, "idleness", |s| s.idle.len() == 1);
    assert_all(&seen, 0, 0..5);
    assert_eq!(seen.idle, [(0, 0, 12)], "five records, a mark, five aborted, a mark");
    assert_eq!(handle.lag(), [(0, 0, 0)]);
    handle.stop().expect("it stops");
}

#[test]
fn reading_begins_where_the_time_says() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("times");
    broker.create_topic(&topic, 2, &[]);
    let producer = Producer::start(&broker.bootstrap, &BTreeMap::new()).expect("a producer");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_millis() as i64;
    for minutes in [50, 40, 30, 20, 10] {
        let time = Some(Time(now - minutes * 60_000));
        producer.send(Outgoing { topic: &topic, partition: Some(0), value: Some(b"x"), time, ..Outgoing::default() }).expect("sent");
        let old = Some(Time(now - 100 * 60_000));
        producer.send(Outgoing { topic: &topic, partition: Some(1), value: Some(b"x"), time: old, ..Outgoing::default() }).expect("sent");
    }
    producer.flush(Duration::from_secs(30)).expect("written");
    let settings = KafkaSettings { from_ms: 25 * 60_000, ..settings(&broker.bootstrap, &[&topic], &unique("group")) };
    let (handle, messages) = start(settings, |_, _| None, 64);
    let mut seen = Seen::default();
    seen.listen(&messages, 30, "idleness", |s| s.idle.len() == 2);
    assert_all(&seen, 0, 3..5);
    assert_eq!(seen.batches[0].records[0].time, Some(Time(now - 20 * 60_000)));
    assert_all(&seen, 1, 0..0);
    handle.stop().expect("it stops");
}

#[test]
fn f13_f21_a_missing_topic_is_trouble_and_new_partitions_are_read_from_their_start() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("later");
    // Only what comes from now on, but what is new is new from its beginning.
    let settings = KafkaSettings { from_ms: 0, ..settings(&broker.bootstrap, &[&topic], &unique("group")) };
    let (handle, messages) = start(settings, |_, _| None, 64);
    let mut seen = Seen::default();
    seen.listen(&messages, 30, "trouble", |s| !s.troubles.is_empty());
    assert!(seen.troubles[0].contains(&topic), "{:?}", seen.troubles);
    broker.create_topic(&topic, 1, &[]);
    broker.produce(&topic, 1, 0, 100);
    seen.listen(&messages, 60, "records of the late topic", |s| s.count() >= 100 && s.wells == 1);
    assert_all(&seen, 0, 0..100);
    broker.add_partitions(&topic, 2);
    let producer = Producer::start(&broker.bootstrap, &BTreeMap::new()).expect("a producer");
    for _ in 0..10 {
        producer.send(Outgoing { topic: &topic, partition: Some(1), value: Some(b"x"), ..Outgoing::default() }).expect("sent");
    }
    producer.flush(Duration::from_secs(30)).expect("written");
    seen.listen(&messages, 60, "records of the new partition", |s| s.records.get(&(0, 1)).is_some_and(|r| r.len() >= 10));
    assert_all(&seen, 1, 0..10);
    handle.stop().expect("it stops");
}

#[test]
fn two_members_share_and_one_takes_over() {
    let Some(broker) = Broker::shared() else { return };
    let (topic, group) = (unique("shared"), unique("group"));
    broker.create_topic(&topic, 4, &[]);
    broker.produce(&topic, 4, 0, 100);
    let (first, first_messages) = start(settings(&broker.bootstrap, &[&topic], &group), |_, _| Some(100), 64);
    let mut one = Seen::default();
    one.listen(&first_messages, 30, "an assignment", |s| s.assigned.len() == 4);
    let (second, second_messages) = start(settings(&broker.bootstrap, &[&topic], &group), |_, _| Some(100), 64);
    let mut two = Seen::default();
    two.listen(&second_messages, 30, "a share", |s| s.assigned.len() == 2);
    one.listen(&first_messages, 30, "a new share", |s| s.revoked.len() == 4 && s.assigned.len() == 6);
    broker.produce(&topic, 4, 100, 50);
    one.listen(&first_messages, 30, "records", |s| s.count() >= 100);
    two.listen(&second_messages, 30, "records", |s| s.count() >= 100);
    let stopping = Instant::now();
    second.stop().expect("it stops");
    one.listen(&first_messages, 30, "the take-over", |s| s.assigned.len() == 10);
    eprintln!("taken over {:?} after the stop was asked for", stopping.elapsed());
    first.stop().expect("it stops");
}

fn letter(topic: &str, value: Vec<u8>) -> Letter {
    Letter {
        topic: topic.into(),
        partition: 3,
        offset: 41,
        time: Some(Time(1_795_166_044_505)),
        key: Some(b"k\xff".to_vec()),
        value: Some(value),
        headers: vec![("ce_type".into(), Some(b"a\xff".to_vec())), ("none".into(), None)],
        reason: "bad_json",
        detail: "expected value".into(),
    }
}

#[test]
fn f25_dead_letters_reach_their_topic_with_all_headers_and_the_file_where_it_refuses() {
    let Some(broker) = Broker::shared() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("dead.ndjson");
    let (taking, refusing, missing) = (unique("taking"), unique("refusing"), unique("missing"));
    broker.create_topic(&format!("{taking}.bellwether.dlq"), 1, &[]);
    broker.create_topic(&format!("{refusing}.bellwether.dlq"), 1, &[("max.message.bytes", "200")]);
    let letters = DeadLetters::kafka(&broker.bootstrap, &BTreeMap::new(), file.clone()).expect("a producer");
    let began = Instant::now();
    letters.post(letter(&taking, b"{\xfe".to_vec()));
    // Incompressible, so that it is large on the wire too.
    letters.post(letter(&refusing, (0..20_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()).collect()));
    letters.post(letter(&missing, b"lost?".to_vec()));
    assert!(began.elapsed() < Duration::from_millis(500), "no stall");
    let until = Instant::now() + Duration::from_secs(30);
    while letters.counts().sent + letters.counts().filed < 3 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("the missing topic was given up after {:?}", began.elapsed());
    let counts = letters.close();
    assert_eq!((counts.sent, counts.filed, counts.lost), (1, 2, 0));
    let text = std::fs::read_to_string(&file).expect("the file");
    assert!(text.lines().count() == 2 && text.contains(&refusing) && text.contains(&missing), "{text:.300}");

    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &broker.bootstrap).set("group.id", unique("reader")).set("auto.offset.reset", "earliest");
    let reader: BaseConsumer = config.create().expect("a client");
    reader.subscribe(&[&format!("{taking}.bellwether.dlq")]).expect("subscribed");
    let until = Instant::now() + Duration::from_secs(30);
    let message = loop {
        assert!(Instant::now() < until, "the letter arrives");
        if let Some(Ok(message)) = reader.poll(Duration::from_millis(200)) {
            break message.detach();
        }
    };
    assert_eq!((message.key(), message.payload()), (Some(&b"k\xff"[..]), Some(&b"{\xfe"[..])));
    let headers: Vec<_> = message.headers().expect("headers").iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect();
    assert_eq!(headers[0], ("ce_type".into(), Some(b"a\xff".to_vec())));
    assert_eq!(headers[1], ("none".into(), None));
    let text = |name: &str| headers.iter().find(|(n, _)| n == name).and_then(|(_, v)| String::from_utf8(v.clone()?).ok()).expect(name);
    let stamps = ["reason", "detail", "topic", "partition", "offset", "time", "version"].map(|name| text(&format!("bellwether_{name}")));
    let expected = ["bad_json", "expected value", &taking, "3", "41", "2026-11-20T09:14:04.505Z", env!("CARGO_PKG_VERSION")];
    assert_eq!(stamps, expected);
}

// === with the embedded broker ===

#[test]
fn the_embedded_broker_serves_the_source() {
    let embedded = Embedded::start().expect("a broker");
    embedded.create_topic("events", 3).expect("a topic");
    let producer = Producer::start(embedded.bootstrap(), &BTreeMap::new()).expect("a producer");
    let headers = [("ce_type", &b"x"[..])];
    for n in 0..300 {
        let key = format!("{n}");
        let out = Outgoing {
            topic: "events",
            partition: Some(n % 3),
            key: Some(key.as_bytes()),
            value: Some(b"{}"),
            time: Some(Time(1_000_000)),
            headers: &headers,
        };
        producer.send(out).expect("sent");
    }
    producer.flush(Duration::from_secs(30)).expect("written");
    let settings = KafkaSettings { headers: true, ..settings(embedded.bootstrap(), &["events"], "group") };
    let (handle, messages) = start(settings, |_, p| (p == 2).then_some(40), 64);
    let mut seen = Seen::default();
    seen.listen(&messages, 30, "records", |s| s.count() >= 260);
    (0..3).for_each(|p| assert_all(&seen, p, if p == 2 { 40..100 } else { 0..100 }));
    let record = &seen.batches[0].records[0];
    assert_eq!(record.time, Some(Time(1_000_000)));
    assert_eq!(seen.batches[0].headers(record), [("ce_type".to_owned(), Some(b"x".to_vec()))]);
    seen.listen(&messages, 30, "idleness", |s| s.idle.len() == 3);
    embedded.down().expect("down");
    seen.listen(&messages, 30, "trouble", |s| !s.troubles.is_empty());
    embedded.up().expect("up");
    seen.listen(&messages, 30, "wellness", |s| s.wells == 1);
    handle.stop().expect("it stops");
}

#[test]
fn f13_a_broker_that_is_absent_is_trouble_with_a_reason() {
    let (handle, messages) = start(settings("127.0.0.1:1", &["events"], "group"), |_, _| None, 64);
    let mut seen = Seen::default();
    seen.listen(&messages, 20, "trouble", |s| !s.troubles.is_empty());
    assert!(seen.troubles[0].contains("127.0.0.1:1") || seen.troubles[0].contains("refused"), "{:?}", seen.troubles);
    let began = Instant::now();
    handle.stop().expect("it stops");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn properties_that_would_break_the_promises_are_refused() {
    for key in ["enable.auto.commit", "group.id", "auto.offset.reset", "Check.CRCs"] {
        let (out, _messages) = sync_channel(1);
        let properties = BTreeMap::from([(key.to_owned(), "x".to_owned())]);
        let why = KafkaSource::start(KafkaSettings { properties, ..settings("127.0.0.1:1", &["t"], "g") }, Box::new(|_, _| None), out).err();
        assert!(matches!(why, Some(Error::Refused { .. })), "{key}");
    }
    let (out, _messages) = sync_channel(1);
    let properties = BTreeMap::from([("no.such.property".to_owned(), "x".to_owned())]);
    let why = KafkaSource::start(KafkaSettings { properties, ..settings("127.0.0.1:1", &["t"], "g") }, Box::new(|_, _| None), out).err();
    assert!(matches!(why, Some(Error::Client(_))));
}

/// What a hand-over costs: run by hand with `--ignored --nocapture`, in release.
#[test]
#[ignore = "a measurement"]
fn how_fast_is_the_source_against_a_bare_poll_loop() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("fast");
    broker.create_topic(&topic, 12, &[]);
    let (count, body) = (1_000_000usize, vec![b'x'; 515]);
    let producer = Producer::start(&broker.bootstrap, &BTreeMap::new()).expect("a producer");
    for n in 0..count {
        let out = Outgoing { topic: &topic, partition: Some((n % 12) as i32), key: Some(b"0123456789"), value: Some(&body), ..Outgoing::default() };
        producer.send(out).expect("sent");
    }
    producer.flush(Duration::from_secs(120)).expect("written");
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").expect("linux");
        let after = stat.rsplit(')').next().expect("fields");
        after.split_whitespace().skip(11).take(2).map(|t| t.parse::<f64>().expect("ticks")).sum::<f64>() / 100.0
    };
    for round in 0..3 {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &broker.bootstrap).set("group.id", unique("bare")).set("auto.offset.reset", "earliest");
        config.set("fetch.queue.backoff.ms", "5").set("enable.auto.commit", "false");
        let bare: BaseConsumer = config.create().expect("a client");
        bare.subscribe(&[&topic]).expect("subscribed");
        let (mut began, mut cpu_began, mut read, mut bytes) = (Instant::now(), cpu(), 0usize, 0usize);
        while read < count {
            if let Some(Ok(message)) = bare.poll(Duration::from_millis(100)) {
                if read == 0 {
                    (began, cpu_began) = (Instant::now(), cpu());
                }
                read += 1;
                bytes += message.payload_len();
            }
        }
        let per_second = |wall: Duration| count as f64 / wall.as_secs_f64();
        let cost = |seconds: f64| seconds * 1e9 / count as f64;
        eprintln!("{round} bare: {:.0}/s, {:.0} ns CPU/record ({bytes} bytes)", per_second(began.elapsed()), cost(cpu() - cpu_began));
        drop(bare);
        let (handle, messages) = start(settings(&broker.bootstrap, &[&topic], &unique("ours")), |_, _| None, 8);
        let (mut began, mut cpu_began, mut read, mut bytes) = (Instant::now(), cpu(), 0usize, 0usize);
        while read < count {
            if let Ok(Message::Batch(batch)) = messages.recv() {
                if read == 0 {
                    (began, cpu_began) = (Instant::now(), cpu());
                }
                read += batch.records.len();
                bytes += batch.records.iter().filter_map(|r| batch.value(r)).map(<[u8]>::len).sum::<usize>();
            }
        }
        eprintln!("{round} ours: {:.0}/s, {:.0} ns CPU/record ({bytes} bytes)", per_second(began.elapsed()), cost(cpu() - cpu_began));
        handle.stop().expect("it stops");
    }
}
