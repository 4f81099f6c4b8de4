//! k of n: errors, timeouts, empty answers, flags, missing values.
//!
//! **Idea.** Each pane is judged against the posterior predictive of everything quiet seen so far (beta-binomial), moved to the
//! edge of tolerance. One formula is baseline, uncertainty and learning. **Alternatives** are six odds ratios beyond that edge and
//! one that reaches everything, Beta(1/2, 1/2): the largest ratio of a grid is not large, and without it a jump to 100 % is
//! "learned" inside one pane. **Sees** rises (or falls) of a rate beyond `max(p (1 + tolerance), p + at_least)`; does not see what
//! stays within. Each hour of the day, and of the week, has a level of its own as far as hours are seen to differ and to come again.
//! **Bursts** that belong to normal life outlast a pane and defy any dispersion; a series whose shadow evidence climbs more often than was promised is judged on
//! longer panes from then on. **Knobs.** `tolerance` buys quiet on ugly data for delay (20 % makes a doubling take about twice as long);
//! `at_least` is the floor that lets a signal arm that normally never happens. **False alarms**: expected number at most the
//! injected sum (Ville-type bound for the mixture; tolerance and over-dispersion only lower it, measured below).

mod bets;

use serde::{Deserialize, Serialize};

use bets::{ARMS, Bets, GivenBack, SHARES};

use super::climb::{BARE, Climb, HIGH, PANES_PER_CLIMB_BARE};
use super::levels::{Course, HOUR_SHARE_MIN, HOURLY_PANES, Level, Levels};
use super::mixture::Block;
use super::trail::Trail;
use super::{Band, Ladder, Mixture, Sees, decay, exp, ln, ln_near, nats_per_pane_max, overshoot, recovery_injection};
use crate::ahead::{Ahead, ask_for};
use crate::verdict::{Call, Change, Reading, Release, State};

const RECOVERY_ARMS: usize = 5;
const RECOVERY_FACTOR_MAX: f64 = 1.5;
/// Standard errors of the baseline that a recovery allows for.
const RECOVERY_ERRORS: f64 = 1.3;
/// How far the size of an incident is believed, on the way from the near end of its interval to what is most likely: less than that
/// end at the alarm, which came just then because the panes before it showed more than the incident is; more by what comes after it.
const RECOVERY_SIZE_AT_ALARM: f64 = -0.15;
const RECOVERY_SIZE: f64 = 0.25;
/// Sparse panes are merged until they hold this many events or are this old; decided on the number of events alone.
const MERGE_EVENTS: f64 = 10.0;
const MERGE_MS: i64 = 600_000;
/// Below this many events in an hour an armed bank says that it is starved.
const STARVED_EVENTS_PER_HOUR: f64 = 5.0;
const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// Armed when a change of this factor could be seen, once so many panes have told of the noise and so many hits came.
const YOUNG_FACTOR: f64 = 5.0;
const YOUNG_HITS: f64 = 8.0;
const NOISE_PANES_MIN: u32 = 48;
/// Standard errors of a level of the ladder that are not believed, as for values: every hundredth too much is one more of the delay. Of a
/// series that is known to have bursts, and while that cannot be known, one must do.
const DOUBT: f64 = 2.0;
/// A day of panes of ten seconds.
const DOUBT_FROM_PANES: u32 = 8_640;
/// Panes by which learning the noise lags behind.
const NOISE_LAG: usize = 12;
/// The memory of the resemblance within panes, in pairs of panes.
const PAIRS_MAX: f32 = 20_000.0;
/// A baseline too young for a doubling stops to learn in full when the evidence reaches this power of the injection, and takes in this part
/// of what comes then, less where tolerance keeps it quiet; see `RateBank::gate`.
const YOUNG_GATE: f64 = 0.6;
const YOUNG_PART: f64 = 1.0 / 10.0;
const YOUNG_PART_BARE: f64 = 1.0 / 3.0;
/// Evidence, in nats since its pointer, below which what is known of the noise holds nothing of an incident.
const CALM_NATS: f32 = 2.0;
/// With tolerance, three climbs a day are too many and one more for so many panes; one counts twice from so many times the least height
/// on. What is only noisy climbs no higher than luck allows, twenty times as high once in twenty; bursts go on as long as they please.
/// An incident in what is only learned counts for two at most, and so does not make panes longer by itself.
const PANES_PER_CLIMB: u32 = 4_000;
const HIGH_CLIMB: f64 = 20.0;
/// How much of the usual a pane may say while six are judged as one. What made them longer were bursts, and the next may be longer than
/// any before: so where four of the longest panes suffice for a page, which are six times as long, it takes twelve of these.
const STRETCHED_ONCE_PART: f64 = 1.0 / 3.0;
/// What evidence is gathered with while nothing may be paged: only its climbs are looked at, and those do not depend on it.
const SHADOW_INJECTION: f64 = 1e-9;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    Up,
    Down,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RateSettings {
    pub direction: Direction,
    /// Relative change that is forgiven: 0.2 forgives 1.0 % -> 1.2 %.
    pub tolerance: f64,
    /// Absolute change that is forgiven, as a ratio.
    pub at_least: f64,
}

/// `hits` of `total` in one pane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CountPane {
    pub hits: f64,
    pub total: f64,
}

