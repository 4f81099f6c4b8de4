//! Closed panes become alarms, or the reason why not.
//!
//! The everyday picture is a book with one line per series. When a pane closes, each line that it touches is read what came in,
//! judges it against what it knows, and only then learns. The judge knows no clock and no file: panes in, sayings out, in the
//! order of groups and signals, so that the same panes give the same sayings.
//!
//! A group is a model as a whole, one version of it, or one segment of it. The whole is watched on everything; versions and
//! segments on what tells a failure apart (features are watched on the whole and on versions only: their product with segments
//! is the road to a million thin series).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bellwether_detectors::ahead::ask_for;
use bellwether_detectors::evidence::gap::GapSettings;
use bellwether_detectors::evidence::two_group::Outcome;
use bellwether_detectors::{Call, Change, Onset, Release};
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::domain::incident::Exemplar;
use crate::domain::{GroupKey, SeriesId, SeriesKey, Signal, Time};
use crate::pane::{Code, Codes, Distinct, Leaf, LeafCell, Leaves, Rows, Samples, SlotName, renew_order, slot};

mod budget;
mod embedding;
mod fairness;
mod import;
mod joint;
mod line;
mod reference;
mod rules;

pub use budget::Budget;
use embedding::{EmbeddingLine, Vectors};
use fairness::{FairnessBank, Tally};
pub use import::{Import, Learned, PANES_MAX, Provenance, Template};
use joint::JointLine;
pub use line::{Bank, Decided, Feed, Line, Point, Points, thousands};
use reference::DayEnd;
pub use rules::{FiredBy, RuleFired, Rules};

type Map<K, V> = HashMap<K, V, FixedState>;

/// What the rows of saved groups and of references begin with.
pub const GROUP_ROWS: &str = "group/";
pub const TEMPLATE_ROWS: &str = "template/";
/// Sums over an interval for the seasonal bank, milliseconds.
const INTERVAL_MS: i64 = 600_000;
/// The better served group may have a quarter more than the worse, which is the four-fifths rule.
const FOUR_FIFTHS: f64 = 0.25;
/// Begins the name of the rule that tells a slow drift; the signal that drifts follows.
pub const SLOW_DRIFT: &str = "slow_drift:";
/// What is forgiven where the configuration says nothing: relative, and in standard deviations.
const TOLERANCE: f64 = 0.2;
const TOLERANCE_SIGMA: f64 = 0.1;
/// A vector may lie this far away, in standard deviations of one, along whatever direction a change takes.
const TOLERANCE_OF_EMBEDDINGS: f64 = 0.05;
/// Lines of embeddings: each holds about 80 KB, most of it the covariance of its waves.
const EMBEDDING_LINES_MAX: usize = 1_000;
/// Models whose features are taken together: each holds up to 250 KB, two kilobytes for every kind of agreement of every pair.
const JOINT_LINES_MAX: usize = 250;
/// Empty intervals fed after a pause; a longer pause is a hole in the data and no evidence.
const EMPTY_INTERVALS_MAX: i64 = 36;
/// Complaints are counted against the predictions of this long.
const EXPOSURE_MINUTES: i64 = 60;
/// Events by which the baseline of a new version is bounded: it starts from its model's, and its own soon outweighs that.
const SUCCESSOR_EVENTS: f64 = 5_000.0;
/// Traffic of single panes is unruly: changes that are smaller are left to the sums over intervals.
const TRAFFIC_TOLERANCE_MIN: f64 = 0.3;
/// A change found in history that lasts this long is what is normal; a weekend does not.
const HISTORY_SETTLES_MS: i64 = 72 * 3_600_000;
/// Minutes of users remembered for the scope of an incident.
const USER_MINUTES: i64 = 5;
/// Panes of a group are gathered until they hold so many predictions or are so old; decided on numbers alone. A bank that is
/// given one event at a time learns no more than one that is given twenty at once.
const GATHER_PREDICTIONS: u32 = 20;
const GATHER_MS: i64 = 600_000;
/// More codes than this are counted before more are gathered.
const GATHERED_CODES_MAX: usize = 1_024;

/// What change of a signal is worth waking for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Relative: 0.2 forgives 20 %.
    pub tolerance: Option<f64>,
    pub at_least: Option<f64>,
    pub never_above: Option<f64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSettings {
    pub silence_after_ms: Option<i64>,
    /// Dimension and the values that the model was made for.
    pub intended_use: BTreeMap<String, Vec<String>>,
    /// Attributes whose groups are compared.
    pub protected: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub pane_ms: i64,
    /// False pages in 30 days that the user accepts.
    pub false_pages: f64,
    /// By signal (`feature:income`) or family (`feature`).
    pub signals: BTreeMap<String, Limits>,
    pub models: BTreeMap<String, ModelSettings>,
    /// How long a model is learned before anything but a rule may page.
    pub learn_ms: i64,
    /// How long arrivals are learned before silence may page.
    pub silence_armed_after_ms: i64,
}

/// What the judge says at a pane close.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Alarm(Box<Spoken>),
    Held {
        series: SeriesId,
        why: String,
    },
    Recovered {
        series: SeriesId,
        change: Change,
    },
    Recovering {
        series: SeriesId,
    },
    /// A series has crept away from what was learned first, by more than twice the tolerance.
    Drifted {
        series: SeriesKey,
        words: String,
    },
    /// And is back.
    Undrifted {
        series: SeriesKey,
        words: String,
    },
}

/// A bank has reached its threshold with a change beyond tolerance.
#[derive(Clone, Debug, PartialEq)]
pub struct Spoken {
    pub series: SeriesKey,
    pub id: SeriesId,
    pub detector: &'static str,
    pub unit: crate::domain::alarm::Unit,
    pub change: Change,
    pub onset: Onset,
    pub log_evidence: f64,
    pub threshold: f64,
    pub exemplars: Vec<Exemplar>,
    /// Which groups differ, where groups were compared.
    pub named: Option<String>,
}

/// All lines of one group. What every pane touches stands together in memory, at the front: a pane of a large fleet touches tens of
/// thousands of groups, and each line of the cache that it has to fetch costs as much as the arithmetic.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[repr(C)]
pub struct Group {
    pub key: GroupKey,
    pub born: Time,
    pub last_event_at: Time,
    pub predictions: u64,
    #[serde(skip)]
    pub dirty: bool,
    has_cost: bool,
    /// The lines of the whole are open; with cost or without.
    #[serde(skip)]
    grown: Option<bool>,
    gathered: Gathered,
    minutes: Minutes,
    /// Sums of the running interval: start, predictions, cost in billionths.
    interval: Option<(Time, u64, i64)>,
    users: VecDeque<(i64, Distinct, Distinct)>,
    pub lines: Vec<Line>,
    /// Lines that each slot feeds, by their index.
    by_slot: Vec<(u16, Vec<u16>)>,
    /// Of a model as a whole.
    versions: Versions,
}

/// Predictions by minute.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Minutes {
    now: Option<(i64, u32)>,
    /// Newest last.
    before: VecDeque<(i64, u32)>,
}

/// Versions that a model was met with. One alone is the model: it is watched apart from the second on, from what the model is like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Versions {
    #[default]
    None,
    One(Arc<str>),
    Several,
}

/// What came in since the group was judged last.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Gathered {
    since: Option<Time>,
    codes: Codes,
    predictions: u32,
    with_features: u32,
    /// Predictions outside the intended use.
    outside: u32,
    /// Of a model as a whole and of its versions.
    samples: Samples,
}

