//! A flag of LaunchDarkly, by its semantic patches: on or off in one environment, or another variation served by default.
//!
//! The API knows no precondition, so the flag's version is read once more just before the patch; 409 says that somebody was
//! quicker still. Where changes need approval over there, the answer is 403 or 405, and its words are shown.

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, Url};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{Call, Kind, Provider, Reader, Set, Sight, headers, join, judged, looked, sensitive};
use crate::domain::Time;
use crate::domain::response::{Plan, Receipt};
use crate::notify::http::Client;
use crate::notify::{Common, Form, Knob, Table};

const PATCH_TYPE: &str = "application/json; domain-model=launchdarkly.semanticpatch";

pub const KIND: Kind = Kind {
    name: "launchdarkly",
    about: "a flag of LaunchDarkly: on, off, or the variation that is served by default",
    knobs: &[
        Knob { name: "token", about: "an API access token that may write these flags", form: Form::Secret, required: true },
        Knob { name: "project", about: "key of the project", form: Form::Text, required: true },
        Knob { name: "environment", about: "key of the environment", form: Form::Text, required: true },
        Knob { name: "url", about: "https://app.launchdarkly.com if left out", form: Form::Url, required: false },
    ],
    sets: &[
        Set { name: "state", about: "on or off", words: &["on", "off"] },
        Set { name: "variation", about: "index or id of the variation that is served by default", words: &[] },
    ],
    build,
};

struct LaunchDarkly {
    url: Url,
    token: SecretString,
    project: String,
    environment: String,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Box<dyn Provider>, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let (project, environment) = (r.required("project"), r.required("environment"));
    let url = r.url("url", Some("https://app.launchdarkly.com"));
    let token = r.secret("token");
    if token.is_none() && r.problems.is_empty() {
        r.problems.push(("token".to_owned(), "token is required".to_owned()));
    }
    match (url, token.clone(), r.client(common, token.into_iter().collect())) {
        (Some(url), Some(token), Some(client)) if r.problems.is_empty() => Ok(Box::new(LaunchDarkly { url, token, project, environment, client })),
        _ => Err(r.problems),
    }
}

/// A flag in its environment, as far as it concerns us.
#[derive(Debug, PartialEq)]
struct Flag {
    on: bool,
    /// Index served by default; None where a rollout is.
    variation: Option<u64>,
    /// `_id` of each variation.
    ids: Vec<String>,
    version: String,
}

impl LaunchDarkly {
    fn place(&self, flag: &str) -> Result<Url, String> {
        join(&self.url, &["api", "v2", "flags", &self.project, flag])
    }

    fn headers(&self, content_type: &'static str) -> HeaderMap {
        headers(&[(AUTHORIZATION, sensitive(&self.token))], content_type)
    }

    async fn look(&self, flag: &str, now: Time) -> Result<Flag, String> {
        let mut url = self.place(flag)?;
        url.query_pairs_mut().append_pair("env", &self.environment);
        let document = looked(self.client.request(Method::GET, &url, self.headers("application/json"), vec![], now).await)?;
        let environment = &document["environments"][&self.environment];
        let on = environment["on"].as_bool().ok_or_else(|| format!("flag {flag:?} has no environment {:?}", self.environment))?;
        Ok(Flag {
            on,
            variation: environment["fallthrough"]["variation"].as_u64(),
            ids: document["variations"].as_array().into_iter().flatten().filter_map(|v| v["_id"].as_str().map(str::to_owned)).collect(),
            version: environment["version"].to_string(),
        })
    }

    /// Instructions that lead from `flag` to what is asked for, and the state in few words.
    fn instructions(&self, call: &Call<'_>, flag: &Flag) -> Result<Vec<Value>, String> {
        let mut out = Vec::new();
        if let Some(state) = call.action.set.get("state") {
            out.push(json!({"kind": if state == "on" { "turnFlagOn" } else { "turnFlagOff" }}));
        }
        if let Some(wanted) = call.action.set.get("variation") {
            out.push(json!({"kind": "updateFallthroughVariationOrRollout", "variationId": flag.id_of(wanted)?}));
        }
        if out.is_empty() { Err("the step sets neither \"state\" nor \"variation\"".to_owned()) } else { Ok(out) }
    }

