//! Events to rows.

use crate::streams::{Head, StreamRow, Table, stream_row};
use events::{Money, Timestamp, product};
use uuid::Uuid;

/// The `products` table of one version.
pub(crate) type Products = Table<ProductRow>;

stream_row! {
    ProductRow in "products", from Product(product::Event), shown as ShownProduct {
        shown {
            product_id: Uuid,
            shown_version: i64,
            name: String,
            description: Option<String>,
            category: Option<String>,
            price: i64,
            currency: String,
            on_hand: i64,
            reserved: i64,
            shipped: i64,
            discontinued: bool,
            created_at: Timestamp,
            updated_at: Timestamp,
        }
        hidden {
            partition: i32,
            version: i64,
            listed: bool,
        }
    }
}

impl StreamRow for ProductRow {
    /// Any event may be the first: an order that asks for an unknown product is still closed at
    /// that product's stream.
    fn begin(head: Head, _: &product::Event) -> Option<Self> {
        Some(Self {
            product_id: head.id,
            partition: head.partition,
            version: 0,
            shown_version: 0,
            listed: false,
            name: String::new(),
            description: None,
            category: None,
            price: 0,
            currency: String::new(),
            on_hand: 0,
            reserved: 0,
            shipped: 0,
            discontinued: false,
            created_at: head.time,
            updated_at: head.time,
        })
    }

    fn apply(&mut self, event: &product::Event) {
        use product::Event as E;
        match event {
            E::Added(added) => {
                self.listed = true;
                // The time of this event, because an order may have been closed here earlier.
                self.created_at = self.updated_at;
                self.on_hand = added.initial_stock;
                self.describe(
                    &added.name,
                    added.description.as_deref(),
                    added.category.as_deref(),
                    added.price,
                );
            }
            E::Changed(changed) => {
                self.describe(
                    &changed.name,
                    changed.description.as_deref(),
                    changed.category.as_deref(),
                    changed.price,
                );
            }
            E::StockChanged(changed) => {
                self.on_hand = self.on_hand.saturating_add(changed.quantity);
            }
            E::StockReserved(reserved) => {
                self.reserved = self.reserved.saturating_add(reserved.quantity);
            }
            E::StockReleased(released) => {
                self.reserved = self.reserved.saturating_sub(released.quantity);
            }
            E::StockShipped(shipped) => {
                self.reserved = self.reserved.saturating_sub(shipped.quantity);
                self.on_hand = self.on_hand.saturating_sub(shipped.quantity);
                self.shipped = self.shipped.saturating_add(shipped.quantity);
            }
            E::Discontinued(_) => self.discontinued = true,
        }
    }
}

impl ProductRow {
    fn describe(
        &mut self,
        name: &str,
        description: Option<&str>,
        category: Option<&str>,
        price: Money,
    ) {
        name.clone_into(&mut self.name);
        self.description = description.map(str::to_owned);
        self.category = category.map(str::to_owned);
        self.price = price.amount;
        price.currency.code().clone_into(&mut self.currency);
    }
}
