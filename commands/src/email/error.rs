//! Why an e-mail address refuses a command.

/// Why an e-mail address refuses a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The address belongs to another customer.
    #[error("the e-mail address belongs to another customer")]
    Taken,
    /// The request was released, or a later one of the same customer has replaced it.
    #[error("the request for the e-mail address is over")]
    Closed,
}
