//! What is on disk: it outlives a kill. The rules are those of the store, row by row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bellwether::dispatch::Claimed;
use bellwether::domain::delivery::{Delivery, DeliveryState};
use bellwether::domain::incident::{Incident, TimelineEntry};
use bellwether::domain::response::Job;
use bellwether::domain::{Severity, Time};
use bellwether::engine::{Control, Entry, Outcome};

use super::Bug;

const LEASE_MS: i64 = 30_000;

#[derive(Default)]
pub struct Ledger {
    pub rows: Vec<(String, Vec<u8>)>,
    pub position: i64,
    pub snapshot_seq: u64,
    pub has_snapshot: bool,
    pub journal: Vec<Entry>,
    pub seq: u64,
    /// Keys of the journal: what is told in one name is entered once.
    pub keys: BTreeSet<String>,
    pub incidents: BTreeMap<String, Incident>,
    /// How bad each incident was when it opened.
    pub opened_as: BTreeMap<String, Severity>,
    /// By incident, in order.
    pub timeline: BTreeMap<String, Vec<TimelineEntry>>,
    pub deliveries: Vec<Row>,
    /// Places of deliveries that are not final.
    open: Vec<usize>,
    pub jobs: Vec<JobRow>,
    /// Something was written that nobody has looked at yet.
    pub is_new: bool,
}

#[derive(Clone, Debug)]
pub struct Row {
    pub delivery: Delivery,
    pub state: DeliveryState,
    pub attempts: u32,
    pub next_at: Time,
    pub lease_until: Option<Time>,
    pub first_attempt_at: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    Waiting,
    Doing,
    Done,
}

pub struct JobRow {
    pub job: Arc<Job>,
    pub state: JobState,
    pub next_at: Time,
    /// The newest entry of the journal when it was made.
    pub seq: u64,
}

impl Ledger {
    /// Everything of one step or nothing; what is there stays.
    pub fn commit(&mut self, out: Outcome, now: Time, bug: Option<Bug>, replays: u32) {
        self.is_new = true;
        for i in out.incidents {
            let known = self.incidents.get(&i.id).map(|k| k.revision);
            if known.is_none() {
                self.opened_as.insert(i.id.clone(), i.severity);
            }
            if known.is_none_or(|k| i.revision > k) || bug == Some(Bug::OlderRevisionWins) {
                self.incidents.insert(i.id.clone(), i);
            }
        }
        for t in out.timeline {
            fn place(t: &TimelineEntry) -> (u64, u32, &str) {
                (t.revision, t.ordinal, &t.what)
            }
            match self.timeline.get_mut(&t.incident_id) {
                None => drop(self.timeline.insert(t.incident_id.clone(), vec![t])),
                Some(known) => match known.binary_search_by(|k| place(k).cmp(&place(&t))) {
                    Ok(_) => {}
                    Err(at) => known.insert(at, t),
                },
            }
        }
        for mut delivery in out.deliveries {
            if bug == Some(Bug::NewIdAtReplay) {
                delivery.id = format!("{}-{replays}", delivery.id);
            }
            if self.deliveries.iter().all(|r| r.delivery.id != delivery.id) {
                self.open.push(self.deliveries.len());
                let row = Row { delivery, state: DeliveryState::Waiting, attempts: 0, next_at: now, lease_until: None, first_attempt_at: None };
                self.deliveries.push(row);
            }
        }
        for job in out.jobs {
            self.add_job(job, now);
        }
    }

    pub fn add_job(&mut self, job: Job, now: Time) {
        if self.jobs.iter().all(|r| r.job.id != job.id) {
            self.jobs.push(JobRow { job: Arc::new(job), state: JobState::Waiting, next_at: now, seq: self.seq });
        }
    }

    pub fn append(&mut self, at: Time, control: Control) -> Entry {
        self.seq += 1;
        let entry = Entry { seq: self.seq, at, control };
        self.journal.push(entry.clone());
        entry
    }

    pub fn keep(&mut self, rows: Vec<(String, Vec<u8>)>) {
        for row in rows {
            match self.rows.iter_mut().find(|r| r.0 == row.0) {
                Some(old) => old.1 = row.1,
                None => self.rows.push(row),
            }
        }
    }

