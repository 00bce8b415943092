//! Finds the numbers of payment cards in free text.
//!
//! The log keeps what it gets for ever, so a card number must be refused before anything is
//! written. It may be written with separators and in the digits of any script.

use super::text::digit;
use commands::mail::Address;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

/// How many digits a card number has (ISO/IEC 7812).
const LENGTH: std::ops::RangeInclusive<usize> = 13..=19;
/// The most digits of an international telephone number (E.164).
const TELEPHONE: usize = 15;
/// A number of a card that no network is known to issue has at least so many digits.
const UNBROKEN: usize = 16;
/// Lengths of a UUID with its hyphens and without them.
const IDS: [usize; 2] = [36, 32];

/// Digits that only separators divide: no letter stands between two of them.
#[derive(Default)]
struct Run {
    digits: Vec<u8>,
    /// Where the groups of digits begin.
    starts: Vec<usize>,
    /// Whether a plus sign stands before the first digit, as in a telephone number.
    plus: bool,
}

/// Whether `text` holds what may be the number of a payment card: 13 to 19 digits with a correct
/// check digit, which begin like a number that some network issues. With 16 digits and more, and
/// without separators, the beginning does not matter.
///
/// Other numbers pass: a UUID, an EAN and an ISBN, an IMEI, a telephone number that begins with a plus
/// sign, and lists of years or sizes. An e-mail address is often made of a number, so there the
/// beginning always matters.
pub fn holds_card(text: &str) -> bool {
    let address = text.trim().parse::<Address>().is_ok();
    let mut run = Run::default();
    let (mut in_group, mut before) = (false, ' ');
    for c in without_ids(text).nfkc() {
        if let Some(digit) = digit(c) {
            if !in_group {
                run.plus |= run.digits.is_empty() && before == '+';
                run.starts.push(run.digits.len());
            }
            run.digits.push(digit);
            in_group = true;
        } else {
            in_group = false;
            let ends = c.is_alphabetic() || (c == ' ' && matches!(before, ',' | ';'));
            if ends && std::mem::take(&mut run).holds_card(address) {
                return true;
            }
        }
        before = c;
    }
    run.holds_card(address)
}

impl Run {
    /// Tries each stretch of whole groups: the number of a card may have its date beside it.
    fn holds_card(&self, address: bool) -> bool {
        let Self { digits, starts, plus } = self;
        if *plus && digits.len() <= TELEPHONE {
            return false;
        }
        let ends = || starts.iter().skip(1).copied().chain([digits.len()]);
        starts.iter().any(|&start| {
            ends().filter(|end| *end > start && LENGTH.contains(&(end - start))).any(|end| {
                let number = &digits[start..end];
                let unbroken = !address && starts.len() == 1 && number.len() >= UNBROKEN;
                passes_luhn(number)
                    && !is_ean(number)
                    && !self.is_in_pairs(start, end)
                    && (unbroken || is_issued(number))
            })
        })
    }

    /// Whether a stretch is a list of numbers with two digits, such as sizes.
    fn is_in_pairs(&self, start: usize, end: usize) -> bool {
        let groups = self.starts.iter().copied().filter(|begin| (start..end).contains(begin));
        groups.eq((start..end).step_by(2))
    }
}

/// The text with a letter in the place of each id: the digits of a UUID are no card's.
fn without_ids(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let begins = !kept.ends_with(char::is_alphanumeric);
        let id = IDS.iter().filter_map(|length| rest.get(..*length)).find(|id| {
            let ends = !rest[id.len()..].starts_with(char::is_alphanumeric);
            begins && ends && Uuid::try_parse(id).is_ok()
        });
        kept.push(if id.is_some() { 'x' } else { c });
        rest = &rest[id.map_or(c.len_utf8(), str::len)..];
    }
    kept
}

fn passes_luhn(number: &[u8]) -> bool {
    let sum: u32 = number.iter().rev().enumerate().fold(0, |sum, (place, &digit)| {
        let digit = u32::from(digit);
        sum + if place % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }
    });
    sum.is_multiple_of(10)
}

/// Whether the number is an EAN (GTIN-13), by its own check digit, or an ISBN.
fn is_ean(number: &[u8]) -> bool {
    let weighted = |(place, &digit): (usize, &u8)| [1, 3][place % 2] * u32::from(digit);
    let sum: u32 = number.iter().enumerate().map(weighted).sum();
    number.len() == 13 && (sum.is_multiple_of(10) || matches!(number, [9, 7, 8 | 9, ..]))
}

