//! A few read-only connections, lent for a bounded time.
//!
//! A slow query must not hold back the folding of the write-ahead log, nor a crowd of them the memory: there are at most
//! [`READERS`] at once, one waits at most [`WAIT`] for a turn, and a watchman interrupts whoever stays longer than [`TURN`].

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, InterruptHandle, OpenFlags};

use super::Target;
use super::error::{Error, Fault};

const READERS: usize = 4;
const WAIT: Duration = Duration::from_secs(5);
const TURN: Duration = Duration::from_secs(5);
/// A writer in memory mode holds readers off while it commits; on disk nobody does.
const BUSY: Duration = Duration::from_secs(1);

pub(super) struct Readers {
    path: PathBuf,
    shared: Arc<Shared>,
    watchman: Option<JoinHandle<()>>,
}

struct Shared {
    target: Target,
    desk: Mutex<Desk>,
    /// Somebody came back.
    returned: Condvar,
    /// Somebody left, or the store closes.
    left: Condvar,
}

#[derive(Default)]
struct Desk {
    idle: Vec<Connection>,
    /// Number of the loan, when it must end, and how to end it.
    loans: Vec<(u64, Instant, InterruptHandle)>,
    next: u64,
    /// Being opened outside the lock.
    opening: usize,
    closed: bool,
}

impl Readers {
    pub(super) fn new(target: Target) -> Readers {
        let path = target.path();
        let shared = Arc::new(Shared { target, desk: Mutex::default(), returned: Condvar::new(), left: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let watchman = thread::Builder::new().name("store-watchman".to_owned()).spawn(move || theirs.watch()).ok();
        Readers { path, shared, watchman }
    }

    pub(super) fn read<T>(&self, doing: &'static str, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Error> {
        let (loan, connection) = self.shared.lend(doing, &self.path)?;
        let result = within_read(&connection, work);
        self.shared.take_back(loan, connection);
        result.map_err(|f| f.told(doing, &self.path))
    }

    /// A connection of its own, for what takes as long as it takes: loading a snapshot at start, a backup.
    pub(super) fn unbounded(&self) -> Result<Connection, Error> {
        self.shared.connect().map_err(|e| Error::of_sql("opening", &self.path, e))
    }

    pub(super) fn read_unbounded<T>(&self, doing: &'static str, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Error> {
        within_read(&self.unbounded()?, work).map_err(|f| f.told(doing, &self.path))
    }
}

/// One read transaction, so that all statements of `work` see the same moment.
fn within_read<T>(c: &Connection, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
    let t = c.unchecked_transaction()?;
    let out = work(&t)?;
    t.finish()?;
    Ok(out)
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let c = self.target.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        c.busy_timeout(BUSY)?;
        c.pragma_update(None, "query_only", true)?;
        c.set_prepared_statement_cache_capacity(32);
        Ok(c)
    }

    fn lend(&self, doing: &'static str, path: &std::path::Path) -> Result<(u64, Connection), Error> {
        let until = Instant::now() + WAIT;
        let mut desk = self.desk();
        loop {
            if let Some(connection) = desk.idle.pop() {
                return Ok((self.book(&mut desk, &connection), connection));
            }
            if desk.loans.len() + desk.opening < READERS {
                desk.opening += 1;
                drop(desk);
                let opened = self.connect();
                desk = self.desk();
                desk.opening -= 1;
                let connection = opened.map_err(|e| Error::of_sql("opening", path, e))?;
                return Ok((self.book(&mut desk, &connection), connection));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::TooSlow { doing, path: path.to_owned() });
            }
            desk = self.returned.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn book(&self, desk: &mut Desk, connection: &Connection) -> u64 {
        desk.next += 1;
        let loan = desk.next;
        desk.loans.push((loan, Instant::now() + TURN, connection.get_interrupt_handle()));
        self.left.notify_one();
        loan
    }

    fn take_back(&self, loan: u64, connection: Connection) {
        let mut desk = self.desk();
        desk.loans.retain(|(n, ..)| *n != loan);
        // One that is still within a transaction after an interruption is of no more use.
        if connection.is_autocommit() {
            desk.idle.push(connection);
        }
        drop(desk);
        self.returned.notify_one();
    }

    /// Interrupts under the desk's lock, so that a connection that came back meanwhile is never interrupted in its next loan.
    fn watch(&self) {
        let mut desk = self.desk();
        while !desk.closed {
            let now = Instant::now();
            for (_, until, handle) in &desk.loans {
                if *until <= now {
                    handle.interrupt();
                }
            }
            desk = match desk.loans.iter().map(|(_, until, _)| *until).min() {
                // Somebody who was told already and has not left is told again, but not in a spin.
                Some(until) => {
                    let sleep = until.saturating_duration_since(now).max(Duration::from_millis(100));
                    self.left.wait_timeout(desk, sleep).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.left.wait(desk).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

// === impl traits ===

impl Drop for Readers {
    fn drop(&mut self) {
        self.shared.desk().closed = true;
        self.shared.left.notify_one();
        if let Some(watchman) = self.watchman.take() {
            let _ = watchman.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn many_readers_see_whole_commits_while_somebody_writes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), 0).unwrap();
        let put = |n: i32| {
            store.write("counting", move |c| {
                for key in ["left", "right"] {
                    c.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", [key, &n.to_string()])?;
                }
                Ok(())
            })
        };
        put(0).unwrap();
        thread::scope(|s| {
            for _ in 0..12 {
                s.spawn(|| {
                    for _ in 0..50 {
                        let pair = |c: &Connection| {
                            let get = |key: &str| c.query_row("SELECT value FROM meta WHERE key = ?1", [key], |r| r.get::<_, String>(0));
                            Ok((get("left")?, get("right")?))
                        };
                        let (left, right) = store.read("reading", pair).unwrap();
                        assert_eq!(left, right);
                    }
                });
            }
            for n in 1..50 {
                put(n).unwrap();
            }
        });
    }

    #[test]
    fn who_stays_too_long_is_interrupted() {
        let store = Store::memory().unwrap();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let start = Instant::now();
        let result = store.read("counting", |c| Ok(c.query_row(endless, [], |r| r.get::<_, i64>(0))?));
        assert!(matches!(result, Err(Error::TooSlow { doing: "counting", .. })), "{result:?}");
        assert!(start.elapsed() < TURN * 2);
        assert_eq!(store.get_meta("k").unwrap(), None, "and the next one is served");
    }
}
