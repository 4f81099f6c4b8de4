//! Traffic and rollouts in Kubernetes, by plain patches: KServe's canary, the weights of a Gateway API route, an Argo rollout.
//!
//! No client library: three kinds of objects, one GET and one PATCH each. A JSON patch begins with a `test` of the object's
//! `resourceVersion`, so the API server itself refuses when the world has moved. Dry runs ask the API server with `dryRun=All`,
//! which also tells whether we may. An object that a GitOps tool tracks will be put back by it, and the plan says so.

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{Call, Kind, Provider, Reader, Set, Sight, headers, join, judged, looked, wanted};
use crate::domain::Time;
use crate::domain::response::{Plan, Receipt};
use crate::notify::http::Client;
use crate::notify::{Common, Form, Knob, Table};

/// Of an answer that says why the test of the version failed.
const TEST_FAILED: u16 = 422;
/// Annotations by which GitOps tools mark what is theirs.
const TRACKED: &[&str] = &["argocd.argoproj.io/tracking-id", "kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"];

pub const KIND: Kind = Kind {
    name: "kubernetes",
    about: "objects of one namespace: InferenceService (canary), HTTPRoute (weights), Rollout (abort)",
    knobs: &[
        Knob { name: "url", about: "the API server; https://kubernetes.default.svc if left out", form: Form::Url, required: false },
        Knob { name: "token", about: "of a service account that may get and patch the targets", form: Form::Secret, required: true },
        Knob { name: "ca", about: "the certificate authority of the API server, in PEM; usually ca_file", form: Form::Secret, required: false },
        Knob { name: "namespace", about: "where the objects are", form: Form::Text, required: true },
    ],
    sets: &[
        Set { name: "canary_percent", about: "of an InferenceService: traffic of the newest revision", words: &[] },
        Set { name: "weight", about: "of an HTTPRoute: BACKEND=WEIGHT, several with spaces between", words: &[] },
        Set { name: "rule", about: "of an HTTPRoute: the rule's name, where it has more than one", words: &[] },
        Set { name: "abort", about: "of a Rollout: true gives the traffic to the stable version", words: &["true", "false"] },
    ],
    build,
};

struct Kubernetes {
    url: Url,
    token: SecretString,
    namespace: String,
    client: Client,
}

fn build(_name: &str, common: &Common, table: &Table) -> Result<Box<dyn Provider>, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let namespace = r.required("namespace");
    let url = r.url("url", Some("https://kubernetes.default.svc"));
    let token = r.secret("token");
    if token.is_none() && r.problems.is_empty() {
        r.problems.push(("token".to_owned(), "token is required".to_owned()));
    }
    let pem = r.secret("ca");
    let client =
        Client::with_authority(&common.version, false, false, token.iter().cloned().collect(), pem.as_ref().map(|p| p.expose_secret().as_bytes()));
    let client = client.map_err(|why| r.problems.push(("ca".to_owned(), why))).ok();
    match (url, token, client) {
        (Some(url), Some(token), Some(client)) if r.problems.is_empty() => Ok(Box::new(Kubernetes { url, token, namespace, client })),
        _ => Err(r.problems),
    }
}

/// What of an object is read and written.
struct Object {
    path: Vec<String>,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Canary(i64),
    Weights { rule: Option<String>, weights: Vec<(String, i64)> },
    Abort(bool),
}

