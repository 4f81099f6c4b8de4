//! The way to a value in JSON of any shape: `$.a.b[0]['c d']`, and the borrowed tree that it walks.
//!
//! Only names and indices: a path that could match many values would leave open which of them is the latency. The tree borrows
//! its text and keeps objects as lists, which is quicker to build than a map for the few members that events have.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};

use super::excerpt;
use super::scalar::{AnyScalar, BorrowedText, Scalar};

/// Most steps of a path: nothing lies deeper in an event.
const STEPS_MAX: usize = 32;

/// A compiled path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

/// A JSON value that borrows from its text.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree<'a> {
    Leaf(Scalar<'a>),
    Array(Vec<Tree<'a>>),
    Object(Vec<(Cow<'a, str>, Tree<'a>)>),
}

// === impl Path ===

impl Path {
    /// # Errors
    /// Says at which byte the text stops being a path, and what would be one.
    pub fn parse(text: &str) -> Result<Path, String> {
        let complain = |rest: &str, what: &str| {
            let at = text.len() - rest.len();
            Err(format!("{what} at byte {at} of {:?}; a path looks like $.a.b[0]['c d']", excerpt(text)))
        };
        let Some(mut rest) = text.strip_prefix('$') else {
            return complain(text, "no $");
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let here = rest;
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                let name = &after[..end];
                if name.is_empty() {
                    return complain(here, "no name after the dot");
                }
                if let Some(bad) = name.chars().find(|c| c.is_whitespace() || matches!(c, '*' | '?' | '"' | '\'' | ']' | '(' | ')')) {
                    return complain(here, &format!("{bad:?} in a name (wildcards and filters are not supported; quote odd names)"));
                }
                steps.push(Step::Name(name.to_owned()));
                rest = &after[end..];
            } else if let Some(after) = rest.strip_prefix('[') {
                let quote = after.chars().next().filter(|c| matches!(c, '\'' | '"'));
                let (step, after) = match quote {
                    Some(quote) => {
                        let Some((name, after)) = after[1..].split_once(quote) else {
                            return complain(here, "a quoted name without its end");
                        };
                        (Step::Name(name.to_owned()), after)
                    }
                    None => {
                        let end = after.find(']').unwrap_or(after.len());
                        let Ok(index) = after[..end].parse() else {
                            return complain(here, "neither an index nor a quoted name in the brackets");
                        };
                        (Step::Index(index), &after[end..])
                    }
                };
                let Some(after) = after.strip_prefix(']') else {
                    return complain(here, "a bracket without its end");
                };
                steps.push(step);
                rest = after;
            } else {
                return complain(here, "neither a dot nor a bracket");
            }
            if steps.len() > STEPS_MAX {
                return complain(here, &format!("more than {STEPS_MAX} steps"));
            }
        }
        Ok(Path(steps))
    }

    /// The value at the end of the path. Of members with the same name, the first.
    pub fn walk<'t, 'a>(&self, root: &'t Tree<'a>) -> Option<&'t Tree<'a>> {
        self.0.iter().try_fold(root, |tree, step| match (step, tree) {
            (Step::Name(name), Tree::Object(members)) => members.iter().find(|(known, _)| known == name).map(|(_, tree)| tree),
            (Step::Index(index), Tree::Array(items)) => items.get(*index),
            _ => None,
        })
    }
}

// === impl Tree ===

impl Tree<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Tree::Leaf(Scalar::Null))
    }
}

/// Reads any JSON value into a [`Tree`].
#[derive(Clone, Copy)]
pub struct AnyTree {
    /// More members at the top are an error of the data.
    pub keys_max: usize,
    /// Members kept of an object further down; the rest is skipped, so that a wide object costs itself and not the event.
    pub entries_max: usize,
    pub is_top: bool,
}

impl<'de> DeserializeSeed<'de> for AnyTree {
    type Value = Tree<'de>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Tree<'de>, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyTree {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree<'de>, A::Error> {
        let below = AnyTree { is_top: false, ..self };
        let mut members = Vec::with_capacity(8);
        while let Some(name) = map.next_key_seed(BorrowedText)? {
            if self.is_top && members.len() == self.keys_max {
                return Err(A::Error::custom(format!("more than {} members in the event", self.keys_max)));
            }
            if !self.is_top && members.len() == self.entries_max {
                map.next_value::<IgnoredAny>()?;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                break;
            }
            members.push((name, map.next_value_seed(below)?));
        }
        Ok(Tree::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Tree::Array(items))
    }

