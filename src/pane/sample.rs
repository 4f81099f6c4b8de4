//! Events of a pane that are carried one by one, where counts of single fields cannot tell what is asked: which values stood
//! together in one event, and where a vector pointed.
//!
//! Kept are the events with the smallest hashes of their ids ("bottom k"). That is a fair draw of all events of the pane; the
//! draws of two leaves or partitions make the draw of both by keeping the smallest of the two again; and replay keeps the same
//! ones. A vector is folded to 32 bytes before it is kept, and only a vector that is kept is folded, so a busy model costs a
//! comparison per event. The road not taken is counts of quantile bins of random projections: they merge without a draw, but
//! what they show of a change is less (`benches/results/embeddings.md`).

use bellwether_detectors::evidence::embedding::Folded;
use bellwether_detectors::evidence::joint::FEATURES_MAX;
use serde::{Deserialize, Serialize};

/// Vectors kept of one embedding in a cell.
pub const VECTORS_MAX: usize = 64;
/// Rows of numeric features kept in a cell.
pub const ROWS_MAX: usize = 32;
/// Embeddings of one cell that are sampled; of more only the lengths are counted.
pub const EMBEDDINGS_MAX: usize = 8;
/// A feature that is not there.
const NONE: u16 = u16::MAX;

/// What of an event is carried beside its codes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// By slot.
    vectors: Vec<(u16, Smallest<Vector, VECTORS_MAX>)>,
    rows: Smallest<Row, ROWS_MAX>,
}

/// Items of the smallest hashes, in the order of hashes and then of items; no two are alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Smallest<T, const MOST: usize>(Vec<(u64, T)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Vector {
    /// How many numbers the vector had.
    pub length: u16,
    pub folded: Folded,
}

/// Numeric features of one event, the first ones in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// Bits of the values, so that rows have an order; before the slots, whose numbers mean nothing to another process.
    bits: [u32; FEATURES_MAX],
    slots: [u16; FEATURES_MAX],
}

// === impl Row ===

impl Default for Row {
    fn default() -> Row {
        Row { bits: [0; FEATURES_MAX], slots: [NONE; FEATURES_MAX] }
    }
}

impl Row {
    /// Notes a value at the next free place, if there is one.
    pub fn push(&mut self, len: &mut usize, slot: u16, value: f64) {
        if let (Some(bits), Some(at)) = (self.bits.get_mut(*len), self.slots.get_mut(*len)) {
            (*bits, *at) = ((value as f32).to_bits(), slot);
            *len += 1;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (u16, f64)> + '_ {
        self.slots.iter().zip(&self.bits).filter(|(slot, _)| **slot != NONE).map(|(slot, bits)| (*slot, f64::from(f32::from_bits(*bits))))
    }
}

// === impl Samples ===

impl Samples {
    /// Keeps the vector if its event is among the smallest. False when there is no room for another embedding.
    pub fn vector(&mut self, slot: u16, hash: u64, length: u16, fold: impl FnOnce() -> Option<Folded>) -> bool {
        let Some(of) = self.vectors_mut(slot) else { return false };
        if of.wants(hash)
            && let Some(folded) = fold()
        {
            of.add(hash, Vector { length, folded });
        }
        true
    }

    fn vectors_mut(&mut self, slot: u16) -> Option<&mut Smallest<Vector, VECTORS_MAX>> {
        let at = match self.vectors.binary_search_by_key(&slot, |v| v.0) {
            Ok(at) => at,
            Err(_) if self.vectors.len() >= EMBEDDINGS_MAX => return None,
            Err(at) => {
                self.vectors.insert(at, (slot, Smallest::default()));
                at
            }
        };
        self.vectors.get_mut(at).map(|v| &mut v.1)
    }

    pub fn row(&mut self, hash: u64, row: &Row) {
        if self.rows.wants(hash) {
            self.rows.add(hash, *row);
        }
    }

