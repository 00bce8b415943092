//! `POST /orders`.

use super::body::OrderBody;
use crate::{
    App,
    auth::{Access, Role},
    command::{self, CommandBody, Received, carry_out, detached},
    config::MAX_UNITS,
    customers,
    extract::{integer, objects},
    problem::{Kind, Problem},
    products,
    validate::{ADDRESS, SHORT_TEXT, Validator},
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::order::{Command, Place};
use events::{Private, Sealed, StreamId, order::Line};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// The most lines of an order, counted before lines of one product are merged.
const MAX_ITEMS: usize = 100;

/// The request to place an order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceOrderRequest {
    /// Id of the customer who orders.
    pub customer_id: Uuid,
    /// 1 to 100 lines. Lines of one product are merged.
    #[serde(deserialize_with = "objects")]
    #[schema(min_items = 1, max_items = 100)]
    pub items: Vec<OrderItemRequest>,
    /// The payment gateway's token for the means of payment. Never a card number.
    #[schema(value_type = String, min_length = 1, max_length = 200, example = "pm_card_visa")]
    pub payment_method: Private,
    /// Address to ship to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 2000)]
    #[schema(example = "1 Mill Lane, York")]
    pub shipping_address: Option<Private>,
}

/// A line of the request.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderItemRequest {
    /// Id of the product.
    pub product_id: Uuid,
    /// Number of units, from 1 to 1000000. The shop may allow fewer of one product in an order.
    #[serde(deserialize_with = "integer")]
    #[schema(minimum = 1, maximum = 1_000_000, example = 2)]
    pub quantity: i64,
}

impl CommandBody for PlaceOrderRequest {
    const ACCESS: Access = Access::AtLeast(Role::Customer);
}

