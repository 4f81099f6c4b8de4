//! Slack: one message per incident, brought up to date in place, with what happened in its thread.
//!
//! With a bot's token (Web API) the message is found again by its time stamp, which is the reference. An answer of 200 says
//! nothing there: `ok` in its body does. Slack has no idempotency key; after a lost answer the channel's past is searched for the
//! incident if the token may read it (`history`), and otherwise the message comes again and says that it may be a repeat.
//!
//! With an incoming webhook nothing can be found again: every news is a message of its own.

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::http::{self, Answer, Client, Round};
use super::story::Story;
use super::tickets::mark;
use super::{CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Repeat, Table, cut};
use crate::domain::Time;
use crate::domain::delivery::{Message, Notice, Outcome, Receipt};

pub const KIND: Kind = Kind {
    name: "slack",
    about: "Slack: one message per incident, updated in place, its news in the thread; or an incoming webhook",
    knobs: &[
        Knob { name: "token", about: "the bot's token, xoxb-..., with scope chat:write", form: Form::Secret, required: false },
        Knob { name: "channel", about: "the channel's id, such as C0123456789, or its name", form: Form::Text, required: false },
        Knob {
            name: "history",
            about: "the token may read the channel (channels:history): a message whose answer was lost is looked for, not repeated",
            form: Form::Bool,
            required: false,
        },
        Knob { name: "webhook_url", about: "an incoming webhook in place of token and channel; cannot update", form: Form::Secret, required: false },
        Knob { name: "url", about: "the Web API; https://slack.com/api if left out", form: Form::Url, required: false },
        CA,
        PROXY_FROM_ENV,
        PUBLIC_ONLY,
    ],
    build,
};

const URL_DEFAULT: &str = "https://slack.com/api";
const HEADER_CHARS_MAX: usize = 150;
const TEXT_CHARS_MAX: usize = 3_000;
const FIELD_CHARS_MAX: usize = 600;
const FIELDS_MAX: usize = 10;
/// Messages of a channel that are looked through.
const HISTORY_MAX: usize = 100;
/// About one a second is what a channel takes.
const PER_MINUTE_MAX: u32 = 50;
/// Errors after which the same message may pass later.
const PASSING: &[&str] =
    &["ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"];
/// The message is there no longer, or may not be changed any more: a new one takes its place.
const GONE: &[&str] = &["message_not_found", "cant_update_message", "edit_window_closed", "thread_not_found"];

struct Slack {
    way: Way,
    common: Common,
    client: Client,
}

enum Way {
    Bot { base: Url, headers: HeaderMap, channel: String, reads_history: bool },
    Webhook(Url),
}

