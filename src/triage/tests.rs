//! Cases by name, and what triage says of them.

use super::*;
use crate::domain::alarm::{Change, Unit};
use crate::domain::{Category, Cause, GroupKey, Onset, SeriesKey};

/// 2026-11-20T09:12:00Z.
const ONSET: Time = Time(1_795_165_920_000);
const MINUTE: i64 = 60_000;

fn at(minutes: i64) -> Time {
    ONSET.plus_ms(minutes * MINUTE)
}

fn fact(minutes: i64, version: Option<&str>, kind: FactKind) -> Fact {
    Fact { time: at(minutes), environment: Some("prod".into()), model: Some("loan-scorer".into()), version: version.map(str::to_owned), kind }
}

fn deployed(minutes: i64, version: &str, previous: Option<&str>) -> Fact {
    let kind = FactKind::Deployment { phase: "finished".into(), target: "loan-scorer".into(), previous_version: previous.map(str::to_owned) };
    fact(minutes, Some(version), kind)
}

fn ran(minutes: i64, job: &str, state: &str) -> Fact {
    Fact { model: None, environment: None, ..fact(minutes, None, FactKind::Pipeline { job: job.into(), state: state.into(), error: None }) }
}

fn confirmed(minutes: i64, flag: &str) -> Fact {
    fact(minutes, None, FactKind::Confirmed { flag: flag.into(), id: "p-7".into() })
}

/// A case that owns what [`Case`] borrows.
struct Told {
    name: &'static str,
    environment: &'static str,
    findings: Vec<Finding>,
    facts: Vec<Fact>,
    models: (usize, usize),
    versions: Vec<String>,
    segments: Vec<Segment>,
    exposure: Vec<String>,
    companions: Vec<Signal>,
    users: Option<Estimate>,
}

/// `signal`, before, after, minutes after the onset.
fn case(name: &'static str, findings: &[(&str, f64, f64, i64)]) -> Told {
    let findings = findings.iter().map(|(signal, before, after, minutes)| {
        let signal: Signal = signal.parse().unwrap();
        let series = SeriesKey { group: GroupKey::roll_up("prod", "loan-scorer"), signal };
        let unit = match series.signal {
            Signal::Latency => Unit::Milliseconds,
            Signal::Cost => Unit::Currency,
            Signal::TokensOut | Signal::TokensIn => Unit::Tokens,
            Signal::Quality(_) | Signal::Prediction | Signal::Feature(_) => Unit::Score,
            _ => Unit::Ratio,
        };
        let by_rule = matches!(series.signal, Signal::Rule(_));
        let change = (!by_rule).then_some(Change { before: *before, after: *after, low: *after, high: *after });
        let headline = match &change {
            Some(c) => format!("{} {} → {}", series.signal.words(), unit.words(c.before), unit.words(c.after)),
            None => format!("{} was seen", series.signal.words()),
        };
        Finding {
            series_id: series.id(),
            series,
            detector: "rate".into(),
            reason: "r".into(),
            headline,
            change,
            unit,
            onset: Onset::sharp(at(*minutes)),
            found_at: at(minutes + 2),
            log_evidence: Some(21.0),
            threshold: Some(14.0),
            by_rule,
            recovered_at: None,
        }
    });
    Told {
        name,
        environment: "prod",
        findings: findings.collect(),
        facts: vec![],
        models: (1, 8),
        versions: vec![],
        segments: vec![],
        exposure: vec![],
        companions: vec![],
        users: None,
    }
}

impl Told {
    fn with(mut self, facts: &[Fact]) -> Told {
        self.facts.extend_from_slice(facts);
        self
    }
    fn in_segment(mut self, dimension: &str, value: &str) -> Told {
        self.segments.push(Segment { dimension: dimension.into(), value: value.into() });
        self
    }
    fn in_version(mut self, version: &str) -> Told {
        self.versions.push(version.into());
        self
    }
    fn exposed(mut self, word: &str) -> Told {
        self.exposure.push(word.into());
        self
    }
    fn beside(mut self, companion: &str) -> Told {
        self.companions.push(companion.parse().expect("known"));
        self
    }
    fn of_models(mut self, hit: usize, all: usize) -> Told {
        self.models = (hit, all);
        self
    }

    fn assess(&self) -> Assessment {
        let category = self.findings.first().map_or(Category::ModelFailure, |f| category_of(&f.series.signal));
        let key = IncidentKey { environment: self.environment.into(), model: "loan-scorer".into(), category };
        let asked: Vec<_> = self.findings.iter().map(|f| severity_of(&f.series.signal, f.change.as_ref(), f.by_rule)).collect();
        super::assess(&Case {
            key: &key,
            findings: &self.findings,
            known: &[],
            asked: &asked,
            facts: &self.facts,
            models_hit: self.models.0,
            models_all: self.models.1,
            versions: &self.versions,
            segments: &self.segments,
            spread: None,
            everywhere: false,
            users_affected: self.users,
            exposure: &self.exposure,
            owner: None,
            getting_worse: None,
            companions: &self.companions.iter().collect::<Vec<_>>(),
            set: None,
            now: at(3),
        })
    }
}

