//! Telling people: one file per kind of receiver, each exactly as its vendor's page says.
//!
//! A notifier does one attempt and says what came of it ([`Outcome`]); whether and when to try again, and in which order, is the
//! business of `dispatch`, which asks the notifier for its [`Manner`]. A state publisher (Alertmanager) is told again and again
//! what is open.

use std::collections::BTreeMap;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::domain::Time;
use crate::domain::delivery::{Delivery, Message, Notice, Outcome, Receipt};
use crate::domain::incident::Incident;
use crate::domain::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};

pub mod alertmanager;
pub mod email;
pub mod github;
pub mod gitlab;
pub mod http;
pub mod jira;
pub mod jsm;
pub mod kafka;
pub mod pagerduty;
pub mod servicenow;
pub mod slack;
mod story;
pub mod teams;
pub mod template;
mod tickets;
pub mod webhook;

/// All kinds of receivers, in the order in which they are listed to people.
pub static KINDS: &[Kind] = &[
    pagerduty::KIND,
    alertmanager::KIND,
    jsm::KIND,
    slack::KIND,
    teams::KIND,
    email::KIND,
    jira::KIND,
    servicenow::KIND,
    github::KIND,
    gitlab::KIND,
    webhook::KIND,
    template::KIND,
    kafka::KIND,
];

/// Settings of a receiver as they stand in the file, after `${ENV}` has been filled in. Keys are checked against the kind's knobs.
pub type Table = BTreeMap<String, serde_json::Value>;

/// What every receiver needs to know of this instance.
#[derive(Clone, Debug)]
pub struct Common {
    /// Part of every key that receivers see.
    pub instance: String,
    /// For links; without a slash at the end. Empty: no links.
    pub external_url: String,
    pub version: String,
}

impl Common {
    /// The page of an incident, unless nobody said where our pages are.
    fn incident_url(&self, id: &str) -> Option<String> {
        let base = self.external_url.trim_end_matches('/');
        (!base.is_empty()).then(|| format!("{base}/incidents/{id}"))
    }
}

/// A kind of receiver, as `bellwether kinds` lists it and as the configuration is checked against.
pub struct Kind {
    pub name: &'static str,
    pub about: &'static str,
    pub knobs: &'static [Knob],
    /// Builds the receiver called `name`; reads secret files, and nothing else. Problems are (key, words).
    pub build: fn(name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>>,
}

/// One setting of a receiver.
pub struct Knob {
    pub name: &'static str,
    pub about: &'static str,
    pub form: Form,
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    /// May also be given as `<name>_file`; never printed.
    Secret,
    Url,
    Duration,
    Bool,
    /// Text to text.
    Map,
}

/// A built receiver.
pub enum Receiver {
    Messages(Box<dyn Notifier>),
    State(Box<dyn Publisher>),
}

/// A delivery in a messenger's hand, with what earlier ones of the same incident left behind.
#[derive(Clone, Copy, Debug)]
pub struct Errand<'a> {
    pub delivery: &'a Delivery,
    /// What this receiver gave us for this incident: see [`Receipt::reference`].
    pub reference: Option<&'a str>,
    /// An earlier attempt at this very delivery may have arrived.
    pub may_have_arrived: bool,
}

impl<'a> Errand<'a> {
    /// The first of its incident.
    pub fn first(delivery: &'a Delivery) -> Errand<'a> {
        Errand { delivery, reference: None, may_have_arrived: false }
    }
}

/// One attempt to say one thing. Never repeats or redirects by itself, and ends within [`http::REQUEST_TIMEOUT`] also where it
/// takes several requests.
#[async_trait]
pub trait Notifier: Send + Sync {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt;
    /// Sends a marked test message.
    async fn test(&self, now: Time) -> Outcome;
    /// How attempts to this receiver are repeated and spaced.
    fn manner(&self) -> Manner;
}

/// Says the present state as often as it is asked to.
#[async_trait]
pub trait Publisher: Send + Sync {
    async fn publish(&self, open: &[Incident], resolved: &[Incident], now: Time) -> Outcome;
    async fn test(&self, now: Time) -> Outcome;
}

/// How one kind of receiver wants to be asked again. Data, so that `dispatch` decides without knowing any vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    pub repeat: Repeat,
    pub schedule: Schedule,
    /// After so many refusals of one message it is given up. 410 is believed the first time.
    pub refusals_max: u32,
    pub per_minute_max: Option<u32>,
    /// After a lost answer not even the question whether it arrived is asked before this: their search lags behind, milliseconds.
    pub look_after_ms: i64,
}

/// What a second copy of the same message does at the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It updates the alert of the same key while that is open. Once somebody has closed it, it opens a second one.
    SameAlert,
    /// It carries the same message id, and the receiver drops it.
    SameMessage,
    /// There is none: the notifier looks for what an earlier attempt left behind before it makes anything.
    Looked,
    /// It comes twice, and the second says that it may be a repeat.
    Marked,
}

