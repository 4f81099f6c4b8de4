//! From bytes to an [`Observation`]: the only place where a producer's bytes are believed or not.
//!
//! Think of a customs desk. A parcel that cannot be opened is sent back with a word from a closed list ([`Reason`]) and a
//! sentence that helps its sender ([`Reject::detail`]). A parcel with one broken cup in it goes through without the cup, and
//! the broken cup is written down ([`Observation::faults`]). So a bad field costs the field and a bad event costs the event;
//! nothing costs the stream.
//!
//! Both forms end in the same [`draft::Draft`]: canonical events are read into it in one pass without copying; mapped events
//! are read into a borrowed tree and each member is fetched from there. The obvious design, an enum tagged with `kind`, was
//! not taken: serde buffers the whole object until it has seen the tag, which costs a quarter of the speed.
//!
//! A format is one file and one entry in [`KINDS`].

use crate::domain::{Observation, Time};

pub mod canonical;
mod draft;
mod hints;
pub mod kcat;
mod limits;
pub mod mapping;
mod member;
mod path;
mod scalar;
pub mod siphash;
#[cfg(test)]
mod tests;

pub use hints::Hint;
pub use mapping::{Mapping, MappingError, MappingFault};

/// Longest [`Reject::detail`], in bytes.
pub const DETAIL_BYTES_MAX: usize = 512;

/// Why a whole record was refused. A closed set: it is a metric label and a header of the dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    NotUtf8,
    BadJson,
    BadFrame,
    UnknownSchema,
    SchemaMismatch,
    MissingField,
    BadTime,
    TooLarge,
    TooDeep,
    UnknownKind,
}

/// A refused record: the reason for machines, the sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.as_str())]
pub struct Reject {
    pub reason: Reason,
    /// What is wrong, where, and what would be right. At most [`DETAIL_BYTES_MAX`] bytes, control characters escaped.
    pub detail: String,
}

/// The bounds of decoding. Every bound that was met is visible, as a [`Reject`] or as a fault of the field.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Key of the hash that replaces user names. Stable over restarts, or counts of affected users start anew.
    pub user_key: [u8; 16],
    /// Above it the event is refused (`too_large`).
    pub max_event_bytes: usize,
    /// Text is kept up to here, cut on a character boundary.
    pub max_text_bytes: usize,
    /// `output` is handed on up to here, because it is searched for canaries before it is cut.
    pub text_read_bytes: usize,
    /// Deepest nesting of objects and arrays; beyond it the event is refused (`too_deep`).
    pub max_depth: usize,
    /// Most members at the top of an event; beyond it the event is refused (`too_large`).
    pub max_keys: usize,
    /// Most entries read from `features` and from the other objects with free names; the rest is dropped and counted.
    pub max_features: usize,
}

/// A format of events, as `bellwether kinds` lists it.
pub struct Kind {
    pub name: &'static str,
    pub about: &'static str,
    pub knobs: &'static [Knob],
    pub build: fn(Settings, Option<&Mapping>) -> Result<Decoder, MappingError>,
}

/// A setting of a format.
pub struct Knob {
    pub name: &'static str,
    pub about: &'static str,
    pub required: bool,
}

/// Every format, one file each.
pub static KINDS: &[Kind] = &[canonical::KIND, mapping::KIND];

/// One topic's decoder. Compiled once, then shared by threads.
pub struct Decoder {
    settings: Settings,
    form: Form,
    hints: hints::Hints,
}

enum Form {
    Canonical,
    Mapped(mapping::Plan),
}

// === impl Decoder ===

impl Decoder {
    /// For Bellwether's own events.
    pub fn canonical(settings: Settings) -> Decoder {
        Decoder { settings, form: Form::Canonical, hints: hints::Hints::default() }
    }

    /// For JSON of the user's own shape.
    ///
    /// # Errors
    /// Everything that is wrong with the mapping, each with its key.
    pub fn mapped(settings: Settings, mapping: &Mapping) -> Result<Decoder, MappingError> {
        let plan = mapping::Plan::compile(mapping)?;
        Ok(Decoder { settings, form: Form::Mapped(plan), hints: hints::Hints::default() })
    }

    /// Reads one record. `record_time` is when the source received it (Kafka's record time, a file's time); an event that
    /// claims to be more than five minutes younger is moved there. `pinned_kind` serves where the event names no kind.
    ///
    /// # Errors
    /// The reason why nothing of this record can be used.
    pub fn decode<'a>(&self, payload: &'a [u8], record_time: Time, pinned_kind: Option<&str>) -> Result<Observation<'a>, Reject> {
        let text = limits::open(payload, &self.settings)?;
        let (draft, time_required) = match &self.form {
            Form::Canonical => (canonical::read(text, &self.settings, &self.hints)?, false),
            Form::Mapped(plan) => (plan.read(text, &self.settings)?, plan.time_required),
        };
        draft.finish(&draft::Ending { record_time, pinned_kind, time_required })
    }

    /// Members that no kind of event has, each with the known name it may have been meant to be. Sorted by name.
    pub fn hints(&self) -> Vec<Hint> {
        self.hints.list()
    }
}

// === impl Reason ===

impl Reason {
    pub const ALL: &'static [Reason] = &[
        Reason::NotUtf8,
        Reason::BadJson,
        Reason::BadFrame,
        Reason::UnknownSchema,
        Reason::SchemaMismatch,
        Reason::MissingField,
        Reason::BadTime,
        Reason::TooLarge,
        Reason::TooDeep,
        Reason::UnknownKind,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Reason::NotUtf8 => "not_utf8",
            Reason::BadJson => "bad_json",
            Reason::BadFrame => "bad_frame",
            Reason::UnknownSchema => "unknown_schema",
            Reason::SchemaMismatch => "schema_mismatch",
            Reason::MissingField => "missing_field",
            Reason::BadTime => "bad_time",
            Reason::TooLarge => "too_large",
            Reason::TooDeep => "too_deep",
            Reason::UnknownKind => "unknown_kind",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Reject ===

impl Reject {
    /// Bounds the detail and makes it harmless on a terminal and in a log.
    pub fn new(reason: Reason, detail: impl AsRef<str>) -> Reject {
        let mut clean = String::new();
        for c in detail.as_ref().chars() {
            let before = clean.len();
            if c.is_control() {
                clean.extend(c.escape_default());
            } else {
                clean.push(c);
            }
            if clean.len() > DETAIL_BYTES_MAX {
                clean.truncate(before);
                break;
            }
        }
        Reject { reason, detail: clean }
    }
}

// === impl Settings ===

impl Settings {
    /// The documented bounds, with this key for the hash of users.
    pub fn new(user_key: [u8; 16]) -> Settings {
        Settings {
            user_key,
            max_event_bytes: 1024 * 1024,
            max_text_bytes: 4 * 1024,
            text_read_bytes: 64 * 1024,
            max_depth: 32,
            max_keys: 2_048,
            max_features: 2_048,
        }
    }
}

/// At most 64 bytes of a producer's text, for quoting it in a sentence.
fn excerpt(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}
