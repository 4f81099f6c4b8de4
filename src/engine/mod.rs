//! The engine: records in, incidents and what has to be said out; pure, so that the daemon and the backtest are two drivers of
//! one thing.
//!
//! It holds two halves. The *watch* makes panes of each partition's records and knows nothing of the others; the *desk* judges
//! the panes of all partitions together. What reaches them from elsewhere than the log (a person's act, a partition at rest, the
//! end of history) is an [`Entry`] of the input journal, written before it is applied, so that replaying log and journal after
//! a kill arrives at the same state, byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::decode::{Decoder, Reject};
use crate::domain::alarm::Alarm;
use crate::domain::delivery::Delivery;
use crate::domain::incident::{Incident, TimelineEntry};
use crate::domain::response::Job;
use crate::domain::{GroupKey, Hold, Observation, Time};
use crate::pane::{self, Outbound, PartitionId, Put, Rows, Watch};
use crate::{judge, triage};

mod control;
mod desk;
mod show;
mod storm;
pub mod view;

pub use control::{Control, Entry};
use desk::{Desk, State};

/// Version of everything that a snapshot holds. Another one is refused: its folder is moved away, and all is learned anew from the log.
pub const STATE_VERSION: u32 = 15;

/// What an incident's way depends on beside the evidence.
#[derive(Clone)]
pub struct Settings {
    pub pane: pane::Settings,
    pub judge: judge::Settings,
    pub models: BTreeMap<String, ModelSettings>,
    /// First match wins.
    pub routes: Vec<Route>,
    /// Runbooks, people, escalation: never changed, only replaced.
    pub respond: Arc<crate::respond::Settings>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelSettings {
    pub owner: Option<String>,
    pub exposure: Vec<String>,
}

/// Whom to tell: every condition that is not empty must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Route {
    pub severity: Vec<u8>,
    pub model: Vec<String>,
    pub owner: Vec<String>,
    pub category: Vec<String>,
    pub environment: Vec<String>,
    pub segment: Vec<(String, String)>,
    pub to: Vec<String>,
}

/// What came of it: to be written in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub incidents: Vec<Incident>,
    pub timeline: Vec<TimelineEntry>,
    pub deliveries: Vec<Delivery>,
    pub alarms: Vec<(String, Alarm)>,
    /// Errands outside.
    pub jobs: Vec<Job>,
    /// Incident and what happened to it, in order.
    pub happened: Vec<(String, &'static str)>,
    /// What became of acts, by the number of their journal entry.
    pub answers: Vec<(u64, Result<Option<Incident>, String>)>,
    /// Panes judged.
    pub panes: u64,
}

pub struct Engine {
    watch: Watch,
    desk: Desk,
    /// Turns of partitions known from the journal whose position has not been read yet.
    turns: Vec<Entry>,
    outbound: Vec<Outbound>,
}

// === impl Outcome ===

impl Outcome {
    pub fn is_empty(&self) -> bool {
        self.incidents.is_empty()
            && self.timeline.is_empty()
            && self.deliveries.is_empty()
            && self.alarms.is_empty()
            && self.jobs.is_empty()
            && self.answers.is_empty()
    }
}

// === impl Engine ===

impl Engine {
    pub fn new(settings: Settings) -> Engine {
        let watch = Watch::new(settings.pane.clone());
        let desk = Desk::new(settings);
        Engine { watch, desk, turns: Vec::new(), outbound: Vec::new() }
    }

    /// A partition that will be read: nothing is judged without it until it rests.
    pub fn declare(&mut self, partition: PartitionId) {
        self.desk.declare(partition);
    }

    pub fn knows(&self, partition: PartitionId) -> bool {
        self.desk.knows(partition)
    }

    /// The partition rests, and the journal does not know yet that it wakes at `position`.
    pub fn must_wake(&self, partition: PartitionId, position: i64) -> bool {
        let known = |e: &Entry| matches!(e.control, Control::Wake { partition: p, position: q, .. } if p == partition && q <= position);
        self.desk.rests(partition) && !self.turns.iter().any(known)
    }

    pub fn rests(&self, partition: PartitionId) -> bool {
        self.desk.rests(partition)
    }

    /// The end of history is in the journal but its boundary has not come.
    pub fn awaits_live(&self) -> bool {
        self.desk.awaits_live()
    }

    /// The journal holds acts of before a kill whose boundary has not come again: whoever acts now would be before them.
    pub fn awaits_acts(&self) -> bool {
        self.desk.awaits_acts()
    }

    /// Owners, exposure, routes and runbooks of a new configuration.
    pub fn reroute(&mut self, models: BTreeMap<String, ModelSettings>, routes: Vec<Route>, respond: Arc<crate::respond::Settings>) {
        self.desk.reroute(models, routes, respond);
    }

