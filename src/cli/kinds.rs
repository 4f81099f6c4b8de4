//! `bellwether kinds`: every detector, format, source, receiver and action of this build, with its settings.

use bellwether_detectors::{population, stream};
use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::output::Output;
use super::signals::RULES;
use crate::notify::Form;
use crate::{act, decode, notify, settings};

const EXAMPLES: &str = "\
Examples:
  bellwether kinds                                    everything, in words
  bellwether kinds -o json | jq '.receivers[].name'   for programs";

/// List every detector, format, source, receiver and action with its settings
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Kinds {
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct All {
    detectors: Vec<Kind>,
    /// Tests known by name, for populations and for streams: shown beside the evidence, and deciding nothing.
    tests: Vec<Kind>,
    formats: Vec<Kind>,
    sources: Vec<Kind>,
    receivers: Vec<Kind>,
    /// What runbooks may carry out.
    actions: Vec<Kind>,
}

#[derive(Serialize)]
struct Kind {
    name: String,
    about: String,
    knobs: Vec<Knob>,
}

#[derive(Serialize)]
struct Knob {
    name: String,
    about: String,
    required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    form: Option<&'static str>,
}

const TOLERANCE: (&str, &str) = ("signals.<signal>.tolerance", "relative change that is forgiven, such as 1.5x or 20%");
const AT_LEAST: (&str, &str) = ("signals.<signal>.at_least", "changes below this value page nobody");
const NEVER_ABOVE: (&str, &str) = ("signals.<signal>.never_above", "the value above which it is a page whatever was normal before");

type Described = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

static DETECTORS: &[Described] = &[
    ("rate", "k of n: errors, timeouts, empty answers, flags, missing values; sees rises beyond tolerance and floor", &[TOLERANCE, AT_LEAST]),
    ("limit", "a rate against an absolute limit that learning does not move", &[NEVER_ABOVE]),
    ("bins", "values of any shape: latency, tokens, cost, scores, features; sees shifts, and tails while the median stays", &[TOLERANCE]),
    ("classes", "labels and categorical features; sees shares that move, vanish or were never there", &[TOLERANCE]),
    ("counts", "counts with an exposure: complaints per prediction", &[TOLERANCE, AT_LEAST]),
    ("seasonal_step", "traffic and cost per ten minutes, with a season of the day and the week; sees steps, stops and ramps", &[TOLERANCE]),
    (
        "gap",
        "silence: how long may nothing come before that is news; learned, and counted only while something else lives",
        &[("models.<model>.silence_after", "this silence is an incident, whatever was learned")],
    ),
    (
        "two_group",
        "fairness: is one group of a protected attribute served worse than another by more than a fifth; compared inside panes and segments",
        &[
            ("models.<model>.protected", "attributes whose groups are compared"),
            ("models.<model>.favourable", "labels that are good for whom they befall"),
            ("signals.fairness.tolerance", "how much more the better served group may have; 1.25x is the four-fifths rule"),
        ],
    ),
    (
        "rules",
        "what needs no statistics: confirmed flags, canaries and secrets in outputs, total failure, our own blindness",
        &[("models.<model>.canaries", "planted strings; one seen in an output is a page")],
    ),
];

static SOURCES: &[Described] = &[
    (
        "kafka",
        "topics of Apache Kafka or what speaks its protocol",
        &[
            ("kafka.brokers", "addresses as host:port"),
            ("kafka.topics", "names, or tables of name, format, mapping and kind"),
            ("kafka.group", "the consumer group"),
            ("kafka.from", "how far back the first start reads to learn"),
            ("kafka.properties", "handed to librdkafka as they are"),
        ],
    ),
    ("files", "lines of JSON, plain, gzip or zstd, and what kcat -J prints; - is standard input", &[("files", "paths, read once")]),
];

impl Kinds {
    pub fn run(&self) -> Result<(), Failure> {
        let all = all();
        self.output.one(&all, || table(&all))
    }
}

fn all() -> All {
    let described = |kinds: &[Described]| -> Vec<Kind> {
        let one = |(name, about, knobs): &Described| Kind {
            name: (*name).to_owned(),
            about: (*about).to_owned(),
            knobs: (knobs.iter())
                .map(|(name, about)| Knob {
                    name: (*name).to_owned(),
                    about: (*about).to_owned(),
                    required: matches!(*name, "kafka.brokers" | "kafka.topics" | "files"),
                    form: None,
                })
                .collect(),
        };
        kinds.iter().map(one).collect()
    };
    let formats = decode::KINDS.iter().map(|kind| Kind {
        name: kind.name.to_owned(),
        about: kind.about.to_owned(),
        knobs: kind.knobs.iter().map(|k| Knob { name: k.name.to_owned(), about: k.about.to_owned(), required: k.required, form: None }).collect(),
    });
    let receivers = notify::KINDS.iter().map(|kind| Kind {
        name: kind.name.to_owned(),
        about: kind.about.to_owned(),
        knobs: (kind.knobs.iter())
            .map(|k| Knob { name: k.name.to_owned(), about: k.about.to_owned(), required: k.required, form: Some(form(k.form)) })
            .chain([Knob { name: settings::FALLBACK.to_owned(), about: settings::FALLBACK_ABOUT.to_owned(), required: false, form: Some("text") }])
            .collect(),
    });
    let actions = act::KINDS.iter().map(|kind| {
        let knobs =
            kind.knobs.iter().map(|k| Knob { name: k.name.to_owned(), about: k.about.to_owned(), required: k.required, form: Some(form(k.form)) });
        let targets =
            Knob { name: "targets".to_owned(), about: "what it may touch, by name; anything else is refused".to_owned(), required: true, form: None };
        let per_hour = Knob {
            name: "per_hour".to_owned(),
            about: "at most so many changes of one target within an hour; 4 if left out".to_owned(),
            required: false,
            form: None,
        };
        let sets =
            kind.sets.iter().map(|s| Knob { name: format!("set.{} (in a runbook)", s.name), about: s.about.to_owned(), required: false, form: None });
        Kind { name: kind.name.to_owned(), about: kind.about.to_owned(), knobs: knobs.chain([targets, per_hour]).chain(sets).collect() }
    });
    let knobs = |knobs: &[bellwether_detectors::stream::knob::Knob]| -> Vec<Knob> {
        knobs.iter().map(|k| Knob { name: k.name.to_owned(), about: k.about.to_owned(), required: false, form: None }).collect()
    };
    let populations = population::ALL.iter().map(|k| Kind { name: k.name.to_owned(), about: k.about.to_owned(), knobs: knobs(k.knobs) });
    let streams = stream::ALL.iter().map(|k| Kind { name: k.name.to_owned(), about: k.about.to_owned(), knobs: knobs(k.knobs) });
    All {
        tests: populations.chain(streams).collect(),
        detectors: described(DETECTORS),
        formats: formats.collect(),
        sources: described(SOURCES),
        receivers: receivers.collect(),
        actions: actions.collect(),
    }
}

fn form(form: Form) -> &'static str {
    match form {
        Form::Text => "text",
        Form::Secret => "secret",
        Form::Url => "url",
        Form::Duration => "duration",
        Form::Bool => "bool",
        Form::Map => "map",
    }
}

fn table(all: &All) -> String {
    let mut out = String::new();
    for (title, kinds) in [
        ("Detectors", &all.detectors),
        ("Tests", &all.tests),
        ("Formats", &all.formats),
        ("Sources", &all.sources),
        ("Receivers", &all.receivers),
        ("Actions", &all.actions),
    ] {
        out.push_str(if out.is_empty() { "" } else { "\n" });
        out.push_str(&format!("{title}\n"));
        for kind in kinds {
            out.push_str(&format!("  {}: {}\n", kind.name, kind.about));
            for knob in &kind.knobs {
                let required = if knob.required { " (required)" } else { "" };
                let secret = if knob.form == Some("secret") { format!("; or {}_file", knob.name) } else { String::new() };
                out.push_str(&format!("      {}{required}: {}{secret}\n", knob.name, knob.about));
            }
        }
    }
    out.push_str("\nRules\n");
    RULES.iter().for_each(|(name, about)| out.push_str(&format!("  {name}: {about}\n")));
    out
}
