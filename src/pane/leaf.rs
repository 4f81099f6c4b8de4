//! Names behind the small numbers: leaves (whose events) and slots (what is measured).

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use super::cell::{BoxedCell, Cell};
use crate::domain::{GroupKey, Segment};

/// The finest slice of traffic that is counted: one model, environment, version and value of every configured segment dimension.
/// A leaf is counted once per event; roll-ups are made from leaves when the pane closes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leaf {
    pub environment: Arc<str>,
    pub model: Arc<str>,
    pub version: Arc<str>,
    pub segments: Vec<Segment>,
}

impl Leaf {
    /// The group of its model as a whole.
    pub fn whole(&self) -> GroupKey {
        GroupKey { environment: self.environment.clone(), model: self.model.clone(), version: None, segment: None }
    }

    /// The group of its version.
    pub fn of_version(&self) -> GroupKey {
        GroupKey { version: Some(self.version.clone()), ..self.whole() }
    }

    /// The groups that this leaf's events belong to: the roll-up, its version, each of its segments.
    pub fn groups(&self) -> impl Iterator<Item = GroupKey> + '_ {
        let (roll_up, version) = (self.whole(), self.of_version());
        let base = roll_up.clone();
        [roll_up, version].into_iter().chain(self.segments.iter().map(move |s| GroupKey { segment: Some(s.clone()), ..base.clone() }))
    }
}

/// Leaves by number, so that a pane's cells are sorted and looked up without reading names.
///
/// A leaf is found by its address first: whoever makes leaves holds one of each for as long as it counts for it. Only a cache;
/// numbers are not saved and mean nothing to another process.
#[derive(Debug, Default)]
pub struct Leaves {
    by_address: HashMap<usize, u32, FixedState>,
    by_leaf: HashMap<Arc<Leaf>, u32, FixedState>,
    /// Every leaf whose address is known is kept alive here, so that no other can come to stand at its place.
    held: Vec<Arc<Leaf>>,
    all: Vec<Arc<Leaf>>,
    /// The order of leaves, and the place of each in it.
    order: Vec<u32>,
    ranks: Vec<u32>,
    /// Where the cells of a pane are gathered, by number; empty between panes.
    of_leaf: Vec<Option<LeafCell>>,
}

impl Leaves {
    /// The number of a leaf; counted up from zero in the order in which leaves are met.
    pub fn number(&mut self, leaf: &Arc<Leaf>) -> u32 {
        let address = Arc::as_ptr(leaf) as usize;
        if let Some(number) = self.by_address.get(&address) {
            return *number;
        }
        let number = match self.by_leaf.get(leaf) {
            Some(number) => *number,
            None => {
                let number = self.all.len() as u32;
                self.all.push(leaf.clone());
                self.by_leaf.insert(leaf.clone(), number);
                number
            }
        };
        self.by_address.insert(address, number);
        self.held.push(leaf.clone());
        number
    }

    /// All leaves that have a number, in the order of numbers.
    pub fn all(&self) -> impl Iterator<Item = &Leaf> {
        self.all.iter().map(|leaf| &**leaf)
    }

    /// Cells of several partitions become one for each leaf, in the order of leaves. Cells that are merged into others go to
    /// `spare`, empty.
    pub fn gather(&mut self, cells: impl Iterator<Item = (Arc<Leaf>, Box<Cell>)>, spare: &mut Vec<BoxedCell>) -> Vec<LeafCell> {
        let mut of_leaf = std::mem::take(&mut self.of_leaf);
        let mut count = 0;
        for (leaf, mut cell) in cells {
            let number = self.number(&leaf);
            let at = number as usize;
            if of_leaf.len() <= at {
                of_leaf.resize_with(self.all.len(), || None);
            }
            match &mut of_leaf[at] {
                Some(known) => {
                    known.cell.merge(&mut cell);
                    spare.push(cell);
                }
                none => {
                    *none = Some(LeafCell { leaf, number, cell });
                    count += 1;
                }
            }
        }
        let ranks = self.ranks();
        let mut all = Vec::with_capacity(count);
        if count * 16 < of_leaf.len() {
            // A pane that holds few of the known leaves.
            all.extend(of_leaf.iter_mut().filter_map(Option::take));
            all.sort_unstable_by_key(|c: &LeafCell| ranks[c.number as usize]);
        } else {
            all.extend(self.order.iter().filter_map(|number| of_leaf.get_mut(*number as usize)?.take()));
        }
        self.of_leaf = of_leaf;
        all
    }

