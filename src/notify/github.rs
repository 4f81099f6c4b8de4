//! GitHub issues: one issue per incident, found again by its label.
//!
//! The list of issues by label is consistent at once, the search is not and is slow; so the label is the key, and a hidden comment
//! in the body says the same for people who sweep labels. Evidence in a public repository is published, therefore such
//! a repository is refused unless somebody wrote that it is meant.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::http::{self, Answer, Client, RETRY_AFTER_MS_MAX, RETRY_AFTER_MS_MIN, Round};
use super::story::Story;
use super::tickets::{self, Said, Ticket, Tracker, Turn};
use super::{CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Table, cut};
use crate::domain::Time;
use crate::domain::delivery::{Message, Notice, Outcome, Receipt};

pub const KIND: Kind = Kind {
    name: "github",
    about: "GitHub issues: one issue per incident; news are comments, the end closes it",
    knobs: &[
        Knob { name: "repository", about: "owner/name", form: Form::Text, required: true },
        Knob { name: "token", about: "fine-grained token with Issues: write", form: Form::Secret, required: true },
        Knob { name: "labels", about: "further labels, separated by commas", form: Form::Text, required: false },
        Knob { name: "assignees", about: "logins, separated by commas", form: Form::Text, required: false },
        Knob { name: "allow_public", about: "the repository may be public: everybody reads the evidence then", form: Form::Bool, required: false },
        Knob { name: "keep_open", about: "people close issues by hand", form: Form::Bool, required: false },
        Knob {
            name: "url",
            about: "https://api.github.com if left out; https://<host>/api/v3 for Enterprise Server",
            form: Form::Url,
            required: false,
        },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

const URL_DEFAULT: &str = "https://api.github.com";
const TITLE_CHARS_MAX: usize = 256;
const BODY_CHARS_MAX: usize = 60_000;
const COMMENTS_MAX: usize = 100;
/// Contents that may be made in a minute are about 80.
const PER_MINUTE_MAX: u32 = 60;

struct GitHub {
    /// `…/repos/<owner>/<name>`
    base: Url,
    repository: String,
    labels: Vec<String>,
    assignees: Vec<String>,
    allow_public: bool,
    /// It was asked and may be written to.
    is_checked: AtomicBool,
    keep_open: bool,
    headers: HeaderMap,
    common: Common,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let url = r.url_or("url", URL_DEFAULT);
    let repository = r.text("repository");
    let repository = r.required("repository", repository).unwrap_or_default();
    let is_name = |w: &str| !w.is_empty() && w != "." && w != ".." && w.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let parts: Vec<&str> = repository.split('/').collect();
    if !repository.is_empty() && (parts.len() != 2 || !parts.iter().all(|w| is_name(w))) {
        r.problem("repository", format!("repository {repository:?} is not owner/name"));
    }
    let token = r.secret("token");
    let token = r.required("token", token);
    let mut headers = http::json_headers();
    headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
    headers.insert(HeaderName::from_static("x-github-api-version"), HeaderValue::from_static("2022-11-28"));
    if let Some(value) = token.as_ref().and_then(|t| r.credential("token", &format!("Bearer {}", t.expose_secret()))) {
        headers.insert(AUTHORIZATION, value);
    }
    let (labels, assignees) = (r.list("labels"), r.list("assignees"));
    for label in labels.iter().filter(|l| l.chars().count() > 50) {
        r.problem("labels", format!("label {label:?} is longer than 50 characters"));
    }
    let (allow_public, keep_open) = (r.bool("allow_public"), r.bool("keep_open"));
    match (url, r.client(common, token.iter().cloned().collect())) {
        (Some(mut base), Some(client)) if r.problems.is_empty() => {
            if let Ok(mut segments) = base.path_segments_mut() {
                segments.pop_if_empty().push("repos").extend(parts);
            }
            let is_checked = AtomicBool::new(allow_public);
            let github = GitHub {
                base,
                repository: repository.clone(),
                labels,
                assignees,
                allow_public,
                is_checked,
                keep_open,
                headers,
                common: common.clone(),
                client,
            };
            Ok(Receiver::Messages(Box::new(github)))
        }
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for GitHub {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        let round = self.client.round(now);
        if let Err(outcome) = self.check(&round).await {
            return outcome.into();
        }
        tickets::deliver(self, &round, errand, &self.common).await
    }

    /// Asks whether the repository is there and may be written to. An issue cannot be deleted, so none is made.
    async fn test(&self, now: Time) -> Outcome {
        let round = self.client.round(now);
        let doc = match self.read(&round, &self.base).await {
            Ok(doc) => doc,
            Err(outcome) => return outcome,
        };
        if let Err(outcome) = self.may_be_written(&doc) {
            return outcome;
        }
        if doc["has_issues"] == false {
            return Outcome::Refused { status: Some(200), detail: format!("{} has no issues", self.repository) };
        }
        Outcome::Accepted { status: 200, detail: format!("{} is there and takes issues; nothing was made", self.repository) }
    }

    fn manner(&self) -> Manner {
        Manner { per_minute_max: Some(PER_MINUTE_MAX), look_after_ms: 2_000, ..Manner::TICKETS }
    }
}

#[async_trait]
impl Tracker for GitHub {
    async fn find(&self, round: &Round<'_>, incident: &str) -> Result<Option<Ticket>, Outcome> {
        let mut url = self.at(&["issues"]);
        url.query_pairs_mut().append_pair("labels", &label(incident)).append_pair("state", "all").append_pair("per_page", "10");
        let found = self.read(round, &url).await?;
        let Some(issues) = found.as_array() else { return Err(no_list()) };
        // Pull requests are issues there; and a label may have been put on another one by hand.
        let hidden = hidden(incident);
        Ok(issues.iter().find(|i| i["pull_request"].is_null() && i["body"].as_str().is_some_and(|b| b.contains(&hidden))).and_then(ticket))
    }

    async fn create(&self, round: &Round<'_>, message: &Message, story: &Story) -> Result<Ticket, Outcome> {
        let id = &message.incident.id;
        let mut labels = vec!["bellwether".to_owned(), label(id)];
        labels.extend(self.labels.iter().cloned());
        let mut new = json!({
            "title": cut(&story.headline, TITLE_CHARS_MAX),
            "body": format!("{}\n{}\n", cut(&story.markdown(), BODY_CHARS_MAX), hidden(id)),
            "labels": labels,
        });
        if !self.assignees.is_empty() {
            new["assignees"] = json!(self.assignees);
        }
        let answer = round.ask(Method::POST, &self.at(&["issues"]), self.headers.clone(), Some(&new)).await?;
        if !answer.is_success() {
            return Err(judge(&answer));
        }
        let doc = answer.document().unwrap_or_default();
        let Some(mut made) = ticket(&doc) else { return Err(answer.unreadable()) };
        let is_labelled = doc["labels"].as_array().is_some_and(|all| all.iter().any(|l| l["name"] == label(id) || *l == label(id)));
        if !is_labelled {
            made.remark = Some("its label was not taken, so that it cannot be found again if this answer had been lost".to_owned());
        }
        Ok(made)
    }

    async fn has_said(&self, round: &Round<'_>, ticket: &Ticket, mark: &str) -> Result<Said, Outcome> {
        let mut url = self.at(&["issues", &ticket.key, "comments"]);
        url.query_pairs_mut().append_pair("per_page", &COMMENTS_MAX.to_string());
        let found = self.read(round, &url).await?;
        let Some(comments) = found.as_array() else { return Err(no_list()) };
        if comments.iter().any(|c| c["body"].as_str().is_some_and(|b| b.contains(mark))) {
            return Ok(Said::Yes);
        }
        // Oldest come first, and there may be another page.
        Ok(if comments.len() < COMMENTS_MAX { Said::No } else { Said::Unknown })
    }

    async fn say(&self, round: &Round<'_>, ticket: &Ticket, message: &Message, story: &Story) -> Result<(), Outcome> {
        let body = json!({"body": format!("{}\n<!-- {} -->\n", cut(&story.markdown(), BODY_CHARS_MAX), tickets::mark(message))});
        let answer = round.ask(Method::POST, &self.at(&["issues", &ticket.key, "comments"]), self.headers.clone(), Some(&body)).await?;
        if !answer.is_success() {
            return Err(judge(&answer));
        }
        if answer.document().is_some_and(|d| d["id"].is_number()) { Ok(()) } else { Err(answer.unreadable()) }
    }

    async fn turn(&self, round: &Round<'_>, ticket: &Ticket, turn: Turn, message: &Message, _story: &Story) -> Result<Option<String>, Outcome> {
        let change = match turn {
            Turn::Close if self.keep_open => return Ok(Some("left to people".to_owned())),
            Turn::Close if message.notice == Notice::Resolved => json!({"state": "closed", "state_reason": "completed"}),
            Turn::Close => json!({"state": "closed", "state_reason": "not_planned"}),
            Turn::Reopen => json!({"state": "open", "state_reason": "reopened"}),
        };
        let answer = round.ask(Method::PATCH, &self.at(&["issues", &ticket.key]), self.headers.clone(), Some(&change)).await?;
        if answer.is_success() { Ok(None) } else { Err(judge(&answer)) }
    }
}

impl GitHub {
    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        url
    }

    /// A question; limits of the rate are told in this vendor's own way.
    async fn read(&self, round: &Round<'_>, url: &Url) -> Result<Value, Outcome> {
        match round.ask(Method::GET, url, self.headers.clone(), None).await {
            Ok(answer) if !answer.is_success() => Err(judge(&answer)),
            Ok(answer) => answer.document().ok_or_else(|| Outcome::Retry {
                status: Some(answer.status),
                detail: format!("asking: {}, which is no answer", answer.detail()),
                after_ms: None,
            }),
            Err(http::Failure::Lost(words)) => Err(Outcome::Retry { status: None, detail: format!("asking: no answer: {words}"), after_ms: None }),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn check(&self, round: &Round<'_>) -> Result<(), Outcome> {
        if self.is_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let doc = self.read(round, &self.base).await?;
        self.may_be_written(&doc)?;
        self.is_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn may_be_written(&self, doc: &Value) -> Result<(), Outcome> {
        match doc["private"].as_bool() {
            _ if self.allow_public => Ok(()),
            Some(true) => Ok(()),
            Some(false) => {
                let detail = format!("{} is public and everybody would read the evidence; set allow_public if that is meant", self.repository);
                Err(Outcome::Refused { status: None, detail })
            }
            None => {
                let detail = "asking: the answer does not say whether the repository is private".to_owned();
                Err(Outcome::Retry { status: Some(200), detail, after_ms: None })
            }
        }
    }
}

fn no_list() -> Outcome {
    Outcome::Retry { status: Some(200), detail: "asking: the answer is no list".to_owned(), after_ms: None }
}

fn ticket(issue: &Value) -> Option<Ticket> {
    let number = issue["number"].as_u64()?;
    let url = issue["html_url"].as_str().map(str::to_owned);
    Some(Ticket { key: number.to_string(), name: format!("#{number}"), url, ..Ticket::default() })
}

fn label(incident: &str) -> String {
    format!("bellwether:{incident}")
}

fn hidden(incident: &str) -> String {
    format!("<!-- bellwether:{incident} -->")
}

/// The vendor's table: a 403 that speaks of limits is no refusal.
fn judge(answer: &Answer) -> Outcome {
    let is_spent = answer.header("x-ratelimit-remaining").is_some_and(|r| r.trim() == "0");
    if answer.status == 403 && (is_spent || answer.retry_after_ms.is_some()) || answer.status == 429 {
        let after_ms = answer.retry_after_ms.or_else(|| answer.until_reset_ms("x-ratelimit-reset"));
        let after_ms = after_ms.map(|ms| ms.clamp(RETRY_AFTER_MS_MIN, RETRY_AFTER_MS_MAX));
        // To everybody else this is a 429.
        return Outcome::Retry { status: Some(429), detail: answer.detail(), after_ms };
    }
    match (answer.judge(), answer.document()) {
        (Outcome::Refused { status, .. }, Some(doc)) if doc["message"].is_string() => {
            let errors = doc["errors"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|e| format!("{} {}", e["field"].as_str().unwrap_or_default(), e["code"].as_str().unwrap_or_default()));
            let words = std::iter::once(doc["message"].as_str().unwrap_or_default().to_owned()).chain(errors).collect::<Vec<_>>().join("; ");
            Outcome::Refused { status, detail: format!("answered {}: {}", answer.status, super::story::line(&words, 300)) }
        }
        (outcome, _) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, table};
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words() {
        for repository in ["name", "a/b/c", "a/..", "a b/c", "/", "https://github.com/a/b"] {
            let Err(problems) = build("x", &common(), &table(&[("repository", repository.into()), ("token", "t".into())])) else {
                panic!("{repository}")
            };
            assert!(problems[0].1.contains("is not owner/name"), "{problems:?}");
        }
    }

    #[test]
    fn a_spent_limit_is_no_refusal() {
        let mut headers = HeaderMap::new();
        let answer =
            |headers: &HeaderMap| Answer { status: 403, headers: headers.clone(), is_whole: true, now: Time(1_795_166_080_000), ..Answer::default() };
        assert_eq!(judge(&answer(&headers)).as_str(), "refused");
        headers.insert("x-ratelimit-remaining", HeaderValue::from_static("0"));
        headers.insert("x-ratelimit-reset", HeaderValue::from_static("1795166110"));
        match judge(&answer(&headers)) {
            Outcome::Retry { after_ms, .. } => assert_eq!(after_ms, Some(30_000)),
            other => panic!("{other:?}"),
        }
    }
}