/// Where the incident's message is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Post {
    channel: String,
    ts: String,
    /// The newest revision that the thread has been told.
    told: u64,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let base = r.url_or("url", URL_DEFAULT);
    let (token, channel, hook) = (r.secret("token"), r.text("channel"), r.secret("webhook_url"));
    let reads_history = r.bool("history");
    let mut secrets: Vec<SecretString> = token.iter().chain(&hook).cloned().collect();
    // An answer may repeat its path, or the last word of it.
    secrets.extend(hook.iter().flat_map(|h| h.expose_secret().split('/').skip(3)).map(|word| word.to_owned().into()));
    let way = match (&token, channel, &hook) {
        (Some(token), Some(channel), None) => {
            let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))]);
            if let Some(value) = r.credential("token", &format!("Bearer {}", token.expose_secret())) {
                headers.insert(AUTHORIZATION, value);
            }
            if token.expose_secret().starts_with("xoxp-") || token.expose_secret().starts_with("xapp-") {
                r.problem("token", "token is not a bot's, which begins with xoxb-");
            }
            let is_id = channel.starts_with(['C', 'G', 'D']) && channel.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
            if reads_history && !is_id {
                r.problem("channel", "channel is not an id such as C0123456789, which history needs");
            }
            base.map(|base| Way::Bot { base, headers, channel, reads_history })
        }
        (None, None, Some(hook)) => {
            if reads_history {
                r.problem("history", "history needs token and channel: a webhook cannot read");
            }
            // Not by the name of its parts, which are the secret.
            let url = r.url("webhook_url", hook.expose_secret());
            url.map(Way::Webhook)
        }
        (Some(_), None, None) => {
            r.problem("channel", "channel is required with token");
            None
        }
        (None, Some(_), None) => {
            r.problem("token", "token is required with channel");
            None
        }
        (_, _, Some(_)) => {
            r.problem("webhook_url", "give token and channel, or webhook_url, not both");
            None
        }
        (None, None, None) => {
            if r.problems.is_empty() {
                r.problem("token", "give token and channel, or webhook_url");
            }
            None
        }
    };
    match (way, r.client(common, secrets)) {
        (Some(way), Some(client)) if r.problems.is_empty() => Ok(Receiver::Messages(Box::new(Slack { way, common: common.clone(), client }))),
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for Slack {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        let round = self.client.round(now);
        match &self.way {
            Way::Webhook(url) => {
                let story = Story::of(&errand.delivery.message, &self.common, errand.may_have_arrived);
                self.hook(&round, url, &body(&story)).await.into()
            }
            Way::Bot { .. } => {
                let mut post = errand.reference.and_then(|r| serde_json::from_str::<Post>(r).ok());
                let outcome = match self.steps(&round, errand, &mut post).await {
                    Ok(detail) => Outcome::Accepted { status: 200, detail },
                    Err(outcome) => outcome,
                };
                Receipt { outcome, reference: post.and_then(|p| serde_json::to_string(&p).ok()) }
            }
        }
    }

    async fn test(&self, now: Time) -> Outcome {
        let round = self.client.round(now);
        let text = format!("Bellwether test message from {}: nothing is wrong", self.common.instance);
        match &self.way {
            Way::Webhook(url) => self.hook(&round, url, &json!({"text": escape(&text)})).await,
            Way::Bot { channel, .. } => match self.call(&round, "chat.postMessage", &json!({"channel": channel, "text": escape(&text)})).await {
                Ok(doc) => Outcome::Accepted { status: 200, detail: format!("posted to {}", doc["channel"].as_str().unwrap_or(channel)) },
                Err(refusal) => refusal.outcome,
            },
        }
    }

    fn manner(&self) -> Manner {
        let repeat = match &self.way {
            Way::Bot { reads_history: true, .. } => Repeat::Looked,
            Way::Bot { .. } | Way::Webhook(_) => Repeat::Marked,
        };
        Manner { repeat, per_minute_max: Some(PER_MINUTE_MAX), ..Manner::VENDOR }
    }
}

/// What came of a call that did not say `ok`.
struct Refusal {
    outcome: Outcome,
    error: String,
}

impl From<Outcome> for Refusal {
    fn from(outcome: Outcome) -> Refusal {
        Refusal { outcome, error: String::new() }
    }
}

impl Slack {
    /// `post` holds what is known, however far it goes.
    async fn steps(&self, round: &Round<'_>, errand: Errand<'_>, post: &mut Option<Post>) -> Result<String, Outcome> {
        let Way::Bot { channel, reads_history, .. } = &self.way else { return Ok(String::new()) };
        let message = &errand.delivery.message;
        let revision = message.incident.revision;
        if post.is_none() && errand.may_have_arrived && *reads_history {
            *post = self.look(round, channel, message).await?;
        }
        if let Some(known) = post {
            let story = Story::of(message, &self.common, false);
            let mut update = body(&story);
            update["channel"] = json!(known.channel);
            update["ts"] = json!(known.ts);
            match self.call(round, "chat.update", &update).await {
                Ok(_) => {
                    let mut said = "updated".to_owned();
                    if known.told < revision && is_worth_a_line(message) {
                        let is_there = errand.may_have_arrived && *reads_history && self.is_in_thread(round, known, &mark(message)).await?;
                        if !is_there {
                            let story = Story::of(message, &self.common, errand.may_have_arrived && !*reads_history);
                            self.call(round, "chat.postMessage", &reply(known, &story, message)).await.map_err(|r| r.outcome)?;
                        }
                        said.push_str(", and its thread told");
                    }
                    known.told = known.told.max(revision);
                    return Ok(said);
                }
                Err(refusal) if GONE.contains(&refusal.error.as_str()) => *post = None,
                Err(refusal) => return Err(refusal.outcome),
            }
        }
        let story = Story::of(message, &self.common, errand.may_have_arrived && !*reads_history);
        let mut new = body(&story);
        new["channel"] = json!(channel);
        new["unfurl_links"] = json!(false);
        new["unfurl_media"] = json!(false);
        let doc = self.call(round, "chat.postMessage", &new).await.map_err(|r| r.outcome)?;
        match (doc["channel"].as_str(), doc["ts"].as_str()) {
            (Some(channel), Some(ts)) => {
                *post = Some(Post { channel: channel.to_owned(), ts: ts.to_owned(), told: revision });
                Ok(format!("posted to {channel}"))
            }
            _ => Err(Outcome::Uncertain { detail: "answered ok without saying where the message is".to_owned() }),
        }
    }

