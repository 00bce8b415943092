//! `PATCH /products/{id}`.

use super::body::ProductBody;
use crate::{
    App,
    auth::{Access, Role},
    command::{CommandBody, Received},
    extract::{Field, Media, PathId, object_field},
    problem::Problem,
    validate::{DESCRIPTION, MoneyBody, NAME, Price, SHORT_TEXT, Validator},
};
use axum::{extract::State, http::StatusCode, response::Response};
use commands::product::{Change, Command};
use events::Currency;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// The request to change a product. An absent member stays as it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeProductRequest {
    /// Name of the product.
    #[serde(default, skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = String, required = false)]
    #[schema(min_length = 1, max_length = 200, example = "Solaris")]
    pub name: Field<String>,
    /// Description of the product; null removes it.
    #[serde(default, skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = Option<String>, max_length = 10000, example = "A novel")]
    pub description: Field<String>,
    /// Category of the product; null removes it.
    #[serde(default, skip_serializing_if = "Field::is_absent")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200, example = "books")]
    pub category: Field<String>,
    /// Price of one unit, in the currency of the shop.
    #[serde(default, skip_serializing_if = "Field::is_absent", deserialize_with = "object_field")]
    #[schema(value_type = Price, required = false)]
    pub price: Field<MoneyBody>,
}

impl CommandBody for ChangeProductRequest {
    const ACCESS: Access = Access::AtLeast(Role::Staff);
    const MEDIA: Media = Media::Patch;
}

/// Change the texts or the price of a product.
///
/// Orders that have reserved the product keep the price it had then.
#[utoipa::path(
    patch,
    path = "/api/v1/products/{id}",
    tag = "products",
    operation_id = "change_product",
    params(("id" = Uuid, Path, description = "The product")),
    request_body(
        content(
            (ChangeProductRequest = "application/json"),
            (ChangeProductRequest = "application/merge-patch+json"),
        )
    ),
    responses(
        (status = 200, description = "The product after the change.", body = ProductBody),
        (status = 404, description = "`not-found`"),
    ),
    security(("bearer" = ["staff"])),
)]
pub async fn change(
    State(app): State<Arc<App>>,
    PathId(id): PathId,
    Received { body, envelope }: Received<ChangeProductRequest>,
) -> Result<Response, Problem> {
    let command = validate(&body, app.settings.currency)?;
    super::carry_out(app, envelope, id, command, StatusCode::OK).await
}

fn validate(body: &ChangeProductRequest, currency: Currency) -> Result<Command, Problem> {
    let mut v = Validator::default();
    let text = |v: &mut Validator, field: &Field<String>, pointer: &str, length| {
        field.nullable().map(|text| text.map(|text| v.text(text, pointer, length)))
    };
    let change = Change {
        name: v.required(&body.name, "/name").map(|name| v.text(name, "/name", NAME)),
        description: text(&mut v, &body.description, "/description", DESCRIPTION),
        category: text(&mut v, &body.category, "/category", SHORT_TEXT),
        price: v.required(&body.price, "/price").map(|price| v.price(price, "/price", currency)),
    };
    v.end()?;
    Ok(change.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{extract::parse, problem::Kind};

    fn change(json: &str) -> Result<Command, Problem> {
        validate(&parse(json.as_bytes())?, "GBP".parse().unwrap())
    }

    #[test]
    fn null_clears_an_optional_text_and_nothing_else() {
        let cleared = change(r#"{"description":null,"category":"books"}"#).unwrap();
        let expected = Change {
            description: Some(None),
            category: Some(Some("books".into())),
            ..Change::default()
        };
        assert_eq!(cleared, expected.into());
        for json in [r#"{"name":null}"#, r#"{"price":null}"#] {
            assert_eq!(change(json).unwrap_err().kind(), Kind::ValidationFailed, "{json}");
        }
        assert_eq!(change(r#"{"price":[1,"GBP"]}"#).unwrap_err().kind(), Kind::InvalidBody);
        assert_eq!(change("{}").unwrap(), Change::default().into());
        assert_eq!(change(r#"{"name":7}"#).unwrap_err().kind(), Kind::InvalidBody);
    }
}
