//! Strict reading of requests: anything unknown is refused, with its place.

mod body;
mod field;
mod integer;
mod object;
mod params;

pub use body::{MAX_BODY_BYTES, Media, bytes, json, parse};
pub use field::{Field, object_field};
pub use integer::integer;
pub use object::{Object, object, objects};
pub use params::{Params, Unescaped};

use crate::problem::Problem;
use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};
use uuid::Uuid;

/// The id in the path. A malformed UUID is `not-found`.
#[derive(Clone, Copy, Debug)]
pub struct PathId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let id = Path::<String>::from_request_parts(parts, state).await.ok();
        let id = id.and_then(|Path(text)| Uuid::try_parse(&text).ok());
        id.map(Self).ok_or_else(|| Problem::not_found("resource"))
    }
}
