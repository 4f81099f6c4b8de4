//! The engine: records in, incidents and effects out; pure, so that the daemon and the backtest are two drivers of one thing.

pub mod view;
