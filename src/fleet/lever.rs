//! What can be turned about a model's events, one law at a time: the parts of which real-life incidents are made.
//!
//! A [`super::Fault`] is a story with a name that the demo tells. A lever is one handle of the machine: this rate, that value,
//! for whom, from when, how fast. Stories that nobody has thought of yet are put together from levers and [`Order`]s, instead of
//! being written one by one into the fleet. Like a fault, a lever changes what is written about a customer and never who comes
//! next, with two exceptions that say so: [`Turn::Traffic`] and [`Turn::Mix`].

use super::chance::Chance;
use crate::domain::Time;

/// What is turned. Rates are shares of events, factors multiply.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// Errors and time-outs: at least this share.
    Errors(f64),
    Timeouts(f64),
    /// Factor on every latency, or on those beyond the 90th percentile only.
    Latency(f64),
    Tail(f64),
    FirstToken(f64),
    TokensIn(f64),
    TokensOut(f64),
    /// Factor on the price of a token.
    Price(f64),
    /// Share of answers that are empty.
    Empty(f64),
    /// Added to the evaluator's value.
    Quality(f64),
    /// Share of answers that somebody complains about, at least.
    Complaints(f64),
    /// Share of answers for which this flag is raised beyond the usual.
    Flag(String, f64),
    /// Share of requests without this feature.
    Missing(String, f64),
    /// Factor on a feature that is a number.
    Feature(String, f64),
    /// Share of requests whose feature has a value that was never seen.
    Unseen(String, f64),
    /// Added to the score before it is squeezed between 0 and 1, in its standard deviations.
    Score(f64),
    /// Share of those to be approved who are declined.
    Declined(f64),
    /// Share of events that write a number as a word.
    Garbled(f64),
    /// Factor on the requests that come, at most 8.
    Traffic(f64),
    /// This share of the requests comes from this value of the model's dimension, beside those that come from it anyway.
    Mix(String, f64),
    /// One answer is confirmed by this flag, or holds the canary.
    Confirmed(String),
    Canary,
}

/// Whose events: all of a model's where nothing is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whom {
    pub version: Option<String>,
    /// A value of the model's dimension.
    pub segment: Option<String>,
    /// A value of the model's protected attribute.
    pub group: Option<String>,
}

/// One lever, turned from `from` until `to`, and wholly after `over_ms`.
#[derive(Clone, Debug, PartialEq)]
pub struct Lever {
    pub whom: Whom,
    pub turn: Turn,
    pub from: Time,
    /// `Time::MAX` while nobody turns it back.
    pub to: Time,
    pub over_ms: i64,
}

/// Something that is done to a model once.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// This version serves so large a share of the traffic; `told`: a deployment event says so.
    Deploy { version: String, share: f64, told: bool },
    /// A deployment event of the version that serves anyway.
    Told,
    /// Back to the version before the last order.
    RollBack,
    /// A deployment of something that has no version: a prompt, a configuration.
    Changed { kind: String, name: String },
    /// A run of a data job.
    Run { job: String, is_good: bool },
}

/// The levers that hold for one event, put together.
#[derive(Clone, Debug)]
pub(super) struct Turned {
    pub errors: f64,
    pub timeouts: f64,
    pub latency: f64,
    pub tail: f64,
    pub first_token: f64,
    pub tokens_in: f64,
    pub tokens_out: f64,
    pub price: f64,
    pub empty: f64,
    pub quality: f64,
    pub complaints: f64,
    pub flags: Vec<(String, f64)>,
    pub missing: Vec<(String, f64)>,
    pub features: Vec<(String, f64)>,
    pub unseen: Vec<(String, f64)>,
    pub score: f64,
    pub declined: f64,
    pub garbled: f64,
    pub confirmed: Option<String>,
    pub canary: bool,
    /// What is by chance about it.
    chance: Chance,
}

// === impl Lever ===

impl Lever {
    /// How far it is turned at this time, 0 to 1.
    pub(super) fn reach(&self, time: Time) -> f64 {
        if time < self.from || time >= self.to {
            return 0.0;
        }
        if self.over_ms <= 0 { 1.0 } else { (time.since_ms(self.from) as f64 / self.over_ms as f64).clamp(1e-3, 1.0) }
    }

