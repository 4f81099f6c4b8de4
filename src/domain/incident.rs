//! An incident as everybody outside the incident room sees it: one document with a revision.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::alarm::{Change, Onset, Unit};
use super::response::Response;
use super::series::{Segment, SeriesId, SeriesKey, StableHash};
use super::time::Time;
use super::words::{Category, Cause, ClosedAs, IncidentState, Severity};

/// At most one live incident has this key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IncidentKey {
    pub environment: String,
    pub model: String,
    pub category: Category,
}

impl IncidentKey {
    /// The id of the incident of this key that opens at `opened`. Derived, never random, so that a replay arrives at the same id.
    pub fn incident_id(&self, opened: Time) -> String {
        let mut h = StableHash::new();
        h.part(self.environment.as_bytes()).part(self.model.as_bytes()).part(self.category.as_str().as_bytes()).part(&opened.0.to_be_bytes());
        // Crockford's alphabet: no letter that is misread aloud.
        const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
        let bits = h.finish();
        let text: String = (0..12).map(|i| char::from(ALPHABET[(bits >> (5 * i) & 31) as usize])).collect();
        format!("inc-{text}")
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub id: String,
    /// Grows by one with every transition or change; deliveries and writes name the revision that they saw.
    pub revision: u64,
    pub key: IncidentKey,
    pub state: IncidentState,
    pub severity: Severity,
    /// The playbook's questions, each with its answer and where the answer comes from. What an incident seldom changes as a whole is
    /// shared: it is copied for every message and revision.
    pub severity_reasons: Arc<Vec<Answer>>,
    /// One line that can be read aloud.
    pub title: String,
    pub onset: Onset,
    pub opened_at: Time,
    pub updated_at: Time,
    pub acknowledged_at: Option<Time>,
    pub mitigated_at: Option<Time>,
    pub resolved_at: Option<Time>,
    pub closed_as: Option<ClosedAs>,
    /// How often the same key came back within a day of `resolved`.
    pub reopened: u32,
    /// Was anybody called, and why (not).
    pub paged: bool,
    pub page_reason: String,
    pub findings: Vec<Finding>,
    pub versions: Vec<String>,
    pub segments: Vec<Segment>,
    pub users_affected: Option<Estimate>,
    pub cause: Option<Arc<CauseGuess>>,
    /// The one action that is ready, in words.
    pub action: String,
    pub exemplars: Arc<Vec<Exemplar>>,
    /// What is to be done, step by step, and what was done.
    #[serde(default)]
    pub response: Response,
    /// How the change comes from parts of the traffic, where that can be told.
    #[serde(default)]
    pub spread: Option<Spread>,
    /// Set if a person has decided the severity.
    #[serde(default)]
    pub severity_set: Option<SeveritySet>,
    /// What went before the onset and may have caused it: by this, incidents of one cause find each other.
    #[serde(default)]
    pub roots: Roots,
    /// The incident under which this one goes, while it is `merged` (and afterwards, for the record).
    #[serde(default)]
    pub merged_into: Option<String>,
    /// Keys whose findings are told here, because they have the same cause.
    #[serde(default)]
    pub merged: Vec<Branch>,
    /// How many more there are than are listed.
    #[serde(default)]
    pub merged_beyond: u64,
    /// Receivers that were called for it: they hear how it goes on, whatever becomes of the routes.
    #[serde(default)]
    pub told: Vec<String>,
    /// Why nobody is called although it would page: a silence, a maintenance window, a person.
    #[serde(default)]
    pub suppressed: Option<Suppression>,
    /// It has come back so often that it is not called over before this time.
    #[serde(default)]
    pub settles_at: Option<Time>,
}

impl Incident {
    /// Does a severity that triage asks for now call for more than stands? Only what is worse than a person knew overrules him.
    pub fn is_overruled_by(&self, asked: Severity) -> bool {
        asked.is_worse_than(self.severity) && self.severity_set.as_ref().is_none_or(|set| asked.is_worse_than(set.over))
    }

    /// Every series that spoke came back within tolerance, and with that it was over; not by a person's word.
    pub fn is_over_by_evidence(&self) -> bool {
        let is_back = self.findings.iter().all(|f| f.recovered_at.is_some());
        !self.state.is_live() && self.closed_as == Some(ClosedAs::Fixed) && is_back
    }

