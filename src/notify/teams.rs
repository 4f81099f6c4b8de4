//! Microsoft Teams, by a workflow ("When a Teams webhook request is received"): every news is a card.
//!
//! A workflow can neither update a card nor answer in a thread, and it answers 202 before it runs: what was taken is not proven to
//! be shown. The url holds its own key and is therefore a secret.

use async_trait::async_trait;
use reqwest::Url;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::http::{self, Client};
use super::story::Story;
use super::{CA, Common, Errand, Form, Kind, Knob, Manner, Notifier, PROXY_FROM_ENV, PUBLIC_ONLY, Reader, Receiver, Repeat, Table, cut};
use crate::domain::Time;
use crate::domain::delivery::{Outcome, Receipt};

pub const KIND: Kind = Kind {
    name: "teams",
    about: "Microsoft Teams, by the url of a workflow: a card for every news",
    knobs: &[Knob { name: "url", about: "the workflow's url, with its sig", form: Form::Secret, required: true }, CA, PROXY_FROM_ENV, PUBLIC_ONLY],
    build,
};

/// The vendor takes 28 KB, in practice less.
const CARD_BYTES_MAX: usize = 20 * 1024;
const FACT_CHARS_MAX: usize = 500;
/// More than about four a second are throttled.
const PER_MINUTE_MAX: u32 = 120;

struct Teams {
    url: Url,
    common: Common,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Receiver, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let text = r.secret("url");
    let text = r.required("url", text);
    let url = text.as_ref().and_then(|t| r.url("url", t.expose_secret()));
    if url.as_ref().and_then(|u| u.host_str()).is_some_and(|h| h.ends_with(".webhook.office.com")) {
        r.problem("url", "url is that of a connector, which Microsoft has retired; make a workflow");
    }
    let mut secrets: Vec<_> = text.iter().cloned().collect();
    if let Some(url) = &url {
        secrets.extend(url.query_pairs().map(|(_, v)| v.into_owned().into()));
        secrets.extend(url.query().map(|q| q.to_owned().into()));
    }
    match (url, r.client(common, secrets)) {
        (Some(url), Some(client)) if r.problems.is_empty() => Ok(Receiver::Messages(Box::new(Teams { url, common: common.clone(), client }))),
        _ => Err(r.problems),
    }
}

#[async_trait]
impl Notifier for Teams {
    async fn deliver(&self, errand: Errand<'_>, now: Time) -> Receipt {
        let message = &errand.delivery.message;
        let story = Story::of(message, &self.common, errand.may_have_arrived);
        let color = match (message.incident.state.is_live(), message.incident.severity.level()) {
            (false, _) => "good",
            (true, 1) => "attention",
            (true, _) => "warning",
        };
        self.post(&card(&story, color), now).await.into()
    }

    async fn test(&self, now: Time) -> Outcome {
        let words = format!("Bellwether test message from {}: nothing is wrong", self.common.instance);
        self.post(&envelope(json!([{"type": "TextBlock", "text": inert(&words), "wrap": true}]), None), now).await
    }

    fn manner(&self) -> Manner {
        Manner { repeat: Repeat::Marked, per_minute_max: Some(PER_MINUTE_MAX), ..Manner::VENDOR }
    }
}

impl Teams {
    async fn post(&self, card: &Value, now: Time) -> Outcome {
        match self.client.post(&self.url, http::json_headers(), card.to_string().into_bytes(), now).await {
            Ok(answer) if answer.status == 202 => {
                Outcome::Accepted { status: 202, detail: "taken by the workflow, which does not say whether it was shown".to_owned() }
            }
            // A workflow that ends with an answer of its own, or a portal in between.
            Ok(answer) if answer.is_success() => answer.unreadable(),
            Ok(answer) => answer.judge(),
            Err(failure) => failure.into(),
        }
    }
}

fn card(story: &Story, color: &str) -> Value {
    let mut facts: Vec<Value> = story.facts.iter().map(|(name, fact)| json!({"title": name, "value": inert(&cut(fact, FACT_CHARS_MAX))})).collect();
    loop {
        let body = json!([
            {"type": "TextBlock", "text": inert(&story.headline), "weight": "Bolder", "size": "Medium", "color": color, "wrap": true},
            {"type": "TextBlock", "text": inert(&story.news), "wrap": true},
            {"type": "FactSet", "facts": facts},
        ]);
        let card = envelope(body, story.url.as_deref());
        if card.to_string().len() <= CARD_BYTES_MAX || facts.pop().is_none() {
            return card;
        }
    }
}

fn envelope(body: Value, url: Option<&str>) -> Value {
    let actions: Vec<Value> = url.iter().map(|url| json!({"type": "Action.OpenUrl", "title": "Open incident", "url": url})).collect();
    json!({"type": "message", "attachments": [{
        "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null,
        "content": {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
            "msteams": {"width": "Full"}, "body": body, "actions": actions,
        },
    }]})
}

/// Cards know a part of Markdown.
fn inert(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '[' | ']' | '*' | '_' | '`' | '#' | '<' | '>' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out.replace("://", ":\u{2060}//")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, message, table};
    use super::*;
    use crate::domain::delivery::Notice;

    #[test]
    fn a_retired_connector_is_refused_and_its_url_not_shown() {
        let t = table(&[("url", "https://x.webhook.office.com/webhookb2/sesame".into())]);
        let Err(problems) = build("x", &common(), &t) else { panic!("built") };
        assert!(problems[0].1.contains("retired") && !format!("{problems:?}").contains("sesame"), "{problems:?}");
    }

    #[test]
    fn a_large_incident_is_a_small_card() {
        let mut m = message(Notice::Opened);
        m.incident.title = "ü".repeat(9_000);
        m.incident.versions = vec!["[x](http://evil) ".repeat(900); 20];
        m.incident.action = "ü".repeat(9_000);
        let card = card(&Story::of(&m, &common(), false), "warning");
        assert!(card.to_string().len() <= CARD_BYTES_MAX);
        assert!(!card.to_string().contains("http://evil"), "a link from outside");
    }
}
