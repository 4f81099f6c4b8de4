//! Actions through the front door: an incident opens, its plan appears, a person approves, exactly one call changes the world, it is
//! read back and undone; and what happens when answers are lost, the world moves, two people press at once, and the daemon is killed.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const PATIENCE: Duration = Duration::from_secs(60);

// === the other side ===

/// How the switch behaves when it is asked to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Well,
    /// Does it, and cuts the line before the answer.
    LosesTheAnswer,
    /// Somebody else was quicker.
    Moved,
    /// Waits so long before it answers; it has done it by then.
    Slow(u64),
    /// Promises, and says at an address of its own how far it is: done at the second question.
    Promises,
    /// Promises, and will say so by itself.
    WillTell,
}

#[derive(Debug)]
struct Inside {
    mode: String,
    manner: Manner,
    calls: Vec<Called>,
    promised: String,
    /// Questions about what was promised, and whether each was signed.
    questions: Vec<bool>,
}

/// One request to the switch.
#[derive(Clone, Debug)]
pub struct Called {
    pub mode: String,
    pub body: Value,
    pub key: String,
    pub signed: bool,
}

/// A team's own switch behind a webhook, with the mode of a model behind it.
#[derive(Clone)]
pub struct Switch {
    pub url: String,
    inside: Arc<Mutex<Inside>>,
}

impl Switch {
    pub fn start() -> Switch {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/switch", listener.local_addr().unwrap());
        let inside =
            Arc::new(Mutex::new(Inside { mode: "live".to_owned(), manner: Manner::Well, calls: vec![], promised: String::new(), questions: vec![] }));
        let switch = Switch { url, inside };
        let this = switch.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let this = this.clone();
                std::thread::spawn(move || this.serve(stream));
            }
        });
        switch
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some((head, body)) = request(&stream) else { return };
        let headers = |name: &str| {
            head.iter().find_map(|l| l.to_ascii_lowercase().starts_with(&format!("{name}:")).then(|| l.split_once(':').unwrap().1.trim().to_owned()))
        };
        let (id, at, signature) =
            (headers("webhook-id").unwrap_or_default(), headers("webhook-timestamp").unwrap_or_default(), headers("webhook-signature"));
        let ours = standardwebhooks::Webhook::new(SECRET).unwrap().sign(&id, at.parse().unwrap_or(0), &body).unwrap();
        if head.first().is_some_and(|l| l.starts_with("GET /status/")) {
            let mut inside = self.inside.lock().unwrap();
            inside.questions.push(signature.as_deref() == Some(&ours));
            let is_done = inside.questions.len() > 1;
            if is_done {
                inside.mode = inside.promised.clone();
            }
            let answer = json!({"status": if is_done { "done" } else { "accepted" }, "message": "on its way"}).to_string();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len());
            return;
        }
        let json: Value = serde_json::from_slice(&body).unwrap_or_default();
        let action = &json["data"]["action"];
        let asked = action["mode"].as_str().unwrap_or_default().to_owned();
        let (manner, answer) = {
            let mut inside = self.inside.lock().unwrap();
            let key = headers("idempotency-key").unwrap_or_default();
            inside.calls.push(Called { mode: asked.clone(), body: json.clone(), key, signed: signature.as_deref() == Some(&ours) });
            let manner = if asked == "dry_run" { Manner::Well } else { inside.manner };
            if matches!(manner, Manner::Promises | Manner::WillTell) {
                inside.promised = action["parameters"]["mode"].as_str().unwrap_or_default().to_owned();
            } else if manner != Manner::Moved {
                match asked.as_str() {
                    "apply" => inside.mode = action["parameters"]["mode"].as_str().unwrap_or_default().to_owned(),
                    "undo" => inside.mode = action["undo"]["mode"].as_str().unwrap_or("?").to_owned(),
                    _ => {}
                }
            }
            let now = inside.mode.clone();
            let promise = match manner {
                Manner::Promises => Some(json!({"status": "accepted", "status_url": "/status/1", "message": "soon"})),
                Manner::WillTell => Some(json!({"status": "accepted"})),
                _ => None,
            };
            let (manner, promised) = if promise.is_some() { (Manner::Well, promise) } else { (manner, None) };
            // With its mode goes whatever was set with it.
            let is_set = action["parameters"]["mode"] == now.as_str();
            let observed = if is_set { action["parameters"].clone() } else { json!({"mode": now}) };
            let said = json!({"status": "done", "observed": observed, "undo": {"mode": now}, "message": format!("the mode is {now}")});
            (manner, promised.unwrap_or(said))
        };
        match manner {
            Manner::LosesTheAnswer => return,
            Manner::Moved => {
                let _ = write!(stream, "HTTP/1.1 409 Conflict\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                return;
            }
            Manner::Slow(ms) => std::thread::sleep(Duration::from_millis(ms)),
            Manner::Well | Manner::Promises | Manner::WillTell => {}
        }
        let answer = answer.to_string();
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
            answer.len()
        );
    }

    pub fn calls(&self, mode: &str) -> Vec<Called> {
        self.inside.lock().unwrap().calls.iter().filter(|c| c.mode == mode).cloned().collect()
    }

    pub fn mode(&self) -> String {
        self.inside.lock().unwrap().mode.clone()
    }

    pub fn set(&self, mode: &str, manner: Manner) {
        let mut inside = self.inside.lock().unwrap();
        inside.mode = mode.to_owned();
        inside.manner = manner;
    }
}

