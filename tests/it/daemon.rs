//! The daemon as a process of its own: started, asked over HTTP, killed, started again; and the fleet that feeds it through Kafka.
//!
//! Traffic is simulated time: every record carries the moment at which the fleet's event arrived as its record time, which lies
//! in the past, so hours pass in seconds and nothing here waits for a clock that it could turn by hand.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bellwether::domain::Time;
use bellwether::fleet::{Fleet, Made, Plan};
use bellwether::source::embedded::{Outgoing, Producer};
use serde_json::Value;

use crate::broker::Broker;

/// A routing key that PagerDuty's rules allow.
pub const ROUTING_KEY: &str = "0123456789abcdef0123456789abcdef";
/// Lines of the log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// What a daemon of these tests is told.
pub struct Config<'a> {
    pub broker: &'a str,
    pub topic: &'a str,
    pub group: &'a str,
    /// Everything pages here; None: there is nobody to tell.
    pub oracle: Option<&'a str>,
    pub pane: &'a str,
    pub lateness: &'a str,
    /// Further keys, as YAML.
    pub more: &'a str,
}

/// One data folder and the process that works in it.
pub struct Daemon {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    pub starts: u32,
    /// Environment of the process.
    pub env: Vec<(String, String)>,
}

// === impl Config ===

impl Config<'_> {
    fn yaml(&self, port: u16) -> String {
        let people = self.oracle.map_or_else(String::new, |url| {
            format!(
                "receivers:\n  oncall: {{type: pagerduty, routing_key: {ROUTING_KEY}, url: \"{url}/v2/enqueue\"}}\nroutes:\n  - {{to: [oncall]}}\n"
            )
        });
        format!(
            "kafka:\n  brokers: [\"{}\"]\n  topics: [{}]\n  group: {}\n  from: 60d\nsegments: [region]\nbaseline: {{learn: 30m}}\npane: {}\nlateness: {}\n\
             listen: 127.0.0.1:{port}\ninstance: test\n{people}{}",
            self.broker, self.topic, self.group, self.pane, self.lateness, self.more
        )
    }
}

// === impl Daemon ===

impl Daemon {
    /// Configured and not started.
    pub fn new(config: &Config<'_>) -> Daemon {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        std::fs::write(folder.path().join("bellwether.yaml"), config.yaml(port)).expect("written");
        Daemon { folder, port, child: None, starts: 0, env: Vec::new() }
    }

    /// Another configuration from the next start on.
    pub fn configure(&self, config: &Config<'_>) {
        std::fs::write(self.folder.path().join("bellwether.yaml"), config.yaml(self.port)).expect("written");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.path().join("bellwether.yaml")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Begins with the state that another daemon left behind.
    pub fn inherit(&self, data: &Path) {
        std::fs::create_dir_all(self.data()).expect("a folder");
        for file in std::fs::read_dir(data).expect("a folder").flatten().filter(|f| f.path().is_file()) {
            std::fs::copy(file.path(), self.data().join(file.file_name())).expect("copied");
        }
    }

    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.starts += 1;
        let log = File::options().create(true).append(true).open(self.folder.path().join("log")).expect("a log");
        let folder = self.folder.path();
        let child = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            .args(["run", "--log-format", "json", "--config"])
            .arg(folder.join("bellwether.yaml"))
            .arg("--data-dir")
            .arg(folder.join("data"))
            .envs(self.env.iter().cloned())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a process");
        self.child = Some(child);
    }

    /// Started, and with places to read from.
    pub fn start_ready(&mut self) {
        self.start();
        self.until("readiness", 60, |d| d.try_get("/-/ready").is_some_and(|(status, _)| status == 200));
    }

    /// Waits until history is read: what comes after it pages.
    pub fn until_caught_up(&mut self, seconds: u64) {
        self.until("end of history", seconds, |d| d.log().contains("history is read"));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("a process").id();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// SIGTERM; how it ended, and how long it took.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.signal("TERM");
        let status = self.wait_exit(40);
        (status, began.elapsed())
    }

