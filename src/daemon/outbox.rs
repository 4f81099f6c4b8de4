//! The store's table of due messages, as the dispatcher wants to see it.

use crate::dispatch::{self, Outbox};
use crate::domain::Time;
use crate::domain::delivery::{Delivery, DeliveryState};
use crate::domain::incident::Incident;
use crate::store::{Error, Store};

use super::keeper::chain;
use super::now;

pub struct StoreOutbox(pub Store);

fn words(e: Error) -> String {
    chain(&e)
}

impl Outbox for StoreOutbox {
    fn claim(&self, now: Time, lease_ms: i64, max: usize) -> Result<Vec<dispatch::Claimed>, String> {
        let claimed = self.0.claim(now, lease_ms, max).map_err(words)?;
        Ok((claimed.into_iter())
            .map(|c| dispatch::Claimed {
                delivery: c.delivery,
                attempts: c.attempts,
                first_attempt_at: c.first_attempt_at,
                was_uncertain: c.was_uncertain,
                reference: c.reference,
            })
            .collect())
    }

    fn settle(&self, id: &str, attempts: u32, state: DeliveryState, detail: &str, next_at: Option<Time>, now: Time) -> Result<bool, String> {
        self.0.settle(id, attempts, state, detail, next_at, now).map_err(words)
    }

    fn keep_reference(&self, incident: &str, receiver: &str, reference: &str, now: Time) -> Result<(), String> {
        self.0.keep_reference(incident, receiver, reference, now).map_err(words)
    }

    fn open_incidents(&self) -> Result<Vec<Incident>, String> {
        self.0.live_incidents().map_err(words)
    }

    fn resolved_since(&self, t: Time) -> Result<Vec<Incident>, String> {
        self.0.resolved_since(t).map_err(words)
    }

    fn incident(&self, id: &str) -> Result<Option<Incident>, String> {
        self.0.incident(id).map_err(words)
    }

    fn add(&self, delivery: Delivery) -> Result<bool, String> {
        self.0.add_delivery(&delivery, now()).map_err(words)
    }

    fn stood_in(&self, incident: &str, receiver: &str, other: &str) -> Result<bool, String> {
        let all = self.0.deliveries_of(incident).map_err(words)?;
        Ok(all.iter().any(|d| d.delivery.receiver == receiver && d.delivery.instead_of.as_deref() == Some(other)))
    }
}
