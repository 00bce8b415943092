//! Carries out what orders owe.

use super::{EffectError, Executor, answer_or_refusal, owed_request};
use crate::{
    aggregate::EffectId,
    customer,
    gateway::{Creation, Ending, FailedRefund, GatewayError, NewPayment, Refund},
    order::{
        self, Effect, Price, RecordCaptured, RecordDeclined, RecordRefund, RecordRefundFailed,
        RecordVoided, StartPayment, rejected,
    },
    product::{self, Close, Reserve},
    request::{Outcome, Refusal, Request, State},
};
use events::{
    Money, Partition, Position, StreamId, Timestamp,
    order::{Line, Rejected, RejectionReason},
    planted::Bug,
};
use order::ReservedLine;
use std::sync::Arc;
use uuid::Uuid;

/// What a customer or product answered: a result to go on with, or why to reject the order.
type Verdict<T> = Result<T, Rejected>;

/// What the customer's stream recorded when it opened the order.
struct Opened {
    vip: bool,
    first: bool,
    position: Option<Position>,
}

/// What the products have reserved for the order.
#[derive(Default)]
struct Reserved {
    lines: Vec<ReservedLine>,
    positions: Vec<Position>,
}

/// A refund that an order owes.
pub(super) struct OwedRefund<'a> {
    pub ordinal: u32,
    pub refund: u32,
    pub payment_id: &'a str,
    pub amount: Money,
}

/// The gateway's key of a refund.
pub(super) fn refund_key(order: StreamId, refund: u32) -> String {
    format!("{order}/refund/{refund}")
}

impl Executor {
    pub(super) async fn order_effect(
        &self,
        order: StreamId,
        effect: &Effect,
    ) -> Result<(), EffectError> {
        let id = effect.id();
        match effect {
            Effect::Open { customer_id, lines, not_after } => {
                self.open(order, id, *customer_id, lines, *not_after).await
            }
            Effect::StartPayment { ordinal, amount, method } => {
                let key = format!("{order}/payment/{ordinal}");
                let payment = NewPayment { key: &key, order_id: order.id, amount: *amount, method };
                let created = self
                    .call("create", |gateway| async move { gateway.create(&payment).await })
                    .await?;
                let command = match created {
                    Creation::Created(payment_id) => {
                        StartPayment { ordinal: *ordinal, payment_id }.into()
                    }
                    Creation::Declined(code) => RecordDeclined { ordinal: *ordinal, code }.into(),
                };
                self.send_to_order(order, id, command).await
            }
            Effect::Capture { ordinal, payment_id, amount } => {
                let ending = self
                    .call("capture", |gateway| async move { gateway.capture(payment_id).await })
                    .await?
                    .ok_or(EffectError::UnderWay)?;
                self.send_to_order(order, id, record(*ordinal, *amount, ending)).await
            }
            Effect::Settle { ordinal, payment_id, amount } => {
                let ending = self
                    .call("settle", |gateway| async move { gateway.settle(payment_id).await })
                    .await?
                    .ok_or(EffectError::UnderWay)?;
                self.send_to_order(order, id, record(*ordinal, *amount, ending)).await
            }
            Effect::Refund { ordinal, refund, payment_id, amount } => {
                let owed =
                    OwedRefund { ordinal: *ordinal, refund: *refund, payment_id, amount: *amount };
                self.refund(order, id, owed).await
            }
            Effect::CloseCustomer { customer_id, confirmed, declined, not_after } => {
                let close = customer::CloseOrder {
                    order_id: order.id,
                    confirmed: *confirmed,
                    declined: *declined,
                    not_after: *not_after,
                };
                let customer = StreamId::customer(*customer_id);
                self.send_command(owed_request(
                    order,
                    customer,
                    &id.to_string(),
                    customer::Command::CloseOrder(close),
                ))
                .await?
                .map_err(unexpected)?;
                self.send_to_order(order, id, order::Command::RecordCustomerClosed).await
            }
            Effect::ReleaseStock { lines, not_after } => {
                let close = Close { order_id: order.id, not_after: *not_after };
                self.close_stock(order, id, lines, product::Command::Release(close)).await
            }
            Effect::Mail { mail, customer_id } => {
                self.mail_effect(order, effect, *mail, *customer_id).await
            }
            Effect::ShipStock { lines, not_after } => {
                let close = Close { order_id: order.id, not_after: *not_after };
                self.close_stock(order, id, lines, product::Command::Ship(close)).await
            }
        }
    }

