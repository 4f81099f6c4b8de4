//! From the configuration to what the engine, the decoders and the receivers need. No side effects beyond reading secret files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aho_corasick::AhoCorasick;

use crate::decode::{self, Decoder};
use crate::notify::{self, Receiver};
use crate::settings::Settings;
use crate::{act, engine, judge, pane, respond};

/// How long arrivals are learned before a silence may page, unless the configuration says how long silence may last.
const SILENCE_ARMED_AFTER_MS: i64 = 3 * 86_400_000;

/// What a topic's records are read by.
pub struct TopicDecoder {
    pub name: String,
    pub format: String,
    pub kind: Option<String>,
    pub decoder: Decoder,
}

pub fn engine_settings(s: &Settings) -> engine::Settings {
    let canaries: Vec<(String, Vec<String>)> = s.models.iter().map(|(m, x)| (m.clone(), x.canaries.clone())).filter(|(_, c)| !c.is_empty()).collect();
    engine::Settings {
        pane: pane::Settings {
            pane_ms: s.pane_ms,
            lateness_ms: s.lateness_ms,
            dimensions: s.segments.clone(),
            currency: s.currency.clone(),
            exemplar_allow: s.redaction_allow.clone(),
            protected: (s.models.iter())
                .filter(|(_, x)| !x.protected.is_empty())
                .map(|(name, x)| (name.clone(), pane::Protected { attributes: x.protected.clone(), favourable: x.favourable.clone() }))
                .collect(),
            limits: pane::Limits::default(),
            scan: Some(scanner(canaries)),
        },
        judge: judge::Settings {
            pane_ms: s.pane_ms,
            false_pages: s.budget_false_pages,
            signals: (s.signals.iter())
                .map(|(name, x)| (name.clone(), judge::Limits { tolerance: x.tolerance, at_least: x.at_least, never_above: x.never_above }))
                .collect(),
            models: (s.models.iter())
                .map(|(name, x)| {
                    (
                        name.clone(),
                        judge::ModelSettings {
                            silence_after_ms: x.silence_after_ms,
                            intended_use: x.intended_use.clone(),
                            protected: x.protected.clone(),
                        },
                    )
                })
                .collect(),
            learn_ms: s.learn_ms,
            silence_armed_after_ms: SILENCE_ARMED_AFTER_MS,
        },
        models: (s.models.iter())
            .map(|(name, x)| (name.clone(), engine::ModelSettings { owner: x.owner.clone(), exposure: x.exposure.clone() }))
            .collect(),
        routes: (s.routes.iter())
            .map(|r| engine::Route {
                severity: r.severity.clone(),
                model: r.model.clone(),
                owner: r.owner.clone(),
                category: r.category.clone(),
                environment: r.environment.clone(),
                segment: r.segment.clone(),
                to: r.to.clone(),
            })
            .collect(),
        respond: Arc::new(respond::Settings {
            runbooks: s.runbooks.clone(),
            people: s.people.clone(),
            escalation: s.escalation.clone(),
            two_people: s.two_people,
            per_hour_max: s.actions.iter().filter_map(|(name, a)| Some((name.clone(), a.per_hour?))).collect(),
            clocks: s.clocks.clone(),
        }),
    }
}

/// Models whose normal is told by a file.
pub fn references(s: &Settings) -> Vec<(String, PathBuf)> {
    s.models.iter().filter_map(|(name, x)| Some((name.clone(), x.reference.clone()?))).collect()
}

/// Every action of the file.
///
/// # Errors
/// What is wrong with one of them, with its name.
pub fn actors(s: &Settings) -> Result<BTreeMap<String, act::Actor>, String> {
    let common = common(s);
    let mut out = BTreeMap::new();
    for (name, a) in &s.actions {
        let kind = act::KINDS.iter().find(|k| k.name == a.kind).ok_or_else(|| format!("action {name:?} has the unknown type {:?}", a.kind))?;
        let built = (kind.build)(name, &common, &a.table);
        let provider = built.map_err(|p| p.iter().map(|(key, words)| format!("actions.{name}.{key}: {words}")).collect::<Vec<_>>().join("; "))?;
        out.insert(name.clone(), act::Actor { provider, targets: a.targets.clone() });
    }
    Ok(out)
}

/// Looks for planted strings of the model and for secrets by their look, in outputs before they are redacted.
fn scanner(canaries: Vec<(String, Vec<String>)>) -> pane::Scan {
    let planted: BTreeMap<String, AhoCorasick> =
        canaries.into_iter().filter_map(|(model, list)| Some((model, AhoCorasick::new(list).ok()?))).collect();
    // Prefixes that vendors give to their keys so that they can be found in the wrong places.
    let secrets = regex::RegexSet::new([
        r"\bAKIA[0-9A-Z]{16}\b",
        r"\bghp_[0-9A-Za-z]{36}\b",
        r"\bsk-[0-9A-Za-z_-]{32,}",
        r"\bxox[baprs]-[0-9A-Za-z-]{10,}",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    ])
    .ok();
    let names = ["AWS access key", "GitHub token", "API key (sk-...)", "Slack token", "private key"];
    Arc::new(move |model: &str, output: &str| {
        if planted.get(model).is_some_and(|a| a.is_match(output)) {
            return Some(("canary".to_owned(), "a planted string was seen".to_owned()));
        }
        let hit = secrets.as_ref().and_then(|s| s.matches(output).into_iter().next())?;
        Some(("secret".to_owned(), format!("what looks like a secret ({}) was seen", names.get(hit).copied().unwrap_or("key"))))
    })
}

/// One decoder per topic of the file.
///
/// # Errors
/// A mapping that does not compile, which the check of the configuration has refused before.
pub fn decoders(s: &Settings, user_key: [u8; 16]) -> Result<Vec<TopicDecoder>, String> {
    let Some(kafka) = &s.kafka else { return Ok(Vec::new()) };
    (kafka.topics.iter())
        .map(|t| {
            let settings = decode::Settings::new(user_key);
            let kind = decode::KINDS.iter().find(|k| k.name == t.format).ok_or_else(|| format!("unknown format {:?}", t.format))?;
            let built = (kind.build)(settings, t.mapping.as_ref());
            let decoder = built.map_err(|e| e.0.iter().map(|f| format!("{}: {}", f.key, f.problem)).collect::<Vec<_>>().join("; "))?;
            Ok(TopicDecoder { name: t.name.clone(), format: t.format.clone(), kind: t.kind.clone(), decoder })
        })
        .collect()
}

/// Every receiver of the file.
///
/// # Errors
/// What is wrong with one of them, with its name.
pub fn receivers(s: &Settings) -> Result<BTreeMap<String, Receiver>, String> {
    let common = common(s);
    let mut out = BTreeMap::new();
    for (name, r) in &s.receivers {
        let kind = notify::KINDS.iter().find(|k| k.name == r.kind).ok_or_else(|| format!("receiver {name:?} has the unknown type {:?}", r.kind))?;
        let built = (kind.build)(name, &common, &r.table);
        let receiver = built.map_err(|p| p.iter().map(|(key, words)| format!("receivers.{name}.{key}: {words}")).collect::<Vec<_>>().join("; "))?;
        out.insert(name.clone(), receiver);
    }
    Ok(out)
}

pub fn common(s: &Settings) -> notify::Common {
    notify::Common { instance: s.instance.clone(), external_url: s.external_url.clone(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
