//! `GET /orders/{id}/events` and `POST /orders/{id}/events/ticket`.

use super::get::visible;
use crate::{
    App,
    auth::{Caller, Principal, Until},
    causality::{Freshness, set_header},
    extract::{Params, PathId, canonical, single},
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

/// The id of the last event that the client has seen.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells nginx not to buffer the stream.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Stream the events of an order as server-sent events.
///
/// The stream begins with the first event, or with the one after `Last-Event-ID`, and sends each
/// event once and in order. `id` is the version, `event` the type, and `data` the item as the
/// history shows it. The stream ends when the caller's token expires or the server stops; the
/// client then connects again with the last id it has seen.
#[utoipa::path(
    get,
    path = "/api/v1/orders/{id}/events",
    tag = "orders",
    operation_id = "listen_to_order",
    params(
        ("id" = Uuid, Path, description = "The order"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The last version the client has seen"),
        (
            "last_event_id" = Option<u64>, Query,
            description = "The same, for browsers that connect again with a new ticket"
        ),
        (
            "ticket" = Option<String>, Query,
            description = "A ticket made by `create_order_ticket`, instead of a token: for browsers"
        ),
    ),
    responses(
        (
            status = 200, description = "Events, with comments as heartbeats.",
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
        return Err(Problem::invalid_parameter("ticket", "cannot be combined with a token"));
    }
    let (principal, until) = app.tickets.check(ticket, order, app.environment.now())?;
    Ok((Caller(Some(principal)), Until(Some(until))))
}

/// The last version that the client has seen; 0 for none. The header wins over the query, because
/// a browser that reconnects updates the header and keeps the URL.
fn last_event_id(headers: &HeaderMap, params: &mut Params) -> Result<u64, Problem> {
    let given = params.number("last_event_id", "the id of an event")?;
    let Some(header) = single(headers, &LAST_EVENT_ID)? else { return Ok(given.unwrap_or(0)) };
    let text = header.to_str().unwrap_or("unreadable").trim();
    // A browser that has seen no id, or an empty one, may send the header empty.
    if text.is_empty() {
        return Ok(given.unwrap_or(0));
    }
    let invalid = || Problem::invalid_parameter("Last-Event-ID", "must be the id of an event");
    canonical(text).ok_or_else(invalid)
}

/// A ticket to listen to one order.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderTicket)]
pub struct TicketBody {
    /// The value for `?ticket=`. It is valid for this order only, and not as a token.
    #[schema(example = "c2VhbGVkIGZvciBvbmUgb3JkZXI")]
    pub ticket: String,
    /// When the ticket expires. A stream opened with it goes on after that.
    pub expires_at: DateTime<Utc>,
}

/// Create a ticket to listen to an order from a browser.
///
/// A browser's `EventSource` cannot send a token, so it sends this ticket. The ticket is valid for
/// one minute.
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
    fn the_last_event_is_named_in_the_header_or_in_the_query() {
        let of = |header: Option<&'static str>, query: &str| {
            let header = header.map(|it| (LAST_EVENT_ID, HeaderValue::from_static(it)));
            last_event_id(&HeaderMap::from_iter(header), &mut Params::of(query).unwrap()).ok()
        };
        assert_eq!(of(None, ""), Some(0));
        assert_eq!(of(Some("7"), ""), Some(7));
        assert_eq!(of(None, "last_event_id=5"), Some(5));
        assert_eq!(of(Some("7"), "last_event_id=5"), Some(7));
        assert_eq!(of(Some(""), ""), Some(0));
        assert_eq!(of(Some(""), "last_event_id=5"), Some(5));
        for bad in ["x", "+7", "07", "-1", "1.5", "99999999999999999999"] {
            assert_eq!(of(Some(bad), ""), None, "{bad}");
        }
        assert_eq!(of(None, "last_event_id=x"), None);
    }
}
