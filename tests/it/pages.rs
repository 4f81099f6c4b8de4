//! Pages, API, metrics and management, asked over real HTTP of a made-up daemon: what they answer, what they refuse, how they look
//! in a real browser, and that a real Prometheus is content.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bellwether::domain::alarm::Unit;
use bellwether::domain::incident::{
    Actor, Answer, CauseGuess, Estimate, Exemplar, Finding, Incident, IncidentKey, PartOfChange, Pointer, Spread, TimelineEntry,
};
use bellwether::domain::{
    Category, Cause, Change, ClosedAs, DetectorState, GroupKey, IncidentState, Onset, Segment, SeriesId, SeriesKey, Severity, Signal, Time,
};
use bellwether::engine::view::{EngineView, ModelView, Point, SeriesPage, SeriesStates, SeriesView};
use bellwether::serve::{
    Backend, ClockRow, CommandError, DeliveryRow, FaultButton, HealthView, IncidentFilter, IncidentPage, LagRow, OutboxRow, PersonCommand, Readiness,
};
use bellwether::telemetry::Metrics;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::parts::real;

mod phone;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// Everything that a stranger may try to put on a page, in one name.
const HOSTILE: &str = "</td><script>alert(1)</script>'\"><img src=x onerror=alert(2)>{{7*7}}\u{1b}[31m\u{202e}@channel\r\n/..%2f";

// --- the made-up daemon ---

struct Fake {
    now: Time,
    incidents: Mutex<Vec<Incident>>,
    timeline: Mutex<Vec<TimelineEntry>>,
    answers: Mutex<HashMap<String, Incident>>,
    series: Vec<SeriesPage>,
    models: Vec<ModelView>,
    faults: Mutex<Vec<FaultButton>>,
    metrics: Metrics,
    /// Put where people's text goes.
    name: String,
    demo: bool,
}

fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Time(since.as_millis() as i64)
}

fn key(model: &str, segment: Option<&str>, version: Option<&str>, signal: Signal) -> SeriesKey {
    let mut group = GroupKey::roll_up("prod", model);
    group.segment = segment.map(|s| Segment { dimension: "region".into(), value: s.into() });
    group.version = version.map(Into::into);
    SeriesKey { group, signal }
}

