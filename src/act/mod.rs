//! Changing the world: one file per provider, each exactly as its vendor's page says.
//!
//! A provider looks ([`Provider::plan`], [`Provider::read`]) and changes ([`Provider::apply`], [`Provider::undo`]). Looking is free.
//! Changing happens once: the provider first makes sure that the world is still as the plan saw it, and says afterwards how far
//! it came. What it wants is always absolute ("off", never "less"), so that a doubt can be settled by looking. Targets that the
//! configuration does not list are not even looked at.

use std::collections::BTreeMap;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::domain::Time;
use crate::domain::incident::Incident;
use crate::domain::response::{Action, Errand, Job, Plan, Receipt};
use crate::notify::http::{self, Answer, Client, Failure};
use crate::notify::{CA, Common, Knob, Table};

pub mod flagd;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod launchdarkly;
pub mod unleash;
pub mod webhook;

/// All kinds of actions, in the order in which they are listed to people.
pub static KINDS: &[Kind] = &[
    webhook::KIND,
    flagd::KIND,
    launchdarkly::KIND,
    unleash::KIND,
    #[cfg(feature = "kubernetes")]
    kubernetes::KIND,
];

/// A kind of action, as `bellwether kinds` lists it and as configuration and runbooks are checked against.
pub struct Kind {
    pub name: &'static str,
    pub about: &'static str,
    /// Beside `type`, `targets` and `per_hour`, which every kind has.
    pub knobs: &'static [Knob],
    /// What a runbook's step may ask for under `set`. Empty: anything.
    pub sets: &'static [Set],
    /// Reads secret files, and nothing else. Problems are (key, words).
    pub build: fn(name: &str, common: &Common, table: &Table) -> Result<Box<dyn Provider>, Vec<(String, String)>>,
}

/// One member of a step's `set`.
pub struct Set {
    pub name: &'static str,
    pub about: &'static str,
    /// The words that it may be; empty: any text.
    pub words: &'static [&'static str],
}

/// What a provider is told.
pub struct Call<'a> {
    /// The same at every attempt of one errand.
    pub id: &'a str,
    pub action: &'a Action,
    pub incident: &'a Incident,
    pub approved_by: Vec<&'a str>,
    pub plan: Option<&'a Plan>,
}

/// What a look shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// In the provider's own terms, enough to undo.
    pub before: String,
    /// What must still be so when it is applied.
    pub version: String,
    /// The exact request, without credentials.
    pub request: String,
    pub change: String,
    pub is_noop: bool,
    pub can_undo: bool,
}

/// What somebody brings who was asked to change something and has done it by now. Nothing of it is believed before its signature is.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Of the call: its idempotency key.
    pub id: &'a str,
    /// The headers of Standard Webhooks.
    pub message: &'a str,
    pub timestamp: &'a str,
    pub signature: &'a str,
    pub body: &'a [u8],
}

