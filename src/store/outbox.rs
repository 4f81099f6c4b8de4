//! The outbox: what is to be said to whom, in what order, and what came of it.
//!
//! One lane per (incident, receiver): a queue at a window. Only the first in the queue is served, and nobody is served while
//! somebody's answer is awaited, so a receiver never hears "resolved" before "opened". An attempt is counted *before* it is made:
//! after a kill the count says that something may have gone out. An answer names the attempt it answers, so one that comes late, after
//! the lease ran out and another worker took over, changes nothing.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::{Error, Fault};
use super::{Document, Store, hash_of};
use crate::domain::Time;
use crate::domain::delivery::{Delivery, DeliveryState};

/// As the partial index has it, or SQLite does not use the index.
const PENDING: &str = "state IN ('waiting', 'sending', 'uncertain')";
const SUPERSEDED_DETAIL: &str = "a newer message was waiting";
const LEASE_DETAIL: &str = "no answer before the lease ran out";
const RESTART_DETAIL: &str = "the process ended before the answer was written down";

/// A delivery that is ours to attempt until the lease runs out.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    pub delivery: Delivery,
    /// This attempt included: hand it back to [`Store::settle`].
    pub attempts: u32,
    /// Of this attempt, if it is the first.
    pub first_attempt_at: Option<Time>,
    /// An earlier attempt may have arrived.
    pub was_uncertain: bool,
    pub created_at: Time,
    /// What the receiver gave us for this incident: [`Store::keep_reference`].
    pub reference: Option<String>,
}

/// A delivery as the pages show it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRow {
    pub delivery: Delivery,
    pub state: DeliveryState,
    pub attempts: u32,
    pub created_at: Time,
    pub next_at: Time,
    pub lease_until: Option<Time>,
    pub first_attempt_at: Option<Time>,
    pub last_attempt_at: Option<Time>,
    pub settled_at: Option<Time>,
    pub detail: String,
}

/// What still waits for one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    pub receiver: String,
    pub pending: usize,
    /// Wall time at which the oldest was written.
    pub oldest: Option<Time>,
}

