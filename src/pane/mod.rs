//! Observations become panes.
//!
//! Everything here obeys the prefix law: what a source partition contributes to a pane is a pure function of a prefix of that
//! partition. So a kill, a replay or a second reader cannot change a pane, only repeat it.

mod cell;
mod leaf;
mod sample;
#[cfg(test)]
mod tests;
mod watch;

pub use cell::{BoxedCell, Cell, Code, Distinct, Exemplars, SLOTS_PER_PANE, once_each};
pub use leaf::{Leaf, LeafCell, Leaves, SlotName, renew_order, slot};
pub use sample::{Row, Samples, VECTORS_MAX, Vector};
pub use watch::{Contribution, Counts, Fact, FactKind, Limits, Outbound, PartitionId, Protected, Scan, Settings, Watch};
