//! Actions, and what comes after them: a recovery that is quicker than the answer, and traffic that does not do what the router says.
//! Through a daemon that reads its standard input, so that events come when the story wants them.
#![allow(clippy::unwrap_used)]

use bellwether::daemon::now;
use bellwether::domain::Time;
use serde_json::{Value, json};

use crate::actions::{Desk, Manner, Switch};
use crate::daemon::http;
use crate::fed::Fed;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// `n` predictions within `ms`; of a hundred, so many are of version 7, the others of version 8.
fn predictions(part: &str, from: Time, ms: i64, n: i64, of_seven: i64, is_harmful: bool) -> String {
    let line = |i: i64| {
        let at = from.plus_ms(i * ms / n).rfc3339();
        let version = if i * 37 % 100 < of_seven { 7 } else { 8 };
        let flag = if is_harmful && i == n / 2 { ",\"flags\":{\"harmful\":\"confirmed\"}" } else { "" };
        format!(
            "{{\"kind\":\"prediction\",\"id\":\"{part}-{i}\",\"time\":\"{at}\",\"model\":\"assistant\",\"environment\":\"prod\",\"version\":\"{version}\",\"latency_ms\":90{flag}}}\n"
        )
    };
    (0..n).map(line).collect()
}

fn fed(switch: &Switch, step: &str) -> Fed {
    let more = format!(
        "pane: 10s\nlateness: 1s\nrunbooks: [ours.yaml]\nactions:\n  switch: {{type: webhook, url: \"{}\", secret: {SECRET}, targets: [assistant]}}\n",
        switch.url
    );
    let runbook =
        format!("runbooks:\n  - category: harmful_output\n    severity: 1\n    owner: ana\n    fallback: stop it\n    steps:\n      - {step}\n");
    Fed::start(|_| more, |folder| std::fs::write(folder.join("ours.yaml"), runbook).unwrap())
}

fn incident(fed: &Fed) -> Value {
    fed.incidents().pop().unwrap_or_default()
}

fn step(fed: &Fed) -> Value {
    incident(fed)["incident"]["response"]["steps"][0].clone()
}

fn until_step(fed: &Fed, state: &str) -> Value {
    fed.until(state, |f| step(f)["state"] == state);
    step(fed)
}

fn act(fed: &Fed, verb: &str, body: Value) {
    let id = incident(fed)["incident"]["id"].as_str().unwrap().to_owned();
    let (status, said) = http(fed.port, "POST", &format!("/api/v1/incidents/{id}/{verb}"), &body.to_string()).unwrap();
    assert_eq!(status, 200, "{verb}: {said}");
}

fn approve(fed: &Fed) {
    let hash = until_step(fed, "planned")["plan"]["hash"].clone();
    act(fed, "approve", json!({"by": "ana", "plan": hash}));
}

fn timeline(fed: &Fed, what: &str) -> Vec<String> {
    let lines = incident(fed)["timeline"].as_array().cloned().unwrap_or_default();
    lines.iter().filter(|t| t["what"] == what).map(|t| t["why"].as_str().unwrap_or_default().to_owned()).collect()
}

const SWITCHED: &str = "{do: safe_default, say: x, automatic: true, undo: at_recovery, action: {use: switch, target: assistant, set: {mode: safe}}}";

#[test]
fn what_is_on_its_way_when_the_incident_recovers_is_taken_back_when_it_has_arrived() {
    let switch = Switch::start();
    switch.set("live", Manner::Slow(4_000));
    let mut fed = fed(&switch, SWITCHED);
    let start = now().plus_ms(-600_000);
    fed.say(&predictions("a", start, 60_000, 200, 100, true));
    fed.flush();
    fed.until("the call", |_| switch.calls("apply").len() == 1);
    // Four thousand clean predictions are the evidence.
    fed.say(&predictions("b", start.plus_ms(60_000), 240_000, 4_000, 100, false));
    fed.flush();
    fed.until("the recovery", |f| incident(f)["incident"]["state"] == "resolved");
    assert_eq!(step(&fed)["state"], "applying", "it recovered before the answer came");
    switch.set(&switch.mode(), Manner::Well);
    until_step(&fed, "undone");
    assert_eq!((switch.mode().as_str(), switch.calls("apply").len(), switch.calls("undo").len()), ("live", 1, 1));
}

