//! A feature of Unleash, on or off in one environment, by its admin API.
//!
//! Where change requests are required over there, the answer is 403, and its words are shown.

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Method, Url};
use secrecy::SecretString;

use super::{Call, Kind, Provider, Reader, Set, Sight, headers, join, judged, looked, sensitive, wanted};
use crate::domain::Time;
use crate::domain::response::{Plan, Receipt};
use crate::notify::http::Client;
use crate::notify::{Common, Form, Knob, Table};

pub const KIND: Kind = Kind {
    name: "unleash",
    about: "a feature of Unleash: on or off in one environment",
    knobs: &[
        Knob { name: "url", about: "the server, such as https://unleash.example", form: Form::Url, required: true },
        Knob { name: "token", about: "an admin or personal token", form: Form::Secret, required: true },
        Knob { name: "project", about: "the project; default if left out", form: Form::Text, required: false },
        Knob { name: "environment", about: "the environment; production if left out", form: Form::Text, required: false },
    ],
    sets: &[Set { name: "state", about: "on or off", words: &["on", "off"] }],
    build,
};

struct Unleash {
    url: Url,
    token: SecretString,
    project: String,
    environment: String,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Box<dyn Provider>, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    r.required("url");
    let url = r.url("url", None);
    let token = r.secret("token");
    if token.is_none() && r.problems.is_empty() {
        r.problems.push(("token".to_owned(), "token is required".to_owned()));
    }
    let project = r.text("project").unwrap_or_else(|| "default".to_owned());
    let environment = r.text("environment").unwrap_or_else(|| "production".to_owned());
    match (url, token.clone(), r.client(common, token.into_iter().collect())) {
        (Some(url), Some(token), Some(client)) if r.problems.is_empty() => Ok(Box::new(Unleash { url, token, project, environment, client })),
        _ => Err(r.problems),
    }
}

impl Unleash {
    fn headers(&self) -> HeaderMap {
        headers(&[(AUTHORIZATION, sensitive(&self.token))], "application/json")
    }

    async fn is_on(&self, feature: &str, now: Time) -> Result<bool, String> {
        let url = join(&self.url, &["api", "admin", "projects", &self.project, "features", feature])?;
        let document = looked(self.client.request(Method::GET, &url, self.headers(), vec![], now).await)?;
        let found = document["environments"].as_array().into_iter().flatten().find(|e| e["name"] == self.environment.as_str());
        found.and_then(|e| e["enabled"].as_bool()).ok_or_else(|| format!("feature {feature:?} has no environment {:?}", self.environment))
    }

    fn path(&self, feature: &str, state: &str) -> String {
        format!("/api/admin/projects/{}/features/{feature}/environments/{}/{state}", self.project, self.environment)
    }

    async fn switch(&self, call: &Call<'_>, from: &str, to: &str, now: Time) -> Receipt {
        let feature = call.action.target.as_str();
        match self.is_on(feature, now).await {
            Ok(on) if word(on) != from => return Receipt::Moved(format!("the feature is {}", word(on))),
            Ok(_) => {}
            Err(words) => return Receipt::NotSent(words),
        }
        let url = match join(&self.url, &["api", "admin", "projects", &self.project, "features", feature, "environments", &self.environment, to]) {
            Ok(url) => url,
            Err(words) => return Receipt::Refused(words),
        };
        match judged(self.client.request(Method::POST, &url, self.headers(), vec![], now).await) {
            Ok(answer) => Receipt::Done(format!("{} answered {}", self.url.host_str().unwrap_or_default(), answer.status)),
            Err(receipt) => receipt,
        }
    }
}

fn word(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

#[async_trait]
impl Provider for Unleash {
    async fn plan(&self, call: &Call<'_>, now: Time) -> Result<Sight, String> {
        let (feature, state) = (call.action.target.as_str(), wanted(&call.action.set, "state")?);
        let before = word(self.is_on(feature, now).await?);
        Ok(Sight {
            before: before.to_owned(),
            version: before.to_owned(),
            request: format!("POST {}", self.path(feature, state)),
            change: format!("{feature}: {before} -> {state}"),
            is_noop: before == state,
            can_undo: true,
        })
    }

    async fn apply(&self, call: &Call<'_>, plan: &Plan, now: Time) -> Receipt {
        match wanted(&call.action.set, "state") {
            Ok(state) => self.switch(call, &plan.version, state, now).await,
            Err(words) => Receipt::Refused(words),
        }
    }

    async fn read(&self, call: &Call<'_>, plan: &Plan, undone: bool, now: Time) -> Result<(bool, String), String> {
        let state = word(self.is_on(&call.action.target, now).await?);
        let expected = if undone { plan.before.as_str() } else { wanted(&call.action.set, "state")? };
        Ok((state == expected, format!("the feature is {state}")))
    }

    async fn undo(&self, call: &Call<'_>, plan: &Plan, now: Time) -> Receipt {
        match wanted(&call.action.set, "state") {
            Ok(state) => self.switch(call, state, &plan.before, now).await,
            Err(words) => Receipt::Refused(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::super::recorded::{Api, Way};
    use super::*;
    use crate::domain::response::Errand;

    #[tokio::test]
    async fn a_feature_is_switched_off_and_on_again_and_a_change_request_is_told() {
        let on = Arc::new(Mutex::new((true, false)));
        let inside = Arc::clone(&on);
        let api = Api::start(move |asked| {
            let mut state = inside.lock().unwrap();
            if asked.method == "POST" {
                if state.1 {
                    return (403, json!({"message": "Change requests are enabled in project default for environment production"}));
                }
                state.0 = asked.path.ends_with("/on");
            }
            (200, json!({"name": "gate", "environments": [{"name": "development", "enabled": true}, {"name": "production", "enabled": state.0}]}))
        });
        let knobs = [("url", api.url.clone().into()), ("token", "admin-token-1".into())];
        let mut way = Way::new(&KIND, &knobs, "gate", &[("state", "off")]);
        let Receipt::Planned(plan) = way.go(Errand::Plan).await else { panic!("no plan") };
        assert_eq!(plan.change, "gate: on -> off");
        assert_eq!(way.go(Errand::Apply).await.as_str(), "done");
        assert!(way.is(Errand::Verify).await);
        let write = &api.writes()[0];
        assert_eq!(
            (write.path.as_str(), write.authorization.as_str()),
            ("/api/admin/projects/default/features/gate/environments/production/off", "admin-token-1")
        );
        assert_eq!(way.go(Errand::Apply).await.as_str(), "moved");
        assert_eq!(way.go(Errand::Undo).await.as_str(), "done");
        assert!(way.is(Errand::VerifyUndo).await && on.lock().unwrap().0);
        on.lock().unwrap().1 = true;
        let refused = way.go(Errand::Apply).await;
        assert!(refused.as_str() == "refused" && refused.words().contains("Change requests"), "{refused:?}");
    }
}
