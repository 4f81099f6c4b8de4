//! What creeps too slowly for any page is a ticket at a day's end, through `backtest`.

use std::fmt::Write;
use std::process::Command;

use serde_json::Value;

/// 2026-11-02T00:00:00Z, a Monday.
const START_S: i64 = 1_793_577_600;
const DAYS: i64 = 24;
const PER_DAY: i64 = 3_000;
const LIVE_FROM: &str = "2026-11-03T12:00:00Z";

/// Numbers from 0 to 1.
pub fn chance(seed: u64) -> impl FnMut() -> f64 {
    let mut z = seed;
    move || {
        z = z.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((z >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
}

/// Latencies of a model over twenty-four days; from the third on they grow by so much a day.
fn latencies(growth_a_day: f64) -> String {
    let mut out = String::new();
    let mut unit = chance(1);
    for i in 0..DAYS * PER_DAY {
        let t = START_S as f64 + i as f64 * 86_400.0 / PER_DAY as f64;
        let day = i as f64 / PER_DAY as f64;
        let level = 100.0 * (1.0 + growth_a_day * (day - 2.0).max(0.0));
        let normal = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
        let latency = level * (0.5 * normal).exp();
        writeln!(
            out,
            r#"{{"kind":"prediction","id":"p{i}","model":"ranker","environment":"prod","version":"1","time":{t:.3},"status":"ok","latency_ms":{latency:.2}}}"#
        )
        .expect("text");
    }
    out
}

/// What `backtest` says of events, live from a time on.
pub fn backtest(events: &str, live_from: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.ndjson");
    std::fs::write(&file, events).expect("written");
    let out = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .current_dir(folder.path())
        .env_remove("BELLWETHER_CONFIG")
        .args(["backtest", "-o", "jsonl", "--live-from", live_from])
        .arg(&file)
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(|l| serde_json::from_str(l).expect("json")).collect()
}

#[test]
fn a_latency_that_creeps_by_one_percent_a_day_is_one_ticket() {
    let lines = backtest(&latencies(0.01), LIVE_FROM);
    let tickets: Vec<_> = lines.iter().filter(|l| l["type"] == "incident").collect();
    let ids: std::collections::BTreeSet<_> = tickets.iter().map(|i| i["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{tickets:?}");
    assert_eq!((&tickets[0]["severity"], &tickets[0]["category"]), (&3.into(), &"model_failure".into()), "{}", tickets[0]);
    let title = tickets[0]["title"].as_str().expect("text");
    assert!(title.contains("latency has crept"), "{title}");
    let alarm = lines.iter().find(|l| l["type"] == "alarm" && l["signal"] == "rule:slow_drift:latency").expect("an alarm");
    assert!(alarm["time"].as_str().expect("text") >= "2026-11-06" && alarm["time"].as_str().expect("text").contains("T00:00"), "{alarm}");
}

#[test]
fn what_stays_as_it_was_learned_is_no_ticket() {
    let lines = backtest(&latencies(0.0), LIVE_FROM);
    assert!(lines.iter().all(|l| l["type"] == "summary"), "{lines:?}");
}

#[test]
fn a_model_that_comes_back_after_hours_is_judged_on() {
    // A few events, hours of nothing, and more: what was gathered before the pause is judged with what comes after it.
    let mut out = String::new();
    for (i, second) in (0..5).chain(9_000..9_060).chain(20_000..20_003).chain(90_000..90_040).enumerate() {
        let t = START_S + second;
        writeln!(
            out,
            r#"{{"kind":"prediction","id":"p{i}","model":"m{}","environment":"prod","version":"{}","time":{t},"status":"ok"}}"#,
            i % 2,
            i % 3
        )
        .expect("text");
    }
    let lines = backtest(&out, LIVE_FROM);
    assert_eq!(lines.last().expect("a summary")["events"], 108, "{lines:?}");
}