/// A small repeatable noise between -1 and 1.
fn noise(i: i64) -> f64 {
    let mut x = (i as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    for _ in 0..3 {
        x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    let x = x >> 11;
    (x as f64 / (1u64 << 53) as f64) * 2.0 - 1.0
}

/// Six hours of minutes; broken for the last forty if `after` differs from `before`.
fn series(now: Time, key: SeriesKey, unit: Unit, before: f64, after: f64, spread: f64) -> SeriesPage {
    let began = Time(now.0 - 40 * MINUTE);
    let is_broken = (after - before).abs() > spread;
    let threshold = 14.2;
    let mut evidence = 0.0f64;
    let points: Vec<Point> = (0..360)
        .map(|i| {
            let time = Time(now.0 - (360 - i) * MINUTE).floor(MINUTE);
            let middle = if time >= began { after } else { before };
            let value = (middle + noise(i + before.to_bits() as i64) * spread).max(0.0);
            evidence = (evidence + if time >= began && is_broken { 1.3 + noise(i) * 0.5 } else { noise(i) * 0.8 - 0.3 }).clamp(0.0, 40.0);
            Point {
                time,
                n: 800.0,
                value,
                baseline: before,
                threshold: 17.0,
                low: (before - 2.5 * spread).max(0.0),
                high: before + 2.5 * spread,
                log_evidence: evidence,
            }
        })
        .collect();
    let last = points.last().unwrap();
    let words = if is_broken { "pages: the change is larger than is tolerated" } else { "quiet: could see a change by half within 6 minutes" };
    let series = SeriesView {
        learned_from: None,
        id: key.id(),
        detector: if unit == Unit::Ratio { "rate" } else { "bins" }.into(),
        category: Category::ModelFailure,
        state: DetectorState::Armed,
        words: words.into(),
        unit,
        value: Some(last.value),
        baseline: Some(before),
        low: Some(last.low),
        high: Some(last.high),
        log_evidence: last.log_evidence,
        threshold: Some(threshold),
        budget_share: 0.0059,
        change: is_broken.then_some(Change { before, after, low: after * 0.9, high: after * 1.1 }),
        key,
    };
    let decisions = if is_broken {
        vec![(
            Time(now.0 - 29 * MINUTE),
            "raised".into(),
            "14.9 nats of evidence, 14.2 are needed; the change is 7.8 times, 1.5 times is tolerated".into(),
        )]
    } else {
        vec![]
    };
    SeriesPage { series, points, onset: is_broken.then_some(began), decisions, drift: None }
}

impl Fake {
    /// A fleet of five with two live incidents. `name` is put into every field that comes from outside.
    fn with(name: &str) -> Fake {
        let now = now();
        let said = |usual: &str| if name.is_empty() { usual.to_owned() } else { name.to_owned() };
        let loan = said("loan-scorer");
        let mut all = vec![
            series(now, key(&loan, None, None, Signal::ErrorRate), Unit::Ratio, 0.004, 0.031, 0.0012),
            series(now, key(&loan, Some("eu"), None, Signal::ErrorRate), Unit::Ratio, 0.004, 0.082, 0.002),
            series(now, key(&loan, Some(&said("us")), None, Signal::ErrorRate), Unit::Ratio, 0.004, 0.004, 0.002),
            series(now, key(&loan, None, Some(&said("2026-11-18")), Signal::ErrorRate), Unit::Ratio, 0.005, 0.005, 0.002),
            series(now, key(&loan, None, None, Signal::Latency), Unit::Milliseconds, 240.0, 244.0, 18.0),
            series(now, key(&loan, None, None, Signal::Feature(said("income"))), Unit::Score, 0.52, 0.51, 0.03),
            series(now, key("assistant", None, None, Signal::Cost), Unit::Currency, 0.012, 0.0171, 0.0012),
            series(now, key("assistant", None, None, Signal::Flag(said("harmful"))), Unit::Ratio, 0.0008, 0.0008, 0.0003),
        ];
        // One that has just begun.
        let mut fresh = series(now, key("translator", None, None, Signal::Quality(said("judge"))), Unit::Score, 0.8, 0.8, 0.05);
        fresh.points.clear();
        fresh.series.state = DetectorState::Warming;
        fresh.series.words = said("can see a doubling after 40,000 more events");
        (fresh.series.value, fresh.series.baseline, fresh.series.low, fresh.series.high, fresh.series.threshold) = (None, None, None, None, None);
        fresh.series.log_evidence = 0.0;
        all.push(fresh);
        for page in &mut all {
            page.series.words = said(&page.series.words);
        }

        let opened = Time(now.0 - 29 * MINUTE);
        let onset = Onset { at: Time(now.0 - 40 * MINUTE), from: Time(now.0 - 43 * MINUTE), to: Time(now.0 - 38 * MINUTE) };
        let finding = |i: usize, headline: &str| {
            let s = &all[i].series;
            Finding {
                series: s.key.clone(),
                series_id: s.id,
                detector: s.detector.clone(),
                reason: said("evidence over the threshold, change over what is tolerated"),
                headline: said(headline),
                change: s.change,
                unit: s.unit,
                onset,
                found_at: opened,
                log_evidence: Some(21.4),
                threshold: Some(14.2),
                by_rule: false,
                recovered_at: None,
            }
        };
        let of = |model: &str, category| IncidentKey { environment: said("prod"), model: model.to_owned(), category };
        let broken = Incident {
            id: of("loan-scorer", Category::ModelFailure).incident_id(opened),
            revision: 3,
            key: of(&loan, Category::ModelFailure),
            state: IncidentState::Open,
            severity: Severity::DEGRADED,
            severity_reasons: vec![
                Answer { question: said("Is anybody harmed right now?"), answer: said("no sign of it"), source: said("no harm flags in 28 min") },
                Answer {
                    question: said("Does it fail for its users?"),
                    answer: said("yes, 1 in 12 requests in region=eu"),
                    source: said("error rate, region=eu"),
                },
                Answer { question: said("Is it getting worse?"), answer: said("no, steady for 20 min"), source: said("trend of the last 20 panes") },
            ]
            .into(),
            title: said("loan-scorer prod: error rate 0.4 % → 3.1 % since 09:12 UTC, region=eu, 9 min after version 2026-11-18"),
            onset,
            opened_at: opened,
            updated_at: Time(now.0 - 12 * MINUTE),
            acknowledged_at: None,
            mitigated_at: None,
            resolved_at: None,
            closed_as: None,
            reopened: 0,
            paged: true,
            page_reason: said("severity 2 with evidence over the threshold"),
            findings: vec![finding(0, "error rate 0.4 % → 3.1 %"), finding(1, "error rate 0.4 % → 8.2 %")],
            versions: vec![said("2026-11-18")],
            segments: vec![Segment { dimension: "region".into(), value: said("eu").as_str().into() }],
            users_affected: Some(Estimate { estimate: 1_240.0, low: 1_090.0, high: 1_410.0 }),
            cause: Some(Arc::new(CauseGuess {
                best: Cause::Pipeline,
                ranked: vec![(Cause::Pipeline, 0.71), (Cause::Infrastructure, 0.15), (Cause::Model, 0.1), (Cause::Data, 0.04)],
                facts: vec![
                    said("version 2026-11-18 was deployed 9 min before the onset"),
                    said("only region=eu is affected; us is as before"),
                    said("latency and inputs are unchanged"),
                ],
                points_at: vec![
                    Some(Pointer::Deployment { at: Time(onset.at.0 - 9 * MINUTE), name: said("2026-11-18") }),
                    Some(Pointer::Series { id: SeriesId(7) }),
                    None,
                ],
            })),
            action: said("Roll loan-scorer back to version 2026-11-11 in region=eu; it served without errors until 09:03 UTC."),
            roots: Default::default(),
            merged_into: None,
            merged: vec![],
            merged_beyond: 0,
            told: vec![],
            suppressed: None,
            settles_at: None,
            exemplars: (0..3)
                .map(|i| Exemplar {
                    id: said(&format!("p-88{i}41")),
                    hash: i,
                    time: Time(opened.0 - 1_000 * i as i64),
                    version: said("2026-11-18"),
                    status: said("error"),
                    facts: vec![(said("region"), said("eu")), (said("error_kind"), said("feature_store_timeout"))],
                })
                .collect::<Vec<_>>()
                .into(),
            response: Default::default(),
            spread: Some(Spread {
                dimension: said("region"),
                unit: Unit::Ratio,
                before: 0.004,
                after: 0.031,
                within: 0.027,
                mix: 0.0,
                parts: ["eu", "us"]
                    .map(|value| PartOfChange {
                        segment: Segment { dimension: said("region").as_str().into(), value: said(value).as_str().into() },
                        share_before: 0.5,
                        share_after: 0.5,
                        before: 0.004,
                        after: if value == "eu" { 0.058 } else { 0.004 },
                        within: if value == "eu" { 0.027 } else { 0.0 },
                        mix: 0.0,
                    })
                    .into(),
            }),
            severity_set: None,
        };
        let mut costly = broken.clone();
        costly.key = of("assistant", Category::CostAnomaly);
        costly.id = of("assistant", Category::CostAnomaly).incident_id(Time(opened.0 - HOUR));
        costly.state = IncidentState::Acknowledged;
        costly.severity = Severity::MINOR;
        costly.title = said("assistant prod: cost 0.012 → 0.017 per request since 08:31 UTC");
        costly.findings = vec![finding(6, "cost 0.012 → 0.017")];
        costly.opened_at = Time(opened.0 - HOUR);
        costly.paged = false;
        let mut over = broken.clone();
        over.key = of("translator", Category::QualityDegradation);
        over.id = of("translator", Category::QualityDegradation).incident_id(Time(opened.0 - 30 * HOUR));
        over.state = IncidentState::Resolved;
        over.severity = Severity::HARM;
        over.closed_as = Some(ClosedAs::Fixed);
        over.title = said("translator prod: quality judge 0.86 → 0.61 since 03:20 UTC, after a prompt change");
        over.opened_at = Time(opened.0 - 30 * HOUR);
        over.onset = Onset::sharp(Time(over.opened_at.0 - 7 * MINUTE));

        let model = |name: &str, events, states: SeriesStates, live: &[&Incident]| ModelView {
            model: name.to_owned(),
            environment: said("prod"),
            owner: Some(said("credit-ml")),
            versions: vec![said("2026-11-11"), said("2026-11-18")],
            segments: vec![said("region=eu"), said("region=us")],
            events,
            last_event_at: Some(Time(now.0 - 4_000)),
            series: states,
            incidents: live.iter().map(|i| i.id.clone()).collect(),
        };
        let armed = |n, warming| SeriesStates { armed: n, warming, starved: 2, frozen: 0, off: 1 };
        let models = vec![
            model(&loan, 4_812_331, armed(41, 3), &[&broken]),
            model("assistant", 902_114, armed(36, 0), &[&costly]),
            model("fraud-gate", 12_004_518, armed(52, 0), &[]),
            model("recommender", 30_110_902, armed(60, 4), &[]),
            model("translator", 12_101, SeriesStates { warming: 22, ..SeriesStates::default() }, &[]),
        ];
        let entry = |ordinal, at: Time, who, what: &str, why: &str| TimelineEntry {
            incident_id: broken.id.clone(),
            revision: 1 + u64::from(ordinal),
            ordinal,
            at,
            who,
            what: what.to_owned(),
            why: said(why),
        };
        let timeline = vec![
            entry(0, opened, Actor::Bellwether, "opened", "error rate 0.4 % → 3.1 %: 21.4 nats of evidence, 14.2 are needed"),
            entry(1, Time(opened.0 + 4_000), Actor::Receiver(said("oncall")), "delivered", "opened: accepted with 202"),
            entry(
                2,
                Time(opened.0 + 17 * MINUTE),
                Actor::Person(said("Ada")),
                "note",
                "Looking at the feature store in eu.\nIts pool was halved this morning.",
            ),
        ];
        let button = |name: &str, about: &str, on| FaultButton { name: name.to_owned(), about: said(about), on };
        let faults = vec![
            button("error_spike", "One request in twelve of loan-scorer fails in region eu.", true),
            button("latency_tail", "The slowest requests of fraud-gate take five times as long.", false),
            button("cost_drift", "Every answer of assistant grows a little longer.", false),
            button("silence", "recommender stops sending events.", false),
        ];
        let metrics = Metrics::new("0.1.0", "abcdef0");
        metrics.add_source("kafka", &["bad_json"]);
        metrics.add_receiver("oncall");
        metrics.events("kafka", "prediction", "canonical", 4_812_331);
        metrics.delay("kafka", 0.4);
        metrics.lag("model-events", 0, 12, 0.8);
        metrics.watermark("kafka", now);
        metrics.pane_closed(120, 0.31);
        metrics.notification("oncall", "accepted", 0.21);
        metrics.outbox("oncall", 1, Some(now));
        metrics.reload(true, now);
        metrics.time_to_detect(Severity::DEGRADED, 660.0);
        metrics.bounds(&[("fields_invalid".into(), 3)]);
        let incidents = vec![broken, costly, over];
        metrics.incidents(&incidents);
        Fake {
            now,
            incidents: Mutex::new(incidents),
            timeline: Mutex::new(timeline),
            answers: Mutex::default(),
            series: all,
            models,
            faults: Mutex::new(faults),
            metrics,
            name: said("oncall"),
            demo: true,
        }
    }

    fn first_id(&self) -> String {
        self.incidents.lock().unwrap()[0].id.clone()
    }
}

#[async_trait]
impl Backend for Fake {
    async fn incidents(&self, filter: IncidentFilter) -> Result<(Vec<Incident>, Option<String>), CommandError> {
        let fits = |i: &&Incident| {
            (!filter.live || i.state.is_live())
                && filter.model.as_ref().is_none_or(|m| *m == i.key.model)
                && filter.state.as_ref().is_none_or(|s| s == i.state.as_str())
                && filter.category.as_ref().is_none_or(|c| c == i.key.category.as_str())
        };
        let skip = filter.cursor.as_ref().map_or(0, |c| c.parse().unwrap_or(0));
        let all: Vec<Incident> = self.incidents.lock().unwrap().iter().filter(fits).cloned().collect();
        let page: Vec<Incident> = all.iter().skip(skip).take(filter.limit).cloned().collect();
        let next = (skip + page.len() < all.len()).then(|| (skip + page.len()).to_string());
        Ok((page, next))
    }

    async fn incident(&self, id: &str) -> Result<IncidentPage, CommandError> {
        let incident = self.incidents.lock().unwrap().iter().find(|i| i.id == id).cloned().ok_or_else(|| CommandError::NotFound(id.to_owned()))?;
        let deliveries = vec![
            DeliveryRow {
                id: "d1".into(),
                receiver: self.name.clone(),
                notice: "opened".into(),
                state: "accepted".into(),
                attempts: 1,
                created_at: incident.opened_at,
                last_attempt_at: Some(Time(incident.opened_at.0 + 3_000)),
                detail: self.name.clone(),
            },
            DeliveryRow {
                id: "d2".into(),
                receiver: "hook".into(),
                notice: "opened".into(),
                state: "waiting".into(),
                attempts: 2,
                created_at: incident.opened_at,
                last_attempt_at: Some(Time(incident.opened_at.0 + 9_000)),
                detail: "503, tried again in 40 s".into(),
            },
        ];
        Ok(IncidentPage { clocks: ClockRow::of(&incident, now()), incident, timeline: self.timeline.lock().unwrap().clone(), deliveries })
    }

    async fn command(&self, id: &str, command: PersonCommand, revision: Option<u64>, key: Option<String>) -> Result<Incident, CommandError> {
        if let Some(answer) = key.as_ref().and_then(|k| self.answers.lock().unwrap().get(k).cloned()) {
            return Ok(answer);
        }
        let mut all = self.incidents.lock().unwrap();
        let incident = all.iter_mut().find(|i| i.id == id).ok_or_else(|| CommandError::NotFound(id.to_owned()))?;
        if let Some(asked) = revision.filter(|r| *r != incident.revision) {
            return Err(CommandError::Conflict { at: incident.revision, asked });
        }
        let (who, what, why) = match command {
            PersonCommand::Acknowledge { by, why } => {
                if incident.state != IncidentState::Open {
                    return Err(CommandError::Refused(format!("an incident that is {} cannot be acknowledged", incident.state)));
                }
                incident.state = IncidentState::Acknowledged;
                (by, "acknowledged", why)
            }
            PersonCommand::Mitigate { by, why } => {
                incident.state = IncidentState::Mitigated;
                (by, "mitigated", why)
            }
            PersonCommand::Resolve { by, closed_as, why } => {
                incident.state = IncidentState::Resolved;
                incident.closed_as = Some(closed_as);
                (by, "resolved", why)
            }
            PersonCommand::Reopen { by, why } => {
                incident.state = IncidentState::Open;
                (by, "reopened", why)
            }
            PersonCommand::Note { by, text } => (by, "note", text),
            PersonCommand::Plan { by, step } => (by, "plan", step),
            PersonCommand::Approve { by, role, step, plan } => (by, "approve", format!("{step} {plan} {role}")),
            PersonCommand::Undo { by, role, step } => (by, "undo", format!("{step} {role}")),
            PersonCommand::Done { by, step, why } => (by, "done", format!("{step} {why}")),
            PersonCommand::SetSeverity { by, severity, why } => {
                incident.severity = severity;
                (by, "severity", why)
            }
            PersonCommand::Merge { .. } | PersonCommand::Split { .. } | PersonCommand::Suppress { .. } | PersonCommand::Duty(_) => {
                return Err(CommandError::Refused("not here".into()));
            }
        };
        incident.revision += 1;
        let entry = TimelineEntry {
            incident_id: id.to_owned(),
            revision: incident.revision,
            ordinal: 0,
            at: now(),
            who: Actor::Person(who),
            what: what.into(),
            why,
        };
        self.timeline.lock().unwrap().push(entry);
        if let Some(key) = key {
            self.answers.lock().unwrap().insert(key, incident.clone());
        }
        Ok(incident.clone())
    }

    async fn models(&self) -> Result<Vec<ModelView>, CommandError> {
        Ok(self.models.clone())
    }
    async fn series(&self, model: Option<&str>, limit: usize) -> Result<Vec<SeriesView>, CommandError> {
        let fits = |s: &&SeriesPage| model.is_none_or(|m| m == &*s.series.key.group.model);
        Ok(self.series.iter().filter(fits).take(limit).map(|s| s.series.clone()).collect())
    }
    async fn series_page(&self, id: &str) -> Result<SeriesPage, CommandError> {
        let id: Option<SeriesId> = id.parse().ok();
        self.series.iter().find(|s| Some(s.series.id) == id).cloned().ok_or_else(|| CommandError::NotFound("series".into()))
    }
    async fn engine(&self) -> Result<EngineView, CommandError> {
        Ok(EngineView {
            events: 47_841_966,
            duplicates: 312,
            rejected: 19,
            late: 12,
            unattributed: 4,
            bounds: vec![("fields_invalid".into(), 3), ("segments_as_other".into(), 0), (self.name.clone(), 5)],
            series: SeriesStates { armed: 189, warming: 29, starved: 8, frozen: 0, off: 4 },
            judged_through: Some(Time(self.now.0 - 12_000)),
            is_live: true,
            budget: 2.0,
            budget_spent: 0.31,
            alarms_raised: 3,
            alarms_held: 7,
            changes: vec![(Time(self.now.0 - 49 * MINUTE), format!("{}: version 2026-11-18 deployed in prod", self.name))],
        })
    }
    async fn health(&self) -> HealthView {
        HealthView {
            lag: vec![
                LagRow { topic: "model-events".into(), partition: 0, records: 12, seconds: 0.8 },
                LagRow { topic: "model-events".into(), partition: 1, records: 0, seconds: 0.0 },
            ],
            rejected: vec![("bad_json".into(), 16), ("missing_field".into(), 3)],
            outbox: vec![
                OutboxRow { receiver: self.name.clone(), pending: 0, oldest: None, last: "accepted with 202".into() },
                OutboxRow { receiver: "hook".into(), pending: 1, oldest: Some(Time(self.now.0 - 29 * MINUTE)), last: "503".into() },
            ],
        }
    }
    fn is_healthy(&self) -> bool {
        true
    }
    fn readiness(&self) -> Readiness {
        Readiness { ready: true, degraded: true, reasons: vec![format!("receiver {} answers 503", self.name)] }
    }
    async fn reload(&self) -> Result<(), String> {
        Err("bellwether.yaml:3:5: unknown key \"topic\" (did you mean \"topics\"?)".into())
    }
    fn metrics(&self) -> String {
        self.metrics.text()
    }
    fn config_text(&self) -> String {
        "receivers:\n  oncall: {type: pagerduty, routing_key: <secret>}\n".into()
    }
    fn faults(&self) -> Vec<FaultButton> {
        if self.demo { self.faults.lock().unwrap().clone() } else { vec![] }
    }
    fn switch_fault(&self, name: &str, on: bool) -> Result<(), CommandError> {
        let mut all = self.faults.lock().unwrap();
        let fault = all.iter_mut().find(|f| f.name == name).ok_or_else(|| CommandError::NotFound(name.to_owned()))?;
        fault.on = on;
        Ok(())
    }
}

// --- asking it ---

struct Site {
    base: String,
    address: SocketAddr,
    fake: Arc<Fake>,
    client: reqwest::Client,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Site {
    async fn with(fake: Fake) -> Site {
        let fake = Arc::new(fake);
        let (stop, stopped) = watch::channel(false);
        let backend: Arc<dyn Backend> = fake.clone();
        let (address, task) = bellwether::serve::start("127.0.0.1:0".parse().unwrap(), backend, stopped).await.unwrap();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Site { base: format!("http://{address}"), address, fake, client, stop, task }
    }
    async fn usual() -> Site {
        Site::with(Fake::with("")).await
    }
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
    async fn get(&self, path: &str) -> (u16, String, String) {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        let kind = answer.headers().get("content-type").map_or(String::new(), |v| v.to_str().unwrap().to_owned());
        (answer.status().as_u16(), kind, answer.text().await.unwrap())
    }
    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.post(self.url(path)).json(body)
    }
    fn paths(&self) -> Vec<String> {
        let model = percent(&self.fake.models[0].model);
        let mut all: Vec<String> = ["/", "/incidents", "/incidents?live=true", "/health"].map(str::to_owned).to_vec();
        all.push(format!("/incidents/{}", self.fake.first_id()));
        all.push(format!("/models/{model}"));
        all.extend(self.fake.series.iter().map(|s| format!("/series/{}", s.series.id)));
        all
    }
}

fn percent(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[tokio::test]
async fn every_route_answers_with_its_status_and_content_type() {
    let site = Site::usual().await;
    let id = site.fake.first_id();
    let series = site.fake.series[0].series.id;
    for path in site.paths() {
        let (status, kind, body) = site.get(&path).await;
        assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"), "{path}: {body}");
        assert!(body.contains("<title>") && body.contains("<h1>"), "{path}");
    }
    for (path, status, kind) in [
        ("/-/healthy".to_owned(), 200, "text/plain; charset=utf-8"),
        ("/-/ready".into(), 200, "application/json"),
        ("/metrics".into(), 200, "text/plain; version=0.0.4; charset=utf-8"),
        ("/api/v1/incidents".into(), 200, "application/json"),
        ("/api/v1/incidents?live=true&category=model_failure&limit=1".into(), 200, "application/json"),
        (format!("/api/v1/incidents/{id}"), 200, "application/json"),
        ("/api/v1/models".into(), 200, "application/json"),
        ("/api/v1/series?model=loan-scorer".into(), 200, "application/json"),
        (format!("/api/v1/series/{series}/points"), 200, "application/json"),
        ("/api/v1/faults".into(), 200, "application/json"),
        ("/api/v1/status/config".into(), 200, "application/json"),
        ("/api/v1/status/buildinfo".into(), 200, "application/json"),
        ("/api/v1/status/runtimeinfo".into(), 200, "application/json"),
        ("/api/v1/openapi.json".into(), 200, "application/json"),
        ("/api/v1/incidents?state=opened".into(), 400, "application/problem+json"),
        ("/api/v1/incidents?colour=red".into(), 400, "application/problem+json"),
        ("/api/v1/incidents/inc-none".into(), 404, "application/problem+json"),
        ("/api/v1/series/s-1/points".into(), 404, "application/problem+json"),
        ("/api/v1/nothing".into(), 404, "application/problem+json"),
        ("/nothing".into(), 404, "text/html; charset=utf-8"),
        ("/models/nobody".into(), 404, "text/html; charset=utf-8"),
        ("/incidents/inc-none".into(), 404, "text/html; charset=utf-8"),
    ] {
        let (got, got_kind, body) = site.get(&path).await;
        assert_eq!((got, got_kind.as_str()), (status, kind), "{path}: {body}");
        if kind.ends_with("json") {
            let value: Value = serde_json::from_str(&body).unwrap();
            if got >= 400 {
                assert_eq!(value["status"], got, "{path}");
                assert!(!value["detail"].as_str().unwrap().is_empty());
            }
        }
        let head = site.client.head(site.url(&path)).send().await.unwrap();
        assert_eq!(head.status().as_u16(), status, "HEAD {path}");
        assert_eq!(head.text().await.unwrap(), "", "HEAD {path}");
    }
    let wrong = site.client.delete(site.url("/api/v1/models")).send().await.unwrap();
    assert_eq!(wrong.status().as_u16(), 405);
    assert!(wrong.headers().contains_key("allow"));
    let reload = site.client.post(site.url("/-/reload")).send().await.unwrap();
    assert_eq!(reload.status().as_u16(), 400);
    assert!(reload.text().await.unwrap().contains("did you mean"));

    // A fleet that is no demo has no faults to switch.
    let plain = Site::with(Fake { demo: false, ..Fake::with("") }).await;
    assert_eq!(plain.get("/api/v1/faults").await.0, 404);
    assert_eq!(plain.post("/api/v1/faults/error_spike/on", &json!({})).send().await.unwrap().status().as_u16(), 404);
    assert!(!plain.get("/").await.2.contains("Break something"));

    // Stopping is a matter of seconds, with an idle connection open.
    site.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), site.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(site.address).is_err());
}

#[tokio::test]
async fn the_document_of_the_api_promises_only_what_exists() {
    let site = Site::usual().await;
    let document: Value = serde_json::from_str(&site.get("/api/v1/openapi.json").await.2).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let text = document.to_string();
    for part in text.split("#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "schema {name}");
    }
    for (path, methods) in document["paths"].as_object().unwrap() {
        let real = path
            .replace("incidents/{id}", &format!("incidents/{}", site.fake.first_id()))
            .replace("{id}", &site.fake.series[0].series.id.to_string())
            .replace("{name}", "silence");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase().parse::<reqwest::Method>().unwrap();
            let answer = site.client.request(method.clone(), site.url(&real)).json(&json!({})).send().await.unwrap();
            assert!(![404, 405].contains(&answer.status().as_u16()), "{method} {path}: {}", answer.status());
        }
    }
}

