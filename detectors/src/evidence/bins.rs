//! Values of any shape: latency, tokens, cost, scores, features.
//!
//! **Idea.** The baseline's own quantiles cut the line into bins, so that any continuous law looks the same: normal scores. What
//! comes in is judged against the Dirichlet-multinomial predictive of the quiet counts, moved by the tolerance. **Alternatives**
//! are shifts of the normal scores both ways, stretched upper tails, and Dirichlet(1/2), which reaches everything. **Sees** shifts
//! beyond the tolerance (0.1 sigma is about 6 % of a latency's median) and tails that grow while the median stays; does not see
//! changes that keep all quantiles. **False alarms**: as for rates; every alternative lies beyond the tolerance, since one inside
//! it would make evidence from nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::recovery_injection;
use super::{Band, Ladder, Mixture, NormalTable, Rises, Sees, decay, ln, ln_rising, nats, nats_per_pane_max, normal_cdf, normal_quantile};
use crate::sketch::log_linear::{middle, upper_edge};
use crate::verdict::{Call, Change, Onset, Reading, Release, State};

const CUTS: [f64; 21] =
    [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999];
/// Quantile bins: one more than there are cuts.
const BINS_MAX: usize = CUTS.len() + 1;
const SHIFTS: [f64; 5] = [0.1, 0.2, 0.4, 0.8, 1.6];
/// The normal score from which on a bin is of the upper tenth.
const UPPER_TENTH: f64 = 1.2816;
/// Stretch of everything above a normal score: (score of the quantile, factor).
const TAILS: [(f64, f64); 4] = [(UPPER_TENTH, 1.5), (UPPER_TENTH, 2.5), (1.8808, 2.0), (1.8808, 4.0)];
const ARMS: usize = 2 * SHIFTS.len() + TAILS.len() + 2;
const TABLE: usize = ARMS - 2;
/// Parts of the injection, in the order of the alternatives: shifts up, down, tails, anything up and down. Small changes get the
/// greater part, so that every change pays about the same share of its delay for not being known.
const WEIGHTS: [f64; ARMS] = [0.13, 0.09, 0.06, 0.04, 0.02, 0.13, 0.09, 0.06, 0.04, 0.02, 0.09, 0.05, 0.08, 0.04, 0.03, 0.03];
const RECOVERY_ARMS: usize = 3;
/// A cut is kept when the baseline has at least this many values beyond it.
const BEYOND_CUT_MIN: f64 = 5.0;
const MERGE_EVENTS: f64 = 10.0;
const MERGE_MS: i64 = 600_000;
const NOISE_LAG: usize = 12;
/// Panes whose resemblance must be known before the first bet: bins exist only from arming on, and so do their ladders.
const NOISE_PANES_MIN: u32 = 24;
/// Panes kept for the size of a change.
const RECENT: usize = 24;
/// Entries for which memory is taken at once while warming.
const GATHERED_MIN: usize = 64;
const STARVED_EVENTS_PER_HOUR: f64 = 5.0;
/// Bins of the grid remembered since the evidence began, to tell the size of the change.
const SINCE_BINS_MAX: usize = 512;
/// Tables of alternatives are renewed after so many panes, or when the baseline has grown by this part.
const REFRESH_PANES: u32 = 1_024;
const REFRESH_GROWTH: f64 = 1.0 / 128.0;
/// Bins of the grid kept of values beyond the last cut, from which farther cuts are made when there are enough of them.
const FAR_BINS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BinsSettings {
    /// Shift that is forgiven, in standard deviations of the normal scores.
    pub tolerance_sigma: f64,
}

/// Which quantile a change is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    Median,
    P95,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BinsBank {
    settings: BinsSettings,
    /// While warming: counts on the grid, put in order now and then.
    gathered: Vec<(u16, u32)>,
    total: f64,
    armed: Option<Box<Armed>>,
    pending: Option<(Vec<(u16, u32)>, f64, i64, f64)>,
    hour: (i64, f64),
    starved: bool,
    told: Told,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Armed {
    /// The last grid bin of every quantile bin but the last.
    cuts: Vec<u16>,
    /// Quiet values beyond the last cut, on the grid. A young baseline has no far quantiles, and tails are seen by those.
    far: Vec<(u16, u32)>,
    /// Quiet counts per quantile bin.
    counts: Vec<f64>,
    sum: f64,
    tables: Tables,
    ladders: [Ladder; 2],
    lagged: VecDeque<[f64; 3]>,
    evidence: Mixture,
    /// The last judged panes on the grid, and whether they were learned: what is given back at an alarm, and the size of the change.
    recent: VecDeque<(i64, bool, Vec<(u16, u32)>)>,
    held_since_ms: Option<i64>,
    frozen: Option<Box<Frozen>>,
    panes: u32,
    refresh_at: f64,
}

/// What is the same for a number of panes: shares and scores per bin, and the bets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tables {
    score: Vec<f64>,
    share: Vec<f64>,
    /// Variance of the normal scores over the shares, the first bin of the upper tenth, and the share from there on.
    variance: f64,
    tail_from: usize,
    tail_share: f64,
    /// Made from the shares when a pane is judged: a bank that only learns renews its shares often and never bets. Empty is not made.
    bets: Vec<Bet>,
    /// Sums of the nulls over all bins.
    null_up_sum: f64,
    null_down_sum: f64,
    /// The median and the quantiles to which twice the tolerance would move it.
    median: f64,
    low: f64,
    high: f64,
}

