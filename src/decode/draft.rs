//! An event on the way in: every member that came, in whatever order, until it is known what kind of event it is.
//!
//! Values at the top wait as [`Scalar`]s; objects with free names (`features`, `segments`, ..) are read at once, because their
//! shape does not depend on the kind. [`Draft::finish`] then asks for each member that the kind has, and judges it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::limits::BEYOND_RANGE;
use super::member::{COUNT, Member};
use super::scalar::{AnyScalar, BorrowedText, Scalar, own};
use super::{Reason, Reject, Settings, excerpt};
use crate::domain::observation::{Cost, ErrorInfo, Fault, FeatureValue, FieldFault, Flag};

mod body;
mod judge;

pub use judge::Ending;

/// Longest name of a feature, a segment, a class and the like, in bytes. A longer one is dropped.
const NAME_BYTES_MAX: usize = 256;
/// Most outputs and assertions kept of a pipeline's run.
const ITEMS_MAX: usize = 256;
/// Slots to begin with: most events have fewer members.
const SLOTS: usize = 16;

/// Names with values, in the order of the event.
type Pairs<'a, T> = Vec<(Cow<'a, str>, T)>;

pub struct Draft<'s, 'a> {
    settings: &'s Settings,
    /// One bit per member that came.
    seen: u128,
    /// Where a member's value waits in `values`, plus one; 0 where there is none.
    slots: [u8; COUNT],
    values: Vec<Scalar<'a>>,
    faults: Vec<FieldFault<'a>>,
    segments: Pairs<'a, Cow<'a, str>>,
    groups: Pairs<'a, Cow<'a, str>>,
    features: Option<Pairs<'a, FeatureValue<'a>>>,
    scores: Pairs<'a, f64>,
    flags: Pairs<'a, Flag>,
    error: Option<ErrorInfo<'a>>,
    cost: Option<Cost<'a>>,
    target: (Option<Cow<'a, str>>, Option<Cow<'a, str>>),
    outputs: Vec<Cow<'a, str>>,
    failed_assertions: Vec<Cow<'a, str>>,
    /// Set when reading stopped for a reason of ours and not of the parser's.
    reject: Option<Reject>,
}

// === impl Draft ===

impl<'s, 'a> Draft<'s, 'a> {
    pub fn new(settings: &'s Settings) -> Self {
        Draft {
            settings,
            seen: 0,
            slots: [0; COUNT],
            values: Vec::with_capacity(SLOTS),
            faults: Vec::new(),
            segments: Vec::new(),
            groups: Vec::new(),
            features: None,
            scores: Vec::new(),
            flags: Vec::new(),
            error: None,
            cost: None,
            target: (None, None),
            outputs: Vec::new(),
            failed_assertions: Vec::new(),
            reject: None,
        }
    }

