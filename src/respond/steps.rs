//! How a step moves on: who may say what when, and what an answer from outside means.
//!
//! The rule behind all of it is asymmetric. Looking may be done as often as one likes, so a plan or a read-back that fails is
//! simply asked for again. Changing is done once per approval: an answer that was lost leaves the step `unknown`, which is an
//! honest word, and only a person moves it from there.

use serde::{Deserialize, Serialize};

use super::RATE_WINDOW_MS;
use crate::domain::incident::{Actor, Incident};
use crate::domain::response::{Approval, Errand, Plan, Receipt, Shift, Step};
use crate::domain::time::MINUTE_MS;
use crate::domain::{Role, StepKind, StepState, Time};

/// What somebody wants of a step, or what came of it outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StepCommand {
    /// Look again and say what would be done. An empty step is the one that is ready.
    Plan {
        by: String,
        step: String,
    },
    /// `plan` is the hash of the plan that the person saw.
    Approve {
        by: String,
        role: Role,
        step: String,
        plan: String,
    },
    Undo {
        by: String,
        role: Role,
        step: String,
    },
    /// A person has done it by hand, or has looked and says that it is done.
    Settle {
        by: String,
        step: String,
        why: String,
    },
    /// The answer to an errand.
    Answered {
        step: String,
        errand: Errand,
        receipt: Receipt,
    },
    // New ones at the end: acts that wait for their boundary are saved by their place in this list.
    /// What the traffic shows of a step that sends it to another version.
    Shifted {
        step: String,
        shift: Shift,
        words: String,
    },
}

/// What happened to a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stepped {
    pub step: String,
    pub to: StepState,
    pub by: Actor,
    /// One word for the timeline.
    pub what: String,
    pub words: String,
    pub plan: Option<Plan>,
    pub approval: Option<Approval>,
    /// What is to be done outside next.
    pub errand: Option<Errand>,
    /// What is looked for in the traffic from now on, or what came of it.
    pub shift: Option<Shift>,
}

impl Stepped {
    fn new(step: &Step, to: StepState, by: Actor, what: &str, words: impl Into<String>) -> Stepped {
        let (what, words) = (what.to_owned(), words.into());
        Stepped { step: step.id.clone(), to, by, what, words, plan: None, approval: None, errand: None, shift: None }
    }

    /// The other side says that it is done, and it sends traffic to another version: the traffic must say so as well.
    fn watched(mut self, incident: &Incident, step: &Step, now: Time) -> Stepped {
        if let Some(shift) = shift_of(incident, step, now).filter(|_| self.to == StepState::Done) {
            self.words = format!("{}; {}, which is looked for in the traffic", self.words, shift.words());
            self.shift = Some(shift);
        }
        self
    }

    fn then(mut self, errand: Errand) -> Stepped {
        self.errand = Some(errand);
        self
    }

    /// The step after it.
    pub fn apply(&self, step: &mut Step, now: Time) {
        step.state = self.to;
        step.words = self.words.clone();
        if let Some(plan) = &self.plan {
            step.plan = Some(plan.clone());
            step.approvals.clear();
        }
        step.approvals.extend(self.approval.clone());
        if self.shift.is_some() {
            step.shift.clone_from(&self.shift);
        }
        if self.errand == Some(Errand::Apply) {
            step.applied.push(now);
        }
    }
}

