//! Event time, watermarks and de-duplication of each source partition; its open panes, and the moment they are sealed.
//!
//! The everyday picture is a row of letter boxes by the minute. A partition fills the boxes; its watermark is the newest minute
//! it has seen; a box is sealed when the watermark has passed it by the allowed lateness, and a letter for a sealed box is
//! counted as late, never dropped in silence. All of this is a pure function of the partition's prefix.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use bellwether_detectors::evidence::embedding::Folded;
use bellwether_detectors::sketch::log_linear::bin_of;
use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use super::cell::{BoxedCell, Cell, Told};
use super::ids::Ids;
use super::leaf::{Leaf, SlotName, slot};
use super::open::{OpenPane, open_pane};
use super::rows::Rows;
use super::sample::Row;
use crate::domain::observation::{Body, Fault, FeatureValue, FeedbackKind, Flag, PipelineState, Prediction, Status};
use crate::domain::series::{StableHash, UNKNOWN};
use crate::domain::{Observation, Segment, Time};

type Map<K, V> = HashMap<K, V, FixedState>;

/// Where the saved state lies: the slots' names, and what a partition's row begins with.
pub const SLOTS_ROW: &str = "slots";
pub const PARTITION_ROWS: &str = "partition/";

/// Index of a source partition, given out by whoever drives the watch; stable over restarts by its name.
pub type PartitionId = u32;

/// Looks at an output before it is redacted: `Some((rule, words))` when it holds what must never be in an output.
pub type Scan = Arc<dyn Fn(&str, &str) -> Option<(String, String)> + Send + Sync>;

/// Bounds with names; each has a counter in [`Counts`].
#[derive(Clone, Debug)]
pub struct Limits {
    /// Values of one segment dimension of one model and partition that get series of their own; the rest is `other`.
    pub segment_values_max: usize,
    /// Leaves of one partition.
    pub leaves_max: usize,
    /// Distinct things measured in the whole process.
    pub slots_max: u16,
    /// Ids remembered per partition for de-duplication, and for how long in event time.
    pub dedup_ids_max: usize,
    pub dedup_window_ms: i64,
    /// Facts of one pane of one partition.
    pub facts_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            segment_values_max: 100,
            leaves_max: 50_000,
            slots_max: 60_000,
            dedup_ids_max: 400_000,
            dedup_window_ms: 3_600_000,
            facts_max: 10_000,
        }
    }
}

#[derive(Clone)]
pub struct Settings {
    pub pane_ms: i64,
    pub lateness_ms: i64,
    /// Configured segment dimensions.
    pub dimensions: Vec<String>,
    pub currency: String,
    /// Names of segments and features that exemplars may show; everything else is left out.
    pub exemplar_allow: Vec<String>,
    /// By model: whose groups are told apart.
    pub protected: BTreeMap<String, Protected>,
    pub limits: Limits,
    pub scan: Option<Scan>,
}

/// What is needed to compare groups of people.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Protected {
    pub attributes: Vec<String>,
    /// Labels that are good for whom they befall.
    pub favourable: Vec<String>,
}

/// Something said once that the judge needs at its time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fact {
    pub time: Time,
    pub environment: Option<String>,
    pub model: Option<String>,
    pub version: Option<String>,
    pub kind: FactKind,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FactKind {
    Deployment {
        phase: String,
        target: String,
        previous_version: Option<String>,
    },
    Pipeline {
        job: String,
        state: String,
        error: Option<String>,
    },
    /// A flag that a person or a policy confirmed.
    Confirmed {
        flag: String,
        id: String,
    },
    /// A planted string or a secret was seen in an output.
    Leak {
        rule: String,
        words: String,
        id: String,
    },
    Heartbeat {
        producer: String,
        expected_interval_s: u32,
    },
    Report {
        summary: String,
        source: String,
    },
}

/// What one partition contributes to one pane: final when it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    pub partition: PartitionId,
    pub pane: Time,
    /// Position of the last event of the partition when the pane was sealed.
    pub stamp: i64,
    pub cells: Vec<(Arc<Leaf>, Box<Cell>)>,
    pub facts: Vec<Fact>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outbound {
    Slot(u16, SlotName),
    Sealed(Contribution),
    /// Everything of this partition before this moment is sealed.
    SealedThrough(PartitionId, Time),
}

/// Totals of one partition: exact after any kill, because they are part of its state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Accepted events, once each, late ones included.
    pub events: u64,
    pub duplicates: u64,
    pub rejected: u64,
    pub late: u64,
    pub unattributed: u64,
    pub without_time: u64,
    pub fields_coerced: u64,
    pub fields_invalid: u64,
    pub fields_cut: u64,
    pub times_clamped: u64,
    pub foreign_currency: u64,
    pub segments_as_other: u64,
    pub slots_dropped: u64,
    /// Vectors of embeddings beyond those that a cell samples.
    pub embeddings_unsampled: u64,
    /// Events whose leaf did not fit and was counted as `other`.
    pub leaves_as_other: u64,
    pub facts_dropped: u64,
    pub dedup_forgotten: u64,
    pub per_kind: [u64; 8],
    /// Accepted predictions and other events per model, in the order in which the models were met.
    pub per_model: Vec<(String, u64)>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Partition {
    position: i64,
    watermark: Option<Time>,
    /// Panes before this are sealed, whatever the watermark says: set when the partition woke from idleness.
    floor: Option<Time>,
    open: Vec<OpenPane>,
    leaves: Vec<Arc<Leaf>>,
    /// By a leaf's number in the table of all leaves.
    #[serde(skip)]
    leaf_index: Vec<LeafHere>,
    recent: Ids,
    older: Ids,
    recent_since: Option<Time>,
    admitted: Vec<Admitted>,
    /// Where the values of a model stand in `admitted`: few, one for each dimension.
    #[serde(skip)]
    admitted_of: Map<Arc<str>, Vec<usize>>,
    counts: Counts,
    #[serde(skip)]
    model_index: Map<Arc<str>, usize>,
}

