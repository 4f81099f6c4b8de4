//! What can go wrong with the store, in the words of the person who must put it right.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::ErrorCode;
use rusqlite::ffi;

/// Why the store did not do what it was asked. Clones share their source, because one failed commit answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: another bellwether (pid {pid}) uses this directory; stop it, or give this one a data directory of its own", dir.display())]
    InUse { dir: PathBuf, pid: String },
    #[error("{doing} {} failed", path.display())]
    File { doing: &'static str, path: PathBuf, source: Arc<io::Error> },
    #[error("{}: there is no store here; has the daemon run with this data directory?", path.display())]
    Missing { path: PathBuf },
    #[error("{} exists already", path.display())]
    Exists { path: PathBuf },
    #[error(
        "{}: the database is damaged ({found}); nothing was changed. To restore: stop bellwether, move {0}, {0}-wal and {0}-shm aside, copy \
         the last backup to {0}, start again. Without a backup: `sqlite3 DAMAGED .recover | sqlite3 {0}`",
        path.display()
    )]
    Corrupt { path: PathBuf, found: String },
    #[error("{}: schema {found} is newer than {known}, the newest that this program knows; start the newer program again, or restore a backup", path.display())]
    NewerSchema { path: PathBuf, found: i64, known: i64 },
    #[error("{}: schema {found} is older than {known}; start the daemon once to bring it forward", path.display())]
    OlderSchema { path: PathBuf, found: i64, known: i64 },
    #[error("SQLite {found} is too old; {needed} or newer is needed")]
    OldSqlite { found: String, needed: &'static str },
    /// The disk or the file system failed; the store is dead.
    #[error("{doing} {}: the disk failed, the store has stopped", path.display())]
    Io { doing: &'static str, path: PathBuf, source: Arc<rusqlite::Error> },
    /// Try again later: the store goes on by itself when there is room.
    #[error("{doing} {}: the disk is full", path.display())]
    Full { doing: &'static str, path: PathBuf },
    /// Begin again: there is room now.
    #[error("{doing} {}: the disk was full, the reserve has been given up", path.display())]
    TakenBack { doing: &'static str, path: PathBuf },
    #[error("{doing} {}: broken off before its end", path.display())]
    CutShort { doing: &'static str, path: PathBuf },
    #[error("{}: the store has stopped after a failure", path.display())]
    Dead { path: PathBuf },
    #[error("{doing} {}: not within the time allowed", path.display())]
    TooSlow { doing: &'static str, path: PathBuf },
    #[error("{doing} {}: opened to read only", path.display())]
    OnlyReads { doing: &'static str, path: PathBuf },
    /// Two live incidents of one (environment, model, category).
    #[error("incident {refused} has the key {key}, which live incident {live} holds")]
    Conflict { key: String, live: String, refused: String },
    #[error("timeline names incident {incident}, which is not in the store")]
    UnknownIncident { incident: String },
    #[error("{state} is not an outcome of delivery {delivery}")]
    NotAnOutcome { delivery: String, state: &'static str },
    #[error("{cursor:?} is not a cursor of the list of incidents")]
    BadCursor { cursor: String },
    #[error("{table} {id}: the document cannot be written and read back")]
    Document { table: &'static str, id: String, source: Arc<serde_json::Error> },
    #[error("{doing} {} failed", path.display())]
    Sql { doing: &'static str, path: PathBuf, source: Arc<rusqlite::Error> },
}

impl Error {
    /// Sorts SQLite's codes into what a caller can do about them.
    pub(super) fn of_sql(doing: &'static str, path: &Path, source: rusqlite::Error) -> Error {
        let path = path.to_owned();
        match kind_of(&source) {
            Kind::Full => Error::Full { doing, path },
            Kind::Disk => Error::Io { doing, path, source: Arc::new(source) },
            Kind::Damage => Error::Corrupt { path, found: source.to_string() },
            Kind::Slow => Error::TooSlow { doing, path },
            Kind::Other => Error::Sql { doing, path, source: Arc::new(source) },
        }
    }

    pub(super) fn of_file(doing: &'static str, path: &Path, source: io::Error) -> Error {
        Error::File { doing, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// What goes wrong within a transaction, before anybody has said what was being done and where.
pub(super) enum Fault {
    Sql(rusqlite::Error),
    /// This request, and no other, is at fault.
    Refused(Error),
    /// What was half told before the disk was full cannot be told again by this request.
    TakenBack,
    /// Whoever was telling stopped.
    CutShort,
    /// The bytes of a row are not the ones that were written.
    Flipped {
        table: &'static str,
        id: String,
    },
}

impl Fault {
    pub(super) fn told(self, doing: &'static str, path: &Path) -> Error {
        match self {
            Fault::Sql(e) => Error::of_sql(doing, path, e),
            Fault::Refused(e) => e,
            Fault::TakenBack => Error::TakenBack { doing, path: path.to_owned() },
            Fault::CutShort => Error::CutShort { doing, path: path.to_owned() },
            Fault::Flipped { table, id } => Error::Corrupt { path: path.to_owned(), found: format!("{table} {id} is not what was written") },
        }
    }
}

/// What a failure of SQLite means to the one who waits for the answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Full,
    Disk,
    Damage,
    Slow,
    Other,
}

pub(super) fn kind_of(error: &rusqlite::Error) -> Kind {
    let rusqlite::Error::SqliteFailure(e, _) = error else { return Kind::Other };
    match e.code {
        ErrorCode::DiskFull => Kind::Full,
        // Growing the shared-memory file of the write-ahead log is how a full disk shows itself to the first writer after a reset.
        ErrorCode::SystemIoFailure if e.extended_code == ffi::SQLITE_IOERR_SHMSIZE => Kind::Full,
        ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly => Kind::Disk,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Kind::Damage,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::OperationInterrupted => Kind::Slow,
        _ => Kind::Other,
    }
}

/// A unique index or a foreign key said no: which, is for the caller to find out.
pub(super) fn is_constraint(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

// === impl traits ===

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Fault {
        Fault::Sql(e)
    }
}

impl From<Error> for Fault {
    fn from(e: Error) -> Fault {
        Fault::Refused(e)
    }
}
