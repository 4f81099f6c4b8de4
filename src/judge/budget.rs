//! The budget of false pages, divided over what lives.
//!
//! What is promised is a rate: each pane of each line injects its share, and expected false pages stay at or below the sum of what
//! was injected, under any dependence between lines. So births and deaths need no bookkeeping: a fifth is kept for lines born
//! since the last division, and evidence that was gathered is never rescaled.

use serde::{Deserialize, Serialize};

/// Part of the budget that is kept for lines born since the last division.
const FOR_NEWBORN: f64 = 0.2;
const MONTH_MS: f64 = 30.0 * 86_400_000.0;
/// Weight that is assumed before anything was ever counted.
const WEIGHT_MIN: f64 = 20.0;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Budget {
    /// False pages that one pane of the whole fleet may cost.
    per_pane: f64,
    /// Weight of the lines over which it was last divided, and of those born since.
    divided: f64,
    born: f64,
    /// Event-time day of the last division.
    day: Option<i64>,
}

// === impl Budget ===

impl Budget {
    pub fn new(false_pages: f64, pane_ms: i64) -> Budget {
        Budget { per_pane: false_pages * pane_ms as f64 / MONTH_MS, divided: 0.0, born: 0.0, day: None }
    }

    pub fn set(&mut self, false_pages: f64, pane_ms: i64) {
        self.per_pane = false_pages * pane_ms as f64 / MONTH_MS;
    }

    /// False pages that one pane of the whole fleet may cost.
    pub fn per_pane(&self) -> f64 {
        self.per_pane
    }

    pub fn day(&self) -> Option<i64> {
        self.day
    }

    pub fn divide(&mut self, day: i64, weight: f64) {
        self.day = Some(day);
        self.divided = weight;
        self.born = 0.0;
    }

    /// What a line of this weight may spend on a pane from the division on.
    pub fn share(&self, weight: f64) -> f64 {
        self.per_pane * (1.0 - FOR_NEWBORN) * weight / self.divided.max(WEIGHT_MIN)
    }

    /// What a line born now may spend until the next division. The n-th birth gets its part of what all could at most be.
    pub fn birth(&mut self, weight: f64) -> f64 {
        self.born += weight;
        self.per_pane * FOR_NEWBORN * weight / (self.divided.max(WEIGHT_MIN) + self.born)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shares_together_stay_within_the_budget() {
        let mut b = Budget::new(2.0, 10_000);
        let promised = 2.0 * 10_000.0 / MONTH_MS;
        let mut newborn = 0.0;
        for _ in 0..1_000 {
            newborn += b.birth(1.0);
        }
        // The harmonic sum of births grows slowly; the first division ends it.
        assert!(newborn < promised, "{newborn} {promised}");
        b.divide(1, 1_000.0);
        let all: f64 = (0..1_000).map(|_| b.share(1.0)).sum();
        let born: f64 = (0..500).map(|_| b.birth(1.0)).sum();
        assert!(all + born <= promised * (1.0 + 1e-9), "{all} {born} {promised}");
    }
}
