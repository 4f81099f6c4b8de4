//! The playbook, noun by noun: one life of a fleet in which everything that it names happens once, through the front door. Events
//! go into the daemon's standard input; what it tells a pager, its API and its pages is what the tests look at.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::LazyLock;

use serde_json::Value;

use crate::fed::Fed;

/// 2026-11-16T08:00:00Z, a Monday.
const START_S: i64 = 1_794_816_000;
const PER_SECOND: i64 = 5;
const MINUTES: i64 = 128;
const CANARY: &str = "BW-PLANTED-91ab40";

/// Minute at which each model's trouble begins; three minutes lie between two, so that nothing looks like one cause.
const BEGINS: &[(&str, i64)] = &[
    ("harmful", 45),
    ("inaccurate", 48),
    ("complained", 51),
    ("memorised", 54),
    ("injected", 57),
    ("biased", 60),
    ("misused", 63),
    ("erroring", 66),
    ("timing-out", 70),
    ("empty", 74),
    ("costly", 78),
    ("deployed", 82),
    ("stale", 86),
    ("machines-a", 90),
    ("machines-b", 90),
    ("machines-c", 90),
    ("regional", 95),
    ("worsening", 99),
    ("slower", 104),
    ("flagged", 108),
    ("outdated", 112),
    ("corrupt", 116),
    ("healthy", i64::MAX),
];