/// What every pane touches stands first, in lines of a cache: of ten thousand series in turn each costs what its lines take to come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[repr(C, align(64))]
pub struct RateBank {
    settings: RateSettings,
    /// Quiet counts, already divided by what events of one pane resemble each other.
    k: f64,
    m: f64,
    /// What was learned in this hour that the levels of hours were not told yet.
    untold: (f32, f32),
    /// End of the hour that is counted, and its events.
    hour_end_ms: i64,
    hour_events: f32,
    armed: bool,
    starved: bool,
    /// The evidence was gathered while nothing might be paged, and is forgotten when something may.
    shadow: bool,
    /// Panes are being merged: `pending`.
    merging: bool,
    /// The last injection and its threshold in nats, and the evidence in nats: what most readings repeat.
    told: Told,
    climb: Climb,
    live: Option<Box<Live>>,
    frozen: Option<Box<Frozen>>,
    within: Within,
    /// The course within this hour, if hours come again.
    course: Option<Course>,
    ladder: Ladder,
    lagged: Lag,
    pending: Pending,
    /// When to ask again whether the baseline suffices to be armed, in quiet events.
    ask_at: f64,
    hours: Option<Box<Levels>>,
}

/// What only judging needs, apart so that a bank that still learns stays small; in the same order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[repr(C, align(64))]
struct Live {
    bets: Bets,
    evidence: Mixture<[Block; 1]>,
    gate: Gate,
    /// What was seen while evidence was high and is to be learned once it has gone down, divided as the quiet counts.
    held: CountPane,
    held_since_ms: Option<i64>,
    trail: Trail,
    given_back: GivenBack,
    /// The noise as it was when there was last no evidence to speak of: what it is again after an alarm.
    noise: Option<(Within, Ladder)>,
    /// Quiet counts at the start of yesterday and of today (of a young baseline: when it had a quarter and a half), each rate at most as
    /// far above the one before as that one's error: an incident that took days to be found was learned for most of them.
    days: [CountPane; 2],
    day_end_ms: i64,
}

/// When learning stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Gate {
    /// Evidence from which on a pane is not learned in full, and the injection it holds for; 0 is stale.
    injection: f64,
    from: f32,
    /// Part of such a pane that is learned at once, the rest being held; 0 learns nothing of it, ever.
    part: f32,
}

/// Panes that are merged into one: their counts, the first one's start, their length, and what may be spent on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Pending {
    sum: CountPane,
    start_ms: i64,
    length_ms: i64,
    injection: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Told {
    injection: f64,
    threshold: f32,
    log_evidence: f32,
}

/// How events of one pane resemble each other, from the differences of neighbouring panes. Unlike a Fano factor it stays right when
/// traffic swings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Within {
    /// Excess of squared differences over that of independent events, its weight, and the variance it would have for those.
    sum: f32,
    weight: f32,
    variance: f32,
    /// What is believed of it.
    rho: f32,
    previous_hits: f32,
    /// 0 is no pane before.
    previous_total: f32,
}

/// Panes that wait to tell how noisy the series is, in a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Lag {
    panes: [(f32, f32); NOISE_LAG],
    oldest: u8,
    count: u8,
}

/// From the alarm to recovery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Frozen {
    alarm_ms: i64,
    before: f64,
    boundary: f64,
    recovery: Mixture,
    /// Seen since the onset, divided as the quiet counts, and since each pointer of the recovery test.
    seen: CountPane,
    since: [CountPane; RECOVERY_ARMS],
    /// Seen since the alarm.
    lasting: CountPane,
    /// What the noise would be if the incident belonged to normal life.
    noise: (Within, Ladder),
}

// === impl RateBank ===

impl Ahead for RateBank {
    #[inline]
    fn ask_for_own(&self) {
        ask_for(self);
    }

    #[inline]
    fn ask_for_state(&self) {
        if let Some(live) = &self.live {
            ask_for(&**live);
        }
    }
}

impl RateBank {
    pub fn new(settings: RateSettings) -> RateBank {
        RateBank {
            settings,
            k: 0.0,
            m: 0.0,
            untold: (0.0, 0.0),
            hour_end_ms: i64::MIN,
            hour_events: 0.0,
            armed: false,
            starved: false,
            shadow: false,
            merging: false,
            told: Told { injection: 0.0, threshold: f32::INFINITY, log_evidence: 0.0 },
            climb: Climb::default(),
            live: None,
            frozen: None,
            within: Within::default(),
            course: None,
            ladder: Ladder::default(),
            lagged: Lag::default(),
            pending: Pending::default(),
            ask_at: 0.0,
            hours: None,
        }
    }

    /// Judges first, learns after. `injection`: false pages this bank may spend on this pane; 0 gathers no evidence but learns.
    pub fn judge(&mut self, pane: CountPane, at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        self.count_hour(pane.total, at_ms);
        let Some((pane, at_ms, pane_ms, injection)) = self.merged(pane, at_ms, pane_ms, injection) else {
            return self.reading(Call::Quiet, injection);
        };
        if self.frozen.is_some() {
            return self.watch_recovery(pane, at_ms, pane_ms);
        }
        if !self.armed {
            self.ask_whether_armed(injection);
            if !self.armed {
                self.learn(pane, at_ms, pane_ms);
                return self.reading(Call::Quiet, injection);
            }
        }
        let mut live = self.live.take().unwrap_or_default();
        let reading = self.judge_live(&mut live, pane, at_ms, pane_ms, injection);
        self.live = Some(live);
        reading
    }

