//! Reference data: a table in which one row is one prediction becomes what the judge learns from.
//!
//! The rows go through the same counting as events from a topic (`pane`), so that a reference and the traffic that is held
//! against it cannot be counted in two ways. The file is read twice: once to see what its columns are, once to count. The road
//! not taken is to keep only a mean and a spread of every column: how panes differ among themselves decides what is evidence,
//! and that is lost in a summary.

mod table;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::Path;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::domain::observation::{Body, Envelope, FeatureValue, Prediction, Status};
use crate::domain::{Observation, Signal, Time};
use crate::judge::{Import, PANES_MAX, Provenance};
use crate::pane::{self, Exemplars, Outbound, Watch};
use table::Value;

/// A reference has at most so many rows and columns.
pub const ROWS_MAX: usize = 5_000_000;
pub const COLUMNS_MAX: usize = 2_048;
/// Rows of one pane, at least.
const PANE_ROWS_MIN: usize = 20;
/// Distinct values of a column are counted up to here.
const DISTINCT_MAX: usize = 10_000;
/// A column of numbers with no more distinct values, all of them whole, may be meant as classes.
const CLASSES_MAX: usize = 20;
/// Of so many rows a text column that hardly ever repeats itself is no category.
const TEXT_ROWS_MIN: u64 = 100;

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Timestamp,
    PredictionId,
    Prediction,
    Score,
    /// The truth; nothing is learned of it yet.
    Label,
    Latency,
    Cost,
    Status,
    Feature,
    /// Numbers that are names of classes.
    Category,
    Ignored,
}

/// What stands in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Empty,
    Number,
    Boolean,
    Text,
    Embedding,
}

/// One column as it was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    pub role: Role,
    pub missing: u64,
    /// Exact below 10,000.
    pub distinct: usize,
    /// What its owner should know.
    pub note: Option<&'static str>,
}

/// What is to be known beside the file.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Roles of columns that are not guessed.
    pub roles: BTreeMap<String, Role>,
    pub by: String,
    pub now: Time,
    pub pane_ms: i64,
}

pub struct Found {
    pub import: Import,
    pub columns: Vec<Column>,
}

// === impl Role ===

impl Role {
    pub const ALL: &[(&str, Role)] = &[
        ("timestamp", Role::Timestamp),
        ("prediction_id", Role::PredictionId),
        ("prediction", Role::Prediction),
        ("score", Role::Score),
        ("label", Role::Label),
        ("latency", Role::Latency),
        ("cost", Role::Cost),
        ("status", Role::Status),
        ("feature", Role::Feature),
        ("category", Role::Category),
        ("ignored", Role::Ignored),
    ];

    pub fn as_str(self) -> &'static str {
        Role::ALL.iter().find(|r| r.1 == self).map_or("ignored", |r| r.0)
    }

    /// As columns are usually named.
    fn guess(name: &str) -> Role {
        match name.to_ascii_lowercase().as_str() {
            "timestamp" | "ts" | "time" | "date" | "event_time" => Role::Timestamp,
            "id" | "request_id" | "identifier" | "prediction_id" => Role::PredictionId,
            "prediction" | "y_pred" => Role::Prediction,
            "y_pred_proba" | "score" | "prediction_proba" => Role::Score,
            "target" | "label" | "y_true" => Role::Label,
            "latency" | "latency_ms" => Role::Latency,
            "cost" | "cost_usd" => Role::Cost,
            "status" => Role::Status,
            "kind" | "model" | "version" | "environment" | "schema" | "trace_id" | "span_id" | "session_id" | "user" | "output" => Role::Ignored,
            other if other.starts_with("y_pred_proba_") || other.starts_with("segments.") || other.starts_with("groups.") => Role::Ignored,
            _ => Role::Feature,
        }
    }
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Empty => "empty",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::Text => "text",
            Kind::Embedding => "embedding",
        }
    }
}

/// What was seen of a column in the first reading.
#[derive(Default)]
struct Seen {
    present: u64,
    numbers: u64,
    whole: u64,
    booleans: u64,
    vectors: u64,
    distinct: HashSet<u64>,
}

impl Seen {
    fn kind(&self) -> Kind {
        match self.present {
            0 => Kind::Empty,
            n if n == self.numbers => Kind::Number,
            n if n == self.booleans => Kind::Boolean,
            n if n == self.vectors => Kind::Embedding,
            _ => Kind::Text,
        }
    }
}

