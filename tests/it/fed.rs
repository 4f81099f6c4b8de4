//! A daemon that reads its standard input: events go in at one end, and what it tells a pager and its API comes out at the other.

use std::io::{BufWriter, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use bellwether::domain::Time;
use serde_json::Value;

use crate::daemon::{ROUTING_KEY, http};
use crate::oracle::Oracle;

pub struct Fed {
    child: Child,
    /// Stays open: the end of a file would be the end of the world.
    stdin: BufWriter<ChildStdin>,
    pub port: u16,
    pub oracle: Oracle,
    folder: tempfile::TempDir,
}

impl Drop for Fed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
    }
}

impl Fed {
    /// `more`: further receivers (indented by two) and keys of the configuration, from the receivers' address; `before` may put files
    /// beside it.
    pub fn start(more: impl FnOnce(&str) -> String, before: impl FnOnce(&Path)) -> Fed {
        let oracle = Oracle::start();
        let more = more(&oracle.url);
        let folder = tempfile::tempdir().expect("a folder");
        before(folder.path());
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let config = format!(
            "files: [\"-\"]\nlisten: 127.0.0.1:{port}\ninstance: test\nreceivers:\n  oncall: {{type: pagerduty, routing_key: {ROUTING_KEY}, url: \"{}/v2/enqueue\"}}\n\
             {more}",
            oracle.url
        );
        std::fs::write(folder.path().join("bellwether.yaml"), config).expect("written");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            .args(["run", "--log-format", "json", "--config", "bellwether.yaml", "--data-dir", "data"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("a process");
        let stdin = BufWriter::new(child.stdin.take().expect("piped"));
        Fed { child, stdin, port, oracle, folder }
    }

    /// What is kept in a static is never dropped, and its process would stay.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub fn say(&mut self, lines: &str) {
        self.stdin.write_all(lines.as_bytes()).unwrap_or_else(|e| panic!("it reads no more: {e}\n{}", self.log()));
    }

    /// Everything said has been handed over.
    pub fn flush(&mut self) {
        self.stdin.flush().expect("written");
    }

    pub fn get(&self, path: &str) -> Value {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match http(self.port, "GET", path, "") {
                Ok((200, body)) => return serde_json::from_str(&body).expect("JSON"),
                other => assert!(Instant::now() < until, "{path}: {other:?}\n{}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn until(&self, what: &str, mut is_so: impl FnMut(&Fed) -> bool) {
        let until = Instant::now() + Duration::from_secs(180);
        while !is_so(self) {
            assert!(Instant::now() < until, "no {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn judged_through(&self) -> Option<Time> {
        let engine = &self.get("/api/v1/status/runtimeinfo")["engine"];
        engine["judged_through"].as_str().and_then(Time::parse_rfc3339)
    }

    pub fn outbox_is_empty(&self) -> bool {
        let outbox = &self.get("/api/v1/status/runtimeinfo")["health"]["outbox"];
        outbox.as_array().is_none_or(|o| o.iter().all(|r| r["pending"] == 0))
    }

    /// All incidents with their timelines and deliveries.
    pub fn incidents(&self) -> Vec<Value> {
        let list = self.get("/api/v1/incidents?limit=500");
        let ids = list["data"].as_array().cloned().unwrap_or_default();
        ids.iter().filter_map(|i| i["id"].as_str()).map(|id| self.get(&format!("/api/v1/incidents/{id}"))).collect()
    }

    /// A command of the program against this daemon: its exit code, and what it printed.
    pub fn command(&self, arguments: &[&str]) -> (i32, String) {
        let out = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            .args(arguments)
            .args(["--server", &format!("127.0.0.1:{}", self.port)])
            .env("USER", "ana")
            .current_dir(self.folder.path())
            .output()
            .expect("runs");
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        (out.status.code().unwrap_or(-1), text)
    }
}
