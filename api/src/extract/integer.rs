//! Whole numbers in a body, in any notation.

use serde::{
    Deserializer,
    de::{Error, Unexpected, Visitor},
};
use std::fmt;

/// For `deserialize_with`: a whole number. `2.0` is one too, as in JSON Schema.
///
/// # Errors
/// If the value is anything else.
pub fn integer<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    struct Whole;
    impl Visitor<'_> for Whole {
        type Value = i64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number")
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<i64, E> {
            Ok(number)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<i64, E> {
            i64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
        }

        #[expect(clippy::cast_possible_truncation, reason = "whole, and within 53 bits")]
        fn visit_f64<E: Error>(self, number: f64) -> Result<i64, E> {
            const EXACT: f64 = 9_007_199_254_740_992.0;
            let unexpected = Unexpected::Float(number);
            match number {
                _ if number.fract() != 0.0 => Err(E::invalid_type(unexpected, &self)),
                _ if number.abs() > EXACT => Err(E::invalid_value(unexpected, &self)),
                _ => Ok(number as i64),
            }
        }
    }
    from.deserialize_i64(Whole)
}
