//! From the runbook to the steps of one incident, and from step to step: pure, so that a replay arrives at the same state and
//! touches nothing twice.
//!
//! A runbook is what a calm person wrote for a woken one. [`Settings::prepare`] looks up the row for the incident's category and
//! severity, fills names in and hands out the steps; [`steps`] says how a step moves on when somebody approves it or an answer
//! comes back. Nothing here touches the world: what is to be done outside leaves as a [`Job`](crate::domain::response::Job).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::domain::incident::IncidentKey;
use crate::domain::response::{Action, Draft, Response, Standing, Step, Timer, TimerKind};
use crate::domain::time::{HOUR_MS, MINUTE_MS};
use crate::domain::{Category, Role, Segment, Severity, StepKind, StepState, Time};

pub mod duties;
pub mod steps;

pub use duties::{Dutied, DutyCommand};
pub use steps::{StepCommand, Stepped, automatic, forbids, undone_at_recovery};

/// How long a plan holds unless the runbook says otherwise: what was read a quarter of an hour ago may be so no longer.
pub const PLAN_EXPIRES_MS: i64 = 15 * MINUTE_MS;
/// The window of [`Step::per_hour_max`].
pub const RATE_WINDOW_MS: i64 = HOUR_MS;
/// Applications to one target within an hour, unless the action says otherwise.
pub const PER_HOUR_MAX: u32 = 4;

/// What people have laid down for the day when something breaks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The first that fits: the user's before the built-in ones, those that name models before those that do not.
    pub runbooks: Vec<Runbook>,
    /// Names of receivers by group: leadership, legal ...
    pub people: BTreeMap<String, Vec<String>>,
    pub escalation: Vec<Level>,
    /// Actions of severity 1 need two approvers.
    pub two_people: bool,
    /// By name of an action.
    pub per_hour_max: BTreeMap<String, u32>,
    pub clocks: Vec<LegalClock>,
}

/// Who is told if nobody has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    pub after_ms: i64,
    /// Empty: all.
    pub severity: Vec<u8>,
    /// Names of receivers.
    pub to: Vec<String>,
}

/// A duty to report, as data: what the law says changes, so each says when it was last looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegalClock {
    pub name: String,
    pub words: String,
    pub after_ms: i64,
    pub categories: Vec<Category>,
    pub checked_on: String,
}

/// One row: what to do about one category at some severities.
#[derive(Clone, Debug, PartialEq)]
pub struct Runbook {
    /// Where it is written, for people.
    pub place: String,
    pub category: Category,
    pub severity: Vec<u8>,
    /// Empty: every model.
    pub models: Vec<String>,
    pub owner: String,
    pub fallback: String,
    pub steps: Vec<Template>,
}

/// A step before names are filled in: `{model} {environment} {version} {segment} {since} {title} {owner}`.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub id: String,
    pub kind: StepKind,
    pub say: String,
    pub action: Option<Action>,
    pub needs: Role,
    /// None: as the configuration says for its severity.
    pub two_people: Option<bool>,
    pub automatic: bool,
    pub undo_at_recovery: bool,
    pub expires_ms: Option<i64>,
    /// Only where the model's exposure is set.
    pub only_if_exposed: bool,
    pub draft: Option<String>,
    /// Of a step that does sensitivity: how many times its share of the budget the model may spend while the incident is open.
    pub raise: Option<f64>,
}

/// What a runbook is filled with.
pub struct Scene<'a> {
    pub key: &'a IncidentKey,
    pub severity: Severity,
    pub title: &'a str,
    pub since: Time,
    pub versions: &'a [String],
    pub segments: &'a [Segment],
    pub owner: Option<&'a str>,
    pub exposed: bool,
    pub pages: bool,
}

/// Names that a template may hold in braces.
pub const PLACEHOLDERS: &[&str] = &["model", "environment", "version", "segment", "since", "title", "owner", "category"];

// === impl Settings ===

