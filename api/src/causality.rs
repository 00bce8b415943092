//! Headers about versions, log positions and waiting: what a caller has seen, what an answer must
//! reflect, and how long the caller will wait for it.

use crate::{
    extract::single,
    problem::{Kind, Problem},
};
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
    let Some(value) = single(headers, &MIN_LOG_POSITION)? else { return Ok(None) };
    // A shop without events answers with an empty `Log-Position`.
    if value.is_empty() {
        return Ok(None);
    }
    let text = value.to_str().ok().filter(|text| text.len() <= MAX_TOKEN_BYTES);
    let token = text.and_then(|text| text.trim().parse().ok());
    token.map(Some).ok_or_else(foreign_position)
}

/// The problem for a `Min-Log-Position` that no answer of this shop has had.
pub(crate) fn foreign_position() -> Problem {
    Problem::invalid_parameter("Min-Log-Position", "must be the Log-Position of an answer")
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

/// The versions that a command accepts (`If-Match`), of which one must be current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any version.
    Any,
    /// One of these versions; of an empty list none.
    OneOf(Vec<u64>),
}

impl Expected {
    /// Reads the `If-Match` headers. A tag that is not one of ours matches no version, and a weak
    /// tag never does (RFC 9110, 13.1.1).
    ///
    /// # Errors
    /// `invalid-parameter` unless they are `*` or a list of entity tags, and for `If-None-Match`.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        // It would ask for what no command does: nothing, if the resource is as the caller knows it.
        if headers.contains_key(header::IF_NONE_MATCH) {
            let detail = "is for reads: a command takes If-Match";
            return Err(Problem::invalid_parameter("If-None-Match", detail));
        }
        let invalid = || Problem::invalid_parameter("If-Match", "must be entity tags, or *");
        let lines: Result<Vec<&str>, _> =
            headers.get_all(header::IF_MATCH).iter().map(HeaderValue::to_str).collect();
        let lines = lines.map_err(|_| invalid())?;
        if lines.is_empty() || lines.iter().all(|line| line.trim() == "*") {
            return Ok(Self::Any);
        }
        let (mut versions, mut tags) = (Vec::new(), 0);
        for line in lines {
            let mut rest = line.trim_start_matches([' ', '\t', ',']);
            while !rest.is_empty() {
                let (tag, behind) = entity_tag(rest).ok_or_else(invalid)?;
                versions.extend(tag.version());
                tags += 1;
                rest = behind.trim_start_matches([' ', '\t']);
                if !rest.is_empty() && !rest.starts_with(',') {
                    return Err(invalid());
                }
                rest = rest.trim_start_matches([' ', '\t', ',']);
            }
        }
        if tags == 0 { Err(invalid()) } else { Ok(Self::OneOf(versions)) }
    }
}

/// An entity tag of a list.
struct EntityTag<'t> {
    is_weak: bool,
    opaque: &'t str,
}

impl EntityTag<'_> {
    /// The version that it names, if it is strong and one of ours.
    fn version(&self) -> Option<u64> {
        let version = self.opaque.parse().ok().filter(|_| !self.is_weak);
        version.filter(|version: &u64| version.to_string() == self.opaque)
    }
}

/// The entity tag at the beginning of a list, and what is behind it.
fn entity_tag(list: &str) -> Option<(EntityTag<'_>, &str)> {
    let is_weak = list.starts_with("W/");
    let quoted = list.strip_prefix("W/").unwrap_or(list).strip_prefix('"')?;
    let (opaque, behind) = quoted.split_once('"')?;
    Some((EntityTag { is_weak, opaque }, behind))
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
    fn entity_tags_name_versions_or_match_none() {
        let of = |values: &[&'static str]| Expected::of(&headers(&header::IF_MATCH, values));
        let one_of = |versions: &[u64]| Expected::OneOf(versions.to_vec());
        assert_eq!(of(&[]).unwrap(), Expected::Any);
        assert_eq!(of(&["*"]).unwrap(), Expected::Any);
        assert_eq!(of(&["\"7\""]).unwrap(), one_of(&[7]));
        assert_eq!(of(&["\"7\",\"8\" , W/\"9\""]).unwrap(), one_of(&[7, 8]));
        assert_eq!(of(&["\"7\"", "\"8\""]).unwrap(), one_of(&[7, 8]));
        assert_eq!(of(&[", \"7\" ,, "]).unwrap(), one_of(&[7]));
        assert_eq!(of(&["\"a,b\", \"7\""]).unwrap(), one_of(&[7]));
        for stale in ["W/\"7\"", "\"07\"", "\"seven\"", "\"\"", "\"99999999999999999999999\""] {
            assert_eq!(of(&[stale]).unwrap(), one_of(&[]), "{stale}");
        }
        for malformed in ["7", "\"7", "\"7\" \"8\"", "W/7", "'7'", "", ",", "*, \"7\"", "w/\"7\""] {
            assert_eq!(of(&[malformed]).unwrap_err().kind(), Kind::InvalidParameter, "{malformed}");
        }
        assert_eq!(of(&["*", "\"7\""]).unwrap_err().kind(), Kind::InvalidParameter);
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
