//! Tests of settings: what a person reads who got his file wrong, in a table of broken files; and what a right one becomes.

use std::path::Path;

use bellwether::notify::{Common, Form, Kind, Knob, Receiver, Table};
use bellwether::settings::{self, Loaded, Problems, Route, SignalSettings};

// === kinds of receivers that look like the real ones ===

const fn knob(name: &'static str, form: Form, required: bool) -> Knob {
    Knob { name, about: "a knob", form, required }
}

/// Never sends; refuses what only a kind itself can know.
struct Mute;

#[async_trait::async_trait]
impl bellwether::notify::Notifier for Mute {
    async fn deliver(&self, _: bellwether::notify::Errand<'_>, _: bellwether::domain::Time) -> bellwether::domain::delivery::Receipt {
        unreachable!("nothing is delivered in these tests")
    }
    async fn test(&self, _: bellwether::domain::Time) -> bellwether::domain::delivery::Outcome {
        unreachable!("nothing is delivered in these tests")
    }
    fn manner(&self) -> bellwether::notify::Manner {
        bellwether::notify::Manner::VENDOR
    }
}

fn build(_: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    assert!(!common.external_url.ends_with('/'));
    match table.get("url").and_then(|v| v.as_str()) {
        Some(url) if url.contains("forbidden") => Err(vec![("url".into(), "forbidden is not a host to send to".into())]),
        _ => match table.get("routing_key").and_then(|v| v.as_str()) {
            Some(key) if key.len() > 40 => Err(vec![("routing_key".into(), "longer than 40 characters".into())]),
            _ => Ok(Receiver::Messages(Box::new(Mute))),
        },
    }
}

static PAGERDUTY: Kind =
    Kind { name: "pagerduty", about: "pages", knobs: &[knob("routing_key", Form::Secret, true), knob("url", Form::Url, false)], build };
static WEBHOOK: Kind = Kind {
    name: "webhook",
    about: "posts",
    knobs: &[
        knob("url", Form::Url, true),
        knob("secret", Form::Secret, false),
        knob("timeout", Form::Duration, false),
        knob("full", Form::Bool, false),
        knob("headers", Form::Map, false),
        knob("note", Form::Text, false),
    ],
    build,
};
static ALERTMANAGER: Kind = Kind { name: "alertmanager", about: "publishes", knobs: &[knob("url", Form::Url, true)], build: build_state };

fn build_state(_: &str, _: &Common, _: &Table) -> Result<Receiver, Vec<(String, String)>> {
    Ok(Receiver::State(Box::new(Mute)))
}

#[async_trait::async_trait]
impl bellwether::notify::Publisher for Mute {
    async fn publish(
        &self,
        _: &[bellwether::domain::incident::Incident],
        _: &[bellwether::domain::incident::Incident],
        _: bellwether::domain::Time,
    ) -> bellwether::domain::delivery::Outcome {
        unreachable!("nothing is published in these tests")
    }
    async fn test(&self, _: bellwether::domain::Time) -> bellwether::domain::delivery::Outcome {
        unreachable!("nothing is published in these tests")
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "SET" => Some("a-secret-of-the-environment".to_owned()),
        "EMPTY" => Some(String::new()),
        "PAGES" => Some("3".to_owned()),
        "WORD" => Some("many".to_owned()),
        _ => None,
    }
}

fn parse_with(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    settings::parse(text, "bellwether.yaml", env, &[&PAGERDUTY, &WEBHOOK, &ALERTMANAGER])
}

fn parse(text: &str) -> Result<Loaded, Problems> {
    parse_with(text, &env)
}

