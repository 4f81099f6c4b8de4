//! Who may act, who is told, and by what: actions, people, escalation, tokens.

use std::collections::BTreeMap;

use super::check::{Checker, beside, join};
use super::form::{self};
use super::node::{Data, Node, Place, quoted};
use super::{ActionSettings, ReceiverSettings, Token};
use crate::act;
use crate::domain::Category;
use crate::domain::Role;
use crate::domain::time::HOUR_MS;
use crate::notify::{self, Form};
use crate::respond::{LegalClock, Level};

/// Keys of an action beside those of its type.
const COMMON: &[&str] = &["type", "targets", "per_hour"];

/// Duties to report, by name. The law changes: each says when it was looked up, and none is advice. Off unless named.
pub static CLOCKS: &[(&str, &str, i64, &[Category], &str)] = &[
    ("gdpr_72h", "personal data breach to the supervisory authority within 72 hours (GDPR art. 33)", 72, &[Category::DataBreach], "2026-09-01"),
    (
        "ai_act_15d",
        "serious incident of a high-risk system to the market surveillance authority within 15 days (Regulation (EU) 2024/1689 art. 73)",
        15 * 24,
        &[Category::HarmfulOutput, Category::Bias, Category::DataBreach, Category::OutOfScopeUse],
        "2026-09-01",
    ),
    (
        "ai_act_2d",
        "widespread infringement or serious disruption of critical infrastructure within 2 days (Regulation (EU) 2024/1689 art. 73)",
        48,
        &[Category::HarmfulOutput, Category::ModelFailure],
        "2026-09-01",
    ),
    (
        "nis2_24h",
        "early warning of a significant incident to the CSIRT within 24 hours (NIS2 art. 23)",
        24,
        &[Category::DataBreach, Category::ModelFailure],
        "2026-09-01",
    ),
    (
        "dora_4h",
        "initial notification of a major ICT incident within 4 hours of its classification (DORA art. 19)",
        4,
        &[Category::DataBreach, Category::ModelFailure],
        "2026-09-01",
    ),
];

pub const CLOCK_NAMES: &[&str] = &["gdpr_72h", "ai_act_15d", "ai_act_2d", "nis2_24h", "dora_4h"];

// === actions ===