    fn judge_live(&mut self, live: &mut Live, pane: CountPane, at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let shadow = injection <= 0.0;
        if self.shadow && !shadow {
            self.forget(live);
        }
        self.shadow = shadow;
        let share = if shadow { SHADOW_INJECTION } else { injection };

        if live.bets.panes == 0 || self.m >= live.bets.refresh_at || pane.total < f64::from(live.bets.given_back_from) {
            let (calm, least) = (live.evidence.gathered() < CALM_NATS, live.bets.least);
            if calm {
                live.noise = (!shadow).then(|| (self.within, self.ladder.clone()));
            }
            // To a young baseline what came in since may be a fault, which must not hide behind its own noise.
            live.bets = match &live.noise {
                Some((within, ladder)) if !calm && !self.sees(share).armed => self.bets(within, ladder),
                _ => self.bets(&self.within, &self.ladder),
            };
            let smallest = pane.total.min(f64::from(least));
            if smallest <= overshoot::GIVEN_BACK_EVENTS_MAX && self.sees(share).armed {
                live.give_back(self.settings.direction, smallest);
            }
            live.gate.injection = 0.0;
            live.turn_day(CountPane { hits: self.k, total: self.m }, self.settings.direction, self.ladder.phi(), at_ms);
        }
        live.bets.panes -= 1;
        live.bets.least = live.bets.least.min(pane.total as f32);
        let within = 1.0 + (pane.total - 1.0).max(0.0) * f64::from(live.bets.rho);
        let dispersion = within * f64::from(live.bets.phi);
        let l = live.bets.likelihoods(self.settings.direction, pane, 1.0 / dispersion);
        let cap = nats_per_pane_max(dispersion);
        let cap = if self.climb.stretched_once() { cap * STRETCHED_ONCE_PART } else { cap };
        if !shadow && live.gate.of_age(share) && f64::from(self.told.log_evidence - self.told.threshold) >= overshoot::LN_AT_STAKE_MIN {
            let lift = live.handed_out(self.settings.direction, pane.total / dispersion, share);
            live.evidence.lift(overshoot::tempered(lift, cap));
        }
        let sum = live.evidence.step_lanes(&[l], &SHARES, share, cap, at_ms);
        let (panes_per_climb, high) = if self.settings.tolerance < BARE { (PANES_PER_CLIMB_BARE, HIGH) } else { (PANES_PER_CLIMB, HIGH_CLIMB) };
        if self.climb.step_allowing(panes_per_climb, high, sum / share, 1.0 / share, at_ms) {
            // The panes of this series are too short for it. Evidence on the old ones is forgotten, and their noise fades.
            self.fade_noise();
            self.forget(live);
            self.learn(pane, at_ms, pane_ms);
            return self.reading(Call::Quiet, injection);
        }
        if share != live.gate.injection {
            live.gate = self.gate(share);
        }
        let learns = shadow || sum < f64::from(live.gate.from);
        let (hits, total) = (pane.hits / within, pane.total / within);
        if !shadow {
            let part = if learns { 1.0 } else { f64::from(live.gate.part) };
            live.trail.push(hits, total, part * total, at_ms, pane_ms);
            self.tell(sum, injection);
            if sum >= 1.0 {
                return self.speak(live, at_ms, pane_ms, injection);
            }
        }
        live.held_since_ms = None;
        if learns {
            self.learn_held(live);
            self.learn(pane, at_ms, pane_ms);
        } else if live.gate.part > 0.0 {
            let part = f64::from(live.gate.part);
            self.take_in(part * hits, part * total);
            live.held.hits += (1.0 - part) * hits;
            live.held.total += (1.0 - part) * total;
        }
        self.reading(Call::Quiet, injection)
    }

    /// The evidence has gone down: what was held while it was high is as quiet as the rest. A pointer set meanwhile saw a part of it.
    fn learn_held(&mut self, live: &mut Live) {
        if live.held.total <= 0.0 {
            return;
        }
        let held = std::mem::take(&mut live.held);
        self.take_in(held.hits, held.total);
        live.trail.learn(held.total);
    }

    /// History that is not judged.
    pub fn learn_only(&mut self, pane: CountPane, at_ms: i64, pane_ms: i64) {
        self.judge(pane, at_ms, pane_ms, 0.0);
    }

    /// Counts of an imported reference.
    pub fn import(&mut self, hits: f64, total: f64) {
        self.k += hits;
        self.m += total;
        self.forget_days();
        self.renew_bets();
        self.ask_at = 0.0;
    }

    pub fn release(&mut self, how: Release) {
        let Some(frozen) = self.frozen.take() else {
            return;
        };
        self.settle_aside(how == Release::FalseAlarm);
        match how {
            Release::Fixed | Release::Expected => {}
            Release::NewNormal => {
                self.k = frozen.seen.hits;
                self.m = frozen.seen.total;
                self.armed = false;
                self.ask_at = 0.0;
                (self.hours, self.course) = (None, None);
                self.forget_days();
            }
            Release::FalseAlarm => {
                self.k += frozen.seen.hits;
                self.m += frozen.seen.total;
                self.forget_days();
                (self.within, self.ladder) = frozen.noise;
                if self.climb.lengthen(frozen.alarm_ms) {
                    self.fade_noise();
                }
            }
        }
        self.calm();
    }

