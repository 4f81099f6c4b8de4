//! What really happened in a fleet, for tests to hold against what was seen.

use super::fault::Fault;
use crate::domain::Time;
use crate::domain::observation::Body;

/// Events of one model that reached the topic, doubled ones counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelTruth {
    pub model: String,
    /// By [`Body::KINDS`].
    pub per_kind: [u64; Body::KINDS.len()],
    /// Copies beyond the first.
    pub copies: u64,
    /// Events that arrived more than a second after their time.
    pub late: u64,
}

/// When a fault was on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultTruth {
    pub fault: Fault,
    pub model: String,
    pub from: Time,
    /// `None` while it lasts.
    pub to: Option<Time>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// In the order of the plan.
    pub models: Vec<ModelTruth>,
    /// In the order in which they were switched on.
    pub faults: Vec<FaultTruth>,
}

// === impl ===

impl ModelTruth {
    pub fn events(&self) -> u64 {
        self.per_kind.iter().sum()
    }

    /// Events of a kind, by its name in [`Body::KINDS`].
    pub fn of(&self, kind: &str) -> u64 {
        Body::KINDS.iter().position(|k| *k == kind).map_or(0, |i| self.per_kind[i])
    }
}

impl Truth {
    pub fn model(&self, name: &str) -> Option<&ModelTruth> {
        self.models.iter().find(|m| m.model == name)
    }

    pub fn events(&self) -> u64 {
        self.models.iter().map(ModelTruth::events).sum()
    }

    pub fn copies(&self) -> u64 {
        self.models.iter().map(|m| m.copies).sum()
    }
}
