//! Rules: what needs no statistics, because one event or a handful says it all.
//!
//! A planted string or a secret in an output, a harm that a person confirmed, a model of which nearly everything fails. A rule
//! waits for nobody, and it is over when enough clean predictions have come: three thousand without one say with 95 % confidence
//! that fewer than one in a thousand is still bad (the rule of three).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::domain::incident::Exemplar;
use crate::domain::series::StableHash;
use crate::domain::{GroupKey, SeriesId, SeriesKey, Signal, Time};
use crate::pane::{Fact, FactKind, Leaf, LeafCell, slot};

/// Clean predictions after which a rule's finding is over, and the least time.
const CLEAN_PREDICTIONS: u64 = 3_000;
const CLEAN_MS: i64 = 120_000;
/// Total failure: at least so many events over two panes, this share of them failed, and less than this in usual times.
const TOTAL_EVENTS: f64 = 20.0;
const TOTAL_FAILED: f64 = 0.9;
const USUAL_FAILED_MAX: f64 = 0.5;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Rules {
    out: Vec<Out>,
    /// Failed and all of the last two panes, and of usual times, by model and in the order of models.
    totals: Vec<Totals>,
}

/// A rule that has fired and is not over.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Out {
    series: SeriesKey,
    since: Time,
    clean: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Totals {
    group: GroupKey,
    recent: VecDeque<(f64, f64)>,
    usual: (f64, f64),
}

/// A rule says that something has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleFired {
    pub series: SeriesKey,
    pub at: Time,
    pub why: String,
    /// What the rule saw.
    pub of: FiredBy,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FiredBy {
    /// One prediction.
    Prediction(Exemplar),
    /// The share of failed predictions before and now.
    Failures { before: f64, after: f64 },
    /// Nothing that has an example.
    Other,
}

// === impl Rules ===

impl Rules {
    /// One closed pane. Returns what fired and what is over.
    pub fn pane(&mut self, start: Time, pane_ms: i64, cells: &mut [LeafCell], facts: &[Fact]) -> (Vec<RuleFired>, Vec<(SeriesId, String)>) {
        let now = start.plus_ms(pane_ms);
        let mut fired = Vec::new();
        for fact in facts {
            let Some((rule, why, prediction)) = words(fact) else { continue };
            let environment = fact.environment.as_deref().unwrap_or(crate::domain::series::UNKNOWN);
            let group = GroupKey::roll_up(environment, fact.model.as_deref().unwrap_or(""));
            let series = SeriesKey { group, signal: Signal::Rule(rule.to_owned()) };
            self.fire(RuleFired { series, at: fact.time, why, of: FiredBy::Prediction(prediction) }, now, &mut fired);
        }
        self.total_failure(now, cells, &mut fired);
        let over = self.clean(now, cells);
        (fired, over)
    }

    fn fire(&mut self, rule: RuleFired, now: Time, fired: &mut Vec<RuleFired>) {
        if let Some(out) = self.out.iter_mut().find(|o| o.series == rule.series) {
            out.clean = 0;
            out.since = now;
            return;
        }
        self.out.push(Out { series: rule.series.clone(), since: now, clean: 0 });
        fired.push(rule);
    }

