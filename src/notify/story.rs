//! An incident in words, for receivers that people read: chats, tickets and mail.
//!
//! Everybody is told the same story: what happened just now, then the facts, each with its name. How it is laid out is the
//! receiver's business; so is making it inert there, for names of models, segments and versions come from outside and may hold
//! anything. What leaves here is at least one line each: no line breaks, no control characters, nothing that turns the direction.

use super::{Common, cut};
use crate::domain::delivery::{Message, Notice};
use crate::domain::incident::Incident;
use crate::respond::duties;

/// Characters of one fact.
const FACT_CHARS_MAX: usize = 700;
/// Characters of the title.
const TITLE_CHARS_MAX: usize = 300;

pub struct Story {
    /// `[SEV2] loan-scorer prod: error rate 0.4 % → 3.1 %`
    pub headline: String,
    pub title: String,
    /// What happened just now, as a sentence.
    pub news: String,
    pub facts: Vec<(&'static str, String)>,
    /// The incident's page.
    pub url: Option<String>,
    pub incident: String,
}

impl Story {
    pub fn of(message: &Message, common: &Common, may_be_repeat: bool) -> Story {
        let incident = &message.incident;
        let title = line(&incident.title, TITLE_CHARS_MAX);
        let mut news = news(message);
        if may_be_repeat {
            news.push_str(" (This may be a repeat: the answer to an earlier attempt was lost.)");
        }
        Story {
            headline: format!("[SEV{}] {title}", incident.severity.level()),
            title,
            news,
            facts: facts(incident),
            url: common.incident_url(&incident.id),
            incident: incident.id.clone(),
        }
    }

    /// Lines of plain text.
    pub fn plain(&self) -> String {
        let mut out = format!("{}\n\n", self.news);
        for (name, text) in &self.facts {
            out.push_str(&format!("{name}: {text}\n"));
        }
        if let Some(url) = &self.url {
            out.push_str(&format!("Evidence: {url}\n"));
        }
        out
    }

    /// Lines of Markdown in which nothing from outside is markup, a mention, a link or a command.
    pub fn markdown(&self) -> String {
        let mut out = format!("{}\n\n", markdown(&self.news));
        for (name, text) in &self.facts {
            out.push_str(&format!("- **{name}**: {}\n", markdown(text)));
        }
        if let Some(url) = &self.url {
            out.push_str(&format!("\n[Evidence]({url})\n"));
        }
        out
    }
}

/// One line, not long, without control characters and marks that turn the direction.
pub fn line(text: &str, chars_max: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() || super::http::is_direction_mark(c) { ' ' } else { c }).collect();
    cut(&plain.split_whitespace().collect::<Vec<_>>().join(" "), chars_max)
}

/// Markdown's signs with a backslash before them; an `@` or `#` with a joiner behind it, since a backslash does not keep GitHub or
/// GitLab from telling somebody.
pub fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '|' | '~' | '!' | '$' => out.extend(['\\', c]),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '@' => out.push_str("@\u{2060}"),
            '#' => out.push_str("\\#\u{2060}"),
            _ => out.push(c),
        }
    }
    // Both are links wherever they stand.
    out.replace("://", ":\u{2060}//").replace("www.", "www\u{2060}.")
}

fn news(message: &Message) -> String {
    let incident = &message.incident;
    let since = format!("since {}", incident.onset.at.clock());
    match message.notice {
        Notice::Opened => format!("Opened with severity {}, {since}.", incident.severity.level()),
        Notice::Updated => "More is known.".to_owned(),
        Notice::Acknowledged => "Somebody has acknowledged it.".to_owned(),
        Notice::Escalated => format!("It became worse: severity {} now.", incident.severity.level()),
        Notice::Mitigated => "The harm has stopped.".to_owned(),
        Notice::Recovering => "It is recovering.".to_owned(),
        Notice::Resolved => match incident.closed_as {
            Some(how) => format!("Resolved as {}.", how.as_str().replace('_', " ")),
            None => "Resolved.".to_owned(),
        },
        Notice::Reopened => format!("It is back, {since}."),
        Notice::Merged => "Merged into another incident.".to_owned(),
        Notice::Suppressed => "Suppressed: it was no incident.".to_owned(),
        Notice::Reminder => format!("To be reported: {}. No legal advice.", duties::words(incident, message.at)),
    }
}

fn facts(incident: &Incident) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    let mut put = |name: &'static str, text: String| {
        let text = line(&text, FACT_CHARS_MAX);
        if !text.is_empty() {
            out.push((name, text));
        }
    };
    put("State", incident.state.as_str().replace('_', " "));
    put("Model", format!("{} in {}", incident.key.model, incident.key.environment));
    put("Since", incident.onset.at.rfc3339());
    put("Findings", incident.findings.iter().map(|f| f.headline.as_str()).collect::<Vec<_>>().join("; "));
    put("Segments", incident.segments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    put("Versions", incident.versions.join(", "));
    put("Severity because", incident.severity_reasons.iter().map(|a| a.answer.as_str()).collect::<Vec<_>>().join("; "));
    if let Some(users) = &incident.users_affected {
        put("Users affected", format!("about {:.0} ({:.0} to {:.0})", users.estimate, users.low, users.high));
    }
    if let Some(cause) = &incident.cause {
        let probability = cause.ranked.iter().find(|(c, _)| *c == cause.best).map_or(String::new(), |(_, p)| format!(" ({p:.2})"));
        put("Likely cause", format!("{}{probability}: {}", cause.best, cause.facts.join("; ")));
    }
    put("Suggested action", incident.action.clone());
    put("Incident", format!("{}, revision {}", incident.id, incident.revision));
    out
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{common, message};
    use super::*;

    #[test]
    fn the_story_is_told_in_lines() {
        let story = Story::of(&message(Notice::Opened), &common(), false);
        assert_eq!(story.headline, "[SEV2] loan-scorer prod: error rate 0.4 % → 3.1 %");
        assert_eq!(story.news, "Opened with severity 2, since 09:12 UTC.");
        let text = story.plain();
        assert!(text.contains("\nLikely cause: pipeline (0.71): version 2026-11-18 deployed 9 min before\n"), "{text}");
        assert!(text.ends_with("Evidence: https://bellwether.example/incidents/inc-01JD2QF3K8M4\n"));
        assert!(Story::of(&message(Notice::Opened), &common(), true).news.contains("may be a repeat"));
    }

    #[test]
    fn what_comes_from_outside_is_inert() {
        let mut m = message(Notice::Opened);
        m.incident.title = "a\r\nBcc: x\u{202e}\u{1b}[31m".to_owned();
        m.incident.versions = vec!["\n/close\n@everyone <script> [x](http://evil) #12".to_owned()];
        let story = Story::of(&m, &common(), false);
        assert_eq!(story.title, "a Bcc: x [31m");
        let text = story.markdown();
        assert!(!text.lines().any(|l| l.starts_with('/')), "no command of GitLab's: {text}");
        assert!(!text.contains("@everyone") && !text.contains("http://evil") && !text.contains("<script") && !text.contains(" [x]"), "{text}");
        assert_eq!(markdown("0.4 % → 3.1 %: a"), "0.4 % → 3.1 %: a");
    }
}
