//! Jira Service Management Operations, and Opsgenie as long as it lives: the same integration API at another address.
//!
//! The incident's id is the alert's alias, by which open alerts are de-duplicated; a create after somebody closed the alert opens
//! a second one, as at PagerDuty. An answer of 202 only says that the request will be looked at; what became of it is asked a
//! moment later, because a refusal comes there.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, Url};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};

use super::http::{self, Client, Round};
use super::story::{self, Story};
use super::{Act, CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Table, cut, nothing_to_say};
use crate::domain::Time;
use crate::domain::delivery::{Message, Outcome, Receipt};

pub const KIND: Kind = Kind {
    name: "jsm",
    about: "Jira Service Management Operations (and Opsgenie by its url): one alert per incident, acknowledged and closed with it",
    knobs: &[
        Knob { name: "api_key", about: "key of an API integration", form: Form::Secret, required: true },
        Knob { name: "responders", about: "names of teams, separated by commas", form: Form::Text, required: false },
        Knob { name: "tags", about: "tags, separated by commas", form: Form::Text, required: false },
        Knob {
            name: "url",
            about: "https://api.atlassian.com/jsm/ops/integration/v2 if left out; https://api.opsgenie.com/v2 or its EU twin for Opsgenie",
            form: Form::Url,
            required: false,
        },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

const URL_DEFAULT: &str = "https://api.atlassian.com/jsm/ops/integration/v2";
const MESSAGE_CHARS_MAX: usize = 130;
const DESCRIPTION_CHARS_MAX: usize = 15_000;
const DETAIL_CHARS_MAX: usize = 600;
const NOTE_CHARS_MAX: usize = 25_000;
const ENTITY_CHARS_MAX: usize = 512;
const SOURCE_CHARS_MAX: usize = 100;
const TAGS_MAX: usize = 20;
const TAG_CHARS_MAX: usize = 50;
const RESPONDERS_MAX: usize = 50;
/// What became of a request is asked after these waits, milliseconds.
const ASK_AFTER_MS: [u64; 3] = [300, 700, 1_500];

struct Jsm {
    base: Url,
    responders: Vec<String>,
    tags: Vec<String>,
    headers: HeaderMap,
    common: Common,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let url = r.url_or("url", URL_DEFAULT);
    let key = r.secret("api_key");
    let key = r.required("api_key", key);
    let mut headers = http::json_headers();
    if let Some(value) = key.as_ref().and_then(|k| r.credential("api_key", &format!("GenieKey {}", k.expose_secret()))) {
        headers.insert(AUTHORIZATION, value);
    }
    let (responders, tags) = (r.list("responders"), r.list("tags"));
    if responders.len() > RESPONDERS_MAX {
        r.problem("responders", format!("there are more than {RESPONDERS_MAX} responders"));
    }
    if tags.len() > TAGS_MAX || tags.iter().any(|t| t.chars().count() > TAG_CHARS_MAX) {
        r.problem("tags", format!("at most {TAGS_MAX} tags of at most {TAG_CHARS_MAX} characters"));
    }
    match (url, r.client(common, key.iter().cloned().collect())) {
        (Some(base), Some(client)) if r.problems.is_empty() => {
            Ok(Receiver::Messages(Box::new(Jsm { base, responders, tags, headers, common: common.clone(), client })))
        }
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for Jsm {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        let message = &errand.delivery.message;
        let alias = message.incident.id.as_str();
        let round = self.client.round(now);
        let story = Story::of(message, &self.common, false);
        let note = json!({"source": self.source(), "note": cut(&story.news, NOTE_CHARS_MAX)});
        match Act::of(message) {
            Act::Trigger => self.post(&round, &[], None, &self.alert(message, &story)).await,
            Act::Acknowledge => self.post(&round, &[alias, "acknowledge"], Some("alias"), &note).await,
            Act::Resolve => self.post(&round, &[alias, "close"], Some("alias"), &note).await,
            Act::Nothing => nothing_to_say(),
        }
        .into()
    }

    async fn test(&self, now: Time) -> Outcome {
        let alert = json!({
            "message": cut(&format!("Bellwether test message from {}: nothing is wrong", self.common.instance), MESSAGE_CHARS_MAX),
            "alias": format!("bellwether-test-{}", self.common.instance), "priority": "P5", "source": self.source(),
        });
        match self.post(&self.client.round(now), &[], None, &alert).await {
            Outcome::Accepted { status, detail } => Outcome::Accepted { status, detail: format!("{detail}; close the test alert by hand") },
            other => other,
        }
    }

    fn manner(&self) -> Manner {
        Manner::VENDOR
    }
}

impl Jsm {
    fn source(&self) -> String {
        cut(&format!("Bellwether {}", self.common.instance), SOURCE_CHARS_MAX)
    }

    fn alert(&self, message: &Message, story: &Story) -> Value {
        let incident = &message.incident;
        let details: Map<String, Value> =
            story.facts.iter().take(12).map(|(name, fact)| ((*name).to_owned(), cut(fact, DETAIL_CHARS_MAX).into())).collect();
        let mut tags = vec!["bellwether".to_owned(), incident.key.category.as_str().to_owned()];
        tags.extend(self.tags.iter().cloned());
        tags.truncate(TAGS_MAX);
        let mut alert = json!({
            "message": cut(&story.title, MESSAGE_CHARS_MAX),
            "alias": incident.id,
            "description": cut(&story.plain(), DESCRIPTION_CHARS_MAX),
            "priority": format!("P{}", incident.severity.level()),
            "entity": cut(&story::line(&format!("{}/{}", incident.key.environment, incident.key.model), ENTITY_CHARS_MAX), ENTITY_CHARS_MAX),
            "source": self.source(),
            "tags": tags,
            "details": details,
        });
        if !self.responders.is_empty() {
            alert["responders"] = self.responders.iter().map(|name| json!({"type": "team", "name": name})).collect();
        }
        alert
    }

    async fn post(&self, round: &Round<'_>, path: &[&str], identifier: Option<&str>, body: &Value) -> Outcome {
        let mut url = self.at(path);
        if let Some(kind) = identifier {
            url.query_pairs_mut().append_pair("identifierType", kind);
        }
        let answer = match round.ask(Method::POST, &url, self.headers.clone(), Some(body)).await {
            Ok(answer) => answer,
            Err(failure) => return failure.into(),
        };
        // What is closed or acknowledged although it is not there has its way already.
        if answer.status == 404 && identifier.is_some() {
            return Outcome::Accepted { status: 404, detail: "there is no such alert".to_owned() };
        }
        if !answer.is_success() {
            return answer.judge();
        }
        match answer.document().and_then(|d| d["requestId"].as_str().map(str::to_owned)) {
            Some(request) => self.became(round, answer.status, &request).await,
            None => answer.unreadable(),
        }
    }

    /// What became of a request that was taken. That it is not known yet is no failure.
    async fn became(&self, round: &Round<'_>, status: u16, request: &str) -> Outcome {
        for wait_ms in ASK_AFTER_MS {
            if !round.has_time(Duration::from_millis(wait_ms + 3_000)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            let Ok(doc) = round.read(&self.at(&["requests", request]), self.headers.clone()).await else { continue };
            let data = &doc["data"];
            let words = story::line(data["status"].as_str().unwrap_or_default(), 200);
            match data["isSuccess"].as_bool().or_else(|| data["success"].as_bool()) {
                Some(true) => return Outcome::Accepted { status, detail: words },
                // Nothing is there to be closed.
                Some(false) if words.to_ascii_lowercase().contains("does not exist") => return Outcome::Accepted { status, detail: words },
                Some(false) => return Outcome::Refused { status: Some(status), detail: format!("taken, and then refused: {words}") },
                None => {}
            }
        }
        Outcome::Accepted { status, detail: format!("taken as request {}; what became of it is not known yet", story::line(request, 80)) }
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("alerts").extend(path);
        }
        url
    }
}
