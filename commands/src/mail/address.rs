//! E-mail addresses: one check for what may be registered and for what a letter can be sent to.

use icu_casemap::CaseMapper;
use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory},
};
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use std::{fmt, str::FromStr};
use unicode_normalization::UnicodeNormalization;

/// The most bytes of an address, and of the part before the `@` (RFC 5321).
const MAX: usize = 254;
const LOCAL_MAX: usize = 64;
/// A pattern of no dots, which is drawn as a blank.
const BLANK_BRAILLE: char = '\u{2800}';

/// An address that a letter can be sent to. Its domain is in the form that mail servers know: small
/// letters, and Punycode for what is not ASCII.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(lettre::Address);

/// The text is not an address that a letter can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is too long for a mail server.
    #[error("an e-mail address has at most {MAX} characters")]
    TooLong,
    /// It does not have the form of an address.
    #[error("the text is not an e-mail address")]
    Malformed,
}

impl Address {
    /// The address as one person's, however it is written: without the differences of letter case,
    /// of compatible characters and of the two forms of a domain.
    pub fn identity(&self) -> String {
        let folded: String = self.0.user().nfkc().collect();
        let folded: String = CaseMapper::new().fold_string(&folded).nfkc().collect();
        format!("{folded}@{}", self.0.domain())
    }

    /// The domain in Unicode, as people write it.
    pub fn domain_in_unicode(&self) -> String {
        Uts46::new()
            .to_unicode(self.0.domain().as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast)
            .0
            .into_owned()
    }

    pub(super) fn mailable(&self) -> &lettre::Address {
        &self.0
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > MAX {
            return Err(AddressError::TooLong);
        }
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Malformed)?;
        let dotted = !local.starts_with('.') && !local.ends_with('.') && !local.contains("..");
        let plain = !local.contains(is_odd) && !domain.contains(is_odd);
        if !plain || !dotted || !(1..=LOCAL_MAX).contains(&local.len()) {
            return Err(AddressError::Malformed);
        }
        let domain = Uts46::new()
            .to_ascii(
                domain.as_bytes(),
                AsciiDenyList::STD3,
                Hyphens::CheckFirstLast,
                DnsLength::Verify,
            )
            .map_err(|_| AddressError::Malformed)?;
        if local.len() + 1 + domain.len() > MAX {
            return Err(AddressError::TooLong);
        }
        // The library's own check refuses letters that are written with a combining mark. Of ASCII,
        // `is_odd` has left what RFC 5322 calls atoms; beyond it, RFC 6531 allows everything.
        Ok(Self(lettre::Address::new_dangerous(local, &*domain)))
    }
}

impl fmt::Debug for Address {
    /// Shows nothing of the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(..)")
    }
}

/// Whether no address has this character. A mapping of the domain would drop what is not seen, so
/// that two addresses which look alike to the program would look alike to people, too, and be two.
fn is_odd(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || "\"(),:;<>@[\\]".contains(c)
        || c == BLANK_BRAILLE
        || CodePointMapData::<GeneralCategory>::new().get(c) == GeneralCategory::Format
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Address, AddressError> {
        text.parse()
    }

    #[test]
    fn a_domain_goes_out_in_punycode() {
        for (text, mailed) in [
            ("ann.lee+shop@Example.ORG", "ann.lee+shop@example.org"),
            ("ann@bücher.example", "ann@xn--bcher-kva.example"),
            ("zoë@BÜCHER.example", "zoë@xn--bcher-kva.example"),
            ("a@b", "a@b"),
        ] {
            assert_eq!(of(text).unwrap().mailable().to_string(), mailed);
        }
        assert_eq!(of("a@xn--bcher-kva.example").unwrap().domain_in_unicode(), "bücher.example");
    }

    #[test]
    fn what_cannot_be_mailed_is_no_address() {
        for text in [
            "",
            "ann",
            "@b",
            "a@",
            "a@@b",
            "a b@c",
            "a@b c",
            "a@b..c",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a@-b",
            "a@b-",
            "a@b.",
            "a@.b",
            "a,b@c",
            "a\0@b",
            "<a@b>",
            "a@b@c",
            "a@[127.0.0.1]",
            "\"a\"@b",
            "\u{200b}z@x.example",
            "eve\u{200b}@x.example",
            "eve@x\u{200b}.example",
            "e\u{ad}@x.example",
            "e\u{2800}@x.example",
            "e\u{3164}@x.example",
            "e\u{202e}@x.example",
            "e\u{200d}@x.example",
            "e@x\u{fe0f}.example",
            "a@xn--a.example",
            "a@b_c.example",
        ] {
            assert_eq!(of(text), Err(AddressError::Malformed), "{text:?}");
        }
        let long = |local: usize, domain: usize| {
            format!("{}@{}", "a".repeat(local), vec!["b".repeat(49); domain].join("."))
        };
        assert!(of(&long(64, 3)).is_ok());
        assert_eq!(of(&long(65, 3)), Err(AddressError::Malformed));
        assert_eq!(of(&long(64, 4)), Err(AddressError::TooLong));
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        for (one, other) in [
            ("ann@example.org", "ANN@Example.ORG"),
            ("zo\u{eb}@example.org", "ZOE\u{308}@example.org"),
            ("\u{3a3}\u{391}\u{3a3}@x.example", "\u{3c3}\u{3b1}\u{3c3}@x.example"),
            ("\u{3c3}\u{3b1}\u{3c2}@x.example", "\u{3c3}\u{3b1}\u{3c3}@x.example"),
            ("stra\u{df}e@x.example", "STRASSE@x.example"),
            ("ann@b\u{fc}cher.example", "ann@xn--bcher-kva.example"),
            ("ann@b\u{fc}cher.example", "ann@XN--BCHER-KVA.example"),
            ("ann@bu\u{308}cher\u{3002}example", "ann@b\u{fc}cher.example"),
            ("\u{ff21}nn@x.example", "ann@x.example"),
            ("\u{fb01}@x.example", "fi@x.example"),
            ("\u{212a}@x.example", "k@x.example"),
        ] {
            assert_eq!(of(one).unwrap().identity(), of(other).unwrap().identity(), "{one} {other}");
        }
        assert_ne!(
            of("ann@x.example").unwrap().identity(),
            of("ana@x.example").unwrap().identity()
        );
    }
}
