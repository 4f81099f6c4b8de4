//! What the desk looks up for triage: how a change is spread over the traffic, and how it stands some time later.
//!
//! The first look is taken when little has been seen: the change is small yet, siblings have not spoken, nobody can say whether
//! it grows. So every live incident is looked at again at a few fixed ages and whenever one of its series has recovered. A look
//! is an input like any other: it leaves a line on the timeline if it changes what was said, and nothing if not.

use std::collections::BTreeMap;

use super::place::{COMES_WITH_MS, NEARLY_ALL, Place};
use super::{Desk, Outcome};
use crate::domain::incident::{Finding, Incident, IncidentKey, Spread};
use crate::domain::{Change, Segment, Severity, Signal, Time};
use crate::incident::{Command, Happening};
use crate::judge::{Group, Line};
use crate::triage::scope::{self, Level, Part};

/// Ages at which a live incident is looked at again, milliseconds.
const LOOKS_MS: [i64; 4] = [30_000, 120_000, 600_000, 3_600_000];
/// Newest panes by which the present size of a change is told.
const PRESENT_POINTS: usize = 6;
/// A value with more of the traffic than this that is not hit is spared: the change is not everywhere.
const MATTERS: f64 = 0.05;
/// Values of an unintended use that are named.
const OUTSIDE_MAX: usize = 3;

impl Desk {
    /// Looks again at incidents that came of age since `before`.
    pub(super) fn look_again(&mut self, before: Time, now: Time, out: &mut Outcome) {
        let is_due = |i: &&Incident| i.state.is_live() && LOOKS_MS.iter().any(|age| (before..now).contains(&i.opened_at.plus_ms(age - 1)));
        let due: Vec<IncidentKey> = self.state.incidents.values().filter(is_due).map(|i| i.key.clone()).collect();
        for key in due {
            self.look(&key, now, out);
        }
    }

    /// Looks again at one incident: what still speaks, at its present size.
    pub(super) fn look(&mut self, key: &IncidentKey, now: Time, out: &mut Outcome) {
        let Some(incident) = self.state.incidents.get(key).filter(|i| i.state.is_live()) else { return };
        if let Some(happening) = self.assessed(incident, None, now) {
            // Nothing refuses a look.
            let _ = self.command(key, Command::Reassess(Box::new(happening)), now, out);
        }
    }

    /// What still speaks of an incident, at its present size, with all that triage says of it now.
    fn assessed(&self, incident: &Incident, set: Option<Severity>, now: Time) -> Option<Happening> {
        let speaks = incident.findings.iter().filter(|f| f.recovered_at.is_none());
        let findings: Vec<Finding> = speaks.map(|f| Finding { change: self.present(f), ..f.clone() }).collect();
        let place = Place { versions: incident.versions.clone(), segments: incident.segments.clone(), ..Place::default() };
        self.happening(incident.key.clone(), findings, place, Vec::new(), set, now)
    }

    /// A person's word on the severity; with the runbook of the worse one, if it is worse.
    pub(super) fn worsened(&self, key: &IncidentKey, by: String, severity: Severity, why: String, now: Time) -> Command {
        let live = self.state.incidents.get(key).filter(|i| i.state.is_live() && severity.is_worse_than(i.severity));
        match live.and_then(|i| self.assessed(i, Some(severity), now)) {
            Some(h) => Command::Worsen { by, severity, why, response: Box::new(h.response), action: h.action },
            None => Command::SetSeverity { by, severity, why },
        }
    }

