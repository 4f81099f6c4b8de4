//! JSON of the user's own shape, renamed into ours: each of our members is given the path where it lies in theirs.
//!
//! ```yaml
//! mapping: {kind: prediction, model: $.m, id: $.uid, time: {path: $.ts, unit: ms}, latency_ms: $.took, features: $.inputs}
//! ```
//! Text that begins with `$` is a path, any other value is a constant. A table with `path` or `const` may say more: `unit`,
//! `map` (their word to ours), `default`, `required`. Everything fetched goes through the same reading as a canonical event,
//! so both forms forgive and refuse the same things. A language of expressions was not taken: what cannot be renamed is better
//! done by the producer than half done here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeSeed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::canonical::parse;
use super::draft::{Draft, ReadMember};
use super::member::{Member, nearest};
use super::path::{AnyTree, Path, Tree};
use super::scalar::Scalar;
use super::{Decoder, Kind, Knob, Reason, Reject, Settings, excerpt, limits};
use crate::domain::Body;

pub const KIND: Kind = Kind {
    name: "json",
    about: "JSON of any shape, with a mapping from its members to ours",
    knobs: &[Knob {
        name: "mapping",
        about: "our member: a path such as $.a.b[0]['c d'], a constant, or {path, unit, map, default, required}",
        required: true,
    }],
    build: |settings, mapping| match mapping {
        Some(mapping) => Decoder::mapped(settings, mapping),
        None => Err(MappingError(vec![MappingFault { key: "mapping".into(), problem: "missing; format json needs it".into() }])),
    },
};

/// A mapping as it stands in the configuration, not yet checked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mapping(pub BTreeMap<String, Value>);

/// Everything that is wrong with a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingError(pub Vec<MappingFault>);

/// One thing that is wrong with a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingFault {
    /// Where: `latency_ms.unit`.
    pub key: String,
    /// What is wrong with it, with the offending text and what would be right.
    pub problem: String,
}

/// A compiled mapping.
pub struct Plan {
    members: Vec<(Member, Origin)>,
    pub time_required: bool,
}

/// Where a member's value comes from.
enum Origin {
    Constant(Tree<'static>),
    Path(Box<Fetch>),
    /// An object put together member by member.
    Object(Vec<(String, Origin)>),
}

struct Fetch {
    path: Path,
    /// Factor from their unit to ours.
    unit: Option<f64>,
    words: BTreeMap<String, Tree<'static>>,
    default: Option<Tree<'static>>,
    required: bool,
}

const SPEC_KEYS: &[&str] = &["path", "const", "unit", "map", "default", "required"];
const UNITS: &[&str] = &["ns", "us", "ms", "s", "min"];
/// What each kind cannot do without; the members that can stand for one another are left to the event.
const NEEDED: &[(&str, &[Member])] = &[
    ("prediction", &[Member::Id, Member::Model]),
    ("outcome", &[Member::PredictionId]),
    ("quality", &[Member::Name]),
    ("feedback", &[Member::KindOf]),
    ("deployment", &[Member::Target, Member::Phase]),
    ("pipeline", &[Member::Job, Member::State]),
    ("report", &[Member::Id, Member::Summary, Member::SourceOfReport]),
];

// === impl Plan ===

impl Plan {
    /// # Errors
    /// Every fault of the mapping, not only the first.
    pub fn compile(mapping: &Mapping) -> Result<Plan, MappingError> {
        let mut compiler = Compiler::default();
        let mut members = Vec::new();
        for (key, value) in &mapping.0 {
            match Member::find(key) {
                Some(member) => members.extend(compiler.member(member, value).map(|origin| (member, origin))),
                None => {
                    let meant = Member::nearest(key).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
                    compiler.complain::<()>(key, format!("no event has a member {:?}{meant}", excerpt(key)));
                }
            }
        }
        if mapping.0.is_empty() {
            compiler.complain::<()>("mapping", "empty; it needs at least id and model, as in {kind: prediction, id: $.uid, model: $.m}");
        }
        compiler.check_kind(mapping);
        if !compiler.faults.is_empty() {
            return Err(MappingError(compiler.faults));
        }
        // In the order of the events' page, so that faults are listed alike for both forms.
        members.sort_by_key(|(member, _)| *member);
        let time_required = members.iter().any(|(member, origin)| *member == Member::Time && matches!(origin, Origin::Path(fetch) if fetch.required));
        Ok(Plan { members, time_required })
    }

