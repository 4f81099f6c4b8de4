//! One incident per cause, and nobody called who does not want to be: correlation, merging by hand, silences, maintenance, what
//! flaps, and a storm. Events in, messages to a receiver out; the engine, and no clock.

use std::collections::BTreeMap;

use bellwether::decode::{self, Decoder};
use bellwether::domain::delivery::Notice;
use bellwether::domain::incident::Incident;
use bellwether::domain::{Category, ClosedAs, HoldKind, IncidentState, Matcher, Severity, Time};
use bellwether::engine::{Control, Engine, Entry, Outcome, Route, Settings};
use bellwether::fleet::CANARY;
use bellwether::incident::Command;

use crate::scenario::{START, settings};

const PANE_MS: i64 = 2_000;
/// Requests of a model in a second, half of them in each region.
const PER_SECOND: u64 = 20;

/// Three models of one kind; what is said of a second is true from then on.
struct Town {
    engine: Engine,
    decoder: Decoder,
    out: Outcome,
    now: Time,
    position: i64,
    seq: u64,
    /// Of a hundred requests so many fail, by model and region.
    failing: BTreeMap<(&'static str, &'static str), u64>,
    dice: u64,
}

const MODELS: [&str; 3] = ["pricing", "ranking", "routing"];

impl Town {
    /// Twenty quiet minutes, then live.
    fn learned() -> Town {
        Town::with(|_| {})
    }

    fn with(more: impl FnOnce(&mut Settings)) -> Town {
        let mut settings = settings(PANE_MS, PANE_MS, &["region"]);
        settings.judge.learn_ms = 0;
        more(&mut settings);
        let mut engine = Engine::new(settings);
        engine.declare(0);
        let decoder = Decoder::canonical(decode::Settings::new([0; 16]));
        let mut t = Town { engine, decoder, out: Outcome::default(), now: START, position: 0, seq: 0, failing: BTreeMap::new(), dice: 1 };
        t.run_for(1_500);
        t.enter(t.engine.end_of_history()).expect("taken");
        t.run_for(60);
        assert!(t.out.incidents.is_empty(), "quiet: {:?}", t.out.incidents.iter().map(|i| &i.title).collect::<Vec<_>>());
        t
    }

    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.dice >> 33
    }

    fn say(&mut self, json: &str) {
        let (position, now) = (self.position, self.now);
        self.engine.record(0, position + 1, now, json.as_bytes(), &self.decoder, None).expect("valid");
        self.position += 1;
    }

    fn run_for(&mut self, seconds: i64) {
        for _ in 0..seconds {
            for n in 0..PER_SECOND {
                for model in MODELS {
                    let region = if n % 2 == 0 { "eu" } else { "us" };
                    let share = self.failing.get(&(model, region)).copied().unwrap_or(2);
                    let status = if self.roll() % 100 < share { "error" } else { "ok" };
                    let at = self.now.plus_ms(n as i64 * 1_000 / PER_SECOND as i64);
                    let json = format!(
                        r#"{{"kind":"prediction","id":"{model}-{}","time":"{}","model":"{model}","version":"1","environment":"prod","segments":{{"region":"{region}"}},"status":"{status}","user":"u{}"}}"#,
                        self.position,
                        at.rfc3339(),
                        self.position % 5_000
                    );
                    self.say(&json);
                }
            }
            self.now = self.now.plus_ms(1_000);
            self.engine.advance(&mut self.out);
        }
    }

    fn fail(&mut self, models: &[&'static str], regions: &[&'static str], share: u64) {
        for model in models {
            for region in regions {
                self.failing.insert((model, region), share);
            }
        }
    }

    fn enter(&mut self, control: Control) -> Result<Option<Incident>, String> {
        self.seq += 1;
        let entry = Entry { seq: self.seq, at: self.engine.horizon(), control };
        self.engine.enter(entry);
        self.run_for(8);
        let seq = self.seq;
        self.out.answers.iter().find(|a| a.0 == seq).map_or(Ok(None), |a| a.1.clone())
    }

    fn act(&mut self, incident: &str, command: Command) -> Result<Option<Incident>, String> {
        let wall = self.now;
        self.enter(Control::Act { incident: incident.to_owned(), command, wall })
    }

    fn hold(&mut self, kind: HoldKind, matcher: Matcher, minutes: i64, harm: bool) -> String {
        let (from, until) = (self.now, self.now.plus_ms(minutes * 60_000));
        let hold = Control::Hold { kind, matcher, from, until, by: "ana".into(), why: "load test".into(), harm };
        self.enter(hold).expect("taken");
        format!("{}-{}", &kind.as_str()[..3], self.seq)
    }

    fn incidents(&self, state: impl Fn(IncidentState) -> bool) -> Vec<Incident> {
        let mut all: Vec<Incident> = self.engine.incidents().filter(|i| state(i.state)).cloned().collect();
        all.sort_by_key(|i| i.opened_at);
        all
    }

    fn live(&self) -> Vec<Incident> {
        self.incidents(IncidentState::is_live)
    }

    /// What the receiver was told, as `opened pricing`.
    fn told(&self) -> Vec<String> {
        self.out.deliveries.iter().map(|d| format!("{} {}", d.message.notice.as_str(), d.message.incident.key.model)).collect()
    }

    fn timeline(&self, id: &str) -> String {
        let of = self.out.timeline.iter().filter(|t| t.incident_id == id);
        of.map(|t| format!("{}: {}\n", t.what, t.why)).collect()
    }
}

