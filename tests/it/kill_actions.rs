//! Kills, once more: receivers that keep alerts and tickets, and actions that change the world.
//!
//! The long form, two hundred runs, is `cargo test --test it kill_actions::two_hundred -- --ignored --nocapture`; four of them belong to
//! the gate. `BELLWETHER_RUNS=N` and `BELLWETHER_SEED=S` ask for other runs: the failing seed is printed and repeats the run as far as
//! the machine's own timing allows.
//!
//! A run is one life of two incidents. `assistant` has done confirmed harm: a person (or two) approves the runbook's action, looks
//! when nobody knows what came of it, takes it back or leaves it, and resolves. `scribe` has given a secret away: the runbook acts by
//! itself, and takes it back when the incident has recovered by evidence. Everything outside is a strict server of these tests that
//! remembers: a switch that knows every call by its key and answers late, badly or never, a pager, an Alertmanager, a webhook, a
//! tracker. The daemon is killed with -9 two to five times: at the n-th request of some kind, before it is acted on or after, while
//! an approval is on its way, or at any moment. Whoever asks it repeats himself, under the same key, until he has a definite answer.
//!
//! What must be so in the end is asked of the servers, not of the daemon alone: see [`Yard::judge`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bellwether::daemon::now;
use bellwether::domain::Time;
use bellwether::fleet::Chance;
use bellwether::source::embedded::{Outgoing, Producer};
use serde_json::{Value, json};

use crate::actions::request;
use crate::broker::{Broker, unique};
use crate::daemon::{KEPT, ROUTING_KEY};
use crate::oracle::{AlertState, Fault, Oracle};
use crate::vendors::TOKEN;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const MODELS: [&str; 2] = ["assistant", "scribe"];
/// A run in which nothing has moved for so long hangs.
const PATIENCE: Duration = Duration::from_secs(90);
/// And one that moves and comes to no end turns in circles.
const WHOLE_MAX: Duration = Duration::from_secs(600);
/// Between two looks, more than this does not count: on a machine that was stopped, nobody has waited.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// A moment that does not come is any moment.
const MOMENT_MAX: Duration = Duration::from_millis(1_500);
/// Runs at the same time: they mostly wait.
const AT_ONCE: usize = 4;
/// Every so many runs of the long form, real Kafka.
const KAFKA_EVERY: u64 = 25;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long somebody has waited while the machine ran.
struct Waited {
    last: Instant,
    /// Since something moved.
    idle: Duration,
    whole: Duration,
}

impl Waited {
    fn begin() -> Waited {
        Waited { last: Instant::now(), idle: Duration::ZERO, whole: Duration::ZERO }
    }

    fn something_moved(&mut self) {
        self.idle = Duration::ZERO;
    }

    fn is_too_long(&mut self) -> bool {
        let one = self.last.elapsed().min(LOOK_MAX);
        (self.idle, self.whole, self.last) = (self.idle + one, self.whole + one, Instant::now());
        self.idle > PATIENCE || self.whole > WHOLE_MAX
    }
}

// === who dies ===

/// When the process is to be killed.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Of which kind of request; none: at any moment.
    at: &'static str,
    nth: u64,
    /// Acted on, not answered yet.
    is_after: bool,
    delay_us: u64,
}

/// The process, and whoever may kill it.
#[derive(Default)]
struct Victim {
    child: Mutex<Option<Child>>,
    moment: Mutex<Option<Moment>>,
}

