//! Where records come from: Kafka, files, standard input.
//!
//! A source reads on an OS thread of its own and hands over [`Message`]s through one bounded channel, in the order in which
//! they happened to a partition. What travels is bytes: a [`Batch`] is an arena and a list of ranges into it, so that a
//! hand-over costs a copy of bytes and nothing per record (a channel per record was measured at seven times the price).
//!
//! Nothing here knows what an event is. A source says where reading begins, what it read, where a hole is and that a
//! partition is quiet; it never decides what that means. Confirming positions is the caller's act, after its own state is
//! durable.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{SyncSender, TrySendError};

use crate::domain::Time;

pub mod dead_letters;
pub mod embedded;
pub mod file;
pub mod kafka;

/// One read: bytes in an arena.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub bytes: Vec<u8>,
    /// In the order of reading; within a partition the offsets rise.
    pub records: Vec<Record>,
}

/// One record of a [`Batch`]; ranges point into its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Index into the source's topics.
    pub topic: u16,
    pub partition: i32,
    pub offset: i64,
    /// The record's own time as the log keeps it.
    pub time: Option<Time>,
    pub key: Option<Range<u32>>,
    /// None for a record without a value (a tombstone).
    pub value: Option<Range<u32>>,
    /// Packed headers, read by [`Batch::headers`]; only where the source was asked for them and the record has any.
    pub headers: Option<Range<u32>>,
    /// Bytes of the whole value where it was longer than the source keeps; `value` is then only its beginning. 0 = whole.
    pub oversize: u64,
}

/// Where reading of a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub topic: u16,
    pub partition: i32,
    /// Offset of the first record to come.
    pub next: i64,
    /// High watermark at assignment; -1 where the source cannot know it (pipes), [`Place::UNTIL_ENDED`] where its end comes and is told.
    pub high: i64,
}

impl Place {
    /// The high watermark of a file.
    pub const UNTIL_ENDED: i64 = i64::MAX;
}

/// What a source says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A topic that was not in the settings (a dump names its own); said before the index is first used.
    Named {
        topic: u16,
        name: String,
    },
    Batch(Batch),
    Assigned(Vec<Place>),
    /// No record of these comes any more, until they are assigned again.
    Revoked(Vec<(u16, i32)>),
    /// Read up to a high watermark asked for after the quiet, and nothing came for `idle_ms`. Said once per quiet.
    Idle {
        topic: u16,
        partition: i32,
        position: i64,
    },
    /// Records `from..to` cannot be read; reading goes on at `to`. `to` below `from` means that the log began anew.
    Gap {
        topic: u16,
        partition: i32,
        from: i64,
        to: i64,
        words: String,
    },
    /// The source is blind, since that moment (wall clock).
    Trouble {
        words: String,
        since: Time,
    },
    /// It sees again.
    Well,
    /// Files only: nothing more comes.
    Ended {
        topic: u16,
        partition: i32,
    },
}

/// Why a source does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("kafka property {key:?} is set by bellwether itself and cannot be overridden: {why}")]
    Refused { key: String, why: &'static str },
    #[error("cannot make a kafka client")]
    Client(#[source] rdkafka::error::KafkaError),
    #[error("no {0} to read from")]
    Nothing(&'static str),
    #[error("cannot read {path}")]
    File {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    #[error("did not stop within {0} s and was abandoned")]
    Abandoned(u64),
    #[error("the embedded broker failed: {0}")]
    Embedded(String),
}

// === impl Batch ===

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of a range of this batch.
    pub fn slice(&self, range: &Range<u32>) -> &[u8] {
        self.bytes.get(range.start as usize..range.end as usize).unwrap_or(&[])
    }

    pub fn value(&self, record: &Record) -> Option<&[u8]> {
        record.value.as_ref().map(|range| self.slice(range))
    }

    pub fn key(&self, record: &Record) -> Option<&[u8]> {
        record.key.as_ref().map(|range| self.slice(range))
    }

    /// Names and values of the record's headers, as far as the source was asked to keep them.
    pub fn headers(&self, record: &Record) -> Vec<(String, Option<Vec<u8>>)> {
        let Some(range) = &record.headers else { return Vec::new() };
        let mut rest = self.slice(range);
        let mut out = Vec::new();
        while let Some((name, after)) = unpack(rest) {
            let Some((value, after)) = unpack(after) else { break };
            out.push((String::from_utf8_lossy(name.unwrap_or_default()).into_owned(), value.map(<[u8]>::to_vec)));
            rest = after;
        }
        out
    }

    /// Adds bytes to the arena and says where they lie.
    fn push(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start as u32..self.bytes.len() as u32
    }

    /// Adds headers in the form that [`Batch::headers`] reads.
    fn push_headers<'a>(&mut self, headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>) -> Range<u32> {
        let start = self.bytes.len();
        for (name, value) in headers {
            pack(&mut self.bytes, Some(name.as_bytes()));
            pack(&mut self.bytes, value);
        }
        start as u32..self.bytes.len() as u32
    }
}

/// A length (`u32::MAX` for none) and the bytes.
fn pack(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.extend_from_slice(&bytes.map_or(u32::MAX, |b| b.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn unpack(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    match u32::from_le_bytes(*length) {
        u32::MAX => Some((None, rest)),
        n => rest.split_at_checked(n as usize).map(|(value, rest)| (Some(value), rest)),
    }
}

/// What waits for room in the channel, in order. Sending never blocks, so that the thread can go on serving its library.
struct Outbox {
    out: SyncSender<Message>,
    waiting: VecDeque<Message>,
}

/// What became of an attempt to send.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    All,
    /// The channel is full.
    Waits,
    /// Nobody listens any more.
    Gone,
}

impl Outbox {
    fn new(out: SyncSender<Message>) -> Outbox {
        Outbox { out, waiting: VecDeque::new() }
    }

    fn push(&mut self, message: Message) {
        self.waiting.push_back(message);
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn send(&mut self) -> Sent {
        while let Some(message) = self.waiting.pop_front() {
            match self.out.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.waiting.push_front(message);
                    return Sent::Waits;
                }
                Err(TrySendError::Disconnected(_)) => return Sent::Gone,
            }
        }
        Sent::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_packed_and_read_again() {
        let mut batch = Batch::default();
        let value = batch.push(b"v");
        let headers = batch.push_headers([("a", Some(&b"1"[..])), ("", None), ("c", Some(b""))].into_iter());
        let record = Record { topic: 0, partition: 0, offset: 0, time: None, key: None, value: Some(value), headers: Some(headers), oversize: 0 };
        batch.records.push(record);
        let record = &batch.records[0];
        assert_eq!(batch.value(record), Some(&b"v"[..]));
        assert_eq!(batch.headers(record), [("a".into(), Some(b"1".to_vec())), (String::new(), None), ("c".into(), Some(vec![]))]);
    }
}