impl Kubernetes {
    /// `inferenceservice/NAME`, `httproute/NAME`, `rollout/NAME`.
    fn object(&self, call: &Call<'_>) -> Result<Object, String> {
        let set = &call.action.set;
        let (kind, name) = call.action.target.split_once('/').ok_or("a target is kind/name, such as httproute/assistant")?;
        let (group, version, plural, what) = match kind {
            "inferenceservice" => {
                let percent: i64 = wanted(set, "canary_percent")?.parse().map_err(|_| "canary_percent is no whole number")?;
                if !(0..=100).contains(&percent) {
                    return Err(format!("canary_percent {percent} is not from 0 to 100"));
                }
                ("serving.kserve.io", "v1beta1", "inferenceservices", What::Canary(percent))
            }
            "httproute" => {
                let weights = wanted(set, "weight")?.split_whitespace().map(|pair| {
                    let (backend, weight) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is not BACKEND=WEIGHT"))?;
                    let weight: i64 = weight.parse().map_err(|_| format!("{weight:?} is no weight"))?;
                    if (0..=1_000_000).contains(&weight) {
                        Ok((backend.to_owned(), weight))
                    } else {
                        Err(format!("weight {weight} is not from 0 to 1000000"))
                    }
                });
                let weights = weights.collect::<Result<Vec<_>, String>>()?;
                ("gateway.networking.k8s.io", "v1", "httproutes", What::Weights { rule: set.get("rule").cloned(), weights })
            }
            "rollout" => ("argoproj.io", "v1alpha1", "rollouts", What::Abort(wanted(set, "abort")? == "true")),
            other => return Err(format!("unknown kind {other:?} (known: inferenceservice, httproute, rollout)")),
        };
        let path = ["apis", group, version, "namespaces", &self.namespace, plural, name].map(str::to_owned).to_vec();
        Ok(Object { path, what })
    }

    fn headers(&self, content_type: &'static str) -> HeaderMap {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.token.expose_secret())).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        headers(&[(AUTHORIZATION, value)], content_type)
    }

    fn place(&self, object: &Object, below: &[&str]) -> Result<Url, String> {
        let all: Vec<&str> = object.path.iter().map(String::as_str).chain(below.iter().copied()).collect();
        join(&self.url, &all)
    }

    async fn get(&self, object: &Object, now: Time) -> Result<Value, String> {
        looked(self.client.request(Method::GET, &self.place(object, &[])?, self.headers("application/json"), vec![], now).await)
    }

    async fn patch(&self, object: &Object, what: &What, document: &Value, version: &str, dry: bool, now: Time) -> Result<(), Receipt> {
        let below: &[&str] = if matches!(what, What::Abort(_)) { &["status"] } else { &[] };
        let refused = Receipt::Refused;
        let mut url = self.place(object, below).map_err(refused)?;
        url.query_pairs_mut().append_pair("fieldManager", "bellwether");
        if dry {
            url.query_pairs_mut().append_pair("dryRun", "All");
        }
        let body = patch_of(what, document, version).map_err(refused)?.to_string().into_bytes();
        let answer = self.client.request(Method::PATCH, &url, self.headers("application/json-patch+json"), body, now).await;
        match answer {
            // This is how the API server says that a `test` did not hold.
            Ok(a) if a.status == TEST_FAILED && String::from_utf8_lossy(&a.body).contains("test") => Err(Receipt::Moved(a.detail())),
            answer => judged(answer).map(|_| ()),
        }
    }
}

/// What the object says of it now; None where it says nothing.
fn seen(what: &What, document: &Value) -> Result<What, String> {
    match what {
        // Without the member, all traffic goes to the newest revision.
        What::Canary(_) => Ok(What::Canary(document["spec"]["predictor"]["canaryTrafficPercent"].as_i64().unwrap_or(100))),
        What::Abort(_) => Ok(What::Abort(document["status"]["abort"].as_bool().unwrap_or(false))),
        What::Weights { rule, weights } => {
            let (_, backends) = backends(rule.as_deref(), document)?;
            let of = |name: &str| backends.iter().find(|b| b["name"] == name).map(|b| b["weight"].as_i64().unwrap_or(1));
            let now = weights.iter().map(|(name, _)| Ok((name.clone(), of(name).ok_or_else(|| format!("the route has no backend {name:?}"))?)));
            Ok(What::Weights { rule: rule.clone(), weights: now.collect::<Result<_, String>>()? })
        }
    }
}

/// The rule by its name, or the only one; never by its place alone.
fn backends<'a>(rule: Option<&str>, document: &'a Value) -> Result<(usize, &'a [Value]), String> {
    let rules = document["spec"]["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    let at = match (rule, rules) {
        (Some(name), _) => rules.iter().position(|r| r["name"] == name).ok_or_else(|| format!("the route has no rule {name:?}"))?,
        (None, [_]) => 0,
        (None, _) => return Err(format!("the route has {} rules; name one with rule", rules.len())),
    };
    Ok((at, rules[at]["backendRefs"].as_array().map(Vec::as_slice).unwrap_or_default()))
}

