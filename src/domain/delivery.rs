//! What goes out through the outbox, and what comes back.

use serde::{Deserialize, Serialize};

use super::incident::Incident;
use super::time::Time;

/// Why something is sent. The names are the event types of the generic webhook, after `incident.`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    Opened,
    Updated,
    Acknowledged,
    /// Became worse by a severity: pages again.
    Escalated,
    Mitigated,
    Recovering,
    Resolved,
    Reopened,
    Merged,
    Suppressed,
    /// The time for a report to an authority runs out, or has.
    Reminder,
}

impl Notice {
    pub fn as_str(self) -> &'static str {
        match self {
            Notice::Opened => "opened",
            Notice::Updated => "updated",
            Notice::Acknowledged => "acknowledged",
            Notice::Escalated => "escalated",
            Notice::Mitigated => "mitigated",
            Notice::Recovering => "recovering",
            Notice::Resolved => "resolved",
            Notice::Reopened => "reopened",
            Notice::Merged => "merged",
            Notice::Suppressed => "suppressed",
            Notice::Reminder => "reminder",
        }
    }

    /// A newer state may replace this one while it waits; the others are always sent.
    pub fn may_be_superseded(self) -> bool {
        match self {
            Notice::Updated | Notice::Mitigated | Notice::Recovering | Notice::Acknowledged => true,
            Notice::Opened | Notice::Escalated | Notice::Resolved | Notice::Reopened | Notice::Merged | Notice::Suppressed | Notice::Reminder => {
                false
            }
        }
    }
}

/// One thing to say to one receiver: the incident as it stood at its revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub notice: Notice,
    /// Event time at which it became true.
    pub at: Time,
    pub incident: Incident,
}

/// A message on its way to a receiver. The id is derived from incident, revision, notice and receiver, so a replay makes the same row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    pub id: String,
    pub receiver: String,
    pub message: Message,
    /// The receiver that would not take it, whose fallback this one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
}

impl Delivery {
    pub fn new(receiver: &str, message: Message) -> Delivery {
        let id = format!("{}-{}-{}-{receiver}", message.incident.id, message.incident.revision, message.notice.as_str());
        Delivery { id, receiver: receiver.to_owned(), message, instead_of: None }
    }

    /// The same message, handed on to the fallback of whoever would not take it.
    pub fn instead_of(receiver: &str, of: &Delivery) -> Delivery {
        Delivery { instead_of: Some(of.receiver.clone()), ..Delivery::new(receiver, of.message.clone()) }
    }

    /// What came of it, for people.
    pub fn told(&self, detail: &str) -> String {
        match &self.instead_of {
            Some(of) if detail.is_empty() => format!("instead of {of}"),
            Some(of) => format!("instead of {of}; {detail}"),
            None => detail.to_owned(),
        }
    }
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    Waiting,
    /// A lease is held; after a kill it means that nobody knows whether it arrived.
    Sending,
    Accepted,
    Refused,
    /// The answer was lost.
    Uncertain,
    Superseded,
    Expired,
}

impl DeliveryState {
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Waiting => "waiting",
            DeliveryState::Sending => "sending",
            DeliveryState::Accepted => "accepted",
            DeliveryState::Refused => "refused",
            DeliveryState::Uncertain => "uncertain",
            DeliveryState::Superseded => "superseded",
            DeliveryState::Expired => "expired",
        }
    }
    pub fn is_final(self) -> bool {
        match self {
            DeliveryState::Accepted | DeliveryState::Refused | DeliveryState::Superseded | DeliveryState::Expired => true,
            DeliveryState::Waiting | DeliveryState::Sending | DeliveryState::Uncertain => false,
        }
    }
}

/// What a receiver answered to one attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Accepted {
        status: u16,
        detail: String,
    },
    /// Final: repeating cannot help.
    Refused {
        status: Option<u16>,
        detail: String,
    },
    /// Did not arrive (or was turned away for now): try again, not before `after_ms` if the receiver said so.
    Retry {
        status: Option<u16>,
        detail: String,
        after_ms: Option<i64>,
    },
    /// Sent, but the answer was lost: it may have arrived.
    Uncertain {
        detail: String,
    },
    /// Not sent: who answered there could not show that he is the one who is meant. Only people can mend that, so another is told
    /// at once; and since it may be this machine that is wrong (its clock, its authorities), it is tried on.
    Untrusted {
        detail: String,
    },
}

/// What an attempt brings home: what came of it, and what the receiver gave us to find its ticket or message again.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    pub outcome: Outcome,
    /// Opaque to everybody but the kind of receiver that wrote it; kept by incident and receiver and handed to the next attempt.
    /// `None` changes nothing. It counts whatever the outcome: a ticket may be there although its comment failed.
    pub reference: Option<String>,
}

impl From<Outcome> for Receipt {
    fn from(outcome: Outcome) -> Receipt {
        Receipt { outcome, reference: None }
    }
}

impl Outcome {
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Accepted { .. } => "accepted",
            Outcome::Refused { .. } => "refused",
            Outcome::Retry { .. } => "retry",
            Outcome::Uncertain { .. } => "uncertain",
            Outcome::Untrusted { .. } => "untrusted",
        }
    }
    pub fn detail(&self) -> &str {
        match self {
            Outcome::Accepted { detail, .. }
            | Outcome::Refused { detail, .. }
            | Outcome::Retry { detail, .. }
            | Outcome::Uncertain { detail }
            | Outcome::Untrusted { detail } => detail,
        }
    }
}