    /// The message of an earlier attempt whose answer was lost.
    async fn look(&self, round: &Round<'_>, channel: &str, message: &Message) -> Result<Option<Post>, Outcome> {
        let seconds = message.incident.opened_at.0.div_euclid(1_000) - 86_400;
        let (limit, oldest) = (HISTORY_MAX.to_string(), seconds.max(0).to_string());
        let question = [("channel", channel), ("limit", &limit), ("oldest", &oldest)];
        let doc = self.ask(round, "conversations.history", &question).await?;
        let found = doc["messages"].as_array().into_iter().flatten().find(|m| {
            let is_ours = m["bot_id"].is_string() && m["thread_ts"].as_str().is_none_or(|t| m["ts"] == t);
            is_ours && m["text"].as_str().is_some_and(|t| t.contains(&message.incident.id))
        });
        Ok(found.and_then(|m| m["ts"].as_str()).map(|ts| Post { channel: channel.to_owned(), ts: ts.to_owned(), told: 0 }))
    }

    async fn is_in_thread(&self, round: &Round<'_>, post: &Post, mark: &str) -> Result<bool, Outcome> {
        let question = [("channel", post.channel.as_str()), ("ts", &post.ts), ("limit", &HISTORY_MAX.to_string())];
        let doc = self.ask(round, "conversations.replies", &question).await?;
        Ok(doc["messages"].as_array().into_iter().flatten().skip(1).any(|m| m["text"].as_str().is_some_and(|t| t.contains(mark))))
    }

    /// One call of the Web API that does something. What says `ok` is answered with its document.
    async fn call(&self, round: &Round<'_>, method: &str, body: &Value) -> Result<Value, Refusal> {
        let (url, headers) = self.at(method)?;
        let answer = round.ask(Method::POST, &url, headers, Some(body)).await.map_err(Outcome::from)?;
        judge(method, &answer)
    }

    /// One call that asks. Where its answer is lost, nothing has happened.
    async fn ask(&self, round: &Round<'_>, method: &str, question: &[(&str, &str)]) -> Result<Value, Outcome> {
        let (mut url, mut headers) = self.at(method)?;
        headers.remove(CONTENT_TYPE);
        url.query_pairs_mut().extend_pairs(question);
        let doc = round.read(&url, headers).await?;
        if doc["ok"] == true {
            return Ok(doc);
        }
        let error = doc["error"].as_str().unwrap_or("no reason given");
        let detail = format!("{method}: {}", super::story::line(error, 200));
        // What was made may be there: this is no refusal of the message.
        Err(Outcome::Retry { status: Some(200), detail, after_ms: None })
    }

    fn at(&self, method: &str) -> Result<(Url, HeaderMap), Outcome> {
        let Way::Bot { base, headers, .. } = &self.way else { return Err(Outcome::Refused { status: None, detail: "no bot".to_owned() }) };
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(method);
        }
        Ok((url, headers.clone()))
    }

    async fn hook(&self, round: &Round<'_>, url: &Url, body: &Value) -> Outcome {
        let answer = match round.ask(Method::POST, url, http::json_headers(), Some(body)).await {
            Ok(answer) => answer,
            Err(failure) => return failure.into(),
        };
        if answer.is_success() && !(answer.is_whole && answer.body.trim_ascii() == b"ok") {
            return answer.unreadable();
        }
        answer.judge()
    }
}

/// The vendor's table: the status decides unless it is a success, then `ok` does.
fn judge(method: &str, answer: &Answer) -> Result<Value, Refusal> {
    if !answer.is_success() {
        return Err(answer.judge().into());
    }
    let Some(doc) = answer.document().filter(|d| d["ok"].is_boolean()) else { return Err(answer.unreadable().into()) };
    if doc["ok"] == true {
        return Ok(doc);
    }
    let error = doc["error"].as_str().unwrap_or("no reason given").to_owned();
    let detail = format!("{method}: {}", super::story::line(&error, 200));
    let outcome = if PASSING.contains(&error.as_str()) {
        Outcome::Retry { status: Some(answer.status), detail, after_ms: answer.retry_after_ms }
    } else {
        Outcome::Refused { status: Some(answer.status), detail }
    };
    Err(Refusal { outcome, error })
}

