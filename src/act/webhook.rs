//! Anybody's switch behind an endpoint: signed as the Standard Webhooks specification says, with a body that tells everything.
//!
//! The endpoint is asked in three modes: `dry_run` changes nothing and says what it sees (`noop`: it is as wanted already), `apply`
//! changes, `undo` brings back what `undo` of the answer said. It must answer `{"status": "done|noop|accepted|failed", "observed":
//! {...}, "undo": ..., "message": "..."}`; 409 says that the world has moved since the plan. The id of the message is the idempotency key.
//!
//! `accepted` is a promise, and a promise is not a deed: the endpoint is asked at its `status_url`, or says so by itself (`POST
//! /api/v1/actions/<id>/result`, signed with the same secret), or shows it when it is looked at. What is not heard of within a few
//! minutes is unknown.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use tokio::sync::watch;

use super::{Call, Kind, Provider, Reader, Sight, Told, headers, judged, looked};
use crate::domain::Time;
use crate::domain::response::{Plan, Receipt};
use crate::domain::time::{MINUTE_MS, SECOND_MS};
use crate::notify::http::{Answer, Client, Failure};
use crate::notify::webhook::Key;
use crate::notify::{CA, Common, Form, Knob, Table};

pub const KIND: Kind = Kind {
    name: "webhook",
    about: "any endpoint that can be asked to look, change and undo; signed by Standard Webhooks",
    knobs: &[
        Knob { name: "url", about: "where it is asked", form: Form::Url, required: true },
        Knob { name: "secret", about: "signs every request; whsec_ and Base64, or any text", form: Form::Secret, required: true },
        CA,
    ],
    sets: &[],
    build,
};

/// For what was accepted: so long it may take.
const ACCEPTED_MAX: Duration = Duration::from_secs(180);
/// Waits between two questions; `Retry-After` may make them longer.
const ASK_AGAIN_MS: &[u64] = &[500, 1_000, 2_000, 4_000, 8_000, 15_000];
/// How far the clock of whoever brings a result may be from ours, milliseconds.
const RESULT_MS_MAX: i64 = 5 * MINUTE_MS;

struct Webhook {
    /// Calls whose result is awaited, by their ids, with where it is put.
    awaited: Mutex<HashMap<String, watch::Sender<Option<Value>>>>,
    url: Url,
    keys: Vec<Key>,
    name: String,
    common: Common,
    client: Client,
}

fn build(name: &str, common: &Common, table: &Table) -> Result<Box<dyn Provider>, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    r.required("url");
    let url = r.url("url", None);
    let secret = r.secret("secret");
    let mut secrets: Vec<SecretString> = secret.iter().cloned().collect();
    let mut keys = Vec::new();
    for word in secret.iter().flat_map(|s| s.expose_secret().split_whitespace()) {
        secrets.push(word.to_owned().into());
        match Key::read(word) {
            Ok(key) => keys.push(key),
            Err(why) => r.problems.push(("secret".to_owned(), why)),
        }
    }
    if keys.is_empty() && r.problems.is_empty() {
        r.problems.push(("secret".to_owned(), "secret is required: what changes things is signed".to_owned()));
    }
    match (url, r.client(common, secrets)) {
        (Some(url), Some(client)) if r.problems.is_empty() => {
            Ok(Box::new(Webhook { awaited: Mutex::default(), url, keys, name: name.to_owned(), common: common.clone(), client }))
        }
        _ => Err(r.problems),
    }
}

impl Webhook {
    fn body(&self, call: &Call<'_>, mode: &str, undo: Option<Value>) -> Value {
        let i = call.incident;
        let mut action = json!({
            "id": call.id, "name": self.name, "idempotency_key": call.id, "plan_hash": call.plan.map(|p| &p.hash), "mode": mode,
            "target": call.action.target, "parameters": call.action.set,
        });
        if let Some(undo) = undo {
            action["undo"] = undo;
        }
        let url = format!("{}/incidents/{}", self.common.external_url.trim_end_matches('/'), i.id);
        json!({
            "type": "action.execute",
            "data": {
                "instance": self.common.instance,
                "action": action,
                "incident": {
                    "id": i.id, "severity": i.severity.level(), "category": i.key.category.as_str(), "model": i.key.model,
                    "environment": i.key.environment, "segments": i.segments.iter().map(ToString::to_string).collect::<Vec<_>>(), "url": url,
                },
                "approved_by": call.approved_by,
            },
        })
    }

    async fn post(&self, call: &Call<'_>, mode: &str, undo: Option<Value>, now: Time) -> Result<Answer, Failure> {
        let body = self.body(call, mode, undo).to_string().into_bytes();
        let headers = self.signed(call, &body, now);
        self.client.post(&self.url, headers, body, now).await
    }

