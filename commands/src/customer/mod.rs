//! A customer: their profile, their claim on an e-mail address, and the orders they have under way.
//!
//! An address belongs to a customer once the address's own stream says so. So a registration, and a change of address, is
//! first requested; the request owes a claim there, and the answer confirms or refuses it. Claims are counted: a claim that
//! came to nothing, or whose address was left, owes a release.
//!
//! Who is erased lets go of every address and owes the destruction of their key, whatever was under way: an answer to a claim
//! that comes later finds nobody, and the release stands against the claim itself. Orders that were opened go on.

mod command;
mod decide;
mod error;
mod owed;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Change, CloseOrder, Command, OpenOrder, Register};
pub use error::Refusal;
pub use owed::Effect;
pub use state::{Customer, OpenedOrder, Profile, REGISTRATION, Status};
