//! The log: one line per thing that matters to a person on call, to stderr. Text on a terminal, one JSON object a line otherwise.
//!
//! Names and values in a log line come from users' events, so a line must not be able to break out of itself: control characters
//! are written as escapes, in text as in JSON. That is also why the text has no colours of its own.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::str::FromStr;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    Text,
    Json,
}

impl Format {
    pub const NAMES: &'static [&'static str] = &["auto", "text", "json"];
}

impl FromStr for Format {
    type Err = Error;
    fn from_str(text: &str) -> Result<Format, Error> {
        match text {
            "auto" => Ok(Format::Auto),
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            _ => Err(Error::Format(text.to_owned())),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unknown log format {0:?} (known: auto, text, json)")]
    Format(String),
    #[error("log level {level:?}: {why}")]
    Level { level: String, why: String },
    #[error("the log has been started already")]
    Twice,
}

/// The running log, whose level can be changed by a reload.
#[derive(Clone)]
pub struct Handle(reload::Handle<EnvFilter, Registry>);

impl Handle {
    /// # Errors
    /// When `level` is no filter; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), Error> {
        let filter = filter(level)?;
        self.0.reload(filter).map_err(|e| Error::Level { level: level.to_owned(), why: e.to_string() })
    }
}

/// Starts the log of this process. `level`: `info`, or a filter such as `info,bellwether::source=debug`.
///
/// # Errors
/// When `level` is no filter, or a log has been started before.
pub fn start(level: &str, format: Format) -> Result<Handle, Error> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let as_json = match format {
        Format::Auto => !io::stderr().is_terminal(),
        Format::Text => false,
        Format::Json => true,
    };
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Inert(io::stderr()));
    let lines = if as_json { lines.fmt_fields(JsonFields::new()).event_format(JsonLine).boxed() } else { lines.boxed() };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| Error::Twice)?;
    Ok(Handle(handle))
}

fn filter(level: &str) -> Result<EnvFilter, Error> {
    EnvFilter::try_new(level).map_err(|e| Error::Level { level: level.to_owned(), why: e.to_string() })
}

/// Writes a line with its control characters escaped, save the end of line that the formatter sets.
struct Inert<W>(W);

impl<W: Write> Write for Inert<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let body = line.strip_suffix(b"\n").unwrap_or(line);
        if body.iter().any(|b| b.is_ascii_control() || *b == 0xc2) {
            let mut safe = String::with_capacity(line.len() + 16);
            for c in String::from_utf8_lossy(body).chars() {
                match c {
                    '\n' => safe.push_str("\\n"),
                    '\t' => safe.push('\t'),
                    // Right in text and within JSON's quotes alike; JSON's own escapes leave the second block as it is.
                    c if c.is_control() => safe.push_str(&format!("\\u{:04x}", u32::from(c))),
                    c => safe.push(c),
                }
            }
            self.0.write_all(safe.as_bytes())?;
        } else {
            self.0.write_all(body)?;
        }
        if body.len() < line.len() {
            self.0.write_all(b"\n")?;
        }
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// `{"timestamp","level","target","message","span":{…},"fields":{…}}`.
struct JsonLine;

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for JsonLine {
    fn format_event(&self, context: &FmtContext<'_, S, JsonFields>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Map::new();
        let now = jiff::Timestamp::now();
        line.insert("timestamp".into(), format!("{now:.6}").into());
        line.insert("level".into(), event.metadata().level().as_str().to_ascii_lowercase().into());
        line.insert("target".into(), event.metadata().target().into());
        line.insert("message".into(), fields.message.into());
        if let Some(span) = context.lookup_current() {
            let known = span.extensions();
            let own = known.get::<FormattedFields<JsonFields>>().and_then(|f| serde_json::from_str::<Map<String, Value>>(&f.fields).ok());
            let mut inner = own.unwrap_or_default();
            inner.insert("name".into(), span.name().into());
            line.insert("span".into(), inner.into());
        }
        if !fields.others.is_empty() {
            line.insert("fields".into(), fields.others.into());
        }
        writeln!(writer, "{}", Value::Object(line))
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) => drop(self.others.insert(name.to_owned(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        self.put(field, text.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::domain::Time;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);
    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Inert<Kept>;
        fn make_writer(&'a self) -> Inert<Kept> {
            Inert(self.clone())
        }
    }

    fn logged(as_json: bool) -> String {
        let kept = Kept::default();
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(kept.clone());
        let lines = if as_json { lines.fmt_fields(JsonFields::new()).event_format(JsonLine).boxed() } else { lines.boxed() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            let _inside = tracing::info_span!("poll", topic = "a").entered();
            tracing::warn!(model = %"evil\n\u{1b}[31mERROR \u{9b}2J", attempt = 3, "delivery failed");
        });
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_hostile_value_stays_in_its_line() {
        for as_json in [false, true] {
            let text = logged(as_json);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            assert!(!text.trim_end().chars().any(char::is_control), "{text:?}");
            assert!(text.contains("delivery failed"));
        }
    }

    #[test]
    fn a_json_line_has_its_shape() {
        let line: Value = serde_json::from_str(&logged(true)).unwrap();
        assert_eq!(line["level"], "warn");
        assert_eq!(line["message"], "delivery failed");
        assert_eq!(line["fields"]["attempt"], 3);
        assert_eq!(line["span"]["topic"], "a");
        assert!(Time::parse_rfc3339(line["timestamp"].as_str().unwrap()).is_some());
    }
}