/// What follows from a command, or why not.
///
/// # Errors
/// In words for the person.
pub fn decide(incident: &Incident, command: StepCommand, now: Time) -> Result<Vec<Stepped>, String> {
    let live = incident.state.is_live();
    match command {
        StepCommand::Plan { by, step } => {
            let step = find(incident, &step)?;
            let action = step.action.as_ref().ok_or_else(|| by_hand(step))?;
            if !live {
                return Err(format!("incident {} is {}; there is nothing to plan", incident.id, incident.state));
            }
            if !step.state.may_be_planned() {
                return Err(format!("step {:?} is {}; it cannot be planned now", step.id, step.state));
            }
            Ok(vec![Stepped::new(step, StepState::Planning, Actor::Person(by), "planning", action.words()).then(Errand::Plan)])
        }
        StepCommand::Approve { by, role, step, plan } => {
            let step = find(incident, &step)?;
            if !live {
                return Err(format!("incident {} is {}; nothing is applied any more", incident.id, incident.state));
            }
            let (StepState::Planned, Some(planned)) = (step.state, &step.plan) else {
                return Err(format!("step {:?} is {}; only what is planned can be approved", step.id, step.state));
            };
            if planned.hash != plan {
                return Err(format!("the plan is {} by now, not {plan:?}; look at it and approve that one", planned.hash));
            }
            if now > planned.expires_at {
                return Err(format!("the plan was good until {}; plan again", planned.expires_at));
            }
            if role < step.needs {
                return Err(format!("step {:?} needs the role {}, and {by} is {role}", step.id, step.needs));
            }
            if step.approvals.iter().any(|a| a.by == by) {
                return Err(format!("{by} has approved it already; a second person is needed"));
            }
            let approval = Approval { by: by.clone(), at: now };
            let by = if by == super::steps::RUNBOOK { Actor::Bellwether } else { Actor::Person(by) };
            let mut stepped = if step.two_people && step.approvals.is_empty() {
                Stepped::new(step, StepState::Planned, by, "approved", format!("plan {plan}; a second person must approve as well"))
            } else if planned.is_noop {
                Stepped::new(step, StepState::Done, by, "approved", format!("plan {plan}; it is so already, nothing was changed"))
            } else {
                Stepped::new(step, StepState::Applying, by, "approved", format!("plan {plan}: {}", planned.change)).then(Errand::Apply)
            };
            stepped.approval = Some(approval);
            Ok(vec![stepped])
        }
        StepCommand::Undo { by, role, step } => {
            let step = if step.is_empty() { undoable(incident)? } else { find(incident, &step)? };
            let can = step.plan.as_ref().is_some_and(|p| p.can_undo) && !step.applied.is_empty();
            if !step.state.may_be_undone() || !can {
                return Err(format!("step {:?} is {}; there is nothing of it that can be undone", step.id, step.state));
            }
            if role < step.needs {
                return Err(format!("step {:?} needs the role {}, and {by} is {role}", step.id, step.needs));
            }
            Ok(vec![undo(step, Actor::Person(by))])
        }
        StepCommand::Settle { by, step, why } => {
            let step = find(incident, &step)?;
            use StepState::*;
            let to = match step.state {
                Idle | Planned | Unverified | Unknown | Failed | Moved => Done,
                UndoFailed | UndoUnknown => Undone,
                Planning | Applying | Verifying | Done | Undoing | VerifyingUndo | Undone => {
                    return Err(format!("step {:?} is {}", step.id, step.state));
                }
            };
            let why = if why.is_empty() { "done by hand".to_owned() } else { why };
            let is_known_now = step.state == Unknown;
            let mut stepped = Stepped::new(step, to, Actor::Person(by), if to == Done { "done" } else { "undone" }, why);
            if is_known_now {
                stepped = stepped.watched(incident, step, now);
            }
            Ok(with_what_is_due(incident, step, stepped))
        }
        StepCommand::Answered { step, errand, receipt } => {
            // An answer to what nobody waits for any more is harmless.
            let Some(step) = incident.response.step(&step) else { return Ok(vec![]) };
            let stepped = answered(step, errand, receipt).map(|s| s.watched(incident, step, now));
            Ok(stepped.map(|s| with_what_is_due(incident, step, s)).unwrap_or_default())
        }
        StepCommand::Shifted { step, shift, words } => {
            let waits = |s: &&Step| s.state == StepState::Done && s.shift.as_ref().is_some_and(|s| s.has_moved.is_none());
            let Some(step) = incident.response.step(&step).filter(waits) else { return Ok(vec![]) };
            let (to, what) = match shift.has_moved {
                Some(true) => (StepState::Done, "traffic_moved"),
                Some(false) => (StepState::Unverified, "traffic_not_moved"),
                None => return Ok(vec![]),
            };
            let mut stepped = Stepped::new(step, to, Actor::Bellwether, what, words);
            stepped.shift = Some(shift);
            Ok(vec![stepped])
        }
    }
}