    /// The last incident is over by itself: if it was normal life, what it brought belongs to its hours; else it is forgotten.
    pub fn settle(&mut self, was_normal: bool) {
        self.settle_aside(was_normal);
    }

    /// The boundary between history and live: what was found in history is listed, never paged, and evidence starts anew.
    pub fn start_live(&mut self) {
        self.frozen = None;
        self.settle_aside(false);
        self.forget_days();
        self.calm();
    }

    pub fn state(&self) -> State {
        if self.frozen.is_some() {
            State::Frozen
        } else if !self.armed {
            State::Warming
        } else if self.starved {
            State::Starved
        } else {
            State::Armed
        }
    }

    /// Panes that are judged as one, because evidence on single ones climbed more often than was promised; 1 is the rule.
    pub fn stretch(&self) -> u8 {
        self.climb.stretch()
    }

    /// Could the baseline ever show a doubling (or the floor) beyond the threshold? It takes twice the evidence needed. A bank is armed
    /// before that: see `seen_factor`.
    pub fn sees(&self, injection: f64) -> Sees {
        self.sees_factor(2.0, injection)
    }

    /// The smallest of the factors 1.5, 2, 3, 5 and 10 by which a rate may rise (or fall) that the baseline could show; `None`: not even
    /// tenfold. A bank is armed from fivefold on, and finds smaller changes too if it lives to see them, only not all of them.
    pub fn seen_factor(&self, injection: f64) -> Option<f64> {
        [1.5, 2.0, 3.0, 5.0, 10.0].into_iter().find(|factor| self.sees_factor(*factor, injection).armed)
    }

    fn sees_factor(&self, factor: f64, injection: f64) -> Sees {
        let b = if injection > 0.0 { injection } else { 1e-9 };
        let wanted = 2.0 * (-b.ln() + (ARMS as f64).ln());
        let phi = self.ladder.phi();
        let p = (self.k + 0.5) / (self.m + 1.0);
        let beyond = (factor / (1.0 + self.settings.tolerance)).max(1.0);
        let q = match self.settings.direction {
            Direction::Up => (p * beyond).max(p + self.settings.at_least).min(0.999),
            Direction::Down => (p / beyond).min(p - self.settings.at_least).max(1e-6),
        };
        let per_event = p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
        let have = self.m / phi * per_event;
        Sees { armed: have >= wanted, needs_events: if have >= wanted { 0.0 } else { (wanted - have) / per_event.max(1e-12) * phi } }
    }

    pub fn baseline(&self) -> Option<Band> {
        (self.m > 0.0).then(|| {
            let value = self.k / self.m;
            let edge = self.edge(value);
            match self.settings.direction {
                Direction::Up => Band { value, low: 0.0, high: edge, events: self.m },
                Direction::Down => Band { value, low: edge, high: 1.0, events: self.m },
            }
        })
    }

    /// A successor (a new version) that starts from these counts, discounted to at most `weight_max` events.
    pub fn succeed(&self, weight_max: f64) -> RateBank {
        let share = (weight_max / self.m.max(1.0)).min(1.0);
        let mut next = RateBank::new(self.settings);
        next.k = self.k * share;
        next.m = self.m * share;
        next.within = self.within;
        next.ladder = self.ladder.clone();
        next.climb = self.climb;
        next.hours = self.hours.clone();
        (next.course, next.untold) = (self.course, self.untold);
        if let Some(hours) = next.told_hours() {
            hours.discount(share);
        }
        // It bets from the first pane on: what is bad from birth must not become its own baseline.
        next.armed = self.armed;
        next
    }

    pub fn reset(&mut self) {
        *self = RateBank::new(self.settings);
    }

    // --- the recipe, step by step ---

    fn calm(&mut self) {
        self.forget_evidence();
        self.lagged = Lag::default();
        self.merging = false;
        self.renew_bets();
    }

    /// The incident is over: its hours are normal, or forgotten.
    fn settle_aside(&mut self, is_normal: bool) {
        if let Some(hours) = self.told_hours() {
            hours.settle_aside(is_normal);
        }
    }

    /// Levels of the hours, with all that was learned.
    fn told_hours(&mut self) -> Option<&mut Levels> {
        let untold = std::mem::take(&mut self.untold);
        let hours = self.hours.as_deref_mut()?;
        hours.learn(f64::from(untold.0), f64::from(untold.1));
        Some(hours)
    }

    fn forget_days(&mut self) {
        if let Some(live) = &mut self.live {
            live.days = Default::default();
        }
    }

    fn renew_bets(&mut self) {
        if let Some(live) = &mut self.live {
            live.bets.panes = 0;
        }
    }

    /// Panes get longer: what is known of the noise of the shorter ones is kept as a few panes' worth.
    fn fade_noise(&mut self) {
        self.ladder.lengthen();
        self.within.fade();
        self.lagged = Lag::default();
    }

    fn forget_evidence(&mut self) {
        if let Some(live) = &mut self.live {
            live.forget();
        }
        self.told.log_evidence = 0.0;
    }

    fn forget(&mut self, live: &mut Live) {
        live.forget();
        self.told.log_evidence = 0.0;
    }