    fn signed(&self, call: &Call<'_>, body: &[u8], now: Time) -> reqwest::header::HeaderMap {
        let id: String = format!("msg_{}", call.id).chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).collect();
        let seconds = now.0.div_euclid(1_000).to_string();
        let signatures: Vec<String> = self.keys.iter().map(|k| k.sign(&id, &seconds, body)).collect();
        let pair = |name: &'static str, value: &str| HeaderValue::from_str(value).ok().map(|v| (HeaderName::from_static(name), v));
        let pairs = [
            pair("webhook-id", &id),
            pair("webhook-timestamp", &seconds),
            pair("webhook-signature", &signatures.join(" ")),
            pair("idempotency-key", call.id),
        ];
        let pairs: Vec<_> = pairs.into_iter().flatten().collect();
        headers(&pairs, "application/json; charset=utf-8")
    }

    /// What became of a change that was accepted.
    async fn settled(&self, call: &Call<'_>, mode: &str, first: Value, undone: Option<&Plan>, now: Time) -> Receipt {
        let began = Instant::now();
        let clock = || now.plus_ms(began.elapsed().as_millis() as i64);
        let status_url = match first["status_url"].as_str().map(|text| self.beside(text)).transpose() {
            Ok(url) => url,
            Err(why) => return Receipt::Unknown(format!("{}; accepted, but {why}", said(&first))),
        };
        let (put, mut result) = watch::channel(None);
        let _awaiting = Awaiting::new(&self.awaited, call.id, put);
        let mut asked = 0;
        let mut last = said(&first);
        while began.elapsed() < ACCEPTED_MAX {
            let wait = ASK_AGAIN_MS.get(asked).or(ASK_AGAIN_MS.last()).copied().unwrap_or(15_000);
            asked += 1;
            let told = match tokio::time::timeout(Duration::from_millis(wait), result.wait_for(Option::is_some)).await {
                Ok(Ok(told)) => told.clone(),
                Ok(Err(_)) | Err(_) => None,
            };
            let answer = match (told, &status_url) {
                (Some(told), _) => told,
                (None, Some(url)) => {
                    let found = self.client.request(reqwest::Method::GET, url, self.signed(call, b"", clock()), Vec::new(), clock()).await;
                    match looked(found) {
                        Ok(answer) => answer,
                        Err(why) => {
                            last = why;
                            continue;
                        }
                    }
                }
                // Nobody says: it can still be seen.
                (None, None) => match looked(self.post(call, "dry_run", None, clock()).await) {
                    Ok(answer) => {
                        let as_wanted = undone.map_or_else(|| is_as_wanted(call, &answer), |plan| answer["observed"] == before(plan)["observed"]);
                        if as_wanted {
                            return Receipt::Done(format!("accepted, and it is so now: {}", said(&answer)));
                        }
                        last = said(&answer);
                        continue;
                    }
                    Err(why) => {
                        last = why;
                        continue;
                    }
                },
            };
            match answer["status"].as_str() {
                Some("done" | "noop") => return Receipt::Done(format!("accepted, then done: {}", said(&answer))),
                // It had begun: nobody can say that nothing was changed.
                Some("failed") => return Receipt::Unknown(format!("accepted, then failed: {}", said(&answer))),
                Some("accepted") => last = said(&answer),
                _ => last = format!("{}, which says neither done nor failed", said(&answer)),
            }
        }
        Receipt::Unknown(format!("the {mode} was accepted, and nothing more was heard of it within {} s ({last})", ACCEPTED_MAX.as_secs()))
    }

    /// An address of the endpoint's own: what it names elsewhere is not asked, since the signature would go there.
    fn beside(&self, text: &str) -> Result<Url, String> {
        let url = self.url.join(text).map_err(|e| format!("its status_url is no url: {e}"))?;
        if url.origin() == self.url.origin() {
            Ok(url)
        } else {
            Err("its status_url leads to another place than its url, and is not asked".to_owned())
        }
    }

    /// Where it goes, without what may be secret of it.
    fn place(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// Somebody waits for a result; no longer once this is dropped.
struct Awaiting<'a> {
    all: &'a Mutex<HashMap<String, watch::Sender<Option<Value>>>>,
    id: &'a str,
}

impl<'a> Awaiting<'a> {
    fn new(all: &'a Mutex<HashMap<String, watch::Sender<Option<Value>>>>, id: &'a str, put: watch::Sender<Option<Value>>) -> Awaiting<'a> {
        all.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), put);
        Awaiting { all, id }
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
    }
}

/// What the plan found: `observed`, and `undo` as the endpoint gave it.
fn before(plan: &Plan) -> Value {
    serde_json::from_str(&plan.before).unwrap_or_default()
}

