//! Hashes of ids that were seen. They are saved in order, so that the bytes are the same however they came.

use std::collections::HashSet;

use foldhash::fast::FixedState;
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
        all.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Ids, D::Error> {
        Ok(Ids(Vec::<u64>::deserialize(from)?.into_iter().collect()))
    }
}
