//! Validation of values. Every invalid value is noted with its JSON pointer, and one answer lists
//! them all.

use crate::{
    extract::{Field, integer},
    problem::{FieldError, Kind, Problem},
};
use events::{Currency, Money};
use serde::{Deserialize, Serialize};
use std::{ops::RangeInclusive, sync::Arc};

/// Length of a customer's or product's name, in characters.
pub const NAME: RangeInclusive<usize> = 1..=200;
/// Length of a category, a reason or a means of payment, in characters.
pub const SHORT_TEXT: RangeInclusive<usize> = 1..=200;
/// Length of a description, in characters.
pub const DESCRIPTION: RangeInclusive<usize> = 0..=10_000;
/// Length of a shipping address, in characters.
pub const ADDRESS: RangeInclusive<usize> = 1..=2_000;
/// The most bytes of an e-mail address (RFC 5321).
const EMAIL_MAX: usize = 254;
/// A price, in minor units.
const PRICE: RangeInclusive<i64> = 0..=1_000_000_000_000;

/// Money in a request. The validation checks the currency, so it is a plain text here.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Money, example = json!({ "amount": 2999, "currency": "GBP" }))]
pub struct MoneyBody {
    /// Amount in minor units, such as pence or cents.
    #[serde(deserialize_with = "integer")]
    pub amount: i64,
    /// Currency code of ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$")]
    pub currency: String,
}

/// A price in a request.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "amount": 899, "currency": "GBP" }))]
#[allow(dead_code, reason = "describes the bounds in the OpenAPI document")]
pub struct Price {
    /// Amount in minor units, such as pence or cents.
    #[schema(minimum = 0, maximum = 1_000_000_000_000_i64)]
    amount: i64,
    /// Currency code of ISO 4217; must be the currency of the shop.
    #[schema(max_length = 3, pattern = "^[A-Z]{3}$")]
    currency: String,
}

/// Collects the invalid values of a request.
#[derive(Debug, Default)]
pub struct Validator(Vec<FieldError>);

impl Validator {
    /// Notes an invalid value.
    pub fn refuse(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.to_owned(), detail: detail.into() });
    }

    /// Notes an invalid value unless `holds`.
    pub fn check(&mut self, holds: bool, pointer: &str, detail: &str) {
        if !holds {
            self.refuse(pointer, detail);
        }
    }

    /// Checks a text: its length in characters, that it is not blank unless it may be empty, and
    /// that it has no NUL, which PostgreSQL cannot store.
    pub fn text(&mut self, text: &str, pointer: &str, length: RangeInclusive<usize>) -> Arc<str> {
        if text.contains('\0') {
            self.refuse(pointer, "must not contain the character NUL");
        } else if !length.contains(&text.chars().count()) {
            let (shortest, longest) = length.into_inner();
            self.refuse(pointer, format!("must have from {shortest} to {longest} characters"));
        } else if *length.start() > 0 && text.chars().all(|c| c.is_whitespace() || c.is_control()) {
            self.refuse(pointer, "must not be blank");
        }
        text.into()
    }

    /// Checks an optional text.
    pub fn optional(
        &mut self,
        text: Option<&String>,
        pointer: &str,
        length: RangeInclusive<usize>,
    ) -> Option<Arc<str>> {
        text.map(|text| self.text(text, pointer, length))
    }

    /// The value of a patch's member that must not be null; `None` if the member is absent.
    pub fn required<'a, T>(&mut self, field: &'a Field<T>, pointer: &str) -> Option<&'a T> {
        self.check(!matches!(field, Field::Null), pointer, "must not be null");
        field.nullable().flatten()
    }

    /// Checks a price, which must be in the currency of the shop.
    pub fn price(&mut self, price: &MoneyBody, pointer: &str, currency: Currency) -> Money {
        let (least, most) = PRICE.into_inner();
        let in_bounds = PRICE.contains(&price.amount);
        self.check(
            in_bounds,
            &format!("{pointer}/amount"),
            &format!("must be from {least} to {most}"),
        );
        if price.currency != currency.code() {
            let detail = format!("must be {}, the currency of the shop", currency.code());
            self.refuse(&format!("{pointer}/currency"), detail);
        }
        Money::new(price.amount, currency)
    }

    /// Checks the form of an e-mail address, and returns it without the white space around it.
    pub fn email<'a>(&mut self, email: &'a str, pointer: &str) -> &'a str {
        let email = email.trim();
        if email.len() > EMAIL_MAX {
            self.refuse(pointer, format!("must have at most {EMAIL_MAX} characters"));
        } else if !is_email(email) {
            self.refuse(pointer, "must be an e-mail address");
        }
        email
    }

    /// Ends the validation.
    ///
    /// # Errors
    /// `validation-failed` with all invalid values.
    pub fn end(self) -> Result<(), Problem> {
        self.0.first().map_or(Ok(()), |first| Err(refusal(first, &self.0)))
    }

    /// The problem of a request with one invalid value.
    pub fn refusal(pointer: &str, detail: &str) -> Problem {
        let error = FieldError { pointer: pointer.to_owned(), detail: detail.to_owned() };
        refusal(&error, std::slice::from_ref(&error))
    }
}

