//! `backtest` over a dumped topic says what the live run said: the same incidents, from the same panes.
//!
//! The long form dumps a million events: `cargo test --test it same::a_million -- --ignored --nocapture`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use bellwether::decode::kcat::wrap_dump;
use bellwether::domain::Time;
use bellwether::fleet::{Fault, Plan};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;

use crate::broker::{Broker, unique};
use crate::daemon::{Config, Daemon, Feed, days_ago};
use crate::oracle::Oracle;

const PARTITIONS: i32 = 6;
const MINUTE_MS: i64 = 60_000;

/// What both must agree on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    pub id: String,
    pub key: String,
    pub onset: String,
    pub severity: u64,
    pub signals: Vec<String>,
    pub paged: bool,
    pub state: String,
    pub title: String,
}

/// Writes the topic as `kcat -J` would, partition after partition.
pub fn dump(broker: &Broker, topic: &str, partitions: i32, to: &std::path::Path) -> u64 {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &broker.bootstrap)
        .set("group.id", unique("dump"))
        .set("enable.auto.commit", "false")
        .create()
        .expect("a client");
    let mut out = std::io::BufWriter::new(std::fs::File::create(to).expect("a file"));
    let mut written = 0;
    for partition in 0..partitions {
        let (low, high) = client.fetch_watermarks(topic, partition, Duration::from_secs(10)).expect("watermarks");
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(topic, partition, Offset::Offset(low)).expect("a place");
        client.assign(&place).expect("assigned");
        let mut next = low;
        while next < high {
            let Some(record) = client.poll(Duration::from_secs(10)) else { panic!("{topic}[{partition}] stops at {next} of {high}") };
            let record = record.expect("a record");
            let time = record.timestamp().to_millis().map(Time);
            writeln!(out, "{}", wrap_dump(topic, partition, record.offset(), time, record.key(), record.payload())).expect("written");
            next = record.offset() + 1;
            written += 1;
        }
    }
    out.flush().expect("written");
    written
}

fn signals(of: &Value) -> Vec<String> {
    let mut all: Vec<String> =
        of.as_array().into_iter().flatten().filter_map(|f| f.pointer("/series/signal").and_then(Value::as_str)).map(str::to_owned).collect();
    all.sort();
    all.dedup();
    all
}

fn text(v: &Value) -> String {
    v.as_str().unwrap_or_default().to_owned()
}

/// The incidents of a running daemon.
pub fn told_live(daemon: &Daemon) -> Vec<Told> {
    let mut live: Vec<Told> = (daemon.incidents().iter())
        .map(|p| {
            let i = &p["incident"];
            Told {
                id: text(&i["id"]),
                key: format!("{}/{}/{}", text(&i["key"]["environment"]), text(&i["key"]["model"]), text(&i["key"]["category"])),
                onset: text(&i["onset"]["at"]),
                severity: i["severity"].as_u64().unwrap_or(0),
                signals: signals(&i["findings"]),
                paged: i["paged"] == true,
                state: text(&i["state"]),
                title: text(&i["title"]),
            }
        })
        .collect();
    live.sort();
    live
}