/// Waits between attempts; full jitter is laid over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// `first_ms`, then twice as much each time up to `max_ms`, without end while the incident is live.
    Doubling { first_ms: i64, max_ms: i64 },
    /// The steps, then `then_ms` again and again until `until_ms` after the first attempt.
    Steps { steps_ms: &'static [i64], then_ms: i64, until_ms: i64 },
}

impl Manner {
    /// An API of a vendor that means what its status codes say.
    pub const VENDOR: Manner = Manner {
        repeat: Repeat::SameAlert,
        schedule: Schedule::Doubling { first_ms: SECOND_MS, max_ms: 5 * MINUTE_MS },
        refusals_max: 1,
        per_minute_max: None,
        look_after_ms: SECOND_MS,
    };
    /// A tracker of tickets, which is searched before anything is made there.
    pub const TICKETS: Manner = Manner { repeat: Repeat::Looked, look_after_ms: 10 * SECOND_MS, ..Manner::VENDOR };
    /// Anybody's endpoint, which may answer 404 while it is being deployed.
    pub const WEBHOOK: Manner = Manner {
        repeat: Repeat::SameMessage,
        schedule: Schedule::Steps {
            steps_ms: &[5 * SECOND_MS, 30 * SECOND_MS, 2 * MINUTE_MS, 10 * MINUTE_MS, 30 * MINUTE_MS, HOUR_MS, 2 * HOUR_MS],
            then_ms: 4 * HOUR_MS,
            until_ms: 2 * DAY_MS,
        },
        refusals_max: 3,
        per_minute_max: None,
        look_after_ms: SECOND_MS,
    };
}

/// What a notice asks of a receiver that knows only alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Trigger,
    Acknowledge,
    Resolve,
    Nothing,
}

impl Act {
    pub fn of(message: &Message) -> Act {
        match message.notice {
            // A deadline rings although the incident is over.
            Notice::Opened | Notice::Escalated | Notice::Reopened | Notice::Reminder => Act::Trigger,
            // What is learned of an incident that is over must not open it again on somebody's telephone.
            Notice::Updated if message.incident.state.is_live() => Act::Trigger,
            Notice::Updated => Act::Nothing,
            Notice::Acknowledged => Act::Acknowledge,
            Notice::Resolved | Notice::Merged | Notice::Suppressed => Act::Resolve,
            Notice::Mitigated | Notice::Recovering => Act::Nothing,
        }
    }
}

/// The outcome of an attempt that needed none. Its status is 0, since nobody was asked.
fn nothing_to_say() -> Outcome {
    Outcome::Accepted { status: 0, detail: "nothing to say".to_owned() }
}

/// Cut to `chars_max` characters on a character's boundary, with an ellipsis where something is missing.
fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    out.push('…');
    out
}

/// Reads knobs from a table and gathers everything that is wrong, so that a person sees all faults at once.
struct Reader<'a> {
    table: &'a Table,
    problems: Vec<(String, String)>,
}

impl<'a> Reader<'a> {
    fn new(table: &'a Table) -> Reader<'a> {
        Reader { table, problems: Vec::new() }
    }

    fn problem(&mut self, key: &str, words: impl Into<String>) {
        self.problems.push((key.to_owned(), words.into()));
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.table.get(key) {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(s)) if !s.trim().is_empty() => Some(s.trim().to_owned()),
            Some(serde_json::Value::String(_)) => {
                self.problem(key, format!("{key} is empty"));
                None
            }
            Some(_) => {
                self.problem(key, format!("{key} is not a text"));
                None
            }
        }
    }

