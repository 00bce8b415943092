//! The state of a wishlist.

use crate::aggregate::At;
use events::{Timestamp, wishlist::Event};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The largest number of items, because the list is kept in memory.
pub const MAX_ITEMS: usize = 500;

/// A product on the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// The stream version of the event that added it; later additions have higher versions.
    pub version: u64,
    /// When it was added.
    pub added_at: Timestamp,
}

/// A wishlist. A customer who has never used it has an empty one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wishlist {
    pub(super) items: OrdMap<Uuid, Item>,
    /// Whether the customer is erased.
    pub(super) cleared: bool,
    shown_version: u64,
}

impl Wishlist {
    /// The item of a product; `None` if the product is not on the list.
    pub fn item(&self, product_id: Uuid) -> Option<Item> {
        self.items.get(&product_id).copied()
    }

    /// The stream version of the last event; clients see the effect of every event.
    pub fn shown_version(&self) -> u64 {
        self.shown_version
    }

    pub(super) fn fold(&mut self, event: &Event, at: At) {
        match event {
            Event::ItemAdded(added) => {
                let item = Item { version: at.version, added_at: at.time };
                self.items.insert(added.product_id, item);
            }
            Event::ItemRemoved(removed) => {
                self.items.remove(&removed.product_id);
            }
            Event::Cleared(_) => {
                self.cleared = true;
                self.items.clear();
            }
        }
        self.shown_version = at.version;
    }
}
