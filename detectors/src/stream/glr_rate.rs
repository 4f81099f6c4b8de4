//! GLR rate: at which cut do the errors before and after look least alike, and has it lasted?
//!
//! **Idea.** As ADWIN, a window in exponential buckets that tries every cut; but a cut is judged by what Bernoulli values say of it,
//! not by a bound that must hold for anything, and two questions are asked where ADWIN asks one: is it overwhelming, or has it
//! lasted? A burst of a hundred errors is neither. A fall says nothing: what lies before it is forgotten, so that the next rise is
//! measured against the better rate. **Formula.** For a cut into k of n and l of m errors: G = k ln(p / r) + (n - k) ln((1 - p) /
//! (1 - r)) + the same of l, m and q, with p = k / n, q = l / m, r = (k + l) / (n + m); less ln(min(n, m)) / 2 for having chosen the
//! cut (Schwarz). Drift where q - p is at least `at_least` and G is above `nats_at_once`, or above `nats` with m of at least
//! `lasting`. **Sees** rises of any speed above `at_least`; a rise within it is forgiven. **Cost**: O(log n) memory; about two logs
//! per bucket, and only at errors and every 16th value. **Source**: the likelihood ratio is Siegmund and Venkatraman 1995, the
//! window Bifet and Gavalda 2007; the two questions are our own. Settings were chosen on eleven streams of single errors; what
//! they reach there, with a family left out, and on fresh streams stands in `benches/results/streams.md`.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict};

pub const KIND: Kind = Kind {
    name: "glr_rate",
    about: "likelihood ratio of the best cut of an adaptive window; rises of the error rate that last or overwhelm",
    takes: Takes::Errors,
    knobs: &[
        Knob::real("nats", 4.0, 0.0, 1e6, "evidence at which a rise that has lasted alarms"),
        Knob::whole("lasting", 300.0, 1.0, 1e9, "values after which a rise has lasted"),
        Knob::real("nats_at_once", 20.0, 0.0, 1e6, "evidence at which a rise alarms at once"),
        Knob::real("at_least", 0.06, 0.0, 1.0, "rise that is forgiven, as a difference of rates"),
        Knob::real("nats_fall", 12.0, 0.0, 1e6, "evidence for a fall at which what lies before it is forgotten"),
        Knob::whole("before_min", 50.0, 1.0, 1e9, "values before a cut"),
        Knob::whole("places", 8.0, 2.0, 64.0, "buckets of one size before two are merged: more is finer and slower"),
    ],
    build,
};

/// Sizes of buckets: 1, 2, 4, ...; 2^40 values outlast any stream.
const ROWS: usize = 41;
/// Falls, and rises that mature without a further error, are looked for at every so many values.
const CLOCK: u64 = 16;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GlrRate {
    nats: f64,
    lasting: f64,
    nats_at_once: f64,
    at_least: f64,
    nats_fall: f64,
    before_min: f64,
    /// Places per row: one more than stay there.
    places: usize,
    /// Errors in each bucket, row by row, oldest first within a row.
    buckets: Vec<f64>,
    used: Vec<usize>,
    /// Rows in use; the last one holds the oldest and largest buckets.
    rows: usize,
    values: f64,
    errors: f64,
    ticks: u64,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    let places = k.count("places") + 1;
    Ok(Detector::GlrRate(GlrRate {
        nats: k.get("nats"),
        lasting: k.get("lasting"),
        nats_at_once: k.get("nats_at_once"),
        at_least: k.get("at_least"),
        nats_fall: k.get("nats_fall"),
        before_min: k.get("before_min"),
        places,
        buckets: vec![0.0; places * ROWS],
        used: vec![0; ROWS],
        rows: 1,
        values: 0.0,
        errors: 0.0,
        ticks: 0,
    }))
}

/// The best cut of its kind: its evidence, and how many values lie before it.
#[derive(Clone, Copy, Default)]
struct Cut {
    nats: f64,
    before: f64,
}

impl Cut {
    fn or(self, nats: f64, before: f64) -> Cut {
        if nats > self.nats { Cut { nats, before } } else { self }
    }
}