    fn is_as_wanted(call: &Call<'_>, flag: &Flag) -> bool {
        let state = call.action.set.get("state").is_none_or(|s| (s == "on") == flag.on);
        state && call.action.set.get("variation").is_none_or(|wanted| flag.served().is_some_and(|id| flag.id_of(wanted).is_ok_and(|w| w == id)))
    }

    async fn patch(&self, call: &Call<'_>, instructions: &[Value], now: Time) -> Receipt {
        let body = json!({"environmentKey": self.environment, "comment": format!("bellwether {}", call.incident.id), "instructions": instructions});
        let url = match self.place(&call.action.target) {
            Ok(url) => url,
            Err(words) => return Receipt::Refused(words),
        };
        let answer = self.client.request(Method::PATCH, &url, self.headers(PATCH_TYPE), body.to_string().into_bytes(), now).await;
        match judged(answer) {
            Ok(answer) => Receipt::Done(format!("{} answered {}", self.url.host_str().unwrap_or_default(), answer.status)),
            Err(receipt) => receipt,
        }
    }
}

impl Flag {
    fn id_of(&self, wanted: &str) -> Result<String, String> {
        let by_index = wanted.parse::<usize>().ok().and_then(|i| self.ids.get(i)).cloned();
        by_index
            .or_else(|| self.ids.iter().find(|id| *id == wanted).cloned())
            .ok_or_else(|| format!("there is no variation {wanted:?} (there are {})", self.ids.len()))
    }

    fn served(&self) -> Option<String> {
        self.variation.and_then(|i| self.ids.get(i as usize)).cloned()
    }

    fn words(&self) -> String {
        let variation = self.variation.map_or_else(|| "a rollout".to_owned(), |v| format!("variation {v}"));
        format!("{}, {variation}", if self.on { "on" } else { "off" })
    }
}

#[async_trait]
impl Provider for LaunchDarkly {
    async fn plan(&self, call: &Call<'_>, now: Time) -> Result<Sight, String> {
        let flag = self.look(&call.action.target, now).await?;
        let instructions = self.instructions(call, &flag)?;
        let set: Vec<String> = call.action.set.iter().map(|(k, v)| format!("{k} {v}")).collect();
        // A rollout cannot be put back by one variation.
        let can_undo = !call.action.set.contains_key("variation") || flag.variation.is_some();
        Ok(Sight {
            before: json!({"on": flag.on, "variation": flag.served()}).to_string(),
            version: flag.version.clone(),
            request: format!(
                "PATCH /api/v2/flags/{}/{} {}",
                self.project,
                call.action.target,
                json!({"environmentKey": self.environment, "instructions": instructions})
            ),
            change: format!("{}: {} -> {}", call.action.target, flag.words(), set.join(", ")),
            is_noop: Self::is_as_wanted(call, &flag),
            can_undo,
        })
    }

    async fn apply(&self, call: &Call<'_>, plan: &Plan, now: Time) -> Receipt {
        let flag = match self.look(&call.action.target, now).await {
            Ok(flag) => flag,
            Err(words) => return Receipt::NotSent(words),
        };
        if flag.version != plan.version {
            return Receipt::Moved(format!("the flag is at version {}, and the plan saw {}", flag.version, plan.version));
        }
        match self.instructions(call, &flag) {
            Ok(instructions) => self.patch(call, &instructions, now).await,
            Err(words) => Receipt::Refused(words),
        }
    }

    async fn read(&self, call: &Call<'_>, plan: &Plan, undone: bool, now: Time) -> Result<(bool, String), String> {
        let flag = self.look(&call.action.target, now).await?;
        let before: Value = serde_json::from_str(&plan.before).unwrap_or_default();
        let as_before = before["on"] == flag.on && before["variation"] == json!(flag.served());
        Ok((if undone { as_before } else { Self::is_as_wanted(call, &flag) }, format!("the flag is {}", flag.words())))
    }

