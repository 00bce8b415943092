//! The log, told again by other code than the program's: what it must add up to, and what the read
//! models must show.

use events::{
    Event, Partition, Recorded, Timestamp, customer, email, log::BatchReader, log::Cursor,
    log::EventLog, log::StoredBatch, order, product, wishlist,
};
use orderlog::audit::audit;
use serde_json::Value;
use sqlx::{PgPool, Row};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Everything that happened, added up.
#[derive(Debug, Default)]
pub struct Books {
    pub products: BTreeMap<Uuid, Product>,
    pub orders: BTreeMap<Uuid, Order>,
    pub customers: BTreeMap<Uuid, Customer>,
    /// Who holds an address.
    emails: BTreeMap<Uuid, Uuid>,
    /// Customers and what they wish for.
    wishlists: BTreeSet<(Uuid, Uuid)>,
}

#[derive(Debug, Default)]
pub struct Product {
    /// An order can be closed at a product that was never added.
    added: bool,
    discontinued: bool,
    pub received: i64,
    pub on_hand: i64,
    pub shipped: i64,
    /// Units by the order that holds them.
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
    confirmed_at: Option<Timestamp>,
    discount: i64,
    pub payment_ids: BTreeSet<String>,
    open_payments: BTreeSet<u32>,
    captured: Vec<i64>,
    refunded: Vec<i64>,
    customer_settled: bool,
    stock_settled: bool,
    /// Letters that are owed.
    mails: BTreeSet<order::Mail>,
    pub mails_sent: Vec<(order::Mail, String)>,
    pub mails_refused: Vec<(order::Mail, String)>,
}

#[derive(Debug, Default)]
pub struct Customer {
    pub registered: bool,
    pub erased: bool,
    key_destroyed: bool,
    pub orders: u64,
    /// Claims of an address that are neither granted nor closed.
    under_way: i32,
}

impl Product {
    pub fn reserved(&self) -> i64 {
        self.reserved.values().sum()
    }
}

impl Order {
    pub fn is_dead(&self) -> bool {
        ["rejected", "cancelled"].contains(&self.status)
    }

    fn holds_stock(&self) -> bool {
        ["confirmed", "processing"].contains(&self.status)
    }

    fn is_settled(&self) -> bool {
        let money = self.open_payments.is_empty()
            && (!self.is_dead() || self.captured.len() == self.refunded.len());
        let stock = self.stock_settled || self.holds_stock();
        self.status != "pending" && self.customer_settled && money && stock
    }
}

impl Books {
    /// Reads the whole log.
    pub async fn read(log: &dyn EventLog) -> Self {
        let mut books = Self::default();
        for partition in (0..log.partitions()).map(Partition) {
            let mut reader = BatchReader::open(log, partition, Cursor::START).await.unwrap();
            loop {
                let chunk = reader.next().await.unwrap();
                for (position, record) in chunk.batches.iter().flat_map(StoredBatch::positioned) {
                    if record.stream.kind != events::StreamKind::Writer {
                        books.enter(&record.decode(position).unwrap());
                    }
                }
                if chunk.at_end {
                    break;
                }
            }
        }
        books
    }

    fn enter(&mut self, recorded: &Recorded<Event>) {
        let id = recorded.stream.id;
        match &recorded.event {
            Event::Product(event) => self.products.entry(id).or_default().enter(event),
            Event::Order(event) => {
                let order = self.orders.entry(id).or_default();
                order.enter(event);
                if matches!(event, order::Event::Confirmed(_)) {
                    order.confirmed_at = Some(recorded.time);
                }
            }
            Event::Customer(event) => self.customers.entry(id).or_default().enter(event),
            Event::Email(email::Event::Claimed(claimed)) => {
                let before = self.emails.insert(id, claimed.customer_id);
                assert_eq!(before, None, "two customers hold one address");
            }
            Event::Email(email::Event::Released(released)) => {
                if self.emails.get(&id) == Some(&released.customer_id) {
                    self.emails.remove(&id);
                }
            }
            Event::Wishlist(wishlist::Event::ItemAdded(added)) => {
                let new = self.wishlists.insert((id, added.product_id));
                assert!(new, "a product is wished for twice");
            }
            Event::Wishlist(wishlist::Event::ItemRemoved(removed)) => {
                let there = self.wishlists.remove(&(id, removed.product_id));
                assert!(there, "what was not wished for is taken off");
            }
        }
    }

    /// Whether nothing is owed and nothing is pending.
    pub fn is_settled(&self) -> bool {
        self.is_settled_but_for_letters() && self.orders.values().all(|it| it.mails.is_empty())
    }

    /// The same, whatever has become of the letters.
    pub fn is_settled_but_for_letters(&self) -> bool {
        self.orders.values().all(Order::is_settled)
            && self.customers.values().all(|it| it.under_way == 0 && it.erased == it.key_destroyed)
    }

