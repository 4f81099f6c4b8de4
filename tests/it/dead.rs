//! Malformed events end to end: through a real topic, amid good ones; every refused one is found in the dead-letter topic with
//! its reason, every field that could not be used is counted, and nothing else is lost or held up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwether::domain::Time;
use bellwether::fleet::Plan;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use serde_json::Value;

use crate::broker::{Broker, unique};
use crate::daemon::{Config, Daemon, Feed, KEPT, days_ago};

/// 2026-11-20T09:14:03.120Z: the time of the record, to which the table's answers about times belong.
const RECORD: Time = Time(1_795_166_043_120);

/// One row of the table of malformed events.
struct Row {
    sort: String,
    payload: Vec<u8>,
    /// Why it is refused; None: it is taken, and these faults of its fields are counted.
    reason: Option<String>,
    faults: Vec<(String, String)>,
}

fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/malformed.json");
    let table: Vec<Value> = serde_json::from_slice(&std::fs::read(path).expect("the table")).expect("JSON");
    let word = |v: &Value| v.as_str().unwrap_or("").to_owned();
    (table.iter())
        .map(|row| {
            let mut payload = Vec::new();
            for part in row["payload"].as_array().expect("parts") {
                let bytes = STANDARD.decode(word(&part[0])).expect("base64");
                for _ in 0..part[1].as_u64().expect("a number") {
                    payload.extend_from_slice(&bytes);
                }
            }
            let faults = row["expect"]["faults"].as_array().into_iter().flatten().map(|f| (word(&f[0]), word(&f[1]))).collect();
            Row { sort: word(&row["sort"]), payload, reason: row["expect"]["reason"].as_str().map(str::to_owned), faults }
        })
        .collect()
}

/// A refused record as it lies in the dead-letter topic: reason and value by the offset that it had.
fn letters(bootstrap: &str, topic: &str, wanted: usize) -> Vec<(BTreeMap<String, String>, Option<Vec<u8>>)> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", unique("letters")).set("auto.offset.reset", "earliest");
    let client: BaseConsumer = config.set("fetch.message.max.bytes", "8388608").create().expect("a client");
    client.subscribe(&[&format!("{topic}.bellwether.dlq")]).expect("subscribed");
    let mut found = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    while found.len() < wanted && Instant::now() < until {
        let Some(Ok(m)) = client.poll(Duration::from_millis(200)) else { continue };
        let headers = (m.headers().into_iter())
            .flat_map(|h| h.iter().map(|h| (h.key.to_owned(), String::from_utf8_lossy(h.value.unwrap_or_default()).into_owned())).collect::<Vec<_>>())
            .collect();
        found.push((headers, m.payload().map(<[u8]>::to_vec)));
    }
    found
}

