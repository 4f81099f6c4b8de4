//! The API for programs: JSON, snake_case, times in UTC, ids as text. Lists are `{"data": [...], "next_cursor": ...}`, errors are
//! problem documents (RFC 9457).
//!
//! An incident is written with the revision that the writer saw (`If-Match`): two people who press at the same moment should both
//! know. `Idempotency-Key` makes a repeated write give the first answer. The document of this API stands beside its routes in
//! [`ROUTES`]; a test walks it, so that it promises only what exists.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::backend::{ActionResult, Audited, CommandError, HearError, IncidentFilter, IncidentPage, PersonCommand};
use super::roles::Caller;
use super::{Detail, Shared, Web};
use crate::domain::{Category, ClockState, ClosedAs, IncidentState, Severity, Time};
use crate::engine::view::SeriesView;
use crate::respond::DutyCommand;

/// Items of one page of a list.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 500;
/// Series of one answer; more are found by naming a model.
const SERIES_MAX: usize = 5_000;
/// Characters of a name, and of what a person writes.
pub const NAME_CHARS_MAX: usize = 200;
pub const TEXT_CHARS_MAX: usize = 4_000;
/// Bytes of an idempotency key.
const KEY_BYTES_MAX: usize = 255;

pub fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/api/v1/incidents", get(incidents))
        .route("/api/v1/incidents/{id}", get(incident))
        .route("/api/v1/incidents/{id}/{verb}", post(command))
        .route("/api/v1/receivers/{name}/events", post(hear))
        .route("/api/v1/actions/{id}/result", post(result))
        .route("/api/v1/models", get(models))
        .route("/api/v1/series", get(series))
        .route("/api/v1/series/{id}/points", get(points))
        .route("/api/v1/faults", get(faults))
        .route("/api/v1/faults/{name}/{switch}", post(switch))
        .route("/api/v1/status/config", get(config))
        .route("/api/v1/status/buildinfo", get(build_info))
        .route("/api/v1/status/runtimeinfo", get(runtime_info))
        .route("/api/v1/openapi.json", get(|| async { Json(document()) }))
        .route("/api/{*rest}", axum::routing::any(nothing_here))
        .method_not_allowed_fallback(|| async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path is there, but not for this method") })
}

// --- problems ---