    pub fn wait_exit(&mut self, seconds: u64) -> ExitStatus {
        let began = Instant::now();
        let mut child = self.child.take().expect("a process");
        loop {
            if let Some(status) = child.try_wait().expect("its status") {
                return status;
            }
            if began.elapsed() > Duration::from_secs(seconds) {
                let _ = child.kill();
                let _ = child.wait();
                panic!("it did not end within {seconds} s\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub fn has_died(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|c| c.try_wait().expect("its status"))
    }

    /// Waits until it is so; a process that dies meanwhile ends the test.
    pub fn until(&mut self, what: &str, seconds: u64, mut is_so: impl FnMut(&Daemon) -> bool) {
        let until = Instant::now() + Duration::from_secs(seconds);
        while !is_so(self) {
            if let Some(status) = self.has_died() {
                panic!("it ended while {what} was waited for: {status}\n{}", self.log_tail());
            }
            assert!(Instant::now() < until, "no {what} within {seconds} s: {}\n{}", self.runtime(), self.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    // --- what it says ---

    pub fn try_get(&self, path: &str) -> Option<(u16, String)> {
        http(self.port, "GET", path, "").ok()
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self.try_get(path).unwrap_or_else(|| panic!("no answer to {path}\n{}", self.log_tail()));
        assert!(status == 200, "{path}: {status} {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    pub fn runtime(&self) -> Value {
        self.try_get("/api/v1/status/runtimeinfo").and_then(|(_, body)| serde_json::from_str(&body).ok()).unwrap_or_default()
    }

    /// The engine in numbers; null while it cannot be asked.
    pub fn engine(&self) -> Value {
        self.runtime()["engine"].take()
    }

    /// Everything before this is judged.
    pub fn judged_through(&self) -> Option<Time> {
        self.engine()["judged_through"].as_str().and_then(Time::parse_rfc3339)
    }

    /// Every event that it has looked at: accepted, doubled and refused.
    pub fn events_seen(&self) -> u64 {
        let engine = self.engine();
        ["events", "duplicates", "rejected"].iter().filter_map(|name| engine[name].as_u64()).sum()
    }

    /// All incidents with their timelines and deliveries, oldest first.
    pub fn incidents(&self) -> Vec<Value> {
        let list = self.get("/api/v1/incidents?limit=500");
        let ids = list["data"].as_array().cloned().unwrap_or_default();
        let mut pages: Vec<Value> = ids.iter().filter_map(|i| i["id"].as_str()).map(|id| self.get(&format!("/api/v1/incidents/{id}"))).collect();
        pages.sort_by_key(|p| (p["incident"]["opened_at"].as_str().map(str::to_owned), p["incident"]["id"].as_str().map(str::to_owned)));
        pages
    }

    pub fn models(&self) -> Vec<Value> {
        self.get("/api/v1/models")["data"].as_array().cloned().unwrap_or_default()
    }

    pub fn metrics(&self) -> String {
        self.try_get("/metrics").expect("metrics").1
    }

    /// The value of a metric, by the beginning of its line up to the value.
    pub fn metric(&self, line: &str) -> Option<f64> {
        self.metrics().lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log_tail());
        }
    }
}

/// One request and its answer, without a library, so that it works from any thread.
pub fn http(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let kind = if body.is_empty() { "" } else { "content-type: application/json\r\n" };
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n{kind}content-length: {length}\r\n\r\n{body}")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunk(body) } else { body.to_owned() }))
}

fn unchunk(mut rest: &str) -> String {
    let mut out = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Some(chunk) = usize::from_str_radix(size.trim(), 16).ok().filter(|n| *n > 0).and_then(|n| after.get(..n)) else { break };
        out.push_str(chunk);
        rest = after.get(chunk.len() + 2..).unwrap_or("");
    }
    out
}

// === the fleet's producer ===

/// A fleet whose events go to a topic, with the fleet's arrival as the time of the record.
pub struct Feed {
    pub fleet: Fleet,
    pub topic: String,
    producer: Producer,
    made: Vec<Made>,
    /// Records sent, copies included.
    pub sent: u64,
}

/// Records of old times are kept, and so are those of times to come.
pub const KEPT: &[(&str, &str)] = &[("retention.ms", "-1"), ("message.timestamp.after.max.ms", "9223372036854775807")];

impl Feed {
    /// A new topic with so many partitions, and nothing in it.
    pub fn new(broker: &Broker, topic: &str, partitions: i32, plan: Plan, seed: u64, start: Time) -> Feed {
        broker.create_topic(topic, partitions, KEPT);
        Feed::onto(broker, topic, Fleet::new(plan, seed, start))
    }

    pub fn onto(broker: &Broker, topic: &str, fleet: Fleet) -> Feed {
        Feed::with_properties(broker, topic, fleet, &[])
    }

    pub fn with_properties(broker: &Broker, topic: &str, fleet: Fleet, properties: &[(&str, &str)]) -> Feed {
        let properties = properties.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let producer = Producer::start(&broker.bootstrap, &properties).expect("a producer");
        Feed { fleet, topic: topic.to_owned(), producer, made: Vec::new(), sent: 0 }
    }

    /// Everything that arrives before `until`, as fast as it goes; on the broker when it returns.
    pub fn run_until(&mut self, until: Time) {
        let mut at = self.fleet.frontier();
        while at < until {
            at = at.plus_ms(60_000).min(until);
            self.made.clear();
            self.fleet.next_before(at, &mut self.made);
            for m in &self.made {
                self.producer.send(outgoing(&self.topic, m)).expect("sent");
            }
            self.sent += self.made.len() as u64;
        }
        self.producer.flush(Duration::from_secs(120)).expect("all written");
    }

    /// The same, `speed` times as fast as real time.
    pub fn pace_until(&mut self, until: Time, speed: f64) {
        let step_ms = (200.0 * speed) as i64;
        let (began, from) = (Instant::now(), self.fleet.frontier());
        while self.fleet.frontier() < until {
            let to = self.fleet.frontier().plus_ms(step_ms).min(until);
            self.run_until(to);
            let due = Duration::from_secs_f64(to.since_ms(from) as f64 / 1e3 / speed);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }

    /// Any record, between those of the fleet.
    pub fn send(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, time: Time) {
        let out = Outgoing { topic: &self.topic, key, value, time: Some(time), ..Outgoing::default() };
        self.producer.send(out).expect("sent");
        self.sent += 1;
    }
}

fn outgoing<'a>(topic: &'a str, made: &'a Made) -> Outgoing<'a> {
    Outgoing { topic, key: Some(made.key.as_bytes()), value: Some(&made.json), time: Some(made.arrival), ..Outgoing::default() }
}

/// A start so long ago that nothing of the test lies in the future, at a full hour.
pub fn days_ago(days: i64) -> Time {
    Time(bellwether::daemon::now().0 - days * 86_400_000).floor(3_600_000)
}
