//! The binary as a user types it.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use bellwether::decode::kcat::wrap_dump;
use bellwether::decode::{self, Decoder};
use bellwether::domain::incident::{Actor, Incident, TimelineEntry};
use bellwether::domain::{IncidentState, Time};
use bellwether::engine::view::{EngineView, ModelView, SeriesPage, SeriesView};
use bellwether::engine::{Control, Engine, Entry, Outcome};
use bellwether::fleet::{Fault, Fleet, Made, Plan};
use bellwether::serve::{Backend, CommandError, FaultButton, IncidentFilter, IncidentPage, PersonCommand, Readiness};
use bellwether::store::{Commit, Store};
use serde_json::{Value, json};

/// Monday, 09:00 UTC.
const START: Time = Time(1_795_424_400_000);
const MINUTES: i64 = 46;
/// The fault comes in this minute.
const FAULT_MINUTE: i64 = 41;

fn bellwether(folder: &Path, arguments: &[&str], stdin: &[u8]) -> std::process::Output {
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
fn where_the_pages_address_is_taken_it_is_said_how_another_is_chosen() {
    let folder = with_file("bellwether.yaml", "files: [x.ndjson]\n");
    std::fs::write(folder.path().join("x.ndjson"), "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (command, by) in [("demo", "with --listen ADDR, "), ("run", "with --listen ADDR or the key `listen`, ")] {
        let (_, errors) = check_in(folder.path(), &[command, "--listen", &address], b"", 1);
        assert!(errors.contains(&format!("cannot listen on {address}")) && errors.contains(by), "{command}: {errors}");
    }
}

#[test]
fn every_help_teaches_by_examples() {
    for command in ["run", "demo", "check", "backtest", "simulate", "score", "incidents", "notify", "config", "kinds", "completions"] {
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
    let folder = tempfile::tempdir().unwrap();
    let empty = Command::new(env!("CARGO_BIN_EXE_bellwether")).arg("check").env("BELLWETHER_CONFIG", "").current_dir(folder.path()).output().unwrap();
    assert_eq!(empty.status.code(), Some(78), "an empty variable is as good as none");
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
    for output in ["json", "jsonl", "yaml"] {
        let (report, _) = check_in(folder.path(), &["check", "-o", output], b"", 0);
        assert!(report.contains("false_pages_in_30_days"), "{report}");
    }
    let (schema, _) = check(&["config", "schema"], 0);
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert!(schema["properties"]["kafka"].is_object());
    let (shown, _) = check_in(folder.path(), &["config", "show"], b"", 0);
    assert!(shown.contains("<secret>") && !shown.contains("0123456789abcdef"), "{shown}");
}

#[test]
fn check_says_what_will_be_watched_and_who_is_told() {
    let text = "kafka: {brokers: [\"localhost:9092\"], topics: [a, {name: b, kind: feedback}]}\nsegments: [region]\n\
                signals: {error_rate: {tolerance: 1.5x, never_above: 5%}}\n\
                receivers: {team: {type: webhook, url: \"http://127.0.0.1:1/x\", secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}\n\
                routes: [{severity: [1, 2], to: [team]}, {to: [team]}]\n";
    let folder = with_file("b.yaml", text);
    let (words, _) = check_in(folder.path(), &["check", "b.yaml"], b"", 0);
    let sentences = [
        "b.yaml is in order",
        "a (canonical), b (canonical, feedback) from localhost:9092",
        "by version and region",
        "2 false pages in 30 days over everything; at 340 series a page needs about 17.8 nats",
        "severity 1 or 2 -> team",
        "everything else -> team",
        "team (webhook)",
        "error_rate *",
        "canary",
    ];
    for sentence in sentences {
        assert!(words.contains(sentence), "{sentence}: {words}");
    }
    let (report, _) = check_in(folder.path(), &["check", "b.yaml", "-o", "json"], b"", 0);
    let report: Value = serde_json::from_str(&report).unwrap();
    let signals = report["watch"]["signals"].as_array().unwrap();
    let error_rate = signals.iter().find(|s| s["signal"] == "error_rate").unwrap();
    assert_eq!((&error_rate["tolerance"], &error_rate["never_above"], &error_rate["at_least"]), (&json!("50 %"), &json!(0.05), &json!(0.005)));

    std::fs::write(folder.path().join("bad.yaml"), "kafka: {brokers: [x], topics: [t]}\nlisten: 1\n").unwrap();
    let (report, errors) = check_in(folder.path(), &["check", "bad.yaml", "-o", "json"], b"", 78);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert!(errors.is_empty(), "{errors}");
    assert_eq!(report["ok"], false);
    assert_eq!(
        (&report["problems"][0]["file"], &report["problems"][0]["line"], &report["problems"][0]["column"]),
        (&json!("bad.yaml"), &json!(2), &json!(9))
    );
}

#[test]
fn a_warning_is_a_fault_only_if_wanted() {
    let folder = with_file("b.yaml", "files: [x.ndjson]\n");
    let (_, errors) = check_in(folder.path(), &["check", "b.yaml"], b"", 0);
    assert!(errors.contains("warning: b.yaml:1:1: receivers: there are none"), "{errors}");
    check_in(folder.path(), &["check", "b.yaml", "--strict"], b"", 78);
}

#[test]
fn online_what_is_missing_is_named_and_nothing_is_sent() {
    let there = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!(
        "kafka: {{brokers: [\"{gone}\"], topics: [t]}}\nheartbeat: {{url: \"http://localhost/x\"}}\nreceivers:\n  \
         there: {{type: webhook, url: \"http://{}/hook\", secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}}\n  gone: {{type: alertmanager, url: \"http://{gone}\"}}\n",
        there.local_addr().unwrap()
    );
    let folder = with_file("b.yaml", &text);
    let (report, _) = check_in(folder.path(), &["check", "b.yaml", "--online", "-o", "json"], b"", 1);
    let report: Value = serde_json::from_str(&report).unwrap();
    let ok = |what: &str| report["online"].as_array().unwrap().iter().find(|p| p["what"].as_str().unwrap().starts_with(what)).unwrap()["ok"] == true;
    assert_eq!((ok("kafka"), ok("receiver there"), ok("receiver gone"), ok("heartbeat")), (false, true, false, true), "{report}");
    let (mut connection, _) = there.accept().unwrap();
    let mut sent = Vec::new();
    std::io::Read::read_to_end(&mut connection, &mut sent).unwrap();
    assert!(sent.is_empty(), "{}", String::from_utf8_lossy(&sent));
}

#[test]
fn a_receiver_is_tested_by_name() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = format!("files: [x]\nreceivers: {{team: {{type: alertmanager, url: \"http://{gone}\"}}}}\n");
    let folder = with_file("bellwether.yaml", &text);
    let (_, errors) = check_in(folder.path(), &["notify", "test", "taem"], b"", 1);
    assert!(errors.contains("unknown receiver \"taem\" (known: team)") && errors.contains("did you mean \"team\"?"), "{errors}");
    let (answer, errors) = check_in(folder.path(), &["notify", "test", "team", "-o", "json"], b"", 1);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((&answer["receiver"], &answer["kind"]), (&json!("team"), &json!("alertmanager")));
    assert!(errors.contains("did not reach team"), "{errors}");
}

#[test]
fn kinds_lists_everything_with_its_settings() {
    let (text, _) = check(&["kinds", "-o", "json"], 0);
    let kinds: Value = serde_json::from_str(&text).unwrap();
    let names = |list: &str| kinds[list].as_array().unwrap().iter().map(|k| k["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names("detectors"), ["rate", "limit", "bins", "classes", "counts", "seasonal_step", "gap", "two_group", "rules"]);
    assert_eq!(names("formats"), bellwether::decode::KINDS.iter().map(|k| k.name).collect::<Vec<_>>());
    assert_eq!(names("receivers"), bellwether::notify::KINDS.iter().map(|k| k.name).collect::<Vec<_>>());
    assert_eq!(names("sources"), ["kafka", "files"]);
    let (table, _) = check(&["kinds"], 0);
    assert!(["psi", "ks", "adwin", "burn_rate"].iter().all(|t| names("tests").iter().any(|n| n == t)), "{:?}", names("tests"));
    for list in ["detectors", "tests", "formats", "receivers", "sources"] {
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
        let mut fleet = Fleet::new(Plan { share: 0.05, ..Plan::demo() }, 7, START);
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
    let (lines, _) = backtest(&[history.path.to_str().unwrap()], b"");
    let incidents = of(&lines, "incident");
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

/// The history as a topic of three partitions would have kept it. `in_turn`: one partition behind the other.
fn dump(made: &[Made], in_turn: bool) -> Vec<u8> {
    let mut partitions = vec![Vec::new(); 3];
    let mut mixed = Vec::new();
    for m in made {
        let partition = m.key.bytes().map(usize::from).sum::<usize>() % 3;
        let offset = partitions[partition].len() as i64;
        let line = wrap_dump("model-events", partition as i32, offset, Some(m.arrival), Some(m.key.as_bytes()), Some(&m.json)) + "\n";
        partitions[partition].push(line.clone());
        mixed.push(line);
    }
    let lines = if in_turn { partitions.concat() } else { mixed };
    lines.concat().into_bytes()
}

#[test]
fn a_dump_of_three_partitions_gives_the_same_incidents() {
    let history = history();
    let (plain, _) = backtest(&[history.path.to_str().unwrap()], b"");
    let incidents = |lines: &[Value]| -> Vec<Value> {
        let keep =
            |i: &&Value| json!({"model": i["model"], "category": i["category"], "state": i["state"], "paged": i["paged"], "severity": i["severity"]});
        of(lines, "incident").iter().map(keep).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dump");
    for in_turn in [false, true] {
        std::fs::write(&file, dump(&history.made, in_turn)).unwrap();
        let (dumped, errors) = backtest(&[file.to_str().unwrap()], b"");
        assert_eq!(incidents(&dumped), incidents(&plain), "{errors}");
        let sum = dumped.last().unwrap();
        assert_eq!((&sum["events"], &sum["duplicates"]), (&json!(history.events), &json!(history.copies)), "in turn: {in_turn}");
        assert_eq!((&sum["late"], &sum["rejected"]), (&json!(0), &json!(0)));
    }
    let (piped, _) = backtest(&["-"], &dump(&history.made, false));
    assert_eq!(incidents(&piped), incidents(&plain), "through a pipe");
    assert_eq!(piped.last().unwrap()["events"], history.events);
}

#[test]
fn a_history_in_several_files_is_one_history() {
    let history = history();
    let folder = tempfile::tempdir().unwrap();
    let half = history.made.len() / 2;
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    std::fs::write(&first, lines(&history.made[..half])).unwrap();
    std::fs::write(&second, lines(&history.made[half..])).unwrap();
    // Named in the wrong order: time decides.
    let (found, errors) = backtest(&[second.to_str().unwrap(), first.to_str().unwrap()], b"");
    let opened: Vec<_> = of(&found, "incident").into_iter().filter(|i| i["state"] == "open").collect();
    assert_eq!((opened.len(), &opened[0]["paged"], &opened[0]["model"]), (1, &json!(true), &json!("loan-scorer")), "{errors}");
    // Copies that lie in the other file are not known for copies.
    let sum = found.last().unwrap();
    assert_eq!(sum["events"].as_u64().unwrap() + sum["duplicates"].as_u64().unwrap(), history.events + history.copies);
}

#[test]
fn what_lies_in_history_is_listed_and_pages_nobody() {
    let history = history();
    let path = history.path.to_str().unwrap();
    let live = START.plus_ms((MINUTES - 2) * 60_000).rfc3339();
    for (live_from, paged) in [("none", false), (&live, true)] {
        let (lines, _) = backtest(&[path, "--live-from", live_from], b"");
        let listed = of(&lines, "alarm");
        let error_rate = listed.iter().find(|a| a["signal"] == "error_rate" && a["model"] == "loan-scorer").expect("listed");
        assert_eq!(error_rate["decision"], "held");
        assert!(error_rate["reason"].as_str().unwrap().contains("found in history"), "{error_rate}");
        // What is still wrong when history ends is found anew.
        assert_eq!(lines.last().unwrap()["pages"], u64::from(paged), "{live_from}: {lines:?}");
    }
    // History ends before the fault.
    let before = START.plus_ms((FAULT_MINUTE - 1) * 60_000).rfc3339();
    let (lines, _) = backtest(&[path, "--live-from", &before], b"");
    assert_eq!(lines.last().unwrap()["pages"], 1);
}

/// A line of a quiet model at this second.
fn event(second: i64, more: &str) -> String {
    let time = START.plus_ms(second * 1_000).rfc3339();
    format!("{{\"kind\":\"prediction\",\"id\":\"e{second}\",\"model\":\"m\",\"time\":\"{time}\",\"status\":\"ok\"{more}}}\n")
}

#[test]
fn broken_lines_are_counted_by_reason_and_shown() {
    let mut text = String::new();
    for second in 0..600 {
        text += &event(second, "");
        if second % 40 == 0 {
            text += "{\"kind\":\n";
        }
    }
    text += "{\"kind\":\"prediction\",\"model\":\"m\"}\n\n";
    text += &format!("{{\"x\":\"{}\"}}\n", "x".repeat(2 << 20));
    let (lines, errors) = backtest(&["-"], text.as_bytes());
    let sum = lines.last().unwrap();
    let reasons = &sum["rejected_by_reason"];
    assert_eq!((&reasons["bad_json"], &reasons["too_large"]), (&json!(15), &json!(1)), "{sum}");
    assert_eq!(sum["rejected"], reasons.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum::<u64>());
    assert_eq!(sum["events"].as_u64().unwrap() + sum["rejected"].as_u64().unwrap(), 600 + 15 + 2);
    assert_eq!(errors.matches("rejected: -:").count(), 10, "{errors}");
    assert!(errors.contains("rejected: -:2: bad_json: "), "{errors}");
    assert!(errors.contains("more\n"), "{errors}");
    let folder = tempfile::tempdir().unwrap();
    check_in(folder.path(), &["backtest", "-"], b"nonsense\n", 1);
    let (summary, _) = check_in(folder.path(), &["backtest", "-o", "jsonl", "-"], b"", 0);
    assert_eq!(serde_json::from_str::<Value>(&summary).unwrap()["events"], 0);
}

#[test]
fn one_line_of_another_century_does_not_close_the_book() {
    for place in [0, 300, 599] {
        let mut text = String::new();
        for second in 0..600 {
            if second == place {
                text += &event(second, "").replace("2026-", "2199-").replace("\"e", "\"wild");
            }
            text += &event(second, "");
        }
        let (lines, _) = backtest(&["-"], text.as_bytes());
        let sum = lines.last().unwrap();
        assert_eq!((&sum["events"], &sum["late"]), (&json!(601), &json!(0)), "line {place}: {sum}");
        assert_eq!(sum["to"], START.plus_ms(599_000).rfc3339(), "line {place}");
    }
}

#[test]
fn a_night_without_events_is_no_broken_clock() {
    let mut text: String = (0..100).map(|second| event(second, "")).collect();
    text += &(0..40).map(|second| event(40_000 + 2_000 * second, "")).collect::<String>();
    let (lines, _) = backtest(&["-"], text.as_bytes());
    let sum = lines.last().unwrap();
    assert_eq!((&sum["events"], &sum["late"], &sum["to"]), (&json!(140), &json!(0), &json!(START.plus_ms(118_000_000).rfc3339())));
}

#[test]
fn a_topic_of_the_configuration_says_how_files_are_read() {
    let yaml = "kafka:\n  brokers: [\"localhost:9092\"]\n  topics:\n    - other\n    - {name: scores, format: json, mapping: {kind: prediction, model: $.m, id: $.uid, time: {path: $.ts, unit: ms}, latency_ms: $.took}}\n";
    let folder = with_file("bellwether.yaml", yaml);
    let text: String =
        (0..600).map(|s| format!("{{\"m\":\"loans\",\"uid\":{s},\"ts\":{},\"took\":{}}}\n", START.0 + s * 1_000, 20 + s % 7)).collect();
    let (found, _) = check_in(folder.path(), &["backtest", "-", "--topic", "scores", "-o", "jsonl"], text.as_bytes(), 0);
    let sum: Value = serde_json::from_str(found.lines().last().unwrap()).unwrap();
    assert_eq!((&sum["events"], &sum["rejected"]), (&json!(600), &json!(0)), "{sum}");
    let (_, errors) = check_in(folder.path(), &["backtest", "-"], text.as_bytes(), 1);
    assert!(errors.contains("none of 600 records could be used") && errors.contains("--topic"), "{errors}");
    let (_, errors) = check_in(folder.path(), &["backtest", "-", "--topic", "score"], b"", 2);
    assert!(errors.contains("did you mean \"scores\"?"), "{errors}");
    // A dump names its topic itself.
    let dumped: String = (text.lines().enumerate()).map(|(i, l)| wrap_dump("scores", 0, i as i64, None, None, Some(l.as_bytes())) + "\n").collect();
    let (found, _) = check_in(folder.path(), &["backtest", "-", "-o", "jsonl"], dumped.as_bytes(), 0);
    let sum: Value = serde_json::from_str(found.lines().last().unwrap()).unwrap();
    assert_eq!((&sum["events"], &sum["rejected"]), (&json!(600), &json!(0)), "{sum}");
}

#[test]
fn a_misspelt_member_is_hinted_at() {
    let text: String = (0..10).map(|s| event(s, ",\"latencyms\":3")).collect();
    let (_, errors) = backtest(&["-"], text.as_bytes());
    assert!(errors.contains("\"latencyms\"") && errors.contains("did you mean \"latency_ms\"?"), "{errors}");
}

#[test]
fn files_that_cannot_be_read_are_failures() {
    let (_, errors) = check(&["backtest", "nowhere.ndjson"], 1);
    assert!(errors.contains("error: cannot read nowhere.ndjson: "), "{errors}");
    let folder = tempfile::tempdir().unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    (0..5_000).for_each(|s| gz.write_all(event(s, "").as_bytes()).unwrap());
    let mut bytes = gz.finish().unwrap();
    bytes.truncate(bytes.len() / 2);
    std::fs::write(folder.path().join("cut.gz"), bytes).unwrap();
    let (found, errors) = check_in(folder.path(), &["backtest", "cut.gz", "-o", "jsonl"], b"", 1);
    assert!(errors.contains("error: cut.gz cannot be read to its end"), "{errors}");
    let sum: Value = serde_json::from_str(found.lines().last().unwrap()).unwrap();
    assert!(sum["events"].as_u64().unwrap() > 1_000, "{sum}");
}

#[test]
fn people_get_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let (table, _) = check_in(folder.path(), &["backtest", history().path.to_str().unwrap()], b"", 0);
    for words in ["OPENED", "model_failure", "loan-scorer prod: error rate", "1 incident, 1 page\n", "false pages in this time"] {
        assert!(table.contains(words), "{words}: {table}");
    }
}

// --- the incident desk ---

/// What a daemon would know of the history's fault.
struct Known {
    incident: Incident,
    timeline: Vec<TimelineEntry>,
    pages: Vec<SeriesPage>,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let mut engine = Engine::new(crate::scenario::settings(10_000, 30_000, &["region"]));
        engine.declare(0);
        engine.enter(Entry { seq: 1, at: Time::MIN, control: Control::Live { rules_from: None } });
        let decoder = Decoder::canonical(decode::Settings::new([0; 16]));
        let mut out = Outcome::default();
        for (i, m) in history().made.iter().enumerate() {
            let _ = engine.record(0, i as i64 + 1, m.arrival, &m.json, &decoder, None);
        }
        engine.finish(0);
        engine.advance(&mut out);
        let incident = engine.incidents().next().unwrap().clone();
        let pages = incident.findings.iter().filter_map(|f| engine.series_page(f.series_id)).collect();
        let timeline = out.timeline.into_iter().filter(|t| t.incident_id == incident.id).collect();
        Known { incident, timeline, pages }
    })
}

struct Fake(Mutex<(Incident, Vec<TimelineEntry>)>);

#[async_trait]
impl Backend for Fake {
    async fn incidents(&self, filter: IncidentFilter) -> Result<(Vec<Incident>, Option<String>), CommandError> {
        let incident = self.0.lock().unwrap().0.clone();
        let fits = filter.model.is_none_or(|m| m == incident.key.model) && (!filter.live || incident.state.is_live());
        Ok((if fits { vec![incident] } else { vec![] }, None))
    }
    async fn incident(&self, id: &str) -> Result<IncidentPage, CommandError> {
        let (incident, timeline) = self.0.lock().unwrap().clone();
        if incident.id == id {
            Ok(IncidentPage { incident, timeline, deliveries: vec![], clocks: vec![] })
        } else {
            Err(CommandError::NotFound(id.to_owned()))
        }
    }
    async fn command(&self, id: &str, command: PersonCommand, _: Option<u64>, _: Option<String>) -> Result<Incident, CommandError> {
        let (incident, timeline) = &mut *self.0.lock().unwrap();
        let (state, by, what, why) = match command {
            PersonCommand::Acknowledge { by, why } => (IncidentState::Acknowledged, by, "acknowledged", why),
            PersonCommand::Mitigate { by, why } => (IncidentState::Mitigated, by, "mitigated", why),
            PersonCommand::Resolve { by, closed_as, why } => (IncidentState::Resolved, by, "resolved", format!("{closed_as}: {why}")),
            PersonCommand::Reopen { .. } => return Err(CommandError::Refused("it is not over".into())),
            PersonCommand::Note { by, text } => (incident.state, by, "note", text),
            PersonCommand::Plan { by, step } => (incident.state, by, "plan", step),
            PersonCommand::Approve { by, role, step, plan } => (incident.state, by, "approve", format!("{step} {plan} {role}")),
            PersonCommand::Undo { by, role, step } => (incident.state, by, "undo", format!("{step} {role}")),
            PersonCommand::Done { by, step, why } => (incident.state, by, "done", format!("{step} {why}")),
            PersonCommand::SetSeverity { by, severity, why } => {
                incident.severity = severity;
                (incident.state, by, "severity", why)
            }
            PersonCommand::Merge { .. } | PersonCommand::Split { .. } | PersonCommand::Suppress { .. } | PersonCommand::Duty(_) => {
                return Err(CommandError::Refused("not here".into()));
            }
        };
        (incident.state, incident.revision) = (state, incident.revision + 1);
        let (revision, at) = (incident.revision, incident.updated_at);
        let entry = TimelineEntry { incident_id: id.to_owned(), revision, ordinal: 0, at, who: Actor::Person(by), what: what.into(), why };
        timeline.push(entry);
        Ok(incident.clone())
    }
    async fn series_page(&self, id: &str) -> Result<SeriesPage, CommandError> {
        known().pages.iter().find(|p| p.series.id.to_string() == id).cloned().ok_or_else(|| CommandError::NotFound(id.to_owned()))
    }
    async fn models(&self) -> Result<Vec<ModelView>, CommandError> {
        Ok(vec![])
    }
    async fn series(&self, _: Option<&str>, _: usize) -> Result<Vec<SeriesView>, CommandError> {
        Ok(vec![])
    }
    async fn engine(&self) -> Result<EngineView, CommandError> {
        Ok(EngineView::default())
    }
    fn is_healthy(&self) -> bool {
        true
    }
    fn readiness(&self) -> Readiness {
        Readiness::default()
    }
    async fn reload(&self) -> Result<(), String> {
        Ok(())
    }
    fn metrics(&self) -> String {
        String::new()
    }
    fn config_text(&self) -> String {
        String::new()
    }
    fn faults(&self) -> Vec<FaultButton> {
        vec![]
    }
    fn switch_fault(&self, name: &str, _: bool) -> Result<(), CommandError> {
        Err(CommandError::NotFound(name.to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_desk_works_over_the_api() {
    let known = tokio::task::spawn_blocking(known).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let fake = Arc::new(Fake(Mutex::new((known.incident.clone(), known.timeline.clone()))));
    let (address, task) = bellwether::serve::start("127.0.0.1:0".parse().unwrap(), fake, stopped).await.unwrap();
    let server = address.to_string();
    let id = known.incident.id.clone();
    let ask = move |arguments: &[&str], code: i32| check(&[&["incidents"], arguments, &["--server", &server]].concat(), code);
    let asked = tokio::task::spawn_blocking(move || {
        let (list, _) = ask(&["list", "--live"], 0);
        assert!(list.contains(&id) && list.contains("loan-scorer prod: error rate"), "{list}");
        let (list, _) = ask(&["list", "--model", "nobody", "-o", "json"], 0);
        assert_eq!(serde_json::from_str::<Value>(&list).unwrap(), json!([]));
        let (list, _) = ask(&["list", "-o", "jsonl"], 0);
        assert_eq!(serde_json::from_str::<Value>(&list).unwrap()["id"], id);
        let (shown, _) = ask(&["show", id.trim_start_matches("inc-")], 0);
        assert!(shown.contains("TIMELINE") && shown.contains("opened") && shown.contains("severity   2 (degraded)"), "{shown}");
        let (explained, _) = ask(&["explain", &id], 0);
        for words in
            ["It paged: ", "nats of evidence", "without a change this would be seen in one of about", "TOLERATED", "The cause is looked for first in"]
        {
            assert!(explained.contains(words), "{words}: {explained}");
        }
        let (explained, _) = ask(&["explain", &id, "-o", "json"], 0);
        let explained: Value = serde_json::from_str(&explained).unwrap();
        assert!(!explained["findings"][0]["points"].as_array().unwrap().is_empty());

        let (said, _) = ask(&["ack", &id, "--by", "anna", "--why", "looking"], 0);
        assert!(said.contains("acknowledged"), "{said}");
        ask(&["note", &id, "ticket 4711", "--by", "anna"], 0);
        let (said, _) = ask(&["severity", &id, "3", "--by", "anna", "--why", "only the probes", "-o", "json"], 0);
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["severity"], 3);
        ask(&["severity", &id, "3", "--by", "anna"], 2);
        ask(&["severity", &id, "4", "--by", "anna", "--why", "x"], 2);
        ask(&["mitigate", &id, "--by", "anna"], 0);
        ask(&["resolve", &id, "--by", "anna"], 2);
        ask(&["resolve", &id, "--as", "fixd", "--by", "anna"], 2);
        let (said, _) = ask(&["resolve", &id, "--as", "fixed", "--by", "anna", "-o", "json"], 0);
        assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["state"], "resolved");
        let (_, errors) = ask(&["reopen", &id, "--by", "anna"], 1);
        assert!(errors.contains("error: it is not over"), "{errors}");
        let (_, errors) = ask(&["show", "inc-NOBODY"], 1);
        assert!(errors.contains("no incident \"inc-NOBODY\""), "{errors}");
        ask(&["show", "../../etc"], 2);
        let (shown, _) = ask(&["show", &id], 0);
        assert!(
            shown.contains("ticket 4711") && shown.contains("looking") && shown.contains("only the probes") && shown.contains("fixed:"),
            "{shown}"
        );
    });
    asked.await.unwrap();
    stop.send(true).unwrap();
    task.await.unwrap();
}

#[test]
fn without_a_daemon_its_store_is_read() {
    let known = known();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = Store::open(&data).unwrap();
    let commit =
        Commit { incidents: vec![known.incident.clone()], timeline: known.timeline.clone(), now: known.incident.opened_at, ..Commit::default() };
    store.commit(commit).unwrap();
    drop(store);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(folder.path().join("bellwether.yaml"), format!("files: [x]\nlisten: \"{gone}\"\ndata_dir: data\n")).unwrap();
    let (list, errors) = check_in(folder.path(), &["incidents", "list"], b"", 0);
    assert!(list.contains(&known.incident.id) && errors.contains("no daemon answers"), "{list}{errors}");
    let (explained, _) = check_in(folder.path(), &["incidents", "explain", &known.incident.id], b"", 0);
    assert!(explained.contains("nats of evidence") && explained.contains("known to a running daemon only"), "{explained}");
    let (_, errors) = check_in(folder.path(), &["incidents", "ack", &known.incident.id, "--by", "anna"], b"", 1);
    assert!(errors.contains("cannot reach") && errors.contains("does the daemon run?"), "{errors}");
    let (_, errors) = check_in(folder.path(), &["incidents", "list", "--server", &gone.to_string()], b"", 1);
    assert!(errors.contains("cannot reach"), "who names a server wants that one: {errors}");
    // Nobody has to mend a file before he may look. Somebody else may listen at the default address.
    std::fs::write(folder.path().join("bellwether.yaml"), "kafak: 1\n").unwrap();
    let (_, errors) = check_in(folder.path(), &["incidents", "list", "--data-dir", "data"], b"", 0);
    assert!(errors.contains("is not in order"), "{errors}");
}
