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

    pub(super) fn write<T, F>(&self, doing: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let gone = || Error::Dead { path: self.path.clone() };
        let (answer, answered) = sync_channel(1);
        let request = Request { doing, work, value: None, answer };
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Box::new(request)).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

/// A request without its types.
trait Job: Send {
    fn doing(&self) -> &'static str;
    fn run(&mut self, c: &Connection) -> Result<(), Fault>;
    fn answer(&mut self, result: Result<(), Error>);
}

struct Request<T, F> {
    doing: &'static str,
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
            while batch.len() < BATCH {
                match waiting.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            self.write(&mut batch);
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

    fn die(&self, error: &rusqlite::Error) {
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

/// All requests in one transaction. `Ok` holds each one's own result; `Err` means that nothing at all was written.
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
    let mut results = Vec::with_capacity(batch.len());
    for job in batch.iter_mut() {
        c.prepare_cached("SAVEPOINT job")?.execute([])?;
        let result = job.run(c);
        match &result {
            Ok(()) => {}
            // The disk's failure is everybody's.
            Err(Fault::Sql(e)) if c.is_autocommit() || matches!(kind_of(e), Kind::Full | Kind::Disk | Kind::Damage) => {
                return match result {
                    Err(Fault::Sql(e)) => Err(e),
                    Ok(()) | Err(_) => Ok(results),
                };
            }
            Err(_) => {
                c.prepare_cached("ROLLBACK TO job")?.execute([])?;
            }
        }
        c.prepare_cached("RELEASE job")?.execute([])?;
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
