//! Where to look first: model, data, infrastructure or pipeline, by clues that are added up.
//!
//! The picture is a detective's notebook. Each clue that holds is one line with its time and the thing it points at, and speaks for
//! some suspects by so many nats; the sum over the lines, through a softmax, is how probable each suspect is. How much each
//! clue speaks stands with its reason in `causes.yaml`, so that it can be argued about without reading code; here stands what
//! each looks for. A learned ranking was not taken: there are no labelled incidents to learn from but those of our own simulator.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

use super::{Scene, clock, quoted, scope, span};
use crate::domain::incident::{CauseGuess, Finding, Pointer};
use crate::domain::{Category, Cause, GroupKey, SeriesKey, Signal, Time};

/// What a clue found, in words, and what it points at.
struct Fact {
    words: String,
    points_at: Option<Pointer>,
}

/// How much a clue speaks for each cause, in nats, and why.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weight {
    weighs: BTreeMap<Cause, f64>,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people, and by the test that no weight goes without a reason"))]
    why: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weights {
    prior: BTreeMap<Cause, f64>,
    clues: BTreeMap<String, Weight>,
}

static WEIGHTS: LazyLock<Weights> =
    LazyLock::new(|| serde_saphyr::from_str(include_str!("causes.yaml")).expect("a test reads the file that is compiled in"));

