//! Silence.

use serde::{Deserialize, Serialize};

use super::{Band, Sees, nats};
use crate::verdict::{Call, Reading, Release, State};

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapSettings {
    /// A silence of this length is an alarm, whatever was learned.
    pub explicit_ms: Option<i64>,
    pub armed_after_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapBank {
    settings: GapSettings,
}

impl GapBank {
    pub fn new(settings: GapSettings) -> GapBank {
        GapBank { settings }
    }

    pub fn judge(&mut self, arrivals_ms: &[i64], pane_start_ms: i64, pane_ms: i64, alive: bool, injection: f64) -> Reading {
        let _ = (arrivals_ms, pane_start_ms, pane_ms, alive);
        let (log_evidence, threshold) = nats(0.0, injection);
        Reading { state: self.state(), log_evidence, threshold, call: Call::Quiet }
    }

    pub fn learn_only(&mut self, arrivals_ms: &[i64], pane_start_ms: i64, pane_ms: i64, alive: bool) {
        self.judge(arrivals_ms, pane_start_ms, pane_ms, alive, 0.0);
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

    pub fn succeed(&self, _weight_max: f64) -> GapBank {
        GapBank::new(self.settings)
    }

    pub fn reset(&mut self) {
        *self = GapBank::new(self.settings);
    }

    /// The length of silence that is an alarm now.
    pub fn limit_ms(&self) -> Option<i64> {
        self.settings.explicit_ms
    }
}

impl Default for GapSettings {
    fn default() -> Self {
        GapSettings { explicit_ms: None, armed_after_ms: 3 * 86_400_000 }
    }
}
