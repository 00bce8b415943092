//! `DELETE /wishlist/items/{product_id}`.

use crate::{
    App,
    auth::{Access, Role},
    command::{self, Answer, CommandBody, Received, carry_out, detached},
    customers,
    extract::{Media, PathId},
    problem::Problem,
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::wishlist::Command;
use events::StreamId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The request to remove an item: an empty body, because the path names the product.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveWishlistItemRequest {}

impl CommandBody for RemoveWishlistItemRequest {
    const ACCESS: Access = Access::AtLeast(Role::Customer);
    const MEDIA: Media = Media::OptionalJson;
}

/// Remove a product from the caller's wishlist.
///
/// A product that is not on the wishlist is a 204 as well.
#[utoipa::path(
    delete,
    path = "/api/v1/wishlist/items/{product_id}",
    tag = "wishlist",
    operation_id = "remove_wishlist_item",
    params(("product_id" = Uuid, Path, description = "The product")),
    responses(
        (status = 204, description = "The product is not on the wishlist."),
        (status = 410, description = "`gone`: the customer is erased"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn remove(
    State(app): State<Arc<App>>,
    PathId(product_id): PathId,
    Received { envelope, .. }: Received<RemoveWishlistItemRequest>,
) -> Result<Response, Problem> {
    let customer_id = super::customer(&envelope.caller)?;
    let stream = StreamId::wishlist(customer_id);
    detached(async move {
        customers::refuse_erased(&app, customer_id).await?;
        let decided = carry_out(&app, &envelope, stream, Command::Remove(product_id)).await?;
        let position = command::position(&decided.view);
        let answer = Answer { status: StatusCode::NO_CONTENT, location: None, body: (), position };
        Ok(answer.respond(&envelope, &decided))
    })
    .await
}
