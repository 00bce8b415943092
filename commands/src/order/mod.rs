//! An order: from placed to its end, with its money and all that it owes on the way.
//!
//! ```text
//! pending -> confirmed -> processing -> shipped -> delivered
//!    |  \        |  \________|____________^
//!    |   \       v           v
//!    |    `-> cancelled <----'
//!    v
//! rejected
//! ```
//!
//! Money: the gateway's payment is created first, then logged ([`PaymentStarted`](events::order::PaymentStarted)), and only
//! then may it be captured. So a payment that was created but never logged has moved nothing, and an order that dies before
//! the log knows a payment refuses to start one. From the logged payment on money may have moved, until an outcome is in the
//! log: an order that dies meanwhile owes [`Effect::Settle`], without a deadline. Outcomes are recorded, never refused.

mod command;
mod decide;
mod error;
mod mail;
mod owed;
mod payment;
mod state;
#[cfg(test)]
mod tests;

pub use command::{
    Cancel, Command, Place, Price, RecordCaptured, RecordDeclined, RecordMailRefused,
    RecordMailSent, RecordRefund, RecordVoided, ReservedLine, StartPayment,
};
pub use error::Refusal;
pub use owed::Effect;
pub use state::{Detail, Order, Payment, PaymentState, RefundState, Status};