    #[inline]
    fn count_hour(&mut self, total: f64, at_ms: i64) {
        // Also when time runs backwards, as after a restart from an older position.
        if at_ms >= self.hour_end_ms || at_ms < self.hour_end_ms - HOUR_MS {
            self.starved = self.hour_end_ms != i64::MIN && f64::from(self.hour_events) < STARVED_EVENTS_PER_HOUR;
            let hour = at_ms.div_euclid(HOUR_MS);
            self.hour_end_ms = (hour + 1) * HOUR_MS;
            self.hour_events = 0.0;
            if self.m > 0.0 {
                self.turn_hour(hour);
            }
        }
        self.hour_events += total as f32;
    }

    /// Another hour may have another level.
    fn turn_hour(&mut self, hour: i64) {
        let s = &self.settings;
        let p = CountPane { hits: self.k, total: self.m }.rate();
        let forgiven = (p * s.tolerance).max(s.at_least);
        let suspect_from_ms = self.live.as_ref().and_then(|live| live.evidence.speaks_since(0..ARMS));
        if self.hours.is_none() {
            // The hour began before anything was known of it.
            self.untold = (0.0, 0.0);
            self.hours = Some(Box::default());
        }
        let phi = self.ladder.phi_below(HOURLY_PANES, DOUBT);
        let Some(hours) = self.told_hours() else { return };
        // The course of the day is not what makes its hours uncertain.
        hours.turn(hour, p, p * (1.0 - p), phi, forgiven, suspect_from_ms);
        let course = hours.course_now();
        let known = std::mem::replace(&mut self.course, course);
        if course.is_some() && known.is_none() {
            // What noise there seemed to be in long stretches was the course of the day.
            self.ladder.forget_from(HOURLY_PANES);
            self.lagged = Lag::default();
        }
        self.renew_bets();
    }

    /// The rate to which that of all hours moves in an hour, on the side of a change as far as it may reach.
    fn at_hour(&self, p: f64, level: Level, reach: f64) -> f64 {
        let side = match self.settings.direction {
            Direction::Up => level.half,
            Direction::Down => -level.half,
        };
        (p + level.middle + reach * side).clamp(HOUR_SHARE_MIN * p, 1.0 - HOUR_SHARE_MIN * (1.0 - p))
    }

    /// The level of the present hour.
    fn level(&self) -> Level {
        self.hours.as_ref().map_or(Level::default(), |hours| hours.level(hours.hour()))
    }

    /// Merges sparse panes; a merged pane has the time of its first part and the injections of all.
    #[inline]
    fn merged(&mut self, pane: CountPane, at_ms: i64, pane_ms: i64, injection: f64) -> Option<(CountPane, i64, i64, f64)> {
        let stretch = self.climb.stretch();
        if !self.merging && pane.total >= MERGE_EVENTS && stretch <= 1 {
            return Some((pane, at_ms, pane_ms, injection));
        }
        let held = self.pending;
        let all = if self.merging {
            Pending {
                sum: CountPane { hits: held.sum.hits + pane.hits, total: held.sum.total + pane.total },
                start_ms: held.start_ms,
                length_ms: at_ms + pane_ms - held.start_ms,
                injection: held.injection + injection,
            }
        } else {
            Pending { sum: pane, start_ms: at_ms, length_ms: pane_ms, injection }
        };
        if all.sum.total <= 0.0 {
            // Nothing happened: nothing is judged, and what might have been spent on it is forgone.
            self.merging = false;
            return None;
        }
        if all.length_ms < MERGE_MS.max(i64::from(stretch) * pane_ms)
            && (all.sum.total < MERGE_EVENTS || all.length_ms < i64::from(stretch) * pane_ms)
        {
            (self.merging, self.pending) = (true, all);
            return None;
        }
        self.merging = false;
        Some((all.sum, all.start_ms, all.length_ms, all.injection))
    }

    fn ask_whether_armed(&mut self, injection: f64) {
        if self.m < self.ask_at {
            return;
        }
        // A large change is visible long before a doubling is; what comes before the noise is known would be paged for its noise.
        let noise_known = self.ladder.fed >= NOISE_PANES_MIN;
        let young = self.sees_factor(YOUNG_FACTOR, injection).armed && self.k >= YOUNG_HITS;
        let sees = self.sees(injection);
        self.armed = sees.armed || noise_known && young;
        // The rate may turn out higher than it looks, so the question comes again well before the answer is due.
        self.ask_at = self.m + if young { 0.0 } else { sees.needs_events.min(self.m) / 16.0 };
    }

    /// Learning stops while evidence is high. At B^(1/4) rare errors without tolerance come up to what was promised (a null that refuses
    /// high counts is biased), at B^(1/8) they stay at half of it. A baseline too young for a doubling would learn most doublings before
    /// it could show them: twenty errors can show 6 nats of one at most. It goes a middle way: from B^(3/5) on it learns a part of each
    /// pane, and the rest once the evidence has gone down. A fault can then show as many times the evidence as the part is small, and
    /// the null refuses nothing for good. With tolerance a baseline stays young twice as long: what it learns of a fault also moves the
    /// edge of tolerance (of 200 errors of 1 %, three in ten doublings were missed).
    fn gate(&self, injection: f64) -> Gate {
        let bare = self.settings.tolerance < BARE;
        // The square of an injection asks for twice its nats.
        let of_age = self.sees(if bare { injection } else { injection * injection }).armed;
        let (from, part) = if of_age {
            (injection.sqrt().sqrt().sqrt(), 0.0)
        } else {
            (exp(YOUNG_GATE * ln(injection)), if bare { YOUNG_PART_BARE } else { YOUNG_PART })
        };
        Gate { injection, from: from as f32, part: part as f32 }
    }