/// A step of which it becomes known only after the recovery that it was applied is taken back then, and not forgotten.
fn with_what_is_due(incident: &Incident, step: &Step, stepped: Stepped) -> Vec<Stepped> {
    let is_due = stepped.to == StepState::Done && incident.is_over_by_evidence() && is_taken_back(step);
    let back = is_due.then(|| undo(step, Actor::Bellwether));
    std::iter::once(stepped).chain(back).collect()
}

fn is_taken_back(step: &Step) -> bool {
    step.undo_at_recovery && !step.applied.is_empty() && step.plan.as_ref().is_some_and(|p| p.can_undo)
}

/// By this name the runbook itself approves.
pub const RUNBOOK: &str = "runbook";

fn find<'a>(incident: &'a Incident, id: &str) -> Result<&'a Step, String> {
    let known = || incident.response.steps.iter().map(|s| s.id.as_str()).collect::<Vec<_>>().join(", ");
    match id {
        "" => incident.response.ready().ok_or_else(|| format!("incident {} has no action that is ready", incident.id)),
        id => incident.response.step(id).ok_or_else(|| format!("incident {} has no step {id:?} (known: {})", incident.id, known())),
    }
}

/// The one that was applied last.
fn undoable(incident: &Incident) -> Result<&Step, String> {
    let may = |s: &&Step| s.state.may_be_undone() && !s.applied.is_empty();
    incident
        .response
        .steps
        .iter()
        .filter(may)
        .max_by_key(|s| s.applied.last())
        .ok_or_else(|| format!("nothing of incident {} was applied", incident.id))
}

fn by_hand(step: &Step) -> String {
    format!("step {:?} is done by hand: the runbook names no action for it", step.id)
}

fn undo(step: &Step, by: Actor) -> Stepped {
    let action = step.action.as_ref().map(|a| a.target.clone()).unwrap_or_default();
    Stepped::new(step, StepState::Undoing, by, "undoing", format!("{action}: back to how it was")).then(Errand::Undo)
}

fn answered(step: &Step, errand: Errand, receipt: Receipt) -> Option<Stepped> {
    use StepState::*;
    let us = |to, what: &str, words: String| Some(Stepped::new(step, to, Actor::Bellwether, what, words));
    let outside = || Actor::Receiver(step.action.as_ref().map(|a| a.using.clone()).unwrap_or_default());
    let them = |to, what: &str, words: String| Some(Stepped::new(step, to, outside(), what, words));
    match (errand, step.state) {
        (Errand::Plan, Planning) => match receipt {
            Receipt::Planned(plan) => {
                let words = if plan.is_noop { format!("{}; it is so already", plan.change) } else { plan.change.clone() };
                let mut stepped = us(Planned, "planned", format!("plan {}: {words}", plan.hash))?;
                stepped.plan = Some(*plan);
                Some(stepped)
            }
            other => us(Failed, "not_planned", other.words().to_owned()),
        },
        (Errand::Apply, Applying) => match receipt {
            Receipt::Done(words) => Some(them(Verifying, "applied", words)?.then(Errand::Verify)),
            Receipt::Moved(words) => them(Moved, "moved", format!("{words}; nothing was changed, plan again")),
            Receipt::Refused(words) | Receipt::NotSent(words) => them(Failed, "not_applied", format!("{words}; nothing was changed")),
            Receipt::Unknown(words) | Receipt::Read { words, .. } => {
                let words = format!("{words}; it may have been applied, and is not tried again by itself");
                Some(us(Unknown, "unknown", words)?.then(Errand::Verify))
            }
            Receipt::Planned(_) => None,
        },
        (Errand::Verify, Verifying) => match receipt {
            Receipt::Read { as_wanted: true, words } => us(Done, "verified", words),
            other => us(Unverified, "unverified", other.words().to_owned()),
        },
        // Whatever is read: a person decides.
        (Errand::Verify, Unknown) => us(Unknown, "read_back", format!("{}; a person decides", read(&receipt, "as wanted"))),
        (Errand::Undo, Undoing) => match receipt {
            Receipt::Done(words) => Some(them(VerifyingUndo, "undo_applied", words)?.then(Errand::VerifyUndo)),
            Receipt::Moved(words) => them(UndoFailed, "undo_moved", format!("{words}; somebody else has changed it since, so it was left alone")),
            Receipt::Refused(words) | Receipt::NotSent(words) => them(UndoFailed, "not_undone", words),
            Receipt::Unknown(words) | Receipt::Read { words, .. } => {
                Some(us(UndoUnknown, "undo_unknown", format!("{words}; it may have been undone"))?.then(Errand::VerifyUndo))
            }
            Receipt::Planned(_) => None,
        },
        (Errand::VerifyUndo, VerifyingUndo) => match receipt {
            Receipt::Read { as_wanted: true, words } => us(Undone, "undone", words),
            other => us(UndoFailed, "undo_unverified", other.words().to_owned()),
        },
        (Errand::VerifyUndo, UndoUnknown) => us(UndoUnknown, "read_back", format!("{}; a person decides", read(&receipt, "as before"))),
        (Errand::Plan | Errand::Apply | Errand::Verify | Errand::Undo | Errand::VerifyUndo, _) => None,
    }
}

