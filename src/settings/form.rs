//! How single values are written: durations, ratios, factors, addresses. Each reader says what would be right.

use std::net::SocketAddr;

use super::node::{Data, Node};
use crate::domain::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};

/// Longest duration that makes sense anywhere in the file: ten years.
const DURATION_MS_MAX: i64 = 3_650 * DAY_MS;

/// What is wrong with a value, and what was likely meant.
pub struct Fault {
    pub message: String,
    pub hint: Option<String>,
}

type Read<T> = Result<T, Fault>;

fn fault<T>(message: impl Into<String>) -> Read<T> {
    Err(Fault { message: message.into(), hint: None })
}

fn meant<T>(message: impl Into<String>, hint: impl Into<String>) -> Read<T> {
    Err(Fault { message: message.into(), hint: Some(hint.into()) })
}

// === readers of nodes ===

pub fn text(node: &Node) -> Read<&str> {
    match &node.data {
        Data::Text(text) if text.trim().is_empty() => fault("empty; expected text"),
        Data::Text(text) => Ok(text),
        Data::Bool(_) | Data::Int(_) | Data::Float(_) => fault(format!("expected text, found {}; put it in quotes", node.shown())),
        _ => fault(format!("expected text, found {}", node.shown())),
    }
}

pub fn boolean(node: &Node) -> Read<bool> {
    match &node.data {
        Data::Bool(b) => Ok(*b),
        Data::Text(t) if t == "true" || t == "false" => Ok(t == "true"),
        Data::Text(t) if matches!(t.to_ascii_lowercase().as_str(), "yes" | "on" | "true") => meant(not_boolean(node), "true"),
        Data::Text(t) if matches!(t.to_ascii_lowercase().as_str(), "no" | "off" | "false") => meant(not_boolean(node), "false"),
        _ => fault(not_boolean(node)),
    }
}

fn not_boolean(node: &Node) -> String {
    format!("expected true or false, found {}", node.shown())
}

/// A number; text that spells one will do, because `${ENV}` gives text.
pub fn number(node: &Node) -> Read<f64> {
    let n = match &node.data {
        Data::Int(n) => Some(*n as f64),
        Data::Float(n) => Some(*n),
        Data::Text(text) => plain_number(text),
        _ => None,
    };
    match n.filter(|n| n.is_finite()) {
        Some(n) => Ok(n),
        None => fault(format!("expected a number, found {}", node.shown())),
    }
}

pub fn above_zero(node: &Node) -> Read<f64> {
    match number(node)? {
        n if n > 0.0 => Ok(n),
        _ => fault(format!("{} is not above 0", node.shown())),
    }
}

/// A severity.
pub fn level(node: &Node) -> Read<u8> {
    let n = number(node).unwrap_or(0.0);
    if n == 1.0 || n == 2.0 || n == 3.0 {
        return Ok(n as u8);
    }
    fault(format!("unknown severity {} (known: 1 active harm, 2 degraded, 3 minor)", node.shown()))
}

/// Milliseconds of a duration.
pub fn duration(node: &Node) -> Read<i64> {
    match &node.data {
        Data::Int(0) => Ok(0),
        Data::Int(n) if *n > 0 => meant(format!("the duration {n} has no unit"), format!("{n}s")),
        Data::Text(text) => duration_ms(text),
        _ => fault(format!("expected a duration such as 90s, 5m, 1h30m or 7d, found {}", node.shown())),
    }
}