/// One action of the file, in its place.
pub fn check_action(checker: &mut Checker<'_>, node: &Node, path: &str, owner_at: &Place) {
    if !matches!(node.data, Data::Table(_)) {
        let message = format!("expected a table such as {{type: flagd, file: flags.json, targets: [mode]}}, found {}", node.shown());
        return checker.complain(&node.at, path, String::new(), message, None);
    }
    let known = || act::KINDS.iter().map(|k| k.name);
    let listed = || known().collect::<Vec<_>>().join(", ");
    let type_path = join(path, "type");
    let Some(named) = node.get("type") else {
        return checker.complain(owner_at, &type_path, String::new(), format!("missing; the kind of action (known: {})", listed()), None);
    };
    let Some(text) = named.as_text() else {
        return checker.complain(&named.at, &type_path, named.found(), format!("expected text, found {}", named.shown()), None);
    };
    let Some(kind) = act::KINDS.iter().find(|k| k.name == text) else {
        let hint = form::nearest(text, known()).map(str::to_owned);
        let message = if text == "kubernetes" {
            "type \"kubernetes\" needs a build with the feature of that name (cargo build --features kubernetes)".to_owned()
        } else {
            format!("unknown type {} (known: {})", quoted(text), listed())
        };
        return checker.complain(&named.at, &type_path, named.found(), message, hint);
    };
    for entry in node.entries() {
        let below = join(path, &entry.name);
        let knob = kind.knobs.iter().find(|k| k.name == entry.name);
        let secret = entry.name.strip_suffix("_file").and_then(|name| kind.knobs.iter().find(|k| k.name == name && k.form == Form::Secret));
        match (entry.name.as_str(), knob, secret) {
            ("type", ..) => {}
            ("targets", ..) => targets(checker, &entry.value, &below),
            ("per_hour", ..) => {
                let whole = form::number(&entry.value).is_ok_and(|n| n >= 1.0 && n.fract() == 0.0 && n <= 1_000.0);
                if !whole {
                    let message = format!("expected a whole number from 1 to 1000, found {}", entry.value.shown());
                    checker.complain(&entry.value.at, &below, entry.value.found(), message, None);
                }
            }
            (_, Some(knob), _) => checker.knob_value(&entry.value, knob.form, &below),
            (_, None, Some(knob)) if node.get(knob.name).is_some() => {
                let message = format!("both {:?} and {:?} are given; keep one", knob.name, entry.name);
                checker.complain(&entry.key_at, &below, entry.name.clone(), message, None);
            }
            (_, None, Some(_)) => checker.secret_file(&entry.value, &below),
            (_, None, None) => {
                let known: Vec<&str> = COMMON.iter().copied().chain(kind.knobs.iter().map(|k| k.name)).collect();
                let hint = form::nearest(&entry.name, known.iter().copied()).map(str::to_owned);
                let message = format!("unknown key {} for type {} (known: {})", quoted(&entry.name), kind.name, known.join(", "));
                checker.complain(&entry.key_at, &below, entry.name.clone(), message, hint);
            }
        }
    }
    let required = kind.knobs.iter().filter(|k| k.required).map(|k| (k.name, k.form)).chain([("targets", Form::Text)]);
    for (name, form) in required {
        let file = format!("{name}_file");
        let is_given = node.get(name).is_some() || (form == Form::Secret && node.get(&file).is_some());
        let is_misspelt =
            node.entries().iter().any(|e| !COMMON.contains(&e.name.as_str()) && e.name != name && form::nearest(&e.name, [name]).is_some());
        if !is_given && !is_misspelt {
            let what = if form == Form::Secret { format!("{name:?} or {file:?}") } else { format!("{name:?}") };
            checker.complain(owner_at, &join(path, name), String::new(), format!("missing; type {} needs {what}", kind.name), None);
        }
    }
}

fn targets(checker: &mut Checker<'_>, node: &Node, path: &str) {
    let items = node.items();
    if items.is_empty() {
        return checker.complain(&node.at, path, String::new(), "an empty list; name what it may touch", None);
    }
    for (i, item) in items.iter().enumerate() {
        let below = if matches!(node.data, Data::List(_)) { join(path, &i.to_string()) } else { path.to_owned() };
        match form::text(item) {
            Ok(text) if text.contains('*') => {
                let message = "a target is named in full: what is not named is not touched";
                checker.complain(&item.at, &below, item.found(), message, None);
            }
            Ok(_) => {}
            Err(fault) => checker.fault(item, &below, fault),
        }
    }
}

pub fn actions(checker: &mut Checker<'_>, root: &Node, common: &notify::Common) -> BTreeMap<String, ActionSettings> {
    let mut all = BTreeMap::new();
    for entry in root.get("actions").map(Node::entries).unwrap_or_default() {
        let path = join("actions", &entry.name);
        let Some(kind) = entry.value.get("type").and_then(Node::as_text).and_then(|t| act::KINDS.iter().find(|k| k.name == t)) else { continue };
        let mut table = notify::Table::new();
        for member in entry.value.entries().iter().filter(|e| !COMMON.contains(&e.name.as_str())) {
            let is_knob = kind.knobs.iter().any(|k| k.name == member.name);
            let is_path = !is_knob || (kind.name == "flagd" && member.name == "file");
            let json = match member.value.as_text() {
                // Files are looked for beside the configuration.
                Some(text) if is_path => beside(checker.file, text).display().to_string().into(),
                _ => member.value.to_json(),
            };
            table.insert(member.name.clone(), json);
        }
        let is_faulty = checker.problems.iter().any(|p| p.key == path || p.key.strip_prefix(&path).is_some_and(|rest| rest.starts_with('.')));
        if !is_faulty && let Err(faults) = (kind.build)(&entry.name, common, &table) {
            for (key, message) in faults {
                let member = entry.value.entry(&key).or_else(|| entry.value.entry(&format!("{key}_file")));
                let is_secret = kind.knobs.iter().any(|k| k.name == key && k.form == Form::Secret);
                let found = member.filter(|_| !is_secret).map(|m| m.value.found()).unwrap_or_default();
                checker.complain(member.map_or(&entry.key_at, |m| &m.value.at), &join(&path, &key), found, message, None);
            }
        }
        let secrets = kind.knobs.iter().filter(|k| k.form == Form::Secret).map(|k| k.name.to_owned()).collect();
        let targets = entry.value.get("targets").map(Node::items).unwrap_or_default().iter().filter_map(Node::as_text).map(str::to_owned).collect();
        let per_hour = entry.value.get("per_hour").and_then(|n| form::number(n).ok()).map(|n| n as u32);
        all.insert(entry.name.clone(), ActionSettings { kind: kind.name.to_owned(), table, secrets, targets, per_hour });
    }
    all
}