impl Store {
    /// Adds a delivery outside a commit: to the fallback receiver, or a test. False when it was there already.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn add_delivery(&self, delivery: &Delivery, now: Time) -> Result<bool, Error> {
        let new = NewDelivery::of(delivery)?;
        self.write("writing a delivery to", move |c| Ok(insert(c, &new, now)? > 0))
    }

    /// Takes up to `max` due deliveries for `lease_ms`, each the first of its lane, receivers in turn. What is superseded on the way
    /// is marked so.
    ///
    /// # Errors
    /// The store cannot be written; then nothing was claimed.
    pub fn claim(&self, now: Time, lease_ms: i64, max: usize) -> Result<Vec<Claimed>, Error> {
        self.claim_for(None, now, lease_ms, max)
    }

    /// As [`Store::claim`], of one receiver's lanes alone.
    ///
    /// # Errors
    /// The store cannot be written; then nothing was claimed.
    pub fn claim_from(&self, receiver: &str, now: Time, lease_ms: i64, max: usize) -> Result<Vec<Claimed>, Error> {
        self.claim_for(Some(receiver), now, lease_ms, max)
    }

    fn claim_for(&self, receiver: Option<&str>, now: Time, lease_ms: i64, max: usize) -> Result<Vec<Claimed>, Error> {
        let receiver = receiver.map(str::to_owned);
        self.write("claiming deliveries in", move |c| {
            expire_leases(c, now)?;
            let lanes = pending(c, receiver.as_deref())?;
            let plan = plan(&lanes, now, max);
            for seq in plan.superseded {
                c.prepare_cached("UPDATE deliveries SET state = 'superseded', settled_at = ?2, lease_until = NULL, detail = ?3 WHERE seq = ?1")?
                    .execute(params![seq, now.0, SUPERSEDED_DETAIL])?;
            }
            plan.claimed.into_iter().map(|(seq, was_uncertain)| take(c, seq, was_uncertain, now, lease_ms)).collect()
        })
    }

    /// Writes down what came of an attempt. False when the attempt is no longer the last one, or the delivery is settled: a late
    /// answer is harmless. `next_at` matters for `Waiting` and `Uncertain`, and is `now` if left out.
    ///
    /// # Errors
    /// `state` is `Sending`, which is not an outcome; the store cannot be written.
    pub fn settle(&self, id: &str, attempts: u32, state: DeliveryState, detail: &str, next_at: Option<Time>, now: Time) -> Result<bool, Error> {
        if state == DeliveryState::Sending {
            return Err(Error::NotAnOutcome { delivery: id.to_owned(), state: state.as_str() });
        }
        let (id, detail) = (id.to_owned(), detail.to_owned());
        let settled_at = state.is_final().then_some(now.0);
        self.write("settling a delivery in", move |c| {
            let changed = c
                .prepare_cached(
                    "UPDATE deliveries SET state = ?3, detail = ?4, next_at = ?5, settled_at = ?6, lease_until = NULL
                     WHERE id = ?1 AND attempts = ?2 AND state IN ('sending', 'uncertain')",
                )?
                .execute(params![id, attempts, state.as_str(), detail, next_at.unwrap_or(now).0, settled_at])?;
            Ok(changed > 0)
        })
    }

    /// Keeps what a receiver gave us for an incident (a ticket's key, a message's time stamp), in place of what was kept before.
    /// Kept for ever, as the deliveries are.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn keep_reference(&self, incident_id: &str, receiver: &str, reference: &str, now: Time) -> Result<(), Error> {
        let (incident, receiver, reference) = (incident_id.to_owned(), receiver.to_owned(), reference.to_owned());
        let hash = hash_of(&incident, reference.as_bytes());
        self.write("writing a reference to", move |c| {
            c.prepare_cached(
                "INSERT INTO receiver_references (incident_id, receiver, reference, hash, written_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (incident_id, receiver) DO UPDATE SET reference = ?3, hash = ?4, written_at = ?5",
            )?
            .execute(params![incident, receiver, reference, hash, now.0])?;
            Ok(())
        })
    }

    /// What a receiver gave us for an incident.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn reference(&self, incident_id: &str, receiver: &str) -> Result<Option<String>, Error> {
        self.read("reading a reference from", |c| reference(c, incident_id, receiver))
    }

    /// At start: whatever was being sent may or may not have arrived. Returns how many.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn after_restart(&self) -> Result<usize, Error> {
        self.write("looking over the outbox of", |c| {
            Ok(c.execute("UPDATE deliveries SET state = 'uncertain', lease_until = NULL, detail = ?1 WHERE state = 'sending'", [RESTART_DETAIL])?)
        })
    }

    /// What waits, by receiver.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn outbox_stats(&self) -> Result<Vec<Backlog>, Error> {
        let sql = format!("SELECT receiver, count(*), min(created_at) FROM deliveries WHERE {PENDING} GROUP BY receiver ORDER BY receiver");
        self.read("reading the outbox of", |c| {
            let mut statement = c.prepare_cached(&sql)?;
            let rows = statement.query_map([], |r| {
                Ok(Backlog { receiver: r.get(0)?, pending: r.get::<_, i64>(1)? as usize, oldest: r.get::<_, Option<i64>>(2)?.map(Time) })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// When the next delivery is due that is the first of its lane; `None` when nothing waits. A lease that runs out counts.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn next_due(&self) -> Result<Option<Time>, Error> {
        let sql = format!(
            "SELECT min(coalesce(lease_until, next_at)) FROM deliveries AS head WHERE {PENDING} AND NOT EXISTS (
                SELECT 1 FROM deliveries AS older WHERE older.incident_id = head.incident_id AND older.receiver = head.receiver
                AND older.seq < head.seq AND older.state IN ('waiting', 'sending', 'uncertain'))"
        );
        self.read("reading the outbox of", |c| Ok(c.prepare_cached(&sql)?.query_row([], |r| r.get::<_, Option<i64>>(0))?.map(Time)))
    }

    /// Reads everything that is still to be sent, for the sake of its hashes.
    pub(super) fn examine_outbox(&self) -> Result<(), Error> {
        let sql = format!("SELECT {SHOWN} FROM deliveries WHERE {PENDING}");
        self.inner.readers.read_unbounded("examining the outbox of", |c| {
            let mut statement = c.prepare(&sql)?;
            let mut found = statement.query([])?;
            while let Some(r) = found.next()? {
                shown(r)?;
            }
            Ok(())
        })
    }

    /// The deliveries of one incident in order of creation.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn deliveries_of(&self, incident_id: &str) -> Result<Vec<DeliveryRow>, Error> {
        self.read("reading deliveries from", |c| {
            let mut statement = c.prepare_cached(&format!("SELECT {SHOWN} FROM deliveries WHERE incident_id = ?1 ORDER BY seq"))?;
            let mut found = statement.query([incident_id])?;
            let mut rows = Vec::new();
            while let Some(r) = found.next()? {
                rows.push(shown(r)?);
            }
            Ok(rows)
        })
    }

    /// One delivery.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn delivery(&self, id: &str) -> Result<Option<DeliveryRow>, Error> {
        self.read("reading a delivery from", |c| {
            let mut statement = c.prepare_cached(&format!("SELECT {SHOWN} FROM deliveries WHERE id = ?1"))?;
            let mut found = statement.query([id])?;
            found.next()?.map(shown).transpose()
        })
    }
}

