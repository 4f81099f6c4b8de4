//! `bellwether baseline`: what normal is: imported from a reference, shown, forgotten.
//!
//! The file is read here and sent to the running daemon as counts: what leaves this process holds bins and classes, no rows.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::failure::Failure;
use super::incidents::{At, Desk};
use super::output::{Output, table};
use super::{Global, runtime};
use crate::domain::Signal;
use crate::engine::view::BaselineView;
use crate::judge::thousands;
use crate::reference::{self, Asked, Column, Role};

const EXAMPLES: &str = "\
Examples:
  bellwether baseline import reference.csv --model loan-scorer
  bellwether baseline import reference.csv --model loan-scorer --role grade=category --role comment=ignored
  bellwether baseline import reference.csv --dry-run       what is in it, without a daemon
  bellwether baseline show --model loan-scorer
  bellwether baseline reset --model loan-scorer --signal feature:income

One row is one prediction. CSV (delimiter found out) and NDJSON, also .gz and .zst. Roles are guessed from names: timestamp, prediction,
score, label, latency, cost, status; everything else is a feature. models.<model>.reference in the configuration does the same at the start.
import prints the columns and what was learned of each. Ends with 1 if the file cannot be read or the daemon refuses.";

/// What is normal: import it from a reference, show it, forget it
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Baseline {
    /// Learn from a table of predictions, so that the model is watched from its first day
    #[command(after_help = EXAMPLES)]
    Import(Import),
    /// What is normal, where it comes from, and what still learns
    #[command(after_help = EXAMPLES)]
    Show {
        /// Only of this model
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Forget what was learned; the series learn anew
    #[command(after_help = EXAMPLES)]
    Reset {
        /// The model that is to learn anew
        #[arg(long, value_name = "NAME")]
        model: String,
        /// Only in this environment
        #[arg(long, value_name = "NAME")]
        environment: Option<String>,
        /// Only this signal, such as latency or feature:income
        #[arg(long, value_name = "SIGNAL", value_parser = |text: &str| text.parse::<Signal>())]
        signal: Option<Signal>,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, Args)]
pub struct Import {
    /// A table of predictions, CSV or NDJSON, also .gz and .zst
    file: PathBuf,
    /// The model that it is about
    #[arg(long, value_name = "NAME", required_unless_present = "dry_run")]
    model: Option<String>,
    /// Only in this environment; in all if left out
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Role of a column, where the guess is wrong
    #[arg(long = "role", value_name = "COLUMN=ROLE", value_parser = role)]
    roles: Vec<(String, Role)>,
    /// Say what is in the file and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Who does this
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true, default_value = "")]
    by: String,
    #[command(flatten)]
    at: At,
}

/// The answer to an import.
#[derive(Serialize)]
struct Report<'a> {
    file: &'a str,
    sha256: &'a str,
    rows: u64,
    from: Option<crate::domain::Time>,
    to: Option<crate::domain::Time>,
    columns: &'a [Column],
    series: Vec<BaselineView>,
}

fn role(text: &str) -> Result<(String, Role), String> {
    let known = || Role::ALL.iter().map(|r| r.0).collect::<Vec<_>>().join(", ");
    let (column, word) = text.rsplit_once('=').ok_or("expected COLUMN=ROLE")?;
    let role = Role::ALL.iter().find(|r| r.0 == word).ok_or_else(|| format!("unknown role {word:?} (known: {})", known()))?;
    Ok((column.to_owned(), role.1))
}

impl Baseline {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        match self {
            Baseline::Import(import) => import.run(global),
            Baseline::Show { model, at } => {
                let query: Vec<(&str, String)> = model.clone().map(|m| ("model", m)).into_iter().collect();
                let desk = Desk::of(at, global)?;
                let all: Vec<BaselineView> = runtime()?.block_on(desk.baselines(&query))?;
                at.output.list(&all, || shown(&all))
            }
            Baseline::Reset { model, environment, signal, at } => {
                let body = json!({"model": model, "environment": environment, "signal": signal});
                let desk = Desk::of(at, global)?;
                let all: Vec<BaselineView> = runtime()?.block_on(desk.teach("/api/v1/baselines/reset", body))?;
                at.output.list(&all, || shown(&all))
            }
        }
    }
}