    pub fn settings(&self) -> &'s Settings {
        self.settings
    }

    /// Refuses the event; the returned error only carries us out of the parser.
    pub fn refuse<E: Error>(&mut self, reason: Reason, detail: &str) -> E {
        self.reject = Some(Reject::new(reason, detail));
        E::custom("refused")
    }

    pub fn take_reject(&mut self) -> Option<Reject> {
        self.reject.take()
    }

    /// Notes that a member came.
    ///
    /// # Errors
    /// It came before.
    pub fn see<E: Error>(&mut self, member: Member) -> Result<(), E> {
        let bit = 1u128 << member as u8;
        if self.seen & bit != 0 {
            return Err(self.refuse(Reason::BadJson, &format!("duplicate member {:?}; each may stand once", member.name())));
        }
        self.seen |= bit;
        Ok(())
    }

    fn fault(&mut self, field: impl Into<Cow<'a, str>>, fault: Fault) {
        self.faults.push(FieldFault { field: field.into(), fault });
    }

    fn put(&mut self, member: Member, value: Scalar<'a>) {
        self.values.push(value);
        self.slots[member as usize] = self.values.len() as u8;
    }

    /// Copies what is borrowed, so that the text it came from may go.
    pub fn into_owned<'b>(self) -> Draft<'s, 'b> {
        fn pairs<'b, T, U>(pairs: Pairs<'_, T>, value: impl Fn(T) -> U) -> Pairs<'b, U> {
            pairs.into_iter().map(|(name, v)| (own(name), value(v))).collect()
        }
        fn feature<'b>(value: FeatureValue<'_>) -> FeatureValue<'b> {
            match value {
                FeatureValue::Number(n) => FeatureValue::Number(n),
                FeatureValue::Text(text) => FeatureValue::Text(own(text)),
                FeatureValue::Bool(b) => FeatureValue::Bool(b),
                FeatureValue::Null => FeatureValue::Null,
                FeatureValue::Embedding(numbers) => FeatureValue::Embedding(numbers),
            }
        }
        Draft {
            settings: self.settings,
            seen: self.seen,
            slots: self.slots,
            values: self.values.into_iter().map(Scalar::into_owned).collect(),
            faults: self.faults.into_iter().map(|f| FieldFault { field: own(f.field), fault: f.fault }).collect(),
            segments: pairs(self.segments, own),
            groups: pairs(self.groups, own),
            features: self.features.map(|features| pairs(features, feature)),
            scores: pairs(self.scores, |score| score),
            flags: pairs(self.flags, |flag| flag),
            error: self.error.map(|e| ErrorInfo { kind: e.kind.map(own), message: e.message.map(own), code: e.code.map(own) }),
            cost: self.cost.map(|cost| Cost { amount: cost.amount, currency: cost.currency.map(own) }),
            target: (self.target.0.map(own), self.target.1.map(own)),
            outputs: self.outputs.into_iter().map(own).collect(),
            failed_assertions: self.failed_assertions.into_iter().map(own).collect(),
            reject: self.reject,
        }
    }

    /// Reads what an object or an array within a member says; `None` where the member is of another type, which is a fault.
    fn nested(&mut self, member: Member, part: Part<'a>) {
        let field = member.name();
        match part {
            Part::Entries(entries) if member == Member::Features => {
                let read = self.pairs(field, entries, Self::feature);
                self.features = Some(read);
            }
            Part::Entries(entries) if member == Member::Segments => self.segments = self.pairs(field, entries, Self::word),
            Part::Entries(entries) if member == Member::Groups => self.groups = self.pairs(field, entries, Self::word),
            Part::Entries(entries) if member == Member::Scores => self.scores = self.pairs(field, entries, Self::probability),
            Part::Entries(entries) if member == Member::Flags => self.flags = self.pairs(field, entries, Self::flag),
            Part::Entries(entries) if member == Member::Error => {
                let mut error = ErrorInfo::default();
                for (name, value) in entries {
                    match name.as_ref() {
                        "type" => error.kind = self.word(field, &name, value),
                        "message" => error.message = self.word(field, &name, value),
                        "code" => error.code = self.code(field, &name, value),
                        _ => {}
                    }
                }
                self.error = Some(error);
            }
            Part::Entries(entries) if member == Member::Cost => {
                let (mut amount, mut currency) = (None, None);
                for (name, value) in entries {
                    match name.as_ref() {
                        "amount" => amount = self.entry_number(field, &name, value, |n| n >= 0.0),
                        "currency" => currency = self.word(field, &name, value),
                        _ => {}
                    }
                }
                self.cost = amount.map(|amount| Cost { amount, currency });
            }
            Part::Entries(entries) if member == Member::Target => {
                for (name, value) in entries {
                    match name.as_ref() {
                        "kind" => self.target.0 = self.word(field, &name, value).filter(|word| !word.is_empty()),
                        "name" => self.target.1 = self.word(field, &name, value).filter(|word| !word.is_empty()),
                        _ => {}
                    }
                }
            }
            Part::Items(items) if member == Member::Outputs => {
                for (name, _) in items {
                    self.item(field, name, |draft| &mut draft.outputs);
                }
            }
            Part::Items(items) if member == Member::Assertions => {
                for (name, success) in items {
                    match success {
                        Scalar::Bool(false) => self.item(field, name, |draft| &mut draft.failed_assertions),
                        Scalar::Bool(true) => {}
                        _ => self.fault(field, Fault::Invalid),
                    }
                }
            }
            // An error in a word or two: the message.
            Part::One(Scalar::Text(text)) if member == Member::Error => {
                let message = self.cut(field, text, self.settings.max_text_bytes);
                self.error = Some(ErrorInfo { message: Some(message), ..ErrorInfo::default() });
            }
            Part::One(Scalar::Null) => {}
            _ => self.fault(field, Fault::Invalid),
        }
    }

    fn item(&mut self, field: &'static str, name: Scalar<'a>, list: impl Fn(&mut Self) -> &mut Vec<Cow<'a, str>>) {
        match name {
            Scalar::Text(text) if !text.is_empty() => {
                let text = self.cut(field, text, self.settings.max_text_bytes);
                if list(self).len() < ITEMS_MAX {
                    list(self).push(text);
                } else {
                    self.fault(field, Fault::Cut);
                }
            }
            _ => self.fault(field, Fault::Invalid),
        }
    }

    fn pairs<T>(
        &mut self,
        field: &'static str,
        entries: Pairs<'a, Scalar<'a>>,
        read: impl Fn(&mut Self, &'static str, &str, Scalar<'a>) -> Option<T>,
    ) -> Pairs<'a, T> {
        // Collected where they are: the memory is used again.
        let kept = entries.into_iter().filter_map(|(name, value)| {
            if name.len() > NAME_BYTES_MAX {
                self.fault(format!("{field}.{}", excerpt(&name)), Fault::Invalid);
                return None;
            }
            let value = read(self, field, &name, value)?;
            Some((name, value))
        });
        kept.collect()
    }

    fn entry_fault(&mut self, field: &'static str, name: &str, fault: Fault) {
        self.fault(format!("{field}.{name}"), fault);
    }

    fn feature(&mut self, field: &'static str, name: &str, value: Scalar<'a>) -> Option<FeatureValue<'a>> {
        match value {
            Scalar::Null => Some(FeatureValue::Null),
            Scalar::Bool(b) => Some(FeatureValue::Bool(b)),
            Scalar::Numbers(numbers) => Some(FeatureValue::Embedding(numbers)),
            Scalar::Text(text) => {
                if is_not_a_number(&text) {
                    self.entry_fault(field, name, Fault::Invalid);
                    return None;
                }
                Some(FeatureValue::Text(self.cut_entry(field, name, text)))
            }
            Scalar::Unusable => {
                self.entry_fault(field, name, Fault::Invalid);
                None
            }
            Scalar::Unsigned(n) => Some(FeatureValue::Number(n as f64)),
            Scalar::Signed(n) => Some(FeatureValue::Number(n as f64)),
            Scalar::Float(n) => Some(FeatureValue::Number(n)),
        }
    }

    /// A class, a segment's value: text; numbers and booleans are taken at their word.
    fn word(&mut self, field: &'static str, name: &str, value: Scalar<'a>) -> Option<Cow<'a, str>> {
        let text = match value {
            Scalar::Null => return None,
            Scalar::Text(text) if text != BEYOND_RANGE => return Some(self.cut_entry(field, name, text)),
            Scalar::Bool(b) => b.to_string(),
            Scalar::Unsigned(n) => n.to_string(),
            Scalar::Signed(n) => n.to_string(),
            Scalar::Float(n) => n.to_string(),
            Scalar::Numbers(_) | Scalar::Unusable | Scalar::Text(_) => {
                self.entry_fault(field, name, Fault::Invalid);
                return None;
            }
        };
        self.entry_fault(field, name, Fault::Coerced);
        Some(Cow::Owned(text))
    }

    /// A code of an error: 504 and "504" are the same code and neither is a mistake.
    fn code(&mut self, field: &'static str, name: &str, value: Scalar<'a>) -> Option<Cow<'a, str>> {
        match value {
            Scalar::Unsigned(n) => Some(Cow::Owned(n.to_string())),
            Scalar::Signed(n) => Some(Cow::Owned(n.to_string())),
            value => self.word(field, name, value),
        }
    }

    fn entry_number(&mut self, field: &'static str, name: &str, value: Scalar<'a>, within: impl Fn(f64) -> bool) -> Option<f64> {
        let (number, fault) = match &value {
            Scalar::Null => return None,
            Scalar::Text(text) => (number_in_text(text), Some(Fault::Coerced)),
            value => (value.as_number(), None),
        };
        let number = number.filter(|&n| n.is_finite() && within(n));
        if let Some(fault) = number.map_or(Some(Fault::Invalid), |_| fault) {
            self.entry_fault(field, name, fault);
        }
        number
    }

    fn probability(&mut self, field: &'static str, name: &str, value: Scalar<'a>) -> Option<f64> {
        // Single precision ends a little above one.
        self.entry_number(field, name, value, |n| (0.0..=1.000_001).contains(&n)).map(|n| n.min(1.0))
    }

    fn flag(&mut self, field: &'static str, name: &str, value: Scalar<'a>) -> Option<Flag> {
        match &value {
            Scalar::Bool(b) => Some(Flag::Bool(*b)),
            Scalar::Text(text) => match text.as_ref() {
                "confirmed" => Some(Flag::Confirmed),
                "true" | "false" => {
                    let raised = text == "true";
                    self.entry_fault(field, name, Fault::Coerced);
                    Some(Flag::Bool(raised))
                }
                _ => self.entry_number(field, name, value, |n| (0.0..=1.0).contains(&n)).map(Flag::Score),
            },
            _ => self.entry_number(field, name, value, |n| (0.0..=1.0).contains(&n)).map(Flag::Score),
        }
    }

    fn cut_entry(&mut self, field: &'static str, name: &str, text: Cow<'a, str>) -> Cow<'a, str> {
        if text.len() <= self.settings.max_text_bytes {
            return text;
        }
        self.entry_fault(field, name, Fault::Cut);
        cut_text(text, self.settings.max_text_bytes)
    }

    fn cut(&mut self, field: &'static str, text: Cow<'a, str>, bytes_max: usize) -> Cow<'a, str> {
        if text.len() <= bytes_max {
            return text;
        }
        self.fault(field, Fault::Cut);
        cut_text(text, bytes_max)
    }
}