/// The answer's words for people.
fn said(answer: &Value) -> String {
    let message = answer["message"].as_str().unwrap_or_default();
    let observed = if answer["observed"].is_null() { String::new() } else { format!("observed {}", answer["observed"]) };
    let all: Vec<&str> = [message, &observed].into_iter().filter(|t| !t.is_empty()).collect();
    let words = if all.is_empty() { "it gave no words".to_owned() } else { all.join("; ") };
    words.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Is what is observed what was asked for? An endpoint may say so itself (`noop`), or show every parameter.
fn is_as_wanted(call: &Call<'_>, answer: &Value) -> bool {
    let shown = |(name, value): (&String, &String)| match &answer["observed"][name] {
        Value::String(text) => text == value,
        Value::Null => false,
        other => format!("{other}") == *value,
    };
    answer["status"] == "noop" || (!call.action.set.is_empty() && call.action.set.iter().all(shown))
}

#[async_trait]
impl Provider for Webhook {
    async fn plan(&self, call: &Call<'_>, now: Time) -> Result<Sight, String> {
        let answer = looked(self.post(call, "dry_run", None, now).await)?;
        if answer["status"] == "failed" {
            return Err(said(&answer));
        }
        let set: Vec<String> = call.action.set.iter().map(|(k, v)| format!("{k}={v}")).collect();
        // Ids and hashes are of this plan alone; what is asked for is what counts.
        let request = json!({"mode": "apply", "target": call.action.target, "parameters": call.action.set});
        Ok(Sight {
            before: json!({"observed": answer["observed"], "undo": answer["undo"]}).to_string(),
            version: answer["version"].as_str().unwrap_or_default().to_owned(),
            request: format!("POST {}/... action.execute {request}", self.place()),
            change: format!("{}: {} ({})", call.action.target, set.join(", "), said(&answer)),
            is_noop: is_as_wanted(call, &answer),
            can_undo: !answer["undo"].is_null(),
        })
    }

    async fn apply(&self, call: &Call<'_>, _plan: &Plan, now: Time) -> Receipt {
        match judged(self.post(call, "apply", None, now).await) {
            Ok(answer) => match serde_json::from_slice::<Value>(&answer.body) {
                Ok(v) if v["status"] == "failed" => Receipt::Refused(said(&v)),
                Ok(v) if v["status"] == "done" || v["status"] == "noop" => Receipt::Done(said(&v)),
                Ok(v) if v["status"] == "accepted" => self.settled(call, "change", v, None, now).await,
                _ => Receipt::Unknown(format!("{}, which says neither done nor failed", answer.detail())),
            },
            Err(receipt) => receipt,
        }
    }

    async fn read(&self, call: &Call<'_>, plan: &Plan, undone: bool, now: Time) -> Result<(bool, String), String> {
        let answer = looked(self.post(call, "dry_run", None, now).await)?;
        let as_wanted = if undone { answer["observed"] == before(plan)["observed"] } else { is_as_wanted(call, &answer) };
        Ok((as_wanted, said(&answer)))
    }

    async fn undo(&self, call: &Call<'_>, plan: &Plan, now: Time) -> Receipt {
        match judged(self.post(call, "undo", Some(before(plan)["undo"].clone()), now).await) {
            Ok(answer) => match serde_json::from_slice::<Value>(&answer.body) {
                Ok(v) if v["status"] == "failed" => Receipt::Refused(said(&v)),
                Ok(v) if v["status"] == "accepted" => self.settled(call, "undoing", v, Some(plan), now).await,
                Ok(v) if v["status"].is_string() => Receipt::Done(said(&v)),
                _ => Receipt::Unknown(format!("{}, which says neither done nor failed", answer.detail())),
            },
            Err(receipt) => receipt,
        }
    }

    fn hear(&self, result: &Told<'_>, now: Time) -> bool {
        let mut all = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(put) = all.get_mut(result.id) else { return false };
        let seconds = result.timestamp.parse::<i64>().unwrap_or(i64::MIN / SECOND_MS);
        let is_now = now.since_ms(Time(seconds.saturating_mul(SECOND_MS))).abs() <= RESULT_MS_MAX;
        let mut is_ours = subtle::Choice::from(0);
        for key in &self.keys {
            let ours = key.sign(result.message, result.timestamp, result.body);
            for theirs in result.signature.split_whitespace() {
                is_ours |= subtle::ConstantTimeEq::ct_eq(ours.as_bytes(), theirs.as_bytes());
            }
        }
        if !is_now || !bool::from(is_ours) {
            return false;
        }
        let told = serde_json::from_slice::<Value>(result.body).unwrap_or_default();
        // In an envelope, as everything of ours is, or bare.
        let told = if told["data"].is_object() { told["data"].clone() } else { told };
        // The first one counts: the same may come again.
        put.send_if_modified(|at| {
            let is_first = at.is_none();
            if is_first {
                *at = Some(told);
            }
            is_first
        });
        true
    }
}
