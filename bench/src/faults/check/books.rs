//! Adds up the events to stock, money, orders and customers, and checks the invariants that must
//! hold at any time and at the end.

use super::{Violations, log::Event};
use events::StreamKind;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The totals of all events.
#[derive(Default)]
pub struct Books {
    /// The products by id.
    pub products: BTreeMap<Uuid, Product>,
    /// The orders by id.
    pub orders: BTreeMap<Uuid, Order>,
    /// The customers by id.
    pub customers: BTreeMap<Uuid, Customer>,
    emails: BTreeMap<Uuid, Uuid>,
}

/// A product.
#[derive(Clone, Default)]
pub struct Product {
    /// Whether the product was added. An order can also be closed at a product that was never
    /// added.
    pub added: bool,
    /// Units on hand.
    pub on_hand: i64,
    /// Units shipped.
    pub shipped: i64,
    received: i64,
    /// Reserved units by order.
    reservations: BTreeMap<Uuid, i64>,
    /// On hand, reserved and shipped after each version.
    pub balances: Vec<[i64; 3]>,
}

/// An order.
#[derive(Clone, Default)]
pub struct Order {
    /// The current status.
    pub status: &'static str,
    /// The status after each version.
    pub statuses: Vec<&'static str>,
    /// The total, once the order is priced.
    pub total: Option<i64>,
    customer: Uuid,
    lines: BTreeMap<Uuid, i64>,
    /// Why the order was rejected.
    pub reason: Option<String>,
    confirmed: u32,
    payments: BTreeMap<String, i64>,
    open_payments: i32,
    captured: Vec<i64>,
    refunded: Vec<i64>,
    reduced_first: bool,
    closed_at_customer: bool,
    closed_at_products: bool,
}

/// A customer.
#[derive(Clone, Default)]
pub struct Customer {
    /// Whether the customer got the address.
    pub registered: bool,
    /// Whether the address belonged to another customer.
    pub refused: bool,
    /// Number of confirmed orders.
    pub orders: i64,
    /// Open requests for an address.
    requests: i32,
}

impl Product {
    /// Units reserved for orders.
    pub fn reserved(&self) -> i64 {
        self.reservations.values().sum()
    }
}

impl Order {
    fn is_dead(&self) -> bool {
        ["rejected", "cancelled"].contains(&self.status)
    }

    fn holds_stock(&self) -> bool {
        ["confirmed", "processing"].contains(&self.status)
    }

    /// What the shop still owes for this order.
    fn owes(&self) -> Option<&'static str> {
        let refunds = self.is_dead() && self.captured.len() != self.refunded.len();
        [
            (self.status == "pending", "is still pending"),
            (self.open_payments != 0, "has an open payment"),
            (refunds, "owes a refund"),
            (!self.closed_at_customer, "is not closed at its customer"),
            (!self.closed_at_products && !self.holds_stock(), "is not closed at its products"),
        ]
        .into_iter()
        .find_map(|(owes, what)| owes.then_some(what))
    }
}