    /// Reads one event into a draft.
    pub fn read<'s, 'a>(&self, text: &'a str, settings: &'s Settings) -> Result<Draft<'s, 'a>, Reject> {
        // One more than is read of an object, so that the cut is noticed and counted.
        let any = AnyTree { keys_max: settings.max_keys, entries_max: settings.max_features.saturating_add(1), is_top: true };
        match parse(text, any) {
            Ok(tree) => self.fill(&tree, settings),
            Err(error) if limits::is_number_beyond_range(&error) => {
                let text = limits::without_numbers_beyond_range(text);
                let tree = parse(&text, any).map_err(|error| refusal(&error, &text))?;
                self.fill(&tree, settings).map(Draft::into_owned)
            }
            Err(error) => Err(refusal(&error, text)),
        }
    }

    fn fill<'s, 'a>(&self, root: &Tree<'a>, settings: &'s Settings) -> Result<Draft<'s, 'a>, Reject> {
        let mut draft = Draft::new(settings);
        for (member, origin) in &self.members {
            let found = origin.fetch(root);
            // A time that cannot be read is as bad as none, so both are refused at the end.
            if let Some(lacking) = origin.lacking(root, member.name()).filter(|_| *member != Member::Time) {
                let detail = format!("missing {lacking:?}: the mapping requires it");
                return Err(Reject::new(Reason::MissingField, detail));
            }
            let Some(tree) = found else { continue };
            let read = ReadMember { draft: &mut draft, member: *member }.deserialize(tree);
            if let Err(error) = read {
                return Err(draft.take_reject().unwrap_or_else(|| Reject::new(Reason::BadJson, error.to_string())));
            }
        }
        Ok(draft)
    }
}

fn refusal(error: &serde_json::Error, text: &str) -> Reject {
    if error.is_data() {
        let message = error.to_string();
        return Reject::new(Reason::TooLarge, message.split(" at line ").next().unwrap_or(&message));
    }
    limits::bad_json(error, text)
}

// === impl Origin ===

impl Origin {
    fn fetch<'a>(&self, root: &Tree<'a>) -> Option<Tree<'a>> {
        match self {
            Origin::Constant(tree) => Some(tree.clone()),
            Origin::Path(fetch) => fetch.fetch(root),
            Origin::Object(origins) => {
                let members: Vec<_> = origins.iter().filter_map(|(name, o)| Some((Cow::Owned(name.clone()), o.fetch(root)?))).collect();
                (!members.is_empty()).then_some(Tree::Object(members))
            }
        }
    }
}

impl Origin {
    /// The first thing under `name` that the mapping requires and the event lacks.
    fn lacking(&self, root: &Tree<'_>, name: &str) -> Option<String> {
        match self {
            Origin::Constant(_) => None,
            Origin::Path(fetch) => (fetch.required && fetch.fetch(root).is_none()).then(|| name.to_owned()),
            Origin::Object(origins) => origins.iter().find_map(|(inner, origin)| match origin {
                Origin::Path(fetch) if !fetch.required => None,
                _ => origin.lacking(root, &format!("{name}.{inner}")),
            }),
        }
    }
}