/// In the order in which facts are told.
static CLUES: &[(&str, fn(&Scene<'_>) -> Option<Fact>)] = &[
    ("fresh_version_alone", fresh_version_alone),
    ("deployed_just_before", deployed_just_before),
    ("deployed_a_while_before", deployed_a_while_before),
    ("failed_run", failed_run),
    ("failed_training", failed_training),
    ("many_models", many_models),
    ("mix_alone", mix_alone),
    ("missing_values", missing_values),
    ("schema_faults", schema_faults),
    ("inputs_moved_first", inputs_moved_first),
    ("inputs_moved_as_well", inputs_moved_as_well),
    ("requests_changed_length", requests_changed_length),
    ("fresh_data", fresh_data),
    ("service_without_deployment", service_without_deployment),
    ("traffic_without_deployment", traffic_without_deployment),
    ("results_alone", results_alone),
    ("longer_answers", longer_answers),
    ("longer_questions", longer_questions),
    ("both_longer", both_longer),
    ("price_alone", price_alone),
    ("model_gave_it_away", model_gave_it_away),
    ("attacked_from_outside", attacked_from_outside),
    ("used_otherwise", used_otherwise),
];

/// The ranked causes with the facts that speak, or nothing if no clue holds.
pub(super) fn guess(scene: &Scene<'_>) -> Option<CauseGuess> {
    let weights = &*WEIGHTS;
    let held: Vec<(&Weight, Fact)> = CLUES.iter().filter_map(|(name, holds)| Some((weights.clues.get(*name)?, holds(scene)?))).collect();
    if held.is_empty() {
        return None;
    }
    let nats = |cause: &Cause| held.iter().filter_map(|(weight, _)| weight.weighs.get(cause)).sum::<f64>();
    let mut ranked: Vec<(Cause, f64)> = weights.prior.iter().map(|(cause, prior)| (*cause, prior * nats(cause).exp())).collect();
    let sum: f64 = ranked.iter().map(|(_, p)| p).sum();
    ranked.iter_mut().for_each(|(_, p)| *p /= sum);
    // The likelier before any clue decides between equals.
    let prior = |cause: Cause| weights.prior.get(&cause).copied().unwrap_or(0.0);
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(prior(b.0).total_cmp(&prior(a.0))));
    let best = ranked.first().map_or(Cause::Pipeline, |(cause, _)| *cause);
    // Two clues may rest on one fact.
    let (mut facts, mut points_at) = (Vec::new(), Vec::new());
    for (_, fact) in held {
        if !facts.contains(&fact.words) {
            facts.push(fact.words);
            points_at.push(fact.points_at);
        }
    }
    Some(CauseGuess { best, ranked, facts, points_at })
}

// === the clues ===

fn when(scene: &Scene<'_>, time: Time) -> String {
    let before = scene.onset.since_ms(time);
    let distance = if before < 0 { "about the onset".to_owned() } else { format!("{} before the onset", span(before)) };
    format!("{}, {distance}", clock(time, scene.case.now))
}

fn deployment_fact(scene: &Scene<'_>) -> Option<Fact> {
    let d = scene.deployed.as_ref()?;
    let verb = if d.phase == "rolled_back" { "rolled back" } else { "deployed" };
    let words = match d.version {
        Some(v) => format!("version {} {verb} {}", quoted(v), when(scene, d.time)),
        None => format!("{} {verb} {}", quoted(d.target), when(scene, d.time)),
    };
    Some(Fact { words, points_at: Some(Pointer::Deployment { at: d.time, name: quoted(d.version.unwrap_or(d.target)) }) })
}

fn deployed_just_before(scene: &Scene<'_>) -> Option<Fact> {
    scene.fresh_deployment().and_then(|_| deployment_fact(scene))
}

fn deployed_a_while_before(scene: &Scene<'_>) -> Option<Fact> {
    deployment_fact(scene).filter(|_| scene.fresh_deployment().is_none())
}

fn fresh_version_alone(scene: &Scene<'_>) -> Option<Fact> {
    let d = scene.deployed.as_ref()?;
    let version = d.version?;
    let points_at = Some(Pointer::Deployment { at: d.time, name: quoted(version) });
    (scene.versions() == [version]).then(|| Fact { words: format!("only version {} is hit, which is new", quoted(version)), points_at })
}

fn run_fact(scene: &Scene<'_>, run: &super::Run<'_>) -> Fact {
    let error = run.error.filter(|e| !e.is_empty()).map(|e| format!(" ({})", quoted(e))).unwrap_or_default();
    let words = format!("pipeline {} {} {}{error}", quoted(run.job), run.state, when(scene, run.time));
    Fact { words, points_at: Some(Pointer::Run { at: run.time, job: quoted(run.job) }) }
}

/// Jobs that make models and not data call themselves so.
fn makes_models(job: &str) -> bool {
    ["train", "fit", "finetune", "fine-tune", "fine_tune"].iter().any(|word| job.to_ascii_lowercase().contains(word))
}

fn failed_run(scene: &Scene<'_>) -> Option<Fact> {
    scene.failed_run.as_ref().filter(|run| !makes_models(run.job)).map(|run| run_fact(scene, run))
}

fn failed_training(scene: &Scene<'_>) -> Option<Fact> {
    scene.failed_run.as_ref().filter(|run| makes_models(run.job)).map(|run| run_fact(scene, run))
}

/// A run that went well just before, where what the model is given (or whom it serves how) has moved since.
fn fresh_data(scene: &Scene<'_>) -> Option<Fact> {
    let moved = scene.all_signals().any(|s| is_input(s) || matches!(s, Signal::Fairness(_)));
    scene.fresh_run.as_ref().filter(|_| moved && scene.failed_run.is_none()).map(|run| run_fact(scene, run))
}

fn many_models(scene: &Scene<'_>) -> Option<Fact> {
    let (hit, all) = (scene.case.models_hit, scene.case.models_all.max(scene.case.models_hit));
    // Two of forty may be chance; two of three are not.
    let words = || format!("{hit} of {all} models are hit since {}", clock(scene.onset, scene.case.now));
    (hit >= 3 || (hit == 2 && all <= 4)).then(|| Fact { words: words(), points_at: Some(Pointer::Fleet) })
}

fn of_finding(scene: &Scene<'_>, f: &Finding) -> Fact {
    let words = format!("{} since {}", quoted(&f.headline), clock(f.onset.at, scene.case.now));
    Fact { words, points_at: Some(Pointer::Series { id: f.series_id }) }
}

/// The first finding that fits, told with its onset.
fn told(scene: &Scene<'_>, fits: impl Fn(&Signal) -> bool) -> Option<Fact> {
    let first = scene.all_findings().filter(|f| fits(&f.series.signal)).min_by_key(|f| f.onset.at)?;
    Some(of_finding(scene, first))
}

/// The first signal of another category that fits.
fn companion(scene: &Scene<'_>, fits: impl Fn(&Signal) -> bool) -> Option<Fact> {
    let key = scene.case.key;
    scene.case.companions.iter().find(|s| fits(s)).map(|signal| {
        let words = format!("{} has moved as well", quoted(&signal.words()));
        let series = SeriesKey { group: GroupKey::roll_up(&key.environment, &key.model), signal: (*signal).clone() };
        Fact { words, points_at: Some(Pointer::Series { id: series.id() }) }
    })
}

fn missing_values(scene: &Scene<'_>) -> Option<Fact> {
    let fits = |s: &Signal| matches!(s, Signal::Missing(_));
    told(scene, fits).or_else(|| companion(scene, fits))
}

fn schema_faults(scene: &Scene<'_>) -> Option<Fact> {
    let fits = |s: &Signal| *s == Signal::Schema;
    told(scene, fits).or_else(|| companion(scene, fits))
}

fn is_input(s: &Signal) -> bool {
    matches!(s, Signal::Feature(_) | Signal::Missing(_) | Signal::Unseen(_) | Signal::Embedding(_))
}

/// Every onset is an estimate: inputs came first if they may have.
fn inputs_moved_first(scene: &Scene<'_>) -> Option<Fact> {
    let inputs = scene.all_findings().filter(|f| is_input(&f.series.signal)).map(|f| f.onset.from.min(f.onset.at)).min()?;
    let others = scene.all_findings().filter(|f| !is_input(&f.series.signal)).map(|f| f.onset.to.max(f.onset.at)).min();
    if others.is_some_and(|others| inputs > others) {
        return None;
    }
    told(scene, is_input)
}

fn inputs_moved_as_well(scene: &Scene<'_>) -> Option<Fact> {
    if scene.all_findings().any(|f| is_input(&f.series.signal)) {
        return None;
    }
    companion(scene, is_input)
}

fn requests_changed_length(scene: &Scene<'_>) -> Option<Fact> {
    let is_length = |s: &Signal| *s == Signal::TokensIn;
    (scene.case.key.category != Category::CostAnomaly).then(|| companion(scene, is_length)).flatten()
}

fn and_no_deployment(scene: &Scene<'_>, fact: Fact) -> Option<Fact> {
    let words = format!("{}, and no deployment just before", fact.words);
    scene.fresh_deployment().is_none().then_some(Fact { words, ..fact })
}

fn service_without_deployment(scene: &Scene<'_>) -> Option<Fact> {
    let fits = |s: &Signal| {
        let total = matches!(s, Signal::Rule(name) if name.contains("total_failure"));
        total || matches!(s, Signal::ErrorRate | Signal::TimeoutRate | Signal::EmptyRate | Signal::Latency | Signal::FirstTokenLatency)
    };
    and_no_deployment(scene, told(scene, fits)?)
}

fn traffic_without_deployment(scene: &Scene<'_>) -> Option<Fact> {
    let fits = |s: &Signal| matches!(s, Signal::Traffic | Signal::Silence) || matches!(s, Signal::Rule(name) if name.contains("silen"));
    and_no_deployment(scene, told(scene, fits)?)
}

fn is_result(s: &Signal) -> bool {
    matches!(s, Signal::Quality(_) | Signal::Label(_) | Signal::Estimated(_) | Signal::Prediction | Signal::Flag(_) | Signal::Fairness(_))
        || matches!(s, Signal::ComplaintRate)
}

fn results_alone(scene: &Scene<'_>) -> Option<Fact> {
    let harmful = scene.case.key.category == Category::HarmfulOutput;
    // Suspicious requests are no answers.
    let attack = |s: &Signal| matches!(s, Signal::Flag(name) if name == "injection");
    let fact = told(scene, |s| is_result(s) && !attack(s) || (harmful && matches!(s, Signal::Rule(_))))?;
    let changed = scene.deployed.is_some() || scene.failed_run.is_some() || many_models(scene).is_some() || mix_alone(scene).is_some();
    let moved = scene.all_signals().any(|s| is_input(s) || matches!(s, Signal::Schema | Signal::TokensIn));
    let words = format!("{}, with no deployment, no failed pipeline and no change of inputs before", fact.words);
    (!changed && !moved).then_some(Fact { words, ..fact })
}

/// Did tokens or cost grow?
fn grew(scene: &Scene<'_>, signal: &Signal) -> bool {
    scene.all_findings().any(|f| f.series.signal == *signal && f.change.is_none_or(|c| c.after > c.before))
}

fn longer_answers(scene: &Scene<'_>) -> Option<Fact> {
    let fits = scene.case.key.category == Category::CostAnomaly && grew(scene, &Signal::TokensOut);
    fits.then(|| told(scene, |s| *s == Signal::TokensOut)).flatten()
}

fn longer_questions(scene: &Scene<'_>) -> Option<Fact> {
    told(scene, |s| *s == Signal::TokensIn).filter(|_| scene.case.key.category == Category::CostAnomaly)
}

fn both_longer(scene: &Scene<'_>) -> Option<Fact> {
    let both = grew(scene, &Signal::TokensIn) && grew(scene, &Signal::TokensOut);
    both.then(|| told(scene, |s| *s == Signal::TokensOut)).flatten()
}

fn price_alone(scene: &Scene<'_>) -> Option<Fact> {
    let length = |s: &Signal| matches!(s, Signal::TokensIn | Signal::TokensOut | Signal::Traffic);
    let fact = told(scene, |s| *s == Signal::Cost)?;
    let words = format!("{}, while requests and answers keep their length", fact.words);
    (!scene.all_signals().any(length)).then_some(Fact { words, ..fact })
}

fn model_gave_it_away(scene: &Scene<'_>) -> Option<Fact> {
    let gave = |s: &Signal| matches!(s, Signal::Rule(_)) || matches!(s, Signal::Flag(name) if name != "injection");
    (scene.case.key.category == Category::DataBreach).then(|| told(scene, gave)).flatten()
}

fn attacked_from_outside(scene: &Scene<'_>) -> Option<Fact> {
    // One that worked is the model's: it obeyed.
    let worked = scene.all_signals().any(|s| matches!(s, Signal::Rule(_)));
    let fact = told(scene, |s| matches!(s, Signal::Flag(name) if name == "injection"))?;
    (!worked).then_some(fact)
}

fn used_otherwise(scene: &Scene<'_>) -> Option<Fact> {
    told(scene, |s| *s == Signal::OutOfScope || matches!(s, Signal::Flag(name) if name == "out_of_scope"))
}

fn mix_alone(scene: &Scene<'_>) -> Option<Fact> {
    let spread = scene.case.spread.filter(|s| scope::is_mix(s))?;
    Some(Fact { words: scope::say(spread), points_at: scene.case.findings.first().map(|f| Pointer::Series { id: f.series_id }) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_its_reason() {
        let weights = &*WEIGHTS;
        for (name, clue) in &weights.clues {
            assert!(clue.why.len() > 20 && !clue.weighs.is_empty(), "{name}: a clue without a reason");
            assert!(clue.weighs.values().all(|nats| nats.abs() <= 3.0 && *nats != 0.0), "{name}: one clue never decides alone");
            assert!(CLUES.iter().any(|(code, _)| code == name), "{name}: no code looks for it");
        }
        assert!(CLUES.iter().all(|(name, _)| weights.clues.contains_key(*name)), "a clue without a weight");
        assert_eq!(weights.prior.len(), Cause::ALL.len());
        assert!((weights.prior.values().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
