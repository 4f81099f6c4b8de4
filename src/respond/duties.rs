//! What only people can do: send a text to those who are affected, and report to an authority in time.
//!
//! The machine keeps the papers like a registrar. It lays drafts out, and writes down who changed one and who sent it to whom. It
//! counts the time of duties to report, reminds at half of it and an hour before its end, and says when it is over. It never says
//! that a law applies: a clock is *suggested* until a person has started, met or waived it, with his reason. A deadline does not end
//! with the incident, so this goes on after it is resolved; a false alarm alone ends it.

use serde::{Deserialize, Serialize};

use crate::domain::delivery::Notice;
use crate::domain::incident::{Actor, Incident};
use crate::domain::response::{Approval, Decided, Draft, Response, Sent, Timer, TimerKind};
use crate::domain::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use crate::domain::{ClockState, ClosedAs, Time};

/// Ways that one text went.
const SENT_MAX: usize = 20;
/// A clock that runs longer than twice this is spoken of once more so long before its end, milliseconds.
const LAST_CALL_MS: i64 = HOUR_MS;

/// What somebody does with the papers of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DutyCommand {
    /// Another text for a draft. An empty name is the only one.
    Edit { by: String, draft: String, text: String },
    /// It went out, by his hand.
    Sent { by: String, draft: String, to: String },
    /// A person's word on a clock. `from`: since when it runs, if not since the incident was found.
    Clock { by: String, clock: String, to: ClockState, why: String, from: Option<Time> },
}

/// What happened to a paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dutied {
    pub by: Actor,
    /// One word for the timeline.
    pub what: String,
    pub words: String,
    pub paper: Paper,
    /// Who hears of it: these, or whoever the routes name if there are none.
    pub tells: Option<(Notice, Vec<String>)>,
}

/// As it is from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Paper {
    Draft(Draft),
    Clock(Timer),
}

// === impl Dutied ===

impl Dutied {
    /// The papers after it.
    pub fn apply(&self, response: &mut Response) {
        match &self.paper {
            Paper::Draft(new) => response.drafts.iter_mut().filter(|d| d.name == new.name).for_each(|d| d.clone_from(new)),
            Paper::Clock(new) => response.timers.iter_mut().filter(|t| t.clock() == new.clock()).for_each(|t| t.clone_from(new)),
        }
    }
}

/// What follows from a command, or why not.
///
/// # Errors
/// In words for the person.
pub fn decide(incident: &Incident, command: DutyCommand, now: Time) -> Result<Dutied, String> {
    match command {
        DutyCommand::Edit { by, draft, text } => {
            let old = draft_of(incident, &draft)?;
            if text.trim().is_empty() {
                return Err(format!("draft {:?} would be empty; what is not sent need not be changed", old.name));
            }
            let words =
                if old.sent.is_empty() { format!("draft {}", old.name) } else { format!("draft {}; it has been sent as it was before", old.name) };
            let edited = Some(Approval { by: by.clone(), at: now });
            let paper = Paper::Draft(Draft { text, edited, ..old.clone() });
            Ok(Dutied { by: Actor::Person(by), what: "draft_edited".to_owned(), words, paper, tells: None })
        }
        DutyCommand::Sent { by, draft, to } => {
            let old = draft_of(incident, &draft)?;
            if to.trim().is_empty() {
                return Err("to whom was it sent?".to_owned());
            }
            if old.sent.len() >= SENT_MAX {
                return Err(format!("draft {:?} was sent {SENT_MAX} times; a note takes the rest", old.name));
            }
            let mut new = old.clone();
            new.sent.push(Sent { by: by.clone(), at: now, to: to.trim().to_owned(), text: old.text.clone() });
            let words = format!("draft {}, to {}", old.name, to.trim());
            Ok(Dutied { by: Actor::Person(by), what: "draft_sent".to_owned(), words, paper: Paper::Draft(new), tells: None })
        }
        DutyCommand::Clock { by, clock, to, why, from } => decide_clock(incident, by, &clock, to, why, from, now),
    }
}

