//! An order: its life from placed to delivered, cancelled or rejected, its payment, and the effects
//! it owes on the way.
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
//! Payment: the gateway creates the payment first, then its id is logged
//! ([`PaymentStarted`](events::order::PaymentStarted)), and only then may the dispatcher capture
//! it. So a payment that was created but never logged has moved no money, and an order that was
//! cancelled or rejected before the id was logged refuses to start the payment. After the id is
//! logged, money may have moved until the log has the payment's final state. An order that is
//! cancelled or rejected in that time owes [`Effect::Settle`], without a deadline. What the gateway
//! reports is always recorded, never refused.

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
    RecordMailSent, RecordRefund, RecordRefundFailed, RecordVoided, ReservedLine, StartPayment,
};
pub(crate) use decide::rejected;
pub use error::Refusal;
pub use owed::Effect;
pub use state::{CANCEL_REASON, Detail, Order, Payment, PaymentState, RefundState, Status};
