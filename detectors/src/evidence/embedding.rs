//! Embeddings: do the vectors of today come from where those of the quiet past came from?
//!
//! **Idea.** Hang a mean of many waves over the cloud of vectors: two clouds whose means agree for every wave are the same cloud. A
//! vector is folded to 16 numbers by random signs (Achlioptas 2003), centred and scaled by its first thousand fellows, and seen
//! through 64 random waves cos(w s + phase), which are the features of a Gaussian kernel (Rahimi and Recht 2007); the distance of
//! two means is the maximum mean discrepancy (Gretton et al. 2012). **Formula.** The direction v in which to look is learned online:
//! S^-1 (recent mean - quiet mean), recent over 4 or over 32 panes, S the covariance of one event's features from differences of
//! neighbouring panes, so that what resembles itself inside a pane is counted as noise. v is known before the pane, so x = v (mean
//! of the pane - quiet mean) / sd is a fair game under "nothing has changed" (as in testing by betting, Shekhar and Ramdas 2023);
//! bets are on x being d standard deviations of an event away against being at the tolerance. **Sees** new and vanished
//! topics, moved, shrunk and spread clouds, whatever their direction. Does not see a change inside the tolerance, nor what a fold
//! to 16 numbers loses, nor whether it matters. **Knob.** `tolerance_sigma`. **False alarms**: measured, not proven (the covariance
//! is estimated): `benches/results/embeddings.md`. **Road not taken**: quantile bins of eight random projections; same memory, but a
//! shift of length D shows in a random direction as D / sqrt(dimensions) only; both figures are on that page.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Ladder, Mixture, Sees, decay, nats, normal_quantile, onset_of, recovery_injection};
use crate::verdict::{Call, Change, Reading, Release, State};

/// Numbers that a vector is folded to.
pub const FOLDS: usize = 16;
/// Steps of a fold: folds of a vector of length 1 have deviation 1 over random signs, whatever its dimensions, so 16 bits hold
/// eight of these deviations, in steps that are far finer than any cloud is wide.
const FOLD_STEPS: f32 = 4_096.0;
/// Signs are the same for all, so that vectors folded in one place can be judged in another.
const FOLD_SEED: u64 = 1;
/// Waves.
const WAVES: usize = 64;
/// Vectors that tell centre and scale; then the waves are hung and never moved.
const GEOMETRY_EVENTS: f64 = 1_000.0;
/// Panes whose differences make a covariance of 64 waves that can be inverted, with the ridge below.
const NOISE_PANES_MIN: u32 = 96;
/// Part of the mean variance that is added to every wave's own.
const RIDGE: f64 = 0.3;
/// Length of a wave over the typical distance of two scaled vectors.
const BANDWIDTH: f64 = 1.0;
/// Memory of the two recent means, in panes.
const SPEEDS: [f64; 2] = [4.0, 24.0];
/// Bets, in standard deviations of one event along the direction.
const SIZES: [f64; 4] = [0.12, 0.25, 0.5, 1.2];
const ARMS: usize = SPEEDS.len() * SIZES.len();
const RECOVERY_PARTS: [f64; 3] = [0.0, 0.3, 0.6];
const MERGE_EVENTS: f64 = 20.0;
const MERGE_MS: i64 = 600_000;
const NOISE_LAG: usize = 12;
/// The direction is solved for anew after so many panes.
const REFRESH_PANES: u32 = 16;
const RECENT: usize = 64;
const STARVED_EVENTS_PER_HOUR: f64 = 5.0;
/// Waves by which panes' resemblance over longer times is told.
const LADDERS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingSettings {
    /// Shift that is forgiven, in standard deviations of one event along the direction of the change.
    pub tolerance_sigma: f64,
    /// Decides the random waves; two banks with one seed look alike.
    pub seed: u64,
}

/// A vector folded to 16 numbers by random signs and rounded: all that a bank needs to know of it, in 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Folded([i16; FOLDS]);

