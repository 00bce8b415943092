//! The state of a product.

use crate::{
    aggregate::{At, Shown},
    closed_orders::ClosedOrders,
};
use events::{
    Money, Timestamp,
    product::{Event, StockReserved},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// The product's entry in the catalogue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// The name.
    pub name: Arc<str>,
    /// A description.
    pub description: Option<Arc<str>>,
    /// The category.
    pub category: Option<Arc<str>>,
    /// The price of one unit.
    pub price: Money,
}

/// Makes a listing from an event that contains all of its fields.
macro_rules! listing {
    ($event:expr) => {
        Arc::new(Listing {
            name: Arc::clone(&$event.name),
            description: $event.description.clone(),
            category: $event.category.clone(),
            price: $event.price,
        })
    };
}

/// Units reserved for an order, with the name and price at that moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reservation {
    /// The number of units.
    pub quantity: i64,
    /// The product's name when they were reserved.
    pub name: Arc<str>,
    /// The price of one unit when they were reserved.
    pub unit_price: Money,
    /// The `not_after` of the command that reserved them.
    pub not_after: Timestamp,
}

/// A product. `0 <= reserved <= on_hand`, and `reserved` is the sum of the open reservations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Product {
    pub(super) listing: Option<Arc<Listing>>,
    pub(super) on_hand: i64,
    pub(super) reserved: i64,
    pub(super) shipped: i64,
    pub(super) discontinued: bool,
    pub(super) reservations: OrdMap<Uuid, Reservation>,
    pub(super) closed: ClosedOrders,
    shown: Shown,
}

impl Product {
    /// Whether it was added. A product that was never added may still have closed orders: those
    /// that asked for it in vain.
    pub fn exists(&self) -> bool {
        self.listing.is_some()
    }

    /// Whether it was added and is still sold.
    pub fn is_sold(&self) -> bool {
        self.exists() && !self.discontinued
    }

    /// Its entry in the catalogue; `None` if it was never added.
    pub fn listing(&self) -> Option<&Listing> {
        self.listing.as_deref()
    }

    /// The units in the warehouse.
    pub fn on_hand(&self) -> i64 {
        self.on_hand
    }

    /// The units reserved for orders.
    pub fn reserved(&self) -> i64 {
        self.reserved
    }

    /// All units that have ever been shipped.
    pub fn shipped(&self) -> i64 {
        self.shipped
    }

    /// The units that can be reserved.
    pub fn available(&self) -> i64 {
        self.on_hand.saturating_sub(self.reserved)
    }

    /// What is reserved for an order; `None` if nothing is.
    pub fn reservation(&self, order_id: Uuid) -> Option<&Reservation> {
        self.reservations.get(&order_id)
    }

    /// The version and times that clients see; created when it was added.
    pub fn shown(&self) -> Shown {
        self.shown
    }

    pub(super) fn fold(&mut self, event: &Event, at: At) {
        match event {
            Event::Added(added) => {
                self.on_hand = added.initial_stock;
                self.listing = Some(listing!(added));
            }
            Event::Changed(changed) => self.listing = Some(listing!(changed)),
            Event::StockChanged(changed) => {
                self.on_hand = self.on_hand.saturating_add(changed.quantity);
            }
            Event::StockReserved(reserved) => self.reserve(reserved),
            Event::StockReleased(released) => {
                self.close(released.order_id, released.quantity, released.not_after);
            }
            Event::StockShipped(shipped) => {
                self.close(shipped.order_id, shipped.quantity, shipped.not_after);
                self.on_hand = self.on_hand.saturating_sub(shipped.quantity);
                self.shipped = self.shipped.saturating_add(shipped.quantity);
            }
            Event::Discontinued(_) => self.discontinued = true,
        }
        self.closed.forget_before(at.time);
        if !event.is_bookkeeping() {
            self.shown.note(at);
        }
    }

    fn reserve(&mut self, reserved: &StockReserved) {
        self.reserved = self.reserved.saturating_add(reserved.quantity);
        let reservation = Reservation {
            quantity: reserved.quantity,
            name: Arc::clone(&reserved.name),
            unit_price: reserved.unit_price,
            not_after: reserved.not_after,
        };
        self.reservations.insert(reserved.order_id, reservation);
    }

    fn close(&mut self, order_id: Uuid, quantity: i64, not_after: Timestamp) {
        self.reservations.remove(&order_id);
        self.reserved = self.reserved.saturating_sub(quantity);
        self.closed.insert(order_id, not_after);
    }
}