/// Reads a reference.
///
/// # Errors
/// It cannot be read, is of another form, too large, or holds nothing to learn from; in words.
pub fn read(path: &Path, asked: &Asked) -> Result<Found, String> {
    let sha256 = hash_of(path)?;
    let hasher = RandomState::new();
    let (mut names, mut seen, mut times): (Vec<String>, Vec<Seen>, Vec<i64>) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows = 0usize;
    let role_of = |name: &str| asked.roles.get(name).copied().unwrap_or_else(|| Role::guess(name));
    table::rows(path, &mut |row| {
        rows += 1;
        if rows > ROWS_MAX {
            return Err(format!("more than {ROWS_MAX} rows; a sample of them says as much"));
        }
        for (i, (name, value)) in row.iter().enumerate() {
            // Most rows name their columns in the same order.
            let usual = names.get(i).filter(|n| *n == name).map(|_| i);
            let at = match usual.or_else(|| names.iter().position(|n| n == name)) {
                Some(at) => at,
                None if names.len() >= COLUMNS_MAX => return Err(format!("more than {COLUMNS_MAX} columns")),
                None => {
                    names.push(name.clone());
                    seen.push(Seen::default());
                    names.len() - 1
                }
            };
            let of = &mut seen[at];
            if matches!(value, Value::Missing) {
                continue;
            }
            of.present += 1;
            of.numbers += u64::from(matches!(value, Value::Number(_)));
            of.whole += u64::from(matches!(value, Value::Number(n) if n.fract() == 0.0));
            of.booleans += u64::from(matches!(value, Value::Bool(_)));
            of.vectors += u64::from(matches!(value, Value::Vector(_)));
            if of.distinct.len() < DISTINCT_MAX {
                of.distinct.insert(hasher.hash_one(value.text().as_ref()));
            }
            if role_of(name) == Role::Timestamp {
                match value.time() {
                    Some(time) => times.push(time.0),
                    None => return Err(format!("row {rows}: {:?} in column {name:?} is no time; is it one? --role {name}=ignored", value.text())),
                }
            }
        }
        Ok(())
    })?;
    if let Some(strange) = asked.roles.keys().find(|c| !names.contains(c)) {
        return Err(format!("there is no column {strange:?} (columns: {})", names.join(", ")));
    }
    if rows < PANE_ROWS_MIN {
        return Err(format!("{rows} rows are too few to learn from; at least {PANE_ROWS_MIN}"));
    }
    let columns: Vec<Column> = names.iter().zip(&seen).map(|(name, of)| column(name, of, rows as u64, role_of(name), asked)).collect();
    let import = gather(path, asked, sha256, rows, &columns, &times)?;
    Ok(Found { import, columns })
}

fn column(name: &str, of: &Seen, rows: u64, role: Role, asked: &Asked) -> Column {
    let kind = of.kind();
    let is_text =
        kind == Kind::Text && rows >= TEXT_ROWS_MIN && (of.distinct.len() >= DISTINCT_MAX || of.distinct.len() as u64 * 10 > 9 * of.present);
    let classes = kind == Kind::Number && of.whole == of.numbers && of.distinct.len() <= CLASSES_MAX;
    let (role, note) = match role {
        Role::Feature if kind == Kind::Empty => (Role::Ignored, Some("no value in it")),
        Role::Feature if is_text && !asked.roles.contains_key(name) => (Role::Ignored, Some("nearly every value differs: no category")),
        Role::Feature if classes => (role, Some("few whole numbers: judged as numbers; as classes with --role COLUMN=category")),
        Role::Label => (role, Some("the truth: nothing is learned of it yet")),
        _ => (role, None),
    };
    Column { name: name.to_owned(), kind, role, missing: rows - of.present, distinct: of.distinct.len(), note }
}

