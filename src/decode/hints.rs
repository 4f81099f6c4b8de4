//! Members that nobody knows: listed once per topic, so that a misspelt name is found on the first day and not after the
//! first missed incident. An event without unknown members never touches the lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::member::Member;

/// Names kept per topic. A producer that invents names must not be able to fill the memory.
const NAMES_MAX: usize = 64;
/// Bytes kept of a name.
const NAME_BYTES_MAX: usize = 64;

/// A member that is no part of any event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// As it came, cut to 64 bytes; text of a stranger.
    pub name: String,
    /// The known member within two edits.
    pub nearest: Option<&'static str>,
    /// Events that carried it.
    pub count: u64,
}

#[derive(Default)]
pub struct Hints(Mutex<BTreeMap<String, (Option<&'static str>, u64)>>);

impl Hints {
    pub fn note(&self, name: &str) {
        let name = &name[..name.floor_char_boundary(NAME_BYTES_MAX)];
        // A panic elsewhere cannot leave a map of counts in a state that matters.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = known.get_mut(name) {
            *count += 1;
        } else if known.len() < NAMES_MAX {
            known.insert(name.to_owned(), (Member::nearest(name), 1));
        }
    }

    pub fn list(&self) -> Vec<Hint> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(name, (nearest, count))| Hint { name: name.clone(), nearest: *nearest, count: *count }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_that_invents_names_does_not_fill_the_memory() {
        let hints = Hints::default();
        for i in 0..10_000 {
            hints.note(&format!("{i}-{}", "ä".repeat(500)));
        }
        hints.note("0-");
        assert_eq!(hints.list().len(), NAMES_MAX);
        assert!(hints.list().iter().all(|hint| hint.name.len() <= NAME_BYTES_MAX));
    }

    #[test]
    fn a_name_is_counted_and_its_likely_meaning_said() {
        let hints = Hints::default();
        hints.note("latencyms");
        hints.note("latencyms");
        hints.note("zebra");
        let latency = Hint { name: "latencyms".into(), nearest: Some("latency_ms"), count: 2 };
        assert_eq!(hints.list(), [latency, Hint { name: "zebra".into(), nearest: None, count: 1 }]);
    }
}
