//! Silence: how long may nothing come in before that is news?
//!
//! **Idea.** Learn the gaps between arrivals and say what gap this series shows by itself once in so many months. Time is counted in
//! arrivals expected at this half hour of a workday or weekend, so that a slow hour has slow clocks and one law serves all hours;
//! while young (less than a day) all hours are one. **Formula.** Above u, the 95th percentile, gaps follow a generalised Pareto law,
//! fitted by probability-weighted moments (Hosking and Wallis 1987): with a0 the mean excess and a1 = E[excess (1 - F)],
//! xi = 2 - a0 / (a0 - 2 a1), sigma = 2 a0 a1 / (a0 - 2 a1); xi is taken one standard error larger and at least .05. A share of b
//! false pages per pane of m expected gaps allows the tail p = b / m, so limit = u + sigma / xi ((.05 / p)^xi - 1). **Sees** a stop,
//! a few times q99.99 after it began, and never sooner than eight seconds or two panes; does not see traffic that thins out (that is
//! `counts`). **Proof of life.** Silence of one series is news only while something else lives: with `alive` false the clock stands
//! still. **Pauses.** A long gap met while learning, or closed as a false alarm or as normal, is allowed again (and a quarter more)
//! when it begins at about the same time of day. A series with nightly pauses may pause over a first weekend too, since none was met;
//! a stop that begins on that Friday night or weekend is then found on Monday only: learn for eight days where that matters. **Knobs.** `explicit_ms` is a rule: that silence is an alarm, whatever was learned; `armed_after_ms`.
//! **False alarms**: at most the injected sum as far as the tail is Pareto; bursts are measured below.

use serde::{Deserialize, Serialize};

use super::{Band, Sees, decay};
use crate::verdict::{Call, Change, Onset, Reading, Release, State};

const DAY_MS: i64 = 86_400_000;
const MONDAY_MS: i64 = 4 * DAY_MS;
/// Half hours of a workday, then of a weekend's day.
const CELLS_PER_DAY: usize = 48;
const CELL_MS: i64 = DAY_MS / CELLS_PER_DAY as i64;
/// Exposure for which a cell leans on the overall rate.
const CELL_SHRINK_MS: f64 = 900_000.0;
const GAPS_MIN: f64 = 200.0;
/// Arrivals before the pace is known well enough to measure gaps by it.
const PACE_MIN: f64 = 30.0;
const TAIL: f64 = 0.05;
const XI_MIN: f64 = 0.05;
const XI_MAX: f64 = 0.8;
/// Shape for a series whose gaps are all alike, so that no tail can be fitted.
const XI_CLOCKWORK: f64 = 0.3;
const TAIL_GAPS_MIN: f64 = 5.0;
/// Shorter silences are hiccups of the way here, not of the series: four panes at their finest.
const LIMIT_MS_MIN: f64 = 8_000.0;
const LIMIT_PANES_MIN: f64 = 2.0;
/// Gaps on a logarithmic grid: so many bins for each factor of e, from this many expected arrivals on.
const BINS_PER_E: f64 = 20.0;
const GAP_LEAST: f64 = 1e-4;
const BIN_MAX: u16 = 600;
/// A gap this long that the law calls impossible is a pause, a matter of the calendar.
const PAUSE_MS_MIN: i64 = 20 * 60_000;
const PAUSE_TAIL: f64 = 1e-6;
const PAUSES_MAX: usize = 64;
/// Pauses begin at the same time of day, give or take.
const PAUSE_NEAR_MS: i64 = 90 * 60_000;
const PAUSE_FACTOR: f64 = 1.25;
const RECOVERY_ARRIVALS: u32 = 5;
const HOUR_MS: i64 = 3_600_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapSettings {
    /// A silence of this length is an alarm, whatever was learned.
    pub explicit_ms: Option<i64>,
    /// Learns at least so long before it speaks.
    pub armed_after_ms: i64,
}

