//! Groups of a protected attribute, from events to the incident, through `backtest`.

use std::fmt::Write;
use std::process::Command;

use serde_json::Value;

const HOUR_S: i64 = 3_600;
/// 2026-11-02T00:00:00Z.
const START_S: i64 = 1_793_577_600;

/// A number from 0 to 1 that looks like chance.
fn chance(i: i64, what: u64) -> f64 {
    let mut z = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Decisions on loans, one every two seconds for so many hours. The level swings over the day and differs between regions, and
/// older people live where fewer loans are granted: without matching that would look like unfairness. From `unfair_from` on the
/// old are granted `ratio` times what the young are.
fn decisions(hours: i64, unfair_from: i64, ratio: f64) -> String {
    let mut out = String::new();
    for i in 0..hours * HOUR_S / 2 {
        let t = START_S + 2 * i;
        let south = chance(i, 1) < 0.5;
        let old = chance(i, 2) < if south { 0.5 } else { 0.2 };
        let level = if south { 0.45 } else { 0.7 } + 0.1 * (t as f64 / 86_400.0 * std::f64::consts::TAU).sin();
        let granted = level * if old && 2 * i >= unfair_from * HOUR_S { ratio } else { 1.0 };
        let label = if chance(i, 3) < granted { "approved" } else { "denied" };
        let (region, band) = (if south { "south" } else { "north" }, if old { "60+" } else { "18-39" });
        writeln!(
            out,
            r#"{{"kind":"prediction","id":"p{i}","model":"loan-scorer","environment":"prod","version":"1","time":{t},"status":"ok","label":"{label}","segments":{{"region":"{region}"}},"groups":{{"age_band":"{band}"}}}}"#
        )
        .expect("text");
    }
    out
}

fn backtest(events: &str, models: &str, live_from: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, config) = (folder.path().join("events.ndjson"), folder.path().join("bellwether.yaml"));
    std::fs::write(&file, events).expect("written");
    std::fs::write(&config, format!("kafka: {{brokers: [\"127.0.0.1:9\"], topics: [t]}}\nsegments: [region]\n{models}")).expect("written");
    let out = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(["backtest", "-o", "jsonl", "--live-from", live_from, "--config"])
        .args([&config, &file])
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(|l| serde_json::from_str(l).expect("json")).collect()
}

fn of<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|l| l["type"] == kind).collect()
}

const MODEL: &str = "models: {loan-scorer: {protected: [age_band], exposure: [legal]}}\n";

#[test]
fn a_group_that_is_granted_less_is_one_incident_of_bias_that_names_the_groups() {
    let lines = backtest(&decisions(48, 36, 0.6), MODEL, "2026-11-03T02:00:00Z");
    let incidents: Vec<_> = of(&lines, "incident").into_iter().filter(|i| i["category"] == "bias").collect();
    let ids: std::collections::BTreeSet<_> = incidents.iter().map(|i| i["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{incidents:?}");
    assert!(incidents[0]["paged"] == true && incidents[0]["severity"] == 1, "legal exposure: {}", incidents[0]);
    let alarm = of(&lines, "alarm").into_iter().find(|a| a["signal"] == "fairness:age_band" && a["decision"] == "raised").expect("an alarm");
    assert!(alarm["reason"].as_str().expect("text").contains("favourable outcomes of 60+ against 18-39"), "{alarm}");
    let after = alarm["after"].as_f64().expect("a number");
    let (low, high) = (alarm["ci95"][0].as_f64().expect("low"), alarm["ci95"][1].as_f64().expect("high"));
    assert!(low < 0.6 && 0.6 < high && (0.4..0.75).contains(&after), "{alarm}");
    let onset = alarm["onset"].as_str().expect("a time");
    assert!(("2026-11-03T09:00".."2026-11-03T15:00").contains(&onset), "{alarm}");
}

#[test]
fn equal_groups_in_unequal_places_are_nobodys_incident() {
    let lines = backtest(&decisions(48, 1_000, 1.0), MODEL, "2026-11-03T02:00:00Z");
    assert!(of(&lines, "alarm").iter().all(|a| a["signal"] != "fairness:age_band"), "{:?}", of(&lines, "alarm"));
    assert!(of(&lines, "summary")[0]["events"].as_u64() > Some(80_000));
}

#[test]
fn attributes_that_nobody_declared_protected_are_not_looked_at() {
    let lines = backtest(&decisions(30, 27, 0.5), "", "2026-11-03T00:00:00Z");
    assert!(of(&lines, "alarm").iter().all(|a| a["signal"] != "fairness:age_band"));
}
