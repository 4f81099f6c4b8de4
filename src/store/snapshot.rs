//! The engine's state with the source positions it is a function of: together in one transaction, or not at all.
//!
//! A snapshot is written as what changed since the one before; the table always holds the whole. It is written row by row while the
//! rows are made, so that they are never all in memory. After a kill the sources are read again from its positions, and the engine
//! arrives where it was.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rusqlite::{Connection, OptionalExtension, params};

use super::error::{Error, Fault};
use super::writer::Answer;
use super::{Store, hash_of};
use crate::domain::Time;

/// Rows go to the writing thread in pieces of about so many bytes ...
const PIECE_BYTES: usize = 256 * 1024;
/// ... of which so many may wait.
const PIECES: usize = 2;

/// Where the sources stood, and what this state has taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotHead {
    /// All positions, not only those that moved: numbered partition and the offset to read next.
    pub positions: Vec<(u32, i64)>,
    /// The last row of the input journal that this state has taken in.
    pub journal_seq: u64,
    /// End of the last judged pane.
    pub judged_through: Time,
    /// Of the state's encoding: another program version may not be able to read it.
    pub version: u32,
}

/// A snapshot on its way into the store, which does nothing else until it is finished or dropped. Dropped, it was never begun.
pub struct SnapshotRows {
    piece: Piece,
    pieces: SyncSender<Piece>,
    answer: Answer<()>,
}

#[derive(Default)]
struct Piece {
    /// All bodies, one behind the other.
    bytes: Vec<u8>,
    /// Name, end of its body, and the hash of both.
    rows: Vec<(String, usize, i64)>,
    /// Comes with the last piece.
    head: Option<SnapshotHead>,
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

impl SnapshotRows {
    /// A row that changed. Whether it could be written, [`SnapshotRows::finish`] tells.
    pub fn put(&mut self, name: String, body: &[u8]) {
        let hash = hash_of(&name, body);
        self.piece.bytes.extend_from_slice(body);
        self.piece.rows.push((name, self.piece.bytes.len(), hash));
        if self.piece.bytes.len() >= PIECE_BYTES {
            // Refused only when the writer has given up, and then it answers why.
            let _ = self.pieces.send(std::mem::take(&mut self.piece));
        }
    }

