//! Groups of a protected attribute, by name, before the evidence that compares them by number.

use std::sync::Arc;

use bellwether_detectors::Reading;
use bellwether_detectors::evidence::rate::CountPane;
use bellwether_detectors::evidence::two_group::{Fairness, GROUPS_MAX, Outcome, STRATA_MAX, Stratum, TwoGroupBank, TwoGroupSettings};
use serde::{Deserialize, Serialize};

/// What became of a prediction, as its pane holds it; 0 is undecided.
pub const FAVOURABLE: usize = 1;
pub const UNFAVOURABLE: usize = 2;
pub const FAILED: usize = 3;

/// Predictions of one group in one stratum by what became of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    pub group: Arc<str>,
    /// Segments whose events are compared with each other only.
    pub stratum: u16,
    pub became: [u32; 4],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FairnessBank {
    /// Names of the groups by their numbers; the last stands for all that did not fit.
    names: Vec<Arc<str>>,
    outcome: Outcome,
    pub bank: TwoGroupBank,
    #[serde(skip)]
    pane: Vec<Stratum>,
}

/// What the groups that did not fit are called together.
const REST: &str = "other groups";

// === impl FairnessBank ===

impl FairnessBank {
    /// `edge`: the least ratio of rates that is tolerated. Models that name no outcome are compared on their failures.
    pub fn new(edge: f64, outcome: Outcome) -> FairnessBank {
        let settings = TwoGroupSettings { outcome, edge, ..TwoGroupSettings::default() };
        FairnessBank { names: Vec::new(), outcome, bank: TwoGroupBank::new(settings), pane: Vec::new() }
    }

    /// Judges one closed pane; groups that are new in it are numbered in the order of their names.
    pub fn judge(&mut self, tallies: &[Tally], at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let mut fresh: Vec<&Arc<str>> = tallies.iter().map(|t| &t.group).filter(|g| !self.names.contains(g)).collect();
        fresh.sort();
        fresh.dedup();
        for name in fresh {
            match self.names.len() {
                n if n < GROUPS_MAX - 1 => self.names.push(name.clone()),
                n if n == GROUPS_MAX - 1 => self.names.push(REST.into()),
                _ => {}
            }
        }
        let mut strata: Vec<u16> = tallies.iter().map(|t| t.stratum).collect();
        strata.sort_unstable();
        strata.dedup();
        self.pane.clear();
        self.pane.resize(strata.len().min(STRATA_MAX), Stratum::default());
        for t in tallies {
            let place = strata.partition_point(|s| *s < t.stratum).min(self.pane.len() - 1);
            let group = self.names.iter().position(|n| *n == t.group).unwrap_or(GROUPS_MAX - 1);
            let CountPane { hits, total } = self.counted(t);
            let at = &mut self.pane[place][group];
            (at.hits, at.total) = (at.hits + hits, at.total + total);
        }
        self.bank.judge(&self.pane, at_ms, pane_ms, injection)
    }

    fn counted(&self, t: &Tally) -> CountPane {
        let of = |kind: usize| f64::from(t.became[kind]);
        match self.outcome {
            Outcome::Favourable => CountPane { hits: of(FAVOURABLE), total: of(FAVOURABLE) + of(UNFAVOURABLE) },
            Outcome::Adverse => CountPane { hits: of(FAILED), total: t.became.iter().map(|n| f64::from(*n)).sum() },
        }
    }

    /// Events of a pane and the ratio of its lowest group rate to its highest, for the chart.
    pub fn seen(&self, tallies: &[Tally]) -> (f64, f64) {
        let mut groups: Vec<(&str, f64, f64)> = Vec::new();
        for t in tallies {
            let CountPane { hits, total } = self.counted(t);
            match groups.iter_mut().find(|g| g.0 == &*t.group) {
                Some(g) => (g.1, g.2) = (g.1 + hits, g.2 + total),
                None => groups.push((&t.group, hits, total)),
            }
        }
        let n = groups.iter().map(|g| g.2).sum();
        let rates = groups.iter().filter(|g| g.2 > 0.0).map(|g| g.1 / g.2);
        let (low, high) = rates.fold((f64::INFINITY, 0.0f64), |(low, high), r| (low.min(r), high.max(r)));
        (n, if high > 0.0 { low / high } else { 1.0 })
    }

    fn what(&self) -> &'static str {
        match self.outcome {
            Outcome::Favourable => "favourable outcomes",
            Outcome::Adverse => "failures",
        }
    }

    /// The group that an alarm names and the one that it is compared with.
    pub fn named(&self) -> Option<String> {
        let (group, reference) = self.bank.named()?;
        Some(format!("{} of {} against {}", self.what(), self.names.get(group)?, self.names.get(reference)?))
    }

    /// The verdict on every group, in words.
    pub fn words(&self) -> String {
        let told: Vec<String> = (self.names.iter().enumerate())
            .filter_map(|(g, name)| {
                Some(match self.bank.fairness(g)? {
                    Fairness::FairSoFar { ratio, low, high } => format!("{name}: fair so far, {ratio:.2} ({low:.2} to {high:.2})"),
                    Fairness::Violated { ratio, low, high } => format!("{name}: violated, {ratio:.2} ({low:.2} to {high:.2})"),
                    Fairness::NotEnoughEvidence { .. } => format!("{name}: not enough evidence"),
                })
            })
            .collect();
        let told = if told.is_empty() { "not enough evidence".to_owned() } else { told.join("; ") };
        format!("{} beside the best served group: {told}", self.what())
    }
}
