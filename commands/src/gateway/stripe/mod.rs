//! Stripe, through its `PaymentIntents` API.
//!
//! This client is handwritten rather than generated: it needs only five requests, and what matters
//! is how they fail.
//!
//! | call | requests |
//! |---|---|
//! | create | `POST /v1/payment_intents`, without confirmation |
//! | capture | `GET` the intent, then `POST .../confirm` if it waits for confirmation |
//! | settle | `GET` the intent, then `POST .../cancel` if that is still possible |
//! | refund | `GET` the intent and `GET /v1/refunds` of it, then `POST /v1/refunds` for what is left, if ours is not in the list |
//!
//! Stripe remembers an idempotency key for only 24 hours, so no call relies on the key alone:
//!
//! - Only `confirm` moves money, and it names no payment method. An intent that was confirmed once
//!   either has succeeded or has no payment method left, so it cannot be confirmed again.
//! - A declined intent is cancelled before the decline is reported, so that its state is final at
//!   Stripe too.
//! - A refund is for all that is left, and Stripe refunds no more than was taken.
//! - An intent that was created but whose id never got into the log is never confirmed.

mod amount;
mod base;
mod client;
mod failure;
mod intent;
mod refund;
pub mod webhook;

use super::{
    Creation, Ending, FailedRefund, Gateway, GatewayError, NewPayment, Refund, Secret, Seen,
};
use async_trait::async_trait;
use client::Client;
use events::Money;
use failure::Failure;
use intent::{Goal, Intent, Step};
use uuid::Uuid;

pub use base::{ApiBase, BadApiBase};
pub use client::NoClient;

/// How often one call looks up the intent. Each time it either changes the intent or learns that
/// another request has changed it.
const ROUNDS: usize = 4;

/// The gateway for real payments, if the secret key is that of a live account.
pub struct StripeGateway {
    client: Client,
}

/// No request failed, but the payment has not reached a final state.
#[derive(Debug, thiserror::Error)]
#[error("the payment did not reach a final state: its status is {0}")]
struct Unsettled(&'static str);

impl From<Failure> for GatewayError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotNow(ref refused) if refused.is_about_this_call() => {
                Self::NotNow(failure.into())
            }
            failure => Self::Unavailable(failure.into()),
        }
    }
}

impl StripeGateway {
    /// A gateway that uses Stripe's API at `base` with this secret key. Connects when it is first
    /// used.
    ///
    /// # Errors
    /// [`NoClient`] if the key cannot be an HTTP header, or if the machine has no root
    /// certificates.
    pub fn try_new(base: &ApiBase, secret_key: &Secret) -> Result<Self, NoClient> {
        Ok(Self { client: Client::try_new(base, secret_key)? })
    }

    async fn intent(&self, payment_id: &str) -> Result<Intent, Failure> {
        self.client.get(&format!("payment_intents/{payment_id}"), &[]).await
    }

    /// Takes one step after another until the payment has its final state.
    async fn end(&self, payment_id: &str, goal: Goal) -> Result<Option<Ending>, GatewayError> {
        let mut goal = goal;
        let mut intent = match self.intent(payment_id).await {
            Ok(intent) => intent,
            // Another account has it, and may have taken the money: a person must look.
            Err(Failure::Refused(refused)) if refused.is_missing() => {
                tracing::error!(
                    payment_id,
                    "Stripe does not know a payment: is this the account that it was made with?"
                );
                return Err(GatewayError::NotNow(refused.into()));
            }
            Err(failure) => return Err(failure.into()),
        };
        // A cancelled intent may no longer say why it was declined.
        let mut word = None;
        for _ in 0..ROUNDS {
            word = intent.decline_word().or(word);
            let done = match intent.step(goal) {
                Step::Ended(Ending::Declined(code)) => {
                    return Ok(Some(Ending::Declined(word.unwrap_or(code))));
                }
                Step::Ended(ending) => return Ok(Some(ending)),
                Step::Wait => return Ok(None),
                Step::Confirm => self.confirm(payment_id).await,
                Step::Cancel(reason) => self.cancel(payment_id, reason).await,
            };
            intent = match done {
                Ok(intent) => intent,
                Err(Failure::Refused(refused)) => {
                    if goal == Goal::Capture && !refused.is_about_state() {
                        goal = Goal::Decline;
                        word = Some(refused.decline_word());
                    }
                    self.intent(payment_id).await?
                }
                Err(failure) => return Err(failure.into()),
            };
        }
        Err(GatewayError::NotNow(Unsettled(intent.status.as_str()).into()))
    }