fn decide_clock(incident: &Incident, by: String, clock: &str, to: ClockState, why: String, from: Option<Time>, now: Time) -> Result<Dutied, String> {
    let old = clock_of(incident, clock)?;
    if let Some(into) = &incident.merged_into {
        return Err(format!("incident {} is told by {into}: its clocks are counted there", incident.id));
    }
    let name = old.clock().unwrap_or_default().to_owned();
    if from.is_some() && to != ClockState::Started {
        return Err("only a clock that is started has a beginning".to_owned());
    }
    if from.is_some_and(|t| t > now) {
        return Err("a clock cannot have begun in the future".to_owned());
    }
    match to {
        ClockState::Suggested => return Err("a clock is started, met or waived by a person; suggested it is by itself".to_owned()),
        ClockState::Met | ClockState::Waived if why.trim().is_empty() => {
            return Err(format!("why is {name} {to}? the reason is kept; it is what will be asked for"));
        }
        ClockState::Met | ClockState::Waived if !old.standing.state.runs() => return Err(format!("clock {name} is {} already", old.standing.state)),
        ClockState::Started | ClockState::Met | ClockState::Waived => {}
    }
    let mut new = old.clone();
    if to == ClockState::Started {
        let due = from.map(|t| t.plus_ms(old.after_ms)).or(old.due).unwrap_or(now.plus_ms(old.after_ms));
        new.due = Some(due);
        // What was said of another deadline was not said of this one.
        new.standing.reminded = if Some(due) == old.due { old.standing.reminded } else { passed(&new, now) };
    }
    new.standing.state = to;
    new.standing.decided = Some(Decided { by: by.clone(), at: now, why: why.clone() });
    let due = new.due.filter(|_| to.runs()).map(|d| format!(", due {}", d.rfc3339())).unwrap_or_default();
    let because = if why.is_empty() { String::new() } else { format!(": {why}") };
    // Whoever was called after the incident was over has nothing else that ends his alert.
    let over = !to.runs() && !incident.state.is_live() && old.standing.reminded > 0;
    let tells = over.then(|| (Notice::Resolved, old.tells()));
    Ok(Dutied { by: Actor::Person(by), what: format!("clock_{to}"), words: format!("{name}{due}{because}"), paper: Paper::Clock(new), tells })
}

fn draft_of<'a>(incident: &'a Incident, name: &str) -> Result<&'a Draft, String> {
    let all = &incident.response.drafts;
    match (name, all.as_slice()) {
        ("", [only]) => Ok(only),
        (_, []) => Err(format!("incident {} has no draft", incident.id)),
        (name, all) => all.iter().find(|d| d.name == name).ok_or_else(|| {
            let known = all.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ");
            format!("incident {} has no draft {name:?} (known: {known})", incident.id)
        }),
    }
}

fn clock_of<'a>(incident: &'a Incident, name: &str) -> Result<&'a Timer, String> {
    let all: Vec<&Timer> = incident.response.timers.iter().filter(|t| t.clock().is_some()).collect();
    match (name, all.as_slice()) {
        ("", [only]) => Ok(only),
        (_, []) => Err(format!("incident {} has no clock; escalation.clocks and a model's exposure start them", incident.id)),
        (name, all) => all.iter().copied().find(|t| t.clock() == Some(name)).ok_or_else(|| {
            let known = all.iter().filter_map(|t| t.clock()).collect::<Vec<_>>().join(", ");
            format!("incident {} has no clock {name:?} (known: {known})", incident.id)
        }),
    }
}

// === the clock ===

/// Moments of a clock at which it speaks: at half of its time, an hour before its end, and at its end.
fn moments(timer: &Timer) -> Vec<Time> {
    let Some(due) = timer.due else { return Vec::new() };
    let last_call = (timer.after_ms > 2 * LAST_CALL_MS).then(|| due.plus_ms(-LAST_CALL_MS));
    [Some(due.plus_ms(-timer.after_ms / 2)), last_call, Some(due)].into_iter().flatten().collect()
}

fn passed(timer: &Timer, now: Time) -> u32 {
    moments(timer).iter().filter(|t| **t <= now).count() as u32
}

/// Does its time still run?
pub fn is_running(incident: &Incident, timer: &Timer) -> bool {
    // Of what is told elsewhere, the clocks are counted there.
    let is_over = incident.closed_as == Some(ClosedAs::FalseAlarm) || incident.merged_into.is_some();
    timer.clock().is_some() && timer.standing.state.runs() && !is_over
}

/// Clocks of an incident that is told elsewhere from now on are counted there: each once, by its name. A deadline does not move because
/// it is told elsewhere, so of two that run the earlier one holds. `from` is the incident that they began with.
pub fn take_over(own: &mut Vec<Timer>, others: &[Timer], from: Option<&str>) {
    for other in others.iter().filter(|t| t.clock().is_some()) {
        let Some(known) = own.iter_mut().find(|t| t.clock() == other.clock()) else {
            let mut taken = other.clone();
            taken.standing.begun_with = taken.standing.begun_with.or(from.map(str::to_owned));
            own.push(taken);
            continue;
        };
        let (mine, theirs) = (known.standing.clone(), &other.standing);
        match (mine.state.runs(), theirs.state.runs()) {
            // What a person has met or waived for one of them is not met for the other.
            (_, false) => {}
            (false, true) => {
                // Who is reminded is told by the configuration of now.
                (known.after_ms, known.due, known.standing) = (other.after_ms, other.due, theirs.clone());
            }
            (true, true) => {
                if other.due.is_some_and(|due| known.due.is_none_or(|own| due < own)) {
                    (known.after_ms, known.due, known.standing) = (other.after_ms, other.due, theirs.clone());
                }
                let said = if mine.state == ClockState::Started { &mine } else { theirs };
                (known.standing.state, known.standing.decided) = (said.state, said.decided.clone());
            }
        }
    }
}

