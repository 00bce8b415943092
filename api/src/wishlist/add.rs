//! `POST /wishlist/items`.

use crate::{
    App,
    auth::{Access, Role},
    command::{self, Answer, CommandBody, Received, carry_out, detached, look},
    customers,
    problem::Problem,
    products,
};
use axum::{extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use commands::{State as Aggregate, StateView, wishlist::Command};
use events::StreamId;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// The request to add a product to the wishlist.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddWishlistItemRequest {
    /// Id of the product.
    pub product_id: Uuid,
}

impl CommandBody for AddWishlistItemRequest {
    const ACCESS: Access = Access::AtLeast(Role::Customer);
}

/// A product on the wishlist.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = WishlistEntry)]
pub struct AddedItemBody {
    /// Id of the product.
    pub product_id: Uuid,
    /// When the product was added to the wishlist.
    pub added_at: DateTime<Utc>,
}

/// Add a product to the caller's wishlist.
///
/// A wishlist can have 500 products.
#[utoipa::path(
    post,
    path = "/api/v1/wishlist/items",
    tag = "wishlist",
    operation_id = "add_wishlist_item",
    request_body = AddWishlistItemRequest,
    responses(
        (status = 201, description = "The product is on the wishlist.", body = AddedItemBody),
        (
            status = 200, description = "The product was on the wishlist already.",
            body = AddedItemBody
        ),
        (status = 404, description = "`product-not-found`, `customer-not-found`"),
        (status = 409, description = "`wishlist-full`"),
        (status = 410, description = "`gone`: the customer is erased"),
    ),
    security(("bearer" = ["customer"])),
)]
pub async fn add(
    State(app): State<Arc<App>>,
    received: Received<AddWishlistItemRequest>,
) -> Result<Response, Problem> {
    detached(add_item(app, received)).await
}

async fn add_item(
    app: Arc<App>,
    Received { body: AddWishlistItemRequest { product_id }, envelope }: Received<
        AddWishlistItemRequest,
    >,
) -> Result<Response, Problem> {
    let customer_id = super::customer(&envelope.caller)?;
    customers::refuse_erased(&app, customer_id).await?;
    let stream = StreamId::wishlist(customer_id);
    // A product that is on the wishlist already, or that this command has added, may have been
    // discontinued since: then the product is not checked again.
    let is_retry = command::is_retry(&app, &envelope, stream).await?;
    if !is_retry && item(&look(&app, stream).await?, product_id).is_none() {
        customers::require_registered(&app, customer_id).await?;
        products::require_sold(&app, product_id).await?;
    }
    let decided = carry_out(&app, &envelope, stream, Command::Add(product_id)).await?;
    let status = if decided.changed { StatusCode::CREATED } else { StatusCode::OK };
    let body = item(&decided.view, product_id).ok_or_else(|| Problem::not_found("item"))?;
    let answer = Answer::of(&decided, status, super::LOCATION.to_owned(), body);
    Ok(answer.respond(&envelope, &decided))
}

fn item(wishlist: &StateView, product_id: Uuid) -> Option<AddedItemBody> {
    let Aggregate::Wishlist(wishlist) = &wishlist.state else { return None };
    let added_at = wishlist.item(product_id)?.added_at;
    Some(AddedItemBody { product_id, added_at })
}
