//! Telling people, through real sockets: the dispatcher and every kind of receiver against the oracle, and against the real
//! Alertmanager. Time runs twenty times as fast as on the wall, so that waits of a vendor's schedule fit into a test.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bellwether::dispatch::{self, Claimed, Clock, Dispatcher, Outbox, Tuning};
use bellwether::domain::alarm::Unit;
use bellwether::domain::delivery::{Delivery, DeliveryState, Message, Notice, Outcome};
use bellwether::domain::incident::{Finding, Incident, IncidentKey};
use bellwether::domain::{Category, Change, GroupKey, IncidentState, Onset, Segment, SeriesKey, Severity, Signal, Time};
use bellwether::notify::{Common, Errand, KINDS, Notifier, Receiver, http};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::oracle::{AlertState, Bad, Fault, Oracle};
use crate::parts;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// No test waits longer than this for something to happen, by the wall.
const PATIENCE: Duration = Duration::from_secs(40);

// === a house in memory ===

#[derive(Clone, Debug)]
pub struct Row {
    pub delivery: Delivery,
    pub state: DeliveryState,
    pub attempts: u32,
    first_attempt_at: Option<Time>,
    next_at: Time,
    lease_until: Time,
    pub detail: String,
}

/// An outbox that keeps the contract and nothing else.
#[derive(Default)]
pub struct Shelf {
    pub rows: Mutex<Vec<Row>>,
    pub incidents: Mutex<BTreeMap<String, Incident>>,
    /// By incident and receiver.
    pub references: Mutex<BTreeMap<(String, String), String>>,
}

impl Shelf {
    pub fn say(&self, receiver: &str, notice: Notice, incident: &Incident, at: Time) -> String {
        self.incidents.lock().expect("incidents").insert(incident.id.clone(), incident.clone());
        let delivery = Delivery::new(receiver, Message { notice, at, incident: incident.clone() });
        let id = delivery.id.clone();
        self.add(delivery).expect("added");
        id
    }
    pub fn row(&self, id: &str) -> Row {
        self.rows.lock().expect("rows").iter().find(|r| r.delivery.id == id).cloned().expect("a row")
    }
    pub fn is_done(&self) -> bool {
        self.rows.lock().expect("rows").iter().all(|r| r.state.is_final())
    }
}

impl Outbox for Shelf {
    fn claim(&self, now: Time, lease_ms: i64, max: usize) -> Result<Vec<Claimed>, String> {
        let mut rows = self.rows.lock().map_err(|e| e.to_string())?;
        let mut lanes = std::collections::BTreeSet::new();
        let mut out = Vec::new();
        for row in rows.iter_mut().filter(|r| !r.state.is_final()) {
            let is_head = lanes.insert((row.delivery.message.incident.id.clone(), row.delivery.receiver.clone()));
            let is_due = match row.state {
                DeliveryState::Sending => row.lease_until <= now,
                _ => row.next_at <= now,
            };
            if !is_head || !is_due || out.len() == max {
                continue;
            }
            let was_uncertain = matches!(row.state, DeliveryState::Sending | DeliveryState::Uncertain);
            let lane = (row.delivery.message.incident.id.clone(), row.delivery.receiver.clone());
            let reference = self.references.lock().map_err(|e| e.to_string())?.get(&lane).cloned();
            row.attempts += 1;
            row.state = DeliveryState::Sending;
            row.lease_until = now.plus_ms(lease_ms);
            out.push(Claimed {
                delivery: row.delivery.clone(),
                attempts: row.attempts,
                first_attempt_at: row.first_attempt_at,
                was_uncertain,
                reference,
            });
            row.first_attempt_at.get_or_insert(now);
        }
        Ok(out)
    }
    fn settle(&self, id: &str, attempts: u32, state: DeliveryState, detail: &str, next_at: Option<Time>, now: Time) -> Result<bool, String> {
        let mut rows = self.rows.lock().map_err(|e| e.to_string())?;
        let Some(row) = rows.iter_mut().find(|r| r.delivery.id == id && r.attempts == attempts && r.state == DeliveryState::Sending) else {
            return Ok(false);
        };
        row.state = state;
        row.detail = detail.to_owned();
        row.next_at = next_at.unwrap_or(now);
        Ok(true)
    }
    fn keep_reference(&self, incident: &str, receiver: &str, reference: &str, _now: Time) -> Result<(), String> {
        let lane = (incident.to_owned(), receiver.to_owned());
        self.references.lock().map_err(|e| e.to_string())?.insert(lane, reference.to_owned());
        Ok(())
    }
    fn open_incidents(&self) -> Result<Vec<Incident>, String> {
        Ok(self.incidents.lock().map_err(|e| e.to_string())?.values().filter(|i| i.state.is_live()).cloned().collect())
    }
    fn resolved_since(&self, t: Time) -> Result<Vec<Incident>, String> {
        let all = self.incidents.lock().map_err(|e| e.to_string())?;
        Ok(all.values().filter(|i| !i.state.is_live() && i.resolved_at.is_some_and(|at| at >= t)).cloned().collect())
    }
    fn incident(&self, id: &str) -> Result<Option<Incident>, String> {
        Ok(self.incidents.lock().map_err(|e| e.to_string())?.get(id).cloned())
    }
    fn add(&self, delivery: Delivery) -> Result<bool, String> {
        let mut rows = self.rows.lock().map_err(|e| e.to_string())?;
        if rows.iter().any(|r| r.delivery.id == delivery.id) {
            return Ok(false);
        }
        let (state, never) = (DeliveryState::Waiting, Time::MIN);
        rows.push(Row { delivery, state, attempts: 0, first_attempt_at: None, next_at: never, lease_until: never, detail: String::new() });
        Ok(true)
    }
    fn stood_in(&self, incident: &str, receiver: &str, other: &str) -> Result<bool, String> {
        let is_one = |d: &Delivery| d.receiver == receiver && d.message.incident.id == incident && d.instead_of.as_deref() == Some(other);
        Ok(self.rows.lock().map_err(|e| e.to_string())?.iter().any(|r| is_one(&r.delivery)))
    }
}

