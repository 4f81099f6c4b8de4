//! What outlives the process: one SQLite database in the data directory.
//!
//! Picture a clerk with one ledger. Everybody hands slips through one window; the clerk writes all the slips that lie there, blots
//! once (one fsync), and tells each person whether *his* slip was written. Whoever only wants to read looks over the counter and
//! never stops the clerk. That is the whole design: one writing thread with group commit, and a few read-only connections.
//!
//! The rules that the other rooms build on:
//!
//! - An answer means durable. `synchronous=FULL` has no knob.
//! - Everything that a deterministic replay writes twice is written once: incidents by revision, timeline, deliveries and alarms
//!   by their own ids. A late writer is harmless, not merely unlikely.
//! - The store never starts empty by accident, and never serves a row whose bytes have changed under it: each document carries a
//!   hash. A disk that fails a write stops the store ([`Store::is_dead`]), because after a failed fsync nobody knows what is there.
//!
//! Not taken: an async database client (the writer is one thread by design), one table per kind of document field (documents are
//! JSON with the indexed columns beside, so a new field needs no migration), and a write per event or pane (snapshot and
//! replay make it needless).

mod error;
mod incidents;
mod journal;
mod outbox;
mod place;
mod readers;
mod registry;
mod schema;
mod snapshot;
mod wal;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::Error;
pub use incidents::{Commit, Committed, Filter, StoredAlarm};
pub use journal::{Appended, JournalRow};
pub use outbox::{Backlog, Claimed, DeliveryRow};
pub use snapshot::{LoadedSnapshot, Snapshot};

use crate::domain::series::StableHash;

use error::Fault;
use place::{Lock, Reserve};
use readers::Readers;
use writer::Writer;

/// The database's name within the data directory.
pub const FILE: &str = "bellwether.db";

/// Given back to the file system when the disk is full, so that incidents can still be written and sent while somebody makes room.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// A handle on the store; clones share the writing thread and the readers. When the last one is dropped, what was handed in is
/// written, the log is folded into the database and the directory's lock is released.
///
/// Methods block the calling thread: call them from a thread of your own.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Fields in the order in which they must go: the writer ends before the lock is released.
struct Inner {
    path: PathBuf,
    /// None when opened to read.
    writer: Option<Writer>,
    readers: Readers,
    /// Held, never read.
    _lock: Option<Lock>,
}

impl Store {
    /// Opens the store in `dir` to write, and makes it if `dir` has never held one.
    ///
    /// # Errors
    /// Another process holds the directory; the database is damaged, missing though it was there, or of a newer schema; the
    /// directory cannot be written.
    pub fn open(dir: &Path) -> Result<Store, Error> {
        Store::open_with(dir, RESERVE_BYTES)
    }

    fn open_with(dir: &Path, reserve_bytes: u64) -> Result<Store, Error> {
        schema::check_sqlite()?;
        place::make_dir(dir)?;
        let lock = Lock::take(dir)?;
        let path = dir.join(FILE);
        let reserve = Reserve::new(dir, reserve_bytes);
        place::refuse_lost_database(&path, &reserve)?;
        wal::refuse_damage(&path)?;
        let connection = schema::open_to_write(&Target::File(path.clone()))?;
        reserve.fill();
        Ok(Store::assemble(Target::File(path), connection, Some(reserve), Some(lock)))
    }