/// Place an order and wait for its outcome.
///
/// The order is confirmed once stock is reserved, prices are fixed and the payment is captured.
/// `Prefer: wait=N` or `respond-async` limits the wait; an order that is still pending is a 202.
#[utoipa::path(
    post,
    path = "/api/v1/orders",
    tag = "orders",
    operation_id = "place_order",
    request_body = PlaceOrderRequest,
    responses(
        (status = 201, description = "The order is confirmed.", body = OrderBody),
        (status = 202, description = "The order is accepted and still pending.", body = OrderBody),
        (status = 402, description = "`payment-declined`"),
        (
            status = 404,
            description = "`customer-not-found` (also for an erased customer), `product-not-found`",
        ),
        (
            status = 409,
            description = "`insufficient-stock`, `expired`, `too-many-open-orders`, \
                           `too-many-declined-payments`",
        ),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn place(
    State(app): State<Arc<App>>,
    received: Received<PlaceOrderRequest>,
) -> Result<Response, Problem> {
    detached(place_order(app, received)).await
}

async fn place_order(
    app: Arc<App>,
    Received { body, envelope }: Received<PlaceOrderRequest>,
) -> Result<Response, Problem> {
    envelope.caller.require_customer_or_staff(body.customer_id)?;
    let Asked { lines, payment_method, shipping_address } =
        validate(&body, app.settings.units_per_product)?;
    let stream = StreamId::order(envelope.created_id(&app));
    // A retry must find its order, even if the customer was erased or a product discontinued since.
    let is_retry = command::is_retry(&app, &envelope, stream).await?;
    if !is_retry {
        customers::require_may_order(&app, body.customer_id).await?;
        let sold = lines.iter().map(|line| products::require_sold(&app, line.product_id));
        // The answer names the first line at fault, whichever check finishes first.
        join_all(sold).await.into_iter().collect::<Result<(), _>>()?;
    }
    let place = Place {
        customer_id: body.customer_id,
        lines: lines.into(),
        payment_method,
        shipping_address: seal(&app, body.customer_id, shipping_address, is_retry).await?,
        deadline: app.environment.now() + app.settings.order_deadline,
    };
    let decided = carry_out(&app, &envelope, stream, Command::from(place)).await?;
    let shown = super::show(&app, &envelope, decided).await?;
    let order = super::order_of(&shown.decided)?;
    if let Some(rejected) = order.detail().and_then(|detail| detail.rejected.as_ref()) {
        let problem = Problem::of_rejection(stream.id, rejected, shown.decided.replayed);
        return Err(problem.with_position(&shown.position));
    }
    Ok(shown.respond(&envelope, StatusCode::CREATED))
}

/// A request whose values are valid.
#[derive(Debug)]
struct Asked {
    lines: Vec<Line>,
    payment_method: Private,
    shipping_address: Option<Private>,
}

fn validate(body: &PlaceOrderRequest, units_per_product: i64) -> Result<Asked, Problem> {
    let mut validator = Validator::default();
    let items = body.items.len();
    validator.check((1..=MAX_ITEMS).contains(&items), "/items", "must have from 1 to 100 lines");
    for (index, item) in body.items.iter().take(MAX_ITEMS).enumerate() {
        let in_bounds = (1..=MAX_UNITS).contains(&item.quantity);
        let pointer = format!("/items/{index}/quantity");
        validator.check(in_bounds, &pointer, "must be from 1 to 1000000");
    }
    let method = validator.text(body.payment_method.reveal(), "/payment_method", SHORT_TEXT);
    let address = body.shipping_address.as_ref().map(Private::reveal);
    let address = validator.optional(address, "/shipping_address", ADDRESS);
    validator.end()?;
    let (payment_method, shipping_address) = (method.into(), address.map(Private::from));
    let lines = merged(&body.items);
    let mut validator = Validator::default();
    let in_bounds = lines.iter().all(|line| line.quantity <= units_per_product);
    let rule = format!(
        "must have at most {units_per_product} units of one product, all its lines together"
    );
    validator.check(in_bounds, "/items", &rule);
    validator.end()?;
    Ok(Asked { lines, payment_method, shipping_address })
}

/// One line for each product, in the order in which the products are first named.
fn merged(items: &[OrderItemRequest]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::with_capacity(items.len());
    for &OrderItemRequest { product_id, quantity } in items {
        match lines.iter_mut().find(|line| line.product_id == product_id) {
            Some(line) => line.quantity = line.quantity.saturating_add(quantity),
            None => lines.push(Line { product_id, quantity }),
        }
    }
    lines
}

/// The shipping address, sealed with the customer's key. A retry does not place the order again, so
/// it does not need the key.
async fn seal(
    app: &App,
    customer_id: Uuid,
    address: Option<Private>,
    is_retry: bool,
) -> Result<Option<Sealed>, Problem> {
    let Some(address) = address.filter(|_| !is_retry) else { return Ok(None) };
    let key = customers::key(app, customer_id).await?.ok_or(Kind::CustomerNotFound)?;
    customers::seal(&key, customer_id, "shipping_address", address.reveal()).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(quantities: &[(u128, i64)]) -> PlaceOrderRequest {
        let item = |&(product, quantity): &(u128, i64)| OrderItemRequest {
            product_id: Uuid::from_u128(product),
            quantity,
        };
        PlaceOrderRequest {
            customer_id: Uuid::from_u128(1),
            items: quantities.iter().map(item).collect(),
            payment_method: "pm_card_visa".into(),
            shipping_address: None,
        }
    }

    #[test]
    fn lines_of_one_product_are_merged_in_the_order_of_first_mention() {
        let lines = validate(&request(&[(7, 1), (5, 2), (7, 3)]), 4).unwrap().lines;
        let lines: Vec<_> = lines.iter().map(|l| (l.product_id.as_u128(), l.quantity)).collect();
        assert_eq!(lines, [(7, 4), (5, 2)]);
    }

    #[test]
    fn bad_values_are_refused_with_their_pointers() {
        let pointers = |request: &PlaceOrderRequest| {
            let problem = validate(request, MAX_UNITS).unwrap_err();
            assert_eq!(problem.kind(), Kind::ValidationFailed);
            let errors = problem.extension("errors");
            let pointer = |e: &serde_json::Value| e["pointer"].as_str().unwrap().to_owned();
            errors.as_array().unwrap().iter().map(pointer).collect::<Vec<_>>()
        };
        assert_eq!(pointers(&request(&[])), ["/items"]);
        assert_eq!(pointers(&request(&[(1, 1); 101])), ["/items"]);
        assert_eq!(
            pointers(&request(&[(1, 0), (2, 1), (3, -1), (4, 1 << 40)])),
            ["/items/0/quantity", "/items/2/quantity", "/items/3/quantity"]
        );
        let twice = request(&[(1, 600_000), (2, 1), (1, 600_000)]);
        assert_eq!(pointers(&twice), ["/items"], "of one product");
        assert!(validate(&request(&[(1, 2), (1, 3)]), 4).is_err(), "more than the shop allows");
        let mut nul = request(&[(1, 1)]);
        nul.payment_method = "pm\0".into();
        nul.shipping_address = Some("".into());
        assert_eq!(pointers(&nul), ["/payment_method", "/shipping_address"]);
    }
}