fn patch_of(what: &What, document: &Value, version: &str) -> Result<Value, String> {
    let mut patch = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    match what {
        What::Canary(percent) => patch.push(json!({"op": "add", "path": "/spec/predictor/canaryTrafficPercent", "value": percent})),
        What::Abort(abort) => patch.push(json!({"op": "add", "path": "/status/abort", "value": abort})),
        What::Weights { rule, weights } => {
            let (at, backends) = backends(rule.as_deref(), document)?;
            for (name, weight) in weights {
                let backend = backends.iter().position(|b| b["name"] == name.as_str()).ok_or_else(|| format!("the route has no backend {name:?}"))?;
                patch.push(json!({"op": "add", "path": format!("/spec/rules/{at}/backendRefs/{backend}/weight"), "value": weight}));
            }
            let after = |b: &Value| weights.iter().find(|(n, _)| b["name"] == n.as_str()).map_or_else(|| b["weight"].as_i64().unwrap_or(1), |w| w.1);
            if backends.iter().all(|b| after(b) == 0) {
                return Err("every weight would be 0, and the route would answer 500".to_owned());
            }
        }
    }
    Ok(Value::Array(patch))
}

impl What {
    fn words(&self) -> String {
        match self {
            What::Canary(percent) => format!("canary {percent} %"),
            What::Abort(abort) => if *abort { "aborted" } else { "not aborted" }.to_owned(),
            What::Weights { weights, .. } => weights.iter().map(|(n, w)| format!("{n}={w}")).collect::<Vec<_>>().join(" "),
        }
    }

    /// What [`What::words`] said of this kind.
    fn read(&self, words: &str) -> Option<What> {
        match self {
            What::Canary(_) => words.strip_prefix("canary ")?.strip_suffix(" %")?.parse().ok().map(What::Canary),
            What::Abort(_) => Some(What::Abort(words == "aborted")),
            What::Weights { rule, .. } => {
                let weights = words.split_whitespace().map(|p| p.split_once('=').and_then(|(n, w)| Some((n.to_owned(), w.parse().ok()?))));
                Some(What::Weights { rule: rule.clone(), weights: weights.collect::<Option<_>>()? })
            }
        }
    }
}

