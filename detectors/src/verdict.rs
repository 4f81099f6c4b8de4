//! The answer of a bank, with its evidence.

use serde::{Deserialize, Serialize};

/// What a bank is able to say of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Learning: its baseline could not yet show the change asked for.
    Warming,
    /// Judging.
    Armed,
    /// Armed once, but too few events come in to say anything.
    Starved,
    /// An alarm is out: the baseline is frozen and the recovery test runs.
    Frozen,
    Off,
}

/// Size of a change in the bank's natural unit, with the interval in which it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub before: f64,
    pub after: f64,
    pub low: f64,
    pub high: f64,
}

/// When the change began: starts of panes in milliseconds since the epoch; the interval holds it with 90 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onset {
    pub at_ms: i64,
    pub from_ms: i64,
    pub to_ms: i64,
}

/// What a bank says at one pane close.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    pub state: State,
    /// Nats of evidence so far, on the scale of `threshold`: ln R + threshold. While frozen, that of the recovery test.
    pub log_evidence: f64,
    /// Nats at which the bank speaks: -ln of the injection per pane. Infinite when nothing is injected.
    pub threshold: f64,
    pub call: Call,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Call {
    Quiet,
    /// Evidence reached the threshold with a change beyond tolerance.
    Alarm {
        change: Change,
        onset: Onset,
    },
    /// Evidence reached the threshold, but the change is not worth an alarm; the reason in words.
    Held {
        change: Change,
        why: &'static str,
    },
    /// The recovery test reached its threshold: back within tolerance.
    Recovered {
        change: Change,
    },
}

/// How the incident of a frozen series was closed, which decides what its bank learns from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Release {
    /// Repaired: what came in since the onset is forgotten.
    Fixed,
    /// This is what normal looks like from now on: the baseline starts anew with what came in since the onset.
    NewNormal,
    /// It was noise: what came in since the onset is learned.
    FalseAlarm,
    /// It was real but expected: forgotten, like `Fixed`.
    Expected,
}
