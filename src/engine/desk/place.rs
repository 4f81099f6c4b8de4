//! Where a change sits: in a part of its model, in some values of a segment, or everywhere.
//!
//! The whole and its parts see the same change. The narrowest part that explains it names it, and those that only share in it are its
//! shadows.

use super::Desk;
use crate::domain::incident::{Finding, IncidentKey};
use crate::domain::time::HOUR_MS;
use crate::domain::{DetectorState, GroupKey, Segment, Signal, Time};

/// A segment names the incident if it explains this share of the excess.
const EXPLAINS: f64 = 0.8;
/// A version or segment with nearly all of the traffic narrows nothing down, unless it is new.
pub(super) const NEARLY_ALL: f64 = 0.9;
/// A change that begins within this time after a version's first event came with it.
pub(super) const COMES_WITH_MS: i64 = 10 * 60_000;
/// A part whose events changed this many times as much as those of the whole stands out from it.
const STANDS_OUT: f64 = 1.3;
/// So few events of a part say nothing about whether it was spared.
const SAYS_LITTLE: f64 = 20.0;
/// What evidence of a line that has nothing to say comes to by chance, in nats.
const IDLE_NATS: f64 = 4.0;
/// A part that gathered less than this share of what it should have, if it were hit like the part that says most, was spared; and so much
/// it should have gathered for that to be known.
const SPARED_BELOW: f64 = 0.3;
const SHOULD_HAVE_NATS: f64 = 6.0;
/// A part with less of the traffic than this says neither that a change is everywhere nor that it is not.
pub(super) const MATTERS: f64 = 0.05;

/// Where a change sits; empty when it is everywhere.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) versions: Vec<String>,
    pub(super) segments: Vec<Segment>,
    /// It is known that no segment is spared, whichever crossed its threshold first.
    pub(super) everywhere: bool,
}

/// The parts of a model that matter to a change.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    /// The narrowest part that explains it.
    named: Option<GroupKey>,
    /// Parts that changed clearly more than the whole.
    outstanding: Vec<GroupKey>,
    /// Segments, and whether they changed with the whole.
    hit: Vec<(Segment, bool)>,
    /// Segments of which enough is known to say that they changed with the whole.
    surely_hit: usize,
    place: Place,
}

/// What the evidence of a part says since the onset.
#[derive(Clone, Debug)]
struct Heard {
    group: GroupKey,
    n: f64,
    /// In nats, beyond what chance gathers; nothing where it still learns.
    nats: Option<f64>,
    /// It may be all there is, so naming it narrows nothing down.
    nearly_all: bool,
}

impl Place {
    pub(super) fn sits_nowhere(&self) -> bool {
        self.versions.is_empty() && self.segments.is_empty()
    }
}

impl Parts {
    /// No segment was spared, and of more than one this is known.
    fn is_everywhere(&self) -> bool {
        self.named.is_none() && self.outstanding.is_empty() && self.place.segments.is_empty() && self.surely_hit >= 2
    }

    fn stands_out(&self, group: &GroupKey) -> bool {
        self.named.as_ref() == Some(group) || self.named.is_none() && self.outstanding.contains(group)
    }

