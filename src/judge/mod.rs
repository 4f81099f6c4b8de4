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
use std::sync::Arc;

use bellwether_detectors::evidence::gap::GapSettings;
use bellwether_detectors::{Call, Change, Onset, Release};
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::domain::incident::Exemplar;
use crate::domain::{GroupKey, SeriesId, SeriesKey, Signal, Time};
use crate::pane::{Cell, Code, Distinct, Leaf, SlotName, slot};

mod budget;
mod line;
mod rules;

pub use line::{Bank, Decided, Feed, Line, Point, thousands};
pub use rules::{RuleFired, Rules};

type Map<K, V> = HashMap<K, V, FixedState>;

/// Sums over an interval for the seasonal bank, milliseconds.
const INTERVAL_MS: i64 = 600_000;
/// Empty intervals fed after a pause; a longer pause is a hole in the data and no evidence.
const EMPTY_INTERVALS_MAX: i64 = 36;
/// Complaints are counted against the predictions of this long.
const EXPOSURE_MINUTES: i64 = 60;
/// Events by which the baseline of a new version is bounded: it starts from its model's, and its own soon outweighs that.
const SUCCESSOR_EVENTS: f64 = 5_000.0;
/// A change found in history that lasts this long is what is normal.
const HISTORY_SETTLES_MS: i64 = 24 * 3_600_000;
/// Panes of users remembered for the scope of an incident.
const USER_PANES: usize = 30;

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
    Held { series: SeriesId, why: String },
    Recovered { series: SeriesId, change: Change },
    Recovering { series: SeriesId },
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
}

/// All lines of one group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Group {
    pub key: GroupKey,
    pub lines: Vec<Line>,
    /// Lines that each slot feeds, by their index.
    by_slot: Vec<(u16, Vec<u16>)>,
    /// Predictions by minute, newest last.
    minutes: VecDeque<(i64, u32)>,
    /// Sums of the running interval: start, predictions, cost in billionths.
    interval: Option<(Time, u64, i64)>,
    has_cost: bool,
    pub born: Time,
    pub last_event_at: Time,
    pub predictions: u64,
    users: VecDeque<(Distinct, Distinct)>,
    #[serde(skip)]
    pub dirty: bool,
}

pub struct Judge {
    settings: Settings,
    slots: Vec<SlotName>,
    groups: Vec<Group>,
    by_key: Map<GroupKey, u32>,
    /// Groups of a model in an environment, by its roll-up's key, in the order of their birth.
    families: Map<GroupKey, Vec<u32>>,
    by_line: Map<SeriesId, (u32, u16)>,
    leaf_groups: Map<Arc<Leaf>, Vec<u32>>,
    /// False pages that live lines may spend on a pane, and when that was last divided.
    pub budget: budget::Budget,
    is_live: bool,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    codes: Vec<(Code, u32)>,
    grid: Vec<(u16, u32)>,
}

/// Saved state beside the groups.
#[derive(Serialize, Deserialize)]
pub struct Core {
    slots: Vec<SlotName>,
    budget: budget::Budget,
    is_live: bool,
}

// === impl Judge ===

impl Judge {
    pub fn new(settings: Settings) -> Judge {
        let budget = budget::Budget::new(settings.false_pages, settings.pane_ms);
        Judge {
            settings,
            slots: SlotName::fixed(),
            groups: Vec::new(),
            by_key: Map::default(),
            families: Map::default(),
            by_line: Map::default(),
            leaf_groups: Map::default(),
            budget,
            is_live: false,
            scratch: Scratch::default(),
        }
    }

    pub fn slot(&mut self, number: u16, name: SlotName) {
        let number = usize::from(number);
        if self.slots.len() == number {
            self.slots.push(name);
        }
    }

