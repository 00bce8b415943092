//! The commands of a product.

use crate::aggregate::into_command;
use events::{Money, Timestamp, product::StockReason};
use std::sync::Arc;
use uuid::Uuid;

/// A command for a product. Internal commands are sent by the program only.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Add it to the catalogue.
    Add(Add),
    /// Change its description or price.
    Change(Change),
    /// Change the number of units on hand.
    ChangeStock(ChangeStock),
    /// Stop selling it.
    Discontinue,
    /// Reserve units for an order. Internal.
    Reserve(Reserve),
    /// End an order's reservation without shipping. Internal.
    Release(Close),
    /// Record that an order's units have been shipped. Internal.
    Ship(Close),
}

/// Add the product to the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Add {
    /// The name.
    pub name: Arc<str>,
    /// A description.
    pub description: Option<Arc<str>>,
    /// The category.
    pub category: Option<Arc<str>>,
    /// The price of one unit.
    pub price: Money,
    /// The units on hand at the start; not negative.
    pub initial_stock: i64,
}

/// Change the description or price. `None` keeps the current value; an inner `None` clears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// The name.
    pub name: Option<Arc<str>>,
    /// A description.
    pub description: Option<Option<Arc<str>>>,
    /// The category.
    pub category: Option<Option<Arc<str>>>,
    /// The price of one unit.
    pub price: Option<Money>,
}

/// Change the number of units on hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeStock {
    /// The units to add; negative to remove.
    pub quantity: i64,
    /// The reason.
    pub reason: StockReason,
}

/// Reserve units for an order. Repeating the command for the same number of units changes nothing;
/// the reservation is in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// The order.
    pub order_id: Uuid,
    /// The number of units, at least 1.
    pub quantity: i64,
    /// The command is refused after this moment of log time.
    pub not_after: Timestamp,
}

/// End an order's reservation, whether or not there is one. Afterwards the order can never reserve
/// here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The order.
    pub order_id: Uuid,
    /// The `not_after` of the order's reservation; the close is remembered until then.
    pub not_after: Timestamp,
}

into_command!(Add, Change, ChangeStock, Reserve);
