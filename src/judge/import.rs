//! Imported references: what a team says is normal, learned before the first event comes.
//!
//! A reference is a history like any other: its rows are gathered to panes and the banks learn them with nothing to spend, so
//! that they know levels, shapes and how panes differ, exactly as if the rows had come through the topic. What they know is kept
//! by model and given to each of its series when that opens, or at once where it is open.

use std::io::Read;
use std::sync::Arc;

use base64::Engine as _;
use bellwether_detectors::evidence::Band;
use serde::{Deserialize, Serialize};

use super::line::thousands;
use super::reference::Reference;
use super::{Bank, Judge, Line, Settings};
use crate::domain::alarm::Unit;
use crate::domain::{DetectorState, GroupKey, Signal, Time};
use crate::pane::{Cell, Leaf, SlotName};

/// A reference that is unpacked is not larger.
const UNPACKED_BYTES_MAX: u64 = 256 << 20;
/// Panes of one reference.
pub const PANES_MAX: usize = 240;
/// References kept.
const TEMPLATES_MAX: usize = 2_000;
/// Lines that learn a reference must not be judged meanwhile.
const FOR_EVER_MS: i64 = 400 * 365 * crate::domain::time::DAY_MS;

/// Where a baseline comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Name of the file, without its folders.
    pub file: String,
    pub sha256: String,
    pub rows: u64,
    /// Of the rows' own times, where they have some.
    pub from: Option<Time>,
    pub to: Option<Time>,
    /// Version of what read it.
    pub importer: String,
    pub at: Time,
    pub by: String,
}

/// A reference, gathered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Import {
    pub provenance: Provenance,
    /// Names of the slots in the panes; the fixed ones first.
    pub slots: Vec<SlotName>,
    /// Start and content, oldest first.
    pub panes: Vec<(Time, Box<Cell>)>,
    /// What the rows say nothing of, though the panes look as if they did.
    pub left_out: Vec<Signal>,
}

/// What was learned from a reference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Template {
    pub model: String,
    /// None: of every environment.
    pub environment: Option<String>,
    pub provenance: Arc<Provenance>,
    pub lines: Vec<Learned>,
    #[serde(skip)]
    pub dirty: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Learned {
    pub signal: Signal,
    pub bank: Bank,
    pub unit: Unit,
    weight: f64,
    reference: Option<Box<Reference>>,
}

// === impl Provenance ===

impl Provenance {
    /// `ref.csv (sha256 9f86d081884c), 12,000 rows of 2026-10-01 to 2026-10-31, imported 2026-11-24 by anna with version 0.1.0`.
    pub fn words(&self) -> String {
        let day = |t: Time| t.rfc3339().chars().take(10).collect::<String>();
        let span = self.from.zip(self.to).map(|(from, to)| format!(" of {} to {}", day(from), day(to))).unwrap_or_default();
        let by = if self.by.is_empty() { String::new() } else { format!(" by {}", self.by) };
        let hash: String = self.sha256.chars().take(12).collect();
        format!(
            "{} (sha256 {hash}), {} rows{span}, imported {}{by} with version {}",
            self.file,
            thousands(self.rows as f64),
            day(self.at),
            self.importer
        )
    }
}

// === impl Import ===

