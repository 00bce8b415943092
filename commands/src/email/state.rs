//! The state of an e-mail address.

use super::TakeEmail;
use events::email::{Claimed, Event, Released};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An e-mail address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Email {
    pub(super) holder: Option<TakeEmail>,
    /// The highest number that each customer has released here. Kept for ever, because a request
    /// for an address never becomes too late.
    pub(super) released: OrdMap<Uuid, u32>,
}

impl Email {
    /// The customer that the address belongs to, with the number of their request.
    pub fn holder(&self) -> Option<TakeEmail> {
        self.holder
    }

    /// Whether this request, or a later one of the same customer, was released.
    pub(super) fn is_released(&self, request: TakeEmail) -> bool {
        self.released.get(&request.customer_id).is_some_and(|highest| *highest >= request.attempt)
    }

    pub(super) fn fold(&mut self, event: &Event) {
        match *event {
            Event::Claimed(Claimed { customer_id, attempt }) => {
                self.holder = Some(TakeEmail { customer_id, attempt });
            }
            Event::Released(Released { customer_id, attempt }) => {
                self.holder.take_if(|holder| *holder == TakeEmail { customer_id, attempt });
                let highest = self.released.entry(customer_id).or_default();
                *highest = attempt.max(*highest);
            }
        }
    }
}
