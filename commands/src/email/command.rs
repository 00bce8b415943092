//! What can be asked of an e-mail address.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What can be asked of an e-mail address. Internal, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Give it to the customer.
    Claim(Claim),
    /// That claim is over, whether it held or not: it can never be made again.
    Release(Claim),
}

/// A numbered claim of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The customer.
    pub customer_id: Uuid,
    /// The number of the claim among all of that customer's, from 1.
    pub attempt: u32,
}
