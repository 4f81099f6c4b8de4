//! `bellwether silences` and `bellwether maintenance`: for what and how long nobody is called.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Global;
use super::failure::Failure;
use super::incidents::{At, Desk};
use super::output::table;
use super::runtime;
use crate::domain::{Category, Hold, HoldKind, Time};
use crate::settings::duration_ms;

const EXAMPLES: &str = "\
Examples:
  bellwether silences list
  bellwether silences add --model ranker --for 2h --why 'load test'
  bellwether silences add --model assistant --category cost_anomaly --for 7d --why 'new price list'
  bellwether silences expire sil-12
  bellwether maintenance add --environment staging --from 2026-12-01T20:00:00Z --for 3h --why 'new cluster'
  bellwether maintenance end mai-14

What is held is listed as suppressed and goes on gathering evidence; if it lasts longer than the hold, it calls then.
Active harm (severity 1) is held only with --harm. add prints the id by which it is ended. Ends with 1 if the daemon does not answer
or refuses.";

/// Hold calls for what fits, for a time: list, add, expire
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Silences {
    /// List silences: those that are on, that are to come, and that were over less than a day ago
    #[command(after_help = EXAMPLES)]
    List {
        #[command(flatten)]
        at: At,
    },
    /// Add one; what no flag narrows fits everything
    #[command(after_help = EXAMPLES)]
    Add(Box<Add>),
    /// End one before its time
    #[command(after_help = EXAMPLES)]
    Expire(End),
}

/// Announce work, during which nobody is called for what fits: list, add, end
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Maintenance {
    /// List windows: those that are on, that are to come, and that were over less than a day ago
    #[command(after_help = EXAMPLES)]
    List {
        #[command(flatten)]
        at: At,
    },
    /// Add one; what no flag narrows fits everything
    #[command(after_help = EXAMPLES)]
    Add(Box<Add>),
    /// End one before its time
    #[command(after_help = EXAMPLES)]
    End(End),
}

#[derive(Debug, Args)]
pub struct Add {
    /// Only of this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only in this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only of this category, such as model_failure
    #[arg(long, value_parser = |text: &str| text.parse::<Category>())]
    category: Option<Category>,
    /// Only what sits in this segment
    #[arg(long, value_name = "DIMENSION=VALUE")]
    segment: Option<String>,
    /// Only what sits in this version
    #[arg(long, value_name = "NAME")]
    version: Option<String>,
    /// How long, such as 90s, 5m, 24h or 7d
    #[arg(long = "for", value_name = "DURATION", value_parser = |text: &str| duration_ms(text).map_err(|f| f.message))]
    lasts_ms: i64,
    /// When it begins, as 2026-12-01T20:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = |text: &str| Time::parse_rfc3339(text).ok_or("no time such as 2026-12-01T20:00:00Z"))]
    from: Option<Time>,
    /// Active harm (severity 1) as well
    #[arg(long)]
    harm: bool,
    /// Who does this
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
    by: String,
    /// Why; whoever looks at what is held reads it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    why: String,
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Args)]
pub struct End {
    /// Its id, as list and add print it
    id: String,
    /// Who does this
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
    by: String,
    #[command(flatten)]
    at: At,
}

impl Silences {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        match self {
            Silences::List { at } => list(HoldKind::Silence, at, global),
            Silences::Add(add) => add.run(HoldKind::Silence, global),
            Silences::Expire(end) => end.run("silences", "expire", global),
        }
    }
}

impl Maintenance {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        match self {
            Maintenance::List { at } => list(HoldKind::Maintenance, at, global),
            Maintenance::Add(add) => add.run(HoldKind::Maintenance, global),
            Maintenance::End(end) => end.run("maintenance", "end", global),
        }
    }
}

fn path(kind: HoldKind) -> &'static str {
    match kind {
        HoldKind::Silence => "/api/v1/silences",
        HoldKind::Maintenance => "/api/v1/maintenance",
    }
}

fn list(kind: HoldKind, at: &At, global: &Global) -> Result<(), Failure> {
    let desk = Desk::of(at, global)?;
    let all: Vec<Hold> = runtime()?.block_on(desk.list_of(path(kind)))?;
    at.output.list(&all, || rows(&all))
}

impl Add {
    fn run(&self, kind: HoldKind, global: &Global) -> Result<(), Failure> {
        let segment: Option<Value> = match self.segment.as_deref().map(|text| (text, text.split_once('='))) {
            None => None,
            Some((_, Some((dimension, value)))) => Some(json!({"dimension": dimension, "value": value})),
            Some((text, None)) => return Err(Failure::usage(format!("{text:?} is no segment; write one such as region=eu"))),
        };
        let now = crate::daemon::now();
        let until = self.from.unwrap_or(now).plus_ms(self.lasts_ms);
        let mut matcher = json!({});
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                matcher[name] = value;
            }
        };
        put("model", self.model.clone().map(Value::from));
        put("environment", self.environment.clone().map(Value::from));
        put("category", self.category.map(|c| c.as_str().into()));
        put("version", self.version.clone().map(Value::from));
        put("segment", segment);
        let body = json!({"match": matcher, "from": self.from, "until": until, "by": self.by, "why": self.why, "harm": self.harm});
        let desk = Desk::of(&self.at, global)?;
        let hold: Hold = runtime()?.block_on(desk.post(path(kind), body))?;
        self.at.output.one(&hold, || format!("{}: {} until {}\n", hold.id, hold.matcher.words(), hold.until.rfc3339()))
    }
}

impl End {
    fn run(&self, what: &str, verb: &str, global: &Global) -> Result<(), Failure> {
        if !self.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(Failure::usage(format!("{:?} is no id; bellwether {what} list shows them", self.id)));
        }
        let desk = Desk::of(&self.at, global)?;
        let hold: Hold = runtime()?.block_on(desk.post(&format!("/api/v1/{what}/{}/{verb}", self.id), json!({"by": self.by})))?;
        self.at.output.one(&hold, || format!("{} is over\n", hold.id))
    }
}

fn rows(all: &[Hold]) -> String {
    if all.is_empty() {
        return "none\n".to_owned();
    }
    let now = crate::daemon::now();
    let rows = all.iter().map(|h| {
        let state = match (&h.ended, now) {
            (Some((_, by)), _) => format!("ended by {by}"),
            (None, t) if t >= h.until => "over".to_owned(),
            (None, t) if t < h.from => "to come".to_owned(),
            (None, _) => "on".to_owned(),
        };
        vec![h.id.clone(), state, h.matcher.words(), h.from.rfc3339(), h.until.rfc3339(), h.by.clone(), h.why.clone()]
    });
    table(&["ID", "STATE", "WHAT", "FROM", "UNTIL", "BY", "WHY"], &rows.collect::<Vec<_>>())
}
