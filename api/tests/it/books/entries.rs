//! The state of a product, an order and a customer after each event.

use events::{Timestamp, customer, order, product};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

#[derive(Debug, Default)]
pub struct Product {
    /// Whether the product was added. An order can also be closed at a product that was never
    /// added.
    pub added: bool,
    pub discontinued: bool,
    pub received: i64,
    pub on_hand: i64,
    pub shipped: i64,
    /// Reserved units by order.
    pub reserved: BTreeMap<Uuid, i64>,
}

#[derive(Debug, Default)]
pub struct Order {
    pub customer_id: Uuid,
    pub lines: BTreeMap<Uuid, i64>,
    pub status: &'static str,
    pub total: Option<i64>,
    pub first_order_discount: bool,
    pub confirmations: u32,
    pub confirmed_at: Option<Timestamp>,
    pub discount: i64,
    pub payment_ids: BTreeSet<String>,
    pub open_payments: BTreeSet<u32>,
    pub captured: Vec<i64>,
    pub refunded: Vec<i64>,
    pub customer_settled: bool,
    pub stock_settled: bool,
    /// The e-mails that are owed.
    pub mails: BTreeSet<order::Mail>,
    pub mails_sent: Vec<(order::Mail, String)>,
    pub mails_refused: Vec<(order::Mail, String)>,
}

#[derive(Debug, Default)]
pub struct Customer {
    pub registered: bool,
    pub erased: bool,
    pub key_destroyed: bool,
    pub orders: u64,
    /// The number of open requests for an address.
    pub under_way: i32,
}

impl Product {
    pub fn reserved(&self) -> i64 {
        self.reserved.values().sum()
    }

    pub fn enter(&mut self, event: &product::Event) {
        match event {
            product::Event::Added(added) => {
                self.added = true;
                self.received += added.initial_stock;
                self.on_hand += added.initial_stock;
            }
            product::Event::Changed(_) => {}
            product::Event::Discontinued(_) => self.discontinued = true,
            product::Event::StockChanged(changed) => {
                self.received += changed.quantity;
                self.on_hand += changed.quantity;
            }
            product::Event::StockReserved(reserved) => {
                let before = self.reserved.insert(reserved.order_id, reserved.quantity);
                assert_eq!(before, None, "an order has two reservations of a product");
            }
            product::Event::StockReleased(released) => {
                let held = self.reserved.remove(&released.order_id).unwrap_or_default();
                assert_eq!(held, released.quantity, "the released units are the reserved ones");
            }
            product::Event::StockShipped(shipped) => {
                let held = self.reserved.remove(&shipped.order_id).unwrap_or_default();
                assert_eq!(held, shipped.quantity, "the shipped units are the reserved ones");
                self.on_hand -= shipped.quantity;
                self.shipped += shipped.quantity;
            }
        }
        assert!(self.reserved() <= self.on_hand, "oversold: {self:?}");
    }
}

impl Order {
    pub fn is_dead(&self) -> bool {
        ["rejected", "cancelled"].contains(&self.status)
    }

    pub fn holds_stock(&self) -> bool {
        ["confirmed", "processing"].contains(&self.status)
    }

    pub fn is_settled(&self) -> bool {
        let money = self.open_payments.is_empty()
            && (!self.is_dead() || self.captured.len() == self.refunded.len());
        let stock = self.stock_settled || self.holds_stock();
        self.status != "pending" && self.customer_settled && money && stock
    }

