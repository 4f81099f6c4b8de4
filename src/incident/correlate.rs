//! One incident per cause: does what has just been found belong to an incident that is open already?
//!
//! The picture is the dispatcher of a fire brigade. Ten people ring about smoke in the same street within a minute; she sends one
//! engine, and writes every caller's name under the first call. She does not send one engine for two fires that only happen to
//! burn at the same time. So being simultaneous is never enough: two findings go together when they began together *and* share
//! something that can cause both. Each rule below names what that is, and the sentence it makes stands on the timeline, also
//! when the answer is no.
//!
//! What is about people (harm, leaks, use beyond what a model was made for) is never put under another incident: what has to be
//! done first is another thing. So where harm is found after a milder sign of the same cause it is the other way round: the harm
//! opens under its own key, by which routes, runbooks and duties know it, and what was open goes under it. That the first would
//! take on the category of what joins it was not taken: its key, its address at every receiver and the clock of a duty to report
//! would then speak of another thing than it does. A clustering by similarity was not taken: nobody could say at night why two
//! pages were one.

use crate::domain::incident::{Finding, Incident, IncidentKey, Roots};
use crate::domain::series::Segment;
use crate::domain::time::{HOUR_MS, MINUTE_MS, Time};
use crate::domain::{Category, Onset, Signal};

use super::Happening;

/// Intervals of onsets that lie within this of each other began together.
const TOGETHER_GAP_MS: i64 = 30_000;
/// However wide the intervals are, best guesses further apart than this did not begin together.
const TOGETHER_MS: i64 = 20 * MINUTE_MS;
/// People complain about a failure within this time.
const COMPLAINTS_FOLLOW_MS: i64 = 3 * HOUR_MS;
/// A pipeline's failure shows in different models at different times.
const ONE_RUN_MS: i64 = 12 * HOUR_MS;

/// What kind of trouble a signal tells of. Within a kind, one cause hits many models alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kin {
    /// Requests that are not answered.
    Failing,
    Slow,
    Traffic,
    Cost,
    /// What goes in.
    Inputs,
    /// What comes out, and how good it is.
    Answers,
    Complaints,
    /// Groups of people are treated differently.
    Bias,
    /// Harm, leaks, use out of scope: never put under another.
    People,
    /// Ourselves.
    Blind,
}

/// Pairs of kinds of one model of which the first commonly brings about the second, and why.
static BRINGS_ABOUT: &[(Kin, Kin, &str)] = &[
    (Kin::Failing, Kin::Complaints, "users complain about what fails"),
    (Kin::Slow, Kin::Complaints, "users complain about what is slow"),
    (Kin::Answers, Kin::Complaints, "users complain about worse answers"),
    (Kin::Inputs, Kin::Complaints, "users notice answers to broken inputs"),
    (Kin::Failing, Kin::Traffic, "callers try again when requests fail, or go away"),
    (Kin::Failing, Kin::Cost, "requests that fail are tried again and paid for again"),
    (Kin::Traffic, Kin::Cost, "more requests cost more"),
    (Kin::Traffic, Kin::Slow, "more requests wait longer"),
    (Kin::Traffic, Kin::Failing, "more requests than can be served"),
    (Kin::Inputs, Kin::Failing, "requests with broken inputs fail"),
    (Kin::Inputs, Kin::Bias, "inputs that broke for some groups"),
    (Kin::Answers, Kin::Bias, "answers that changed for some groups"),
    (Kin::Failing, Kin::Answers, "what fails is not answered well"),
];

/// What is compared of a finding and of an incident.
struct Sketch<'a> {
    key: &'a IncidentKey,
    kinds: Vec<Kin>,
    signals: Vec<&'a Signal>,
    /// Does the first finding tell of more or of less than usual?
    grows: Option<bool>,
    onset: Onset,
    versions: &'a [String],
    segments: &'a [Segment],
    roots: &'a Roots,
}

/// What came of looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes under the incident of this key, for this reason.
    Joins(IncidentKey, String),
    /// It harms people, and these do not: they have the same cause and go under it, strongest reason first.
    Leads(Vec<(IncidentKey, String)>),
    /// It stands for itself; if another began at the same time, why it has nothing to do with it.
    Alone(Option<String>),
}

