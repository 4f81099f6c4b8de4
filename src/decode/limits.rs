//! What is checked before anything is parsed: size, encoding, depth. And what is said when parsing failed.
//!
//! Depth is a bound of memory elsewhere, so it must be known before parsing. Walking every byte of every event for it would
//! cost as much as parsing; instead all opening brackets are counted, which a compiler turns into a few wide instructions. No
//! event with at most 32 of them can be deeper than 32, and that is nearly every event; the others are walked.

use std::borrow::Cow;

use super::{Reason, Reject, Settings, excerpt};

/// Stands in for a number beyond the range of a double, such as 1e999. A private-use character, so that it is nobody's text,
/// and three bytes long, so that it fits with its quotes into the shortest such number.
pub const BEYOND_RANGE: &str = "\u{E000}";

/// The payload as text without its byte order mark: within its size, UTF-8, an object, and not too deep.
pub fn open<'a>(payload: &'a [u8], settings: &Settings) -> Result<&'a str, Reject> {
    if payload.len() > settings.max_event_bytes {
        let detail = format!("the event has {} bytes, more than {}", payload.len(), settings.max_event_bytes);
        return Err(Reject::new(Reason::TooLarge, detail));
    }
    // UTF-16 of plain ASCII is valid UTF-8 full of NUL bytes.
    if let [0, b'{' | b'[', ..] | [b'{' | b'[', 0, ..] | [0xfe, 0xff, ..] | [0xff, 0xfe, ..] = payload {
        return Err(Reject::new(Reason::NotUtf8, "the event looks like UTF-16; send UTF-8"));
    }
    let text = std::str::from_utf8(payload).map_err(|e| {
        Reject::new(Reason::NotUtf8, format!("byte 0x{:02x} at {} is not UTF-8", payload.get(e.valid_up_to()).copied().unwrap_or(0), e.valid_up_to()))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check_depth(text.as_bytes(), settings.max_depth)?;
    let found = match text.trim_start_matches([' ', '\t', '\r', '\n']).as_bytes().first() {
        Some(b'{') => return Ok(text),
        None => "nothing",
        Some(b'[') => return Err(Reject::new(Reason::BadJson, "found an array; a record is one object, so send each event as a record of its own")),
        Some(_) => excerpt(text.trim_start()),
    };
    Err(Reject::new(Reason::BadJson, format!("expected an object that begins with {{, found {found}")))
}

fn check_depth(bytes: &[u8], depth_max: usize) -> Result<(), Reject> {
    if brackets(bytes) <= depth_max {
        return Ok(());
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max {
                    return Err(Reject::new(Reason::TooDeep, format!("more than {depth_max} objects and arrays inside one another at byte {at}")));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Opening brackets of both kinds, those in text included.
fn brackets(bytes: &[u8]) -> usize {
    // [ and { differ in one bit. Chunks below 256 let the sum stay in bytes, as wide as the machine allows.
    bytes.chunks(128).map(|chunk| usize::from(chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>())).sum()
}

/// Whether serde_json gave up because of a number that no double holds.
pub fn is_number_beyond_range(error: &serde_json::Error) -> bool {
    error.is_syntax() && error.to_string().starts_with("number out of range")
}

/// The same text with every number beyond the range of a double replaced by [`BEYOND_RANGE`], byte for byte in place. The
/// rare second try, so that 1e999 costs its field and not its event.
pub fn without_numbers_beyond_range(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at, mut copied) = (String::with_capacity(text.len()), 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..].iter().take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')).count();
                let end = at + length;
                // The shortest such number, 9e308, has as many bytes as its replacement.
                if length >= BEYOND_RANGE.len() + 2 && text[at..end].parse::<f64>().is_ok_and(f64::is_infinite) {
                    out.push_str(&text[copied..at]);
                    out.push('"');
                    out.push_str(BEYOND_RANGE);
                    out.push('"');
                    out.extend(std::iter::repeat_n(' ', length - BEYOND_RANGE.len() - 2));
                    copied = end;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    out.push_str(&text[copied..]);
    out
}

/// What the parser disliked, in words for the sender.
pub fn bad_json(error: &serde_json::Error, text: &str) -> Reject {
    let message = error.to_string();
    let words = message.split(" at line ").next().unwrap_or(&message);
    let lines_before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = (lines_before + error.column().saturating_sub(1)).min(text.len());
    let words: Cow<'_, str> = if words.contains("surrogate") || words.contains("hex escape") && has_surrogate(text) {
        "half of a surrogate pair (\\ud800 to \\udfff stand only in pairs); write the character itself or both halves".into()
    } else if words.contains("control character") {
        "a raw control character in text; escape it, as in \\n or \\u0000".into()
    } else if words.contains("trailing characters") {
        "more text after the end of the object; send one event per record".into()
    } else if error.is_eof() {
        format!("the event ends too early ({words})").into()
    } else {
        words.to_owned().into()
    };
    Reject::new(Reason::BadJson, format!("not JSON at byte {at}: {words}"))
}

/// Whether an escape names a surrogate; serde_json says of half a pair only that its escape ends unexpectedly.
fn has_surrogate(text: &str) -> bool {
    text.as_bytes().windows(4).any(|w| w[0] == b'\\' && w[1] == b'u' && w[2] | 0x20 == b'd' && matches!(w[3] | 0x20, b'8' | b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(text: &str) -> Result<(), Reason> {
        check_depth(text.as_bytes(), 32).map_err(|reject| reject.reason)
    }

    #[test]
    fn depth_counts_only_brackets_outside_text() {
        assert_eq!(depth(&format!("{}{}", "[".repeat(32), "]".repeat(32))), Ok(()));
        assert_eq!(depth(&format!("{}{}", "[".repeat(33), "]".repeat(33))), Err(Reason::TooDeep));
        assert_eq!(depth(&format!("{{\"a\":\"{}\"}}", "[".repeat(1_000))), Ok(()));
        assert_eq!(depth(&format!("{{\"a\":\"\\\"{}\"}}", "{".repeat(1_000))), Ok(()));
        assert_eq!(depth(&"[]".repeat(1_000)), Ok(()));
        assert_eq!(depth(&format!("{{\"a\\\\\":{}", "{\"b\":".repeat(32))), Err(Reason::TooDeep));
    }

    #[test]
    fn only_numbers_that_no_double_holds_are_replaced_and_nothing_moves() {
        let text = r#"{"a":1e999,"b":-1E+400 ,"c":"1e999\"1e999","d":1e308,"e":[9e308,2],"f":1e-999}"#;
        let clean = without_numbers_beyond_range(text);
        assert_eq!(clean.len(), text.len());
        let expected = "{\"a\":\"\u{E000}\",\"b\":\"\u{E000}\"   ,\"c\":\"1e999\\\"1e999\",\"d\":1e308,\"e\":[\"\u{E000}\",2],\"f\":1e-999}";
        assert_eq!(clean, expected);
        assert_eq!(without_numbers_beyond_range("\"\\"), "\"\\", "text that ends in the middle of an escape");
    }
}
