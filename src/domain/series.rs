//! What is watched: groups (whose events) and series (a group and a signal), with ids that never change.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::words::Signal;

/// The word for a version or an environment that an event does not name.
pub const UNKNOWN: &str = "unknown";

/// One named slice of traffic, `region=eu`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Segment {
    pub dimension: Arc<str>,
    pub value: Arc<str>,
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.dimension, self.value)
    }
}

/// Whose events: a model in an environment, as a whole, or one version of it, or one segment of it. Never version *and* segment:
/// the product of both is the road to a million series that are too thin to say anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupKey {
    pub environment: Arc<str>,
    pub model: Arc<str>,
    pub version: Option<Arc<str>>,
    pub segment: Option<Segment>,
}

impl GroupKey {
    pub fn roll_up(environment: &str, model: &str) -> GroupKey {
        GroupKey { environment: environment.into(), model: model.into(), version: None, segment: None }
    }

    /// The model as a whole, of which this is a part.
    pub fn whole(&self) -> GroupKey {
        GroupKey { environment: self.environment.clone(), model: self.model.clone(), version: None, segment: None }
    }

    pub fn is_roll_up(&self) -> bool {
        self.version.is_none() && self.segment.is_none()
    }

    /// `loan-scorer prod, region=eu`; an unknown environment is not spoken.
    pub fn words(&self) -> String {
        let mut out = self.model.to_string();
        if &*self.environment != UNKNOWN {
            out.push(' ');
            out.push_str(&self.environment);
        }
        if let Some(version) = &self.version {
            out.push_str(&format!(", version {version}"));
        }
        if let Some(segment) = &self.segment {
            out.push_str(&format!(", {segment}"));
        }
        out
    }
}

/// A group and what is measured on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesKey {
    pub group: GroupKey,
    pub signal: Signal,
}

impl SeriesKey {
    pub fn id(&self) -> SeriesId {
        let mut h = StableHash::new();
        for part in [&*self.group.environment, &*self.group.model, self.group.version.as_deref().unwrap_or("\u{1}")] {
            h.part(part.as_bytes());
        }
        match &self.group.segment {
            Some(s) => h.part(s.dimension.as_bytes()).part(s.value.as_bytes()),
            None => h.part(b"\x01").part(b"\x01"),
        };
        h.part(self.signal.to_string().as_bytes());
        SeriesId(h.finish())
    }
}

/// A stable id of a series: the same on every machine and after every restart. Printed as `s-` and 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u64);

impl fmt::Display for SeriesId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s-{:016x}", self.0)
    }
}

impl FromStr for SeriesId {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = text.strip_prefix("s-").ok_or(())?;
        u64::from_str_radix(hex, 16).map(SeriesId).map_err(|_| ())
    }
}

impl Serialize for SeriesId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_u64(self.0) }
    }
}

impl<'de> Deserialize<'de> for SeriesId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            String::deserialize(d)?.parse().map_err(|()| serde::de::Error::custom("not a series id"))
        } else {
            u64::deserialize(d).map(SeriesId)
        }
    }
}

/// FNV-1a with a final mix: a hash whose value is part of our file formats, so it is written out here and never changes.
/// Not for hostile input where collisions would matter; ids that are compared are compared in full.
#[derive(Clone, Copy, Debug)]
pub struct StableHash(u64);

impl StableHash {
    pub fn new() -> StableHash {
        StableHash(0xcbf2_9ce4_8422_2325)
    }
    /// Adds one part; parts are separated, so ("ab", "c") and ("a", "bc") differ.
    pub fn part(&mut self, bytes: &[u8]) -> &mut Self {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.0 = (self.0 ^ 0xff).wrapping_mul(0x0000_0100_0000_01b3);
        self
    }
    pub fn finish(&self) -> u64 {
        // SplitMix64's finaliser: FNV's low bits alone are weak, and we take minima over hashes.
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn of(bytes: &[u8]) -> u64 {
        StableHash::new().part(bytes).finish()
    }
}

impl Default for StableHash {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_id_is_fixed_for_ever() {
        let key = SeriesKey { group: GroupKey::roll_up("prod", "loan-scorer"), signal: Signal::ErrorRate };
        assert_eq!(key.id().to_string().parse(), Ok(key.id()));
        assert_eq!(key.id(), key.clone().id());
        let other = SeriesKey { signal: Signal::TimeoutRate, ..key.clone() };
        assert_ne!(key.id(), other.id());
    }
}