/// Probabilities of one bin: of the baseline moved to the edges of tolerance, and of every alternative.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Bet {
    null_up: f64,
    null_down: f64,
    /// The greater part of a bank's memory; single precision errs by less than a thousandth of a nat in a large pane. A young bank
    /// renews its bets more often than it meets all bins: logarithms are taken when a bin is first met.
    alternatives: [f32; TABLE],
    logarithms: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    recovery: Mixture,
    /// Log-likelihood ratios per bin of each recovery alternative against "still moved".
    tables: Vec<f64>,
    before: f64,
    told: Told,
    seen: Vec<(u16, u32)>,
    since: Vec<(u16, u32)>,
}

// === impl BinsBank ===

impl BinsBank {
    pub fn new(settings: BinsSettings) -> BinsBank {
        BinsBank { settings, gathered: vec![], total: 0.0, armed: None, pending: None, hour: (i64::MIN, 0.0), starved: false, told: Told::Median }
    }

    /// Which quantile the last change was told by.
    pub fn told(&self) -> Told {
        self.told
    }

    /// Judges first, learns after. `pane`: counts on the log-linear grid, sorted by bin.
    pub fn judge(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let n: f64 = pane.iter().map(|(_, c)| f64::from(*c)).sum();
        self.count_hour(n, at_ms);
        if n <= 0.0 && self.pending.is_none() {
            return self.reading(Call::Quiet, injection);
        }
        let (merged, start, length, spent);
        if let Some((mut held, mut held_n, held_start, held_b)) = self.pending.take() {
            add_counts(&mut held, pane, usize::MAX);
            held_n += n;
            let long = at_ms + pane_ms - held_start;
            if held_n < MERGE_EVENTS && long < MERGE_MS {
                self.pending = Some((held, held_n, held_start, held_b + injection));
                return self.reading(Call::Quiet, injection);
            }
            (merged, start, length, spent) = (held, held_start, long, held_b + injection);
        } else if n < MERGE_EVENTS && pane_ms < MERGE_MS {
            self.pending = Some((pane.to_vec(), n, at_ms, injection));
            return self.reading(Call::Quiet, injection);
        } else {
            return self.judge_merged(pane, at_ms, pane_ms, injection);
        }
        self.judge_merged(&merged, start, length, spent)
    }

    fn judge_merged(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let Some(armed) = self.armed.as_mut() else {
            gather(&mut self.gathered, pane);
            self.total += pane.iter().map(|(_, c)| f64::from(*c)).sum::<f64>();
            if self.sees(injection).needs_events <= 0.0 {
                put_in_order(&mut self.gathered);
                self.armed = Armed::from_grid(&self.gathered, self.total, self.settings.tolerance_sigma).map(Box::new);
                if self.armed.is_some() {
                    self.gathered = Vec::new();
                }
            }
            return self.reading(Call::Quiet, injection);
        };
        let counts = armed.regroup(pane);
        let counts = &counts[..armed.counts.len()];
        let n: f64 = counts.iter().sum();
        if armed.frozen.is_some() {
            let (reading, told) = armed.watch_recovery(pane, counts, at_ms, pane_ms);
            if let Some(told) = told {
                self.told = told;
            }
            return reading;
        }
        if injection <= 0.0 || !armed.knows_noise() {
            armed.learn(pane, counts, n, pane_ms, self.settings.tolerance_sigma);
            return self.reading(Call::Quiet, injection);
        }
        let l = armed.likelihoods(counts, n, self.settings.tolerance_sigma);
        let sum = armed.evidence.step_weighted(&l, &WEIGHTS, injection, nats_per_pane_max(armed.dispersion()), at_ms);
        let learns = sum < injection.powf(0.125) && sum < 1.0;
        armed.remember(at_ms, learns, pane);
        if sum >= 1.0 {
            let (reading, told) = armed.speak(sum, injection, at_ms, pane_ms, self.settings.tolerance_sigma);
            self.told = told;
            return reading;
        }
        armed.held_since_ms = None;
        if learns {
            armed.learn(pane, counts, n, pane_ms, self.settings.tolerance_sigma);
        }
        self.reading(Call::Quiet, injection)
    }

    pub fn learn_only(&mut self, pane: &[(u16, u32)], at_ms: i64, pane_ms: i64) {
        self.judge(pane, at_ms, pane_ms, 0.0);
    }

