//! `/admin/streams/{id}`: the raw events of any stream.

use crate::{
    App,
    auth::{Access, Caller, Role},
    causality::Freshness,
    extract::{Params, canonical},
    problem::Problem,
    query::{self, ListBody, PageParams, PageRequest, read_one},
};
use axum::{
    extract::{Path, State},
    response::Response,
};
use chrono::{DateTime, Utc};
use events::{Position, StreamId};
use projections::{
    ReadModel,
    history::{Entry, Range},
};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// An event with its metadata.
#[derive(Serialize, ToSchema)]
#[schema(as = RawEvent)]
pub struct RawEventBody {
    /// Id of the event.
    event_id: Uuid,
    /// Id of the stream.
    #[schema(value_type = String, example = "order-0192f3a4-5b6c-7d8e-9f00-0a0b0c0d0e01")]
    stream: StreamId,
    /// Version of the stream after this event.
    version: u64,
    /// Type of the event.
    #[serde(rename = "type")]
    #[schema(example = "PaymentVoided")]
    event_type: String,
    /// Schema version of `data`.
    schema: u16,
    /// When the event happened.
    occurred_at: DateTime<Utc>,
    /// Id of the command that caused the event.
    command_id: Uuid,
    /// Id of the first command of the process that the event belongs to.
    correlation_id: Uuid,
    /// Id of the command or event that directly caused the command.
    causation_id: Uuid,
    /// Position of the event in the log.
    #[schema(value_type = String, example = "3:1042")]
    position: Position,
    /// Data of the event as the log has it. Personal data is encrypted.
    #[schema(value_type = Object, example = json!({ "ordinal": 1 }))]
    data: Box<RawValue>,
}

impl From<Entry> for RawEventBody {
    fn from(entry: Entry) -> Self {
        Self {
            event_id: entry.event_id,
            stream: entry.stream,
            version: entry.version,
            event_type: entry.event_type,
            schema: entry.schema,
            occurred_at: entry.occurred_at,
            command_id: entry.command_id,
            correlation_id: entry.correlation_id,
            causation_id: entry.causation_id,
            position: entry.position,
            data: entry.data,
        }
    }
}

/// List the events of any stream with their metadata, oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/admin/streams/{id}",
    tag = "administration",
    operation_id = "get_stream",
    params(
        ("id" = String, Path, description = "The stream: `<kind>-<uuid>`"),
        PageParams,
    ),
    responses(
        (status = 200, description = "A page of events.", body = ListBody<RawEventBody>),
        (status = 404, description = "`not-found`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn events(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    freshness: Freshness,
    params: Params,
) -> Result<Response, Problem> {
    caller.require(Access::AtLeast(Role::Admin))?;
    let stream: StreamId = canonical(&id).ok_or_else(|| Problem::not_found("stream"))?;
    let page: PageRequest<u64> = PageRequest::of(&app, "stream", &stream, params)?;
    let after = page.after.unwrap_or(0);
    let range = Range { after, up_to: u64::MAX, limit: page.limit + 1 };
    let partitions = query::partition(&app, stream);
    let found = read_one(&app, ReadModel::History, &partitions, &freshness, |reads| async move {
        let events = reads.history(stream, range).await?;
        Ok(Some(events).filter(|events| after > 0 || !events.is_empty()))
    })
    .await?;
    let found = found.map(|entries| page.cut(entries, |entry| entry.version));
    page.answer(&freshness, found, |next| next, RawEventBody::from)
}