fn refusal(first: &FieldError, all: &[FieldError]) -> Problem {
    let detail = match first.pointer.as_str() {
        "" => first.detail.clone(),
        pointer => format!("{pointer} {}", first.detail),
    };
    Problem::new(Kind::ValidationFailed, detail).with_errors(all)
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"(),:;<>@[\\]".contains(c);
    let plain = !text.replacen('@', "", 1).contains(odd);
    let dotted =
        |part: &str| !part.starts_with('.') && !part.ends_with('.') && !part.contains("..");
    let labels = domain.split('.').all(|label| {
        !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    });
    plain && (1..=64).contains(&local.len()) && dotted(local) && labels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(validate: impl FnOnce(&mut Validator)) -> Vec<String> {
        let mut validator = Validator::default();
        validate(&mut validator);
        validator.0.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn well_formed_addresses_pass() {
        for email in ["a@b", "ann.lee+shop@example.org", " ann@b.example ", "zoë@bücher.example"]
        {
            assert!(faults(|v| _ = v.email(email, "/email")).is_empty(), "{email}");
        }
        let long = format!("{}@example.org", "a".repeat(250));
        for email in [
            "", "ann", "@b", "a@", "a@@b", "a b@c", "a@b c", "a@b..c", ".a@b", "a.@b", "a@-b",
            "a@b.", "a,b@c", "a\0@b", "<a@b>", "a@b@c", &long,
        ] {
            assert_eq!(faults(|v| _ = v.email(email, "/email")), ["/email"], "{email}");
        }
    }

    #[test]
    fn the_length_of_a_text_is_counted_in_characters() {
        let text = |text: &str, length| faults(|v| _ = v.text(text, "/t", length));
        assert!(text(&"ü".repeat(200), NAME).is_empty());
        assert!(text("", DESCRIPTION).is_empty());
        for bad in ["", "  ", "\u{1c}\n", "a\0b", &"a".repeat(201)] {
            assert_eq!(text(bad, NAME), ["/t"]);
        }
    }

    #[test]
    fn prices_are_in_the_currency_of_the_shop() {
        let gbp: Currency = "GBP".parse().unwrap();
        let price = |amount, currency: &str| {
            let price = MoneyBody { amount, currency: currency.to_owned() };
            faults(|v| _ = v.price(&price, "/price", gbp))
        };
        assert!(price(0, "GBP").is_empty() && price(1_000_000_000_000, "GBP").is_empty());
        assert_eq!(price(-1, "GBP"), ["/price/amount"]);
        assert_eq!(price(1_000_000_000_001, "gbp"), ["/price/amount", "/price/currency"]);
    }
}
