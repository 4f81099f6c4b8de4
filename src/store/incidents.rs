//! Incidents, their timelines and the alarms behind them.
//!
//! [`Store::commit`] is the one door: transition, timeline, deliveries and alarms in one transaction. A replay brings the same commits
//! again, and every part of one is a question of identity, so the second time changes nothing: an incident gives way only to
//! a greater revision, and what has an id is written once.

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter, types::Value};

use super::error::{Error, Fault, is_constraint};
use super::outbox::{self, NewDelivery};
use super::{Document, Store};
use crate::domain::alarm::Alarm;
use crate::domain::delivery::Delivery;
use crate::domain::incident::{Incident, TimelineEntry};
use crate::domain::{Category, IncidentState, SeriesId, Time};

const LIST_DEFAULT: usize = 100;
const LIST_MAX: usize = 1_000;
/// As the partial index has it, or SQLite does not use the index.
const LIVE: &str = "state IN ('open', 'acknowledged', 'mitigated', 'monitoring_recovery', 'suppressed')";

/// What one step of the engine has to write down.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    pub incidents: Vec<Incident>,
    pub timeline: Vec<TimelineEntry>,
    pub deliveries: Vec<Delivery>,
    /// With ids that a replay makes again.
    pub alarms: Vec<(String, Alarm)>,
    /// Wall time: new deliveries are due from now.
    pub now: Time,
}

/// What of a commit was new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    pub incidents_changed: usize,
    pub new_deliveries: usize,
    pub new_alarms: usize,
}

/// Which incidents to list. The default is all of them, newest first, a hundred at a time.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub environment: Option<String>,
    pub model: Option<String>,
    pub category: Option<Category>,
    pub state: Option<IncidentState>,
    /// Only the live, or only those that are not.
    pub live: Option<bool>,
    /// At most 1,000; 0 means 100.
    pub limit: usize,
    /// From the list before.
    pub cursor: Option<String>,
}

/// An alarm with its id.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAlarm {
    pub id: String,
    pub alarm: Alarm,
}