/// Values of one dimension of one model that have series of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Admitted {
    model: Arc<str>,
    dimension: Arc<str>,
    values: Vec<Arc<str>>,
    /// The same, where walking them would take long.
    #[serde(skip)]
    set: HashSet<Arc<str>, FixedState>,
}

/// Slots of what one model's events carry, so that the usual event looks up no name.
#[derive(Clone, Debug, Default)]
struct Shape {
    /// In the order in which features were first met: most producers never change it, so position is tried first.
    features: Vec<FeatureSlots>,
    feature_index: Map<Arc<str>, usize>,
    flags: Vec<(Arc<str>, u16)>,
    /// Attribute, group, slot.
    groups: Vec<(String, String, u16)>,
}

#[derive(Clone, Debug)]
struct FeatureSlots {
    name: Arc<str>,
    present: u16,
    number: Option<u16>,
    class: Option<u16>,
    embedding: Option<u16>,
}

/// All partitions of this process.
pub struct Watch {
    settings: Settings,
    partitions: Vec<Partition>,
    slots: Vec<SlotName>,
    slot_by_name: Map<SlotName, u16>,
    shapes: Vec<Shape>,
    shape_by_model: Map<Arc<str>, u32>,
    leaves: LeafTable,
    names: Names,
    /// Empty cells, to be used again, and how many are kept at most.
    spare: Vec<BoxedCell>,
    spare_max: usize,
}

/// One of each name that leaves, slots and models are known by, so it is bounded as they are. The usual event is compared with names
/// that its model knows; where thousands of models and leaves share them, they are near.
#[derive(Debug, Default)]
struct Names(HashSet<Arc<str>, FixedState>);

/// One of each leaf for all partitions, so it is bounded as they are.
#[derive(Debug, Default)]
struct LeafTable {
    all: Vec<Arc<Leaf>>,
    by_leaf: Map<Arc<Leaf>, u32>,
    /// The same by a hash of what an event says, with a second hash that must agree: the usual event builds no leaf to look for it,
    /// and reads no names. Who could make two names agree in both could as well write the other's name. Only a cache.
    by_hash: Map<u64, (u64, u32)>,
    /// The shape of each leaf's model, where it was looked for.
    shapes: Vec<Option<u32>>,
}

/// Where a leaf stands in a partition's leaves, or `NOWHERE`; and where its model stands in the partition's counts, if there.
#[derive(Clone, Copy, Debug)]
struct LeafHere {
    index: u32,
    model: u32,
}

/// An event's leaf: its number in the table of all leaves, and where it stands in its partition.
#[derive(Clone, Copy)]
struct LeafPlace {
    number: u32,
    index: u32,
}

/// Parts of the watch that every partition uses.
struct Common<'a> {
    settings: &'a Settings,
    slots: &'a mut Vec<SlotName>,
    slot_by_name: &'a mut Map<SlotName, u16>,
    shapes: &'a mut Vec<Shape>,
    shape_by_model: &'a mut Map<Arc<str>, u32>,
    leaves: &'a mut LeafTable,
    names: &'a mut Names,
    spare: &'a mut Vec<BoxedCell>,
}

// === impl Watch ===

impl Watch {
    pub fn new(settings: Settings) -> Watch {
        let slots = SlotName::fixed();
        let slot_by_name = slots.iter().cloned().zip(0u16..).collect();
        Watch {
            settings,
            partitions: Vec::new(),
            slots,
            slot_by_name,
            shapes: Vec::new(),
            shape_by_model: Map::default(),
            leaves: LeafTable::default(),
            names: Names::default(),
            spare: Vec::new(),
            spare_max: 0,
        }
    }

    /// State as rows, [`SLOTS_ROW`] and one for each partition: a pure function of the prefixes read.
    ///
    /// # Errors
    /// Only if a value cannot be encoded, which is a bug; told in words.
    pub fn save(&self, rows: &mut Rows<'_>) -> Result<(), String> {
        rows.put(SLOTS_ROW.to_owned(), &self.slots)?;
        self.partitions.iter().enumerate().try_for_each(|(i, p)| rows.put(format!("{PARTITION_ROWS}{i:08}"), p))
    }

    /// The rows of partitions come in the order of their names.
    ///
    /// # Errors
    /// When the bytes are not a state of this version.
    pub fn restore(settings: Settings, slots: &[u8], partitions: &[&[u8]]) -> Result<Watch, String> {
        let unreadable = |e: postcard::Error| format!("saved panes cannot be read: {e}");
        let slots: Vec<SlotName> = postcard::from_bytes(slots).map_err(unreadable)?;
        if !slots.starts_with(&SlotName::fixed()) {
            return Err("saved panes are of another version: their fixed slots differ".to_owned());
        }
        let mut watch = Watch::new(settings);
        watch.slot_by_name = slots.iter().cloned().zip(0u16..).collect();
        watch.slots = slots;
        watch.partitions = partitions.iter().map(|bytes| postcard::from_bytes(bytes).map_err(unreadable)).collect::<Result<_, _>>()?;
        for p in &mut watch.partitions {
            p.model_index = p.counts.per_model.iter().enumerate().map(|(i, (m, _))| (watch.names.get(m), i)).collect();
            for (index, leaf) in p.leaves.iter_mut().enumerate() {
                let number = watch.leaves.number(&mut watch.names, (**leaf).clone());
                *leaf = watch.leaves.all[number as usize].clone();
                let model = p.model_index.get(&leaf.model).map_or(NOWHERE, |at| *at as u32);
                set_at(&mut p.leaf_index, number, LeafHere { index: index as u32, model });
            }
            for (i, a) in p.admitted.iter_mut().enumerate() {
                (a.model, a.dimension) = (watch.names.get(&a.model), watch.names.get(&a.dimension));
                a.values.iter_mut().for_each(|value| *value = watch.names.get(value));
                if a.values.len() > ADMITTED_WALKED_MAX {
                    a.set = a.values.iter().cloned().collect();
                }
                p.admitted_of.entry(a.model.clone()).or_default().push(i);
            }
        }
        Ok(watch)
    }