    /// Ends it; the answer comes when all of it is durable.
    ///
    /// # Errors
    /// The store cannot be written; then the snapshot before is still whole. [`Error::TakenBack`]: begin again.
    pub fn finish(mut self, head: SnapshotHead) -> Result<(), Error> {
        self.piece.head = Some(head);
        let _ = self.pieces.send(self.piece);
        self.answer.wait()
    }
}

impl Store {
    /// Begins a snapshot. Until it ends whoever else writes waits, incidents too, and its own thread would wait for ever.
    ///
    /// # Errors
    /// The store has stopped, or was opened to read.
    pub fn begin_snapshot(&self) -> Result<SnapshotRows, Error> {
        let (pieces, arriving) = sync_channel(PIECES);
        let mut begun = false;
        let answer = self.write_alone_later("writing a snapshot to", move |c| match std::mem::replace(&mut begun, true) {
            true => Err(Fault::TakenBack),
            false => write_pieces(c, &arriving),
        })?;
        Ok(SnapshotRows { piece: Piece::default(), pieces, answer })
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

fn write_pieces(c: &Connection, arriving: &Receiver<Piece>) -> Result<(), Fault> {
    let mut put = c.prepare_cached(
        "INSERT INTO snapshot_rows (name, body, hash) VALUES (?1, ?2, ?3)
         ON CONFLICT (name) DO UPDATE SET body = excluded.body, hash = excluded.hash",
    )?;
    loop {
        let Piece { bytes, rows, head } = arriving.recv().map_err(|_| Fault::CutShort)?;
        let mut from = 0;
        for (name, to, hash) in rows {
            put.execute((name, &bytes[from..to], hash))?;
            from = to;
        }
        let Some(head) = head else { continue };
        c.prepare_cached("DELETE FROM snapshot_positions")?.execute([])?;
        let mut position = c.prepare_cached("INSERT OR REPLACE INTO snapshot_positions (partition, next_offset) VALUES (?1, ?2)")?;
        for (partition, next) in &head.positions {
            position.execute(params![partition, next])?;
        }
        c.prepare_cached("INSERT OR REPLACE INTO snapshot_head (one, journal_seq, judged_through, version) VALUES (1, ?1, ?2, ?3)")?
            .execute(params![head.journal_seq.cast_signed(), head.judged_through.0, head.version])?;
        return Ok(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(store: &Store, rows: &[(&str, &[u8])], head: SnapshotHead) -> Result<(), Error> {
        let mut saving = store.begin_snapshot()?;
        rows.iter().for_each(|(name, body)| saving.put((*name).to_owned(), body));
        saving.finish(head)
    }

    #[test]
    fn a_snapshot_holds_what_changed_and_what_did_not() {
        let store = Store::memory().unwrap();
        assert_eq!(store.load_snapshot().unwrap(), None);
        let head = SnapshotHead { positions: vec![(1, 10), (2, 20)], ..SnapshotHead::default() };
        save(&store, &[("a", b"1"), ("b", b"2"), ("c", b"")], head).unwrap();
        let head = SnapshotHead { positions: vec![(2, 25)], journal_seq: 7, judged_through: Time(60_000), version: 4 };
        save(&store, &[("b", b"3")], head).unwrap();
        let expected = LoadedSnapshot {
            rows: vec![("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"3".to_vec()), ("c".to_owned(), Vec::new())],
            positions: vec![(2, 25)],
            journal_seq: 7,
            judged_through: Time(60_000),
            version: 4,
        };
        assert_eq!(store.load_snapshot().unwrap(), Some(expected));
    }

    #[test]
    fn a_snapshot_of_many_pieces_is_written_whole_and_a_broken_off_one_not_at_all() {
        let store = Store::memory().unwrap();
        let body = |n: u8| vec![n; PIECE_BYTES / 3];
        let mut saving = store.begin_snapshot().unwrap();
        (0..40).for_each(|n| saving.put(format!("row {n:02}"), &body(n)));
        saving.finish(SnapshotHead { journal_seq: 1, ..SnapshotHead::default() }).unwrap();
        let whole = store.load_snapshot().unwrap().unwrap();
        assert_eq!(whole.rows, (0..40).map(|n| (format!("row {n:02}"), body(n))).collect::<Vec<_>>());

        let mut saving = store.begin_snapshot().unwrap();
        (0..40).for_each(|n| saving.put(format!("row {n:02}"), b"half"));
        (0..40).for_each(|n| saving.put(format!("more {n:02}"), &body(n)));
        drop(saving);
        store.set_meta("after", "1").unwrap();
        assert_eq!(store.load_snapshot().unwrap(), Some(whole));
    }

    #[test]
    fn on_a_full_disk_a_snapshot_is_taken_back_and_written_from_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), 100_000).unwrap();
        let limit = |pages: i64| store.write("limiting", move |c| Ok(c.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?));
        let big = vec![7; 20 * PIECE_BYTES];
        let rows: Vec<(&str, &[u8])> = vec![("a", b"1"), ("big", &big), ("c", b"3")];
        limit(1).unwrap();
        assert!(matches!(save(&store, &rows, SnapshotHead::default()), Err(Error::TakenBack { .. })));
        assert!(!dir.path().join("reserve").exists());
        assert!(matches!(save(&store, &rows, SnapshotHead::default()), Err(Error::Full { .. })), "there is no second reserve");
        assert_eq!((store.load_snapshot().unwrap(), store.is_dead()), (None, false));
        limit(1_000_000).unwrap();
        save(&store, &rows, SnapshotHead::default()).unwrap();
        assert_eq!(store.load_snapshot().unwrap().unwrap().rows.len(), 3);
    }
}