    /// The edge of tolerance around a rate.
    fn edge(&self, p: f64) -> f64 {
        let s = &self.settings;
        match s.direction {
            Direction::Up => (p * (1.0 + s.tolerance)).max(p + s.at_least).min(1.0 - 1e-9),
            Direction::Down => (p / (1.0 + s.tolerance)).min(p - s.at_least).max(1e-9),
        }
    }

    fn dispersion(&self, total: f64) -> f64 {
        (1.0 + (total - 1.0).max(0.0) * f64::from(self.within.rho)) * self.ladder.phi()
    }

    /// Evidence has reached the threshold: alarm, or held because the change is not worth one.
    fn speak(&mut self, live: &mut Live, at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let arm = live.evidence.best();
        let (mut seen, mut learned) = (CountPane::default(), CountPane::default());
        for of in live.trail.since(live.evidence.start_of(arm)) {
            seen = CountPane { hits: seen.hits + of.hits, total: seen.total + of.total };
            learned = CountPane { hits: learned.hits + of.hits * of.learned / of.total.max(1e-9), total: learned.total + of.learned };
        }
        let (k, m) = ((self.k - learned.hits).max(0.0), (self.m - learned.total).max(0.0));
        let before = k / m.max(1.0);
        let usual = self.at_hour((before + 0.5 / (m + 1.0)).min(1.0), self.level(), 0.0);
        // The pointer of a small alternative may lie long before the onset: the size is told from the trail.
        let up = self.settings.direction == Direction::Up;
        let (onset, [low, after, high]) = live.trail.onset(usual, up, self.ladder.phi(), live.evidence.start_of(arm), pane_ms);
        let change = Change { before, after, low, high };
        let beyond = match self.settings.direction {
            Direction::Up => change.after > self.edge(before).min(f64::from(live.bets.p)),
            Direction::Down => change.after < self.edge(before).max(f64::from(live.bets.p)),
        };
        if !beyond {
            let since = *live.held_since_ms.get_or_insert(at_ms);
            if at_ms - since >= super::HELD_RESET_MS {
                self.forget(live);
            }
            return self.reading(Call::Held { change, why: "the change is within tolerance" }, injection);
        }
        (self.k, self.m) = (k, m);
        if let Some(hours) = self.told_hours() {
            hours.settle_aside(false);
            for of in live.trail.since(live.evidence.start_of(arm)) {
                let hour = of.start_ms.div_euclid(HOUR_MS);
                hours.give_back(hour, of.hits * of.learned / of.total.max(1e-9), of.learned);
                hours.set_aside(hour, of.hits, of.total);
            }
        }
        let noise = (self.within, self.ladder.clone());
        if let Some((within, ladder)) = live.noise.take() {
            (self.within, self.ladder) = (within, ladder);
        }
        // What comes after the incident is no neighbour of what came before it.
        self.within.part();
        self.ladder.part();
        self.climb.paged();
        let p0 = self.healthy(live.days[0]);
        let boundary = self.recovery_boundary(p0, change, RECOVERY_SIZE_AT_ALARM);
        let (threshold, log_evidence) = (f64::from(self.told.threshold), f64::from(self.told.log_evidence));
        self.calm();
        live.forget();
        live.bets.panes = 0;
        self.frozen = Some(Box::new(Frozen {
            alarm_ms: at_ms,
            before: p0,
            boundary,
            recovery: Mixture::new(RECOVERY_ARMS),
            seen,
            since: [CountPane::default(); RECOVERY_ARMS],
            lasting: CountPane::default(),
            noise,
        }));
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Alarm { change, onset } }
    }

    /// The rate to come back to: that of the baseline, unless it has left the one of yesterday by more than that one's error. A slow
    /// incident is found late and has taught the baseline meanwhile; half of it would then look healthy.
    fn healthy(&self, yesterday: CountPane) -> f64 {
        let p0 = CountPane { hits: self.k, total: self.m }.rate();
        if yesterday.total <= 0.0 {
            return p0;
        }
        self.settings.direction.nearer(p0, yesterday.far(self.settings.direction, self.ladder.phi()))
    }

    /// What recovery must refute: the geometric middle of quiet and incident, but no more than a factor of 1.5 or two floors: a change
    /// inside the floor is worth nobody's time, and to refute it would take thousands of events. So that a fault repaired half is not
    /// called healthy, the factor is counted from a baseline that may well be too far, and the incident from a size that may well be
    /// too large (at the alarm it mostly is: that is why the alarm came).
    fn recovery_boundary(&self, p0: f64, incident: Change, believed: f64) -> f64 {
        let floors = 2.0 * self.settings.at_least;
        let error = 1.0 - (RECOVERY_ERRORS * (self.ladder.phi() / (self.k + 1.0)).sqrt()).min(0.5);
        let toward = |near: f64, likely: f64| near * (likely / near).powf(believed);
        match self.settings.direction {
            Direction::Up => {
                let size = toward(incident.low.max(p0), incident.after.max(p0)).max(p0);
                let middle = (p0 * size).sqrt() * error;
                middle.min((p0 * RECOVERY_FACTOR_MAX * error).max(p0 + floors)).max(self.edge(p0))
            }
            Direction::Down => {
                let size = toward(incident.high.clamp(1e-9, p0), incident.after.clamp(1e-9, p0)).min(p0);
                let middle = (p0 * size).sqrt() / error;
                middle.max((p0 / RECOVERY_FACTOR_MAX / error).min(p0 - floors)).min(self.edge(p0))
            }
        }
    }

    /// Interval of 95 % by Wilson's score. `after` counts what resemblance within panes left; `phi` is that between panes.
    fn change(before: f64, after: CountPane, phi: f64) -> Change {
        let n = (after.total / phi).max(1.0);
        let p = if after.total > 0.0 { after.hits / after.total } else { 0.0 };
        let z2 = 1.96f64 * 1.96;
        let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
        let half = 1.96 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
        Change { before, after: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
    }

    fn watch_recovery(&mut self, pane: CountPane, at_ms: i64, pane_ms: i64) -> Reading {
        let f = self.dispersion(pane.total);
        let direction = self.settings.direction;
        let injection = recovery_injection(pane_ms);
        let Some(frozen) = self.frozen.as_mut() else {
            return self.reading(Call::Quiet, injection);
        };
        let within = f / self.ladder.phi();
        if let Some(hours) = &mut self.hours {
            hours.set_aside(at_ms.div_euclid(HOUR_MS), pane.hits / within, pane.total / within);
        }
        frozen.seen.hits += pane.hits / within;
        frozen.seen.total += pane.total / within;
        frozen.lasting.hits += pane.hits / within;
        frozen.lasting.total += pane.total / within;
        // While the incident lasts its size becomes known, and with it how far away healthy is. Evidence against a rate at the old
        // boundary is also evidence against the new one beyond it.
        let (lasting, p0, c) = (frozen.lasting, frozen.before, frozen.boundary);
        let now = self.recovery_boundary(p0, Self::change(p0, lasting, self.ladder.phi()), RECOVERY_SIZE);
        let c = if direction == Direction::Up { c.max(now) } else { c.min(now) };
        let Some(frozen) = self.frozen.as_mut() else {
            return self.reading(Call::Quiet, injection);
        };
        frozen.boundary = c;
        let (e, v) = (pane.hits / f, pane.total / f);
        let far = match direction {
            Direction::Up => 0.7 * p0,
            Direction::Down => (1.3 * p0).min((1.0 + p0) / 2.0),
        };
        let alternatives = [far, p0, p0 + 0.25 * (c - p0), p0 + 0.5 * (c - p0), p0 + 0.7 * (c - p0)];
        let l: [f64; RECOVERY_ARMS] = std::array::from_fn(|j| {
            let q = alternatives[j];
            e * (q / c).ln() + (v - e) * ((1.0 - q) / (1.0 - c)).ln()
        });
        let sum = frozen.recovery.step(&l, injection, at_ms);
        for (j, since) in frozen.since.iter_mut().enumerate() {
            if frozen.recovery.start_of(j) == at_ms {
                *since = CountPane::default();
            }
            since.hits += pane.hits;
            since.total += pane.total;
        }
        let (log_evidence, threshold) = super::nats(sum, injection);
        let arm = frozen.recovery.best();
        let since = frozen.since[arm];
        let before = frozen.before;
        let rate = since.hits / since.total.max(1.0);
        let inside = match direction {
            Direction::Up => rate <= self.edge(before).max(c.min(before * RECOVERY_FACTOR_MAX) * 0.999),
            Direction::Down => rate >= self.edge(before).min(c.max(before / RECOVERY_FACTOR_MAX) * 1.001),
        };
        if sum >= 1.0 && inside {
            let after = CountPane { hits: since.hits / within, total: since.total / within };
            let change = Self::change(before, after, self.ladder.phi());
            self.frozen = None;
            self.calm();
            return Reading { state: self.state(), log_evidence, threshold, call: Call::Recovered { change } };
        }
        Reading { state: State::Frozen, log_evidence, threshold, call: Call::Quiet }
    }

    fn learn(&mut self, pane: CountPane, at_ms: i64, pane_ms: i64) {
        let fade = decay(pane_ms);
        self.k *= fade;
        self.m *= fade;
        // A course that comes again is no noise.
        let moved = self.course.map_or(0.0, |course| course.at(at_ms, pane_ms));
        self.learn_noise(CountPane { hits: pane.hits - moved * pane.total, total: pane.total });
        let within = 1.0 + (pane.total - 1.0).max(0.0) * f64::from(self.within.rho);
        self.take_in(pane.hits / within, pane.total / within);
    }

    fn take_in(&mut self, hits: f64, total: f64) {
        self.k += hits;
        self.m += total;
        self.untold.0 += hits as f32;
        self.untold.1 += total as f32;
    }

    /// How noisy the series is, is learned some panes late: the first panes of a fault would otherwise call themselves noise.
    fn learn_noise(&mut self, newest: CountPane) {
        let Some(pane) = self.lagged.push(newest) else {
            return;
        };
        let p = ((self.k + 0.5) / (self.m + 1.0)).max(self.settings.at_least).clamp(1e-6, 0.5);
        self.within.feed(pane, p * (1.0 - p));
        let within = 1.0 + (pane.total - 1.0).max(0.0) * f64::from(self.within.rho);
        let errors = if self.climb.stretch() > 1 || self.ladder.fed() < DOUBT_FROM_PANES { 1.0 } else { DOUBT };
        self.ladder.feed_doubting(pane.hits / within, pane.total / within, p * (1.0 - p), errors);
    }

    fn tell(&mut self, sum: f64, injection: f64) {
        if injection != self.told.injection {
            self.told.injection = injection;
            self.told.threshold = if injection > 0.0 { -injection.ln() as f32 } else { f32::INFINITY };
        }
        self.told.log_evidence = (ln_near(sum.max(1e-300)) as f32 + self.told.threshold).max(-50.0);
    }

    #[inline]
    fn reading(&self, call: Call, injection: f64) -> Reading {
        if injection <= 0.0 {
            return Reading { state: self.state(), log_evidence: 0.0, threshold: f64::INFINITY, call };
        }
        let threshold = if injection == self.told.injection { f64::from(self.told.threshold) } else { -injection.ln() };
        Reading { state: self.state(), log_evidence: f64::from(self.told.log_evidence), threshold, call }
    }
}