/// The incidents of a running daemon, once they are those of the backtest, or as they are after a minute: a backtest judges to the end of
/// its file, a daemon the last panes only when the partitions have rested for a while.
pub fn told_live_like(daemon: &Daemon, again: &[Told]) -> Vec<Told> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let live = told_live(daemon);
        if live == again || Instant::now() >= until {
            return live;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The incidents and the summary of a backtest, from its lines.
pub fn told_again(stdout: &str) -> (Vec<Told>, Value) {
    let mut last: BTreeMap<String, Told> = BTreeMap::new();
    let mut summary = Value::Null;
    for line in stdout.lines() {
        let line: Value = serde_json::from_str(line).expect("a JSON line");
        if line["type"] == "summary" {
            summary = line;
        } else if line["type"] == "incident" {
            let mut signals: Vec<String> = line["signals"].as_array().into_iter().flatten().map(text).collect();
            signals.sort();
            let told = Told {
                id: text(&line["id"]),
                key: format!("{}/{}/{}", text(&line["environment"]), text(&line["model"]), text(&line["category"])),
                onset: text(&line["onset"]),
                severity: line["severity"].as_u64().unwrap_or(0),
                signals,
                paged: line["paged"] == true,
                state: text(&line["state"]),
                title: text(&line["title"]),
            };
            last.insert(told.id.clone(), told);
        }
    }
    let mut again: Vec<Told> = last.into_values().collect();
    again.sort();
    (again, summary)
}

/// Half an hour and more of history, three faults one after the other, then the dump.
fn compare(share: f64) {
    let Some(broker) = Broker::shared() else { return };
    let oracle = Oracle::start();
    let topic = unique("same");
    let start = days_ago(2);
    let plan = Plan { share, ..Plan::demo() };
    let mut feed = Feed::new(broker, &topic, PARTITIONS, plan, 11, start);
    feed.run_until(start.plus_ms(60 * MINUTE_MS));
    let config =
        Config { broker: &broker.bootstrap, topic: &topic, group: &topic, oracle: Some(&oracle.url), pane: "10s", lateness: "20s", more: "" };
    let mut daemon = Daemon::new(&config);
    daemon.start_ready();
    daemon.until_caught_up(300);
    daemon.until("live", 60, |d| d.engine()["is_live"] == true);
    let log = daemon.log();
    let line = log.lines().rfind(|l| l.contains("history is read")).expect("the daemon says where history ends");
    let line: Value = serde_json::from_str(line).expect("a JSON line");
    let live_from = text(line.pointer("/fields/at").expect("a boundary"));
    for fault in [Fault::ErrorSpike, Fault::QualityDrop, Fault::Timeouts] {
        let on = feed.fleet.frontier();
        assert!(feed.fleet.switch(fault, true, on));
        feed.run_until(on.plus_ms(6 * MINUTE_MS));
        let off = feed.fleet.frontier();
        feed.fleet.switch(fault, false, off);
        feed.run_until(off.plus_ms(15 * MINUTE_MS));
    }
    let sent = feed.sent;
    daemon.until("everything read", 300, |d| d.events_seen() >= sent);
    daemon.until("everything judged", 120, |d| {
        let through = d.engine()["judged_through"].as_str().and_then(Time::parse_rfc3339);
        through.is_some_and(|t| t >= feed.fleet.frontier().plus_ms(-60_000))
    });
    let events = daemon.engine()["events"].as_u64();

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("topic.ndjson");
    let dumped = dump(broker, &topic, PARTITIONS, &file);
    assert_eq!(dumped, sent);
    let yaml = folder.path().join("bellwether.yaml");
    let written = std::fs::write(
        &yaml,
        format!(
            "kafka: {{brokers: [\"{}\"], topics: [{topic}]}}\nsegments: [region]\nbaseline: {{learn: 30m}}\npane: 10s\nlateness: 20s\ninstance: test\n\
             receivers: {{oncall: {{type: webhook, url: \"http://127.0.0.1:9/\"}}}}\n",
            broker.bootstrap
        ),
    );
    written.expect("written");
    let run = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(["backtest", "-o", "jsonl", "--live-from", &live_from, "--topic", &topic, "--config"])
        .arg(&yaml)
        .arg(&file)
        .output()
        .expect("it runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let (again, summary) = told_again(&String::from_utf8_lossy(&run.stdout));
    let live = told_live_like(&daemon, &again);
    assert!(daemon.terminate().0.success());
    println!("{sent} records; live and backtest say {} incidents: {live:#?}\n{summary}", live.len());
    assert_eq!(summary["events"].as_u64(), events);
    assert!(live.len() >= 3, "{live:#?}");
    assert_eq!(live, again);
}

#[test]
fn backtest_says_what_the_live_run_said() {
    compare(0.05);
}

#[test]
#[ignore = "the long form; cargo test --test it same::a_million -- --ignored --nocapture"]
fn a_million_events_are_judged_alike() {
    compare(0.2);
}