    /// A copy without what is to be done and without exemplars.
    pub fn without_response(&self) -> Incident {
        Incident {
            id: self.id.clone(),
            revision: self.revision,
            key: self.key.clone(),
            state: self.state,
            severity: self.severity,
            severity_reasons: self.severity_reasons.clone(),
            title: self.title.clone(),
            onset: self.onset,
            opened_at: self.opened_at,
            updated_at: self.updated_at,
            acknowledged_at: self.acknowledged_at,
            mitigated_at: self.mitigated_at,
            resolved_at: self.resolved_at,
            closed_as: self.closed_as,
            reopened: self.reopened,
            paged: self.paged,
            page_reason: self.page_reason.clone(),
            findings: self.findings.clone(),
            versions: self.versions.clone(),
            segments: self.segments.clone(),
            users_affected: self.users_affected,
            cause: self.cause.clone(),
            action: self.action.clone(),
            exemplars: Arc::default(),
            response: Response::default(),
            spread: self.spread.clone(),
            severity_set: self.severity_set.clone(),
            roots: self.roots.clone(),
            merged_into: self.merged_into.clone(),
            merged: self.merged.clone(),
            merged_beyond: self.merged_beyond,
            told: self.told.clone(),
            suppressed: self.suppressed.clone(),
            settles_at: self.settles_at,
        }
    }

    /// The finding that names the incident: the first.
    pub fn lead(&self) -> Option<&Finding> {
        self.findings.first()
    }
}

/// What may have caused an incident, as far as it was told to us before the onset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roots {
    /// The deployment that is fresh enough to be the first suspect.
    pub deployment: Option<Root>,
    /// The data job whose run failed and was not made good.
    pub failed_run: Option<Root>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    pub time: Time,
    /// `version 7`, `a deployment of prompt greeting`, `loan-features`.
    pub name: String,
}

/// A key whose findings another incident tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    pub key: IncidentKey,
    /// Its own record, in state `merged`; none in a storm, where only the key is kept.
    pub id: Option<String>,
    pub at: Time,
    pub reason: String,
}

/// Why an incident is suppressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// The silence or window; none when a person suppressed this incident.
    pub hold: Option<String>,
    pub words: String,
    pub until: Option<Time>,
    /// It would have called somebody, and does once this is over.
    pub calls: bool,
}

/// One series that spoke within an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub series: SeriesKey,
    pub series_id: SeriesId,
    pub detector: String,
    pub reason: String,
    pub headline: String,
    pub change: Option<Change>,
    pub unit: Unit,
    pub onset: Onset,
    pub found_at: Time,
    pub log_evidence: Option<f64>,
    pub threshold: Option<f64>,
    pub by_rule: bool,
    pub recovered_at: Option<Time>,
}

/// One of the playbook's questions, answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub question: String,
    pub answer: String,
    pub source: String,
}

/// An estimated count with its interval of 95 %.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub estimate: f64,
    pub low: f64,
    pub high: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CauseGuess {
    pub best: Cause,
    /// All four, most probable first; probabilities sum to 1.
    pub ranked: Vec<(Cause, f64)>,
    pub facts: Vec<String>,
    /// What each fact points at, in the order of `facts`.
    #[serde(default)]
    pub points_at: Vec<Option<Pointer>>,
}

/// The thing that a fact speaks of, so that a page can lead there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pointer {
    Series {
        id: SeriesId,
    },
    /// A deployment that was told, by its time and its version or target.
    Deployment {
        at: Time,
        name: String,
    },
    /// A run of a data job.
    Run {
        at: Time,
        job: String,
    },
    /// All models.
    Fleet,
}

/// How a change of the whole comes from its parts: from what changed within them, and from their shares of the traffic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub dimension: String,
    pub unit: Unit,
    /// The whole, as the sum of its parts.
    pub before: f64,
    pub after: f64,
    /// What the change within parts makes of it, and what the mix of the traffic does; they add up to `after - before`.
    pub within: f64,
    pub mix: f64,
    /// Those that make most of it first.
    pub parts: Vec<PartOfChange>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartOfChange {
    pub segment: Segment,
    /// Of the traffic, 0 to 1.
    pub share_before: f64,
    pub share_after: f64,
    pub before: f64,
    pub after: f64,
    pub within: f64,
    pub mix: f64,
}

/// A person's word on the severity, over what triage says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeveritySet {
    pub by: String,
    pub why: String,
    pub at: Time,
    /// What triage said then; only something worse than this overrules the person.
    pub over: Severity,
}

/// A real observation kept as evidence, after redaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    pub id: String,
    /// Exemplars are the smallest hashes of their ids, so that replay and merging keep the same ones.
    pub hash: u64,
    pub time: Time,
    pub version: String,
    pub status: String,
    /// Facts that the allow-list lets through, as `name=value`.
    pub facts: Vec<(String, String)>,
}

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    Bellwether,
    Person(String),
    Receiver(String),
}

impl Actor {
    pub fn words(&self) -> String {
        match self {
            Actor::Bellwether => "bellwether".to_owned(),
            Actor::Person(name) => name.clone(),
            Actor::Receiver(name) => format!("receiver {name}"),
        }
    }
}

/// One line of an incident's timeline: who, when, what and why. Never changed, never removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineEntry {
    pub incident_id: String,
    /// Revision of the incident after this entry; entries of one revision keep their order by `ordinal`.
    pub revision: u64,
    pub ordinal: u32,
    pub at: Time,
    pub who: Actor,
    /// `opened`, `updated`, `acknowledged`, `note`, `delivered` ...
    pub what: String,
    pub why: String,
}
