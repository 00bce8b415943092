//! Why a customer refuses a command.

/// Why a customer refuses a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no registration, or it is still pending, or it was refused.
    #[error("there is no such customer")]
    NotFound,
    /// A registration was requested before.
    #[error("the customer already exists")]
    AlreadyExists,
    /// The registration, or an earlier change of address, has not been answered yet.
    #[error("another change of the customer is in progress")]
    ChangeInProgress,
    /// The registration already has the opposite answer.
    #[error("the registration already has the opposite answer")]
    RegistrationAnswered,
    /// No change with this number waits for this answer.
    #[error("no change {attempt} of the customer waits for this answer")]
    UnknownAttempt {
        /// The number of the change.
        attempt: u32,
    },
    /// The customer has been erased.
    #[error("the customer is erased")]
    Erased,
    /// The customer has not been erased, so their key must not be destroyed.
    #[error("the customer is not erased")]
    NotErased,
    /// The order was closed here, or it is too late to open it.
    #[error("the order can no longer be opened")]
    OrderClosed,
    /// Too many other orders of the customer are pending.
    #[error("{open} orders of the customer are pending, and no more are allowed")]
    TooManyOpenOrders {
        /// How many are.
        open: usize,
    },
    /// Too many payments of the customer were declined within an hour.
    #[error("{declined} payments of the customer were declined within an hour")]
    TooManyDeclinedPayments {
        /// How many were.
        declined: usize,
    },
}
