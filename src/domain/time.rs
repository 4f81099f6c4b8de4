//! Points in time: whole milliseconds since 1970-01-01 UTC.
//!
//! Milliseconds in an `i64` and not a calendar type, because panes, watermarks and positions do arithmetic on every event and a
//! calendar is wanted only where a person reads. `jiff` does the calendar.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since the epoch, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

pub const SECOND_MS: i64 = 1_000;
pub const MINUTE_MS: i64 = 60 * SECOND_MS;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
pub const DAY_MS: i64 = 24 * HOUR_MS;

impl Time {
    pub const MIN: Time = Time(i64::MIN);
    pub const MAX: Time = Time(i64::MAX);

    /// Start of the pane of `pane_ms` that holds this moment.
    pub fn floor(self, pane_ms: i64) -> Time {
        Time(self.0 - self.0.rem_euclid(pane_ms))
    }

    pub fn plus_ms(self, ms: i64) -> Time {
        Time(self.0.saturating_add(ms))
    }

    /// `self - earlier` in milliseconds.
    pub fn since_ms(self, earlier: Time) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Parses RFC 3339 with any offset. The common form (`2026-11-20T09:14:03.120Z`) takes a path without allocation.
    pub fn parse_rfc3339(text: &str) -> Option<Time> {
        parse_plain_utc(text.as_bytes()).or_else(|| text.parse::<jiff::Timestamp>().ok().map(|t| Time(t.as_millisecond())))
    }

    /// An epoch number whose unit is told by its magnitude: 10 digits are seconds, 13 ms, 16 µs, 19 ns.
    pub fn from_epoch_number(number: f64) -> Option<Time> {
        if !number.is_finite() || number <= 0.0 {
            return None;
        }
        let ms = if number < 1e11 {
            number * 1e3
        } else if number < 1e14 {
            number
        } else if number < 1e17 {
            number / 1e3
        } else if number < 1e20 {
            number / 1e6
        } else {
            return None;
        };
        Some(Time(ms as i64))
    }

    /// `2026-11-20T09:14:03.120Z`; milliseconds are left out when zero.
    pub fn rfc3339(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => t.to_string(),
            Err(_) => format!("{} ms", self.0),
        }
    }

    /// `09:14 UTC`, for sentences.
    pub fn clock(self) -> String {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => t.strftime("%H:%M UTC").to_string(),
            Err(_) => self.rfc3339(),
        }
    }
}

/// Exactly `YYYY-MM-DDTHH:MM:SS[.fraction]Z`.
fn parse_plain_utc(b: &[u8]) -> Option<Time> {
    fn digits(b: &[u8]) -> Option<i64> {
        b.iter().try_fold(0i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
    }
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[10] != b'T' || b[13] != b':' || b[16] != b':' || b[b.len() - 1] != b'Z' {
        return None;
    }
    let (y, m, d) = (digits(&b[0..4])?, digits(&b[5..7])?, digits(&b[8..10])?);
    let (hh, mm, ss) = (digits(&b[11..13])?, digits(&b[14..16])?, digits(&b[17..19])?);
    let days_in_month = match m {
        2 if y % 4 == 0 && (y % 100 != 0 || y % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=12).contains(&m) || d < 1 || d > days_in_month || hh > 23 || mm > 59 || ss > 59 {
        return None;
    }
    let fraction = &b[19..b.len() - 1];
    let ms = match fraction {
        [] => 0,
        [b'.', rest @ ..] if !rest.is_empty() && rest.len() <= 9 => {
            digits(rest)?;
            (0..3).fold(0i64, |n, i| n * 10 + rest.get(i).map_or(0, |c| i64::from(c - b'0')))
        }
        _ => return None,
    };
    // Days from civil (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let (y, m) = (if m <= 2 { y - 1 } else { y }, m);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (if m > 2 { m - 3 } else { m + 9 }) + 2) / 5 + d - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    Some(Time(days * DAY_MS + hh * HOUR_MS + mm * MINUTE_MS + ss * SECOND_MS + ms))
}

// === impl traits ===

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.serialize_str(&self.rfc3339()) } else { s.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
            Time::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom(format!("not an RFC 3339 time: {text:?}")))
        } else {
            i64::deserialize(d).map(Time)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_path_agrees_with_the_calendar() {
        for text in ["2026-11-20T09:14:03.120Z", "1970-01-01T00:00:00Z", "2024-02-29T23:59:59.999Z", "2000-03-01T00:00:00.5Z"] {
            let slow = text.parse::<jiff::Timestamp>().expect("valid").as_millisecond();
            assert_eq!(parse_plain_utc(text.as_bytes()), Some(Time(slow)), "{text}");
        }
        for text in ["2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-11-20 09:14:03Z", "x"] {
            assert_eq!(Time::parse_rfc3339(text), text.parse::<jiff::Timestamp>().ok().map(|t| Time(t.as_millisecond())), "{text}");
        }
        assert_eq!(Time::parse_rfc3339("2026-11-20T10:14:03+01:00"), Time::parse_rfc3339("2026-11-20T09:14:03Z"));
    }

    #[test]
    fn magnitude_tells_the_unit() {
        for n in [1_795_166_044f64, 1_795_166_044_000f64, 1_795_166_044_000_000f64, 1_795_166_044_000_000_000f64] {
            assert_eq!(Time::from_epoch_number(n), Some(Time(1_795_166_044_000)));
        }
        assert_eq!(Time::from_epoch_number(-1.0), None);
        assert_eq!(Time::from_epoch_number(f64::NAN), None);
    }
}
