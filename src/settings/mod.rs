//! The configuration file: read once, checked as a whole, explained where it is wrong.
//!
//! Think of a clerk who reads a form to its end before he speaks. He does not send it back for the first blot; he hands over
//! one list of everything that has to be put right, each with line and column, and where a word is misspelt he says which one
//! was meant. So nothing of a wrong file is ever in force, and a person mends it in one go.
//!
//! One table, `table::ROOT`, says which keys there are, of what shape, and what they are when left out. The checks, the names
//! of environment variables, the JSON Schema and `sample.yaml` all come from it, so they cannot disagree. The road not taken is
//! to derive serde on [`Settings`]: serde stops at the first fault, and its messages know a type but not a purpose.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use check::Checker;
use node::{Data, Place};

use crate::domain::Role;
use crate::respond::{LegalClock, Level, Runbook};
use crate::{decode, notify};

mod build;
mod check;
mod fallbacks;
mod form;
mod layers;
mod node;
mod people;
mod runbooks;
mod show;
mod table;
mod windows;

pub use fallbacks::{ABOUT as FALLBACK_ABOUT, KEY as FALLBACK};
pub use form::duration_ms;
pub use runbooks::{BUILT_IN, built_in};
pub use show::{redacted, runbook_schema, sample, schema, schema_for};
pub use windows::Window;

/// Everything that the file, the environment and the defaults say, checked. Plain data: durations are milliseconds.
/// `Debug` shows what [`redacted`] shows.
#[derive(Clone, PartialEq)]
pub struct Settings {
    /// Absent where `files` are read instead.
    pub kafka: Option<Kafka>,
    /// NDJSON files, `-` for stdin. Paths are relative to the working directory.
    pub files: Vec<String>,
    /// Dimensions whose values get series of their own.
    pub segments: Vec<String>,
    pub pane_ms: i64,
    /// How long a pane waits for late events after its end.
    pub lateness_ms: i64,
    /// False pages in 30 days, over everything watched.
    pub budget_false_pages: f64,
    /// By signal (`feature:income`) or family (`feature`).
    pub signals: BTreeMap<String, SignalSettings>,
    pub models: BTreeMap<String, ModelSettings>,
    /// How much history a series learns from before it is armed.
    pub learn_ms: i64,
    pub receivers: BTreeMap<String, ReceiverSettings>,
    /// First match wins. Never empty while there are receivers.
    pub routes: Vec<Route>,
    pub heartbeat_url: Option<String>,
    /// The paths of the user's runbooks, as they were found.
    pub runbook_paths: Vec<PathBuf>,
    /// The user's runbooks, then the built-in ones.
    pub runbooks: Vec<Runbook>,
    pub actions: BTreeMap<String, ActionSettings>,
    /// Receivers by group: leadership, legal.
    pub people: BTreeMap<String, Vec<String>>,
    pub escalation: Vec<Level>,
    pub clocks: Vec<LegalClock>,
    /// Work that comes again and again.
    pub maintenance: Vec<Window>,
    /// Actions of severity 1 need two approvers.
    pub two_people: bool,
    /// Who may come in; empty: whoever is on this machine.
    pub tokens: Vec<Token>,
    /// An address of this machine only, unless there are tokens.
    pub listen: String,
    /// Part of every key that receivers see.
    pub instance: String,
    /// For links; without a slash at the end.
    pub external_url: String,
    /// ISO 4217.
    pub currency: String,
    pub data_dir: PathBuf,
    /// Names of features and segments whose values exemplars may show.
    pub redaction_allow: Vec<String>,
    /// Refused records go to `<topic>.dead` beside their topic.
    pub dead_letter_topic: bool,
    /// Refused records are appended here.
    pub dead_letter_file: Option<PathBuf>,
}

#[derive(Clone, PartialEq)]
pub struct Kafka {
    /// `host:port`.
    pub brokers: Vec<String>,
    pub topics: Vec<Topic>,
    pub group: String,
    /// How far back the first start reads.
    pub from_ms: i64,
    /// Handed to librdkafka as they are. May hold passwords: `Debug` shows the names only.
    pub properties: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    pub name: String,
    /// A name of [`decode::KINDS`].
    pub format: String,
    /// Compiles; present exactly if the format needs it.
    pub mapping: Option<decode::Mapping>,
    /// Kind of the events that name none.
    pub kind: Option<String>,
}

/// What change of a signal is worth waking for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignalSettings {
    /// Relative change that is tolerated: 0.2 is 20 %, written `20%` or `1.2x`.
    pub tolerance: Option<f64>,
    /// Changes below this value are not worth a page. Ratios from 0 to 1, latencies in milliseconds.
    pub at_least: Option<f64>,
    /// Above this value is a page whatever was normal before.
    pub never_above: Option<f64>,
}

#[derive(Clone, Default, PartialEq)]
pub struct ModelSettings {
    pub owner: Option<String>,
    /// Words such as `eu` or `legal` that raise what an incident means.
    pub exposure: Vec<String>,
    /// Segment to the values that the model was made for.
    pub intended_use: BTreeMap<String, Vec<String>>,
    /// Attributes of `groups` whose groups are compared with each other.
    pub protected: Vec<String>,
    /// Labels that are good for whom they befall.
    pub favourable: Vec<String>,
    /// Learned where absent.
    pub silence_after_ms: Option<i64>,
    /// A table of predictions that says what is normal.
    pub reference: Option<PathBuf>,
    /// Planted strings, from the file and from here. `Debug` shows only how many.
    pub canaries: Vec<String>,
}

