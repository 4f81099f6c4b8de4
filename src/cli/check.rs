//! `bellwether check`: proves a configuration without side effects, and says what will be watched.

use std::path::PathBuf;

use clap::Args;

use super::Global;
use super::failure::Failure;

/// Prove the configuration and say what will be watched
#[derive(Debug, Args)]
pub struct Check {
    /// The file
    #[arg(value_name = "F")]
    file: Option<PathBuf>,
}

impl Check {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        let global = Global { config: self.file.clone().or_else(|| global.config.clone()), ..global.clone() };
        global.load().map(|_| ())
    }
}
