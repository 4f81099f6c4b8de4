//! What can go wrong with a fleet, by name, and what a good watch would say of it.

use std::fmt;
use std::str::FromStr;

use super::plan::Kind;
use crate::domain::{Category, Severity, Signal};

/// A string that was planted where no answer may take it from; `canary_leak` lets one answer hold it.
pub const CANARY: &str = "BW-CANARY-7f3a91c4";

macro_rules! faults {
    ($($variant:ident = $name:literal, $about:literal;)+) => {
        /// One thing that goes wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault { $(#[doc = $about] $variant),+ }

        impl Fault {
            /// The eight of the demo first.
            pub const ALL: &'static [Fault] = &[$(Fault::$variant),+];
            pub const NAMES: &'static [&'static str] = &[$($name),+];

            pub fn name(self) -> &'static str {
                match self { $(Fault::$variant => $name),+ }
            }

            /// One sentence for people, without a full stop.
            pub fn about(self) -> &'static str {
                match self { $(Fault::$variant => $about),+ }
            }
        }
    };
}

faults! {
    ErrorSpike = "error_spike", "errors of one region rise from 1 % to 12 %";
    Timeouts = "timeouts", "a version deployed a minute earlier times out on 6 % of its requests instead of 0.1 %";
    LatencyTail = "latency_tail", "everything slower than the 90th percentile takes three times as long; the median stays";
    CostDrift = "cost_drift", "answers need 60 % more tokens";
    QualityDrop = "quality_drop", "the evaluator's score falls from 0.86 to 0.78";
    FeatureMissing = "feature_missing", "after a failed pipeline run a feature is missing in 40 % of the requests";
    Silence = "silence", "one model stops answering and nobody says so";
    HarmfulOutput = "harmful_output", "one answer is confirmed to be harmful";
    EmptyAnswers = "empty_answers", "12 % of the answers are empty, though nothing fails";
    UnseenValues = "unseen_values", "a quarter of the requests carry a value that a feature never had";
    Complaints = "complaints", "users complain about 1.5 % of the answers instead of 0.1 %";
    CanaryLeak = "canary_leak", "one answer holds a string that was planted as a canary";
    CostDouble = "cost_double", "the price per token doubles";
    TrafficDrop = "traffic_drop", "two thirds of the requests stay away";
    TrafficSpike = "traffic_spike", "three times as many requests come";
    PredictionShift = "prediction_shift", "scores move up by eight tenths of a standard deviation";
    InjectionWave = "injection_wave", "8 % of the requests look like prompt injection instead of 0.3 %";
    TotalFailure = "total_failure", "every request fails";
}

/// A name that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown fault {found:?} (known: {})", Fault::NAMES.join(", "))]
pub struct UnknownFault {
    pub found: String,
}

/// What a good watch says of a fault in [`super::Plan::demo`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub category: Category,
    /// From the worst to the mildest that is right.
    pub severity_worst: Severity,
    pub severity_mildest: Severity,
    pub model: &'static str,
    /// The only segment hit, as dimension and value.
    pub segment: Option<(&'static str, &'static str)>,
    /// Only the version deployed just before is hit.
    pub new_version_only: bool,
    /// A failed run of this data job came just before.
    pub pipeline: Option<&'static str>,
    /// Signals that may speak; the first one is the plainest. A `*` at the end stands for any name.
    pub signals: &'static [&'static str],
}

// === impl Fault ===