/// A dispatcher at work over a shelf.
pub struct House {
    pub shelf: Arc<Shelf>,
    pub clock: Clock,
    pub wake: Arc<Notify>,
    stop: watch::Sender<bool>,
    pub seen: Arc<Mutex<Vec<(String, Outcome, Duration)>>>,
    /// What was handed on, from whom to whom.
    pub handed_on: Arc<Mutex<Vec<(String, Option<String>)>>>,
    task: tokio::task::JoinHandle<()>,
}

pub fn clock(speed: i64) -> Clock {
    let wall = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let start = wall();
    Arc::new(move || Time(start + (wall() - start) * speed))
}

impl House {
    /// What nobody of `order` would take goes to its first, and what one of them would not to the next.
    pub fn start(shelf: Arc<Shelf>, receivers: Vec<(&str, Receiver)>, order: &[&str], clock: Clock) -> House {
        let next = |name: &str| match order.iter().position(|o| *o == name) {
            Some(at) => order.get(at + 1),
            None => order.first(),
        };
        let fallbacks = receivers.iter().filter_map(|(name, _)| Some(((*name).to_owned(), (*next(name)?).to_owned()))).collect();
        let handed_on: Arc<Mutex<Vec<_>>> = Arc::default();
        let handed = Arc::clone(&handed_on);
        let (stop, shutdown) = watch::channel(false);
        let wake = Arc::new(Notify::new());
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let log = Arc::clone(&seen);
        let dispatcher = Dispatcher::new(
            Arc::clone(&shelf) as Arc<dyn Outbox>,
            receivers.into_iter().map(|(n, r)| (n.to_owned(), r)).collect(),
            fallbacks,
            Arc::clone(&clock),
            (
                Arc::new(move |name, outcome, time| log.lock().expect("a log").push((name.to_owned(), outcome.clone(), time))),
                Arc::new(move |from, to| handed.lock().expect("a log").push((from.to_owned(), to.map(str::to_owned)))),
            ),
            Tuning { poll: Duration::from_millis(10), publish_every: Duration::from_millis(500), ..Tuning::default() },
        );
        let task = tokio::spawn(dispatcher.run(shutdown, Arc::clone(&wake)));
        House { shelf, clock, wake, stop, seen, handed_on, task }
    }

    pub async fn all_done(&self) {
        until("everything is settled", || self.shelf.is_done()).await;
    }

    /// Stops, and says how long that took.
    pub async fn stop(self) -> Duration {
        let began = Instant::now();
        self.stop.send(true).expect("a listener");
        self.task.await.expect("a clean end");
        began.elapsed()
    }
}

pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "in vain waited until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

// === what is said ===

pub fn build(kind: &str, pairs: &[(&str, Value)]) -> Receiver {
    let common = Common { instance: "it-1".into(), external_url: "https://bellwether.example".into(), version: "0.1.0".into() };
    let table = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    let kind = KINDS.iter().find(|k| k.name == kind).expect("a kind");
    match (kind.build)("it", &common, &table) {
        Ok(receiver) => receiver,
        Err(problems) => panic!("{problems:?}"),
    }
}

fn pagerduty(oracle: &Oracle, prefix: &str) -> Receiver {
    build("pagerduty", &[("routing_key", KEY.into()), ("url", format!("{}{prefix}/v2/enqueue", oracle.url).into())])
}

fn webhook(oracle: &Oracle, name: &str) -> Receiver {
    oracle.secret(name, SECRET);
    build("webhook", &[("secret", SECRET.into()), ("url", format!("{}/{name}/hooks/{name}", oracle.url).into())])
}

pub fn notifier(receiver: Receiver) -> Box<dyn Notifier> {
    match receiver {
        Receiver::Messages(n) => n,
        Receiver::State(_) => panic!("not a messenger"),
    }
}

/// The `n`th incident, open.
pub fn incident(n: usize, now: Time) -> Incident {
    let group =
        GroupKey { segment: Some(Segment { dimension: "region".into(), value: "eu".into() }), ..GroupKey::roll_up("prod", &format!("model-{n}")) };
    let series = SeriesKey { group, signal: Signal::ErrorRate };
    let onset = Onset::sharp(now.plus_ms(-120_000));
    Incident {
        id: format!("inc-{n:012}"),
        revision: 1,
        key: IncidentKey { environment: "prod".into(), model: format!("model-{n}"), category: Category::ModelFailure },
        state: IncidentState::Open,
        severity: Severity::DEGRADED,
        severity_reasons: Arc::default(),
        title: format!("model-{n} prod: error rate 0.4 % → 3.1 %"),
        onset,
        opened_at: now,
        updated_at: now,
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
            onset,
            found_at: now,
            log_evidence: Some(14.0),
            threshold: Some(9.0),
            by_rule: false,
            recovered_at: None,
        }],
        versions: vec!["v2".into()],
        segments: vec![],
        users_affected: None,
        cause: None,
        action: "route 0 % to v2".into(),
        roots: Default::default(),
        merged_into: None,
        merged: vec![],
        merged_beyond: 0,
        told: vec![],
        suppressed: None,
        settles_at: None,
        exemplars: Arc::default(),
        response: Default::default(),
        spread: None,
        severity_set: None,
    }
}