    pub(super) fn is_once(&self) -> bool {
        matches!(self.turn, Turn::Confirmed(_) | Turn::Canary)
    }
}

impl Whom {
    pub(super) fn is_met(&self, version: &str, segment: &str, group: &str) -> bool {
        let fits = |asked: &Option<String>, is: &str| asked.as_deref().is_none_or(|a| a == is);
        fits(&self.version, version) && fits(&self.segment, segment) && fits(&self.group, group)
    }
}

// === impl Turned ===

impl Turned {
    /// Nothing is turned.
    pub(super) fn none(chance: Chance) -> Turned {
        Turned {
            errors: 0.0,
            timeouts: 0.0,
            latency: 1.0,
            tail: 1.0,
            first_token: 1.0,
            tokens_in: 1.0,
            tokens_out: 1.0,
            price: 1.0,
            empty: 0.0,
            quality: 0.0,
            complaints: 0.0,
            flags: Vec::new(),
            missing: Vec::new(),
            features: Vec::new(),
            unseen: Vec::new(),
            score: 0.0,
            declined: 0.0,
            garbled: 0.0,
            confirmed: None,
            canary: false,
            chance,
        }
    }

    /// Adds one lever that is turned so far.
    pub(super) fn add(&mut self, turn: &Turn, reach: f64) {
        let factor = |f: f64| 1.0 + (f - 1.0) * reach;
        let named = |list: &mut Vec<(String, f64)>, name: &str, value: f64| list.push((name.to_owned(), value));
        match turn {
            Turn::Errors(p) => self.errors = self.errors.max(p * reach),
            Turn::Timeouts(p) => self.timeouts = self.timeouts.max(p * reach),
            Turn::Latency(f) => self.latency *= factor(*f),
            Turn::Tail(f) => self.tail *= factor(*f),
            Turn::FirstToken(f) => self.first_token *= factor(*f),
            Turn::TokensIn(f) => self.tokens_in *= factor(*f),
            Turn::TokensOut(f) => self.tokens_out *= factor(*f),
            Turn::Price(f) => self.price *= factor(*f),
            Turn::Empty(p) => self.empty = self.empty.max(p * reach),
            Turn::Quality(d) => self.quality += d * reach,
            Turn::Complaints(p) => self.complaints = self.complaints.max(p * reach),
            Turn::Flag(name, p) => named(&mut self.flags, name, p * reach),
            Turn::Missing(name, p) => named(&mut self.missing, name, p * reach),
            Turn::Feature(name, f) => named(&mut self.features, name, factor(*f)),
            Turn::Unseen(name, p) => named(&mut self.unseen, name, p * reach),
            Turn::Score(d) => self.score += d * reach,
            Turn::Declined(p) => self.declined = self.declined.max(p * reach),
            Turn::Garbled(p) => self.garbled = self.garbled.max(p * reach),
            Turn::Confirmed(name) => self.confirmed = Some(name.clone()),
            Turn::Canary => self.canary = true,
            // Decided before there is an event.
            Turn::Traffic(_) | Turn::Mix(..) => {}
        }
    }

    /// True with this probability; asked for nothing, it costs no chance.
    pub(super) fn strikes(&mut self, share: f64) -> bool {
        share > 0.0 && self.chance.unit() < share
    }

    pub(super) fn raises(&mut self, flag: &str) -> bool {
        let share = share_of(&self.flags, flag);
        self.strikes(share)
    }

    pub(super) fn loses(&mut self, feature: &str) -> bool {
        let share = share_of(&self.missing, feature);
        self.strikes(share)
    }

    pub(super) fn is_unheard_of(&mut self, feature: &str) -> bool {
        let share = share_of(&self.unseen, feature);
        self.strikes(share)
    }

    pub(super) fn factor(&self, feature: &str) -> f64 {
        self.features.iter().filter(|(name, _)| name == feature).map(|(_, f)| f).product()
    }
}

fn share_of(list: &[(String, f64)], name: &str) -> f64 {
    list.iter().filter(|(n, _)| n == name).map(|(_, share)| *share).fold(0.0, f64::max)
}
