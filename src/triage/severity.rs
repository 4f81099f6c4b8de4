//! Which severity, by the playbook's questions: is anyone being harmed, is there exposure, who is affected, is it getting worse.
//!
//! The signals ask for a severity by one table; facts may raise it, none lowers it while what asked for it still speaks. What
//! raised it is said, so that "severity 1" is never a matter of trust.

use super::{Scene, clock, quoted, scope};
use crate::domain::alarm::Change;
use crate::domain::incident::{Answer, Finding};
use crate::domain::time::HOUR_MS;
use crate::domain::{Category, Severity, Signal};
use crate::judge::SLOW_DRIFT;
use crate::pane::FactKind;

/// By how much a signal must have grown to ask for more: a latency this many times its old value is far beyond any tolerance, a
/// cost this many times its old value doubles the bill.
const FAR_BEYOND_FACTOR: f64 = 2.0;

/// A confirmation or a report belongs to a change that begins within this time after it.
const HARM_COUNTS_MS: i64 = HOUR_MS;

/// What a signal asks for without anything else, by family. A name in quotes after the family makes it a special case.
static ASKS: &[(&str, Option<&str>, Category, Severity)] = &[
    ("error_rate", None, Category::ModelFailure, Severity::DEGRADED),
    ("timeout_rate", None, Category::ModelFailure, Severity::DEGRADED),
    ("empty_rate", None, Category::ModelFailure, Severity::DEGRADED),
    ("latency", None, Category::ModelFailure, Severity::MINOR),
    ("first_token_latency", None, Category::ModelFailure, Severity::MINOR),
    ("traffic", None, Category::ModelFailure, Severity::DEGRADED),
    ("silence", None, Category::ModelFailure, Severity::DEGRADED),
    ("cost", None, Category::CostAnomaly, Severity::MINOR),
    ("tokens_in", None, Category::CostAnomaly, Severity::MINOR),
    ("tokens_out", None, Category::CostAnomaly, Severity::MINOR),
    ("quality", None, Category::QualityDegradation, Severity::DEGRADED),
    ("label", None, Category::QualityDegradation, Severity::DEGRADED),
    ("estimated", None, Category::QualityDegradation, Severity::DEGRADED),
    ("prediction", None, Category::QualityDegradation, Severity::MINOR),
    ("feature", None, Category::QualityDegradation, Severity::MINOR),
    ("missing", None, Category::QualityDegradation, Severity::MINOR),
    ("unseen", None, Category::QualityDegradation, Severity::MINOR),
    ("embedding", None, Category::QualityDegradation, Severity::MINOR),
    ("schema", None, Category::QualityDegradation, Severity::MINOR),
    ("flag", Some("harmful"), Category::HarmfulOutput, Severity::HARM),
    ("flag", Some("leak"), Category::DataBreach, Severity::DEGRADED),
    ("flag", Some("injection"), Category::DataBreach, Severity::DEGRADED),
    ("flag", Some("out_of_scope"), Category::OutOfScopeUse, Severity::DEGRADED),
    // Refusals, blocks by a guardrail and flags of the user's own: the answers have changed.
    ("flag", None, Category::QualityDegradation, Severity::DEGRADED),
    ("out_of_scope", None, Category::OutOfScopeUse, Severity::DEGRADED),
    ("complaint_rate", None, Category::QualityDegradation, Severity::DEGRADED),
    ("fairness", None, Category::Bias, Severity::DEGRADED),
];

/// Rules by a word of their name, the first that occurs: `rule:canary`, `rule:confirmed_harmful`, `rule:total_failure`.
static RULES: &[(&str, Category, Severity)] = &[
    ("harm", Category::HarmfulOutput, Severity::HARM),
    ("canary", Category::DataBreach, Severity::HARM),
    ("secret", Category::DataBreach, Severity::HARM),
    ("leak", Category::DataBreach, Severity::HARM),
    ("injection", Category::DataBreach, Severity::HARM),
    ("blind", Category::MonitoringBlind, Severity::DEGRADED),
    ("everything", Category::MonitoringBlind, Severity::DEGRADED),
    ("scope", Category::OutOfScopeUse, Severity::DEGRADED),
    ("undeclared", Category::OutOfScopeUse, Severity::DEGRADED),
    ("", Category::ModelFailure, Severity::DEGRADED),
];

/// The kind of failure that a signal speaks of.
pub fn category_of(signal: &Signal) -> Category {
    ask(signal).0
}

