//! Slow drift: the newest days beside those that were learned first, once a day.
//!
//! The sequential banks learn on, so a change that creeps is followed and never paged: a frog in warming water. Here the first
//! week is kept as it was, or what was imported, and the newest one (each day weighs six sevenths of the next) is laid beside it at
//! every day's end: weeks beside weeks, so that a weekend is no drift. Beyond the tolerance it is listed; beyond twice the tolerance
//! it is a ticket, not a page.

use std::ops::Add;

use bellwether_detectors::evidence::{normal_cdf, normal_quantile};
use bellwether_detectors::population::{self, Outcome, Sample, Takes};
use bellwether_detectors::sketch::once_each;
use serde::{Deserialize, Serialize};

use super::line::{Bank, Feed};

/// Events that a reference holds at least, and the newest days: below, a day says too little.
const EVENTS_MIN: f64 = 1_000.0;
/// What is left of the days before when a day ends.
const DAYS_KEPT: f64 = 6.0 / 7.0;
/// Days that a yardstick holds which was learned: both kinds of day, else every weekend would be a drift from the Monday of the start.
pub const DAYS_MIN: u8 = 7;
/// A difference counts from so many standard errors on: days differ for more reasons than chance.
const ERRORS_MIN: f64 = 5.0;
/// Classes rarer than this in the reference are not compared one by one.
const SHARE_MIN: f64 = 0.01;
/// Entries that wait to be counted.
const FRESH_MAX: usize = 96;
/// Entries of a histogram; the rarest are left out beyond.
const ENTRIES_MAX: usize = 1_000;

/// Parts with as many events each into which values are cut for the named tests, as is usual for PSI.
const PARTS: f64 = 10.0;

/// How a line's values are counted: on the grid, in classes, or as hits (1) and the rest (0).
type Histogram = Vec<(u16, f32)>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// The days that are the yardstick; they grow until `is_complete`.
    first: Histogram,
    /// Days that have ended while it grew.
    days: u8,
    is_complete: bool,
    newest: Histogram,
    today: Histogram,
    /// What an open incident brought: counted if it turns out to be normal life, as a first weekend does.
    aside: Histogram,
    /// What came in since the last fold, as it came: one pane costs an append.
    fresh: Histogram,
    /// How far the newest days lie from the first, in tolerances; what a person sees.
    pub last: Option<Distance>,
    pub is_listed: bool,
    pub is_ticket: bool,
}

/// A distance from the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// In tolerances of the signal: beyond 1 it is listed, beyond 2 a ticket.
    pub tolerances: f64,
    /// Share, or median, of the reference and of the newest days.
    pub before: f64,
    pub after: f64,
    pub events: f64,
}

/// What a day's end brought.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DayEnd {
    Nothing,
    Listed(Distance),
    Ticket(Distance),
    /// A ticket was out, and the newest days are back.
    Back(Distance),
}

// === impl Reference ===

impl Reference {
    pub fn take(&mut self, feed: &Feed<'_>) {
        match feed {
            Feed::Share { hits, total } => {
                let into = if self.is_complete { &mut self.today } else { &mut self.first };
                add(into, 1, *hits as f32);
                add(into, 0, (total - hits).max(0.0) as f32);
            }
            Feed::Grid(pane) | Feed::Classes(pane) => {
                self.fresh.extend(pane.iter().map(|(bin, n)| (*bin, *n as f32)));
                if self.fresh.len() >= FRESH_MAX {
                    self.fold();
                }
            }
            Feed::Count { .. } | Feed::Interval { .. } | Feed::Arrivals { .. } | Feed::Groups(_) | Feed::Vectors(_) | Feed::Together(..) => {}
        }
    }

    /// A pane of an incident.
    pub fn set_aside(&mut self, feed: &Feed<'_>) {
        match feed {
            Feed::Share { hits, total } => {
                add(&mut self.aside, 1, *hits as f32);
                add(&mut self.aside, 0, (total - hits).max(0.0) as f32);
            }
            Feed::Grid(pane) | Feed::Classes(pane) => pane.iter().for_each(|(bin, n)| add(&mut self.aside, *bin, *n as f32)),
            Feed::Count { .. } | Feed::Interval { .. } | Feed::Arrivals { .. } | Feed::Groups(_) | Feed::Vectors(_) | Feed::Together(..) => {}
        }
    }