    pub fn is_live(&self) -> bool {
        self.is_live
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

    /// One closed pane: its cells by leaf, in the order of leaves. `alive` are producers that sent a heartbeat in it.
    pub fn pane(&mut self, start: Time, cells: &mut [(Arc<Leaf>, Cell)], heartbeats: bool, out: &mut Vec<Said>) {
        let day = start.0.div_euclid(crate::domain::time::DAY_MS);
        if self.budget.day() != Some(day) {
            self.divide(day);
        }
        for g in 0..self.groups.len() {
            if self.groups[g].key.is_roll_up() {
                self.close_intervals(g, start, out);
            }
        }
        // Which cells belong to which group.
        let mut touched: Vec<(u32, u32)> = Vec::new();
        for (i, (leaf, _)) in cells.iter().enumerate() {
            if !self.leaf_groups.contains_key(leaf) {
                let groups: Vec<u32> = leaf.groups().map(|key| self.group_index(key, start)).collect();
                self.leaf_groups.insert(leaf.clone(), groups);
            }
            touched.extend(self.leaf_groups[leaf].iter().map(|g| (*g, i as u32)));
        }
        let groups = &self.groups;
        touched.sort_by(|a, b| if a.0 == b.0 { a.1.cmp(&b.1) } else { groups[a.0 as usize].key.cmp(&groups[b.0 as usize].key) });
        let mut busy_models: Vec<Arc<str>> = cells.iter().filter(|(_, c)| c.predictions > 0).map(|(l, _)| l.model.clone()).collect();
        busy_models.dedup();
        let mut at = 0;
        while at < touched.len() {
            let group = touched[at].0;
            let end = at + touched[at..].iter().take_while(|t| t.0 == group).count();
            self.judge_group(group, &touched[at..end], cells, start, out);
            at = end;
        }
        self.listen(start, cells, &busy_models, heartbeats, out);
    }

    /// Silence: who has not been heard in this pane.
    fn listen(&mut self, start: Time, cells: &[(Arc<Leaf>, Cell)], busy: &[Arc<str>], heartbeats: bool, out: &mut Vec<Said>) {
        let pane_ms = self.settings.pane_ms;
        let mut arrivals: Vec<i64> = Vec::new();
        for g in 0..self.groups.len() {
            if !self.groups[g].key.is_roll_up() {
                continue;
            }
            let group = &mut self.groups[g];
            let Some(at) = group.lines.iter().position(|l| l.series.signal == Signal::Silence) else { continue };
            arrivals.clear();
            let mut marks = [0u64; 4];
            for (_, cell) in cells.iter().filter(|(l, _)| l.model == group.key.model && l.environment == group.key.environment) {
                for (m, a) in marks.iter_mut().zip(cell.arrivals) {
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
            let alive = heartbeats || busy.iter().any(|m| *m != group.key.model);
            let live = self.is_live;
            let line = &mut group.lines[at];
            let call = line.judge(&Feed::Arrivals { at_ms: &arrivals, alive }, start, pane_ms);
            group.dirty = true;
            if let Some(call) = call {
                said(line, call, start, pane_ms, live, Vec::new(), out);
            }
        }
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
                if let Some(call) = line.judge(&Feed::Interval { value, start: at }, at, INTERVAL_MS) {
                    said(line, call, at, INTERVAL_MS, live, Vec::new(), out);
                }
            }
        }
        group.interval = Some((now, 0, 0));
    }

    fn judge_group(&mut self, g: u32, touched: &[(u32, u32)], cells: &mut [(Arc<Leaf>, Cell)], start: Time, out: &mut Vec<Said>) {
        let mut codes = std::mem::take(&mut self.scratch.codes);
        let mut grid = std::mem::take(&mut self.scratch.grid);
        codes.clear();
        for (_, i) in touched {
            codes.extend_from_slice(cells[*i as usize].1.codes());
        }
        if touched.len() > 1 {
            codes.sort_unstable_by_key(|c| c.0);
            codes.dedup_by(|b, a| {
                let same = a.0 == b.0;
                if same {
                    a.1 = a.1.saturating_add(b.1);
                }
                same
            });
        }
        let (mut predictions, mut with_features, mut cost) = (0u32, 0u32, 0i64);
        for (_, i) in touched {
            let cell = &cells[*i as usize].1;
            predictions += cell.predictions;
            with_features += cell.with_features;
            cost = cost.saturating_add(cell.cost_nano);
        }
        self.take_totals(g as usize, touched, cells, start, predictions, cost);
        self.grow(g as usize, &codes, predictions > 0, start);

        let live = self.is_live;
        let pane_ms = self.settings.pane_ms;
        let group = &mut self.groups[g as usize];
        group.dirty = true;
        // Predictions of the last hour, or of what is known of it, per pane.
        let since_ms = group.minutes.front().map_or(start.0, |m| m.0 * 60_000).max(group.born.0);
        let covered_ms = (start.0 + pane_ms - since_ms).clamp(pane_ms, EXPOSURE_MINUTES * 60_000);
        let exposure: f64 = group.minutes.iter().map(|m| f64::from(m.1)).sum::<f64>() * pane_ms as f64 / covered_ms as f64;
        let Group { lines, by_slot, key, .. } = group;
        let exemplars = |failed: bool| -> Vec<Exemplar> {
            let mut kept = crate::pane::Exemplars::default();
            for (_, i) in touched {
                let cell = &cells[*i as usize].1;
                kept.merge(if failed { &cell.failed } else { &cell.usual });
            }
            kept.0
        };
        for (number, fed) in by_slot.iter() {
            let from = codes.partition_point(|c| c.0.slot() < *number);
            let part = &codes[from..from + codes[from..].partition_point(|c| c.0.slot() == *number)];
            let count = |bin: u16| part.iter().find(|c| c.0.bin() == bin).map_or(0.0, |c| f64::from(c.1));
            let all: f64 = part.iter().map(|c| f64::from(c.1)).sum();
            grid.clear();
            grid.extend(part.iter().map(|c| (c.0.bin(), c.1)));
            // Values never met are told by the classes of the same slot, before those learn.
            let unseen: f64 = fed
                .iter()
                .find_map(|l| classes_of(&lines[usize::from(*l)]))
                .map_or(f64::NAN, |bank| grid.iter().filter(|(class, _)| !bank.is_known(*class)).map(|c| f64::from(c.1)).sum());
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
                    (_, Bank::Rate(_) | Bank::Limit(_)) => Feed::Share { hits: count(1), total: all },
                    (_, Bank::Counts(_) | Bank::Seasonal(_) | Bank::Gap(_)) => continue,
                };
                if let Feed::Share { total, .. } = feed
                    && total <= 0.0
                {
                    continue;
                }
                let before = line.is_half_recovered();
                if let Some(call) = line.judge(&feed, start, pane_ms) {
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
        // Use that the model was not made for: the whole model is asked, by its leaves' segments.
        if let Some(at) = lines.iter().position(|l| l.series.signal == Signal::OutOfScope)
            && let Some(model) = self.settings.models.get(&*key.model)
            && predictions > 0
        {
            let outside: u32 = touched
                .iter()
                .map(|(_, i)| &cells[*i as usize])
                .filter(|(leaf, _)| {
                    leaf.segments.iter().any(|s| model.intended_use.get(&*s.dimension).is_some_and(|ok| !ok.iter().any(|v| **v == *s.value)))
                })
                .map(|(_, cell)| cell.predictions)
                .sum();
            let line = &mut lines[at];
            let feed = Feed::Share { hits: f64::from(outside), total: f64::from(predictions) };
            if let Some(call) = line.judge(&feed, start, pane_ms) {
                said(line, call, start, pane_ms, live, Vec::new(), out);
            }
        }
        self.scratch.codes = codes;
        self.scratch.grid = grid;
    }

    /// Totals of the group that outlive the pane.
    fn take_totals(&mut self, g: usize, touched: &[(u32, u32)], cells: &[(Arc<Leaf>, Cell)], start: Time, predictions: u32, cost: i64) {
        let group = &mut self.groups[g];
        group.born = group.born.min(start);
        group.predictions += u64::from(predictions);
        if predictions > 0 {
            group.last_event_at = group.last_event_at.max(start.plus_ms(self.settings.pane_ms));
        }
        let minute = start.0.div_euclid(60_000);
        match group.minutes.back_mut() {
            Some(last) if last.0 == minute => last.1 += predictions,
            _ => group.minutes.push_back((minute, predictions)),
        }
        while group.minutes.front().is_some_and(|m| m.0 <= minute - EXPOSURE_MINUTES) {
            group.minutes.pop_front();
        }
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
            let (mut users, mut failed) = (Distinct::default(), Distinct::default());
            for (_, i) in touched {
                users.merge(&cells[*i as usize].1.users);
                failed.merge(&cells[*i as usize].1.users_failed);
            }
            if group.users.len() == USER_PANES {
                group.users.pop_front();
            }
            group.users.push_back((users, failed));
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
            minutes: VecDeque::new(),
            interval: None,
            has_cost: false,
            born: now,
            last_event_at: Time(0),
            predictions: 0,
            users: VecDeque::new(),
            dirty: true,
        });
        g
    }