fn read(receipt: &Receipt, wanted: &str) -> String {
    match receipt {
        Receipt::Read { as_wanted: true, words } => format!("read back: it is {wanted} ({words})"),
        Receipt::Read { as_wanted: false, words } => format!("read back: it is not {wanted} ({words})"),
        other => format!("could not be read back: {}", other.words()),
    }
}

/// The approval that a runbook gives by itself, if it may: severity 1, and only what can be undone.
pub fn automatic(incident: &Incident) -> Option<StepCommand> {
    let may = |s: &&Step| s.automatic && s.state == StepState::Planned && s.approvals.is_empty() && incident.severity.level() == 1;
    let step = incident.response.steps.iter().find(may)?;
    let plan = step.plan.as_ref().filter(|p| p.can_undo && !p.is_noop)?;
    (incident.state.is_live() && incident.state.is_audible()).then(|| StepCommand::Approve {
        by: RUNBOOK.to_owned(),
        role: Role::Admin,
        step: step.id.clone(),
        plan: plan.hash.clone(),
    })
}

/// Steps that are taken back now that the incident is over.
///
/// What is still on its way then, or nobody knows, is taken back once it is known to be applied: [`decide`] sees to it.
pub fn undone_at_recovery(incident: &Incident) -> Vec<Stepped> {
    let may = |s: &&Step| s.state == StepState::Done && is_taken_back(s);
    incident.response.steps.iter().filter(may).map(|s| undo(s, Actor::Bellwether)).collect()
}

// === traffic ===

/// Predictions by which it is judged where the traffic goes.
const SHIFT_PREDICTIONS: u64 = 50;
/// So long traffic may take to move, milliseconds: routes spread, and connections stay open.
const SHIFT_MS_MAX: i64 = 5 * MINUTE_MS;
/// What a version may keep that should get none, and another must have that should get nearly all.
const SHIFT_KEPT_MAX: f64 = 0.05;
const SHIFT_HAD_MIN: f64 = 0.9;
/// Versions that are told apart.
const SHIFT_VERSIONS_MAX: usize = 16;

/// What a step that reroutes should do to the versions: the one at fault gets no traffic, the one that the step names (`set:
/// {version: ...}`) nearly all. None: it is not about versions.
fn shift_of(incident: &Incident, step: &Step, now: Time) -> Option<Shift> {
    let action = step.action.as_ref().filter(|_| step.kind == StepKind::Reroute)?;
    let at_fault = match incident.versions.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    };
    let to = action.set.get("version").filter(|v| at_fault.as_ref() != Some(v)).cloned();
    (at_fault.is_some() || to.is_some()).then(|| Shift { from: at_fault, to, since: now, ..Shift::default() })
}

