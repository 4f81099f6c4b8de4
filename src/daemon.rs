//! The daemon: source, engine, store, dispatch and pages, joined.