    pub fn release(&mut self, how: Release) {
        let Some(armed) = self.armed.as_mut() else {
            return;
        };
        let Some(frozen) = armed.frozen.take() else {
            return;
        };
        armed.calm();
        match how {
            Release::Fixed | Release::Expected => {}
            Release::FalseAlarm => {
                let counts = armed.regroup(&frozen.seen);
                let counts = &counts[..armed.counts.len()];
                let n = counts.iter().sum();
                armed.learn(&frozen.seen, counts, n, 0, self.settings.tolerance_sigma);
            }
            Release::NewNormal => {
                self.total = frozen.seen.iter().map(|g| f64::from(g.1)).sum();
                self.gathered = frozen.seen;
                self.armed = None;
            }
        }
    }

    pub fn start_live(&mut self) {
        if let Some(armed) = self.armed.as_mut() {
            armed.frozen = None;
            armed.calm();
        }
        self.pending = None;
    }

    pub fn state(&self) -> State {
        match &self.armed {
            None => State::Warming,
            Some(a) if a.frozen.is_some() => State::Frozen,
            Some(a) if !a.knows_noise() => State::Warming,
            Some(_) if self.starved => State::Starved,
            Some(_) => State::Armed,
        }
    }

    /// Armed when a shift of 0.3 sigma beyond the tolerance could ever be shown.
    pub fn sees(&self, injection: f64) -> Sees {
        let b = if injection > 0.0 { injection } else { 1e-9 };
        let needed = 2.0 * ln(ARMS as f64 / b) / (0.3f64 * 0.3 / 2.0);
        let have = self.armed.as_ref().map_or(self.total, |a| a.sum);
        Sees { armed: self.armed.as_ref().is_some_and(|a| a.knows_noise()), needs_events: (needed - have).max(0.0) }
    }

    /// The median, and the quantiles to which a shift of twice the tolerance would move it.
    pub fn baseline(&self) -> Option<Band> {
        let armed = self.armed.as_ref()?;
        let Tables { median: value, low, high, .. } = armed.tables;
        Some(Band { value, low, high, events: armed.sum })
    }

    pub fn succeed(&self, weight_max: f64) -> BinsBank {
        let mut next = BinsBank::new(self.settings);
        if let Some(a) = &self.armed {
            let share = (weight_max / a.sum.max(1.0)).min(1.0);
            let mut armed = a.clone();
            armed.frozen = None;
            armed.calm();
            armed.counts.iter_mut().for_each(|c| *c *= share);
            armed.sum *= share;
            next.armed = Some(armed);
        }
        next
    }

    pub fn reset(&mut self) {
        *self = BinsBank::new(self.settings);
    }

    fn count_hour(&mut self, n: f64, at_ms: i64) {
        let hour = at_ms.div_euclid(3_600_000);
        if hour != self.hour.0 {
            self.starved = self.hour.0 != i64::MIN && self.hour.1 < STARVED_EVENTS_PER_HOUR;
            self.hour = (hour, 0.0);
        }
        self.hour.1 += n;
    }

    fn reading(&self, call: Call, injection: f64) -> Reading {
        let sum = self.armed.as_ref().map_or(0.0, |a| a.evidence.sum());
        let (log_evidence, threshold) = nats(sum, injection);
        Reading { state: self.state(), log_evidence, threshold, call }
    }
}

/// Appends a pane to a histogram that need not be sorted yet. It is put in order only when it would outgrow its memory, so that a
/// pane of a bank that merely gathers costs a copy.
fn gather(into: &mut Vec<(u16, u32)>, pane: &[(u16, u32)]) {
    if into.len() + pane.len() > into.capacity() {
        put_in_order(into);
        if 2 * (into.len() + pane.len()) > into.capacity() {
            into.reserve(GATHERED_MIN.max(into.len() + pane.len()));
        }
    }
    into.extend_from_slice(pane);
}

/// Sorts a histogram by bin; each bin once.
fn put_in_order(histogram: &mut Vec<(u16, u32)>) {
    histogram.sort_unstable_by_key(|g| g.0);
    histogram.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.saturating_add(next.1);
        }
        same
    });
}

/// Adds a pane to a sorted histogram of at most so many bins.
fn add_counts(into: &mut Vec<(u16, u32)>, pane: &[(u16, u32)], bins_max: usize) {
    for (bin, c) in pane {
        match into.binary_search_by_key(bin, |g| g.0) {
            Ok(i) => into[i].1 = into[i].1.saturating_add(*c),
            Err(i) if into.len() < bins_max => into.insert(i, (*bin, *c)),
            // Full: the neighbour takes it, which moves a quantile by less than one bin.
            Err(i) => {
                let i = i.min(into.len() - 1);
                into[i].1 = into[i].1.saturating_add(*c);
            }
        }
    }
}