    /// Vectors kept of an embedding, in the order of their hashes.
    pub fn vectors(&self, slot: u16) -> impl Iterator<Item = &Vector> {
        let of = self.vectors.binary_search_by_key(&slot, |v| v.0).ok().map(|at| &self.vectors[at].1);
        of.into_iter().flat_map(|of| of.0.iter().map(|v| &v.1))
    }

    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.0.iter().map(|r| &r.1)
    }

    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty() && self.rows.0.is_empty()
    }

    /// Takes in what another cell kept. The result does not depend on the order as long as embeddings fit; which of too many are
    /// sampled does, as numbers of slots do.
    pub fn join(&mut self, other: &Samples, with_rows: bool) {
        for (slot, theirs) in &other.vectors {
            if let Some(of) = self.vectors_mut(*slot) {
                of.join(theirs);
            }
        }
        if with_rows {
            self.rows.join(&other.rows);
        }
    }

    /// As new, with the memory for rows.
    pub fn clear(&mut self) {
        self.vectors.clear();
        self.rows.0.clear();
    }
}

// === impl Smallest ===

impl<T, const MOST: usize> Default for Smallest<T, MOST> {
    fn default() -> Self {
        Smallest(Vec::new())
    }
}

impl<T: Ord + Copy, const MOST: usize> Smallest<T, MOST> {
    fn wants(&self, hash: u64) -> bool {
        self.0.len() < MOST || self.0.last().is_some_and(|last| hash <= last.0)
    }

    fn add(&mut self, hash: u64, item: T) {
        let item = (hash, item);
        if let Err(at) = self.0.binary_search(&item) {
            if self.0.len() == MOST {
                if at == MOST {
                    return;
                }
                self.0.pop();
            }
            if self.0.capacity() == 0 {
                self.0.reserve_exact(1); // Most cells hold one event.
            }
            self.0.insert(at, item);
        }
    }

    fn join(&mut self, other: &Smallest<T, MOST>) {
        for (hash, item) in &other.0 {
            if !self.wants(*hash) {
                return;
            }
            self.add(*hash, *item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::series::StableHash;

    fn row(i: u64) -> Row {
        let (mut row, mut len) = (Row::default(), 0);
        for f in 0..10 {
            row.push(&mut len, f, i as f64 + f64::from(f));
        }
        row
    }

    #[test]
    fn parts_in_any_order_give_the_draw_of_the_whole() {
        let vector = |i: u64| [i as f32, 1.0, -(i as f32).sqrt()];
        let take = |into: &mut Samples, i: u64| {
            let hash = StableHash::of(&i.to_be_bytes());
            assert!(into.vector(11 + (i % 2) as u16, hash, 3, || Folded::of(&vector(i))));
            into.row(hash, &row(i));
        };
        let (mut whole, mut parts) = (Samples::default(), vec![Samples::default(); 4]);
        for i in 0..1_000 {
            take(&mut whole, i);
            take(&mut parts[(i % 7 % 4) as usize], i);
        }
        for order in [[0, 1, 2, 3], [3, 1, 0, 2]] {
            let mut all = Samples::default();
            order.iter().for_each(|p| all.join(&parts[*p], true));
            assert_eq!(all, whole);
        }
        assert_eq!((whole.vectors(11).count(), whole.vectors(12).count(), whole.rows().count()), (VECTORS_MAX, VECTORS_MAX, ROWS_MAX));
        assert_eq!(whole.rows().next().map(|r| r.iter().count()), Some(FEATURES_MAX));
    }

    #[test]
    fn only_so_many_embeddings_are_sampled_and_a_vector_without_direction_is_not() {
        let mut samples = Samples::default();
        for slot in 0..EMBEDDINGS_MAX as u16 {
            assert!(samples.vector(slot, 1, 2, || Folded::of(&[0.0, 0.0])));
            assert_eq!(samples.vectors(slot).count(), 0);
        }
        assert!(!samples.vector(99, 1, 2, || Folded::of(&[1.0, 0.0])));
    }
}
