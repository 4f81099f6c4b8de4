//! Runbooks and routes as people get them wrong: each fault with its place, its key, what was found and what was meant; and what the
//! built-in ones hold.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use bellwether::domain::{Category, StepKind};
use bellwether::settings::{self, Loaded, Problems};

const ROW: &str = "runbooks:\n  - category: bias\n    severity: 1\n    owner: \"{owner}\"\n    fallback: stop it\n    steps:\n";
const ACTIONS: &str = "actions:\n  flags: {type: flagd, file: flags.json, targets: [mode, route]}\n  un: {type: unleash, url: \"http://u.example\", token: t, targets: [gate]}\n  hook: {type: webhook, url: \"http://h.example/x\", secret: s3cret-word, targets: [assistant]}\n";

/// A configuration with this file of runbooks beside it.
fn load(runbooks: &str, more: &str) -> (tempfile::TempDir, Result<Loaded, Problems>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("runbooks")).unwrap();
    std::fs::write(folder.path().join("runbooks/a.yaml"), runbooks).unwrap();
    let config = folder.path().join("bellwether.yaml");
    let text = format!(
        "files: [x]\nreceivers: {{oncall: {{type: webhook, url: \"http://t.example\"}}, boss: {{type: webhook, url: \"http://b.example\"}}}}\nrunbooks: [runbooks]\n{ACTIONS}{more}"
    );
    std::fs::write(&config, text).unwrap();
    let kinds: Vec<_> = bellwether::notify::KINDS.iter().collect();
    let loaded = settings::load(&config, &|_| None, &kinds);
    (folder, loaded)
}

