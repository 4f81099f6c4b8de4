//! Silences and maintenance windows over the API: both are the same thing with another name, and so have the same routes.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::api::{NAME_CHARS_MAX, Problem, TEXT_CHARS_MAX};
use super::roles::Caller;
use super::{Detail, Shared, Web};
use crate::domain::time::DAY_MS;
use crate::domain::{BY_CONFIGURATION, Hold, HoldKind, Matcher, Time};

/// Longest that anything may be held: what lasts longer is a setting, not a silence.
const HOLD_MS_MAX: i64 = 90 * DAY_MS;

pub fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/api/v1/silences", get(silences).post(add_silence))
        .route("/api/v1/silences/{id}/expire", post(end_silence))
        .route("/api/v1/maintenance", get(windows).post(add_window))
        .route("/api/v1/maintenance/{id}/end", post(end_window))
}

/// A hold that somebody wants.
#[derive(Clone, Debug, PartialEq)]
pub struct NewHold {
    pub kind: HoldKind,
    pub matcher: Matcher,
    pub from: Time,
    pub until: Time,
    pub by: String,
    pub why: String,
    pub harm: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Body {
    #[serde(rename = "match")]
    matcher: Matcher,
    /// Now, if left out.
    from: Option<Time>,
    until: Option<Time>,
    by: String,
    why: String,
    /// Severity 1 as well.
    harm: bool,
}

impl Body {
    fn hold(self, kind: HoldKind, now: Time) -> Result<NewHold, Problem> {
        asked(kind, self.matcher, self.from, self.until, self.by, self.why, self.harm, now)
    }
}

/// A hold as somebody asks for it, if it may be.
///
/// # Errors
/// What is missing or too much, by member.
#[allow(clippy::too_many_arguments)]
pub fn asked(
    kind: HoldKind,
    matcher: Matcher,
    from: Option<Time>,
    until: Option<Time>,
    by: String,
    why: String,
    harm: bool,
    now: Time,
) -> Result<NewHold, Problem> {
    let by = by.trim().to_owned();
    if by.is_empty() {
        return Err(Problem::member("by", "who does this is needed"));
    }
    if by == BY_CONFIGURATION {
        return Err(Problem::member("by", "that is the configuration's own name; a person's is needed"));
    }
    for (name, text, most) in [("by", &by, NAME_CHARS_MAX), ("why", &why, TEXT_CHARS_MAX)] {
        if text.chars().count() > most {
            return Err(Problem::member(name, format!("at most {most} characters")));
        }
    }
    let from = from.unwrap_or(now);
    let Some(until) = until else { return Err(Problem::member("until", "when it ends is needed: a hold without an end is forgotten")) };
    if until <= from || until <= now {
        return Err(Problem::member("until", "it must end after it begins, and later than now"));
    }
    if until.since_ms(from) > HOLD_MS_MAX {
        return Err(Problem::member("until", "at most 90 days after it begins"));
    }
    if matcher == Matcher::default() && kind == HoldKind::Silence {
        return Err(Problem::member(
            "match",
            "a silence of everything is not taken; name a model, a category, an environment, a segment or a version",
        ));
    }
    Ok(NewHold { kind, matcher, from, until, by, why, harm })
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct EndBody {
    by: String,
}

async fn list(web: &Web, kind: HoldKind) -> Result<Response, Problem> {
    let mut data: Vec<Hold> = web.backend.holds().await?;
    data.retain(|h| h.kind == kind);
    Ok(Json(json!({"data": data, "next_cursor": null})).into_response())
}

async fn add(web: &Web, kind: HoldKind, caller: &Caller, body: Result<Json<Body>, JsonRejection>) -> Result<Response, Problem> {
    let Json(mut body) = body?;
    body.by = caller.by(&body.by);
    let detail = Detail(format!("by={} why={} match={:?}", body.by, body.why, body.matcher));
    let hold = web.backend.hold(body.hold(kind, super::now())?).await?;
    let mut response = (StatusCode::CREATED, Json(hold)).into_response();
    response.extensions_mut().insert(detail);
    Ok(response)
}

async fn end(web: &Web, kind: HoldKind, caller: &Caller, id: String, body: Result<Json<EndBody>, JsonRejection>) -> Result<Response, Problem> {
    let Json(mut body) = body?;
    body.by = caller.by(&body.by);
    if body.by.trim().is_empty() {
        return Err(Problem::member("by", "who does this is needed"));
    }
    if !id.starts_with(&kind.as_str()[..3]) {
        return Err(Problem::new(StatusCode::NOT_FOUND, format!("no {kind} {id:?}")));
    }
    Ok(Json(web.backend.end_hold(&id, body.by.trim().to_owned()).await?).into_response())
}

async fn silences(State(web): Shared) -> Result<Response, Problem> {
    list(&web, HoldKind::Silence).await
}

async fn windows(State(web): Shared) -> Result<Response, Problem> {
    list(&web, HoldKind::Maintenance).await
}

async fn add_silence(State(web): Shared, Extension(caller): Extension<Caller>, body: Result<Json<Body>, JsonRejection>) -> Result<Response, Problem> {
    add(&web, HoldKind::Silence, &caller, body).await
}

async fn add_window(State(web): Shared, Extension(caller): Extension<Caller>, body: Result<Json<Body>, JsonRejection>) -> Result<Response, Problem> {
    add(&web, HoldKind::Maintenance, &caller, body).await
}

async fn end_silence(
    State(web): Shared,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<EndBody>, JsonRejection>,
) -> Result<Response, Problem> {
    end(&web, HoldKind::Silence, &caller, id, body).await
}

async fn end_window(
    State(web): Shared,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<EndBody>, JsonRejection>,
) -> Result<Response, Problem> {
    end(&web, HoldKind::Maintenance, &caller, id, body).await
}