impl Default for EmbeddingSettings {
    fn default() -> Self {
        EmbeddingSettings { tolerance_sigma: 0.05, seed: 1 }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingBank {
    settings: EmbeddingSettings,
    dimensions: usize,
    geometry: Geometry,
    /// Events of the open pane and the sums of their waves.
    open: Sums,
    /// (start, length, injection) of sparse panes that wait.
    pending: Option<(i64, i64, f64)>,
    /// Decayed sums of quiet panes.
    quiet: Sums,
    recent: [Vec<f64>; SPEEDS.len()],
    /// Sum of outer products of differences of neighbouring panes, row by row, and their weight.
    covariance: Vec<f64>,
    covariance_weight: f64,
    /// Lower triangle of the factor of the covariance with its ridge.
    factor: Vec<f64>,
    previous: Option<Sums>,
    lagged: VecDeque<Sums>,
    ladders: [Ladder; LADDERS],
    noise_panes: u32,
    evidence: Mixture,
    history: VecDeque<(i64, [f32; ARMS], f32, f32)>,
    held_since_ms: Option<i64>,
    hour: (i64, f64),
    starved: bool,
    frozen: Option<Frozen>,
    /// How far the last pane lay away along the direction that was looked in, in standard deviations of one event.
    shown: Option<f64>,
}

/// Where vectors lie: mean and spread of every fold, and the waves once these are known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Geometry {
    n: f64,
    mean: [f64; FOLDS],
    squares: [f64; FOLDS],
    /// Frequencies, wave by wave, and phases; empty until hung.
    frequencies: Vec<f32>,
    phases: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sums {
    n: f64,
    waves: Vec<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    /// The direction at the alarm, and an event's standard deviation along it.
    direction: Vec<f64>,
    deviation: f64,
    /// Shift that recovery must refute, in standard deviations.
    boundary: f64,
    recovery: Mixture,
    seen: Sums,
    /// Events and sum of shifts since the recovery's pointer.
    since: [f64; 2],
}

// === impl EmbeddingBank ===

impl EmbeddingBank {
    pub fn new(settings: EmbeddingSettings) -> EmbeddingBank {
        EmbeddingBank {
            settings,
            dimensions: 0,
            geometry: Geometry { n: 0.0, mean: [0.0; FOLDS], squares: [0.0; FOLDS], frequencies: Vec::new(), phases: Vec::new() },
            open: Sums::new(),
            pending: None,
            quiet: Sums::new(),
            recent: [vec![0.0; WAVES], vec![0.0; WAVES]],
            covariance: vec![0.0; WAVES * WAVES],
            covariance_weight: 0.0,
            factor: vec![0.0; WAVES * WAVES],
            previous: None,
            lagged: VecDeque::with_capacity(NOISE_LAG + 1),
            ladders: std::array::from_fn(|_| Ladder::default()),
            noise_panes: 0,
            evidence: Mixture::new(ARMS),
            history: VecDeque::with_capacity(RECENT),
            held_since_ms: None,
            hour: (i64::MIN, 0.0),
            starved: false,
            frozen: None,
            shown: None,
        }
    }

    /// Takes one vector into the open pane. False, and nothing is taken, when it is not finite, all zero, or of another length than
    /// the first one: the caller counts it.
    pub fn observe(&mut self, vector: &[f32]) -> bool {
        if self.dimensions != 0 && vector.len() != self.dimensions {
            return false;
        }
        let Some(folded) = Folded::of(vector) else {
            return false;
        };
        self.dimensions = vector.len();
        self.observe_folded(&folded);
        true
    }

    /// The same for a vector that was folded elsewhere; whoever folded it has seen to its dimensions.
    pub fn observe_folded(&mut self, folded: &Folded) {
        let folds = folded.0.map(|x| f32::from(x) / FOLD_STEPS);
        self.open.n += 1.0;
        if self.geometry.frequencies.is_empty() {
            self.geometry.learn(&folds);
        } else {
            self.geometry.add_waves(&folds, &mut self.open.waves);
        }
    }

    /// How far the last pane lay away along the direction that was looked in, in standard deviations of one event; `None` before
    /// anything was compared.
    pub fn shown(&self) -> Option<f64> {
        self.shown
    }

    /// The bank of what follows: it starts from what this one knows of quiet times, with a bounded weight, and forgets its evidence.
    pub fn succeed(&self, events_max: f64) -> EmbeddingBank {
        let mut next = self.clone();
        next.frozen = None;
        if next.quiet.n > events_max {
            let part = events_max / next.quiet.n;
            next.quiet.n *= part;
            next.quiet.waves.iter_mut().for_each(|w| *w *= part);
        }
        next.open.clear();
        next.calm();
        (next.shown, next.hour, next.starved) = (None, (i64::MIN, 0.0), false);
        next
    }

    /// Closes the open pane: judges first, learns after. `injection`: false pages this bank may spend on this pane; 0 gathers no
    /// evidence but learns.
    pub fn judge(&mut self, at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let hour = at_ms.div_euclid(3_600_000);
        if hour != self.hour.0 {
            self.starved = self.hour.0 != i64::MIN && self.hour.1 < STARVED_EVENTS_PER_HOUR;
            self.hour = (hour, 0.0);
        }
        let (start, length, spent) = match self.pending.take() {
            Some((start, _, b)) => (start, at_ms + pane_ms - start, b + injection),
            None => (at_ms, pane_ms, injection),
        };
        if self.open.n <= 0.0 {
            return self.reading(Call::Quiet, injection);
        }
        if self.open.n < MERGE_EVENTS && length < MERGE_MS {
            self.pending = Some((start, length, spent));
            return self.reading(Call::Quiet, injection);
        }
        self.hour.1 += self.open.n;
        if self.geometry.frequencies.is_empty() {
            self.open.clear();
            if self.geometry.n >= GEOMETRY_EVENTS {
                self.geometry.hang_waves(self.settings.seed);
            }
            return self.reading(Call::Quiet, injection);
        }
        let mut pane = std::mem::take(&mut self.open.waves);
        let n = self.open.n;
        pane.iter_mut().for_each(|w| *w /= n);
        let reading = self.judge_pane(&pane, n, start, length, spent);
        self.open.waves = pane;
        self.open.clear();
        reading
    }

    fn judge_pane(&mut self, mean: &[f64], n: f64, at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        if self.frozen.is_some() {
            return self.watch_recovery(mean, n, at_ms, pane_ms);
        }
        let mut sum = 0.0;
        if self.knows_noise() && injection > 0.0 {
            let mut l = [0.0; ARMS];
            let (mut best_shift, phi, t) = ((0.0f64, 0.0f64), self.phi(), self.settings.tolerance_sigma);
            for s in 0..SPEEDS.len() {
                let Some((shift, deviation)) = self.shift_along(s, mean) else {
                    continue;
                };
                let x = shift / deviation;
                if x.abs() > best_shift.0.abs() {
                    best_shift = (x, deviation);
                    self.shown = Some(x.abs());
                }
                // The quiet mean is known only so well.
                let exposure = 1.0 / (phi * (1.0 / n + 1.0 / self.quiet.n));
                for (j, d) in SIZES.iter().enumerate() {
                    let d = d + t;
                    l[s * SIZES.len() + j] = exposure * (x * (d - t) - 0.5 * (d * d - t * t));
                }
            }
            sum = self.evidence.step(&l, injection, at_ms);
            if self.history.len() == RECENT {
                self.history.pop_front();
            }
            self.history.push_back((at_ms, l.map(|l| l as f32), n as f32, best_shift.0 as f32));
            if sum >= 1.0 {
                return self.speak(mean, n, at_ms, pane_ms, injection, sum);
            }
        }
        self.held_since_ms = None;
        for (recent, speed) in self.recent.iter_mut().zip(SPEEDS) {
            for (have, now) in recent.iter_mut().zip(mean) {
                *have += (now - *have) / speed;
            }
        }
        if sum < injection.powf(0.25) || injection <= 0.0 {
            self.learn(mean, n, pane_ms);
        }
        self.reading(Call::Quiet, injection)
    }

    /// History that is not judged.
    pub fn learn_only(&mut self, at_ms: i64, pane_ms: i64) {
        self.judge(at_ms, pane_ms, 0.0);
    }

    pub fn release(&mut self, how: Release) {
        let Some(frozen) = self.frozen.take() else {
            return;
        };
        match how {
            Release::Fixed | Release::Expected => {}
            Release::FalseAlarm => self.quiet.add(&frozen.seen),
            Release::NewNormal => self.quiet = frozen.seen,
        }
        self.calm();
    }

    /// The boundary between history and live: what was found in history is listed, never paged, and evidence starts anew.
    pub fn start_live(&mut self) {
        self.frozen = None;
        self.calm();
    }

    pub fn state(&self) -> State {
        if self.frozen.is_some() {
            State::Frozen
        } else if !self.knows_noise() {
            State::Warming
        } else if self.starved {
            State::Starved
        } else {
            State::Armed
        }
    }

    /// Armed when a shift of a quarter of a standard deviation beyond the tolerance could ever be shown and the noise is known.
    pub fn sees(&self, injection: f64) -> Sees {
        let b = if injection > 0.0 { injection } else { 1e-9 };
        let wanted = 2.0 * (-b.ln() + (ARMS as f64).ln()) / (0.25f64 * 0.25 / 2.0) * self.phi();
        Sees { armed: self.knows_noise() && self.quiet.n >= wanted, needs_events: (wanted - self.quiet.n).max(0.0) }
    }

    pub fn reset(&mut self) {
        *self = EmbeddingBank::new(self.settings);
    }

    // --- the recipe, step by step ---

    fn calm(&mut self) {
        self.evidence.clear();
        self.history.clear();
        self.lagged.clear();
        self.previous = None;
        self.held_since_ms = None;
        self.pending = None;
        for recent in &mut self.recent {
            for (have, quiet) in recent.iter_mut().zip(&self.quiet.waves) {
                *have = quiet / self.quiet.n.max(1.0);
            }
        }
    }

    fn knows_noise(&self) -> bool {
        self.noise_panes >= NOISE_PANES_MIN
    }

    fn phi(&self) -> f64 {
        self.ladders.iter().map(Ladder::phi).fold(1.0, f64::max)
    }

    /// Shift of a pane along the direction learned at one speed, and the standard deviation of one event along it.
    fn shift_along(&self, speed: usize, mean: &[f64]) -> Option<(f64, f64)> {
        let mut v = [0.0; WAVES];
        for (w, v) in v.iter_mut().enumerate() {
            *v = self.recent[speed][w] - self.quiet.waves[w] / self.quiet.n;
        }
        self.solve(&mut v);
        let deviation = self.variance(&v).sqrt();
        if deviation <= 1e-9 {
            return None;
        }
        let shift: f64 = v.iter().enumerate().map(|(w, v)| v * (mean[w] - self.quiet.waves[w] / self.quiet.n)).sum();
        Some((shift, deviation))
    }

    /// v S v, with S the covariance of one event.
    fn variance(&self, v: &[f64]) -> f64 {
        let weight = self.covariance_weight.max(1.0);
        v.iter().enumerate().map(|(i, a)| a * self.covariance[i * WAVES..(i + 1) * WAVES].iter().zip(v).map(|(c, b)| c * b).sum::<f64>()).sum::<f64>()
            / weight
    }

    /// Replaces v by (S + ridge)^-1 v.
    fn solve(&self, v: &mut [f64; WAVES]) {
        let f = &self.factor;
        for i in 0..WAVES {
            let below: f64 = (0..i).map(|k| f[i * WAVES + k] * v[k]).sum();
            v[i] = (v[i] - below) / f[i * WAVES + i];
        }
        for i in (0..WAVES).rev() {
            let above: f64 = (i + 1..WAVES).map(|k| f[k * WAVES + i] * v[k]).sum();
            v[i] = (v[i] - above) / f[i * WAVES + i];
        }
    }

    /// Cholesky's factor of the covariance with its ridge.
    fn refresh(&mut self) {
        let weight = self.covariance_weight.max(1.0);
        let ridge = (RIDGE * (0..WAVES).map(|i| self.covariance[i * WAVES + i]).sum::<f64>() / WAVES as f64 / weight).max(1e-6);
        for i in 0..WAVES {
            for j in 0..=i {
                let mut s = self.covariance[i * WAVES + j] / weight + if i == j { ridge } else { 0.0 };
                for k in 0..j {
                    s -= self.factor[i * WAVES + k] * self.factor[j * WAVES + k];
                }
                self.factor[i * WAVES + j] = if i == j { s.max(1e-9).sqrt() } else { s / self.factor[j * WAVES + j] };
            }
        }
    }

    fn learn(&mut self, mean: &[f64], n: f64, pane_ms: i64) {
        let fade = decay(pane_ms);
        self.quiet.n = self.quiet.n * fade + n;
        for (have, now) in self.quiet.waves.iter_mut().zip(mean) {
            *have = *have * fade + n * now;
        }
        // The memory of the oldest is used again.
        let mut newest = if self.lagged.len() > NOISE_LAG { self.lagged.pop_front() } else { None }.unwrap_or_else(Sums::new);
        newest.n = n;
        newest.waves.copy_from_slice(mean);
        self.lagged.push_back(newest);
        if self.lagged.len() <= NOISE_LAG {
            return;
        }
        let pane = &self.lagged[0];
        if let Some(last) = &self.previous {
            let weight = 1.0 / (1.0 / pane.n + 1.0 / last.n);
            self.covariance_weight = self.covariance_weight * 0.9995 + 1.0;
            for i in 0..WAVES {
                let a = pane.waves[i] - last.waves[i];
                for j in 0..WAVES {
                    let c = &mut self.covariance[i * WAVES + j];
                    *c = *c * 0.9995 + weight * a * (pane.waves[j] - last.waves[j]);
                }
            }
        }
        let weight = self.covariance_weight;
        for (w, ladder) in self.ladders.iter_mut().enumerate() {
            if weight >= 24.0 {
                ladder.feed((pane.waves[w] - self.quiet.waves[w] / self.quiet.n) * pane.n, pane.n, self.covariance[w * WAVES + w] / weight);
            }
        }
        match &mut self.previous {
            Some(last) => {
                last.n = pane.n;
                last.waves.copy_from_slice(&pane.waves);
            }
            None => self.previous = Some(pane.clone()),
        }
        self.noise_panes = self.noise_panes.saturating_add(1);
        if self.noise_panes.is_multiple_of(REFRESH_PANES) {
            self.refresh();
        }
    }

    fn speak(&mut self, mean: &[f64], n: f64, at_ms: i64, pane_ms: i64, injection: f64, sum: f64) -> Reading {
        let arm = self.evidence.best();
        let newest_first = self.history.iter().rev().map(|(at, l, _, _)| (*at, f64::from(l[arm])));
        let onset = onset_of(newest_first, self.evidence.start_of(arm), pane_ms);
        let (log_evidence, threshold) = nats(sum, injection);
        let (mut events, mut shift) = (0.0, 0.0);
        for (_, _, n, x) in self.history.iter().filter(|h| h.0 >= onset.at_ms) {
            events += f64::from(*n);
            shift += f64::from(*n) * f64::from(*x);
        }
        let size = shift / f64::max(events, 1.0);
        let half = 1.96 * (self.phi() / f64::max(events, 1.0)).sqrt();
        let change = Change { before: 0.0, after: size, low: (size - half).max(0.0), high: size + half };
        if size <= self.settings.tolerance_sigma {
            let held = *self.held_since_ms.get_or_insert(at_ms);
            if at_ms - held >= super::HELD_RESET_MS {
                self.calm();
            }
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Held { change, why: "the shift is within tolerance" } };
        }
        let mut direction = [0.0; WAVES];
        for (w, v) in direction.iter_mut().enumerate() {
            *v = self.recent[arm / SIZES.len()][w] - self.quiet.waves[w] / self.quiet.n;
        }
        self.solve(&mut direction);
        let deviation = self.variance(&direction).sqrt().max(1e-9);
        let mut seen = Sums { n, waves: mean.to_vec() };
        seen.waves.iter_mut().for_each(|w| *w *= n);
        let boundary = (0.5 * size).max(1.5 * self.settings.tolerance_sigma);
        self.calm();
        self.frozen =
            Some(Frozen { direction: direction.to_vec(), deviation, boundary, recovery: Mixture::new(RECOVERY_PARTS.len()), seen, since: [0.0; 2] });
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }
    }

