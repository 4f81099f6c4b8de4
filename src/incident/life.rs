//! decide, evolve, effects.

use serde::{Deserialize, Serialize};

use crate::domain::delivery::Notice;
use crate::domain::incident::{Actor, Answer, CauseGuess, Estimate, Exemplar, Finding, Incident, IncidentKey, SeveritySet, Spread, TimelineEntry};
use crate::domain::{ClosedAs, IncidentState, Onset, Segment, SeriesId, Severity, Time};

/// The same key within this time of `resolved` is the same incident again.
pub const REOPEN_WITHIN_MS: i64 = 24 * 3_600_000;

/// What somebody or something wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Findings of one pane that belong to one key, assessed by triage.
    Find(Box<Happening>),
    /// The series that spoke is back within tolerance, by evidence.
    Recover {
        series: SeriesId,
        words: String,
    },
    /// The recovery test of a series is half way.
    Recovering {
        series: SeriesId,
    },
    Acknowledge {
        by: String,
        why: String,
    },
    Mitigate {
        by: String,
        why: String,
    },
    Resolve {
        by: String,
        closed_as: ClosedAs,
        why: String,
    },
    Reopen {
        by: String,
        why: String,
    },
    Note {
        by: String,
        text: String,
    },
    /// A person says how bad it is, and why.
    SetSeverity {
        by: String,
        severity: Severity,
        why: String,
    },
    /// What still speaks was looked at again.
    Reassess(Box<Happening>),
}

/// One assessed happening: what triage says of the findings of a pane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    pub key: IncidentKey,
    pub severity: Severity,
    pub severity_reasons: Vec<Answer>,
    pub title: String,
    pub onset: Onset,
    pub findings: Vec<Finding>,
    pub versions: Vec<String>,
    pub segments: Vec<Segment>,
    pub users_affected: Option<Estimate>,
    pub cause: Option<CauseGuess>,
    pub action: String,
    pub exemplars: Vec<Exemplar>,
    /// Is this worth a page, and why (not).
    pub pages: bool,
    pub page_reason: String,
    pub spread: Option<Spread>,
}

/// What happened to an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Opened(Box<Happening>),
    /// More series speak, or the scope is better known; nobody is called again.
    Updated(Box<Happening>),
    /// Worse by a severity: calls again.
    Escalated(Box<Happening>),
    Reopened {
        happening: Option<Box<Happening>>,
        by: Actor,
        why: String,
    },
    SeriesRecovered {
        series: SeriesId,
        words: String,
    },
    RecoveryBegan {
        series: SeriesId,
    },
    Acknowledged {
        by: String,
        why: String,
    },
    Mitigated {
        by: String,
        why: String,
    },
    Resolved {
        by: Actor,
        closed_as: ClosedAs,
        why: String,
    },
    Noted {
        by: String,
        text: String,
    },
    SeveritySet {
        by: String,
        severity: Severity,
        why: String,
    },
    /// A later look says something else than the first, in words; nobody is called.
    Reassessed {
        happening: Box<Happening>,
        /// What asked for the severity is over by evidence, and what still speaks asks for less.
        is_milder: bool,
        words: String,
    },
}

impl Event {
    /// One word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Event::Opened(_) => "opened",
            Event::Updated(_) => "updated",
            Event::Escalated(_) => "escalated",
            Event::Reopened { .. } => "reopened",
            Event::SeriesRecovered { .. } => "series_recovered",
            Event::RecoveryBegan { .. } => "monitoring_recovery",
            Event::Acknowledged { .. } => "acknowledged",
            Event::Mitigated { .. } => "mitigated",
            Event::Resolved { .. } => "resolved",
            Event::Noted { .. } => "noted",
            Event::SeveritySet { .. } => "severity",
            Event::Reassessed { .. } => "reassessed",
        }
    }
}

/// What an event wants done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Tell(Notice),
    /// The series of this incident learn from how it was closed.
    Release(ClosedAs),
}

