//! The binary as a user types it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use bellwether::decode::kcat::wrap_dump;
use bellwether::domain::Time;
use bellwether::fleet::{Fault, Fleet, Made, Plan};
use serde_json::Value;

/// Monday, 09:00 UTC.
const START: Time = Time(1_795_424_400_000);
const MINUTES: i64 = 46;
/// The fault comes in this minute.
const FAULT_MINUTE: i64 = 41;

fn bellwether(folder: &Path, arguments: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    command.args(arguments).current_dir(folder).env_remove("BELLWETHER_CONFIG").env_remove("STATE_DIRECTORY");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|s| {
        // Whoever does not read his input may close it.
        s.spawn(move || drop(input.write_all(stdin)));
        child.wait_with_output().unwrap()
    })
}

#[track_caller]
fn check(arguments: &[&str], code: i32) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    check_in(folder.path(), arguments, b"", code)
}

#[track_caller]
fn check_in(folder: &Path, arguments: &[&str], stdin: &[u8], code: i32) -> (String, String) {
    let out = bellwether(folder, arguments, stdin);
    let (text, errors) = (String::from_utf8_lossy(&out.stdout).into_owned(), String::from_utf8_lossy(&out.stderr).into_owned());
    assert_eq!(out.status.code(), Some(code), "{arguments:?}\n{text}\n{errors}");
    (text, errors)
}

fn with_file(name: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    folder
}

// --- help, usage, configuration ---

#[test]
fn every_help_teaches_by_examples() {
    for command in ["run", "demo", "check", "backtest", "incidents", "notify", "config", "kinds", "completions"] {
        let (text, _) = check(&[command, "--help"], 0);
        assert!(text.contains("Examples:") && text.contains("bellwether ") && text.contains("--config"), "{command}: {text}");
    }
    let (text, _) = check(&["--help"], 0);
    assert!(text.contains("Exit codes: 0 ok, 1 failure, 2 usage, 78 configuration"), "{text}");
    check(&["--version"], 0);
}

#[test]
fn a_command_line_without_sense_is_usage() {
    for arguments in
        [&["rnu"][..], &[], &["backtest"], &["kinds", "-o", "xml"], &["demo", "--fault", "eror_spike"], &["backtest", "x", "--live-from", "soon"]]
    {
        let (text, errors) = check(arguments, 2);
        assert!(text.is_empty() && !errors.is_empty(), "{arguments:?}: {text}");
    }
    let (_, errors) = check(&["demo", "--fault", "eror_spike"], 2);
    assert!(errors.contains("known: error_spike"), "{errors}");
}

#[test]
fn a_wrong_configuration_is_told_with_places_and_ends_with_78() {
    let folder = with_file("bellwether.yaml", "kafka:\n  brokers: [localhost:9092]\n  topics: [t]\n  gruop: x\nbudget: {false_pages: 0}\n");
    for command in [&["check"][..], &["run"], &["config", "show"], &["backtest", "x"], &["notify", "test", "x"]] {
        let (_, errors) = check_in(folder.path(), command, b"", 78);
        assert!(errors.contains("error: bellwether.yaml:4:3: kafka.gruop: "), "{command:?}: {errors}");
        assert!(errors.contains("hint: did you mean \"group\"?"), "{errors}");
        assert!(errors.contains("bellwether.yaml:5:"), "all at once: {errors}");
    }
    let (_, errors) = check(&["check"], 78);
    assert!(errors.contains("bellwether config sample"), "{errors}");
    let (_, errors) = check(&["check", "--config", "nowhere.yaml"], 78);
    assert!(errors.contains("nowhere.yaml: cannot be read"), "{errors}");
}

#[test]
fn flags_go_before_the_file_and_are_checked_like_it() {
    let folder = with_file("b.yaml", "files: [x.ndjson]\n");
    let (_, errors) = check_in(folder.path(), &["run", "--config", "b.yaml", "--listen", "nonsense"], b"", 78);
    assert!(errors.contains("--listen"), "{errors}");
}

#[test]
fn the_sample_is_in_order_and_the_schema_is_json() {
    let (sample, _) = check(&["config", "sample"], 0);
    let folder = with_file("bellwether.yaml", &sample.replace("${PAGERDUTY_ROUTING_KEY}", "0123456789abcdef0123456789abcdef"));
    check_in(folder.path(), &["check"], b"", 0);
    let (schema, _) = check(&["config", "schema"], 0);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert!(schema["properties"]["kafka"].is_object());
    let (shown, _) = check_in(folder.path(), &["config", "show"], b"", 0);
    assert!(shown.contains("<secret>") && !shown.contains("0123456789abcdef"), "{shown}");
}

