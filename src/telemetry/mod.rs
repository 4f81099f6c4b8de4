//! What the daemon tells about itself: counters and gauges for Prometheus, and the log.

pub mod log;
mod metrics;

pub use metrics::{CONTENT_TYPE, Metrics};