/// A command that does not fit the state, in words for the person who gave it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// # Errors
/// A [`Refusal`] when the command does not fit the state.
pub fn decide(state: Option<&Incident>, command: Command, now: Time) -> Result<Vec<Event>, Refusal> {
    let Some(incident) = state else {
        return match command {
            Command::Find(happening) => Ok(vec![Event::Opened(happening)]),
            Command::Recover { .. }
            | Command::Recovering { .. }
            | Command::Acknowledge { .. }
            | Command::Mitigate { .. }
            | Command::Resolve { .. }
            | Command::Reopen { .. }
            | Command::Note { .. }
            | Command::SetSeverity { .. }
            | Command::Reassess(_) => Err(Refusal("there is no such incident".to_owned())),
        };
    };
    let live = incident.state.is_live();
    let not_live = |verb: &str| Refusal(format!("incident {} is {} and cannot be {verb}", incident.id, incident.state));
    match command {
        Command::Find(happening) if live => {
            if incident.is_overruled_by(happening.severity) {
                Ok(vec![Event::Escalated(happening)])
            } else if happening.findings.iter().all(|f| incident.findings.iter().any(|g| g.series_id == f.series_id && g.recovered_at.is_none())) {
                Ok(vec![])
            } else {
                Ok(vec![Event::Updated(happening)])
            }
        }
        Command::Find(happening) => match incident.resolved_at {
            Some(resolved) if now.since_ms(resolved) <= REOPEN_WITHIN_MS => Ok(vec![Event::Reopened {
                why: format!("the same kind of failure is back within a day: {}", happening.title),
                happening: Some(happening),
                by: Actor::Bellwether,
            }]),
            _ => Ok(vec![Event::Opened(happening)]),
        },
        Command::Recover { series, words } => {
            if !live || !incident.findings.iter().any(|f| f.series_id == series && f.recovered_at.is_none()) {
                return Ok(vec![]);
            }
            let left = incident.findings.iter().filter(|f| f.recovered_at.is_none() && f.series_id != series).count();
            let mut events = vec![Event::SeriesRecovered { series, words }];
            if left == 0 {
                events.push(Event::Resolved {
                    by: Actor::Bellwether,
                    closed_as: ClosedAs::Fixed,
                    why: "every series that spoke is back within tolerance, by evidence".to_owned(),
                });
            }
            Ok(events)
        }
        Command::Recovering { series } => match incident.state {
            IncidentState::Open | IncidentState::Acknowledged | IncidentState::Mitigated => Ok(vec![Event::RecoveryBegan { series }]),
            IncidentState::MonitoringRecovery
            | IncidentState::Resolved
            | IncidentState::ReviewDue
            | IncidentState::Closed
            | IncidentState::Suppressed
            | IncidentState::Merged => Ok(vec![]),
        },
        Command::Acknowledge { by, why } => match incident.state {
            IncidentState::Open => Ok(vec![Event::Acknowledged { by, why }]),
            IncidentState::Acknowledged => Ok(vec![]),
            IncidentState::Mitigated
            | IncidentState::MonitoringRecovery
            | IncidentState::Resolved
            | IncidentState::ReviewDue
            | IncidentState::Closed
            | IncidentState::Suppressed
            | IncidentState::Merged => Err(not_live("acknowledged")),
        },
        Command::Mitigate { by, why } => match incident.state {
            IncidentState::Open | IncidentState::Acknowledged | IncidentState::MonitoringRecovery => Ok(vec![Event::Mitigated { by, why }]),
            IncidentState::Mitigated => Ok(vec![]),
            IncidentState::Resolved | IncidentState::ReviewDue | IncidentState::Closed | IncidentState::Suppressed | IncidentState::Merged => {
                Err(not_live("mitigated"))
            }
        },
        Command::Resolve { by, closed_as, why } if live => Ok(vec![Event::Resolved { by: Actor::Person(by), closed_as, why }]),
        Command::Resolve { .. } => Err(not_live("resolved")),
        Command::Reopen { by, why } => match incident.state {
            IncidentState::Resolved | IncidentState::ReviewDue => Ok(vec![Event::Reopened { happening: None, by: Actor::Person(by), why }]),
            IncidentState::Open
            | IncidentState::Acknowledged
            | IncidentState::Mitigated
            | IncidentState::MonitoringRecovery
            | IncidentState::Closed
            | IncidentState::Suppressed
            | IncidentState::Merged => Err(not_live("reopened")),
        },
        Command::Note { by, text } => Ok(vec![Event::Noted { by, text }]),
        Command::SetSeverity { .. } if !live => Err(not_live("given another severity")),
        Command::SetSeverity { why, .. } if why.trim().is_empty() => Err(Refusal("another severity needs a reason".to_owned())),
        Command::SetSeverity { by, severity, why } => Ok(vec![Event::SeveritySet { by, severity, why }]),
        Command::Reassess(_) if !live => Ok(vec![]),
        Command::Reassess(happening) if incident.is_overruled_by(happening.severity) => Ok(vec![Event::Escalated(happening)]),
        Command::Reassess(happening) => {
            let is_milder = may_be_milder(incident, &happening);
            let news = news(incident, &happening, is_milder);
            Ok(if news.is_empty() { vec![] } else { vec![Event::Reassessed { happening, is_milder, words: news.join("; ") }] })
        }
    }
}