    /// The incident is over: what it brought is counted, or forgotten.
    pub fn settle(&mut self, was_normal: bool) {
        let aside = std::mem::take(&mut self.aside);
        if was_normal {
            let into = if self.is_complete { &mut self.today } else { &mut self.first };
            aside.into_iter().for_each(|(bin, n)| add(into, bin, n));
        }
    }

    /// Counts what came in.
    fn fold(&mut self) {
        let into = if self.is_complete { &mut self.today } else { &mut self.first };
        add_all(into, &mut self.fresh);
    }

    /// The learning of the line is over: what came so far is the yardstick, once it holds a week, which is the newest week too.
    pub fn learned(&mut self) {
        if !self.is_complete && self.days >= DAYS_MIN {
            self.complete();
            if self.is_complete {
                self.newest = self.first.clone();
            }
        }
    }

    /// Days learned of a yardstick that is none yet.
    pub fn still_learns(&self) -> Option<u8> {
        (!self.is_complete).then_some(self.days.min(DAYS_MIN))
    }

    /// What came so far is the yardstick.
    pub fn complete(&mut self) {
        if self.is_complete {
            return;
        }
        self.fold();
        self.is_complete = sum(&self.first) >= EVENTS_MIN;
    }

    /// A person said that what an incident brought is the new normal: a yardstick is learned from there on. A ticket that is out is taken
    /// back by it, once there is one.
    pub fn learn_anew(&mut self) {
        let first = std::mem::take(&mut self.aside);
        *self = Reference { first, is_listed: self.is_listed, is_ticket: self.is_ticket, ..Reference::default() };
    }

    /// What is now is how it should be: the newest days become the yardstick.
    pub fn renew(&mut self) {
        if self.is_complete && sum(&self.newest) >= EVENTS_MIN {
            self.first = std::mem::take(&mut self.newest);
        }
        (self.is_listed, self.is_ticket, self.last) = (false, false, None);
    }

    /// What the tests that people know by name say of the newest days beside the first ones; values are cut at the deciles of the
    /// first. They decide nothing here.
    pub fn named_tests(&self, of_values: bool) -> Vec<(&'static str, Outcome)> {
        if !self.is_complete || sum(&self.newest) < EVENTS_MIN {
            return Vec::new();
        }
        let part = if of_values { sum(&self.first) / PARTS } else { 0.0 };
        let (mut first, mut newest, mut at) = (Vec::new(), Vec::new(), 0);
        let (mut a, mut b) = (0.0, 0.0);
        let mut upto = |last: Option<u16>, b: &mut f64| {
            while self.newest.get(at).is_some_and(|n| last.is_none_or(|last| n.0 <= last)) {
                *b += f64::from(self.newest[at].1);
                at += 1;
            }
        };
        for (bin, n) in &self.first {
            a += f64::from(*n);
            upto(Some(*bin), &mut b);
            if a >= part {
                first.push(std::mem::take(&mut a).round() as u64);
                newest.push(std::mem::take(&mut b).round() as u64);
            }
        }
        // What is larger than anything known before stands with the last part.
        upto(None, &mut b);
        if let (Some(x), Some(y)) = (first.last_mut(), newest.last_mut()) {
            (*x, *y) = (*x + a.round() as u64, *y + b.round() as u64);
        }
        let kinds = population::ALL.iter().filter(|k| k.takes != Takes::Values);
        kinds
            .filter_map(|k| {
                let test = population::build(k.name, &[]).ok()?;
                Some((k.name, test.compare(Sample::Counts(&first), Sample::Counts(&newest)).ok()?))
            })
            .collect()
    }

