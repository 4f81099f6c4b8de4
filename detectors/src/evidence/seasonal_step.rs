//! Sums per interval with seasons.

use serde::{Deserialize, Serialize};

use super::{Band, Sees, nats};
use crate::verdict::{Call, Reading, Release, State};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeasonalSettings {
    /// Relative change that is forgiven.
    pub tolerance: f64,
    pub interval_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeasonalStepBank {
    settings: SeasonalSettings,
}

impl SeasonalStepBank {
    pub fn new(settings: SeasonalSettings) -> SeasonalStepBank {
        SeasonalStepBank { settings }
    }

    pub fn judge(&mut self, value: f64, at_ms: i64, injection: f64) -> Reading {
        let _ = (value, at_ms);
        let (log_evidence, threshold) = nats(0.0, injection);
        Reading { state: self.state(), log_evidence, threshold, call: Call::Quiet }
    }

    pub fn learn_only(&mut self, value: f64, at_ms: i64) {
        self.judge(value, at_ms, 0.0);
    }

    pub fn release(&mut self, _how: Release) {}

    pub fn start_live(&mut self) {}

    pub fn state(&self) -> State {
        State::Warming
    }

    pub fn sees(&self, _injection: f64) -> Sees {
        Sees { armed: false, needs_events: 0.0 }
    }

    pub fn baseline(&self) -> Option<Band> {
        None
    }

    pub fn succeed(&self, _weight_max: f64) -> SeasonalStepBank {
        SeasonalStepBank::new(self.settings)
    }

    pub fn reset(&mut self) {
        *self = SeasonalStepBank::new(self.settings);
    }

    pub fn import(&mut self, at_ms: i64, value: f64) {
        self.judge(value, at_ms, 0.0);
    }
}

impl Default for SeasonalSettings {
    fn default() -> Self {
        SeasonalSettings { tolerance: 0.05, interval_ms: 600_000 }
    }
}