/// What went wrong, for programs and for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    pub status: StatusCode,
    pub detail: String,
    /// Which member of the body, and what is wrong with it.
    pub errors: Vec<(String, String)>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem { status, detail: detail.into(), errors: Vec::new() }
    }

    pub fn member(name: &str, detail: impl Into<String>) -> Problem {
        let detail = detail.into();
        Problem { status: StatusCode::UNPROCESSABLE_ENTITY, detail: format!("{name}: {detail}"), errors: vec![(format!("#/{name}"), detail)] }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.errors.is_empty() {
            body["errors"] = self.errors.iter().map(|(pointer, detail)| json!({"pointer": pointer, "detail": detail})).collect();
        }
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Problem {
        let status = match &error {
            CommandError::NotFound(_) => StatusCode::NOT_FOUND,
            CommandError::Conflict { .. } => StatusCode::PRECONDITION_FAILED,
            CommandError::Refused(_) => StatusCode::CONFLICT,
            CommandError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error.to_string())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        Problem::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

type Answer<T> = Result<T, Problem>;

/// A list with the cursor of its next page.
#[derive(Serialize)]
struct List<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> List<T> {
    fn whole(data: Vec<T>) -> Json<List<T>> {
        Json(List { data, next_cursor: None })
    }
}

async fn nothing_here() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such path; the document of this API is at /api/v1/openapi.json")
}

// --- incidents ---

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IncidentQuery {
    pub model: Option<String>,
    pub category: Option<String>,
    pub state: Option<String>,
    pub live: bool,
    pub limit: Option<usize>,
    pub cursor: Option<String>,
}

impl IncidentQuery {
    /// # Errors
    /// A word outside its closed set, with the known ones.
    pub fn filter(self) -> Answer<IncidentFilter> {
        let known = |e: crate::domain::words::UnknownWord| Problem::new(StatusCode::BAD_REQUEST, e.to_string());
        if let Some(category) = &self.category {
            category.parse::<Category>().map_err(known)?;
        }
        if let Some(state) = &self.state {
            state.parse::<IncidentState>().map_err(known)?;
        }
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
        Ok(IncidentFilter { model: self.model, category: self.category, state: self.state, live: self.live, limit, cursor: self.cursor })
    }
}

async fn incidents(State(web): Shared, query: Result<Query<IncidentQuery>, QueryRejection>) -> Answer<Response> {
    let Query(query) = query?;
    let (data, next_cursor) = web.backend.incidents(query.filter()?).await?;
    Ok(Json(List { data, next_cursor }).into_response())
}

async fn incident(State(web): Shared, Path(id): Path<String>) -> Answer<Response> {
    let page: IncidentPage = web.backend.incident(&id).await?;
    Ok(([(header::ETAG, tag(page.incident.revision))], Json(page)).into_response())
}

fn tag(revision: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Body of a write. Which members are needed depends on the verb.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandBody {
    pub by: String,
    pub why: String,
    #[serde(rename = "as")]
    pub closed_as: String,
    pub text: String,
    /// Of a runbook; empty: the one that is ready.
    pub step: String,
    /// The hash of the plan that was seen.
    pub plan: String,
    /// 1, 2 or 3; forms send it as text.
    pub severity: Option<Level>,
    /// The incident that tells of this one from now on.
    pub into: String,
    pub until: Option<Time>,
    /// Of a draft: its name; may be left out where there is one.
    pub draft: String,
    /// To whom a draft was sent.
    pub to: String,
    /// Of a duty to report: its name; may be left out where there is one.
    pub clock: String,
    /// What the clock is from now on: `started`, `met` or `waived`.
    pub state: String,
    /// Since when a clock that is started runs.
    pub from: Option<Time>,
}

/// A severity as JSON or a form writes it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Level {
    Number(u8),
    Text(String),
}

/// Verbs of [`PersonCommand`].
pub const VERBS: [&str; 16] = [
    "acknowledge",
    "mitigate",
    "resolve",
    "reopen",
    "note",
    "severity",
    "plan",
    "approve",
    "undo",
    "done",
    "merge",
    "split",
    "suppress",
    "draft",
    "sent",
    "clock",
];

impl CommandBody {
    /// For the audit.
    pub fn detail(&self, caller: &Caller) -> Detail {
        let parts = [("by", caller.by(&self.by)), ("as", self.closed_as.clone()), ("step", self.step.clone()), ("plan", self.plan.clone())];
        let words =
            [("draft", &self.draft), ("to", &self.to), ("clock", &self.clock), ("state", &self.state), ("why", &self.why), ("text", &self.text)]
                .map(|(name, t)| (name, t.clone()));
        let all: Vec<String> = parts.into_iter().chain(words).filter(|(_, v)| !v.is_empty()).map(|(name, v)| format!("{name}={v}")).collect();
        Detail(all.join(" "))
    }

    /// # Errors
    /// What is missing or too long, by member; an unknown verb is not found.
    pub fn command(self, verb: &str, caller: &Caller) -> Answer<PersonCommand> {
        if !VERBS.contains(&verb) {
            return Err(Problem::new(StatusCode::NOT_FOUND, format!("no verb {verb:?} (known: {})", VERBS.join(", "))));
        }
        let by = caller.by(&self.by);
        if by.is_empty() {
            return Err(Problem::member("by", "who does this is needed"));
        }
        for (name, text, most) in [
            ("by", &by, NAME_CHARS_MAX),
            ("why", &self.why, TEXT_CHARS_MAX),
            ("text", &self.text, TEXT_CHARS_MAX),
            ("step", &self.step, NAME_CHARS_MAX),
            ("draft", &self.draft, NAME_CHARS_MAX),
            ("to", &self.to, TEXT_CHARS_MAX),
            ("clock", &self.clock, NAME_CHARS_MAX),
        ] {
            if text.chars().count() > most {
                return Err(Problem::member(name, format!("at most {most} characters")));
            }
        }
        let why = self.why;
        Ok(match verb {
            "acknowledge" => PersonCommand::Acknowledge { by, why },
            "mitigate" => PersonCommand::Mitigate { by, why },
            "reopen" => PersonCommand::Reopen { by, why },
            "split" => PersonCommand::Split { by, why },
            "merge" if self.into.trim().is_empty() => return Err(Problem::member("into", "the id of the incident that tells of it is needed")),
            "merge" => PersonCommand::Merge { into: self.into.trim().to_owned(), by, why },
            "suppress" => match self.until {
                Some(until) if until > super::now() => PersonCommand::Suppress { by, why, until },
                Some(_) => return Err(Problem::member("until", "it must lie in the future")),
                None => return Err(Problem::member("until", "when it calls again is needed")),
            },
            "resolve" => {
                let closed_as = self.closed_as.parse::<ClosedAs>().map_err(|e| Problem::member("as", e.to_string()))?;
                PersonCommand::Resolve { by, closed_as, why }
            }
            "plan" => PersonCommand::Plan { by, step: self.step },
            "approve" if self.plan.trim().is_empty() => {
                return Err(Problem::member("plan", "the hash of the plan that you saw is needed; it stands in incident.response.steps[].plan.hash"));
            }
            "approve" => PersonCommand::Approve { by, role: caller.role, step: self.step, plan: self.plan.trim().to_owned() },
            "draft" if self.text.trim().is_empty() => return Err(Problem::member("text", "the draft as it shall be is needed")),
            "draft" => PersonCommand::Duty(DutyCommand::Edit { by, draft: self.draft, text: self.text }),
            "sent" if self.to.trim().is_empty() => return Err(Problem::member("to", "to whom it was sent is needed")),
            "sent" => PersonCommand::Duty(DutyCommand::Sent { by, draft: self.draft, to: self.to }),
            "clock" => {
                let to = self.state.parse::<ClockState>().map_err(|e| Problem::member("state", e.to_string()))?;
                if to == ClockState::Suggested {
                    return Err(Problem::member("state", "started, met or waived"));
                }
                if !to.runs() && why.trim().is_empty() {
                    return Err(Problem::member("why", "the reason is kept; it is what will be asked for"));
                }
                PersonCommand::Duty(DutyCommand::Clock { by, clock: self.clock, to, why, from: self.from })
            }
            "undo" => PersonCommand::Undo { by, role: caller.role, step: self.step },
            "done" if self.step.trim().is_empty() => return Err(Problem::member("step", "which step is done?")),
            "done" => PersonCommand::Done { by, step: self.step, why },
            "severity" => {
                let level = match self.severity {
                    Some(Level::Number(level)) => Some(level),
                    Some(Level::Text(text)) => text.trim().parse().ok(),
                    None => None,
                };
                let severity =
                    level.and_then(Severity::new).ok_or_else(|| Problem::member("severity", "1 (active harm), 2 (degraded) or 3 (minor)"))?;
                if why.trim().is_empty() {
                    return Err(Problem::member("why", "another severity needs a reason"));
                }
                PersonCommand::SetSeverity { by, severity, why }
            }
            _ if self.text.trim().is_empty() => return Err(Problem::member("text", "a note needs a text")),
            _ => PersonCommand::Note { by, text: self.text },
        })
    }
}

async fn command(
    State(web): Shared,
    Path((id, verb)): Path<(String, String)>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Result<Json<CommandBody>, JsonRejection>,
) -> Answer<Response> {
    let Json(body) = body?;
    let detail = body.detail(&caller);
    let command = body.command(&verb, &caller)?;
    let revision = if_match(&headers)?;
    let key = idempotency_key(&headers)?;
    let incident = web.backend.command(&id, command, revision, key).await?;
    let mut response = ([(header::ETAG, tag(incident.revision))], Json(incident)).into_response();
    response.extensions_mut().insert(detail);
    Ok(response)
}

/// The revision that the caller saw. `*` and absence ask for none.
fn if_match(headers: &HeaderMap) -> Answer<Option<u64>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).and_then(|t| t.parse().ok());
    // A tag that we never gave matches nothing.
    revision.map(Some).ok_or_else(|| Problem::new(StatusCode::PRECONDITION_FAILED, "If-Match holds no revision of ours, such as \"3\""))
}

