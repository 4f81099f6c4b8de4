//! What came in lately, the finer the younger: from it the onset of a change is told.
//!
//! The everyday picture is memory itself: yesterday in hours, last year in seasons. A change found after seven panes began within
//! them, and one found after a thousand panes need not be dated to the pane. So neighbours are merged once both together last no
//! longer than a third of their age; 48 steps then reach back some ten thousand panes. The road not taken is a ring of the last
//! panes: at 10 events a pane a doubling of a rare error takes a thousand of them, and none of 40 holds its beginning.

use serde::{Deserialize, Serialize};

use crate::verdict::Onset;

const STEPS_MAX: usize = 48;
/// Length of a step to its age, at most one to this.
const AGE_PER_LENGTH: u64 = 3;

/// Rates that a change may lead to, evenly in log odds up to the far one.
const RATES: usize = 64;
const LOGIT_FAR: f64 = 12.0;

/// Counts over a stretch of time, already divided by the resemblance within panes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Step {
    /// To the start of the next step.
    length_ms: u32,
    hits: f32,
    total: f32,
}

/// Steps, oldest first. It takes memory once, with the first pane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trail {
    steps: Vec<Step>,
    /// Start of the newest step.
    newest_ms: i64,
}

impl Trail {
    pub fn push(&mut self, hits: f64, total: f64, at_ms: i64, pane_ms: i64) {
        if self.steps.capacity() == 0 {
            self.steps.reserve_exact(STEPS_MAX);
        }
        if let Some(last) = self.steps.last_mut() {
            last.length_ms = u32::try_from((at_ms - self.newest_ms).max(0)).unwrap_or(u32::MAX);
        }
        if self.steps.len() >= STEPS_MAX {
            self.coarsen();
        }
        self.steps.push(Step { length_ms: u32::try_from(pane_ms.max(0)).unwrap_or(u32::MAX), hits: hits as f32, total: total as f32 });
        self.newest_ms = at_ms;
    }

    pub fn clear(&mut self) {
        self.steps.clear();
    }

    fn coarsen(&mut self) {
        let mut age: u64 = self.steps.iter().map(|s| u64::from(s.length_ms)).sum();
        let (mut kept, mut next) = (0, 0);
        while next < self.steps.len() {
            let mut step = self.steps[next];
            next += 1;
            if let Some(second) = self.steps.get(next) {
                let both = u64::from(step.length_ms) + u64::from(second.length_ms);
                if both * AGE_PER_LENGTH <= age.saturating_sub(both) {
                    step.length_ms = u32::try_from(both).unwrap_or(u32::MAX);
                    step.hits += second.hits;
                    step.total += second.total;
                    next += 1;
                }
            }
            age = age.saturating_sub(u64::from(step.length_ms));
            self.steps[kept] = step;
            kept += 1;
        }
        // Nothing was old enough to merge: the oldest are forgotten, several at once, so that this stays rare.
        if kept >= STEPS_MAX {
            self.steps.copy_within(4.., 0);
            kept = kept.min(STEPS_MAX) - 4;
        }
        self.steps.truncate(kept);
    }

    /// Sums since a time, by whole steps: (hits, total).
    #[cfg(test)]
    pub fn since(&self, start_ms: i64) -> (f64, f64) {
        let (mut hits, mut total) = (0.0, 0.0);
        let mut at = self.newest_ms;
        for (i, step) in self.steps.iter().enumerate().rev() {
            if i + 1 < self.steps.len() {
                at -= i64::from(step.length_ms);
            }
            if at < start_ms {
                break;
            }
            hits += f64::from(step.hits);
            total += f64::from(step.total);
        }
        (hits, total)
    }

