//! From a checked tree to [`Settings`], and what can only be said of several keys together.
//!
//! Values that were complained about are read as absent here, so that one fault is not listed twice.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::check::{Checker, beside, join, mapping_of};
use super::form;
use super::node::{Data, Node, Place, quoted};
use super::table::{RECEIVERS_LATER, ROOT};
use super::{Kafka, ModelSettings, ReceiverSettings, Route, Settings, SignalSettings, Topic};
use crate::domain::Signal;
use crate::notify::{self, Form};

/// Shorter planted strings would be found by chance.
const CANARY_CHARS_MIN: usize = 8;
/// Signals whose value is a share of events, from 0 to 1.
const RATIOS: &[&str] = &["error_rate", "timeout_rate", "empty_rate", "complaint_rate", "missing", "unseen", "flag", "schema", "out_of_scope"];
const LATENCIES: &[&str] = &["latency", "first_token_latency", "silence"];

pub fn settings(checker: &mut Checker<'_>, root: &Node) -> Settings {
    let text = |name: &str| root.get(name).and_then(Node::as_text).map(str::to_owned);
    let ms = |name: &str, default: i64| root.get(name).and_then(|n| form::duration(n).ok()).unwrap_or(default);
    let listen = text("listen").unwrap_or_else(|| "127.0.0.1:9710".to_owned());
    let instance = text("instance").unwrap_or_else(|| "default".to_owned());
    let external_url = text("external_url").unwrap_or_else(|| format!("http://{listen}")).trim_end_matches('/').to_owned();
    let common = notify::Common { instance: instance.clone(), external_url: external_url.clone(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let state_directory = (checker.env)("STATE_DIRECTORY").and_then(|dirs| dirs.split(':').next().map(str::to_owned)).filter(|dir| !dir.is_empty());
    let data_dir = text("data_dir").or(state_directory).unwrap_or_else(|| "./bellwether-data".to_owned());

    let pane_ms = ms("pane", 10_000);
    let lateness_ms = ms("lateness", 30_000);
    let segments = texts(root.get("segments"));
    repeated(checker, root.get("segments"), "segments");
    let receivers = receivers(checker, root, &common);
    let actions = super::people::actions(checker, root, &common);
    let runbooks = super::runbooks::load(checker, root, &actions);
    let people = super::people::people(checker, root, &receivers);
    let escalation = super::people::escalation(checker, root, &receivers, &people);
    super::fallbacks::check(checker, root, &receivers);
    let stand_ins = receivers.values().filter_map(|r| r.fallback.as_ref());
    let others: Vec<String> = people.values().flatten().chain(escalation.iter().flat_map(|l| &l.to)).chain(stand_ins).cloned().collect();
    let tokens = super::people::tokens(checker, root);
    super::people::doors(checker, root, &listen, &tokens);
    let budget = root.get("budget").and_then(|b| b.get("false_pages")).and_then(|n| form::above_zero(n).ok());
    let learn = root.get("baseline").and_then(|b| b.get("learn")).and_then(|n| form::duration(n).ok());
    let redaction = root.get("redaction");
    let dead = root.get("dead_letters");
    let settings = Settings {
        kafka: kafka(checker, root),
        files: texts(root.get("files")),
        pane_ms,
        lateness_ms,
        budget_false_pages: budget.unwrap_or(2.0),
        signals: signals(checker, root),
        models: models(checker, root, &segments),
        learn_ms: learn.unwrap_or(86_400_000),
        routes: routes(checker, root, &receivers, &segments, &others),
        segments,
        receivers,
        heartbeat_url: root.get("heartbeat").and_then(|h| h.get("url")).and_then(Node::as_text).map(str::to_owned),
        runbook_paths: texts(root.get("runbooks")).iter().map(|p| beside(checker.file, p)).collect(),
        runbooks,
        actions,
        people,
        escalation,
        clocks: super::people::clocks(checker, root),
        maintenance: super::windows::windows(checker, root),
        two_people: root.get("approval").and_then(|a| a.get("two_people")).and_then(|n| form::boolean(n).ok()).unwrap_or(false),
        tokens,
        listen,
        instance,
        external_url,
        currency: text("currency").unwrap_or_else(|| "USD".to_owned()),
        data_dir: PathBuf::from(data_dir),
        redaction_allow: texts(redaction.and_then(|r| r.get("allow"))),
        dead_letter_topic: dead.and_then(|d| d.get("topic")).and_then(|n| form::boolean(n).ok()).unwrap_or(false),
        dead_letter_file: dead.and_then(|d| d.get("file")).and_then(Node::as_text).map(PathBuf::from),
    };
    sources(checker, root, &settings);
    settings
}

/// The texts of a list or of one value; what is no text was complained about.
fn texts(node: Option<&Node>) -> Vec<String> {
    node.map(Node::items).unwrap_or_default().iter().filter_map(Node::as_text).map(str::to_owned).collect()
}

fn repeated(checker: &mut Checker<'_>, node: Option<&Node>, path: &str) {
    let items = node.map(Node::items).unwrap_or_default();
    for (i, item) in items.iter().enumerate() {
        if let Some(text) = item.as_text().filter(|text| items[..i].iter().any(|other| other.as_text() == Some(text))) {
            checker.complain(&item.at, &join(path, &i.to_string()), item.found(), format!("{} is named twice; keep one", quoted(text)), None);
        }
    }
}

// === where events come from ===

fn sources(checker: &mut Checker<'_>, root: &Node, settings: &Settings) {
    let start = Place { line: 1, column: 1, variable: None };
    match (root.entry("kafka"), root.entry("files")) {
        (None, None) => {
            let unknown = root.entries().iter().filter(|e| ROOT.iter().all(|k| k.name != e.name));
            // A misspelt section is one fault, not two.
            if !unknown.into_iter().any(|e| form::nearest(&e.name, ["kafka", "files"]).is_some()) {
                let message = "neither \"kafka\" nor \"files\" is given; say where events come from, as in kafka: {brokers: [\"localhost:9092\"], topics: [model-events]}";
                checker.complain(&start, "kafka", String::new(), message, None);
            }
        }
        (Some(_), Some(files)) => {
            checker.complain(&files.key_at, "files", "files".to_owned(), "both \"kafka\" and \"files\" are given; keep one", None);
        }
        (Some(_), None) | (None, Some(_)) => {}
    }
    repeated(checker, root.get("files"), "files");
    let dead = root.get("dead_letters").and_then(|d| d.entry("topic"));
    if let Some(entry) = dead.filter(|_| settings.dead_letter_topic && root.get("kafka").is_none() && root.get("files").is_some()) {
        checker.complain(&entry.value.at, "dead_letters.topic", entry.value.found(), "there is no topic without kafka; use dead_letters.file", None);
    }
}

fn kafka(checker: &mut Checker<'_>, root: &Node) -> Option<Kafka> {
    let node = root.get("kafka").filter(|n| matches!(n.data, Data::Table(_)))?;
    let mut topics: Vec<Topic> = Vec::new();
    for (i, item) in node.get("topics").map(Node::items).unwrap_or_default().iter().enumerate() {
        let named = if item.as_text().is_some() { Some(item) } else { item.get("name") };
        let Some(name) = named.and_then(Node::as_text) else { continue };
        if topics.iter().any(|t| t.name == name) {
            let at = named.map(|n| n.at.clone()).unwrap_or_default();
            let key = join("kafka.topics", &i.to_string());
            checker.complain(&at, &key, name.to_owned(), format!("topic {} is named twice; keep one", quoted(name)), None);
        }
        let mapping = item.get("mapping").map(mapping_of);
        let format = item.get("format").and_then(Node::as_text).unwrap_or(if mapping.is_some() { "json" } else { "canonical" });
        let kind = item.get("kind").and_then(Node::as_text).map(str::to_owned);
        topics.push(Topic { name: name.to_owned(), format: format.to_owned(), mapping, kind });
    }
    let properties = node.get("properties").map(Node::entries).unwrap_or_default().iter().filter_map(|e| Some((e.name.clone(), scalar(&e.value)?)));
    Some(Kafka {
        brokers: texts(node.get("brokers")),
        topics,
        group: node.get("group").and_then(Node::as_text).unwrap_or("bellwether").to_owned(),
        from_ms: node.get("from").and_then(|n| form::duration(n).ok()).unwrap_or(7 * 86_400_000),
        properties: properties.collect(),
    })
}

pub fn scalar(node: &Node) -> Option<String> {
    match &node.data {
        Data::Text(text) => Some(text.clone()),
        Data::Bool(b) => Some(b.to_string()),
        Data::Int(n) => Some(n.to_string()),
        Data::Float(n) => Some(n.to_string()),
        Data::Null | Data::List(_) | Data::Table(_) | Data::Broken => None,
    }
}

// === what is watched ===

fn signals(checker: &mut Checker<'_>, root: &Node) -> BTreeMap<String, SignalSettings> {
    let mut all = BTreeMap::new();
    for entry in root.get("signals").map(Node::entries).unwrap_or_default() {
        let path = join("signals", &entry.name);
        let family = entry.name.parse::<Signal>().map_or(entry.name.as_str(), |s| s.family());
        let mut amount = |name: &str| {
            let node = entry.value.get(name)?;
            let value = form::amount(node).ok()?;
            let key = join(&path, name);
            if form::is_duration(node) && !LATENCIES.contains(&family) {
                let message = format!("{} is a duration, but {family} is none", node.shown());
                checker.complain(&node.at, &key, node.found(), message, None);
                return None;
            }
            if RATIOS.contains(&family) && value > 1.0 {
                let hint = (value <= 100.0).then(|| format!("{value}%"));
                checker.complain(&node.at, &key, node.found(), format!("{} is above 1, but {family} is a ratio", node.shown()), hint);
                return None;
            }
            Some(value)
        };
        let (at_least, never_above) = (amount("at_least"), amount("never_above"));
        if let (Some(low), Some(high), Some(node)) = (at_least, never_above, entry.value.get("never_above"))
            && low > high
        {
            let message = format!("never_above {high} is below at_least {low}; make it the larger one");
            checker.complain(&node.at, &join(&path, "never_above"), node.found(), message, None);
        }
        let tolerance = entry.value.get("tolerance").and_then(|n| form::tolerance(n).ok());
        all.insert(entry.name.clone(), SignalSettings { tolerance, at_least, never_above });
    }
    all
}

/// Labels that mean that somebody got what he asked for, where the configuration does not say.
const FAVOURABLE: &[&str] = &["true", "yes", "1", "approve", "approved", "accept", "accepted", "grant", "granted", "positive", "pass", "hire"];

fn models(checker: &mut Checker<'_>, root: &Node, segments: &[String]) -> BTreeMap<String, ModelSettings> {
    let mut all = BTreeMap::new();
    for entry in root.get("models").map(Node::entries).unwrap_or_default() {
        let path = join("models", &entry.name);
        let model = &entry.value;
        let mut intended_use = BTreeMap::new();
        for use_ in model.get("intended_use").map(Node::entries).unwrap_or_default() {
            known_segment(checker, segments, &use_.name, &use_.key_at, &join(&path, "intended_use"));
            intended_use.insert(use_.name.clone(), texts(Some(&use_.value)));
        }
        let settings = ModelSettings {
            owner: model.get("owner").and_then(Node::as_text).map(str::to_owned),
            exposure: texts(model.get("exposure")),
            intended_use,
            protected: texts(model.get("protected")),
            favourable: model.get("favourable").map_or_else(|| FAVOURABLE.iter().map(|w| (*w).to_owned()).collect(), |n| texts(Some(n))),
            silence_after_ms: model.get("silence_after").and_then(|n| form::duration(n).ok()),
            reference: reference(checker, model, &path),
            canaries: model.entry("canaries").map(|e| canaries(checker, &e.value, &e.key_at, &join(&path, "canaries"))).unwrap_or_default(),
        };
        all.insert(entry.name.clone(), settings);
    }
    all
}

/// A file that is not there yet is no fault of the configuration: the daemon says so, and watches.
fn reference(checker: &mut Checker<'_>, model: &Node, path: &str) -> Option<PathBuf> {
    let (plain, section) = (model.entry("reference"), model.get("baseline").and_then(|b| b.entry("reference")));
    if let (Some(_), Some(second)) = (plain, section) {
        let message = "the reference is given twice; keep one";
        checker.complain(&second.key_at, &join(path, "baseline.reference"), "reference".to_owned(), message, None);
    }
    let name = form::text(&plain.or(section)?.value).ok()?;
    Some(beside(checker.file, name))
}

fn canaries(checker: &mut Checker<'_>, node: &Node, key_at: &Place, path: &str) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(file) = node.get("file")
        && let Ok(name) = form::text(file)
    {
        let key = join(path, "file");
        match std::fs::read_to_string(beside(checker.file, name)) {
            Err(error) => checker.complain(&file.at, &key, file.found(), format!("cannot read {}: {error}", file.shown()), None),
            Ok(text) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                all.extend(lines.map(str::to_owned));
                if all.is_empty() {
                    checker.complain(&file.at, &key, file.found(), format!("{} is empty; expected a planted string a line", file.shown()), None);
                }
            }
        }
    }
    all.extend(texts(node.get("list")));
    if matches!(&node.data, Data::Table(entries) if entries.is_empty()) {
        checker.complain(key_at, path, String::new(), "empty; give file or list", None);
    }
    // The strings themselves are not quoted: a log that shows them would set them off.
    let short = all.iter().filter(|c| c.chars().count() < CANARY_CHARS_MIN).count();
    if short > 0 {
        checker.warn(
            key_at,
            path,
            format!("{short} of {} planted strings are shorter than {CANARY_CHARS_MIN} characters and may be found by chance", all.len()),
        );
    }
    all.sort();
    all.dedup();
    all
}

fn known_segment(checker: &mut Checker<'_>, segments: &[String], name: &str, at: &Place, path: &str) {
    if segments.iter().any(|s| s == name) {
        return;
    }
    let hint = form::nearest(name, segments.iter().map(String::as_str)).map(str::to_owned);
    let known = if segments.is_empty() { "none are named".to_owned() } else { format!("known: {}", segments.join(", ")) };
    let key = join(path, name);
    match hint {
        // Close to a known one: a misspelling. Anything else may be meant for later.
        Some(hint) => checker.complain(at, &key, name.to_owned(), format!("{} is not among segments ({known})", quoted(name)), Some(hint)),
        None => checker.warn(at, &key, format!("{} is not among segments ({known}), so this never applies", quoted(name))),
    }
}

// === who is told ===

fn receivers(checker: &mut Checker<'_>, root: &Node, common: &notify::Common) -> BTreeMap<String, ReceiverSettings> {
    let mut all = BTreeMap::new();
    let entries = root.get("receivers").map(Node::entries).unwrap_or_default();
    for entry in entries {
        let path = join("receivers", &entry.name);
        let Some(kind) = entry.value.get("type").and_then(Node::as_text).and_then(|t| checker.kinds.iter().copied().find(|k| k.name == t)) else {
            // Named, so that routes that lead to it are not complained about as well.
            all.insert(entry.name.clone(), nobody(&entry.key_at));
            continue;
        };
        let mut table = notify::Table::new();
        for member in entry.value.entries().iter().filter(|e| e.name != "type" && e.name != super::fallbacks::KEY) {
            let knob = kind.knobs.iter().find(|k| k.name == member.name);
            let json = match knob.map(|k| k.form) {
                Some(Form::Bool) => form::boolean(&member.value).map_or_else(|_| member.value.to_json(), Into::into),
                // A secret's file; beside the configuration, like the others.
                None => member.value.as_text().map(|t| beside(checker.file, t).display().to_string().into()).unwrap_or_default(),
                Some(Form::Text | Form::Secret | Form::Url | Form::Duration | Form::Map) => member.value.to_json(),
            };
            table.insert(member.name.clone(), json);
        }
        let is_faulty = checker.problems.iter().any(|p| p.key == path || p.key.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.')));
        let mut publishes = false;
        let built = (!is_faulty).then(|| (kind.build)(&entry.name, common, &table));
        match built {
            None => {}
            Some(Ok(built)) => publishes = matches!(built, notify::Receiver::State(_)),
            Some(Err(faults)) => {
                for (key, message) in faults {
                    let member = entry.value.entry(&key).or_else(|| entry.value.entry(&format!("{key}_file")));
                    let is_secret = kind.knobs.iter().any(|k| k.name == key && k.form == Form::Secret);
                    let found = member.filter(|_| !is_secret).map(|m| m.value.found()).unwrap_or_default();
                    let at = member.map_or(&entry.key_at, |m| &m.value.at);
                    let key = if key.is_empty() { path.clone() } else { join(&path, &key) };
                    checker.complain(at, &key, found, message, None);
                }
            }
        }
        let secrets = kind.knobs.iter().filter(|k| k.form == Form::Secret).map(|k| k.name.to_owned()).collect();
        let (line, column) = (entry.key_at.line, entry.key_at.column);
        let fallback = entry.value.get(super::fallbacks::KEY).and_then(Node::as_text).map(str::to_owned);
        all.insert(entry.name.clone(), ReceiverSettings { kind: kind.name.to_owned(), table, secrets, fallback, publishes, line, column });
    }
    if entries.is_empty() {
        let at = root.entry("receivers").map_or(Place { line: 1, column: 1, variable: None }, |e| e.key_at.clone());
        let is_broken = root.get("receivers").is_some_and(|n| !matches!(n.data, Data::Table(_)));
        if !is_broken {
            checker.warn(&at, "receivers", "there are none, so nobody is told; incidents are only shown");
        }
    }
    all
}

fn nobody(at: &Place) -> ReceiverSettings {
    let (kind, table, secrets, fallback) = Default::default();
    ReceiverSettings { kind, table, secrets, fallback, publishes: false, line: at.line, column: at.column }
}

/// `others` are receivers that are told by other ways than routes.
fn routes(
    checker: &mut Checker<'_>,
    root: &Node,
    receivers: &BTreeMap<String, ReceiverSettings>,
    segments: &[String],
    others: &[String],
) -> Vec<Route> {
    let names = || receivers.keys().map(String::as_str);
    let Some(node) = root.entry("routes") else {
        // Leadership does not hear of every ticket, unless there is nobody else.
        let mut to: Vec<String> = receivers.keys().filter(|n| !others.contains(n)).cloned().collect();
        if to.is_empty() {
            to = receivers.keys().cloned().collect();
        }
        return if to.is_empty() { Vec::new() } else { vec![Route { to, ..Route::default() }] };
    };
    let items = match &node.value.data {
        Data::List(items) => items.as_slice(),
        _ => &[],
    };
    let mut routes = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let path = join("routes", &i.to_string());
        let to = item.get("to");
        for (j, name) in to.map(Node::items).unwrap_or_default().iter().enumerate() {
            let Some(text) = name.as_text().filter(|t| !t.trim().is_empty() && !receivers.contains_key(*t)) else { continue };
            let key = if matches!(to.map(|t| &t.data), Some(Data::List(_))) { join(&path, &format!("to.{j}")) } else { join(&path, "to") };
            let known = if receivers.is_empty() { "there are none".to_owned() } else { format!("known: {}", names().collect::<Vec<_>>().join(", ")) };
            let hint = form::nearest(text, names()).map(str::to_owned);
            checker.complain(&name.at, &key, name.found(), format!("unknown receiver {} ({known})", quoted(text)), hint);
        }
        let mut segment = Vec::new();
        for entry in item.get("segment").map(Node::entries).unwrap_or_default() {
            known_segment(checker, segments, &entry.name, &entry.key_at, &join(&path, "segment"));
            segment.extend(entry.value.as_text().map(|value| (entry.name.clone(), value.to_owned())));
        }
        let severity = item.get("severity").map(Node::items).unwrap_or_default().iter().filter_map(|n| form::level(n).ok()).collect();
        let list = |name: &str| texts(item.get(name));
        let route = Route {
            severity,
            model: list("model"),
            owner: list("owner"),
            category: list("category"),
            environment: list("environment"),
            segment,
            to: list("to"),
        };
        let has_condition = item.entries().iter().any(|e| e.name != "to");
        if !has_condition && i + 1 < items.len() && matches!(item.data, Data::Table(_)) {
            checker.warn(&item.at, &path, "it has no condition, so the routes after it are never reached");
        }
        if has_condition && i + 1 == items.len() {
            checker.warn(
                &item.at,
                &path,
                "the last route has a condition, so whatever matches no route is told to nobody; add {to: [...]} behind it",
            );
        }
        routes.push(route);
    }
    let problems_before = checker.problems.len();
    for (name, receiver) in receivers.iter().filter(|(name, _)| !others.contains(name) && routes.iter().all(|r: &Route| !r.to.contains(name))) {
        if problems_before == 0 && !RECEIVERS_LATER.contains(&receiver.kind.as_str()) {
            let at = Place { line: receiver.line, column: receiver.column, variable: None };
            checker.warn(&at, &join("receivers", name), "no route leads to it");
        }
    }
    routes
}