    /// Where a change sits that shows in no count and no median: each part should have gathered evidence by its events, though no more than
    /// the one that has gathered most, since what a pane may say is bounded.
    fn heard(whole_n: f64, all: &[Heard]) -> Parts {
        let mut parts = Parts::default();
        let mut least = f64::INFINITY;
        for of in all.chunk_by(|a, b| dimension(&a.group) == dimension(&b.group)) {
            let nats = |h: &Heard| h.nats.unwrap_or(0.0);
            let Some(loudest) = of.iter().filter(|h| nats(h) > 0.0).max_by(|a, b| nats(a).total_cmp(&nats(b))) else { continue };
            let should_have = |h: &Heard| nats(loudest) * (h.n / loudest.n).min(1.0);
            let is_hit = |h: &Heard| nats(h) >= SPARED_BELOW * should_have(h);
            let is_known = |h: &Heard| h.nats.is_some() && should_have(h) >= SHOULD_HAVE_NATS;
            let others = || of.iter().filter(|h| h.group != loudest.group);
            let is_only = others().any(|h| h.n >= SAYS_LITTLE) && others().all(|h| is_known(h) && !is_hit(h) || h.n < MATTERS * whole_n);
            if is_only && !loudest.nearly_all && loudest.n < least {
                least = loudest.n;
                parts.named = Some(loudest.group.clone());
            }
            let spared = of.iter().any(|h| is_known(h) && !is_hit(h));
            for h in of {
                if spared && is_hit(h) && is_known(h) && !h.nearly_all {
                    parts.outstanding.push(h.group.clone());
                }
                if let Some(segment) = &h.group.segment {
                    parts.hit.push((segment.clone(), is_hit(h) || !is_known(h)));
                    parts.surely_hit += usize::from(is_hit(h) && is_known(h));
                }
            }
        }
        parts
    }

    /// Where it sits, as segments or versions.
    fn placed(mut self) -> Parts {
        match &self.named {
            Some(GroupKey { segment: Some(segment), .. }) => self.place.segments = vec![segment.clone()],
            Some(named) => self.place.versions = named.version.iter().map(|v| v.to_string()).collect(),
            // Some values of a dimension and not others; a change that is everywhere sits nowhere.
            None => {
                let hit = std::mem::take(&mut self.hit);
                let spared = |d: &str| hit.iter().any(|(s, is_hit)| !is_hit && *s.dimension == *d);
                self.place.segments = hit.iter().filter(|(s, is_hit)| *is_hit && spared(&s.dimension)).map(|(s, _)| s.clone()).collect();
            }
        }
        self
    }
}

/// Of which a part is one; versions are one of another.
fn dimension(group: &GroupKey) -> Option<&str> {
    group.segment.as_ref().map(|s| &*s.dimension)
}

impl Desk {
    /// What of the findings is worth listing, the one that names the incident first, and where the change sits.
    ///
    /// Every signal is asked by itself. The narrowest part that explains the whole's change names it; it need not have spoken
    /// itself, its counts tell. Parts that only share in the change of the whole are its shadows: they stay frozen until they
    /// are back, and are not listed.
    pub(super) fn narrow(&self, key: &IncidentKey, mut found: Vec<Finding>) -> (Vec<Finding>, Place) {
        let size = |f: &Finding| match (f.change, &f.series.signal) {
            (None, _) => 0.0,
            // Deviations from 0 and correlations, which may be negative, are sizes as they are.
            (Some(c), Signal::Embedding(_)) => (c.after - c.before).abs(),
            (Some(c), Signal::Feature(name)) if name == Signal::TOGETHER => (c.after - c.before).abs(),
            (Some(c), _) if c.before > 0.0 && c.after > 0.0 => (c.after / c.before).ln().abs(),
            (Some(_), _) => f64::MAX,
        };
        found.sort_by(|a, b| size(b).total_cmp(&size(a)).then(a.series.cmp(&b.series)).then(a.detector.cmp(&b.detector)));
        let live = self.state.incidents.get(key).filter(|i| i.state.is_live());
        let known: Vec<&Finding> = live.iter().flat_map(|i| &i.findings).filter(|f| f.recovered_at.is_none()).collect();
        let mut listed: Vec<Finding> = Vec::new();
        let mut place: Option<Place> = None;
        let mut asked: Vec<(Signal, String)> = Vec::new();
        for f in &found {
            let what = (f.series.signal.clone(), f.detector.clone());
            if asked.contains(&what) {
                continue;
            }
            asked.push(what);
            let alike: Vec<&Finding> = found.iter().filter(|o| o.series.signal == f.series.signal && o.detector == f.detector).collect();
            let speaks_already = |o: &&&Finding| o.series.signal == f.series.signal && o.detector == f.detector && o.series.group.is_roll_up();
            let parts = self.parts(f, alike.iter().map(|o| o.onset.at).min().unwrap_or(f.onset.at));
            let whole = alike.iter().find(|o| o.series.group.is_roll_up()).copied();
            let named = parts.named.as_ref().map(|group| match alike.iter().find(|o| o.series.group == *group) {
                Some(own) => (*own).clone(),
                None => {
                    // It explains the change but has not crossed its own threshold: it names the incident, the evidence is another's.
                    let mut named = whole.unwrap_or(f).clone();
                    named.series.group = group.clone();
                    named.reason = format!("{}; {} explains it", named.reason, group.words());
                    named
                }
            });
            let whole_speaks = whole.is_some() || known.iter().any(|o| speaks_already(&o));
            let mut of_signal: Vec<Finding> = named.into_iter().collect();
            for o in whole.into_iter().chain(alike.iter().copied().filter(|o| !o.series.group.is_roll_up())) {
                let is_shadow = !o.series.group.is_roll_up() && whole_speaks && !parts.stands_out(&o.series.group);
                if !is_shadow && of_signal.iter().all(|l| l.series_id != o.series_id) {
                    of_signal.push(o.clone());
                }
            }
            if !of_signal.is_empty() {
                let everywhere = parts.is_everywhere();
                place.get_or_insert(Place { everywhere, ..parts.place });
                listed.extend(of_signal);
            }
        }
        (listed, place.unwrap_or_default())
    }