#[test]
fn an_outage_of_one_region_that_hits_every_model_is_one_incident() {
    let mut t = Town::learned();
    t.fail(&MODELS, &["eu"], 40);
    t.run_for(120);
    let live = t.live();
    let merged = t.incidents(|s| s == IncidentState::Merged);
    assert_eq!((live.len(), merged.len()), (1, 2), "{:?}", t.engine.incidents().map(|i| (&i.title, i.state)).collect::<Vec<_>>());
    let whole = &live[0];
    assert_eq!(whole.merged.len(), 2);
    assert_eq!(t.told().iter().filter(|w| w.starts_with("opened")).count(), 1, "called once: {:?}", t.told());
    let timeline = t.timeline(&whole.id);
    assert!(timeline.contains("were hit alike at the same time in region=eu"), "{timeline}");
    for under in &merged {
        assert_eq!(under.merged_into.as_ref(), Some(&whole.id));
        assert!(!under.paged && t.timeline(&under.id).contains(&format!("told by {}", whole.id)), "{}", t.timeline(&under.id));
    }
    let refused = t.act(&merged[0].id, Command::Acknowledge { by: "ana".into(), why: String::new() }).expect_err("told elsewhere");
    assert!(refused.contains(&whole.id), "{refused}");

    t.fail(&MODELS, &["eu"], 2);
    t.run_for(1_500);
    assert!(t.live().is_empty(), "{:?}", t.live().iter().map(|i| (&i.title, i.state)).collect::<Vec<_>>());
    assert!(t.engine.incidents().all(|i| i.state == IncidentState::Resolved));
    assert_eq!(t.told().iter().filter(|w| w.starts_with("resolved")).count(), 1, "{:?}", t.told());
}

#[test]
fn two_failures_at_one_time_in_different_places_are_two_incidents_and_say_why() {
    let mut t = Town::learned();
    t.fail(&["pricing"], &["eu"], 40);
    t.fail(&["ranking"], &["us"], 40);
    t.run_for(120);
    let live = t.live();
    assert_eq!(live.len(), 2);
    let said = live.iter().any(|i| t.timeline(&i.id).contains("not joined with") && t.timeline(&i.id).contains("region="));
    assert!(said, "{}", t.timeline(&live[1].id));
    assert_eq!(t.told().iter().filter(|w| w.starts_with("opened")).count(), 2);

    // A person knows better, and changes his mind.
    let (first, second) = (live[0].id.clone(), live[1].id.clone());
    let why = || "one switch".to_owned();
    t.act(&second, Command::Merge { into: first.clone(), by: "ana".into(), why: why() }).expect("merged");
    assert_eq!(t.live().len(), 1);
    assert!(t.live()[0].findings.iter().any(|f| *f.series.group.model == *live[1].key.model), "its findings are told there");
    assert!(t.told().contains(&format!("merged {}", live[1].key.model)), "its alert is closed: {:?}", t.told());
    assert!(t.act(&first, Command::Merge { into: first.clone(), by: "ana".into(), why: why() }).is_err());
    t.act(&second, Command::Split { by: "ana".into(), why: "no, two".into() }).expect("split");
    let live = t.live();
    assert_eq!(live.len(), 2);
    for i in &live {
        assert!(i.merged.is_empty() && i.findings.iter().all(|f| *f.series.group.model == *i.key.model), "{}", i.title);
    }
    t.fail(&MODELS, &["eu", "us"], 2);
    t.run_for(1_500);
    assert!(t.live().is_empty(), "each is over by its own evidence");
}

