//! The commands of an e-mail address.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A command for an e-mail address. All of them are internal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give the address to the customer.
    Take(TakeEmail),
    /// End this request for the address, whether or not it was granted. It can never be granted
    /// afterwards.
    Release(ReleaseEmail),
}

/// A customer's numbered request to take the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeEmail {
    /// The customer.
    pub customer_id: Uuid,
    /// The number of the request among all those of the customer, for any address, from 1.
    pub attempt: u32,
}

/// The end of such a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseEmail {
    /// The request.
    pub request: TakeEmail,
    /// Whether the customer has ordered.
    pub ordered: bool,
}
