//! An e-mail address, identified by its keyed hash: which customer it belongs to.
//!
//! A customer's requests for addresses are numbered across all addresses, and only one of them is
//! in progress at a time. So if the address already belongs to the customer, a request with a
//! higher number replaces the one on record, and a request with a lower number is a late repetition
//! and is refused.

mod command;
mod decide;
mod error;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Command, ReleaseEmail, TakeEmail};
pub use error::Refusal;
pub use state::Email;