/// The severity that a signal asks for on its own. `by_rule`: not a statistic but a decided fact.
pub fn severity_of(signal: &Signal, change: Option<&Change>, by_rule: bool) -> Severity {
    let (category, severity) = ask(signal);
    let far = change.is_some_and(is_far_beyond);
    match signal {
        Signal::Latency | Signal::FirstTokenLatency | Signal::Cost | Signal::TokensIn | Signal::TokensOut if far => severity.min(Severity::DEGRADED),
        Signal::Rule(name) if name.starts_with(SLOW_DRIFT) => severity,
        _ if by_rule && matches!(category, Category::DataBreach | Category::HarmfulOutput) => Severity::HARM,
        _ => severity,
    }
}

/// A rule that is called like a signal (`rule:error_rate`, a limit that learning does not move) asks for what the signal asks.
fn ask(signal: &Signal) -> (Category, Severity) {
    if let Signal::Rule(name) = signal {
        // What crept for days is a ticket, whatever it would be if it had come at once.
        if let Some(of) = name.strip_prefix(SLOW_DRIFT).and_then(|of| of.parse::<Signal>().ok()) {
            return (ask(&of).0, Severity::MINOR);
        }
        return match name.parse::<Signal>() {
            Ok(Signal::Rule(_)) | Err(_) => {
                RULES.iter().find(|(word, ..)| name.contains(word)).map_or((Category::ModelFailure, Severity::DEGRADED), |(_, c, s)| (*c, *s))
            }
            Ok(named) => ask(&named),
        };
    }
    let found = ASKS.iter().find(|(family, name, ..)| *family == signal.family() && (name.is_none() || *name == signal.name()));
    found.map_or((Category::ModelFailure, Severity::DEGRADED), |(_, _, c, s)| (*c, *s))
}

fn is_far_beyond(change: &Change) -> bool {
    change.before > 0.0 && change.after >= FAR_BEYOND_FACTOR * change.before
}

/// The severity and the questions with their answers, the decision first.
pub(super) fn judge(scene: &Scene<'_>) -> (Severity, Vec<Answer>) {
    let case = scene.case;
    let mut severity = Severity::MINOR;
    let mut why = "nothing asks for more".to_owned();
    let mut source = "table of signals".to_owned();
    for (i, f) in case.findings.iter().enumerate() {
        let asked = case.asked.get(i).copied().unwrap_or_else(|| severity_of(&f.series.signal, f.change.as_ref(), f.by_rule));
        if is_mix_alone(scene, f) && asked.is_worse_than(Severity::MINOR) {
            if i == 0 {
                why = format!("{} of the whole has moved since the mix of the traffic has; no segment is served otherwise", f.series.signal.words());
                source = "the change within each segment, and its share of the traffic".to_owned();
            }
        } else if i == 0 || asked.is_worse_than(severity) {
            (severity, why) = (asked, format!("{} asks for it", f.series.signal.words()));
            source = "table of signals".to_owned();
        }
    }
    for f in case.known {
        let asked = severity_of(&f.series.signal, f.change.as_ref(), f.by_rule);
        if asked.is_worse_than(severity) && !is_mix_alone(scene, f) {
            (severity, why) = (asked, format!("{} asks for it", f.series.signal.words()));
            source = "table of signals".to_owned();
        }
    }
    for (to, because, from) in raises(scene) {
        if to.is_worse_than(severity) {
            (severity, why, source) = (to, because, from);
        }
    }
    let decision = answer("Which severity, and why?", format!("{severity}, {}: {why}", severity.words()), source);
    (severity, vec![decision, harm(scene, severity), exposure(scene), whom(scene), limits(scene), trend(scene)])
}

/// Facts that raise the severity, each with its reason and where it comes from.
fn raises(scene: &Scene<'_>) -> Vec<(Severity, String, String)> {
    let case = scene.case;
    let mut out = Vec::new();
    let mut raise = |to, why: String, source: &str| out.push((to, why, source.to_owned()));
    if let Some((what, source)) = confirmed(scene) {
        raise(Severity::HARM, what, &source);
    }
    if case.key.category == Category::DataBreach && case.findings.iter().any(|f| f.by_rule) {
        raise(Severity::HARM, "a rule saw what must never be in an output".to_owned(), "rule");
    }
    if case.key.category == Category::Bias && is_exposed(scene, "legal") {
        raise(Severity::HARM, "groups are treated unequally and the model has legal exposure".to_owned(), "configuration of the model");
    }
    if let Some(drifted) = scene.all_findings().find(|f| is_drift(&f.series.signal)) {
        let words = drifted.series.signal.words();
        if let Some(run) = &scene.failed_run {
            let when = clock(run.time, case.now);
            raise(Severity::DEGRADED, format!("{words} moved and pipeline {} {} {when}", quoted(run.job), run.state), "pipeline event");
        }
        if let Some(other) = moved_result(scene) {
            raise(Severity::DEGRADED, format!("{words} moved and so did {other}"), "other signals of the model");
        }
    }
    for f in scene.all_findings().filter(|f| f.change.as_ref().is_some_and(is_far_beyond) && !is_mix_alone(scene, f)) {
        let words = f.series.signal.words();
        match f.series.signal {
            Signal::Latency | Signal::FirstTokenLatency => {
                raise(Severity::DEGRADED, format!("{words} is at least twice what it was"), "size of the change");
            }
            Signal::Cost => raise(Severity::DEGRADED, "the bill doubles at this rate".to_owned(), "size of the change"),
            Signal::TokensIn | Signal::TokensOut if !scene.signals().any(|s| *s == Signal::Cost) => {
                raise(Severity::DEGRADED, format!("{words} are at least twice what they were, and the bill with them"), "size of the change");
            }
            _ => {}
        }
    }
    out
}