#[test]
fn kinds_lists_everything_with_its_settings() {
    let (text, _) = check(&["kinds", "-o", "json"], 0);
    let kinds: Value = serde_json::from_str(&text).unwrap();
    let names = |list: &str| kinds[list].as_array().unwrap().iter().map(|k| k["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names("detectors"), ["rate", "limit", "bins", "classes", "counts", "seasonal_step", "gap", "rules"]);
    assert_eq!(names("formats"), bellwether::decode::KINDS.iter().map(|k| k.name).collect::<Vec<_>>());
    assert_eq!(names("receivers"), bellwether::notify::KINDS.iter().map(|k| k.name).collect::<Vec<_>>());
    assert_eq!(names("sources"), ["kafka", "files"]);
    let (table, _) = check(&["kinds"], 0);
    for list in ["detectors", "formats", "receivers", "sources"] {
        assert!(names(list).iter().all(|name| table.contains(&format!("  {name}: "))), "{table}");
    }
}

#[test]
fn shells_get_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let (text, _) = check(&["completions", shell], 0);
        assert!(text.contains("backtest"), "{shell}");
    }
}

// --- backtest ---

/// A history of a fleet with one fault.
struct History {
    _folder: tempfile::TempDir,
    path: PathBuf,
    made: Vec<Made>,
    /// Once each, and copies.
    events: u64,
    copies: u64,
}

fn history() -> &'static History {
    static HISTORY: OnceLock<History> = OnceLock::new();
    HISTORY.get_or_init(|| {
        let mut fleet = Fleet::new(Plan { share: 0.15, ..Plan::demo() }, 7, START);
        fleet.switch(Fault::ErrorSpike, true, START.plus_ms(FAULT_MINUTE * 60_000));
        let mut made = Vec::new();
        fleet.next_before(START.plus_ms(MINUTES * 60_000), &mut made);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.ndjson");
        std::fs::write(&path, lines(&made)).unwrap();
        History { path, _folder: folder, events: fleet.truth().events(), copies: fleet.truth().copies(), made }
    })
}

fn lines(made: &[Made]) -> Vec<u8> {
    made.iter().flat_map(|m| m.json.iter().copied().chain([b'\n'])).collect()
}

fn backtest(arguments: &[&str], stdin: &[u8]) -> (Vec<Value>, String) {
    let folder = tempfile::tempdir().unwrap();
    let (text, errors) = check_in(folder.path(), &[&["backtest", "-o", "jsonl"], arguments].concat(), stdin, 0);
    (text.lines().map(|l| serde_json::from_str(l).unwrap()).collect(), errors)
}

fn of<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|l| l["type"] == kind).collect()
}

/// What must be the same however the same events are read.
fn comparable(lines: &[Value]) -> Vec<Value> {
    let mut lines = lines.to_vec();
    lines.iter_mut().filter(|l| l["type"] == "summary").for_each(|l| drop(l.as_object_mut().unwrap().remove("seconds")));
    lines
}

#[test]
fn a_fault_in_a_history_is_one_incident_that_would_have_paged() {
    let history = history();
    let (lines, errors) = backtest(&[history.path.to_str().unwrap()], b"");
    let incidents = of(&lines, "incident");
    println!("{errors}");
    for l in &lines {
        println!("{l}");
    }
    let paged: Vec<_> = incidents.iter().filter(|i| i["paged"] == true && i["state"] == "open").collect();
    assert_eq!(paged.len(), 1);
    let incident = paged[0];
    assert_eq!((&incident["category"], &incident["model"]), (&"model_failure".into(), &"loan-scorer".into()));
    let [.., last] = lines.as_slice() else { panic!("nothing") };
    assert_eq!(last["type"], "summary");
    assert_eq!(last["events"], history.events);
    assert_eq!(last["duplicates"], history.copies);
    assert_eq!((&last["pages"], &last["incidents"], &last["rejected"]), (&1.into(), &1.into(), &0.into()));
    assert!(last["expected_false_pages"].as_f64().unwrap() > 0.0 && last["series"].as_u64().unwrap() > 50);
}

#[test]
fn standard_input_and_compressed_files_give_the_same_lines() {
    let history = history();
    let plain = lines(&history.made);
    let (expected, _) = backtest(&[history.path.to_str().unwrap()], b"");
    let expected = comparable(&expected);
    let folder = tempfile::tempdir().unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).unwrap();
    let gz = gz.finish().unwrap();
    let (gz_path, zst_path) = (folder.path().join("e.gz"), folder.path().join("e.zst"));
    std::fs::write(&gz_path, &gz).unwrap();
    std::fs::write(&zst_path, zstd::encode_all(&plain[..], 1).unwrap()).unwrap();
    for (arguments, stdin) in [("-", &plain[..]), ("-", &gz), (gz_path.to_str().unwrap(), b""), (zst_path.to_str().unwrap(), b"")] {
        let (lines, _) = backtest(&[arguments], stdin);
        assert_eq!(comparable(&lines), expected, "{arguments}");
    }
}
