//! `GET /orders` and `GET /customers/{id}/orders`.

use super::body::{self, OrderBody, OrderStatus, SealedOrder};
use crate::{
    App,
    auth::Caller,
    causality::Freshness,
    extract::{Params, PathId},
    problem::{Kind, Problem},
    query::{self, Found, ListBody, PageParams, PageRequest},
};
use axum::{extract::State, response::Response};
use projections::{
    Page, ReadModel,
    orders::{Cursor, Filter, Status},
};
use std::sync::Arc;
use uuid::Uuid;

/// List orders, newest first.
///
/// A customer sees their own orders only.
#[utoipa::path(
    get,
    path = "/api/v1/orders",
    tag = "orders",
    operation_id = "list_orders",
    params(
        (
            "status" = Option<Vec<OrderStatus>>, Query,
            description = "Only orders with this status; may be repeated"
        ),
        ("customer_id" = Option<Uuid>, Query, description = "Only orders of this customer"),
        (
            "placed_from" = Option<DateTime<Utc>>, Query,
            description = "Only orders placed at this time or later"
        ),
        (
            "placed_to" = Option<DateTime<Utc>>, Query,
            description = "Only orders placed before this time"
        ),
        PageParams,
    ),
    responses((status = 200, description = "A page of orders.", body = ListBody<OrderBody>)),
    security(("bearer" = ["customer"])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    freshness: Freshness,
    mut params: Params,
) -> Result<Response, Problem> {
    let owner = caller.owner()?;
    let wanted = params.read("customer_id", "a UUID")?;
    if owner.is_some() && wanted.is_some() && wanted != owner {
        return Err(Problem::new(Kind::Forbidden, "a customer can list only their own orders"));
    }
    page(&app, owner.or(wanted), "orders", &freshness, params).await
}

/// List the orders of a customer, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/customers/{id}/orders",
    tag = "customers",
    operation_id = "list_customer_orders",
    params(
        ("id" = Uuid, Path, description = "The customer"),
        (
            "status" = Option<Vec<OrderStatus>>, Query,
            description = "Only orders with this status; may be repeated"
        ),
        (
            "placed_from" = Option<DateTime<Utc>>, Query,
            description = "Only orders placed at this time or later"
        ),
        (
            "placed_to" = Option<DateTime<Utc>>, Query,
            description = "Only orders placed before this time"
        ),
        PageParams,
    ),
    responses((status = 200, description = "A page of orders.", body = ListBody<OrderBody>)),
    security(("bearer" = ["customer"])),
)]
pub async fn of_customer(
    State(app): State<Arc<App>>,
    caller: Caller,
    PathId(id): PathId,
    freshness: Freshness,
    params: Params,
) -> Result<Response, Problem> {
    caller.require_customer_or_staff(id)?;
    page(&app, Some(id), "customer-orders", &freshness, params).await
}

async fn page(
    app: &App,
    customer_id: Option<Uuid>,
    name: &str,
    freshness: &Freshness,
    mut params: Params,
) -> Result<Response, Problem> {
    let filter = filter(customer_id, &mut params)?;
    let page = PageRequest::of(app, name, &filter, params)?;
    let after = page.after.map(|(placed_at, order_id)| Cursor { placed_at, order_id });
    let limit = page.limit;
    let found = query::read(app.reads()?, ReadModel::Orders, freshness, |reads| async move {
        reads.orders(&filter, after, limit).await
    })
    .await?;
    let Page { items, next } = found.value;
    let items = items.into_iter().map(|row| SealedOrder::from(row).without_address()).collect();
    let value = Page { items: body::open_all(app, items).await?, next };
    let found = Found { value, position: found.position };
    page.answer(freshness, found, |next| (next.placed_at, next.order_id), |body| body)
}

fn filter(customer_id: Option<Uuid>, params: &mut Params) -> Result<Filter, Problem> {
    let status = |name: String| {
        name.parse()
            .map_err(|_| Problem::invalid_parameter("status", "must be the status of an order"))
    };
    let mut statuses: Vec<Status> =
        params.all("status").into_iter().map(status).collect::<Result<_, _>>()?;
    // A cursor is bound to its filter. Sorted, the same set of statuses is the same filter.
    statuses.sort_unstable_by_key(|status| status.as_str());
    statuses.dedup();
    let placed_from = params.moment("placed_from")?;
    let placed_to = params.moment("placed_to")?;
    Ok(Filter { statuses, customer_id, placed_from, placed_to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<Filter, Problem> {
        filter(None, &mut Params::of(query).unwrap())
    }

    #[test]
    fn a_filter_is_the_same_however_it_is_written() {
        let one = of("status=shipped&status=pending&placed_from=2026-11-20T12:00:00Z").unwrap();
        let two = of(
            "placed_from=2026-11-20T13:00:00+01:00&status=pending&status=shipped&status=pending",
        );
        assert_eq!(one, two.unwrap());
    }

    #[test]
    fn an_unreadable_filter_is_refused() {
        for query in ["status=lost", "status=", "placed_from=yesterday", "placed_to=2026-11-20"] {
            assert_eq!(of(query).unwrap_err().kind(), Kind::InvalidParameter, "{query}");
        }
    }
}
