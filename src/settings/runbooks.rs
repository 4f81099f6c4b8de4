//! Runbooks: what to do about each category at each severity, from the built-in files and the user's, checked as strictly as the
//! configuration itself. A runbook is read by somebody who was asleep a minute ago; whatever could be wrong with it is said now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ActionSettings;
use super::check::{Checker, beside, join};
use super::form::{self, Fault};
use super::node::{self, Data, Node, Place, quoted};
use super::table::{Key, Shape, key};
use crate::act;
use crate::domain::response::Action;
use crate::domain::{Category, Role, StepKind};
use crate::respond::{PLACEHOLDERS, Runbook, Template};

/// What is done where the user says nothing: every category at every severity.
pub static BUILT_IN: &[(&str, &str)] = &[
    ("harmful_output.yaml", include_str!("../../deploy/runbooks/harmful_output.yaml")),
    ("data_breach.yaml", include_str!("../../deploy/runbooks/data_breach.yaml")),
    ("bias.yaml", include_str!("../../deploy/runbooks/bias.yaml")),
    ("out_of_scope_use.yaml", include_str!("../../deploy/runbooks/out_of_scope_use.yaml")),
    ("quality_degradation.yaml", include_str!("../../deploy/runbooks/quality_degradation.yaml")),
    ("model_failure.yaml", include_str!("../../deploy/runbooks/model_failure.yaml")),
    ("cost_anomaly.yaml", include_str!("../../deploy/runbooks/cost_anomaly.yaml")),
    ("monitoring_blind.yaml", include_str!("../../deploy/runbooks/monitoring_blind.yaml")),
];

/// Steps of one runbook.
const STEPS_MAX: usize = 30;

const MINUTE: i64 = 60_000;
const ANY: Shape = Shape::Text(form::any);

/// Every key of a file of runbooks.
pub static FILE: &[Key] = &[key("runbooks", "One row for a category at some severities.", Shape::List(&Shape::Section(ROW))).required()];

static ROW: &[Key] = &[
    key("category", "What kind of failure this is for.", Shape::Word { what: "category", known: Category::NAMES, later: &[] }).required(),
    key("severity", "1 active harm, 2 degraded, 3 minor; one or several.", Shape::OneOrMany(&Shape::Level)).required(),
    key("models", "Only for these models; all if left out.", Shape::OneOrMany(&ANY)),
    key("owner", "Who answers for it: a name, or {owner} for the model's own.", Shape::Text(words)).required(),
    key("fallback", "What is done if the action cannot be carried out.", Shape::Text(words)).required(),
    key("steps", "What to do, in order.", Shape::List(&Shape::Section(STEP))).required(),
];

static STEP: &[Key] = &[
    key("id", "A name that is unique within the runbook; that of `do` if left out.", Shape::Text(form::name)),
    key("do", "What the step is for.", Shape::Word { what: "step", known: StepKind::NAMES, later: &[] }).required(),
    key("say", "A sentence for whoever was woken.", Shape::Text(words)).required(),
    key("action", "What can be carried out from here; by hand if left out.", Shape::Section(ACTION)),
    key("needs", "Who may approve it, at least.", Shape::Word { what: "role", known: &["responder", "approver", "admin"], later: &[] })
        .default("approver"),
    key("two_people", "Two different people must approve; approval.two_people decides for severity 1 if left out.", Shape::Bool),
    key("automatic", "Carried out without a person: severity 1 only, and only what can be undone.", Shape::Bool).default("false"),
    key(
        "undo",
        "Whether it is taken back by itself when the incident has recovered.",
        Shape::Word { what: "way to undo", known: &["by_hand", "at_recovery"], later: &[] },
    )
    .default("by_hand"),
    key("expires", "How long a plan and its approval hold.", Shape::Duration { ms_min: MINUTE, ms_max: 24 * 60 * MINUTE }).default("15m"),
    key("when", "Always, or only where the model's exposure is set.", Shape::Word { what: "condition", known: &["always", "exposed"], later: &[] })
        .default("always"),
    key(
        "raise",
        "Of sensitivity: the model may spend so many times its share of the budget while the incident is open, as in 3x.",
        Shape::Text(times),
    ),
    key("draft", "A text for users that a person reads, changes and sends.", Shape::Text(words)),
];