    fn total_failure(&mut self, now: Time, cells: &mut [LeafCell], fired: &mut Vec<RuleFired>) {
        let (mut at, mut next) = (0, 0);
        while at < cells.len() {
            // Cells stand in the order of leaves, so those of a model stand together.
            let first = cells[at].leaf.clone();
            let (mut failed, mut all) = (0.0, 0.0);
            while let Some(LeafCell { cell, .. }) =
                cells.get_mut(at).filter(|c| c.leaf.model == first.model && c.leaf.environment == first.environment)
            {
                for (code, n) in cell.entries().iter().filter(|c| c.0.slot() == slot::STATUS) {
                    all += if code.bin() == 3 { 0.0 } else { f64::from(n) };
                    failed += if matches!(code.bin(), 1 | 2 | 4) { f64::from(n) } else { 0.0 };
                }
                at += 1;
            }
            // Both are in the order of models, and most models are in every pane.
            let is_it = |t: &Totals| t.group.model == first.model && t.group.environment == first.environment;
            let known = match self.totals.get(next).filter(|t| is_it(t)) {
                Some(_) => next,
                None => {
                    let group = first.whole();
                    self.totals.binary_search_by(|t| t.group.cmp(&group)).unwrap_or_else(|at| {
                        self.totals.insert(at, Totals { group, recent: VecDeque::new(), usual: (0.0, 0.0) });
                        at
                    })
                }
            };
            next = known + 1;
            let totals = &mut self.totals[known];
            totals.recent.push_back((failed, all));
            if totals.recent.len() > 2 {
                let (f, a) = totals.recent.pop_front().unwrap_or_default();
                totals.usual.0 = totals.usual.0 * 0.999 + f;
                totals.usual.1 = totals.usual.1 * 0.999 + a;
            }
            let (f, a) = totals.recent.iter().fold((0.0, 0.0), |s, r| (s.0 + r.0, s.1 + r.1));
            let usual = totals.usual.0 / totals.usual.1.max(1.0);
            let both = totals.recent.len() == 2 && totals.recent.iter().all(|r| r.1 > 0.0 && r.0 >= TOTAL_FAILED * r.1);
            if both && a >= TOTAL_EVENTS && usual < USUAL_FAILED_MAX && totals.usual.1 >= TOTAL_EVENTS {
                let why = format!("total failure: {f:.0} of the last {a:.0} predictions failed");
                let series = SeriesKey { group: totals.group.clone(), signal: Signal::Rule("total_failure".to_owned()) };
                self.fire(RuleFired { series, at: now, why, of: FiredBy::Failures { before: usual, after: f / a } }, now, fired);
            }
        }
    }

    /// Counts clean predictions for what is out.
    fn clean(&mut self, now: Time, cells: &[LeafCell]) -> Vec<(SeriesId, String)> {
        let mut over = Vec::new();
        let totals = &self.totals;
        self.out.retain_mut(|out| {
            if out.since == now {
                return true;
            }
            let of_model = |leaf: &Leaf| leaf.model == out.series.group.model && leaf.environment == out.series.group.environment;
            let is_total = matches!(&out.series.signal, Signal::Rule(rule) if rule == "total_failure");
            if is_total {
                let recent = totals
                    .binary_search_by(|t| t.group.cmp(&out.series.group))
                    .ok()
                    .map(|at| totals[at].recent.iter().fold((0.0, 0.0), |s, r| (s.0 + r.0, s.1 + r.1)));
                let Some((failed, all)) = recent else { return true };
                if all >= TOTAL_EVENTS && failed < USUAL_FAILED_MAX * all {
                    over.push((out.series.id(), format!("{:.0} of the last {all:.0} predictions succeeded", all - failed)));
                    return false;
                }
                return true;
            }
            out.clean += cells.iter().filter(|c| of_model(&c.leaf)).map(|c| u64::from(c.cell.predictions)).sum::<u64>();
            if out.clean >= CLEAN_PREDICTIONS && now.since_ms(out.since) >= CLEAN_MS {
                over.push((out.series.id(), format!("{} clean predictions since", super::thousands(out.clean as f64))));
                return false;
            }
            true
        });
        over
    }

    /// A person closed the incident: the rule may fire again.
    pub fn release(&mut self, series: SeriesId) {
        self.out.retain(|o| o.series.id() != series);
    }
}

/// The rule behind a fact, what it says, and the prediction that it is about; `None` where a fact is no failure.
fn words(fact: &Fact) -> Option<(&'static str, String, Exemplar)> {
    let (rule, why, id, shown) = match &fact.kind {
        FactKind::Confirmed { flag, id } => {
            let rule = match flag.as_str() {
                "harmful" => "confirmed_harmful",
                "leak" => "confirmed_leak",
                "injection" => "confirmed_injection",
                _ => return None,
            };
            (rule, format!("{flag} output confirmed in prediction {id}"), id, ("confirmed", flag))
        }
        FactKind::Leak { rule, words, id } => {
            let name = if rule == "canary" { "canary" } else { "secret" };
            (name, format!("{words} in the output of prediction {id}"), id, ("found", words))
        }
        FactKind::Deployment { .. } | FactKind::Pipeline { .. } | FactKind::Heartbeat { .. } | FactKind::Report { .. } => return None,
    };
    let prediction = Exemplar {
        id: id.clone(),
        hash: StableHash::of(id.as_bytes()),
        time: fact.time,
        version: fact.version.clone().unwrap_or_default(),
        status: String::new(),
        facts: vec![(shown.0.to_owned(), shown.1.clone())],
    };
    Some((rule, why, prediction))
}