/// The number that text spells, infinities and NaN included: the caller refuses those.
fn number_in_text(text: &str) -> Option<f64> {
    // No number worth reading is longer, and a megabyte of digits is slow to read.
    if text.len() > 64 { None } else { text.trim().parse().ok() }
}

/// The ways in which programs write what is no number, and our stand-in for a number beyond range.
fn is_not_a_number(text: &str) -> bool {
    text == BEYOND_RANGE || text.len() <= 9 && number_in_text(text).is_some_and(|n| !n.is_finite())
}

fn cut_text(text: Cow<'_, str>, bytes_max: usize) -> Cow<'_, str> {
    let end = text.floor_char_boundary(bytes_max);
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
        Cow::Owned(mut text) => {
            text.truncate(end);
            Cow::Owned(text)
        }
    }
}

// === reading one member ===

/// Reads the value of `member` into the draft.
pub struct ReadMember<'d, 's, 'a> {
    pub draft: &'d mut Draft<'s, 'a>,
    pub member: Member,
}

/// The content of a member that may be an object or an array.
enum Part<'a> {
    Entries(Pairs<'a, Scalar<'a>>),
    /// A list of objects: each one's name, and its success where that is said.
    Items(Vec<(Scalar<'a>, Scalar<'a>)>),
    One(Scalar<'a>),
}