/// (file's text, place, key, piece of the message, what was found, what was meant). `+` at the beginning: behind [`ROW`], whose
/// steps begin in line 7.
static BROKEN: &[(&str, &str, &str, &str, &str, &str)] = &[
    // --- the file ---
    ("runbooks: [1, 2\n", "1:11", "", "not YAML", "", ""),
    ("- a\n", "1:1", "", "expected a table (keys: runbooks)", "a list", ""),
    ("runbook: []\n", "1:1", "runbook", "unknown key", "runbook", "runbooks"),
    ("runbooks: []\n", "1:11", "runbooks", "an empty list", "a list", ""),
    ("runbooks: {}\n", "1:11", "runbooks", "expected a list, found a table", "a table", ""),
    // --- the row ---
    (
        "runbooks: [{severity: 1, owner: a, fallback: b, steps: [{do: reroute, say: c}]}]\n",
        "1:12",
        "runbooks.0.category",
        "missing; what kind of failure",
        "",
        "",
    ),
    (
        "runbooks: [{category: bias, owner: a, fallback: b, steps: [{do: reroute, say: c}]}]\n",
        "1:12",
        "runbooks.0.severity",
        "missing; 1 active harm",
        "",
        "",
    ),
    (
        "runbooks: [{category: bias, severity: 1, fallback: b, steps: [{do: reroute, say: c}]}]\n",
        "1:12",
        "runbooks.0.owner",
        "missing; who answers for it",
        "",
        "",
    ),
    (
        "runbooks: [{category: bias, severity: 1, owner: a, steps: [{do: reroute, say: c}]}]\n",
        "1:12",
        "runbooks.0.fallback",
        "missing; what is done if the action cannot",
        "",
        "",
    ),
    ("runbooks: [{category: bias, severity: 1, owner: a, fallback: b}]\n", "1:12", "runbooks.0.steps", "missing; what to do", "", ""),
    (
        "runbooks: [{category: baas, severity: 1, owner: a, fallback: b, steps: [{do: reroute, say: c}]}]\n",
        "1:23",
        "runbooks.0.category",
        "unknown category",
        "baas",
        "bias",
    ),
    (
        "runbooks: [{category: bias, severity: 4, owner: a, fallback: b, steps: [{do: reroute, say: c}]}]\n",
        "1:39",
        "runbooks.0.severity",
        "unknown severity 4",
        "4",
        "",
    ),
    (
        "runbooks: [{category: bias, severity: [1, high], owner: a, fallback: b, steps: [{do: reroute, say: c}]}]\n",
        "1:43",
        "runbooks.0.severity.1",
        "unknown severity \"high\"",
        "high",
        "",
    ),
    (
        "runbooks: [{category: bias, severity: 1, ownr: a, fallback: b, steps: [{do: reroute, say: c}]}]\n",
        "1:42",
        "runbooks.0.ownr",
        "unknown key",
        "ownr",
        "owner",
    ),
    (
        "runbooks: [{category: bias, severity: 1, owner: \"\", fallback: b, steps: [{do: reroute, say: c}]}]\n",
        "1:49",
        "runbooks.0.owner",
        "empty; expected text",
        "",
        "",
    ),
    (
        "runbooks: [{category: bias, severity: 1, owner: a, fallback: 3, steps: [{do: reroute, say: c}]}]\n",
        "1:62",
        "runbooks.0.fallback",
        "expected text, found 3",
        "3",
        "",
    ),
    ("runbooks: [{category: bias, severity: 1, owner: a, fallback: b, steps: []}]\n", "1:72", "runbooks.0.steps", "an empty list", "a list", ""),
    (
        "runbooks: [{category: bias, severity: 1, owner: a, fallback: b, steps: reroute}]\n",
        "1:72",
        "runbooks.0.steps",
        "expected a list",
        "reroute",
        "",
    ),
    (
        "runbooks:\n  - {category: bias, severity: 1, owner: a, fallback: b, steps: [{do: reroute, say: c}]}\n  - {category: bias, severity: [2, 1], owner: a, fallback: b, steps: [{do: reroute, say: c}]}\n",
        "3:5",
        "runbooks.1",
        "severity 1 of bias has a runbook already",
        "",
        "",
    ),
    (
        "runbooks: [{category: bias, severity: 1, owner: \"{team}\", fallback: b, steps: [{do: reroute, say: c}]}]\n",
        "1:49",
        "runbooks.0.owner",
        "unknown name \"team\" in braces",
        "{team}",
        "",
    ),
    // --- steps ---
    ("+      - {say: c}\n", "7:9", "runbooks.0.steps.0.do", "missing; what the step is for", "", ""),
    ("+      - {do: reroute}\n", "7:9", "runbooks.0.steps.0.say", "missing; a sentence", "", ""),
    ("+      - {do: rerout, say: c}\n", "7:14", "runbooks.0.steps.0.do", "unknown step", "rerout", "reroute"),
    ("+      - {do: dance, say: c}\n", "7:14", "runbooks.0.steps.0.do", "unknown step \"dance\" (known: take_offline, safe_default", "dance", ""),
    ("+      - {do: page, say: c}\n", "6:5", "runbooks.0.steps", "no step acts; add one that does take_offline", "", ""),
    (
        "+      - {do: reroute, say: c}\n      - {do: reroute, say: d}\n",
        "8:14",
        "runbooks.0.steps.1.id",
        "two steps are called \"reroute\"",
        "reroute",
        "",
    ),
    ("+      - {do: reroute, say: \"to {modle}\"}\n", "7:28", "runbooks.0.steps.0.say", "unknown name \"modle\" in braces", "to {modle}", "{model}"),
    ("+      - {do: reroute, say: \"to {model\"}\n", "7:28", "runbooks.0.steps.0.say", "\"{\" without \"}\"", "to {model", ""),
    (
        "+      - {do: reroute, say: c, needs: viewer}\n",
        "7:38",
        "runbooks.0.steps.0.needs",
        "unknown role \"viewer\" (known: responder, approver, admin)",
        "viewer",
        "",
    ),
    ("+      - {do: reroute, say: c, two_people: maybe}\n", "7:43", "runbooks.0.steps.0.two_people", "expected true or false", "maybe", ""),
    (
        "+      - {do: reroute, say: c, automatic: true}\n",
        "7:42",
        "runbooks.0.steps.0.automatic",
        "there is no action that could be carried out",
        "true",
        "",
    ),
    (
        "+      - {do: reroute, say: c, automatic: true, two_people: true, action: {use: flags, target: mode, set: {variant: a}}}\n",
        "7:42",
        "runbooks.0.steps.0.automatic",
        "either two people approve or nobody does",
        "true",
        "",
    ),
    (
        "+      - {do: reroute, say: c, undo: at_recovery}\n",
        "7:37",
        "runbooks.0.steps.0.undo",
        "there is no action that could be undone",
        "at_recovery",
        "",
    ),
    ("+      - {do: reroute, say: c, undo: never}\n", "7:37", "runbooks.0.steps.0.undo", "unknown way to undo", "never", ""),
    ("+      - {do: reroute, say: c, expires: 5}\n", "7:40", "runbooks.0.steps.0.expires", "the duration 5 has no unit", "5", "5s"),
    ("+      - {do: reroute, say: c, expires: 2d}\n", "7:40", "runbooks.0.steps.0.expires", "is out of bounds; allowed is 1m to 1d", "2d", ""),
    ("+      - {do: reroute, say: c, when: sometimes}\n", "7:37", "runbooks.0.steps.0.when", "unknown condition", "sometimes", ""),
    (
        "+      - {do: reroute, say: c, draft: hello}\n",
        "7:38",
        "runbooks.0.steps.0.draft",
        "a draft belongs to a step that does tell_users",
        "hello",
        "",
    ),
    (
        "+      - {do: reroute, say: c}\n      - {do: page, say: c, action: {use: flags, target: mode, set: {variant: a}}}\n",
        "8:36",
        "runbooks.0.steps.1.action",
        "page tells people and changes nothing",
        "a table",
        "",
    ),
    // --- actions ---
    (
        "+      - {do: reroute, say: c, action: flags}\n",
        "7:39",
        "runbooks.0.steps.0.action",
        "expected a table (keys: use, target, set)",
        "flags",
        "",
    ),
    (
        "+      - {do: reroute, say: c, action: {target: mode, set: {variant: a}}}\n",
        "7:31",
        "runbooks.0.steps.0.action.use",
        "missing; name of an action",
        "",
        "",
    ),
    (
        "+      - {do: reroute, say: c, action: {use: flags, set: {variant: a}}}\n",
        "7:31",
        "runbooks.0.steps.0.action.target",
        "missing; what of it",
        "",
        "",
    ),
    (
        "+      - {do: reroute, say: c, action: {use: flag, target: mode, set: {variant: a}}}\n",
        "7:45",
        "runbooks.0.steps.0.action.use",
        "unknown action \"flag\" (known: flags, hook, un)",
        "flag",
        "flags",
    ),
    (
        "+      - {do: reroute, say: c, action: {use: flags, target: mdoe, set: {variant: a}}}\n",
        "7:60",
        "runbooks.0.steps.0.action.target",
        "is not among the targets of action \"flags\" (mode, route)",
        "mdoe",
        "mode",
    ),
    (
        "+      - {do: reroute, say: c, action: {use: flags, target: mode}}\n",
        "7:39",
        "runbooks.0.steps.0.action.set",
        "missing; an action of type flagd sets variant",
        "",
        "",
    ),
    (
        "+      - {do: reroute, say: c, action: {use: flags, target: mode, set: {varient: a}}}\n",
        "7:72",
        "runbooks.0.steps.0.action.set.varient",
        "unknown key",
        "varient",
        "variant",
    ),
    (
        "+      - {do: reroute, say: c, action: {use: un, target: gate, set: {state: offf}}}\n",
        "7:76",
        "runbooks.0.steps.0.action.set.state",
        "is none of on, off",
        "offf",
        "off",
    ),
    (
        "+      - {do: reroute, say: c, action: {use: flags, target: mode, set: [a]}}\n",
        "7:71",
        "runbooks.0.steps.0.action.set",
        "expected a table by name of member",
        "a list",
        "",
    ),
    (
        "+      - {do: reroute, say: c, action: {use: flags, target: mode, set: {variant: [a]}}}\n",
        "7:81",
        "runbooks.0.steps.0.action.set.variant",
        "expected text, a number or a boolean",
        "a list",
        "",
    ),
    (
        "+      - {do: reroute, say: c, action: {use: flags, target: \"{modell}\", set: {variant: a}}}\n",
        "7:60",
        "runbooks.0.steps.0.action.target",
        "unknown name \"modell\" in braces",
        "{modell}",
        "{model}",
    ),
];

