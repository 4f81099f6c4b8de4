//! The engine's state with the source positions it is a function of: together in one transaction, or not at all.
//!
//! A snapshot is written as what changed since the one before; the table always holds the whole. After a kill the sources are read
//! again from its positions, and the engine arrives where it was.

use rusqlite::{OptionalExtension, params};

use super::error::{Error, Fault};
use super::{Store, hash_of};
use crate::domain::Time;

/// What changed since the last snapshot, and where the sources stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Only the rows that changed; `None` deletes.
    pub rows: Vec<(String, Option<Vec<u8>>)>,
    /// All positions, not only those that moved: numbered partition and the offset to read next.
    pub positions: Vec<(u32, i64)>,
    /// The last row of the input journal that this state has taken in.
    pub journal_seq: u64,
    /// End of the last judged pane.
    pub judged_through: Time,
    /// Of the state's encoding: another program version may not be able to read it.
    pub version: u32,
}

/// The whole state of the last snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedSnapshot {
    /// By name.
    pub rows: Vec<(String, Vec<u8>)>,
    pub positions: Vec<(u32, i64)>,
    pub journal_seq: u64,
    pub judged_through: Time,
    pub version: u32,
}

impl Store {
    /// Writes a snapshot. The writer does nothing else meanwhile: incidents wait for it.
    ///
    /// # Errors
    /// The store cannot be written; then the snapshot before is still whole.
    pub fn save_snapshot(&self, snapshot: Snapshot) -> Result<(), Error> {
        // Hashed here, not on the writing thread.
        let rows: Vec<(String, Option<(Vec<u8>, i64)>)> = snapshot
            .rows
            .into_iter()
            .map(|(name, body)| {
                let hashed = body.map(|b| (hash_of(&name, &b), b)).map(|(hash, b)| (b, hash));
                (name, hashed)
            })
            .collect();
        let Snapshot { positions, journal_seq, judged_through, version, .. } = Snapshot { rows: Vec::new(), ..snapshot };
        self.write_alone("writing a snapshot to", move |c| {
            let mut put = c.prepare_cached(
                "INSERT INTO snapshot_rows (name, body, hash) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET body = excluded.body, hash = excluded.hash",
            )?;
            let mut delete = c.prepare_cached("DELETE FROM snapshot_rows WHERE name = ?1")?;
            for (name, body) in &rows {
                match body {
                    Some((body, hash)) => put.execute(params![name, body, hash])?,
                    None => delete.execute([name])?,
                };
            }
            c.prepare_cached("DELETE FROM snapshot_positions")?.execute([])?;
            let mut position = c.prepare_cached("INSERT OR REPLACE INTO snapshot_positions (partition, next_offset) VALUES (?1, ?2)")?;
            for (partition, next) in &positions {
                position.execute(params![partition, next])?;
            }
            c.prepare_cached("INSERT OR REPLACE INTO snapshot_head (one, journal_seq, judged_through, version) VALUES (1, ?1, ?2, ?3)")?
                .execute(params![journal_seq.cast_signed(), judged_through.0, version])?;
            Ok(())
        })
    }

    /// The last snapshot; `None` before the first. Takes as long as the state is large.
    ///
    /// # Errors
    /// The store cannot be read, or a row is not what was written.
    pub fn load_snapshot(&self) -> Result<Option<LoadedSnapshot>, Error> {
        self.inner.readers.read_unbounded("reading the snapshot from", |c| {
            let head = c
                .query_row("SELECT journal_seq, judged_through, version FROM snapshot_head", [], |r| {
                    Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?, r.get::<_, u32>(2)?))
                })
                .optional()?;
            let Some((journal_seq, judged_through, version)) = head else { return Ok(None) };
            let mut rows = Vec::new();
            let mut statement = c.prepare("SELECT name, body, hash FROM snapshot_rows ORDER BY name")?;
            let mut found = statement.query([])?;
            while let Some(r) = found.next()? {
                let (name, body, hash): (String, Vec<u8>, i64) = (r.get(0)?, r.get(1)?, r.get(2)?);
                if hash_of(&name, &body) != hash {
                    return Err(Fault::Flipped { table: "snapshot row", id: name });
                }
                rows.push((name, body));
            }
            let mut statement = c.prepare("SELECT partition, next_offset FROM snapshot_positions ORDER BY partition")?;
            let positions = statement.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<Result<_, _>>()?;
            Ok(Some(LoadedSnapshot { rows, positions, journal_seq: journal_seq.cast_unsigned(), judged_through: Time(judged_through), version }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_holds_what_changed_and_what_did_not() {
        let store = Store::memory().unwrap();
        assert_eq!(store.load_snapshot().unwrap(), None);
        let row = |name: &str, body: &[u8]| (name.to_owned(), Some(body.to_owned()));
        let rows = vec![row("a", b"1"), row("b", b"2"), row("c", b"")];
        store.save_snapshot(Snapshot { rows, positions: vec![(1, 10), (2, 20)], ..Snapshot::default() }).unwrap();
        let rows = vec![("a".to_owned(), None), row("b", b"3"), ("unknown".to_owned(), None)];
        let second = Snapshot { rows, positions: vec![(2, 25)], journal_seq: 7, judged_through: Time(60_000), version: 4 };
        store.save_snapshot(second).unwrap();
        let expected = LoadedSnapshot {
            rows: vec![("b".to_owned(), b"3".to_vec()), ("c".to_owned(), Vec::new())],
            positions: vec![(2, 25)],
            journal_seq: 7,
            judged_through: Time(60_000),
            version: 4,
        };
        assert_eq!(store.load_snapshot().unwrap(), Some(expected));
    }
}
