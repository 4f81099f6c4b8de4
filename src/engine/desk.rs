//! The desk: sealed panes of all partitions meet here, are judged in order, and become incidents.
//!
//! A pane is judged when every partition that is not at rest has sealed it. What people and the shell do (acts, the end of
//! history) is applied at pane boundaries. So everything here is a function of the panes and the journal, whatever the order in
//! which partitions were read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bellwether_detectors::Release;
use serde::{Deserialize, Serialize};

use super::control::{Control, Entry};
use super::storm::Storm;
use super::{Outcome, Route, Settings};
use crate::domain::alarm::{Alarm, Unit};
use crate::domain::delivery::{Delivery, Message, Notice};
use crate::domain::incident::{Actor, Branch, Estimate, Exemplar, Finding, Incident, IncidentKey, Suppression, TimelineEntry};
use crate::domain::response::Shift;
use crate::domain::time::{DAY_MS, HOUR_MS};
use crate::domain::{ClosedAs, Decision, GroupKey, Hold, IncidentState, Onset, Segment, SeriesId, SeriesKey, Severity, Signal, StepState, Time};
use crate::incident::{Command, Effect, Event, Happening, Refusal, Stood, decide, effects, evolve, timeline_of};
use crate::judge::{FiredBy, Import, Judge, RuleFired, Rules, Said, Spoken};
use crate::pane::{BoxedCell, Contribution, Fact, FactKind, LeafCell, Outbound, PartitionId};
use crate::respond::{self, StepCommand};
use crate::triage::{self, Case, scope};

mod joining;
mod place;
mod scene;

use place::Place;

/// Silences and maintenance windows kept.
const HOLDS_MAX: usize = 1_000;
/// Deployments and pipeline runs remembered.
const FACTS_MAX: usize = 2_000;
/// Empty panes tried when everything is silent.
const SILENT_STEPS_MAX: i64 = 2_000;
/// Exemplars that an incident shows.
const EXEMPLARS_MAX: usize = 6;
/// A version or a segment without traffic for so long is gone.
const GONE_MS: i64 = 60_000;
/// And so many of its events would usually have come in that time: enough for the quiet hours of a day.
const GONE_EVENTS: f64 = 40.0;

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Source {
    sealed: Option<Time>,
    rests: bool,
}

/// Findings wait one pane for their siblings: the whole usually speaks before its segments.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waiting {
    pane: Time,
    spoken: Vec<WaitingAlarm>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct WaitingAlarm {
    alarm: Alarm,
    id: SeriesId,
    exemplars: Vec<Exemplar>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    sources: BTreeMap<PartitionId, Source>,
    /// Panes that some partition has sealed and that are not judged yet.
    sealed: BTreeMap<Time, Vec<Contribution>>,
    pub judged_through: Option<Time>,
    waiting: Option<Waiting>,
    /// The newest incident of every key.
    incidents: BTreeMap<IncidentKey, Incident>,
    facts: VecDeque<Fact>,
    rules: Rules,
    blind: Option<Time>,
    pub alarms_raised: u64,
    pub alarms_held: u64,
    pub pages: u64,
    pub budget_spent: f64,
    pub(super) holds: VecDeque<Hold>,
    storm: Storm,
    /// Entries whose boundary has not come yet.
    pending: Vec<Entry>,
    pub journal_seq: u64,
}

pub struct Desk {
    pub(super) settings: Settings,
    pub judge: Judge,
    pub state: State,
    /// Cells that have been judged, for whoever fills the next ones.
    pub spent: Vec<BoxedCell>,
    /// What a storm blows under other incidents, until the pane is judged.
    gathered: Vec<(IncidentKey, Happening, Branch)>,
}

// === impl Desk ===

impl Desk {
    pub fn new(settings: Settings) -> Desk {
        Desk { judge: Judge::new(settings.judge.clone()), settings, state: State::default(), spent: Vec::new(), gathered: Vec::new() }
    }

    pub fn with(settings: Settings, judge: Judge, state: State) -> Desk {
        Desk { settings, judge, state, spent: Vec::new(), gathered: Vec::new() }
    }

    /// Nobody waits for a partition before it is declared.
    pub fn declare(&mut self, partition: PartitionId) {
        self.state.sources.entry(partition).or_default();
    }

    pub fn knows(&self, partition: PartitionId) -> bool {
        self.state.sources.contains_key(&partition)
    }

    pub fn rests(&self, partition: PartitionId) -> bool {
        self.state.sources.get(&partition).is_some_and(|s| s.rests)
    }

    pub fn take(&mut self, out: Outbound) {
        match out {
            Outbound::Slot(number, name) => self.judge.slot(number, name),
            Outbound::Sealed(c) => {
                // Judged without it: the watch's floor makes this impossible, and counting twice would be worse than dropping.
                if self.state.judged_through.is_none_or(|t| c.pane >= t) {
                    self.state.sealed.entry(c.pane).or_default().push(c);
                }
            }
            Outbound::SealedThrough(partition, through) => {
                let source = self.state.sources.entry(partition).or_default();
                source.sealed = source.sealed.max(Some(through));
            }
        }
    }

    pub fn rest(&mut self, partition: PartitionId) {
        self.state.sources.entry(partition).or_default().rests = true;
    }

    pub fn wake(&mut self, partition: PartitionId, floor: Time) {
        let source = self.state.sources.entry(partition).or_default();
        source.rests = false;
        source.sealed = source.sealed.max(Some(floor));
    }

    /// An entry of the journal that applies at a pane boundary.
    pub fn enter(&mut self, entry: Entry) {
        let at = self.state.pending.partition_point(|e| (e.at, e.seq) <= (entry.at, entry.seq));
        self.state.pending.insert(at, entry);
    }