#[test]
fn every_fault_of_a_broken_runbook_is_shown_at_its_place() {
    assert!(BROKEN.len() >= 40, "{} broken runbooks", BROKEN.len());
    let mut wrong = Vec::new();
    for (text, place, key, piece, found, meant) in BROKEN {
        let text = text.strip_prefix('+').map_or_else(|| (*text).to_owned(), |rest| format!("{ROW}{rest}"));
        let (_folder, loaded) = load(&text, "");
        let Err(problems) = loaded else {
            wrong.push(format!("loads:\n{text}"));
            continue;
        };
        let fits = |p: &settings::Problem| {
            p.file.ends_with("runbooks/a.yaml")
                && format!("{}:{}", p.line, p.column) == *place
                && p.key == *key
                && p.message.contains(piece)
                && p.found == *found
                && p.hint.as_deref().unwrap_or("") == *meant
        };
        if problems.0.len() != 1 || !fits(&problems.0[0]) {
            wrong.push(format!("{text}expected {place} {key} {piece:?} found {found:?} meant {meant:?}\n{:#?}\n", problems.0));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), BROKEN.len(), wrong.join("\n"));
}

/// (lines of the configuration from line 8 on, place, key, piece of the message, what was meant).
static ROUTES: &[(&str, &str, &str, &str, &str)] = &[
    ("routes: [{to: [oncal]}]\n", "8:16", "routes.0.to.0", "unknown receiver", "oncall"),
    ("routes: [{to: [oncall], severty: 1}, {to: oncall}]\n", "8:25", "routes.0.severty", "unknown key", "severity"),
    ("people: {leadership: [bos]}\n", "8:23", "people.leadership.0", "unknown receiver", "boss"),
    ("people: {leadershp: [boss]}\n", "8:10", "people.leadershp", "unknown key", "leadership"),
    ("people: [boss]\n", "8:9", "people", "expected a table (keys: leadership, legal)", ""),
    (
        "people: {legal: boss}\nescalation: {levels: [{after: 5m, to: [lawyers]}]}\n",
        "9:40",
        "escalation.levels.0.to.0",
        "unknown receiver \"lawyers\" (known: boss, oncall, legal)",
        "",
    ),
    ("escalation: {levels: [{after: 5m}]}\n", "8:23", "escalation.levels.0.to", "missing; names of receivers", ""),
    ("escalation: {levels: [{to: boss}]}\n", "8:23", "escalation.levels.0.after", "missing; since somebody was called", ""),
    ("escalation: {levels: [{after: 5, to: boss}]}\n", "8:31", "escalation.levels.0.after", "has no unit", "5s"),
    (
        "escalation: {levels: [{after: 15m, to: oncall}, {after: 10m, to: boss}]}\n",
        "8:57",
        "escalation.levels.1.after",
        "is not after the level before it (15m)",
        "",
    ),
    ("escalation: {level: []}\n", "8:14", "escalation.level", "unknown key", "levels"),
    ("escalation: {clocks: [gdpr]}\n", "8:23", "escalation.clocks.0", "unknown clock \"gdpr\" (known: gdpr_72h", ""),
    ("escalation: {clocks: [gdpr_27h]}\n", "8:23", "escalation.clocks.0", "unknown clock", "gdpr_72h"),
    ("approval: {two_poeple: true}\n", "8:12", "approval.two_poeple", "unknown key", "two_people"),
    (
        "tokens: [{name: ana, role: aprover, sha256: \"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8\"}]\n",
        "8:28",
        "tokens.0.role",
        "unknown role",
        "approver",
    ),
    ("tokens: [{name: ana, role: approver, sha256: my-secret-token}]\n", "8:46", "tokens.0.sha256", "not 64 hexadecimal digits", ""),
    ("tokens: [{name: ana, role: approver}]\n", "8:10", "tokens.0.sha256", "missing; the digest of the token", ""),
    ("listen: 0.0.0.0:9710\n", "8:9", "listen", "which needs tokens", "127.0.0.1:9710"),
];

