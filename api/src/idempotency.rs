//! `Idempotency-Key`: the same request gets the same command id, so that a retry is the same
//! command.

use crate::{auth::Principal, problem::Problem};
use axum::http::{HeaderMap, HeaderName};
use events::{Fingerprint, seal::Key};
use serde::Serialize;
use uuid::Uuid;

/// The key that a caller gives a request, so that it can be retried safely.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Marks an answer that has been given before.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The namespace of command ids that derive from keys. The ids are in the log: never change it.
const COMMANDS: Uuid = Uuid::from_u128(0x6f72_6465_726c_8f67_b26b_6579_6564_0001);
/// The most characters of a key.
const MAX_KEY: usize = 255;

/// The value of an `Idempotency-Key` header, bare or quoted (as the IETF draft demands). Both forms
/// are the same key.
///
/// # Errors
/// `invalid-parameter` for a key that is empty, too long, given twice or not ASCII.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let invalid = || {
        Problem::invalid_parameter(
            "Idempotency-Key",
            "must be one key of 1 to 255 ASCII characters",
        )
    };
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().map_err(|_| invalid())?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => unquote(rest).ok_or_else(invalid)?,
        None => text.to_owned(),
    };
    // A header value may contain tabs; a string of the draft must not.
    if values.next().is_some() || key.is_empty() || key.len() > MAX_KEY || key.contains('\t') {
        return Err(invalid());
    }
    Ok(Some(key))
}

/// The rest of a quoted string (RFC 8941, 3.3.3) after its opening quote.
fn unquote(rest: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return characters.as_str().is_empty().then_some(text),
            '\\' => text.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
            character => text.push(character),
        }
    }
    None
}

/// A keyed hash of a request, which tells two requests under one key apart without storing them.
///
/// The body is hashed as parsed, in the order of its type's fields. White space, the order of
/// members and character escapes make no difference.
///
/// # Errors
/// Never for the request types of this crate, which all serialise.
pub fn fingerprint(
    secret: &Key,
    method: &str,
    path: &str,
    body: &impl Serialize,
) -> Result<Fingerprint, Problem> {
    let body = serde_json::to_vec(body).map_err(|error| Problem::internal(&error))?;
    Ok(Fingerprint(secret.hmac(&[method.as_bytes(), path.as_bytes(), &body])))
}

/// The id of a command with a key. Two callers without a token may choose the same key; the
/// fingerprints of their requests tell them apart.
pub fn command_id(
    key: &str,
    principal: Option<&Principal>,
    method: &str,
    path: &str,
    fingerprint: Fingerprint,
) -> Uuid {
    let mut name = Vec::with_capacity(256);
    let mut put = |part: &[u8]| {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part);
    };
    match principal {
        Some(principal) => {
            put(principal.issuer.as_bytes());
            put(principal.subject.as_bytes());
        }
        None => put(&fingerprint.0),
    }
    put(method.as_bytes());
    put(path.as_bytes());
    put(key.as_bytes());
    Uuid::new_v5(&COMMANDS, &name)
}

/// The id of the resource that a keyed command creates. It derives from the command's id, so that
/// every retry finds the same resource.
pub fn created_id(command_id: Uuid) -> Uuid {
    Uuid::new_v5(&command_id, b"id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::Role, problem::Kind};
    use axum::http::HeaderValue;
    use serde_json::json;

    fn of(value: &str) -> Result<Option<String>, Problem> {
        key(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap())]))
    }

    #[test]
    fn a_key_is_the_same_bare_and_quoted() {
        assert_eq!(of("order-1").unwrap().unwrap(), "order-1");
        assert_eq!(of("\"order-1\"").unwrap().unwrap(), "order-1");
        assert_eq!(of(r#""a\"b\\c""#).unwrap().unwrap(), r#"a"b\c"#);
        assert_eq!(of(&"k".repeat(255)).unwrap().unwrap().len(), 255);
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_malformed_key_is_refused() {
        for value in
            ["", "\"\"", "\"open", "\"a\"b", r#""a\n""#, "a\tb", "k\u{e9}y", &"k".repeat(256)]
        {
            assert_eq!(of(value).unwrap_err().kind(), Kind::InvalidParameter, "{value}");
        }
        let mut twice = HeaderMap::new();
        for key in ["a", "b"] {
            twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static(key));
        }
        assert!(key(&twice).is_err());
    }

    #[test]
    fn a_command_is_named_by_caller_method_path_and_key() {
        let secret = Key::new([7; 32]);
        let ann = Principal { issuer: "o".into(), subject: "ann".into(), role: Role::Staff };
        let bob = Principal { subject: "bob".into(), ..ann.clone() };
        let one = fingerprint(&secret, "POST", "/a", &json!({ "x": 1 })).unwrap();
        let two = fingerprint(&secret, "POST", "/a", &json!({ "x": 2 })).unwrap();
        assert_ne!(one, two);
        let id = command_id("k", Some(&ann), "POST", "/a", one);
        assert_eq!(id, command_id("k", Some(&ann), "POST", "/a", two));
        for other in [
            command_id("l", Some(&ann), "POST", "/a", one),
            command_id("k", Some(&bob), "POST", "/a", one),
            command_id("k", Some(&ann), "PATCH", "/a", one),
            command_id("k", Some(&ann), "POST", "/b", one),
            command_id("k", None, "POST", "/a", one),
        ] {
            assert_ne!(id, other);
        }
        assert_ne!(
            command_id("k", None, "POST", "/a", one),
            command_id("k", None, "POST", "/a", two)
        );
        assert_eq!(id.get_version_num(), 5);
        assert_eq!(created_id(id), created_id(id));
    }

    #[test]
    fn command_ids_stay_the_same_for_ever() {
        let ann = Principal { issuer: "o".into(), subject: "ann".into(), role: Role::Staff };
        let id = command_id("k", Some(&ann), "POST", "/api/v1/orders", Fingerprint([0; 16]));
        assert_eq!(id.to_string(), "fbd6e85c-767d-504c-b39e-add450000e49");
    }
}