    /// What must hold of every settled log.
    pub fn check(&self) {
        for (id, product) in &self.products {
            let open = self.orders.iter().filter(|(_, order)| order.holds_stock());
            let expected: BTreeMap<Uuid, i64> =
                open.filter_map(|(order, of)| Some((*order, *of.lines.get(id)?))).collect();
            assert_eq!(product.reserved, expected, "reservations of product {id}");
            assert_eq!(
                product.received,
                product.on_hand + product.shipped,
                "stock of product {id}"
            );
        }
        for (id, order) in &self.orders {
            order.check(*id);
        }
        for (id, customer) in &self.customers {
            let own = || self.orders.values().filter(|order| order.customer_id == *id);
            let confirmed: u32 = own().map(|order| order.confirmations).sum();
            assert_eq!(customer.orders, u64::from(confirmed), "orders of customer {id}");
            let first = own().filter(|order| order.first_order_discount && order.confirmations > 0);
            assert!(first.count() <= 1, "customer {id} had the first-order discount twice");
            let addresses = self.emails.values().filter(|holder| *holder == id).count();
            let lives = customer.registered && !customer.erased;
            assert_eq!(addresses, usize::from(lives), "addresses of customer {id}");
        }
    }

    /// The gateway took money once for each order that says so, and for no other.
    pub fn check_journal(&self, journal: &str) {
        let mut captured = BTreeSet::new();
        let mut created = BTreeSet::new();
        let mut refunded = BTreeSet::new();
        for line in journal.lines() {
            let entry: Value = serde_json::from_str(line).unwrap();
            let payment_id = entry["payment_id"].as_str().unwrap().to_owned();
            let new = match entry["did"].as_str().unwrap() {
                "created" => created.insert(entry["key"].as_str().unwrap().to_owned()),
                "captured" => captured.insert(payment_id),
                "refunded" => refunded.insert(entry["refund_id"].as_str().unwrap().to_owned()),
                _ => true,
            };
            assert!(new, "the gateway did this twice: {line}");
        }
        let known: BTreeSet<String> = self
            .orders
            .values()
            .filter(|order| !order.captured.is_empty())
            .flat_map(|order| order.payment_ids.iter().cloned())
            .collect();
        let unknown: Vec<&String> = captured.difference(&known).collect();
        assert!(unknown.is_empty(), "money was taken and no order says so: {unknown:?}");
        let taken: usize = self.orders.values().map(|order| order.captured.len()).sum();
        assert_eq!(captured.len(), taken, "captures in the gateway and in the log");
        let given_back: usize = self.orders.values().map(|order| order.refunded.len()).sum();
        assert_eq!(refunded.len(), given_back, "refunds in the gateway and in the log");
    }

    /// The read models show what the log adds up to.
    pub async fn compare_with_tables(&self, pool: &PgPool) {
        self.compare_products(pool).await;
        self.compare_orders(pool).await;
        self.compare_search_and_wishlists(pool).await;
        self.compare_sales(pool).await;
        let rows = sqlx::query("select customer_id, order_count from read.customers");
        let shown: BTreeMap<Uuid, i64> = rows
            .fetch_all(pool)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get("customer_id"), row.get("order_count")))
            .collect();
        let registered = self.customers.iter().filter(|(_, it)| it.registered || it.erased);
        let expected: BTreeMap<Uuid, i64> =
            registered.map(|(id, customer)| (*id, customer.orders.cast_signed())).collect();
        assert_eq!(shown, expected, "customers in the read model");
    }

    async fn compare_products(&self, pool: &PgPool) {
        let rows = sqlx::query("select product_id, on_hand, reserved, shipped from read.products");
        let shown: BTreeMap<Uuid, [i64; 3]> = rows
            .fetch_all(pool)
            .await
            .unwrap()
            .iter()
            .map(|row| {
                (
                    row.get("product_id"),
                    [row.get("on_hand"), row.get("reserved"), row.get("shipped")],
                )
            })
            .collect();
        let expected: BTreeMap<Uuid, [i64; 3]> = self
            .products
            .iter()
            .filter(|(_, product)| product.added)
            .map(|(id, product)| (*id, [product.on_hand, product.reserved(), product.shipped]))
            .collect();
        assert_eq!(shown, expected, "products in the read model");
    }

    async fn compare_orders(&self, pool: &PgPool) {
        let rows = sqlx::query("select order_id, status, total from read.orders");
        let shown: BTreeMap<Uuid, (String, Option<i64>)> = rows
            .fetch_all(pool)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get("order_id"), (row.get("status"), row.get("total"))))
            .collect();
        let expected: BTreeMap<Uuid, (String, Option<i64>)> = self
            .orders
            .iter()
            .map(|(id, order)| (*id, (order.status.to_owned(), order.total)))
            .collect();
        assert_eq!(shown, expected, "orders in the read model");
    }

    async fn compare_search_and_wishlists(&self, pool: &PgPool) {
        let found: Vec<Uuid> =
            sqlx::query_scalar("select product_id from read.search order by product_id")
                .fetch_all(pool)
                .await
                .unwrap();
        let sold = self.products.iter().filter(|(_, it)| it.added && !it.discontinued);
        assert!(found.iter().eq(sold.map(|(id, _)| id)), "products that can be found");
        let wished: Vec<(Uuid, Uuid)> =
            sqlx::query_as("select customer_id, product_id from read.wishlists order by 1, 2")
                .fetch_all(pool)
                .await
                .unwrap();
        assert!(wished.iter().eq(&self.wishlists), "wishlists in the read model: {wished:?}");
    }

    /// What living orders were confirmed in each hour, and the units of each product in them.
    async fn compare_sales(&self, pool: &PgPool) {
        let hour = |time: Timestamp| time.format("%Y-%m-%d %H").to_string();
        let mut money: BTreeMap<String, [i64; 3]> = BTreeMap::new();
        let mut units: BTreeMap<(String, Uuid), i64> = BTreeMap::new();
        for order in self.orders.values().filter(|order| !order.is_dead()) {
            let Some(confirmed_at) = order.confirmed_at else { continue };
            let sums = money.entry(hour(confirmed_at)).or_default();
            for (sum, one) in sums.iter_mut().zip([1, order.total.unwrap(), order.discount]) {
                *sum += one;
            }
            for (product, quantity) in &order.lines {
                *units.entry((hour(confirmed_at), *product)).or_default() += quantity;
            }
        }
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "select to_char(bucket at time zone 'UTC', 'YYYY-MM-DD HH24'), sum(orders)::bigint, \
             sum(revenue)::bigint, sum(discounts)::bigint from read.sales \
             group by bucket having sum(orders) <> 0",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let shown = rows
            .into_iter()
            .map(|(hour, orders, revenue, discounts)| (hour, [orders, revenue, discounts]));
        assert_eq!(shown.collect::<BTreeMap<_, _>>(), money, "sales in the read model");
        let rows: Vec<(String, Uuid, i64)> = sqlx::query_as(
            "select to_char(bucket at time zone 'UTC', 'YYYY-MM-DD HH24'), product_id, \
             sum(units)::bigint from read.sales_product \
             group by bucket, product_id having sum(units) <> 0",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let shown = rows.into_iter().map(|(hour, product, units)| ((hour, product), units));
        assert_eq!(shown.collect::<BTreeMap<_, _>>(), units, "units sold in the read model");
    }

    /// Orders by status.
    pub fn count(&self, status: &str) -> usize {
        self.orders.values().filter(|order| order.status == status).count()
    }
}