/// Adds a pane's predictions by version; the verdict with its words, once there is one. `until` is the pane's end.
pub fn shifted(shift: &mut Shift, model: &str, pane: Time, until: Time, predictions: &[(&str, u64)]) -> Option<(bool, String)> {
    if pane < shift.since {
        return None;
    }
    // Without a prediction nobody could have seen it move: the time begins with the first.
    if shift.seen.is_empty() && pane.since_ms(shift.since) >= SHIFT_MS_MAX {
        shift.since = pane;
    }
    for (version, n) in predictions {
        if let Some(known) = shift.seen.get_mut(*version) {
            *known += n;
        } else if shift.seen.len() < SHIFT_VERSIONS_MAX || [&shift.from, &shift.to].iter().any(|v| v.as_deref() == Some(version)) {
            shift.seen.insert((*version).to_owned(), *n);
        } else {
            *shift.seen.entry("other".to_owned()).or_default() += n;
        }
    }
    let all: u64 = shift.seen.values().sum();
    let is_late = until.since_ms(shift.since) >= SHIFT_MS_MAX;
    if all < SHIFT_PREDICTIONS && !is_late {
        return None;
    }
    let of = |version: &str| shift.seen.get(version).copied().unwrap_or(0);
    let share = |version: &str| of(version) as f64 / all.max(1) as f64;
    let is_left = shift.from.as_deref().is_none_or(|v| share(v) <= SHIFT_KEPT_MAX);
    let has_come = shift.to.as_deref().is_none_or(|v| share(v) >= SHIFT_HAD_MIN);
    let words = || {
        let mut by: Vec<(&String, &u64)> = shift.seen.iter().filter(|(v, n)| **n > 0 && Some(*v) != shift.from.as_ref()).collect();
        by.sort_by_key(|(version, n)| (std::cmp::Reverse(**n), *version));
        let named = shift.from.iter().map(|v| format!("version {v} has {} of the last {all} predictions of {model}", of(v)));
        let others = by.into_iter().take(2).map(|(v, n)| format!("version {v} has {n}"));
        let told: Vec<String> = named.chain(others).collect();
        if all == 0 { format!("{model} has had no prediction since") } else { told.join(", ") }
    };
    match (is_left && has_come, is_late) {
        (true, _) => Some((true, words())),
        (false, true) => Some((false, format!("{}: {}, and it is not so {} min later", words(), shift.words(), SHIFT_MS_MAX / MINUTE_MS))),
        (false, false) => {
            shift.seen.clear();
            None
        }
    }
}

