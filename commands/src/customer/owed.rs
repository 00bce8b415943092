//! The effects that a customer still owes: a pure function of the state. Every one was created by
//! an event and ends in an event.

use super::{Customer, Status};
use crate::aggregate::EffectId;
use uuid::Uuid;

/// An effect that a customer owes. The stream id is the customer's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Take the address at its stream, then confirm or refuse the registration (attempt 1) or the
    /// change of address.
    TakeEmail {
        /// The number of the change.
        attempt: u32,
        /// The stream id of the address.
        email_id: Uuid,
    },
    /// Release the address at its stream, whether or not it was taken there.
    ReleaseEmail {
        /// The number of the change.
        attempt: u32,
        /// The stream id of the address.
        email_id: Uuid,
        /// Whether the customer has ordered.
        ordered: bool,
    },
    /// Destroy all that belongs to an erased customer: first the key, then the rest.
    DestroyKey,
}

/// What belongs to a customer outside of the customer's own stream. An erasure destroys all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Belonging {
    /// The key. It comes first: what is sealed with it is unreadable from then on.
    Key,
    /// The letters that were written to files.
    Letters,
    /// The wishlist.
    Wishlist,
}

impl Belonging {
    /// All of them, in the order in which they are destroyed.
    pub const ALL: [Self; 3] = [Self::Key, Self::Letters, Self::Wishlist];
}

impl Effect {
    /// Identifies the effect among those of its customer.
    pub fn id(&self) -> EffectId {
        match *self {
            Self::TakeEmail { attempt, .. } => EffectId { name: "claim-email", ordinal: attempt },
            Self::ReleaseEmail { attempt, .. } => {
                EffectId { name: "release-email", ordinal: attempt }
            }
            Self::DestroyKey => EffectId { name: "destroy-key", ordinal: 0 },
        }
    }
}

impl Customer {
    /// The effects that the customer owes now.
    pub fn owed(&self) -> Vec<Effect> {
        let registering = self.current.as_ref().filter(|_| self.status == Some(Status::Pending));
        let taken = registering.into_iter().chain(&self.wanted).map(|change| Effect::TakeEmail {
            attempt: change.attempt,
            email_id: change.profile.email_id,
        });
        let releases = self.leaving.iter().map(|(&attempt, &email_id)| Effect::ReleaseEmail {
            attempt,
            email_id,
            ordered: self.has_ordered(),
        });
        let key = self.owes_key().then_some(Effect::DestroyKey);
        taken.chain(releases).chain(key).collect()
    }
}
