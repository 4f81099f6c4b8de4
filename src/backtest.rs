//! What would it have paged over this history? The same engine as the daemon's, driven by files, without side effects.
//!
//! Think of a film that is shown again at full speed: the projector reads ahead on a thread of its own, the engine watches as it
//! would have watched live, and whoever asked is told each alarm, each turn of an incident and, last, the sums.
//!
//! Three things differ between a file and the log, and all three are settled here, so that the engine sees none of them:
//! - **A line has no record time**, against which the engine would hold a producer's clock. So one line that claims the year 2199
//!   could seal every pane there is. The lines that follow it are asked instead: a time that most of the next [`AHEAD_RECORDS`]
//!   lines lie more than five minutes before is taken for a broken clock. No wall clock is asked, so that a file gives the same
//!   lines on any day.
//! - **Files of one history come as one a day, or as one a model.** The file whose next event is oldest is read next, so that both
//!   give the same panes and neither fills the memory. Dumps are read in the order given, because their records have places.
//! - **A dump holds several partitions, perhaps one behind the other.** Files are therefore looked through once before, so that
//!   nothing is judged without a partition that is still to come. Standard input can be read once only: there the first
//!   [`HELD_RECORDS`] records are read before anything is judged.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use serde::Serialize;

use crate::decode::{Decoder, Reason};
use crate::domain::alarm::Alarm;
use crate::domain::delivery::Notice;
use crate::domain::incident::Incident;
use crate::domain::time::{DAY_MS, MINUTE_MS};
use crate::domain::{BY_CONFIGURATION, Category, Cause, Decision, HoldKind, IncidentState, Severity, Time};
use crate::engine::{self, Control, Engine, Entry, Outcome};
use crate::pane::PartitionId;
use crate::settings::Window;
use crate::source::file::{FileReader, FileRecord};

/// Lines by which a time is held to be right.
pub const AHEAD_RECORDS: usize = 64;
/// Clocks of producers may differ by this much.
const AHEAD_MS: i64 = 5 * MINUTE_MS;
/// The last line has nobody to be compared with but those before it.
const LAST_AHEAD_MS: i64 = DAY_MS;
/// Records of a dump from standard input that are read before anything is judged.
pub const HELD_RECORDS: u64 = 200_000;
/// Records handed to the engine at once, and batches that may wait.
const BATCH_RECORDS: usize = 1_000;
const BATCHES_WAITING_MAX: usize = 8;
/// Partition under which a plain file is kept.
const PLAIN: i32 = -1;
/// Receiver of the only route: a delivery to it is a page that somebody would have had.
const WHOEVER: &str = "backtest";

/// Where history ends and pages begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LiveFrom {
    /// Nothing is history.
    #[default]
    Beginning,
    /// Panes that begin before are learned and listed.
    At(Time),
    /// All is history.
    Never,
}

/// What one topic's records are read by.
pub struct Reading {
    pub decoder: Decoder,
    /// Kind of the events that name none.
    pub kind: Option<String>,
}

pub struct Options {
    /// `-` is standard input.
    pub files: Vec<PathBuf>,
    pub engine: engine::Settings,
    /// By topic; a dump names its own.
    pub topics: BTreeMap<String, Reading>,
    /// For plain files, and for topics of dumps that are not among `topics`.
    pub usual: Reading,
    pub live_from: LiveFrom,
    /// Models and their packed references.
    pub references: Vec<(String, String)>,
    /// Maintenance windows of the configuration: as in the daemon, whoever fits one is listed and pages nobody.
    pub windows: Vec<Window>,
}

/// What is said while it runs.
#[derive(Debug)]
pub enum Told {
    Line(Line),
    /// A record that could not be used. Every one is told.
    Rejected {
        source: Arc<str>,
        partition: i32,
        /// Of the line, from 1, or the dump's own.
        offset: i64,
        reason: Reason,
        detail: String,
    },
    /// A file cannot be read to its end; the others are read.
    Broken(String),
    /// Bytes read of all files as they lie there.
    Read(u64),
}