/// The facts lower a severity only when a series that spoke is back by evidence, nothing was decided by a rule (what was done once
/// stays done), and no person has said how bad it is.
fn may_be_milder(incident: &Incident, now: &Happening) -> bool {
    let is_over = |f: &Finding| f.recovered_at.is_some();
    let by_rule = incident.findings.iter().any(|f| f.by_rule);
    incident.severity.is_worse_than(now.severity) && incident.severity_set.is_none() && !by_rule && incident.findings.iter().any(is_over)
}

/// The answer to the question of the trend.
const TREND: &str = "Is it getting worse?";

/// What a later look says otherwise, in words worth a line of the timeline.
fn news(incident: &Incident, now: &Happening, is_milder: bool) -> Vec<String> {
    let mut news = Vec::new();
    if is_milder {
        let why = now.severity_reasons.first().map_or("", |a| a.answer.as_str());
        news.push(format!("severity {} is now {}: what asked for more is over, and of the rest {why}", incident.severity, now.severity));
    }
    if let Some(cause) = now.cause.as_ref().filter(|c| incident.cause.as_ref().is_none_or(|old| old.best != c.best)) {
        news.push(format!("the cause is looked for in {} first: {}", cause.best, cause.facts.join("; ")));
    }
    if incident.versions.is_empty() && incident.segments.is_empty() {
        let found = now.segments.iter().map(ToString::to_string).chain(now.versions.iter().map(|v| format!("version {v}")));
        let found: Vec<String> = found.collect();
        if !found.is_empty() {
            news.push(format!("it sits in {}", found.join(", ")));
        }
    }
    let trend = |of: &[Answer]| of.iter().find(|a| a.question == TREND).map(|a| a.answer.clone());
    if let Some(grows) = trend(&now.severity_reasons).filter(|t| t.starts_with("yes") && trend(&incident.severity_reasons).as_ref() != Some(t)) {
        news.push(format!("is it getting worse? {grows}"));
    }
    news
}

