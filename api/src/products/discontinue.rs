//! `DELETE /products/{id}`.

use super::body::ProductBody;
use crate::{
    App,
    auth::{Access, Role},
    command::{CommandBody, Received, carry_out, detached},
    extract::{Media, PathId},
    problem::Problem,
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::product::Command;
use events::StreamId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Nothing is said beside the product.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiscontinueProductRequest {}

impl CommandBody for DiscontinueProductRequest {
    const ACCESS: Access = Access::AtLeast(Role::Staff);
    const MEDIA: Media = Media::OptionalJson;
}

/// Ends the sale of a product.
///
/// It leaves lists and search and stays readable by its id. Orders for it are refused with
/// `product-not-found`; what is held for earlier ones still ships or is released. It can still be
/// described, priced and its stock corrected, and does not come back.
#[utoipa::path(
    delete,
    path = "/api/v1/products/{id}",
    tag = "products",
    operation_id = "discontinue_product",
    params(("id" = Uuid, Path, description = "The product")),
    responses(
        (
            status = 200,
            description = "The product as it is now; the same if it was discontinued before.",
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
    detached(async move {
        let stream = StreamId::product(id);
        let decided = carry_out(&app, &envelope, stream, Command::Discontinue).await?;
        super::answer(&envelope, &decided, StatusCode::OK)
    })
    .await
}
