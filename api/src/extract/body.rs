//! Request bodies: limits on their size and time, and strict JSON.

use super::{Object, single};
use crate::{
    problem::{FieldError, Kind, Problem},
    validate::{Validator, holds_card},
};
use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, header},
};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use std::{fmt::Write, time::Duration};

/// The most bytes of a body.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// A larger body is still read up to here, so that its sender gets the answer and not a broken
/// connection.
const MAX_DRAINED_BYTES: usize = 4 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(15);

/// The media types that a body may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// `application/json`.
    Json,
    /// `application/json` or `application/merge-patch+json`.
    Patch,
    /// `application/json`, or no body at all, which counts as `{}`.
    OptionalJson,
}

/// Reads a JSON body strictly.
///
/// # Errors
/// `unsupported-media-type`, `body-too-large`, `request-timeout`, `invalid-body` or
/// `validation-failed`.
pub async fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    media: Media,
) -> Result<T, Problem> {
    // A client that asks first is told before it sends the body.
    let waits = headers.contains_key(header::EXPECT);
    if waits && body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(Kind::BodyTooLarge.into());
    }
    let bytes = bytes(body, MAX_BODY_BYTES).await?;
    if bytes.is_empty() && media == Media::OptionalJson {
        return parse(b"{}");
    }
    if !accepts(headers, media)? {
        return Err(Kind::UnsupportedMediaType.into());
    }
    parse(&bytes)
}

/// Reads a body of at most `most` bytes.
///
/// # Errors
/// `body-too-large`, `request-timeout`, or `invalid-body` if the body ends early.
pub async fn bytes(body: Body, most: usize) -> Result<Vec<u8>, Problem> {
    let read = tokio::time::timeout(BODY_TIME, read(body, most)).await;
    read.map_err(|_| Problem::from(Kind::RequestTimeout))?
}

async fn read(body: Body, most: usize) -> Result<Vec<u8>, Problem> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut read) = (Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Kind::InvalidBody, "the body is incomplete"))?;
        read += chunk.len();
        if read > MAX_DRAINED_BYTES {
            break;
        }
        if read <= most {
            bytes.extend_from_slice(&chunk);
        }
    }
    if read > most {
        return Err(Kind::BodyTooLarge.into());
    }
    Ok(bytes)
}

fn accepts(headers: &HeaderMap, media: Media) -> Result<bool, Problem> {
    let value = single(headers, &header::CONTENT_TYPE)?.and_then(|value| value.to_str().ok());
    let Some(value) = value else { return Ok(false) };
    let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
    let utf8 = parameters.split(';').all(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        !name.trim().eq_ignore_ascii_case("charset")
            || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    let essence = essence.trim().to_ascii_lowercase();
    Ok(utf8
        && (essence == "application/json"
            || (media == Media::Patch && essence == "application/merge-patch+json")))
}

/// Reads JSON strictly.
///
/// # Errors
/// `invalid-body` for the wrong shape, `validation-failed` for a value out of range of its type;
/// both with the JSON pointer.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed: Result<Object<T>, _> = serde_path_to_error::deserialize(&mut json);
    let Object(parsed) = parsed.map_err(|error| {
        let message = without_place(&error.inner().to_string());
        let pointer = pointer(error.path(), &message);
        if holds_card(&pointer) || holds_card(&message) {
            return Validator::refusal("", "must not contain the number of a payment card");
        }
        let detail = without_value(&message);
        let kind = match error.inner().classify() {
            serde_json::error::Category::Data if !is_shape(&message) => Kind::ValidationFailed,
            _ => Kind::InvalidBody,
        };
        let errors = [FieldError { pointer, detail: detail.clone() }];
        Problem::new(kind, detail).with_errors(&errors)
    })?;
    json.end().map_err(|error| {
        let detail = without_place(&error.to_string());
        let errors = [FieldError { pointer: String::new(), detail: detail.clone() }];
        Problem::new(Kind::InvalidBody, detail).with_errors(&errors)
    })?;
    Ok(parsed)
}

/// Whether serde's message is about the shape of the JSON. Its other data errors are about values,
/// such as a malformed UUID or a number out of range.
fn is_shape(message: &str) -> bool {
    ["invalid type", "invalid length", "missing field", "unknown field", "duplicate field"]
        .iter()
        .any(|start| message.starts_with(start))
}

/// The message without the line and column that serde appends. The JSON pointer says where.
fn without_place(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(start, _)| start).to_owned()
}

/// The message without the value that it quotes, which may be long or personal.
fn without_value(message: &str) -> String {
    match message.rsplit_once(", expected ") {
        Some((_, "a sequence")) => "must be an array".to_owned(),
        Some((_, expected)) => format!("must be {expected}"),
        None => message.to_owned(),
    }
}

/// The JSON pointer of an error. A missing field has the path of its object, so its name is
/// appended.
fn pointer(path: &serde_path_to_error::Path, message: &str) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => {
                let _ = write!(pointer, "/{index}");
            }
            Segment::Map { key } | Segment::Enum { variant: key } => push_name(&mut pointer, key),
            Segment::Unknown => {}
        }
    }
    for start in ["missing field `", "duplicate field `"] {
        let name = message.strip_prefix(start).and_then(|rest| rest.split('`').next());
        if let Some(name) = name.filter(|name| !pointer.ends_with(&format!("/{name}"))) {
            push_name(&mut pointer, name);
        }
    }
    pointer
}

/// Appends the name of a member to a JSON pointer.
pub fn push_name(pointer: &mut String, name: &str) {
    pointer.push('/');
    pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
}

