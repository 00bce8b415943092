//! A product as an answer shows it.

use crate::{query::Versioned, validate::MoneyBody};
use chrono::{DateTime, Utc};
use commands::product::Product;
use events::Money;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A product.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Product)]
pub struct ProductBody {
    /// Id of the product.
    pub product_id: Uuid,
    /// Name of the product.
    #[schema(example = "The Left Hand of Darkness")]
    pub name: String,
    /// Description of the product.
    #[schema(example = "A novel")]
    pub description: Option<String>,
    /// Category of the product.
    #[schema(example = "books")]
    pub category: Option<String>,
    /// Price of one unit.
    #[schema(value_type = MoneyBody)]
    pub price: Money,
    /// Units in the warehouse.
    pub on_hand: i64,
    /// Units in the warehouse that are reserved for orders.
    pub reserved: i64,
    /// Units that have been shipped.
    pub shipped: i64,
    /// Units that can be ordered: `on_hand` less `reserved`.
    pub available: i64,
    /// Whether the product is no longer sold. It is then in no list and cannot be ordered.
    pub discontinued: bool,
    /// When the product was added.
    pub created_at: DateTime<Utc>,
    /// Time of the last change that this document shows.
    pub updated_at: DateTime<Utc>,
    /// Version of the product as shown here; the same number as in `ETag`.
    pub version: u64,
}

impl ProductBody {
    /// The body of an aggregate. `None` if the product was never added.
    pub fn of_state(product_id: Uuid, product: &Product) -> Option<Self> {
        let listing = product.listing()?;
        Some(Self {
            product_id,
            name: listing.name.to_string(),
            description: listing.description.as_deref().map(str::to_owned),
            category: listing.category.as_deref().map(str::to_owned),
            price: listing.price,
            on_hand: product.on_hand(),
            reserved: product.reserved(),
            shipped: product.shipped(),
            available: product.available(),
            discontinued: !product.is_sold(),
            created_at: product.shown().created_at,
            updated_at: product.shown().updated_at,
            version: product.shown().version,
        })
    }
}

impl Versioned for ProductBody {
    fn version(&self) -> u64 {
        self.version
    }
}

impl From<projections::products::Product> for ProductBody {
    fn from(row: projections::products::Product) -> Self {
        let available = row.available();
        Self {
            product_id: row.product_id,
            name: row.name,
            description: row.description,
            category: row.category,
            price: row.price,
            on_hand: row.on_hand,
            reserved: row.reserved,
            shipped: row.shipped,
            available,
            discontinued: row.discontinued,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use commands::aggregate::{Aggregate, At};
    use events::{
        Currency,
        product::{Added, Event, StockChanged, StockReason},
    };

    #[test]
    fn a_product_is_the_same_from_the_aggregate_and_from_its_row() {
        let time = |second: i64| DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap();
        let price = Money::new(2_500, "GBP".parse::<Currency>().unwrap());
        let mut product = Product::default();
        let added = Added {
            name: "Book".into(),
            description: None,
            category: Some("books".into()),
            price,
            initial_stock: 5,
        };
        product.evolve(&Event::Added(added), At { version: 1, time: time(1) });
        let more = StockChanged { quantity: 3, reason: StockReason::Received };
        product.evolve(&Event::StockChanged(more), At { version: 2, time: time(2) });
        let row = projections::products::Product {
            product_id: Uuid::from_u128(1),
            name: "Book".to_owned(),
            description: None,
            category: Some("books".to_owned()),
            price,
            on_hand: 8,
            reserved: 0,
            shipped: 0,
            discontinued: false,
            created_at: time(1),
            updated_at: time(2),
            version: 2,
        };
        let state = ProductBody::of_state(Uuid::from_u128(1), &product).unwrap();
        assert_eq!(serde_json::json!(state), serde_json::json!(ProductBody::from(row)));
        assert_eq!(state.available, 8);
    }
}