const SHOWN: &str = "id, doc, hash, state, attempts, created_at, next_at, lease_until, first_attempt_at, last_attempt_at, settled_at, detail";

fn shown(r: &Row<'_>) -> Result<DeliveryRow, Fault> {
    let (id, text): (String, String) = (r.get(0)?, r.get(1)?);
    let state: String = r.get(3)?;
    let time = |column: usize| -> rusqlite::Result<Option<Time>> { Ok(r.get::<_, Option<i64>>(column)?.map(Time)) };
    Ok(DeliveryRow {
        delivery: Document::read("delivery", &id, &text, r.get(2)?)?,
        state: state_of(&state).ok_or_else(|| Fault::Flipped { table: "delivery", id })?,
        attempts: r.get(4)?,
        created_at: Time(r.get(5)?),
        next_at: Time(r.get(6)?),
        lease_until: time(7)?,
        first_attempt_at: time(8)?,
        last_attempt_at: time(9)?,
        settled_at: time(10)?,
        detail: r.get(11)?,
    })
}

fn state_of(text: &str) -> Option<DeliveryState> {
    use DeliveryState::*;
    [Waiting, Sending, Accepted, Refused, Uncertain, Superseded, Expired].into_iter().find(|s| s.as_str() == text)
}

/// A delivery as a row, made in the caller's thread.
pub(super) struct NewDelivery {
    id: String,
    incident_id: String,
    receiver: String,
    supersedable: bool,
    doc: Document,
}

impl NewDelivery {
    pub(super) fn of(d: &Delivery) -> Result<NewDelivery, Error> {
        Ok(NewDelivery {
            id: d.id.clone(),
            incident_id: d.message.incident.id.clone(),
            receiver: d.receiver.clone(),
            supersedable: d.message.notice.may_be_superseded(),
            doc: Document::of("delivery", &d.id, d)?,
        })
    }
}

/// Never touches a row that is there: a replay must not send again.
pub(super) fn insert(c: &Connection, d: &NewDelivery, now: Time) -> Result<usize, Fault> {
    Ok(c.prepare_cached(
        "INSERT INTO deliveries (id, incident_id, receiver, supersedable, state, created_at, next_at, doc, hash)
         VALUES (?1, ?2, ?3, ?4, 'waiting', ?5, ?5, ?6, ?7) ON CONFLICT (id) DO NOTHING",
    )?
    .execute(params![d.id, d.incident_id, d.receiver, d.supersedable, now.0, d.doc.text, d.doc.hash])?)
}

fn expire_leases(c: &Connection, now: Time) -> Result<(), Fault> {
    c.prepare_cached(
        "UPDATE deliveries SET state = 'uncertain', lease_until = NULL, detail = ?2
         WHERE state = 'sending' AND state IN ('waiting', 'sending', 'uncertain') AND lease_until <= ?1",
    )?
    .execute(params![now.0, LEASE_DETAIL])?;
    Ok(())
}

/// A pending row, as much of it as the plan needs.
#[derive(Clone, Debug)]
struct Waiter {
    seq: i64,
    incident: String,
    receiver: String,
    state: DeliveryState,
    next_at: Time,
    supersedable: bool,
}

