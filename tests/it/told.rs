//! Who is told through the running daemon: a fallback in place of whoever refuses, nobody during announced work, the law before its
//! time is over; and what people do with the papers of an incident.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use bellwether::daemon::now;
use bellwether::domain::Time;
use serde_json::{Value, json};

use crate::actions::Desk;
use crate::daemon::ROUTING_KEY;
use crate::oracle::{Fault, Oracle};

/// By hand, so that nothing but telling happens.
const RUNBOOK: &str = "runbooks:\n  - category: harmful_output\n    severity: 1\n    models: [assistant]\n    owner: ana\n    fallback: stop it\n    steps:\n      - {do: take_offline, say: by hand}\n";

/// What a webhook of the oracle was told about an incident: type and the whole body.
fn told(oracle: &Oracle, name: &str, incident: &str) -> Vec<(String, Value)> {
    let path = format!("/hooks/{name}");
    let all = oracle.requests().into_iter().filter(|r| r.path == path).map(|r| r.json());
    all.filter(|b| b["data"]["incident"]["id"] == incident).map(|b| (b["type"].as_str().unwrap_or_default().to_owned(), b)).collect()
}

fn types(oracle: &Oracle, name: &str, incident: &str) -> Vec<String> {
    told(oracle, name, incident).into_iter().map(|t| t.0).collect()
}

fn row(desk: &Desk, incident: &str, receiver: &str, notice: &str) -> Value {
    let page = desk.get(&format!("/api/v1/incidents/{incident}"));
    let rows = page["deliveries"].as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|d| d["receiver"] == receiver && d["notice"] == notice).unwrap_or_default()
}

fn cli(desk: &Desk, arguments: &[&str]) -> (bool, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(arguments)
        .args(["--server", &format!("127.0.0.1:{}", desk.port)])
        .env("USER", "ana")
        .current_dir(desk.folder.path())
        .output()
        .unwrap();
    (out.status.success(), format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)))
}

