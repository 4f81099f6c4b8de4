//! The same engine over history in files.
