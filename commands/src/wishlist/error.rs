//! Why a wishlist says no.

/// Why a wishlist says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has as many items as it may have.
    #[error("the wishlist has {most} items, and may have no more")]
    Full {
        /// Items that a wishlist may have.
        most: usize,
    },
}
