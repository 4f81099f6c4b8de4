//! The command line: one file per command, and what they share.
//!
//! Data goes to stdout, everything else to stderr, so that a pipe holds only what was asked for. A command ends with 0, with 1
//! for a failure, with 2 for a command line that makes no sense and with 78 for a configuration that cannot be put in force.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::settings::{self, Loaded};
use crate::telemetry;

mod audit;
pub mod backtest;
mod baseline;
mod check;
mod completions;
mod config;
mod demo;
mod failure;
mod holds;
mod incidents;
mod kinds;
mod notify;
mod output;
mod run;
mod score;
mod signals;
mod simulate;

use failure::Failure;

/// Where the configuration is looked for if nobody says.
const FILE: &str = "bellwether.yaml";

const EXAMPLES: &str = "\
Examples:
  bellwether demo                                see it work: a fleet, a fault, an incident
  bellwether config sample > bellwether.yaml     a file that shows every setting
  bellwether check                               is it right, and what will be watched?
  bellwether backtest events.ndjson.gz           what would it have paged over this history?
  bellwether simulate --series 2000              what would the budget give a fleet of this size?
  bellwether score metric.csv                    any metric as timestamp,value: what is odd in it?
  bellwether run                                 watch
  bellwether incidents list --live               what is wrong now?

Data goes to stdout, progress and messages to stderr. Exit codes: 0 ok, 1 failure, 2 usage, 78 configuration.
bellwether COMMAND --help shows how each is used.";

/// Watches ML models in production and opens one incident, with its evidence, when one fails
#[derive(Debug, Parser)]
#[command(name = "bellwether", version, after_help = EXAMPLES, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The configuration [default: ./bellwether.yaml]
    #[arg(long, global = true, value_name = "F", env = "BELLWETHER_CONFIG", hide_env_values = true, help_heading = "Global options")]
    // As text of any kind, because an empty variable is as good as none.
    config: Option<OsString>,
    /// What is logged: a level, or a filter such as info,bellwether::source=debug
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Global options")]
    log_level: Option<String>,
    /// How it is logged; auto: text on a terminal, JSON otherwise
    #[arg(long, global = true, value_name = "FORMAT", default_value = "auto", help_heading = "Global options",
          value_parser = clap::builder::PossibleValuesParser::new(telemetry::log::Format::NAMES))]
    log_format: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Demo(demo::Demo),
    Check(check::Check),
    Backtest(backtest::Backtest),
    Simulate(simulate::Simulate),
    Score(score::Score),
    #[command(subcommand)]
    Baseline(baseline::Baseline),
    #[command(subcommand)]
    Incidents(incidents::Incidents),
    #[command(subcommand)]
    Audit(audit::Audit),
    #[command(subcommand)]
    Silences(holds::Silences),
    #[command(subcommand)]
    Maintenance(holds::Maintenance),
    #[command(subcommand)]
    Notify(notify::Notify),
    #[command(subcommand)]
    Config(config::Config),
    Kinds(kinds::Kinds),
    Completions(completions::Completions),
}

/// Runs the command line.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and clap knows where they go. Nobody is left to hear that it cannot be written.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let global = &cli.global;
    let done = match &cli.command {
        Command::Run(command) => command.run(global),
        Command::Demo(command) => command.run(global),
        Command::Check(command) => command.run(global),
        Command::Backtest(command) => command.run(global),
        Command::Simulate(command) => command.run(global),
        Command::Score(command) => command.run(global),
        Command::Baseline(command) => command.run(global),
        Command::Incidents(command) => command.run(global),
        Command::Audit(command) => command.run(global),
        Command::Silences(command) => command.run(global),
        Command::Maintenance(command) => command.run(global),
        Command::Notify(command) => command.run(global),
        Command::Config(command) => command.run(global),
        Command::Kinds(command) => command.run(),
        Command::Completions(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

// === impl Global ===

impl Global {
    /// The file that was named, by flag or by environment.
    fn named(&self) -> Option<&Path> {
        self.config.as_deref().filter(|path| !path.is_empty()).map(Path::new)
    }

    fn path(&self) -> PathBuf {
        self.named().map_or_else(|| PathBuf::from(FILE), Path::to_owned)
    }

    /// The configuration, with its warnings told.
    fn load(&self) -> Result<Loaded, Failure> {
        self.load_over(&|_| None)
    }

    /// The same, with some keys said by flags: `over` answers like the environment and goes before it.
    fn load_over(&self, over: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Failure> {
        let path = self.path();
        let loaded = crate::daemon::load(&path, over).map_err(|problems| self.explain(&path, &problems))?;
        for warning in &loaded.warnings {
            eprintln!("warning: {warning}");
        }
        Ok(loaded)
    }

    /// The configuration if one was named or lies here.
    fn load_if_any(&self) -> Result<Option<Loaded>, Failure> {
        if self.named().is_none() && !Path::new(FILE).exists() {
            return Ok(None);
        }
        self.load().map(Some)
    }

    /// The configuration as far as it helps to find a daemon: who looks for an incident must not first mend a file.
    fn load_to_find(&self) -> Option<settings::Settings> {
        let path = self.path();
        if !path.exists() && self.named().is_none() {
            return None;
        }
        let loaded = crate::daemon::load(&path, &|_| None);
        if let Err(problems) = &loaded {
            eprintln!("warning: {} is not in order ({} problems; see bellwether check) and is not used", path.display(), problems.0.len());
        }
        loaded.ok().map(|l| l.settings)
    }

    fn explain(&self, path: &Path, problems: &settings::Problems) -> Failure {
        let failure = Failure::from(problems);
        match self.named() {
            None if !path.exists() => failure.hint("name one with --config F, or begin with: bellwether config sample > bellwether.yaml"),
            _ => failure,
        }
    }

    /// Starts the log, at this level unless another was asked for.
    fn start_log(&self, level: &str) -> Result<telemetry::log::Handle, Failure> {
        let format = self.log_format.parse().map_err(|e| Failure::usage(format!("{e}")))?;
        telemetry::log::start(self.log_level.as_deref().unwrap_or(level), format).map_err(|e| Failure::usage(format!("{e}")))
    }
}

/// What waits for the network runs here.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| Failure::new(format!("cannot start the runtime: {e}")))
}

/// The nearest of the known names, for a hint.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let far = (name.chars().count() / 3).max(2);
    known.into_iter().map(|k| (strsim::damerau_levenshtein(name, k), k)).filter(|(d, _)| *d <= far).min().map(|(_, k)| k)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_shows_an_example_and_every_flag_says_what_it_is_for() {
        fn look(command: &clap::Command, under: &str) {
            let path = format!("{under}{}", command.get_name());
            assert!(command.get_about().is_some(), "{path} says nothing of itself");
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.starts_with("Examples:\n"), "{path} shows no example");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{path}: {} is not explained", argument.get_id());
            }
            command.get_subcommands().for_each(|c| look(c, &format!("{path} ")));
        }
        look(&Cli::command(), "");
    }
}