    /// Refunds a payment and records what came of it.
    pub(super) async fn refund(
        &self,
        order: StreamId,
        effect: EffectId,
        owed: OwedRefund<'_>,
    ) -> Result<(), EffectError> {
        let OwedRefund { ordinal, refund, payment_id, amount } = owed;
        let mut key = refund_key(order, refund);
        if Bug::EffectNamedByVersion.is_planted() {
            key = format!("{order}/refund/{}", self.router.state(order).await?.version);
        }
        let answer = self
            .call("refund", |gateway| async move { gateway.refund(&key, payment_id, amount).await })
            .await
            .inspect_err(|error| {
                // A person must see to it that the shop has the money.
                if let EffectError::Gateway(GatewayError::NotNow(cause)) = error {
                    let cause = &**cause as &dyn std::error::Error;
                    tracing::error!(%order, refund, cause, "a refund has to wait");
                    metrics::counter!("orderlog_payment_refunds_deferred_total").increment(1);
                }
            })?;
        match answer {
            Refund::Issued(refund_id) => {
                let issued = RecordRefund { ordinal, refund_id, amount };
                self.send_to_order(order, effect, issued.into()).await
            }
            Refund::Failed(FailedRefund { refund_id, code }) => {
                let issued = RecordRefund { ordinal, refund_id: Arc::clone(&refund_id), amount };
                self.send_to_order(order, effect, issued.into()).await?;
                let refund_id = Some(refund_id);
                let failed = RecordRefundFailed { ordinal, refund, refund_id, code };
                self.record_failed_refund(order, failed).await
            }
            Refund::Refused(code) => {
                let failed = RecordRefundFailed { ordinal, refund, refund_id: None, code };
                self.record_failed_refund(order, failed).await
            }
        }
    }

    /// Records that a refund failed, and tells whoever watches: money is due that the customer does
    /// not have.
    pub(super) async fn record_failed_refund(
        &self,
        order: StreamId,
        failed: RecordRefundFailed,
    ) -> Result<(), EffectError> {
        let RecordRefundFailed { refund, ref refund_id, ref code, .. } = failed;
        let effect = EffectId { name: "refund-failed", ordinal: refund };
        let (refund_id, code) = (refund_id.clone(), Arc::clone(code));
        let request = owed_request(order, order, &effect.to_string(), order::Command::from(failed));
        if let Ok(Outcome { changed: true, .. }) = self.send_command(request).await? {
            let refund_id = refund_id.as_deref();
            tracing::error!(%order, refund, refund_id, %code, "a refund failed");
            metrics::counter!("orderlog_payment_refunds_failed_total").increment(1);
        }
        Ok(())
    }

    /// Sends the command that ends an effect. A refusal means that the order has moved on; what it
    /// owes now is on the board.
    pub(super) async fn send_to_order(
        &self,
        order: StreamId,
        effect: EffectId,
        command: order::Command,
    ) -> Result<(), EffectError> {
        let request = owed_request(order, order, &effect.to_string(), command);
        if let Err(refusal) = self.send_command(request).await? {
            tracing::debug!(%order, %effect, ?refusal, "the order has moved on");
        }
        Ok(())
    }

    /// Asks the customer and the products at the same time, then prices the order or rejects it.
    async fn open(
        &self,
        order: StreamId,
        id: EffectId,
        customer_id: Uuid,
        lines: &[Line],
        not_after: Timestamp,
    ) -> Result<(), EffectError> {
        let customer = self.open_customer(order, customer_id, not_after);
        let products = self.reserve(order, lines, not_after);
        let (customer, products) = futures::future::try_join(customer, products).await?;
        let command = match (customer, products) {
            (Ok(Opened { vip, first, position }), Ok(reserved)) => order::Command::Price(Price {
                vip,
                first,
                discounts: self.rules.discounts,
                lines: reserved.lines.into(),
                rests_on: position.into_iter().chain(reserved.positions).collect(),
            }),
            (Err(rejected), _) | (_, Err(rejected)) => order::Command::Reject(rejected),
        };
        self.send_to_order(order, id, command).await
    }

    async fn open_customer(
        &self,
        order: StreamId,
        customer_id: Uuid,
        not_after: Timestamp,
    ) -> Result<Verdict<Opened>, EffectError> {
        let limits = self.rules.limits;
        let open = customer::OpenOrder { order_id: order.id, not_after, limits };
        let open = customer::Command::OpenOrder(open);
        let request = owed_request(order, StreamId::customer(customer_id), "open/customer", open);
        Ok(match self.send_command(request).await? {
            Ok(Outcome { view, .. }) => {
                let State::Customer(customer) = &view.state else {
                    return Err(EffectError::Unanswered);
                };
                let open = customer.opened(order.id).ok_or(EffectError::Unanswered)?;
                Ok(Opened { vip: open.vip, first: open.first, position: view.position })
            }
            Err(Refusal::Customer(customer::Refusal::OrderClosed)) => {
                Err(rejected(RejectionReason::Expired))
            }
            Err(Refusal::Customer(customer::Refusal::TooManyOpenOrders { .. })) => {
                Err(rejected(RejectionReason::TooManyOpenOrders))
            }
            Err(Refusal::Customer(customer::Refusal::TooManyDeclinedPayments { .. })) => {
                Err(rejected(RejectionReason::TooManyDeclinedPayments))
            }
            Err(_) => Err(rejected(RejectionReason::CustomerNotFound)),
        })
    }