impl Import {
    /// As text for the journal: postcard, zstd, base64.
    ///
    /// # Errors
    /// It cannot be encoded, which is a bug; told in words.
    pub fn pack(&self) -> Result<String, String> {
        let bytes = postcard::to_stdvec(self).map_err(|e| format!("a reference cannot be packed: {e}"))?;
        let small = zstd::bulk::compress(&bytes, 6).map_err(|e| format!("a reference cannot be packed: {e}"))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(small))
    }

    /// # Errors
    /// It is not what [`Import::pack`] wrote, or too large.
    pub fn unpack(text: &str) -> Result<Import, String> {
        let strange = |e: &dyn std::fmt::Display| format!("the reference cannot be unpacked: {e}; it was written by another version, or cut");
        let small = base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| strange(&e))?;
        let mut bytes = Vec::new();
        let reader = zstd::stream::read::Decoder::new(small.as_slice()).map_err(|e| strange(&e))?;
        reader.take(UNPACKED_BYTES_MAX).read_to_end(&mut bytes).map_err(|e| strange(&e))?;
        let import: Import = postcard::from_bytes(&bytes).map_err(|e| strange(&e))?;
        if !import.slots.starts_with(&SlotName::fixed()) || import.panes.len() > PANES_MAX || import.panes.windows(2).any(|w| w[0].0 >= w[1].0) {
            return Err(strange(&"its panes or slots are out of order"));
        }
        Ok(import)
    }

    /// What the banks make of it.
    fn learn(mut self, settings: &Settings, model: &str) -> Vec<Learned> {
        let mut judge = Judge::new(Settings { learn_ms: FOR_EVER_MS, ..settings.clone() });
        for (number, name) in self.slots.iter().enumerate().skip(judge.slots.len()) {
            judge.slot(number as u16, name.clone());
        }
        let leaf = Arc::new(Leaf { environment: "".into(), model: model.into(), version: "".into(), segments: Vec::new() });
        let (mut said, mut spare) = (Vec::new(), Vec::new());
        for (start, cell) in self.panes.drain(..) {
            let mut cells = judge.leaves.gather(std::iter::once((leaf.clone(), cell)), &mut spare);
            judge.pane(start, &mut cells, false, &mut said);
        }
        let lines = judge.groups.into_iter().filter(|g| g.key.is_roll_up()).flat_map(|g| g.lines);
        lines.filter(|l| is_taught(&l.bank) && !self.left_out.contains(&l.series.signal)).map(Learned::of).collect()
    }
}

/// Banks that a reference teaches; arrivals and sums over time are not told by a table of rows.
fn is_taught(bank: &Bank) -> bool {
    matches!(bank, Bank::Rate(_) | Bank::Bins(_) | Bank::Classes(_) | Bank::Embedding(_) | Bank::Joint(_))
}

impl Learned {
    fn of(line: Line) -> Learned {
        let mut learned = Learned { signal: line.series.signal, bank: line.bank, unit: line.unit, weight: line.weight, reference: line.reference };
        learned.bank.start_live();
        if let Bank::Joint(joint) = learned.bank {
            learned.bank = Bank::Joint(Box::new(joint.moved()));
        }
        if let Some(reference) = &mut learned.reference {
            reference.complete();
        }
        learned
    }

    pub fn state(&self) -> DetectorState {
        super::line::state_of(&self.bank)
    }

    pub fn baseline(&self) -> Option<Band> {
        self.bank.baseline()
    }

    fn teach(&self, line: &mut Line, provenance: &Arc<Provenance>, now: Time) {
        line.bank = self.bank.clone();
        line.reference.clone_from(&self.reference);
        line.learned_from = Some(provenance.clone());
        line.judged_from = now;
        (line.held, line.onset, line.expected, line.change) = (false, None, None, None);
        line.decided(now, "imported", provenance.words());
    }
}

// === impl Judge ===

