//! Prometheus Alertmanager, by its API version 2: a publisher of the present state, not a messenger.
//!
//! An alert there is like a lamp with a spring: it goes out by itself unless somebody keeps a finger on it. So every open
//! incident is posted again and again with an end a few minutes ahead, and a resolved one is posted as ended for a while longer,
//! so that an Alertmanager which was restarted in between hears of it too. Nothing waits in the outbox for it.
//!
//! An alert *is* its label set. When a label changes (the severity), that is another alert, and the old one must be ended in the
//! same post; therefore this publisher remembers what it has posted. After a restart of ours it does not, and the spring works.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use base64::Engine;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::http::{self, Client};
use super::{CA, Common, Form, Kind, Knob, PROXY_FROM_ENV, PUBLIC_ONLY, Publisher, Reader, Receiver, Table, cut, nothing_to_say};
use crate::domain::delivery::Outcome;
use crate::domain::incident::Incident;
use crate::domain::time::MINUTE_MS;
use crate::domain::{Severity, Time};

pub const KIND: Kind = Kind {
    name: "alertmanager",
    about: "Prometheus Alertmanager, API v2: told every minute what is open",
    knobs: &[
        Knob { name: "url", about: "base url, without /api/v2; all members of a cluster, separated by commas", form: Form::Url, required: true },
        Knob { name: "labels", about: "labels that are added to every alert, such as team", form: Form::Map, required: false },
        Knob { name: "username", about: "for basic authentication", form: Form::Text, required: false },
        Knob { name: "password", about: "for basic authentication", form: Form::Secret, required: false },
        Knob { name: "bearer_token", about: "for bearer authentication", form: Form::Secret, required: false },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

pub const ALERT_NAME: &str = "BellwetherIncident";
/// An alert ends by itself this long after the last post, milliseconds: four posts may fail.
const ENDS_AFTER_MS: i64 = 4 * MINUTE_MS;
/// An ended alert is posted for this long, milliseconds. Prometheus does the same.
pub const RESOLVED_FOR_MS: i64 = 15 * MINUTE_MS;
/// A test alert ends by itself.
const TEST_FOR_MS: i64 = MINUTE_MS;
/// Alerts in one post.
const POST_ALERTS_MAX: usize = 200;
/// Ended alerts that are remembered; beyond it the oldest are forgotten and end by themselves.
const ENDED_MAX: usize = 10_000;
const ANNOTATION_CHARS_MAX: usize = 2_000;

type Labels = BTreeMap<String, String>;

struct Alertmanager {
    members: Vec<Url>,
    labels: Labels,
    headers: HeaderMap,
    common: Common,
    client: Client,
    posted: Mutex<Posted>,
}

/// What the members have been told.
#[derive(Default)]
struct Posted {
    /// By incident: the alert that is firing there.
    firing: BTreeMap<String, Alert>,
    /// Alerts that have ended, oldest first, with when we first said so.
    ended: Vec<(Time, Alert)>,
}

#[derive(Clone, Debug, PartialEq)]
struct Alert {
    labels: Labels,
    annotations: Labels,
    starts_at: Time,
    /// Nothing while it is firing.
    ended_at: Option<Time>,
    url: Option<String>,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let urls = r.text("url");
    let mut members = Vec::new();
    for text in r.required("url", urls).iter().flat_map(|u| u.split(',')).map(str::trim).filter(|u| !u.is_empty()) {
        let text = format!("{}/api/v2/alerts", text.trim_end_matches('/'));
        members.extend(r.url("url", &text));
    }
    let labels = r.map("labels");
    for name in labels.keys().filter(|n| !is_label_name(n)) {
        r.problem(&format!("labels.{name}"), format!("label {name:?} is not a name of letters, digits and underscores"));
    }
    let (username, password, token) = (r.text("username"), r.secret("password"), r.secret("bearer_token"));
    let mut secrets: Vec<SecretString> = password.iter().chain(&token).cloned().collect();
    let credentials = match (&username, &password, &token) {
        (None, None, None) => None,
        (Some(user), Some(password), None) => {
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose_secret()));
            secrets.push(pair.clone().into());
            Some(format!("Basic {pair}"))
        }
        (None, None, Some(token)) => Some(format!("Bearer {}", token.expose_secret())),
        _ => {
            r.problem("username", "give username and password, or bearer_token, or none of them");
            None
        }
    };
    let mut headers = http::json_headers();
    if let Some(text) = credentials {
        match HeaderValue::from_str(&text) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.insert(AUTHORIZATION, value);
            }
            Err(_) => r.problem("bearer_token", "the credentials hold a character that no header can carry"),
        }
    }
    match r.client(common, secrets) {
        Some(client) if r.problems.is_empty() => {
            Ok(Receiver::State(Box::new(Alertmanager { members, labels, headers, common: common.clone(), client, posted: Mutex::default() })))
        }
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Publisher for Alertmanager {
    async fn publish(&self, open: &[Incident], resolved: &[Incident], now: Time) -> Outcome {
        let alerts: Vec<Value> = match self.posted.lock() {
            Ok(mut posted) => posted.turn(
                open.iter().map(|i| (i.id.clone(), self.alert(i, now))).collect(),
                resolved.iter().map(|i| (i.id.clone(), self.alert(i, now))).collect(),
                now,
            ),
            Err(_) => return Outcome::Retry { status: None, detail: "the memory of what was posted is spoilt".to_owned(), after_ms: None },
        };
        if alerts.is_empty() { nothing_to_say() } else { self.post(&alerts, now).await }
    }

    async fn test(&self, now: Time) -> Outcome {
        let mut labels = self.labels.clone();
        labels.insert("alertname".to_owned(), "BellwetherTest".to_owned());
        labels.insert("severity".to_owned(), "info".to_owned());
        labels.insert("instance".to_owned(), self.common.instance.clone());
        let annotations = Labels::from([("summary".to_owned(), "Bellwether test message: nothing is wrong".to_owned())]);
        let alert = Alert { labels, annotations, starts_at: now, ended_at: None, url: None };
        self.post(&[alert.body(now.plus_ms(TEST_FOR_MS))], now).await
    }
}

impl Alertmanager {
    fn alert(&self, incident: &Incident, now: Time) -> Alert {
        let is_over = !incident.state.is_live();
        Alert {
            labels: labels(incident, &self.labels),
            annotations: annotations(incident, &self.common),
            // Clocks of producers may run ahead of ours; an alert that ends before it starts is refused.
            starts_at: incident.onset.at.min(now),
            ended_at: is_over.then(|| incident.resolved_at.unwrap_or(incident.updated_at).min(now)),
            url: self.common.incident_url(&incident.id),
        }
    }

    /// To every member, since a cluster spreads notifications and not alerts. One that has heard is enough for `Accepted`.
    async fn post(&self, alerts: &[Value], now: Time) -> Outcome {
        let bodies: Vec<Vec<u8>> = alerts.chunks(POST_ALERTS_MAX).map(|c| Value::from(c).to_string().into_bytes()).collect();
        let rounds = self.members.iter().map(|member| self.post_to(member, &bodies, now));
        let outcomes = join_all(rounds).await;
        let trouble: Vec<String> = self
            .members
            .iter()
            .zip(&outcomes)
            .filter(|(_, o)| !matches!(o, Outcome::Accepted { .. }))
            .map(|(m, o)| format!("{}: {}", m.host_str().unwrap_or("member"), o.detail()))
            .collect();
        let best = outcomes.into_iter().min_by_key(|o| match o {
            Outcome::Accepted { .. } => 0,
            Outcome::Uncertain { .. } => 1,
            Outcome::Retry { .. } | Outcome::Untrusted { .. } => 2,
            Outcome::Refused { .. } => 3,
        });
        match best {
            Some(Outcome::Accepted { status, .. }) if trouble.is_empty() => {
                Outcome::Accepted { status, detail: format!("{} alerts to {} members", alerts.len(), self.members.len()) }
            }
            Some(Outcome::Accepted { status, .. }) => {
                let heard = self.members.len() - trouble.len();
                Outcome::Accepted { status, detail: format!("{heard} of {} members; {}", self.members.len(), trouble.join("; ")) }
            }
            Some(other) => other,
            None => Outcome::Refused { status: None, detail: "no members".to_owned() },
        }
    }

    async fn post_to(&self, member: &Url, bodies: &[Vec<u8>], now: Time) -> Outcome {
        let mut last = nothing_to_say();
        for body in bodies {
            last = match self.client.post(member, self.headers.clone(), body.clone(), now).await {
                Ok(answer) => answer.judge(),
                Err(failure) => failure.into(),
            };
            if !matches!(last, Outcome::Accepted { .. }) {
                break;
            }
        }
        last
    }
}

/// Members are few; each is asked on its own so that a hanging one does not delay the others.
async fn join_all(futures: impl Iterator<Item = impl Future<Output = Outcome>>) -> Vec<Outcome> {
    let mut waiting: Vec<_> = futures.map(|f| (Box::pin(f), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in waiting.iter_mut().filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(outcome) = future.as_mut().poll(cx) {
                *done = Some(outcome);
            }
        }
        if waiting.iter().all(|(_, done)| done.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}

// === impl Posted ===

impl Posted {
    /// Takes the present state and says everything that is to be posted now.
    fn turn(&mut self, open: Vec<(String, Alert)>, resolved: Vec<(String, Alert)>, now: Time) -> Vec<Value> {
        let mut out = Vec::new();
        let mut firing = BTreeMap::new();
        for (id, alert) in open {
            if let Some(old) = self.firing.remove(&id)
                && old.labels != alert.labels
            {
                self.end(Alert { ended_at: Some(now), ..old }, now);
            }
            // A label set that fires again (reopened, or the severity went back) has not ended.
            self.ended.retain(|(_, e)| e.labels != alert.labels);
            firing.insert(id, alert);
        }
        for (id, alert) in resolved {
            if firing.contains_key(&id) {
                continue;
            }
            match self.firing.remove(&id) {
                Some(old) if old.labels != alert.labels => self.end(Alert { ended_at: Some(now), ..old }, now),
                _ => self.end(alert, now),
            }
        }
        // What was firing and is in neither list was closed in some other way.
        for (_, old) in std::mem::replace(&mut self.firing, firing) {
            self.end(Alert { ended_at: Some(now), ..old }, now);
        }
        self.ended.retain(|(since, _)| now.since_ms(*since) <= RESOLVED_FOR_MS);
        let excess = self.ended.len().saturating_sub(ENDED_MAX);
        self.ended.drain(..excess);
        out.extend(self.ended.iter().map(|(_, a)| a.body(a.ended_at.unwrap_or(now).min(now))));
        out.extend(self.firing.values().map(|a| a.body(now.plus_ms(ENDS_AFTER_MS))));
        out
    }

    fn end(&mut self, alert: Alert, now: Time) {
        if !self.ended.iter().any(|(_, e)| e.labels == alert.labels) {
            self.ended.push((now, alert));
        }
    }
}

// === impl Alert ===

impl Alert {
    fn body(&self, ends_at: Time) -> Value {
        let mut out = json!({
            "labels": self.labels,
            "annotations": self.annotations,
            "startsAt": self.starts_at.min(ends_at).rfc3339(),
            "endsAt": ends_at.rfc3339(),
        });
        if let Some(url) = &self.url {
            out["generatorURL"] = json!(url);
        }
        out
    }
}

/// What the alert is. Nothing that moves while the incident is open, but the severity.
pub(super) fn labels(incident: &Incident, fixed: &Labels) -> Labels {
    let severity = match incident.severity {
        Severity::HARM => "critical",
        Severity::DEGRADED => "warning",
        _ => "info",
    };
    let mut out = fixed.clone();
    for (name, value) in [
        ("alertname", ALERT_NAME),
        ("severity", severity),
        ("bellwether_incident", &incident.id),
        ("category", incident.key.category.as_str()),
        ("model", &incident.key.model),
        ("environment", &incident.key.environment),
    ] {
        out.insert(name.to_owned(), value.to_owned());
    }
    // Of the leading finding and not of the incident, whose segments grow.
    if let Some(segment) = incident.lead().and_then(|f| f.series.group.segment.as_ref()) {
        out.insert("segment".to_owned(), segment.to_string());
    }
    out.retain(|_, value| !value.is_empty());
    out
}

/// Everything that may change from post to post.
pub(super) fn annotations(incident: &Incident, common: &Common) -> Labels {
    let mut out = Labels::new();
    let mut put = |name: &str, text: String| {
        if !text.is_empty() {
            out.insert(name.to_owned(), cut(&text, ANNOTATION_CHARS_MAX));
        }
    };
    put("summary", incident.title.clone());
    put("description", incident.findings.iter().map(|f| f.headline.as_str()).collect::<Vec<_>>().join("; "));
    put("onset", incident.onset.at.rfc3339());
    put("segments", incident.segments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    put("state", incident.state.to_string());
    put("suggested_action", incident.action.clone());
    if let Some(cause) = &incident.cause {
        put("likely_cause", format!("{}: {}", cause.best, cause.facts.join("; ")));
    }
    if let Some(users) = &incident.users_affected {
        put("users_affected", format!("about {:.0} ({:.0} to {:.0})", users.estimate, users.low, users.high));
    }
    if let Some(url) = common.incident_url(&incident.id) {
        put("dashboard_url", url);
    }
    out
}

fn is_label_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, incident};
    use super::*;
    use crate::domain::IncidentState;

    const NOW: Time = Time(1_795_166_080_000);

    fn alertmanager() -> Alertmanager {
        Alertmanager {
            members: vec![],
            labels: Labels::from([("team".to_owned(), "risk".to_owned())]),
            headers: HeaderMap::new(),
            common: common(),
            client: Client::new("0", false, false, vec![]).expect("a client"),
            posted: Mutex::default(),
        }
    }

    /// Posts and answers as (severity, ends in milliseconds from now).
    fn turn(posted: &mut Posted, open: &[&Incident], resolved: &[&Incident], now: Time) -> Vec<(String, i64)> {
        let am = alertmanager();
        let alerts = |all: &[&Incident]| all.iter().map(|i| (i.id.clone(), am.alert(i, now))).collect();
        let bodies = posted.turn(alerts(open), alerts(resolved), now);
        let ends = |b: &Value| Time::parse_rfc3339(b["endsAt"].as_str().expect("a text")).expect("a time").since_ms(now);
        bodies.iter().map(|b| (b["labels"]["severity"].as_str().expect("a label").to_owned(), ends(b))).collect()
    }

    #[test]
    fn an_open_incident_is_held_up_and_a_resolved_one_is_repeated() {
        let mut posted = Posted::default();
        let open = incident();
        let fires = vec![("warning".to_owned(), ENDS_AFTER_MS)];
        assert_eq!(turn(&mut posted, &[&open], &[], NOW), fires);
        assert_eq!(turn(&mut posted, &[&open], &[], NOW.plus_ms(60_000)), fires);
        let mut over = open.clone();
        over.state = IncidentState::Resolved;
        over.resolved_at = Some(NOW.plus_ms(90_000));
        assert_eq!(turn(&mut posted, &[], &[&over], NOW.plus_ms(120_000)), [("warning".to_owned(), -30_000)]);
        // The store no longer lists it, but five minutes are not over.
        assert_eq!(turn(&mut posted, &[], &[], NOW.plus_ms(420_000)), [("warning".to_owned(), -330_000)]);
        assert_eq!(turn(&mut posted, &[], &[], NOW.plus_ms(120_000 + RESOLVED_FOR_MS + 1)), []);
        assert_eq!(turn(&mut posted, &[&open], &[], NOW.plus_ms(2_000_000)), fires, "reopened");
    }

    #[test]
    fn a_change_of_severity_ends_the_old_alert_in_the_same_post() {
        let mut posted = Posted::default();
        let open = incident();
        let mut worse = open.clone();
        worse.severity = Severity::HARM;
        turn(&mut posted, &[&open], &[], NOW);
        let both = vec![("warning".to_owned(), 0), ("critical".to_owned(), ENDS_AFTER_MS)];
        assert_eq!(turn(&mut posted, &[&worse], &[], NOW.plus_ms(60_000)), both);
        assert_eq!(turn(&mut posted, &[&open], &[], NOW.plus_ms(61_000)).len(), 2, "and back again");
        assert_eq!(posted.ended.len(), 1);
    }

    #[test]
    fn an_incident_that_vanishes_from_both_lists_ends() {
        let mut posted = Posted::default();
        turn(&mut posted, &[&incident()], &[], NOW);
        assert_eq!(turn(&mut posted, &[], &[], NOW.plus_ms(60_000)), [("warning".to_owned(), 0)]);
    }

    #[test]
    fn no_alert_ends_before_it_starts_even_if_the_producers_clock_runs_ahead() {
        let mut ahead = incident();
        ahead.onset.at = NOW.plus_ms(3_600_000);
        ahead.state = IncidentState::Resolved;
        ahead.resolved_at = Some(NOW.plus_ms(7_200_000));
        let mut posted = Posted::default();
        let am = alertmanager();
        for body in posted.turn(vec![], vec![(ahead.id.clone(), am.alert(&ahead, NOW))], NOW) {
            let time = |k: &str| Time::parse_rfc3339(body[k].as_str().expect("a text")).expect("a time");
            assert!(time("startsAt") <= time("endsAt") && time("endsAt") <= NOW);
        }
    }

    #[test]
    fn labels_do_not_move_and_own_labels_win() {
        let fixed = Labels::from([("team".to_owned(), "risk".to_owned()), ("severity".to_owned(), "none".to_owned())]);
        let l = labels(&incident(), &fixed);
        assert_eq!(l["severity"], "warning");
        assert_eq!(l["team"], "risk");
        assert_eq!(l["segment"], "region=eu");
        let mut moved = incident();
        moved.title = "other".into();
        moved.segments.clear();
        moved.versions.push("next".into());
        assert_eq!(labels(&moved, &fixed), l);
    }
}
