//! Is it over? While an incident is open the bank learns nothing and asks one question: is half of it refuted?
//!
//! **Formula.** The incident is a tilt of the quiet shares, place 1 of a way that begins at quiet, place 0. "Still there" is half of what
//! is believed of its size, never inside the tolerance; the alternatives are quiet, a fifth and two fifths of the way to that. Mean
//! likelihood ratios of these, added up as for an alarm. While panes lie beyond "still there", or the size turns out larger, it waits.

use std::array::from_fn;

use serde::{Deserialize, Serialize};

use super::{Armed, BINS_MAX, HOUR_MS, SINCE_BINS_MAX, Told, add_counts, quantile_of};
use crate::evidence::{Mixture, exp, ln, nats, recovery_injection};
use crate::verdict::{Call, Change, Reading, State};

pub(super) const RECOVERY_ARMS: usize = 3;
/// How far the size of an incident is believed, on the way from the near end of its interval to what is most likely: less than that
/// end at the alarm, which came just then because the panes before it showed more than the incident is; more by what comes after it.
const SIZE_AT_ALARM: f64 = -0.15;
const SIZE_LASTING: f64 = 0.25;
/// What recovery must refute lies at least and at most so far on the way to the incident.
const STILL_MIN: f64 = 0.2;
const STILL_MAX: f64 = 1.0;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Frozen {
    pub(super) alarm_ms: i64,
    pub(super) recovery: Mixture,
    pub(super) way: Way,
    pub(super) before: f64,
    pub(super) told: Told,
    pub(super) seen: Vec<(u16, u32)>,
    pub(super) since: Vec<(u16, u32)>,
}

/// The way from quiet, place 0, to the incident as it was at its alarm, place 1: a tilt of the quiet shares. Recovery must refute the place
/// `still` and all beyond it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Way {
    /// ln of what the incident made of the bins' shares: the tilt at place 1.
    toward: Vec<f64>,
    still: f64,
    /// Tolerance and a shift of a normal score upwards as places; the latter is 0 where the change is no shift.
    tolerance: f64,
    score: f64,
    /// Of the present pane: log-likelihood ratios per bin of each alternative against `still`, and the mean of the tilt at place 0 and at `still`.
    tables: Vec<f64>,
    quiet_mean: f64,
    still_mean: f64,
    /// By what panes since the alarm lay beyond quiet, and their events: while the incident lasts its size becomes known.
    lasting: f64,
    lasting_n: f64,
    /// By what panes lay beyond `still` since the recovery test began to speak.
    beyond: f64,
}

impl Armed {
    /// The way to an incident that `n` events showed. `toward`: ln of what it made of the bins' shares; `shift`: how far it moves a normal
    /// score, if it is one; `settled`: the tolerance, in the same unit.
    pub(super) fn way(&self, toward: Vec<f64>, shift: Option<f64>, settled: f64, n: f64, at_ms: i64) -> Way {
        let score = shift.map_or(0.0, f64::recip);
        let mut way = Way {
            toward,
            still: 0.0,
            tolerance: if shift.is_some() { settled * score.abs() } else { STILL_MIN },
            score,
            tables: Vec::new(),
            quiet_mean: 0.0,
            still_mean: 0.0,
            lasting: 0.0,
            lasting_n: 0.0,
            beyond: 0.0,
        };
        way.still = self.still_at(&way, 1.0, n, SIZE_AT_ALARM);
        self.lay_out(&mut way, at_ms);
        way
    }

    /// What recovery must refute when `n` events showed an incident of the size `seen` (1 is that of the alarm): half of what is
    /// believed of it, but never inside the tolerance. `believed` is how far the size is, on the way from the near end of its
    /// interval to what is most likely.
    fn still_at(&self, way: &Way, seen: f64, n: f64, believed: f64) -> f64 {
        let (quiet, variance) = self.along(way, 0.0).1;
        let (far, _) = self.along(way, 1.0).1;
        let error = 1.96 * (variance * self.dispersion() / n.max(1.0)).sqrt() / (far - quiet).max(1e-9);
        (0.5 * (seen - (1.0 - believed) * error)).clamp(way.tolerance, way.tolerance.max(STILL_MAX))
    }

