//! What can be asked of a wishlist.

use uuid::Uuid;

/// What can be asked of a wishlist. Asked for what is so already, it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Put this product on it.
    Add(Uuid),
    /// Take this product off it.
    Remove(Uuid),
}
