//! Tests of the decode room: nothing that a producer can send panics, is slow, or goes by without a word.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::observation::{Body, Fault, FeatureValue, FeedbackKind, FieldFault, Flag, PipelineState, Status};

mod malformed;

use malformed::{Expect, malformed};

/// 2026-11-20T09:14:03.120Z: when the record came.
const RECORD: Time = Time(1_795_166_043_120);

fn canonical() -> Decoder {
    Decoder::canonical(Settings::new([7; 16]))
}

fn read<'a>(decoder: &Decoder, text: &'a str) -> Observation<'a> {
    decoder.decode(text.as_bytes(), RECORD, None).unwrap_or_else(|reject| panic!("{text}: {reject}"))
}

fn faults(seen: &Observation<'_>) -> Vec<(String, Fault)> {
    seen.faults.iter().map(|FieldFault { field, fault }| (field.to_string(), *fault)).collect()
}

// === malformed events ===

#[test]
fn a_malformed_event_gets_its_reason_or_loses_its_field() {
    let (decoder, mut wrong) = (canonical(), Vec::new());
    let rows = malformed();
    for (i, row) in rows.iter().enumerate() {
        let payload = row.payload();
        let shown = String::from_utf8_lossy(&payload[..payload.len().min(120)]).into_owned();
        let begun = Instant::now();
        let said = decoder.decode(&payload, RECORD, None);
        // A hundred times what F50 asks, for this machine is shared.
        assert!(begun.elapsed() < Duration::from_secs(1), "{i} {}: {:?} for {shown}", row.sort, begun.elapsed());
        let fits = match (&row.expect, &said) {
            (Expect::No(reason, detail), Err(reject)) => reject.reason == *reason && reject.detail.contains(detail),
            (Expect::Yes(faulty), Ok(seen)) => *faulty == faults(seen),
            (Expect::No(..), Ok(_)) | (Expect::Yes(_), Err(_)) => false,
        };
        if !fits {
            let said = said.map(|seen| faults(&seen));
            let expected = match &row.expect {
                Expect::No(reason, detail) => format!("{reason}: {detail}"),
                Expect::Yes(faulty) => format!("{faulty:?}"),
            };
            wrong.push(format!("{i} {}: {shown}\n    expected {expected}\n    found {said:?}", row.sort));
        }
        if let Err(reject) = decoder.decode(&payload, RECORD, None) {
            assert!(reject.detail.len() <= DETAIL_BYTES_MAX && !reject.detail.chars().any(char::is_control), "{reject}");
        }
    }
    assert!(rows.len() >= 200, "only {}", rows.len());
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

/// The table as a file, for tests that send it the whole way. `BELLWETHER_RENEW=1` writes it anew.
#[test]
fn the_file_of_malformed_events_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/malformed.json");
    let rows = malformed();
    let lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let payload: Vec<Value> = row.parts.iter().map(|(bytes, times)| json!([STANDARD.encode(bytes), times])).collect();
            let expected = match &row.expect {
                Expect::No(reason, detail) => json!({"reason": reason.as_str(), "detail": detail}),
                Expect::Yes(faulty) => json!({"faults": faulty.iter().map(|(field, fault)| json!([field, fault.as_str()])).collect::<Vec<_>>()}),
            };
            json!({"sort": row.sort, "payload": payload, "expect": expected}).to_string()
        })
        .collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    if std::env::var_os("BELLWETHER_RENEW").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data")).unwrap();
        std::fs::write(path, &text).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(found == text, "{path} is not the table; renew it with BELLWETHER_RENEW=1 cargo test --lib decode::");
}