    /// Everything before this is sealed by all that is waited for.
    fn boundary(&self) -> Option<Time> {
        let awake = self.state.sources.values().filter(|s| !s.rests);
        let mut least: Option<Time> = None;
        let mut any = false;
        for source in awake {
            any = true;
            let sealed = source.sealed?;
            least = Some(least.map_or(sealed, |l| l.min(sealed)));
        }
        if any { least } else { self.state.sources.values().filter_map(|s| s.sealed).max() }
    }

    /// Cells of panes that some partition has not sealed yet: what reading ahead costs in memory.
    pub fn cells_waiting(&self) -> usize {
        self.state.sealed.values().flatten().map(|c| c.cells.len()).sum()
    }

    /// The slowest partition that is waited for, for whoever holds back the fast ones.
    pub fn slowest(&self) -> Option<Time> {
        self.boundary()
    }

    /// Judges every pane that is ready and applies what is due.
    pub fn advance(&mut self, out: &mut Outcome) {
        loop {
            let boundary = self.boundary();
            let next = self.state.sealed.first_key_value().map(|(p, _)| *p).filter(|p| boundary.is_some_and(|b| *p < b));
            let Some(pane) = next else {
                if let Some(b) = boundary {
                    self.state.judged_through = self.state.judged_through.max(Some(b));
                }
                let now = self.state.judged_through.unwrap_or(Time::MIN);
                self.apply_due(now, out);
                let all_rest = !self.state.sources.is_empty() && self.state.sources.values().all(|s| s.rests);
                if all_rest {
                    self.flush(out);
                }
                return;
            };
            self.apply_due(pane, out);
            self.judge_pane(pane, out);
        }
    }

    fn apply_due(&mut self, at: Time, out: &mut Outcome) {
        while self.state.pending.first().is_some_and(|e| e.at <= at) {
            let entry = self.state.pending.remove(0);
            self.apply(entry, out);
        }
    }

    fn apply(&mut self, entry: Entry, out: &mut Outcome) {
        match entry.control {
            Control::Live { .. } => {
                self.state.waiting = None;
                self.judge.start_live(entry.at);
            }
            // At its partition's position, by the engine.
            Control::Rest { .. } | Control::Wake { .. } => {}
            Control::Act { incident, command, wall } => {
                let result = match (self.key_of_id(&incident), command) {
                    (Err(refusal), _) => Err(refusal),
                    (Ok(key), Command::SetSeverity { by, severity, why }) => {
                        let command = self.worsened(&key, by, severity, why, wall);
                        self.act(&key, command, wall, out)
                    }
                    (Ok(key), Command::Merge { into, by, why }) => self.merge(&key, &into, by, why, wall, out),
                    (Ok(key), Command::Split { by, why }) => self.split(&key, by, why, wall, out),
                    (Ok(key), command) => self.act(&key, command, wall, out),
                };
                out.answers.push((entry.seq, result.map_err(|r| r.0)));
            }
            Control::Baseline { model, environment, packed } => {
                let taken = Import::unpack(&packed).and_then(|i| self.judge.import(&model, environment.as_deref(), i, entry.at));
                out.answers.push((entry.seq, taken.map(|()| None)));
            }
            Control::Forget { model, environment, signal } => {
                let done = self.judge.forget(&model, environment.as_deref(), signal.as_ref(), entry.at);
                out.answers.push((entry.seq, done.map(|()| None)));
            }
            Control::Tick { wall } => {
                let due: Vec<IncidentKey> =
                    self.state.incidents.values().filter(|i| crate::incident::is_due(i, wall)).map(|i| i.key.clone()).collect();
                for key in due {
                    let _ = self.command(&key, Command::Tick, wall, out);
                }
            }
            Control::Hold { kind, matcher, from, until, by, why, harm } => {
                let id = format!("{}-{}", &kind.as_str()[..3], entry.seq);
                self.keep_hold(Hold { id, kind, matcher, from, until, by, why, harm, ended: None });
                out.answers.push((entry.seq, Ok(None)));
            }
            Control::EndHold { id, by, wall } => {
                let found = self.state.holds.iter_mut().find(|h| h.id == id);
                let result = match found {
                    Some(hold) if hold.ended.is_none() && wall < hold.until => {
                        hold.ended = Some((wall, by));
                        Ok(None)
                    }
                    Some(hold) => Err(format!("{} {id} is over already", hold.kind)),
                    None => Err(format!("there is no silence or maintenance window {id:?}")),
                };
                self.lift(wall, out);
                out.answers.push((entry.seq, result));
            }
            Control::Blind { words, wall } => {
                if self.state.blind.replace(wall).is_none() {
                    let series = SeriesKey { group: GroupKey::roll_up("", ""), signal: Signal::Rule("blind".to_owned()) };
                    let fired = RuleFired { series, at: wall, why: words, of: FiredBy::Other };
                    self.rule_fired(fired, &[], wall, out);
                }
            }
            Control::Sighted { words, wall } => {
                if self.state.blind.take().is_some() {
                    let series = SeriesKey { group: GroupKey::roll_up("", ""), signal: Signal::Rule("blind".to_owned()) };
                    self.recovered(series.id(), words, wall, out);
                }
            }
        }
    }

