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

mod audit;
mod error;
mod incidents;
mod jobs;
mod journal;
mod outbox;
mod place;
mod readers;
mod registry;
mod schema;
mod snapshot;
#[cfg(test)]
mod samples;
mod wal;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Connection, OpenFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use audit::{AuditEntry, AuditProof, AuditRow};
pub use error::Error;
pub use incidents::{Commit, Committed, Filter, StoredAlarm};
pub use jobs::JobRow;
pub use journal::{Appended, JournalRow};
pub use outbox::{Backlog, Claimed, DeliveryRow};
pub use snapshot::{LoadedSnapshot, SnapshotHead, SnapshotRows};

use crate::domain::series::StableHash;

use error::Fault;
use place::{Lock, Reserve};
use readers::Readers;
use writer::{Answer, Writer};

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

/// Fields in the order in which they must go: the last connection to close folds the log, so the readers close before the writer, and
/// the lock is released when all is still.
struct Inner {
    path: PathBuf,
    readers: Readers,
    /// None when opened to read.
    writer: Option<Writer>,
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
        place::warn_of_network(dir);
        let store = Store::assemble(Target::File(path), connection, Some(reserve), Some(lock));
        // What a person is waiting for must be readable, or the start is refused like that of any damaged database.
        store.live_incidents()?;
        store.examine_outbox()?;
        Ok(store)
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
        self.write_later(doing, false, work)?.wait()
    }

    /// The same in a transaction of its own, for what is large; the answer is for later.
    fn write_alone_later<T, F>(&self, doing: &'static str, work: F) -> Result<Answer<T>, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        self.write_later(doing, true, work)
    }

    fn write_later<T, F>(&self, doing: &'static str, alone: bool, work: F) -> Result<Answer<T>, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        match &self.inner.writer {
            Some(writer) => writer.write_later(doing, alone, work),
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
        let hash = hash_of(id, text.as_bytes());
        Ok(Document { text, hash })
    }

    fn read<T: DeserializeOwned>(table: &'static str, id: &str, text: &str, hash: i64) -> Result<T, Fault> {
        if hash_of(id, text.as_bytes()) != hash {
            return Err(Fault::Flipped { table, id: id.to_owned() });
        }
        serde_json::from_str(text).map_err(|e| Fault::Refused(Error::Document { table, id: id.to_owned(), source: Arc::new(e) }))
    }
}