impl Fetch {
    fn fetch<'a>(&self, root: &Tree<'a>) -> Option<Tree<'a>> {
        let found = self.path.walk(root);
        let tree = match (found, &self.default) {
            (Some(tree), _) if !tree.is_null() => tree,
            (_, Some(default)) => return Some(default.clone()),
            // Absent and null stay apart: a feature that is null was reported as null.
            (found, None) => return found.cloned().filter(|_| !self.required),
        };
        if let Some(word) = self.words.get(&*word_of(tree)) {
            return Some(word.clone());
        }
        Some(match (self.unit, tree) {
            (Some(factor), Tree::Leaf(leaf)) => Tree::Leaf(in_our_unit(leaf, factor)),
            _ => tree.clone(),
        })
    }
}

/// A number in our unit. Text that spells a number stays text, so that it is still noted as such; what is no number stays as it
/// is, because a time may be RFC 3339 whatever its unit, and a fault is noted later. A time in milliseconds then goes by its
/// magnitude like any other, so a unit that is wrong by a thousand moves no event.
fn in_our_unit<'a>(leaf: &Scalar<'a>, factor: f64) -> Scalar<'a> {
    match leaf {
        Scalar::Text(text) => match text.trim().parse::<f64>() {
            Ok(n) => Scalar::Text(Cow::Owned((n * factor).to_string())),
            Err(_) => leaf.clone(),
        },
        leaf => leaf.as_number().map_or_else(|| leaf.clone(), |n| Scalar::Float(n * factor)),
    }
}

/// The text by which `map` knows a value.
fn word_of<'t>(tree: &'t Tree<'_>) -> Cow<'t, str> {
    match tree {
        Tree::Leaf(Scalar::Text(text)) => Cow::Borrowed(text),
        Tree::Leaf(Scalar::Bool(b)) => Cow::Borrowed(if *b { "true" } else { "false" }),
        Tree::Leaf(Scalar::Unsigned(n)) => Cow::Owned(n.to_string()),
        Tree::Leaf(Scalar::Signed(n)) => Cow::Owned(n.to_string()),
        Tree::Leaf(Scalar::Float(n)) => Cow::Owned(n.to_string()),
        _ => Cow::Borrowed(""),
    }
}

// === compiling ===

#[derive(Default)]
struct Compiler {
    faults: Vec<MappingFault>,
}

impl Compiler {
    fn complain<T>(&mut self, key: &str, problem: impl Into<String>) -> Option<T> {
        self.faults.push(MappingFault { key: key.to_owned(), problem: problem.into() });
        None
    }

    fn member(&mut self, member: Member, value: &Value) -> Option<Origin> {
        let key = member.name();
        let origin = match value {
            Value::Object(entries) if takes_object(member) && !is_spec(entries) => {
                let mut origins = Vec::new();
                for (name, value) in entries {
                    let at = format!("{key}.{name}");
                    match names_within(member) {
                        Some(known) if !known.contains(&name.as_str()) => {
                            self.complain::<()>(&at, format!("{key:?} has no member {:?} (known: {})", excerpt(name), known.join(", ")));
                        }
                        _ => origins.extend(self.origin(&at, member, value).map(|origin| (name.clone(), origin))),
                    }
                }
                Some(Origin::Object(origins))
            }
            value => self.origin(key, member, value),
        }?;
        if let (Member::Id | Member::Time | Member::PredictionId, Origin::Constant(_)) = (member, &origin) {
            return self.complain(key, format!("a constant {value}; it must come from the event, as in $.some.member"));
        }
        Some(origin)
    }

    fn origin(&mut self, key: &str, member: Member, value: &Value) -> Option<Origin> {
        match value {
            Value::String(text) if text.starts_with('$') => self.path(key, text).map(|path| Origin::Path(Box::new(Fetch::plain(path)))),
            Value::String(_) | Value::Number(_) | Value::Bool(_) => Some(Origin::Constant(constant(value))),
            Value::Object(entries) => self.spec(key, member, entries),
            Value::Null => self.complain(key, "null; give a path such as $.a.b, or leave the key out"),
            Value::Array(_) => self.complain(key, "a list; give one path such as $.a.b"),
        }
    }