    fn judge_pane(&mut self, pane: Time, out: &mut Outcome) {
        let pane_ms = self.settings.judge.pane_ms;
        let now = pane.plus_ms(pane_ms);
        let looked = self.state.judged_through.unwrap_or(pane);
        if self.state.waiting.as_ref().is_some_and(|w| pane > w.pane.plus_ms(pane_ms)) {
            self.flush(out);
        }
        let mut parts = self.state.sealed.remove(&pane).unwrap_or_default();
        parts.sort_by_key(|c| c.partition);
        let mut facts: Vec<Fact> = Vec::new();
        parts.iter_mut().for_each(|part| facts.append(&mut part.facts));
        facts.sort_unstable();
        let mut merged = self.judge.leaves.gather(parts.into_iter().flat_map(|part| part.cells), &mut self.spent);
        let heartbeats = facts.iter().any(|f| matches!(f.kind, FactKind::Heartbeat { .. }));
        self.remember(&facts, &merged, now);

        let (fired, over) = self.state.rules.pane(pane, pane_ms, &mut merged, &facts);
        let is_last_of_history = |e: &Entry| matches!(e.control, Control::Live { rules_from } if rules_from.is_none_or(|from| pane >= from));
        if self.judge.is_live() || self.state.pending.iter().any(is_last_of_history) {
            for rule in fired {
                self.rule_fired(rule, &merged, now, out);
            }
            for (series, words) in over {
                self.recovered(series, words, now, out);
            }
        }

        let mut said = Vec::new();
        self.judge.pane(pane, &mut merged, heartbeats, &mut said);
        self.look_at_shifts(pane, now, &merged, out);
        self.spent.extend(merged.into_iter().map(|c| c.cell));
        self.state.judged_through = Some(now);
        out.panes += 1;
        self.state.budget_spent += if self.judge.is_live() { self.judge.budget.per_pane() } else { 0.0 };
        for s in said {
            match s {
                Said::Alarm(spoken) => self.wait(pane, now, *spoken, out),
                Said::Held { series, why } => {
                    self.state.alarms_held += 1;
                    if let Some((_, line)) = self.judge.line(series) {
                        let alarm = Alarm {
                            series: line.series.clone(),
                            time: now,
                            onset: Onset::sharp(line.onset.unwrap_or(pane)),
                            detector: line.bank.name().to_owned(),
                            decision: Decision::Held,
                            reason: why,
                            change: line.change.as_deref().copied().map(change),
                            unit: line.unit,
                            log_evidence: Some(line.last_evidence),
                            threshold: Some(-line.injection.max(1e-300).ln()),
                            category: triage::category_of(&line.series.signal),
                            severity: Severity::MINOR,
                            by_rule: false,
                            named: line.named(),
                        };
                        out.alarms.push((alarm_id(series, pane), alarm));
                    }
                }
                Said::Recovered { series, change } => {
                    let words = match self.judge.line(series) {
                        Some((_, l)) => {
                            format!("{} of {} is back at {}", l.series.signal.words(), l.series.group.words(), l.unit.words(change.after))
                        }
                        None => "back within tolerance".to_owned(),
                    };
                    if let Some(w) = &mut self.state.waiting {
                        w.spoken.retain(|a| a.id != series);
                    }
                    self.recovered(series, words, now, out);
                }
                Said::Drifted { series, words } => {
                    let fired = RuleFired { series, at: now, why: words, of: FiredBy::Other };
                    self.rule_fired(fired, &[], now, out);
                }
                Said::Undrifted { series, words } => self.recovered(series.id(), words, now, out),
                Said::Recovering { series } => {
                    if let Some(key) = self.key_of(series) {
                        let _ = self.command(&key, Command::Recovering { series }, now, out);
                    }
                }
            }
        }
        if self.state.waiting.as_ref().is_some_and(|w| pane >= w.pane.plus_ms(pane_ms)) {
            self.flush(out);
        }
        self.shelter(now, out);
        self.close_with_the_whole(now, out);
        self.lift(now, out);
        self.settle(now, out);
        for key in self.state.storm.due(now) {
            self.tell_again(&key, now, out);
        }
        self.look_again(looked.min(pane), now, out);
    }

    /// Steps that sent traffic to another version: do the predictions say so?
    fn look_at_shifts(&mut self, pane: Time, now: Time, cells: &[LeafCell], out: &mut Outcome) {
        let mut verdicts: Vec<(IncidentKey, StepCommand)> = Vec::new();
        for incident in self.state.incidents.values_mut().filter(|i| i.state.is_live()) {
            let key = &incident.key;
            for step in incident.response.steps.iter_mut().filter(|s| s.state == StepState::Done) {
                let Some(shift) = step.shift.as_mut().filter(|s| s.has_moved.is_none()) else { continue };
                let of_model = |c: &&LeafCell| *c.leaf.model == *key.model && *c.leaf.environment == *key.environment;
                let predictions: Vec<(&str, u64)> =
                    cells.iter().filter(of_model).map(|c| (&*c.leaf.version, u64::from(c.cell.predictions))).collect();
                if let Some((has_moved, words)) = respond::steps::shifted(shift, &key.model, pane, now, &predictions) {
                    let shift = Shift { has_moved: Some(has_moved), ..shift.clone() };
                    verdicts.push((key.clone(), StepCommand::Shifted { step: step.id.clone(), shift, words }));
                }
            }
        }
        for (key, verdict) in verdicts {
            let _ = self.command(&key, Command::Step(verdict), now, out);
        }
    }