    /// "Still moved by the boundary along the direction of the alarm" against places on the good side of it.
    fn watch_recovery(&mut self, mean: &[f64], n: f64, at_ms: i64, pane_ms: i64) -> Reading {
        let injection = recovery_injection(pane_ms);
        let phi = self.phi();
        let Some(frozen) = self.frozen.as_mut() else {
            return self.reading(Call::Quiet, injection);
        };
        frozen.seen.n += n;
        for (have, now) in frozen.seen.waves.iter_mut().zip(mean) {
            *have += n * now;
        }
        let shift: f64 = frozen.direction.iter().enumerate().map(|(w, v)| v * (mean[w] - self.quiet.waves[w] / self.quiet.n)).sum();
        let (x, c) = (shift / frozen.deviation, frozen.boundary);
        self.shown = Some(x);
        let exposure = 1.0 / (phi * (1.0 / n + 1.0 / self.quiet.n));
        let l = RECOVERY_PARTS.map(|part| {
            let m = part * c;
            exposure * (x * (m - c) - 0.5 * (m * m - c * c))
        });
        let sum = frozen.recovery.step(&l, injection, at_ms);
        if frozen.recovery.is_idle() {
            frozen.since = [0.0; 2];
        } else {
            frozen.since = [frozen.since[0] + n, frozen.since[1] + n * x];
        }
        let (log_evidence, threshold) = nats(sum, injection);
        let after = frozen.since[1] / frozen.since[0].max(1.0);
        if sum >= 1.0 && after < c {
            let half = 1.96 * (phi / frozen.since[0].max(1.0)).sqrt();
            self.frozen = None;
            self.calm();
            let change = Change { before: 0.0, after, low: after - half, high: after + half };
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Recovered { change } };
        }
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }
    }

    fn reading(&self, call: Call, injection: f64) -> Reading {
        let sum = self.frozen.as_ref().map_or(self.evidence.sum(), |f| f.recovery.sum());
        let (log_evidence, threshold) = nats(sum, injection);
        Reading { state: self.state(), log_evidence, threshold, call }
    }
}

