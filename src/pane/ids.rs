//! Hashes of ids that were seen. They are saved in order, so that the bytes are the same however they came.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Clone, Debug, Default)]
pub struct Ids(HashSet<u64, FixedState>);

impl Ids {
    /// False when it was there.
    pub fn insert(&mut self, hash: u64) -> bool {
        self.0.insert(hash)
    }

    pub fn contains(&self, hash: u64) -> bool {
        self.0.contains(&hash)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl Serialize for Ids {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut all: Vec<u64> = self.0.iter().copied().collect();
        all.sort_unstable();
        // Hashes are as long as numbers get, so eight bytes each are shorter than digits, and sooner written.
        let mut bytes = vec![0; all.len() * 8];
        for (to, hash) in bytes.as_chunks_mut().0.iter_mut().zip(all) {
            *to = hash.to_le_bytes();
        }
        to.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Ids, D::Error> {
        let (all, rest) = <&[u8]>::deserialize(from)?.as_chunks();
        match rest {
            [] => Ok(Ids(all.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())),
            _ => Err(D::Error::custom("the hash of an id is cut off")),
        }
    }
}
