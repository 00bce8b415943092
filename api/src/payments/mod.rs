//! Payments: what the gateway tells of them.

pub mod webhook;

use commands::{dispatch::Payments, gateway::Secret};

/// Takes the gateway's notices.
pub struct Webhook {
    /// What they are signed with.
    pub secret: Secret,
    /// Who follows them.
    pub payments: Payments,
}