/// Is this the change of a whole that its mix alone has made, of how each request is served? Nobody is served worse than before then,
/// and what asks for more by its size asks for nothing. Not so for a bill, which is paid whoever asks, nor for harm.
fn is_mix_alone(scene: &Scene<'_>, f: &Finding) -> bool {
    use Signal::*;
    let served = matches!(
        f.series.signal,
        ErrorRate | TimeoutRate | EmptyRate | Latency | FirstTokenLatency | Quality(_) | Label(_) | Estimated(_) | ComplaintRate
    );
    // The split is of the first.
    let split = scene.case.findings.first().filter(|lead| lead.series == f.series && f.series.group.is_roll_up());
    served && !f.by_rule && split.is_some() && scene.case.spread.is_some_and(scope::is_mix_alone)
}

/// A person, a policy or a scan has decided that this kind of harm was done, at most an hour before the onset.
fn confirmed(scene: &Scene<'_>) -> Option<(String, String)> {
    let key = scene.case.key;
    let of_this_kind = |name: &str| category_of(&Signal::Flag(name.to_owned())) == key.category;
    let recent = scene.facts().filter(|f| f.model.as_deref() == Some(&*key.model) && scene.onset.since_ms(f.time) <= HARM_COUNTS_MS);
    recent.filter(|_| matches!(key.category, Category::HarmfulOutput | Category::DataBreach)).find_map(|f| match &f.kind {
        FactKind::Confirmed { flag, id } if of_this_kind(flag) => {
            let which = if id.is_empty() { "an output".to_owned() } else { format!("output {}", quoted(id)) };
            let when = clock(f.time, scene.case.now);
            Some((format!("{which} was confirmed as {} at {when}", quoted(flag)), "confirmation by a person or a policy".to_owned()))
        }
        FactKind::Leak { words, .. } if key.category == Category::DataBreach => {
            Some((format!("{} at {}", quoted(words), clock(f.time, scene.case.now)), "scan of outputs".to_owned()))
        }
        _ => None,
    })
}

fn is_exposed(scene: &Scene<'_>, word: &str) -> bool {
    scene.case.exposure.iter().any(|e| e.eq_ignore_ascii_case(word))
}

fn is_drift(signal: &Signal) -> bool {
    matches!(signal, Signal::Prediction | Signal::Feature(_) | Signal::Missing(_) | Signal::Unseen(_) | Signal::Embedding(_) | Signal::Schema)
}

/// What comes out has moved as well as what goes in: a signal of results besides the drifted one.
fn moved_result(scene: &Scene<'_>) -> Option<String> {
    let is_result = |s: &Signal| matches!(s, Signal::Quality(_) | Signal::Label(_) | Signal::Prediction);
    let beside = |s: &Signal| is_result(s) && scene.signals().any(|drifted| is_drift(drifted) && drifted != s);
    scene.all_signals().find(|s| beside(s)).map(|s| s.words())
}

fn answer(question: &str, answer: String, source: String) -> Answer {
    Answer { question: question.to_owned(), answer, source }
}

fn harm(scene: &Scene<'_>, severity: Severity) -> Answer {
    let ask = |text: &str, source: &str| answer("Is anyone being harmed right now?", text.to_owned(), source.to_owned());
    match (confirmed(scene), reported(scene)) {
        (Some((what, source)), _) => ask(&format!("yes: {what}"), &source),
        (None, _) if severity == Severity::HARM && scene.case.findings.iter().any(|f| f.by_rule) => ask("yes: a rule has fired", "rule"),
        (None, _) if severity == Severity::HARM => ask("likely, by statistics; nobody has confirmed it", "classifier or comparison of groups"),
        (None, Some(report)) => ask(&format!("a report says: {report}; nobody has confirmed it"), "report"),
        (None, None) => ask("not that we know", "no confirmation, no rule, no report"),
    }
}