/// What a person who mutes the channel would still want to read in the thread.
fn is_worth_a_line(message: &Message) -> bool {
    match message.notice {
        // The message itself says that it was opened.
        Notice::Opened | Notice::Updated | Notice::Recovering => false,
        Notice::Acknowledged
        | Notice::Escalated
        | Notice::Mitigated
        | Notice::Resolved
        | Notice::Reopened
        | Notice::Merged
        | Notice::Suppressed
        | Notice::Reminder => true,
    }
}

/// What calls people is shown in the channel as well.
fn reply(post: &Post, story: &Story, message: &Message) -> Value {
    let is_broadcast = matches!(message.notice, Notice::Escalated | Notice::Reopened | Notice::Reminder);
    let text = format!("*{}* {}\n_{}_", escape(&story.headline), escape(&story.news), escape(&mark(message)));
    json!({"channel": post.channel, "thread_ts": post.ts, "reply_broadcast": is_broadcast, "text": text, "unfurl_links": false})
}

/// `text` is what a notification shows, and what the message is found by.
fn body(story: &Story) -> Value {
    let mark = story.facts.last().map(|(_, text)| text.as_str()).unwrap_or_default();
    let fields: Vec<Value> = story
        .facts
        .iter()
        .take(FIELDS_MAX)
        .map(|(name, text)| json!({"type": "mrkdwn", "text": format!("*{name}*\n{}", cut(&escape(text), FIELD_CHARS_MAX))}))
        .collect();
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": cut(&story.headline, HEADER_CHARS_MAX), "emoji": false}}),
        json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(&escape(&story.news), TEXT_CHARS_MAX)}}),
        json!({"type": "section", "fields": fields}),
        json!({"type": "context", "elements": [{"type": "plain_text", "text": cut(mark, FIELD_CHARS_MAX), "emoji": false}]}),
    ];
    if let Some(url) = &story.url {
        let button = json!({"type": "button", "text": {"type": "plain_text", "text": "Open incident"}, "url": url, "action_id": "open"});
        blocks.push(json!({"type": "actions", "elements": [button]}));
    }
    json!({"text": cut(&format!("{}: {} ({})", escape(&story.headline), escape(&story.news), story.incident), TEXT_CHARS_MAX), "blocks": blocks})
}

/// Three signs are markup by themselves; a link or a mention needs them. The others are broken by a joiner that nobody sees.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '@' | '*' | '_' | '~' | '`' => out.extend([c, '\u{2060}']),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, message, table};
    use super::*;

    #[test]
    fn what_is_wrong_is_said_in_words() {
        for (pairs, key, words) in [
            (vec![("token", "xoxb-1")], "channel", "channel is required"),
            (vec![("channel", "C1")], "token", "token is required"),
            (vec![("token", "xapp-1"), ("channel", "C1")], "token", "not a bot's"),
            (vec![("token", "xoxb-1"), ("channel", "C1"), ("webhook_url", "https://h/x")], "webhook_url", "not both"),
            (vec![("webhook_url", "ftp://h/x")], "webhook_url", "scheme"),
            (vec![], "token", "give token and channel"),
        ] {
            let pairs: Vec<_> = pairs.into_iter().map(|(k, v)| (k, json!(v))).collect();
            let Err(problems) = build("x", &common(), &table(&pairs)) else { panic!("built {pairs:?}") };
            assert!(problems.iter().any(|(k, w)| k == key && w.contains(words)), "{pairs:?}: {problems:?}");
        }
    }

    #[test]
    fn a_message_keeps_within_the_limits_and_is_inert() {
        let mut m = message(Notice::Opened);
        m.incident.title = "<!channel> & ".repeat(2_000);
        m.incident.versions = vec!["<http://evil|click> @here *x*".repeat(500); 50];
        let body = body(&Story::of(&m, &common(), false));
        let text = body.to_string();
        assert!(text.chars().count() < 13_000, "{}", text.chars().count());
        let outside_header =
            body["blocks"].as_array().expect("blocks")[1..].iter().map(Value::to_string).collect::<String>() + &body["text"].to_string();
        assert!(!outside_header.contains('<') && !outside_header.contains("@here"), "{outside_header}");
        assert!(body["blocks"][0]["text"]["text"].as_str().is_some_and(|t| t.chars().count() <= HEADER_CHARS_MAX));
        assert!(body["blocks"][2]["fields"].as_array().is_some_and(|f| f.len() <= FIELDS_MAX));
    }
}
