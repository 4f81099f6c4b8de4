//! `bellwether notify`: is anybody there?

use clap::Subcommand;
use serde::Serialize;

use super::failure::{Code, Failure};
use super::output::{Output, inert};
use super::{Global, nearest, runtime};
use crate::daemon::build;
use crate::domain::delivery::Outcome;
use crate::notify::{KINDS, Receiver};

const EXAMPLES: &str = "\
Examples:
  bellwether notify test oncall                 sends a marked test message; somebody may be called
  bellwether notify test oncall -o json

Prints what the receiver answered. Ends with 1 if it does not take the message.";

/// Try a receiver of the configuration
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Notify {
    /// Send a marked test message to a receiver of the configuration, and show the answer
    #[command(after_help = EXAMPLES)]
    Test {
        /// Its name under `receivers`
        receiver: String,
        /// How it is written
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
}

#[derive(Serialize)]
struct Answer<'a> {
    receiver: &'a str,
    kind: &'a str,
    outcome: &'static str,
    status: Option<u16>,
    detail: &'a str,
}

impl Notify {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        let Notify::Test { receiver: name, output } = self;
        let settings = global.load()?.settings;
        let _log = global.start_log("warn")?;
        let Some(chosen) = settings.receivers.get(name) else {
            let known: Vec<&str> = settings.receivers.keys().map(String::as_str).collect();
            let failure = if known.is_empty() {
                Failure::new(format!("unknown receiver {name:?}: {} has none", global.path().display()))
            } else {
                Failure::new(format!("unknown receiver {name:?} (known: {})", known.join(", ")))
            };
            return Err(match nearest(name, known) {
                Some(near) => failure.hint(format!("did you mean {near:?}?")),
                None => failure,
            });
        };
        let kind = KINDS.iter().find(|k| k.name == chosen.kind).ok_or_else(|| Failure::config(format!("unknown type {:?}", chosen.kind)))?;
        let receiver = (kind.build)(name, &build::common(&settings), &chosen.table).map_err(|problems| Failure {
            code: Code::Config,
            lines: problems.into_iter().map(|(key, words)| (format!("receivers.{name}.{key}: {words}"), None)).collect(),
        })?;
        let now = crate::daemon::now();
        let outcome = runtime()?.block_on(async {
            match &receiver {
                Receiver::Messages(notifier) => notifier.test(now).await,
                Receiver::State(publisher) => publisher.test(now).await,
            }
        });
        let status = match &outcome {
            Outcome::Accepted { status, .. } => Some(*status).filter(|s| *s > 0),
            Outcome::Refused { status, .. } | Outcome::Retry { status, .. } => *status,
            Outcome::Uncertain { .. } | Outcome::Untrusted { .. } => None,
        };
        let answer = Answer { receiver: name, kind: kind.name, outcome: outcome.as_str(), status, detail: outcome.detail() };
        output.one(&answer, || {
            let code = status.map(|s| format!(" ({s})")).unwrap_or_default();
            format!("{name} ({}): {}{code}: {}\n", kind.name, outcome.as_str(), inert(outcome.detail()))
        })?;
        match outcome {
            Outcome::Accepted { .. } => Ok(()),
            Outcome::Refused { .. } | Outcome::Retry { .. } | Outcome::Uncertain { .. } | Outcome::Untrusted { .. } => {
                Err(Failure::new(format!("the test did not reach {name}: {}", inert(outcome.detail()))))
            }
        }
    }
}
