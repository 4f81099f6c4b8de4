//! How rare is so large a surprise from one row to the next?
//!
//! **Idea.** The aspects know a fault once they have seen it; this arm does not. It keeps a histogram of ln(error / local scale) of
//! one-step forecasts, draws a Pareto line through two points of its tail and reads off how seldom so large an error is, so that the
//! tenth spike counts like the first. The scale is never below the long-run mean error, lest every burst of a bursty counter be a
//! miracle.

use serde::{Deserialize, Serialize};

use super::constants::Constants;
use super::fixed;

const BUCKETS: usize = 96;
/// ln(error / scale) at the lower edge, and the width of a bucket.
const LOW: f64 = -6.0;
const WIDTH: f64 = 0.125;
/// Rows between two looks at the tail.
const REDRAW_ROWS: u32 = 8;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Local {
    level: Option<f64>,
    scale: f64,
    slow: f64,
    n: u32,
    #[serde(with = "fixed")]
    seen: [f32; BUCKETS],
    total: f64,
    /// Where the line begins, and its shape.
    begins: f64,
    shape: f64,
}

// === impl Local ===

impl Default for Local {
    fn default() -> Local {
        Local { level: None, scale: 0.0, slow: 0.0, n: 0, seen: [0.0; BUCKETS], total: 0.0, begins: 0.0, shape: 1.0 }
    }
}

impl Local {
    /// Decimal orders, 0 below the tail.
    #[inline]
    pub fn step(&mut self, c: &Constants, x: f64) -> f64 {
        let Some(level) = &mut self.level else {
            self.level = Some(x);
            return 0.0;
        };
        self.n += 1;
        let error = (x - *level).abs();
        *level += c.local_rate * (x - *level);
        let scale = self.scale.max(self.slow);
        let z = if scale > 0.0 { error / scale } else { 0.0 };
        let lz = if z > 1e-9 { z.ln() } else { -20.0 };
        let mut orders = 0.0;
        if self.n >= c.local_rows_min {
            if self.n.is_multiple_of(REDRAW_ROWS) {
                self.redraw(c);
            }
            if lz > self.begins && self.begins > LOW {
                orders = (lz - self.begins) / (self.shape * std::f64::consts::LN_10) - c.local_tail.log10();
            }
        }
        self.seen[((lz - LOW) / WIDTH).clamp(0.0, BUCKETS as f64 - 1.0) as usize] += 1.0;
        self.total += 1.0;
        if self.total >= 2.0 * f64::from(c.epoch_rows) {
            self.seen.iter_mut().for_each(|n| *n *= 0.5);
            self.total *= 0.5;
        }
        let taught = if scale > 0.0 { error.min(c.local_clip * scale) } else { error };
        self.scale += (taught - self.scale) / f64::from(self.n).min(c.local_scale_rows);
        self.slow += (error - self.slow) / f64::from(self.n.min(c.epoch_rows));
        orders
    }

    fn redraw(&mut self, c: &Constants) {
        let (near, far) = (c.local_tail * self.total, c.local_far * self.total);
        let (mut above, mut far_at) = (0.0, None);
        for (i, &seen) in self.seen.iter().enumerate().rev() {
            let seen = f64::from(seen);
            let edge = |part: f64| LOW + WIDTH * (i as f64 + 1.0 - (part - above) / seen);
            if far_at.is_none() && above + seen >= far {
                far_at = Some(edge(far));
            }
            if above + seen >= near {
                self.begins = edge(near);
                break;
            }
            above += seen;
        }
        let far_at = far_at.unwrap_or(self.begins);
        self.shape = ((far_at - self.begins) / (c.local_tail / c.local_far).ln()).max(c.local_shape_min);
    }
}
