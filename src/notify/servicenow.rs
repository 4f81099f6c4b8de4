//! ServiceNow, by its Table API: one record of the incident table per incident, found again by its correlation id.
//!
//! All values are texts there, and a field that the table does not know is ignored without a word; so what was made is read
//! back. Notes cannot be searched through this API: one whose answer was lost comes again and says so.

use async_trait::async_trait;
use base64::Engine;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::http::{self, Client, Round};
use super::story::Story;
use super::tickets::{self, Said, Ticket, Tracker, Turn};
use super::{CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Table, cut};
use crate::domain::Time;
use crate::domain::delivery::{Message, Outcome, Receipt};

pub const KIND: Kind = Kind {
    name: "servicenow",
    about: "ServiceNow, Table API: one record per incident; news are work notes, the end resolves it",
    knobs: &[
        Knob { name: "url", about: "the instance: https://example.service-now.com", form: Form::Url, required: true },
        Knob { name: "username", about: "for basic authentication", form: Form::Text, required: false },
        Knob { name: "password", about: "for basic authentication", form: Form::Secret, required: false },
        Knob { name: "token", about: "OAuth bearer token", form: Form::Secret, required: false },
        Knob { name: "api_key", about: "REST API key", form: Form::Secret, required: false },
        Knob {
            name: "fields",
            about: "further fields by name, such as assignment_group and caller_id; names of things are accepted",
            form: Form::Map,
            required: false,
        },
        Knob { name: "close_code", about: "what the instance permits; Solution provided if left out", form: Form::Text, required: false },
        Knob { name: "keep_open", about: "people resolve records by hand", form: Form::Bool, required: false },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

const SHORT_CHARS_MAX: usize = 160;
const TEXT_CHARS_MAX: usize = 4_000;
/// Fields that are ours to set.
const OWN_FIELDS: &[&str] = &[
    "short_description",
    "description",
    "impact",
    "urgency",
    "priority",
    "state",
    "correlation_id",
    "correlation_display",
    "work_notes",
    "close_code",
    "close_notes",
];
/// The states of a record: in progress, resolved.
const IN_PROGRESS: &str = "2";
const RESOLVED: &str = "6";

struct ServiceNow {
    /// `…/api/now/table/incident`
    base: Url,
    site: String,
    fields: Map<String, Value>,
    close_code: String,
    keep_open: bool,
    headers: HeaderMap,
    common: Common,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let url = r.required_url("url");
    let (username, password, token, api_key) = (r.text("username"), r.secret("password"), r.secret("token"), r.secret("api_key"));
    let mut secrets: Vec<SecretString> = password.iter().chain(&token).chain(&api_key).cloned().collect();
    let mut headers = http::json_headers();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let credential = match (&username, &password, &token, &api_key) {
        (Some(user), Some(password), None, None) => {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose_secret()));
            secrets.push(pair.clone().into());
            r.credential("password", &format!("Basic {pair}")).map(|v| (AUTHORIZATION, v))
        }
        (None, None, Some(token), None) => r.credential("token", &format!("Bearer {}", token.expose_secret())).map(|v| (AUTHORIZATION, v)),
        (None, None, None, Some(key)) => r.credential("api_key", key.expose_secret()).map(|v| (HeaderName::from_static("x-sn-apikey"), v)),
        _ => {
            r.problem("username", "give username and password, or token, or api_key");
            None
        }
    };
    headers.extend(credential);
    let fields: Map<String, Value> = r.map("fields").into_iter().map(|(k, v)| (k, v.into())).collect();
    for name in fields.keys().filter(|k| OWN_FIELDS.contains(&k.as_str())) {
        r.problem(&format!("fields.{name}"), format!("field {name} is set by bellwether"));
    }
    let close_code = r.text("close_code").unwrap_or_else(|| "Solution provided".to_owned());
    let keep_open = r.bool("keep_open");
    match (url, r.client(common, secrets)) {
        (Some(mut base), Some(client)) if r.problems.is_empty() => {
            let site = base.as_str().trim_end_matches('/').to_owned();
            if let Ok(mut segments) = base.path_segments_mut() {
                segments.pop_if_empty().extend(["api", "now", "table", "incident"]);
            }
            let servicenow = ServiceNow { base, site, fields, close_code, keep_open, headers, common: common.clone(), client };
            Ok(Receiver::Messages(Box::new(servicenow)))
        }
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for ServiceNow {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        tickets::deliver(self, &self.client.round(now), errand, &self.common).await
    }

    /// Asks whether the table may be read; makes nothing.
    async fn test(&self, now: Time) -> Outcome {
        match self.find(&self.client.round(now), "inc-test").await {
            Ok(_) => Outcome::Accepted { status: 200, detail: "the incident table may be read; nothing was made".to_owned() },
            Err(outcome) => outcome,
        }
    }

    fn manner(&self) -> Manner {
        Manner { look_after_ms: 2_000, ..Manner::TICKETS }
    }
}

#[async_trait]
impl Tracker for ServiceNow {
    async fn find(&self, round: &Round<'_>, incident: &str) -> Result<Option<Ticket>, Outcome> {
        let mut url = self.base.clone();
        let query = format!("correlation_id={incident}");
        url.query_pairs_mut()
            .append_pair("sysparm_query", &query)
            .append_pair("sysparm_fields", "sys_id,number,state")
            .append_pair("sysparm_limit", "1");
        let found = round.read(&url, self.headers.clone()).await?;
        match found["result"].as_array() {
            Some(records) => Ok(records.first().and_then(|r| self.ticket(r))),
            None => Err(Outcome::Retry { status: Some(200), detail: "asking: the answer lists no records".to_owned(), after_ms: None }),
        }
    }

    async fn create(&self, round: &Round<'_>, message: &Message, story: &Story) -> Result<Ticket, Outcome> {
        let incident = &message.incident;
        let mut record = self.fields.clone();
        for (name, text) in [
            ("short_description", cut(&story.headline, SHORT_CHARS_MAX)),
            ("description", cut(&story.plain(), TEXT_CHARS_MAX)),
            ("impact", incident.severity.level().to_string()),
            ("urgency", incident.severity.level().to_string()),
            ("correlation_id", incident.id.clone()),
            ("correlation_display", "Bellwether".to_owned()),
        ] {
            record.insert(name.to_owned(), text.into());
        }
        let mut url = self.base.clone();
        url.query_pairs_mut().append_pair("sysparm_input_display_value", "true");
        let answer = round.ask(Method::POST, &url, self.headers.clone(), Some(&Value::Object(record))).await?;
        if !answer.is_success() {
            return Err(answer.judge());
        }
        let doc = answer.document().unwrap_or_default();
        let Some(mut ticket) = self.ticket(&doc["result"]) else { return Err(answer.unreadable()) };
        let lost: Vec<&str> = self.fields.keys().map(String::as_str).filter(|k| doc["result"].get(*k).is_none()).collect();
        if doc["result"]["correlation_id"] != incident.id.as_str() {
            ticket.remark = Some("it has not kept correlation_id, so that it cannot be found again if an answer is lost".to_owned());
        } else if !lost.is_empty() {
            ticket.remark = Some(format!("the table does not know the fields {}", lost.join(", ")));
        }
        Ok(ticket)
    }

    async fn has_said(&self, _round: &Round<'_>, _ticket: &Ticket, _mark: &str) -> Result<Said, Outcome> {
        Ok(Said::Unknown)
    }

    async fn say(&self, round: &Round<'_>, ticket: &Ticket, message: &Message, story: &Story) -> Result<(), Outcome> {
        let level = message.incident.severity.level().to_string();
        let change = json!({"work_notes": cut(&story.plain(), TEXT_CHARS_MAX), "impact": level, "urgency": level});
        self.patch(round, ticket, &change).await
    }

    async fn turn(&self, round: &Round<'_>, ticket: &Ticket, turn: Turn, _message: &Message, story: &Story) -> Result<Option<String>, Outcome> {
        let change = match turn {
            Turn::Close if self.keep_open => return Ok(Some("left to people".to_owned())),
            Turn::Close => json!({"state": RESOLVED, "close_code": self.close_code, "close_notes": cut(&story.news, TEXT_CHARS_MAX)}),
            Turn::Reopen => json!({"state": IN_PROGRESS}),
        };
        self.patch(round, ticket, &change).await.map(|()| None)
    }
}

impl ServiceNow {
    async fn patch(&self, round: &Round<'_>, ticket: &Ticket, change: &Value) -> Result<(), Outcome> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(&ticket.key);
        }
        let answer = round.ask(Method::PATCH, &url, self.headers.clone(), Some(change)).await?;
        if !answer.is_success() {
            return Err(answer.judge());
        }
        if answer.document().is_some_and(|d| d["result"]["sys_id"].is_string()) { Ok(()) } else { Err(answer.unreadable()) }
    }

    fn ticket(&self, record: &Value) -> Option<Ticket> {
        let key = record["sys_id"].as_str().filter(|k| k.len() == 32 && k.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let url = format!("{}/nav_to.do?uri=incident.do?sys_id={key}", self.site);
        let name = record["number"].as_str().unwrap_or(key).to_owned();
        Some(Ticket { key: key.to_owned(), name, url: Some(url), ..Ticket::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, table};
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let url = ("url", json!("https://x.service-now.com"));
        for pairs in [vec![], vec![("username", json!("u"))], vec![("token", json!("t")), ("api_key", json!("k"))]] {
            let mut pairs = pairs.clone();
            pairs.push(url.clone());
            let Err(problems) = build("x", &common(), &table(&pairs)) else { panic!("built {pairs:?}") };
            assert!(problems[0].1.contains("give username and password, or token, or api_key"), "{problems:?}");
        }
        let t = table(&[url, ("token", json!("t")), ("fields", json!({"priority": "1"}))]);
        let Err(problems) = build("x", &common(), &t) else { panic!("built") };
        assert_eq!(problems[0].0, "fields.priority");
    }
}
