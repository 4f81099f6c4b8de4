//! What goes to stdout: tables for people, JSON and YAML for programs.
//!
//! Text in tables comes from users' events, so control characters are written as escapes: a model's name must not be able to
//! paint on somebody's terminal.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::failure::{Code, Failure};

/// How a command writes what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One JSON document a line
    Jsonl,
    /// YAML
    Yaml,
}

impl Output {
    /// Writes a list in the form that was asked for; `table` is only called where people read.
    ///
    /// # Errors
    /// Stdout is closed or full.
    pub fn list<T: Serialize>(self, all: &[T], table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self {
            Output::Jsonl => all.iter().try_for_each(|one| say(&json(one)?)),
            Output::Table | Output::Json | Output::Yaml => self.one(&all, table),
        }
    }

    /// Writes one thing in the form that was asked for.
    ///
    /// # Errors
    /// Stdout is closed or full.
    pub fn one<T: Serialize>(self, one: &T, table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self {
            Output::Table => print(&table()),
            Output::Json => say(&serde_json::to_string_pretty(one).map_err(|e| Failure::of(&e))?),
            Output::Jsonl => say(&json(one)?),
            Output::Yaml => print(&serde_saphyr::to_string(one).map_err(|e| Failure::of(&e))?),
        }
    }
}

pub fn json<T: Serialize>(one: &T) -> Result<String, Failure> {
    serde_json::to_string(one).map_err(|e| Failure::of(&e))
}

/// A line.
///
/// # Errors
/// Stdout is closed or full.
pub fn say(line: &str) -> Result<(), Failure> {
    print(&format!("{line}\n"))
}

/// Text as it is.
///
/// # Errors
/// Stdout is closed or full.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        // `bellwether … | head`.
        io::ErrorKind::BrokenPipe => Failure::silent(Code::Closed),
        _ => Failure::new(format!("cannot write to stdout: {e}")),
    })
}

/// Rows under a heading, in columns as wide as their widest cell; the last column is as long as it is.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let clean: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| inert(cell)).collect()).collect();
    let mut widths: Vec<usize> = heading.iter().map(|h| h.chars().count()).collect();
    for row in &clean {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let mut line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (i, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            text.push_str(if i == 0 { "" } else { "  " });
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(heading.to_vec());
    clean.iter().for_each(|row| line(row.iter().map(String::as_str).collect()));
    out
}

/// Text of strangers for a terminal.
pub fn inert(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_strangers_cannot_paint() {
        let rows = vec![vec!["a".to_owned(), "long one".to_owned()], vec!["wide cell".to_owned(), "\u{1b}[31mred".to_owned()]];
        assert_eq!(table(&["X", "Y"], &rows), "X          Y\na          long one\nwide cell  \\u{1b}[31mred\n");
    }
}
