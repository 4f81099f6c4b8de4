//! What came in lately, the finer the younger: from it the onset of a change is told.
//!
//! The everyday picture is memory itself: yesterday in hours, last year in seasons. A change found after seven panes began within
//! them, and one found after a thousand panes need not be dated to the pane. So neighbours are merged once both together last no
//! longer than a third of their age (of rates: once there are six as long as one another); 48 steps then reach back some ten thousand panes.
//! The road not taken is a ring of the last panes: at 10 events a pane a doubling of a rare error takes a thousand of them, and none of 40 holds its
//! beginning.

use serde::{Deserialize, Serialize};

use crate::ahead::ask_for;
use crate::verdict::Onset;

pub const STEPS_MAX: usize = 48;
/// Length of a step to its age, at most one to this.
const AGE_PER_LENGTH: u64 = 3;

/// Rates that a change may lead to, evenly in log odds up to the far one.
const RATES: usize = 64;
const LOGIT_FAR: f64 = 12.0;

/// Numbers of a row: classes and what was learned of them are the most.
const WIDTH_MAX: usize = 34;

/// A count up to 2^31 in two bytes: below 4,096 as it is, beyond to one in 4,096, which is less than any such count varies by. Eleven
/// bits of fraction and five of exponent, 0 is nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count(u16);

impl Count {
    /// Bits of a fraction that are not kept, and what the exponent of 1 is less than that of an f32.
    const CUT: u32 = 12;
    const BIAS: u32 = 126 << 11;

    #[inline]
    fn keep(x: f32) -> Count {
        if x < 1.0 {
            return Count(0);
        }
        Count((((x.to_bits() + (1 << (Self::CUT - 1))) >> Self::CUT) - Self::BIAS).min(u32::from(u16::MAX)) as u16)
    }
    #[inline]
    fn number(self) -> f32 {
        if self.0 == 0 { 0.0 } else { f32::from_bits((u32::from(self.0) + Self::BIAS) << Self::CUT) }
    }
}

/// Sums over stretches of time, oldest first: a row of so many numbers each, all of which add up. It takes memory once, with the
/// first row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// Time from the start of each row to that of the next.
    lengths_ms: Vec<u32>,
    sums: Vec<Count>,
    width: usize,
    /// Start of the newest row.
    newest_ms: i64,
}

/// A row with its start and length; after its numbers come zeros.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    pub start_ms: i64,
    pub length_ms: i64,
    pub sums: [f32; WIDTH_MAX],
}

impl Rows {
    /// A new row. All rows have the width of the first one since they were cleared.
    pub fn push(&mut self, numbers: impl ExactSizeIterator<Item = f32>, at_ms: i64, pane_ms: i64) {
        if self.lengths_ms.is_empty() {
            let width = numbers.len().min(WIDTH_MAX);
            self.width = width;
            self.lengths_ms.reserve_exact(STEPS_MAX.saturating_sub(self.lengths_ms.capacity()));
            self.sums.reserve_exact((STEPS_MAX * width).saturating_sub(self.sums.capacity()));
        }
        if let Some(last) = self.lengths_ms.last_mut() {
            *last = u32::try_from((at_ms - self.newest_ms).max(0)).unwrap_or(u32::MAX);
        }
        if self.lengths_ms.len() >= STEPS_MAX {
            self.coarsen();
        }
        self.lengths_ms.push(u32::try_from(pane_ms.max(0)).unwrap_or(u32::MAX));
        self.newest_ms = at_ms;
        let end = self.sums.len() + self.width;
        self.sums.extend(numbers.take(self.width).map(Count::keep));
        self.sums.resize(end, Count::keep(0.0));
    }

    /// Asks for the memory of the newest row and the next one.
    #[inline]
    pub fn ask_for_end(&self) {
        let (row, len) = (self.sums.len(), self.lengths_ms.len());
        if row > 0 {
            ask_for(&self.sums[row - self.width]);
            ask_for(&self.sums[row - 1]);
            ask_for(&self.lengths_ms[len - 1]);
        }
    }

