//! decide, evolve, effects.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::delivery::Notice;
use crate::domain::incident::{
    Actor, Answer, Branch, CauseGuess, Estimate, Exemplar, Finding, Incident, IncidentKey, Roots, SeveritySet, Spread, Suppression, TimelineEntry,
};
use crate::domain::response::{Job, Response, Timer, TimerKind};
use crate::domain::{ClosedAs, IncidentState, Onset, Segment, SeriesId, Severity, StepState, Time};
use crate::respond::{self, Dutied, DutyCommand, StepCommand, Stepped};
use crate::triage::category_of;

/// The same key within this time of `resolved` is the same incident again.
pub const REOPEN_WITHIN_MS: i64 = 24 * 3_600_000;
/// What came back so often within a day flaps: it is held open until it has been quiet for [`SETTLES_MS`], instead of calling
/// somebody at every turn.
const FLAPS: u32 = 2;
pub const SETTLES_MS: i64 = 30 * 60_000;
/// Most keys that one incident lists as having the same cause; in a storm there may be more.
pub const BRANCHES_MAX: usize = 200;

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
    /// Of a step of the runbook.
    Step(StepCommand),
    /// Of a draft or a duty to report.
    Duty(DutyCommand),
    /// Somebody with a clock has looked at it.
    Tick,
    /// A person says how bad it is, and why.
    SetSeverity {
        by: String,
        severity: Severity,
        why: String,
    },
    /// What still speaks was looked at again.
    Reassess(Box<Happening>),
    /// A happening of this key has the same cause as another incident: it is kept here, and told there.
    Under {
        happening: Box<Happening>,
        into: String,
        why: String,
    },
    /// The other side: findings of other keys are told here from now on.
    Take {
        happening: Box<Happening>,
        branches: Vec<Branch>,
        /// Keys beyond those that are listed.
        beyond: u64,
        by: Actor,
    },
    /// A person says that this incident has the same cause as the one called `into`.
    Merge {
        into: String,
        by: String,
        why: String,
    },
    /// A person says that this one, which is merged, stands for itself.
    Split {
        by: String,
        why: String,
    },
    /// What was split off takes its findings with it.
    Part {
        branch: IncidentKey,
        by: String,
        why: String,
    },
    /// The incident that told of this one is over; `recovered`: by evidence, not by a person's word.
    End {
        closed_as: ClosedAs,
        recovered: bool,
        why: String,
    },
    /// Nobody is called for this incident until then.
    Suppress {
        by: String,
        why: String,
        until: Option<Time>,
    },
    /// What held it is over: if it still lasts, it calls.
    Unsuppress {
        by: Actor,
        why: String,
    },
    /// It flapped, and has been quiet for long enough.
    Settle,
    // New ones at the end: acts that wait for their boundary are saved by their place in this list.
    /// A person says that it is worse, with what is to be done at that severity.
    Worsen {
        by: String,
        severity: Severity,
        why: String,
        response: Box<Response>,
        action: String,
    },
    /// Goes under the one called `into`, which has the same cause and is about worse.
    Yield {
        into: String,
        why: String,
    },
}

/// One assessed happening: what triage says of the findings of a pane.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    pub key: IncidentKey,
    pub severity: Severity,
    pub severity_reasons: Arc<Vec<Answer>>,
    pub title: String,
    pub onset: Onset,
    pub findings: Vec<Finding>,
    pub versions: Vec<String>,
    pub segments: Vec<Segment>,
    pub users_affected: Option<Estimate>,
    pub cause: Option<Arc<CauseGuess>>,
    pub action: String,
    /// The runbook's steps.
    pub response: Response,
    pub exemplars: Arc<Vec<Exemplar>>,
    /// Is this worth a page, and why (not).
    pub pages: bool,
    pub page_reason: String,
    pub spread: Option<Spread>,
    pub roots: Roots,
    /// A silence or a maintenance window fits: it is listed and calls nobody.
    pub suppressed: Option<Suppression>,
    /// Another incident began at the same time; why this one is not put under it.
    pub beside: Option<String>,
    /// No part is spared: what was named as the place so far is none.
    pub everywhere: bool,
    /// Keys that are told here from now on, as they have the same cause and are about less; and how many more there are.
    pub takes: Vec<Branch>,
    pub takes_beyond: u64,
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
        /// By evidence, not by a person's word.
        recovered: bool,
    },
    Noted {
        by: String,
        text: String,
    },
    Stepped(Box<Stepped>),
    /// A draft or a duty to report, as it is from now on.
    Duty(Box<Dutied>),
    /// The first look at the clock: from now on the timers run.
    Timed {
        timers: Vec<Timer>,
    },
    /// Nobody acknowledged in time: these are told as well.
    Climbed {
        level: u32,
        to: Vec<String>,
        words: String,
    },
    SeveritySet {
        by: String,
        severity: Severity,
        why: String,
        /// The runbook of a worse severity, and the action that is ready then.
        raised: Option<(Box<Response>, String)>,
    },
    /// A later look says something else than the first, in words; nobody is called.
    Reassessed {
        happening: Box<Happening>,
        /// What asked for the severity is over by evidence, and what still speaks asks for less.
        is_milder: bool,
        words: String,
    },
    /// Opens under another incident, which tells of it.
    OpenedUnder {
        happening: Box<Happening>,
        into: String,
        why: String,
    },
    /// Goes under another incident; with what was found, if it had been over.
    Merged {
        happening: Option<Box<Happening>>,
        into: String,
        by: Actor,
        why: String,
    },
    /// Tells of the findings of other keys from now on.
    Took {
        happening: Box<Happening>,
        branches: Vec<Branch>,
        beyond: u64,
        by: Actor,
    },
    /// Stands for itself again.
    Split {
        by: String,
        why: String,
    },
    /// Gives findings back that belong to another incident.
    Parted {
        branch: IncidentKey,
        by: String,
        why: String,
    },
    Suppressed {
        by: String,
        suppression: Suppression,
    },
    Unsuppressed {
        by: Actor,
        why: String,
    },
    /// Back within tolerance, but it has been that before: not called over before then.
    Settling {
        until: Time,
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
            Event::Stepped(_) => "stepped",
            Event::Duty(_) => "duty",
            Event::Timed { .. } => "timed",
            Event::Climbed { .. } => "climbed",
            Event::SeveritySet { .. } => "severity",
            Event::Reassessed { .. } => "reassessed",
            Event::OpenedUnder { .. } | Event::Merged { .. } => "merged",
            Event::Took { .. } => "joined",
            Event::Split { .. } => "split",
            Event::Parted { .. } => "parted",
            Event::Suppressed { .. } => "suppressed",
            Event::Unsuppressed { .. } => "unsuppressed",
            Event::Settling { .. } => "settling",
        }
    }
}

