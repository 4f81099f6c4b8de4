//! MAD: the z-score that outliers cannot bribe.
//!
//! **Idea.** Median and median distance from it stand in for mean and deviation: half of the window may be nonsense. **Formula.**
//! score = 0.6745 |x - median| / MAD over the `window` values before x; alarm above `limit`. **Sees** single spikes and the first
//! values of a jump. Where more than half of the window is one value, MAD is 0 and any other value alarms: not for counts that are
//! mostly 0. **Source**: Iglewicz and Hoaglin 1993, who name 3.5 as the limit.

use serde::{Deserialize, Serialize};

use super::knob::{Knob, Knobs, Refusal};
use super::{Detector, Kind, Stream, Takes, Verdict, z_score};

pub const KIND: Kind = Kind {
    name: "mad",
    about: "newest value against median and median deviation of a window; spikes, undisturbed by outliers",
    takes: Takes::Values,
    knobs: &[
        Knob::whole("window", 100.0, 3.0, 100_000.0, "values before this one that say what is normal"),
        Knob::real("limit", 3.5, 0.0, 1e6, "modified z-score at which it alarms"),
    ],
    build,
};

/// Normal quantile of 3/4: what makes the MAD of normal values estimate their standard deviation.
const QUARTILE: f64 = 0.6745;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mad {
    limit: f64,
    ring: Vec<f64>,
    at: usize,
    filled: usize,
    /// The window in order, so that a new value costs one shift and no sort.
    sorted: Vec<f64>,
}

fn build(k: &Knobs) -> Result<Detector, Refusal> {
    let window = k.count("window");
    Ok(Detector::Mad(Mad { limit: k.get("limit"), ring: vec![0.0; window], at: 0, filled: 0, sorted: vec![0.0; window] }))
}

// === impl Mad ===

/// Middle of what is in order; the mean of the two middle ones for an even number.
fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    if n.is_multiple_of(2) { (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0 } else { sorted[n / 2] }
}

/// Median distance from the centre: distances grow to both sides of it, so two fingers walk outwards in order.
fn median_distance(sorted: &[f64], centre: f64) -> f64 {
    let n = sorted.len();
    let mut right = sorted.partition_point(|v| *v < centre);
    let mut left = right;
    let (mut before, mut newest) = (0.0, 0.0);
    for _ in 0..=n / 2 {
        before = newest;
        let below = if left > 0 { centre - sorted[left - 1] } else { f64::INFINITY };
        let above = if right < n { sorted[right] - centre } else { f64::INFINITY };
        if below < above {
            newest = below;
            left -= 1;
        } else {
            newest = above;
            right += 1;
        }
    }
    if n.is_multiple_of(2) { (before + newest) / 2.0 } else { newest }
}

impl Stream for Mad {
    fn update(&mut self, x: f64) -> Verdict {
        let window = self.ring.len();
        let mut verdict = Verdict::SILENT;
        if self.filled == window {
            let centre = median(&self.sorted);
            let score = QUARTILE * z_score::distance(x, centre, median_distance(&self.sorted, centre));
            verdict = Verdict::drift_if(score > self.limit, score, self.limit);
            let old = self.ring[self.at];
            let from = self.sorted.partition_point(|v| *v < old);
            let to = self.sorted.partition_point(|v| *v < x);
            // The gap that the oldest value leaves travels to where the newest belongs.
            if from < to {
                self.sorted.copy_within(from + 1..to, from);
                self.sorted[to - 1] = x;
            } else {
                self.sorted.copy_within(to..from, to + 1);
                self.sorted[to] = x;
            }
        } else {
            let to = self.sorted[..self.filled].partition_point(|v| *v < x);
            self.sorted.copy_within(to..self.filled, to + 1);
            self.sorted[to] = x;
            self.filled += 1;
        }
        self.ring[self.at] = x;
        self.at = (self.at + 1) % window;
        verdict
    }

    fn reset(&mut self) {
        self.ring.fill(0.0);
        self.sorted.fill(0.0);
        (self.at, self.filled) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::noise::Noise;

    #[test]
    fn it_agrees_with_sorting_everything_anew() {
        let mut noise = Noise::new(3);
        for window in [5, 8, 100] {
            let mut test = Mad { limit: 3.5, ring: vec![0.0; window], at: 0, filled: 0, sorted: vec![0.0; window] };
            let mut all: Vec<f64> = Vec::new();
            for _ in 0..1_000 {
                // Whole numbers, so that there are many ties.
                let x = (3.0 * noise.normal()).round();
                let got = test.update(x);
                if all.len() >= window {
                    let mut w = all[all.len() - window..].to_vec();
                    w.sort_by(f64::total_cmp);
                    let centre = median(&w);
                    let mut distances: Vec<f64> = w.iter().map(|v| (v - centre).abs()).collect();
                    distances.sort_by(f64::total_cmp);
                    assert_eq!(got.score, QUARTILE * z_score::distance(x, centre, median(&distances)), "{w:?}");
                }
                all.push(x);
            }
        }
    }
}
