//! Silences and maintenance windows: for whom and how long nobody is called.
//!
//! A hold never hides an incident. It opens, is listed as `suppressed` and goes on gathering evidence; when the hold is over and
//! the incident is not, the page goes out. Active harm (severity 1) is held only where the person who made the hold said so.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::incident::Incident;
use super::series::Segment;
use super::time::Time;
use super::words::{Category, Severity};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldKind {
    /// Somebody knows of it and does not want to hear more.
    Silence,
    /// Work that was announced.
    Maintenance,
}

impl HoldKind {
    pub fn as_str(self) -> &'static str {
        match self {
            HoldKind::Silence => "silence",
            HoldKind::Maintenance => "maintenance",
        }
    }
}

impl fmt::Display for HoldKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who stands on a window of the configuration, in place of a person.
pub const BY_CONFIGURATION: &str = "the configuration";

/// Which incidents are held. What is not said fits all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    pub environment: Option<String>,
    pub model: Option<String>,
    pub category: Option<Category>,
    /// `dimension=value`: incidents that sit in this segment and nowhere else of the dimension.
    pub segment: Option<Segment>,
    pub version: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub id: String,
    pub kind: HoldKind,
    pub matcher: Matcher,
    pub from: Time,
    /// Not included.
    pub until: Time,
    pub by: String,
    pub why: String,
    /// Holds active harm as well.
    pub harm: bool,
    /// Made over before its time, by whom and why.
    pub ended: Option<(Time, String)>,
}

// === impl Matcher ===

impl Matcher {
    pub fn fits(&self, incident: &Incident) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
        let of_dimension = |s: &Segment| incident.segments.iter().filter(|o| o.dimension == s.dimension).count();
        is(&self.environment, &incident.key.environment)
            && is(&self.model, &incident.key.model)
            && self.category.is_none_or(|c| c == incident.key.category)
            && self.segment.as_ref().is_none_or(|s| incident.segments.contains(s) && of_dimension(s) == 1)
            && self.version.as_ref().is_none_or(|v| incident.versions.len() == 1 && incident.versions[0] == *v)
    }

    /// `model=ranker, category=model_failure`; `everything` if nothing is said.
    pub fn words(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.environment.iter().map(|e| format!("environment={e}")));
        parts.extend(self.model.iter().map(|m| format!("model={m}")));
        parts.extend(self.category.iter().map(|c| format!("category={c}")));
        parts.extend(self.segment.iter().map(ToString::to_string));
        parts.extend(self.version.iter().map(|v| format!("version={v}")));
        if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
    }
}

// === impl Hold ===

impl Hold {
    pub fn is_on(&self, now: Time) -> bool {
        self.ended.is_none() && self.from <= now && now < self.until
    }

    pub fn holds(&self, incident: &Incident, now: Time) -> bool {
        self.is_on(now) && (self.harm || incident.severity != Severity::HARM) && self.matcher.fits(incident)
    }

    /// `silence sil-3 of ana until 14:00 UTC: load test`.
    pub fn words(&self) -> String {
        let kind = match self.kind {
            HoldKind::Silence => "silence",
            HoldKind::Maintenance => "maintenance window",
        };
        let why = if self.why.is_empty() { String::new() } else { format!(": {}", self.why) };
        format!("{kind} {} of {} until {}{why}", self.id, self.by, self.until.clock())
    }
}