/// What an event wants done outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Tell(Notice),
    /// These, beside whoever the routes name.
    TellAlso(Notice, Vec<String>),
    /// An errand outside.
    Do(Box<Job>),
    /// The model is watched so many times as closely from now on.
    Raise {
        step: String,
        times: f64,
    },
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
            | Command::Step(_)
            | Command::Duty(_)
            | Command::Tick
            | Command::SetSeverity { .. }
            | Command::Worsen { .. }
            | Command::Reassess(_)
            | Command::Take { .. }
            | Command::Yield { .. }
            | Command::Merge { .. }
            | Command::Split { .. }
            | Command::Part { .. }
            | Command::End { .. }
            | Command::Suppress { .. }
            | Command::Unsuppress { .. }
            | Command::Settle => Err(Refusal("there is no such incident".to_owned())),
            Command::Under { happening, into, why } => Ok(vec![Event::OpenedUnder { happening, into, why }]),
        };
    };
    let live = incident.state.is_live();
    let not_live = |verb: &str| match (incident.state, &incident.merged_into) {
        (IncidentState::Merged, Some(into)) => Refusal(format!("incident {} is merged into {into}: act there, or split it off first", incident.id)),
        _ => Refusal(format!("incident {} is {} and cannot be {verb}", incident.id, incident.state)),
    };
    match command {
        Command::Find(happening) if live => {
            // What was only listed so far and now is worth a page calls for the first time.
            let first_call = happening.pages && happening.suppressed.is_none() && !incident.paged;
            if incident.is_overruled_by(happening.severity) || first_call {
                Ok(vec![Event::Escalated(happening)])
            } else if happening.findings.iter().all(|f| incident.findings.iter().any(|g| g.series_id == f.series_id && g.recovered_at.is_none())) {
                Ok(vec![])
            } else {
                Ok(vec![Event::Updated(happening)])
            }
        }
        Command::Find(happening) => match incident.resolved_at {
            Some(resolved) if now.since_ms(resolved) <= REOPEN_WITHIN_MS => Ok(vec![Event::Reopened {
                why: format!("the same kind of failure is back within a day: {}{}", happening.title, happening.words_of_taken()),
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
            if left == 0 && incident.reopened >= FLAPS {
                events.push(Event::Settling { until: now.plus_ms(SETTLES_MS) });
            } else if left == 0 {
                events.push(Event::Resolved {
                    by: Actor::Bellwether,
                    closed_as: ClosedAs::Fixed,
                    why: "every series that spoke is back within tolerance, by evidence".to_owned(),
                    recovered: true,
                });
                events.extend(taken_back(incident));
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
        Command::Resolve { by, closed_as, why } if live => Ok(vec![Event::Resolved { by: Actor::Person(by), closed_as, why, recovered: false }]),
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
        Command::Step(command) => {
            let steps = respond::steps::decide(incident, command, now).map_err(Refusal)?;
            Ok(steps.into_iter().map(|s| Event::Stepped(Box::new(s))).collect())
        }
        Command::Duty(command) => Ok(vec![Event::Duty(Box::new(respond::duties::decide(incident, command, now).map_err(Refusal)?))]),
        Command::Tick => Ok(ticked(incident, now)),
        Command::SetSeverity { .. } | Command::Worsen { .. } if !live => Err(not_live("given another severity")),
        Command::SetSeverity { why, .. } | Command::Worsen { why, .. } if why.trim().is_empty() => {
            Err(Refusal("another severity needs a reason".to_owned()))
        }
        Command::SetSeverity { by, severity, why } => Ok(vec![Event::SeveritySet { by, severity, why, raised: None }]),
        Command::Worsen { by, severity, why, response, action } => {
            Ok(vec![Event::SeveritySet { by, severity, why, raised: Some((response, action)) }])
        }
        Command::Reassess(_) if !live => Ok(vec![]),
        Command::Reassess(happening) if incident.is_overruled_by(happening.severity) => Ok(vec![Event::Escalated(happening)]),
        Command::Reassess(happening) => {
            let is_milder = may_be_milder(incident, &happening);
            let news = news(incident, &happening, is_milder);
            Ok(if news.is_empty() { vec![] } else { vec![Event::Reassessed { happening, is_milder, words: news.join("; ") }] })
        }
        Command::Under { happening, into, why } => match incident.resolved_at {
            _ if live => Err(not_live("put under another; a person may merge it")),
            Some(resolved) if now.since_ms(resolved) <= REOPEN_WITHIN_MS => {
                Ok(vec![Event::Merged { happening: Some(happening), into, by: Actor::Bellwether, why }])
            }
            _ => Ok(vec![Event::OpenedUnder { happening, into, why }]),
        },
        Command::Take { .. } if !live => Err(not_live("joined by another")),
        Command::Take { happening, branches, beyond, by } => {
            let first_call = happening.pages && happening.suppressed.is_none() && !incident.paged;
            let calls = incident.is_overruled_by(happening.severity) || first_call;
            let worse = calls.then(|| Event::Escalated(happening.clone()));
            Ok(std::iter::once(Event::Took { happening, branches, beyond, by }).chain(worse).collect())
        }
        Command::Yield { into, why } if live => Ok(vec![Event::Merged { happening: None, into, by: Actor::Bellwether, why }]),
        Command::Yield { .. } => Err(not_live("put under another")),
        Command::Merge { into, by, why } if live => Ok(vec![Event::Merged { happening: None, into, by: Actor::Person(by), why }]),
        Command::Merge { .. } => Err(not_live("merged")),
        Command::Split { by, why } if incident.state == IncidentState::Merged => Ok(vec![Event::Split { by, why }]),
        Command::Split { .. } => Err(Refusal(format!("incident {} is {}: only one that is merged can be split off", incident.id, incident.state))),
        Command::Part { branch, by, why } => Ok(vec![Event::Parted { branch, by, why }]),
        Command::End { closed_as, recovered, why } if incident.state == IncidentState::Merged => {
            let mut events = vec![Event::Resolved { by: Actor::Bellwether, closed_as, why, recovered }];
            // What was done for it before it went under another is undone as it would have been.
            if recovered {
                events.extend(taken_back(incident));
            }
            Ok(events)
        }
        Command::End { .. } => Ok(vec![]),
        Command::Suppress { by, why, until } if live => {
            let words = if why.is_empty() { format!("suppressed by {by}") } else { format!("suppressed by {by}: {why}") };
            Ok(vec![Event::Suppressed { by, suppression: Suppression { hold: None, words, until, calls: incident.paged } }])
        }
        Command::Suppress { .. } => Err(not_live("suppressed")),
        Command::Unsuppress { by, why } if incident.state == IncidentState::Suppressed => Ok(vec![Event::Unsuppressed { by, why }]),
        Command::Unsuppress { .. } => Ok(vec![]),
        Command::Settle if live && incident.settles_at.is_some_and(|t| t <= now) => {
            let why = format!("quiet for {} min after it had come back {} times", SETTLES_MS / 60_000, incident.reopened);
            let over = Event::Resolved { by: Actor::Bellwether, closed_as: ClosedAs::Fixed, why, recovered: true };
            Ok(std::iter::once(over).chain(taken_back(incident)).collect())
        }
        Command::Settle => Ok(vec![]),
    }
}

/// What was done for the time of the incident alone is undone with its recovery.
fn taken_back(incident: &Incident) -> impl Iterator<Item = Event> {
    respond::undone_at_recovery(incident).into_iter().map(|s| Event::Stepped(Box::new(s)))
}

/// What a look at the clock shows. Duties to report go on when the incident is over.
fn ticked(incident: &Incident, now: Time) -> Vec<Event> {
    let reminders = respond::duties::remind(incident, now).into_iter().map(|d| Event::Duty(Box::new(d)));
    reminders.chain(waited(incident, now)).collect()
}

/// What waits for people.
fn waited(incident: &Incident, now: Time) -> Vec<Event> {
    let timers = &incident.response.timers;
    if !incident.state.is_live() || !incident.state.is_audible() {
        return vec![];
    }
    if timers.iter().any(|t| t.due.is_none()) {
        let timers = timers.iter().map(|t| Timer { due: t.due.or(Some(now.plus_ms(t.after_ms))), ..t.clone() }).collect();
        return vec![Event::Timed { timers }];
    }
    if incident.state != IncidentState::Open {
        return vec![];
    }
    let due = timers.iter().filter(|t| t.due.is_some_and(|d| d <= now));
    let told = due.filter_map(|t| match &t.what {
        TimerKind::Escalate { to } => Some((t, to)),
        TimerKind::Legal { .. } => None,
    });
    let climbed = told.enumerate().map(|(i, (t, to))| {
        let level = incident.response.level + 1 + i as u32;
        let words = format!("nobody acknowledged within {} min: level {level} is told ({})", t.after_ms / 60_000, to.join(", "));
        Event::Climbed { level, to: to.clone(), words }
    });
    climbed.collect()
}

/// Would a look at the clock change anything?
pub fn is_due(incident: &Incident, now: Time) -> bool {
    !ticked(incident, now).is_empty()
}

/// The facts lower a severity only when a series that spoke is back by evidence, nothing was decided by a rule (what was done once
/// stays done), and no person has said how bad it is.
fn may_be_milder(incident: &Incident, now: &Happening) -> bool {
    let is_over = |f: &Finding| f.recovered_at.is_some();
    let by_rule = incident.findings.iter().any(|f| f.by_rule);
    incident.severity.is_worse_than(now.severity) && incident.severity_set.is_none() && !by_rule && incident.findings.iter().any(is_over)
}

/// The questions of the trend, and of who is affected.
const TREND: &str = "Is it getting worse?";
const AFFECTED: &str = "Does it affect all users or a subset?";

/// Is this said of a trend, or is it too early to say?
fn is_answer(said: &str) -> bool {
    said.starts_with("yes") || said.starts_with("no")
}

/// The newer answers; but whether it gets worse, once that is known, stays known when a series joins of which it is too early to say.
fn answered(before: &[Answer], now: &[Answer]) -> Vec<Answer> {
    let known = before.iter().find(|a| a.question == TREND && is_answer(&a.answer));
    let newer = |a: &Answer| known.filter(|_| a.question == TREND && !is_answer(&a.answer)).unwrap_or(a).clone();
    now.iter().map(newer).collect()
}

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
    if now.everywhere && !incident.segments.is_empty() {
        let named: Vec<String> = incident.segments.iter().map(ToString::to_string).collect();
        news.push(format!("it is everywhere: {} came one after another and are all there is", named.join(", ")));
    } else if incident.versions.is_empty() && incident.segments.is_empty() {
        let found = now.segments.iter().map(ToString::to_string).chain(now.versions.iter().map(|v| format!("version {v}")));
        let found: Vec<String> = found.collect();
        if !found.is_empty() {
            news.push(format!("it sits in {}", found.join(", ")));
        }
    }
    let trend = |of: &[Answer]| of.iter().find(|a| a.question == TREND).map(|a| a.answer.clone());
    // An answer, once there is one, and every other one that follows it.
    if let Some(grows) = trend(&now.severity_reasons).filter(|t| is_answer(t) && trend(&incident.severity_reasons).as_ref() != Some(t)) {
        news.push(format!("is it getting worse? {grows}"));
    }
    let models = |of: &[Answer]| -> Option<String> {
        let affected = of.iter().find(|a| a.question == AFFECTED)?;
        affected.answer.rsplit("; ").next().filter(|last| last.ends_with(" models")).map(str::to_owned)
    };
    if let Some(hit) = models(&now.severity_reasons).filter(|hit| models(&incident.severity_reasons).as_ref() != Some(hit)) {
        news.push(format!("{hit} are hit"));
    }
    news
}

/// The incident after an event. Only `Opened` and `OpenedUnder` may meet no incident.
pub fn evolve(state: Option<Incident>, event: &Event, now: Time) -> Option<Incident> {
    match event {
        Event::Opened(h) => return Some(opened(h, now)),
        Event::OpenedUnder { happening, into, .. } => {
            let opened = opened(happening, now);
            let page_reason = format!("told by incident {into}");
            return Some(Incident {
                state: IncidentState::Merged,
                paged: false,
                page_reason,
                merged_into: Some(into.clone()),
                suppressed: None,
                ..opened
            });
        }
        Event::Updated(_)
        | Event::Escalated(_)
        | Event::Reopened { .. }
        | Event::SeriesRecovered { .. }
        | Event::RecoveryBegan { .. }
        | Event::Acknowledged { .. }
        | Event::Mitigated { .. }
        | Event::Resolved { .. }
        | Event::Noted { .. }
        | Event::SeveritySet { .. }
        | Event::Reassessed { .. }
        | Event::Merged { .. }
        | Event::Took { .. }
        | Event::Split { .. }
        | Event::Parted { .. }
        | Event::Suppressed { .. }
        | Event::Unsuppressed { .. }
        | Event::Settling { .. }
        | Event::Stepped(_)
        | Event::Timed { .. }
        | Event::Duty(_)
        | Event::Climbed { .. } => {}
    }
    let mut incident = state?;
    incident.revision += 1;
    incident.updated_at = incident.updated_at.max(now);
    match event {
        Event::Opened(_) | Event::OpenedUnder { .. } => {}
        Event::Updated(h) => {
            absorb(&mut incident, h);
            learn(&mut incident, h);
        }
        Event::Escalated(h) => {
            absorb(&mut incident, h);
            take_on(&mut incident, &h.takes, h.takes_beyond);
            if h.suppressed.is_none() && incident.state == IncidentState::Suppressed {
                incident.state = IncidentState::Open;
                incident.suppressed = None;
            }
            // A call alone does not overrule a person.
            if incident.severity_set.is_none() || incident.is_overruled_by(h.severity) {
                incident.severity = incident.severity.min(h.severity);
                incident.severity_reasons = answered(&incident.severity_reasons, &h.severity_reasons).into();
                incident.severity_set = None;
            }
            learn(&mut incident, h);
            incident.title = h.title.clone();
            incident.action = h.action.clone();
            incident.response = respond::joined(&incident.response, &h.response);
            incident.paged |= h.pages;
            incident.page_reason = h.page_reason.clone();
        }
        Event::Reopened { happening, .. } => {
            incident.state = IncidentState::Open;
            incident.reopened += 1;
            incident.resolved_at = None;
            incident.closed_as = None;
            incident.merged_into = None;
            incident.suppressed = None;
            incident.settles_at = None;
            if let Some(h) = happening {
                if let Some(hold) = &h.suppressed {
                    incident.state = IncidentState::Suppressed;
                    incident.suppressed = Some(hold.clone());
                }
                incident.title = h.title.clone();
                // A person's word was about the outbreak before.
                let is_new = incident.severity_set.take().is_some();
                incident.severity = if is_new { h.severity } else { incident.severity.min(h.severity) };
                incident.severity_reasons = h.severity_reasons.clone();
                incident.paged |= h.pages;
                incident.page_reason = h.page_reason.clone();
                incident.response = respond::joined(&incident.response, &h.response);
                absorb(&mut incident, h);
                take_on(&mut incident, &h.takes, h.takes_beyond);
            }
        }
        Event::SeriesRecovered { series, .. } => {
            for f in incident.findings.iter_mut().filter(|f| f.series_id == *series) {
                f.recovered_at.get_or_insert(now);
            }
            // Who is not called now is not called because it gets better.
            if incident.state != IncidentState::Suppressed {
                incident.state = IncidentState::MonitoringRecovery;
            }
        }
        Event::RecoveryBegan { .. } => incident.state = IncidentState::MonitoringRecovery,
        Event::Settling { until } => incident.settles_at = Some(*until),
        Event::Acknowledged { .. } => {
            incident.state = IncidentState::Acknowledged;
            incident.acknowledged_at.get_or_insert(now);
            no_escalation(&mut incident);
        }
        Event::Mitigated { .. } => {
            incident.state = IncidentState::Mitigated;
            incident.mitigated_at.get_or_insert(now);
            no_escalation(&mut incident);
        }
        Event::Resolved { closed_as, recovered, .. } => {
            // Of what was merged, the series were watched by the incident that told of it.
            if *recovered {
                for f in &mut incident.findings {
                    f.recovered_at.get_or_insert(now);
                }
            }
            incident.state = IncidentState::Resolved;
            incident.resolved_at = Some(now);
            incident.closed_as = Some(*closed_as);
            incident.suppressed = None;
            incident.settles_at = None;
        }
        Event::Noted { .. } => {}
        Event::Stepped(stepped) => {
            for step in incident.response.steps.iter_mut().filter(|s| s.id == stepped.step) {
                stepped.apply(step, now);
            }
        }
        Event::Duty(duty) => duty.apply(&mut incident.response),
        Event::Timed { timers } => incident.response.timers = timers.clone(),
        Event::Climbed { level, words, .. } => {
            incident.response.level = *level;
            incident.page_reason = words.clone();
            incident.paged = true;
            let is_past = |t: &Timer| matches!(t.what, TimerKind::Escalate { .. }) && t.due.is_some_and(|d| d <= now);
            // One level an event, in their order.
            if let Some(at) = incident.response.timers.iter().position(is_past) {
                incident.response.timers.remove(at);
            }
        }
        Event::SeveritySet { by, severity, why, raised } => {
            let over = incident.severity_set.as_ref().map_or(incident.severity, |set| set.over);
            let asked = format!("{severity}, {}: {why}", severity.words());
            let answer = Answer { question: DECISION.to_owned(), answer: asked, source: format!("{by}, over severity {over} by the facts") };
            let reasons = Arc::make_mut(&mut incident.severity_reasons);
            reasons.retain(|a| a.question != DECISION);
            reasons.insert(0, answer);
            if severity.is_worse_than(Severity::MINOR) && severity.is_worse_than(incident.severity) && !incident.paged {
                incident.paged = true;
                incident.page_reason = format!("{by} has raised it to severity {severity}");
            }
            if let Some((response, action)) = raised {
                incident.response = respond::joined(&incident.response, response);
                incident.action = action.clone();
            }
            incident.severity = *severity;
            incident.severity_set = Some(SeveritySet { by: by.clone(), why: why.clone(), at: now, over });
        }
        Event::Reassessed { happening: h, is_milder, .. } => {
            if *is_milder {
                incident.severity = h.severity;
            }
            if h.everywhere && !incident.segments.is_empty() {
                incident.segments.clear();
                incident.title = h.title.clone();
            } else if incident.versions.is_empty() && incident.segments.is_empty() {
                incident.versions = h.versions.clone();
                incident.segments = h.segments.clone();
            }
            learn(&mut incident, h);
        }
        Event::Merged { happening, into, .. } => {
            if let Some(h) = happening {
                incident.reopened += 1;
                incident.resolved_at = None;
                incident.closed_as = None;
                absorb(&mut incident, h);
            }
            incident.state = IncidentState::Merged;
            incident.merged_into = Some(into.clone());
            incident.suppressed = None;
            incident.settles_at = None;
        }
        Event::Took { happening, branches, beyond, .. } => {
            absorb(&mut incident, happening);
            take_on(&mut incident, branches, *beyond);
            let from = branches.first().and_then(|b| b.id.as_deref());
            respond::duties::take_over(&mut incident.response.timers, &happening.response.timers, from);
        }
        Event::Split { .. } => {
            incident.state = IncidentState::Open;
            incident.merged_into = None;
        }
        Event::Parted { branch, .. } => {
            // What began with it goes on there.
            let id = incident.merged.iter().find(|b| b.key == *branch).and_then(|b| b.id.clone());
            incident.response.timers.retain(|t| t.clock().is_none() || id.is_none() || t.standing.begun_with != id);
            incident.merged.retain(|b| b.key != *branch);
            incident.findings.retain(|f| !belongs(f, branch));
        }
        Event::Suppressed { suppression, .. } => {
            incident.state = IncidentState::Suppressed;
            incident.suppressed = Some(suppression.clone());
        }
        Event::Unsuppressed { why, .. } => {
            incident.state = IncidentState::Open;
            if incident.suppressed.take().is_some_and(|s| s.calls) {
                incident.paged = true;
                incident.page_reason = why.clone();
            }
        }
    }
    let title = title_with(&incident);
    incident.title = title;
    Some(incident)
}

/// Tells of these keys from now on.
fn take_on(incident: &mut Incident, branches: &[Branch], beyond: u64) {
    incident.merged_beyond += beyond;
    for branch in branches {
        let has_room = incident.merged.len() < BRANCHES_MAX;
        match incident.merged.iter_mut().find(|b| b.key == branch.key) {
            Some(known) => known.id = known.id.take().or_else(|| branch.id.clone()),
            None if has_room => incident.merged.push(branch.clone()),
            None => incident.merged_beyond += 1,
        }
    }
}

/// Somebody is at it.
fn no_escalation(incident: &mut Incident) {
    incident.response.timers.retain(|t| !matches!(t.what, TimerKind::Escalate { .. }));
}

/// The question whose answer is the severity.
const DECISION: &str = "Which severity, and why?";

/// Takes over what triage says of an incident that is known already.
fn learn(incident: &mut Incident, h: &Happening) {
    // What another key brings along is assessed for that key.
    if h.key != incident.key {
        return;
    }
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
        incident.severity_reasons = answered(&incident.severity_reasons, &h.severity_reasons).into();
        if let Some(old) = stands.filter(|_| !agrees) {
            let reasons = Arc::make_mut(&mut incident.severity_reasons);
            reasons.retain(|a| a.question != DECISION);
            reasons.insert(0, old);
        }
    }
}

/// Between what an incident is about and what is told with it.
const ALSO: &str = "; also ";
/// Names of others that a title holds.
const ALSO_NAMES_MAX: usize = 3;

/// The title, and what else is told here: `...; also ranking, routing` or `...; also 4,987 more`.
fn title_with(incident: &Incident) -> String {
    let own = incident.title.split(ALSO).next().unwrap_or_default();
    let mut names: Vec<String> = Vec::new();
    for b in &incident.merged {
        let name = if b.key.model == incident.key.model { b.key.category.as_str().replace('_', " ") } else { b.key.model.clone() };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let count = names.len() as u64 + incident.merged_beyond;
    match (count, names.len()) {
        (0, _) => own.to_owned(),
        (_, n) if n <= ALSO_NAMES_MAX && incident.merged_beyond == 0 => format!("{own}{ALSO}{}", names.join(", ")),
        _ => format!("{own}{ALSO}{count} more"),
    }
}

/// Does a finding belong to this key?
pub fn belongs(finding: &Finding, key: &IncidentKey) -> bool {
    let group = &finding.series.group;
    *group.model == *key.model && *group.environment == *key.environment && category_of(&finding.series.signal) == key.category
}

// === impl Happening ===

impl Happening {
    /// Tells of a live incident as well, which has the same cause and is about less: its findings, those that are told in it, and
    /// the duties that it has begun.
    pub fn take_in(&mut self, incident: &Incident, reason: &str, now: Time) {
        for f in incident.findings.iter().filter(|f| f.recovered_at.is_none()) {
            if self.findings.len() < FINDINGS_MAX && self.findings.iter().all(|g| g.series_id != f.series_id) {
                self.findings.push(f.clone());
            }
        }
        let branch = Branch { key: incident.key.clone(), id: Some(incident.id.clone()), at: now, reason: reason.to_owned() };
        self.takes_beyond += incident.merged_beyond;
        for branch in std::iter::once(branch).chain(incident.merged.iter().filter(|b| b.key != self.key).cloned()) {
            if self.takes.len() < BRANCHES_MAX { self.takes.push(branch) } else { self.takes_beyond += 1 }
        }
        respond::duties::take_over(&mut self.response.timers, &incident.response.timers, Some(&incident.id));
        if self.exemplars.is_empty() {
            self.exemplars = incident.exemplars.clone();
        }
    }

    /// `; takes in inc-1: inputs that broke for some groups`.
    fn words_of_taken(&self) -> String {
        let named = self.takes.iter().filter_map(|b| Some((b.id.as_ref()?, &b.reason)));
        named.map(|(id, reason)| format!("; takes in {id}: {reason}")).collect()
    }
}

fn opened(h: &Happening, now: Time) -> Incident {
    let mut incident = Incident {
        id: h.key.incident_id(now),
        revision: 1,
        key: h.key.clone(),
        state: if h.suppressed.is_some() { IncidentState::Suppressed } else { IncidentState::Open },
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
        paged: h.pages && h.suppressed.is_none(),
        page_reason: h.suppressed.as_ref().map_or_else(|| h.page_reason.clone(), |s| format!("held by {}", s.words)),
        findings: h.findings.clone(),
        versions: h.versions.clone(),
        segments: h.segments.clone(),
        users_affected: h.users_affected,
        cause: h.cause.clone(),
        action: h.action.clone(),
        exemplars: h.exemplars.clone(),
        response: h.response.clone(),
        spread: h.spread.clone(),
        severity_set: None,
        roots: h.roots.clone(),
        merged_into: None,
        merged: vec![],
        merged_beyond: 0,
        told: vec![],
        suppressed: h.suppressed.clone(),
        settles_at: None,
    };
    take_on(&mut incident, &h.takes, h.takes_beyond);
    incident.title = title_with(&incident);
    incident
}

/// Most findings that one incident lists; later ones are counted by their timeline only.
const FINDINGS_MAX: usize = 200;

/// Takes findings and scope of a later happening in.
fn absorb(incident: &mut Incident, h: &Happening) {
    if incident.settles_at.take().is_some() {
        incident.state = IncidentState::Open;
    }
    if incident.roots == Roots::default() {
        incident.roots = h.roots.clone();
    }
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

/// Of an incident before an event, what decides who hears of it: a copy of the whole is as much work as the event.
#[derive(Clone, Debug)]
pub struct Stood {
    state: IncidentState,
    severity: Severity,
    paged: bool,
    has_segments: bool,
    /// Its steps, and how each stood.
    steps: Vec<(String, StepState)>,
}

impl Stood {
    pub fn of(incident: &Incident) -> Stood {
        Stood {
            state: incident.state,
            severity: incident.severity,
            paged: incident.paged,
            has_segments: !incident.segments.is_empty(),
            steps: incident.response.steps.iter().map(|s| (s.id.clone(), s.state)).collect(),
        }
    }

    fn step(&self, id: &str) -> Option<StepState> {
        self.steps.iter().find(|s| s.0 == id).map(|s| s.1)
    }
}

/// Who hears of an event. `before` is the incident as it stood.
pub fn effects(before: Option<&Stood>, after: &Incident, event: &Event) -> Vec<Effect> {
    let mut out = said(before, after, event);
    out.extend(begun(before, after, event));
    out
}

/// What the runbook asks for when an incident opens, becomes worse or comes back: people told and plans made; and the errand of a
/// step that has moved.
fn begun(before: Option<&Stood>, after: &Incident, event: &Event) -> Vec<Effect> {
    let notice = match event {
        Event::Opened(_) | Event::Split { .. } | Event::Unsuppressed { .. } => Notice::Opened,
        Event::Escalated(_) => Notice::Escalated,
        Event::Reopened { .. } => Notice::Reopened,
        Event::Stepped(stepped) => {
            let step = stepped.errand.and_then(|errand| Some((after.response.step(&stepped.step)?, errand)));
            return step.map(|(step, errand)| Effect::Do(Box::new(Job::new(after, step, errand)))).into_iter().collect();
        }
        Event::Climbed { to, .. } => return vec![Effect::TellAlso(Notice::Escalated, to.clone())],
        Event::Duty(duty) => {
            return match &duty.tells {
                None => vec![],
                Some((notice, to)) if to.is_empty() => tell(after, *notice),
                Some((notice, to)) => vec![Effect::TellAlso(*notice, to.clone())],
            };
        }
        Event::Updated(_)
        | Event::SeriesRecovered { .. }
        | Event::RecoveryBegan { .. }
        | Event::Acknowledged { .. }
        | Event::Mitigated { .. }
        | Event::Resolved { .. }
        | Event::Noted { .. }
        | Event::OpenedUnder { .. }
        | Event::Merged { .. }
        | Event::Took { .. }
        | Event::Parted { .. }
        | Event::Suppressed { .. }
        | Event::Settling { .. }
        | Event::SeveritySet { raised: None, .. }
        | Event::Reassessed { .. }
        | Event::Timed { .. } => return vec![],
        Event::SeveritySet { raised: Some(_), .. } => Notice::Escalated,
    };
    // What was told elsewhere, or to nobody, begins only now.
    let begins = matches!(event, Event::Split { .. } | Event::Unsuppressed { .. } | Event::Reopened { .. });
    let known = |id: &str| before.filter(|_| !begins).and_then(|b| b.step(id));
    let mut out = Vec::new();
    let told: Vec<String> = after.response.steps.iter().filter(|s| known(&s.id).is_none()).flat_map(|s| s.tells.clone()).collect();
    if after.paged && after.state.is_audible() && !told.is_empty() {
        out.push(Effect::TellAlso(notice, told));
    }
    let raised = after.response.steps.iter().filter(|s| known(&s.id).is_none());
    out.extend(raised.filter_map(|s| Some(Effect::Raise { step: s.id.clone(), times: s.raise? })));
    let planning = after.response.steps.iter().filter(|s| s.state == StepState::Planning && known(&s.id).is_none_or(|k| k != StepState::Planning));
    out.extend(planning.map(|s| Effect::Do(Box::new(Job::new(after, s, crate::domain::response::Errand::Plan)))));
    out
}

fn said(before: Option<&Stood>, after: &Incident, event: &Event) -> Vec<Effect> {
    match event {
        Event::Opened(_) => tell(after, Notice::Opened),
        Event::Updated(_) | Event::Took { .. } | Event::Parted { .. } => tell(after, Notice::Updated),
        Event::Escalated(_) if before.is_none_or(|b| b.paged && b.state.is_audible()) => tell(after, Notice::Escalated),
        Event::Escalated(_) => tell(after, Notice::Opened),
        Event::Reopened { .. } => tell(after, Notice::Reopened),
        Event::SeriesRecovered { .. } => vec![],
        Event::RecoveryBegan { .. } => tell(after, Notice::Recovering),
        Event::Acknowledged { .. } => tell(after, Notice::Acknowledged),
        Event::Mitigated { .. } => tell(after, Notice::Mitigated),
        Event::Resolved { closed_as, .. } => {
            // Whoever was told that it is suppressed or merged has closed it.
            let mut out = if before.is_none_or(|b| b.state.is_audible()) { tell(after, Notice::Resolved) } else { vec![] };
            // What is merged is let go by the incident that told of it.
            if before.is_none_or(|b| b.state != IncidentState::Merged) {
                out.push(Effect::Release(*closed_as));
            }
            out
        }
        Event::Noted { .. } | Event::Settling { .. } | Event::Timed { .. } | Event::Climbed { .. } | Event::Duty(_) => vec![],
        // Whoever heard that it was done hears that it was not.
        Event::Stepped(stepped) if stepped.to == StepState::Unverified && stepped.shift.is_some() => tell(after, Notice::Updated),
        Event::Stepped(stepped) => match stepped.to {
            StepState::Done | StepState::Unknown | StepState::Undone | StepState::UndoUnknown => tell(after, Notice::Updated),
            StepState::Idle
            | StepState::Planning
            | StepState::Planned
            | StepState::Applying
            | StepState::Verifying
            | StepState::Unverified
            | StepState::Failed
            | StepState::Moved
            | StepState::Undoing
            | StepState::VerifyingUndo
            | StepState::UndoFailed => vec![],
        },
        Event::Merged { .. } if before.is_some_and(|b| b.paged && b.state.is_live() && b.state.is_audible()) => vec![Effect::Tell(Notice::Merged)],
        Event::OpenedUnder { .. } | Event::Merged { .. } => vec![],
        Event::Suppressed { .. } if before.is_some_and(|b| b.paged) => vec![Effect::Tell(Notice::Suppressed)],
        Event::Suppressed { .. } => vec![],
        Event::Split { .. } => tell(after, Notice::Opened),
        Event::Unsuppressed { .. } => tell(after, Notice::Opened),
        Event::SeveritySet { severity, .. } => match before {
            Some(b) if severity.is_worse_than(b.severity) && !b.paged => tell(after, Notice::Opened),
            Some(b) if severity.is_worse_than(b.severity) => tell(after, Notice::Escalated),
            Some(_) | None => tell(after, Notice::Updated),
        },
        // Nothing is lowered in silence, and no place stays named that is none.
        Event::Reassessed { is_milder: true, .. } => tell(after, Notice::Updated),
        Event::Reassessed { happening, .. } if happening.everywhere && before.is_some_and(|b| b.has_segments) => tell(after, Notice::Updated),
        Event::Reassessed { is_milder: false, .. } => vec![],
    }
}

fn tell(after: &Incident, notice: Notice) -> Vec<Effect> {
    if after.paged && after.state.is_audible() { vec![Effect::Tell(notice)] } else { vec![] }
}

/// The line that an event leaves on the timeline: who, what, why.
pub fn timeline_of(after: &Incident, event: &Event, ordinal: u32, at: Time) -> TimelineEntry {
    let us = Actor::Bellwether;
    let person = |by: &String| Actor::Person(by.clone());
    let (who, what, why) = match event {
        Event::Opened(h) => {
            let page = h.suppressed.as_ref().map_or_else(|| h.page_reason.clone(), |s| format!("held by {}", s.words));
            let beside = h.beside.as_ref().map(|b| format!("; {b}")).unwrap_or_default();
            (us, "opened", format!("{}; {page}{beside}{}", h.title, h.words_of_taken()))
        }
        Event::Updated(h) => (us, "updated", h.findings.iter().map(|f| f.headline.clone()).collect::<Vec<_>>().join("; ")),
        Event::Escalated(h) => (us, "escalated", format!("now severity {}: {}", h.severity, h.title)),
        Event::Reopened { by, why, .. } => (by.clone(), "reopened", why.clone()),
        Event::SeriesRecovered { words, .. } => (us, "recovered", words.clone()),
        Event::RecoveryBegan { .. } => (us, "monitoring_recovery", "evidence for recovery has passed half of what is asked".to_owned()),
        Event::Acknowledged { by, why } => (person(by), "acknowledged", why.clone()),
        Event::Mitigated { by, why } => (person(by), "mitigated", why.clone()),
        Event::Resolved { by, closed_as, why, .. } => (by.clone(), "resolved", format!("as {closed_as}: {why}")),
        Event::Noted { by, text } => (person(by), "note", text.clone()),
        Event::Stepped(s) => return stepped_line(after, s, ordinal, at),
        Event::Duty(d) => {
            let (who, what, why) = (d.by.clone(), d.what.clone(), d.words.clone());
            return TimelineEntry { incident_id: after.id.clone(), revision: after.revision, ordinal, at, who, what, why };
        }
        Event::Timed { timers } => (us, "waiting", waits(timers)),
        Event::Climbed { words, .. } => (us, "escalated", words.clone()),
        Event::SeveritySet { by, severity, why, raised } => {
            let place = raised.as_ref().map_or("", |(response, _)| response.runbook.as_str());
            let prepared = if place.is_empty() { String::new() } else { format!("; what to do at severity {severity} is prepared ({place})") };
            (person(by), "severity", format!("now severity {severity}: {why}{prepared}"))
        }
        Event::Reassessed { words, .. } => (us, "reassessed", words.clone()),
        Event::OpenedUnder { into, why, happening } => (us, "merged", format!("{}; told by {into}: {why}", happening.title)),
        Event::Merged { into, by, why, .. } => (by.clone(), "merged", format!("into {into}: {why}")),
        Event::Took { happening, branches, beyond, by } => {
            let name = |b: &Branch| b.id.clone().unwrap_or_else(|| format!("{} of {}", b.key.category, b.key.model));
            let words = match (branches.as_slice(), beyond) {
                ([], n) => format!("{n} more: too many at once to be listed"),
                ([one], 0) => format!("{}: {} ({})", name(one), one.reason, happening.title),
                ([first, ..], n) => format!("{} and {} more: {}", name(first), branches.len() as u64 - 1 + n, first.reason),
            };
            (by.clone(), "joined", words)
        }
        Event::Split { by, why } => (person(by), "split", why.clone()),
        Event::Parted { branch, by, why } => (person(by), "parted", format!("{} of {} stands for itself: {why}", branch.category, branch.model)),
        Event::Suppressed { by, suppression } => {
            let until = suppression.until.map(|t| format!(" until {}", t.clock())).unwrap_or_default();
            (person(by), "suppressed", format!("{}{until}", suppression.words))
        }
        Event::Unsuppressed { by, why } => (by.clone(), "unsuppressed", why.clone()),
        Event::Settling { until } => (
            us,
            "settling",
            format!("every series is back within tolerance; it has come back {} times, so it is not over before {}", after.reopened, until.clock()),
        ),
    };
    TimelineEntry { incident_id: after.id.clone(), revision: after.revision, ordinal, at, who, what: what.to_owned(), why }
}

fn stepped_line(after: &Incident, s: &Stepped, ordinal: u32, at: Time) -> TimelineEntry {
    let (what, why) = (format!("action_{}", s.what), format!("step {}: {}", s.step, s.words));
    TimelineEntry { incident_id: after.id.clone(), revision: after.revision, ordinal, at, who: s.by.clone(), what, why }
}

fn waits(timers: &[Timer]) -> String {
    let line = |t: &Timer| {
        let due = t.due.map(|d| d.to_string()).unwrap_or_default();
        match &t.what {
            TimerKind::Escalate { to } => format!("if nobody acknowledges by {due}, {} is told", to.join(", ")),
            TimerKind::Legal { name, words, checked_on, .. } => {
                format!("{name}: {words}, by {due} if it began now; a person decides whether it applies (checked on {checked_on}; no legal advice)")
            }
        }
    };
    timers.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alarm::Unit;
    use crate::domain::response::{Standing, fixtures};
    use crate::domain::time::HOUR_MS;
    use crate::domain::{Category, ClockState, GroupKey, SeriesKey, Signal};

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
            severity_reasons: Arc::default(),
            title: "t".into(),
            onset: Onset::sharp(Time(0)),
            findings: vec![finding(signal)],
            versions: vec![],
            segments: vec![],
            users_affected: None,
            cause: None,
            action: String::new(),
            response: Response::default(),
            exemplars: Arc::default(),
            pages: true,
            page_reason: "p".into(),
            spread: None,
            roots: Roots::default(),
            suppressed: None,
            beside: None,
            everywhere: false,
            takes: vec![],
            takes_beyond: 0,
        })
    }

    /// Runs a command and returns the incident and what is told.
    fn step(state: Option<Incident>, command: Command, now: i64) -> (Option<Incident>, Vec<Effect>) {
        let events = decide(state.as_ref(), command, Time(now)).expect("fits");
        let mut told = vec![];
        let mut state = state;
        for e in &events {
            let after = evolve(state.clone(), e, Time(now));
            told.extend(effects(state.as_ref().map(Stood::of).as_ref(), after.as_ref().expect("there"), e));
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

    /// A step that tells somebody.
    fn response(place: &str, tells: &str) -> Response {
        let step = crate::domain::response::Step {
            kind: crate::domain::StepKind::TellLeadership,
            action: None,
            tells: vec![tells.into()],
            state: StepState::Done,
            ..fixtures::step(tells)
        };
        Response { runbook: place.into(), steps: vec![step], ..Response::default() }
    }

    #[test]
    fn a_worse_severity_by_a_person_brings_its_runbook_and_tells_whom_it_names() {
        let worse = || Command::Worsen {
            by: "ana".into(),
            severity: Severity::HARM,
            why: "users were hurt".into(),
            response: Box::new(response("one.yaml:3", "boss")),
            action: "Stop it.".into(),
        };
        let (i, _) = step(None, Command::Find(happening(Severity::DEGRADED, Signal::ErrorRate)), 10);
        let (after, told) = step(i.clone(), worse(), 11);
        let after = after.expect("there");
        assert_eq!((after.response.runbook.as_str(), after.action.as_str(), after.severity), ("one.yaml:3", "Stop it.", Severity::HARM));
        assert_eq!(told, [Effect::Tell(Notice::Escalated), Effect::TellAlso(Notice::Escalated, vec!["boss".into()])]);
        // Who is not called is not told either; and a second word tells nobody twice.
        let until = Command::Suppress { by: "bo".into(), why: String::new(), until: None };
        let (held, _) = step(i, until, 11);
        assert_eq!(step(held, worse(), 12).1, []);
        let (_, told) = step(Some(after), worse(), 13);
        assert_eq!(told, [Effect::Tell(Notice::Updated)]);
    }

    #[test]
    fn harm_takes_in_what_was_open_and_gives_back_what_was_done_for_it() {
        let (milder, _) = step(None, Command::Find(happening(Severity::DEGRADED, Signal::Feature("age".into()))), 10);
        let milder = milder.map(|mut i| {
            i.key.category = Category::QualityDegradation;
            i
        });
        let mut harm = happening(Severity::HARM, Signal::Fairness("age".into()));
        harm.key.category = Category::Bias;
        harm.title = "m: fairness".into();
        harm.take_in(milder.as_ref().expect("there"), "inputs that broke", Time(20));
        let events = decide(None, Command::Find(harm.clone()), Time(20)).expect("fits");
        let leader = evolve(None, &events[0], Time(20)).expect("there");
        assert_eq!(leader.title, "m: fairness; also quality degradation");
        assert_eq!((leader.findings.len(), leader.merged.len(), leader.merged[0].id.clone()), (2, 1, milder.as_ref().map(|i| i.id.clone())));
        let line = timeline_of(&leader, &events[0], 0, Time(20));
        assert!(line.why.contains(&format!("takes in {}: inputs that broke", leader.merged[0].id.as_ref().expect("an id"))), "{}", line.why);
        // What went before: its alert is closed, and its end waits for the one that tells of it.
        let (under, told) = step(milder.clone(), Command::Yield { into: leader.id.clone(), why: "w".into() }, 20);
        assert_eq!((under.as_ref().expect("there").state, told), (IncidentState::Merged, vec![Effect::Tell(Notice::Merged)]));
        assert!(decide(under.as_ref(), Command::Yield { into: leader.id.clone(), why: "w".into() }, Time(21)).is_err());
        // The same key within a day takes it in as well.
        let (over, _) = step(Some(leader), Command::Resolve { by: "ana".into(), closed_as: ClosedAs::Fixed, why: String::new() }, 30);
        let over = over.map(|mut i| {
            i.merged.clear();
            i
        });
        let (again, _) = step(over, Command::Find(harm), 40);
        let again = again.expect("there");
        assert_eq!((again.reopened, again.merged.len()), (1, 1));
        // What was applied for it is undone when all of it is over by evidence, and not by a person's word alone.
        let mut done = response("r", "x");
        done.steps[0].undo_at_recovery = true;
        done.steps[0].applied = vec![Time(12)];
        done.steps[0].plan = Some(fixtures::plan("p", Time(11)));
        let under = under.map(|i| Incident { response: done, ..i });
        let end = |recovered| Command::End { closed_as: ClosedAs::Fixed, recovered, why: String::new() };
        let undone = |told: Vec<Effect>| told.iter().filter(|e| matches!(e, Effect::Do(_))).count();
        assert_eq!((undone(step(under.clone(), end(true), 50).1), undone(step(under, end(false), 50).1)), (1, 0));
    }

    fn duty(name: &str, due: Option<i64>, to: &str) -> Timer {
        let what = TimerKind::Legal { name: name.into(), words: "w".into(), checked_on: "2026-11-01".into(), to: vec![to.into()] };
        Timer { what, after_ms: 72 * HOUR_MS, due: due.map(Time), standing: Standing::default() }
    }

    /// Name, due time, state and who is told of every clock.
    fn duties_of(incident: &Incident) -> Vec<(String, Option<i64>, ClockState, Vec<String>)> {
        let mut all: Vec<_> = (incident.response.timers.iter())
            .map(|t| (t.clock().unwrap_or_default().to_owned(), t.due.map(|d| d.0), t.standing.state, t.tells()))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_duty_that_runs_in_two_incidents_is_counted_once_and_keeps_its_earlier_deadline() {
        const LATE: Time = Time(1_000 * HOUR_MS);
        let mut found = happening(Severity::DEGRADED, Signal::ErrorRate);
        found.response.timers = vec![duty("gdpr", Some(100), "old"), duty("dora", Some(50), "old")];
        let started = &mut found.response.timers[0].standing;
        started.state = ClockState::Started;
        let (milder, _) = step(None, Command::Find(found), 10);
        let milder = milder.expect("there");
        let mut harm = happening(Severity::HARM, Signal::Fairness("age".into()));
        harm.key.category = Category::Bias;
        // The same duty, written a little differently since: reminded is whoever is named now.
        harm.response.timers = vec![duty("gdpr", None, "law"), duty("nis2", None, "law")];
        harm.take_in(&milder, "r", Time(20));
        let (leader, _) = step(None, Command::Find(harm.clone()), 20);
        let leader = leader.expect("there");
        let law = || vec!["law".to_owned()];
        let (started, suggested) = (ClockState::Started, ClockState::Suggested);
        let all = [
            ("dora".to_owned(), Some(50), suggested, vec!["old".to_owned()]),
            ("gdpr".to_owned(), Some(100), started, law()),
            ("nis2".to_owned(), None, suggested, law()),
        ];
        assert_eq!(duties_of(&leader), all);
        let (under, _) = step(Some(milder.clone()), Command::Yield { into: leader.id.clone(), why: "w".into() }, 20);
        let under = under.expect("there");
        let spoken = |i: &Incident| respond::duties::remind(i, LATE).len();
        assert_eq!((spoken(&milder), spoken(&under), spoken(&leader)), (2, 0, 2), "by one of the two");
        let (over, _) = step(Some(under.clone()), Command::End { closed_as: ClosedAs::Fixed, recovered: true, why: String::new() }, 30);
        assert_eq!(spoken(&over.expect("there")), 0, "nor when both are over");
        let met = Command::Duty(DutyCommand::Clock { by: "ana".into(), clock: "gdpr".into(), to: ClockState::Met, why: "w".into(), from: None });
        assert!(decide(Some(&under), met.clone(), Time(31)).expect_err("told elsewhere").0.contains("its clocks are counted there"));

        // The same key once more within a day: what was met for the outbreak before is not met for the one that runs.
        let mut before = happening(Severity::HARM, Signal::Fairness("age".into()));
        before.key.category = Category::Bias;
        before.response.timers = vec![duty("gdpr", Some(70), "law")];
        let (before, _) = step(None, Command::Find(before), 5);
        let (before, _) = step(before, met, 6);
        let (before, _) = step(before, Command::Resolve { by: "ana".into(), closed_as: ClosedAs::Fixed, why: String::new() }, 7);
        let (again, _) = step(before, Command::Find(harm), 20);
        assert_eq!(duties_of(&again.expect("there"))[1], all[1]);

        // Merged by a person, the clocks go along; split off, those that began with it go back.
        let branch = Branch { key: milder.key.clone(), id: Some(milder.id.clone()), at: Time(20), reason: "r".into() };
        let mut other = happening(Severity::DEGRADED, Signal::Latency);
        other.key = milder.key.clone();
        other.response.timers = milder.response.timers.clone();
        let plain = Incident { response: Response { timers: vec![duty("gdpr", Some(60), "law")], ..Response::default() }, merged: vec![], ..leader };
        let take = Command::Take { happening: other, branches: vec![branch], beyond: 0, by: Actor::Bellwether };
        let (joined, _) = step(Some(plain), take, 21);
        let joined = joined.expect("there");
        assert_eq!(duties_of(&joined), [all[0].clone(), ("gdpr".to_owned(), Some(60), started, law())]);
        let (parted, _) = step(Some(joined), Command::Part { branch: milder.key.clone(), by: "ana".into(), why: String::new() }, 22);
        assert_eq!(duties_of(&parted.expect("there")).len(), 1);
    }

    #[test]
    fn places_that_are_all_there_is_are_no_place() {
        let segment = |v: &str| Segment { dimension: "region".into(), value: v.into() };
        let at = |values: &[&str]| {
            Box::new(Happening { segments: values.iter().map(|v| segment(v)).collect(), ..*happening(Severity::DEGRADED, Signal::Latency) })
        };
        let (i, _) = step(None, Command::Find(at(&["eu"])), 10);
        let (i, _) = step(i, Command::Find(Box::new(Happening { findings: vec![finding(Signal::ErrorRate)], ..*at(&["us"]) })), 11);
        assert_eq!(i.as_ref().expect("there").segments.len(), 2);
        let all = Box::new(Happening { everywhere: true, title: "everywhere".into(), ..*at(&[]) });
        let (i, told) = step(i, Command::Reassess(all.clone()), 12);
        let incident = i.as_ref().expect("there");
        assert_eq!((incident.segments.len(), incident.title.as_str(), told), (0, "everywhere", vec![Effect::Tell(Notice::Updated)]));
        assert_eq!(step(i, Command::Reassess(all), 13).1, [], "said once");
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