/// Looks among the live incidents for the one to which a happening belongs: the oldest with the strongest reason.
pub fn correlate<'a>(happening: &Happening, live: impl Iterator<Item = &'a Incident>) -> Verdict {
    let new = Sketch::of_happening(happening);
    let mut best: Option<(u8, Time, &Incident, String)> = None;
    let mut led: Vec<(u8, Time, &Incident, String)> = Vec::new();
    let mut beside: Option<(i64, String)> = None;
    for incident in live.filter(|i| i.key != happening.key && i.state.is_live()) {
        let old = Sketch::of_incident(incident);
        match joins(&new, &old) {
            Ok((rank, reason)) if new.harms_beside(&old) => led.push((rank, incident.opened_at, incident, reason)),
            Ok((rank, reason)) => {
                if best.as_ref().is_none_or(|(r, opened, ..)| (rank, incident.opened_at) < (*r, *opened)) {
                    best = Some((rank, incident.opened_at, incident, reason));
                }
            }
            Err(Some(why)) => {
                let apart = distance(&new.onset, &old.onset);
                if beside.as_ref().is_none_or(|(d, _)| apart < *d) {
                    beside = Some((apart, format!("not joined with {}: {why}", incident.id)));
                }
            }
            Err(None) => {}
        }
    }
    match best {
        Some((_, _, incident, reason)) => Verdict::Joins(incident.key.clone(), reason),
        None if !led.is_empty() => {
            led.sort_by_key(|(rank, opened, ..)| (*rank, *opened));
            Verdict::Leads(led.into_iter().map(|(_, _, incident, reason)| (incident.key.clone(), reason)).collect())
        }
        None => Verdict::Alone(beside.map(|(_, why)| why)),
    }
}

/// The rules, strongest first. An error with words: they began together, and yet.
fn joins(new: &Sketch<'_>, old: &Sketch<'_>) -> Result<(u8, String), Option<String>> {
    if new.key.environment != old.key.environment || new.key.environment.is_empty() || new.key.model.is_empty() || old.key.model.is_empty() {
        return Err(None);
    }
    let same_model = new.key.model == old.key.model;
    let apart = || {
        let near = same_model && together(&new.onset, &old.onset);
        Err(near.then(|| "what concerns people is an incident of its own".to_owned()))
    };
    if new.is_about_people() && !new.harms_beside(old) {
        return apart();
    }
    if same_model
        && let [version] = new.versions
        && new.versions == old.versions
        && distance(&new.onset, &old.onset) <= HOUR_MS
    {
        return Ok((0, format!("both sit in version {version} and nowhere else")));
    }
    if let (Some(a), Some(b)) = (&new.roots.deployment, &old.roots.deployment)
        && a == b
        && new.fits_place_of(old)
        && distance(&new.onset, &old.onset) <= HOUR_MS
    {
        return Ok((1, format!("both began after {}, of {}", a.name, a.time.clock())));
    }
    if let (Some(a), Some(b)) = (&new.roots.failed_run, &old.roots.failed_run)
        && a.name == b.name
        && (a.time == b.time || new.key.model != old.key.model)
        && new.is_made_of_data()
        && old.is_made_of_data()
        && new.fits_place_of(old)
        && distance(&new.onset, &old.onset) <= ONE_RUN_MS
    {
        return Ok((2, format!("both began after the run of {} that failed", a.name)));
    }
    // Two things at one time are a reason for what concerns people no more than for it to go under another.
    if new.is_about_people() {
        return apart();
    }
    if same_model {
        let complaints = new.kinds == [Kin::Complaints];
        let follows = new.onset.at.since_ms(old.onset.at) >= -2 * MINUTE_MS && new.onset.at.since_ms(old.onset.at) <= COMPLAINTS_FOLLOW_MS;
        let together = together(&new.onset, &old.onset);
        if !(together || complaints && follows) {
            return Err(None);
        }
        if !complaints && !new.fits_place_of(old) {
            return Err(Some(format!("it sits in {}, the other in {}", new.place(), old.place())));
        }
        let brought = |a: &Sketch<'_>, b: &Sketch<'_>| {
            BRINGS_ABOUT.iter().find(|(cause, effect, _)| a.kinds.contains(cause) && b.kinds.contains(effect)).map(|(_, _, why)| *why)
        };
        return match brought(old, new).or_else(|| brought(new, old)) {
            Some(why) => Ok((3, format!("same model, same time: {why}"))),
            None => Err(Some("same model and time, but nothing that is known links the two".to_owned())),
        };
    }
    if !together(&new.onset, &old.onset) {
        return Err(None);
    }
    let alike = new.kinds.iter().any(|k| match k {
        Kin::Failing | Kin::Slow => old.kinds.iter().any(|o| matches!(o, Kin::Failing | Kin::Slow)),
        Kin::Traffic => old.kinds.contains(&Kin::Traffic),
        // A price, a feature, an evaluator that several models share.
        Kin::Cost | Kin::Inputs | Kin::Answers => new.signals.iter().any(|s| old.signals.contains(s)),
        Kin::Complaints | Kin::Bias | Kin::People | Kin::Blind => false,
    });
    if !alike {
        return Err(None);
    }
    if new.grows.is_some() && old.grows.is_some() && new.grows != old.grows && !new.kinds.contains(&Kin::Failing) {
        return Err(Some("one grew and the other shrank".to_owned()));
    }
    let own = |s: &Sketch<'_>| !s.versions.is_empty() || s.roots.deployment.is_some();
    if own(new) || own(old) {
        return Err(Some("a deployment of one model's own explains it".to_owned()));
    }
    if new.segments != old.segments {
        return Err(Some(format!("it sits in {}, the other in {}", new.place(), old.place())));
    }
    let place = if new.segments.is_empty() { String::new() } else { format!(" in {}", new.place()) };
    Ok((4, format!("{} and {} were hit alike at the same time{place}", old.key.model, new.key.model)))
}