fn quantile_of(grid: &[(u16, u32)], q: f64) -> f64 {
    let total: f64 = grid.iter().map(|g| f64::from(g.1)).sum();
    let mut below = 0.0;
    for (bin, c) in grid {
        below += f64::from(*c);
        if below >= q * total {
            return middle(*bin);
        }
    }
    0.0
}

// === impl Armed ===

impl Armed {
    /// Regroups a gathered histogram into quantile bins; `None` when all values are one.
    fn from_grid(grid: &[(u16, u32)], total: f64, tolerance: f64) -> Option<Armed> {
        let mut cuts: Vec<u16> = Vec::new();
        for q in CUTS {
            if total * (1.0 - q) < BEYOND_CUT_MIN {
                break;
            }
            let mut below = 0.0;
            let last = grid.len().saturating_sub(1);
            for (bin, c) in &grid[..last] {
                below += f64::from(*c);
                if below >= q * total {
                    if cuts.last().is_none_or(|k| k < bin) {
                        cuts.push(*bin);
                    }
                    break;
                }
            }
        }
        if cuts.is_empty() {
            // A series that never varied: whatever differs from it lands in another bin.
            cuts = vec![grid.first()?.0.saturating_sub(1), grid.last()?.0];
        }
        let mut armed = Armed {
            counts: vec![0.0; cuts.len() + 1],
            sum: total,
            tables: Tables::default(),
            ladders: [Ladder::default(), Ladder::default()],
            lagged: VecDeque::new(),
            evidence: Mixture::new(ARMS),
            recent: VecDeque::new(),
            held_since_ms: None,
            frozen: None,
            panes: 0,
            refresh_at: 0.0,
            far: Vec::new(),
            cuts,
        };
        for (bin, c) in grid {
            let b = armed.bin(*bin);
            armed.counts[b] += f64::from(*c);
            if b == armed.cuts.len() {
                add_counts(&mut armed.far, &[(*bin, *c)], FAR_BINS_MAX);
            }
        }
        armed.refresh(tolerance);
        Some(armed)
    }

    fn bin(&self, grid: u16) -> usize {
        self.cuts.partition_point(|cut| *cut < grid)
    }

    /// Counts per quantile bin of a sorted pane; those after the last bin are 0.
    fn regroup(&self, pane: &[(u16, u32)]) -> [f64; BINS_MAX] {
        let mut counts = [0.0; BINS_MAX];
        let mut b = 0;
        for (bin, c) in pane {
            while self.cuts.get(b).is_some_and(|cut| cut < bin) {
                b += 1;
            }
            counts[b] += f64::from(*c);
        }
        counts
    }

    /// Keeps the last panes; the oldest one's memory is used again.
    fn remember(&mut self, at_ms: i64, learned: bool, pane: &[(u16, u32)]) {
        let mut slot = if self.recent.len() >= RECENT { self.recent.pop_front().map(|r| r.2).unwrap_or_default() } else { Vec::new() };
        slot.clear();
        slot.extend_from_slice(pane);
        self.recent.push_back((at_ms, learned, slot));
    }

    fn calm(&mut self) {
        self.evidence.clear();
        self.recent.clear();
        self.lagged.clear();
        self.held_since_ms = None;
    }

    /// A quantile of the baseline, at the resolution of its cuts (exact at a cut).
    fn quantile(&self, q: f64) -> f64 {
        let mut below = 0.0;
        for (b, c) in self.counts.iter().enumerate() {
            let share = c / self.sum.max(1e-9);
            if below + share >= q {
                let low = b.checked_sub(1).map_or_else(|| upper_edge(self.cuts[0]), |i| upper_edge(self.cuts[i]));
                let high = self.cuts.get(b).map_or(low, |c| upper_edge(*c));
                return low + (high - low) * if share > 0.0 { ((q - below) / share).clamp(0.0, 1.0) } else { 1.0 };
            }
            below += share;
        }
        self.cuts.last().map_or(0.0, |c| upper_edge(*c))
    }

    /// Recomputes shares and scores from the quiet counts; the bets follow when they are asked for.
    fn refresh(&mut self, t: f64) {
        self.refresh_at = self.sum * (1.0 + REFRESH_GROWTH);
        let bins = self.counts.len();
        let total = self.sum + 0.5 * bins as f64;
        let tables = &mut self.tables;
        tables.bets.clear();
        tables.share.clear();
        tables.score.clear();
        (tables.variance, tables.tail_share, tables.tail_from) = (0.0, 0.0, bins);
        let mut below = 0.0;
        for (b, c) in self.counts.iter().enumerate() {
            let share = (c + 0.5) / total;
            let score = normal_quantile(below + share / 2.0);
            below += share;
            tables.variance += share * score * score;
            if score > UPPER_TENTH {
                tables.tail_from = tables.tail_from.min(b);
                tables.tail_share += share;
            }
            tables.share.push(share);
            tables.score.push(score);
        }
        let normal = NormalTable::get();
        let median = self.quantile(0.5);
        let (low, high) = (self.quantile(normal.cdf(-2.0 * t)).min(median), self.quantile(normal.cdf(2.0 * t)).max(median));
        (self.tables.median, self.tables.low, self.tables.high) = (median, low, high);
    }