    /// Opens the lines that what came in asks for.
    fn grow(&mut self, g: usize, codes: &[(Code, u32)], has_predictions: bool, now: Time) {
        let mut fresh: Vec<(SlotName, u16)> = Vec::new();
        let mut at = 0;
        while let Some((code, _)) = codes.get(at) {
            let number = code.slot();
            if self.groups[g].by_slot.binary_search_by_key(&number, |b| b.0).is_err()
                && let Some(name) = self.slots.get(usize::from(number))
            {
                fresh.push((name.clone(), number));
            }
            at += codes[at..].partition_point(|c| c.0.slot() == number);
        }
        // By name: numbers depend on the order in which partitions were read, and what a birth may spend on the order of births.
        fresh.sort();
        for (name, number) in fresh {
            let fed = self.wanted(&name, g).into_iter().map(|(signal, bank)| self.open_line(g, signal, bank, now)).collect();
            let by_slot = &mut self.groups[g].by_slot;
            let at = by_slot.partition_point(|b| b.0 < number);
            by_slot.insert(at, (number, fed));
        }
        let group = &self.groups[g];
        if !group.key.is_roll_up() || !has_predictions {
            return;
        }
        let has = |signal: &Signal, seasonal: bool| {
            group.lines.iter().any(|l| l.series.signal == *signal && matches!(l.bank, Bank::Seasonal(_)) == seasonal)
        };
        let mut more = Vec::new();
        if !has(&Signal::Traffic, true) {
            more.push((Signal::Traffic, Bank::seasonal(self.limits(&Signal::Traffic).tolerance.unwrap_or(0.05))));
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
    }

    fn open_line(&mut self, g: usize, signal: Signal, bank: Bank, now: Time) -> u16 {
        let key = self.groups[g].key.clone();
        // A new version starts from what its model is like.
        let bank = match &key.version {
            Some(_) => {
                let whole = GroupKey { version: None, ..key.clone() };
                let model_line = self.group(&whole).and_then(|w| w.lines.iter().find(|l| l.series.signal == signal && l.bank.name() == bank.name()));
                match model_line {
                    // Born with its model: nothing to inherit yet that it does not see itself.
                    Some(l) if self.group(&whole).is_some_and(|w| now.since_ms(w.born) > 60_000) => l.bank.succeed(SUCCESSOR_EVENTS),
                    _ => bank,
                }
            }
            None => bank,
        };
        // A version is as old as its model: what is bad from birth must page.
        let whole = GroupKey { version: None, ..key.clone() };
        let born = self.group(&whole).map_or(now, |w| w.born);
        let weight = weight_of(&signal);
        let mut line = Line::new(SeriesKey { group: key, signal }, bank, weight);
        line.injection = self.budget.birth(weight);
        if matches!(line.bank, Bank::Rate(_) | Bank::Bins(_) | Bank::Classes(_) | Bank::Counts(_)) {
            line.judged_from = born.min(now).plus_ms(self.settings.learn_ms);
        }
        let id = line.id;
        let lines = &mut self.groups[g].lines;
        lines.push(line);
        let at = (lines.len() - 1) as u16;
        self.by_line.insert(id, (g as u32, at));
        at
    }

    /// What an hour held, spread evenly over its intervals.
    pub fn import_level(&mut self, environment: &str, model: &str, hour: Time, requests: f64, cost: f64) {
        // Born with its first event, not with what was told of it.
        let g = self.group_index(GroupKey::roll_up(environment, model), Time::MAX) as usize;
        let parts = crate::domain::time::HOUR_MS / INTERVAL_MS;
        for (signal, sum) in [(Signal::Traffic, requests), (Signal::Cost, cost)] {
            if sum <= 0.0 {
                continue;
            }
            let at = match self.groups[g].lines.iter().position(|l| l.series.signal == signal && matches!(l.bank, Bank::Seasonal(_))) {
                Some(at) => at,
                None => {
                    let bank = Bank::seasonal(self.limits(&signal).tolerance.unwrap_or(0.05));
                    usize::from(self.open_line(g, signal, bank, hour))
                }
            };
            if let Bank::Seasonal(bank) = &mut self.groups[g].lines[at].bank {
                for i in 0..parts {
                    bank.import(hour.0 + i * INTERVAL_MS, sum / parts as f64);
                }
            }
        }
    }

    fn limits(&self, signal: &Signal) -> Limits {
        let by_name = self.settings.signals.get(&signal.to_string());
        by_name.or_else(|| self.settings.signals.get(signal.family())).copied().unwrap_or_default()
    }

    fn rate_bank(&self, signal: &Signal) -> Bank {
        let limits = self.limits(signal);
        let floor = match signal {
            Signal::ErrorRate => 0.005,
            Signal::Missing(_) | Signal::Unseen(_) | Signal::Schema => 0.01,
            _ => 0.002,
        };
        Bank::rate(limits.tolerance.unwrap_or(0.2), limits.at_least.unwrap_or(floor))
    }

    fn value_bank(&self, signal: &Signal) -> Bank {
        // A relative tolerance in standard deviations of a value whose logarithm has a spread of 0.6.
        Bank::bins(self.limits(signal).tolerance.map_or(0.1, |t| ((1.0 + t).ln() / 0.6).clamp(0.02, 1.5)))
    }

    /// The lines that a slot opens in a group.
    fn wanted(&self, name: &SlotName, g: usize) -> Vec<(Signal, Bank)> {
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
            SlotName::Label if self.groups[g].by_slot.iter().any(|b| b.0 == slot::SCORE) => vec![],
            SlotName::Label => vec![(Signal::Prediction, Bank::classes(self.limits(&Signal::Prediction).tolerance.unwrap_or(0.2)))],
            SlotName::Empty => rate(Signal::EmptyRate),
            SlotName::Complaint => {
                let limits = self.limits(&Signal::ComplaintRate);
                vec![(Signal::ComplaintRate, Bank::counts(limits.tolerance.unwrap_or(0.2), limits.at_least.unwrap_or(0.002)))]
            }
            SlotName::Schema => rate(Signal::Schema),
            SlotName::Number(_) | SlotName::Class(_) | SlotName::Present(_) if of_segment => vec![],
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
        }
    }

