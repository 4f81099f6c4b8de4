//! The mergeable aggregate of one leaf (model, environment, version, segments) over one pane.
//!
//! A cell is a multiset of codes. A code is a slot (what was measured) and a bin (what came out): 16 bits each. An event of 24
//! metrics appends 24 codes to one vector; when the vector grows long it is sorted and run-length counted. So a cell with one
//! event is as small as its event, a cell with a million events is as small as the codes that occur, and merging two cells is
//! adding counts: the same bytes in any order. The road not taken is a block of histograms per cell: 24 allocations for a cell
//! that most often holds one event.

use serde::{Deserialize, Serialize};

use crate::domain::Time;
use crate::domain::incident::Exemplar;

/// Codes gathered before they are sorted and counted.
const RAW_CODES_MAX: usize = 4_096;
/// Exemplars kept per cell and kind (failed, other): the smallest hashes of their ids.
pub const EXEMPLARS_MAX: usize = 3;
/// Distinct users are counted by the smallest hashes of their keys ("k minimum values").
pub const USERS_MAX: usize = 128;
/// Sub-slots of a pane in which arrivals are marked, to see gaps within and between panes.
pub const SLOTS_PER_PANE: i64 = 256;

/// What was measured, and which bin of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Code(u32);

impl Code {
    pub fn new(slot: u16, bin: u16) -> Code {
        Code(u32::from(slot) << 16 | u32::from(bin))
    }
    pub fn slot(self) -> u16 {
        (self.0 >> 16) as u16
    }
    pub fn bin(self) -> u16 {
        self.0 as u16
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    raw: Vec<Code>,
    counted: Vec<(Code, u32)>,
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
}

impl Cell {
    pub fn add(&mut self, slot: u16, bin: u16) {
        self.raw.push(Code::new(slot, bin));
        if self.raw.len() >= RAW_CODES_MAX.max(2 * self.counted.len()) {
            self.count();
        }
    }

    /// Marks an arrival at `time` in the pane that starts at `start`.
    pub fn arrived(&mut self, time: Time, start: Time, pane_ms: i64) {
        let slot = (time.since_ms(start) * SLOTS_PER_PANE / pane_ms).clamp(0, SLOTS_PER_PANE - 1);
        self.arrivals[(slot / 64) as usize] |= 1 << (slot % 64);
    }

    /// Folds the raw codes into the counted ones.
    fn count(&mut self) {
        if self.raw.is_empty() {
            return;
        }
        self.raw.sort_unstable();
        let mut fresh: Vec<(Code, u32)> = Vec::new();
        for code in self.raw.drain(..) {
            match fresh.last_mut() {
                Some((last, n)) if *last == code => *n += 1,
                _ => fresh.push((code, 1)),
            }
        }
        self.counted = if self.counted.is_empty() { fresh } else { merge_counts(&self.counted, &fresh) };
    }

    /// The multiset, sorted by code. Counting is finished here.
    pub fn codes(&mut self) -> &[(Code, u32)] {
        self.count();
        &self.counted
    }

    /// Adds another cell. The result does not depend on the order in which cells are merged.
    pub fn merge(&mut self, other: &mut Cell) {
        self.count();
        other.count();
        self.counted = if self.counted.is_empty() { other.counted.clone() } else { merge_counts(&self.counted, &other.counted) };
        self.predictions += other.predictions;
        self.with_features += other.with_features;
        self.cost_nano = self.cost_nano.saturating_add(other.cost_nano);
        self.users.merge(&other.users);
        self.users_failed.merge(&other.users_failed);
        self.failed.merge(&other.failed);
        self.usual.merge(&other.usual);
        for (mine, theirs) in self.arrivals.iter_mut().zip(other.arrivals) {
            *mine |= theirs;
        }
    }
}

fn merge_counts(a: &[(Code, u32)], b: &[(Code, u32)]) -> Vec<(Code, u32)> {
    let mut out = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        match a[i].0.cmp(&b[j].0) {
            std::cmp::Ordering::Less => {
                out.push(a[i]);
                i += 1;
            }
            std::cmp::Ordering::Greater => {
                out.push(b[j]);
                j += 1;
            }
            std::cmp::Ordering::Equal => {
                out.push((a[i].0, a[i].1.saturating_add(b[j].1)));
                i += 1;
                j += 1;
            }
        }
    }
    out.extend_from_slice(&a[i..]);
    out.extend_from_slice(&b[j..]);
    out
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exemplars(pub Vec<Exemplar>);

impl Exemplars {
    /// Would an observation with this hash be kept? Asked before its facts are gathered.
    pub fn wants(&self, hash: u64) -> bool {
        self.0.len() < EXEMPLARS_MAX || self.0.last().is_some_and(|last| hash < last.hash)
    }

    pub fn add(&mut self, exemplar: Exemplar) {
        if let Err(at) = self.0.binary_search_by(|e| (e.hash, &e.id).cmp(&(exemplar.hash, &exemplar.id))) {
            self.0.insert(at, exemplar);
            self.0.truncate(EXEMPLARS_MAX);
        }
    }

    pub fn merge(&mut self, other: &Exemplars) {
        for e in &other.0 {
            self.add(e.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
                        cell.usual.add(Exemplar { id, hash: h, time: Time(0), version: String::new(), status: "ok".into(), facts: vec![] });
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
        let a = fold(&[0, 1, 2, 3, 4], &mut parts);
        let b = fold(&[3, 1, 4, 0, 2], &mut parts);
        assert_eq!(a, b);
        assert_eq!(a.predictions, 15_000);
        assert_eq!(a.clone().codes().iter().map(|(_, n)| *n).sum::<u32>(), 15_000);
        let (estimate, low, high) = a.users.estimate();
        assert!(low < 15_000.0 && 15_000.0 < high, "{estimate} {low} {high}");
    }
}
