//! Why an e-mail address says no.

/// Why an e-mail address says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another customer holds it.
    #[error("the e-mail address is another customer's")]
    Taken,
    /// The claim, or a later one of the same customer, is over or has taken its place.
    #[error("the claim is over")]
    Closed,
}