impl Settings {
    /// The row for this incident.
    pub fn runbook(&self, key: &IncidentKey, severity: Severity) -> Option<&Runbook> {
        let fits = |r: &&Runbook| r.category == key.category && r.severity.contains(&severity.level());
        let named = |r: &&Runbook| r.models.contains(&key.model);
        self.runbooks.iter().filter(fits).find(named).or_else(|| self.runbooks.iter().filter(fits).find(|r| r.models.is_empty()))
    }

    /// The steps of an incident that has just been found. The first action is planned at once: a plan changes nothing.
    pub fn prepare(&self, scene: &Scene<'_>) -> Response {
        let mut out = Response { timers: self.timers(scene), ..Response::default() };
        let Some(runbook) = self.runbook(scene.key, scene.severity) else { return out };
        let fill = |text: &str| filled(text, scene, &runbook.owner);
        out.runbook = runbook.place.clone();
        out.owner = fill(&runbook.owner).unwrap_or_else(|_| format!("nobody is named: models.{}.owner says who", scene.key.model));
        out.fallback = fill(&runbook.fallback).unwrap_or_else(|_| runbook.fallback.clone());
        for template in runbook.steps.iter().filter(|t| scene.exposed || !t.only_if_exposed) {
            let (action, words) = match &template.action {
                None => (None, String::new()),
                Some(action) => match action_of(action, &fill) {
                    Ok(action) => (Some(Arc::new(action)), String::new()),
                    Err(name) => (None, format!("not prepared: no {name} is known of this incident")),
                },
            };
            let tells = match template.kind {
                StepKind::TellLeadership => self.people.get("leadership").cloned().unwrap_or_default(),
                StepKind::TellLegal => self.people.get("legal").cloned().unwrap_or_default(),
                _ => Vec::new(),
            };
            let is_first = action.is_some() && !out.steps.iter().any(|s: &Step| s.action.is_some());
            let two_people = template.two_people.unwrap_or(self.two_people && scene.severity == Severity::HARM);
            let told = !tells.is_empty() && scene.pages;
            let words = match told {
                true => format!("told: {}", tells.join(", ")),
                false => words,
            };
            out.steps.push(Step {
                id: template.id.clone(),
                kind: template.kind,
                say: fill(&template.say).unwrap_or_else(|_| template.say.clone()),
                per_hour_max: action.as_ref().and_then(|a| self.per_hour_max.get(&a.using)).copied().unwrap_or(PER_HOUR_MAX),
                action,
                needs: template.needs,
                two_people,
                automatic: template.automatic && scene.severity == Severity::HARM && !two_people,
                undo_at_recovery: template.undo_at_recovery,
                expires_ms: template.expires_ms.unwrap_or(PLAN_EXPIRES_MS),
                tells: if told { tells } else { Vec::new() },
                state: match (told, is_first) {
                    (true, _) => StepState::Done,
                    (false, true) => StepState::Planning,
                    (false, false) => StepState::Idle,
                },
                plan: None,
                approvals: Vec::new(),
                applied: Vec::new(),
                raise: template.raise,
                words,
                shift: None,
            });
            if let Some(draft) = &template.draft {
                out.drafts.push(Draft { name: template.id.clone(), text: fill(draft).unwrap_or_else(|_| draft.clone()), ..Draft::default() });
            }
        }
        out
    }

    fn timers(&self, scene: &Scene<'_>) -> Vec<Timer> {
        let fits = |l: &&Level| l.severity.is_empty() || l.severity.contains(&scene.severity.level());
        let mut out = Vec::new();
        if scene.pages {
            let levels = self.escalation.iter().filter(fits);
            out.extend(levels.map(|l| Timer {
                what: TimerKind::Escalate { to: l.to.clone() },
                after_ms: l.after_ms,
                due: None,
                standing: Standing::default(),
            }));
        }
        let legal = self.people.get("legal").cloned().unwrap_or_default();
        let clocks = self.clocks.iter().filter(|c| scene.exposed && c.categories.contains(&scene.key.category));
        out.extend(clocks.map(|c| Timer {
            what: TimerKind::Legal { name: c.name.clone(), words: c.words.clone(), checked_on: c.checked_on.clone(), to: legal.clone() },
            after_ms: c.after_ms,
            due: None,
            standing: Standing::default(),
        }));
        out
    }
}

