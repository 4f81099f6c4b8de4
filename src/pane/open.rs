//! A pane that still takes events in, and its cells.
//!
//! A thin fleet has thousands of leaves of which a pane of one partition holds some, so cells are found by a small map and not by a
//! place for each leaf.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cell::{BoxedCell, Cell};
use super::watch::Fact;
use crate::domain::Time;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenPane {
    pub start: Time,
    pub cells: Cells,
    pub facts: Vec<Fact>,
}

/// Cells by the index of their leaf in the partition.
#[derive(Clone, Debug, Default)]
pub struct Cells(HashMap<u32, BoxedCell, FixedState>);

/// The pane that starts at `start`; it is opened if it is not open.
pub fn open_pane(open: &mut Vec<OpenPane>, start: Time) -> &mut OpenPane {
    // The newest pane is nearly always the one: look from the back.
    let at = open.iter().rposition(|pane| pane.start <= start);
    match at {
        Some(i) if open[i].start == start => &mut open[i],
        _ => {
            let i = at.map_or(0, |i| i + 1);
            // A pane holds about as much as the one before.
            let room = at.map_or(0, |i| open[i].cells.0.len());
            let cells = Cells(HashMap::with_capacity_and_hasher(room, FixedState::default()));
            open.insert(i, OpenPane { start, cells, facts: Vec::new() });
            &mut open[i]
        }
    }
}

// === impl Cells ===

impl Cells {
    /// The cell of a leaf. A new one is taken from those that were used before, if there is one.
    pub fn of(&mut self, leaf: u32, spare: &mut Vec<BoxedCell>) -> &mut Cell {
        self.0.entry(leaf).or_insert_with(|| match spare.pop() {
            Some(mut cell) => {
                cell.clear();
                cell
            }
            None => BoxedCell::default(),
        })
    }

    /// All cells, in the order of the indices of their leaves.
    pub fn into_sorted(self) -> Vec<(u32, BoxedCell)> {
        let mut all: Vec<(u32, BoxedCell)> = self.0.into_iter().collect();
        all.sort_unstable_by_key(|c| c.0);
        all
    }
}

impl Serialize for Cells {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut all: Vec<(u32, &Cell)> = self.0.iter().map(|(leaf, cell)| (*leaf, &**cell)).collect();
        all.sort_unstable_by_key(|c| c.0);
        all.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Cells, D::Error> {
        Ok(Cells(Vec::<(u32, BoxedCell)>::deserialize(from)?.into_iter().collect()))
    }
}