    pub fn clear(&mut self) {
        self.lengths_ms.clear();
        self.sums.clear();
    }

    pub fn len(&self) -> usize {
        self.lengths_ms.len()
    }

    pub fn newest_first(&self) -> impl Iterator<Item = Row> {
        let mut start_ms = self.newest_ms;
        let rows = self.lengths_ms.iter().zip(self.sums.chunks_exact(self.width.max(1))).rev();
        rows.enumerate().map(move |(age, (length, sums))| {
            let length_ms = i64::from(*length);
            if age > 0 {
                start_ms -= length_ms;
            }
            let mut row = Row { start_ms, length_ms, sums: [0.0; WIDTH_MAX] };
            for (into, kept) in row.sums.iter_mut().zip(sums) {
                *into = kept.number();
            }
            row
        })
    }

    fn coarsen(&mut self) {
        let width = self.width;
        let mut age: u64 = self.lengths_ms.iter().map(|l| u64::from(*l)).sum();
        let (mut kept, mut next) = (0, 0);
        while next < self.lengths_ms.len() {
            let mut length = self.lengths_ms[next];
            if kept < next {
                self.sums.copy_within(next * width..(next + 1) * width, kept * width);
            }
            next += 1;
            if let Some(second) = self.lengths_ms.get(next) {
                let both = u64::from(length) + u64::from(*second);
                if both * AGE_PER_LENGTH <= age.saturating_sub(both) {
                    length = u32::try_from(both).unwrap_or(u32::MAX);
                    let (into, from) = self.sums.split_at_mut(next * width);
                    for (sum, more) in into[kept * width..].iter_mut().zip(&from[..width]) {
                        *sum = Count::keep(sum.number() + more.number());
                    }
                    next += 1;
                }
            }
            age = age.saturating_sub(u64::from(length));
            self.lengths_ms[kept] = length;
            kept += 1;
        }
        // Nothing was old enough to merge: the oldest are forgotten, several at once, so that this stays rare.
        if kept >= STEPS_MAX {
            self.lengths_ms.copy_within(4.., 0);
            self.sums.copy_within(4 * width.., 0);
            kept = kept.min(STEPS_MAX) - 4;
        }
        self.lengths_ms.truncate(kept);
        self.sums.truncate(kept * width);
    }

    /// See `explained`.
    pub fn explain(
        &self,
        alternatives: usize,
        pointer_ms: i64,
        pane_ms: i64,
        add: impl FnMut(&Row, &mut [f64]),
        first: impl FnMut(&Row, &mut [f64]),
    ) -> (Onset, Vec<f64>) {
        explained(self.newest_first(), self.len(), alternatives, pointer_ms, pane_ms, add, first)
    }
}

/// When one of several alternatives began, if it lasts until now, and the weight of each alternative over all starts.
///
/// Each start is as likely beforehand, and so is each alternative. `add` adds to the nats of every alternative what one row says.
/// The onset is the likeliest start and its interval holds the middle of the weight. `first` tells the nats of the row in which the
/// change comes, of which only a part may be changed: as a whole it would make changes smaller, and a large one denies that it came
/// in such a row at all. `pointer_ms` answers when nothing is remembered.
fn explained(
    rows: impl Iterator<Item = Row>,
    len: usize,
    alternatives: usize,
    pointer_ms: i64,
    pane_ms: i64,
    mut add: impl FnMut(&Row, &mut [f64]),
    mut first: impl FnMut(&Row, &mut [f64]),
) -> (Onset, Vec<f64>) {
    let mut begun = vec![0.0; alternatives];
    let mut nats = vec![0.0; alternatives];
    // Weight of each alternative over all starts so far, in units of exp(scale).
    let (mut weights, mut scale) = (vec![0.0f64; alternatives], f64::NEG_INFINITY);
    // Newest first: start, length, weight of the start in nats.
    let mut starts: Vec<(i64, i64, f64)> = Vec::with_capacity(len);
    for row in rows {
        begun.copy_from_slice(&nats);
        first(&row, &mut begun);
        add(&row, &mut nats);
        // A long step stands for as many starts as it has panes.
        let panes = (row.length_ms as f64 / pane_ms.max(1) as f64).max(1.0).ln();
        let most = begun.iter().fold(f64::NEG_INFINITY, |m, l| m.max(*l)) + panes;
        if most > scale {
            let shrink = (scale - most).exp();
            weights.iter_mut().for_each(|w| *w *= shrink);
            scale = most;
        }
        for (weight, l) in weights.iter_mut().zip(&begun) {
            *weight += (l + panes - scale).exp();
        }
        let most = begun.iter().fold(f64::NEG_INFINITY, |m, l| m.max(*l));
        let all: f64 = begun.iter().map(|l| (l - most).exp()).sum();
        starts.push((row.start_ms, row.length_ms, most + panes + all.ln()));
    }
    (dated(&starts, pointer_ms, pane_ms), weights)
}

