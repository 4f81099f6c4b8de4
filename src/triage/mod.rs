//! How bad is it, for whom, why, and what is to be done: each answer with its reasons. Pure; the facts come as an argument.

use crate::domain::incident::{Answer, CauseGuess, Estimate, Finding, IncidentKey};
use crate::domain::{Segment, Severity, Time};
use crate::pane::Fact;

/// Everything that is known when findings of one key are assessed.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    pub key: &'a IncidentKey,
    /// The narrowest series that explains the change comes first and names the incident.
    pub findings: &'a [Finding],
    /// Severity that each finding's signal alone asks for, in the order of `findings`.
    pub asked: &'a [Severity],
    /// Deployments, pipeline runs, confirmations: those of this model and those that name none, newest last, up to a day old.
    pub facts: &'a [Fact],
    /// Models with a live finding since this onset, and all models that have traffic.
    pub models_hit: usize,
    pub models_all: usize,
    /// Versions and segments in which the change is concentrated; empty when it is everywhere.
    pub versions: &'a [String],
    pub segments: &'a [Segment],
    pub users_affected: Option<Estimate>,
    /// What the configuration says of this model: `eu`, `legal` ...
    pub exposure: &'a [String],
    pub owner: Option<&'a str>,
    /// Does the change still grow, if that can be said.
    pub getting_worse: Option<bool>,
    /// Signals of the same model in other categories that speak now or spoke in the last hour (`quality:faithfulness` ...).
    pub companions: &'a [String],
    pub now: Time,
}

/// What triage says.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    pub severity: Severity,
    pub severity_reasons: Vec<Answer>,
    pub title: String,
    pub cause: Option<CauseGuess>,
    pub action: String,
    /// Is this worth a page, and why (not).
    pub pages: bool,
    pub page_reason: String,
}
