//! Who may do what, and the record of it: tokens, roles, the audit and its seals, escalation; through the running daemon.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use bellwether::store::{FILE, Store};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::actions::{Desk, Manner, Switch};
use crate::oracle::Oracle;

const RUNBOOK: &str = "runbooks:\n  - category: harmful_output\n    severity: 1\n    owner: on-call\n    fallback: stop it\n    steps:\n      - do: safe_default\n        say: switch to the safe default\n        action: {use: switch, target: assistant, set: {mode: safe}}\n      - {do: tell_leadership, say: leadership is told}\n      - {do: tell_legal, say: legal is told, when: exposed}\n";

fn tokens() -> String {
    let mut out = "tokens:\n".to_owned();
    for (name, role) in [("vera", "viewer"), ("rene", "responder"), ("anna", "approver"), ("adam", "admin")] {
        let digest: String = Sha256::digest(format!("token-of-{name}")).iter().map(|b| format!("{b:02x}")).collect();
        out.push_str(&format!("  - {{name: {name}, role: {role}, sha256: \"{digest}\"}}\n"));
    }
    out
}

fn switched(switch: &Switch) -> String {
    format!("actions:\n  switch: {{type: webhook, url: \"{}\", secret: sesame-sesame, targets: [assistant]}}\n", switch.url)
}

/// The desk as this person sees it.
fn as_(desk: &mut Desk, name: &str) {
    desk.token = Some(format!("token-of-{name}"));
}