/// The onset and its interval from the starts, newest first, each with its length and weight in nats.
fn dated(starts: &[(i64, i64, f64)], pointer_ms: i64, pane_ms: i64) -> Onset {
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
    // The change comes inside a pane, and its first part alone may not show: half a pane on both sides.
    Onset { at_ms: at, from_ms: from.min(at) - pane_ms / 2, to_ms: to.max(at) + pane_ms / 2 }
}

/// Parts of the first pane that may be changed, each as likely.
pub const PARTS: [f64; 3] = [1.0 / 6.0, 0.5, 5.0 / 6.0];

/// ln of the mean likelihood over those parts.
pub fn over_parts(nats: [f64; PARTS.len()]) -> f64 {
    let most = nats.iter().fold(f64::NEG_INFINITY, |m, l| m.max(*l));
    most + (nats.iter().map(|l| (l - most).exp()).sum::<f64>() / PARTS.len() as f64).ln()
}

/// Where so much of the weight lies below, as a place among the weights: 2.5 is the middle of the third.
pub fn place_of(weights: &[f64], level: f64) -> f64 {
    let total: f64 = weights.iter().sum();
    let mut below = 0.0;
    for (j, w) in weights.iter().enumerate() {
        let share = w / total.max(1e-300);
        if below + share >= level {
            return j as f64 + ((level - below) / share.max(1e-12)).clamp(0.0, 1.0);
        }
        below += share;
    }
    weights.len() as f64 - 0.5
}

/// Steps that are as long as one another before two become one twice as long, and lengths of steps: 1, 2, 4 panes and so on.
const STEPS_EACH: usize = 6;
const LENGTHS: usize = 11;

/// Two counts over a stretch of time, already divided by the resemblance within panes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Step {
    /// Time to the start of the next.
    length_ms: u32,
    hits: f32,
    total: f32,
    /// Of the total, what was learned.
    learned: f32,
}

/// What came in during a stretch of time, and of the total what was learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    pub start_ms: i64,
    pub hits: f64,
    pub total: f64,
    pub learned: f64,
}

/// Steps of two counts in one place of memory, of which a pane mostly touches the first: five or six steps of each length, so that a step is
/// about a fifth of its age long, and ten thousand panes altogether.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[repr(C)]
pub struct Trail {
    newest_ms: i64,
    kept: [u8; LENGTHS],
    /// Oldest first in each length, the shortest and youngest lengths first.
    steps: [[Step; STEPS_EACH]; LENGTHS],
}

impl Default for Trail {
    fn default() -> Self {
        Trail { newest_ms: 0, kept: [0; LENGTHS], steps: [[Step::default(); STEPS_EACH]; LENGTHS] }
    }
}