// === impl Sums ===

impl Sums {
    fn new() -> Sums {
        Sums { n: 0.0, waves: vec![0.0; WAVES] }
    }

    fn clear(&mut self) {
        self.n = 0.0;
        self.waves.fill(0.0);
    }

    fn add(&mut self, other: &Sums) {
        self.n += other.n;
        self.waves.iter_mut().zip(&other.waves).for_each(|(a, b)| *a += b);
    }
}

// === impl Geometry ===

impl Geometry {
    fn learn(&mut self, folds: &[f32; FOLDS]) {
        self.n += 1.0;
        for (j, x) in folds.iter().enumerate() {
            let x = f64::from(*x);
            let d = x - self.mean[j];
            self.mean[j] += d / self.n;
            self.squares[j] += d * (x - self.mean[j]);
        }
    }

    /// Frequencies are normal with the inverse of the typical distance, sqrt(2 folds) scaled units, as deviation.
    fn hang_waves(&mut self, seed: u64) {
        let mut unit = {
            let mut i = 0;
            move || {
                i += 1;
                (mix(seed ^ 0x5eed ^ (i << 20)) >> 11) as f64 / (1u64 << 53) as f64
            }
        };
        let length = BANDWIDTH * (2.0 * FOLDS as f64).sqrt();
        let scale: [f64; FOLDS] = std::array::from_fn(|j| (self.squares[j] / self.n.max(1.0)).sqrt().max(1e-6));
        for _ in 0..WAVES {
            for s in scale {
                self.frequencies.push((normal_quantile(unit()) / length / s) as f32);
            }
            self.phases.push((std::f64::consts::TAU * unit()) as f32);
        }
    }

