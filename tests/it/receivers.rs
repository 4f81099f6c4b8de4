//! Every receiver against its vendor's rules, through real sockets: one life of an incident, every bad answer, and bad beginnings
//! that must end in one ticket, one message or one alert.
//!
//! One table of bad answers serves all kinds. What a bad answer means is told for the three families in which receivers read
//! answers, and where a kind differs, by its name. At the end the daemon itself: from events to tickets and back from a pager.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether::domain::delivery::{Delivery, DeliveryState, Message, Notice, Outcome, Receipt};
use bellwether::domain::incident::Incident;
use bellwether::domain::{ClosedAs, IncidentState, Severity, Time};
use bellwether::fleet::{Fault as FaultOfFleet, Plan};
use bellwether::notify::{Errand, Notifier, Receiver, http};
use serde_json::{Value, json};

use crate::broker::{Broker, unique};
use crate::daemon::{Config, Daemon, Feed, days_ago};
use crate::notify::{House, Shelf, build, clock, incident, later, notifier, until};
use crate::oracle::{AlertState, Bad, Fault, Oracle};
use crate::vendors::{HOSTILE, JIRA_EMAIL, SLACK_CHANNEL, SLACK_TOKEN, TOKEN, World};

/// One kind of receiver, in one of the ways in which it can be set up.
struct Kind {
    /// Its name in the tables here.
    name: &'static str,
    kind: &'static str,
    /// Its settings behind an oracle's prefix.
    knobs: fn(url: &str) -> Vec<(&'static str, Value)>,
    /// `METHOD /path` behind the prefix of the request that makes something.
    makes: &'static str,
    reads: Reads,
    /// How a request that only asks begins, if there is one before the making.
    asks: Option<&'static str>,
    /// What no answer may bring into our words.
    secret: &'static str,
}

/// By what a receiver tells that a message was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    /// Any status of success.
    Status,
    /// The body must be the vendor's own; without it the message may have been taken.
    Body,
    /// The body or a status of its own; without it a portal has answered in the vendor's place.
    PagerDuty,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "slack",
        kind: "slack",
        knobs: |url| {
            vec![
                ("token", SLACK_TOKEN.into()),
                ("channel", SLACK_CHANNEL.into()),
                ("history", true.into()),
                ("url", format!("{url}/slack/api").into()),
            ]
        },
        makes: "POST /slack/api/chat.postMessage",
        reads: Reads::Body,
        asks: None,
        secret: SLACK_TOKEN,
    },
    Kind {
        name: "slack webhook",
        kind: "slack",
        knobs: |url| vec![("webhook_url", format!("{url}/slack/services/T0/B0/{TOKEN}").into())],
        makes: "POST /slack/services",
        reads: Reads::Body,
        asks: None,
        secret: TOKEN,
    },
    Kind {
        name: "jira cloud",
        kind: "jira",
        knobs: |url| jira(url, "3", &[("email", JIRA_EMAIL.into())]),
        makes: "POST /jira/rest/api/3/issue",
        reads: Reads::Body,
        asks: Some("POST /jira/rest/api/3/search"),
        secret: TOKEN,
    },
    Kind {
        name: "jira data center",
        kind: "jira",
        knobs: |url| jira(url, "2", &[]),
        makes: "POST /jira/rest/api/2/issue",
        reads: Reads::Body,
        asks: Some("POST /jira/rest/api/2/search"),
        secret: TOKEN,
    },
    Kind {
        name: "servicenow",
        kind: "servicenow",
        knobs: |url| {
            vec![
                ("url", format!("{url}/snow").into()),
                ("token", TOKEN.into()),
                ("fields", json!({"assignment_group": "ML on call", "no_such_field": "x"})),
            ]
        },
        makes: "POST /snow/api/now/table/incident",
        reads: Reads::Body,
        asks: Some("GET /snow/api/now/table/incident"),
        secret: TOKEN,
    },
    Kind {
        name: "github",
        kind: "github",
        knobs: |url| vec![("url", format!("{url}/github").into()), ("repository", "acme/models".into()), ("token", TOKEN.into())],
        makes: "POST /github/repos/acme/models/issues",
        reads: Reads::Body,
        asks: Some("GET /github/repos/acme/models/issues"),
        secret: TOKEN,
    },
    Kind {
        name: "gitlab",
        kind: "gitlab",
        knobs: |url| vec![("url", format!("{url}/gitlab").into()), ("project", "acme/models".into()), ("token", TOKEN.into())],
        makes: "POST /gitlab/api/v4/projects/acme%2Fmodels/issues",
        reads: Reads::Body,
        asks: Some("GET /gitlab/api/v4/projects/acme%2Fmodels/issues"),
        secret: TOKEN,
    },
    Kind {
        name: "jsm",
        kind: "jsm",
        knobs: |url| vec![("url", format!("{url}/jsm/v2").into()), ("api_key", TOKEN.into()), ("responders", "ml, sre".into())],
        makes: "POST /jsm/v2/alerts",
        reads: Reads::Body,
        asks: None,
        secret: TOKEN,
    },
    Kind {
        name: "teams",
        kind: "teams",
        knobs: |url| vec![("url", format!("{url}/teams/workflows/abc?sig={TOKEN}").into())],
        makes: "POST /teams/workflows",
        reads: Reads::Body,
        asks: None,
        secret: TOKEN,
    },
    Kind {
        name: "template",
        kind: "template",
        knobs: |url| {
            let body = r#"{"message_type": {{ {"trigger": "CRITICAL", "acknowledge": "ACKNOWLEDGEMENT", "resolve": "RECOVERY", "none": "INFO"}[act] | tojson }},
                "entity_id": {{ key | tojson }}, "state_message": {{ text | tojson }}, "id": {{ incident.id | tojson }}}"#;
            vec![("url", format!("{url}/template/x").into()), ("bearer_token", TOKEN.into()), ("body", body.into())]
        },
        makes: "POST /template",
        reads: Reads::Status,
        asks: None,
        secret: TOKEN,
    },
    Kind {
        name: "webhook",
        kind: "webhook",
        knobs: |url| vec![("url", format!("{url}/hooks/plain").into()), ("secret", TOKEN.into())],
        makes: "POST /hooks/plain",
        reads: Reads::Status,
        asks: None,
        secret: TOKEN,
    },
    Kind {
        name: "pagerduty",
        kind: "pagerduty",
        knobs: |url| vec![("url", format!("{url}/v2/enqueue").into()), ("routing_key", ROUTING_KEY.into())],
        makes: "POST /v2/enqueue",
        reads: Reads::PagerDuty,
        asks: None,
        secret: ROUTING_KEY,
    },
];

