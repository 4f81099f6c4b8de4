//! Bellwether's own events: one pass over the JSON, text borrowed from it wherever it holds no escapes.
//!
//! The kind may be the last member, so all kinds are read by one flat list of members ([`super::member`]). Unknown members are
//! skipped without being built.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::draft::{Draft, ReadMember};
use super::hints::Hints;
use super::member::Member;
use super::scalar::BorrowedText;
use super::{Decoder, Kind, Reason, Reject, Settings, limits};

pub const KIND: Kind = Kind {
    name: "canonical",
    about: "Bellwether's own events: JSON with the members of the manual's page on events",
    knobs: &[],
    build: |settings, _| Ok(Decoder::canonical(settings)),
};

/// Reads one event into a draft.
pub fn read<'s, 'a>(text: &'a str, settings: &'s Settings, hints: &Hints) -> Result<Draft<'s, 'a>, Reject> {
    let mut draft = Draft::new(settings);
    match parse(text, Event { draft: &mut draft, hints }) {
        Ok(()) => Ok(draft),
        Err(error) if limits::is_number_beyond_range(&error) => {
            let text = limits::without_numbers_beyond_range(text);
            let mut draft = Draft::new(settings);
            match parse(&text, Event { draft: &mut draft, hints }) {
                Ok(()) => Ok(draft.into_owned()),
                Err(error) => Err(draft.take_reject().unwrap_or_else(|| limits::bad_json(&error, &text))),
            }
        }
        Err(error) => Err(draft.take_reject().unwrap_or_else(|| limits::bad_json(&error, text))),
    }
}

/// One value and nothing after it.
pub(super) fn parse<'a, S: DeserializeSeed<'a>>(text: &'a str, seed: S) -> Result<S::Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

struct Event<'d, 's, 'a> {
    draft: &'d mut Draft<'s, 'a>,
    hints: &'d Hints,
}

impl<'de> DeserializeSeed<'de> for Event<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Event<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event, which is a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = 0usize;
        while let Some(name) = map.next_key_seed(BorrowedText)? {
            keys += 1;
            let keys_max = self.draft.settings().max_keys;
            if keys > keys_max {
                return Err(self.draft.refuse(Reason::TooLarge, &format!("more than {keys_max} members in the event")));
            }
            match Member::find(&name) {
                Some(member) => {
                    self.draft.see(member)?;
                    map.next_value_seed(ReadMember { draft: &mut *self.draft, member })?;
                }
                None => {
                    self.hints.note(&name);
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}