    /// Cells that have been judged are filled again. How many are kept follows what comes back at a time; what is too many is given
    /// up by and by.
    pub fn reuse(&mut self, cells: impl ExactSizeIterator<Item = Box<Cell>>) {
        if cells.len() == 0 {
            return;
        }
        let less = self.spare_max - self.spare_max / SPARE_CELLS_FADE;
        self.spare_max = less.max(SPARE_PANES * cells.len()).clamp(SPARE_CELLS_MIN, SPARE_CELLS_MAX);
        let room = self.spare_max.saturating_sub(self.spare.len());
        self.spare.truncate(self.spare_max);
        // They are emptied when they are taken: then they are near anyway.
        self.spare.extend(cells.take(room).map(|cell| if cell.is_large() { BoxedCell::default() } else { cell }));
    }

    /// Slots known so far, for a judge that starts beside a restored watch.
    pub fn slots(&self) -> &[SlotName] {
        &self.slots
    }

    /// Next position to be read of a partition, if it was read before.
    pub fn next_position(&self, partition: PartitionId) -> Option<i64> {
        self.partitions.get(partition as usize).filter(|p| p.position > 0).map(|p| p.position)
    }

    pub fn counts(&self) -> Vec<Counts> {
        self.partitions.iter().map(|p| p.counts.clone()).collect()
    }

    pub fn counts_len(&self) -> usize {
        self.partitions.len()
    }

    /// Panes between the oldest open one and the newest event of a partition.
    pub fn panes_open(&self, partition: PartitionId) -> i64 {
        self.partitions.get(partition as usize).map_or(0, |p| p.open.len() as i64)
    }

    /// How far ahead of `slowest` this partition's open panes reach, in panes.
    pub fn panes_ahead(&self, partition: PartitionId, slowest: Time) -> i64 {
        let newest = self.partitions.get(partition as usize).and_then(|p| p.watermark);
        newest.map_or(0, |w| w.since_ms(slowest) / self.settings.pane_ms)
    }

    pub fn watermark(&self, partition: PartitionId) -> Option<Time> {
        self.partitions.get(partition as usize).and_then(|p| p.watermark)
    }

    fn partition(&mut self, id: PartitionId) -> &mut Partition {
        let id = id as usize;
        if self.partitions.len() <= id {
            self.partitions.resize_with(id + 1, Partition::default);
        }
        &mut self.partitions[id]
    }

    /// A record that could not be decoded: its place in the log is passed.
    pub fn rejected(&mut self, partition: PartitionId, next_position: i64) {
        let p = self.partition(partition);
        if next_position <= p.position {
            return; // Read before, as in `handle`; going back would let the records after it count twice.
        }
        p.position = next_position;
        p.counts.rejected += 1;
    }

    /// Nothing has come for long: seals all that is open; what still comes for those panes is late.
    pub fn rest(&mut self, id: PartitionId, out: &mut Vec<Outbound>) {
        self.partition(id);
        self.finish(id, out);
        if let Some(Outbound::SealedThrough(_, through)) = out.last() {
            let through = *through;
            self.wake(id, through);
        }
    }

    /// The partition was idle and wakes: panes before `floor` were closed without it.
    pub fn wake(&mut self, partition: PartitionId, floor: Time) {
        let p = self.partition(partition);
        p.floor = p.floor.max(Some(floor));
    }

    /// One decoded record. `next_position` is where reading would go on after it.
    pub fn handle(&mut self, id: PartitionId, next_position: i64, record_time: Time, seen: &Observation<'_>, out: &mut Vec<Outbound>) {
        self.partition(id);
        let settings = &self.settings;
        let p = &mut self.partitions[id as usize];
        if next_position <= p.position {
            return; // Read before: the log is replayed from before our state.
        }
        p.position = next_position;
        for fault in &seen.faults {
            match fault.fault {
                Fault::Coerced => p.counts.fields_coerced += 1,
                Fault::Invalid => p.counts.fields_invalid += 1,
                Fault::Cut => p.counts.fields_cut += 1,
                Fault::Clamped => p.counts.times_clamped += 1,
            }
        }
        let time = match seen.envelope.time {
            Some(time) => time,
            None => {
                p.counts.without_time += 1;
                if record_time == Time::MAX { p.watermark.unwrap_or(Time(0)) } else { record_time }
            }
        };
        let mut id_hash = 0;
        if let Some(event_id) = &seen.envelope.id {
            let mut h = StableHash::new();
            id_hash = h.part(&[seen.body.kind() as u8]).part(event_id.as_bytes()).finish();
            if !p.first_sight(id_hash, time, &settings.limits) {
                p.counts.duplicates += 1;
                return;
            }
        }
        p.counts.events += 1;
        p.counts.per_kind[seen.body.kind()] += 1;
        let start = time.floor(settings.pane_ms);
        let sealed = p.watermark.is_some_and(|w| start.plus_ms(settings.pane_ms + settings.lateness_ms) <= w) || p.floor.is_some_and(|f| start < f);
        // What has a leaf is counted with it.
        let has_leaf = !sealed && matches!(seen.body, Body::Prediction(_) | Body::Quality(_) | Body::Feedback(_));
        if let Some(model) = seen.envelope.model.as_ref().filter(|_| !has_leaf) {
            p.count_model(&mut self.names, model);
        }
        if sealed {
            p.counts.late += 1;
            // What is counted cannot reopen a pane; what is said once (a deployment, a leak) is told late rather than never.
            if let Some(open) = p.first_open(settings) {
                let facts = facts_of(settings, seen, time);
                p.keep_facts(settings, open, facts);
            }
            return;
        }
        let mut common = Common {
            settings,
            slots: &mut self.slots,
            slot_by_name: &mut self.slot_by_name,
            shapes: &mut self.shapes,
            shape_by_model: &mut self.shape_by_model,
            leaves: &mut self.leaves,
            names: &mut self.names,
            spare: &mut self.spare,
        };
        if p.add(&mut common, start, time, id_hash, seen, out) {
            p.advance(id, settings, time, out);
        }
    }

