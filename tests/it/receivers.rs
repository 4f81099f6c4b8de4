//! Every receiver against its vendor's rules, through real sockets: one life of an incident, every bad answer, and bad beginnings
//! that must end in one ticket, one message or one alert.
//!
//! One table of bad answers serves all kinds. What a bad answer means is told for the three families in which receivers read
//! answers, and where a kind differs, by its name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether::domain::delivery::{Delivery, DeliveryState, Message, Notice, Outcome, Receipt};
use bellwether::domain::incident::Incident;
use bellwether::domain::{ClosedAs, IncidentState, Severity, Time};
use bellwether::notify::{Errand, Notifier, Receiver, http};
use serde_json::{Value, json};

use crate::notify::{House, Shelf, build, clock, incident, later, notifier, until};
use crate::oracle::{Bad, Fault, Oracle};
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
    /// The body must be the vendor's own.
    Body,
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
];

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
    out
}

impl BadAnswer {
    fn means(&self, kind: &Kind) -> &'static str {
        let usual = match kind.reads {
            Reads::Status => self.status,
            Reads::Body => self.body,
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
    let is_clean = !detail.contains(['\u{1b}', '\n']) && detail.chars().count() < 500 && !detail.contains(TOKEN) && !detail.contains(SLACK_TOKEN);
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

/// What a vendor holds of one incident at the end.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    things: usize,
    is_closed: bool,
    news: usize,
}

fn held(kind: &Kind, world: &World, id: &str) -> Held {
    match kind.kind {
        "slack" if kind.name == "slack" => {
            let ours: Vec<_> = world.posts.iter().filter(|p| p.thread_ts.is_none() && p.text.contains(id)).collect();
            let news = world.posts.iter().filter(|p| p.thread_ts.is_some() && p.text.contains(id)).count();
            Held { things: ours.len(), is_closed: ours.first().is_some_and(|p| p.text.contains("Resolved")), news }
        }
        "slack" => {
            let ours: Vec<_> = world.said.iter().filter(|d| d.to_string().contains(id)).collect();
            Held {
                things: ours.len().min(1),
                is_closed: ours.last().is_some_and(|d| d.to_string().contains("Resolved")),
                news: ours.len().saturating_sub(1),
            }
        }
        _ => {
            let ours: Vec<_> = world.tickets.iter().filter(|t| t.labels.iter().any(|l| l.contains(id))).collect();
            Held { things: ours.len(), is_closed: ours.first().is_some_and(|t| t.is_closed), news: ours.first().map_or(0, |t| t.comments.len()) }
        }
    }
}

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
    let receivers = KINDS.iter().map(|k| (k.name, k.receiver(&oracle, &format!("/{}", k.name.replace(' ', "-"))))).collect();
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
            let (is_over, is_bot) = (!incident.state.is_live(), kind.name == "slack");
            let held = oracle.vendors(|v| held(kind, v.world(&format!("/{}", kind.name.replace(' ', "-"))), &id));
            let expected = Held { things: 1, is_closed: is_over, news: incident.revision as usize - 1 };
            assert_eq!(held, expected, "{} after {notice:?}, a bot: {is_bot}", kind.name);
        }
    }
    let failed: Vec<_> = house.seen.lock().expect("seen").iter().filter(|(_, o, _)| o.as_str() != "accepted").cloned().collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(oracle.problems(), Vec::<String>::new());
    assert!(house.stop().await < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f30_f32_bad_beginnings_end_in_one_thing_each() {
    const INCIDENTS: usize = 10;
    let oracle = Oracle::start();
    let shelf = Arc::new(Shelf::default());
    let mut faults = 0;
    for kind in KINDS {
        let prefix = format!("/{}", kind.name.replace(' ', "-"));
        oracle.vendors(|v| v.world(&prefix).search_lag = Duration::from_millis(300));
        for bad in bad_answers("http://127.0.0.1:1/", "") {
            let is_slow = matches!(bad.fault.answer, Bad::Late(_) | Bad::Drip(..) | Bad::Huge(..));
            if is_slow || bad.what.contains("ten years") || bad.what.contains("seconds") || ["refused", "accepted"].contains(&bad.means(kind)) {
                continue;
            }
            // Whether the receiver acted on what it answered badly, nobody can tell from the answer.
            for acts in [true, false] {
                let could_act = bad.means(kind) == "uncertain";
                oracle.next(&Kind::path_behind(&prefix, kind.makes), [Fault { acts: acts && could_act, ..bad.fault.clone() }]);
                faults += 1;
            }
        }
    }
    let receivers = KINDS.iter().map(|k| (k.name, k.receiver(&oracle, &format!("/{}", k.name.replace(' ', "-"))))).collect();
    let house = House::start(Arc::clone(&shelf), receivers, &[], clock(20));
    let now = (house.clock)();
    for n in 0..INCIDENTS {
        let first = incident(n, now);
        let over = Incident { closed_as: Some(ClosedAs::Fixed), ..later(&first, IncidentState::Resolved, now) };
        for kind in KINDS {
            let delivery = Delivery::new(kind.name, Message { notice: Notice::Opened, at: now, incident: first.clone() });
            bellwether::dispatch::Outbox::add(&*shelf, delivery).expect("added");
            shelf.say(kind.name, Notice::Resolved, &over, now);
        }
    }
    house.all_done().await;
    for kind in KINDS {
        let prefix = format!("/{}", kind.name.replace(' ', "-"));
        for n in 0..INCIDENTS {
            let id = incident(n, now).id;
            let held = oracle.vendors(|v| held(kind, v.world(&prefix), &id));
            assert!(held.things == 1 && held.is_closed, "{} {id}: {held:?}", kind.name);
        }
        if kind.name == "slack webhook" {
            // It cannot be looked into: what came twice says so.
            let twice = oracle.vendors(|v| {
                let mut by_text: BTreeMap<String, Vec<bool>> = BTreeMap::new();
                for said in &v.world(&prefix).said {
                    let text = said["text"].as_str().unwrap_or_default().to_owned();
                    let is_marked = text.contains("may be a repeat");
                    by_text.entry(text.split(" (This").next().unwrap_or_default().to_owned()).or_default().push(is_marked);
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
