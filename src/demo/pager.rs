//! A pager that prints: plays PagerDuty's Events API v2, so that the demo goes the whole way and wakes nobody.
//!
//! The rules are PagerDuty's own (developer documentation, "Events API v2"): what it would refuse is refused with its words,
//! equal keys update one alert, and what has no open alert is dropped in silence. So a body that passes here is worth
//! something, and the page that a person sees is the page that a person would have got.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::screen::{Color, Style, harmless, wrapped};
use crate::domain::Time;

/// PagerDuty's bounds.
const BODY_BYTES_MAX: usize = 512 * 1024;
const ROUTING_KEY_CHARS: usize = 32;
const DEDUP_KEY_CHARS_MAX: usize = 255;
const SUMMARY_CHARS_MAX: usize = 1_024;
/// Requests that wait for the demo's loop; then the answer waits with them.
const HEARD_WAITING_MAX: usize = 256;
/// Open alerts remembered; beyond it a new one counts as a page each time.
const ALERTS_MAX: usize = 10_000;
/// Lines of details shown in a box.
const DETAILS_SHOWN_MAX: usize = 8;

/// Prints one text; line ends are its business.
pub type Print = Arc<dyn Fn(&str) + Send + Sync>;

/// What an event did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A new alert: somebody is woken.
    Paged,
    /// The alert was open already.
    Updated,
    Acknowledged,
    Resolved,
    /// No open alert has this key; PagerDuty drops it.
    Dropped,
}

/// One accepted event.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    pub effect: Effect,
    /// `trigger`, `acknowledge` or `resolve`.
    pub action: String,
    pub dedup_key: String,
    /// Empty for what is no trigger.
    pub summary: String,
    pub source: String,
    pub severity: String,
    pub class: String,
    pub component: String,
    pub details: Vec<(String, String)>,
    pub links: Vec<(String, String)>,
    /// The whole body, without the routing key, which is a secret.
    pub body: Value,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Page(Box<Page>),
    /// Answered with 400, and why.
    Refused(Vec<String>),
}

/// The pager, listening until it is stopped.
pub struct Pager {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    server: JoinHandle<std::io::Result<()>>,
}

struct Desk {
    /// Keys of open alerts, and whether somebody has acknowledged.
    alerts: Mutex<HashMap<String, bool>>,
    heard: mpsc::Sender<Heard>,
    style: Style,
    print: Print,
}

// === impl Pager ===