// === impl Sketch ===

impl<'a> Sketch<'a> {
    fn of_happening(h: &'a Happening) -> Sketch<'a> {
        Sketch::of(&h.key, &h.findings, h.onset, &h.versions, &h.segments, &h.roots)
    }

    fn of_incident(i: &'a Incident) -> Sketch<'a> {
        Sketch::of(&i.key, &i.findings, i.onset, &i.versions, &i.segments, &i.roots)
    }

    fn of(
        key: &'a IncidentKey,
        findings: &'a [Finding],
        onset: Onset,
        versions: &'a [String],
        segments: &'a [Segment],
        roots: &'a Roots,
    ) -> Sketch<'a> {
        let mut kinds: Vec<Kin> = findings.iter().map(|f| kin(&f.series.signal, key.category)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut signals: Vec<&Signal> = findings.iter().map(|f| &f.series.signal).collect();
        signals.sort_unstable();
        signals.dedup();
        let grows = findings.first().and_then(|f| f.change).map(|c| c.after > c.before);
        Sketch { key, kinds, signals, grows, onset, versions, segments, roots }
    }

    /// It does harm to people, and the other does none that is known.
    fn harms_beside(&self, other: &Sketch<'_>) -> bool {
        self.key.category.is_harm() && !other.key.category.is_harm()
    }

    fn is_about_people(&self) -> bool {
        self.kinds.iter().any(|k| matches!(k, Kin::People | Kin::Blind))
    }

    /// A data job may have brought it about.
    fn is_made_of_data(&self) -> bool {
        self.kinds.iter().any(|k| matches!(k, Kin::Inputs | Kin::Answers | Kin::Bias | Kin::Complaints | Kin::Failing))
    }

    /// They sit in the same place. Everywhere and somewhere are different places.
    fn fits_place_of(&self, other: &Sketch<'_>) -> bool {
        let same_versions = self.versions == other.versions || self.versions.is_empty() || other.versions.is_empty();
        same_versions && self.segments == other.segments
    }

    fn place(&self) -> String {
        if self.segments.is_empty() {
            return "no segment in particular".to_owned();
        }
        self.segments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

fn kin(signal: &Signal, category: Category) -> Kin {
    match signal {
        Signal::ErrorRate | Signal::TimeoutRate | Signal::EmptyRate => Kin::Failing,
        Signal::Latency | Signal::FirstTokenLatency => Kin::Slow,
        Signal::Traffic | Signal::Silence => Kin::Traffic,
        Signal::Cost | Signal::TokensIn | Signal::TokensOut => Kin::Cost,
        Signal::Feature(_) | Signal::Missing(_) | Signal::Unseen(_) | Signal::Embedding(_) | Signal::Schema => Kin::Inputs,
        Signal::Quality(_) | Signal::Label(_) | Signal::Estimated(_) | Signal::Prediction => Kin::Answers,
        Signal::ComplaintRate => Kin::Complaints,
        Signal::Fairness(_) => Kin::Bias,
        Signal::OutOfScope => Kin::People,
        // The user's own flags tell of answers; ours of people.
        Signal::Flag(_) if category == Category::QualityDegradation => Kin::Answers,
        Signal::Flag(_) => Kin::People,
        Signal::Rule(_) => match category {
            Category::ModelFailure => Kin::Failing,
            Category::CostAnomaly => Kin::Cost,
            Category::QualityDegradation => Kin::Answers,
            Category::Bias => Kin::Bias,
            Category::HarmfulOutput | Category::DataBreach | Category::OutOfScopeUse => Kin::People,
            Category::MonitoringBlind => Kin::Blind,
        },
    }
}

fn distance(a: &Onset, b: &Onset) -> i64 {
    a.at.since_ms(b.at).abs()
}

fn together(a: &Onset, b: &Onset) -> bool {
    let gap = a.from.since_ms(b.to).max(b.from.since_ms(a.to));
    gap <= TOGETHER_GAP_MS && distance(a, b) <= TOGETHER_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alarm::Unit;
    use crate::domain::incident::Root;
    use crate::domain::{Change, GroupKey, SeriesKey, Severity};
    use crate::incident::{Command, decide, evolve};
    use crate::triage::category_of;

    /// `model signal minute [segment|version|deploy:name|run:name|down]...`
    fn happening(text: &str) -> Happening {
        let mut words = text.split_whitespace();
        let model = words.next().expect("a model");
        let signal: Signal = words.next().expect("a signal").parse().expect("known");
        let minute: i64 = words.next().expect("a minute").parse().expect("a number");
        let at = Time(minute * MINUTE_MS);
        let key = IncidentKey { environment: "prod".into(), model: model.into(), category: category_of(&signal) };
        let series = SeriesKey { group: GroupKey::roll_up("prod", model), signal };
        let mut h = Happening {
            key,
            severity: Severity::DEGRADED,
            severity_reasons: Default::default(),
            title: text.into(),
            onset: Onset { at, from: at.plus_ms(-20_000), to: at.plus_ms(20_000) },
            findings: vec![Finding {
                series_id: series.id(),
                series,
                detector: "rate".into(),
                reason: String::new(),
                headline: text.into(),
                change: Some(Change { before: 1.0, after: 2.0, low: 1.5, high: 2.5 }),
                unit: Unit::Ratio,
                onset: Onset::sharp(at),
                found_at: at,
                log_evidence: None,
                threshold: None,
                by_rule: false,
                recovered_at: None,
            }],
            versions: vec![],
            segments: vec![],
            users_affected: None,
            cause: None,
            action: String::new(),
            response: Default::default(),
            exemplars: Default::default(),
            pages: true,
            page_reason: String::new(),
            roots: Roots::default(),
            suppressed: None,
            beside: None,
            spread: None,
            everywhere: false,
            takes: vec![],
            takes_beyond: 0,
        };
        for word in words {
            match word.split_once([':', '=']) {
                Some(("deploy", name)) => h.roots.deployment = Some(Root { time: at, name: name.into() }),
                Some(("run", name)) => h.roots.failed_run = Some(Root { time: at, name: name.into() }),
                Some(("version", name)) => h.versions.push(name.into()),
                Some((dimension, value)) => h.segments.push(Segment { dimension: dimension.into(), value: value.into() }),
                None => h.findings[0].change = Some(Change { before: 2.0, after: 1.0, low: 0.5, high: 1.5 }),
            }
        }
        h
    }

    /// Old and new, and what the reason must hold; `-` for alone without a word, `- words` for alone and why, `< words` where the old
    /// goes under the new.
    static TABLE: &[(&str, &str, &str)] = &[
        ("a error_rate 0 version:7", "a quality:f 3 version:7", "both sit in version 7"),
        ("a error_rate 0 deploy:v7", "a cost 0 deploy:v7", "both began after v7"),
        ("a error_rate 0 deploy:v7 region=eu", "a quality:f 0 deploy:v7", "- it sits in no segment"),
        ("a missing:income 0 run:features", "b prediction 40 run:features", "run of features"),
        ("a missing:income 0 run:features", "a latency 0 run:features", "- same model and time, but nothing"),
        ("a error_rate 0", "a complaint_rate 60", "users complain"),
        ("a error_rate 0", "a complaint_rate 600", "-"),
        ("a traffic 0", "a cost 1", "more requests cost more"),
        ("a latency 0", "a quality:f 0", "- same model and time, but nothing that is known"),
        ("a latency 0", "a tokens_out 0", "- same model and time, but nothing that is known"),
        ("a error_rate 0 region=eu", "a missing:income 0", "- it sits in no segment in particular, the other in region=eu"),
        ("a error_rate 0", "b error_rate 1", "a and b were hit alike"),
        ("a error_rate 0", "b latency 1", "a and b were hit alike"),
        ("a error_rate 0 region=eu", "b error_rate 1 region=eu", "in region=eu"),
        ("a error_rate 0 region=eu", "b error_rate 1 region=us", "- it sits in region=us, the other in region=eu"),
        ("a error_rate 0 region=eu", "b timeout_rate 0 deploy:v2", "- a deployment of one model's own"),
        ("a error_rate 0", "b error_rate 90", "-"),
        ("a error_rate 0", "b tokens_out 0", "-"),
        ("a missing:income 0", "b missing:income 1", "hit alike"),
        ("a missing:income 0", "b missing:age 1", "-"),
        ("a traffic 0 down", "b traffic 0", "- one grew and the other shrank"),
        ("a error_rate 0 deploy:v7", "a flag:harmful 0 deploy:v7", "< both began after v7"),
        ("a error_rate 0 version:7", "a flag:leak 9 version:7", "< both sit in version 7"),
        ("a error_rate 0", "a flag:harmful 0", "- what concerns people"),
        ("a flag:leak 0 deploy:v7", "a flag:harmful 0 deploy:v7", "- what concerns people"),
        ("a feature:age 0", "a fairness:age_band 1", "< inputs that broke for some groups"),
        ("a feature:age 0", "a fairness:age_band 30", "-"),
        ("a missing:age 0 run:features", "b fairness:age_band 40 run:features", "< run of features"),
        ("a fairness:age_band 0", "a feature:age 1", "inputs that broke for some groups"),
        ("a flag:harmful 0 deploy:v7", "a fairness:age_band 0 deploy:v7", "both began after v7"),
        ("a out_of_scope 0 deploy:v7", "a fairness:age_band 0 deploy:v7", "< both began after v7"),
        ("a error_rate 0 deploy:v7", "a out_of_scope 0 deploy:v7", "- what concerns people"),
        ("a flag:leak 0 deploy:v7", "a error_rate 0 deploy:v7", "both began after v7"),
    ];

    #[test]
    fn what_has_one_cause_goes_together_and_the_reason_is_said() {
        for (old, new, expected) in TABLE {
            let (old, new) = (happening(old), happening(new));
            let events = decide(None, Command::Find(Box::new(old.clone())), Time(0)).expect("opens");
            let open = evolve(None, &events[0], Time(0)).expect("there");
            let said = correlate(&new, std::iter::once(&open));
            match (expected.strip_prefix('-'), &said) {
                (None, Verdict::Joins(key, reason)) if !expected.starts_with('<') => {
                    assert!(*key == old.key && reason.contains(expected), "{} / {}: {reason}", old.title, new.title)
                }
                (None, Verdict::Leads(under)) if expected.starts_with('<') => {
                    let [(key, reason)] = under.as_slice() else { panic!("{} / {}: {said:?}", old.title, new.title) };
                    assert!(*key == old.key && reason.contains(expected[1..].trim()), "{} / {}: {reason}", old.title, new.title);
                }
                (Some(""), Verdict::Alone(None)) => {}
                (Some(words), Verdict::Alone(Some(why))) if !words.is_empty() => {
                    assert!(why.contains(words.trim()), "{} / {}: {why}", old.title, new.title);
                }
                _ => panic!("{} / {}: {said:?}", old.title, new.title),
            }
        }
    }
}
