//! Fairness: is one group served worse than another by more than is tolerated?
//!
//! **Idea.** Two lines at two counters, watched at the same time. Whether the day is good or bad for everybody does not matter: what
//! is bet on is the ratio of the two rates inside one pane (and inside one segment), so a common level that moves with time, or
//! groups whose shares move, make no evidence. **Formula.** For group g and reference h the null is the convex set p_low >= edge *
//! p_high with edge = .8, the four-fifths rule: `low` is g and `high` is h when hits are favourable, the other way round when they
//! are adverse. For an alternative ratio r < edge and a level guessed from panes before this one, the bet is the likelihood ratio
//! of (q_low, q_high), q_low = r q_high, against its own projection onto the null, the pair (edge p, p) of least Kullback-Leibler
//! divergence, weighted with the two sizes. Its expectation is at most 1 for every pair inside the null and for every level (Turner,
//! Ly and Gruenwald 2024, "Generic E-variables for exact sequential k-sample tests"; Turner and Gruenwald 2023 for ratios), so the
//! guess of the level costs speed, never budget. Strata of a pane are bet on one by one and multiplied. **The reference** is the
//! most favoured group one standard error down, chosen from the past only, so that the bets stay fair whatever is chosen.
//! **Over-dispersion** is learned from the contrast of the matched groups, not from their rates: a level that both share is no
//! noise. **Sees** ratios below the edge, from birth or from a moment on. Does not see unfairness inside the tolerance, nor groups
//! that never appear in the same pane. **Knobs.** `edge`: .8; `against`: parity, or the group's own usual ratio, of which it must
//! lose a fifth. **False alarms**: at most the injected sum at every point of the null; at equal rates next to none.
//! **The road not taken**: the hypergeometric law of hits given the pane's total needs an odds ratio, and the odds ratio that belongs
//! to .8 depends on the level; the rate bank against the other group's predictive pages when the shared level moves.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::rate::CountPane;
use super::{Band, Ladder, Mixture, Sees, decay, nats, onset_of, recovery_injection};
use crate::verdict::{Call, Change, Onset, Reading, Release, State};

/// Groups of one attribute; the caller folds the rest into the last.
pub const GROUPS_MAX: usize = 8;
/// Strata whose level is remembered; later ones of a pane share the last place.
pub const STRATA_MAX: usize = 16;
/// Alternatives, as parts of the edge: .76 .68 .56 .36 .12 at the default.
const PARTS: [f64; 5] = [0.95, 0.85, 0.7, 0.45, 0.15];
const ARMS: usize = PARTS.len();
/// Where recovery may lie between the boundary (0) and equal rates (1).
const RECOVERY_PARTS: [f64; 4] = [0.3, 0.55, 0.8, 1.0];
/// A pane waits until its second largest group has this many events, or until it is this old; decided on sizes alone.
const MERGE_EVENTS: f64 = 10.0;
const MERGE_MS: i64 = 600_000;
/// Matched panes whose noise must be known before the first bet.
const NOISE_PANES_MIN: u32 = 12;
const NOISE_LAG: usize = 6;
/// Events over which the guess of a level reaches back.
const LEVEL_EVENTS: f64 = 3_000.0;
/// Summaries kept for onset and size; when they are full the older half is merged in pairs, so that they reach back ever farther and
/// ever coarser.
const RECENT: usize = 64;
/// Standard errors of ln ratio told at a page: the panes since the onset were chosen by their ratio, and 1.96 would hold it in 74 to
/// 95 % of cases only.
const PAGE_WIDTH: f64 = 2.5;
const STARVED_EVENTS_PER_DAY: f64 = 5.0;
/// "Fair so far" asks for an interval that holds at every moment (Robbins's normal mixture) with this confidence; the mixture is
/// tightest at a standard error of ln ratio of .1.
const FAIR_ALPHA: f64 = 0.05;
const FAIR_INFORMATION: f64 = 100.0;
/// And for so many hits and so many misses in either group: below, a normal interval is a fiction.
const FAIR_COUNTS_MIN: f64 = 5.0;
/// The bank says that it sees when it could show a ratio of .64.
const SEES_RATIO: f64 = 0.64;

/// Is a hit good for whom it befalls?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A loan granted, a correct answer: the group with fewer is at a disadvantage.
    Favourable,
    /// An error, a refusal: the group with more is at a disadvantage.
    Adverse,
}

/// What a ratio is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Against {
    /// Equal rates, whatever was usual: no baseline is needed.
    Parity,
    /// The ratio that this group usually has, for attributes whose rates differ by nature.
    OwnBaseline,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoGroupSettings {
    pub outcome: Outcome,
    pub against: Against,
    /// The least ratio of rates, disadvantaged over favoured, that is tolerated: .8 is the four-fifths rule.
    pub edge: f64,
}

impl Default for TwoGroupSettings {
    fn default() -> Self {
        TwoGroupSettings { outcome: Outcome::Favourable, against: Against::Parity, edge: 0.8 }
    }
}

