//! Why a product refuses a command.

/// Why a product refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The product was never added.
    #[error("there is no such product")]
    NotFound,
    /// The product was added before.
    #[error("the product already exists")]
    AlreadyExists,
    /// Fewer units would be on hand than are reserved for orders.
    #[error("only {on_hand} would be on hand, but {reserved} are reserved")]
    StockBelowReserved {
        /// The units that would be on hand.
        on_hand: i64,
        /// The units reserved for orders.
        reserved: i64,
    },
    /// Fewer units are available than requested.
    #[error("{requested} requested, but only {available} available")]
    InsufficientStock {
        /// The units that are not reserved.
        available: i64,
        /// The units requested.
        requested: i64,
    },
    /// The product is no longer sold.
    #[error("the product is discontinued")]
    Discontinued,
    /// The order was closed here, or it is too late to reserve.
    #[error("the order can no longer reserve units")]
    ReservationClosed,
    /// The order has reserved another number of units.
    #[error("the order has already reserved {reserved} units")]
    AlreadyReserved {
        /// The units it has reserved.
        reserved: i64,
    },
    /// The number of units is zero or negative.
    #[error("the quantity must be positive")]
    InvalidQuantity,
    /// The number of units would overflow.
    #[error("the stock would be too large to count")]
    StockOverflow,
}