impl Product {
    fn enter(&mut self, event: &product::Event) {
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
                assert_eq!(before, None, "an order holds a product twice");
            }
            product::Event::StockReleased(released) => {
                let held = self.reserved.remove(&released.order_id).unwrap_or_default();
                assert_eq!(held, released.quantity, "released is what was held");
            }
            product::Event::StockShipped(shipped) => {
                let held = self.reserved.remove(&shipped.order_id).unwrap_or_default();
                assert_eq!(held, shipped.quantity, "shipped is what was held");
                self.on_hand -= shipped.quantity;
                self.shipped += shipped.quantity;
            }
        }
        assert!(self.reserved() <= self.on_hand, "sold more than there is: {self:?}");
    }
}

impl Order {
    fn enter(&mut self, event: &order::Event) {
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
                assert!(self.mails.remove(&sent.mail), "a letter nobody was owed: {sent:?}");
                self.mails_sent.push((sent.mail, sent.message_id.to_string()));
            }
            order::Event::MailRefused(refused) => {
                assert!(self.mails.remove(&refused.mail), "a letter nobody was owed: {refused:?}");
                self.mails_refused.push((refused.mail, refused.code.to_string()));
            }
        }
    }

    fn owe(&mut self, owed: bool, mail: order::Mail) {
        assert!(!owed || self.mails.insert(mail), "a letter is owed twice");
    }

    fn check(&self, id: Uuid) {
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
    fn enter(&mut self, event: &customer::Event) {
        match event {
            customer::Event::RegistrationRequested(_)
            | customer::Event::EmailChangeRequested(_) => {
                self.under_way += 1;
            }
            customer::Event::Registered(_) => {
                self.registered = true;
                self.under_way -= 1;
            }
            // What was asked for, or held before, is still to be let go.
            customer::Event::RegistrationRefused(_)
            | customer::Event::EmailChanged(_)
            | customer::Event::EmailChangeRefused(_)
            | customer::Event::Changed(_)
            | customer::Event::OrderOpened(_) => {}
            customer::Event::EmailSettled(_) => self.under_way -= 1,
            // The registration, if it was under way, and else the address: let go.
            customer::Event::Erased(_) => {
                self.erased = true;
                self.under_way += i32::from(self.registered);
            }
            customer::Event::KeyDestroyed(_) => self.key_destroyed = true,
            customer::Event::OrderClosed(closed) => self.orders += u64::from(closed.confirmed),
        }
    }
}

/// Asserts that the audit finds nothing.
pub async fn audit_clean(log: &dyn EventLog) {
    let report = audit(log).await.unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
}
