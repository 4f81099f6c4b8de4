//! `bellwether backtest`: what would it have paged over this history?

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::failure::Failure;
use super::output::{inert, json, print, say, table};
use super::{Global, nearest};
use crate::backtest::{self, IncidentLine, Line, LiveFrom, Options, Reading, Summary, Told};
use crate::daemon::build;
use crate::decode::{self, Decoder};
use crate::domain::Time;
use crate::reference::{self, Asked};
use crate::settings::Settings;

const EXAMPLES: &str = "\
Examples:
  bellwether backtest events.ndjson.gz
  bellwether backtest day-*.ndjson.zst --live-from 2026-11-20T00:00:00Z -o jsonl
  kcat -C -b broker:9092 -t model-events -o beginning -e -J | bellwether backtest -
  bellwether backtest scores.ndjson --config bellwether.yaml --topic scores

Files are lines of JSON, plain, gzip or zstd, or what kcat -J prints. Without a configuration the defaults hold, and events are
read as Bellwether's own. Nobody is told anything. The table names every incident and ends with sums; -o jsonl has lines of type
alarm and incident, and last the summary. Ends with 0 whatever it would have paged, with 1 if a file cannot be read.";

/// Rejected records that are shown.
const SHOWN_MAX: u64 = 10;
/// Key of the hash that replaces users' names. Results are counts only, so that it need not be secret.
const USER_KEY: [u8; 16] = *b"backtestoffiles.";

/// Judge a history with the daemon's engine and without its effects
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Backtest {
    /// Files of events; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Events before are learned from and listed, and page nobody: a time (RFC 3339) or a day, or none: nothing pages
    #[arg(long, value_name = "TIME|none", value_parser = live_from)]
    live_from: Option<LiveFrom>,
    /// Read plain files as this topic of the configuration is read
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Incidents and sums, for people
    #[default]
    Table,
    /// Every alarm and every turn of an incident as it comes, the summary last
    Jsonl,
}

impl Backtest {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        let _log = global.start_log("warn")?;
        let settings = match global.load_if_any()? {
            Some(loaded) => loaded.settings,
            None => defaults()?,
        };
        let options = self.options(&settings)?;
        let bar = bar(backtest::bytes_total(&self.files));
        let mut shown: Vec<(Time, IncidentLine)> = Vec::new();
        let mut written = Ok(());
        let mut refused = 0;
        let mut tell = |told: Told| match told {
            Told::Read(bytes) => bar.set_position(bytes),
            Told::Broken(words) => bar.suspend(|| eprintln!("error: {}", inert(&words))),
            Told::Rejected { source, partition, offset, reason, detail } => {
                refused += 1;
                if refused <= SHOWN_MAX {
                    let place = if self.is_file(&source) { format!("{source}:{offset}") } else { format!("{source}[{partition}]@{offset}") };
                    bar.suspend(|| eprintln!("rejected: {}: {reason}: {}", inert(&place), inert(&detail)));
                }
            }
            Told::Line(line) if self.output == Form::Jsonl => {
                if written.is_ok() {
                    written = bar.suspend(|| json(&line).and_then(|text| say(&text)));
                }
            }
            Told::Line(Line::Incident(incident)) => match shown.iter_mut().find(|(_, i)| i.id == incident.id) {
                Some((_, known)) => *known = *incident,
                None => shown.push((incident.time, *incident)),
            },
            Told::Line(Line::Alarm(_) | Line::Summary(_)) => {}
        };
        let ended = backtest::run(&options, &mut tell);
        bar.finish_and_clear();
        let ending = ended.map_err(|e| Failure::of(&e))?;
        written?;
        if refused > SHOWN_MAX {
            eprintln!("rejected: {} more", refused - SHOWN_MAX);
        }
        for (name, near) in &ending.hints {
            eprintln!("hint: events carry the member {:?}, which is none of ours; did you mean {near:?}?", inert(name));
        }
        let sum = &ending.summary;
        if self.output == Form::Table {
            print(&told(&shown, sum))?;
        }
        let span_ms = sum.to.zip(sum.from).map_or(0, |(to, from)| to.since_ms(from));
        if sum.events > 0 && span_ms < settings.learn_ms {
            let (hours, learned) = (span_ms as f64 / 3.6e6, settings.learn_ms as f64 / 3.6e6);
            eprintln!("hint: this history is {hours:.1} h long, and series learn for {learned:.1} h before they page (baseline.learn)");
        }
        if ending.broken {
            return Err(Failure::new("a file could not be read to its end; the sums are of what was read"));
        }
        if sum.events == 0 && sum.rejected > 0 {
            let failure = Failure::new(format!("none of {} records could be used", sum.rejected));
            return Err(if options.topics.len() < 2 || self.topic.is_some() {
                failure
            } else {
                failure.hint("name the topic whose format these files have, with --topic")
            });
        }
        Ok(())
    }

    fn is_file(&self, source: &str) -> bool {
        self.files.iter().any(|f| f.display().to_string() == source)
    }

    fn options(&self, settings: &Settings) -> Result<Options, Failure> {
        let readings = |wanted: Option<&str>| -> Result<BTreeMap<String, Reading>, Failure> {
            let all = build::decoders(settings, USER_KEY).map_err(Failure::config)?;
            let all = all.into_iter().filter(|t| wanted.is_none_or(|w| w == t.name));
            Ok(all.map(|t| (t.name, Reading { decoder: t.decoder, kind: t.kind })).collect())
        };
        let topics = readings(None)?;
        let names: Vec<&str> = topics.keys().map(String::as_str).collect();
        // A configuration with one topic says how its events are written.
        let usual = match (&self.topic, names.as_slice()) {
            (Some(name), _) => Some(name.as_str()),
            (None, [only]) => Some(*only),
            (None, _) => None,
        };
        let usual = match usual {
            None => Reading { decoder: Decoder::canonical(decode::Settings::new(USER_KEY)), kind: None },
            Some(name) => match readings(Some(name))?.remove(name) {
                Some(reading) => reading,
                None => {
                    let known = if names.is_empty() { "the configuration has none".to_owned() } else { format!("known: {}", names.join(", ")) };
                    let failure = Failure::usage(format!("unknown topic {name:?} ({known})"));
                    return Err(match nearest(name, names) {
                        Some(near) => failure.hint(format!("did you mean {near:?}?")),
                        None => failure,
                    });
                }
            },
        };
        let engine = build::engine_settings(settings);
        let mut references = Vec::new();
        for (model, path) in build::references(settings) {
            let asked = Asked { roles: BTreeMap::new(), by: "the configuration".to_owned(), now: crate::daemon::now(), pane_ms: settings.pane_ms };
            let packed = reference::read(&path, &asked).and_then(|found| found.import.pack());
            references.push((model.clone(), packed.map_err(|why| Failure::new(format!("models.{model}.reference: {why}")))?));
        }
        Ok(Options {
            files: self.files.clone(),
            engine,
            topics,
            usual,
            live_from: self.live_from.unwrap_or_default(),
            references,
            windows: settings.maintenance.clone(),
        })
    }
}