    fn add_waves(&self, folds: &[f32; FOLDS], sums: &mut [f64]) {
        let centred: [f32; FOLDS] = std::array::from_fn(|j| folds[j] - self.mean[j] as f32);
        for ((sum, row), phase) in sums.iter_mut().zip(self.frequencies.chunks_exact(FOLDS)).zip(&self.phases) {
            let angle: f32 = row.iter().zip(&centred).map(|(w, x)| w * x).sum::<f32>() + phase;
            *sum += f64::from(angle.cos());
        }
    }
}

// === impl Folded ===

impl Folded {
    /// `None` when the vector is not finite or all zero: it has no direction. Directions are compared, not lengths: that is how
    /// embeddings are used.
    pub fn of(vector: &[f32]) -> Option<Folded> {
        let square: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        if !square.is_finite() || square <= 0.0 {
            return None;
        }
        let folds = fold(vector, FOLD_SEED, (1.0 / square.sqrt()) as f32);
        // A cast from float to integer stops at the ends of the range.
        Some(Folded(folds.map(|x| (x * FOLD_STEPS).round() as i16)))
    }
}

/// 16 sums of the coordinates with random signs, from one hash per coordinate: no matrix is kept.
fn fold(vector: &[f32], seed: u64, scale: f32) -> [f32; FOLDS] {
    let mut out = [0.0f32; FOLDS];
    for (i, x) in vector.iter().enumerate() {
        let bits = mix(seed.wrapping_add(i as u64));
        let x = (x * scale).to_bits();
        for (j, out) in out.iter_mut().enumerate() {
            // The sign is turned by its bit.
            *out += f32::from_bits(x ^ (((bits >> j) as u32 & 1) << 31));
        }
    }
    out
}