    /// Segments were named, or spoke, one after another: are they by now every value of their dimension that matters?
    pub(super) fn is_all_there_is(&self, lead: &Finding, named: &[&Segment]) -> bool {
        let Some(whole) = self.judge.group(&lead.series.group.whole()) else { return false };
        let speaks = |g: &Group| line_of(g, &lead.series.signal, &lead.detector).is_some_and(|l| l.is_out);
        let first_of = |g: &Group| line_of(g, &Signal::ErrorRate, "rate")?.points.front().map(|p| p.time);
        let mut by_dimension: BTreeMap<&str, Vec<(&Group, bool)>> = BTreeMap::new();
        for sibling in self.judge.siblings(&whole.key) {
            if let Some(segment) = &sibling.key.segment {
                by_dimension.entry(&segment.dimension).or_default().push((sibling, named.contains(&segment) || speaks(sibling)));
            }
        }
        by_dimension.into_values().any(|values| {
            // Parts remember less than the whole.
            let from = values.iter().filter_map(|(g, _)| first_of(g)).max().map_or(lead.onset.at, |from| from.max(lead.onset.at));
            let served = |g: &Group| {
                line_of(g, &Signal::ErrorRate, "rate").map_or(0.0, |l| l.points.iter().filter(|p| p.time >= from).map(|p| p.n).sum::<f64>())
            };
            let all = served(whole);
            let (hit, spared): (Vec<(&Group, bool)>, Vec<(&Group, bool)>) = values.into_iter().partition(|(_, is_hit)| *is_hit);
            let of_hit: f64 = hit.iter().map(|(g, _)| served(g)).sum();
            all > 0.0 && hit.len() >= 2 && of_hit >= NEARLY_ALL * all && spared.iter().all(|(g, _)| served(g) <= MATTERS * all)
        })
    }

    /// The change of a value as it is now, if that is further from the usual than it was when it was found.
    fn present(&self, f: &Finding) -> Option<Change> {
        let told = f.change?;
        let is_value = matches!(f.series.signal, Signal::Latency | Signal::FirstTokenLatency | Signal::Cost | Signal::TokensIn | Signal::TokensOut);
        let line = self.judge.group(&f.series.group).and_then(|g| line_of(g, &f.series.signal, &f.detector));
        let Some(line) = line.filter(|_| is_value && f.detector == "bins") else { return f.change };
        let (sum, n) = (line.points.iter().filter(|p| p.time >= f.onset.at).rev().take(PRESENT_POINTS))
            .fold((0.0, 0.0), |(sum, n), p| (sum + p.n * p.value, n + p.n));
        let after = if n > 0.0 { sum / n } else { return f.change };
        let is_further = (after - told.before).abs() > (told.after - told.before).abs();
        Some(if is_further { Change { after, low: after.min(told.low), high: after.max(told.high), ..told } } else { told })
    }

    /// How the change of a finding is spread over the values of the dimension that tells most.
    pub(super) fn spread(&self, of: &Finding, now: Time) -> Option<Spread> {
        let whole = self.judge.group(&of.series.group.whole())?;
        let is_traffic = is_of_traffic(&of.series.signal);
        let (signal, detector) = if is_traffic { (&Signal::ErrorRate, "rate") } else { (&of.series.signal, of.detector.as_str()) };
        let (from, to) = (of.onset.at, now);
        let mut by_dimension: BTreeMap<&str, Option<Vec<Part>>> = BTreeMap::new();
        for sibling in self.judge.siblings(&whole.key) {
            let Some(segment) = &sibling.key.segment else { continue };
            let part = line_of(sibling, signal, detector).and_then(|line| part_of(segment, sibling, line, from, to));
            // A part of which nothing is known before leaves the rest without meaning.
            match (by_dimension.entry(&segment.dimension).or_insert_with(|| Some(Vec::new())), part) {
                (Some(parts), Some(part)) => parts.push(part),
                (known, _) => *known = None,
            }
        }
        let whole_after = line_of(whole, signal, detector).map_or(0.0, |line| traffic(line, from, to));
        let spreads = by_dimension.into_values().flatten().filter(|parts| is_traffic || scope::covers(parts, whole_after));
        scope::telling(
            spreads.filter_map(|parts| if is_traffic { scope::decompose_traffic(&parts) } else { scope::decompose(&parts, of.unit) }).collect(),
        )
    }