pub fn later(incident: &Incident, state: IncidentState, now: Time) -> Incident {
    let resolved_at = (!state.is_live()).then_some(now);
    Incident { revision: incident.revision + 1, state, updated_at: now, resolved_at, ..incident.clone() }
}

fn key(n: usize) -> String {
    format!("bellwether/it-1/inc-{n:012}")
}

// === tests ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_is_told_in_order_to_every_kind() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    let plain = [("url", json!(format!("{}/am-hook/hooks/plain", oracle.url))), ("format", json!("alertmanager"))];
    let receivers = vec![
        ("pd", pagerduty(&oracle, "")),
        ("hook", webhook(&oracle, "hook")),
        ("amhook", build("webhook", &plain)),
        ("am", build("alertmanager", &[("url", format!("{0}/one/,{0}/two", oracle.url).into()), ("labels", json!({"team": "risk"}))])),
    ];
    let house = House::start(Arc::clone(&shelf), receivers, &[], clock(20));
    let now = (house.clock)();
    let first = incident(1, now);
    let acked = later(&first, IncidentState::Acknowledged, now);
    let over = later(&acked, IncidentState::Resolved, now);
    for receiver in ["pd", "hook", "amhook"] {
        shelf.say(receiver, Notice::Opened, &first, now);
        shelf.say(receiver, Notice::Acknowledged, &acked, now);
    }
    house.wake.notify_one();
    house.all_done().await;
    until("it fires at both members", || oracle.requests_to("/two").iter().any(|r| r.json()[0]["labels"]["severity"] == "warning")).await;
    for receiver in ["pd", "hook", "amhook"] {
        shelf.say(receiver, Notice::Mitigated, &later(&acked, IncidentState::Mitigated, now), now);
        shelf.say(receiver, Notice::Resolved, &later(&over, IncidentState::Resolved, (house.clock)()), (house.clock)());
    }
    house.wake.notify_one();
    house.all_done().await;
    let ended = |r: &crate::oracle::Seen| r.json()[0]["endsAt"].as_str().and_then(Time::parse_rfc3339).is_some_and(|t| t <= (house.clock)());
    until("it ends at both members", || oracle.requests_to("/one").last().is_some_and(ended)).await;

    let actions: Vec<Value> = oracle.requests_to("/v2").iter().map(|r| r.json()["event_action"].clone()).collect();
    assert_eq!(actions, ["trigger", "acknowledge", "resolve"]);
    let types: Vec<Value> = oracle.requests_to("/hook/").iter().map(|r| r.json()["type"].clone()).collect();
    assert_eq!(types, ["incident.opened", "incident.acknowledged", "incident.mitigated", "incident.resolved"]);
    let states: Vec<Value> = oracle.requests_to("/am-hook/").iter().map(|r| r.json()["status"].clone()).collect();
    assert_eq!(states, ["firing", "resolved"]);
    let alerts = oracle.alerts();
    assert_eq!((alerts.len(), alerts[0].state, alerts[0].severity.as_str()), (1, AlertState::Resolved, "error"));
    assert_eq!(oracle.problems(), Vec::<String>::new());
    assert!(house.stop().await < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_test_message_passes() {
    let oracle = Oracle::start();
    let am = build("alertmanager", &[("url", oracle.url.clone().into())]);
    for receiver in [pagerduty(&oracle, ""), webhook(&oracle, "hook"), am] {
        let outcome = match receiver {
            Receiver::Messages(n) => n.test(clock(1)()).await,
            Receiver::State(p) => p.test(clock(1)()).await,
        };
        assert_eq!(outcome.as_str(), "accepted", "{outcome:?}");
    }
    assert_eq!(oracle.problems(), Vec::<String>::new());
}

/// Bad answers, with what each means to PagerDuty, to a webhook and to Alertmanager.
fn bad_answers(trap: &str) -> Vec<(&'static str, Fault, [&'static str; 3])> {
    let refused = ["refused"; 3];
    let retry = ["retry"; 3];
    let lost = ["uncertain"; 3];
    let html = "<html><body>please log in</body></html>";
    let mut out: Vec<(&str, Fault, [&str; 3])> = vec![
        ("429 with a wait", Fault::with(429, &[("retry-after", "7")], ""), retry),
        ("500", Fault::status(500), retry),
        ("502 in html", Fault::with(502, &[("content-type", "text/html")], html), retry),
        ("503 with a date of ten years", Fault::with(503, &[("retry-after", "Thu, 20 Nov 2036 08:00:30 GMT")], ""), retry),
        ("504", Fault::status(504), retry),
        ("200 in html", Fault::with(200, &[("content-type", "text/html")], html), ["retry", "accepted", "accepted"]),
        ("302", Fault::with(302, &[("location", trap)], ""), retry),
        ("307", Fault::with(307, &[("location", trap)], ""), retry),
        ("418", Fault::status(418), retry),
        ("cut after reading", Fault::lost_answer(), lost),
        ("hangs", Fault::hang(Duration::from_secs(20)), lost),
        ("rubbish", Fault::bad(Bad::Rubbish), lost),
        ("half a head", Fault::bad(Bad::HalfHead), lost),
        ("endless headers", Fault::bad(Bad::EndlessHeaders), lost),
        ("503 with a gigabyte", Fault::bad(Bad::Huge(503, 1 << 30)), retry),
        ("202 with a gigabyte", Fault::bad(Bad::Huge(202, 1 << 30)), ["accepted"; 3]),
        ("500 that drips", Fault::bad(Bad::Drip(500, Duration::from_secs(20))), retry),
        ("202 that drips", Fault::bad(Bad::Drip(202, Duration::from_secs(20))), ["accepted"; 3]),
    ];
    for status in http::REFUSED {
        out.push(("refused", Fault::with(*status, &[], &format!("no: {KEY} \u{1b}[31m\nred")), refused));
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_every_bad_answer_is_told_apart() {
    let oracle = Arc::new(Oracle::start());
    let trap = format!("{}/trap/v2/enqueue", oracle.url);
    let now = clock(1)();
    let mut all = tokio::task::JoinSet::new();
    let cases = bad_answers(&trap);
    let count = cases.len();
    assert!(count >= 20);
    for (n, (what, fault, expected)) in cases.into_iter().enumerate() {
        for (kind, expected) in expected.into_iter().enumerate() {
            let prefix = format!("/{kind}-{n}");
            oracle.always(&format!("{prefix}/"), fault.clone());
            let receiver = match kind {
                0 => pagerduty(&oracle, &prefix),
                1 => build("webhook", &[("secret", SECRET.into()), ("url", format!("{}{prefix}/hooks/x", oracle.url).into())]),
                _ => build("alertmanager", &[("url", format!("{}{prefix}", oracle.url).into())]),
            };
            all.spawn(async move {
                let incident = incident(n, now);
                let began = Instant::now();
                let outcome = match receiver {
                    Receiver::Messages(r) => {
                        let delivery = Delivery::new("x", Message { notice: Notice::Opened, at: now, incident });
                        r.deliver(Errand::first(&delivery), now).await.outcome
                    }
                    Receiver::State(r) => r.publish(&[incident], &[], now).await,
                };
                (what, kind, expected, outcome, began.elapsed())
            });
        }
    }
    let mut wrong = Vec::new();
    let mut slowest = Duration::ZERO;
    while let Some(done) = all.join_next().await {
        let (what, kind, expected, outcome, time) = done.expect("no panic");
        slowest = slowest.max(time);
        let detail = outcome.detail();
        let is_clean = !detail.contains('\u{1b}') && detail.chars().count() < 500 && (kind != 0 || !detail.contains(KEY));
        let is_bounded = match &outcome {
            Outcome::Retry { after_ms, .. } => after_ms.is_none_or(|ms| (1_000..=900_000).contains(&ms)),
            _ => true,
        };
        if outcome.as_str() != expected || !is_clean || !is_bounded {
            wrong.push(format!("{what}, kind {kind}: {outcome:?}, expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(oracle.requests_to("/trap").is_empty(), "a redirect was followed");
    assert_eq!(oracle.requests().len(), 3 * count, "one attempt is one request");
    assert!(slowest < Duration::from_secs(17), "{slowest:?}");
    println!("{count} bad answers x 3 kinds told apart, slowest {slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_home_and_no_such_name_did_not_arrive() {
    for url in ["http://127.0.0.1:1/v2/enqueue", "http://no-such-host.invalid/v2/enqueue"] {
        let pd = notifier(build("pagerduty", &[("routing_key", KEY.into()), ("url", url.into())]));
        let now = clock(1)();
        let delivery = Delivery::new("x", Message { notice: Notice::Opened, at: now, incident: incident(0, now) });
        let outcome = pd.deliver(Errand::first(&delivery), now).await.outcome;
        assert!(matches!(outcome, Outcome::Retry { status: None, .. }), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f30_f32_twenty_bad_beginnings_end_in_one_alert_each() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    let quick = |(what, fault, expected): (&'static str, Fault, [&'static str; 3])| {
        let is_slow = matches!(fault.answer, Bad::Late(_) | Bad::Drip(..) | Bad::Huge(..));
        let is_far = what.contains("ten years");
        (!is_slow && !is_far && expected[0] != "refused" && expected[1] != "accepted").then_some((what, fault))
    };
    let faults: Vec<_> = bad_answers("http://127.0.0.1:1/").into_iter().filter_map(quick).collect();
    // Whatever comes first, twice over; the receiver may or may not have acted on what it answered badly.
    for (_, fault) in &faults {
        for acts in [true, false] {
            oracle.next("/v2", [Fault { acts, ..fault.clone() }]);
            oracle.next("/hook/", [Fault { acts, ..fault.clone() }]);
        }
    }
    let house = House::start(Arc::clone(&shelf), vec![("pd", pagerduty(&oracle, "")), ("hook", webhook(&oracle, "hook"))], &[], clock(20));
    let now = (house.clock)();
    const INCIDENTS: usize = 12;
    for n in 0..INCIDENTS {
        let opened = incident(n, now);
        for receiver in ["pd", "hook"] {
            shelf.say(receiver, Notice::Opened, &opened, now);
            shelf.say(receiver, Notice::Updated, &Incident { revision: 2, ..opened.clone() }, now);
        }
    }
    house.all_done().await;
    for n in 0..INCIDENTS {
        assert_eq!(oracle.open_alerts_opened_count(&key(n)), 1, "{n}");
    }
    assert_eq!(oracle.message_ids().len(), 2 * INCIDENTS);
    assert!(shelf.rows.lock().expect("rows").iter().all(|r| r.state == DeliveryState::Accepted));
    assert_eq!(oracle.problems(), Vec::<String>::new());
    println!("{} bad answers, {INCIDENTS} incidents, {INCIDENTS} alerts", 4 * faults.len());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f32_a_lost_answer_means_the_same_key_again() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    oracle.next("/v2", [Fault::lost_answer(), Fault::lost_answer()]);
    let house = House::start(Arc::clone(&shelf), vec![("pd", pagerduty(&oracle, ""))], &[], clock(20));
    let id = shelf.say("pd", Notice::Opened, &incident(1, (house.clock)()), (house.clock)());
    house.wake.notify_one();
    house.all_done().await;
    assert_eq!(shelf.row(&id).attempts, 3);
    assert_eq!((oracle.open_alerts_opened_count(&key(1)), oracle.alerts()[0].triggers), (1, 3));
    let kinds: Vec<&str> = house.seen.lock().expect("seen").iter().map(|(_, o, _)| o.as_str()).collect();
    assert_eq!(kinds, ["uncertain", "uncertain", "accepted"]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f33_a_person_resolves_while_a_trigger_is_uncertain() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    let clock = clock(20);
    let opened = incident(1, clock());
    let id = shelf.say("pd", Notice::Opened, &opened, clock());
    oracle.always("/v2", Fault::lost_answer());
    let house = House::start(Arc::clone(&shelf), vec![("pd", pagerduty(&oracle, ""))], &["pd"], clock);
    until("the first answer is lost", || shelf.row(&id).state == DeliveryState::Uncertain).await;
    // Over there a person closes it, and here somebody does.
    let now = (house.clock)();
    shelf.say("pd", Notice::Resolved, &later(&opened, IncidentState::Resolved, now), now);
    oracle.resolve_by_hand(&key(1));
    let before = oracle.open_alerts_opened_count(&key(1));
    oracle.heal("/v2");
    house.all_done().await;
    assert_eq!(oracle.open_alerts_opened_count(&key(1)), before, "nobody was called again");
    assert_eq!(shelf.row(&id).state, DeliveryState::Expired);
    assert!(shelf.row(&id).detail.contains("nobody knows whether it arrived"), "{}", shelf.row(&id).detail);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_asks_for_time_gets_it() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    oracle.next("/v2", [Fault::with(429, &[("retry-after", "40")], "slow down")]);
    let house = House::start(Arc::clone(&shelf), vec![("pd", pagerduty(&oracle, ""))], &[], clock(20));
    shelf.say("pd", Notice::Opened, &incident(1, (house.clock)()), (house.clock)());
    house.all_done().await;
    let seen = oracle.requests();
    let waited = seen[1].at.duration_since(seen[0].at);
    assert_eq!(seen.len(), 2);
    assert!(waited >= Duration::from_millis(40_000 / 20 - 20), "{waited:?}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f35_a_refusal_goes_to_the_fallback_at_once_and_is_shown() {
    for status in http::REFUSED {
        let oracle = Oracle::start();
        let shelf = Arc::new(Shelf::default());
        oracle.always("/v2", Fault::with(*status, &[], r#"{"status":"invalid event","message":"key is gone"}"#));
        let receivers = vec![("pd", pagerduty(&oracle, "")), ("hook", webhook(&oracle, "hook"))];
        let house = House::start(Arc::clone(&shelf), receivers, &["pd", "hook"], clock(1));
        let began = Instant::now();
        let id = shelf.say("pd", Notice::Opened, &incident(1, (house.clock)()), (house.clock)());
        until("the fallback has it", || oracle.message_ids().len() == 1).await;
        assert!(began.elapsed() < Duration::from_secs(5));
        house.all_done().await;
        assert_eq!(oracle.requests_to("/v2").len(), 1, "no second try after {status}");
        let row = shelf.row(&id);
        assert_eq!(row.state, DeliveryState::Refused);
        assert!(row.detail.contains("key is gone") && row.detail.contains("sent to hook instead"), "{}", row.detail);
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_believed_at_its_third_refusal_and_at_its_first_410() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    oracle.always("/hook/", Fault::status(404));
    oracle.next("/gone/", [Fault::status(410)]);
    let receivers = vec![("hook", webhook(&oracle, "hook")), ("gone", webhook(&oracle, "gone")), ("first", pagerduty(&oracle, ""))];
    let house = House::start(Arc::clone(&shelf), receivers, &["first"], clock(20));
    let now = (house.clock)();
    let hook = shelf.say("hook", Notice::Opened, &incident(1, now), now);
    shelf.say("gone", Notice::Opened, &incident(2, now), now);
    house.all_done().await;
    let after = shelf.say("gone", Notice::Opened, &incident(3, now), now);
    let nobody = shelf.say("no-such", Notice::Opened, &incident(4, now), now);
    house.wake.notify_one();
    house.all_done().await;
    assert_eq!(oracle.requests_to("/hook/").len(), 3);
    let ids: std::collections::BTreeSet<_> = oracle.requests_to("/hook/").iter().map(|r| r.headers["webhook-id"].clone()).collect();
    assert_eq!(ids.len(), 1, "the id is the same at every retry");
    assert_eq!(oracle.requests_to("/gone/").len(), 1, "a disabled endpoint is left alone");
    for id in [&hook, &after, &nobody] {
        assert_eq!(shelf.row(id).state, DeliveryState::Refused);
    }
    assert_eq!(oracle.alerts().len(), 4, "the fallback heard of all four");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f39_a_hanging_receiver_does_not_delay_the_others() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    oracle.always("/hangs/", Fault { acts: false, ..Fault::hang(Duration::from_secs(60)) });
    let receivers = vec![("hangs", webhook(&oracle, "hangs")), ("pd", pagerduty(&oracle, "")), ("hook", webhook(&oracle, "hook"))];
    let house = House::start(Arc::clone(&shelf), receivers, &[], clock(1));
    let now = (house.clock)();
    // More than all lanes together hold.
    for n in 0..200 {
        shelf.say("hangs", Notice::Opened, &incident(n, now), now);
    }
    house.wake.notify_one();
    until("it hangs", || oracle.requests_to("/hangs/").len() >= 16).await;
    let mut times = Vec::new();
    for n in 1_000..1_050 {
        let began = Instant::now();
        shelf.say("pd", Notice::Opened, &incident(n, now), now);
        shelf.say("hook", Notice::Opened, &incident(n, now), now);
        house.wake.notify_one();
        until("both have heard", || oracle.alerts().len() == n - 999 && oracle.message_ids().len() == n - 999).await;
        times.push(began.elapsed());
    }
    times.sort();
    println!(
        "beside a hanging receiver with 200 messages: median {:?}, slowest of {} {:?}",
        times[times.len() / 2],
        times.len(),
        times[times.len() - 1]
    );
    assert!(times[times.len() - 1] < Duration::from_secs(2), "{times:?}");
    house.task.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_with_a_message_in_hand_is_an_uncertain_one() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    let clock = clock(20);
    let id = shelf.say("pd", Notice::Opened, &incident(1, clock()), clock());
    // A process claims, sends, and is gone.
    let claim = shelf.claim(clock(), 30_000, 10).expect("claims").remove(0);
    notifier(pagerduty(&oracle, "")).deliver(Errand::first(&claim.delivery), clock()).await;
    let house = House::start(Arc::clone(&shelf), vec![("pd", pagerduty(&oracle, ""))], &[], clock);
    house.all_done().await;
    assert_eq!(shelf.settle(&id, claim.attempts, DeliveryState::Refused, "", None, Time(0)), Ok(false), "the dead cannot settle");
    assert_eq!((oracle.open_alerts_opened_count(&key(1)), oracle.alerts()[0].triggers), (1, 2));
    assert_eq!(shelf.row(&id).state, DeliveryState::Accepted);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f61_the_heart_beats_only_while_all_is_whole() {
    let oracle = Oracle::start();
    let is_whole = Arc::new(Mutex::new(Ok(())));
    let (stop, shutdown) = watch::channel(false);
    let state = Arc::clone(&is_whole);
    let task = tokio::spawn(dispatch::heartbeat(
        http::Client::new("0.1.0", false, false, vec![]).expect("a client"),
        format!("{}/echo/heart", oracle.url).into(),
        Duration::from_millis(10),
        Arc::new(move || state.lock().expect("a state").clone()),
        clock(1),
        shutdown,
    ));
    let beats = || oracle.requests_to("/echo/heart").len();
    until("it beats", || beats() > 2).await;
    *is_whole.lock().expect("a state") = Err("the judge stands still".to_owned());
    // One may be in the air.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let before = beats();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(beats(), before);
    *is_whole.lock().expect("a state") = Ok(());
    until("it beats again", || beats() > before + 1).await;
    assert!(oracle.requests().iter().all(|r| r.method == "GET"));
    stop.send(true).expect("a listener");
    task.await.expect("a clean end");
}

// === the real Alertmanager ===

struct RealAlertmanager {
    url: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for RealAlertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RealAlertmanager {
    /// Starts one whose own notifications go to `webhook`.
    async fn start(webhook: &str) -> Result<RealAlertmanager, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let config = format!(
            "route:\n  receiver: it\n  group_by: [alertname, bellwether_incident]\n  group_wait: 0s\n  group_interval: 1s\n  repeat_interval: 1h\n\
             receivers:\n  - name: it\n    webhook_configs:\n      - url: {webhook}\n"
        );
        let file = dir.path().join("alertmanager.yml");
        std::fs::write(&file, config).map_err(|e| e.to_string())?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(|e| e.to_string())?.port();
        let start = |program: &str| {
            Command::new(program)
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.path={}", dir.path().join("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}"))
                .arg("--cluster.listen-address=")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
        };
        // The name that Debian gives it, and its own.
        let child = start("prometheus-alertmanager").or_else(|_| start("alertmanager")).map_err(|e| e.to_string())?;
        let real = RealAlertmanager { url: format!("http://127.0.0.1:{port}"), child, _dir: dir };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if real.get("/-/ready").await.is_some() {
                return Ok(real);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("it does not become ready".to_owned())
    }

    async fn get(&self, path: &str) -> Option<Vec<u8>> {
        let client = http::Client::new("0.1.0", false, false, vec![]).ok()?;
        let url = http::endpoint(&format!("{}{path}", self.url)).ok()?;
        client.get(&url, Time(0)).await.ok().filter(http::Answer::is_success).map(|a| a.body)
    }

    /// (severity, state) of our alerts there.
    async fn alerts(&self) -> Vec<(String, String)> {
        let body = self.get("/api/v2/alerts").await.unwrap_or_default();
        let doc: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        doc.as_array().into_iter().flatten().map(|a| (text(&a["labels"]["severity"]), text(&a["status"]["state"]))).collect()
    }

    async fn shows(&self, expected: &[(&str, &str)]) {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.alerts().await;
            if found.iter().map(|(a, b)| (a.as_str(), b.as_str())).eq(expected.iter().copied()) {
                return;
            }
            assert!(Instant::now() < end, "shows {found:?}, expected {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_alertmanager_fires_and_resolves() {
    let oracle = Oracle::start();
    let Some(real) = parts::real("alertmanager", RealAlertmanager::start(&format!("{}/echo/from-am", oracle.url)).await) else { return };
    let shelf = Arc::new(Shelf::default());
    let receiver = build("alertmanager", &[("url", real.url.clone().into()), ("labels", json!({"team": "risk"}))]);
    let house = House::start(Arc::clone(&shelf), vec![("am", receiver)], &[], clock(1));
    let now = (house.clock)();
    let opened = incident(1, now);
    let put = |i: &Incident| {
        shelf.incidents.lock().expect("incidents").insert(i.id.clone(), i.clone());
        house.wake.notify_one();
    };
    put(&opened);
    real.shows(&[("warning", "active")]).await;
    // Worse: another alert, and the old one ends.
    let worse = Incident { severity: Severity::HARM, revision: 2, ..opened.clone() };
    put(&worse);
    real.shows(&[("critical", "active")]).await;
    // It tells others once a second at most; what fires and ends in between it never tells as firing.
    let last_told = |severity: &str| {
        let all = oracle.requests_to("/echo/from-am");
        let mut alerts = all.iter().flat_map(|r| r.json()["alerts"].as_array().cloned().unwrap_or_default());
        alerts.rfind(|a| a["labels"]["severity"] == severity).and_then(|a| a["status"].as_str().map(str::to_owned)).unwrap_or_default()
    };
    until("it has told the change", || last_told("warning") == "resolved" && last_told("critical") == "firing").await;
    let over = later(&worse, IncidentState::Resolved, (house.clock)());
    put(&over);
    real.shows(&[]).await;
    until("it has told the end", || last_told("critical") == "resolved").await;
    let failed: Vec<_> = house.seen.lock().expect("seen").iter().filter(|(_, o, _)| o.as_str() != "accepted").cloned().collect();
    assert!(failed.is_empty(), "{failed:?}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_told_instead_hears_the_end_whoever_takes_it() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    let receivers = vec![("pd", pagerduty(&oracle, "")), ("hook", webhook(&oracle, "hook")), ("last", webhook(&oracle, "last"))];
    let house = House::start(Arc::clone(&shelf), receivers, &["pd", "hook", "last"], clock(20));
    let now = (house.clock)();
    let (first, other) = (incident(1, now), incident(2, now));
    // The pager refuses the call and takes what follows; the second incident it takes from the beginning.
    oracle.next("/v2", [Fault::status(400)]);
    shelf.say("pd", Notice::Opened, &first, now);
    house.wake.notify_one();
    house.all_done().await;
    shelf.say("pd", Notice::Opened, &other, now);
    let acked = later(&first, IncidentState::Acknowledged, now);
    let over = later(&acked, IncidentState::Resolved, now);
    shelf.say("pd", Notice::Acknowledged, &acked, now);
    shelf.say("pd", Notice::Mitigated, &later(&acked, IncidentState::Mitigated, now), now);
    shelf.say("pd", Notice::Resolved, &over, (house.clock)());
    shelf.say("pd", Notice::Resolved, &later(&other, IncidentState::Resolved, now), (house.clock)());
    house.wake.notify_one();
    house.all_done().await;
    let told = |path: &str| {
        oracle.requests_to(path).iter().map(|r| (r.json()["type"].clone(), r.json()["data"]["incident"]["id"].clone())).collect::<Vec<_>>()
    };
    let of_first = |what: &str| (json!(what), json!("inc-000000000001"));
    assert_eq!(told("/hook/"), [of_first("incident.opened"), of_first("incident.acknowledged"), of_first("incident.resolved")]);
    assert!(told("/last/").is_empty(), "nobody stood in for the hook");
    let handed = house.handed_on.lock().expect("a log").clone();
    assert_eq!(handed, vec![("pd".to_owned(), Some("hook".to_owned())); 3]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_gets_nowhere_is_told_to_the_fallback_as_well_and_tried_on() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    oracle.always("/v2", Fault::status(503));
    // Unsigned: in a time that runs so fast, a signature is out of date at once.
    let plain = build("webhook", &[("url", format!("{}/hooks/plain", oracle.url).into())]);
    let receivers = vec![("pd", pagerduty(&oracle, "")), ("hook", plain)];
    // A quarter of an hour in seven seconds and a half.
    let house = House::start(Arc::clone(&shelf), receivers, &["pd", "hook"], clock(120));
    let now = (house.clock)();
    let id = shelf.say("pd", Notice::Opened, &incident(1, now), now);
    house.wake.notify_one();
    until("the fallback has it", || !oracle.requests_to("/hooks/plain").is_empty()).await;
    assert!((house.clock)().since_ms(now) > 15 * 60_000, "not before");
    oracle.heal("/v2");
    house.all_done().await;
    assert_eq!(shelf.row(&id).state, DeliveryState::Accepted, "it was tried on");
    // Where time runs so fast, a lease may run out before the answer: the same message comes again, and is known as that.
    let ids: std::collections::BTreeSet<_> = oracle.requests_to("/hooks/plain").iter().map(|r| r.headers["webhook-id"].clone()).collect();
    assert_eq!((oracle.alerts().len(), ids.len()), (1, 1));
    assert_eq!(house.handed_on.lock().expect("a log").len(), 1, "counted once, however often it is said");
    house.stop().await;
}

// === certificates ===

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    SelfSigned,
    OutOfDate,
    NotYet,
    OtherHost,
    OtherAuthority,
}

/// A server for TLS with such a certificate, which answers 202 to everything: its port, and its authority in PEM.
fn tls_server(wrong: Wrong) -> (u16, String, Arc<Mutex<Vec<String>>>) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), Issuer::new(params, key))
    };
    let (pem, issuer) = authority("authority of a test");
    let (_, stranger) = authority("another authority");
    let name = if wrong == Wrong::OtherHost { "elsewhere.example" } else { "localhost" };
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    match wrong {
        Wrong::OutOfDate => (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 2, 3)),
        Wrong::NotYet => (params.not_before, params.not_after) = (date_time_ymd(2090, 1, 1), date_time_ymd(2091, 2, 3)),
        Wrong::Nothing | Wrong::SelfSigned | Wrong::OtherHost | Wrong::OtherAuthority => {}
    }
    let key = KeyPair::generate().expect("a key");
    let certificate = match wrong {
        Wrong::SelfSigned => params.self_signed(&key),
        Wrong::OtherAuthority => params.signed_by(&key, &stranger),
        Wrong::Nothing | Wrong::OutOfDate | Wrong::NotYet | Wrong::OtherHost => params.signed_by(&key, &issuer),
    };
    let chain = vec![certificate.expect("a certificate").der().clone()];
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a server");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, log) = (Arc::clone(&config), Arc::clone(&log));
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let connection = rustls::ServerConnection::new(config).expect("a connection");
                let mut tls = rustls::StreamOwned::new(connection, stream);
                let mut head = [0u8; 4096];
                if let Ok(read) = tls.read(&mut head) {
                    log.lock().expect("a log").push(String::from_utf8_lossy(&head[..read]).into_owned());
                    let _ = tls.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
                    let _ = tls.flush();
                }
            });
        }
    });
    (port, pem, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_a_certificate_that_is_not_taken_is_told_in_words_and_nothing_is_sent() {
    for (wrong, piece) in [
        (Wrong::Nothing, ""),
        (Wrong::SelfSigned, "the certificate of localhost is"),
        (Wrong::OutOfDate, "the certificate of localhost was good until 2021-02-03T00:00:00Z and is out of date"),
        (Wrong::NotYet, "the certificate of localhost is good from 2090-01-01T00:00:00Z on only; by the clock of this machine it is 2"),
        (Wrong::OtherHost, "the certificate is not for localhost, but for"),
        (Wrong::OtherAuthority, "signed by nobody whom this machine trusts"),
    ] {
        let (port, pem, heard) = tls_server(wrong);
        let url = format!("https://localhost:{port}/hook");
        let hook = notifier(build("webhook", &[("url", url.clone().into()), ("secret", SECRET.into()), ("ca", pem.into())]));
        let outcome = hook.test(Time(1_795_166_080_000)).await;
        match wrong {
            Wrong::Nothing => assert!(matches!(outcome, Outcome::Accepted { status: 202, .. }), "{outcome:?}"),
            _ => {
                assert!(matches!(outcome, Outcome::Untrusted { .. }) && outcome.detail().contains(piece), "{wrong:?}: {outcome:?}");
                assert!(heard.lock().expect("a log").is_empty(), "{wrong:?}: something was sent");
            }
        }
        if wrong == Wrong::Nothing {
            // Without its authority named, it is a stranger.
            let outcome = notifier(build("webhook", &[("url", url.into())])).test(Time(0)).await;
            assert!(outcome.detail().contains("ca_file"), "{outcome:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_cannot_show_who_he_is_is_tried_on_and_another_is_told_at_once() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    let (port, pem, _) = tls_server(Wrong::OutOfDate);
    let stale = build("webhook", &[("url", format!("https://localhost:{port}/hook").into()), ("ca", pem.into())]);
    let house = House::start(Arc::clone(&shelf), vec![("stale", stale), ("pd", pagerduty(&oracle, ""))], &["stale", "pd"], clock(1));
    let began = Instant::now();
    let now = (house.clock)();
    let id = shelf.say("stale", Notice::Opened, &incident(1, now), now);
    house.wake.notify_one();
    until("the fallback has it", || oracle.alerts().len() == 1).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    until("it is written down", || shelf.row(&id).state == DeliveryState::Waiting).await;
    let row = shelf.row(&id);
    assert!(row.detail.contains("out of date") && row.detail.contains("sent to pd as well"), "{row:?}");
    house.stop().await;
}

#[test]
fn a_file_that_holds_no_certificate_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, "hello").expect("written");
    let common = Common { instance: "it-1".into(), external_url: "https://bellwether.example".into(), version: "0.1.0".into() };
    for (key, value) in [("ca", json!("hello")), ("ca_file", json!(path.to_str()))] {
        let table = [("url".to_owned(), json!("https://a.example")), (key.to_owned(), value)].into();
        let kind = KINDS.iter().find(|k| k.name == "webhook").expect("a kind");
        let problems = (kind.build)("x", &common, &table).err().expect("refused");
        assert!(problems.iter().any(|(k, words)| k == key && words.contains("holds no certificate in PEM")), "{problems:?}");
    }
}