/// In order of lanes, and within a lane in order of creation.
fn pending(c: &Connection, receiver: Option<&str>) -> Result<Vec<Waiter>, Fault> {
    let sql = format!(
        "SELECT seq, incident_id, receiver, state, next_at, supersedable FROM deliveries
         WHERE {PENDING} AND (?1 IS NULL OR receiver = ?1) ORDER BY incident_id, receiver, seq"
    );
    let mut statement = c.prepare_cached(&sql)?;
    let mut found = statement.query([receiver])?;
    let mut rows = Vec::new();
    while let Some(r) = found.next()? {
        let seq: i64 = r.get(0)?;
        let state: String = r.get(3)?;
        rows.push(Waiter {
            seq,
            incident: r.get(1)?,
            receiver: r.get(2)?,
            state: state_of(&state).ok_or_else(|| Fault::Flipped { table: "delivery", id: seq.to_string() })?,
            next_at: Time(r.get(4)?),
            supersedable: r.get(5)?,
        });
    }
    Ok(rows)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    superseded: Vec<i64>,
    /// And whether an earlier attempt may have arrived.
    claimed: Vec<(i64, bool)>,
}

/// Who is served now: of each lane the first, if it is due and nobody of the lane is being served; receivers take turns, so that the
/// ten thousand lanes of one do not keep the others waiting.
fn plan(rows: &[Waiter], now: Time, max: usize) -> Plan {
    let mut plan = Plan::default();
    let mut heads: BTreeMap<&str, Vec<(i64, bool)>> = BTreeMap::new();
    for lane in rows.chunk_by(|a, b| a.incident == b.incident && a.receiver == b.receiver) {
        if lane.iter().any(|w| w.state == DeliveryState::Sending) {
            continue;
        }
        let mut lane = lane;
        while let [head, rest @ ..] = lane {
            if head.next_at > now {
                break;
            }
            if head.supersedable && rest.iter().any(|w| w.state == DeliveryState::Waiting) {
                plan.superseded.push(head.seq);
                lane = rest;
                continue;
            }
            heads.entry(&head.receiver).or_default().push((head.seq, head.state == DeliveryState::Uncertain));
            break;
        }
    }
    // (turn, seq): everybody's oldest first, then everybody's second.
    let mut turns: Vec<(usize, i64, bool)> = Vec::new();
    for of_one in heads.values_mut() {
        of_one.sort_unstable();
        turns.extend(of_one.iter().enumerate().map(|(turn, (seq, uncertain))| (turn, *seq, *uncertain)));
    }
    turns.sort_unstable();
    plan.claimed = turns.into_iter().take(max).map(|(_, seq, uncertain)| (seq, uncertain)).collect();
    plan
}

/// Counts the attempt and takes the lease.
fn take(c: &Connection, seq: i64, was_uncertain: bool, now: Time, lease_ms: i64) -> Result<Claimed, Fault> {
    let row = c
        .prepare_cached(
            "UPDATE deliveries SET state = 'sending', attempts = attempts + 1, lease_until = ?2, last_attempt_at = ?3,
                first_attempt_at = coalesce(first_attempt_at, ?3)
             WHERE seq = ?1 RETURNING id, doc, hash, attempts, first_attempt_at, created_at",
        )?
        .query_row(params![seq, now.plus_ms(lease_ms).0, now.0], |r| {
            Ok((
                r.get::<_, String>(0)?,
                r.get::<_, String>(1)?,
                r.get::<_, i64>(2)?,
                r.get::<_, u32>(3)?,
                r.get::<_, Option<i64>>(4)?,
                r.get::<_, i64>(5)?,
            ))
        })
        .optional()?;
    let Some((id, text, hash, attempts, first, created)) = row else { return Err(Fault::Sql(rusqlite::Error::QueryReturnedNoRows)) };
    let delivery: Delivery = Document::read("delivery", &id, &text, hash)?;
    let reference = reference(c, &delivery.message.incident.id, &delivery.receiver)?;
    Ok(Claimed { delivery, reference, attempts, first_attempt_at: first.map(Time), was_uncertain, created_at: Time(created) })
}

