//! PagerDuty, by its Events API version 2.
//!
//! One incident of ours is one alert there, because all our events carry the same `dedup_key` for the incident's whole life. A
//! `trigger` updates that alert while it is open, and *opens a second one* once somebody has closed it; so a trigger whose answer
//! was lost may be repeated only under the conditions that `dispatch` knows as [`Repeat::SameAlert`](super::Repeat).
//!
//! An `acknowledge` or `resolve` for which nothing is open is dropped there without a word, which is what we want.

use async_trait::async_trait;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::http::{self, Answer, Client};
use super::{Act, CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Table, cut, nothing_to_say};
use crate::domain::delivery::{Message, Notice, Outcome, Receipt};
use crate::domain::{Severity, Time};

pub const KIND: Kind = Kind {
    name: "pagerduty",
    about: "PagerDuty, Events API v2: one alert per incident, acknowledged and resolved with it",
    knobs: &[
        Knob { name: "routing_key", about: "integration key of the service or orchestration, 32 characters", form: Form::Secret, required: true },
        Knob {
            name: "url",
            about: "the service region: https://events.eu.pagerduty.com for the EU; a URL with a path of its own is taken as it is",
            form: Form::Url,
            required: false,
        },
        Knob {
            name: "webhook_secret",
            about: "of a webhook subscription (v3) to /api/v1/receivers/<name>/events: who acknowledges there acknowledges here; several, by spaces",
            form: Form::Secret,
            required: false,
        },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

const URL_DEFAULT: &str = "https://events.pagerduty.com";
const ENQUEUE_PATH: &str = "/v2/enqueue";
const ROUTING_KEY_CHARS: usize = 32;
const SUMMARY_CHARS_MAX: usize = 1_024;
const DEDUP_KEY_CHARS_MAX: usize = 255;
/// An incident's id and slashes beside the instance's name, with room to grow.
const DEDUP_KEY_CHARS_REST: usize = 55;
/// The vendor takes 512 KB; nobody reads more than this at night.
const BODY_BYTES_AIM: usize = 32 * 1024;
/// One row of the table of details.
const DETAIL_CHARS_MAX: usize = 1_000;
/// Fields for which the vendor names no bound.
const FIELD_CHARS_MAX: usize = 255;
const EXEMPLARS_MAX: usize = 5;
/// The vendor's limit is about 120 a minute for each key.
const PER_MINUTE_MAX: u32 = 100;

struct PagerDuty {
    url: Url,
    routing_key: SecretString,
    common: Common,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let routing_key = r.secret("routing_key");
    let routing_key = r.required("routing_key", routing_key);
    if let Some(key) = &routing_key {
        let key = key.expose_secret();
        if key.chars().count() != ROUTING_KEY_CHARS || !key.bytes().all(|b| b.is_ascii_alphanumeric()) {
            r.problem("routing_key", format!("routing_key is not {ROUTING_KEY_CHARS} letters and digits"));
        }
    }
    let url = r.text("url").unwrap_or_else(|| URL_DEFAULT.to_owned());
    let mut url = r.url("url", &url);
    if let Some(base) = url.as_mut().filter(|u| u.path() == "/") {
        base.set_path(ENQUEUE_PATH);
    }
    // Read for its faults; used where webhooks come in.
    let _ = r.secret("webhook_secret");
    if common.instance.chars().count() > DEDUP_KEY_CHARS_MAX - DEDUP_KEY_CHARS_REST {
        r.problem("instance", format!("instance is longer than {} characters", DEDUP_KEY_CHARS_MAX - DEDUP_KEY_CHARS_REST));
    }
    let client = r.client(common, routing_key.iter().cloned().collect());
    match (routing_key, url, client) {
        (Some(routing_key), Some(url), Some(client)) if r.problems.is_empty() => {
            Ok(Receiver::Messages(Box::new(PagerDuty { url, routing_key, common: common.clone(), client })))
        }
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for PagerDuty {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        match self.body(&errand.delivery.message) {
            Some(body) => self.post(body, now).await.into(),
            None => nothing_to_say().into(),
        }
    }

    async fn test(&self, now: Time) -> Outcome {
        let key = format!("bellwether/{}/test", self.common.instance);
        let body = json!({
            "routing_key": self.routing_key.expose_secret(),
            "event_action": "trigger",
            "dedup_key": key,
            "client": "Bellwether",
            "payload": {
                "summary": format!("Bellwether test message from {}: nothing is wrong, please resolve", self.common.instance),
                "source": self.common.instance,
                "severity": "info",
                "timestamp": now.rfc3339(),
            },
        });
        match self.post(body, now).await {
            Outcome::Accepted { status, .. } => Outcome::Accepted { status, detail: format!("alert {key} is open there; resolve it by hand") },
            other => other,
        }
    }

    fn manner(&self) -> Manner {
        Manner { per_minute_max: Some(PER_MINUTE_MAX), ..Manner::VENDOR }
    }
}

impl PagerDuty {
    async fn post(&self, body: Value, now: Time) -> Outcome {
        match self.client.post(&self.url, http::json_headers(), body.to_string().into_bytes(), now).await {
            Ok(answer) => judge(&answer),
            Err(failure) => failure.into(),
        }
    }

    fn body(&self, message: &Message) -> Option<Value> {
        let action = match Act::of(message) {
            Act::Trigger => "trigger",
            Act::Acknowledge => "acknowledge",
            Act::Resolve => "resolve",
            Act::Nothing => return None,
        };
        let incident = &message.incident;
        let mut body = json!({
            "routing_key": self.routing_key.expose_secret(),
            "event_action": action,
            "dedup_key": format!("bellwether/{}/{}", self.common.instance, incident.id),
            "client": "Bellwether",
        });
        if let Some(href) = self.common.incident_url(&incident.id) {
            body["client_url"] = json!(href);
            body["links"] = json!([{"href": href, "text": "Evidence"}]);
        }
        if action == "trigger" {
            let summary = match message.notice {
                Notice::Reminder => format!("To be reported: {}; {}", crate::respond::duties::words(incident, message.at), incident.title),
                _ => incident.title.clone(),
            };
            let mut payload = json!({
                "summary": cut(&summary, SUMMARY_CHARS_MAX),
                "source": cut(&format!("{}/{}", incident.key.environment, incident.key.model), FIELD_CHARS_MAX),
                "severity": severity(incident.severity),
                "timestamp": incident.onset.at.rfc3339(),
                "group": cut(&incident.key.environment, FIELD_CHARS_MAX),
                "class": incident.key.category.as_str(),
                "custom_details": details(message),
            });
            if let Some(version) = incident.versions.first() {
                payload["component"] = json!(cut(version, FIELD_CHARS_MAX));
            }
            body["payload"] = payload;
            shrink(&mut body);
        }
        Some(body)
    }
}

/// The vendor's table of answers. A 2xx that is not theirs is a portal or proxy that took the page in their place.
fn judge(answer: &Answer) -> Outcome {
    let is_theirs = answer.status == 202 || serde_json::from_slice::<Value>(&answer.body).is_ok_and(|v| v["status"] == "success");
    if answer.is_success() && !is_theirs {
        let detail = format!("{}, which is not how PagerDuty accepts", answer.detail());
        return Outcome::Retry { status: Some(answer.status), detail, after_ms: answer.retry_after_ms };
    }
    answer.judge()
}

// === what comes back ===

/// What PagerDuty tells us of an incident of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Of the event: the same when it is sent again.
    pub id: String,
    /// Ours.
    pub incident: String,
    pub what: Word,
    /// Who did it, in words.
    pub by: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Acknowledged,
    Resolved,
}

/// The secrets of the webhook subscriptions that lead to a receiver with these settings.
pub fn webhook_secret(table: &Table) -> Option<SecretString> {
    Reader::new(table).secret("webhook_secret")
}

/// Is one of the signatures (`v1=<hex>,v1=<hex>`) made with one of the secrets? All are compared, each in constant time.
pub fn is_signed(body: &[u8], signatures: &str, secrets: &SecretString) -> bool {
    let mut found = subtle::Choice::from(0);
    for secret in secrets.expose_secret().split_whitespace() {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret.as_bytes()).expect("this mac takes a key of any length");
        mac.update(body);
        let ours: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        for theirs in signatures.split(',').filter_map(|s| s.trim().strip_prefix("v1=")) {
            found |= subtle::ConstantTimeEq::ct_eq(ours.as_bytes(), theirs.to_ascii_lowercase().as_bytes());
        }
    }
    found.into()
}

/// What a signed body says to us. Nothing, where it is another incident's, another instance's, an event of another type, or the echo
/// of what we did ourselves.
pub fn hear(body: &[u8], instance: &str) -> Option<Heard> {
    let doc: Value = serde_json::from_slice(body).ok()?;
    let event = &doc["event"];
    let what = match event["event_type"].as_str()? {
        "incident.acknowledged" => Word::Acknowledged,
        "incident.resolved" => Word::Resolved,
        _ => return None,
    };
    let incident = event["data"]["incident_key"].as_str()?.strip_prefix("bellwether/")?.strip_prefix(instance)?.strip_prefix('/')?;
    let agent = &event["agent"];
    // An integration is a machine, and most often we. Whoever has no agent was moved by a rule or a clock of theirs.
    let is_person = agent["type"].as_str().is_some_and(|t| t.starts_with("user"));
    if !is_person {
        return None;
    }
    let name = super::story::line(agent["summary"].as_str().unwrap_or("somebody"), 100);
    let id = event["id"].as_str().filter(|id| !id.is_empty() && id.len() <= 200)?;
    Some(Heard { id: id.to_owned(), incident: incident.to_owned(), what, by: format!("{name} (PagerDuty)") })
}

fn severity(severity: Severity) -> &'static str {
    match severity.level() {
        1 => "critical",
        2 => "error",
        _ => "warning",
    }
}

