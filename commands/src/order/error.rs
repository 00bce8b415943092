//! Why an order says no.

use super::Status;

/// Why an order says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was never placed, or not by the customer who asks.
    #[error("there is no such order")]
    NotFound,
    /// It was placed before.
    #[error("the order exists already")]
    AlreadyExists,
    /// An order can not go from where it is to where it shall.
    #[error("an order that is {from} can not become {to}")]
    IllegalTransition {
        /// Where it is.
        from: Status,
        /// Where it shall go.
        to: Status,
    },
    /// No lines, a product twice, a quantity below 1, or lines that are not the order's.
    #[error("the lines are not those of an order")]
    InvalidLines,
    /// An internal step came when the order was past it: what it did elsewhere is undone by what the order owes.
    #[error("the order is past this step: it is {status}")]
    TooLate {
        /// Where it is.
        status: Status,
    },
    /// The order's price is not fixed yet.
    #[error("the order has no price yet")]
    NotPriced,
    /// No payment of this ordinal was started.
    #[error("the order has no payment {ordinal}")]
    UnknownPayment {
        /// The ordinal.
        ordinal: u32,
    },
    /// The deadline has not come.
    #[error("the deadline of the order has not come")]
    NotDue,
    /// What is to be settled is not owed yet.
    #[error("an order that is {status} does not owe this")]
    NotOwed {
        /// Where it is.
        status: Status,
    },
}
