//! The words of the trade. Everything here is plain data: no behaviour beyond parsing, printing and ordering.

pub mod alarm;
pub mod delivery;
pub mod hold;
pub mod incident;
pub mod observation;
pub mod response;
pub mod series;
pub mod time;
pub mod words;

pub use alarm::{Alarm, Change, Onset};
pub use hold::{BY_CONFIGURATION, Hold, HoldKind, Matcher};
pub use observation::{Body, Envelope, Observation};
pub use series::{GroupKey, Segment, SeriesId, SeriesKey};
pub use time::Time;
pub use words::{Category, Cause, ClockState, ClosedAs, Decision, DetectorState, IncidentState, Role, Severity, Signal, StepKind, StepState};
