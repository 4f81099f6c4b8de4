//! Words on the terminal: ends of lines, colours, and nothing that a stranger's text could do to it.
//!
//! While keys are read one by one the terminal is in raw mode, and in raw mode a line feed only goes down. So whatever the demo
//! prints goes through [`say`], which ends lines as the terminal needs it at the moment.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the terminal is in raw mode. There is one terminal in a process, so there is one flag.
static IS_RAW: AtomicBool = AtomicBool::new(false);

/// Columns assumed where there is no terminal to ask.
const WIDTH_UNKNOWN: usize = 100;
const WIDTH_MIN: usize = 40;
const WIDTH_MAX: usize = 110;

pub(super) fn set_raw(is_raw: bool) {
    IS_RAW.store(is_raw, Ordering::SeqCst);
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    pub color: bool,
    /// Columns that a box may take.
    pub width: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    Red,
    Yellow,
    Green,
    Cyan,
    Dim,
    Bold,
}

// === impl Style ===

impl Style {
    pub const PLAIN: Style = Style { color: false, width: WIDTH_UNKNOWN };

    /// As standard output and the environment ask for.
    pub fn of_stdout() -> Style {
        let is_terminal = std::io::stdout().is_terminal();
        let color = wants_color(is_terminal, std::env::var("NO_COLOR").ok().as_deref(), std::env::var("TERM").ok().as_deref());
        let columns = is_terminal.then(crossterm::terminal::size).and_then(Result::ok).map(|(columns, _)| usize::from(columns));
        Style { color, width: columns.unwrap_or(WIDTH_UNKNOWN).clamp(WIDTH_MIN, WIDTH_MAX) }
    }

    pub fn paint(self, color: Color, text: &str) -> String {
        if !self.color {
            return text.to_owned();
        }
        let code = match color {
            Color::Red => "1;31",
            Color::Yellow => "33",
            Color::Green => "32",
            Color::Cyan => "36",
            Color::Dim => "2",
            Color::Bold => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// `NO_COLOR` counts when it is there and not empty (no-color.org).
fn wants_color(is_terminal: bool, no_color: Option<&str>, term: Option<&str>) -> bool {
    is_terminal && no_color.is_none_or(str::is_empty) && term != Some("dumb")
}

/// Text with the line ends that the terminal needs now.
pub fn for_terminal(text: &str) -> Cow<'_, str> {
    with_line_ends(text, IS_RAW.load(Ordering::SeqCst))
}

fn with_line_ends(text: &str, is_raw: bool) -> Cow<'_, str> {
    if is_raw && text.contains('\n') { Cow::Owned(text.replace("\r\n", "\n").replace('\n', "\r\n")) } else { Cow::Borrowed(text) }
}

/// Prints a text and ends its line. A closed pipe is not worth a word.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(for_terminal(&format!("{text}\n")).as_bytes()).and_then(|()| out.flush());
}

/// A stranger's text, unable to move the cursor or to change colours.
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_bidi(c) { ' ' } else { c }).collect()
}

/// Characters that turn the direction of what follows them.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Breaks a text into lines of at most `width` characters, between words where that can be.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let (mut line, mut used) = (String::new(), 0);
    for word in text.split_whitespace() {
        let mut left: Vec<char> = word.chars().collect();
        if used > 0 && used + 1 + left.len() <= width {
            line.push(' ');
            used += 1;
        } else if used > 0 {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        while left.len() > width {
            lines.push(left.drain(..width).collect());
        }
        used += left.len();
        line.extend(left);
    }
    if used > 0 || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_whose_owner_wants_it() {
        assert!(wants_color(true, None, Some("xterm")));
        assert!(wants_color(true, Some(""), None));
        assert!(!wants_color(true, Some("1"), Some("xterm")));
        assert!(!wants_color(false, None, Some("xterm")));
        assert!(!wants_color(true, None, Some("dumb")));
        assert_eq!(Style::PLAIN.paint(Color::Red, "x"), "x");
        assert_eq!(Style { color: true, width: 80 }.paint(Color::Green, "x"), "\u{1b}[32mx\u{1b}[0m");
    }

    #[test]
    fn lines_end_as_the_terminal_needs_it() {
        assert_eq!(with_line_ends("a\nb\n", true), "a\r\nb\r\n");
        assert_eq!(with_line_ends("a\r\nb\n", true), "a\r\nb\r\n");
        assert_eq!(with_line_ends("a\nb\n", false), "a\nb\n");
    }

    #[test]
    fn a_strangers_text_stays_text() {
        assert_eq!(harmless("a\u{1b}[2Jb\u{202e}c\nd → é"), "a [2Jb c d → é");
    }

    #[test]
    fn words_stay_whole_where_they_can() {
        assert_eq!(wrapped("error rate 1 % → 12 %", 12), ["error rate 1", "% → 12 %"]);
        assert_eq!(wrapped("abcdefghij kl", 4), ["abcd", "efgh", "ij", "kl"]);
        assert_eq!(wrapped("ab abcdefgh", 4), ["ab", "abcd", "efgh"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!(wrapped("x y", 0), ["x", "y"]);
    }
}
