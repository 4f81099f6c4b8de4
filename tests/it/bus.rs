//! CloudEvents to Kafka: against the real broker, and against librdkafka's own mock where a broker must answer badly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether::domain::delivery::{Delivery, Message, Notice, Outcome};
use bellwether::domain::incident::Incident;
use bellwether::domain::{ClosedAs, IncidentState};
use bellwether::notify::{Errand, Receiver};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message as _};
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Err};
use serde_json::{Value, json};

use crate::broker::{Broker, unique};
use crate::notify::{House, Shelf, build, clock, incident, later, notifier};

fn bus(brokers: &str, topic: &str) -> Receiver {
    let url = brokers.split(',').map(|b| format!("kafka://{b}")).collect::<Vec<_>>().join(",");
    build("kafka", &[("url", url.into()), ("topic", topic.into())])
}

/// Key, headers and value of the first `count` records.
fn records(brokers: &str, topic: &str, count: usize) -> Vec<(String, BTreeMap<String, String>, Value)> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", unique("bus"))
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a client");
    client.subscribe(&[topic]).expect("subscribed");
    let end = Instant::now() + Duration::from_secs(40);
    let mut out = Vec::new();
    while out.len() < count && Instant::now() < end {
        let Some(Ok(record)) = client.poll(Duration::from_millis(200)) else { continue };
        let text = |b: Option<&[u8]>| String::from_utf8_lossy(b.unwrap_or_default()).into_owned();
        let headers = record.headers().expect("headers").iter().map(|h| (h.key.to_owned(), text(h.value))).collect();
        out.push((text(record.key()), headers, serde_json::from_slice(record.payload().unwrap_or_default()).expect("JSON")));
    }
    out
}

#[test]
fn a_life_is_told_to_a_topic_in_order() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("incidents");
    broker.create_topic(&topic, 3, &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(tell_a_life(broker, topic));
}

async fn tell_a_life(broker: &Broker, topic: String) {
    let shelf = Arc::new(Shelf::default());
    let house = House::start(Arc::clone(&shelf), vec![("bus", bus(&broker.bootstrap, &topic))], &[], clock(5));
    let now = (house.clock)();
    let first = incident(1, now);
    let acknowledged = later(&first, IncidentState::Acknowledged, now);
    let over = Incident { closed_as: Some(ClosedAs::Fixed), ..later(&acknowledged, IncidentState::Resolved, now) };
    for (notice, i) in [(Notice::Opened, &first), (Notice::Acknowledged, &acknowledged), (Notice::Resolved, &over)] {
        shelf.say("bus", notice, i, now);
        house.wake.notify_one();
        house.all_done().await;
    }
    assert_eq!(notifier(bus(&broker.bootstrap, &topic)).test(now).await.as_str(), "accepted");
    let found = records(&broker.bootstrap, &topic, 4);
    let ours: Vec<_> = found.iter().filter(|(key, ..)| *key == first.id).collect();
    let types: Vec<&str> = ours.iter().map(|(_, h, _)| h["ce_type"].as_str()).collect();
    assert_eq!(types, ["org.bellwether.incident.opened.v1", "org.bellwether.incident.acknowledged.v1", "org.bellwether.incident.resolved.v1"]);
    for (_, headers, data) in &ours {
        assert_eq!((headers["ce_specversion"].as_str(), headers["content-type"].as_str()), ("1.0", "application/json"));
        assert_eq!((headers["ce_subject"].as_str(), headers["ce_partitionkey"].as_str()), (first.id.as_str(), first.id.as_str()));
        assert_eq!(headers["ce_source"], "https://bellwether.example");
        assert!(!headers["ce_id"].is_empty() && headers["ce_time"].ends_with('Z'));
        assert_eq!(data["incident"]["model"], "model-1");
    }
    assert!(found.iter().any(|(_, h, _)| h["ce_type"] == "org.bellwether.test.ping.v1"));
    // A topic that is not there is a refusal, and somebody else hears of it.
    let delivery = Delivery::new("bus", Message { notice: Notice::Opened, at: now, incident: first });
    let outcome = notifier(bus(&broker.bootstrap, &unique("nowhere"))).deliver(Errand::first(&delivery), now).await.outcome;
    assert!(matches!(outcome, Outcome::Refused { .. } | Outcome::Uncertain { .. }), "{outcome:?}");
    house.stop().await;
}

/// What a broker answers to a record, and what it means. What the client repeats by itself is accepted in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_every_bad_answer_of_a_broker_is_told_apart() {
    let cases: &[(Err, &[&str])] = &[
        (Err::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, &["refused"]),
        (Err::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED, &["refused"]),
        (Err::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, &["refused"]),
        (Err::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION, &["refused"]),
        (Err::RD_KAFKA_RESP_ERR_INVALID_RECORD, &["refused"]),
        (Err::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, &["refused"]),
        (Err::RD_KAFKA_RESP_ERR_INVALID_CONFIG, &["refused"]),
        (Err::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, &["accepted"]),
        (Err::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, &["accepted"]),
        (Err::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, &["accepted"]),
        (Err::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, &["accepted"]),
        (Err::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, &["accepted"]),
        (Err::RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION, &["uncertain"]),
        (Err::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, &["accepted", "retry"]),
        (Err::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, &["accepted", "retry"]),
        (Err::RD_KAFKA_RESP_ERR_UNKNOWN, &["retry", "accepted"]),
        (Err::RD_KAFKA_RESP_ERR_INVALID_MSG, &["retry", "accepted"]),
        (Err::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS, &["retry"]),
        (Err::RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT, &["retry"]),
        (Err::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, &["retry"]),
        (Err::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE, &["retry", "accepted"]),
    ];
    assert!(cases.len() >= 20);
    let now = clock(1)();
    let mut wrong = Vec::new();
    for (n, (code, expected)) in cases.iter().enumerate() {
        let cluster = MockCluster::new(1).expect("a mock");
        cluster.create_topic("t", 1, 1).expect("a topic");
        cluster.request_errors(RDKafkaApiKey::Produce, &[*code]);
        let delivery = Delivery::new("bus", Message { notice: Notice::Opened, at: now, incident: incident(n, now) });
        let outcome = notifier(bus(&cluster.bootstrap_servers(), "t")).deliver(Errand::first(&delivery), now).await.outcome;
        if !expected.contains(&outcome.as_str()) {
            wrong.push(format!("{code:?}: {outcome:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_there_did_not_take_it() {
    let now = clock(1)();
    for url in ["kafka://127.0.0.1:1", "kafka://no-such-host.invalid:9092"] {
        let receiver = build("kafka", &[("url", url.into()), ("topic", "t".into()), ("properties", json!({"socket.timeout.ms": "2000"}))]);
        let delivery = Delivery::new("bus", Message { notice: Notice::Opened, at: now, incident: incident(0, now) });
        let began = Instant::now();
        let outcome = notifier(receiver).deliver(Errand::first(&delivery), now).await.outcome;
        assert!(matches!(outcome, Outcome::Retry { .. } | Outcome::Uncertain { .. }), "{url}: {outcome:?}");
        assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
    }
}