    /// Nothing more will come of this partition (the end of a file): seals all that is open.
    pub fn finish(&mut self, id: PartitionId, out: &mut Vec<Outbound>) {
        let settings = &self.settings;
        let Some(p) = self.partitions.get_mut(id as usize) else {
            return;
        };
        p.seal_before(id, Time::MAX, out);
        out.push(Outbound::SealedThrough(id, p.watermark.unwrap_or(Time(0)).floor(settings.pane_ms).plus_ms(settings.pane_ms)));
    }
}

/// Empty cells kept for the next panes: as many as so many panes hold, for partitions run ahead of each other; at most, at least, and
/// the part that is given up with every pane that needs fewer.
const SPARE_PANES: usize = 3;
const SPARE_CELLS_MAX: usize = 65_536;
const SPARE_CELLS_MIN: usize = 1_024;
const SPARE_CELLS_FADE: usize = 16;
/// Values of a segment dimension that are found by walking.
const ADMITTED_WALKED_MAX: usize = 16;
/// No index of a leaf.
const NOWHERE: u32 = u32::MAX;
/// Of a cache that no other process reads.
const LEAF_HASH: FixedState = FixedState::with_seed(1);
const LEAF_CHECK: FixedState = FixedState::with_seed(2);
/// What does not fit its bound is counted under this name.
const OTHER: &str = "other";
/// Leaves beyond the bound that hold what did not fit, one for each model.
const OTHER_LEAVES_MAX: usize = 1_000;
/// Flags of a model that are found by walking; more are found by the table of all slots.
const FLAGS_CACHED_MAX: usize = 32;
/// Groups of a model's protected attributes that are told apart; the rest is `other`.
const GROUPS_NAMED_MAX: usize = 64;

// === impl Partition ===

impl Partition {
    /// Remembers an id; false when it was seen within the window. Two generations: the older one is forgotten as a whole.
    fn first_sight(&mut self, hash: u64, time: Time, limits: &Limits) -> bool {
        let now = self.watermark.unwrap_or(time);
        let since = *self.recent_since.get_or_insert(now);
        let full = self.recent.len() >= limits.dedup_ids_max / 2;
        if now.since_ms(since) >= limits.dedup_window_ms || full {
            if full {
                self.counts.dedup_forgotten += self.older.len() as u64;
            }
            self.older = std::mem::take(&mut self.recent);
            self.recent_since = Some(now);
        }
        !self.older.contains(hash) && self.recent.insert(hash)
    }

    /// The first pane that can still take something in.
    fn first_open(&self, settings: &Settings) -> Option<Time> {
        let passed = self.watermark.map(|w| w.plus_ms(-settings.lateness_ms).floor(settings.pane_ms));
        passed.max(self.floor)
    }

    fn keep_facts(&mut self, settings: &Settings, start: Time, facts: Vec<Fact>) {
        if facts.is_empty() {
            return;
        }
        let pane = open_pane(&mut self.open, start);
        let room = settings.limits.facts_max.saturating_sub(pane.facts.len());
        self.counts.facts_dropped += facts.len().saturating_sub(room) as u64;
        pane.facts.extend(facts.into_iter().take(room));
    }

    fn count_model(&mut self, names: &mut Names, model: &str) {
        if let Some(i) = self.model_index.get(model) {
            self.counts.per_model[*i].1 += 1;
        } else if self.counts.per_model.len() < 10_000 {
            self.model_index.insert(names.get(model), self.counts.per_model.len());
            self.counts.per_model.push((model.to_owned(), 1));
        }
    }

    /// Moves the watermark and seals what it has passed.
    fn advance(&mut self, id: PartitionId, settings: &Settings, time: Time, out: &mut Vec<Outbound>) {
        if self.watermark.is_some_and(|w| time <= w) {
            return;
        }
        let before = self.watermark.replace(time);
        let through = time.plus_ms(-settings.lateness_ms).floor(settings.pane_ms);
        if before.is_some_and(|b| b.plus_ms(-settings.lateness_ms).floor(settings.pane_ms) == through) {
            return;
        }
        self.seal_before(id, through, out);
        out.push(Outbound::SealedThrough(id, through));
    }

    fn seal_before(&mut self, id: PartitionId, through: Time, out: &mut Vec<Outbound>) {
        while self.open.first().is_some_and(|pane| pane.start < through) {
            let pane = self.open.remove(0);
            let cells = pane.cells.into_sorted().into_iter().map(|(leaf, cell)| (self.leaves[leaf as usize].clone(), cell)).collect();
            out.push(Outbound::Sealed(Contribution { partition: id, pane: pane.start, stamp: self.position, cells, facts: pane.facts }));
        }
    }