impl Import {
    fn run(&self, global: &Global) -> Result<(), Failure> {
        let pane_ms = global.load_to_find().map_or(10_000, |s| s.pane_ms);
        let roles: BTreeMap<String, Role> = self.roles.iter().cloned().collect();
        let asked = Asked { roles, by: self.by.clone(), now: crate::daemon::now(), pane_ms };
        let found = reference::read(&self.file, &asked).map_err(Failure::new)?;
        let series = match &self.model {
            Some(model) if !self.dry_run => {
                let packed = found.import.pack().map_err(Failure::new)?;
                let most = crate::serve::REFERENCE_BYTES_MAX;
                if packed.len() > most {
                    let failure = Failure::new(format!("the reference takes {} bytes where {most} are taken", packed.len()));
                    return Err(failure.hint("leave columns out with --role COLUMN=ignored, or give a sample of the rows"));
                }
                let body = json!({"model": model, "environment": self.environment, "packed": packed});
                let desk = Desk::of(&self.at, global)?;
                runtime()?.block_on(desk.teach("/api/v1/baselines", body))?
            }
            Some(_) | None => Vec::new(),
        };
        let p = &found.import.provenance;
        let series: Vec<BaselineView> = series.into_iter().filter(|s| s.learned_from.as_deref() == Some(p.words().as_str())).collect();
        let report = Report { file: &p.file, sha256: &p.sha256, rows: p.rows, from: p.from, to: p.to, columns: &found.columns, series };
        let output = self.at.output;
        output.one(&report, || {
            let mut text = format!("{}\n\n{}", p.words(), columns(&found.columns));
            if !report.series.is_empty() {
                text += &format!("\n{}", shown(&report.series));
            }
            text
        })?;
        if output == Output::Table && !self.dry_run {
            eprintln!("what learned from it judges from now on; what the rows do not tell learns from traffic (baseline.learn)");
        }
        Ok(())
    }
}

fn columns(all: &[Column]) -> String {
    let rows: Vec<Vec<String>> = (all.iter())
        .map(|c| {
            let distinct = thousands(c.distinct as f64);
            vec![
                c.name.clone(),
                c.kind.as_str().to_owned(),
                c.role.as_str().to_owned(),
                thousands(c.missing as f64),
                distinct,
                c.note.unwrap_or_default().to_owned(),
            ]
        })
        .collect();
    table(&["COLUMN", "TYPE", "ROLE", "MISSING", "DISTINCT", "NOTE"], &rows)
}

fn shown(all: &[BaselineView]) -> String {
    let rows: Vec<Vec<String>> = (all.iter())
        .map(|b| {
            let usual = b.value.map(|v| b.unit.words(v)).unwrap_or_default();
            let tolerated = b.low.zip(b.high).map(|(l, h)| format!("{} to {}", b.unit.words(l), b.unit.words(h))).unwrap_or_default();
            let needs = match b.needs_events {
                Some(n) if n > 0.0 => format!("{} more events", thousands(n)),
                Some(_) => "nothing".to_owned(),
                None => "more events".to_owned(),
            };
            vec![
                b.model.clone(),
                b.environment.clone().unwrap_or_else(|| "(any)".to_owned()),
                b.signal.to_string(),
                b.state.to_string(),
                usual,
                tolerated,
                needs,
                b.learned_from.clone().unwrap_or_else(|| "traffic".to_owned()),
            ]
        })
        .collect();
    table(&["MODEL", "ENVIRONMENT", "SIGNAL", "STATE", "USUALLY", "TOLERATED", "NEEDS", "LEARNED FROM"], &rows)
}