    /// The probabilities of null and alternatives, from the shares of the last refresh.
    fn make_bets(&mut self, t: f64) {
        let tables = &mut self.tables;
        let normal = NormalTable::get();
        let last = tables.share.len() - 1;
        (tables.null_up_sum, tables.null_down_sum) = (0.0, 0.0);
        // The two nulls and the alternatives up to the upper edge of the bin before.
        let mut before = [0.0; TABLE + 2];
        let mut cumulative = 0.0;
        for (b, share) in tables.share.iter().enumerate() {
            cumulative += share;
            let mut upto = [1.0; TABLE + 2];
            if b < last {
                let z = normal_quantile(cumulative);
                upto[0] = normal.cdf(z - t);
                upto[1] = normal.cdf(z + t);
                for (j, d) in SHIFTS.iter().enumerate() {
                    upto[2 + j] = normal.cdf(z - (d + t));
                    upto[2 + SHIFTS.len() + j] = normal.cdf(z + (d + t));
                }
                for (j, (z0, s)) in TAILS.iter().enumerate() {
                    let z = z - t;
                    // Below the tail it is the null's own.
                    upto[2 + 2 * SHIFTS.len() + j] = if z > *z0 { normal.cdf(z0 + (z - z0) / s) } else { upto[0] };
                }
            }
            let p: [f64; TABLE + 2] = std::array::from_fn(|j| (upto[j].clamp(before[j], 1.0) - before[j]).max(1e-9));
            for (before, upto) in before.iter_mut().zip(&upto) {
                *before = upto.clamp(*before, 1.0);
            }
            tables.null_up_sum += p[0];
            tables.null_down_sum += p[1];
            let alternatives = std::array::from_fn(|j| p[j + 2] as f32);
            tables.bets.push(Bet { null_up: p[0], null_down: p[1], alternatives, logarithms: false });
        }
    }

    fn knows_noise(&self) -> bool {
        self.ladders[0].fed >= NOISE_PANES_MIN
    }

    fn dispersion(&self) -> f64 {
        self.ladders[0].phi().max(self.ladders[1].phi())
    }

    fn likelihoods(&mut self, counts: &[f64], n: f64, tolerance: f64) -> [f64; ARMS] {
        if self.tables.bets.is_empty() {
            self.make_bets(tolerance);
        }
        let f = self.dispersion();
        let v = n / f;
        let weight = self.sum / f;
        let (mut up, mut down, mut anything) = (Rises::new(), Rises::new(), Rises::new());
        let mut bets = [0.0; TABLE];
        let mut mean = 0.0;
        for ((c, bet), score) in counts.iter().zip(&mut self.tables.bets).zip(&self.tables.score) {
            if *c <= 0.0 {
                continue;
            }
            let d = c / f;
            up.add(bet.null_up * weight + 0.5, d);
            down.add(bet.null_down * weight + 0.5, d);
            anything.add(0.5, d);
            if !bet.logarithms {
                bet.logarithms = true;
                bet.alternatives = bet.alternatives.map(|q| ln(f64::from(q)) as f32);
            }
            for (sum, ln_q) in bets.iter_mut().zip(&bet.alternatives) {
                *sum += d * f64::from(*ln_q);
            }
            mean += c * score;
        }
        let half = 0.5 * counts.len() as f64;
        let all = |a: f64| ln_rising(a, ln(a), v);
        let up = up.total() - all(self.tables.null_up_sum * weight + half);
        let down = down.total() - all(self.tables.null_down_sum * weight + half);
        let anything = anything.total() - all(half);
        let mut l = [0.0; ARMS];
        for (j, (out, bet)) in l.iter_mut().zip(&bets).enumerate() {
            *out = bet - if (SHIFTS.len()..2 * SHIFTS.len()).contains(&j) { down } else { up };
        }
        // Dirichlet(1/2) reaches everything; it bets on the side to which the pane leans.
        l[TABLE] = if mean > 0.0 { anything - up } else { (anything - up).min(-0.5) };
        l[TABLE + 1] = if mean < 0.0 { anything - down } else { (anything - down).min(-0.5) };
        l
    }

