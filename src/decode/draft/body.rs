//! From a draft to an observation: which members each kind has, and which of them it cannot do without.
//!
//! The order of the questions is the order in which faults are listed, so it is the same for the same event.

use std::borrow::Cow;

use super::super::member::{Member, nearest};
use super::super::scalar::Scalar;
use super::super::{Reason, Reject, excerpt};
use super::Draft;
use super::judge::{Ending, Range};
use crate::domain::observation::{
    Body, Cost, Deployment, Envelope, ErrorInfo, Fault, Feedback, FeedbackKind, Heartbeat, Observation, Outcome, Pipeline, PipelineState, Prediction,
    Quality, Report, Status,
};

/// Longest `id`, in bytes. A longer one is refused: cut ids would make two events one.
const ID_BYTES_MAX: usize = 256;
/// Longest `model`, `version` and `environment`, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The only `schema` there is.
const SCHEMA: f64 = 1.0;

const STATUSES: &[(&str, Status)] = &[
    ("ok", Status::Ok),
    ("error", Status::Error),
    ("timeout", Status::Timeout),
    ("cancelled", Status::Cancelled),
    ("missing_response", Status::MissingResponse),
];

const FEEDBACK_KINDS: &[(&str, FeedbackKind)] = &[
    ("thumb", FeedbackKind::Thumb),
    ("rating", FeedbackKind::Rating),
    ("complaint", FeedbackKind::Complaint),
    ("correction", FeedbackKind::Correction),
    ("ticket", FeedbackKind::Ticket),
];

const PIPELINE_STATES: &[(&str, PipelineState)] = &[
    ("started", PipelineState::Started),
    ("running", PipelineState::Running),
    ("succeeded", PipelineState::Succeeded),
    ("failed", PipelineState::Failed),
    ("aborted", PipelineState::Aborted),
    ("skipped", PipelineState::Skipped),
];

const REPORT_SOURCES: &[(&str, ())] = &[("user", ()), ("internal", ()), ("external", ())];

