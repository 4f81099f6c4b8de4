//! The file as a tree in which every value still knows where it stood.
//!
//! The text is read once, by serde-saphyr with its `Spanned`. Later stages replace values (`${ENV}`, a layer above) but never
//! places, so whatever is found wrong, however late, can be pointed at.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};

/// Longest piece of the user's text that a message quotes, in characters.
const QUOTE_CHARS_MAX: usize = 64;

/// Where a value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1; 0 where it is not in the file.
    pub line: u32,
    pub column: u32,
    /// The environment variable that gave it.
    pub variable: Option<String>,
}

#[derive(Clone)]
pub struct Node {
    pub data: Data,
    pub at: Place,
    /// As written, before `${ENV}` was filled in: messages quote this and so never what a variable holds.
    pub written: Option<String>,
}

#[derive(Clone)]
pub enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
    /// Complained about already; whoever meets it keeps silent.
    Broken,
}

#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub key_at: Place,
    pub value: Node,
}

/// A text that is no YAML.
pub struct SyntaxError {
    pub line: u32,
    pub column: u32,
    pub message: String,
}

/// # Errors
/// Where the text stops being YAML, and why.
pub fn read(text: &str) -> Result<Node, SyntaxError> {
    // Repeated keys are passed through, so that all of them can be listed with their places.
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        // `no` is a country and a model's name before it is a boolean.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Spanned<Data>>(text, options).map(node).map_err(|error| {
        let (line, column) = error.location().map_or((1, 1), |at| (narrow(at.line()).max(1), narrow(at.column()).max(1)));
        let indentation = text.lines().nth(line as usize - 1).map_or("", |l| &l[..l.len() - l.trim_start().len()]);
        if let Some(tab) = indentation.find('\t') {
            let message = "a tab in the indentation; YAML takes spaces only".to_owned();
            return SyntaxError { line, column: narrow(tab as u64) + 1, message };
        }
        if let serde_saphyr::Error::MultipleDocuments { .. } = error.without_snippet() {
            return SyntaxError { line, column, message: "a second YAML document begins here; keep one".to_owned() };
        }
        let full = error.without_snippet().to_string();
        let first = full.lines().next().unwrap_or_default();
        let words = first.split(" at line ").next().unwrap_or(first).trim();
        let words = words.rsplit_once("error: line ").map_or(words, |(_, rest)| rest.split_once(": ").map_or(rest, |(_, w)| w));
        SyntaxError { line, column, message: format!("not YAML: {words}") }
    })
}

fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    let at = if spanned.referenced.line() > 0 { &spanned.referenced } else { &spanned.defined };
    Place { line: narrow(at.line()), column: narrow(at.column()), variable: None }
}

fn node(spanned: Spanned<Data>) -> Node {
    Node { at: place(&spanned), data: spanned.value, written: None }
}

// === impl Node ===

impl Node {
    pub fn text_from(variable: &str, text: &str) -> Node {
        let at = Place { line: 0, column: 0, variable: Some(variable.to_owned()) };
        Node { data: Data::Text(text.to_owned()), at, written: None }
    }

    /// The value of this key, if this is a table that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|entry| &entry.value)
    }

    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.name == name)
    }

    pub fn entries(&self) -> &[Entry] {
        match &self.data {
            Data::Table(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; any other value is a list of itself.
    pub fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            _ => std::slice::from_ref(self),
        }
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn is_broken(&self) -> bool {
        matches!(self.data, Data::Broken)
    }

    /// For messages: what stands there, as it was written.
    pub fn shown(&self) -> String {
        match (&self.data, &self.written) {
            (_, Some(written)) => quoted(written),
            (Data::Text(text), None) => quoted(text),
            (Data::Null | Data::Broken, None) => "nothing".to_owned(),
            (Data::Bool(b), None) => b.to_string(),
            (Data::Int(n), None) => n.to_string(),
            (Data::Float(n), None) if n.is_finite() => n.to_string(),
            (Data::Float(n), None) => if n.is_nan() {
                ".nan"
            } else if *n > 0.0 {
                ".inf"
            } else {
                "-.inf"
            }
            .to_owned(),
            (Data::List(_), None) => "a list".to_owned(),
            (Data::Table(_), None) => "a table".to_owned(),
        }
    }

    /// For [`super::Problem::found`]: the text alone.
    pub fn found(&self) -> String {
        match (&self.data, &self.written) {
            (_, Some(text)) | (Data::Text(text), None) => text.chars().take(QUOTE_CHARS_MAX).collect(),
            (Data::Null | Data::Broken, None) => String::new(),
            _ => self.shown(),
        }
    }

    pub fn to_json(&self) -> serde_json::Value {
        match &self.data {
            Data::Null | Data::Broken => serde_json::Value::Null,
            Data::Bool(b) => (*b).into(),
            Data::Int(n) => (*n).into(),
            Data::Float(n) => (*n).into(),
            Data::Text(text) => text.as_str().into(),
            Data::List(items) => items.iter().map(Node::to_json).collect(),
            Data::Table(entries) => serde_json::Value::Object(entries.iter().map(|e| (e.name.clone(), e.value.to_json())).collect()),
        }
    }
}

/// In quotes, cut, and without characters that move a terminal.
pub fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(QUOTE_CHARS_MAX).collect();
    format!("{cut:?}")
}

// === reading ===

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Data, D::Error> {
        d.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }
    fn visit_none<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Data, D::Error> {
        Data::deserialize(d)
    }
    fn visit_bool<E>(self, b: bool) -> Result<Data, E> {
        Ok(Data::Bool(b))
    }
    fn visit_i64<E>(self, n: i64) -> Result<Data, E> {
        Ok(Data::Int(n))
    }
    fn visit_u64<E>(self, n: u64) -> Result<Data, E> {
        Ok(i64::try_from(n).map_or(Data::Float(n as f64), Data::Int))
    }
    fn visit_i128<E>(self, n: i128) -> Result<Data, E> {
        Ok(Data::Float(n as f64))
    }
    fn visit_u128<E>(self, n: u128) -> Result<Data, E> {
        Ok(Data::Float(n as f64))
    }
    fn visit_f64<E>(self, n: f64) -> Result<Data, E> {
        Ok(Data::Float(n))
    }
    fn visit_str<E>(self, text: &str) -> Result<Data, E> {
        Ok(Data::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Data>>()? {
            items.push(node(item));
        }
        Ok(Data::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = node(map.next_value::<Spanned<Data>>()?);
            entries.push(Entry { key_at: place(&key), name: key.value, value });
        }
        Ok(Data::Table(entries))
    }
}
