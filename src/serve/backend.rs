//! What the pages and the API ask of the daemon behind them.

use async_trait::async_trait;
use serde::Serialize;

use super::holds::NewHold;
use crate::domain::incident::{Incident, TimelineEntry};
use crate::domain::response::{Decided, Timer, TimerKind};
use crate::domain::{ClockState, ClosedAs, Hold, Role, Severity, Signal, Time};
use crate::engine::view::{BaselineView, EngineView, ModelView, SeriesPage, SeriesView};
use crate::respond::{DutyCommand, duties};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct IncidentFilter {
    pub model: Option<String>,
    pub category: Option<String>,
    pub state: Option<String>,
    /// Only those that hold their key.
    pub live: bool,
    pub limit: usize,
    /// Opaque: the `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// An incident with what happened to it and who was told.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentPage {
    pub incident: Incident,
    pub timeline: Vec<TimelineEntry>,
    pub deliveries: Vec<DeliveryRow>,
    /// Duties to report, with what is left of their time at the moment of the answer.
    pub clocks: Vec<ClockRow>,
}

/// How a duty to report stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClockRow {
    pub name: String,
    pub words: String,
    pub state: ClockState,
    pub due: Option<Time>,
    /// Negative when its time is over; none when nothing is counted any more.
    pub seconds_left: Option<i64>,
    pub decided: Option<Decided>,
    /// The incident that it began with, if that was another one.
    pub begun_with: Option<String>,
    pub checked_on: String,
}

impl ClockRow {
    /// Those of an incident, as they stand now.
    pub fn of(incident: &Incident, now: Time) -> Vec<ClockRow> {
        let row = |t: &Timer| match &t.what {
            TimerKind::Escalate { .. } => None,
            TimerKind::Legal { name, words, checked_on, .. } => Some(ClockRow {
                name: name.clone(),
                words: words.clone(),
                state: t.standing.state,
                due: t.due,
                seconds_left: t.due.filter(|_| duties::is_running(incident, t)).map(|due| due.since_ms(now).div_euclid(1_000)),
                decided: t.standing.decided.clone(),
                begun_with: t.standing.begun_with.clone(),
                checked_on: checked_on.clone(),
            }),
        };
        incident.response.timers.iter().filter_map(row).collect()
    }
}

/// Who was told what and when.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeliveryRow {
    pub id: String,
    pub receiver: String,
    pub notice: String,
    pub state: String,
    pub attempts: u32,
    pub created_at: Time,
    pub last_attempt_at: Option<Time>,
    pub detail: String,
}

/// What a person may do to an incident.
#[derive(Clone, Debug, PartialEq)]
pub enum PersonCommand {
    Acknowledge {
        by: String,
        why: String,
    },
    Mitigate {
        by: String,
        why: String,
    },
    Resolve {
        by: String,
        closed_as: ClosedAs,
        why: String,
    },
    Reopen {
        by: String,
        why: String,
    },
    Note {
        by: String,
        text: String,
    },
    /// Looks again and says what would be done. An empty step is the one that is ready.
    Plan {
        by: String,
        step: String,
    },
    /// `plan` is the hash of the plan that was seen.
    Approve {
        by: String,
        role: Role,
        step: String,
        plan: String,
    },
    Undo {
        by: String,
        role: Role,
        step: String,
    },
    /// A step is done by hand, or somebody has looked and says so.
    Done {
        by: String,
        step: String,
        why: String,
    },
    /// It has the same cause as the incident `into`, and is told there.
    Merge {
        into: String,
        by: String,
        why: String,
    },
    /// It stands for itself after all.
    Split {
        by: String,
        why: String,
    },
    /// Nobody is called for it until then.
    Suppress {
        by: String,
        why: String,
        until: Time,
    },
    /// Of a draft or a duty to report.
    Duty(DutyCommand),
    /// How bad it is, over what triage says.
    SetSeverity {
        by: String,
        severity: Severity,
        why: String,
    },
}

/// Somebody with a token, of which only the digest (SHA-256) is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    pub role: Role,
    pub digest: [u8; 32],
}

/// One line of the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audited {
    pub who: String,
    pub role: String,
    pub what: String,
    pub subject: String,
    pub detail: String,
}

/// What a person may do to what is normal.
#[derive(Clone, Debug, PartialEq)]
pub enum BaselineCommand {
    /// A packed reference; `environment`: all if none.
    Import {
        model: String,
        environment: Option<String>,
        packed: String,
    },
    Forget {
        model: String,
        environment: Option<String>,
        signal: Option<Signal>,
    },
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CommandError {
    #[error("no incident {0:?}")]
    NotFound(String),
    /// The caller saw an older revision.
    #[error("the incident is at revision {at}, not {asked}")]
    Conflict { at: u64, asked: u64 },
    /// It does not fit the state, in words for the person.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Unavailable(String),
}

/// The result of an action, with the headers by which it is signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionResult {
    /// Of the call.
    pub id: String,
    pub message: String,
    pub timestamp: String,
    pub signature: String,
    pub body: Vec<u8>,
}

