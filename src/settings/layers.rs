//! What overrides what: `BELLWETHER__SECTION__KEY` over the file over the defaults, joined by the crate `config`.
//!
//! `config` keeps no lines, so each value carries the name of its layer as its origin, and places are looked up again in the
//! file's own tree. Its own source for the environment is not used: it folds the case of names, which would lose models that
//! are spelt with capitals, and it wants the whole environment, of which only the names that the table knows concern us.

use config::{Config, ConfigError, Map, Source, Value, ValueKind};

use super::node::{Data, Entry, Node, Place};
use super::table::{Key, ROOT, Shape};
use crate::notify;

const PREFIX: &str = "BELLWETHER";
const FILE: &str = "file";
const DEFAULT: &str = "default";
/// All layers hang below one key, because `config` reads keys at the top as paths and those below as they are.
const TRUNK: &str = "bellwether";

#[derive(Clone, Debug)]
struct Layer(Value);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }
    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(Map::from_iter([(TRUNK.to_owned(), self.0.clone())]))
    }
}

/// The file's tree with the environment laid over it and the defaults under it.
///
/// # Errors
/// The words of `config`; none is known to occur.
pub fn join(file: &Node, env: &dyn Fn(&str) -> Option<String>, kinds: &[&notify::Kind]) -> Result<Node, String> {
    let over = Overrides { env, kinds }.section(PREFIX, ROOT, Some(file));
    let mut under = Map::new();
    for key in ROOT {
        let is_present = file.get(key.name).is_some() || over.contains_key(key.name);
        if let Some(value) = default_of(key, is_present) {
            under.insert(key.name.to_owned(), value);
        }
    }
    let table = |map: Map<String, Value>| Layer(Value::new(None, ValueKind::Table(map)));
    let joined = Config::builder().add_source(table(under)).add_source(Layer(value_of(file))).add_source(table(over)).build();
    let joined = joined.map_err(|error| error.to_string())?;
    let trunk = match &joined.cache.kind {
        ValueKind::Table(map) => map.get(TRUNK),
        _ => None,
    };
    Ok(trunk.map_or_else(|| file.clone(), |trunk| node_of(trunk, Some(file))))
}

fn default_of(key: &Key, is_present: bool) -> Option<Value> {
    let origin = DEFAULT.to_owned();
    match &key.shape {
        Shape::Section(keys) if is_present || keys.iter().all(|k| !k.required) => {
            let map: Map<_, _> = keys.iter().filter_map(|k| Some((k.name.to_owned(), default_of(k, false)?))).collect();
            (!map.is_empty()).then(|| Value::new(None, ValueKind::Table(map)))
        }
        _ => key.default.map(|text| Value::new(Some(&origin), ValueKind::String(text.to_owned()))),
    }
}

// === environment ===

struct Overrides<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    kinds: &'a [&'a notify::Kind],
}

impl Overrides<'_> {
    fn section(&self, prefix: &str, keys: &[Key], file: Option<&Node>) -> Map<String, Value> {
        let mut map = Map::new();
        for key in keys {
            let below = file.and_then(|f| f.get(key.name));
            if let Some(value) = self.value(&format!("{prefix}__{}", variable(key.name)), &key.shape, below) {
                map.insert(key.name.to_owned(), value);
            }
        }
        map
    }

    fn value(&self, name: &str, shape: &Shape, file: Option<&Node>) -> Option<Value> {
        let map = match shape {
            Shape::Section(keys) => self.section(name, keys, file),
            Shape::Named { of, .. } => {
                // Only names that the file has: a variable's name cannot say how a new one would be spelt.
                let mut map = Map::new();
                for entry in file.map_or(&[][..], Node::entries) {
                    if let Some(value) = self.value(&format!("{name}__{}", variable(&entry.name)), of, Some(&entry.value)) {
                        map.insert(entry.name.clone(), value);
                    }
                }
                map
            }
            Shape::Receiver => {
                let knobs = self.kinds.iter().flat_map(|kind| kind.knobs).filter(|knob| knob.form != notify::Form::Map);
                let mut keys: Vec<String> = vec!["type".to_owned(), super::fallbacks::KEY.to_owned()];
                keys.extend(knobs.flat_map(|knob| [knob.name.to_owned(), format!("{}_file", knob.name)]));
                let texts = keys.into_iter().filter_map(|key| {
                    let value = self.text(&format!("{name}__{}", variable(&key)))?;
                    Some((key, value))
                });
                texts.collect()
            }
            Shape::List(of) | Shape::OneOrMany(of) if is_scalar(of) => {
                let origin = name.to_owned();
                let text = (self.env)(name)?;
                let items = text.split(',').map(|item| Value::new(Some(&origin), ValueKind::String(item.trim().to_owned()))).collect();
                return Some(Value::new(Some(&origin), ValueKind::Array(items)));
            }
            Shape::NameOr(_) => return self.text(name),
            Shape::List(_) | Shape::OneOrMany(_) | Shape::Mapping | Shape::Action | Shape::Later => return None,
            _ => return self.text(name),
        };
        (!map.is_empty()).then(|| Value::new(None, ValueKind::Table(map)))
    }

    fn text(&self, name: &str) -> Option<Value> {
        let origin = name.to_owned();
        (self.env)(name).map(|text| Value::new(Some(&origin), ValueKind::String(text)))
    }
}

/// Topics too: a list of names can be given by a variable, a list of tables cannot.
fn is_scalar(shape: &Shape) -> bool {
    !matches!(
        shape,
        Shape::Section(_)
            | Shape::Named { .. }
            | Shape::Mapping
            | Shape::Receiver
            | Shape::Action
            | Shape::Later
            | Shape::List(_)
            | Shape::OneOrMany(_)
    )
}

fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

// === to and from `config` ===

fn value_of(node: &Node) -> Value {
    let kind = match &node.data {
        Data::Table(entries) => ValueKind::Table(entries.iter().map(|e| (e.name.clone(), value_of(&e.value))).collect()),
        // Whatever it is, it is replaced as a whole or comes back from the file's tree as it was.
        _ => ValueKind::Nil,
    };
    Value::new(Some(&FILE.to_owned()), kind)
}

fn node_of(value: &Value, file: Option<&Node>) -> Node {
    let origin = value.origin().unwrap_or_default();
    let place_of = |file: Option<&Node>| file.map(|f| f.at.clone()).unwrap_or_default();
    match (&value.kind, file) {
        (ValueKind::Table(map), file) => {
            let mut entries: Vec<Entry> = Vec::new();
            for (name, value) in map {
                let below = file.and_then(|f| f.entry(name));
                let value = node_of(value, below.map(|e| &e.value));
                let key_at = below.map_or_else(|| value.at.clone(), |e| e.key_at.clone());
                entries.push(Entry { name: name.clone(), key_at, value });
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            // A table that no file has is where its first value is.
            let at = file.map_or_else(|| entries.first().map(|e| e.value.at.clone()).unwrap_or_default(), |f| f.at.clone());
            Node { data: Data::Table(entries), at, written: None }
        }
        (_, Some(file)) if origin == FILE => file.clone(),
        (ValueKind::Array(items), _) => {
            let at = Place { variable: Some(origin.to_owned()), ..Place::default() };
            Node { data: Data::List(items.iter().map(|item| node_of(item, None)).collect()), at, written: None }
        }
        (ValueKind::String(text), _) if origin != DEFAULT => Node::text_from(origin, text),
        (ValueKind::String(text), file) => Node { data: Data::Text(text.clone()), at: place_of(file), written: None },
        (_, file) => Node { data: Data::Null, at: place_of(file), written: None },
    }
}
