//! One line of the judge's book: a series, the bank that gathers its evidence, and its recent past.

use std::collections::VecDeque;
use std::sync::Arc;

use bellwether_detectors::ahead::{Ahead, ask_for};
use bellwether_detectors::evidence::bins::{BinsBank, BinsSettings, Told};
use bellwether_detectors::evidence::classes::{ClassBank, ClassSettings};
use bellwether_detectors::evidence::counts::{CountsBank, CountsSettings};
use bellwether_detectors::evidence::gap::{GapBank, GapSettings};
use bellwether_detectors::evidence::rate::{CountPane, Direction, RateBank, RateSettings};
use bellwether_detectors::evidence::seasonal_step::{SeasonalSettings, SeasonalStepBank};
use bellwether_detectors::evidence::{Band, Sees};
use bellwether_detectors::sketch::log_linear::middle;
use bellwether_detectors::{Call, Reading, Release, State};
use serde::{Deserialize, Serialize};

use super::embedding::{EmbeddingLine, Vectors};
use super::fairness::{FairnessBank, Tally};
use super::import::Provenance;
use super::joint::JointLine;
use super::reference::{DAYS_MIN, Reference};
use crate::domain::alarm::Unit;
use crate::domain::series::StableHash;
use crate::domain::{DetectorState, SeriesId, SeriesKey, Signal, Time};
use crate::pane::{Samples, SlotName};

/// Panes kept of every line of a whole model, and of its parts, for charts and for comparing siblings.
pub const POINTS_MAX: usize = 120;
pub const POINTS_OF_PART_MAX: usize = 60;
/// Room for points is asked for so many at a time.
const POINTS_MORE: usize = 6;
/// Decisions kept of every line.
pub const DECISIONS_MAX: usize = 12;
/// What was expected once is not expected for ever.
const EXPECTED_MS: i64 = 24 * 3_600_000;
/// An absolute limit is a rate known from so many events that nothing can teach it otherwise.
const LIMIT_EVENTS: f64 = 1e12;

/// One pane of one series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Start of the pane.
    pub time: Time,
    /// Events behind the value.
    pub n: f64,
    pub value: f64,
    /// The baseline and the edges of tolerance around it at that time.
    pub baseline: f64,
    pub low: f64,
    pub high: f64,
    pub log_evidence: f64,
    pub threshold: f64,
}

/// The newest points of a line. There are very many, and they are drawn and compared, never computed on: values are of single
/// precision, evidence and threshold have eight bits of mantissa, times are whole seconds, as panes are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Points(VecDeque<SmallPoint>);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct SmallPoint {
    /// Since 1970.
    seconds: u32,
    /// Count, value, baseline and its edges.
    values: [f32; 5],
    /// Upper halves of the bits of evidence and threshold.
    evidence: [u16; 2],
}

/// A decision about one series, for people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    pub at: Time,
    /// `raised`, `held`, `listed`, `recovered`.
    pub what: String,
    pub why: String,
}

/// The bank behind a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Bank {
    Rate(Box<RateBank>),
    /// A rate against an absolute limit that learning does not move.
    Limit(Box<RateBank>),
    Bins(Box<BinsBank>),
    Classes(Box<ClassBank>),
    Counts(Box<CountsBank>),
    Seasonal(Box<SeasonalStepBank>),
    Gap(Box<GapBank>),
    Fairness(Box<FairnessBank>),
    Embedding(Box<EmbeddingLine>),
    Joint(Box<JointLine>),
}