// === impl Gate, Live ===

impl Gate {
    /// For this injection the baseline can see a doubling. A younger one has spent on finding faults what is wasted beyond the threshold.
    fn of_age(&self, injection: f64) -> bool {
        self.injection == injection && self.part == 0.0
    }
}

impl Live {
    fn forget(&mut self) {
        self.evidence.clear();
        self.trail.clear();
        self.held_since_ms = None;
        self.held = CountPane::default();
        self.noise = None;
    }

    fn turn_day(&mut self, quiet: CountPane, direction: Direction, phi: f64, at_ms: i64) {
        if self.days[0].total <= 0.0 {
            self.days = [quiet; 2];
            self.day_end_ms = at_ms + DAY_MS;
        } else if at_ms >= self.day_end_ms || quiet.total >= 2.0 * self.days[1].total {
            let rate = direction.nearer(quiet.rate(), self.days[1].far(direction, phi));
            self.days = [self.days[1], CountPane { hits: rate * (quiet.total + 1.0) - 0.5, total: quiet.total }];
            self.day_end_ms = at_ms + DAY_MS;
        }
    }
}

impl Direction {
    /// Of two rates the one that is less of a change.
    fn nearer(self, one: f64, other: f64) -> f64 {
        match self {
            Direction::Up => one.min(other),
            Direction::Down => one.max(other),
        }
    }
}

