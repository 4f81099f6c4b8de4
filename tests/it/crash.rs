//! Kills: whatever dies and whenever, what was promised comes out as if nothing had happened.
//!
//! The long form, fifty runs with one to four `kill -9` each at moments drawn from the run's seed, is
//! `cargo test --test it crash::fifty -- --ignored --nocapture`; three of them belong to the gate. `BELLWETHER_RUNS=N` and
//! `BELLWETHER_SEED=S` ask for other runs: the failing seed is printed and repeats the run.
//!
//! A fleet with faults, doubled and late events is read once without disturbance. Then come the runs: each begins where the
//! undisturbed run went live (or, every fifth, with nothing at all, on a topic of its own), reads under full load, is killed and
//! started again at once. State is written every 300 ms, so kills fall into snapshots, commits and deliveries; the oracle
//! answers slowly, so that there are deliveries in the air. In the end incidents, timelines, evidence, counts and alerts must be
//! the same: every number of every series, and the evidence to the byte, as it lies in the stored state.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bellwether::domain::Time;
use bellwether::fleet::{Chance, Fault, Plan};
use bellwether::store::Store;
use serde_json::{Value, json};

use crate::broker::{Broker, unique};
use crate::daemon::{Config, Daemon, Feed, days_ago};
use crate::oracle::{AlertState, Fault as Answer, Oracle};

const MINUTE_MS: i64 = 60_000;
const SEED_FLEET: u64 = 5;

/// Everything that must be the same after any number of kills.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    incidents: Vec<Value>,
    events: BTreeMap<String, u64>,
    totals: [u64; 3],
    /// Alerts by key: how often opened, and how it stands.
    alerts: BTreeMap<String, (usize, AlertState)>,
    /// What each detector knows, as the API tells it: numbers to the last bit.
    series: Vec<Value>,
    /// Name and content of each stored group of series.
    evidence: BTreeMap<String, Vec<u8>>,
}

fn plan() -> Plan {
    let mut plan = Plan::demo();
    plan.models.retain(|m| m.name != "assistant");
    plan.share = 0.1;
    plan.doubled = 0.01;
    plan.late = 0.01;
    plan
}

/// The stretch that is read under load: two faults, with quiet between them.
fn play(feed: &mut Feed) {
    let at = |feed: &Feed, minutes: i64| feed.fleet.frontier().plus_ms(minutes * MINUTE_MS);
    feed.run_until(at(feed, 5));
    for (fault, minutes) in [(Fault::ErrorSpike, 8), (Fault::Timeouts, 8)] {
        feed.fleet.switch(fault, true, feed.fleet.frontier());
        feed.run_until(at(feed, minutes));
        feed.fleet.switch(fault, false, feed.fleet.frontier());
        feed.run_until(at(feed, 25));
    }
}

fn history(start: Time) -> Time {
    start.plus_ms(60 * MINUTE_MS)
}

/// What the daemon says in the end, and what lies on its disk after it has gone.
fn seen(daemon: &mut Daemon, oracle: &Oracle, sent: u64) -> Seen {
    daemon.until("all events", 120, |d| d.events_seen() >= sent);
    daemon.until("an empty outbox", 60, |d| {
        let health = d.runtime()["health"].take();
        health["outbox"].as_array().is_some_and(|all| all.iter().all(|o| o["pending"] == 0))
    });
    let incidents = (daemon.incidents().iter())
        .map(|p| {
            let i = &p["incident"];
            let timeline: Vec<Value> = (p["timeline"].as_array().into_iter().flatten())
                .filter(|t| t["what"] != "delivered")
                .map(|t| json!([t["revision"], t["ordinal"], t["at"], t["what"], t["why"]]))
                .collect();
            json!({"id": i["id"], "key": i["key"], "state": i["state"], "severity": i["severity"], "onset": i["onset"], "title": i["title"],
                "revision": i["revision"], "findings": i["findings"], "timeline": timeline})
        })
        .collect();
    let events = (daemon.models().iter()).map(|m| (m["model"].as_str().unwrap_or("").to_owned(), m["events"].as_u64().unwrap_or(0))).collect();
    let mut series: Vec<Value> = Vec::new();
    for model in &plan().models {
        series.extend(daemon.get(&format!("/api/v1/series?model={}&limit=5000", model.name))["data"].as_array().into_iter().flatten().cloned());
    }
    let engine = daemon.engine();
    let totals = ["events", "duplicates", "late"].map(|name| engine[name].as_u64().unwrap_or(0));
    let mut alerts: BTreeMap<String, (usize, AlertState)> = BTreeMap::new();
    for a in oracle.alerts() {
        let entry = alerts.entry(a.key).or_insert((0, a.state));
        *entry = (entry.0 + 1, a.state);
    }
    let (status, _) = daemon.terminate();
    assert!(status.success(), "{status}");
    Seen { incidents, events, totals, alerts, series, evidence: evidence(&daemon.data()) }
}

