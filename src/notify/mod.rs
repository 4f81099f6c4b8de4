//! Telling people: one file per kind of receiver, each exactly as its vendor's page says.
//!
//! A notifier does one attempt and says what came of it ([`Outcome`]); whether and when to try again, and in which order, is the
//! business of `dispatch`. A state publisher (Alertmanager) is told again and again what is open.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::domain::Time;
use crate::domain::delivery::{Delivery, Outcome};
use crate::domain::incident::Incident;

/// Settings of a receiver as they stand in the file, after `${ENV}` has been filled in. Keys are checked against the kind's knobs.
pub type Table = BTreeMap<String, serde_json::Value>;

/// What every receiver needs to know of this instance.
#[derive(Clone, Debug)]
pub struct Common {
    /// Part of every key that receivers see.
    pub instance: String,
    /// For links; without a slash at the end.
    pub external_url: String,
    pub version: String,
}

/// A kind of receiver, as `bellwether kinds` lists it and as the configuration is checked against.
pub struct Kind {
    pub name: &'static str,
    pub about: &'static str,
    pub knobs: &'static [Knob],
    /// Builds the receiver called `name`, without any side effect. Problems are (key, words).
    pub build: fn(name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>>,
}

/// One setting of a receiver.
pub struct Knob {
    pub name: &'static str,
    pub about: &'static str,
    pub form: Form,
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Text,
    /// May also be given as `<name>_file`; never printed.
    Secret,
    Url,
    Duration,
    Bool,
    /// Text to text.
    Map,
}

/// A built receiver.
pub enum Receiver {
    Messages(Box<dyn Notifier>),
    State(Box<dyn Publisher>),
}

/// One attempt to say one thing. Never repeats or redirects by itself.
#[async_trait]
pub trait Notifier: Send + Sync {
    async fn deliver(&self, delivery: &Delivery, now: Time) -> Outcome;
    /// Sends a marked test message.
    async fn test(&self, now: Time) -> Outcome;
    /// May a message whose answer was lost be sent again with the same key without harm?
    fn is_keyed(&self) -> bool;
}

/// Says the present state as often as it is asked to.
#[async_trait]
pub trait Publisher: Send + Sync {
    async fn publish(&self, open: &[Incident], resolved: &[Incident], now: Time) -> Outcome;
    async fn test(&self, now: Time) -> Outcome;
}
