//! Whole numbers in a body, in any notation.

use serde::{Deserialize, Deserializer, de::Error, de::Unexpected};
use serde_json::value::RawValue;

/// More digits than a number of 64 bits has.
const MOST_DIGITS: usize = 20;

const EXPECTED: &&str = &"a whole number";

/// For `deserialize_with`: a whole number. `2.0` is one too, as in JSON Schema. The digits are read as
/// they are written: no number is rounded to a whole one.
///
/// # Errors
/// If the value is anything else.
pub fn integer<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let written = Box::<RawValue>::deserialize(from)?;
    let written = written.get();
    match Whole::of(written) {
        Whole::Fits(number) => Ok(number),
        Whole::TooLarge => Err(D::Error::invalid_value(Unexpected::Other("number"), EXPECTED)),
        Whole::Not => Err(D::Error::invalid_type(kind(written), EXPECTED)),
    }
}

/// What the text of a JSON value is.
#[derive(Debug, PartialEq, Eq)]
enum Whole {
    Fits(i64),
    /// A whole number beyond 64 bits.
    TooLarge,
    /// No whole number.
    Not,
}

impl Whole {
    fn of(text: &str) -> Self {
        Self::parse(text).unwrap_or(Self::Not)
    }

    fn parse(text: &str) -> Option<Self> {
        let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
        let (digits, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
            return None;
        }
        // An exponent beyond 64 bits moves the point beyond any digit of a body.
        let small = exponent.starts_with('-');
        let exponent = exponent.parse().unwrap_or(if small { i64::MIN } else { i64::MAX });
        let digits = [whole, fraction].concat();
        let significant = digits.trim_start_matches('0').trim_end_matches('0');
        if significant.is_empty() {
            return Some(Self::Fits(0));
        }
        let zeros = digits.len() - digits.trim_end_matches('0').len();
        let lengths = i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?;
        let Ok(zeros) = usize::try_from(lengths.saturating_add(exponent)) else {
            return Some(Self::Not);
        };
        if significant.len().saturating_add(zeros) > MOST_DIGITS {
            return Some(Self::TooLarge);
        }
        let number = format!("{sign}{significant}{}", "0".repeat(zeros)).parse();
        Some(number.map_or(Self::TooLarge, Self::Fits))
    }
}

/// What a JSON value is that is no whole number. No value is repeated.
fn kind(text: &str) -> Unexpected<'static> {
    match text.as_bytes().first() {
        Some(b'"') => Unexpected::Other("string"),
        Some(b'{') => Unexpected::Map,
        Some(b'[') => Unexpected::Seq,
        Some(b'n') => Unexpected::Unit,
        Some(b't' | b'f') => Unexpected::Other("boolean"),
        _ => Unexpected::Other("number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_digit_by_digit() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("0.0e99999999999999999999", 0),
            ("12", 12),
            ("-12", -12),
            ("2.0", 2),
            ("1.5e1", 15),
            ("1E+3", 1_000),
            ("1200e-2", 12),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808.00", i64::MIN),
        ] {
            assert_eq!(Whole::of(text), Whole::Fits(number), "{text}");
        }
        for text in [
            "1.5",
            "1.9999999999999999999",
            "1.0000000000000000001",
            "1e-1",
            "12e-2",
            "-0.5",
            "1e-99999999999999999999",
            "\"1\"",
            "true",
            "null",
            "[1]",
            "{}",
        ] {
            assert_eq!(Whole::of(text), Whole::Not, "{text}");
        }
        for text in
            ["9223372036854775808", "-9223372036854775809", "1e19", "1e99999999999999999999"]
        {
            assert_eq!(Whole::of(text), Whole::TooLarge, "{text}");
        }
    }
}