    /// A store in memory, for tests and for runs whose results are printed and not kept.
    ///
    /// # Errors
    /// SQLite is too old or has no memory left.
    pub fn memory() -> Result<Store, Error> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        schema::check_sqlite()?;
        let target = Target::Memory(COUNT.fetch_add(1, Ordering::Relaxed));
        let connection = schema::open_to_write(&target)?;
        Ok(Store::assemble(target, connection, None, None))
    }

    /// Opens the store in `dir` to read, while a daemon may be writing. Methods that write answer [`Error::OnlyReads`].
    ///
    /// # Errors
    /// There is no store in `dir`, or it has another schema than this program.
    pub fn open_reader(dir: &Path) -> Result<Store, Error> {
        schema::check_sqlite()?;
        let path = dir.join(FILE);
        if !path.is_file() {
            return Err(Error::Missing { path });
        }
        let target = Target::File(path.clone());
        schema::check_readable(&target)?;
        Ok(Store { inner: Arc::new(Inner { path, writer: None, readers: Readers::new(target), _lock: None }) })
    }

    fn assemble(target: Target, connection: Connection, reserve: Option<Reserve>, lock: Option<Lock>) -> Store {
        let path = target.path();
        let writer = Writer::start(path.clone(), connection, reserve);
        Store { inner: Arc::new(Inner { path, writer: Some(writer), readers: Readers::new(target), _lock: lock }) }
    }

    /// The database file; `:memory:` for a store in memory.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The disk failed a write, or the database turned out damaged: nothing is accepted any more and the process should end.
    pub fn is_dead(&self) -> bool {
        self.inner.writer.as_ref().is_some_and(Writer::is_dead)
    }

    /// Copies the whole store, as of now, to a new file that [`Store::open`] accepts under the name [`FILE`].
    ///
    /// # Errors
    /// `to` exists or cannot be written.
    pub fn backup(&self, to: &Path) -> Result<(), Error> {
        if to.exists() {
            return Err(Error::Exists { path: to.to_owned() });
        }
        let from = self.inner.readers.unbounded()?;
        let copy = |from: &Connection| -> rusqlite::Result<()> {
            let mut target = Connection::open(to)?;
            let backup = rusqlite::backup::Backup::new(from, &mut target)?;
            backup.step(-1)?;
            drop(backup);
            target.close().map_err(|(_, e)| e)
        };
        copy(&from).map_err(|e| Error::of_sql("copying to", to, e))
    }

    /// Runs `work` on the writing thread within a transaction; the answer comes after the commit. `work` may run a second time
    /// after a roll-back.
    fn write<T, F>(&self, doing: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        match &self.inner.writer {
            Some(writer) => writer.write(doing, work),
            None => Err(Error::OnlyReads { path: self.inner.path.clone(), doing }),
        }
    }

    /// Runs `work` on a read-only connection, within one read transaction and a bounded time.
    fn read<T>(&self, doing: &'static str, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Error> {
        self.inner.readers.read(doing, work)
    }
}

/// What a connection is opened on.
#[derive(Clone)]
enum Target {
    File(PathBuf),
    /// Shared by the connections of this process that name the same number.
    Memory(u64),
}

impl Target {
    fn path(&self) -> PathBuf {
        match self {
            Target::File(path) => path.clone(),
            Target::Memory(_) => PathBuf::from(":memory:"),
        }
    }

    fn connect(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        match self {
            Target::File(path) => Connection::open_with_flags(path, flags),
            Target::Memory(n) => Connection::open_with_flags(format!("file:/bellwether-{n}?vfs=memdb"), flags | OpenFlags::SQLITE_OPEN_URI),
        }
    }
}

/// A document as it lies in a table: its JSON, and the hash that tells whether a bit has flipped since.
#[derive(Clone)]
struct Document {
    text: String,
    hash: i64,
}

impl Document {
    /// Refuses what could not be read back (a number that JSON does not know), here, where somebody can still be told.
    fn of<T: Serialize + DeserializeOwned>(table: &'static str, id: &str, value: &T) -> Result<Document, Error> {
        let unreadable = |e: serde_json::Error| Error::Document { table, id: id.to_owned(), source: Arc::new(e) };
        let text = serde_json::to_string(value).map_err(unreadable)?;
        serde_json::from_str::<T>(&text).map_err(unreadable)?;
        let hash = hash_of(text.as_bytes());
        Ok(Document { text, hash })
    }

    fn read<T: DeserializeOwned>(table: &'static str, id: &str, text: &str, hash: i64) -> Result<T, Fault> {
        if hash_of(text.as_bytes()) != hash {
            return Err(Fault::Flipped { table, id: id.to_owned() });
        }
        serde_json::from_str(text).map_err(|e| Fault::Refused(Error::Document { table, id: id.to_owned(), source: Arc::new(e) }))
    }
}

/// SQLite's integers are signed; the bits are kept.
fn hash_of(bytes: &[u8]) -> i64 {
    StableHash::of(bytes).cast_signed()
}
