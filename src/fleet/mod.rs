//! Traffic with known truth.
