//! Rows of a table, one after the other: CSV by RFC 4180 with its delimiter found out, or one JSON object a line; plain, gzip or
//! zstd, told by their first bytes.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::domain::Time;

/// Longest line of NDJSON.
const LINE_BYTES_MAX: u64 = 1 << 20;
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Levels of objects that become dotted names; what lies deeper is left out.
const DEPTH_MAX: usize = 4;
const DIMENSIONS_MAX: usize = 4_096;

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Missing,
    Number(f64),
    Bool(bool),
    Text(String),
    Vector(Vec<f32>),
}

pub type Row = [(String, Value)];

impl Value {
    pub fn number(&self) -> Option<f64> {
        if let Value::Number(n) = self { Some(*n) } else { None }
    }

    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Value::Missing => "".into(),
            Value::Number(n) => n.to_string().into(),
            Value::Bool(b) => if *b { "true" } else { "false" }.into(),
            Value::Text(text) => text.into(),
            Value::Vector(v) => format!("{v:?}").into(),
        }
    }

    /// RFC 3339, a day, day and time with a blank between, or an epoch number told by its magnitude; without a zone it is UTC.
    pub fn time(&self) -> Option<Time> {
        match self {
            Value::Number(n) => {
                let ms = match n.abs() {
                    a if a < 1e11 => n * 1e3,
                    a if a < 1e14 => *n,
                    a if a < 1e17 => n / 1e3,
                    _ => n / 1e6,
                };
                Some(Time(ms as i64))
            }
            Value::Text(text) => {
                let text = text.trim().replacen(' ', "T", 1);
                let text = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text };
                Time::parse_rfc3339(&text).or_else(|| Time::parse_rfc3339(&format!("{text}Z")))
            }
            Value::Missing | Value::Bool(_) | Value::Vector(_) => None,
        }
    }

    /// A cell of CSV.
    fn of_text(text: &str) -> Value {
        let trimmed = text.trim();
        if ["", "na", "nan", "null", "none"].iter().any(|m| trimmed.eq_ignore_ascii_case(m)) {
            return Value::Missing;
        }
        if let Some(n) = trimmed.parse::<f64>().ok().filter(|n| n.is_finite()) {
            return Value::Number(n);
        }
        match trimmed {
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            t if t.starts_with('[') => match serde_json::from_str::<Vec<f32>>(t) {
                Ok(v) if (1..=DIMENSIONS_MAX).contains(&v.len()) => Value::Vector(v),
                _ => Value::Text(text.to_owned()),
            },
            _ => Value::Text(text.to_owned()),
        }
    }

    fn of_json(value: &serde_json::Value) -> Option<Value> {
        Some(match value {
            serde_json::Value::Null => Value::Missing,
            serde_json::Value::Bool(b) => Value::Bool(*b),
            serde_json::Value::Number(n) => Value::Number(n.as_f64()?),
            serde_json::Value::String(s) => Value::Text(s.clone()),
            serde_json::Value::Array(all) => {
                let v: Option<Vec<f32>> = all.iter().map(|x| x.as_f64().map(|x| x as f32).filter(|x| x.is_finite())).collect();
                Value::Vector(v.filter(|v| (1..=DIMENSIONS_MAX).contains(&v.len()))?)
            }
            serde_json::Value::Object(_) => return None,
        })
    }
}