/// Of one model: a deployment, and an output that a person calls harmful.
impl Town {
    fn deploy(&mut self, model: &str) {
        let json = format!(
            r#"{{"kind":"deployment","target":{{"kind":"model","name":"{model}"}},"model":"{model}","environment":"prod","version":"2","previous_version":"1","phase":"finished","time":"{}"}}"#,
            self.now.rfc3339()
        );
        self.say(&json);
    }

    fn harm(&mut self, model: &str) {
        let json = format!(
            r#"{{"kind":"prediction","id":"h{}","time":"{}","model":"{model}","version":"1","environment":"prod","flags":{{"harmful":"confirmed"}}}}"#,
            self.position,
            self.now.rfc3339()
        );
        self.say(&json);
        self.run_for(8);
    }

    /// What one receiver was told, as `opened model_failure`.
    fn heard(&self, receiver: &str) -> Vec<String> {
        let of = self.out.deliveries.iter().filter(|d| d.receiver == receiver);
        of.map(|d| format!("{} {}", d.message.notice.as_str(), d.message.incident.key.category)).collect()
    }
}

#[test]
fn harm_that_is_found_after_a_failure_of_the_same_cause_is_told_and_the_failure_goes_under_it() {
    let mut t = Town::with(|s| {
        let harm = Route { category: vec!["harmful_output".into()], to: vec!["safety".into()], ..Route::default() };
        s.routes.insert(0, harm);
    });
    t.deploy("pricing");
    t.run_for(2);
    t.fail(&["pricing"], &["eu", "us"], 40);
    t.run_for(60);
    let failure = t.live()[0].clone();
    assert_eq!((failure.key.category, t.heard("oncall")), (Category::ModelFailure, vec!["opened model_failure".to_owned()]));
    t.act(&failure.id, Command::Acknowledge { by: "ana".into(), why: String::new() }).expect("taken");

    t.harm("pricing");
    let live = t.live();
    assert_eq!(live.len(), 1, "{:?}", live.iter().map(|i| &i.title).collect::<Vec<_>>());
    let leader = live[0].clone();
    assert_eq!((leader.key.category, leader.severity, leader.state), (Category::HarmfulOutput, Severity::HARM, IncidentState::Open));
    assert!(leader.title.contains("harmful") && leader.title.ends_with("; also model failure"), "{}", leader.title);
    assert_eq!(leader.merged.iter().map(|b| b.id.clone()).collect::<Vec<_>>(), [Some(failure.id.clone())]);
    assert!(leader.findings.iter().any(|f| f.series.signal.to_string() == "error_rate"), "it tells of the failure as well");
    let (timeline, before) = (t.timeline(&leader.id), t.timeline(&failure.id));
    assert!(timeline.contains(&format!("takes in {}: both began after version 2", failure.id)), "{timeline}");
    assert!(before.contains(&format!("into {}", leader.id)) && before.contains("what harms people is told first"), "{before}");
    // The route of harm is called; whoever was called for the failure hears that it goes on elsewhere.
    assert_eq!(t.heard("safety"), ["opened harmful_output"]);
    assert_eq!(t.heard("oncall"), ["opened model_failure", "acknowledged model_failure", "merged model_failure"]);

    // More of the failure is told there; what is over is over with it.
    t.fail(&["pricing"], &["eu", "us"], 90);
    t.run_for(30);
    assert_eq!((t.live().len(), t.heard("oncall").len()), (1, 3));
    t.act(&leader.id, Command::Resolve { by: "ana".into(), closed_as: ClosedAs::Fixed, why: "rolled back".into() }).expect("resolved");
    assert!(t.timeline(&failure.id).contains(&format!("over with {}", leader.id)), "{}", t.timeline(&failure.id));
    assert_eq!(t.heard("safety").last().map(String::as_str), Some("resolved harmful_output"));
}

#[test]
fn harm_without_a_cause_in_common_stands_for_itself_and_is_never_put_under_less() {
    let mut t = Town::learned();
    t.fail(&["ranking"], &["eu", "us"], 40);
    t.run_for(60);
    t.harm("ranking");
    let live = t.live();
    assert_eq!(live.len(), 2, "{:?}", live.iter().map(|i| &i.title).collect::<Vec<_>>());
    let of = |category: Category| live.iter().find(|i| i.key.category == category).expect("live").id.clone();
    let (failure, harm) = (of(Category::ModelFailure), of(Category::HarmfulOutput));
    let merge = |into: &str| Command::Merge { into: into.to_owned(), by: "ana".into(), why: "one release".into() };
    let refused = t.act(&harm, merge(&failure)).expect_err("harm is told first");
    assert!(refused.contains("what harms people is told first") && refused.contains(&format!("merge {failure} into {harm}")), "{refused}");
    t.act(&failure, merge(&harm)).expect("merged");
    assert_eq!(t.live().iter().map(|i| i.id.clone()).collect::<Vec<_>>(), [harm]);
}