#[test]
fn malformed_events_are_put_aside_and_nothing_else_is_lost() {
    let Some(broker) = Broker::shared() else { return };
    let rows = rows();
    assert!(rows.len() >= 300);
    let topic = unique("malformed");
    let start = days_ago(1);
    let plan = Plan { share: 0.05, ..Plan::demo() };
    let large: &[(&str, &str)] = &[("max.message.bytes", "8388608")];
    let settings: Vec<(&str, &str)> = KEPT.iter().chain(large).copied().collect();
    broker.create_topic(&topic, 4, &settings);
    broker.create_topic(&format!("{topic}.bellwether.dlq"), 1, &settings);
    let fleet = bellwether::fleet::Fleet::new(plan, 3, start);
    let mut feed = Feed::with_properties(broker, &topic, fleet, &[("message.max.bytes", "8388608")]);
    // A bad record every second of the fleet's time, all sorts in turn.
    for (i, row) in rows.iter().enumerate() {
        feed.run_until(start.plus_ms(1_000 * (i as i64 + 1)));
        feed.send(Some(format!("bad-{i}").as_bytes()), Some(&row.payload), RECORD);
    }
    feed.send(Some(b"bad-tombstone"), None, feed.fleet.frontier());
    feed.run_until(feed.fleet.frontier().plus_ms(60_000));
    let config = Config {
        broker: &broker.bootstrap,
        topic: &topic,
        group: &topic,
        oracle: None,
        pane: "10s",
        lateness: "20s",
        more: "dead_letters: {topic: true}\n",
    };
    let mut daemon = Daemon::new(&config);
    daemon.start_ready();
    daemon.until("all records", 60, |d| d.events_seen() >= feed.sent);
    let engine = daemon.engine();

    // The good ones: each model of the fleet to the event.
    let models = daemon.models();
    for m in &feed.fleet.truth().models {
        let seen = models.iter().find(|v| v["model"] == m.model.as_str()).and_then(|v| v["events"].as_u64());
        assert_eq!(seen, Some(m.events()), "{}", m.model);
    }
    let refused: Vec<&Row> = rows.iter().filter(|r| r.reason.is_some()).collect();
    assert_eq!(engine["rejected"].as_u64(), Some(refused.len() as u64 + 1), "and the record without a value");
    let taken = rows.len() - refused.len();
    let (events, doubles) = (engine["events"].as_u64().unwrap_or(0), engine["duplicates"].as_u64().unwrap_or(0));
    assert_eq!(events + doubles, feed.fleet.truth().events() + feed.fleet.truth().copies() + taken as u64);

    // By reason in the metrics.
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &refused {
        *by_reason.entry(row.reason.as_deref().unwrap_or("")).or_default() += 1;
    }
    let reason_of_nothing = {
        let metrics = daemon.metrics();
        let total: f64 = metrics
            .lines()
            .filter(|l| l.starts_with("bellwether_events_rejected_total{"))
            .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        assert_eq!(total as usize, refused.len() + 1, "all refused ones are counted by reason");
        let counted = |reason: &str| {
            daemon.metric(&format!("bellwether_events_rejected_total{{reason=\"{reason}\",source=\"{topic}\"}}")).unwrap_or(0.0) as usize
        };
        let more: Vec<&str> = by_reason.iter().filter(|(reason, n)| counted(reason) != **n).map(|r| *r.0).collect();
        println!("by reason: {by_reason:?}; the record without a value is one of {more:?}");
        assert!(more.len() <= 1, "counted otherwise: {:?}", more.iter().map(|r| (*r, counted(r))).collect::<Vec<_>>());
        more.first().copied()
    };
    // Faults of fields.
    let faults_of = |word: &str| rows.iter().flat_map(|r| &r.faults).filter(|f| f.1 == word).count() as f64;
    for (bound, word) in [("fields_invalid", "invalid"), ("fields_coerced", "coerced"), ("fields_cut", "cut"), ("times_clamped", "clamped")] {
        let counted = |d: &Daemon| d.metric(&format!("bellwether_bounds_met_total{{bound=\"{bound}\"}}"));
        // Metrics are told every second.
        let until = Instant::now() + Duration::from_secs(5);
        while counted(&daemon) != Some(faults_of(word)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(counted(&daemon), Some(faults_of(word)), "{bound}");
    }

    // In the dead-letter topic, as they came.
    let found = letters(&broker.bootstrap, &topic, refused.len() + 1);
    assert_eq!(found.len(), refused.len() + 1, "letters");
    for row in &refused {
        let letter =
            found.iter().find(|l| l.1.as_deref() == Some(&row.payload) && row.reason.as_deref() == l.0.get("bellwether_reason").map(String::as_str));
        let (headers, _) = letter.unwrap_or_else(|| panic!("no letter for {} ({:?})", row.sort, row.reason));
        for name in ["bellwether_detail", "bellwether_topic", "bellwether_partition", "bellwether_offset", "bellwether_time", "bellwether_version"] {
            assert!(headers.get(name).is_some_and(|v| !v.is_empty()), "{}: {name}", row.sort);
        }
        assert_eq!(headers.get("bellwether_topic"), Some(&topic));
    }
    let empty = found.iter().find(|l| l.1.is_none()).and_then(|l| l.0.get("bellwether_reason"));
    assert!(reason_of_nothing.is_none() || empty.map(String::as_str) == reason_of_nothing, "{empty:?}");
    assert!(!daemon.log().contains("panicked"));
    assert!(daemon.terminate().0.success());
}
