//! `bellwether score` as a user types it: a metric in, scores and reasons out.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const HEADING: &str = "timestamp,value\n";
/// A Thursday at midnight, in seconds.
const START: i64 = 1_795_046_400;
const ROWS: usize = 1_600;
/// The row in which the level goes up and stays.
const FAULT: usize = 1_500;

/// Code, stdout, stderr.
fn score(folder: &Path, arguments: &[&str], stdin: &[u8]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    command.arg("score").args(arguments).current_dir(folder).env_remove("BELLWETHER_CONFIG");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let out = std::thread::scope(|s| {
        s.spawn(move || drop(input.write_all(stdin)));
        child.wait_with_output().unwrap()
    });
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

/// Five-minute rows around 50, and 90 from row [`FAULT`] on.
fn metric() -> Vec<(i64, f64)> {
    let mut noise = 1u64;
    (0..ROWS)
        .map(|i| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let jitter = (noise >> 40) as f64 / (1u64 << 24) as f64;
            (START + 300 * i as i64, if i < FAULT { 50.0 } else { 90.0 } + (100.0 * jitter).round() / 50.0)
        })
        .collect()
}

fn csv(rows: &[(i64, f64)]) -> String {
    rows.iter().map(|(at, value)| format!("{at},{value}\n")).collect()
}

/// Rows (from 0) with an alarm.
fn alarms(scored: &str) -> Vec<usize> {
    scored.lines().skip(1).enumerate().filter(|(_, line)| line.ends_with(",1")).map(|(i, _)| i).collect()
}

fn folder_with(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), bytes).unwrap();
    folder
}

#[test]
fn a_new_level_pages_with_its_reasons_and_every_row_is_answered() {
    let rows = metric();
    let folder = folder_with("m.csv", format!("{HEADING}{}", csv(&rows)).as_bytes());
    let (code, scored, said) = score(folder.path(), &["m.csv"], b"");
    assert_eq!(code, 0, "{said}");
    let lines: Vec<&str> = scored.lines().collect();
    assert_eq!((lines[0], lines.len()), ("timestamp,value,score,alarm", ROWS + 1));
    for (line, (at, value)) in lines[1..].iter().zip(&rows) {
        let cells: Vec<&str> = line.split(',').collect();
        let (score, alarm) = (cells[2].parse::<f64>().unwrap(), cells[3]);
        assert_eq!((cells[0], cells[1]), (at.to_string().as_str(), value.to_string().as_str()));
        assert!((0.0..1.0).contains(&score) && (score >= 0.5) == (alarm == "1"), "{line}");
    }
    assert_eq!(alarms(&scored).first(), Some(&FAULT), "{said}");
    let at = rows[FAULT].0;
    assert!(said.contains(&format!("alarm: {at}: ")) && said.contains("level") && said.contains("above"), "{said}");
    assert!(said.contains(&format!("{ROWS} rows, 0 left out, ")), "{said}");
}

#[test]
fn a_score_does_not_depend_on_what_comes_after() {
    let rows = metric();
    let folder = tempfile::tempdir().unwrap();
    let (_, whole, _) = score(folder.path(), &["-"], csv(&rows).as_bytes());
    let (_, part, _) = score(folder.path(), &["-"], csv(&rows[..FAULT + 20]).as_bytes());
    assert!(whole.starts_with(&part) && alarms(&part) == [FAULT]);
}

#[test]
fn a_file_may_be_compressed_and_written_in_other_ways() {
    let rows = metric();
    let plain = csv(&rows);
    let folder = folder_with("m.csv", plain.as_bytes());
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(plain.as_bytes()).unwrap();
    std::fs::write(folder.path().join("m.csv.gz"), gz.finish().unwrap()).unwrap();
    std::fs::write(folder.path().join("m.csv.zst"), zstd::encode_all(plain.as_bytes(), 1).unwrap()).unwrap();
    let other: String = rows.iter().map(|(at, v)| format!("{v};x;{}\n", at * 1000)).collect();
    std::fs::write(folder.path().join("ms.csv"), format!("value;host;timestamp\r\n{other}")).unwrap();
    let (_, expected, _) = score(folder.path(), &["m.csv"], b"");
    for file in ["m.csv.gz", "m.csv.zst"] {
        assert_eq!(score(folder.path(), &[file], b"").1, expected, "{file}");
    }
    assert_eq!(alarms(&score(folder.path(), &["ms.csv"], b"").1), alarms(&expected));
}