fn uuid(value: &Value) -> Uuid {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

impl Books {
    /// Adds up all events, and checks the invariants after each event.
    pub fn of(events: &[Event], violations: &mut Violations) -> Self {
        let mut books = Self::default();
        for event in events {
            books.enter(event, violations);
        }
        books
    }

    fn enter(&mut self, event: &Event, violations: &mut Violations) {
        let id = event.stream.id;
        let wrong = match event.stream.kind {
            StreamKind::Product => self.products.entry(id).or_default().enter(event),
            StreamKind::Order => self.orders.entry(id).or_default().enter(event),
            StreamKind::Customer => self.customers.entry(id).or_default().enter(event),
            StreamKind::Email => self.enter_email(id, event),
            StreamKind::Writer | StreamKind::Wishlist => None,
        };
        if let Some(wrong) = wrong {
            let (name, stream) = (&event.name, event.stream);
            violations.add(format!("{wrong}: {name} of {stream}, version {}", event.version));
        }
    }

    fn enter_email(&mut self, id: Uuid, event: &Event) -> Option<&'static str> {
        let customer = uuid(&event.body["customer_id"]);
        if event.name == "EmailClaimed" {
            return self.emails.insert(id, customer).map(|_| "two customers have the same address");
        }
        if self.emails.get(&id) == Some(&customer) {
            self.emails.remove(&id);
        }
        None
    }

    /// The first piece of unfinished work, if there is any.
    pub fn unfinished(&self) -> Option<String> {
        let order = self
            .orders
            .iter()
            .find_map(|(id, order)| order.owes().map(|what| format!("order {id} {what}")));
        order.or_else(|| {
            let (id, _) = self.customers.iter().find(|(_, customer)| customer.requests != 0)?;
            Some(format!("customer {id} waits for an address"))
        })
    }

    /// Checks the invariants of a log without unfinished work.
    pub fn check(&self, violations: &mut Violations) {
        for (id, order) in &self.orders {
            if let Some(what) = order.owes() {
                violations.add(format!("order {id} was not finished: it {what}"));
            }
            check_money(*id, order, violations);
        }
        let mut expected: BTreeMap<Uuid, BTreeMap<Uuid, i64>> = BTreeMap::new();
        for (id, order) in self.orders.iter().filter(|(_, order)| order.holds_stock()) {
            for (product, quantity) in &order.lines {
                expected.entry(*product).or_default().insert(*id, *quantity);
            }
        }
        for (id, product) in &self.products {
            if product.reservations != expected.remove(id).unwrap_or_default() {
                violations.add(format!("the reservations of product {id} do not match its orders"));
            }
            if product.received != product.on_hand + product.shipped {
                violations.add(format!("the stock of product {id} does not add up"));
            }
        }
        self.check_customers(violations);
    }

    fn check_customers(&self, violations: &mut Violations) {
        let mut confirmed: BTreeMap<Uuid, (i64, u32)> = BTreeMap::new();
        for order in self.orders.values().filter(|order| order.confirmed > 0) {
            let sums = confirmed.entry(order.customer).or_default();
            sums.0 += 1;
            sums.1 += u32::from(order.reduced_first);
        }
        let mut addresses: BTreeMap<Uuid, usize> = BTreeMap::new();
        for holder in self.emails.values() {
            *addresses.entry(*holder).or_default() += 1;
        }
        for (id, customer) in &self.customers {
            let (orders, first) = confirmed.get(id).copied().unwrap_or_default();
            if customer.orders != orders {
                violations.add(format!(
                    "customer {id} has {orders} confirmed orders, but counts {}",
                    customer.orders
                ));
            }
            if first > 1 {
                violations.add(format!("customer {id} had the first-order discount {first} times"));
            }
            let count = addresses.get(id).copied().unwrap_or_default();
            if count != usize::from(customer.registered) {
                violations.add(format!("customer {id} has {count} addresses"));
            }
        }
    }

    /// Checks that the gateway took money once for each order that says so, and for no other.
    /// Returns the sums taken and refunded.
    pub fn check_journal(&self, journal: &str, violations: &mut Violations) -> [i64; 2] {
        let (mut created, mut captured, mut refunded) =
            (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        for line in journal.lines() {
            let Ok(entry) = serde_json::from_str::<Value>(line) else {
                violations.add(format!("the gateway's journal has a torn line: {line}"));
                continue;
            };
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let amount = number(&entry["amount"]["amount"]);
            let new = match entry["did"].as_str().unwrap_or_default() {
                "created" => created.insert(text("key")),
                "captured" => captured.insert(text("payment_id"), amount).is_none(),
                "refunded" => refunded.insert(text("refund_id"), amount).is_none(),
                _ => true,
            };
            if !new {
                violations.doubled(&format!("the gateway did this twice: {line}"));
            }
        }
        let mut known = BTreeMap::new();
        for order in self.orders.values().filter(|order| !order.captured.is_empty()) {
            known.extend(order.payments.clone());
        }
        for (payment, amount) in &captured {
            if known.get(payment) != Some(amount) {
                violations.add(format!(
                    "payment {payment}: the gateway took {amount}, but no order says so"
                ));
            }
        }
        let taken: i64 = captured.values().sum();
        let returned: i64 = refunded.values().sum();
        let living = self.orders.values().filter(|order| !order.is_dead());
        let totals: i64 = living.filter_map(|order| order.total).sum();
        if taken - returned != totals {
            violations.add(format!(
                "{taken} taken minus {returned} refunded is not the total {totals} of all orders"
            ));
        }
        [taken, returned]
    }
}

fn check_money(id: Uuid, order: &Order, violations: &mut Violations) {
    let expected: Vec<i64> = order.total.into_iter().filter(|total| *total > 0).collect();
    let right = if order.is_dead() {
        order.captured == order.refunded
    } else {
        order.captured == expected && order.refunded.is_empty()
    };
    if !right {
        let Order { status, total, captured, refunded, .. } = order;
        violations.add(format!(
            "order {id} ({status}, {total:?}): captured {captured:?}, refunded {refunded:?}"
        ));
    }
    if order.confirmed > 1 {
        violations.doubled(&format!("order {id} was confirmed {} times", order.confirmed));
    }
}

impl Product {
    fn enter(&mut self, event: &Event) -> Option<&'static str> {
        let (body, quantity) = (&event.body, number(&event.body["quantity"]));
        let order = uuid(&body["order_id"]);
        let mut wrong = None;
        match event.name.as_str() {
            "ProductAdded" => {
                self.added = true;
                self.received += number(&body["initial_stock"]);
                self.on_hand += number(&body["initial_stock"]);
            }
            "StockChanged" => {
                self.received += quantity;
                self.on_hand += quantity;
            }
            "StockReserved" => {
                let twice = self.reservations.insert(order, quantity).is_some();
                wrong = twice.then_some("an order has two reservations of a product");
            }
            "StockReleased" | "StockShipped" => {
                let reserved = self.reservations.remove(&order).unwrap_or_default();
                wrong = (reserved != quantity).then_some("a quantity other than the reserved one");
                if event.name == "StockShipped" {
                    self.on_hand -= quantity;
                    self.shipped += quantity;
                }
            }
            _ => {}
        }
        self.balances.push([self.on_hand, self.reserved(), self.shipped]);
        wrong.or_else(|| (self.reserved() > self.on_hand).then_some("oversold"))
    }
}