// === people ===

/// Receivers of each group.
pub fn people(checker: &mut Checker<'_>, root: &Node, receivers: &BTreeMap<String, ReceiverSettings>) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for entry in root.get("people").map(Node::entries).unwrap_or_default() {
        let names = receivers_of(checker, &entry.value, &join("people", &entry.name), receivers, &[]);
        all.insert(entry.name.clone(), names);
    }
    all
}

fn receivers_of(checker: &mut Checker<'_>, node: &Node, path: &str, receivers: &BTreeMap<String, ReceiverSettings>, groups: &[&str]) -> Vec<String> {
    let names = || receivers.keys().map(String::as_str).chain(groups.iter().copied());
    let mut out = Vec::new();
    for (i, item) in node.items().iter().enumerate() {
        let Some(text) = item.as_text().filter(|t| !t.trim().is_empty()) else { continue };
        if !names().any(|n| n == text) {
            let key = if matches!(node.data, Data::List(_)) { join(path, &i.to_string()) } else { path.to_owned() };
            let known =
                if names().next().is_none() { "there are none".to_owned() } else { format!("known: {}", names().collect::<Vec<_>>().join(", ")) };
            let hint = form::nearest(text, names()).map(str::to_owned);
            checker.complain(&item.at, &key, item.found(), format!("unknown receiver {} ({known})", quoted(text)), hint);
        }
        out.push(text.to_owned());
    }
    out
}

/// Levels of escalation, each with the receivers that it reaches.
pub fn escalation(
    checker: &mut Checker<'_>,
    root: &Node,
    receivers: &BTreeMap<String, ReceiverSettings>,
    people: &BTreeMap<String, Vec<String>>,
) -> Vec<Level> {
    let groups: Vec<&str> = people.keys().map(String::as_str).collect();
    let mut out: Vec<Level> = Vec::new();
    let Some(Data::List(items)) = root.get("escalation").and_then(|e| e.get("levels")).map(|n| &n.data) else { return out };
    for (i, item) in items.iter().enumerate() {
        let path = join("escalation.levels", &i.to_string());
        let Some(after) = item.get("after") else { continue };
        let after_ms = form::duration(after).unwrap_or(0);
        if let Some(before) = out.last().filter(|l| l.after_ms >= after_ms && after_ms > 0) {
            let message = format!("{} is not after the level before it ({})", after.shown(), form::shown_duration(before.after_ms));
            checker.complain(&after.at, &join(&path, "after"), after.found(), message, None);
        }
        let named = item.get("to").map(|n| receivers_of(checker, n, &join(&path, "to"), receivers, &groups)).unwrap_or_default();
        let mut to: Vec<String> = named.iter().flat_map(|n| people.get(n).cloned().unwrap_or_else(|| vec![n.clone()])).collect();
        to.dedup();
        let severity = item.get("severity").map(Node::items).unwrap_or_default().iter().filter_map(|n| form::level(n).ok()).collect();
        out.push(Level { after_ms, severity, to });
    }
    out
}