impl Victim {
    fn kill(&self) {
        if let Some(mut child) = lock(&self.child).take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn is_dead(&self) -> bool {
        lock(&self.child).is_none()
    }

    /// It is there to be killed, and nobody has.
    fn ended_by_itself(&self) -> Option<ExitStatus> {
        lock(&self.child).as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Something is asked of somebody outside; `is_after`: it has been acted on.
    fn seen(self: &Arc<Victim>, what: &str, is_after: bool) {
        let mut moment = lock(&self.moment);
        let Some(m) = moment.as_mut().filter(|m| m.at == what && m.is_after == is_after) else { return };
        m.nth = m.nth.saturating_sub(1);
        if m.nth > 0 {
            return;
        }
        let (delay, this) = (Duration::from_micros(m.delay_us), Arc::clone(self));
        *moment = None;
        drop(moment);
        if delay.is_zero() {
            return this.kill();
        }
        thread::spawn(move || {
            thread::sleep(delay);
            this.kill();
        });
    }
}

// === the switch ===

/// What the switch does with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Well,
    Slow(u64),
    /// Done, and the line is cut before the answer.
    LosesTheAnswer,
    /// Not done, and a server's error.
    Fails,
    /// Done, and a server's error.
    FailsAfter,
    /// Done, and no answer before the end of the disturbance.
    Hangs,
    Busy,
    Refuses,
    /// Somebody else was quicker.
    Moved,
    /// Accepted: it is done so many milliseconds later.
    Promises(u64),
}

/// A change as the switch knows it.
#[derive(Clone, Debug)]
struct Change {
    key: String,
    target: String,
    is_undo: bool,
    plan: String,
    /// It changed something (or will): what repeats a key never does.
    took: bool,
}

#[derive(Default)]
struct Board {
    /// By target.
    modes: BTreeMap<String, String>,
    /// Promised and not done yet, by target.
    coming: BTreeMap<String, u32>,
    calls: Vec<Change>,
    /// Keys that were answered, and what: the same key gets the same answer and changes nothing.
    answered: BTreeMap<String, Value>,
    looks: u32,
    replays: u32,
    problems: Vec<String>,
    asked: u64,
}

/// The strict one: a key is honoured once, whatever else goes wrong.
struct Switch {
    url: String,
    board: Mutex<Board>,
    victim: Arc<Victim>,
    seed: u64,
    is_calm: AtomicBool,
}

impl Switch {
    fn start(seed: u64, victim: Arc<Victim>) -> Arc<Switch> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let modes = MODELS.iter().map(|m| ((*m).to_owned(), "live".to_owned())).collect();
        let board = Mutex::new(Board { modes, ..Board::default() });
        let switch = Arc::new(Switch { url, board, victim, seed, is_calm: AtomicBool::new(false) });
        let this = Arc::downgrade(&switch);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(this) = this.upgrade() else { return };
                thread::spawn(move || this.serve(stream));
            }
        });
        switch
    }

    fn mode(&self, target: &str) -> String {
        lock(&self.board).modes.get(target).cloned().unwrap_or_default()
    }

    fn is_coming(&self, target: &str) -> bool {
        lock(&self.board).coming.get(target).is_some_and(|n| *n > 0)
    }

    /// A person's own hand.
    fn set(&self, target: &str, mode: &str) {
        lock(&self.board).modes.insert(target.to_owned(), mode.to_owned());
    }

    fn fate(&self, asked: u64, mode: &str) -> Fate {
        if self.is_calm.load(Ordering::Relaxed) {
            return Fate::Well;
        }
        let mut chance = Chance::keyed(self.seed, 1_000 + asked);
        match (mode, chance.below(20)) {
            ("dry_run", 0..=1) => Fate::Slow(50 + chance.below(400)),
            ("dry_run", 2) => Fate::Fails,
            ("dry_run", 3) => Fate::LosesTheAnswer,
            ("dry_run", _) => Fate::Well,
            (_, 0..=2) => Fate::Slow(50 + chance.below(700)),
            (_, 3..=4) => Fate::LosesTheAnswer,
            (_, 5) => Fate::Fails,
            (_, 6) => Fate::FailsAfter,
            (_, 7) => Fate::Hangs,
            (_, 8) => Fate::Busy,
            (_, 9) => Fate::Refuses,
            ("apply", 10) => Fate::Moved,
            (_, 11..=13) => Fate::Promises(100 + chance.below(900)),
            (_, _) => Fate::Well,
        }
    }

    fn serve(self: Arc<Switch>, mut stream: TcpStream) {
        let Some((head, body)) = request(&stream) else { return };
        let header = |name: &str| {
            let line = head.iter().find(|l| l.to_ascii_lowercase().starts_with(&format!("{name}:")));
            line.and_then(|l| l.split_once(':')).map(|(_, v)| v.trim().to_owned()).unwrap_or_default()
        };
        let signed = standardwebhooks::Webhook::new(SECRET).ok().and_then(|w| {
            let at = header("webhook-timestamp").parse().ok()?;
            w.sign(&header("webhook-id"), at, &body).ok()
        });
        let is_signed = signed.is_some_and(|s| s == header("webhook-signature"));
        if let Some(key) = head.first().and_then(|l| l.strip_prefix("GET /status/")).and_then(|l| l.split(' ').next()) {
            self.victim.seen("status", false);
            let board = lock(&self.board);
            let target = board.calls.iter().find(|c| c.key == key).map(|c| c.target.clone()).unwrap_or_default();
            let is_done = board.coming.get(&target).is_none_or(|n| *n == 0);
            let mode = board.modes.get(&target).cloned();
            drop(board);
            let status = if is_done { "done" } else { "accepted" };
            return answer(&mut stream, 200, &json!({"status": status, "observed": {"mode": mode}, "message": "as promised"}));
        }
        let doc: Value = serde_json::from_slice(&body).unwrap_or_default();
        let action = &doc["data"]["action"];
        let text = |name: &str| action[name].as_str().unwrap_or_default().to_owned();
        let (mode, target, key) = (text("mode"), text("target"), header("idempotency-key"));
        if !is_signed || key.is_empty() || text("idempotency_key") != key || !MODELS.contains(&target.as_str()) {
            lock(&self.board).problems.push(format!("{mode} of {target:?} with key {key:?}: signed {is_signed}"));
            return answer(&mut stream, 401, &json!({"status": "failed"}));
        }
        let what: &'static str = match mode.as_str() {
            "dry_run" => "look",
            "apply" => "apply",
            _ => "undo",
        };
        self.victim.seen(what, false);
        let (fate, said) = self.act(&mode, &target, &key, action);
        self.victim.seen(what, true);
        match fate {
            Fate::Slow(ms) => thread::sleep(Duration::from_millis(ms)),
            Fate::LosesTheAnswer => return,
            Fate::Hangs => {
                let until = Instant::now() + Duration::from_secs(14);
                while !self.is_calm.load(Ordering::Relaxed) && Instant::now() < until {
                    thread::sleep(Duration::from_millis(10));
                }
                return;
            }
            Fate::Fails | Fate::FailsAfter => return answer(&mut stream, 500, &json!({"message": "a failure of its own"})),
            Fate::Busy => return answer(&mut stream, 429, &json!({"message": "too many"})),
            Fate::Refuses => return answer(&mut stream, 403, &json!({"message": "not now"})),
            Fate::Moved => return answer(&mut stream, 409, &json!({"message": "moved"})),
            Fate::Well | Fate::Promises(_) => {}
        }
        answer(&mut stream, 200, &said);
    }

    /// What becomes of a request, and what would be answered.
    fn act(self: &Arc<Switch>, mode: &str, target: &str, key: &str, action: &Value) -> (Fate, Value) {
        let mut board = lock(&self.board);
        board.asked += 1;
        let fate = self.fate(board.asked, mode);
        let now = board.modes.get(target).cloned().unwrap_or_default();
        let seen =
            |mode: &str| json!({"status": "done", "observed": {"mode": mode}, "undo": {"mode": mode}, "message": format!("the mode is {mode}")});
        if mode == "dry_run" {
            board.looks += 1;
            return (fate, seen(&now));
        }
        let is_undo = mode == "undo";
        let plan = action["plan_hash"].as_str().unwrap_or_default().to_owned();
        let change = Change { key: key.to_owned(), target: target.to_owned(), is_undo, plan, took: false };
        // The key was honoured before: the same answer again, and nothing else.
        if let Some(known) = board.answered.get(key).cloned() {
            board.replays += 1;
            board.calls.push(change);
            return (Fate::Well, known);
        }
        let to = if is_undo { action["undo"]["mode"].as_str() } else { action["parameters"]["mode"].as_str() };
        let Some(to) = to.map(str::to_owned) else {
            board.problems.push(format!("{mode} of {target} says no mode: {action}"));
            return (Fate::Refuses, Value::Null);
        };
        if matches!(fate, Fate::Fails | Fate::Busy | Fate::Refuses | Fate::Moved) {
            board.calls.push(change);
            return (fate, Value::Null);
        }
        board.calls.push(Change { took: true, ..change });
        let said = match fate {
            Fate::Promises(ms) => {
                *board.coming.entry(target.to_owned()).or_default() += 1;
                let (this, target) = (Arc::clone(self), target.to_owned());
                thread::spawn(move || {
                    thread::sleep(Duration::from_millis(ms));
                    let mut board = lock(&this.board);
                    board.modes.insert(target.clone(), to);
                    *board.coming.entry(target).or_default() -= 1;
                });
                json!({"status": "accepted", "status_url": format!("/status/{key}"), "message": "soon"})
            }
            _ => {
                board.modes.insert(target.to_owned(), to.clone());
                seen(&to)
            }
        };
        board.answered.insert(key.to_owned(), said.clone());
        (fate, said)
    }
}