/// Largest log-likelihood of so many errors among so many values.
fn log_likelihood(errors: f64, values: f64) -> f64 {
    let part = |k: f64| if k > 0.0 { k * (k / values).ln() } else { 0.0 };
    part(errors) + part(values - errors)
}

// === impl GlrRate ===

impl GlrRate {
    /// Values in the window and their error rate: what the test takes for normal.
    pub fn window(&self) -> (f64, f64) {
        (self.values, if self.values > 0.0 { self.errors / self.values } else { 0.0 })
    }

    fn insert(&mut self, x: f64) {
        self.push(0, x);
        self.values += 1.0;
        self.errors += x;
        let mut row = 0;
        while self.used[row] == self.places && row + 1 < ROWS {
            let sum = self.buckets[row * self.places] + self.buckets[row * self.places + 1];
            self.drop_oldest(row, 2);
            self.push(row + 1, sum);
            self.rows = self.rows.max(row + 2);
            row += 1;
        }
    }

    fn push(&mut self, row: usize, errors: f64) {
        self.buckets[row * self.places + self.used[row]] = errors;
        self.used[row] += 1;
    }

    fn drop_oldest(&mut self, row: usize, n: usize) {
        let (first, used) = (row * self.places, self.used[row]);
        self.buckets.copy_within(first + n..first + used, first);
        self.buckets[first + used - n..first + used].fill(0.0);
        self.used[row] -= n;
    }

    /// The best rise of all, the best that has lasted, and the best fall.
    fn cuts(&self) -> (Cut, Cut, Cut) {
        let all = log_likelihood(self.errors, self.values);
        let (mut n, mut k) = (0.0, 0.0);
        let (mut rise, mut lasting, mut fall) = (Cut::default(), Cut::default(), Cut::default());
        for row in (0..self.rows).rev() {
            let size = (1u64 << row) as f64;
            for i in 0..self.used[row] {
                n += size;
                k += self.buckets[row * self.places + i];
                let (m, l) = (self.values - n, self.errors - k);
                let step = l / m - k / n;
                if n < self.before_min || m < 1.0 || (step > 0.0 && step < self.at_least) {
                    continue;
                }
                let nats = log_likelihood(k, n) + log_likelihood(l, m) - all - 0.5 * n.min(m).ln();
                if step <= 0.0 {
                    fall = fall.or(nats, n);
                } else {
                    rise = rise.or(nats, n);
                    if m >= self.lasting && n >= self.lasting {
                        lasting = lasting.or(nats, n);
                    }
                }
            }
        }
        (rise, lasting, fall)
    }

    /// Drops the oldest buckets until so many values are gone.
    fn forget(&mut self, values: f64) {
        let mut gone = 0.0;
        while gone < values {
            let row = self.rows - 1;
            let size = (1u64 << row) as f64;
            self.values -= size;
            self.errors -= self.buckets[row * self.places];
            self.drop_oldest(row, 1);
            while self.rows > 1 && self.used[self.rows - 1] == 0 {
                self.rows -= 1;
            }
            gone += size;
        }
    }
}

impl Stream for GlrRate {
    /// The score is the evidence of the rise that alarmed, else of the best one that has lasted.
    fn update(&mut self, x: f64) -> Verdict {
        let x = x.clamp(0.0, 1.0);
        self.insert(x);
        self.ticks += 1;
        if x == 0.0 && !self.ticks.is_multiple_of(CLOCK) {
            return Verdict::SILENT;
        }
        let (rise, lasting, fall) = self.cuts();
        if rise.nats > self.nats_at_once {
            return Verdict::drift_if(true, rise.nats, self.nats_at_once);
        }
        if lasting.nats <= self.nats && fall.nats > self.nats_fall && fall.nats > rise.nats {
            self.forget(fall.before);
        }
        Verdict::drift_if(lasting.nats > self.nats, lasting.nats, self.nats)
    }

    fn reset(&mut self) {
        self.buckets.fill(0.0);
        self.used.fill(0);
        (self.rows, self.values, self.errors, self.ticks) = (1, 0.0, 0.0, 0);
    }
}
