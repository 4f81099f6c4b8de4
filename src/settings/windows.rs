//! Work that comes again and again: `weekly: "Sun 02:00-04:00"` by the clock on somebody's wall.
//!
//! A person who writes "Sunday, two to four" means what his clock shows, also on the two nights of a year on which it is put. So a
//! window is kept as it was written, with the name of its time zone, and becomes moments only when somebody asks for the next ones:
//! in the night that is short it is short, in the night that is long it is long. An hour that is left out is over when the clock
//! jumps; a window that would be lost with it lasts as long as written, from the jump on.

use jiff::civil::{Date, DateTime, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Span, Timestamp};

use super::check::{Checker, join};
use super::form::{self, Fault};
use super::node::{Data, Node, quoted};
use crate::domain::time::DAY_MS;
use crate::domain::{Category, Matcher, Segment, Time};

const MINUTES_OF_DAY: u16 = 24 * 60;
const DAYS: [(&str, &str, Weekday); 7] = [
    ("Mon", "monday", Weekday::Monday),
    ("Tue", "tuesday", Weekday::Tuesday),
    ("Wed", "wednesday", Weekday::Wednesday),
    ("Thu", "thursday", Weekday::Thursday),
    ("Fri", "friday", Weekday::Friday),
    ("Sat", "saturday", Weekday::Saturday),
    ("Sun", "sunday", Weekday::Sunday),
];

/// One entry of `maintenance`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub matcher: Matcher,
    pub hours: Hours,
    /// Of the IANA database; it was found there.
    pub timezone: String,
    pub why: String,
    /// Holds active harm as well.
    pub harm: bool,
}

/// When in the week, by the clock on the wall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    /// Days on which it begins, from 0, Monday.
    days: Vec<u8>,
    from_minute: u16,
    /// Midnight at the end of the day is 24:00.
    until_minute: u16,
    /// The end lies so many days after the day of the beginning.
    until_days: u8,
    /// As it was written.
    written: String,
}

// === impl Window ===

impl Window {
    /// Those that are on or begin within `from .. until`, in order.
    pub fn within(&self, from: Time, until: Time) -> Vec<(Time, Time)> {
        let Ok(zone) = TimeZone::get(&self.timezone) else { return Vec::new() };
        let Ok(at) = Timestamp::from_millisecond(from.0) else { return Vec::new() };
        // A window that is on began at most a week and the change of a clock ago.
        let Ok(mut day) = zone.to_datetime(at).date().checked_sub(Span::new().days(9)) else { return Vec::new() };
        let mut out = Vec::new();
        while let Some((begins, ends)) = self.on(&zone, day) {
            if begins >= until {
                break;
            }
            if self.hours.days.contains(&(day.weekday().to_monday_zero_offset() as u8)) && ends > from {
                out.push((begins, ends));
            }
            match day.tomorrow() {
                Ok(tomorrow) => day = tomorrow,
                Err(_) => break,
            }
        }
        out
    }

    /// The one that begins on this day; `None` beyond the end of the calendar.
    fn on(&self, zone: &TimeZone, day: Date) -> Option<(Time, Time)> {
        let last = day.checked_add(Span::new().days(i64::from(self.hours.until_days))).ok()?;
        let (first, end) = (wall(day, self.hours.from_minute)?, wall(last, self.hours.until_minute)?);
        let begins = moment(zone, first, false)?;
        let ends = moment(zone, end, true)?;
        let written_ms =
            i64::from(self.hours.until_days) * DAY_MS + (i64::from(self.hours.until_minute) - i64::from(self.hours.from_minute)) * 60_000;
        Some((begins, if ends > begins { ends } else { begins.plus_ms(written_ms) }))
    }

    /// `model=ranker: Sun 02:00-04:00 Europe/Berlin`.
    pub fn words(&self) -> String {
        format!("{}: {} {}", self.matcher.words(), self.hours.written, self.timezone)
    }

