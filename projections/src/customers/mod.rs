//! Customers: one row a stream. Personal data stays sealed as in the log; the API opens it with the
//! key store.

mod apply;
mod query;

pub(crate) use apply::Customers;

use events::{Sealed, Timestamp};
use uuid::Uuid;

/// A registered or erased customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Customer {
    /// The id of the customer.
    pub customer_id: Uuid,
    /// The stream id of the address: its keyed hash.
    pub email_id: Uuid,
    /// The address, sealed (field `email`).
    pub email: Sealed,
    /// Given name, sealed (field `first_name`).
    pub first_name: Sealed,
    /// Family name, sealed (field `last_name`).
    pub last_name: Sealed,
    /// Whether the shop treats the customer as a VIP.
    pub vip: bool,
    /// Number of confirmed orders.
    pub order_count: i64,
    /// When the customer asked to register.
    pub created_at: Timestamp,
    /// The time of the last event that changed what is shown here.
    pub updated_at: Timestamp,
    /// The stream version of that event: the `ETag`.
    pub version: u64,
}

impl Customer {
    /// Whether the customer was erased, so that there is no personal data to open.
    pub fn is_erased(&self) -> bool {
        self.email.as_str().is_empty()
    }
}
