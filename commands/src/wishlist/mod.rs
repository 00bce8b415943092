//! A wishlist: the products that a customer wants to keep in sight. It knows ids only.

mod command;
mod decide;
mod error;
mod state;
#[cfg(test)]
mod tests;

pub use command::Command;
pub use error::Refusal;
pub use state::{Item, MAX_ITEMS, Wishlist};