    /// A day has ended. `tolerance`: relative for shares, in standard deviations for values; `at_least`: no share below is news.
    pub fn day_ends(&mut self, bank: &Bank, tolerance: f64, at_least: f64) -> DayEnd {
        self.fold();
        if !self.is_complete {
            self.days = self.days.saturating_add(u8::from(!self.first.is_empty()));
            return DayEnd::Nothing;
        }
        self.newest.iter_mut().for_each(|n| n.1 *= DAYS_KEPT as f32);
        let today = std::mem::take(&mut self.today);
        today.into_iter().for_each(|(bin, n)| add(&mut self.newest, bin, n));
        bounded(&mut self.newest);
        let (first, newest) = (sum(&self.first), sum(&self.newest));
        if newest < EVENTS_MIN {
            return DayEnd::Nothing;
        }
        let Some(distance) = (match bank {
            Bank::Rate(_) => self.of_share(1, first, newest, tolerance, at_least),
            Bank::Bins(_) => self.of_values(first, newest, tolerance),
            Bank::Classes(_) => (self.first.iter())
                .filter(|c| f64::from(c.1) >= SHARE_MIN * first)
                .filter_map(|c| self.of_share(c.0, first, newest, tolerance, at_least))
                .max_by(|a, b| a.tolerances.total_cmp(&b.tolerances)),
            Bank::Limit(_) | Bank::Counts(_) | Bank::Seasonal(_) | Bank::Gap(_) | Bank::Fairness(_) | Bank::Embedding(_) | Bank::Joint(_) => None,
        }) else {
            return DayEnd::Nothing;
        };
        self.last = Some(distance);
        if distance.tolerances >= 2.0 && !self.is_ticket {
            (self.is_listed, self.is_ticket) = (true, true);
            return DayEnd::Ticket(distance);
        }
        if distance.tolerances < 1.0 {
            self.is_listed = false;
            if std::mem::take(&mut self.is_ticket) {
                return DayEnd::Back(distance);
            }
        }
        if distance.tolerances >= 1.0 && !self.is_listed {
            self.is_listed = true;
            return DayEnd::Listed(distance);
        }
        DayEnd::Nothing
    }

    /// Distance of one share; 0 while it is within a few standard errors of the tolerance's inside.
    fn of_share(&self, bin: u16, first: f64, newest: f64, tolerance: f64, at_least: f64) -> Option<Distance> {
        let of = |all: &Histogram, n: f64| all.binary_search_by_key(&bin, |c| c.0).map_or(0.0, |at| f64::from(all[at].1) / n);
        let (before, after) = (of(&self.first, first), of(&self.newest, newest));
        let pooled = ((before * first + after * newest) / (first + newest)).clamp(1e-12, 1.0 - 1e-12);
        let error = (pooled * (1.0 - pooled) * (1.0 / first + 1.0 / newest)).sqrt();
        let moved = (after - before).abs();
        // One tolerance up, and the same factor down.
        let allowed = if after > before { (before * tolerance).max(at_least) } else { before * tolerance / (1.0 + tolerance) };
        let tolerances = if moved < ERRORS_MIN * error || allowed <= 0.0 { 0.0 } else { moved / allowed };
        Some(Distance { tolerances, before, after, events: newest })
    }

    /// Mean normal score of the newest days among the first, in standard deviations (van der Waerden's scores).
    fn of_values(&self, first: f64, newest: f64, tolerance: f64) -> Option<Distance> {
        let (mut below, mut shift, mut at) = (0.0, 0.0, 0);
        for (bin, n) in &self.newest {
            while at < self.first.len() && self.first[at].0 < *bin {
                below += f64::from(self.first[at].1);
                at += 1;
            }
            let own = self.first.get(at).filter(|f| f.0 == *bin).map_or(0.0, |f| f64::from(f.1));
            shift += f64::from(*n) * score(below, own, first);
        }
        let mut usual = 0.0;
        let mut below = 0.0;
        for (_, n) in &self.first {
            usual += f64::from(*n) * score(below, f64::from(*n), first);
            below += f64::from(*n);
        }
        let moved = (shift / newest - usual / first).abs();
        let error = (1.0 / first + 1.0 / newest).sqrt();
        let tolerances = if moved < ERRORS_MIN * error { 0.0 } else { moved / tolerance };
        Some(Distance { tolerances, before: median(&self.first, first), after: median(&self.newest, newest), events: newest })
    }
}