    async fn undo(&self, call: &Call<'_>, plan: &Plan, now: Time) -> Receipt {
        let flag = match self.look(&call.action.target, now).await {
            Ok(flag) => flag,
            Err(words) => return Receipt::NotSent(words),
        };
        if !Self::is_as_wanted(call, &flag) {
            return Receipt::Moved(format!("the flag is {}", flag.words()));
        }
        let before: Value = serde_json::from_str(&plan.before).unwrap_or_default();
        let mut instructions = Vec::new();
        if call.action.set.contains_key("state") {
            instructions.push(json!({"kind": if before["on"] == true { "turnFlagOn" } else { "turnFlagOff" }}));
        }
        if call.action.set.contains_key("variation") {
            instructions.push(json!({"kind": "updateFallthroughVariationOrRollout", "variationId": before["variation"]}));
        }
        self.patch(call, &instructions, now).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::recorded::{Api, Way};
    use super::*;
    use crate::domain::response::Errand;

    struct Flags {
        on: bool,
        variation: u64,
        version: u64,
        /// What a patch is answered instead.
        refuses: Option<u16>,
    }

    fn api(flags: &Arc<Mutex<Flags>>) -> Api {
        let flags = Arc::clone(flags);
        Api::start(move |asked| {
            let mut f = flags.lock().unwrap();
            if asked.method == "PATCH" {
                if let Some(status) = f.refuses {
                    return (status, json!({"message": "an approval is required"}));
                }
                for i in asked.body["instructions"].as_array().into_iter().flatten() {
                    match i["kind"].as_str().unwrap() {
                        "turnFlagOn" => f.on = true,
                        "turnFlagOff" => f.on = false,
                        _ => f.variation = if i["variationId"] == "id-a" { 0 } else { 1 },
                    }
                }
                f.version += 1;
            }
            let environment = json!({"on": f.on, "version": f.version, "fallthrough": {"variation": f.variation}});
            (200, json!({"key": "mode", "variations": [{"_id": "id-a"}, {"_id": "id-b"}], "environments": {"production": environment}}))
        })
    }

    fn way(api: &Api, set: &[(&str, &str)]) -> Way {
        let knobs =
            [("url", api.url.clone().into()), ("token", "api-token-1".into()), ("project", "default".into()), ("environment", "production".into())];
        Way::new(&KIND, &knobs, "mode", set)
    }

    #[tokio::test]
    async fn a_flag_is_turned_off_once_and_on_again() {
        let flags = Arc::new(Mutex::new(Flags { on: true, variation: 0, version: 7, refuses: None }));
        let api = api(&flags);
        let mut way = way(&api, &[("state", "off"), ("variation", "1")]);
        let Receipt::Planned(plan) = way.go(Errand::Plan).await else { panic!("no plan") };
        assert_eq!((plan.change.as_str(), plan.version.as_str(), plan.is_noop), ("mode: on, variation 0 -> state off, variation 1", "7", false));
        assert!(plan.request.contains("turnFlagOff") && !plan.request.contains("api-token"), "{}", plan.request);
        assert_eq!(way.go(Errand::Apply).await.as_str(), "done");
        assert!(way.is(Errand::Verify).await);
        let write = &api.writes()[0];
        assert_eq!(
            (write.path.as_str(), write.authorization.as_str(), write.content_type.as_str()),
            ("/api/v2/flags/default/mode", "api-token-1", PATCH_TYPE)
        );
        assert_eq!(write.body["environmentKey"], "production");
        assert_eq!(way.go(Errand::Apply).await.as_str(), "moved", "the version is another by now");
        assert_eq!(way.go(Errand::Undo).await.as_str(), "done");
        assert!(way.is(Errand::VerifyUndo).await);
        let (on, variation) = {
            let f = flags.lock().unwrap();
            (f.on, f.variation)
        };
        assert_eq!((on, variation), (true, 0));
        assert_eq!(way.go(Errand::Undo).await.as_str(), "moved", "somebody else's state is left alone");
        assert_eq!(api.writes().len(), 2);
    }

    #[tokio::test]
    async fn refusals_are_told_in_the_vendors_words() {
        let flags = Arc::new(Mutex::new(Flags { on: true, variation: 0, version: 7, refuses: None }));
        let api = api(&flags);
        for (status, expected) in [(403, "refused"), (405, "refused"), (409, "moved"), (429, "not_sent"), (500, "unknown")] {
            let mut way = way(&api, &[("state", "off")]);
            assert_eq!(way.go(Errand::Plan).await.as_str(), "planned");
            flags.lock().unwrap().refuses = Some(status);
            let receipt = way.go(Errand::Apply).await;
            assert_eq!(receipt.as_str(), expected, "{status}");
            assert!(receipt.words().contains("an approval is required"), "{receipt:?}");
            flags.lock().unwrap().refuses = None;
        }
        let mut wrong = way(&api, &[("variation", "5")]);
        assert!(matches!(wrong.go(Errand::Plan).await, Receipt::Refused(w) if w.contains("no variation \"5\"")));
    }
}