fn loads(text: &str) -> Loaded {
    parse(text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// Two good lines; what follows begins in line 3.
const BASE: &str = "kafka: {brokers: [\"h:9092\"], topics: [events]}\nreceivers: {oncall: {type: pagerduty, routing_key: k}, team: {type: webhook, url: \"http://t\"}}\n";

// === broken files ===

/// (where, key, piece of the message, what was meant)
type Fault = (&'static str, &'static str, &'static str, &'static str);

/// `+` at the beginning: behind `BASE`.
static BROKEN: &[(&str, &[Fault])] = &[
    // --- not YAML ---
    ("kafka: [1, 2\n", &[("1:8", "", "not YAML: unclosed bracket", "")]),
    ("kafka:\n\tbrokers: [a]\n", &[("2:1", "", "a tab in the indentation", "")]),
    ("kafka:\n  brokers: \"h:9092\n", &[("2:12", "", "not YAML: unclosed quote", "")]),
    ("kafka:\n  brokers: [a]\n topics: [b]\n", &[("3:2", "", "not YAML", "")]),
    ("kafka: {brokers: [a], topics: [b]\nlisten: 1\n", &[("2:1", "", "did not find expected ',' or '}'", "")]),
    ("listen: a: b\n", &[("1:10", "", "not YAML", "")]),
    ("x: *nowhere\n", &[("1:4", "", "not YAML", "")]),
    ("+pane: @10s\n", &[("3:7", "", "not YAML", "")]),
    ("+---\na: 1\n", &[("4:1", "", "a second YAML document begins here", "")]),
    // --- not a configuration ---
    ("", &[("1:1", "kafka", "neither \"kafka\" nor \"files\" is given", "")]),
    ("# nothing yet\n", &[("1:1", "kafka", "neither \"kafka\" nor \"files\" is given", "")]),
    ("- kafka\n", &[("1:1", "", "expected a table", "")]),
    ("hello\n", &[("1:1", "", "expected a table with keys such as kafka and receivers, found \"hello\"", "")]),
    ("+files: [a.ndjson]\n", &[("3:1", "files", "both \"kafka\" and \"files\" are given", "")]),
    ("pane: 10s\n", &[("1:1", "kafka", "say where events come from", "")]),
    // --- unknown keys, at each level ---
    ("kafak: {brokers: [a], topics: [b]}\n", &[("1:1", "kafak", "unknown key \"kafak\"", "kafka")]),
    ("+segmnets: [a]\n", &[("3:1", "segmnets", "unknown key", "segments")]),
    ("+quux: 1\n", &[("3:1", "quux", "unknown key \"quux\" (known: kafka, files, segments", "")]),
    ("+brokers: [a]\n", &[("3:1", "brokers", "unknown key", "kafka.brokers")]),
    ("+false_pages: 2\n", &[("3:1", "false_pages", "unknown key", "budget.false_pages")]),
    ("kafka: {broker: [a], topics: [b]}\n", &[("1:9", "kafka.broker", "unknown key", "brokers")]),
    ("kafka: {brokers: [a], topics: [{nmae: b}]}\n", &[("1:33", "kafka.topics.0.nmae", "unknown key", "name")]),
    ("kafka:\n  brokers: [a]\n  topics: [b]\n  listen: x\n", &[("4:3", "kafka.listen", "unknown key", "listen")]),
    ("+budget: {false_page: 2}\n", &[("3:10", "budget.false_page", "unknown key", "false_pages")]),
    ("+signals:\n  error_rate: {tolerence: 2x}\n", &[("4:16", "signals.error_rate.tolerence", "unknown key", "tolerance")]),
    ("+models:\n  m:\n    ownr: a\n", &[("5:5", "models.m.ownr", "unknown key", "owner")]),
    ("+models: {m: {canaries: {fiel: a}}}\n", &[("3:25", "models.m.canaries.fiel", "unknown key", "file")]),
    ("+baseline: {lern: 1h}\n", &[("3:12", "baseline.lern", "unknown key", "learn")]),
    ("+routes:\n  - {severty: 1, to: oncall}\n  - {to: team}\n", &[("4:6", "routes.0.severty", "unknown key", "severity")]),
    ("+heartbeat: {ulr: \"http://h/\"}\n", &[("3:13", "heartbeat.ulr", "unknown key", "url")]),
    ("+redaction: {alow: [a]}\n", &[("3:13", "redaction.alow", "unknown key", "allow")]),
    ("+dead_letters: {topics: true}\n", &[("3:16", "dead_letters.topics", "unknown key", "topic")]),
    // --- wrong types ---
    (
        "kafka: localhost:9092\n",
        &[("1:8", "kafka", "expected a table (keys: brokers, topics, group, from, properties), found \"localhost:9092\"", "")],
    ),
    ("kafka:\nfiles: x\n", &[("1:1", "kafka", "expected a table", ""), ("2:1", "files", "both", "")]),
    ("kafka: {brokers: 9092, topics: [b]}\n", &[("1:18", "kafka.brokers", "expected text, found 9092; put it in quotes", "")]),
    ("kafka: {brokers: [a], topics: b}\n", &[("1:31", "kafka.topics", "expected a list, found \"b\"", "")]),
    ("kafka: {brokers: [a], topics: []}\n", &[("1:31", "kafka.topics", "an empty list", "")]),
    ("kafka: {brokers: [a], topics: [7]}\n", &[("1:32", "kafka.topics.0", "expected a name or a table with a name, found 7", "")]),
    ("kafka: {brokers: [a], topics: [b], properties: {x: [1]}}\n", &[("1:52", "kafka.properties.x", "expected text, a number or a boolean", "")]),
    (
        "kafka: {brokers: [a], topics: [b], properties: [x]}\n",
        &[("1:48", "kafka.properties", "expected a table by name of property, found a list", "")],
    ),
    ("+segments: {a: b}\n", &[("3:11", "segments", "expected a list, found a table", "")]),
    ("+models: [m]\n", &[("3:9", "models", "expected a table by name of model, found a list", "")]),
    ("+models: {m: credit}\n", &[("3:13", "models.m", "expected a table (keys: owner", "")]),
    ("+instance: 1\n", &[("3:11", "instance", "expected text, found 1; put it in quotes", "")]),
    ("+dead_letters: {topic: yes}\n", &[("3:23", "dead_letters.topic", "expected true or false, found \"yes\"", "true")]),
    ("+routes: {to: oncall}\n", &[("3:9", "routes", "expected a list, found a table", "")]),
    ("+budget:\n", &[("3:1", "budget", "expected a table (keys: false_pages), found nothing", "")]),
    // --- missing keys ---
    ("kafka: {topics: [b]}\n", &[("1:1", "kafka.brokers", "missing; addresses as host:port", "")]),
    ("kafka: {brokers: [a]}\n", &[("1:1", "kafka.topics", "missing; names, or tables", "")]),
    ("kafka: {brokers: [a], topics: [{format: canonical}]}\n", &[("1:32", "kafka.topics.0.name", "missing; the topic", "")]),
    ("+heartbeat: {}\n", &[("3:1", "heartbeat.url", "missing", "")]),
    ("+routes: [{severity: 1}]\n", &[("3:10", "routes.0.to", "missing; names of receivers", "")]),
    // --- durations ---
    ("+pane: 10\n", &[("3:7", "pane", "the duration 10 has no unit", "10s")]),
    ("+pane: 10 sec\n", &[("3:7", "pane", "unknown unit \"sec\"", "10s")]),
    ("+pane: soon\n", &[("3:7", "pane", "\"soon\" is no duration; write one such as 90s, 5m, 1h30m or 7d", "")]),
    ("+pane: 10ms\n", &[("3:7", "pane", "\"10ms\" is out of bounds; allowed is 1s to 1h", "")]),
    ("+pane: 2h\n", &[("3:7", "pane", "allowed is 1s to 1h", "")]),
    ("+lateness: -5s\n", &[("3:11", "lateness", "\"-5s\" is negative", "")]),
    ("+lateness: -5\n", &[("3:11", "lateness", "expected a duration such as 90s", "")]),
    (
        "+max_lateness: 1m
",
        &[("3:1", "max_lateness", "unknown key", "")],
    ),
    ("+baseline: {learn: 1m1h}\n", &[("3:19", "baseline.learn", "h stands behind a unit that is not longer", "")]),
    ("+baseline: {learn: 1s}\n", &[("3:19", "baseline.learn", "allowed is 1m to 90d", "")]),
    (
        "+models: {m: {silence_after: true}}\n",
        &[("3:29", "models.m.silence_after", "expected a duration such as 90s, 5m, 1h30m or 7d, found true", "")],
    ),
    ("kafka: {brokers: [a], topics: [b], from: 99999999d}\n", &[("1:42", "kafka.from", "longer than ten years", "")]),
    // --- numbers, ratios, factors ---
    ("+budget: {false_pages: 0}\n", &[("3:23", "budget.false_pages", "0 is not above 0", "")]),
    ("+budget: {false_pages: few}\n", &[("3:23", "budget.false_pages", "expected a number, found \"few\"", "")]),
    ("+budget: {false_pages: .inf}\n", &[("3:23", "budget.false_pages", "expected a number", "")]),
    ("+budget: {false_pages: \"${WORD}\"}\n", &[("3:23", "budget.false_pages", "expected a number, found \"${WORD}\"", "")]),
    ("+signals: {cost: {tolerance: 1.5}}\n", &[("3:29", "signals.cost.tolerance", "1.5 could be a factor or a ratio", "1.5x")]),
    ("+signals: {cost: {tolerance: 0.8x}}\n", &[("3:29", "signals.cost.tolerance", "the factor \"0.8x\" is not above 1", "20%")]),
    ("+signals: {cost: {tolerance: much}}\n", &[("3:29", "signals.cost.tolerance", "expected a factor such as 1.5x or a ratio such as 20%", "")]),
    ("+signals: {cost: {tolerance: 0%}}\n", &[("3:29", "signals.cost.tolerance", "is not above 0", "")]),
    ("+signals: {error_rate: {at_least: 1.5x}}\n", &[("3:34", "signals.error_rate.at_least", "\"1.5x\" is a factor", "")]),
    ("+signals: {error_rate: {at_least: 5}}\n", &[("3:34", "signals.error_rate.at_least", "5 is above 1, but error_rate is a ratio", "5%")]),
    (
        "+signals: {error_rate: {never_above: 2s}}\n",
        &[("3:37", "signals.error_rate.never_above", "\"2s\" is a duration, but error_rate is none", "")],
    ),
    ("+signals: {cost: {at_least: -1}}\n", &[("3:28", "signals.cost.at_least", "-1 is below 0", "")]),
    ("+signals: {error_rate: {at_least: 5%, never_above: 1%}}\n", &[("3:51", "signals.error_rate.never_above", "is below at_least", "")]),
    // --- words outside closed sets ---
    ("+signals: {eror_rate: {tolerance: 2x}}\n", &[("3:11", "signals.eror_rate", "unknown signal \"eror_rate\"", "error_rate")]),
    ("+signals: {\"fetaure:income\": {tolerance: 2x}}\n", &[("3:11", "signals.fetaure:income", "unknown signal", "feature:income")]),
    ("+signals: {\"latency:p99\": {tolerance: 2x}}\n", &[("3:11", "signals.latency:p99", "unknown signal", "latency")]),
    ("+signals: {vibes: {tolerance: 2x}}\n", &[("3:11", "signals.vibes", "unknown signal \"vibes\" (known: error_rate", "")]),
    ("+routes: [{category: baas, to: oncall}, {to: [oncall, team]}]\n", &[("3:21", "routes.0.category", "unknown category \"baas\"", "bias")]),
    (
        "+routes: [{category: [drift], to: oncall}, {to: [oncall, team]}]\n",
        &[("3:22", "routes.0.category.0", "unknown category \"drift\" (known: harmful_output", "")],
    ),
    (
        "+routes: [{severity: [1, 4], to: oncall}, {to: [oncall, team]}]\n",
        &[("3:25", "routes.0.severity.1", "unknown severity 4 (known: 1 active harm", "")],
    ),
    ("+routes: [{severity: high, to: oncall}, {to: [oncall, team]}]\n", &[("3:21", "routes.0.severity", "unknown severity \"high\"", "")]),
    ("kafka: {brokers: [a], topics: [{name: b, format: cannonical}]}\n", &[("1:50", "kafka.topics.0.format", "unknown format", "canonical")]),
    ("kafka: {brokers: [a], topics: [{name: b, kind: predicton}]}\n", &[("1:48", "kafka.topics.0.kind", "unknown kind", "prediction")]),
    // --- names, addresses ---
    ("kafka: {brokers: [\"http://a:9092\"], topics: [b]}\n", &[("1:19", "kafka.brokers.0", "a broker is host:port, without a scheme", "")]),
    ("kafka: {brokers: [\"a:port\"], topics: [b]}\n", &[("1:19", "kafka.brokers.0", "\"port\" is no port", "")]),
    ("kafka: {brokers: [a], topics: [\"b c\"]}\n", &[("1:32", "kafka.topics.0", "no name of a topic", "")]),
    ("kafka: {brokers: [a], topics: [b, b]}\n", &[("1:35", "kafka.topics.1", "topic \"b\" is named twice", "")]),
    ("kafka: {brokers: [a], topics: [b], properties: {group.id: g}}\n", &[("1:49", "kafka.properties.group.id", "use kafka.group instead", "")]),
    ("+segments: [a, b, a]\n", &[("3:18", "segments.2", "\"a\" is named twice", "")]),
    ("+listen: 9710\n", &[("3:9", "listen", "expected text, found 9710", "")]),
    ("+listen: localhost\n", &[("3:9", "listen", "\"localhost\" is no address with a port", "127.0.0.1:9710")]),
    ("+listen: 0.0.0.0:8080\n", &[("3:9", "listen", "can be reached from other machines, which needs tokens", "127.0.0.1:8080")]),
    ("+external_url: bellwether.example\n", &[("3:15", "external_url", "no scheme such as https://", "")]),
    ("+external_url: ftp://x/\n", &[("3:15", "external_url", "scheme \"ftp\" is neither http nor https", "")]),
    ("+heartbeat: {url: \"http://\"}\n", &[("3:18", "heartbeat.url", "expected an address such as https://", "")]),
    ("+currency: euro\n", &[("3:11", "currency", "is no currency of three capital letters", "")]),
    ("+currency: eur\n", &[("3:11", "currency", "is no currency", "EUR")]),
    ("+instance: \"eu 1\"\n", &[("3:11", "instance", "is no name of up to 64 letters", "")]),
    // --- receivers ---
    ("+receivers: {}\n", &[("3:1", "receivers", "duplicate key \"receivers\"; it stands in line 2 already", "")]),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {tpye: pagerduty, routing_key: k}\n",
        &[("3:12", "receivers.oncall.tpye", "unknown key \"tpye\"", "type")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {routing_key: k}\n",
        &[("3:3", "receivers.oncall.type", "missing; the kind of receiver (known: pagerduty, webhook, alertmanager)", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerdutty, routing_key: k}\n",
        &[("3:18", "receivers.oncall.type", "unknown type", "pagerduty")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: fax}\n",
        &[("3:18", "receivers.oncall.type", "unknown type \"fax\" (known: pagerduty, webhook, alertmanager)", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerduty}\n",
        &[("3:3", "receivers.oncall.routing_key", "missing; type pagerduty needs \"routing_key\" or \"routing_key_file\"", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerduty, routing_kye: k}\n",
        &[("3:29", "receivers.oncall.routing_kye", "unknown key", "routing_key")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerduty, routing_key_fiel: k}\n",
        &[("3:29", "receivers.oncall.routing_key_fiel", "unknown key", "routing_key_file")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  hook: {type: webhook, url: \"http://h\", colour: red}\n",
        &[("3:42", "receivers.hook.colour", "unknown key \"colour\" for type webhook (known: type, url, secret", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerduty, routing_key: k, routing_key_file: f}\n",
        &[("3:45", "receivers.oncall.routing_key_file", "both \"routing_key\" and \"routing_key_file\" are given", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerduty, routing_key_file: /nowhere/key}\n",
        &[("3:47", "receivers.oncall.routing_key_file", "cannot read \"/nowhere/key\"", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerduty, routing_key: 123456}\n",
        &[("3:42", "receivers.oncall.routing_key", "put the secret in quotes", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerduty, routing_key: \"${EMPTY}\"}\n",
        &[("3:42", "receivers.oncall.routing_key", "empty; expected a secret", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerduty, routing_key: k, url: events.example.com}\n",
        &[("3:50", "receivers.oncall.url", "no scheme", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  hook: {type: webhook, url: \"http://forbidden/\"}\n",
        &[("3:30", "receivers.hook.url", "forbidden is not a host to send to", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  hook: {type: webhook, url: \"http://h\", timeout: 5, full: maybe, headers: {a: 1}, note: [x]}\n",
        &[
            ("3:51", "receivers.hook.timeout", "the duration 5 has no unit", "5s"),
            ("3:60", "receivers.hook.full", "expected true or false", ""),
            ("3:80", "receivers.hook.headers.a", "expected text, found 1", ""),
            ("3:90", "receivers.hook.note", "expected text, found a list", ""),
        ],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: pagerduty\n",
        &[("3:11", "receivers.oncall", "expected a table such as {type: pagerduty", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  on call: {type: pagerduty, routing_key: k}\n",
        &[("3:3", "receivers.on call", "is no name", "")],
    ),
    // --- routes ---
    ("+routes: [{to: [oncal]}]\n", &[("3:16", "routes.0.to.0", "unknown receiver \"oncal\" (known: oncall, team)", "oncall")]),
    ("+routes: [{to: nobody}]\n", &[("3:15", "routes.0.to", "unknown receiver \"nobody\" (known: oncall, team)", "")]),
    ("kafka: {brokers: [a], topics: [b]}\nroutes: [{to: oncall}]\n", &[("2:15", "routes.0.to", "unknown receiver \"oncall\" (there are none)", "")]),
    (
        "+segments: [region]\nroutes: [{segment: {regoin: eu}, to: oncall}, {to: team}]\n",
        &[("4:21", "routes.0.segment.regoin", "is not among segments (known: region)", "region")],
    ),
    // --- mappings ---
    ("kafka: {brokers: [a], topics: [{name: b, format: json}]}\n", &[("1:32", "kafka.topics.0.mapping", "missing; format json needs it", "")]),
    (
        "kafka: {brokers: [a], topics: [{name: b, format: canonical, mapping: {id: $.a}}]}\n",
        &[("1:61", "kafka.topics.0.mapping", "format canonical takes no mapping", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [{name: b, format: json, mapping: $.a}]}\n",
        &[("1:65", "kafka.topics.0.mapping", "expected a table of our members", "")],
    ),
    (
        "kafka:\n  brokers: [a]\n  topics:\n    - name: b\n      format: json\n      mapping:\n        kind: prediction\n        id: $.a\n        modle: $.m\n        model: $.m\n",
        &[("9:16", "kafka.topics.0.mapping.modle", "no event has a member \"modle\"", "model")],
    ),
    (
        "kafka:\n  brokers: [a]\n  topics:\n    - {name: b, format: json, mapping: {kind: prediction, id: $.a, model: $.m, latency_ms: {path: $.t, unit: hours}}}\n",
        &[("4:110", "kafka.topics.0.mapping.latency_ms.unit", "unknown unit \"hours\" (known: ns, us, ms, s, min)", "")],
    ),
    (
        "kafka:\n  brokers: [a]\n  topics:\n    - {name: b, format: json, mapping: {kind: prediction, id: fixed, model: $.m}}\n",
        &[("4:63", "kafka.topics.0.mapping.id", "a constant \"fixed\"; it must come from the event", "")],
    ),
    (
        "kafka:\n  brokers: [a]\n  topics:\n    - {name: b, format: json, mapping: {kind: prediction, model: $.m}}\n",
        &[("4:31", "kafka.topics.0.mapping.id", "not mapped; a prediction event needs it", "")],
    ),
    // --- repeated keys ---
    ("+pane: 10s\npane: 20s\n", &[("4:1", "pane", "duplicate key \"pane\"; it stands in line 3 already", "")]),
    ("+models:\n  m: {owner: a}\n  m: {owner: b}\n", &[("5:3", "models.m", "duplicate key", "")]),
    ("+signals: {cost: {tolerance: 2x, tolerance: 3x}}\n", &[("3:33", "signals.cost.tolerance", "duplicate key", "")]),
    // --- environment ---
    ("+instance: \"${NOT_SET}\"\n", &[("3:11", "instance", "environment variable NOT_SET is not set; set it, or write ${NOT_SET:-default}", "")]),
    ("+instance: \"${NOT_SET:?give it a name}\"\n", &[("3:11", "instance", "environment variable NOT_SET is not set or empty: give it a name", "")]),
    ("+instance: \"${EMPTY:?}\"\n", &[("3:11", "instance", "environment variable EMPTY is not set or empty", "")]),
    ("+instance: \"${SET\"\n", &[("3:11", "instance", "\"${\" without \"}\"", "")]),
    ("+instance: \"${SET+x}\"\n", &[("3:11", "instance", "is not understood", "")]),
    ("+instance: \"${}\"\n", &[("3:11", "instance", "names no environment variable", "")]),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  oncall: {type: pagerduty, routing_key: \"${PD_KEY}\"}\n",
        &[("3:42", "receivers.oncall.routing_key", "environment variable PD_KEY is not set", "")],
    ),
    // --- files ---
    ("+models: {m: {canaries: {file: nowhere.txt}}}\n", &[("3:31", "models.m.canaries.file", "cannot read \"nowhere.txt\"", "")]),
    ("files: [a, a]\n", &[("1:12", "files.1", "\"a\" is named twice", "")]),
    ("files: a\ndead_letters: {topic: true}\n", &[("2:23", "dead_letters.topic", "there is no topic without kafka", "")]),
    // --- not yet ---
    ("+runbooks: [nowhere/]\n", &[("3:12", "runbooks.0", "cannot read", "")]),
    ("+people: {legal: [oncal]}\n", &[("3:18", "people.legal.0", "unknown receiver", "oncall")]),
    ("+retention: 90d\n", &[("3:1", "retention", "not available yet", "")]),
    ("+escalation: {levels: soon}\n", &[("3:22", "escalation.levels", "expected a list", "")]),
    ("+tokens: []\n", &[("3:9", "tokens", "an empty list", "")]),
    ("+tls: {cert: a}\n", &[("3:1", "tls", "not available yet", "")]),
    // --- who hears what another does not take, work that comes again, own clocks ---
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  a: {type: webhook, url: \"http://t\", fallback: bb}\n  b: {type: webhook, url: \"http://t\"}\n",
        &[("3:49", "receivers.a.fallback", "unknown receiver \"bb\" (known: b)", "b")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  a: {type: webhook, url: \"http://t\", fallback: a}\n  b: {type: webhook, url: \"http://t\"}\n",
        &[("3:49", "receivers.a.fallback", "cannot be its own fallback", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  a: {type: webhook, url: \"http://t\", fallback: b}\n  b: {type: webhook, url: \"http://t\", fallback: c}\n  c: {type: webhook, url: \"http://t\", fallback: a}\n",
        &[("3:49", "receivers.a.fallback", "goes in a circle (a -> b -> c -> a)", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  a: {type: webhook, url: \"http://t\", fallback: am}\n  am: {type: alertmanager, url: \"http://t\"}\n",
        &[("3:49", "receivers.a.fallback", "takes no messages", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  a: {type: webhook, url: \"http://t\"}\n  am: {type: alertmanager, url: \"http://t\", fallback: a}\n",
        &[("4:55", "receivers.am.fallback", "hands nothing on", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  a: {type: webhook, url: \"http://t\", falback: b}\n  b: {type: webhook, url: \"http://t\"}\n",
        &[("3:39", "receivers.a.falback", "unknown key \"falback\"", "fallback")],
    ),
    ("+maintenance: []\n", &[("3:14", "maintenance", "an empty list", "")]),
    ("+maintenance: {weekly: \"Sun 02:00-04:00\"}\n", &[("3:14", "maintenance", "expected a list", "")]),
    ("+maintenance: [{model: m}]\n", &[("3:15", "maintenance.0.weekly", "missing; say when it comes", "")]),
    ("+maintenance: [{model: m, weekyl: \"Sun 02:00-04:00\"}]\n", &[("3:26", "maintenance.0.weekyl", "unknown key", "weekly")]),
    ("+maintenance: [{model: m, weekly: \"Snu 02:00-04:00\"}]\n", &[("3:34", "maintenance.0.weekly", "\"Snu\" is no day", "Sun")]),
    (
        "+maintenance: [{model: m, weekly: \"Sun 02:00-04:00\", timezone: Europe/Berlln}]\n",
        &[("3:63", "maintenance.0.timezone", "unknown time zone \"Europe/Berlln\"", "Europe/Berlin")],
    ),
    ("+maintenance: [{model: m, weekly: \"Sun 02:00-04:00\", daily: \"02:00-03:00\"}]\n", &[("3:53", "maintenance.0.daily", "keep one", "")]),
    ("+maintenance: [{daily: \"Sun 02:00-03:00\"}]\n", &[("3:23", "maintenance.0.daily", "names days", "02:00-03:00")]),
    ("+maintenance: [{daily: \"02:00-03:00\", category: cost}]\n", &[("3:48", "maintenance.0.category", "unknown category \"cost\"", "")]),
    (
        "+maintenance: [{daily: \"02:00-03:00\", segment: {region: eu, tier: free}}]\n",
        &[("3:60", "maintenance.0.segment", "one segment of a window is enough", "")],
    ),
    (
        "+escalation: {clocks: [{name: own, words: tell, after: 4, checked_on: \"2026-09-01\"}]}\n",
        &[("3:55", "escalation.clocks.0.after", "has no unit", "4s")],
    ),
    (
        "+escalation: {clocks: [{name: own, after: 4h, checked_on: \"2026-09-01\"}]}\n",
        &[("3:23", "escalation.clocks.0.words", "missing; what is to be reported", "")],
    ),
    (
        "+escalation: {clocks: [gdpr_72h, {name: gdpr_72h, words: tell, after: 4h, checked_on: \"2026-09-01\"}]}\n",
        &[("3:33", "escalation.clocks.1", "named twice", "")],
    ),
    ("+redaction: {deny: [a]}\n", &[("3:13", "redaction.deny", "not available yet", "")]),
    ("+baseline: {reference: ref.parquet}\n", &[("3:12", "baseline.reference", "not available yet", "")]),
    ("+routes: [{hours: office, to: oncall}, {to: team}]\n", &[("3:11", "routes.0.hours", "not available yet", "")]),
    (
        "kafka: {brokers: [a], topics: [{name: b, format: kserve}]}\n",
        &[("1:50", "kafka.topics.0.format", "format \"kserve\" is not available yet (available: canonical, json)", "")],
    ),
    (
        "kafka: {brokers: [a], topics: [b]}\nreceivers:\n  team: {type: discord, channel: \"#ml\"}\n",
        &[("3:16", "receivers.team.type", "type \"discord\" is not available yet", "")],
    ),
    // --- several at once ---
    (
        "kafka:\n  brokers: [a]\n  topics: [b]\n  form: 7d\npane: 10\nreceivers:\n  oncall: {tpye: pagerduty}\n  am: {type: alertmanager}\nroutes:\n  - {severity: 5, to: [oncal]}\nretention: 9d\nlisten: 0.0.0.0:1\n",
        &[
            ("4:3", "kafka.form", "unknown key", "from"),
            ("5:7", "pane", "no unit", "10s"),
            ("7:12", "receivers.oncall.tpye", "unknown key", "type"),
            ("8:3", "receivers.am.url", "missing; type alertmanager needs \"url\"", ""),
            ("10:16", "routes.0.severity", "unknown severity 5", ""),
            ("10:24", "routes.0.to.0", "unknown receiver", "oncall"),
            ("11:1", "retention", "not available yet", ""),
            ("12:9", "listen", "which needs tokens", "127.0.0.1:1"),
        ],
    ),
];

#[test]
fn every_fault_of_a_broken_file_is_shown_at_its_place() {
    assert!(BROKEN.len() >= 100, "{} broken files", BROKEN.len());
    let mut wrong = Vec::new();
    for (text, faults) in BROKEN {
        let text = text.strip_prefix('+').map_or_else(|| (*text).to_owned(), |rest| format!("{BASE}{rest}"));
        let Err(problems) = parse(&text) else {
            wrong.push(format!("loads:\n{text}"));
            continue;
        };
        let is_right = problems.0.len() == faults.len()
            && problems.0.iter().zip(*faults).all(|(problem, (place, key, piece, meant))| {
                format!("{}:{}", problem.line, problem.column) == *place
                    && problem.key == *key
                    && problem.message.contains(piece)
                    && problem.hint.as_deref().unwrap_or("") == *meant
            });
        if !is_right {
            wrong.push(format!("{text}expected {faults:?}\n{problems}\n"));
        }
        for problem in &problems.0 {
            // The place is where the offending text stands.
            let there = text.lines().nth(problem.line as usize - 1).unwrap_or("").get(problem.column as usize - 1..).unwrap_or("");
            let begins = there.trim_start_matches('"').starts_with(&problem.found);
            assert!(begins || problem.found.starts_with("a "), "{problem} points at {there:?}, not at {:?}", problem.found);
            let line = problem.to_string();
            assert!(line.starts_with(&format!("bellwether.yaml:{}:{}: ", problem.line, problem.column)), "{line}");
            assert!(!line.contains("a-secret-of-the-environment") && !line.contains('\n'), "{line}");
        }
    }
    assert!(wrong.is_empty(), "{} of {}\n{}", wrong.len(), BROKEN.len(), wrong.join("\n"));
}

#[test]
fn a_fault_reads_as_one_line() {
    let text = "kafka: {brokers: [a], topics: [b]}\nreceivers:\n    oncall: {tpye: pagerduty}\n";
    let problems = parse(text).expect_err("broken");
    assert_eq!(problems.to_string(), "bellwether.yaml:3:14: receivers.oncall.tpye: unknown key \"tpye\"; did you mean \"type\"?");
}

#[test]
fn a_file_that_is_not_there_says_so() {
    let problems = settings::load(Path::new("/nowhere/bellwether.yaml"), &env, &[]).expect_err("absent");
    assert!(problems.to_string().starts_with("/nowhere/bellwether.yaml: cannot be read: "), "{problems}");
}

// === right files ===

#[test]
fn the_smallest_file_has_every_default() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key"), "secret-key\n").expect("written");
    let path = folder.path().join("bellwether.yaml");
    let text = "kafka:\n  brokers: [localhost:9092]\n  topics: [model-events]\nreceivers:\n  oncall: {type: pagerduty, routing_key_file: key}\n";
    std::fs::write(&path, text).expect("written");
    let loaded = settings::load(&path, &env, &[&PAGERDUTY]).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let s = loaded.settings;
    let kafka = s.kafka.as_ref().expect("kafka");
    assert_eq!((kafka.brokers.join(","), kafka.group.as_str(), kafka.from_ms), ("localhost:9092".to_owned(), "bellwether", 7 * 86_400_000));
    assert_eq!((kafka.topics[0].name.as_str(), kafka.topics[0].format.as_str()), ("model-events", "canonical"));
    assert_eq!((s.pane_ms, s.lateness_ms, s.learn_ms), (10_000, 30_000, 86_400_000));
    assert_eq!((s.budget_false_pages, s.listen.as_str(), s.instance.as_str()), (2.0, "127.0.0.1:9710", "default"));
    assert_eq!((s.external_url.as_str(), s.currency.as_str()), ("http://127.0.0.1:9710", "USD"));
    assert_eq!((s.data_dir.as_path(), s.dead_letter_topic, s.dead_letter_file), (Path::new("./bellwether-data"), false, None));
    assert_eq!(s.routes, [Route { to: vec!["oncall".to_owned()], ..Route::default() }]);
    let receiver = &s.receivers["oncall"];
    assert_eq!((receiver.line, receiver.column), (5, 3));
    // A relative path of the file lies beside the file.
    assert_eq!(receiver.table["routing_key_file"], folder.path().join("key").display().to_string());
}

#[test]
fn a_full_file_says_all_it_can() {
    let text = r#"
kafka:
  brokers: a:9092
  topics:
    - model-events
    - {name: scores, mapping: {kind: prediction, model: $.m, id: $.uid, time: {path: $.ts, unit: ms}, latency_ms: $.took}}
    - {name: labels, kind: outcome}
  from: 1h30m
  properties: {security.protocol: SASL_SSL, sasl.password: "${SET}", session.timeout.ms: 6000, enable.x: true}
segments: [region, tier]
budget: {false_pages: "${PAGES}"}
signals:
  error_rate: {tolerance: 1.5x, at_least: 0.5%, never_above: 5%}
  cost: {tolerance: 20%}
  "feature:income": {tolerance: 0.3}
  feature: {tolerance: 3x}
  latency: {never_above: 2s, at_least: 50}
models:
  Loan.Scorer-2:
    owner: credit-ml
    exposure: [eu, legal]
    intended_use: {region: [eu, us]}
    silence_after: 5m
  assistant: {canaries: {list: [zq-canary-7f31]}}
receivers:
  oncall: {type: pagerduty, routing_key: "p$$w${SET}"}
  hook: {type: webhook, url: "https://user:pass@hooks.example/ml?token=abc", secret: "${NOPE:-fallback}", full: "true", headers: {Authorization: Basic}}
  am: {type: alertmanager, url: "http://am-0:9093, http://am-1:9093"}
routes:
  - {severity: [1, 2], category: bias, segment: {region: eu}, environment: prod, model: [Loan.Scorer-2], owner: credit-ml, to: [oncall, am]}
  - {to: hook}
heartbeat: {url: "https://hc.example/secret-uuid"}
listen: "[::1]:0"
external_url: https://bellwether.example/
redaction: {allow: [region]}
dead_letters: {topic: true, file: dead.ndjson}
"#;
    let loaded = loads(text);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let s = loaded.settings;
    let kafka = s.kafka.as_ref().expect("kafka");
    assert_eq!(kafka.from_ms, 5_400_000);
    assert_eq!(kafka.properties["sasl.password"], "a-secret-of-the-environment");
    assert_eq!((kafka.properties["session.timeout.ms"].as_str(), kafka.properties["enable.x"].as_str()), ("6000", "true"));
    assert_eq!(kafka.topics[1].format, "json");
    assert_eq!(kafka.topics[2].kind.as_deref(), Some("outcome"));
    assert_eq!(s.budget_false_pages, 3.0);
    assert_eq!(s.signals["error_rate"], SignalSettings { tolerance: Some(0.5), at_least: Some(0.005), never_above: Some(0.05) });
    assert_eq!(s.signals["latency"], SignalSettings { tolerance: None, at_least: Some(50.0), never_above: Some(2_000.0) });
    assert_eq!(
        (s.signals["cost"].tolerance, s.signals["feature:income"].tolerance, s.signals["feature"].tolerance),
        (Some(0.2), Some(0.3), Some(2.0))
    );
    assert_eq!(s.models["Loan.Scorer-2"].intended_use["region"], ["eu", "us"]);
    assert_eq!(s.models["Loan.Scorer-2"].silence_after_ms, Some(300_000));
    assert_eq!(s.models["assistant"].canaries, ["zq-canary-7f31"]);
    assert_eq!(s.receivers["oncall"].table["routing_key"], "p$wa-secret-of-the-environment");
    assert_eq!(s.receivers["hook"].table["secret"], "fallback");
    assert_eq!(s.receivers["hook"].table["full"], true);
    assert_eq!(s.routes[0].severity, [1, 2]);
    assert_eq!(s.routes[0].segment, [("region".to_owned(), "eu".to_owned())]);
    assert_eq!(s.routes[1].to, ["hook"]);
    assert_eq!((s.listen.as_str(), s.external_url.as_str()), ("[::1]:0", "https://bellwether.example"));
    for shown in [settings::redacted(&s), format!("{s:?}")] {
        for secret in ["a-secret-of", "fallback", "p$w", "zq-canary", "Basic"] {
            assert!(!shown.contains(secret), "{secret} in\n{shown}");
        }
    }
    let shown = settings::redacted(&s);
    for secret in ["user:pass", "token=abc", "secret-uuid"] {
        assert!(!shown.contains(secret), "{secret} in\n{shown}");
    }
    for said in ["routing_key: \"<secret>\"", "silence_after: 5m", "from: 1h30m", "\"sasl.password\": \"<secret>\"", "tolerance: 1.5x"] {
        assert!(shown.contains(said), "{said} not in\n{shown}");
    }
    // What is in force is itself a file.
    let again = loads(&shown).settings;
    assert_eq!((again.signals, again.routes, again.pane_ms), (s.signals, s.routes, s.pane_ms));
}

#[test]
fn the_environment_overrides_the_file_and_the_file_the_defaults() {
    let over = |name: &str| match name {
        "BELLWETHER__PANE" => Some("20s".to_owned()),
        "BELLWETHER__KAFKA__BROKERS" => Some("x:1, y:2".to_owned()),
        "BELLWETHER__BUDGET__FALSE_PAGES" => Some("5".to_owned()),
        "BELLWETHER__MODELS__LOAN_SCORER__OWNER" => Some("others".to_owned()),
        "BELLWETHER__RECEIVERS__ONCALL__ROUTING_KEY" => Some("from-env".to_owned()),
        _ => None,
    };
    let text = format!("{BASE}pane: 5s\nlateness: 15s\nmodels: {{Loan-Scorer: {{exposure: eu}}}}\n");
    let s = parse_with(&text, &over).unwrap_or_else(|problems| panic!("{problems}")).settings;
    assert_eq!((s.pane_ms, s.lateness_ms, s.budget_false_pages), (20_000, 15_000, 5.0));
    assert_eq!(s.kafka.as_ref().expect("kafka").brokers, ["x:1", "y:2"]);
    assert_eq!((s.models["Loan-Scorer"].owner.as_deref(), s.models["Loan-Scorer"].exposure.as_slice()), (Some("others"), &["eu".to_owned()][..]));
    assert_eq!(s.receivers["oncall"].table["routing_key"], "from-env");

    let alone = |name: &str| match name {
        "BELLWETHER__KAFKA__BROKERS" => Some("x:1".to_owned()),
        "BELLWETHER__KAFKA__TOPICS" => Some("a,b".to_owned()),
        "STATE_DIRECTORY" => Some("/var/lib/bellwether:/other".to_owned()),
        _ => None,
    };
    let s = parse_with("", &alone).unwrap_or_else(|problems| panic!("{problems}")).settings;
    assert_eq!(s.kafka.as_ref().expect("kafka").topics.len(), 2);
    assert_eq!((s.kafka.as_ref().expect("kafka").group.as_str(), s.data_dir.as_path()), ("bellwether", Path::new("/var/lib/bellwether")));

    let wrong = |name: &str| (name == "BELLWETHER__PANE").then(|| "soon".to_owned());
    let problems = parse_with(BASE, &wrong).expect_err("broken");
    assert!(problems.to_string().starts_with("environment variable BELLWETHER__PANE: pane: \"soon\" is no duration"), "{problems}");
}

#[test]
fn what_is_likely_not_meant_is_a_warning() {
    let check = |text: &str, expected: &[(&str, &str)]| {
        let warnings = loads(text).warnings;
        let found: Vec<_> = warnings.iter().map(|w| (w.key.as_str(), w.message.as_str())).collect();
        assert!(found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.0 == e.0 && f.1.contains(e.1)), "{text}\n{found:?}");
    };
    check("files: a\n", &[("receivers", "nobody is told")]);
    check(&format!("{BASE}routes: [{{severity: 1, to: [oncall, team]}}]\n"), &[("routes.0", "the last route has a condition")]);
    check(&format!("{BASE}routes: [{{to: oncall}}, {{to: team}}]\n"), &[("routes.0", "never reached")]);
    check(&format!("{BASE}routes: [{{to: oncall}}]\n"), &[("receivers.team", "no route leads to it")]);
    check(&format!("{BASE}models: {{m: {{canaries: {{list: [abc]}}}}}}\n"), &[("models.m.canaries", "shorter than 8 characters")]);
    check(&format!("{BASE}models: {{m: {{intended_use: {{colour: red}}}}}}\n"), &[("models.m.intended_use.colour", "is not among segments")]);
}

#[test]
fn canaries_lie_beside_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("canaries.txt"), "first-canary\n\n second-canary \n").expect("written");
    let path = folder.path().join("bellwether.yaml");
    std::fs::write(&path, "files: [\"-\"]\nmodels: {m: {canaries: {file: canaries.txt}}}\n").expect("written");
    let loaded = settings::load(&path, &env, &[]).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.settings.models["m"].canaries, ["first-canary", "second-canary"]);
}

#[test]
fn anchors_and_merges_work() {
    let text = format!("{BASE}models:\n  a: &base {{owner: x, exposure: [eu]}}\n  b: {{<<: *base, owner: y}}\n");
    let s = loads(&text).settings;
    assert_eq!((s.models["b"].owner.as_deref(), s.models["b"].exposure.len()), (Some("y"), 1));
}

#[test]
fn a_fallback_is_the_one_that_is_named_or_the_next_by_name_and_the_chain_ends() {
    let hooks = |rows: &[(&str, &str)]| {
        let mut text = "kafka: {brokers: [a], topics: [b]}\nreceivers:\n".to_owned();
        for (name, to) in rows {
            let (kind, to) = if *to == "state" { ("alertmanager", "") } else { ("webhook", *to) };
            let fallback = if to.is_empty() { String::new() } else { format!(", fallback: {to}") };
            text.push_str(&format!("  {name}: {{type: {kind}, url: \"http://t\"{fallback}}}\n"));
        }
        let settings = loads(&text).settings;
        let words = settings.fallbacks().iter().map(|(from, to)| format!("{from}>{to}")).collect::<Vec<_>>().join(" ");
        (words, settings.routes[0].to.join(" "))
    };
    let ok = |rows: &[(&str, &str)], chain: &str, told: &str| assert_eq!(hooks(rows), (chain.to_owned(), told.to_owned()), "{rows:?}");
    ok(&[("a", ""), ("b", ""), ("c", "")], "a>b b>c", "a b c");
    ok(&[("a", ""), ("am", "state"), ("b", "")], "a>b", "a am b");
    // Whoever is only named as a fallback hears nothing else, and nobody leads back.
    ok(&[("a", ""), ("b", ""), ("c", "a")], "a>b c>a", "b c");
    ok(&[("a", "c"), ("b", ""), ("c", "")], "a>c b>c", "a b");
    ok(&[("a", ""), ("b", "a")], "b>a", "b");
}

#[test]
fn windows_and_own_clocks_become_what_they_say() {
    let text = format!(
        "{BASE}segments: [region]\nmaintenance:\n  - {{model: m, segment: {{region: eu}}, weekly: \"Sat,Sun 22:00-06:00\", timezone: Europe/Berlin, why: \"new \\\"features\\\"\", harm: true}}\n  - {{daily: \"02:00-03:00\"}}\n\
         escalation: {{clocks: [gdpr_72h, {{name: own_4h, words: tell the customer, after: 4h, category: data_breach, checked_on: \"2026-11-01\"}}]}}\n"
    );
    let settings = loads(&text).settings;
    assert_eq!(settings.maintenance[0].words(), "model=m, region=eu: Sat,Sun 22:00-06:00 Europe/Berlin");
    assert_eq!(settings.maintenance[1].words(), "everything: 02:00-03:00 UTC");
    let clocks: Vec<(&str, i64, usize)> = settings.clocks.iter().map(|c| (c.name.as_str(), c.after_ms, c.categories.len())).collect();
    assert_eq!(clocks, [("gdpr_72h", 72 * 3_600_000, 1), ("own_4h", 4 * 3_600_000, 1)]);
    // What is shown as in force is a configuration that says the same.
    let shown = settings::redacted(&settings).replace("<secret>", "k");
    let again = parse(&shown).unwrap_or_else(|problems| panic!("{shown}\n{problems}")).settings;
    assert_eq!((again.maintenance, again.clocks), (settings.maintenance, settings.clocks));
}

// === sample and schema ===

fn sample_env(name: &str) -> Option<String> {
    matches!(name, "PAGERDUTY_ROUTING_KEY" | "KAFKA_PASSWORD" | "SWITCH_SECRET").then(|| "k".to_owned())
}

#[test]
fn the_sample_in_the_repository_is_the_one_generated() {
    if std::env::var_os("BELLWETHER_RENEW").is_some() {
        std::fs::write("sample.yaml", settings::sample()).expect("written");
    }
    let committed = std::fs::read_to_string("sample.yaml").unwrap_or_default();
    assert!(committed == settings::sample(), "sample.yaml is out of date; renew it with BELLWETHER_RENEW=1 cargo test --test it settings");
}

#[test]
fn the_sample_loads_and_all_of_it_does() {
    let sample = settings::sample();
    let loaded = parse_with(&sample, &sample_env).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let all: Vec<String> = sample
        .lines()
        .filter(|line| !line.starts_with("# files:") && !line.starts_with("# runbooks:"))
        .map(|line| {
            let body = line.trim_start();
            let indent = &line[..line.len() - body.len()];
            body.strip_prefix("# ").map_or_else(|| line.to_owned(), |setting| format!("{indent}{setting}"))
        })
        .collect();
    let all = all.join("\n");
    let full = parse_with(&all, &sample_env).unwrap_or_else(|problems| panic!("{all}\n{problems}"));
    assert!(full.warnings.is_empty(), "{:?}", full.warnings);
    let (mut s, d) = (full.settings, loaded.settings);
    assert_eq!(s.kafka.as_ref().expect("kafka").topics.len(), 2);
    assert_eq!((s.signals.len(), s.models.len(), s.routes.len()), (3, 2, 2));
    // What the sample shows as a default is the default.
    s.kafka = None;
    let defaults = |s: &settings::Settings| (s.pane_ms, s.lateness_ms, s.budget_false_pages, s.learn_ms, s.listen.clone(), s.currency.clone());
    assert_eq!(defaults(&s), defaults(&d));
}

#[test]
fn the_schema_knows_the_keys_that_the_checks_know() {
    let schema = settings::schema_for(&[&PAGERDUTY, &WEBHOOK]);
    let keys: Vec<_> = schema["properties"].as_object().expect("properties").keys().cloned().collect();
    // The list of known keys in a message comes from the checks.
    let problems = parse(&format!("{BASE}quux: 1\n")).expect_err("broken");
    let known = problems.0[0].message.split("(known: ").nth(1).expect("a list").trim_end_matches(')');
    let mut known: Vec<_> = known.split(", ").map(str::to_owned).collect();
    known.sort();
    let mut sorted = keys;
    sorted.sort();
    assert_eq!(sorted, known);
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["kafka"]["required"], serde_json::json!(["brokers", "topics"]));
    let receivers = &schema["properties"]["receivers"]["additionalProperties"]["anyOf"];
    assert!(receivers[0]["properties"].get("routing_key_file").is_some(), "{receivers}");
    assert!(settings::schema()["properties"]["receivers"]["additionalProperties"].get("anyOf").is_none());
    assert!(!schema.to_string().contains("$ref"));
}
