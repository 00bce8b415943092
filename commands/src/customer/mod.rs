//! A customer: the profile, the e-mail address, and the orders in progress.
//!
//! The stream of an e-mail address decides which customer the address belongs to. So a registration
//! or a change of address is first only requested. The request owes an effect that asks the
//! address's stream to take the address for the customer; the answer confirms or refuses the
//! request. The requests of a customer are numbered (`attempt`). A request that was refused, and
//! one whose address the customer has left, owes a release of that address.
//!
//! Erasing a customer gives up every address and owes the destruction of all that belongs to the
//! customer ([`Belonging`]), whatever else is in progress. An answer to an earlier request that
//! arrives afterwards has no effect, and the release undoes that request at the address. Orders that
//! were opened before go on.

mod command;
mod decide;
mod error;
mod owed;
mod state;
#[cfg(test)]
mod tests;

pub use command::{Change, CloseOrder, Command, OpenOrder, Register};
pub use error::Refusal;
pub use owed::{Belonging, Effect};
use state::DECLINES_COUNT_FOR;
pub use state::{Customer, OpenedOrder, Profile, REGISTRATION, REMEMBERED_DECLINES, Status};