fn score(below: f64, own: f64, all: f64) -> f64 {
    let rank = ((below + 0.5 * own) / all).clamp(normal_cdf(-4.0), normal_cdf(4.0));
    normal_quantile(rank)
}

fn sum(all: &Histogram) -> f64 {
    all.iter().map(|c| f64::from(c.1)).sum()
}

fn median(all: &Histogram, total: f64) -> f64 {
    let mut below = 0.0;
    for (bin, n) in all {
        below += f64::from(*n);
        if below >= 0.5 * total {
            return bellwether_detectors::sketch::log_linear::middle(*bin);
        }
    }
    0.0
}

fn add(all: &mut Histogram, bin: u16, n: f32) {
    match all.binary_search_by_key(&bin, |c| c.0) {
        Ok(at) => all[at].1 += n,
        Err(at) if all.len() < ENTRIES_MAX => all.insert(at, (bin, n)),
        Err(_) => {}
    }
}

/// Adds many at once, and leaves `fresh` empty.
fn add_all(all: &mut Histogram, fresh: &mut Histogram) {
    once_each(fresh, f32::add);
    // Those that are known are added where they stand; what is left is new.
    let mut at = 0;
    fresh.retain(|(bin, n)| {
        at += all[at..].iter().take_while(|c| c.0 < *bin).count();
        match all.get_mut(at).filter(|c| c.0 == *bin) {
            Some(known) => {
                known.1 += n;
                false
            }
            None => true,
        }
    });
    fresh.truncate(ENTRIES_MAX.saturating_sub(all.len()));
    if !fresh.is_empty() {
        all.append(fresh);
        all.sort_by_key(|c| c.0); // Two runs in order: a merge.
    }
    fresh.clear();
}