impl Pager {
    /// Listens; port 0 takes a free one. Every request is printed and handed on.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn start(listen: SocketAddr, style: Style, print: Print) -> std::io::Result<(Pager, mpsc::Receiver<Heard>)> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (heard, requests) = mpsc::channel(HEARD_WAITING_MAX);
        let (stop, mut stopped) = watch::channel(false);
        let desk = Arc::new(Desk { alerts: Mutex::default(), heard, style, print });
        let router = Router::new().route("/v2/enqueue", post(enqueue)).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(desk);
        let server = tokio::spawn(async move {
            // Ends when told to, and also when nobody is left who could tell.
            let until = async move {
                let _ = stopped.wait_for(|is_over| *is_over).await;
            };
            axum::serve(listener, router).with_graceful_shutdown(until).await
        });
        Ok((Pager { address, stop, server }, requests))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a receiver of type `pagerduty` takes as its `url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers what has come and listens no longer.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        // A server that failed has told those who called.
        let _ = self.server.await;
    }
}

// === the desk ===

async fn enqueue(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    let (heard, status, answer) = match read(&body) {
        Ok(mut page) => {
            page.effect = desk.effect(&page.action, &page.dedup_key);
            (desk.print)(&boxed(&page, &now_clock(), desk.style));
            let answer = json!({"status": "success", "message": "Event processed", "dedup_key": page.dedup_key});
            (Heard::Page(Box::new(page)), StatusCode::ACCEPTED, answer)
        }
        Err(errors) => {
            (desk.print)(&desk.style.paint(Color::Red, &format!("pager: event refused: {}", errors.join("; "))));
            let answer = json!({"status": "invalid event", "message": "Event object is invalid", "errors": errors});
            (Heard::Refused(errors), StatusCode::BAD_REQUEST, answer)
        }
    };
    // Nobody may be listening any more; the answer stays right.
    let _ = desk.heard.send(heard).await;
    (status, axum::Json(answer)).into_response()
}

fn now_clock() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let text = Time(since.as_millis() as i64).rfc3339();
    text.get(11..19).map_or_else(String::new, |clock| format!("{clock} UTC"))
}

impl Desk {
    fn effect(&self, action: &str, key: &str) -> Effect {
        // A panic elsewhere cannot leave a map of keys in a state that matters.
        let mut alerts = self.alerts.lock().unwrap_or_else(PoisonError::into_inner);
        match action {
            "trigger" if alerts.contains_key(key) => Effect::Updated,
            "trigger" => {
                if alerts.len() < ALERTS_MAX {
                    alerts.insert(key.to_owned(), false);
                }
                Effect::Paged
            }
            "acknowledge" => alerts.get_mut(key).map_or(Effect::Dropped, |is_acknowledged| {
                *is_acknowledged = true;
                Effect::Acknowledged
            }),
            _ => alerts.remove(key).map_or(Effect::Dropped, |_| Effect::Resolved),
        }
    }
}

/// Reads an event by PagerDuty's rules; its effect is not known yet.
fn read(body: &[u8]) -> Result<Page, Vec<String>> {
    let mut body: Value = serde_json::from_slice(body).map_err(|e| vec![format!("invalid JSON: {e}")])?;
    let Some(event) = body.as_object_mut() else { return Err(vec!["the event is no JSON object".to_owned()]) };
    let mut errors = Vec::new();
    match event.remove("routing_key") {
        Some(Value::String(key)) if key.chars().count() == ROUTING_KEY_CHARS => {}
        Some(Value::String(_)) => errors.push(format!("'routing_key' must have {ROUTING_KEY_CHARS} characters")),
        _ => errors.push("'routing_key' is missing or blank".to_owned()),
    }
    let text = |at: &str| body.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let action = text("/event_action");
    if !matches!(action.as_str(), "trigger" | "acknowledge" | "resolve") {
        errors.push("'event_action' is not one of trigger, acknowledge, resolve".to_owned());
    }
    let dedup_key = text("/dedup_key");
    if dedup_key.chars().count() > DEDUP_KEY_CHARS_MAX {
        errors.push(format!("'dedup_key' is longer than {DEDUP_KEY_CHARS_MAX} characters"));
    }
    if dedup_key.is_empty() {
        // PagerDuty would make one up for a trigger; we always send one, so that its absence is a mistake of ours.
        errors.push("'dedup_key' is missing or blank".to_owned());
    }
    let (summary, source, severity) = (text("/payload/summary"), text("/payload/source"), text("/payload/severity"));
    if action == "trigger" {
        if summary.is_empty() {
            errors.push("'payload.summary' is missing or blank".to_owned());
        }
        if summary.chars().count() > SUMMARY_CHARS_MAX {
            errors.push(format!("'payload.summary' is longer than {SUMMARY_CHARS_MAX} characters"));
        }
        if source.is_empty() {
            errors.push("'payload.source' is missing or blank".to_owned());
        }
        if !matches!(severity.as_str(), "critical" | "error" | "warning" | "info") {
            errors.push("'payload.severity' is not one of critical, error, warning, info".to_owned());
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let told = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let details = body.pointer("/payload/custom_details").and_then(Value::as_object);
    let details = details.into_iter().flatten().map(|(name, value)| (name.clone(), told(value))).collect();
    let links = body.get("links").and_then(Value::as_array).into_iter().flatten();
    let links = links.filter_map(|link| {
        let href = link.get("href")?.as_str()?.to_owned();
        Some((link.get("text").and_then(Value::as_str).unwrap_or("link").to_owned(), href))
    });
    let links = links.collect();
    let (class, component) = (text("/payload/class"), text("/payload/component"));
    Ok(Page { effect: Effect::Dropped, action, dedup_key, summary, source, severity, class, component, details, links, body })
}

// === the box ===

/// What a person sees, as a box of at most `style.width` columns; one line for what wakes nobody.
pub fn boxed(page: &Page, clock: &str, style: Style) -> String {
    let (head, color) = match page.effect {
        Effect::Paged => ("PAGE", if page.severity == "critical" || page.severity == "error" { Color::Red } else { Color::Yellow }),
        Effect::Updated => ("page updated", Color::Yellow),
        Effect::Acknowledged => ("acknowledged", Color::Cyan),
        Effect::Resolved => ("resolved", Color::Green),
        Effect::Dropped => ("dropped, no open alert", Color::Dim),
    };
    if page.action != "trigger" {
        return style.paint(color, &format!("pager: {head} · {} · {clock}", harmless(&page.dedup_key)));
    }
    let inner = style.width.saturating_sub(4).max(20);
    let title = format!(" {head} · {} · {} ", harmless(&page.severity), harmless(&page.source));
    let title: String = title.chars().take(inner.saturating_sub(clock.chars().count() + 2)).collect();
    let fill = inner.saturating_sub(title.chars().count() + clock.chars().count() + 1);
    let edge = |text: &str| style.paint(color, text);
    let mut out = edge(&format!("╭─{title}{} {clock} ╮", "─".repeat(fill)));
    let mut row = |text: &str, weight: Option<Color>| {
        let room = inner.saturating_sub(text.chars().count());
        let text = weight.map_or_else(|| text.to_owned(), |weight| style.paint(weight, text));
        // Writing to a string does not fail.
        let _ = write!(out, "\n{} {text}{} {}", edge("│"), " ".repeat(room), edge("│"));
    };
    for line in wrapped(&harmless(&page.summary), inner) {
        row(&line, Some(Color::Bold));
    }
    let rows = page.details.iter().take(DETAILS_SHOWN_MAX).chain(&page.links);
    let name_width = rows.clone().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(18);
    for (name, value) in rows {
        let name: String = harmless(name).replace('_', " ").chars().take(name_width).collect();
        for (i, line) in wrapped(&harmless(value), inner.saturating_sub(name_width + 2)).into_iter().enumerate() {
            let name = if i == 0 { name.as_str() } else { "" };
            row(&format!("{name:name_width$}  {line}"), None);
        }
    }
    if page.details.len() > DETAILS_SHOWN_MAX {
        row(&format!("and {} more details", page.details.len() - DETAILS_SHOWN_MAX), Some(Color::Dim));
    }
    let _ = write!(out, "\n{}", edge(&format!("╰{}╯", "─".repeat(inner + 2))));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn trigger() -> Value {
        json!({
            "routing_key": KEY, "event_action": "trigger", "dedup_key": "bellwether/demo/inc-1",
            "payload": {
                "summary": "loan-scorer prod: error rate 1 % → 12 % since 09:12 UTC, region=eu", "source": "prod/loan-scorer",
                "severity": "error", "class": "model_failure", "component": "1.4.0",
                "custom_details": {"users_affected": "about 1,240", "getting_worse": true},
            },
            "links": [{"href": "http://127.0.0.1:9710/incidents/inc-1", "text": "Evidence"}],
        })
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Value), word: &str) {
        let mut event = trigger();
        change(&mut event);
        let errors = read(event.to_string().as_bytes()).expect_err(word).join("; ");
        assert!(errors.contains(word), "{errors}");
    }

    #[test]
    fn what_pagerduty_refuses_is_refused_in_its_words() {
        refused(|e| e["routing_key"] = json!("short"), "'routing_key' must have 32 characters");
        refused(|e| e["routing_key"] = Value::Null, "'routing_key' is missing");
        refused(|e| e["event_action"] = json!("open"), "'event_action'");
        refused(|e| e["dedup_key"] = json!("x".repeat(256)), "'dedup_key' is longer");
        refused(|e| e["payload"]["summary"] = json!(""), "'payload.summary' is missing");
        refused(|e| e["payload"]["summary"] = json!("ä".repeat(1_025)), "'payload.summary' is longer");
        refused(|e| e["payload"]["source"] = Value::Null, "'payload.source'");
        refused(|e| e["payload"]["severity"] = json!("urgent"), "'payload.severity'");
        assert!(read(b"{").is_err() && read(b"[]").is_err() && read(b"").is_err());
    }

    #[test]
    fn a_page_holds_no_secret() {
        let page = read(trigger().to_string().as_bytes()).unwrap();
        assert!(!format!("{page:?}").contains(KEY));
        assert_eq!((page.class.as_str(), page.component.as_str()), ("model_failure", "1.4.0"));
        assert_eq!(page.details, [("getting_worse".to_owned(), "true".to_owned()), ("users_affected".to_owned(), "about 1,240".to_owned())]);
    }

    #[test]
    fn a_box_has_straight_edges() {
        let mut page = read(trigger().to_string().as_bytes()).unwrap();
        page.effect = Effect::Paged;
        page.details.push(("note".to_owned(), format!("{}\u{1b}[2J end", "long words and more of them ".repeat(5))));
        for width in [40, 60, 100] {
            let text = boxed(&page, "09:14:03 UTC", Style { color: false, width });
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.iter().all(|l| l.chars().count() == width), "{text}");
            assert!(lines[0].starts_with("╭─ PAGE · error") && lines[0].ends_with("09:14:03 UTC ╮"), "{text}");
            assert!(text.contains("error rate 1 %") && text.contains("Evidence") && !text.contains('\u{1b}'), "{text}");
        }
        let colored = boxed(&page, "09:14:03 UTC", Style { color: true, width: 60 });
        assert!(colored.contains("\u{1b}[1;31m"));
        page.action = "resolve".to_owned();
        page.effect = Effect::Resolved;
        assert_eq!(boxed(&page, "09:15:00 UTC", Style::PLAIN), "pager: resolved · bellwether/demo/inc-1 · 09:15:00 UTC");
    }

    #[tokio::test]
    async fn the_whole_way_over_http() {
        let printed = Arc::new(Mutex::new(Vec::new()));
        let sink = printed.clone();
        let print: Print = Arc::new(move |text| sink.lock().unwrap().push(text.to_owned()));
        let (pager, mut heard) = Pager::start(SocketAddr::from(([127, 0, 0, 1], 0)), Style::PLAIN, print).await.unwrap();
        let url = format!("{}/v2/enqueue", pager.url());
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let send = async |event: Value| {
            let answer = client.post(&url).json(&event).send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        };
        let action = |word: &str| json!({"routing_key": KEY, "event_action": word, "dedup_key": "bellwether/demo/inc-1"});
        let mut effects = Vec::new();
        for event in [action("resolve"), trigger(), trigger(), action("acknowledge"), action("resolve"), action("resolve"), trigger()] {
            let (status, answer) = send(event).await;
            assert_eq!((status, answer["status"].as_str(), answer["dedup_key"].as_str()), (202, Some("success"), Some("bellwether/demo/inc-1")));
            match heard.recv().await {
                Some(Heard::Page(page)) => effects.push(page.effect),
                other => panic!("{other:?}"),
            }
        }
        use Effect::*;
        assert_eq!(effects, [Dropped, Paged, Updated, Acknowledged, Resolved, Dropped, Paged]);
        let (status, answer) = send(json!({"event_action": "trigger"})).await;
        assert_eq!((status, answer["status"].as_str()), (400, Some("invalid event")));
        assert!(matches!(heard.recv().await, Some(Heard::Refused(errors)) if errors.len() == 5));
        let too_large = client.post(&url).body("x".repeat(BODY_BYTES_MAX + 1)).send().await.unwrap().status();
        assert_eq!(too_large.as_u16(), 413);
        drop(client);
        pager.stop().await;
        assert_eq!(printed.lock().unwrap().len(), 8);
        assert!(heard.recv().await.is_none());
    }
}