    /// Divides the budget anew: at day boundaries of event time and when history ends, from traffic alone.
    fn divide(&mut self, day: i64) {
        let live: f64 = self.groups.iter().flat_map(|g| &g.lines).map(|l| l.weight).sum();
        self.budget.divide(day, live);
        for group in &mut self.groups {
            group.dirty = true;
            for line in &mut group.lines {
                line.injection = self.budget.share(line.weight);
                line.is_new = false;
            }
        }
        if !self.is_live {
            // What history says for a day is how things are.
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

    /// History ends here: what was found in it stays listed, evidence starts anew, the budget is divided over what lives.
    pub fn start_live(&mut self, now: Time) {
        self.is_live = true;
        self.divide(now.0.div_euclid(crate::domain::time::DAY_MS));
        for line in self.groups.iter_mut().flat_map(|g| &mut g.lines) {
            line.bank.start_live();
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

    /// Distinct users of a model in the last panes, and those with failed predictions: (estimate, low, high).
    pub fn users(&self, model: &GroupKey) -> Option<((f64, f64, f64), (f64, f64, f64))> {
        let group = self.group(&model.whole())?;
        let (mut all, mut failed) = (Distinct::default(), Distinct::default());
        for (a, f) in &group.users {
            all.merge(a);
            failed.merge(f);
        }
        Some((all.estimate(), failed.estimate()))
    }

    // --- state ---

    pub fn core(&self) -> Core {
        Core { slots: self.slots.clone(), budget: self.budget.clone(), is_live: self.is_live }
    }

    /// Groups that changed since they were last taken, by a stable name.
    pub fn take_dirty(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut out = Vec::new();
        for (i, group) in self.groups.iter_mut().enumerate() {
            if std::mem::take(&mut group.dirty)
                && let Ok(bytes) = postcard::to_stdvec(group)
            {
                out.push((format!("group/{i:08}"), bytes));
            }
        }
        out
    }

    /// Puts saved groups back, in the order of their names.
    ///
    /// # Errors
    /// When a row is not a group of this version.
    pub fn restore(settings: Settings, core: Core, groups: &[&[u8]]) -> Result<Judge, String> {
        let mut judge = Judge::new(settings);
        judge.slots = core.slots;
        judge.budget = core.budget;
        judge.budget.set(judge.settings.false_pages, judge.settings.pane_ms);
        judge.is_live = core.is_live;
        for bytes in groups {
            let group: Group = postcard::from_bytes(bytes).map_err(|e| format!("a saved group cannot be read: {e}"))?;
            let g = judge.groups.len() as u32;
            judge.by_key.insert(group.key.clone(), g);
            judge.families.entry(group.key.whole()).or_default().push(g);
            for (i, line) in group.lines.iter().enumerate() {
                judge.by_line.insert(line.id, (g, i as u16));
            }
            judge.groups.push(group);
        }
        Ok(judge)
    }
}

/// What a line's reading means, once it is live.
fn said(line: &mut Line, call: Call, start: Time, pane_ms: i64, live: bool, exemplars: Vec<Exemplar>, out: &mut Vec<Said>) {
    let now = start.plus_ms(pane_ms);
    match call {
        Call::Quiet => line.held = false,
        Call::Held { change, why } => {
            line.change = Some(change);
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
            line.change = Some(change);
            line.onset = Some(Time(onset.at_ms));
            let words = format!("{} → {}", line.unit.words(change.before), line.unit.words(change.after));
            if !live {
                line.decided(now, "listed", format!("{words}, found in history"));
                return;
            }
            line.is_out = true;
            line.half_recovered = false;
            line.decided(now, "raised", words);
            let threshold = -line.injection.ln();
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
            })));
        }
        Call::Recovered { change } => {
            line.change = Some(change);
            line.onset = None;
            line.expected = None;
            line.decided(now, "recovered", format!("back at {}", line.unit.words(change.after)));
            if live && std::mem::take(&mut line.is_out) {
                out.push(Said::Recovered { series: line.id, change });
            }
        }
    }
}

fn classes_of(line: &Line) -> Option<&bellwether_detectors::evidence::classes::ClassBank> {
    match &line.bank {
        Bank::Classes(b) if b.state() != bellwether_detectors::State::Warming => Some(b),
        _ => None,
    }
}

/// How much of the budget a line is worth: if nine in ten series are features, nine in ten false pages must not be drift.
fn weight_of(signal: &Signal) -> f64 {
    match signal {
        Signal::Feature(_) | Signal::Unseen(_) | Signal::Embedding(_) => 0.1,
        Signal::Missing(_) | Signal::Schema | Signal::Prediction => 0.5,
        _ => 1.0,
    }
}
