//! `bellwether incidents`: the incident desk, over the API of a running daemon.

use clap::Subcommand;

use super::Global;
use super::failure::Failure;

/// The incident desk
#[derive(Debug, Subcommand)]
pub enum Incidents {
    /// List incidents
    List,
}

impl Incidents {
    pub fn run(&self, _global: &Global) -> Result<(), Failure> {
        Err(Failure::new("not part of this build yet"))
    }
}
