//! GitLab issues: one issue per incident, found again by its scoped label. Confidential unless somebody wrote otherwise.
//!
//! A line that begins with a slash is a command there; what comes from outside never begins a line.

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, Url};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::http::{self, Client, Round};
use super::story::Story;
use super::tickets::{self, Said, Ticket, Tracker, Turn};
use super::{CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Table, cut};
use crate::domain::Time;
use crate::domain::delivery::{Message, Outcome, Receipt};

pub const KIND: Kind = Kind {
    name: "gitlab",
    about: "GitLab issues: one issue per incident; news are notes, the end closes it",
    knobs: &[
        Knob { name: "project", about: "the project's path, such as group/name, or its number", form: Form::Text, required: true },
        Knob { name: "token", about: "access token with scope api", form: Form::Secret, required: true },
        Knob { name: "issue_type", about: "issue (the default), incident or task", form: Form::Text, required: false },
        Knob { name: "labels", about: "further labels, separated by commas", form: Form::Text, required: false },
        Knob { name: "confidential", about: "false: everybody who sees the project reads the evidence", form: Form::Bool, required: false },
        Knob { name: "keep_open", about: "people close issues by hand", form: Form::Bool, required: false },
        Knob { name: "url", about: "https://gitlab.com if left out", form: Form::Url, required: false },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

const URL_DEFAULT: &str = "https://gitlab.com";
const TITLE_CHARS_MAX: usize = 255;
const TEXT_CHARS_MAX: usize = 100_000;
const NOTES_MAX: usize = 100;
const PER_MINUTE_MAX: u32 = 60;

struct GitLab {
    /// `…/api/v4/projects/<project>`
    base: Url,
    project: String,
    issue_type: String,
    labels: Vec<String>,
    is_confidential: bool,
    keep_open: bool,
    headers: HeaderMap,
    common: Common,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let url = r.url_or("url", URL_DEFAULT);
    let project = r.text("project");
    let project = r.required("project", project).unwrap_or_default();
    let is_path =
        project.split('/').all(|w| !w.is_empty() && w != ".." && w.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+')));
    let is_number = project.bytes().all(|b| b.is_ascii_digit());
    if !project.is_empty() && !is_number && (!is_path || !project.contains('/')) {
        r.problem("project", format!("project {project:?} is neither a number nor a path such as group/name"));
    }
    let token = r.secret("token");
    let token = r.required("token", token);
    let mut headers = http::json_headers();
    if let Some(value) = token.as_ref().and_then(|t| r.credential("token", t.expose_secret())) {
        headers.insert(HeaderName::from_static("private-token"), value);
    }
    let issue_type = r.text("issue_type").unwrap_or_else(|| "issue".to_owned());
    if !["issue", "incident", "task"].contains(&issue_type.as_str()) {
        r.problem("issue_type", format!("unknown issue_type {issue_type:?} (known: incident, issue, task)"));
    }
    let labels = r.list("labels");
    let (is_confidential, keep_open) = (r.bool_unless("confidential"), r.bool("keep_open"));
    match (url, r.client(common, token.iter().cloned().collect())) {
        (Some(mut base), Some(client)) if r.problems.is_empty() => {
            if let Ok(mut segments) = base.path_segments_mut() {
                // One segment: the slash in a path is part of the name.
                segments.pop_if_empty().extend(["api", "v4", "projects"]).push(&project);
            }
            let gitlab = GitLab { base, project, issue_type, labels, is_confidential, keep_open, headers, common: common.clone(), client };
            Ok(Receiver::Messages(Box::new(gitlab)))
        }
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for GitLab {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        tickets::deliver(self, &self.client.round(now), errand, &self.common).await
    }

    /// Asks whether the project is there and has issues; makes none.
    async fn test(&self, now: Time) -> Outcome {
        let round = self.client.round(now);
        match round.read(&self.base, self.headers.clone()).await {
            Ok(doc) if doc["id"].is_number() && doc["issues_enabled"] != false => {
                Outcome::Accepted { status: 200, detail: format!("{} is there and takes issues; nothing was made", self.project) }
            }
            Ok(doc) if doc["id"].is_number() => Outcome::Refused { status: Some(200), detail: format!("{} has no issues", self.project) },
            Ok(_) => Outcome::Refused { status: Some(200), detail: format!("this is not project {} of a GitLab", self.project) },
            Err(outcome) => outcome,
        }
    }

    fn manner(&self) -> Manner {
        Manner { per_minute_max: Some(PER_MINUTE_MAX), look_after_ms: 2_000, ..Manner::TICKETS }
    }
}

#[async_trait]
impl Tracker for GitLab {
    async fn find(&self, round: &Round<'_>, incident: &str) -> Result<Option<Ticket>, Outcome> {
        let mut url = self.at(&["issues"]);
        url.query_pairs_mut().append_pair("labels", &label(incident)).append_pair("scope", "all").append_pair("per_page", "1");
        let found = round.read(&url, self.headers.clone()).await?;
        match found.as_array() {
            Some(issues) => Ok(issues.first().and_then(ticket)),
            None => Err(Outcome::Retry { status: Some(200), detail: "asking: the answer is no list".to_owned(), after_ms: None }),
        }
    }

    async fn create(&self, round: &Round<'_>, message: &Message, story: &Story) -> Result<Ticket, Outcome> {
        let mut labels = vec!["bellwether".to_owned(), label(&message.incident.id)];
        labels.extend(self.labels.iter().cloned());
        let new = json!({
            "title": cut(&story.headline, TITLE_CHARS_MAX),
            "description": cut(&story.markdown(), TEXT_CHARS_MAX),
            "labels": labels.join(","),
            "issue_type": self.issue_type,
            "confidential": self.is_confidential,
        });
        let answer = round.ask(Method::POST, &self.at(&["issues"]), self.headers.clone(), Some(&new)).await?;
        if !answer.is_success() {
            return Err(answer.judge());
        }
        answer.document().as_ref().and_then(ticket).ok_or_else(|| answer.unreadable())
    }

    async fn has_said(&self, round: &Round<'_>, ticket: &Ticket, mark: &str) -> Result<Said, Outcome> {
        let mut url = self.at(&["issues", &ticket.key, "notes"]);
        url.query_pairs_mut().append_pair("sort", "desc").append_pair("order_by", "created_at").append_pair("per_page", &NOTES_MAX.to_string());
        let found = round.read(&url, self.headers.clone()).await?;
        let is_there = found.as_array().into_iter().flatten().any(|n| n["body"].as_str().is_some_and(|b| b.contains(mark)));
        Ok(if is_there { Said::Yes } else { Said::No })
    }

    async fn say(&self, round: &Round<'_>, ticket: &Ticket, _message: &Message, story: &Story) -> Result<(), Outcome> {
        let body = json!({"body": cut(&story.markdown(), TEXT_CHARS_MAX)});
        let answer = round.ask(Method::POST, &self.at(&["issues", &ticket.key, "notes"]), self.headers.clone(), Some(&body)).await?;
        if !answer.is_success() {
            return Err(answer.judge());
        }
        if answer.document().is_some_and(|d| d["id"].is_number()) { Ok(()) } else { Err(answer.unreadable()) }
    }

    async fn turn(&self, round: &Round<'_>, ticket: &Ticket, turn: Turn, _message: &Message, _story: &Story) -> Result<Option<String>, Outcome> {
        let event = match turn {
            Turn::Close if self.keep_open => return Ok(Some("left to people".to_owned())),
            Turn::Close => "close",
            Turn::Reopen => "reopen",
        };
        let answer = round.ask(Method::PUT, &self.at(&["issues", &ticket.key]), self.headers.clone(), Some(&json!({"state_event": event}))).await?;
        if answer.is_success() { Ok(None) } else { Err(answer.judge()) }
    }
}

impl GitLab {
    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        url
    }
}

fn ticket(issue: &Value) -> Option<Ticket> {
    let number = issue["iid"].as_u64()?;
    Some(Ticket { key: number.to_string(), name: format!("#{number}"), url: issue["web_url"].as_str().map(str::to_owned), ..Ticket::default() })
}

fn label(incident: &str) -> String {
    format!("bellwether::{incident}")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, table};
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words() {
        for project in ["name", "a//b", "a/../b", "a b/c"] {
            let Err(problems) = build("x", &common(), &table(&[("project", project.into()), ("token", "t".into())])) else { panic!("{project}") };
            assert!(problems[0].1.contains("neither a number nor a path"), "{problems:?}");
        }
        let t = table(&[("project", "42".into()), ("token", "t".into()), ("issue_type", "bug".into())]);
        let Err(problems) = build("x", &common(), &t) else { panic!("built") };
        assert_eq!(problems.len(), 1);
        assert!(problems[0].1.contains("known: incident, issue, task"));
    }
}
