//! Where to look first: model, data, infrastructure or pipeline, by clues that are added up.
//!
//! The picture is a detective's notebook. Each clue that holds is one line with its time, and speaks for some suspects by so
//! many nats; the sum over the lines, through a softmax, is how probable each suspect is. The weights are a practitioner's and
//! not learned, for there are no labelled incidents to learn from; they stand in one table so that they can be argued about.

use super::{Scene, clock, quoted, span};
use crate::domain::Cause::{self, Data, Infrastructure, Model, Pipeline};
use crate::domain::incident::CauseGuess;
use crate::domain::{Category, Signal, Time};

/// Something that speaks for a cause.
struct Clue {
    /// Nats of likelihood for each cause that the clue speaks for (or, if negative, against).
    weighs: &'static [(Cause, f64)],
    /// Why it weighs so.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people, and by the test that no weight goes without a reason"))]
    why: &'static str,
    /// The fact in words, if the clue holds.
    holds: fn(&Scene<'_>) -> Option<String>,
}

/// Before any clue: most incidents follow a change that somebody made, fewest are the model's own doing.
const PRIOR: &[(Cause, f64)] = &[(Pipeline, 0.3), (Infrastructure, 0.25), (Data, 0.25), (Model, 0.2)];

static CLUES: &[Clue] = &[
    Clue {
        weighs: &[(Pipeline, 2.5), (Infrastructure, -1.0), (Data, -0.5)],
        why: "one version fails while its neighbours on the same machines and data do not",
        holds: fresh_version_alone,
    },
    Clue {
        weighs: &[(Pipeline, 1.6)],
        why: "the last change just before a failure is its cause more often than not: new version, prompt or configuration",
        holds: deployed_just_before,
    },
    Clue {
        weighs: &[(Pipeline, 0.4)],
        why: "what a change breaks usually shows with its first requests; caches and leaks take longer",
        holds: deployed_a_while_before,
    },
    Clue {
        weighs: &[(Pipeline, 1.3), (Data, 1.3)],
        why: "a run that failed leaves stale or partial data behind, and a model that was not renewed",
        holds: failed_run,
    },
    Clue {
        weighs: &[(Infrastructure, 1.8), (Data, 0.5), (Model, -1.0)],
        why: "models that share nothing but their machines and sources do not fail together by themselves",
        holds: many_models,
    },
    Clue { weighs: &[(Data, 1.8)], why: "values that stop coming were lost before the model", holds: missing_values },
    Clue { weighs: &[(Data, 1.0), (Pipeline, 0.5)], why: "fields that cannot be read were written otherwise", holds: schema_faults },
    Clue { weighs: &[(Data, 1.4)], why: "what comes out follows what goes in; the other order would need another reason", holds: inputs_moved_first },
    Clue {
        weighs: &[(Infrastructure, 1.6)],
        why: "errors, timeouts and latency without a change of ours come from what the model runs on",
        holds: service_without_deployment,
    },
    Clue {
        weighs: &[(Infrastructure, 0.8), (Pipeline, 0.4)],
        why: "requests that stop or multiply do so before the model: callers, network, routing",
        holds: traffic_without_deployment,
    },
    Clue {
        weighs: &[(Model, 1.6)],
        why: "worse answers with unchanged inputs and no change of ours leave the learned function",
        holds: results_alone,
    },
    Clue {
        weighs: &[(Model, 1.3)],
        why: "cost that rises with the length of answers is made by the model, not by its callers",
        holds: longer_answers,
    },
    Clue {
        weighs: &[(Data, 1.0), (Pipeline, 0.4)],
        why: "cost that rises with the length of requests is made by what is put into them: retrieval, templates, callers",
        holds: longer_questions,
    },
    Clue {
        weighs: &[(Model, 1.0)],
        why: "what was planted or secret can only come out if the model could see or remember it",
        holds: model_gave_it_away,
    },
];

/// The ranked causes with the facts that speak, or nothing if no clue holds.
pub(super) fn guess(scene: &Scene<'_>) -> Option<CauseGuess> {
    let held: Vec<(&Clue, String)> = CLUES.iter().filter_map(|clue| (clue.holds)(scene).map(|fact| (clue, fact))).collect();
    if held.is_empty() {
        return None;
    }
    let nats = |cause: Cause| held.iter().flat_map(|(clue, _)| clue.weighs).filter(|(c, _)| *c == cause).map(|(_, w)| w).sum::<f64>();
    let mut ranked: Vec<(Cause, f64)> = PRIOR.iter().map(|(cause, prior)| (*cause, prior * nats(*cause).exp())).collect();
    let sum: f64 = ranked.iter().map(|(_, p)| p).sum();
    ranked.iter_mut().for_each(|(_, p)| *p /= sum);
    // The order of the prior decides between equals, for sorting is stable.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let best = ranked.first().map_or(Pipeline, |(cause, _)| *cause);
    // Two clues may rest on one fact.
    let mut facts: Vec<String> = Vec::new();
    for (_, fact) in held {
        if !facts.contains(&fact) {
            facts.push(fact);
        }
    }
    Some(CauseGuess { best, ranked, facts })
}

// === the clues ===

fn when(scene: &Scene<'_>, time: Time) -> String {
    let before = scene.onset.since_ms(time);
    let distance = if before < 0 { "about the onset".to_owned() } else { format!("{} before the onset", span(before)) };
    format!("{}, {distance}", clock(time, scene.case.now))
}

fn deployment_fact(scene: &Scene<'_>) -> Option<String> {
    let d = scene.deployed.as_ref()?;
    let verb = if d.phase == "rolled_back" { "rolled back" } else { "deployed" };
    Some(match d.version {
        Some(v) => format!("version {} {verb} {}", quoted(v), when(scene, d.time)),
        None => format!("{} {verb} {}", quoted(d.target), when(scene, d.time)),
    })
}

fn deployed_just_before(scene: &Scene<'_>) -> Option<String> {
    scene.fresh_deployment().and_then(|_| deployment_fact(scene))
}

fn deployed_a_while_before(scene: &Scene<'_>) -> Option<String> {
    deployment_fact(scene).filter(|_| scene.fresh_deployment().is_none())
}

fn fresh_version_alone(scene: &Scene<'_>) -> Option<String> {
    let version = scene.deployed.as_ref()?.version?;
    (scene.versions() == [version]).then(|| format!("only version {} is hit, which is new", quoted(version)))
}

fn failed_run(scene: &Scene<'_>) -> Option<String> {
    let run = scene.failed_run.as_ref()?;
    let error = run.error.filter(|e| !e.is_empty()).map(|e| format!(" ({})", quoted(e))).unwrap_or_default();
    Some(format!("pipeline {} {} {}{error}", quoted(run.job), run.state, when(scene, run.time)))
}

fn many_models(scene: &Scene<'_>) -> Option<String> {
    let (hit, all) = (scene.case.models_hit, scene.case.models_all.max(scene.case.models_hit));
    // Two of forty may be chance; two of three are not.
    (hit >= 3 || (hit == 2 && all <= 4)).then(|| format!("{hit} of {all} models are hit since {}", clock(scene.onset, scene.case.now)))
}

/// The first finding that fits, told with its onset.
fn told(scene: &Scene<'_>, fits: impl Fn(&Signal) -> bool) -> Option<String> {
    let f = scene.case.findings.iter().filter(|f| fits(&f.series.signal)).min_by_key(|f| f.onset.at)?;
    Some(format!("{} since {}", quoted(&f.headline), clock(f.onset.at, scene.case.now)))
}

fn companion(scene: &Scene<'_>, fits: impl Fn(&Signal) -> bool) -> Option<String> {
    let signals = scene.case.companions.iter().filter_map(|text| text.parse::<Signal>().ok());
    signals.filter(fits).map(|s| format!("{} has moved as well", quoted(&s.words()))).next()
}

fn missing_values(scene: &Scene<'_>) -> Option<String> {
    let fits = |s: &Signal| matches!(s, Signal::Missing(_));
    told(scene, fits).or_else(|| companion(scene, fits))
}

fn schema_faults(scene: &Scene<'_>) -> Option<String> {
    let fits = |s: &Signal| *s == Signal::Schema;
    told(scene, fits).or_else(|| companion(scene, fits))
}

fn is_input(s: &Signal) -> bool {
    matches!(s, Signal::Feature(_) | Signal::Missing(_) | Signal::Unseen(_) | Signal::Embedding(_))
}

fn inputs_moved_first(scene: &Scene<'_>) -> Option<String> {
    let earliest = |input: bool| scene.case.findings.iter().filter(|f| is_input(&f.series.signal) == input).map(|f| f.onset.at).min();
    let inputs = earliest(true)?;
    match earliest(false) {
        Some(others) if inputs > others => None,
        _ => told(scene, is_input),
    }
}

fn service_without_deployment(scene: &Scene<'_>) -> Option<String> {
    let fits = |s: &Signal| {
        let total = matches!(s, Signal::Rule(name) if name.contains("total_failure"));
        total || matches!(s, Signal::ErrorRate | Signal::TimeoutRate | Signal::EmptyRate | Signal::Latency | Signal::FirstTokenLatency)
    };
    let fact = told(scene, fits)?;
    scene.fresh_deployment().is_none().then(|| format!("{fact}, and no deployment just before"))
}

fn traffic_without_deployment(scene: &Scene<'_>) -> Option<String> {
    let fits = |s: &Signal| matches!(s, Signal::Traffic | Signal::Silence) || matches!(s, Signal::Rule(name) if name.contains("silen"));
    let fact = told(scene, fits)?;
    scene.fresh_deployment().is_none().then(|| format!("{fact}, and no deployment just before"))
}

fn results_alone(scene: &Scene<'_>) -> Option<String> {
    let fits = |s: &Signal| {
        matches!(s, Signal::Quality(_) | Signal::Label(_) | Signal::Estimated(_) | Signal::Prediction | Signal::Flag(_) | Signal::Fairness(_))
            || matches!(s, Signal::ComplaintRate)
    };
    let harmful = scene.case.key.category == Category::HarmfulOutput;
    let fact = told(scene, |s| fits(s) || (harmful && matches!(s, Signal::Rule(_))))?;
    let changed = scene.deployed.is_some() || scene.failed_run.is_some() || many_models(scene).is_some();
    let other_signals = scene.signals().any(|s| is_input(s) || *s == Signal::Schema) || companion(scene, is_input).is_some();
    (!changed && !other_signals).then(|| format!("{fact}, with no deployment, no failed pipeline and no change of inputs before"))
}

fn longer_answers(scene: &Scene<'_>) -> Option<String> {
    told(scene, |s| *s == Signal::TokensOut).filter(|_| scene.case.key.category == Category::CostAnomaly)
}

fn longer_questions(scene: &Scene<'_>) -> Option<String> {
    told(scene, |s| *s == Signal::TokensIn).filter(|_| scene.case.key.category == Category::CostAnomaly)
}

fn model_gave_it_away(scene: &Scene<'_>) -> Option<String> {
    (scene.case.key.category == Category::DataBreach).then(|| told(scene, |_| true)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_weight_has_its_reason() {
        for clue in CLUES {
            assert!(!clue.why.is_empty() && !clue.weighs.is_empty(), "a clue without a reason");
            assert!(clue.weighs.iter().all(|(_, nats)| nats.abs() <= 3.0), "{}: one clue never decides alone", clue.why);
        }
        assert!((PRIOR.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-9);
    }
}