    fn learn(&mut self, pane: &[(u16, u32)], counts: &[f64], n: f64, pane_ms: i64, tolerance: f64) {
        let fade = decay(pane_ms);
        for (have, c) in self.counts.iter_mut().zip(counts) {
            *have = *have * fade + c;
        }
        self.sum = self.sum * fade + n;
        let mean: f64 = counts.iter().zip(&self.tables.score).map(|(c, z)| c * z).sum();
        let tail: f64 = counts[self.tables.tail_from.min(counts.len())..].iter().sum();
        self.lagged.push_back([mean, tail, n]);
        if self.lagged.len() > NOISE_LAG
            && let Some([mean, tail, n]) = self.lagged.pop_front()
        {
            let p = self.tables.tail_share;
            self.ladders[0].feed(mean, n, self.tables.variance);
            self.ladders[1].feed(tail, n, p * (1.0 - p));
        }
        let last = self.cuts.last().copied().unwrap_or(u16::MAX);
        let beyond = &pane[pane.partition_point(|(bin, _)| *bin <= last)..];
        if !beyond.is_empty() {
            add_counts(&mut self.far, beyond, FAR_BINS_MAX);
        }
        self.panes += 1;
        if self.panes.is_multiple_of(REFRESH_PANES) || self.sum >= self.refresh_at {
            while self.cut_farther() {}
            self.refresh(tolerance);
        }
    }

    /// Makes one more cut beyond the last when enough values lie beyond it.
    fn cut_farther(&mut self) -> bool {
        let (Some(last), Some(beyond)) = (self.cuts.last().copied(), self.counts.last().copied()) else {
            return false;
        };
        let share = beyond / self.sum.max(1.0);
        let far: f64 = self.far.iter().map(|f| f64::from(f.1)).sum();
        let Some(q) = CUTS.into_iter().find(|q| 1.0 - q < 0.8 * share) else {
            return false;
        };
        if self.cuts.len() >= CUTS.len() || far < 4.0 * BEYOND_CUT_MIN || self.sum * (1.0 - q) < 2.0 * BEYOND_CUT_MIN {
            return false;
        }
        let wanted = (1.0 - (1.0 - q) / share) * far;
        let mut below = 0.0;
        let Some(at) = self.far.iter().position(|(_, c)| {
            below += f64::from(*c);
            below >= wanted
        }) else {
            return false;
        };
        let cut = self.far[at].0;
        if at + 1 >= self.far.len() || cut <= last {
            return false;
        }
        self.far.drain(..=at);
        self.cuts.push(cut);
        let nearer = beyond * below / far;
        self.counts.pop();
        self.counts.extend([nearer, beyond - nearer]);
        true
    }