/// Of a row's name and what it holds: a body under another's name is damage too. SQLite's integers are signed; the bits are kept.
fn hash_of(name: &str, bytes: &[u8]) -> i64 {
    StableHash::new().part(name.as_bytes()).part(bytes).finish().cast_signed()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::samples::{delivery, entry, incident};
    use super::*;
    use crate::domain::IncidentState::Open;
    use crate::domain::Time;
    use crate::domain::delivery::Notice::Opened;

    fn open(dir: &Path) -> Result<Store, Error> {
        Store::open_with(dir, 10_000)
    }

    fn page(model: &str) -> Commit {
        let i = incident(model, 0, 1, Open);
        Commit { timeline: vec![entry(&i, 0, "opened")], deliveries: vec![delivery(&i, Opened, "pager")], incidents: vec![i], ..Commit::default() }
    }

    /// The directory as a kill at this moment would leave it.
    fn as_killed(from: &Path) -> tempfile::TempDir {
        let to = tempfile::tempdir().unwrap();
        for name in [FILE, "bellwether.db-wal", "reserve", "lock"] {
            if from.join(name).exists() {
                fs::copy(from.join(name), to.path().join(name)).unwrap();
            }
        }
        to
    }

    #[test]
    fn what_was_answered_survives_a_kill_at_every_moment() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        for n in 0..6 {
            store.commit(page(&format!("m{n}"))).unwrap();
            let mut rows = store.begin_snapshot().unwrap();
            rows.put("engine".to_owned(), &vec![n; 9_000 * usize::from(n)]);
            rows.finish(SnapshotHead { positions: vec![(1, i64::from(n))], ..SnapshotHead::default() }).unwrap();
            store.claim(Time(1), 30_000, 1).unwrap();
            let killed = as_killed(dir.path());
            let again = open(killed.path()).unwrap();
            assert_eq!(again.live_incidents().unwrap().len(), usize::from(n) + 1);
            assert_eq!(again.load_snapshot().unwrap().unwrap().positions, [(1, i64::from(n))]);
            assert_eq!(again.after_restart().unwrap(), usize::from(n) + 1, "each attempt was counted before it was made");
            assert_eq!(again.commit(page("m0")).unwrap(), Committed::default());
        }
    }

    #[test]
    fn a_kill_in_the_middle_of_a_write_leaves_whole_commits() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        for n in 0..5 {
            store.commit(page(&format!("m{n}"))).unwrap();
        }
        let log = fs::read(dir.path().join("bellwether.db-wal")).unwrap();
        let mut counts = Vec::new();
        for bytes in (0..=log.len()).step_by(1_361) {
            let killed = as_killed(dir.path());
            fs::write(killed.path().join("bellwether.db-wal"), &log[..bytes]).unwrap();
            let again = open(killed.path()).unwrap();
            let live = again.live_incidents().unwrap();
            for i in &live {
                assert_eq!((again.timeline(&i.id).unwrap().len(), again.deliveries_of(&i.id).unwrap().len()), (1, 1));
            }
            counts.push(live.len());
        }
        assert!(counts.is_sorted() && counts[0] == 0, "{counts:?}");
    }

    #[test]
    fn a_second_daemon_is_refused_within_a_second_and_told_who_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        let start = std::time::Instant::now();
        match open(dir.path()) {
            Err(Error::InUse { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
            other => panic!("{:?}", other.err()),
        }
        assert!(start.elapsed().as_millis() < 1_000);
        drop(store);
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_newer_schema_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        Connection::open(dir.path().join(FILE)).unwrap().pragma_update(None, "user_version", 99).unwrap();
        for error in [open(dir.path()).err(), Store::open_reader(dir.path()).err()] {
            let words = error.unwrap().to_string();
            assert!(words.contains("schema 99 is newer than 3"), "{words}");
        }
    }

    /// All documents, or the first refusal.
    fn documents(dir: &Path) -> Result<String, Error> {
        let store = open(dir)?;
        let live = store.live_incidents()?;
        let mut all = format!("{live:?}");
        for i in &live {
            let deliveries: Vec<_> = store.deliveries_of(&i.id)?.into_iter().map(|d| d.delivery).collect();
            all.push_str(&format!("{:?} {deliveries:?}", store.timeline(&i.id)?));
        }
        Ok(all)
    }

    #[test]
    fn a_flipped_bit_is_refused_or_harmless_and_never_an_empty_start() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        for n in 0..20 {
            store.commit(page(&format!("m{n}"))).unwrap();
        }
        drop(store);
        let sound = fs::read(dir.path().join(FILE)).unwrap();
        let whole = documents(dir.path()).unwrap();
        let after_flip = |at: usize| {
            let mut flipped = sound.clone();
            flipped[at] ^= 0x10;
            let other = tempfile::tempdir().unwrap();
            fs::write(other.path().join(FILE), flipped).unwrap();
            documents(other.path())
        };
        for at in (0..100).step_by(7).chain((100..sound.len()).step_by(211)) {
            if let Ok(found) = after_flip(at) {
                assert!(found == whole, "byte {at}");
            }
        }
        // Within a document nothing is harmless. Each of the twenty is there twice: as an incident and in its message. Further copies lie
        // in the free space of pages that were split, and nobody reads those.
        let words = b"roll back";
        let mut refused = 0;
        for at in (0..sound.len() - words.len()).filter(|at| sound[*at..].starts_with(words)) {
            match after_flip(at) {
                Ok(found) => assert!(found == whole, "byte {at}"),
                Err(Error::Corrupt { .. }) => refused += 1,
                Err(e) => panic!("byte {at}: {e:?}"),
            }
        }
        assert_eq!(refused, 40);
    }

    #[test]
    fn a_flipped_document_is_refused_with_the_way_to_restore() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        store.commit(page("m")).unwrap();
        drop(store);
        let raw = Connection::open(dir.path().join(FILE)).unwrap();
        raw.execute("UPDATE deliveries SET doc = replace(doc, 'roll back', 'roll bbck')", []).unwrap();
        drop(raw);
        let words = open(dir.path()).err().unwrap().to_string();
        assert!(words.contains("is not what was written") && words.contains("backup"), "{words}");
    }

    #[test]
    fn a_database_that_has_gone_is_not_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        fs::write(dir.path().join(FILE), "").unwrap();
        assert!(matches!(open(dir.path()), Err(Error::Corrupt { .. })));
        fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(matches!(open(dir.path()), Err(Error::Corrupt { .. })));
        fs::remove_file(dir.path().join("reserve")).unwrap();
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_reader_reads_beside_the_daemon_and_without_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Store::open_reader(dir.path()), Err(Error::Missing { .. })));
        let store = open(dir.path()).unwrap();
        let reader = Store::open_reader(dir.path()).unwrap();
        store.commit(page("m")).unwrap();
        assert_eq!(reader.live_incidents().unwrap().len(), 1);
        assert!(matches!(reader.set_meta("k", "v"), Err(Error::OnlyReads { .. })));
        drop((store, reader));
        assert_eq!(Store::open_reader(dir.path()).unwrap().live_incidents().unwrap().len(), 1);
    }

    #[test]
    fn a_backup_is_a_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).unwrap();
        store.commit(page("m")).unwrap();
        let other = tempfile::tempdir().unwrap();
        store.backup(&other.path().join(FILE)).unwrap();
        assert!(matches!(store.backup(&other.path().join(FILE)), Err(Error::Exists { .. })));
        assert_eq!(open(other.path()).unwrap().live_incidents().unwrap().len(), 1);
    }

    #[test]
    fn only_the_owner_may_look_in() {
        use std::os::unix::fs::PermissionsExt;
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("a/b");
        let _store = open(&dir).unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join(FILE)), mode(&dir.join("bellwether.db-wal"))), (0o700, 0o600, 0o600));
    }

    /// How long commits and a large snapshot take on this machine: `cargo test --release --lib store:: -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures"]
    fn figures() {
        use std::time::Instant;
        let dir = tempfile::tempdir_in(std::env::var("BELLWETHER_FIGURES_DIR").unwrap_or_else(|_| "target".to_owned())).unwrap();
        let start = Instant::now();
        let store = Store::open(dir.path()).unwrap();
        println!("first open with a reserve of 64 MiB: {:?}", start.elapsed());
        for threads in [1, 8, 64] {
            let each = 1_600 / threads;
            let start = Instant::now();
            std::thread::scope(|s| {
                for t in 0..threads {
                    let store = store.clone();
                    s.spawn(move || {
                        for n in 0..each {
                            store.commit(page(&format!("{threads}-{t}-{n}"))).unwrap();
                        }
                    });
                }
            });
            println!("{threads} callers: {:.0} commits/s", 1_600.0 / start.elapsed().as_secs_f64());
        }
        for round in 0..3u8 {
            let start = Instant::now();
            let mut rows = store.begin_snapshot().unwrap();
            (0..10_000).for_each(|n| rows.put(format!("row {n}"), &[round; 4_096]));
            rows.finish(SnapshotHead::default()).unwrap();
            let saved = start.elapsed();
            store.set_meta("k", "v").unwrap();
            println!("snapshot of 10,000 rows of 4 KiB: {saved:?}, the next write answered after {:?}", start.elapsed());
        }
        let start = Instant::now();
        let rows = store.load_snapshot().unwrap().unwrap().rows.len();
        println!("load of {rows} rows: {:?}", start.elapsed());
        let start = Instant::now();
        let claimed = store.claim(Time(1), 30_000, 16).unwrap().len();
        println!("claim of {claimed} among 4,800 waiting: {:?}", start.elapsed());
        drop(store);
        let start = Instant::now();
        drop(Store::open(dir.path()).unwrap());
        println!("second open and close: {:?}", start.elapsed());
    }
}
