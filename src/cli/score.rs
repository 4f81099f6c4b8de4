//! `bellwether score`: any metric as `timestamp,value`, and what the judge of plain series thinks of each row.
//!
//! One pass, in the order of the file, without a look ahead: a row's score would have been the same had the file ended with it.
//! What was written in the first two columns is handed through as it stands. A row that cannot be read costs itself and nothing
//! else: it is left out, said and counted.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellwether_detectors::series::{Judge, Settings};
use clap::Args;

use super::Global;
use super::failure::{Code, Failure};
use super::output::inert;
use crate::demo::script::duration;
use crate::domain::Time;
use crate::source::file::FileReader;

const EXAMPLES: &str = "\
Examples:
  bellwether score requests.csv > scored.csv               alarms and their reasons are said on stderr
  bellwether score latency.csv.gz --threshold 0.7          fewer pages: only what is far out of the ordinary
  bellwether score sensor.csv --period 90m                 a cycle of an hour and a half instead of day and week
  kubectl exec db -- cat load.csv | bellwether score -     from standard input, row by row

Rows are timestamp,value (or ; or tabs between them), plain, gzip or zstd; a heading is optional, and if it names the columns
timestamp and value they may stand anywhere. Times: 2026-11-20 09:14:00 (UTC), RFC 3339, or seconds or milliseconds since 1970.
Written: timestamp,value,score,alarm. The score goes from 0 to 1 and is half when the evidence pages at the default; while a page
is fresh, what is not clearly worse scores 0. A row that cannot be read is left out, said on stderr and counted.
Ends with 0 also where rows alarm; with 1 if no row can be read.";

/// Bad rows that are shown.
const SHOWN_MAX: u64 = 10;
const THRESHOLD: f64 = 0.5;

/// Score each row of a metric, timestamp,value, as the detector of plain series sees it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Score {
    /// A CSV file, plain, gzip or zstd; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A row pages from this score on, between 0 and 1: higher is quieter
    #[arg(long, value_name = "SCORE", default_value_t = THRESHOLD, value_parser = threshold)]
    threshold: f64,
    /// Length of the series' own cycle, such as 1h; seven of them are the long one. auto: a day and a week
    #[arg(long, value_name = "auto|DURATION", default_value = "auto", value_parser = period)]
    period: Period,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    Auto,
    Cycle(Duration),
}

/// Where the two columns stand, and what stands between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    by: char,
    timestamp: usize,
    value: usize,
}

/// What is wrong with a row, and in which column (from 1) it begins.
#[derive(Debug, PartialEq, Eq)]
struct Bad {
    column: usize,
    words: String,
}

/// Rows so far.
#[derive(Debug, Default)]
struct Counts {
    rows: u64,
    bad: u64,
    back: u64,
    alarms: u64,
}

// === impl Score ===

