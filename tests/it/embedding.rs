//! Embeddings, and features that stand together, from events to the incident.

use std::fmt::Write;
use std::process::Command;

use bellwether::domain::Time;
use bellwether::fleet::{Fleet, Plan};
use serde_json::Value;

use crate::broker::{Broker, unique};
use crate::daemon::{Config, Daemon, Feed, KEPT, days_ago};
use crate::same::{dump, told_again, told_live, told_live_like};

const MINUTE_MS: i64 = 60_000;
/// 2026-11-02T00:00:00Z.
const START: Time = Time(1_793_577_600_000);
/// One event of each model in so long.
const EVERY_MS: i64 = 2_000;
const NUMBERS: usize = 24;

/// What happens from a minute on.
#[derive(Clone, Copy, Default)]
struct Story {
    /// This part of the texts is about something new.
    new_topic: f64,
    /// This part of the vectors has other numbers than all before.
    other_length: f64,
    /// Correlation of income and debt; .6 before.
    correlation: Option<f64>,
}

struct Chance(u64);

impl Chance {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Events of two models with their times: an assistant whose texts are of three kinds, and a scorer of loans.
fn events(start: Time, minutes: i64, from: i64, story: Story) -> Vec<(Time, String)> {
    let mut chance = Chance(7);
    let topics: Vec<Vec<f64>> = (0..4).map(|_| (0..NUMBERS).map(|_| chance.normal()).collect()).collect();
    let mut out = Vec::new();
    for i in 0..minutes * MINUTE_MS / EVERY_MS {
        let at = start.plus_ms(i * EVERY_MS);
        let now = if i * EVERY_MS >= from * MINUTE_MS { story } else { Story::default() };
        let topic = if chance.unit() < now.new_topic { 3 } else { (chance.unit() * 3.0) as usize };
        let more = if chance.unit() < now.other_length { NUMBERS / 2 } else { 0 };
        let mut vector = String::new();
        for x in topics[topic].iter().chain(topics[0].iter().take(more)) {
            write!(vector, "{}{:.3}", if vector.is_empty() { "" } else { "," }, 2.0 + x + 0.5 * chance.normal()).expect("text");
        }
        let time = at.rfc3339();
        out.push((
            at,
            format!(r#"{{"kind":"prediction","id":"a{i}","model":"assistant","environment":"prod","version":"1","time":"{time}","features":{{"text":[{vector}]}}}}"#),
        ));
        let (a, b, c) = (chance.normal(), chance.normal(), chance.normal());
        let rho = now.correlation.unwrap_or(0.6);
        let (income, debt, age) = ((8.0 + 0.5 * a).exp(), (6.0 + 0.8 * (rho * a + (1.0 - rho * rho).sqrt() * b)).exp(), 40.0 + 10.0 * c);
        out.push((
            at,
            format!(
                r#"{{"kind":"prediction","id":"l{i}","model":"loan-scorer","environment":"prod","version":"1","time":"{time}","features":{{"income":{income:.0},"debt":{debt:.0},"age":{age:.1},"purpose":"car"}}}}"#
            ),
        ));
    }
    out
}

fn backtest(events: &[(Time, String)], more: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, config) = (folder.path().join("events.ndjson"), folder.path().join("bellwether.yaml"));
    std::fs::write(&file, events.iter().fold(String::new(), |all, e| all + &e.1 + "\n")).expect("written");
    std::fs::write(&config, format!("kafka: {{brokers: [\"127.0.0.1:9\"], topics: [t]}}\nbaseline: {{learn: 3h}}\n{more}")).expect("written");
    let out = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(["backtest", "-o", "jsonl", "--live-from", &START.plus_ms(300 * MINUTE_MS).rfc3339(), "--config"])
        .args([&config, &file])
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(|l| serde_json::from_str(l).expect("json")).collect()
}

fn of<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|l| l["type"] == kind).collect()
}

