//! Text from anywhere, shown as it is and able to do nothing.
//!
//! Names, versions and notes come from events and people. On a page they must neither be markup nor hide anything: an escape
//! sequence, a character that turns the reading direction, a space of no width are drawn instead of obeyed. Templates use this
//! for every value (`askama.toml`), the chart for its labels.

use std::fmt::{self, Write};

use askama::filters::Escaper;

/// Escapes for HTML and SVG, in text and in quoted attributes.
#[derive(Clone, Copy, Debug)]
pub struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, mut dest: W, text: &str) -> fmt::Result {
        for c in text.chars() {
            write_visible(&mut dest, c)?;
        }
        Ok(())
    }
}

fn write_visible(dest: &mut impl Write, c: char) -> fmt::Result {
    match c {
        '<' => dest.write_str("&lt;"),
        '>' => dest.write_str("&gt;"),
        '&' => dest.write_str("&amp;"),
        '"' => dest.write_str("&quot;"),
        '\'' => dest.write_str("&#39;"),
        '\n' | '\t' => dest.write_char(c),
        c if is_hidden(c) => write!(dest, "[U+{:04X}]", u32::from(c)),
        c => dest.write_char(c),
    }
}

/// Control characters, and format characters that reorder or vanish.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// The same for text that is put together by hand.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Writing to a string does not fail.
        let _ = write_visible(&mut out, c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_obeyed_and_nothing_is_hidden() {
        for (text, shown) in [
            ("<script>alert('x')</script>", "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"),
            ("\u{1b}[31mred", "[U+001B][31mred"),
            ("a\0b\rc", "a[U+0000]b[U+000D]c"),
            ("\" onload=\"x", "&quot; onload=&quot;x"),
            ("gnp\u{202e}exe", "gnp[U+202E]exe"),
            ("zero\u{200b}width\u{9b}", "zero[U+200B]width[U+009B]"),
            ("Größe, 模型 🙂", "Größe, 模型 🙂"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }
}