    /// Where each leaf stands in the order of leaves, by its number.
    pub fn ranks(&mut self) -> &[u32] {
        if self.ranks.len() != self.all.len() {
            let fresh = self.ranks.len() as u32..self.all.len() as u32;
            renew_order(&mut self.order, fresh, |a, b| self.all[a as usize].cmp(&self.all[b as usize]));
            self.ranks.resize(self.order.len(), 0);
            for (rank, number) in self.order.iter().enumerate() {
                self.ranks[*number as usize] = rank as u32;
            }
        }
        &self.ranks
    }
}

/// Puts fresh numbers into an order: a few one by one, many by sorting, so that names are read as seldom as can be.
pub fn renew_order(order: &mut Vec<u32>, fresh: std::ops::Range<u32>, cmp: impl Fn(u32, u32) -> std::cmp::Ordering) {
    if fresh.len() * 16 > order.len() {
        order.extend(fresh);
        order.sort_by(|a, b| cmp(*a, *b));
        return;
    }
    for number in fresh {
        let at = order.partition_point(|o| cmp(*o, number).is_lt());
        order.insert(at, number);
    }
}

/// What one leaf brought to a pane, over all partitions.
#[derive(Debug)]
pub struct LeafCell {
    pub leaf: Arc<Leaf>,
    /// By [`Leaves`].
    pub number: u32,
    pub cell: Box<Cell>,
}

/// What a slot measures. Fixed slots come first; those of features, flags and evaluators are numbered as they are met.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SlotName {
    Status,
    Latency,
    FirstToken,
    TokensIn,
    TokensOut,
    Cost,
    Score,
    Label,
    Empty,
    Complaint,
    /// Could every field be read: bin 1 no, bin 0 yes.
    Schema,
    /// A numeric feature, in bins.
    Number(Arc<str>),
    /// A categorical feature, in classes.
    Class(Arc<str>),
    /// A feature was there, with or without a value: bin 1 has one, bin 0 is null.
    Present(Arc<str>),
    /// A flag: bin 1 raised, bin 0 not.
    Flag(Arc<str>),
    /// An evaluator's score, in bins.
    Quality(Arc<str>),
    /// An evaluator's word: bin 1 bad, bin 0 good.
    QualityBad(Arc<str>),
    /// A protected attribute and a group of it: the two low bits of a bin tell what became of the prediction (0 undecided, 1
    /// favourable, 2 unfavourable, 3 failed), the others are the stratum: a hash of its segments.
    Group(Arc<str>, Arc<str>),
    /// An embedding: bins are the lengths of its vectors, 0 for those that have no direction.
    Embedding(Arc<str>),
}

/// Numbers of the fixed slots, in the order of [`SlotName`].
pub mod slot {
    pub const STATUS: u16 = 0;
    pub const LATENCY: u16 = 1;
    pub const FIRST_TOKEN: u16 = 2;
    pub const TOKENS_IN: u16 = 3;
    pub const TOKENS_OUT: u16 = 4;
    pub const COST: u16 = 5;
    pub const SCORE: u16 = 6;
    pub const LABEL: u16 = 7;
    pub const EMPTY: u16 = 8;
    pub const COMPLAINT: u16 = 9;
    pub const SCHEMA: u16 = 10;
    pub const FIXED: u16 = 11;
}

impl SlotName {
    pub fn fixed() -> Vec<SlotName> {
        use SlotName::*;
        vec![Status, Latency, FirstToken, TokensIn, TokensOut, Cost, Score, Label, Empty, Complaint, Schema]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_slots_stand_at_their_numbers() {
        let fixed = SlotName::fixed();
        assert_eq!(fixed.len(), usize::from(slot::FIXED));
        let at = |number: u16| &fixed[usize::from(number)];
        assert_eq!((at(slot::STATUS), at(slot::EMPTY), at(slot::COMPLAINT)), (&SlotName::Status, &SlotName::Empty, &SlotName::Complaint));
        assert_eq!((at(slot::LABEL), at(slot::SCHEMA)), (&SlotName::Label, &SlotName::Schema));
    }
}