fn cli(desk: &Desk, arguments: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .args(arguments)
        .arg("--data-dir")
        .arg(desk.data())
        .env_remove("BELLWETHER_CONFIG")
        .output()
        .unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn f60_every_role_may_do_what_it_may_and_every_write_stands_in_the_audit() {
    let switch = Switch::start();
    let mut desk = Desk::new(RUNBOOK, &format!("{}{}", switched(&switch), tokens()));
    desk.start();
    desk.until("readiness", |d| d.ask("GET", "/-/ready", &[], "").is_some_and(|a| a.0 == 200));
    // Nobody, and somebody with a token that is none.
    for token in [None, Some("token-of-nobody".to_owned()), Some(String::new())] {
        desk.token = token;
        for (method, path) in
            [("GET", "/"), ("GET", "/incidents"), ("GET", "/api/v1/incidents"), ("POST", "/-/reload"), ("POST", "/api/v1/incidents/x/note")]
        {
            let (status, head, _) = desk.ask(method, path, &[("content-type", "application/json")], "{}").unwrap();
            assert!(status == 401 && head.to_ascii_lowercase().contains("www-authenticate:"), "{method} {path}: {head}");
        }
        for path in ["/-/healthy", "/-/ready", "/metrics"] {
            assert_eq!(desk.ask("GET", path, &[], "").unwrap().0, 200, "{path}");
        }
    }
    as_(&mut desk, "vera");
    let id = desk.incident("assistant");
    let note = format!("/api/v1/incidents/{id}/note");
    let (ack, approve, reload) = (format!("/api/v1/incidents/{id}/acknowledge"), format!("/api/v1/incidents/{id}/approve"), "/-/reload".to_owned());
    desk.until_step(&id, "safe_default", "planned");
    let hash = desk.step(&id, "safe_default")["plan"]["hash"].clone();
    let approval = json!({"by": "somebody else", "step": "safe_default", "plan": hash});
    // (who, route, body, expected): the role that a step needs is asked for by the runbook, which answers 409 and not 403.
    let rows = [
        ("vera", &note, json!({"text": "x"}), 403),
        ("vera", &approve, approval.clone(), 403),
        ("vera", &reload, Value::Null, 403),
        ("rene", &note, json!({"text": "looking", "by": "mallory"}), 200),
        ("rene", &ack, json!({}), 200),
        ("rene", &approve, approval.clone(), 409),
        ("rene", &reload, Value::Null, 403),
        ("anna", &reload, Value::Null, 403),
        ("anna", &approve, approval.clone(), 200),
        ("adam", &reload, Value::Null, 200),
    ];
    for (who, path, body, expected) in rows {
        as_(&mut desk, who);
        let (status, answer) = desk.post(path, &body);
        assert_eq!(status, expected, "{who} {path}: {answer}");
    }
    let step = desk.until_step(&id, "safe_default", "done");
    assert_eq!(step["approvals"][0]["by"], "anna", "the token says who it was, not the request");
    assert_eq!(switch.calls("apply").len(), 1);
    // A write from another site is refused with any token.
    as_(&mut desk, "adam");
    assert_eq!(
        desk.ask("POST", &note, &[("content-type", "application/json"), ("origin", "http://evil.example")], "{\"text\":\"x\"}").unwrap().0,
        403
    );

    let (code, out, err) = cli(&desk, &["audit", "list", "-o", "jsonl"]);
    assert_eq!(code, Some(0), "{err}");
    let rows: Vec<Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let has = |who: &str, what: &str, piece: &str| {
        let fits = |r: &&Value| r["who"] == who && r["what"] == what && format!("{} {}", r["subject"], r["detail"]).contains(piece);
        assert!(rows.iter().any(|r| fits(&r)), "no row {who} {what} {piece}:\n{out}");
    };
    has("rene", "POST asked", "/note");
    has("rene", "POST answered 200", "looking");
    has("rene", "POST answered 409", "/approve");
    has("anna", "POST answered 200", hash.as_str().unwrap());
    has("adam", "POST answered 200", "/-/reload");
    has("bellwether for anna", "action apply begun", "mode=safe");
    has("bellwether for anna", "action apply answered", "done");
    assert!(rows.iter().all(|r| r["who"] != "vera" && r["who"] != "mallory"), "who may not write writes nothing:\n{out}");
    assert!(!out.contains("token-of") && !out.contains("sesame"), "{out}");
}

#[test]
fn a_tampered_row_of_the_audit_is_found() {
    let mut desk = Desk::new("runbooks: [{category: bias, severity: 1, owner: a, fallback: b, steps: [{do: reroute, say: c}]}]\n", "");
    desk.start();
    let id = desk.incident("assistant");
    for text in ["one", "two", "three"] {
        assert_eq!(desk.act(&id, "note", json!({"by": "ana", "text": text})).0, 200);
    }
    desk.kill();
    drop(Store::open(&desk.data()).unwrap());
    let (code, out, err) = cli(&desk, &["audit", "verify", "-o", "json"]);
    assert_eq!(code, Some(0), "{out}{err}");
    let proof: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((proof["rows"].as_i64(), &proof["broken"]), (Some(6), &Value::Null));
    let seal = proof["seal"].as_str().unwrap().to_owned();
    assert_eq!(cli(&desk, &["audit", "verify", "--seal", &seal]).0, Some(0));

    let c = rusqlite::Connection::open(desk.data().join(FILE)).unwrap();
    assert!(c.execute("UPDATE audit SET who = 'bob' WHERE seq = 4", []).is_err(), "the database itself refuses");
    c.execute_batch("DROP TRIGGER audit_is_not_changed; UPDATE audit SET detail = replace(detail, 'two', 'TWO') WHERE seq = 4;").unwrap();
    drop(c);
    let (code, _, err) = cli(&desk, &["audit", "verify"]);
    assert!(code == Some(1) && err.contains("broken at row 4"), "{code:?} {err}");
    // Whoever writes the whole chain anew cannot bring back a seal that was noted.
    assert_eq!(cli(&desk, &["audit", "verify", "--seal", "00"]).0, Some(1));
}

#[test]
fn severity_one_tells_leadership_and_legal_at_once_and_climbs_until_somebody_acknowledges() {
    let switch = Switch::start();
    switch.set("live", Manner::Well);
    let oracle = Oracle::start();
    let hook = |name: &str| format!("  {name}: {{type: webhook, url: \"{}/hooks/{name}\"}}\n", oracle.url);
    let receivers: String = ["oncall", "second", "third", "boss", "law"].map(hook).concat();
    let more = format!(
        "{}receivers:\n{receivers}routes: [{{to: [oncall]}}]\npeople: {{leadership: [boss], legal: [law]}}\nmodels: {{assistant: {{exposure: [eu]}}}}\n\
         escalation: {{levels: [{{after: 2s, to: [second]}}, {{after: 4s, to: [third]}}, {{after: 1h, to: [law]}}], clocks: [ai_act_15d]}}\n",
        switched(&switch)
    );
    let mut desk = Desk::new(RUNBOOK, &more);
    desk.start();
    let id = desk.incident("assistant");
    let told = |name: &str| {
        let path = format!("/hooks/{name}");
        oracle
            .requests()
            .iter()
            .filter(|r| r.path == path && r.json()["data"]["incident"]["id"] == id.as_str())
            .map(|r| r.json()["type"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    desk.until("everybody at once", |_| ["oncall", "boss", "law"].iter().all(|n| told(n).first().is_some_and(|t| t == "incident.opened")));
    assert!(told("second").is_empty() || told("oncall").len() < 3);
    desk.until("the second level", |_| told("second").contains(&"incident.escalated".to_owned()));
    desk.until("the third level", |_| told("third").contains(&"incident.escalated".to_owned()));
    let page = desk.get(&format!("/api/v1/incidents/{id}"));
    assert!(page["incident"]["page_reason"].as_str().unwrap().contains("level 2"), "{}", page["incident"]["page_reason"]);
    assert!(page["incident"]["response"]["timers"].as_array().unwrap().iter().any(|t| t["what"]["legal"]["name"] == "ai_act_15d"));
    assert_eq!(desk.act(&id, "acknowledge", json!({"by": "ana"})).0, 200);
    let page = desk.get(&format!("/api/v1/incidents/{id}"));
    let left = page["incident"]["response"]["timers"].as_array().unwrap().iter().filter(|t| t["what"].get("escalate").is_some()).count();
    assert_eq!(left, 0, "nobody else is called");
    // Killed and started again, it does not call anybody a second time.
    let calls = |name: &str| told(name).into_iter().filter(|t| t == "incident.opened" || t == "incident.escalated").count();
    let before = (calls("second"), calls("third"), calls("boss"));
    desk.kill();
    desk.start();
    desk.incident("assistant");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((calls("second"), calls("third"), calls("boss")), before);
    let (_, _, html) = desk.ask("GET", &format!("/incidents/{id}"), &[], "").unwrap();
    assert!(html.contains("ai_act_15d") && html.contains("no legal advice"));
}