/// One stratum of one pane: hits and totals by group; a group that is absent has a total of 0.
pub type Stratum = [CountPane; GROUPS_MAX];

/// What is to be shown of a group. Ratios are disadvantaged over favoured, whatever a hit is: below 1 means worse off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fairness {
    /// The whole interval, valid at every moment, lies above the edge.
    FairSoFar { ratio: f64, low: f64, high: f64 },
    /// An alarm is out: size since the onset, with 95 %.
    Violated { ratio: f64, low: f64, high: f64 },
    /// Neither can be said yet; the interval is that of `FairSoFar`, 0 to infinity before anything was compared.
    NotEnoughEvidence { ratio: f64, low: f64, high: f64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TwoGroupBank {
    settings: TwoGroupSettings,
    /// Fading (hits, total) by stratum and group: the guess of the level.
    levels: Vec<[CountPane; GROUPS_MAX]>,
    /// Fading totals by group over 28 days, to choose references and to know which groups there are.
    groups: [CountPane; GROUPS_MAX],
    comparisons: Vec<Comparison>,
    pending: Option<(Vec<Stratum>, i64, i64, f64)>,
    /// Events of the second largest group today.
    day: (i64, [f64; GROUPS_MAX]),
    starved: bool,
    held_since_ms: Option<i64>,
    frozen: Option<Frozen>,
}

/// One group against its reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Comparison {
    reference: usize,
    /// Matched sums of quiet panes: the ratio that is usual.
    quiet: Matched,
    rho_sum: f64,
    rho_weight: f64,
    ladder: Ladder,
    previous: Option<Contrast>,
    /// Contrasts that wait to tell how noisy this pair is: the first panes of a fault would otherwise call themselves noise.
    lagged: VecDeque<Contrast>,
    noise_panes: u32,
    evidence: Mixture,
    /// Matched sums since each pointer: seen, and of these learned, to be given back at an alarm.
    since: [(Matched, Matched); ARMS],
    /// Recent panes, oldest first: start, sums, nats per alternative.
    recent: VecDeque<(i64, Matched, [f32; ARMS])>,
}

/// Mantel-Haenszel sums over matched strata and panes: the ratio is `g / h`, and `variance / (g h)` the variance of its logarithm
/// (Greenland and Robins 1985).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Matched {
    g: f64,
    h: f64,
    variance: f64,
    hits: [f64; 2],
    misses: [f64; 2],
}

/// Difference of the matched rates of one pane, its variance if events were independent, and the part of it that more events of
/// the same pane would not take away if they all resembled each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Contrast {
    difference: f64,
    variance: f64,
    whole: f64,
}

/// From the alarm to recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    group: usize,
    reference: usize,
    before: f64,
    /// The ratio that recovery must refute.
    boundary: f64,
    recovery: Mixture,
    seen: Matched,
    since: [Matched; RECOVERY_PARTS.len()],
}

// === impl TwoGroupBank ===

impl TwoGroupBank {
    /// `edge` is drawn into .05 to .99.
    pub fn new(settings: TwoGroupSettings) -> TwoGroupBank {
        TwoGroupBank {
            settings: TwoGroupSettings { edge: settings.edge.clamp(0.05, 0.99), ..settings },
            levels: Vec::new(),
            groups: [CountPane { hits: 0.0, total: 0.0 }; GROUPS_MAX],
            comparisons: Vec::new(),
            pending: None,
            day: (i64::MIN, [0.0; GROUPS_MAX]),
            starved: false,
            held_since_ms: None,
            frozen: None,
        }
    }

    /// Judges first, learns after. `pane`: its strata, one if there are none to speak of; the place of a stratum in the slice is its
    /// name. `injection`: false pages this bank may spend on this pane; 0 gathers no evidence but learns.
    pub fn judge(&mut self, pane: &[Stratum], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        self.count_day(pane, at_ms);
        let Some((pane, at_ms, pane_ms, injection)) = self.merged(pane, at_ms, pane_ms, injection) else {
            return self.reading(Call::Quiet, injection);
        };
        let reading = self.judge_merged(&pane, at_ms, pane_ms, injection);
        self.learn_levels(&pane, pane_ms);
        reading
    }

