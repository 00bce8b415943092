//! Checks orders: legal status changes, one payment, and a refund of every captured payment of a
//! dead order.

use super::{Books, Broken, amount};
use commands::gateway::Ending;
use events::{
    Timestamp,
    order::{DiscountKind, Event, Mail, Priced, RejectionReason},
};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Pending,
    Confirmed,
    Processing,
    Shipped,
    Delivered,
    Cancelled,
    Rejected,
}

impl Status {
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Cancelled | Self::Rejected)
    }

    pub fn holds_stock(self) -> bool {
        matches!(self, Self::Confirmed | Self::Processing)
    }

    pub fn has_left_the_house(self) -> bool {
        matches!(self, Self::Shipped | Self::Delivered)
    }
}

/// An order's payment, according to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paid {
    Started(String),
    Captured(String),
    Refunded,
    Never,
}

#[derive(Clone, Debug)]
pub struct Order {
    pub customer: Uuid,
    pub lines: BTreeMap<Uuid, i64>,
    pub method: String,
    pub deadline: Timestamp,
    pub not_after: Timestamp,
    pub status: Status,
    /// The total, once the order is priced.
    pub total: Option<i64>,
    pub paid: Option<Paid>,
    pub was_confirmed: bool,
    pub rejection: Option<RejectionReason>,
    pub refunds_failed: u32,
    pub stock_settled: bool,
    pub customer_settled: bool,
    /// The letters that events asked for.
    pub mails: BTreeMap<Mail, OwedLetter>,
}

/// A letter that an event asked for.
#[derive(Clone, Debug, Default)]
pub struct OwedLetter {
    /// When its result was recorded.
    pub recorded: Option<Duration>,
    /// Why it was never sent.
    pub code: Option<String>,
}

impl Books {
    pub(super) fn fold_order(
        &mut self,
        id: Uuid,
        event: &Event,
        clock: Duration,
    ) -> Result<(), Broken> {
        if let Event::Placed(placed) = event {
            let order = Order {
                customer: placed.customer_id,
                lines: placed.lines.iter().map(|line| (line.product_id, line.quantity)).collect(),
                method: placed.payment_method.reveal().to_owned(),
                deadline: placed.deadline,
                not_after: placed.not_after,
                status: Status::Pending,
                total: None,
                paid: None,
                was_confirmed: false,
                rejection: None,
                refunds_failed: 0,
                stock_settled: false,
                customer_settled: false,
                mails: BTreeMap::new(),
            };
            ensure!(self.orders.insert(id, order).is_none(), "the order is placed twice");
            return Ok(());
        }
        let mut order = self.orders.get(&id).cloned().ok_or("the order was never placed")?;
        self.step(id, &mut order, event)?;
        order.write(event, clock)?;
        self.orders.insert(id, order);
        Ok(())
    }

    fn step(&self, id: Uuid, order: &mut Order, event: &Event) -> Result<(), Broken> {
        match event {
            Event::Placed(_) | Event::MailSent(_) | Event::MailRefused(_) => {}
            Event::Priced(priced) => self.price(id, order, priced)?,
            Event::PaymentStarted(started) => {
                ensure!(
                    order.status == Status::Pending,
                    "a payment starts while the order is {:?}",
                    order.status
                );
                ensure!(order.paid.is_none(), "a second payment");
                order.paid = Some(Paid::Started(started.payment_id.to_string()));
            }
            Event::PaymentCaptured(captured) => {
                let payment_id = order.started()?;
                let ending = self.payments.get(&payment_id).and_then(|found| found.ending.clone());
                ensure!(ending == Some(Ending::Captured), "the gateway says {ending:?}");
                let taken = Some(amount(captured.amount));
                ensure!(taken == order.total, "{taken:?} was taken of {:?}", order.total);
                order.paid = Some(Paid::Captured(payment_id));
            }
            Event::PaymentDeclined(_) if order.paid.is_none() => {
                ensure!(order.method == "unknown", "declined before it was created");
                order.paid = Some(Paid::Never);
            }
            Event::PaymentDeclined(_) | Event::PaymentVoided(_) => {
                let payment_id = order.started()?;
                let ending = self.payments.get(&payment_id).and_then(|found| found.ending.clone());
                let taken = matches!(ending, None | Some(Ending::Captured));
                ensure!(!taken, "the gateway says {ending:?}");
                order.paid = Some(Paid::Never);
            }
            Event::RefundIssued(refund) => {
                let paid = order.paid.clone();
                ensure!(matches!(paid, Some(Paid::Captured(_))), "a refund of {paid:?}");
                ensure!(Some(amount(refund.amount)) == order.total, "a refund of another sum");
                order.paid = Some(Paid::Refunded);
            }
            Event::RefundFailed(failed) => {
                ensure!(order.paid == Some(Paid::Refunded), "a refund fails that was not made");
                ensure!(failed.again && order.refunds_failed == 0, "it is made again, once");
                let of = self.payments.iter().filter(|(_, payment)| payment.order == id);
                let sent_back = of.clone().find(|(_, payment)| payment.sent_back.is_some());
                let (payment_id, _) = sent_back.ok_or("the bank has sent nothing back")?;
                order.paid = Some(Paid::Captured(payment_id.clone()));
                order.refunds_failed += 1;
            }
            Event::Rejected(rejected) => {
                order.rejection = Some(rejected.reason);
                order.moves(&[Status::Pending], Status::Rejected)?;
            }
            Event::Confirmed(_) => {
                let free = order.total == Some(0);
                let paid = matches!(order.paid, Some(Paid::Captured(_)));
                ensure!(free || paid, "confirmed, but the payment is {:?}", order.paid);
                self.holds_all(id, order)?;
                order.was_confirmed = true;
                order.moves(&[Status::Pending], Status::Confirmed)?;
            }
            Event::ProcessingStarted(_) => order.moves(&[Status::Confirmed], Status::Processing)?,
            Event::Shipped(_) => {
                self.holds_all(id, order)?;
                order.moves(&[Status::Confirmed, Status::Processing], Status::Shipped)?;
            }
            Event::Delivered(_) => order.moves(&[Status::Shipped], Status::Delivered)?,
            Event::Cancelled(_) => {
                let alive = [Status::Pending, Status::Confirmed, Status::Processing];
                order.moves(&alive, Status::Cancelled)?;
            }
            Event::CustomerSettled(_) => {
                let customer = self.customers.get(&order.customer);
                let closed = customer.is_some_and(|customer| customer.closed.contains_key(&id));
                ensure!(closed, "recorded as closed at the customer, who has not closed it");
                order.customer_settled = true;
            }
            Event::StockSettled(_) => {
                for product in order.lines.keys() {
                    let knows =
                        self.products.get(product).map(|found| found.closed.contains_key(&id));
                    ensure!(
                        knows != Some(false),
                        "recorded as closed at product {product}, which has not closed it"
                    );
                }
                order.stock_settled = true;
            }
        }
        Ok(())
    }