impl Score {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        let _log = global.start_log("warn")?;
        let cannot = |e: io::Error| Failure::new(format!("cannot read {}: {e}", self.file.display()));
        let mut input = FileReader::open(&self.file).map_err(cannot)?;
        let mut judge = Judge::new(self.settings());
        let mut layout = None;
        let mut last = Time::MIN;
        let mut n = Counts::default();
        // Whoever pipes rows in waits for each answer.
        let live = self.file == Path::new("-");
        let mut out = io::BufWriter::new(io::stdout().lock());
        writeln!(out, "timestamp,value,score,alarm").map_err(told)?;
        while let Some(record) = input.next_record().map_err(|e| {
            let place = format!("cannot read {} beyond row {}: {e}", self.file.display(), n.rows + n.bad);
            Failure::new(place)
        })? {
            let text = String::from_utf8_lossy(&record.value);
            let text = text.strip_prefix('\u{feff}').unwrap_or(&text).trim_end();
            let layout = match layout {
                Some(layout) => layout,
                None => {
                    let (found, is_heading) = Layout::of(text);
                    layout = Some(found);
                    if is_heading {
                        continue;
                    }
                    found
                }
            };
            match layout.row(text) {
                Ok((stamp, number, time, value)) => {
                    n.back += u64::from(time < last);
                    last = time;
                    n.rows += 1;
                    let said = judge.update(time.0, value);
                    n.alarms += u64::from(said.pages());
                    writeln!(out, "{stamp},{number},{:.6},{}", shown(said.score), u8::from(said.pages())).map_err(told)?;
                    if said.pages() {
                        out.flush().map_err(told)?;
                        eprintln!("alarm: {}: {}: {}", inert(stamp), inert(number), said.words());
                    } else if live {
                        out.flush().map_err(told)?;
                    }
                }
                Err(bad) => {
                    n.bad += 1;
                    if n.bad <= SHOWN_MAX {
                        eprintln!("bad row: {}:{}:{}: {}", self.file.display(), record.offset, bad.column, inert(&bad.words));
                    }
                }
            }
        }
        out.flush().map_err(told)?;
        n.tell(&self.file)
    }

    fn settings(&self) -> Settings {
        let cycle_ms = match self.period {
            Period::Auto => Settings::default().cycle_ms,
            Period::Cycle(cycle) => i64::try_from(cycle.as_millis()).unwrap_or(i64::MAX),
        };
        Settings { threshold: self.threshold, cycle_ms }
    }
}

// === impl Counts ===

impl Counts {
    fn tell(&self, file: &Path) -> Result<(), Failure> {
        let noun = |n: u64, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        if self.bad > SHOWN_MAX {
            eprintln!("bad row: {} more", self.bad - SHOWN_MAX);
        }
        if self.back > 0 {
            eprintln!("warning: time goes back at {}; rows are judged in the order of the file", noun(self.back, "row"));
        }
        if self.rows == 0 {
            let words = match self.bad {
                0 => format!("{} has no rows", file.display()),
                bad => format!("none of the {} of {} could be read", noun(bad, "row"), file.display()),
            };
            return Err(Failure::new(words).hint("a row is timestamp,value, such as 2026-11-20 09:14:00,12.5"));
        }
        eprintln!("{}, {} left out, {}", noun(self.rows, "row"), self.bad, noun(self.alarms, "alarm"));
        Ok(())
    }
}

// === impl Layout ===

impl Layout {
    /// Of the first line, and whether that is a heading: no time in the first column and no number in the second.
    fn of(line: &str) -> (Layout, bool) {
        let by = [',', ';', '\t'].into_iter().find(|by| line.contains(*by)).unwrap_or(',');
        let usual = Layout { by, timestamp: 0, value: 1 };
        let cells: Vec<&str> = cells(line, by).map(|(_, cell)| cell).collect();
        if cells.iter().any(|cell| time(cell).is_some() || cell.parse::<f64>().is_ok()) {
            return (usual, false);
        }
        let named = |name: &str| cells.iter().position(|cell| cell.eq_ignore_ascii_case(name));
        match (named("timestamp"), named("value")) {
            (Some(timestamp), Some(value)) => (Layout { by, timestamp, value }, true),
            _ => (usual, true),
        }
    }

    /// The two cells as they stand, and what they mean.
    fn row<'a>(&self, line: &'a str) -> Result<(&'a str, &'a str, Time, f64), Bad> {
        let cell = |at: usize, name: &str| {
            let missing = || Bad { column: line.chars().count() + 1, words: format!("no {name}") };
            cells(line, self.by).nth(at).ok_or_else(missing)
        };
        let (at, stamp) = cell(self.timestamp, "timestamp")?;
        let column = |at: usize| line[..at].chars().count() + 1;
        let time = time(stamp).ok_or_else(|| Bad { column: column(at), words: format!("{} is no time", quoted(stamp)) })?;
        let (at, number) = cell(self.value, "value")?;
        let value = number.parse::<f64>().ok().filter(|v| v.is_finite());
        let value = value.ok_or_else(|| Bad {
            column: column(at),
            words: if number.is_empty() { "no value".to_owned() } else { format!("{} is no finite number", quoted(number)) },
        })?;
        Ok((stamp, number, time, value))
    }
}