/// The second reading: rows become panes.
fn gather(path: &Path, asked: &Asked, sha256: String, rows: usize, columns: &[Column], times: &[i64]) -> Result<Import, String> {
    let panes = (rows / PANE_ROWS_MIN).clamp(1, PANES_MAX);
    let timed = times.len() == rows;
    // Places of the rows in the order of their times; as they stand where they have none.
    let mut place: Vec<u32> = (0..rows as u32).collect();
    if timed {
        let mut order: Vec<u32> = (0..rows as u32).collect();
        order.sort_by_key(|r| (times[*r as usize], *r));
        order.iter().enumerate().for_each(|(at, row)| place[*row as usize] = at as u32);
    }
    let pane_of = |row: usize| place[row] as usize * panes / rows;
    let mut starts: Vec<i64> = (0..panes).map(|i| i as i64 * asked.pane_ms).collect();
    if timed {
        starts.fill(i64::MAX);
        (0..rows).for_each(|row| starts[pane_of(row)] = starts[pane_of(row)].min(times[row]));
        (1..panes).for_each(|i| starts[i] = starts[i].max(starts[i - 1] + asked.pane_ms));
    }
    let mut watch = Watch::new(pane::Settings {
        pane_ms: 1_000,
        // All panes stay open until the last row.
        lateness_ms: PANES_MAX as i64 * 10_000,
        dimensions: Vec::new(),
        currency: "USD".to_owned(),
        exemplar_allow: Vec::new(),
        protected: BTreeMap::new(),
        limits: pane::Limits::default(),
        scan: None,
    });
    let (mut row, mut out) = (0usize, Vec::new());
    let by_name: BTreeMap<&str, &Column> = columns.iter().map(|c| (c.name.as_str(), c)).collect();
    table::rows(path, &mut |values| {
        if row >= rows {
            return Err("the file has grown while it was read".to_owned());
        }
        let mut p = Prediction { carries_features: true, ..Prediction::default() };
        for (name, value) in values {
            if let Some(column) = by_name.get(name.as_str()) {
                say(&mut p, column, value);
            }
        }
        let time = Time(pane_of(row) as i64 * 1_000);
        let envelope = Envelope {
            id: Some(format!("{}-{row}", &sha256[..16]).into()),
            time: Some(time),
            model: Some("reference".into()),
            ..Envelope::default()
        };
        let seen = Observation { envelope, body: Body::Prediction(Box::new(p)), faults: Vec::new() };
        row += 1;
        watch.handle(0, row as i64, time, &seen, &mut out);
        Ok(())
    })?;
    watch.finish(0, &mut out);
    let mut gathered = Vec::new();
    for sealed in out {
        let Outbound::Sealed(sealed) = sealed else { continue };
        for (_, mut cell) in sealed.cells {
            // Examples are for incidents: nothing of single people leaves the file.
            (cell.failed, cell.usual) = (Exemplars::default(), Exemplars::default());
            let start = starts.get((sealed.pane.0 / 1_000) as usize).copied().unwrap_or_default();
            gathered.push((Time(start), cell));
        }
    }
    let mut left_out = vec![Signal::Schema];
    if columns.iter().all(|c| c.role != Role::Status) {
        left_out.extend([Signal::ErrorRate, Signal::TimeoutRate]);
    }
    let file = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let span = |t: Option<&i64>| t.filter(|_| timed).map(|t| Time(*t));
    let provenance = Provenance {
        file,
        sha256,
        rows: rows as u64,
        from: span(times.iter().min()),
        to: span(times.iter().max()),
        importer: env!("CARGO_PKG_VERSION").to_owned(),
        at: asked.now,
        by: asked.by.clone(),
    };
    Ok(Import { provenance, slots: watch.slots().to_vec(), panes: gathered, left_out })
}

/// What one value says of a prediction.
fn say<'a>(p: &mut Prediction<'a>, column: &Column, value: &Value) {
    let owned = |text: Cow<'_, str>| -> Cow<'a, str> { Cow::Owned(text.into_owned()) };
    match column.role {
        Role::Timestamp | Role::PredictionId | Role::Label | Role::Ignored => {}
        Role::Latency => p.latency_ms = value.number().filter(|n| *n >= 0.0),
        Role::Cost => {
            p.cost = value.number().filter(|n| *n >= 0.0).map(|amount| crate::domain::observation::Cost { amount, currency: None });
        }
        Role::Score => p.score = value.number(),
        // A regression's answer is a number, a classifier's is one of a few.
        Role::Prediction if column.kind == Kind::Number && column.distinct > CLASSES_MAX => p.score = value.number(),
        Role::Prediction => p.label = (!matches!(value, Value::Missing)).then(|| owned(value.text())),
        Role::Status => {
            p.status = match value.text().to_ascii_lowercase().as_str() {
                "error" => Status::Error,
                "timeout" => Status::Timeout,
                "cancelled" => Status::Cancelled,
                "missing_response" => Status::MissingResponse,
                _ => Status::Ok,
            };
        }
        Role::Feature | Role::Category => {
            let value = match (column.kind, value) {
                (_, Value::Missing) => FeatureValue::Null,
                (Kind::Number, Value::Number(n)) if column.role == Role::Feature => FeatureValue::Number(*n),
                (Kind::Boolean, Value::Bool(b)) => FeatureValue::Bool(*b),
                (Kind::Embedding, Value::Vector(v)) => FeatureValue::Embedding(v.clone()),
                (_, other) => FeatureValue::Text(owned(other.text())),
            };
            // Canonical events keep features in an object of their own.
            let name = column.name.strip_prefix("features.").unwrap_or(&column.name);
            p.features.push((Cow::Owned(name.to_owned()), value));
        }
    }
}

