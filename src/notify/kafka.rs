//! CloudEvents to a Kafka topic: for platforms that want to know of incidents as they know of everything else.
//!
//! Binary mode: attributes are headers (`ce_*`), the value is the data. The key is the incident, so a partition holds what happened
//! to it in order. The producer is idempotent and waits for all replicas; a record whose report was lost comes again with the same
//! `id`, by which consumers drop it. The client is made at the first record and not when the configuration is checked.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::http;
use super::webhook::standard;
use super::{Common, Errand, Form, Kind, Knob, Manner, Notifier, PUBLIC_ONLY, Reader, Receiver, Repeat, Table};
use crate::domain::Time;
use crate::domain::delivery::{Delivery, Outcome, Receipt};

pub const KIND: Kind = Kind {
    name: "kafka",
    about: "a Kafka topic: a CloudEvent for every news, keyed by incident",
    knobs: &[
        Knob { name: "url", about: "kafka://host:9092, with all brokers separated by commas", form: Form::Text, required: true },
        Knob { name: "topic", about: "the topic, which must exist", form: Form::Text, required: true },
        Knob { name: "properties", about: "handed to librdkafka as they are, such as security.protocol", form: Form::Map, required: false },
        Knob { name: "password", about: "sasl.password", form: Form::Secret, required: false },
        PUBLIC_ONLY,
    ],
    build,
};

/// A record that was not taken by then is given up by the client, milliseconds. Below the time of an attempt.
const DELIVERY_MS_MAX: u64 = 10_000;
/// Properties that are ours to set.
const OWN: &[&str] = &["bootstrap.servers", "metadata.broker.list", "enable.idempotence", "acks", "message.timeout.ms", "client.id"];

struct Kafka {
    config: ClientConfig,
    brokers: Vec<(String, u16)>,
    topic: String,
    is_public_only: bool,
    common: Common,
    words: http::Client,
    producer: Mutex<Option<FutureProducer>>,
}

fn build(name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let is_public_only = r.bool(PUBLIC_ONLY.name);
    let url = r.text("url");
    let url = r.required("url", url).unwrap_or_default();
    let mut brokers = Vec::new();
    for one in url.split(',').map(str::trim).filter(|b| !b.is_empty()) {
        match broker(one, is_public_only) {
            Ok(broker) => brokers.push(broker),
            Err(why) => r.problem("url", format!("url: {one:?} {why}")),
        }
    }
    let topic = r.text("topic");
    let topic = r.required("topic", topic).unwrap_or_default();
    if topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        r.problem("topic", format!("topic {topic:?} is no name of up to 249 letters, digits, '.', '_' and '-'"));
    }
    let mut config = ClientConfig::new();
    let properties: BTreeMap<String, String> = r.map("properties");
    for (key, value) in &properties {
        if OWN.contains(&key.as_str()) {
            r.problem(&format!("properties.{key}"), format!("property {key} is set by bellwether"));
        }
        config.set(key, value);
    }
    let password = r.secret("password");
    let mut secrets: Vec<SecretString> = password.iter().cloned().collect();
    secrets.extend(properties.iter().filter(|(k, _)| k.contains("password") || k.contains("secret")).map(|(_, v)| v.clone().into()));
    if let Some(password) = &password {
        config.set("sasl.password", password.expose_secret());
    }
    let list = brokers.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",");
    config
        .set("bootstrap.servers", list)
        .set("client.id", format!("bellwether-{name}"))
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("message.timeout.ms", DELIVERY_MS_MAX.to_string())
        .set("topic.metadata.propagation.max.ms", "2000")
        .set("reconnect.backoff.max.ms", "1000")
        .set("socket.keepalive.enable", "true");
    if r.problems.is_empty()
        && let Err(why) = config.create_native_config()
    {
        r.problem("properties", format!("properties: {why}"));
    }
    let words = http::Client::new(&common.version, false, is_public_only, secrets).map_err(|why| vec![("url".to_owned(), why)])?;
    if !r.problems.is_empty() {
        return Err(r.problems);
    }
    let producer = Mutex::new(None);
    Ok(Receiver::Messages(Box::new(Kafka { config, brokers, topic, is_public_only, common: common.clone(), words, producer })))
}

