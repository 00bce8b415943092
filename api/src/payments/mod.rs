//! Notices of the payment gateway.

pub mod webhook;

use commands::{dispatch::Payments, gateway::Secret};

/// What the webhook of the payment gateway needs.
pub struct Webhook {
    /// The secret that the notices are signed with.
    pub secret: Secret,
    /// Looks up the payment that a notice is about.
    pub payments: Payments,
}
