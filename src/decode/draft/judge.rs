//! The questions that a finished draft is asked: is this member a number within its range, a time, a word of bounded length?
//!
//! Every answer is `None` where the member is absent, null or unusable; the last is noted as a fault of the field.

use std::borrow::Cow;

use super::super::limits::BEYOND_RANGE;
use super::super::member::Member;
use super::super::scalar::Scalar;
use super::super::siphash;
use super::{Draft, number_in_text};
use crate::domain::Time;
use crate::domain::observation::Fault;
use crate::domain::time::MINUTE_MS;

/// An event may be this much younger than its record, milliseconds: clocks of producers are not ours.
const AHEAD_MS_MAX: i64 = 5 * MINUTE_MS;
/// 1990-01-01 and 2200-01-01. What lies outside is a zero, a wrong unit or a placeholder, and no clock that is a bit off.
const PLAUSIBLE: std::ops::Range<Time> = Time(631_152_000_000)..Time(7_258_118_400_000);
/// No text of a time is longer, in bytes.
const TIME_TEXT_BYTES_MAX: usize = 64;

/// What the event itself does not say.
pub struct Ending<'p> {
    pub record_time: Time,
    pub pinned_kind: Option<&'p str>,
    /// A mapping says that an event without a readable time is to be refused.
    pub time_required: bool,
}

/// Where a number must lie.
#[derive(Clone, Copy)]
pub(super) enum Range {
    Any,
    NotNegative,
    Positive,
    Percent,
}

