//! What is to be done about an incident: steps from a runbook, and how far each has come.
//!
//! A step that can be carried out names an action: which provider, on which target, in which absolute state ("off", never "less").
//! It goes through the same gates as a medicine in a hospital: look at the patient, write the prescription, have it signed, give
//! it once, look again, and know the antidote. The signature is for this prescription alone: it names the plan's hash.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::incident::Incident;
use super::time::Time;
use super::words::{ClockState, Role, StepKind, StepState};

/// The runbook of an incident as it stood when it was needed, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Response {
    /// Where the steps are written: `runbooks/assistant.yaml:4`.
    pub runbook: String,
    /// Who answers for it.
    pub owner: String,
    /// What is done if the action cannot be carried out.
    pub fallback: String,
    pub steps: Vec<Step>,
    /// Due times: data, so that whoever holds a clock only has to ask.
    pub timers: Vec<Timer>,
    /// How many levels of escalation have been climbed.
    pub level: u32,
    /// Texts for the users, to be read, changed and sent by a person.
    pub drafts: Vec<Draft>,
}

impl Response {
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|s| s.id == id)
    }

    /// The one action that is ready: the first that waits for somebody, else the first that is under way or was tried.
    pub fn ready(&self) -> Option<&Step> {
        let with_action = || self.steps.iter().filter(|s| s.action.is_some());
        with_action()
            .find(|s| s.state.waits_for_a_person())
            .or_else(|| with_action().find(|s| s.state != StepState::Idle))
            .or_else(|| with_action().next())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Unique within the incident.
    pub id: String,
    pub kind: StepKind,
    pub say: String,
    /// None: a person does it by hand. Never changed, and copied with every step.
    pub action: Option<Arc<Action>>,
    /// Who may approve it, at least.
    pub needs: Role,
    /// Two different people must approve.
    pub two_people: bool,
    /// Approved by the runbook itself, if it can be undone.
    pub automatic: bool,
    /// Undone by itself when the incident has recovered.
    pub undo_at_recovery: bool,
    /// How long a plan, and an approval of it, hold.
    pub expires_ms: i64,
    /// The model is watched so many times as closely while the incident is open.
    pub raise: Option<f64>,
    /// Receivers that hear of the incident because of this step.
    pub tells: Vec<String>,
    /// At most so many applications to this target within an hour.
    pub per_hour_max: u32,
    pub state: StepState,
    pub plan: Option<Plan>,
    pub approvals: Vec<Approval>,
    /// When it was applied, each time.
    pub applied: Vec<Time>,
    /// What came last, for people.
    pub words: String,
    /// Of a step that sends traffic from one version to another: what is to be seen of it in the traffic itself.
    #[serde(default)]
    pub shift: Option<Shift>,
}

/// Traffic that goes from one version of a model to another. A router that says "done" is believed when the predictions say so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shift {
    /// The version that gets none any more.
    pub from: Option<String>,
    /// The version that gets nearly all.
    pub to: Option<String>,
    /// Panes that begin before say nothing of it.
    pub since: Time,
    /// Predictions by version, of the panes that are being looked at.
    pub seen: BTreeMap<String, u64>,
    /// None: it is looked for.
    pub has_moved: Option<bool>,
}

impl Shift {
    /// `version 8 should get none, and version 7 nearly all`.
    pub fn words(&self) -> String {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => format!("version {from} should get none, and version {to} nearly all"),
            (Some(from), None) => format!("version {from} should get none"),
            (None, Some(to)) => format!("version {to} should get nearly all"),
            (None, None) => String::new(),
        }
    }
}

/// One change of the world: absolute, so that it does no harm to ask for it twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// Name of an action of the configuration, which says by which provider and with which credentials.
    pub using: String,
    pub target: String,
    pub set: BTreeMap<String, String>,
}

impl Action {
    /// `flags: assistant-mode -> variant=safe`.
    pub fn words(&self) -> String {
        let set: Vec<String> = self.set.iter().map(|(k, v)| format!("{k}={v}")).collect();
        format!("{}: {} -> {}", self.using, self.target, set.join(", "))
    }
}

/// What would be done, found by looking: nothing has been changed for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Of everything below; an approval names it.
    pub hash: String,
    pub at: Time,
    pub expires_at: Time,
    /// The state as it was read, in the provider's own terms: this is what undoing restores.
    pub before: String,
    /// What must still be so when the plan is applied.
    pub version: String,
    /// The exact request, without credentials.
    pub request: String,
    /// The difference, for people.
    pub change: String,
    /// It is so already.
    pub is_noop: bool,
    pub can_undo: bool,
}

impl Plan {
    /// Hash of an action and what was read for it.
    pub fn hash_of(action: &Action, before: &str, version: &str, request: &str) -> String {
        let mut h = sha2::Sha256::new();
        for part in [&action.words(), before, version, request] {
            // Lengths, so that no text can be shifted from one part to the next.
            h.update((part.len() as u64).to_be_bytes());
            h.update(part.as_bytes());
        }
        h.finalize().iter().take(12).map(|b| format!("{b:02x}")).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub by: String,
    pub at: Time,
}

/// Something that becomes due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    pub what: TimerKind,
    /// From the first look at the clock on.
    pub after_ms: i64,
    /// None until somebody with a clock has looked: incidents open in event time, people wait in wall time.
    pub due: Option<Time>,
    /// Of a duty to report: how it stands.
    #[serde(default)]
    pub standing: Standing,
}

