//! Maintenance windows of the configuration in a backtest: held and listed as in the daemon, and called for when it lasts longer.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use bellwether::domain::Time;
use serde_json::Value;

/// From two minutes before two: harm is confirmed at two minutes past, and never over.
fn history() -> String {
    let start = Time::parse_rfc3339("2026-11-20T01:58:00Z").unwrap();
    let line = |i: i64| {
        let at = start.plus_ms(i * 1_000).rfc3339();
        let flag = if i == 240 { ",\"flags\":{\"leak\":\"confirmed\"}" } else { "" };
        format!(
            "{{\"kind\":\"prediction\",\"id\":\"{i}\",\"time\":\"{at}\",\"model\":\"scribe\",\"environment\":\"prod\",\"latency_ms\":90{flag}}}\n"
        )
    };
    (0..720).map(line).collect()
}

/// The turns of the one incident: when, state, whether it called, and why (not); and how many pages the sums tell.
fn turns(config: &str) -> (Vec<(String, String, bool, String)>, u64) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.ndjson"), history()).unwrap();
    std::fs::write(folder.path().join("b.yaml"), format!("files: [events.ndjson]\npane: 10s\nlateness: 1s\n{config}")).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(["backtest", "events.ndjson", "--config", "b.yaml", "-o", "jsonl"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let lines: Vec<Value> = String::from_utf8_lossy(&out.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let of_incident = lines.iter().filter(|l| l["type"] == "incident");
    let turns = of_incident.map(|l| (text(&l["time"])[11..16].to_owned(), text(&l["state"]), l["paged"] == true, text(&l["page_reason"]))).collect();
    (turns, lines.last().unwrap()["pages"].as_u64().unwrap())
}

#[test]
fn a_backtest_holds_what_the_daemon_would_hold_and_says_why() {
    let (calm, pages) = turns("");
    assert!(calm.len() == 1 && calm[0].2 && calm[0].1 == "open" && pages == 1, "{calm:?} {pages}");
    let window = |hours: &str, more: &str| format!("maintenance: [{{model: scribe, daily: \"{hours}\", why: the store moves{more}}}]\n");
    // As long as the history.
    let (held, pages) = turns(&window("02:00-03:00", ", harm: true"));
    assert!(held.len() == 1 && held[0].1 == "suppressed" && !held[0].2 && held[0].3.contains("the store moves"), "{held:?}");
    assert_eq!(pages, 0);
    // Over while it lasts: then it calls.
    let (lifted, pages) = turns(&window("02:00-02:05", ", harm: true"));
    assert!(lifted.len() == 2 && lifted[0].1 == "suppressed" && lifted[1].2 && lifted[1].0.as_str() >= "02:05", "{lifted:?}");
    assert_eq!(pages, 1);
    // Another hour, another model, and active harm that the window does not speak of.
    for config in [window("03:00-04:00", ", harm: true"), window("02:00-03:00", ""), window("02:00-03:00", ", harm: true").replace("scribe", "other")]
    {
        assert_eq!(turns(&config).1, 1, "{config}");
    }
}