    fn judge_merged(&mut self, pane: &[Stratum], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        if self.frozen.is_some() {
            return self.watch_recovery(pane, at_ms, pane_ms);
        }
        self.choose_references();
        let active = (0..self.comparisons.len()).filter(|g| self.groups[*g].total > 0.0).count();
        let share = injection / active.max(1) as f64;
        let mut sum = 0.0;
        let mut best: Option<(usize, f64)> = None;
        for g in 0..self.comparisons.len() {
            let h = self.comparisons[g].reference;
            if self.groups[g].total <= 0.0 || h == g {
                continue;
            }
            let matched = Matched::of(pane, g, h, self.settings.outcome);
            let knows = self.comparisons[g].noise_panes >= NOISE_PANES_MIN;
            let edge = self.edge(g);
            let mut quiet = true;
            if let Some(edge) = edge.filter(|_| knows && injection > 0.0) {
                let l = self.likelihoods(pane, g, h, edge, &PARTS.map(|part| part * edge));
                let comparison = &mut self.comparisons[g];
                let r = comparison.evidence.step(&l, share, at_ms);
                quiet = r < injection.powf(0.25);
                for (j, since) in comparison.since.iter_mut().enumerate() {
                    if comparison.evidence.start_of(j) == at_ms {
                        *since = Default::default();
                    }
                    since.0.add(&matched);
                    if quiet {
                        since.1.add(&matched);
                    }
                }
                comparison.remember(at_ms, matched, &l);
                sum += r;
                if best.is_none_or(|b| b.1 < r) {
                    best = Some((g, r));
                }
            }
            if quiet {
                let contrast = Contrast::of(pane, g, h, self.comparisons[g].quiet.shrunk_ratio(), self.settings.outcome);
                self.comparisons[g].learn(&matched, contrast, pane_ms);
            }
        }
        if let Some((g, _)) = best.filter(|_| sum >= 1.0) {
            return self.speak(g, at_ms, pane_ms, injection, sum);
        }
        self.held_since_ms = None;
        self.reading(Call::Quiet, injection)
    }

    /// History that is not judged.
    pub fn learn_only(&mut self, pane: &[Stratum], at_ms: i64, pane_ms: i64) {
        self.judge(pane, at_ms, pane_ms, 0.0);
    }

    /// The group that an alarm names, and its reference, while it is out.
    pub fn named(&self) -> Option<(usize, usize)> {
        self.frozen.as_ref().map(|f| (f.group, f.reference))
    }

    /// What is to be shown of a group, against its reference; `None` for a group that never came.
    pub fn fairness(&self, group: usize) -> Option<Fairness> {
        let comparison = self.comparisons.get(group).filter(|c| c.reference != group && self.groups[group].total > 0.0)?;
        if let Some(frozen) = self.frozen.as_ref().filter(|f| f.group == group) {
            let (ratio, low, high) = frozen.seen.interval(comparison.ladder.phi(), 1.96).unwrap_or((0.0, 0.0, f64::INFINITY));
            return Some(Fairness::Violated { ratio, low, high });
        }
        let quiet = &comparison.quiet;
        let Some(deviation) = quiet.deviation(comparison.ladder.phi()) else {
            return Some(Fairness::NotEnoughEvidence { ratio: quiet.ratio().unwrap_or(1.0), low: 0.0, high: f64::INFINITY });
        };
        let information = 1.0 / (deviation * deviation);
        let whole = information + FAIR_INFORMATION;
        let width = (whole / information * ((whole / FAIR_INFORMATION).ln() - 2.0 * FAIR_ALPHA.ln())).sqrt();
        let (ratio, low, high) = quiet.interval(comparison.ladder.phi(), width).unwrap_or((1.0, 0.0, f64::INFINITY));
        let counts = quiet.hits.iter().chain(&quiet.misses).fold(f64::INFINITY, |least, c| least.min(*c));
        let fair = self.edge(group).is_some_and(|edge| low >= edge) && counts >= FAIR_COUNTS_MIN && comparison.noise_panes >= NOISE_PANES_MIN;
        Some(if fair { Fairness::FairSoFar { ratio, low, high } } else { Fairness::NotEnoughEvidence { ratio, low, high } })
    }

    pub fn release(&mut self, how: Release) {
        let Some(frozen) = self.frozen.take() else {
            return;
        };
        let comparison = &mut self.comparisons[frozen.group];
        match how {
            Release::Fixed | Release::Expected => {}
            Release::NewNormal => comparison.quiet = frozen.seen,
            Release::FalseAlarm => comparison.quiet.add(&frozen.seen),
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
        } else if !self.comparisons.iter().any(|c| c.noise_panes >= NOISE_PANES_MIN) {
            State::Warming
        } else if self.starved {
            State::Starved
        } else {
            State::Armed
        }
    }

    /// Could a ratio of .64 be shown with as many events as were seen, by the group that is seen best?
    pub fn sees(&self, injection: f64) -> Sees {
        let b = if injection > 0.0 { injection } else { 1e-9 };
        let wanted = -b.ln() + (ARMS as f64).ln();
        let mut least = f64::INFINITY;
        for (g, comparison) in self.comparisons.iter().enumerate() {
            let (own, other) = (self.groups[g], self.groups[comparison.reference]);
            if comparison.reference == g || own.total <= 0.0 || other.total <= 0.0 {
                continue;
            }
            let level = ((other.hits + 0.5) / (other.total + 1.0)).clamp(1e-6, 1.0 - 1e-6);
            let share = own.total / (own.total + other.total);
            let ratio = (SEES_RATIO / 0.8 * self.settings.edge).min(1.0);
            let q = match self.settings.outcome {
                Outcome::Favourable => (ratio * level, level, share, 1.0 - share),
                Outcome::Adverse => (level, (level / ratio).min(1.0 - 1e-6), 1.0 - share, share),
            };
            let per_event = divergence(q.0, q.1, q.2, q.3, self.settings.edge) / comparison.ladder.phi();
            least = least.min((wanted / per_event.max(1e-12) - own.total - other.total).max(0.0));
        }
        let knows = self.state() != State::Warming;
        Sees { armed: knows && least <= 0.0, needs_events: if least.is_finite() { least } else { f64::INFINITY } }
    }

