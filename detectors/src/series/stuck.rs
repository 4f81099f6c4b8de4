//! A value that repeats longer than it ever did: the reading is frozen, not the thing it reads.

use serde::{Deserialize, Serialize};

use super::constants::Constants;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stuck {
    last: Option<f64>,
    run: u32,
    /// Longest finished run.
    longest: u32,
    changes: u32,
}

// === impl Stuck ===

impl Default for Stuck {
    fn default() -> Stuck {
        Stuck { last: None, run: 1, longest: 1, changes: 0 }
    }
}

impl Stuck {
    /// Pages' worth: 1 at `stuck_factor` times the longest run.
    #[inline]
    pub fn step(&mut self, c: &Constants, x: f64) -> f64 {
        if self.last == Some(x) {
            self.run += 1;
        } else {
            self.longest = self.longest.max(self.run);
            self.run = 1;
            self.changes = self.changes.saturating_add(1);
        }
        self.last = Some(x);
        if self.run <= self.longest + 1 || self.changes < c.stuck_changes_min {
            return 0.0;
        }
        (f64::from(self.run) / (f64::from(self.longest) + 1.0)).ln() / c.stuck_factor.ln()
    }
}
