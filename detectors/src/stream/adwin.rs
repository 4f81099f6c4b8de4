//! ADWIN: a window that is as long as its mean has been the same.
//!
//! **Idea.** Keep everything as long as no cut splits it into two parts with surely different means; when one does, drop the older
//! end. Exponential buckets hold the window in O(log n) numbers. **Formula.** For a cut into n_0 and n_1 values with means m_0 and
//! m_1: drift when |m_0 - m_1| > sqrt(2 v d / m) + 2/3 d / m, with v the variance of the window, d = ln(2 ln(n) / delta) and 1/m =
//! 1/(n_0 - 4) + 1/(n_1 - 4) at the default shortest part of 5. **Sees** rises and falls, abrupt or slow, and adapts its own
//! memory; looks only every `clock` values. **False alarms**: few, the test is conservative. **Source**: Bifet and Gavalda 2007;
//! defaults, the bucket layout and the moment of each check as in River. Left without a reset after an alarm it goes on with the
//! shortened window, as the paper has it; River starts an empty one, which is what `reset` does.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "adwin",
    about: "window that shrinks when two parts of it differ in mean; rises and falls of any speed",
    takes: Takes::Values,
    knobs: &[
        Knob::real("delta", 0.002, 1e-300, 1.0, "error probability that the bound is set for"),
        Knob::whole("clock", 32.0, 1.0, 1e9, "values between two looks"),
        Knob::whole("max_buckets", 5.0, 2.0, 1000.0, "buckets of one size before two are merged: more is finer and slower"),
        Knob::whole("part_min", 5.0, 1.0, 1e9, "values in the shorter part of a cut"),
        Knob::whole("grace", 10.0, 0.0, 1e9, "values before the first look"),
    ],
    build,
};

/// Sizes of buckets: 1, 2, 4, ...; 2^40 values outlast any stream.
const ROWS: usize = 41;

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bucket {
    total: f64,
    /// Sum of squared deviations from the bucket's mean.
    squares: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adwin {
    delta: f64,
    clock: u64,
    part_min: f64,
    grace: f64,
    /// Places per row: one more than stay there.
    places: usize,
    /// Row by row, `places` each, oldest first within a row.
    buckets: Vec<Bucket>,
    used: Vec<usize>,
    /// Rows in use; the last one holds the oldest and largest buckets.
    rows: usize,
    width: f64,
    total: f64,
    squares: f64,
    ticks: u64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    let places = k.count("max_buckets") + 1;
    Ok(Detector::Adwin(Adwin {
        delta: k.get("delta"),
        clock: k.get("clock") as u64,
        part_min: k.get("part_min"),
        grace: k.get("grace"),
        places,
        buckets: vec![Bucket::default(); places * ROWS],
        used: vec![0; ROWS],
        rows: 1,
        width: 0.0,
        total: 0.0,
        squares: 0.0,
        ticks: 0,
    }))
}

// === impl Adwin ===

impl Adwin {
    /// Values in the window and their mean.
    pub fn window(&self) -> (f64, f64) {
        (self.width, if self.width > 0.0 { self.total / self.width } else { 0.0 })
    }

    fn insert(&mut self, x: f64) {
        self.push(0, Bucket { total: x, squares: 0.0 });
        self.width += 1.0;
        if self.width > 1.0 {
            let off = x - self.total / (self.width - 1.0);
            self.squares += (self.width - 1.0) * off * off / self.width;
        }
        self.total += x;
        let mut row = 0;
        while self.used[row] == self.places && row + 1 < ROWS {
            let size = (1u64 << row) as f64;
            let [a, b] = [self.buckets[row * self.places], self.buckets[row * self.places + 1]];
            let off = a.total / size - b.total / size;
            let between = size * size * off * off / (size + size);
            self.drop_oldest(row, 2);
            self.push(row + 1, Bucket { total: a.total + b.total, squares: a.squares + b.squares + between });
            self.rows = self.rows.max(row + 2);
            row += 1;
        }
    }

    fn push(&mut self, row: usize, bucket: Bucket) {
        self.buckets[row * self.places + self.used[row]] = bucket;
        self.used[row] += 1;
    }

    fn drop_oldest(&mut self, row: usize, n: usize) {
        let (first, used) = (row * self.places, self.used[row]);
        self.buckets.copy_within(first + n..first + used, first);
        self.buckets[first + used - n..first + used].fill(Bucket::default());
        self.used[row] -= n;
    }

    /// Drops the oldest bucket of the window.
    fn shorten(&mut self) {
        let row = self.rows - 1;
        let size = (1u64 << row) as f64;
        let bucket = self.buckets[row * self.places];
        self.width -= size;
        self.total -= bucket.total;
        let off = bucket.total / size - self.total / self.width;
        self.squares -= bucket.squares + size * self.width * off * off / (size + self.width);
        self.drop_oldest(row, 1);
        while self.rows > 1 && self.used[self.rows - 1] == 0 {
            self.rows -= 1;
        }
    }

    /// The first cut, from the old end, that the bound does not allow: the difference of means and the bound.
    fn cut(&self) -> Option<(f64, f64)> {
        let (mut n0, mut u0, mut n1, mut u1) = (0.0, 0.0, self.width, self.total);
        for row in (0..self.rows).rev() {
            let size = (1u64 << row) as f64;
            for i in 0..self.used[row] {
                if row == 0 && i + 1 == self.used[0] {
                    return None;
                }
                let total = self.buckets[row * self.places + i].total;
                (n0, n1) = (n0 + size, n1 - size);
                (u0, u1) = (u0 + total, u1 - total);
                if n0 < self.part_min || n1 < self.part_min {
                    continue;
                }
                let difference = (u0 / n0 - u1 / n1).abs();
                let d = (2.0 * self.width.ln() / self.delta).ln();
                let m_recip = 1.0 / (n0 - self.part_min + 1.0) + 1.0 / (n1 - self.part_min + 1.0);
                let bound = (2.0 * m_recip * (self.squares / self.width) * d).sqrt() + 2.0 / 3.0 * d * m_recip;
                if difference > bound {
                    return Some((difference, bound));
                }
            }
        }
        None
    }
}

impl Stream for Adwin {
    /// Score and limit are those of the first cut that alarmed; quiet answers carry none, since most values are not compared.
    fn update(&mut self, x: f64) -> Verdict {
        self.insert(x);
        self.ticks += 1;
        if !self.ticks.is_multiple_of(self.clock) || self.width <= self.grace {
            return Verdict::SILENT;
        }
        let mut verdict = Verdict::SILENT;
        while let Some((difference, bound)) = self.cut() {
            if verdict == Verdict::SILENT {
                verdict = Verdict::drift_if(true, difference, bound);
            }
            self.shorten();
        }
        verdict
    }

    fn reset(&mut self) {
        self.buckets.fill(Bucket::default());
        self.used.fill(0);
        (self.rows, self.width, self.total, self.squares, self.ticks) = (1, 0.0, 0.0, 0.0, 0);
    }
}
