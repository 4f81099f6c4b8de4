//! One number of a series, watched on one side or on both, with a slow robust centre.

use serde::{Deserialize, Serialize};

use super::constants::Constants;
use super::peaks::Peaks;

/// Deviations that one row moves the centre at most.
const CLIP: f64 = 3.0;

/// A number that is watched on both sides.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Aspect {
    centre: Centre,
    up: Peaks,
    down: Peaks,
}

/// A number that is watched on one side only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Side {
    centre: Centre,
    /// 1: the high side; -1: the low one.
    sign: f64,
    peaks: Peaks,
}

/// Where a number usually lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Centre {
    at: f64,
    deviation: f64,
    n: u32,
}

/// What an aspect needs to know of the row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// What is no difference.
    pub eps: f64,
    /// The page in whose time the row falls; 0: none.
    pub mark: u8,
    /// A person called that page real.
    pub kept_out: bool,
}

// === impl Aspect ===

impl Aspect {
    /// Judges first, learns after. Decimal orders of rarity, negative where it is the low side that is rare; 0: seen before.
    #[inline]
    pub fn step(&mut self, c: &Constants, x: f64, row: Row) -> f64 {
        let up = self.up.rarity(c, x, self.centre.at, row.eps);
        let down = self.down.rarity(c, -x, -self.centre.at, row.eps);
        self.centre.learn(c, x, row.kept_out);
        self.up.learn(c, x, row);
        self.down.learn(c, -x, row);
        if up >= down { up } else { -down }
    }

    pub fn peaks(&mut self) -> [&mut Peaks; 2] {
        [&mut self.up, &mut self.down]
    }
}

// === impl Side ===

impl Side {
    pub fn high() -> Side {
        Side { centre: Centre::default(), sign: 1.0, peaks: Peaks::default() }
    }

    pub fn low() -> Side {
        Side { sign: -1.0, ..Side::high() }
    }

    /// As [`Aspect::step`].
    #[inline]
    pub fn step(&mut self, c: &Constants, x: f64, row: Row) -> f64 {
        let orders = self.sign * self.peaks.rarity(c, self.sign * x, self.sign * self.centre.at, row.eps);
        self.centre.learn(c, x, row.kept_out);
        self.peaks.learn(c, self.sign * x, row);
        orders
    }

    pub fn peaks(&mut self) -> &mut Peaks {
        &mut self.peaks
    }
}

// === impl Centre ===

impl Centre {
    #[inline]
    fn learn(&mut self, c: &Constants, x: f64, kept_out: bool) {
        self.n = self.n.saturating_add(1);
        if self.n == 1 {
            self.at = x;
        } else if !kept_out {
            let rate = 1.0 / f64::from((self.n.saturating_add(1)).min(c.epoch_rows));
            let mut error = x - self.at;
            if self.deviation > 0.0 {
                error = error.clamp(-CLIP * self.deviation, CLIP * self.deviation);
            }
            self.at += rate * error;
            self.deviation += rate * ((x - self.at).abs() - self.deviation);
        }
    }
}