impl CountPane {
    /// Jeffreys' half a hit keeps it above nothing.
    fn rate(self) -> f64 {
        (self.hits.max(0.0) + 0.5) / (self.total + 1.0)
    }

    /// The rate that these counts still allow for on the side of a change.
    fn far(self, direction: Direction, phi: f64) -> f64 {
        let error = RECOVERY_ERRORS * (phi / (self.hits.max(0.0) + 1.0)).sqrt();
        match direction {
            Direction::Up => self.rate() * (1.0 + error),
            Direction::Down => self.rate() / (1.0 + error),
        }
    }
}

// === impl Within, Lag ===

impl Within {
    fn feed(&mut self, pane: CountPane, variance: f64) {
        let (hits, total) = (f64::from(self.previous_hits), f64::from(self.previous_total));
        if total > 0.0 {
            let (per, per_previous, per_variance) = (1.0 / pane.total, 1.0 / total, 1.0 / variance);
            let h = per + per_previous;
            let differs = pane.hits * per - hits * per_previous;
            self.sum += (differs * differs * per_variance - h) as f32;
            self.weight += (2.0 - h) as f32;
            // Squared differences of rare events are more erratic than those of normal ones (variance 2).
            self.variance += (h * h * (2.0 + 0.25 * h * per_variance)) as f32;
            if self.weight > 2.0 * PAIRS_MAX {
                self.scale(0.5);
            }
        }
        (self.previous_hits, self.previous_total) = (pane.hits as f32, pane.total as f32);
        self.believe();
    }

    fn scale(&mut self, by: f32) {
        self.sum *= by;
        self.weight *= by;
        self.variance *= by * by;
        self.believe();
    }

    fn fade(&mut self) {
        self.scale((48.0 / self.weight.max(1.0)).min(1.0));
        self.part();
    }

    /// What comes now is no neighbour of what came before.
    fn part(&mut self) {
        self.previous_total = 0.0;
    }

    /// Correlation of events within a pane, shrunk towards none; one standard error of it is not believed.
    fn believe(&mut self) {
        self.rho = ((self.sum - self.variance.sqrt()) / (self.weight + 20.0)).clamp(0.0, 1.0);
    }
}

impl Lag {
    /// Takes in the newest and gives the oldest once the ring is full.
    fn push(&mut self, pane: CountPane) -> Option<CountPane> {
        let at = usize::from(self.oldest + self.count) % NOISE_LAG;
        let new = (pane.hits as f32, pane.total as f32);
        if usize::from(self.count) < NOISE_LAG {
            self.panes[at] = new;
            self.count += 1;
            return None;
        }
        let (hits, total) = std::mem::replace(&mut self.panes[at], new);
        self.oldest = (self.oldest + 1) % NOISE_LAG as u8;
        Some(CountPane { hits: f64::from(hits), total: f64::from(total) })
    }
}

#[cfg(test)]
mod tests;