fn evidence(data: &Path) -> BTreeMap<String, Vec<u8>> {
    let store = Store::open_reader(data).expect("the store");
    let snapshot = store.load_snapshot().expect("a snapshot").expect("a snapshot");
    snapshot.rows.into_iter().filter(|(name, _)| name.starts_with("group/")).collect()
}

fn config<'a>(broker: &'a Broker, topic: &'a str, group: &'a str, oracle: &'a Oracle) -> Config<'a> {
    Config { broker: &broker.bootstrap, topic, group, oracle: Some(&oracle.url), pane: "10s", lateness: "20s", more: "" }
}

fn compare(run: &Seen, calm: &Seen, seed: u64, from_nothing: bool) {
    assert_eq!(run.incidents, calm.incidents, "seed {seed}: incidents");
    assert_eq!((&run.events, run.totals), (&calm.events, calm.totals), "seed {seed}: counts");
    assert_eq!(run.alerts, calm.alerts, "seed {seed}: alerts");
    assert_eq!(run.series.len(), calm.series.len(), "seed {seed}: series");
    for (a, b) in run.series.iter().zip(&calm.series) {
        assert_eq!(a, b, "seed {seed}: a series");
    }
    if from_nothing {
        return; // Features get their numbers in the order in which partitions are read; the stored bytes hold these numbers.
    }
    let names = |s: &Seen| s.evidence.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(run), names(calm), "seed {seed}: series groups");
    let differing: Vec<&String> = run.evidence.iter().filter(|(name, bytes)| calm.evidence.get(*name) != Some(bytes)).map(|e| e.0).collect();
    assert!(differing.is_empty(), "seed {seed}: the evidence of {differing:?} differs");
}

