//! The table and the settings in words: JSON Schema, the sample file, and what is in force.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::form::{shown_duration, trimmed};
use super::table::{Key, ROOT, Shape};
use super::{Settings, fallbacks};
use crate::act;
use crate::decode::Mapping;
use crate::domain::Signal;
use crate::notify::{self, Form};

/// How a duration is written, or a reference to the environment.
const DURATION: &str = r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d|w)\s*)+$|\$\{|^0$";
/// Stands where a secret is.
const SECRET: &str = "<secret>";

// === schema ===

/// JSON Schema of the file, for editors. Receivers are open; [`schema_for`] closes them.
pub fn schema() -> Value {
    schema_for(&[])
}

/// JSON Schema of the file with these kinds of receivers.
pub fn schema_for(kinds: &[&notify::Kind]) -> Value {
    let mut schema = section(ROOT, kinds);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".to_owned(), "bellwether.yaml".into());
        map.insert("oneOf".to_owned(), json!([{ "required": ["kafka"] }, { "required": ["files"] }]));
    }
    schema
}

fn section(keys: &[Key], kinds: &[&notify::Kind]) -> Value {
    let mut properties = Map::new();
    for key in served(keys) {
        let mut schema = of(&key.shape, kinds);
        if let Value::Object(map) = &mut schema {
            map.insert("description".to_owned(), key.about.into());
            if let Some(default) = key.default {
                map.insert("default".to_owned(), default.into());
            }
        }
        properties.insert(key.name.to_owned(), schema);
    }
    let required: Vec<_> = keys.iter().filter(|k| k.required).map(|k| k.name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn served(keys: &[Key]) -> impl Iterator<Item = &Key> {
    keys.iter().filter(|key| !matches!(key.shape, Shape::Later))
}

fn of(shape: &Shape, kinds: &[&notify::Kind]) -> Value {
    match shape {
        Shape::Text(_) | Shape::Path | Shape::Hours(_) => json!({ "type": "string", "minLength": 1 }),
        Shape::Word { known, .. } => json!({ "anyOf": [{ "enum": known }, from_env()] }),
        Shape::Bool => json!({ "anyOf": [{ "type": "boolean" }, { "enum": ["true", "false"] }, from_env()] }),
        Shape::Number => json!({ "anyOf": [{ "type": "number", "exclusiveMinimum": 0 }, { "type": "string" }] }),
        Shape::Level => json!({ "anyOf": [{ "enum": [1, 2, 3, "1", "2", "3"] }, from_env()] }),
        Shape::Duration { .. } => json!({ "anyOf": [{ "type": "string", "pattern": DURATION }, { "const": 0 }] }),
        Shape::Tolerance => json!({ "anyOf": [{ "type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1 }, { "type": "string" }] }),
        Shape::Amount => json!({ "anyOf": [{ "type": "number", "minimum": 0 }, { "type": "string" }] }),
        Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Shape::List(shape) => json!({ "type": "array", "minItems": 1, "items": of(shape, kinds) }),
        Shape::OneOrMany(shape) => {
            let one = of(shape, kinds);
            json!({ "anyOf": [one, { "type": "array", "minItems": 1, "items": one }] })
        }
        Shape::Section(keys) => section(keys, kinds),
        Shape::Named { what: "signal", of: shape, .. } => {
            let pattern = format!("^({}|({})(:.+)?)$", Signal::PLAIN.join("|"), Signal::NAMED.join("|"));
            json!({ "type": "object", "patternProperties": { pattern: of(shape, kinds) }, "additionalProperties": false })
        }
        Shape::Named { of: shape, .. } => json!({ "type": "object", "additionalProperties": of(shape, kinds) }),
        Shape::WordOr(word, keys) => json!({ "anyOf": [of(word, kinds), section(keys, kinds)] }),
        Shape::NameOr(keys) => json!({ "anyOf": [{ "type": "string", "minLength": 1 }, section(keys, kinds)] }),
        Shape::Mapping => {
            let mut generator = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator();
            generator.subschema_for::<Mapping>().to_value()
        }
        Shape::Receiver if kinds.is_empty() => {
            json!({ "type": "object", "properties": { "type": { "type": "string" } }, "required": ["type"] })
        }
        Shape::Receiver => json!({ "anyOf": kinds.iter().map(|kind| receiver(kind)).collect::<Vec<_>>() }),
        Shape::Action => json!({ "anyOf": act::KINDS.iter().map(action).collect::<Vec<_>>() }),
        Shape::Later => json!(false),
    }
}

fn action(kind: &act::Kind) -> Value {
    // Built like a receiver, with what every action has beside its knobs.
    let mut schema = receiver(&notify::Kind { name: kind.name, about: kind.about, knobs: kind.knobs, build: |_, _, _| Err(Vec::new()) });
    let text = json!({ "type": "string", "minLength": 1 });
    schema["properties"]["targets"] =
        json!({ "anyOf": [text, { "type": "array", "minItems": 1, "items": text }], "description": "what it may touch, by name" });
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove(fallbacks::KEY);
    }
    schema["properties"]["per_hour"] =
        json!({ "type": ["integer", "string"], "description": "at most so many changes of one target within an hour; 4 if left out" });
    if let Some(required) = schema["required"].as_array_mut() {
        required.push("targets".into());
    }
    schema
}

/// JSON Schema of a file of runbooks.
pub fn runbook_schema() -> Value {
    let mut schema = section(super::runbooks::FILE, &[]);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".to_owned(), "runbooks of bellwether".into());
    }
    schema
}

fn from_env() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

fn receiver(kind: &notify::Kind) -> Value {
    let mut properties = Map::from_iter([("type".to_owned(), json!({ "const": kind.name, "description": kind.about }))]);
    properties.insert(fallbacks::KEY.to_owned(), json!({ "type": "string", "minLength": 1, "description": fallbacks::ABOUT }));
    let mut required: Vec<Value> = vec!["type".into()];
    let mut either = Vec::new();
    for knob in kind.knobs {
        let shape = match knob.form {
            Form::Text | Form::Secret | Form::Url => json!({ "type": "string", "minLength": 1, "description": knob.about }),
            Form::Duration => json!({ "type": "string", "pattern": DURATION, "description": knob.about }),
            Form::Bool => json!({ "type": ["boolean", "string"], "description": knob.about }),
            Form::Map => json!({ "type": "object", "additionalProperties": { "type": "string" }, "description": knob.about }),
        };
        properties.insert(knob.name.to_owned(), shape);
        let file = format!("{}_file", knob.name);
        if knob.form == Form::Secret {
            properties.insert(file.clone(), json!({ "type": "string", "minLength": 1, "description": format!("a file that holds {}", knob.name) }));
        }
        match (knob.required, knob.form) {
            (true, Form::Secret) => either.push(json!({ "oneOf": [{ "required": [knob.name] }, { "required": [file] }] })),
            (true, Form::Text | Form::Url | Form::Duration | Form::Bool | Form::Map) => required.push(knob.name.into()),
            (false, _) => {}
        }
    }
    let mut schema = json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    if let (Value::Object(map), false) = (&mut schema, either.is_empty()) {
        map.insert("allOf".to_owned(), Value::Array(either));
    }
    schema
}

// === sample ===

/// A file that shows every key. What is commented out with one `#` may be put in force by taking it away.
pub fn sample() -> String {
    let mut out = String::from(
        "## Bellwether's configuration. Lines with ## explain; a line with # is a setting with its default or an example.\n\
         ## Durations: 90s, 5m, 1h30m, 7d. Ratios: 0.5% or 0.005. Factors: 1.5x. ${VAR}, ${VAR:-default} and ${VAR:?message} are\n\
         ## filled in from the environment, and $$ is a dollar. A variable such as BELLWETHER__KAFKA__GROUP overrides a key.\n\
         ## A secret x of a receiver may be given as x_file: a path that is read when it is used.\n",
    );
    show(&mut out, ROOT, "", false);
    out
}

/// `is_off`: the section above is commented out, and so is all of it.
fn show(out: &mut String, keys: &[Key], indent: &str, is_off: bool) {
    for key in served(keys) {
        if indent.is_empty() {
            out.push('\n');
        }
        let about = key.about.replace('\n', " ");
        let _ = if is_off { writeln!(out, "# {indent}## {about}") } else { writeln!(out, "{indent}## {about}") };
        let mut line = |is_active: bool, text: &str| {
            let _ = match (is_active, is_off) {
                (true, false) => writeln!(out, "{indent}{text}"),
                (false, false) => writeln!(out, "{indent}# {text}"),
                (_, true) => writeln!(out, "# {indent}{text}"),
            };
        };
        match &key.shape {
            Shape::Section(below) => {
                let is_active = below.iter().any(|k| k.active);
                line(is_active, &format!("{}:", key.name));
                show(out, below, &format!("{indent}  "), is_off || !is_active);
            }
            _ => match key.sample.strip_prefix('\n') {
                Some(block) => {
                    line(key.active, &format!("{}:", key.name));
                    for text in block.lines() {
                        line(key.active, text.get(indent.len()..).unwrap_or(text));
                    }
                }
                None if key.sample.is_empty() => line(false, &format!("{}: {}", key.name, key.default.unwrap_or_default())),
                None => line(key.active, &format!("{}: {}", key.name, key.sample)),
            },
        }
    }
}

// === in force ===

/// The settings in force as a file would say them, without secrets.
pub fn redacted(settings: &Settings) -> String {
    let mut out = String::new();
    let text = |t: &str| Value::from(t).to_string();
    let list = |all: &[String]| format!("[{}]", all.iter().map(|t| text(t)).collect::<Vec<_>>().join(", "));
    let mut put = |line: String| {
        out.push_str(&line);
        out.push('\n');
    };
    if let Some(kafka) = &settings.kafka {
        put("kafka:".to_owned());
        put(format!("  brokers: {}", list(&kafka.brokers)));
        put("  topics:".to_owned());
        for topic in &kafka.topics {
            let mut line = format!("    - {{name: {}, format: {}", text(&topic.name), topic.format);
            if let Some(mapping) = &topic.mapping {
                let _ = write!(line, ", mapping: {}", serde_json::to_string(mapping).unwrap_or_default());
            }
            if let Some(kind) = &topic.kind {
                let _ = write!(line, ", kind: {kind}");
            }
            put(format!("{line}}}"));
        }
        put(format!("  group: {}", text(&kafka.group)));
        put(format!("  from: {}", shown_duration(kafka.from_ms)));
        if !kafka.properties.is_empty() {
            put("  properties:".to_owned());
            for (name, value) in &kafka.properties {
                put(format!("    {}: {}", text(name), if is_secret_property(name) { text(SECRET) } else { text(value) }));
            }
        }
    }
    if !settings.files.is_empty() {
        put(format!("files: {}", list(&settings.files)));
    }
    if !settings.segments.is_empty() {
        put(format!("segments: {}", list(&settings.segments)));
    }
    put(format!("pane: {}", shown_duration(settings.pane_ms)));
    put(format!("lateness: {}", shown_duration(settings.lateness_ms)));
    put(format!("budget: {{false_pages: {}}}", settings.budget_false_pages));
    if !settings.signals.is_empty() {
        put("signals:".to_owned());
        for (name, signal) in &settings.signals {
            let parts = [
                signal.tolerance.map(|t| format!("tolerance: {}x", trimmed(1.0 + t))),
                signal.at_least.map(|v| format!("at_least: {v}")),
                signal.never_above.map(|v| format!("never_above: {v}")),
            ];
            put(format!("  {}: {{{}}}", text(name), parts.into_iter().flatten().collect::<Vec<_>>().join(", ")));
        }
    }
    if !settings.models.is_empty() {
        put("models:".to_owned());
        for (name, model) in &settings.models {
            let mut parts = Vec::new();
            parts.extend(model.owner.as_ref().map(|o| format!("owner: {}", text(o))));
            if !model.exposure.is_empty() {
                parts.push(format!("exposure: {}", list(&model.exposure)));
            }
            if !model.intended_use.is_empty() {
                let uses: Vec<_> = model.intended_use.iter().map(|(k, v)| format!("{}: {}", text(k), list(v))).collect();
                parts.push(format!("intended_use: {{{}}}", uses.join(", ")));
            }
            if !model.protected.is_empty() {
                parts.push(format!("protected: {}", list(&model.protected)));
                parts.push(format!("favourable: {}", list(&model.favourable)));
            }
            parts.extend(model.silence_after_ms.map(|ms| format!("silence_after: {}", shown_duration(ms))));
            parts.extend(model.reference.as_ref().map(|f| format!("reference: {}", text(&f.display().to_string()))));
            if !model.canaries.is_empty() {
                // A page that shows a planted string would set it off.
                parts.push(format!("canaries: {{list: {}}}", list(&vec![SECRET.to_owned(); model.canaries.len()])));
            }
            put(format!("  {}: {{{}}}", text(name), parts.join(", ")));
        }
    }
    put(format!("baseline: {{learn: {}}}", shown_duration(settings.learn_ms)));
    if !settings.receivers.is_empty() {
        put("receivers:".to_owned());
        for (name, receiver) in &settings.receivers {
            let mut parts = vec![format!("type: {}", receiver.kind)];
            parts.extend(receiver.fallback.as_ref().map(|name| format!("fallback: {name}")));
            parts.extend(receiver.table.iter().map(|(key, value)| match value {
                _ if receiver.secrets.contains(key) => format!("{key}: {}", text(SECRET)),
                Value::String(url) => format!("{key}: {}", text(&without_password(url))),
                // Headers carry credentials as often as not.
                Value::Object(map) => {
                    let hidden: Vec<_> = map.keys().map(|name| format!("{}: {}", text(name), text(SECRET))).collect();
                    format!("{key}: {{{}}}", hidden.join(", "))
                }
                value => format!("{key}: {value}"),
            }));
            put(format!("  {}: {{{}}}", text(name), parts.join(", ")));
        }
    }
    if !settings.routes.is_empty() {
        put("routes:".to_owned());
        for route in &settings.routes {
            let mut parts = Vec::new();
            if !route.severity.is_empty() {
                parts.push(format!("severity: {:?}", route.severity));
            }
            let lists = [("model", &route.model), ("owner", &route.owner), ("category", &route.category), ("environment", &route.environment)];
            parts.extend(lists.into_iter().filter(|(_, all)| !all.is_empty()).map(|(name, all)| format!("{name}: {}", list(all))));
            if !route.segment.is_empty() {
                let all: Vec<_> = route.segment.iter().map(|(k, v)| format!("{}: {}", text(k), text(v))).collect();
                parts.push(format!("segment: {{{}}}", all.join(", ")));
            }
            parts.push(format!("to: {}", list(&route.to)));
            put(format!("  - {{{}}}", parts.join(", ")));
        }
    }
    if let Some(url) = &settings.heartbeat_url {
        put(format!("heartbeat: {{url: {}}}", text(&host_only(url))));
    }
    if !settings.runbook_paths.is_empty() {
        put(format!("runbooks: {}", list(&settings.runbook_paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>())));
    }
    if !settings.actions.is_empty() {
        put("actions:".to_owned());
        for (name, action) in &settings.actions {
            let mut parts = vec![format!("type: {}", action.kind)];
            parts.extend(action.table.iter().map(|(key, value)| match value {
                _ if action.secrets.contains(key) => format!("{key}: {}", text(SECRET)),
                Value::String(url) => format!("{key}: {}", text(&without_password(url))),
                value => format!("{key}: {value}"),
            }));
            parts.push(format!("targets: {}", list(&action.targets)));
            parts.extend(action.per_hour.map(|n| format!("per_hour: {n}")));
            put(format!("  {}: {{{}}}", text(name), parts.join(", ")));
        }
    }
    if settings.two_people {
        put("approval: {two_people: true}".to_owned());
    }
    if !settings.people.is_empty() {
        let groups: Vec<_> = settings.people.iter().map(|(group, names)| format!("{group}: {}", list(names))).collect();
        put(format!("people: {{{}}}", groups.join(", ")));
    }
    if !settings.escalation.is_empty() || !settings.clocks.is_empty() {
        put("escalation:".to_owned());
        if !settings.escalation.is_empty() {
            put("  levels:".to_owned());
        }
        for level in &settings.escalation {
            let severity = if level.severity.is_empty() { String::new() } else { format!("severity: {:?}, ", level.severity) };
            put(format!("    - {{after: {}, {severity}to: {}}}", shown_duration(level.after_ms), list(&level.to)));
        }
        if !settings.clocks.is_empty() {
            let clock = |c: &crate::respond::LegalClock| {
                if super::people::CLOCK_NAMES.contains(&c.name.as_str()) {
                    return text(&c.name);
                }
                let categories: Vec<&str> = c.categories.iter().map(|c| c.as_str()).collect();
                let (name, words, checked) = (text(&c.name), text(&c.words), text(&c.checked_on));
                let after = shown_duration(c.after_ms);
                format!("{{name: {name}, words: {words}, after: {after}, category: [{}], checked_on: {checked}}}", categories.join(", "))
            };
            put(format!("  clocks: [{}]", settings.clocks.iter().map(clock).collect::<Vec<_>>().join(", ")));
        }
    }
    if !settings.maintenance.is_empty() {
        put("maintenance:".to_owned());
        settings.maintenance.iter().for_each(|window| put(format!("  - {}", window.shown())));
    }
    if !settings.tokens.is_empty() {
        put("tokens:".to_owned());
        for token in &settings.tokens {
            // A digest is no secret, but nobody needs it either.
            put(format!("  - {{name: {}, role: {}, sha256: {}}}", text(&token.name), token.role, text(&token.sha256)));
        }
    }
    put(format!("listen: {}", text(&settings.listen)));
    put(format!("instance: {}", text(&settings.instance)));
    put(format!("external_url: {}", text(&settings.external_url)));
    put(format!("currency: {}", settings.currency));
    put(format!("data_dir: {}", text(&settings.data_dir.display().to_string())));
    if !settings.redaction_allow.is_empty() {
        put(format!("redaction: {{allow: {}}}", list(&settings.redaction_allow)));
    }
    let mut dead = vec![format!("topic: {}", settings.dead_letter_topic)];
    dead.extend(settings.dead_letter_file.as_ref().map(|file| format!("file: {}", text(&file.display().to_string()))));
    put(format!("dead_letters: {{{}}}", dead.join(", ")));
    out
}

fn is_secret_property(name: &str) -> bool {
    let is_path = name.ends_with(".location");
    let words = ["password", "secret", "token", "jaas", "credential", ".key", ".pem", "oauthbearer.config"];
    !is_path && words.iter().any(|word| name.contains(word))
}

/// A URL without user, password and query, any of which may hold a credential; other text as it is.
fn without_password(text: &str) -> String {
    match reqwest::Url::parse(text) {
        Ok(mut url) if !url.username().is_empty() || url.password().is_some() || url.query().is_some() => {
            let has_user = !url.username().is_empty() || url.password().is_some();
            let _ = (url.set_username(""), url.set_password(None));
            let has_query = url.query().is_some();
            url.set_query(None);
            let shown = if has_user { url.to_string().replacen("://", &format!("://{SECRET}@"), 1) } else { url.to_string() };
            if has_query { format!("{shown}?{SECRET}") } else { shown }
        }
        _ => text.to_owned(),
    }
}

/// The path of a heartbeat is its credential.
fn host_only(text: &str) -> String {
    match reqwest::Url::parse(text) {
        Ok(url) => format!("{}/{SECRET}", url.origin().ascii_serialization()),
        Err(_) => SECRET.to_owned(),
    }
}
