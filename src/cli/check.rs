//! `bellwether check`: proves a configuration without side effects, and says what will be watched.
//!
//! With `--online` it also looks whether the other ends are there. It never sends anything that could page: a receiver is only
//! asked whether its host answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde::Serialize;

use super::failure::{Code, Failure, chain};
use super::output::{Output, inert, print, table};
use super::signals::{RULES, Watched, rounded, watched};
use super::{Global, nearest, runtime};
use crate::daemon::load;
use crate::domain::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
use crate::notify::http;
use crate::settings::{self, Kafka, Loaded, Route, Settings};
use crate::{daemon, judge};

const EXAMPLES: &str = "\
Examples:
  bellwether check                               ./bellwether.yaml
  bellwether check /etc/bellwether/bellwether.yaml --strict
  bellwether check --online                      are brokers, topics and receivers there? nobody is paged
  bellwether check -o json | jq '.problems[]'

Ends with 78 if the file cannot be put in force, or on a warning with --strict; with 1 if --online misses something.";

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Series of the example by which the budget is told.
const SERIES_EXAMPLE: u32 = 340;

/// Prove the configuration and say what will be watched
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Check {
    /// The configuration; goes before --config
    #[arg(value_name = "F")]
    file: Option<PathBuf>,
    /// Also look whether brokers, topics and receivers are there
    #[arg(long)]
    online: bool,
    /// A warning is a fault
    #[arg(long)]
    strict: bool,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Report {
    file: String,
    ok: bool,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    watch: Option<Watch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<Vec<Probe>>,
}

#[derive(Serialize)]
struct Problem {
    file: String,
    line: u32,
    column: u32,
    key: String,
    found: String,
    message: String,
    hint: Option<String>,
}

/// What will be watched, and who is told.
#[derive(Serialize)]
struct Watch {
    brokers: Vec<String>,
    topics: Vec<Topic>,
    files: Vec<String>,
    /// How far back the first start reads.
    from: Option<String>,
    segments: Vec<String>,
    pane: String,
    lateness: String,
    /// How long a series learns before it may page.
    learn: String,
    budget: Budget,
    signals: Vec<Watched>,
    rules: Vec<&'static str>,
    categories: BTreeSet<String>,
    /// Of which the configuration knows more than the events say.
    models: Vec<String>,
    receivers: Vec<Receiver>,
    routes: Vec<String>,
    /// Runbooks of the user's, and which actions they may carry out.
    runbooks: usize,
    actions: Vec<String>,
    escalation: Vec<String>,
    /// Who hears what a receiver does not take.
    fallbacks: BTreeMap<String, String>,
    /// Work that comes again and again, with the next time.
    maintenance: Vec<String>,
    tokens: Vec<String>,
    heartbeat: bool,
    listen: String,
    data_dir: String,
}

#[derive(Serialize)]
struct Topic {
    name: String,
    format: String,
    kind: Option<String>,
}

#[derive(Serialize)]
struct Budget {
    false_pages_in_30_days: f64,
    /// An example: so many series, and the evidence that a page then needs.
    series: u32,
    nats: f64,
    words: String,
}

#[derive(Serialize)]
struct Receiver {
    name: String,
    kind: String,
}

/// One thing that was looked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Probe {
    what: String,
    ok: bool,
    words: String,
    hint: Option<String>,
}

impl Check {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        let global = Global { config: self.file.clone().map(PathBuf::into_os_string).or_else(|| global.config.clone()), ..global.clone() };
        let path = global.path();
        let file = path.display().to_string();
        let loaded = match load(&path, &|_| None) {
            Ok(loaded) => loaded,
            Err(problems) if self.output == Output::Table => return Err(global.explain(&path, &problems)),
            Err(problems) => {
                let problems = problems.0.iter().map(Problem::of).collect();
                self.output.one(&Report { file, ok: false, problems, warnings: Vec::new(), watch: None, online: None }, String::new)?;
                return Err(Failure::silent(Code::Config));
            }
        };
        let Loaded { settings, warnings } = &loaded;
        let _log = global.start_log("error")?;
        let online = if self.online { Some(runtime()?.block_on(probe(settings))) } else { None };
        let refused = self.strict && !warnings.is_empty();
        let missing = online.iter().flatten().filter(|p| !p.ok).count();
        let report = Report {
            file,
            ok: !refused && missing == 0,
            problems: Vec::new(),
            warnings: warnings.iter().map(Problem::of).collect(),
            watch: Some(Watch::of(settings)),
            online,
        };
        match self.output {
            Output::Table => {
                warnings.iter().for_each(|w| eprintln!("warning: {w}"));
                print(&report.words())?;
            }
            Output::Json | Output::Jsonl | Output::Yaml => self.output.one(&report, String::new)?,
        }
        let said = self.output == Output::Table;
        match (refused, missing) {
            (true, _) if said => Err(Failure { code: Code::Config, ..Failure::new("warnings are faults with --strict") }),
            (true, _) => Err(Failure::silent(Code::Config)),
            (false, 0) => Ok(()),
            (false, n) if said => Err(Failure::new(format!("{n} of what is configured cannot be reached"))),
            (false, _) => Err(Failure::silent(Code::Failure)),
        }
    }
}

