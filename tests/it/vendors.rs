//! Vendors of chats and tickets as their pages describe them: what they take, what they refuse, how they find things again.
//!
//! A part of the oracle. A path is `<prefix>/<vendor>/...`; everything before the vendor's word is a world of its own, so that one
//! server serves as many receivers as a test wants.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

pub const SLACK_TOKEN: &str = "xoxb-oracle-000000";
pub const SLACK_CHANNEL: &str = "C0123456789";
pub const JIRA_EMAIL: &str = "bell@wether.example";
pub const TOKEN: &str = "oracle-token-000000";
/// A word that a hostile event may carry: no vendor may ever see it as markup.
pub const HOSTILE: &str = "<!channel> @everyone [x](http://evil.example) <img src=x> {code} *bold*";

pub type Headers = BTreeMap<String, String>;
/// What is wrong with the request, and the answer.
pub type Taken = (Vec<String>, (u16, String));

/// Everything that the vendors hold, by prefix.
#[derive(Default)]
pub struct Vendors {
    pub worlds: BTreeMap<String, World>,
    made: u64,
}

#[derive(Default)]
pub struct World {
    pub posts: Vec<Post>,
    pub tickets: Vec<Paper>,
    /// Cards, mails and calls that cannot be found again.
    pub said: Vec<Value>,
    /// New tickets are found by a search only after this.
    pub search_lag: Duration,
    pub alerts: BTreeMap<String, Vec<Value>>,
    pub is_public: bool,
}

/// A message in a channel.
#[derive(Clone, Debug)]
pub struct Post {
    pub ts: String,
    pub thread_ts: Option<String>,
    pub text: String,
    pub blocks: Value,
    pub updates: u32,
}

/// A ticket of any tracker.
#[derive(Clone, Debug)]
pub struct Paper {
    pub key: String,
    pub labels: Vec<String>,
    pub title: String,
    pub body: String,
    pub comments: Vec<String>,
    pub is_closed: bool,
    pub links: BTreeMap<String, Value>,
    pub fields: Value,
    made_at: Instant,
}

/// A request as the vendors see it.
struct Ask<'a> {
    method: &'a str,
    /// Behind the vendor's word, without the query.
    path: &'a str,
    query: BTreeMap<String, String>,
    headers: &'a Headers,
    doc: Value,
    acts: bool,
    number: u64,
}

impl Vendors {
    /// Answers if the path is a vendor's.
    pub fn take(&mut self, method: &str, path: &str, headers: &Headers, body: &[u8], acts: bool) -> Option<Taken> {
        let (plain, query) = path.split_once('?').unwrap_or((path, ""));
        let vendors: [(&str, fn(&mut World, &Ask<'_>) -> Taken); 4] =
            [("/slack/api/", slack), ("/slack/services/", slack_hook), ("/jira/rest/api/3/", jira_cloud), ("/jira/rest/api/2/", jira_center)];
        let (prefix, rest, vendor) = vendors.into_iter().find_map(|(word, vendor)| plain.split_once(word).map(|(p, r)| (p, r, vendor)))?;
        self.made += 1;
        let query = query.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.to_owned(), decoded(v))).collect();
        let mut problems = Vec::new();
        let doc = match serde_json::from_slice(body) {
            Ok(doc) => doc,
            Err(_) if body.is_empty() => Value::Null,
            Err(e) => {
                problems.push(format!("not JSON: {e}"));
                Value::Null
            }
        };
        if !headers.get("user-agent").is_some_and(|t| t.starts_with("Bellwether/")) {
            problems.push("user agent is not Bellwether/<version>".to_owned());
        }
        if method != "GET" && !headers.get("content-type").is_some_and(|t| t.starts_with("application/json")) {
            problems.push("content type is not application/json".to_owned());
        }
        let ask = Ask { method, path: rest, query, headers, doc, acts, number: self.made };
        let (more, answer) = vendor(self.worlds.entry(prefix.to_owned()).or_default(), &ask);
        problems.extend(more);
        Some((problems, answer))
    }

    pub fn world(&mut self, prefix: &str) -> &mut World {
        self.worlds.entry(prefix.to_owned()).or_default()
    }
}

impl World {
    fn paper(&mut self, key: &str) -> Option<&mut Paper> {
        self.tickets.iter_mut().find(|t| t.key == key)
    }

