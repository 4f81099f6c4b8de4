//! `bellwether demo`: everything in one process, with nothing installed.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::Global;
use super::failure::{Failure, elsewhere};
use crate::demo;
use crate::demo::script::{Cue, Script, duration};
use crate::fleet::Fault;

const EXAMPLES: &str = "\
Examples:
  bellwether demo                                  one fault comes by itself after two seconds
  bellwether demo --fault silence@30               in the thirtieth second a model falls silent
  bellwether demo --fault timeouts@10-70 --fault cost_drift@20
  bellwether demo --json --for 120s --seed 7       for programs: one happening per line

Nothing is installed, and nothing is kept. Learns for some seconds, then prints where the pages are, what the pager hears and what
becomes of it. On a terminal the keys 1 to 8 switch faults on and off; so do the buttons of the page. q or Ctrl-C ends it.";

/// See it work: embedded Kafka, a fleet of models with a past, faults on a key, a pager that prints
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = faults())]
pub struct Demo {
    /// One happening per line instead of a screen
    #[arg(long)]
    json: bool,
    /// A fault, and in which seconds of live traffic; repeatable. Without any, one comes by itself
    #[arg(long, value_name = "NAME[@FROM[-TO]]", value_parser = |text: &str| text.parse::<Cue>())]
    fault: Vec<Cue>,
    /// Ends after this time of live traffic, such as 60s [default: when you end it]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    duration: Option<Duration>,
    /// Another seed is another fleet; the same one is the same
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Where the pages are; with port 0 at any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9710")]
    listen: SocketAddr,
}

impl Demo {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        let _log = global.start_log("warn")?;
        let options =
            demo::Options { json: self.json, script: Script::new(self.fault.clone()), duration: self.duration, seed: self.seed, listen: self.listen };
        let runtime = super::runtime()?;
        let ended = runtime.block_on(demo::run(options)).map_err(|error| {
            let failure = Failure::of(&error);
            let demo::Error::Daemon(of_daemon) = &error else { return failure };
            failure.or_hint(elsewhere(of_daemon, "--listen ADDR"))
        });
        // What has not stopped by now is not waited for.
        runtime.shutdown_background();
        ended
    }
}

fn faults() -> String {
    let width = Fault::DEMO.iter().map(|f| f.name().len()).max().unwrap_or(0);
    let lines: Vec<String> = Fault::DEMO.iter().map(|f| format!("  {:width$}  {}", f.name(), f.about())).collect();
    format!("{EXAMPLES}\n\nFaults:\n{}", lines.join("\n"))
}