impl Trail {
    #[inline]
    pub fn push(&mut self, hits: f64, total: f64, learned: f64, at_ms: i64, pane_ms: i64) {
        let whole = |ms: i64| u32::try_from(ms.max(0)).unwrap_or(u32::MAX);
        if let Some(last) = usize::from(self.kept[0]).checked_sub(1) {
            self.steps[0][last].length_ms = whole(at_ms - self.newest_ms);
        }
        self.newest_ms = at_ms;
        let mut step = Step { length_ms: whole(pane_ms), hits: hits as f32, total: total as f32, learned: learned as f32 };
        for (kept, steps) in self.kept.iter_mut().zip(&mut self.steps) {
            if let Some(free) = steps.get_mut(usize::from(*kept)) {
                *free = step;
                *kept += 1;
                return;
            }
            let (one, other) = (steps[0], steps[1]);
            steps.copy_within(2.., 0);
            steps[STEPS_EACH - 2] = step;
            *kept = STEPS_EACH as u8 - 1;
            step = Step {
                length_ms: one.length_ms.saturating_add(other.length_ms),
                hits: one.hits + other.hits,
                total: one.total + other.total,
                learned: one.learned + other.learned,
            };
        }
        // What comes out of the longest is forgotten.
    }

    pub fn clear(&mut self) {
        self.kept = [0; LENGTHS];
    }

    fn len(&self) -> usize {
        self.kept.iter().map(|kept| usize::from(*kept)).sum()
    }

    fn newest_first(&self) -> impl Iterator<Item = Row> {
        let mut start_ms = self.newest_ms;
        let steps = self.kept.iter().zip(&self.steps).flat_map(|(kept, steps)| steps[..usize::from(*kept)].iter().rev());
        steps.enumerate().map(move |(age, step)| {
            let length_ms = i64::from(step.length_ms);
            if age > 0 {
                start_ms -= length_ms;
            }
            let mut row = Row { start_ms, length_ms, sums: [0.0; WIDTH_MAX] };
            [row.sums[0], row.sums[1], row.sums[2]] = [step.hits, step.total, step.learned];
            row
        })
    }

    /// What came in since a time, by whole steps.
    pub fn since(&self, start_ms: i64) -> impl Iterator<Item = Stretch> {
        let rows = self.newest_first().take_while(move |row| row.start_ms + row.length_ms > start_ms);
        rows.map(|row| {
            let [hits, total, learned] = [0, 1, 2].map(|number| f64::from(row.sums[number]));
            Stretch { start_ms: row.start_ms, hits, total, learned }
        })
    }

    /// So much of what was not learned has been after all, the newest first.
    pub fn learn(&mut self, total: f64) {
        let mut left = total as f32;
        for (kept, steps) in self.kept.iter().zip(&mut self.steps) {
            for step in steps[..usize::from(*kept)].iter_mut().rev() {
                let part = (step.total - step.learned).clamp(0.0, left);
                step.learned += part;
                left -= part;
            }
        }
    }

    /// When a rate other than `before` began, if it lasts until now, and how large it is: its 2.5, 50 and 97.5 % points.
    ///
    /// Each log odds on the side of the change is as likely beforehand. Since the size is told over all starts, the luck that made the
    /// alarm come just then weighs less in it than in a count from the best start on. `phi`: how much noisier panes are than
    /// independent events.
    pub fn onset(&self, before: f64, up: bool, phi: f64, pointer_ms: i64, pane_ms: i64) -> (Onset, [f64; 3]) {
        let rates = Rates::new(before, up, phi);
        let add = |row: &Row, nats: &mut [f64]| rates.add(f64::from(row.sums[0]), f64::from(row.sums[1]), nats);
        let (onset, weights) = explained(self.newest_first(), self.len(), RATES, pointer_ms, pane_ms, add, add);
        (onset, rates.points(&weights))
    }
}

/// Alternatives to a rate on one side of it, evenly in log odds.
pub struct Rates {
    logit: f64,
    far: f64,
    /// Nats of a hit and of a miss.
    bets: [(f64, f64); RATES],
    /// The same of a mixture with what was before, in each of the parts.
    mixed: [[(f64, f64); PARTS.len()]; RATES],
}

impl Rates {
    pub const LEN: usize = RATES;