impl<'de> DeserializeSeed<'de> for ReadMember<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        match self.member {
            Member::Supersedes
            | Member::Source
            | Member::Explanation
            | Member::Inputs
            | Member::Contact
            | Member::Examples
            | Member::DisclosureDeadline => {
                // Known, so no hint; but nothing here is watched.
                d.deserialize_ignored_any(IgnoredAny)?;
            }
            Member::Segments
            | Member::Groups
            | Member::Features
            | Member::Scores
            | Member::Flags
            | Member::Error
            | Member::Cost
            | Member::Target
            | Member::Outputs
            | Member::Assertions => {
                let part = d.deserialize_any(PartVisitor { draft: &mut *self.draft, member: self.member })?;
                self.draft.nested(self.member, part);
            }
            member => {
                let value = AnyScalar { numbers: false }.deserialize(d)?;
                self.draft.put(member, value);
            }
        }
        Ok(())
    }
}

struct PartVisitor<'d, 's, 'a> {
    draft: &'d mut Draft<'s, 'a>,
    member: Member,
}

impl<'de> Visitor<'de> for PartVisitor<'_, '_, 'de> {
    type Value = Part<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Part<'de>, A::Error> {
        let numbers = self.member == Member::Features;
        let entries_max = self.draft.settings.max_features;
        let mut names = Names::default();
        let mut entries: Pairs<'de, Scalar<'de>> = Vec::with_capacity(if numbers { 32 } else { 4 });
        while let Some(name) = map.next_key_seed(BorrowedText)? {
            if entries.len() == entries_max {
                map.next_value::<IgnoredAny>()?;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                self.draft.fault(self.member.name(), Fault::Cut);
                break;
            }
            if names.may_hold(&name) && entries.iter().any(|(known, _)| *known == name) {
                let detail = format!("duplicate member {:?} in {:?}; each may stand once", excerpt(&name), self.member.name());
                return Err(self.draft.refuse(Reason::BadJson, &detail));
            }
            entries.push((name, map.next_value_seed(AnyScalar { numbers })?));
        }
        Ok(Part::Entries(entries))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Part<'de>, A::Error> {
        if !matches!(self.member, Member::Outputs | Member::Assertions) {
            return AnyScalar { numbers: false }.visit_seq(seq).map(Part::One);
        }
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Item)? {
            // One more than is kept, so that the cut is noticed and counted.
            if items.len() <= ITEMS_MAX {
                items.push(item);
            }
        }
        Ok(Part::Items(items))
    }

    fn visit_unit<E: Error>(self) -> Result<Part<'de>, E> {
        Ok(Part::One(Scalar::Null))
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<Part<'de>, E> {
        Ok(Part::One(Scalar::Bool(b)))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Part<'de>, E> {
        Ok(Part::One(Scalar::Unsigned(n)))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Part<'de>, E> {
        Ok(Part::One(Scalar::Signed(n)))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<Part<'de>, E> {
        Ok(Part::One(Scalar::Float(n)))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Part<'de>, E> {
        Ok(Part::One(Scalar::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Part<'de>, E> {
        Ok(Part::One(Scalar::Text(Cow::Owned(text.to_owned()))))
    }
}