    /// The leaf of an event; new values of segments are admitted within their budget, others become `other`.
    fn leaf(&mut self, settings: &Settings, leaves: &mut LeafTable, names: &mut Names, seen: &Observation<'_>, model: &str) -> LeafPlace {
        let e = &seen.envelope;
        let environment = e.environment.as_deref().unwrap_or(UNKNOWN);
        let version = e.version.as_deref().unwrap_or(UNKNOWN);
        let value_of = |dimension: &str| e.segments.iter().find(|(d, _)| d == dimension).map(|(_, v)| v.as_ref());
        let hashes = [LEAF_HASH, LEAF_CHECK].map(|of| {
            let mut h = of.build_hasher();
            (model, environment, version).hash(&mut h);
            for d in &settings.dimensions {
                value_of(d).hash(&mut h);
            }
            h.finish()
        });
        let said_before = leaves.by_hash.get(&hashes[0]).copied();
        if let Some((_, number)) = said_before.filter(|known| known.0 == hashes[1])
            && let Some(here) = self.leaf_index.get(number as usize).copied().filter(|here| here.index != NOWHERE)
        {
            match self.counts.per_model.get_mut(here.model as usize) {
                Some(count) => count.1 += 1,
                // A leaf that others were counted as before its model itself was met.
                None => self.count_model(names, model),
            }
            return LeafPlace { number, index: here.index };
        }
        self.count_model(names, model);
        let said = || settings.dimensions.iter().filter_map(|d| value_of(d).map(|v| (d.as_str(), v)));
        let mut segments = Vec::new();
        for (dimension, value) in said() {
            let admitted = self.admit(settings, names, model, dimension, value);
            segments.push(Segment { dimension: dimension.into(), value: admitted.as_ref().into() });
        }
        let leaf = Leaf { environment: environment.into(), model: model.into(), version: version.into(), segments };
        let place = self.place(settings, leaves, names, leaf);
        let counted_as = &leaves.all[place.number as usize];
        let same_name = &*counted_as.model == model && &*counted_as.environment == environment && &*counted_as.version == version;
        let mut segments = counted_as.segments.iter();
        let mut same = |(d, v): (&str, &str)| segments.next().is_some_and(|s| &*s.dimension == d && &*s.value == v);
        let is_it = same_name && said().all(&mut same) && segments.next().is_none();
        if said_before.is_none() && is_it {
            leaves.by_hash.insert(hashes[0], (hashes[1], place.number));
        }
        place
    }

    /// The index of a leaf. When all are given out, a new one is counted with its model's `other` version; and when even those
    /// have grown too many, with a model `other`. A leaf that is known keeps its place, full or not: else a restart, which
    /// forgets the cache, would count differently.
    fn place(&mut self, settings: &Settings, leaves: &mut LeafTable, names: &mut Names, leaf: Leaf) -> LeafPlace {
        let limits = &settings.limits;
        if let Some(place) = self.find(leaves, &leaf) {
            return place;
        }
        if self.leaves.len() < limits.leaves_max {
            return self.push_leaf(leaves, names, leaf);
        }
        self.counts.leaves_as_other += 1;
        let of_model = Leaf { environment: leaf.environment, model: leaf.model, version: OTHER.into(), segments: vec![] };
        if let Some(place) = self.find(leaves, &of_model) {
            return place;
        }
        if self.leaves.len() < limits.leaves_max + OTHER_LEAVES_MAX {
            return self.push_leaf(leaves, names, of_model);
        }
        let of_none = Leaf { environment: OTHER.into(), model: OTHER.into(), version: OTHER.into(), segments: vec![] };
        self.find(leaves, &of_none).unwrap_or_else(|| self.push_leaf(leaves, names, of_none))
    }

    fn find(&self, leaves: &LeafTable, leaf: &Leaf) -> Option<LeafPlace> {
        let number = *leaves.by_leaf.get(leaf)?;
        let index = self.leaf_index.get(number as usize)?.index;
        (index != NOWHERE).then_some(LeafPlace { number, index })
    }

    fn push_leaf(&mut self, leaves: &mut LeafTable, names: &mut Names, leaf: Leaf) -> LeafPlace {
        let number = leaves.number(names, leaf);
        let index = self.leaves.len() as u32;
        let leaf = leaves.all[number as usize].clone();
        let model = self.model_index.get(&leaf.model).map_or(NOWHERE, |at| *at as u32);
        self.leaves.push(leaf);
        set_at(&mut self.leaf_index, number, LeafHere { index, model });
        LeafPlace { number, index }
    }