/// Hands every row over, in the order of the file.
///
/// # Errors
/// The file cannot be read, or is of another form; or what `take` says.
pub fn rows(path: &Path, take: &mut dyn FnMut(&Row) -> Result<(), String>) -> Result<(), String> {
    let broken = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let mut file = BufReader::new(File::open(path).map_err(broken)?);
    let head = file.fill_buf().map_err(broken)?;
    if head.starts_with(b"PAR1") {
        return Err(format!(
            "{} is Parquet, which is not read yet; write it as CSV or NDJSON first, as with: duckdb -c \"COPY '{0}' TO 'reference.csv'\"",
            path.display()
        ));
    }
    for (magic, what) in [(&b"WHY1"[..], "a whylogs profile"), (b"ARROW1", "Arrow IPC"), (b"SQLite format", "an SQLite database")] {
        if head.starts_with(magic) {
            return Err(format!("{} is {what}, which is not read; CSV and NDJSON are", path.display()));
        }
    }
    let mut plain: Box<dyn BufRead> = match head {
        [0x1f, 0x8b, ..] => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(file).map_err(broken)?)),
        _ => Box::new(file),
    };
    let head = plain.fill_buf().map_err(broken)?;
    let bom = if head.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    plain.consume(bom);
    let head = plain.fill_buf().map_err(broken)?;
    match head.iter().find(|b| !b.is_ascii_whitespace()) {
        None => Err(format!("{} is empty", path.display())),
        Some(b'{') => json_rows(plain, take),
        Some(_) => {
            let delimiter = delimiter_of(head);
            csv_rows(plain, delimiter, take)
        }
    }
}

/// The one that stands most often in the first line, outside quotes.
fn delimiter_of(head: &[u8]) -> u8 {
    let (mut quoted, mut counts) = (false, [0u32; 4]);
    for byte in head.iter().take_while(|b| **b != b'\n') {
        quoted ^= *byte == b'"';
        if let Some(at) = DELIMITERS.iter().position(|d| d == byte).filter(|_| !quoted) {
            counts[at] += 1;
        }
    }
    let most = (0..DELIMITERS.len()).max_by_key(|i| (counts[*i], std::cmp::Reverse(*i))).unwrap_or(0);
    DELIMITERS[most]
}

fn csv_rows(reader: impl Read, delimiter: u8, take: &mut dyn FnMut(&Row) -> Result<(), String>) -> Result<(), String> {
    let mut csv = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(reader);
    let names: Vec<String> = csv.headers().map_err(|e| e.to_string())?.iter().map(|n| n.trim().to_owned()).collect();
    if let Some(name) = names.iter().enumerate().find_map(|(i, n)| names[..i].contains(n).then_some(n)) {
        return Err(format!("the column {name:?} stands twice in the header"));
    }
    let mut record = csv::StringRecord::new();
    let mut row: Vec<(String, Value)> = names.into_iter().map(|n| (n, Value::Missing)).collect();
    while csv.read_record(&mut record).map_err(|e| e.to_string())? {
        for ((_, value), text) in row.iter_mut().zip(&record) {
            *value = Value::of_text(text);
        }
        take(&row)?;
    }
    Ok(())
}

fn json_rows(mut reader: impl BufRead, take: &mut dyn FnMut(&Row) -> Result<(), String>) -> Result<(), String> {
    let (mut text, mut line, mut row) = (String::new(), 0u64, Vec::new());
    loop {
        text.clear();
        line += 1;
        let n = reader.by_ref().take(LINE_BYTES_MAX + 1).read_line(&mut text).map_err(|e| format!("line {line}: {e}"))?;
        if n == 0 {
            return Ok(());
        }
        if n as u64 > LINE_BYTES_MAX {
            return Err(format!("line {line} is longer than {LINE_BYTES_MAX} bytes"));
        }
        if text.trim().is_empty() {
            continue;
        }
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).map_err(|e| format!("line {line} is no JSON object: {e}"))?;
        let is_event = object.get("kind").is_some_and(|k| k == "prediction");
        row.clear();
        flatten("", &object, 0, &mut row);
        if is_event {
            // In our own events a label is what the model said.
            row.iter_mut().filter(|(n, _)| n == "label").for_each(|r| r.0 = "prediction".to_owned());
        }
        take(&row)?;
    }
}

fn flatten(before: &str, object: &serde_json::Map<String, serde_json::Value>, depth: usize, row: &mut Vec<(String, Value)>) {
    for (name, value) in object {
        let name = if before.is_empty() { name.clone() } else { format!("{before}.{name}") };
        match value {
            serde_json::Value::Object(inner) if depth < DEPTH_MAX => flatten(&name, inner, depth + 1, row),
            other => row.extend(Value::of_json(other).map(|v| (name, v))),
        }
    }
}