static ACTION: &[Key] = &[
    key("use", "Name of an action of the configuration.", Shape::Text(form::any)).required(),
    key("target", "What of it: a flag, a route, a rollout. It must be among the action's targets.", Shape::Text(words)).required(),
    key(
        "set",
        "The state that is wanted: absolute, so that asking twice does no harm.",
        Shape::Named { what: "member", name: form::any, of: &Shape::Scalar },
    ),
];

/// `3x`: from just above 1 to 10.
fn times(text: &str) -> Result<(), Fault> {
    match factor(text) {
        Some(n) if n > 1.0 && n <= 10.0 => Ok(()),
        Some(_) => Err(Fault { message: format!("{} is out of bounds; allowed is above 1x to 10x", quoted(text)), hint: None }),
        None => Err(Fault { message: format!("expected a factor such as 3x, found {}", quoted(text)), hint: None }),
    }
}

fn factor(text: &str) -> Option<f64> {
    text.trim().strip_suffix('x')?.trim().parse().ok().filter(|n: &f64| n.is_finite())
}

/// A text whose `{names}` are known.
fn words(text: &str) -> Result<(), Fault> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(Fault { message: "\"{\" without \"}\"".to_owned(), hint: None });
        };
        if !PLACEHOLDERS.contains(&name) {
            let hint = form::nearest(name, PLACEHOLDERS.iter().copied()).map(|n| format!("{{{n}}}"));
            return Err(Fault { message: format!("unknown name {} in braces (known: {})", quoted(name), PLACEHOLDERS.join(", ")), hint });
        }
        rest = after;
    }
    Ok(())
}

/// The user's runbooks, then the built-in ones.
pub fn load(checker: &mut Checker<'_>, root: &Node, actions: &BTreeMap<String, ActionSettings>) -> Vec<Runbook> {
    let mut out: Vec<Runbook> = Vec::new();
    let mut places: BTreeMap<(Category, u8, String), String> = BTreeMap::new();
    let list = root.get("runbooks");
    for (i, item) in list.map(Node::items).unwrap_or_default().iter().enumerate() {
        let Some(text) = item.as_text() else { continue };
        let key = if matches!(list.map(|l| &l.data), Some(Data::List(_))) { join("runbooks", &i.to_string()) } else { "runbooks".to_owned() };
        match files(&beside(checker.file, text)) {
            Ok(files) => {
                for file in files {
                    one(checker, &file, actions, &mut places, &mut out);
                }
            }
            Err(message) => checker.complain(&item.at, &key, item.found(), message, None),
        }
    }
    out.extend(built_in());
    out
}

/// The built-in ones.
pub fn built_in() -> Vec<Runbook> {
    let mut out = Vec::new();
    for (name, text) in BUILT_IN {
        let mut checker = Checker { file: name, env: &|_| None, kinds: &[], problems: Vec::new(), warnings: Vec::new() };
        out.extend(read(&mut checker, text, &BTreeMap::new(), &mut BTreeMap::new(), "built-in "));
        // A test reads all of them.
        debug_assert!(checker.problems.is_empty(), "{name}: {:?}", checker.problems);
    }
    out
}

/// The files that a path names: itself, or the YAML files of the folder.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = quoted(&path.display().to_string());
    let found = std::fs::metadata(path).map_err(|why| format!("cannot read {shown}: {why}"))?;
    if found.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|why| format!("cannot read {shown}: {why}"))?;
    let is_yaml = |p: &PathBuf| p.extension().is_some_and(|e| e == "yaml" || e == "yml") && p.is_file();
    let mut all: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).filter(is_yaml).collect();
    all.sort();
    if all.is_empty() { Err(format!("{shown} holds no file that ends in .yaml")) } else { Ok(all) }
}

fn one(
    main: &mut Checker<'_>,
    file: &Path,
    actions: &BTreeMap<String, ActionSettings>,
    places: &mut BTreeMap<(Category, u8, String), String>,
    out: &mut Vec<Runbook>,
) {
    let name = file.display().to_string();
    let mut checker = Checker { file: &name, env: main.env, kinds: main.kinds, problems: Vec::new(), warnings: Vec::new() };
    match std::fs::read_to_string(file) {
        Ok(text) => out.extend(read(&mut checker, &text, actions, places, "")),
        Err(why) => checker.complain(&Place::default(), "", String::new(), format!("cannot be read: {why}"), None),
    }
    main.problems.extend(checker.problems);
    main.warnings.extend(checker.warnings);
}