    /// How the change that a finding speaks of is spread over the parts of its model.
    pub(super) fn parts(&self, of: &Finding, from: Time) -> Parts {
        let mut parts = Parts::default();
        let line_of = |g: &crate::judge::Group| g.lines.iter().position(|l| l.series.signal == of.series.signal && l.bank.name() == of.detector);
        let Some((group, whole)) = self.judge.group(&of.series.group.whole()).and_then(|g| Some((g, &g.lines[line_of(g)?]))) else {
            return parts;
        };
        let is_shown = self.judge.line(of.series_id).is_none_or(|(_, line)| line.shows_its_change());
        let usual = whole.bank.baseline().map_or(0.0, |b| b.value);
        let sums = |line: &crate::judge::Line, usual: f64, from: Time| -> (f64, f64) {
            let points = line.points.iter().filter(|p| p.time >= from);
            points.fold((0.0, 0.0), |(excess, n), p| (excess + p.n * (p.value - usual), n + p.n))
        };
        let mut least = f64::INFINITY;
        let mut heard: Vec<Heard> = Vec::new();
        for sibling in self.judge.siblings(&group.key).filter(|s| !s.key.is_roll_up()) {
            let Some(line) = line_of(sibling).map(|l| &sibling.lines[l]) else { continue };
            let is_new = sibling.key.version.is_some() && from.since_ms(sibling.born) < HOUR_MS && sibling.born > group.born.plus_ms(60_000);
            // What is young has its own failure for a baseline; it is held against its model.
            let own = if is_new { None } else { line.bank.baseline() };
            // Parts remember less than the whole.
            let from = if own.is_some() { from.max(line.points.front().map_or(from, |p| p.time)) } else { from };
            let (excess, n) = sums(whole, usual, from);
            let (part, part_n) = sums(line, own.map_or(usual, |b| b.value), from);
            if part_n <= 0.0 || n <= 0.0 {
                continue;
            }
            // A version that had all of the traffic before it began is as little to blame as the whole.
            let came_with_it = is_new && from.since_ms(sibling.born) < COMES_WITH_MS;
            let nearly_all = part_n > NEARLY_ALL * n && !came_with_it;
            if !is_shown {
                let most = line.points.iter().filter(|p| p.time >= from).map(|p| p.log_evidence).fold(0.0, f64::max);
                let judges = matches!(line.state(), DetectorState::Armed | DetectorState::Frozen);
                let nats = judges.then(|| (most - IDLE_NATS).max(0.0));
                heard.push(Heard { group: sibling.key.clone(), n: part_n, nats, nearly_all });
                continue;
            }
            if excess == 0.0 {
                continue;
            }
            let density = (part / part_n) / (excess / n);
            if part / excess >= EXPLAINS && !nearly_all && part_n < least {
                least = part_n;
                parts.named = Some(sibling.key.clone());
            }
            if density >= STANDS_OUT && !nearly_all {
                parts.outstanding.push(sibling.key.clone());
            }
            if let Some(segment) = &sibling.key.segment {
                parts.hit.push((segment.clone(), density >= 0.5 || part_n < SAYS_LITTLE));
                parts.surely_hit += usize::from(density >= 0.5 && part_n >= SAYS_LITTLE);
            }
        }
        if !is_shown {
            heard.sort_by(|a, b| dimension(&a.group).cmp(&dimension(&b.group)));
            parts = Parts::heard(sums(whole, usual, from).1, &heard);
        }
        parts.placed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of one dimension: name, events, nats; where the change sits by them.
    fn place(all: &[(&str, f64, Option<f64>)]) -> (Option<String>, Vec<String>, bool) {
        let group = |value: &str| GroupKey {
            environment: "prod".into(),
            model: "m".into(),
            version: None,
            segment: Some(Segment { dimension: "region".into(), value: value.into() }),
        };
        let whole: f64 = all.iter().map(|(_, n, _)| n).sum();
        let heard =
            |(value, n, nats): &(&str, f64, Option<f64>)| Heard { group: group(value), n: *n, nats: *nats, nearly_all: *n > NEARLY_ALL * whole };
        let parts = Parts::heard(whole, &all.iter().map(heard).collect::<Vec<_>>()).placed();
        let name = |g: &GroupKey| g.segment.as_ref().map(|s| s.value.to_string()).unwrap_or_default();
        let everywhere = parts.is_everywhere();
        (parts.named.as_ref().map(name), parts.place.segments.iter().map(|s| s.value.to_string()).collect(), everywhere)
    }

    #[test]
    fn a_change_that_only_evidence_shows_sits_where_others_are_silent() {
        let at = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<String>>();
        // All the others had to say as much, and did not.
        let one = place(&[("eu", 400.0, Some(14.0)), ("us", 500.0, Some(0.0)), ("apac", 300.0, Some(1.0))]);
        assert_eq!(one, (Some("eu".to_owned()), at(&["eu"]), false));
        // All say something; who crossed the threshold first is luck.
        let all = place(&[("eu", 400.0, Some(14.0)), ("us", 500.0, Some(7.0)), ("apac", 300.0, Some(4.0))]);
        assert_eq!(all, (None, at(&[]), true));
        // Two of three.
        let two = place(&[("eu", 400.0, Some(14.0)), ("us", 500.0, Some(12.0)), ("apac", 300.0, Some(0.0))]);
        assert_eq!(two, (None, at(&["eu", "us"]), false));
        // The other still learns, or had too few events to say anything: nobody knows.
        assert_eq!(place(&[("eu", 400.0, Some(14.0)), ("us", 500.0, None)]), (None, at(&[]), false));
        assert_eq!(place(&[("eu", 400.0, Some(14.0)), ("us", 60.0, Some(0.0))]), (None, at(&[]), false));
        // What is hardly used does not matter beside what is, and says nothing by itself.
        let small = place(&[("eu", 400.0, Some(14.0)), ("us", 500.0, Some(0.0)), ("apac", 10.0, Some(0.0))]);
        assert_eq!(small, (Some("eu".to_owned()), at(&["eu"]), false));
        assert_eq!(place(&[("eu", 400.0, Some(14.0)), ("apac", 10.0, Some(0.0))]), (None, at(&[]), false));
        assert_eq!(place(&[("eu", 400.0, Some(0.0)), ("us", 500.0, Some(0.0))]), (None, at(&[]), false));
    }
}
