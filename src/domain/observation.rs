//! One record from the outside, decoded. Borrowed from the bytes it came in: nothing here outlives its batch.

use std::borrow::Cow;

use super::time::Time;

/// One decoded record: who and when, what, and which of its fields were unusable.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation<'a> {
    pub envelope: Envelope<'a>,
    pub body: Body<'a>,
    /// Fields that were repaired or dropped. A bad field costs the field, not the event.
    pub faults: Vec<FieldFault<'a>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Envelope<'a> {
    pub id: Option<Cow<'a, str>>,
    /// The event's own time; `None` means that the record's time has to serve.
    pub time: Option<Time>,
    pub model: Option<Cow<'a, str>>,
    pub version: Option<Cow<'a, str>>,
    pub environment: Option<Cow<'a, str>>,
    pub segments: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub trace_id: Option<Cow<'a, str>>,
    pub span_id: Option<Cow<'a, str>>,
    pub session_id: Option<Cow<'a, str>>,
    /// Keyed hash of the user; the name itself never leaves decode.
    pub user: Option<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Body<'a> {
    Prediction(Box<Prediction<'a>>),
    Outcome(Outcome<'a>),
    Quality(Quality<'a>),
    Feedback(Feedback<'a>),
    Deployment(Deployment<'a>),
    Pipeline(Pipeline<'a>),
    Report(Report<'a>),
    Heartbeat(Heartbeat<'a>),
}

impl Body<'_> {
    pub const KINDS: &'static [&'static str] = &["prediction", "outcome", "quality", "feedback", "deployment", "pipeline", "report", "heartbeat"];

    /// Index into [`Body::KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Body::Prediction(_) => 0,
            Body::Outcome(_) => 1,
            Body::Quality(_) => 2,
            Body::Feedback(_) => 3,
            Body::Deployment(_) => 4,
            Body::Pipeline(_) => 5,
            Body::Report(_) => 6,
            Body::Heartbeat(_) => 7,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    #[default]
    Ok,
    Error,
    Timeout,
    Cancelled,
    MissingResponse,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction<'a> {
    pub latency_ms: Option<f64>,
    pub first_token_ms: Option<f64>,
    pub status: Status,
    pub error: Option<ErrorInfo<'a>>,
    pub score: Option<f64>,
    pub label: Option<Cow<'a, str>>,
    pub scores: Vec<(Cow<'a, str>, f64)>,
    pub output: Option<Cow<'a, str>>,
    pub output_empty: Option<bool>,
    pub finish_reason: Option<Cow<'a, str>>,
    /// The event had a `features` object, even an empty one.
    pub carries_features: bool,
    pub features: Vec<(Cow<'a, str>, FeatureValue<'a>)>,
    pub input_tokens: Option<f64>,
    pub output_tokens: Option<f64>,
    pub cached_tokens: Option<f64>,
    pub reasoning_tokens: Option<f64>,
    pub cost: Option<Cost<'a>>,
    pub cache_hit: Option<bool>,
    pub attempt: Option<f64>,
    pub flags: Vec<(Cow<'a, str>, Flag)>,
    pub groups: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorInfo<'a> {
    pub kind: Option<Cow<'a, str>>,
    pub message: Option<Cow<'a, str>>,
    pub code: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cost<'a> {
    pub amount: f64,
    /// `None` means US dollars (`cost_usd`).
    pub currency: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FeatureValue<'a> {
    Number(f64),
    Text(Cow<'a, str>),
    Bool(bool),
    Null,
    Embedding(Vec<f32>),
}

/// A classifier's word about an output, or a person's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flag {
    Bool(bool),
    /// From 0 to 1; 0.5 and more counts as raised.
    Score(f64),
    /// A person or a policy has decided.
    Confirmed,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome<'a> {
    pub prediction_id: Cow<'a, str>,
    pub label: Option<Cow<'a, str>>,
    pub value: Option<f64>,
    pub observed_at: Option<Time>,
    pub weight: Option<f64>,
    pub retracted: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quality<'a> {
    pub name: Cow<'a, str>,
    pub value: Option<f64>,
    /// A word, or "true" / "false" when the evaluator said a boolean.
    pub label: Option<Cow<'a, str>>,
    pub prediction_id: Option<Cow<'a, str>>,
    pub evaluator: Option<Cow<'a, str>>,
    pub evaluator_version: Option<Cow<'a, str>>,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub higher_is_better: Option<bool>,
    pub error: Option<Cow<'a, str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedbackKind {
    Thumb,
    Rating,
    Complaint,
    Correction,
    Ticket,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Feedback<'a> {
    pub kind_of: FeedbackKind,
    pub value: Option<f64>,
    pub prediction_id: Option<Cow<'a, str>>,
    pub category: Option<Cow<'a, str>>,
    pub text: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Deployment<'a> {
    /// `kind` and `name` of the target.
    pub target_kind: Cow<'a, str>,
    pub target_name: Cow<'a, str>,
    pub phase: Cow<'a, str>,
    pub previous_version: Option<Cow<'a, str>>,
    pub traffic_percent: Option<f64>,
    pub actor: Option<Cow<'a, str>>,
    pub url: Option<Cow<'a, str>>,
    pub description: Option<Cow<'a, str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineState {
    Started,
    Running,
    Succeeded,
    Failed,
    Aborted,
    Skipped,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Pipeline<'a> {
    pub job: Cow<'a, str>,
    pub state: PipelineState,
    pub run_id: Option<Cow<'a, str>>,
    pub nominal_time: Option<Time>,
    /// Names of the data sets written.
    pub outputs: Vec<Cow<'a, str>>,
    /// Names of assertions that failed.
    pub failed_assertions: Vec<Cow<'a, str>>,
    pub error: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report<'a> {
    pub summary: Cow<'a, str>,
    /// `user`, `internal` or `external`.
    pub source_of_report: Cow<'a, str>,
    pub reporter: Option<Cow<'a, str>>,
    pub happening_now: Option<bool>,
    pub severity_guess: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heartbeat<'a> {
    pub producer: Option<Cow<'a, str>>,
    pub expected_interval_s: Option<f64>,
}

/// A field that could not be used as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault<'a> {
    pub field: Cow<'a, str>,
    pub fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A number written as text was read as a number.
    Coerced,
    /// Unusable: wrong type, not finite, out of its range. The field is dropped.
    Invalid,
    /// Text was cut to its bound.
    Cut,
    /// The event's time lay too far in the future and was replaced.
    Clamped,
}

impl Fault {
    pub const ALL: &'static [Fault] = &[Fault::Coerced, Fault::Invalid, Fault::Cut, Fault::Clamped];

    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Coerced => "coerced",
            Fault::Invalid => "invalid",
            Fault::Cut => "cut",
            Fault::Clamped => "clamped",
        }
    }
}