impl Judge {
    /// A reference of a model in one environment, or in all: its open series know it from here on, others when they open.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn import(&mut self, model: &str, environment: Option<&str>, import: Import, now: Time) -> Result<(), String> {
        let provenance = Arc::new(import.provenance.clone());
        let lines = import.learn(&self.settings, model);
        if lines.is_empty() {
            return Err("nothing of the reference can be watched".to_owned());
        }
        let template = Template { model: model.to_owned(), environment: environment.map(str::to_owned), provenance, lines, dirty: true };
        let known = self.templates.iter().position(|t| t.model == model && t.environment.as_deref() == environment);
        let at = match known {
            Some(at) => at,
            None if self.templates.len() >= TEMPLATES_MAX => return Err(format!("{TEMPLATES_MAX} references are kept already")),
            None => {
                self.templates.push(template.clone());
                self.templates.len() - 1
            }
        };
        self.templates[at] = template;
        let template = &self.templates[at];
        for group in self.groups.iter_mut().filter(|g| g.key.is_roll_up() && template.is_of(&g.key)) {
            group.dirty = true;
            // What is out belongs to an incident, which says how it ends.
            for line in group.lines.iter_mut().filter(|l| !l.is_out) {
                if let Some(learned) = template.lines.iter().find(|l| l.is_of(&line.series.signal, &line.bank)) {
                    learned.teach(line, &template.provenance, now);
                }
            }
        }
        Ok(())
    }

    /// What a line that opens is to know from a reference.
    pub(super) fn teach(&self, line: &mut Line, now: Time) {
        let key = &line.series.group;
        if !key.is_roll_up() {
            return;
        }
        let fits = self.templates.iter().filter(|t| t.is_of(key));
        // That of the environment goes before that of all.
        let Some(template) = fits.max_by_key(|t| t.environment.is_some()) else { return };
        if let Some(learned) = template.lines.iter().find(|l| l.is_of(&line.series.signal, &line.bank)) {
            learned.teach(line, &template.provenance, now);
        }
    }

    /// Forgets what was learned of a model, or of one signal of it: its series learn anew.
    ///
    /// # Errors
    /// Nothing is known of it, or an incident is open.
    pub fn forget(&mut self, model: &str, environment: Option<&str>, signal: Option<&Signal>, now: Time) -> Result<(), String> {
        let is_it = |s: &Signal| signal.is_none_or(|asked| asked == s);
        let mut found = false;
        for template in self.templates.iter_mut().filter(|t| t.model == model && (environment.is_none() || t.environment.as_deref() == environment)) {
            let before = template.lines.len();
            template.lines.retain(|l| !is_it(&l.signal));
            template.dirty |= template.lines.len() != before;
            found |= template.lines.len() != before;
        }
        let of_model = |key: &GroupKey| *key.model == *model && environment.is_none_or(|e| *key.environment == *e);
        let out = self.groups.iter().filter(|g| of_model(&g.key)).flat_map(|g| &g.lines).find(|l| l.is_out && is_it(&l.series.signal));
        if let Some(line) = out {
            return Err(format!("an incident is open for {}; resolve it as new_normal and it is learned anew", line.series.signal.words()));
        }
        let learn_ms = self.settings.learn_ms;
        for g in 0..self.groups.len() {
            if !of_model(&self.groups[g].key) {
                continue;
            }
            for at in 0..self.groups[g].by_slot.len() {
                let (number, fed) = self.groups[g].by_slot[at].clone();
                let Some(name) = self.slots.get(usize::from(number)).cloned() else { continue };
                let wanted = self.wanted_of(&name, g, false);
                let group = &mut self.groups[g];
                for l in fed {
                    let line = &mut group.lines[usize::from(l)];
                    let Some((_, bank)) = wanted.iter().find(|(s, b)| *s == line.series.signal && b.name() == line.bank.name()) else { continue };
                    if is_it(&line.series.signal) && is_taught(&line.bank) {
                        line.forget(bank.clone(), now, learn_ms);
                        (group.dirty, found) = (true, true);
                    }
                }
            }
            let joint = self.joint_bank();
            let group = &mut self.groups[g];
            for line in group.lines.iter_mut().filter(|l| matches!(l.bank, Bank::Joint(_)) && is_it(&l.series.signal)) {
                line.forget(joint.clone(), now, learn_ms);
                (group.dirty, found) = (true, true);
            }
        }
        let what = signal.map_or_else(String::new, |s| format!(" in its signal {s}"));
        if found { Ok(()) } else { Err(format!("nothing is known of the model {model:?}{what}")) }
    }

    pub fn templates(&self) -> &[Template] {
        &self.templates
    }

    /// How many more events a learned line needs to see a change that is worth a page.
    pub fn needs_events(&self, learned: &Learned) -> f64 {
        learned.bank.sees(self.budget.share(learned.weight)).needs_events
    }
}

impl Template {
    fn is_of(&self, key: &GroupKey) -> bool {
        *key.model == *self.model && self.environment.as_deref().is_none_or(|e| *key.environment == *e)
    }
}

impl Learned {
    fn is_of(&self, signal: &Signal, bank: &Bank) -> bool {
        self.signal == *signal && self.bank.name() == bank.name()
    }
}