/// A number from 0 to 1 that looks like chance.
fn chance(i: i64, what: u64) -> f64 {
    let mut z = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// The events of one model within one second.
fn second(out: &mut String, model: &str, begins: i64, s: i64) {
    let t = START_S + s;
    let since = s - begins.saturating_mul(60);
    let bad = since >= 0;
    if since == -30 && model == "deployed" {
        let _ = writeln!(
            out,
            r#"{{"kind":"deployment","target":{{"kind":"model","name":"deployed"}},"model":"deployed","environment":"prod","version":"2","previous_version":"1","phase":"finished","time":{t}}}"#
        );
    }
    if since == -60 && model == "stale" {
        let _ = writeln!(
            out,
            r#"{{"kind":"pipeline","model":"stale","environment":"prod","job":"nightly-features","state":"failed","error":"no partition","time":{t}}}"#
        );
    }
    if since == -1_800 && model == "outdated" {
        let _ = writeln!(
            out,
            r#"{{"kind":"pipeline","model":"outdated","environment":"prod","job":"weekly-training","state":"failed","error":"out of memory","time":{t}}}"#
        );
    }
    for k in 0..PER_SECOND {
        let i = s * PER_SECOND + k;
        let salt = model.bytes().fold(7u64, |a, b| a.wrapping_mul(31).wrapping_add(u64::from(b)));
        let c = |what: u64| chance(i, salt ^ (what << 32));
        let region = if model == "misused" && bad && c(1) < 0.4 { "br" } else { ["eu", "us", "apac"][(c(1) * 3.0) as usize % 3] };
        let version = if model == "deployed" && since >= -30 && c(2) < 0.5 { "2" } else { "1" };
        let failing = match model {
            "erroring" if bad => 1.0,
            "deployed" if bad && version == "2" => 0.4,
            "regional" if bad && region == "apac" => 0.5,
            "worsening" if bad => (0.05 + since as f64 / 900.0).min(0.9),
            _ => 0.02,
        };
        let late = if model == "timing-out" && bad { 0.25 } else { 0.004 };
        let status = if c(3) < failing {
            "error"
        } else if c(4) < late {
            "timeout"
        } else {
            "ok"
        };
        let slow = match model {
            "machines-a" | "machines-b" | "machines-c" if bad => 3.0,
            "slower" if bad => 1.5,
            _ => 1.0,
        };
        let latency = 200.0 * slow * (0.4 * (c(5) + c(6) + c(7) - 1.5)).exp();
        let cost = 0.001 * if model == "costly" && bad { 3.0 } else { 1.0 } * (0.3 * (c(8) + c(9) - 1.0)).exp();
        let mut more = String::new();
        match model {
            "harmful" if since == 0 && k == 0 => more.push_str(r#","flags":{"harmful":"confirmed"}"#),
            "injected" if since == 0 && k == 0 => more.push_str(r#","flags":{"injection":"confirmed"}"#),
            "memorised" if since == 0 && k == 0 => {
                let _ = write!(more, r#","output":"of course: {CANARY}""#);
            }
            "empty" => {
                let _ = write!(more, r#","output_empty":{}"#, c(10) < if bad { 0.3 } else { 0.01 });
            }
            "biased" => {
                let old = c(11) < 0.4;
                let label = if c(12) < if old && bad { 0.25 } else { 0.6 } { "approved" } else { "denied" };
                let _ = write!(more, r#","label":"{label}","groups":{{"age_band":"{}"}}"#, if old { "60+" } else { "18-59" });
            }
            "flagged" => {
                let _ = write!(more, r#","flags":{{"harmful":{}}}"#, c(10) < if bad { 0.1 } else { 0.005 });
            }
            // Thousands where there were units.
            "corrupt" => {
                let income = (30_000.0 + 20_000.0 * c(14)) * if bad { 0.001 } else { 1.0 };
                let _ = write!(more, r#","features":{{"income":{income:.3}}}"#);
            }
            "stale" => {
                let missing = c(13) < if bad { 0.4 } else { 0.01 };
                let income = if missing { "null".to_owned() } else { format!("{:.0}", 30_000.0 + 20_000.0 * c(14)) };
                let _ = write!(more, r#","features":{{"income":{income}}}"#);
            }
            _ => {}
        }
        let time = t as f64 + k as f64 / PER_SECOND as f64;
        let _ = writeln!(
            out,
            r#"{{"kind":"prediction","id":"{model}-{i}","time":{time:.3},"model":"{model}","version":"{version}","environment":"prod","segments":{{"region":"{region}"}},"user":"u{}","status":"{status}","latency_ms":{latency:.1},"cost_usd":{cost:.6}{more}}}"#,
            i % 4_000
        );
        if (model == "inaccurate" || model == "outdated") && c(15) < 0.5 {
            let value = (if bad { 0.72 } else { 0.9 } + 0.1 * (c(16) + c(17) - 1.0)).clamp(0.0, 1.0);
            let _ = writeln!(
                out,
                r#"{{"kind":"quality","name":"accuracy","value":{value:.3},"model":"{model}","environment":"prod","version":"1","time":{time:.3}}}"#
            );
        }
        if model == "complained" && c(18) < if bad { 0.06 } else { 0.004 } {
            let _ = writeln!(
                out,
                r#"{{"kind":"feedback","kind_of":"complaint","model":"complained","environment":"prod","version":"1","time":{time:.3}}}"#
            );
        }
    }
}

/// The daemon that has lived through it all.
struct Story {
    daemon: Fed,
    incidents: BTreeMap<String, Vec<Value>>,
    /// The incident of `regional` after a person has said that it is active harm, and what was told before that.
    raised: Value,
    told_before: usize,
}

static STORY: LazyLock<Story> = LazyLock::new(|| {
    let config = |url: &str| {
        format!(
            "  boss: {{type: webhook, url: \"{url}/hooks/boss\"}}\n  law: {{type: webhook, url: \"{url}/hooks/law\"}}\n\
             routes: [{{to: [oncall]}}]\npeople: {{leadership: [boss], legal: [law]}}\n\
             escalation: {{levels: [{{after: 15m, severity: [1], to: [leadership]}}]}}\nsegments: [region]\nbaseline: {{learn: 30m}}\n\
             models:\n  memorised: {{canaries: {{file: canaries.txt}}}}\n  biased: {{protected: [age_band], exposure: [legal]}}\n  \
             misused: {{intended_use: {{region: [eu, us, apac]}}}}\n  regional: {{exposure: [legal]}}\n"
        )
    };
    let mut daemon = Fed::start(config, |folder| std::fs::write(folder.join("canaries.txt"), format!("{CANARY}\n")).expect("written"));
    let mut text = String::new();
    for s in 0..MINUTES * 60 {
        text.clear();
        BEGINS.iter().for_each(|(model, begins)| second(&mut text, model, *begins, s));
        daemon.say(&text);
    }
    daemon.flush();
    daemon.until("end of the story", |d| d.judged_through().is_some_and(|t| t.0 / 1_000 >= START_S + MINUTES * 60 - 60));
    // What it had to say has been said.
    daemon.until("empty outbox", Fed::outbox_is_empty);
    let mut incidents: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for page in daemon.incidents() {
        incidents.entry(page["incident"]["key"]["model"].as_str().expect("a model").to_owned()).or_default().push(page);
    }
    // Somebody knows more than the numbers.
    let told_before = daemon.oracle.requests_to("/hooks/boss").len();
    let id = incidents["regional"][0]["incident"]["id"].as_str().expect("an id").to_owned();
    let (code, said) = daemon.command(&["incidents", "severity", &id, "1", "--why", "orders of patients are lost"]);
    assert_eq!(code, 0, "{said}");
    daemon.until("severity one", |d| d.get(&format!("/api/v1/incidents/{id}"))["incident"]["severity"] == 1);
    daemon.until("empty outbox", Fed::outbox_is_empty);
    let raised = daemon.get(&format!("/api/v1/incidents/{id}"));
    daemon.stop();
    Story { daemon, incidents, raised, told_before }
});

impl Story {
    /// The one incident of a model, with its timeline and who was told.
    fn of(&self, model: &str) -> &Value {
        let all = self.incidents.get(model).map_or(&[][..], |all| all.as_slice());
        let titles: Vec<&Value> = all.iter().map(|p| &p["incident"]["title"]).collect();
        assert_eq!(all.len(), 1, "{model}: {titles:?}");
        &all[0]
    }

    /// What the pager was told first of a model.
    fn page(&self, model: &str) -> Value {
        let id = self.of(model)["incident"]["id"].as_str().expect("an id").to_owned();
        let all = self.daemon.oracle.requests_to("/v2/enqueue");
        let mine = all.iter().map(|r| r.json()).find(|r| r["event_action"] == "trigger" && r["dedup_key"].as_str().is_some_and(|k| k.contains(&id)));
        mine.unwrap_or_else(|| panic!("{model} ({id}) called nobody"))
    }
}

/// Category, severity from and to, and the signal or rule that raises it, at the API and at the pager.
fn raises(model: &str, category: &str, severity: std::ops::RangeInclusive<u64>, signal: &str) {
    let incident = &STORY.of(model)["incident"];
    assert_eq!(incident["key"]["category"], category, "{}", incident["title"]);
    let found = incident["severity"].as_u64().expect("a number");
    assert!(severity.contains(&found), "{model}: severity {found}: {}", incident["severity_reasons"]);
    let signals: Vec<&str> = incident["findings"].as_array().expect("some").iter().filter_map(|f| f["series"]["signal"].as_str()).collect();
    assert!(signals.iter().any(|s| s.starts_with(signal)), "{model}: {signals:?}");
    let page = STORY.page(model);
    assert!(page["payload"]["summary"].as_str().is_some_and(|s| s.contains(model)), "{page}");
    assert_eq!(page["payload"]["class"], category, "{page}");
}

fn answer(model: &str, question: &str) -> String {
    let reasons = STORY.of(model)["incident"]["severity_reasons"].as_array().expect("some").clone();
    let found = reasons.iter().find(|r| r["question"].as_str().is_some_and(|q| q.contains(question)));
    let found = found.unwrap_or_else(|| panic!("{model}: nobody asked {question:?}: {reasons:?}"));
    assert!(found["source"].as_str().is_some_and(|s| !s.is_empty()), "{found}");
    found["answer"].as_str().expect("text").to_owned()
}

fn cause(model: &str) -> (String, String) {
    let cause = &STORY.of(model)["incident"]["cause"];
    (cause["best"].as_str().unwrap_or("none").to_owned(), cause["facts"].to_string())
}

// === what constitutes an incident ===

#[test]
fn harmful_outputs() {
    raises("harmful", "harmful_output", 1..=1, "rule:");
    // The example is the output that was confirmed, not some error of the same moment.
    let incident = &STORY.of("harmful")["incident"];
    let shown = incident["exemplars"].as_array().expect("some");
    let named = |e: &Value| incident["title"].as_str().is_some_and(|t| t.contains(e["id"].as_str().expect("an id")));
    assert!(shown.iter().any(named), "{}: {shown:?}", incident["title"]);
}

#[test]
fn outputs_that_a_classifier_calls_harmful() {
    raises("flagged", "harmful_output", 1..=1, "flag:harmful");
    assert!(answer("flagged", "being harmed").contains("nobody has confirmed it"), "{}", answer("flagged", "being harmed"));
}

#[test]
fn accuracy_degradation_detected_through_monitoring() {
    raises("inaccurate", "quality_degradation", 2..=2, "quality:accuracy");
}

#[test]
fn accuracy_degradation_detected_through_user_reports() {
    raises("complained", "quality_degradation", 2..=2, "complaint_rate");
}

#[test]
fn use_outside_the_intended_scope() {
    raises("misused", "out_of_scope_use", 2..=2, "out_of_scope");
}

#[test]
fn a_data_breach_through_memorisation() {
    raises("memorised", "data_breach", 1..=1, "rule:");
}

#[test]
fn a_data_breach_through_prompt_injection() {
    raises("injected", "data_breach", 1..=1, "rule:");
}

#[test]
fn bias_against_a_protected_group() {
    raises("biased", "bias", 1..=1, "fairness:age_band");
    let text = STORY.of("biased").to_string();
    assert!(text.contains("60+ against 18-59"), "{text}");
}

#[test]
fn complete_failure_by_errors() {
    raises("erroring", "model_failure", 1..=2, "rule:total_failure");
}

#[test]
fn complete_failure_by_timeouts() {
    raises("timing-out", "model_failure", 2..=2, "timeout_rate");
}

#[test]
fn complete_failure_by_empty_responses() {
    raises("empty", "model_failure", 2..=2, "empty_rate");
}

#[test]
fn a_cost_anomaly() {
    raises("costly", "cost_anomaly", 2..=2, "cost");
}

#[test]
fn what_is_healthy_calls_nobody() {
    assert!(!STORY.incidents.contains_key("healthy"), "{:?}", STORY.incidents["healthy"]);
    assert!(STORY.incidents.keys().all(|m| BEGINS.iter().any(|(known, _)| known == m)), "{:?}", STORY.incidents.keys());
}

// === triage ===

#[test]
fn severity_asks_whether_anyone_is_being_harmed_right_now() {
    assert!(answer("harmful", "being harmed").starts_with("yes"), "{}", answer("harmful", "being harmed"));
    assert!(!answer("costly", "being harmed").starts_with("yes"));
}

#[test]
fn severity_asks_for_legal_or_regulatory_exposure() {
    assert_eq!(answer("biased", "exposure"), "yes: legal");
    assert!(answer("memorised", "exposure").starts_with("possibly"));
}

#[test]
fn severity_asks_whether_all_users_or_a_subset_are_affected() {
    assert!(answer("regional", "all users").starts_with("a subset: region=apac"), "{}", answer("regional", "all users"));
    assert!(answer("erroring", "all users").starts_with("all"), "{}", answer("erroring", "all users"));
}

/// How loudly it rings, and who is told if nobody comes.
#[test]
fn severity_determines_the_urgency_of_the_response_and_how_far_it_climbs() {
    for (model, urgency, climbs) in [("harmful", "critical", 1), ("costly", "error", 0), ("slower", "warning", 0)] {
        assert_eq!(STORY.page(model)["payload"]["severity"], urgency, "{model}");
        let timers = STORY.of(model)["incident"]["response"]["timers"].as_array().cloned().unwrap_or_default();
        let told: Vec<&Value> = timers.iter().filter_map(|t| t["what"].get("escalate")).collect();
        assert_eq!(told.len(), climbs, "{model}: {timers:?}");
        assert!(told.iter().all(|t| t["to"][0] == "boss"), "{timers:?}");
    }
}

#[test]
fn scope_asks_whether_it_is_getting_worse() {
    assert!(answer("worsening", "getting worse").starts_with("yes"), "{}", answer("worsening", "getting worse"));
    assert!(answer("erroring", "getting worse").starts_with("no"), "{}", answer("erroring", "getting worse"));
}

#[test]
fn scope_names_the_inputs() {
    let said = answer("stale", "limited to inputs");
    assert!(said.contains("of the inputs: missing income"), "{said}");
}

#[test]
fn scope_counts_the_users_affected_with_an_interval() {
    let users = &STORY.of("erroring")["incident"]["users_affected"];
    let number = |name: &str| users[name].as_f64().unwrap_or(f64::NAN);
    assert!(number("low") <= number("estimate") && number("estimate") <= number("high") && number("estimate") > 10.0, "{users}");
}

#[test]
fn scope_names_segments_and_geographies() {
    let segments = &STORY.of("regional")["incident"]["segments"];
    assert_eq!(segments[0]["dimension"], "region");
    assert_eq!(segments[0]["value"], "apac");
    assert!(STORY.page("regional")["payload"]["summary"].as_str().is_some_and(|s| s.contains("region=apac")));
}

#[test]
fn a_root_cause_in_the_pipeline_is_a_failed_deployment() {
    let (best, facts) = cause("deployed");
    assert!(best == "pipeline" && facts.contains("version 2"), "{best} {facts}");
    assert_eq!(STORY.of("deployed")["incident"]["versions"][0], "2");
}

#[test]
fn a_root_cause_in_the_data_is_missing_input() {
    let (best, facts) = cause("stale");
    assert!(["data", "pipeline"].contains(&best.as_str()) && facts.contains("nightly-features"), "{best} {facts}");
    raises("stale", "quality_degradation", 2..=3, "missing:income");
}

#[test]
fn a_root_cause_in_the_data_is_corrupt_input() {
    let (best, facts) = cause("corrupt");
    assert!(best == "data" && facts.contains("feature income"), "{best} {facts}");
    assert_eq!(STORY.of("corrupt")["incident"]["key"]["category"], "quality_degradation");
}

#[test]
fn a_root_cause_in_the_pipeline_is_a_stale_model() {
    let (best, facts) = cause("outdated");
    assert!(best == "pipeline" && facts.contains("weekly-training") && facts.contains("out of memory"), "{best} {facts}");
}

#[test]
fn a_root_cause_in_the_infrastructure_hits_many_models_and_is_one_incident() {
    let all: Vec<&Value> = ["machines-a", "machines-b", "machines-c"].iter().flat_map(|m| &STORY.incidents[*m]).collect();
    let live: Vec<&&Value> = all.iter().filter(|p| p["incident"]["state"] != "merged").collect();
    assert_eq!(live.len(), 1, "{:?}", all.iter().map(|p| (&p["incident"]["title"], &p["incident"]["state"])).collect::<Vec<_>>());
    assert_eq!(live[0]["incident"]["cause"]["best"], "infrastructure", "{}", live[0]["incident"]["cause"]);
    assert_eq!(live[0]["incident"]["merged"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_root_cause_in_the_model_is_worse_answers_with_nothing_else_changed() {
    assert_eq!(cause("inaccurate").0, "model");
}

#[test]
fn a_minor_degradation_is_severity_three() {
    raises("slower", "model_failure", 3..=3, "latency");
}

// === immediate response ===

/// Kinds of the steps that are proposed for a model's incident, in order.
fn steps(model: &str) -> Vec<String> {
    let response = &STORY.of(model)["incident"]["response"];
    assert!(response["owner"].as_str().is_some_and(|o| !o.is_empty()) && response["fallback"].as_str().is_some_and(|f| !f.is_empty()), "{response}");
    response["steps"].as_array().expect("steps").iter().map(|s| s["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// Has the person behind this hook heard of the model's incident?
fn heard(hook: &str, model: &str) -> bool {
    let id = &STORY.of(model)["incident"]["id"];
    STORY.daemon.oracle.requests_to(&format!("/hooks/{hook}")).iter().any(|r| r.json()["data"]["incident"]["id"] == *id)
}

fn has_one_of(model: &str, kinds: &[&str]) {
    let steps = steps(model);
    assert!(kinds.iter().any(|k| steps.iter().any(|s| s == k)), "{model}: {steps:?}");
}

#[test]
fn severity_one_takes_the_system_offline_or_falls_back_to_a_safe_default_first() {
    for model in ["harmful", "memorised", "biased"] {
        assert!(["take_offline", "safe_default"].contains(&steps(model)[0].as_str()), "{model}: {:?}", steps(model));
    }
}

#[test]
fn severity_one_communicates_with_affected_users() {
    let drafts = &STORY.of("harmful")["incident"]["response"]["drafts"];
    let texts: Vec<&str> = drafts.as_array().expect("drafts").iter().filter_map(|d| d["text"].as_str()).collect();
    assert!(texts.len() >= 2 && texts.iter().any(|t| t.contains("harmful")) && texts.iter().all(|t| !t.contains('{')), "{texts:?}");
}

#[test]
fn severity_one_escalates_to_leadership() {
    assert!(heard("boss", "harmful") && heard("boss", "memorised"));
    assert!(!heard("boss", "costly") && !heard("boss", "slower"), "leadership sleeps otherwise");
}

#[test]
fn severity_one_notifies_legal_if_there_is_regulatory_exposure() {
    assert!(heard("law", "biased"));
    assert!(!heard("law", "harmful"), "no exposure is configured for it");
}

/// What was severity 2 by the numbers, and is active harm by a person's word: everything of severity 1 is prepared and told at once.
#[test]
fn active_harm_by_a_persons_word_brings_the_response_of_active_harm() {
    let before = STORY.of("regional")["incident"].clone();
    assert!(!steps("regional").iter().any(|s| s == "take_offline"), "{before}");
    let after = &STORY.raised["incident"];
    let kinds: Vec<&str> = after["response"]["steps"].as_array().expect("steps").iter().filter_map(|s| s["kind"].as_str()).collect();
    assert!(["take_offline", "safe_default"].contains(&kinds[0]), "{kinds:?}");
    for kind in ["tell_leadership", "tell_legal", "tell_users", "sensitivity"] {
        assert!(kinds.contains(&kind), "no {kind}: {kinds:?}");
    }
    assert_ne!(after["response"]["runbook"], before["response"]["runbook"]);
    assert!(after["action"].as_str().is_some_and(|a| a.starts_with("Take regional out of service")), "{}", after["action"]);
    assert!(after["response"]["drafts"].as_array().is_some_and(|d| d.len() >= 2), "{}", after["response"]["drafts"]);
    let timeline = STORY.raised["timeline"].to_string();
    assert!(timeline.contains("what to do at severity 1 is prepared") && timeline.contains("orders of patients are lost"), "{timeline}");
    assert!(heard("boss", "regional") && heard("law", "regional"), "leadership and, as there is exposure, legal");
    let told = STORY.daemon.oracle.requests_to("/hooks/boss");
    let mine = told[..STORY.told_before].iter().filter(|r| r.json()["data"]["incident"]["id"] == before["id"]).count();
    assert_eq!(mine, 0, "leadership slept until then");
}

#[test]
fn severity_two_enables_guardrails_or_a_conservative_configuration_or_reroutes() {
    for model in ["inaccurate", "complained", "timing-out", "costly", "deployed"] {
        has_one_of(model, &["guardrails", "conservative", "reroute"]);
    }
}

#[test]
fn severity_two_increases_monitoring_sensitivity_and_says_what_it_may_cost() {
    has_one_of("inaccurate", &["sensitivity"]);
    let timeline = STORY.of("inaccurate")["timeline"].to_string();
    assert!(timeline.contains("false page"), "{timeline}");
}

#[test]
fn severity_three_increases_monitoring_begins_investigation_and_schedules_a_fix() {
    for kind in ["sensitivity", "investigate", "schedule_fix"] {
        has_one_of("slower", &[kind]);
    }
}