pub struct Judge {
    settings: Settings,
    slots: Vec<SlotName>,
    /// Which slots are of features: segments are not watched on them.
    of_features: Vec<bool>,
    groups: Vec<Group>,
    by_key: Map<GroupKey, u32>,
    /// Groups of a model in an environment, by its roll-up's key, in the order of their birth.
    families: Map<GroupKey, Vec<u32>>,
    by_line: Map<SeriesId, (u32, u16)>,
    /// Numbers of leaves, and the groups of each by its number, the model's roll-up first. Only a cache.
    pub leaves: Leaves,
    leaf_groups: Vec<Vec<u32>>,
    /// Groups in the order of keys, the place of each in it, and the roll-ups with the lines that listen; renewed when a group is
    /// born.
    order: Vec<u32>,
    ranks: Vec<u32>,
    listeners: Vec<(u32, u16)>,
    /// False pages that live lines may spend on a pane, and when that was last divided.
    pub budget: budget::Budget,
    /// Models that are watched more closely while something is open, and how many times as closely.
    raised: Vec<(GroupKey, f64)>,
    is_live: bool,
    /// Lines of embeddings and of features together, which are bounded, and how often one was not opened for it.
    embedding_lines: usize,
    joint_lines: usize,
    refused: Refused,
    /// What was learned from references.
    templates: Vec<Template>,
    scratch: Scratch,
}

/// How often a line was not opened because there are too many of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub embeddings: u64,
    pub joint: u64,
}

/// Are the fourth, third, second and first of the next groups judged, and not only given more?
type Due = [bool; 4];

#[derive(Default)]
struct Scratch {
    codes: Vec<(Code, u32)>,
    grid: Vec<(u16, u32)>,
    touched: Vec<(u32, u32)>,
    /// The same in order, and where the pairs of each group begin.
    sorted: Vec<(u32, u32)>,
    /// The pairs of one group each.
    spans: Vec<Range<usize>>,
    places: Vec<u32>,
    /// Cells of one model each: from, to, its roll-up.
    runs: Vec<(usize, usize, u32)>,
    arrivals: Vec<i64>,
}

/// Saved state beside the groups.
#[derive(Serialize, Deserialize)]
pub struct Core {
    slots: Vec<SlotName>,
    budget: budget::Budget,
    raised: Vec<(GroupKey, f64)>,
    is_live: bool,
    refused: Refused,
}

// === impl Minutes ===