    /// Would a look at the clock change anything? Whoever asks has to write the look down.
    pub fn wants_tick(&self, wall: Time) -> bool {
        self.desk.incidents().any(|i| crate::incident::is_due(i, wall))
    }

    /// One record as it came.
    ///
    /// # Errors
    /// Why nothing of it can be used; its place in the log is passed all the same.
    pub fn record(
        &mut self,
        partition: PartitionId,
        next_position: i64,
        record_time: Time,
        payload: &[u8],
        decoder: &Decoder,
        kind: Option<&str>,
    ) -> Result<usize, Reject> {
        self.turn(partition, next_position - 1);
        match decoder.decode(payload, record_time, kind) {
            Ok(seen) => {
                let kind = seen.body.kind();
                self.handle(partition, next_position, record_time, &seen);
                Ok(kind)
            }
            Err(reject) => {
                self.watch.rejected(partition, next_position);
                Err(reject)
            }
        }
    }

    /// One record that has been decoded: the same log may be driven many times.
    pub fn observe(&mut self, partition: PartitionId, next_position: i64, record_time: Time, seen: &Observation<'_>) {
        self.turn(partition, next_position - 1);
        self.handle(partition, next_position, record_time, seen);
    }

    fn handle(&mut self, partition: PartitionId, next_position: i64, record_time: Time, seen: &Observation<'_>) {
        self.watch.handle(partition, next_position, record_time, seen, &mut self.outbound);
        if !self.outbound.is_empty() {
            self.carry();
        }
    }

    /// A record that could not even be given to a decoder.
    pub fn rejected(&mut self, partition: PartitionId, next_position: i64) {
        self.turn(partition, next_position - 1);
        self.watch.rejected(partition, next_position);
    }

    fn carry(&mut self) {
        for out in self.outbound.drain(..) {
            self.desk.take(out);
        }
    }

    /// Applies turns of this partition that stand at or before `position`.
    fn turn(&mut self, partition: PartitionId, position: i64) {
        while let Some(at) = self.turns.iter().position(|e| e.control.turn().is_some_and(|(p, q)| p == partition && q <= position)) {
            let entry = self.turns.remove(at);
            self.turn_now(&entry.control);
        }
    }

    fn turn_now(&mut self, control: &Control) {
        match control {
            Control::Rest { partition, .. } => {
                self.watch.rest(*partition, &mut self.outbound);
                self.carry();
                self.desk.rest(*partition);
            }
            Control::Wake { partition, floor, .. } => {
                self.watch.wake(*partition, *floor);
                self.desk.wake(*partition, *floor);
            }
            Control::Live { .. }
            | Control::Act { .. }
            | Control::Hold { .. }
            | Control::EndHold { .. }
            | Control::Tick { .. }
            | Control::Baseline { .. }
            | Control::Forget { .. }
            | Control::Blind { .. }
            | Control::Sighted { .. } => {}
        }
    }

    /// An entry of the journal, new or replayed; in the order of their numbers.
    pub fn enter(&mut self, entry: Entry) {
        self.desk.state.journal_seq = self.desk.state.journal_seq.max(entry.seq);
        match entry.control.turn() {
            Some((partition, position)) => {
                self.turns.push(entry);
                let reached = self.watch.next_position(partition).unwrap_or(0);
                if position <= reached {
                    self.turn(partition, reached);
                }
            }
            None => self.desk.enter(entry),
        }
    }

    /// What the hours before the first record held, oldest first and without holes: seasons need weeks, which a topic seldom keeps.
    pub fn import_hours(&mut self, environment: &str, model: &str, first: Time, requests: &[f64], cost: &[f64]) {
        self.desk.judge.import_hours(&GroupKey::roll_up(environment, model), first, requests, cost);
    }

    /// Judges every pane that is ready.
    pub fn advance(&mut self, out: &mut Outcome) {
        self.desk.advance(out);
        self.watch.reuse(self.desk.spent.drain(..));
    }

    /// Every partition rests: has that lasted longer than any usual gap, or than a model may be silent by its configuration?
    /// In words, if so. Nothing is changed: whoever asks has to write it down.
    pub fn everything_silent(&self, now: Time) -> Option<String> {
        self.desk.everything_silent(now)
    }

    /// Nothing more will come of this partition (the end of a file).
    pub fn finish(&mut self, partition: PartitionId) {
        self.watch.rest(partition, &mut self.outbound);
        self.carry();
        self.desk.rest(partition);
    }

    /// The boundary at which an entry applies that is made now.
    pub fn boundary(&self) -> Time {
        self.desk.state.judged_through.unwrap_or(Time::MIN)
    }

    /// What is entered at the horizon when history is read.
    pub fn end_of_history(&self) -> Control {
        Control::Live { rules_from: self.desk.state.judged_through }
    }

