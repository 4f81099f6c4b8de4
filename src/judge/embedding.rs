//! Vectors of one embedding: those of the length that was learned go to the evidence, others are counted.
//!
//! Vectors of another length cannot be compared at all: that is another embedding, or a fault. Their share is judged as `unseen`,
//! so that it is found within a few panes; and when the other length has been the usual one for a day, it is learned anew.

use bellwether_detectors::evidence::embedding::{EmbeddingBank, EmbeddingSettings};
use bellwether_detectors::evidence::{Band, Sees};
use bellwether_detectors::{Reading, Release, State};
use serde::{Deserialize, Serialize};

use super::line::thousands;
use crate::pane::Samples;

/// Another length that has been the usual one for so long is what is normal.
const LENGTH_SETTLES_MS: i64 = 24 * 3_600_000;

/// What a line of an embedding is fed with.
pub struct Vectors<'a> {
    /// Lengths of all vectors and how often each came; 0 stands for vectors without a direction.
    pub lengths: &'a [(u16, u32)],
    /// A draw of them.
    pub samples: &'a Samples,
    pub slot: u16,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EmbeddingLine {
    tolerance_sigma: f64,
    /// Numbers of the vectors that are compared, once one was seen.
    length: Option<u16>,
    /// Since when another length has been more frequent.
    other_since_ms: Option<i64>,
    /// Vectors of the last pane: of the length that is compared, and all.
    last: (u32, u32),
    bank: EmbeddingBank,
}

// === impl EmbeddingLine ===

impl EmbeddingLine {
    pub fn new(tolerance_sigma: f64) -> EmbeddingLine {
        let bank = EmbeddingBank::new(EmbeddingSettings { tolerance_sigma, ..EmbeddingSettings::default() });
        EmbeddingLine { tolerance_sigma, length: None, other_since_ms: None, last: (0, 0), bank }
    }

    pub fn judge(&mut self, pane: &Vectors<'_>, at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        self.choose_length(pane, at_ms);
        self.last = (pane.lengths.iter().filter(|l| Some(l.0) == self.length).map(|l| l.1).sum(), pane.lengths.iter().map(|l| l.1).sum());
        for vector in pane.samples.vectors(pane.slot).filter(|v| Some(v.length) == self.length) {
            self.bank.observe_folded(&vector.folded);
        }
        self.bank.judge(at_ms, pane_ms, injection)
    }

    fn choose_length(&mut self, pane: &Vectors<'_>, at_ms: i64) {
        let most = pane.lengths.iter().filter(|l| l.0 > 0).max_by_key(|l| (l.1, std::cmp::Reverse(l.0)));
        let Some((most, _)) = most else { return };
        if self.length.is_none_or(|l| l == *most) {
            (self.length, self.other_since_ms) = (Some(*most), None);
            return;
        }
        let since = *self.other_since_ms.get_or_insert(at_ms);
        if at_ms - since >= LENGTH_SETTLES_MS && self.bank.state() != State::Frozen {
            self.bank.reset();
            (self.length, self.other_since_ms) = (Some(*most), None);
        }
    }

    /// How many of the vectors have not the length that is compared; `None` before any was.
    pub fn strangers(&self, lengths: &[(u16, u32)]) -> Option<f64> {
        self.length?;
        Some(lengths.iter().filter(|l| Some(l.0) != self.length).map(|l| f64::from(l.1)).sum())
    }

    /// Vectors behind a pane's value and how far they lay away, in standard deviations of one vector.
    pub fn seen(&self) -> (f64, f64) {
        (if self.bank.shown().is_some() { f64::from(self.last.0) } else { 0.0 }, self.bank.shown().unwrap_or(0.0))
    }

    /// What is compared, for people.
    pub fn words(&self) -> String {
        let Some(length) = self.length else { return "no vector with a direction yet".to_owned() };
        let (of_length, all) = self.last;
        if of_length == all {
            return format!("vectors of {length} numbers");
        }
        let others = thousands(f64::from(all - of_length));
        format!("vectors of {length} numbers; {others} of the last {} have another length and are not compared", thousands(f64::from(all)))
    }

    pub fn release(&mut self, how: Release) {
        self.bank.release(how);
    }

    pub fn start_live(&mut self) {
        self.bank.start_live();
    }

    pub fn state(&self) -> State {
        self.bank.state()
    }

    pub fn sees(&self, injection: f64) -> Sees {
        self.bank.sees(injection)
    }

    /// Quiet vectors lie at 0, by what that means.
    pub fn baseline(&self) -> Option<Band> {
        self.bank.shown().map(|_| Band { value: 0.0, low: 0.0, high: self.tolerance_sigma, events: f64::from(self.last.0) })
    }

    pub fn succeed(&self, events_max: f64) -> EmbeddingLine {
        EmbeddingLine { bank: self.bank.succeed(events_max), last: (0, 0), other_since_ms: None, ..*self }
    }
}

#[cfg(test)]
mod tests {
    use bellwether_detectors::evidence::embedding::Folded;

    use super::*;

    fn judge(line: &mut EmbeddingLine, at_ms: i64, lengths: &[(u16, u32)]) {
        let mut samples = Samples::default();
        for (length, n) in lengths {
            for i in 0..*n {
                let vector = [f32::from(*length), 1.0 + i as f32, at_ms as f32 % 7.0];
                assert!(samples.vector(3, u64::from(i) << 16 | u64::from(*length), *length, || Folded::of(&vector)));
            }
        }
        line.judge(&Vectors { lengths, samples: &samples, slot: 3 }, at_ms, 10_000, 0.0);
    }

    #[test]
    fn another_length_is_a_stranger_and_is_learned_after_a_day() {
        let mut line = EmbeddingLine::new(0.05);
        assert_eq!(line.strangers(&[(3, 5)]), None);
        judge(&mut line, 0, &[(0, 9), (768, 4), (1_024, 3)]);
        assert_eq!(line.strangers(&[(0, 1), (768, 4), (1_024, 2)]), Some(3.0));
        assert_eq!(line.words(), "vectors of 768 numbers; 12 of the last 16 have another length and are not compared");
        judge(&mut line, 10_000, &[(1_024, 30)]);
        judge(&mut line, 20_000, &[(768, 2), (1_024, 1)]);
        judge(&mut line, 30_000, &[(1_024, 30)]);
        judge(&mut line, 30_000 + LENGTH_SETTLES_MS - 10_000, &[(1_024, 30)]);
        assert_eq!(line.strangers(&[(768, 4)]), Some(0.0), "a single pane of the old length starts the day anew");
        judge(&mut line, 30_000 + LENGTH_SETTLES_MS, &[(1_024, 30)]);
        assert_eq!((line.strangers(&[(768, 4)]), line.words().as_str()), (Some(4.0), "vectors of 1024 numbers"));
    }
}
