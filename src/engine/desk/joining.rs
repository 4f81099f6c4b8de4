//! Which incident a finding goes to: its own, one that has the same cause, or a new one; and what people join and part.

use std::collections::BTreeMap;

use super::Desk;
use crate::domain::incident::{Actor, Branch, Incident, IncidentKey};
use crate::domain::response::{Response, Step, Timer};
use crate::domain::{IncidentState, StepState, Time};
use crate::engine::Outcome;
use crate::incident::{BRANCHES_MAX, Command, Happening, Refusal, Verdict, belongs, correlate};
use crate::respond;

impl Desk {
    /// What was found goes where it belongs: to the live incident of its key, under one that has the same cause, or it opens.
    pub(super) fn put(&mut self, mut happening: Happening, now: Time, out: &mut Outcome) {
        let key = happening.key.clone();
        let own = self.state.incidents.get(&key);
        if let Some(own) = own.filter(|i| i.state.is_live()) {
            let was_somewhere = happening.everywhere && !own.segments.is_empty();
            let _ = self.command(&key, Command::Find(Box::new(happening)), now, out);
            if was_somewhere {
                self.look(&key, now, out);
            }
            return;
        }
        // It is told elsewhere already.
        let elsewhere = own.and_then(|i| i.merged_into.as_ref().filter(|_| i.state == IncidentState::Merged));
        let told_by = self.state.incidents.values().filter(|i| i.state.is_live());
        let told_by = told_by.clone().find(|i| elsewhere.is_some_and(|id| *id == i.id) || i.merged.iter().any(|b| b.key == key));
        if let Some(parent) = told_by.map(|i| i.key.clone()) {
            let _ = self.command(&parent, Command::Find(Box::new(happening)), now, out);
            return;
        }
        let is_storm = self.state.storm.is_on(now);
        let joins = match correlate(&happening, self.state.incidents.values()) {
            Verdict::Leads(under) if happening.suppressed.is_none() && !is_storm => {
                self.lead(happening, &under, now, out);
                return;
            }
            // In a storm nothing is moved.
            Verdict::Leads(under) if happening.suppressed.is_none() => under.into_iter().next(),
            Verdict::Joins(parent, reason) => Some((parent, reason)),
            verdict @ (Verdict::Leads(_) | Verdict::Alone(_)) => {
                happening.beside = match verdict {
                    Verdict::Alone(beside) => beside,
                    Verdict::Leads(_) | Verdict::Joins(..) => Some("nobody is called for it, so it takes nothing in that calls".to_owned()),
                };
                self.state
                    .storm
                    .shelter(now)
                    .filter(|k| self.state.incidents.get(k).is_some_and(|i| i.state.is_live()))
                    .map(|k| (k.clone(), "too many incidents opened within a minute to be told one by one".to_owned()))
            }
        };
        let Some((parent, reason)) = joins else {
            self.state.storm.opened(&key, now);
            let _ = self.command(&key, Command::Find(Box::new(happening)), now, out);
            return;
        };
        let Some(into) = self.state.incidents.get(&parent).map(|i| i.id.clone()) else { return };
        let mut branch = Branch { key: key.clone(), id: None, at: now, reason: reason.clone() };
        if is_storm {
            self.gathered.push((parent, happening, branch));
            return;
        }
        self.state.storm.opened(&parent, now);
        let under = Command::Under { happening: Box::new(happening.clone()), into, why: reason };
        branch.id = self.command(&key, under, now, out).ok().flatten().map(|i| i.id.clone());
        let take = Command::Take { happening: Box::new(happening), branches: vec![branch], beyond: 0, by: Actor::Bellwether };
        let _ = self.command(&parent, take, now, out);
    }

    /// Harm opens under its own key, and what has the same cause goes under it.
    pub(super) fn lead(&mut self, mut happening: Happening, under: &[(IncidentKey, String)], now: Time, out: &mut Outcome) {
        let key = happening.key.clone();
        for (milder, reason) in under {
            if let Some(incident) = self.state.incidents.get(milder) {
                happening.take_in(incident, reason, now);
            }
        }
        self.state.storm.opened(&key, now);
        let Ok(Some(leader)) = self.command(&key, Command::Find(Box::new(happening)), now, out) else { return };
        let leader = leader.id.clone();
        for (milder, reason) in under {
            let why = format!("{reason}; what harms people is told first");
            let _ = self.command(milder, Command::Yield { into: leader.clone(), why }, now, out);
        }
    }

    /// What a storm blew under an incident within one pane goes there in one piece.
    pub(super) fn shelter(&mut self, now: Time, out: &mut Outcome) {
        let mut by_parent: BTreeMap<IncidentKey, (Happening, Vec<Branch>, u64)> = BTreeMap::new();
        for (parent, happening, branch) in std::mem::take(&mut self.gathered) {
            let Some((whole, branches, beyond)) = by_parent.get_mut(&parent) else {
                by_parent.insert(parent, (happening, vec![branch], 0));
                continue;
            };
            if happening.severity.is_worse_than(whole.severity) {
                (whole.severity, whole.severity_reasons, whole.title) = (happening.severity, happening.severity_reasons, happening.title);
            }
            whole.pages |= happening.pages;
            respond::duties::take_over(&mut whole.response.timers, &happening.response.timers, None);
            whole.findings.extend(happening.findings.into_iter().take(BRANCHES_MAX.saturating_sub(whole.findings.len())));
            if branches.len() < BRANCHES_MAX { branches.push(branch) } else { *beyond += 1 }
        }
        for (parent, (happening, branches, beyond)) in by_parent {
            let take = Command::Take { happening: Box::new(happening), branches, beyond, by: Actor::Bellwether };
            let _ = self.command(&parent, take, now, out);
        }
    }

