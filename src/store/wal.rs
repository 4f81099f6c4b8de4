//! Tells damage in the write-ahead log from the torn end that a kill leaves.
//!
//! SQLite reads its log up to the first frame whose checksum is wrong and takes that for the end. After a power cut that is right: the
//! last transaction was not yet synced. But a bit that flips in the middle looks the same, and everything behind it would be dropped
//! without a word. What tells them apart: a transaction is begun only after the one before was synced. So if behind the bad
//! frame there are the ends of *two* transactions of this log, the first of them had been synced, and what is bad is damage. The last
//! transaction cannot be judged, and is left to SQLite.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::error::Error;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The lowest bit says in which order the checksum reads its words.
const MAGIC: u32 = 0x377f_0682;
/// Ours are all made with SQLite's own size; needed when the header cannot be believed.
const PAGE_BYTES: usize = 4_096;

/// SQLite's name for the log of `database`.
pub(super) fn path_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Refuses a log in which a transaction that was synced cannot be read. To be called while nobody writes.
pub(super) fn refuse_damage(database: &Path) -> Result<(), Error> {
    let path = path_of(database);
    let found = match File::open(&path).and_then(|f| damage(BufReader::new(f))) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(Error::of_file("examining", &path, e)),
    };
    match found {
        Some(found) => Err(Error::Corrupt { path: database.to_owned(), found: format!("its write-ahead log: {found}") }),
        None => Ok(()),
    }
}

fn damage(mut log: impl Read) -> io::Result<Option<String>> {
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut log, &mut header)? {
        return Ok(None);
    }
    let salts = (word(&header, 16), word(&header, 20));
    let big_endian = word(&header, 0) & 1 == 1;
    let mut sum = checksum(big_endian, &header[..24], (0, 0));
    let header_holds = word(&header, 0) & !1 == MAGIC && sum == (word(&header, 24), word(&header, 28));
    let page_bytes = match word(&header, 8) {
        n if header_holds && n.is_power_of_two() && (512..=65_536).contains(&n) => n as usize,
        _ => PAGE_BYTES,
    };

    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    let mut number = 0u64;
    let mut bad = None;
    let mut ends_behind = 0;
    while fill(&mut log, &mut frame)? {
        number += 1;
        let theirs = (word(&frame, 8), word(&frame, 12));
        if !header_holds {
            // A header is synced before the first frame of its log; one torn while the log began anew differs from the frames of the
            // old log in both salts.
            let related = theirs.0 == salts.0 || theirs.1 == salts.1;
            return Ok(related.then(|| "its header does not hold".to_owned()));
        }
        if bad.is_none() {
            sum = checksum(big_endian, &frame[FRAME_HEADER_BYTES..], checksum(big_endian, &frame[..8], sum));
            if theirs == salts && sum == (word(&frame, 16), word(&frame, 20)) {
                continue;
            }
            bad = Some(number);
        }
        let ends_transaction = word(&frame, 4) != 0;
        ends_behind += u32::from(ends_transaction && theirs == salts);
        if let Some(bad) = bad
            && ends_behind == 2
        {
            return Ok(Some(format!("frame {bad} does not hold, and transactions follow it")));
        }
    }
    Ok(None)
}

/// False at the end of the file, also in the middle of a frame.
fn fill(log: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(into) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Section 4.2 of SQLite's file format.
fn checksum(big_endian: bool, bytes: &[u8], (mut s0, mut s1): (u32, u32)) -> (u32, u32) {
    let read = |b: &[u8]| {
        let four = [b[0], b[1], b[2], b[3]];
        if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
    };
    for pair in bytes.chunks_exact(8) {
        s0 = s0.wrapping_add(read(&pair[..4])).wrapping_add(s1);
        s1 = s1.wrapping_add(read(&pair[4..])).wrapping_add(s0);
    }
    (s0, s1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{FILE, Store};

    /// A log of some transactions, as a kill leaves it.
    fn log() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(dir.path(), 0).unwrap();
        for n in 0..20 {
            store.set_meta(&format!("key {n}"), &"x".repeat(500)).unwrap();
        }
        std::fs::read(path_of(&dir.path().join(FILE))).unwrap()
    }

    #[test]
    fn a_sound_log_and_every_torn_end_of_it_are_accepted() {
        let log = log();
        for bytes in (0..log.len()).step_by(701).chain([log.len()]) {
            assert_eq!(damage(&log[..bytes]).unwrap(), None, "{bytes} bytes");
        }
        // The last transaction may be torn anywhere, its end included.
        let mut torn = log.clone();
        let last = log.len() - FRAME_HEADER_BYTES - PAGE_BYTES;
        torn[last + 100] ^= 1;
        assert_eq!(damage(&torn[..]).unwrap(), None);
    }

    #[test]
    fn a_flipped_bit_before_the_last_transaction_is_damage() {
        let log = log();
        let last = log.len() - FRAME_HEADER_BYTES - PAGE_BYTES;
        let frame = FRAME_HEADER_BYTES + PAGE_BYTES;
        assert!(last > 10 * frame, "a log of some length");
        for at in (0..last - frame).step_by(977).chain(0..HEADER_BYTES) {
            let mut flipped = log.clone();
            flipped[at] ^= 4;
            assert!(damage(&flipped[..]).unwrap().is_some(), "byte {at}");
        }
    }
}
