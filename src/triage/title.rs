//! The one line that is read aloud: how much before and after, since when, where, after what.
//!
//! A person woken at night hears this line before he sees a screen, so it holds no id, no score and no p-value, and it is
//! bounded by what one breath can carry.

use super::{Scene, clock, quoted, span};
use crate::domain::series::UNKNOWN;
use crate::domain::{Category, Signal};
use crate::judge::SLOW_DRIFT;

/// Longest title in characters.
pub(super) const CHARS_MAX: usize = 300;
/// Longest quoted headline in characters: room is left for where and after what.
const HEADLINE_CHARS_MAX: usize = 120;

/// `loan-scorer prod: error rate 0.4 % → 3.1 % since 09:12 UTC, region=eu, 9 min after version 2026-11-18`.
pub(super) fn say(scene: &Scene<'_>) -> String {
    let case = scene.case;
    let mut out = scene.model();
    if !case.key.environment.is_empty() && case.key.environment != UNKNOWN {
        out.push(' ');
        out.push_str(&quoted(&case.key.environment));
    }
    let Some(lead) = case.findings.first() else {
        return bounded(format!("{out}: {}", case.key.category.as_str().replace('_', " ")));
    };
    let headline: String = lead.headline.chars().map(|c| if c.is_control() { ' ' } else { c }).take(HEADLINE_CHARS_MAX).collect();
    // What happened once happened at a moment; what changed has changed since.
    let crept = matches!(&lead.series.signal, Signal::Rule(name) if name.starts_with(SLOW_DRIFT));
    let once = crept || lead.by_rule && lead.change.is_none() && matches!(case.key.category, Category::HarmfulOutput | Category::DataBreach);
    out.push_str(&format!(": {} {} {}", headline.trim(), if once { "at" } else { "since" }, clock(scene.onset, case.now)));
    let mut parts = scene.segments();
    parts.truncate(2);
    let deployed = scene.deployed.as_ref();
    match scene.versions().as_slice() {
        [one] if deployed.is_none_or(|d| d.version != Some(one)) => parts.push(format!("version {}", quoted(one))),
        _ => {}
    }
    if let Some(d) = deployed {
        let before = scene.onset.since_ms(d.time);
        let name = d.name();
        let what = if d.phase == "rolled_back" { format!("the rollback to {name}") } else { name };
        parts.push(if before < 0 { format!("about when {what} came") } else { format!("{} after {what}", span(before)) });
    }
    for part in parts {
        out.push_str(", ");
        out.push_str(&part);
    }
    bounded(out)
}

fn bounded(text: String) -> String {
    if text.chars().count() <= CHARS_MAX {
        return text;
    }
    let mut out: String = text.chars().take(CHARS_MAX - 1).collect();
    out.push('…');
    out
}