#[derive(Clone, PartialEq)]
pub struct ReceiverSettings {
    /// A name of `notify::KINDS`.
    pub kind: String,
    /// Without `type`; `<secret>_file` is the path to read at use. `Debug` shows the keys only.
    pub table: notify::Table,
    /// Keys of `table` that must never be printed.
    pub secrets: Vec<String>,
    /// Who hears what this one finally does not take; see [`Settings::fallbacks`].
    pub fallback: Option<String>,
    /// It is told the state as a whole, and takes no messages.
    pub publishes: bool,
    /// Where the receiver begins in the file.
    pub line: u32,
    pub column: u32,
}

/// Something that can be carried out, and on what.
#[derive(Clone, PartialEq)]
pub struct ActionSettings {
    /// A name of `act::KINDS`.
    pub kind: String,
    /// Without `type`, `targets` and `per_hour`. `Debug` shows the keys only.
    pub table: notify::Table,
    /// Keys of `table` that must never be printed.
    pub secrets: Vec<String>,
    /// Nothing else is touched.
    pub targets: Vec<String>,
    pub per_hour: Option<u32>,
}

/// Somebody who may come in. Only the digest of what he shows is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub name: String,
    pub role: Role,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// Every condition that is not empty must hold; within one, any word suffices, except that all segments must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    pub severity: Vec<u8>,
    pub model: Vec<String>,
    pub owner: Vec<String>,
    pub category: Vec<String>,
    pub environment: Vec<String>,
    pub segment: Vec<(String, String)>,
    /// Names of receivers; never empty.
    pub to: Vec<String>,
}

/// A file that may be put in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub settings: Settings,
    /// Allowed, but likely not meant.
    pub warnings: Vec<Problem>,
}

/// Everything that is wrong, sorted by place. Never empty as an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named, or `environment variable NAME`.
    pub file: String,
    /// From 1; 0 where the place is not in a file.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// `receivers.oncall.type`, `routes.0.to`; empty for the file as a whole.
    pub key: String,
    /// The offending text; empty where something is missing. Never a secret.
    pub found: String,
    /// Lower case, and says what would be right.
    pub message: String,
    /// What was most likely meant.
    pub hint: Option<String>,
}

/// Reads and checks a file. `env` looks up environment variables; `kinds` are the kinds of receivers.
///
/// # Errors
/// Everything that is wrong with the file, also if it cannot be read at all.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>, kinds: &[&notify::Kind]) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, &name, env, kinds),
        Err(error) => Err(Problems(vec![Problem {
            file: name,
            line: 0,
            column: 0,
            key: String::new(),
            found: String::new(),
            message: format!("cannot be read: {error}"),
            hint: None,
        }])),
    }
}

/// Checks the text of a file called `name`; files that it names are looked for beside it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, name: &str, env: &dyn Fn(&str) -> Option<String>, kinds: &[&notify::Kind]) -> Result<Loaded, Problems> {
    let mut checker = Checker { file: name, env, kinds, problems: Vec::new(), warnings: Vec::new() };
    let mut file = match node::read(text) {
        Ok(file) => file,
        Err(error) => {
            let at = Place { line: error.line, column: error.column, variable: None };
            checker.complain(&at, "", String::new(), error.message, None);
            return Err(Problems(checker.problems));
        }
    };
    match &file.data {
        Data::Table(_) => {}
        // Nothing but comments: an empty table.
        Data::Null => file.data = Data::Table(Vec::new()),
        _ => {
            let message = format!("expected a table with keys such as kafka and receivers, found {}", file.shown());
            checker.complain(&file.at, "", file.found(), message, None);
            return Err(Problems(checker.problems));
        }
    }
    checker.prepare(&mut file, "");
    let root = match layers::join(&file, env, kinds) {
        Ok(root) => root,
        Err(message) => {
            checker.complain(&file.at, "", String::new(), message, None);
            return Err(Problems(checker.problems));
        }
    };
    checker.root(&root);
    let settings = build::settings(&mut checker, &root);
    match checker.problems.is_empty() {
        true => Ok(Loaded { settings, warnings: Checker::sorted(checker.warnings).0 }),
        false => Err(Checker::sorted(checker.problems)),
    }
}

// === impl traits ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: ", self.file)?,
            line => write!(f, "{}:{line}:{}: ", self.file, self.column)?,
        }
        if !self.key.is_empty() {
            // Names of the user's, and he may have put a line break into one.
            write!(f, "{}: ", self.key.replace(char::is_control, "?"))?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; did you mean {hint:?}?"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redacted(self))
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.keys().collect();
        let mut out = f.debug_struct("Kafka");
        out.field("brokers", &self.brokers).field("topics", &self.topics).field("group", &self.group).field("from_ms", &self.from_ms);
        out.field("properties", &names).finish()
    }
}

impl fmt::Debug for ModelSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ModelSettings");
        out.field("owner", &self.owner).field("exposure", &self.exposure).field("intended_use", &self.intended_use);
        out.field("protected", &self.protected).field("favourable", &self.favourable);
        out.field("silence_after_ms", &self.silence_after_ms).field("canaries", &self.canaries.len()).finish()
    }
}

impl fmt::Debug for ActionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.table.keys().collect();
        let mut out = f.debug_struct("ActionSettings");
        out.field("kind", &self.kind).field("table", &keys).field("targets", &self.targets).field("per_hour", &self.per_hour).finish()
    }
}

impl fmt::Debug for ReceiverSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Even what is no secret by itself, a URL or a header, may carry one.
        let keys: Vec<_> = self.table.keys().collect();
        let mut out = f.debug_struct("ReceiverSettings");
        out.field("kind", &self.kind).field("table", &keys).field("secrets", &self.secrets).field("fallback", &self.fallback);
        out.field("line", &self.line).field("column", &self.column).finish()
    }
}