/// `kafka://host:port`, or both without the scheme.
fn broker(text: &str, is_public_only: bool) -> Result<(String, u16), String> {
    let rest = match text.split_once("://") {
        Some(("kafka", rest)) => rest,
        Some((scheme, rest)) => {
            // An address that is refused is refused before its scheme is.
            http::place(rest.split(['/', ':']).next().unwrap_or_default(), is_public_only)?;
            return Err(format!("has scheme {scheme:?} (known: kafka)"));
        }
        None => text,
    };
    let rest = rest.trim_end_matches('/');
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().map_err(|_| format!("has no port from 1 to 65535: {port:?}"))?),
        None => (rest, 9_092),
    };
    if host.is_empty() || port == 0 || host.contains(['@', '/', ' ']) {
        return Err("is not host:port".to_owned());
    }
    http::place(host, is_public_only)?;
    Ok((host.to_owned(), port))
}

#[async_trait]
impl Notifier for Kafka {
    async fn deliver(&self, errand: Errand<'_>, _now: Time) -> Receipt {
        let delivery = errand.delivery;
        let attributes = attributes(delivery, &self.common);
        let data = standard(&delivery.message, &self.common)["data"].to_string();
        self.send(&delivery.message.incident.id, &attributes, &data).await.into()
    }

    async fn test(&self, now: Time) -> Outcome {
        let attributes = vec![
            ("specversion", "1.0".to_owned()),
            ("id", format!("test-{}", now.0)),
            ("source", source(&self.common)),
            ("type", "org.bellwether.test.ping.v1".to_owned()),
            ("time", now.rfc3339()),
        ];
        self.send("test", &attributes, &json!({"instance": self.common.instance}).to_string()).await
    }

    fn manner(&self) -> Manner {
        Manner { repeat: Repeat::SameMessage, ..Manner::VENDOR }
    }
}

impl Kafka {
    async fn send(&self, key: &str, attributes: &[(&'static str, String)], data: &str) -> Outcome {
        // librdkafka resolves by itself; what it would find now is looked at here.
        for (host, port) in &self.brokers {
            if let Err(why) = http::resolve(host, *port, self.is_public_only).await {
                return Outcome::Retry { status: None, detail: format!("not sent: {why}"), after_ms: None };
            }
        }
        let producer = match self.producer() {
            Ok(producer) => producer,
            Err(why) => return Outcome::Refused { status: None, detail: format!("no client: {}", self.words.plain(&why.to_string())) },
        };
        let mut headers =
            OwnedHeaders::new_with_capacity(attributes.len() + 1).insert(Header { key: "content-type", value: Some("application/json") });
        for (name, value) in attributes {
            headers = headers.insert(Header { key: &format!("ce_{name}"), value: Some(value) });
        }
        let record = FutureRecord::to(&self.topic).key(key).payload(data).headers(headers);
        let sent = tokio::time::timeout(http::REQUEST_TIMEOUT, producer.send(record, Timeout::After(Duration::from_secs(2)))).await;
        match sent {
            Ok(Ok(at)) => Outcome::Accepted { status: 0, detail: format!("{}[{}] at offset {}", self.topic, at.partition, at.offset) },
            Ok(Err((why, _))) => {
                if is_fatal(&why) {
                    // A client in that state sends nothing any more.
                    *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                judge(&why, &self.words.plain(&why.to_string()))
            }
            Err(_) => Outcome::Uncertain { detail: "sent, but no report came".to_owned() },
        }
    }

    fn producer(&self) -> Result<FutureProducer, KafkaError> {
        let mut kept = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = kept.as_ref() {
            return Ok(producer.clone());
        }
        let producer: FutureProducer = self.config.create()?;
        *kept = Some(producer.clone());
        Ok(producer)
    }
}

fn is_fatal(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Fatal))
}

/// What the broker says is final, what the network does is not; and a time-out does not say whether the record was written.
fn judge(error: &KafkaError, words: &str) -> Outcome {
    use RDKafkaErrorCode as Code;
    let detail = words.to_owned();
    match error.rdkafka_error_code() {
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::MessageSizeTooLarge
            | Code::InvalidTopic
            | Code::InvalidRecord
            | Code::InvalidConfig
            | Code::PolicyViolation
            | Code::UnknownTopic
            | Code::UnknownTopicOrPartition
            | Code::SaslAuthenticationFailed,
        ) => Outcome::Refused { status: None, detail: format!("refused: {detail}") },
        Some(
            Code::MessageTimedOut
            | Code::RequestTimedOut
            | Code::PurgeInflight
            | Code::OperationTimedOut
            | Code::NetworkException
            | Code::BrokerTransportFailure,
        ) => Outcome::Uncertain { detail: format!("sent, but no report came: {detail}") },
        Some(_) | None => Outcome::Retry { status: None, detail: format!("not sent: {detail}"), after_ms: None },
    }
}

