//! What is watched and by what, in words for people. The numbers are those with which `judge` opens a line when the configuration
//! says nothing; a change there is told here.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::domain::Signal;
use crate::settings::Settings;
use crate::triage;

/// A family of signals, as `check` lists it.
pub struct Family {
    pub name: &'static str,
    /// `rate`, `bins` ...
    pub detectors: &'static str,
    /// Which events give it.
    pub from: &'static str,
    pub tolerance: Tolerance,
    /// Below this nothing pages; ratios.
    pub at_least: Option<f64>,
}

/// What change is forgiven by default.
#[derive(Clone, Copy)]
pub enum Tolerance {
    Relative(f64),
    /// In standard deviations of the value.
    Sigma(f64),
    /// There is no such thing for this signal.
    None,
}

use Tolerance::{Relative, Sigma};

const fn family(name: &'static str, detectors: &'static str, from: &'static str, tolerance: Tolerance, at_least: Option<f64>) -> Family {
    Family { name, detectors, from, tolerance, at_least }
}

/// In the order in which an incident call would ask.
#[rustfmt::skip]
pub static FAMILIES: &[Family] = &[
    family("error_rate", "rate", "predictions with a status", Relative(0.2), Some(0.005)),
    family("timeout_rate", "rate", "predictions with a status", Relative(0.2), Some(0.002)),
    family("empty_rate", "rate", "predictions with an output", Relative(0.2), Some(0.002)),
    family("latency", "bins", "predictions with latency_ms", Sigma(0.1), None),
    family("first_token_latency", "bins", "predictions with first_token_ms", Sigma(0.1), None),
    family("silence", "gap", "predictions, after a learned or configured time without any", Tolerance::None, None),
    family("traffic", "seasonal_step", "predictions per ten minutes, by hour of the week", Relative(0.05), None),
    family("cost", "bins, seasonal_step", "predictions with a cost: of each, and per ten minutes", Sigma(0.1), None),
    family("tokens_in", "bins", "predictions with tokens", Sigma(0.1), None),
    family("tokens_out", "bins", "predictions with tokens", Sigma(0.1), None),
    family("quality", "bins, rate", "quality events: scores, and shares of bad labels", Sigma(0.1), Some(0.002)),
    family("prediction", "bins, classes", "predictions with a score or a label", Sigma(0.1), None),
    family("feature", "bins, classes", "predictions with features: numbers, and words", Sigma(0.1), None),
    family("missing", "rate", "features that are absent or null", Relative(0.2), Some(0.01)),
    family("unseen", "rate", "words that a feature never had", Relative(0.2), Some(0.01)),
    family("schema", "rate", "events that break their own schema", Relative(0.2), Some(0.01)),
    family("complaint_rate", "counts", "feedback: complaints per prediction of the last hour", Relative(0.2), Some(0.002)),
    family("flag", "rate", "flags of guards and classifiers", Relative(0.2), Some(0.002)),
    family("fairness", "two_group", "groups of the protected attributes of a model: outcomes, or failures", Relative(0.25), None),
    family("out_of_scope", "rate", "segments outside of a model's intended_use", Relative(0.2), Some(0.002)),
];

/// Rules need no statistics.
pub static RULES: &[(&str, &str)] = &[
    ("confirmed flag", "one event with a flag that a person or a policy confirmed"),
    ("canary", "a planted string of the model in an output"),
    ("secret", "what looks like a key or a token in an output"),
    ("total failure", "nine in ten predictions of two panes fail"),
    ("blind", "no source can be read: we say that we do not see"),
];

/// A family with what the configuration says of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Watched {
    pub signal: String,
    pub detectors: String,
    pub tolerance: String,
    pub at_least: Option<f64>,
    pub never_above: Option<f64>,
    pub category: String,
    pub from: String,
    /// The configuration says something of it.
    pub configured: bool,
}

/// Every family, and the single signals that the configuration names.
pub fn watched(settings: &Settings) -> Vec<Watched> {
    let mut all = Vec::new();
    for family in FAMILIES {
        if family.name == "out_of_scope" && settings.models.values().all(|m| m.intended_use.is_empty()) {
            continue;
        }
        if family.name == "fairness" && settings.models.values().all(|m| m.protected.is_empty()) {
            continue;
        }
        all.push(one(family, family.name, settings));
        let prefix = format!("{}:", family.name);
        all.extend(settings.signals.keys().filter(|name| name.starts_with(&prefix)).map(|name| one(family, name, settings)));
    }
    all
}

fn one(family: &Family, name: &str, settings: &Settings) -> Watched {
    let said = settings.signals.get(name);
    // A family stands for all that are called after it.
    let signal: Signal = name.parse().or_else(|_| format!("{name}:").parse()).unwrap_or(Signal::Rule(name.to_owned()));
    // A signal that is named takes nothing from its family.
    let tolerance = match (said.and_then(|s| s.tolerance), family.tolerance) {
        (_, Tolerance::None) => "-".to_owned(),
        (Some(t), Relative(_) | Sigma(_)) | (None, Relative(t)) => format!("{} %", rounded(t * 100.0)),
        (None, Sigma(s)) => format!("{s} sigma"),
    };
    Watched {
        signal: name.to_owned(),
        detectors: family.detectors.to_owned(),
        tolerance,
        at_least: said.and_then(|s| s.at_least).or(family.at_least),
        never_above: said.and_then(|s| s.never_above),
        category: match name {
            "flag" => category_of_flags(),
            _ => triage::category_of(&signal).to_string(),
        },
        from: family.from.to_owned(),
        configured: said.is_some(),
    }
}

/// What a flag means is in its name.
fn category_of_flags() -> String {
    let of = |name: &str| triage::category_of(&Signal::Flag(name.to_owned())).to_string();
    let all: BTreeSet<String> = ["harmful", "leak", "injection", "out_of_scope", "other"].into_iter().map(of).collect();
    all.into_iter().collect::<Vec<_>>().join(" or ")
}

/// Without the dust of binary fractions.
pub fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
