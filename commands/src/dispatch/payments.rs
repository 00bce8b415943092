//! Calls to the gateway, and notices from it.

use super::{
    EffectError, Executor, GATEWAY_TIMEOUT,
    board::Queue,
    orders::{OwedRefund, record, refund_key},
};
use crate::{
    aggregate::EffectId,
    gateway::{Ending, FailedRefund, Gateway, GatewayError, Seen},
    order::{Order, Payment, PaymentState, RecordRefundFailed},
    request::State,
};
use events::StreamId;
use std::{future::Future, sync::Arc};

/// The gateway did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("the call took longer than {GATEWAY_TIMEOUT:?}")]
struct TimedOut;

impl Executor {
    /// Calls the gateway, with a time limit and behind the breaker.
    pub(super) async fn call<'a, T, F: Future<Output = Result<T, GatewayError>>>(
        &'a self,
        name: &'static str,
        call: impl FnOnce(&'a dyn Gateway) -> F,
    ) -> Result<T, EffectError> {
        // The semaphore is never closed.
        let _permit = self.gateway_calls.acquire().await.map_err(|_| EffectError::Unanswered)?;
        // The breaker is asked after the wait for a permit, so that it also refuses calls that were
        // waiting when the gateway failed.
        self.breaker.admit().map_err(|tripped| GatewayError::Unavailable(tripped.into()))?;
        let began = self.environment.monotonic();
        let answer = tokio::select! {
            biased;
            answer = call(&*self.gateway) => answer,
            () = self.environment.sleep(GATEWAY_TIMEOUT) => {
                Err(GatewayError::Unavailable(TimedOut.into()))
            }
        };
        self.breaker.note(!matches!(answer, Err(GatewayError::Unavailable(_))));
        let took = self.environment.monotonic().saturating_sub(began);
        let result = if answer.is_ok() { "answered" } else { "failed" };
        metrics::histogram!("orderlog_gateway_call_seconds", "call" => name, "result" => result)
            .record(took);
        Ok(answer?)
    }
}

/// Receives the gateway's notices. Whatever a notice says, it only means "look this payment up". So
/// it does not matter how often, how late or in which order notices arrive.
#[derive(Clone)]
pub struct Payments {
    queue: Arc<Queue>,
    executor: Arc<Executor>,
}

/// What a notice led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeResult {
    /// The payment's final state is recorded in its order.
    Recorded,
    /// The payment has no final state yet. What its order owes is retried at once.
    Pending,
    /// The notice is not about a payment that an order of this shop waits for.
    NotOurs,
}

/// A notice could not be followed at this moment.
#[derive(Debug, thiserror::Error)]
#[error("the payment of a notice could not be looked up or recorded")]
pub struct NoticeError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Payments {
    pub(super) fn new(queue: Arc<Queue>, executor: Arc<Executor>) -> Self {
        Self { queue, executor }
    }

    /// Looks up a payment at the gateway and records its final state, if it has one, in its order.
    ///
    /// # Errors
    /// [`NoticeError`] if the gateway or the order does not answer. Deliver the notice again later.
    pub async fn follow_up(&self, payment_id: &str) -> Result<NoticeResult, NoticeError> {
        self.follow(payment_id).await.map_err(|error| NoticeError(error.into()))
    }

    async fn follow(&self, payment_id: &str) -> Result<NoticeResult, EffectError> {
        let seen = self
            .executor
            .call("look", |gateway| async move { gateway.look(payment_id).await })
            .await?;
        let Some(Seen { order_id, ending }) = seen else { return Ok(NoticeResult::NotOurs) };
        let stream = StreamId::order(order_id);
        let order = self.order(stream).await?;
        // An order drops its payment once everything about the payment is recorded.
        let Some(payment) = order.payment().filter(|payment| &*payment.payment_id == payment_id)
        else {
            return Ok(NoticeResult::NotOurs);
        };
        match payment.state {
            PaymentState::Refunded => return self.follow_refund(stream, payment).await,
            // Somebody may have returned the money by hand.
            PaymentState::RefundRefused => {
                let &Payment { ordinal, refund, ref payment_id, amount, .. } = payment;
                let owed = OwedRefund { ordinal, refund, payment_id, amount };
                let effect = EffectId { name: "notice/refunded", ordinal: refund };
                self.executor.refund(stream, effect, owed).await?;
                return Ok(NoticeResult::Recorded);
            }
            _ => {}
        }
        let Some(ending) = ending else {
            self.queue.hurry(stream);
            return Ok(NoticeResult::Pending);
        };
        let effect = EffectId { name: notice_of(&ending), ordinal: payment.ordinal };
        self.executor
            .send_to_order(stream, effect, record(payment.ordinal, payment.amount, ending))
            .await?;
        Ok(NoticeResult::Recorded)
    }

    /// Looks whether the refund has failed since.
    async fn follow_refund(
        &self,
        order: StreamId,
        payment: &Payment,
    ) -> Result<NoticeResult, EffectError> {
        let &Payment { ordinal, refund, ref payment_id, .. } = payment;
        let key = refund_key(order, refund);
        let failed = self
            .executor
            .call("failed-refund", |gateway| async move {
                gateway.failed_refund(&key, payment_id).await
            })
            .await?;
        let Some(FailedRefund { refund_id, code }) = failed else {
            return Ok(NoticeResult::NotOurs);
        };
        let failed = RecordRefundFailed { ordinal, refund, refund_id: Some(refund_id), code };
        self.executor.record_failed_refund(order, failed).await?;
        Ok(NoticeResult::Recorded)
    }

    async fn order(&self, stream: StreamId) -> Result<Arc<Order>, EffectError> {
        match self.executor.router.state(stream).await?.state {
            State::Order(order) => Ok(order),
            _ => Err(EffectError::Unanswered),
        }
    }
}

/// Names the command by the final state. A payment reaches each final state at most once, so a
/// repeated notice is the same command.
fn notice_of(ending: &Ending) -> &'static str {
    match ending {
        Ending::Captured | Ending::Received(_) => "notice/captured",
        Ending::Declined(_) => "notice/declined",
        Ending::Voided => "notice/voided",
    }
}
