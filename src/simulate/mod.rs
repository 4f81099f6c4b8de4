//! A fleet of your size without a broker: what would the budget give?
//!
//! Every series is the line that the daemon would open for it, with the daemon's budget divided over all of them; only the events
//! are drawn. So the promise (expected false pages stay at or below the budget) is tested on the judge that will be used.
//! What is simulated is a month: however many events a series has, its panes are as long as fills thirty days.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde::Serialize;

use crate::domain::Time;
use crate::domain::time::DAY_MS;
use crate::fleet::Chance;
use crate::judge::Budget;

mod law;
mod life;

pub use law::{FAULT_SIGMA, FAULT_TIMES, Law};
use life::{Fate, Span, live};

/// Baselines of a mixed fleet, in events.
const BASELINE_MIN: f64 = 2_000.0;
const BASELINE_MAX: f64 = 200_000.0;
/// Series that see the same events, in a fleet of twins.
const TWINS: usize = 30;
/// Faults begin in this part of the month.
const FAULT_FROM: f64 = 0.1;
const FAULT_TO: f64 = 0.6;
/// Thirty days end here; a baseline lies before.
const START: Time = Time(1_767_225_600_000);
const MONTH_MS: i64 = 30 * DAY_MS;

/// What a fleet does beside being quiet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Independent series that live the whole month
    #[default]
    Steady,
    /// Half of the series are born during the month, and half of all die in it
    Churn,
    /// Groups of thirty series that see the same events
    Twins,
    /// Every series is changed by exactly what is forgiven
    Edge,
    /// Every series is saved, killed and replayed once; a difference is counted
    Killed,
}

#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub kind: Kind,
    pub series: usize,
    /// Events of each series in the month.
    pub events: u64,
    /// Events of one pane.
    pub pane_events: u32,
    /// Series with a hidden fault.
    pub faults: usize,
    /// Events learned before; mixed from 2,000 to 200,000 if not said.
    pub baseline: Option<u64>,
    /// False pages in 30 days that are accepted.
    pub false_pages: f64,
    pub seed: u64,
    pub repeats: usize,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    pub plan: Plan,
    /// False pages that the series were given to spend, on the mean of the repeats. Never more than was accepted.
    pub promised: f64,
    pub false_pages_mean: f64,
    pub false_pages_each: Vec<u32>,
    /// Repeats with more false pages than were accepted.
    pub repeats_over: usize,
    pub faults: Found,
    pub by_kind: Vec<(String, Found)>,
    /// Series that came out differently after a kill and a replay.
    pub differing: usize,
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    pub hidden: usize,
    pub found: usize,
    /// Events from the fault to the page; of those that were found.
    pub delay_events_median: Option<f64>,
    /// The same for a single bank that knows as much and may spend as much.
    pub single_events_median: Option<f64>,
    /// The quotient of the two.
    pub times_single: Option<f64>,
    /// Faults found within three times the single bank's median for its kind of series.
    pub within_3x: usize,
}

// === impl Plan ===

impl Plan {
    pub fn panes(&self) -> u32 {
        (self.events / u64::from(self.pane_events)).clamp(1, 1_000_000) as u32
    }

    pub fn pane_ms(&self) -> i64 {
        (MONTH_MS / i64::from(self.panes())).max(1)
    }

    fn baseline_of(&self, twin: usize, seed: u64) -> u64 {
        let u = Chance::keyed(seed ^ 0xba5e, twin as u64).unit();
        self.baseline.unwrap_or_else(|| (BASELINE_MIN * (BASELINE_MAX / BASELINE_MIN).powf(u)) as u64)
    }

