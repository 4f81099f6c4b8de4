//! The daemon: source, engine, store, dispatch and pages, joined.

pub mod build;