    /// A part may recover with its whole: when it has no traffic any more (a version that was rolled back says nothing for
    /// ever), or when its own evidence is half way while the whole's is complete.
    fn close_with_the_whole(&mut self, now: Time, out: &mut Outcome) {
        let mut over: Vec<(SeriesId, String)> = Vec::new();
        for incident in self.state.incidents.values().filter(|i| i.state.is_live()) {
            for f in incident.findings.iter().filter(|f| f.recovered_at.is_none() && !f.series.group.is_roll_up() && !f.by_rule) {
                let Some((part, line)) = self.judge.line(f.series_id).filter(|(g, _)| !g.key.is_roll_up()) else { continue };
                let Some(whole) = self.judge.group(&part.key.whole()) else { continue };
                let same = |l: &&crate::judge::Line| l.series.signal == line.series.signal && l.bank.name() == line.bank.name();
                if whole.lines.iter().find(same).is_none_or(|l| l.is_out) {
                    continue;
                }
                let words = f.series.signal.words();
                if is_gone(part, now) && now.since_ms(whole.last_event_at) < GONE_MS {
                    over.push((
                        f.series_id,
                        format!("{} has no more traffic, and {words} of the model as a whole is within tolerance", part.key.words()),
                    ));
                } else if line.is_half_recovered() && incident.findings.iter().any(|o| o.recovered_at.is_some() && o.series.group.is_roll_up()) {
                    over.push((f.series_id, format!("{words} of {} is on its way back, and of the model as a whole it is back", part.key.words())));
                }
            }
        }
        for (series, words) in over {
            self.recovered(series, words, now, out);
        }
    }

    /// Keeps what changed for the question "what happened before the onset".
    fn remember(&mut self, facts: &[Fact], cells: &[LeafCell], now: Time) {
        for LeafCell { leaf, .. } in cells.iter().filter(|c| !self.judge.knows(c)) {
            let whole = leaf.whole();
            let is_new = !self.judge.has_version(leaf) && self.judge.group(&whole).is_some_and(|g| now.since_ms(g.born) > 10 * 60_000);
            let known = |f: &Fact| f.version.as_deref() == Some(&*leaf.version) && matches!(f.kind, FactKind::Deployment { .. });
            if is_new && !self.state.facts.iter().any(known) && !facts.iter().any(known) {
                let kind = FactKind::Deployment { phase: "finished".to_owned(), target: leaf.model.to_string(), previous_version: None };
                let time = now.plus_ms(-self.settings.judge.pane_ms);
                let (environment, model, version) = (leaf.environment.to_string(), leaf.model.to_string(), leaf.version.to_string());
                self.state.facts.push_back(Fact { time, environment: Some(environment), model: Some(model), version: Some(version), kind });
            }
        }
        self.state.facts.extend(facts.iter().filter(|f| matches!(f.kind, FactKind::Deployment { .. } | FactKind::Pipeline { .. })).cloned());
        while self.state.facts.len() > FACTS_MAX || self.state.facts.front().is_some_and(|f| now.since_ms(f.time) > DAY_MS) {
            self.state.facts.pop_front();
        }
    }

    fn wait(&mut self, pane: Time, now: Time, spoken: Spoken, out: &mut Outcome) {
        if self.state.blind.is_some() && spoken.series.signal == Signal::Silence {
            self.state.alarms_held += 1;
            self.judge.release(spoken.id, Release::Fixed);
            return;
        }
        let told = change(spoken.change);
        let alarm = Alarm {
            time: now,
            onset: onset(spoken.onset),
            detector: spoken.detector.to_owned(),
            decision: Decision::Raised,
            reason: format!(
                "{} with {:.1} nats of evidence where {:.1} are asked",
                spoken.unit.change(&spoken.named.clone().unwrap_or_else(|| spoken.series.signal.words()), &told),
                spoken.log_evidence,
                spoken.threshold
            ),
            change: Some(told),
            unit: spoken.unit,
            log_evidence: Some(spoken.log_evidence),
            threshold: Some(spoken.threshold),
            category: triage::category_of(&spoken.series.signal),
            severity: triage::severity_of(&spoken.series.signal, Some(&told), false),
            by_rule: false,
            named: spoken.named,
            series: spoken.series,
        };
        self.state.alarms_raised += 1;
        out.alarms.push((alarm_id(spoken.id, pane), alarm.clone()));
        let waiting = self.state.waiting.get_or_insert_with(|| Waiting { pane, spoken: Vec::new() });
        waiting.spoken.push(WaitingAlarm { alarm, id: spoken.id, exemplars: spoken.exemplars });
    }

    /// The siblings have had their pane: what waits becomes incidents.
    fn flush(&mut self, out: &mut Outcome) {
        let Some(waiting) = self.state.waiting.take() else { return };
        let now = waiting.pane.plus_ms(2 * self.settings.judge.pane_ms);
        let mut by_key: BTreeMap<IncidentKey, Vec<WaitingAlarm>> = BTreeMap::new();
        for a in waiting.spoken {
            let group = &a.alarm.series.group;
            let key = IncidentKey { environment: group.environment.to_string(), model: group.model.to_string(), category: a.alarm.category };
            by_key.entry(key).or_default().push(a);
        }
        // Harm first: what has the same cause goes under it, and nobody is called for both.
        let (harm, other): (Vec<_>, Vec<_>) = by_key.into_iter().partition(|(key, _)| key.category.is_harm());
        for (key, alarms) in harm.into_iter().chain(other) {
            let mut findings: Vec<Finding> = Vec::new();
            let mut shown: Vec<Exemplar> = Vec::new();
            for a in &alarms {
                findings.push(finding(&a.alarm, a.id, now));
                shown.extend(a.exemplars.iter().cloned());
            }
            let (findings, place) = self.narrow(&key, findings);
            shown.sort_by(|a, b| (a.hash, &a.id).cmp(&(b.hash, &b.id)));
            shown.dedup_by(|a, b| a.id == b.id);
            shown.truncate(EXEMPLARS_MAX);
            // Shadows are not listed, but may show that a place that was named is none.
            if findings.is_empty() && self.state.incidents.get(&key).is_some_and(|i| !i.segments.is_empty()) {
                self.look(&key, now, out);
            }
            self.happen(key, findings, place, shown, now, out);
        }
    }