    fn price(&self, id: Uuid, order: &mut Order, priced: &Priced) -> Result<(), Broken> {
        ensure!(order.status == Status::Pending && order.total.is_none(), "priced again");
        self.holds_all(id, order)?;
        let customer = self.customers.get(&order.customer).ok_or("its customer does not exist")?;
        let first = *customer.open.get(&id).ok_or("the order is not open at its customer")?;
        let given = priced.discounts.iter().any(|part| part.kind == DiscountKind::FirstOrder);
        ensure!(first || !given, "the first-order discount for an order that is not the first");
        let lines = priced.lines.iter().map(|line| amount(line.unit_price) * line.quantity);
        let subtotal: i64 = lines.sum();
        let (discount, total) = (amount(priced.discount), amount(priced.total));
        ensure!(subtotal == amount(priced.subtotal), "the subtotal is not the sum of the lines");
        ensure!(subtotal - discount == total, "the total is not the subtotal minus the discount");
        ensure!((0..=subtotal * 3 / 10).contains(&discount), "a discount of {discount}");
        order.total = Some(total);
        Ok(())
    }

    fn holds_all(&self, id: Uuid, order: &Order) -> Result<(), Broken> {
        for (product, quantity) in &order.lines {
            let held = self.products.get(product).and_then(|product| product.held.get(&id));
            ensure!(held == Some(quantity), "{held:?} units are reserved of product {product}");
        }
        Ok(())
    }

    pub(super) fn order_at_rest(&self, id: Uuid, order: &Order) -> Result<(), Broken> {
        let Order { status, paid, .. } = order;
        ensure!(*status != Status::Pending, "still pending");
        ensure!(order.customer_settled, "not closed at its customer");
        let holds = status.holds_stock();
        ensure!(
            order.stock_settled != holds,
            "{status:?}: it is closed at its products if and only if it holds no stock"
        );
        let alive = !status.is_dead();
        let (balance, due) = (self.balance(id), if alive { order.total.unwrap_or(0) } else { 0 });
        ensure!(balance == due, "{status:?}: the shop has {balance} but should have {due}");
        let open = matches!(paid, Some(Paid::Started(_)));
        ensure!(!open, "{status:?}, but its payment is still open");
        Ok(())
    }
}

impl Order {
    /// Checks that each letter is asked for once and ends once.
    fn write(&mut self, event: &Event, clock: Duration) -> Result<(), Broken> {
        let asked = match event {
            Event::Confirmed(confirmed) => confirmed.mail.then_some(Mail::Confirmed),
            Event::Shipped(shipped) => shipped.mail.then_some(Mail::Shipped),
            Event::Cancelled(cancelled) => {
                ensure!(
                    cancelled.mail == self.was_confirmed,
                    "a cancellation owes a letter if and only if the order was confirmed"
                );
                cancelled.mail.then_some(Mail::Cancelled)
            }
            Event::MailSent(sent) => return self.ended(sent.mail, clock, None),
            Event::MailRefused(refused) => {
                return self.ended(refused.mail, clock, Some(refused.code.to_string()));
            }
            _ => return Ok(()),
        };
        if let Some(mail) = asked {
            let before = self.mails.insert(mail, OwedLetter::default());
            ensure!(before.is_none(), "a second {mail:?} letter is asked for");
        }
        Ok(())
    }

    fn ended(&mut self, mail: Mail, clock: Duration, code: Option<String>) -> Result<(), Broken> {
        let letter = self.mails.get_mut(&mail).ok_or("a letter that no event asked for")?;
        ensure!(letter.recorded.is_none(), "the {mail:?} letter ends twice");
        *letter = OwedLetter { recorded: Some(clock), code };
        Ok(())
    }

    fn moves(&mut self, from: &[Status], to: Status) -> Result<(), Broken> {
        ensure!(from.contains(&self.status), "from {:?} to {to:?}", self.status);
        self.status = to;
        Ok(())
    }

    fn started(&self) -> Result<String, Broken> {
        match &self.paid {
            Some(Paid::Started(payment_id)) => Ok(payment_id.clone()),
            paid => Err(format!("its payment ends, but was {paid:?}")),
        }
    }
}
