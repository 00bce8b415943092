//! The payment gateway's port.
//!
//! Every call is safe to repeat: `create` and `refund` have a key, and the others bring a payment
//! to a final state that never changes. Only `capture` moves money, and it is called only after the
//! payment's id is in the log. A call that takes too long is dropped and repeated.
//!
//! | gateway | use |
//! |---|---|
//! | [`SandboxGateway`] | development and tests |
//! | [`StripeGateway`](stripe::StripeGateway) | real payments |

mod sandbox;
mod secret;
pub mod stripe;

use async_trait::async_trait;
use events::{Money, Private};
use std::sync::Arc;
use uuid::Uuid;

pub use sandbox::SandboxGateway;
pub use secret::Secret;

/// Why a call to the gateway failed. The same call may succeed later.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The gateway gave no usable answer, and other calls would hardly fare better.
    #[error("the payment gateway gave no usable answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It cannot do this now, for a reason of this payment or of the shop's balance. That says nothing
    /// about other calls.
    #[error("the payment gateway cannot do this now")]
    NotNow(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The final state of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The money was taken.
    Captured,
    /// This much money was taken, as the gateway says. The order compares it with its total.
    Received(Money),
    /// The gateway declined it. Contains the gateway's code for the reason.
    Declined(Arc<str>),
    /// It was cancelled before money moved.
    Voided,
}

/// A payment to create at the gateway.
#[derive(Clone, Copy, Debug)]
pub struct NewPayment<'a> {
    /// The idempotency key: the same key always gives the same payment.
    pub key: &'a str,
    /// The order it pays; the gateway stores the id with the payment.
    pub order_id: Uuid,
    /// The amount to capture.
    pub amount: Money,
    /// The gateway's token for the payment method.
    pub method: &'a Private,
}

/// The gateway's answer to the creation of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The payment's id.
    Created(Arc<str>),
    /// The gateway refuses to create it, so no money can move. Contains its code for the reason.
    Declined(Arc<str>),
}

/// The gateway's answer to a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refund {
    /// The customer has all of the money back, or will have it. Contains the id of the refund.
    Issued(Arc<str>),
    /// The gateway refuses, and would refuse again. Contains its code for the reason.
    Refused(Arc<str>),
    /// The gateway made the refund, and it failed.
    Failed(FailedRefund),
}

/// A refund that the gateway had accepted and that failed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRefund {
    /// The gateway's id of the refund.
    pub refund_id: Arc<str>,
    /// The gateway's code for the reason.
    pub code: Arc<str>,
}

/// A payment as the gateway reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The order it pays.
    pub order_id: Uuid,
    /// Its final state, if it has one.
    pub ending: Option<Ending>,
}

/// A payment gateway.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    /// Creates the payment at the gateway, without moving money.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn create(&self, payment: &NewPayment<'_>) -> Result<Creation, GatewayError>;

    /// Captures the payment. Returns its final state: captured, declined, or voided if `settle`
    /// came first. `None` while the gateway is still processing it: call again later.
    ///
    /// # Errors
    /// [`GatewayError`]: nobody knows whether money has moved; call again, or call `settle`.
    async fn capture(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError>;

    /// Brings the payment to its final state: voids it, unless the money was already taken. Returns
    /// the final state. `None` while the gateway is still processing it: call again later.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn settle(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError>;

    /// Refunds what is left of a captured payment, once for each `key`. `amount` is what was
    /// captured.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn refund(
        &self,
        key: &str,
        payment_id: &str,
        amount: Money,
    ) -> Result<Refund, GatewayError>;

    /// Looks whether the refund that was made under `key` has failed since.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn failed_refund(
        &self,
        key: &str,
        payment_id: &str,
    ) -> Result<Option<FailedRefund>, GatewayError> {
        let _ = (key, payment_id);
        Ok(None)
    }

    /// Looks up a payment without changing it. `None` if it does not belong to this shop. Called
    /// when the gateway has sent a notice about the payment, because a notice itself is not
    /// trusted.
    ///
    /// # Errors
    /// [`GatewayError`]: try again.
    async fn look(&self, payment_id: &str) -> Result<Option<Seen>, GatewayError> {
        let _ = payment_id;
        Ok(None)
    }
}
