//! Mean of the last N numbers.

use serde::{Deserialize, Serialize};

use super::fixed;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ring<const N: usize> {
    #[serde(with = "fixed")]
    last: [f32; N],
    at: u16,
    full: bool,
    /// Taken afresh once a round, so that it cannot drift.
    sum: f64,
}

// === impl Ring ===

impl<const N: usize> Default for Ring<N> {
    fn default() -> Ring<N> {
        Ring { last: [0.0; N], at: 0, full: false, sum: 0.0 }
    }
}

impl<const N: usize> Ring<N> {
    /// The number that leaves, once there are N.
    #[inline]
    pub fn push(&mut self, x: f64) -> Option<f64> {
        let x = x as f32;
        let slot = &mut self.last[self.at as usize];
        let leaves = self.full.then_some(f64::from(*slot));
        self.sum += f64::from(x) - leaves.unwrap_or(0.0);
        *slot = x;
        self.at += 1;
        if self.at as usize == N {
            (self.at, self.full) = (0, true);
            self.sum = self.last.iter().map(|&x| f64::from(x)).sum();
        }
        leaves
    }

    /// None until there are N.
    #[inline]
    pub fn mean(&self) -> Option<f64> {
        self.full.then(|| self.sum / N as f64)
    }
}