    /// The usual ratio of the group that is worst off, and the edge of tolerance.
    pub fn baseline(&self) -> Option<Band> {
        let worst = (0..self.comparisons.len()).filter_map(|g| Some((g, self.comparisons[g].quiet.ratio()?))).min_by(|a, b| a.1.total_cmp(&b.1))?;
        let events = self.groups[worst.0].total + self.groups[self.comparisons[worst.0].reference].total;
        Some(Band { value: worst.1, low: self.edge(worst.0).unwrap_or(self.settings.edge), high: f64::INFINITY, events })
    }

    /// A successor that starts from these counts, discounted to at most `weight_max` events.
    pub fn succeed(&self, weight_max: f64) -> TwoGroupBank {
        let mut next = self.clone();
        next.frozen = None;
        next.calm();
        let total: f64 = self.groups.iter().map(|g| g.total).sum();
        let share = (weight_max / total.max(1.0)).min(1.0);
        next.groups.iter_mut().for_each(|g| g.scale(share));
        next.comparisons.iter_mut().for_each(|c| c.quiet.scale(share));
        next
    }

    pub fn reset(&mut self) {
        *self = TwoGroupBank::new(self.settings);
    }

    // --- the recipe, step by step ---

    fn calm(&mut self) {
        for comparison in &mut self.comparisons {
            comparison.calm();
        }
        self.held_since_ms = None;
        self.pending = None;
    }

    fn count_day(&mut self, pane: &[Stratum], at_ms: i64) {
        let day = at_ms.div_euclid(86_400_000);
        if day != self.day.0 {
            self.starved = self.day.0 != i64::MIN && second_largest(&self.day.1) < STARVED_EVENTS_PER_DAY;
            self.day = (day, [0.0; GROUPS_MAX]);
        }
        for stratum in pane {
            for (sum, group) in self.day.1.iter_mut().zip(stratum) {
                *sum += group.total;
            }
        }
    }

    /// Merges sparse panes; a merged pane has the time of its first part and the injections of all.
    fn merged(&mut self, pane: &[Stratum], at_ms: i64, pane_ms: i64, injection: f64) -> Option<(Vec<Stratum>, i64, i64, f64)> {
        let (mut sum, start, length, spent) = match self.pending.take() {
            Some((sum, start, _, b)) => (sum, start, at_ms + pane_ms - start, b + injection),
            None => (Vec::new(), at_ms, pane_ms, injection),
        };
        for (s, stratum) in pane.iter().enumerate() {
            let place = s.min(STRATA_MAX - 1);
            if sum.len() <= place {
                sum.resize(place + 1, [CountPane { hits: 0.0, total: 0.0 }; GROUPS_MAX]);
            }
            for (into, group) in sum[place].iter_mut().zip(stratum) {
                // What cannot be a count says nothing; hits beyond the total are hits of all.
                if group.total > 0.0 && group.total.is_finite() && group.hits >= 0.0 {
                    into.hits += group.hits.min(group.total);
                    into.total += group.total;
                }
            }
        }
        let mut totals = [0.0; GROUPS_MAX];
        for stratum in &sum {
            for (total, group) in totals.iter_mut().zip(stratum) {
                *total += group.total;
            }
        }
        if totals.iter().all(|t| *t <= 0.0) {
            return None;
        }
        if second_largest(&totals) < MERGE_EVENTS && length < MERGE_MS {
            self.pending = Some((sum, start, length, spent));
            return None;
        }
        Some((sum, start, length, spent))
    }