    fn rule_fired(&mut self, fired: RuleFired, cells: &[LeafCell], now: Time, out: &mut Outcome) {
        let id = fired.series.id();
        let category = triage::category_of(&fired.series.signal);
        let (told, shown) = match fired.of {
            FiredBy::Prediction(one) => (None, vec![one]),
            FiredBy::Other => (None, Vec::new()),
            FiredBy::Failures { before, after } => {
                (Some(crate::domain::Change { before, after, low: after, high: after }), exemplars_of(&fired.series.group, cells))
            }
        };
        let alarm = Alarm {
            time: now,
            onset: Onset::sharp(fired.at),
            detector: "rule".to_owned(),
            decision: Decision::Raised,
            reason: fired.why,
            change: told,
            unit: Unit::Ratio,
            log_evidence: None,
            threshold: None,
            category,
            severity: triage::severity_of(&fired.series.signal, told.as_ref(), true),
            by_rule: true,
            named: None,
            series: fired.series,
        };
        self.state.alarms_raised += 1;
        let group = &alarm.series.group;
        let key = IncidentKey { environment: group.environment.to_string(), model: group.model.to_string(), category };
        let findings = vec![finding(&alarm, id, now)];
        out.alarms.push((alarm_id(id, now), alarm));
        self.happen(key, findings, Place::default(), shown, now, out);
    }

    /// Findings of one key: assessed, then put to the incident.
    fn happen(&mut self, key: IncidentKey, findings: Vec<Finding>, place: Place, exemplars: Vec<Exemplar>, now: Time, out: &mut Outcome) {
        let Some(happening) = self.happening(key, findings, place, exemplars, None, now) else { return };
        let suppressed = self.held(&happening, now);
        self.put(Happening { suppressed, ..happening }, now, out);
    }

    /// Findings of one key with all that triage says of them, also in the light of what spoke before. `set`: how bad a person says
    /// that it is.
    fn happening(
        &self,
        key: IncidentKey,
        findings: Vec<Finding>,
        place: Place,
        exemplars: Vec<Exemplar>,
        set: Option<Severity>,
        now: Time,
    ) -> Option<Happening> {
        let lead = findings.first()?;
        let live = self.state.incidents.get(&key).filter(|i| i.state.is_live());
        let known: Vec<Finding> = live.iter().flat_map(|i| &i.findings).filter(|f| f.recovered_at.is_none()).cloned().collect();
        let spread = self.spread(lead, now);
        let of_whole = if place.sits_nowhere() { self.place_of_whole(lead, spread.as_ref()) } else { Place::default() };
        let place = if of_whole.sits_nowhere() { place } else { of_whole };
        // Found one after another, places may be all there is; then the whole names the incident, if it speaks.
        let named: Vec<&Segment> = place.segments.iter().chain(live.iter().flat_map(|i| &i.segments)).collect();
        let is_one = spread.as_ref().is_some_and(|s| scope::one_part(s).is_some());
        let is_all = !is_one && self.is_all_there_is(lead, &named);
        let mut findings = findings;
        let place = if is_all {
            findings.sort_by_key(|f| !f.series.group.is_roll_up());
            Place { segments: Vec::new(), everywhere: true, ..place }
        } else {
            place
        };
        let lead = findings.first()?;
        let asked: Vec<Severity> = findings.iter().map(|f| triage::severity_of(&f.series.signal, f.change.as_ref(), f.by_rule)).collect();
        let of_model = |f: &&Fact| f.model.as_deref().is_none_or(|m| m == key.model);
        let facts: Vec<Fact> = self.state.facts.iter().filter(of_model).cloned().collect();
        let Place { versions, segments, everywhere } = place;
        let recent = |i: &&Incident| i.state.is_live() || i.resolved_at.is_some_and(|r| now.since_ms(r) < HOUR_MS);
        let companions: Vec<&Signal> = (self.state.incidents.values().filter(recent))
            .filter(|i| i.key.model == key.model && i.key.category != key.category)
            .flat_map(|i| i.findings.iter().map(|f| &f.series.signal))
            .collect();
        let mut hit: Vec<&str> = (self.state.incidents.values().filter(|i| i.state.is_live()))
            .flat_map(|i| &i.findings)
            .filter(|f| f.onset.at.since_ms(lead.onset.at).abs() < 10 * 60_000 && triage::category_of(&f.series.signal) == key.category)
            .map(|f| &*f.series.group.model)
            .collect();
        hit.push(&key.model);
        hit.sort_unstable();
        hit.dedup();
        let users = self.judge.users(&lead.series.group).map(|(all, failed)| {
            let (estimate, low, high) = if triage::counts_failures(&lead.series.signal) { failed } else { all };
            Estimate { estimate, low, high }
        });
        // A rule has no course; what speaks beside it may have one.
        let getting_worse = findings.iter().find_map(|f| self.judge.line(f.series_id).map(|(_, line)| (f, line))).and_then(|(f, line)| {
            let values: Vec<(Time, f64)> = line.points.iter().filter(|p| p.time >= f.onset.at).map(|p| (p.time, p.value)).collect();
            scope::grows(&values, f.change.map_or(0.0, |c| c.before))
        });
        let model = self.settings.models.get(&key.model);
        let case = Case {
            key: &key,
            findings: &findings,
            known: &known,
            asked: &asked,
            facts: &facts,
            models_hit: hit.len(),
            models_all: self.judge.groups().iter().filter(|g| g.key.is_roll_up()).count(),
            versions: &versions,
            segments: &segments,
            spread: spread.as_ref(),
            everywhere,
            users_affected: users,
            exposure: model.map_or(&[], |m| &m.exposure),
            owner: model.and_then(|m| m.owner.as_deref()),
            getting_worse,
            companions: &companions,
            set,
            now,
        };
        let a = triage::assess(&case);
        let response = self.settings.respond.prepare(&crate::respond::Scene {
            key: &key,
            severity: a.severity,
            title: &a.title,
            since: lead.onset.at,
            versions: &versions,
            segments: &segments,
            owner: model.and_then(|m| m.owner.as_deref()),
            exposed: model.is_some_and(|m| !m.exposure.is_empty()),
            pages: a.pages,
        });
        Some(Happening {
            severity: a.severity,
            severity_reasons: a.severity_reasons.into(),
            title: a.title,
            onset: lead.onset,
            versions,
            segments,
            users_affected: users,
            cause: a.cause.map(Arc::new),
            action: a.action,
            response,
            exemplars: exemplars.into(),
            pages: a.pages,
            page_reason: a.page_reason,
            roots: a.roots,
            suppressed: None,
            beside: None,
            everywhere,
            takes: Vec::new(),
            takes_beyond: 0,
            spread,
            findings,
            key,
        })
    }