impl Fault {
    /// Those that the demo offers by key and button.
    pub const DEMO: &'static [Fault] = {
        use Fault::*;
        &[ErrorSpike, Timeouts, LatencyTail, CostDrift, QualityDrop, FeatureMissing, Silence, HarmfulOutput]
    };

    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Can a model of this kind have it?
    pub fn suits(self, kind: Kind) -> bool {
        use Fault::*;
        match self {
            ErrorSpike | Timeouts | LatencyTail | Silence | TrafficDrop | TrafficSpike | TotalFailure => true,
            FeatureMissing | UnseenValues => kind == Kind::Scorer,
            PredictionShift => kind != Kind::Assistant,
            CostDrift | QualityDrop | HarmfulOutput | EmptyAnswers | Complaints | CanaryLeak | CostDouble | InjectionWave => kind == Kind::Assistant,
        }
    }

    /// It is one event and not a state.
    pub fn is_once(self) -> bool {
        matches!(self, Fault::HarmfulOutput | Fault::CanaryLeak)
    }

    pub fn expected(self) -> Expected {
        use Category::*;
        let (harm, degraded, minor) = (Severity::HARM, Severity::DEGRADED, Severity::MINOR);
        let says = |category, severity_worst, severity_mildest, model, signals| Expected {
            category,
            severity_worst,
            severity_mildest,
            model,
            segment: None,
            new_version_only: false,
            pipeline: None,
            signals,
        };
        match self {
            Fault::ErrorSpike => Expected { segment: Some(("region", "eu")), ..says(ModelFailure, harm, degraded, "loan-scorer", &["error_rate"]) },
            Fault::Timeouts => Expected { new_version_only: true, ..says(ModelFailure, harm, degraded, "ranker", &["timeout_rate"]) },
            Fault::LatencyTail => says(ModelFailure, degraded, minor, "assistant", &["latency"]),
            Fault::CostDrift => says(CostAnomaly, degraded, minor, "assistant", &["tokens_out", "cost"]),
            Fault::QualityDrop => says(QualityDegradation, degraded, minor, "assistant", &["quality:faithfulness"]),
            Fault::FeatureMissing => Expected {
                pipeline: Some("loan-features"),
                ..says(QualityDegradation, degraded, minor, "loan-scorer", &["missing:income", "feature:income"])
            },
            Fault::Silence => says(ModelFailure, harm, degraded, "ranker", &["silence", "traffic"]),
            Fault::HarmfulOutput => says(HarmfulOutput, harm, harm, "assistant", &["rule:*", "flag:harmful"]),
            Fault::EmptyAnswers => says(ModelFailure, harm, degraded, "assistant", &["empty_rate"]),
            Fault::UnseenValues => says(QualityDegradation, degraded, minor, "loan-scorer", &["unseen:employment", "feature:employment"]),
            Fault::Complaints => says(QualityDegradation, degraded, minor, "assistant", &["complaint_rate"]),
            Fault::CanaryLeak => says(DataBreach, harm, harm, "assistant", &["rule:*", "flag:leak"]),
            Fault::CostDouble => says(CostAnomaly, degraded, minor, "assistant", &["cost"]),
            Fault::TrafficDrop => says(ModelFailure, degraded, minor, "loan-scorer", &["traffic", "silence"]),
            Fault::TrafficSpike => says(ModelFailure, degraded, minor, "ranker", &["traffic"]),
            Fault::PredictionShift => says(QualityDegradation, degraded, minor, "loan-scorer", &["prediction", "label:*"]),
            Fault::InjectionWave => says(DataBreach, harm, degraded, "assistant", &["flag:injection"]),
            Fault::TotalFailure => says(ModelFailure, harm, degraded, "ranker", &["error_rate", "rule:*"]),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        Fault::ALL.iter().copied().find(|fault| fault.name() == text).ok_or_else(|| UnknownFault { found: text.to_owned() })
    }
}

// === impl Expected ===

impl Expected {
    /// May this signal speak while the fault is on?
    pub fn may_speak(&self, signal: &Signal) -> bool {
        let said = signal.to_string();
        self.signals.iter().any(|known| match known.strip_suffix('*') {
            Some(family) => said.starts_with(family),
            None => said == *known,
        })
    }

    /// Is this severity within the range?
    pub fn is_right(&self, severity: Severity) -> bool {
        (self.severity_worst..=self.severity_mildest).contains(&severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_name_and_expects_known_signals() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(*fault));
            assert!(!fault.about().ends_with('.'));
            let expected = fault.expected();
            assert!(expected.is_right(expected.severity_worst) && expected.is_right(expected.severity_mildest));
            for signal in expected.signals {
                let signal: Signal = signal.parse().expect("a signal");
                assert!(expected.may_speak(&signal));
            }
        }
        let refused = "eror_spike".parse::<Fault>().unwrap_err().to_string();
        assert!(refused.starts_with("unknown fault \"eror_spike\" (known: error_spike, timeouts"), "{refused}");
        assert!(Fault::ALL.starts_with(Fault::DEMO));
    }
}
