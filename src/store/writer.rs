//! The one thread that writes, and its group commit.
//!
//! Whatever waits when the thread looks up goes into one transaction and pays for one fsync together. Each request stands within a
//! savepoint: if it is refused, it alone is rolled back and the others are committed. An answer is sent after the commit, never before.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::error::{Error, Fault, Kind, kind_of};
use super::place::Reserve;

/// Requests that may wait; whoever comes after that waits at the door.
const QUEUE: usize = 256;
/// Requests in one transaction.
const BATCH: usize = 256;
/// Pages in the log that are not yet in the database, above which it is folded (4 MiB) ...
const FOLD_PAGES: i64 = 1_000;
/// ... and pages in the log altogether (64 MiB), above which the writer waits for readers to leave so that the log can begin anew.
const RESTART_PAGES: i64 = 16_384;
/// After the reserve was given up: how long until it is taken again. Trying earlier would take the room from whoever is freeing it.
const REFILL_AFTER: Duration = Duration::from_secs(600);

pub(super) struct Writer {
    path: PathBuf,
    /// None once the store closes: the thread then finishes what waits and ends.
    jobs: Option<SyncSender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
    dead: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn start(path: PathBuf, connection: Connection, reserve: Option<Reserve>) -> Writer {
        let (jobs, waiting) = sync_channel(QUEUE);
        let dead = Arc::new(AtomicBool::new(false));
        let clerk = Clerk { path: path.clone(), connection, reserve, released: None, dead: Arc::clone(&dead) };
        // Without a thread every request is answered `Dead`: the receiving end is gone with the closure.
        let thread = thread::Builder::new().name("store-writer".to_owned()).spawn(move || clerk.run(&waiting)).ok();
        if thread.is_none() {
            dead.store(true, Ordering::Release);
        }
        Writer { path, jobs: Some(jobs), thread, dead }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// `alone`: in a transaction of its own. Whatever shares one can be taken back by itself, for which SQLite keeps a copy of
    /// every page in memory; of a large snapshot those were 200 MiB.
    pub(super) fn write_later<T, F>(&self, doing: &'static str, alone: bool, work: F) -> Result<Answer<T>, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let path = self.path.clone();
        let gone = || Error::Dead { path: self.path.clone() };
        let (answer, answered) = sync_channel(1);
        let request = Request { doing, alone, work, value: None, answer };
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Box::new(request)).map_err(|_| gone())?;
        Ok(Answer { path, answered })
    }
}

/// Comes when what was asked is durable.
pub(super) struct Answer<T> {
    path: PathBuf,
    answered: Receiver<Result<T, Error>>,
}

impl<T> Answer<T> {
    pub(super) fn wait(self) -> Result<T, Error> {
        self.answered.recv().map_err(|_| Error::Dead { path: self.path })?
    }
}

/// A request without its types.
trait Job: Send {
    fn doing(&self) -> &'static str;
    fn is_alone(&self) -> bool;
    fn run(&mut self, c: &Connection) -> Result<(), Fault>;
    fn answer(&mut self, result: Result<(), Error>);
}

struct Request<T, F> {
    doing: &'static str,
    alone: bool,
    work: F,
    /// What `work` came to; told once it is durable.
    value: Option<T>,
    answer: SyncSender<Result<T, Error>>,
}

impl<T, F> Job for Request<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, Fault> + Send,
{
    fn doing(&self) -> &'static str {
        self.doing
    }
    fn is_alone(&self) -> bool {
        self.alone
    }
    fn run(&mut self, c: &Connection) -> Result<(), Fault> {
        self.value = Some((self.work)(c)?);
        Ok(())
    }
    fn answer(&mut self, result: Result<(), Error>) {
        // Without a value the answer's door closes and the caller reads `Dead`. A caller who has gone does not matter.
        match (result, self.value.take()) {
            (Ok(()), Some(value)) => drop(self.answer.send(Ok(value))),
            (Ok(()), None) => {}
            (Err(e), _) => drop(self.answer.send(Err(e))),
        }
    }
}

/// What the thread owns.
struct Clerk {
    path: PathBuf,
    connection: Connection,
    reserve: Option<Reserve>,
    /// When the reserve was given up.
    released: Option<Instant>,
    dead: Arc<AtomicBool>,
}