#[test]
fn cases_get_the_severity_the_cause_and_the_line_that_a_person_would_give_them() {
    use Cause::{Data, Infrastructure, Model, Pipeline};
    let errors = ("error_rate", 0.004, 0.031, 0);
    let table = [
        (
            case("errors of a new version", &[errors]).with(&[deployed(-9, "2026-11-18", Some("2026-10-02"))]).in_segment("region", "eu"),
            2,
            Some(Pipeline),
            true,
            "loan-scorer prod: error rate 0.4 % → 3.1 % since 09:12 UTC, region=eu, 9 min after version 2026-11-18",
        ),
        (
            case("errors of nothing in particular", &[errors]),
            2,
            Some(Infrastructure),
            true,
            "loan-scorer prod: error rate 0.4 % → 3.1 % since 09:12 UTC",
        ),
        (
            case("errors long after a version", &[errors]).with(&[deployed(-61, "v7", None)]),
            2,
            Some(Infrastructure),
            true,
            "loan-scorer prod: error rate 0.4 % → 3.1 % since 09:12 UTC",
        ),
        (
            case("a failed deployment changes nothing", &[errors]).with(&[fact(
                -5,
                Some("v7"),
                FactKind::Deployment { phase: "failed".into(), target: "x".into(), previous_version: None },
            )]),
            2,
            Some(Infrastructure),
            true,
            "loan-scorer prod: error rate 0.4 % → 3.1 % since 09:12 UTC",
        ),
        (
            case("timeouts of a new version", &[("timeout_rate", 0.0, 0.2, 0)]).with(&[deployed(-2, "v7", Some("v6"))]).in_version("v7"),
            2,
            Some(Pipeline),
            true,
            "loan-scorer prod: timeout rate 0 % → 20 % since 09:12 UTC, 2 min after version v7",
        ),
        (
            case("an old version fails beside a new one", &[errors]).with(&[deployed(-9, "v7", Some("v6"))]).in_version("v6"),
            2,
            Some(Pipeline),
            true,
            "loan-scorer prod: error rate 0.4 % → 3.1 % since 09:12 UTC, version v6, 9 min after version v7",
        ),
        (
            case("several models at once", &[("latency", 300.0, 900.0, 0)]).of_models(5, 8),
            2,
            Some(Infrastructure),
            true,
            "loan-scorer prod: latency 300 ms → 900 ms since 09:12 UTC",
        ),
        (
            case("a little slower", &[("latency", 300.0, 420.0, 0)]),
            3,
            Some(Infrastructure),
            true,
            "loan-scorer prod: latency 300 ms → 420 ms since 09:12 UTC",
        ),
        (
            case("a missing feature after a failed run", &[("missing:income", 0.01, 0.4, 0)]).with(&[ran(-30, "features-daily", "failed")]),
            2,
            Some(Data),
            true,
            "loan-scorer prod: missing income 1 % → 40 % since 09:12 UTC",
        ),
        (
            case("a missing feature after a run that was made good", &[("missing:income", 0.01, 0.4, 0)])
                .with(&[ran(-30, "features-daily", "failed"), ran(-20, "features-daily", "succeeded")]),
            3,
            Some(Data),
            true,
            "loan-scorer prod: missing income 1 % → 40 % since 09:12 UTC",
        ),
        (
            case("a missing feature and worse answers", &[("missing:income", 0.01, 0.4, 0)]).beside("quality:faithfulness"),
            2,
            Some(Data),
            true,
            "loan-scorer prod: missing income 1 % → 40 % since 09:12 UTC",
        ),
        (
            case("drift alone", &[("feature:income", 40.0, 60.0, 0), ("unseen:region", 0.0, 0.1, 1)]),
            3,
            Some(Data),
            false,
            "loan-scorer prod: feature income 40 → 60 since 09:12 UTC",
        ),
        (
            case("drift and then predictions", &[("prediction", 0.4, 0.6, 2), ("feature:income", 40.0, 60.0, 0)]),
            2,
            Some(Data),
            true,
            "loan-scorer prod: prediction 0.4 → 0.6 since 09:14 UTC",
        ),
        (
            case("predictions alone", &[("prediction", 0.4, 0.6, 0)]).beside("prediction"),
            3,
            Some(Model),
            true,
            "loan-scorer prod: prediction 0.4 → 0.6 since 09:12 UTC",
        ),
        (
            case("quality without anything else", &[("quality:faithfulness", 0.86, 0.7, 0)]),
            2,
            Some(Model),
            true,
            "loan-scorer prod: quality faithfulness 0.86 → 0.7 since 09:12 UTC",
        ),
        (
            case("harmful by a classifier", &[("flag:harmful", 0.001, 0.02, 0)]),
            1,
            Some(Model),
            true,
            "loan-scorer prod: harmful flag rate 0.1 % → 2 % since 09:12 UTC",
        ),
        (
            case("harm that a person confirmed", &[("rule:confirmed_harmful", 0.0, 0.0, 0)]).with(&[confirmed(0, "harmful")]),
            1,
            Some(Model),
            true,
            "loan-scorer prod: confirmed harmful was seen at 09:12 UTC",
        ),
        (
            case("a leak by rate", &[("flag:leak", 0.001, 0.02, 0)]),
            2,
            Some(Model),
            true,
            "loan-scorer prod: leak flag rate 0.1 % → 2 % since 09:12 UTC",
        ),
        (case("a canary in an output", &[("rule:canary", 0.0, 0.0, 0)]), 1, Some(Model), true, "loan-scorer prod: canary was seen at 09:12 UTC"),
        (
            case("unequal treatment", &[("fairness:age_band", 0.9, 0.7, 0)]).exposed("eu"),
            2,
            Some(Model),
            true,
            "loan-scorer prod: fairness age_band 90 % → 70 % since 09:12 UTC",
        ),
        (
            case("unequal treatment with legal exposure", &[("fairness:age_band", 0.9, 0.7, 0)]).exposed("Legal"),
            1,
            Some(Model),
            true,
            "loan-scorer prod: fairness age_band 90 % → 70 % since 09:12 UTC",
        ),
        (
            case("cost with longer answers", &[("cost", 0.01, 0.014, 0), ("tokens_out", 200.0, 300.0, 0)]),
            3,
            Some(Model),
            true,
            "loan-scorer prod: cost 0.01 → 0.014 since 09:12 UTC",
        ),
        (
            case("a bill that doubles", &[("cost", 0.01, 0.021, 0)]),
            2,
            Some(Infrastructure),
            true,
            "loan-scorer prod: cost 0.01 → 0.021 since 09:12 UTC",
        ),
        (
            case("total failure", &[("rule:total_failure", 0.0, 0.0, 0)]).with(&[deployed(-1, "v7", None)]),
            2,
            Some(Pipeline),
            true,
            "loan-scorer prod: total failure was seen since 09:12 UTC, 1 min after version v7",
        ),
        (
            case("harm confirmed elsewhere does not raise errors", &[errors]).with(&[confirmed(0, "harmful")]),
            2,
            Some(Infrastructure),
            true,
            "loan-scorer prod: error rate 0.4 % → 3.1 % since 09:12 UTC",
        ),
        (
            case("a deployment to another environment", &[errors]).with(&[Fact { environment: Some("staging".into()), ..deployed(-9, "v7", None) }]),
            2,
            Some(Infrastructure),
            true,
            "loan-scorer prod: error rate 0.4 % → 3.1 % since 09:12 UTC",
        ),
    ];
    for (told, severity, cause, pages, title) in table {
        let said = told.assess();
        assert_eq!(said.title, title, "{}", told.name);
        assert_eq!(said.severity.level(), severity, "{}: {:?}", told.name, said.severity_reasons);
        assert_eq!(said.cause.as_ref().map(|c| c.best), cause, "{}: {:?}", told.name, said.cause);
        assert_eq!(said.pages, pages, "{}: {}", told.name, said.page_reason);
        assert_eq!(said.severity_reasons.len(), 6, "{}", told.name);
        assert!(said.action.ends_with('.') && !said.action.contains('{'), "{}: {}", told.name, said.action);
        if let Some(cause) = &said.cause {
            assert_eq!(cause.ranked.len(), 4);
            assert!((cause.ranked.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-9);
            assert!(cause.ranked.is_sorted_by(|a, b| a.1 >= b.1) && cause.ranked[0].0 == cause.best && !cause.facts.is_empty());
        }
    }
}

#[test]
fn the_page_says_why_it_calls_and_what_to_do() {
    let errors =
        case("errors", &[("error_rate", 0.004, 0.031, 0)]).with(&[deployed(-9, "v7", Some("v6"))]).in_segment("region", "eu").in_version("v7");
    let said = errors.assess();
    assert_eq!(said.page_reason, "error rate is beyond tolerance with evidence within the budget");
    assert_eq!(said.action, "Roll back loan-scorer from version v7 to version v6, or route region=eu of loan-scorer to the fallback.");
    let facts = said.cause.expect("clues").facts;
    assert_eq!(facts, ["only version v7 is hit, which is new", "version v7 deployed 09:03 UTC, 9 min before the onset"]);

    let drift = case("drift", &[("feature:income", 40.0, 60.0, 0)]).assess();
    assert_eq!((drift.pages, drift.page_reason.as_str()), (false, "drift alone is listed, not paged"));

    let mut harm = case("harm", &[("flag:harmful", 0.001, 0.02, 0)]).exposed("legal").with(&[confirmed(1, "harmful")]);
    harm.users = Some(Estimate { estimate: 1240.0, low: 1100.0, high: 1400.0 });
    let said = harm.assess();
    let answers: Vec<&str> = said.severity_reasons.iter().map(|a| a.answer.as_str()).collect();
    assert_eq!(
        answers,
        [
            "1, active harm: harmful flag rate asks for it",
            "yes: output p-7 was confirmed as harmful at 09:13 UTC",
            "yes: legal",
            "all: no version or segment explains it alone; about 1240 users (1100 to 1400)",
            "no segment is known that tells it apart",
            "too early to say",
        ]
    );
    assert!(said.action.starts_with("Take loan-scorer offline") && said.action.ends_with("tell legal."), "{}", said.action);
}

#[test]
fn an_onset_that_may_lie_after_the_deployment_counts_as_after_it() {
    let mut told = case("errors", &[("error_rate", 0.004, 0.031, 0)]).with(&[deployed(1, "v7", None)]);
    told.findings[0].onset.to = at(2);
    let said = told.assess();
    assert!(said.title.ends_with(", about when version v7 came"), "{}", said.title);
    assert_eq!(said.cause.expect("a clue").best, Cause::Pipeline);
}

#[test]
fn a_stranger_cannot_make_the_line_long_or_break_it() {
    let long = "x\n".repeat(5_000);
    let mut told =
        case("long", &[("error_rate", 0.004, 0.031, 0)]).in_segment("region", &long).in_version(&long).with(&[deployed(-1, &long, Some(&long))]);
    told.environment = "unknown";
    told.findings[0].headline = long;
    let said = told.assess();
    assert!(said.title.chars().count() <= title::CHARS_MAX && !said.title.contains('\n'), "{}", said.title);
    assert!(said.title.starts_with("loan-scorer: x"), "an unknown environment is not spoken: {}", said.title);
    assert!(!said.action.contains('\n') && said.action.len() < 1_000);
    let nothing = case("nothing", &[]).assess();
    assert_eq!((nothing.pages, nothing.severity, nothing.cause), (false, Severity::MINOR, None));
}

#[test]
fn every_signal_has_its_place_in_the_table() {
    let table = [
        ("error_rate", Category::ModelFailure, 2),
        ("first_token_latency", Category::ModelFailure, 3),
        ("silence", Category::ModelFailure, 2),
        ("tokens_in", Category::CostAnomaly, 3),
        ("estimated:accuracy", Category::QualityDegradation, 2),
        ("schema", Category::QualityDegradation, 3),
        ("embedding:text", Category::QualityDegradation, 3),
        ("flag:harmful", Category::HarmfulOutput, 1),
        ("flag:injection", Category::DataBreach, 2),
        ("flag:out_of_scope", Category::OutOfScopeUse, 2),
        ("flag:refusal", Category::QualityDegradation, 2),
        ("complaint_rate", Category::QualityDegradation, 2),
        ("fairness:sex", Category::Bias, 2),
        ("rule:secret", Category::DataBreach, 1),
        ("rule:confirmed_injection", Category::DataBreach, 1),
        ("rule:blind", Category::MonitoringBlind, 2),
        ("rule:everything_silent", Category::MonitoringBlind, 2),
        ("rule:total_failure", Category::ModelFailure, 2),
        ("rule:error_rate", Category::ModelFailure, 2),
        ("rule:cost", Category::CostAnomaly, 3),
    ];
    for (text, category, level) in table {
        let signal: Signal = text.parse().unwrap();
        let by_rule = matches!(signal, Signal::Rule(_));
        assert_eq!((category_of(&signal), severity_of(&signal, None, by_rule).level()), (category, level), "{text}");
    }
    let all = Signal::PLAIN.iter().map(|s| (*s).to_owned()).chain(Signal::NAMED.iter().map(|s| format!("{s}:x")));
    for text in all.filter(|text| !text.starts_with("rule")) {
        let signal: Signal = text.parse().unwrap();
        assert!(severity::is_listed(&signal), "{text} is not in the table");
    }
    assert_eq!(severity_of(&Signal::Flag("leak".into()), None, true), Severity::HARM, "by rule");
}
