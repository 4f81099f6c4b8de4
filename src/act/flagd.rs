//! flagd's own file of flags: another variant becomes the default one.
//!
//! The switch is `defaultVariant`, not `state: DISABLED`: a disabled flag makes every caller fall back to whatever its code says,
//! and nobody knows what that is. The file belongs to people, who have formatted it, so exactly the one value is replaced and every
//! other byte stays. flagd watches the folder; the new file takes the old one's place in one step.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use serde_json::value::RawValue;

use super::{Call, Kind, Provider, Reader, Set, Sight, wanted};
use crate::domain::Time;
use crate::domain::response::{Plan, Receipt};
use crate::notify::{Common, Form, Knob, Table};

/// Larger files of flags are not read.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

pub const KIND: Kind = Kind {
    name: "flagd",
    about: "a file of flags that flagd (OpenFeature) watches: another default variant",
    knobs: &[Knob { name: "file", about: "the file of flags, in JSON", form: Form::Text, required: true }],
    sets: &[Set { name: "variant", about: "the variant that becomes the default", words: &[] }],
    build,
};

struct Flagd {
    file: PathBuf,
}

fn build(_name: &str, _common: &Common, table: &Table) -> Result<Box<dyn Provider>, Vec<(String, String)>> {
    let mut r = Reader::new(table);
    let file = PathBuf::from(r.required("file"));
    if r.problems.is_empty() { Ok(Box::new(Flagd { file })) } else { Err(r.problems) }
}

/// One flag as it lies in the file.
struct Flag {
    text: String,
    default_variant: String,
    /// Of the quoted value within the text.
    place: Range<usize>,
    variants: Vec<String>,
    state: String,
}

impl Flagd {
    fn look(&self, key: &str) -> Result<Flag, String> {
        let name = self.file.display();
        let size = std::fs::metadata(&self.file).map_err(|e| format!("{name}: {e}"))?.len();
        if size > FILE_BYTES_MAX {
            return Err(format!("{name} has {size} bytes; at most {FILE_BYTES_MAX} are read"));
        }
        let text = std::fs::read_to_string(&self.file).map_err(|e| format!("{name}: {e}"))?;
        let bad = |e: serde_json::Error| format!("{name} is not a file of flags: {e}");
        let document: BTreeMap<String, &RawValue> = serde_json::from_str(&text).map_err(bad)?;
        let flags = document.get("flags").ok_or_else(|| format!("{name} has no member \"flags\""))?;
        let flags: BTreeMap<String, &RawValue> = serde_json::from_str(flags.get()).map_err(bad)?;
        let known = || flags.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let flag = flags.get(key).ok_or_else(|| format!("{name} has no flag {key:?} (known: {})", known()))?;
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(flag.get()).map_err(bad)?;
        let value = members.get("defaultVariant").ok_or_else(|| format!("flag {key:?} has no defaultVariant"))?.get();
        let default_variant: String = serde_json::from_str(value).map_err(|_| format!("the defaultVariant of flag {key:?} is no text"))?;
        let start = value.as_ptr() as usize - text.as_ptr() as usize;
        let place = start..start + value.len();
        let variants: BTreeMap<String, serde_json::Value> =
            members.get("variants").map(|v| serde_json::from_str(v.get())).transpose().map_err(bad)?.unwrap_or_default();
        let state = members.get("state").and_then(|s| serde_json::from_str(s.get()).ok()).unwrap_or_else(|| "ENABLED".to_owned());
        Ok(Flag { default_variant, place, variants: variants.into_keys().collect(), state, text: text.clone() })
    }

    /// The file with this variant as the flag's default, in one step.
    fn write(&self, flag: &Flag, variant: &str) -> std::io::Result<()> {
        let mut text = flag.text.clone();
        text.replace_range(flag.place.clone(), &serde_json::Value::from(variant).to_string());
        // The link's own target is replaced, not the link.
        let file = std::fs::canonicalize(&self.file)?;
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let beside = file.with_file_name(format!(".{name}.bellwether"));
        let permissions = std::fs::metadata(&file)?.permissions();
        let mut new = std::fs::File::create(&beside)?;
        new.write_all(text.as_bytes())?;
        new.set_permissions(permissions)?;
        new.sync_all()?;
        std::fs::rename(&beside, &file)
    }