    /// The most favoured other group, one standard error down: a large group before a small one that was lucky.
    fn choose_references(&mut self) {
        let adverse = self.settings.outcome == Outcome::Adverse;
        let favour: [f64; GROUPS_MAX] = std::array::from_fn(|g| {
            let CountPane { hits, total } = self.groups[g];
            if total <= 0.0 {
                return f64::NEG_INFINITY;
            }
            let p = (hits + 1.0) / (total + 2.0);
            let p = if adverse { 1.0 - p } else { p };
            p - (p * (1.0 - p) / (total + 2.0)).sqrt()
        });
        for (g, comparison) in self.comparisons.iter_mut().enumerate() {
            let best = (0..GROUPS_MAX).filter(|h| *h != g).fold(g, |best, h| {
                let better = if best == g { favour[h] > f64::NEG_INFINITY } else { favour[h] > favour[best] };
                if better { h } else { best }
            });
            if best == comparison.reference || best == g {
                continue;
            }
            // A nearly as good reference is kept: every change of reference forgets the usual ratio and what was noise.
            let old = comparison.reference;
            let near = old != g && favour[old] > f64::NEG_INFINITY && {
                let (p, n) = ((self.groups[old].hits + 1.0) / (self.groups[old].total + 2.0), self.groups[old].total + 2.0);
                favour[best] < favour[old] + 2.0 * (p * (1.0 - p) / n).sqrt()
            };
            if !near {
                comparison.refer_to(best);
            }
        }
    }

    /// The least ratio that is tolerated; `None` when it is to be learned and is not known yet.
    fn edge(&self, group: usize) -> Option<f64> {
        match self.settings.against {
            Against::Parity => Some(self.settings.edge),
            Against::OwnBaseline => {
                let comparison = &self.comparisons[group];
                let deviation = comparison.quiet.deviation(comparison.ladder.phi())?;
                // The usual ratio itself is only known so well: two standard errors are given.
                (deviation < 0.1).then(|| (self.settings.edge * comparison.quiet.ratio().unwrap_or(1.0) * (-2.0 * deviation).exp()).clamp(0.01, 4.0))
            }
        }
    }

    /// Log-likelihood ratios of the alternative ratios against their projections onto "no worse than `edge`" (or, when the
    /// alternatives lie above it, "no better"), over the strata of a pane.
    fn likelihoods<const N: usize>(&self, pane: &[Stratum], g: usize, h: usize, edge: f64, ratios: &[f64; N]) -> [f64; N] {
        let comparison = &self.comparisons[g];
        let (rho, phi) = (comparison.rho(), comparison.ladder.phi());
        let favourable = self.settings.outcome == Outcome::Favourable;
        let (low, high) = if favourable { (g, h) } else { (h, g) };
        let mut l = [0.0; N];
        for (s, stratum) in pane.iter().enumerate() {
            let (x, y) = (stratum[low], stratum[high]);
            if x.total <= 0.0 || y.total <= 0.0 {
                continue;
            }
            let (fx, fy) = (phi * (1.0 + (x.total - 1.0).max(0.0) * rho), phi * (1.0 + (y.total - 1.0).max(0.0) * rho));
            let (nx, ny) = (x.total / fx, y.total / fy);
            let level = self.levels.get(s.min(STRATA_MAX - 1)).map(|level| (level[low], level[high]));
            for (out, r) in l.iter_mut().zip(ratios) {
                // The favoured rate that, with this ratio, explains what came before in both groups.
                let (hits, exposure) = level.map_or((0.0, 0.0), |(a, b)| (a.hits + b.hits, r * a.total + b.total));
                let q_high = ((hits + 0.5) / (exposure + 1.0)).clamp(1e-6, 0.999f64.min(0.999 / r));
                let q_low = r * q_high;
                let p = projection(q_low, q_high, nx, ny, edge);
                let (p_low, p_high) = (edge * p, p);
                *out += x.hits / fx * (q_low / p_low).ln()
                    + (nx - x.hits / fx) * ((1.0 - q_low) / (1.0 - p_low)).ln()
                    + y.hits / fy * (q_high / p_high).ln()
                    + (ny - y.hits / fy) * ((1.0 - q_high) / (1.0 - p_high)).ln();
            }
        }
        l
    }

    fn learn_levels(&mut self, pane: &[Stratum], pane_ms: i64) {
        let fade = decay(pane_ms);
        self.groups.iter_mut().for_each(|g| g.scale(fade));
        if self.levels.len() < pane.len() {
            self.levels.resize(pane.len(), [CountPane { hits: 0.0, total: 0.0 }; GROUPS_MAX]);
        }
        for (level, stratum) in self.levels.iter_mut().zip(pane) {
            for g in 0..GROUPS_MAX {
                if stratum[g].total > 0.0 {
                    level[g].scale((-stratum[g].total / LEVEL_EVENTS).exp());
                    level[g].hits += stratum[g].hits;
                    level[g].total += stratum[g].total;
                    self.groups[g].hits += stratum[g].hits;
                    self.groups[g].total += stratum[g].total;
                }
            }
        }
        let known = (0..GROUPS_MAX).rev().find(|g| self.groups[*g].total > 0.0).map_or(0, |g| g + 1);
        while self.comparisons.len() < known {
            let group = self.comparisons.len();
            self.comparisons.push(Comparison::new(group));
        }
    }

