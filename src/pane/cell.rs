//! The mergeable aggregate of one leaf (model, environment, version, segments) over one pane.
//!
//! A cell is a multiset of codes: slot (what was measured) and bin (what came out). An event of 24 metrics appends 24 codes to one
//! vector. So a cell with one event is as small as its event, a cell with a million events is as small as the codes that occur, and
//! merging two cells is adding counts: the same bytes in any order. The road not taken is a block of histograms per cell: 24
//! allocations for a cell that most often holds one event.

use serde::{Deserialize, Serialize};

use super::codes::{Code, Codes};
use super::sample::Samples;
use crate::domain::Time;
use crate::domain::incident::Exemplar;

/// Codes gathered before they are sorted and counted.
const RAW_CODES_MAX: usize = 1_024;
/// Codes that are passed on as they came: they are sorted with those of other cells later.
const UNSORTED_MAX: usize = 64;
/// Room for the codes of one usual event, so that it is asked for once; and what a cell that is used again keeps at most.
const CODES_AT_FIRST: usize = 32;
const CODES_KEPT_BYTES: usize = 2_048;
/// Exemplars kept per cell and kind (failed, other): the smallest hashes of their ids.
pub const EXEMPLARS_MAX: usize = 3;
/// Distinct users are counted by the smallest hashes of their keys ("k minimum values").
pub const USERS_MAX: usize = 128;
/// Sub-slots of a pane in which arrivals are marked, to see gaps within and between panes.
pub const SLOTS_PER_PANE: i64 = 256;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    codes: Codes,
    pub predictions: u32,
    /// Predictions that carried a `features` object: the denominator of missing values.
    pub with_features: u32,
    /// Cost of all predictions in billionths of the currency: whole numbers, so that sums do not depend on their order.
    pub cost_nano: i64,
    pub users: Distinct,
    pub users_failed: Distinct,
    pub failed: Exemplars,
    pub usual: Exemplars,
    /// Sub-slots of the pane in which a prediction arrived, one bit each.
    pub arrivals: [u64; 4],
    /// Vectors, and values that stood together.
    pub samples: Samples,
}

/// Cells are moved between rooms and sorted; their place in memory stays.
pub type BoxedCell = Box<Cell>;

impl Cell {
    pub fn add(&mut self, slot: u16, bin: u16) {
        self.codes.reserve_at_first(CODES_AT_FIRST);
        self.codes.push(Code::new(slot, bin));
        if self.codes.fresh_len() >= RAW_CODES_MAX.max(2 * self.codes.counted_len()) {
            self.codes.count();
        }
    }

    /// Marks an arrival at `time` in the pane that starts at `start`.
    pub fn arrived(&mut self, time: Time, start: Time, pane_ms: i64) {
        let slot = (time.since_ms(start) * SLOTS_PER_PANE / pane_ms).clamp(0, SLOTS_PER_PANE - 1);
        self.arrivals[(slot / 64) as usize] |= 1 << (slot % 64);
    }

    /// The multiset, sorted by code. Counting is finished here.
    #[cfg(test)]
    pub fn codes(&mut self) -> &[(Code, u32)] {
        self.codes.count()
    }

    /// The same for whoever adds up anyway: few codes are as they came, unsorted, and one may stand there more than once.
    pub fn entries(&mut self) -> &Codes {
        if self.codes.fresh_len() > UNSORTED_MAX {
            self.codes.count();
        }
        &self.codes
    }

    /// Takes in what another cell holds, and leaves it empty. The result does not depend on the order in which cells are merged.
    pub fn merge(&mut self, other: &mut Cell) {
        self.codes.append(&mut other.codes);
        self.predictions += other.predictions;
        self.with_features += other.with_features;
        self.cost_nano = self.cost_nano.saturating_add(other.cost_nano);
        self.users.merge(&other.users);
        self.users_failed.merge(&other.users_failed);
        self.failed.merge(&mut other.failed);
        self.usual.merge(&mut other.usual);
        for (mine, theirs) in self.arrivals.iter_mut().zip(other.arrivals) {
            *mine |= theirs;
        }
        self.samples.join(&other.samples, true);
        other.clear();
    }

    /// Holds more memory than a cell that waits to be used again should.
    pub fn is_large(&self) -> bool {
        self.codes.capacity_bytes() > CODES_KEPT_BYTES
    }