/// Reads `90s`, `1h30m`, `250ms`, `7d`.
pub fn duration_ms(text: &str) -> Read<i64> {
    let wrong = || format!("{} is no duration; write one such as 90s, 5m, 1h30m or 7d", super::node::quoted(text));
    let mut rest = text.trim();
    if rest.starts_with('-') {
        return fault(format!("{} is negative; a duration is 0s or more", super::node::quoted(text)));
    }
    if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) {
        return if rest == "0" { Ok(0) } else { meant(format!("the duration {rest} has no unit"), format!("{rest}s")) };
    }
    let mut total = 0i64;
    let mut last_unit = i64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        rest = after.trim_start();
        let Ok(number) = number.parse::<f64>() else { return fault(wrong()) };
        let (unit_ms, spelt) = match unit {
            "ms" => (1, "ms"),
            "s" => (SECOND_MS, "s"),
            "m" => (MINUTE_MS, "m"),
            "h" => (HOUR_MS, "h"),
            "d" => (DAY_MS, "d"),
            "w" => (7 * DAY_MS, "w"),
            other => {
                let near = match other.to_ascii_lowercase().as_str() {
                    "sec" | "secs" | "second" | "seconds" => "s",
                    "min" | "mins" | "minute" | "minutes" | "M" => "m",
                    "hr" | "hrs" | "hour" | "hours" | "h" => "h",
                    "day" | "days" | "d" => "d",
                    "week" | "weeks" => "w",
                    "s" => "s",
                    _ => return fault(wrong()),
                };
                return meant(
                    format!("unknown unit {other:?} in {} (known: ms, s, m, h, d, w)", super::node::quoted(text)),
                    format!("{number}{near}"),
                );
            }
        };
        if unit_ms >= last_unit {
            return fault(format!("{}: {spelt} stands behind a unit that is not longer; write one such as 1h30m", super::node::quoted(text)));
        }
        last_unit = unit_ms;
        let ms = number * unit_ms as f64;
        if ms > DURATION_MS_MAX as f64 {
            return fault(format!("{} is longer than ten years", super::node::quoted(text)));
        }
        total += ms.round() as i64;
    }
    if last_unit == i64::MAX {
        return fault(wrong());
    }
    Ok(total)
}

/// A tolerated relative change: `1.5x` and `50%` are both 0.5.
pub fn tolerance(node: &Node) -> Read<f64> {
    let shape = || format!("expected a factor such as 1.5x or a ratio such as 20%, found {}", node.shown());
    let n = match &node.data {
        Data::Text(text) => {
            let text = text.trim();
            if let Some(factor) = text.strip_suffix(['x', 'X']) {
                match plain_number(factor) {
                    Some(f) if f > 1.0 => trimmed(f - 1.0),
                    Some(f) if f > 0.0 => {
                        return meant(format!("the factor {} is not above 1", node.shown()), format!("{}%", trimmed((1.0 - f) * 100.0)));
                    }
                    _ => return fault(shape()),
                }
            } else if let Some(percent) = text.strip_suffix('%') {
                match plain_number(percent) {
                    Some(p) => p / 100.0,
                    None => return fault(shape()),
                }
            } else {
                match plain_number(text) {
                    Some(n) => return bare_tolerance(n),
                    None => return fault(shape()),
                }
            }
        }
        Data::Int(n) => return bare_tolerance(*n as f64),
        Data::Float(n) => return bare_tolerance(*n),
        _ => return fault(shape()),
    };
    if n > 0.0 && n.is_finite() { Ok(n) } else { fault(format!("{} is not above 0", node.shown())) }
}

/// Below one a bare number can only be a ratio; from one on it could be either.
fn bare_tolerance(n: f64) -> Read<f64> {
    if n > 0.0 && n < 1.0 {
        return Ok(n);
    }
    if n >= 1.0 && n.is_finite() {
        return meant(format!("{n} could be a factor or a ratio"), format!("{n}x"));
    }
    fault(format!("{n} is not above 0"))
}

/// A value of a signal: a ratio `0.5%`, a number, or for latencies a duration (in milliseconds).
pub fn amount(node: &Node) -> Read<f64> {
    let n = match &node.data {
        Data::Int(n) => *n as f64,
        Data::Float(n) => *n,
        Data::Text(text) => {
            let text = text.trim();
            if let Some(n) = plain_number(text) {
                n
            } else if let Some(n) = text.strip_suffix('%').and_then(plain_number) {
                n / 100.0
            } else if text.ends_with(['x', 'X']) {
                return fault(format!("{} is a factor; expected a value such as 0.5%, 0.005 or 800ms", node.shown()));
            } else if let Ok(ms) = duration_ms(text) {
                ms as f64
            } else {
                return fault(format!("expected a value such as 0.5%, 0.005 or 800ms, found {}", node.shown()));
            }
        }
        _ => return fault(format!("expected a value such as 0.5%, 0.005 or 800ms, found {}", node.shown())),
    };
    if n.is_finite() && n >= 0.0 { Ok(n) } else { fault(format!("{} is below 0", node.shown())) }
}

/// Is this written as a time (`800ms`)?
pub fn is_duration(node: &Node) -> bool {
    node.as_text().is_some_and(|t| plain_number(t.trim()).is_none() && duration_ms(t).is_ok())
}

/// Digits with one point, optionally an exponent; neither `inf` nor `nan`.
fn plain_number(text: &str) -> Option<f64> {
    let text = text.trim();
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return None;
    }
    text.parse::<f64>().ok().filter(|n| n.is_finite())
}

