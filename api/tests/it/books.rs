//! A fold of the log that is independent of the program's code: the invariants of the log, and the
//! expected content of the read models.

mod entries;
mod tables;

pub use entries::{Customer, Order, Product};

use events::{
    Event, Partition, Recorded, email, log::BatchReader, log::Cursor, log::EventLog,
    log::StoredBatch, order, wishlist,
};
use orderlog::audit::audit;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The totals of all events.
#[derive(Debug, Default)]
pub struct Books {
    pub products: BTreeMap<Uuid, Product>,
    pub orders: BTreeMap<Uuid, Order>,
    pub customers: BTreeMap<Uuid, Customer>,
    /// The customer of each address.
    emails: BTreeMap<Uuid, Uuid>,
    /// The wishlist items: customer and product.
    wishlists: BTreeSet<(Uuid, Uuid)>,
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
                assert_eq!(before, None, "two customers have the same address");
            }
            Event::Email(email::Event::Released(released)) => {
                if self.emails.get(&id) == Some(&released.customer_id) {
                    self.emails.remove(&id);
                }
            }
            Event::Wishlist(wishlist::Event::ItemAdded(added)) => {
                let new = self.wishlists.insert((id, added.product_id));
                assert!(new, "a product is on a wishlist twice");
            }
            Event::Wishlist(wishlist::Event::ItemRemoved(removed)) => {
                let there = self.wishlists.remove(&(id, removed.product_id));
                assert!(there, "a product is removed that is not on the wishlist");
            }
            Event::Wishlist(wishlist::Event::Cleared(_)) => {
                self.wishlists.retain(|(customer, _)| *customer != id);
            }
        }
    }

    /// Whether nothing is owed and nothing is pending.
    pub fn is_settled(&self) -> bool {
        self.is_settled_but_for_letters() && self.orders.values().all(|it| it.mails.is_empty())
    }

    /// The same, but e-mails may still be owed.
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

    /// Checks that the gateway took money once for each order that says so, and for no other.
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
        assert!(unknown.is_empty(), "the gateway took money, but no order says so: {unknown:?}");
        let taken: usize = self.orders.values().map(|order| order.captured.len()).sum();
        assert_eq!(captured.len(), taken, "captures in the gateway and in the log");
        let given_back: usize = self.orders.values().map(|order| order.refunded.len()).sum();
        assert_eq!(refunded.len(), given_back, "refunds in the gateway and in the log");
    }

    /// The number of orders with a status.
    pub fn count(&self, status: &str) -> usize {
        self.orders.values().filter(|order| order.status == status).count()
    }
}

/// Asserts that the audit finds nothing.
pub async fn audit_clean(log: &dyn EventLog) {
    let report = audit(log).await.unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
}