    /// What was in hand when the process died.
    pub fn reopen(&mut self, bug: Option<Bug>) {
        for at in &self.open {
            let row = &mut self.deliveries[*at];
            if row.state == DeliveryState::Sending {
                row.state = match bug {
                    Some(Bug::InHandForgotten) => DeliveryState::Waiting,
                    Some(Bug::InHandCountsAsSent) => DeliveryState::Accepted,
                    _ => DeliveryState::Uncertain,
                };
                row.lease_until = None;
            }
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        let deliveries = &self.deliveries;
        self.open.retain(|at| !deliveries[*at].state.is_final());
    }

    pub fn is_all_said(&self) -> bool {
        self.open.is_empty() && self.jobs.iter().all(|r| r.state == JobState::Done)
    }

    /// The first of each lane that is due.
    pub fn claim(&mut self, now: Time, bug: Option<Bug>) -> Vec<Claimed> {
        let mut claimed = Vec::new();
        let mut firsts: Vec<usize> = Vec::new();
        for at in 0..self.open.len() {
            let n = self.open[at];
            let same = |m: &usize| {
                let (a, b) = (&self.deliveries[*m].delivery, &self.deliveries[n].delivery);
                a.message.incident.id == b.message.incident.id && a.receiver == b.receiver
            };
            let row = &self.deliveries[n];
            let is_first = !firsts.iter().any(same);
            let revision = row.delivery.message.incident.revision;
            let behind = &self.open[at + 1..];
            let newer = behind.iter().any(|m| self.deliveries[*m].delivery.message.incident.revision > revision && same(m));
            let may_go = row.delivery.message.notice.may_be_superseded() || bug == Some(Bug::EverythingSuperseded);
            let row = &mut self.deliveries[n];
            if is_first && newer && may_go && row.state == DeliveryState::Waiting {
                row.state = DeliveryState::Superseded;
                continue;
            }
            let stays_first = bug != Some(Bug::LaneOvertakes) || row.next_at <= now;
            if stays_first {
                firsts.push(n);
            }
            if row.state == DeliveryState::Sending {
                let ran_out = row.lease_until.is_some_and(|t| t <= now || bug == Some(Bug::LeaseByClock));
                if !ran_out {
                    continue;
                }
                row.state = if bug == Some(Bug::LeaseByClock) { DeliveryState::Waiting } else { DeliveryState::Uncertain };
            }
            if !is_first || row.next_at > now {
                continue;
            }
            let was_uncertain = row.state == DeliveryState::Uncertain;
            row.state = DeliveryState::Sending;
            row.attempts += 1;
            row.lease_until = Some(now.plus_ms(LEASE_MS));
            let first_attempt_at = row.first_attempt_at;
            row.first_attempt_at.get_or_insert(now);
            // A receiver of alerts hands out nothing.
            let (delivery, attempts, reference) = (row.delivery.clone(), row.attempts, None);
            claimed.push(Claimed { delivery, attempts, first_attempt_at, was_uncertain, reference });
        }
        self.tidy();
        claimed
    }

    pub fn settle(&mut self, claimed: &Claimed, state: DeliveryState, next_at: Option<Time>, now: Time, bug: Option<Bug>) {
        let at = self.deliveries.iter().position(|r| r.delivery.id == claimed.delivery.id).expect("claimed");
        let row = &mut self.deliveries[at];
        let is_ours = row.attempts == claimed.attempts && matches!(row.state, DeliveryState::Sending | DeliveryState::Uncertain);
        if is_ours || bug == Some(Bug::StaleSettle) {
            row.state = state;
            row.next_at = next_at.unwrap_or(now);
            row.lease_until = None;
            if !state.is_final() && !self.open.contains(&at) {
                self.open.push(at);
                self.open.sort_unstable();
            }
        }
        self.tidy();
    }

    pub fn job(&mut self, id: &str) -> &mut JobRow {
        self.jobs.iter_mut().find(|r| r.job.id == id).expect("claimed")
    }

    /// The next errand that is due.
    pub fn due_job(&self, now: Time) -> Option<usize> {
        self.jobs.iter().position(|r| r.state == JobState::Waiting && r.next_at <= now)
    }
}