fn runs(count: u64, first_seed: u64) {
    let Some(broker) = Broker::shared() else { return };
    let start = days_ago(1);
    // Undisturbed, up to the moment at which findings page.
    let topic = unique("kills");
    let oracle = Oracle::start();
    let began = Instant::now();
    let mut feed = Feed::new(broker, &topic, 4, plan(), SEED_FLEET, start);
    feed.run_until(history(start));
    let mut daemon = Daemon::new(&config(broker, &topic, &unique("group"), &oracle));
    daemon.start_ready();
    daemon.until_caught_up(120);
    daemon.until("all of history", 60, |d| d.events_seen() >= feed.sent);
    assert!(daemon.terminate().0.success());
    let template = tempfile::tempdir().expect("a folder");
    for file in std::fs::read_dir(daemon.data()).expect("a folder").flatten().filter(|f| f.path().is_file()) {
        std::fs::copy(file.path(), template.path().join(file.file_name())).expect("copied");
    }
    play(&mut feed);
    daemon.start_ready();
    let calm = seen(&mut daemon, &oracle, feed.sent);
    let truth = feed.fleet.truth();
    println!("undisturbed: {} events, {} incidents, {} alerts, {:?}", feed.sent, calm.incidents.len(), calm.alerts.len(), began.elapsed());
    for i in &calm.incidents {
        println!("  {} {}", i["id"], i["title"]);
    }
    assert_eq!(calm.totals[..2], [truth.events(), truth.copies()]);
    for m in &truth.models {
        assert_eq!(calm.events.get(&m.model), Some(&m.events()), "{}", m.model);
    }
    assert!(calm.incidents.len() >= 2 && calm.alerts.len() == calm.incidents.len() && calm.alerts.values().all(|a| a.0 == 1), "{calm:#?}");

    let mut times = Vec::new();
    for seed in first_seed..first_seed + count {
        let began = Instant::now();
        let mut chance = Chance::keyed(seed, 0);
        let oracle = Oracle::start();
        let hang = Duration::from_millis(chance.below(400));
        oracle.always("/v2/enqueue", Answer::hang(hang));
        let from_nothing = seed % 5 == 4;
        let kills = 1 + chance.below(4);
        // The group waits for its dead member; a new group reads at once, so that every kill finds it reading.
        let regroups = seed % 2 == 1;
        let own = unique("kills");
        let mut own_feed = from_nothing.then(|| {
            let mut feed = Feed::new(broker, &own, 4, plan(), SEED_FLEET, start);
            feed.run_until(history(start));
            feed
        });
        let mut daemon = Daemon::new(&config(broker, if from_nothing { &own } else { &topic }, &unique("group"), &oracle));
        daemon.env.push(("BELLWETHER_SNAPSHOT_EVERY_MS".to_owned(), "300".to_owned()));
        if !from_nothing {
            daemon.inherit(template.path());
        }
        let mut moments = Vec::new();
        if let Some(feed) = &mut own_feed {
            // Also while history is read.
            daemon.start();
            std::thread::sleep(Duration::from_millis(200 + chance.below(3_000)));
            daemon.kill();
            daemon.start_ready();
            daemon.until_caught_up(120);
            daemon.until("all of history", 60, |d| d.events_seen() >= feed.sent);
            play(feed);
        } else {
            daemon.start();
        }
        for _ in 0..kills {
            let moment = Duration::from_millis(200 + chance.below(if regroups { 1_200 } else { 4_000 }));
            moments.push(moment.as_millis());
            std::thread::sleep(moment);
            daemon.kill();
            if regroups {
                daemon.configure(&config(broker, if from_nothing { &own } else { &topic }, &unique("group"), &oracle));
            }
            daemon.start();
        }
        daemon.until("readiness", 60, |d| d.try_get("/-/ready").is_some_and(|(status, _)| status == 200));
        let run = seen(&mut daemon, &oracle, feed.sent);
        let triggers: u32 = oracle.alerts().iter().map(|a| a.triggers).sum();
        println!("seed {seed}: {} kills after {moments:?} ms, answers after {hang:?}, {triggers} triggers, {:?}", daemon.starts - 1, began.elapsed());
        compare(&run, &calm, seed, from_nothing);
        times.push(began.elapsed());
    }
    times.sort();
    println!("{count} runs: 0 lost, 0 doubled, 0 differing; a run takes {:?} (median), {:?} at most", times[times.len() / 2], times[times.len() - 1]);
}

fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn f01_three_runs_of_kills() {
    runs(3, asked("BELLWETHER_SEED", 2));
}

#[test]
#[ignore = "the long form; cargo test --test it crash::fifty -- --ignored --nocapture"]
fn fifty() {
    runs(asked("BELLWETHER_RUNS", 50), asked("BELLWETHER_SEED", 100));
}

/// Events flow, the broker is killed in the middle and comes back, again and again.
fn broker_dies(times: u64) {
    let Some(mut broker) = Broker::own() else { return };
    let (topic, start) = (unique("broker"), days_ago(1));
    let mut feed = Feed::new(&broker, &topic, 4, plan(), SEED_FLEET, start);
    let mut daemon =
        Daemon::new(&Config { broker: &broker.bootstrap, topic: &topic, group: &topic, oracle: None, pane: "10s", lateness: "20s", more: "" });
    feed.run_until(start.plus_ms(5 * MINUTE_MS));
    daemon.start_ready();
    let mut stalls = Vec::new();
    for i in 0..times {
        feed.run_until(feed.fleet.frontier().plus_ms(10 * MINUTE_MS));
        std::thread::sleep(Duration::from_millis(50 * i % 400));
        broker.kill();
        std::thread::sleep(Duration::from_millis(500));
        broker.restart();
        let back = Instant::now();
        feed.run_until(feed.fleet.frontier().plus_ms(MINUTE_MS));
        daemon.until("all events after the broker's return", 60, |d| d.events_seen() >= feed.sent);
        stalls.push(back.elapsed());
    }
    println!("the broker died {times} times; all was read {stalls:?} after its return");
    assert!(stalls.iter().all(|s| *s < Duration::from_secs(30)), "{stalls:?}");
    let models = daemon.models();
    for m in &feed.fleet.truth().models {
        let seen = models.iter().find(|v| v["model"] == m.model.as_str()).and_then(|v| v["events"].as_u64());
        assert_eq!(seen, Some(m.events()), "{}", m.model);
    }
    assert_eq!(daemon.engine()["duplicates"].as_u64(), Some(feed.fleet.truth().copies()));
    assert!(daemon.terminate().0.success());
}