/// Head lines and body of a request; none if it was cut off before its end: whoever was asking is dead, and has asked nothing.
pub fn request(stream: &TcpStream) -> Option<(Vec<String>, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|_| line.ends_with('\n'))?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
        head.push(line.trim_end().to_owned());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

// === the daemon ===

/// A daemon over one file of events: a confirmed harm of `assistant` half an hour ago, and a secret given away by `scribe`.
pub struct Desk {
    pub folder: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
    pub token: Option<String>,
}

pub fn events(folder: &Path) -> PathBuf {
    let now = bellwether::daemon::now();
    let mut out = String::new();
    for i in 0..400i64 {
        let at = now.plus_ms(-30 * 60_000 + i * 1_000).rfc3339();
        for model in ["assistant", "scribe"] {
            out.push_str(&format!(
                "{{\"kind\":\"prediction\",\"id\":\"{model}-{i}\",\"time\":\"{at}\",\"model\":\"{model}\",\"environment\":\"prod\",\"version\":\"7\",\"latency_ms\":90"
            ));
            if i == 200 {
                let flag = if model == "assistant" { "harmful" } else { "leak" };
                out.push_str(&format!(",\"flags\":{{\"{flag}\":\"confirmed\"}}"));
            }
            out.push_str("}\n");
        }
    }
    let file = folder.join("events.ndjson");
    std::fs::write(&file, out).unwrap();
    file
}

