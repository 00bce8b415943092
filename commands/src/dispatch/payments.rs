//! Calls to the gateway, and what the gateway tells of itself.

use super::{EffectError, GATEWAY_PATIENCE, Hands, board::Queue, orders::record};
use crate::{
    aggregate::EffectId,
    gateway::{Ending, Gateway, GatewayError, Seen},
    order::Order,
    request::State,
};
use events::StreamId;
use std::{future::Future, sync::Arc};

/// The gateway was given up.
#[derive(Debug, thiserror::Error)]
#[error("the call took longer than {GATEWAY_PATIENCE:?}")]
struct TimedOut;

impl Hands {
    /// A call to the gateway, within its limit, behind the breaker.
    pub(super) async fn call<'a, T, F: Future<Output = Result<T, GatewayError>>>(
        &'a self,
        name: &'static str,
        call: impl FnOnce(&'a dyn Gateway) -> F,
    ) -> Result<T, EffectError> {
        let _turn = self.gateway_queue.try_acquire().map_err(|_| EffectError::Busy)?;
        // The semaphore is never closed.
        let _permit = self.gateway_calls.acquire().await.map_err(|_| EffectError::Unanswered)?;
        // Asked when it is their turn: those who waited at the door of a gateway that died are turned away too.
        self.breaker.admit().map_err(|open| GatewayError(open.into()))?;
        let began = self.environment.monotonic();
        let answer = tokio::select! {
            biased;
            answer = call(&*self.gateway) => answer,
            () = self.environment.sleep(GATEWAY_PATIENCE) => Err(GatewayError(TimedOut.into())),
        };
        self.breaker.note(answer.is_ok());
        let took = self.environment.monotonic().saturating_sub(began);
        let result = if answer.is_ok() { "answered" } else { "failed" };
        metrics::histogram!("orderlog_gateway_call_seconds", "call" => name, "result" => result)
            .record(took);
        Ok(answer?)
    }
}

/// Takes what the gateway tells of itself: always "look at this payment", whatever it says. So it makes no difference how
/// often it tells, how late, or in which order.
#[derive(Clone)]
pub struct Payments {
    queue: Arc<Queue>,
    hands: Arc<Hands>,
}

/// What became of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The order knows how the payment ended.
    Recorded,
    /// The payment has not ended: what the order owes about it is tried at once.
    Open,
    /// No order of ours waits to know of this payment.
    NotOurs,
}

/// A notice that could not be followed now.
#[derive(Debug, thiserror::Error)]
#[error("a notice of the gateway could not be followed")]
pub struct NotHeard(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Payments {
    pub(super) fn new(queue: Arc<Queue>, hands: Arc<Hands>) -> Self {
        Self { queue, hands }
    }

    /// Looks at a payment at the gateway and tells its order how it ended.
    ///
    /// # Errors
    /// [`NotHeard`] when gateway or order do not answer: tell it again later.
    pub async fn look_at(&self, payment_id: &str) -> Result<Heard, NotHeard> {
        self.follow(payment_id).await.map_err(|error| NotHeard(error.into()))
    }

    async fn follow(&self, payment_id: &str) -> Result<Heard, EffectError> {
        let seen = self
            .hands
            .call("look", |gateway| async move { gateway.look(payment_id).await })
            .await?;
        let Some(Seen { order_id, ending }) = seen else { return Ok(Heard::NotOurs) };
        let stream = StreamId::order(order_id);
        let order = self.order(stream).await?;
        // An order that is done with its payment has let go of it: nothing is left to be told.
        let Some(payment) = order.payment().filter(|payment| &*payment.payment_id == payment_id)
        else {
            return Ok(Heard::NotOurs);
        };
        let Some(ending) = ending else {
            self.queue.hurry(stream);
            return Ok(Heard::Open);
        };
        let effect = EffectId { name: notice_of(&ending), ordinal: payment.ordinal };
        self.hands
            .tell_order(stream, effect, record(payment.ordinal, payment.amount, ending))
            .await?;
        Ok(Heard::Recorded)
    }

    async fn order(&self, stream: StreamId) -> Result<Arc<Order>, EffectError> {
        match self.hands.router.state(stream).await?.state {
            State::Order(order) => Ok(order),
            _ => Err(EffectError::Unanswered),
        }
    }
}

/// Names the command: a payment has one ending of each sort, so the same notice again is the same command again.
fn notice_of(ending: &Ending) -> &'static str {
    match ending {
        Ending::Captured => "notice/captured",
        Ending::Declined(_) => "notice/declined",
        Ending::Voided => "notice/voided",
    }
}
