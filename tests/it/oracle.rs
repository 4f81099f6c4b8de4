//! The test receiver: a server on loopback that follows the vendors' documented rules, answers badly when told to, and remembers
//! everything.
//!
//! Plain sockets and threads instead of a web framework, because half of what it must do is misbehave below HTTP: cut a
//! connection after reading, send headers without end, drip a body. It needs no runtime and outlives any daemon that is killed.
//!
//! Paths: `…/v2/enqueue` is PagerDuty, `…/api/v2/alerts` is Alertmanager, `…/hooks/<name>` takes Standard Webhooks (verified when
//! a secret was given for `<name>`), `/echo…` takes anything, all else is answered 200 and noted as a problem. A prefix before them makes as many receivers as a test wants.

#![allow(dead_code)]

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bellwether::domain::Time;
use serde_json::{Value, json};

use crate::vendors::Vendors;

/// What the oracle does instead of answering well.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Did the receiver act on the message before the answer went wrong?
    pub acts: bool,
    pub answer: Bad,
}

#[derive(Clone, Debug)]
pub enum Bad {
    /// A whole answer: status, headers, body.
    Answer(u16, Vec<(String, String)>, String),
    /// A good answer, late.
    Late(Duration),
    /// The connection is cut after the request was read.
    Cut,
    /// Headers without end.
    EndlessHeaders,
    /// This status, then a body of so many bytes.
    Huge(u16, usize),
    /// This status, then a body of a byte every 50 ms, for so long.
    Drip(u16, Duration),
    /// Not HTTP.
    Rubbish,
    /// A status line, then nothing, then a cut.
    HalfHead,
    /// This status, the beginning of the good body, then a cut.
    HalfBody(u16),
}

impl Fault {
    pub fn status(status: u16) -> Fault {
        Fault { acts: false, answer: Bad::Answer(status, vec![], format!("oracle says {status}")) }
    }
    pub fn with(status: u16, headers: &[(&str, &str)], body: &str) -> Fault {
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Fault { acts: false, answer: Bad::Answer(status, headers, body.to_owned()) }
    }
    /// The receiver works, and the answer is lost.
    pub fn lost_answer() -> Fault {
        Fault { acts: true, answer: Bad::Cut }
    }
    pub fn hang(time: Duration) -> Fault {
        Fault { acts: true, answer: Bad::Late(time) }
    }
    pub fn bad(answer: Bad) -> Fault {
        Fault { acts: false, answer }
    }
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: Instant,
    pub wall: SystemTime,
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// What the vendor's page does not allow.
    pub problems: Vec<String>,
    /// The status that was answered; 0 if none was.
    pub status: u16,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertState {
    Triggered,
    Acknowledged,
    Resolved,
}

/// An alert by PagerDuty's key rules, or by Alertmanager's label set.
#[derive(Clone, Debug)]
pub struct Alert {
    pub routing_key: String,
    pub key: String,
    pub state: AlertState,
    pub summary: String,
    pub severity: String,
    /// How many triggers reached this very alert.
    pub triggers: u32,
    pub opened_at: Instant,
}

#[derive(Default)]
struct Memory {
    requests: Vec<Seen>,
    alerts: Vec<Alert>,
    /// Acknowledge or resolve for which nothing was open.
    dropped: u32,
    published: BTreeMap<String, Value>,
    message_ids: BTreeMap<String, u32>,
    once: Vec<(String, VecDeque<Fault>)>,
    always: Vec<(String, Fault)>,
    secrets: BTreeMap<String, String>,
    vendors: Vendors,
    watcher: Option<Watcher>,
}

/// Told of every request by its path, before it is acted on and after.
type Watcher = Arc<dyn Fn(&str, bool) + Send + Sync>;

pub struct Oracle {
    /// Without a slash at the end.
    pub url: String,
    memory: Arc<Mutex<Memory>>,
    is_over: Arc<AtomicBool>,
}

impl Oracle {
    pub fn start() -> Oracle {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let memory = Arc::new(Mutex::new(Memory::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (m, over) = (Arc::clone(&memory), Arc::clone(&is_over));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (m, over) = (Arc::clone(&m), Arc::clone(&over));
                if let Ok(stream) = stream {
                    thread::spawn(move || serve(stream, &m, &over));
                }
            }
        });
        Oracle { url, memory, is_over }
    }

