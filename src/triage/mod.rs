//! How bad is it, for whom, why, and what is to be done: each answer with its reasons. Pure; the facts come as an argument.
//!
//! The picture is the nurse at the door of an emergency ward. She does not cure; she asks the same few questions of everybody,
//! writes each answer down with who said so, and decides who is woken. So each of the five answers is one file with one table:
//! [`severity`], [`cause`], [`scope`], [`title`], [`action`]; this one puts them together. A learned ranking was not taken: a person who is
//! woken must be able to see which fact moved the answer, and to argue with it.

use crate::domain::incident::{Answer, CauseGuess, Estimate, Finding, IncidentKey, Root, Roots, Spread};
use crate::domain::series::UNKNOWN;
use crate::domain::time::{DAY_MS, HOUR_MS};
use crate::domain::{Segment, Severity, Signal, Time};
use crate::pane::{Fact, FactKind};

mod action;
mod cause;
pub mod scope;
mod severity;
#[cfg(test)]
mod tests;
mod title;

pub use severity::{category_of, counts_failures, severity_of};

/// Everything that is known when findings of one key are assessed.
#[derive(Clone, Debug)]
pub struct Case<'a> {
    pub key: &'a IncidentKey,
    /// The narrowest series that explains the change comes first and names the incident.
    pub findings: &'a [Finding],
    /// Findings of the live incident that spoke before and still speak.
    pub known: &'a [Finding],
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
    /// How the change of the first finding comes from parts of the traffic, where that can be told.
    pub spread: Option<&'a Spread>,
    /// It is known that no segment is spared: the one that spoke first names nothing.
    pub everywhere: bool,
    pub users_affected: Option<Estimate>,
    /// What the configuration says of this model: `eu`, `legal` ...
    pub exposure: &'a [String],
    pub owner: Option<&'a str>,
    /// Does the change still grow, if that can be said.
    pub getting_worse: Option<bool>,
    /// Signals of the same model in other categories that speak now or spoke in the last hour.
    pub companions: &'a [&'a Signal],
    /// How bad a person says that it is.
    pub set: Option<Severity>,
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
    /// What went before and may have caused it.
    pub roots: Roots,
}

/// Everything that triage has to say of a case. Total: an odd case gets a dull answer, never a panic.
pub fn assess(case: &Case<'_>) -> Assessment {
    let scene = Scene::of(case);
    let (asked, severity_reasons) = severity::judge(&scene);
    let severity = case.set.unwrap_or(asked);
    let (pages, page_reason) = worth_a_page(&scene, severity);
    Assessment {
        severity,
        severity_reasons,
        title: title::say(&scene),
        cause: cause::guess(&scene),
        action: action::propose(&scene, severity),
        pages,
        page_reason,
        roots: scene.roots(),
    }
}

/// Drift alone is listed; all else calls.
fn worth_a_page(scene: &Scene<'_>, severity: Severity) -> (bool, String) {
    let Some(lead) = scene.case.findings.first() else {
        return (false, "nothing was found".to_owned());
    };
    let inputs_only = scene.case.findings.iter().all(|f| matches!(f.series.signal, Signal::Feature(_) | Signal::Unseen(_) | Signal::Embedding(_)));
    if inputs_only && severity == Severity::MINOR {
        return (false, "drift alone is listed, not paged".to_owned());
    }
    if scene.case.set.is_some_and(|set| set.is_worse_than(Severity::MINOR)) {
        return (true, "a person says that it is bad".to_owned());
    }
    let rule = scene.case.findings.iter().find(|f| f.by_rule);
    match rule {
        Some(f) => (true, format!("{} is a rule, which waits for no statistics", f.series.signal.words())),
        None => (true, format!("{} is beyond tolerance with evidence within the budget", lead.series.signal.words())),
    }
}

/// A case with what all four answers ask of it: when it began, and what went before.
struct Scene<'a> {
    case: &'a Case<'a>,
    /// The earliest onset of the finding that names the incident, and the latest that is still likely.
    onset: Time,
    onset_to: Time,
    /// The newest deployment within an hour before the onset.
    deployed: Option<Deployed<'a>>,
    /// The newest pipeline run of the day before that failed and was not made good before the onset.
    failed_run: Option<Run<'a>>,
    /// The newest pipeline run that went well so shortly before that what it wrote may show now.
    fresh_run: Option<Run<'a>>,
}