#[test]
fn every_fault_of_routes_people_escalation_and_tokens_is_shown_at_its_place() {
    let good = format!("{ROW}      - {{do: reroute, say: c}}\n");
    let mut wrong = Vec::new();
    for (more, place, key, piece, meant) in ROUTES {
        let (_folder, loaded) = load(&good, more);
        let Err(problems) = loaded else {
            wrong.push(format!("loads: {more}"));
            continue;
        };
        let fits = |p: &settings::Problem| {
            format!("{}:{}", p.line, p.column) == *place && p.key == *key && p.message.contains(piece) && p.hint.as_deref().unwrap_or("") == *meant
        };
        if problems.0.len() != 1 || !fits(&problems.0[0]) {
            wrong.push(format!("{more}expected {place} {key} {piece:?} {meant:?}\n{problems}\n"));
        }
        let text = problems.to_string();
        if text.contains("my-secret-token") {
            wrong.push(format!("a token is printed: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), ROUTES.len(), wrong.join("\n"));
}

/// (one action, key, piece of the message, what was meant).
static ACTS: &[(&str, &str, &str, &str)] = &[
    ("{file: f, targets: [a]}", "actions.x.type", "missing; the kind of action (known: webhook, flagd", ""),
    ("{type: flagdd, file: f, targets: [a]}", "actions.x.type", "unknown type", "flagd"),
    ("{type: flagd, targets: [a]}", "actions.x.file", "missing; type flagd needs \"file\"", ""),
    ("{type: flagd, file: f}", "actions.x.targets", "missing; type flagd needs \"targets\"", ""),
    ("{type: flagd, file: f, targets: []}", "actions.x.targets", "an empty list", ""),
    ("{type: flagd, file: f, targets: [\"*\"]}", "actions.x.targets.0", "a target is named in full", ""),
    ("{type: flagd, file: f, targets: [a], per_hour: 0}", "actions.x.per_hour", "expected a whole number from 1 to 1000", ""),
    ("{type: flagd, fiel: f, targets: [a]}", "actions.x.fiel", "unknown key", "file"),
    ("{type: webhook, url: \"http://h.example\", targets: [a]}", "actions.x.secret", "missing; type webhook needs \"secret\" or \"secret_file\"", ""),
    ("{type: webhook, url: h.example, secret: abcdefg, targets: [a]}", "actions.x.url", "no scheme", ""),
    ("{type: webhook, url: \"http://169.254.169.254/\", secret: abcdefg, targets: [a]}", "actions.x.url", "metadata address", ""),
    ("{type: webhook, url: \"http://h.example\", secret_file: /nowhere, targets: [a]}", "actions.x.secret_file", "cannot read", ""),
    ("{type: launchdarkly, token: t, project: p, targets: [a]}", "actions.x.environment", "missing; type launchdarkly needs \"environment\"", ""),
    ("flagd", "actions.x", "expected a table such as {type: flagd", ""),
];

#[test]
fn every_fault_of_an_action_is_told_by_its_key() {
    let good = format!("{ROW}      - {{do: reroute, say: c}}\n");
    let mut wrong = Vec::new();
    for (action, key, piece, meant) in ACTS {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("r.yaml"), &good).unwrap();
        let config = folder.path().join("bellwether.yaml");
        std::fs::write(&config, format!("files: [x]\nrunbooks: r.yaml\nactions: {{x: {action}}}\n")).unwrap();
        let kinds: Vec<_> = bellwether::notify::KINDS.iter().collect();
        let Err(problems) = settings::load(&config, &|_| None, &kinds) else {
            wrong.push(format!("loads: {action}"));
            continue;
        };
        let p = &problems.0[0];
        if problems.0.len() != 1 || p.key != *key || !p.message.contains(piece) || p.hint.as_deref().unwrap_or("") != *meant || p.line != 3 {
            wrong.push(format!("{action}: expected {key} {piece:?} {meant:?}\n{problems}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_folder_that_is_not_there_or_empty_is_told_in_the_configuration() {
    for (path, piece) in [("nowhere", "cannot read"), (".", "holds no file that ends in .yaml")] {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("c.conf");
        std::fs::write(&config, format!("files: [x]\nrunbooks: [{path}]\n")).unwrap();
        let problems = settings::load(&config, &|_| None, &[]).unwrap_err();
        assert!(problems.0.len() == 1 && problems.0[0].key == "runbooks.0" && problems.0[0].message.contains(piece), "{problems}");
    }
}

#[test]
fn every_severity_of_every_category_has_an_action_an_owner_and_a_fallback() {
    let all = settings::built_in();
    let mut seen = BTreeSet::new();
    for r in &all {
        for severity in &r.severity {
            assert!(seen.insert((r.category, *severity)), "{} {severity} twice", r.category);
        }
        assert!(!r.owner.is_empty() && !r.fallback.is_empty(), "{}", r.place);
        assert!(r.steps.iter().any(|s| s.kind.acts()), "{}", r.place);
        assert!(r.steps.first().is_some_and(|s| s.kind.acts()), "{}: the first step is what to do", r.place);
        let has = |kind| r.steps.iter().any(|s| s.kind == kind);
        if r.severity == [1] {
            assert!(has(StepKind::TellLeadership) && r.steps.iter().any(|s| s.kind == StepKind::TellLegal && s.only_if_exposed), "{}", r.place);
            assert!(has(StepKind::TellUsers) || r.category == Category::MonitoringBlind, "{}", r.place);
        }
    }
    assert_eq!(seen.len(), Category::ALL.len() * 3, "rows are missing");
}

#[test]
fn the_schema_of_runbooks_is_kept_beside_them() {
    let schema = format!("{:#}\n", settings::runbook_schema());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/runbooks/schema.json");
    if std::env::var_os("BELLWETHER_RENEW").is_some() {
        std::fs::write(path, &schema).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), schema, "renew it: BELLWETHER_RENEW=1 cargo test --test it runbooks");
}
