//! Errands outside: what is to be looked at or changed, once each.
//!
//! An errand is marked `doing` before the first byte leaves. After a kill, one that only looks is simply due again; one that
//! changes something is handed to the caller, who says `unknown` and never sends it again. Whatever was done to an errand that
//! changes something stands in the audit as well, written in the same transaction.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::audit::{self, AuditEntry};
use super::error::{Error, Fault};
use super::{Document, Store};
use crate::domain::Time;
use crate::domain::response::{Errand, Job};

/// An errand as the pages and tests see it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobRow {
    pub job: Job,
    pub state: String,
    pub attempts: u32,
    pub detail: String,
}

impl Store {
    /// Takes the next due errand, and writes that it is being done.
    ///
    /// # Errors
    /// The store cannot be written; then nothing was taken.
    pub fn claim_job(&self, now: Time) -> Result<Option<Job>, Error> {
        self.write("taking an errand from", move |c| {
            let sql = "SELECT seq, id, doc, hash FROM jobs WHERE state = 'waiting' AND next_at <= ?1 ORDER BY seq LIMIT 1";
            let found = c.prepare_cached(sql)?.query_row([now.0], raw).optional()?;
            let Some((seq, job)) = found.map(read).transpose()? else { return Ok(None) };
            c.prepare_cached("UPDATE jobs SET state = 'doing', attempts = attempts + 1 WHERE seq = ?1")?.execute([seq])?;
            if !job.errand.only_reads() {
                audit::append(c, &entry(&job, "begun", ""), now)?;
            }
            Ok(Some(job))
        })
    }

    /// Writes that an errand is done, and what came of it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn settle_job(&self, job: &Job, detail: &str, now: Time) -> Result<bool, Error> {
        let (job, detail) = (job.clone(), detail.to_owned());
        self.write("settling an errand in", move |c| {
            let sql = "UPDATE jobs SET state = 'done', settled_at = ?2, detail = ?3 WHERE id = ?1 AND state <> 'done'";
            let is_new = c.prepare_cached(sql)?.execute(params![job.id, now.0, detail])? > 0;
            if is_new && !job.errand.only_reads() {
                audit::append(c, &entry(&job, "answered", &detail), now)?;
            }
            Ok(is_new)
        })
    }

    /// Gives an errand that only looks back, to be done later.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put_back_job(&self, id: &str, at: Time) -> Result<(), Error> {
        let id = id.to_owned();
        self.write("giving an errand back to", move |c| {
            c.prepare_cached("UPDATE jobs SET state = 'waiting', next_at = ?2 WHERE id = ?1 AND state = 'doing'")?.execute(params![id, at.0])?;
            Ok(())
        })
    }

    /// At start: what only looks is due again; what changes something, and was being done when the last run ended, is returned.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn jobs_after_restart(&self) -> Result<Vec<Job>, Error> {
        self.write("looking over the errands of", |c| {
            let mut statement = c.prepare("SELECT seq, id, doc, hash FROM jobs WHERE state = 'doing' ORDER BY seq")?;
            let rows: Vec<_> = statement.query_map([], raw)?.collect::<Result<_, _>>()?;
            let mut out = Vec::new();
            for row in rows {
                let (seq, job) = read(row)?;
                if job.errand.only_reads() {
                    c.prepare_cached("UPDATE jobs SET state = 'waiting' WHERE seq = ?1")?.execute([seq])?;
                } else {
                    out.push(job);
                }
            }
            Ok(out)
        })
    }

    /// The errands of an incident, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn jobs_of(&self, incident_id: &str) -> Result<Vec<JobRow>, Error> {
        self.read("reading errands from", |c| {
            let sql = "SELECT seq, id, doc, hash, state, attempts, detail FROM jobs WHERE incident_id = ?1 ORDER BY seq";
            let mut statement = c.prepare_cached(sql)?;
            let mut found = statement.query([incident_id])?;
            let mut out = Vec::new();
            while let Some(r) = found.next()? {
                let (_, job) = read(raw(r)?)?;
                out.push(JobRow { job, state: r.get(4)?, attempts: r.get(5)?, detail: r.get(6)? });
            }
            Ok(out)
        })
    }
}

fn entry(job: &Job, what: &str, detail: &str) -> AuditEntry {
    let action = job.step.action.as_ref().map(|a| a.words()).unwrap_or_default();
    let approved: Vec<&str> = job.step.approvals.iter().map(|a| a.by.as_str()).collect();
    AuditEntry {
        who: if job.errand == Errand::Apply { format!("bellwether for {}", approved.join(", ")) } else { "bellwether".to_owned() },
        role: String::new(),
        what: format!("action {} {what}", job.errand.as_str()),
        subject: job.id.clone(),
        detail: if detail.is_empty() { action } else { format!("{action}: {detail}") },
    }
}

type RawJob = (i64, String, String, i64);

fn raw(r: &Row<'_>) -> rusqlite::Result<RawJob> {
    Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
}

fn read((seq, id, text, hash): RawJob) -> Result<(i64, Job), Fault> {
    Ok((seq, Document::read("errand", &id, &text, hash)?))
}

/// An errand as a row, made in the caller's thread.
pub(super) struct NewJob {
    id: String,
    incident_id: String,
    doc: Document,
}

impl NewJob {
    pub(super) fn of(job: &Job) -> Result<NewJob, Error> {
        Ok(NewJob { id: job.id.clone(), incident_id: job.incident.id.clone(), doc: Document::of("errand", &job.id, job)? })
    }
}

/// Never touches a row that is there: a replay must not do it again.
pub(super) fn insert(c: &Connection, job: &NewJob, now: Time) -> Result<usize, Fault> {
    Ok(c.prepare_cached(
        "INSERT INTO jobs (id, incident_id, state, created_at, next_at, doc, hash) VALUES (?1, ?2, 'waiting', ?3, ?3, ?4, ?5) ON CONFLICT (id) DO NOTHING",
    )?
    .execute(params![job.id, job.incident_id, now.0, job.doc.text, job.doc.hash])?)
}
