//! Validation of values. Every invalid value is noted with its JSON pointer, and one answer lists
//! them all.
//!
//! What no text may hold is checked for every text of every command at once ([`screen`]), so that a
//! new field needs no line for it. What a field may hold beside that is up to its [`Text`].

mod card;
mod text;

pub use card::holds_card;
pub use text::{ADDRESS, DESCRIPTION, NAME, SHORT_TEXT, Text};

use crate::{
    extract::{Field, integer, push_name},
    problem::{FieldError, Kind, Problem},
};
use commands::mail::{Address, AddressError};
use events::{Currency, Money};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{ops::RangeInclusive, sync::Arc};

/// What is said of a text that holds the number of a payment card.
const CARD: &str = "must not contain the number of a payment card";
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

    /// Checks a text, and returns it without the white space around it.
    pub fn text(&mut self, text: &str, pointer: &str, allowed: Text) -> Arc<str> {
        let text = text.trim();
        if let Some(fault) = allowed.fault(text) {
            self.refuse(pointer, fault);
        }
        text.into()
    }

    /// Checks an optional text.
    pub fn optional(
        &mut self,
        text: Option<&str>,
        pointer: &str,
        allowed: Text,
    ) -> Option<Arc<str>> {
        text.map(|text| self.text(text, pointer, allowed))
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

    /// Checks that letters can be sent to an e-mail address, and returns it without the white space
    /// around it.
    pub fn email<'a>(&mut self, email: &'a str, pointer: &str) -> &'a str {
        let email = email.trim();
        match email.parse::<Address>() {
            Ok(_) => {}
            Err(AddressError::TooLong) => self.refuse(pointer, "must have at most 254 characters"),
            Err(AddressError::Malformed) => self.refuse(pointer, "must be an e-mail address"),
        }
        email
    }

    fn screen(&mut self, value: &Value, pointer: &mut String) {
        let length = pointer.len();
        match value {
            Value::String(text) if holds_card(text) => self.refuse(pointer, CARD),
            Value::String(text) => {
                if let Some(fault) = text::hidden(text) {
                    self.refuse(pointer, fault);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    push_name(pointer, &index.to_string());
                    self.screen(item, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    if holds_card(name) {
                        self.refuse(pointer, CARD);
                        continue;
                    }
                    push_name(pointer, name);
                    self.screen(member, pointer);
                    pointer.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
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

/// Refuses a request of which any text holds the number of a payment card, or what no text may hold.
/// The answer and the log name the place and never the text.
///
/// # Errors
/// `validation-failed` with all such places.
pub fn screen(body: &impl Serialize) -> Result<(), Problem> {
    let body = serde_json::to_value(body).map_err(|error| Problem::internal(&error))?;
    let mut validator = Validator::default();
    validator.screen(&body, &mut String::new());
    validator.end()
}

fn refusal(first: &FieldError, all: &[FieldError]) -> Problem {
    let detail = match first.pointer.as_str() {
        "" => first.detail.clone(),
        pointer => format!("{pointer} {}", first.detail),
    };
    Problem::new(Kind::ValidationFailed, detail).with_errors(all)
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
    fn an_address_is_one_that_letters_can_be_sent_to() {
        for email in ["a@b", " ann@b.example ", "zoë@bücher.example"] {
            assert!(faults(|v| _ = v.email(email, "/email")).is_empty(), "{email}");
        }
        let long = format!("{}@example.org", "a".repeat(250));
        for email in ["", "ann", "a@@b", "\u{200b}z@x.example", "a\0@b", &long] {
            assert_eq!(faults(|v| _ = v.email(email, "/email")), ["/email"], "{email}");
        }
    }

    #[test]
    fn the_length_of_a_text_is_counted_in_characters() {
        let text = |text: &str, length| faults(|v| _ = v.text(text, "/t", length));
        assert!(text(&"ü".repeat(200), NAME).is_empty());
        assert!(text("", DESCRIPTION).is_empty());
        assert!(text(&format!(" {} ", "a".repeat(200)), NAME).is_empty());
        for bad in ["", "  ", "\u{1c}\n", "a\0b", &"a".repeat(201)] {
            assert_eq!(text(bad, NAME), ["/t"]);
        }
    }

    #[test]
    fn every_text_of_a_body_is_screened_and_none_is_repeated() {
        let card = "4242 4242 4242 4242";
        let body = serde_json::json!({
            "a": card, "b": ["fine", {"c/d": "x\u{202e}"}], "e": 4, "f": null, "g": {card: "h"},
        });
        let problem = screen(&body).unwrap_err();
        let errors = problem.extension("errors");
        let pointers: Vec<_> =
            errors.as_array().unwrap().iter().map(|error| error["pointer"].clone()).collect();
        assert_eq!(pointers, ["/a", "/b/1/c~1d", "/g"]);
        assert!(!format!("{problem:?}").contains("4242"));
        assert!(screen(&serde_json::json!({"a": "fine", "b": "two\nlines"})).is_ok());
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