    /// ln of what divides the tilt at a place of the way, and mean and variance of the tilt there.
    fn along(&self, way: &Way, place: f64) -> (f64, (f64, f64)) {
        let (mut sum, mut first, mut second) = (0.0, 0.0, 0.0);
        for (b, g) in way.toward.iter().enumerate() {
            let share = self.share(b) * exp(place * g);
            sum += share;
            first += share * g;
            second += share * g * g;
        }
        let mean = first / sum;
        (ln(sum), (mean, second / sum - mean * mean))
    }

    /// The alternatives to "still moved": quiet, a fifth and two fifths of the way. Where this hour's level is not known for sure, all is
    /// told from the level that is nearest to the incident's far side: healthy is what would be healthy wherever the level lies.
    fn lay_out(&self, way: &mut Way, at_ms: i64) {
        let course = self.hours.levels.course_at(at_ms);
        let scale = self.now.deviation.max(1e-9).recip();
        // From the level that the shares hold.
        let middle = (course.middle - self.now.middle) * scale * way.score;
        let from = middle - course.half * scale * way.score.abs();
        let still = from + way.still;
        let (still_norm, (still_mean, _)) = self.along(way, still);
        way.tables.clear();
        for part in [0.0, 0.2, 0.4] {
            let place = from + part * way.still;
            let norm = self.along(way, place).0;
            way.tables.extend(way.toward.iter().map(|g| (place - still) * g + still_norm - norm));
        }
        (way.quiet_mean, way.still_mean) = (self.along(way, middle).1.0, still_mean);
    }

    pub(super) fn watch_recovery(&mut self, pane: &[(u16, u32)], counts: &[f64; BINS_MAX], at_ms: i64, pane_ms: i64) -> (Reading, Option<Told>) {
        let f = self.dispersion();
        let injection = recovery_injection(pane_ms);
        let bins = self.bins;
        let Some(mut frozen) = self.frozen.take() else {
            return (Reading { state: State::Armed, log_evidence: 0.0, threshold: f64::INFINITY, call: Call::Quiet }, None);
        };
        add_counts(&mut frozen.seen, pane, SINCE_BINS_MAX);
        self.lay_out(&mut frozen.way, at_ms + pane_ms / 2);
        let n: f64 = counts[..bins].iter().sum();
        let fixed: f64 = counts.iter().zip(&self.scale).map(|(c, z)| c * f64::from(*z)).sum();
        self.told_levels().set_aside(at_ms.div_euclid(HOUR_MS), fixed, n);
        let tilt: f64 = counts.iter().zip(&frozen.way.toward).map(|(c, g)| c * g).sum();
        frozen.way.lasting += tilt - n * frozen.way.quiet_mean;
        frozen.way.lasting_n += n;
        // Evidence against the old place is also evidence against a new one beyond it.
        let far = self.along(&frozen.way, 1.0).1.0;
        let seen = frozen.way.lasting / frozen.way.lasting_n.max(1.0) / (far - frozen.way.quiet_mean).max(1e-9);
        let still = self.still_at(&frozen.way, seen, frozen.way.lasting_n, SIZE_LASTING);
        frozen.way.still = frozen.way.still.max(still);
        let l: [f64; RECOVERY_ARMS] = from_fn(|j| counts.iter().zip(&frozen.way.tables[j * bins..(j + 1) * bins]).map(|(c, w)| c / f * w).sum());
        let sum = frozen.recovery.step(&l, injection, at_ms);
        if frozen.recovery.is_idle() {
            frozen.since.clear();
            frozen.way.beyond = 0.0;
        } else {
            add_counts(&mut frozen.since, pane, SINCE_BINS_MAX);
            frozen.way.beyond += tilt - n * frozen.way.still_mean;
        }
        let (log_evidence, threshold) = nats(sum, injection);
        if sum < 1.0 || frozen.way.beyond > 0.0 {
            self.frozen = Some(frozen);
            return (Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }, None);
        }
        let q = if frozen.told == Told::P95 { 0.95 } else { 0.5 };
        let after = quantile_of(&frozen.since, q);
        let change = Change { before: frozen.before, after, low: after, high: after };
        let told = frozen.told;
        self.past = frozen.seen;
        self.calm();
        (Reading { state: State::Armed, log_evidence, threshold, call: Call::Recovered { change } }, Some(told))
    }
}