/// The only incident, as it was last told.
fn only(lines: &[Value]) -> &Value {
    let incidents = of(lines, "incident");
    let ids: std::collections::BTreeSet<_> = incidents.iter().map(|i| i["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{incidents:#?}");
    incidents.last().expect("one")
}

#[test]
fn texts_about_something_new_are_listed_once_and_say_how_far_they_moved() {
    let lines = backtest(&events(START, 460, 360, Story { new_topic: 0.3, ..Story::default() }), "");
    let incident = only(&lines);
    assert_eq!(
        (&incident["category"], &incident["severity"], &incident["paged"]),
        (&"quality_degradation".into(), &3.into(), &false.into()),
        "{incident}"
    );
    assert_eq!(incident["signals"], serde_json::json!(["embedding:text"]), "{incident}");
    let title = incident["title"].as_str().expect("text");
    assert!(title.starts_with("assistant prod: embedding text moved by ") && title.contains(" standard deviations since "), "{title}");
    let alarm = of(&lines, "alarm").into_iter().find(|a| a["decision"] == "raised").expect("an alarm");
    assert_eq!((&alarm["detector"], &alarm["unit"], &alarm["before"]), (&"embedding".into(), &"deviations".into(), &0.0.into()), "{alarm}");
    let (low, after, high) = (alarm["ci95"][0].as_f64(), alarm["after"].as_f64(), alarm["ci95"][1].as_f64());
    assert!(low < after && after < high && after > Some(0.5) && after < Some(8.0), "{alarm}");
    let onset = alarm["onset"].as_str().expect("a time");
    assert!(("2026-11-02T05:50".."2026-11-02T06:15").contains(&onset), "{alarm}");
}

#[test]
fn quiet_vectors_and_features_are_nobodys_incident() {
    let lines = backtest(&events(START, 720, 0, Story::default()), "");
    assert!(of(&lines, "incident").is_empty(), "{:#?}", of(&lines, "incident"));
    assert_eq!(of(&lines, "summary")[0]["events"], 2 * 720 * 30);
}

#[test]
fn vectors_of_another_length_are_strangers_and_never_compared() {
    let lines = backtest(&events(START, 400, 360, Story { other_length: 0.5, ..Story::default() }), "");
    let incident = only(&lines);
    assert_eq!((&incident["signals"], &incident["severity"]), (&serde_json::json!(["unseen:text"]), &3.into()), "{incident}");
    assert!(incident["title"].as_str().expect("text").contains("unseen values of text 0 % → "), "{incident}");
}

#[test]
fn a_correlation_that_turns_is_listed_with_the_pair_while_each_feature_stays() {
    let lines = backtest(&events(START, 460, 360, Story { correlation: Some(-0.6), ..Story::default() }), "");
    let incident = only(&lines);
    assert_eq!(
        (&incident["category"], &incident["severity"], &incident["paged"]),
        (&"quality_degradation".into(), &3.into(), &false.into()),
        "{incident}"
    );
    assert_eq!(incident["signals"], serde_json::json!(["feature:*"]), "{incident}");
    let title = incident["title"].as_str().expect("text");
    assert!(title.starts_with("loan-scorer prod: correlation of debt and income 0.") && title.contains(" → -0."), "{title}");
    let alarm = of(&lines, "alarm").into_iter().find(|a| a["decision"] == "raised").expect("an alarm");
    let (before, after) = (alarm["before"].as_f64().expect("a number"), alarm["after"].as_f64().expect("a number"));
    assert!(alarm["detector"] == "joint" && (before - 0.6).abs() < 0.15 && (after + 0.6).abs() < 0.25, "{alarm}");
}

#[test]
fn a_tolerance_of_their_own_forgives_both() {
    let story = Story { new_topic: 0.06, correlation: Some(0.2), ..Story::default() };
    let heard = backtest(&events(START, 460, 360, story), "");
    assert_eq!(of(&heard, "alarm").iter().filter(|a| a["decision"] == "raised").count(), 2, "{heard:#?}");
    let lines = backtest(&events(START, 460, 360, story), "signals: {embedding: {tolerance: 10x}, \"feature:*\": {tolerance: 40%}}\n");
    assert!(of(&lines, "incident").is_empty(), "{:#?}", of(&lines, "incident"));
}

/// Two partitions, a kill in the middle of the change, and the same events once more through `backtest`.
#[test]
fn a_kill_and_a_backtest_tell_the_same_of_vectors() {
    let Some(broker) = Broker::shared() else { return };
    let (topic, start) = (unique("vectors"), days_ago(1));
    broker.create_topic(&topic, 2, KEPT);
    let mut feed = Feed::onto(broker, &topic, Fleet::new(Plan::demo(), 1, start));
    let story = Story { new_topic: 0.3, correlation: Some(-0.6), ..Story::default() };
    let all = events(start, 460, 360, story);
    let mut next = 0;
    let mut send_until = |feed: &mut Feed, minute: i64| {
        while next < all.len() && all[next].0 < start.plus_ms(minute * MINUTE_MS) {
            feed.send(Some(next.to_string().as_bytes()), Some(all[next].1.as_bytes()), all[next].0);
            next += 1;
        }
        // Nothing of the fleet's own: only what waits is written.
        feed.run_until(start);
    };
    send_until(&mut feed, 330);
    let more = "receivers: {hook: {type: webhook, url: \"http://127.0.0.1:9/\"}}\n";
    let config = Config { broker: &broker.bootstrap, topic: &topic, group: &topic, oracle: None, pane: "10s", lateness: "20s", more };
    let mut daemon = Daemon::new(&config);
    daemon.start_ready();
    daemon.until_caught_up(120);
    daemon.until("live", 60, |d| d.engine()["is_live"] == true);
    let log = daemon.log();
    let line: Value = serde_json::from_str(log.lines().rfind(|l| l.contains("history is read")).expect("history ends")).expect("a JSON line");
    let live_from = line.pointer("/fields/at").and_then(Value::as_str).expect("a boundary").to_owned();
    send_until(&mut feed, 362);
    daemon.until("the change begins", 60, |d| d.judged_through().is_some_and(|t| t >= start.plus_ms(361 * MINUTE_MS)));
    daemon.kill();
    send_until(&mut feed, 460);
    daemon.start_ready();
    daemon.until("everything read", 120, |d| d.events_seen() >= feed.sent);
    daemon.until("everything judged", 120, |d| d.judged_through().is_some_and(|t| t >= start.plus_ms(459 * MINUTE_MS)));
    let live = told_live(&daemon);
    let mut signals: Vec<&str> = live.iter().flat_map(|t| &t.signals).map(String::as_str).collect();
    signals.sort_unstable();
    assert_eq!((live.len(), signals), (2, vec!["embedding:text", "feature:*"]), "{live:#?}");
    // What the page of the series says.
    let series = daemon.get("/api/v1/series?model=assistant");
    let line = series["data"].as_array().into_iter().flatten().find(|s| s["key"]["signal"] == "embedding:text").expect("a line").clone();
    assert!(line["words"].as_str().is_some_and(|w| w.contains("an incident is open") && w.contains("vectors of 24 numbers")), "{line}");
    let (status, page) = daemon.try_get(&format!("/series/{}", line["id"].as_str().expect("an id"))).expect("a page");
    assert!(status == 200 && page.contains("standard deviations") && page.contains("vectors of 24 numbers"), "{page}");

    let folder = tempfile::tempdir().expect("a folder");
    let (file, yaml) = (folder.path().join("topic.ndjson"), folder.path().join("bellwether.yaml"));
    assert_eq!(dump(broker, &topic, 2, &file), feed.sent);
    let written = std::fs::write(
        &yaml,
        format!(
            "kafka: {{brokers: [\"{}\"], topics: [{topic}]}}\nsegments: [region]\nbaseline: {{learn: 30m}}\npane: 10s\nlateness: 20s\ninstance: test\n{more}",
            broker.bootstrap
        ),
    );
    written.expect("written");
    let run = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(["backtest", "-o", "jsonl", "--live-from", &live_from, "--topic", &topic, "--config"])
        .args([&yaml, &file])
        .output()
        .expect("it runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let (again, _) = told_again(&String::from_utf8_lossy(&run.stdout));
    assert_eq!(told_live_like(&daemon, &again), again);
    assert!(daemon.terminate().0.success());
}