#[test]
fn what_nobody_knew_at_the_recovery_is_taken_back_when_a_person_knows() {
    let switch = Switch::start();
    switch.set("live", Manner::LosesTheAnswer);
    let mut fed = fed(&switch, SWITCHED);
    let start = now().plus_ms(-600_000);
    fed.say(&predictions("a", start, 60_000, 200, 100, true));
    fed.flush();
    until_step(&fed, "unknown");
    fed.say(&predictions("b", start.plus_ms(60_000), 240_000, 4_000, 100, false));
    fed.flush();
    fed.until("the recovery", |f| incident(f)["incident"]["state"] == "resolved");
    switch.set(&switch.mode(), Manner::Well);
    assert_eq!((step(&fed)["state"].as_str(), switch.calls("undo").len()), (Some("unknown"), 0), "a person decides");
    act(&fed, "done", json!({"by": "ana", "step": "safe_default", "why": "looked: it is in safe mode"}));
    until_step(&fed, "undone");
    assert_eq!((switch.mode().as_str(), switch.calls("undo").len()), ("live", 1));
}

#[test]
fn a_reroute_is_verified_by_the_traffic_of_its_version() {
    let switch = Switch::start();
    let mut fed = fed(&switch, "{do: reroute, say: x, action: {use: switch, target: assistant, set: {mode: old, version: 7}}}");
    fed.say(&predictions("a", now().plus_ms(-600_000), 60_000, 200, 20, true));
    fed.flush();
    approve(&fed);
    let done = until_step(&fed, "done");
    assert!(done["words"].as_str().unwrap().contains("version 7 should get nearly all"), "{done}");
    assert_eq!((&done["shift"]["to"], &done["shift"]["has_moved"]), (&json!("7"), &Value::Null));
    // The router says that it is done; the predictions go on as before.
    let mut at = now().plus_ms(10_000);
    let go_on = |fed: &mut Fed, at: &mut Time, minutes: i64, of_seven: i64| {
        fed.say(&predictions(&format!("{}", at.0), *at, minutes * 60_000, minutes * 60, of_seven, false));
        fed.flush();
        *at = at.plus_ms(minutes * 60_000);
    };
    go_on(&mut fed, &mut at, 3, 20);
    fed.until("all of it", |f| f.judged_through().is_some_and(|t| t >= at.plus_ms(-20_000)));
    assert_eq!(step(&fed)["state"], "done", "a route needs a moment");
    go_on(&mut fed, &mut at, 4, 20);
    let not = until_step(&fed, "unverified");
    let said = timeline(&fed, "action_traffic_not_moved");
    assert!(said.len() == 1 && said[0].contains("version 8 has ") && said[0].contains("it is not so 5 min later"), "{said:?} {not}");
    // Once more, and this time it moves. The events are minutes ahead of the wall by now, as after a night without any.
    act(&fed, "undo", json!({"by": "ana", "step": "reroute"}));
    until_step(&fed, "undone");
    act(&fed, "plan", json!({"by": "ana", "step": "reroute"}));
    approve(&fed);
    until_step(&fed, "done");
    go_on(&mut fed, &mut at, 2, 100);
    fed.until("the verdict", |f| step(f)["shift"]["has_moved"] == true);
    let said = timeline(&fed, "action_traffic_moved");
    assert!(said.len() == 1 && said[0].contains("version 7 has "), "{said:?}");
    assert_eq!(step(&fed)["state"], "done");
}

/// What was written before a kill is read again; until then the incident is in the store alone, and whoever acts on it must wait.
#[test]
fn after_a_kill_an_act_waits_until_a_file_has_been_read_again() {
    let runbook =
        "runbooks:\n  - {category: harmful_output, severity: 1, owner: ana, fallback: stop it, steps: [{do: take_offline, say: by hand}]}\n";
    let mut desk = Desk::new(runbook, "");
    let file = desk.folder.path().join("events.ndjson");
    // Much to read before the harm.
    let before = predictions("bulk", now().plus_ms(-3_600_000), 1_200_000, 60_000, 100, false).replace("assistant", "bulk");
    let events = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, before + &events).unwrap();
    desk.start();
    let id = desk.incident("assistant");
    desk.kill();
    desk.start();
    let mut waited = 0;
    let body = json!({"by": "ana"}).to_string();
    let path = format!("/api/v1/incidents/{id}/acknowledge");
    let (status, said) = loop {
        let (status, _, said) = desk.ask("POST", &path, &[("content-type", "application/json")], &body).unwrap();
        if status != 503 {
            break (status, said);
        }
        waited += 1;
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    assert_eq!(status, 200, "after {waited} times: {said}");
    assert!(waited > 0, "it was read again before anybody could ask: more events are needed");
}