fn action_of(action: &Action, fill: &dyn Fn(&str) -> Result<String, String>) -> Result<Action, String> {
    let set = action.set.iter().map(|(name, value)| Ok((name.clone(), fill(value)?))).collect::<Result<_, String>>()?;
    Ok(Action { using: action.using.clone(), target: fill(&action.target)?, set })
}

/// The text with its names filled in, or the name for which nothing is known.
fn filled(text: &str, scene: &Scene<'_>, owner: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            continue;
        };
        let value = match name {
            "model" => Some(scene.key.model.clone()),
            "environment" => Some(scene.key.environment.clone()),
            "version" => scene.versions.first().cloned(),
            "segment" => scene.segments.first().map(ToString::to_string),
            "since" => Some(scene.since.to_string()),
            "title" => Some(scene.title.to_owned()),
            "category" => Some(scene.key.category.as_str().replace('_', " ")),
            // The owner's own name may ask for the model's.
            "owner" if owner != text => Some(scene.owner.unwrap_or(owner).to_owned()),
            "owner" => scene.owner.map(str::to_owned),
            _ => Some(format!("{{{name}}}")),
        };
        match value {
            Some(value) => out.push_str(&value),
            None => return Err(name.to_owned()),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Steps of a worse severity go before those that are there; what has begun stays as it is, but where two people must approve now,
/// two must.
pub fn joined(before: &Response, new: &Response) -> Response {
    let begun = |s: &&Step| s.state != StepState::Idle && s.kind.acts();
    let kept: Vec<&Step> = before.steps.iter().filter(|s| begun(s) || new.step(&s.id).is_none()).collect();
    let mut steps: Vec<Step> = new.steps.iter().filter(|s| !kept.iter().any(|k| k.id == s.id)).cloned().collect();
    steps.extend(kept.into_iter().cloned());
    // Where one of the two asks for a second signature, a step of the milder one is no way around it.
    let asks = |r: &Response| r.steps.iter().any(|s| s.kind.acts() && s.two_people);
    let is_strict = asks(before) || asks(new);
    steps.iter_mut().filter(|s| s.kind.acts() && !s.automatic).for_each(|s| s.two_people |= is_strict);
    // A deadline does not move because things became worse.
    let mut clocks: Vec<Timer> = before.timers.iter().filter(|t| t.clock().is_some()).cloned().collect();
    // Those that run already began with an incident that goes under this one.
    let running: Vec<Timer> = new.timers.iter().filter(|t| t.due.is_some()).cloned().collect();
    duties::take_over(&mut clocks, &running, None);
    let is_new = |t: &&Timer| t.clock().is_none() || !clocks.iter().any(|c| c.clock() == t.clock());
    let mut timers: Vec<Timer> = new.timers.iter().filter(is_new).cloned().collect();
    timers.extend(clocks);
    // Nor is what a person has written lost.
    let touched = |d: &&Draft| d.edited.is_some() || !d.sent.is_empty();
    let papers: Vec<&Draft> = before.drafts.iter().filter(|d| touched(d) || !new.drafts.iter().any(|n| n.name == d.name)).collect();
    let mut drafts: Vec<Draft> = new.drafts.iter().filter(|d| !papers.iter().any(|p| p.name == d.name)).cloned().collect();
    drafts.extend(papers.into_iter().cloned());
    Response { steps, timers, drafts, level: 0, ..new.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(id: &str, kind: StepKind) -> Template {
        Template {
            id: id.to_owned(),
            kind,
            say: "{kind} {model} of {owner}".to_owned(),
            action: None,
            needs: Role::Approver,
            two_people: None,
            automatic: false,
            undo_at_recovery: false,
            expires_ms: None,
            only_if_exposed: false,
            draft: None,
            raise: None,
        }
    }

    fn runbook(severity: u8, models: &[&str], steps: Vec<Template>) -> Runbook {
        let models = models.iter().map(|m| (*m).to_owned()).collect();
        let place = format!("{severity} {models:?}");
        Runbook { place, category: Category::Bias, severity: vec![severity], models, owner: "{owner}".into(), fallback: "stop it".into(), steps }
    }

    fn prepared(settings: &Settings, severity: u8, exposed: bool, segments: &[Segment]) -> Response {
        let key = IncidentKey { environment: "prod".into(), model: "m".into(), category: Category::Bias };
        settings.prepare(&Scene {
            key: &key,
            severity: Severity::new(severity).expect("a severity"),
            title: "t",
            since: Time(0),
            versions: &[],
            segments,
            owner: Some("team-a"),
            exposed,
            pages: true,
        })
    }

    #[test]
    fn a_runbook_of_the_model_goes_before_one_of_all_and_names_are_filled_in() {
        let all = vec![runbook(1, &[], vec![]), runbook(1, &["m"], vec![template("a", StepKind::Reroute)]), runbook(2, &[], vec![])];
        let settings = Settings { runbooks: all, ..Settings::default() };
        let r = prepared(&settings, 1, false, &[]);
        assert_eq!((r.runbook.as_str(), r.owner.as_str(), r.steps[0].say.as_str()), ("1 [\"m\"]", "team-a", "{kind} m of team-a"));
        assert_eq!(prepared(&settings, 3, false, &[]), Response::default());
    }

    #[test]
    fn an_action_for_which_a_name_is_missing_is_not_prepared() {
        let mut t = template("a", StepKind::Reroute);
        t.action = Some(Action { using: "x".into(), target: "route-{segment}".into(), set: BTreeMap::new() });
        let settings = Settings { runbooks: vec![runbook(1, &[], vec![t])], ..Settings::default() };
        let without = prepared(&settings, 1, false, &[]);
        assert!(without.steps[0].action.is_none() && without.steps[0].words.contains("no segment"), "{without:?}");
        let with = prepared(&settings, 1, false, &[Segment { dimension: "region".into(), value: "eu".into() }]);
        assert_eq!(with.steps[0].action.as_ref().map(|a| a.target.as_str()), Some("route-region=eu"));
        assert_eq!(with.steps[0].state, StepState::Planning);
    }

    #[test]
    fn what_was_planned_for_one_signature_needs_two_once_it_is_worse() {
        let reroute = || {
            let action = Action { using: "x".into(), target: "route".into(), set: BTreeMap::new() };
            vec![Template { action: Some(action), ..template("a", StepKind::Reroute) }]
        };
        let settings = Settings { runbooks: vec![runbook(1, &[], reroute()), runbook(2, &[], reroute())], two_people: true, ..Settings::default() };
        let mut milder = prepared(&settings, 2, false, &[]);
        milder.steps[0].state = StepState::Planned;
        let worse = joined(&milder, &prepared(&settings, 1, false, &[]));
        assert!(!milder.steps[0].two_people && worse.steps[0].two_people);
        assert_eq!((worse.steps.len(), worse.steps[0].state), (1, StepState::Planned), "what has begun stays");
        // And what was worse once is not signed by one alone because it is milder now.
        assert!(joined(&worse, &milder).steps[0].two_people);
    }

    #[test]
    fn legal_is_told_where_there_is_exposure_and_leadership_at_once() {
        let mut legal = template("legal", StepKind::TellLegal);
        legal.only_if_exposed = true;
        let people = [("legal".to_owned(), vec!["law".to_owned()]), ("leadership".to_owned(), vec!["boss".to_owned()])].into();
        let steps = vec![template("leadership", StepKind::TellLeadership), legal];
        let settings = Settings { runbooks: vec![runbook(1, &[], steps)], people, ..Settings::default() };
        let told = |exposed| prepared(&settings, 1, exposed, &[]).steps.iter().flat_map(|s| s.tells.clone()).collect::<Vec<_>>();
        assert_eq!((told(false), told(true)), (vec!["boss".to_owned()], vec!["boss".to_owned(), "law".to_owned()]));
    }
}
