//! Pages, API, metrics and management over HTTP. Knows nobody but the trait through which it asks.
//!
//! A request passes the door (how many, how long), the guard (whose page is asking), and then one of three rooms: management for
//! machines that keep us alive, the API for programs, pages for people. All three ask the same [`Backend`].

mod api;
mod backend;
mod baselines;
mod chart;
mod door;
mod guard;
mod holds;
mod manage;
mod pages;
mod roles;
mod visible;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use backend::{
    ActionResult, Audited, Backend, BaselineCommand, ClockRow, CommandError, DeliveryRow, FaultButton, HealthView, HearError, Holder, IncidentFilter,
    IncidentPage, LagRow, OutboxRow, PersonCommand, Readiness,
};

pub use baselines::REFERENCE_BYTES_MAX;

use crate::domain::Time;
pub use holds::NewHold;

use door::{Door, Peer};
use guard::Guard;
use roles::{Caller, Denied};

/// Bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// For reading a body and answering. The store's own reads are bounded below it.
const ANSWER_SECONDS_MAX: u64 = 30;
/// For open requests when the daemon stops.
const FAREWELL_SECONDS_MAX: u64 = 3;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {listen}")]
    Listen { listen: SocketAddr, source: std::io::Error },
    #[error("no random bytes for the forms' tokens")]
    Random(#[source] std::io::Error),
}

/// What every handler gets.
struct Web {
    backend: Arc<dyn Backend>,
    guard: Guard,
    listen: SocketAddr,
    started: Time,
}

type Shared = State<Arc<Web>>;

/// Listens and answers until `shutdown` says `true`. Returns where it listens (port 0 asks for a free one) and the running task,
/// which ends a few seconds after the word.
///
/// # Errors
/// When the address cannot be had.
pub async fn start(
    listen: SocketAddr,
    backend: Arc<dyn Backend>,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(SocketAddr, JoinHandle<()>), Error> {
    let listener = TcpListener::bind(listen).await.map_err(|source| Error::Listen { listen, source })?;
    let listen = listener.local_addr().map_err(|source| Error::Listen { listen, source })?;
    let guard = Guard::new(listen, backend.hosts()).map_err(Error::Random)?;
    let web = Arc::new(Web { backend, guard, listen, started: now() });
    let service = routes(web).into_make_service_with_connect_info::<Peer>();
    let told = async move {
        // A sender that is gone has nothing more to say than stop.
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    let (hear, heard) = watch::channel(false);
    let told_once = async move {
        told.await;
        let _ = hear.send(true);
    };
    let task = tokio::spawn(async move {
        let serving = axum::serve(Door::new(listener), service).with_graceful_shutdown(told_once);
        tokio::select! {
            ended = serving.into_future() => {
                if let Err(e) = ended {
                    tracing::error!(error = %e, "the web server ended");
                }
            }
            () = farewell(heard) => {}
        }
    });
    Ok((listen, task))
}

async fn farewell(mut heard: watch::Receiver<bool>) {
    if heard.wait_for(|h| *h).await.is_err() {
        // The server ended first.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(Duration::from_secs(FAREWELL_SECONDS_MAX)).await;
}

fn routes(web: Arc<Web>) -> Router {
    Router::new()
        .merge(manage::routes())
        .merge(baselines::routes())
        .merge(api::routes())
        .merge(holds::routes())
        .merge(pages::routes())
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&web), at_the_guard))
        .with_state(web)
}

/// Turns strangers away, bounds the answer's time and sets the headers that every answer carries.
async fn at_the_guard(State(web): Shared, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
    let most = if path == baselines::PATH { REFERENCE_BYTES_MAX } else { BODY_BYTES_MAX };
    let mut response = match web.guard.admits(request.method(), request.headers(), request.uri().host()) {
        Err(refusal) => api::Problem::new(StatusCode::FORBIDDEN, refusal.to_string()).into_response(),
        // What says beforehand that it is too long need not be read; what does not say is cut off while it is read.
        Ok(()) if length.is_some_and(|l| l > most as u64) => {
            api::Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body has at most {most} bytes")).into_response()
        }
        Ok(()) => match within(by_role(&web, request, next)).await {
            Some(response) => response,
            None => api::Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("no answer within {ANSWER_SECONDS_MAX} s")).into_response(),
        },
    };
    let headers = response.headers_mut();
    for (name, value) in guard::HEADERS {
        headers.insert(name, value);
    }
    if !path.starts_with("/assets/") {
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    }
    response
}

/// What a handler says of a write for the audit, in its answer's extensions.
#[derive(Clone)]
struct Detail(String);

/// Lets in whoever has the role for it; a write stands in the audit before it is looked at, and what came of it after.
async fn by_role(web: &Web, mut request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let caller = match Caller::of(request.headers(), &web.backend.holders(), roles::needs(&method, &path)) {
        Ok(caller) => caller,
        Err(Denied::Unknown) => {
            let mut response =
                api::Problem::new(StatusCode::UNAUTHORIZED, "who is asking? a token is needed, as Authorization: Bearer").into_response();
            // A browser asks for a name and a password, and the password is the token.
            let programs = path.starts_with("/api/") || path.starts_with("/-/");
            let scheme =
                if programs { "Bearer realm=\"bellwether\"" } else { "Basic realm=\"bellwether: any name, and your token as the password\"" };
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static(scheme));
            return response;
        }
        Err(Denied::Role { name, role, needs }) => {
            return api::Problem::new(StatusCode::FORBIDDEN, format!("this needs the role {needs}, and {name} is {role}")).into_response();
        }
    };
    // What is signed is written down once its signature is known to be good: a stranger fills no audit.
    let is_write = !method.is_safe() && !roles::is_signed_door(&path);
    let line = |what: String, detail: String| Audited {
        who: caller.name.clone().unwrap_or_else(|| "somebody on this machine".to_owned()),
        role: caller.role.as_str().to_owned(),
        what,
        subject: path.clone(),
        detail,
    };
    if is_write && let Err(why) = web.backend.audit(line(format!("{method} asked"), String::new())).await {
        return api::Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("nothing was done, because it cannot be written down: {why}"))
            .into_response();
    }
    request.extensions_mut().insert(caller.clone());
    let response = next.run(request).await;
    if is_write {
        let detail = response.extensions().get::<Detail>().map(|d| d.0.clone()).unwrap_or_default();
        if let Err(why) = web.backend.audit(line(format!("{method} answered {}", response.status().as_u16()), detail)).await {
            tracing::error!(why = %why, path, "what came of a write is not in the audit");
        }
    }
    response
}

async fn within(answer: impl Future<Output = Response>) -> Option<Response> {
    tokio::time::timeout(Duration::from_secs(ANSWER_SECONDS_MAX), answer).await.ok()
}

/// The wall clock: pages say how long ago something was.
fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