    /// When every series lives and what it may spend: the budget is divided at the start of every day, over what lives then.
    fn spans(&self, seed: u64) -> Vec<Span> {
        let panes = self.panes();
        let mut spans: Vec<Span> = (0..self.series)
            .map(|i| {
                let mut chance = Chance::keyed(seed ^ 0x11fe, i as u64);
                let (mut from, mut to) = (0, panes);
                if self.kind == Kind::Churn {
                    if chance.unit() < 0.5 {
                        from = chance.below(u64::from(panes)) as u32;
                    }
                    if chance.unit() < 0.5 {
                        to = from + 1 + chance.below(u64::from(panes - from)) as u32;
                    }
                }
                Span { from, to: to.min(panes), may_spend: Vec::new() }
            })
            .collect();
        let mut budget = Budget::new(self.false_pages, self.pane_ms());
        let mut births: Vec<usize> = (0..spans.len()).filter(|i| spans[*i].from > 0).collect();
        births.sort_by_key(|i| (spans[*i].from, *i));
        let mut births = births.into_iter().peekable();
        let first_of_day = |day: i64| (day * DAY_MS).div_euclid(self.pane_ms()) as u32;
        for day in 0..30 {
            let pane = first_of_day(day);
            let next = first_of_day(day + 1);
            let lives = |s: &Span| s.from <= pane && pane < s.to;
            budget.divide(day, spans.iter().filter(|s| lives(s)).count() as f64);
            for span in spans.iter_mut().filter(|s| lives(s)) {
                let share = budget.share(1.0);
                if span.may_spend.last().is_none_or(|l| l.1 != share) {
                    span.may_spend.push((pane, share));
                }
            }
            while let Some(i) = births.next_if(|i| spans[*i].from < next) {
                // Those of the very first pane of a day were divided with the others.
                if spans[i].from != pane {
                    let from = spans[i].from;
                    let born = budget.birth(1.0);
                    spans[i].may_spend.push((from, born));
                }
            }
        }
        spans
    }

    /// The series with faults, and the panes at which they begin.
    fn faulty(&self, seed: u64, spans: &[Span]) -> Vec<(usize, u32)> {
        let mut chance = Chance::keyed(seed, 0xfa17);
        let mut order: Vec<usize> = (0..spans.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, chance.below(i as u64 + 1) as usize);
        }
        let mut out: Vec<(usize, u32)> = order
            .into_iter()
            .filter(|i| spans[*i].to > spans[*i].from + 1)
            .take(self.faults)
            .map(|i| {
                let length = f64::from(spans[i].to - spans[i].from);
                (i, spans[i].from + (length * (FAULT_FROM + (FAULT_TO - FAULT_FROM) * chance.unit())) as u32)
            })
            .collect();
        out.sort_unstable();
        out
    }
}

