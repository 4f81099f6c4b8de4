//! The main job through the front door: real Kafka, the daemon as a process, a fleet with known truth, an oracle that keeps
//! PagerDuty's rules.
//!
//! The long form, with a history of four million events and ten faults, is
//! `cargo test --test it main_job::ten_faults -- --ignored --nocapture`; it prints what it measured.

use std::time::{Duration, Instant};

use bellwether::domain::Time;
use bellwether::fleet::{Fault, Plan};
use serde_json::Value;

use crate::broker::{Broker, unique};
use crate::daemon::{Config, Daemon, Feed, days_ago};
use crate::oracle::{AlertState, Oracle};

const MINUTE_MS: i64 = 60_000;

fn text<'a>(v: &'a Value, pointer: &str) -> &'a str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn time(v: &Value, pointer: &str) -> Time {
    Time::parse_rfc3339(text(v, pointer)).unwrap_or(Time::MIN)
}

fn told(page: &Value) -> String {
    let i = &page["incident"];
    let mut words = format!(
        "{} {} opened {} onset {} paged {}: {}",
        text(i, "/id"),
        text(i, "/state"),
        text(i, "/opened_at"),
        text(i, "/onset/at"),
        i["paged"],
        text(i, "/title")
    );
    for f in i["findings"].as_array().into_iter().flatten() {
        words.push_str(&format!(
            "\n    {} | {} | found {} | recovered {}",
            text(f, "/headline"),
            text(f, "/reason"),
            text(f, "/found_at"),
            f["recovered_at"]
        ));
    }
    words
}

/// A small fleet of two models in three regions, in simulated time: history, one fault, one page, its end.
#[test]
fn an_error_spike_is_one_page_that_resolves_by_evidence() {
    let Some(broker) = Broker::shared() else { return };
    let oracle = Oracle::start();
    let topic = unique("first");
    let mut plan = Plan::demo();
    plan.models.retain(|m| m.name != "assistant");
    plan.share = 0.1;
    let start = days_ago(2);
    let began = Instant::now();
    let mut feed = Feed::new(broker, &topic, 4, plan, 11, start);
    feed.run_until(start.plus_ms(100 * MINUTE_MS));
    println!("{} events of history in {:?}", feed.sent, began.elapsed());
    let config =
        Config { broker: &broker.bootstrap, topic: &topic, group: &topic, oracle: Some(&oracle.url), pane: "10s", lateness: "20s", more: "" };
    let mut daemon = Daemon::new(&config);
    daemon.start_ready();
    daemon.until_live(120);
    println!("live after {:?}", began.elapsed());
    // Quiet.
    feed.pace_until(feed.fleet.frontier().plus_ms(10 * MINUTE_MS), 100.0);
    let on = feed.fleet.frontier();
    assert!(feed.fleet.switch(Fault::ErrorSpike, true, on));
    feed.pace_until(on.plus_ms(10 * MINUTE_MS), 100.0);
    daemon.until("an alert", 60, |_| !oracle.alerts().is_empty());
    let off = feed.fleet.frontier();
    feed.fleet.switch(Fault::ErrorSpike, false, off);
    while oracle.alerts()[0].state != AlertState::Resolved && feed.fleet.frontier() < off.plus_ms(120 * MINUTE_MS) {
        feed.pace_until(feed.fleet.frontier().plus_ms(5 * MINUTE_MS), 200.0);
    }
    daemon.until("the end of the alert", 30, |_| oracle.alerts()[0].state == AlertState::Resolved);
    let pages = daemon.incidents();
    pages.iter().for_each(|p| println!("{}", told(p)));
    println!("alert: {:?}, all in {:?}", oracle.alerts(), began.elapsed());
    assert_eq!(pages.len(), 1, "one incident");
    assert_eq!((text(&pages[0], "/incident/state"), text(&pages[0], "/incident/key/category")), ("resolved", "model_failure"));
    assert!(time(&pages[0], "/incident/onset/at").since_ms(on).abs() < 2 * MINUTE_MS, "onset {}", text(&pages[0], "/incident/onset/at"));
    let alerts = oracle.alerts();
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].summary.contains("loan-scorer") && alerts[0].summary.contains("region=eu"), "{}", alerts[0].summary);
    assert_eq!(oracle.problems(), Vec::<String>::new());
    // Every event was counted once.
    daemon.until("all events", 30, |d| d.events_seen() >= feed.sent);
    let engine = daemon.engine();
    assert_eq!((engine["events"].as_u64(), engine["duplicates"].as_u64()), (Some(feed.fleet.truth().events()), Some(feed.fleet.truth().copies())));
    let (status, took) = daemon.terminate();
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
}
