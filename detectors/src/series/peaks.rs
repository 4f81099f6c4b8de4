//! How far is this number beyond the largest that this series has shown?
//!
//! **Idea.** Keep the K largest of the past and ask nothing of a number that lies below them. Beyond the smallest of the K, excesses
//! of almost any law look exponential for a while; their scale is known from K values only, and the predictive tail of an
//! exponential of unknown scale is a Pareto tail of index 1/K, which needs no shape of its own (Pickands 1975 for the excesses).
//! **Formula.** With u the smallest and b the mean excess of the K over u, in decimal orders:
//! rarity = age log10(n / K) + K log10(1 + (x - u) / (K b)). **Blocks.** Only the largest of each block of rows may enter, and it
//! enters one block late: a burst must not fill the list, and an event is compared with what was known before it began. **Two
//! generations**: a record is remembered for one to two epochs and then leaves at once. Letting it fade instead makes every series
//! set records for ever. **Credit**: of blocks from one law, K / n set such a record; a side that does so more often (a walk, a trend) is
//! believed less, by (expected / seen)^(1/2). **Pages**: a maximum carries the mark of the page in whose time it fell, so that a
//! person's "this was real" can take it out again.

use serde::{Deserialize, Serialize};

use super::aspect::Row;
use super::constants::Constants;

pub(super) const PEAKS: usize = 8;
/// No maximum yet, or one that was taken out.
const NONE: f32 = f32::NEG_INFINITY;

/// One of the largest, with the mark of the page in whose time it fell (0: none).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Peak {
    value: f32,
    mark: u8,
}

/// The largest, in falling order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Largest {
    values: [f32; PEAKS],
    marks: [u8; PEAKS],
    len: u8,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Peaks {
    now: Largest,
    old: Largest,
    n_now: u32,
    n_old: u32,
    /// The block being filled, and the one before, which waits.
    filling: Peak,
    waiting: Peak,
    filled: u16,
    /// Of the largest of both generations: the smallest, the greatest, the mean excess over the smallest.
    u: f32,
    top: f32,
    excess: f32,
    ready: bool,
    /// Blocks in which something lay beyond, and how many were expected.
    beyond: f32,
    expected: f32,
    /// Something lay beyond in the block being filled.
    is_beyond: bool,
}

// === impl Largest ===

impl Largest {
    fn insert(&mut self, peak: Peak) {
        let len = self.len as usize;
        let at = self.values[..len].partition_point(|&v| v >= peak.value);
        if at == PEAKS {
            return;
        }
        let len = (len + 1).min(PEAKS);
        self.values.copy_within(at..len - 1, at + 1);
        self.marks.copy_within(at..len - 1, at + 1);
        (self.values[at], self.marks[at], self.len) = (peak.value, peak.mark, len as u8);
    }

    /// Takes out what carries the mark.
    fn without(&self, mark: u8) -> Largest {
        let mut rest = Largest::default();
        for i in (0..self.len as usize).filter(|&i| self.marks[i] != mark) {
            let at = rest.len as usize;
            (rest.values[at], rest.marks[at], rest.len) = (self.values[i], self.marks[i], rest.len + 1);
        }
        rest
    }

    fn unmark(&mut self, mark: u8) {
        self.marks.iter_mut().filter(|m| **m == mark).for_each(|m| *m = 0);
    }
}

// === impl Peaks ===

impl Default for Peaks {
    fn default() -> Peaks {
        let none = Peak { value: NONE, mark: 0 };
        Peaks {
            now: Largest::default(),
            old: Largest::default(),
            n_now: 0,
            n_old: 0,
            filling: none,
            waiting: none,
            filled: 0,
            u: 0.0,
            top: 0.0,
            excess: 0.0,
            ready: false,
            beyond: 0.0,
            expected: 0.0,
            is_beyond: false,
        }
    }
}

impl Peaks {
    /// Decimal orders; 0 when there is something like it among the largest. `centre`: where this number usually lies; `eps`: what
    /// is no difference.
    #[inline]
    pub fn rarity(&mut self, c: &Constants, x: f64, centre: f64, eps: f64) -> f64 {
        if !self.ready || (x - eps) as f32 <= self.u {
            return 0.0;
        }
        self.is_beyond = true;
        let (u, k) = (f64::from(self.u), PEAKS as f64);
        let unit = f64::from(self.excess).max(c.floor * (f64::from(self.top) - centre).abs()).max(eps);
        let n = f64::from(self.n_now) + f64::from(self.n_old);
        let r = c.age * (n / k).log10() + k * (1.0 + (x - u) / (k * unit)).log10();
        let (expected, beyond) = (f64::from(self.expected) + c.credit_blocks, f64::from(self.beyond) + c.credit_blocks);
        let credit = (expected / beyond).min(1.0).powf(c.credit_power);
        (credit * r).min(c.cap_orders)
    }

    #[inline]
    pub fn learn(&mut self, c: &Constants, x: f64, row: Row) {
        self.n_now += 1;
        let x = x as f32;
        if x > self.filling.value && !row.kept_out {
            self.filling.value = x;
        }
        if row.mark != 0 {
            self.filling.mark = row.mark;
        }
        self.filled += 1;
        if self.filled >= c.block_rows {
            self.close_block(c);
        }
    }

    fn close_block(&mut self, c: &Constants) {
        if self.ready {
            let blocks = f64::from(self.n_now + self.n_old) / f64::from(c.block_rows);
            self.expected += (PEAKS as f64 / blocks.max(PEAKS as f64)) as f32;
            self.beyond += f32::from(u8::from(self.is_beyond));
        }
        self.is_beyond = false;
        if self.waiting.value > NONE {
            self.now.insert(self.waiting);
            self.renew();
        }
        self.waiting = self.filling;
        self.filling = Peak { value: NONE, mark: 0 };
        self.filled = 0;
        if self.n_now >= c.epoch_rows {
            // u, top and excess stay until the next insertion.
            (self.old, self.n_old) = (self.now, self.n_now);
            (self.now, self.n_now) = (Largest::default(), 0);
        }
    }

    /// Merges the generations.
    fn renew(&mut self) {
        let (a, b) = (&self.now.values[..self.now.len as usize], &self.old.values[..self.old.len as usize]);
        self.ready = a.len() + b.len() >= PEAKS;
        if !self.ready {
            return;
        }
        let (mut i, mut j, mut sum, mut last) = (0, 0, 0.0, 0.0);
        for k in 0..PEAKS {
            let from_now = match (a.get(i), b.get(j)) {
                (Some(x), Some(y)) => x >= y,
                (now, _) => now.is_some(),
            };
            last = if from_now { a[i] } else { b[j] };
            (i, j) = if from_now { (i + 1, j) } else { (i, j + 1) };
            if k == 0 {
                self.top = last;
            }
            sum += f64::from(last);
        }
        self.u = last;
        self.excess = (sum / PEAKS as f64 - f64::from(last)) as f32;
    }

    /// A page begins: what was seen in the last block or two belongs to it, and an old page of the same mark is forgotten as one.
    pub fn page(&mut self, mark: u8) {
        self.now.unmark(mark);
        self.old.unmark(mark);
        self.filling.mark = mark;
        self.waiting.mark = mark;
    }

    /// Takes out what fell into that page's time.
    pub fn forget(&mut self, mark: u8) {
        (self.now, self.old) = (self.now.without(mark), self.old.without(mark));
        for peak in [&mut self.filling, &mut self.waiting] {
            if peak.mark == mark {
                *peak = Peak { value: NONE, mark: 0 };
            }
        }
        self.renew();
    }
}