/// Duties to report: those of the table by their names, and those that the file describes.
pub fn clocks(checker: &mut Checker<'_>, root: &Node) -> Vec<LegalClock> {
    let mut out: Vec<LegalClock> = Vec::new();
    for (i, item) in root.get("escalation").and_then(|e| e.get("clocks")).map(Node::items).unwrap_or_default().iter().enumerate() {
        let text = |name: &str| item.get(name).and_then(Node::as_text).map(str::to_owned);
        let known = item.as_text().and_then(|name| CLOCKS.iter().find(|c| c.0 == name));
        let clock = match (known, text("name"), item.get("after").and_then(|n| form::duration(n).ok())) {
            (Some((name, words, hours, categories, checked)), ..) => LegalClock {
                name: (*name).to_owned(),
                words: (*words).to_owned(),
                after_ms: hours * HOUR_MS,
                categories: categories.to_vec(),
                checked_on: (*checked).to_owned(),
            },
            (None, Some(name), Some(after_ms)) => {
                let words = item.get("category").map(Node::items).unwrap_or_default().iter().filter_map(Node::as_text);
                let named: Vec<Category> = words.filter_map(|w| w.parse().ok()).collect();
                let categories = if named.is_empty() { Category::ALL.to_vec() } else { named };
                LegalClock {
                    name,
                    words: text("words").unwrap_or_default(),
                    after_ms,
                    categories,
                    checked_on: text("checked_on").unwrap_or_default(),
                }
            }
            // What cannot be read was complained about by the table.
            _ => continue,
        };
        if out.iter().any(|c| c.name == clock.name) {
            let key = join("escalation.clocks", &i.to_string());
            checker.complain(&item.at, &key, item.found(), format!("clock {} is named twice; keep one", quoted(&clock.name)), None);
        }
        out.push(clock);
    }
    out
}

// === tokens ===

/// A SHA-256 in hexadecimal.
pub fn digest(text: &str) -> Result<(), form::Fault> {
    let is_hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    // What stands there instead may be the token itself, and is not quoted.
    if is_hex {
        Ok(())
    } else {
        Err(form::Fault { message: "not 64 hexadecimal digits; bellwether config token makes a token and its digest".to_owned(), hint: None })
    }
}

pub fn tokens(checker: &mut Checker<'_>, root: &Node) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::new();
    let Some(Data::List(items)) = root.get("tokens").map(|n| &n.data) else { return out };
    for (i, item) in items.iter().enumerate() {
        let text = |name: &str| item.get(name).and_then(Node::as_text).unwrap_or_default();
        let Ok(role) = text("role").parse::<Role>() else { continue };
        let token = Token { name: text("name").to_owned(), role, sha256: text("sha256").to_ascii_lowercase() };
        let path = join("tokens", &i.to_string());
        if out.iter().any(|t| t.name == token.name) {
            let at = item.get("name").map_or(&item.at, |n| &n.at);
            checker.complain(
                at,
                &join(&path, "name"),
                token.name.clone(),
                format!("{} has a token already; who did what must be told apart", quoted(&token.name)),
                None,
            );
        }
        if out.iter().any(|t| t.sha256 == token.sha256 && !token.sha256.is_empty()) {
            let at = item.get("sha256").map_or(&item.at, |n| &n.at);
            checker.complain(at, &join(&path, "sha256"), String::new(), "another token has this digest; give everybody a token of their own", None);
        }
        out.push(token);
    }
    out
}

/// Whoever can be reached from elsewhere asks who is there.
pub fn doors(checker: &mut Checker<'_>, root: &Node, listen: &str, tokens: &[Token]) {
    let Ok(address) = listen.parse::<std::net::SocketAddr>() else { return };
    let Some(node) = root.get("listen").filter(|_| !address.ip().is_loopback() && tokens.is_empty()) else { return };
    let message = format!("{listen} can be reached from other machines, which needs tokens; add tokens: [{{name: ..., role: ..., sha256: ...}}]");
    checker.complain(&node.at, "listen", node.found(), message, Some(format!("127.0.0.1:{}", address.port())));
}
