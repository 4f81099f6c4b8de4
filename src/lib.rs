//! Bellwether: the map of the house.
//!
//! Data walks one way, one noun per door:
//!
//! ```text
//! source -> decode -Observation-> pane -Pane-> judge -Alarm-> triage
//!        -> incident -Event + Effect-> store (one write) -> outbox -> notify -Receipt-> (the front door again)
//!           respond -Job->                               -> errands -> act -Receipt->
//! ```
//!
//! The rooms stand in the order data walks. **A room may use only rooms that stand above it**; `tests/it/tidy.rs` checks it.
//! Everything up to `engine` is pure: no clock, no input or output, no async, no logging. `now` is an argument, and the same
//! journal in gives the same bytes out. `daemon` and `backtest` are two drivers of the same `engine`.

// --- core: pure, `now` is an argument ---
pub mod domain;
pub mod decode;
pub mod pane;
pub mod judge;
pub mod triage;
pub mod respond;
pub mod incident;
pub mod engine;
// --- shell: input and output; no adaptor knows another ---
pub mod telemetry;
pub mod source;
pub mod reference;
pub mod store;
pub mod notify;
pub mod act;
pub mod serve;
pub mod settings;
// --- drivers ---
pub mod dispatch;
pub mod daemon;
pub mod backtest;
pub mod fleet;
pub mod demo;
pub mod simulate;
pub mod cli;