    fn spec(&mut self, key: &str, member: Member, entries: &Map<String, Value>) -> Option<Origin> {
        let faults_before = self.faults.len();
        for name in entries.keys().filter(|name| !SPEC_KEYS.contains(&name.as_str())) {
            let meant = nearest(name, SPEC_KEYS).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
            self.complain::<()>(&format!("{key}.{name}"), format!("unknown key {:?}{meant} (known: {})", excerpt(name), SPEC_KEYS.join(", ")));
        }
        if let Some(value) = entries.get("const") {
            if entries.len() > 1 {
                self.complain::<()>(key, "\"const\" beside other keys; a constant needs none of them");
            }
            if matches!(value, Value::Null | Value::Array(_) | Value::Object(_)) {
                self.complain::<()>(&format!("{key}.const"), format!("{} is no text, number or boolean", excerpt(&value.to_string())));
            }
            return (self.faults.len() == faults_before).then(|| Origin::Constant(constant(value)));
        }
        let path = match entries.get("path") {
            Some(Value::String(text)) => self.path(&format!("{key}.path"), text),
            Some(other) => self.complain(&format!("{key}.path"), format!("{} is no text; a path looks like $.a.b", excerpt(&other.to_string()))),
            None => self.complain(key, "neither \"path\" nor \"const\"; say where the value lies, as in {path: $.a.b}"),
        };
        let unit = entries.get("unit").and_then(|unit| self.unit(&format!("{key}.unit"), member, unit));
        let mut words = BTreeMap::new();
        match entries.get("map") {
            None => {}
            Some(Value::Object(map)) => {
                for (theirs, ours) in map {
                    if matches!(ours, Value::Null | Value::Array(_) | Value::Object(_)) {
                        self.complain::<()>(&format!("{key}.map.{theirs}"), "no text, number or boolean");
                    }
                    words.insert(theirs.clone(), constant(ours));
                }
            }
            Some(other) => {
                self.complain::<()>(&format!("{key}.map"), format!("{} is no table such as {{OK: ok}}", excerpt(&other.to_string())));
            }
        }
        let default = entries.get("default").map(constant);
        let required = match entries.get("required") {
            None => false,
            Some(Value::Bool(required)) => *required,
            Some(other) => {
                self.complain::<()>(&format!("{key}.required"), format!("{} is neither true nor false", excerpt(&other.to_string())));
                false
            }
        };
        if self.faults.len() > faults_before {
            return None;
        }
        Some(Origin::Path(Box::new(Fetch { path: path?, unit, words, default, required })))
    }

    fn path(&mut self, key: &str, text: &str) -> Option<Path> {
        Path::parse(text).map_err(|problem| self.complain::<()>(key, problem)).ok()
    }

    /// The factor that makes a number of theirs one of ours.
    fn unit(&mut self, key: &str, member: Member, unit: &Value) -> Option<f64> {
        let ours_ms = match member {
            Member::LatencyMs | Member::FirstTokenMs | Member::Time | Member::ObservedAt | Member::NominalTime => 1.0,
            Member::ExpectedIntervalS => 1_000.0,
            _ => return self.complain(key, format!("{:?} is no time and no duration, so it has no unit", member.name())),
        };
        let theirs_ms = match unit.as_str() {
            Some("ns") => 1e-6,
            Some("us") => 1e-3,
            Some("ms") => 1.0,
            Some("s") => 1_000.0,
            Some("min") => 60_000.0,
            _ => return self.complain(key, format!("unknown unit {} (known: {})", excerpt(&unit.to_string()), UNITS.join(", "))),
        };
        Some(theirs_ms / ours_ms)
    }