    /// Where a change sits that is measured of the whole only.
    pub(super) fn place_of_whole(&self, of: &Finding, spread: Option<&Spread>) -> Place {
        let group = &of.series.group;
        let is_of_whole = matches!(of.series.signal, Signal::OutOfScope | Signal::Fairness(_)) || is_of_traffic(&of.series.signal);
        if !is_of_whole || of.by_rule {
            return Place::default();
        }
        let outside = if of.series.signal == Signal::OutOfScope { self.outside(of) } else { Vec::new() };
        let one = spread.filter(|_| is_of_traffic(&of.series.signal)).and_then(scope::one_part).map(|p| p.segment.clone());
        let segments: Vec<Segment> = outside.into_iter().chain(one).collect();
        if !segments.is_empty() {
            return Place { segments, ..Place::default() };
        }
        let Some(whole) = self.judge.group(&group.whole()) else { return Place::default() };
        let from = of.onset.at;
        let served =
            |g: &Group| line_of(g, &Signal::ErrorRate, "rate").map_or(0.0, |l| l.points.iter().filter(|p| p.time >= from).map(|p| p.n).sum());
        let all: f64 = served(whole);
        let came_with_it = |g: &&Group| {
            let is_new = from.since_ms(g.born).abs() < COMES_WITH_MS && g.born > whole.born.plus_ms(60_000);
            g.key.version.is_some() && is_new && all > 0.0 && served(g) > NEARLY_ALL * all
        };
        let versions = self.judge.siblings(&whole.key).filter(came_with_it).filter_map(|g| g.key.version.as_ref().map(|v| v.to_string()));
        Place { versions: versions.take(1).collect(), ..Place::default() }
    }

    /// Values outside the intended use that have sent something since the onset, most first.
    fn outside(&self, of: &Finding) -> Vec<Segment> {
        let group = &of.series.group;
        let Some(uses) = self.settings.judge.models.get(&*group.model).map(|m| &m.intended_use) else { return Vec::new() };
        let is_outside = |s: &Segment| uses.get(&*s.dimension).is_some_and(|ok| !ok.iter().any(|v| **v == *s.value));
        let mut out: Vec<(f64, Segment)> = (self.judge.siblings(group).filter_map(|g| Some((g, g.key.segment.as_ref().filter(|s| is_outside(s))?))))
            .map(|(g, s)| (g.predictions as f64, s.clone()))
            .collect();
        out.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        out.into_iter().take(OUTSIDE_MAX).map(|(_, s)| s).collect()
    }
}

fn is_of_traffic(signal: &Signal) -> bool {
    matches!(signal, Signal::Traffic | Signal::Silence)
}

fn line_of<'g>(group: &'g Group, signal: &Signal, detector: &str) -> Option<&'g Line> {
    group.lines.iter().find(|l| l.series.signal == *signal && l.bank.name() == detector)
}

/// Events per second from one time to another.
fn traffic(line: &Line, from: Time, to: Time) -> f64 {
    let n: f64 = line.points.iter().filter(|p| p.time >= from && p.time < to).map(|p| p.n).sum();
    n * 1_000.0 / to.since_ms(from).max(1) as f64
}

/// A part before and after. `None` if it was there before and nothing of it is remembered.
fn part_of(segment: &Segment, group: &Group, line: &Line, from: Time, to: Time) -> Option<Part> {
    let first = line.points.front().map(|p| p.time).filter(|first| *first < from);
    let mean = |from: Time, to: Time| {
        let points = line.points.iter().filter(|p| p.time >= from && p.time < to);
        let (sum, n) = points.fold((0.0, 0.0), |(sum, n), p| (sum + p.n * p.value, n + p.n));
        if n > 0.0 { sum / n } else { f64::NAN }
    };
    let before = match first {
        Some(first) => {
            let value = line.bank.baseline().map_or_else(|| mean(first, from), |b| b.value);
            Level { traffic: traffic(line, first, from), value }
        }
        None if group.born >= from.plus_ms(-1_000) => Level { traffic: 0.0, value: f64::NAN },
        None => return None,
    };
    Some(Part { segment: segment.clone(), before, after: Level { traffic: traffic(line, from, to), value: mean(from, to) } })
}