#[test]
fn harm_that_is_held_takes_nothing_with_it_into_silence() {
    let mut t = Town::learned();
    let matcher = Matcher { category: Some(Category::HarmfulOutput), ..Matcher::default() };
    t.hold(HoldKind::Silence, matcher, 60, true);
    t.deploy("pricing");
    t.run_for(2);
    t.fail(&["pricing"], &["eu", "us"], 40);
    t.run_for(60);
    t.harm("pricing");
    let states: Vec<(Category, IncidentState)> = t.live().iter().map(|i| (i.key.category, i.state)).collect();
    assert_eq!(states, [(Category::ModelFailure, IncidentState::Open), (Category::HarmfulOutput, IncidentState::Suppressed)]);
    assert_eq!(t.told(), ["opened pricing"]);
}

#[test]
fn places_found_one_after_another_are_everywhere_once_they_are_all_there_is() {
    let mut t = Town::learned();
    t.fail(&["routing"], &["eu"], 40);
    t.run_for(60);
    assert_eq!(t.live()[0].segments.iter().map(ToString::to_string).collect::<Vec<_>>(), ["region=eu"]);
    assert!(t.live()[0].title.contains("region=eu"), "{}", t.live()[0].title);
    t.fail(&["routing"], &["us"], 40);
    t.run_for(120);
    let live = t.live();
    assert_eq!((live.len(), live[0].segments.len()), (1, 0), "{:?}", live[0].segments);
    assert!(!live[0].title.contains("region="), "{}", live[0].title);
    let whom = live[0].severity_reasons.iter().find(|a| a.question.starts_with("Does it affect")).expect("asked");
    assert!(whom.answer.starts_with("all:"), "{}", whom.answer);
    assert_eq!(t.timeline(&live[0].id).matches("it is everywhere").count(), 1, "{}", t.timeline(&live[0].id));
    assert_eq!(t.told().iter().filter(|w| w.starts_with("opened") || w.starts_with("escalated")).count(), 1, "{:?}", t.told());
}

#[test]
fn what_is_silenced_is_listed_and_calls_when_the_silence_is_over() {
    let mut t = Town::learned();
    let of = |model: &str| Matcher { model: Some(model.into()), ..Matcher::default() };
    t.hold(HoldKind::Silence, of("pricing"), 5, false);
    t.fail(&["pricing"], &["eu", "us"], 40);
    t.run_for(120);
    let live = t.live();
    assert_eq!(live[0].state, IncidentState::Suppressed);
    assert!(live[0].page_reason.contains("silence") && live[0].page_reason.contains("load test"), "{}", live[0].page_reason);
    assert!(t.told().is_empty(), "{:?}", t.told());
    t.run_for(240);
    assert_eq!(t.live()[0].state, IncidentState::Open);
    assert_eq!(t.told(), ["opened pricing"], "it lasts, and the silence is over");
    t.fail(&["pricing"], &["eu", "us"], 2);
    t.run_for(1_200);
    assert_eq!(t.told().iter().filter(|w| w.starts_with("resolved")).count(), 1);

    // What is over before the silence is calls nobody; ended early, it holds no longer.
    let id = t.hold(HoldKind::Maintenance, Matcher { category: Some(Category::ModelFailure), ..Matcher::default() }, 600, false);
    t.fail(&["ranking"], &["eu", "us"], 40);
    t.run_for(60);
    t.fail(&["ranking"], &["eu", "us"], 2);
    t.run_for(1_200);
    assert!(t.live().is_empty() && !t.told().iter().any(|w| w.contains("ranking")), "{:?}", t.told());
    let ended = Control::EndHold { id: id.clone(), by: "ana".into(), wall: t.now };
    t.enter(ended.clone()).expect("ended");
    assert!(t.enter(ended).expect_err("twice").contains("over already"));
    t.fail(&["routing"], &["eu", "us"], 40);
    t.run_for(90);
    assert!(t.told().contains(&"opened routing".to_owned()));
}