struct Deployed<'a> {
    time: Time,
    version: Option<&'a str>,
    previous: Option<&'a str>,
    target: &'a str,
    phase: &'a str,
}

/// A run of a data job.
struct Run<'a> {
    time: Time,
    job: &'a str,
    state: &'a str,
    error: Option<&'a str>,
}

/// A deployment may explain what begins within this time after it.
const DEPLOYMENT_EXPLAINS_MS: i64 = HOUR_MS;
/// What a deployment breaks usually shows with its first requests: later it is one suspect among others.
const DEPLOYMENT_IS_FRESH_MS: i64 = 10 * 60_000;
/// A failed run may explain what begins within this time after it: pipelines run daily.
const FAILED_RUN_EXPLAINS_MS: i64 = DAY_MS;
/// What a run wrote shows within this time if it shows at all.
const RUN_IS_FRESH_MS: i64 = 10 * 60_000;
/// Longest a name of a stranger is quoted in a sentence, in characters.
const NAME_CHARS_MAX: usize = 64;

// === impl Scene ===

impl<'a> Scene<'a> {
    fn of(case: &'a Case<'a>) -> Scene<'a> {
        let lead = case.findings.first().map(|f| f.onset);
        let onset = lead.map_or(case.now, |o| o.at);
        let onset_to = lead.map_or(case.now, |o| o.at.max(o.to)).min(case.now.max(onset));
        let mut scene = Scene { case, onset, onset_to, deployed: None, failed_run: None, fresh_run: None };
        scene.deployed = scene.last_deployment();
        scene.failed_run = scene.last_failed_run();
        scene.fresh_run = scene.last_good_run();
        scene
    }

    /// Facts of this environment, or of none in particular.
    fn facts(&self) -> impl Iterator<Item = &'a Fact> {
        let case = self.case;
        case.facts.iter().filter(move |f| match f.environment.as_deref() {
            None | Some(UNKNOWN) => true,
            Some(other) => other == case.key.environment || case.key.environment == UNKNOWN,
        })
    }

    /// A deployment that has come into force, also in part: the newest, unless a version in which the change is concentrated
    /// was deployed too. The onset is an estimate, so up to its latest likely value counts as before.
    fn last_deployment(&self) -> Option<Deployed<'a>> {
        let all = self.facts().filter_map(|f| match &f.kind {
            FactKind::Deployment { phase, target, previous_version } if !matches!(phase.as_str(), "paused" | "failed") => {
                let version = f.version.as_deref().filter(|v| !v.is_empty() && *v != UNKNOWN);
                let previous = previous_version.as_deref().filter(|v| !v.is_empty());
                let in_time = f.time <= self.onset_to && self.onset.since_ms(f.time) <= DEPLOYMENT_EXPLAINS_MS;
                in_time.then_some(Deployed { time: f.time, version, previous, target, phase })
            }
            _ => None,
        });
        all.max_by_key(|d| (d.version.is_some_and(|v| self.hits_version(v)), d.time))
    }

    fn last_failed_run(&self) -> Option<Run<'a>> {
        let runs = || {
            self.facts().filter_map(|f| match &f.kind {
                FactKind::Pipeline { job, state, error } if f.time <= self.onset_to => Some((f.time, job, state, error)),
                _ => None,
            })
        };
        let bad = runs().filter(|(time, job, state, _)| {
            let failed = matches!(state.as_str(), "failed" | "aborted") && self.onset.since_ms(*time) <= FAILED_RUN_EXPLAINS_MS;
            failed && !runs().any(|(later, j, s, _)| j == *job && s == "succeeded" && later > *time)
        });
        bad.max_by_key(|(time, ..)| *time).map(|(time, job, state, error)| Run { time, job, state, error: error.as_deref() })
    }

    fn last_good_run(&self) -> Option<Run<'a>> {
        let good = self.facts().filter_map(|f| match &f.kind {
            FactKind::Pipeline { job, state, .. }
                if state == "succeeded" && f.time <= self.onset_to && self.onset.since_ms(f.time) <= RUN_IS_FRESH_MS =>
            {
                Some(Run { time: f.time, job, state, error: None })
            }
            _ => None,
        });
        good.max_by_key(|run| run.time)
    }

    /// The deployment, if the change began so soon after it that going back is the first thing to try.
    fn fresh_deployment(&self) -> Option<&Deployed<'a>> {
        let is_fresh = |d: &&Deployed<'a>| self.onset.since_ms(d.time) < DEPLOYMENT_IS_FRESH_MS || d.version.is_some_and(|v| self.hits_version(v));
        self.deployed.as_ref().filter(is_fresh)
    }

    fn roots(&self) -> Roots {
        Roots {
            deployment: self.fresh_deployment().map(|d| Root { time: d.time, name: d.name() }),
            failed_run: self.failed_run.as_ref().map(|r| Root { time: r.time, name: quoted(r.job) }),
        }
    }

    /// Is the change concentrated in this version?
    fn hits_version(&self, version: &str) -> bool {
        let lead = self.case.findings.first().and_then(|f| f.series.group.version.as_deref());
        lead == Some(version) || self.case.versions.iter().any(|v| v == version)
    }

    /// What speaks now and what spoke before.
    fn all_findings(&self) -> impl Iterator<Item = &'a Finding> {
        let case = self.case;
        let is_again = move |f: &&Finding| case.findings.iter().any(|g| g.series_id == f.series_id);
        case.findings.iter().chain(case.known.iter().filter(move |f| !is_again(f)))
    }

    fn signals(&self) -> impl Iterator<Item = &'a Signal> {
        self.all_findings().map(|f| &f.series.signal)
    }

    /// Those of the model's other incidents too.
    fn all_signals(&self) -> impl Iterator<Item = &'a Signal> {
        self.signals().chain(self.case.companions.iter().copied())
    }

    /// The model for a sentence; the incident about ourselves names none.
    fn model(&self) -> String {
        if self.case.key.model.is_empty() { "the fleet".to_owned() } else { quoted(&self.case.key.model) }
    }

    /// Where the change sits, narrowest first: `region=eu`, `3 values of region`. Empty when it is everywhere.
    fn segments(&self) -> Vec<String> {
        let mut segments: Vec<&Segment> = self.case.segments.iter().collect();
        if let Some(own) = self.case.findings.first().and_then(|f| f.series.group.segment.as_ref())
            && !segments.contains(&own)
            && !self.case.everywhere
        {
            segments.insert(0, own);
        }
        let mut out: Vec<String> = Vec::new();
        for (i, s) in segments.iter().enumerate() {
            let alike = segments.iter().filter(|o| o.dimension == s.dimension).count();
            let first = segments.iter().position(|o| o.dimension == s.dimension) == Some(i);
            if alike <= 2 {
                out.push(quoted(&s.to_string()));
            } else if first {
                out.push(format!("{alike} values of {}", quoted(&s.dimension)));
            }
        }
        out
    }

    /// Versions in which the change sits. Empty when it is everywhere.
    fn versions(&self) -> Vec<&'a str> {
        let mut versions: Vec<&str> = self.case.versions.iter().map(String::as_str).collect();
        if let Some(own) = self.case.findings.first().and_then(|f| f.series.group.version.as_deref())
            && !versions.contains(&own)
        {
            versions.insert(0, own);
        }
        versions
    }
}

impl Deployed<'_> {
    /// `version v7`, `prompt greeting`.
    fn name(&self) -> String {
        match self.version {
            Some(v) => format!("version {}", quoted(v)),
            None if self.target.is_empty() => "a deployment".to_owned(),
            None => format!("a deployment of {}", quoted(self.target)),
        }
    }
}

/// A stranger's word, short enough for a sentence and harmless when read aloud or printed.
fn quoted(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = clean.take(NAME_CHARS_MAX + 1).collect();
    if out.chars().count() > NAME_CHARS_MAX {
        out = out.chars().take(NAME_CHARS_MAX - 1).collect();
        out.push('…');
    }
    out
}

/// `40 s`, `9 min`, `3 h`, `2 days`.
fn span(ms: i64) -> String {
    let seconds = ms.max(0) / 1_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `09:12 UTC`, with the day when it is another than today's.
fn clock(time: Time, now: Time) -> String {
    if time.floor(DAY_MS) == now.floor(DAY_MS) {
        return time.clock();
    }
    match time.rfc3339().get(..10) {
        Some(day) => format!("{day} {}", time.clock()),
        None => time.clock(),
    }
}