/// One line of the machine form.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    Alarm(Box<AlarmLine>),
    Incident(Box<IncidentLine>),
    Summary(Box<Summary>),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AlarmLine {
    pub time: Time,
    pub onset: Option<Time>,
    pub onset_from: Option<Time>,
    pub onset_to: Option<Time>,
    pub model: String,
    pub version: Option<String>,
    pub environment: String,
    pub segment: BTreeMap<String, String>,
    pub signal: String,
    pub detector: String,
    pub decision: Decision,
    pub reason: String,
    pub before: Option<f64>,
    pub after: Option<f64>,
    pub ci95: Option<[f64; 2]>,
    pub unit: &'static str,
    pub log_evidence: Option<f64>,
    pub threshold: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IncidentLine {
    pub id: String,
    /// Of this turn of it.
    pub time: Time,
    pub onset: Time,
    pub severity: Severity,
    pub category: Category,
    pub environment: String,
    pub model: String,
    pub signals: Vec<String>,
    pub scope: Scope,
    pub cause: Option<CauseLine>,
    pub state: IncidentState,
    pub paged: bool,
    pub page_reason: String,
    pub reopened: u32,
    pub title: String,
    pub action: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scope {
    /// Estimated; absent where events name no users.
    pub users: Option<u64>,
    pub segments: Vec<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CauseLine {
    pub best: Cause,
    pub facts: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Accepted, once each.
    pub events: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub rejected_by_reason: BTreeMap<&'static str, u64>,
    pub late: u64,
    pub series: u64,
    pub armed: u64,
    /// Raised.
    pub alarms: u64,
    /// Evidence without a page, and what history held.
    pub held: u64,
    pub incidents: u64,
    /// Calls: opened, reopened and escalated.
    pub pages: u64,
    /// What of the budget of false pages was spent on this history.
    pub expected_false_pages: f64,
    pub from: Option<Time>,
    pub to: Option<Time>,
    pub seconds: f64,
}

/// How it ended.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    pub summary: Summary,
    /// A file could not be read to its end.
    pub broken: bool,
    /// Members that no event has, and the known ones that they may have been meant to be.
    pub hints: BTreeMap<String, &'static str>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the same file is given twice: {path}")]
    Twice { path: String },
    #[error("no file to read")]
    Nothing,
}

/// Bytes of the files as they lie there; `None` if one of them has no size, such as standard input.
pub fn bytes_total(files: &[PathBuf]) -> Option<u64> {
    files.iter().map(|f| std::fs::metadata(f).ok().filter(std::fs::Metadata::is_file).map(|m| m.len())).sum()
}

/// Judges the files. Everything is told in order of time, the summary last.
///
/// # Errors
/// A file that cannot be opened, one that is named twice, none.
pub fn run(options: &Options, tell: &mut dyn FnMut(Told)) -> Result<Ending, Error> {
    let began = Instant::now();
    let mut projector = Projector::open(options)?;
    let (out, messages) = sync_channel(BATCHES_WAITING_MAX);
    let mut watcher = Watcher::new(options);
    std::thread::scope(|scope| {
        scope.spawn(move || projector.show(&out));
        watcher.watch(&messages, tell);
    });
    Ok(watcher.end(began, tell))
}

// === impl Line ===

impl Line {
    pub fn alarm(alarm: &Alarm) -> Line {
        let group = &alarm.series.group;
        let change = alarm.change.as_ref();
        Line::Alarm(Box::new(AlarmLine {
            time: alarm.time,
            onset: Some(alarm.onset.at),
            onset_from: Some(alarm.onset.from),
            onset_to: Some(alarm.onset.to),
            model: group.model.to_string(),
            version: group.version.as_ref().map(|v| v.to_string()),
            environment: group.environment.to_string(),
            segment: group.segment.iter().map(|s| (s.dimension.to_string(), s.value.to_string())).collect(),
            signal: alarm.series.signal.to_string(),
            detector: alarm.detector.clone(),
            decision: alarm.decision,
            reason: alarm.reason.clone(),
            before: change.map(|c| c.before),
            after: change.map(|c| c.after),
            ci95: change.map(|c| [c.low, c.high]),
            unit: alarm.unit.as_str(),
            log_evidence: alarm.log_evidence,
            threshold: alarm.threshold,
        }))
    }

    pub fn incident(incident: &Incident) -> Line {
        let mut signals: Vec<String> = Vec::new();
        for finding in &incident.findings {
            let signal = finding.series.signal.to_string();
            if !signals.contains(&signal) {
                signals.push(signal);
            }
        }
        Line::Incident(Box::new(IncidentLine {
            id: incident.id.clone(),
            time: incident.updated_at,
            onset: incident.onset.at,
            severity: incident.severity,
            category: incident.key.category,
            environment: incident.key.environment.clone(),
            model: incident.key.model.clone(),
            signals,
            scope: Scope {
                users: incident.users_affected.map(|u| u.estimate.round().max(0.0) as u64),
                segments: (incident.segments.iter()).map(|s| BTreeMap::from([(s.dimension.to_string(), s.value.to_string())])).collect(),
            },
            cause: incident.cause.as_ref().map(|c| CauseLine { best: c.best, facts: c.facts.clone() }),
            state: incident.state,
            paged: incident.paged,
            page_reason: incident.page_reason.clone(),
            reopened: incident.reopened,
            title: incident.title.clone(),
            action: incident.action.clone(),
        }))
    }

    fn time(&self) -> Option<Time> {
        match self {
            Line::Alarm(a) => Some(a.time),
            Line::Incident(i) => Some(i.time),
            Line::Summary(_) => None,
        }
    }
}

// === the projector: reads ===

/// What the engine's side is told.
enum Message {
    /// Nothing is judged without these until they end.
    Known(Vec<Part>),
    Batch {
        items: Vec<Item>,
        bytes_read: u64,
    },
    Ended(PartitionId),
    Broken(String),
}

#[derive(Clone)]
struct Part {
    id: PartitionId,
    topic: Arc<str>,
    partition: i32,
}

struct Item {
    part: Part,
    offset: i64,
    /// When it was recorded, or what stands for it. `Time::MAX`: nobody knows.
    time: Time,
    value: Vec<u8>,
    oversize: u64,
}

struct Projector<'a> {
    options: &'a Options,
    lanes: Vec<Lane>,
    parts: HashMap<(Arc<str>, i32), Part>,
    /// Records of each partition of dumps that are still to come, where that could be counted.
    left: HashMap<PartitionId, u64>,
    /// Known before the first record.
    known: Vec<Part>,
}

/// What is read in its own order: a plain file, or all dumps.
struct Lane {
    /// The first is being read.
    files: VecDeque<Opened>,
    is_dump: bool,
    /// Read ahead, with the event's own time where it was needed.
    ahead: VecDeque<(FileRecord, Option<Time>)>,
    /// The time that stands for the record in front. `None`: nothing is left.
    head: Option<Time>,
    newest: Option<Time>,
    bytes_of_ended: u64,
    /// What could not be read, not told yet.
    broken: Vec<String>,
}

struct Opened {
    path: PathBuf,
    reader: FileReader,
    /// Read to learn what kind of file it is.
    first: Option<FileRecord>,
}

impl<'a> Projector<'a> {
    fn open(options: &'a Options) -> Result<Projector<'a>, Error> {
        if options.files.is_empty() {
            return Err(Error::Nothing);
        }
        let mut lanes: Vec<Lane> = Vec::new();
        let mut dumps: VecDeque<Opened> = VecDeque::new();
        for (i, path) in options.files.iter().enumerate() {
            if options.files[..i].contains(path) {
                return Err(Error::Twice { path: path.display().to_string() });
            }
            let fail = |source| Error::File { path: path.display().to_string(), source };
            let mut reader = FileReader::open(path).map_err(fail)?;
            let first = reader.next_record().map_err(fail)?;
            let is_dump = reader.is_dump();
            let opened = Opened { path: path.clone(), reader, first };
            match is_dump {
                true => dumps.push_back(opened),
                false => lanes.push(Lane::new(VecDeque::from([opened]), false, options)),
            }
        }
        let mut projector = Projector { options, lanes, parts: HashMap::new(), left: HashMap::new(), known: Vec::new() };
        if !dumps.is_empty() {
            projector.count(&dumps)?;
            projector.lanes.push(Lane::new(dumps, true, options));
        }
        Ok(projector)
    }

    /// Looks dumps through for their partitions. What cannot be read twice is left alone.
    fn count(&mut self, dumps: &VecDeque<Opened>) -> Result<(), Error> {
        if dumps.iter().any(|d| d.reader.bytes_total().is_none()) {
            return Ok(());
        }
        let mut counts: BTreeMap<(Arc<str>, i32), u64> = BTreeMap::new();
        for Opened { path, .. } in dumps {
            let mut reader = FileReader::open(path).map_err(|source| Error::File { path: path.display().to_string(), source })?;
            // Damage is told when it is met again.
            while let Ok(Some(record)) = reader.next_record() {
                *counts.entry((record.topic, record.partition)).or_default() += 1;
            }
        }
        for ((topic, partition), n) in counts {
            let part = self.part(&topic, partition);
            self.left.insert(part.id, n);
            self.known.push(part);
        }
        Ok(())
    }

    fn part(&mut self, topic: &Arc<str>, partition: i32) -> Part {
        if let Some(part) = self.parts.get(&(topic.clone(), partition)) {
            return part.clone();
        }
        let part = Part { id: self.parts.len() as PartitionId, topic: topic.clone(), partition: partition.max(0) };
        self.parts.insert((topic.clone(), partition), part.clone());
        part
    }

    /// Hands over everything. Ends early when nobody listens.
    fn show(&mut self, out: &SyncSender<Message>) {
        if !self.known.is_empty() && out.send(Message::Known(self.known.clone())).is_err() {
            return;
        }
        let mut items = Vec::with_capacity(BATCH_RECORDS);
        loop {
            let next = self.lanes.iter().enumerate().filter_map(|(i, lane)| Some((lane.head?, i))).min();
            let Some((time, i)) = next else { break };
            let lane = &mut self.lanes[i];
            let Some(record) = lane.take(self.options) else { break };
            let (broken, is_over) = (std::mem::take(&mut lane.broken), !lane.is_dump && lane.head.is_none());
            // A file may have the name of a topic.
            let partition = if lane.is_dump { record.partition } else { PLAIN };
            let part = self.part(&record.topic, partition);
            let is_last = match self.left.get_mut(&part.id) {
                Some(n) => {
                    let was_one = *n == 1;
                    *n = n.saturating_sub(1);
                    was_one
                }
                None => is_over,
            };
            let FileRecord { offset, value, oversize, .. } = record;
            items.push(Item { part: part.clone(), offset, time, value, oversize });
            if items.len() == BATCH_RECORDS || is_last || !broken.is_empty() {
                let bytes_read = self.lanes.iter().map(Lane::bytes_read).sum();
                let batch = std::mem::replace(&mut items, Vec::with_capacity(BATCH_RECORDS));
                let mut sent = out.send(Message::Batch { items: batch, bytes_read });
                if is_last && sent.is_ok() {
                    sent = out.send(Message::Ended(part.id));
                }
                for words in broken {
                    sent = sent.and_then(|()| out.send(Message::Broken(words)));
                }
                if sent.is_err() {
                    return;
                }
            }
        }
        let bytes_read = self.lanes.iter().map(Lane::bytes_read).sum();
        let _ = out.send(Message::Batch { items, bytes_read });
    }
}

impl Lane {
    fn new(files: VecDeque<Opened>, is_dump: bool, options: &Options) -> Lane {
        let mut lane = Lane { files, is_dump, ahead: VecDeque::new(), head: None, newest: None, bytes_of_ended: 0, broken: Vec::new() };
        lane.look(options);
        lane
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_of_ended + self.files.front().map_or(0, |f| f.reader.bytes_read())
    }

    /// The record in front.
    fn take(&mut self, options: &Options) -> Option<FileRecord> {
        let (record, _) = self.ahead.pop_front()?;
        self.newest = self.newest.max(self.head.filter(|t| *t < Time::MAX));
        self.look(options);
        Some(record)
    }

    /// Reads ahead and settles what time stands for the record in front.
    fn look(&mut self, options: &Options) {
        while self.ahead.len() < AHEAD_RECORDS {
            let Some(file) = self.files.front_mut() else { break };
            let next = match file.first.take() {
                Some(first) => Ok(Some(first)),
                None => file.reader.next_record(),
            };
            match next {
                Ok(Some(record)) => {
                    let time = if self.is_dump || record.oversize > 0 { None } else { options.event_time(&record) };
                    self.ahead.push_back((record, time));
                }
                ended => {
                    if let Err(why) = ended {
                        self.broken.push(format!("{} cannot be read to its end: {why}", file.path.display()));
                    }
                    self.bytes_of_ended += file.reader.bytes_read();
                    self.files.pop_front();
                }
            }
        }
        self.head = self.ahead.front().map(|(record, time)| record.time.unwrap_or_else(|| self.plausible(*time)));
    }

    /// The event's own time unless most of those behind it lie well before.
    fn plausible(&self, own: Option<Time>) -> Time {
        let times = || self.ahead.iter().filter_map(|(_, time)| *time);
        let n = times().count();
        let Some(middle) = n.checked_sub(1).map(|last| last / 2) else { return Time::MAX };
        match (own, self.newest) {
            (Some(own), Some(newest)) if n == 1 && own.since_ms(newest) > LAST_AHEAD_MS => newest,
            (Some(own), _) if times().filter(|t| *t < own.plus_ms(-AHEAD_MS)).count() <= middle => own,
            _ => {
                let mut all: Vec<Time> = times().collect();
                *all.select_nth_unstable(middle).1
            }
        }
    }
}

// === impl Options ===

impl Options {
    fn reading(&self, topic: &str) -> &Reading {
        self.topics.get(topic).unwrap_or(&self.usual)
    }

    /// What the event says of its time; a dump's lines are not asked, for its partitions may stand one behind the other.
    fn event_time(&self, record: &FileRecord) -> Option<Time> {
        let seen = self.usual.decoder.decode(&record.value, Time::MAX, self.usual.kind.as_deref()).ok()?;
        seen.envelope.time
    }
}

// === the watcher: judges and tells ===

struct Watcher<'a> {
    options: &'a Options,
    engine: Engine,
    outcome: Outcome,
    entries: u64,
    /// Known before the first record: everything is judged as it comes.
    all_known: bool,
    records: u64,
    was_live: bool,
    /// Where each incident stood when it was last told.
    told: BTreeMap<String, (IncidentState, Severity, u32, bool)>,
    pages: u64,
    /// What history held.
    listed: u64,
    rejected: BTreeMap<&'static str, u64>,
    repeated: u64,
    span: Option<(Time, Time)>,
    broken: bool,
    seen: Vec<PartitionId>,
    /// Days of which the windows are announced, and those windows: which, and from when.
    days: BTreeSet<i64>,
    announced: BTreeSet<(usize, Time)>,
}

impl<'a> Watcher<'a> {
    fn new(options: &'a Options) -> Watcher<'a> {
        let mut settings = options.engine.clone();
        settings.routes = vec![engine::Route { to: vec![WHOEVER.to_owned()], ..engine::Route::default() }];
        let mut watcher = Watcher {
            options,
            engine: Engine::new(settings),
            outcome: Outcome::default(),
            entries: 0,
            all_known: false,
            records: 0,
            was_live: false,
            told: BTreeMap::new(),
            pages: 0,
            listed: 0,
            rejected: BTreeMap::new(),
            repeated: 0,
            span: None,
            broken: false,
            seen: Vec::new(),
            days: BTreeSet::new(),
            announced: BTreeSet::new(),
        };
        for (model, packed) in &options.references {
            watcher.enter(Time::MIN, Control::Baseline { model: model.clone(), environment: None, packed: packed.clone() });
        }
        let live = match options.live_from {
            LiveFrom::Beginning => Some(Time::MIN),
            LiveFrom::At(time) => Some(time),
            LiveFrom::Never => None,
        };
        if let Some(at) = live {
            // So much was still open when the daemon had read its history.
            let pane = &options.engine.pane;
            let history_open_ms = pane.pane_ms + pane.lateness_ms;
            watcher.enter(at, Control::Live { rules_from: Some(at.plus_ms(-history_open_ms)) });
        }
        watcher
    }

    fn enter(&mut self, at: Time, control: Control) {
        self.entries += 1;
        self.engine.enter(Entry { seq: self.entries, at, control });
    }

    /// Windows that are on within the day of an event, or the next. The daemon announces them by the wall's clock; here the events' is all
    /// there is.
    fn announce(&mut self, time: Time) {
        if self.options.windows.is_empty() || !self.days.insert(time.0.div_euclid(DAY_MS)) {
            return;
        }
        let day = time.floor(DAY_MS);
        for (i, window) in self.options.windows.iter().enumerate() {
            for (from, until) in window.within(day, day.plus_ms(2 * DAY_MS)) {
                if self.announced.insert((i, from)) {
                    let (matcher, why, harm, by) = (window.matcher.clone(), window.why.clone(), window.harm, BY_CONFIGURATION.to_owned());
                    let at = self.engine.boundary();
                    self.enter(at, Control::Hold { kind: HoldKind::Maintenance, matcher, from, until, by, why, harm });
                }
            }
        }
    }

    fn watch(&mut self, messages: &Receiver<Message>, tell: &mut dyn FnMut(Told)) {
        for message in messages {
            match message {
                Message::Known(parts) => {
                    self.all_known = true;
                    for part in parts {
                        self.engine.declare(part.id);
                        self.seen.push(part.id);
                    }
                }
                Message::Batch { items, bytes_read } => {
                    for item in items {
                        self.take(item, tell);
                    }
                    tell(Told::Read(bytes_read));
                }
                Message::Ended(part) => self.engine.finish(part),
                Message::Broken(words) => {
                    self.broken = true;
                    tell(Told::Broken(words));
                }
            }
            if self.all_known || self.seen.len() < 2 || self.records >= HELD_RECORDS {
                self.judge(tell);
            }
        }
    }

    fn take(&mut self, item: Item, tell: &mut dyn FnMut(Told)) {
        let Item { part, offset, time, value, oversize } = item;
        self.records += 1;
        if !self.engine.knows(part.id) {
            self.seen.push(part.id);
            self.engine.declare(part.id);
            let floor = self.engine.boundary();
            if floor > Time::MIN {
                // What was judged without it is judged; what it has for those panes is late.
                self.enter(floor, Control::Wake { partition: part.id, position: offset, floor });
            }
        }
        let next = offset.saturating_add(1);
        if self.engine.next_position(part.id).is_some_and(|position| next <= position) {
            self.repeated += 1;
            return;
        }
        if time < Time::MAX {
            self.span = Some(self.span.map_or((time, time), |(from, to)| (from.min(time), to.max(time))));
            self.announce(time);
        }
        let (reason, detail) = if oversize > 0 {
            self.engine.rejected(part.id, next);
            (Reason::TooLarge, format!("the record has {oversize} bytes"))
        } else {
            let reading = self.options.reading(&part.topic);
            match self.engine.record(part.id, next, time, &value, &reading.decoder, reading.kind.as_deref()) {
                Ok(_) => return,
                Err(reject) => (reject.reason, reject.detail),
            }
        };
        *self.rejected.entry(reason.as_str()).or_default() += 1;
        tell(Told::Rejected { source: part.topic, partition: part.partition, offset, reason, detail });
    }

    fn judge(&mut self, tell: &mut dyn FnMut(Told)) {
        self.engine.advance(&mut self.outcome);
        if self.engine.is_live() && !self.was_live {
            self.was_live = true;
            self.list(tell);
        }
        if self.outcome.is_empty() {
            return;
        }
        let out = std::mem::take(&mut self.outcome);
        self.pages +=
            out.deliveries.iter().filter(|d| matches!(d.message.notice, Notice::Opened | Notice::Escalated | Notice::Reopened)).count() as u64;
        let mut lines: Vec<Line> = out.alarms.iter().map(|(_, alarm)| Line::alarm(alarm)).collect();
        for incident in &out.incidents {
            let now = (incident.state, incident.severity, incident.reopened, incident.paged);
            if self.told.insert(incident.id.clone(), now) != Some(now) {
                lines.push(Line::incident(incident));
            }
        }
        // Stable, so that of one moment the alarms come before what became of them.
        lines.sort_by_key(Line::time);
        lines.into_iter().for_each(|line| tell(Told::Line(line)));
    }

    /// What was found in history: it is listed and pages nobody.
    fn list(&mut self, tell: &mut dyn FnMut(Told)) {
        let mut lines: Vec<Line> = Vec::new();
        for view in self.engine.series(None, usize::MAX) {
            let Some(page) = self.engine.series_page(view.id) else { continue };
            let group = &view.key.group;
            for (time, _, why) in page.decisions.iter().filter(|(_, what, _)| what == "listed") {
                lines.push(Line::Alarm(Box::new(AlarmLine {
                    time: *time,
                    onset: None,
                    onset_from: None,
                    onset_to: None,
                    model: group.model.to_string(),
                    version: group.version.as_ref().map(|v| v.to_string()),
                    environment: group.environment.to_string(),
                    segment: group.segment.iter().map(|s| (s.dimension.to_string(), s.value.to_string())).collect(),
                    signal: view.key.signal.to_string(),
                    detector: view.detector.clone(),
                    decision: Decision::Held,
                    reason: format!("{} {why}", view.key.signal.words()),
                    before: None,
                    after: None,
                    ci95: None,
                    unit: view.unit.as_str(),
                    log_evidence: None,
                    threshold: None,
                })));
            }
        }
        self.listed += lines.len() as u64;
        lines.sort_by_key(Line::time);
        lines.into_iter().for_each(|line| tell(Told::Line(line)));
    }

    fn end(mut self, began: Instant, tell: &mut dyn FnMut(Told)) -> Ending {
        for part in std::mem::take(&mut self.seen) {
            if !self.engine.rests(part) {
                self.engine.finish(part);
            }
        }
        self.judge(tell);
        if !self.was_live {
            self.list(tell);
        }
        let view = self.engine.view();
        let s = view.series;
        let summary = Summary {
            events: view.events,
            duplicates: view.duplicates + self.repeated,
            rejected: self.rejected.values().sum(),
            rejected_by_reason: std::mem::take(&mut self.rejected),
            late: view.late,
            series: s.warming + s.armed + s.starved + s.frozen + s.off,
            armed: s.armed,
            alarms: view.alarms_raised,
            held: view.alarms_held + self.listed,
            incidents: self.told.len() as u64,
            pages: self.pages,
            expected_false_pages: view.budget_spent,
            from: self.span.map(|s| s.0),
            to: self.span.map(|s| s.1),
            seconds: (began.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        };
        tell(Told::Line(Line::Summary(Box::new(summary.clone()))));
        let decoders = self.options.topics.values().chain([&self.options.usual]).flat_map(|r| r.decoder.hints());
        let hints = decoders.filter_map(|hint| Some((hint.name, hint.nearest?))).collect();
        Ending { summary, broken: self.broken, hints }
    }
}
