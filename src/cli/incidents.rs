//! `bellwether incidents`: the incident desk, over the API of a running daemon.
//!
//! Reading works without a daemon as well, from the store that it left behind: after a crash is when somebody wants to look.
//! Writing never does, because only the daemon's engine knows what an act means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::failure::{Failure, chain};
use super::output::{Output, inert, print, table};
use super::{Global, runtime};
use crate::domain::incident::{Finding, Incident, TimelineEntry};
use crate::domain::{Category, ClosedAs, IncidentState, Time};
use crate::engine::view::{BaselineView, SeriesView};
use crate::respond::duties::span;
use crate::serve::ClockRow;
use crate::settings::duration_ms;
use crate::store::{Filter, Store};

const EXAMPLES: &str = "\
Examples:
  bellwether incidents list --live
  bellwether incidents explain inc-PC7V6D2MNF8B      why did it page?
  bellwether incidents ack inc-PC7V6D2MNF8B --why 'looking at the feature store'
  bellwether incidents resolve inc-PC7V6D2MNF8B --as fixed --why 'rolled back to 1.5.0'
  bellwether incidents note inc-PC7V6D2MNF8B 'vendor ticket 4711'
  bellwether incidents approve inc-PC7V6D2MNF8B      what would be done? with --plan HASH it is done, once
  bellwether incidents undo inc-PC7V6D2MNF8B
  bellwether incidents severity inc-PC7V6D2MNF8B 3 --why 'only the probes are hit'
  bellwether incidents merge inc-PC7V6D2MNF8B --into inc-0D74Y56B3J2W
  bellwether incidents suppress inc-PC7V6D2MNF8B --for 2h --why 'vendor is on it'
  bellwether incidents draft inc-PC7V6D2MNF8B > text; $EDITOR text; bellwether incidents draft inc-PC7V6D2MNF8B --file text
  bellwether incidents sent inc-PC7V6D2MNF8B --to 'users of the assistant, by mail'
  bellwether incidents clock inc-PC7V6D2MNF8B gdpr_72h --waived --why 'no personal data'

list, show and explain also read the store of a daemon that does not run (--data-dir). An id may be given without inc-.
What changes an incident prints it as it then stands. Ends with 1 if the daemon does not answer or refuses, and says why.";

/// Where pages and API are if nobody says.
const SERVER: &str = "http://127.0.0.1:9710";
const PATIENCE: Duration = Duration::from_secs(15);
/// The daemon learns a reference before it answers.
const TEACHING: Duration = Duration::from_secs(60);
/// Items of one answer of the API.
const PAGE: usize = 500;
/// Points shown of a series: some before the onset, and the last.
const POINTS_SHOWN: usize = 12;