    /// What can be said about the kind before any event has come.
    fn check_kind(&mut self, mapping: &Mapping) {
        let kind = match mapping.0.get("kind") {
            Some(Value::String(word)) if !word.starts_with('$') => word.as_str(),
            _ => return,
        };
        if !Body::KINDS.contains(&kind) {
            let meant = nearest(kind, Body::KINDS).map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
            return self.complain("kind", format!("unknown kind {:?}{meant} (known: {})", excerpt(kind), Body::KINDS.join(", "))).unwrap_or_default();
        }
        let needed = NEEDED.iter().filter(|(known, _)| *known == kind).flat_map(|(_, members)| *members);
        for member in needed.filter(|member| !mapping.0.contains_key(member.name())) {
            self.complain::<()>(member.name(), format!("not mapped; a {kind} event needs it"));
        }
    }
}

impl Fetch {
    fn plain(path: Path) -> Fetch {
        Fetch { path, unit: None, words: BTreeMap::new(), default: None, required: false }
    }
}

fn takes_object(member: Member) -> bool {
    let free = matches!(member, Member::Segments | Member::Groups | Member::Features | Member::Scores | Member::Flags);
    free || names_within(member).is_some()
}

/// The members of a member whose names are fixed.
fn names_within(member: Member) -> Option<&'static [&'static str]> {
    match member {
        Member::Error => Some(&["type", "message", "code"]),
        Member::Cost => Some(&["amount", "currency"]),
        Member::Target => Some(&["kind", "name"]),
        _ => None,
    }
}

/// `{path: $.x}` is a specification; `{path: {path: $.x}}` gives a feature that is called "path".
fn is_spec(entries: &Map<String, Value>) -> bool {
    entries.get("path").or(entries.get("const")).is_some_and(|value| !value.is_object())
}

fn constant(value: &Value) -> Tree<'static> {
    match value {
        Value::Null => Tree::Leaf(Scalar::Null),
        Value::Bool(b) => Tree::Leaf(Scalar::Bool(*b)),
        Value::Number(n) => Tree::Leaf(match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => Scalar::Unsigned(n),
            (None, Some(n)) => Scalar::Signed(n),
            (None, None) => Scalar::Float(n.as_f64().unwrap_or(f64::NAN)),
        }),
        Value::String(text) => Tree::Leaf(Scalar::Text(Cow::Owned(text.clone()))),
        Value::Array(items) => Tree::Array(items.iter().map(constant).collect()),
        Value::Object(entries) => Tree::Object(entries.iter().map(|(name, value)| (Cow::Owned(name.clone()), constant(value))).collect()),
    }
}

// === impl traits ===

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            let line = if at > 0 { "\n" } else { "" };
            write!(f, "{line}{}: {}", fault.key, fault.problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for MappingError {}

impl JsonSchema for Mapping {
    fn schema_name() -> Cow<'static, str> {
        "Mapping".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let value = json_schema!({ "type": ["string", "number", "boolean"] });
        let spec = json_schema!({
            "type": "object",
            "properties": {
                "path": { "type": "string", "pattern": "^\\$", "description": "Where the value lies, as in $.a.b[0]['c d']" },
                "const": { "type": ["string", "number", "boolean"], "description": "The same value for every event" },
                "unit": { "enum": UNITS, "description": "Unit of a time or a duration, if not that of our member" },
                "map": { "type": "object", "additionalProperties": value, "description": "Their word to ours" },
                "default": { "description": "Taken where the value is missing or null" },
                "required": { "type": "boolean", "description": "Refuse the event without it" },
            },
            "additionalProperties": false,
        });
        let entry = json_schema!({ "anyOf": [value, spec] });
        let member = |member: &Member| {
            let schema = if takes_object(*member) {
                json_schema!({ "anyOf": [value, spec, { "type": "object", "additionalProperties": entry }] })
            } else {
                entry.clone()
            };
            (member.name().to_owned(), Value::from(schema))
        };
        let properties: Map<String, Value> = Member::ALL.iter().map(member).collect();
        json_schema!({
            "type": "object",
            "description": "Our members, each with where it lies in the user's events: a path that begins with $, a constant, or more in a table",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}
