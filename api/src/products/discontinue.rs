//! `DELETE /products/{id}`.

use super::body::ProductBody;
use crate::{
    App,
    auth::{Access, Role},
    command::{CommandBody, Received},
    extract::{Media, PathId},
    problem::Problem,
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::product::Command;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The request to discontinue a product: an empty body, because the path names the product.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscontinueProductRequest {}

impl CommandBody for DiscontinueProductRequest {
    const ACCESS: Access = Access::AtLeast(Role::Staff);
    const MEDIA: Media = Media::OptionalJson;
}

/// Discontinue a product.
///
/// The product disappears from lists and search, and can still be read by its id. New orders for
/// it are refused with `product-not-found`. Orders that have reserved it go on. Its texts, price
/// and stock can still be changed. It cannot be sold again.
#[utoipa::path(
    delete,
    path = "/api/v1/products/{id}",
    tag = "products",
    operation_id = "discontinue_product",
    params(("id" = Uuid, Path, description = "The product")),
    responses(
        (
            status = 200,
            description = "The product, discontinued now or before.",
            body = ProductBody
        ),
        (status = 404, description = "`not-found`"),
    ),
    security(("bearer" = ["staff"])),
)]
pub async fn discontinue(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    Received { envelope, .. }: Received<DiscontinueProductRequest>,
) -> Result<Response, Problem> {
    super::carry_out(app, envelope, id, Command::Discontinue, StatusCode::OK).await
}