#[test]
fn a_hostile_megabyte_is_answered_at_once() {
    let features: String = (0..60_000).map(|i| format!("\"f{i}\":1,")).collect();
    let events = [
        format!(r#"{{"kind":"prediction","id":"p","model":"m","features":{{{features}"z":1}}}}"#),
        format!(r#"{{"kind":"prediction","id":"p","model":"m","label":"{}"}}"#, "\\u0041".repeat(170_000)),
        format!(r#"{{"kind":"prediction","id":"p","model":"m","zzz":[{}1e999]}}"#, "1e999,".repeat(170_000)),
        format!(r#"{{"kind":"prediction","id":"p","model":"m","zzz":[{}0]}}"#, "[],".repeat(340_000)),
        "{\"\":".repeat(200_000),
        "\"".repeat(1_000_000),
    ];
    for event in &events {
        let begun = Instant::now();
        let _ = canonical().decode(event.as_bytes(), RECORD, None);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?} for {}", begun.elapsed(), &event[..60]);
    }
}

fn valid() -> Vec<&'static str> {
    vec![
        r#"{"kind":"prediction","id":"p-991","time":"2026-11-20T09:14:03.120Z","model":"loan-scorer","version":"2026-11-18","environment":"prod","segments":{"region":"eu"},"latency_ms":361,"score":0.813,"label":"approve","scores":{"approve":0.8},"features":{"income":41200,"employment":"self","age_band":null,"e":[1,2]},"flags":{"harmful":true},"cost":{"amount":0.1,"currency":"USD"},"error":{"type":"t"}}"#,
        r#"{"kind":"quality","name":"faithfulness","value":0.82,"trace_id":"9c","span_id":"a1","evaluator":"llm"}"#,
        r#"{"kind":"deployment","target":{"kind":"model","name":"m"},"phase":"finished","previous_version":"v1"}"#,
        r#"{"kind":"pipeline","job":"j","state":"failed","outputs":[{"name":"o"}],"assertions":[{"name":"a","success":false}]}"#,
        r#"{"kind":"report","id":"r","summary":"s","source_of_report":"user","happening_now":true}"#,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = canonical().decode(&bytes, RECORD, Some("prediction"));
        let _ = mapped(json!({"kind": "$.k", "id": "$.a[0].b", "model": "m"})).decode(&bytes, Time(i64::MIN), None);
    }

    #[test]
    fn no_change_of_a_valid_event_makes_it_panic(
        which in 0usize..5,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, any::<u8>()), 1..6),
        record_time in any::<i64>(),
    ) {
        const WORDS: [&[u8]; 6] = [b"1e999", b"null", b"-1", b"\"\xff", b"{[", b"\\ud800"];
        let mut bytes = valid()[which].as_bytes().to_vec();
        for (at, what, byte) in edits {
            let i = at.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
            match what {
                0 => bytes[i] = byte,
                1 => bytes.truncate(i.max(1)),
                2 => bytes.insert(i, byte),
                3 => { let copy = bytes[i..].to_vec(); bytes.extend_from_slice(&copy); }
                _ => { bytes.splice(i..i, WORDS[usize::from(byte) % 6].iter().copied()); }
            }
        }
        let begun = Instant::now();
        if let Err(reject) = canonical().decode(&bytes, Time(record_time), None) {
            prop_assert!(!reject.detail.is_empty() && reject.detail.len() <= DETAIL_BYTES_MAX);
        }
        prop_assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_mapping_of_any_shape_is_compiled_or_refused(key in "[a-z_]{0,12}", text in "\\PC{0,20}", other in any::<i64>()) {
        for value in [json!(text), json!(other), json!(null), json!([text]), json!({"path": text}), json!({(text.clone()): {"unit": text, "path": "$"}})] {
            if let Err(error) = Decoder::mapped(Settings::new([7; 16]), &Mapping(BTreeMap::from([(key.clone(), value)]))) {
                prop_assert!(!error.0.is_empty());
            }
        }
    }
}

// === all kinds ===

#[test]
fn a_prediction_is_read_fully() {
    let decoder = canonical();
    let text = r#"{"id":"p-1","time":1795166043000,"model":"m","version":"v","environment":"prod","segments":{"region":"eu","x":""},
        "trace_id":"t","span_id":"s","session_id":"se","user":"ana","schema":1,"latency_ms":361.5,"first_token_ms":20,"status":"timeout",
        "error":{"type":"timeout","message":"too slow","code":504},"score":-0.25,"label":1,"scores":{"a":0.75,"b":1.0000001},"output":"","output_empty":false,
        "finish_reason":"length","features":{"n":1.5,"i":7,"t":"self","b":true,"z":null,"e":[1,2.5]},"input_tokens":812,"output_tokens":164,
        "cached_tokens":512,"reasoning_tokens":3,"cost":{"amount":0.5,"currency":"EUR"},"cost_usd":9,"cache_hit":true,"attempt":2,
        "flags":{"harmful":"confirmed","leak":0.25,"refusal":true},"groups":{"sex":"f"},"kind":"prediction"}"#;
    let seen = read(&decoder, text);
    assert_eq!(faults(&seen), []);
    let e = &seen.envelope;
    assert_eq!(
        (e.id.as_deref(), e.time, e.model.as_deref(), e.version.as_deref()),
        (Some("p-1"), Some(Time(1_795_166_043_000)), Some("m"), Some("v"))
    );
    assert_eq!((e.environment.as_deref(), e.trace_id.as_deref(), e.span_id.as_deref()), (Some("prod"), Some("t"), Some("s")));
    assert_eq!((e.session_id.as_deref(), e.user), (Some("se"), Some(siphash::hash(&[7; 16], b"ana"))));
    assert_eq!(e.segments, [("region".into(), "eu".into())], "a segment without a value says nothing");
    let Body::Prediction(p) = &seen.body else { panic!("{:?}", seen.body) };
    assert_eq!((p.latency_ms, p.first_token_ms, p.status, p.score), (Some(361.5), Some(20.0), Status::Timeout, Some(-0.25)));
    let error = p.error.as_ref().expect("an error");
    assert_eq!((error.kind.as_deref(), error.message.as_deref(), error.code.as_deref()), (Some("timeout"), Some("too slow"), Some("504")));
    assert_eq!(
        (p.label.as_deref(), p.output.as_deref(), p.output_empty, p.finish_reason.as_deref()),
        (Some("1"), Some(""), Some(false), Some("length"))
    );
    assert_eq!(p.scores, [("a".into(), 0.75), ("b".into(), 1.0)]);
    assert!(p.carries_features);
    let features: Vec<_> = p.features.iter().map(|(_, value)| value.clone()).collect();
    let expected = [
        FeatureValue::Number(1.5),
        FeatureValue::Number(7.0),
        FeatureValue::Text("self".into()),
        FeatureValue::Bool(true),
        FeatureValue::Null,
        FeatureValue::Embedding(vec![1.0, 2.5]),
    ];
    assert_eq!(features, expected);
    assert_eq!((p.input_tokens, p.output_tokens, p.cached_tokens, p.reasoning_tokens), (Some(812.0), Some(164.0), Some(512.0), Some(3.0)));
    let cost = p.cost.as_ref().expect("a cost");
    assert_eq!((cost.amount, cost.currency.as_deref()), (0.5, Some("EUR")), "the amount with its currency is the better word");
    assert_eq!((p.cache_hit, p.attempt), (Some(true), Some(2.0)));
    assert_eq!(p.flags, [("harmful".into(), Flag::Confirmed), ("leak".into(), Flag::Score(0.25)), ("refusal".into(), Flag::Bool(true))]);
    assert_eq!(p.groups, [("sex".into(), "f".into())]);
}

