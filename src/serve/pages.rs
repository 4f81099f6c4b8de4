//! Pages for people: what is wrong, since when, for whom, why we think so, what to do.
//!
//! Every page is made here, on the server, from the same answers that the API gives; a small script only fetches it again. What a
//! page says is put into words in Rust and into shape in `templates/`. The first line of every page can be read aloud.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use askama::Template;
use axum::Router;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Extension, Form, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use sha2::Digest;

use super::api::{self, CommandBody, IncidentQuery, Level, Problem};
use super::backend::{ClockRow, CommandError, IncidentFilter, IncidentPage};
use super::roles::Caller;
use super::{Detail, Shared, Web, chart, guard};
use crate::domain::alarm::Unit;
use crate::domain::incident::{Estimate, Finding, Incident, Pointer, Spread};
use crate::domain::response::{Draft, Response as Runbook, Step, TimerKind};
use crate::domain::{Category, ClockState, DetectorState, IncidentState, Severity, StepState, Time};
use crate::engine::view::{EngineView, Point, SeriesStates, SeriesView};
use crate::respond::duties;
use crate::triage::scope;

/// Where the head of every page leads.
pub const SECTIONS: &[(&str, &str)] = &[("/", "Fleet"), ("/incidents", "Incidents"), ("/silences", "Silences"), ("/health", "Health")];

mod quiet;

/// Live incidents shown on the fleet's page; the list has the rest.
const ALERTS_MAX: usize = 20;
const SERIES_MAX: usize = 2_000;
const TABLE_POINTS_MAX: usize = 60;

pub fn routes() -> Router<Arc<Web>> {
    Router::new()
        .merge(quiet::routes())
        .route("/", get(fleet))
        .route("/incidents", get(incidents))
        .route("/incidents/{id}", get(incident))
        .route("/incidents/{id}/{verb}", post(command))
        .route("/models/{model}", get(model))
        .route("/series/{id}", get(series))
        .route("/health", get(health))
        .route("/faults/{name}/{switch}", post(switch))
        .route("/assets/{hash}/{name}", get(asset))
        .fallback(nothing_here)
}

// --- assets ---

struct Asset {
    name: &'static str,
    content_type: &'static str,
    body: &'static str,
}

static ASSETS: [Asset; 3] = [
    Asset { name: "style.css", content_type: "text/css; charset=utf-8", body: include_str!("../../templates/assets/style.css") },
    Asset { name: "page.js", content_type: "text/javascript; charset=utf-8", body: include_str!("../../templates/assets/page.js") },
    Asset { name: "icon.svg", content_type: "image/svg+xml", body: include_str!("../../templates/assets/icon.svg") },
];

/// Changes with any asset, so that a browser may keep them for ever.
static ASSETS_HASH: LazyLock<String> = LazyLock::new(|| {
    let mut hash = sha2::Sha256::new();
    for asset in &ASSETS {
        hash.update(asset.body);
    }
    hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect()
});