fn read(
    checker: &mut Checker<'_>,
    text: &str,
    actions: &BTreeMap<String, ActionSettings>,
    places: &mut BTreeMap<(Category, u8, String), String>,
    prefix: &str,
) -> Vec<Runbook> {
    let mut root = match node::read(text) {
        Ok(root) => root,
        Err(error) => {
            let at = Place { line: error.line, column: error.column, variable: None };
            checker.complain(&at, "", String::new(), error.message, None);
            return Vec::new();
        }
    };
    checker.prepare(&mut root, "");
    let start = Place { line: 1, column: 1, variable: None };
    checker.section(&root, FILE, "", &start);
    let mut out = Vec::new();
    for (i, item) in root.get("runbooks").map(|n| if let Data::List(l) = &n.data { l.as_slice() } else { &[] }).unwrap_or_default().iter().enumerate()
    {
        let path = join("runbooks", &i.to_string());
        let category = item.get("category").and_then(Node::as_text).and_then(|t| t.parse::<Category>().ok());
        let severity: Vec<u8> = item.get("severity").map(Node::items).unwrap_or_default().iter().filter_map(|n| form::level(n).ok()).collect();
        let models: Vec<String> =
            item.get("models").map(Node::items).unwrap_or_default().iter().filter_map(Node::as_text).map(str::to_owned).collect();
        let place = format!("{prefix}{}:{}", checker.file, item.at.line);
        let steps = steps(checker, item, &path, &severity, actions);
        let Some(category) = category else { continue };
        let of = if models.is_empty() { vec![String::new()] } else { models.clone() };
        for (level, model) in severity.iter().flat_map(|s| of.iter().map(move |m| (*s, m))) {
            if let Some(first) = places.insert((category, level, model.clone()), place.clone()) {
                let whose = if model.is_empty() { String::new() } else { format!(" of model {}", quoted(model)) };
                let message = format!("severity {level} of {category}{whose} has a runbook already, in {first}; keep one");
                checker.complain(&item.at, &path, String::new(), message, None);
            }
        }
        let text = |name: &str| item.get(name).and_then(Node::as_text).unwrap_or_default().to_owned();
        out.push(Runbook { place, category, severity, models, owner: text("owner"), fallback: text("fallback"), steps });
    }
    out
}

fn steps(checker: &mut Checker<'_>, row: &Node, path: &str, severity: &[u8], actions: &BTreeMap<String, ActionSettings>) -> Vec<Template> {
    let path = join(path, "steps");
    let Some(Data::List(items)) = row.get("steps").map(|n| &n.data) else { return Vec::new() };
    let mut out: Vec<Template> = Vec::new();
    if let Some(item) = items.get(STEPS_MAX) {
        checker.complain(&item.at, &path, String::new(), format!("{} steps; at most {STEPS_MAX} can be followed", items.len()), None);
    }
    let mut is_sound = true;
    for (i, item) in items.iter().enumerate() {
        let path = join(&path, &i.to_string());
        let text = |name: &str| item.get(name).and_then(Node::as_text);
        let Some(kind) = text("do").and_then(|t| t.parse::<StepKind>().ok()) else {
            is_sound = false;
            continue;
        };
        let id = text("id").unwrap_or(kind.as_str()).to_owned();
        if out.iter().any(|t| t.id == id) {
            let at = item.get("id").or(item.get("do")).map_or(&item.at, |n| &n.at);
            checker.complain(
                at,
                &join(&path, "id"),
                id.clone(),
                format!("two steps are called {}; give this one an id of its own", quoted(&id)),
                None,
            );
        }
        let flag = |name: &str| item.get(name).and_then(|n| form::boolean(n).ok());
        let action = item.get("action").and_then(|n| action(checker, n, &join(&path, "action"), actions));
        let has_action = item.get("action").is_some();
        let automatic = flag("automatic").unwrap_or(false);
        let mut complain = |name: &str, message: &str| {
            if let Some(n) = item.get(name) {
                checker.complain(&n.at, &join(&path, name), n.found(), message, None);
            }
        };
        if automatic && severity != [1] {
            complain("automatic", "only severity 1 may act without a person; leave it out, or give severity 1 a runbook of its own");
        } else if automatic && flag("two_people") == Some(true) {
            complain("automatic", "either two people approve or nobody does; keep one");
        } else if automatic && !has_action {
            complain("automatic", "there is no action that could be carried out; add action");
        }
        if text("undo") == Some("at_recovery") && !has_action {
            complain("undo", "there is no action that could be undone; add action");
        }
        if has_action && !kind.acts() {
            complain("action", &format!("{kind} tells people and changes nothing; an action belongs to a step such as safe_default or reroute"));
        }
        if kind != StepKind::Sensitivity {
            complain("raise", "only a step that does sensitivity raises it");
        }
        if kind != StepKind::TellUsers {
            complain("draft", "a draft belongs to a step that does tell_users");
        }
        out.push(Template {
            id,
            kind,
            say: text("say").unwrap_or_default().to_owned(),
            action,
            needs: text("needs").and_then(|t| t.parse().ok()).unwrap_or(Role::Approver),
            two_people: flag("two_people"),
            automatic,
            undo_at_recovery: text("undo") == Some("at_recovery"),
            expires_ms: item.get("expires").and_then(|n| form::duration(n).ok()),
            only_if_exposed: text("when") == Some("exposed"),
            draft: text("draft").map(str::to_owned),
            raise: text("raise").and_then(factor),
        });
    }
    if is_sound && !items.is_empty() && !out.iter().any(|t| t.kind.acts()) {
        let acting: Vec<&str> = StepKind::ALL.iter().filter(|k| k.acts()).map(|k| k.as_str()).collect();
        let at = row.entry("steps").map_or(&row.at, |e| &e.key_at);
        checker.complain(at, &path, String::new(), format!("no step acts; add one that does {}", acting.join(", ")), None);
    }
    out
}

