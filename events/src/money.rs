//! Money in integer minor units, with its currency.

use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize, de};
use std::{borrow::Cow, fmt, str::FromStr};

/// The currencies whose number of decimal places is not 2 (ISO 4217).
const DECIMALS: &[(&str, u32)] = &[
    ("BHD", 3),
    ("BIF", 0),
    ("CLP", 0),
    ("DJF", 0),
    ("GNF", 0),
    ("IQD", 3),
    ("ISK", 0),
    ("JOD", 3),
    ("JPY", 0),
    ("KMF", 0),
    ("KRW", 0),
    ("KWD", 3),
    ("LYD", 3),
    ("OMR", 3),
    ("PYG", 0),
    ("RWF", 0),
    ("TND", 3),
    ("UGX", 0),
    ("VND", 0),
    ("VUV", 0),
    ("XAF", 0),
    ("XOF", 0),
    ("XPF", 0),
];

/// An ISO 4217 currency code.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

/// The text is not three upper-case letters.
#[derive(Debug, thiserror::Error)]
#[error("a currency is three upper-case letters")]
pub struct CurrencyError;

impl Currency {
    /// The code, such as `GBP`.
    pub fn code(&self) -> &str {
        // `from_str` accepts upper-case ASCII only.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The smallest amount that can be paid, in minor units. Cards take no thousandths of the
    /// currencies with three decimals, and no parts of the ariary
    /// (<https://docs.stripe.com/currencies>, "special cases").
    pub fn payable_step(&self) -> i64 {
        match self.code() {
            "BHD" | "JOD" | "KWD" | "OMR" | "TND" => 10,
            "MGA" => 100,
            _ => 1,
        }
    }

    /// The number of decimal places of the currency.
    pub fn decimals(&self) -> u32 {
        let code = self.code();
        DECIMALS.iter().find(|(known, _)| *known == code).map_or(2, |(_, places)| *places)
    }
}

impl FromStr for Currency {
    type Err = CurrencyError;

    fn from_str(text: &str) -> Result<Self, CurrencyError> {
        match text.as_bytes() {
            code @ [_, _, _] if code.iter().all(u8::is_ascii_uppercase) => {
                Ok(Self([code[0], code[1], code[2]]))
            }
            _ => Err(CurrencyError),
        }
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Code;
        impl de::Visitor<'_> for Code {
            type Value = Currency;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an ISO 4217 code")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Currency, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Code)
    }
}

impl JsonSchema for Currency {
    fn schema_name() -> Cow<'static, str> {
        "Currency".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Z]{3}$" })
    }
}

/// An amount in minor units (pence, cents) of a currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Minor units; negative only in a discount's `cap`.
    pub amount: i64,
    /// The currency of the amount.
    pub currency: Currency,
}

impl Money {
    /// `amount` minor units of `currency`.
    pub fn new(amount: i64, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// Another amount in the same currency.
    #[must_use]
    pub fn with(self, amount: i64) -> Self {
        Self { amount, ..self }
    }
}