async fn asset(Path((hash, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.iter().find(|a| a.name == name) else { return StatusCode::NOT_FOUND.into_response() };
    let keep = if hash == *ASSETS_HASH { "public, max-age=31536000, immutable" } else { "no-cache" };
    ([(header::CONTENT_TYPE, asset.content_type), (header::CACHE_CONTROL, keep)], asset.body).into_response()
}

// --- the frame of every page ---

/// What the layout needs.
struct Frame {
    title: String,
    section: &'static str,
    refresh: bool,
    csrf: String,
    /// Of a visitor without one.
    set_cookie: Option<HeaderValue>,
    now: Time,
}

impl Frame {
    fn new(web: &Web, headers: &HeaderMap, section: &'static str, title: impl Into<String>) -> Frame {
        let (cookie, set_cookie) = web.guard.cookie(headers);
        Frame { title: title.into(), section, refresh: true, csrf: web.guard.token(&cookie), set_cookie, now: super::now() }
    }

    fn asset(&self, name: &str) -> String {
        format!("/assets/{}/{name}", *ASSETS_HASH)
    }

    fn when(&self, at: Time) -> When {
        When { iso: at.rfc3339(), text: clock(at, self.now), ago: ago(at, self.now) }
    }
}

fn page(status: StatusCode, set_cookie: Option<HeaderValue>, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => {
            let mut response = (status, Html(html)).into_response();
            if let Some(cookie) = set_cookie {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            response
        }
        Err(e) => {
            tracing::error!(error = %e, "a page could not be made");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the page could not be made").into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    frame: &'a Frame,
    headline: String,
    detail: String,
}

/// A problem with the request it answers: shown as a page.
fn problem(web: &Web, headers: &HeaderMap, problem: Problem) -> Response {
    let headline = match problem.status {
        StatusCode::NOT_FOUND => "There is nothing here",
        StatusCode::SERVICE_UNAVAILABLE => "Bellwether cannot say at the moment",
        StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => "That did not go through",
        StatusCode::FORBIDDEN => "Not allowed",
        _ => "That was not understood",
    };
    let mut frame = Frame::new(web, headers, "", headline);
    frame.refresh = false;
    page(problem.status, frame.set_cookie.clone(), &ProblemPage { frame: &frame, headline: headline.to_owned(), detail: problem.detail })
}

async fn nothing_here(State(web): Shared, headers: HeaderMap) -> Response {
    problem(&web, &headers, Problem::new(StatusCode::NOT_FOUND, "No such page."))
}

/// Runs what makes a page, and turns its refusal into one.
macro_rules! or_problem {
    ($web:expr, $headers:expr, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(e) => return problem(&$web, &$headers, Problem::from(e)),
        }
    };
}

// --- words ---

/// A moment for people and for machines.
struct When {
    iso: String,
    text: String,
    ago: String,
}

/// `09:14:03` today, `Nov 18 09:14` this year, with the year otherwise.
fn clock(at: Time, now: Time) -> String {
    const DAY_MS: i64 = 86_400_000;
    const YEAR_MS: i64 = 300 * DAY_MS;
    let away = now.since_ms(at).abs();
    let form = if away < DAY_MS && at.0.div_euclid(DAY_MS) == now.0.div_euclid(DAY_MS) {
        "%H:%M:%S"
    } else if away < YEAR_MS {
        "%b %-d %H:%M"
    } else {
        "%Y-%m-%d %H:%M"
    };
    jiff::Timestamp::from_millisecond(at.0).map_or_else(|_| at.rfc3339(), |t| t.strftime(form).to_string())
}

fn ago(at: Time, now: Time) -> String {
    let ms = now.since_ms(at);
    if ms < -5_000 {
        return format!("in {}", span(-ms));
    }
    if ms < 5_000 { "just now".to_owned() } else { format!("{} ago", span(ms)) }
}

fn span(ms: i64) -> String {
    let seconds = ms / 1_000;
    // Two of a unit before the next: "90 min" says more than "1 h".
    if seconds < 120 {
        format!("{seconds} s")
    } else if seconds < 7_200 {
        format!("{} min", seconds / 60)
    } else if seconds < 172_800 {
        format!("{} h", seconds / 3_600)
    } else {
        format!("{} days", seconds / 86_400)
    }
}

/// `12,340`.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

fn plural(n: u64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{} {many}", count(n)) }
}

fn spaced(word: &str) -> String {
    word.replace('_', " ")
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn severity_words(severity: Severity) -> String {
    format!("Severity {severity}: {}", severity.words())
}

fn category_words(category: Category) -> String {
    spaced(category.as_str())
}

fn state_words(state: IncidentState) -> String {
    spaced(state.as_str())
}

fn nats(value: f64) -> String {
    if value.is_finite() { format!("{value:.1} nats") } else { "unknown".to_owned() }
}

fn or_none(value: Option<f64>, unit: Unit) -> String {
    value.filter(|v| v.is_finite()).map_or_else(|| "none yet".to_owned(), |v| unit.words(v))
}

/// `32 armed, 4 warming`.
fn states_words(states: &SeriesStates) -> String {
    let all = [("armed", states.armed), ("warming", states.warming), ("starved", states.starved), ("frozen", states.frozen), ("off", states.off)];
    let said: Vec<String> = all.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{} {name}", count(*n))).collect();
    if said.is_empty() { "none yet".to_owned() } else { said.join(", ") }
}

/// A bar filled to `share`, as a picture beside words that say the same.
fn bar(share: f64, class: &str) -> String {
    let width = if share.is_finite() { (share.clamp(0.0, 1.0) * 100.0).round() } else { 0.0 };
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"all\" width=\"100\" height=\"8\"/>\
         <rect class=\"{class}\" width=\"{width}\" height=\"8\"/></svg>"
    )
}

/// What false pages are accepted, and how many are expected so far.
struct Budget {
    words: String,
    bar: String,
}

impl Budget {
    fn of(engine: &EngineView) -> Budget {
        let number = |v: f64| {
            let text = format!("{v:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let share = if engine.budget > 0.0 { engine.budget_spent / engine.budget } else { 0.0 };
        let words = format!(
            "Of {} false pages accepted in 30 days, {} are spent by expectation. {} raised, {} held back.",
            number(engine.budget),
            number(engine.budget_spent),
            plural(engine.alarms_raised, "alarm was", "alarms were"),
            count(engine.alarms_held)
        );
        Budget { words, bar: bar(share, if share > 1.0 { "full" } else { "part" }) }
    }
}

/// An incident in short.
struct Alert {
    id: String,
    level: u8,
    severity: String,
    title: String,
    state: String,
    category: String,
    onset: When,
    opened: When,
    paged: bool,
}

impl Alert {
    fn of(incident: &Incident, frame: &Frame) -> Alert {
        Alert {
            id: incident.id.clone(),
            level: incident.severity.level(),
            severity: severity_words(incident.severity),
            title: incident.title.clone(),
            state: state_words(incident.state),
            category: category_words(incident.key.category),
            onset: frame.when(incident.onset.at),
            opened: frame.when(incident.opened_at),
            paged: incident.paged,
        }
    }
}

/// Live incidents, the worst first.
async fn live(web: &Web, model: Option<String>) -> Result<Vec<Incident>, CommandError> {
    let filter = IncidentFilter { model, live: true, limit: 500, ..IncidentFilter::default() };
    let (mut all, _) = web.backend.incidents(filter).await?;
    all.sort_by_key(|i| (i.severity, std::cmp::Reverse(i.opened_at)));
    Ok(all)
}

// --- fleet ---

#[derive(Template)]
#[template(path = "fleet.html")]
struct FleetPage<'a> {
    frame: &'a Frame,
    headline: String,
    summary: String,
    alerts: Vec<Alert>,
    faults: Vec<FaultRow>,
    models: Vec<ModelRow>,
    budget: Budget,
}

struct FaultRow {
    name: String,
    words: String,
    about: String,
    on: bool,
}

struct ModelRow {
    name: String,
    about: String,
    light: String,
    status: String,
    incidents: Vec<(String, String)>,
    events: String,
    last: Option<When>,
    detectors: String,
}

async fn fleet(State(web): Shared, headers: HeaderMap) -> Response {
    let live = or_problem!(web, headers, live(&web, None).await);
    let models = or_problem!(web, headers, web.backend.models().await);
    let engine = or_problem!(web, headers, web.backend.engine().await);
    let mut frame = Frame::new(&web, &headers, "/", "Fleet");
    let by_id: HashMap<&str, &Incident> = live.iter().map(|i| (i.id.as_str(), i)).collect();
    let headline = match live.len() {
        0 if models.is_empty() => "Waiting for the first event".to_owned(),
        0 => "All quiet".to_owned(),
        n => plural(n as u64, "live incident", "live incidents"),
    };
    if !live.is_empty() {
        frame.title = format!("{headline} · Fleet");
    }
    let judged = engine.judged_through.map_or_else(String::new, |t| format!("; judged through {}", clock(t, frame.now)));
    let mode = if engine.is_live { "" } else { " Learning from the past: what is found there is listed and never paged." };
    let summary = format!(
        "{}, {} events{judged}. Detectors: {}.{mode}",
        plural(models.len() as u64, "model", "models"),
        count(engine.events),
        states_words(&engine.series)
    );
    let rows = models.into_iter().map(|m| {
        let mine: Vec<&Incident> = m.incidents.iter().filter_map(|id| by_id.get(id.as_str()).copied()).collect();
        let (light, status) = match mine.iter().map(|i| i.severity).min() {
            Some(worst) => (format!("l{}", worst.level()), capital(worst.words())),
            None if m.series.armed > 0 => ("fine".to_owned(), "Quiet".to_owned()),
            None if m.series.warming > 0 => ("learning".to_owned(), "Learning".to_owned()),
            None => ("dark".to_owned(), "Not watched".to_owned()),
        };
        let mut about = m.environment.clone();
        if let Some(owner) = &m.owner {
            about.push_str(&format!(" · {owner}"));
        }
        if let Some(version) = m.versions.last() {
            about.push_str(&format!(" · {version}"));
        }
        ModelRow {
            about,
            light,
            status,
            incidents: mine.iter().map(|i| (i.id.clone(), category_words(i.key.category))).collect(),
            events: count(m.events),
            last: m.last_event_at.map(|t| frame.when(t)),
            detectors: states_words(&m.series),
            name: m.model,
        }
    });
    let faults = web.backend.faults().into_iter().map(|f| FaultRow { words: capital(&spaced(&f.name)), name: f.name, about: f.about, on: f.on });
    let template = FleetPage {
        headline,
        summary,
        alerts: live.iter().take(ALERTS_MAX).map(|i| Alert::of(i, &frame)).collect(),
        faults: faults.collect(),
        models: rows.collect(),
        budget: Budget::of(&engine),
        frame: &frame,
    };
    page(StatusCode::OK, frame.set_cookie.clone(), &template)
}

// --- incidents ---

#[derive(Template)]
#[template(path = "incidents.html")]
struct IncidentsPage<'a> {
    frame: &'a Frame,
    headline: String,
    live: bool,
    filter: String,
    rows: Vec<Alert>,
    next: Option<String>,
}

async fn incidents(State(web): Shared, headers: HeaderMap, query: Result<Query<IncidentQuery>, QueryRejection>) -> Response {
    let Query(query) = or_problem!(web, headers, query);
    let filter = or_problem!(web, headers, query.filter());
    let (all, cursor) = or_problem!(web, headers, web.backend.incidents(filter.clone()).await);
    let mut frame = Frame::new(&web, &headers, "/incidents", "Incidents");
    // A page further back is a page of the past: it stays as it is.
    frame.refresh = filter.cursor.is_none();
    let said = [("model", &filter.model), ("category", &filter.category), ("state", &filter.state)];
    let next = cursor.map(|cursor| {
        let mut href = format!("/incidents?live={}", filter.live);
        for (name, value) in said.iter().filter_map(|(name, v)| v.as_ref().map(|v| (*name, v))).chain([("cursor", &cursor)]) {
            href.push_str(&format!("&{name}={}", percent(value)));
        }
        href
    });
    let words: Vec<String> = said.iter().filter_map(|(name, v)| v.as_ref().map(|v| format!("{name} {v}"))).collect();
    let template = IncidentsPage {
        headline: if filter.live { "Live incidents".to_owned() } else { "Incidents".to_owned() },
        live: filter.live,
        filter: words.join(", "),
        rows: all.iter().map(|i| Alert::of(i, &frame)).collect(),
        next,
        frame: &frame,
    };
    page(StatusCode::OK, frame.set_cookie.clone(), &template)
}

/// For one value of a query.
fn percent(text: &str) -> String {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[derive(Template)]
#[template(path = "incident.html")]
struct OneIncidentPage<'a> {
    frame: &'a Frame,
    a: Alert,
    revision: u64,
    /// Why the last write did not go through.
    message: Option<String>,
    by: String,
    /// The token says who it is.
    is_named: bool,
    why: String,
    action: String,
    ready: Option<ReadyStep>,
    steps: Vec<StepRow>,
    owner: String,
    fallback: String,
    runbook: String,
    waits: Vec<String>,
    drafts: Vec<DraftRow>,
    /// Somebody was about to write one.
    drafts_open: bool,
    drafts_words: String,
    clocks: Vec<ClockWords>,
    reasons: Vec<crate::domain::incident::Answer>,
    page_words: String,
    affected: String,
    model: String,
    environment: String,
    versions: String,
    segments: String,
    onset_words: String,
    cause: Option<CauseWords>,
    spread: Option<SpreadWords>,
    findings: Vec<FindingRow>,
    may_acknowledge: bool,
    may_mitigate: bool,
    live: bool,
    is_merged: bool,
    /// The incident that tells of this one.
    told_by: Option<String>,
    held: Option<String>,
    under: Vec<BranchRow>,
    into: String,
    timeline: Vec<TimelineRow>,
    deliveries: Vec<ToldRow>,
    exemplars: Vec<ExemplarRow>,
}

/// A text for users.
struct DraftRow {
    name: String,
    text: String,
    rows: usize,
    edited: String,
    sent: Vec<SentRow>,
    /// As a person has begun to say it.
    to: String,
}

struct SentRow {
    by: String,
    to: String,
    at: When,
    /// The text has been changed since.
    differs: bool,
}

impl DraftRow {
    fn of(draft: &Draft, form: &IncidentForm, frame: &Frame) -> DraftRow {
        let is_meant = form.draft == draft.name;
        let text = if is_meant && !form.text.is_empty() { form.text.clone() } else { draft.text.clone() };
        DraftRow {
            rows: (text.lines().map(|l| 1 + l.chars().count() / 90).sum::<usize>() + 1).clamp(3, 20),
            edited: draft.edited.as_ref().map_or_else(String::new, |e| format!("changed by {}, {}", e.by, ago(e.at, frame.now))),
            sent: (draft.sent.iter())
                .map(|s| SentRow { by: s.by.clone(), to: s.to.clone(), at: frame.when(s.at), differs: s.text != draft.text })
                .collect(),
            to: if is_meant { form.to.clone() } else { String::new() },
            name: draft.name.clone(),
            text,
        }
    }
}

/// A duty to report.
struct ClockWords {
    name: String,
    words: String,
    state: String,
    left: String,
    late: bool,
    runs: bool,
    may_start: bool,
    /// How much of its time is gone.
    bar: String,
    note: String,
}

impl ClockWords {
    fn of(row: &ClockRow, after_ms: i64, frame: &Frame) -> ClockWords {
        let runs = row.seconds_left.is_some() || (row.due.is_none() && row.state.runs());
        let left = match (row.seconds_left, row.due) {
            (Some(s), _) if s >= 0 => format!("{} left", duties::span(s * 1_000)),
            (Some(s), _) => format!("{} too late", duties::span(-s * 1_000)),
            (None, None) if runs => format!("{} from now", duties::span(after_ms)),
            (None, _) => String::new(),
        };
        let gone = row.seconds_left.map_or(0.0, |s| 1.0 - (s * 1_000) as f64 / after_ms.max(1) as f64).clamp(0.0, 1.0);
        let mut notes = Vec::new();
        notes.extend(row.due.filter(|_| runs).map(|d| format!("Due {} UTC.", clock(d, frame.now))));
        notes.extend(row.decided.as_ref().map(|d| {
            let why = if d.why.is_empty() { String::new() } else { format!(": {}", d.why) };
            format!("{} by {}, {}{why}.", capital(row.state.as_str()), d.by, ago(d.at, frame.now))
        }));
        if row.state == ClockState::Suggested {
            notes.push("Counted from when the incident was found.".to_owned());
        }
        notes.extend(row.begun_with.as_ref().map(|id| format!("Began with {id}.")));
        notes.push(format!("Looked up on {}.", row.checked_on));
        ClockWords {
            name: row.name.clone(),
            words: row.words.clone(),
            state: row.state.to_string(),
            late: row.seconds_left.is_some_and(|s| s < 0),
            left,
            runs,
            may_start: row.state != ClockState::Started,
            bar: bar(gone, "cause"),
            note: notes.join(" "),
        }
    }
}

/// The one action that is ready.
struct ReadyStep {
    id: String,
    say: String,
    state: String,
    words: String,
    action: String,
    plan: Option<PlanWords>,
    /// Who must approve, and who has.
    approval: String,
    may_approve: bool,
    may_undo: bool,
    may_plan: bool,
    may_settle: bool,
}

struct PlanWords {
    hash: String,
    change: String,
    request: String,
    made: When,
    until: When,
    can_undo: bool,
}

struct StepRow {
    id: String,
    kind: String,
    say: String,
    state: String,
    words: String,
    action: String,
    may_plan: bool,
    may_undo: bool,
    may_settle: bool,
}

impl ReadyStep {
    fn of(step: &Step, live: bool, frame: &Frame) -> ReadyStep {
        let row = StepRow::of(step, live);
        let who = match (step.two_people, step.automatic) {
            (true, _) => format!("two people with the role {}", step.needs),
            (false, true) => "the runbook itself; it may also be approved by hand".to_owned(),
            (false, false) => format!("one person with the role {}", step.needs),
        };
        let given: Vec<&str> = step.approvals.iter().map(|a| a.by.as_str()).collect();
        let given = if given.is_empty() { String::new() } else { format!("; approved by {}", given.join(", ")) };
        ReadyStep {
            may_approve: live && step.state == StepState::Planned && step.plan.as_ref().is_some_and(|p| p.expires_at > frame.now),
            approval: format!("{who}{given}"),
            plan: step.plan.as_ref().map(|p| PlanWords {
                hash: p.hash.clone(),
                change: p.change.clone(),
                request: p.request.clone(),
                made: frame.when(p.at),
                until: frame.when(p.expires_at),
                can_undo: p.can_undo,
            }),
            id: row.id,
            say: row.say,
            state: row.state,
            words: row.words,
            action: row.action,
            may_undo: row.may_undo,
            may_plan: row.may_plan,
            may_settle: row.may_settle,
        }
    }
}

impl StepRow {
    fn of(step: &Step, live: bool) -> StepRow {
        let by_hand = step.action.is_none();
        let settles = !matches!(
            step.state,
            StepState::Planning
                | StepState::Applying
                | StepState::Verifying
                | StepState::Undoing
                | StepState::VerifyingUndo
                | StepState::Done
                | StepState::Undone
        );
        StepRow {
            id: step.id.clone(),
            kind: spaced(step.kind.as_str()),
            say: step.say.clone(),
            state: match (step.state, by_hand) {
                (StepState::Idle, true) => "by hand".to_owned(),
                (StepState::Idle, false) => "not planned".to_owned(),
                (state, _) => spaced(state.as_str()),
            },
            words: step.words.clone(),
            action: step.action.as_ref().map(|a| a.words()).unwrap_or_default(),
            may_plan: live && !by_hand && step.state.may_be_planned(),
            may_undo: step.state.may_be_undone() && !step.applied.is_empty() && step.plan.as_ref().is_some_and(|p| p.can_undo),
            may_settle: live && settles,
        }
    }
}

/// What waits for a time.
fn waits(runbook: &Runbook, frame: &Frame) -> Vec<String> {
    let line = |t: &crate::domain::response::Timer| {
        let due = t.due.map_or_else(|| "soon".to_owned(), |d| clock(d, frame.now));
        match &t.what {
            TimerKind::Escalate { to } => Some(format!("If nobody acknowledges by {due} UTC, {} is told.", to.join(", "))),
            // Has a place of its own.
            TimerKind::Legal { .. } => None,
        }
    };
    runbook.timers.iter().filter_map(line).collect()
}

struct CauseWords {
    best: String,
    facts: Vec<FactRow>,
    ranked: Vec<RankedCause>,
}

struct FactRow {
    words: String,
    /// Where the page of what it speaks of is; empty if there is none.
    link: String,
}

/// How the change comes from parts of the traffic.
struct SpreadWords {
    words: String,
    dimension: String,
    rows: Vec<SpreadRow>,
}

struct SpreadRow {
    value: String,
    traffic: String,
    change: String,
    within: String,
    mix: String,
}

struct RankedCause {
    name: String,
    percent: String,
    bar: String,
}

struct BranchRow {
    id: Option<String>,
    name: String,
    reason: String,
    at: When,
}

struct FindingRow {
    id: String,
    headline: String,
    reason: String,
    whose: String,
    size: String,
    /// In which the size lies with 95 % confidence.
    interval: String,
    onset: When,
    recovered: Option<When>,
    sureness: String,
}

struct TimelineRow {
    at: When,
    what: String,
    who: String,
    why: String,
}

struct ToldRow {
    receiver: String,
    notice: String,
    state: String,
    detail: String,
    at: When,
    tries: String,
}

struct ExemplarRow {
    id: String,
    time: When,
    version: String,
    status: String,
    facts: String,
}

async fn incident(State(web): Shared, Extension(caller): Extension<Caller>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let found = or_problem!(web, headers, web.backend.incident(&id).await);
    show_incident(&web, &caller, &headers, StatusCode::OK, found, None, &IncidentForm::default())
}

fn show_incident(
    web: &Web,
    caller: &Caller,
    headers: &HeaderMap,
    status: StatusCode,
    found: IncidentPage,
    message: Option<String>,
    form: &IncidentForm,
) -> Response {
    let IncidentPage { incident, timeline, deliveries, clocks } = found;
    let frame = Frame::new(web, headers, "/incidents", incident.title.clone());
    let told = if incident.paged { "Somebody was paged" } else { "Nobody was paged" };
    let page_words =
        if incident.page_reason.is_empty() { format!("{told}.") } else { format!("{told}: {}.", incident.page_reason.trim_end_matches('.')) };
    let onset = &incident.onset;
    let mut onset_words = format!("Began about {} UTC", clock(onset.at, frame.now));
    if onset.from < onset.to {
        onset_words.push_str(&format!(", with 90 % confidence between {} and {}", clock(onset.from, frame.now), clock(onset.to, frame.now)));
    }
    onset_words.push_str(&format!("; found {} later.", span(incident.opened_at.since_ms(onset.at).max(0))));
    let cause = incident.cause.as_ref().map(|c| CauseWords {
        best: capital(c.best.as_str()),
        facts: (c.facts.iter().enumerate())
            .map(|(i, words)| FactRow { words: words.clone(), link: link(c.points_at.get(i).and_then(Option::as_ref)) })
            .collect(),
        ranked: c
            .ranked
            .iter()
            .map(|(cause, p)| RankedCause { name: cause.to_string(), percent: format!("{:.0} %", p * 100.0), bar: bar(*p, "cause") })
            .collect(),
    });
    let state = incident.state;
    let template = OneIncidentPage {
        a: Alert::of(&incident, &frame),
        revision: incident.revision,
        message,
        by: caller.by(&guard::name_said(&form.by, headers)),
        is_named: caller.name.is_some(),
        ready: incident.response.ready().filter(|s| s.action.is_some()).map(|s| ReadyStep::of(s, state.is_live(), &frame)),
        steps: incident.response.steps.iter().map(|s| StepRow::of(s, state.is_live())).collect(),
        waits: waits(&incident.response, &frame),
        drafts_open: !form.draft.is_empty(),
        drafts_words: match incident.response.drafts.iter().filter(|d| !d.sent.is_empty()).count() {
            0 => String::new(),
            n => format!("{n} of {} sent", incident.response.drafts.len()),
        },
        drafts: incident.response.drafts.iter().map(|d| DraftRow::of(d, form, &frame)).collect(),
        clocks: (clocks.iter())
            .map(|row| {
                let of = incident.response.timers.iter().find(|t| t.clock() == Some(row.name.as_str()));
                ClockWords::of(row, of.map_or(0, |t| t.after_ms), &frame)
            })
            .collect(),
        why: form.why.clone(),
        page_words,
        affected: incident.users_affected.as_ref().map_or_else(|| "Not known: the events name no users.".to_owned(), affected),
        model: incident.key.model.clone(),
        environment: incident.key.environment.clone(),
        versions: if incident.versions.is_empty() { String::new() } else { format!("version {}", incident.versions.join(", ")) },
        segments: incident.segments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        onset_words,
        cause,
        spread: incident.spread.as_ref().map(spread),
        findings: incident.findings.iter().map(|f| finding(f, &frame)).collect(),
        may_acknowledge: state == IncidentState::Open,
        may_mitigate: matches!(state, IncidentState::Open | IncidentState::Acknowledged),
        live: state.is_live(),
        into: form.into.clone(),
        is_merged: state == IncidentState::Merged,
        told_by: incident.merged_into.clone().filter(|_| state == IncidentState::Merged),
        held: incident.suppressed.as_ref().map(|s| {
            let until = s.until.map(|t| format!(" It calls after {} if it lasts.", t.clock())).unwrap_or_default();
            format!("Nobody is called: {}.{until}", s.words)
        }),
        under: (incident.merged.iter())
            .map(|b| BranchRow {
                id: b.id.clone(),
                name: format!("{} of {}", spaced(b.key.category.as_str()), b.key.model),
                reason: b.reason.clone(),
                at: frame.when(b.at),
            })
            .collect(),
        timeline: timeline
            .into_iter()
            .rev()
            .map(|t| TimelineRow { at: frame.when(t.at), what: capital(&spaced(&t.what)), who: t.who.words(), why: t.why })
            .collect(),
        deliveries: deliveries
            .into_iter()
            .map(|d| ToldRow {
                at: frame.when(d.last_attempt_at.unwrap_or(d.created_at)),
                tries: match d.attempts {
                    0 => "not tried yet".to_owned(),
                    n => plural(n.into(), "try", "tries"),
                },
                receiver: d.receiver,
                notice: spaced(&d.notice),
                state: d.state,
                detail: d.detail,
            })
            .collect(),
        exemplars: incident
            .exemplars
            .iter()
            .map(|e| ExemplarRow {
                id: e.id.clone(),
                time: frame.when(e.time),
                version: e.version.clone(),
                status: e.status.clone(),
                facts: e.facts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", "),
            })
            .collect(),
        owner: incident.response.owner,
        fallback: incident.response.fallback,
        runbook: incident.response.runbook,
        action: incident.action,
        reasons: Arc::unwrap_or_clone(incident.severity_reasons),
        frame: &frame,
    };
    page(status, frame.set_cookie.clone(), &template)
}

struct ChangeRow {
    at: When,
    words: String,
    /// By which facts of incidents find it; the first of one moment has it.
    anchor: Option<String>,
}

fn changes(all: &[(Time, String)], frame: &Frame) -> Vec<ChangeRow> {
    let is_first = |i: usize| all[..i].iter().all(|(at, _)| *at != all[i].0);
    let row = |(i, (at, words)): (usize, &(Time, String))| ChangeRow {
        at: frame.when(*at),
        words: words.clone(),
        anchor: is_first(i).then(|| format!("change-{}", at.0)),
    };
    all.iter().enumerate().map(row).collect()
}

/// The page of what a fact points at. Deployments and runs are listed on the page of health; their anchor is their time.
fn link(to: Option<&Pointer>) -> String {
    match to {
        Some(Pointer::Series { id }) => format!("/series/{id}"),
        Some(Pointer::Deployment { at, .. } | Pointer::Run { at, .. }) => format!("/health#change-{}", at.0),
        Some(Pointer::Fleet) => "/".to_owned(),
        None => String::new(),
    }
}

fn spread(of: &Spread) -> SpreadWords {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let total = of.within + of.mix;
    let part = |value: f64| if total == 0.0 { String::new() } else { percent(value / total) };
    let rows = of.parts.iter().map(|p| SpreadRow {
        value: p.segment.value.to_string(),
        traffic: format!("{} → {}", percent(p.share_before), percent(p.share_after)),
        change: format!("{} → {}", of.unit.words(p.before), of.unit.words(p.after)),
        within: part(p.within),
        mix: part(p.mix),
    });
    SpreadWords { words: capital(&scope::say(of)), dimension: capital(&of.dimension), rows: rows.collect() }
}

fn affected(users: &Estimate) -> String {
    let whole = |v: f64| count(v.max(0.0).round() as u64);
    if users.high > users.low {
        format!("About {} users (between {} and {} with 95 % confidence).", whole(users.estimate), whole(users.low), whole(users.high))
    } else {
        format!("{} users.", whole(users.estimate))
    }
}

fn finding(f: &Finding, frame: &Frame) -> FindingRow {
    let (size, interval) = f.change.as_ref().map_or_else(Default::default, |c| {
        let words = |v| f.unit.words(v);
        (format!("{} → {}", words(c.before), words(c.after)), format!("95 %: {} to {}", words(c.low), words(c.high)))
    });
    let sureness = match (f.by_rule, f.log_evidence, f.threshold) {
        (true, _, _) => "By rule: needs no statistics".to_owned(),
        (false, Some(evidence), Some(threshold)) => format!("{}; {} were needed", nats(evidence), nats(threshold)),
        (false, Some(evidence), None) => nats(evidence),
        (false, None, _) => "Not told".to_owned(),
    };
    FindingRow {
        id: f.series_id.to_string(),
        headline: f.headline.clone(),
        reason: f.reason.clone(),
        whose: f.series.group.words(),
        size,
        interval,
        onset: frame.when(f.onset.at),
        recovered: f.recovered_at.map(|t| frame.when(t)),
        sureness,
    }
}

// --- writes ---

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IncidentForm {
    csrf: String,
    revision: Option<u64>,
    by: String,
    why: String,
    #[serde(rename = "as")]
    closed_as: String,
    step: String,
    plan: String,
    severity: String,
    /// Of `merge`.
    into: String,
    /// Of `suppress`: for so long.
    hours: Option<i64>,
    /// Of drafts and duties to report.
    draft: String,
    text: String,
    to: String,
    clock: String,
    state: String,
}

async fn command(
    State(web): Shared,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Path((id, verb)): Path<(String, String)>,
    form: Result<Form<IncidentForm>, FormRejection>,
) -> Response {
    let Form(mut form) = or_problem!(web, headers, form);
    or_problem!(web, headers, web.guard.check_token(&headers, &form.csrf));
    // Browsers end the lines of a text with both characters.
    form.why = form.why.replace("\r\n", "\n");
    form.text = form.text.replace("\r\n", "\n");
    let body = CommandBody {
        by: form.by.clone(),
        why: form.why.clone(),
        closed_as: form.closed_as.clone(),
        text: if verb == "draft" { form.text.clone() } else { form.why.clone() },
        draft: form.draft.clone(),
        to: form.to.clone(),
        clock: form.clock.clone(),
        state: form.state.clone(),
        from: None,
        step: form.step.clone(),
        plan: form.plan.clone(),
        severity: Some(Level::Text(form.severity.clone())),
        into: form.into.clone(),
        until: form.hours.map(|h| super::now().plus_ms(h.clamp(1, 24 * 30) * crate::domain::time::HOUR_MS)),
    };
    let detail = body.detail(&caller);
    let done = match body.command(&verb, &caller) {
        Ok(command) => web.backend.command(&id, command, form.revision, None).await.map_err(Problem::from),
        Err(problem) => Err(problem),
    };
    match done {
        Ok(_) => done_by(&caller, &form.by, &format!("/incidents/{}", percent(&id)), detail),
        // What the person wrote is not lost, and the page shows how things are now.
        Err(refused) if refused.status != StatusCode::NOT_FOUND => match web.backend.incident(&id).await {
            Ok(found) => {
                let message = format!("Not done: {}.", refused.detail);
                show_incident(&web, &caller, &headers, refused.status, found, Some(message), &form)
            }
            Err(_) => problem(&web, &headers, refused),
        },
        Err(refused) => problem(&web, &headers, refused),
    }
}

/// Back to a page after something was done, under a name that the next form need not ask for.
fn done_by(caller: &Caller, said: &str, back_to: &str, detail: Detail) -> Response {
    let mut response = Redirect::to(back_to).into_response();
    if caller.name.is_none()
        && let Some(cookie) = guard::remember_name(said)
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response.extensions_mut().insert(detail);
    response
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SwitchForm {
    csrf: String,
}

async fn switch(
    State(web): Shared,
    headers: HeaderMap,
    Path((name, switch)): Path<(String, String)>,
    form: Result<Form<SwitchForm>, FormRejection>,
) -> Response {
    let Form(form) = or_problem!(web, headers, form);
    let (Some(on), false) = (api::switch_word(&switch), web.backend.faults().is_empty()) else {
        return nothing_here(State(web), headers).await;
    };
    or_problem!(web, headers, web.guard.check_token(&headers, &form.csrf));
    or_problem!(web, headers, web.backend.switch_fault(&name, on));
    Redirect::to("/").into_response()
}

// --- models and series ---

#[derive(Template)]
#[template(path = "model.html")]
struct ModelPage<'a> {
    frame: &'a Frame,
    name: String,
    lines: Vec<String>,
    alerts: Vec<Alert>,
    signals: Vec<SignalTable>,
    cut: bool,
}

struct SignalTable {
    name: String,
    rows: Vec<SeriesRow>,
}

struct SeriesRow {
    id: String,
    whose: String,
    light: &'static str,
    state: String,
    value: String,
    baseline: String,
    tolerated: String,
    usual: String,
    words: String,
    bar: String,
    /// What the bar shows.
    share: String,
}

impl SeriesRow {
    fn of(s: &SeriesView) -> SeriesRow {
        let share = s.threshold.filter(|t| *t > 0.0).map(|t| s.log_evidence / t);
        let group = &s.key.group;
        let mut whose = match (&group.version, &group.segment) {
            (None, None) => "everything".to_owned(),
            (Some(version), _) => format!("version {version}"),
            (None, Some(segment)) => segment.to_string(),
        };
        if &*group.environment != crate::domain::series::UNKNOWN {
            whose.push_str(&format!(" in {}", group.environment));
        }
        let baseline = or_none(s.baseline, s.unit);
        let tolerated = match (s.low, s.high) {
            (Some(low), Some(high)) if low.is_finite() && high.is_finite() => format!("{} to {}", s.unit.words(low), s.unit.words(high)),
            (_, Some(high)) if high.is_finite() => format!("up to {}", s.unit.words(high)),
            (Some(low), _) if low.is_finite() => format!("from {}", s.unit.words(low)),
            _ => "none yet".to_owned(),
        };
        SeriesRow {
            id: s.id.to_string(),
            whose,
            light: light(s.state, share),
            state: capital(s.state.as_str()),
            value: or_none(s.value, s.unit),
            usual: if s.baseline.is_some() { baseline.clone() } else { "none yet".to_owned() },
            baseline,
            tolerated,
            words: capital(&s.words),
            share: match share {
                Some(share) if share >= 1.0 => "enough evidence to page".to_owned(),
                Some(share) => format!("{:.0} % of the evidence that a page needs", (share * 100.0).clamp(0.0, 99.0)),
                None => String::new(),
            },
            bar: share.map_or_else(String::new, |share| bar(share, if share >= 1.0 { "full" } else { "part" })),
        }
    }
}

fn light(state: DetectorState, share: Option<f64>) -> &'static str {
    match state {
        DetectorState::Armed if share.is_some_and(|s| s >= 1.0) => "l2",
        DetectorState::Armed => "fine",
        DetectorState::Warming => "learning",
        DetectorState::Starved | DetectorState::Frozen | DetectorState::Off => "dark",
    }
}

async fn model(State(web): Shared, headers: HeaderMap, Path(name): Path<String>) -> Response {
    let views: Vec<_> = or_problem!(web, headers, web.backend.models().await).into_iter().filter(|m| m.model == name).collect();
    if views.is_empty() {
        return problem(&web, &headers, Problem::new(StatusCode::NOT_FOUND, format!("No model {name:?} has been seen.")));
    }
    let all = or_problem!(web, headers, web.backend.series(Some(&name), SERIES_MAX).await);
    let live = or_problem!(web, headers, live(&web, Some(name.clone())).await);
    let frame = Frame::new(&web, &headers, "/", name.clone());
    let lines = views.iter().map(|m| {
        let owner = m.owner.as_ref().map_or_else(String::new, |o| format!(", owned by {o}"));
        let last = m.last_event_at.map_or_else(String::new, |t| format!(", the last {}", ago(t, frame.now)));
        let versions = if m.versions.is_empty() { String::new() } else { format!(" Versions: {}.", m.versions.join(", ")) };
        format!("{}{owner}: {} events{last}. Detectors: {}.{versions}", m.environment, count(m.events), states_words(&m.series))
    });
    let cut = all.len() >= SERIES_MAX;
    let mut signals: BTreeMap<String, Vec<&SeriesView>> = BTreeMap::new();
    for s in &all {
        signals.entry(s.key.signal.to_string()).or_default().push(s);
    }
    let tables = signals.into_values().filter_map(|mut rows| {
        rows.sort_by(|a, b| (!a.key.group.is_roll_up(), &a.key).cmp(&(!b.key.group.is_roll_up(), &b.key)));
        let name = capital(&rows.first()?.key.signal.words());
        Some(SignalTable { name, rows: rows.into_iter().map(SeriesRow::of).collect() })
    });
    let template = ModelPage {
        lines: lines.collect(),
        alerts: live.iter().map(|i| Alert::of(i, &frame)).collect(),
        signals: tables.collect(),
        cut,
        name,
        frame: &frame,
    };
    page(StatusCode::OK, frame.set_cookie.clone(), &template)
}

#[derive(Template)]
#[template(path = "series.html")]
struct SeriesTemplate<'a> {
    frame: &'a Frame,
    name: String,
    model: String,
    r: SeriesRow,
    evidence: String,
    threshold: String,
    chart: Option<String>,
    points: Vec<PointRow>,
    empty: &'static str,
    why: String,
    budget_words: String,
    decisions: Vec<(When, String, String)>,
    learned_from: Option<String>,
    drift: Option<String>,
    tests: Vec<TestRow>,
}