    /// As the file would say it.
    pub fn shown(&self) -> String {
        let text = |t: &str| serde_json::Value::from(t).to_string();
        let m = &self.matcher;
        let mut parts: Vec<String> = Vec::new();
        for (name, value) in [("environment", &m.environment), ("model", &m.model), ("version", &m.version)] {
            parts.extend(value.as_ref().map(|v| format!("{name}: {}", text(v))));
        }
        parts.extend(m.category.map(|c| format!("category: {c}")));
        parts.extend(m.segment.as_ref().map(|s| format!("segment: {{{}: {}}}", text(&s.dimension), text(&s.value))));
        let key = if self.hours.days.len() == 7 && !self.hours.written.contains(char::is_alphabetic) { "daily" } else { "weekly" };
        parts.push(format!("{key}: {}", text(&self.hours.written)));
        parts.push(format!("timezone: {}", text(&self.timezone)));
        if !self.why.is_empty() {
            parts.push(format!("why: {}", text(&self.why)));
        }
        if self.harm {
            parts.push("harm: true".to_owned());
        }
        format!("{{{}}}", parts.join(", "))
    }
}

fn wall(day: Date, minute: u16) -> Option<DateTime> {
    let (day, minute) = if minute == MINUTES_OF_DAY { (day.tomorrow().ok()?, 0) } else { (day, minute) };
    Some(day.at((minute / 60) as i8, (minute % 60) as i8, 0, 0))
}

/// When the clock on the wall shows this: of two such moments the first for a beginning and the last for an end; if it never does,
/// the moment at which it jumps over it.
fn moment(zone: &TimeZone, at: DateTime, is_end: bool) -> Option<Time> {
    let ambiguous = zone.to_ambiguous_timestamp(at);
    let found = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => ambiguous.compatible().ok()?,
        AmbiguousOffset::Fold { .. } if is_end => ambiguous.later().ok()?,
        AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok()?,
        AmbiguousOffset::Gap { .. } => {
            let before = ambiguous.earlier().ok()?;
            let after = ambiguous.later().ok()?;
            zone.following(before).next().map_or(after, |jump| jump.timestamp())
        }
    };
    Some(Time(found.as_millisecond()))
}

// === reading ===

/// `Sun 02:00-04:00`, `Mon-Fri 22:00-06:00`, `Sat,Sun 00:00-24:00`, `Fri 22:00-Mon 06:00`.
///
/// # Errors
/// What would be right.
pub fn weekly(text: &str) -> Result<Hours, Fault> {
    let wrong = || Fault {
        message: format!("{} is no time of the week; write one such as Sun 02:00-04:00 or Mon-Fri 22:00-06:00", quoted(text)),
        hint: None,
    };
    let at = text.find(|c: char| c.is_ascii_digit()).ok_or_else(wrong)?;
    let (days, hours) = text.split_at(at);
    let days = days_of(days.trim()).map_err(|word| match word {
        Some(word) => {
            let hint = form::nearest(&word, DAYS.iter().flat_map(|(short, long, _)| [*short, *long]))
                .and_then(day_of)
                .map(|d| DAYS[usize::from(d)].0.to_owned());
            Fault { message: format!("{} is no day (known: Mon, Tue, Wed, Thu, Fri, Sat, Sun)", quoted(&word)), hint }
        }
        None => wrong(),
    })?;
    hours_of(hours, days, text)
}

/// `02:00-04:00`.
///
/// # Errors
/// What would be right.
pub fn daily(text: &str) -> Result<Hours, Fault> {
    if let Some(at) = text.find(|c: char| c.is_ascii_digit()).filter(|at| !text[..*at].trim().is_empty()) {
        let message = format!("{} names days; daily takes hours such as 02:00-04:00, and weekly takes days", quoted(text));
        return Err(Fault { message, hint: Some(text[at..].to_owned()) });
    }
    hours_of(text, (0..7).collect(), text)
}

fn day_of(word: &str) -> Option<u8> {
    let word = word.to_ascii_lowercase();
    DAYS.iter().position(|(short, long, _)| short.to_ascii_lowercase() == word || *long == word).map(|at| at as u8)
}