impl<'a> Draft<'_, 'a> {
    /// # Errors
    /// The kind is unknown, or something is missing that the kind cannot do without.
    pub fn finish(mut self, ending: &Ending<'_>) -> Result<Observation<'a>, Reject> {
        self.check_schema()?;
        let kind = self.kind(ending.pinned_kind)?;
        let time = self.event_time(ending.record_time);
        if ending.time_required && time.is_none() {
            return Err(Reject::new(
                Reason::BadTime,
                "the mapping requires \"time\": RFC 3339, or an epoch number in its unit, between 1990 and 2200",
            ));
        }
        let mut envelope = Envelope {
            id: self.identity(Member::Id, ID_BYTES_MAX)?,
            time,
            model: self.identity(Member::Model, NAME_BYTES_MAX)?,
            version: self.name(Member::Version, NAME_BYTES_MAX),
            environment: self.name(Member::Environment, NAME_BYTES_MAX),
            segments: std::mem::take(&mut self.segments),
            trace_id: self.reference(Member::TraceId, ID_BYTES_MAX),
            span_id: self.reference(Member::SpanId, ID_BYTES_MAX),
            session_id: self.reference(Member::SessionId, ID_BYTES_MAX),
            user: self.user(),
        };
        let body = match kind {
            "prediction" => {
                self.need(kind, Member::Id, envelope.id.is_some(), "text of 1 to 256 bytes")?;
                self.need(kind, Member::Model, envelope.model.is_some(), "text of 1 to 128 bytes")?;
                Body::Prediction(Box::new(self.prediction()))
            }
            "outcome" => Body::Outcome(self.outcome()?),
            "quality" => Body::Quality(self.quality(&envelope)?),
            "feedback" => Body::Feedback(self.feedback()?),
            "deployment" => Body::Deployment(self.deployment()?),
            "pipeline" => Body::Pipeline(self.pipeline()?),
            "report" => {
                self.need(kind, Member::Id, envelope.id.is_some(), "text of 1 to 256 bytes")?;
                Body::Report(self.report()?)
            }
            _ => {
                let producer = self.reference(Member::Producer, ID_BYTES_MAX);
                self.need(kind, Member::Producer, envelope.model.is_some() || producer.is_some(), "or \"model\": who is alive")?;
                Body::Heartbeat(Heartbeat { producer, expected_interval_s: self.number(Member::ExpectedIntervalS, Range::Positive) })
            }
        };
        // A segment without a value says nothing.
        envelope.segments.retain(|(name, value)| !name.is_empty() && !value.is_empty());
        Ok(Observation { envelope, body, faults: self.faults })
    }

    fn check_schema(&mut self) -> Result<(), Reject> {
        let asked = self.number(Member::Schema, Range::Any);
        if asked == Some(SCHEMA) || asked.is_none() && !self.is_spoilt(Member::Schema) {
            return Ok(());
        }
        let found = asked.map_or("something else".to_owned(), |n| n.to_string());
        Err(Reject::new(Reason::UnknownSchema, format!("\"schema\" must be 1 or absent, found {found}")))
    }

    fn kind(&mut self, pinned: Option<&str>) -> Result<&'static str, Reject> {
        let said = self.take(Member::Kind);
        let word = match (&said, pinned) {
            (Scalar::Text(word), _) => word.as_ref(),
            (Scalar::Null, Some(pinned)) => pinned,
            (Scalar::Null, None) => {
                let known = Body::KINDS.join(", ");
                return Err(Reject::new(Reason::MissingField, format!("missing \"kind\", and the topic fixes none (known: {known})")));
            }
            _ => return Err(Reject::new(Reason::UnknownKind, "\"kind\" must be text, such as \"prediction\"")),
        };
        if let Some(kind) = Body::KINDS.iter().find(|kind| **kind == word) {
            return Ok(kind);
        }
        let meant = nearest(word, Body::KINDS).map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
        let detail = format!("unknown kind {:?}{meant} (known: {})", excerpt(word), Body::KINDS.join(", "));
        Err(Reject::new(Reason::UnknownKind, detail))
    }

    /// `id` and `model`: who an event is. Neither may be cut, or two would become one.
    fn identity(&mut self, member: Member, bytes_max: usize) -> Result<Option<Cow<'a, str>>, Reject> {
        let Some(text) = self.reference(member, usize::MAX) else {
            return Ok(None);
        };
        if text.len() <= bytes_max {
            return Ok(Some(text));
        }
        let detail = format!("{:?} has {} bytes, at most {bytes_max} are allowed; it begins with {:?}", member.name(), text.len(), excerpt(&text));
        Err(Reject::new(Reason::SchemaMismatch, detail))
    }

    fn need(&self, kind: &str, member: Member, there: bool, what: &str) -> Result<(), Reject> {
        if there {
            return Ok(());
        }
        let how = if self.is_spoilt(member) { "unusable" } else { "missing" };
        Err(Reject::new(Reason::MissingField, format!("{how} {:?}: a {kind} event needs it ({what})", member.name())))
    }

    /// A word of a closed set without which the event means nothing.
    fn choice<T: Copy>(&mut self, kind: &str, member: Member, known: &[(&'static str, T)]) -> Result<(&'static str, T), Reject> {
        let words = || known.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        let said = self.text(member);
        self.need(kind, member, said.as_ref().is_some_and(|word| !word.is_empty()), &words())?;
        let said = said.unwrap_or_default();
        known.iter().find(|(word, _)| *word == said).copied().ok_or_else(|| {
            let detail = format!("{:?} of a {kind} event is {:?} (known: {})", member.name(), excerpt(&said), words());
            Reject::new(Reason::SchemaMismatch, detail)
        })
    }

    /// Text without which the event means nothing.
    fn needed_text(&mut self, kind: &str, member: Member) -> Result<Cow<'a, str>, Reject> {
        let text = self.name(member, self.settings.max_text_bytes);
        self.need(kind, member, text.is_some(), "text")?;
        Ok(text.unwrap_or_default())
    }

    fn status(&mut self) -> Status {
        // An event that brings an error and no word about its status did not go well.
        let unsaid = if self.error.is_some() { Status::Error } else { Status::Ok };
        match self.take(Member::Status) {
            Scalar::Null => unsaid,
            Scalar::Text(word) => match STATUSES.iter().find(|(known, _)| *known == word) {
                Some((_, status)) => *status,
                None => self.invalid(Member::Status).unwrap_or(unsaid),
            },
            _ => self.invalid(Member::Status).unwrap_or(unsaid),
        }
    }

    fn prediction(&mut self) -> Prediction<'a> {
        let cost_usd = self.number(Member::CostUsd, Range::NotNegative);
        Prediction {
            latency_ms: self.number(Member::LatencyMs, Range::NotNegative),
            first_token_ms: self.number(Member::FirstTokenMs, Range::NotNegative),
            status: self.status(),
            error: self.error.take(),
            score: self.number(Member::Score, Range::Any),
            label: self.class(Member::Label),
            scores: std::mem::take(&mut self.scores),
            output: self.text_to(Member::Output, self.settings.text_read_bytes),
            output_empty: self.boolean(Member::OutputEmpty),
            finish_reason: self.name(Member::FinishReason, self.settings.max_text_bytes),
            carries_features: self.features.is_some(),
            features: self.features.take().unwrap_or_default(),
            input_tokens: self.number(Member::InputTokens, Range::NotNegative),
            output_tokens: self.number(Member::OutputTokens, Range::NotNegative),
            cached_tokens: self.number(Member::CachedTokens, Range::NotNegative),
            reasoning_tokens: self.number(Member::ReasoningTokens, Range::NotNegative),
            cost: self.cost.take().or(cost_usd.map(|amount| Cost { amount, currency: None })),
            cache_hit: self.boolean(Member::CacheHit),
            attempt: self.number(Member::Attempt, Range::NotNegative),
            flags: std::mem::take(&mut self.flags),
            groups: std::mem::take(&mut self.groups),
        }
    }

    fn outcome(&mut self) -> Result<Outcome<'a>, Reject> {
        let outcome = Outcome {
            prediction_id: self.reference(Member::PredictionId, ID_BYTES_MAX).unwrap_or_default(),
            label: self.class(Member::Label),
            value: self.number(Member::Value, Range::Any),
            observed_at: self.time(Member::ObservedAt),
            weight: self.number(Member::Weight, Range::NotNegative),
            retracted: self.boolean(Member::Retracted).unwrap_or(false),
        };
        self.need("outcome", Member::PredictionId, !outcome.prediction_id.is_empty(), "text of 1 to 256 bytes")?;
        self.need("outcome", Member::Label, outcome.label.is_some() || outcome.value.is_some(), "or \"value\", a number")?;
        Ok(outcome)
    }

    fn quality(&mut self, envelope: &Envelope<'a>) -> Result<Quality<'a>, Reject> {
        let name = self.needed_text("quality", Member::Name)?;
        let mut label = self.class(Member::Label);
        // Evaluators say pass or fail as a boolean value.
        let said = self.take(Member::Value);
        let value = if let Scalar::Bool(verdict) = said {
            label = label.or(Some(Cow::Borrowed(if verdict { "true" } else { "false" })));
            None
        } else {
            self.put(Member::Value, said);
            self.number(Member::Value, Range::Any)
        };
        self.need("quality", Member::Value, value.is_some() || label.is_some(), "a number, or \"label\", a word")?;
        let prediction_id = self.reference(Member::PredictionId, ID_BYTES_MAX);
        let is_traced = envelope.trace_id.is_some() && envelope.span_id.is_some();
        self.need(
            "quality",
            Member::PredictionId,
            prediction_id.is_some() || is_traced || envelope.model.is_some(),
            "or \"trace_id\" with \"span_id\", or \"model\"",
        )?;
        Ok(Quality {
            name,
            value,
            label,
            prediction_id,
            evaluator: self.name(Member::Evaluator, NAME_BYTES_MAX),
            evaluator_version: self.name(Member::EvaluatorVersion, NAME_BYTES_MAX),
            min: self.number(Member::Min, Range::Any),
            max: self.number(Member::Max, Range::Any),
            higher_is_better: self.boolean(Member::HigherIsBetter),
            error: self.error.take().and_then(error_word),
        })
    }

    fn feedback(&mut self) -> Result<Feedback<'a>, Reject> {
        let (_, kind_of) = self.choice("feedback", Member::KindOf, FEEDBACK_KINDS)?;
        Ok(Feedback {
            kind_of,
            value: self.thumb_or_number(kind_of),
            prediction_id: self.reference(Member::PredictionId, ID_BYTES_MAX),
            category: self.name(Member::Category, self.settings.max_text_bytes),
            text: self.text(Member::Text),
        })
    }

    /// A thumb is +1 or -1; `true` and `up` are the other ways to say it.
    fn thumb_or_number(&mut self, kind_of: FeedbackKind) -> Option<f64> {
        let said = self.take(Member::Value);
        let thumb = match &said {
            Scalar::Bool(up) => Some(*up),
            Scalar::Text(word) if word == "up" => Some(true),
            Scalar::Text(word) if word == "down" => Some(false),
            _ => None,
        };
        match thumb {
            Some(up) if kind_of == FeedbackKind::Thumb => {
                self.fault(Member::Value.name(), Fault::Coerced);
                Some(if up { 1.0 } else { -1.0 })
            }
            _ => {
                self.put(Member::Value, said);
                self.number(Member::Value, Range::Any)
            }
        }
    }

    fn deployment(&mut self) -> Result<Deployment<'a>, Reject> {
        let (target_kind, target_name) = std::mem::take(&mut self.target);
        self.need("deployment", Member::Target, target_kind.is_some() && target_name.is_some(), "an object with \"kind\" and \"name\", both text")?;
        Ok(Deployment {
            target_kind: target_kind.unwrap_or_default(),
            target_name: target_name.unwrap_or_default(),
            phase: self.needed_text("deployment", Member::Phase)?,
            previous_version: self.name(Member::PreviousVersion, NAME_BYTES_MAX),
            traffic_percent: self.number(Member::TrafficPercent, Range::Percent),
            actor: self.name(Member::Actor, self.settings.max_text_bytes),
            url: self.name(Member::Url, self.settings.max_text_bytes),
            description: self.name(Member::Description, self.settings.max_text_bytes),
        })
    }

    fn pipeline(&mut self) -> Result<Pipeline<'a>, Reject> {
        let job = self.needed_text("pipeline", Member::Job)?;
        let (_, state) = self.choice("pipeline", Member::State, PIPELINE_STATES)?;
        Ok(Pipeline {
            job,
            state,
            run_id: self.reference(Member::RunId, ID_BYTES_MAX),
            nominal_time: self.time(Member::NominalTime),
            outputs: std::mem::take(&mut self.outputs),
            failed_assertions: std::mem::take(&mut self.failed_assertions),
            error: self.error.take().and_then(error_word),
        })
    }

    fn report(&mut self) -> Result<Report<'a>, Reject> {
        let summary = self.needed_text("report", Member::Summary)?;
        let (source_of_report, ()) = self.choice("report", Member::SourceOfReport, REPORT_SOURCES)?;
        Ok(Report {
            summary,
            source_of_report: Cow::Borrowed(source_of_report),
            reporter: self.name(Member::Reporter, self.settings.max_text_bytes),
            happening_now: self.boolean(Member::HappeningNow),
            severity_guess: self.number(Member::SeverityGuess, Range::Positive),
        })
    }
}

/// The most telling part of an error where only one word of it is kept.
fn error_word(error: ErrorInfo<'_>) -> Option<Cow<'_, str>> {
    error.message.or(error.kind).or(error.code)
}