/// The incident after an event. Only `Opened` may meet no incident.
pub fn evolve(state: Option<Incident>, event: &Event, now: Time) -> Option<Incident> {
    if let Event::Opened(h) = event {
        return Some(opened(h, now));
    }
    let mut incident = state?;
    incident.revision += 1;
    incident.updated_at = incident.updated_at.max(now);
    match event {
        Event::Opened(_) => {}
        Event::Updated(h) => {
            absorb(&mut incident, h);
            learn(&mut incident, h);
        }
        Event::Escalated(h) => {
            absorb(&mut incident, h);
            incident.severity = h.severity;
            incident.severity_reasons = h.severity_reasons.clone();
            incident.severity_set = None;
            learn(&mut incident, h);
            incident.title = h.title.clone();
            incident.paged |= h.pages;
            incident.page_reason = h.page_reason.clone();
        }
        Event::Reopened { happening, .. } => {
            incident.state = IncidentState::Open;
            incident.reopened += 1;
            incident.resolved_at = None;
            incident.closed_as = None;
            if let Some(h) = happening {
                incident.title = h.title.clone();
                // A person's word was about the outbreak before.
                let is_new = incident.severity_set.take().is_some();
                incident.severity = if is_new { h.severity } else { incident.severity.min(h.severity) };
                incident.severity_reasons = h.severity_reasons.clone();
                incident.paged |= h.pages;
                incident.page_reason = h.page_reason.clone();
                absorb(&mut incident, h);
            }
        }
        Event::SeriesRecovered { series, .. } => {
            for f in incident.findings.iter_mut().filter(|f| f.series_id == *series) {
                f.recovered_at.get_or_insert(now);
            }
            incident.state = IncidentState::MonitoringRecovery;
        }
        Event::RecoveryBegan { .. } => incident.state = IncidentState::MonitoringRecovery,
        Event::Acknowledged { .. } => {
            incident.state = IncidentState::Acknowledged;
            incident.acknowledged_at.get_or_insert(now);
        }
        Event::Mitigated { .. } => {
            incident.state = IncidentState::Mitigated;
            incident.mitigated_at.get_or_insert(now);
        }
        Event::Resolved { closed_as, .. } => {
            incident.state = IncidentState::Resolved;
            incident.resolved_at = Some(now);
            incident.closed_as = Some(*closed_as);
        }
        Event::Noted { .. } => {}
        Event::SeveritySet { by, severity, why } => {
            let over = incident.severity_set.as_ref().map_or(incident.severity, |set| set.over);
            let asked = format!("{severity}, {}: {why}", severity.words());
            let answer = Answer { question: DECISION.to_owned(), answer: asked, source: format!("{by}, over severity {over} by the facts") };
            incident.severity_reasons.retain(|a| a.question != DECISION);
            incident.severity_reasons.insert(0, answer);
            if severity.is_worse_than(Severity::MINOR) && severity.is_worse_than(incident.severity) && !incident.paged {
                incident.paged = true;
                incident.page_reason = format!("{by} has raised it to severity {severity}");
            }
            incident.severity = *severity;
            incident.severity_set = Some(SeveritySet { by: by.clone(), why: why.clone(), at: now, over });
        }
        Event::Reassessed { happening: h, is_milder, .. } => {
            if *is_milder {
                incident.severity = h.severity;
            }
            if incident.versions.is_empty() && incident.segments.is_empty() {
                incident.versions = h.versions.clone();
                incident.segments = h.segments.clone();
            }
            learn(&mut incident, h);
        }
    }
    Some(incident)
}

/// The question whose answer is the severity.
const DECISION: &str = "Which severity, and why?";

/// Takes over what triage says of an incident that is known already.
fn learn(incident: &mut Incident, h: &Happening) {
    if h.cause.is_some() {
        incident.cause = h.cause.clone();
    }
    if h.spread.is_some() {
        incident.spread = h.spread.clone();
    }
    if !h.action.is_empty() && incident.severity == h.severity {
        incident.action = h.action.clone();
    }
    // Why the severity stands is only told anew by what agrees with it.
    let stands = incident.severity_reasons.iter().find(|a| a.question == DECISION).cloned();
    let agrees = incident.severity == h.severity && incident.severity_set.is_none();
    if !h.severity_reasons.is_empty() {
        incident.severity_reasons = h.severity_reasons.clone();
        if let Some(old) = stands.filter(|_| !agrees) {
            incident.severity_reasons.retain(|a| a.question != DECISION);
            incident.severity_reasons.insert(0, old);
        }
    }
}

fn opened(h: &Happening, now: Time) -> Incident {
    Incident {
        id: h.key.incident_id(now),
        revision: 1,
        key: h.key.clone(),
        state: IncidentState::Open,
        severity: h.severity,
        severity_reasons: h.severity_reasons.clone(),
        title: h.title.clone(),
        onset: h.onset,
        opened_at: now,
        updated_at: now,
        acknowledged_at: None,
        mitigated_at: None,
        resolved_at: None,
        closed_as: None,
        reopened: 0,
        paged: h.pages,
        page_reason: h.page_reason.clone(),
        findings: h.findings.clone(),
        versions: h.versions.clone(),
        segments: h.segments.clone(),
        users_affected: h.users_affected,
        cause: h.cause.clone(),
        action: h.action.clone(),
        exemplars: h.exemplars.clone(),
        spread: h.spread.clone(),
        severity_set: None,
    }
}

/// Most findings that one incident lists; later ones are counted by their timeline only.
const FINDINGS_MAX: usize = 200;

