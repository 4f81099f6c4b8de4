//! What was measured and which bin came out, as 32 bits; and a multiset of them that is as small as what it holds.
//!
//! What has just come in stays as it came, four bytes each: a thin series holds one event's worth and is soon added to others, so
//! sorting it by itself would be work for nothing. When that grows long it is sorted and counted. The road not taken is a pair of
//! code and count from the start: twice the memory for codes that nearly all came once.

use std::cmp::Ordering;

use bellwether_detectors::sketch::once_each;
use serde::{Deserialize, Serialize};

/// Room for the first distinct codes of a set that is counted.
const COUNTED_AT_FIRST: usize = 256;

/// What was measured, and which bin of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Code(u32);

impl Code {
    pub fn new(slot: u16, bin: u16) -> Code {
        Code(u32::from(slot) << 16 | u32::from(bin))
    }
    pub fn slot(self) -> u16 {
        (self.0 >> 16) as u16
    }
    pub fn bin(self) -> u16 {
        self.0 as u16
    }
}

/// Codes, and how often each came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Codes {
    /// In order, each code once; unless `is_unsorted`.
    counted: Vec<(Code, u32)>,
    is_unsorted: bool,
    /// Not counted yet, in the order in which they came.
    fresh: Vec<Code>,
}

impl Codes {
    pub fn push(&mut self, code: Code) {
        self.fresh.push(code);
    }

    /// Makes room once for codes that will come one by one.
    pub fn reserve_at_first(&mut self, codes: usize) {
        if self.fresh.capacity() == 0 {
            self.fresh.reserve_exact(codes);
        }
    }

    pub fn fresh_len(&self) -> usize {
        self.fresh.len()
    }

    pub fn counted_len(&self) -> usize {
        self.counted.len()
    }

    /// All entries; a code may be in several.
    pub fn iter(&self) -> impl Iterator<Item = (Code, u32)> + '_ {
        self.counted.iter().copied().chain(self.fresh.iter().map(|code| (*code, 1)))
    }

    /// Takes in what another holds, and leaves that empty.
    pub fn append(&mut self, other: &mut Codes) {
        self.is_unsorted |= self.is_mixed_by(other);
        self.counted.append(&mut other.counted);
        self.fresh.append(&mut other.fresh);
        other.is_unsorted = false;
    }

    /// Takes in a copy of what another holds.
    pub fn add_all(&mut self, other: &Codes) {
        self.is_unsorted |= self.is_mixed_by(other);
        self.counted.extend_from_slice(&other.counted);
        self.fresh.extend_from_slice(&other.fresh);
    }

    /// The same, of codes that are wanted.
    pub fn add_some(&mut self, other: &Codes, is_wanted: impl Fn(Code) -> bool) {
        self.is_unsorted |= self.is_mixed_by(other);
        self.counted.extend(other.counted.iter().filter(|c| is_wanted(c.0)));
        self.fresh.extend(other.fresh.iter().filter(|c| is_wanted(**c)));
    }

    /// Would `counted` be out of order with the other's behind it?
    fn is_mixed_by(&self, other: &Codes) -> bool {
        other.is_unsorted || !(self.counted.is_empty() || other.counted.is_empty())
    }

    /// The multiset, in order, each code once.
    pub fn count(&mut self) -> &[(Code, u32)] {
        if !self.fresh.is_empty() {
            let mut all = Vec::with_capacity(self.counted.len() + self.fresh.len().min(COUNTED_AT_FIRST));
            self.count_into(&mut all);
            self.counted = all;
        } else if std::mem::take(&mut self.is_unsorted) {
            once_each(&mut self.counted, u32::saturating_add);
        }
        &self.counted
    }

    /// Writes the multiset behind what `all` holds, in order, each code once; nothing is left here but memory for what comes.
    pub fn count_into(&mut self, all: &mut Vec<(Code, u32)>) {
        if std::mem::take(&mut self.is_unsorted) {
            once_each(&mut self.counted, u32::saturating_add);
        }
        self.fresh.sort_unstable();
        let mut known = std::mem::take(&mut self.counted).into_iter().peekable();
        let mut rest = self.fresh.as_slice();
        while let Some(code) = rest.first().copied() {
            let same = rest.iter().take_while(|c| **c == code).count();
            rest = &rest[same..];
            let mut n = same as u32;
            while let Some(before) = known.next_if(|k| k.0 <= code) {
                match before.0.cmp(&code) {
                    Ordering::Equal => n = n.saturating_add(before.1),
                    Ordering::Less | Ordering::Greater => all.push(before),
                }
            }
            all.push((code, n));
        }
        all.extend(known);
        self.fresh.clear();
    }

    /// Bytes of memory asked for.
    pub fn capacity_bytes(&self) -> usize {
        self.counted.capacity() * size_of::<(Code, u32)>() + self.fresh.capacity() * size_of::<Code>()
    }

    /// As new, with the memory that it has.
    pub fn clear(&mut self) {
        self.counted.clear();
        self.fresh.clear();
        self.is_unsorted = false;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::series::StableHash;

    #[test]
    fn codes_are_counted_as_a_map_would_count_them_however_they_came() {
        let mut truth: BTreeMap<Code, u32> = BTreeMap::new();
        let (mut all, mut odd) = (Codes::default(), BTreeMap::<Code, u32>::new());
        let mut some = Codes::default();
        for round in 0..40u64 {
            let mut part = Codes::default();
            for i in 0..round * 3 {
                let h = StableHash::of(&(round * 1_000 + i).to_be_bytes());
                let code = Code::new((h % 5) as u16, (h >> 8 & 15) as u16);
                part.push(code);
                *truth.entry(code).or_default() += 1;
                if code.slot() % 2 == 1 {
                    *odd.entry(code).or_default() += 1;
                }
                if i % 17 == 0 {
                    part.count();
                }
            }
            some.add_some(&part, |c| c.slot() % 2 == 1);
            match round % 3 {
                0 => all.append(&mut part),
                1 => all.add_all(&part),
                _ => {
                    part.count();
                    all.append(&mut part);
                }
            }
            assert_eq!(all.iter().map(|c| u64::from(c.1)).sum::<u64>(), truth.values().map(|n| u64::from(*n)).sum::<u64>());
        }
        let expected: Vec<(Code, u32)> = truth.into_iter().collect();
        assert_eq!(all.clone().count(), expected);
        let mut out = Vec::new();
        all.count_into(&mut out);
        assert_eq!(out, expected);
        assert_eq!(all.iter().count(), 0);
        assert_eq!(some.count(), odd.into_iter().collect::<Vec<_>>());
    }
}
