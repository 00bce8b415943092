//! Property tests of everything that parses text from outside: no input makes it panic, and cursors,
//! keys and tokens that the program gave out are accepted again.

use crate::{
    auth::{AuthKeys, Authenticator, Role},
    causality,
    extract::{self, Params},
    idempotency,
    problem::Kind,
    query::{self, Cursors},
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::DateTime;
use events::{LogPosition, seal::Key};
use proptest::{prelude::*, sample::Index};
use serde_json::Value;
use std::sync::OnceLock;

fn headers(name: &HeaderName, value: &[u8]) -> Option<HeaderMap> {
    let value = HeaderValue::from_bytes(value).ok()?;
    Some(HeaderMap::from_iter([(name.clone(), value)]))
}

/// A key pair, and a valid token signed with it.
fn keys() -> &'static (Authenticator, String, DateTime<chrono::Utc>) {
    static KEYS: OnceLock<(Authenticator, String, DateTime<chrono::Utc>)> = OnceLock::new();
    KEYS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let keys = AuthKeys::load_or_create(&dir.path().join("auth.key")).unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let token = keys.sign(Role::Staff, "staff", now).unwrap();
        (Authenticator::built_in(&keys), token, now)
    })
}

proptest! {
    #[test]
    fn a_cursor_that_was_not_given_out_is_refused(text: String, bytes: Vec<u8>) {
        let cursors = Cursors::of(&Key::new([1; 32]), "list", &1);
        let written: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
        let take = |query: &str| {
            let mut params = Params::of(query).ok()?;
            cursors.take::<(i64, uuid::Uuid)>(&mut params).ok()?
        };
        prop_assert_eq!(take(&format!("cursor={written}")), None);
        let encoded = URL_SAFE_NO_PAD.encode(&bytes);
        prop_assert_eq!(take(&format!("cursor={encoded}")), None);
    }

    #[test]
    fn a_cursor_that_was_given_out_comes_back_and_none_with_another_bit(
        at: (i64, u128), flip: Index, bit in 0..7_u8,
    ) {
        let cursors = Cursors::of(&Key::new([1; 32]), "list", &1);
        let at = (at.0, uuid::Uuid::from_u128(at.1));
        let text = cursors.give(at).unwrap();
        let mut params = Params::of(&format!("cursor={text}")).unwrap();
        prop_assert_eq!(cursors.take(&mut params).unwrap(), Some(at));
        let mut bytes = text.into_bytes();
        let place = flip.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let damaged: String = form_urlencoded::byte_serialize(&bytes).collect();
        if let Ok(mut params) = Params::of(&format!("cursor={damaged}")) {
            prop_assert!(cursors.take::<(i64, uuid::Uuid)>(&mut params).is_err());
        }
    }

    #[test]
    fn no_query_makes_the_parameters_panic(query: String) {
        if let Ok(mut params) = Params::of(&query) {
            let _ = query::limit(&mut params);
            let _ = params.read::<uuid::Uuid>("id", "an id");
            let _ = params.end();
        }
    }

    #[test]
    fn no_bytes_in_a_header_make_it_panic(bytes: Vec<u8>, text in "[ -~]{0,300}") {
        for value in [bytes.as_slice(), text.as_bytes()] {
            for name in [&idempotency::IDEMPOTENCY_KEY, &header::IF_MATCH, &causality::PREFER] {
                let Some(headers) = headers(name, value) else { continue };
                if let Ok(Some(key)) = idempotency::key(&headers) {
                    prop_assert!((1..=255).contains(&key.len()));
                }
                let _ = causality::Expected::of(&headers);
                let _ = causality::Prefer::of(&headers).command_wait();
            }
        }
    }

    #[test]
    fn a_key_is_the_same_however_it_is_quoted(key in "[!#-\\[\\]-~]{1,255}") {
        let bare = idempotency::key(&headers(&idempotency::IDEMPOTENCY_KEY, key.as_bytes()).unwrap());
        let quoted = format!("\"{key}\"");
        let quoted = idempotency::key(&headers(&idempotency::IDEMPOTENCY_KEY, quoted.as_bytes()).unwrap());
        prop_assert_eq!(bare.unwrap(), Some(key.clone()));
        prop_assert_eq!(quoted.unwrap(), Some(key));
    }

    #[test]
    fn a_position_is_parsed_back_or_refused(text in "[0-9:,-]{0,80}", any: String) {
        for text in [text, any] {
            if let Ok(position) = text.parse::<LogPosition>() {
                let again: LogPosition = position.to_string().parse().unwrap();
                prop_assert_eq!(again, position);
            }
        }
    }

    /// A token with any one bit changed is refused.
    #[test]
    fn a_changed_bearer_token_is_refused(at: Index, bit in 0..7_u8, any in "[A-Za-z0-9._-]{0,400}") {
        let (authenticator, token, now) = keys();
        prop_assert!(authenticator.authenticate(token, *now).is_ok());
        let mut changed = token.clone().into_bytes();
        let place = at.index(changed.len());
        changed[place] ^= 1 << bit;
        let changed = String::from_utf8(changed).unwrap();
        for text in [changed, any] {
            let refused = authenticator.authenticate(&text, *now).unwrap_err();
            prop_assert_eq!(refused.kind(), Kind::Unauthenticated);
        }
    }

    #[test]
    fn no_bytes_make_a_body_panic(bytes: Vec<u8>, text: String) {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            if let Err(problem) = extract::parse::<Value>(bytes) {
                prop_assert!([Kind::InvalidBody, Kind::ValidationFailed].contains(&problem.kind()));
            }
        }
    }
}
