//! The commands of a wishlist.

use uuid::Uuid;

/// A command for a wishlist. If the list already is as the command asks, nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Put this product on it.
    Add(Uuid),
    /// Take this product off it.
    Remove(Uuid),
    /// Empty it for ever, because its customer is erased. Internal.
    Clear,
}
