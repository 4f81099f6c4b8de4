//! Equal to the references: every answer in `reference/golden.json` is given again by our own tests, statistics and p-values to 1e-9
//! and alarms at the same index. The file is written by `reference/compare.py` and names the versions of the libraries.

use bellwether_detectors::population::{self, Sample};
use bellwether_detectors::stream::{self, Detector, Signal};
use serde_json::Value;

const TOLERANCE: f64 = 1e-9;

/// The generator of `compare.py`.
struct Lcg(u64);

impl Lcg {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn bell(&mut self) -> f64 {
        (0..12).fold(0.0, |sum, _| sum + self.unit()) - 6.0
    }
}

fn number(v: &Value, key: &str) -> f64 {
    v[key].as_f64().unwrap_or_else(|| panic!("{key} in {v}"))
}

fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v[key].as_array().unwrap_or_else(|| panic!("{key} in {v}"))
}

fn knobs(answer: &Value) -> Vec<(&str, f64)> {
    answer["knobs"].as_object().expect("knobs").iter().map(|(k, v)| (k.as_str(), v.as_f64().expect("a number"))).collect()
}

fn stream_of(spec: &Value) -> Vec<f64> {
    let mut g = Lcg(number(spec, "seed") as u64);
    let mut out = Vec::new();
    for part in list(spec, "parts") {
        let at = |i: usize| part[i].as_f64().expect("a number");
        for _ in 0..at(0) as usize {
            out.push(if spec["kind"] == "bits" { f64::from(u8::from(g.unit() < at(1))) } else { at(1) + at(2) * g.bell() });
        }
    }
    out
}

/// Numbers from a recipe, or class counts as they stand.
enum Made {
    Values(Vec<f64>),
    Counts(Vec<u64>),
}

impl Made {
    fn of(spec: &Value) -> Made {
        if let Some(counts) = spec.as_array() {
            return Made::Counts(counts.iter().map(|c| c.as_u64().expect("a count")).collect());
        }
        let mut g = Lcg(number(spec, "seed") as u64);
        let (mean, deviation, digits) = (number(spec, "mean"), number(spec, "deviation"), number(spec, "digits"));
        let scale = 10f64.powf(digits);
        let values = (0..number(spec, "n") as usize).map(|_| {
            let v = mean + deviation * g.bell();
            if digits < 0.0 { v } else { (v * scale + 0.5).floor() / scale }
        });
        Made::Values(values.collect())
    }

    fn sample(&self) -> Sample<'_> {
        match self {
            Made::Values(v) => Sample::Values(v),
            Made::Counts(c) => Sample::Counts(c),
        }
    }
}

fn golden() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/reference/golden.json");
    serde_json::from_str(&std::fs::read_to_string(path).expect("the golden file")).expect("JSON")
}

#[test]
fn populations_are_compared_as_the_references_compare_them() {
    let golden = golden();
    let mut wrong = Vec::new();
    for answer in list(&golden, "population") {
        let test = population::build(answer["test"].as_str().expect("a name"), &knobs(answer)).expect("built");
        let (reference, current) = (Made::of(&answer["reference"]), Made::of(&answer["current"]));
        let ours = test.compare(reference.sample(), current.sample()).expect("comparable");
        let near = |ours: f64, theirs: &Value| theirs.as_f64().is_none_or(|t| (ours - t).abs() <= TOLERANCE);
        if !near(ours.statistic, &answer["statistic"]) || !near(ours.p_value.unwrap_or(f64::NAN), &answer["p_value"]) {
            wrong.push(format!("{answer}\n    ours {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// What the reference's private state says, from ours: only the score of the verdict, or ADWIN's mean.
fn score(test: &Detector, verdict: stream::Verdict) -> f64 {
    if let Detector::Adwin(adwin) = test { adwin.window().1 } else { verdict.score }
}

#[test]
fn streams_alarm_where_the_references_alarm() {
    let golden = golden();
    let mut wrong = Vec::new();
    for answer in list(&golden, "streams").iter().filter(|a| a["runs"].is_null()) {
        let mut test = stream::build(answer["test"].as_str().expect("a name"), &knobs(answer)).expect("built");
        let (mut drifts, mut warnings, mut scores) = (Vec::new(), 0u64, Vec::new());
        for (i, x) in stream_of(&answer["stream"]).into_iter().enumerate() {
            let verdict = test.update(x);
            if i % 97 == 96 {
                scores.push((i, score(&test, verdict)));
            }
            match verdict.signal {
                Signal::Drift => {
                    drifts.push(i as u64);
                    test.reset();
                }
                Signal::Warning => warnings += 1,
                Signal::Quiet => {}
            }
        }
        let theirs: Vec<u64> = list(answer, "drifts").iter().map(|d| d.as_u64().expect("an index")).collect();
        let off = list(answer, "scores").iter().zip(&scores).find(|(theirs, ours)| {
            assert_eq!(theirs[0].as_u64(), Some(ours.0 as u64));
            (theirs[1].as_f64().expect("a score") - ours.1).abs() > TOLERANCE
        });
        if drifts != theirs || answer["warnings"].as_u64().is_some_and(|w| w != warnings) || off.is_some() {
            let name = format!("{} {} {} {}", answer["library"], answer["test"], answer["knobs"], answer["stream"]);
            let theirs_warned = &answer["warnings"];
            wrong.push(format!("{name}\n    theirs {theirs:?} {theirs_warned}\n    ours {drifts:?} {warnings}\n    score {off:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn run_lengths_are_those_of_the_reference() {
    let golden = golden();
    let mut compared = 0;
    for answer in list(&golden, "streams").iter().filter(|a| !a["runs"].is_null()) {
        let mut test = stream::build(answer["test"].as_str().expect("a name"), &knobs(answer)).expect("built");
        let mut theirs = list(answer, "runs").iter().peekable();
        for (i, x) in stream_of(&answer["stream"]).into_iter().enumerate() {
            test.update(x);
            let Some(row) = theirs.next_if(|row| row[0].as_u64() == Some(i as u64)) else { continue };
            let Detector::Bocpd(bocpd) = &test else { panic!("a run-length test") };
            let best = bocpd.weights().fold((0, 0.0), |best, w| if w.1 > best.1 { w } else { best });
            assert_eq!(Some(best.0), row[1].as_u64(), "value {i}");
            assert!((best.1 - row[2].as_f64().expect("a weight")).abs() < TOLERANCE, "value {i}: {best:?} {row}");
            compared += 1;
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn every_library_is_there_with_its_version() {
    let golden = golden();
    for library in ["scipy", "river", "evidently", "nannyml", "frouros"] {
        assert!(golden["libraries"][library].is_string(), "{library}");
        let answers = list(&golden, "population").iter().chain(list(&golden, "streams"));
        assert!(answers.filter(|a| a["library"] == library).count() > 10, "{library}");
    }
}

#[test]
fn a_test_that_was_stored_and_read_back_goes_on_as_if_nothing_had_happened() {
    let mut g = Lcg(3);
    let xs: Vec<f64> = (0..900).map(|i| f64::from(u8::from(g.unit() < if i < 600 { 0.1 } else { 0.6 }))).collect();
    for kind in stream::ALL {
        let mut test = stream::build(kind.name, &[]).expect("built");
        for x in &xs[..450] {
            test.update(*x);
        }
        let stored = postcard::to_stdvec(&test).expect("stored");
        let mut back: Detector = postcard::from_bytes(&stored).expect("read back");
        assert_eq!(back, test, "{}", kind.name);
        assert!(xs[450..].iter().all(|x| back.update(*x) == test.update(*x)), "{}", kind.name);
    }
}