/// Shown as a table: flat and short.
fn details(message: &Message) -> Map<String, Value> {
    let incident = &message.incident;
    let mut out = Map::new();
    let mut put = |key: &str, text: String| {
        if !text.is_empty() {
            out.insert(key.to_owned(), Value::String(cut(&text, DETAIL_CHARS_MAX)));
        }
    };
    put("severity_reason", incident.severity_reasons.iter().map(|a| a.answer.as_str()).collect::<Vec<_>>().join("; "));
    put("page_reason", incident.page_reason.clone());
    put("since", format!("{} (between {} and {})", incident.onset.at, incident.onset.from, incident.onset.to));
    put("findings", incident.findings.iter().map(|f| f.headline.as_str()).collect::<Vec<_>>().join("; "));
    put("segments", incident.segments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    put("versions", incident.versions.join(", "));
    if let Some(users) = &incident.users_affected {
        put("users_affected", format!("about {:.0} ({:.0} to {:.0})", users.estimate, users.low, users.high));
    }
    if let Some(cause) = &incident.cause {
        let probability = cause.ranked.iter().find(|(c, _)| *c == cause.best).map_or(String::new(), |(_, p)| format!(" ({p:.2})"));
        put("likely_cause", format!("{}{probability}: {}", cause.best, cause.facts.join("; ")));
    }
    put("suggested_action", incident.action.clone());
    if incident.reopened > 0 {
        put("reopened", format!("{} times within a day", incident.reopened));
    }
    let exemplars = incident.exemplars.iter().take(EXEMPLARS_MAX).map(|e| {
        let facts = e.facts.iter().map(|(name, value)| format!(" {name}={value}")).collect::<String>();
        format!("{} {} {}{facts}", e.id, e.time, e.status)
    });
    put("exemplars", exemplars.collect::<Vec<_>>().join("; "));
    out
}

/// Brings the body below its aim: first without exemplars, then without details. The summary is short already.
fn shrink(body: &mut Value) {
    if body.to_string().len() <= BODY_BYTES_AIM {
        return;
    }
    if let Some(details) = body["payload"]["custom_details"].as_object_mut() {
        details.remove("exemplars");
        details.insert("truncated".to_owned(), json!("exemplars left out; see the incident's page"));
    }
    if body.to_string().len() > BODY_BYTES_AIM {
        body["payload"]["custom_details"] = json!({"truncated": "details left out; see the incident's page"});
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, message};
    use super::*;
    use crate::domain::incident::Exemplar;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn pagerduty() -> PagerDuty {
        let client = Client::new("0", false, false, vec![]).expect("a client");
        PagerDuty { url: http::endpoint(URL_DEFAULT).expect("a url"), routing_key: KEY.to_owned().into(), common: common(), client }
    }

    #[test]
    fn every_notice_has_its_action() {
        for (notice, action) in [
            (Notice::Opened, Some("trigger")),
            (Notice::Escalated, Some("trigger")),
            (Notice::Reopened, Some("trigger")),
            (Notice::Updated, Some("trigger")),
            (Notice::Acknowledged, Some("acknowledge")),
            (Notice::Resolved, Some("resolve")),
            (Notice::Merged, Some("resolve")),
            (Notice::Suppressed, Some("resolve")),
            (Notice::Mitigated, None),
            (Notice::Recovering, None),
        ] {
            let body = pagerduty().body(&message(notice));
            assert_eq!(body.as_ref().and_then(|b| b["event_action"].as_str()), action, "{notice:?}");
            if let Some(body) = body {
                assert_eq!(body["dedup_key"], "bellwether/eu-1/inc-01JD2QF3K8M4");
                assert_eq!(body.get("payload").is_some(), action == Some("trigger"));
            }
        }
    }

    #[test]
    fn an_update_of_an_incident_that_is_over_opens_nothing() {
        let mut message = message(Notice::Resolved);
        message.notice = Notice::Updated;
        assert_eq!(pagerduty().body(&message), None);
    }

    #[test]
    fn the_body_is_as_the_page_says() {
        let body = pagerduty().body(&message(Notice::Opened)).expect("a body");
        assert_eq!(
            body,
            json!({
                "routing_key": KEY, "event_action": "trigger", "dedup_key": "bellwether/eu-1/inc-01JD2QF3K8M4",
                "client": "Bellwether", "client_url": "https://bellwether.example/incidents/inc-01JD2QF3K8M4",
                "links": [{"href": "https://bellwether.example/incidents/inc-01JD2QF3K8M4", "text": "Evidence"}],
                "payload": {
                    "summary": "loan-scorer prod: error rate 0.4 % → 3.1 %", "source": "prod/loan-scorer", "severity": "error",
                    "timestamp": "2026-11-20T09:12:00Z", "component": "2026-11-18", "group": "prod", "class": "model_failure",
                    "custom_details": {
                        "severity_reason": "degraded quality, 1 of 3 regions", "page_reason": "severity 2",
                        "since": "2026-11-20T09:12:00Z (between 2026-11-20T09:12:00Z and 2026-11-20T09:12:00Z)",
                        "findings": "error rate 0.4 % → 3.1 %", "segments": "region=eu", "versions": "2026-11-18",
                        "users_affected": "about 1240 (1100 to 1400)",
                        "likely_cause": "pipeline (0.71): version 2026-11-18 deployed 9 min before",
                        "suggested_action": "route 0 % to 2026-11-18", "exemplars": "p-1 2026-11-20T09:12:00Z error code=500",
                    },
                },
            })
        );
    }

    #[test]
    fn a_large_incident_shrinks_and_says_so() {
        let mut m = message(Notice::Opened);
        m.incident.title = "ü".repeat(5_000);
        let fact = ("code".to_owned(), "x".repeat(9_000));
        m.incident.exemplars = (0..50)
            .map(|i| Exemplar {
                id: i.to_string(),
                hash: i,
                time: Time(0),
                version: "v".repeat(9_000),
                status: "error".into(),
                facts: vec![fact.clone(); 20],
            })
            .collect::<Vec<_>>()
            .into();
        m.incident.versions = vec!["v".repeat(9_000); 50];
        let body = pagerduty().body(&m).expect("a body");
        assert!(body.to_string().len() <= BODY_BYTES_AIM);
        assert_eq!(body["payload"]["summary"].as_str().map(|s| s.chars().count()), Some(SUMMARY_CHARS_MAX));
        let mut wide = body.clone();
        wide["payload"]["custom_details"] = json!({"exemplars": "x".repeat(40_000), "findings": "f"});
        shrink(&mut wide);
        assert_eq!(wide["payload"]["custom_details"]["findings"], "f");
        assert!(wide["payload"]["custom_details"]["truncated"].is_string());
        wide["payload"]["custom_details"] = json!({"findings": "x".repeat(40_000)});
        shrink(&mut wide);
        assert!(wide.to_string().len() <= BODY_BYTES_AIM && wide["payload"]["custom_details"]["truncated"].is_string());
    }

    #[test]
    fn a_signature_is_checked_as_the_page_says() {
        let body = br#"{"event":{"id":"01TEST","event_type":"incident.acknowledged"}}"#;
        let good = "v1=b3a0bd4cd0e8492fd5122537bbb079e8e49e683e078421ee55e118a59c5561a8";
        let secrets: SecretString = "another bellwether-test-secret".to_owned().into();
        assert!(is_signed(body, good, &secrets) && is_signed(body, &format!("v1=00,{}", good.to_uppercase().replace("V1", "v1")), &secrets));
        for bad in ["", "v1=", &good[3..], &good.replace("v1", "v2"), &good[..good.len() - 1]] {
            assert!(!is_signed(body, bad, &secrets), "{bad}");
        }
        assert!(!is_signed(b"{}", good, &secrets) && !is_signed(body, good, &"another".to_owned().into()));
    }

    #[test]
    fn what_is_heard_is_about_our_incidents_and_done_by_people() {
        let event = |kind: &str, key: &str, agent: Value| {
            json!({"event": {"id": "01", "event_type": kind, "agent": agent, "data": {"incident_key": key}}}).to_string().into_bytes()
        };
        let jane = json!({"type": "user_reference", "summary": "Jane\nDoe"});
        let machine = json!({"type": "inbound_integration_reference", "summary": "Bellwether"});
        let key = "bellwether/eu-1/inc-1";
        let heard = |body: Vec<u8>| hear(&body, "eu-1").map(|h| (h.incident, h.what, h.by));
        let expected = |what| Some(("inc-1".to_owned(), what, "Jane Doe (PagerDuty)".to_owned()));
        assert_eq!(heard(event("incident.acknowledged", key, jane.clone())), expected(Word::Acknowledged));
        assert_eq!(heard(event("incident.resolved", key, jane.clone())), expected(Word::Resolved));
        for other in [
            event("incident.acknowledged", key, machine),
            event("incident.acknowledged", key, Value::Null),
            event("incident.acknowledged", "bellwether/eu-11/inc-1", jane.clone()),
            event("incident.acknowledged", "somebody else's", jane.clone()),
            event("incident.priority_updated", key, jane),
            b"not json".to_vec(),
        ] {
            assert_eq!(heard(other.clone()), None, "{}", String::from_utf8_lossy(&other));
        }
    }

    #[test]
    fn a_portal_in_between_does_not_take_the_page() {
        let answer =
            |status, body: &str| Answer { status, body: body.as_bytes().to_vec(), words: body.to_owned(), is_whole: true, ..Answer::default() };
        assert_eq!(judge(&answer(202, "")).as_str(), "accepted");
        assert_eq!(judge(&answer(200, r#"{"status":"success"}"#)).as_str(), "accepted");
        assert_eq!(judge(&answer(200, "<html>please log in</html>")).as_str(), "retry");
        assert_eq!(judge(&answer(400, "{}")).as_str(), "refused");
        assert_eq!(judge(&answer(429, "")).as_str(), "retry");
        assert_eq!(judge(&answer(302, "")).as_str(), "retry");
    }
}
