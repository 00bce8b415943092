//! `POST /products`.

use super::body::ProductBody;
use crate::{
    App,
    auth::{Access, Role},
    command::{CommandBody, Received},
    extract::{integer, object},
    problem::Problem,
    validate::{DESCRIPTION, MoneyBody, NAME, Price, SHORT_TEXT, Validator},
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::product::{Add, Command};
use events::Currency;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// The most units that stock may begin with, or change by.
pub(super) const MAX_STOCK_CHANGE: i64 = 1_000_000_000;

/// The request to add a product.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddProductRequest {
    /// Name of the product.
    #[schema(min_length = 1, max_length = 200, example = "The Left Hand of Darkness")]
    pub name: String,
    /// Description of the product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 10000, example = "A novel")]
    pub description: Option<String>,
    /// Category of the product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200, example = "books")]
    pub category: Option<String>,
    /// Price of one unit, in the currency of the shop.
    #[serde(deserialize_with = "object")]
    #[schema(value_type = Price)]
    pub price: MoneyBody,
    /// Units on hand at the start; 0 if absent.
    #[serde(default, deserialize_with = "integer")]
    #[schema(minimum = 0, maximum = 1_000_000_000, example = 100)]
    pub initial_stock: i64,
}

impl CommandBody for AddProductRequest {
    const ACCESS: Access = Access::AtLeast(Role::Staff);
}

/// Add a product to the catalogue.
#[utoipa::path(
    post,
    path = "/api/v1/products",
    tag = "products",
    operation_id = "add_product",
    request_body = AddProductRequest,
    responses((status = 201, description = "The product is added.", body = ProductBody)),
    security(("bearer" = ["staff"])),
)]
pub async fn add(
    State(app): State<Arc<App>>,
    Received { body, envelope }: Received<AddProductRequest>,
) -> Result<Response, Problem> {
    let command = validate(&body, app.settings.currency)?;
    let id = envelope.created_id(&app);
    super::carry_out(app, envelope, id, command, StatusCode::CREATED).await
}

fn validate(body: &AddProductRequest, currency: Currency) -> Result<Command, Problem> {
    let mut validator = Validator::default();
    let in_bounds = (0..=MAX_STOCK_CHANGE).contains(&body.initial_stock);
    validator.check(in_bounds, "/initial_stock", "must be from 0 to 1000000000");
    let add = Add {
        name: validator.text(&body.name, "/name", NAME),
        description: validator.optional(body.description.as_deref(), "/description", DESCRIPTION),
        category: validator.optional(body.category.as_deref(), "/category", SHORT_TEXT),
        price: validator.price(&body.price, "/price", currency),
        initial_stock: body.initial_stock,
    };
    validator.end()?;
    Ok(add.into())
}
