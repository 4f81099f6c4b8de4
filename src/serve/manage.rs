//! For what keeps us running: health, readiness, reload, metrics. Paths and meanings as Prometheus' own.

use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use super::api::Problem;
use super::door::Peer;
use super::{Shared, Web};
use crate::telemetry::CONTENT_TYPE;

pub fn routes() -> Router<Arc<Web>> {
    let reload_route = axum::routing::post(reload).put(reload);
    Router::new().route("/-/healthy", get(healthy)).route("/-/ready", get(ready)).route("/-/reload", reload_route).route("/metrics", get(metrics))
}

/// 503 only when a restart would help.
async fn healthy(State(web): Shared) -> Response {
    if web.backend.is_healthy() { "ok\n".into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, "stuck\n").into_response() }
}

async fn ready(State(web): Shared) -> Response {
    let readiness = web.backend.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

/// Open to this machine only, as long as there are no tokens; with tokens the role has been asked for at the door.
async fn reload(State(web): Shared, ConnectInfo(Peer(peer)): ConnectInfo<Peer>) -> Response {
    if web.backend.holders().is_empty() && !peer.ip().to_canonical().is_loopback() {
        return Problem::new(StatusCode::FORBIDDEN, "only this machine may ask for a reload; send SIGHUP instead").into_response();
    }
    match web.backend.reload().await {
        Ok(()) => "reloaded\n".into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(web): Shared) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], web.backend.metrics()).into_response()
}