#[test]
fn active_harm_is_held_only_where_somebody_said_so() {
    let mut t = Town::learned();
    let harm = |t: &mut Town, model: &str| {
        let json = format!(
            r#"{{"kind":"prediction","id":"h{}","time":"{}","model":"{model}","version":"1","environment":"prod","flags":{{"harmful":"confirmed"}}}}"#,
            t.position,
            t.now.rfc3339()
        );
        t.say(&json);
        t.run_for(8);
    };
    t.hold(HoldKind::Maintenance, Matcher::default(), 60, false);
    harm(&mut t, "pricing");
    assert_eq!(t.told(), ["opened pricing"]);
    t.hold(HoldKind::Silence, Matcher { model: Some("ranking".into()), ..Matcher::default() }, 60, true);
    harm(&mut t, "ranking");
    assert_eq!(t.told(), ["opened pricing"]);
    assert!(t.live().iter().any(|i| i.key.model == "ranking" && i.state == IncidentState::Suppressed));

    // One incident alone, by a person.
    let id = t.live().iter().find(|i| i.key.model == "pricing").expect("open").id.clone();
    let until = Some(t.now.plus_ms(60_000));
    t.act(&id, Command::Suppress { by: "bo".into(), why: "legal is on it".into(), until }).expect("suppressed");
    assert_eq!(t.told().last().map(String::as_str), Some("suppressed pricing"));
    t.run_for(70);
    assert_eq!(t.told().last().map(String::as_str), Some("opened pricing"), "and it calls again");
}

#[test]
fn what_flaps_is_held_open_instead_of_calling_at_every_turn() {
    let mut t = Town::learned();
    for _ in 0..3 {
        t.fail(&["pricing"], &["eu", "us"], 40);
        t.run_for(90);
        t.fail(&["pricing"], &["eu", "us"], 2);
        t.run_for(1_000);
    }
    let calls = t.told().iter().filter(|w| w.starts_with("opened") || w.starts_with("reopened")).count();
    assert_eq!(calls, 3, "{:?}", t.told());
    let live = t.live();
    assert_eq!(live.len(), 1, "{}", t.engine.incidents().map(|i| t.timeline(&i.id)).collect::<String>());
    assert!(live[0].settles_at.is_some() && t.timeline(&live[0].id).contains("it is not over before"), "{}", t.timeline(&live[0].id));
    t.run_for(31 * 60);
    assert!(t.live().is_empty(), "quiet for half an hour");
    let over = t.incidents(|s| s == IncidentState::Resolved);
    assert_eq!(over[0].closed_as, Some(ClosedAs::Fixed));
    assert_eq!(t.told().iter().filter(|w| w.starts_with("resolved")).count(), 3);
}

#[test]
fn ten_thousand_alarms_in_a_minute_make_a_handful_of_incidents_and_one_summary() {
    let mut t = Town::learned();
    let (alarms, before) = (t.engine.view().alarms_raised, t.engine.save().expect("saved").iter().map(|r| r.1.len()).sum::<usize>());
    // Five thousand models give away a planted string and harm somebody, all within one minute.
    for n in 0..5_000 {
        for (what, member) in [("h", r#""flags":{"harmful":"confirmed"}"#.to_owned()), ("c", format!(r#""output":"so {CANARY}""#))] {
            let json = format!(
                r#"{{"kind":"prediction","id":"{what}{n}","time":"{}","model":"m{n}","version":"1","environment":"prod",{member}}}"#,
                t.now.rfc3339()
            );
            t.say(&json);
        }
        if n % 100 == 99 {
            t.run_for(1);
        }
    }
    t.run_for(10);
    let raised = t.engine.view().alarms_raised - alarms;
    assert!(raised >= 10_000, "{raised} alarms");
    let all: Vec<&Incident> = t.engine.incidents().collect();
    assert!(all.len() <= 10, "{} incidents", all.len());
    let shelter = all.iter().max_by_key(|i| i.merged.len()).expect("one");
    assert!(shelter.merged.len() <= 200 && shelter.findings.len() <= 200, "bounded");
    let timeline: Vec<&str> = t.out.timeline.iter().filter(|e| e.incident_id == shelter.id && e.what == "joined").map(|e| e.why.as_str()).collect();
    assert!(timeline.len() < 100, "not one line for each: {}", timeline.len());
    // The summary, and everybody's quiet afterwards.
    t.run_for(1_200);
    let told = t.told();
    assert!(told.len() <= 12, "{told:?}");
    assert_eq!(told.iter().filter(|w| w.starts_with("updated")).count(), 1, "one summary: {told:?}");
    let summary = t.out.deliveries.iter().rfind(|d| d.message.notice == Notice::Updated).expect("one");
    let title = &summary.message.incident.title;
    let more: u64 = title.split("; also ").nth(1).and_then(|t| t.strip_suffix(" more")).and_then(|n| n.parse().ok()).expect("a number");
    assert!(more > 9_000, "{title}");
    let desk = t.engine.save().expect("saved").iter().find(|r| r.0 == "desk").expect("there").1.len();
    assert!(desk < 2_000_000, "the desk's state has {desk} bytes, all had {before} before");
}
