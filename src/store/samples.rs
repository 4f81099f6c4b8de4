//! Made-up incidents and messages for the tests of this room.

use crate::domain::alarm::{Alarm, Change, Onset, Unit};
use crate::domain::delivery::{Delivery, Message, Notice};
use crate::domain::incident::{Actor, Incident, IncidentKey, TimelineEntry};
use crate::domain::{Category, Decision, GroupKey, IncidentState, SeriesKey, Severity, Signal, Time};

pub(super) fn incident(model: &str, opened: i64, revision: u64, state: IncidentState) -> Incident {
    let key = IncidentKey { environment: "prod".to_owned(), model: model.to_owned(), category: Category::ModelFailure };
    Incident {
        id: key.incident_id(Time(opened)),
        revision,
        key,
        state,
        severity: Severity::DEGRADED,
        severity_reasons: Default::default(),
        title: format!("{model} fails"),
        onset: Onset::sharp(Time(opened)),
        opened_at: Time(opened),
        updated_at: Time(opened + revision as i64),
        acknowledged_at: None,
        mitigated_at: None,
        resolved_at: (state == IncidentState::Resolved).then_some(Time(opened + 1_000)),
        closed_as: None,
        reopened: 0,
        paged: true,
        page_reason: "degraded".to_owned(),
        findings: Vec::new(),
        versions: Vec::new(),
        segments: Vec::new(),
        users_affected: None,
        cause: None,
        action: "roll back".to_owned(),
        roots: Default::default(),
        merged_into: None,
        merged: vec![],
        merged_beyond: 0,
        told: vec![],
        suppressed: None,
        settles_at: None,
        exemplars: Default::default(),
        response: crate::domain::response::Response::default(),
        spread: None,
        severity_set: None,
    }
}

pub(super) fn entry(i: &Incident, ordinal: u32, what: &str) -> TimelineEntry {
    TimelineEntry {
        incident_id: i.id.clone(),
        revision: i.revision,
        ordinal,
        at: i.updated_at,
        who: Actor::Bellwether,
        what: what.to_owned(),
        why: "evidence".to_owned(),
    }
}

pub(super) fn delivery(i: &Incident, notice: Notice, receiver: &str) -> Delivery {
    Delivery::new(receiver, Message { notice, at: i.updated_at, incident: i.clone() })
}

pub(super) fn alarm(model: &str, at: i64) -> Alarm {
    Alarm {
        series: SeriesKey { group: GroupKey::roll_up("prod", model), signal: Signal::ErrorRate },
        time: Time(at),
        onset: Onset::sharp(Time(at - 5)),
        detector: "rate".to_owned(),
        decision: Decision::Raised,
        reason: "evidence is enough".to_owned(),
        change: Some(Change { before: 0.004, after: 0.031, low: 0.02, high: 0.04 }),
        unit: Unit::Ratio,
        log_evidence: Some(12.5),
        threshold: Some(11.0),
        category: Category::ModelFailure,
        severity: Severity::DEGRADED,
        by_rule: false,
        named: None,
    }
}