    fn recovered(&mut self, series: SeriesId, words: String, now: Time, out: &mut Outcome) {
        if let Some(key) = self.key_of(series) {
            let _ = self.command(&key, Command::Recover { series, words }, now, out);
            // What asked for the severity may be over.
            self.look(&key, now, out);
        }
    }

    /// The live incident in which a series speaks.
    fn key_of(&self, series: SeriesId) -> Option<IncidentKey> {
        let speaks = |i: &&Incident| i.state.is_live() && i.findings.iter().any(|f| f.series_id == series && f.recovered_at.is_none());
        self.state.incidents.values().find(speaks).map(|i| i.key.clone())
    }

    /// What somebody outside says of an incident. A target that another step holds is not touched.
    fn act(&mut self, key: &IncidentKey, command: Command, now: Time, out: &mut Outcome) -> Result<Option<Incident>, Refusal> {
        if let (Command::Step(step), Some(incident)) = (&command, self.state.incidents.get(key))
            && let Some(why) = respond::forbids(self.state.incidents.values(), incident, step, now)
        {
            return Err(Refusal(why));
        }
        let is_answer = matches!(command, Command::Step(StepCommand::Answered { .. }));
        let done = self.command(key, command, now, out)?;
        match done.filter(|_| is_answer).and_then(respond::automatic) {
            // What is forbidden waits for a person.
            Some(approval) => self.act(key, Command::Step(approval), now, out).or_else(|_| Ok(self.state.incidents.get(key).cloned())),
            None => Ok(done.cloned()),
        }
    }

    /// What follows from a command, and the incident as it stands then. It is taken out of the book while it changes: a copy of it
    /// is as much work as the change.
    fn command(&mut self, key: &IncidentKey, command: Command, now: Time, out: &mut Outcome) -> Result<Option<&Incident>, Refusal> {
        let events = decide(self.state.incidents.get(key), command, now)?;
        let mut state = self.state.incidents.remove(key);
        for (ordinal, event) in events.iter().enumerate() {
            // A new incident of an old key begins a life of its own.
            let is_new = matches!(event, Event::Opened(_) | Event::OpenedUnder { .. });
            let clocks = state.as_ref().filter(|_| is_new).map(respond::duties::carried).unwrap_or_default();
            let before = if is_new { None } else { state.take() };
            let stood = before.as_ref().map(Stood::of);
            let Some(mut after) = evolve(before, event, now) else { continue };
            // Duties to report that began with the one before go on.
            after.response.timers.retain(|t| t.clock().is_none() || !clocks.iter().any(|c| c.clock() == t.clock()));
            after.response.timers.extend(clocks);
            out.timeline.push(timeline_of(&after, event, ordinal as u32, now));
            for effect in effects(stood.as_ref(), &after, event) {
                match effect {
                    Effect::Tell(notice) => {
                        if matches!(notice, Notice::Opened | Notice::Escalated | Notice::Reopened) {
                            self.state.pages += 1;
                        }
                        if notice == Notice::Updated && !self.state.storm.may_update(key, now) {
                            continue;
                        }
                        self.tell(&mut after, notice, now, out);
                    }
                    Effect::TellAlso(notice, receivers) => {
                        for receiver in receivers {
                            let delivery = Delivery::new(&receiver, Message { notice, at: now, incident: after.clone() });
                            // Somebody may be named by a route as well.
                            if !out.deliveries.iter().any(|d| d.id == delivery.id) {
                                out.deliveries.push(delivery);
                            }
                            if !after.told.contains(&receiver) {
                                after.told.push(receiver);
                            }
                        }
                    }
                    Effect::Do(job) => out.jobs.push(*job),
                    Effect::Raise { step, times } => {
                        let words = self.raise(&after, times);
                        for s in after.response.steps.iter_mut().filter(|s| s.id == step) {
                            s.state = crate::domain::StepState::Done;
                            s.words.clone_from(&words);
                        }
                        let (incident_id, revision) = (after.id.clone(), after.revision);
                        let (who, what) = (Actor::Bellwether, "sensitivity_raised".to_owned());
                        out.timeline.push(TimelineEntry { incident_id, revision, ordinal: ordinal as u32, at: now, who, what, why: words });
                    }
                    Effect::Release(how) => self.release(&after, how),
                }
            }
            out.happened.push((after.id.clone(), event.name()));
            out.incidents.push(after.clone());
            state = Some(after);
        }
        // Those that it told of are over with it.
        let over = events.iter().find_map(|e| match (e, &state) {
            (Event::Resolved { closed_as, recovered, .. }, Some(i)) if !i.merged.is_empty() => {
                let why = format!("over with {}, which told of it", i.id);
                Some((*closed_as, *recovered, i.merged.clone(), why))
            }
            _ => None,
        });
        if let Some(incident) = state {
            self.state.incidents.insert(key.clone(), incident);
        }
        if let Some((closed_as, recovered, branches, why)) = over {
            for branch in branches.iter().filter(|b| b.id.is_some()) {
                let _ = self.command(&branch.key, Command::End { closed_as, recovered, why: why.clone() }, now, out);
            }
        }
        Ok(self.state.incidents.get(key))
    }