impl Timer {
    /// The name of the duty to report, if it is one.
    pub fn clock(&self) -> Option<&str> {
        match &self.what {
            TimerKind::Legal { name, .. } => Some(name),
            TimerKind::Escalate { .. } => None,
        }
    }

    /// Receivers that are told when it speaks; whoever the routes name if there are none.
    pub fn tells(&self) -> Vec<String> {
        match &self.what {
            TimerKind::Legal { to, .. } | TimerKind::Escalate { to } => to.clone(),
        }
    }
}

/// How a duty to report stands, and who said so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub state: ClockState,
    /// Of the moments at which it speaks, how many are past.
    pub reminded: u32,
    pub decided: Option<Decided>,
    /// The incident that it began with, where that has made room for a newer one.
    pub begun_with: Option<String>,
}

impl Default for Standing {
    fn default() -> Standing {
        Standing { state: ClockState::Suggested, reminded: 0, decided: None, begun_with: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub by: String,
    pub at: Time,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimerKind {
    /// Nobody has acknowledged: these are told.
    Escalate { to: Vec<String> },
    /// A duty towards an authority, which a person starts and meets.
    Legal {
        name: String,
        words: String,
        checked_on: String,
        /// Receivers that are reminded.
        #[serde(default)]
        to: Vec<String>,
    },
}

/// A text for users, from a template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    pub name: String,
    pub text: String,
    /// Who changed it last.
    #[serde(default)]
    pub edited: Option<Approval>,
    /// Where it went, as told by whoever sent it.
    #[serde(default)]
    pub sent: Vec<Sent>,
}

/// A text that a person has sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    pub by: String,
    pub at: Time,
    pub to: String,
    /// As it was then.
    pub text: String,
}

/// One errand for whoever may touch the world.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Derived from incident, revision, step and errand, so that a replay makes the same row. Also the idempotency key outside.
    pub id: String,
    pub errand: Errand,
    pub step: Step,
    /// As it stood.
    pub incident: Incident,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Errand {
    /// Read, and say what would be done.
    Plan,
    Apply,
    /// Read back whether it is as wanted.
    Verify,
    Undo,
    /// Read back whether it is as before.
    VerifyUndo,
}

impl Errand {
    pub fn as_str(self) -> &'static str {
        match self {
            Errand::Plan => "plan",
            Errand::Apply => "apply",
            Errand::Verify => "verify",
            Errand::Undo => "undo",
            Errand::VerifyUndo => "verify_undo",
        }
    }

    /// Only looks: may be done again at any time.
    pub fn only_reads(self) -> bool {
        match self {
            Errand::Plan | Errand::Verify | Errand::VerifyUndo => true,
            Errand::Apply | Errand::Undo => false,
        }
    }
}

impl Job {
    pub fn new(incident: &Incident, step: &Step, errand: Errand) -> Job {
        let id = format!("{}-{}-{}-{}", incident.id, incident.revision, step.id, errand.as_str());
        // The other steps are nobody's business outside.
        Job { id, errand, step: step.clone(), incident: incident.without_response() }
    }
}

/// What came of an errand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receipt {
    Planned(Box<Plan>),
    /// Done, as far as the other side says.
    Done(String),
    /// The world has moved since the plan was made: nothing was changed.
    Moved(String),
    /// Refused by the other side or by ourselves: nothing was changed.
    Refused(String),
    /// It surely did not arrive.
    NotSent(String),
    /// It may have arrived. Nobody asks again without a person's word.
    Unknown(String),
    /// What was read back: is it as was wanted (or, after undoing, as before)?
    Read {
        as_wanted: bool,
        words: String,
    },
}

impl Receipt {
    pub fn as_str(&self) -> &'static str {
        match self {
            Receipt::Planned(_) => "planned",
            Receipt::Done(_) => "done",
            Receipt::Moved(_) => "moved",
            Receipt::Refused(_) => "refused",
            Receipt::NotSent(_) => "not_sent",
            Receipt::Unknown(_) => "unknown",
            Receipt::Read { .. } => "read",
        }
    }

    pub fn words(&self) -> &str {
        match self {
            Receipt::Planned(plan) => &plan.change,
            Receipt::Done(w) | Receipt::Moved(w) | Receipt::Refused(w) | Receipt::NotSent(w) | Receipt::Unknown(w) => w,
            Receipt::Read { words, .. } => words,
        }
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A step that sends traffic elsewhere, of which nothing has been done yet.
    pub fn step(id: &str) -> Step {
        Step {
            id: id.to_owned(),
            kind: StepKind::Reroute,
            say: String::new(),
            action: Some(Arc::new(Action {
                using: "flags".to_owned(),
                target: "mode".to_owned(),
                set: [("variant".to_owned(), "safe".to_owned())].into(),
            })),
            needs: Role::Approver,
            two_people: false,
            automatic: false,
            undo_at_recovery: false,
            expires_ms: 60_000,
            raise: None,
            tells: Vec::new(),
            per_hour_max: 4,
            state: StepState::Planning,
            plan: None,
            approvals: Vec::new(),
            applied: Vec::new(),
            words: String::new(),
            shift: None,
        }
    }

    /// What was read at `at`, and can be restored.
    pub fn plan(hash: &str, at: Time) -> Plan {
        Plan {
            hash: hash.to_owned(),
            at,
            expires_at: at.plus_ms(60_000),
            before: "full".to_owned(),
            version: "1".to_owned(),
            request: String::new(),
            change: "full -> safe".to_owned(),
            is_noop: false,
            can_undo: true,
        }
    }
}
