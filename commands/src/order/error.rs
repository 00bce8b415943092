//! Why an order refuses a command.

use super::Status;

/// Why an order refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The order was never placed, or it belongs to another customer than the caller.
    #[error("there is no such order")]
    NotFound,
    /// The order was placed before.
    #[error("the order already exists")]
    AlreadyExists,
    /// An order cannot go from this status to that one.
    #[error("an order that is {from} cannot become {to}")]
    IllegalTransition {
        /// The current status.
        from: Status,
        /// The requested status.
        to: Status,
    },
    /// There are no lines, a product occurs twice, a quantity is below 1, or the reserved lines are
    /// not those of the order.
    #[error("the lines of the order are not valid")]
    InvalidLines,
    /// An internal command arrived after the order had passed the step. The effects that the order
    /// owes undo what the step did elsewhere.
    #[error("the order has passed this step: it is {status}")]
    TooLate {
        /// The current status.
        status: Status,
    },
    /// The order's price has not been set yet.
    #[error("the order has no price yet")]
    NotPriced,
    /// No payment with this ordinal was started.
    #[error("the order has no payment {ordinal}")]
    UnknownPayment {
        /// The ordinal.
        ordinal: u32,
    },
    /// The command ends an effect that the order does not owe yet.
    #[error("an order that is {status} does not owe this")]
    NotOwed {
        /// The current status.
        status: Status,
    },
}