/// Runs all repeats on the cores there are. `tell` hears how many series of all are done.
pub fn run(plan: &Plan, mut tell: impl FnMut(usize, usize)) -> Outcome {
    let all = plan.series * plan.repeats;
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(all.max(1));
    let mut done = 0;
    let mut false_pages_each = Vec::new();
    let (mut promised, mut differing) = (0.0, 0);
    let mut faults: Vec<(&'static str, f64, f64)> = Vec::new();
    for repeat in 0..plan.repeats {
        let seed = Chance::keyed(plan.seed, repeat as u64).bits();
        let spans = plan.spans(seed);
        let faulty = plan.faulty(seed, &spans);
        let next = AtomicUsize::new(0);
        let mut fates: Vec<(usize, Fate)> = Vec::with_capacity(plan.series);
        std::thread::scope(|scope| {
            let (send, receive) = mpsc::channel();
            for _ in 0..cores {
                let (send, spans, faulty, next) = (send.clone(), &spans, &faulty, &next);
                scope.spawn(move || {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= spans.len() {
                            return;
                        }
                        let twin = if plan.kind == Kind::Twins { i / TWINS * TWINS + (i / TWINS) % 10 } else { i };
                        let fault_at = faulty.binary_search_by_key(&i, |f| f.0).ok().map(|at| faulty[at].1);
                        let fate = live(plan, twin, seed, plan.baseline_of(twin, seed), &spans[i], fault_at, START);
                        if send.send((i, twin, fate)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            for (i, twin, fate) in receive {
                done += 1;
                tell(done, all);
                if let (Some(delay), Some(single)) = (fate.delay, fate.single) {
                    faults.push((Law::of(twin).name(), delay, single));
                }
                fates.push((i, fate));
            }
        });
        // In one order: sums must not depend on which core was faster.
        fates.sort_by_key(|f| f.0);
        promised += fates.iter().map(|f| f.1.spent).sum::<f64>();
        false_pages_each.push(fates.iter().map(|f| f.1.false_pages).sum());
        differing += fates.iter().filter(|f| f.1.differs).count();
    }
    let repeats = plan.repeats.max(1) as f64;
    let mut names: Vec<&'static str> = faults.iter().map(|f| f.0).collect();
    names.sort_unstable();
    names.dedup();
    let by_kind: Vec<(String, Found)> = names
        .iter()
        .map(|name| {
            let own: Vec<(f64, f64)> = faults.iter().filter(|f| f.0 == *name).map(|f| (f.1, f.2)).collect();
            ((*name).to_owned(), found(&own))
        })
        .collect();
    let every: Vec<(f64, f64)> = faults.iter().map(|f| (f.1, f.2)).collect();
    Outcome {
        promised: promised / repeats,
        false_pages_mean: false_pages_each.iter().map(|n| f64::from(*n)).sum::<f64>() / repeats,
        repeats_over: false_pages_each.iter().filter(|n| f64::from(**n) > plan.false_pages).count(),
        false_pages_each,
        faults: Found { within_3x: by_kind.iter().map(|k| k.1.within_3x).sum(), ..found(&every) },
        by_kind,
        differing,
        plan: plan.clone(),
    }
}

fn found(all: &[(f64, f64)]) -> Found {
    let middle = |mut values: Vec<f64>| -> Option<f64> {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().filter(|v| v.is_finite())
    };
    let delay = middle(all.iter().map(|f| f.0).collect());
    let single = middle(all.iter().map(|f| f.1).collect());
    Found {
        hidden: all.len(),
        found: all.iter().filter(|f| f.0.is_finite()).count(),
        delay_events_median: delay,
        single_events_median: single,
        times_single: delay.zip(single).map(|(d, s)| d / s),
        within_3x: single.map_or(0, |s| all.iter().filter(|f| f.0 <= 3.0 * s).count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(kind: Kind) -> Plan {
        Plan { kind, series: 300, events: 50_000, pane_events: 100, faults: 0, baseline: None, false_pages: 10.0, seed: 1, repeats: 1 }
    }

    #[test]
    fn what_all_series_may_spend_is_never_more_than_the_budget() {
        for kind in [Kind::Steady, Kind::Churn] {
            let plan = plan(kind);
            let spans = plan.spans(7);
            let all: f64 = spans.iter().flat_map(|s| (s.from..s.to).map(|p| s.injection_at(p))).sum();
            assert!(all <= plan.false_pages * (1.0 + 1e-9) && all > 0.5 * plan.false_pages, "{kind:?}: {all}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_outcome_on_any_number_of_cores() {
        let plan = Plan { series: 40, faults: 10, ..plan(Kind::Churn) };
        let a = serde_json::to_string(&run(&plan, |_, _| {})).expect("json");
        assert_eq!(a, serde_json::to_string(&run(&plan, |_, _| {})).expect("json"));
    }

    #[test]
    fn faults_are_found_and_a_kill_changes_nothing() {
        let quiet = run(&Plan { series: 120, ..plan(Kind::Killed) }, |_, _| {});
        assert_eq!(quiet.differing, 0);
        assert!(quiet.false_pages_mean <= 10.0, "{quiet:?}");
        let troubled = run(&Plan { series: 60, faults: 30, events: 200_000, baseline: Some(50_000), ..plan(Kind::Steady) }, |_, _| {});
        assert!(troubled.faults.hidden == 30 && troubled.faults.found >= 25, "{:?}", troubled.faults);
    }
}