fn version_of(document: &Value) -> String {
    document["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

#[async_trait]
impl Provider for Kubernetes {
    async fn plan(&self, call: &Call<'_>, now: Time) -> Result<Sight, String> {
        let object = self.object(call)?;
        let document = self.get(&object, now).await?;
        let (before, version) = (seen(&object.what, &document)?, version_of(&document));
        // The API server says whether it would take it, and whether we may.
        self.patch(&object, &object.what, &document, &version, true, now).await.map_err(|r| format!("dry run: {}", r.words()))?;
        let tracked = TRACKED.iter().any(|a| document["metadata"]["annotations"][a].is_string());
        let warning = if tracked { "; a GitOps tool tracks this object and will put it back unless it is paused" } else { "" };
        let raw =
            document["metadata"]["annotations"]["serving.kserve.io/deploymentMode"].as_str().is_some_and(|m| m.starts_with("Raw") || m == "Standard");
        if raw && matches!(object.what, What::Canary(_)) {
            return Err("this service runs in raw deployment mode, which ignores the canary's share; use its route".to_owned());
        }
        Ok(Sight {
            request: format!("PATCH /{} {}", object.path.join("/"), patch_of(&object.what, &document, &version)?),
            change: format!("{}: {} -> {}{warning}", call.action.target, before.words(), object.what.words()),
            is_noop: before == object.what,
            before: before.words(),
            version,
            can_undo: true,
        })
    }

    async fn apply(&self, call: &Call<'_>, plan: &Plan, now: Time) -> Receipt {
        let object = match self.object(call) {
            Ok(object) => object,
            Err(words) => return Receipt::Refused(words),
        };
        let document = match self.get(&object, now).await {
            Ok(document) => document,
            Err(words) => return Receipt::NotSent(words),
        };
        // Controllers write the status all the time, and each write is a new version: what counts is that what we change is as it was.
        match seen(&object.what, &document) {
            Ok(found) if found.words() != plan.before => return Receipt::Moved(format!("it is {} by now", found.words())),
            Ok(_) => {}
            Err(words) => return Receipt::Refused(words),
        }
        match self.patch(&object, &object.what, &document, &version_of(&document), false, now).await {
            Ok(()) => Receipt::Done(format!("patched to {}", object.what.words())),
            Err(receipt) => receipt,
        }
    }

    async fn read(&self, call: &Call<'_>, plan: &Plan, undone: bool, now: Time) -> Result<(bool, String), String> {
        let object = self.object(call)?;
        let found = seen(&object.what, &self.get(&object, now).await?)?;
        let expected = if undone { plan.before.clone() } else { object.what.words() };
        Ok((found.words() == expected, format!("it is {}", found.words())))
    }

    async fn undo(&self, call: &Call<'_>, plan: &Plan, now: Time) -> Receipt {
        let (object, document) = match self.object(call) {
            Ok(object) => match self.get(&object, now).await {
                Ok(document) => (object, document),
                Err(words) => return Receipt::NotSent(words),
            },
            Err(words) => return Receipt::Refused(words),
        };
        match seen(&object.what, &document) {
            Ok(found) if found != object.what => return Receipt::Moved(format!("it is {} by now", found.words())),
            Ok(_) => {}
            Err(words) => return Receipt::Refused(words),
        }
        let Some(before) = object.what.read(&plan.before) else { return Receipt::Refused("what was before cannot be read".to_owned()) };
        match self.patch(&object, &before, &document, &version_of(&document), false, now).await {
            Ok(()) => Receipt::Done(format!("patched back to {}", before.words())),
            Err(receipt) => receipt,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::recorded::{Api, Way};
    use super::*;
    use crate::domain::response::Errand;

    /// An API server with one object, which applies JSON patches as the real one does: all or nothing, 422 when a test fails.
    fn api(object: Value) -> (Api, Arc<Mutex<Value>>) {
        let object = Arc::new(Mutex::new(object));
        let inside = Arc::clone(&object);
        let api = Api::start(move |asked| {
            let mut object = inside.lock().unwrap();
            if asked.method == "GET" {
                return (200, object.clone());
            }
            let mut next = object.clone();
            for op in asked.body.as_array().into_iter().flatten() {
                let path = op["path"].as_str().unwrap();
                if op["op"] == "test" {
                    if next.pointer(path) != Some(&op["value"]) {
                        let words =
                            format!("the server rejected our request due to an error in our request: testing value {path} failed: test failed");
                        return (422, json!({"kind": "Status", "status": "Failure", "message": words, "code": 422}));
                    }
                    continue;
                }
                let (parent, name) = path.rsplit_once('/').unwrap();
                let Some(parent) = next.pointer_mut(parent) else {
                    return (422, json!({"message": "add operation does not apply: doc is missing path"}));
                };
                parent[name] = op["value"].clone();
            }
            if !asked.path.contains("dryRun=All") {
                let version: u64 = next["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                next["metadata"]["resourceVersion"] = (version + 1).to_string().into();
                *object = next.clone();
            }
            (200, next)
        });
        (api, object)
    }

    fn way(api: &Api, target: &str, set: &[(&str, &str)]) -> Way {
        Way::new(&KIND, &[("url", api.url.clone().into()), ("token", "sa-token-1".into()), ("namespace", "models".into())], target, set)
    }

    fn route() -> Value {
        json!({"metadata": {"resourceVersion": "41", "annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "spec": {"rules": [
            {"name": "health", "backendRefs": [{"name": "stable"}]},
            {"name": "main", "backendRefs": [{"name": "stable", "weight": 90}, {"name": "canary", "weight": 10}]}]}})
    }

    #[tokio::test]
    async fn weights_of_a_route_are_moved_and_moved_back() {
        let (api, object) = api(route());
        let mut way = way(&api, "httproute/assistant", &[("rule", "main"), ("weight", "canary=0 stable=100")]);
        let Receipt::Planned(plan) = way.go(Errand::Plan).await else { panic!("no plan") };
        assert!(plan.change.contains("canary=10 stable=90 -> canary=0 stable=100") && plan.change.contains("GitOps"), "{}", plan.change);
        assert_eq!(object.lock().unwrap()["metadata"]["resourceVersion"], "41", "a dry run changes nothing");
        assert_eq!(way.go(Errand::Apply).await.as_str(), "done");
        assert!(way.is(Errand::Verify).await);
        let write = api.writes().pop().unwrap();
        assert!(
            write.path.starts_with("/apis/gateway.networking.k8s.io/v1/namespaces/models/httproutes/assistant?fieldManager=bellwether"),
            "{}",
            write.path
        );
        assert_eq!((write.authorization.as_str(), write.content_type.as_str()), ("Bearer sa-token-1", "application/json-patch+json"));
        assert_eq!(write.body[0], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "41"}));
        assert_eq!(way.go(Errand::Apply).await.as_str(), "moved");
        assert_eq!(way.go(Errand::Undo).await.as_str(), "done");
        assert!(way.is(Errand::VerifyUndo).await);
        assert_eq!(object.lock().unwrap()["spec"], route()["spec"]);
    }

    #[tokio::test]
    async fn a_rollout_is_aborted_by_its_status_and_a_canary_gets_nothing() {
        let (api1, rollout) = api(json!({"metadata": {"resourceVersion": "7"}, "spec": {}, "status": {"phase": "Progressing"}}));
        let mut way1 = way(&api1, "rollout/assistant", &[("abort", "true")]);
        assert_eq!(way1.go(Errand::Plan).await.as_str(), "planned");
        assert_eq!(way1.go(Errand::Apply).await.as_str(), "done");
        assert_eq!(rollout.lock().unwrap()["status"]["abort"], true);
        assert!(api1.writes().pop().unwrap().path.starts_with("/apis/argoproj.io/v1alpha1/namespaces/models/rollouts/assistant/status?"));
        assert_eq!(way1.go(Errand::Undo).await.as_str(), "done");
        assert_eq!(rollout.lock().unwrap()["status"]["abort"], false);

        let (api2, service) = api(json!({"metadata": {"resourceVersion": "7"}, "spec": {"predictor": {"canaryTrafficPercent": 20}}}));
        let mut way2 = way(&api2, "inferenceservice/assistant", &[("canary_percent", "0")]);
        assert_eq!(way2.go(Errand::Plan).await.as_str(), "planned");
        // Somebody else is quicker.
        service.lock().unwrap()["spec"]["predictor"]["canaryTrafficPercent"] = 50.into();
        assert_eq!(way2.go(Errand::Apply).await.as_str(), "moved");
        assert_eq!(way2.go(Errand::Plan).await.as_str(), "planned");
        assert_eq!(way2.go(Errand::Apply).await.as_str(), "done");
        assert_eq!(service.lock().unwrap()["spec"]["predictor"]["canaryTrafficPercent"], 0);
    }

    #[tokio::test]
    async fn what_would_do_harm_is_not_planned() {
        let raw = json!({"metadata": {"resourceVersion": "7", "annotations": {"serving.kserve.io/deploymentMode": "RawDeployment"}}, "spec": {"predictor": {}}});
        for (object, target, set, piece) in [
            (route(), "httproute/a", vec![("rule", "main"), ("weight", "canary=0 stable=0")], "would answer 500"),
            (route(), "httproute/a", vec![("weight", "canary=0")], "2 rules; name one"),
            (route(), "httproute/a", vec![("rule", "main"), ("weight", "green=1")], "no backend \"green\""),
            (route(), "httproute/a", vec![("rule", "mane"), ("weight", "canary=1")], "no rule \"mane\""),
            (route(), "httproute/a", vec![("rule", "main"), ("weight", "canary=-1")], "not from 0 to 1000000"),
            (raw, "inferenceservice/a", vec![("canary_percent", "0")], "raw deployment mode"),
            (json!({}), "pod/a", vec![("abort", "true")], "unknown kind \"pod\""),
        ] {
            let (api, _) = api(object);
            let receipt = way(&api, target, &set).go(Errand::Plan).await;
            assert!(receipt.as_str() == "refused" && receipt.words().contains(piece), "{receipt:?}");
        }
    }
}
