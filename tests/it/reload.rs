//! A configuration read again while the daemon runs: whole or not at all, and with the flags it was started with.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Running {
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(config: &Path, data: &Path) -> Running {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            .args(["run", "--listen", &address, "--config"])
            .arg(config)
            .arg("--data-dir")
            .arg(data)
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        let running = Running { child, address };
        let until = Instant::now() + Duration::from_secs(60);
        while running.ask("GET", "/-/healthy").is_none_or(|a| a.0 != 200) {
            assert!(Instant::now() < until, "not up within a minute");
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }

    /// Status and body.
    fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut socket = TcpStream::connect(&self.address).ok()?;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.address);
        socket.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    fn reload(&self) -> (u16, String) {
        self.ask("POST", "/-/reload").expect("an answer")
    }

    fn last_reload_worked(&self) -> bool {
        let metrics = self.ask("GET", "/metrics").expect("metrics").1;
        metrics.lines().any(|l| l == "bellwether_config_last_reload_successful 1")
    }
}

#[test]
fn a_reload_is_whole_or_refused_and_keeps_the_flags() {
    let folder = tempfile::tempdir().expect("a folder");
    let events = folder.path().join("events.ndjson");
    std::fs::write(&events, "{\"kind\":\"heartbeat\",\"model\":\"m\"}\n").expect("written");
    let config = folder.path().join("bellwether.yaml");
    let write = |more: &str| std::fs::write(&config, format!("files: [{}]\n{more}", events.display())).expect("written");
    write("");
    let running = Running::start(&config, &folder.path().join("state"));

    assert_eq!(running.reload().0, 200, "the same file, with --listen and --data-dir still in force");
    write("receivers:\n  hook: {type: webhook, url: \"http://127.0.0.1:9/\"}\n");
    assert_eq!(running.reload().0, 200);
    assert!(running.ask("GET", "/api/v1/status/config").expect("the configuration").1.contains("hook"));
    assert!(running.last_reload_worked());

    write("recievers: {}\n");
    let (status, words) = running.reload();
    assert_eq!(status, 400);
    assert!(words.contains("bellwether.yaml:2:1") && words.contains("receivers"), "{words}");
    assert!(!running.last_reload_worked());
    assert!(running.ask("GET", "/api/v1/status/config").expect("the configuration").1.contains("hook"), "the old one stays");

    write("pane: 20s\nreceivers:\n  hook: {type: webhook, url: \"http://127.0.0.1:9/\"}\n");
    let (status, words) = running.reload();
    assert_eq!(status, 400);
    assert!(words.contains("pane") && words.contains("restart"), "{words}");
    write("receivers:\n  hook: {type: webhook, url: \"http://127.0.0.1:9/\"}\n");
    assert_eq!(running.reload().0, 200);
    assert!(running.last_reload_worked());
}
