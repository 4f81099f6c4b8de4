//! The lines that `kcat -J` prints, so that a topic written to a file can be judged like the topic itself.
//!
//! Each line is a JSON object whose `payload` is the record as text: the event lies in it as JSON within JSON. kcat writes the
//! payload's bytes as they are, UTF-8 or not, so they are read as bytes.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::domain::Time;

/// One record of a dumped topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedRecord {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// Kafka's record time; `None` where the topic kept none (`ts` is -1).
    pub record_time: Option<Time>,
    /// Empty for a record without a value.
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    offset: i64,
    #[serde(default)]
    ts: Option<i64>,
    /// Null is a record without a value; a line without the member is none of kcat's, which serde's default would hide.
    #[serde(deserialize_with = "Bytes::deserialize")]
    payload: Bytes,
}

#[derive(Serialize)]
struct LineOut<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    tstype: &'static str,
    ts: i64,
    broker: i32,
    key: Option<String>,
    payload: Option<String>,
}

/// The record in a line of `kcat -J`; `None` where the line is something else, such as an event itself.
pub fn unwrap_dump(line: &[u8]) -> Option<DumpedRecord> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let record_time = line.ts.filter(|ts| *ts >= 0).map(Time);
    Some(DumpedRecord { topic: line.topic, partition: line.partition, offset: line.offset, record_time, payload: line.payload.0 })
}

/// A line as `kcat -J` prints it, without the line break. Bytes that are not UTF-8 become replacement characters.
pub fn wrap_dump(topic: &str, partition: i32, offset: i64, record_time: Option<Time>, key: Option<&[u8]>, payload: Option<&[u8]>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = LineOut {
        topic,
        partition,
        offset,
        tstype: if record_time.is_some() { "create" } else { "unknown" },
        ts: record_time.map_or(-1, |time| time.0),
        broker: 0,
        key: key.map(text),
        payload: payload.map(text),
    };
    serde_json::to_string(&line).expect("numbers and text always serialise")
}

/// Text read as bytes; null as none.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct BytesVisitor;
        impl<'de> Visitor<'de> for BytesVisitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a payload as text, or null")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }

            fn visit_none<E: Error>(self) -> Result<Bytes, E> {
                Ok(Bytes(Vec::new()))
            }

            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Bytes, D::Error> {
                d.deserialize_bytes(self)
            }
        }
        d.deserialize_option(BytesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrapped_is_unwrapped() {
        let payload = br#"{"kind":"heartbeat","model":"a \"b\" \u00e4"}"#;
        let line = wrap_dump("events", 3, 42, Some(Time(1_795_166_044_505)), Some(b"k"), Some(payload));
        assert!(!line.contains('\n'));
        let record = unwrap_dump(line.as_bytes()).unwrap();
        let expected =
            DumpedRecord { topic: "events".into(), partition: 3, offset: 42, record_time: Some(Time(1_795_166_044_505)), payload: payload.to_vec() };
        assert_eq!(record, expected);
        let tombstone = unwrap_dump(wrap_dump("events", 0, 1, None, None, None).as_bytes()).unwrap();
        assert_eq!((tombstone.record_time, tombstone.payload.len()), (None, 0));
    }

    #[test]
    fn a_line_of_kcat_is_read_with_what_it_adds() {
        let line = br#"{"topic":"t","partition":0,"offset":7,"tstype":"create","ts":1700000000000,"broker":1,"headers":["a","b"],"key":null,"payload":"x\n"}"#;
        assert_eq!(unwrap_dump(line).unwrap().payload, b"x\n");
        let mut raw = line.to_vec();
        let at = raw.windows(3).position(|w| w == b"\"x\\").unwrap();
        raw[at + 1] = 0xff;
        assert_eq!(unwrap_dump(&raw).unwrap().payload, b"\xff\n", "bytes stay bytes");
    }

    #[test]
    fn an_event_is_no_dump() {
        for line in [&b"{\"kind\":\"heartbeat\",\"model\":\"m\"}"[..], b"", b"[]", b"{\"topic\":\"t\",\"partition\":0,\"offset\":1}", b"\xff"] {
            assert_eq!(unwrap_dump(line), None);
        }
    }
}
