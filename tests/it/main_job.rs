//! The main job through the front door: real Kafka, the daemon as a process, a fleet with known truth, an oracle that keeps
//! PagerDuty's rules.
//!
//! The long form, with a history of four million events, ten faults and more, is
//! `cargo test --test it main_job::ten_faults -- --ignored --nocapture`; it prints what it measured.

use std::time::{Duration, Instant};

use bellwether::domain::Time;
use bellwether::fleet::{Fault, Plan};
use serde_json::Value;

use crate::broker::{Broker, unique};
use crate::daemon::{Config, Daemon, Feed, days_ago};
use crate::oracle::{AlertState, Oracle};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

fn text<'a>(v: &'a Value, pointer: &str) -> &'a str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn time(v: &Value, pointer: &str) -> Time {
    Time::parse_rfc3339(text(v, pointer)).unwrap_or(Time::MIN)
}

fn told(page: &Value) -> String {
    let i = &page["incident"];
    let mut words = format!(
        "{} {} opened {} onset {} paged {}: {}",
        text(i, "/id"),
        text(i, "/state"),
        text(i, "/opened_at"),
        text(i, "/onset/at"),
        i["paged"],
        text(i, "/title")
    );
    for f in i["findings"].as_array().into_iter().flatten() {
        words.push_str(&format!(
            "\n    {} | {} | found {} | recovered {}",
            text(f, "/headline"),
            text(f, "/reason"),
            text(f, "/found_at"),
            f["recovered_at"]
        ));
    }
    let recovered = |t: &&Value| t["what"].as_str().is_some_and(|w| w.contains("recover") || w.contains("resolve"));
    for t in page["timeline"].as_array().into_iter().flatten().filter(recovered) {
        words.push_str(&format!("\n    {} {}: {}", text(t, "/at"), text(t, "/what"), text(t, "/why")));
    }
    words
}

/// How large the job is.
struct Job {
    history_ms: i64,
    /// Predictions per second of each of the models that faults may hit, and of all the others.
    busy: f64,
    others: f64,
    models: usize,
    faults: &'static [(Fault, usize)],
    /// How long a fault is on, and how long quiet follows.
    on_ms: i64,
    off_ms: i64,
    /// Simulated time against real time while live.
    speed: f64,
}

/// What became of one fault.
struct Found {
    fault: Fault,
    model: String,
    pages: usize,
    /// Event time from the fault to the incident.
    delay_ms: Option<i64>,
}

impl Job {
    fn plan(&self) -> Plan {
        let mut plan = Plan::large(self.models, 4, self.others);
        for (_, at) in self.faults {
            plan.models[*at].per_second = self.busy;
            // Enough baseline errors to see a change of the error rate at all.
            plan.models[*at].error_rate = plan.models[*at].error_rate.max(0.01);
        }
        plan.deploy_every_s = 2.0 * 86_400.0;
        plan
    }

