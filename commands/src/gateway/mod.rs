//! The payment gateway's port.
//!
//! Every call is safe to repeat: `create` and `refund` by their key, the others because a payment ends once. Money moves in
//! `capture` only, and only after the payment's id is in the log. A call that hangs is dropped and made again.
//!
//! | gateway | for |
//! |---|---|
//! | [`SandboxGateway`] | development and tests |
//! | [`StripeGateway`](stripe::StripeGateway) | money |

mod sandbox;
mod secret;
pub mod stripe;

use async_trait::async_trait;
use events::Money;
use std::sync::Arc;
use uuid::Uuid;

pub use sandbox::SandboxGateway;
pub use secret::Secret;

/// The gateway gave no answer that settles anything; the same call may work later.
#[derive(Debug, thiserror::Error)]
#[error("the payment gateway does not answer")]
pub struct GatewayError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// How a payment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The money was taken.
    Captured,
    /// The gateway refused, with its word for it.
    Declined(Arc<str>),
    /// It was given up before money moved.
    Voided,
}

/// A payment that the gateway is to know.
#[derive(Clone, Copy, Debug)]
pub struct NewPayment<'a> {
    /// Names it: the same key is the same payment.
    pub key: &'a str,
    /// What it is for; the gateway keeps it with the payment.
    pub order_id: Uuid,
    /// What is to be taken.
    pub amount: Money,
    /// The gateway's token for the means of payment.
    pub method: &'a str,
}

/// What became of a payment that the gateway was to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It has this id.
    Created(Arc<str>),
    /// The gateway will not have it, with its word for it: no money can move.
    Declined(Arc<str>),
}

/// A payment as the gateway knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What it is for.
    pub order_id: Uuid,
    /// How it ended, if it has.
    pub ending: Option<Ending>,
}

/// A payment gateway.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Makes the payment known to the gateway, without moving money.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn create(&self, payment: &NewPayment<'_>) -> Result<Creation, GatewayError>;

    /// Takes the money: captured or declined, or voided if it was settled so before. `None` while the gateway
    /// is at it: ask again later.
    ///
    /// # Errors
    /// [`GatewayError`]: it is open whether money moved; try again, or settle.
    async fn capture(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError>;

    /// Ends the payment without taking money, unless it was taken already: tells which. `None` while the gateway is at it:
    /// ask again later.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn settle(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError>;

    /// Gives captured money back; the same `key` gives it back once. The refund's id.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn refund(
        &self,
        key: &str,
        payment_id: &str,
        amount: Money,
    ) -> Result<Arc<str>, GatewayError>;

    /// Looks at a payment, and changes nothing. `None` when it is not one of ours. For gateways that tell of themselves when
    /// a payment ends: what they tell is only a reason to look.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn look(&self, payment_id: &str) -> Result<Option<Seen>, GatewayError> {
        let _ = payment_id;
        Ok(None)
    }
}
