//! Counts with exposure: traffic, complaints.

use serde::{Deserialize, Serialize};

use super::{Band, Sees, nats};
use crate::verdict::{Call, Reading, Release, State};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountsSettings {
    /// Relative change that is forgiven.
    pub tolerance: f64,
    /// Absolute change that is forgiven, per unit of exposure.
    pub at_least: f64,
    /// Falls too, not rises only.
    pub both: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CountsBank {
    settings: CountsSettings,
}

impl CountsBank {
    pub fn new(settings: CountsSettings) -> CountsBank {
        CountsBank { settings }
    }

    pub fn judge(&mut self, count: f64, exposure: f64, at_ms: i64, pane_ms: i64, injection: f64) -> Reading {
        let _ = (count, exposure, at_ms, pane_ms);
        let (log_evidence, threshold) = nats(0.0, injection);
        Reading { state: self.state(), log_evidence, threshold, call: Call::Quiet }
    }

    pub fn learn_only(&mut self, count: f64, exposure: f64, at_ms: i64, pane_ms: i64) {
        self.judge(count, exposure, at_ms, pane_ms, 0.0);
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

    pub fn succeed(&self, _weight_max: f64) -> CountsBank {
        CountsBank::new(self.settings)
    }

    pub fn reset(&mut self) {
        *self = CountsBank::new(self.settings);
    }
}
