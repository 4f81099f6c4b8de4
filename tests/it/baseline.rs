//! What a team says is normal: read from a table, learned before the first event, shown, kept over a kill, forgotten.

use std::fmt::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// 2026-11-02T00:00:00Z.
const START_S: i64 = 1_793_577_600;
const EVERY_S: i64 = 2;

struct Chance(u64);

impl Chance {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

struct Loan {
    income: Option<f64>,
    purpose: &'static str,
    score: f64,
}

fn loan(chance: &mut Chance, factor: f64) -> Loan {
    let income = (8.0 + 0.5 * chance.normal()).exp() * factor;
    let missing = chance.unit() < 0.02;
    Loan {
        income: (!missing).then_some(income),
        purpose: ["car", "house", "study"][(chance.unit() * 3.0) as usize],
        score: 0.2 + 0.6 * chance.unit(),
    }
}

/// A table of so many rows from the ten days before, newest first.
fn reference(rows: i64) -> String {
    let mut chance = Chance(3);
    let mut out = String::from("ts,income,purpose,y_pred_proba,target,comment\n");
    for i in (0..rows).rev() {
        let Loan { income, purpose, score } = loan(&mut chance, 1.0);
        let income = income.map_or_else(|| "NA".to_owned(), |n| format!("{n:.0}"));
        writeln!(out, "{},{income},{purpose},{score:.3},{},\"row, {i}\"", START_S - 10 * 86_400 + i * 864_000 / rows, i % 2).expect("text");
    }
    out
}

/// Minutes of events; from one of them on incomes are half of what they were.
fn events(minutes: i64, halved_from: i64) -> String {
    let mut chance = Chance(11);
    let mut out = String::new();
    for i in 0..minutes * 60 / EVERY_S {
        let t = START_S + i * EVERY_S;
        let Loan { income, purpose, score } = loan(&mut chance, if i * EVERY_S >= halved_from * 60 { 0.5 } else { 1.0 });
        let income = income.map_or_else(|| "null".to_owned(), |n| format!("{n:.0}"));
        writeln!(
            out,
            r#"{{"kind":"prediction","id":"p{i}","model":"loan-scorer","environment":"prod","version":"1","time":{t},"score":{score:.3},"features":{{"income":{income},"purpose":"{purpose}"}}}}"#
        )
        .expect("text");
    }
    out
}

fn bellwether(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bellwether"))
        .current_dir(folder)
        .env_remove("BELLWETHER_CONFIG")
        .env_remove("BELLWETHER_SERVER")
        .env("USER", "anna")
        .args(arguments)
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn write(folder: &Path, name: &str, content: &str) {
    std::fs::write(folder.join(name), content).expect("written");
}

fn backtest(folder: &Path, more: &str) -> Vec<Value> {
    write(folder, "bellwether.yaml", &format!("kafka: {{brokers: [\"127.0.0.1:9\"], topics: [t]}}\n{more}"));
    let out = bellwether(folder, &["backtest", "-o", "jsonl", "events.ndjson"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    text(&out.stdout).lines().map(|l| serde_json::from_str(l).expect("json")).collect()
}

fn incidents(lines: &[Value]) -> Vec<&Value> {
    lines.iter().filter(|l| l["type"] == "incident").collect()
}

#[test]
fn a_model_with_a_reference_is_watched_on_its_first_day() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write(folder, "reference.csv", &reference(12_000));
    write(folder, "events.ndjson", &events(120, 60));
    let taught = "models: {loan-scorer: {reference: reference.csv}}\n";
    let lines = backtest(folder, taught);
    let found = incidents(&lines);
    let last = found.last().unwrap_or_else(|| panic!("{lines:#?}"));
    assert_eq!(last["signals"], serde_json::json!(["feature:income"]), "{last}");
    assert!(found[0]["onset"].as_str().is_some_and(|t| ("2026-11-02T00:50".."2026-11-02T01:10").contains(&t)), "{last}");
    assert!(incidents(&backtest(folder, "")).is_empty(), "without it the day is for learning");

    write(folder, "events.ndjson", &events(600, 10_000));
    assert!(incidents(&backtest(folder, taught)).is_empty(), "quiet traffic is what the reference says");
    write(folder, "events.ndjson", &events(60, 0));
    let below = incidents(&backtest(folder, taught)).iter().map(|i| i["title"].to_string()).collect::<Vec<_>>();
    assert!(below.iter().any(|t| t.contains("feature income")), "bad from the first event on: {below:?}");
    let lines = backtest(folder, "models: {loan-scorer: {baseline: {reference: reference.csv}}}\n");
    assert!(!incidents(&lines).is_empty(), "the other way to write it");
}

#[test]
fn a_table_is_described_and_what_is_none_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write(folder, "reference.csv", &reference(500));
    let out = bellwether(folder, &["baseline", "import", "reference.csv", "--dry-run", "--role", "purpose=ignored", "-o", "json"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let told: Value = serde_json::from_slice(&out.stdout).expect("json");
    assert_eq!((&told["rows"], &told["file"]), (&500.into(), &"reference.csv".into()));
    let columns: Vec<(&str, &str, &str)> = (told["columns"].as_array().into_iter().flatten())
        .map(|c| (c["name"].as_str().unwrap_or(""), c["kind"].as_str().unwrap_or(""), c["role"].as_str().unwrap_or("")))
        .collect();
    let expected = [
        ("ts", "number", "timestamp"),
        ("income", "number", "feature"),
        ("purpose", "text", "ignored"),
        ("y_pred_proba", "number", "score"),
        ("target", "number", "label"),
        ("comment", "text", "ignored"),
    ];
    assert_eq!(columns, expected);
    assert!(told["columns"][1]["missing"].as_u64().is_some_and(|n| (3..30).contains(&n)), "{told}");

    write(folder, "reference.parquet", "PAR1 and so on");
    for (arguments, words, code) in [
        (&["reference.parquet", "--dry-run"][..], "Parquet, which is not read yet", 1),
        (&["reference.csv", "--dry-run", "--role", "income=money"], "unknown role \"money\"", 2),
        (&["reference.csv", "--dry-run", "--role", "incme=feature"], "there is no column \"incme\"", 1),
        (&["nothing.csv", "--dry-run"], "cannot read nothing.csv", 1),
        (&["reference.csv"], "--model", 2),
    ] {
        let out = bellwether(folder, &[&["baseline", "import"], arguments].concat());
        assert!(out.status.code() == Some(code) && text(&out.stderr).contains(words), "{arguments:?}: {}", text(&out.stderr));
    }
}

/// A daemon over a file of events, which ends when the test does.
struct Running {
    child: Child,
    server: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(folder: &Path) -> Running {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let child = Command::new(env!("CARGO_BIN_EXE_bellwether"))
            .current_dir(folder)
            .env_remove("BELLWETHER_CONFIG")
            .args(["run", "--listen", &address, "--data-dir", "state", "--log-format", "json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        Running { child, server: format!("http://{address}") }
    }

    /// What `baseline show` says, once it says anything that fits.
    fn until(&self, folder: &Path, what: &str, fits: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let out = bellwether(folder, &["baseline", "show", "--server", &self.server, "--model", "loan-scorer", "-o", "json"]);
            let all: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap_or_default();
            if out.status.success() && fits(&all) {
                return all;
            }
            assert!(Instant::now() < until, "not within a minute: {what}; {all:#?} {}", text(&out.stderr));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn of<'a>(all: &'a [Value], signal: &str) -> &'a Value {
    all.iter().find(|b| b["signal"] == signal).unwrap_or(&Value::Null)
}

#[test]
fn an_import_is_answered_shown_kept_over_a_kill_and_forgotten() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write(folder, "reference.csv", &reference(12_000));
    write(folder, "events.ndjson", &events(20, 10_000));
    write(folder, "bellwether.yaml", "files: [events.ndjson]\n");
    let daemon = Running::start(folder);
    let before = daemon.until(folder, "the events are judged", |all| of(all, "feature:income")["environment"] == "prod");
    assert_eq!((&of(&before, "feature:income")["state"], &of(&before, "feature:income")["learned_from"]), (&"warming".into(), &Value::Null));

    let out = bellwether(folder, &["baseline", "import", "reference.csv", "--model", "loan-scorer", "--server", &daemon.server]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let table = text(&out.stdout);
    for words in [
        "12,000 rows of 2026-10-23 to 2026-11-01",
        "by anna",
        "nearly every value differs",
        "feature:income",
        "missing:income",
        "unseen:purpose",
        "armed",
    ] {
        assert!(table.contains(words), "{words}: {table}");
    }
    assert!(!table.contains("error_rate"), "no column tells errors: {table}");

    let learned = |all: &[Value]| {
        let income = of(all, "feature:income");
        income["environment"] == "prod"
            && income["state"] == "armed"
            && income["learned_from"].as_str().is_some_and(|w| w.starts_with("reference.csv (sha256 "))
    };
    let shown = daemon.until(folder, "the baseline is the reference's", learned);
    assert_eq!(of(&shown, "error_rate")["learned_from"], Value::Null);
    drop(daemon);

    let daemon = Running::start(folder);
    let again = daemon.until(folder, "the same after a kill", learned);
    assert_eq!(of(&again, "feature:income")["value"], of(&shown, "feature:income")["value"]);
    // The page of the series says so as well.
    let list = get(&format!("{}/api/v1/series?model=loan-scorer", daemon.server));
    let list: Value = serde_json::from_str(&list).expect("json");
    let series = list["data"].as_array().into_iter().flatten().find(|s| s["key"]["signal"] == "feature:income").expect("a series").clone();
    let page = get(&format!("{}/series/{}", daemon.server, series["id"].as_str().expect("an id")));
    assert!(page.contains("Its baseline began with reference.csv (sha256 "), "{page}");

    let reset = ["baseline", "reset", "--model", "loan-scorer", "--signal", "feature:income", "--server", &daemon.server];
    let out = bellwether(folder, &reset);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let after = daemon.until(folder, "one signal is forgotten", |all| of(all, "feature:income")["learned_from"].is_null());
    assert!(of(&after, "feature:income")["state"] == "warming" && of(&after, "missing:income")["learned_from"].is_string(), "{after:#?}");
    let out = bellwether(folder, &["baseline", "reset", "--model", "no-such", "--server", &daemon.server]);
    assert!(out.status.code() == Some(1) && text(&out.stderr).contains("nothing is known of the model \"no-such\""), "{}", text(&out.stderr));
}

/// One GET, without a library.
fn get(url: &str) -> String {
    use std::io::{Read, Write as _};
    let rest = url.strip_prefix("http://").expect("an address");
    let (address, path) = rest.split_at(rest.find('/').expect("a path"));
    let mut socket = std::net::TcpStream::connect(address).expect("a connection");
    write!(socket, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
}