#[cfg(test)]
mod tests {
    use super::{
        super::{integer, objects},
        *,
    };
    use serde::Deserialize;
    use std::collections::BTreeMap;
    use uuid::Uuid;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "the tests check only whether it can be parsed")]
    struct Basket {
        owner: Uuid,
        #[serde(deserialize_with = "objects")]
        lines: Vec<Line>,
        note: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "the tests check only whether it can be parsed")]
    struct Line {
        #[serde(deserialize_with = "integer")]
        quantity: i64,
    }

    const OWNER: &str = r#""owner":"01900000-0000-7000-8000-000000000000""#;

    fn refused(json: &str) -> (Kind, String) {
        let problem = parse::<Basket>(json.as_bytes()).unwrap_err();
        let errors = problem.extension("errors");
        assert_eq!(errors.as_array().unwrap().len(), 1, "{json}");
        (problem.kind(), errors[0]["pointer"].as_str().unwrap().to_owned())
    }

    fn basket(rest: &str) -> String {
        format!("{{{OWNER},{rest}}}")
    }

    #[test]
    fn a_body_of_the_right_shape_is_parsed() {
        for quantity in ["2", "2.0", "2e3", "-9223372036854775808"] {
            let json = basket(&format!("\"lines\":[{{\"quantity\":{quantity}}}]"));
            assert!(parse::<Basket>(json.as_bytes()).is_ok(), "{quantity}");
        }
    }

    #[test]
    fn a_wrong_shape_is_refused_with_its_pointer() {
        let shape = |json: &str, pointer: &str| {
            assert_eq!(refused(json), (Kind::InvalidBody, pointer.to_owned()), "{json}");
        };
        shape(&basket(r#""lines":[{"quantity":2},{"quantity":"2"}]"#), "/lines/1/quantity");
        shape(&basket(r#""lines":[{"quantity":2.5}]"#), "/lines/0/quantity");
        shape(&basket(r#""lines":[{"quantity":null}]"#), "/lines/0/quantity");
        shape(&basket(r#""lines":[{"quantity":2,"colour/tone":1}]"#), "/lines/0/colour~1tone");
        shape(&basket(r#""lines":[{}]"#), "/lines/0/quantity");
        shape(&basket(r#""lines":[{"quantity":1,"quantity":2}]"#), "/lines/0/quantity");
        shape(&basket(r#""lines":7"#), "/lines");
        shape(&basket(r#""lines":[],"note":"#), "/note");
        shape("[]", "");
        shape(r#"["01900000-0000-7000-8000-000000000000",[],"x"]"#, "");
        shape(&basket(r#""lines":[[2]]"#), "/lines/0");
        shape("", "");
        shape("nonsense", "");
        shape(&(basket(r#""lines":[]"#) + "x"), "");
    }

    #[test]
    fn a_bad_value_is_a_validation_error() {
        let value = |json: &str, pointer: &str| {
            assert_eq!(refused(json), (Kind::ValidationFailed, pointer.to_owned()), "{json}");
        };
        value(r#"{"owner":"ann","lines":[]}"#, "/owner");
        value(&basket(r#""lines":[{"quantity":18446744073709551615}]"#), "/lines/0/quantity");
        value(&basket(r#""lines":[{"quantity":1e300}]"#), "/lines/0/quantity");
    }

    #[test]
    fn a_message_says_what_is_expected_and_does_not_quote_the_value() {
        let problem = parse::<Basket>(br#"{"owner":"x","note":["secret"]}"#).unwrap_err();
        assert!(!format!("{problem:?}").contains("secret"));
        let problem = parse::<Basket>(basket(r#""lines":"secret""#).as_bytes()).unwrap_err();
        assert!(!format!("{problem:?}").contains("secret"));
        assert_eq!(problem.extension("errors")[0]["detail"], "must be an array");
    }

    #[test]
    fn a_card_number_is_not_repeated_wherever_it_stands() {
        for json in [
            basket(r#""lines":[],"4242424242424242":1"#),
            basket(r#""lines":[],"note":4242424242424242"#),
            basket(r#""lines":[{"4242 4242 4242 4242":1}]"#),
            r#"{"owner":"4242424242424242","lines":[]}"#.to_owned(),
        ] {
            let problem = parse::<Basket>(json.as_bytes()).unwrap_err();
            assert!(!format!("{problem:?}").contains("4242"), "{problem:?}");
        }
    }

    #[test]
    fn media_types_are_recognised_in_every_notation() {
        let accepts = |value: &'static str, media| {
            let value = header::HeaderValue::from_static(value);
            accepts(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]), media).unwrap()
        };
        assert!(accepts("application/json", Media::Json));
        assert!(accepts("Application/JSON; charset=\"UTF-8\"", Media::Json));
        assert!(accepts("application/merge-patch+json", Media::Patch));
        assert!(!accepts("application/merge-patch+json", Media::Json));
        assert!(!accepts("application/json; charset=latin1", Media::Json));
        assert!(!accepts("text/plain", Media::Patch));
        assert!(!super::accepts(&HeaderMap::new(), Media::Json).unwrap());
    }

    #[tokio::test]
    async fn a_body_is_bounded() {
        let headers =
            [(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"))];
        let headers = HeaderMap::from_iter(headers);
        let read = |bytes: usize| {
            let body = Body::from(format!("{{\"text\":\"{}\"}}", "a".repeat(bytes - 11)));
            json::<BTreeMap<String, String>>(&headers, body, Media::Json)
        };
        assert!(read(MAX_BODY_BYTES).await.is_ok());
        assert_eq!(read(MAX_BODY_BYTES + 1).await.unwrap_err().kind(), Kind::BodyTooLarge);
        assert_eq!(read(MAX_DRAINED_BYTES * 2).await.unwrap_err().kind(), Kind::BodyTooLarge);
    }
}
