//! What all trackers of tickets have in common: one incident, one ticket.
//!
//! No tracker takes an idempotency key, so a create whose answer was lost may have worked. Therefore the ticket carries the
//! incident's id where the tracker can search for it, and nothing is made before it was searched for. What was found or made is
//! kept as the reference, with the newest revision that the ticket has been told; so after a step that failed, the steps before it
//! are not taken again. Later news are comments; the end closes the ticket, unless a team closes by hand.
//!
//! A comment whose answer was lost is looked for by the incident's revision, which every comment carries, where the tracker lets
//! comments be read; elsewhere it comes again and says that it may be a repeat.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::http::Round;
use super::story::Story;
use super::{Act, Common, Errand, nothing_to_say};
use crate::domain::delivery::{Message, Notice, Outcome, Receipt};

/// A ticket as it was found or made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// What later requests name it by.
    pub key: String,
    /// What people call it.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The newest revision of the incident that it has been told, comment included.
    #[serde(default)]
    pub told: u64,
    /// What somebody should know of how it was made; told once.
    #[serde(skip)]
    pub remark: Option<String>,
}

/// What is to be done to a ticket's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Close,
    Reopen,
}

/// Whether a comment is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Yes,
    No,
    /// The tracker shows no comments.
    Unknown,
}

/// One tracker. Errors are the outcome of the whole attempt.
#[async_trait]
pub trait Tracker: Send + Sync {
    /// The ticket of an incident.
    async fn find(&self, round: &Round<'_>, incident: &str) -> Result<Option<Ticket>, Outcome>;
    async fn create(&self, round: &Round<'_>, message: &Message, story: &Story) -> Result<Ticket, Outcome>;
    /// Is there a comment that carries `mark`?
    async fn has_said(&self, round: &Round<'_>, ticket: &Ticket, mark: &str) -> Result<Said, Outcome>;
    /// Adds the comment and brings up to date what the ticket says of the incident.
    async fn say(&self, round: &Round<'_>, ticket: &Ticket, message: &Message, story: &Story) -> Result<(), Outcome>;
    /// Closes or reopens; answers what to tell people if it was left as it is.
    async fn turn(&self, round: &Round<'_>, ticket: &Ticket, turn: Turn, message: &Message, story: &Story) -> Result<Option<String>, Outcome>;
}

/// What a comment of this revision can be found by; [`Story`] ends with it.
pub fn mark(message: &Message) -> String {
    format!("{}, revision {}", message.incident.id, message.incident.revision)
}

/// One attempt, from the search to the closing.
pub async fn deliver(tracker: &dyn Tracker, round: &Round<'_>, errand: Errand<'_>, common: &Common) -> Receipt {
    let mut ticket = errand.reference.and_then(|r| serde_json::from_str::<Ticket>(r).ok());
    let outcome = match steps(tracker, round, errand, common, &mut ticket).await {
        Ok(detail) => match &ticket {
            Some(ticket) => Outcome::Accepted { status: 200, detail: format!("{}: {detail}", ticket.name) },
            None => nothing_to_say(),
        },
        Err(outcome) => outcome,
    };
    Receipt { outcome, reference: ticket.and_then(|t| serde_json::to_string(&t).ok()) }
}

/// `ticket` holds what is known, however far it goes.
async fn steps(
    tracker: &dyn Tracker,
    round: &Round<'_>,
    errand: Errand<'_>,
    common: &Common,
    ticket: &mut Option<Ticket>,
) -> Result<String, Outcome> {
    let message = &errand.delivery.message;
    let revision = message.incident.revision;
    let is_known = ticket.is_some();
    if ticket.is_none() {
        *ticket = tracker.find(round, &message.incident.id).await?;
    }
    let Some(ticket) = ticket else {
        // No ticket is made in order to close it.
        if Act::of(message) != Act::Trigger {
            return Ok(String::new());
        }
        let story = Story::of(message, common, false);
        let mut made = tracker.create(round, message, &story).await?;
        made.told = revision;
        let remark = made.remark.take().map(|r| format!("; {r}")).unwrap_or_default();
        *ticket = Some(made);
        return Ok(format!("created{remark}"));
    };
    let mut done = Vec::new();
    if !is_known && message.notice == Notice::Opened {
        // Ours from an attempt whose answer was lost: it says already what there is to say.
        ticket.told = ticket.told.max(revision);
        return Ok("found; it was created before".to_owned());
    }
    if ticket.told < revision {
        let said = if errand.may_have_arrived { tracker.has_said(round, ticket, &mark(message)).await? } else { Said::No };
        if said == Said::Yes {
            done.push("the comment was there".to_owned());
        } else {
            let story = Story::of(message, common, errand.may_have_arrived && said == Said::Unknown);
            tracker.say(round, ticket, message, &story).await?;
            done.push("commented".to_owned());
        }
        ticket.told = revision;
    }
    let turn = match message.notice {
        Notice::Resolved | Notice::Merged | Notice::Suppressed => Some(Turn::Close),
        Notice::Reopened => Some(Turn::Reopen),
        Notice::Opened | Notice::Updated | Notice::Acknowledged | Notice::Escalated | Notice::Mitigated | Notice::Recovering | Notice::Reminder => {
            None
        }
    };
    if let Some(turn) = turn {
        let story = Story::of(message, common, false);
        let left = tracker.turn(round, ticket, turn, message, &story).await?;
        done.push(left.unwrap_or_else(|| if turn == Turn::Close { "closed".to_owned() } else { "reopened".to_owned() }));
    }
    Ok(done.join(", "))
}
