//! What the texts of requests may hold.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory},
};
use unicode_normalization::UnicodeNormalization;

/// The characters that many scripts need inside of words, and emoji between their parts.
const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];
/// A pattern of no dots, which is drawn as a blank.
const BLANK_BRAILLE: char = '\u{2800}';

/// What the text of one field may hold, beside what every text may.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// The least and the most characters, without the white space around.
    length: [usize; 2],
    /// Whether it may have several lines.
    lines: bool,
    /// Whether it may hold a URL.
    links: bool,
}

/// A customer's or product's name.
pub const NAME: Text = Text { length: [1, 200], lines: false, links: false };
/// A category, a reason or a means of payment.
pub const SHORT_TEXT: Text = Text { length: [1, 200], lines: false, links: true };
/// A description.
pub const DESCRIPTION: Text = Text { length: [0, 10_000], lines: true, links: true };
/// A shipping address.
pub const ADDRESS: Text = Text { length: [1, 2_000], lines: true, links: true };

impl Text {
    /// What is wrong with `text`, which has no white space around; `None` if nothing is.
    pub(super) fn fault(&self, text: &str) -> Option<String> {
        let [shortest, longest] = self.length;
        if let Some(fault) = hidden(text) {
            return Some(fault.to_owned());
        }
        if shortest > 0 && text.chars().all(is_invisible) {
            return Some("must not be blank".to_owned());
        }
        if !(shortest..=longest).contains(&text.chars().count()) {
            return Some(format!("must have from {shortest} to {longest} characters"));
        }
        if !self.lines && text.chars().any(char::is_control) {
            return Some("must be one line".to_owned());
        }
        if !self.links && text.nfkc().collect::<String>().contains("://") {
            return Some("must not contain ://".to_owned());
        }
        None
    }
}

/// What no text may hold: characters that are not seen, or that change how others are seen. Line
/// ends and tabs may be part of a longer text. A joiner is allowed between two visible characters.
pub(super) fn hidden(text: &str) -> Option<&'static str> {
    let category = CodePointMapData::<GeneralCategory>::new();
    let mut before = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let joins = |next: Option<&char>| {
            JOINERS.contains(&c)
                && !is_invisible(before)
                && next.is_some_and(|it| !is_invisible(*it))
        };
        match category.get(c) {
            GeneralCategory::Control if !matches!(c, '\n' | '\r' | '\t') => {
                return Some("must not contain control characters");
            }
            GeneralCategory::Format if !joins(rest.peek()) => {
                return Some("must not contain invisible formatting characters");
            }
            GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => {
                return Some("must not contain the separators U+2028 and U+2029");
            }
            _ => {}
        }
        // Emoji put a variation selector before the joiner.
        if !is_variation_selector(c) {
            before = c;
        }
    }
    None
}

/// Whether nothing is seen where the character stands.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || c == BLANK_BRAILLE
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

fn is_variation_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}')
}

/// The value of a decimal digit of any script. Each script has its ten digits in a row, from 0 on.
pub(super) fn digit(c: char) -> Option<u8> {
    let is_digit = |code: u32| {
        CodePointMapData::<GeneralCategory>::new().get32(code) == GeneralCategory::DecimalNumber
    };
    let code = u32::from(c);
    is_digit(code).then(|| {
        let before = (0..code).rev().take_while(|code| is_digit(*code)).count();
        u8::try_from(before % 10).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_scripts_pass() {
        for name in [
            "Ann",
            "Zoë",
            "José María",
            "O'Neill",
            "李",
            "علی‌رضا",
            "क्‍ष",
            "Ἀγαμέμνων",
            "A\u{a0}B",
            "👩\u{200d}🚀 and ❤\u{fe0f}\u{200d}🔥",
            "Anne-Marie (Ann)",
            "C:/ //",
        ] {
            assert_eq!(NAME.fault(name), None, "{name:?}");
        }
    }

    #[test]
    fn what_is_not_seen_or_changes_what_is_seen_is_refused() {
        for text in [
            "",
            "\u{200b}",
            "\u{2800}",
            "\u{3164}",
            "\u{fe0f}",
            "\u{115f}\u{1160}",
            "A\0b",
            "A\u{1b}[31m",
            "A\u{7f}b",
            "A\u{85}b",
            "A\u{200b}b",
            "A\u{feff}b",
            "A\u{ad}b",
            "A\u{2060}b",
            "\u{200d}A",
            "A\u{200d}",
            "A\u{200d} b",
            "A\u{200d}\u{200d}b",
            "A\u{202e}b",
            "A\u{2066}b",
            "A\u{200f}b",
            "A\u{61c}b",
            "A\u{2028}b",
            "A\u{2029}b",
            "A\u{e0041}b",
            "A\u{fff9}b",
            "Ann\nBcc: x",
            "A\rb",
            "A\tb",
            "http://evil.example",
            "see http：／／evil.example",
        ] {
            assert!(NAME.fault(text).is_some(), "{text:?}");
        }
        assert_eq!(ADDRESS.fault("1 Mill Lane\r\nYork\n\tYO1"), None);
        assert_eq!(SHORT_TEXT.fault("see https://shop.example"), None);
        assert!(ADDRESS.fault("1 Mill Lane\u{2028}York").is_some());
        assert!(DESCRIPTION.fault("\u{b}").is_some() && DESCRIPTION.fault("").is_none());
    }

    #[test]
    fn a_digit_of_any_script_has_its_value() {
        for (zero, nine) in [('0', '9'), ('٠', '٩'), ('०', '९'), ('０', '９'), ('𝟎', '𝟿')]
        {
            assert_eq!((digit(zero), digit(nine)), (Some(0), Some(9)));
        }
        assert_eq!([digit('x'), digit('²'), digit('一')], [None; 3]);
    }
}