fn reference(c: &Connection, incident_id: &str, receiver: &str) -> Result<Option<String>, Fault> {
    let found: Option<(String, i64)> = c
        .prepare_cached("SELECT reference, hash FROM receiver_references WHERE incident_id = ?1 AND receiver = ?2")?
        .query_row([incident_id, receiver], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?;
    match found {
        Some((text, hash)) if hash == hash_of(incident_id, text.as_bytes()) => Ok(Some(text)),
        Some(_) => Err(Fault::Flipped { table: "reference", id: format!("{incident_id} at {receiver}") }),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{delivery, incident};
    use super::*;
    use crate::domain::IncidentState::Open;
    use crate::domain::delivery::Notice::{self, Opened, Resolved, Updated};

    const LEASE: i64 = 30_000;

    /// Messages of one incident, one revision each, to each receiver.
    fn store_with(model: &str, notices: &[Notice], receivers: &[&str]) -> Store {
        let store = Store::memory().unwrap();
        add(&store, model, notices, receivers);
        store
    }

    fn add(store: &Store, model: &str, notices: &[Notice], receivers: &[&str]) {
        for (n, notice) in notices.iter().enumerate() {
            for receiver in receivers {
                assert!(store.add_delivery(&delivery(&incident(model, 0, n as u64 + 1, Open), *notice, receiver), Time(0)).unwrap());
            }
        }
    }

    /// What a claim takes, as `notice>receiver`.
    fn claimed(store: &Store, now: i64, max: usize) -> Vec<String> {
        let claimed = store.claim(Time(now), LEASE, max).unwrap();
        claimed.iter().map(|c| format!("{}>{}", c.delivery.message.notice.as_str(), c.delivery.receiver)).collect()
    }

    fn states(store: &Store, model: &str) -> Vec<&'static str> {
        store.deliveries_of(&incident(model, 0, 1, Open).id).unwrap().iter().map(|d| d.state.as_str()).collect()
    }

    #[test]
    fn a_lane_is_served_in_order_and_one_at_a_time() {
        let store = store_with("m", &[Opened, Resolved], &["pager", "chat"]);
        assert_eq!(claimed(&store, 1, 10), ["opened>pager", "opened>chat"]);
        assert_eq!(claimed(&store, 2, 10), [""; 0], "both lanes are being served");
        let id = delivery(&incident("m", 0, 1, Open), Opened, "pager").id;
        assert!(store.settle(&id, 1, DeliveryState::Accepted, "202", None, Time(3)).unwrap());
        assert_eq!(claimed(&store, 4, 10), ["resolved>pager"]);
        let row = store.delivery(&id).unwrap().unwrap();
        assert_eq!((row.state, row.attempts, row.settled_at, row.detail.as_str()), (DeliveryState::Accepted, 1, Some(Time(3)), "202"));
    }

    #[test]
    fn a_retry_waits_for_its_time_and_holds_its_lane() {
        let store = store_with("m", &[Opened, Resolved], &["pager"]);
        let c = store.claim(Time(1), LEASE, 1).unwrap().remove(0);
        assert!(store.settle(&c.delivery.id, 1, DeliveryState::Waiting, "503", Some(Time(500)), Time(2)).unwrap());
        assert_eq!(store.next_due().unwrap(), Some(Time(500)), "what stands behind the first is not due");
        assert_eq!(claimed(&store, 499, 10), [""; 0]);
        let c = store.claim(Time(500), LEASE, 10).unwrap().remove(0);
        assert_eq!((c.attempts, c.first_attempt_at, c.was_uncertain), (2, Some(Time(1)), false));
    }

    #[test]
    fn a_newer_message_supersedes_an_update_but_never_an_opening() {
        let store = store_with("m", &[Opened, Updated, Updated, Updated], &["chat"]);
        assert_eq!(claimed(&store, 1, 10), ["opened>chat"]);
        let id = delivery(&incident("m", 0, 1, Open), Opened, "chat").id;
        store.settle(&id, 1, DeliveryState::Accepted, "", None, Time(2)).unwrap();
        assert_eq!(claimed(&store, 3, 10), ["updated>chat"]);
        assert_eq!(states(&store, "m"), ["accepted", "superseded", "superseded", "sending"]);
    }

    #[test]
    fn an_update_that_must_wait_is_not_superseded_before_its_time() {
        let store = store_with("m", &[Updated], &["chat"]);
        let c = store.claim(Time(1), LEASE, 1).unwrap().remove(0);
        store.settle(&c.delivery.id, 1, DeliveryState::Waiting, "429", Some(Time(900)), Time(2)).unwrap();
        store.add_delivery(&delivery(&incident("m", 0, 2, Open), Resolved, "chat"), Time(3)).unwrap();
        assert_eq!(claimed(&store, 4, 10), [""; 0], "the receiver asked us to wait");
        assert_eq!(claimed(&store, 900, 10), ["resolved>chat"]);
    }

    #[test]
    fn a_lease_that_runs_out_leaves_it_uncertain_and_a_late_answer_is_harmless() {
        let store = store_with("m", &[Opened], &["pager"]);
        let first = store.claim(Time(0), LEASE, 1).unwrap().remove(0);
        assert_eq!(claimed(&store, LEASE - 1, 1), [""; 0]);
        let second = store.claim(Time(LEASE), LEASE, 1).unwrap().remove(0);
        assert_eq!((second.attempts, second.was_uncertain, second.first_attempt_at), (2, true, Some(Time(0))));
        assert!(!store.settle(&first.delivery.id, first.attempts, DeliveryState::Refused, "late", None, Time(LEASE + 1)).unwrap());
        assert!(store.settle(&second.delivery.id, second.attempts, DeliveryState::Accepted, "202", None, Time(LEASE + 2)).unwrap());
        assert!(!store.settle(&second.delivery.id, second.attempts, DeliveryState::Waiting, "again", None, Time(LEASE + 3)).unwrap());
        assert_eq!(states(&store, "m"), ["accepted"]);
    }

    #[test]
    fn after_a_restart_nobody_knows_what_arrived() {
        let store = store_with("m", &[Opened], &["pager"]);
        assert_eq!(claimed(&store, 0, 1), ["opened>pager"]);
        assert_eq!(store.after_restart().unwrap(), 1);
        let again = store.claim(Time(1), LEASE, 1).unwrap().remove(0);
        assert_eq!((again.attempts, again.was_uncertain), (2, true));
    }

    #[test]
    fn a_reference_comes_back_with_the_claims_of_its_lane_alone() {
        let store = store_with("m", &[Opened, Resolved], &["tracker", "chat"]);
        let id = incident("m", 0, 1, Open).id;
        let first = store.claim(Time(1), LEASE, 9).unwrap();
        assert!(first.iter().all(|c| c.reference.is_none()));
        store.keep_reference(&id, "tracker", "ML-213", Time(2)).unwrap();
        store.keep_reference(&id, "tracker", "ML-214", Time(2)).unwrap();
        for c in &first {
            store.settle(&c.delivery.id, 1, DeliveryState::Accepted, "", None, Time(3)).unwrap();
        }
        let next: Vec<_> = store.claim(Time(4), LEASE, 9).unwrap().into_iter().map(|c| (c.delivery.receiver, c.reference)).collect();
        assert_eq!(next, [("tracker".to_owned(), Some("ML-214".to_owned())), ("chat".to_owned(), None)]);
        assert_eq!(store.reference(&id, "tracker").unwrap().as_deref(), Some("ML-214"));
    }

    #[test]
    fn receivers_take_turns() {
        let store = Store::memory().unwrap();
        for n in 0..50 {
            add(&store, &format!("model {n}"), &[Opened], &["slow"]);
        }
        add(&store, "other", &[Opened], &["quick"]);
        assert_eq!(claimed(&store, 1, 2), ["opened>slow", "opened>quick"]);
        assert_eq!(store.claim_from("quick", Time(1), LEASE, 9).unwrap().len(), 0);
        let backlog: Vec<_> = store.outbox_stats().unwrap().into_iter().map(|b| (b.receiver, b.pending)).collect();
        assert_eq!(backlog, [("quick".to_owned(), 1), ("slow".to_owned(), 50)]);
    }

    #[test]
    fn sending_is_not_an_outcome() {
        let store = Store::memory().unwrap();
        assert!(matches!(store.settle("x", 1, DeliveryState::Sending, "", None, Time(0)), Err(Error::NotAnOutcome { .. })));
    }
}
