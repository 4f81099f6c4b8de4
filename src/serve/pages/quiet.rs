//! The page of silences and maintenance windows: for what and how long nobody is called, and by whose word.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::rejection::FormRejection;
use axum::extract::{Extension, Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::get;
use serde::Deserialize;

use super::super::api::Problem;
use super::super::holds::{self, NewHold};
use super::super::{Detail, guard};
use super::{Caller, Frame, Shared, Web, When, done_by, page, problem, spaced};
use crate::domain::time::HOUR_MS;
use crate::domain::{Category, Hold, HoldKind, Matcher};

pub fn routes() -> Router<Arc<Web>> {
    Router::new().route("/silences", get(show).post(add)).route("/silences/{id}/end", axum::routing::post(end))
}

#[derive(Template)]
#[template(path = "silences.html")]
struct QuietPage<'a> {
    frame: &'a Frame,
    message: Option<String>,
    rows: Vec<Row>,
    is_named: bool,
    form: HoldForm,
    /// Each with its words, and whether it was chosen.
    categories: Vec<(&'static str, String, bool)>,
}

struct Row {
    id: String,
    kind: String,
    what: String,
    /// `on`, `to come`, `ended by ana`, `over`.
    state: String,
    may_end: bool,
    from: When,
    until: When,
    by: String,
    why: String,
    harm: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HoldForm {
    csrf: String,
    by: String,
    why: String,
    model: String,
    environment: String,
    category: String,
    hours: Option<i64>,
    /// Of a check box: there if it is ticked.
    harm: String,
}

impl Row {
    fn of(hold: &Hold, frame: &Frame) -> Row {
        let (state, may_end) = match &hold.ended {
            Some((_, by)) => (format!("ended by {by}"), false),
            None if frame.now >= hold.until => ("over".to_owned(), false),
            None if frame.now < hold.from => ("to come".to_owned(), true),
            None => ("on".to_owned(), true),
        };
        Row {
            id: hold.id.clone(),
            kind: hold.kind.to_string(),
            what: hold.matcher.words(),
            state,
            may_end,
            from: frame.when(hold.from),
            until: frame.when(hold.until),
            by: hold.by.clone(),
            why: hold.why.clone(),
            harm: hold.harm,
        }
    }
}

async fn show(State(web): Shared, Extension(caller): Extension<Caller>, headers: HeaderMap) -> Response {
    shown(&web, &caller, &headers, StatusCode::OK, None, HoldForm::default()).await
}

async fn shown(web: &Web, caller: &Caller, headers: &HeaderMap, status: StatusCode, message: Option<String>, form: HoldForm) -> Response {
    let all = match web.backend.holds().await {
        Ok(all) => all,
        Err(e) => return problem(web, headers, e.into()),
    };
    let frame = Frame::new(web, headers, "/silences", "Silences");
    let mut rows: Vec<(bool, Row)> = all.iter().map(|h| Row::of(h, &frame)).map(|r| (!r.may_end, r)).collect();
    // What is on or to come first, each in the order in which it was made.
    rows.sort_by_key(|(is_over, _)| *is_over);
    let form = HoldForm { by: caller.by(&guard::name_said(&form.by, headers)), ..form };
    let rows = rows.into_iter().map(|(_, row)| row).collect();
    let categories = Category::NAMES.iter().map(|c| (*c, spaced(c), form.category == *c)).collect();
    let template = QuietPage { message, rows, is_named: caller.name.is_some(), form, categories, frame: &frame };
    page(status, frame.set_cookie.clone(), &template)
}

impl HoldForm {
    fn hold(&self, caller: &Caller) -> Result<NewHold, Problem> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|t| !t.is_empty());
        let category = given(&self.category).map(|c| c.parse::<Category>()).transpose().map_err(|e| Problem::member("category", e.to_string()))?;
        let matcher = Matcher { model: given(&self.model), environment: given(&self.environment), category, ..Matcher::default() };
        let now = super::super::now();
        let until = self.hours.map(|h| now.plus_ms(h.clamp(1, 24 * 90) * HOUR_MS));
        let (by, why, harm) = (caller.by(&self.by), self.why.replace("\r\n", "\n"), !self.harm.is_empty());
        holds::asked(HoldKind::Silence, matcher, None, until, by, why, harm, now)
    }
}

async fn add(State(web): Shared, Extension(caller): Extension<Caller>, headers: HeaderMap, form: Result<Form<HoldForm>, FormRejection>) -> Response {
    let Form(form) = match form {
        Ok(form) => form,
        Err(e) => return problem(&web, &headers, e.into()),
    };
    if let Err(e) = web.guard.check_token(&headers, &form.csrf) {
        return problem(&web, &headers, e.into());
    }
    let done = match form.hold(&caller) {
        Ok(hold) => {
            let detail = Detail(format!("by={} why={} match={:?}", hold.by, hold.why, hold.matcher));
            web.backend.hold(hold).await.map(|_| detail).map_err(Problem::from)
        }
        Err(e) => Err(e),
    };
    match done {
        Ok(detail) => done_by(&caller, &form.by, "/silences", detail),
        Err(refused) => shown(&web, &caller, &headers, refused.status, Some(format!("Not done: {}.", refused.detail)), form).await,
    }
}

async fn end(
    State(web): Shared,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Path(id): Path<String>,
    form: Result<Form<HoldForm>, FormRejection>,
) -> Response {
    let Form(form) = match form {
        Ok(form) => form,
        Err(e) => return problem(&web, &headers, e.into()),
    };
    if let Err(e) = web.guard.check_token(&headers, &form.csrf) {
        return problem(&web, &headers, e.into());
    }
    let by = caller.by(&form.by);
    let done = match by.is_empty() {
        true => Err(Problem::member("by", "who does this is needed")),
        false => web.backend.end_hold(&id, by.clone()).await.map(drop).map_err(Problem::from),
    };
    match done {
        Ok(()) => done_by(&caller, &by, "/silences", Detail(format!("by={by}"))),
        Err(refused) => shown(&web, &caller, &headers, refused.status, Some(format!("Not done: {}.", refused.detail)), form).await,
    }
}