// === words ===

impl Problem {
    fn of(p: &settings::Problem) -> Problem {
        let settings::Problem { file, line, column, key, found, message, hint } = p.clone();
        Problem { file, line, column, key, found, message, hint }
    }
}

impl Watch {
    fn of(s: &Settings) -> Watch {
        let signals = watched(s);
        let mut categories: BTreeSet<String> = signals.iter().flat_map(|w| w.category.split(" or ").map(str::to_owned)).collect();
        // By rules.
        categories.extend(["data_breach", "harmful_output", "monitoring_blind"].map(str::to_owned));
        let topics = s.kafka.iter().flat_map(|k| &k.topics);
        Watch {
            brokers: s.kafka.iter().flat_map(|k| k.brokers.clone()).collect(),
            topics: topics.map(|t| Topic { name: t.name.clone(), format: t.format.clone(), kind: t.kind.clone() }).collect(),
            files: s.files.clone(),
            from: s.kafka.as_ref().map(|k| duration(k.from_ms)),
            segments: s.segments.clone(),
            pane: duration(s.pane_ms),
            lateness: duration(s.lateness_ms),
            learn: duration(s.learn_ms),
            budget: Budget::of(s),
            signals,
            rules: RULES.iter().map(|(name, _)| *name).collect(),
            categories,
            models: s.models.keys().cloned().collect(),
            receivers: s.receivers.iter().map(|(name, r)| Receiver { name: name.clone(), kind: r.kind.clone() }).collect(),
            routes: (s.routes.iter().enumerate()).map(|(i, r)| route(r, i > 0)).collect(),
            runbooks: s.runbooks.iter().filter(|r| !r.place.starts_with("built-in")).count(),
            actions: s.actions.iter().map(|(name, a)| format!("{name} ({}) on {}", a.kind, a.targets.join(", "))).collect(),
            escalation: (s.escalation.iter())
                .map(|l| {
                    let severity: Vec<String> = l.severity.iter().map(u8::to_string).collect();
                    let only = if severity.is_empty() { String::new() } else { format!(" at severity {}", severity.join(" or ")) };
                    format!("after {}{only}: {}", duration(l.after_ms), l.to.join(", "))
                })
                .collect(),
            fallbacks: s.fallbacks(),
            maintenance: s.maintenance.iter().map(maintenance).collect(),
            tokens: s.tokens.iter().map(|t| format!("{} ({})", t.name, t.role)).collect(),
            heartbeat: s.heartbeat_url.is_some(),
            listen: s.listen.clone(),
            data_dir: s.data_dir.display().to_string(),
        }
    }
}

impl Budget {
    fn of(s: &Settings) -> Budget {
        // The judge's own division, over series of equal weight.
        let mut budget = judge::Judge::new(daemon::build::engine_settings(s).judge).budget;
        budget.divide(0, f64::from(SERIES_EXAMPLE));
        let nats = rounded(-budget.share(1.0).ln());
        let pages = s.budget_false_pages;
        let words = format!(
            "{pages} false page{} in 30 days over everything; at {SERIES_EXAMPLE} series a page needs about {nats:.1} nats",
            if pages == 1.0 { "" } else { "s" }
        );
        Budget { false_pages_in_30_days: pages, series: SERIES_EXAMPLE, nats, words }
    }
}

