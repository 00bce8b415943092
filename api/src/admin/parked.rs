//! `/admin/parked`: streams that a read model cannot apply.

use crate::{
    App,
    auth::{Access, Caller, Role},
    extract::{Params, canonical},
    problem::Problem,
    query::{ListBody, PageParams, PageRequest},
};
use axum::{
    Json,
    extract::{Path, State},
};
use chrono::{DateTime, Utc};
use events::{Position, StreamId};
use projections::parked::{self, ParkedStream, Retried, RetryError, RetryReport};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A stream that a version of a read model has parked: it applies no event of the stream from one
/// event on.
#[derive(Serialize, ToSchema)]
#[schema(as = ParkedStream)]
pub struct ParkedBody {
    /// Name of the read model.
    #[schema(example = "orders")]
    projection: &'static str,
    /// Number of its version.
    version: u32,
    /// Whether queries read from this version.
    serving: bool,
    /// Id of the stream.
    #[schema(value_type = String, example = "order-0192f3a4-5b6c-7d8e-9f00-0a0000000001")]
    stream: StreamId,
    /// Stream version of the first event that is kept back.
    stream_version: u64,
    /// Log position of the first event that is kept back.
    #[schema(value_type = String, example = "3:1042")]
    position: Position,
    /// Log position of the last event that is kept back.
    #[schema(value_type = String, example = "3:1077")]
    last_position: Position,
    /// Number of events that are kept back.
    events: i64,
    /// Why the first event cannot be applied.
    #[schema(example = "no event is called OrderGiftWrapped")]
    reason: String,
    /// Time of the first event that is kept back.
    first_at: DateTime<Utc>,
    /// Time of the last event that is kept back.
    last_at: DateTime<Utc>,
    /// When the stream was parked.
    parked_at: DateTime<Utc>,
    /// Number of retries that failed.
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

/// The result of a retry.
#[derive(Serialize, ToSchema)]
pub struct RetriedListBody {
    /// The result in each version that had parked the stream.
    items: Vec<RetriedBody>,
}

/// The result of a retry in one version of a read model.
#[derive(Serialize, ToSchema)]
#[schema(as = Retried)]
pub struct RetriedBody {
    /// Name of the read model.
    #[schema(example = "orders")]
    projection: &'static str,
    /// Number of its version.
    version: u32,
    /// Number of events that the retry applied.
    applied: u64,
    /// `drained` (all events applied), `parked` (an event failed again) or `stale` (another program
    /// built the version, and it was left alone).
    #[schema(example = "drained")]
    outcome: &'static str,
    /// Log position of the event that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "3:1042")]
    position: Option<Position>,
    /// Why the event failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "no event is called OrderGiftWrapped")]
    reason: Option<String>,
}

impl From<RetryReport> for RetriedBody {
    fn from(retried: RetryReport) -> Self {
        let (outcome, position, reason) = match retried.result {
            Retried::Drained => ("drained", None, None),
            Retried::Stale => ("stale", None, None),
            Retried::Parked { position, reason } => ("parked", Some(position), Some(reason)),
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

/// List the streams that read models have parked because an event cannot be applied.
#[utoipa::path(
    get,
    path = "/api/v1/admin/parked",
    tag = "administration",
    operation_id = "list_parked",
    params(PageParams),
    responses(
        (status = 200, description = "A page of parked streams.", body = ListBody<ParkedBody>),
        (status = 400, description = "`invalid-parameter`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    params: Params,
) -> Result<Json<ListBody<ParkedBody>>, Problem> {
    caller.require(Access::AtLeast(Role::Admin))?;
    let mut page = PageRequest::of(&app, "parked", &(), params)?;
    let found = parked::list(app.reads()?.pool(), page.after.take(), page.limit + 1).await;
    let found = found.map_err(|error| unavailable(&error))?;
    let found = page.cut(found, ParkedStream::cursor);
    Ok(Json(page.body(found, |next| next, ParkedBody::from)?))
}

/// Retry a parked stream, after a fix.
///
/// The events that were kept back are applied in order. If one fails again, it and the events after
/// it stay parked.
#[utoipa::path(
    post,
    path = "/api/v1/admin/parked/{stream}/retry",
    tag = "administration",
    operation_id = "retry_parked",
    params(("stream" = String, Path, description = "The stream: `<kind>-<uuid>`")),
    responses(
        (status = 200, description = "The result in each version.", body = RetriedListBody),
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
    let stream: StreamId = canonical(&stream).ok_or_else(|| Problem::not_found("parked stream"))?;
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
    tracing::error!(error, "the parked streams cannot be read");
    Problem::unavailable("the parked streams cannot be read")
}
