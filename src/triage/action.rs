//! The one action that is ready, as a sentence: by kind of failure and severity, naming the version to go back to if there is one.
//!
//! Severity 1 stops the harm before anything is understood; severity 2 makes the model more careful; severity 3 is work for
//! office hours. The sentence says what to do and what it needs, never why: that stands elsewhere on the page.

use super::{Scene, quoted};
use crate::domain::{Category, Severity};

/// `{model}` is the model, `{traffic}` the affected traffic.
static ACTIONS: &[(Category, &str, &str, &str)] = &[
    (
        Category::HarmfulOutput,
        "take {model} offline or fall back to a safe default now, and tell the users who saw the outputs",
        "switch the guardrails of {model} to their strictest setting, or route {traffic} to the fallback",
        "watch the harmful flag of {model} more closely and schedule a fix",
    ),
    (
        Category::DataBreach,
        "take {model} offline or fall back to a safe default now, and rotate every secret that was seen",
        "block the pattern at the guardrail of {model} and cut its access to tools and retrieval for {traffic}",
        "watch the leak and injection flags of {model} more closely and schedule a fix",
    ),
    (
        Category::Bias,
        "fall back to a safe default or to review by a person for decisions of {model} now",
        "send decisions of {model} for {traffic} to review by a person",
        "watch the compared groups of {model} more closely and schedule a fix",
    ),
    (
        Category::OutOfScopeUse,
        "refuse the use that is out of scope at the gate of {model} now",
        "refuse or reroute {traffic} of {model} that lies outside its intended use",
        "watch the use of {model} outside its scope more closely and speak with its producers",
    ),
    (
        Category::QualityDegradation,
        "fall back from {model} to a safe default now",
        "switch {model} to a more conservative configuration, or route {traffic} to the fallback",
        "increase monitoring of {model}, look at its inputs first, and schedule a fix",
    ),
    (
        Category::ModelFailure,
        "take {model} out of service and fall back to a safe default now",
        "route {traffic} of {model} to the fallback",
        "increase monitoring of {model} and schedule a fix",
    ),
    (
        Category::CostAnomaly,
        "stop {model} or cap its spending now",
        "cap tokens and retries of {model}, or route {traffic} to a cheaper model",
        "increase monitoring of the cost of {model} and schedule a fix",
    ),
    (
        Category::MonitoringBlind,
        "restore what feeds the monitoring now: check the brokers, the topics and this daemon; until then nobody watches the models",
        "restore what feeds the monitoring: check the brokers, the topics and this daemon; until then nobody watches the models",
        "check the brokers, the topics and this daemon",
    ),
];

/// One sentence.
pub(super) fn propose(scene: &Scene<'_>, severity: Severity) -> String {
    let case = scene.case;
    let Some((category, harm, degraded, minor)) = ACTIONS.iter().find(|(c, ..)| *c == case.key.category) else {
        return "Increase monitoring and schedule a fix.".to_owned();
    };
    let template = match severity.level() {
        1 => harm,
        2 => degraded,
        _ => minor,
    };
    let traffic = scene.segments().into_iter().next().unwrap_or_else(|| "the affected traffic".to_owned());
    let act = template.replace("{model}", &scene.model()).replace("{traffic}", &traffic);
    let back = roll_back(scene).filter(|_| severity <= Severity::DEGRADED && *category != Category::MonitoringBlind);
    let mut out = match (back, severity.level()) {
        // Harm is stopped first; the way back is named after it.
        (Some(back), 1) => format!("{act}; then {back}"),
        (Some(back), _) => format!("{back}, or {act}"),
        (None, _) => act,
    };
    let legal = case.exposure.iter().any(|e| e.eq_ignore_ascii_case("legal"));
    if severity == Severity::HARM && legal {
        out.push_str("; tell legal");
    }
    let mut letters = out.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

/// `roll back loan-scorer from 2026-11-18 to 2026-10-02`.
fn roll_back(scene: &Scene<'_>) -> Option<String> {
    let d = scene.fresh_deployment()?;
    let what = if d.version.is_none() && !d.target.is_empty() { quoted(d.target) } else { scene.model() };
    Some(match (d.version, d.previous) {
        (Some(new), Some(old)) if new != old => format!("roll back {what} from version {} to version {}", quoted(new), quoted(old)),
        (Some(new), _) => format!("roll back {what} from version {} to the one before", quoted(new)),
        (None, Some(old)) => format!("roll back {what} to version {}", quoted(old)),
        (None, None) => format!("roll back the deployment of {what}"),
    })
}