    fn admit<'v>(&mut self, settings: &Settings, names: &mut Names, model: &str, dimension: &str, value: &'v str) -> Cow<'v, str> {
        let known = self.admitted_of.get(model).and_then(|all| all.iter().copied().find(|i| *self.admitted[*i].dimension == *dimension));
        let at = match known {
            Some(i) => i,
            // A producer that invents models would fill the memory with their segments.
            None if self.admitted.len() >= settings.limits.leaves_max => {
                self.counts.segments_as_other += 1;
                return Cow::Borrowed(OTHER);
            }
            None => {
                let i = self.admitted.len();
                let model = names.get(model);
                self.admitted_of.entry(model.clone()).or_default().push(i);
                self.admitted.push(Admitted { model, dimension: names.get(dimension), values: Vec::new(), set: HashSet::default() });
                i
            }
        };
        let admitted = &mut self.admitted[at];
        let is_walked = admitted.values.len() <= ADMITTED_WALKED_MAX;
        if admitted.set.contains(value) || is_walked && admitted.values.iter().any(|v| **v == *value) {
            return Cow::Borrowed(value);
        }
        if admitted.values.len() < settings.limits.segment_values_max {
            admitted.values.push(names.get(value));
            if admitted.values.len() > ADMITTED_WALKED_MAX {
                admitted.set.extend(admitted.values.iter().skip(admitted.set.len()).cloned());
            }
            return Cow::Borrowed(value);
        }
        self.counts.segments_as_other += 1;
        Cow::Borrowed(OTHER)
    }

    /// Adds an event to its pane. False when it does not enter one, so that it does not move the watermark either.
    fn add(&mut self, common: &mut Common<'_>, start: Time, time: Time, id_hash: u64, seen: &Observation<'_>, out: &mut Vec<Outbound>) -> bool {
        let Common { settings, slots, slot_by_name, shapes, shape_by_model, leaves, names, spare } = common;
        let dropped = &mut 0u64;
        let mut slot_of = |name: SlotName, out: &mut Vec<Outbound>| -> Option<u16> {
            if let Some(s) = slot_by_name.get(&name) {
                return Some(*s);
            }
            if slots.len() >= usize::from(settings.limits.slots_max) {
                *dropped += 1;
                return None;
            }
            let s = slots.len() as u16;
            slots.push(name.clone());
            slot_by_name.insert(name.clone(), s);
            out.push(Outbound::Slot(s, name));
            Some(s)
        };
        let model = seen.envelope.model.as_deref();
        match (&seen.body, model) {
            (Body::Prediction(prediction), Some(model)) => {
                let leaf = self.leaf(settings, leaves, names, seen, model);
                let shape = leaves.shape(leaf.number, shapes, shape_by_model);
                let shape = &mut shapes[shape];
                let id = seen.envelope.id.as_deref().unwrap_or("");
                let foreign = prediction.cost.as_ref().is_some_and(|c| c.currency.as_deref().is_some_and(|x| x != settings.currency));
                self.counts.foreign_currency += u64::from(foreign);
                let pane = open_pane(&mut self.open, start);
                let cell = pane.cells.of(leaf.index, spare);
                cell.predictions += 1;
                cell.arrived(time, start, settings.pane_ms);
                add_prediction(cell, prediction, foreign);
                cell.add(slot::SCHEMA, u16::from(seen.faults.iter().any(|f| f.fault == Fault::Invalid)));
                self.counts.embeddings_unsampled += add_features(cell, prediction, id_hash, shape, names, &mut slot_of, out);
                for (name, flag) in &prediction.flags {
                    let raised = match flag {
                        Flag::Bool(b) => *b,
                        Flag::Score(s) => *s >= 0.5,
                        Flag::Confirmed => true,
                    };
                    if let Some(s) = flag_slot(&mut shape.flags, name, names, &mut slot_of, out) {
                        cell.add(s, u16::from(raised));
                    }
                }
                if let Some(protected) = settings.protected.get(model) {
                    add_groups(cell, prediction, &leaves.all[leaf.number as usize], protected, &mut shape.groups, &mut slot_of, out);
                }
                let failed = !matches!(prediction.status, Status::Ok | Status::Cancelled);
                if let Some(user) = seen.envelope.user {
                    cell.users.add(user);
                    if failed {
                        cell.users_failed.add(user);
                    }
                }
                let kept = if failed { &mut cell.failed } else { &mut cell.usual };
                if kept.wants(id_hash) {
                    let buffer = kept.buffer();
                    kept.add(id_hash, time, exemplar(settings, seen, prediction, id, buffer));
                }
            }
            (Body::Quality(quality), Some(model)) => {
                let leaf = self.leaf(settings, leaves, names, seen, model);
                let cell = open_pane(&mut self.open, start).cells.of(leaf.index, spare);
                if let Some(value) = quality.value
                    && let Some(s) = slot_of(SlotName::Quality(quality.name.as_ref().into()), out)
                {
                    cell.add(s, bin_of(value));
                }
                if let Some(label) = &quality.label
                    && let Some(s) = slot_of(SlotName::QualityBad(quality.name.as_ref().into()), out)
                {
                    let good = matches!(label.as_ref(), "true" | "good" | "pass" | "passed" | "correct" | "yes");
                    cell.add(s, u16::from(good != quality.higher_is_better.unwrap_or(true)));
                }
            }
            (Body::Feedback(feedback), Some(model)) => {
                let negative = match feedback.kind_of {
                    FeedbackKind::Complaint | FeedbackKind::Ticket => true,
                    FeedbackKind::Thumb => feedback.value.is_some_and(|v| v <= 0.0),
                    FeedbackKind::Rating | FeedbackKind::Correction => false,
                };
                let leaf = self.leaf(settings, leaves, names, seen, model);
                let cell = open_pane(&mut self.open, start).cells.of(leaf.index, spare);
                if negative {
                    cell.add(slot::COMPLAINT, 1);
                }
            }
            (Body::Quality(_) | Body::Feedback(_) | Body::Outcome(_) | Body::Prediction(_), _) => {
                self.counts.unattributed += 1;
                return false;
            }
            (Body::Deployment(_) | Body::Pipeline(_) | Body::Report(_) | Body::Heartbeat(_), _) => {}
        }
        self.counts.slots_dropped += *dropped;
        // Every event opens its pane, also one that only says a fact.
        open_pane(&mut self.open, start);
        self.keep_facts(settings, start, facts_of(settings, seen, time));
        true
    }
}

