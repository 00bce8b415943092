//! What happens to a product: its description, price and stock share one stream, so that stock and price are decided
//! together.

use crate::{Money, Timestamp, schema::stream_events};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

stream_events! {
    /// The product exists.
    Added(Added) = "ProductAdded" v 1;
    /// Its description or price is another.
    Changed(Changed) = "ProductChanged" v 1;
    /// Stock arrived or was corrected.
    StockChanged(StockChanged) = "StockChanged" v 1;
    /// Stock is held for an order.
    StockReserved(StockReserved) = "StockReserved" v 1;
    /// What was held for an order is free again; the order can never hold stock here again.
    StockReleased(StockReleased) = "StockReleased" v 1;
    /// What was held for an order has left the house.
    StockShipped(StockShipped) = "StockShipped" v 1;
    /// It is no longer sold.
    Discontinued(Discontinued) = "ProductDiscontinued" v 1;
}

impl Event {
    /// Whether the product as shown stays the same: neither its `ETag` nor `updated_at` move.
    pub fn is_bookkeeping(&self) -> bool {
        match self {
            Self::Added(_)
            | Self::Changed(_)
            | Self::StockChanged(_)
            | Self::StockReserved(_)
            | Self::Discontinued(_) => false,
            Self::StockReleased(released) => released.quantity == 0,
            Self::StockShipped(shipped) => shipped.quantity == 0,
        }
    }
}

/// A product was added to the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Added {
    /// What it is called.
    pub name: Arc<str>,
    /// A text about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Arc<str>>,
    /// The shelf it stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Arc<str>>,
    /// The price of one.
    pub price: Money,
    /// Units on hand at the start.
    pub initial_stock: i64,
}

/// The description of a product after a change: all of it, so that it needs no history to be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// What it is called.
    pub name: Arc<str>,
    /// A text about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Arc<str>>,
    /// The shelf it stands on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Arc<str>>,
    /// The price of one.
    pub price: Money,
}

/// Why stock changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StockReason {
    /// Goods arrived.
    Received,
    /// A count corrected the books.
    Correction,
}

/// The units on hand changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockChanged {
    /// Units added; negative for a correction downwards.
    pub quantity: i64,
    /// Why.
    pub reason: StockReason,
}

/// Units are held for an order, at the name and price of this moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StockReserved {
    /// The order that holds them.
    pub order_id: Uuid,
    /// Units held.
    pub quantity: i64,
    /// The product's name when it was reserved.
    pub name: Arc<str>,
    /// The price of one when it was reserved.
    pub unit_price: Money,
    /// After this moment of log time no reservation of this order is accepted.
    pub not_after: Timestamp,
}

/// The order's reservation is over without a shipment. Written even when nothing was held, so that a late reservation
/// finds the door closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockReleased {
    /// The order.
    pub order_id: Uuid,
    /// Units that were held; 0 when nothing was.
    pub quantity: i64,
    /// Until this moment of log time the closed door is remembered; afterwards an open is too late anyway.
    pub not_after: Timestamp,
}

/// The order's reservation ended in a shipment: on hand and reserved both fall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockShipped {
    /// The order.
    pub order_id: Uuid,
    /// Units shipped; 0 when nothing was held.
    pub quantity: i64,
    /// Until this moment of log time the closed door is remembered.
    pub not_after: Timestamp,
}

/// The product is no longer sold: nothing more is reserved. What is held for orders still ships or is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Discontinued {}
