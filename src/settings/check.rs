//! The tree against the table: unknown keys, wrong shapes, missing keys; everything that can be said of a value by itself.

use std::path::Path;

use super::fallbacks;
use super::form::{self, Fault};
use super::node::{Data, Entry, Node, Place, quoted};
use super::table::{Key, RECEIVERS_LATER, ROOT, Shape};
use super::{Problem, Problems};
use crate::decode::{self, Mapping};
use crate::notify::{self, Form};

/// Collects what is wrong. Goes on after every fault.
pub struct Checker<'a> {
    pub file: &'a str,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub kinds: &'a [&'a notify::Kind],
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl Checker<'_> {
    pub fn complain(&mut self, at: &Place, key: &str, found: String, message: impl Into<String>, hint: Option<String>) {
        let problem = self.problem(at, key, found, message.into(), hint);
        self.problems.push(problem);
    }

    pub fn warn(&mut self, at: &Place, key: &str, message: impl Into<String>) {
        let problem = self.problem(at, key, String::new(), message.into(), None);
        self.warnings.push(problem);
    }

    fn problem(&self, at: &Place, key: &str, found: String, message: String, hint: Option<String>) -> Problem {
        let file = at.variable.as_ref().map_or_else(|| self.file.to_owned(), |name| format!("environment variable {name}"));
        Problem { file, line: at.line, column: at.column, key: key.to_owned(), found, message, hint }
    }

    pub fn fault(&mut self, node: &Node, path: &str, fault: Fault) {
        self.complain(&node.at, path, node.found(), fault.message, fault.hint);
    }

    // === before the layers are joined ===

    /// Drops repeated keys and fills in `${ENV}`; both are complained about in the file's own terms.
    pub fn prepare(&mut self, node: &mut Node, path: &str) {
        match &mut node.data {
            Data::Text(text) if text.contains('$') => {
                let written = text.clone();
                match expand(&written, self.env) {
                    Ok(full) => *text = full,
                    // The reference alone: what stands beside it may be a secret.
                    Err((reference, message)) => {
                        self.complain(&node.at, path, reference, message, None);
                        node.data = Data::Broken;
                    }
                }
                node.written = Some(written);
            }
            Data::List(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    self.prepare(item, &join(path, &i.to_string()));
                }
            }
            Data::Table(entries) => {
                let mut kept: Vec<Entry> = Vec::new();
                for mut entry in std::mem::take(entries) {
                    let below = join(path, &entry.name);
                    match kept.iter().find(|k| k.name == entry.name) {
                        Some(first) => {
                            let message = format!("duplicate key {}; it stands in line {} already", quoted(&entry.name), first.key_at.line);
                            self.complain(&entry.key_at, &below, entry.name, message, None);
                        }
                        None => {
                            self.prepare(&mut entry.value, &below);
                            if let Data::Null = entry.value.data {
                                // Nothing is nowhere; what can be seen is its key.
                                entry.value.at = entry.key_at.clone();
                            }
                            kept.push(entry);
                        }
                    }
                }
                *entries = kept;
            }
            Data::Text(_) | Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Broken => {}
        }
    }

    // === by the table ===

    pub fn root(&mut self, root: &Node) {
        self.section(root, ROOT, "", &root.at);
    }

    pub fn section(&mut self, node: &Node, keys: &[Key], path: &str, owner_at: &Place) {
        let Data::Table(entries) = &node.data else {
            if !node.is_broken() {
                let known: Vec<_> = keys.iter().filter(|k| !matches!(k.shape, Shape::Later)).map(|k| k.name).collect();
                self.complain(&node.at, path, node.found(), format!("expected a table (keys: {}), found {}", known.join(", "), node.shown()), None);
            }
            return;
        };
        for entry in entries {
            let below = join(path, &entry.name);
            match keys.iter().find(|key| key.name == entry.name) {
                Some(key) => self.value(&entry.value, &key.shape, &below, &entry.key_at),
                None => {
                    let known = keys.iter().filter(|k| !matches!(k.shape, Shape::Later)).map(|k| k.name);
                    self.unknown_key(entry, &below, known);
                }
            }
        }
        for key in keys.iter().filter(|key| key.required && node.get(key.name).is_none()) {
            // A misspelt key is one fault, not two.
            let is_misspelt = entries.iter().any(|e| keys.iter().all(|k| k.name != e.name) && form::nearest(&e.name, [key.name]).is_some());
            if !is_misspelt {
                self.complain(owner_at, &join(path, key.name), String::new(), format!("missing; {}", lower(key.about)), None);
            }
        }
    }

    fn unknown_key<'k>(&mut self, entry: &Entry, path: &str, known: impl Iterator<Item = &'k str> + Clone) {
        let near = form::nearest(&entry.name, known.clone()).map(str::to_owned);
        let mut message = format!("unknown key {}", quoted(&entry.name));
        let hint = match near {
            Some(near) => Some(near),
            None => {
                let elsewhere = elsewhere(&entry.name).filter(|p| p != path);
                if elsewhere.is_none() {
                    let known: Vec<_> = known.collect();
                    message = format!("{message} (known: {})", known.join(", "));
                }
                elsewhere
            }
        };
        self.complain(&entry.key_at, path, entry.name.clone(), message, hint);
    }

    fn value(&mut self, node: &Node, shape: &Shape, path: &str, owner_at: &Place) {
        if node.is_broken() {
            return;
        }
        let checked = match shape {
            Shape::Text(check) => form::text(node).and_then(check),
            Shape::Path => form::text(node).map(|_| ()),
            Shape::Word { what, known, later } => form::text(node).and_then(|text| word(text, what, known, later)),
            Shape::Bool => form::boolean(node).map(|_| ()),
            Shape::Number => form::above_zero(node).map(|_| ()),
            Shape::Level => form::level(node).map(|_| ()),
            Shape::Duration { ms_min, ms_max } => form::duration(node).and_then(|ms| {
                if ms >= *ms_min && ms <= *ms_max {
                    return Ok(());
                }
                let bounds = format!("{} to {}", form::shown_duration(*ms_min), form::shown_duration(*ms_max));
                Err(Fault { message: format!("{} is out of bounds; allowed is {bounds}", node.shown()), hint: None })
            }),
            Shape::Tolerance => form::tolerance(node).map(|_| ()),
            Shape::Amount => form::amount(node).map(|_| ()),
            Shape::Scalar => match &node.data {
                Data::Null | Data::List(_) | Data::Table(_) => {
                    Err(Fault { message: format!("expected text, a number or a boolean, found {}", node.shown()), hint: None })
                }
                _ => Ok(()),
            },
            Shape::List(of) => match &node.data {
                Data::List(items) if !items.is_empty() => return self.items(items, of, path),
                Data::List(_) => Err(Fault { message: "an empty list; leave the key out or fill it".to_owned(), hint: None }),
                _ => Err(Fault { message: format!("expected a list, found {}", node.shown()), hint: None }),
            },
            Shape::OneOrMany(of) => match &node.data {
                Data::List(items) if !items.is_empty() => return self.items(items, of, path),
                Data::List(_) => Err(Fault { message: "an empty list; leave the key out or fill it".to_owned(), hint: None }),
                Data::Table(_) | Data::Null => Err(Fault { message: format!("expected a list, found {}", node.shown()), hint: None }),
                _ => return self.value(node, of, path, owner_at),
            },
            Shape::Section(keys) => return self.section(node, keys, path, owner_at),
            Shape::Named { what, name, of } => match &node.data {
                Data::Table(entries) => {
                    for entry in entries {
                        let below = join(path, &entry.name);
                        if let Err(fault) = name(&entry.name) {
                            self.complain(&entry.key_at, &below, entry.name.clone(), fault.message, fault.hint);
                        }
                        self.value(&entry.value, of, &below, &entry.key_at);
                    }
                    Ok(())
                }
                _ => Err(Fault { message: format!("expected a table by name of {what}, found {}", node.shown()), hint: None }),
            },
            Shape::WordOr(word, keys) => match &node.data {
                Data::Table(_) => return self.section(node, keys, path, &node.at),
                _ => return self.value(node, word, path, owner_at),
            },
            Shape::NameOr(keys) => match &node.data {
                Data::Table(_) => {
                    self.section(node, keys, path, &node.at);
                    return self.topic(node, path);
                }
                Data::Text(_) => return self.value(node, &keys[0].shape, path, owner_at),
                _ => Err(Fault { message: format!("expected a name or a table with a name, found {}", node.shown()), hint: None }),
            },
            Shape::Hours(read) => form::text(node).and_then(|text| read(text).map(|_| ())),
            // Needs its topic's format: see `topic`.
            Shape::Mapping => Ok(()),
            Shape::Receiver => return self.receiver(node, path, owner_at),
            Shape::Action => return super::people::check_action(self, node, path, owner_at),
            Shape::Later => {
                self.complain(owner_at, path, last(path).to_owned(), "not available yet; leave it out", None);
                return;
            }
        };
        if let Err(fault) = checked {
            self.fault(node, path, fault);
        }
    }

    fn items(&mut self, items: &[Node], of: &Shape, path: &str) {
        for (i, item) in items.iter().enumerate() {
            self.value(item, of, &join(path, &i.to_string()), &item.at);
        }
    }

    // === topics ===

    fn topic(&mut self, node: &Node, path: &str) {
        let format = node.get("format").and_then(Node::as_text);
        let Some(mapping) = node.entry("mapping") else {
            if format == Some("json") {
                let message = "missing; format json needs it, as in {kind: prediction, model: $.m, id: $.uid}";
                self.complain(&node.at, &join(path, "mapping"), String::new(), message, None);
            }
            return;
        };
        let path = join(path, "mapping");
        if format == Some("canonical") {
            let message = "format canonical takes no mapping; leave it out, or write format: json";
            self.complain(&mapping.key_at, &path, "mapping".to_owned(), message, None);
            return;
        }
        let Data::Table(_) = &mapping.value.data else {
            let message = format!("expected a table of our members to paths such as $.a.b, found {}", mapping.value.shown());
            return self.complain(&mapping.value.at, &path, mapping.value.found(), message, None);
        };
        if mapping.value.entries().iter().any(|e| e.value.is_broken()) {
            return;
        }
        if let Err(error) = decode::Decoder::mapped(decode::Settings::new([0; 16]), &mapping_of(&mapping.value)) {
            for fault in error.0 {
                let (at, found) = place_within(&mapping.value, &mapping.key_at, &fault.key);
                let key = if fault.key == "mapping" { path.clone() } else { join(&path, &fault.key) };
                let (message, hint) = hint_apart(fault.problem);
                self.complain(&at, &key, found, message, hint);
            }
        }
    }

    // === receivers ===

    fn receiver(&mut self, node: &Node, path: &str, owner_at: &Place) {
        let names = || self.kinds.iter().map(|kind| kind.name);
        let known = || names().collect::<Vec<_>>().join(", ");
        if !matches!(node.data, Data::Table(_)) {
            let message = format!("expected a table such as {{type: pagerduty, routing_key_file: /path}}, found {}", node.shown());
            return self.complain(&node.at, path, String::new(), message, None);
        }
        let type_path = join(path, "type");
        let Some(named) = node.get("type") else {
            let misspelt = node.entries().iter().find(|e| form::nearest(&e.name, ["type"]).is_some() && self.knob(&e.name).is_none());
            return match misspelt {
                Some(entry) => {
                    let message = format!("unknown key {}", quoted(&entry.name));
                    self.complain(&entry.key_at, &join(path, &entry.name), entry.name.clone(), message, Some("type".to_owned()));
                }
                None => {
                    let message = format!("missing; the kind of receiver (known: {})", known());
                    self.complain(owner_at, &type_path, String::new(), message, None);
                }
            };
        };
        if named.is_broken() {
            return;
        }
        let text = match form::text(named) {
            Ok(text) => text,
            Err(fault) => return self.fault(named, &type_path, fault),
        };
        let Some(kind) = self.kinds.iter().copied().find(|kind| kind.name == text) else {
            let near = form::nearest(text, names()).map(str::to_owned);
            let message = if RECEIVERS_LATER.contains(&text) {
                format!("type {} is not available yet (available: {})", quoted(text), known())
            } else {
                format!("unknown type {} (known: {})", quoted(text), known())
            };
            let hint = near.filter(|_| !RECEIVERS_LATER.contains(&text));
            return self.complain(&named.at, &type_path, named.found(), message, hint);
        };
        for entry in node.entries().iter().filter(|e| e.name != "type") {
            let below = join(path, &entry.name);
            if entry.name == fallbacks::KEY {
                self.value(&entry.value, &Shape::Text(form::any), &below, &entry.key_at);
                continue;
            }
            let knob = kind.knobs.iter().find(|knob| knob.name == entry.name);
            let secret = entry.name.strip_suffix("_file").and_then(|name| kind.knobs.iter().find(|k| k.name == name && k.form == Form::Secret));
            match (knob, secret) {
                (Some(knob), _) => self.knob_value(&entry.value, knob.form, &below),
                (None, Some(knob)) => {
                    if node.get(knob.name).is_some_and(|n| !n.is_broken()) {
                        let message = format!("both {:?} and {:?} are given; keep one", knob.name, entry.name);
                        self.complain(&entry.key_at, &below, entry.name.clone(), message, None);
                    } else {
                        self.secret_file(&entry.value, &below);
                    }
                }
                (None, None) => {
                    let files = kind.knobs.iter().filter(|k| k.form == Form::Secret).map(|k| format!("{}_file", k.name)).collect::<Vec<_>>();
                    let known =
                        ["type"].into_iter().chain(kind.knobs.iter().map(|k| k.name)).chain(files.iter().map(String::as_str)).chain([fallbacks::KEY]);
                    let known: Vec<&str> = known.collect();
                    let near = form::nearest(&entry.name, known.iter().copied()).map(str::to_owned);
                    let message = match near {
                        Some(_) => format!("unknown key {}", quoted(&entry.name)),
                        None => format!("unknown key {} for type {} (known: {})", quoted(&entry.name), kind.name, known.join(", ")),
                    };
                    self.complain(&entry.key_at, &below, entry.name.clone(), message, near);
                }
            }
        }
        for knob in kind.knobs.iter().filter(|k| k.required) {
            let file = format!("{}_file", knob.name);
            let is_given = node.get(knob.name).is_some() || (knob.form == Form::Secret && node.get(&file).is_some());
            let is_near = |e: &Entry| self.knob_of(kind, &e.name).is_none() && form::nearest(&e.name, [knob.name, file.as_str()]).is_some();
            if !is_given && !node.entries().iter().any(is_near) {
                let what = match knob.form {
                    Form::Secret => format!("{:?} or {file:?}", knob.name),
                    Form::Text | Form::Url | Form::Duration | Form::Bool | Form::Map => format!("{:?}", knob.name),
                };
                self.complain(owner_at, &join(path, knob.name), String::new(), format!("missing; type {} needs {what}", kind.name), None);
            }
        }
    }

    fn knob(&self, name: &str) -> Option<&notify::Knob> {
        self.kinds.iter().find_map(|kind| self.knob_of(kind, name))
    }

    /// The knob that this key is, or whose file it is.
    fn knob_of<'k>(&self, kind: &'k notify::Kind, name: &str) -> Option<&'k notify::Knob> {
        let is_file_of = |knob: &notify::Knob| knob.form == Form::Secret && name.strip_suffix("_file") == Some(knob.name);
        kind.knobs.iter().find(|knob| knob.name == name || is_file_of(knob))
    }

    pub fn knob_value(&mut self, node: &Node, form: Form, path: &str) {
        if node.is_broken() {
            return;
        }
        let checked = match form {
            Form::Text => form::text(node).map(|_| ()),
            Form::Secret => {
                // Never quoted.
                match &node.data {
                    Data::Text(text) if text.trim().is_empty() => self.complain(&node.at, path, String::new(), "empty; expected a secret", None),
                    Data::Text(_) => {}
                    Data::Null => self.complain(&node.at, path, String::new(), "empty; expected a secret", None),
                    _ => self.complain(&node.at, path, String::new(), "expected text; put the secret in quotes", None),
                }
                return;
            }
            // One, or all members of a cluster separated by commas.
            Form::Url => form::text(node).and_then(|text| match form::url(text) {
                Err(_) if text.contains(',') => text.split(',').try_for_each(|one| form::url(one.trim())),
                checked => checked,
            }),
            Form::Duration => form::duration(node).map(|_| ()),
            Form::Bool => form::boolean(node).map(|_| ()),
            Form::Map => match &node.data {
                Data::Table(entries) => {
                    for entry in entries.iter().filter(|e| !e.value.is_broken()) {
                        if let Err(fault) = form::text(&entry.value) {
                            self.fault(&entry.value, &join(path, &entry.name), fault);
                        }
                    }
                    Ok(())
                }
                _ => Err(Fault { message: format!("expected a table of texts, found {}", node.shown()), hint: None }),
            },
        };
        if let Err(fault) = checked {
            self.fault(node, path, fault);
        }
    }

    pub fn secret_file(&mut self, node: &Node, path: &str) {
        if node.is_broken() {
            return;
        }
        match form::text(node) {
            Err(fault) => self.fault(node, path, fault),
            Ok(text) => match std::fs::read_to_string(beside(self.file, text)) {
                Err(error) => self.complain(&node.at, path, node.found(), format!("cannot read {}: {error}", node.shown()), None),
                Ok(secret) if secret.trim().is_empty() => {
                    self.complain(&node.at, path, node.found(), format!("{} is empty; expected a secret in it", node.shown()), None);
                }
                Ok(_) => {}
            },
        }
    }

    pub fn sorted(mut problems: Vec<Problem>) -> Problems {
        problems.sort_by(|a, b| (a.line, a.column, &a.file, &a.key, &a.message).cmp(&(b.line, b.column, &b.file, &b.key, &b.message)));
        problems.dedup();
        Problems(problems)
    }
}

