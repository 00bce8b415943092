//! Who holds an e-mail address. The stream is named by the address's keyed hash: at most one customer holds it.

use crate::schema::stream_events;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

stream_events! {
    /// A customer holds the address.
    Claimed(Claimed) = "EmailClaimed" v 1;
    /// A customer's claim is over.
    Released(Released) = "EmailReleased" v 1;
}

/// The address is a customer's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claimed {
    /// The holder.
    pub customer_id: Uuid,
    /// Which claim of that customer, from 1.
    pub attempt: u32,
}

/// That claim is over. Written even when it did not hold, and it can not be made afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// The customer.
    pub customer_id: Uuid,
    /// Which claim of that customer.
    pub attempt: u32,
}