    /// As new, but with the memory that it has: cells are used again.
    pub fn clear(&mut self) {
        self.codes.clear();
        (self.predictions, self.with_features, self.cost_nano, self.arrivals) = (0, 0, 0, [0; 4]);
        self.users.smallest.clear();
        self.users_failed.smallest.clear();
        self.failed.clear();
        self.usual.clear();
        self.samples.clear();
    }
}

/// Distinct count by the k smallest hashes (Bar-Yossef et al. 2002): exact below k, within about 1/sqrt(k) above.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distinct {
    /// Sorted, no two alike, at most [`USERS_MAX`].
    smallest: Vec<u64>,
}

impl Distinct {
    pub fn add(&mut self, hash: u64) {
        if self.smallest.len() == USERS_MAX && self.smallest.last().is_some_and(|last| hash >= *last) {
            return;
        }
        if let Err(at) = self.smallest.binary_search(&hash) {
            self.smallest.insert(at, hash);
            self.smallest.truncate(USERS_MAX);
        }
    }

    pub fn merge(&mut self, other: &Distinct) {
        for hash in &other.smallest {
            self.add(*hash);
        }
    }

    /// Estimate and the interval that holds the true number with about 95 %.
    pub fn estimate(&self) -> (f64, f64, f64) {
        let k = self.smallest.len();
        match self.smallest.last() {
            Some(last) if k == USERS_MAX => {
                let estimate = (k as f64 - 1.0) / (*last as f64 / u64::MAX as f64).max(f64::MIN_POSITIVE);
                let half = 1.96 / (k as f64 - 2.0).sqrt();
                (estimate, estimate * (1.0 - half), estimate * (1.0 + half))
            }
            _ => (k as f64, k as f64, k as f64),
        }
    }
}

/// The few observations kept as evidence: those with the smallest hashes, so that replay and merging keep the same ones.
///
/// Where traffic is thin nearly every event is kept, so what is said about one is a single text until somebody asks for it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Exemplars {
    kept: Vec<Sample>,
    /// Texts that are no longer needed, to be written again.
    #[serde(skip)]
    spare: Vec<String>,
}

impl PartialEq for Exemplars {
    fn eq(&self, other: &Exemplars) -> bool {
        self.kept == other.kept
    }
}

/// One observation: the smallest hashes are kept, and then the smallest texts, which begin with the id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sample {
    hash: u64,
    /// Id, version, status, and then names and values in turn.
    text: String,
    /// Of nearly every event, and so not written out before somebody asks.
    latency_ms: Option<f64>,
    time: Time,
}

impl Sample {
    fn rank(&self) -> (u64, &str) {
        (self.hash, &self.text)
    }
}

/// Parts of a sample's text stand between these; the ASCII unit separator, which texts of people do not hold.
const SEPARATOR: char = '\u{1f}';

/// Writes the text of a sample.
pub struct Told {
    text: String,
    pub latency_ms: Option<f64>,
}

impl Told {
    /// `buffer`: an empty text to write into.
    pub fn new(buffer: String, id: &str, version: &str, status: &str) -> Told {
        let mut told = Told { text: buffer, latency_ms: None };
        told.text.reserve(id.len() + 100);
        told.push(id);
        told.fact(version, status);
        told
    }

    pub fn fact(&mut self, name: &str, value: &str) {
        self.text.push(SEPARATOR);
        self.push(name);
        self.text.push(SEPARATOR);
        self.push(value);
    }

    pub fn number(&mut self, name: &str, value: f64) {
        use std::fmt::Write;
        self.text.push(SEPARATOR);
        self.push(name);
        self.text.push(SEPARATOR);
        // Writing to a string does not fail.
        let _ = write!(self.text, "{value}");
    }

    fn push(&mut self, text: &str) {
        if text.as_bytes().contains(&(SEPARATOR as u8)) {
            self.text.extend(text.chars().filter(|c| *c != SEPARATOR));
        } else {
            self.text.push_str(text);
        }
    }
}

impl Exemplars {
    /// Would an observation with this hash be kept? Asked before its facts are gathered.
    pub fn wants(&self, hash: u64) -> bool {
        self.kept.len() < EXEMPLARS_MAX || self.kept.last().is_some_and(|last| hash < last.hash)
    }

