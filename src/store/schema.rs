//! The tables, the steps that made them, and the examination of a database before anybody trusts it.

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::time::Duration;

use super::Target;
use super::error::Error;

/// Older ones can lose a committed transaction when a checkpoint meets a reset of the write-ahead log.
const SQLITE_NEEDED: (i32, &str) = (3_051_003, "3.51.3");

/// How long the writer waits for somebody who holds the database, which only a backup tool or a shell would.
const WRITER_WAIT: Duration = Duration::from_secs(5);

/// Steps from one schema to the next; `user_version` counts those taken. Never change one that was released: add one.
const STEPS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE partitions (
        id INTEGER PRIMARY KEY, source TEXT NOT NULL, partition INTEGER NOT NULL, UNIQUE (source, partition)
    ) STRICT;

    CREATE TABLE snapshot_rows (name TEXT NOT NULL PRIMARY KEY, body BLOB NOT NULL, hash INTEGER NOT NULL) STRICT;
    CREATE TABLE snapshot_positions (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL) STRICT;
    CREATE TABLE snapshot_head (
        one INTEGER PRIMARY KEY CHECK (one = 1), journal_seq INTEGER NOT NULL, judged_through INTEGER NOT NULL, version INTEGER NOT NULL
    ) STRICT;

    -- AUTOINCREMENT: a number is never given twice, not even after the newest row was pruned.
    CREATE TABLE journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, key TEXT, body BLOB NOT NULL, hash INTEGER NOT NULL) STRICT;
    -- Outlives its journal row: somebody may ask again after the row was pruned.
    CREATE TABLE journal_keys (key TEXT NOT NULL PRIMARY KEY, seq INTEGER, answer BLOB, written_at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX journal_keys_by_age ON journal_keys (written_at);

    CREATE TABLE incidents (
        id TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL,
        environment TEXT NOT NULL, model TEXT NOT NULL, category TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN (
            'open', 'acknowledged', 'mitigated', 'monitoring_recovery', 'resolved', 'review_due', 'closed', 'suppressed', 'merged')),
        severity INTEGER NOT NULL,
        opened_at INTEGER NOT NULL, resolved_at INTEGER,
        doc TEXT NOT NULL, hash INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX incidents_live ON incidents (environment, model, category)
        WHERE state IN ('open', 'acknowledged', 'mitigated', 'monitoring_recovery', 'suppressed');
    CREATE INDEX incidents_newest ON incidents (opened_at DESC, id DESC);
    CREATE INDEX incidents_resolved ON incidents (resolved_at) WHERE resolved_at IS NOT NULL;

    CREATE TABLE timeline (
        incident_id TEXT NOT NULL REFERENCES incidents (id), revision INTEGER NOT NULL, ordinal INTEGER NOT NULL, what TEXT NOT NULL,
        doc TEXT NOT NULL, hash INTEGER NOT NULL,
        PRIMARY KEY (incident_id, revision, ordinal, what)
    ) STRICT;

    CREATE TABLE deliveries (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
        incident_id TEXT NOT NULL, receiver TEXT NOT NULL, supersedable INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'sending', 'accepted', 'refused', 'uncertain', 'superseded', 'expired')),
        attempts INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL, next_at INTEGER NOT NULL,
        lease_until INTEGER, first_attempt_at INTEGER, last_attempt_at INTEGER, settled_at INTEGER,
        detail TEXT NOT NULL DEFAULT '', doc TEXT NOT NULL, hash INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX deliveries_of ON deliveries (incident_id, seq);
    CREATE INDEX deliveries_pending ON deliveries (incident_id, receiver, seq)
        WHERE state IN ('waiting', 'sending', 'uncertain');

    CREATE TABLE alarms (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, series INTEGER NOT NULL, at INTEGER NOT NULL,
        doc TEXT NOT NULL, hash INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX alarms_of_series ON alarms (series, at DESC);
    CREATE INDEX alarms_newest ON alarms (at DESC);
",
    "
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, incident_id TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'doing', 'done')),
        attempts INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL, next_at INTEGER NOT NULL, settled_at INTEGER,
        detail TEXT NOT NULL DEFAULT '', doc TEXT NOT NULL, hash INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX jobs_of ON jobs (incident_id, seq);
    CREATE INDEX jobs_pending ON jobs (state, next_at) WHERE state <> 'done';

    -- AUTOINCREMENT: the counter remembers how many rows there ever were.
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, who TEXT NOT NULL, role TEXT NOT NULL, what TEXT NOT NULL,
        subject TEXT NOT NULL, detail TEXT NOT NULL, before TEXT NOT NULL, seal TEXT NOT NULL
    ) STRICT;
    CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is never changed'); END;
    CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit is never changed'); END;
",
    "
    -- What a receiver gave us to find its ticket or message of an incident again.
    CREATE TABLE receiver_references (
        incident_id TEXT NOT NULL, receiver TEXT NOT NULL, reference TEXT NOT NULL, hash INTEGER NOT NULL, written_at INTEGER NOT NULL,
        PRIMARY KEY (incident_id, receiver)
    ) STRICT, WITHOUT ROWID;
",
];

pub(super) fn check_sqlite() -> Result<(), Error> {
    if rusqlite::version_number() < SQLITE_NEEDED.0 {
        return Err(Error::OldSqlite { found: rusqlite::version().to_owned(), needed: SQLITE_NEEDED.1 });
    }
    Ok(())
}