impl Order {
    fn enter(&mut self, event: &Event) -> Option<&'static str> {
        let body = &event.body;
        let amount = number(&body["amount"]["amount"]);
        let mut wrong = None;
        match event.name.as_str() {
            "OrderPlaced" => {
                wrong = (!self.status.is_empty()).then_some("placed twice");
                self.status = "pending";
                self.customer = uuid(&body["customer_id"]);
                for line in body["lines"].as_array().into_iter().flatten() {
                    self.lines.insert(uuid(&line["product_id"]), number(&line["quantity"]));
                }
            }
            "OrderPriced" => {
                self.total = body["total"]["amount"].as_i64();
                let discounts = body["discounts"].as_array().into_iter().flatten();
                self.reduced_first = discounts.into_iter().any(|one| one["kind"] == "first_order");
            }
            "PaymentStarted" => {
                let payment = body["payment_id"].as_str().unwrap_or_default().to_owned();
                self.payments.insert(payment, amount);
                self.open_payments += 1;
            }
            "PaymentCaptured" => {
                self.open_payments -= 1;
                self.captured.push(amount);
            }
            "PaymentDeclined" | "PaymentVoided" => self.open_payments -= 1,
            "RefundIssued" => self.refunded.push(amount),
            "RefundFailed" if body["refund_id"].is_string() => _ = self.refunded.pop(),
            "OrderConfirmed" => {
                self.confirmed += 1;
                self.status = "confirmed";
            }
            "OrderProcessingStarted" => self.status = "processing",
            "OrderShipped" => self.status = "shipped",
            "OrderDelivered" => self.status = "delivered",
            "OrderCancelled" => self.status = "cancelled",
            "OrderRejected" => {
                self.status = "rejected";
                self.reason = body["reason"].as_str().map(str::to_owned);
            }
            "OrderCustomerSettled" => self.closed_at_customer = true,
            "OrderStockSettled" => self.closed_at_products = true,
            "MailSent" | "MailRefused" => {}
            _ => wrong = Some("an unknown event"),
        }
        self.statuses.push(self.status);
        wrong
    }
}

impl Customer {
    fn enter(&mut self, event: &Event) -> Option<&'static str> {
        match event.name.as_str() {
            "RegistrationRequested" | "EmailChangeRequested" => self.requests += 1,
            "CustomerRegistered" => {
                self.registered = true;
                self.requests -= 1;
            }
            "RegistrationRefused" => self.refused = true,
            "EmailSettled" => self.requests -= 1,
            "OrderClosed" => self.orders += i64::from(event.body["confirmed"] == true),
            _ => {}
        }
        None
    }
}
