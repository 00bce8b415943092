//! `GET /search`.

use super::body::ProductBody;
use crate::{
    App,
    causality::Freshness,
    extract::Params,
    problem::Problem,
    query::{self, ListBody, PageParams, PageRequest, read_joined},
};
use axum::{extract::State, response::Response};
use projections::{
    ReadModel,
    search::{Cursor, Question},
};
use std::sync::Arc;

/// Search products by text, best match first.
///
/// A product matches if its name, category and description together contain every word of `q`, as
/// a word or as the beginning of one. Letter case and accents do not matter. A word that begins no
/// word of the catalogue is treated as a typing error. Products with all words in their names come
/// first.
#[utoipa::path(
    get,
    path = "/api/v1/search",
    tag = "products",
    operation_id = "search_products",
    params(
        ("q" = String, Query, description = "1 to 8 words, 200 characters at most"),
        PageParams,
    ),
    responses((status = 200, description = "A page of products.", body = ListBody<ProductBody>)),
    security(()),
)]
pub async fn search(
    State(app): State<Arc<App>>,
    freshness: Freshness,
    mut params: Params,
) -> Result<Response, Problem> {
    let text = params.one("q")?.unwrap_or_default();
    let question =
        Question::of(&text).map_err(|error| Problem::invalid_parameter("q", &error.to_string()))?;
    let mut page: PageRequest<Cursor> = PageRequest::of(&app, "search", &question, params)?;
    let (after, limit) = (page.after.take(), page.limit);
    if !after.as_ref().is_none_or(|after| after.is_of(&question)) {
        return Err(query::foreign_cursor());
    }
    let models = [ReadModel::Search, ReadModel::Products];
    let found = read_joined(app.reads()?, &models, &freshness, |reads| async move {
        reads.search(&question, after, limit).await
    })
    .await?;
    page.answer(&freshness, found, |next| next, ProductBody::from)
}
