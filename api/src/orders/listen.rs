//! `GET /orders/{id}/events` and `POST /orders/{id}/events/ticket`.

use super::get::visible;
use crate::{
    App,
    auth::{Caller, Principal, Until},
    causality::{Freshness, set_header},
    extract::{Params, PathId},
    live::Listener,
    problem::Problem,
    query,
};
use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use events::{StreamId, Timestamp};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// The event that a client has seen last.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx not to hold lines back.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What happened to an order and what happens to it, as server-sent events.
///
/// They come from the first one on, or behind `Last-Event-ID`, in order and each once. `id` is the
/// version, `event` the type, `data` the item as the history shows it. The stream ends with the
/// caller's token, and when the server stops: clients come back with the last id.
#[utoipa::path(
    get,
    path = "/api/v1/orders/{id}/events",
    tag = "orders",
    operation_id = "listen_to_order",
    params(
        ("id" = Uuid, Path, description = "The order"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The version seen last"),
        (
            "last_event_id" = Option<u64>, Query,
            description = "The same, for browsers that come back with a new ticket"
        ),
        (
            "ticket" = Option<String>, Query,
            description = "Instead of a token, for browsers: made by `create_order_ticket`"
        ),
    ),
    responses(
        (
            status = 200, description = "Events, and comments as heartbeats.",
            body = String, content_type = "text/event-stream",
            example = json!("id: 1\nevent: OrderPlaced\ndata: {\"version\":1,\"type\":\"OrderPlaced\"}\n\n")
        ),
        (status = 404, description = "`not-found`"),
    ),
    security(("bearer" = ["customer"]), ()),
)]
pub async fn listen(
    State(app): State<Arc<App>>,
    caller: Caller,
    until: Until,
    PathId(id): PathId,
    headers: HeaderMap,
    freshness: Freshness,
    mut params: Params,
) -> Result<Response, Problem> {
    let ticket = params.one("ticket")?;
    let after = last_event_id(&headers, &mut params)?;
    params.end()?;
    let (caller, until) = match ticket {
        Some(ticket) => of_ticket(&app, &caller, &ticket, id)?,
        None => (caller, until),
    };
    let owner = caller.owner()?;
    let live = app.live()?;
    visible(&app, id, owner, &freshness).await?;
    let (stream, principal) = (StreamId::order(id), caller.principal()?);
    let listener = Listener::open(live, stream, principal, after, until.0, &freshness).await?;
    let mut response = Body::from_stream(listener.lines()).into_response();
    set_header(&mut response, header::CONTENT_TYPE, "text/event-stream");
    set_header(&mut response, header::CACHE_CONTROL, "no-store");
    set_header(&mut response, X_ACCEL_BUFFERING, "no");
    Ok(response)
}

fn of_ticket(
    app: &App,
    caller: &Caller,
    ticket: &str,
    order: Uuid,
) -> Result<(Caller, Until), Problem> {
    if caller.0.is_some() {
        return Err(Problem::invalid_parameter("ticket", "is for requests without a token"));
    }
    let (principal, until) = app.tickets.check(ticket, order, app.environment.now())?;
    Ok((Caller(Some(principal)), Until(Some(until))))
}

/// The version that was seen last; 0 for none. The header is newer than the address, which a
/// browser keeps.
fn last_event_id(headers: &HeaderMap, params: &mut Params) -> Result<u64, Problem> {
    let given = params.read("last_event_id", "the id of an event")?;
    let Some(header) = headers.get(LAST_EVENT_ID) else { return Ok(given.unwrap_or(0)) };
    let text = header.to_str().unwrap_or_default().trim();
    let invalid = || Problem::invalid_parameter("Last-Event-ID", "must be the id of an event");
    text.parse().map_err(|_| invalid())
}

/// A ticket for the events of one order.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderTicket)]
pub struct TicketBody {
    /// For `?ticket=`; not a token, and good for this order only.
    #[schema(example = "Zm9yIG9uZSBvcmRlcg.c2lnbmVk")]
    pub ticket: String,
    /// When it can no longer be shown. What it has opened goes on.
    pub expires_at: DateTime<Utc>,
}

/// A ticket for the events of an order: a browser's event source cannot send a token.
///
/// It lasts a minute.
#[utoipa::path(
    post,
    path = "/api/v1/orders/{id}/events/ticket",
    tag = "orders",
    operation_id = "create_order_ticket",
    params(("id" = Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "The ticket.", body = TicketBody),
        (status = 404, description = "`not-found`"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn ticket(
    State(app): State<Arc<App>>,
    caller: Caller,
    until: Until,
    PathId(id): PathId,
    freshness: Freshness,
    params: Params,
) -> Result<Response, Problem> {
    let owner = caller.owner()?;
    params.end()?;
    let found = visible(&app, id, owner, &freshness).await?;
    let principal: &Principal = caller.principal()?;
    let until = until.0.unwrap_or(Timestamp::MAX_UTC);
    let ticket = app.tickets.give(id, principal, until, app.environment.now())?;
    let body = TicketBody { ticket: ticket.text, expires_at: ticket.expires_at };
    let mut response = Json(body).into_response();
    set_header(&mut response, header::CACHE_CONTROL, "no-store");
    query::reflect(&mut response, freshness.prefer, &found.position);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_last_event_is_named_in_the_header_or_in_the_address() {
        let of = |header: Option<&'static str>, query: &str| {
            let header = header.map(|it| (LAST_EVENT_ID, HeaderValue::from_static(it)));
            last_event_id(&HeaderMap::from_iter(header), &mut Params::of(query).unwrap()).ok()
        };
        assert_eq!(of(None, ""), Some(0));
        assert_eq!(of(Some("7"), ""), Some(7));
        assert_eq!(of(None, "last_event_id=5"), Some(5));
        assert_eq!(of(Some("7"), "last_event_id=5"), Some(7));
        for bad in ["", "x", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(of(Some(bad), ""), None, "{bad}");
        }
        assert_eq!(of(None, "last_event_id=x"), None);
    }
}
