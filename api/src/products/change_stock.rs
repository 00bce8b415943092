//! `POST /products/{id}/stock`.

use super::{add::MAX_STOCK_CHANGE, body::ProductBody};
use crate::{
    App,
    auth::{Access, Role},
    command::{CommandBody, Received},
    extract::{PathId, integer},
    problem::Problem,
    validate::Validator,
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::product::{ChangeStock, Command};
use events::product::StockReason;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// The request to change the units on hand.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeStockRequest {
    /// Units to add; not 0. A correction may be negative.
    #[serde(deserialize_with = "integer")]
    #[schema(minimum = -1_000_000_000, maximum = 1_000_000_000, example = 20)]
    pub quantity: i64,
    /// Why the stock changes.
    #[schema(value_type = StockChangeReason, example = "received")]
    pub reason: String,
}

/// Why stock changes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes the names in the OpenAPI document")]
pub enum StockChangeReason {
    /// Goods arrived.
    Received,
    /// A count gave another number.
    Correction,
}

impl CommandBody for ChangeStockRequest {
    const ACCESS: Access = Access::AtLeast(Role::Staff);
}

/// Change the units of a product on hand.
#[utoipa::path(
    post,
    path = "/api/v1/products/{id}/stock",
    tag = "products",
    operation_id = "change_stock",
    params(("id" = Uuid, Path, description = "The product")),
    request_body = ChangeStockRequest,
    responses(
        (status = 200, description = "The product after the change.", body = ProductBody),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`stock-below-reserved`"),
    ),
    security(("bearer" = ["staff"])),
)]
pub async fn change_stock(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    Received { body, envelope }: Received<ChangeStockRequest>,
) -> Result<Response, Problem> {
    let command = validate(&body)?;
    super::carry_out(app, envelope, id, command, StatusCode::OK).await
}

fn validate(body: &ChangeStockRequest) -> Result<Command, Problem> {
    let mut validator = Validator::default();
    let reason = match body.reason.as_str() {
        "received" => StockReason::Received,
        "correction" => StockReason::Correction,
        _ => {
            validator.refuse("/reason", "must be received or correction");
            StockReason::Correction
        }
    };
    let quantity = body.quantity;
    let in_bounds = quantity != 0 && (-MAX_STOCK_CHANGE..=MAX_STOCK_CHANGE).contains(&quantity);
    validator.check(in_bounds, "/quantity", "must be from -1000000000 to 1000000000, and not 0");
    let negative = quantity < 0 && reason == StockReason::Received;
    validator.check(!negative, "/quantity", "must not be negative unless reason is correction");
    validator.end()?;
    Ok(ChangeStock { quantity, reason }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stock_changes_have_bounds() {
        let valid = |quantity, reason: &str| {
            validate(&ChangeStockRequest { quantity, reason: reason.to_owned() }).is_ok()
        };
        assert!(valid(1_000_000_000, "received") && valid(-5, "correction"));
        assert!(!valid(0, "received") && !valid(-5, "received") && !valid(5, "stolen"));
        assert!(!valid(1_000_000_001, "received") && !valid(i64::MIN, "correction"));
    }
}
