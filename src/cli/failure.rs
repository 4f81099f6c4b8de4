//! What went wrong, as a person reads it and as a shell counts it: `error: …`, `hint: …`, and a code.

use std::io::ErrorKind;
use std::process::ExitCode;

pub use crate::daemon::chain;
use crate::settings::Problems;
use crate::{daemon, serve};

/// 1: it failed. 2: the command line is wrong (as clap has it). 78: the configuration is wrong (`EX_CONFIG` of sysexits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Whoever read our output has had enough: that is no failure.
    Closed = 0,
    Failure = 1,
    Usage = 2,
    Config = 78,
}

/// Why a command ends with another code than 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    /// Each with what may help.
    pub lines: Vec<(String, Option<String>)>,
}

impl Failure {
    pub fn new(text: impl Into<String>) -> Failure {
        Failure { code: Code::Failure, lines: vec![(text.into(), None)] }
    }

    pub fn usage(text: impl Into<String>) -> Failure {
        Failure { code: Code::Usage, ..Failure::new(text) }
    }

    pub fn config(text: impl Into<String>) -> Failure {
        Failure { code: Code::Config, ..Failure::new(text) }
    }

    /// What has been said already, or needs no words.
    pub fn silent(code: Code) -> Failure {
        Failure { code, lines: Vec::new() }
    }

    /// An error with its causes.
    pub fn of(error: &dyn std::error::Error) -> Failure {
        Failure::new(chain(error))
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        if let Some(last) = self.lines.last_mut() {
            last.1 = Some(hint.into());
        }
        self
    }

    #[must_use]
    pub fn or_hint(self, hint: Option<String>) -> Failure {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Says it on stderr.
    pub fn tell(&self) -> ExitCode {
        for (text, hint) in &self.lines {
            eprintln!("error: {text}");
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
        }
        ExitCode::from(self.code as u8)
    }
}

/// What helps where the pages cannot be served at their address; `by` says how another one is chosen.
pub fn elsewhere(error: &daemon::Error, by: &str) -> Option<String> {
    let daemon::Error::Serve(serve::Error::Listen { source, .. }) = error else { return None };
    let taken = if source.kind() == ErrorKind::AddrInUse { "another program listens there, perhaps a bellwether: " } else { "" };
    Some(format!("{taken}choose another address with {by}, such as 127.0.0.1:9711, or port 0 for any free one"))
}

impl From<&Problems> for Failure {
    fn from(problems: &Problems) -> Failure {
        let line = |p: &crate::settings::Problem| {
            let plain = crate::settings::Problem { hint: None, ..p.clone() };
            (plain.to_string(), p.hint.as_ref().map(|h| format!("did you mean {h:?}?")))
        };
        Failure { code: Code::Config, lines: problems.0.iter().map(line).collect() }
    }
}