/// # Errors
/// The word that is no day, or none if there is no word at all.
fn days_of(text: &str) -> Result<Vec<u8>, Option<String>> {
    let day = |word: &str| day_of(word.trim()).ok_or_else(|| Some(word.trim().to_owned()).filter(|w| !w.is_empty()));
    let mut out = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            None => out.push(day(part)?),
            Some((first, last)) => {
                let (first, last) = (day(first)?, day(last)?);
                out.extend((0..=(7 + last - first) % 7).map(|n| (first + n) % 7));
            }
        }
    }
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

fn hours_of(text: &str, days: Vec<u8>, written: &str) -> Result<Hours, Fault> {
    let fault = |message: String| Err(Fault { message, hint: None });
    let Some((from, until)) = text.split_once('-') else {
        return fault(format!("{} has no end; write one such as 02:00-04:00", quoted(written)));
    };
    let until = until.trim();
    let (last_day, until) = match until.find(|c: char| c.is_ascii_digit()) {
        Some(0) => (None, until),
        Some(at) => {
            let word = until[..at].trim();
            match day_of(word) {
                Some(day) => (Some(day), &until[at..]),
                None => return fault(format!("{} is no day (known: Mon, Tue, Wed, Thu, Fri, Sat, Sun)", quoted(word))),
            }
        }
        None => (None, until),
    };
    let (from_minute, until_minute) = (clock(from, false)?, clock(until, true)?);
    let until_days = match last_day {
        None if until_minute == from_minute => {
            return fault(format!("{} begins and ends at the same time; the whole day is 00:00-24:00", quoted(written)));
        }
        None => u8::from(until_minute < from_minute),
        Some(_) if days.len() != 1 => {
            return fault(format!("{} names an end for several beginnings; name the one day on which it begins", quoted(written)));
        }
        Some(last) => match (7 + last - days[0]) % 7 {
            0 if until_minute <= from_minute => 7,
            n => n,
        },
    };
    Ok(Hours { days, from_minute, until_minute, until_days, written: written.trim().to_owned() })
}

fn clock(text: &str, is_end: bool) -> Result<u16, Fault> {
    let text = text.trim();
    let read = text.split_once(':').and_then(|(hour, minute)| {
        let is_number = |t: &str, most: usize| !t.is_empty() && t.len() <= most && t.bytes().all(|b| b.is_ascii_digit());
        let (hour, minute) = (Some(hour).filter(|h| is_number(h, 2))?, Some(minute).filter(|m| m.len() == 2 && is_number(m, 2))?);
        Some((hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?))
    });
    match read {
        Some((24, 0)) if is_end => Ok(MINUTES_OF_DAY),
        Some((hour @ 0..=23, minute @ 0..=59)) => Ok(hour * 60 + minute),
        _ => Err(Fault { message: format!("{} is no time of day; write one such as 02:00", quoted(text)), hint: None }),
    }
}

/// A name of the IANA database.
///
/// # Errors
/// With the nearest name there is.
pub fn timezone(text: &str) -> Result<(), Fault> {
    if TimeZone::get(text).is_ok() {
        return Ok(());
    }
    let known: Vec<String> = jiff::tz::db().available().map(|name| name.as_str().to_owned()).collect();
    // A city alone is what people write.
    let city = |name: &&String| name.rsplit('/').next().is_some_and(|c| c.eq_ignore_ascii_case(&text.replace(' ', "_")));
    let hint = known.iter().find(city).cloned().or_else(|| form::nearest(text, known.iter().map(String::as_str)).map(str::to_owned));
    Err(Fault { message: format!("unknown time zone {}; write one such as Europe/Berlin or UTC", quoted(text)), hint })
}