    /// Watches the model more closely, and says what that may cost.
    fn raise(&mut self, incident: &Incident, times: f64) -> String {
        let extra = self.judge.raise(&GroupKey::roll_up(&incident.key.environment, &incident.key.model), times);
        match extra {
            0.0 => format!("{} is watched more closely already, or has no series yet", incident.key.model),
            extra => format!(
                "{} is watched {times} times as closely while this is open, which may cost {} more false pages in 30 days",
                incident.key.model,
                Unit::Count.words(extra)
            ),
        }
    }

    /// As closely as before, unless another incident of the model still asks for more.
    fn lower(&mut self, incident: &Incident) {
        let same = |i: &&Incident| i.id != incident.id && i.key.model == incident.key.model && i.key.environment == incident.key.environment;
        let asks = |i: &Incident| i.state.is_live() && i.response.steps.iter().any(|s| s.raise.is_some());
        if !self.state.incidents.values().filter(same).any(asks) {
            self.judge.lower(&GroupKey::roll_up(&incident.key.environment, &incident.key.model));
        }
    }

    /// Says something of an incident to whoever its routes name, and to whoever was called for it before.
    fn tell(&self, after: &mut Incident, notice: Notice, now: Time, out: &mut Outcome) {
        let mut receivers = after.told.clone();
        for receiver in self.settings.receivers_of(after) {
            if !receivers.contains(&receiver) {
                receivers.push(receiver);
            }
        }
        let calls = matches!(notice, Notice::Opened | Notice::Escalated | Notice::Reopened);
        for receiver in receivers {
            if !after.told.contains(&receiver) {
                // Nobody is told first that something he never heard of has changed.
                if !calls && notice != Notice::Updated {
                    continue;
                }
                after.told.push(receiver.clone());
            }
            out.deliveries.push(Delivery::new(&receiver, Message { notice, at: now, incident: after.clone() }));
        }
    }

    /// How things stand, to those that were called: an update that was put off.
    fn tell_again(&mut self, key: &IncidentKey, now: Time, out: &mut Outcome) {
        let Some(mut incident) = self.state.incidents.get(key).filter(|i| i.state.is_live() && i.state.is_audible() && i.paged).cloned() else {
            return;
        };
        self.tell(&mut incident, Notice::Updated, now, out);
        self.state.incidents.insert(key.clone(), incident.clone());
        out.incidents.push(incident);
    }

    fn key_of_id(&self, id: &str) -> Result<IncidentKey, Refusal> {
        let found = self.state.incidents.values().find(|i| i.id == id);
        found.map(|i| i.key.clone()).ok_or_else(|| Refusal(format!("there is no incident {id:?}")))
    }

    // --- holds ---