/// Takes findings and scope of a later happening in.
fn absorb(incident: &mut Incident, h: &Happening) {
    for f in &h.findings {
        match incident.findings.iter().position(|g| g.series_id == f.series_id) {
            Some(at) if incident.findings[at].recovered_at.is_some() => incident.findings[at] = f.clone(),
            Some(_) => {}
            None if incident.findings.len() < FINDINGS_MAX => incident.findings.push(f.clone()),
            None => {}
        }
    }
    for v in &h.versions {
        if !incident.versions.contains(v) {
            incident.versions.push(v.clone());
        }
    }
    for s in &h.segments {
        if !incident.segments.contains(s) {
            incident.segments.push(s.clone());
        }
    }
    if h.users_affected.is_some_and(|u| incident.users_affected.is_none_or(|v| u.estimate > v.estimate)) {
        incident.users_affected = h.users_affected;
    }
    if h.onset.at < incident.onset.at {
        incident.onset = h.onset;
    }
}

/// Who hears of an event. `before` is the incident as it stood.
pub fn effects(before: Option<&Incident>, after: &Incident, event: &Event) -> Vec<Effect> {
    match event {
        Event::Opened(_) if after.paged => vec![Effect::Tell(Notice::Opened)],
        Event::Updated(_) if after.paged => vec![Effect::Tell(Notice::Updated)],
        Event::Escalated(_) if after.paged && before.is_none_or(|b| b.paged) => vec![Effect::Tell(Notice::Escalated)],
        Event::Escalated(_) if after.paged => vec![Effect::Tell(Notice::Opened)],
        Event::Opened(_) | Event::Updated(_) | Event::Escalated(_) => vec![],
        Event::Reopened { .. } => {
            if after.paged {
                vec![Effect::Tell(Notice::Reopened)]
            } else {
                vec![]
            }
        }
        Event::SeriesRecovered { .. } => vec![],
        Event::RecoveryBegan { .. } => tell(after, Notice::Recovering),
        Event::Acknowledged { .. } => tell(after, Notice::Acknowledged),
        Event::Mitigated { .. } => tell(after, Notice::Mitigated),
        Event::Resolved { closed_as, .. } => {
            let mut out = tell(after, Notice::Resolved);
            out.push(Effect::Release(*closed_as));
            out
        }
        Event::Noted { .. } => vec![],
        Event::SeveritySet { severity, .. } => match before {
            Some(b) if severity.is_worse_than(b.severity) && !b.paged => tell(after, Notice::Opened),
            Some(b) if severity.is_worse_than(b.severity) => tell(after, Notice::Escalated),
            Some(_) | None => tell(after, Notice::Updated),
        },
        // Nothing is lowered in silence.
        Event::Reassessed { is_milder: true, .. } => tell(after, Notice::Updated),
        Event::Reassessed { is_milder: false, .. } => vec![],
    }
}

fn tell(after: &Incident, notice: Notice) -> Vec<Effect> {
    if after.paged { vec![Effect::Tell(notice)] } else { vec![] }
}

