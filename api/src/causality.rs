//! Headers about versions, log positions and waiting: what a caller has seen, what an answer must
//! reflect, and how long the caller will wait for it.

use crate::problem::{Kind, Problem};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
    response::Response,
};
use events::LogPosition;
use std::time::Duration;

/// The log position that an answer reflects.
pub const LOG_POSITION: HeaderName = HeaderName::from_static("log-position");
/// The log position that a query's answer must reflect.
pub const MIN_LOG_POSITION: HeaderName = HeaderName::from_static("min-log-position");
/// How long the caller will wait (RFC 7240).
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The preference that the answer followed.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long a command waits for its outcome, without a preference.
const COMMAND_WAIT: Duration = Duration::from_secs(10);
/// How long a query waits for its read model, without a preference.
const QUERY_WAIT: Duration = Duration::from_secs(5);
/// The longest wait of any request.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// The most bytes of a `Min-Log-Position`: room for more partitions than a log can have.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The caller's preferences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefer {
    /// `wait=N` in seconds, at most the longest wait.
    pub wait: Option<Duration>,
    /// `respond-async`.
    pub respond_async: bool,
}

impl Prefer {
    /// Reads the `Prefer` headers. As RFC 7240 demands, unknown and malformed preferences are
    /// ignored, and the first of two equal names counts.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let lines = headers.get_all(PREFER).iter().filter_map(|line| line.to_str().ok());
        for preference in lines.flat_map(|line| line.split(',')) {
            let token = preference.split(';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "respond-async" => prefer.respond_async = true,
                "wait" if prefer.wait.is_none() => {
                    let seconds = value.trim().trim_matches('"').parse().ok();
                    prefer.wait = seconds.map(|it| Duration::from_secs(it).min(LONGEST_WAIT));
                }
                _ => {}
            }
        }
        prefer
    }

    /// How long a command may wait for its outcome.
    pub fn command_wait(self) -> Duration {
        match self {
            Self { wait: Some(wait), .. } => wait,
            Self { respond_async: true, .. } => Duration::ZERO,
            Self { .. } => COMMAND_WAIT,
        }
    }

    /// How long a query may wait for its read model.
    pub fn query_wait(self) -> Duration {
        self.wait.unwrap_or(QUERY_WAIT)
    }

    /// Sets `Preference-Applied`. `asynchronously` says that the answer precedes the outcome.
    pub fn applied(self, response: &mut Response, asynchronously: bool) {
        let applied = match self {
            Self { respond_async: true, .. } if asynchronously => "respond-async".to_owned(),
            Self { wait: Some(wait), .. } => format!("wait={}", wait.as_secs()),
            Self { .. } => return,
        };
        set_header(response, PREFERENCE_APPLIED, &applied);
    }
}

/// The token of a `Min-Log-Position` header.
fn min_position(headers: &HeaderMap) -> Result<Option<LogPosition>, Problem> {
    let Some(value) = headers.get(MIN_LOG_POSITION) else { return Ok(None) };
    // A shop without events answers with an empty `Log-Position`.
    if value.is_empty() {
        return Ok(None);
    }
    let text = value.to_str().ok().filter(|text| text.len() <= MAX_TOKEN_BYTES);
    let token = text.and_then(|text| text.trim().parse().ok());
    let invalid =
        || Problem::invalid_parameter("Min-Log-Position", "must be the Log-Position of an answer");
    token.map(Some).ok_or_else(invalid)
}

/// The log position that a query must reflect, and how long it may wait for that.
#[derive(Clone, Debug, PartialEq)]
pub struct Freshness {
    /// The position to reflect.
    pub at_least: Option<LogPosition>,
    /// The preferences.
    pub prefer: Prefer,
    /// The entity tags that the caller has (`If-None-Match`), unparsed.
    held: Vec<HeaderValue>,
}

impl<S: Sync> FromRequestParts<S> for Freshness {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self {
            at_least: min_position(&parts.headers)?,
            prefer: Prefer::of(&parts.headers),
            held: parts.headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect(),
        })
    }
}

