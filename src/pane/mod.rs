//! Observations become panes.
//!
//! Everything here obeys the prefix law: what a source partition contributes to a pane is a pure function of a prefix of that
//! partition. So a kill, a replay or a second reader cannot change a pane, only repeat it.

mod cell;
mod codes;
mod ids;
mod leaf;
mod open;
mod rows;
mod sample;
#[cfg(test)]
mod tests;
mod watch;

pub use cell::{BoxedCell, Cell, Distinct, Exemplars, SLOTS_PER_PANE};
pub use codes::{Code, Codes};
pub use leaf::{Leaf, LeafCell, Leaves, SlotName, renew_order, slot};
pub use rows::{Put, Rows};
pub use sample::{Row, Samples, VECTORS_MAX, Vector};
pub use watch::{Contribution, Counts, Fact, FactKind, Limits, Outbound, PARTITION_ROWS, PartitionId, Protected, SLOTS_ROW, Scan, Settings, Watch};