/// What is to be said of clocks by now, once each. Whoever slept through several moments says the last.
pub fn remind(incident: &Incident, now: Time) -> Vec<Dutied> {
    let running = incident.response.timers.iter().filter(|t| is_running(incident, t) && passed(t, now) > t.standing.reminded);
    let spoken = running.map(|timer| {
        let mut new = timer.clone();
        new.standing.reminded = passed(timer, now);
        let words = format!("{}: {}", timer.clock().unwrap_or_default(), left(timer, now));
        let tells = Some((Notice::Reminder, timer.tells()));
        Dutied { by: Actor::Bellwether, what: "clock_reminder".to_owned(), words, paper: Paper::Clock(new), tells }
    });
    spoken.collect()
}

/// Clocks that go on although the incident that they began with has made room for a new one of its kind.
pub fn carried(old: &Incident) -> Vec<Timer> {
    let running = old.response.timers.iter().filter(|t| t.due.is_some() && is_running(old, t)).cloned();
    running
        .map(|mut timer| {
            timer.standing.begun_with.get_or_insert_with(|| old.id.clone());
            timer
        })
        .collect()
}

/// `36 h are left, until 2026-12-02T09:00:00Z; whether it applies is for a person to say`.
pub fn left(timer: &Timer, now: Time) -> String {
    let open = if timer.standing.state == ClockState::Suggested { "; whether it applies is for a person to say" } else { "" };
    match timer.due {
        Some(due) if due > now => format!("{} are left, until {}{open}", span(due.since_ms(now)), due.rfc3339()),
        Some(due) => format!("its time is over since {}{open}", due.rfc3339()),
        None => format!("its time is {}{open}", span(timer.after_ms)),
    }
}

/// `2 d 13 h`, `3 h 59 min`, `12 min`, `40 s`.
pub fn span(ms: i64) -> String {
    let (days, hours, minutes) = (ms / DAY_MS, ms % DAY_MS / HOUR_MS, ms % HOUR_MS / MINUTE_MS);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{} s", ms / 1_000),
        (0, 0, m) => format!("{m} min"),
        (0, h, m) => format!("{h} h {m} min"),
        (d, h, _) => format!("{d} d {h} h"),
    }
}

