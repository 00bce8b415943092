//! A wishlist: the products that a customer has put on it. It holds only ids and does not check
//! that the products exist.

mod command;
mod decide;
mod error;
mod state;
#[cfg(test)]
mod tests;

pub use command::Command;
pub use error::Refusal;
pub use state::{Item, MAX_ITEMS, Wishlist};
