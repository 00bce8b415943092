//! A simulated payment gateway that can be slow or fail. It carries out every request, even if the
//! caller no longer waits for the answer.
//!
//! Like Stripe it forgets idempotency keys after a time, processes some payments slowly, and
//! sends notices of results late, twice, in any order or not at all.

use super::{
    books::{Broken, Paid, Payment, Status},
    shop::Shop,
    world::{OUTSIDE, World},
};
use async_trait::async_trait;
use commands::gateway::{
    Creation, Ending, FailedRefund, Gateway, GatewayError, NewPayment, Refund, Seen,
};
use events::Money;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The current behaviour of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Calls are quick and reliable.
    Calm,
    /// Every third call fails, before or after it took effect.
    Failing,
    /// Calls take seconds, some longer than the caller waits.
    Slow,
    /// No call is answered.
    Silent,
}

/// How long the gateway remembers an idempotency key. Stripe remembers it for a day; all times are
/// shorter here.
const MEMORY: Duration = Duration::from_secs(10);

/// The gateway, as the processes call it.
pub struct Till(pub Arc<Shop>);

#[derive(Debug, thiserror::Error)]
#[error("the gateway failed")]
struct Failed;

impl Till {
    /// Carries out `deed` and answers, or does only one of the two, or neither.
    async fn call<T: Clone + Send + 'static>(
        &self,
        deed: impl FnOnce(&Arc<Shop>) -> Result<T, Broken> + Send + 'static,
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
                        // The caller may be dead or may have given up.
                        let _ = answer.send(done);
                    }
                    _ => {}
                }
            }),
        );
        answered.await.map_err(|_| GatewayError::Unavailable(Failed.into()))
    }
}

fn id_of(prefix: &str, key: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple())
}

#[async_trait]
impl Gateway for Till {
    async fn create(&self, payment: &NewPayment<'_>) -> Result<Creation, GatewayError> {
        let NewPayment { key, order_id, amount, method } = *payment;
        let (key, method, amount) = (key.to_owned(), method.reveal().to_owned(), amount.amount);
        self.call(move |shop| {
            let clock = shop.world.clock();
            let mut books = shop.books();
            let order =
                books.orders.get(&order_id).ok_or("a payment for an order that does not exist")?;
            if order.total != Some(amount) {
                return Err(format!("order {order_id}: {amount} asked of {:?}", order.total));
            }
            if method == "unknown" {
                return Ok(Creation::Declined("no such method".into()));
            }
            let of_key = books.payments.iter().filter(|(_, payment)| payment.key == key);
            let remembered = of_key.clone().find(|(_, one)| clock < one.created + MEMORY);
            if let Some((id, _)) = remembered {
                return Ok(Creation::Created(id.as_str().into()));
            }
            let id = id_of("pay", &format!("{key}/{}", of_key.count()));
            let payment = Payment {
                order: order_id,
                key,
                created: clock,
                amount,
                method,
                processing: false,
                ending: None,
                refunded: BTreeMap::new(),
                sent_back: None,
            };
            books.payments.insert(id.clone(), payment);
            Ok(Creation::Created(id.into()))
        })
        .await
    }