    /// The next requests whose path begins with `path` meet these, one each; then all is well again.
    pub fn next(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        let mut m = self.lock();
        match m.once.iter_mut().find(|(p, _)| p == path) {
            Some((_, queue)) => queue.extend(faults),
            None => m.once.push((path.to_owned(), faults.into_iter().collect())),
        }
    }

    /// Every request whose path begins with `path` meets this, until [`Oracle::heal`].
    pub fn always(&self, path: &str, fault: Fault) {
        self.lock().always.push((path.to_owned(), fault));
    }

    pub fn heal(&self, path: &str) {
        self.lock().always.retain(|(p, _)| p != path);
    }

    /// Somebody wants to know of every request, before it is acted on and after.
    pub fn watch(&self, watcher: impl Fn(&str, bool) + Send + Sync + 'static) {
        self.lock().watcher = Some(Arc::new(watcher));
    }

    /// Messages to `…/hooks/<name>` must be signed with this.
    pub fn secret(&self, name: &str, secret: &str) {
        self.lock().secrets.insert(name.to_owned(), secret.to_owned());
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.lock().requests.clone()
    }

    pub fn requests_to(&self, path: &str) -> Vec<Seen> {
        self.lock().requests.iter().filter(|r| r.path.starts_with(path)).cloned().collect()
    }

    /// All PagerDuty alerts that were ever opened.
    pub fn alerts(&self) -> Vec<Alert> {
        self.lock().alerts.clone()
    }

    /// How many alerts with this key were ever opened. More than one means that somebody was called twice.
    pub fn open_alerts_opened_count(&self, key: &str) -> usize {
        self.lock().alerts.iter().filter(|a| a.key == key).count()
    }

    /// A person resolves the alert over there.
    pub fn resolve_by_hand(&self, key: &str) {
        for alert in self.lock().alerts.iter_mut().filter(|a| a.key == key) {
            alert.state = AlertState::Resolved;
        }
    }

    /// By label set, the last post of each alert to `…/api/v2/alerts`.
    pub fn published(&self) -> BTreeMap<String, Value> {
        self.lock().published.clone()
    }

    /// What the vendors behind a prefix hold, by their rules.
    pub fn vendors<T>(&self, look: impl FnOnce(&mut Vendors) -> T) -> T {
        look(&mut self.lock().vendors)
    }

    /// How often each webhook message id was acted on.
    pub fn message_ids(&self) -> BTreeMap<String, u32> {
        self.lock().message_ids.clone()
    }

    pub fn dropped(&self) -> u32 {
        self.lock().dropped
    }

    /// Everything that a vendor's page does not allow, over all requests.
    pub fn problems(&self) -> Vec<String> {
        self.lock().requests.iter().flat_map(|r| r.problems.iter().map(|p| format!("{}: {p}", r.path))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("a whole memory")
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.url.trim_start_matches("http://"));
    }
}

// === one connection, one request ===

