//! `bellwether run`: the daemon.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::failure::{Failure, chain, elsewhere};
use super::{Global, runtime};
use crate::daemon;
use crate::settings::Loaded;

const EXAMPLES: &str = "\
Examples:
  bellwether run --config /etc/bellwether/bellwether.yaml
  bellwether run --data-dir /var/lib/bellwether --listen 0.0.0.0:9710
  bellwether run --log-format json --log-level info,bellwether::source=debug

Pages and API are at http://127.0.0.1:9710 unless `listen` says otherwise. SIGHUP reads the configuration again; SIGTERM and Ctrl-C
end it, with 0. Ends with 78 if the configuration cannot be put in force, with 1 if anything else stops it. Try bellwether check first.";

/// Watch: read events, gather evidence, open incidents, tell people
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    /// Where state is kept [default: `data_dir` of the configuration, or ./bellwether-data]
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
    /// Where pages and API are [default: `listen` of the configuration, or 127.0.0.1:9710]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

impl Run {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        let (data_dir, listen) = (self.data_dir.as_ref().map(|d| d.display().to_string()), self.listen.clone());
        let over: daemon::Over = Arc::new(move |name: &str| match name {
            "BELLWETHER__DATA_DIR" => data_dir.clone(),
            "BELLWETHER__LISTEN" => listen.clone(),
            _ => None,
        });
        let loaded = global.load_over(&*over).map_err(|mut failure| {
            // The flags are read in the place of these variables.
            for (text, _) in &mut failure.lines {
                for (variable, flag) in [("BELLWETHER__DATA_DIR", "--data-dir"), ("BELLWETHER__LISTEN", "--listen")] {
                    if over(variable).is_some() {
                        *text = text.replace(&format!("environment variable {variable}"), flag);
                    }
                }
            }
            failure
        })?;
        let _log = global.start_log("info")?;
        let runtime = runtime()?;
        let ended = runtime.block_on(start(loaded, global.path(), over));
        // What has not stopped by now is not waited for.
        runtime.shutdown_background();
        ended
    }
}

/// The one place that knows how a daemon is started.
async fn start(loaded: Loaded, path: PathBuf, over: daemon::Over) -> Result<(), Failure> {
    daemon::run(daemon::Options { over, ..daemon::Options::new(loaded, Some(path)) }).await.map_err(|error| match &error {
        daemon::Error::Settings(words) => Failure::config(words.clone()),
        daemon::Error::Store(_)
        | daemon::Error::State(_)
        | daemon::Error::Source(_)
        | daemon::Error::Serve(_)
        | daemon::Error::Ended(_)
        | daemon::Error::Io { .. } => Failure::new(chain(&error)).or_hint(elsewhere(&error, "--listen ADDR or the key `listen`")),
    })
}
