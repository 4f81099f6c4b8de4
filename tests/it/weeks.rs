//! What is normal at weekends is normal, through `backtest`: rates, values and classes know the hours of the week.

use std::fmt::Write;

use serde_json::Value;

use crate::drift::{backtest, chance};

/// 2026-11-02T00:00:00Z, a Monday.
const START_S: i64 = 1_793_577_600;
const DAYS: i64 = 24;
const PER_DAY: i64 = 3_000;

/// Twenty-four days of a model that is slower at weekends, fails more and is asked for other things; `slow_from_day`: from then on slower as well.
fn events(slow_from_day: f64) -> String {
    let mut out = String::new();
    let mut unit = chance(7);
    for i in 0..DAYS * PER_DAY {
        let t = START_S as f64 + i as f64 * 86_400.0 / PER_DAY as f64;
        let day = i as f64 / PER_DAY as f64;
        // From Friday 22:00 to Sunday 22:00, as seen from Greenwich.
        let is_weekend = (day + 2.0 / 24.0).rem_euclid(7.0) >= 5.0;
        let normal = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
        let slower = if is_weekend { 1.6 } else { 1.0 } * if day >= slow_from_day { 1.6 } else { 1.0 };
        let latency = 100.0 * slower * (0.5 * normal).exp();
        let status = if unit() < if is_weekend { 0.12 } else { 0.06 } { "error" } else { "ok" };
        let label = if unit() < if is_weekend { 0.6 } else { 0.3 } { "play" } else { "work" };
        writeln!(
            out,
            r#"{{"kind":"prediction","id":"p{i}","model":"ranker","environment":"prod","version":"1","time":{t:.3},"status":"{status}","latency_ms":{latency:.2},"label":"{label}"}}"#
        )
        .expect("text");
    }
    out
}

/// Incidents of the days from the sixteenth of November on, two weeks having been learned: onset, title and signals. Tickets of slow drift are
/// among them.
fn incidents(events: &str) -> Vec<(String, String, Vec<String>)> {
    let lines = backtest(events, "2026-11-16T00:00:00Z");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let of = |i: &Value| (text(&i["onset"]), text(&i["title"]), i["signals"].as_array().into_iter().flatten().map(text).collect());
    lines.iter().filter(|l| l["type"] == "incident").map(of).collect()
}

#[test]
fn the_third_weekend_is_no_incident_and_a_slow_wednesday_does() {
    assert_eq!(incidents(&events(f64::INFINITY)), []);
    // Wednesday the eighteenth, noon.
    let found = incidents(&events(16.5));
    let (onset, title, signals) = found.first().expect("an incident");
    assert!(("2026-11-18T10".."2026-11-18T14").contains(&onset.as_str()) && title.contains("latency"), "{found:#?}");
    assert!(signals.iter().all(|s| s == "latency" || s.starts_with("rule:")), "{found:#?}");
}
