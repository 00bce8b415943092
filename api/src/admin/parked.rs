//! `/admin/parked`: streams that read models keep back.

use crate::{
    App,
    auth::{Access, Caller, Role},
    extract::Params,
    problem::Problem,
    query::{self, Cursors, ListBody, PageParams},
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use events::{Position, StreamId};
use projections::parked::{self, Outcome, ParkedStream, Retried, RetryError};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A stream that a version of a read model keeps back, from one event on.
#[derive(Serialize, ToSchema)]
#[schema(as = ParkedStream)]
pub struct ParkedBody {
    /// Of which read model.
    #[schema(example = "orders")]
    projection: &'static str,
    /// Which version of it.
    version: u32,
    /// Whether queries see that version.
    serving: bool,
    /// The stream.
    #[schema(value_type = String, example = "order-0192f3a4-5b6c-7d8e-9f00-0a0000000001")]
    stream: StreamId,
    /// The version of the stream with the first event kept back.
    stream_version: u64,
    /// Where that event stands.
    #[schema(value_type = String, example = "3:1042")]
    position: Position,
    /// Where the last one stands.
    #[schema(value_type = String, example = "3:1077")]
    last_position: Position,
    /// How many there are.
    events: i64,
    /// Why the first one cannot be applied.
    #[schema(example = "no event is called OrderGiftWrapped")]
    reason: String,
    /// When the first one was decided.
    first_at: DateTime<Utc>,
    /// When the last one was decided.
    last_at: DateTime<Utc>,
    /// When the stream was parked.
    parked_at: DateTime<Utc>,
    /// How often it was tried again in vain.
    tries: u32,
}

impl From<ParkedStream> for ParkedBody {
    fn from(parked: ParkedStream) -> Self {
        Self {
            projection: parked.model.as_str(),
            version: parked.version,
            serving: parked.serving,
            stream: parked.stream,
            stream_version: parked.stream_version,
            position: parked.position,
            last_position: parked.last_position,
            events: parked.events,
            reason: parked.reason,
            first_at: parked.first_at,
            last_at: parked.last_at,
            parked_at: parked.parked_at,
            tries: parked.tries,
        }
    }
}

/// What became of a parked stream.
#[derive(Serialize, ToSchema)]
pub struct RetriedListBody {
    /// In each version that had it parked.
    items: Vec<RetriedBody>,
}

/// What became of a parked stream in one version of a read model.
#[derive(Serialize, ToSchema)]
#[schema(as = Retried)]
pub struct RetriedBody {
    /// Of which read model.
    #[schema(example = "orders")]
    projection: &'static str,
    /// Which version of it.
    version: u32,
    /// Events applied now.
    applied: u64,
    /// `drained`, `parked` (refused again) or `stale` (written by other code, left alone).
    #[schema(example = "drained")]
    outcome: &'static str,
    /// The first event that is not applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "3:1042")]
    position: Option<Position>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "no event is called OrderGiftWrapped")]
    reason: Option<String>,
}

impl From<Retried> for RetriedBody {
    fn from(retried: Retried) -> Self {
        let (outcome, position, reason) = match retried.outcome {
            Outcome::Drained => ("drained", None, None),
            Outcome::Stale => ("stale", None, None),
            Outcome::Parked { position, reason } => ("parked", Some(position), Some(reason)),
        };
        Self {
            projection: retried.model.as_str(),
            version: retried.version,
            applied: retried.applied,
            outcome,
            position,
            reason,
        }
    }
}

/// The streams that read models keep back because an event of them cannot be applied.
#[utoipa::path(
    get,
    path = "/api/v1/admin/parked",
    tag = "administration",
    operation_id = "list_parked",
    params(PageParams),
    responses(
        (status = 200, description = "A page of streams.", body = ListBody<ParkedBody>),
        (status = 400, description = "`invalid-parameter`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    mut params: Params,
) -> Result<Json<ListBody<ParkedBody>>, Problem> {
    caller.require(Access::AtLeast(Role::Admin))?;
    let cursors = Cursors::of("parked", &());
    let after = cursors.take(&mut params)?;
    let limit = query::limit(&mut params)?;
    params.end()?;
    let found = parked::list(app.reads()?.pool(), after, limit + 1).await;
    let found = found.map_err(|error| unavailable(&error))?;
    let page = ListBody::cut(found, limit, &cursors, ParkedStream::cursor)?;
    Ok(Json(page.map(ParkedBody::from)))
}

/// Applies what is kept back of a stream, in order, after a fix.
///
/// What is refused again stays parked.
#[utoipa::path(
    post,
    path = "/api/v1/admin/parked/{stream}/retry",
    tag = "administration",
    operation_id = "retry_parked",
    params(("stream" = String, Path, description = "The stream: `<kind>-<uuid>`")),
    responses(
        (status = 200, description = "What became of it.", body = RetriedListBody),
        (status = 404, description = "`not-found`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn retry(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(stream): Path<String>,
) -> Result<Json<RetriedListBody>, Problem> {
    caller.require(Access::AtLeast(Role::Admin))?;
    let stream: StreamId = stream.parse().map_err(|_| Problem::not_found("parked stream"))?;
    match parked::retry(app.reads()?.pool(), &app.log, stream).await {
        Ok(retried) => {
            let items = retried.into_iter().map(RetriedBody::from).collect();
            Ok(Json(RetriedListBody { items }))
        }
        Err(RetryError::NotParked(_)) => Err(Problem::not_found("parked stream")),
        Err(error) => Err(unavailable(&error)),
    }
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "the parked streams cannot be asked");
    Problem::unavailable("the parked streams cannot be asked")
}