#[tokio::test]
async fn an_incident_leads_to_what_its_facts_speak_of_and_says_where_the_change_comes_from() {
    let site = Site::usual().await;
    let (_, _, page) = site.get(&format!("/incidents/{}", site.fake.first_id())).await;
    let deployed = page.split("/health#change-").nth(1).expect("a link to the deployment");
    assert!(deployed.split("</a>").next().unwrap().ends_with("version 2026-11-18 was deployed 9 min before the onset"), "{deployed}");
    assert!(page.contains("<a href=\"/series/s-0000000000000007\">only region=eu is affected; us is as before</a>"));
    assert!(page.contains("<li>latency and inputs are unchanged</li>"));
    assert!(page.contains("Region=eu, a place makes 100 % of the change with 50 % of the traffic."), "{page}");
    let row = page.split("<th scope=\"row\">eu</th>").nth(1).expect("a row").split("</tr>").next().unwrap();
    assert!(row.contains("50 % → 50 %") && row.contains("0.4 % → 5.8 %") && row.contains(">100 %<") && row.contains(">0 %<"), "{row}");
    // The page that is linked has the anchor of every change.
    let (_, _, health) = site.get("/health").await;
    assert!(health.contains("id=\"change-"), "{health}");
}

#[tokio::test]
async fn a_hostile_name_does_nothing_on_any_page() {
    let site = Site::with(Fake::with(HOSTILE)).await;
    for path in site.paths() {
        let (status, _, body) = site.get(&path).await;
        assert_eq!(status, 200, "{path}");
        assert!(body.contains("&lt;script&gt;alert(1)"), "{path} does not show it");
        assert!(!body.contains("<script>") && !body.contains("<img src=x"), "{path}");
        assert!(!body.chars().any(|c| c == '\u{1b}' || c == '\u{202e}' || (c.is_control() && c != '\n')), "{path}");
        assert_eq!(body.matches("<script").count(), 1, "{path}: only ours");
        assert!(!body.contains(" style=") && !body.contains("<style"), "{path}");
        assert!(body.contains("{{7*7}}"), "{path}: nothing is worked out");
    }
    for path in ["/api/v1/incidents", "/api/v1/models", "/api/v1/series"] {
        let (_, kind, body) = site.get(path).await;
        assert_eq!(kind, "application/json");
        assert!(!body.chars().any(char::is_control), "{path}");
    }
    let answer = site.client.get(site.url("/")).send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
}