    fn keep_hold(&mut self, hold: Hold) {
        while self.state.holds.len() >= HOLDS_MAX {
            self.state.holds.pop_back();
        }
        self.state.holds.push_front(hold);
    }

    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.state.holds.iter()
    }

    /// The hold that keeps a happening from calling anybody.
    fn held(&self, happening: &Happening, now: Time) -> Option<Suppression> {
        if !happening.pages || !self.state.holds.iter().any(|h| h.is_on(now)) {
            return None;
        }
        // Asked of the incident as it would stand.
        let shown = evolve(None, &Event::Opened(Box::new(happening.clone())), now)?;
        let hold = self.state.holds.iter().find(|h| h.holds(&shown, now))?;
        Some(Suppression { hold: Some(hold.id.clone()), words: hold.words(), until: Some(hold.until), calls: true })
    }

    /// What was held and lasts longer than its hold calls now.
    fn lift(&mut self, now: Time, out: &mut Outcome) {
        while self.state.holds.back().is_some_and(|h| now.since_ms(h.until) > DAY_MS) {
            self.state.holds.pop_back();
        }
        let over = |i: &&Incident| match (&i.suppressed, i.state) {
            (Some(s), IncidentState::Suppressed) => match &s.hold {
                Some(id) => !self.state.holds.iter().any(|h| h.id == *id && h.is_on(now)),
                None => s.until.is_some_and(|until| until <= now),
            },
            _ => false,
        };
        let keys: Vec<(IncidentKey, String)> = (self.state.incidents.values().filter(over))
            .map(|i| (i.key.clone(), i.suppressed.as_ref().map_or_else(String::new, |s| format!("it lasts, and what held it is over: {}", s.words))))
            .collect();
        for (key, why) in keys {
            let _ = self.command(&key, Command::Unsuppress { by: Actor::Bellwether, why }, now, out);
        }
    }

    /// What flapped and has been quiet for long enough is over.
    fn settle(&mut self, now: Time, out: &mut Outcome) {
        let due = |i: &&Incident| i.state.is_live() && i.settles_at.is_some_and(|t| t <= now);
        let keys: Vec<IncidentKey> = self.state.incidents.values().filter(due).map(|i| i.key.clone()).collect();
        for key in keys {
            let _ = self.command(&key, Command::Settle, now, out);
        }
    }

    fn release(&mut self, incident: &Incident, how: ClosedAs) {
        self.lower(incident);
        let release = match how {
            ClosedAs::Fixed => Release::Fixed,
            ClosedAs::NewNormal => Release::NewNormal,
            ClosedAs::FalseAlarm => Release::FalseAlarm,
            ClosedAs::Expected => Release::Expected,
        };
        for f in &incident.findings {
            self.judge.release(f.series_id, release);
            self.judge.release_drift(&f.series, release);
            self.state.rules.release(f.series_id);
        }
        // Shadows of the findings, which are not listed, are closed with them.
        for key in std::iter::once(&incident.key).chain(incident.merged.iter().map(|b| &b.key)) {
            let group = GroupKey::roll_up(&key.environment, &key.model);
            let shadows = self.judge.out_of(&group).filter(|l| triage::category_of(&l.series.signal) == key.category);
            for id in shadows.map(|l| l.id).collect::<Vec<SeriesId>>() {
                self.judge.release(id, release);
            }
        }
    }

    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.state.incidents.values()
    }

    pub fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.state.facts.iter()
    }

    /// Without traffic no pane closes, so the gap law is asked on a copy, as if empty panes had gone by until now.
    pub fn everything_silent(&self, now: Time) -> Option<String> {
        let all_rest = !self.state.sources.is_empty() && self.state.sources.values().all(|s| s.rests);
        if !all_rest || !self.judge.is_live() {
            return None;
        }
        let from = self.state.judged_through?;
        // A log of another day is no silence of today.
        if !(0..DAY_MS).contains(&now.since_ms(from)) {
            return None;
        }
        let step_ms = self.settings.judge.pane_ms.max(now.since_ms(from) / SILENT_STEPS_MAX);
        for group in self.judge.groups().iter().filter(|g| g.key.is_roll_up()) {
            let Some(line) = group.lines.iter().find(|l| l.series.signal == Signal::Silence) else { continue };
            let mut bank = line.bank.clone();
            let mut at = from;
            while at.plus_ms(step_ms) <= now {
                let feed = crate::judge::Feed::Arrivals { at_ms: &[], alive: true };
                let reading = bank.judge(&feed, at, step_ms, line.injection);
                if reading.is_some_and(|r| matches!(r.call, bellwether_detectors::Call::Alarm { .. })) {
                    let minutes = now.since_ms(group.last_event_at) / 60_000;
                    return Some(format!("nothing has come from any source for {minutes} min; {} is never that quiet", group.key.words()));
                }
                at = at.plus_ms(step_ms);
            }
        }
        None
    }

    /// Something that a person did before the process ended has not been reached again.
    pub fn awaits_acts(&self) -> bool {
        self.state.pending.iter().any(|e| e.control.is_act())
    }

    pub fn awaits_live(&self) -> bool {
        self.state.pending.iter().any(|e| matches!(e.control, Control::Live { .. }))
    }

    pub fn reroute(&mut self, models: BTreeMap<String, super::ModelSettings>, routes: Vec<Route>, respond: Arc<respond::Settings>) {
        self.settings.respond = respond;
        self.settings.models = models;
        self.settings.routes = routes;
    }

    pub fn is_blind(&self) -> bool {
        self.state.blind.is_some()
    }
}

// === impl Settings ===

impl Settings {
    /// Names of the receivers that hear of an incident: those of the first route that fits.
    fn receivers_of(&self, incident: &Incident) -> Vec<String> {
        self.routes.iter().find(|r| r.fits(incident, self)).map(|r| r.to.clone()).unwrap_or_default()
    }
}

impl Route {
    fn fits(&self, incident: &Incident, settings: &Settings) -> bool {
        let any = |list: &[String], word: &str| list.is_empty() || list.iter().any(|w| w == word);
        let owner = settings.models.get(&incident.key.model).and_then(|m| m.owner.as_deref()).unwrap_or("");
        (self.severity.is_empty() || self.severity.contains(&incident.severity.level()))
            && any(&self.model, &incident.key.model)
            && any(&self.owner, owner)
            && any(&self.category, incident.key.category.as_str())
            && any(&self.environment, &incident.key.environment)
            && self.segment.iter().all(|(d, v)| incident.segments.iter().any(|s| *s.dimension == **d && *s.value == **v))
    }
}

/// Has it been quiet for as long as many of its events usually take? A part with one event in half a minute is not gone after one.
fn is_gone(part: &crate::judge::Group, now: Time) -> bool {
    let quiet_ms = now.since_ms(part.last_event_at);
    let life_ms = part.last_event_at.since_ms(part.born).max(1) as f64;
    quiet_ms > GONE_MS && quiet_ms as f64 * part.predictions as f64 > GONE_EVENTS * life_ms
}

fn change(c: bellwether_detectors::Change) -> crate::domain::Change {
    crate::domain::Change { before: c.before, after: c.after, low: c.low, high: c.high }
}

fn onset(o: bellwether_detectors::Onset) -> Onset {
    Onset { at: Time(o.at_ms), from: Time(o.from_ms), to: Time(o.to_ms) }
}

/// Derived from series and pane, so that a replay writes the same row.
fn alarm_id(series: SeriesId, pane: Time) -> String {
    format!("{series}-{}", pane.0)
}

fn finding(alarm: &Alarm, series_id: SeriesId, now: Time) -> Finding {
    Finding {
        series: alarm.series.clone(),
        series_id,
        detector: alarm.detector.clone(),
        reason: alarm.reason.clone(),
        headline: alarm.headline(),
        change: alarm.change,
        unit: alarm.unit,
        onset: alarm.onset,
        found_at: now,
        log_evidence: alarm.log_evidence,
        threshold: alarm.threshold,
        by_rule: alarm.by_rule,
        recovered_at: None,
    }
}

fn exemplars_of(group: &GroupKey, cells: &[LeafCell]) -> Vec<Exemplar> {
    let mut kept = crate::pane::Exemplars::default();
    for of in cells.iter().filter(|c| c.leaf.model == group.model && c.leaf.environment == group.environment) {
        kept.join(&of.cell.failed);
    }
    kept.told()
}