    /// History, a fault that runs across the first start, quiet, then fault after fault, each on a model of its own.
    fn run(&self, broker: &Broker, seed: u64) {
        let oracle = Oracle::start();
        let topic = unique("main-job");
        let live_ms = HOUR_MS * 2 + self.faults.len() as i64 * (self.on_ms + self.off_ms);
        let start = days_ago((self.history_ms + live_ms) / DAY_MS + 2);
        let began = Instant::now();
        let mut feed = Feed::new(broker, &topic, 12, self.plan(), seed, start);
        // The last of the faults is on when history ends.
        let (across, at) = self.faults[self.faults.len() - 1];
        let across_model = feed.fleet.truth().models[at].model.clone();
        let history_ends = start.plus_ms(self.history_ms);
        let across_on = history_ends.plus_ms(-self.on_ms / 2);
        feed.run_until(across_on);
        assert!(feed.fleet.switch_model(&across_model, across, true, across_on));
        feed.run_until(history_ends);
        let produced = began.elapsed();
        println!("history: {} records in {produced:?}", feed.sent);
        let config =
            Config { broker: &broker.bootstrap, topic: &topic, group: &topic, oracle: Some(&oracle.url), pane: "10s", lateness: "30s", more: "" };
        let mut daemon = Daemon::new(&config);
        let began = Instant::now();
        daemon.start_ready();
        daemon.until_caught_up(1_800);
        println!("read back in {:?}, {:.0} records/s", began.elapsed(), feed.sent as f64 / began.elapsed().as_secs_f64());
        println!("  {}", daemon.engine());
        assert_eq!(oracle.alerts().len(), 0, "history pages nobody: {:?}", oracle.alerts());

        let mut found = Vec::new();
        let mut pages_before = 0;
        let mut watch = |name: &str, daemon: &mut Daemon, feed: &mut Feed, until: Time| {
            feed.pace_until(until, self.speed);
            let sent = feed.sent;
            daemon.until("everything read", 300, |d| d.events_seen() >= sent);
            daemon.until("an empty outbox", 60, |d| {
                d.runtime()["health"]["outbox"].as_array().is_some_and(|all| all.iter().all(|o| o["pending"] == 0))
            });
            let all = daemon.incidents();
            let new = all.iter().skip(pages_before).map(told).collect::<Vec<_>>();
            println!("[{:?}] {name}: {} incidents", began.elapsed(), new.len());
            new.iter().for_each(|words| println!("  {words}"));
            pages_before = all.len();
            all
        };
        // The fault that ran across the start: one page, for it is not normal.
        let off = history_ends.plus_ms(self.on_ms);
        watch("across the start", &mut daemon, &mut feed, off);
        feed.fleet.switch_model(&across_model, across, false, off);
        let all = watch("quiet", &mut daemon, &mut feed, off.plus_ms(self.off_ms + HOUR_MS));
        found.push(Found::of(across, &across_model, history_ends, &all));
        let of_quiet = all.len() - found[0].pages;
        for (fault, at) in &self.faults[..self.faults.len() - 1] {
            let model = feed.fleet.truth().models[*at].model.clone();
            let on = feed.fleet.frontier();
            assert!(feed.fleet.switch_model(&model, *fault, true, on));
            watch(fault.name(), &mut daemon, &mut feed, on.plus_ms(self.on_ms));
            let off = feed.fleet.frontier();
            feed.fleet.switch_model(&model, *fault, false, off);
            let all = watch(&format!("after {fault}"), &mut daemon, &mut feed, off.plus_ms(self.off_ms));
            found.push(Found::of(*fault, &model, on, &all));
        }
        self.sum_up(&found, &daemon, &oracle, &feed, of_quiet);
        assert!(daemon.terminate().0.success());
    }