/// The incident desk of a running daemon: list, show, explain, act
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Incidents {
    /// List incidents, newest first
    #[command(after_help = EXAMPLES)]
    List {
        /// Only those that are not over
        #[arg(long)]
        live: bool,
        /// Only of this model
        #[arg(long, value_name = "NAME")]
        model: Option<String>,
        /// Only of this category, such as model_failure
        #[arg(long, value_parser = |text: &str| text.parse::<Category>())]
        category: Option<Category>,
        /// Only in this state, such as open or acknowledged
        #[arg(long, value_parser = |text: &str| text.parse::<IncidentState>())]
        state: Option<IncidentState>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        at: At,
    },
    /// Show one: what, where, why, what was done, who was told
    #[command(after_help = EXAMPLES)]
    Show {
        /// Its id, with or without inc-
        id: String,
        #[command(flatten)]
        at: At,
    },
    /// Say in words why it paged, or why not, from its evidence
    #[command(after_help = EXAMPLES)]
    Explain {
        /// Its id, with or without inc-
        id: String,
        #[command(flatten)]
        at: At,
    },
    /// Acknowledge: say that somebody looks at it
    #[command(after_help = EXAMPLES)]
    Ack {
        /// Its id, with or without inc-
        id: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
    /// Say that the harm has been stopped; the cause may still be there
    #[command(after_help = EXAMPLES)]
    Mitigate {
        /// Its id, with or without inc-
        id: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
    /// Say that it is over; how it is closed teaches the detectors
    #[command(after_help = EXAMPLES)]
    Resolve {
        /// Its id, with or without inc-
        id: String,
        /// fixed: as before. new_normal: learn it. false_alarm: it was none. expected: known beforehand
        #[arg(long = "as", value_name = "HOW", value_parser = |text: &str| text.parse::<ClosedAs>())]
        closed_as: ClosedAs,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
    /// Write something into its timeline
    #[command(after_help = EXAMPLES)]
    Note {
        /// Its id, with or without inc-
        id: String,
        /// What is written
        text: String,
        /// Who writes this
        #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
        by: String,
        #[command(flatten)]
        at: At,
    },
    /// Carry out the action that is ready: shows its plan, and does it only with --yes or --plan HASH
    #[command(after_help = EXAMPLES)]
    Approve {
        /// Its id, with or without inc-
        id: String,
        /// Another step than the one that is ready
        #[arg(long, value_name = "STEP", default_value = "")]
        step: String,
        /// The hash of the plan that you have seen
        #[arg(long, value_name = "HASH")]
        plan: Option<String>,
        /// Approve whatever the plan is at this moment
        #[arg(long, conflicts_with = "plan")]
        yes: bool,
        /// Look again first: what would be done now?
        #[arg(long, conflicts_with_all = ["plan", "yes"])]
        again: bool,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
    /// Say how bad it is, over what Bellwether says: 1 active harm, 2 degraded, 3 minor
    #[command(after_help = EXAMPLES)]
    Severity {
        /// Its id, with or without inc-
        id: String,
        /// 1, 2 or 3
        #[arg(value_name = "N", value_parser = clap::value_parser!(u8).range(1..=3))]
        severity: u8,
        /// Who says so
        #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
        by: String,
        /// Why; it is kept in the timeline
        #[arg(long, value_name = "TEXT")]
        why: String,
        #[command(flatten)]
        at: At,
    },
    /// Say that it has the same cause as another: that one tells of both from now on
    #[command(after_help = EXAMPLES)]
    Merge {
        /// Its id, with or without inc-
        id: String,
        /// The incident that stays
        #[arg(long, value_name = "ID")]
        into: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
    /// Bring back what an action changed
    #[command(after_help = EXAMPLES)]
    Undo {
        /// Its id, with or without inc-
        id: String,
        /// Another step than the one that was carried out last
        #[arg(long, value_name = "STEP", default_value = "")]
        step: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
    /// Take a merge back: it stands for itself after all
    #[command(after_help = EXAMPLES)]
    Split {
        /// Its id, with or without inc-
        id: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
    /// Call nobody for it for a time; it is listed, and calls then if it lasts
    #[command(after_help = EXAMPLES)]
    Suppress {
        /// Its id, with or without inc-
        id: String,
        /// How long, such as 90s, 5m, 24h or 7d
        #[arg(long = "for", value_name = "DURATION", value_parser = |text: &str| duration_ms(text).map_err(|f| f.message))]
        lasts_ms: i64,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
    /// Show a text for users, or change it with --text or --file
    #[command(after_help = EXAMPLES)]
    Draft {
        /// Its id, with or without inc-
        id: String,
        /// Which, where there are several
        #[arg(value_name = "DRAFT", default_value = "")]
        draft: String,
        /// The text as it shall be
        #[arg(long, value_name = "TEXT")]
        text: Option<String>,
        /// A file with the text as it shall be; - is the standard input
        #[arg(long, value_name = "F", conflicts_with = "text")]
        file: Option<PathBuf>,
        /// Who changes it
        #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
        by: String,
        #[command(flatten)]
        at: At,
    },
    /// Say that you have sent a text to users; nothing is sent from here
    #[command(after_help = EXAMPLES)]
    Sent {
        /// Its id, with or without inc-
        id: String,
        /// Which, where there are several
        #[arg(value_name = "DRAFT", default_value = "")]
        draft: String,
        /// To whom, and on which way
        #[arg(long, value_name = "TEXT")]
        to: String,
        /// Who sent it
        #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
        by: String,
        #[command(flatten)]
        at: At,
    },
    /// Show duties to report with their time, or say that one is started, met or waived
    #[command(after_help = EXAMPLES)]
    #[command(group(clap::ArgGroup::new("word").args(["started", "met", "waived"])))]
    Clock {
        /// Its id, with or without inc-
        id: String,
        /// Which, where there are several
        #[arg(value_name = "CLOCK", default_value = "")]
        clock: String,
        /// It applies; its time runs since the incident was found, or --from
        #[arg(long)]
        started: bool,
        /// It has been reported
        #[arg(long)]
        met: bool,
        /// It does not apply
        #[arg(long)]
        waived: bool,
        /// Since when it is known, as 2026-12-01T20:00:00Z
        #[arg(long, value_name = "TIME", requires = "started", value_parser = |text: &str| Time::parse_rfc3339(text).ok_or("no time such as 2026-12-01T20:00:00Z"))]
        from: Option<Time>,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
    /// Say that it is not over after all
    #[command(after_help = EXAMPLES)]
    Reopen {
        /// Its id, with or without inc-
        id: String,
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        at: At,
    },
}

/// Which desk, and how it is shown.
#[derive(Clone, Debug, Args)]
pub struct At {
    /// The running daemon [default: `listen` of the configuration, or http://127.0.0.1:9710]
    #[arg(long, value_name = "URL", env = "BELLWETHER_SERVER", hide_env_values = true)]
    server: Option<String>,
    /// A file that holds your token, where the daemon asks for one; or the token itself in BELLWETHER_TOKEN
    #[arg(long, value_name = "F", env = "BELLWETHER_TOKEN_FILE", hide_env_values = true)]
    token_file: Option<PathBuf>,
    /// Where the store is that is read when no daemon runs [default: `data_dir` of the configuration]
    #[arg(long, value_name = "D")]
    data_dir: Option<PathBuf>,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
pub struct Who {
    /// Who does this
    #[arg(long, value_name = "NAME", env = "USER", hide_env_values = true)]
    by: String,
    /// Why; it is kept in the timeline
    #[arg(long, value_name = "TEXT", default_value = "")]
    why: String,
}

/// An incident with what happened to it and who was told.
#[derive(Deserialize, Serialize)]
struct Page {
    incident: Incident,
    timeline: Vec<TimelineEntry>,
    deliveries: Vec<Told>,
}

#[derive(Deserialize, Serialize)]
struct Told {
    id: String,
    receiver: String,
    notice: String,
    state: String,
    attempts: u32,
    created_at: Time,
    last_attempt_at: Option<Time>,
    detail: String,
}

/// The recent past of a series.
#[derive(Deserialize)]
struct Past {
    series: SeriesView,
    data: Vec<Value>,
}

/// One pane of a series. JSON knows no NaN, so that what was not known then is null.
#[derive(Deserialize)]
struct Seen {
    time: Time,
    n: f64,
    value: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    log_evidence: Option<f64>,
    threshold: Option<f64>,
}

#[derive(Deserialize)]
struct List {
    data: Vec<Incident>,
    next_cursor: Option<String>,
}

impl Incidents {
    pub fn run(&self, global: &Global) -> Result<(), Failure> {
        let desk = Desk::of(self.at(), global)?;
        runtime()?.block_on(async {
            match self {
                Incidents::List { live, model, category, state, limit, at } => {
                    let filter = Filter {
                        live: live.then_some(true),
                        model: model.clone(),
                        category: *category,
                        state: *state,
                        limit: *limit,
                        ..Filter::default()
                    };
                    let all = desk.list(&filter).await?;
                    at.output.list(&all, || rows(&all))
                }
                Incidents::Show { id, at } => {
                    let page = desk.page(&id_of(id)?).await?;
                    at.output.one(&page, || shown(&page))
                }
                Incidents::Explain { id, at } => desk.explain(&id_of(id)?, at.output).await,
                Incidents::Ack { id, who, at } => desk.act(id, "acknowledge", who.body(), at.output).await,
                Incidents::Mitigate { id, who, at } => desk.act(id, "mitigate", who.body(), at.output).await,
                Incidents::Merge { id, into, who, at } => {
                    let mut body = who.body();
                    body["into"] = json!(id_of(into)?);
                    desk.act(id, "merge", body, at.output).await
                }
                Incidents::Split { id, who, at } => desk.act(id, "split", who.body(), at.output).await,
                Incidents::Suppress { id, lasts_ms, who, at } => {
                    let mut body = who.body();
                    body["until"] = json!(crate::daemon::now().plus_ms(*lasts_ms));
                    desk.act(id, "suppress", body, at.output).await
                }
                Incidents::Draft { id, draft, text, file, by, at } => {
                    let text = match (text, file) {
                        (Some(text), _) => Some(text.clone()),
                        (None, Some(file)) => Some(read_text(file)?),
                        (None, None) => None,
                    };
                    match text {
                        Some(text) => desk.act(id, "draft", json!({"by": by, "draft": draft, "text": text}), at.output).await,
                        None => desk.draft(id, draft, at.output).await,
                    }
                }
                Incidents::Sent { id, draft, to, by, at } => desk.act(id, "sent", json!({"by": by, "draft": draft, "to": to}), at.output).await,
                Incidents::Clock { id, clock, started, met, waived, from, who, at } => {
                    let said = [(started, "started"), (met, "met"), (waived, "waived")].into_iter().find(|(is, _)| **is);
                    match said {
                        None => desk.clocks(id, at.output).await,
                        Some((_, state)) => {
                            let mut body = who.body();
                            body["clock"] = json!(clock);
                            body["state"] = json!(state);
                            body["from"] = json!(from);
                            desk.act(id, "clock", body, at.output).await
                        }
                    }
                }
                Incidents::Reopen { id, who, at } => desk.act(id, "reopen", who.body(), at.output).await,
                Incidents::Resolve { id, closed_as, who, at } => {
                    let mut body = who.body();
                    body["as"] = json!(closed_as);
                    desk.act(id, "resolve", body, at.output).await
                }
                Incidents::Approve { id, step, plan, yes, again, who, at } => {
                    let consent = match (plan, yes, again) {
                        (Some(hash), ..) => Consent::ToPlan(hash.clone()),
                        (None, true, _) => Consent::ToWhatever,
                        (None, false, true) => Consent::LookAgain,
                        (None, false, false) => Consent::NotYet,
                    };
                    desk.approve(id, step, &consent, who, at.output).await
                }
                Incidents::Undo { id, step, who, at } => {
                    let mut body = who.body();
                    body["step"] = json!(step);
                    desk.act(id, "undo", body, at.output).await
                }
                Incidents::Severity { id, severity, by, why, at } => {
                    desk.act(id, "severity", json!({"by": by, "severity": severity, "why": why}), at.output).await
                }
                Incidents::Note { id, text, by, at } => desk.act(id, "note", json!({"by": by, "text": text}), at.output).await,
            }
        })
    }

    fn at(&self) -> &At {
        match self {
            Incidents::List { at, .. }
            | Incidents::Show { at, .. }
            | Incidents::Explain { at, .. }
            | Incidents::Ack { at, .. }
            | Incidents::Mitigate { at, .. }
            | Incidents::Resolve { at, .. }
            | Incidents::Note { at, .. }
            | Incidents::Approve { at, .. }
            | Incidents::Undo { at, .. }
            | Incidents::Severity { at, .. }
            | Incidents::Merge { at, .. }
            | Incidents::Split { at, .. }
            | Incidents::Suppress { at, .. }
            | Incidents::Draft { at, .. }
            | Incidents::Sent { at, .. }
            | Incidents::Clock { at, .. }
            | Incidents::Reopen { at, .. } => at,
        }
    }
}

impl Who {
    fn body(&self) -> Value {
        json!({"by": self.by, "why": self.why})
    }
}

/// As it stands in a message, or without its prefix.
fn id_of(text: &str) -> Result<String, Failure> {
    let id = if text.starts_with("inc-") { text.to_owned() } else { format!("inc-{}", text.to_ascii_uppercase()) };
    // It becomes part of a path.
    match id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        true => Ok(id),
        false => Err(Failure::usage(format!("{text:?} is no id of an incident")).hint("bellwether incidents list shows them")),
    }
}

// === the desk ===

pub struct Desk {
    server: String,
    client: reqwest::Client,
    /// Read when nobody answers, unless a server was named.
    data_dir: Option<PathBuf>,
}

/// To what somebody agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Consent {
    /// He wants to see it first.
    NotYet,
    LookAgain,
    ToPlan(String),
    ToWhatever,
}

/// Why there is no answer.
enum Trouble {
    /// Nobody is there.
    Away(Failure),
    Refused(Failure),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Away(failure) | Trouble::Refused(failure) => failure,
        }
    }
}

impl Desk {
    pub fn of(at: &At, global: &Global) -> Result<Desk, Failure> {
        let named = at.server.as_ref().filter(|s| !s.is_empty());
        let settings = if named.is_some() { None } else { global.load_to_find() };
        let server = match (named, &settings) {
            (Some(url), _) if url.contains("://") => url.trim_end_matches('/').to_owned(),
            (Some(address), _) => format!("http://{address}"),
            (None, Some(settings)) => format!("http://{}", reachable(&settings.listen)),
            (None, None) => SERVER.to_owned(),
        };
        reqwest::Url::parse(&server).map_err(|e| Failure::usage(format!("{server:?} is no URL: {e}")))?;
        let configured = settings.map_or_else(|| PathBuf::from("./bellwether-data"), |s| s.data_dir);
        let data_dir = at.data_dir.clone().or_else(|| named.is_none().then_some(configured));
        let client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
        // A proxy does not know this machine's loopback.
        let client = if is_loopback(&server) { client.no_proxy() } else { client };
        let client = match token(at)? {
            Some(token) => {
                let mut value = reqwest::header::HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| Failure::usage("the token holds odd characters"))?;
                value.set_sensitive(true);
                client.default_headers([(reqwest::header::AUTHORIZATION, value)].into_iter().collect())
            }
            None => client,
        };
        Ok(Desk { server, client: client.build().map_err(|e| Failure::of(&e))?, data_dir })
    }

    async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Trouble> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.answer(self.client.get(url)).await
    }

    fn url(&self, path: &str) -> Result<reqwest::Url, Trouble> {
        reqwest::Url::parse(&format!("{}{path}", self.server)).map_err(|e| Trouble::Refused(Failure::usage(format!("{}: {e}", self.server))))
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Value, Trouble> {
        let response = request.send().await.map_err(|why| {
            let is_away = why.is_connect() || why.is_timeout();
            let failure = Failure::new(format!("cannot reach {}: {}", self.server, chain(&why.without_url())));
            let failure = failure.hint("does the daemon run? another one is named with --server URL");
            if is_away { Trouble::Away(failure) } else { Trouble::Refused(failure) }
        })?;
        let status = response.status();
        let text = response.text().await.map_err(|e| Trouble::Refused(Failure::of(&e)))?;
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|e| Trouble::Refused(self.strange(&e)));
        }
        let detail = serde_json::from_str::<Value>(&text).ok().and_then(|v| v["detail"].as_str().map(inert));
        Err(Trouble::Refused(Failure::new(detail.unwrap_or_else(|| format!("{} answers {status}", self.server)))))
    }

    fn strange(&self, why: &dyn std::fmt::Display) -> Failure {
        Failure::new(format!("{} gives an answer that this version does not understand: {why}", self.server))
            .hint("is it a bellwether, and of the same version?")
    }

    fn read<T: serde::de::DeserializeOwned>(&self, value: Value) -> Result<T, Failure> {
        serde_json::from_value(value).map_err(|e| self.strange(&e))
    }

    /// What the store says, where nobody answers.
    fn stored<T>(&self, away: Failure, read: impl FnOnce(&Store) -> Result<T, crate::store::Error>) -> Result<T, Failure> {
        let Some(dir) = &self.data_dir else { return Err(away) };
        let Some(store) = open(dir)? else { return Err(away) };
        eprintln!("warning: no daemon answers at {}; this is what its store in {} says", self.server, dir.display());
        read(&store).map_err(|e| Failure::of(&e))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Incident>, Failure> {
        let mut all: Vec<Incident> = Vec::new();
        let mut cursor: Option<String> = None;
        while all.len() < filter.limit {
            let limit = (filter.limit - all.len()).min(PAGE);
            let mut query = vec![("limit", limit.to_string())];
            query.extend(filter.live.map(|_| ("live", "true".to_owned())));
            query.extend(filter.model.clone().map(|m| ("model", m)));
            query.extend(filter.category.map(|c| ("category", c.to_string())));
            query.extend(filter.state.map(|s| ("state", s.to_string())));
            query.extend(cursor.take().map(|c| ("cursor", c)));
            let list: List = match self.get("/api/v1/incidents", &query).await {
                Ok(value) => self.read(value)?,
                Err(Trouble::Away(away)) => return self.stored(away, |store| store.incidents(filter)).map(|(all, _)| all),
                Err(Trouble::Refused(failure)) => return Err(failure),
            };
            all.extend(list.data);
            match list.next_cursor {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        Ok(all)
    }

    async fn page(&self, id: &str) -> Result<Page, Failure> {
        match self.get(&format!("/api/v1/incidents/{id}"), &[]).await {
            Ok(value) => self.read(value),
            Err(Trouble::Away(away)) => {
                let found = self.stored(away, |store| {
                    let Some(incident) = store.incident(id)? else { return Ok(None) };
                    let told = store.deliveries_of(id)?.into_iter().map(|d| Told {
                        detail: d.delivery.told(&d.detail),
                        id: d.delivery.id,
                        receiver: d.delivery.receiver,
                        notice: d.delivery.message.notice.as_str().to_owned(),
                        state: d.state.as_str().to_owned(),
                        attempts: d.attempts,
                        created_at: d.created_at,
                        last_attempt_at: d.last_attempt_at,
                    });
                    Ok(Some(Page { incident, deliveries: told.collect(), timeline: store.timeline(id)? }))
                })?;
                found.ok_or_else(|| Failure::new(format!("no incident {id:?}")))
            }
            Err(Trouble::Refused(failure)) => Err(failure),
        }
    }

    async fn act(&self, id: &str, verb: &str, body: Value, output: Output) -> Result<(), Failure> {
        let id = id_of(id)?;
        let url = self.url(&format!("/api/v1/incidents/{id}/{verb}"))?;
        let incident: Incident = self.read(self.answer(self.client.post(url).json(&body)).await?)?;
        output.one(&incident, || format!("{}: {}, revision {}\n", incident.id, incident.state, incident.revision))
    }

    /// A text for users as it stands.
    async fn draft(&self, id: &str, name: &str, output: Output) -> Result<(), Failure> {
        let page = self.page(&id_of(id)?).await?;
        let all = &page.incident.response.drafts;
        let found = match (name, all.as_slice()) {
            ("", [only]) => Some(only),
            (name, all) => all.iter().find(|d| d.name == name),
        };
        match found {
            Some(draft) => output.one(draft, || format!("{}\n", lines(&draft.text))),
            None if all.is_empty() => Err(Failure::new(format!("incident {} has no draft", page.incident.id))),
            None => {
                let known: Vec<&str> = all.iter().map(|d| d.name.as_str()).collect();
                Err(Failure::new(format!("which draft of incident {}?", page.incident.id)).hint(format!("its drafts: {}", known.join(", "))))
            }
        }
    }

    /// Duties to report, and what is left of their time.
    async fn clocks(&self, id: &str, output: Output) -> Result<(), Failure> {
        let page = self.page(&id_of(id)?).await?;
        let now = crate::daemon::now();
        let rows = ClockRow::of(&page.incident, now);
        output.list(&rows, || {
            if rows.is_empty() {
                return "none\n".to_owned();
            }
            let rows = rows.iter().map(|c| vec![c.name.clone(), c.state.to_string(), left(c), inert(&c.words), said(c)]);
            table(&["CLOCK", "STATE", "TIME", "WHAT", "SAID"], &rows.collect::<Vec<_>>())
        })
    }

    /// What is normal.
    pub async fn baselines(&self, query: &[(&str, String)]) -> Result<Vec<BaselineView>, Failure> {
        let mut answer = self.get("/api/v1/baselines", query).await?;
        self.read(answer["data"].take())
    }

    /// Changes it.
    pub async fn teach(&self, path: &str, body: Value) -> Result<Vec<BaselineView>, Failure> {
        let mut answer = self.answer(self.client.post(self.url(path)?).json(&body).timeout(TEACHING)).await?;
        self.read(answer["data"].take())
    }

    /// Shows the plan; carries it out if it is the one that was named, or whatever it is with `yes`.
    async fn approve(&self, id: &str, step: &str, consent: &Consent, who: &Who, output: Output) -> Result<(), Failure> {
        if *consent == Consent::LookAgain {
            let mut body = who.body();
            body["step"] = json!(step);
            return self.act(id, "plan", body, output).await;
        }
        let page = self.page(&id_of(id)?).await?;
        let i = &page.incident;
        let found = if step.is_empty() { i.response.ready().filter(|s| s.action.is_some()) } else { i.response.step(step) };
        let Some(found) = found else {
            let known: Vec<&str> = i.response.steps.iter().map(|s| s.id.as_str()).collect();
            return Err(Failure::new(format!("incident {} has no such action", i.id)).hint(format!("its steps: {}", known.join(", "))));
        };
        let Some(planned) = &found.plan else {
            return Err(Failure::new(format!("step {:?} is {}: {}", found.id, found.state, inert(&found.words)))
                .hint("bellwether incidents approve ID --again looks again"));
        };
        let hash = match consent {
            Consent::ToPlan(hash) => hash.clone(),
            Consent::ToWhatever => planned.hash.clone(),
            Consent::NotYet | Consent::LookAgain => {
                let words = || {
                    format!(
                        "{}\n\nstep     {} ({})\nchange   {}\nrequest  {}\nplan     {}, good until {}\nundo     {}\nneeds    {}{}\n\nTo carry it out: bellwether incidents approve {} --step {} --plan {}\n",
                        inert(&found.say),
                        found.id,
                        found.state,
                        inert(&planned.change),
                        inert(&planned.request),
                        planned.hash,
                        planned.expires_at,
                        if planned.can_undo { "possible" } else { "not from here" },
                        found.needs,
                        if found.two_people { ", two people" } else { "" },
                        i.id,
                        found.id,
                        planned.hash
                    )
                };
                return output.one(found, words);
            }
        };
        let body = json!({"by": who.by, "why": who.why, "step": found.id, "plan": hash});
        self.act(id, "approve", body, output).await
    }

    /// A list of anything.
    pub async fn list_of<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        let value = self.get(path, &[]).await?;
        self.read(value["data"].clone())
    }

    pub async fn post<T: serde::de::DeserializeOwned>(&self, path: &str, body: Value) -> Result<T, Failure> {
        let url = self.url(path)?;
        self.read(self.answer(self.client.post(url).json(&body)).await?)
    }

    async fn explain(&self, id: &str, output: Output) -> Result<(), Failure> {
        let page = self.page(id).await?;
        let mut pasts: Vec<Option<Past>> = Vec::new();
        for finding in &page.incident.findings {
            let past = self.get(&format!("/api/v1/series/{}/points", finding.series_id), &[]).await;
            pasts.push(past.ok().and_then(|value| serde_json::from_value(value).ok()));
        }
        match output {
            Output::Table => print(&explained(&page.incident, &pasts)),
            Output::Json | Output::Jsonl | Output::Yaml => {
                let findings: Vec<Value> = (page.incident.findings.iter().zip(&pasts))
                    .map(|(f, past)| {
                        let points = past.as_ref().map(|p| &p.data);
                        json!({"finding": f, "series": past.as_ref().map(|p| &p.series), "points": points, "words": evidence(f, past.as_ref())})
                    })
                    .collect();
                let i = &page.incident;
                let document = json!({
                    "id": i.id, "title": i.title, "paged": i.paged, "page_reason": i.page_reason, "severity": i.severity,
                    "severity_reasons": i.severity_reasons, "cause": i.cause, "findings": findings,
                });
                output.one(&document, String::new)
            }
        }
    }
}

/// Several lines of somebody's text, each harmless on a terminal.
fn lines(text: &str) -> String {
    text.lines().map(inert).collect::<Vec<_>>().join("\n")
}

fn read_text(file: &Path) -> Result<String, Failure> {
    let read = if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    read.map_err(|e| Failure::usage(format!("{}: {e}", file.display())))
}

/// What is left of a clock.
fn left(clock: &ClockRow) -> String {
    match (clock.seconds_left, clock.due) {
        (Some(s), Some(due)) if s >= 0 => format!("{} left, until {due}", span(s * 1_000)),
        (Some(_), Some(due)) => format!("over since {due}"),
        (Some(_) | None, _) => "-".to_owned(),
    }
}

/// Who decided what of a clock.
fn said(clock: &ClockRow) -> String {
    clock.decided.as_ref().map_or_else(String::new, |d| format!("{} at {}: {}", inert(&d.by), d.at, inert(&d.why)))
}

/// What shows who is asking.
fn token(at: &At) -> Result<Option<String>, Failure> {
    if let Some(path) = &at.token_file {
        let text = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
        return Ok(Some(text.trim().to_owned()).filter(|t| !t.is_empty()));
    }
    Ok(std::env::var("BELLWETHER_TOKEN").ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()))
}

/// The store of a daemon that does not run; `None` where there is none.
fn open(dir: &Path) -> Result<Option<Store>, Failure> {
    match Store::open_reader(dir) {
        Ok(store) => Ok(Some(store)),
        Err(crate::store::Error::Missing { .. }) => Ok(None),
        Err(error) => Err(Failure::of(&error)),
    }
}

/// An address that listens on all is reached on the loopback.
fn reachable(listen: &str) -> String {
    match listen.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        _ => listen.to_owned(),
    }
}

fn is_loopback(server: &str) -> bool {
    let host = reqwest::Url::parse(server).ok().and_then(|u| u.host_str().map(str::to_owned)).unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

// === words ===

fn rows(all: &[Incident]) -> String {
    if all.is_empty() {
        return "no incidents\n".to_owned();
    }
    let row = |i: &Incident| {
        let paged = if i.paged { "yes" } else { "no" };
        vec![
            i.id.clone(),
            i.opened_at.to_string(),
            i.severity.to_string(),
            i.state.to_string(),
            i.key.category.to_string(),
            paged.to_owned(),
            i.title.clone(),
        ]
    };
    table(&["ID", "OPENED", "SEV", "STATE", "CATEGORY", "PAGED", "WHAT"], &all.iter().map(row).collect::<Vec<_>>())
}

fn shown(page: &Page) -> String {
    let i = &page.incident;
    let mut out = format!("{}\n\n", inert(&i.title));
    let mut put = |name: &str, words: &str| out.push_str(&format!("{name:10} {}\n", inert(words)));
    put("id", &i.id);
    put("state", &format!("{}, revision {}", i.state, i.revision));
    put("severity", &format!("{} ({})", i.severity, i.severity.words()));
    for reason in i.severity_reasons.iter() {
        put("", &format!("{}: {} ({})", reason.question, reason.answer, reason.source));
    }
    put("category", i.key.category.as_str());
    put("onset", &format!("{} (90 %: {} to {})", i.onset.at, i.onset.from, i.onset.to));
    put("opened", &i.opened_at.to_string());
    if let Some(at) = i.resolved_at {
        put("resolved", &format!("{at}{}", i.closed_as.map(|c| format!(" as {c}")).unwrap_or_default()));
    }
    if let Some(into) = i.merged_into.as_ref().filter(|_| i.state == IncidentState::Merged) {
        put("", &format!("merged into {into}, which tells of it"));
    }
    if let Some(held) = &i.suppressed {
        let until = held.until.map(|t| format!(", until {t}")).unwrap_or_default();
        put("held", &format!("{}{until}", held.words));
    }
    for b in &i.merged {
        let id = b.id.as_deref().unwrap_or("no record of its own");
        put("told here as well", &format!("{} of {} ({id}): {}", b.key.category, b.key.model, b.reason));
    }
    put("paged", &format!("{}: {}", if i.paged { "yes" } else { "no" }, i.page_reason));
    if let Some(users) = i.users_affected {
        put("users", &format!("about {:.0} ({:.0} to {:.0})", users.estimate, users.low, users.high));
    }
    if let Some(cause) = &i.cause {
        put("cause", &format!("most likely {}", cause.best));
        cause.facts.iter().for_each(|fact| put("", fact));
    }
    if !i.action.is_empty() {
        put("action", &i.action);
    }
    let r = &i.response;
    if !r.steps.is_empty() {
        put("runbook", &format!("{}, answered for by {}", r.runbook, r.owner));
        for s in &r.steps {
            let words = if s.words.is_empty() { String::new() } else { format!(": {}", s.words) };
            put("", &format!("[{}] {}: {}{words}", s.state, s.id, s.say));
        }
        put("fallback", &r.fallback);
    }
    for draft in &r.drafts {
        let edited = draft.edited.as_ref().map(|e| format!(", changed by {}", e.by)).unwrap_or_default();
        let sent = draft.sent.last().map_or_else(|| ", not sent".to_owned(), |s| format!(", sent by {} to {}", s.by, s.to));
        put("draft", &format!("{}{edited}{sent}", draft.name));
    }
    for clock in ClockRow::of(i, crate::daemon::now()) {
        put("clock", &format!("{} is {}: {}; {} {}", clock.name, clock.state, clock.words, left(&clock), said(&clock)));
    }
    for finding in &i.findings {
        let over = finding.recovered_at.map(|at| format!(", recovered {at}")).unwrap_or_default();
        put("evidence", &format!("{}: {}{over}", finding.series.group.words(), finding.headline));
    }
    let timeline: Vec<Vec<String>> = page.timeline.iter().map(|t| vec![t.at.to_string(), t.who.words(), t.what.clone(), t.why.clone()]).collect();
    out.push_str(&format!("\n{}", table(&["TIMELINE", "WHO", "WHAT", "WHY"], &timeline)));
    if !page.deliveries.is_empty() {
        let told: Vec<Vec<String>> = (page.deliveries.iter())
            .map(|d| vec![d.created_at.to_string(), d.receiver.clone(), d.notice.clone(), d.state.clone(), d.attempts.to_string(), d.detail.clone()])
            .collect();
        out.push_str(&format!("\n{}", table(&["TOLD", "RECEIVER", "NOTICE", "STATE", "ATTEMPTS", "ANSWER"], &told)));
    }
    out
}

fn explained(i: &Incident, pasts: &[Option<Past>]) -> String {
    let mut out = format!("{}\n\n", inert(&i.title));
    let paged = if i.paged { "It paged" } else { "It did not page" };
    out.push_str(&format!("{paged}: {}.\n", inert(&i.page_reason)));
    out.push_str(&format!("It is severity {} ({}):\n", i.severity, i.severity.words()));
    for reason in i.severity_reasons.iter() {
        out.push_str(&format!("  - {}: {} (from {})\n", inert(&reason.question), inert(&reason.answer), inert(&reason.source)));
    }
    for (finding, past) in i.findings.iter().zip(pasts) {
        out.push('\n');
        evidence(finding, past.as_ref()).iter().for_each(|line| out.push_str(&format!("{}\n", inert(line))));
        if let Some(past) = past {
            out.push_str(&points(finding, past));
        }
    }
    if let Some(cause) = &i.cause {
        out.push_str(&format!("\nThe cause is looked for first in: {}\n", cause.best));
        cause.facts.iter().for_each(|fact| out.push_str(&format!("  - {}\n", inert(fact))));
    }
    if pasts.iter().all(Option::is_none) && !i.findings.is_empty() {
        out.push_str("\nThe points behind the evidence are known to a running daemon only.\n");
    }
    out
}

/// Why one series spoke, sentence by sentence.
fn evidence(f: &Finding, past: Option<&Past>) -> Vec<String> {
    let mut out = vec![format!("{} of {}: {}", f.series.signal.words(), f.series.group.words(), f.headline)];
    if let Some(c) = &f.change {
        let words = |v: f64| f.unit.words(v);
        let line = format!("  before {}, since then {} (95 %: {} to {})", words(c.before), words(c.after), words(c.low), words(c.high));
        out.push(line);
    }
    out.push(format!("  began {} (90 %: {} to {}), found {}", f.onset.at, f.onset.from, f.onset.to, f.found_at));
    match (f.by_rule, f.log_evidence, f.threshold) {
        (true, ..) => out.push(format!("  a rule: {}; it needs no statistics", f.reason)),
        (false, Some(evidence), Some(threshold)) => out.push(format!(
            "  {evidence:.1} nats of evidence for a change beyond tolerance, where the budget of false pages asks for {threshold:.1}: \
             without a change this would be seen in one of about {} panes",
            crate::judge::thousands(threshold.exp().min(1e15))
        )),
        (false, ..) => out.push(format!("  {}", f.reason)),
    }
    if let Some(past) = past {
        out.push(format!("  now: {}", past.series.words));
        out.push(format!("  it may cost {:.4} false pages in 30 days", past.series.budget_share));
    }
    if let Some(at) = f.recovered_at {
        out.push(format!("  back within tolerance since {at}"));
    }
    out
}

/// The panes around the onset.
fn points(f: &Finding, past: &Past) -> String {
    let all: Vec<Seen> = past.data.iter().filter_map(|p| serde_json::from_value(p.clone()).ok()).collect();
    let from = all.partition_point(|p| p.time < f.onset.at).saturating_sub(POINTS_SHOWN / 3);
    let words = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| f.unit.words(v));
    let nats = |v: Option<f64>| v.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
    let row = |p: &Seen| {
        let tolerated = if p.low.is_some() && p.high.is_some() { format!("{} to {}", words(p.low), words(p.high)) } else { "-".to_owned() };
        vec![p.time.to_string(), format!("{:.0}", p.n), words(p.value), tolerated, nats(p.log_evidence), nats(p.threshold)]
    };
    let rows: Vec<Vec<String>> = all.iter().skip(from).take(POINTS_SHOWN).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    table(&["PANE", "EVENTS", "VALUE", "TOLERATED", "EVIDENCE", "ASKED"], &rows).lines().map(|l| format!("  {l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_read_aloud_and_is_no_path() {
        assert_eq!(id_of("inc-PC7V").ok().as_deref(), Some("inc-PC7V"));
        assert_eq!(id_of("pc7v").ok().as_deref(), Some("inc-PC7V"));
        for text in ["../x", "a/b", "inc-?", "ä"] {
            assert!(id_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn who_listens_on_all_is_asked_on_the_loopback() {
        for (listen, server) in [("0.0.0.0:9710", "127.0.0.1:9710"), ("[::]:80", "127.0.0.1:80"), ("10.0.0.1:9710", "10.0.0.1:9710")] {
            assert_eq!(reachable(listen), server);
        }
        assert!(is_loopback("http://127.0.0.1:9710") && is_loopback("http://[::1]:1") && !is_loopback("http://example.org"));
    }
}