/// The line that an event leaves on the timeline: who, what, why.
pub fn timeline_of(after: &Incident, event: &Event, ordinal: u32, at: Time) -> TimelineEntry {
    let us = Actor::Bellwether;
    let person = |by: &String| Actor::Person(by.clone());
    let (who, what, why) = match event {
        Event::Opened(h) => (us, "opened", format!("{}; {}", h.title, h.page_reason)),
        Event::Updated(h) => (us, "updated", h.findings.iter().map(|f| f.headline.clone()).collect::<Vec<_>>().join("; ")),
        Event::Escalated(h) => (us, "escalated", format!("now severity {}: {}", h.severity, h.title)),
        Event::Reopened { by, why, .. } => (by.clone(), "reopened", why.clone()),
        Event::SeriesRecovered { words, .. } => (us, "recovered", words.clone()),
        Event::RecoveryBegan { .. } => (us, "monitoring_recovery", "evidence for recovery has passed half of what is asked".to_owned()),
        Event::Acknowledged { by, why } => (person(by), "acknowledged", why.clone()),
        Event::Mitigated { by, why } => (person(by), "mitigated", why.clone()),
        Event::Resolved { by, closed_as, why } => (by.clone(), "resolved", format!("as {closed_as}: {why}")),
        Event::Noted { by, text } => (person(by), "note", text.clone()),
        Event::SeveritySet { by, severity, why } => (person(by), "severity", format!("now severity {severity}: {why}")),
        Event::Reassessed { words, .. } => (us, "reassessed", words.clone()),
    };
    TimelineEntry { incident_id: after.id.clone(), revision: after.revision, ordinal, at, who, what: what.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alarm::Unit;
    use crate::domain::{Category, GroupKey, SeriesKey, Signal};

    fn finding(signal: Signal) -> Finding {
        let series = SeriesKey { group: GroupKey::roll_up("prod", "m"), signal };
        Finding {
            series_id: series.id(),
            series,
            detector: "rate".into(),
            reason: "r".into(),
            headline: "h".into(),
            change: None,
            unit: Unit::Ratio,
            onset: Onset::sharp(Time(0)),
            found_at: Time(0),
            log_evidence: None,
            threshold: None,
            by_rule: false,
            recovered_at: None,
        }
    }

    fn happening(severity: Severity, signal: Signal) -> Box<Happening> {
        Box::new(Happening {
            key: IncidentKey { environment: "prod".into(), model: "m".into(), category: Category::ModelFailure },
            severity,
            severity_reasons: vec![],
            title: "t".into(),
            onset: Onset::sharp(Time(0)),
            findings: vec![finding(signal)],
            versions: vec![],
            segments: vec![],
            users_affected: None,
            cause: None,
            action: String::new(),
            exemplars: vec![],
            pages: true,
            page_reason: "p".into(),
            spread: None,
        })
    }

    /// Runs a command and returns the incident and what is told.
    fn step(state: Option<Incident>, command: Command, now: i64) -> (Option<Incident>, Vec<Effect>) {
        let events = decide(state.as_ref(), command, Time(now)).expect("fits");
        let mut told = vec![];
        let mut state = state;
        for e in &events {
            let after = evolve(state.clone(), e, Time(now));
            told.extend(effects(state.as_ref(), after.as_ref().expect("there"), e));
            state = after;
        }
        (state, told)
    }

    #[test]
    fn one_incident_from_the_first_alarm_to_recovery_by_evidence() {
        let (i, told) = step(None, Command::Find(happening(Severity::DEGRADED, Signal::ErrorRate)), 10);
        assert_eq!(told, [Effect::Tell(Notice::Opened)]);
        let (i, told) = step(i, Command::Find(happening(Severity::DEGRADED, Signal::ErrorRate)), 11);
        assert_eq!(told, [], "the same series again says nothing new");
        let (i, told) = step(i, Command::Find(happening(Severity::DEGRADED, Signal::TimeoutRate)), 12);
        assert_eq!(told, [Effect::Tell(Notice::Updated)]);
        let (i, told) = step(i, Command::Find(happening(Severity::HARM, Signal::EmptyRate)), 13);
        assert_eq!(told, [Effect::Tell(Notice::Escalated)], "worse by a severity calls again");
        let (i, _) = step(i, Command::Recover { series: finding(Signal::ErrorRate).series_id, words: String::new() }, 14);
        let (i, _) = step(i, Command::Recover { series: finding(Signal::TimeoutRate).series_id, words: String::new() }, 15);
        assert_eq!(i.as_ref().expect("there").state, IncidentState::MonitoringRecovery);
        let (i, told) = step(i, Command::Recover { series: finding(Signal::EmptyRate).series_id, words: String::new() }, 16);
        assert_eq!(told, [Effect::Tell(Notice::Resolved), Effect::Release(ClosedAs::Fixed)]);
        let id = i.as_ref().expect("there").id.clone();
        let (again, told) = step(i.clone(), Command::Find(happening(Severity::DEGRADED, Signal::ErrorRate)), 17);
        assert_eq!((told, again.expect("there").id), (vec![Effect::Tell(Notice::Reopened)], id.clone()));
        let (later, told) = step(i, Command::Find(happening(Severity::DEGRADED, Signal::ErrorRate)), 17 + REOPEN_WITHIN_MS);
        assert_eq!(told, [Effect::Tell(Notice::Opened)]);
        assert_ne!(later.expect("there").id, id, "a day later it is another incident");
    }

    fn named(by: &str, severity: Severity, why: &str) -> Command {
        Command::SetSeverity { by: by.into(), severity, why: why.into() }
    }

    #[test]
    fn a_person_sets_the_severity_and_only_worse_facts_overrule_him() {
        let (i, _) = step(None, Command::Find(happening(Severity::DEGRADED, Signal::ErrorRate)), 10);
        assert!(decide(i.as_ref(), named("ana", Severity::MINOR, " "), Time(11)).expect_err("no reason").0.contains("reason"));
        let (i, told) = step(i, named("ana", Severity::MINOR, "only the probes"), 11);
        assert_eq!(told, [Effect::Tell(Notice::Updated)]);
        let now = i.clone().expect("there");
        assert_eq!((now.severity, &*now.severity_reasons[0].answer), (Severity::MINOR, "3, minor: only the probes"));
        let (i, told) = step(i, Command::Find(happening(Severity::DEGRADED, Signal::TimeoutRate)), 12);
        assert_eq!((i.as_ref().expect("there").severity, told), (Severity::MINOR, vec![Effect::Tell(Notice::Updated)]), "he knew that");
        let (i, told) = step(i, Command::Find(happening(Severity::HARM, Signal::EmptyRate)), 13);
        assert_eq!((i.as_ref().expect("there").severity, told), (Severity::HARM, vec![Effect::Tell(Notice::Escalated)]));
        let (i, told) = step(i, named("ana", Severity::DEGRADED, "stopped by hand"), 14);
        assert_eq!((i.as_ref().expect("there").severity, told), (Severity::DEGRADED, vec![Effect::Tell(Notice::Updated)]));
        let (_, told) = step(i, named("bo", Severity::HARM, "it is not"), 15);
        assert_eq!(told, [Effect::Tell(Notice::Escalated)]);
    }

    #[test]
    fn what_was_only_listed_calls_when_a_person_raises_it() {
        let listed = Box::new(Happening { pages: false, ..*happening(Severity::MINOR, Signal::Prediction) });
        let (i, told) = step(None, Command::Find(listed), 10);
        assert_eq!(told, []);
        let (i, told) = step(i, named("ana", Severity::DEGRADED, "customers call"), 11);
        assert_eq!((i.expect("there").paged, told), (true, vec![Effect::Tell(Notice::Opened)]));
    }

    #[test]
    fn facts_lower_a_severity_only_after_evidence_and_say_so() {
        let (i, _) = step(None, Command::Find(happening(Severity::DEGRADED, Signal::ErrorRate)), 10);
        let (i, _) = step(i, Command::Find(happening(Severity::DEGRADED, Signal::Latency)), 11);
        let milder = || Command::Reassess(happening(Severity::MINOR, Signal::Latency));
        assert_eq!(step(i.clone(), milder(), 12).1, [], "everything still speaks");
        let (i, _) = step(i, Command::Recover { series: finding(Signal::ErrorRate).series_id, words: String::new() }, 13);
        let by_person = step(i.clone(), named("ana", Severity::DEGRADED, "I know"), 14).0;
        assert_eq!(step(by_person, milder(), 15).1, [], "a person has spoken");
        let by_rule = i.clone().map(|mut i| {
            i.findings[0].by_rule = true;
            i
        });
        assert_eq!(step(by_rule, milder(), 15).1, [], "what was done once stays done");
        let (i, told) = step(i, milder(), 16);
        assert_eq!((i.as_ref().expect("there").severity, told), (Severity::MINOR, vec![Effect::Tell(Notice::Updated)]));
        let (_, told) = step(i, Command::Reassess(happening(Severity::HARM, Signal::Latency)), 17);
        assert_eq!(told, [Effect::Tell(Notice::Escalated)]);
    }

    #[test]
    fn a_command_that_does_not_fit_is_refused_in_words() {
        let (i, _) = step(None, Command::Find(happening(Severity::MINOR, Signal::Cost)), 1);
        let (i, _) = step(i, Command::Resolve { by: "ana".into(), closed_as: ClosedAs::Expected, why: "sale".into() }, 2);
        let refused = decide(i.as_ref(), Command::Acknowledge { by: "ana".into(), why: String::new() }, Time(3));
        assert!(refused.expect_err("resolved").0.contains("resolved and cannot be acknowledged"));
        assert!(decide(None, Command::Note { by: "a".into(), text: "x".into() }, Time(0)).is_err());
    }
}
