//! Who hears what a receiver would not take: `fallback: NAME` of a receiver, or the next one by its name.
//!
//! The chain must end: a message that goes in a circle reaches nobody. So circles are refused where they are written, and where
//! nothing is written nobody is chosen who leads back.

use std::collections::BTreeMap;

use super::check::{Checker, join};
use super::node::{Node, quoted};
use super::{ReceiverSettings, Settings, form};

/// The key that every receiver has beside those of its type.
pub const KEY: &str = "fallback";
pub const ABOUT: &str = "who hears what this receiver finally does not take; the next by name if left out";

impl Settings {
    /// By receiver, who hears what it would not take.
    pub fn fallbacks(&self) -> BTreeMap<String, String> {
        let takes: Vec<&String> = self.receivers.iter().filter(|(_, r)| !r.publishes).map(|(name, _)| name).collect();
        let named = self.receivers.iter().filter_map(|(name, r)| Some((name.clone(), r.fallback.clone()?)));
        let mut all: BTreeMap<String, String> = named.collect();
        for (i, name) in takes.iter().enumerate() {
            if !all.contains_key(*name)
                && let Some(next) = takes[i + 1..].iter().find(|next| !leads_to(&all, next, name))
            {
                all.insert((*name).clone(), (*next).clone());
            }
        }
        all
    }
}

/// Does the chain that begins with `from` come to `to`?
fn leads_to(all: &BTreeMap<String, String>, from: &str, to: &str) -> bool {
    let mut at = from;
    // A chain that is longer than there are links goes in a circle.
    for _ in 0..=all.len() {
        if at == to {
            return true;
        }
        match all.get(at) {
            Some(next) => at = next,
            None => return false,
        }
    }
    true
}

/// Complains about fallbacks that there are not, that take no messages, and about circles.
pub fn check(checker: &mut Checker<'_>, root: &Node, receivers: &BTreeMap<String, ReceiverSettings>) {
    let written: Vec<(&str, &Node)> = (root.get("receivers").map(Node::entries).unwrap_or_default().iter())
        .filter_map(|e| Some((e.name.as_str(), e.value.get(KEY)?)))
        .filter(|(_, node)| node.as_text().is_some_and(|t| !t.trim().is_empty()))
        .collect();
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, node) in &written {
        let to = node.as_text().unwrap_or_default();
        let path = join(&join("receivers", name), KEY);
        let mut refuse = |message: String, hint: Option<String>| checker.complain(&node.at, &path, node.found(), message, hint);
        if receivers.get(*name).is_some_and(|r| r.publishes) {
            refuse("this receiver is told again every minute what is open, and hands nothing on; leave it out".to_owned(), None);
        } else if to == *name {
            refuse(format!("{} cannot be its own fallback", quoted(name)), None);
        } else if let Some(other) = receivers.get(to) {
            if other.publishes {
                refuse(format!("{} is told what is open, and takes no messages; name one that does", quoted(to)), None);
            } else {
                all.insert((*name).to_owned(), to.to_owned());
            }
        } else {
            let others = || receivers.keys().map(String::as_str).filter(|n| n != name);
            let known = if others().next().is_none() {
                "there is no other".to_owned()
            } else {
                format!("known: {}", others().collect::<Vec<_>>().join(", "))
            };
            let hint = form::nearest(to, others()).map(str::to_owned);
            refuse(format!("unknown receiver {} ({known})", quoted(to)), hint);
        }
    }
    let mut told: Vec<String> = Vec::new();
    for (name, node) in &written {
        let Some(circle) = circle_of(&all, name).filter(|_| !told.iter().any(|t| t == name)) else { continue };
        let words = circle.iter().chain(circle.first()).map(String::as_str).collect::<Vec<_>>().join(" -> ");
        let message = format!("goes in a circle ({words}), so a message that nobody takes would reach nobody; let one of them be the last");
        checker.complain(&node.at, &join(&join("receivers", name), KEY), node.found(), message, None);
        told.extend(circle);
    }
}

/// The circle on which `name` lies.
fn circle_of(all: &BTreeMap<String, String>, name: &str) -> Option<Vec<String>> {
    let mut circle = vec![name.to_owned()];
    loop {
        let next = all.get(circle.last()?)?;
        if next == name {
            return Some(circle);
        }
        // Leads into a circle on which it does not lie itself.
        if circle.contains(next) {
            return None;
        }
        circle.push(next.clone());
    }
}