/// What has all but faded makes room.
fn bounded(all: &mut Histogram) {
    all.retain(|c| c.1 >= 0.01);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_many_at_once_is_adding_them_one_by_one() {
        let (mut one_by_one, mut at_once) = (Histogram::new(), Histogram::new());
        for round in 0u16..50 {
            let mut fresh: Histogram = (0..90u16).map(|i| ((round * 37 + i * 13) % 211, f32::from(i % 3))).collect();
            fresh.iter().for_each(|(bin, n)| add(&mut one_by_one, *bin, *n));
            add_all(&mut at_once, &mut fresh);
            assert!(fresh.is_empty());
        }
        assert_eq!(one_by_one, at_once);
    }

    fn days(reference: &mut Reference, bank: &Bank, shares: &[f64]) -> Vec<DayEnd> {
        shares
            .iter()
            .map(|p| {
                reference.take(&Feed::Share { hits: 50_000.0 * p, total: 50_000.0 });
                reference.day_ends(bank, 0.2, 0.0)
            })
            .collect()
    }

    #[test]
    fn a_share_that_creeps_is_listed_then_a_ticket_then_back() {
        let bank = Bank::rate(0.2, 0.0);
        let mut r = Reference::default();
        r.take(&Feed::Share { hits: 500.0, total: 50_000.0 });
        r.complete();
        let told = days(&mut r, &bank, &[0.01, 0.0101, 0.011, 0.0125, 0.014, 0.016, 0.018, 0.018, 0.018]);
        let listed = told.iter().position(|d| matches!(d, DayEnd::Listed(_))).expect("listed");
        let ticket = told.iter().position(|d| matches!(d, DayEnd::Ticket(_))).expect("a ticket");
        assert!(listed < ticket && told[..listed].iter().all(|d| *d == DayEnd::Nothing), "{told:?}");
        let after = days(&mut r, &bank, &[0.01; 20]);
        assert!(after.iter().any(|d| matches!(d, DayEnd::Back(_))), "{after:?}");
        let psi = |r: &Reference| r.named_tests(false).into_iter().find(|t| t.0 == "psi").expect("psi").1;
        assert!(psi(&r).statistic < 0.001 && !psi(&r).drifted, "{:?}", psi(&r));
        let quiet = days(&mut r, &bank, &[0.01, 0.0104, 0.0097, 0.0101]);
        assert!(quiet.iter().all(|d| *d == DayEnd::Nothing), "{quiet:?}");
    }

    #[test]
    fn what_an_incident_brought_counts_if_it_was_normal() {
        let bank = Bank::rate(0.2, 0.0);
        let pane = |p: f64| Feed::Share { hits: 50_000.0 * p, total: 50_000.0 };
        let after = |settle: &dyn Fn(&mut Reference)| {
            let mut r = Reference::default();
            r.take(&pane(0.01));
            r.complete();
            assert!(days(&mut r, &bank, &[0.01; 7]).iter().all(|d| *d == DayEnd::Nothing));
            (0..3).for_each(|_| r.set_aside(&pane(0.03)));
            settle(&mut r);
            (r.day_ends(&bank, 0.2, 0.0), r)
        };
        assert_eq!(after(&|r| r.settle(false)).0, DayEnd::Nothing);
        assert!(
            matches!(after(&|r| r.settle(true)).0, DayEnd::Ticket(_)),
            "three days at three times the rate were normal, and are far from the first"
        );
        let (end, mut r) = after(&Reference::learn_anew);
        assert_eq!(end, DayEnd::Nothing);
        let week: Vec<DayEnd> = (0..20)
            .map(|_| {
                r.learned();
                r.take(&pane(0.03));
                r.day_ends(&bank, 0.2, 0.0)
            })
            .collect();
        assert!(r.is_complete && week.iter().all(|d| *d == DayEnd::Nothing), "{week:?}");
    }

    #[test]
    fn values_are_compared_by_their_ranks_and_a_weekend_is_no_drift() {
        let bank = Bank::bins(0.1);
        // A log-normal of sigma .6 around a median, on the grid.
        let day = |median: f64| -> Vec<(u16, u32)> {
            let mut pane: Vec<(u16, u32)> = Vec::new();
            for i in 0..4_000 {
                let z = normal_quantile((f64::from(i) + 0.5) / 4_000.0);
                let bin = bellwether_detectors::sketch::log_linear::bin_of(median * (0.6 * z).exp());
                match pane.last_mut() {
                    Some(last) if last.0 == bin => last.1 += 1,
                    _ => pane.push((bin, 1)),
                }
            }
            pane
        };
        let run_on = |r: &mut Reference, medians: &[f64]| -> Vec<DayEnd> {
            medians
                .iter()
                .map(|m| {
                    r.learned();
                    r.take(&Feed::Grid(&day(*m)));
                    r.day_ends(&bank, 0.1, 0.0)
                })
                .collect()
        };
        // Learned from a Monday on, two days a week 35 % higher: half a sigma.
        let weeks = [100.0, 100.0, 100.0, 100.0, 100.0, 135.0, 135.0].repeat(4);
        let mut learned = Reference::default();
        let told = run_on(&mut learned, &weeks);
        assert!(learned.is_complete && told.iter().all(|d| *d == DayEnd::Nothing), "{told:?}");
        let mut r = Reference::default();
        r.take(&Feed::Grid(&day(100.0)));
        r.complete();
        let mut run = |medians: &[f64]| run_on(&mut r, medians);
        // Two days a week 12 % higher: a fifth of a sigma.
        let weeks = [100.0, 100.0, 100.0, 100.0, 100.0, 112.0, 112.0].repeat(4);
        let told = run(&weeks);
        assert!(told.iter().all(|d| !matches!(d, DayEnd::Ticket(_))), "{told:?}");
        let ramp: Vec<f64> = (0..30).map(|d| 100.0 * (1.0 + 0.01 * f64::from(d))).collect();
        assert!(run(&ramp).iter().any(|d| matches!(d, DayEnd::Ticket(_))));
        let named = r.named_tests(true);
        let names: Vec<&str> = named.iter().map(|t| t.0).collect();
        assert_eq!(names, ["chi_square", "hellinger", "jensen_shannon", "psi", "total_variation"]);
        assert!(named.iter().all(|t| t.1.drifted), "{named:?}");
    }
}