/// Why a receiver that tells us something is not heard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HearError {
    /// Or there is no such receiver: whoever guesses is not told which.
    #[error("not signed by a receiver of ours")]
    Unsigned,
    /// It may come again.
    #[error("{0}")]
    Unavailable(String),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    /// Works, but not all of it: the broker is away, a receiver refuses.
    pub degraded: bool,
    pub reasons: Vec<String>,
}

/// A fault of the demo's fleet that can be switched on the page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FaultButton {
    pub name: String,
    pub about: String,
    pub on: bool,
}

/// What stands between the world and the engine, for the health page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HealthView {
    pub lag: Vec<LagRow>,
    /// Rejected events by reason.
    pub rejected: Vec<(String, u64)>,
    pub outbox: Vec<OutboxRow>,
}

/// How far behind one partition is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LagRow {
    pub topic: String,
    pub partition: i32,
    pub records: u64,
    pub seconds: f64,
}

/// What waits for one receiver.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutboxRow {
    pub receiver: String,
    pub pending: u64,
    pub oldest: Option<Time>,
    /// What the receiver said last.
    pub last: String,
}

#[async_trait]
pub trait Backend: Send + Sync {
    /// Incidents, newest first, and the cursor of the next page.
    async fn incidents(&self, filter: IncidentFilter) -> Result<(Vec<Incident>, Option<String>), CommandError>;
    async fn incident(&self, id: &str) -> Result<IncidentPage, CommandError>;
    /// Durable when it returns. `revision`: what the caller saw (If-Match). The same idempotency key gives the same answer.
    async fn command(&self, id: &str, command: PersonCommand, revision: Option<u64>, key: Option<String>) -> Result<Incident, CommandError>;
    /// What a receiver tells us by itself, such as that somebody has acknowledged over there. Durable when it returns; the answer
    /// says what was done.
    async fn hear(&self, _receiver: &str, _signature: &str, _body: &[u8]) -> Result<String, HearError> {
        Err(HearError::Unsigned)
    }
    /// The result of an action that was accepted, brought by whoever carried it out.
    async fn result(&self, _told: ActionResult) -> Result<(), HearError> {
        Err(HearError::Unsigned)
    }
    /// Who may come in; empty: whoever is on this machine.
    fn holders(&self) -> Vec<Holder> {
        Vec::new()
    }
    /// Durable when it returns: a write is not even looked at before it stands here.
    async fn audit(&self, _line: Audited) -> Result<(), CommandError> {
        Ok(())
    }
    /// Silences and maintenance windows, newest first.
    async fn holds(&self) -> Result<Vec<Hold>, CommandError> {
        Ok(Vec::new())
    }
    /// Durable when it returns.
    async fn hold(&self, _: NewHold) -> Result<Hold, CommandError> {
        Err(CommandError::Unavailable("nothing can be held here".to_owned()))
    }
    async fn end_hold(&self, id: &str, _by: String) -> Result<Hold, CommandError> {
        Err(CommandError::NotFound(id.to_owned()))
    }
    async fn models(&self) -> Result<Vec<ModelView>, CommandError>;
    /// Series of a model, or all; at most `limit`.
    async fn series(&self, model: Option<&str>, limit: usize) -> Result<Vec<SeriesView>, CommandError>;
    async fn series_page(&self, id: &str) -> Result<SeriesPage, CommandError>;
    /// What is normal, of one model or of all.
    async fn baselines(&self, _model: Option<&str>) -> Result<Vec<BaselineView>, CommandError> {
        Err(CommandError::Unavailable("no baselines here".to_owned()))
    }
    /// Changes what is normal; durable when it returns what is normal now.
    async fn teach(&self, _command: BaselineCommand) -> Result<Vec<BaselineView>, CommandError> {
        Err(CommandError::Unavailable("no baselines here".to_owned()))
    }
    async fn engine(&self) -> Result<EngineView, CommandError>;
    /// Lag, rejections and the outbox. Nothing is said of what is not told.
    async fn health(&self) -> HealthView {
        HealthView::default()
    }
    fn is_healthy(&self) -> bool;
    fn readiness(&self) -> Readiness;
    /// Re-reads the configuration; the message says what was wrong.
    async fn reload(&self) -> Result<(), String>;
    /// Prometheus text format 0.0.4.
    fn metrics(&self) -> String;
    /// The configuration in force, secrets as `<secret>`.
    fn config_text(&self) -> String;
    /// Host names, beside the loopback's, under which browsers may call: that of `external_url`.
    fn hosts(&self) -> Vec<String> {
        Vec::new()
    }
    /// The revision that this build was made from.
    fn revision(&self) -> String {
        "unknown".to_owned()
    }
    /// Empty outside the demo.
    fn faults(&self) -> Vec<FaultButton>;
    fn switch_fault(&self, name: &str, on: bool) -> Result<(), CommandError>;
}
