//! An e-mail address, named by its keyed hash: who holds it.
//!
//! A customer's claims are numbered over all addresses, and only one of them waits at a time. So a claim with a higher number
//! than the one the same customer holds here takes its place, and one with a lower number is a straggler.

mod command;
mod decide;
mod error;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Claim, Command};
pub use error::Refusal;
pub use state::Email;
