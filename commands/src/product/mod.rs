//! A product: its description, price and stock.

mod command;
mod decide;
mod error;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Add, Change, ChangeStock, Close, Command, Reserve};
pub use error::Refusal;
pub use state::{Listing, Product, Reservation};
