//! `GET /orders/{id}/history`.

use super::get::visible;
use crate::{
    App,
    auth::Caller,
    causality::Freshness,
    extract::{Params, PathId},
    problem::Problem,
    query::{self, ListBody, PageParams, PageRequest},
};
use axum::{extract::State, response::Response};
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

/// An event of a stream.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventBody {
    /// Version of the stream after this event; the first event makes version 1.
    pub version: u64,
    /// Type of the event.
    #[serde(rename = "type")]
    #[schema(example = "PaymentVoided")]
    pub event_type: String,
    /// When the event happened.
    pub occurred_at: DateTime<Utc>,
    /// Data of the event as the log has it. Personal data is encrypted.
    #[schema(value_type = Object, example = json!({ "ordinal": 1 }))]
    pub data: Box<RawValue>,
    /// Position of the event in the log.
    #[schema(value_type = String, example = "3:1042")]
    pub position: Position,
}

impl From<Entry> for EventBody {
    fn from(entry: Entry) -> Self {
        Self {
            version: entry.version,
            event_type: entry.event_type,
            occurred_at: entry.occurred_at,
            data: entry.data,
            position: entry.position,
        }
    }
}

/// List the events of an order, oldest first.
#[utoipa::path(
    get,
    path = "/api/v1/orders/{id}/history",
    tag = "orders",
    operation_id = "get_order_history",
    params(
        ("id" = Uuid, Path, description = "The order"),
        PageParams,
    ),
    responses(
        (status = 200, description = "A page of events.", body = ListBody<EventBody>),
        (status = 404, description = "`not-found`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn history(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    mut freshness: Freshness,
    params: Params,
) -> Result<Response, Problem> {
    let owner = caller.owner()?;
    let stream = StreamId::order(id);
    let page: PageRequest<u64> = PageRequest::of(&app, "history", &stream, params)?;
    let order = visible(&app, id, owner, &freshness).await?;
    // The history is another read model, which may be behind the one that showed the order.
    let mut at_least = freshness.at_least.clone().unwrap_or_default();
    let [partition] = query::partition(&app, stream);
    order.position.iter().filter(|at| at.partition == partition).for_each(|at| at_least.cover(at));
    freshness.at_least = Some(at_least);
    let range = Range { after: page.after.unwrap_or(0), up_to: u64::MAX, limit: page.limit + 1 };
    let found = query::read(app.reads()?, ReadModel::History, &freshness, |reads| async move {
        reads.history(stream, range).await
    })
    .await?;
    let found = found.map(|entries| page.cut(entries, |entry| entry.version));
    page.answer(&freshness, found, |next| next, EventBody::from)
}
