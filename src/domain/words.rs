//! The closed sets: names that appear in configuration, metrics, messages and pages, spelt the same everywhere.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Declares a closed set with its spelling, in the order in which it is listed to people.
macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $(#[serde(rename = $text)] $variant),+ }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant),+];
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(self.as_str()) }
        }

        impl FromStr for $name {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text { $($text => Ok($name::$variant),)+ _ => Err(UnknownWord { found: text.to_owned(), known: Self::NAMES }) }
            }
        }
    };
}

/// A word outside its closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {found:?} (known: {})", known.join(", "))]
pub struct UnknownWord {
    pub found: String,
    pub known: &'static [&'static str],
}

closed_set!(
    /// What kind of failure an incident is: the playbook's seven, and one for ourselves.
    Category {
        HarmfulOutput = "harmful_output", QualityDegradation = "quality_degradation", DataBreach = "data_breach", Bias = "bias",
        OutOfScopeUse = "out_of_scope_use", ModelFailure = "model_failure", CostAnomaly = "cost_anomaly", MonitoringBlind = "monitoring_blind",
    }
);

impl Category {
    /// Is it harm to people, of the playbook's kinds: what they were shown, what was given away, how groups are treated?
    pub fn is_harm(self) -> bool {
        use Category::*;
        match self {
            HarmfulOutput | DataBreach | Bias => true,
            QualityDegradation | OutOfScopeUse | ModelFailure | CostAnomaly | MonitoringBlind => false,
        }
    }
}

closed_set!(
    /// Where the cause of an incident is looked for first.
    Cause { Model = "model", Data = "data", Infrastructure = "infrastructure", Pipeline = "pipeline" }
);

closed_set!(
    /// Where an incident stands.
    IncidentState {
        Open = "open", Acknowledged = "acknowledged", Mitigated = "mitigated", MonitoringRecovery = "monitoring_recovery",
        Resolved = "resolved", ReviewDue = "review_due", Closed = "closed", Suppressed = "suppressed", Merged = "merged",
    }
);

impl IncidentState {
    /// While an incident is live, its key (environment, model, category) is taken.
    pub fn is_live(self) -> bool {
        use IncidentState::*;
        match self {
            Open | Acknowledged | Mitigated | MonitoringRecovery | Suppressed => true,
            Resolved | ReviewDue | Closed | Merged => false,
        }
    }

    /// Does anybody hear of what happens to it? A suppressed incident goes on quietly, a merged one speaks through another.
    pub fn is_audible(self) -> bool {
        use IncidentState::*;
        match self {
            Open | Acknowledged | Mitigated | MonitoringRecovery | Resolved | ReviewDue | Closed => true,
            Suppressed | Merged => false,
        }
    }
}

closed_set!(
    /// How a duty to report stands. Nothing but a person's word moves it.
    ClockState { Suggested = "suggested", Started = "started", Met = "met", Waived = "waived" }
);

impl ClockState {
    /// Its time is counted.
    pub fn runs(self) -> bool {
        match self {
            ClockState::Suggested | ClockState::Started => true,
            ClockState::Met | ClockState::Waived => false,
        }
    }
}

closed_set!(
    /// How an incident was closed, which decides what its series learn.
    ClosedAs { Fixed = "fixed", NewNormal = "new_normal", FalseAlarm = "false_alarm", Expected = "expected" }
);

closed_set!(
    /// What a detector is able to say of its series.
    DetectorState { Warming = "warming", Armed = "armed", Starved = "starved", Frozen = "frozen", Off = "off" }
);

closed_set!(
    /// Whether a reading became an alarm.
    Decision { Raised = "raised", Held = "held" }
);

closed_set!(
    /// What a step of a runbook is for: the playbook's immediate responses.
    StepKind {
        TakeOffline = "take_offline", SafeDefault = "safe_default", Guardrails = "guardrails", Conservative = "conservative", Reroute = "reroute",
        Sensitivity = "sensitivity", ScheduleFix = "schedule_fix", Investigate = "investigate", Page = "page", Ticket = "ticket",
        TellLeadership = "tell_leadership", TellLegal = "tell_legal", TellUsers = "tell_users",
    }
);