/// What a line is fed with at a pane close.
pub enum Feed<'a> {
    Share {
        hits: f64,
        total: f64,
    },
    Grid(&'a [(u16, u32)]),
    Classes(&'a [(u16, u32)]),
    Count {
        count: f64,
        exposure: f64,
    },
    /// The sum over one finished interval that began at `start`.
    Interval {
        value: f64,
        start: Time,
    },
    Arrivals {
        at_ms: &'a [i64],
        alive: bool,
    },
    /// Groups of a protected attribute.
    Groups(&'a [Tally]),
    Vectors(Vectors<'a>),
    /// Events whose values are taken together, and the names of their slots.
    Together(&'a Samples, &'a [SlotName]),
}

/// What every judging touches stands at the front, as in a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[repr(C)]
pub struct Line {
    pub series: SeriesKey,
    pub bank: Bank,
    /// A person said that this change is expected: it does not speak again before it is back, for a day at most. Holds the
    /// pane from which the day counts; `Time::MIN` until there is one.
    pub expected: Option<Time>,
    /// Before this it only learns.
    pub judged_from: Time,
    /// False pages that this line may spend on one pane.
    pub injection: f64,
    /// What was learned first, of a model as a whole: the yardstick of slow drift.
    pub reference: Option<Box<Reference>>,
    pub last_evidence: f64,
    /// Nats of evidence that the change is over, and how many are asked, while an incident is open.
    pub recovery: Option<(f64, f64)>,
    /// Its alarm belongs to a live incident.
    pub is_out: bool,
    pub held: bool,
    pub half_recovered: bool,
    pub unit: Unit,
    pub points: Points,
    pub id: SeriesId,
    /// Its part of the budget before division: features weigh less than failures.
    pub weight: f64,
    pub onset: Option<Time>,
    pub change: Option<Box<bellwether_detectors::Change>>,
    pub decisions: VecDeque<Decided>,
    /// The file that its baseline began with.
    pub learned_from: Option<Arc<Provenance>>,
}

/// The upper half of the bits of a single, rounded; what is no number stays none, what is infinite stays so.
fn upper_half(v: f64) -> u16 {
    let bits = (v as f32).to_bits();
    if v.is_finite() { (bits.saturating_add(0x8000) >> 16) as u16 } else { (bits >> 16) as u16 | u16::from(v.is_nan()) << 6 }
}

// === impl Points ===

impl Points {
    fn push(&mut self, p: Point, most: usize) {
        while self.0.len() >= most {
            self.0.pop_front();
        }
        if self.0.len() == self.0.capacity() {
            // There are very many of these, and most grow slowly: no more room than is needed soon.
            self.0.reserve_exact(POINTS_MORE);
        }
        self.0.push_back(SmallPoint {
            seconds: (p.time.0 / 1_000).clamp(0, i64::from(u32::MAX)) as u32,
            values: [p.n, p.value, p.baseline, p.low, p.high].map(|v| v as f32),
            evidence: [p.log_evidence, p.threshold].map(upper_half),
        });
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Point> + '_ {
        self.0.iter().map(|small| {
            let [n, value, baseline, low, high] = small.values.map(f64::from);
            let [log_evidence, threshold] = small.evidence.map(|half| f64::from(f32::from_bits(u32::from(half) << 16)));
            Point { time: Time(i64::from(small.seconds) * 1_000), n, value, baseline, low, high, log_evidence, threshold }
        })
    }

    pub fn back(&self) -> Option<Point> {
        self.iter().next_back()
    }

    pub fn front(&self) -> Option<Point> {
        self.iter().next()
    }
}

// === impl Bank ===

impl Bank {
    pub fn rate(tolerance: f64, at_least: f64) -> Bank {
        Bank::Rate(Box::new(RateBank::new(RateSettings { direction: Direction::Up, tolerance, at_least })))
    }

    pub fn limit(limit: f64) -> Bank {
        let mut bank = RateBank::new(RateSettings { direction: Direction::Up, tolerance: 0.0, at_least: 0.0 });
        bank.import(limit * LIMIT_EVENTS, LIMIT_EVENTS);
        Bank::Limit(Box::new(bank))
    }

    pub fn bins(tolerance_sigma: f64) -> Bank {
        Bank::Bins(Box::new(BinsBank::new(BinsSettings { tolerance_sigma })))
    }

    pub fn classes(tolerance: f64) -> Bank {
        Bank::Classes(Box::new(ClassBank::new(ClassSettings { tolerance })))
    }

    pub fn counts(tolerance: f64, at_least: f64) -> Bank {
        Bank::Counts(Box::new(CountsBank::new(CountsSettings { tolerance, at_least, both: false })))
    }

    /// Traffic against what its season promises, where 1 is as promised: both ways.
    pub fn traffic(tolerance: f64) -> Bank {
        Bank::Counts(Box::new(CountsBank::new(CountsSettings { tolerance, at_least: 0.0, both: true })))
    }

    pub fn seasonal(tolerance: f64) -> Bank {
        Bank::Seasonal(Box::new(SeasonalStepBank::new(SeasonalSettings { tolerance, ..SeasonalSettings::default() })))
    }

    pub fn gap(settings: GapSettings) -> Bank {
        Bank::Gap(Box::new(GapBank::new(settings)))
    }

    /// The detector's name, as alarms carry it.
    pub fn name(&self) -> &'static str {
        match self {
            Bank::Rate(_) => "rate",
            Bank::Limit(_) => "limit",
            Bank::Bins(_) => "bins",
            Bank::Classes(_) => "classes",
            Bank::Counts(_) => "counts",
            Bank::Seasonal(_) => "seasonal_step",
            Bank::Gap(_) => "gap",
            Bank::Fairness(_) => "two_group",
            Bank::Embedding(_) => "embedding",
            Bank::Joint(_) => "joint",
        }
    }

    /// Banks that are judged in every pane, whose memory is asked for beforehand; the others come too seldom.
    fn ahead(&self) -> Option<&dyn Ahead> {
        match self {
            Bank::Rate(b) | Bank::Limit(b) => Some(&**b),
            Bank::Bins(b) => Some(&**b),
            Bank::Classes(b) => Some(&**b),
            Bank::Counts(_) | Bank::Seasonal(_) | Bank::Gap(_) | Bank::Fairness(_) | Bank::Embedding(_) | Bank::Joint(_) => None,
        }
    }

    pub fn ask_for_state(&self) {
        self.ahead().inspect(|bank| bank.ask_for_state());
    }

    pub fn ask_for_trail(&self) {
        self.ahead().inspect(|bank| bank.ask_for_trail());
    }

    pub fn judge(&mut self, feed: &Feed<'_>, at: Time, pane_ms: i64, injection: f64) -> Option<Reading> {
        match (self, feed) {
            (Bank::Rate(b) | Bank::Limit(b), Feed::Share { hits, total }) => {
                Some(b.judge(CountPane { hits: *hits, total: *total }, at.0, pane_ms, injection))
            }
            (Bank::Bins(b), Feed::Grid(pane)) => Some(b.judge(pane, at.0, pane_ms, injection)),
            (Bank::Classes(b), Feed::Classes(pane)) => Some(b.judge(pane, at.0, pane_ms, injection)),
            (Bank::Counts(b), Feed::Count { count, exposure }) => Some(b.judge(*count, *exposure, at.0, pane_ms, injection)),
            (Bank::Seasonal(b), Feed::Interval { value, start }) => Some(b.judge(*value, start.0, injection)),
            (Bank::Gap(b), Feed::Arrivals { at_ms, alive }) => Some(b.judge(at_ms, at.0, pane_ms, *alive, injection)),
            (Bank::Fairness(b), Feed::Groups(pane)) => Some(b.judge(pane, at.0, pane_ms, injection)),
            (Bank::Embedding(b), Feed::Vectors(pane)) => Some(b.judge(pane, at.0, pane_ms, injection)),
            (Bank::Joint(b), Feed::Together(samples, slots)) => Some(b.judge(samples, slots, at.0, pane_ms, injection)),
            _ => None,
        }
    }

    pub fn release(&mut self, how: Release) {
        match self {
            Bank::Rate(b) | Bank::Limit(b) => b.release(how),
            Bank::Bins(b) => b.release(how),
            Bank::Classes(b) => b.release(how),
            Bank::Counts(b) => b.release(how),
            Bank::Seasonal(b) => b.release(how),
            Bank::Gap(b) => b.release(how),
            Bank::Fairness(b) => b.bank.release(how),
            Bank::Embedding(b) => b.release(how),
            Bank::Joint(b) => b.release(how),
        }
    }

    /// A change is over by itself. If it was normal life, as a weekend is that was found in history, what it brought belongs to its hours.
    pub fn settle(&mut self, was_normal: bool) {
        match self {
            Bank::Rate(b) => b.settle(was_normal),
            Bank::Bins(b) => b.settle(was_normal),
            Bank::Classes(b) => b.settle(was_normal),
            Bank::Limit(_) | Bank::Counts(_) | Bank::Seasonal(_) | Bank::Gap(_) | Bank::Fairness(_) | Bank::Embedding(_) | Bank::Joint(_) => {}
        }
    }

    pub fn start_live(&mut self) {
        match self {
            Bank::Rate(b) | Bank::Limit(b) => b.start_live(),
            Bank::Bins(b) => b.start_live(),
            Bank::Classes(b) => b.start_live(),
            Bank::Counts(b) => b.start_live(),
            Bank::Seasonal(b) => b.start_live(),
            Bank::Gap(b) => b.start_live(),
            Bank::Fairness(b) => b.bank.start_live(),
            Bank::Embedding(b) => b.start_live(),
            Bank::Joint(b) => b.start_live(),
        }
    }

    pub fn state(&self) -> State {
        match self {
            Bank::Rate(b) | Bank::Limit(b) => b.state(),
            Bank::Bins(b) => b.state(),
            Bank::Classes(b) => b.state(),
            Bank::Counts(b) => b.state(),
            Bank::Seasonal(b) => b.state(),
            Bank::Gap(b) => b.state(),
            Bank::Fairness(b) => b.bank.state(),
            Bank::Embedding(b) => b.state(),
            Bank::Joint(b) => b.state(),
        }
    }

    /// Panes that are judged as one; 1 is the rule.
    pub fn stretch(&self) -> u8 {
        match self {
            Bank::Rate(b) | Bank::Limit(b) => b.stretch(),
            Bank::Bins(b) => b.stretch(),
            Bank::Classes(b) => b.stretch(),
            Bank::Counts(_) | Bank::Seasonal(_) | Bank::Gap(_) | Bank::Fairness(_) | Bank::Embedding(_) | Bank::Joint(_) => 1,
        }
    }

    pub fn sees(&self, injection: f64) -> Sees {
        match self {
            Bank::Rate(b) | Bank::Limit(b) => b.sees(injection),
            Bank::Bins(b) => b.sees(injection),
            Bank::Classes(b) => b.sees(injection),
            Bank::Counts(b) => b.sees(injection),
            Bank::Seasonal(b) => b.sees(injection),
            Bank::Gap(b) => b.sees(injection),
            Bank::Fairness(b) => b.bank.sees(injection),
            Bank::Embedding(b) => b.sees(injection),
            Bank::Joint(b) => b.sees(injection),
        }
    }

    pub fn baseline(&self) -> Option<Band> {
        match self {
            Bank::Rate(b) | Bank::Limit(b) => b.baseline(),
            Bank::Bins(b) => b.baseline(),
            Bank::Classes(b) => b.baseline(),
            Bank::Counts(b) => b.baseline(),
            Bank::Seasonal(b) => b.baseline(),
            Bank::Gap(b) => b.baseline(),
            Bank::Fairness(b) => b.bank.baseline(),
            Bank::Embedding(b) => b.baseline(),
            Bank::Joint(b) => b.baseline(),
        }
    }

    /// The bank of a new version, which starts from what its model is like, with a bounded weight.
    pub fn succeed(&self, weight_max: f64) -> Bank {
        match self {
            Bank::Rate(b) => Bank::Rate(Box::new(b.succeed(weight_max))),
            Bank::Limit(b) => Bank::Limit(b.clone()),
            Bank::Bins(b) => Bank::Bins(Box::new(b.succeed(weight_max))),
            Bank::Classes(b) => Bank::Classes(Box::new(b.succeed(weight_max))),
            Bank::Counts(b) => Bank::Counts(Box::new(b.succeed(weight_max))),
            Bank::Seasonal(b) => Bank::Seasonal(Box::new(b.succeed(weight_max))),
            Bank::Gap(b) => Bank::Gap(Box::new(b.succeed(weight_max))),
            // Only the whole is compared: a version inherits nothing here.
            Bank::Fairness(b) => Bank::Fairness(b.clone()),
            Bank::Embedding(b) => Bank::Embedding(Box::new(b.succeed(weight_max))),
            Bank::Joint(b) => Bank::Joint(b.clone()),
        }
    }
}

// === impl Line ===

impl Line {
    pub fn new(series: SeriesKey, bank: Bank, weight: f64) -> Line {
        let unit = unit_of(&series.signal, &bank);
        Line {
            id: line_id(&series, &bank),
            series,
            unit,
            bank,
            injection: 0.0,
            weight,
            judged_from: Time::MIN,
            points: Points::default(),
            decisions: VecDeque::new(),
            onset: None,
            is_out: false,
            held: false,
            expected: None,
            half_recovered: false,
            last_evidence: 0.0,
            recovery: None,
            change: None,
            reference: None,
            learned_from: None,
        }
    }

    /// Asks for the memory of its bank and of its newest point.
    pub fn ask_for_bank(&self) {
        self.points.0.back().inspect(|newest| ask_for(*newest));
        self.bank.ahead().inspect(|bank| bank.ask_for_own());
    }

    pub fn state(&self) -> DetectorState {
        state_of(&self.bank)
    }

    /// All that it knows is forgotten; it learns anew with this bank.
    pub fn forget(&mut self, bank: Bank, now: Time, learn_ms: i64) {
        self.bank = bank;
        self.reference = self.reference.take().map(|_| Box::default());
        (self.learned_from, self.change, self.onset, self.expected, self.held) = (None, None, None, None, false);
        self.judged_from = now.plus_ms(learn_ms);
        self.decided(now, "reset", "its baseline was forgotten and is learned anew".to_owned());
    }

    /// The quantile by which values of this line are told.
    fn told(&self) -> f64 {
        match &self.bank {
            Bank::Bins(b) if b.told() == Told::P95 => 0.95,
            _ => 0.5,
        }
    }

    /// Does the change that it spoke of last show in the values of its points? A tail hardly moves a median, and of classes the most
    /// frequent one is remembered until another is told.
    pub fn shows_its_change(&self) -> bool {
        match &self.bank {
            Bank::Bins(b) => b.told() != Told::P95,
            Bank::Classes(_) => false,
            _ => true,
        }
    }

    /// An incident was closed: the line learns from how, and speaks again.
    pub fn release(&mut self, how: Release) {
        self.bank.release(how);
        if let Some(reference) = &mut self.reference {
            match how {
                Release::NewNormal => reference.learn_anew(),
                Release::FalseAlarm => reference.settle(true),
                Release::Fixed | Release::Expected => reference.settle(false),
            }
        }
        self.is_out = false;
        self.half_recovered = false;
        self.onset = None;
        self.expected = None;
    }

    /// A change is over by itself; it was normal life, or it was not.
    pub fn settle(&mut self, was_normal: bool) {
        self.bank.settle(was_normal);
        if let Some(reference) = &mut self.reference {
            reference.settle(was_normal);
        }
    }

    /// An incident was closed as expected: the line is silent until the change is over.
    pub fn expect(&mut self) {
        self.is_out = false;
        self.half_recovered = false;
        self.expected = Some(Time::MIN);
    }

    /// Judges what was gathered over so many panes, and remembers it for the chart.
    pub fn judge(&mut self, feed: &Feed<'_>, at: Time, pane_ms: i64, panes: f64) -> Option<Call> {
        match self.expected {
            Some(Time::MIN) => self.expected = Some(at),
            Some(since) if at.since_ms(since) >= EXPECTED_MS => self.release(Release::Expected),
            Some(_) | None => {}
        }
        let injection = if at < self.judged_from { 0.0 } else { self.injection * panes };
        let reading = self.bank.judge(feed, at, pane_ms, injection)?;
        if let Some(reference) = &mut self.reference {
            if reading.state == State::Frozen {
                reference.set_aside(feed);
            } else {
                if at >= self.judged_from {
                    reference.learned();
                }
                reference.take(feed);
            }
        }
        self.last_evidence = reading.log_evidence;
        let (n, value) = match feed {
            Feed::Share { hits, total } => (*total, if *total > 0.0 { hits / total } else { 0.0 }),
            Feed::Grid(pane) => {
                let n = pane.iter().map(|p| f64::from(p.1)).sum();
                (n, quantile_of(pane, self.told()))
            }
            Feed::Classes(pane) => {
                let n: f64 = pane.iter().map(|p| f64::from(p.1)).sum();
                let told = match &self.bank {
                    Bank::Classes(b) => b.told(),
                    _ => None,
                };
                let most = pane.iter().filter(|p| told.is_none_or(|t| t == p.0)).map(|p| f64::from(p.1)).fold(0.0, f64::max);
                (n, if n > 0.0 { most / n } else { 0.0 })
            }
            Feed::Count { count, exposure } => (*exposure, if *exposure > 0.0 { count / exposure } else { 0.0 }),
            Feed::Interval { value, .. } => (1.0, *value),
            Feed::Groups(pane) => match &self.bank {
                Bank::Fairness(b) => b.seen(pane),
                _ => (0.0, 0.0),
            },
            Feed::Vectors(_) => match &self.bank {
                Bank::Embedding(b) => b.seen(),
                _ => (0.0, 0.0),
            },
            Feed::Together(samples, _) => match &self.bank {
                Bank::Joint(b) => b.seen(samples),
                _ => (0.0, 0.0),
            },
            Feed::Arrivals { at_ms, .. } => (at_ms.len() as f64, at_ms.len() as f64 * 1_000.0 / pane_ms as f64),
        };
        if n > 0.0 {
            let band = match (&self.bank, feed) {
                (Bank::Seasonal(b), Feed::Interval { start, .. }) => b.band_at(start.0),
                (bank, _) => bank.baseline(),
            };
            let (baseline, low, high) = band.map_or((f64::NAN, f64::NAN, f64::NAN), |b| (b.value, b.low, b.high));
            // While frozen the bank tells how sure it is that the change is over: that is said in words, not drawn as evidence of
            // a change.
            let is_frozen = reading.state == State::Frozen && !matches!(reading.call, Call::Alarm { .. });
            self.recovery = is_frozen.then_some((reading.log_evidence, reading.threshold));
            let (log_evidence, threshold) = if is_frozen { (f64::NAN, f64::NAN) } else { (reading.log_evidence, reading.threshold) };
            let most = if self.series.group.is_roll_up() { POINTS_MAX } else { POINTS_OF_PART_MAX };
            self.points.push(Point { time: at, n, value, baseline, low, high, log_evidence, threshold }, most);
        }
        Some(reading.call)
    }

    /// Is the recovery test half way to its threshold?
    pub fn is_half_recovered(&self) -> bool {
        self.state() == DetectorState::Frozen && self.recovery.is_some_and(|(e, t)| t.is_finite() && e > 0.5 * t)
    }

    pub fn decided(&mut self, at: Time, what: &str, why: String) {
        if self.decisions.len() == DECISIONS_MAX {
            self.decisions.pop_back();
        }
        self.decisions.push_front(Decided { at, what: what.to_owned(), why });
    }

    /// How far the newest days lie from what was learned first, in words, and what the tests known by name say of it.
    pub fn drift(&self) -> Option<(String, Vec<(&'static str, bellwether_detectors::population::Outcome)>)> {
        let reference = self.reference.as_ref()?;
        if let Some(days) = reference.still_learns() {
            let words = format!("Nothing to compare yet: {days} of {DAYS_MIN} days of the first week have been learned");
            return Some((words, Vec::new()));
        }
        let d = reference.last?;
        let (before, after) = (self.unit.words(d.before), self.unit.words(d.after));
        let far = if d.tolerances > 0.0 { format!("{:.1} tolerances", d.tolerances) } else { "no more than chance".to_owned() };
        let words = format!("{before} when it was learned, {after} in the last days ({} events): {far}", thousands(d.events));
        Some((words, reference.named_tests(matches!(self.bank, Bank::Bins(_)))))
    }

    /// In words why this series pages or does not.
    pub fn words(&self) -> String {
        match &self.bank {
            Bank::Fairness(b) => b.words(),
            Bank::Embedding(b) => format!("{}; {}", self.state_words(), b.words()),
            Bank::Joint(b) => format!("{}; {}", self.state_words(), b.words()),
            Bank::Rate(_) | Bank::Limit(_) | Bank::Bins(_) | Bank::Classes(_) | Bank::Counts(_) | Bank::Seasonal(_) | Bank::Gap(_) => {
                match self.bank.stretch() {
                    1 => self.state_words(),
                    n => format!("{}; judges {n} panes as one, since bursts belong to its normal life", self.state_words()),
                }
            }
        }
    }

    /// Which pair or groups an alarm speaks of, where it speaks of some among many.
    pub fn named(&self) -> Option<String> {
        match &self.bank {
            Bank::Fairness(b) => b.named(),
            Bank::Joint(b) => b.named(),
            Bank::Rate(_)
            | Bank::Limit(_)
            | Bank::Bins(_)
            | Bank::Classes(_)
            | Bank::Counts(_)
            | Bank::Seasonal(_)
            | Bank::Gap(_)
            | Bank::Embedding(_) => None,
        }
    }

    fn state_words(&self) -> String {
        match self.state() {
            DetectorState::Warming => {
                let sees = self.bank.sees(self.injection);
                if sees.needs_events > 0.0 && sees.needs_events.is_finite() {
                    format!("learning: can see a change worth a page after about {} more events", thousands(sees.needs_events))
                } else {
                    "learning what is normal".to_owned()
                }
            }
            DetectorState::Starved => "too few events in the last hour to say anything".to_owned(),
            DetectorState::Frozen if self.is_out => {
                let (e, t) = self.recovery.unwrap_or_default();
                let e = e.max(0.0);
                format!("an incident is open; evidence that it is over: {e:.1} of {t:.1} nats")
            }
            DetectorState::Frozen if self.expected.is_some() => "a change that was expected lasts; pages again once it is over".to_owned(),
            DetectorState::Frozen => "a change was found in history; its baseline is frozen until it is over".to_owned(),
            DetectorState::Off => "not judged".to_owned(),
            DetectorState::Armed if self.held => "does not page: there is evidence of a change, but it is within tolerance".to_owned(),
            DetectorState::Armed if self.points.back().is_some_and(|p| p.time < self.judged_from) => {
                format!("learning until {}: only rules page before", self.judged_from)
            }
            DetectorState::Armed if self.injection <= 0.0 => "learning: no part of the budget yet".to_owned(),
            DetectorState::Armed => {
                format!(
                    "does not page: {:.1} of {:.1} nats of evidence for a change beyond tolerance",
                    self.last_evidence.max(0.0),
                    -self.injection.ln()
                )
            }
        }
    }
}

pub fn state_of(bank: &Bank) -> DetectorState {
    match bank.state() {
        State::Warming => DetectorState::Warming,
        State::Armed => DetectorState::Armed,
        State::Starved => DetectorState::Starved,
        State::Frozen => DetectorState::Frozen,
        State::Off => DetectorState::Off,
    }
}

/// `12,400`.
pub fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
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

fn unit_of(signal: &Signal, bank: &Bank) -> Unit {
    match (signal, bank) {
        (_, Bank::Rate(_) | Bank::Limit(_) | Bank::Classes(_) | Bank::Fairness(_)) => Unit::Ratio,
        (_, Bank::Embedding(_)) => Unit::Deviations,
        (_, Bank::Joint(_)) => Unit::Score,
        (Signal::ComplaintRate, _) | (Signal::Traffic, Bank::Counts(_)) => Unit::Ratio,
        (Signal::Silence, _) => Unit::Seconds,
        (Signal::Traffic, _) => Unit::Count,
        (Signal::Latency | Signal::FirstTokenLatency, _) => Unit::Milliseconds,
        (Signal::TokensIn | Signal::TokensOut, _) => Unit::Tokens,
        (Signal::Cost, _) => Unit::Currency,
        _ => Unit::Score,
    }
}

/// The id of a line: that of its series, or one of its own where a second detector watches the same series.
fn line_id(series: &SeriesKey, bank: &Bank) -> SeriesId {
    match bank {
        Bank::Limit(_) | Bank::Seasonal(_) | Bank::Counts(_) | Bank::Joint(_) if is_second(&series.signal, bank) => {
            let mut h = StableHash::new();
            h.part(&series.id().0.to_be_bytes()).part(bank.name().as_bytes());
            SeriesId(h.finish())
        }
        _ => series.id(),
    }
}

/// Does another detector watch the same series under its own id?
fn is_second(signal: &Signal, bank: &Bank) -> bool {
    match bank {
        // A feature might bear the name by which all together are told.
        Bank::Limit(_) | Bank::Joint(_) => true,
        Bank::Seasonal(_) => *signal != Signal::Traffic,
        Bank::Counts(_) => *signal == Signal::Traffic,
        Bank::Rate(_) | Bank::Bins(_) | Bank::Classes(_) | Bank::Gap(_) | Bank::Fairness(_) | Bank::Embedding(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_keeps_what_is_drawn_and_the_oldest_make_room() {
        let mut points = Points::default();
        let p = |i: i64, log_evidence: f64| Point {
            time: Time(1_795_000_000_000 + i * 10_000),
            n: 12.0,
            value: 0.25,
            baseline: f64::NAN,
            low: 0.125,
            high: f64::INFINITY,
            log_evidence,
            threshold: 13.8,
        };
        for (i, evidence) in [0.0, 7.3, -41.9, f64::NAN, f64::NEG_INFINITY, 1e300].into_iter().enumerate() {
            points.push(p(i as i64, evidence), 5);
        }
        let all: Vec<Point> = points.iter().collect();
        assert_eq!(all.iter().map(|p| p.time).collect::<Vec<_>>(), (1..6).map(|i| p(i, 0.0).time).collect::<Vec<_>>());
        assert!(all.iter().all(|p| (p.n, p.value, p.low, p.high) == (12.0, 0.25, 0.125, f64::INFINITY) && p.baseline.is_nan()));
        let close = |a: f64, b: f64| (a / b - 1.0).abs() <= 1.0 / 256.0;
        assert!(close(all[0].log_evidence, 7.3) && close(all[1].log_evidence, -41.9) && all.iter().all(|p| close(p.threshold, 13.8)));
        assert!(all[2].log_evidence.is_nan());
        assert_eq!((all[3].log_evidence, all[4].log_evidence), (f64::NEG_INFINITY, f64::INFINITY));
    }

    /// A minute of three times as many errors every two hours: after a day it is normal life, and the page of the series says so.
    #[test]
    fn a_series_that_judges_longer_panes_says_so() {
        let key = SeriesKey { group: crate::domain::GroupKey::roll_up("prod", "m"), signal: crate::domain::Signal::ErrorRate };
        let mut line = Line::new(key.clone(), Bank::rate(0.2, 0.0), 1.0);
        let mut chance = crate::fleet::Chance::keyed(5, 1);
        let start = Time(1_795_000_000_000);
        for pane in 0..2 * 8_640 {
            let p = if pane % 720 < 6 { 0.04 } else { 0.01 };
            let hits = (0..100).filter(|_| chance.unit() < p).count() as f64;
            line.judge(&Feed::Share { hits, total: 100.0 }, start.plus_ms(pane * 10_000), 10_000, 1.0);
        }
        assert!(line.bank.stretch() > 1 && line.words().contains(&format!("judges {} panes as one", line.bank.stretch())), "{}", line.words());
        let fresh = Line::new(key, Bank::rate(0.2, 0.0), 1.0);
        assert!(!fresh.words().contains("as one"));
    }
}
