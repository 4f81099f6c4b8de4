//! Anybody's endpoint, by the Standard Webhooks specification; or in the form that Alertmanager's own webhook has.
//!
//! The message id is the same at every attempt, so a receiver that remembers ids never acts twice. The signature covers id, time
//! and body, and the body is serialised once: the bytes that are signed are the bytes that are sent. A `whsec_` secret is Base64
//! and is decoded before use; any other text is used as it stands.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::http::Client;
use super::{
    Act, CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Table, alertmanager, cut, kafka,
    nothing_to_say,
};
use crate::domain::Time;
use crate::domain::delivery::{Message, Notice, Outcome, Receipt};
use crate::domain::series::StableHash;

pub const KIND: Kind = Kind {
    name: "webhook",
    about: "any endpoint: Standard Webhooks with signature, CloudEvents, or the body of Alertmanager's webhook",
    knobs: &[
        Knob { name: "url", about: "where messages are posted", form: Form::Url, required: true },
        Knob {
            name: "secret",
            about: "signs every message; whsec_ and Base64, or any text; several separated by spaces while one is replaced by another",
            form: Form::Secret,
            required: false,
        },
        Knob { name: "headers", about: "headers that are added to every request", form: Form::Map, required: false },
        Knob { name: "format", about: "standard (the default), alertmanager or cloudevents (structured)", form: Form::Text, required: false },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

const SECRET_PREFIX: &str = "whsec_";
/// Keys for signing by ed25519, which we do not do.
const ASYMMETRIC_PREFIX: &str = "whsk_";
/// Headers that are ours to set.
pub(super) const OWN_HEADERS: &[&str] =
    &["webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "content-length", "host", "transfer-encoding", "connection"];
/// Findings and segments in one body, which should stay below 20 KB.
const LIST_MAX: usize = 20;
const TEXT_CHARS_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Standard,
    Alertmanager,
    CloudEvents,
}

struct Webhook {
    url: Url,
    keys: Vec<Key>,
    headers: HeaderMap,
    format: Format,
    name: String,
    common: Common,
    client: Client,
    /// The endpoint said 410: it is gone until somebody looks at the configuration.
    is_gone: AtomicBool,
}

/// A key of the Standard Webhooks signature.
pub(crate) struct Key(Zeroizing<Vec<u8>>);

fn build(name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let text = r.text("url");
    let text = r.required("url", text);
    let url = text.as_deref().and_then(|t| r.url("url", t));
    let secret = r.secret("secret");
    let mut secrets: Vec<SecretString> = secret.iter().cloned().collect();
    let mut keys = Vec::new();
    for word in secret.iter().flat_map(|s| s.expose_secret().split_whitespace()) {
        secrets.push(word.to_owned().into());
        match Key::read(word) {
            Ok(key) => keys.push(key),
            Err(why) => r.problem("secret", why),
        }
    }
    let format = match r.text("format").as_deref() {
        None | Some("standard") => Format::Standard,
        Some("alertmanager") => Format::Alertmanager,
        Some("cloudevents") => Format::CloudEvents,
        Some(other) => {
            r.problem("format", format!("unknown format {other:?} (known: alertmanager, cloudevents, standard)"));
            Format::Standard
        }
    };
    let mut headers = HeaderMap::new();
    for (name, value) in r.map("headers") {
        let key = format!("headers.{name}");
        if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            r.problem(&key, format!("header {name} is set by bellwether"));
            continue;
        }
        match (HeaderName::try_from(&name), HeaderValue::from_str(&value)) {
            (Ok(header), Ok(mut v)) => {
                v.set_sensitive(true);
                headers.insert(header, v);
                secrets.push(value.into());
            }
            (Err(_), _) => r.problem(&key, format!("{name:?} is not a header's name")),
            (_, Err(_)) => r.problem(&key, format!("header {name} holds a character that no header can carry")),
        }
    }
    let content_type = match format {
        Format::CloudEvents => "application/cloudevents+json; charset=utf-8",
        Format::Standard | Format::Alertmanager => "application/json; charset=utf-8",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    match (url, r.client(common, secrets)) {
        (Some(url), Some(client)) if r.problems.is_empty() => Ok(Receiver::Messages(Box::new(Webhook {
            url,
            keys,
            headers,
            format,
            name: name.to_owned(),
            common: common.clone(),
            client,
            is_gone: AtomicBool::new(false),
        }))),
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for Webhook {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        let delivery = errand.delivery;
        let body = match self.format {
            Format::Standard => standard(&delivery.message, &self.common),
            Format::CloudEvents => kafka::structured(delivery, &self.common),
            Format::Alertmanager => match alertmanager_body(&delivery.message, &self.name, &self.common) {
                Some(body) => body,
                None => return nothing_to_say().into(),
            },
        };
        self.post(&message_id(&delivery.id), body, now).await.into()
    }

    async fn test(&self, now: Time) -> Outcome {
        let body = json!({"type": "test.ping", "timestamp": now.rfc3339(), "data": {"instance": self.common.instance}});
        self.post(&format!("msg_test-{}", now.0), body, now).await
    }

    fn manner(&self) -> Manner {
        Manner::WEBHOOK
    }
}

impl Webhook {
    async fn post(&self, id: &str, body: Value, now: Time) -> Outcome {
        if self.is_gone.load(Ordering::Relaxed) {
            return Outcome::Refused { status: Some(410), detail: "not sent: the endpoint has answered 410 and is disabled".to_owned() };
        }
        let body = body.to_string().into_bytes();
        let mut headers = self.headers.clone();
        let seconds = now.0.div_euclid(1_000).to_string();
        let signatures: Vec<String> = self.keys.iter().map(|k| k.sign(id, &seconds, &body)).collect();
        for (name, value) in [("webhook-id", id), ("webhook-timestamp", &seconds), ("webhook-signature", &signatures.join(" "))] {
            match HeaderValue::from_str(value) {
                Ok(value) if !value.is_empty() => drop(headers.insert(HeaderName::from_static(name), value)),
                Ok(_) => {}
                Err(_) => return Outcome::Refused { status: None, detail: format!("{name} cannot be put into a header") },
            }
        }
        match self.client.post(&self.url, headers, body, now).await {
            Ok(answer) if answer.status == 410 => {
                self.is_gone.store(true, Ordering::Relaxed);
                Outcome::Refused { status: Some(410), detail: format!("{}; the endpoint is disabled", answer.detail()) }
            }
            Ok(answer) => answer.judge(),
            Err(failure) => failure.into(),
        }
    }
}

// === impl Key ===

impl Key {
    pub(crate) fn read(text: &str) -> Result<Key, String> {
        if text.starts_with(ASYMMETRIC_PREFIX) {
            return Err(format!("secret begins with {ASYMMETRIC_PREFIX}: asymmetric keys are not supported (known: {SECRET_PREFIX}, any text)"));
        }
        let bytes = match text.strip_prefix(SECRET_PREFIX) {
            Some(coded) => STANDARD.decode(coded).map_err(|_| format!("secret is not Base64 after {SECRET_PREFIX}"))?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.is_empty() { Err("secret is empty".to_owned()) } else { Ok(Key(Zeroizing::new(bytes))) }
    }

    pub(crate) fn sign(&self, id: &str, seconds: &str, body: &[u8]) -> String {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).expect("this mac takes a key of any length");
        for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The same at every attempt. A dot would blur what is signed, and odd characters what is sent.
pub(super) fn message_id(delivery_id: &str) -> String {
    let plain: String = delivery_id.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' }).collect();
    // Where something was replaced, two ids must not become one.
    if plain == delivery_id { format!("msg_{plain}") } else { format!("msg_{plain}_{:016x}", StableHash::of(delivery_id.as_bytes())) }
}

pub(super) fn standard(message: &Message, common: &Common) -> Value {
    let incident = &message.incident;
    let mut segments: Map<String, Value> = Map::new();
    for segment in incident.segments.iter().take(LIST_MAX) {
        let entry = segments.entry(segment.dimension.to_string()).or_insert_with(|| Value::String(String::new()));
        let text = entry.as_str().unwrap_or_default();
        *entry = Value::String(if text.is_empty() { segment.value.to_string() } else { format!("{text}, {}", segment.value) });
    }
    let mut doc = json!({
        "id": incident.id,
        "revision": incident.revision,
        "severity": incident.severity.level(),
        "category": incident.key.category.as_str(),
        "state": incident.state.as_str(),
        "title": cut(&incident.title, TEXT_CHARS_MAX),
        "model": incident.key.model,
        "version": incident.versions.first(),
        "environment": incident.key.environment,
        "segments": segments,
        "onset": incident.onset.at.rfc3339(),
        "opened_at": incident.opened_at.rfc3339(),
        "acknowledged_at": incident.acknowledged_at.map(Time::rfc3339),
        "mitigated_at": incident.mitigated_at.map(Time::rfc3339),
        "resolved_at": incident.resolved_at.map(Time::rfc3339),
        "closed_as": incident.closed_as.map(|c| c.as_str()),
        "reopened": incident.reopened,
        "severity_reasons": incident.severity_reasons.iter().take(LIST_MAX)
            .map(|a| json!({"question": a.question, "answer": cut(&a.answer, TEXT_CHARS_MAX), "source": a.source})).collect::<Vec<_>>(),
        "findings": incident.findings.iter().take(LIST_MAX)
            .map(|f| json!({"signal": f.series.signal.to_string(), "headline": cut(&f.headline, TEXT_CHARS_MAX), "onset": f.onset.at.rfc3339()}))
            .collect::<Vec<_>>(),
        "users_affected": incident.users_affected,
        "hypotheses": incident.cause.iter().flat_map(|c| c.ranked.iter().map(move |(cause, probability)| {
            let facts: &[String] = if *cause == c.best { &c.facts } else { &[] };
            json!({"cause": cause.as_str(), "probability": probability, "facts": facts})
        })).collect::<Vec<_>>(),
        "action": cut(&incident.action, TEXT_CHARS_MAX),
        "url": common.incident_url(&incident.id),
    });
    if let Some((finding, change)) = incident.lead().and_then(|f| f.change.as_ref().map(|c| (f, c))) {
        doc["change"] = json!({
            "signal": finding.series.signal.to_string(), "before": change.before, "after": change.after,
            "ci95": [change.low, change.high], "unit": finding.unit.as_str(),
        });
    }
    if message.notice == Notice::Reminder {
        doc["reminder"] = cut(&crate::respond::duties::words(incident, message.at), TEXT_CHARS_MAX).into();
    }
    json!({
        "type": format!("incident.{}", message.notice.as_str()),
        "timestamp": message.at.rfc3339(),
        "data": {"instance": common.instance, "incident": doc},
    })
}

/// What Alertmanager (version 4 of its webhook) would have sent.
fn alertmanager_body(message: &Message, receiver: &str, common: &Common) -> Option<Value> {
    /// What stands for "not yet" there.
    const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
    let incident = &message.incident;
    let (status, ends_at) = match Act::of(message) {
        Act::Trigger => ("firing", ZERO_TIME.to_owned()),
        Act::Resolve => ("resolved", incident.resolved_at.unwrap_or(message.at).rfc3339()),
        Act::Acknowledge | Act::Nothing => return None,
    };
    let labels = alertmanager::labels(incident, &BTreeMap::new());
    let annotations = alertmanager::annotations(incident, common);
    let fingerprint = labels.iter().fold(StableHash::new(), |mut h, (k, v)| *h.part(k.as_bytes()).part(v.as_bytes())).finish();
    let group = json!({"bellwether_incident": incident.id});
    Some(json!({
        "version": "4",
        "groupKey": format!("{{}}:{{bellwether_incident={:?}}}", incident.id),
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": group,
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": common.external_url,
        "alerts": [{
            "status": status,
            "labels": labels,
            "annotations": annotations,
            "startsAt": incident.onset.at.rfc3339(),
            "endsAt": ends_at,
            "generatorURL": common.incident_url(&incident.id).unwrap_or_default(),
            "fingerprint": format!("{fingerprint:016x}"),
        }],
    }))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, message, table};
    use super::*;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    #[test]
    fn signs_as_the_specification_does() {
        let key = Key::read(SECRET).expect("a key");
        let body = br#"{"type":"test.ping","timestamp":"2026-11-20T09:14:40Z","data":{}}"#;
        let ours = key.sign("msg_01JD2QF3K8", "1795166080", body);
        assert_eq!(ours, "v1,tLfhGs9Uvujoz1r8rqXAz1kF6IeFbtI9DfqnZRw40Vo=");
        let theirs = standardwebhooks::Webhook::new(SECRET).expect("a key").sign("msg_01JD2QF3K8", 1_795_166_080, body);
        assert_eq!(Ok(ours), theirs.map_err(|e| e.to_string()));
    }

    #[test]
    fn any_text_is_a_secret_but_not_a_broken_one() {
        assert!(Key::read("correct horse").is_ok());
        for bad in ["whsec_%%%", "whsec_", "whsk_AAEC"] {
            let why = Key::read(bad).err().expect("refused");
            assert!(why.contains("secret") && !why.contains("%%%"), "{why}");
        }
        let t = table(&[("url", "https://x.example/".into()), ("format", "xml".into()), ("headers", json!({"Host": "x", "ok": "1"}))]);
        let Err(problems) = build("x", &common(), &t) else { panic!("built") };
        assert_eq!(problems.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(), ["format", "headers.Host"]);
    }

    #[test]
    fn an_id_has_no_dot_and_stays_its_own() {
        assert_eq!(message_id("inc-1-2-opened-hooks"), "msg_inc-1-2-opened-hooks");
        let ids: std::collections::BTreeSet<_> = ["a.b", "a_b", "a b", "a\nb", "ä"].map(message_id).into();
        assert_eq!(ids.len(), 5);
        assert!(ids.iter().all(|i| i.is_ascii() && !i.contains(['.', ' ', '\n'])));
    }

    #[test]
    fn the_standard_body_is_as_the_page_says() {
        for notice in [Notice::Opened, Notice::Mitigated, Notice::Merged] {
            let body = standard(&message(notice), &common());
            assert_eq!(body["type"], format!("incident.{}", notice.as_str()));
            assert_eq!(body, standard(&message(notice), &common()), "the same bytes at every attempt");
        }
        let body = standard(&message(Notice::Opened), &common());
        let incident = &body["data"]["incident"];
        assert_eq!(body["timestamp"], "2026-11-20T09:14:40Z");
        assert_eq!(incident["segments"], json!({"region": "eu"}));
        assert_eq!(incident["change"], json!({"signal": "error_rate", "before": 0.004, "after": 0.031, "ci95": [0.027, 0.036], "unit": "ratio"}));
        assert_eq!(
            incident["hypotheses"][0],
            json!({"cause": "pipeline", "probability": 0.71, "facts": ["version 2026-11-18 deployed 9 min before"]})
        );
        assert_eq!(incident["url"], "https://bellwether.example/incidents/inc-01JD2QF3K8M4");
        assert!(body.to_string().len() < 20_000);
    }

    #[test]
    fn the_alertmanager_body_fires_and_resolves() {
        let open = alertmanager_body(&message(Notice::Opened), "hooks", &common()).expect("a body");
        assert_eq!(open["groupKey"], r#"{}:{bellwether_incident="inc-01JD2QF3K8M4"}"#);
        assert_eq!((&open["status"], &open["alerts"][0]["endsAt"]), (&json!("firing"), &json!("0001-01-01T00:00:00Z")));
        let over = alertmanager_body(&message(Notice::Resolved), "hooks", &common()).expect("a body");
        assert_eq!((&over["status"], &over["alerts"][0]["endsAt"]), (&json!("resolved"), &json!("2026-11-20T09:24:40Z")));
        assert_eq!(open["alerts"][0]["fingerprint"], over["alerts"][0]["fingerprint"]);
        assert_eq!(alertmanager_body(&message(Notice::Acknowledged), "hooks", &common()), None);
    }
}
