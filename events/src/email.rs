//! Events of an e-mail address. A keyed hash of the address names its stream, which makes sure that
//! at most one customer has the address.

use crate::schema::stream_events;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

stream_events! {
    /// A customer took the address.
    Claimed(Claimed) = "EmailClaimed" v 1;
    /// A customer released the address.
    Released(Released) = "EmailReleased" v 2;
}

/// The address now belongs to a customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Claimed {
    /// The customer who took it.
    pub customer_id: Uuid,
    /// Number of that customer's request for an address, from 1.
    pub attempt: u32,
}

/// That request is over. Written even if the customer did not have the address; the same request
/// cannot take it afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// The customer.
    pub customer_id: Uuid,
    /// Number of that customer's request for an address.
    pub attempt: u32,
    /// Whether the customer has ordered; `false` for events of version 1.
    pub ordered: bool,
}