fn hash_of(path: &Path) -> Result<String, String> {
    let mut file = std::fs::File::open(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0u8; 1 << 16]);
    loop {
        let n = file.read(&mut buffer).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        if n == 0 {
            return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect());
        }
        hash.update(&buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(roles: &[(&str, Role)]) -> Asked {
        Asked {
            roles: roles.iter().map(|(c, r)| ((*c).to_owned(), *r)).collect(),
            by: "anna".to_owned(),
            now: Time(1_793_577_600_000),
            pane_ms: 10_000,
        }
    }

    fn read_text(name: &str, text: &str, roles: &[(&str, Role)]) -> Result<Found, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        read(&file, &asked(roles))
    }

    #[test]
    fn columns_are_known_by_name_and_content_and_rows_are_put_in_order() {
        let mut text = String::from("\u{feff}ts;income;grade;purpose;y_pred;comment;nothing\n");
        for i in (0..400).rev() {
            let income = if i % 10 == 0 { "NA".to_owned() } else { format!("{}", 1_000.5 + f64::from(i)) };
            text += &format!("2026-10-01 00:{:02}:{:02};{income};{};\"car; new\";yes;unique {i};\n", i / 60, i % 60, i % 5);
        }
        let found = read_text("ref.csv", &text, &[("grade", Role::Category)]).unwrap();
        let told: Vec<_> = found.columns.iter().map(|c| (c.name.as_str(), c.kind, c.role, c.missing, c.distinct)).collect();
        assert_eq!(
            told,
            [
                ("ts", Kind::Text, Role::Timestamp, 0, 400),
                ("income", Kind::Number, Role::Feature, 40, 360),
                ("grade", Kind::Number, Role::Category, 0, 5),
                ("purpose", Kind::Text, Role::Feature, 0, 1),
                ("y_pred", Kind::Text, Role::Prediction, 0, 1),
                ("comment", Kind::Text, Role::Ignored, 0, 400),
                ("nothing", Kind::Empty, Role::Ignored, 400, 0),
            ]
        );
        let p = &found.import.provenance;
        assert_eq!((p.rows, p.from.map(|t| t.rfc3339()), p.file.as_str()), (400, Some("2026-10-01T00:00:00Z".to_owned()), "ref.csv"));
        assert_eq!(found.import.panes.len(), 20);
        assert!(found.import.panes.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(found.import.panes.iter().map(|p| p.1.predictions).sum::<u32>(), 400);
        let packed = found.import.pack().unwrap();
        assert_eq!(Import::unpack(&packed).unwrap(), found.import);
        assert!(Import::unpack(&packed[..packed.len() / 2]).is_err());
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_words() {
        for (name, text, words) in [
            ("a.parquet", "PAR1....", "Parquet"),
            ("a.csv", "a,b\n1,2\n", "too few"),
            ("a.csv", "", "empty"),
            ("a.ndjson", "{\"a\":1}\nnot json\n", "line 2"),
            ("a.csv", &format!("date,x\n{}", "soon,1\n".repeat(30)), "is no time"),
        ] {
            let e = read_text(name, text, &[]).err().unwrap();
            assert!(e.contains(words), "{name}: {e}");
        }
        assert!(read_text("a.csv", &format!("x\n{}", "1\n".repeat(30)), &[("y", Role::Score)]).err().unwrap().contains("no column \"y\""));
    }
}