#[test]
fn f35_a_refused_call_goes_to_the_named_fallback_which_hears_the_end() {
    let oracle = Oracle::start();
    oracle.always("/v2", Fault::with(403, &[], r#"{"status":"forbidden","message":"key is gone"}"#));
    let more = format!(
        "receivers:\n  oncall: {{type: pagerduty, routing_key: {ROUTING_KEY}, url: \"{0}/v2/enqueue\", fallback: team}}\n  other: {{type: webhook, url: \"{0}/hooks/other\"}}\n  \
         team: {{type: webhook, url: \"{0}/hooks/team\"}}\nroutes: [{{to: [oncall]}}]\n",
        oracle.url
    );
    let mut desk = Desk::new(RUNBOOK, &more);
    desk.start();
    let id = desk.incident("assistant");
    desk.until("the fallback", |_| types(&oracle, "team", &id).contains(&"incident.opened".to_owned()));
    assert!(types(&oracle, "other", &id).is_empty(), "the one that is named, not the next");
    desk.until("a record", |d| row(d, &id, "oncall", "opened")["state"] == "refused");
    let (refused, instead) = (row(&desk, &id, "oncall", "opened"), row(&desk, &id, "team", "opened"));
    let words = |r: &Value| r["detail"].as_str().unwrap_or_default().to_owned();
    assert!(words(&refused).contains("key is gone") && words(&refused).ends_with("sent to team instead"), "{refused}");
    assert!(words(&instead).starts_with("instead of oncall"), "{instead}");
    let (_, _, html) = desk.ask("GET", &format!("/incidents/{id}"), &[], "").unwrap();
    assert!(html.contains("sent to team instead") && html.contains("instead of oncall"));
    let metrics = desk.ask("GET", "/metrics", &[], "").unwrap().2;
    let count = metrics.lines().find_map(|l| l.strip_prefix("bellwether_notification_fallbacks_total{receiver=\"oncall\",to=\"team\"} "));
    assert!(count.is_some_and(|n| n.parse::<u64>().is_ok_and(|n| n >= 1)), "{metrics}");
    // What was heard but not yet written down when a kill comes is said again, under its own id; so it is written down first.
    desk.until("its answer", |d| row(d, &id, "team", "opened")["state"] == "accepted");
    // Killed and started again, nobody is called twice; and whoever stood in hears the end from the pager that works again.
    desk.kill();
    oracle.heal("/v2");
    desk.start();
    desk.incident("assistant");
    assert_eq!(desk.act(&id, "resolve", json!({"by": "ana", "as": "fixed"})).0, 200);
    desk.until("the end", |_| types(&oracle, "team", &id).contains(&"incident.resolved".to_owned()));
    assert_eq!(types(&oracle, "team", &id).iter().filter(|t| *t == "incident.opened").count(), 1);
    assert!(words(&row(&desk, &id, "oncall", "resolved")).contains("sent to team as well"));
}

/// Hours that have begun two hours ago and end in two, by the clock of UTC.
fn hours() -> String {
    let clock = |t: Time| t.rfc3339()[11..16].to_owned();
    format!("{}-{}", clock(now().plus_ms(-7_200_000)), clock(now().plus_ms(7_200_000)))
}

#[test]
fn announced_work_calls_nobody_and_its_end_does() {
    let oracle = Oracle::start();
    let receivers = format!("receivers:\n  oncall: {{type: pagerduty, routing_key: {ROUTING_KEY}, url: \"{}/v2/enqueue\"}}\n", oracle.url);
    let window = format!("maintenance:\n  - {{model: scribe, daily: \"{}\", harm: true, why: the store moves}}\n", hours());
    let mut desk = Desk::new(RUNBOOK, &format!("{receivers}{window}"));
    desk.start();
    let (held, loud) = (desk.incident("scribe"), desk.incident("assistant"));
    let state = |d: &Desk, id: &str| d.get(&format!("/api/v1/incidents/{id}"))["incident"]["state"].as_str().unwrap_or_default().to_owned();
    assert_eq!((state(&desk, &held).as_str(), state(&desk, &loud).as_str()), ("suppressed", "open"));
    desk.until("a call for the other", |_| oracle.alerts().iter().any(|a| a.key.ends_with(&loud)));
    assert!(!oracle.alerts().iter().any(|a| a.key.ends_with(&held)));
    let (ok, listed) = cli(&desk, &["maintenance", "list"]);
    assert!(ok && listed.contains("model=scribe") && listed.contains("the configuration") && listed.contains("the store moves"), "{listed}");
    assert!(listed.contains(" on ") && listed.contains("to come"), "the one that is on, and the next: {listed}");
    let (_, _, html) = desk.ask("GET", "/silences", &[], "").unwrap();
    assert!(html.contains("the store moves") && html.contains("the configuration"), "{html}");
    let body = json!({"match": {"model": "m"}, "until": now().plus_ms(60_000), "by": "the configuration"});
    assert_eq!(desk.post("/api/v1/silences", &body).0, 422, "nobody speaks in its name");
    // The same file again, and a restart, announce nothing twice.
    let count = |d: &Desk| d.get("/api/v1/maintenance")["data"].as_array().map(Vec::len);
    let before = count(&desk);
    assert_eq!(desk.ask("POST", "/-/reload", &[], "").unwrap().0, 200);
    desk.kill();
    desk.start();
    desk.incident("scribe");
    assert_eq!(count(&desk), before);
    // A person ends it before its time: it stays ended, and what lasts calls now.
    let holds = desk.get("/api/v1/maintenance");
    let on = holds["data"].as_array().unwrap().iter().find(|h| h["from"].as_str().and_then(Time::parse_rfc3339).is_some_and(|t| t < now())).unwrap();
    let id = on["id"].as_str().unwrap();
    assert!(cli(&desk, &["maintenance", "end", id]).0);
    desk.until("the call", |_| oracle.alerts().iter().any(|a| a.key.ends_with(&held)));
    assert_eq!(desk.ask("POST", "/-/reload", &[], "").unwrap().0, 200);
    assert_eq!(count(&desk), before);
    // Taken out of the file, what was still to come is over.
    let file = desk.folder.path().join("bellwether.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&window, "")).unwrap();
    assert_eq!(desk.ask("POST", "/-/reload", &[], "").unwrap().0, 200);
    let (_, listed) = cli(&desk, &["maintenance", "list"]);
    assert!(listed.contains("ended by the configuration") && listed.contains("ended by ana") && !listed.contains("to come"), "{listed}");
}

#[test]
fn the_law_is_reminded_until_a_person_says_why_not_and_papers_are_kept() {
    let oracle = Oracle::start();
    let hook = |name: &str| format!("  {name}: {{type: webhook, url: \"{}/hooks/{name}\"}}\n", oracle.url);
    let more = format!(
        "receivers:\n{}{}routes: [{{to: [oncall]}}]\npeople: {{legal: [law]}}\nmodels: {{scribe: {{exposure: [eu]}}}}\n\
         escalation:\n  clocks:\n    - gdpr_72h\n    - {{name: own_12s, words: tell the customer, after: 12s, checked_on: \"2026-11-01\"}}\n",
        hook("oncall"),
        hook("law")
    );
    let mut desk = Desk::new(RUNBOOK, &more);
    desk.start();
    let id = desk.incident("scribe");
    let clock = |d: &Desk, name: &str| {
        let page = d.get(&format!("/api/v1/incidents/{id}"));
        page["clocks"].as_array().unwrap().iter().find(|c| c["name"] == name).cloned().unwrap_or_default()
    };
    desk.until("a counted clock", |d| clock(d, "gdpr_72h")["seconds_left"].is_i64());
    let left = clock(&desk, "gdpr_72h")["seconds_left"].as_i64().unwrap();
    assert!((72 * 3_600 - 120..=72 * 3_600).contains(&left), "{left}");
    assert_eq!(clock(&desk, "own_12s")["state"], "suggested");
    // Legal exposure without anything of the kind elsewhere: nobody else has clocks.
    let other = desk.incident("assistant");
    assert_eq!(desk.get(&format!("/api/v1/incidents/{other}"))["clocks"], json!([]));

    let reminders = |name: &str| {
        let all = told(&oracle, name, &id).into_iter().filter(|t| t.0 == "incident.reminder");
        all.map(|t| t.1["data"]["incident"]["reminder"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    desk.until("half of the time", |_| !reminders("law").is_empty());
    assert!(
        reminders("law")[0].contains("own_12s (tell the customer)") && reminders("law")[0].contains("for a person to say"),
        "{:?}",
        reminders("law")
    );
    assert!(reminders("oncall").is_empty());
    // It goes on when the incident is over, and over a kill.
    assert_eq!(desk.act(&id, "resolve", json!({"by": "ana", "as": "fixed"})).0, 200);
    desk.kill();
    desk.start();
    desk.until("the end of the time", |_| reminders("law").iter().any(|r| r.contains("its time is over")));
    assert_eq!(reminders("law").len(), 2, "{:?}", reminders("law"));
    let (_, _, html) = desk.ask("GET", &format!("/incidents/{id}"), &[], "").unwrap();
    for piece in ["To be reported", "too late", "71 h", "It does not apply", "no legal advice"] {
        assert!(html.contains(piece) || (piece == "71 h" && html.contains("2 d 23 h left")), "{piece:?} is not on the page");
    }
    // A person stops it, with a reason; whoever was reminded hears that it is over.
    assert_eq!(desk.act(&id, "clock", json!({"by": "ana", "clock": "own_12s", "state": "waived"})).0, 422, "a reason is needed");
    assert_eq!(desk.act(&id, "clock", json!({"by": "ana", "clock": "own_12s", "state": "over", "why": "x"})).0, 422);
    let (status, answer) = desk.act(&id, "clock", json!({"by": "ana", "clock": "own_12", "state": "met", "why": "x"}));
    assert!(status == 409 && answer["detail"].as_str().unwrap().contains("known: gdpr_72h, own_12s"), "{answer}");
    assert_eq!(desk.act(&id, "clock", json!({"by": "ana", "clock": "own_12s", "state": "waived", "why": "no customer is hit"})).0, 200);
    let stopped = clock(&desk, "own_12s");
    assert_eq!((&stopped["state"], &stopped["seconds_left"], &stopped["decided"]["by"]), (&json!("waived"), &Value::Null, &json!("ana")));
    let known = now().plus_ms(-3_600_000).rfc3339();
    let (ok, said) = cli(&desk, &["incidents", "clock", &id, "gdpr_72h", "--started", "--from", &known, "--why", "support knew"]);
    assert!(ok, "{said}");
    let (ok, said) = cli(&desk, &["incidents", "clock", &id]);
    assert!(
        ok && said.contains("2 d 22 h left") && said.contains("waived") && said.contains("ana at") && said.contains("no customer is hit"),
        "{said}"
    );

    // A draft: shown, changed, sent by hand.
    let (ok, draft) = cli(&desk, &["incidents", "show", &id]);
    assert!(ok && draft.contains("not sent"), "{draft}");
    let page = desk.get(&format!("/api/v1/incidents/{id}"));
    let name = page["incident"]["response"]["drafts"][0]["name"].as_str().unwrap().to_owned();
    let (ok, said) = cli(&desk, &["incidents", "draft", &id, &name, "--text", "We look into it.\nMore at noon."]);
    assert!(ok, "{said}");
    assert_eq!(cli(&desk, &["incidents", "draft", &id, &name]), (true, "We look into it.\nMore at noon.\n".to_owned()));
    assert_eq!(desk.act(&id, "sent", json!({"by": "ben", "draft": name})).0, 422, "to whom?");
    let (ok, said) = cli(&desk, &["incidents", "sent", &id, &name, "--to", "users of scribe, by mail", "--by", "ben"]);
    assert!(ok, "{said}");
    let drafts = &desk.get(&format!("/api/v1/incidents/{id}"))["incident"]["response"]["drafts"];
    assert_eq!(
        (&drafts[0]["edited"]["by"], &drafts[0]["sent"][0]["by"], &drafts[0]["sent"][0]["to"]),
        (&json!("ana"), &json!("ben"), &json!("users of scribe, by mail"))
    );
    let line = desk.timeline(&id);
    for what in ["clock_reminder", "clock_waived", "clock_started", "draft_edited", "draft_sent"] {
        assert!(line.iter().any(|w| w == what), "{what}: {line:?}");
    }
    // All of it stands in the audit.
    desk.kill();
    std::thread::sleep(Duration::from_millis(50));
    let out = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(["audit", "list", "--data-dir"])
        .arg(desk.data())
        .current_dir(desk.folder.path())
        .output()
        .unwrap();
    let audit = String::from_utf8_lossy(&out.stdout).into_owned();
    for piece in ["no customer is hit", "users of scribe, by mail", "More at noon"] {
        assert!(audit.contains(piece), "{piece:?} is not in the audit\n{audit}{}", String::from_utf8_lossy(&out.stderr));
    }
}