    fn visit_unit<E: Error>(self) -> Result<Tree<'de>, E> {
        Ok(Tree::Leaf(Scalar::Null))
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<Tree<'de>, E> {
        Ok(Tree::Leaf(Scalar::Bool(b)))
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Tree<'de>, E> {
        Ok(Tree::Leaf(Scalar::Unsigned(n)))
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Tree<'de>, E> {
        Ok(Tree::Leaf(Scalar::Signed(n)))
    }

    fn visit_f64<E: Error>(self, n: f64) -> Result<Tree<'de>, E> {
        Ok(Tree::Leaf(Scalar::Float(n)))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Tree<'de>, E> {
        AnyScalar { numbers: false }.visit_borrowed_str(text).map(Tree::Leaf)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Tree<'de>, E> {
        AnyScalar { numbers: false }.visit_str(text).map(Tree::Leaf)
    }
}

/// A tree can be read again like the text it came from, so that mapped members go through the same code as canonical ones.
impl<'de> Deserializer<'de> for Tree<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        match self {
            Tree::Leaf(Scalar::Null) => visitor.visit_unit(),
            Tree::Leaf(Scalar::Bool(b)) => visitor.visit_bool(b),
            Tree::Leaf(Scalar::Unsigned(n)) => visitor.visit_u64(n),
            Tree::Leaf(Scalar::Signed(n)) => visitor.visit_i64(n),
            Tree::Leaf(Scalar::Float(n)) => visitor.visit_f64(n),
            Tree::Leaf(Scalar::Text(Cow::Borrowed(text))) => visitor.visit_borrowed_str(text),
            Tree::Leaf(Scalar::Text(Cow::Owned(text))) => visitor.visit_string(text),
            // The reader of a tree makes neither; as an empty list they are unusable wherever they might appear.
            Tree::Leaf(Scalar::Numbers(_) | Scalar::Unusable) => visitor.visit_seq(SeqDeserializer::new(std::iter::empty::<Tree<'de>>())),
            Tree::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter())),
            Tree::Object(members) => visitor.visit_map(MapDeserializer::new(members.into_iter().map(|(name, tree)| (Key(name), tree)))),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Tree<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The name of a member, still borrowed where it was.
struct Key<'a>(Cow<'a, str>);

impl<'de> IntoDeserializer<'de, serde_json::Error> for Key<'de> {
    type Deserializer = Tree<'de>;

    fn into_deserializer(self) -> Tree<'de> {
        Tree::Leaf(Scalar::Text(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(json: &str) -> Tree<'_> {
        AnyTree { keys_max: 100, entries_max: 2, is_top: true }.deserialize(&mut serde_json::Deserializer::from_str(json)).unwrap()
    }

    #[test]
    fn a_path_finds_its_value() {
        let tree = tree(r#"{"a":{"b":[{"c d":1},{"c.d":2}],"ünï-1_x":3},"":4}"#);
        let at = |path: &str| Path::parse(path).unwrap().walk(&tree).cloned();
        assert_eq!(at("$.a.b[0]['c d']"), Some(Tree::Leaf(Scalar::Unsigned(1))));
        assert_eq!(at("$.a['b'][1][\"c.d\"]"), Some(Tree::Leaf(Scalar::Unsigned(2))));
        assert_eq!(at("$.a.ünï-1_x"), Some(Tree::Leaf(Scalar::Unsigned(3))));
        assert_eq!(at("$['']"), Some(Tree::Leaf(Scalar::Unsigned(4))));
        assert_eq!(at("$"), Some(tree.clone()));
        for path in ["$.a.b[2]", "$.a.b.c", "$.a[0]", "$.x.y.z"] {
            assert_eq!(at(path), None, "{path}");
        }
    }

    #[test]
    fn a_wide_object_costs_itself_and_a_wide_event_the_event() {
        let narrow = AnyTree { keys_max: 2, entries_max: 2, is_top: true };
        let read = |json: &str| narrow.deserialize(&mut serde_json::Deserializer::from_str(json)).map(|tree| format!("{tree:?}"));
        assert_eq!(read(r#"{"a":{"x":1,"y":2,"z":3},"b":1}"#).unwrap(), read(r#"{"a":{"x":1,"y":2},"b":1}"#).unwrap());
        assert!(read(r#"{"a":1,"b":2,"c":3}"#).is_err_and(|e| e.to_string().contains("more than 2 members in the event")));
    }

    #[test]
    fn what_is_no_path_is_refused_with_the_place() {
        let cases = [
            ("a.b", 0),
            ("$a", 1),
            ("$.", 1),
            ("$..a", 1),
            ("$.a.*", 3),
            ("$.a[*]", 3),
            ("$.a[-1]", 3),
            ("$.a[0", 3),
            ("$.a['b]", 3),
            ("$.a['b'x", 3),
            ("$.a b", 1),
            ("$.a[0]b", 6),
            ("$.a[99999999999999999999999]", 3),
        ];
        for (path, at) in cases {
            let error = Path::parse(path).expect_err(path);
            assert!(error.contains(&format!("at byte {at} of")), "{path}: {error}");
        }
        assert!(Path::parse(&"$".replace('$', &format!("${}", ".a".repeat(33)))).is_err());
    }
}
