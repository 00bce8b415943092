//! Why a customer says no.

/// Why a customer says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Never registered, not yet, or refused.
    #[error("there is no such customer")]
    NotFound,
    /// Registered, or registering, before.
    #[error("the customer exists already")]
    AlreadyExists,
    /// The registration or another change of address waits for its answer.
    #[error("another change of the customer is in progress")]
    ChangeInProgress,
    /// The registration was answered otherwise.
    #[error("the registration was answered otherwise")]
    RegistrationAnswered,
    /// No claim of this number waits for this.
    #[error("the claim {attempt} of the customer does not wait for this")]
    UnknownAttempt {
        /// The number.
        attempt: u32,
    },
    /// They were a customer, and are erased.
    #[error("the customer is erased")]
    Erased,
    /// The key of a customer who is not erased stays.
    #[error("the customer is not erased")]
    NotErased,
    /// The order is closed here, or too late to open.
    #[error("the order can no longer be opened")]
    OrderClosed,
}