/// One output or assertion: an object with `name` and perhaps `success`, or the bare name.
struct Item;

impl<'de> DeserializeSeed<'de> for Item {
    type Value = (Scalar<'de>, Scalar<'de>);

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Item {
    type Value = (Scalar<'de>, Scalar<'de>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut name, mut success) = (Scalar::Null, Scalar::Null);
        while let Some(key) = map.next_key_seed(BorrowedText)? {
            let value = map.next_value_seed(AnyScalar { numbers: false })?;
            match key.as_ref() {
                "name" => name = value,
                "success" => success = value,
                _ => {}
            }
        }
        Ok((name, success))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Ok((AnyScalar { numbers: false }.visit_seq(seq)?, Scalar::Null))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok((Scalar::Null, Scalar::Null))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok((Scalar::Unusable, Scalar::Null))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok((Scalar::Unusable, Scalar::Null))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok((Scalar::Unusable, Scalar::Null))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok((Scalar::Unusable, Scalar::Null))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok((Scalar::Text(Cow::Borrowed(text)), Scalar::Null))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok((Scalar::Text(Cow::Owned(text.to_owned())), Scalar::Null))
    }
}

/// Remembers names roughly: says no for certain and yes at a guess, so that duplicates are looked for only on a yes.
#[derive(Default)]
struct Names([u64; 16]);

impl Names {
    fn may_hold(&mut self, name: &str) -> bool {
        // FNV-1a. Two thousand names fill the bits, and then each is compared with all: some milliseconds at the bound.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        let (word, bit) = ((hash >> 32) as usize % 16, 1u64 << (hash >> 58));
        let held = self.0[word] & bit != 0;
        self.0[word] |= bit;
        held
    }
}
