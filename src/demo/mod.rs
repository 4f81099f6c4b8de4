//! Everything in one process, to be tried in a minute: the pieces of `bellwether demo`.
//!
//! A script says which fault comes when, keys switch them by hand, a pager shows what PagerDuty would have been told. Each
//! piece is of use without the others, and none of them knows the watch: the main loop joins them.

pub mod keys;
pub mod pager;
mod play;
pub mod screen;
pub mod script;

pub use play::{Error, Options, run};