    /// A secret, from `key` or from the file that `<key>_file` names.
    fn secret(&mut self, key: &str) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        match (self.text(key), self.text(&file_key)) {
            (Some(_), Some(_)) => {
                self.problem(&file_key, format!("{key} and {file_key} are both given"));
                None
            }
            (Some(secret), None) => Some(secret.into()),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned().into()),
                Ok(_) => {
                    self.problem(&file_key, format!("file {path} is empty"));
                    None
                }
                Err(why) => {
                    self.problem(&file_key, format!("file {path} cannot be read: {why}"));
                    None
                }
            },
            (None, None) => None,
        }
    }

    fn required<T>(&mut self, key: &str, found: Option<T>) -> Option<T> {
        if found.is_none() && !self.problems.iter().any(|(k, _)| k.trim_end_matches("_file") == key) {
            self.problem(key, format!("{key} is required"));
        }
        found
    }

    fn bool(&mut self, key: &str) -> bool {
        match self.table.get(key) {
            None | Some(serde_json::Value::Null) => false,
            Some(serde_json::Value::Bool(b)) => *b,
            Some(_) => {
                self.problem(key, format!("{key} is neither true nor false"));
                false
            }
        }
    }

    fn map(&mut self, key: &str) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        match self.table.get(key) {
            None | Some(serde_json::Value::Null) => {}
            Some(serde_json::Value::Object(map)) => {
                for (k, v) in map {
                    match v {
                        serde_json::Value::String(s) => drop(out.insert(k.clone(), s.clone())),
                        serde_json::Value::Number(n) => drop(out.insert(k.clone(), n.to_string())),
                        serde_json::Value::Bool(b) => drop(out.insert(k.clone(), b.to_string())),
                        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                            self.problem(&format!("{key}.{k}"), format!("{key}.{k} is not a text"));
                        }
                    }
                }
            }
            Some(_) => self.problem(key, format!("{key} is not a map of texts")),
        }
        out
    }

    /// As [`Reader::bool`], where leaving it out means yes.
    fn bool_unless(&mut self, key: &str) -> bool {
        match self.table.get(key) {
            None | Some(serde_json::Value::Null) => true,
            Some(_) => self.bool(key),
        }
    }

    /// Words of a list that is written as one text with commas.
    fn list(&mut self, key: &str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        text.split(',').map(str::trim).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    }

    /// The url of `key`, or `default`.
    fn url_or(&mut self, key: &str, default: &str) -> Option<reqwest::Url> {
        let text = self.text(key).unwrap_or_else(|| default.to_owned());
        self.url(key, &text)
    }

    fn required_url(&mut self, key: &str) -> Option<reqwest::Url> {
        let text = self.text(key);
        let text = self.required(key, text)?;
        self.url(key, &text)
    }

    /// A header's value that is never shown.
    fn credential(&mut self, key: &str, text: &str) -> Option<reqwest::header::HeaderValue> {
        match reqwest::header::HeaderValue::from_str(text) {
            Ok(mut value) => {
                value.set_sensitive(true);
                Some(value)
            }
            Err(_) => {
                self.problem(key, format!("{key} holds a character that no header can carry"));
                None
            }
        }
    }

    fn url(&mut self, key: &str, text: &str) -> Option<reqwest::Url> {
        let checked = http::endpoint(text).and_then(|url| {
            let is_public_only = matches!(self.table.get(PUBLIC_ONLY.name), Some(serde_json::Value::Bool(true)));
            if is_public_only { http::is_public(&url).map(|()| url) } else { Ok(url) }
        });
        match checked {
            Ok(url) => Some(url),
            Err(why) => {
                self.problem(key, format!("{key} {why}"));
                None
            }
        }
    }

    fn client(&mut self, common: &Common, secrets: Vec<SecretString>) -> Option<http::Client> {
        let (proxy_from_env, is_public_only) = (self.bool(PROXY_FROM_ENV.name), self.bool(PUBLIC_ONLY.name));
        let pem = self.authority();
        match http::Client::with_authority(&common.version, proxy_from_env, is_public_only, secrets, pem.as_deref()) {
            Ok(client) => Some(client),
            Err(why) => {
                self.problem("url", why);
                None
            }
        }
    }

    /// One more certificate authority, in PEM; it is known to be one.
    fn authority(&mut self) -> Option<Vec<u8>> {
        use secrecy::ExposeSecret as _;
        let pem = self.secret(CA.name)?.expose_secret().as_bytes().to_vec();
        match http::certificates(&pem) {
            Ok(()) => Some(pem),
            Err(why) => {
                let key = if self.table.contains_key(CA.name) { CA.name.to_owned() } else { format!("{}_file", CA.name) };
                self.problem(&key, format!("{key} {why}"));
                None
            }
        }
    }
}

/// A knob that every kind which speaks TLS has. It is no secret, but is given in the same two ways.
pub const CA: Knob = Knob {
    name: "ca",
    about: "a certificate authority that is trusted beside those of this machine, in PEM; usually ca_file",
    form: Form::Secret,
    required: false,
};

/// A knob that every kind which speaks HTTP has.
const PROXY_FROM_ENV: Knob = Knob {
    name: "proxy_from_env",
    about: "use the proxy that HTTPS_PROXY and its like name; it resolves names itself, so forbidden addresses are then its business",
    form: Form::Bool,
    required: false,
};

/// Another one.
const PUBLIC_ONLY: Knob = Knob {
    name: "public_only",
    about: "send to public addresses only; without it private addresses and this machine are allowed, metadata addresses never",
    form: Form::Bool,
    required: false,
};

