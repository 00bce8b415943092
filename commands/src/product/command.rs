//! What can be asked of a product.

use events::{Money, Timestamp, product::StockReason};
use std::sync::Arc;
use uuid::Uuid;

/// What can be asked of a product.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Put it into the catalogue.
    Add(Add),
    /// Describe or price it differently.
    Change(Change),
    /// Count more or fewer units on hand.
    ChangeStock(ChangeStock),
    /// Sell it no longer.
    Discontinue,
    /// Hold units for an order. Internal.
    Reserve(Reserve),
    /// The order will not take its units. Internal.
    Release(Close),
    /// The order's units have left the house. Internal.
    Ship(Close),
}

/// Put the product into the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Add {
    /// What it is called.
    pub name: Arc<str>,
    /// A text about it.
    pub description: Option<Arc<str>>,
    /// The shelf it stands on.
    pub category: Option<Arc<str>>,
    /// The price of one.
    pub price: Money,
    /// Units on hand at the start; not negative.
    pub initial_stock: i64,
}

/// Describe or price the product differently. `None` keeps what is; the inner `None` clears it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// What it is called.
    pub name: Option<Arc<str>>,
    /// A text about it.
    pub description: Option<Option<Arc<str>>>,
    /// The shelf it stands on.
    pub category: Option<Option<Arc<str>>>,
    /// The price of one.
    pub price: Option<Money>,
}

/// Count more or fewer units on hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeStock {
    /// Units more; negative for fewer.
    pub quantity: i64,
    /// Why.
    pub reason: StockReason,
}

/// Hold units for an order. Asked again for the same units it changes nothing: the reservation stands in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    /// The order.
    pub order_id: Uuid,
    /// Units, at least 1.
    pub quantity: i64,
    /// Refused after this moment of log time.
    pub not_after: Timestamp,
}

/// End an order's reservation, whether there is one or not: it can never reserve here again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The order.
    pub order_id: Uuid,
    /// The `not_after` of the order's reservation: until then the close is remembered.
    pub not_after: Timestamp,
}

macro_rules! into_command {
    ($($variant:ident),+) => {
        $(impl From<$variant> for Command {
            fn from(command: $variant) -> Self { Self::$variant(command) }
        })+
    };
}
into_command!(Add, Change, ChangeStock, Reserve);