    /// Evidence has reached the threshold: alarm, or held because the ratio is not beyond the edge.
    fn speak(&mut self, g: usize, at_ms: i64, pane_ms: i64, injection: f64, sum: f64) -> Reading {
        let (log_evidence, threshold) = nats(sum, injection);
        let edge = self.edge(g).unwrap_or(self.settings.edge);
        let comparison = &mut self.comparisons[g];
        let arm = comparison.evidence.best();
        let onset = comparison.onset(arm, pane_ms);
        let mut after = Matched::default();
        for (_, matched, _) in comparison.recent.iter().filter(|r| r.0 >= onset.at_ms) {
            after.add(matched);
        }
        if after.hits[0] + after.misses[0] <= 0.0 || onset.at_ms <= comparison.recent.front().map_or(i64::MIN, |r| r.0) {
            // It began before what is remembered pane by pane: the pointer's sums reach farther.
            after = comparison.since[arm].0;
        }
        let mut quiet = comparison.quiet;
        quiet.take(&comparison.since[arm].1);
        // A violation from birth has no before.
        let before = quiet.ratio().or(comparison.quiet.ratio()).unwrap_or(1.0);
        let (ratio, low, high) = after.interval(comparison.ladder.phi(), PAGE_WIDTH).unwrap_or((0.0, 0.0, f64::INFINITY));
        let change = Change { before, after: ratio, low, high };
        if ratio >= edge {
            let held = *self.held_since_ms.get_or_insert(at_ms);
            if at_ms - held >= super::HELD_RESET_MS {
                self.calm();
            }
            let call = Call::Held { change, why: "the ratio is within tolerance" };
            return Reading { state: self.state(), log_evidence, threshold, call };
        }
        // Half way back to what was usual, and within tolerance at least: that is what recovery must refute.
        let usual = before.clamp(edge, edge.max(1.0));
        let boundary = (ratio.max(0.01) * usual).sqrt().max(edge).min(0.5 * (edge + usual)).max(edge);
        let reference = comparison.reference;
        comparison.quiet = quiet;
        self.calm();
        self.frozen = Some(Frozen {
            group: g,
            reference,
            before,
            boundary,
            recovery: Mixture::new(RECOVERY_PARTS.len()),
            seen: after,
            since: [Matched::default(); RECOVERY_PARTS.len()],
        });
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }
    }

    /// The same bet with sides exchanged: the null is "no better than the boundary".
    fn watch_recovery(&mut self, pane: &[Stratum], at_ms: i64, pane_ms: i64) -> Reading {
        let injection = recovery_injection(pane_ms);
        let Some((g, h, c)) = self.frozen.as_ref().map(|f| (f.group, f.reference, f.boundary)) else {
            return self.reading(Call::Quiet, injection);
        };
        let matched = Matched::of(pane, g, h, self.settings.outcome);
        let healthy = c.max(1.0).max(c * 1.1);
        let l = self.likelihoods(pane, g, h, c, &RECOVERY_PARTS.map(|part| c + part * (healthy - c)));
        let phi = self.comparisons[g].ladder.phi();
        let Some(frozen) = self.frozen.as_mut() else {
            return self.reading(Call::Quiet, injection);
        };
        frozen.seen.add(&matched);
        let sum = frozen.recovery.step(&l, injection, at_ms);
        for (j, since) in frozen.since.iter_mut().enumerate() {
            if frozen.recovery.start_of(j) == at_ms {
                *since = Matched::default();
            }
            since.add(&matched);
        }
        let (log_evidence, threshold) = nats(sum, injection);
        let (ratio, low, high) = frozen.since[frozen.recovery.best()].interval(phi, 1.96).unwrap_or((0.0, 0.0, f64::INFINITY));
        if sum >= 1.0 && ratio >= c {
            let change = Change { before: frozen.before, after: ratio, low, high };
            self.frozen = None;
            self.calm();
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Recovered { change } };
        }
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }
    }

    fn reading(&self, call: Call, injection: f64) -> Reading {
        let sum = match &self.frozen {
            Some(frozen) => frozen.recovery.sum(),
            None => self.comparisons.iter().map(|c| c.evidence.sum()).sum(),
        };
        let (log_evidence, threshold) = nats(sum, injection);
        Reading { state: self.state(), log_evidence, threshold, call }
    }
}

// === impl Comparison ===

impl Comparison {
    fn new(group: usize) -> Comparison {
        Comparison {
            reference: group,
            quiet: Matched::default(),
            rho_sum: 0.0,
            rho_weight: 0.0,
            ladder: Ladder::default(),
            previous: None,
            lagged: VecDeque::new(),
            noise_panes: 0,
            evidence: Mixture::new(ARMS),
            since: Default::default(),
            recent: VecDeque::new(),
        }
    }

    fn refer_to(&mut self, reference: usize) {
        self.reference = reference;
        self.quiet = Matched::default();
        self.previous = None;
        self.lagged.clear();
        self.ladder.part();
        // The evidence stays: bets on another pair, chosen beforehand, are as fair as those before.
        self.since = Default::default();
        self.recent.clear();
    }

