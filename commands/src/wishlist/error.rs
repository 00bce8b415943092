//! Why a wishlist refuses a command.

/// Why a wishlist refuses a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The list already has the largest number of items.
    #[error("the wishlist already has {most} items, the most it may have")]
    Full {
        /// The largest number of items.
        most: usize,
    },
    /// The customer is erased.
    #[error("the customer is erased")]
    Cleared,
}