/// `model=ranker: Sun 02:00-04:00 Europe/Berlin, next 2026-11-29T01:00:00Z to 2026-11-29T03:00:00Z`.
fn maintenance(window: &settings::Window) -> String {
    let now = daemon::now();
    match window.within(now, now.plus_ms(9 * DAY_MS)).first() {
        Some((from, until)) if *from <= now => format!("{}, on until {}", window.words(), until.rfc3339()),
        Some((from, until)) => format!("{}, next {} to {}", window.words(), from.rfc3339(), until.rfc3339()),
        None => window.words(),
    }
}

/// `severity 1 or 2 -> oncall, team`.
fn route(r: &Route, later: bool) -> String {
    let or = |words: &[String]| words.join(" or ");
    let mut parts = Vec::new();
    if !r.severity.is_empty() {
        parts.push(format!("severity {}", or(&r.severity.iter().map(u8::to_string).collect::<Vec<_>>())));
    }
    let lists = [("model", &r.model), ("owner", &r.owner), ("category", &r.category), ("environment", &r.environment)];
    parts.extend(lists.into_iter().filter(|(_, l)| !l.is_empty()).map(|(name, l)| format!("{name} {}", or(l))));
    parts.extend(r.segment.iter().map(|(d, v)| format!("{d} {v}")));
    let when = match (parts.is_empty(), later) {
        (true, true) => "everything else".to_owned(),
        (true, false) => "everything".to_owned(),
        (false, _) => parts.join(" and "),
    };
    format!("{when} -> {}", r.to.join(", "))
}