/// What a message says of the clocks of its incident; empty if none runs.
pub fn words(incident: &Incident, now: Time) -> String {
    let line = |t: &Timer| match &t.what {
        TimerKind::Legal { name, words, .. } => format!("{name} ({words}): {}", left(t, now)),
        TimerKind::Escalate { .. } => String::new(),
    };
    incident.response.timers.iter().filter(|t| is_running(incident, t)).map(line).collect::<Vec<_>>().join(". ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::IncidentState;

    const NOW: Time = Time(1_795_000_000_000);

    fn clock(name: &str, hours: i64) -> Timer {
        let what =
            TimerKind::Legal { name: name.into(), words: "tell the authority".into(), checked_on: "2026-09-01".into(), to: vec!["law".into()] };
        Timer { what, after_ms: hours * HOUR_MS, due: Some(NOW.plus_ms(hours * HOUR_MS)), standing: Default::default() }
    }

    fn incident() -> Incident {
        let mut incident = crate::notify::fixtures::incident();
        incident.response.timers = vec![clock("gdpr_72h", 72), clock("dora_4h", 4)];
        incident.response.drafts = vec![Draft { name: "status".into(), text: "we look".into(), ..Draft::default() }];
        incident
    }

    fn give(incident: &mut Incident, command: DutyCommand, now: Time) -> Result<Dutied, String> {
        let done = decide(incident, command, now)?;
        done.apply(&mut incident.response);
        Ok(done)
    }

    fn word(clock: &str, to: ClockState, why: &str, from: Option<Time>) -> DutyCommand {
        DutyCommand::Clock { by: "ana".into(), clock: clock.into(), to, why: why.into(), from }
    }

    /// Names of what speaks at this hour, and how.
    fn at(incident: &mut Incident, hours: f64) -> Vec<String> {
        let now = NOW.plus_ms((hours * HOUR_MS as f64) as i64);
        let all = remind(incident, now);
        all.iter().for_each(|d| d.apply(&mut incident.response));
        assert!(remind(incident, now).is_empty(), "once");
        all.into_iter().map(|d| d.words).collect()
    }

    #[test]
    fn a_clock_speaks_at_half_an_hour_before_and_at_its_end_also_when_the_incident_is_over() {
        let mut i = incident();
        assert!(at(&mut i, 1.9).is_empty());
        let half = at(&mut i, 2.0);
        assert!(half.len() == 1 && half[0].starts_with("dora_4h: 2 h 0 min are left"), "{half:?}");
        i.state = IncidentState::Resolved;
        assert!(at(&mut i, 3.0)[0].contains("1 h 0 min are left"));
        assert!(at(&mut i, 4.0)[0].contains("its time is over"));
        // Whoever slept through half and the last hour hears the last.
        let late = at(&mut i, 71.5);
        assert!(late.len() == 1 && late[0].contains("30 min are left") && late[0].contains("for a person to say"), "{late:?}");
        assert_eq!(at(&mut i, 72.0).len(), 1);
        assert!(at(&mut i, 1_000.0).is_empty());
    }

    #[test]
    fn a_person_stops_it_with_a_reason_and_a_false_alarm_ends_it() {
        let mut i = incident();
        for (command, piece) in [
            (word("", ClockState::Met, "sent", None), "no clock \"\" (known: gdpr_72h, dora_4h)"),
            (word("gdpr_72", ClockState::Met, "sent", None), "no clock \"gdpr_72\""),
            (word("gdpr_72h", ClockState::Waived, " ", None), "the reason is kept"),
            (word("gdpr_72h", ClockState::Suggested, "x", None), "by a person"),
            (word("gdpr_72h", ClockState::Started, "x", Some(NOW.plus_ms(1))), "future"),
            (word("gdpr_72h", ClockState::Met, "x", Some(NOW)), "a beginning"),
        ] {
            let refused = give(&mut i, command, NOW).expect_err("refused");
            assert!(refused.contains(piece), "{refused}");
        }
        give(&mut i, word("dora_4h", ClockState::Waived, "no financial entity", None), NOW).expect("waived");
        assert!(at(&mut i, 5.0).is_empty());
        assert!(give(&mut i, word("dora_4h", ClockState::Met, "again", None), NOW).expect_err("refused").contains("waived already"));
        give(&mut i, word("dora_4h", ClockState::Started, "we are one after all", None), NOW).expect("started again");
        i.closed_as = Some(ClosedAs::FalseAlarm);
        assert!(at(&mut i, 1_000.0).is_empty());
        assert!(words(&i, NOW).is_empty() && carried(&i).is_empty());
    }

    #[test]
    fn the_deadline_counts_from_when_a_person_says_that_it_was_known() {
        let mut i = incident();
        let known = NOW.plus_ms(-30 * HOUR_MS);
        let done = give(&mut i, word("gdpr_72h", ClockState::Started, "support knew", Some(known)), NOW).expect("started");
        assert!(done.words.contains("due") && done.tells.is_none(), "{done:?}");
        assert_eq!(i.response.timers[0].due, Some(known.plus_ms(72 * HOUR_MS)));
        assert!(at(&mut i, 1.9).is_empty());
        assert!(at(&mut i, 6.0).iter().any(|w| w.starts_with("gdpr_72h: 1 d 12 h")), "half of its time from then");
        // It outlives the incident, and the next of its kind.
        let carried = carried(&i);
        assert_eq!(carried.len(), 2);
        assert_eq!(carried[0].standing.begun_with.as_deref(), Some(i.id.as_str()));
    }

    #[test]
    fn a_text_that_was_sent_is_kept_as_it_was() {
        let mut i = incident();
        let edit = |text: &str| DutyCommand::Edit { by: "ana".into(), draft: String::new(), text: text.into() };
        assert!(give(&mut i, edit("  "), NOW).is_err());
        give(&mut i, edit("we look into it"), NOW).expect("edited");
        let sent = |to: &str| DutyCommand::Sent { by: "ben".into(), draft: "status".into(), to: to.into() };
        assert!(give(&mut i, sent(""), NOW).expect_err("refused").contains("to whom"));
        give(&mut i, sent("users of the assistant"), NOW.plus_ms(1)).expect("sent");
        let done = give(&mut i, edit("it is over"), NOW.plus_ms(2)).expect("edited again");
        assert!(done.words.contains("as it was before"), "{done:?}");
        let d = &i.response.drafts[0];
        assert_eq!((d.text.as_str(), d.sent[0].text.as_str(), d.sent[0].by.as_str()), ("it is over", "we look into it", "ben"));
        assert!(
            give(&mut i, DutyCommand::Sent { by: "x".into(), draft: "other".into(), to: "y".into() }, NOW)
                .expect_err("none")
                .contains("known: status")
        );
    }
}