    fn calm(&mut self) {
        self.evidence.clear();
        self.since = Default::default();
        self.recent.clear();
        self.lagged.clear();
        self.previous = None;
    }

    /// Correlation of the events of a group within a pane beyond what both groups share, shrunk towards none.
    fn rho(&self) -> f64 {
        (self.rho_sum / (self.rho_weight + 20.0)).clamp(0.0, 1.0)
    }

    fn learn(&mut self, matched: &Matched, contrast: Option<Contrast>, pane_ms: i64) {
        self.quiet.scale(decay(pane_ms));
        let rho = self.rho();
        self.quiet.add(matched);
        let Some(newest) = contrast else {
            return;
        };
        self.lagged.push_back(newest);
        if self.lagged.len() <= NOISE_LAG {
            return;
        }
        let Some(contrast) = self.lagged.pop_front() else {
            return;
        };
        if let Some(last) = self.previous {
            let whole = contrast.whole + last.whole;
            let d = (contrast.difference - last.difference).powi(2) / whole;
            let h = (contrast.variance + last.variance) / whole;
            self.rho_sum = self.rho_sum * 0.9995 + 2.0 * (d - h);
            self.rho_weight = self.rho_weight * 0.9995 + 2.0 * (1.0 - h);
        }
        self.previous = Some(contrast);
        let within = contrast.variance + rho * (contrast.whole - contrast.variance).max(0.0);
        let n = contrast.whole / within.max(1e-12);
        self.ladder.feed(contrast.difference * n, n, contrast.whole);
        self.noise_panes = self.noise_panes.saturating_add(1);
    }

    fn remember(&mut self, at_ms: i64, matched: Matched, l: &[f64; ARMS]) {
        if self.recent.len() >= RECENT {
            for i in 0..RECENT / 4 {
                let (at, mut sums, mut nats) = self.recent[2 * i];
                let (_, more, more_nats) = self.recent[2 * i + 1];
                sums.add(&more);
                nats.iter_mut().zip(more_nats).for_each(|(n, m)| *n += m);
                self.recent[i] = (at, sums, nats);
            }
            self.recent.drain(RECENT / 4..RECENT / 2);
        }
        self.recent.push_back((at_ms, matched, l.map(|l| l.min(super::NATS_PER_PANE_MAX) as f32)));
    }

    /// Where the evidence began: the best start over the recent panes for the winning alternative, 5 to 95 % of its weight.
    fn onset(&self, arm: usize, pane_ms: i64) -> Onset {
        let panes = self.recent.iter().rev().map(|(at, _, l)| (*at, f64::from(l[arm])));
        let onset = onset_of(panes, self.evidence.start_of(arm), pane_ms);
        // What was merged is told by its first pane.
        let after = |at: i64| self.recent.iter().find(|r| r.0 > at).map_or(at, |r| r.0);
        let before = self.recent.iter().rev().find(|r| r.0 < onset.from_ms + pane_ms).map_or(onset.from_ms, |r| r.0);
        Onset { at_ms: onset.at_ms, from_ms: onset.from_ms.min(before), to_ms: onset.to_ms.max(after(onset.to_ms - pane_ms)) }
    }
}

// === impl Matched ===

impl Matched {
    /// Group `g` against `h` in every stratum where both are; for adverse outcomes the sides are exchanged, so that a ratio below 1
    /// always says that g is worse off.
    fn of(pane: &[Stratum], g: usize, h: usize, outcome: Outcome) -> Matched {
        let (low, high) = if outcome == Outcome::Favourable { (g, h) } else { (h, g) };
        let mut sum = Matched::default();
        for stratum in pane {
            let (x, y) = (stratum[low], stratum[high]);
            if x.total <= 0.0 || y.total <= 0.0 {
                continue;
            }
            let n = x.total + y.total;
            sum.g += x.hits * y.total / n;
            sum.h += y.hits * x.total / n;
            sum.variance += (x.total * y.total * (x.hits + y.hits) - x.hits * y.hits * n) / (n * n);
            sum.hits = [sum.hits[0] + x.hits, sum.hits[1] + y.hits];
            sum.misses = [sum.misses[0] + x.total - x.hits, sum.misses[1] + y.total - y.hits];
        }
        sum
    }

    fn add(&mut self, other: &Matched) {
        self.g += other.g;
        self.h += other.h;
        self.variance += other.variance;
        for i in 0..2 {
            self.hits[i] += other.hits[i];
            self.misses[i] += other.misses[i];
        }
    }

    /// Takes back what was added; what has faded since is taken as well, so nothing falls below none.
    fn take(&mut self, other: &Matched) {
        let less = |x: &mut f64, y: f64| *x = (*x - y).max(0.0);
        less(&mut self.g, other.g);
        less(&mut self.h, other.h);
        less(&mut self.variance, other.variance);
        for i in 0..2 {
            less(&mut self.hits[i], other.hits[i]);
            less(&mut self.misses[i], other.misses[i]);
        }
    }