/// `90s`, `7d`.
fn duration(ms: i64) -> String {
    let units = [(DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "m"), (SECOND_MS, "s")];
    match units.iter().find(|(unit, _)| ms != 0 && ms % unit == 0) {
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

impl Report {
    fn words(&self) -> String {
        let Some(w) = &self.watch else { return String::new() };
        let mut out = format!("{} is in order.\n\n", inert(&self.file));
        let mut put = |name: &str, words: String| out.push_str(&format!("{name:9} {}\n", inert(&words)));
        if w.files.is_empty() {
            let topics: Vec<String> = (w.topics.iter())
                .map(|t| match &t.kind {
                    Some(kind) => format!("{} ({}, {kind})", t.name, t.format),
                    None => format!("{} ({})", t.name, t.format),
                })
                .collect();
            put("reads", format!("{} from {}", topics.join(", "), w.brokers.join(", ")));
            put(
                "learns",
                format!("from the {} before the first start; what is found there is listed and pages nobody", w.from.as_deref().unwrap_or("0s")),
            );
        } else {
            put("reads", format!("{}, to its end", w.files.join(", ")));
        }
        let segments = if w.segments.is_empty() { String::new() } else { format!(" and {}", w.segments.join(", ")) };
        put("watches", format!("every model of the events as a whole, and by version{segments}"));
        put("judges", format!("panes of {}, {} after they end", w.pane, w.lateness));
        put("arms", format!("a series after {} of its history", w.learn));
        put("budget", w.budget.words.clone());
        if !w.models.is_empty() {
            put("knows of", w.models.join(", "));
        }
        put("opens", format!("incidents of {}", w.categories.iter().cloned().collect::<Vec<_>>().join(", ")));
        match w.routes.as_slice() {
            [] => put("tells", "nobody: incidents are only shown".to_owned()),
            [first, rest @ ..] => {
                put("tells", first.clone());
                rest.iter().for_each(|r| put("", r.clone()));
            }
        }
        if !w.receivers.is_empty() {
            let all: Vec<String> = w.receivers.iter().map(|r| format!("{} ({})", r.name, r.kind)).collect();
            put("receivers", all.join(", "));
        }
        if !w.fallbacks.is_empty() {
            let all: Vec<String> = w.fallbacks.iter().map(|(name, to)| format!("{name} -> {to}")).collect();
            put("refused", format!("goes on: {}", all.join(", ")));
        }
        for (i, window) in w.maintenance.iter().enumerate() {
            put(if i == 0 { "holds" } else { "" }, window.clone());
        }
        put(
            "runbooks",
            match w.runbooks {
                0 => "the built-in ones: every category has steps at every severity, all by hand".to_owned(),
                n => format!("{n} of yours, then the built-in ones"),
            },
        );
        if !w.actions.is_empty() {
            put("may touch", w.actions.join("; "));
        }
        if !w.escalation.is_empty() {
            put("climbs", w.escalation.join("; "));
        }
        put("lets in", if w.tokens.is_empty() { "whoever is on this machine".to_owned() } else { w.tokens.join(", ") });
        put("heartbeat", if w.heartbeat { "yes".to_owned() } else { "none: if this daemon dies, nobody is told".to_owned() });
        put("pages", format!("at http://{}", w.listen));
        put("state", format!("in {}", w.data_dir));
        let number = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| rounded(v).to_string());
        let rows: Vec<Vec<String>> = (w.signals.iter())
            .map(|s| {
                let star = if s.configured { " *" } else { "" };
                let (low, high) = (number(s.at_least), number(s.never_above));
                vec![format!("{}{star}", s.signal), s.detectors.clone(), s.tolerance.clone(), low, high, s.category.clone(), s.from.clone()]
            })
            .collect();
        out.push('\n');
        out.push_str(&table(&["SIGNAL", "DETECTOR", "TOLERANCE", "AT LEAST", "NEVER ABOVE", "CATEGORY", "FROM"], &rows));
        if w.signals.iter().any(|s| s.configured) {
            out.push_str("* as the configuration says\n");
        }
        out.push('\n');
        out.push_str(&table(&["RULE", "FIRES ON"], &RULES.iter().map(|(n, a)| vec![(*n).to_owned(), (*a).to_owned()]).collect::<Vec<_>>()));
        if let Some(probes) = &self.online {
            let row = |p: &Probe| {
                let hint = p.hint.as_ref().map(|h| format!("; {h}")).unwrap_or_default();
                vec![p.what.clone(), if p.ok { "ok" } else { "missing" }.to_owned(), format!("{}{hint}", p.words)]
            };
            out.push('\n');
            out.push_str(&table(&["ONLINE", "", ""], &probes.iter().map(row).collect::<Vec<_>>()));
        }
        out
    }
}

// === online ===

async fn probe(settings: &Settings) -> Vec<Probe> {
    let mut probes = Vec::new();
    if let Some(kafka) = settings.kafka.clone() {
        // Asking waits for the network, on a thread that may.
        match tokio::task::spawn_blocking(move || ask_brokers(&kafka)).await {
            Ok(found) => probes.extend(found),
            Err(why) => probes.push(Probe { what: "kafka".to_owned(), ok: false, words: why.to_string(), hint: None }),
        }
    }
    for file in settings.files.iter().filter(|f| *f != "-") {
        let found = std::fs::File::open(file);
        let words = found.as_ref().map_or_else(|e| e.to_string(), |_| "can be read".to_owned());
        probes.push(Probe { what: format!("file {file}"), ok: found.is_ok(), words, hint: None });
    }
    for (name, receiver) in &settings.receivers {
        let given = receiver.table.get("url").and_then(|u| u.as_str());
        let url = match (given, receiver.kind.as_str()) {
            (Some(url), _) => url,
            (None, "pagerduty") => "https://events.pagerduty.com",
            (None, _) => continue,
        };
        let proxy = receiver.table.get("proxy_from_env").is_some_and(|p| p.as_bool() == Some(true));
        // The check of the configuration has read it.
        let pem = receiver.table.get("ca").and_then(|c| c.as_str()).map(|c| c.as_bytes().to_vec());
        let pem = pem.or_else(|| receiver.table.get("ca_file").and_then(|f| f.as_str()).and_then(|f| std::fs::read(f).ok()));
        // A cluster of Alertmanagers is several.
        for member in url.split(',').map(str::trim).filter(|u| !u.is_empty()) {
            probes.push(Probe::of(format!("receiver {name}"), reach(member, proxy, pem.as_deref()).await));
        }
    }
    if let Some(url) = &settings.heartbeat_url {
        let found = match host_of(url) {
            Ok((host, port)) => resolve(&host, port).await.map(|_| format!("{host} resolves")),
            Err(why) => Err(why),
        };
        probes.push(Probe::of("heartbeat".to_owned(), found));
    }
    probes
}

impl Probe {
    fn of(what: String, found: Result<String, String>) -> Probe {
        let (ok, words) = match found {
            Ok(words) => (true, words),
            Err(words) => (false, words),
        };
        Probe { what, ok, words, hint: None }
    }
}

fn ask_brokers(kafka: &Kafka) -> Vec<Probe> {
    let what = format!("kafka {}", kafka.brokers.join(","));
    let mut config = ClientConfig::new();
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    // Looking for a topic must not make it.
    config.set("bootstrap.servers", kafka.brokers.join(",")).set("allow.auto.create.topics", "false").set("client.id", "bellwether-check");
    let found = config.create::<BaseConsumer>().and_then(|client| client.fetch_metadata(None, PATIENCE));
    let metadata = match found {
        Ok(metadata) => metadata,
        Err(why) => return vec![Probe { what, ok: false, words: format!("no answer within {} s: {why}", PATIENCE.as_secs()), hint: None }],
    };
    let brokers = metadata.brokers().len();
    let mut probes = vec![Probe { what, ok: true, words: format!("{brokers} broker{}", if brokers == 1 { "" } else { "s" }), hint: None }];
    for topic in &kafka.topics {
        let what = format!("topic {}", topic.name);
        let known = metadata.topics().iter().find(|t| t.name() == topic.name && t.error().is_none());
        probes.push(match known {
            Some(t) => Probe { what, ok: true, words: format!("{} partitions", t.partitions().len()), hint: None },
            None => {
                let near = nearest(&topic.name, metadata.topics().iter().map(|t| t.name()));
                let words = "there is none, or it may not be read".to_owned();
                Probe { what, ok: false, words, hint: near.map(|n| format!("did you mean {n:?}?")) }
            }
        });
    }
    probes
}

/// Does somebody answer there? Over TLS the handshake is asked for by the mildest request there is, and to no path of a hook's.
async fn reach(url: &str, proxy_from_env: bool, authority: Option<&[u8]>) -> Result<String, String> {
    let (host, port) = host_of(url)?;
    if !url.starts_with("https:") {
        let addresses = resolve(&host, port).await?;
        let connected = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(addresses.as_slice())).await;
        return match connected {
            Ok(Ok(_)) => Ok(format!("{host}:{port} accepts connections")),
            Ok(Err(why)) => Err(format!("{host}:{port}: {why}")),
            Err(_) => Err(format!("{host}:{port}: no answer within {} s", PATIENCE.as_secs())),
        };
    }
    let builder = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
    let mut builder = if proxy_from_env { builder } else { builder.no_proxy() };
    for certificate in authority.map(reqwest::Certificate::from_pem_bundle).transpose().map_err(|e| chain(&e))?.unwrap_or_default() {
        builder = builder.add_root_certificate(certificate);
    }
    let client = builder.build().map_err(|e| chain(&e))?;
    match client.head(format!("https://{host}:{port}/")).send().await {
        Ok(_) => Ok(format!("{host}:{port} answers over TLS")),
        Err(why) => {
            let why = why.without_url();
            Err(format!("{host}:{port}: {}", http::distrust(&why, &host).unwrap_or_else(|| chain(&why))))
        }
    }
}

