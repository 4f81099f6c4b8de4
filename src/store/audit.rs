//! Who did what: appended, never changed, each row sealed with the one before.
//!
//! A page of a bound ledger: whoever tears one out or writes over a line has to rewrite every line after it, and the last line's
//! seal, which somebody may have noted elsewhere, gives it away. The database itself refuses changes to the table; the chain is for
//! whoever goes around the database.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Store;
use super::error::{Error, Fault};
use crate::domain::Time;

/// The seal before the first.
const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Longer details are cut, in characters.
const DETAIL_CHARS_MAX: usize = 2_000;

/// What is written down of one act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditEntry {
    pub who: String,
    pub role: String,
    pub what: String,
    pub subject: String,
    pub detail: String,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    pub seq: i64,
    pub at: Time,
    pub who: String,
    pub role: String,
    pub what: String,
    pub subject: String,
    pub detail: String,
    pub before: String,
    pub seal: String,
}

/// What a walk along the chain shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditProof {
    pub rows: i64,
    /// The last row's seal: note it elsewhere, and no row before it can be changed unseen.
    pub seal: String,
    /// The first row that is not what was written, and why.
    pub broken: Option<(i64, String)>,
}

impl Store {
    /// Writes one act down.
    ///
    /// # Errors
    /// The store cannot be written; then the act must not be done.
    pub fn audit(&self, entry: AuditEntry, now: Time) -> Result<i64, Error> {
        self.write("writing the audit of", move |c| append(c, &entry, now))
    }

    /// The newest rows first, at most `limit` of them and 10,000, before the row `before` if given.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_rows(&self, before: Option<i64>, limit: usize) -> Result<Vec<AuditRow>, Error> {
        self.read("reading the audit of", |c| {
            let sql = format!("SELECT {COLUMNS} FROM audit WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2");
            let mut statement = c.prepare_cached(&sql)?;
            let rows = statement.query_map(params![before.unwrap_or(i64::MAX), limit.min(10_000) as i64], row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Is there a row with this seal?
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_seal(&self, seal: &str) -> Result<bool, Error> {
        self.read("reading the audit of", |c| {
            Ok(c.prepare_cached("SELECT 1 FROM audit WHERE seal = ?1 LIMIT 1")?.query_row([seal], |_| Ok(())).optional()?.is_some())
        })
    }

    /// Walks the whole chain.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_proof(&self) -> Result<AuditProof, Error> {
        self.inner.readers.read_unbounded("examining the audit of", |c| {
            let mut statement = c.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY seq"))?;
            let mut found = statement.query([])?;
            let mut proof = AuditProof { rows: 0, seal: FIRST.to_owned(), broken: None };
            while let Some(r) = found.next()? {
                let row = row(r)?;
                proof.rows += 1;
                let why = if row.seq != proof.rows {
                    Some(format!("row {} is missing", proof.rows))
                } else if row.before != proof.seal {
                    Some("it does not follow the row before it".to_owned())
                } else if row.seal != seal(&row) {
                    Some("it is not what was written".to_owned())
                } else {
                    None
                };
                if let Some(why) = why {
                    proof.broken = Some((row.seq, why));
                    break;
                }
                proof.seal = row.seal;
            }
            // The counter knows how many there ever were: rows cut off the end leave no gap.
            if proof.broken.is_none() {
                let ever: Option<i64> = c.query_row("SELECT seq FROM sqlite_sequence WHERE name = 'audit'", [], |r| r.get(0)).optional()?;
                if ever.unwrap_or(0) != proof.rows {
                    proof.broken = Some((proof.rows + 1, format!("{} rows were written and {} are here", ever.unwrap_or(0), proof.rows)));
                }
            }
            Ok(proof)
        })
    }
}

const COLUMNS: &str = "seq, at, who, role, what, subject, detail, before, seal";

fn row(r: &rusqlite::Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        seq: r.get(0)?,
        at: Time(r.get(1)?),
        who: r.get(2)?,
        role: r.get(3)?,
        what: r.get(4)?,
        subject: r.get(5)?,
        detail: r.get(6)?,
        before: r.get(7)?,
        seal: r.get(8)?,
    })
}

fn seal(row: &AuditRow) -> String {
    let mut hash = Sha256::new();
    for part in [&row.before, &row.seq.to_string(), &row.at.0.to_string(), &row.who, &row.role, &row.what, &row.subject, &row.detail] {
        // Lengths, so that no text can be shifted from one member to the next.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// Within the caller's transaction; the writing thread is one, so no two rows follow the same one.
pub(super) fn append(c: &Connection, entry: &AuditEntry, now: Time) -> Result<i64, Fault> {
    let last: Option<(i64, String)> =
        c.prepare_cached("SELECT seq, seal FROM audit ORDER BY seq DESC LIMIT 1")?.query_row([], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
    let (seq, before) = last.map_or((1, FIRST.to_owned()), |(seq, seal)| (seq + 1, seal));
    let cut = |text: &str| text.chars().take(DETAIL_CHARS_MAX).collect::<String>();
    let mut row = AuditRow {
        seq,
        at: now,
        who: cut(&entry.who),
        role: entry.role.clone(),
        what: cut(&entry.what),
        subject: cut(&entry.subject),
        detail: cut(&entry.detail),
        before,
        seal: String::new(),
    };
    row.seal = seal(&row);
    c.prepare_cached(&format!("INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"))?.execute(params![
        row.seq,
        row.at.0,
        row.who,
        row.role,
        row.what,
        row.subject,
        row.detail,
        row.before,
        row.seal
    ])?;
    Ok(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 0..5 {
            let entry = AuditEntry {
                who: format!("ana {n}"),
                role: "approver".into(),
                what: "approve".into(),
                subject: "inc-1".into(),
                detail: "because".into(),
            };
            assert_eq!(store.audit(entry, Time(n)).unwrap(), n + 1);
        }
        assert_eq!(store.audit_proof().unwrap().broken, None);
        let file = store.path().to_owned();
        (dir, file)
    }

    #[test]
    fn the_database_refuses_changes_and_the_chain_shows_those_made_behind_its_back() {
        for (change, at) in [
            ("UPDATE audit SET who = 'bob' WHERE seq = 3", 3),
            ("UPDATE audit SET detail = '' WHERE seq = 1", 1),
            ("UPDATE audit SET at = 77 WHERE seq = 5", 5),
            ("DELETE FROM audit WHERE seq = 2", 3),
            ("DELETE FROM audit WHERE seq = 5", 5),
            ("UPDATE audit SET seal = before WHERE seq = 4", 4),
        ] {
            let (dir, file) = written();
            let c = Connection::open(&file).unwrap();
            assert!(c.execute(change, []).unwrap_err().to_string().contains("never changed"), "{change}");
            c.execute_batch("DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_cut;").unwrap();
            c.execute(change, []).unwrap();
            drop(c);
            let broken = Store::open_reader(dir.path()).unwrap().audit_proof().unwrap().broken;
            assert_eq!(broken.as_ref().map(|b| b.0), Some(at), "{change}: {broken:?}");
        }
    }
}