/// What an event says once, beside what is counted of it.
fn facts_of(settings: &Settings, seen: &Observation<'_>, time: Time) -> Vec<Fact> {
    let text = |t: &Option<Cow<'_, str>>| t.as_ref().map(|t| t.to_string());
    let mut facts: Vec<Fact> = Vec::new();
    let mut say = |kind: FactKind| {
        facts.push(Fact {
            time,
            environment: text(&seen.envelope.environment),
            model: text(&seen.envelope.model),
            version: text(&seen.envelope.version),
            kind,
        });
    };
    match (&seen.body, seen.envelope.model.as_deref()) {
        (Body::Prediction(prediction), Some(model)) => {
            let id = seen.envelope.id.as_deref().unwrap_or("");
            for (name, _) in prediction.flags.iter().filter(|(_, flag)| *flag == Flag::Confirmed) {
                say(FactKind::Confirmed { flag: name.to_string(), id: id.to_owned() });
            }
            if let (Some(scan), Some(output)) = (&settings.scan, &prediction.output)
                && let Some((rule, words)) = scan(model, output)
            {
                say(FactKind::Leak { rule, words, id: id.to_owned() });
            }
        }
        (Body::Quality(quality), Some(_)) => {
            let confirmed = quality.evaluator.as_deref() == Some("human") && quality.label.as_deref() == Some("true");
            if confirmed && matches!(quality.name.as_ref(), "harmful" | "leak" | "injection") {
                let id = quality.prediction_id.as_deref().unwrap_or("").to_owned();
                say(FactKind::Confirmed { flag: quality.name.to_string(), id });
            }
        }
        (Body::Deployment(d), _) => {
            let previous_version = text(&d.previous_version);
            say(FactKind::Deployment { phase: d.phase.to_string(), target: d.target_name.to_string(), previous_version });
        }
        (Body::Pipeline(p), _) => {
            let state = match p.state {
                PipelineState::Started => "started",
                PipelineState::Running => "running",
                PipelineState::Succeeded => "succeeded",
                PipelineState::Failed => "failed",
                PipelineState::Aborted => "aborted",
                PipelineState::Skipped => "skipped",
            };
            say(FactKind::Pipeline { job: p.job.to_string(), state: state.to_owned(), error: text(&p.error) });
        }
        (Body::Report(r), _) => say(FactKind::Report { summary: r.summary.to_string(), source: r.source_of_report.to_string() }),
        (Body::Heartbeat(h), _) => {
            let interval = h.expected_interval_s.unwrap_or(0.0).clamp(0.0, 86_400.0) as u32;
            let producer = text(&h.producer).or_else(|| text(&seen.envelope.model)).unwrap_or_default();
            say(FactKind::Heartbeat { producer, expected_interval_s: interval });
        }
        (Body::Prediction(_) | Body::Quality(_) | Body::Feedback(_) | Body::Outcome(_), _) => {}
    }
    facts
}

/// The slot of a flag; the few flags of a model are looked up by their names.
fn flag_slot(
    flags: &mut Vec<(Arc<str>, u16)>,
    name: &str,
    names: &mut Names,
    slot_of: &mut impl FnMut(SlotName, &mut Vec<Outbound>) -> Option<u16>,
    out: &mut Vec<Outbound>,
) -> Option<u16> {
    if let Some((_, s)) = flags.iter().find(|(known, _)| **known == *name) {
        return Some(*s);
    }
    let s = slot_of(SlotName::Flag(name.into()), out)?;
    if flags.len() < FLAGS_CACHED_MAX {
        flags.push((names.get(name), s));
    }
    Some(s)
}

/// What became of a prediction for every group that it is told to belong to.
fn add_groups(
    cell: &mut Cell,
    p: &Prediction<'_>,
    leaf: &Leaf,
    protected: &Protected,
    known: &mut Vec<(String, String, u16)>,
    slot_of: &mut impl FnMut(SlotName, &mut Vec<Outbound>) -> Option<u16>,
    out: &mut Vec<Outbound>,
) {
    let became = match (p.status, &p.label) {
        (Status::Cancelled, _) => return,
        (Status::Ok, Some(label)) if protected.favourable.iter().any(|f| f.eq_ignore_ascii_case(label)) => 1,
        (Status::Ok, Some(_)) => 2,
        (Status::Ok, None) => 0,
        (Status::Error | Status::Timeout | Status::MissingResponse, _) => 3,
    };
    let mut stratum = StableHash::new();
    for segment in &leaf.segments {
        stratum.part(segment.value.as_bytes());
    }
    let bin = (stratum.finish() as u16) << 2 | became;
    for (attribute, group) in p.groups.iter().filter(|(a, _)| protected.attributes.iter().any(|x| x == a)) {
        let slot = match known.iter().find(|(a, g, _)| a == attribute && g == group) {
            Some((.., slot)) => Some(*slot),
            None => {
                let name = if known.len() < GROUPS_NAMED_MAX { group.as_ref() } else { OTHER };
                let slot = slot_of(SlotName::Group(attribute.as_ref().into(), name.into()), out);
                if let Some(slot) = slot.filter(|_| known.len() < GROUPS_NAMED_MAX) {
                    known.push((attribute.to_string(), group.to_string(), slot));
                }
                slot
            }
        };
        if let Some(slot) = slot {
            cell.add(slot, bin);
        }
    }
}

fn add_prediction(cell: &mut Cell, p: &Prediction<'_>, foreign_currency: bool) {
    let status = match p.status {
        Status::Ok => 0,
        Status::Error => 1,
        Status::Timeout => 2,
        Status::Cancelled => 3,
        Status::MissingResponse => 4,
    };
    cell.add(slot::STATUS, status);
    if p.status == Status::Ok {
        if let Some(v) = p.latency_ms {
            cell.add(slot::LATENCY, bin_of(v));
        }
        if let Some(v) = p.first_token_ms {
            cell.add(slot::FIRST_TOKEN, bin_of(v));
        }
        let empty = p.output_empty.or_else(|| p.output.as_ref().map(|o| o.trim().is_empty()));
        if let Some(empty) = empty {
            cell.add(slot::EMPTY, u16::from(empty));
        }
    }
    if let Some(v) = p.input_tokens {
        cell.add(slot::TOKENS_IN, bin_of(v));
    }
    if let Some(v) = p.output_tokens {
        cell.add(slot::TOKENS_OUT, bin_of(v));
    }
    if let Some(cost) = p.cost.as_ref().filter(|_| !foreign_currency) {
        cell.add(slot::COST, bin_of(cost.amount));
        cell.cost_nano = cell.cost_nano.saturating_add((cost.amount * 1e9).round() as i64);
    }
    if let Some(v) = p.score {
        cell.add(slot::SCORE, bin_of(v));
    }
    if let Some(label) = &p.label {
        cell.add(slot::LABEL, class_of(label));
    }
}

/// Class of a word: a bucket of its stable hash, so that no dictionary is needed and the order of arrival cannot matter.
fn class_of(word: &str) -> u16 {
    StableHash::of(word.as_bytes()) as u16
}

