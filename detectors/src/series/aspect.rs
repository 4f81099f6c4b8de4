//! One number of a series, watched on one side or on both, with a slow robust centre.

use serde::{Deserialize, Serialize};

use super::constants::Constants;
use super::peaks::Peaks;

/// Deviations that one row moves the centre at most.
const CLIP: f64 = 3.0;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Aspect {
    centre: f64,
    deviation: f64,
    n: u32,
    up: Option<Peaks>,
    down: Option<Peaks>,
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
    pub fn both() -> Aspect {
        Aspect { up: Some(Peaks::default()), down: Some(Peaks::default()), ..Aspect::default() }
    }

    pub fn rises() -> Aspect {
        Aspect { up: Some(Peaks::default()), ..Aspect::default() }
    }

    pub fn falls() -> Aspect {
        Aspect { down: Some(Peaks::default()), ..Aspect::default() }
    }

    /// Judges first, learns after. Decimal orders of rarity; 0: seen before.
    #[inline]
    pub fn step(&mut self, c: &Constants, x: f64, row: Row) -> f64 {
        let up = self.up.as_mut().map_or(0.0, |p| p.rarity(c, x, self.centre, row.eps));
        let down = self.down.as_mut().map_or(0.0, |p| p.rarity(c, -x, -self.centre, row.eps));
        self.n += 1;
        if self.n == 1 {
            self.centre = x;
        } else if !row.kept_out {
            let rate = 1.0 / f64::from((self.n + 1).min(c.epoch_rows));
            let mut error = x - self.centre;
            if self.deviation > 0.0 {
                error = error.clamp(-CLIP * self.deviation, CLIP * self.deviation);
            }
            self.centre += rate * error;
            self.deviation += rate * ((x - self.centre).abs() - self.deviation);
        }
        if let Some(p) = &mut self.up {
            p.learn(c, x, row.mark, row.kept_out);
        }
        if let Some(p) = &mut self.down {
            p.learn(c, -x, row.mark, row.kept_out);
        }
        up.max(down)
    }

    pub fn sides(&mut self) -> impl Iterator<Item = &mut Peaks> {
        self.up.iter_mut().chain(&mut self.down)
    }
}