/// Without the last digits that subtraction leaves: 1.2x is 0.2.
pub fn trimmed(n: f64) -> f64 {
    (n * 1e9).round() / 1e9
}

// === checks of texts ===

pub fn any(_text: &str) -> Read<()> {
    Ok(())
}

/// An `http` or `https` address with a host.
pub fn url(text: &str) -> Read<()> {
    let wrong = "expected an address such as https://example.org/path";
    match reqwest::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => fault(format!("scheme {:?} is neither http nor https", url.scheme())),
        Ok(url) if url.host_str().is_none_or(str::is_empty) => fault(format!("no host; {wrong}")),
        Ok(_) => Ok(()),
        Err(_) if !text.contains("://") && !text.contains(char::is_whitespace) && text.contains('.') => {
            fault(format!("no scheme such as https://; {wrong}"))
        }
        Err(error) => fault(format!("not a URL ({error}); {wrong}")),
    }
}

/// An address with a port; whether it may be reached from elsewhere depends on the tokens.
pub fn listen(text: &str) -> Read<()> {
    if text.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    let port = text.rsplit(':').next().and_then(|p| p.parse::<u16>().ok()).unwrap_or(9710);
    meant(format!("{} is no address with a port", super::node::quoted(text)), format!("127.0.0.1:{port}"))
}

/// `host:port`, or a host alone, which librdkafka asks on port 9092.
pub fn broker(text: &str) -> Read<()> {
    if text.contains("://") {
        return fault("a broker is host:port, without a scheme");
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => (text, "9092"),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return fault(format!("{} has no host; expected host:port", super::node::quoted(text)));
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => fault(format!("{port:?} is no port; expected host:port with a port from 1 to 65535")),
    }
}

/// Kafka's rule for topics.
pub fn topic(text: &str) -> Read<()> {
    if text.len() > 249 || text == "." || text == ".." || !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return fault("no name of a topic; Kafka takes up to 249 letters, digits, '.', '_' and '-'");
    }
    Ok(())
}

pub fn currency(text: &str) -> Read<()> {
    if text.len() == 3 && text.chars().all(|c| c.is_ascii_uppercase()) {
        return Ok(());
    }
    let upper = text.to_ascii_uppercase();
    let message = format!("{} is no currency of three capital letters (ISO 4217)", super::node::quoted(text));
    if upper.len() == 3 && upper.chars().all(|c| c.is_ascii_uppercase()) { meant(message, upper) } else { fault(message) }
}

/// A name that is part of keys and of links.
pub fn name(text: &str) -> Read<()> {
    if text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return Ok(());
    }
    fault(format!("{} is no name of up to 64 letters, digits, '.', '_' and '-'", super::node::quoted(text)))
}

/// The closest word within one edit, or two for five letters and more. The first of equals.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // No known word is close to a long one, and the distance is quadratic.
    if name.len() > 64 {
        return None;
    }
    let folded = name.to_ascii_lowercase().replace('-', "_");
    let allowed = if folded.len() >= 5 { 2 } else { 1 };
    let distance = |word: &str| strsim::osa_distance(&folded, &word.to_ascii_lowercase().replace('-', "_"));
    let near = known.into_iter().map(|word| (distance(word), word)).filter(|(distance, _)| *distance <= allowed);
    near.min_by_key(|(distance, _)| *distance).map(|(_, word)| word)
}

/// The shortest way to write a duration.
pub fn shown_duration(ms: i64) -> String {
    let mut out = String::new();
    let mut rest = ms.max(0);
    for (unit_ms, unit) in [(DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "m"), (SECOND_MS, "s"), (1, "ms")] {
        if rest >= unit_ms {
            out.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_prints_as_it_is_read() {
        for text in ["0s", "250ms", "90s", "5m", "1h30m", "7d", "1d12h"] {
            let ms = duration_ms(text).unwrap_or_else(|f| panic!("{text}: {}", f.message));
            assert_eq!(duration_ms(&shown_duration(ms)).unwrap_or(-1), ms, "{text}");
        }
        assert_eq!(duration_ms("1h30m").unwrap_or(-1), 5_400_000);
        assert_eq!(duration_ms("1.5h").unwrap_or(-1), 5_400_000);
        for text in ["", "s", "5", "5 parsecs", "1m1h", "-5s", "1..5s", "99999999d"] {
            assert!(duration_ms(text).is_err(), "{text}");
        }
    }
}