fn host_of(url: &str) -> Result<(String, u16), String> {
    let url = reqwest::Url::parse(url).map_err(|e| format!("not a URL: {e}"))?;
    let host = url.host_str().ok_or("the URL names no host")?.to_owned();
    let port = url.port_or_known_default().ok_or("the URL names no port")?;
    Ok((host, port))
}

async fn resolve(host: &str, port: u16) -> Result<Vec<std::net::SocketAddr>, String> {
    // A URL writes IPv6 in brackets.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, port))).await;
    match found {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(why)) => Err(format!("{host} does not resolve: {why}")),
        Err(_) => Err(format!("{host} does not resolve within {} s", PATIENCE.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_told_in_words() {
        let to = vec!["oncall".to_owned()];
        let narrow = Route { severity: vec![1, 2], model: vec!["m".into()], segment: vec![("region".into(), "eu".into())], to, ..Route::default() };
        assert_eq!(route(&narrow, false), "severity 1 or 2 and model m and region eu -> oncall");
        let wide = Route { to: vec!["a".into(), "b".into()], ..Route::default() };
        assert_eq!(route(&wide, true), "everything else -> a, b");
    }

    #[test]
    fn durations_are_told_in_their_largest_unit() {
        for (ms, words) in [(10_000, "10s"), (7 * DAY_MS, "7d"), (90 * MINUTE_MS, "90m"), (0, "0ms"), (1_500, "1500ms")] {
            assert_eq!(duration(ms), words);
        }
    }
}
