//! Events of a product. Description, price and stock share one stream, so that one decision sees
//! all of them.

use crate::{Money, Timestamp, schema::stream_events};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

stream_events! {
    /// The product was added to the catalogue.
    Added(Added) = "ProductAdded" v 1;
    /// The description or the price changed.
    Changed(Changed) = "ProductChanged" v 1;
    /// Stock arrived or was corrected.
    StockChanged(StockChanged) = "StockChanged" v 1;
    /// Stock is reserved for an order.
    StockReserved(StockReserved) = "StockReserved" v 1;
    /// The stock reserved for an order is available again. The order can never reserve stock here
    /// again.
    StockReleased(StockReleased) = "StockReleased" v 1;
    /// The stock reserved for an order was shipped.
    StockShipped(StockShipped) = "StockShipped" v 1;
    /// The product is no longer sold.
    Discontinued(Discontinued) = "ProductDiscontinued" v 1;
}

impl Event {
    /// Whether the event leaves the product, as the API shows it, unchanged: its `ETag` and
    /// `updated_at` stay.
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
    /// The product's name.
    pub name: Arc<str>,
    /// The product's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Arc<str>>,
    /// The product's category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Arc<str>>,
    /// The price of one unit.
    pub price: Money,
    /// Units on hand when the product was added.
    pub initial_stock: i64,
}

/// The product after a change. Holds all of its texts and its price, so that a reader needs no
/// earlier events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// The product's name.
    pub name: Arc<str>,
    /// The product's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Arc<str>>,
    /// The product's category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Arc<str>>,
    /// The price of one unit.
    pub price: Money,
}

/// Why stock changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StockReason {
    /// Goods arrived.
    Received,
    /// A stocktaking corrected the number of units.
    Correction,
}

/// The units on hand changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockChanged {
    /// Units added; negative for a correction downwards.
    pub quantity: i64,
    /// Why they changed.
    pub reason: StockReason,
}

/// Units are reserved for an order. Holds the product's name and price at this moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StockReserved {
    /// The order.
    pub order_id: Uuid,
    /// Units reserved.
    pub quantity: i64,
    /// The product's name when it was reserved.
    pub name: Arc<str>,
    /// The price of one unit when it was reserved.
    pub unit_price: Money,
    /// After this moment of log time the product refuses reservations of this order.
    pub not_after: Timestamp,
}

/// The order's reservation ended without a shipment. Written even if nothing was reserved, so that
/// a late reservation is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockReleased {
    /// The order.
    pub order_id: Uuid,
    /// Units that were reserved; 0 if there was no reservation.
    pub quantity: i64,
    /// Until this moment of log time the product remembers the release. Afterwards the order's
    /// reservation would be too late anyway.
    pub not_after: Timestamp,
}

/// The order's reservation ended in a shipment: the units on hand and the units reserved both
/// decrease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockShipped {
    /// The order.
    pub order_id: Uuid,
    /// Units shipped; 0 if there was no reservation.
    pub quantity: i64,
    /// Until this moment of log time the product remembers the shipment.
    pub not_after: Timestamp,
}

/// The product is no longer sold: new reservations are refused. Existing reservations are still
/// shipped or released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Discontinued {}