impl StepKind {
    /// Does it change how things are, and not only who knows of them?
    pub fn acts(self) -> bool {
        use StepKind::*;
        match self {
            TakeOffline | SafeDefault | Guardrails | Conservative | Reroute | Sensitivity | ScheduleFix => true,
            Investigate | Page | Ticket | TellLeadership | TellLegal | TellUsers => false,
        }
    }
}

closed_set!(
    /// How far a step has come.
    StepState {
        Idle = "idle", Planning = "planning", Planned = "planned", Applying = "applying", Verifying = "verifying", Done = "done",
        Unverified = "unverified", Unknown = "unknown", Failed = "failed", Moved = "moved",
        Undoing = "undoing", VerifyingUndo = "verifying_undo", Undone = "undone", UndoFailed = "undo_failed", UndoUnknown = "undo_unknown",
    }
);

impl StepState {
    /// Nothing goes on unless somebody says so.
    pub fn waits_for_a_person(self) -> bool {
        use StepState::*;
        match self {
            Planned | Unverified | Unknown | Failed | Moved | UndoFailed | UndoUnknown => true,
            Idle | Planning | Applying | Verifying | Done | Undoing | VerifyingUndo | Undone => false,
        }
    }

    /// The target may be changing, or nobody knows: no other action may touch it.
    pub fn holds_the_target(self) -> bool {
        use StepState::*;
        match self {
            Applying | Verifying | Unknown | Undoing | VerifyingUndo | UndoUnknown => true,
            Idle | Planning | Planned | Done | Unverified | Failed | Moved | Undone | UndoFailed => false,
        }
    }

    /// Something was changed that can be taken back.
    pub fn may_be_undone(self) -> bool {
        use StepState::*;
        match self {
            Done | Unverified | Unknown | UndoFailed | UndoUnknown => true,
            Idle | Planning | Planned | Applying | Verifying | Failed | Moved | Undoing | VerifyingUndo | Undone => false,
        }
    }

    /// A new plan may be asked for.
    pub fn may_be_planned(self) -> bool {
        use StepState::*;
        match self {
            Idle | Planned | Failed | Moved | Unverified | Unknown | Undone => true,
            Planning | Applying | Verifying | Done | Undoing | VerifyingUndo | UndoFailed | UndoUnknown => false,
        }
    }
}

closed_set!(
    /// What somebody may do here; each may do all that stands before it.
    Role { Viewer = "viewer", Responder = "responder", Approver = "approver", Admin = "admin" }
);

/// 1 active harm, 2 degraded, 3 minor. Smaller is worse, and `Ord` says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Severity(u8);

impl Severity {
    pub const HARM: Severity = Severity(1);
    pub const DEGRADED: Severity = Severity(2);
    pub const MINOR: Severity = Severity(3);

    pub fn new(level: u8) -> Option<Severity> {
        (1..=3).contains(&level).then_some(Severity(level))
    }
    pub fn level(self) -> u8 {
        self.0
    }
    pub fn is_worse_than(self, other: Severity) -> bool {
        self.0 < other.0
    }
    pub fn words(self) -> &'static str {
        match self.0 {
            1 => "active harm",
            2 => "degraded",
            _ => "minor",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Severity {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Severity {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let level = u8::deserialize(d)?;
        Severity::new(level).ok_or_else(|| serde::de::Error::custom(format!("severity {level} (known: 1, 2, 3)")))
    }
}

/// What is measured on a series. Signals with a name carry it (`feature:income`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    ErrorRate,
    TimeoutRate,
    EmptyRate,
    Latency,
    FirstTokenLatency,
    Traffic,
    Silence,
    Cost,
    TokensIn,
    TokensOut,
    Quality(String),
    Label(String),
    Estimated(String),
    Prediction,
    Feature(String),
    Missing(String),
    Unseen(String),
    Embedding(String),
    Flag(String),
    Fairness(String),
    ComplaintRate,
    Schema,
    OutOfScope,
    /// Not a statistic but a rule: a canary or secret seen in an output, a confirmed flag, total failure, blindness.
    Rule(String),
}

impl Signal {
    /// The name in `feature:*`: how features stand together, whatever each does by itself.
    pub const TOGETHER: &str = "*";