impl Minutes {
    fn add(&mut self, minute: i64, predictions: u32) {
        match &mut self.now {
            Some(now) if now.0 == minute => now.1 += predictions,
            now => {
                self.before.extend(now.replace((minute, predictions)));
                while self.before.front().is_some_and(|m| m.0 <= minute - EXPOSURE_MINUTES) {
                    self.before.pop_front();
                }
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &(i64, u32)> {
        self.before.iter().chain(&self.now)
    }

    fn first(&self) -> Option<i64> {
        self.iter().next().map(|m| m.0)
    }

    fn predictions(&self) -> f64 {
        self.iter().map(|m| f64::from(m.1)).sum()
    }
}

// === impl Group ===

impl Group {
    /// The version of a model that was met with no other.
    pub fn only_version(&self) -> Option<&str> {
        match &self.versions {
            Versions::One(only) => Some(only),
            Versions::None | Versions::Several => None,
        }
    }
}

// === impl Judge ===

impl Judge {
    pub fn new(settings: Settings) -> Judge {
        let budget = budget::Budget::new(settings.false_pages, settings.pane_ms);
        Judge {
            settings,
            of_features: SlotName::fixed().iter().map(is_of_feature).collect(),
            slots: SlotName::fixed(),
            groups: Vec::new(),
            by_key: Map::default(),
            families: Map::default(),
            by_line: Map::default(),
            leaves: Leaves::default(),
            leaf_groups: Vec::new(),
            order: Vec::new(),
            ranks: Vec::new(),
            listeners: Vec::new(),
            budget,
            raised: Vec::new(),
            is_live: false,
            embedding_lines: 0,
            joint_lines: 0,
            refused: Refused::default(),
            templates: Vec::new(),
            scratch: Scratch::default(),
        }
    }

    pub fn slot(&mut self, number: u16, name: SlotName) {
        let number = usize::from(number);
        if self.slots.len() == number {
            self.of_features.push(is_of_feature(&name));
            self.slots.push(name);
        }
    }

    pub fn is_live(&self) -> bool {
        self.is_live
    }

    pub fn refused(&self) -> Refused {
        self.refused
    }

    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    pub fn line(&self, id: SeriesId) -> Option<(&Group, &Line)> {
        let (g, l) = *self.by_line.get(&id)?;
        let group = &self.groups[g as usize];
        Some((group, &group.lines[usize::from(l)]))
    }

    pub fn line_mut(&mut self, id: SeriesId) -> Option<&mut Line> {
        let (g, l) = *self.by_line.get(&id)?;
        let group = &mut self.groups[g as usize];
        group.dirty = true;
        group.lines.get_mut(usize::from(l))
    }

    pub fn group(&self, key: &GroupKey) -> Option<&Group> {
        self.by_key.get(key).map(|g| &self.groups[*g as usize])
    }

    /// Groups of one model in one environment.
    pub fn siblings(&self, of: &GroupKey) -> impl Iterator<Item = &Group> {
        self.families.get(&of.whole()).into_iter().flatten().map(|g| &self.groups[*g as usize])
    }

    /// Lines of a model whose alarm is out, whichever group they belong to.
    pub fn out_of(&self, of: &GroupKey) -> impl Iterator<Item = &Line> {
        self.siblings(of).flat_map(|g| &g.lines).filter(|l| l.is_out)
    }

    /// Has a pane with this leaf been judged since the start of this process?
    pub fn knows(&self, of: &LeafCell) -> bool {
        self.leaf_groups.get(of.number as usize).is_some_and(|groups| !groups.is_empty())
    }

    /// One closed pane: its cells by leaf, in the order of leaves. `heartbeats`: some producer sent one in it.
    pub fn pane(&mut self, start: Time, cells: &mut [LeafCell], heartbeats: bool, out: &mut Vec<Said>) {
        let day = start.0.div_euclid(crate::domain::time::DAY_MS);
        if self.budget.day() != Some(day) {
            self.divide(day);
            self.compare_with_reference(start, out);
        }
        for at in 0..self.listeners.len() {
            self.close_intervals(self.listeners[at].0 as usize, start, out);
        }
        // Which cells belong to which group.
        let mut touched = std::mem::take(&mut self.scratch.touched);
        let mut runs = std::mem::take(&mut self.scratch.runs);
        touched.clear();
        runs.clear();
        for of in cells.iter() {
            if !self.knows(of) {
                self.meet(&of.leaf, start);
            }
        }
        for (i, of) in cells.iter().enumerate() {
            if !self.knows(of) {
                let whole = self.group_index(of.leaf.whole(), start);
                let is_only = matches!(self.groups[whole as usize].versions, Versions::One(_));
                let keys = of.leaf.groups().filter(|key| !is_only || key.version.is_none());
                let groups: Vec<u32> = keys.map(|key| self.group_index(key, start)).collect();
                let number = of.number as usize;
                self.leaf_groups.resize_with(self.leaf_groups.len().max(number + 1), Vec::new);
                self.leaf_groups[number] = groups;
            }
            let groups = &self.leaf_groups[of.number as usize];
            touched.extend(groups.iter().map(|g| (*g, i as u32)));
            match (runs.last_mut(), groups.first()) {
                (Some(run), Some(g)) if run.2 == *g => run.1 = i + 1,
                (_, Some(g)) => runs.push((i, i + 1, *g)),
                (_, None) => {}
            }
        }
        if self.ranks.len() != self.groups.len() {
            self.rank();
        }
        self.in_order(&mut touched);
        let mut spans = std::mem::take(&mut self.scratch.spans);
        spans.clear();
        let mut at = 0;
        while at < touched.len() {
            let end = at + touched[at..].iter().take_while(|t| t.0 == touched[at].0).count();
            spans.push(at..end);
            at = end;
        }
        let mut due = Due::default();
        for at in 0..spans.len() {
            self.ask_ahead(&spans[at..], &touched, cells, start, &mut due);
            self.judge_group(touched[spans[at].start].0, &touched[spans[at].clone()], cells, start, out);
        }
        self.scratch.spans = spans;
        runs.sort_unstable_by_key(|r| r.2);
        self.listen(start, cells, &runs, heartbeats, out);
        self.scratch.touched = touched;
        self.scratch.runs = runs;
    }

    /// Puts pairs of group and cell, which come in the order of cells, into the order of groups. They are counted into their places
    /// rather than compared: a pane of many thin series touches nearly every group.
    fn in_order(&mut self, touched: &mut Vec<(u32, u32)>) {
        if touched.len() * 16 < self.groups.len() {
            return touched.sort_unstable_by_key(|t| (self.ranks[t.0 as usize], t.1));
        }
        let Scratch { places, sorted, .. } = &mut self.scratch;
        places.clear();
        places.resize(self.groups.len() + 1, 0);
        for (g, _) in touched.iter() {
            places[self.ranks[*g as usize] as usize + 1] += 1;
        }
        for rank in 1..places.len() {
            places[rank] += places[rank - 1];
        }
        sorted.clear();
        sorted.resize(touched.len(), (0, 0));
        for pair in touched.iter() {
            let place = &mut places[self.ranks[pair.0 as usize] as usize];
            sorted[*place as usize] = *pair;
            *place += 1;
        }
        std::mem::swap(touched, sorted);
    }

    /// A leaf that was not met before: its model may have come to a second version.
    fn meet(&mut self, leaf: &Leaf, now: Time) {
        let whole = leaf.whole();
        let w = self.group_index(whole.clone(), now) as usize;
        match &self.groups[w].versions {
            Versions::None => self.groups[w].versions = Versions::One(leaf.version.clone()),
            Versions::One(only) if *only != leaf.version => {
                let first = GroupKey { version: Some(only.clone()), ..whole };
                self.groups[w].versions = Versions::Several;
                self.groups[w].dirty = true;
                self.part(w, first, now);
                // Which groups its leaves belong to has changed.
                for (groups, known) in self.leaf_groups.iter_mut().zip(self.leaves.all()) {
                    if known.model == leaf.model && known.environment == leaf.environment {
                        groups.clear();
                    }
                }
            }
            Versions::One(_) | Versions::Several => {}
        }
    }

    /// The first version of a model is watched apart from now on: all that the model is was its.
    fn part(&mut self, w: usize, first: GroupKey, now: Time) {
        let g = self.group_index(first, now) as usize;
        let whole = &self.groups[w];
        let (minutes, born) = (whole.minutes.clone(), whole.born);
        let (last_event_at, predictions) = (whole.last_event_at, whole.predictions);
        let slots: Vec<u16> = whole.by_slot.iter().map(|b| b.0).collect();
        let group = &mut self.groups[g];
        (group.minutes, group.born, group.last_event_at, group.predictions) = (minutes, born, last_event_at, predictions);
        for number in slots {
            let Some(name) = self.slots.get(usize::from(number)).cloned() else { continue };
            let mut fed = Vec::new();
            for (signal, bank) in self.wanted(&name, g) {
                let own = self.groups[w].lines.iter().find(|l| l.series.signal == signal && l.bank.name() == bank.name());
                let (bank, points) = own.map_or_else(|| (bank, Points::default()), |l| (l.bank.succeed(f64::INFINITY), l.points.clone()));
                let at = self.open_line(g, signal, bank, now);
                self.groups[g].lines[usize::from(at)].points = points;
                fed.push(at);
            }
            self.groups[g].by_slot.push((number, fed));
        }
    }

    /// Was this version of a model met before?
    pub fn has_version(&self, leaf: &Leaf) -> bool {
        let is_only = |g: &Group| matches!(&g.versions, Versions::One(only) if *only == leaf.version);
        self.group(&leaf.whole()).is_some_and(is_only) || self.group(&leaf.of_version()).is_some()
    }

    fn rank(&mut self) {
        let fresh = self.ranks.len() as u32..self.groups.len() as u32;
        renew_order(&mut self.order, fresh, |a, b| self.groups[a as usize].key.cmp(&self.groups[b as usize].key));
        self.ranks.resize(self.order.len(), 0);
        for (rank, g) in self.order.iter().enumerate() {
            self.ranks[*g as usize] = rank as u32;
        }
    }

    /// Silence: who has not been heard in this pane.
    fn listen(&mut self, start: Time, cells: &[LeafCell], runs: &[(usize, usize, u32)], heartbeats: bool, out: &mut Vec<Said>) {
        let (live, pane_ms) = (self.is_live, self.settings.pane_ms);
        let busy = |run: &(usize, usize, u32)| cells[run.0..run.1].iter().any(|c| c.cell.predictions > 0);
        let busy_all = runs.iter().filter(|r| busy(r)).count();
        let mut arrivals = std::mem::take(&mut self.scratch.arrivals);
        for (g, at) in &self.listeners {
            let group = &mut self.groups[*g as usize];
            arrivals.clear();
            let run = runs.binary_search_by_key(g, |r| r.2).ok().map(|i| &runs[i]);
            if let Some((from, to, _)) = run {
                let mut marks = [0u64; 4];
                for of in &cells[*from..*to] {
                    for (m, a) in marks.iter_mut().zip(of.cell.arrivals) {
                        *m |= a;
                    }
                }
                for (w, word) in marks.iter().enumerate() {
                    let mut bits = *word;
                    while bits != 0 {
                        let bit = bits.trailing_zeros() as i64 + 64 * w as i64;
                        arrivals.push(start.0 + bit * pane_ms / crate::pane::SLOTS_PER_PANE);
                        bits &= bits - 1;
                    }
                }
            }
            let alive = heartbeats || busy_all > usize::from(run.is_some_and(busy));
            let line = &mut group.lines[usize::from(*at)];
            let call = line.judge(&Feed::Arrivals { at_ms: &arrivals, alive }, start, pane_ms, 1.0);
            group.dirty = true;
            if let Some(call) = call {
                said(line, call, start, pane_ms, live, Vec::new(), out);
            }
        }
        self.scratch.arrivals = arrivals;
    }

    fn close_intervals(&mut self, g: usize, start: Time, out: &mut Vec<Said>) {
        let live = self.is_live;
        let group = &mut self.groups[g];
        let Some((began, predictions, cost)) = group.interval else { return };
        let now = start.floor(INTERVAL_MS);
        if now <= began {
            return;
        }
        group.dirty = true;
        let empty = (now.since_ms(began) / INTERVAL_MS - 1).min(EMPTY_INTERVALS_MAX);
        for i in 0..=empty {
            let at = if i == 0 { began } else { now.plus_ms(-(empty - i + 1) * INTERVAL_MS) };
            let (requests, amount) = if i == 0 { (predictions as f64, cost as f64 / 1e9) } else { (0.0, 0.0) };
            for line in &mut group.lines {
                let value = match (&line.bank, &line.series.signal) {
                    (Bank::Seasonal(_), Signal::Traffic) => requests,
                    (Bank::Seasonal(_), Signal::Cost) => amount,
                    _ => continue,
                };
                // It is asked once in an interval, and may spend what all its panes may.
                let panes = INTERVAL_MS as f64 / self.settings.pane_ms as f64;
                if let Some(call) = line.judge(&Feed::Interval { value, start: at }, at, INTERVAL_MS, panes) {
                    said(line, call, at, INTERVAL_MS, live, Vec::new(), out);
                }
            }
        }
        group.interval = Some((now, 0, 0));
    }

    /// Asks for the memory of the groups that come after the first while that one is judged: of the fifth the group itself, of the fourth
    /// its lines, of nearer ones what their banks hold, for each of these holds the way to the next. A group that only gathers needs none but the
    /// first. (Asking for cells and their codes as well was no gain: they have just been gathered.)
    #[inline]
    fn ask_ahead(&self, spans: &[Range<usize>], touched: &[(u32, u32)], cells: &[LeafCell], start: Time, due: &mut Due) {
        let group = |after: usize| spans.get(after).map(|span| &self.groups[touched[span.start].0 as usize]);
        if let Some(group) = group(5) {
            ask_for(group);
        }
        due.rotate_right(1);
        due[0] = spans.get(4).is_some_and(|span| {
            let predictions = touched[span.clone()].iter().map(|(_, i)| cells[*i as usize].cell.predictions).sum();
            group(4).is_some_and(|group| self.is_due(&group.gathered, predictions, start))
        });
        for (nearer, _) in due.iter().enumerate().filter(|(_, is_due)| **is_due) {
            let Some(group) = group(4 - nearer) else { continue };
            match nearer {
                0 => ask_for(&*group.lines),
                1 => group.lines.iter().for_each(Line::ask_for_bank),
                2 => group.lines.iter().for_each(|line| line.bank.ask_for_state()),
                _ => group.lines.iter().for_each(|line| line.bank.ask_for_trail()),
            }
        }
    }

    /// Is a group judged that has gathered this and is given so many predictions more in the pane that starts then?
    fn is_due(&self, gathered: &Gathered, predictions: u32, start: Time) -> bool {
        let length_ms = start.plus_ms(self.settings.pane_ms).since_ms(gathered.since.unwrap_or(start));
        gathered.predictions + predictions >= GATHER_PREDICTIONS || length_ms >= GATHER_MS
    }

    fn judge_group(&mut self, g: u32, touched: &[(u32, u32)], cells: &mut [LeafCell], start: Time, out: &mut Vec<Said>) {
        let mut codes = std::mem::take(&mut self.scratch.codes);
        let mut grid = std::mem::take(&mut self.scratch.grid);
        codes.clear();
        let (mut predictions, mut with_features, mut outside, mut cost) = (0u32, 0u32, 0u32, 0i64);
        let intended = self.settings.models.get(&*self.groups[g as usize].key.model).map(|m| &m.intended_use).filter(|uses| !uses.is_empty());
        for (_, i) in touched {
            let LeafCell { leaf, cell, .. } = &cells[*i as usize];
            predictions += cell.predictions;
            with_features += cell.with_features;
            cost = cost.saturating_add(cell.cost_nano);
            if let Some(uses) = intended
                && leaf.segments.iter().any(|s| uses.get(&*s.dimension).is_some_and(|ok| !ok.iter().any(|v| **v == *s.value)))
            {
                outside += cell.predictions;
            }
        }
        self.take_totals(g as usize, touched, cells, start, predictions, cost);
        // Sparse groups gather a few panes first.
        let is_segment = self.groups[g as usize].key.segment.is_some();
        let is_due = self.is_due(&self.groups[g as usize].gathered, predictions, start);
        let gathered = &mut self.groups[g as usize].gathered;
        gathered.predictions += predictions;
        gathered.with_features += with_features;
        gathered.outside += outside;
        let since = *gathered.since.get_or_insert(start);
        let length_ms = start.plus_ms(self.settings.pane_ms).since_ms(since);
        let is_whole = self.groups[g as usize].key.is_roll_up();
        let gathered = &mut self.groups[g as usize].gathered;
        for (_, i) in touched {
            let LeafCell { cell, .. } = &mut cells[*i as usize];
            if !is_segment && !cell.samples.is_empty() {
                gathered.samples.join(&cell.samples, is_whole);
            }
            if is_segment {
                gathered.codes.add_some(cell.entries(), |code| !self.of_features.get(usize::from(code.slot())).is_some_and(|f| *f));
            } else {
                gathered.codes.add_all(cell.entries());
            }
        }
        if !is_due {
            if gathered.codes.fresh_len() > GATHERED_CODES_MAX {
                gathered.codes.count();
            }
            self.groups[g as usize].dirty = true;
            self.scratch.codes = codes;
            self.scratch.grid = grid;
            return;
        }
        let Gathered { predictions, with_features, outside, .. } = *gathered;
        gathered.codes.count_into(&mut codes);
        let samples = std::mem::take(&mut gathered.samples);
        *gathered = Gathered { codes: std::mem::take(&mut gathered.codes), ..Gathered::default() };
        self.grow(g as usize, &codes, predictions > 0, since);
        if is_whole && samples.rows().next().is_some() {
            self.take_together(g as usize, since);
        }

        let live = self.is_live;
        // From here on a pane is what was gathered.
        let (start, pane_ms, panes) = (since, length_ms, length_ms as f64 / self.settings.pane_ms as f64);
        let group = &mut self.groups[g as usize];
        group.dirty = true;
        // Predictions of the last hour, or of what is known of it, per pane.
        let since_ms = group.minutes.first().map_or(start.0, |m| m * 60_000).max(group.born.0);
        let covered_ms = (start.0 + pane_ms - since_ms).clamp(pane_ms.min(EXPOSURE_MINUTES * 60_000), EXPOSURE_MINUTES * 60_000);
        let exposure: f64 = group.minutes.predictions() * pane_ms as f64 / covered_ms as f64;
        let Group { key, lines, by_slot, .. } = group;
        let exemplars = |failed: bool| -> Vec<Exemplar> {
            let mut kept = crate::pane::Exemplars::default();
            for (_, i) in touched {
                let cell = &cells[*i as usize].cell;
                kept.join(if failed { &cell.failed } else { &cell.usual });
            }
            kept.told()
        };
        let mut rest = codes.as_slice();
        for (number, fed) in by_slot.iter() {
            let from = rest.iter().take_while(|c| c.0.slot() < *number).count();
            let (part, after) = rest[from..].split_at(rest[from..].iter().take_while(|c| c.0.slot() == *number).count());
            rest = after;
            let count = |bin: u16| part.iter().find(|c| c.0.bin() == bin).map_or(0.0, |c| f64::from(c.1));
            let all: f64 = part.iter().map(|c| f64::from(c.1)).sum();
            grid.clear();
            grid.extend(part.iter().map(|c| (c.0.bin(), c.1)));
            // Values never met are told by the classes of the same slot, before those learn; vectors of a strange length by their line.
            let unseen = fed.iter().find_map(|l| strangers_of(&lines[usize::from(*l)], &grid)).unwrap_or(f64::NAN);
            for l in fed {
                let line = &mut lines[usize::from(*l)];
                let served = all - count(3);
                let feed = match (&line.series.signal, &line.bank) {
                    (Signal::ErrorRate, _) => Feed::Share { hits: count(1) + count(4), total: served },
                    (Signal::TimeoutRate, _) => Feed::Share { hits: count(2), total: served },
                    (Signal::Missing(_), _) => Feed::Share { hits: (f64::from(with_features) - count(1)).max(0.0), total: f64::from(with_features) },
                    (Signal::Unseen(_), _) if unseen.is_nan() => continue,
                    (Signal::Unseen(_), _) => Feed::Share { hits: unseen, total: all },
                    (Signal::ComplaintRate, _) => Feed::Count { count: count(1), exposure },
                    (_, Bank::Bins(_)) => Feed::Grid(&grid),
                    (_, Bank::Classes(_)) => Feed::Classes(&grid),
                    (_, Bank::Embedding(_)) => Feed::Vectors(Vectors { lengths: &grid, samples: &samples, slot: *number }),
                    (_, Bank::Rate(_) | Bank::Limit(_)) => Feed::Share { hits: count(1), total: all },
                    (_, Bank::Counts(_) | Bank::Seasonal(_) | Bank::Gap(_) | Bank::Fairness(_) | Bank::Joint(_)) => continue,
                };
                if let Feed::Share { total, .. } = feed
                    && total <= 0.0
                {
                    continue;
                }
                let before = line.is_half_recovered();
                if let Some(call) = line.judge(&feed, start, pane_ms, panes) {
                    let failed = matches!(line.series.signal, Signal::ErrorRate | Signal::TimeoutRate | Signal::EmptyRate);
                    let shown = if matches!(call, Call::Alarm { .. }) { exemplars(failed) } else { Vec::new() };
                    said(line, call, start, pane_ms, live, shown, out);
                }
                if live && line.is_out && !before && line.is_half_recovered() && !line.half_recovered {
                    line.half_recovered = true;
                    out.push(Said::Recovering { series: line.id });
                }
            }
        }
        if !key.is_roll_up() {
            self.scratch.codes = codes;
            self.scratch.grid = grid;
            return;
        }
        for line in lines.iter_mut().filter(|l| matches!(l.bank, Bank::Fairness(_))) {
            let tallies = tallies_of(&self.slots, &codes, line.series.signal.name().unwrap_or(""));
            if tallies.is_empty() {
                continue;
            }
            if let Some(call) = line.judge(&Feed::Groups(&tallies), start, pane_ms, panes) {
                said(line, call, start, pane_ms, live, Vec::new(), out);
            }
        }
        if samples.rows().next().is_some()
            && let Some(line) = lines.iter_mut().find(|l| matches!(l.bank, Bank::Joint(_)))
            && let Some(call) = line.judge(&Feed::Together(&samples, &self.slots), start, pane_ms, panes)
        {
            said(line, call, start, pane_ms, live, Vec::new(), out);
        }
        // Use that the model was not made for: the whole model is asked, by its leaves' segments.
        if predictions > 0
            && let Some(line) = lines.iter_mut().find(|l| l.series.signal == Signal::OutOfScope)
        {
            let feed = Feed::Share { hits: f64::from(outside), total: f64::from(predictions) };
            if let Some(call) = line.judge(&feed, start, pane_ms, panes) {
                said(line, call, start, pane_ms, live, Vec::new(), out);
            }
        }
        // Traffic against its season, once that is known: stops and spikes within panes.
        let season = |line: &Line| match &line.bank {
            Bank::Seasonal(b) if line.series.signal == Signal::Traffic => b.level_at(start.0),
            _ => None,
        };
        if let Some(level) = lines.iter().find_map(season)
            && let Some(line) = lines.iter_mut().find(|l| l.series.signal == Signal::Traffic && matches!(l.bank, Bank::Counts(_)))
        {
            let feed = Feed::Count { count: f64::from(predictions), exposure: level * pane_ms as f64 / INTERVAL_MS as f64 };
            if let Some(call) = line.judge(&feed, start, pane_ms, panes) {
                said(line, call, start, pane_ms, live, Vec::new(), out);
            }
        }
        self.scratch.codes = codes;
        self.scratch.grid = grid;
    }

    /// Predictions and cost per hour of an imported reference, oldest first and without holes, before anything is judged.
    pub fn import_hours(&mut self, model: &GroupKey, first: Time, requests: &[f64], cost: &[f64]) {
        // It is born with its first pane: until then nothing about it is new.
        let g = self.group_index(model.whole(), Time::MAX) as usize;
        self.groups[g].has_cost |= cost.iter().any(|c| *c > 0.0);
        self.grow(g, &[], true, first);
        for line in &mut self.groups[g].lines {
            match (&mut line.bank, &line.series.signal) {
                (Bank::Seasonal(b), Signal::Traffic) => b.import_hours(first.0, requests),
                (Bank::Seasonal(b), Signal::Cost) => b.import_hours(first.0, cost),
                _ => {}
            }
        }
        self.groups[g].dirty = true;
    }

    /// Totals of the group that outlive the pane.
    fn take_totals(&mut self, g: usize, touched: &[(u32, u32)], cells: &[LeafCell], start: Time, predictions: u32, cost: i64) {
        let group = &mut self.groups[g];
        group.born = group.born.min(start);
        group.predictions += u64::from(predictions);
        if predictions > 0 {
            group.last_event_at = group.last_event_at.max(start.plus_ms(self.settings.pane_ms));
        }
        let minute = start.0.div_euclid(60_000);
        group.minutes.add(minute, predictions);
        if group.key.is_roll_up() {
            group.has_cost |= cost > 0;
            let interval = start.floor(INTERVAL_MS);
            match &mut group.interval {
                Some((began, n, amount)) if *began == interval => {
                    *n += u64::from(predictions);
                    *amount = amount.saturating_add(cost);
                }
                // The old one was closed before this pane was judged.
                Some(_) | None => group.interval = Some((interval, u64::from(predictions), cost)),
            }
            while group.users.front().is_some_and(|u| u.0 <= minute - USER_MINUTES) {
                group.users.pop_front();
            }
            if group.users.back().is_none_or(|u| u.0 != minute) {
                group.users.push_back((minute, Distinct::default(), Distinct::default()));
            }
            if let Some((_, users, failed)) = group.users.back_mut() {
                for (_, i) in touched {
                    users.merge(&cells[*i as usize].cell.users);
                    failed.merge(&cells[*i as usize].cell.users_failed);
                }
            }
        }
    }

    fn group_index(&mut self, key: GroupKey, now: Time) -> u32 {
        if let Some(g) = self.by_key.get(&key) {
            return *g;
        }
        let g = self.groups.len() as u32;
        self.by_key.insert(key.clone(), g);
        self.families.entry(key.whole()).or_default().push(g);
        self.groups.push(Group {
            key,
            lines: Vec::new(),
            by_slot: Vec::new(),
            minutes: Minutes::default(),
            interval: None,
            has_cost: false,
            grown: None,
            born: now,
            last_event_at: Time(0),
            predictions: 0,
            users: VecDeque::new(),
            versions: Versions::None,
            gathered: Gathered::default(),
            dirty: true,
        });
        g
    }

    /// Opens the lines that what came in asks for.
    fn grow(&mut self, g: usize, codes: &[(Code, u32)], has_predictions: bool, now: Time) {
        let mut fresh: Vec<(SlotName, u16)> = Vec::new();
        // Both are in the order of slots.
        let mut known = self.groups[g].by_slot.iter().map(|b| b.0).peekable();
        let mut last = None;
        for number in codes.iter().map(|c| c.0.slot()) {
            if last.replace(number) == Some(number) {
                continue;
            }
            while known.next_if(|k| *k < number).is_some() {}
            if known.peek() != Some(&number)
                && let Some(name) = self.slots.get(usize::from(number))
            {
                fresh.push((name.clone(), number));
            }
        }
        // By name: numbers depend on the order in which partitions were read, and what a birth may spend on the order of births.
        fresh.sort();
        if self.groups[g].key.is_roll_up() && fresh.iter().any(|(name, _)| matches!(name, SlotName::Group(..))) {
            self.compare_groups(g, codes, now);
        }
        // Most groups are born with all that they will ever hold.
        let more = if self.groups[g].key.is_roll_up() { 6 } else { 1 };
        self.groups[g].lines.reserve_exact(if fresh.is_empty() { 0 } else { fresh.len() + more });
        for (name, number) in fresh {
            let mut fed = Vec::new();
            let wanted = self.wanted(&name, g);
            self.refused.embeddings += u64::from(wanted.is_empty() && matches!(name, SlotName::Embedding(_)) && self.groups[g].key.segment.is_none());
            for (signal, bank) in wanted {
                let bank = self.inherited(g, &signal, bank, now);
                fed.push(self.open_line(g, signal, bank, now));
            }
            let by_slot = &mut self.groups[g].by_slot;
            let at = by_slot.partition_point(|b| b.0 < number);
            by_slot.insert(at, (number, fed));
        }
        let group = &self.groups[g];
        if !group.key.is_roll_up() || !has_predictions || group.grown == Some(group.has_cost) {
            return;
        }
        let has = |signal: &Signal, seasonal: bool| {
            group.lines.iter().any(|l| l.series.signal == *signal && matches!(l.bank, Bank::Seasonal(_)) == seasonal)
        };
        let mut more = Vec::new();
        if !has(&Signal::Traffic, true) {
            more.push((Signal::Traffic, Bank::seasonal(self.limits(&Signal::Traffic).tolerance.unwrap_or(0.05))));
        }
        if !has(&Signal::Traffic, false) {
            more.push((Signal::Traffic, Bank::traffic(self.limits(&Signal::Traffic).tolerance.unwrap_or(0.0).max(TRAFFIC_TOLERANCE_MIN))));
        }
        if group.has_cost && !has(&Signal::Cost, true) {
            more.push((Signal::Cost, Bank::seasonal(self.limits(&Signal::Cost).tolerance.unwrap_or(0.05))));
        }
        let model = self.settings.models.get(&*group.key.model);
        if !has(&Signal::Silence, false) {
            let settings = GapSettings { explicit_ms: model.and_then(|m| m.silence_after_ms), armed_after_ms: self.settings.silence_armed_after_ms };
            more.push((Signal::Silence, Bank::gap(settings)));
        }
        if model.is_some_and(|m| !m.intended_use.is_empty()) && !has(&Signal::OutOfScope, false) {
            more.push((Signal::OutOfScope, self.rate_bank(&Signal::OutOfScope)));
        }
        for (signal, bank) in more {
            self.open_line(g, signal, bank, now);
        }
        self.groups[g].grown = Some(self.groups[g].has_cost);
    }

    /// Opens the line of features that are taken together.
    fn take_together(&mut self, g: usize, now: Time) {
        if self.groups[g].lines.iter().any(|l| matches!(l.bank, Bank::Joint(_))) {
            return;
        }
        if self.joint_lines >= JOINT_LINES_MAX {
            self.refused.joint += 1;
            return;
        }
        let signal = Signal::Feature(Signal::TOGETHER.to_owned());
        self.open_line(g, signal, self.joint_bank(), now);
    }

    fn joint_bank(&self) -> Bank {
        // Only what is said of this signal itself: a tolerance of all features is one of values.
        let asked = self.settings.signals.get(&Signal::Feature(Signal::TOGETHER.to_owned()).to_string()).and_then(|l| l.tolerance);
        Bank::Joint(Box::new(JointLine::new(asked.unwrap_or_else(JointLine::default_tolerance))))
    }

    /// Opens the lines that compare groups. What is compared is the outcome if the events tell one, else failures.
    fn compare_groups(&mut self, g: usize, codes: &[(Code, u32)], now: Time) {
        let model = self.groups[g].key.model.clone();
        let Some(attributes) = self.settings.models.get(&*model).map(|m| m.protected.clone()) else { return };
        for attribute in attributes {
            let signal = Signal::Fairness(attribute.clone());
            let tallies = tallies_of(&self.slots, codes, &attribute);
            if tallies.is_empty() || self.groups[g].lines.iter().any(|l| l.series.signal == signal) {
                continue;
            }
            let decided = tallies.iter().any(|t| t.became[fairness::FAVOURABLE] + t.became[fairness::UNFAVOURABLE] > 0);
            let outcome = if decided { Outcome::Favourable } else { Outcome::Adverse };
            let edge = 1.0 / (1.0 + self.limits(&signal).tolerance.unwrap_or(FOUR_FIFTHS));
            self.open_line(g, signal, Bank::Fairness(Box::new(FairnessBank::new(edge, outcome))), now);
        }
    }

    /// The bank that a new line begins with: a new version starts from what its model is like.
    fn inherited(&self, g: usize, signal: &Signal, bank: Bank, now: Time) -> Bank {
        let key = &self.groups[g].key;
        let Some(whole) = key.version.as_ref().and_then(|_| self.group(&key.whole())) else { return bank };
        match whole.lines.iter().find(|l| l.series.signal == *signal && l.bank.name() == bank.name()) {
            // Born with its model: nothing to inherit yet that it does not see itself.
            Some(l) if now.since_ms(whole.born) > 60_000 => l.bank.succeed(SUCCESSOR_EVENTS),
            _ => bank,
        }
    }

    fn open_line(&mut self, g: usize, signal: Signal, bank: Bank, now: Time) -> u16 {
        let key = self.groups[g].key.clone();
        // A version is as old as its model: what is bad from birth must page.
        let whole = GroupKey { version: None, ..key.clone() };
        let born = self.group(&whole).map_or(now, |w| w.born);
        let weight = weight_of(&signal);
        let mut line = Line::new(SeriesKey { group: key, signal }, bank, weight);
        line.injection = self.budget.birth(weight) * closeness(&self.raised, &line.series.group);
        if matches!(line.bank, Bank::Rate(_) | Bank::Bins(_) | Bank::Classes(_) | Bank::Counts(_) | Bank::Embedding(_) | Bank::Joint(_)) {
            line.judged_from = born.min(now).plus_ms(self.settings.learn_ms);
        }
        if line.series.group.is_roll_up() && matches!(line.bank, Bank::Rate(_) | Bank::Bins(_) | Bank::Classes(_)) {
            line.reference = Some(Box::default());
        }
        self.teach(&mut line, now);
        let id = line.id;
        self.embedding_lines += usize::from(matches!(line.bank, Bank::Embedding(_)));
        self.joint_lines += usize::from(matches!(line.bank, Bank::Joint(_)));
        let lines = &mut self.groups[g].lines;
        lines.push(line);
        let at = (lines.len() - 1) as u16;
        if lines[usize::from(at)].series.signal == Signal::Silence {
            // In the order of groups, as after a restart.
            let place = self.listeners.partition_point(|l| l.0 < g as u32);
            self.listeners.insert(place, (g as u32, at));
        }
        self.by_line.insert(id, (g as u32, at));
        at
    }

    fn limits(&self, signal: &Signal) -> Limits {
        limits_of(&self.settings.signals, signal)
    }

    fn rate_bank(&self, signal: &Signal) -> Bank {
        let limits = self.limits(signal);
        Bank::rate(limits.tolerance.unwrap_or(TOLERANCE), limits.at_least.unwrap_or(floor_of(signal)))
    }

    fn value_bank(&self, signal: &Signal) -> Bank {
        Bank::bins(sigma_of(self.limits(signal)))
    }

    /// The lines that a slot opens in a group.
    fn wanted(&self, name: &SlotName, g: usize) -> Vec<(Signal, Bank)> {
        self.wanted_of(name, g, true)
    }

    /// `fresh`: only what is not there already and has room.
    fn wanted_of(&self, name: &SlotName, g: usize, fresh: bool) -> Vec<(Signal, Bank)> {
        let key = &self.groups[g].key;
        let (of_whole, of_segment) = (key.is_roll_up(), key.segment.is_some());
        let rate = |signal: Signal| -> Vec<(Signal, Bank)> {
            let mut out = vec![(signal.clone(), self.rate_bank(&signal))];
            if of_whole && let Some(limit) = self.limits(&signal).never_above {
                out.push((signal, Bank::limit(limit)));
            }
            out
        };
        let value = |signal: Signal| vec![(signal.clone(), self.value_bank(&signal))];
        match name {
            SlotName::Status => {
                let mut out = rate(Signal::ErrorRate);
                out.extend(rate(Signal::TimeoutRate));
                out
            }
            SlotName::Latency => value(Signal::Latency),
            SlotName::FirstToken => value(Signal::FirstTokenLatency),
            SlotName::TokensIn => value(Signal::TokensIn),
            SlotName::TokensOut => value(Signal::TokensOut),
            SlotName::Cost => value(Signal::Cost),
            SlotName::Score => value(Signal::Prediction),
            // A model that gives a score and a label is judged on the score: the label is a cut of it.
            SlotName::Label if fresh && self.groups[g].by_slot.iter().any(|b| b.0 == slot::SCORE) => vec![],
            SlotName::Label => vec![(Signal::Prediction, Bank::classes(self.limits(&Signal::Prediction).tolerance.unwrap_or(0.2)))],
            SlotName::Empty => rate(Signal::EmptyRate),
            SlotName::Complaint => {
                let limits = self.limits(&Signal::ComplaintRate);
                vec![(Signal::ComplaintRate, Bank::counts(limits.tolerance.unwrap_or(0.2), limits.at_least.unwrap_or(0.002)))]
            }
            SlotName::Schema => rate(Signal::Schema),
            of_feature if of_segment && is_of_feature(of_feature) => vec![],
            SlotName::Number(n) => value(Signal::Feature(n.to_string())),
            SlotName::Class(n) => {
                let signal = Signal::Feature(n.to_string());
                let classes = Bank::classes(self.limits(&signal).tolerance.unwrap_or(0.2));
                let unseen = Signal::Unseen(n.to_string());
                vec![(unseen.clone(), self.rate_bank(&unseen)), (signal, classes)]
            }
            SlotName::Present(n) => rate(Signal::Missing(n.to_string())),
            SlotName::Flag(n) => rate(Signal::Flag(n.to_string())),
            SlotName::Quality(n) => value(Signal::Quality(n.to_string())),
            SlotName::QualityBad(n) => rate(Signal::Quality(n.to_string())),
            // All groups of an attribute are one line, opened with the whole's.
            SlotName::Group(..) => vec![],
            SlotName::Embedding(n) => {
                let (signal, unseen) = (Signal::Embedding(n.to_string()), Signal::Unseen(n.to_string()));
                let tolerance =
                    self.limits(&signal).tolerance.map_or(TOLERANCE_OF_EMBEDDINGS, |t| sigma_of(Limits { tolerance: Some(t), ..Limits::default() }));
                let mut out = Vec::new();
                if self.embedding_lines < EMBEDDING_LINES_MAX || !fresh {
                    out.push((signal, Bank::Embedding(Box::new(EmbeddingLine::new(tolerance)))));
                    // A feature of the same name that came as text is watched for unseen values already.
                    if !fresh || self.groups[g].lines.iter().all(|l| l.series.signal != unseen) {
                        out.insert(0, (unseen.clone(), self.rate_bank(&unseen)));
                    }
                }
                out
            }
        }
    }

    /// Divides the budget anew: at day boundaries of event time and when history ends, from traffic alone.
    fn divide(&mut self, day: i64) {
        let live: f64 = self.groups.iter().flat_map(|g| &g.lines).map(|l| l.weight).sum();
        self.budget.divide(day, live);
        for group in &mut self.groups {
            group.dirty = true;
            let times = closeness(&self.raised, &group.key);
            for line in &mut group.lines {
                line.injection = self.budget.share(line.weight) * times;
            }
        }
        if !self.is_live {
            // What history says for three days is how things are.
            for group in &mut self.groups {
                for line in &mut group.lines {
                    let settled = line.onset.is_some_and(|o| day * crate::domain::time::DAY_MS - o.0 >= HISTORY_SETTLES_MS);
                    if line.state() == crate::domain::DetectorState::Frozen && settled {
                        line.release(Release::NewNormal);
                    }
                }
            }
        }
    }

    /// Watches a model `times` as closely from the next pane on: its lines may spend so much more of the budget. Returns the false
    /// pages in 30 days that this may cost while it lasts.
    pub fn raise(&mut self, model: &GroupKey, times: f64) -> f64 {
        let model = model.whole();
        if times <= 1.0 || self.raised.iter().any(|r| r.0 == model) {
            return 0.0;
        }
        self.raised.push((model.clone(), times));
        let spent: f64 = self.scale(&model, times);
        spent * (1.0 - 1.0 / times) * (30.0 * crate::domain::time::DAY_MS as f64 / self.settings.pane_ms as f64)
    }

    /// As closely as before again.
    pub fn lower(&mut self, model: &GroupKey) {
        let model = model.whole();
        if let Some(at) = self.raised.iter().position(|r| r.0 == model) {
            let (_, times) = self.raised.remove(at);
            self.scale(&model, 1.0 / times);
        }
    }

    /// What the lines of the model may spend on a pane, after it was multiplied.
    fn scale(&mut self, model: &GroupKey, times: f64) -> f64 {
        let mut all = 0.0;
        for group in self.groups.iter_mut().filter(|g| g.key.model == model.model && g.key.environment == model.environment) {
            group.dirty = true;
            for line in &mut group.lines {
                line.injection *= times;
                all += line.injection;
            }
        }
        all
    }

    /// A day has ended: the newest days are laid beside the first ones.
    fn compare_with_reference(&mut self, now: Time, out: &mut Vec<Said>) {
        let live = self.is_live;
        let (signals, groups) = (&self.settings.signals, &mut self.groups);
        for line in groups.iter_mut().flat_map(|g| &mut g.lines) {
            let Some(reference) = &mut line.reference else { continue };
            let limits = limits_of(signals, &line.series.signal);
            let (tolerance, at_least) = match &line.bank {
                Bank::Bins(_) => (sigma_of(limits), 0.0),
                Bank::Classes(_) => (limits.tolerance.unwrap_or(TOLERANCE), 0.0),
                _ => (limits.tolerance.unwrap_or(TOLERANCE), limits.at_least.unwrap_or(floor_of(&line.series.signal))),
            };
            let end = reference.day_ends(&line.bank, tolerance, at_least);
            let (DayEnd::Listed(d) | DayEnd::Ticket(d) | DayEnd::Back(d)) = end else { continue };
            let values = format!("{} → {}", line.unit.words(d.before), line.unit.words(d.after));
            let name = line.series.signal.words();
            let words = match end {
                DayEnd::Back(_) => format!("{name} of the last days is back near what was learned first: {values}"),
                _ => format!("{name} has crept {values} since it was learned, {:.1} tolerances in all", d.tolerances),
            };
            line.decided(now, if matches!(end, DayEnd::Back(_)) { "recovered" } else { "listed" }, words.clone());
            let series = drift_of(&line.series);
            match end {
                DayEnd::Ticket(_) if live => out.push(Said::Drifted { series, words }),
                DayEnd::Back(_) if live => out.push(Said::Undrifted { series, words }),
                _ => {}
            }
        }
    }

    /// The incident of a slow drift was closed; unless it was repaired, the newest days are the yardstick from now on.
    pub fn release_drift(&mut self, series: &SeriesKey, how: Release) {
        let Some(&g) = self.by_key.get(&series.group) else { return };
        let group = &mut self.groups[g as usize];
        group.dirty = true;
        for line in group.lines.iter_mut().filter(|l| drift_of(&l.series).signal == series.signal) {
            let Some(reference) = &mut line.reference else { continue };
            match how {
                Release::Fixed => (reference.is_listed, reference.is_ticket) = (false, false),
                Release::NewNormal | Release::FalseAlarm | Release::Expected => reference.renew(),
            }
        }
    }

    /// History ends here: what was found in it stays listed, evidence starts anew, the budget is divided over what lives.
    pub fn start_live(&mut self, now: Time) {
        self.is_live = true;
        self.divide(now.0.div_euclid(crate::domain::time::DAY_MS));
        self.groups.iter_mut().for_each(|g| g.gathered = Gathered::default());
        for line in self.groups.iter_mut().flat_map(|g| &mut g.lines) {
            line.bank.start_live();
            if let Some(reference) = &mut line.reference {
                reference.settle(false);
            }
            line.onset = None;
            line.held = false;
        }
    }

    /// An incident was closed: its line learns from how.
    pub fn release(&mut self, id: SeriesId, how: Release) {
        if let Some(line) = self.line_mut(id) {
            match how {
                Release::Expected if line.state() == crate::domain::DetectorState::Frozen => line.expect(),
                Release::Expected | Release::Fixed | Release::NewNormal | Release::FalseAlarm => line.release(how),
            }
        }
    }

    /// Distinct users of a model in the last minutes, and those with failed predictions: (estimate, low, high).
    pub fn users(&self, model: &GroupKey) -> Option<((f64, f64, f64), (f64, f64, f64))> {
        let group = self.group(&model.whole())?;
        let (mut all, mut failed) = (Distinct::default(), Distinct::default());
        for (_, a, f) in &group.users {
            all.merge(a);
            failed.merge(f);
        }
        Some((all.estimate(), failed.estimate()))
    }

    // --- state ---

    pub fn core(&self) -> Core {
        Core { slots: self.slots.clone(), budget: self.budget.clone(), raised: self.raised.clone(), is_live: self.is_live, refused: self.refused }
    }

    /// Groups and references that changed since the last [`Judge::saved`], by a stable name.
    ///
    /// # Errors
    /// A value cannot be encoded, which is a bug; told in words.
    pub fn save(&mut self, rows: &mut Rows<'_>) -> Result<(), String> {
        for (i, group) in self.groups.iter_mut().enumerate().filter(|(_, g)| g.dirty) {
            // In whichever order they came in.
            group.gathered.codes.count();
            rows.put(format!("{GROUP_ROWS}{i:08}"), group)?;
        }
        self.templates.iter().enumerate().filter(|(_, t)| t.dirty).try_for_each(|(i, t)| rows.put(format!("{TEMPLATE_ROWS}{i:08}"), t))
    }

    /// What [`Judge::save`] gave out is kept somewhere.
    pub fn saved(&mut self) {
        self.groups.iter_mut().for_each(|g| g.dirty = false);
        self.templates.iter_mut().for_each(|t| t.dirty = false);
    }

    /// Puts saved groups back, in the order of their names.
    ///
    /// # Errors
    /// When a row is not a group, or no template, of this version.
    pub fn restore(settings: Settings, core: Core, groups: &[&[u8]], templates: &[&[u8]]) -> Result<Judge, String> {
        let mut judge = Judge::new(settings);
        for bytes in templates {
            judge.templates.push(postcard::from_bytes(bytes).map_err(|e| format!("a saved reference cannot be read: {e}"))?);
        }
        judge.of_features = core.slots.iter().map(is_of_feature).collect();
        judge.slots = core.slots;
        judge.budget = core.budget;
        judge.budget.set(judge.settings.false_pages, judge.settings.pane_ms);
        judge.raised = core.raised;
        judge.is_live = core.is_live;
        judge.refused = core.refused;
        for bytes in groups {
            let group: Group = postcard::from_bytes(bytes).map_err(|e| format!("a saved group cannot be read: {e}"))?;
            let g = judge.groups.len() as u32;
            judge.by_key.insert(group.key.clone(), g);
            judge.families.entry(group.key.whole()).or_default().push(g);
            for (i, line) in group.lines.iter().enumerate() {
                judge.by_line.insert(line.id, (g, i as u16));
                judge.embedding_lines += usize::from(matches!(line.bank, Bank::Embedding(_)));
                judge.joint_lines += usize::from(matches!(line.bank, Bank::Joint(_)));
                if line.series.signal == Signal::Silence {
                    judge.listeners.push((g, i as u16));
                }
            }
            judge.groups.push(group);
        }
        Ok(judge)
    }
}

/// Below this no rise of a share is worth a page.
fn floor_of(signal: &Signal) -> f64 {
    match signal {
        Signal::ErrorRate => 0.005,
        Signal::Missing(_) | Signal::Unseen(_) | Signal::Schema => 0.01,
        _ => 0.002,
    }
}

/// A relative tolerance in standard deviations of a value whose logarithm has a spread of 0.6.
fn sigma_of(limits: Limits) -> f64 {
    limits.tolerance.map_or(TOLERANCE_SIGMA, |t| ((1.0 + t).ln() / 0.6).clamp(0.02, 1.5))
}

fn limits_of(signals: &BTreeMap<String, Limits>, signal: &Signal) -> Limits {
    signals.get(&signal.to_string()).or_else(|| signals.get(signal.family())).copied().unwrap_or_default()
}

/// The series of a slow drift of another series.
fn drift_of(series: &SeriesKey) -> SeriesKey {
    SeriesKey { group: series.group.clone(), signal: Signal::Rule(format!("{SLOW_DRIFT}{}", series.signal)) }
}

/// What became of the predictions of every group of an attribute, by stratum; `codes` are sorted, so that strata of a group are.
fn tallies_of(slots: &[SlotName], codes: &[(Code, u32)], attribute: &str) -> Vec<Tally> {
    let mut out: Vec<Tally> = Vec::new();
    for (code, n) in codes {
        let Some(SlotName::Group(of, group)) = slots.get(usize::from(code.slot())) else { continue };
        if **of != *attribute {
            continue;
        }
        let (stratum, kind) = (code.bin() >> 2, usize::from(code.bin() & 3));
        match out.last_mut() {
            Some(last) if last.stratum == stratum && last.group == *group => last.became[kind] += n,
            _ => {
                let mut became = [0; 4];
                became[kind] = *n;
                out.push(Tally { group: group.clone(), stratum, became });
            }
        }
    }
    out
}

fn is_of_feature(slot: &SlotName) -> bool {
    matches!(slot, SlotName::Number(_) | SlotName::Class(_) | SlotName::Present(_) | SlotName::Group(..) | SlotName::Embedding(_))
}

/// What a line's reading means, once it is live.
fn said(line: &mut Line, call: Call, start: Time, pane_ms: i64, live: bool, exemplars: Vec<Exemplar>, out: &mut Vec<Said>) {
    let now = start.plus_ms(pane_ms);
    match call {
        Call::Quiet => line.held = false,
        Call::Held { change, why } => {
            line.change = Some(Box::new(change));
            if !line.held {
                line.held = true;
                line.decided(now, "held", why.to_owned());
                if live {
                    out.push(Said::Held { series: line.id, why: why.to_owned() });
                }
            }
        }
        Call::Alarm { change, onset } => {
            line.held = false;
            line.change = Some(Box::new(change));
            line.onset = Some(Time(onset.at_ms));
            let words = format!("{} → {}", line.unit.words(change.before), line.unit.words(change.after));
            if !live {
                line.decided(now, "listed", format!("{words}, found in history"));
                return;
            }
            line.is_out = true;
            line.half_recovered = false;
            line.decided(now, "raised", words);
            let threshold = line.points.back().map_or(0.0, |p| p.threshold);
            out.push(Said::Alarm(Box::new(Spoken {
                series: line.series.clone(),
                id: line.id,
                detector: line.bank.name(),
                unit: line.unit,
                change,
                onset,
                log_evidence: line.last_evidence,
                threshold: if threshold.is_finite() { threshold } else { 0.0 },
                exemplars,
                named: line.named(),
            })));
        }
        Call::Recovered { change } => {
            line.change = Some(Box::new(change));
            line.onset = None;
            line.expected = None;
            line.decided(now, "recovered", format!("back at {}", line.unit.words(change.after)));
            line.settle(!live);
            if live && std::mem::take(&mut line.is_out) {
                out.push(Said::Recovered { series: line.id, change });
            }
        }
    }
}

/// How many of what came in the line has never met, where it is able to tell.
fn strangers_of(line: &Line, grid: &[(u16, u32)]) -> Option<f64> {
    match &line.bank {
        Bank::Classes(b) if b.state() != bellwether_detectors::State::Warming => {
            Some(grid.iter().filter(|(class, _)| !b.is_known(*class)).map(|c| f64::from(c.1)).sum())
        }
        Bank::Embedding(b) => b.strangers(grid),
        _ => None,
    }
}

/// How many times its share a line of this group may spend.
fn closeness(raised: &[(GroupKey, f64)], key: &GroupKey) -> f64 {
    raised.iter().find(|(m, _)| m.model == key.model && m.environment == key.environment).map_or(1.0, |r| r.1)
}

/// How much of the budget a line is worth: if nine in ten series are features, nine in ten false pages must not be drift.
fn weight_of(signal: &Signal) -> f64 {
    match signal {
        Signal::Feature(_) | Signal::Unseen(_) | Signal::Embedding(_) => 0.1,
        Signal::Missing(_) | Signal::Schema | Signal::Prediction => 0.5,
        _ => 1.0,
    }
}
