//! What is normal, over HTTP: shown, imported from a reference, forgotten.

use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::api::{NAME_CHARS_MAX, Problem};
use super::backend::BaselineCommand;
use super::{Shared, Web};
use crate::domain::Signal;
use crate::engine::view::BaselineView;

pub const PATH: &str = "/api/v1/baselines";
/// Bytes of a packed reference.
pub const REFERENCE_BYTES_MAX: usize = 32 * 1024 * 1024;

pub fn routes() -> Router<Arc<Web>> {
    Router::new().route(PATH, get(show).post(import).layer(DefaultBodyLimit::max(REFERENCE_BYTES_MAX))).route("/api/v1/baselines/reset", post(reset))
}

#[derive(Serialize)]
struct Baselines {
    data: Vec<BaselineView>,
    next_cursor: Option<String>,
}

impl Baselines {
    fn of(data: Vec<BaselineView>) -> Json<Baselines> {
        Json(Baselines { data, next_cursor: None })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ShowQuery {
    model: Option<String>,
}

async fn show(State(web): Shared, query: Result<Query<ShowQuery>, QueryRejection>) -> Result<Json<Baselines>, Problem> {
    let Query(query) = query?;
    Ok(Baselines::of(web.backend.baselines(query.model.as_deref()).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportBody {
    model: String,
    environment: Option<String>,
    /// As `bellwether baseline import` packs it.
    packed: String,
}

async fn import(State(web): Shared, body: Result<Json<ImportBody>, JsonRejection>) -> Result<Json<Baselines>, Problem> {
    let Json(ImportBody { model, environment, packed }) = body?;
    named(&model)?;
    Ok(Baselines::of(web.backend.teach(BaselineCommand::Import { model, environment, packed }).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    model: String,
    environment: Option<String>,
    signal: Option<String>,
}

async fn reset(State(web): Shared, body: Result<Json<ResetBody>, JsonRejection>) -> Result<Json<Baselines>, Problem> {
    let Json(ResetBody { model, environment, signal }) = body?;
    named(&model)?;
    let strange = |e: crate::domain::words::UnknownWord| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("signal: {e}"));
    let signal = signal.map(|s| s.parse::<Signal>()).transpose().map_err(strange)?;
    Ok(Baselines::of(web.backend.teach(BaselineCommand::Forget { model, environment, signal }).await?))
}

fn named(model: &str) -> Result<(), Problem> {
    match model.chars().count() {
        1..=NAME_CHARS_MAX => Ok(()),
        _ => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("model: a name of 1 to {NAME_CHARS_MAX} characters"))),
    }
}
