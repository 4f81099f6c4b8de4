//! `bellwether config`: the file itself, its schema, a sample, and what is in force.

use clap::Subcommand;

use super::Global;
use super::failure::Failure;
use super::output::{Output, print};
use crate::{notify, settings};

const EXAMPLES: &str = "\
Examples:
  bellwether config sample > bellwether.yaml
  bellwether config schema > bellwether.schema.json    and in the file: # yaml-language-server: $schema=bellwether.schema.json
  BELLWETHER__KAFKA__GROUP=canary bellwether config show";

/// The configuration: schema, sample, what is in force
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Config {
    /// JSON Schema of the file, for editors
    #[command(after_help = EXAMPLES)]
    Schema,
    /// A file that shows every key with its default
    #[command(after_help = EXAMPLES)]
    Sample,
    /// What file, environment and defaults say together; secrets as <secret>
    #[command(after_help = EXAMPLES)]
    Show,
}

impl Config {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        match self {
            Config::Schema => {
                let kinds: Vec<&notify::Kind> = notify::KINDS.iter().collect();
                Output::Json.one(&settings::schema_for(&kinds), String::new)
            }
            Config::Sample => print(&settings::sample()),
            Config::Show => print(&settings::redacted(&global.load()?.settings)),
        }
    }
}
