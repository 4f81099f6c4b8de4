//! What the judge says of one series at one pane close, once it is worth saying.

use serde::{Deserialize, Serialize};

use super::series::SeriesKey;
use super::time::Time;
use super::words::{Category, Decision, Severity};

/// Size of an effect in the signal's own unit, with the interval in which it lies with 95 % confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub before: f64,
    pub after: f64,
    pub low: f64,
    pub high: f64,
}

/// When the change began: the best guess, and an interval of 90 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onset {
    pub at: Time,
    pub from: Time,
    pub to: Time,
}

impl Onset {
    pub fn sharp(at: Time) -> Onset {
        Onset { at, from: at, to: at }
    }
}

/// Unit in which a change is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    Ratio,
    Milliseconds,
    Seconds,
    Tokens,
    Currency,
    PerSecond,
    Score,
    Count,
    /// How far something lies away, in standard deviations of one event; usual is 0.
    Deviations,
}

impl Unit {
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Ratio => "ratio",
            Unit::Milliseconds => "milliseconds",
            Unit::Seconds => "seconds",
            Unit::Tokens => "tokens",
            Unit::Currency => "currency",
            Unit::PerSecond => "per_second",
            Unit::Score => "score",
            Unit::Count => "count",
            Unit::Deviations => "deviations",
        }
    }

    /// A value for people: `3.1 %`, `840 ms`, `2.1 s`.
    pub fn words(self, value: f64) -> String {
        match self {
            Unit::Ratio => format!("{} %", short(value * 100.0)),
            Unit::Milliseconds if value.abs() >= 1_000.0 => format!("{} s", short(value / 1_000.0)),
            Unit::Milliseconds => format!("{} ms", short(value)),
            Unit::Seconds => format!("{} s", short(value)),
            Unit::Tokens => format!("{} tokens", short(value)),
            Unit::Currency => short(value),
            Unit::PerSecond => format!("{}/s", short(value)),
            Unit::Score | Unit::Count => short(value),
            Unit::Deviations => format!("{} standard deviations", short(value)),
        }
    }
}

impl Unit {
    /// What changed and how: `error rate 0.4 % → 3.1 %`, `embedding text moved by 0.62 standard deviations`.
    pub fn change(self, what: &str, change: &Change) -> String {
        match self {
            Unit::Deviations => format!("{what} moved by {}", self.words(change.after - change.before)),
            _ => format!("{what} {} → {}", self.words(change.before), self.words(change.after)),
        }
    }
}

/// Two or three significant digits, without a tail of zeros.
fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value:.0}");
    }
    let digits_before = value.abs().log10().floor() as i32 + 1;
    let decimals = (if value.abs() >= 10.0 { 3 } else { 2 } - digits_before).clamp(0, 8) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A reading that crossed its threshold, with the reason it was raised or held; or a rule that fired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    pub series: SeriesKey,
    /// End of the pane that decided.
    pub time: Time,
    pub onset: Onset,
    /// `rate`, `bins`, `classes`, `counts`, `seasonal_step`, `gap`, `rule`.
    pub detector: String,
    pub decision: Decision,
    pub reason: String,
    pub change: Option<Change>,
    pub unit: Unit,
    /// Nats of evidence, and how many the budget asks for. A rule has none.
    pub log_evidence: Option<f64>,
    pub threshold: Option<f64>,
    pub category: Category,
    /// Severity that the signal alone asks for; triage decides.
    pub severity: Severity,
    /// Rules need no statistics and wait for nobody.
    pub by_rule: bool,
    /// Which of many the change is of (a pair of features, two groups), where the series watches many.
    #[serde(default)]
    pub named: Option<String>,
}

impl Alarm {
    /// `error rate 0.4 % → 3.1 %`.
    pub fn headline(&self) -> String {
        match &self.change {
            Some(c) => self.unit.change(&self.named.clone().unwrap_or_else(|| self.series.signal.words()), c),
            None => self.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_aloud_well() {
        assert_eq!(Unit::Ratio.words(0.004), "0.4 %");
        assert_eq!(Unit::Ratio.words(0.0312), "3.1 %");
        assert_eq!(Unit::Ratio.words(0.12), "12 %");
        assert_eq!(Unit::Milliseconds.words(840.2), "840 ms");
        assert_eq!(Unit::Milliseconds.words(2_100.0), "2.1 s");
        assert_eq!(Unit::Score.words(0.0), "0");
        assert_eq!(Unit::Score.words(0.86), "0.86");
        assert_eq!(Unit::Tokens.words(1234.0), "1234 tokens");
    }
}
