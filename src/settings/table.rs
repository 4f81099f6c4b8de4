//! Every key of the file, in the order in which the sample shows them. Checks, environment, schema and sample read this table.
//!
//! A key that a later version will serve stands here too, as [`Shape::Later`]: it is refused in words that say so, because
//! "unknown key" would send its reader off to look for a misspelling.

use super::form::{self, Fault};
use crate::domain::{Body, Category};

pub struct Key {
    pub name: &'static str,
    /// A sentence for the sample and the schema.
    pub about: &'static str,
    pub shape: Shape,
    /// As it would be written. A section that requires keys has its defaults only where it is present.
    pub default: Option<&'static str>,
    pub required: bool,
    /// What the sample shows: the rest of the line, or whole lines below the key if it begins with a line break.
    pub sample: &'static str,
    /// In force in the sample, not commented out.
    pub active: bool,
}

pub enum Shape {
    Text(fn(&str) -> Result<(), Fault>),
    /// A path to a file or folder.
    Path,
    /// One of a closed set; `later` are words that are not available yet.
    Word {
        what: &'static str,
        known: &'static [&'static str],
        later: &'static [&'static str],
    },
    Bool,
    /// A number above 0.
    Number,
    /// A severity from 1 to 3.
    Level,
    /// Bounds in milliseconds, both allowed.
    Duration {
        ms_min: i64,
        ms_max: i64,
    },
    Tolerance,
    Amount,
    /// Hours of the week.
    Hours(fn(&str) -> Result<super::windows::Hours, Fault>),
    /// A text, number or boolean that is handed on as text, and is not quoted in messages.
    Scalar,
    List(&'static Shape),
    /// A list, or one value instead of a list of one.
    OneOrMany(&'static Shape),
    Section(&'static [Key]),
    /// Names of the user's to values of one shape.
    Named {
        what: &'static str,
        name: fn(&str) -> Result<(), Fault>,
        of: &'static Shape,
    },
    /// A section, or a word that stands for one.
    WordOr(&'static Shape, &'static [Key]),
    /// A section for which a text may stand, which is then its `name`.
    NameOr(&'static [Key]),
    /// Our members to theirs; `decode` checks it.
    Mapping,
    /// A section whose keys depend on `type`.
    Receiver,
    /// The same, of actions.
    Action,
    Later,
}

pub(super) const fn key(name: &'static str, about: &'static str, shape: Shape) -> Key {
    Key { name, about, shape, default: None, required: false, sample: "", active: false }
}

const fn later(name: &'static str) -> Key {
    key(name, "not available yet", Shape::Later)
}

impl Key {
    pub(super) const fn default(self, text: &'static str) -> Key {
        Key { default: Some(text), ..self }
    }
    pub(super) const fn required(self) -> Key {
        Key { required: true, ..self }
    }
    const fn sample(self, text: &'static str) -> Key {
        Key { sample: text, ..self }
    }
    const fn active(self, text: &'static str) -> Key {
        Key { sample: text, active: true, ..self }
    }
}

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

const ANY: Shape = Shape::Text(form::any);
const ANY_LIST: Shape = Shape::OneOrMany(&ANY);

/// Formats that a later version reads.
const FORMATS_LATER: &[&str] = &["kserve", "seldon", "otlp", "openinference", "cloudevents", "avro", "protobuf", "mlflow", "whylogs", "panes"];

/// Kinds of receivers that a later version has.
pub const RECEIVERS_LATER: &[&str] = &["discord", "telegram", "mattermost", "incidentio", "rootly", "grafana_oncall", "sns", "exec"];

/// Properties of librdkafka that the daemon sets itself, with the key that serves instead.
pub const PROPERTIES_OURS: &[(&str, &str)] = &[
    ("bootstrap.servers", "kafka.brokers"),
    ("metadata.broker.list", "kafka.brokers"),
    ("group.id", "kafka.group"),
    ("enable.auto.commit", ""),
    ("enable.auto.offset.store", ""),
    ("auto.offset.reset", "kafka.from"),
];

pub static ROOT: &[Key] = &[
    key("kafka", "Where events come from.", Shape::Section(KAFKA)),
    key("files", "Read these NDJSON files instead of Kafka; \"-\" is the standard input.", Shape::OneOrMany(&Shape::Path)).sample("[events.ndjson]"),
    key("segments", "Dimensions of events whose values get series of their own.", Shape::OneOrMany(&ANY)).sample("[region, tier]"),
    key("pane", "Events are counted in panes of this length.", Shape::Duration { ms_min: SECOND, ms_max: HOUR }).default("10s"),
    key("lateness", "How long a pane waits for late events.", Shape::Duration { ms_min: 0, ms_max: DAY }).default("30s"),
    key("budget", "How many false pages are acceptable.", Shape::Section(BUDGET)),
    key(
        "signals",
        "What change of a signal, or of a family of signals, is worth waking for.",
        Shape::Named { what: "signal", name: signal_name, of: &Shape::Section(SIGNAL) },
    )
    .sample("\n  error_rate: {tolerance: 1.5x, at_least: 0.5%, never_above: 5%}\n  cost: {tolerance: 1.3x}\n  latency: {tolerance: 20%, never_above: 2s}"),
    key("models", "What only people know of their models.", Shape::Named { what: "model", name: form::any, of: &Shape::Section(MODEL) }).sample(
        "\n  loan-scorer:\n    owner: credit-ml\n    protected: [age_band]\n    favourable: [approved]\n    exposure: [eu, legal]\n    intended_use: {region: [eu, us]}\n    silence_after: 5m\n  assistant:\n    canaries: {list: [\"zq-canary-7f31\"]}",
    ),
    key("baseline", "What normal is.", Shape::Section(BASELINE)),
    key("receivers", "Who is told, by name.", Shape::Named { what: "receiver", name: form::name, of: &Shape::Receiver })
        .active("\n  oncall: {type: pagerduty, routing_key: \"${PAGERDUTY_ROUTING_KEY}\"}"),
    key("routes", "Who is told what; the first match wins, and the last has no condition.", Shape::List(&Shape::Section(ROUTE)))
        .sample("\n  - {severity: [1, 2], to: [oncall]}\n  - {to: [oncall]}"),
    key("heartbeat", "Sent while the whole way works; its absence must page elsewhere.", Shape::Section(HEARTBEAT)),
    key("listen", "Where the pages and the API are; an address of this machine.", Shape::Text(form::listen)).default("127.0.0.1:9710"),
    key("instance", "Part of every key that receivers see.", Shape::Text(form::name)).default("default"),
    key("external_url", "For links in messages; http:// and listen if left out.", Shape::Text(form::url)).sample("\"https://bellwether.example\""),
    key("currency", "Of costs (ISO 4217).", Shape::Text(form::currency)).default("USD"),
    key("data_dir", "Where state is kept; $STATE_DIRECTORY if left out, and ./bellwether-data without that.", Shape::Path).sample("./bellwether-data"),
    key("redaction", "What may be shown of events.", Shape::Section(REDACTION)),
    key("dead_letters", "Where records go that cannot be read.", Shape::Section(DEAD_LETTERS)),
    key("runbooks", "Files of runbooks, or folders of them; they go before the built-in ones.", Shape::OneOrMany(&Shape::Path)).sample("[runbooks/]"),
    key("actions", "What runbooks may carry out, by name.", Shape::Named { what: "action", name: form::name, of: &Shape::Action }).sample(
        "\n  flags: {type: flagd, file: /etc/flagd/flags.json, targets: [assistant-mode]}\n  switch: {type: webhook, url: \"https://ops.example/bellwether\", secret: \"${SWITCH_SECRET}\", targets: [loan-scorer], per_hour: 4}",
    ),
    key("approval", "Who must agree before something is changed.", Shape::Section(APPROVAL)),
    key("people", "Who is told on escalation: names of receivers.", Shape::Section(PEOPLE)),
    key("escalation", "Who is told when nobody acknowledges, and which duties to report are counted.", Shape::Section(ESCALATION)),
    key("tokens", "Who may come in; needed to listen beyond this machine.", Shape::List(&Shape::Section(TOKEN))).sample(
        "\n  - {name: ana, role: approver, sha256: \"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8\"}",
    ),
    later("retention"),
    later("tls"),
    key(
        "maintenance",
        "Work that comes again and again: meanwhile what fits is listed, and calls if it lasts longer.",
        Shape::List(&Shape::Section(WINDOW)),
    )
    .sample(
        "\n  - {model: loan-scorer, weekly: \"Sun 02:00-04:00\", timezone: Europe/Berlin, why: the features are built anew}\n  - {environment: staging, daily: \"22:00-06:00\"}",
    ),
];

static KAFKA: &[Key] = &[
    key("brokers", "Addresses as host:port.", Shape::OneOrMany(&Shape::Text(form::broker))).required().active("[\"localhost:9092\"]"),
    key("topics", "Names, or tables of name, format, mapping and kind.", Shape::List(&Shape::NameOr(TOPIC))).required().active(
        "\n    - model-events\n    # - {name: scores, format: json, mapping: {kind: prediction, model: $.m, id: $.uid, time: {path: $.ts, unit: ms}, latency_ms: $.took}}",
    ),
    key("group", "The consumer group.", Shape::Text(form::any)).default("bellwether"),
    key("from", "How far back the first start reads to learn.", Shape::Duration { ms_min: 0, ms_max: 3_650 * DAY }).default("7d"),
    key(
        "properties",
        "Handed to librdkafka as they are.",
        Shape::Named { what: "property", name: property, of: &Shape::Scalar },
    )
    .sample("{security.protocol: SASL_SSL, sasl.username: bellwether, sasl.password: \"${KAFKA_PASSWORD}\"}"),
];

static TOPIC: &[Key] = &[
    key("name", "The topic.", Shape::Text(form::topic)).required(),
    key("format", "How its events are written.", Shape::Word { what: "format", known: &["canonical", "json"], later: FORMATS_LATER })
        .default("canonical"),
    key("mapping", "Our members, each with where it lies in the user's events.", Shape::Mapping),
    key("kind", "The kind of events that name none.", Shape::Word { what: "kind", known: Body::KINDS, later: &[] }),
];

static BUDGET: &[Key] = &[key("false_pages", "False pages in 30 days, over everything watched.", Shape::Number).default("2")];

static SIGNAL: &[Key] = &[
    key("tolerance", "Relative change that is tolerated: a factor such as 1.5x or a ratio such as 20%.", Shape::Tolerance),
    key("at_least", "Below this value nothing pages.", Shape::Amount),
    key("never_above", "Above this value always pages.", Shape::Amount),
];

static MODEL: &[Key] = &[
    key("owner", "The team that answers for it.", ANY),
    key("exposure", "What makes its failures worse, such as eu or legal.", ANY_LIST),
    key("intended_use", "Segments to the values it was made for.", Shape::Named { what: "segment", name: form::any, of: &ANY_LIST }),
    key("silence_after", "Silence of this length is an incident; learned if left out.", Shape::Duration { ms_min: SECOND, ms_max: 90 * DAY }),
    key("canaries", "Planted strings; one seen in an output is a page.", Shape::Section(CANARIES)),
    key("protected", "Attributes of `groups` whose groups must be served alike, such as age_band.", ANY_LIST),
    key("favourable", "Labels that are good for whom they befall; approved, accepted, yes, true, pass and the like if left out.", ANY_LIST),
    key("reference", "A table of predictions (CSV or NDJSON), beside the configuration: what is normal before the first event.", Shape::Path),
    key("baseline", "The same, as a section.", Shape::Section(MODEL_BASELINE)),
];

static MODEL_BASELINE: &[Key] = &[key("reference", "A table of predictions, beside the configuration.", Shape::Path)];

static CANARIES: &[Key] = &[
    key("file", "A file of strings, one a line, beside the configuration.", Shape::Path),
    key("list", "The strings themselves.", Shape::OneOrMany(&ANY)),
];

static BASELINE: &[Key] = &[
    key("learn", "How much history a series learns from before it is armed.", Shape::Duration { ms_min: 60 * SECOND, ms_max: 90 * DAY })
        .default("24h"),
    later("reference"),
];

static ROUTE: &[Key] = &[
    key("severity", "1 active harm, 2 degraded, 3 minor.", Shape::OneOrMany(&Shape::Level)),
    key("model", "Names of models.", ANY_LIST),
    key("owner", "Owners of models.", ANY_LIST),
    key("category", "Categories of incidents.", Shape::OneOrMany(&Shape::Word { what: "category", known: Category::NAMES, later: &[] })),
    key("environment", "Environments such as prod.", ANY_LIST),
    key("segment", "Segments and their values.", Shape::Named { what: "segment", name: form::any, of: &ANY }),
    key("to", "Names of receivers.", ANY_LIST).required(),
    later("hours"),
];

static HEARTBEAT: &[Key] = &[key("url", "Fetched every minute.", Shape::Text(form::url)).required().sample("\"https://hc.example/ping\"")];

static APPROVAL: &[Key] = &[key("two_people", "Actions of severity 1 need two different people.", Shape::Bool).default("false")];

static PEOPLE: &[Key] = &[
    key("leadership", "Told at once of severity 1.", ANY_LIST).sample("[oncall]"),
    key("legal", "Told where a model's exposure is set.", ANY_LIST).sample("[oncall]"),
];

static ESCALATION: &[Key] = &[
    key("levels", "Who is told when nobody has acknowledged for so long.", Shape::List(&Shape::Section(LEVEL)))
        .sample("\n    - {after: 15m, to: [oncall]}\n    - {after: 45m, severity: [1, 2], to: [leadership]}"),
    key(
        "clocks",
        "Duties to report that are counted where exposure is set; none of them is legal advice.",
        Shape::OneOrMany(&Shape::WordOr(&Shape::Word { what: "clock", known: super::people::CLOCK_NAMES, later: &[] }, CLOCK)),
    )
    .sample("[gdpr_72h]"),
];

static CLOCK: &[Key] = &[
    key("name", "Such as hipaa_60d.", Shape::Text(form::name)).required(),
    key("words", "What is to be reported, to whom.", ANY).required(),
    key("after", "Within this time.", Shape::Duration { ms_min: SECOND, ms_max: 400 * DAY }).required(),
    key("category", "Of these incidents; all if left out.", Shape::OneOrMany(&Shape::Word { what: "category", known: Category::NAMES, later: &[] })),
    key("checked_on", "When somebody last looked whether it is so.", ANY).required(),
];

static LEVEL: &[Key] = &[
    key("after", "Since somebody was called.", Shape::Duration { ms_min: SECOND, ms_max: 7 * DAY }).required(),
    key("severity", "Only these; all if left out.", Shape::OneOrMany(&Shape::Level)),
    key("to", "Names of receivers, or leadership or legal.", ANY_LIST).required(),
];

static WINDOW: &[Key] = &[
    key("environment", "Such as staging; what is not said fits all.", ANY),
    key("model", "The name of a model.", ANY),
    key("category", "A category of incidents.", Shape::Word { what: "category", known: Category::NAMES, later: &[] }),
    key("segment", "A segment and its value: what sits there and nowhere else.", Shape::Named { what: "segment", name: form::any, of: &ANY }),
    key("version", "What sits in this version.", ANY),
    key("weekly", "Days and hours, such as Sun 02:00-04:00, Mon-Fri 22:00-06:00 or Fri 22:00-Mon 06:00.", Shape::Hours(super::windows::weekly)),
    key("daily", "Hours of every day, such as 02:00-03:00.", Shape::Hours(super::windows::daily)),
    key("timezone", "By whose clock, such as Europe/Berlin.", Shape::Text(super::windows::timezone)).default("UTC"),
    key("why", "What is done then.", ANY),
    key("harm", "Active harm (severity 1) is held as well.", Shape::Bool).default("false"),
];

static TOKEN: &[Key] = &[
    key("name", "Who holds it.", Shape::Text(form::name)).required(),
    key(
        "role",
        "What he may do; each role may do what those before it may.",
        Shape::Word { what: "role", known: crate::domain::Role::NAMES, later: &[] },
    )
    .required(),
    key("sha256", "The digest of the token, not the token: see bellwether config token.", Shape::Text(super::people::digest)).required(),
];

static REDACTION: &[Key] = &[
    key("allow", "Names of features and segments whose values examples may show.", ANY_LIST).sample("[region]"),
    later("deny"),
    later("patterns"),
    later("rules"),
    later("text"),
];

static DEAD_LETTERS: &[Key] = &[
    key("topic", "Write them to the topic's name with .dead behind it.", Shape::Bool).default("false"),
    key("file", "Append them to this file.", Shape::Path).sample("dead-letters.ndjson"),
];

/// A signal, or a family of signals.
fn signal_name(text: &str) -> Result<(), Fault> {
    use crate::domain::Signal;
    if text.parse::<Signal>().is_ok_and(|s| s.name() != Some("")) || Signal::NAMED.contains(&text) {
        return Ok(());
    }
    let (family, name) = text.split_once(':').map_or((text, None), |(family, name)| (family, Some(name)));
    let message = format!("unknown signal {}", super::node::quoted(text));
    let hint = match name {
        Some(_) if Signal::PLAIN.contains(&family) => Some(family.to_owned()),
        Some(name) if !name.is_empty() => form::nearest(family, Signal::NAMED.iter().copied()).map(|family| format!("{family}:{name}")),
        Some(_) => form::nearest(family, Signal::NAMED.iter().copied()).map(str::to_owned),
        None => form::nearest(family, Signal::PLAIN.iter().chain(Signal::NAMED).copied()).map(str::to_owned),
    };
    let message = match hint {
        Some(_) => message,
        None => format!("{message} (known: {}, and with a name: {})", Signal::PLAIN.join(", "), Signal::NAMED.join(", ")),
    };
    Err(Fault { message, hint })
}

fn property(text: &str) -> Result<(), Fault> {
    match PROPERTIES_OURS.iter().find(|(name, _)| *name == text) {
        None => Ok(()),
        Some((name, "")) => Err(Fault { message: format!("{name:?} is set by bellwether itself; leave it out"), hint: None }),
        Some((name, ours)) => Err(Fault { message: format!("{name:?} is set by bellwether itself; use {ours} instead"), hint: None }),
    }
}