    fn speak(&mut self, sum: f64, injection: f64, at_ms: i64, pane_ms: i64, tolerance: f64) -> (Reading, Told) {
        let arm = self.evidence.best();
        let start = self.evidence.start_of(arm);
        let (mut since, mut learned) = (Vec::new(), Vec::new());
        for (_, was_learned, pane) in self.recent.iter().filter(|r| r.0 >= start) {
            add_counts(&mut since, pane, SINCE_BINS_MAX);
            if *was_learned {
                add_counts(&mut learned, pane, SINCE_BINS_MAX);
            }
        }
        let median = quantile_of(&since, 0.5);
        let stays = self.quantile(normal_cdf(-2.0 * tolerance)) <= median && median <= self.quantile(normal_cdf(2.0 * tolerance));
        let tail = stays && (2 * SHIFTS.len()..=TABLE).contains(&arm);
        let told = if tail { Told::P95 } else { Told::Median };
        let q = if tail { 0.95 } else { 0.5 };
        let (log_evidence, threshold) = nats(sum, injection);
        let n: f64 = since.iter().map(|s| f64::from(s.1)).sum();
        // Interval of a quantile by the binomial law of ranks.
        let half = 1.96 * (q * (1.0 - q) * self.dispersion() / n.max(1.0)).sqrt();
        let (before, after) = (self.quantile(q), quantile_of(&since, q));
        let change = Change { before, after, low: quantile_of(&since, (q - half).max(0.0)), high: quantile_of(&since, (q + half).min(1.0)) };
        let counts = self.regroup(&since);
        let counts = &counts[..self.counts.len()];
        let mean: f64 = counts.iter().zip(&self.tables.score).map(|(c, z)| c * z).sum::<f64>() / n.max(1.0);
        if !tail && mean.abs() <= tolerance {
            let since = *self.held_since_ms.get_or_insert(at_ms);
            if at_ms - since >= super::HELD_RESET_MS {
                self.calm();
            }
            let call = Call::Held { change, why: "the shift is within tolerance" };
            return (Reading { state: State::Armed, log_evidence, threshold, call }, told);
        }
        let learned = self.regroup(&learned);
        for (have, c) in self.counts.iter_mut().zip(&learned) {
            *have = (*have - c).max(0.0);
        }
        self.sum = self.counts.iter().sum();
        self.refresh(tolerance);
        let onset = Onset { at_ms: start, from_ms: start - pane_ms, to_ms: start + (at_ms - start) / 2 + pane_ms };
        // Half way between the baseline and what was seen, but never inside the tolerance: that is what recovery must refute.
        let seen: Vec<f64> = counts.iter().map(|c| (c + 0.5) / (n + 0.5 * counts.len() as f64)).collect();
        let quiet = self.tables.share.clone();
        let moved: Vec<f64> = quiet.iter().zip(&seen).map(|(p, s)| (p * s).sqrt()).collect();
        let norm: f64 = moved.iter().sum();
        let still: Vec<f64> = moved.iter().map(|m| m / norm).collect();
        let mut tables = Vec::with_capacity(RECOVERY_ARMS * quiet.len());
        for part in [1.0, 0.8, 0.6] {
            tables.extend(quiet.iter().zip(&still).map(|(p, s)| ((part * p + (1.0 - part) * s) / s).ln()));
        }
        self.calm();
        self.frozen = Some(Box::new(Frozen { recovery: Mixture::new(RECOVERY_ARMS), tables, before, told, seen: since, since: Vec::new() }));
        (Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }, told)
    }

    fn watch_recovery(&mut self, pane: &[(u16, u32)], counts: &[f64], at_ms: i64, pane_ms: i64) -> (Reading, Option<Told>) {
        let f = self.dispersion();
        let injection = recovery_injection(pane_ms);
        let bins = counts.len();
        let Some(frozen) = self.frozen.as_mut() else {
            return (Reading { state: State::Armed, log_evidence: 0.0, threshold: f64::INFINITY, call: Call::Quiet }, None);
        };
        add_counts(&mut frozen.seen, pane, SINCE_BINS_MAX);
        let l: [f64; RECOVERY_ARMS] =
            std::array::from_fn(|j| counts.iter().zip(&frozen.tables[j * bins..(j + 1) * bins]).map(|(c, w)| c / f * w).sum::<f64>());
        let sum = frozen.recovery.step(&l, injection, at_ms);
        if frozen.recovery.is_idle() {
            frozen.since.clear();
        } else {
            add_counts(&mut frozen.since, pane, SINCE_BINS_MAX);
        }
        let (log_evidence, threshold) = nats(sum, injection);
        if sum < 1.0 {
            return (Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }, None);
        }
        let q = if frozen.told == Told::P95 { 0.95 } else { 0.5 };
        let after = quantile_of(&frozen.since, q);
        let change = Change { before: frozen.before, after, low: after, high: after };
        let told = frozen.told;
        self.frozen = None;
        self.calm();
        (Reading { state: State::Armed, log_evidence, threshold, call: Call::Recovered { change } }, Some(told))
    }
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;
    use crate::sketch::log_linear::bin_of;

    const PANE: i64 = 10_000;
    const B: f64 = 4e-9;

    fn pane(noise: &mut Noise, n: usize, value: &dyn Fn(f64) -> f64) -> Vec<(u16, u32)> {
        let mut bins: Vec<u16> = (0..n).map(|_| bin_of(value(noise.normal()))).collect();
        bins.sort_unstable();
        let mut out: Vec<(u16, u32)> = vec![];
        for b in bins {
            match out.last_mut() {
                Some(last) if last.0 == b => last.1 += 1,
                _ => out.push((b, 1)),
            }
        }
        out
    }

    fn run(bank: &mut BinsBank, noise: &mut Noise, t: &mut i64, value: &dyn Fn(f64) -> f64, injection: f64, panes: usize) -> (usize, Call) {
        for i in 1..=panes {
            let r = bank.judge(&pane(noise, 100, value), *t, PANE, injection);
            *t += PANE;
            if !matches!(r.call, Call::Quiet) {
                return (i, r.call);
            }
        }
        (panes, Call::Quiet)
    }

    #[test]
    fn quiet_values_of_any_shape_stay_within_the_budget() {
        let laws: [&dyn Fn(f64) -> f64; 4] = [&|z| (6.0 + 0.6 * z).exp(), &|z| z, &|z| (3.0 * z).round(), &|z| (0.86 + 0.08 * z).min(1.0)];
        let mut pages = 0;
        let mut noise = Noise::new(1);
        for law in laws {
            for _ in 0..8 {
                let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
                let mut t = 0;
                let (_, call) = run(&mut bank, &mut noise, &mut t, law, 10.0 / (32.0 * 1_000.0), 1_000);
                assert_ne!(bank.state(), State::Warming);
                pages += usize::from(matches!(call, Call::Alarm { .. }));
            }
        }
        assert!(pages <= 10, "{pages} of 10");
    }

    #[test]
    fn shifts_and_tails_are_found_told_and_recover() {
        let usual: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp();
        let slow: &dyn Fn(f64) -> f64 = &|z| 1.6 * (6.0 + 0.6 * z).exp();
        let tail: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp() * if z > 1.2816 { 3.0 } else { 1.0 };
        let huge: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * (z + 6.0)).exp();
        for (fault, panes_max, told) in [(slow, 20, Told::Median), (tail, 30, Told::P95), (huge, 10, Told::Median)] {
            let mut noise = Noise::new(2);
            let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
            let mut t = 0;
            assert_eq!(run(&mut bank, &mut noise, &mut t, usual, B, 400).1, Call::Quiet);
            for _ in 0..2 {
                let (panes, call) = run(&mut bank, &mut noise, &mut t, fault, B, 60);
                let Call::Alarm { change, .. } = call else { panic!("{call:?}") };
                assert!(panes <= panes_max, "{panes} > {panes_max}");
                assert!(change.after > 1.3 * change.before, "{change:?}");
                assert_eq!(bank.told(), told);
                assert_eq!(run(&mut bank, &mut noise, &mut t, fault, B, 500).1, Call::Quiet, "no recovery while it lasts");
                let (panes, call) = run(&mut bank, &mut noise, &mut t, usual, B, 300);
                assert!(matches!(call, Call::Recovered { .. }), "{call:?}");
                assert!(panes < 100, "{panes}");
                assert_eq!(run(&mut bank, &mut noise, &mut t, usual, B, 500).1, Call::Quiet);
            }
        }
    }

    #[test]
    fn a_drop_of_a_bounded_score_is_found() {
        let mut noise = Noise::new(4);
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
        let mut t = 0;
        assert_eq!(run(&mut bank, &mut noise, &mut t, &|z| (0.86 + 0.08 * z).min(1.0), B, 400).1, Call::Quiet);
        let (panes, call) = run(&mut bank, &mut noise, &mut t, &|z| (0.78 + 0.08 * z).min(1.0), B, 60);
        let Call::Alarm { change, .. } = call else { panic!("{call:?}") };
        assert!(panes <= 12 && (0.75..0.81).contains(&change.after) && (0.84..0.88).contains(&change.before), "{panes} {change:?}");
    }

    #[test]
    fn a_series_that_never_varied_sees_a_change() {
        let mut noise = Noise::new(4);
        let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
        let mut t = 0;
        assert_eq!(run(&mut bank, &mut noise, &mut t, &|_| 1.0, B, 400).1, Call::Quiet);
        assert!(matches!(run(&mut bank, &mut noise, &mut t, &|_| 2.0, B, 60).1, Call::Alarm { .. }));
    }

    /// Panes of two seconds with 100 to 300 events, half an hour of baseline: what a demo shows.
    #[test]
    fn short_panes_page_within_half_a_minute_and_recover_within_two() {
        let latency: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp();
        let tail: &dyn Fn(f64) -> f64 = &|z| (6.0 + 0.6 * z).exp() * if z > 1.2816 { 3.0 } else { 1.0 };
        let tokens: &dyn Fn(f64) -> f64 = &|z| (5.0 + 0.8 * z).exp().round();
        let more: &dyn Fn(f64) -> f64 = &|z| (1.6 * (5.0 + 0.8 * z).exp()).round();
        let score: &dyn Fn(f64) -> f64 = &|z| (0.86 + 0.08 * z).clamp(0.0, 1.0);
        let worse: &dyn Fn(f64) -> f64 = &|z| (0.78 + 0.08 * z).clamp(0.0, 1.0);
        for (name, usual, fault) in [("latency tail", latency, tail), ("tokens", tokens, more), ("score", score, worse)] {
            let mut pages = Vec::new();
            for seed in 0..3 {
                let mut noise = Noise::new(400 + seed);
                let mut bank = BinsBank::new(BinsSettings { tolerance_sigma: 0.1 });
                let mut t = 0;
                let mut feed = |bank: &mut BinsBank, law: &dyn Fn(f64) -> f64, seconds: usize| -> (usize, Call) {
                    for i in 1..=seconds / 2 {
                        let n = 100 + (noise.unit() * 200.0) as usize;
                        let r = bank.judge(&pane(&mut noise, n, law), t, 2_000, 1e-8);
                        t += 2_000;
                        if !matches!(r.call, Call::Quiet) {
                            return (2 * i, r.call);
                        }
                    }
                    (seconds, Call::Quiet)
                };
                assert_eq!(feed(&mut bank, usual, 1_800).1, Call::Quiet);
                assert_eq!(bank.state(), State::Armed);
                assert_eq!(feed(&mut bank, usual, 7_200).1, Call::Quiet, "{name}: two quiet hours");
                for _ in 0..2 {
                    let (found, call) = feed(&mut bank, fault, 60);
                    assert!(matches!(call, Call::Alarm { .. }) && found <= 30, "{name}: {found} s, {call:?}");
                    feed(&mut bank, fault, 120);
                    let (back, call) = feed(&mut bank, usual, 600);
                    assert!(matches!(call, Call::Recovered { .. }) && back <= 120, "{name}: {back} s, {call:?}");
                    pages.push((found, back));
                }
            }
            println!("{name}: (seconds to page, to recover) {pages:?}");
        }
    }
}
