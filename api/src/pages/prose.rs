//! Text with back-ticks, as HTML.

use askama::filters::HtmlSafe;
use std::fmt;

/// Text that is escaped when it is shown; what stands between back-ticks becomes code.
pub struct Prose<'a>(pub &'a str);

impl fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.split('`').enumerate() {
            let is_code = index % 2 == 1;
            f.write_str(if is_code { "<code>" } else { "" })?;
            escape(part, f)?;
            f.write_str(if is_code { "</code>" } else { "" })?;
        }
        Ok(())
    }
}

/// It escapes its text itself.
impl HtmlSafe for Prose<'_> {}

fn escape(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    text.chars().try_for_each(|letter| match letter {
        '&' => f.write_str("&amp;"),
        '<' => f.write_str("&lt;"),
        '>' => f.write_str("&gt;"),
        '"' => f.write_str("&quot;"),
        '\'' => f.write_str("&#39;"),
        letter => f.write_str(letter.encode_utf8(&mut [0; 4])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_escaped_and_back_ticks_mark_code() {
        for (text, html) in [
            ("plain", "plain"),
            ("a `<b>` c", "a <code>&lt;b&gt;</code> c"),
            ("\"'&", "&quot;&#39;&amp;"),
            ("open `end", "open <code>end</code>"),
        ] {
            assert_eq!(Prose(text).to_string(), html);
        }
    }
}
