//! Customers: one row a stream. Personal data stays sealed as in the log; whoever shows it opens it with the key store.

mod apply;
mod query;

pub(crate) use apply::Customers;

use events::{Sealed, Timestamp};
use uuid::Uuid;

/// A customer who is registered or erased, as their events up to now make them.
#[derive(Clone, Debug, PartialEq)]
pub struct Customer {
    /// Their id.
    pub customer_id: Uuid,
    /// The stream id of their address: its keyed hash.
    pub email_id: Uuid,
    /// The address, sealed (field `email`).
    pub email: Sealed,
    /// Given name, sealed (field `first_name`).
    pub first_name: Sealed,
    /// Family name, sealed (field `last_name`).
    pub last_name: Sealed,
    /// Whether the shop treats them as VIP.
    pub vip: bool,
    /// Orders that were confirmed.
    pub order_count: i64,
    /// When they asked to be a customer.
    pub created_at: Timestamp,
    /// The time of the last event that changed what is shown here.
    pub updated_at: Timestamp,
    /// The stream version of that event: the `ETag`.
    pub version: u64,
}

impl Customer {
    /// Whether they were erased: there is nothing to open.
    pub fn is_erased(&self) -> bool {
        self.email.as_str().is_empty()
    }
}
