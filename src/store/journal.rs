//! The input journal: what came from people, receivers and settings, in the order in which it was accepted.
//!
//! Replay is a function of the sources and of this. A row is written before its sender is answered, and names the pane boundary at
//! which it takes effect, so that a replay applies it where it was applied the first time. A sender that repeats itself with the same
//! key gets the same number and the same answer.

use rusqlite::{OptionalExtension, params};

use super::error::{Error, Fault};
use super::{Store, hash_of};
use crate::domain::Time;
use crate::domain::time::DAY_MS;

/// How long a key and its answer are remembered.
const KEYS_KEPT_MS: i64 = DAY_MS;
/// Rows of one answer to [`Store::journal_after`].
const ROWS_MAX: usize = 10_000;

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub seq: u64,
    /// False when the key was known: `seq` is the first one's.
    pub is_new: bool,
}

/// One input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    pub seq: u64,
    /// Pane boundary at which it applies.
    pub at: Time,
    pub body: Vec<u8>,
    pub key: Option<String>,
}

impl Store {
    /// Writes one input down. `at` is the pane boundary at which it applies; `now` is only the age of its key.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn journal_append(&self, at: Time, body: &[u8], idempotency_key: Option<&str>, now: Time) -> Result<Appended, Error> {
        let (body, key, hash) = (body.to_owned(), idempotency_key.map(str::to_owned), hash_of(idempotency_key.unwrap_or_default(), body));
        self.write("writing the journal of", move |c| {
            if let Some(key) = &key {
                let known: Option<Option<i64>> = c
                    .prepare_cached("SELECT seq FROM journal_keys WHERE key = ?1 AND written_at > ?2")?
                    .query_row(params![key, now.0.saturating_sub(KEYS_KEPT_MS)], |r| r.get(0))
                    .optional()?;
                if let Some(seq) = known.flatten() {
                    return Ok(Appended { seq: seq.cast_unsigned(), is_new: false });
                }
            }
            c.prepare_cached("INSERT INTO journal (at, key, body, hash) VALUES (?1, ?2, ?3, ?4)")?.execute(params![at.0, key, body, hash])?;
            let seq = c.last_insert_rowid();
            if let Some(key) = &key {
                c.prepare_cached("INSERT OR REPLACE INTO journal_keys (key, seq, written_at) VALUES (?1, ?2, ?3)")?
                    .execute(params![key, seq, now.0])?;
            }
            forget_keys(c, now)?;
            Ok(Appended { seq: seq.cast_unsigned(), is_new: true })
        })
    }

    /// The inputs after `seq`, oldest first, at most 10,000 of them: ask again from the last until none comes.
    ///
    /// # Errors
    /// The store cannot be read, or a row is not what was written.
    pub fn journal_after(&self, seq: u64) -> Result<Vec<JournalRow>, Error> {
        self.read("reading the journal of", |c| {
            let mut statement = c.prepare_cached("SELECT seq, at, key, body, hash FROM journal WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
            let mut found = statement.query(params![seq.cast_signed(), ROWS_MAX as i64])?;
            let mut rows = Vec::new();
            while let Some(r) = found.next()? {
                let row = JournalRow { seq: r.get::<_, i64>(0)?.cast_unsigned(), at: Time(r.get(1)?), key: r.get(2)?, body: r.get(3)? };
                if hash_of(row.key.as_deref().unwrap_or_default(), &row.body) != r.get::<_, i64>(4)? {
                    return Err(Fault::Flipped { table: "journal row", id: row.seq.to_string() });
                }
                rows.push(row);
            }
            Ok(rows)
        })
    }

    /// Removes the inputs before `seq`, which a snapshot holds. Their keys and answers stay for their day.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn journal_prune(&self, before_seq: u64) -> Result<usize, Error> {
        self.write("pruning the journal of", move |c| {
            Ok(c.prepare_cached("DELETE FROM journal WHERE seq < ?1")?.execute([before_seq.cast_signed()])?)
        })
    }

    /// Keeps what was answered to `key`, for a day.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn set_answer(&self, key: &str, body: &[u8], now: Time) -> Result<(), Error> {
        let (key, body) = (key.to_owned(), body.to_owned());
        self.write("writing an answer to", move |c| {
            c.prepare_cached(
                "INSERT INTO journal_keys (key, answer, written_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (key) DO UPDATE SET answer = excluded.answer, written_at = excluded.written_at",
            )?
            .execute(params![key, body, now.0])?;
            forget_keys(c, now)
        })
    }

    /// What was answered to `key` within the last day.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn answer(&self, key: &str, now: Time) -> Result<Option<Vec<u8>>, Error> {
        self.read("reading an answer from", |c| {
            let found: Option<Option<Vec<u8>>> = c
                .prepare_cached("SELECT answer FROM journal_keys WHERE key = ?1 AND written_at > ?2")?
                .query_row(params![key, now.0.saturating_sub(KEYS_KEPT_MS)], |r| r.get(0))
                .optional()?;
            Ok(found.flatten())
        })
    }
}

fn forget_keys(c: &rusqlite::Connection, now: Time) -> Result<(), Fault> {
    c.prepare_cached("DELETE FROM journal_keys WHERE written_at <= ?1")?.execute([now.0.saturating_sub(KEYS_KEPT_MS)])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_gets_the_same_number_and_answer_for_a_day() {
        let store = Store::memory().unwrap();
        let first = store.journal_append(Time(60_000), b"mute", Some("k"), Time(0)).unwrap();
        assert_eq!(first, Appended { seq: 1, is_new: true });
        store.set_answer("k", b"done", Time(1)).unwrap();
        assert_eq!(store.journal_append(Time(120_000), b"mute", Some("k"), Time(2)).unwrap(), Appended { seq: 1, is_new: false });
        assert_eq!(store.journal_append(Time(60_000), b"note", None, Time(3)).unwrap(), Appended { seq: 2, is_new: true });
        assert_eq!(store.answer("k", Time(4)).unwrap().as_deref(), Some(&b"done"[..]));
        assert_eq!(store.journal_prune(3).unwrap(), 2);
        assert_eq!(store.journal_append(Time(0), b"mute", Some("k"), Time(5)).unwrap().seq, 1, "the key outlives its row");
        assert_eq!(store.answer("k", Time(DAY_MS + 1)).unwrap(), None);
        let later = store.journal_append(Time(0), b"mute", Some("k"), Time(DAY_MS + 1)).unwrap();
        assert_eq!(later, Appended { seq: 3, is_new: true }, "and numbers are never given twice");
        assert_eq!(store.answer("k", Time(DAY_MS + 2)).unwrap(), None, "an old answer is not the answer to a new input");
    }

    #[test]
    fn rows_come_back_in_order_after_a_number() {
        let store = Store::memory().unwrap();
        for n in 0..5u8 {
            store.journal_append(Time(i64::from(n)), &[n], None, Time(0)).unwrap();
        }
        let rows = store.journal_after(3).unwrap();
        assert_eq!(rows[0], JournalRow { seq: 4, at: Time(3), body: vec![3], key: None });
        assert_eq!(rows.len(), 2);
    }
}
