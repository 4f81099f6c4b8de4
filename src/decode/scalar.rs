//! One value as it stood in the event, before anybody has decided what it should have been.
//!
//! Reading every value as "whatever it is" and judging it afterwards is what lets a bad field cost only itself: a typed
//! parser would give up on the whole event at the first text where a number was expected.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most numbers in an array that is still read as an embedding.
pub const DIMENSIONS_MAX: usize = 4_096;

/// A value of an event. Integers stay integers, because an id above 2^53 must not lose its last digits.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// An array of numbers; only where one is asked for.
    Numbers(Vec<f32>),
    /// An array or an object where none is expected.
    Unusable,
}

impl<'a> Scalar<'a> {
    /// The number that this is, if it is one and not text.
    pub fn as_number(&self) -> Option<f64> {
        match *self {
            Scalar::Unsigned(n) => Some(n as f64),
            Scalar::Signed(n) => Some(n as f64),
            Scalar::Float(n) => Some(n),
            _ => None,
        }
    }

    /// Nothing in it borrows any more.
    pub fn into_owned<'b>(self) -> Scalar<'b> {
        match self {
            Scalar::Null => Scalar::Null,
            Scalar::Bool(b) => Scalar::Bool(b),
            Scalar::Unsigned(n) => Scalar::Unsigned(n),
            Scalar::Signed(n) => Scalar::Signed(n),
            Scalar::Float(n) => Scalar::Float(n),
            Scalar::Text(text) => Scalar::Text(own(text)),
            Scalar::Numbers(numbers) => Scalar::Numbers(numbers),
            Scalar::Unusable => Scalar::Unusable,
        }
    }
}

/// The same text, no longer borrowed.
pub fn own<'b>(text: Cow<'_, str>) -> Cow<'b, str> {
    Cow::Owned(text.into_owned())
}

/// Reads any value into a [`Scalar`].
#[derive(Clone, Copy)]
pub struct AnyScalar {
    /// Arrays of numbers are wanted.
    pub numbers: bool,
}

/// Reads text without copying it where it holds no escapes.
pub struct BorrowedText;

impl<'de> DeserializeSeed<'de> for AnyScalar {
    type Value = Scalar<'de>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Scalar<'de>, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyScalar {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Bool(b))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Unsigned(n))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Signed(n))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(n))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
        let mut numbers = Vec::new();
        let mut usable = self.numbers;
        while usable {
            let Some(element) = seq.next_element_seed(AnyScalar { numbers: false })? else {
                // No direction can be told from no number at all.
                return Ok(if numbers.is_empty() { Scalar::Unusable } else { Scalar::Numbers(numbers) });
            };
            match element.as_number().map(|n| n as f32) {
                Some(n) if n.is_finite() && numbers.len() < DIMENSIONS_MAX => numbers.push(n),
                _ => usable = false,
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Unusable)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Unusable)
    }
}

impl<'de> DeserializeSeed<'de> for BorrowedText {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Cow<'de, str>, D::Error> {
        d.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for BorrowedText {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, numbers: bool) -> Scalar<'_> {
        AnyScalar { numbers }.deserialize(&mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    #[test]
    fn a_value_is_read_as_what_it_is() {
        assert_eq!(read("18446744073709551615", false), Scalar::Unsigned(u64::MAX));
        assert_eq!(read("-3", false), Scalar::Signed(-3));
        assert_eq!(read("[1,2]", false), Scalar::Unusable);
        assert_eq!(read("{\"a\":[{}]}", true), Scalar::Unusable);
        assert!(matches!(read("\"plain\"", false), Scalar::Text(Cow::Borrowed("plain"))));
        assert!(matches!(read("\"a\\nb\"", false), Scalar::Text(Cow::Owned(text)) if text == "a\nb"));
    }

    #[test]
    fn an_embedding_is_numbers_only_and_bounded() {
        assert_eq!(read("[1,-2,0.5]", true), Scalar::Numbers(vec![1.0, -2.0, 0.5]));
        for json in ["[]", "[1,null]", "[1,\"2\"]", "[1e300]", "[[1]]"] {
            assert_eq!(read(json, true), Scalar::Unusable, "{json}");
        }
        let long = format!("[{}1]", "1,".repeat(DIMENSIONS_MAX));
        assert_eq!(read(&long, true), Scalar::Unusable);
        assert!(matches!(read(&long[3..].replacen("", "[", 1), true), Scalar::Numbers(n) if n.len() == DIMENSIONS_MAX));
    }
}