/// The windows of the file, as far as nothing is wrong with them.
pub fn windows(checker: &mut Checker<'_>, root: &Node) -> Vec<Window> {
    let mut out = Vec::new();
    let Some(Data::List(items)) = root.get("maintenance").map(|n| &n.data) else { return out };
    for (i, item) in items.iter().enumerate().filter(|(_, item)| matches!(item.data, Data::Table(_))) {
        let path = join("maintenance", &i.to_string());
        let text = |name: &str| item.get(name).and_then(Node::as_text).map(str::to_owned);
        let hours = match (item.get("weekly").and_then(Node::as_text), item.get("daily").and_then(Node::as_text)) {
            (Some(_), Some(_)) => {
                if let Some(entry) = item.entry("daily") {
                    let message = "both \"weekly\" and \"daily\" are given; keep one";
                    checker.complain(&entry.key_at, &join(&path, "daily"), "daily".to_owned(), message, None);
                }
                continue;
            }
            (Some(written), None) => weekly(written),
            (None, Some(written)) => daily(written),
            (None, None) => {
                // A misspelt key is one fault, not two.
                let is_misspelt = item.entries().iter().any(|e| form::nearest(&e.name, ["weekly", "daily"]).is_some());
                if !is_misspelt {
                    let message = "missing; say when it comes, as in weekly: \"Sun 02:00-04:00\" or daily: \"02:00-03:00\"";
                    checker.complain(&item.at, &join(&path, "weekly"), String::new(), message, None);
                }
                continue;
            }
        };
        let segments = item.get("segment").map(Node::entries).unwrap_or_default();
        if let [_, second, ..] = segments {
            let message = "one segment of a window is enough; write a window for each";
            checker.complain(&second.key_at, &join(&path, "segment"), second.name.clone(), message, None);
        }
        let segment = segments.first().and_then(|e| Some(Segment { dimension: e.name.as_str().into(), value: e.value.as_text()?.into() }));
        // What cannot be read was complained about by the table.
        let Ok(hours) = hours else { continue };
        out.push(Window {
            matcher: Matcher {
                environment: text("environment"),
                model: text("model"),
                category: text("category").and_then(|c| c.parse::<Category>().ok()),
                segment,
                version: text("version"),
            },
            hours,
            timezone: text("timezone").unwrap_or_else(|| "UTC".to_owned()),
            why: text("why").unwrap_or_default(),
            harm: item.get("harm").and_then(|n| form::boolean(n).ok()).unwrap_or(false),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(hours: Result<Hours, Fault>, timezone: &str) -> Window {
        let hours = hours.unwrap_or_else(|f| panic!("{}", f.message));
        Window { matcher: Matcher::default(), hours, timezone: timezone.to_owned(), why: String::new(), harm: false }
    }

    fn at(text: &str) -> Time {
        Time::parse_rfc3339(text).expect("a time")
    }

    fn check(hours: &str, timezone: &str, from: &str, until: &str, expected: &[(&str, &str)]) {
        let read = if hours.starts_with(|c: char| c.is_ascii_digit()) { daily(hours) } else { weekly(hours) };
        let found = window(read, timezone).within(at(from), at(until));
        let expected: Vec<(Time, Time)> = expected.iter().map(|(a, b)| (at(a), at(b))).collect();
        assert_eq!(found, expected, "{hours} {timezone}");
    }

    #[test]
    fn a_window_follows_the_clock_on_the_wall_through_both_changes() {
        let berlin = "Europe/Berlin";
        // The clock goes from 02:00 to 03:00 on 29 March 2026, and from 03:00 back to 02:00 on 25 October.
        check(
            "Sun 02:00-04:00",
            berlin,
            "2026-03-20T00:00:00Z",
            "2026-04-06T00:00:00Z",
            &[
                ("2026-03-22T01:00:00Z", "2026-03-22T03:00:00Z"),
                ("2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"),
                ("2026-04-05T00:00:00Z", "2026-04-05T02:00:00Z"),
            ],
        );
        check(
            "Sun 02:00-04:00",
            berlin,
            "2026-10-24T00:00:00Z",
            "2026-11-02T00:00:00Z",
            &[("2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z"), ("2026-11-01T01:00:00Z", "2026-11-01T03:00:00Z")],
        );
        // Within the hour that there is not: as long as written, from the jump on.
        check("Sun 02:15-02:45", berlin, "2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z", &[("2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z")]);
        check("Sun 01:00-02:30", berlin, "2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z", &[("2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z")]);
        // The hour that comes twice belongs to it twice.
        check("Sun 02:30-02:45", berlin, "2026-10-24T12:00:00Z", "2026-10-26T00:00:00Z", &[("2026-10-25T00:30:00Z", "2026-10-25T01:45:00Z")]);
        // Half an hour is put in Lord Howe.
        check(
            "Sun 01:00-03:00",
            "Australia/Lord_Howe",
            "2026-10-02T00:00:00Z",
            "2026-10-05T00:00:00Z",
            &[("2026-10-03T14:30:00Z", "2026-10-03T16:00:00Z")],
        );
    }

    #[test]
    fn days_hours_and_ends_are_read_as_people_write_them() {
        check(
            "Sat,Sun 22:00-06:00",
            "UTC",
            "2026-11-21T12:00:00Z",
            "2026-11-23T12:00:00Z",
            &[("2026-11-21T22:00:00Z", "2026-11-22T06:00:00Z"), ("2026-11-22T22:00:00Z", "2026-11-23T06:00:00Z")],
        );
        check("Fri 22:00-Mon 6:00", "UTC", "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z", &[("2026-11-20T22:00:00Z", "2026-11-23T06:00:00Z")]);
        check("sunday 04:00-Sun 02:00", "UTC", "2026-11-28T00:00:00Z", "2026-11-28T01:00:00Z", &[("2026-11-22T04:00:00Z", "2026-11-29T02:00:00Z")]);
        check(
            "Fri-Mon 00:00-24:00",
            "UTC",
            "2026-11-22T00:00:00Z",
            "2026-11-26T00:00:00Z",
            &[("2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z"), ("2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z")],
        );
        check(
            "02:00-03:00",
            "America/New_York",
            "2026-11-20T07:30:00Z",
            "2026-11-21T08:00:00Z",
            &[("2026-11-20T07:00:00Z", "2026-11-20T08:00:00Z"), ("2026-11-21T07:00:00Z", "2026-11-21T08:00:00Z")],
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_would_be_right() {
        for (text, piece, hint) in [
            ("Snu 02:00-04:00", "\"Snu\" is no day", Some("Sun")),
            ("Sunnday 02:00-04:00", "is no day", Some("Sun")),
            ("02:00-04:00", "no time of the week", None),
            ("Sun", "no time of the week", None),
            ("Sun 02:00", "has no end", None),
            ("Sun 2-4", "\"2\" is no time of day", None),
            ("Sun 25:00-04:00", "\"25:00\" is no time of day", None),
            ("Sun 24:00-04:00", "\"24:00\" is no time of day", None),
            ("Sun 02:00-02:00", "the whole day is 00:00-24:00", None),
            ("Sat,Sun 22:00-Mon 06:00", "several beginnings", None),
            ("Sun 22:00-Mno 06:00", "\"Mno\" is no day", None),
        ] {
            let fault = weekly(text).err().unwrap_or_else(|| panic!("{text} is taken"));
            assert!(fault.message.contains(piece) && fault.hint.as_deref() == hint, "{text}: {} {:?}", fault.message, fault.hint);
        }
        assert!(daily("Sun 02:00-04:00").is_err_and(|f| f.hint.as_deref() == Some("02:00-04:00")));
        for (text, hint) in
            [("Europe/Berlln", Some("Europe/Berlin")), ("berlin", Some("Europe/Berlin")), ("New York", Some("America/New_York")), ("", None)]
        {
            assert_eq!(timezone(text).err().map(|f| f.hint), Some(hint.map(str::to_owned)), "{text}");
        }
        assert!(timezone("UTC").is_ok() && timezone("Europe/Berlin").is_ok());
    }
}