impl Store {
    /// Writes one step down, all of it or nothing; what is there already stays as it is.
    ///
    /// # Errors
    /// Another incident of the same key is live ([`Error::Conflict`]); the timeline names an unknown incident; a document cannot be
    /// written as JSON; the store cannot be written.
    pub fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        let prepared = Prepared::of(&commit)?;
        if prepared.is_empty() {
            return Ok(Committed::default());
        }
        self.write("writing incidents to", move |c| prepared.write(c))
    }

    /// One incident.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn incident(&self, id: &str) -> Result<Option<Incident>, Error> {
        self.read("reading an incident from", |c| {
            let row = c.prepare_cached("SELECT id, doc, hash FROM incidents WHERE id = ?1")?.query_row([id], raw).optional()?;
            row.map(|r| document("incident", r)).transpose()
        })
    }

    /// Incidents, newest first, and the cursor of the next page if there is one.
    ///
    /// # Errors
    /// The cursor is not one of ours; the store cannot be read.
    pub fn incidents(&self, filter: &Filter) -> Result<(Vec<Incident>, Option<String>), Error> {
        let limit = if filter.limit == 0 { LIST_DEFAULT } else { filter.limit.min(LIST_MAX) };
        let mut wanted: Vec<&str> = Vec::new();
        let mut values: Vec<Value> = Vec::new();
        let equal = [
            ("environment = ?", filter.environment.clone()),
            ("model = ?", filter.model.clone()),
            ("category = ?", filter.category.map(|c| c.as_str().to_owned())),
            ("state = ?", filter.state.map(|s| s.as_str().to_owned())),
        ];
        for (condition, value) in equal {
            if let Some(value) = value {
                wanted.push(condition);
                values.push(value.into());
            }
        }
        let not_live = format!("NOT ({LIVE})");
        match filter.live {
            Some(true) => wanted.push(LIVE),
            Some(false) => wanted.push(&not_live),
            None => {}
        }
        if let Some(cursor) = &filter.cursor {
            let (opened, id) = parse_cursor(cursor).ok_or_else(|| Error::BadCursor { cursor: cursor.clone() })?;
            wanted.push("(opened_at, id) < (?, ?)");
            values.extend([opened.into(), id.to_owned().into()]);
        }
        let condition = if wanted.is_empty() { String::new() } else { format!("WHERE {}", wanted.join(" AND ")) };
        // One more than asked for tells whether there is a next page.
        let sql = format!("SELECT id, doc, hash FROM incidents {condition} ORDER BY opened_at DESC, id DESC LIMIT {}", limit + 1);
        self.read("reading incidents from", |c| {
            let mut found: Vec<Incident> = list(c, "incident", &sql, values)?;
            let more = found.len() > limit;
            found.truncate(limit);
            let next = found.last().filter(|_| more).map(|i| format!("{}:{}", i.opened_at.0, i.id));
            Ok((found, next))
        })
    }

    /// All live incidents, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn live_incidents(&self) -> Result<Vec<Incident>, Error> {
        let sql = format!("SELECT id, doc, hash FROM incidents WHERE {LIVE} ORDER BY opened_at, id");
        self.read("reading incidents from", |c| list(c, "incident", &sql, Vec::new()))
    }

    /// Incidents that were resolved at `since` or later, oldest first: the same key may reopen them.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn resolved_since(&self, since: Time) -> Result<Vec<Incident>, Error> {
        let sql = "SELECT id, doc, hash FROM incidents WHERE resolved_at IS NOT NULL AND resolved_at >= ? ORDER BY resolved_at, id";
        self.read("reading incidents from", |c| list(c, "incident", sql, vec![since.0.into()]))
    }

    /// The timeline of an incident, in order.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn timeline(&self, incident_id: &str) -> Result<Vec<TimelineEntry>, Error> {
        let sql = "SELECT incident_id, doc, hash FROM timeline WHERE incident_id = ? ORDER BY revision, ordinal, rowid";
        self.read("reading a timeline from", |c| list(c, "timeline of", sql, vec![incident_id.to_owned().into()]))
    }

    /// Alarms, newest first, at most `limit` of them and 1,000: of one series or of all.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn alarms(&self, series: Option<SeriesId>, limit: usize) -> Result<Vec<StoredAlarm>, Error> {
        let condition = if series.is_some() { "WHERE series = ?" } else { "" };
        let values: Vec<Value> = series.iter().map(|s| s.0.cast_signed().into()).collect();
        let sql = format!("SELECT id, doc, hash FROM alarms {condition} ORDER BY at DESC, seq DESC LIMIT {}", limit.min(LIST_MAX));
        self.read("reading alarms from", |c| {
            let mut statement = c.prepare_cached(&sql)?;
            let rows: Vec<Raw> = statement.query_map(params_from_iter(values), raw)?.collect::<Result<_, _>>()?;
            rows.into_iter().map(|r| Ok(StoredAlarm { id: r.id.clone(), alarm: document("alarm", r)? })).collect()
        })
    }

    /// Forgets alarms of before `before`: retention. Must lie before the last snapshot, or a replay brings them back.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn prune_alarms(&self, before: Time) -> Result<usize, Error> {
        self.write("pruning alarms of", move |c| Ok(c.prepare_cached("DELETE FROM alarms WHERE at < ?1")?.execute([before.0])?))
    }
}

/// A document that is not read yet.
struct Raw {
    id: String,
    text: String,
    hash: i64,
}

fn raw(r: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw { id: r.get(0)?, text: r.get(1)?, hash: r.get(2)? })
}

fn document<T: serde::de::DeserializeOwned>(table: &'static str, raw: Raw) -> Result<T, Fault> {
    Document::read(table, &raw.id, &raw.text, raw.hash)
}