/// Splitmix64 (Steele, Lea and Flood 2014).
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    const PANE: i64 = 10_000;

    /// Three topics in 24 dimensions; `strange`: the part that belongs to a fourth; `spread`: of the noise around them.
    struct Cloud {
        noise: Noise,
        topics: Vec<Vec<f64>>,
    }

    impl Cloud {
        fn new(seed: u64) -> Cloud {
            let mut noise = Noise::new(seed);
            let topics = (0..4).map(|_| (0..24).map(|_| noise.normal()).collect()).collect();
            Cloud { noise, topics }
        }

        fn vector(&mut self, strange: f64, spread: f64) -> Vec<f32> {
            let topic = if self.noise.unit() < strange { 3 } else { (self.noise.unit() * 3.0) as usize };
            let noise = &mut self.noise;
            self.topics[topic].iter().map(|x| (2.0 + x + 0.5 * spread * noise.normal()) as f32).collect()
        }
    }

    fn run(bank: &mut EmbeddingBank, cloud: &mut Cloud, t: &mut i64, strange: f64, spread: f64, b: f64, panes: usize) -> (usize, Call) {
        for i in 1..=panes {
            for _ in 0..40 {
                assert!(bank.observe(&cloud.vector(strange, spread)));
            }
            let r = bank.judge(*t, PANE, b);
            *t += PANE;
            if !matches!(r.call, Call::Quiet) {
                return (i, r.call);
            }
        }
        (panes, Call::Quiet)
    }

    #[test]
    fn quiet_vectors_stay_within_the_budget() {
        let (mut pages, series, panes) = (0, 20, 400);
        for seed in 0..series {
            let mut cloud = Cloud::new(20 + seed);
            let mut bank = EmbeddingBank::new(EmbeddingSettings { seed, ..EmbeddingSettings::default() });
            let mut t = 0;
            run(&mut bank, &mut cloud, &mut t, 0.0, 1.0, 0.0, 200);
            assert_eq!(bank.state(), State::Armed);
            let (_, call) = run(&mut bank, &mut cloud, &mut t, 0.0, 1.0, 6.0 / (series as usize * panes) as f64, panes);
            pages += usize::from(matches!(call, Call::Alarm { .. }));
        }
        println!("{pages} pages of 6");
        assert!(pages <= 6, "{pages}");
    }

    #[test]
    fn a_new_topic_and_a_wider_cloud_are_found_and_recover() {
        for (strange, spread) in [(0.2, 1.0), (0.0, 1.6)] {
            let mut cloud = Cloud::new(3);
            let mut bank = EmbeddingBank::new(EmbeddingSettings::default());
            let mut t = 0;
            assert_eq!(run(&mut bank, &mut cloud, &mut t, 0.0, 1.0, 1e-6, 500).1, Call::Quiet);
            for _ in 0..2 {
                let began = t;
                let (panes, call) = run(&mut bank, &mut cloud, &mut t, strange, spread, 1e-6, 60);
                let Call::Alarm { change, onset } = call else { panic!("{call:?}") };
                println!("strange {strange}, spread {spread}: {panes} panes, {change:?}");
                assert!(panes <= 30 && change.after > 0.2, "{panes} {change:?}");
                assert!(onset.from_ms <= began && began <= onset.to_ms + 3 * PANE, "{began} {onset:?}");
                assert_eq!(run(&mut bank, &mut cloud, &mut t, strange, spread, 1e-6, 500).1, Call::Quiet, "no recovery while it lasts");
                let (panes, call) = run(&mut bank, &mut cloud, &mut t, 0.0, 1.0, 1e-6, 200);
                assert!(matches!(call, Call::Recovered { .. }) && panes <= 100, "{panes} {call:?}");
                assert_eq!(run(&mut bank, &mut cloud, &mut t, 0.0, 1.0, 1e-6, 300).1, Call::Quiet);
            }
        }
    }

    #[test]
    fn what_is_no_vector_is_refused_and_a_copy_goes_on_the_same() {
        let mut cloud = Cloud::new(4);
        let mut bank = EmbeddingBank::new(EmbeddingSettings::default());
        let mut t = 0;
        run(&mut bank, &mut cloud, &mut t, 0.0, 1.0, 1e-6, 200);
        for bad in [vec![0.0; 24], vec![1.0; 23], vec![f32::NAN; 24], vec![f32::INFINITY; 24], vec![]] {
            assert!(!bank.observe(&bad));
        }
        let mut twin = bank.clone();
        for _ in 0..50 {
            let v = cloud.vector(0.5, 1.0);
            assert!(bank.observe(&v) && twin.observe(&v));
        }
        assert_eq!(bank.judge(t, PANE, 1e-6), twin.judge(t, PANE, 1e-6));
        assert_eq!(bank, twin);
    }

    #[test]
    fn vectors_that_are_all_alike_do_no_harm_and_a_change_is_seen() {
        let mut bank = EmbeddingBank::new(EmbeddingSettings::default());
        let mut found = None;
        for i in 0..500 {
            for _ in 0..50 {
                assert!(bank.observe(if i < 400 { &[1.0, 0.0, 0.5] } else { &[0.0, 1.0, 0.5] }));
            }
            let r = bank.judge(i * PANE, PANE, 1e-6);
            assert!(r.log_evidence.is_finite());
            if matches!(r.call, Call::Alarm { .. }) && found.is_none() {
                found = Some(i);
            }
        }
        println!("all alike: found {found:?}");
        assert!(found.is_some_and(|i| (400..440).contains(&i)), "{found:?}");
    }
}