#[test]
fn f14_the_broker_is_killed_twice() {
    broker_dies(2);
}

#[test]
#[ignore = "the long form; cargo test --test it crash::f14_the_broker_is_killed_twenty_times -- --ignored --nocapture"]
fn f14_the_broker_is_killed_twenty_times() {
    broker_dies(20);
}

#[test]
fn f03_a_hanging_broker_does_not_keep_it_from_stopping() {
    let Some(broker) = Broker::own() else { return };
    let (topic, start) = (unique("hangs"), days_ago(1));
    let mut feed = Feed::new(&broker, &topic, 4, plan(), SEED_FLEET, start);
    feed.run_until(start.plus_ms(5 * MINUTE_MS));
    let mut daemon =
        Daemon::new(&Config { broker: &broker.bootstrap, topic: &topic, group: &topic, oracle: None, pane: "10s", lateness: "20s", more: "" });
    daemon.start_ready();
    daemon.until("all events", 60, |d| d.events_seen() >= feed.sent);
    broker.signal("STOP");
    std::thread::sleep(Duration::from_secs(1));
    let (status, took) = daemon.terminate();
    println!("SIGTERM: {status} after {took:?}");
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
    // What it had read is kept, though nothing could be confirmed to the broker.
    assert_eq!(Store::open_reader(&daemon.data()).expect("the store").load_snapshot().expect("it reads").map(|s| s.positions.len()), Some(4));
    // A second signal is obeyed at once.
    daemon.start();
    daemon.until("the pages", 30, |d| d.try_get("/-/healthy").is_some());
    daemon.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    if daemon.has_died().is_none() {
        daemon.signal("TERM");
    }
    daemon.wait_exit(5);
    println!("second SIGTERM: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    broker.signal("CONT");
}

/// All partitions rest; then there is much to read at once. The first partition to be read must not be judged alone.
#[test]
fn what_comes_after_a_pause_is_not_late() {
    let Some(broker) = Broker::shared() else { return };
    let (topic, start) = (unique("pause"), days_ago(1));
    let mut feed = Feed::new(broker, &topic, 4, Plan { late: 0.0, ..plan() }, SEED_FLEET, start);
    feed.run_until(start.plus_ms(5 * MINUTE_MS));
    let mut daemon =
        Daemon::new(&Config { broker: &broker.bootstrap, topic: &topic, group: &topic, oracle: None, pane: "2s", lateness: "4s", more: "" });
    for restarts in [false, true] {
        if !daemon.is_running() {
            daemon.start_ready();
        }
        daemon.until("events", 60, |d| d.events_seen() >= feed.sent);
        let end = feed.fleet.frontier();
        // Only when nobody is waited for is everything judged to the end.
        daemon.until("rest", 60, |d| d.judged_through().is_some_and(|t| t >= end.plus_ms(-2_000)));
        if restarts {
            assert!(daemon.terminate().0.success());
        }
        feed.run_until(end.plus_ms(20 * MINUTE_MS));
        if restarts {
            daemon.start_ready();
        }
        daemon.until("events", 60, |d| d.events_seen() >= feed.sent);
        assert_eq!(daemon.engine()["late"].as_u64(), Some(0), "restarted: {restarts}");
    }
}

#[test]
fn f13_kafka_absent_at_start_is_not_ready_with_a_reason() {
    let oracle = Oracle::start();
    let config = Config { broker: "127.0.0.1:9", topic: "t", group: "g", oracle: Some(&oracle.url), pane: "10s", lateness: "20s", more: "" };
    let mut daemon = Daemon::new(&config);
    daemon.start();
    daemon.until("a reason", 30, |d| {
        d.try_get("/-/ready").is_some_and(|(status, body)| status == 503 && body.contains("not been read") && body.contains("127.0.0.1:9"))
    });
    assert_eq!(daemon.try_get("/-/healthy").map(|a| a.0), Some(200));
    let (status, took) = daemon.terminate();
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
}
