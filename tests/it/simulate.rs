//! The promise tested on made-up fleets through the command line.

use std::process::Command;

use serde_json::Value;

fn simulate(arguments: &[&str]) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_bellwether")).arg("simulate").args(arguments).args(["-o", "json"]).output().expect("runs");
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("json")
}

#[test]
fn false_pages_stay_within_the_budget_and_hidden_faults_are_found() {
    let out = simulate(&["--series", "600", "--events", "60000", "--faults", "60", "--false-pages", "10", "--repeats", "2", "--baseline", "60000"]);
    assert!(out["promised"].as_f64().expect("a number") <= 10.0, "{out}");
    assert!(out["false_pages_mean"].as_f64().expect("a number") <= 10.0, "{out}");
    let of = |kind: &str| {
        let all = out["by_kind"].as_array().expect("kinds");
        let found = &all.iter().find(|k| k[0] == kind).unwrap_or_else(|| panic!("no {kind} in {out}"))[1];
        (found["hidden"].as_u64().expect("a number"), found["within_3x"].as_u64().expect("a number"))
    };
    let (hidden, found) = of("values");
    assert!(hidden >= 30 && found * 10 >= hidden * 9, "{found} of {hidden} faults in values: {out}");
    assert_eq!(out["faults"]["hidden"], 120);
}

#[test]
fn births_twins_the_edge_and_kills_keep_the_promise() {
    for fleet in ["churn", "twins", "edge", "killed"] {
        let out = simulate(&["--fleet", fleet, "--series", "150", "--events", "30000", "--faults", "0", "--false-pages", "5", "--repeats", "2"]);
        assert!(out["promised"].as_f64().expect("a number") <= 5.0, "{out}");
        assert!(out["false_pages_mean"].as_f64().expect("a number") <= 5.0, "{fleet}: {out}");
        assert_eq!(out["differing"], 0, "{fleet}: {out}");
    }
}

#[test]
fn a_fleet_without_sense_is_refused_in_words() {
    let out = Command::new(env!("CARGO_BIN_EXE_bellwether")).args(["simulate", "--series", "10", "--faults", "11"]).output().expect("runs");
    assert_eq!(out.status.code(), Some(2));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("--faults 11 is more than --series 10"), "{said}");
}