    /// The pane boundary after everything read so far.
    pub fn horizon(&self) -> Time {
        let newest = self.desk_partitions().filter_map(|p| self.watch.watermark(p)).max();
        let pane_ms = self.desk.settings.judge.pane_ms;
        newest.map_or(self.boundary(), |w| w.floor(pane_ms).plus_ms(pane_ms).max(self.boundary()))
    }

    fn desk_partitions(&self) -> impl Iterator<Item = PartitionId> + '_ {
        (0..self.watch.counts_len() as PartitionId).filter(|p| self.desk.knows(*p))
    }

    /// How far this partition has read ahead of the slowest one that is waited for, in panes.
    pub fn panes_ahead(&self, partition: PartitionId) -> i64 {
        self.desk.slowest().map_or_else(
            || if self.watch.watermark(partition).is_some() { self.watch.panes_open(partition) } else { 0 },
            |slowest| self.watch.panes_ahead(partition, slowest),
        )
    }

    /// How far sealing follows reading, in panes.
    pub fn panes_of_lateness(&self) -> i64 {
        1 + self.desk.settings.pane.lateness_ms / self.desk.settings.pane.pane_ms.max(1)
    }

    /// Cells of panes that wait for the slowest partition.
    pub fn cells_waiting(&self) -> usize {
        self.desk.cells_waiting()
    }

    pub fn next_position(&self, partition: PartitionId) -> Option<i64> {
        self.watch.next_position(partition)
    }

    pub fn watermark(&self, partition: PartitionId) -> Option<Time> {
        self.watch.watermark(partition)
    }

    pub fn is_live(&self) -> bool {
        self.desk.judge.is_live()
    }

    pub fn is_blind(&self) -> bool {
        self.desk.is_blind()
    }

    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.desk.incidents()
    }

    /// Silences and maintenance windows that are on, are to come, or were over less than a day ago; newest first.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.desk.holds()
    }

    // --- state ---

    /// Gives out the rows that changed since the last [`Engine::saved`], one after the other.
    ///
    /// # Errors
    /// A value cannot be encoded, which is a bug; told in words.
    pub fn save_to(&mut self, put: Put<'_>) -> Result<(), String> {
        let rows = &mut Rows::new(put);
        self.watch.save(rows)?;
        rows.put("desk".to_owned(), &self.desk.state)?;
        rows.put("judge".to_owned(), &self.desk.judge.core())?;
        rows.put("turns".to_owned(), &self.turns)?;
        self.desk.judge.save(rows)
    }

    /// What [`Engine::save_to`] gave out is kept: what does not change from here on need not be given out again.
    pub fn saved(&mut self) {
        self.desk.judge.saved();
    }

    /// The last entry of the journal that this state has taken in.
    pub fn journal_seq(&self) -> u64 {
        self.desk.state.journal_seq
    }

    /// Rows that changed since they were last kept, all at once.
    ///
    /// # Errors
    /// A value cannot be encoded, which is a bug; told in words.
    pub fn save(&mut self) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut rows = Vec::new();
        self.save_to(&mut |name, bytes| rows.push((name, bytes.to_vec())))?;
        self.saved();
        Ok(rows)
    }

    /// # Errors
    /// When a row is missing or is not of this version.
    pub fn restore(settings: Settings, rows: &[(String, Vec<u8>)]) -> Result<Engine, String> {
        let row = |name: &str| rows.iter().find(|r| r.0 == name).map(|r| r.1.as_slice()).ok_or_else(|| format!("the snapshot has no row {name:?}"));
        let read = |what: &str, e: postcard::Error| format!("the saved {what} cannot be read: {e}");
        let state: State = postcard::from_bytes(row("desk")?).map_err(|e| read("desk", e))?;
        let core: judge::Core = postcard::from_bytes(row("judge")?).map_err(|e| read("judge", e))?;
        let turns: Vec<Entry> = postcard::from_bytes(row("turns")?).map_err(|e| read("turns", e))?;
        let all = |kind: &str| -> Vec<&[u8]> {
            let mut all: Vec<(&str, &[u8])> = rows.iter().filter(|r| r.0.starts_with(kind)).map(|r| (r.0.as_str(), r.1.as_slice())).collect();
            all.sort();
            all.into_iter().map(|g| g.1).collect()
        };
        let watch = Watch::restore(settings.pane.clone(), row(pane::SLOTS_ROW)?, &all(pane::PARTITION_ROWS))?;
        let judge = judge::Judge::restore(settings.judge.clone(), core, &all(judge::GROUP_ROWS), &all(judge::TEMPLATE_ROWS))?;
        Ok(Engine { desk: Desk::with(settings, judge, state), watch, turns, outbound: Vec::new() })
    }

    /// Category of a series, as incidents of it are keyed.
    fn category(signal: &crate::domain::Signal) -> crate::domain::Category {
        triage::category_of(signal)
    }
}
