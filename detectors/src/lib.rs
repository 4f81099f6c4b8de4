//! Sequential evidence that a series has changed.
//!
//! Pure statistics: no clock, no input or output, no async, no randomness. A bank is fed one closed pane at a time, judges it
//! against everything quiet it has seen, and only then learns from it. Time enters as the start of the pane in milliseconds.
//!
//! All evidence is counted in units of the threshold: a bank speaks when its sum of Shiryaev-Roberts recursions reaches 1, and
//! what it is fed per pane (its *injection*) is its share of the false pages that the user accepts. Expected false pages stay
//! at or below the injected sum under any dependence between series.

pub mod ahead;
pub mod evidence;
pub mod population;
pub mod series;
pub mod sketch;
pub mod stream;
pub mod verdict;

pub use verdict::{Call, Change, Onset, Reading, Release, State};

/// Version of every serialised state in this crate. A snapshot with another version is not read but rebuilt.
pub const STATE_VERSION: u32 = 8;
