//! Jira, Cloud (REST version 3) and Data Center (version 2): one issue per incident, found again by its label.
//!
//! The two differ in how they are asked (`search/jql` and `search`), in who is asked (an account with its token, a token alone)
//! and in how text is written: Cloud wants a document tree in which text is inert by itself, Data Center takes wiki markup.
//! Which one it is, is told by the host; `api` says otherwise.
//!
//! Jira's search on Cloud lags seconds behind, therefore a lost answer is followed by a pause before anything is asked.

use async_trait::async_trait;
use base64::Engine;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::http::{self, Answer, Client, Round};
use super::story::Story;
use super::tickets::{self, Said, Ticket, Tracker, Turn};
use super::{CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Table, cut};
use crate::domain::Time;
use crate::domain::delivery::{Message, Outcome, Receipt};

pub const KIND: Kind = Kind {
    name: "jira",
    about: "Jira, Cloud or Data Center: one issue per incident; news are comments, the end is a transition",
    knobs: &[
        Knob { name: "url", about: "the site: https://example.atlassian.net, or a Data Center's base url", form: Form::Url, required: true },
        Knob { name: "project", about: "the project's key, such as ML", form: Form::Text, required: true },
        Knob { name: "token", about: "API token of the account (Cloud), or personal access token (Data Center)", form: Form::Secret, required: true },
        Knob { name: "email", about: "the account that the token belongs to; left out for bearer tokens", form: Form::Text, required: false },
        Knob { name: "issue_type", about: "name of the issue type; Task if left out", form: Form::Text, required: false },
        Knob { name: "priorities", about: "severity (1, 2, 3) to the name of a priority; none is set if left out", form: Form::Map, required: false },
        Knob { name: "labels", about: "further labels, separated by commas", form: Form::Text, required: false },
        Knob { name: "fields", about: "further fields by their id; a value that is JSON is sent as JSON", form: Form::Map, required: false },
        Knob {
            name: "resolve_transition",
            about: "name of the transition at the end, such as Done; left out: people close issues by hand",
            form: Form::Text,
            required: false,
        },
        Knob { name: "reopen_transition", about: "name of the transition when an incident is back", form: Form::Text, required: false },
        Knob { name: "resolution", about: "name of the resolution that the transition at the end wants", form: Form::Text, required: false },
        Knob { name: "api", about: "3 (Cloud) or 2 (Data Center); told by the host if left out", form: Form::Text, required: false },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

const SUMMARY_CHARS_MAX: usize = 255;
const DESCRIPTION_CHARS_MAX: usize = 30_000;
/// Comments that are looked through, newest first.
const COMMENTS_MAX: usize = 50;

struct Jira {
    /// `…/rest/api/3`
    base: Url,
    is_cloud: bool,
    site: String,
    project: String,
    issue_type: String,
    priorities: Map<String, Value>,
    labels: Vec<String>,
    fields: Map<String, Value>,
    resolve_transition: Option<String>,
    reopen_transition: Option<String>,
    resolution: Option<String>,
    headers: HeaderMap,
    common: Common,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let url = r.required_url("url");
    let host = url.as_ref().and_then(|u| u.host_str()).unwrap_or_default().to_owned();
    let is_cloud = match r.text("api").as_deref() {
        None => host.ends_with(".atlassian.net") || host == "api.atlassian.com",
        Some("3") => true,
        Some("2") => false,
        Some(other) => {
            r.problem("api", format!("unknown api {other:?} (known: 2, 3)"));
            false
        }
    };
    let project = r.text("project");
    let project = r.required("project", project).unwrap_or_default();
    let is_key =
        project.starts_with(|c: char| c.is_ascii_uppercase()) && project.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    if !project.is_empty() && !is_key {
        r.problem("project", format!("project {project:?} is no key of capital letters, digits and underscores, such as ML"));
    }
    let email = r.text("email");
    let token = r.secret("token");
    let token = r.required("token", token);
    if is_cloud && email.is_none() && host.ends_with(".atlassian.net") {
        r.problem("email", "email is required with a site of Jira Cloud: the account that the token belongs to");
    }
    let mut secrets: Vec<SecretString> = token.iter().cloned().collect();
    let mut headers = http::json_headers();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(token) = &token {
        let text = match &email {
            Some(email) => {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{email}:{}", token.expose_secret()));
                secrets.push(pair.clone().into());
                format!("Basic {pair}")
            }
            None => format!("Bearer {}", token.expose_secret()),
        };
        if let Some(value) = r.credential("token", &text) {
            headers.insert(AUTHORIZATION, value);
        }
    }
    let priorities: Map<String, Value> = r.map("priorities").into_iter().map(|(k, v)| (k, v.into())).collect();
    for level in priorities.keys().filter(|k| !["1", "2", "3"].contains(&k.as_str())) {
        r.problem(&format!("priorities.{level}"), format!("unknown severity {level:?} (known: 1, 2, 3)"));
    }
    let labels = r.list("labels");
    for label in labels.iter().filter(|l| l.contains(char::is_whitespace)) {
        r.problem("labels", format!("label {label:?} holds a space, which Jira does not take"));
    }
    let fields = r.map("fields").into_iter().map(|(k, v)| (k, serde_json::from_str(&v).unwrap_or(Value::String(v)))).collect();
    let (resolve_transition, reopen_transition, resolution) = (r.text("resolve_transition"), r.text("reopen_transition"), r.text("resolution"));
    let issue_type = r.text("issue_type").unwrap_or_else(|| "Task".to_owned());
    match (url, r.client(common, secrets)) {
        (Some(url), Some(client)) if r.problems.is_empty() => {
            let site = url.as_str().trim_end_matches('/').to_owned();
            let base = format!("{site}/rest/api/{}", if is_cloud { 3 } else { 2 });
            let base = Url::parse(&base).map_err(|e| vec![("url".to_owned(), format!("url is not a base: {e}"))])?;
            let jira = Jira {
                base,
                is_cloud,
                site,
                project,
                issue_type,
                priorities,
                labels,
                fields,
                resolve_transition,
                reopen_transition,
                resolution,
                headers,
                common: common.clone(),
                client,
            };
            Ok(Receiver::Messages(Box::new(jira)))
        }
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for Jira {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        tickets::deliver(self, &self.client.round(now), errand, &self.common).await
    }

    /// Asks who we are and whether the project is there. An issue that somebody must delete is no test.
    async fn test(&self, now: Time) -> Outcome {
        let round = self.client.round(now);
        match round.read(&self.at(&["project", &self.project]), self.headers.clone()).await {
            Ok(project) if project["key"] == self.project.as_str() => {
                let types = project["issueTypes"].as_array().into_iter().flatten().filter_map(|t| t["name"].as_str()).collect::<Vec<_>>();
                if types.is_empty() || types.contains(&self.issue_type.as_str()) {
                    let detail = format!("project {} is there and takes {}; nothing was made", self.project, self.issue_type);
                    return Outcome::Accepted { status: 200, detail };
                }
                let detail = format!("project {} has no issue type {:?} (known: {})", self.project, self.issue_type, types.join(", "));
                Outcome::Refused { status: Some(200), detail }
            }
            Ok(_) => Outcome::Refused { status: Some(200), detail: format!("this is not project {} of a Jira", self.project) },
            Err(outcome) => outcome,
        }
    }

    fn manner(&self) -> Manner {
        Manner::TICKETS
    }
}

#[async_trait]
impl Tracker for Jira {
    async fn find(&self, round: &Round<'_>, incident: &str) -> Result<Option<Ticket>, Outcome> {
        let jql = format!("project = \"{}\" AND labels = \"{}\" ORDER BY created ASC", self.project, label(incident));
        let question = json!({"jql": jql, "fields": ["status", "labels"], "maxResults": 1});
        let path: &[&str] = if self.is_cloud { &["search", "jql"] } else { &["search"] };
        let found = round.read_by(Method::POST, &self.at(path), self.headers.clone(), Some(&question)).await?;
        let Some(issues) = found["issues"].as_array() else {
            let detail = "asking: the answer to a search lists no issues".to_owned();
            return Err(Outcome::Retry { status: Some(200), detail, after_ms: None });
        };
        Ok(issues.first().and_then(|i| i["key"].as_str()).map(|key| self.ticket(key)))
    }

    async fn create(&self, round: &Round<'_>, message: &Message, story: &Story) -> Result<Ticket, Outcome> {
        let incident = &message.incident;
        let mut labels = vec!["bellwether".to_owned(), label(&incident.id)];
        labels.extend(self.labels.iter().cloned());
        let mut fields = self.fields.clone();
        fields.insert("project".to_owned(), json!({"key": self.project}));
        fields.insert("issuetype".to_owned(), json!({"name": self.issue_type}));
        fields.insert("summary".to_owned(), json!(cut(&story.title, SUMMARY_CHARS_MAX)));
        fields.insert("description".to_owned(), self.text(story));
        fields.insert("labels".to_owned(), json!(labels));
        if let Some(name) = self.priorities.get(&incident.severity.level().to_string()) {
            fields.insert("priority".to_owned(), json!({"name": name}));
        }
        let answer = round.ask(Method::POST, &self.at(&["issue"]), self.headers.clone(), Some(&json!({"fields": fields}))).await?;
        if !answer.is_success() {
            return Err(judge(&answer));
        }
        let Some(key) = answer.document().and_then(|d| d["key"].as_str().map(str::to_owned)) else { return Err(answer.unreadable()) };
        let mut ticket = self.ticket(&key);
        if let Some(url) = &story.url {
            // Beside the point of the ticket: upserted by its id, and not worth failing for.
            let link =
                json!({"globalId": format!("bellwether={}", incident.id), "object": {"url": url, "title": format!("Bellwether {}", incident.id)}});
            match round.ask(Method::POST, &self.at(&["issue", &key, "remotelink"]), self.headers.clone(), Some(&link)).await {
                Ok(answer) if answer.is_success() => {}
                Ok(answer) => ticket.remark = Some(format!("without its link: {}", answer.detail())),
                Err(failure) => ticket.remark = Some(format!("without its link: {failure}")),
            }
        }
        Ok(ticket)
    }

    async fn has_said(&self, round: &Round<'_>, ticket: &Ticket, mark: &str) -> Result<Said, Outcome> {
        let mut url = self.at(&["issue", &ticket.key, "comment"]);
        url.query_pairs_mut().append_pair("orderBy", "-created").append_pair("maxResults", &COMMENTS_MAX.to_string());
        let found = round.read(&url, self.headers.clone()).await?;
        let comments = found["comments"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(if comments.iter().any(|c| c["body"].to_string().contains(mark)) { Said::Yes } else { Said::No })
    }

    async fn say(&self, round: &Round<'_>, ticket: &Ticket, _message: &Message, story: &Story) -> Result<(), Outcome> {
        let body = json!({"body": self.text(story)});
        let answer = round.ask(Method::POST, &self.at(&["issue", &ticket.key, "comment"]), self.headers.clone(), Some(&body)).await?;
        if !answer.is_success() {
            return Err(judge(&answer));
        }
        match answer.document() {
            Some(comment) if comment["id"].is_string() => Ok(()),
            Some(_) | None => Err(answer.unreadable()),
        }
    }

    async fn turn(&self, round: &Round<'_>, ticket: &Ticket, turn: Turn, _message: &Message, _story: &Story) -> Result<Option<String>, Outcome> {
        let name = match turn {
            Turn::Close => &self.resolve_transition,
            Turn::Reopen => &self.reopen_transition,
        };
        let Some(name) = name else { return Ok(Some("left to people".to_owned())) };
        let url = self.at(&["issue", &ticket.key, "transitions"]);
        let found = round.read(&url, self.headers.clone()).await?;
        let all = found["transitions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let named = |t: &&Value| [&t["name"], &t["to"]["name"]].iter().any(|n| n.as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        let Some(id) = all.iter().find(named).and_then(|t| t["id"].as_str()) else {
            // Somebody has moved it by hand, most likely there already.
            let known = all.iter().filter_map(|t| t["name"].as_str()).collect::<Vec<_>>().join(", ");
            return Ok(Some(format!("left in its state, from which no transition {name:?} leads (there are: {known})")));
        };
        let mut body = json!({"transition": {"id": id}});
        if let (Turn::Close, Some(resolution)) = (turn, &self.resolution) {
            body["fields"] = json!({"resolution": {"name": resolution}});
        }
        let answer = round.ask(Method::POST, &url, self.headers.clone(), Some(&body)).await?;
        match answer.status {
            204 => Ok(None),
            _ if answer.is_success() => Err(answer.unreadable()),
            _ => Err(judge(&answer)),
        }
    }
}

impl Jira {
    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        url
    }

    fn ticket(&self, key: &str) -> Ticket {
        Ticket { key: key.to_owned(), name: key.to_owned(), url: Some(format!("{}/browse/{key}", self.site)), ..Ticket::default() }
    }

    fn text(&self, story: &Story) -> Value {
        if self.is_cloud { document(story) } else { Value::String(cut(&wiki(story), DESCRIPTION_CHARS_MAX)) }
    }
}

fn label(incident: &str) -> String {
    format!("bellwether-{incident}")
}

/// The vendor's table: what is wrong with which field is the user's to know.
fn judge(answer: &Answer) -> Outcome {
    match answer.judge() {
        Outcome::Refused { status, detail } => {
            let doc = answer.document().unwrap_or_default();
            let fields = doc["errors"].as_object().into_iter().flatten().filter_map(|(k, v)| Some(format!("{k}: {}", v.as_str()?)));
            let all = doc["errorMessages"].as_array().into_iter().flatten().filter_map(|m| m.as_str().map(str::to_owned)).chain(fields);
            let words = all.collect::<Vec<_>>().join("; ");
            let detail = if words.is_empty() { detail } else { format!("answered {}: {}", answer.status, super::story::line(&words, 300)) };
            Outcome::Refused { status, detail }
        }
        Outcome::Retry { status, detail, after_ms } => Outcome::Retry { status, detail, after_ms },
        other => other,
    }
}

/// Atlassian's document format; text in it is text. Empty text nodes are refused.
fn document(story: &Story) -> Value {
    let text = |t: &str| json!({"type": "text", "text": t});
    let strong = |t: &str| json!({"type": "text", "text": t, "marks": [{"type": "strong"}]});
    let paragraph = |content: Vec<Value>| json!({"type": "paragraph", "content": content});
    let items: Vec<Value> = story
        .facts
        .iter()
        .map(|(name, fact)| json!({"type": "listItem", "content": [paragraph(vec![strong(&format!("{name}: ")), text(fact)])]}))
        .collect();
    let mut content = vec![paragraph(vec![text(&story.news)])];
    if !items.is_empty() {
        content.push(json!({"type": "bulletList", "content": items}));
    }
    if let Some(url) = &story.url {
        content.push(paragraph(vec![json!({"type": "text", "text": "Evidence", "marks": [{"type": "link", "attrs": {"href": url}}]})]));
    }
    json!({"type": "doc", "version": 1, "content": content})
}

/// Wiki markup, in which what comes from outside has none.
fn wiki(story: &Story) -> String {
    let inert = |text: &str| -> String {
        let mut out = String::new();
        for c in text.chars() {
            if matches!(c, '{' | '}' | '[' | ']' | '|' | '*' | '_' | '^' | '~' | '!' | '\\' | '@') {
                out.push('\\');
            }
            out.push(c);
        }
        out.replace("://", ":\u{2060}//")
    };
    let mut out = format!("{}\n\n", inert(&story.news));
    for (name, fact) in &story.facts {
        out.push_str(&format!("* *{name}*: {}\n", inert(fact)));
    }
    if let Some(url) = &story.url {
        out.push_str(&format!("\n[Evidence|{url}]\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, message, table};
    use super::*;
    use crate::domain::delivery::Notice;

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let t = table(&[
            ("url", "https://x.atlassian.net".into()),
            ("project", "ml".into()),
            ("token", "t".into()),
            ("labels", "two words".into()),
            ("api", "4".into()),
            ("priorities", json!({"4": "Low"})),
        ]);
        let Err(problems) = build("x", &common(), &t) else { panic!("built") };
        let keys: Vec<_> = problems.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(keys, ["api", "project", "priorities.4", "labels"]);
        let t = table(&[("url", "https://x.atlassian.net".into()), ("project", "ML".into()), ("token", "t".into())]);
        let Err(problems) = build("x", &common(), &t) else { panic!("built") };
        assert!(problems[0].1.contains("email is required"), "{problems:?}");
    }

    #[test]
    fn a_document_holds_no_empty_text_and_markup_is_inert() {
        let mut m = message(Notice::Opened);
        m.incident.versions = vec!["[~admin] {code}x{code} !http://evil/x.png!".into()];
        let story = Story::of(&m, &common(), false);
        let doc = document(&story).to_string();
        assert!(!doc.contains(r#""text":"""#), "{doc}");
        assert!(doc.contains(&tickets::mark(&m)) && wiki(&story).contains(&tickets::mark(&m)), "a comment is found by it");
        let text = wiki(&story);
        assert!(text.contains(r"\[\~admin\] \{code\}") && !text.contains("http://evil"), "{text}");
    }
}