    fn sum_up(&self, found: &[Found], daemon: &Daemon, oracle: &Oracle, feed: &Feed, of_quiet: usize) {
        let mut delays: Vec<i64> = found.iter().filter_map(|f| f.delay_ms).collect();
        delays.sort_unstable();
        println!("--- {} records, {} faults", feed.sent, found.len());
        for f in found {
            println!("{:16} {:14} incidents {} delay {:?} s", f.fault.name(), f.model, f.pages, f.delay_ms.map(|d| d / 1_000));
        }
        if let (Some(median), Some(worst)) = (delays.get(delays.len() / 2), delays.last()) {
            println!(
                "fault to incident, event time: median {} s ({} panes), worst {} s ({} panes)",
                median / 1_000,
                median / 10_000,
                worst / 1_000,
                worst / 10_000
            );
        }
        let pages = daemon.incidents();
        let accepted = wall_to_accepted(&pages);
        println!("incident written to webhook accepted, wall: median {:?} ms, worst {:?} ms", accepted.get(accepted.len() / 2), accepted.last());
        // Simulated time is fast: what was over within a quarter of an hour may have been over before anybody could be told.
        let lasted = |p: &Value| {
            time(p, "/incident/resolved_at").0 == i64::MIN
                || time(p, "/incident/resolved_at").since_ms(time(p, "/incident/opened_at")) > 15 * MINUTE_MS
        };
        let paged: Vec<&Value> = pages.iter().filter(|p| p["incident"]["paged"] == true).collect();
        let alerts = oracle.alerts();
        let opened = |p: &Value| alerts.iter().filter(|a| a.key.ends_with(text(p, "/incident/id"))).count();
        let wrong: Vec<String> = (paged.iter())
            .filter(|p| opened(p) != 1 + p["incident"]["reopened"].as_u64().unwrap_or(0) as usize && (lasted(p) || opened(p) > 1))
            .map(|p| format!("{} alerts for {}", opened(p), told(p)))
            .collect();
        println!("incidents {}, paged {}, alerts {}", pages.len(), paged.len(), alerts.len());
        let engine = daemon.engine();
        assert_eq!(
            (engine["events"].as_u64(), engine["duplicates"].as_u64()),
            (Some(feed.fleet.truth().events()), Some(feed.fleet.truth().copies()))
        );
        assert_eq!(oracle.problems(), Vec::<String>::new());
        assert!(wrong.is_empty(), "not one alert for each time that an incident opened: {wrong:#?}");
        assert!(alerts.iter().all(|a| paged.iter().any(|p| a.key.ends_with(text(p, "/incident/id")))), "an alert without an incident");
        assert_eq!(of_quiet, 0, "the quiet stretch pages nobody");
        let elsewhere: Vec<String> = found.iter().filter(|f| f.pages != 1).map(|f| format!("{} {}: {}", f.fault, f.model, f.pages)).collect();
        assert!(elsewhere.is_empty(), "not exactly one incident: {elsewhere:?}");
        assert_eq!(pages.len(), found.len(), "no incident without a fault");
    }
}

impl Found {
    /// Incidents of the model that opened since the fault began.
    fn of(fault: Fault, model: &str, on: Time, all: &[Value]) -> Found {
        let own: Vec<&Value> = all.iter().filter(|p| text(p, "/incident/key/model") == model && time(p, "/incident/opened_at") >= on).collect();
        let delay_ms = own.first().map(|p| time(p, "/incident/opened_at").since_ms(on));
        Found { fault, model: model.to_owned(), pages: own.len(), delay_ms }
    }
}

/// Milliseconds of the wall clock from the writing of each incident to the answer of its receiver, in order of size.
fn wall_to_accepted(pages: &[Value]) -> Vec<i64> {
    let opened = |p: &Value| p["deliveries"].as_array().and_then(|d| d.iter().find(|d| d["notice"] == "opened").cloned());
    let mut all: Vec<i64> = pages.iter().filter_map(opened).map(|d| time(&d, "/last_attempt_at").since_ms(time(&d, "/created_at"))).collect();
    all.sort_unstable();
    all
}

/// Eleven models that faults may hit, each with one; the kinds repeat scorer, assistant, ranker.
const TEN: &[(Fault, usize)] = &[
    (Fault::ErrorSpike, 0),
    (Fault::Timeouts, 2),
    (Fault::LatencyTail, 1),
    (Fault::CostDrift, 4),
    (Fault::QualityDrop, 7),
    (Fault::FeatureMissing, 3),
    (Fault::Silence, 5),
    (Fault::HarmfulOutput, 10),
    (Fault::EmptyAnswers, 13),
    (Fault::UnseenValues, 6),
    (Fault::TotalFailure, 8),
    (Fault::ErrorSpike, 9),
];

/// Three faults and one across the first start, on a small fleet.
#[test]
fn three_faults_are_three_pages_and_quiet_is_none() {
    let Some(broker) = Broker::shared() else { return };
    let faults = &[(Fault::ErrorSpike, 0), (Fault::EmptyAnswers, 1), (Fault::TotalFailure, 2), (Fault::ErrorSpike, 3)];
    let job =
        Job { history_ms: 8 * HOUR_MS, busy: 2.0, others: 0.05, models: 8, faults, on_ms: 30 * MINUTE_MS, off_ms: 60 * MINUTE_MS, speed: 1_500.0 };
    job.run(broker, 21);
}