// --- writes ---

#[tokio::test]
async fn a_write_needs_a_name_the_right_revision_and_our_own_page() {
    let site = Site::usual().await;
    let path = |verb: &str| format!("/api/v1/incidents/{}/{verb}", site.fake.first_id());
    let by = json!({"by": "Ada", "why": "on it"});
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();

    // From another site, by whatever sign.
    assert_eq!(status(site.post(&path("acknowledge"), &by).header("origin", "http://evil.example")).await, 403);
    assert_eq!(status(site.post(&path("acknowledge"), &by).header("sec-fetch-site", "cross-site")).await, 403);
    assert_eq!(status(site.post(&path("acknowledge"), &by).header("host", "evil.example")).await, 403);
    assert_eq!(status(site.client.get(site.url("/")).header("host", "evil.example:80")).await, 403);
    let as_text = site.client.post(site.url(&path("acknowledge"))).header("content-type", "text/plain").body(by.to_string());
    assert_eq!(status(as_text).await, 415);

    // Not understood.
    assert_eq!(status(site.post(&path("acknowledge"), &json!({}))).await, 422);
    assert_eq!(status(site.post(&path("acknowledge"), &json!({"by": "Ada", "whyy": ""}))).await, 422);
    assert_eq!(status(site.post(&path("resolve"), &json!({"by": "Ada", "as": "gone"}))).await, 422);
    assert_eq!(status(site.post(&path("note"), &json!({"by": "Ada"}))).await, 422);
    assert_eq!(status(site.post(&path("note"), &json!({"by": "Ada", "text": "x".repeat(4_001)}))).await, 422);
    assert_eq!(status(site.post(&path("severity"), &json!({"by": "Ada", "severity": 3}))).await, 422);
    assert_eq!(status(site.post(&path("severity"), &json!({"by": "Ada", "why": "so", "severity": 4}))).await, 422);
    assert_eq!(status(site.post(&path("severity"), &json!({"by": "Ada", "why": "so"}))).await, 422);
    assert_eq!(status(site.post(&path("explode"), &by)).await, 404);
    assert_eq!(status(site.post(&path("note"), &json!({"by": "Ada", "text": "x".repeat(1 << 20)}))).await, 413);

    // Seen too long ago.
    let stale = site.post(&path("acknowledge"), &by).header("if-match", "\"2\"").send().await.unwrap();
    assert_eq!(stale.status().as_u16(), 412);
    assert_eq!(stale.headers()["content-type"], "application/problem+json");
    assert_eq!(status(site.post(&path("acknowledge"), &by).header("if-match", "W/\"3\"")).await, 412);

    // Done, once, however often it is asked with the same key.
    let tag = site.client.get(site.url(&format!("/api/v1/incidents/{}", site.fake.first_id()))).send().await.unwrap().headers()["etag"].clone();
    assert_eq!(tag, "\"3\"");
    for _ in 0..3 {
        let done = site.post(&path("acknowledge"), &by).header("if-match", &tag).header("idempotency-key", "k1").send().await.unwrap();
        assert_eq!(done.status().as_u16(), 200);
        assert_eq!(done.headers()["etag"], "\"4\"");
        let incident: Value = done.json().await.unwrap();
        assert_eq!(incident["state"], "acknowledged");
    }
    assert_eq!(status(site.post(&path("acknowledge"), &by)).await, 409);
    assert_eq!(status(site.post(&path("acknowledge"), &by).header("idempotency-key", "")).await, 400);
    for (verb, body) in [
        ("note", json!({"by": "Ada", "text": "hm"})),
        ("severity", json!({"by": "Ada", "severity": 3, "why": "only the probes"})),
        ("mitigate", by.clone()),
        ("resolve", json!({"by": "Ada", "as": "fixed"})),
        ("reopen", by.clone()),
    ] {
        assert_eq!(status(site.post(&path(verb), &body)).await, 200, "{verb}");
    }
}