/// Opens, examines and brings forward: after this the connection is the writer's.
pub(super) fn open_to_write(target: &Target) -> Result<Connection, Error> {
    let path = target.path();
    let failed = |doing| {
        let path = path.clone();
        move |e| Error::of_sql(doing, &path, e)
    };
    let mut c = target.connect(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE).map_err(failed("opening"))?;
    c.busy_timeout(WRITER_WAIT).map_err(failed("opening"))?;
    let version = user_version(&c).map_err(failed("opening"))?;
    refuse_newer(target, version)?;
    examine(&c, target, version)?;
    settings(&c, target).map_err(failed("setting up"))?;
    migrate(&mut c, version).map_err(failed("bringing forward the schema of"))?;
    // The log begins anew, so that no leftover of a torn transaction lies behind what is written next. In memory there is none.
    c.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed("folding the log of"))?;
    Ok(c)
}

/// For a reader that does not examine: the schema must be ours.
pub(super) fn check_readable(target: &Target) -> Result<(), Error> {
    let path = target.path();
    let failed = |e| Error::of_sql("opening", &path, e);
    let c = target.connect(OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(failed)?;
    c.busy_timeout(WRITER_WAIT).map_err(failed)?;
    let found = user_version(&c).map_err(failed)?;
    refuse_newer(target, found)?;
    if found < newest() {
        return Err(Error::OlderSchema { path: path.clone(), found, known: newest() });
    }
    Ok(())
}

fn newest() -> i64 {
    STEPS.len() as i64
}

fn user_version(c: &Connection) -> rusqlite::Result<i64> {
    c.pragma_query_value(None, "user_version", |r| r.get(0))
}

fn refuse_newer(target: &Target, found: i64) -> Result<(), Error> {
    if found > newest() {
        return Err(Error::NewerSchema { path: target.path(), found, known: newest() });
    }
    Ok(())
}

/// Tables in which a row is found by its key: a key that differs between table and index is a row that nobody finds. The snapshot's
/// rows are left out because they are many, and are only ever read all together, each with its own hash. With each, the first schema
/// that has it: a database of an older one, also one that a kill left between two steps, has no such table yet.
const FOUND_BY_KEY: &[(i64, &str)] = &[
    (1, "partitions"),
    (1, "incidents"),
    (1, "timeline"),
    (1, "deliveries"),
    (1, "journal_keys"),
    (1, "alarms"),
    (2, "jobs"),
    (2, "audit"),
    (3, "receiver_references"),
];

/// `quick_check` walks every page's structure and the tables' own conditions; then indexes are held against their tables. A document
/// within a row is guarded by the row's hash.
fn examine(c: &Connection, target: &Target, version: i64) -> Result<(), Error> {
    let path = target.path();
    let check = |pragma: String| -> Result<(), Error> {
        let found: String = c.query_row(&pragma, [], |r| r.get(0)).map_err(|e| Error::of_sql("examining", &path, e))?;
        if found == "ok" { Ok(()) } else { Err(Error::Corrupt { path: path.clone(), found: found.replace('\n', " ") }) }
    };
    check("PRAGMA quick_check(1)".to_owned())?;
    let mut there = FOUND_BY_KEY.iter().filter(|(since, _)| *since <= version);
    there.try_for_each(|(_, table)| check(format!("PRAGMA integrity_check('{table}')")))
}

fn settings(c: &Connection, target: &Target) -> rusqlite::Result<()> {
    if matches!(target, Target::File(_)) {
        c.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    }
    // The writer folds the log itself: SQLite's own way swallows a failed fsync of the database file.
    c.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
    c.pragma_update(None, "synchronous", "FULL")?;
    c.pragma_update(None, "foreign_keys", true)?;
    // Roll-back notes of savepoints stay off the disk.
    c.pragma_update(None, "temp_store", "MEMORY")?;
    c.pragma_update_and_check(None, "journal_size_limit", 64 * 1024 * 1024, |_| Ok(()))?;
    c.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn migrate(c: &mut Connection, from: i64) -> rusqlite::Result<()> {
    for (done, step) in STEPS.iter().enumerate().skip(from.max(0) as usize) {
        let t = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
        t.execute_batch(step)?;
        t.pragma_update(None, "user_version", done as i64 + 1)?;
        t.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FILE, Store};

    /// As a kill within the first start leaves it, or an older release: so many steps taken, and no more.
    fn after(steps: usize) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let mut c = Connection::open(dir.path().join(FILE)).unwrap();
        settings(&c, &Target::File(dir.path().join(FILE))).unwrap();
        for (done, step) in STEPS.iter().enumerate().take(steps) {
            let t = c.transaction().unwrap();
            t.execute_batch(step).unwrap();
            t.pragma_update(None, "user_version", done as i64 + 1).unwrap();
            t.commit().unwrap();
        }
        dir
    }

    #[test]
    fn a_database_between_two_steps_is_brought_forward() {
        for steps in 0..=STEPS.len() {
            let dir = after(steps);
            let store = Store::open_with(dir.path(), 0).unwrap_or_else(|e| panic!("after {steps} steps: {e}"));
            store.set_meta("a key", "a value").unwrap();
            drop(store);
            assert_eq!(user_version(&Connection::open(dir.path().join(FILE)).unwrap()).unwrap(), newest(), "after {steps} steps");
            Store::open_with(dir.path(), 0).unwrap();
        }
    }

    #[test]
    fn a_table_that_should_be_there_and_is_not_is_refused() {
        for steps in 1..=STEPS.len() {
            for (since, table) in FOUND_BY_KEY.iter().filter(|(since, _)| *since <= steps as i64) {
                let dir = after(steps);
                let c = Connection::open(dir.path().join(FILE)).unwrap();
                c.pragma_update(None, "foreign_keys", false).unwrap();
                c.execute_batch(&format!("DROP TABLE {table}")).unwrap();
                drop(c);
                assert!(Store::open_with(dir.path(), 0).is_err(), "{table}, there since {since}, after {steps} steps");
            }
        }
    }
}
