//! Folds the events of orders to one row per order.

use super::{CopyRows, Fold, file::Stored};
use anyhow::{Context, Result};
use events::{
    Event, Money, Sealed, Timestamp,
    order::{Event as E, Placed, Priced},
};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use uuid::Uuid;

/// The orders by id.
#[derive(Default)]
pub struct Orders(FxHashMap<Uuid, Order>);

struct Order {
    partition: i32,
    version: i64,
    shown_version: i64,
    placed: Placed,
    priced: Option<Priced>,
    status: &'static str,
    payment: &'static str,
    payment_id: Option<Arc<str>>,
    reason: Option<Arc<str>>,
    sealed_reason: Option<Sealed>,
    placed_at: Timestamp,
    updated_at: Timestamp,
}

impl Fold for Orders {
    fn take(&mut self, stored: &Stored<'_>, event: Event) -> Result<Option<Event>> {
        let Event::Order(event) = event else { return Ok(Some(event)) };
        if let E::Placed(placed) = event {
            self.0.insert(stored.stream.id, Order::new(stored, placed));
            return Ok(None);
        }
        let order =
            self.0.get_mut(&stored.stream.id).context("an order has events but was not placed")?;
        order.version = stored.version;
        if !event.is_bookkeeping() {
            (order.shown_version, order.updated_at) = (stored.version, stored.time);
        }
        order.apply(event);
        Ok(None)
    }

    fn rows(&mut self, row: &mut CopyRows) -> Result<u64> {
        for (id, order) in &self.0 {
            order.row(*id, row)?;
        }
        Ok(self.0.len() as u64)
    }
}

impl Order {
    fn new(stored: &Stored<'_>, placed: Placed) -> Self {
        Self {
            partition: stored.partition,
            version: stored.version,
            shown_version: stored.version,
            placed,
            priced: None,
            status: "pending",
            payment: "none",
            payment_id: None,
            reason: None,
            sealed_reason: None,
            placed_at: stored.time,
            updated_at: stored.time,
        }
    }

    fn apply(&mut self, event: E) {
        match event {
            E::Priced(priced) => self.priced = Some(priced),
            E::Rejected(rejected) => {
                self.status = "rejected";
                self.reason = Some(rejected.reason.as_str().into());
            }
            E::PaymentStarted(started) => {
                self.payment_id = Some(started.payment_id);
                self.payment = "started";
            }
            E::PaymentCaptured(_) => self.payment = "captured",
            E::PaymentDeclined(_) => self.payment = "declined",
            E::PaymentVoided(_) => self.payment = "voided",
            E::RefundIssued(_) => self.payment = "refunded",
            E::RefundFailed(_) => self.payment = "refund_failed",
            E::Confirmed(_) => self.status = "confirmed",
            E::ProcessingStarted(_) => self.status = "processing",
            E::Shipped(_) => self.status = "shipped",
            E::Delivered(_) => self.status = "delivered",
            E::Cancelled(cancelled) => {
                self.status = "cancelled";
                self.reason = cancelled.plain_reason;
                self.sealed_reason = cancelled.reason;
            }
            _ => {}
        }
    }

    /// Appends the row, with the columns in the order of the table.
    fn row(&self, id: Uuid, row: &mut CopyRows) -> Result<()> {
        let priced = self.priced.as_ref();
        let amount = |of: fn(&Priced) -> Money| priced.map(|it| of(it).amount.to_be_bytes());
        row.begin(20);
        row.put(id.as_bytes());
        row.put(&self.partition.to_be_bytes());
        row.int(self.version);
        row.int(self.shown_version);
        row.put(self.placed.customer_id.as_bytes());
        row.put(self.status.as_bytes());
        match priced {
            Some(priced) => row.put(&serde_json::to_vec(&priced.lines)?),
            None => row.put(&serde_json::to_vec(&self.placed.lines)?),
        }
        row.optional(priced.map(|it| it.total.currency.code().as_bytes()));
        row.optional(amount(|it| it.subtotal).as_ref().map(<[u8; 8]>::as_slice));
        row.optional(amount(|it| it.discount).as_ref().map(<[u8; 8]>::as_slice));
        match priced {
            Some(priced) => row.put(&serde_json::to_vec(&priced.discounts)?),
            None => row.put(b"[]"),
        }
        row.optional(amount(|it| it.total).as_ref().map(<[u8; 8]>::as_slice));
        row.put(self.placed.payment_method.reveal().as_bytes());
        row.optional(self.payment_id.as_deref().map(str::as_bytes));
        row.put(self.payment.as_bytes());
        row.optional(self.reason.as_deref().map(str::as_bytes));
        row.optional(self.sealed_reason.as_ref().map(|it| it.as_str().as_bytes()));
        row.optional(self.placed.shipping_address.as_ref().map(|at| at.as_str().as_bytes()));
        row.time(self.placed_at);
        row.time(self.updated_at);
        Ok(())
    }
}