/// Settings of a file that says nothing but where events come from.
fn defaults() -> Result<Settings, Failure> {
    let kinds: Vec<&crate::notify::Kind> = crate::notify::KINDS.iter().collect();
    let env = |name: &str| std::env::var(name).ok();
    let loaded = crate::settings::parse("files: [\"-\"]\n", "(defaults)", &env, &kinds).map_err(|p| Failure::from(&p))?;
    // A file is often shorter than the time that a daemon takes to learn: here evidence alone decides.
    Ok(Settings { learn_ms: 0, ..loaded.settings })
}

fn live_from(text: &str) -> Result<LiveFrom, String> {
    if text == "none" {
        return Ok(LiveFrom::Never);
    }
    let time = Time::parse_rfc3339(text).or_else(|| Time::parse_rfc3339(&format!("{text}T00:00:00Z")));
    time.map(LiveFrom::At).ok_or_else(|| "expected a time such as 2026-11-20T09:00:00Z, a day such as 2026-11-20, or none".to_owned())
}

/// On a terminal only; elsewhere nothing is drawn.
fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn told(incidents: &[(Time, IncidentLine)], s: &Summary) -> String {
    let rows: Vec<Vec<String>> = (incidents.iter())
        .map(|(opened, i)| {
            vec![
                opened.to_string(),
                i.severity.to_string(),
                i.category.to_string(),
                i.state.to_string(),
                if i.paged { "yes" } else { "no" }.to_owned(),
                i.title.clone(),
            ]
        })
        .collect();
    let mut out = String::new();
    if !rows.is_empty() {
        out.push_str(&table(&["OPENED", "SEV", "CATEGORY", "STATE", "PAGED", "WHAT"], &rows));
        out.push('\n');
    }
    let span = match (s.from, s.to) {
        (Some(from), Some(to)) => format!(" from {from} to {to}"),
        _ => String::new(),
    };
    let noun = |n: u64, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    out.push_str(&format!("{}{span}: {}, {} rejected, {} late\n", noun(s.events, "event"), noun(s.duplicates, "duplicate"), s.rejected, s.late));
    if !s.rejected_by_reason.is_empty() {
        let reasons: Vec<String> = s.rejected_by_reason.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        out.push_str(&format!("rejected: {}\n", reasons.join(", ")));
    }
    out.push_str(&format!(
        "{} series, {} armed; {} raised, {} held or listed; {}, {}\n",
        s.series,
        s.armed,
        noun(s.alarms, "alarm"),
        s.held,
        noun(s.incidents, "incident"),
        noun(s.pages, "page"),
    ));
    out.push_str(&format!("the budget allows for {:.3} false pages in this time; {:.1} s\n", s.expected_false_pages, s.seconds));
    out
}