impl Freshness {
    /// Whether the caller sent an `If-None-Match`.
    pub fn is_conditional(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the caller has this version already.
    pub fn holds(&self, version: u64) -> bool {
        let lines = self.held.iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(|tag| {
            let tag = tag.trim();
            // `If-None-Match` compares weakly (RFC 9110, 13.1.2).
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag(version)
        })
    }
}

/// The entity tag of a version.
pub fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// The version that a command requires (`If-Match`).
///
/// # Errors
/// `invalid-parameter` for a malformed entity tag, or for several.
pub fn expected_version(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let invalid = || Problem::invalid_parameter("If-Match", "must be one entity tag or *");
    let mut lines = headers.get_all(header::IF_MATCH).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    let tag = line.to_str().map_err(|_| invalid())?.trim();
    if lines.next().is_some() {
        return Err(invalid());
    }
    if tag == "*" {
        return Ok(None);
    }
    let weak = tag.starts_with("W/");
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    let opaque = opaque.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let opaque = opaque.filter(|text| !text.contains('"')).ok_or_else(invalid)?;
    // A tag that is not one of ours matches no version; a weak tag never does (RFC 9110, 13.1.1).
    let version =
        opaque.parse().ok().filter(|version: &u64| !weak && version.to_string() == opaque);
    Ok(Some(version.unwrap_or(u64::MAX)))
}

/// Sets a header. Its value must be valid; another value is dropped.
pub(crate) fn set_header(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The problem for a read model that did not reach the position in time.
pub(crate) fn behind(error: &projections::Behind) -> Problem {
    use projections::Behind;
    match error {
        Behind::Late(_) => Problem::from(Kind::ProjectionBehind).retry_after(1),
        Behind::Stopped { .. } => {
            tracing::error!(%error, "a query needs a partition that has stopped");
            Problem::new(Kind::ProjectionBehind, "the read model has stopped").retry_after(30)
        }
        Behind::Database(source) => {
            tracing::error!(error = source as &dyn std::error::Error, "{error}");
            Problem::unavailable("the read models do not answer")
        }
        Behind::Log(source) => {
            tracing::error!(error = source as &dyn std::error::Error, "{error}");
            Problem::unavailable("the log does not answer")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn preferences_are_read_in_every_form() {
        let of = |values: &[&'static str]| Prefer::of(&headers(&PREFER, values));
        let wait = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(of(&[]), Prefer::default());
        assert_eq!(of(&["wait=3"]).wait, wait(3));
        assert_eq!(of(&["Wait = \"3\" ; x=1, respond-async"]).wait, wait(3));
        assert_eq!(of(&["wait=3", "wait=4"]).wait, wait(3));
        assert_eq!(of(&["wait=3600"]).wait, wait(60));
        assert_eq!(of(&["wait=soon, return=minimal"]), Prefer::default());
        assert!(of(&["return=minimal", "respond-async"]).respond_async);
    }

    #[test]
    fn an_asynchronous_command_waits_only_if_it_says_so() {
        let of = |value| Prefer::of(&headers(&PREFER, &[value]));
        assert_eq!(of("respond-async").command_wait(), Duration::ZERO);
        assert_eq!(of("respond-async, wait=2").command_wait(), Duration::from_secs(2));
        assert_eq!(of("return=minimal").command_wait(), COMMAND_WAIT);
    }

    #[test]
    fn an_entity_tag_names_a_version_or_matches_none() {
        let of = |value| expected_version(&headers(&header::IF_MATCH, &[value]));
        assert_eq!(of("\"7\"").unwrap(), Some(7));
        assert_eq!(of("*").unwrap(), None);
        for stale in ["W/\"7\"", "\"07\"", "\"seven\"", "\"\"", "\"99999999999999999999999\""] {
            assert_eq!(of(stale).unwrap(), Some(u64::MAX), "{stale}");
        }
        for malformed in ["7", "\"7", "\"7\", \"8\"", "W/7", "'7'"] {
            assert_eq!(of(malformed).unwrap_err().kind(), Kind::InvalidParameter, "{malformed}");
        }
        assert_eq!(expected_version(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_version_that_the_caller_has_is_recognised() {
        let held = |value| {
            let held = vec![HeaderValue::from_static(value)];
            Freshness { at_least: None, prefer: Prefer::default(), held }.holds(7)
        };
        assert!(held("\"7\"") && held("W/\"7\"") && held("\"6\", \"7\"") && held("*"));
        assert!(!held("\"70\"") && !held("7") && !held(""));
    }

    #[test]
    fn a_malformed_position_is_refused_and_an_empty_one_requires_nothing() {
        let of = |value| min_position(&headers(&MIN_LOG_POSITION, &[value]));
        assert_eq!(of("3:17").unwrap().unwrap().to_string(), "3:17");
        assert_eq!(of("3-17").unwrap_err().kind(), Kind::InvalidParameter);
        assert_eq!(of("").unwrap(), None);
    }
}
