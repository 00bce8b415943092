//! A payment gateway with moods. What it was asked it does, also when nobody waits for the answer any more.

use super::{
    books::{Broken, Paid, Payment, Status},
    shop::Shop,
    world::OUTSIDE,
};
use async_trait::async_trait;
use commands::gateway::{Ending, Gateway, GatewayError};
use events::Money;
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;
use uuid::Uuid;

/// How the gateway is today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Quick and reliable.
    Calm,
    /// Every third call fails, before or after it was done.
    Failing,
    /// Calls take seconds, some longer than anybody waits.
    Slow,
    /// Nothing is answered.
    Silent,
}

/// The gateway as processes call it.
pub struct Till(pub Arc<Shop>);

#[derive(Debug, thiserror::Error)]
#[error("the gateway fails")]
struct Failed;

impl Till {
    /// Does `deed` and answers, or does not, or only one of them.
    async fn call<T: Clone + Send + 'static>(
        &self,
        deed: impl FnOnce(&Shop) -> Result<T, Broken> + Send + 'static,
    ) -> Result<T, GatewayError> {
        let (shop, (answer, answered)) = (Arc::clone(&self.0), oneshot::channel());
        self.0.world.spawn(
            OUTSIDE,
            Box::pin(async move {
                let (world, mood) = (&shop.world, shop.mood());
                let (before, after) = match mood {
                    Mood::Calm => (world.below(2), world.below(2)),
                    Mood::Failing => (world.below(50), world.below(50)),
                    Mood::Slow => (world.below(20_000), world.below(20_000)),
                    Mood::Silent => (world.below(10_000), 3_600_000),
                };
                let fails = mood == Mood::Failing && world.once_in(3);
                let does = !fails || world.once_in(2);
                world.sleep(Duration::from_millis(before)).await;
                let done = does.then(|| deed(&shop));
                world.sleep(Duration::from_millis(after)).await;
                match done {
                    Some(Err(broken)) => shop.breaks(broken),
                    Some(Ok(done)) if !fails => {
                        // The caller may be dead, or have lost patience.
                        let _ = answer.send(done);
                    }
                    _ => {}
                }
            }),
        );
        answered.await.map_err(|_| GatewayError(Failed.into()))
    }
}

fn id_of(prefix: &str, key: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple())
}

/// The order that a key `order-<id>/...` speaks of.
fn order_of(key: &str) -> Result<Uuid, Broken> {
    let id = key.strip_prefix("order-").and_then(|rest| rest.split('/').next());
    id.and_then(|id| id.parse().ok()).ok_or_else(|| format!("the gateway's key is {key:?}"))
}

#[async_trait]
impl Gateway for Till {
    async fn create(
        &self,
        key: &str,
        amount: Money,
        method: &str,
    ) -> Result<Arc<str>, GatewayError> {
        let (key, method, amount) = (key.to_owned(), method.to_owned(), amount.amount);
        self.call(move |shop| {
            let (id, order_id) = (id_of("pay", &key), order_of(&key)?);
            let mut books = shop.books();
            let order = books.orders.get(&order_id).ok_or("a payment for no order")?;
            if order.total != Some(amount) {
                return Err(format!("order {order_id}: {amount} asked of {:?}", order.total));
            }
            books.payments.entry(id.clone()).or_insert(Payment {
                order: order_id,
                amount,
                method,
                ending: None,
                refunded: std::collections::BTreeMap::new(),
            });
            Ok(Arc::from(id))
        })
        .await
    }

    async fn capture(&self, payment_id: &str) -> Result<Ending, GatewayError> {
        let id = payment_id.to_owned();
        self.call(move |shop| {
            let mut books = shop.books();
            let payment = books.payments.get(&id).ok_or("an unknown payment")?;
            if let Some(ending) = &payment.ending {
                return Ok(ending.clone());
            }
            let (order_id, declines) = (payment.order, payment.method == "declined");
            let paid = &books.orders[&order_id].paid;
            if *paid != Some(Paid::Started(id.clone())) {
                return Err(format!("order {order_id}: money moves, and the log says {paid:?}"));
            }
            let ending = if declines { Ending::Declined("no".into()) } else { Ending::Captured };
            books.payments.get_mut(&id).unwrap().ending = Some(ending.clone());
            Ok(ending)
        })
        .await
    }

    async fn settle(&self, payment_id: &str) -> Result<Ending, GatewayError> {
        let id = payment_id.to_owned();
        self.call(move |shop| {
            let mut books = shop.books();
            let order_id = books.payments.get(&id).ok_or("an unknown payment")?.order;
            let status = books.orders[&order_id].status;
            if !status.is_dead() {
                return Err(format!("order {order_id}: {status:?}, and its payment is given up"));
            }
            let payment = books.payments.get_mut(&id).unwrap();
            Ok(payment.ending.get_or_insert(Ending::Voided).clone())
        })
        .await
    }

    async fn refund(
        &self,
        key: &str,
        payment_id: &str,
        amount: Money,
    ) -> Result<Arc<str>, GatewayError> {
        let (id, refund) = (payment_id.to_owned(), id_of("re", key));
        let amount = amount.amount;
        self.call(move |shop| {
            let mut books = shop.books();
            let payment = books.payments.get(&id).ok_or("an unknown payment")?;
            let order_id = payment.order;
            let status = books.orders[&order_id].status;
            if !matches!(status, Status::Cancelled | Status::Rejected) {
                return Err(format!("order {order_id}: {status:?}, and money goes back"));
            }
            let payment = books.payments.get_mut(&id).unwrap();
            payment.refunded.insert(refund.clone(), amount);
            if payment.balance() < 0 {
                return Err(format!("order {order_id}: more goes back than was taken"));
            }
            Ok(Arc::from(refund))
        })
        .await
    }
}
