//! Any tool that takes a request with a body: the body is a template of the user's.
//!
//! For the many receivers that need a body and a key and no code of their own. A template sees the incident as the generic webhook
//! sends it, and cannot reach anything else: no files, no includes, and fuel, depth and size are bounded. It is tried on a made-up
//! incident full of hostile text when the configuration is checked, so that a forgotten `tojson` is found by the check and not
//! at night. A body that comes out empty is not sent, which is how a template leaves news out.

use std::io::Write;

use async_trait::async_trait;
use minijinja::{Environment, UndefinedBehavior};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::http::Client;
use super::story::{Story, line};
use super::webhook::{OWN_HEADERS, message_id, standard};
use super::{Act, CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Table, nothing_to_say};
use crate::domain::Time;
use crate::domain::alarm::Onset;
use crate::domain::delivery::{Delivery, Message, Notice, Outcome, Receipt};
use crate::domain::incident::{Incident, IncidentKey};
use crate::domain::{Category, IncidentState, Segment, Severity};

pub const KIND: Kind = Kind {
    name: "template",
    about: "any endpoint with a body of your own: a template that sees the incident",
    knobs: &[
        Knob { name: "url", about: "where it is sent", form: Form::Url, required: true },
        Knob {
            name: "body",
            about: "the template: {{ incident.title | tojson }}, {{ act }}, {{ notice }}, {{ text | tojson }} ...; empty means: say nothing",
            form: Form::Text,
            required: true,
        },
        Knob { name: "method", about: "POST (the default), PUT or PATCH", form: Form::Text, required: false },
        Knob { name: "content_type", about: "application/json if left out; then the body must be JSON", form: Form::Text, required: false },
        Knob { name: "headers", about: "headers that are added to every request", form: Form::Map, required: false },
        Knob { name: "bearer_token", about: "for bearer authentication", form: Form::Secret, required: false },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

/// Steps that a template may take. The largest sensible one takes a few thousand.
const FUEL: u64 = 200_000;
const DEPTH_MAX: usize = 50;
const TEMPLATE_BYTES_MAX: usize = 64 * 1024;
const BODY_BYTES_MAX: usize = 256 * 1024;
const JSON: &str = "application/json";

struct Template {
    url: Url,
    method: Method,
    headers: HeaderMap,
    is_json: bool,
    environment: Environment<'static>,
    common: Common,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let url = r.required_url("url");
    let source = r.text("body");
    let source = r.required("body", source);
    let method = match r.text("method").as_deref() {
        None | Some("POST") => Method::POST,
        Some("PUT") => Method::PUT,
        Some("PATCH") => Method::PATCH,
        Some(other) => {
            r.problem("method", format!("unknown method {other:?} (known: PATCH, POST, PUT)"));
            Method::POST
        }
    };
    let content_type = r.text("content_type").unwrap_or_else(|| JSON.to_owned());
    let mut headers = HeaderMap::new();
    match HeaderValue::from_str(&content_type) {
        Ok(value) => drop(headers.insert(CONTENT_TYPE, value)),
        Err(_) => r.problem("content_type", "content_type holds a character that no header can carry"),
    }
    let is_json = content_type.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case(JSON));
    let token = r.secret("bearer_token");
    let mut secrets: Vec<SecretString> = token.iter().cloned().collect();
    if let Some(value) = token.as_ref().and_then(|t| r.credential("bearer_token", &format!("Bearer {}", t.expose_secret()))) {
        headers.insert(AUTHORIZATION, value);
    }
    for (name, value) in r.map("headers") {
        let key = format!("headers.{name}");
        if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            r.problem(&key, format!("header {name} is set by bellwether"));
            continue;
        }
        match HeaderName::try_from(&name) {
            Ok(header) => {
                if let Some(v) = r.credential(&key, &value) {
                    headers.insert(header, v);
                    secrets.push(value.into());
                }
            }
            Err(_) => r.problem(&key, format!("{name:?} is not a header's name")),
        }
    }
    let environment = source.and_then(|source| match environment(source) {
        Ok(environment) => Some(environment),
        Err(why) => {
            r.problem("body", format!("body is no template: {why}"));
            None
        }
    });
    if let Some(environment) = &environment {
        for notice in [Notice::Opened, Notice::Updated, Notice::Acknowledged, Notice::Resolved] {
            if let Err(why) = render(environment, &context(&hostile(notice), common), is_json) {
                r.problem("body", format!("body, tried on an incident that is {}: {why}", notice.as_str()));
                break;
            }
        }
    }
    match (url, environment, r.client(common, secrets)) {
        (Some(url), Some(environment), Some(client)) if r.problems.is_empty() => {
            Ok(Receiver::Messages(Box::new(Template { url, method, headers, is_json, environment, common: common.clone(), client })))
        }
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for Template {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        self.send(errand.delivery, now).await.into()
    }

    /// The body of an incident that was made up.
    async fn test(&self, now: Time) -> Outcome {
        let mut message = hostile(Notice::Opened);
        message.at = now;
        message.incident.id = "inc-TEST".to_owned();
        message.incident.title = format!("Bellwether test message from {}: nothing is wrong", self.common.instance);
        message.incident.versions.clear();
        self.send(&Delivery::new("test", message), now).await
    }

    fn manner(&self) -> Manner {
        Manner::WEBHOOK
    }
}

impl Template {
    async fn send(&self, delivery: &Delivery, now: Time) -> Outcome {
        let body = match render(&self.environment, &context(&delivery.message, &self.common), self.is_json) {
            Ok(body) if body.trim().is_empty() => return nothing_to_say(),
            Ok(body) => body,
            Err(why) => return Outcome::Refused { status: None, detail: format!("the template fails: {}", line(&why, 300)) },
        };
        let mut headers = self.headers.clone();
        for name in ["webhook-id", "idempotency-key"] {
            if let Ok(value) = HeaderValue::from_str(&message_id(&delivery.id)) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        match self.client.request(self.method.clone(), &self.url, headers, body.into_bytes(), now).await {
            Ok(answer) => answer.judge(),
            Err(failure) => failure.into(),
        }
    }
}

fn environment(source: String) -> Result<Environment<'static>, String> {
    if source.len() > TEMPLATE_BYTES_MAX {
        return Err(format!("it is longer than {TEMPLATE_BYTES_MAX} bytes"));
    }
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH_MAX);
    // A misspelt name is a fault and not an empty text.
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("truncate", |text: String, chars: Option<usize>| super::cut(&text, chars.unwrap_or(255)));
    environment.add_filter("iso", |text: String| Time::parse_rfc3339(&text).map_or(text, Time::rfc3339));
    environment.add_filter("duration", |seconds: f64| shown(seconds));
    environment.add_template_owned("body", source).map_err(|e| words(&e))?;
    Ok(environment)
}