impl Desk {
    /// Not started. `runbooks` is the text of the user's file of runbooks; `more` goes into the configuration.
    pub fn new(runbooks: &str, more: &str) -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).unwrap().port();
        let events = events(folder.path());
        std::fs::create_dir(folder.path().join("runbooks")).unwrap();
        std::fs::write(folder.path().join("runbooks/ours.yaml"), runbooks).unwrap();
        let desk = Desk { folder, port, child: None, token: None };
        desk.configure(&format!(
            "files: [\"{}\"]\npane: 10s\nlateness: 1s\nlisten: 127.0.0.1:{port}\nrunbooks: [runbooks]\n{more}",
            events.display()
        ));
        desk
    }

    pub fn configure(&self, yaml: &str) {
        std::fs::write(self.folder.path().join("bellwether.yaml"), yaml).unwrap();
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn start(&mut self) {
        let folder = self.folder.path();
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            .args(["run", "--log-format", "json", "--config"])
            .arg(folder.join("bellwether.yaml"))
            .arg("--data-dir")
            .arg(folder.join("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.until("an answer", |d| d.ask("GET", "/-/healthy", &[], "").is_some_and(|a| a.0 == 200));
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn until(&self, what: &str, mut is_so: impl FnMut(&Desk) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < until, "no {what} within {PATIENCE:?}\n{}", self.log_tail());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Status, head and body.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<(u16, String, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\ncontent-length: {}\r\n", self.port, body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(token) = &self.token {
            head.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, head.to_owned(), body.to_owned()))
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, _, text) = self.ask("POST", path, &[("content-type", "application/json")], &body.to_string()).expect("an answer");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub fn get(&self, path: &str) -> Value {
        let (_, _, text) = self.ask("GET", path, &[], "").expect("an answer");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The id of the incident of this model.
    pub fn incident(&self, model: &str) -> String {
        let mut id = None;
        self.until("incident", |d| {
            let all = d.get("/api/v1/incidents");
            id = all["data"].as_array().into_iter().flatten().find(|i| i["key"]["model"] == model).and_then(|i| i["id"].as_str().map(str::to_owned));
            id.is_some()
        });
        id.unwrap()
    }

    pub fn step(&self, incident: &str, step: &str) -> Value {
        let page = self.get(&format!("/api/v1/incidents/{incident}"));
        page["incident"]["response"]["steps"].as_array().into_iter().flatten().find(|s| s["id"] == step).cloned().unwrap_or_default()
    }

    /// Waits until the step is in this state.
    pub fn until_step(&self, incident: &str, step: &str, state: &str) -> Value {
        let mut last = Value::Null;
        self.until(&format!("{step} {state}"), |d| {
            last = d.step(incident, step);
            last["state"] == state
        });
        last
    }

    pub fn act(&self, incident: &str, verb: &str, body: Value) -> (u16, Value) {
        // Just after a kill it is said that one should ask again: what was read before has to be reached first.
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let (status, answer) = self.post(&format!("/api/v1/incidents/{incident}/{verb}"), &body);
            if status != 503 || Instant::now() > until {
                return (status, answer);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn approve(&self, incident: &str, step: &str, by: &str) -> (u16, Value) {
        let plan = self.step(incident, step)["plan"]["hash"].clone();
        self.act(incident, "approve", json!({"by": by, "step": step, "plan": plan}))
    }

    /// What the timeline says, in order.
    pub fn timeline(&self, incident: &str) -> Vec<String> {
        let page = self.get(&format!("/api/v1/incidents/{incident}"));
        page["timeline"].as_array().into_iter().flatten().map(|t| t["what"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log_tail());
        }
    }
}

fn runbook(step: &str) -> String {
    format!(
        "runbooks:\n  - category: harmful_output\n    severity: 1\n    models: [assistant]\n    owner: on-call of {{model}}\n    fallback: stop the deployment\n    steps:\n{step}\n      - {{do: page, say: the routes page}}\n"
    )
}

const OFF: &str = "      - do: safe_default\n        say: let {model} answer with the safe default\n        action: {use: switch, target: assistant, set: {mode: safe}}";

fn switched(switch: &Switch) -> String {
    format!("actions:\n  switch: {{type: webhook, url: \"{}\", secret: {SECRET}, targets: [assistant, scribe]}}\n", switch.url)
}

// === tests ===

#[test]
fn an_action_is_planned_approved_applied_once_verified_and_undone() {
    let switch = Switch::start();
    let mut desk = Desk::new(&runbook(OFF), &switched(&switch));
    desk.start();
    let id = desk.incident("assistant");
    let step = desk.until_step(&id, "safe_default", "planned");
    assert!(step["plan"]["change"].as_str().unwrap().contains("mode=safe"), "{step}");
    assert_eq!((switch.calls("apply").len(), switch.mode()), (0, "live".to_owned()), "a plan changes nothing");
    // The page shows the one action, its plan, who must approve, and a button.
    let (status, _, page) = desk.ask("GET", &format!("/incidents/{id}"), &[], "").unwrap();
    assert_eq!(status, 200);
    let hash = step["plan"]["hash"].as_str().unwrap();
    for piece in
        ["let assistant answer with the safe default", "one person with the role approver", "Approve and carry out", hash, "on-call of assistant"]
    {
        assert!(page.contains(piece), "{piece:?} is not on the page");
    }
    // Another plan's hash opens nothing.
    let (status, answer) = desk.act(&id, "approve", json!({"by": "ana", "step": "safe_default", "plan": "0123"}));
    assert!(status == 409 && answer["detail"].as_str().unwrap().contains(hash), "{status} {answer}");
    assert_eq!(desk.act(&id, "approve", json!({"by": "ana", "step": "safe_default"})).0, 422, "a plan must be named");

    let (status, answer) = desk.approve(&id, "safe_default", "ana");
    assert_eq!(status, 200, "{answer}");
    desk.until_step(&id, "safe_default", "done");
    let applied = switch.calls("apply");
    assert_eq!((applied.len(), switch.mode().as_str()), (1, "safe"));
    assert!(switch.inside.lock().unwrap().calls.iter().all(|c| c.signed), "every call is signed");
    let body = &applied[0].body["data"];
    assert_eq!(body["approved_by"], json!(["ana"]));
    assert_eq!((&body["action"]["plan_hash"], &body["action"]["target"]), (&json!(hash), &json!("assistant")));
    assert_eq!((&body["incident"]["id"], &body["incident"]["severity"]), (&json!(id), &json!(1)));
    assert_eq!(applied[0].key, body["action"]["idempotency_key"].as_str().unwrap());

    let (status, answer) = desk.act(&id, "undo", json!({"by": "ben"}));
    assert_eq!(status, 200, "{answer}");
    desk.until_step(&id, "safe_default", "undone");
    assert_eq!((switch.mode().as_str(), switch.calls("undo").len(), switch.calls("apply").len()), ("live", 1, 1));
    let words = desk.timeline(&id);
    let actions: Vec<&str> = words.iter().filter_map(|w| w.strip_prefix("action_")).collect();
    assert_eq!(actions, ["planned", "approved", "applied", "verified", "undoing", "undo_applied", "undone"]);
}

#[test]
fn f40_a_lost_answer_is_unknown_and_never_sent_again_by_itself() {
    let switch = Switch::start();
    let mut desk = Desk::new(&runbook(OFF), &switched(&switch));
    desk.start();
    let id = desk.incident("assistant");
    desk.until_step(&id, "safe_default", "planned");
    switch.set("live", Manner::LosesTheAnswer);
    assert_eq!(desk.approve(&id, "safe_default", "ana").0, 200);
    let mut step = desk.until_step(&id, "safe_default", "unknown");
    desk.until("a look back", |d| {
        step = d.step(&id, "safe_default");
        step["words"].as_str().unwrap().contains("read back")
    });
    assert!(step["words"].as_str().unwrap().contains("it is as wanted"), "{step}");
    assert_eq!((step["state"].as_str(), switch.calls("apply").len()), (Some("unknown"), 1));
    // Nor after a kill, which reads everything again.
    desk.kill();
    desk.start();
    let id_again = desk.incident("assistant");
    assert_eq!(id_again, id);
    assert_eq!(desk.until_step(&id, "safe_default", "unknown")["applied"].as_array().map(Vec::len), Some(1));
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(switch.calls("apply").len(), 1);
    // The target is held until a person has looked.
    let (status, answer) = desk.act(&id, "done", json!({"by": "ana", "step": "safe_default", "why": "looked: it is in safe mode"}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(desk.step(&id, "safe_default")["state"], "done");
}

#[test]
fn f02_killed_between_the_call_and_its_answer_it_calls_once() {
    let switch = Switch::start();
    let mut desk = Desk::new(&runbook(OFF), &switched(&switch));
    desk.start();
    let id = desk.incident("assistant");
    desk.until_step(&id, "safe_default", "planned");
    switch.set("live", Manner::Slow(3_000));
    assert_eq!(desk.approve(&id, "safe_default", "ana").0, 200);
    desk.until("the call", |_| switch.calls("apply").len() == 1);
    desk.kill();
    switch.set("safe", Manner::Well);
    desk.start();
    let step = desk.until_step(&id, "safe_default", "unknown");
    assert!(step["approvals"].as_array().is_some_and(|a| a.len() == 1), "{step}");
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(switch.calls("apply").len(), 1, "at most once");
    // Killed again and again while it knows nothing: still once.
    for _ in 0..2 {
        desk.kill();
        desk.start();
        desk.until_step(&id, "safe_default", "unknown");
    }
    assert_eq!(switch.calls("apply").len(), 1);
}

#[test]
fn when_the_world_has_moved_nothing_is_changed_and_it_is_planned_again() {
    let switch = Switch::start();
    let mut desk = Desk::new(&runbook(OFF), &switched(&switch));
    desk.start();
    let id = desk.incident("assistant");
    desk.until_step(&id, "safe_default", "planned");
    switch.set("live", Manner::Moved);
    assert_eq!(desk.approve(&id, "safe_default", "ana").0, 200);
    desk.until_step(&id, "safe_default", "moved");
    assert_eq!(desk.approve(&id, "safe_default", "ana").0, 409, "the old plan is worth nothing");
    switch.set("half", Manner::Well);
    assert_eq!(desk.act(&id, "plan", json!({"by": "ana", "step": "safe_default"})).0, 200);
    let step = desk.until_step(&id, "safe_default", "planned");
    assert!(step["plan"]["change"].as_str().unwrap().contains("half"), "{step}");
    assert_eq!(desk.approve(&id, "safe_default", "ana").0, 200);
    desk.until_step(&id, "safe_default", "done");
    assert_eq!(switch.mode(), "safe");
}

#[test]
fn f41_two_people_at_once_are_one_execution_and_two_are_needed_where_asked() {
    let switch = Switch::start();
    let mut desk = Desk::new(&runbook(OFF), &format!("{}approval: {{two_people: true}}\n", switched(&switch)));
    desk.start();
    let id = desk.incident("assistant");
    desk.until_step(&id, "safe_default", "planned");
    assert_eq!(desk.approve(&id, "safe_default", "ana").0, 200);
    assert_eq!(desk.step(&id, "safe_default")["state"], "planned", "one of two");
    let (status, answer) = desk.approve(&id, "safe_default", "ana");
    assert!(status == 409 && answer["detail"].as_str().unwrap().contains("second person"), "{answer}");
    assert_eq!(switch.calls("apply").len(), 0);
    // Several press at the same moment.
    let statuses: Vec<u16> = std::thread::scope(|s| {
        let all: Vec<_> = ["ben", "cem", "dag"]
            .map(|by| {
                s.spawn({
                    let (desk, id) = (&desk, &id);
                    move || desk.approve(id, "safe_default", by).0
                })
            })
            .into();
        all.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 1, "{statuses:?}");
    desk.until_step(&id, "safe_default", "done");
    assert_eq!(switch.calls("apply").len(), 1);
    assert_eq!(switch.calls("apply")[0].body["data"]["approved_by"].as_array().map(Vec::len), Some(2));
}

#[test]
fn severity_one_may_act_by_itself_only_where_the_runbook_says_so_and_it_can_be_undone() {
    let switch = Switch::start();
    let step = format!("{OFF}\n        automatic: true");
    let mut desk = Desk::new(&runbook(&step), &switched(&switch));
    desk.start();
    let id = desk.incident("assistant");
    desk.until_step(&id, "safe_default", "done");
    assert_eq!((switch.mode().as_str(), switch.calls("apply").len()), ("safe", 1));
    assert_eq!(switch.calls("apply")[0].body["data"]["approved_by"], json!(["runbook"]));
    desk.kill();
    desk.start();
    desk.until_step(&id, "safe_default", "done");
    assert_eq!(switch.calls("apply").len(), 1, "a replay acts on nothing");
}

#[test]
fn a_flag_of_flagd_is_switched_and_put_back() {
    let switch = Switch::start();
    let step = "      - do: take_offline\n        say: switch the flag\n        action: {use: flags, target: \"{model}-mode\", set: {variant: safe}}";
    let mut desk =
        Desk::new(&runbook(step), &format!("{}  flags: {{type: flagd, file: flags.json, targets: [assistant-mode]}}\n", switched(&switch)));
    let file = desk.folder.path().join("flags.json");
    let flags =
        "{\"flags\": {\"assistant-mode\": {\"state\": \"ENABLED\", \"variants\": {\"full\": 1, \"safe\": 2}, \"defaultVariant\": \"full\"}}}\n";
    std::fs::write(&file, flags).unwrap();
    desk.start();
    let id = desk.incident("assistant");
    let step = desk.until_step(&id, "take_offline", "planned");
    assert_eq!(step["plan"]["change"], "assistant-mode: default variant full -> safe");
    assert_eq!(desk.approve(&id, "take_offline", "ana").0, 200);
    desk.until_step(&id, "take_offline", "done");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), flags.replace(": \"full\"", ": \"safe\""));
    assert_eq!(desk.act(&id, "undo", json!({"by": "ana", "step": "take_offline"})).0, 200);
    desk.until_step(&id, "take_offline", "undone");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), flags);
}

#[test]
fn without_runbooks_of_ones_own_every_incident_has_steps_and_a_fallback() {
    let mut desk = Desk::new(&runbook("      - {do: take_offline, say: by hand}"), "");
    desk.start();
    let id = desk.incident("scribe");
    let page = desk.get(&format!("/api/v1/incidents/{id}"));
    let response = &page["incident"]["response"];
    assert!(response["runbook"].as_str().unwrap().starts_with("built-in data_breach.yaml"), "{response}");
    assert!(response["fallback"].as_str().is_some_and(|f| !f.is_empty()));
    assert!(response["drafts"].as_array().is_some_and(|d| !d.is_empty() && !d[0]["text"].as_str().unwrap().contains('{')), "{response}");
    let (status, answer) = desk.act(&id, "approve", json!({"by": "ana", "plan": "x"}));
    assert_eq!(status, 409, "{answer}");
    assert_eq!(desk.act(&id, "done", json!({"by": "ana", "step": "investigate"})).0, 200);
    assert_eq!(desk.step(&id, "investigate")["state"], "done");
}

#[test]
fn what_was_accepted_is_asked_about_until_it_is_done() {
    let switch = Switch::start();
    let mut desk = Desk::new(&runbook(OFF), &switched(&switch));
    desk.start();
    let id = desk.incident("assistant");
    desk.until_step(&id, "safe_default", "planned");
    switch.set("live", Manner::Promises);
    assert_eq!(desk.approve(&id, "safe_default", "ana").0, 200);
    let step = desk.until_step(&id, "safe_default", "done");
    assert!(step["words"].as_str().unwrap().contains("safe"), "{step}");
    let inside = switch.inside.lock().unwrap();
    assert_eq!((inside.mode.as_str(), inside.questions.as_slice()), ("safe", &[true, true][..]), "asked twice, signed both times");
    assert_eq!(inside.calls.iter().filter(|c| c.mode == "apply").count(), 1, "and called once");
}

#[test]
fn whoever_accepted_may_bring_the_result_and_only_he() {
    let switch = Switch::start();
    let mut desk = Desk::new(&runbook(OFF), &switched(&switch));
    desk.start();
    let id = desk.incident("assistant");
    desk.until_step(&id, "safe_default", "planned");
    switch.set("live", Manner::WillTell);
    assert_eq!(desk.approve(&id, "safe_default", "ana").0, 200);
    desk.until("the call", |_| switch.calls("apply").len() == 1);
    let key = switch.calls("apply")[0].key.clone();
    let body = json!({"status": "failed", "message": "half of it stuck"}).to_string();
    let bring = |action: &str, secret: &str, seconds: i64| {
        let at = bellwether::daemon::now().0 / 1_000 + seconds;
        let signature = standardwebhooks::Webhook::new(secret).unwrap().sign("msg_1", at, body.as_bytes()).unwrap();
        let at = at.to_string();
        let headers = [("webhook-id", "msg_1"), ("webhook-timestamp", at.as_str()), ("webhook-signature", signature.as_str())];
        desk.ask("POST", &format!("/api/v1/actions/{action}/result"), &headers, &body).unwrap().0
    };
    let other = "whsec_BBECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    assert_eq!((bring(&key, other, 0), bring(&key, SECRET, -3_600), bring("no-such-call", SECRET, 0)), (401, 401, 401));
    assert_eq!(desk.step(&id, "safe_default")["state"], "applying", "a promise is not a deed");
    // It had begun, so nobody may say that nothing was changed.
    assert_eq!(bring(&key, SECRET, 0), 202);
    let step = desk.until_step(&id, "safe_default", "unknown");
    desk.until("a look back", |d| d.step(&id, "safe_default")["words"].as_str().is_some_and(|w| w.contains("read back")));
    assert!(
        step["words"].as_str().unwrap().contains("accepted, then failed: half of it stuck") || step["words"].as_str().unwrap().contains("read back"),
        "{step}"
    );
    assert_eq!(switch.calls("apply").len(), 1);
    assert_eq!(bring(&key, SECRET, 0), 401, "nobody waits for it any more");
}