/// Why a target may not be touched now: somebody is at it, or it was touched too often. `all` are the incidents that are known.
pub fn forbids<'a>(all: impl Iterator<Item = &'a Incident> + Clone, incident: &Incident, command: &StepCommand, now: Time) -> Option<String> {
    let (StepCommand::Approve { step, .. } | StepCommand::Undo { step, .. }) = command else { return None };
    let step = incident.response.step(step).or_else(|| incident.response.ready().filter(|_| step.is_empty()))?;
    let action = step.action.as_ref()?;
    let same = |s: &&Step| s.action.as_ref().is_some_and(|a| a.using == action.using && a.target == action.target);
    let every = || all.clone().flat_map(|i| i.response.steps.iter().filter(same).map(move |s| (i, s)));
    let held = every().find(|(i, s)| s.state.holds_the_target() && !(i.id == incident.id && s.id == step.id));
    if let Some((other, s)) = held {
        return Some(format!("{} is held by step {:?} of incident {}, which is {}", action.target, s.id, other.id, s.state));
    }
    let recent = every().flat_map(|(_, s)| &s.applied).filter(|at| now.since_ms(**at) < RATE_WINDOW_MS).count();
    let is_undo = matches!(command, StepCommand::Undo { .. });
    (!is_undo && recent >= step.per_hour_max as usize)
        .then(|| format!("{} was changed {recent} times within an hour, and {} are allowed", action.target, step.per_hour_max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::response::fixtures;
    use crate::domain::{ClosedAs, IncidentState};

    const NOW: Time = Time(1_000_000);

    fn step(id: &str) -> Step {
        Step { per_hour_max: 2, ..fixtures::step(id) }
    }

    fn plan(hash: &str) -> Plan {
        fixtures::plan(hash, NOW)
    }

    fn incident(steps: Vec<Step>) -> Incident {
        let mut incident = crate::notify::fixtures::incident();
        incident.response.steps = steps;
        incident
    }

    /// Gives a command, and does what follows; the errand that comes of it.
    fn give(incident: &mut Incident, command: StepCommand, now: Time) -> Result<Option<Errand>, String> {
        let mut errand = None;
        for stepped in decide(incident, command, now)? {
            errand = stepped.errand;
            incident.response.steps.iter_mut().filter(|s| s.id == stepped.step).for_each(|s| stepped.apply(s, now));
        }
        Ok(errand)
    }

    fn heard(errand: Errand, receipt: Receipt) -> StepCommand {
        StepCommand::Answered { step: "s".into(), errand, receipt }
    }

    fn approve(by: &str, role: Role, hash: &str) -> StepCommand {
        StepCommand::Approve { by: by.into(), role, step: "s".into(), plan: hash.into() }
    }

    fn state(incident: &Incident) -> StepState {
        incident.response.steps[0].state
    }

    #[test]
    fn an_approval_is_for_one_plan_for_its_time_and_by_whoever_may() {
        let mut i = incident(vec![step("s")]);
        assert_eq!(give(&mut i, heard(Errand::Plan, Receipt::Planned(Box::new(plan("p1")))), NOW), Ok(None));
        for (command, now, piece) in [
            (approve("ana", Role::Responder, "p1"), NOW, "needs the role approver"),
            (approve("ana", Role::Approver, "p0"), NOW, "the plan is p1 by now"),
            (approve("ana", Role::Approver, "p1"), NOW.plus_ms(60_001), "plan again"),
            (StepCommand::Undo { by: "ana".into(), role: Role::Admin, step: "s".into() }, NOW, "nothing of it that can be undone"),
        ] {
            let refused = give(&mut i, command, now).expect_err("refused");
            assert!(refused.contains(piece), "{refused}");
        }
        assert_eq!(give(&mut i, approve("ana", Role::Admin, "p1"), NOW), Ok(Some(Errand::Apply)));
        assert!(give(&mut i, approve("ben", Role::Admin, "p1"), NOW).is_err(), "it is under way");
    }

    #[test]
    fn an_answer_that_nobody_waits_for_changes_nothing() {
        let mut i = incident(vec![step("s")]);
        give(&mut i, heard(Errand::Plan, Receipt::Planned(Box::new(plan("p1")))), NOW).unwrap();
        for late in [Errand::Plan, Errand::Apply, Errand::Verify, Errand::Undo, Errand::VerifyUndo] {
            assert_eq!(give(&mut i, heard(late, Receipt::Done("late".into())), NOW), Ok(None));
            assert_eq!(state(&i), StepState::Planned);
        }
    }

    #[test]
    fn unknown_is_left_only_by_a_person() {
        let mut i = incident(vec![step("s")]);
        give(&mut i, heard(Errand::Plan, Receipt::Planned(Box::new(plan("p1")))), NOW).unwrap();
        give(&mut i, approve("ana", Role::Approver, "p1"), NOW).unwrap();
        assert_eq!(
            give(&mut i, heard(Errand::Apply, Receipt::Unknown("cut".into())), NOW),
            Ok(Some(Errand::Verify)),
            "it is looked at, not repeated"
        );
        for as_wanted in [true, false] {
            give(&mut i, heard(Errand::Verify, Receipt::Read { as_wanted, words: "w".into() }), NOW).unwrap();
            assert_eq!(state(&i), StepState::Unknown);
        }
        let other = incident(vec![Step { id: "t".into(), state: StepState::Planned, plan: Some(plan("p2")), ..step("t") }]);
        let other = Incident { id: "inc-other".into(), ..other };
        let wants = StepCommand::Approve { by: "ana".into(), role: Role::Admin, step: "t".into(), plan: "p2".into() };
        let why = forbids([&i, &other].into_iter(), &other, &wants, NOW).expect("held");
        assert!(why.contains("is held by step \"s\"") && why.contains("unknown"), "{why}");
        assert_eq!(give(&mut i, StepCommand::Undo { by: "ana".into(), role: Role::Approver, step: String::new() }, NOW), Ok(Some(Errand::Undo)));
        give(&mut i, heard(Errand::Undo, Receipt::Done("back".into())), NOW).unwrap();
        give(&mut i, heard(Errand::VerifyUndo, Receipt::Read { as_wanted: true, words: "full".into() }), NOW).unwrap();
        assert_eq!(state(&i), StepState::Undone);
        assert_eq!(forbids([&i, &other].into_iter(), &other, &wants, NOW), None);
    }

    /// An incident that is over, by evidence or by a person's word, while its one step is in this state.
    fn over(state: StepState, by_evidence: bool) -> Incident {
        let step = Step { state, applied: vec![NOW], plan: Some(plan("p")), undo_at_recovery: true, ..step("s") };
        let mut i = incident(vec![step]);
        (i.state, i.resolved_at, i.closed_as) = (IncidentState::Resolved, Some(NOW), Some(ClosedAs::Fixed));
        i.findings.iter_mut().filter(|_| by_evidence).for_each(|f| f.recovered_at = Some(NOW));
        i
    }

    #[test]
    fn what_is_known_to_be_applied_only_after_the_recovery_is_taken_back_then() {
        let settled = || StepCommand::Settle { by: "ana".into(), step: "s".into(), why: String::new() };
        let seen = || heard(Errand::Verify, Receipt::Read { as_wanted: true, words: "safe".into() });
        let mut i = over(StepState::Applying, true);
        assert_eq!(give(&mut i, heard(Errand::Apply, Receipt::Done("ok".into())), NOW), Ok(Some(Errand::Verify)));
        assert_eq!((give(&mut i, seen(), NOW), state(&i)), (Ok(Some(Errand::Undo)), StepState::Undoing));
        // Nobody knows: it stays so, until a person has looked.
        let mut i = over(StepState::Unknown, true);
        assert_eq!((give(&mut i, seen(), NOW), state(&i)), (Ok(None), StepState::Unknown));
        assert_eq!((give(&mut i, settled(), NOW), state(&i)), (Ok(Some(Errand::Undo)), StepState::Undoing));
        // It was never applied, or a person has closed it: nothing is taken back by itself.
        let mut i = over(StepState::Applying, true);
        assert_eq!((give(&mut i, heard(Errand::Apply, Receipt::Refused("no".into())), NOW), state(&i)), (Ok(None), StepState::Failed));
        let mut i = over(StepState::Verifying, false);
        assert_eq!((give(&mut i, seen(), NOW), state(&i)), (Ok(None), StepState::Done));
        // Live again, it is wanted again.
        let mut i = Incident { state: IncidentState::Open, closed_as: None, ..over(StepState::Verifying, true) };
        assert_eq!((give(&mut i, seen(), NOW), state(&i)), (Ok(None), StepState::Done));
    }

    /// Verdicts of panes a minute long with these predictions of versions 7 and 8.
    fn verdicts(shift: &mut Shift, panes: &[(u64, u64)]) -> Vec<Option<bool>> {
        let at = |n: usize| shift.since.plus_ms(n as i64 * MINUTE_MS);
        let all: Vec<(Time, Time)> = (0..panes.len()).map(|n| (at(n), at(n + 1))).collect();
        let mut told = Vec::new();
        for ((from, until), (seven, eight)) in all.into_iter().zip(panes) {
            told.push(shifted(shift, "m", from, until, &[("7", *seven), ("8", *eight)]).map(|v| v.0));
        }
        told
    }

    #[test]
    fn a_route_is_believed_when_the_traffic_has_moved() {
        let mut i = incident(vec![Step { state: StepState::Verifying, applied: vec![NOW], plan: Some(plan("p")), ..step("s") }]);
        i.versions = vec!["8".into()];
        give(&mut i, heard(Errand::Verify, Receipt::Read { as_wanted: true, words: "weight 0".into() }), NOW).unwrap();
        assert_eq!(state(&i), StepState::Done);
        assert!(i.response.steps[0].words.contains("version 8 should get none"), "{}", i.response.steps[0].words);
        let shift = i.response.steps[0].shift.clone().expect("it is looked for");
        assert_eq!((shift.from.as_deref(), shift.to.as_deref(), shift.since), (Some("8"), None, NOW));
        // What it had before does not count; a route needs a moment, and few predictions say nothing.
        assert_eq!(shifted(&mut shift.clone(), "m", NOW.plus_ms(-1), NOW, &[("8", 900)]), None);
        assert_eq!(verdicts(&mut shift.clone(), &[(50, 50), (20, 20), (100, 4)]), [None, None, None]);
        assert_eq!(verdicts(&mut shift.clone(), &[(50, 50), (100, 4)]), [None, Some(true)]);
        assert_eq!(verdicts(&mut shift.clone(), &[(50, 50), (60, 40), (60, 40), (60, 40), (60, 40)]), [None, None, None, None, Some(false)]);
        // After a night without traffic, a few predictions are no verdict yet.
        let mut night = Shift { since: NOW.plus_ms(-8 * 60 * MINUTE_MS), ..shift.clone() };
        assert_eq!(shifted(&mut night, "m", NOW, NOW.plus_ms(MINUTE_MS), &[("8", 9)]), None);
        // To another model altogether.
        assert_eq!(verdicts(&mut shift.clone(), &[(0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]), [None, None, None, None, Some(true)]);
        // The step names the version that should have it: it is not enough that another has lost it.
        let mut named = Shift { to: Some("7".into()), ..shift.clone() };
        assert_eq!(verdicts(&mut named.clone(), &[(0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]), [None, None, None, None, Some(false)]);
        assert_eq!(verdicts(&mut named, &[(99, 1)]), [Some(true)]);

        let told =
            |has_moved| StepCommand::Shifted { step: "s".into(), shift: Shift { has_moved: Some(has_moved), ..shift.clone() }, words: "w".into() };
        let mut moved = i.clone();
        give(&mut moved, told(true), NOW).unwrap();
        assert_eq!(state(&moved), StepState::Done);
        assert_eq!(give(&mut moved, told(false), NOW), Ok(None), "it was said once");
        assert_eq!(state(&moved), StepState::Done);
        give(&mut i, told(false), NOW).unwrap();
        assert_eq!(state(&i), StepState::Unverified, "a person decides");
        // What is not about versions is read back, and that is all.
        let mut plain = incident(vec![Step { kind: StepKind::SafeDefault, state: StepState::Verifying, ..step("s") }]);
        plain.versions = vec!["8".into()];
        give(&mut plain, heard(Errand::Verify, Receipt::Read { as_wanted: true, words: "off".into() }), NOW).unwrap();
        assert_eq!(plain.response.steps[0].shift, None);
    }

    #[test]
    fn a_target_is_changed_only_so_often_within_an_hour() {
        let mut done = step("s");
        (done.state, done.applied) = (StepState::Undone, vec![NOW.plus_ms(-1_000), NOW.plus_ms(-2_000)]);
        let i = incident(vec![done, Step { state: StepState::Planned, plan: Some(plan("p")), ..step("t") }]);
        let wants = StepCommand::Approve { by: "ana".into(), role: Role::Admin, step: "t".into(), plan: "p".into() };
        assert!(forbids([&i].into_iter(), &i, &wants, NOW).is_some_and(|w| w.contains("2 times within an hour")));
        assert_eq!(forbids([&i].into_iter(), &i, &wants, NOW.plus_ms(RATE_WINDOW_MS)), None);
    }

    #[test]
    fn only_severity_one_acts_by_itself_and_only_what_can_be_undone() {
        let mut s = Step { state: StepState::Planned, plan: Some(plan("p")), automatic: true, ..step("s") };
        let mut i = incident(vec![s.clone()]);
        assert_eq!(automatic(&i), None, "severity 2");
        i.severity = crate::domain::Severity::HARM;
        assert!(automatic(&i).is_some());
        s.plan = Some(Plan { can_undo: false, ..plan("p") });
        i.response.steps = vec![s];
        assert_eq!(automatic(&i), None);
    }
}
