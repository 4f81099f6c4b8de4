//! What reaches the engine from elsewhere than the log: written to the input journal first, and applied where it was written.

use serde::{Deserialize, Serialize};

use crate::domain::{HoldKind, Matcher, Signal, Time};
use crate::incident::Command;
use crate::pane::PartitionId;

/// One row of the input journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub seq: u64,
    /// The pane boundary at which it applies: everything before is judged, nothing after.
    pub at: Time,
    pub control: Control,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Control {
    /// History ends: from here on findings page. Rules, which speak of single events, speak in every pane from `rules_from` on, or in all:
    /// what is read after history may have happened in any pane that is still open.
    Live {
        rules_from: Option<Time>,
    },
    /// Nothing has come from the partition for long: what is open is sealed, and nobody waits for it. Applies at its position.
    Rest {
        partition: PartitionId,
        position: i64,
    },
    /// It speaks again (or for the first time): panes before `floor` were closed without it. Applies at its position.
    Wake {
        partition: PartitionId,
        position: i64,
        floor: Time,
    },
    /// A person's act on an incident; `wall` is the clock on the wall when it was given.
    Act {
        incident: String,
        command: Command,
        wall: Time,
    },
    /// What is normal of a model, in one environment or in all: a packed [`crate::judge::Import`].
    Baseline {
        model: String,
        environment: Option<String>,
        packed: String,
    },
    /// What was learned of a model, or of one signal of it, is forgotten.
    Forget {
        model: String,
        environment: Option<String>,
        signal: Option<Signal>,
    },
    /// A look at the clock: what is due on incidents becomes so.
    Tick {
        wall: Time,
    },
    /// Somebody does not want to be called for what fits, for a time. Its id is made of the number of its entry.
    Hold {
        kind: HoldKind,
        matcher: Matcher,
        from: Time,
        until: Time,
        by: String,
        why: String,
        harm: bool,
    },
    /// A hold is made over before its time.
    EndHold {
        id: String,
        by: String,
        wall: Time,
    },
    /// We cannot see: `words` say why. Silence findings are held while it lasts.
    Blind {
        words: String,
        wall: Time,
    },
    Sighted {
        words: String,
        wall: Time,
    },
}

// === impl Control ===

impl Control {
    /// A turn of one partition, which applies at a position of it: which, and where. Everything else applies at a pane boundary.
    pub fn turn(&self) -> Option<(PartitionId, i64)> {
        match self {
            Control::Rest { partition, position } | Control::Wake { partition, position, .. } => Some((*partition, *position)),
            Control::Live { .. }
            | Control::Act { .. }
            | Control::Hold { .. }
            | Control::EndHold { .. }
            | Control::Tick { .. }
            | Control::Baseline { .. }
            | Control::Forget { .. }
            | Control::Blind { .. }
            | Control::Sighted { .. } => None,
        }
    }

    /// Something that a person did.
    pub fn is_act(&self) -> bool {
        match self {
            Control::Act { .. } | Control::Hold { .. } | Control::EndHold { .. } | Control::Baseline { .. } | Control::Forget { .. } => true,
            Control::Live { .. }
            | Control::Rest { .. }
            | Control::Wake { .. }
            | Control::Tick { .. }
            | Control::Blind { .. }
            | Control::Sighted { .. } => false,
        }
    }
}