    /// When a rate other than `before` began, if it lasts until now, and how large it is: its 2.5, 50 and 97.5 % points.
    ///
    /// Each start is as likely beforehand, and so is each log odds on the side of the change. The onset is the likeliest start; the
    /// intervals hold the middle of the weight. Since the size is told over all starts, the luck that made the alarm come just then
    /// weighs less in it than in a count from the best start on. `phi`: how much noisier panes are than independent events.
    /// `pointer_ms` answers when nothing is remembered.
    pub fn onset(&self, before: f64, up: bool, phi: f64, pointer_ms: i64, pane_ms: i64) -> (Onset, [f64; 3]) {
        let p = before.clamp(1e-9, 1.0 - 1e-9);
        let logit = (p / (1.0 - p)).ln();
        let far = if up { LOGIT_FAR.max(logit + 1.0) } else { (-LOGIT_FAR).min(logit - 1.0) };
        let rates: [f64; RATES] = std::array::from_fn(|j| {
            let x = logit + (far - logit) * (j as f64 + 0.5) / RATES as f64;
            1.0 / (1.0 + (-x).exp())
        });
        let bets = rates.map(|q| ((q / p).ln() / phi, ((1.0 - q) / (1.0 - p)).ln() / phi));
        let mut nats = [0.0; RATES];
        // Weight of each rate over all starts so far, in units of exp(scale).
        let (mut by_rate, mut scale) = ([0.0f64; RATES], f64::NEG_INFINITY);
        let mut at = self.newest_ms;
        // Newest first: start, length, weight of the start in nats.
        let mut starts: Vec<(i64, i64, f64)> = Vec::with_capacity(self.steps.len());
        for (i, step) in self.steps.iter().enumerate().rev() {
            if i + 1 < self.steps.len() {
                at -= i64::from(step.length_ms);
            }
            let (hits, total) = (f64::from(step.hits), f64::from(step.total));
            for (sum, (hit, miss)) in nats.iter_mut().zip(&bets) {
                *sum += hits * hit + (total - hits) * miss;
            }
            // A long step stands for as many starts as it has panes.
            let panes = (i64::from(step.length_ms) as f64 / pane_ms.max(1) as f64).max(1.0);
            let most = nats.iter().fold(f64::NEG_INFINITY, |m, l| m.max(*l)) + panes.ln();
            if most > scale {
                let shrink = (scale - most).exp();
                by_rate.iter_mut().for_each(|w| *w *= shrink);
                scale = most;
            }
            let mut all = 0.0;
            for (weight, l) in by_rate.iter_mut().zip(&nats) {
                let w = (l + panes.ln() - scale).exp();
                *weight += w;
                all += w;
            }
            starts.push((at, i64::from(step.length_ms), scale + all.max(1e-300).ln()));
        }
        let best = starts.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.2));
        let weight: f64 = starts.iter().map(|s| (s.2 - best).exp()).sum();
        let (mut at, mut from, mut to) = (pointer_ms, pointer_ms, pointer_ms);
        let mut sum = 0.0;
        let mut density_best = f64::NEG_INFINITY;
        for (start, length, nats) in starts.iter().rev() {
            let density = nats - (*length as f64 / pane_ms.max(1) as f64).max(1.0).ln();
            if density > density_best {
                (at, density_best) = (*start, density);
            }
            let share = (nats - best).exp() / weight;
            // Within a long step the starts lie evenly.
            let reach = |level: f64| start + (((level - sum) / share.max(1e-12)).clamp(0.0, 1.0) * *length as f64) as i64;
            if sum < 0.05 {
                from = reach(0.05);
            }
            if sum < 0.95 {
                to = reach(0.95);
            }
            sum += share;
        }
        let total: f64 = by_rate.iter().sum();
        let point = |level: f64| {
            let mut below = 0.0;
            for (j, w) in by_rate.iter().enumerate() {
                let share = w / total.max(1e-300);
                if below + share >= level {
                    // Between the log odds of neighbours, evenly.
                    let x = logit + (far - logit) * (j as f64 + ((level - below) / share.max(1e-12)).clamp(0.0, 1.0)) / RATES as f64;
                    return 1.0 / (1.0 + (-x).exp());
                }
                below += share;
            }
            rates[RATES - 1]
        };
        let (a, b) = (point(0.025), point(0.975));
        // The change comes inside a pane, and its first part alone may not show: half a pane on both sides.
        let onset = Onset { at_ms: at, from_ms: from.min(at) - pane_ms / 2, to_ms: to.max(at) + pane_ms / 2 };
        (onset, [a.min(b), point(0.5), a.max(b)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    #[test]
    fn it_remembers_all_counts_and_dates_a_change_after_thousands_of_panes() {
        let mut noise = Noise::new(1);
        let mut trail = Trail::default();
        let (mut hits, mut total) = (0.0, 0.0);
        let mut seen_since = 0.0;
        for i in 0..6_000i64 {
            let h = f64::from(noise.binomial(10, if i < 4_000 { 0.01 } else { 0.02 }));
            trail.push(h, 10.0, i * 1_000, 1_000);
            hits += h;
            total += 10.0;
            if i >= 4_000 {
                seen_since += h;
            }
        }
        assert!(trail.steps.len() <= STEPS_MAX && trail.steps.capacity() == STEPS_MAX);
        assert_eq!(trail.since(i64::MIN), (hits, total));
        let (onset, [low, middle, high]) = trail.onset(0.01, true, 1.0, 0, 1_000);
        assert!(onset.from_ms <= 4_000_000 && 4_000_000 <= onset.to_ms, "{onset:?}");
        assert!(low < 0.02 && 0.02 < high && (0.017..0.023).contains(&middle), "{low} {middle} {high}");
        let (h, n) = trail.since(4_000_000);
        assert!(n > 15_000.0 && h / n > 0.016 && h <= seen_since, "{h} of {n}");
    }
}