fn idempotency_key(headers: &HeaderMap) -> Answer<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= KEY_BYTES_MAX => Ok(Some(key.to_owned())),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, format!("Idempotency-Key is 1 to {KEY_BYTES_MAX} visible characters"))),
    }
}

// --- receivers that speak ---

/// A webhook of a receiver's. Its sender drops for ever what is answered by 4xx, so only a signature that is not theirs is.
async fn hear(State(web): Shared, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> Answer<Response> {
    let signature = headers.get("x-pagerduty-signature").and_then(|s| s.to_str().ok()).unwrap_or_default();
    match web.backend.hear(&name, signature, &body).await {
        Ok(done) => {
            let (who, role, what) = (name.clone(), "receiver".to_owned(), "told us".to_owned());
            let line = Audited { who, role, what, subject: format!("/api/v1/receivers/{name}/events"), detail: done.clone() };
            if let Err(why) = web.backend.audit(line).await {
                tracing::error!(why = %why, receiver = name, "what a receiver told is not in the audit");
            }
            Ok((StatusCode::ACCEPTED, Json(json!({"status": done}))).into_response())
        }
        Err(HearError::Unsigned) => Err(Problem::new(StatusCode::UNAUTHORIZED, HearError::Unsigned.to_string())),
        Err(HearError::Unavailable(why)) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

/// What became of an action that was accepted.
async fn result(State(web): Shared, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Answer<Response> {
    let header = |name: &str| headers.get(name).and_then(|s| s.to_str().ok()).unwrap_or_default().to_owned();
    let told = ActionResult {
        id: id.clone(),
        message: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signature: header("webhook-signature"),
        body: body.to_vec(),
    };
    match web.backend.result(told).await {
        Ok(()) => {
            let detail = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX / 4).collect();
            let (who, role, what) = ("an action's endpoint".to_owned(), "action".to_owned(), "brought a result".to_owned());
            let line = Audited { who, role, what, subject: format!("/api/v1/actions/{id}/result"), detail };
            if let Err(why) = web.backend.audit(line).await {
                tracing::error!(why = %why, action = id, "a result that was brought is not in the audit");
            }
            Ok((StatusCode::ACCEPTED, Json(json!({"status": "heard"}))).into_response())
        }
        Err(HearError::Unsigned) => Err(Problem::new(StatusCode::UNAUTHORIZED, "nobody waits for this, or it is not signed by who was asked")),
        Err(HearError::Unavailable(why)) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}

// --- models and series ---

async fn models(State(web): Shared) -> Answer<Response> {
    Ok(List::whole(web.backend.models().await?).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SeriesQuery {
    model: Option<String>,
    limit: Option<usize>,
}

async fn series(State(web): Shared, query: Result<Query<SeriesQuery>, QueryRejection>) -> Answer<Response> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(LIMIT_MAX).clamp(1, SERIES_MAX);
    let data: Vec<SeriesView> = web.backend.series(query.model.as_deref(), limit).await?;
    Ok(List::whole(data).into_response())
}

async fn points(State(web): Shared, Path(id): Path<String>) -> Answer<Json<Value>> {
    let page = web.backend.series_page(&id).await?;
    let decisions: Vec<Value> =
        page.decisions.iter().map(|(time, decision, reason)| json!({"time": time, "decision": decision, "reason": reason})).collect();
    Ok(Json(json!({"series": page.series, "onset": page.onset, "decisions": decisions, "data": page.points, "next_cursor": null})))
}

// --- the demo's faults ---

async fn faults(State(web): Shared) -> Answer<Response> {
    let all = web.backend.faults();
    if all.is_empty() { Err(nothing_here().await) } else { Ok(List::whole(all).into_response()) }
}

async fn switch(State(web): Shared, Path((name, switch)): Path<(String, String)>) -> Answer<Response> {
    let on = switch_word(&switch).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("no switch {switch:?} (known: on, off)")))?;
    if web.backend.faults().is_empty() {
        return Err(nothing_here().await);
    }
    web.backend.switch_fault(&name, on)?;
    match web.backend.faults().into_iter().find(|f| f.name == name) {
        Some(fault) => Ok(Json(fault).into_response()),
        None => Err(Problem::new(StatusCode::NOT_FOUND, format!("no fault {name:?}"))),
    }
}

pub fn switch_word(word: &str) -> Option<bool> {
    match word {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

// --- status ---

async fn config(State(web): Shared) -> Json<Value> {
    Json(json!({"yaml": web.backend.config_text()}))
}

async fn build_info(State(web): Shared) -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION"), "revision": web.backend.revision(), "rust_version": env!("CARGO_PKG_RUST_VERSION")}))
}

async fn runtime_info(State(web): Shared) -> Answer<Json<Value>> {
    let engine = web.backend.engine().await?;
    Ok(Json(json!({
        "started_at": web.started,
        "now": super::now(),
        "listen": web.listen.to_string(),
        "process_id": std::process::id(),
        "readiness": web.backend.readiness(),
        "health": web.backend.health().await,
        "engine": engine,
    })))
}

// --- the document ---

/// Method, path, what it does, name of the answer's schema.
pub const ROUTES: [(&str, &str, &str, &str); 42] = [
    ("get", "/-/healthy", "200 while the process turns; 503 only if a restart would help", ""),
    ("get", "/-/ready", "200 when it can do its work, else 503; the reasons either way", "Readiness"),
    ("post", "/-/reload", "Reads the configuration again; 400 says what is wrong with it", ""),
    ("get", "/metrics", "Prometheus text format 0.0.4", ""),
    ("get", "/api/v1/incidents", "Incidents, newest first", "Incidents"),
    ("get", "/api/v1/incidents/{id}", "An incident with its timeline and who was told; ETag is its revision", "IncidentPage"),
    ("post", "/api/v1/incidents/{id}/acknowledge", "Somebody is looking at it", "Incident"),
    ("post", "/api/v1/incidents/{id}/mitigate", "The harm has stopped", "Incident"),
    ("post", "/api/v1/incidents/{id}/resolve", "It is over; `as` says how, and decides what the series learn", "Incident"),
    ("post", "/api/v1/incidents/{id}/reopen", "It was not over", "Incident"),
    ("post", "/api/v1/incidents/{id}/severity", "A person says how bad it is: `severity` and `why`", "Incident"),
    ("post", "/api/v1/incidents/{id}/note", "Adds `text` to the timeline", "Incident"),
    (
        "post",
        "/api/v1/receivers/{name}/events",
        "What a receiver tells by itself: PagerDuty's webhooks (v3), signed; 202 when it is written down",
        "",
    ),
    (
        "post",
        "/api/v1/actions/{id}/result",
        "What became of an action that was `accepted`, brought by its endpoint and signed with its secret; `id` is its idempotency key",
        "",
    ),
    ("post", "/api/v1/incidents/{id}/plan", "Looks again at what `step` would change, and changes nothing", "Incident"),
    ("post", "/api/v1/incidents/{id}/approve", "Carries `step` out, once, if `plan` is still the hash of its plan", "Incident"),
    ("post", "/api/v1/incidents/{id}/undo", "Brings back what `step` changed", "Incident"),
    ("post", "/api/v1/incidents/{id}/done", "Somebody has done `step` by hand, or has looked and says that it is done", "Incident"),
    ("post", "/api/v1/incidents/{id}/merge", "It has the same cause as the incident `into`, which tells of it from now on", "Incident"),
    ("post", "/api/v1/incidents/{id}/split", "It stands for itself after all", "Incident"),
    ("post", "/api/v1/incidents/{id}/suppress", "Nobody is called for it before `until`", "Incident"),
    ("post", "/api/v1/incidents/{id}/draft", "Changes the text of `draft` for users to `text`", "Incident"),
    ("post", "/api/v1/incidents/{id}/sent", "A person has sent `draft`, and says `to` whom", "Incident"),
    (
        "post",
        "/api/v1/incidents/{id}/clock",
        "A person's word on the duty to report `clock`: `state` is `started` (`from` a time on), `met` or `waived`, with `why`",
        "Incident",
    ),
    ("get", "/api/v1/silences", "Silences: on, to come, and over for less than a day", "Holds"),
    ("post", "/api/v1/silences", "Nobody is called for what fits `match`, before `until`", "Hold"),
    ("post", "/api/v1/silences/{id}/expire", "Ends a silence before its time", "Hold"),
    ("get", "/api/v1/maintenance", "Maintenance windows: on, to come, and over for less than a day", "Holds"),
    ("post", "/api/v1/maintenance", "Announces work", "Hold"),
    ("post", "/api/v1/maintenance/{id}/end", "Ends a window before its time", "Hold"),
    ("get", "/api/v1/models", "Models with traffic, detector states and live incidents", "Models"),
    ("get", "/api/v1/series", "Series of a model, or all", "SeriesList"),
    ("get", "/api/v1/series/{id}/points", "The recent past of a series, with its decisions", "Points"),
    ("get", "/api/v1/baselines", "What is normal of models as wholes, and where it was learned", "Baselines"),
    ("post", "/api/v1/baselines", "Learns a reference, packed by `bellwether baseline import`", "Baselines"),
    ("post", "/api/v1/baselines/reset", "Forgets what was learned of a model, or of one `signal` of it", "Baselines"),
    ("get", "/api/v1/faults", "Faults of the demo; 404 elsewhere", "Faults"),
    ("post", "/api/v1/faults/{name}/on", "Switches a fault of the demo on", "Fault"),
    ("post", "/api/v1/faults/{name}/off", "Switches a fault of the demo off", "Fault"),
    ("get", "/api/v1/status/config", "The configuration in force, secrets as <secret>", "Config"),
    ("get", "/api/v1/status/buildinfo", "Which build this is", "BuildInfo"),
    ("get", "/api/v1/status/runtimeinfo", "The engine in numbers", "RuntimeInfo"),
];

/// OpenAPI 3.1, made from [`ROUTES`].
fn document() -> Value {
    let mut paths = json!({});
    for (method, path, summary, schema) in ROUTES {
        let mut parameters: Vec<Value> =
            path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')).map(|name| parameter("path", name)).collect();
        match path {
            "/api/v1/incidents" => parameters.extend(["model", "category", "state", "live", "limit", "cursor"].map(|n| parameter("query", n))),
            "/api/v1/baselines" if method == "get" => parameters.push(parameter("query", "model")),
            "/api/v1/series" => parameters.extend(["model", "limit"].map(|n| parameter("query", n))),
            _ => {}
        }
        let content = match schema {
            "" => json!({"text/plain": {"schema": {"type": "string"}}}),
            name => json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}}),
        };
        let mut operation = json!({
            "summary": summary,
            "responses": {
                "200": {"description": "Done", "content": content},
                "default": {"description": "A problem", "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}},
            },
        });
        if method == "post" && path.starts_with("/api/v1/incidents") {
            parameters.extend([parameter("header", "If-Match"), parameter("header", "Idempotency-Key")]);
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Command"}}}});
            operation["responses"]["412"] = json!({"description": "The incident has another revision by now"});
        }
        if method == "post" && (path.starts_with("/api/v1/silences") || path.starts_with("/api/v1/maintenance")) {
            let schema = if path.contains('{') { "EndHold" } else { "NewHold" };
            let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
            operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        paths[path][method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Bellwether",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Times are RFC 3339 in UTC, ids are text. Members may be added; unknown members are to be ignored.",
        },
        "paths": paths,
        "components": {"schemas": schemas()},
    })
}

fn parameter(place: &str, name: &str) -> Value {
    let kind = match name {
        "live" => "boolean",
        "limit" => "integer",
        _ => "string",
    };
    let mut schema = json!({"type": kind});
    match name {
        "category" => schema["enum"] = json!(Category::NAMES),
        "state" => schema["enum"] = json!(IncidentState::NAMES),
        _ => {}
    }
    json!({"in": place, "name": name, "required": place == "path", "schema": schema})
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let number = json!({"type": "number"});
    let count = json!({"type": "integer", "minimum": 0});
    let time = json!({"type": "string", "format": "date-time"});
    let time_or_none = json!({"type": ["string", "null"], "format": "date-time"});
    let list = |name: &str| {
        json!({"type": "object", "required": ["data"], "properties": {
            "data": {"type": "array", "items": {"$ref": format!("#/components/schemas/{name}")}}, "next_cursor": {"type": ["string", "null"]}}})
    };
    json!({
        "Problem": {"type": "object", "properties": {"type": text, "title": text, "status": count, "detail": text,
            "errors": {"type": "array", "items": {"type": "object", "properties": {"pointer": text, "detail": text}}}}},
        "Command": {"type": "object", "required": ["by"], "additionalProperties": false, "properties": {
            "by": {"type": "string", "maxLength": NAME_CHARS_MAX}, "why": {"type": "string", "maxLength": TEXT_CHARS_MAX},
            "step": {"type": "string", "maxLength": NAME_CHARS_MAX}, "plan": text,
            "as": {"enum": ClosedAs::NAMES}, "text": {"type": "string", "maxLength": TEXT_CHARS_MAX}, "into": text, "until": time,
            "draft": text, "to": text, "clock": text, "state": {"enum": ClockState::NAMES}, "from": time}},
        "Hold": {"type": "object", "properties": {"id": text, "kind": {"enum": ["silence", "maintenance"]}, "matcher": {"type": "object"},
            "from": time, "until": time, "by": text, "why": text, "harm": {"type": "boolean"}}},
        "Holds": list("Hold"),
        "NewHold": {"type": "object", "required": ["by", "until"], "additionalProperties": false, "properties": {
            "match": {"type": "object", "additionalProperties": false, "properties": {"environment": text, "model": text, "category": {"enum": Category::NAMES},
                "segment": {"type": "object", "properties": {"dimension": text, "value": text}}, "version": text}},
            "from": time, "until": time, "by": {"type": "string", "maxLength": NAME_CHARS_MAX}, "why": {"type": "string", "maxLength": TEXT_CHARS_MAX},
            "harm": {"type": "boolean"}}},
        "EndHold": {"type": "object", "required": ["by"], "additionalProperties": false, "properties": {"by": text}},
        "Incident": {"type": "object", "required": ["id", "revision", "key", "state", "severity", "title"], "properties": {
            "id": text, "revision": count, "state": {"enum": IncidentState::NAMES}, "severity": {"enum": [1, 2, 3]}, "title": text,
            "key": {"type": "object", "properties": {"environment": text, "model": text, "category": {"enum": Category::NAMES}}},
            "severity_reasons": {"type": "array", "items": {"type": "object", "properties": {"question": text, "answer": text, "source": text}}},
            "onset": {"type": "object", "properties": {"at": time, "from": time, "to": time}},
            "opened_at": time, "updated_at": time, "acknowledged_at": time_or_none, "mitigated_at": time_or_none, "resolved_at": time_or_none,
            "closed_as": {"enum": ["fixed", "new_normal", "false_alarm", "expected", null]}, "reopened": count, "paged": {"type": "boolean"}, "page_reason": text,
            "findings": {"type": "array", "items": {"type": "object"}}, "versions": {"type": "array", "items": text},
            "segments": {"type": "array", "items": {"type": "object", "properties": {"dimension": text, "value": text}}},
            "users_affected": {"type": ["object", "null"], "properties": {"estimate": number, "low": number, "high": number}},
            "cause": {"type": ["object", "null"]}, "action": text, "exemplars": {"type": "array", "items": {"type": "object"}},
            "response": {"$ref": "#/components/schemas/Response"}}},
        "Response": {"type": "object", "description": "The runbook's steps, and how far each has come", "properties": {
            "runbook": text, "owner": text, "fallback": text, "level": count,
            "steps": {"type": "array", "items": {"type": "object", "properties": {
                "id": text, "kind": {"enum": crate::domain::StepKind::NAMES}, "say": text, "state": {"enum": crate::domain::StepState::NAMES}, "words": text,
                "needs": {"enum": crate::domain::Role::NAMES}, "two_people": {"type": "boolean"},
                "action": {"type": ["object", "null"], "properties": {"using": text, "target": text, "set": {"type": "object"}}},
                "plan": {"type": ["object", "null"], "properties": {"hash": text, "expires_at": time, "request": text, "change": text}},
                "approvals": {"type": "array", "items": {"type": "object", "properties": {"by": text, "at": time}}}}}},
            "timers": {"type": "array", "items": {"type": "object"}},
            "drafts": {"type": "array", "items": {"type": "object", "properties": {"name": text, "text": text, "edited": {"type": ["object", "null"]},
                "sent": {"type": "array", "items": {"type": "object", "properties": {"by": text, "at": time, "to": text, "text": text}}}}}}}},
        "Clock": {"type": "object", "description": "A duty to report, and what is left of its time", "properties": {
            "name": text, "words": text, "state": {"enum": ClockState::NAMES}, "due": time_or_none, "seconds_left": {"type": ["integer", "null"]},
            "decided": {"type": ["object", "null"], "properties": {"by": text, "at": time, "why": text}}, "begun_with": {"type": ["string", "null"]},
            "checked_on": text}},
        "IncidentPage": {"type": "object", "properties": {"incident": {"$ref": "#/components/schemas/Incident"},
            "timeline": {"type": "array", "items": {"type": "object"}}, "deliveries": {"type": "array", "items": {"type": "object"}},
            "clocks": {"type": "array", "items": {"$ref": "#/components/schemas/Clock"}}}},
        "Incidents": list("Incident"),
        "Model": {"type": "object", "properties": {"model": text, "environment": text, "owner": {"type": ["string", "null"]},
            "versions": {"type": "array", "items": text}, "segments": {"type": "array", "items": text}, "events": count, "last_event_at": time_or_none,
            "series": {"type": "object", "properties": {"warming": count, "armed": count, "starved": count, "frozen": count, "off": count}},
            "incidents": {"type": "array", "items": text}}},
        "Models": list("Model"),
        "Series": {"type": "object", "properties": {"id": text, "key": {"type": "object"}, "detector": text, "category": {"enum": Category::NAMES},
            "state": {"enum": crate::domain::DetectorState::NAMES}, "words": text, "unit": text, "log_evidence": number,
            "value": {"type": ["number", "null"]}, "baseline": {"type": ["number", "null"]}, "threshold": {"type": ["number", "null"]}}},
        "SeriesList": list("Series"),
        "Baseline": {"type": "object", "properties": {"model": text, "environment": {"type": ["string", "null"]}, "signal": text, "detector": text,
            "state": {"enum": crate::domain::DetectorState::NAMES}, "needs_events": {"type": ["number", "null"]}, "unit": text,
            "value": {"type": ["number", "null"]}, "low": {"type": ["number", "null"]}, "high": {"type": ["number", "null"]},
            "learned_from": {"type": ["string", "null"]}}},
        "Baselines": list("Baseline"),
        "Points": {"type": "object", "properties": {"series": {"$ref": "#/components/schemas/Series"}, "onset": time_or_none,
            "decisions": {"type": "array", "items": {"type": "object", "properties": {"time": time, "decision": text, "reason": text}}},
            "data": {"type": "array", "items": {"type": "object", "properties": {
                "time": time, "n": number, "value": number, "low": number, "high": number, "log_evidence": number}}}}},
        "Fault": {"type": "object", "properties": {"name": text, "about": text, "on": {"type": "boolean"}}},
        "Faults": list("Fault"),
        "Readiness": {"type": "object", "properties": {"ready": {"type": "boolean"}, "degraded": {"type": "boolean"}, "reasons": {"type": "array", "items": text}}},
        "Config": {"type": "object", "properties": {"yaml": text}},
        "BuildInfo": {"type": "object", "properties": {"version": text, "revision": text, "rust_version": text}},
        "RuntimeInfo": {"type": "object", "properties": {"started_at": time, "now": time, "engine": {"type": "object"}}},
    })
}