    /// Signal names without a parameter, and the prefixes of those that take one.
    pub const PLAIN: &'static [&'static str] = &[
        "error_rate",
        "timeout_rate",
        "empty_rate",
        "latency",
        "first_token_latency",
        "traffic",
        "silence",
        "cost",
        "tokens_in",
        "tokens_out",
        "prediction",
        "complaint_rate",
        "schema",
        "out_of_scope",
    ];
    pub const NAMED: &'static [&'static str] =
        &["quality", "label", "estimated", "feature", "missing", "unseen", "embedding", "flag", "fairness", "rule"];

    /// The part before the colon: `feature` of `feature:income`.
    pub fn family(&self) -> &'static str {
        use Signal::*;
        match self {
            ErrorRate => "error_rate",
            TimeoutRate => "timeout_rate",
            EmptyRate => "empty_rate",
            Latency => "latency",
            FirstTokenLatency => "first_token_latency",
            Traffic => "traffic",
            Silence => "silence",
            Cost => "cost",
            TokensIn => "tokens_in",
            TokensOut => "tokens_out",
            Quality(_) => "quality",
            Label(_) => "label",
            Estimated(_) => "estimated",
            Prediction => "prediction",
            Feature(_) => "feature",
            Missing(_) => "missing",
            Unseen(_) => "unseen",
            Embedding(_) => "embedding",
            Flag(_) => "flag",
            Fairness(_) => "fairness",
            ComplaintRate => "complaint_rate",
            Schema => "schema",
            OutOfScope => "out_of_scope",
            Rule(_) => "rule",
        }
    }

    pub fn name(&self) -> Option<&str> {
        use Signal::*;
        match self {
            Quality(n) | Label(n) | Estimated(n) | Feature(n) | Missing(n) | Unseen(n) | Embedding(n) | Flag(n) | Fairness(n) | Rule(n) => Some(n),
            ErrorRate | TimeoutRate | EmptyRate | Latency | FirstTokenLatency | Traffic | Silence | Cost | TokensIn | TokensOut | Prediction
            | ComplaintRate | Schema | OutOfScope => None,
        }
    }

    /// For sentences: "error rate", "feature income".
    pub fn words(&self) -> String {
        let family = self.family().replace('_', " ");
        match (self, self.name()) {
            (Signal::Feature(n), _) if n == Signal::TOGETHER => "features together".to_owned(),
            (Signal::Missing(n), _) => format!("missing {n}"),
            (Signal::Unseen(n), _) => format!("unseen values of {n}"),
            (Signal::Flag(n), _) => format!("{n} flag rate"),
            (Signal::Rule(n), _) => n.replace('_', " "),
            (_, Some(n)) => format!("{family} {n}"),
            (_, None) => family,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{}:{name}", self.family()),
            None => f.write_str(self.family()),
        }
    }
}

impl FromStr for Signal {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        use Signal::*;
        let unknown = || UnknownWord { found: text.to_owned(), known: Signal::PLAIN };
        if let Some((family, name)) = text.split_once(':') {
            let name = name.to_owned();
            return Ok(match family {
                "quality" => Quality(name),
                "label" => Label(name),
                "estimated" => Estimated(name),
                "feature" => Feature(name),
                "missing" => Missing(name),
                "unseen" => Unseen(name),
                "embedding" => Embedding(name),
                "flag" => Flag(name),
                "fairness" => Fairness(name),
                "rule" => Rule(name),
                _ => return Err(unknown()),
            });
        }
        Ok(match text {
            "error_rate" => ErrorRate,
            "timeout_rate" => TimeoutRate,
            "empty_rate" => EmptyRate,
            "latency" => Latency,
            "first_token_latency" => FirstTokenLatency,
            "traffic" => Traffic,
            "silence" => Silence,
            "cost" => Cost,
            "tokens_in" => TokensIn,
            "tokens_out" => TokensOut,
            "prediction" => Prediction,
            "complaint_rate" => ComplaintRate,
            "schema" => Schema,
            "out_of_scope" => OutOfScope,
            _ => return Err(unknown()),
        })
    }
}

impl Serialize for Signal {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.name() {
            // Most have none, and to format them is to write them twice.
            None => s.serialize_str(self.family()),
            Some(_) => s.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_prints_as_it_is_written() {
        for text in Signal::PLAIN.iter().map(|s| (*s).to_owned()).chain(Signal::NAMED.iter().map(|s| format!("{s}:x"))) {
            assert_eq!(text.parse::<Signal>().expect("known").to_string(), text);
        }
        assert!("eror_rate".parse::<Signal>().is_err());
    }
}