    /// An empty text, with the memory of an old one if there is one.
    pub fn buffer(&mut self) -> String {
        self.spare.pop().unwrap_or_default()
    }

    pub fn add(&mut self, hash: u64, time: Time, told: Told) {
        self.insert(Sample { hash, text: told.text, latency_ms: told.latency_ms, time });
    }

    fn insert(&mut self, sample: Sample) {
        if let Err(at) = self.kept.binary_search_by(|s| s.rank().cmp(&sample.rank())) {
            if self.kept.capacity() == 0 {
                self.kept.reserve_exact(1); // Most cells hold one event.
            }
            self.kept.insert(at, sample);
            if self.kept.len() > EXEMPLARS_MAX
                && let Some(last) = self.kept.pop()
            {
                self.give_back(last.text);
            }
        }
    }

    fn give_back(&mut self, mut text: String) {
        if self.spare.len() < EXEMPLARS_MAX {
            text.clear();
            self.spare.push(text);
        }
    }

    /// Takes in what another holds, and leaves it without.
    pub fn merge(&mut self, other: &mut Exemplars) {
        for sample in other.kept.drain(..) {
            if self.kept.len() < EXEMPLARS_MAX || self.kept.last().is_some_and(|last| sample.rank() < last.rank()) {
                self.insert(sample);
            }
        }
    }

    /// The same, of what is still needed.
    pub fn join(&mut self, other: &Exemplars) {
        self.merge(&mut other.clone());
    }

    fn clear(&mut self) {
        while let Some(sample) = self.kept.pop() {
            self.give_back(sample.text);
        }
    }

    /// As incidents show them.
    pub fn told(&self) -> Vec<Exemplar> {
        self.kept
            .iter()
            .map(|sample| {
                let mut parts = sample.text.split(SEPARATOR).map(str::to_owned);
                let mut next = || parts.next().unwrap_or_default();
                let (id, version, status) = (next(), next(), next());
                let mut facts: Vec<(String, String)> = sample.latency_ms.map(|ms| ("latency_ms".to_owned(), format!("{ms}"))).into_iter().collect();
                while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    facts.push((name, value));
                }
                Exemplar { id, hash: sample.hash, time: sample.time, version, status, facts }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exemplar_tells_what_was_said_of_it() {
        let mut kept = Exemplars::default();
        let mut told = Told::new(kept.buffer(), "p\u{1f}1", "3.2", "error");
        told.latency_ms = Some(12.5);
        told.fact("region", "");
        kept.add(7, Time(5), told);
        let facts = vec![("latency_ms".to_owned(), "12.5".to_owned()), ("region".to_owned(), String::new())];
        let all = kept.told();
        assert_eq!(all, [Exemplar { id: "p1".into(), hash: 7, time: Time(5), version: "3.2".into(), status: "error".into(), facts }]);
    }

    #[test]
    fn merging_gives_the_same_bytes_in_any_order() {
        let mut parts: Vec<Cell> = (0..5u64)
            .map(|p| {
                let mut cell = Cell::default();
                for i in 0..3_000u64 {
                    let h = crate::domain::series::StableHash::of(&(p * 10_000 + i).to_be_bytes());
                    cell.add((h % 7) as u16, (h >> 8 & 63) as u16);
                    cell.users.add(h);
                    cell.predictions += 1;
                    let id = format!("{p}-{i}");
                    if cell.usual.wants(h) {
                        let buffer = cell.usual.buffer();
                        cell.usual.add(h, Time(0), Told::new(buffer, &id, "1", "ok"));
                    }
                }
                cell
            })
            .collect();
        let fold = |order: &[usize], parts: &mut Vec<Cell>| {
            let mut all = Cell::default();
            for i in order {
                all.merge(&mut parts[*i].clone());
            }
            all
        };
        let mut a = fold(&[0, 1, 2, 3, 4], &mut parts);
        let mut b = fold(&[3, 1, 4, 0, 2], &mut parts);
        a.codes();
        b.codes();
        assert_eq!(a, b);
        assert_eq!(a.predictions, 15_000);
        assert_eq!(a.clone().codes().iter().map(|(_, n)| *n).sum::<u32>(), 15_000);
        let (estimate, low, high) = a.users.estimate();
        assert!(low < 15_000.0 && 15_000.0 < high, "{estimate} {low} {high}");
    }
}
