//! The lines that backtest and demo print: one JSON object per happening, the same from both.

use serde_json::{Map, Value, json};

use crate::domain::alarm::Alarm;
use crate::domain::incident::Incident;
use crate::domain::{GroupKey, Segment};

fn segment(segment: Option<&Segment>) -> Value {
    segment.map_or_else(|| json!({}), |s| json!({ &*s.dimension: &*s.value }))
}

fn version(group: &GroupKey) -> Value {
    group.version.as_deref().map_or(Value::Null, Value::from)
}

/// A number as JSON can carry it, to twelve digits: the rest is noise.
fn number(value: f64) -> Value {
    let text = format!("{value:.12e}");
    text.parse::<f64>().ok().filter(|v| v.is_finite()).map_or(Value::Null, Value::from)
}

pub fn alarm(a: &Alarm) -> Value {
    let group = &a.series.group;
    let mut out = json!({
        "type": "alarm", "time": a.time, "onset": a.onset.at, "onset_from": a.onset.from, "onset_to": a.onset.to,
        "model": &*group.model, "version": version(group), "environment": &*group.environment, "segment": segment(group.segment.as_ref()),
        "signal": a.series.signal, "detector": a.detector, "decision": a.decision, "reason": a.reason,
    });
    let more = out.as_object_mut().expect("built as an object above");
    if let Some(c) = &a.change {
        more.insert("before".into(), number(c.before));
        more.insert("after".into(), number(c.after));
        more.insert("ci95".into(), Value::Array(vec![number(c.low), number(c.high)]));
        more.insert("unit".into(), a.unit.as_str().into());
    }
    insert(more, "log_evidence", a.log_evidence);
    insert(more, "threshold", a.threshold);
    out
}

fn insert(into: &mut Map<String, Value>, key: &str, value: Option<f64>) {
    if let Some(v) = value {
        into.insert(key.to_owned(), number(v));
    }
}

/// An incident as it stands; `what` is what has just happened to it.
pub fn incident(i: &Incident, what: &str) -> Value {
    let mut signals: Vec<String> = i.findings.iter().map(|f| f.series.signal.to_string()).collect();
    signals.sort();
    signals.dedup();
    let segments: Vec<Value> = i.segments.iter().map(|s| segment(Some(s))).collect();
    let cause = i.cause.as_ref().map(|c| json!({ "best": c.best, "facts": c.facts }));
    json!({
        "type": "incident", "id": i.id, "event": what, "time": i.updated_at, "onset": i.onset.at, "severity": i.severity,
        "category": i.key.category, "model": i.key.model, "environment": i.key.environment, "signals": signals,
        "scope": { "users": i.users_affected.map(|u| u.estimate.round()), "segments": segments, "versions": i.versions },
        "cause": cause, "state": i.state, "paged": i.paged, "title": i.title,
    })
}