#[async_trait]
pub trait Provider: Send + Sync {
    /// Looks, and says what would be done.
    ///
    /// # Errors
    /// In words, when it cannot be planned.
    async fn plan(&self, call: &Call<'_>, now: Time) -> Result<Sight, String>;
    /// Changes it, if the world is still as the plan saw it.
    async fn apply(&self, call: &Call<'_>, plan: &Plan, now: Time) -> Receipt;
    /// Looks back: is it as wanted, or (for `undone`) as before?
    ///
    /// # Errors
    /// In words, when it cannot be read.
    async fn read(&self, call: &Call<'_>, plan: &Plan, undone: bool, now: Time) -> Result<(bool, String), String>;
    /// Brings back what the plan found, unless somebody else has changed it since.
    async fn undo(&self, call: &Call<'_>, plan: &Plan, now: Time) -> Receipt;
    /// The result of a call that was accepted. False if nobody waits for it or the signature is not the other side's.
    fn hear(&self, _told: &Told<'_>, _now: Time) -> bool {
        false
    }
}

/// An action of the configuration: a provider with the targets that it may touch.
pub struct Actor {
    pub provider: Box<dyn Provider>,
    pub targets: Vec<String>,
}

// === impl Actor ===

impl Actor {
    /// One errand, once. The answer to a read-back may be asked for again by the caller.
    pub async fn run(&self, job: &Job, now: Time) -> Receipt {
        let Some(action) = &job.step.action else { return Receipt::Refused("the step names no action".to_owned()) };
        if !self.targets.iter().any(|t| t == &action.target) {
            return Receipt::Refused(format!(
                "target {:?} is not among the targets of {} ({})",
                action.target,
                action.using,
                self.targets.join(", ")
            ));
        }
        let approved_by = job.step.approvals.iter().map(|a| a.by.as_str()).collect();
        let call = Call { id: &job.id, action, incident: &job.incident, approved_by, plan: job.step.plan.as_ref() };
        let Some(plan) = call.plan.filter(|_| job.errand != Errand::Plan) else {
            return match (job.errand, self.provider.plan(&call, now).await) {
                (Errand::Plan, Ok(sight)) => Receipt::Planned(Box::new(planned(action, sight, job.step.expires_ms, now))),
                (Errand::Plan, Err(words)) => Receipt::Refused(words),
                (_, _) => Receipt::Refused("there is no plan".to_owned()),
            };
        };
        match job.errand {
            Errand::Plan => Receipt::Refused("planned already".to_owned()),
            Errand::Apply => self.provider.apply(&call, plan, now).await,
            Errand::Undo => self.provider.undo(&call, plan, now).await,
            Errand::Verify | Errand::VerifyUndo => match self.provider.read(&call, plan, job.errand == Errand::VerifyUndo, now).await {
                Ok((as_wanted, words)) => Receipt::Read { as_wanted, words },
                Err(words) => Receipt::NotSent(words),
            },
        }
    }
}

fn planned(action: &Action, sight: Sight, expires_ms: i64, now: Time) -> Plan {
    let hash = Plan::hash_of(action, &sight.before, &sight.version, &sight.request);
    let Sight { before, version, request, change, is_noop, can_undo } = sight;
    Plan { hash, at: now, expires_at: now.plus_ms(expires_ms), before, version, request, change, is_noop, can_undo }
}

// === what providers share ===

/// Reads knobs from a table and gathers everything that is wrong.
struct Reader<'a> {
    table: &'a Table,
    problems: Vec<(String, String)>,
}

impl<'a> Reader<'a> {
    fn new(table: &'a Table) -> Reader<'a> {
        Reader { table, problems: Vec::new() }
    }

    fn text(&self, key: &str) -> Option<String> {
        self.table.get(key).and_then(Value::as_str).map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
    }

    fn required(&mut self, key: &str) -> String {
        let found = self.text(key);
        if found.is_none() {
            self.problems.push((key.to_owned(), format!("{key} is required")));
        }
        found.unwrap_or_default()
    }

    fn url(&mut self, key: &str, default: Option<&str>) -> Option<reqwest::Url> {
        let text = self.text(key).or(default.map(str::to_owned))?;
        match http::endpoint(&text) {
            Ok(url) => Some(url),
            Err(why) => {
                self.problems.push((key.to_owned(), format!("{key} {why}")));
                None
            }
        }
    }

    /// From `key` or from the file that `<key>_file` names.
    fn secret(&mut self, key: &str) -> Option<SecretString> {
        let file_key = format!("{key}_file");
        if let Some(secret) = self.text(key) {
            return Some(secret.into());
        }
        let path = self.text(&file_key)?;
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned().into()),
            Ok(_) => {
                self.problems.push((file_key, format!("file {path} is empty")));
                None
            }
            Err(why) => {
                self.problems.push((file_key, format!("file {path} cannot be read: {why}")));
                None
            }
        }
    }

    fn client(&mut self, common: &Common, secrets: Vec<SecretString>) -> Option<Client> {
        let pem = self.secret(CA.name);
        match Client::with_authority(&common.version, false, false, secrets, pem.as_ref().map(|p| p.expose_secret().as_bytes())) {
            Ok(client) => Some(client),
            Err(why) => {
                self.problems.push(("url".to_owned(), why));
                None
            }
        }
    }
}

/// A value for a header that is not to be printed.
fn sensitive(text: &SecretString) -> HeaderValue {
    let mut value = HeaderValue::from_str(text.expose_secret()).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn headers(pairs: &[(HeaderName, HeaderValue)], content_type: &'static str) -> HeaderMap {
    let mut map: HeaderMap = pairs.iter().cloned().collect();
    map.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    map
}

/// What an answer to a change means: 2xx did it, 409 and 412 say that the world has moved, other 4xx refuse; a server's own failure
/// may have come after the deed.
///
/// # Errors
/// With the receipt, when it was not simply done.
pub fn judged(answer: Result<Answer, Failure>) -> Result<Answer, Receipt> {
    match answer {
        Ok(answer) if answer.is_success() => Ok(answer),
        Ok(answer) => Err(match answer.status {
            409 | 412 => Receipt::Moved(answer.detail()),
            429 => Receipt::NotSent(answer.detail()),
            300..=499 => Receipt::Refused(answer.detail()),
            _ => Receipt::Unknown(answer.detail()),
        }),
        Err(failure) => Err(match failure {
            Failure::NotSent(_) | Failure::Untrusted(_) => Receipt::NotSent(failure.to_string()),
            Failure::Unfit(_) => Receipt::Refused(failure.to_string()),
            Failure::Lost(_) => Receipt::Unknown(failure.to_string()),
        }),
    }
}

/// The JSON of a good answer to a question.
fn looked(answer: Result<Answer, Failure>) -> Result<Value, String> {
    match answer {
        Ok(answer) if answer.is_success() => {
            serde_json::from_slice(&answer.body).map_err(|e| format!("the answer is not JSON that can be read: {e}"))
        }
        Ok(answer) => Err(answer.detail()),
        Err(failure) => Err(failure.to_string()),
    }
}

/// The one member that a step must set for this provider.
fn wanted<'a>(set: &'a BTreeMap<String, String>, name: &str) -> Result<&'a str, String> {
    set.get(name).map(String::as_str).ok_or_else(|| format!("the step sets no {name:?}"))
}

/// `base` with path segments behind it, each escaped.
fn join(base: &reqwest::Url, segments: &[&str]) -> Result<reqwest::Url, String> {
    let mut url = base.clone();
    url.path_segments_mut().map_err(|()| "the url has no path".to_owned())?.pop_if_empty().extend(segments);
    Ok(url)
}

/// A vendor's API as far as a test has recorded it: answers by a function, and remembers what was asked.
#[cfg(test)]
pub(crate) mod recorded {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::notify::fixtures;