/// Cells without quotes and blanks around them, each with the byte at which it begins.
fn cells(line: &str, by: char) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    line.split(by).map(move |raw| {
        let begins = at;
        at += raw.len() + by.len_utf8();
        let cell = raw.trim();
        let blanks = raw.len() - raw.trim_start().len();
        match cell.strip_prefix('"').and_then(|c| c.strip_suffix('"')) {
            Some(inner) => (begins + blanks + 1, inner),
            None => (begins + blanks, cell),
        }
    })
}

/// RFC 3339, or a date and a time of day in UTC, or a number since 1970.
fn time(text: &str) -> Option<Time> {
    if let Ok(number) = text.parse::<f64>() {
        return if number == 0.0 { Some(Time(0)) } else { Time::from_epoch_number(number) };
    }
    let civil = |text: &str| -> Option<Time> {
        let at = jiff::tz::TimeZone::UTC.to_timestamp(text.parse().ok()?).ok()?;
        Some(Time(at.as_millisecond()))
    };
    Time::parse_rfc3339(text).or_else(|| civil(text))
}

/// Cut and not rounded, so that what does not page is not written as if it did.
fn shown(score: f64) -> f64 {
    (score * 1e6).floor() / 1e6
}

fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    format!("{short:?}{}", if short.len() < text.len() { "…" } else { "" })
}

fn told(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(Code::Closed),
        _ => Failure::new(format!("cannot write to stdout: {error}")),
    }
}

fn threshold(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|t| 0.0 < *t && *t < 1.0);
    number.ok_or_else(|| "expected a score between 0 and 1, such as 0.5".to_owned())
}

fn period(text: &str) -> Result<Period, String> {
    if text == "auto" {
        return Ok(Period::Auto);
    }
    let cycle = duration(text).map_err(|_| "expected auto, or a duration such as 90s, 5m, 24h or 7d".to_owned())?;
    Ok(Period::Cycle(cycle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_where_it_is_wrong() {
        let layout = Layout { by: ',', timestamp: 0, value: 1 };
        let bad = |line: &str| layout.row(line).map_err(|bad| format!("{}: {}", bad.column, bad.words)).unwrap_err();
        assert_eq!(bad("2026-11-20 09:14:00,abc"), "21: \"abc\" is no finite number");
        assert_eq!(bad("2026-11-20 09:14:00, NaN"), "22: \"NaN\" is no finite number");
        assert_eq!(bad("2026-11-20 09:14:00,"), "21: no value");
        assert_eq!(bad("2026-11-20 09:14:00"), "20: no value");
        assert_eq!(bad("yesterday,1"), "1: \"yesterday\" is no time");
    }

    #[test]
    fn times_are_read_in_every_usual_form() {
        for text in ["2026-11-20 09:14:00", "2026-11-20T09:14:00Z", "2026-11-20 10:14:00+01:00", "2026-11-20 09:14", "1795166040", "1795166040000"] {
            assert_eq!(time(text), Some(Time(1_795_166_040_000)), "{text}");
        }
        assert_eq!(time("2026-11-20"), Some(Time(1_795_132_800_000)));
        assert_eq!(time("20th of November"), None);
    }

    #[test]
    fn a_heading_may_name_its_columns() {
        assert_eq!(Layout::of("value;host;Timestamp"), (Layout { by: ';', timestamp: 2, value: 0 }, true));
        assert_eq!(Layout::of("when,load"), (Layout { by: ',', timestamp: 0, value: 1 }, true));
        assert_eq!(Layout::of("2026-11-20 09:14:00\t1"), (Layout { by: '\t', timestamp: 0, value: 1 }, false));
        assert_eq!(Layout::of("soon,1"), (Layout { by: ',', timestamp: 0, value: 1 }, false));
    }
}