fn list<T: serde::de::DeserializeOwned>(c: &Connection, table: &'static str, sql: &str, values: Vec<Value>) -> Result<Vec<T>, Fault> {
    let mut statement = c.prepare_cached(sql)?;
    let rows: Vec<Raw> = statement.query_map(params_from_iter(values), raw)?.collect::<Result<_, _>>()?;
    rows.into_iter().map(|r| document(table, r)).collect()
}

fn parse_cursor(cursor: &str) -> Option<(i64, &str)> {
    let (opened, id) = cursor.split_once(':')?;
    Some((opened.parse().ok()?, id))
}

/// A commit as rows: everything that can be done in the caller's thread is done there.
struct Prepared {
    incidents: Vec<(Incident, Document)>,
    timeline: Vec<(TimelineEntry, Document)>,
    deliveries: Vec<NewDelivery>,
    alarms: Vec<(String, SeriesId, Time, Document)>,
    now: Time,
}

impl Prepared {
    fn of(commit: &Commit) -> Result<Prepared, Error> {
        let mut incidents =
            commit.incidents.iter().map(|i| Ok((i.clone(), Document::of("incident", &i.id, i)?))).collect::<Result<Vec<_>, Error>>()?;
        // Those that end leave their key to those that begin.
        incidents.sort_by_key(|(i, _)| i.state.is_live());
        Ok(Prepared {
            incidents,
            timeline: commit
                .timeline
                .iter()
                .map(|t| Ok((t.clone(), Document::of("timeline of", &t.incident_id, t)?)))
                .collect::<Result<_, Error>>()?,
            deliveries: commit.deliveries.iter().map(NewDelivery::of).collect::<Result<_, Error>>()?,
            alarms: commit
                .alarms
                .iter()
                .map(|(id, a)| Ok((id.clone(), a.series.id(), a.time, Document::of("alarm", id, a)?)))
                .collect::<Result<_, Error>>()?,
            now: commit.now,
        })
    }

    fn is_empty(&self) -> bool {
        self.incidents.is_empty() && self.timeline.is_empty() && self.deliveries.is_empty() && self.alarms.is_empty()
    }

    fn write(&self, c: &Connection) -> Result<Committed, Fault> {
        let mut done = Committed::default();
        for (incident, doc) in &self.incidents {
            done.incidents_changed += usize::from(put_incident(c, incident, doc)?);
        }
        for (entry, doc) in &self.timeline {
            put_entry(c, entry, doc)?;
        }
        for delivery in &self.deliveries {
            done.new_deliveries += outbox::insert(c, delivery, self.now)?;
        }
        for (id, series, at, doc) in &self.alarms {
            done.new_alarms += c
                .prepare_cached("INSERT INTO alarms (id, series, at, doc, hash) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO NOTHING")?
                .execute(params![id, series.0.cast_signed(), at.0, doc.text, doc.hash])?;
        }
        Ok(done)
    }
}

/// True when the row is new or its revision was smaller.
fn put_incident(c: &Connection, i: &Incident, doc: &Document) -> Result<bool, Fault> {
    let stored: Option<i64> = c.prepare_cached("SELECT revision FROM incidents WHERE id = ?1")?.query_row([&i.id], |r| r.get(0)).optional()?;
    // Looked up first and not left to an upsert: an old revision that was live must not meet today's live incident of its key.
    let sql = match stored {
        Some(revision) if revision.cast_unsigned() >= i.revision => return Ok(false),
        Some(_) => {
            "UPDATE incidents SET revision = ?2, environment = ?3, model = ?4, category = ?5, state = ?6, severity = ?7, opened_at = ?8,
             resolved_at = ?9, doc = ?10, hash = ?11 WHERE id = ?1"
        }
        None => {
            "INSERT INTO incidents (id, revision, environment, model, category, state, severity, opened_at, resolved_at, doc, hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
        }
    };
    let written = c.prepare_cached(sql)?.execute(params![
        i.id,
        i.revision.cast_signed(),
        i.key.environment,
        i.key.model,
        i.key.category.as_str(),
        i.state.as_str(),
        i.severity.level(),
        i.opened_at.0,
        i.resolved_at.map(|t| t.0),
        doc.text,
        doc.hash
    ]);
    match written {
        Ok(_) => Ok(true),
        Err(e) if is_constraint(&e) => Err(conflict(c, i, e)),
        Err(e) => Err(e.into()),
    }
}