#[test]
fn a_bad_row_costs_itself_and_is_said_with_its_place() {
    let rows = metric();
    let text = format!("{HEADING}{}soon,1\n{}{}", csv(&rows[..3]), "1795046400,12 apples\n", csv(&rows[3..]));
    let folder = folder_with("m.csv", text.as_bytes());
    let (code, scored, said) = score(folder.path(), &["m.csv"], b"");
    assert_eq!((code, scored.lines().count()), (0, ROWS + 1), "{said}");
    assert!(said.contains("bad row: m.csv:5:1: \"soon\" is no time"), "{said}");
    assert!(said.contains("bad row: m.csv:6:12: \"12 apples\" is no finite number"), "{said}");
    assert!(said.contains(&format!("{ROWS} rows, 2 left out")), "{said}");
    let (_, clean, _) = score(folder.path(), &["-"], csv(&rows).as_bytes());
    assert_eq!(scored, clean, "a bad row left something behind");
}

#[test]
fn nothing_readable_is_a_failure_and_no_sense_is_usage() {
    let folder = folder_with("m.csv", b"a,b\nc,d\n");
    std::fs::write(folder.path().join("empty.csv"), "").unwrap();
    for file in ["m.csv", "empty.csv", "missing.csv"] {
        let (code, _, said) = score(folder.path(), &[file], b"");
        assert!(code == 1 && said.contains("error: ") && said.contains(file), "{said}");
    }
    for arguments in [&["m.csv", "--threshold", "1.5"][..], &["m.csv", "--threshold", "0"], &["m.csv", "--period", "weekly"], &[]] {
        let (code, scored, said) = score(folder.path(), arguments, b"");
        assert!(code == 2 && scored.is_empty() && !said.is_empty(), "{arguments:?}: {said}");
    }
}

#[test]
fn a_threshold_is_where_scores_begin_to_page_and_a_period_changes_the_season() {
    let folder = folder_with("m.csv", csv(&metric()).as_bytes());
    for threshold in ["0.2", "0.5", "0.6"] {
        let (_, scored, _) = score(folder.path(), &["m.csv", "--threshold", threshold], b"");
        let wanted: f64 = threshold.parse().unwrap();
        for line in scored.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            assert_eq!(cells[2].parse::<f64>().unwrap() >= wanted, cells[3] == "1", "{threshold}: {line}");
        }
    }
    let (_, day, _) = score(folder.path(), &["m.csv", "--period", "24h"], b"");
    let (_, usual, _) = score(folder.path(), &["m.csv", "--period", "auto"], b"");
    let (_, hour, _) = score(folder.path(), &["m.csv", "--period", "1h"], b"");
    assert_eq!(day, usual);
    assert_ne!(hour, usual);
}

#[test]
fn a_judge_that_was_written_and_read_back_goes_on_as_if_nothing_had_been() {
    use bellwether_detectors::series::{Judge, Settings};
    let rows = metric();
    let mut judge = Judge::new(Settings::default());
    rows[..FAULT - 100].iter().for_each(|(at, value)| assert!(judge.update(at * 1000, *value).score < 1.0));
    let bytes = postcard::to_stdvec(&judge).unwrap();
    let mut back: Judge = postcard::from_bytes(&bytes).unwrap();
    assert!(back.is_current() && back == judge && bytes.len() < 5_600, "{} bytes", bytes.len());
    let mut pages = 0;
    for (at, value) in &rows[FAULT - 100..] {
        let said = judge.update(at * 1000, *value);
        assert_eq!(said, back.update(at * 1000, *value));
        pages += u64::from(said.pages());
    }
    assert!(pages > 0);
    assert!(postcard::from_bytes::<Judge>(&bytes[..bytes.len() / 2]).is_err());
}