fn serve(mut stream: TcpStream, memory: &Mutex<Memory>, is_over: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let _ = stream.set_write_timeout(Some(Duration::from_secs(30)));
    let _ = stream.set_nodelay(true);
    let Some((method, path, headers, body)) = read(&stream) else { return };
    let (watcher, place) = (memory.lock().expect("a whole memory").watcher.clone(), path.clone());
    let watched = |is_after| watcher.as_ref().into_iter().for_each(|w| w(&place, is_after));
    watched(false);
    let (answer, fault) = {
        let mut m = memory.lock().expect("a whole memory");
        let fault = m.fault(&method, &path);
        let acts = fault.as_ref().is_none_or(|f| f.acts);
        let (problems, answer) = m.take(&method, &path, &headers, &body, acts);
        let status = match &fault {
            None => answer.0,
            Some(Fault { answer: Bad::Answer(s, ..) | Bad::Huge(s, _) | Bad::Drip(s, _) | Bad::HalfBody(s), .. }) => *s,
            Some(Fault { answer: Bad::Late(_), .. }) => answer.0,
            Some(_) => 0,
        };
        m.requests.push(Seen { at: Instant::now(), wall: SystemTime::now(), method, path, headers, body, problems, status });
        (answer, fault)
    };
    watched(true);
    let result = match fault.map(|f| f.answer) {
        None => respond(&mut stream, answer.0, &[], &answer.1),
        Some(Bad::Answer(status, headers, body)) => respond(&mut stream, status, &headers, &body),
        Some(Bad::Late(time)) => {
            wait(time, is_over);
            respond(&mut stream, answer.0, &[], &answer.1)
        }
        Some(Bad::Cut) => stream.shutdown(std::net::Shutdown::Both),
        Some(Bad::EndlessHeaders) => endless_headers(&mut stream),
        Some(Bad::Huge(status, bytes)) => huge(&mut stream, status, bytes),
        Some(Bad::Drip(status, time)) => drip(&mut stream, status, time, is_over),
        Some(Bad::Rubbish) => stream.write_all(b"\x16\x03\x01 this is not the protocol you are looking for\r\n\r\n"),
        Some(Bad::HalfBody(status)) => {
            let half = &answer.1.as_bytes()[..answer.1.len() / 2];
            let head = format!("HTTP/1.1 {status} Oracle\r\ncontent-length: {}\r\n\r\n", answer.1.len().max(100));
            stream.write_all(&[head.as_bytes(), half].concat())
        }
        Some(Bad::HalfHead) => stream.write_all(b"HTTP/1.1 202 Acc"),
    };
    // The other side may have gone long ago; that is its right.
    drop(result);
}

fn read(stream: &TcpStream) -> Option<(String, String, BTreeMap<String, String>, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").map_or(Some(0), |l| l.parse().ok())?;
    let mut body = vec![0; length.min(8 << 20)];
    reader.read_exact(&mut body).ok()?;
    Some((method, path, headers, body))
}

fn respond(stream: &mut TcpStream, status: u16, headers: &[(String, String)], body: &str) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Oracle\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes())
}

fn endless_headers(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 202 Oracle\r\n")?;
    for i in 0..1_000_000 {
        stream.write_all(format!("x-{i}: {}\r\n", "y".repeat(1_000)).as_bytes())?;
    }
    Ok(())
}

fn huge(stream: &mut TcpStream, status: u16, bytes: usize) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status} Oracle\r\ncontent-length: {bytes}\r\n\r\n").as_bytes())?;
    let block = vec![b'x'; 64 * 1024];
    for _ in 0..bytes / block.len() {
        stream.write_all(&block)?;
    }
    Ok(())
}

fn drip(stream: &mut TcpStream, status: u16, time: Duration, is_over: &AtomicBool) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 {status} Oracle\r\ncontent-length: 1000000\r\n\r\n").as_bytes())?;
    let end = Instant::now() + time;
    while Instant::now() < end && !is_over.load(Ordering::Relaxed) {
        stream.write_all(b"x")?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn wait(time: Duration, is_over: &AtomicBool) {
    let end = Instant::now() + time;
    while Instant::now() < end && !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20).min(time));
    }
}

// === what the vendors' pages say ===

