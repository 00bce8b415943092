//! Why a product says no.

/// Why a product says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was never added.
    #[error("there is no such product")]
    NotFound,
    /// It was added before.
    #[error("the product exists already")]
    AlreadyExists,
    /// Fewer units would be on hand than are held for orders.
    #[error("{on_hand} on hand would be fewer than the {reserved} reserved")]
    StockBelowReserved {
        /// Units that would be on hand.
        on_hand: i64,
        /// Units held for orders.
        reserved: i64,
    },
    /// Fewer units are free than asked for.
    #[error("{requested} requested, {available} available")]
    InsufficientStock {
        /// Units free.
        available: i64,
        /// Units asked for.
        requested: i64,
    },
    /// It is no longer sold.
    #[error("the product is discontinued")]
    Discontinued,
    /// The order is closed here, or too late to reserve.
    #[error("the order can no longer reserve")]
    ReservationClosed,
    /// The order holds another quantity.
    #[error("the order holds {held} already")]
    AlreadyReserved {
        /// Units it holds.
        held: i64,
    },
    /// A quantity that no unit count can be.
    #[error("a quantity is not positive")]
    InvalidQuantity,
    /// More units than can be counted.
    #[error("the stock is beyond what can be counted")]
    StockOverflow,
}
