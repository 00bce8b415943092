//! Query parameters.

use super::canonical;
use crate::problem::Problem;
use axum::{extract::FromRequestParts, http::request::Parts};
use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use std::{collections::VecDeque, str::FromStr};

/// The form of a time in a query.
const MOMENT: &str = "a time like 2026-11-20T12:00:00Z";

/// The query parameters of a request. A handler takes each by name; [`end`](Self::end) refuses what
/// is left, because it is unknown.
#[derive(Debug)]
pub struct Params(VecDeque<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(parts.uri.query().unwrap_or_default())
    }
}

impl Params {
    /// The parameters of this query string.
    ///
    /// # Errors
    /// `invalid-parameter` for a NUL character, which PostgreSQL cannot store, and for what is not
    /// UTF-8.
    pub fn of(query: &str) -> Result<Self, Problem> {
        let is_text = |pair: &str| percent_decode_str(pair).decode_utf8().is_ok();
        if let Some(pair) = query.split('&').find(|pair| !is_text(pair)) {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            let name = percent_decode_str(name).decode_utf8_lossy();
            return Err(Problem::invalid_parameter(&name, "must be UTF-8"));
        }
        let pairs: VecDeque<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        match pairs.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
            Some((name, _)) => Err(Problem::invalid_parameter(
                &name.replace('\0', ""),
                "must not contain the character NUL",
            )),
            None => Ok(Self(pairs)),
        }
    }

    /// All values of a parameter, in order.
    pub fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|(n, _)| n == name);
        self.0 = left;
        VecDeque::into_iter(taken).map(|(_, value)| value).collect()
    }

    /// The one value of a parameter.
    ///
    /// # Errors
    /// `invalid-parameter` if it is given twice.
    pub fn one(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            _ => Err(Problem::invalid_parameter(name, "must not be given twice")),
        }
    }

    /// The one value of a parameter, parsed.
    ///
    /// # Errors
    /// `invalid-parameter` if it is given twice or malformed; the detail says that it must be
    /// `expected`.
    pub fn read<T: FromStr>(&mut self, name: &str, expected: &str) -> Result<Option<T>, Problem> {
        let read = |text: String| {
            text.parse()
                .map_err(|_| Problem::invalid_parameter(name, &format!("must be {expected}")))
        };
        self.one(name)?.map(read).transpose()
    }

    /// The one value of a parameter that is a number, without a sign or leading zeros.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn number<T: FromStr + ToString>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, Problem> {
        let read = |text: String| {
            canonical(&text)
                .ok_or_else(|| Problem::invalid_parameter(name, &format!("must be {expected}")))
        };
        self.one(name)?.map(read).transpose()
    }

    /// The one value of a parameter that is a time (RFC 3339).
    ///
    /// # Errors
    /// `invalid-parameter` if it is given twice or malformed.
    pub fn moment(&mut self, name: &str) -> Result<Option<DateTime<Utc>>, Problem> {
        let read = self.read::<Unescaped<Rfc3339>>(name, MOMENT)?;
        Ok(read.map(|Unescaped(Rfc3339(moment))| moment))
    }

    /// Ends the reading of parameters.
    ///
    /// # Errors
    /// `invalid-parameter` for a parameter that was not taken.
    pub fn end(self) -> Result<(), Problem> {
        match self.0.front() {
            Some((name, _)) => Err(Problem::invalid_parameter(name, "no such parameter")),
            None => Ok(()),
        }
    }
}

/// A value that may contain `+`. In a query an unescaped `+` is decoded as a space; this turns it
/// back.
pub struct Unescaped<T>(pub T);

impl<T: FromStr> FromStr for Unescaped<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.replace(' ', "+").parse().map(Self)
    }
}

struct Rfc3339(DateTime<Utc>);

impl FromStr for Rfc3339 {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let moment = DateTime::parse_from_rfc3339(text).map_err(|_| ())?.to_utc();
        // A second 60 has more nanoseconds than a second. No event happens in it, and it is in no
        // bucket of a report.
        Some(Self(moment)).filter(|_| moment.timestamp_subsec_nanos() < 1_000_000_000).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Kind;

    #[test]
    fn unknown_parameters_are_refused() {
        let mut params = Params::of("status=a&limit=5&status=b%20c&x=1").unwrap();
        assert_eq!(params.all("status"), ["a", "b c"]);
        assert_eq!(params.read::<u32>("limit", "a number").unwrap(), Some(5));
        assert_eq!(params.end().unwrap_err().kind(), Kind::InvalidParameter);
        assert!(Params::of("limit=1&limit=2").unwrap().one("limit").is_err());
        assert!(Params::of("limit=many").unwrap().read::<u32>("limit", "a number").is_err());
        assert!(Params::of("category=%00").is_err());
        assert!(Params::of("").unwrap().end().is_ok());
    }

    #[test]
    fn a_time_is_read_with_its_offset_escaped_or_not() {
        let of = |query: &str| Params::of(query).unwrap().moment("at");
        let noon = of("at=2026-11-20T12:00:00Z").unwrap();
        for other in ["at=2026-11-20T13:00:00%2B01:00", "at=2026-11-20T13:00:00+01:00"] {
            assert_eq!(of(other).unwrap(), noon, "{other}");
        }
        assert_eq!(of("").unwrap(), None);
        for other in ["at=2026-11-20", "at=2026-11-20T18:59:60Z", "at=-4713-01-01T00:00:00Z"] {
            assert_eq!(of(other).unwrap_err().kind(), Kind::InvalidParameter, "{other}");
        }
    }
}
