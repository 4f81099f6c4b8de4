//! The demo as a script: every fault of its table, through the front door.
//!
//! Seven of the eight faults have keys of their own (environment, model, category), so they are switched on together; silence
//! shares the ranker's key with the timeouts and comes when those are over. What is asked of each: one incident, of the right
//! kind, model and place, paged once within 60 s, and resolved by evidence within 5 minutes of being switched off.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bellwether::fleet::Fault;
use serde_json::Value;

const ON_S: i64 = 2;
const OFF_S: i64 = 62;
const SILENCE_ON_S: i64 = 240;
const SILENCE_OFF_S: i64 = 300;

struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn seconds(line: &Value, live: f64) -> f64 {
    let at = line["at"].as_str().expect("wall time");
    bellwether::domain::Time::parse_rfc3339(at).expect("a time").0 as f64 / 1e3 - live
}

#[test]
fn every_fault_is_paged_once_and_resolves_by_evidence() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    command.args(["demo", "--json", "--for", "620s", "--seed", "7", "--listen", "127.0.0.1:0"]);
    for fault in Fault::DEMO {
        let (on, off) = if *fault == Fault::Silence { (SILENCE_ON_S, SILENCE_OFF_S) } else { (ON_S, OFF_S) };
        command.args(["--fault", &format!("{}@{on}-{off}", fault.name())]);
    }
    let mut demo = Demo(command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the demo starts"));
    let lines = BufReader::new(demo.0.stdout.take().expect("piped")).lines();
    let began = Instant::now();

    let mut live = None;
    let mut all: Vec<Value> = Vec::new();
    // Incident, and when it was opened and resolved, in seconds of live traffic.
    let mut opened: BTreeMap<String, (f64, Value)> = BTreeMap::new();
    let mut resolved: BTreeMap<String, f64> = BTreeMap::new();
    for line in lines {
        let line: Value = serde_json::from_str(&line.expect("text")).expect("one JSON object per line");
        all.push(line.clone());
        if line["event"] == "live" {
            live = Some(seconds(&line, 0.0));
        }
        let Some(live) = live else { continue };
        if line["type"] == "incident" {
            let id = line["id"].as_str().expect("an id").to_owned();
            let at = seconds(&line, live);
            match line["state"].as_str() {
                Some("open") => drop(opened.entry(id).or_insert((at, line.clone()))),
                Some("resolved") => drop(resolved.insert(id, at)),
                _ => {}
            }
        }
        if opened.len() >= Fault::DEMO.len() - 1 && resolved.len() == opened.len() && seconds(&line, live) > SILENCE_OFF_S as f64 + 1.0 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(700), "too long");
    }
    drop(demo);

    let pages: Vec<&Value> = all.iter().filter(|l| l["type"] == "page" && l["effect"] == "paged").collect();
    let mut told = Vec::new();
    for fault in Fault::DEMO {
        let expected = fault.expected();
        let (on, off) = if *fault == Fault::Silence { (SILENCE_ON_S as f64, SILENCE_OFF_S as f64) } else { (ON_S as f64, OFF_S as f64) };
        let fits = |i: &Value| i["category"] == expected.category.as_str() && i["model"] == expected.model;
        let found: Vec<_> = opened.iter().filter(|(_, (_, i))| fits(i)).collect();
        // The same key within a day is the same incident again: silence reopens what the timeouts had opened.
        assert_eq!(found.len(), 1, "{fault}: {found:?}");
        let (id, (at, incident)) = found[0];
        let at = if *fault == Fault::Silence {
            let again = all.iter().find(|l| l["type"] == "incident" && l["id"] == **id && l["reopened"] == 1 && l["state"] == "open");
            let again = again.unwrap_or_else(|| panic!("silence did not reopen {id}"));
            seconds(again, live.expect("went live"))
        } else {
            *at
        };
        assert!((on..on + 60.0).contains(&at), "{fault} was found at {at}, switched on at {on}");
        let over = resolved.get(id).unwrap_or_else(|| panic!("{fault} ({id}) was not resolved"));
        if *fault != Fault::Timeouts {
            assert!(*over < off + 300.0, "{fault} resolved at {over}, switched off at {off}");
        }
        assert_eq!(incident["paged"], true, "{fault}");
        if let Some((dimension, value)) = expected.segment {
            assert_eq!(incident["scope"]["segments"][0][dimension], value, "{fault}: {incident}");
        }
        let key = format!("bellwether/demo/{id}");
        let calls = pages.iter().filter(|p| p["key"] == key).count();
        let of_key = 1 + usize::from(matches!(fault, Fault::Silence | Fault::Timeouts));
        assert_eq!(calls, of_key, "{fault}: alerts opened for {key}");
        match fault {
            Fault::Timeouts => {
                assert_eq!(incident["cause"]["best"], "pipeline", "{incident}");
                assert!(incident["title"].as_str().is_some_and(|t| t.contains("version")), "{incident}");
            }
            Fault::FeatureMissing => assert!(["data", "pipeline"].iter().any(|c| incident["cause"]["best"] == *c), "{incident}"),
            Fault::HarmfulOutput => assert_eq!(incident["severity"], 1),
            _ => {}
        }
        told.push(format!("{:16} found after {:5.1} s, over after {:5.1} s: {}", fault.name(), at - on, over - off, incident["title"]));
    }
    assert_eq!(opened.len(), Fault::DEMO.len() - 1, "an incident that nothing explains: {opened:?}");
    println!("{}", told.join("\n"));
}