    fn scale(&mut self, factor: f64) {
        for x in [&mut self.g, &mut self.h, &mut self.variance].into_iter().chain(&mut self.hits).chain(&mut self.misses) {
            *x *= factor;
        }
    }

    fn ratio(&self) -> Option<f64> {
        (self.h > 0.0).then(|| self.g / self.h)
    }

    /// Drawn towards 1 by a few hits, and never extreme: by this the noise of a contrast is told.
    fn shrunk_ratio(&self) -> f64 {
        ((self.g + 3.0) / (self.h + 3.0)).clamp(0.1, 10.0)
    }

    /// Standard deviation of ln ratio; `phi` is the over-dispersion of sums.
    fn deviation(&self, phi: f64) -> Option<f64> {
        (self.g > 0.0 && self.h > 0.0 && self.variance > 0.0).then(|| (phi * self.variance / (self.g * self.h)).sqrt())
    }

    /// Ratio and interval of `width` standard errors of its logarithm. Without a single hit on one side half a hit stands for it.
    fn interval(&self, phi: f64, width: f64) -> Option<(f64, f64, f64)> {
        if let Some(deviation) = self.deviation(phi) {
            let ratio = self.g / self.h;
            return Some((ratio, ratio * (-width * deviation).exp(), ratio * (width * deviation).exp()));
        }
        if self.hits[1] <= 0.0 || self.hits[0] > 0.0 {
            return None;
        }
        let exposure = self.misses[0] + self.hits[0];
        let rate = self.hits[1] / (self.hits[1] + self.misses[1]);
        // Three events expected and none seen: 95 %.
        Some((0.0, 0.0, 3.0 * phi / exposure.max(1e-9) / rate))
    }
}

// === impl Contrast ===

impl Contrast {
    /// Difference of g from `usual` times h, inverse-variance weighted over strata by their matched sizes.
    fn of(pane: &[Stratum], g: usize, h: usize, usual: f64, outcome: Outcome) -> Option<Contrast> {
        let (low, high) = if outcome == Outcome::Favourable { (g, h) } else { (h, g) };
        let (mut weight, mut difference, mut variance, mut whole) = (0.0, 0.0, 0.0, 0.0);
        for stratum in pane {
            let (x, y) = (stratum[low], stratum[high]);
            if x.total <= 0.0 || y.total <= 0.0 {
                continue;
            }
            let w = x.total * y.total / (x.total + y.total);
            // The level of this very pane, from both groups: a level that moves is no noise of the contrast.
            let p_high = ((x.hits + y.hits + 0.5) / (usual * x.total + y.total + 1.0)).clamp(1e-4, 0.99);
            let p_low = (usual * p_high).min(0.99);
            let (v_low, v_high) = (p_low * (1.0 - p_low), usual * usual * p_high * (1.0 - p_high));
            weight += w;
            difference += w * (x.hits / x.total - usual * y.hits / y.total);
            variance += w * w * (v_low / x.total + v_high / y.total);
            whole += w * w * (v_low + v_high);
        }
        (weight > 0.0).then(|| Contrast { difference: difference / weight, variance: variance / (weight * weight), whole: whole / (weight * weight) })
    }
}

impl CountPane {
    fn scale(&mut self, factor: f64) {
        self.hits *= factor;
        self.total *= factor;
    }
}

/// The favoured rate p of the pair (edge p, p) with the least divergence from (q_low, q_high) under these sizes: the smaller root of
/// edge n p^2 - (a (1 + edge) + b edge + c) p + a = 0, with a expected hits, b and c expected misses of either side.
fn projection(q_low: f64, q_high: f64, n_low: f64, n_high: f64, edge: f64) -> f64 {
    let (a, b, c) = (n_low * q_low + n_high * q_high, n_low * (1.0 - q_low), n_high * (1.0 - q_high));
    let middle = a * (1.0 + edge) + b * edge + c;
    let root = (middle * middle - 4.0 * edge * (a + b + c) * a).max(0.0).sqrt();
    (2.0 * a / (middle + root)).clamp(1e-12, (1.0 - 1e-12f64).min((1.0 - 1e-12) / edge))
}

/// Nats per event between the pair and its projection, for shares of the sizes.
fn divergence(q_low: f64, q_high: f64, share_low: f64, share_high: f64, edge: f64) -> f64 {
    let p = projection(q_low, q_high, share_low, share_high, edge);
    let of = |q: f64, p: f64| q * (q / p).ln() + (1.0 - q) * ((1.0 - q) / (1.0 - p)).ln();
    share_low * of(q_low, edge * p) + share_high * of(q_high, p)
}

fn second_largest(totals: &[f64; GROUPS_MAX]) -> f64 {
    let (mut first, mut second) = (0.0, 0.0);
    for t in totals {
        if *t > first {
            (first, second) = (*t, first);
        } else if *t > second {
            second = *t;
        }
    }
    second
}

#[cfg(test)]
mod tests;