impl Default for GapSettings {
    fn default() -> Self {
        GapSettings { explicit_ms: None, armed_after_ms: 3 * DAY_MS }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapBank {
    settings: GapSettings,
    first_ms: Option<i64>,
    newest_ms: i64,
    /// (arrivals, living milliseconds) overall and per half hour.
    overall: (f64, f64),
    cells: Vec<(f64, f64)>,
    /// Gaps in expected arrivals, on the logarithmic grid, sorted by bin.
    gaps: Vec<(u16, f64)>,
    gap_count: f64,
    fit: Option<Fit>,
    pauses: Vec<Pause>,
    running: Running,
    /// The present limit; renewed at every pane.
    limit_ms: Option<i64>,
    frozen: Option<Frozen>,
    /// Its law is a predecessor's: gaps of its own since.
    inherited: bool,
    own_gaps: f64,
    hour: i64,
}

/// The gap that is open now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Running {
    /// Start: the last arrival, or the first pane.
    since_ms: i64,
    living_ms: f64,
    expected: f64,
    /// It began with an arrival and not with a restart: only such a gap is learned.
    whole: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Fit {
    u: f64,
    sigma: f64,
    xi: f64,
    q99: f64,
    largest: f64,
    /// Gaps known at the fit.
    at_count: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Pause {
    starts_at_ms_of_day: i64,
    length_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    since_ms: i64,
    limit_ms: f64,
    usual_s: f64,
    /// Arrivals in a row since they came back, the first of them, and the longest gap among them.
    arrivals: u32,
    back_ms: i64,
    longest_ms: i64,
    last_ms: i64,
}

// === impl Fit ===

impl Fit {
    /// Expected arrivals exceeded by a gap with this probability.
    fn limit(&self, p: f64) -> f64 {
        let tail = self.u + self.sigma / self.xi * ((TAIL / p.clamp(1e-300, TAIL)).powf(self.xi) - 1.0);
        tail.max(self.largest)
    }

    /// ln of the probability that a gap is longer.
    fn ln_beyond(&self, x: f64) -> f64 {
        if x <= self.u { 0.0 } else { TAIL.ln() - (self.xi * (x - self.u) / self.sigma).ln_1p() / self.xi }
    }
}

// === impl GapBank ===

impl GapBank {
    pub fn new(settings: GapSettings) -> GapBank {
        GapBank {
            settings,
            first_ms: None,
            newest_ms: i64::MIN,
            overall: (0.0, 0.0),
            cells: vec![(0.0, 0.0); 2 * CELLS_PER_DAY],
            gaps: Vec::new(),
            gap_count: 0.0,
            fit: None,
            pauses: Vec::new(),
            running: Running::default(),
            limit_ms: settings.explicit_ms,
            frozen: None,
            inherited: false,
            own_gaps: 0.0,
            hour: i64::MIN,
        }
    }

    /// Judges first, learns after. `arrivals_ms`: ascending, within the pane. `alive`: something else came in, or this series did.
    /// `injection`: false pages this bank may spend on this pane; 0 gathers no evidence but learns.
    pub fn judge(&mut self, arrivals_ms: &[i64], pane_start_ms: i64, pane_ms: i64, alive: bool, injection: f64) -> Reading {
        if self.first_ms.is_none() {
            self.first_ms = Some(pane_start_ms);
            self.running.since_ms = pane_start_ms;
        }
        let end_ms = pane_start_ms + pane_ms;
        self.newest_ms = end_ms;
        if !alive && arrivals_ms.is_empty() {
            return self.reading(Call::Quiet, injection, pane_ms);
        }
        let rate = self.rate(pane_start_ms);
        if self.frozen.is_some() {
            return self.watch_recovery(arrivals_ms, end_ms, pane_ms, injection);
        }
        self.walk(arrivals_ms, pane_start_ms, end_ms, rate);
        self.limit_ms = self.limit(rate, pane_ms, injection).map(|ms| ms.min(1e15) as i64);
        if let Some(limit) = self.limit_ms
            && injection > 0.0
            && self.running.living_ms > limit as f64
        {
            return self.speak(limit, rate, end_ms, pane_ms, injection);
        }
        self.learn(arrivals_ms.len() as f64, pane_start_ms, pane_ms);
        self.reading(Call::Quiet, injection, pane_ms)
    }

    /// History that is not judged.
    pub fn learn_only(&mut self, arrivals_ms: &[i64], pane_start_ms: i64, pane_ms: i64, alive: bool) {
        self.judge(arrivals_ms, pane_start_ms, pane_ms, alive, 0.0);
    }

    /// The length of silence that is an alarm now; `None` while learning.
    pub fn limit_ms(&self) -> Option<i64> {
        self.limit_ms
    }

    pub fn release(&mut self, how: Release) {
        let Some(frozen) = self.frozen.take() else {
            return;
        };
        match how {
            Release::Fixed | Release::Expected => {}
            Release::NewNormal | Release::FalseAlarm => {
                let until = if frozen.arrivals > 0 { frozen.back_ms } else { self.newest_ms };
                self.remember_pause(frozen.since_ms, until - frozen.since_ms);
            }
        }
        self.restart_clock();
    }

    /// The boundary between history and live: what was found in history is listed, never paged, and the clock starts anew.
    pub fn start_live(&mut self) {
        self.frozen = None;
        self.restart_clock();
    }

    pub fn state(&self) -> State {
        if self.frozen.is_some() {
            State::Frozen
        } else if self.settings.explicit_ms.is_some() || self.is_armed() {
            State::Armed
        } else {
            State::Warming
        }
    }

    /// `needs_events` counts arrivals; the days that it must have seen come on top.
    pub fn sees(&self, _injection: f64) -> Sees {
        let have = if self.inherited { self.own_gaps } else { self.gap_count };
        Sees { armed: self.state() != State::Warming, needs_events: (GAPS_MIN - have).max(0.0) }
    }

    /// The 99th percentile of gaps at this time, in seconds, up to the limit.
    pub fn baseline(&self) -> Option<Band> {
        let fit = self.fit?;
        let value = fit.q99 / self.rate(self.newest_ms) / 1_000.0;
        Some(Band { value, low: 0.0, high: self.limit_ms.map_or(value, |ms| ms as f64 / 1_000.0), events: self.gap_count })
    }

    /// A successor with the same law of gaps, discounted to at most `weight_max` of them, and a pace of its own.
    pub fn succeed(&self, weight_max: f64) -> GapBank {
        let mut next = GapBank::new(self.settings);
        let share = (weight_max / self.gap_count.max(1.0)).min(1.0);
        next.gaps = self.gaps.iter().map(|(bin, n)| (*bin, n * share)).collect();
        next.gap_count = self.gap_count * share;
        next.fit = self.fit;
        next.pauses.clone_from(&self.pauses);
        next.inherited = self.is_armed();
        next
    }

    pub fn reset(&mut self) {
        *self = GapBank::new(self.settings);
    }

    // --- the recipe, step by step ---

    fn is_armed(&self) -> bool {
        let enough = if self.inherited {
            self.own_gaps >= GAPS_MIN
        } else {
            self.gap_count >= GAPS_MIN && self.first_ms.is_some_and(|first| self.newest_ms - first >= self.settings.armed_after_ms)
        };
        enough && self.fit.is_some()
    }

    fn restart_clock(&mut self) {
        self.running = Running { since_ms: self.newest_ms, ..Running::default() };
    }

    fn cell(at_ms: i64) -> usize {
        let weekend = (at_ms - MONDAY_MS).rem_euclid(7 * DAY_MS) >= 5 * DAY_MS;
        (at_ms.rem_euclid(DAY_MS) / CELL_MS) as usize + if weekend { CELLS_PER_DAY } else { 0 }
    }

    /// Expected arrivals per millisecond.
    fn rate(&self, at_ms: i64) -> f64 {
        let (n, ms) = self.overall;
        let overall = (n + 0.5) / ms.max(1.0);
        if ms < DAY_MS as f64 {
            return overall;
        }
        let cell = Self::cell(at_ms);
        let own = self.cells[cell];
        // A day of the week not yet met borrows from the other kind.
        let (n, ms) = if own.1 > 0.0 { own } else { self.cells[(cell + CELLS_PER_DAY) % (2 * CELLS_PER_DAY)] };
        (n + overall * CELL_SHRINK_MS) / (ms + CELL_SHRINK_MS)
    }

    /// Lets the clock run through the pane and learns every gap that closed.
    fn walk(&mut self, arrivals_ms: &[i64], start_ms: i64, end_ms: i64, rate: f64) {
        let mut from = start_ms;
        for at in arrivals_ms {
            let at = (*at).clamp(from, end_ms);
            self.running.living_ms += (at - from) as f64;
            self.running.expected += (at - from) as f64 * rate;
            if self.running.whole && self.overall.0 >= PACE_MIN {
                let living = self.running.living_ms as i64;
                let pause = living >= PAUSE_MS_MIN && self.fit.is_some_and(|fit| self.running.expected > fit.limit(PAUSE_TAIL));
                if pause {
                    self.remember_pause(self.running.since_ms, living);
                } else {
                    self.learn_gap(self.running.expected);
                }
            }
            self.running = Running { since_ms: at, whole: true, ..Running::default() };
            from = at;
        }
        self.running.living_ms += (end_ms - from) as f64;
        self.running.expected += (end_ms - from) as f64 * rate;
    }

    fn learn_gap(&mut self, expected: f64) {
        let bin = ((expected.max(GAP_LEAST) / GAP_LEAST).ln() * BINS_PER_E).min(f64::from(BIN_MAX)) as u16;
        match self.gaps.binary_search_by_key(&bin, |g| g.0) {
            Ok(i) => self.gaps[i].1 += 1.0,
            Err(i) => self.gaps.insert(i, (bin, 1.0)),
        }
        self.gap_count += 1.0;
        self.own_gaps += 1.0;
    }

    fn remember_pause(&mut self, since_ms: i64, length_ms: i64) {
        let starts = since_ms.rem_euclid(DAY_MS);
        match self.pauses.iter_mut().find(|p| near(p.starts_at_ms_of_day, starts) && p.length_ms / 2 < length_ms && length_ms / 2 < p.length_ms) {
            Some(pause) => pause.length_ms = pause.length_ms.max(length_ms),
            None => {
                if self.pauses.len() >= PAUSES_MAX {
                    self.pauses.remove(0);
                }
                self.pauses.push(Pause { starts_at_ms_of_day: starts, length_ms });
            }
        }
    }

    /// Counts arrivals and living time of a pane that was not an incident; every hour old things fade and the law is fitted anew.
    fn learn(&mut self, arrivals: f64, start_ms: i64, pane_ms: i64) {
        let cell = &mut self.cells[Self::cell(start_ms)];
        for place in [&mut self.overall, cell] {
            place.0 += arrivals;
            place.1 += pane_ms as f64;
        }
        let hour = start_ms.div_euclid(HOUR_MS);
        if hour != self.hour {
            self.hour = hour;
            let fade = decay(HOUR_MS);
            for place in self.cells.iter_mut().chain([&mut self.overall]) {
                place.0 *= fade;
                place.1 *= fade;
            }
            self.gaps.iter_mut().for_each(|g| g.1 *= fade);
            self.gaps.retain(|g| g.1 > 0.01);
            self.gap_count = self.gaps.iter().map(|g| g.1).sum();
            self.fit = self.fitted();
        } else if self.gap_count >= GAPS_MIN && self.fit.is_none_or(|fit| self.gap_count >= 1.25 * fit.at_count) {
            self.fit = self.fitted();
        }
    }

    /// The Pareto law above the 95th percentile, by probability-weighted moments.
    fn fitted(&self) -> Option<Fit> {
        if self.gap_count < GAPS_MIN {
            return None;
        }
        let value = |bin: u16| GAP_LEAST * ((f64::from(bin) + 0.5) / BINS_PER_E).exp();
        let (mut below, mut u, mut q99) = (0.0, 0.0, 0.0);
        for (bin, n) in &self.gaps {
            below += n;
            if u == 0.0 && below >= (1.0 - TAIL) * self.gap_count {
                u = value(*bin);
            }
            if q99 == 0.0 && below >= 0.99 * self.gap_count {
                q99 = value(*bin);
            }
        }
        let beyond = || self.gaps.iter().map(|(bin, n)| (value(*bin) - u, *n)).filter(|x| x.0 > 0.0);
        let count: f64 = beyond().map(|x| x.1).sum();
        let largest = self.gaps.last().map_or(0.0, |g| value(g.0));
        let (mut a0, mut a1, mut seen) = (0.0, 0.0, 0.0);
        for (excess, n) in beyond() {
            let above = 1.0 - (seen + 0.5 * n) / count;
            a0 += excess * n / count;
            a1 += excess * above * n / count;
            seen += n;
        }
        // A clockwork has no tail: a tenth of its threshold stands for it.
        let least = 0.1 * u.max(GAP_LEAST);
        let spread = a0 - 2.0 * a1;
        let (xi, sigma) = if count < TAIL_GAPS_MIN || spread <= 1e-12 {
            (XI_CLOCKWORK, a0)
        } else {
            let xi = 2.0 - a0 / spread;
            let x = xi.clamp(-0.45, 0.45);
            let variance = (1.0 - x) * (2.0 - x).powi(2) * (1.0 - x + 2.0 * x * x) / ((1.0 - 2.0 * x) * (3.0 - 2.0 * x)) / count;
            (xi + variance.sqrt(), 2.0 * a0 * a1 / spread)
        };
        Some(Fit { u, sigma: sigma.max(least), xi: xi.clamp(XI_MIN, XI_MAX), q99, largest, at_count: self.gap_count })
    }

    /// The silence that is an alarm at this pane's end, in living milliseconds.
    fn limit(&self, rate: f64, pane_ms: i64, injection: f64) -> Option<f64> {
        if let Some(explicit) = self.settings.explicit_ms {
            return Some(explicit as f64);
        }
        let fit = self.fit.filter(|_| self.is_armed() && injection > 0.0)?;
        // The clock ran at other paces before: what has gone by counts as it was, the rest runs at the present pace.
        let left = (fit.limit(injection / self.gaps_per_pane(pane_ms)) - self.running.expected) / rate;
        let least = LIMIT_MS_MIN.max(LIMIT_PANES_MIN * pane_ms as f64);
        let starts = self.running.since_ms.rem_euclid(DAY_MS);
        let pause = self.pauses.iter().filter(|p| near(p.starts_at_ms_of_day, starts)).map(|p| p.length_ms as f64 * PAUSE_FACTOR);
        Some(pause.chain(self.first_weekend_ms()).fold((self.running.living_ms + left).max(least), f64::max))
    }

    /// A series that pauses at night and whose weekends were never met may pause over the first: until Monday, and a night longer. One
    /// that never pauses is watched through its first weekend too.
    fn first_weekend_ms(&self) -> Option<f64> {
        let since = self.running.since_ms;
        let monday = since - (since - MONDAY_MS).rem_euclid(7 * DAY_MS);
        let met = self.first_ms.is_some_and(|first| first <= monday - 2 * DAY_MS);
        let longest = self.pauses.iter().map(|p| p.length_ms).max()?;
        let begins_before = longest.max(DAY_MS / 2);
        let saturday = monday + 5 * DAY_MS;
        (!met && since >= saturday - begins_before).then(|| (monday + 7 * DAY_MS - since) as f64 + longest as f64 * PAUSE_FACTOR)
    }

    fn gaps_per_pane(&self, pane_ms: i64) -> f64 {
        ((self.overall.0 + 0.5) / self.overall.1.max(1.0) * pane_ms as f64).max(1e-12)
    }

    fn speak(&mut self, limit_ms: i64, rate: f64, end_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let silence_s = self.running.living_ms / 1_000.0;
        let usual_s = self.fit.map_or(0.0, |fit| fit.q99 / rate / 1_000.0);
        let since_ms = self.running.since_ms;
        let to_ms = (since_ms + (usual_s * 1_000.0) as i64).clamp(since_ms + 1, end_ms.max(since_ms + 1));
        self.frozen = Some(Frozen { since_ms, limit_ms: limit_ms as f64, usual_s, arrivals: 0, back_ms: end_ms, longest_ms: 0, last_ms: end_ms });
        // The gap goes on: so far it is as long as this.
        let change = Change { before: usual_s, after: silence_s, low: silence_s, high: silence_s };
        let call = Call::Alarm { change, onset: Onset { at_ms: since_ms, from_ms: since_ms, to_ms } };
        self.reading(call, injection, pane_ms)
    }

    /// Back when arrivals follow each other within the limit, more than five and for at least half as long as the limit.
    fn watch_recovery(&mut self, arrivals_ms: &[i64], end_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let Some(frozen) = self.frozen.as_mut() else {
            return self.reading(Call::Quiet, injection, pane_ms);
        };
        for at in arrivals_ms {
            let gap = at - frozen.last_ms;
            if frozen.arrivals == 0 || gap as f64 > frozen.limit_ms {
                (frozen.arrivals, frozen.back_ms, frozen.longest_ms) = (0, *at, 0);
            } else {
                frozen.longest_ms = frozen.longest_ms.max(gap);
            }
            frozen.arrivals = frozen.arrivals.saturating_add(1);
            frozen.last_ms = *at;
        }
        let here = (end_ms - frozen.last_ms) as f64 <= frozen.limit_ms;
        let lasted = (end_ms - frozen.back_ms) as f64 >= 0.5 * frozen.limit_ms;
        if frozen.arrivals <= RECOVERY_ARRIVALS || !here || !lasted {
            return self.reading(Call::Quiet, injection, pane_ms);
        }
        let after = frozen.longest_ms as f64 / 1_000.0;
        let change = Change { before: frozen.usual_s, after, low: after, high: after };
        self.running = Running { since_ms: frozen.last_ms, living_ms: (end_ms - frozen.last_ms) as f64, expected: 0.0, whole: false };
        self.frozen = None;
        self.reading(Call::Recovered { change }, injection, pane_ms)
    }

    /// Evidence: how rare is a gap like the running one among the gaps of a pane?
    fn reading(&self, call: Call, injection: f64, pane_ms: i64) -> Reading {
        let threshold = if injection > 0.0 { -injection.ln() } else { f64::INFINITY };
        let log_evidence = match (&call, self.fit) {
            (Call::Alarm { .. }, _) => threshold,
            (_, Some(fit)) if injection > 0.0 && self.is_armed() && self.frozen.is_none() => {
                let rarity = -fit.ln_beyond(self.running.expected) - self.gaps_per_pane(pane_ms).ln();
                rarity.clamp(-50.0, threshold - 0.01)
            }
            _ => 0.0,
        };
        Reading { state: self.state(), log_evidence, threshold, call }
    }
}

/// Times of day no farther apart than pauses wander.
fn near(a: i64, b: i64) -> bool {
    let apart = (a - b).abs();
    apart.min(DAY_MS - apart) <= PAUSE_NEAR_MS
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    /// Arrivals with gamma gaps; `shape` 1 is Poisson, below it bursts.
    struct Stream {
        noise: Noise,
        next_ms: f64,
        shape: f64,
        mean_ms: f64,
    }

    impl Stream {
        fn new(seed: u64, shape: f64, mean_ms: f64) -> Stream {
            Stream { noise: Noise::new(seed), next_ms: 0.0, shape, mean_ms }
        }

        fn pane(&mut self, start_ms: i64, pane_ms: i64) -> Vec<i64> {
            let mut out = Vec::new();
            while (self.next_ms as i64) < start_ms + pane_ms {
                if self.next_ms as i64 >= start_ms {
                    out.push(self.next_ms as i64);
                }
                self.next_ms += self.mean_ms * self.noise.gamma(self.shape);
            }
            out
        }
    }

    /// About one page a month in panes of two seconds.
    const B: f64 = 1e-6;

    #[test]
    fn quiet_streams_stay_within_the_budget_plain_and_bursty() {
        for (shape, mean_ms) in [(1.0, 20_000.0), (0.3, 20_000.0), (0.5, 300.0)] {
            let (mut pages, series, panes) = (0, 20, 20_000);
            for seed in 0..series {
                let mut stream = Stream::new(40 + seed, shape, mean_ms);
                let mut bank = GapBank::new(GapSettings { armed_after_ms: 12 * HOUR_MS, ..GapSettings::default() });
                for i in 0..4_320 + panes {
                    let b = if i < 4_320 { 0.0 } else { 10.0 / (series * panes as u64) as f64 };
                    let at = i * 10_000;
                    if let Call::Alarm { .. } = bank.judge(&stream.pane(at, 10_000), at, 10_000, true, b).call {
                        pages += 1;
                        bank.release(Release::Fixed);
                    }
                }
                assert_eq!(bank.state(), State::Armed);
            }
            println!("shape {shape}, mean {mean_ms}: {pages} of 10");
            assert!(pages <= 10, "shape {shape}, mean {mean_ms}: {pages} of 10");
        }
    }

    #[test]
    fn a_stop_is_found_within_thrice_the_rarest_gap_and_recovers() {
        for (shape, mean_ms, pane_ms) in [(1.0, 5_000.0, 2_000), (0.4, 8_000.0, 10_000), (1.0, 10.0, 2_000)] {
            let mut stream = Stream::new(50, shape, mean_ms);
            let mut bank = GapBank::new(GapSettings { armed_after_ms: 20 * 60_000, ..GapSettings::default() });
            let (mut t, mut gaps, mut last) = (0, vec![], None);
            let days_ms = if mean_ms < 100.0 { HOUR_MS } else { 3 * DAY_MS };
            while t < days_ms {
                let pane = stream.pane(t, pane_ms);
                for at in &pane {
                    gaps.extend(last.map(|l| at - l));
                    last = Some(*at);
                }
                assert_eq!(bank.judge(&pane, t, pane_ms, true, B).call, Call::Quiet);
                t += pane_ms;
            }
            gaps.sort_unstable();
            let rare = gaps[(gaps.len() as f64 * 0.9999) as usize];
            for _ in 0..2 {
                let stopped = t;
                let alarm = loop {
                    let r = bank.judge(&[], t, pane_ms, true, B);
                    t += pane_ms;
                    if !matches!(r.call, Call::Quiet) {
                        break r.call;
                    }
                };
                let Call::Alarm { change, onset } = alarm else { panic!("{alarm:?}") };
                println!("shape {shape}, mean {mean_ms}: q99.99 {rare} ms, found after {} ms, limit {:?}", t - stopped, bank.limit_ms());
                assert!(t - stopped <= (3 * rare).max(12_000) + pane_ms, "{} of {rare}", t - stopped);
                assert!(onset.at_ms <= stopped && stopped - onset.at_ms < 20 * mean_ms as i64 + 1, "{onset:?}");
                assert!(change.after > change.before, "{change:?}");
                for _ in 0..200 {
                    assert_eq!(bank.judge(&[], t, pane_ms, true, B).call, Call::Quiet);
                    t += pane_ms;
                }
                let mut back = None;
                for i in 0..400 {
                    let r = bank.judge(&stream.pane(t, pane_ms), t, pane_ms, true, B);
                    t += pane_ms;
                    if matches!(r.call, Call::Recovered { .. }) {
                        back = Some(i * pane_ms);
                        break;
                    }
                }
                assert!(back.is_some_and(|ms| ms <= (3 * rare).max(60_000)), "{back:?}");
                for _ in 0..500 {
                    assert_eq!(bank.judge(&stream.pane(t, pane_ms), t, pane_ms, true, B).call, Call::Quiet);
                    t += pane_ms;
                }
            }
        }
    }

    #[test]
    fn silence_needs_proof_of_life() {
        let mut stream = Stream::new(60, 1.0, 1_000.0);
        let mut bank = GapBank::new(GapSettings { armed_after_ms: 20 * 60_000, ..GapSettings::default() });
        let mut t = 0;
        while t < HOUR_MS {
            bank.judge(&stream.pane(t, 2_000), t, 2_000, true, B);
            t += 2_000;
        }
        for _ in 0..5_000 {
            assert_eq!(bank.judge(&[], t, 2_000, false, B).call, Call::Quiet);
            t += 2_000;
        }
        let mut twin = bank.clone();
        assert_eq!(twin.judge(&[], t, 2_000, true, B), bank.judge(&[], t, 2_000, true, B));
        assert_eq!(twin, bank);
        assert!((0..60).any(|i| matches!(bank.judge(&[], t + 2_000 * (i + 1), 2_000, true, B).call, Call::Alarm { .. })), "and life goes on");
    }

    #[test]
    fn a_nightly_pause_that_was_learned_does_not_page_and_a_stop_by_day_does() {
        let mut stream = Stream::new(61, 0.6, 5_000.0);
        let mut bank = GapBank::new(GapSettings::default());
        let pane_ms = 10_000;
        let night = |t: i64| !(6 * HOUR_MS..22 * HOUR_MS).contains(&t.rem_euclid(DAY_MS));
        let mut t = MONDAY_MS + 8 * HOUR_MS;
        stream.next_ms = t as f64;
        while t < MONDAY_MS + 14 * DAY_MS + 11 * HOUR_MS {
            let pane = stream.pane(t, pane_ms);
            let r = bank.judge(if night(t) { &[] } else { &pane }, t, pane_ms, true, B);
            assert_eq!(r.call, Call::Quiet, "{} h", (t - MONDAY_MS) as f64 / HOUR_MS as f64);
            t += pane_ms;
        }
        assert_eq!(bank.state(), State::Armed);
        let found = (0..360).position(|i| matches!(bank.judge(&[], t + i * pane_ms, pane_ms, true, B).call, Call::Alarm { .. }));
        println!("stop by day after {found:?} panes, limit {:?}", bank.limit_ms());
        assert!(found.is_some_and(|panes| panes < 60), "{found:?} {:?}", bank.limit_ms());
    }

    #[test]
    fn the_first_weekend_of_a_series_with_nights_does_not_page_and_a_stop_after_it_does() {
        let mut stream = Stream::new(62, 1.0, 10_000.0);
        let mut bank = GapBank::new(GapSettings::default());
        let pane_ms = 10_000;
        let mut t = MONDAY_MS + 8 * HOUR_MS;
        stream.next_ms = t as f64;
        let mut found = None;
        while t < MONDAY_MS + 9 * DAY_MS {
            let open = (6 * HOUR_MS..22 * HOUR_MS).contains(&t.rem_euclid(DAY_MS)) && (t - MONDAY_MS).rem_euclid(7 * DAY_MS) < 5 * DAY_MS;
            let stopped = t >= MONDAY_MS + 8 * DAY_MS + 12 * HOUR_MS;
            let pane = stream.pane(t, pane_ms);
            let b = if t < MONDAY_MS + 4 * DAY_MS { 0.0 } else { B };
            let call = bank.judge(if open && !stopped { &pane } else { &[] }, t, pane_ms, true, b).call;
            if matches!(call, Call::Alarm { .. }) && found.is_none() {
                found = Some(t - MONDAY_MS - 8 * DAY_MS - 12 * HOUR_MS);
            }
            t += pane_ms;
        }
        assert!(found.is_some_and(|ms| (0..HOUR_MS / 4).contains(&ms)), "{found:?}");
    }

    #[test]
    fn a_clockwork_that_stops_is_found() {
        let mut bank = GapBank::new(GapSettings { armed_after_ms: 20 * 60_000, ..GapSettings::default() });
        for i in 0..600 {
            let at = i * 10_000;
            assert_eq!(bank.judge(&[at + 3_000 + i % 7], at, 10_000, true, B).call, Call::Quiet);
        }
        let found = (600..1_200).position(|i| matches!(bank.judge(&[], i * 10_000, 10_000, true, B).call, Call::Alarm { .. }));
        println!("clockwork: {found:?} panes, limit {:?}", bank.limit_ms());
        assert!(found.is_some_and(|panes| panes < 60), "{found:?}");
    }

    #[test]
    fn an_explicit_limit_overrides() {
        let mut bank = GapBank::new(GapSettings { explicit_ms: Some(60_000), ..GapSettings::default() });
        assert_eq!(bank.judge(&[10], 0, 10_000, true, B).call, Call::Quiet);
        let found = (1..20).find(|i| matches!(bank.judge(&[], i * 10_000, 10_000, true, B).call, Call::Alarm { .. }));
        assert_eq!(found, Some(6));
        assert_eq!(bank.limit_ms(), Some(60_000));
    }
}