/// The newest report about this model since an hour before the onset.
fn reported(scene: &Scene<'_>) -> Option<String> {
    let recent = scene.facts().filter(|f| f.model.as_deref() == Some(&*scene.case.key.model) && scene.onset.since_ms(f.time) <= HARM_COUNTS_MS);
    let reports = recent.filter_map(|f| match &f.kind {
        FactKind::Report { summary, .. } => Some((f.time, summary)),
        _ => None,
    });
    reports.max_by_key(|(time, _)| *time).map(|(_, summary)| quoted(summary))
}

fn exposure(scene: &Scene<'_>) -> Answer {
    let ask = |text: String, source: &str| answer("Is there legal or regulatory exposure?", text, source.to_owned());
    let exposure = scene.case.exposure;
    if !exposure.is_empty() {
        let known: Vec<String> = exposure.iter().map(|e| quoted(e)).collect();
        return ask(format!("yes: {}", known.join(", ")), "configuration of the model");
    }
    match scene.case.key.category {
        Category::DataBreach => ask("possibly: what left may fall under rules on data protection".to_owned(), "kind of failure"),
        Category::Bias => ask("possibly: a protected group is affected".to_owned(), "kind of failure"),
        _ => ask("none is configured for this model".to_owned(), "configuration of the model"),
    }
}

fn whom(scene: &Scene<'_>) -> Answer {
    let mut parts = scene.segments();
    let versions = scene.versions();
    match versions.as_slice() {
        [] => {}
        [one] => parts.push(format!("version {}", quoted(one))),
        many => parts.push(format!("{} versions", many.len())),
    }
    let mut text =
        if parts.is_empty() { "all: no version or segment explains it alone".to_owned() } else { format!("a subset: {}", parts.join(", ")) };
    if let Some(users) = scene.case.users_affected {
        let exact = users.low == users.high;
        let range = if exact { String::new() } else { format!(" ({:.0} to {:.0})", users.low, users.high) };
        // Users are counted of the model as a whole, and of failures apart: of a part we know only that it has no more.
        let fails = scene.case.findings.first().is_some_and(|f| counts_failures(&f.series.signal));
        let bound = if parts.is_empty() || fails { "" } else { "at most " };
        text.push_str(&format!("; {bound}{}{:.0} users{range}", if exact { "" } else { "about " }, users.estimate));
    }
    if scene.case.models_hit > 1 {
        text.push_str(&format!("; {} of {} models", scene.case.models_hit, scene.case.models_all.max(scene.case.models_hit)));
    }
    answer("Does it affect all users or a subset?", text, "series of versions and segments, distinct users".to_owned())
}

/// Are the users that are counted those whose requests failed?
pub fn counts_failures(signal: &Signal) -> bool {
    matches!(signal, Signal::ErrorRate | Signal::TimeoutRate | Signal::Rule(_))
}

fn limits(scene: &Scene<'_>) -> Answer {
    let mut parts: Vec<String> = Vec::new();
    let inputs: Vec<String> = scene.all_findings().map(|f| &f.series.signal).filter(|s| is_input(s)).map(|s| quoted(&s.words())).collect();
    if !inputs.is_empty() {
        parts.push(format!("of the inputs: {}", inputs[..inputs.len().min(3)].join(", ")));
    }
    match scene.case.spread {
        Some(spread) => parts.push(scope::say(spread)),
        None if scene.case.segments.is_empty() => parts.push("no segment is known that tells it apart".to_owned()),
        None => {
            let of =
                |s: &crate::domain::Segment| format!("{}{}", quoted(&s.to_string()), if scope::is_place(&s.dimension) { ", a place" } else { "" });
            parts.push(format!("of the traffic: {}", scene.case.segments.iter().take(3).map(of).collect::<Vec<_>>().join("; ")));
        }
    }
    answer(
        "Is it limited to inputs, segments or places?",
        parts.join("; "),
        "the change within each segment, and its share of the traffic".to_owned(),
    )
}

fn is_input(signal: &Signal) -> bool {
    matches!(signal, Signal::Feature(_) | Signal::Missing(_) | Signal::Unseen(_) | Signal::Embedding(_))
}

fn trend(scene: &Scene<'_>) -> Answer {
    let text = match scene.case.getting_worse {
        Some(true) => "yes, the change still grows",
        Some(false) => "no, it holds its level",
        None => "too early to say",
    };
    answer("Is it getting worse?", text.to_owned(), "course of the change since the onset".to_owned())
}

/// For the test that no signal was forgotten.
#[cfg(test)]
pub(super) fn is_listed(signal: &Signal) -> bool {
    ASKS.iter().any(|(family, name, ..)| *family == signal.family() && name.is_none())
}