impl<'a> Draft<'_, 'a> {
    pub(super) fn take(&mut self, member: Member) -> Scalar<'a> {
        match self.slots[member as usize] {
            0 => Scalar::Null,
            slot => {
                self.slots[member as usize] = 0;
                std::mem::replace(&mut self.values[usize::from(slot) - 1], Scalar::Null)
            }
        }
    }

    /// The member came with a value that could not be used.
    pub(super) fn is_spoilt(&self, member: Member) -> bool {
        self.faults.iter().any(|fault| fault.fault == Fault::Invalid && fault.field == member.name())
    }

    pub(super) fn invalid<T>(&mut self, member: Member) -> Option<T> {
        self.fault(member.name(), Fault::Invalid);
        None
    }

    pub(super) fn number(&mut self, member: Member, range: Range) -> Option<f64> {
        if self.slots[member as usize] == 0 {
            return None;
        }
        let value = self.take(member);
        let (number, coerced) = match &value {
            Scalar::Null => return None,
            Scalar::Text(text) => (number_in_text(text), true),
            value => (value.as_number(), false),
        };
        let within = |n: &f64| match range {
            Range::Any => n.is_finite(),
            Range::NotNegative => n.is_finite() && *n >= 0.0,
            Range::Positive => n.is_finite() && *n > 0.0,
            Range::Percent => (0.0..=100.0).contains(n),
        };
        let Some(number) = number.filter(within) else {
            return self.invalid(member);
        };
        if coerced {
            self.fault(member.name(), Fault::Coerced);
        }
        Some(number)
    }

    pub(super) fn boolean(&mut self, member: Member) -> Option<bool> {
        let truth = match self.take(member) {
            Scalar::Null => return None,
            Scalar::Bool(b) => return Some(b),
            Scalar::Unsigned(n @ (0 | 1)) => n == 1,
            Scalar::Text(text) => match text.as_ref() {
                "true" => true,
                "false" => false,
                _ => return self.invalid(member),
            },
            _ => return self.invalid(member),
        };
        self.fault(member.name(), Fault::Coerced);
        Some(truth)
    }

    /// Text as it is, of any length. Numbers and booleans are taken at their word, which is a fault unless `plain_numbers`.
    pub(super) fn whole_text(&mut self, member: Member, plain_numbers: bool) -> Option<Cow<'a, str>> {
        if self.slots[member as usize] == 0 {
            return None;
        }
        let text = match self.take(member) {
            Scalar::Null => return None,
            Scalar::Text(text) if text != BEYOND_RANGE => return Some(text),
            Scalar::Bool(b) => b.to_string(),
            Scalar::Unsigned(n) => n.to_string(),
            Scalar::Signed(n) => n.to_string(),
            Scalar::Float(n) => n.to_string(),
            Scalar::Text(_) | Scalar::Numbers(_) | Scalar::Unusable => return self.invalid(member),
        };
        if !plain_numbers {
            self.fault(member.name(), Fault::Coerced);
        }
        Some(Cow::Owned(text))
    }

    /// Text cut to `bytes_max`; empty text is kept, because an empty output says something.
    pub(super) fn text_to(&mut self, member: Member, bytes_max: usize) -> Option<Cow<'a, str>> {
        let text = self.whole_text(member, false)?;
        Some(self.cut(member.name(), text, bytes_max))
    }

    /// Text cut to the bound of all text.
    pub(super) fn text(&mut self, member: Member) -> Option<Cow<'a, str>> {
        self.text_to(member, self.settings.max_text_bytes)
    }

    /// A name: not empty, cut to `bytes_max`.
    pub(super) fn name(&mut self, member: Member, bytes_max: usize) -> Option<Cow<'a, str>> {
        self.text_to(member, bytes_max).filter(|text| !text.is_empty())
    }

    /// A class: 1, true and "approve" are equally good ones.
    pub(super) fn class(&mut self, member: Member) -> Option<Cow<'a, str>> {
        let text = self.whole_text(member, true)?;
        Some(self.cut(member.name(), text, self.settings.max_text_bytes))
    }

    /// A reference to something else. A cut one would refer to nothing, so one that is too long is dropped.
    pub(super) fn reference(&mut self, member: Member, bytes_max: usize) -> Option<Cow<'a, str>> {
        // A fraction is no id: its digits are a matter of printing.
        if let Some(Scalar::Float(_)) = self.peek(member) {
            self.take(member);
            return self.invalid(member);
        }
        let text = self.whole_text(member, false)?;
        if text.is_empty() || text.len() > bytes_max { self.invalid(member) } else { Some(text) }
    }

    fn peek(&self, member: Member) -> Option<&Scalar<'a>> {
        self.values.get(usize::from(self.slots[member as usize]).checked_sub(1)?)
    }

    pub(super) fn user(&mut self) -> Option<u64> {
        let user = self.whole_text(Member::User, false).filter(|user| !user.is_empty())?;
        Some(siphash::hash(&self.settings.user_key, user.as_bytes()))
    }

    /// RFC 3339 or an epoch number whose unit its magnitude tells, within the plausible years.
    pub(super) fn time(&mut self, member: Member) -> Option<Time> {
        if self.slots[member as usize] == 0 {
            return None;
        }
        let (time, coerced) = match self.take(member) {
            Scalar::Null => return None,
            Scalar::Text(text) if text.len() > TIME_TEXT_BYTES_MAX => (None, false),
            Scalar::Text(text) => match Time::parse_rfc3339(&text) {
                Some(time) => (Some(time), false),
                None => (number_in_text(&text).and_then(Time::from_epoch_number), true),
            },
            value => (value.as_number().and_then(Time::from_epoch_number), false),
        };
        let Some(time) = time.filter(|time| PLAUSIBLE.contains(time)) else {
            return self.invalid(member);
        };
        if coerced {
            self.fault(member.name(), Fault::Coerced);
        }
        Some(time)
    }

    /// The event's own time, which cannot lie after the record that brought it.
    pub(super) fn event_time(&mut self, record_time: Time) -> Option<Time> {
        let time = self.time(Member::Time)?;
        if time <= record_time.plus_ms(AHEAD_MS_MAX) {
            return Some(time);
        }
        self.fault(Member::Time.name(), Fault::Clamped);
        Some(record_time)
    }
}