/// A test known by name: what it measured, what it is held against, and its answer.
struct TestRow {
    name: String,
    statistic: String,
    limit: String,
    answer: &'static str,
}

struct PointRow {
    at: When,
    n: String,
    value: String,
    tolerated: String,
    evidence: String,
}

async fn series(State(web): Shared, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let found = or_problem!(web, headers, web.backend.series_page(&id).await);
    let s = &found.series;
    let name = format!("{} of {}", capital(&s.key.signal.words()), s.key.group.words());
    let frame = Frame::new(&web, &headers, "/", name.clone());
    let unit = s.unit;
    let point = |p: &Point| PointRow {
        at: frame.when(p.time),
        n: count(p.n.max(0.0) as u64),
        value: or_none(Some(p.value), unit),
        tolerated: format!("{} to {}", or_none(Some(p.low), unit), or_none(Some(p.high), unit)),
        evidence: format!("{:.1}", p.log_evidence),
    };
    let template = SeriesTemplate {
        model: s.key.group.model.to_string(),
        r: SeriesRow::of(s),
        evidence: nats(s.log_evidence),
        threshold: s.threshold.map_or_else(|| if s.state == DetectorState::Warming { "not yet set" } else { "never pages" }.to_owned(), nats),
        chart: chart::draw(&found),
        points: found.points.iter().rev().take(TABLE_POINTS_MAX).map(point).collect(),
        empty: "No pane has been judged yet. The first point comes when a pane closes, some seconds after its last event.",
        why: why(s),
        budget_words: format!(
            "Its share of the budget is {:.4} false pages in 30 days. Evidence is counted in nats: each nat is a factor of 2.7 against chance.",
            s.budget_share
        ),
        decisions: found.decisions.iter().map(|(at, decision, reason)| (frame.when(*at), capital(decision), reason.clone())).collect(),
        learned_from: s.learned_from.clone(),
        drift: found.drift.as_ref().map(|d| d.words.clone()),
        tests: (found.drift.iter().flat_map(|d| &d.tests))
            .map(|t| TestRow {
                name: t.name.replace('_', " "),
                statistic: format!("{:.4}", t.statistic),
                limit: match t.p_value {
                    Some(p) => format!("p = {p:.3}, drift from {} down", t.threshold),
                    None => format!("drift from {} up", t.threshold),
                },
                answer: if t.drifted { "drift" } else { "no drift" },
            })
            .collect(),
        name,
        frame: &frame,
    };
    page(StatusCode::OK, frame.set_cookie.clone(), &template)
}