fn answer(stream: &mut TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let _ =
        write!(stream, "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
}

// === the ground on which events lie ===

enum Ground {
    /// A file that grows while the daemon is dead.
    Lines(File),
    Kafka(String, Producer),
}

impl Ground {
    fn put(&mut self, lines: &[(Time, String)]) {
        match self {
            Ground::Lines(file) => {
                let text: String = lines.iter().flat_map(|(_, l)| [l.as_str(), "\n"]).collect();
                file.write_all(text.as_bytes()).expect("written");
            }
            Ground::Kafka(topic, producer) => {
                for (at, line) in lines {
                    producer.send(Outgoing { topic, value: Some(line.as_bytes()), time: Some(*at), ..Outgoing::default() }).expect("sent");
                }
                producer.flush(Duration::from_secs(20)).expect("on the broker");
            }
        }
    }
}

/// `n` predictions of each of these models within `ms`; the one in the middle carries the flag of its model.
fn predictions(models: &[&str], from: Time, ms: i64, n: i64, flagged: bool, part: u32) -> Vec<(Time, String)> {
    let mut out = Vec::new();
    for i in 0..n {
        let at = from.plus_ms(i * ms / n);
        for model in models {
            let flag = match (flagged && i == n / 2, *model) {
                (false, _) => "",
                (true, "assistant") => ",\"flags\":{\"harmful\":\"confirmed\"}",
                (true, _) => ",\"flags\":{\"leak\":\"confirmed\"}",
            };
            let line = format!(
                "{{\"kind\":\"prediction\",\"id\":\"{model}-{part}-{i}\",\"time\":\"{}\",\"model\":\"{model}\",\"environment\":\"prod\",\"version\":\"7\",\"latency_ms\":90{flag}}}",
                at.rfc3339()
            );
            out.push((at, line));
        }
    }
    out
}

// === one run ===

/// Everything of one run.
struct Yard {
    seed: u64,
    folder: tempfile::TempDir,
    port: u16,
    victim: Arc<Victim>,
    switch: Arc<Switch>,
    oracle: Oracle,
    starts: AtomicU32,
    /// Names of the keys under which somebody has asked.
    asked: AtomicU64,
    /// What was definitely answered with yes: verb, incident, plan.
    done: Mutex<Vec<(String, String, String)>>,
    refused: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

/// What a run tells.
#[derive(Clone, Debug, Default)]
struct Told {
    kills: u32,
    applied: usize,
    undone: usize,
    calls: usize,
    replays: u32,
    unknowns: usize,
    repeats: u32,
    unopened: u32,
    took: Duration,
}

impl Yard {
    fn new(seed: u64, kafka: Option<(&Broker, &str)>) -> Yard {
        let victim = Arc::new(Victim::default());
        let switch = Switch::start(seed, Arc::clone(&victim));
        let oracle = Oracle::start();
        let hook = Arc::clone(&victim);
        oracle.watch(move |path, is_after| {
            let what = [("/v2/enqueue", "pager"), ("/hooks/", "hook"), ("/github/", "tracker"), ("/api/v2/alerts", "alertmanager")];
            if let Some((_, what)) = what.iter().find(|(part, _)| path.contains(part)) {
                hook.seen(what, is_after);
            }
        });
        oracle.secret("team", SECRET);
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let yard = Yard {
            seed,
            folder,
            port,
            victim,
            switch,
            oracle,
            starts: AtomicU32::new(0),
            asked: AtomicU64::new(0),
            done: Mutex::default(),
            refused: Mutex::default(),
            is_over: AtomicBool::new(false),
        };
        let two = Chance::keyed(seed, 1).below(3) == 0;
        let step = |id: &str, model: &str, more: &str| {
            format!("      - do: {id}\n        say: switch {{model}}\n        action: {{use: switch, target: {model}, set: {{mode: safe}}}}\n{more}")
        };
        let row = |category: &str, model: &str, steps: &str| {
            format!("  - category: {category}\n    severity: 1\n    models: [{model}]\n    owner: ana\n    fallback: stop it\n    steps:\n{steps}")
        };
        let runbooks = format!(
            "runbooks:\n{}{}",
            row("harmful_output", "assistant", &step("safe_default", "assistant", &format!("        two_people: {two}\n"))),
            row("data_breach", "scribe", &step("take_offline", "scribe", "        automatic: true\n        undo: at_recovery\n"))
        );
        std::fs::write(yard.folder.path().join("runbook.yaml"), runbooks).expect("written");
        yard.configure(kafka);
        yard
    }

    fn configure(&self, kafka: Option<(&Broker, &str)>) {
        let source = match kafka {
            // A new group reads at once; the old one would wait for its dead member.
            Some((broker, topic)) => {
                format!("kafka: {{brokers: [\"{}\"], topics: [{topic}], group: {}, from: 60d}}", broker.bootstrap, unique("group"))
            }
            None => "files: [events.ndjson]".to_owned(),
        };
        let url = &self.oracle.url;
        let yaml = format!(
            "{source}\npane: 10s\nlateness: 1s\nlisten: 127.0.0.1:{}\ninstance: test\nrunbooks: [runbook.yaml]\n\
             actions:\n  switch: {{type: webhook, url: \"{}/switch\", secret: {SECRET}, targets: [assistant, scribe], per_hour: 10}}\n\
             receivers:\n  pager: {{type: pagerduty, routing_key: {ROUTING_KEY}, url: \"{url}/v2/enqueue\"}}\n  \
             team: {{type: webhook, url: \"{url}/hooks/team\", secret: {SECRET}}}\n  \
             tracker: {{type: github, repository: acme/models, token: {TOKEN}, url: \"{url}/t/github\"}}\n  \
             am: {{type: alertmanager, url: \"{url}/am\"}}\n\
             routes: [{{to: [pager, team, tracker]}}]\n",
            self.port, self.switch.url
        );
        std::fs::write(self.folder.path().join("bellwether.yaml"), yaml).expect("written");
    }

    fn start(&self) {
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            .args(["run", "--log-format", "json", "--config", "bellwether.yaml", "--data-dir", "data"])
            .env("BELLWETHER_SNAPSHOT_EVERY_MS", "150")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a process");
        *lock(&self.victim.child) = Some(child);
        self.starts.fetch_add(1, Ordering::Relaxed);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let mut waited = Waited::begin();
        while !is_so() {
            self.has_not_ended_by_itself(what);
            assert!(!waited.is_too_long(), "seed {}: no {what} within {PATIENCE:?}: {}", self.seed, self.now());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn has_not_ended_by_itself(&self, waiting_for: &str) {
        if let Some(status) = self.victim.ended_by_itself() {
            panic!("seed {}: it ended by itself while {waiting_for} was waited for: {status}", self.seed);
        }
    }

    /// What the daemon says of everything, for a message.
    fn now(&self) -> String {
        let all: Vec<String> = MODELS
            .iter()
            .filter_map(|m| self.incident(m))
            .map(|page| {
                format!(
                    "{} {} {}\n{:#}",
                    page["incident"]["id"], page["incident"]["state"], page["incident"]["response"]["steps"][0], page["deliveries"]
                )
            })
            .collect();
        format!("{}\nrefused: {:?}", all.join("\n"), lock(&self.refused))
    }

    // --- asking ---

    fn ask(&self, method: &str, path: &str, key: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let key = if key.is_empty() { String::new() } else { format!("idempotency-key: {key}\r\ncontent-type: application/json\r\n") };
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n{key}content-length: {}\r\n\r\n", self.port, body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).ok()?;
        let all = String::from_utf8_lossy(&all).into_owned();
        let (head, body) = all.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()))))
    }

    fn get(&self, path: &str) -> Option<Value> {
        self.ask("GET", path, "", "").filter(|(status, _)| *status == 200).map(|(_, v)| v)
    }

    fn incident(&self, model: &str) -> Option<Value> {
        let all = self.get("/api/v1/incidents")?;
        let id = all["data"].as_array()?.iter().find(|i| i["key"]["model"] == model)?["id"].as_str()?.to_owned();
        self.get(&format!("/api/v1/incidents/{id}"))
    }

    /// The same again, under the same key, until the answer is one; 0 if the run is over before.
    fn insist(&self, incident: &str, verb: &str, body: &Value) -> u16 {
        let key = format!("{}-{}-{verb}", self.seed, self.asked.fetch_add(1, Ordering::Relaxed));
        let path = format!("/api/v1/incidents/{incident}/{verb}");
        let mut waited = Waited::begin();
        loop {
            self.victim.seen(if verb == "approve" { "approval" } else { "order" }, false);
            if let Some((status, said)) = self.ask("POST", &path, &key, &body.to_string()).filter(|(status, _)| *status < 500) {
                if status == 200 {
                    let plan = body["plan"].as_str().unwrap_or_default().to_owned();
                    lock(&self.done).push((verb.to_owned(), incident.to_owned(), plan));
                } else {
                    lock(&self.refused).push(format!("{verb} {body}: {status} {}", said["detail"]));
                }
                return status;
            }
            assert!(!waited.is_too_long(), "seed {}: no answer to {verb} {body} within {PATIENCE:?}: {}", self.seed, self.now());
            if self.is_over.load(Ordering::Relaxed) {
                return 0;
            }
            thread::sleep(Duration::from_millis(25));
        }
    }

    // --- people ---

    /// Whoever looks after one incident, until there is nothing left to do for it.
    fn person(&self, model: &str) {
        let mut chance = Chance::keyed(self.seed, 2 + model.len() as u64);
        let (takes_back, acknowledges) = (chance.below(2) == 0, chance.below(2) == 0);
        let pause = chance.below(300);
        // Somebody closes it whatever is still under way.
        let is_hasty = chance.below(6) == 0;
        let is_ours = model == "assistant";
        let (mut plans, mut unclear, mut has_acknowledged) = (0, None::<Instant>, !acknowledges);
        let (mut waited, mut moved) = (Waited::begin(), None);
        while !self.is_over.load(Ordering::Relaxed) {
            self.has_not_ended_by_itself("the end of an incident");
            assert!(!waited.is_too_long(), "seed {}: the incident of {model} comes to no end: {}", self.seed, self.now());
            thread::sleep(Duration::from_millis(25));
            let Some(page) = self.incident(model) else { continue };
            let (incident, step) = (&page["incident"], &page["incident"]["response"]["steps"][0]);
            let (Some(id), Some(name), Some(state)) = (incident["id"].as_str(), step["id"].as_str(), step["state"].as_str()) else { continue };
            let here = Some((self.starts.load(Ordering::Relaxed), incident["revision"].as_u64(), state.to_owned()));
            if here != moved {
                moved = here;
                waited.something_moved();
            }
            let is_live = !["resolved", "review_due", "closed"].iter().any(|s| incident["state"] == *s);
            if !has_acknowledged && is_live {
                has_acknowledged = true;
                self.insist(id, "acknowledge", &json!({"by": "ana"}));
                continue;
            }
            let order = |verb: &str, why: &str| self.insist(id, verb, &json!({"by": "ana", "step": name, "why": why}));
            let close = || {
                if is_ours && is_live {
                    self.insist(id, "resolve", &json!({"by": "ana", "as": "fixed", "why": "over"}));
                }
                !is_live && !matches!(state, "planning" | "applying" | "verifying" | "undoing" | "verifying_undo")
            };
            if state != "unknown" && state != "undo_unknown" {
                unclear = None;
            }
            match state {
                "planned" if is_live && is_ours => {
                    thread::sleep(Duration::from_millis(pause));
                    for by in ["ana", "ben"] {
                        let body = json!({"by": by, "step": name, "plan": step["plan"]["hash"]});
                        if self.insist(id, "approve", &body) != 200 || step["two_people"] != true {
                            break;
                        }
                    }
                }
                "moved" | "failed" if is_live && plans < 3 => {
                    plans += 1;
                    order("plan", "");
                }
                "unknown" | "undo_unknown" => {
                    // He waits until it was looked at, and what was promised is done; then he looks himself.
                    let since = *unclear.get_or_insert_with(Instant::now);
                    let was_read = step["words"].as_str().is_some_and(|w| w.contains("read back"));
                    if self.switch.is_coming(model) || (!was_read && since.elapsed() < Duration::from_secs(2)) {
                        continue;
                    }
                    let is_safe = self.switch.mode(model) == "safe";
                    match (state, is_safe) {
                        ("unknown", true) => order("done", "looked: it is safe"),
                        ("unknown", false) if is_live && plans < 3 => {
                            plans += 1;
                            order("plan", "")
                        }
                        ("unknown", false) => order("undo", ""),
                        (_, false) => order("done", "looked: it is live"),
                        (_, true) => order("undo", ""),
                    };
                }
                "unverified" => {
                    order("undo", "");
                }
                "undo_failed" => {
                    // By his own hand, and then he says so.
                    self.switch.set(model, "live");
                    order("done", "by hand");
                }
                "done" if is_ours && takes_back && is_live => {
                    order("undo", "");
                }
                "planning" | "applying" | "verifying" | "undoing" | "verifying_undo" if !is_hasty => {}
                // The runbook takes it back by itself.
                "done" if !is_ours => {}
                _ if close() => return,
                _ => {}
            }
        }
    }

    // --- the course of a run ---

    /// Undisturbed from here on: what is left comes to its end.
    fn calm(&self) {
        self.switch.is_calm.store(true, Ordering::Relaxed);
        for path in ["/v2/enqueue", "/hooks/team", "/t/github", "/am"] {
            self.oracle.heal(path);
        }
    }

    fn is_told(&self) -> bool {
        let Some(info) = self.get("/api/v1/status/runtimeinfo") else { return false };
        info["health"]["outbox"].as_array().is_some_and(|all| all.iter().all(|o| o["pending"] == 0))
    }

    fn disturb(&self, chance: &mut Chance) {
        let one = |chance: &mut Chance, is_hook: bool| match chance.below(6) {
            0 => Fault::lost_answer(),
            1 if !is_hook => Fault::status(503),
            2 if !is_hook => Fault::status(500),
            _ => Fault::hang(Duration::from_millis(100 + chance.below(900))),
        };
        for path in ["/v2/enqueue", "/hooks/team", "/t/github", "POST /t/github/repos/acme/models/issues", "/am"] {
            let faults: Vec<Fault> = (0..chance.below(3)).map(|_| one(chance, path == "/hooks/team")).collect();
            // Some come at once, some later.
            self.oracle.next(path, faults);
        }
        let lag = Duration::from_millis(chance.below(1_200));
        self.oracle.vendors(|v| v.world("/t").search_lag = lag);
    }

    /// So many kills, each at its own moment; then peace, one more kill, and the judgement.
    fn run(&self, kafka: Option<&'static Broker>) -> Told {
        let began = Instant::now();
        let mut chance = Chance::keyed(self.seed, 0);
        let topic = unique("killed");
        let mut ground = match kafka {
            None => Ground::Lines(File::create(self.folder.path().join("events.ndjson")).expect("a file")),
            Some(broker) => {
                broker.create_topic(&topic, 1, KEPT);
                self.configure(Some((broker, &topic)));
                Ground::Kafka(topic.clone(), Producer::start(&broker.bootstrap, &BTreeMap::new()).expect("a producer"))
            }
        };
        let start = now().plus_ms(-600_000);
        let first = predictions(&MODELS, start, 60_000, 120, true, 1);
        let second = predictions(&["scribe"], start.plus_ms(61_000), 240_000, 3_600, false, 2);
        self.disturb(&mut chance);
        let kills = 2 + chance.below(4);
        // The evidence of recovery comes before this restart.
        let recovers_at = chance.below(kills);
        if kafka.is_none() {
            ground.put(&first);
        }
        thread::scope(|scope| {
            let people: Vec<_> = MODELS.iter().map(|m| scope.spawn(move || self.person(m))).collect();
            // Whatever fails here must not leave people behind who wait for ever.
            let _over = Over(&self.is_over);
            let mut moment = self.moment(&mut chance);
            *lock(&self.victim.moment) = kafka.is_none().then_some(moment);
            self.start();
            if kafka.is_some() {
                self.until("the end of history", || self.log().contains("history is read"));
                ground.put(&first);
                *lock(&self.victim.moment) = Some(moment);
            }
            for kill in 0..kills {
                let until = Instant::now() + if moment.at.is_empty() { Duration::from_micros(moment.delay_us) } else { MOMENT_MAX };
                while !self.victim.is_dead() && Instant::now() < until {
                    self.has_not_ended_by_itself("a kill");
                    thread::sleep(Duration::from_millis(1));
                }
                *lock(&self.victim.moment) = None;
                self.victim.kill();
                if kill == recovers_at {
                    ground.put(&second);
                }
                moment = self.moment(&mut chance);
                if kill + 1 < kills {
                    *lock(&self.victim.moment) = Some(moment);
                }
                if let Some(broker) = kafka {
                    self.configure(Some((broker, &topic)));
                }
                self.start();
            }
            self.calm();
            for person in people {
                if person.join().is_err() {
                    panic!("seed {}: a person gave up", self.seed);
                }
            }
        });
        self.until("an empty outbox", || self.is_told());
        // Once more, when all is over: nothing may come of it.
        let before = self.effects();
        self.victim.kill();
        if let Some(broker) = kafka {
            self.configure(Some((broker, &topic)));
        }
        let published = self.oracle.requests_to("/am").len();
        self.start();
        self.until("a last word to Alertmanager", || self.oracle.requests_to("/am").len() > published);
        self.until("an empty outbox", || self.is_told() && MODELS.iter().all(|m| self.incident(m).is_some()));
        let pages: Vec<Value> = MODELS.iter().filter_map(|m| self.incident(m)).collect();
        self.victim.kill();
        assert_eq!(self.effects(), before, "seed {}: a replay has changed something outside", self.seed);
        Told { took: began.elapsed(), kills: self.starts.load(Ordering::Relaxed), ..self.judge(&pages) }
    }

    fn moment(&self, chance: &mut Chance) -> Moment {
        const AT: [&str; 16] =
            ["", "", "", "look", "look", "apply", "apply", "apply", "undo", "undo", "approval", "approval", "order", "pager", "tracker", "hook"];
        let at = AT[chance.below(AT.len() as u64) as usize];
        let is_after = chance.below(2) == 0 && !matches!(at, "approval" | "order");
        let delay_us = match (at, chance.below(3)) {
            ("", _) => 30_000 + chance.below(1_500_000),
            (_, 0) => 0,
            (_, 1) => chance.below(3_000),
            (_, _) => chance.below(40_000),
        };
        Moment { at, nth: 1 + chance.below(2), is_after, delay_us }
    }

    /// What stands changed or opened outside.
    fn effects(&self) -> (Vec<(String, bool)>, Vec<(String, usize)>, usize) {
        let changes = lock(&self.switch.board).calls.iter().map(|c| (c.key.clone(), c.took)).collect();
        let mut alerts: BTreeMap<String, usize> = BTreeMap::new();
        for a in self.oracle.alerts() {
            *alerts.entry(a.key).or_default() += 1;
        }
        (changes, alerts.into_iter().collect(), self.oracle.vendors(|v| v.world("/t").tickets.len()))
    }

    // === the judgement ===

    fn judge(&self, pages: &[Value]) -> Told {
        let seed = self.seed;
        let mut told = Told::default();
        assert_eq!(pages.len(), 2, "seed {seed}: two incidents, and two only");
        assert_eq!(self.oracle.problems(), Vec::<String>::new(), "seed {seed}: what a vendor does not allow");
        let board = lock(&self.switch.board);
        assert_eq!(board.problems, Vec::<String>::new(), "seed {seed}: what the switch does not allow");
        (told.calls, told.replays) = (board.calls.len(), board.replays);
        // A change leaves once: no key comes twice, not even as a repeat that the switch would have to recognise.
        let keys: BTreeSet<&str> = board.calls.iter().map(|c| c.key.as_str()).collect();
        assert_eq!((keys.len(), board.replays), (board.calls.len(), 0), "seed {seed}: a key came twice: {:?}", board.calls);
        let done = lock(&self.done);
        for page in pages {
            let (i, step) = (&page["incident"], &page["incident"]["response"]["steps"][0]);
            let (id, model) = (i["id"].as_str().unwrap_or_default(), i["key"]["model"].as_str().unwrap_or_default());
            let at = format!("seed {seed}, {model}: {page:#}");
            assert_eq!(i["state"], "resolved", "{at}");

            // Nothing lost: every revision stands on the timeline, and everything that was answered with yes, once.
            let timeline = page["timeline"].as_array().cloned().unwrap_or_default();
            let revisions: BTreeSet<u64> = timeline.iter().filter(|t| t["what"] != "delivered").filter_map(|t| t["revision"].as_u64()).collect();
            assert_eq!(revisions, (1..=i["revision"].as_u64().unwrap_or(0)).collect(), "{at}");
            let lines = |what: &str| timeline.iter().filter(|t| t["what"] == what).count();
            let yes = |verb: &str| done.iter().filter(|(v, of, _)| v == verb && of == id).count();
            assert_eq!((lines("opened"), lines("resolved"), lines("acknowledged")), (1, 1, yes("acknowledge")), "{at}");
            let by_people: Vec<&Value> =
                timeline.iter().filter(|t| t["what"] == "action_approved" && t["who"].to_string().contains("person")).collect();
            assert_eq!((by_people.len(), lines("action_planning")), (yes("approve"), yes("plan")), "{at}");

            // No action twice: of one approved plan at most one call, and none without an approval.
            let calls: Vec<&Change> = board.calls.iter().filter(|c| c.target == model).collect();
            let mut plans: BTreeMap<&str, usize> = BTreeMap::new();
            for c in calls.iter().filter(|c| !c.is_undo) {
                *plans.entry(c.plan.as_str()).or_default() += 1;
            }
            let applying = |t: &&Value| {
                t["what"] == "action_approved" && !t["why"].as_str().is_some_and(|w| w.contains("second person") || w.contains("it is so already"))
            };
            let approved: Vec<&str> =
                timeline.iter().filter(applying).filter_map(|t| t["why"].as_str()?.split("plan ").nth(1)?.split(':').next()).collect();
            for (plan, n) in &plans {
                let times = approved.iter().filter(|p| *p == plan).count();
                assert!(*n <= times, "plan {plan} was approved {times} times and carried out {n} times; {at}");
            }
            let took = |is_undo: bool| calls.iter().filter(|c| c.took && c.is_undo == is_undo).count();
            (told.applied, told.undone) = (told.applied + took(false), told.undone + took(true));
            told.unknowns += lines("action_unknown") + lines("action_undo_unknown");

            // What it says of the world is so.
            let (state, mode) = (step["state"].as_str().unwrap_or_default(), board.modes.get(model).cloned().unwrap_or_default());
            match state {
                "done" => assert_eq!((mode.as_str(), model), ("safe", "assistant"), "{at}"),
                "undone" | "planned" | "idle" | "failed" | "moved" => assert_eq!(mode, "live", "{at}"),
                _ => panic!("{state} in the end; {at}"),
            }
            // A lost answer was nobody's to settle but a person's.
            let settled = lines("action_done") + lines("action_undone") + lines("action_planning") + lines("action_undoing");
            assert!(lines("action_unknown") + lines("action_undo_unknown") <= settled, "{at}");

            // One alert, one ticket, one first message; and their ends.
            let deliveries = page["deliveries"].as_array().cloned().unwrap_or_default();
            let row = |receiver: &str, notice: &str| {
                deliveries.iter().find(|d| d["receiver"] == receiver && d["notice"] == notice).cloned().unwrap_or_default()
            };
            assert!(deliveries.iter().all(|d| ["accepted", "superseded", "expired"].iter().any(|s| d["state"] == *s)), "{at}");
            let alerts: Vec<_> = self.oracle.alerts().into_iter().filter(|a| a.key.ends_with(id)).collect();
            let is_given_up = |r: &Value| r["state"] == "expired" && r["detail"].as_str().is_some_and(|d| d.contains("the incident is over"));
            match alerts.as_slice() {
                [] if is_given_up(&row("pager", "opened")) => told.unopened += 1,
                [one] => {
                    assert_eq!(one.state, AlertState::Resolved, "{at}");
                    told.repeats += one.triggers.saturating_sub(1);
                }
                other => panic!("{} alerts; {at}", other.len()),
            }
            let tickets = self
                .oracle
                .vendors(|v| v.world("/t").tickets.iter().filter(|t| t.labels.iter().any(|l| l.ends_with(id))).cloned().collect::<Vec<_>>());
            assert!(tickets.len() == 1 && tickets[0].is_closed, "{} tickets: {tickets:?}; {at}", tickets.len());
            let hooks: Vec<(String, String)> = self
                .oracle
                .requests_to("/hooks/team")
                .into_iter()
                .filter(|r| r.json()["data"]["incident"]["id"] == id)
                .map(|r| (r.json()["type"].as_str().unwrap_or_default().to_owned(), r.headers.get("webhook-id").cloned().unwrap_or_default()))
                .collect();
            let ids = |kind: &str| hooks.iter().filter(|(k, _)| k == kind).map(|(_, id)| id.clone()).collect::<BTreeSet<_>>().len();
            assert_eq!((ids("incident.opened"), ids("incident.resolved")), (1, 1), "{hooks:?}; {at}");
            told.repeats += (hooks.len() - hooks.iter().map(|h| &h.1).collect::<BTreeSet<_>>().len()) as u32;
            let firing: Vec<(String, Value)> = self.oracle.published().into_iter().filter(|(labels, _)| labels.contains(id)).collect();
            let is_over = |a: &Value| a["endsAt"].as_str().and_then(Time::parse_rfc3339).is_some_and(|t| t <= now());
            assert!(firing.len() == 1 && is_over(&firing[0].1), "{firing:?}; {at}");
        }
        assert_eq!(self.oracle.vendors(|v| v.world("/t").tickets.len()), 2, "seed {seed}: a ticket of nobody");

        // The audit is whole, and knows every change before it left.
        let audit = |arguments: &[&str]| {
            let out = Command::new(env!("CARGO_BIN_EXE_bellwether"))
                .args(arguments)
                .args(["--data-dir", "data"])
                .current_dir(self.folder.path())
                .env_remove("BELLWETHER_CONFIG")
                .output()
                .expect("it runs");
            (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned())
        };
        let (is_whole, said) = audit(&["audit", "verify"]);
        assert!(is_whole, "seed {seed}: {said}");
        let (_, listed) = audit(&["audit", "list", "--limit", "10000", "-o", "json"]);
        let rows: Value = serde_json::from_str(&listed).unwrap_or_default();
        let rows = rows.as_array().or(rows["data"].as_array()).cloned().unwrap_or_default();
        let has_begun = |c: &Change| {
            let what = if c.is_undo { "action undo begun" } else { "action apply begun" };
            rows.iter().filter(|r| r["what"] == what && r["subject"] == c.key.as_str()).count()
        };
        for c in &board.calls {
            assert_eq!(has_begun(c), 1, "seed {seed}: {c:?} in {listed}");
        }
        assert!(!self.log().contains("panicked"), "seed {seed}");
        told
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.victim.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the seed was {}; the daemon's log ---\n{}", self.seed, lines[lines.len().saturating_sub(80)..].join("\n"));
        }
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

fn runs(count: u64, first_seed: u64, kafka: Option<&'static Broker>) {
    let began = Instant::now();
    let (next, all, failed) = (AtomicU64::new(first_seed), Mutex::new(Vec::<Told>::new()), Mutex::new(Vec::<u64>::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first_seed + count {
                        return;
                    }
                    let broker = kafka.filter(|_| seed % KAFKA_EVERY == 0);
                    let one = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Yard::new(seed, None).run(broker)));
                    match one {
                        Ok(told) => {
                            println!("seed {seed}{}: {told:?}", if broker.is_some() { " on Kafka" } else { "" });
                            lock(&all).push(told);
                        }
                        Err(_) => lock(&failed).push(seed),
                    }
                }
            });
        }
    });
    let (all, failed) = (lock(&all).clone(), lock(&failed).clone());
    let mut times: Vec<Duration> = all.iter().map(|t| t.took).collect();
    times.sort();
    let sum = |of: fn(&Told) -> usize| all.iter().map(of).sum::<usize>();
    println!(
        "{} runs in {:?}: {} kills; {} changes applied and {} taken back in {} calls, {} under a key that had come before; {} lost answers settled by a \
         person; {} marked repeats of messages, {} alerts given up since the incident was over; a run takes {:?} (median), {:?} at most",
        all.len(),
        began.elapsed(),
        sum(|t| t.kills as usize),
        sum(|t| t.applied),
        sum(|t| t.undone),
        sum(|t| t.calls),
        sum(|t| t.replays as usize),
        sum(|t| t.unknowns),
        sum(|t| t.repeats as usize),
        sum(|t| t.unopened as usize),
        times.get(times.len() / 2),
        times.last()
    );
    assert_eq!(failed, Vec::<u64>::new(), "these seeds failed");
}

fn asked(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn f02_four_runs_of_kills_with_actions() {
    runs(4, asked("BELLWETHER_SEED", 1), None);
}

#[test]
#[ignore = "the long form; cargo test --test it kill_actions::two_hundred -- --ignored --nocapture"]
fn two_hundred() {
    runs(asked("BELLWETHER_RUNS", 200), asked("BELLWETHER_SEED", 100), Broker::shared());
}