    pub fn enter(&mut self, event: &order::Event) {
        match event {
            order::Event::Placed(placed) => {
                self.customer_id = placed.customer_id;
                self.lines =
                    placed.lines.iter().map(|line| (line.product_id, line.quantity)).collect();
                self.status = "pending";
            }
            order::Event::Priced(priced) => {
                self.total = Some(priced.total.amount);
                self.discount = priced.discount.amount;
                self.first_order_discount =
                    priced.discounts.iter().any(|one| one.kind == order::DiscountKind::FirstOrder);
            }
            order::Event::PaymentStarted(started) => {
                self.open_payments.insert(started.ordinal);
                self.payment_ids.insert(started.payment_id.to_string());
            }
            order::Event::PaymentCaptured(captured) => {
                self.open_payments.remove(&captured.ordinal);
                self.captured.push(captured.amount.amount);
            }
            order::Event::PaymentDeclined(order::PaymentDeclined { ordinal, .. })
            | order::Event::PaymentVoided(order::PaymentVoided { ordinal }) => {
                self.open_payments.remove(ordinal);
            }
            order::Event::RefundIssued(refund) => self.refunded.push(refund.amount.amount),
            order::Event::RefundFailed(failed) => {
                if failed.refund_id.is_some() {
                    self.refunded.pop();
                }
            }
            order::Event::Confirmed(confirmed) => {
                self.owe(confirmed.mail, order::Mail::Confirmed);
                self.confirmations += 1;
                self.status = "confirmed";
            }
            order::Event::ProcessingStarted(_) => self.status = "processing",
            order::Event::Shipped(shipped) => {
                self.owe(shipped.mail, order::Mail::Shipped);
                self.status = "shipped";
            }
            order::Event::Delivered(_) => self.status = "delivered",
            order::Event::Cancelled(cancelled) => {
                self.owe(cancelled.mail, order::Mail::Cancelled);
                self.status = "cancelled";
            }
            order::Event::Rejected(_) => self.status = "rejected",
            order::Event::CustomerSettled(_) => self.customer_settled = true,
            order::Event::StockSettled(_) => self.stock_settled = true,
            order::Event::MailSent(sent) => {
                assert!(self.mails.remove(&sent.mail), "an e-mail that was not owed: {sent:?}");
                self.mails_sent.push((sent.mail, sent.message_id.to_string()));
            }
            order::Event::MailRefused(refused) => {
                assert!(
                    self.mails.remove(&refused.mail),
                    "an e-mail that was not owed: {refused:?}"
                );
                self.mails_refused.push((refused.mail, refused.code.to_string()));
            }
        }
    }

    fn owe(&mut self, owed: bool, mail: order::Mail) {
        assert!(!owed || self.mails.insert(mail), "an e-mail is owed twice");
    }

    pub fn check(&self, id: Uuid) {
        assert!(self.confirmations <= 1, "order {id} was confirmed twice");
        if self.is_dead() {
            assert_eq!(self.captured, self.refunded, "money of dead order {id}");
        } else {
            let total: Vec<i64> = self.total.into_iter().filter(|total| *total > 0).collect();
            assert_eq!(self.captured, total, "money of order {id}");
            assert!(self.refunded.is_empty(), "a refund of order {id}");
        }
    }
}

impl Customer {
    pub fn enter(&mut self, event: &customer::Event) {
        match event {
            customer::Event::RegistrationRequested(_)
            | customer::Event::EmailChangeRequested(_) => {
                self.under_way += 1;
            }
            customer::Event::Registered(_) => {
                self.registered = true;
                self.under_way -= 1;
            }
            // The requested address, or the previous one, is still to be released.
            customer::Event::RegistrationRefused(_)
            | customer::Event::EmailChanged(_)
            | customer::Event::EmailChangeRefused(_)
            | customer::Event::Changed(_)
            | customer::Event::OrderOpened(_) => {}
            customer::Event::EmailSettled(_) => self.under_way -= 1,
            // Release the requested address if the registration was in progress, else the
            // customer's address.
            customer::Event::Erased(_) => {
                self.erased = true;
                self.under_way += i32::from(self.registered);
            }
            customer::Event::KeyDestroyed(_) => self.key_destroyed = true,
            customer::Event::OrderClosed(closed) => self.orders += u64::from(closed.confirmed),
        }
    }
}