/// Why a series pages at the moment, or does not.
fn why(s: &SeriesView) -> String {
    let Some(threshold) = s.threshold.filter(|t| t.is_finite() && *t > 0.0) else {
        return format!("It does not page: {}.", s.words.trim_end_matches('.'));
    };
    let share = (s.log_evidence / threshold * 100.0).clamp(0.0, 1e4);
    let state = match s.state {
        DetectorState::Armed => "",
        DetectorState::Warming => " It is still learning what is usual.",
        DetectorState::Starved => " It gets too few events to say anything.",
        DetectorState::Frozen => " It is held still for now.",
        DetectorState::Off => " It is switched off.",
    };
    if s.log_evidence >= threshold {
        format!("The evidence of a change that matters is {}; {} are enough to page.{state}", nats(s.log_evidence), nats(threshold))
    } else {
        format!(
            "It does not page now: the evidence of a change that matters is {} of the {} that a page needs ({share:.0} %).{state}",
            nats(s.log_evidence),
            nats(threshold)
        )
    }
}

// --- health ---

#[derive(Template)]
#[template(path = "health.html")]
struct HealthPage<'a> {
    frame: &'a Frame,
    headline: String,
    reasons: Vec<String>,
    numbers: Vec<(&'static str, String)>,
    lag: Vec<LagWords>,
    outbox: Vec<OutboxWords>,
    rejected: Vec<(String, String)>,
    bounds: Vec<(String, String)>,
    states: Vec<(&'static str, String, &'static str)>,
    budget: Budget,
    changes: Vec<ChangeRow>,
}

