//! The payment gateway's port.
//!
//! Every call is safe to repeat: `create` and `refund` by their key, the others because a payment ends once. Money moves in
//! `capture` only, and only after the payment's id is in the log. A call that hangs is dropped and made again.

mod sandbox;

use async_trait::async_trait;
use events::Money;
use std::sync::Arc;

pub use sandbox::SandboxGateway;

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

/// A payment gateway.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Makes the payment known to the gateway, without moving money; the same `key` gives the same payment. Its id.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn create(
        &self,
        key: &str,
        amount: Money,
        method: &str,
    ) -> Result<Arc<str>, GatewayError>;

    /// Takes the money: captured or declined, or voided if it was settled so before.
    ///
    /// # Errors
    /// [`GatewayError`]: it is open whether money moved; try again, or settle.
    async fn capture(&self, payment_id: &str) -> Result<Ending, GatewayError>;

    /// Ends the payment without taking money, unless it was taken already: tells which.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn settle(&self, payment_id: &str) -> Result<Ending, GatewayError>;

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
}
