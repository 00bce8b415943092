//! What a customer still owes the world: a pure function of the state. Every obligation was created by an event, and ends in
//! one.

use super::{Customer, Status};
use crate::aggregate::EffectId;
use uuid::Uuid;

/// What a customer owes the world. The customer's own id is that of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Claim the address at its stream; then confirm or refuse the registration (claim 1) or the change of address.
    ClaimEmail {
        /// Which claim.
        attempt: u32,
        /// The stream id of the address.
        email_id: Uuid,
    },
    /// Release the claim at the address's stream, whether it holds there or not.
    ReleaseEmail {
        /// Which claim.
        attempt: u32,
        /// The stream id of the address.
        email_id: Uuid,
    },
    /// Destroy the key of who is erased, with what was made of the data it sealed.
    DestroyKey,
}

impl Effect {
    /// Names the effect among those of its customer.
    pub fn id(&self) -> EffectId {
        match *self {
            Self::ClaimEmail { attempt, .. } => EffectId { name: "claim-email", ordinal: attempt },
            Self::ReleaseEmail { attempt, .. } => {
                EffectId { name: "release-email", ordinal: attempt }
            }
            Self::DestroyKey => EffectId { name: "destroy-key", ordinal: 0 },
        }
    }
}

impl Customer {
    /// What the customer owes now.
    pub fn owed(&self) -> Vec<Effect> {
        let registering = self.current.as_ref().filter(|_| self.status == Some(Status::Pending));
        let claims = registering.into_iter().chain(&self.wanted).map(|claim| Effect::ClaimEmail {
            attempt: claim.attempt,
            email_id: claim.profile.email_id,
        });
        let releases = self
            .leaving
            .iter()
            .map(|(&attempt, &email_id)| Effect::ReleaseEmail { attempt, email_id });
        let key = self.owes_key().then_some(Effect::DestroyKey);
        claims.chain(releases).chain(key).collect()
    }
}