/// Returns how many vectors could not be sampled.
fn add_features(
    cell: &mut Cell,
    p: &Prediction<'_>,
    id_hash: u64,
    shape: &mut Shape,
    names: &mut Names,
    slot_of: &mut impl FnMut(SlotName, &mut Vec<Outbound>) -> Option<u16>,
    out: &mut Vec<Outbound>,
) -> u64 {
    if !p.carries_features {
        return 0;
    }
    let (mut row, mut numbers, mut unsampled) = (Row::default(), 0, 0);
    cell.with_features += 1;
    for (i, (name, value)) in p.features.iter().enumerate() {
        let at = match shape.features.get(i) {
            Some(known) if *known.name == **name => i,
            _ => match shape.feature_index.get(name.as_ref()) {
                Some(at) => *at,
                None => {
                    // A name without a slot is not remembered: a producer may invent names for ever.
                    let Some(present) = slot_of(SlotName::Present(name.as_ref().into()), out) else { continue };
                    let (at, name) = (shape.features.len(), names.get(name));
                    shape.features.push(FeatureSlots { name: name.clone(), present, number: None, class: None, embedding: None });
                    shape.feature_index.insert(name, at);
                    at
                }
            },
        };
        let known = &mut shape.features[at];
        let mut get = |slot: &mut Option<u16>, make: fn(Arc<str>) -> SlotName, out: &mut Vec<Outbound>| {
            if slot.is_none() {
                *slot = slot_of(make(known.name.clone()), out);
            }
            *slot
        };
        cell.add(known.present, u16::from(*value != FeatureValue::Null));
        match value {
            FeatureValue::Number(v) => {
                if let Some(s) = get(&mut known.number, SlotName::Number, out) {
                    cell.add(s, bin_of(*v));
                    row.push(&mut numbers, s, *v);
                }
            }
            FeatureValue::Text(t) => {
                if let Some(s) = get(&mut known.class, SlotName::Class, out) {
                    cell.add(s, class_of(t));
                }
            }
            FeatureValue::Bool(b) => {
                if let Some(s) = get(&mut known.class, SlotName::Class, out) {
                    cell.add(s, u16::from(*b));
                }
            }
            FeatureValue::Embedding(vector) => {
                if let Some(s) = get(&mut known.embedding, SlotName::Embedding, out) {
                    // Decoding bounds lengths far below.
                    let length = if vector.iter().any(|x| *x != 0.0) { vector.len().min(usize::from(u16::MAX)) as u16 } else { 0 };
                    cell.add(s, length);
                    unsampled += u64::from(!cell.samples.vector(s, id_hash, length, || Folded::of(vector)));
                }
            }
            FeatureValue::Null => {}
        }
    }
    if numbers > 1 {
        cell.samples.row(id_hash, &row);
    }
    unsampled
}

/// What is said about one prediction: no more than the allow-list lets through.
fn exemplar(settings: &Settings, seen: &Observation<'_>, p: &Prediction<'_>, id: &str, buffer: String) -> Told {
    let allowed = |name: &str| settings.exemplar_allow.iter().any(|a| a == name);
    let status = match p.status {
        Status::Ok => "ok",
        Status::Error => "error",
        Status::Timeout => "timeout",
        Status::Cancelled => "cancelled",
        Status::MissingResponse => "missing_response",
    };
    let mut told = Told::new(buffer, id, seen.envelope.version.as_deref().unwrap_or(UNKNOWN), status);
    told.latency_ms = p.latency_ms;
    if let Some(code) = p.error.as_ref().and_then(|e| e.code.as_deref().or(e.kind.as_deref())) {
        told.fact("error", cut(code));
    }
    for (dimension, value) in seen.envelope.segments.iter().filter(|(d, _)| settings.dimensions.iter().any(|x| x == d) || allowed(d)) {
        told.fact(dimension, cut(value));
    }
    for (name, value) in p.features.iter().filter(|(n, _)| allowed(n)) {
        match value {
            FeatureValue::Number(v) => told.number(name, *v),
            FeatureValue::Text(t) => told.fact(name, cut(t)),
            FeatureValue::Bool(b) => told.fact(name, if *b { "true" } else { "false" }),
            FeatureValue::Null => told.fact(name, "null"),
            FeatureValue::Embedding(e) => told.fact(name, &format!("[{} numbers]", e.len())),
        }
    }
    told
}

/// The first characters of a text.
fn cut(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(at, _)| &text[..at])
}

/// Writes one place of a list, which grows as far as that.
fn set_at(all: &mut Vec<LeafHere>, at: u32, here: LeafHere) {
    let at = at as usize;
    if all.len() <= at {
        all.resize(at + 1, LeafHere { index: NOWHERE, model: NOWHERE });
    }
    all[at] = here;
}

// === impl LeafTable ===

impl LeafTable {
    /// The number of a leaf, which is made of names that all share if it is new.
    fn number(&mut self, names: &mut Names, leaf: Leaf) -> u32 {
        if let Some(number) = self.by_leaf.get(&leaf) {
            return *number;
        }
        let mut get = |name: &str| names.get(name);
        let Leaf { environment, model, version, segments } = leaf;
        let segments = segments.iter().map(|s| Segment { dimension: get(&s.dimension), value: get(&s.value) }).collect();
        let leaf = Arc::new(Leaf { environment: get(&environment), model: get(&model), version: get(&version), segments });
        let number = self.all.len() as u32;
        self.all.push(leaf.clone());
        self.shapes.push(None);
        self.by_leaf.insert(leaf, number);
        number
    }

    /// Where the shape of a leaf's model is.
    fn shape(&mut self, number: u32, shapes: &mut Vec<Shape>, by_model: &mut Map<Arc<str>, u32>) -> usize {
        let number = number as usize;
        let at = *self.shapes[number].get_or_insert_with(|| {
            *by_model.entry(self.all[number].model.clone()).or_insert_with(|| {
                shapes.push(Shape::default());
                shapes.len() as u32 - 1
            })
        });
        at as usize
    }
}

// === impl Names ===

impl Names {
    fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }
}