    async fn capture(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError> {
        let id = payment_id.to_owned();
        self.call(move |shop| {
            let mut books = shop.books();
            let payment = books.payments.get(&id).ok_or("an unknown payment")?;
            if payment.ending.is_some() || payment.processing {
                return Ok(payment.ending.clone());
            }
            let (order_id, method) = (payment.order, payment.method.clone());
            let paid = &books.orders[&order_id].paid;
            if *paid != Some(Paid::Started(id.clone())) {
                return Err(format!("order {order_id}: money moves, but the log says {paid:?}"));
            }
            let payment = books.payments.get_mut(&id).unwrap();
            let ending = match method.as_str() {
                "declined" => Ending::Declined("no".into()),
                "slow" | "slowly declined" => {
                    payment.processing = true;
                    drop(books);
                    process(shop, id);
                    return Ok(None);
                }
                _ => Ending::Captured,
            };
            payment.ending = Some(ending.clone());
            drop(books);
            tell(shop, &id);
            Ok(Some(ending))
        })
        .await
    }

    async fn settle(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError> {
        let id = payment_id.to_owned();
        self.call(move |shop| {
            let mut books = shop.books();
            let order_id = books.payments.get(&id).ok_or("an unknown payment")?.order;
            let status = books.orders[&order_id].status;
            if !status.is_dead() {
                return Err(format!("order {order_id}: {status:?}, but its payment is voided"));
            }
            let payment = books.payments.get_mut(&id).unwrap();
            if payment.processing {
                return Ok(None);
            }
            let ending = Some(payment.ending.get_or_insert(Ending::Voided).clone());
            drop(books);
            tell(shop, &id);
            Ok(ending)
        })
        .await
    }

    async fn refund(
        &self,
        key: &str,
        payment_id: &str,
        amount: Money,
    ) -> Result<Refund, GatewayError> {
        let (id, refund) = (payment_id.to_owned(), id_of("re", key));
        let amount = amount.amount;
        self.call(move |shop| {
            let mut books = shop.books();
            let payment = books.payments.get(&id).ok_or("an unknown payment")?;
            let order_id = payment.order;
            let status = books.orders[&order_id].status;
            if !matches!(status, Status::Cancelled | Status::Rejected) {
                return Err(format!("order {order_id}: {status:?}, but money is refunded"));
            }
            let payment = books.payments.get_mut(&id).unwrap();
            if payment.sent_back.as_ref() != Some(&refund) {
                let is_first = payment.refunded.is_empty() && payment.sent_back.is_none();
                payment.refunded.insert(refund.clone(), amount);
                if payment.balance() < 0 {
                    return Err(format!("order {order_id}: more is refunded than was taken"));
                }
                if is_first && shop.world.once_in(3) {
                    books.refunds_to_fail += 1;
                    drop(books);
                    send_back(shop, order_id, id, refund.clone());
                }
            }
            Ok(Refund::Issued(refund.into()))
        })
        .await
    }

    async fn failed_refund(
        &self,
        key: &str,
        payment_id: &str,
    ) -> Result<Option<FailedRefund>, GatewayError> {
        let (id, refund) = (payment_id.to_owned(), id_of("re", key));
        self.call(move |shop| {
            let books = shop.books();
            let payment = books.payments.get(&id).ok_or("an unknown payment")?;
            let failed = payment.sent_back.as_ref().filter(|failed| **failed == refund);
            let code = "the account is closed".into();
            Ok(failed.map(|failed| FailedRefund { refund_id: failed.as_str().into(), code }))
        })
        .await
    }

    async fn look(&self, payment_id: &str) -> Result<Option<Seen>, GatewayError> {
        let id = payment_id.to_owned();
        self.call(move |shop| {
            let books = shop.books();
            let payment = books.payments.get(&id).ok_or("an unknown payment")?;
            Ok(Some(Seen { order_id: payment.order, ending: payment.ending.clone() }))
        })
        .await
    }
}

/// Sends a refund back some time after the log says that it was made, and tells of it until the log
/// says that it failed.
fn send_back(shop: &Arc<Shop>, order: Uuid, id: String, refund: String) {
    let (world, shop) = (Arc::clone(&shop.world), Arc::clone(shop));
    let pause = Duration::from_millis(world.below(20_000));
    let task = async move {
        loop {
            shop.world.sleep(pause).await;
            {
                let mut books = shop.books();
                if books.orders[&order].refunds_failed > 0 {
                    books.refunds_to_fail -= 1;
                    return;
                }
                if books.orders[&order].paid == Some(Paid::Refunded) {
                    let payment = books.payments.get_mut(&id).unwrap();
                    payment.refunded.remove(&refund);
                    payment.sent_back = Some(refund.clone());
                }
            }
            if let Some(payments) = shop.desk() {
                // It is told again if this is not followed up.
                let _ = payments.follow_up(&id).await;
            }
        }
    };
    world.spawn(OUTSIDE, Box::pin(task));
}

/// Processes a slow payment, which ends later even if the order has ended by then.
fn process(shop: &Arc<Shop>, id: String) {
    let (world, shop) = (Arc::clone(&shop.world), Arc::clone(shop));
    let pause = Duration::from_millis(world.below([100, 20_000, 120_000][below_3(&world)]));
    let task = async move {
        shop.world.sleep(pause).await;
        {
            let mut books = shop.books();
            let payment = books.payments.get_mut(&id).unwrap();
            let declines = payment.method == "slowly declined";
            let ending = if declines { Ending::Declined("no".into()) } else { Ending::Captured };
            (payment.processing, payment.ending) = (false, Some(ending));
        }
        tell(&shop, &id);
    };
    world.spawn(OUTSIDE, Box::pin(task));
}

fn below_3(world: &World) -> usize {
    usize::try_from(world.below(3)).unwrap()
}

/// Sends some process a notice about a payment: never, once or twice, now or much later.
fn tell(shop: &Arc<Shop>, id: &str) {
    let world = &shop.world;
    for _ in 0..below_3(world) {
        let (id, inner) = (id.to_owned(), Arc::clone(shop));
        let pause = Duration::from_millis(world.below([10, 1_000, 60_000][below_3(world)]));
        let task = async move {
            inner.world.sleep(pause).await;
            if let Some(payments) = inner.desk() {
                // Nothing may depend on whether a notice is followed up.
                let _ = payments.follow_up(&id).await;
            }
        };
        world.spawn(OUTSIDE, Box::pin(task));
    }
}