fn source(common: &Common) -> String {
    if common.external_url.is_empty() { format!("bellwether:{}", common.instance) } else { common.external_url.clone() }
}

/// The attributes of the event, but `datacontenttype`.
fn attributes(delivery: &Delivery, common: &Common) -> Vec<(&'static str, String)> {
    let message = &delivery.message;
    vec![
        ("specversion", "1.0".to_owned()),
        ("id", delivery.id.clone()),
        ("source", source(common)),
        ("type", format!("org.bellwether.incident.{}.v1", message.notice.as_str())),
        ("subject", message.incident.id.clone()),
        ("time", message.at.rfc3339()),
        ("partitionkey", message.incident.id.clone()),
    ]
}

/// The same event in one JSON document, for a webhook.
pub(super) fn structured(delivery: &Delivery, common: &Common) -> Value {
    let mut event: serde_json::Map<String, Value> =
        attributes(delivery, common).into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    event.insert("datacontenttype".to_owned(), json!("application/json"));
    event.insert("data".to_owned(), standard(&delivery.message, common)["data"].clone());
    Value::Object(event)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, message, table};
    use super::*;
    use crate::domain::delivery::Notice;

    #[test]
    fn what_is_wrong_is_said_in_words() {
        for (url, topic, properties, words) in [
            ("http://h:1", "t", json!({}), "known: kafka"),
            ("kafka://h:0", "t", json!({}), "not host:port"),
            ("kafka://u:p@h:1", "t", json!({}), "not host:port"),
            ("kafka://169.254.169.254:9092", "t", json!({}), "metadata"),
            ("h:9092", "a b", json!({}), "no name"),
            ("h:9092", "t", json!({"acks": "0"}), "is set by bellwether"),
            ("h:9092", "t", json!({"no.such": "0"}), "no.such"),
        ] {
            let t = table(&[("url", url.into()), ("topic", topic.into()), ("properties", properties)]);
            let Err(problems) = build("x", &common(), &t) else { panic!("built {url}") };
            assert!(format!("{problems:?}").contains(words), "{url}: {problems:?}");
        }
    }

    #[test]
    fn an_event_is_a_cloud_event() {
        let event = structured(&Delivery::new("bus", message(Notice::Opened)), &common());
        assert_eq!(event["type"], "org.bellwether.incident.opened.v1");
        assert_eq!((&event["subject"], &event["specversion"]), (&json!("inc-01JD2QF3K8M4"), &json!("1.0")));
        assert_eq!(event["data"]["incident"]["model"], "loan-scorer");
    }
}