// === helpers ===

pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn lower(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut chars = sentence.chars();
    chars.next().map(|c| c.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn word(text: &str, what: &str, known: &[&str], later: &[&str]) -> Result<(), Fault> {
    if known.contains(&text) {
        return Ok(());
    }
    if later.contains(&text) {
        return Err(Fault { message: format!("{what} {} is not available yet (available: {})", quoted(text), known.join(", ")), hint: None });
    }
    let hint = form::nearest(text, known.iter().copied()).map(str::to_owned);
    Err(Fault { message: format!("unknown {what} {} (known: {})", quoted(text), known.join(", ")), hint })
}

/// Where a key of this name does belong, for one that stands at the wrong level.
fn elsewhere(name: &str) -> Option<String> {
    let mut found = ROOT.iter().filter_map(|section| match &section.shape {
        Shape::Section(keys) => keys.iter().find(|k| k.name == name).map(|k| join(section.name, k.name)),
        _ => None,
    });
    found.next().or_else(|| ROOT.iter().find(|k| k.name == name && !matches!(k.shape, Shape::Later)).map(|k| k.name.to_owned()))
}

/// A path of the configuration, which is relative to the folder of the file that names it.
pub fn beside(file: &str, path: &str) -> std::path::PathBuf {
    match Path::new(file).parent() {
        Some(folder) => folder.join(path),
        None => Path::new(path).to_owned(),
    }
}

pub fn mapping_of(node: &Node) -> Mapping {
    Mapping(node.entries().iter().map(|e| (e.name.clone(), e.value.to_json())).collect())
}

/// The place of `a.b` below a node; names may hold points themselves, so the longest name that fits is taken. The innermost
/// key that exists, if the last is missing.
fn place_within(node: &Node, key_at: &Place, key: &str) -> (Place, String) {
    let fits = |e: &&Entry| key == e.name || key.strip_prefix(e.name.as_str()).is_some_and(|rest| rest.starts_with('.'));
    match node.entries().iter().filter(fits).max_by_key(|e| e.name.len()) {
        Some(entry) => match key.get(entry.name.len() + 1..) {
            Some(rest) if !rest.is_empty() => match entry.value.data {
                Data::Table(_) => place_within(&entry.value, &entry.key_at, rest),
                _ => (entry.value.at.clone(), entry.value.found()),
            },
            _ => match entry.value.data {
                Data::Table(_) => (entry.key_at.clone(), String::new()),
                _ => (entry.value.at.clone(), entry.value.found()),
            },
        },
        None => (key_at.clone(), String::new()),
    }
}

/// Parts a message of another room from the hint at its end or in it.
fn hint_apart(message: String) -> (String, Option<String>) {
    let parts = message.split_once("; did you mean \"").and_then(|(before, rest)| {
        let (hint, after) = rest.split_once("\"?")?;
        Some((format!("{before}{after}"), hint.to_owned()))
    });
    match parts {
        Some((message, hint)) => (message, Some(hint)),
        None => (message, None),
    }
}

/// `${VAR}`, `${VAR:-default}`, `${VAR:?message}`; `$$` is a dollar, and any other `$` stays.
fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, (String, String)> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some(after) = rest.strip_prefix('{') else {
            out.push('$');
            continue;
        };
        let Some((inside, after)) = after.split_once('}') else {
            return Err(("${".to_owned(), "\"${\" without \"}\"; write $${ for the two characters themselves".to_owned()));
        };
        rest = after;
        let fail = |message: String| Err((format!("${{{inside}}}"), message));
        let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
        let (name, rule) = inside.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return fail(format!("{} names no environment variable; write ${{NAME}}", quoted(&format!("${{{inside}}}"))));
        }
        let value = env(name);
        let is_set = value.as_ref().is_some_and(|v| !v.is_empty());
        match rule {
            "" => match value {
                Some(value) => out.push_str(&value),
                None => return fail(format!("environment variable {name} is not set; set it, or write ${{{name}:-default}}")),
            },
            rule if rule.starts_with(":-") => out.push_str(&value.filter(|_| is_set).unwrap_or_else(|| rule[2..].to_owned())),
            rule if rule.starts_with(":?") => match value.filter(|_| is_set) {
                Some(value) => out.push_str(&value),
                None if rule.len() == 2 => return fail(format!("environment variable {name} is not set or empty")),
                None => return fail(format!("environment variable {name} is not set or empty: {}", &rule[2..])),
            },
            _ => {
                return fail(format!(
                    "{} is not understood; write ${{{name}}}, ${{{name}:-default}} or ${{{name}:?message}}",
                    quoted(&format!("${{{inside}}}"))
                ));
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}
