//! Stripe, by its `PaymentIntents`.
//!
//! A client of its own rather than a generated one: these are five requests, and what matters is how they fail.
//!
//! | step | request |
//! |---|---|
//! | create | `POST /v1/payment_intents`, not confirmed |
//! | capture | `GET` it, then `POST .../confirm` if it waits for that |
//! | settle | `GET` it, then `POST .../cancel` if that is still possible |
//! | refund | `GET /v1/refunds` of it, then `POST /v1/refunds` if ours is not among them |
//!
//! Stripe remembers an idempotency key for 24 hours only, so no step rests on it alone. Money moves in `confirm`, which names no
//! means of payment: an intent that was confirmed once has none left or has succeeded, and cannot be confirmed again. A declined
//! one is cancelled before it is reported, so that every ending is final at Stripe too. A refund is of the whole sum, and Stripe
//! gives back no more than was taken. An intent that was created and whose id never got into the log is never confirmed.

mod amount;
mod base;
mod client;
mod failure;
mod intent;
mod refund;
pub mod webhook;

use super::{Creation, Ending, Gateway, GatewayError, NewPayment, Secret, Seen};
use async_trait::async_trait;
use client::Client;
use events::Money;
use failure::Failure;
use intent::{Goal, Intent, Step};
use std::sync::Arc;
use uuid::Uuid;

pub use base::{ApiBase, BadApiBase};
pub use client::NoClient;

/// Looks at one payment in one call: each changes something, or finds that somebody else did.
const ROUNDS: usize = 4;

/// The gateway that takes real money, with the key of a live account.
pub struct StripeGateway {
    client: Client,
}

/// The payment did not come to an end although nothing failed.
#[derive(Debug, thiserror::Error)]
#[error("the payment keeps changing, or does not change as asked: it is {0}")]
struct Unsettled(&'static str);

impl From<Failure> for GatewayError {
    fn from(failure: Failure) -> Self {
        Self(failure.into())
    }
}

impl StripeGateway {
    /// Stripe's interface at `base`, with this account's secret key. Connects when it is first used.
    ///
    /// # Errors
    /// [`NoClient`] when no client can be made of them: the key is no header, or the machine has no roots of trust.
    pub fn try_new(base: &ApiBase, secret_key: &Secret) -> Result<Self, NoClient> {
        Ok(Self { client: Client::try_new(base, secret_key)? })
    }

    async fn intent(&self, payment_id: &str) -> Result<Intent, Failure> {
        self.client.get(&format!("payment_intents/{payment_id}"), &[]).await
    }

    /// Takes one step after the other until the payment has ended.
    async fn end(&self, payment_id: &str, goal: Goal) -> Result<Option<Ending>, GatewayError> {
        let mut goal = goal;
        let mut intent = self.intent(payment_id).await?;
        // A cancelled intent may have forgotten why it was declined.
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
        Err(GatewayError(Unsettled(intent.status.as_str()).into()))
    }

    async fn confirm(&self, payment_id: &str) -> Result<Intent, Failure> {
        let path = format!("payment_intents/{payment_id}/confirm");
        // Nobody is there to answer a bank's question: such a payment is declined.
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
            return Ok(Creation::Declined("amount_not_payable".into()));
        };
        let (amount, order_id) = (amount.to_string(), payment.order_id.to_string());
        let currency = payment.amount.currency.code().to_ascii_lowercase();
        let form = [
            ("amount", &*amount),
            ("currency", &*currency),
            ("payment_method", payment.method),
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
    ) -> Result<Arc<str>, GatewayError> {
        Ok(refund::refund(&self.client, key, payment_id, amount).await?)
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