/// Names the incident that holds the key.
fn conflict(c: &Connection, i: &Incident, error: rusqlite::Error) -> Fault {
    let sql = format!("SELECT id FROM incidents WHERE environment = ?1 AND model = ?2 AND category = ?3 AND {LIVE}");
    match c.query_row(&sql, [i.key.environment.as_str(), i.key.model.as_str(), i.key.category.as_str()], |r| r.get(0)) {
        Ok(live) => {
            let key = format!("{} {} {}", i.key.environment, i.key.model, i.key.category);
            Fault::Refused(Error::Conflict { key, live, refused: i.id.clone() })
        }
        Err(_) => Fault::Sql(error),
    }
}

fn put_entry(c: &Connection, e: &TimelineEntry, doc: &Document) -> Result<(), Fault> {
    let written = c
        .prepare_cached(
            "INSERT INTO timeline (incident_id, revision, ordinal, what, doc, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (incident_id, revision, ordinal, what) DO NOTHING",
        )?
        .execute(params![e.incident_id, e.revision.cast_signed(), e.ordinal, e.what, doc.text, doc.hash]);
    match written {
        Ok(_) => Ok(()),
        Err(error) if is_constraint(&error) => Err(Error::UnknownIncident { incident: e.incident_id.clone() }.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{alarm, delivery, entry, incident};
    use super::*;
    use crate::domain::IncidentState::{Acknowledged, Open, Resolved};
    use crate::domain::delivery::{DeliveryState, Notice};

    fn of(i: &Incident, notice: Notice) -> Commit {
        Commit {
            timeline: vec![entry(i, 0, notice.as_str()), entry(i, 1, "paged")],
            deliveries: vec![delivery(i, notice, "pager"), delivery(i, notice, "chat")],
            alarms: vec![(format!("a-{}-{}", i.id, i.revision), alarm(&i.key.model, i.updated_at.0))],
            incidents: vec![i.clone()],
            now: Time(77),
        }
    }

    /// Two lives of one key, one after the other.
    fn story() -> Vec<Commit> {
        vec![
            of(&incident("m", 0, 1, Open), Notice::Opened),
            of(&incident("m", 0, 2, Acknowledged), Notice::Acknowledged),
            of(&incident("m", 0, 3, Resolved), Notice::Resolved),
            of(&incident("m", 90_000_000, 1, Open), Notice::Opened),
        ]
    }

    fn everything(store: &Store) -> String {
        let (incidents, _) = store.incidents(&Filter::default()).unwrap();
        let rest: Vec<_> = incidents.iter().map(|i| (store.timeline(&i.id).unwrap(), store.deliveries_of(&i.id).unwrap())).collect();
        format!("{incidents:?} {rest:?} {:?}", store.alarms(None, 100).unwrap())
    }

    #[test]
    fn a_replay_changes_nothing() {
        let store = Store::memory().unwrap();
        for commit in story() {
            assert_eq!(store.commit(commit).unwrap(), Committed { incidents_changed: 1, new_deliveries: 2, new_alarms: 1 });
        }
        let c = store.claim(Time(80), 30_000, 1).unwrap().remove(0);
        store.settle(&c.delivery.id, 1, DeliveryState::Accepted, "202", None, Time(81)).unwrap();
        let before = everything(&store);
        for start in 0..4 {
            for commit in story().into_iter().skip(start) {
                assert_eq!(store.commit(commit).unwrap(), Committed::default(), "an old revision does not meet today's incident either");
            }
        }
        assert_eq!(everything(&store), before);
    }

    #[test]
    fn one_key_has_one_live_incident() {
        let store = Store::memory().unwrap();
        let (first, second) = (incident("m", 0, 1, Open), incident("m", 5, 1, Open));
        store.commit(of(&first, Notice::Opened)).unwrap();
        let before = everything(&store);
        match store.commit(of(&second, Notice::Opened)) {
            Err(Error::Conflict { live, refused, .. }) => assert_eq!((live, refused), (first.id.clone(), second.id.clone())),
            other => panic!("{other:?}"),
        }
        assert_eq!(everything(&store), before, "nothing of a refused commit stays");
        // The one ends and the other begins in the same commit, in whatever order they are named.
        let incidents = vec![second.clone(), incident("m", 0, 2, Resolved)];
        assert_eq!(store.commit(Commit { incidents, ..Commit::default() }).unwrap().incidents_changed, 2);
        assert_eq!(store.live_incidents().unwrap(), [second]);
        assert_eq!(store.resolved_since(Time(1_000)).unwrap().len(), 1);
        assert_eq!(store.resolved_since(Time(1_001)).unwrap().len(), 0);
    }

    #[test]
    fn lists_are_newest_first_and_come_in_pages() {
        let store = Store::memory().unwrap();
        for n in 0..25 {
            let state = if n % 2 == 0 { Open } else { Resolved };
            store.commit(Commit { incidents: vec![incident(&format!("m{n}"), n / 3, 1, state)], ..Commit::default() }).unwrap();
        }
        let mut filter = Filter { limit: 10, ..Filter::default() };
        let mut seen = Vec::new();
        loop {
            let (page, next) = store.incidents(&filter).unwrap();
            seen.extend(page.into_iter().map(|i| (i.opened_at, i.id)));
            filter.cursor = next;
            if filter.cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 25);
        assert!(seen.is_sorted_by(|a, b| a > b));
        let count = |f: Filter| store.incidents(&f).unwrap().0.len();
        assert_eq!(count(Filter { live: Some(true), ..Filter::default() }), 13);
        assert_eq!(count(Filter { live: Some(false), ..Filter::default() }), 12);
        assert_eq!(count(Filter { state: Some(Resolved), ..Filter::default() }), 12);
        assert_eq!(count(Filter { model: Some("m3".to_owned()), category: Some(Category::ModelFailure), ..Filter::default() }), 1);
        assert!(matches!(store.incidents(&Filter { cursor: Some("x".to_owned()), ..Filter::default() }), Err(Error::BadCursor { .. })));
    }

    #[test]
    fn alarms_are_found_by_series_and_forgotten_by_age() {
        let store = Store::memory().unwrap();
        let alarms = (0..10).map(|n| (format!("a{n}"), alarm(if n % 2 == 0 { "even" } else { "odd" }, n * 100))).collect();
        store.commit(Commit { alarms, ..Commit::default() }).unwrap();
        let even = store.alarms(Some(alarm("even", 0).series.id()), 3).unwrap();
        assert_eq!(even.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(), ["a8", "a6", "a4"]);
        assert_eq!(store.prune_alarms(Time(500)).unwrap(), 5);
        assert_eq!(store.alarms(None, 100).unwrap().len(), 5);
    }

    #[test]
    fn what_cannot_be_read_back_is_refused_at_writing() {
        let store = Store::memory().unwrap();
        let mut bad = alarm("m", 0);
        bad.change = Some(crate::domain::Change { before: f64::NAN, after: 1.0, low: 0.0, high: 1.0 });
        let commit = Commit { alarms: vec![("a".to_owned(), bad)], ..Commit::default() };
        assert!(matches!(store.commit(commit), Err(Error::Document { table: "alarm", .. })));
        let orphan = Commit { timeline: vec![entry(&incident("m", 0, 1, Open), 0, "opened")], ..Commit::default() };
        assert!(matches!(store.commit(orphan), Err(Error::UnknownIncident { .. })));
    }
}