impl Memory {
    /// `POST /path` meets the posts alone.
    fn fault(&mut self, method: &str, path: &str) -> Option<Fault> {
        let full = format!("{method} {path}");
        let is_meant = |p: &str| path.starts_with(p) || full.starts_with(p);
        let once = self.once.iter_mut().filter(|(p, _)| is_meant(p)).find_map(|(_, queue)| queue.pop_front());
        once.or_else(|| self.always.iter().find(|(p, _)| is_meant(p)).map(|(_, f)| f.clone()))
    }

    /// Judges the request, acts on it if it is to act and the request is right, and says what the vendor would answer.
    fn take(&mut self, method: &str, path: &str, headers: &BTreeMap<String, String>, body: &[u8], acts: bool) -> (Vec<String>, (u16, String)) {
        let doc = || serde_json::from_slice::<Value>(body).map_err(|e| vec![format!("not JSON: {e}")]);
        if path.ends_with("/v2/enqueue") {
            let checked = doc().and_then(|d| check_event(&d, headers, body).map(|()| d));
            return match checked {
                Ok(event) => {
                    if acts {
                        self.enqueue(&event);
                    }
                    let answer = json!({"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]});
                    (vec![], (202, answer.to_string()))
                }
                Err(problems) => {
                    let answer = json!({"status": "invalid event", "message": "Event object is invalid", "errors": problems});
                    (problems, (400, answer.to_string()))
                }
            };
        }
        if path.ends_with("/api/v2/alerts") {
            return match doc().and_then(|d| check_alerts(&d, headers).map(|()| d)) {
                Ok(alerts) => {
                    for alert in alerts.as_array().into_iter().flatten().filter(|_| acts) {
                        self.published.insert(alert["labels"].to_string(), alert.clone());
                    }
                    (vec![], (200, String::new()))
                }
                Err(problems) => {
                    let answer = Value::from(problems.join("; ")).to_string();
                    (problems, (400, answer))
                }
            };
        }
        if let Some(answer) = self.vendors.take(method, path, headers, body, acts) {
            return answer;
        }
        if let Some((_, name)) = path.split_once("/hooks/") {
            let problems = check_hook(headers, body, self.secrets.get(name).map(String::as_str));
            if problems.is_empty() && acts {
                let id = headers.get("webhook-id").cloned().unwrap_or_default();
                *self.message_ids.entry(id).or_default() += 1;
            }
            let status = if problems.is_empty() { 204 } else { 401 };
            return (problems, (status, String::new()));
        }
        let problems = if method == "GET" || path.starts_with("/echo") { vec![] } else { vec![format!("nobody lives at {path}")] };
        (problems, (200, String::new()))
    }

    /// PagerDuty's key rules: an equal key updates what is open, and opens anew after a resolve; what finds nothing open is dropped.
    fn enqueue(&mut self, event: &Value) {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (routing_key, key) = (text(&event["routing_key"]), text(&event["dedup_key"]));
        let open = self.alerts.iter_mut().rev().find(|a| a.routing_key == routing_key && a.key == key && a.state != AlertState::Resolved);
        match (event["event_action"].as_str(), open) {
            (Some("trigger"), Some(alert)) => {
                alert.summary = text(&event["payload"]["summary"]);
                alert.severity = text(&event["payload"]["severity"]);
                alert.triggers += 1;
            }
            (Some("trigger"), None) => self.alerts.push(Alert {
                routing_key,
                key,
                state: AlertState::Triggered,
                summary: text(&event["payload"]["summary"]),
                severity: text(&event["payload"]["severity"]),
                triggers: 1,
                opened_at: Instant::now(),
            }),
            (Some("acknowledge"), Some(alert)) => alert.state = AlertState::Acknowledged,
            (_, Some(alert)) => alert.state = AlertState::Resolved,
            (_, None) => self.dropped += 1,
        }
    }
}

/// Gathers what is wrong.
fn verdict(rules: &[(bool, &str)]) -> Result<(), Vec<String>> {
    let wrong: Vec<String> = rules.iter().filter(|(holds, _)| !holds).map(|(_, words)| (*words).to_owned()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn is_text(v: &Value, chars: std::ops::RangeInclusive<usize>) -> bool {
    v.as_str().is_some_and(|s| chars.contains(&s.chars().count()))
}

fn is_time(v: &Value) -> bool {
    v.as_str().is_some_and(|s| Time::parse_rfc3339(s).is_some())
}

fn is_absent_or(v: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    v.is_null() || holds(v)
}

fn is_link(v: &Value) -> bool {
    v["href"].as_str().is_some_and(|h| h.starts_with("http")) && is_absent_or(&v["text"], Value::is_string)
}

fn check_event(event: &Value, headers: &BTreeMap<String, String>, body: &[u8]) -> Result<(), Vec<String>> {
    const MEMBERS: &[&str] = &["routing_key", "event_action", "dedup_key", "payload", "images", "links", "client", "client_url"];
    const PAYLOAD: &[&str] = &["summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"];
    let names = |v: &Value, known: &[&str]| v.as_object().is_none_or(|o| o.keys().all(|k| known.contains(&k.as_str())));
    let (payload, action) = (&event["payload"], event["event_action"].as_str().unwrap_or_default());
    let is_trigger = action == "trigger";
    let flat = |v: &Value| v.as_object().is_some_and(|o| o.values().all(|v| !v.is_object() && !v.is_array()));
    verdict(&[
        (headers.get("content-type").is_some_and(|t| t.starts_with("application/json")), "content type is not application/json"),
        (headers.get("user-agent").is_some_and(|t| t.starts_with("Bellwether/")), "user agent is not Bellwether/<version>"),
        (body.len() <= 512_000, "body is larger than 512 KB"),
        (body.len() <= 32 * 1024, "body is larger than our aim of 32 KB"),
        (names(event, MEMBERS), "unknown member"),
        (names(payload, PAYLOAD), "unknown member of payload"),
        (is_text(&event["routing_key"], 32..=32), "routing_key is not 32 characters"),
        (["trigger", "acknowledge", "resolve"].contains(&action), "event_action is unknown"),
        (is_text(&event["dedup_key"], 1..=255), "dedup_key is not 1 to 255 characters"),
        (!is_trigger || is_text(&payload["summary"], 1..=1_024), "summary is not 1 to 1,024 characters"),
        (!is_trigger || is_text(&payload["source"], 1..=1_024), "source is missing"),
        (!is_trigger || ["critical", "error", "warning", "info"].iter().any(|s| payload["severity"] == *s), "severity is unknown"),
        (is_absent_or(&payload["timestamp"], is_time), "timestamp is not a time"),
        (["component", "group", "class"].iter().all(|k| is_absent_or(&payload[*k], Value::is_string)), "component, group or class is not a text"),
        (is_absent_or(&payload["custom_details"], flat), "custom_details is not flat"),
        (is_absent_or(&event["links"], |l| l.as_array().is_some_and(|l| l.iter().all(is_link))), "links are wrong"),
        (["client", "client_url"].iter().all(|k| is_absent_or(&event[*k], Value::is_string)), "client is not a text"),
    ])
}

fn check_alerts(doc: &Value, headers: &BTreeMap<String, String>) -> Result<(), Vec<String>> {
    let texts = |v: &Value| v.as_object().is_some_and(|o| o.values().all(|v| is_text(v, 1..=10_000)));
    let name = |k: &str| k.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && k.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let Some(alerts) = doc.as_array() else { return Err(vec!["not an array".to_owned()]) };
    let all = |holds: &dyn Fn(&Value) -> bool| alerts.iter().all(holds);
    let order = |a: &Value| {
        let time = |k: &str| a[k].as_str().and_then(Time::parse_rfc3339);
        time("startsAt").zip(time("endsAt")).is_none_or(|(s, e)| s <= e)
    };
    verdict(&[
        (headers.get("content-type").is_some_and(|t| t.starts_with("application/json")), "content type is not application/json"),
        (all(&|a| texts(&a["labels"]) && a["labels"]["alertname"].is_string()), "labels are missing or not texts"),
        (all(&|a| a["labels"].as_object().is_some_and(|o| o.keys().all(|k| name(k)))), "a label's name is not classic"),
        (all(&|a| is_absent_or(&a["annotations"], texts)), "annotations are not texts"),
        (all(&|a| is_absent_or(&a["startsAt"], is_time) && is_absent_or(&a["endsAt"], is_time)), "startsAt or endsAt is not a time"),
        (all(&order), "endsAt is before startsAt"),
        (all(&|a| is_absent_or(&a["generatorURL"], |u| u.as_str().is_some_and(|u| u.starts_with("http")))), "generatorURL is not a url"),
    ])
}

fn check_hook(headers: &BTreeMap<String, String>, body: &[u8], secret: Option<&str>) -> Vec<String> {
    let header = |name: &str| headers.get(name).map_or("", String::as_str);
    let id = header("webhook-id");
    let doc: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_alertmanager = doc["version"] == "4";
    let kind = doc["type"].as_str().unwrap_or_default();
    let is_kind = !kind.is_empty() && kind.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
    let mut wrong = verdict(&[
        (header("content-type") == "application/json; charset=utf-8", "content type is not application/json; charset=utf-8"),
        (header("user-agent").starts_with("Bellwether/"), "user agent is not Bellwether/<version>"),
        (id.starts_with("msg_") && !id.contains('.'), "webhook-id is missing or holds a dot"),
        (header("webhook-timestamp").parse::<i64>().is_ok(), "webhook-timestamp is not whole seconds"),
        (is_alertmanager || (is_kind && is_time(&doc["timestamp"]) && doc["data"].is_object()), "type, timestamp or data is missing"),
        (body.len() <= 20_000, "body is larger than our aim of 20 KB"),
    ])
    .err()
    .unwrap_or_default();
    if let Some(secret) = secret {
        let mut map = axum::http::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            if let Ok(value) = header(name).parse() {
                map.insert(name, value);
            }
        }
        let verifier = match secret.starts_with("whsec_") {
            true => standardwebhooks::Webhook::new(secret),
            false => standardwebhooks::Webhook::from_bytes(secret.as_bytes().to_vec()),
        };
        if let Err(why) = verifier.and_then(|v| v.verify(body, &map)) {
            wrong.push(format!("signature: {why}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_key_rules() {
        let mut m = Memory::default();
        let event = |action: &str| json!({"routing_key": "r", "dedup_key": "k", "event_action": action, "payload": {"summary": "s"}});
        for action in ["resolve", "trigger", "trigger", "acknowledge", "trigger", "resolve", "resolve", "trigger"] {
            m.enqueue(&event(action));
        }
        assert_eq!(m.alerts.iter().map(|a| (a.state, a.triggers)).collect::<Vec<_>>(), [(AlertState::Resolved, 3), (AlertState::Triggered, 1)]);
        assert_eq!(m.dropped, 2);
    }

    #[test]
    fn refuses_what_the_page_does_not_allow() {
        let headers =
            BTreeMap::from([("content-type".to_owned(), "application/json".to_owned()), ("user-agent".to_owned(), "Bellwether/0".to_owned())]);
        let good = json!({"routing_key": "r".repeat(32), "dedup_key": "k", "event_action": "trigger",
            "payload": {"summary": "s", "source": "x", "severity": "error"}});
        assert_eq!(check_event(&good, &headers, b""), Ok(()));
        for (pointer, value) in [
            ("/routing_key", json!("short")),
            ("/dedup_key", json!("k".repeat(256))),
            ("/payload/summary", json!("ü".repeat(1_025))),
            ("/payload/severity", json!("fatal")),
            ("/event_action", json!("open")),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(pointer).expect("a member") = value;
            assert!(check_event(&bad, &headers, b"").is_err(), "{pointer}");
        }
    }
}