impl Clerk {
    fn run(mut self, waiting: &Receiver<Box<dyn Job>>) {
        let mut batch: Vec<Box<dyn Job>> = Vec::with_capacity(BATCH);
        while let Ok(first) = waiting.recv() {
            batch.push(first);
            while batch.len() < BATCH && !batch.iter().any(|job| job.is_alone()) {
                match waiting.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            // What came before the one that goes alone goes first.
            let (last_is_alone, count) = (batch.last().is_some_and(|job| job.is_alone()), batch.len());
            let (together, alone) = batch.split_at_mut(count - usize::from(last_is_alone));
            for part in [together, alone] {
                if !part.is_empty() {
                    self.write(part);
                }
            }
            batch.clear();
        }
    }

    fn write(&mut self, batch: &mut [Box<dyn Job>]) {
        if self.dead.load(Ordering::Acquire) {
            for job in batch {
                job.answer(Err(Error::Dead { path: self.path.clone() }));
            }
            return;
        }
        let mut outcome = attempt(&self.connection, batch);
        if outcome.as_ref().is_err_and(|e| kind_of(e) == Kind::Full) && self.give_up_reserve() {
            outcome = attempt(&self.connection, batch);
        }
        match outcome {
            Ok(results) => {
                if let Some(Fault::Flipped { table, id }) =
                    results.iter().filter_map(|r| r.as_ref().err()).find(|f| matches!(f, Fault::Flipped { .. }))
                {
                    self.die(&format!("{table} {id} is not what was written"));
                }
                for (job, result) in batch.iter_mut().zip(results) {
                    let doing = job.doing();
                    job.answer(result.map_err(|f| f.told(doing, &self.path)));
                }
                self.keep_house();
            }
            Err(e) => {
                let kind = kind_of(&e);
                if matches!(kind, Kind::Disk | Kind::Damage) {
                    self.die(&e);
                }
                let error = Error::of_sql("writing", &self.path, e);
                for job in batch {
                    job.answer(Err(error.clone()));
                }
            }
        }
    }

    fn die(&self, error: &dyn std::fmt::Display) {
        self.dead.store(true, Ordering::Release);
        tracing::error!(path = %self.path.display(), %error, "the store has stopped");
    }

    fn give_up_reserve(&mut self) -> bool {
        let given = self.reserve.as_ref().is_some_and(Reserve::release);
        if given {
            self.released = Some(Instant::now());
            tracing::error!(path = %self.path.display(), "the disk is full: the reserve was given up");
        }
        given
    }

    /// After the answers: folds the log, takes the reserve again.
    fn keep_house(&mut self) {
        if let Err(e) = fold(&self.connection) {
            match kind_of(&e) {
                Kind::Disk | Kind::Damage => return self.die(&e),
                // The log keeps what could not be folded.
                Kind::Full if self.give_up_reserve() => {}
                Kind::Full | Kind::Slow | Kind::Other => {}
            }
        }
        if let Some(since) = self.released
            && since.elapsed() >= REFILL_AFTER
        {
            self.released = match self.reserve.as_ref().is_some_and(Reserve::fill) {
                true => None,
                false => Some(Instant::now()),
            };
        }
    }
}

/// All requests in one transaction, each of which can be taken back by itself. `Ok` holds each one's own result; `Err` means that nothing at all was written.
fn attempt(c: &Connection, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<Vec<Result<(), Fault>>> {
    let done = attempt_open(c, batch);
    if done.is_err() && !c.is_autocommit() {
        // Fails only if SQLite has rolled back already.
        let _ = c.execute_batch("ROLLBACK");
    }
    done
}

fn attempt_open(c: &Connection, batch: &mut [Box<dyn Job>]) -> rusqlite::Result<Vec<Result<(), Fault>>> {
    c.execute_batch("BEGIN IMMEDIATE")?;
    let is_alone = batch.len() == 1;
    let mut results = Vec::with_capacity(batch.len());
    for job in batch.iter_mut() {
        if !is_alone {
            c.prepare_cached("SAVEPOINT job")?.execute([])?;
        }
        let result = match job.run(c) {
            // The disk's failure is everybody's; so is one after which SQLite has rolled all of it back.
            Err(Fault::Sql(e)) if c.is_autocommit() || matches!(kind_of(&e), Kind::Full | Kind::Disk | Kind::Damage) => return Err(e),
            other => other,
        };
        match (is_alone, result.is_err()) {
            (true, true) => {
                c.execute_batch("ROLLBACK")?;
                return Ok(vec![result]);
            }
            (true, false) => {}
            (false, true) => c.execute_batch("ROLLBACK TO job; RELEASE job")?,
            (false, false) => drop(c.prepare_cached("RELEASE job")?.execute([])?),
        }
        results.push(result);
    }
    c.execute_batch("COMMIT")?;
    Ok(results)
}

/// Moves the log into the database when enough has gathered.
fn fold(c: &Connection) -> rusqlite::Result<()> {
    let (in_log, folded) = c.query_row("PRAGMA wal_checkpoint(NOOP)", [], |r| Ok((r.get::<_, i64>(1)?, r.get::<_, i64>(2)?)))?;
    // Readers that do not leave in time make it answer "busy", which is no error: next time.
    let how = match (in_log, in_log - folded) {
        (all, _) if all > RESTART_PAGES => "PRAGMA wal_checkpoint(TRUNCATE)",
        (_, pending) if pending > FOLD_PAGES => "PRAGMA wal_checkpoint(PASSIVE)",
        _ => return Ok(()),
    };
    c.query_row(how, [], |_| Ok(()))
}

// === impl traits ===

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use rusqlite::ffi;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_caller_who_offends_does_not_spoil_the_others_of_his_batch() {
        let store = Store::memory().unwrap();
        let all = Barrier::new(33);
        std::thread::scope(|s| {
            // Holds the writer until all the others wait.
            let hold = s.spawn(|| {
                let (go, wait) = sync_channel::<()>(1);
                let held = s.spawn({
                    let store = store.clone();
                    move || {
                        store.write("holding", move |_| {
                            let _ = wait.recv_timeout(Duration::from_secs(5));
                            Ok(())
                        })
                    }
                });
                all.wait();
                drop(go);
                held.join().unwrap().unwrap();
            });
            for n in 0..32 {
                let (store, all) = (store.clone(), &all);
                s.spawn(move || {
                    all.wait();
                    let result = store.write("putting", move |c| {
                        c.execute("INSERT INTO meta VALUES (?1, 'half done')", [format!("key {n}")])?;
                        if n % 4 == 0 {
                            c.execute("INSERT INTO meta VALUES (?1, 'again')", [format!("key {n}")])?;
                        }
                        Ok(n)
                    });
                    match result {
                        Ok(value) => assert!(n % 4 != 0 && value == n),
                        Err(e) => assert!(n % 4 == 0 && matches!(e, Error::Sql { .. }), "{e}"),
                    }
                });
            }
            hold.join().unwrap();
        });
        for n in 0..32 {
            assert_eq!(store.get_meta(&format!("key {n}")).unwrap().is_some(), n % 4 != 0, "key {n}");
        }
        assert!(!store.is_dead());
    }

    #[test]
    fn a_failed_fsync_stops_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), 0).unwrap();
        store.set_meta("before", "1").unwrap();
        let failed: Result<(), Error> = store.write("writing", |c| {
            c.execute("INSERT INTO meta VALUES ('during', '1')", [])?;
            Err(Fault::Sql(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None)))
        });
        match failed {
            Err(Error::Io { path, .. }) => assert_eq!(path, store.path()),
            other => panic!("{other:?}"),
        }
        assert!(store.is_dead());
        assert!(matches!(store.set_meta("after", "1"), Err(Error::Dead { .. })));
        drop(store);
        let store = Store::open_with(dir.path(), 0).unwrap();
        let found = ["before", "during", "after"].map(|k| store.get_meta(k).unwrap().is_some());
        assert_eq!(found, [true, false, false]);
    }

    #[test]
    fn a_full_disk_takes_the_reserve_and_is_not_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), 100_000).unwrap();
        let limit = |pages: i64| store.write("limiting", move |c| Ok(c.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?));
        limit(1).unwrap();
        assert!(dir.path().join("reserve").exists());
        let large = "x".repeat(100_000);
        assert!(matches!(store.set_meta("large", &large), Err(Error::Full { .. })));
        assert!(!dir.path().join("reserve").exists());
        assert!(!store.is_dead());
        limit(1_000_000).unwrap();
        store.set_meta("large", &large).unwrap();
    }
}
