//! Strict reading of requests: anything unknown is refused, with its place.

mod body;
mod field;
mod headers;
mod integer;
mod object;
mod params;

pub use body::{MAX_BODY_BYTES, Media, bytes, json, parse, push_name};
pub use field::{Field, object_field};
pub use headers::{check_message, single};
pub use integer::integer;
pub use object::{Object, object, objects};
pub use params::{Params, Unescaped};

use crate::{auth::Caller, problem::Problem};
use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use std::str::FromStr;
use uuid::Uuid;

/// The id in the path, in its canonical form. A malformed UUID is `not-found`, and so is one in
/// another form: a resource has one path, which caches, proxies and idempotency keys go by.
#[derive(Clone, Copy, Debug)]
pub struct PathId(pub Uuid);

/// The text as a value whose text it is. `None` if it is malformed, or written in another form.
pub fn canonical<T: FromStr + ToString>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|value| value.to_string() == text)
}

/// The id in the path of a resource that anybody may see.
#[derive(Clone, Copy, Debug)]
pub struct PublicId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = PublicId::from_request_parts(parts, state).await;
        // Without a token every id gets the same answer.
        if id.is_err() {
            Caller::from_request_parts(parts, state).await.unwrap_or_default().principal()?;
        }
        id.map(|PublicId(id)| Self(id))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PublicId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok();
        let id = id.and_then(|Path(text)| canonical(&text));
        id.map(Self).ok_or_else(|| Problem::not_found("resource"))
    }
}