/// What the tests of this room say about: an incident with everything in it.
#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;
    use crate::domain::alarm::{Onset, Unit};
    use crate::domain::incident::{Answer, CauseGuess, Estimate, Exemplar, Finding, IncidentKey};
    use crate::domain::{Category, Cause, Change, GroupKey, IncidentState, Segment, SeriesKey, Severity, Signal};

    pub fn common() -> Common {
        Common { instance: "eu-1".into(), external_url: "https://bellwether.example".into(), version: "0.1.0".into() }
    }

    pub fn table(pairs: &[(&str, serde_json::Value)]) -> Table {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()
    }

    pub fn incident() -> Incident {
        let at = Time::parse_rfc3339("2026-11-20T09:12:00Z").expect("a time");
        let segment = Segment { dimension: "region".into(), value: "eu".into() };
        let group = GroupKey { segment: Some(segment.clone()), ..GroupKey::roll_up("prod", "loan-scorer") };
        let series = SeriesKey { group, signal: Signal::ErrorRate };
        Incident {
            id: "inc-01JD2QF3K8M4".into(),
            revision: 1,
            key: IncidentKey { environment: "prod".into(), model: "loan-scorer".into(), category: Category::ModelFailure },
            state: IncidentState::Open,
            severity: Severity::DEGRADED,
            severity_reasons: vec![Answer { question: "who".into(), answer: "degraded quality, 1 of 3 regions".into(), source: "error_rate".into() }]
                .into(),
            title: "loan-scorer prod: error rate 0.4 % → 3.1 %".into(),
            onset: Onset::sharp(at),
            opened_at: at.plus_ms(160_000),
            updated_at: at.plus_ms(160_000),
            acknowledged_at: None,
            mitigated_at: None,
            resolved_at: None,
            closed_as: None,
            reopened: 0,
            paged: true,
            page_reason: "severity 2".into(),
            findings: vec![Finding {
                series_id: series.id(),
                series,
                detector: "rate".into(),
                reason: "errors rose".into(),
                headline: "error rate 0.4 % → 3.1 %".into(),
                change: Some(Change { before: 0.004, after: 0.031, low: 0.027, high: 0.036 }),
                unit: Unit::Ratio,
                onset: Onset::sharp(at),
                found_at: at.plus_ms(160_000),
                log_evidence: Some(14.2),
                threshold: Some(9.9),
                by_rule: false,
                recovered_at: None,
            }],
            versions: vec!["2026-11-18".into()],
            segments: vec![segment],
            users_affected: Some(Estimate { estimate: 1240.0, low: 1100.0, high: 1400.0 }),
            cause: Some(std::sync::Arc::new(CauseGuess {
                best: Cause::Pipeline,
                ranked: vec![(Cause::Pipeline, 0.71), (Cause::Data, 0.15), (Cause::Model, 0.1), (Cause::Infrastructure, 0.04)],
                facts: vec!["version 2026-11-18 deployed 9 min before".into()],
                points_at: vec![None],
            })),
            action: "route 0 % to 2026-11-18".into(),
            roots: Default::default(),
            merged_into: None,
            merged: vec![],
            merged_beyond: 0,
            told: vec![],
            suppressed: None,
            settles_at: None,
            exemplars: vec![Exemplar {
                id: "p-1".into(),
                hash: 1,
                time: at,
                version: "2026-11-18".into(),
                status: "error".into(),
                facts: vec![("code".into(), "500".into())],
            }]
            .into(),
            response: crate::domain::response::Response::default(),
            spread: None,
            severity_set: None,
        }
    }

    pub fn message(notice: Notice) -> Message {
        let mut incident = incident();
        if Act::of(&Message { notice, at: Time(0), incident: incident.clone() }) == Act::Resolve {
            incident.state = IncidentState::Resolved;
            incident.resolved_at = Some(incident.opened_at.plus_ms(600_000));
        }
        Message { notice, at: incident.opened_at, incident }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_and_every_knob_says_what_it_is_for() {
        let names: std::collections::BTreeSet<_> = KINDS.iter().map(|k| k.name).collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in KINDS {
            assert!(!kind.about.is_empty());
            assert!(kind.knobs.iter().all(|k| !k.about.is_empty()), "{}", kind.name);
        }
    }

    #[test]
    fn all_faults_of_a_table_are_told_at_once_and_no_secret_is() {
        for kind in KINDS {
            let Err(problems) = (kind.build)("x", &fixtures::common(), &Table::new()) else { panic!("{} builds from nothing", kind.name) };
            for knob in kind.knobs.iter().filter(|k| k.required) {
                assert!(problems.iter().any(|(key, _)| key == knob.name), "{}: {problems:?}", kind.name);
            }
            let table = fixtures::table(&[("url", "http://169.254.169.254/".into()), ("routing_key", "sesame".into()), ("secret", 7.into())]);
            let Err(problems) = (kind.build)("x", &fixtures::common(), &table) else { panic!("{} builds from rubbish", kind.name) };
            let text = format!("{problems:?}");
            assert!(text.contains("metadata") && !text.contains("sesame"), "{}: {text}", kind.name);
        }
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("", 0), "");
    }
}