#[tokio::test]
async fn a_form_works_without_script_and_only_from_our_page() {
    let site = Site::usual().await;
    let page = format!("/incidents/{}", site.fake.first_id());
    let answer = site.client.get(site.url(&page)).send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let html = answer.text().await.unwrap();
    let token = html.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let send = async |path: String, cookie: &str, body: String| {
        let request = site.client.post(site.url(&path)).header("content-type", "application/x-www-form-urlencoded").header("cookie", cookie);
        request.header("origin", &site.base).body(body).send().await.unwrap()
    };
    let body = |token: &str, revision: u64, why: &str| format!("csrf={token}&revision={revision}&by=Ada&why={why}&as=fixed");

    // Without the token, without the cookie, with somebody else's.
    for (cookie, token) in [(&*cookie, ""), ("", &*token), ("bellwether_csrf=00000000000000000000000000000000", &*token)] {
        assert_eq!(send(format!("{page}/acknowledge"), cookie, body(token, 3, "")).await.status().as_u16(), 403);
    }
    let done = send(format!("{page}/acknowledge"), &cookie, body(&token, 3, "on+it")).await;
    assert_eq!(done.status().as_u16(), 303);
    assert_eq!(done.headers()["location"], page.as_str());
    // Who has said his name once is not asked again by every form.
    assert!(!html.contains("value=\"Ada\""), "{html}");
    let named = done.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let again = site.client.get(site.url(&page)).header("cookie", format!("{cookie}; {named}")).send().await.unwrap().text().await.unwrap();
    assert!(again.contains("value=\"Ada\""), "{again}");
    // The page was old: nothing is done, and nothing that was written is lost.
    let stale = send(format!("{page}/mitigate"), &cookie, body(&token, 3, "a+%3Cb%3E+reason")).await;
    assert_eq!(stale.status().as_u16(), 412);
    let text = stale.text().await.unwrap();
    assert!(text.contains("revision 4") && text.contains("a &lt;b&gt; reason</textarea>"), "{text}");
    let note = send(format!("{page}/note"), &cookie, body(&token, 4, "%3Cscript%3Ealert(9)%3C%2Fscript%3E")).await;
    assert_eq!(note.status().as_u16(), 303);
    let html = site.get(&page).await.2;
    assert!(html.contains("&lt;script&gt;alert(9)") && !html.contains("<script>alert(9)"));

    // The demo's faults.
    assert_eq!(send("/faults/silence/on".into(), &cookie, format!("csrf={token}")).await.status().as_u16(), 303);
    assert!(site.fake.faults().iter().any(|f| f.name == "silence" && f.on));
    assert_eq!(send("/faults/silence/off".into(), &cookie, String::new()).await.status().as_u16(), 403);
    assert_eq!(send("/faults/nothing/on".into(), &cookie, format!("csrf={token}")).await.status().as_u16(), 404);
    let fault: Value = site.post("/api/v1/faults/silence/off", &json!({})).send().await.unwrap().json().await.unwrap();
    assert_eq!(fault["on"], false);
}