const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";

fn jira(url: &str, api: &str, more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let mut all = vec![
        ("url", format!("{url}/jira").into()),
        ("api", api.into()),
        ("project", "ML".into()),
        ("token", TOKEN.into()),
        ("priorities", json!({"1": "Highest", "2": "High", "3": "Medium"})),
        ("fields", json!({"customfield_10041": r#"{"value": "risk"}"#})),
        ("resolve_transition", "Done".into()),
        ("reopen_transition", "Reopen".into()),
        ("resolution", "Done".into()),
    ];
    all.extend(more.iter().cloned());
    all
}

impl Kind {
    fn receiver(&self, oracle: &Oracle, prefix: &str) -> Receiver {
        build(self.kind, &(self.knobs)(&format!("{}{prefix}", oracle.url)))
    }

    fn messenger(&self, oracle: &Oracle, prefix: &str) -> Box<dyn Notifier> {
        notifier(self.receiver(oracle, prefix))
    }

    fn path_behind(prefix: &str, request: &str) -> String {
        let (method, path) = request.split_once(' ').expect("a method");
        format!("{method} {prefix}{path}")
    }
}

// === bad answers ===

/// A bad answer, what it means to those who read statuses and to those who read bodies, and who takes it otherwise.
struct BadAnswer {
    what: &'static str,
    fault: Fault,
    status: &'static str,
    body: &'static str,
    but: &'static [(&'static str, &'static str)],
}

fn bad_answers(trap: &str, secret: &str) -> Vec<BadAnswer> {
    let html = "<html><body>please log in</body></html>";
    let all = |what, fault, means| BadAnswer { what, fault, status: means, body: means, but: &[] };
    let two = |what, fault, status, body| BadAnswer { what, fault, status, body, but: &[] };
    let mut out = vec![
        all("429 with seconds", Fault::with(429, &[("retry-after", "7")], ""), "retry"),
        all("429 with a date", Fault::with(429, &[("retry-after", "Fri, 20 Nov 2026 09:00:30 GMT")], ""), "retry"),
        all("429 without a wait", Fault::status(429), "retry"),
        all("500", Fault::status(500), "retry"),
        all("502 in html", Fault::with(502, &[("content-type", "text/html")], html), "retry"),
        all("503 with ten years", Fault::with(503, &[("retry-after", "315360000")], ""), "retry"),
        all("503 with a negative wait", Fault::with(503, &[("retry-after", "-5")], ""), "retry"),
        all("504", Fault::status(504), "retry"),
        all("418", Fault::status(418), "retry"),
        all("301", Fault::with(301, &[("location", trap)], ""), "retry"),
        all("302", Fault::with(302, &[("location", trap)], ""), "retry"),
        all("307", Fault::with(307, &[("location", trap)], ""), "retry"),
        two("200 in html", Fault::with(200, &[("content-type", "text/html")], html), "accepted", "uncertain"),
        two("200 with nothing", Fault::with(200, &[], ""), "accepted", "uncertain"),
        two("201 of somebody else's", Fault::with(201, &[], r#"{"hello":["world"]}"#), "accepted", "uncertain"),
        two("200 that is no text", Fault::with(200, &[], "\u{0}\u{1}\u{2}"), "accepted", "uncertain"),
        two("half a body", Fault { acts: true, answer: Bad::HalfBody(201) }, "accepted", "uncertain"),
        two("201 with a gigabyte", Fault::bad(Bad::Huge(201, 1 << 30)), "accepted", "uncertain"),
        two("201 that drips", Fault::bad(Bad::Drip(201, Duration::from_secs(20))), "accepted", "uncertain"),
        all("503 with a gigabyte", Fault::bad(Bad::Huge(503, 1 << 30)), "retry"),
        all("500 that drips", Fault::bad(Bad::Drip(500, Duration::from_secs(20))), "retry"),
        all("cut after reading", Fault::lost_answer(), "uncertain"),
        all("hangs", Fault::hang(Duration::from_secs(20)), "uncertain"),
        all("rubbish", Fault::bad(Bad::Rubbish), "uncertain"),
        all("half a head", Fault::bad(Bad::HalfHead), "uncertain"),
        all("endless headers", Fault::bad(Bad::EndlessHeaders), "uncertain"),
    ];
    for status in http::REFUSED {
        let words = format!("no: {secret} \u{1b}[31m\nred");
        out.push(all("refused", Fault::with(*status, &[], &words), "refused"));
    }
    let slack = |error: &str| Fault::with(200, &[], &json!({"ok": false, "error": error}).to_string());
    for (what, error, means) in [
        ("slack: channel_not_found", "channel_not_found", "refused"),
        ("slack: token_revoked", "token_revoked", "refused"),
        ("slack: an error that nobody knows", "brand_new_error", "refused"),
        ("slack: internal_error", "internal_error", "retry"),
        ("slack: ratelimited", "ratelimited", "retry"),
    ] {
        let but: &'static [_] = if means == "refused" { &[("slack", "refused")] } else { &[("slack", "retry")] };
        out.push(BadAnswer { what, fault: slack(error), status: "accepted", body: "uncertain", but });
    }
    for (what, headers, means) in [
        ("github: a spent limit", vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1")], "retry"),
        ("github: a secondary limit", vec![("retry-after", "60")], "retry"),
    ] {
        debug_assert_eq!(means, "retry");
        out.push(BadAnswer { what, fault: Fault::with(403, &headers, "{}"), status: "refused", body: "refused", but: &[("github", "retry")] });
    }
    out
}

impl BadAnswer {
    fn means(&self, kind: &Kind) -> &'static str {
        let usual = match kind.reads {
            Reads::Status => self.status,
            Reads::Body => self.body,
            Reads::PagerDuty if self.body == "uncertain" && self.status == "accepted" => "retry",
            Reads::PagerDuty => self.status,
        };
        self.but.iter().find(|(name, _)| *name == kind.name).map_or(usual, |(_, means)| means)
    }
}

fn opened(n: usize, now: Time) -> Delivery {
    Delivery::new("x", Message { notice: Notice::Opened, at: now, incident: incident(n, now) })
}

/// What is wrong with an outcome, if anything.
fn complaint(what: &str, kind: &str, receipt: &Receipt, expected: &str) -> Option<String> {
    let outcome = &receipt.outcome;
    let detail = outcome.detail();
    let is_clean =
        !detail.contains(['\u{1b}', '\n']) && detail.chars().count() < 500 && ![TOKEN, SLACK_TOKEN, ROUTING_KEY].iter().any(|s| detail.contains(s));
    let is_bounded = match outcome {
        Outcome::Retry { after_ms, .. } => after_ms.is_none_or(|ms| (1_000..=900_000).contains(&ms)),
        _ => true,
    };
    (outcome.as_str() != expected || !is_clean || !is_bounded).then(|| format!("{what}, {kind}: {outcome:?}, expected {expected}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f34_every_bad_answer_is_told_apart_by_every_kind() {
    let oracle = Arc::new(Oracle::start());
    let trap = format!("{}/trap/x", oracle.url);
    let now = clock(1)();
    let mut running = tokio::task::JoinSet::new();
    let (mut making, mut asking) = (0, 0);
    for (k, kind) in KINDS.iter().enumerate() {
        for (n, bad) in bad_answers(&trap, kind.secret).into_iter().enumerate() {
            // Once the request that makes meets it, once the one that asks before.
            for (place, request) in [("make", Some(kind.makes)), ("ask", kind.asks)] {
                let Some(request) = request else { continue };
                let prefix = format!("/{place}-{k}-{n}");
                oracle.always(&Kind::path_behind(&prefix, request), bad.fault.clone());
                let is_asking = place == "ask";
                *(if is_asking { &mut asking } else { &mut making }) += 1;
                // Nothing happens by asking: what is not refused is asked again.
                let expected = match bad.means(kind) {
                    "refused" => "refused",
                    _ if is_asking => "retry",
                    means => means,
                };
                let messenger = kind.messenger(&oracle, &prefix);
                let what = format!("{} to what it would {place}", bad.what);
                running.spawn(async move {
                    let delivery = opened(n, now);
                    let began = Instant::now();
                    let receipt = messenger.deliver(Errand::first(&delivery), now).await;
                    (complaint(&what, kind.name, &receipt, expected), began.elapsed())
                });
            }
        }
        assert!(bad_answers(&trap, "").len() >= 30);
    }
    let mut wrong = Vec::new();
    let mut slowest = Duration::ZERO;
    while let Some(done) = running.join_next().await {
        let (complaint, time) = done.expect("no panic");
        slowest = slowest.max(time);
        wrong.extend(complaint);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(oracle.requests_to("/trap").is_empty(), "a redirect was followed");
    assert!(slowest < Duration::from_secs(17), "{slowest:?}");
    println!("{making} bad answers to {} kinds, {asking} more to their questions; slowest {slowest:?}", KINDS.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_home_no_such_name_and_no_tls_did_not_arrive() {
    let oracle = Oracle::start();
    let plain = oracle.url.replace("http://", "https://");
    for kind in KINDS {
        for base in ["http://127.0.0.1:1", "http://no-such-host.invalid", plain.as_str()] {
            let messenger = notifier(build(kind.kind, &(kind.knobs)(base)));
            let now = clock(1)();
            let delivery = opened(0, now);
            let outcome = messenger.deliver(Errand::first(&delivery), now).await.outcome;
            assert!(matches!(outcome, Outcome::Retry { status: None, .. }), "{} at {base}: {outcome:?}", kind.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_test_message_passes() {
    let oracle = Oracle::start();
    for (k, kind) in KINDS.iter().enumerate() {
        let outcome = kind.messenger(&oracle, &format!("/{k}")).test(clock(1)()).await;
        assert_eq!(outcome.as_str(), "accepted", "{}: {outcome:?}", kind.name);
    }
    assert_eq!(oracle.problems(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_public_addresses_are_wanted_a_name_that_leads_home_is_not_asked() {
    let oracle = Oracle::start();
    let base = oracle.url.replace("127.0.0.1", "localhost");
    for kind in KINDS {
        let mut knobs = (kind.knobs)(&base);
        knobs.push(("public_only", true.into()));
        let now = clock(1)();
        let delivery = opened(0, now);
        let outcome = notifier(build(kind.kind, &knobs)).deliver(Errand::first(&delivery), now).await.outcome;
        assert!(outcome.as_str() == "retry" && outcome.detail().contains("not public"), "{}: {outcome:?}", kind.name);
    }
    assert!(oracle.requests().is_empty());
}

// === lives ===

/// What a vendor holds of one incident.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    /// Tickets, messages to be updated, alerts; where every news is a message of its own, whether there is any.
    things: usize,
    is_closed: bool,
    /// Comments, lines in a thread, messages after the first.
    news: usize,
}

fn prefix_of(kind: &Kind) -> String {
    format!("/{}", kind.name.replace(' ', "-"))
}

fn held(kind: &Kind, oracle: &Oracle, id: &str) -> Held {
    let prefix = prefix_of(kind);
    if kind.name == "pagerduty" {
        let ours: Vec<_> = oracle.alerts().into_iter().filter(|a| a.key.ends_with(id)).collect();
        let is_closed = ours.last().is_some_and(|a| a.state == AlertState::Resolved);
        return Held { things: ours.len(), is_closed, news: 0 };
    }
    if is_told_again(kind) || kind.reads == Reads::Status {
        let ours: Vec<String> = (oracle.requests_to(&format!("{prefix}/")).iter())
            .filter(|r| (200..300).contains(&r.status))
            .map(|r| String::from_utf8_lossy(&r.body).into_owned())
            .filter(|body| body.contains(id))
            .collect();
        let is_closed = ours.last().is_some_and(|b| b.contains("Resolved") || b.contains("incident.resolved"));
        return Held { things: ours.len().min(1), is_closed, news: ours.len().saturating_sub(1) };
    }
    oracle.vendors(|v| {
        let world: &World = v.world(&prefix);
        if kind.kind == "slack" {
            let ours: Vec<_> = world.posts.iter().filter(|p| p.thread_ts.is_none() && p.text.contains(id)).collect();
            let news = world.posts.iter().filter(|p| p.thread_ts.is_some() && p.text.contains(id)).count();
            return Held { things: ours.len(), is_closed: ours.first().is_some_and(|p| p.text.contains("Resolved")), news };
        }
        let ours: Vec<_> = world.tickets.iter().filter(|t| t.labels.iter().any(|l| l.contains(id))).collect();
        Held { things: ours.len(), is_closed: ours.last().is_some_and(|t| t.is_closed), news: ours.first().map_or(0, |t| t.comments.len()) }
    })
}

/// Every news is a message of its own, and nothing can be found again.
fn is_told_again(kind: &Kind) -> bool {
    ["slack webhook", "teams"].contains(&kind.name)
}

/// An alert that somebody has closed stays closed; the incident that is back is another alert.
fn is_alert(kind: &Kind) -> bool {
    ["pagerduty", "jsm"].contains(&kind.name)
}

const REPEAT: &str = " (This may be a repeat: the answer to an earlier attempt was lost.)";

/// Opened, acknowledged, worse, resolved, back, resolved. The title and a version hold what a hostile event may hold.
fn life(n: usize, now: Time) -> Vec<(Notice, Incident)> {
    let mut first = incident(n, now);
    first.title = format!("{} {HOSTILE}", first.title);
    first.versions = vec![HOSTILE.to_owned()];
    let acknowledged = later(&first, IncidentState::Acknowledged, now);
    let mut worse = later(&acknowledged, IncidentState::Acknowledged, now);
    worse.severity = Severity::HARM;
    let mut over = later(&worse, IncidentState::Resolved, now);
    over.closed_as = Some(ClosedAs::Fixed);
    let back = later(&over, IncidentState::Open, now);
    let mut end = later(&back, IncidentState::Resolved, now);
    end.closed_as = Some(ClosedAs::Expected);
    vec![
        (Notice::Opened, first),
        (Notice::Acknowledged, acknowledged),
        (Notice::Escalated, worse),
        (Notice::Resolved, over),
        (Notice::Reopened, back),
        (Notice::Resolved, end),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_is_one_thing_at_every_vendor() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    let receivers = KINDS.iter().map(|k| (k.name, k.receiver(&oracle, &prefix_of(k)))).collect();
    let house = House::start(Arc::clone(&shelf), receivers, &[], clock(20));
    let now = (house.clock)();
    let life = life(1, now);
    let id = life[0].1.id.clone();
    for (notice, incident) in &life {
        for kind in KINDS {
            shelf.say(kind.name, *notice, incident, now);
        }
        // Each is heard before the next is said, or a newer state takes its place.
        house.wake.notify_one();
        house.all_done().await;
        for kind in KINDS {
            let held = held(kind, &oracle, &id);
            let told = incident.revision as usize - 1;
            let things = if is_alert(kind) && incident.revision >= 5 { 2 } else { 1 };
            let news = if is_alert(kind) { held.news } else { told };
            assert_eq!(held, Held { things, is_closed: !incident.state.is_live(), news }, "{} after {notice:?}", kind.name);
        }
    }
    let failed: Vec<_> = house.seen.lock().expect("seen").iter().filter(|(_, o, _)| o.as_str() != "accepted").cloned().collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(oracle.problems(), Vec::<String>::new());
    assert!(house.stop().await < Duration::from_secs(2));
}

/// Every kind's requests meet every bad answer that passes, twice: whether the receiver acted on what it answered badly, nobody can
/// tell from the answer. How many there are.
fn spoil(oracle: &Oracle) -> usize {
    let mut faults = 0;
    for kind in KINDS {
        for bad in bad_answers("http://127.0.0.1:1/", "") {
            let is_slow = matches!(bad.fault.answer, Bad::Late(_) | Bad::Drip(..) | Bad::Huge(..));
            let asks_for_time = bad.what.contains("ten years") || bad.what.contains("seconds") || bad.what.contains("secondary");
            if is_slow || asks_for_time || ["refused", "accepted"].contains(&bad.means(kind)) {
                continue;
            }
            for acts in [true, false] {
                let could_act = bad.means(kind) == "uncertain";
                oracle.next(&Kind::path_behind(&prefix_of(kind), kind.makes), [Fault { acts: acts && could_act, ..bad.fault.clone() }]);
                faults += 1;
            }
        }
    }
    faults
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f30_f32_bad_beginnings_end_in_one_thing_each() {
    const INCIDENTS: usize = 10;
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    // Of all trackers only this one's search lags behind.
    for kind in KINDS.iter().filter(|k| k.kind == "jira") {
        oracle.vendors(|v| v.world(&prefix_of(kind)).search_lag = Duration::from_millis(300));
    }
    let receivers = KINDS.iter().map(|k| (k.name, k.receiver(&oracle, &prefix_of(k)))).collect();
    let house = House::start(Arc::clone(&shelf), receivers, &[], clock(20));
    let now = (house.clock)();
    // The beginning meets them, and then the end does.
    let mut faults = 0;
    for notice in [Notice::Opened, Notice::Resolved] {
        faults += spoil(&oracle);
        for n in 0..INCIDENTS {
            let first = incident(n, now);
            let over = Incident { closed_as: Some(ClosedAs::Fixed), ..later(&first, IncidentState::Resolved, now) };
            for kind in KINDS {
                shelf.say(kind.name, notice, if notice == Notice::Opened { &first } else { &over }, now);
            }
        }
        house.wake.notify_one();
        house.all_done().await;
    }
    for kind in KINDS {
        let prefix = prefix_of(kind);
        for n in 0..INCIDENTS {
            let held = held(kind, &oracle, &incident(n, now).id);
            let id = incident(n, now).id;
            assert!(held.things == 1 && held.is_closed, "{} {id}: {held:?}", kind.name);
        }
        if is_told_again(kind) {
            // It cannot be looked into: what came twice says so.
            let twice = oracle.vendors(|v| {
                let mut by_text: BTreeMap<String, Vec<bool>> = BTreeMap::new();
                for said in &v.world(&prefix).said {
                    let text = said.to_string();
                    let is_marked = text.contains("may be a repeat");
                    by_text.entry(text.replace(REPEAT, "")).or_default().push(is_marked);
                }
                by_text.into_values().filter(|all| all.iter().skip(1).any(|m| !m)).count()
            });
            assert_eq!(twice, 0, "an unmarked repeat");
        }
    }
    let unsettled =
        shelf.rows.lock().expect("rows").iter().filter(|r| r.state != DeliveryState::Accepted).map(|r| r.detail.clone()).collect::<Vec<_>>();
    assert!(unsettled.is_empty(), "{unsettled:?}");
    assert_eq!(oracle.problems(), Vec::<String>::new());
    println!("{faults} bad answers, {INCIDENTS} incidents at {} receivers, one thing each", KINDS.len());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f35_a_refusal_goes_to_the_fallback_and_is_shown() {
    for (k, kind) in KINDS.iter().enumerate() {
        let oracle = Oracle::start();
        let shelf = Arc::new(Shelf::default());
        let prefix = format!("/{k}");
        oracle.always(&Kind::path_behind(&prefix, kind.makes), Fault::with(403, &[], r#"{"message":"the key is gone"}"#));
        let hook = build("webhook", &[("url", format!("{}/hooks/hook", oracle.url).into())]);
        let house = House::start(Arc::clone(&shelf), vec![("first", kind.receiver(&oracle, &prefix)), ("hook", hook)], &["first", "hook"], clock(20));
        let id = shelf.say("first", Notice::Opened, &incident(1, (house.clock)()), (house.clock)());
        house.wake.notify_one();
        until("the fallback has it", || oracle.message_ids().len() == 1).await;
        house.all_done().await;
        let row = shelf.row(&id);
        assert_eq!(row.state, DeliveryState::Refused, "{}", kind.name);
        assert!(row.detail.contains("the key is gone") && row.detail.contains("sent to hook instead"), "{}: {}", kind.name, row.detail);
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_are_said_to_all_messages_of_a_receiver() {
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    let kind = &KINDS[1];
    oracle.next(&Kind::path_behind("", kind.makes), [Fault::with(429, &[("retry-after", "60")], "")]);
    let house = House::start(Arc::clone(&shelf), vec![("chat", kind.receiver(&oracle, ""))], &[], clock(20));
    let now = (house.clock)();
    shelf.say("chat", Notice::Opened, &incident(0, now), now);
    until("the first was turned away", || oracle.requests().len() == 1).await;
    let began = Instant::now();
    for n in 1..6 {
        shelf.say("chat", Notice::Opened, &incident(n, now), now);
    }
    house.wake.notify_one();
    house.all_done().await;
    let seen = oracle.requests();
    assert_eq!(seen.len(), 7, "nobody knocked while it wanted quiet");
    assert!(began.elapsed() > Duration::from_millis(2_500), "{:?}", began.elapsed());
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_repository_is_refused_and_a_request_that_fails_later_is_a_refusal() {
    let oracle = Oracle::start();
    let now = clock(1)();
    for (name, words) in [("github", "is public"), ("jsm", "no such team")] {
        let kind = KINDS.iter().find(|k| k.name == name).expect("a kind");
        let prefix = prefix_of(kind);
        oracle.vendors(|v| v.world(&prefix).is_public = true);
        let delivery = opened(0, now);
        let outcome = kind.messenger(&oracle, &prefix).deliver(Errand::first(&delivery), now).await.outcome;
        assert!(outcome.as_str() == "refused" && outcome.detail().contains(words), "{name}: {outcome:?}");
    }
    let kind = KINDS.iter().find(|k| k.name == "servicenow").expect("a kind");
    let delivery = opened(0, now);
    let outcome = kind.messenger(&oracle, "/x").deliver(Errand::first(&delivery), now).await.outcome;
    assert!(outcome.detail().contains("does not know the fields no_such_field"), "{outcome:?}");
}

/// A step that fails does not undo the steps before it: the comment is there once, and the ticket is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_closing_does_not_comment_again() {
    for (name, closes) in [
        ("jira cloud", "POST /jira/rest/api/3/issue/ML-"),
        ("github", "PATCH /github/repos/acme/models/issues/"),
        ("gitlab", "PUT /gitlab/api/v4/projects/acme%2Fmodels/issues/"),
    ] {
        let kind = KINDS.iter().find(|k| k.name == name).expect("a kind");
        let oracle = Oracle::start();
        let shelf = Arc::new(Shelf::default());
        let house = House::start(Arc::clone(&shelf), vec![("t", kind.receiver(&oracle, &prefix_of(kind)))], &[], clock(20));
        let now = (house.clock)();
        let first = incident(1, now);
        shelf.say("t", Notice::Opened, &first, now);
        house.wake.notify_one();
        house.all_done().await;
        let key = oracle.vendors(|v| v.world(&prefix_of(kind)).tickets[0].key.clone());
        let closes = match name {
            "jira cloud" => format!("POST {}/jira/rest/api/3/issue/{key}/transitions", prefix_of(kind)),
            _ => Kind::path_behind(&prefix_of(kind), closes),
        };
        oracle.next(&closes, [Fault::status(503), Fault::lost_answer(), Fault::status(500)]);
        let over = Incident { closed_as: Some(ClosedAs::Fixed), ..later(&first, IncidentState::Resolved, now) };
        shelf.say("t", Notice::Resolved, &over, now);
        house.wake.notify_one();
        house.all_done().await;
        assert_eq!(held(kind, &oracle, &first.id), Held { things: 1, is_closed: true, news: 1 }, "{name}");
        assert_eq!(oracle.problems(), Vec::<String>::new());
        house.stop().await;
    }
}

// === through the front door ===

/// One request to the daemon.
fn ask(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    socket.write_all(format!("{head}\r\n{body}").as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

fn signature(secret: &str, body: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(body.as_bytes());
    format!("v1=00,v1={}", mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>())
}

fn bellwether(daemon: &Daemon, arguments: &[&str]) -> (bool, String) {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(arguments)
        .arg("--config")
        .arg(daemon.config_path())
        .output()
        .expect("it runs");
    (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

/// Events in, a ticket and a message out, an acknowledgement back from the pager, a kill in between, and the end at the same ticket.
#[test]
fn from_events_to_a_ticket_and_back_from_the_pager() {
    const HOOK_SECRET: &str = "hook-secret-000000";
    const MINUTE_MS: i64 = 60_000;
    let Some(broker) = Broker::shared() else { return };
    let oracle = Oracle::start();
    let mail = crate::mail::Server::start();
    let (topic, bus) = (unique("receivers"), unique("bus"));
    broker.create_topic(&bus, 1, &[]);
    let start = days_ago(2);
    let mut feed = Feed::new(broker, &topic, 2, Plan { share: 0.03, ..Plan::demo() }, 5, start);
    feed.run_until(start.plus_ms(60 * MINUTE_MS));
    let more = format!(
        "receivers:\n  pager: {{type: pagerduty, routing_key: {ROUTING_KEY}, webhook_secret: {HOOK_SECRET}, url: \"{url}/v2/enqueue\"}}\n  \
         tracker: {{type: github, repository: acme/models, token: {TOKEN}, url: \"{url}/t/github\"}}\n  \
         chat: {{type: slack, token: {SLACK_TOKEN}, channel: {SLACK_CHANNEL}, history: true, url: \"{url}/c/slack/api\"}}\n  \
         mail: {{type: email, url: \"{mail}\", plain: true, from: a@x.example, to: b@x.example}}\n  \
         bus: {{type: kafka, url: \"kafka://{broker}\", topic: {bus}}}\nroutes:\n  - {{to: [pager, tracker, chat, mail, bus]}}\n",
        url = oracle.url,
        mail = mail.url,
        broker = broker.bootstrap,
    );
    let config = Config { broker: &broker.bootstrap, topic: &topic, group: &topic, oracle: None, pane: "10s", lateness: "20s", more: &more };
    let mut daemon = Daemon::new(&config);
    for name in ["pager", "tracker", "chat", "mail", "bus"] {
        let (is_good, words) = bellwether(&daemon, &["notify", "test", name]);
        assert!(is_good && words.contains("accepted"), "{name}: {words}");
    }
    let tested = (oracle.vendors(|v| v.world("/c").posts.len()), mail.mails().len());
    assert_eq!(tested, (1, 1));
    daemon.start_ready();
    daemon.until_caught_up(300);
    daemon.until("live", 60, |d| d.engine()["is_live"] == true);
    let on = feed.fleet.frontier();
    assert!(feed.fleet.switch(FaultOfFleet::ErrorSpike, true, on));
    feed.run_until(on.plus_ms(15 * MINUTE_MS));
    daemon.until("a ticket", 120, |_| oracle.vendors(|v| !v.world("/t").tickets.is_empty()));
    let id =
        oracle.vendors(|v| v.world("/t").tickets[0].labels.iter().find_map(|l| l.strip_prefix("bellwether:").map(str::to_owned))).expect("a label");
    let deliveries = |d: &Daemon| d.get(&format!("/api/v1/incidents/{id}"))["deliveries"].as_array().cloned().unwrap_or_default();
    let has_told = |d: &Daemon, receiver: &str, notice: &str| {
        deliveries(d)
            .iter()
            .any(|r| r["receiver"] == receiver && r["notice"] == notice && ["accepted", "superseded"].iter().any(|s| r["state"] == *s))
    };
    for name in ["pager", "tracker", "chat", "mail", "bus"] {
        daemon.until("everybody has been told", 60, |d| has_told(d, name, "opened"));
    }

    // Somebody acknowledges over there. A stranger cannot.
    let path = "/api/v1/receivers/pager/events";
    let body = json!({"event": {"id": "01EVENT", "event_type": "incident.acknowledged", "resource_type": "incident",
        "agent": {"type": "user_reference", "summary": "Jane Doe"}, "data": {"incident_key": format!("bellwether/test/{id}")}}})
    .to_string();
    let port = daemon.port();
    for (path, signed) in
        [(path, signature("guessed", &body)), (path, String::new()), ("/api/v1/receivers/nobody/events", signature(HOOK_SECRET, &body))]
    {
        assert_eq!(ask(port, "POST", path, &[("x-pagerduty-signature", &signed)], &body).0, 401, "{path}");
    }
    assert_eq!(daemon.get(&format!("/api/v1/incidents/{id}"))["incident"]["state"], "open");
    let signed = signature(HOOK_SECRET, &body);
    for _ in 0..2 {
        let (status, words) = ask(port, "POST", path, &[("x-pagerduty-signature", &signed)], &body);
        assert_eq!(status, 202, "{words}");
    }
    // Never a refusal of what is signed: it would be dropped for ever.
    let signed = signature(HOOK_SECRET, "rubbish");
    assert_eq!(ask(port, "POST", path, &[("x-pagerduty-signature", &signed)], "rubbish").0, 202);
    daemon.until("acknowledged", 30, |d| d.get(&format!("/api/v1/incidents/{id}"))["incident"]["state"] == "acknowledged");
    let timeline = daemon.get(&format!("/api/v1/incidents/{id}"))["timeline"].clone();
    let lines: Vec<&Value> = timeline.as_array().into_iter().flatten().filter(|t| t["what"] == "acknowledged").collect();
    assert_eq!(lines.len(), 1, "{timeline}");
    assert!(lines[0]["who"].to_string().contains("Jane Doe (PagerDuty)"), "{timeline}");
    for name in ["tracker", "chat", "mail"] {
        daemon.until("the others hear of it", 60, |d| has_told(d, name, "acknowledged"));
    }

    // The process dies; what the receivers gave it does not.
    daemon.kill();
    daemon.start_ready();
    daemon.until("everything is read again", 300, |d| d.get("/-/ready")["degraded"] == false);
    let resolve = json!({"by": "ann", "why": "rolled back", "as": "fixed"}).to_string();
    let (status, words) = ask(port, "POST", &format!("/api/v1/incidents/{id}/resolve"), &[("content-type", "application/json")], &resolve);
    assert_eq!(status, 200, "{words}");
    for name in ["pager", "tracker", "chat", "mail", "bus"] {
        daemon.until("the end is told", 60, |d| has_told(d, name, "resolved"));
    }
    let ours = oracle.vendors(|v| v.world("/t").tickets.iter().filter(|t| t.labels.iter().any(|l| l.ends_with(&id))).cloned().collect::<Vec<_>>());
    assert!(ours.len() == 1 && ours[0].is_closed, "{ours:?}");
    let posts = oracle.vendors(|v| v.world("/c").posts.iter().filter(|p| p.thread_ts.is_none() && p.text.contains(&id)).cloned().collect::<Vec<_>>());
    assert!(posts.len() == 1 && posts[0].text.contains("Resolved as fixed"), "{posts:?}");
    let mails: Vec<_> = mail.mails().into_iter().filter(|m| m.header("X-Bellwether-Incident") == id).collect();
    let first = mails[0].header("Message-ID");
    assert!(mails.len() >= 2 && mails[1..].iter().all(|m| m.header("References") == first), "{mails:?}");
    let (_, shown) = bellwether(&daemon, &["incidents", "show", &id, "--server", &format!("http://127.0.0.1:{port}")]);
    for word in ["pager", "tracker", "chat", "mail", "bus", "created"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert_eq!(oracle.problems(), Vec::<String>::new());
    assert!(!daemon.log().contains(TOKEN) && !daemon.log().contains(HOOK_SECRET) && !daemon.log().contains("panicked"));
    assert!(daemon.terminate().0.success());
}