    fn change(&self, key: &str, from: &str, to: &str) -> Receipt {
        let flag = match self.look(key) {
            Ok(flag) => flag,
            Err(words) => return Receipt::Refused(words),
        };
        if flag.default_variant != from {
            return Receipt::Moved(format!("the default variant of {key} is {:?}, not {from:?}", flag.default_variant));
        }
        match self.write(&flag, to) {
            Ok(()) => Receipt::Done(format!("{key}: default variant {from} -> {to}")),
            // Nothing takes the old file's place before the last step, and that one is whole or not at all.
            Err(why) => Receipt::Refused(format!("{} cannot be written: {why}", self.file.display())),
        }
    }
}

#[async_trait]
impl Provider for Flagd {
    async fn plan(&self, call: &Call<'_>, _now: Time) -> Result<Sight, String> {
        let (key, variant) = (&call.action.target, wanted(&call.action.set, "variant")?);
        let flag = self.look(key)?;
        if !flag.variants.iter().any(|v| v == variant) {
            return Err(format!("flag {key:?} has no variant {variant:?} (known: {})", flag.variants.join(", ")));
        }
        if flag.state != "ENABLED" {
            return Err(format!("flag {key:?} is {}: callers use what their code says, whatever the variant", flag.state));
        }
        Ok(Sight {
            request: format!("write {}: flags.{key}.defaultVariant = {variant:?}", self.file.display()),
            change: format!("{key}: default variant {} -> {variant}", flag.default_variant),
            is_noop: flag.default_variant == variant,
            version: flag.default_variant.clone(),
            before: flag.default_variant,
            can_undo: true,
        })
    }

    async fn apply(&self, call: &Call<'_>, plan: &Plan, _now: Time) -> Receipt {
        match wanted(&call.action.set, "variant") {
            Ok(variant) => self.change(&call.action.target, &plan.version, variant),
            Err(words) => Receipt::Refused(words),
        }
    }

    async fn read(&self, call: &Call<'_>, plan: &Plan, undone: bool, _now: Time) -> Result<(bool, String), String> {
        let flag = self.look(&call.action.target)?;
        let expected = if undone { plan.before.as_str() } else { wanted(&call.action.set, "variant")? };
        Ok((flag.default_variant == expected, format!("the default variant of {} is {}", call.action.target, flag.default_variant)))
    }

    async fn undo(&self, call: &Call<'_>, plan: &Plan, _now: Time) -> Receipt {
        match wanted(&call.action.set, "variant") {
            // Whoever chose a third variant since knows more than we do.
            Ok(variant) => self.change(&call.action.target, variant, &plan.before),
            Err(words) => Receipt::Refused(words),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::response::Action;

    const FLAGS: &str = "{\n  \"$schema\": \"x\",\n  \"flags\": {\n    \"other\": {\"defaultVariant\": \"main\"},\n    \"mode\": {\n      \"variants\": {\"main\": 1, \"safe\": 2},  \"defaultVariant\" : \"main\" ,\n      \"state\": \"ENABLED\"\n    }\n  }\n}\n";

    #[tokio::test]
    async fn one_value_changes_and_every_other_byte_stays() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("flags.json");
        std::fs::write(&file, FLAGS).unwrap();
        let flagd = Flagd { file: file.clone() };
        let incident = crate::notify::fixtures::incident();
        let action = |variant: &str| Action { using: "f".into(), target: "mode".into(), set: [("variant".to_owned(), variant.to_owned())].into() };
        let wanted = action("safe");
        let call = Call { id: "j", action: &wanted, incident: &incident, approved_by: vec![], plan: None };
        let sight = flagd.plan(&call, Time(0)).await.unwrap();
        assert_eq!((sight.before.as_str(), sight.is_noop, sight.change.as_str()), ("main", false, "mode: default variant main -> safe"));
        let plan = super::super::planned(&wanted, sight, 1_000, Time(0));
        assert!(!flagd.read(&call, &plan, false, Time(0)).await.unwrap().0);
        assert_eq!(flagd.apply(&call, &plan, Time(0)).await.as_str(), "done");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), FLAGS.replace("\"defaultVariant\" : \"main\"", "\"defaultVariant\" : \"safe\""));
        assert!(flagd.read(&call, &plan, false, Time(0)).await.unwrap().0);
        assert_eq!(flagd.apply(&call, &plan, Time(0)).await.as_str(), "moved", "the world is no longer as the plan saw it");
        assert_eq!(flagd.undo(&call, &plan, Time(0)).await.as_str(), "done");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), FLAGS);
        assert!(flagd.read(&call, &plan, true, Time(0)).await.unwrap().0);
        assert_eq!(flagd.undo(&call, &plan, Time(0)).await.as_str(), "moved");
        let unknown = action("off");
        let words = flagd.plan(&Call { action: &unknown, ..call }, Time(0)).await.unwrap_err();
        assert!(words.contains("known: main, safe"), "{words}");
    }
}
