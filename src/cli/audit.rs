//! `bellwether audit`: who did what, and whether the record of it is whole.
//!
//! Read from the store itself, with or without a running daemon: whoever doubts the daemon does not want to ask it.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Global;
use super::failure::Failure;
use super::output::{Output, inert, table};
use crate::store::{AuditRow, Store};

const EXAMPLES: &str = "\
Examples:
  bellwether audit list                         who did what, newest first
  bellwether audit list -o jsonl | jq 'select(.who == \"ana\")'
  bellwether audit verify                       is the record whole? prints the last seal, to be noted elsewhere
  bellwether audit verify --seal 9f2c...        and does it still hold what was noted?

Both read the store, whether a daemon runs or not. verify ends with 1 if a row was changed, taken out or cut off.";

/// Who did what: list the record, or verify that it is whole
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Audit {
    /// Acts, newest first
    #[command(after_help = EXAMPLES)]
    List {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        at: At,
    },
    /// Walk the chain of seals from the first row to the last
    #[command(after_help = EXAMPLES)]
    Verify {
        /// A seal that was noted: it must be there
        #[arg(long, value_name = "SEAL")]
        seal: Option<String>,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Clone, Debug, Args)]
pub struct At {
    /// Where the store is [default: `data_dir` of the configuration]
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl At {
    fn store(&self, global: &Global) -> Result<Store, Failure> {
        let dir = match &self.data_dir {
            Some(dir) => dir.clone(),
            None => global.load_to_find().map_or_else(|| PathBuf::from("./bellwether-data"), |s| s.data_dir),
        };
        Store::open_reader(&dir).map_err(|e| Failure::of(&e))
    }
}

impl Audit {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        match self {
            Audit::List { limit, at } => {
                let rows = at.store(global)?.audit_rows(None, *limit).map_err(|e| Failure::of(&e))?;
                at.output.list(&rows, || listed(&rows))
            }
            Audit::Verify { seal, at } => {
                let store = at.store(global)?;
                let proof = store.audit_proof().map_err(|e| Failure::of(&e))?;
                if let Some((row, why)) = &proof.broken {
                    at.output.one(&proof, String::new)?;
                    return Err(Failure::new(format!("the audit is broken at row {row}: {why}")));
                }
                if let Some(noted) = seal {
                    let known = store.audit_seal(noted).map_err(|e| Failure::of(&e))?;
                    if !known {
                        return Err(Failure::new(format!("no row has the seal {noted:?}: the record was written anew since it was noted")));
                    }
                }
                at.output.one(&proof, || format!("{} rows, whole; the last seal is {}\n", proof.rows, proof.seal))
            }
        }
    }
}

fn listed(rows: &[AuditRow]) -> String {
    if rows.is_empty() {
        return "nothing was done yet\n".to_owned();
    }
    let row =
        |r: &AuditRow| vec![r.seq.to_string(), r.at.to_string(), inert(&r.who), r.role.clone(), inert(&r.what), inert(&r.subject), inert(&r.detail)];
    table(&["ROW", "AT", "WHO", "ROLE", "WHAT", "ON", "DETAIL"], &rows.iter().map(row).collect::<Vec<_>>())
}
