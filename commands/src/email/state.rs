//! What an e-mail address is.

use super::Claim;
use events::email::{Claimed, Event, Released};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An e-mail address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Email {
    pub(super) holder: Option<Claim>,
    /// The highest released claim of each customer who ever let go of it. Kept for ever: claims carry no moment after which
    /// they are too late.
    pub(super) released: OrdMap<Uuid, u32>,
}

impl Email {
    /// Who holds it, by which claim.
    pub fn holder(&self) -> Option<Claim> {
        self.holder
    }

    /// Whether this claim was released, or a later one of the same customer.
    pub(super) fn is_released(&self, claim: Claim) -> bool {
        self.released.get(&claim.customer_id).is_some_and(|highest| *highest >= claim.attempt)
    }

    pub(super) fn fold(&mut self, event: &Event) {
        match *event {
            Event::Claimed(Claimed { customer_id, attempt }) => {
                self.holder = Some(Claim { customer_id, attempt });
            }
            Event::Released(Released { customer_id, attempt }) => {
                self.holder.take_if(|holder| *holder == Claim { customer_id, attempt });
                let highest = self.released.entry(customer_id).or_default();
                *highest = attempt.max(*highest);
            }
        }
    }
}