struct LagWords {
    topic: String,
    partition: i32,
    records: String,
    age: String,
}

struct OutboxWords {
    receiver: String,
    last: String,
    pending: String,
    oldest: Option<When>,
}

async fn health(State(web): Shared, headers: HeaderMap) -> Response {
    let engine = or_problem!(web, headers, web.backend.engine().await);
    let told = web.backend.health().await;
    let readiness = web.backend.readiness();
    let frame = Frame::new(&web, &headers, "/health", "Health");
    let headline = match (web.backend.is_healthy(), readiness.ready, readiness.degraded) {
        (false, _, _) => "Stuck: a restart would help",
        (true, false, _) => "Not ready",
        (true, true, true) => "Working, but not all of it",
        (true, true, false) => "Working",
    };
    let s = &engine.series;
    let numbers = vec![
        ("Events", count(engine.events)),
        ("Seen before", count(engine.duplicates)),
        ("Rejected", count(engine.rejected)),
        ("Too late", count(engine.late)),
        ("Not attributed", count(engine.unattributed)),
        ("Judged through", engine.judged_through.map_or_else(|| "nothing yet".to_owned(), |t| clock(t, frame.now))),
        ("Running for", span(frame.now.since_ms(web.started).max(0))),
    ];
    let states = vec![
        ("Armed", count(s.armed), "would page"),
        ("Warming", count(s.warming), "learn what is usual"),
        ("Starved", count(s.starved), "get too few events"),
        ("Frozen", count(s.frozen), "are held still"),
        ("Off", count(s.off), "are switched off"),
    ];
    let template = HealthPage {
        headline: headline.to_owned(),
        reasons: readiness.reasons,
        numbers,
        lag: told
            .lag
            .into_iter()
            .map(|l| LagWords { topic: l.topic, partition: l.partition, records: count(l.records), age: span((l.seconds.max(0.0) * 1_000.0) as i64) })
            .collect(),
        outbox: told
            .outbox
            .into_iter()
            .map(|o| OutboxWords { receiver: o.receiver, last: o.last, pending: count(o.pending), oldest: o.oldest.map(|t| frame.when(t)) })
            .collect(),
        rejected: told.rejected.into_iter().filter(|(_, n)| *n > 0).map(|(reason, n)| (spaced(&reason), count(n))).collect(),
        bounds: engine.bounds.iter().filter(|(_, n)| *n > 0).map(|(bound, n)| (spaced(bound), count(*n))).collect(),
        states,
        budget: Budget::of(&engine),
        changes: changes(&engine.changes, &frame),
        frame: &frame,
    };
    page(StatusCode::OK, frame.set_cookie.clone(), &template)
}

// --- refusals as problems ---

impl From<super::guard::Refusal> for Problem {
    fn from(refusal: super::guard::Refusal) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, refusal.to_string())
    }
}

impl From<FormRejection> for Problem {
    fn from(rejection: FormRejection) -> Problem {
        Problem::new(rejection.status(), rejection.body_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_read_aloud_well() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(span(90_000), "90 s");
        assert_eq!(span(540_000), "9 min");
        assert_eq!(span(3 * 86_400_000), "3 days");
        assert_eq!(ago(Time(0), Time(1_000)), "just now");
        assert_eq!(plural(1, "model", "models"), "1 model");
    }

    #[test]
    fn a_query_value_stays_one_value() {
        assert_eq!(percent("a&b=c d/ü"), "a%26b%3Dc%20d%2F%C3%BC");
    }
}