    pub(super) fn merge(
        &mut self,
        key: &IncidentKey,
        into: &str,
        by: String,
        why: String,
        now: Time,
        out: &mut Outcome,
    ) -> Result<Option<Incident>, Refusal> {
        let parent = self.key_of_id(into)?;
        if parent == *key {
            return Err(Refusal("an incident is not merged into itself".to_owned()));
        }
        if !self.state.incidents.get(&parent).is_some_and(|i| i.state.is_live()) {
            return Err(Refusal(format!("incident {into} is not live: merge into one that is")));
        }
        let Some(child) = self.state.incidents.get(key).cloned() else { return Err(Refusal(format!("there is no incident of {}", key.model))) };
        if key.category.is_harm() && !parent.category.is_harm() {
            let kind = key.category.as_str().replace('_', " ");
            return Err(Refusal(format!("{} is about {kind}: what harms people is told first, so merge {into} into {} instead", child.id, child.id)));
        }
        let merged = self.command(key, Command::Merge { into: into.to_owned(), by: by.clone(), why: why.clone() }, now, out)?.cloned();
        let reason = if why.is_empty() { format!("merged by {by}") } else { why };
        let mut branches = vec![Branch { key: key.clone(), id: Some(child.id.clone()), at: now, reason }];
        branches.extend(child.merged.clone());
        let happening = Box::new(as_happening(&child));
        self.command(&parent, Command::Take { happening, branches, beyond: child.merged_beyond, by: Actor::Person(by) }, now, out)?;
        Ok(merged)
    }

    pub(super) fn split(&mut self, key: &IncidentKey, by: String, why: String, now: Time, out: &mut Outcome) -> Result<Option<Incident>, Refusal> {
        let parent = self.state.incidents.values().find(|i| i.state.is_live() && i.merged.iter().any(|b| b.key == *key)).cloned();
        let Some(child) = self.state.incidents.get_mut(key) else { return Err(Refusal(format!("there is no incident of {}", key.model))) };
        if let Some(parent) = parent.as_ref().filter(|_| child.state == IncidentState::Merged) {
            // What was learned of it meanwhile comes along.
            for f in parent.findings.iter().filter(|f| belongs(f, key)) {
                match child.findings.iter_mut().find(|g| g.series_id == f.series_id) {
                    Some(known) => *known = f.clone(),
                    None => child.findings.push(f.clone()),
                }
            }
            // So do the clocks that began with it, as they stand by now.
            let began = |t: &&Timer| t.clock().is_some() && t.standing.begun_with.as_ref() == Some(&child.id);
            let clocks: Vec<Timer> = parent.response.timers.iter().filter(began).cloned().collect();
            child.response.timers.retain(|t| t.clock().is_none() || !clocks.iter().any(|c| c.clock() == t.clock()));
            child.response.timers.extend(clocks);
        }
        let split = self.command(key, Command::Split { by: by.clone(), why: why.clone() }, now, out)?.cloned();
        if let Some(parent) = parent {
            self.command(&parent.key, Command::Part { branch: key.clone(), by, why }, now, out)?;
        }
        Ok(split)
    }
}

/// An incident as something that was found: what is merged into another brings along what it knows. What has been changed for it
/// stays with it, and so do the approvals: nobody has given them for the other one.
fn as_happening(i: &Incident) -> Happening {
    let untouched = |s: &&Step| s.applied.is_empty() && (s.state.may_be_planned() || s.state == StepState::Planning || !s.kind.acts());
    let anew = |s: &Step| match s.kind.acts() {
        true => Step { state: StepState::Idle, plan: None, approvals: Vec::new(), words: String::new(), ..s.clone() },
        false => s.clone(),
    };
    let steps = i.response.steps.iter().filter(untouched).map(anew).collect();
    Happening {
        key: i.key.clone(),
        severity: i.severity,
        severity_reasons: i.severity_reasons.clone(),
        title: i.title.clone(),
        onset: i.onset,
        findings: i.findings.iter().filter(|f| f.recovered_at.is_none()).cloned().collect(),
        versions: i.versions.clone(),
        segments: i.segments.clone(),
        users_affected: i.users_affected,
        cause: i.cause.clone(),
        action: i.action.clone(),
        response: Response { steps, ..i.response.clone() },
        exemplars: Default::default(),
        pages: i.paged,
        page_reason: i.page_reason.clone(),
        roots: i.roots.clone(),
        suppressed: None,
        beside: None,
        everywhere: false,
        takes: vec![],
        takes_beyond: 0,
        spread: None,
    }
}