#[test]
fn the_other_kinds_are_read_fully() {
    let decoder = canonical();
    let body = |text: &'static str| {
        let seen = read(&decoder, text);
        assert_eq!(faults(&seen), [], "{text}");
        seen.body
    };
    let Body::Outcome(o) = body(
        r#"{"kind":"outcome","prediction_id":"p","label":true,"value":0.5,"observed_at":"2026-12-24T00:00:00Z","weight":2,"retracted":true,"supersedes":"x","source":"crm"}"#,
    ) else {
        panic!()
    };
    assert_eq!((&*o.prediction_id, o.label.as_deref(), o.value, o.weight, o.retracted), ("p", Some("true"), Some(0.5), Some(2.0), true));
    assert_eq!(o.observed_at, Time::parse_rfc3339("2026-12-24T00:00:00Z"));

    let Body::Quality(q) = body(
        r#"{"kind":"quality","name":"q","value":0.82,"prediction_id":"p","evaluator":"llm","evaluator_version":"j7","min":0,"max":1,"higher_is_better":false,"explanation":"e","error":"none"}"#,
    ) else {
        panic!()
    };
    assert_eq!((&*q.name, q.value, q.prediction_id.as_deref(), q.evaluator.as_deref()), ("q", Some(0.82), Some("p"), Some("llm")));
    assert_eq!(
        (q.evaluator_version.as_deref(), q.min, q.max, q.higher_is_better, q.error.as_deref()),
        (Some("j7"), Some(0.0), Some(1.0), Some(false), Some("none"))
    );
    let Body::Quality(q) = body(r#"{"kind":"quality","name":"harmful","value":true,"trace_id":"t","span_id":"s"}"#) else { panic!() };
    assert_eq!((q.value, q.label.as_deref()), (None, Some("true")), "a boolean is a word");

    let Body::Feedback(f) =
        body(r#"{"kind":"feedback","kind_of":"complaint","value":-1,"prediction_id":"p","category":"wrong","text":"t","url":"u"}"#)
    else {
        panic!()
    };
    assert_eq!((f.kind_of, f.value, f.prediction_id.as_deref()), (FeedbackKind::Complaint, Some(-1.0), Some("p")));
    assert_eq!((f.category.as_deref(), f.text.as_deref()), (Some("wrong"), Some("t")));
    let thumb = read(&decoder, r#"{"kind":"feedback","kind_of":"thumb","value":"down"}"#);
    assert_eq!(faults(&thumb), [("value".to_owned(), Fault::Coerced)]);
    assert!(matches!(thumb.body, Body::Feedback(f) if f.value == Some(-1.0)));

    let Body::Deployment(d) = body(
        r#"{"kind":"deployment","target":{"kind":"prompt","name":"greet"},"phase":"finished","previous_version":"v1","traffic_percent":50,"actor":"ci","url":"u","description":"d"}"#,
    ) else {
        panic!()
    };
    assert_eq!((&*d.target_kind, &*d.target_name, &*d.phase), ("prompt", "greet", "finished"));
    assert_eq!((d.previous_version.as_deref(), d.traffic_percent, d.actor.as_deref()), (Some("v1"), Some(50.0), Some("ci")));
    assert_eq!((d.url.as_deref(), d.description.as_deref()), (Some("u"), Some("d")));

    let Body::Pipeline(p) = body(
        r#"{"kind":"pipeline","job":"j","state":"failed","run_id":"r","nominal_time":1795166043,"inputs":[1],"outputs":[{"name":"a","rows":5},"b"],"assertions":[{"name":"x","success":false},{"name":"y","success":true}],"error":{"message":"boom"}}"#,
    ) else {
        panic!()
    };
    assert_eq!((&*p.job, p.state, p.run_id.as_deref(), p.nominal_time), ("j", PipelineState::Failed, Some("r"), Some(Time(1_795_166_043_000))));
    assert_eq!((p.outputs.len(), p.failed_assertions.as_slice(), p.error.as_deref()), (2, &["x".into()][..], Some("boom")));

    let Body::Report(r) = body(
        r#"{"kind":"report","id":"r","summary":"s","source_of_report":"external","reporter":"ana","contact":"c","happening_now":true,"severity_guess":1,"examples":[],"disclosure_deadline":"d"}"#,
    ) else {
        panic!()
    };
    assert_eq!((&*r.summary, &*r.source_of_report, r.reporter.as_deref()), ("s", "external", Some("ana")));
    assert_eq!((r.happening_now, r.severity_guess), (Some(true), Some(1.0)));

    let Body::Heartbeat(h) = body(r#"{"kind":"heartbeat","producer":"p","expected_interval_s":60}"#) else { panic!() };
    assert_eq!((h.producer.as_deref(), h.expected_interval_s), (Some("p"), Some(60.0)));
}

#[test]
fn a_topic_may_fix_the_kind_and_the_event_may_say_another() {
    let decoder = canonical();
    let text = br#"{"id":"p","model":"m","output":"x","cost_usd":0}"#;
    let seen = decoder.decode(text, RECORD, Some("prediction")).unwrap();
    let Body::Prediction(p) = seen.body else { panic!() };
    assert_eq!(
        (p.cost.map(|c| (c.amount, c.currency)), p.carries_features, p.output_empty),
        (Some((0.0, None)), false, None),
        "a cost of zero is a cost"
    );
    assert_eq!(decoder.decode(br#"{"kind":"heartbeat","model":"m"}"#, RECORD, Some("prediction")).unwrap().body.kind(), 7);
    assert_eq!(decoder.decode(text, RECORD, Some("nonsense")).expect_err("unknown").reason, Reason::UnknownKind);
}

#[test]
fn an_error_without_a_status_did_not_go_well() {
    let decoder = canonical();
    let status = |more: &str| match read(&decoder, &format!(r#"{{"kind":"prediction","id":"p","model":"m"{more}}}"#)).body {
        Body::Prediction(p) => p.status,
        _ => panic!(),
    };
    assert_eq!(status(r#","error":"boom""#), Status::Error);
    assert_eq!(status(r#","error":null"#), Status::Ok);
    assert_eq!(status(r#","error":{"type":"x"},"status":"ok""#), Status::Ok);
}

#[test]
fn what_is_misspelt_is_named_once_per_topic() {
    let decoder = canonical();
    for i in 0..3 {
        read(&decoder, &format!(r#"{{"kind":"heartbeat","model":"m{i}","latencyms":1,"zebra":{{"a":[1]}}}}"#));
    }
    let hints: Vec<_> = decoder.hints().into_iter().map(|h| (h.name, h.nearest, h.count)).collect();
    assert_eq!(hints, [("latencyms".to_owned(), Some("latency_ms"), 3), ("zebra".to_owned(), None, 3)]);
}

#[test]
fn text_without_escapes_is_not_copied() {
    let decoder = canonical();
    let seen = read(&decoder, r#"{"kind":"prediction","id":"p","model":"m","label":"approve","features":{"a":"b"}}"#);
    let Body::Prediction(p) = &seen.body else { panic!() };
    use std::borrow::Cow::Borrowed;
    assert!(matches!(seen.envelope.id, Some(Borrowed("p"))) && matches!(p.label, Some(Borrowed("approve"))));
    assert!(matches!(&p.features[0], (Borrowed("a"), FeatureValue::Text(Borrowed("b")))));
}

#[test]
fn every_format_says_what_it_is_and_what_it_needs() {
    for kind in KINDS {
        assert!(!kind.about.is_empty());
        assert_eq!((kind.build)(Settings::new([0; 16]), None).is_err(), kind.knobs.iter().any(|knob| knob.required), "{}", kind.name);
    }
}

// === mappings ===

fn mapping(value: Value) -> Mapping {
    serde_json::from_value(value).unwrap()
}

fn mapped(value: Value) -> Decoder {
    Decoder::mapped(Settings::new([7; 16]), &mapping(value)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_mapping_of_the_front_door_reads_its_events() {
    let decoder =
        mapped(json!({"kind": "prediction", "model": "$.m", "id": "$.uid", "time": {"path": "$.ts", "unit": "ms"}, "latency_ms": "$.took"}));
    let seen = read(&decoder, r#"{"m":"loan-scorer","uid":"p-991","ts":1795166043000,"took":"361","other":[1]}"#);
    let Body::Prediction(p) = &seen.body else { panic!() };
    assert_eq!((seen.envelope.id.as_deref(), seen.envelope.model.as_deref()), (Some("p-991"), Some("loan-scorer")));
    assert_eq!((seen.envelope.time, p.latency_ms), (Some(Time(1_795_166_043_000)), Some(361.0)));
    assert_eq!(faults(&seen), [("latency_ms".to_owned(), Fault::Coerced)]);
}

#[test]
fn a_mapping_turns_units_words_defaults_constants_and_nested_objects() {
    let decoder = mapped(json!({
        "kind": "prediction",
        "id": {"path": "$.meta['request id']"},
        "model": {"const": "assistant"},
        "environment": "prod",
        "version": {"path": "$.v", "default": "v0"},
        "time": {"path": "$.at", "unit": "s"},
        "latency_ms": {"path": "$.steps[1].seconds", "unit": "s"},
        "first_token_ms": {"path": "$.ttft_us", "unit": "us"},
        "status": {"path": "$.code", "map": {"200": "ok", "504": "timeout", "true": "error"}},
        "segments": {"region": "$.geo.region", "tier": {"path": "$.plan", "map": {"p": "paid"}}, "cell": "c1"},
        "features": "$.inputs",
        "flags": {"harmful": "$.mod.harm"},
        "cost": {"amount": "$.usd", "currency": "USD"},
        "error": {"code": "$.code"},
        "score": {"path": "$.score", "default": 0.5},
        "output_empty": {"path": "$.empty", "map": {"Y": true}},
    }));
    let text = r#"{"meta":{"request id":"r-1"},"at":"1795166043","steps":[{},{"seconds":1.5}],"ttft_us":2500,"code":504,"geo":{"region":"eu"},"plan":"p",
        "inputs":{"a":1,"b":null},"mod":{"harm":0.75},"usd":0.25,"score":null,"empty":"Y"}"#;
    let seen = read(&decoder, text);
    let e = &seen.envelope;
    assert_eq!(
        (e.id.as_deref(), e.model.as_deref(), e.environment.as_deref(), e.version.as_deref()),
        (Some("r-1"), Some("assistant"), Some("prod"), Some("v0"))
    );
    assert_eq!(e.time, Some(Time(1_795_166_043_000)));
    assert_eq!(e.segments, [("cell".into(), "c1".into()), ("region".into(), "eu".into()), ("tier".into(), "paid".into())]);
    let Body::Prediction(p) = &seen.body else { panic!() };
    assert_eq!(
        (p.latency_ms, p.first_token_ms, p.status, p.score, p.output_empty),
        (Some(1_500.0), Some(2.5), Status::Timeout, Some(0.5), Some(true))
    );
    assert_eq!(p.features, [("a".into(), FeatureValue::Number(1.0)), ("b".into(), FeatureValue::Null)]);
    assert_eq!(p.flags, [("harmful".into(), Flag::Score(0.75))]);
    let cost = p.cost.as_ref().expect("a cost");
    assert_eq!((cost.amount, cost.currency.as_deref()), (0.25, Some("USD")));
    assert_eq!(p.error.as_ref().and_then(|e| e.code.as_deref()), Some("504"));
    assert_eq!(faults(&seen), [("time".to_owned(), Fault::Coerced)]);
}

#[test]
fn a_time_keeps_its_moment_whatever_unit_was_said() {
    for (unit, value) in [("s", "1795166043"), ("ms", "1795166043000"), ("us", "1795166043000000"), ("ns", "1795166043000000000")] {
        for value in [value.to_owned(), "\"2026-11-20T09:14:03Z\"".to_owned()] {
            let decoder = mapped(json!({"kind": "prediction", "id": "$.i", "model": "m", "time": {"path": "$.t", "unit": unit}}));
            let text = format!(r#"{{"i":"p","t":{value}}}"#);
            let seen = read(&decoder, &text);
            assert_eq!(seen.envelope.time, Some(Time(1_795_166_043_000)), "{unit} {value}");
        }
    }
}

#[test]
fn what_a_mapping_requires_is_refused_when_it_is_missing() {
    let decoder = mapped(json!({
        "kind": "prediction", "id": "$.i", "model": "$.m",
        "time": {"path": "$.t", "required": true},
        "latency_ms": {"path": "$.l", "required": true},
        "features": {"income": {"path": "$.in", "required": true}, "age": "$.age"},
    }));
    let refused = |text: &str| decoder.decode(text.as_bytes(), RECORD, None).expect_err(text);
    assert!(decoder.decode(br#"{"i":"p","m":"m","t":1795166043,"l":1,"in":2}"#, RECORD, None).is_ok());
    assert_eq!(refused(r#"{"i":"p","m":"m","l":1,"in":2}"#).reason, Reason::BadTime);
    assert_eq!(refused(r#"{"i":"p","m":"m","t":"soon","l":1,"in":2}"#).reason, Reason::BadTime);
    let reject = refused(r#"{"i":"p","m":"m","t":1795166043,"l":null,"in":2}"#);
    assert_eq!((reject.reason, reject.detail.as_str()), (Reason::MissingField, "missing \"latency_ms\": the mapping requires it"));
    let reject = refused(r#"{"i":"p","m":"m","t":1795166043,"l":1,"age":3}"#);
    assert_eq!((reject.reason, reject.detail.as_str()), (Reason::MissingField, "missing \"features.income\": the mapping requires it"));
    assert_eq!(refused(r#"{"m":"m","t":1795166043,"l":1,"in":2}"#).reason, Reason::MissingField);
    assert_eq!(refused("{\"i\":").reason, Reason::BadJson);
    let wide: String = (0..2_049).map(|i| format!("\"k{i}\":1,")).collect();
    let reject = refused(&format!("{{{wide}\"i\":\"p\"}}"));
    assert_eq!((reject.reason, reject.detail.as_str()), (Reason::TooLarge, "more than 2048 members in the event"));
}

#[test]
fn a_bad_mapping_shows_all_its_faults_at_once() {
    let error = Decoder::mapped(
        Settings::new([0; 16]),
        &mapping(json!({
            "kind": "predicton",
            "latencyms": "$.a",
            "id": "constant",
            "model": "$..m",
            "version": {"path": "$.v", "unit": "s", "defualt": 1},
            "latency_ms": {"path": "$.l", "unit": "hours"},
            "error": {"kind": "$.e"},
            "score": null,
            "label": ["$.a"],
            "status": {"const": "ok", "map": {}},
            "cost_usd": {"map": []},
            "attempt": {"path": "$.a", "required": "yes"},
        })),
    )
    .err()
    .expect("faults");
    let keys: Vec<&str> = error.0.iter().map(|fault| fault.key.as_str()).collect();
    let expected = [
        "attempt.required",
        "cost_usd",
        "cost_usd.map",
        "error.kind",
        "id",
        "label",
        "latency_ms.unit",
        "latencyms",
        "model",
        "score",
        "status",
        "version.defualt",
        "version.unit",
        "kind",
    ];
    let mut sorted = (keys.clone(), expected.to_vec());
    sorted.0.sort_unstable();
    sorted.1.sort_unstable();
    assert_eq!(sorted.0, sorted.1, "{error}");
    let text = error.to_string();
    for words in [
        "did you mean \"prediction\"",
        "did you mean \"latency_ms\"",
        "did you mean \"default\"",
        "known: ns, us, ms, s, min",
        "must come from the event",
    ] {
        assert!(text.contains(words), "{words} not in\n{text}");
    }
    assert!(Decoder::mapped(Settings::new([0; 16]), &Mapping::default()).is_err());
    let error = Decoder::mapped(Settings::new([0; 16]), &mapping(json!({"kind": "prediction"}))).err().expect("needs more");
    assert_eq!(error.0.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(), ["id", "model"]);
}

#[test]
fn a_mapped_and_a_canonical_event_give_the_same_observation() {
    let identity: BTreeMap<String, Value> = member::Member::NAMES.iter().map(|name| ((*name).to_owned(), json!(format!("$.{name}")))).collect();
    let (plain, renamed) = (canonical(), Decoder::mapped(Settings::new([7; 16]), &Mapping(identity)).unwrap());
    let mut compared = 0;
    let rows = malformed();
    let payloads = rows.iter().map(malformed::Row::payload).chain(valid().into_iter().map(|text| text.as_bytes().to_vec()));
    for payload in payloads {
        match (plain.decode(&payload, RECORD, None), renamed.decode(&payload, RECORD, None)) {
            (Ok(a), Ok(mut b)) => {
                // Entries are judged when they are met, members when they are asked for: the order of two sorts of faults may differ.
                let mut a = a;
                a.faults.sort_by(|x, y| x.field.cmp(&y.field));
                b.faults.sort_by(|x, y| x.field.cmp(&y.field));
                assert_eq!(a, b, "{}", String::from_utf8_lossy(&payload[..payload.len().min(200)]));
                compared += 1;
            }
            (Err(a), Err(b)) => {
                // Of members that stand twice a mapping takes the first.
                assert!(a.reason == b.reason || a.detail.contains("duplicate member"), "{a}\n{b}");
            }
            (Err(a), Ok(_)) => assert!(a.detail.contains("duplicate member"), "{a}"),
            // A mapping reads every member, because it may point at any.
            (Ok(_), Err(b)) if b.detail.contains("surrogate") => {}
            (Ok(_), Err(b)) => panic!("{b} for {}", String::from_utf8_lossy(&payload[..payload.len().min(200)])),
        }
    }
    assert!(compared > 80, "{compared}");
}