fn action(checker: &mut Checker<'_>, node: &Node, path: &str, actions: &BTreeMap<String, ActionSettings>) -> Option<Action> {
    let (using, target) = (node.get("use")?, node.get("target")?);
    let known = || actions.keys().map(String::as_str);
    let name = using.as_text()?;
    let set: BTreeMap<String, String> = node
        .get("set")
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .filter_map(|e| Some((e.name.clone(), super::build::scalar(&e.value)?)))
        .collect();
    let Some(settings) = actions.get(name) else {
        let listed = if actions.is_empty() { "there are none".to_owned() } else { format!("known: {}", known().collect::<Vec<_>>().join(", ")) };
        let hint = form::nearest(name, known()).map(str::to_owned);
        checker.complain(&using.at, &join(path, "use"), using.found(), format!("unknown action {} ({listed})", quoted(name)), hint);
        return None;
    };
    let wanted = target.as_text()?;
    if !wanted.contains('{') && !settings.targets.iter().any(|t| t == wanted) {
        let hint = form::nearest(wanted, settings.targets.iter().map(String::as_str)).map(str::to_owned);
        let message = format!("{} is not among the targets of action {} ({})", quoted(wanted), quoted(name), settings.targets.join(", "));
        checker.complain(&target.at, &join(path, "target"), target.found(), message, hint);
    }
    if let Some(kind) = act::KINDS.iter().find(|k| k.name == settings.kind) {
        members(checker, node, path, kind);
    }
    Some(Action { using: name.to_owned(), target: wanted.to_owned(), set })
}

/// What is set, against what the kind of action knows.
fn members(checker: &mut Checker<'_>, node: &Node, path: &str, kind: &act::Kind) {
    let path = join(path, "set");
    if kind.sets.is_empty() {
        return;
    }
    let known = || kind.sets.iter().map(|s| s.name);
    let entries = node.get("set").map(Node::entries).unwrap_or_default();
    if node.get("set").is_some_and(|n| !matches!(n.data, Data::Table(_))) {
        return;
    }
    if entries.is_empty() {
        let message = format!("missing; an action of type {} sets {}", kind.name, known().collect::<Vec<_>>().join(" or "));
        checker.complain(&node.at, &path, String::new(), message, None);
    }
    for entry in entries {
        let below = join(&path, &entry.name);
        let Some(set) = kind.sets.iter().find(|s| s.name == entry.name) else {
            let hint = form::nearest(&entry.name, known()).map(str::to_owned);
            let message = format!(
                "unknown key {} for an action of type {} (known: {})",
                quoted(&entry.name),
                kind.name,
                known().collect::<Vec<_>>().join(", ")
            );
            checker.complain(&entry.key_at, &below, entry.name.clone(), message, hint);
            continue;
        };
        let text = super::build::scalar(&entry.value).unwrap_or_default();
        if !set.words.is_empty() && !set.words.contains(&text.as_str()) {
            let hint = form::nearest(&text, set.words.iter().copied()).map(str::to_owned);
            checker.complain(&entry.value.at, &below, entry.value.found(), format!("{} is none of {}", quoted(&text), set.words.join(", ")), hint);
        }
    }
}