    /// One request: method, path with query, content type, authorization, body.
    #[derive(Clone, Debug, Default)]
    pub struct Asked {
        pub method: String,
        pub path: String,
        pub content_type: String,
        pub authorization: String,
        pub body: Value,
    }

    pub struct Api {
        pub url: String,
        pub asked: Arc<Mutex<Vec<Asked>>>,
    }

    impl Api {
        pub fn start(answer: impl Fn(&Asked) -> (u16, Value) + Send + 'static) -> Api {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
            let log = Arc::clone(&asked);
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut one = Asked::default();
                    let (mut line, mut length) = (String::new(), 0);
                    reader.read_line(&mut line).unwrap();
                    let mut words = line.split(' ').map(str::to_owned);
                    (one.method, one.path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                    loop {
                        line.clear();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                            break;
                        }
                        let (name, value) = line.split_once(':').unwrap_or_default();
                        match name.to_ascii_lowercase().as_str() {
                            "content-length" => length = value.trim().parse().unwrap_or(0),
                            "content-type" => value.trim().clone_into(&mut one.content_type),
                            "authorization" => value.trim().clone_into(&mut one.authorization),
                            _ => {}
                        }
                    }
                    let mut body = vec![0; length];
                    let _ = reader.read_exact(&mut body);
                    one.body = serde_json::from_slice(&body).unwrap_or_default();
                    let (status, answer) = answer(&one);
                    log.lock().unwrap().push(one);
                    let answer = answer.to_string();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                        answer.len()
                    );
                    let _ = stream.write_all(format!("{head}{answer}").as_bytes());
                }
            });
            Api { url, asked }
        }

        pub fn writes(&self) -> Vec<Asked> {
            self.asked.lock().unwrap().iter().filter(|a| a.method != "GET").cloned().collect()
        }
    }

    /// A step's way through a provider, without the engine around it.
    pub struct Way {
        actor: Actor,
        job: Job,
    }

    impl Way {
        pub fn new(kind: &Kind, knobs: &[(&str, Value)], target: &str, set: &[(&str, &str)]) -> Way {
            let provider = (kind.build)("x", &fixtures::common(), &fixtures::table(knobs)).unwrap_or_else(|p| panic!("{p:?}"));
            let set = set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let action = Action { using: "x".into(), target: target.into(), set };
            let state = crate::domain::StepState::Planned;
            let step = crate::domain::response::Step { action: Some(action.into()), state, ..crate::domain::response::fixtures::step("s") };
            let job = Job::new(&fixtures::incident(), &step, Errand::Plan);
            Way { actor: Actor { provider, targets: vec![target.to_owned()] }, job }
        }

        /// One errand; a plan is kept for the next.
        pub async fn go(&mut self, errand: Errand) -> Receipt {
            self.job.errand = errand;
            if errand == Errand::Plan {
                self.job.step.plan = None;
            }
            let receipt = self.actor.run(&self.job, Time(0)).await;
            if let Receipt::Planned(plan) = &receipt {
                self.job.step.plan = Some((**plan).clone());
            }
            receipt
        }

        pub async fn is(&mut self, errand: Errand) -> bool {
            matches!(self.go(errand).await, Receipt::Read { as_wanted: true, .. })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_and_every_knob_says_what_it_is_for() {
        let names: std::collections::BTreeSet<_> = KINDS.iter().map(|k| k.name).collect();
        assert_eq!(names.len(), KINDS.len());
        for kind in KINDS {
            assert!(!kind.about.is_empty() && kind.knobs.iter().all(|k| !k.about.is_empty()), "{}", kind.name);
        }
    }

    #[test]
    fn an_answer_says_how_far_it_came() {
        let answer = |status| Ok(Answer { status, ..Answer::default() });
        let said = |status| judged(answer(status)).err().map(|r| r.as_str());
        for (status, receipt) in [
            (409, "moved"),
            (412, "moved"),
            (403, "refused"),
            (404, "refused"),
            (302, "refused"),
            (429, "not_sent"),
            (500, "unknown"),
            (503, "unknown"),
        ] {
            assert_eq!(said(status), Some(receipt), "{status}");
        }
        assert_eq!(said(200), None);
        assert_eq!(judged(Err(Failure::Lost(String::new()))).err().map(|r| r.as_str()), Some("unknown"));
        assert_eq!(judged(Err(Failure::NotSent(String::new()))).err().map(|r| r.as_str()), Some("not_sent"));
    }
}