/// `1 h 5 min`, for sentences.
fn shown(seconds: f64) -> String {
    let s = seconds.clamp(0.0, 1e9) as u64;
    match (s / 86_400, s / 3_600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, _) => format!("{m} min"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// Writes no further than its bound.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > BODY_BYTES_MAX {
            return Err(std::io::Error::other(format!("it makes more than {BODY_BYTES_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn render(environment: &Environment<'_>, context: &Value, is_json: bool) -> Result<String, String> {
    let mut out = Bounded(Vec::new());
    let template = environment.get_template("body").map_err(|e| words(&e))?;
    template.render_captured_to(minijinja::Value::from(minijinja::value::Serde(context)), &mut out).map_err(|e| words(&e))?;
    let text = String::from_utf8(out.0).map_err(|e| e.to_string())?;
    if is_json && !text.trim().is_empty() {
        serde_json::from_str::<serde::de::IgnoredAny>(&text)
            .map_err(|e| format!("what it makes is not JSON ({e}); write texts as {{{{ incident.title | tojson }}}}"))?;
    }
    Ok(text)
}

fn words(error: &minijinja::Error) -> String {
    let place = error.line().map(|n| format!(" in line {n}")).unwrap_or_default();
    match error.detail() {
        Some(detail) => format!("{}{place}: {detail}", error.kind()),
        None => format!("{}{place}", error.kind()),
    }
}

/// What a template sees.
fn context(message: &Message, common: &Common) -> Value {
    let doc = standard(message, common);
    let story = Story::of(message, common, false);
    let act = match Act::of(message) {
        Act::Trigger => "trigger",
        Act::Acknowledge => "acknowledge",
        Act::Resolve => "resolve",
        Act::Nothing => "none",
    };
    json!({
        "notice": message.notice.as_str(),
        "act": act,
        "at": message.at.rfc3339(),
        "instance": common.instance,
        "incident": doc["data"]["incident"],
        "key": format!("bellwether/{}/{}", common.instance, message.incident.id),
        "headline": story.headline,
        "news": story.news,
        "text": format!("{}\n{}", story.headline, story.plain()),
        "url": story.url.unwrap_or_default(),
    })
}

/// An incident in which every text tries to break out of where it is put.
fn hostile(notice: Notice) -> Message {
    let text = "quote \" backslash \\ line\nbreak tab\t <b>{{ 7 * 7 }} ü";
    let at = Time(1_795_166_080_000);
    let state = if notice == Notice::Resolved { IncidentState::Resolved } else { IncidentState::Open };
    let incident = Incident {
        id: "inc-01JD2QF3K8M4".to_owned(),
        revision: 1,
        key: IncidentKey { environment: text.to_owned(), model: text.to_owned(), category: Category::ModelFailure },
        state,
        severity: Severity::DEGRADED,
        severity_reasons: Default::default(),
        title: text.to_owned(),
        onset: Onset::sharp(at),
        opened_at: at,
        updated_at: at,
        acknowledged_at: None,
        mitigated_at: None,
        resolved_at: (state == IncidentState::Resolved).then_some(at),
        closed_as: None,
        reopened: 0,
        paged: true,
        page_reason: text.to_owned(),
        findings: Vec::new(),
        versions: vec![text.to_owned()],
        segments: vec![Segment { dimension: "region".into(), value: text.into() }],
        users_affected: None,
        cause: None,
        action: text.to_owned(),
        roots: Default::default(),
        merged_into: None,
        merged: Vec::new(),
        merged_beyond: 0,
        told: Vec::new(),
        suppressed: None,
        settles_at: None,
        exemplars: Default::default(),
        response: Default::default(),
        spread: None,
        severity_set: None,
    };
    Message { notice, at, incident }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, message, table};
    use super::*;

    fn problem(body: &str, more: &[(&str, Value)]) -> String {
        let mut pairs = vec![("url", json!("https://x.example/")), ("body", json!(body))];
        pairs.extend(more.iter().cloned());
        match build("x", &common(), &table(&pairs)) {
            Err(problems) => problems.into_iter().map(|(k, w)| format!("{k}: {w}\n")).collect(),
            Ok(_) => String::new(),
        }
    }

    #[test]
    fn a_bad_template_is_found_by_the_check() {
        for (body, words) in [
            ("{{ incident.title", "no template"),
            ("{{ incidnet.title | tojson }}", "undefined"),
            (r#"{"t": "{{ incident.title }}"}"#, "not JSON"),
            ("{% for a in range(9000) %}{% for b in range(9000) %}1{% endfor %}{% endfor %}", "fuel"),
            ("{% include '/etc/passwd' %}1", "body"),
            ("{{ 'x' * 3000000 }}", "body"),
        ] {
            let found = problem(body, &[]);
            assert!(found.contains(words), "{body}: {found}");
        }
        assert!(problem("1", &[("method", json!("GET"))]).contains("known: PATCH, POST, PUT"));
        assert!(problem("1", &[("headers", json!({"webhook-id": "x"}))]).contains("is set by bellwether"));
        assert_eq!(problem("{{ incident.title }}", &[("content_type", json!("text/plain"))]), "");
    }

    #[test]
    fn a_template_says_what_it_is_told() {
        let body = r#"{"message_type": {{ {"trigger": "CRITICAL", "acknowledge": "ACKNOWLEDGEMENT", "resolve": "RECOVERY", "none": "INFO"}[act] | tojson }},
            "entity_id": {{ key | tojson }}, "title": {{ incident.title | truncate(20) | tojson }}, "took": {{ 3900 | duration | tojson }}}"#;
        let e = environment(body.to_owned()).expect("a template");
        let made: Value = serde_json::from_str(&render(&e, &context(&message(Notice::Resolved), &common()), true).expect("rendered")).expect("JSON");
        assert_eq!(
            made,
            json!({"message_type": "RECOVERY", "entity_id": "bellwether/eu-1/inc-01JD2QF3K8M4", "title": "loan-scorer prod: e…", "took": "1 h 5 min"})
        );
        let e = environment("{% if act == 'trigger' %}1{% endif %}".to_owned()).expect("a template");
        assert_eq!(render(&e, &context(&message(Notice::Resolved), &common()), true), Ok(String::new()), "and can keep silent");
    }
}
