//! Which representation of a page a client gets (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

/// A representation of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For a browser.
    Html,
    /// For a program.
    Json,
    /// For a terminal or another document.
    Markdown,
}

impl Form {
    fn media_type(self) -> (&'static str, &'static str) {
        match self {
            Self::Html => ("text", "html"),
            Self::Json => ("application", "json"),
            Self::Markdown => ("text", "markdown"),
        }
    }

    /// The `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
            Self::Markdown => "text/markdown; charset=utf-8",
        }
    }
}

/// The form that the client prefers among `offers`; of those it likes equally, the earlier one.
///
/// A client that accepts none of them, or says nothing, gets the first.
pub fn choose(headers: &HeaderMap, offers: [Form; 3]) -> Form {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let ranges: Vec<Range> =
        lines.flat_map(|line| split(line, ',')).filter_map(Range::parse).collect();
    let mut best = (offers[0], Preference::NONE);
    for form in offers {
        let preference = preference(&ranges, form);
        if preference > best.1 {
            best = (form, preference);
        }
    }
    best.0
}

/// How much a client likes a form. The quality decides, then whether the client named the form
/// itself: `text/html, */*` means HTML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    quality: u16,
    specificity: u8,
}

impl Preference {
    const NONE: Self = Self { quality: 0, specificity: u8::MAX };
}

/// The most specific range that matches a form decides about it, also when it refuses it (`q=0`).
fn preference(ranges: &[Range], form: Form) -> Preference {
    let matching = ranges.iter().filter_map(|range| {
        let specificity = range.matches(form)?;
        Some((specificity, range.quality))
    });
    let most_specific = matching.max();
    most_specific.map_or(Preference::NONE, |(specificity, quality)| match quality {
        0 => Preference::NONE,
        quality => Preference { quality, specificity },
    })
}

/// A media range with its quality.
#[derive(Debug, PartialEq, Eq)]
struct Range<'a> {
    main: &'a str,
    sub: &'a str,
    /// Whether it has a parameter other than `charset=utf-8`: no form has one.
    is_special: bool,
    /// In thousandths.
    quality: u16,
}

impl<'a> Range<'a> {
    /// `None` for a range that is malformed.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = split(text, ';').map(str::trim);
        let (main, sub) = parts.next()?.split_once('/')?;
        let is_token = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
        if !is_token(main) || !is_token(sub) || (main == "*" && sub != "*") {
            return None;
        }
        let mut range = Self { main, sub, is_special: false, quality: 1000 };
        for parameter in parts.filter(|part| !part.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if name.trim().eq_ignore_ascii_case("q") {
                range.quality = quality(value.trim())?;
                // What follows is an extension of the header, and no part of the media type.
                break;
            }
            let is_utf8 = value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8");
            range.is_special |= !(name.trim().eq_ignore_ascii_case("charset") && is_utf8);
        }
        Some(range)
    }

    /// How specific the range is, if it matches the form.
    fn matches(&self, form: Form) -> Option<u8> {
        let (main, sub) = form.media_type();
        if self.is_special {
            return None;
        }
        match (self.main, self.sub) {
            ("*", "*") => Some(0),
            (of, "*") if of.eq_ignore_ascii_case(main) => Some(1),
            (of, it) if of.eq_ignore_ascii_case(main) && it.eq_ignore_ascii_case(sub) => Some(2),
            _ => None,
        }
    }
}

/// `0` to `1` with at most three decimals, in thousandths.
fn quality(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: u16 = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

/// Splits at a separator outside quoted strings.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |letter: char| {
        if is_escaped {
            is_escaped = false;
            return false;
        }
        match letter {
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            letter => return letter == separator && !is_quoted,
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Form::{Html, Json, Markdown};
    use axum::http::HeaderValue;

    const CHROMIUM: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,\
        image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7";

    fn chosen(accept: &[&str], offers: [Form; 3]) -> Form {
        let line = |text: &&str| (header::ACCEPT, HeaderValue::from_str(text).unwrap());
        choose(&accept.iter().map(line).collect(), offers)
    }

    #[test]
    fn a_client_gets_what_it_likes_most() {
        for (accept, form) in [
            (CHROMIUM, Html),
            ("text/html", Html),
            ("TEXT/HTML", Html),
            ("application/json", Json),
            ("application/*", Json),
            ("text/*", Html),
            ("text/markdown", Markdown),
            ("text/markdown; charset=UTF-8", Markdown),
            ("text/html;q=0.4, text/markdown;q=0.5", Markdown),
            ("text/html;q=0.5, application/json;q=0.50", Json),
            ("application/json, text/html", Json),
            ("text/html, */*", Html),
            ("application/json, text/plain, */*", Json),
            ("*/*;q=0.1, text/html;q=0.001", Json),
            ("text/*;q=0.5, text/html;q=0.1", Markdown),
            ("application/json;q=0, */*", Html),
            ("text/html;level=1, text/markdown;q=0.1", Markdown),
            ("text/html;q=0.9;extension=\"a,b\", text/markdown;q=0.8", Html),
            ("text/x;note=\"a, text/html\\\", b\", text/markdown", Markdown),
        ] {
            assert_eq!(chosen(&[accept], [Json, Html, Markdown]), form, "{accept}");
        }
        assert_eq!(chosen(&["text/html;q=0.1", "text/markdown"], [Json, Html, Markdown]), Markdown);
    }

    #[test]
    fn a_client_that_does_not_choose_gets_the_first() {
        let undecided = [
            "*/*",
            "",
            "image/png",
            "*/*;q=0",
            "text",
            "text/html;q=2",
            "text/html;q=0.0001",
            "*/html",
        ];
        for first in [Json, Html, Markdown] {
            let others = [Json, Html, Markdown].into_iter().filter(|form| *form != first);
            let others: Vec<Form> = others.collect();
            let offers = [first, others[0], others[1]];
            assert_eq!(chosen(&[], offers), first);
            for accept in undecided {
                assert_eq!(chosen(&[accept], offers), first, "{accept}");
            }
        }
    }
}
