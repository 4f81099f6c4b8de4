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
    /// How often the fate of a request was asked for.
    pub alerts: BTreeMap<String, Vec<Value>>,
    /// A public repository; requests that are taken and fail.
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
        let vendors: [(&str, fn(&mut World, &Ask<'_>) -> Taken); 10] = [
            ("/slack/api/", slack),
            ("/slack/services/", slack_hook),
            ("/jira/rest/api/3/", jira_cloud),
            ("/jira/rest/api/2/", jira_center),
            ("/snow/api/now/table/incident", servicenow),
            ("/github/repos/acme/models", github),
            ("/gitlab/api/v4/projects/acme%2Fmodels", gitlab),
            ("/jsm/v2/alerts", jsm),
            ("/teams/workflows/", teams),
            ("/template/", template),
        ];
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

// === ServiceNow ===

fn servicenow(world: &mut World, ask: &Ask<'_>) -> Taken {
    let refuse = |status: u16, words: &str| {
        let body = json!({"error": {"message": words, "detail": ""}, "status": "failure"});
        (vec![words.to_owned()], (status, body.to_string()))
    };
    if ask.headers.get("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return refuse(401, "User Not Authenticated");
    }
    if ask.doc.as_object().is_some_and(|o| o.values().any(|v| !v.is_string())) {
        return refuse(400, "all values are strings");
    }
    let is_long = |name: &str, most: usize| chars(&ask.doc[name]) > most;
    if is_long("short_description", 160) || is_long("description", 4_000) || is_long("correlation_id", 100) || !ask.doc["priority"].is_null() {
        return refuse(400, "a field is too long, or priority is set");
    }
    match (ask.method, ask.path.trim_start_matches('/')) {
        ("GET", "") => {
            let query = ask.query.get("sysparm_query").map_or("", String::as_str);
            let Some(id) = query.strip_prefix("correlation_id=") else { return refuse(400, "query") };
            let all: Vec<Value> = world.labelled(id).iter().map(|p| json!({"sys_id": p.key, "number": p.title, "state": "1"})).collect();
            ok(200, json!({"result": all}))
        }
        ("POST", "") => {
            if !is_text(&ask.doc["short_description"], 160) || !["1", "2", "3"].iter().any(|i| ask.doc["impact"] == *i) {
                return refuse(400, "short_description or impact");
            }
            let key = format!("{:032x}", ask.number);
            let body = ask.doc["description"].as_str().unwrap_or_default().to_owned();
            let label = ask.doc["correlation_id"].as_str().unwrap_or_default().to_owned();
            world.file(ask, Paper { labels: vec![label], ..Paper::new(key.clone(), &ask.doc["short_description"], body) });
            let mut record = ask.doc.clone();
            record["sys_id"] = json!(key);
            record["number"] = json!(format!("INC{:07}", ask.number));
            // A field that the table does not know vanishes without a word.
            record.as_object_mut().map(|o| o.remove("no_such_field"));
            ok(201, json!({"result": record}))
        }
        ("PATCH", key) => {
            let acts = ask.acts;
            let Some(paper) = world.paper(key) else { return refuse(404, "No Record found") };
            let is_end = ask.doc["state"] == "6";
            if is_end && !(is_text(&ask.doc["close_code"], 100) && is_text(&ask.doc["close_notes"], 4_000)) {
                return refuse(403, "Data Policy Exception: close code and notes are mandatory");
            }
            if acts {
                paper.comments.extend(ask.doc["work_notes"].as_str().map(str::to_owned));
                if ask.doc["state"].is_string() {
                    paper.is_closed = is_end;
                }
            }
            ok(200, json!({"result": {"sys_id": key}}))
        }
        _ => refuse(405, "method not allowed"),
    }
}

// === GitHub ===

fn github(world: &mut World, ask: &Ask<'_>) -> Taken {
    let refuse = |status: u16, words: &str| {
        (vec![words.to_owned()], (status, json!({"message": words, "errors": [{"field": "x", "code": "invalid"}]}).to_string()))
    };
    let header = |name: &str| ask.headers.get(name).map_or("", String::as_str);
    if header("authorization") != format!("Bearer {TOKEN}") {
        return refuse(401, "Bad credentials");
    }
    if header("accept") != "application/vnd.github+json" || header("x-github-api-version") != "2022-11-28" {
        return refuse(415, "accept or version");
    }
    let shown = |p: &Paper| {
        let labels: Vec<Value> = p.labels.iter().map(|l| json!({"name": l})).collect();
        json!({"number": p.key.parse::<u64>().unwrap_or(0), "html_url": "https://github.example", "body": p.body, "labels": labels,
            "state": if p.is_closed { "closed" } else { "open" }})
    };
    let parts: Vec<&str> = ask.path.split('/').filter(|p| !p.is_empty()).collect();
    let (acts, number) = (ask.acts, ask.number);
    match (ask.method, parts.as_slice()) {
        ("GET", []) => ok(200, json!({"full_name": "acme/models", "private": !world.is_public, "has_issues": true})),
        ("GET", ["issues"]) => {
            if ask.query.get("state").map(String::as_str) != Some("all") {
                return refuse(422, "closed ones are left out");
            }
            let label = ask.query.get("labels").cloned().unwrap_or_default();
            let all: Vec<Value> = world.labelled(&label).into_iter().map(shown).collect();
            ok(200, json!(all))
        }
        ("POST", ["issues"]) => {
            if !is_text(&ask.doc["title"], 256) || chars(&ask.doc["body"]) > 65_536 {
                return refuse(422, "Validation Failed");
            }
            let labels: Vec<String> = ask.doc["labels"].as_array().into_iter().flatten().filter_map(|l| l.as_str().map(str::to_owned)).collect();
            let body = ask.doc["body"].as_str().unwrap_or_default().to_owned();
            let problems = prose_problems(&body);
            if labels.iter().any(|l| l.chars().count() > 50) || !problems.is_empty() {
                return (problems, (422, json!({"message": "Validation Failed"}).to_string()));
            }
            let paper = Paper { labels, ..Paper::new(number.to_string(), &ask.doc["title"], body) };
            let answer = shown(&paper);
            world.file(ask, paper);
            ok(201, answer)
        }
        (method, ["issues", key, rest @ ..]) => {
            let Some(paper) = world.paper(key) else { return refuse(404, "Not Found") };
            match (method, rest) {
                ("GET", ["comments"]) => ok(200, paper.comments.iter().map(|c| json!({"id": 1, "body": c})).collect()),
                ("POST", ["comments"]) => {
                    let body = ask.doc["body"].as_str().unwrap_or_default().to_owned();
                    let problems = prose_problems(&body);
                    if acts && problems.is_empty() {
                        paper.comments.push(body);
                    }
                    (problems, (201, json!({"id": number}).to_string()))
                }
                ("PATCH", []) => {
                    if !["closed", "open"].iter().any(|s| ask.doc["state"] == *s) {
                        return refuse(422, "state");
                    }
                    if acts {
                        paper.is_closed = ask.doc["state"] == "closed";
                    }
                    ok(200, shown(paper))
                }
                _ => refuse(404, "Not Found"),
            }
        }
        _ => refuse(404, "Not Found"),
    }
}

/// Nothing from outside may be a mention, a link, a picture or a command.
fn prose_problems(text: &str) -> Vec<String> {
    wrong(&[
        (!text.contains("@everyone"), "a mention from outside"),
        (!text.contains("http://evil.example"), "a link from outside"),
        (!text.contains("<img"), "markup from outside"),
        (!text.contains(" [x]("), "a link from outside"),
        (!text.lines().any(|l| l.starts_with('/')), "a command"),
    ])
}

// === GitLab ===

fn gitlab(world: &mut World, ask: &Ask<'_>) -> Taken {
    let refuse = |status: u16, words: &str| (vec![words.to_owned()], (status, json!({"message": words}).to_string()));
    if ask.headers.get("private-token").map(String::as_str) != Some(TOKEN) {
        return refuse(401, "401 Unauthorized");
    }
    let shown = |p: &Paper| json!({"id": 9, "iid": p.key.parse::<u64>().unwrap_or(0), "web_url": "https://gitlab.example", "state": if p.is_closed { "closed" } else { "opened" }});
    let parts: Vec<&str> = ask.path.split('/').filter(|p| !p.is_empty()).collect();
    let (acts, number) = (ask.acts, ask.number);
    match (ask.method, parts.as_slice()) {
        ("GET", []) => ok(200, json!({"id": 7, "issues_enabled": true})),
        ("GET", ["issues"]) => {
            let label = ask.query.get("labels").cloned().unwrap_or_default();
            let all: Vec<Value> = world.labelled(&label).into_iter().map(shown).collect();
            ok(200, json!(all))
        }
        ("POST", ["issues"]) => {
            let text = ask.doc["description"].as_str().unwrap_or_default().to_owned();
            let mut problems = prose_problems(&text);
            problems.extend(wrong(&[
                (is_text(&ask.doc["title"], 255), "title"),
                (ask.doc["confidential"] == true, "everybody may read it"),
                (["issue", "incident", "task"].iter().any(|t| ask.doc["issue_type"] == *t), "issue_type"),
            ]));
            if !problems.is_empty() {
                return (problems, (400, json!({"message": "bad"}).to_string()));
            }
            let labels = ask.doc["labels"].as_str().unwrap_or_default().split(',').map(str::to_owned).collect();
            let paper = Paper { labels, ..Paper::new(number.to_string(), &ask.doc["title"], text) };
            let answer = shown(&paper);
            world.file(ask, paper);
            ok(201, answer)
        }
        (method, ["issues", key, rest @ ..]) => {
            let Some(paper) = world.paper(key) else { return refuse(404, "404 Not found") };
            match (method, rest) {
                ("GET", ["notes"]) => ok(200, paper.comments.iter().rev().map(|c| json!({"id": 1, "body": c})).collect()),
                ("POST", ["notes"]) => {
                    let text = ask.doc["body"].as_str().unwrap_or_default().to_owned();
                    let problems = prose_problems(&text);
                    if acts && problems.is_empty() {
                        paper.comments.push(text);
                    }
                    (problems, (201, json!({"id": number}).to_string()))
                }
                ("PUT", []) => {
                    if !["close", "reopen"].iter().any(|s| ask.doc["state_event"] == *s) {
                        return refuse(400, "state_event");
                    }
                    if acts {
                        paper.is_closed = ask.doc["state_event"] == "close";
                    }
                    ok(200, shown(paper))
                }
                _ => refuse(404, "404 Not found"),
            }
        }
        _ => refuse(404, "404 Not found"),
    }
}

// === Jira Service Management Operations ===

fn jsm(world: &mut World, ask: &Ask<'_>) -> Taken {
    let refuse = |status: u16, words: &str| (vec![words.to_owned()], (status, json!({"message": words, "took": 0.1, "requestId": ""}).to_string()));
    if ask.headers.get("authorization") != Some(&format!("GenieKey {TOKEN}")) {
        return refuse(401, "Could not authenticate");
    }
    let taken = || (vec![], (202, json!({"result": "Request will be processed", "requestId": format!("r-{}", ask.number), "took": 0.1}).to_string()));
    let parts: Vec<&str> = ask.path.split('/').filter(|p| !p.is_empty()).collect();
    match (ask.method, parts.as_slice()) {
        ("POST", []) => {
            let d = &ask.doc;
            let details: usize = d["details"].as_object().map_or(0, |o| o.iter().map(|(k, v)| k.chars().count() + chars(v)).sum());
            let problems = wrong(&[
                (is_text(&d["message"], 130), "message"),
                (is_text(&d["alias"], 512), "alias"),
                (chars(&d["description"]) <= 15_000, "description"),
                (["P1", "P2", "P3", "P4", "P5"].iter().any(|p| d["priority"] == *p), "priority"),
                (d["tags"].as_array().is_none_or(|t| t.len() <= 20 && t.iter().all(|t| is_text(t, 50))), "tags"),
                (details <= 8_000, "details"),
                (chars(&d["entity"]) <= 512 && chars(&d["source"]) <= 100, "entity or source"),
            ]);
            if !problems.is_empty() {
                return (problems, (422, json!({"message": "Request body is not processable"}).to_string()));
            }
            let alias = d["alias"].as_str().unwrap_or_default().to_owned();
            let is_open = world.tickets.iter().any(|t| t.labels[0] == alias && !t.is_closed);
            if !is_open {
                let paper = Paper { labels: vec![alias], ..Paper::new(ask.number.to_string(), &d["message"], String::new()) };
                world.file(ask, paper);
            }
            taken()
        }
        ("POST", [alias, verb @ ("acknowledge" | "close" | "notes")]) => {
            if ask.query.get("identifierType").map(String::as_str) != Some("alias") {
                return refuse(422, "identifierType");
            }
            if let Some(paper) = world.tickets.iter_mut().find(|t| t.labels[0] == *alias && !t.is_closed).filter(|_| ask.acts) {
                paper.comments.push((*verb).to_owned());
                paper.is_closed = *verb == "close";
            }
            taken()
        }
        ("GET", ["requests", id]) => {
            // The first question comes too early.
            let asked = world.alerts.entry((*id).to_owned()).or_default();
            asked.push(Value::Null);
            if asked.len() == 1 {
                return (vec![], (404, json!({"message": "Request not found"}).to_string()));
            }
            let is_success = !world.is_public;
            ok(200, json!({"data": {"isSuccess": is_success, "status": if is_success { "Created alert" } else { "no such team" }}}))
        }
        _ => refuse(404, "no such path"),
    }
}

// === Teams and templates ===

fn teams(world: &mut World, ask: &Ask<'_>) -> Taken {
    let card = &ask.doc["attachments"][0];
    let text = ask.doc.to_string();
    let problems = wrong(&[
        (ask.query.get("sig").map(String::as_str) == Some(TOKEN), "sig"),
        (ask.doc["type"] == "message" && card["contentType"] == "application/vnd.microsoft.card.adaptive", "no card"),
        (card["content"]["type"] == "AdaptiveCard" && card["content"]["body"].as_array().is_some_and(|b| !b.is_empty()), "an empty card"),
        (text.len() <= 21 * 1024, "card is larger than 21 KB"),
        (!text.contains(" [x](") && !text.contains("http://evil.example"), "a link from outside"),
    ]);
    let status = if problems.is_empty() { 202 } else { 400 };
    if ask.acts && status == 202 {
        world.said.push(ask.doc.clone());
    }
    (problems, (status, String::new()))
}

fn template(world: &mut World, ask: &Ask<'_>) -> Taken {
    let d = &ask.doc;
    let problems = wrong(&[
        (["CRITICAL", "ACKNOWLEDGEMENT", "RECOVERY", "INFO"].iter().any(|t| d["message_type"] == *t), "message_type"),
        (is_text(&d["entity_id"], 255), "entity_id"),
        (ask.headers.get("authorization") == Some(&format!("Bearer {TOKEN}")), "token"),
        (ask.headers.get("idempotency-key").is_some_and(|k| !k.is_empty()), "no key"),
    ]);
    if ask.acts && problems.is_empty() {
        world.said.push(d.clone());
    }
    let status = if problems.is_empty() { 200 } else { 400 };
    (problems, (status, json!({"result": "success"}).to_string()))
}