    pub fn new(before: f64, up: bool, phi: f64) -> Rates {
        let p = before.clamp(1e-9, 1.0 - 1e-9);
        let logit = (p / (1.0 - p)).ln();
        let far = if up { LOGIT_FAR.max(logit + 1.0) } else { (-LOGIT_FAR).min(logit - 1.0) };
        let bet = |q: f64| ((q / p).ln() / phi, ((1.0 - q) / (1.0 - p)).ln() / phi);
        let bets = std::array::from_fn(|j| bet(Self::rate(logit, far, j as f64 + 0.5)));
        let mixed = std::array::from_fn(|j| PARTS.map(|part| bet(p + part * (Self::rate(logit, far, j as f64 + 0.5) - p))));
        Rates { logit, far, bets, mixed }
    }

    fn rate(logit: f64, far: f64, place: f64) -> f64 {
        1.0 / (1.0 + (-(logit + (far - logit) * place / RATES as f64)).exp())
    }

    /// Adds the nats of a stretch of time.
    pub fn add(&self, hits: f64, total: f64, nats: &mut [f64]) {
        for (sum, (hit, miss)) in nats.iter_mut().zip(&self.bets) {
            *sum += hits * hit + (total - hits) * miss;
        }
    }

    /// Adds the nats of the pane in which the change comes.
    pub fn add_first(&self, hits: f64, total: f64, nats: &mut [f64]) {
        for (sum, bets) in nats.iter_mut().zip(&self.mixed) {
            *sum += over_parts(bets.map(|(hit, miss)| hits * hit + (total - hits) * miss));
        }
    }

    /// The 2.5, 50 and 97.5 % points under these weights, between the log odds of neighbours evenly.
    pub fn points(&self, weights: &[f64]) -> [f64; 3] {
        let [a, middle, b] = [0.025, 0.5, 0.975].map(|level| Self::rate(self.logit, self.far, place_of(weights, level)));
        [a.min(b), middle, a.max(b)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    #[test]
    fn counts_in_two_bytes_are_those_that_came() {
        assert_eq!(size_of::<Count>(), 2);
        for x in (0..=4_096).map(|x| x as f32) {
            assert_eq!(Count::keep(x).number(), x);
        }
        for x in [4_097.0, 70_001.0, 1e6, 123_456_789.0, 2.1e9] {
            assert!((Count::keep(x).number() / x - 1.0).abs() <= 1.0 / 4_096.0, "{x}");
        }
        assert!(Count::keep(1e12).number() > 2.1e9 && Count::keep(-1.0).number() == 0.0);
    }

    #[test]
    fn it_remembers_all_counts_and_dates_a_change_after_thousands_of_panes() {
        let mut noise = Noise::new(1);
        let mut trail = Trail::default();
        let (mut hits, mut total) = (0.0, 0.0);
        let mut seen_since = 0.0;
        for i in 0..6_000i64 {
            let h = f64::from(noise.binomial(10, if i < 4_000 { 0.01 } else { 0.02 }));
            trail.push(h, 10.0, 10.0, i * 1_000, 1_000);
            hits += h;
            total += 10.0;
            if i >= 4_000 {
                seen_since += h;
            }
        }
        assert!(trail.len() <= STEPS_EACH * LENGTHS && trail.len() > 3 * (LENGTHS - 2));
        let sums = |start_ms: i64| trail.since(start_ms).fold((0.0, 0.0), |(hits, total), of| (hits + of.hits, total + of.total));
        assert_eq!(sums(i64::MIN), (hits, total));
        let (onset, [low, middle, high]) = trail.onset(0.01, true, 1.0, 0, 1_000);
        assert!(onset.from_ms <= 4_000_000 && 4_000_000 <= onset.to_ms, "{onset:?}");
        assert!(low < 0.02 && 0.02 < high && (0.017..0.023).contains(&middle), "{low} {middle} {high}");
        let (h, n) = sums(4_000_000);
        assert!((20_000.0..25_000.0).contains(&n) && h / n > 0.016 && h >= seen_since, "{h} of {n}");
    }
}