    async fn confirm(&self, payment_id: &str) -> Result<Intent, Failure> {
        let path = format!("payment_intents/{payment_id}/confirm");
        // The customer is not present to answer a question from the bank, so such a payment is
        // declined.
        self.client.post(&path, &format!("{payment_id}/confirm"), &[("off_session", "true")]).await
    }

    async fn cancel(&self, payment_id: &str, reason: &str) -> Result<Intent, Failure> {
        let path = format!("payment_intents/{payment_id}/cancel");
        let key = format!("{payment_id}/cancel/{reason}");
        self.client.post(&path, &key, &[("cancellation_reason", reason)]).await
    }
}

#[async_trait]
impl Gateway for StripeGateway {
    async fn create(&self, payment: &NewPayment<'_>) -> Result<Creation, GatewayError> {
        let Some(amount) = amount::of_stripe(payment.amount) else {
            let (order_id, amount) = (payment.order_id, payment.amount);
            tracing::warn!(%order_id, ?amount, "Stripe cannot take this amount: a price of the order is no multiple of what can be paid");
            return Ok(Creation::Declined("amount_not_payable".into()));
        };
        let (amount, order_id) = (amount.to_string(), payment.order_id.to_string());
        let currency = payment.amount.currency.code().to_ascii_lowercase();
        let form = [
            ("amount", &*amount),
            ("currency", &*currency),
            ("payment_method", payment.method.reveal()),
            ("automatic_payment_methods[enabled]", "true"),
            ("automatic_payment_methods[allow_redirects]", "never"),
            ("metadata[order_id]", &*order_id),
        ];
        match self.client.post::<Intent>("payment_intents", payment.key, &form).await {
            Ok(intent) => Ok(Creation::Created(intent.id)),
            Err(Failure::Refused(refused)) => Ok(Creation::Declined(refused.decline_word())),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn capture(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError> {
        self.end(payment_id, Goal::Capture).await
    }

    async fn settle(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError> {
        self.end(payment_id, Goal::Settle).await
    }

    async fn refund(
        &self,
        key: &str,
        payment_id: &str,
        amount: Money,
    ) -> Result<Refund, GatewayError> {
        let intent = match self.intent(payment_id).await {
            Ok(intent) => intent,
            // Another account has the money. A person must return it.
            Err(Failure::Refused(refused)) if refused.is_missing() => {
                return Ok(Refund::Refused(refused.decline_word()));
            }
            Err(failure) => return Err(failure.into()),
        };
        Ok(refund::refund(&self.client, key, &intent, amount).await?)
    }

    async fn failed_refund(
        &self,
        key: &str,
        payment_id: &str,
    ) -> Result<Option<FailedRefund>, GatewayError> {
        Ok(refund::failed(&self.client, key, payment_id).await?)
    }

    async fn look(&self, payment_id: &str) -> Result<Option<Seen>, GatewayError> {
        let intent = match self.intent(payment_id).await {
            Ok(intent) => intent,
            Err(Failure::Refused(refused)) if refused.is_missing() => return Ok(None),
            Err(failure) => return Err(failure.into()),
        };
        let order_id = intent.metadata.get("order_id").and_then(|id| Uuid::try_parse(id).ok());
        Ok(order_id.map(|order_id| Seen { order_id, ending: intent.ending() }))
    }
}
