//! Summaries of fixed resolution that merge by adding.

pub mod log_linear;
