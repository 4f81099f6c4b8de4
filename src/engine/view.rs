//! What people may ask of a running engine: plain data for pages and the API.

use serde::{Deserialize, Serialize};

use crate::domain::alarm::{Change, Unit};
use crate::domain::{Category, DetectorState, SeriesId, SeriesKey, Signal, Time};
pub use crate::judge::Point;

/// One model in one environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelView {
    pub model: String,
    pub environment: String,
    pub owner: Option<String>,
    pub versions: Vec<String>,
    pub segments: Vec<String>,
    /// Accepted events, once each, exact after any kill.
    pub events: u64,
    pub last_event_at: Option<Time>,
    pub series: SeriesStates,
    /// Ids of live incidents.
    pub incidents: Vec<String>,
}

/// How many detectors are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesStates {
    pub warming: u64,
    pub armed: u64,
    pub starved: u64,
    pub frozen: u64,
    pub off: u64,
}

/// One series as listed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesView {
    pub id: SeriesId,
    pub key: SeriesKey,
    /// `rate`, `bins`, `classes`, `counts`, `seasonal_step`, `gap`.
    pub detector: String,
    pub category: Category,
    pub state: DetectorState,
    /// "can see a doubling after 40,000 more events", or why it pages or does not.
    pub words: String,
    pub unit: Unit,
    pub value: Option<f64>,
    pub baseline: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub log_evidence: f64,
    /// Nats at which it pages; `None` while nothing may be spent.
    pub threshold: Option<f64>,
    /// False pages in 30 days that this series may spend.
    pub budget_share: f64,
    pub change: Option<Change>,
    /// The file that its baseline began with, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub learned_from: Option<String>,
}

/// What is normal of one signal of a model as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaselineView {
    pub model: String,
    /// None: of every environment, and the model was not seen yet.
    pub environment: Option<String>,
    pub signal: Signal,
    pub detector: String,
    pub state: DetectorState,
    /// Until a change that is worth a page can be seen.
    pub needs_events: Option<f64>,
    pub unit: Unit,
    pub value: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    #[serde(default)]
    pub learned_from: Option<String>,
}

/// One series with its recent past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesPage {
    pub series: SeriesView,
    pub points: Vec<Point>,
    /// Onset and end of the live or last alarm, for the chart.
    pub onset: Option<Time>,
    /// Decisions of this series, newest first: time, `raised` or `held`, reason.
    pub decisions: Vec<(Time, String, String)>,
    /// How far the newest days lie from what was learned first; of a model as a whole, from the second day on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drift: Option<Drift>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    pub words: String,
    /// What the tests that people know by name say; they decide nothing.
    pub tests: Vec<NamedTest>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedTest {
    pub name: String,
    pub statistic: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub p_value: Option<f64>,
    pub threshold: f64,
    pub drifted: bool,
}

/// The whole engine in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineView {
    pub events: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub late: u64,
    pub unattributed: u64,
    /// Named bounds that were met, and how often: `fields_invalid`, `times_clamped`, `segments_as_other` ...
    pub bounds: Vec<(String, u64)>,
    pub series: SeriesStates,
    /// End of the last judged pane.
    pub judged_through: Option<Time>,
    pub is_live: bool,
    /// False pages in 30 days that the user accepts, and the expected number spent so far in this window.
    pub budget: f64,
    pub budget_spent: f64,
    pub alarms_raised: u64,
    pub alarms_held: u64,
    /// Deployments and pipeline runs seen lately, newest first: time, words.
    pub changes: Vec<(Time, String)>,
}