#[test]
#[ignore = "the long form; cargo test --test it main_job::ten_faults -- --ignored --nocapture"]
fn ten_faults() {
    let Some(broker) = Broker::shared() else { return };
    let job =
        Job { history_ms: 14 * DAY_MS, busy: 0.15, others: 0.013, models: 50, faults: TEN, on_ms: 3 * HOUR_MS, off_ms: 5 * HOUR_MS, speed: 1_500.0 };
    job.run(broker, 22);
}

/// A small fleet of two models in three regions, in simulated time: history, one fault, one page, its end.
#[test]
fn an_error_spike_is_one_page_that_resolves_by_evidence() {
    let Some(broker) = Broker::shared() else { return };
    let oracle = Oracle::start();
    let topic = unique("first");
    let mut plan = Plan::demo();
    plan.models.retain(|m| m.name != "assistant");
    plan.share = 0.1;
    let start = days_ago(2);
    let began = Instant::now();
    let mut feed = Feed::new(broker, &topic, 4, plan, 11, start);
    feed.run_until(start.plus_ms(100 * MINUTE_MS));
    println!("{} events of history in {:?}", feed.sent, began.elapsed());
    let config =
        Config { broker: &broker.bootstrap, topic: &topic, group: &topic, oracle: Some(&oracle.url), pane: "10s", lateness: "20s", more: "" };
    let mut daemon = Daemon::new(&config);
    daemon.start_ready();
    daemon.until_caught_up(120);
    println!("live after {:?}", began.elapsed());
    // Quiet.
    feed.pace_until(feed.fleet.frontier().plus_ms(10 * MINUTE_MS), 100.0);
    let on = feed.fleet.frontier();
    assert!(feed.fleet.switch(Fault::ErrorSpike, true, on));
    feed.pace_until(on.plus_ms(10 * MINUTE_MS), 100.0);
    daemon.until("an alert", 60, |_| !oracle.alerts().is_empty());
    let off = feed.fleet.frontier();
    feed.fleet.switch(Fault::ErrorSpike, false, off);
    while oracle.alerts()[0].state != AlertState::Resolved && feed.fleet.frontier() < off.plus_ms(120 * MINUTE_MS) {
        feed.pace_until(feed.fleet.frontier().plus_ms(5 * MINUTE_MS), 200.0);
    }
    daemon.until("the end of the alert", 30, |_| oracle.alerts()[0].state == AlertState::Resolved);
    let pages = daemon.incidents();
    pages.iter().for_each(|p| println!("{}", told(p)));
    println!("alert: {:?}, all in {:?}", oracle.alerts(), began.elapsed());
    assert_eq!(pages.len(), 1, "one incident");
    assert_eq!((text(&pages[0], "/incident/state"), text(&pages[0], "/incident/key/category")), ("resolved", "model_failure"));
    assert!(time(&pages[0], "/incident/onset/at").since_ms(on).abs() < 2 * MINUTE_MS, "onset {}", text(&pages[0], "/incident/onset/at"));
    let alerts = oracle.alerts();
    assert_eq!(alerts.len(), 1);
    assert!(alerts[0].summary.contains("loan-scorer") && alerts[0].summary.contains("region=eu"), "{}", alerts[0].summary);
    assert_eq!(oracle.problems(), Vec::<String>::new());
    // Every event was counted once.
    daemon.until("all events", 30, |d| d.events_seen() >= feed.sent);
    let engine = daemon.engine();
    assert_eq!((engine["events"].as_u64(), engine["duplicates"].as_u64()), (Some(feed.fleet.truth().events()), Some(feed.fleet.truth().copies())));
    let (status, took) = daemon.terminate();
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
}