    fn labelled(&self, label: &str) -> Vec<&Paper> {
        self.tickets.iter().filter(|t| t.labels.iter().any(|l| l == label) && t.made_at.elapsed() >= self.search_lag).collect()
    }

    fn file(&mut self, ask: &Ask<'_>, paper: Paper) {
        if ask.acts {
            self.tickets.push(paper);
        }
    }
}

impl Paper {
    fn new(key: String, title: &Value, body: String) -> Paper {
        Paper {
            key,
            labels: vec![],
            title: title.as_str().unwrap_or_default().to_owned(),
            body,
            comments: vec![],
            is_closed: false,
            links: BTreeMap::new(),
            fields: Value::Null,
            made_at: Instant::now(),
        }
    }
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => out.push(b' '),
            b'%' => {
                let hex: String = bytes.by_ref().take(2).map(char::from).collect();
                out.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
            }
            _ => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Gathers what is wrong.
fn wrong(rules: &[(bool, &str)]) -> Vec<String> {
    rules.iter().filter(|(holds, _)| !holds).map(|(_, words)| (*words).to_owned()).collect()
}

fn chars(v: &Value) -> usize {
    v.as_str().map_or(0, |t| t.chars().count())
}

fn is_text(v: &Value, most: usize) -> bool {
    v.as_str().is_some_and(|t| !t.trim().is_empty() && t.chars().count() <= most)
}

fn ok(status: u16, body: Value) -> Taken {
    (vec![], (status, body.to_string()))
}

// === Slack ===

fn slack(world: &mut World, ask: &Ask<'_>) -> Taken {
    let bad = |problems: Vec<String>, error: &str| (problems, (200, json!({"ok": false, "error": error}).to_string()));
    if ask.headers.get("authorization").map(String::as_str) != Some(&format!("Bearer {SLACK_TOKEN}")) {
        return bad(vec!["not the bot's token".to_owned()], "invalid_auth");
    }
    let field = |name: &str| match ask.method {
        "GET" => ask.query.get(name).cloned().unwrap_or_default(),
        _ => ask.doc[name].as_str().unwrap_or_default().to_owned(),
    };
    if field("channel") != SLACK_CHANNEL {
        return bad(vec![], "channel_not_found");
    }
    let shown = |p: &Post| json!({"type": "message", "bot_id": "B1", "text": p.text, "ts": p.ts, "thread_ts": p.thread_ts});
    match (ask.method, ask.path) {
        ("POST", "chat.postMessage") => {
            let problems = message_problems(&ask.doc);
            if !problems.is_empty() {
                return bad(problems, "invalid_blocks");
            }
            let thread_ts = ask.doc["thread_ts"].as_str().map(str::to_owned);
            if thread_ts.as_ref().is_some_and(|t| !world.posts.iter().any(|p| p.ts == *t && p.thread_ts.is_none())) {
                return bad(vec!["no such thread".to_owned()], "thread_not_found");
            }
            let ts = format!("1795166080.{:06}", ask.number);
            if ask.acts {
                world.posts.push(Post { ts: ts.clone(), thread_ts, text: field("text"), blocks: ask.doc["blocks"].clone(), updates: 0 });
            }
            ok(200, json!({"ok": true, "channel": SLACK_CHANNEL, "ts": ts, "message": {"text": field("text")}}))
        }
        ("POST", "chat.update") => {
            let problems = message_problems(&ask.doc);
            let ts = field("ts");
            let Some(post) = world.posts.iter_mut().find(|p| p.ts == ts) else { return bad(problems, "message_not_found") };
            if ask.acts && problems.is_empty() {
                post.text = field("text");
                post.blocks = ask.doc["blocks"].clone();
                post.updates += 1;
            }
            (problems, (200, json!({"ok": true, "channel": SLACK_CHANNEL, "ts": ts, "text": field("text")}).to_string()))
        }
        ("GET", "conversations.history") => {
            let all: Vec<Value> = world.posts.iter().rev().filter(|p| p.thread_ts.is_none()).map(shown).collect();
            ok(200, json!({"ok": true, "messages": all, "has_more": false}))
        }
        ("GET", "conversations.replies") => {
            let ts = field("ts");
            let all: Vec<Value> = world.posts.iter().filter(|p| p.ts == ts || p.thread_ts.as_ref() == Some(&ts)).map(shown).collect();
            ok(200, json!({"ok": true, "messages": all}))
        }
        _ => bad(vec![format!("unknown method {} {}", ask.method, ask.path)], "unknown_method"),
    }
}

fn slack_hook(world: &mut World, ask: &Ask<'_>) -> Taken {
    let problems = message_problems(&ask.doc);
    if !problems.is_empty() {
        return (problems, (400, "invalid_payload".to_owned()));
    }
    if ask.acts {
        world.said.push(ask.doc.clone());
    }
    (vec![], (200, "ok".to_owned()))
}

fn message_problems(doc: &Value) -> Vec<String> {
    let none = vec![];
    let blocks = doc["blocks"].as_array().unwrap_or(&none);
    let of = |kind: &'static str| blocks.iter().filter(move |b| b["type"] == kind);
    let texts = |v: &Value| v.to_string().chars().count();
    let markup: String = of("section").map(Value::to_string).collect::<String>() + doc["text"].as_str().unwrap_or_default();
    wrong(&[
        (is_text(&doc["text"], 4_000), "no text for the notification, or more than 4,000 characters"),
        (blocks.len() <= 50, "more than 50 blocks"),
        (of("header").all(|b| chars(&b["text"]["text"]) <= 150 && b["text"]["type"] == "plain_text"), "header is longer than 150"),
        (of("section").all(|b| b["text"].is_null() || is_text(&b["text"]["text"], 3_000)), "text of a section is empty or longer than 3,000"),
        (of("section").all(|b| b["fields"].as_array().is_none_or(|f| (1..=10).contains(&f.len()))), "no fields or more than 10"),
        (of("section").all(|b| b["fields"].as_array().is_none_or(|f| f.iter().all(|f| is_text(&f["text"], 2_000)))), "a field is too long"),
        (of("context").all(|b| b["elements"].as_array().is_some_and(|e| (1..=10).contains(&e.len()))), "context"),
        (of("actions").all(|b| b["elements"].as_array().is_some_and(|e| (1..=25).contains(&e.len()))), "actions"),
        (blocks.iter().map(texts).sum::<usize>() <= 13_000, "msg_blocks_too_long"),
        (!markup.contains("<!") && !markup.contains("<http") && !markup.contains("@everyone"), "a mention or link from outside"),
    ])
}

// === Jira ===

fn jira_cloud(world: &mut World, ask: &Ask<'_>) -> Taken {
    jira(world, ask, true)
}

fn jira_center(world: &mut World, ask: &Ask<'_>) -> Taken {
    jira(world, ask, false)
}

fn jira(world: &mut World, ask: &Ask<'_>, is_cloud: bool) -> Taken {
    let refuse = |status: u16, field: &str, words: &str| {
        let body = json!({"errorMessages": if field.is_empty() { vec![words] } else { vec![] }, "errors": {field: words}});
        (vec![format!("{field}: {words}")], (status, body.to_string()))
    };
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{JIRA_EMAIL}:{TOKEN}"));
    let credentials = if is_cloud { format!("Basic {pair}") } else { format!("Bearer {TOKEN}") };
    if ask.headers.get("authorization") != Some(&credentials) {
        return refuse(401, "", "client must be authenticated");
    }
    // Cloud takes trees, Data Center takes texts.
    let prose = |v: &Value| -> Option<String> {
        if !is_cloud {
            return v.as_str().filter(|t| !t.is_empty() && t.chars().count() <= 32_767 && !t.contains("{code}")).map(str::to_owned);
        }
        let is_doc = v["type"] == "doc" && v["version"] == 1 && v["content"].as_array().is_some_and(|c| !c.is_empty());
        (is_doc && !v.to_string().contains(r#""text":"""#)).then(|| v.to_string())
    };
    let parts: Vec<&str> = ask.path.split('/').collect();
    match (ask.method, parts.as_slice()) {
        ("GET", ["project", "ML"]) => ok(200, json!({"key": "ML", "issueTypes": [{"name": "Task"}, {"name": "Incident"}]})),
        ("POST", ["search", "jql"]) if is_cloud => found(world, ask),
        ("POST", ["search"]) if !is_cloud => found(world, ask),
        (_, ["search"]) => refuse(410, "", "this search is gone"),
        ("POST", ["issue"]) => {
            let fields = &ask.doc["fields"];
            let labels: Vec<String> = fields["labels"].as_array().into_iter().flatten().filter_map(|l| l.as_str().map(str::to_owned)).collect();
            if fields["project"]["key"] != "ML" {
                return refuse(400, "project", "valid project is required");
            }
            if !["Task", "Incident"].iter().any(|t| fields["issuetype"]["name"] == *t) {
                return refuse(400, "issuetype", "valid issue type is required");
            }
            if !is_text(&fields["summary"], 255) || fields["summary"].as_str().is_some_and(|s| s.contains('\n')) {
                return refuse(400, "summary", "must be one line of at most 255 characters");
            }
            if labels.iter().any(|l| l.contains(' ')) {
                return refuse(400, "labels", "contains spaces");
            }
            if !fields["priority"].is_null() && !["Highest", "High", "Medium"].iter().any(|p| fields["priority"]["name"] == *p) {
                return refuse(400, "priority", "is not a priority");
            }
            if fields["customfield_10041"] != json!({"value": "risk"}) {
                return refuse(400, "customfield_10041", "Team is required.");
            }
            let Some(body) = prose(&fields["description"]) else { return refuse(400, "description", "is not a document") };
            let key = format!("ML-{}", 100 + ask.number);
            let paper = Paper { labels, fields: fields.clone(), ..Paper::new(key.clone(), &fields["summary"], body) };
            world.file(ask, paper);
            ok(201, json!({"id": ask.number.to_string(), "key": key, "self": "https://jira.example"}))
        }
        (method, ["issue", key, rest @ ..]) => {
            let acts = ask.acts;
            let number = ask.number;
            let Some(paper) = world.paper(key) else { return refuse(404, "", "issue does not exist") };
            match (method, rest) {
                ("POST", ["remotelink"]) => {
                    let Some(id) = ask.doc["globalId"].as_str() else { return refuse(400, "globalId", "missing") };
                    if !is_text(&ask.doc["object"]["title"], 255) || !is_text(&ask.doc["object"]["url"], 2_000) {
                        return refuse(400, "object", "title and url are required");
                    }
                    if acts {
                        paper.links.insert(id.to_owned(), ask.doc.clone());
                    }
                    ok(201, json!({"id": number}))
                }
                ("POST", ["comment"]) => {
                    let Some(body) = prose(&ask.doc["body"]) else { return refuse(400, "comment", "is not a document") };
                    if acts {
                        paper.comments.push(body);
                    }
                    ok(201, json!({"id": number.to_string()}))
                }
                ("GET", ["comment"]) => {
                    let all: Vec<Value> = paper.comments.iter().rev().map(|c| json!({"body": serde_json::from_str(c).unwrap_or(json!(c))})).collect();
                    ok(200, json!({"comments": all, "total": all.len()}))
                }
                ("GET", ["transitions"]) => {
                    let one = if paper.is_closed {
                        json!({"id": "41", "name": "Reopen", "to": {"name": "To Do"}})
                    } else {
                        json!({"id": "31", "name": "Close it", "to": {"name": "Done"}})
                    };
                    ok(200, json!({"transitions": [one]}))
                }
                ("POST", ["transitions"]) => {
                    let id = ask.doc["transition"]["id"].as_str().unwrap_or_default();
                    if id == "31" && !is_text(&ask.doc["fields"]["resolution"]["name"], 100) {
                        return refuse(400, "resolution", "Resolution is required.");
                    }
                    let is_possible = (id == "31" && !paper.is_closed) || (id == "41" && paper.is_closed);
                    if !is_possible {
                        return refuse(400, "", "transition is not valid for this issue");
                    }
                    if acts {
                        paper.is_closed = id == "31";
                    }
                    (vec![], (204, String::new()))
                }
                _ => refuse(405, "", "method not allowed"),
            }
        }
        _ => refuse(404, "", "no such path"),
    }
}

fn found(world: &World, ask: &Ask<'_>) -> Taken {
    let jql = ask.doc["jql"].as_str().unwrap_or_default();
    let label = jql.split("labels = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    if !jql.starts_with("project = \"ML\"") || label.is_empty() {
        return (vec![format!("jql {jql:?}")], (400, json!({"errorMessages": ["bad jql"]}).to_string()));
    }
    let issues: Vec<Value> = world.labelled(label).iter().map(|p| json!({"key": p.key, "fields": {}})).collect();
    ok(200, json!({"issues": issues}))
}