/// Whether a network of cards issues numbers of this beginning and length.
fn is_issued(number: &[u8]) -> bool {
    let first =
        |n: usize| number.iter().take(n).fold(0, |value, &digit| value * 10 + u32::from(digit));
    match (number.len(), first(2)) {
        (13 | 16 | 19, 40..=49)
        | (16, 51..=55)
        | (15, 34 | 37)
        | (14.., 30 | 36 | 38 | 39)
        | (_, 50 | 56..=69) => true,
        (16.., 35) => (3528..=3589).contains(&first(4)),
        (16.., 22..=27) => matches!(first(4), 2200..=2204 | 2221..=2720),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_number_is_found_however_it_is_written() {
        for text in [
            "4242424242424242",
            "4242 4242 4242 4242",
            "my card is 4242-4242.4242/4242, please",
            "4242\u{a0}4242\u{2007}4242\u{2009}4242",
            "4242\u{2013}4242_4242·4242",
            "4242\n4242\t4242\r\n4242",
            "(4242) 4242 (4242) 4242",
            "4 2 4 2 4 2 4 2 4 2 4 2 4 2 4 2",
            "\u{ff14}\u{ff12}\u{ff14}\u{ff12}424242424242",
            "٤٢٤٢٤٢٤٢٤٢٤٢٤٢٤٢",
            "४२४२ ४२४२ ४२४२ ४२४२",
            "\u{1d7d2}\u{1d7d0}42424242424242",
            "④②④②424242424242",
            "4\u{200b}2\u{200b}42424242424242",
            "card4242424242424242x",
            "4242 4242 4242 4242 12/29 123",
            "2 x 4242 4242 4242 4242",
            "+4242 4242 4242 4242",
            "378282246310005",
            "3782 822463 10005",
            "30569309025904",
            "5555555555554444, 4000056655665556",
            "6011111111111117",
            "2223003122003222",
            "3530111333300000",
            "1234567812345670",
            "4222222222222",
            "6304000000000000 or 12",
            "6205500000000000004",
            "4242424242424242@shop.example",
            "ann4242424242424242@shop.example",
        ] {
            assert!(holds_card(text), "{text:?}");
        }
    }

    #[test]
    fn other_numbers_pass() {
        for text in [
            "",
            "pm_card_visa",
            "pm_1NvKZbLkdIwHu7ixABCD",
            "1 Mill Lane, York YO1 7EP, +44 1904 555 0123",
            "+49 30 9018 20123",
            "4242 4242 4242 4241",
            "4242 4242 4242",
            "42424242424242424242424242424242",
            "order 01900000-0000-7000-8000-000000000000 twice",
            "0192a3b4-5678-7123-8456-123456789012",
            "ISBN 978-0-306-40615-7, 979-8-88645-174-0",
            "from 2026-11-28 10:00 to 2026-11-29 12:00",
            "4242 of 4242, 4242 and 4242",
            "reader-01a2266933307000800012345670abcd@shop.example",
            "8613812345678@shop.example",
            "01a22669333070008000123456780000",
            "1998, 2002, 2006, 2010",
            "1998 2002 2006 2010",
            "30 34 36 38 40 42 44 46 48",
            "EAN 4006381333931",
            "IMEI 490154203237518 or 352099001761481",
        ] {
            assert!(!holds_card(text), "{text:?}");
        }
        let isbn = |n: u32| format!("978{:010}", u64::from(n) * 7919);
        assert!((0..100).all(|n| !holds_card(&isbn(n))));
        let id =
            |n: u128| Uuid::from_u128(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
        assert!((0..1_000).all(|n| !holds_card(&id(n).to_string())));
        let sizes = |n: u32| {
            let sizes: Vec<_> =
                (0..8).map(|nth| (30 + (n * 7 + nth * 3) % 30).to_string()).collect();
            sizes.join(" ")
        };
        assert!((0..1_000).all(|n| !holds_card(&sizes(n))));
        let ean = |n: u64| {
            let digits = format!("40{:010}", n * 7_919);
            let sum: u64 =
                digits.bytes().enumerate().map(|(i, d)| [1, 3][i % 2] * u64::from(d - b'0')).sum();
            format!("{digits}{}", (10 - sum % 10) % 10)
        };
        assert!((0..1_000).all(|n| !holds_card(&ean(n))));
        let address = |n| format!("reader-{}@shop.example", id(n).simple());
        assert!((0..10_000).all(|n| !holds_card(&address(n))));
    }
}