// --- the door ---

#[tokio::test]
async fn f58_a_slow_head_is_cut_off_and_others_are_served() {
    let site = Site::usual().await;
    let address = site.address;
    let slow: Vec<_> = (0..64)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").unwrap();
            stream
        })
        .collect();
    let before = Instant::now();
    for _ in 0..20 {
        assert_eq!(site.get("/-/healthy").await.0, 200);
    }
    assert!(before.elapsed() < Duration::from_secs(2));
    let cut = tokio::task::spawn_blocking(move || {
        for mut stream in slow {
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // Closed or reset: in any case not waited for.
            let mut rest = Vec::new();
            if let Err(e) = stream.read_to_end(&mut rest) {
                assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset);
            }
        }
    });
    cut.await.unwrap();
    let seconds = before.elapsed().as_secs();
    assert!((8..=14).contains(&seconds), "cut off after {seconds} s");
}

#[tokio::test]
async fn a_body_over_a_mebibyte_is_refused_unread() {
    let site = Site::usual().await;
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(site.address).unwrap();
        let path = format!("/api/v1/incidents/{}/note", site.fake.first_id());
        write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n{{").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut first = [0; 64];
        let n = stream.read(&mut first).unwrap();
        String::from_utf8_lossy(&first[..n]).into_owned()
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 413"));
}

// --- real parts ---

fn program(name: &str) -> Result<String, String> {
    let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().map_err(|e| e.to_string())?;
    if found.status.success() { Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned()) } else { Err(format!("no {name} on the path")) }
}

#[tokio::test]
async fn promtool_finds_nothing_to_complain_about() {
    let Some(promtool) = real("promtool", program("promtool")) else { return };
    let site = Site::usual().await;
    let (_, _, text) = site.get("/metrics").await;
    let mut check =
        Command::new(promtool).args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = check.wait_with_output().unwrap();
    assert!(said.status.success() && said.stdout.is_empty() && said.stderr.is_empty(), "{said:?}");
}

/// Ends what it started, also when a test fails.
struct Running(std::process::Child);
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_real_prometheus_scrapes_us() {
    let Some(prometheus) = real("prometheus", program("prometheus")) else { return };
    let site = Site::usual().await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("prometheus.yml");
    let address = site.address;
    std::fs::write(
        &config,
        format!("global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: bellwether, static_configs: [{{targets: ['{address}']}}]}}]\n"),
    )
    .unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new(prometheus)
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _running = Running(child);
    let ask = async |query: &str| -> Option<String> {
        let url = format!("http://127.0.0.1:{port}/api/v1/query?query={}", percent(query));
        let answer: Value = site.client.get(url).send().await.ok()?.json().await.ok()?;
        Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
    };
    let until = Instant::now() + Duration::from_secs(60);
    for (query, value) in
        [("up{job=\"bellwether\"}", "1"), ("bellwether_events_total{kind=\"prediction\"}", "4812331"), ("bellwether_series{state=\"armed\"}", "0")]
    {
        while ask(query).await.as_deref() != Some(value) {
            assert!(Instant::now() < until, "{query} is {:?}, not {value}", ask(query).await);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

/// How the browser is run: unseen, and talking to nobody but us.
const HEADLESS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-proxy-server",
];

/// Runs the browser once and returns what it wrote to stdout and to its log.
async fn browse(chromium: &str, arguments: Vec<String>) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(chromium);
    command.args(HEADLESS).args(["--enable-logging=stderr", "--v=0"]).arg(format!("--user-data-dir={}", profile.path().display())).args(arguments);
    let out = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    drop(profile);
    (String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_browser_shows_every_page_without_a_script_error() {
    let Some(chromium) = real("chromium", program("chromium")) else { return };
    let folder = std::path::Path::new("target/screenshots");
    std::fs::create_dir_all(folder).unwrap();
    let folder = folder.canonicalize().unwrap();
    let site = Site::usual().await;
    let hostile = Site::with(Fake::with(HOSTILE)).await;
    let incident = format!("/incidents/{}", site.fake.first_id());
    let broken = format!("/series/{}", site.fake.series[0].series.id);
    let empty = format!("/series/{}", site.fake.series.last().unwrap().series.id);
    for (name, site, path, size, dark) in [
        ("fleet", &site, "/", "1200,1300", false),
        ("incidents", &site, "/incidents", "1200,700", false),
        ("incident", &site, &incident, "1200,2400", false),
        ("model", &site, "/models/loan-scorer", "1200,1300", false),
        ("series", &site, &broken, "1200,1400", false),
        ("series-empty", &site, &empty, "1200,900", false),
        ("health", &site, "/health", "1200,1500", false),
        ("fleet-dark", &site, "/", "1200,1300", true),
        ("series-dark", &site, &broken, "1200,1400", true),
        ("incident-phone", &site, &incident, "500,2600", false),
        ("hostile", &hostile, "/", "1200,1600", false),
    ] {
        let file = folder.join(format!("{name}.png"));
        let _ = std::fs::remove_file(&file);
        let mut arguments = vec![format!("--screenshot={}", file.display()), format!("--window-size={size}")];
        if dark {
            arguments.push("--blink-settings=preferredColorScheme=0".into());
        }
        arguments.push(site.url(path));
        let (_, log) = browse(&chromium, arguments).await;
        assert!(!log.contains("CONSOLE"), "{name}: {log}");
        assert!(std::fs::metadata(&file).is_ok_and(|m| m.len() > 10_000), "{name}: {log}");
    }

    // The picture holds what it should, as the browser understands it.
    let (dom, log) = browse(&chromium, vec!["--dump-dom".into(), "--virtual-time-budget=8000".into(), site.url(&broken)]).await;
    assert!(!log.contains("CONSOLE"), "{log}");
    for class in ["band", "line", "evidence", "evidence-area"] {
        let d = dom.split(&format!("<path class=\"{class}\" d=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("");
        assert!(d.matches('L').count() > 100, "{class}: {d}");
        assert!(!d.contains("NaN") && !d.contains("inf"), "{class}");
    }
    assert!(dom.contains("class=\"threshold\"") && dom.contains("class=\"onset\""), "{dom}");
    // The script ran: it told the local time.
    assert!(dom.contains(" here\""), "{dom}");
    let (dom, log) = browse(&chromium, vec!["--dump-dom".into(), hostile.url(&format!("/incidents/{}", hostile.fake.first_id()))]).await;
    assert!(!log.contains("CONSOLE"), "{log}");
    assert!(!dom.contains("<img src=\"x\""), "{dom}");
}