    /// Reserves the lines in the same sequence for every order: by partition, then by product. So
    /// two orders that want the same two products cannot each hold one and miss the other. Stops at
    /// the first refusal.
    async fn reserve(
        &self,
        order: StreamId,
        lines: &[Line],
        not_after: Timestamp,
    ) -> Result<Verdict<Reserved>, EffectError> {
        let mut reserved = Reserved::default();
        for (_, lines) in self.by_partition(lines) {
            let requests = lines.iter().map(|line| {
                let (order_id, quantity) = (order.id, line.quantity);
                let reserve = product::Command::Reserve(Reserve { order_id, quantity, not_after });
                let effect = format!("reserve/{}", line.product_id);
                owed_request(order, StreamId::product(line.product_id), &effect, reserve)
            });
            let answers = self.send_bundle(requests.collect()).await?;
            for (line, answer) in lines.iter().zip(answers) {
                let outcome = match answer_or_refusal(answer)? {
                    Ok(outcome) => outcome,
                    Err(refusal) => return Ok(Err(refused_line(line, &refusal))),
                };
                let State::Product(product) = &outcome.view.state else {
                    return Err(EffectError::Unanswered);
                };
                let reservation = product.reservation(order.id).ok_or(EffectError::Unanswered)?;
                reserved.positions.extend(outcome.view.position);
                reserved.lines.push(ReservedLine {
                    product_id: line.product_id,
                    quantity: reservation.quantity,
                    name: Arc::clone(&reservation.name),
                    unit_price: reservation.unit_price,
                });
            }
        }
        Ok(Ok(reserved))
    }

    /// Closes the order at every product, whether or not something is reserved there.
    async fn close_stock(
        &self,
        order: StreamId,
        effect: EffectId,
        lines: &[Line],
        close: product::Command,
    ) -> Result<(), EffectError> {
        let bundles = self.by_partition(lines).into_iter().map(|(_, lines)| {
            let requests = lines.iter().map(|line| {
                let name = format!("{}/{}", effect.name, line.product_id);
                owed_request(order, StreamId::product(line.product_id), &name, close.clone())
            });
            self.send_bundle(requests.collect())
        });
        for answer in futures::future::try_join_all(bundles).await?.into_iter().flatten() {
            match answer_or_refusal(answer)? {
                // A product that was never added has reserved nothing.
                Ok(_) | Err(Refusal::Product(product::Refusal::NotFound)) => {}
                Err(refusal) => return Err(unexpected(refusal)),
            }
        }
        self.send_to_order(order, effect, order::Command::RecordStockClosed).await
    }

    /// The lines, grouped by the partition of their product, both in ascending order.
    fn by_partition<'l>(&self, lines: &'l [Line]) -> Vec<(Partition, Vec<&'l Line>)> {
        let partition_of =
            |line: &Line| self.router.partition_of(StreamId::product(line.product_id));
        let mut placed: Vec<_> = lines.iter().map(|line| (partition_of(line), line)).collect();
        placed.sort_unstable_by_key(|(partition, line)| (*partition, line.product_id));
        placed
            .chunk_by(|(left, _), (right, _)| left == right)
            .map(|chunk| (chunk[0].0, chunk.iter().map(|&(_, line)| line).collect()))
            .collect()
    }

    /// Sends several commands to one shard, and returns one answer for each.
    async fn send_bundle(
        &self,
        requests: Vec<Request>,
    ) -> Result<Vec<Result<Outcome, crate::request::CommandError>>, EffectError> {
        let asked = requests.len();
        let answers = self.router.send_internal(requests).await;
        if answers.len() == asked { Ok(answers) } else { Err(EffectError::Unanswered) }
    }
}

/// The command that records a payment's final state.
pub(super) fn record(ordinal: u32, amount: Money, ending: Ending) -> order::Command {
    match ending {
        Ending::Captured => RecordCaptured { ordinal, amount }.into(),
        Ending::Received(amount) => RecordCaptured { ordinal, amount }.into(),
        Ending::Declined(code) => RecordDeclined { ordinal, code }.into(),
        Ending::Voided => RecordVoided { ordinal }.into(),
    }
}

/// Why a line could not be reserved, as the order records it.
fn refused_line(line: &Line, refusal: &Refusal) -> Rejected {
    let (reason, available, requested) = match refusal {
        Refusal::Product(product::Refusal::InsufficientStock { available, requested }) => {
            (RejectionReason::InsufficientStock, Some(*available), Some(*requested))
        }
        Refusal::Product(product::Refusal::ReservationClosed) => {
            (RejectionReason::Expired, None, None)
        }
        _ => (RejectionReason::ProductNotFound, None, None),
    };
    Rejected { product_id: Some(line.product_id), available, requested, ..rejected(reason) }
}

/// A close is never refused. If one is, the effect stays owed and the log line shows it.
fn unexpected(refusal: Refusal) -> EffectError {
    crate::request::CommandError::Refused(refusal).into()
}
