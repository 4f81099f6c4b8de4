//! Every named test has its page in the manual, with its knobs, and the numbers worked there come out of the code.
//!
//! A page works an example in a block that this test reads: `test NAME KNOB=VALUE ...`, then `stream bits seed=S N@RATE ...` or
//! `stream values seed=S N@MEAN,DEVIATION ...` (or `reference` and `current`, as `counts A B ...` or `values ...`), then `answer ...`.
//! `RENEW_PAGES=1 cargo test -p bellwether-detectors --test pages` writes the answers anew.

use std::fmt::Write as _;
use std::path::PathBuf;

use bellwether_detectors::population::{self, Sample};
use bellwether_detectors::stream::{self, Signal, knob::Knob};

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

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/tests"))
}

/// `bits seed=7 100@0.1 100@0.5` or `values seed=7 100@0,1`.
fn numbers(recipe: &str) -> Vec<f64> {
    let mut words = recipe.split_whitespace();
    let bits = words.next().expect("bits or values") == "bits";
    let mut g = Lcg(words.next().and_then(|w| w.strip_prefix("seed=")).expect("seed=S").parse().expect("a seed"));
    let mut out = Vec::new();
    for part in words {
        let (n, law) = part.split_once('@').expect("N@LAW");
        let law: Vec<f64> = law.split(',').map(|v| v.parse().expect("a number")).collect();
        for _ in 0..n.parse().expect("a count") {
            out.push(if bits { f64::from(u8::from(g.unit() < law[0])) } else { law[0] + law[1] * g.bell() });
        }
    }
    out
}

/// What the code answers to the lines of a block.
fn answer(lines: &[&str]) -> String {
    let of = |key: &str| lines.iter().find_map(|l| l.strip_prefix(key)).map(str::trim);
    let mut words = of("test ").expect("a test").split_whitespace();
    let name = words.next().expect("a name");
    let settings: Vec<(&str, f64)> = words.map(|w| w.split_once('=').expect("KNOB=VALUE")).map(|(k, v)| (k, v.parse().expect("a number"))).collect();
    if let Some(recipe) = of("stream ") {
        let mut test = stream::build(name, &settings).expect("built");
        let (mut at, mut first) = (Vec::new(), None);
        for (i, x) in numbers(recipe).into_iter().enumerate() {
            let verdict = test.update(x);
            if verdict.signal == Signal::Drift {
                first = first.or(Some(verdict));
                at.push(i);
                test.reset();
            }
        }
        return match first {
            None => "no alarm".to_owned(),
            Some(v) => {
                let shown: Vec<String> = at.iter().take(4).map(usize::to_string).collect();
                let more = if at.len() > 4 { ", ..." } else { "" };
                format!(
                    "{} alarm{}, at {}{more}; the first with score {:.4}, limit {:.4}",
                    at.len(),
                    if at.len() == 1 { "" } else { "s" },
                    shown.join(", "),
                    v.score,
                    v.limit
                )
            }
        };
    }
    let made = |key: &str| -> (Vec<f64>, Vec<u64>) {
        let recipe = of(key).expect("a sample");
        match recipe.strip_prefix("counts") {
            Some(counts) => (Vec::new(), counts.split_whitespace().map(|c| c.parse().expect("a count")).collect()),
            None => (numbers(recipe), Vec::new()),
        }
    };
    let (reference, current) = (made("reference "), made("current "));
    let sample = |s: &'_ (Vec<f64>, Vec<u64>)| if s.0.is_empty() { None } else { Some(s.0.clone()) };
    let test = population::build(name, &settings).expect("built");
    let outcome = match (sample(&reference), sample(&current)) {
        (Some(a), Some(b)) => test.compare(Sample::Values(&a), Sample::Values(&b)),
        _ => test.compare(Sample::Counts(&reference.1), Sample::Counts(&current.1)),
    }
    .expect("comparable");
    let mut text = format!("statistic {:.4}", outcome.statistic);
    if let Some(p) = outcome.p_value {
        write!(text, ", p-value {p:.4}").expect("text");
    }
    write!(text, ", threshold {}, {}", outcome.threshold, if outcome.drifted { "drifted" } else { "not drifted" }).expect("text");
    text
}

/// Checks the blocks of a page, or writes their answers anew; how many there were.
fn worked(page: &PathBuf) -> usize {
    let text = std::fs::read_to_string(page).expect("a page");
    let renew = std::env::var_os("RENEW_PAGES").is_some();
    let (mut out, mut block, mut blocks): (String, Option<Vec<&str>>, usize) = (String::new(), None, 0);
    for line in text.lines() {
        let mut line_out = line.to_owned();
        if line == "```worked" {
            block = Some(Vec::new());
        } else if line == "```" {
            block = None;
        } else if let Some(lines) = &mut block {
            if let Some(told) = line.strip_prefix("answer ") {
                let ours = answer(lines);
                assert!(renew || told == ours, "{}: the page says {told:?}, the code {ours:?}", page.display());
                line_out = format!("answer {ours}");
                blocks += 1;
            }
            lines.push(line);
        }
        out.push_str(&line_out);
        out.push('\n');
    }
    if renew {
        std::fs::write(page, out).expect("a page that can be written");
    }
    blocks
}

#[test]
fn every_test_has_its_page_and_the_numbers_on_it_come_out_of_the_code() {
    let streams = stream::ALL.iter().map(|k| (k.name, k.knobs));
    let all: Vec<(&str, &[Knob])> = streams.chain(population::ALL.iter().map(|k| (k.name, k.knobs))).collect();
    let index = std::fs::read_to_string(folder().join("README.md")).expect("the index");
    for (name, knobs) in &all {
        let page = folder().join(format!("{name}.md"));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        for heading in ["## Idea", "## Formula", "## Sees, and does not", "## Knobs", "## False alarms", "## Worked", "## Source"] {
            assert!(text.contains(heading), "{name}: {heading}");
        }
        for knob in *knobs {
            let row = format!("| `{}` | {} |", knob.name, knob.default);
            assert!(text.contains(&row), "{name}: {row}");
        }
        assert!(worked(&page) > 0, "{name}: nothing is worked");
        assert!(index.contains(&format!("({name}.md)")), "{name} is not in the index");
    }
    let pages = std::fs::read_dir(folder()).expect("docs/tests").count();
    assert_eq!(pages, all.len() + 1, "a page of a test that is not there");
}
