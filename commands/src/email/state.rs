//! The state of an e-mail address.

use super::TakeEmail;
use events::email::{Claimed, Event, Released};
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An e-mail address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Email {
    pub(super) holder: Option<TakeEmail>,
    /// The highest number that each of the last customers has released here, so that a request that
    /// comes late is refused.
    pub(super) released: OrdMap<Uuid, u32>,
    /// These customers, the one who released last at the end.
    pub(super) releasers: Vector<Uuid>,
    /// Whether a customer who had the address and released it had ordered.
    pub(super) ordered: bool,
}

/// How many customers who released the address are remembered. Their requests have long been
/// answered; a request that comes later than so many others is not to be expected.
pub(super) const REMEMBERED: usize = 1_000;

impl Email {
    /// The customer that the address belongs to, with the number of their request.
    pub fn holder(&self) -> Option<TakeEmail> {
        self.holder
    }

    /// Whether a customer who had the address before has ordered. The first-order discount is given
    /// once for an address, too.
    pub fn is_known(&self) -> bool {
        self.ordered
    }

    /// Whether this request, or a later one of the same customer, was released.
    pub(super) fn is_released(&self, request: TakeEmail) -> bool {
        self.released.get(&request.customer_id).is_some_and(|highest| *highest >= request.attempt)
    }

    fn remember(&mut self, customer_id: Uuid, attempt: u32) {
        let highest = self.released.get(&customer_id).copied().unwrap_or_default();
        self.released.insert(customer_id, attempt.max(highest));
        self.releasers.retain(|it| *it != customer_id);
        self.releasers.push_back(customer_id);
        if self.releasers.len() > REMEMBERED
            && let Some(oldest) = self.releasers.pop_front()
        {
            self.released.remove(&oldest);
        }
    }

    pub(super) fn fold(&mut self, event: &Event) {
        match *event {
            Event::Claimed(Claimed { customer_id, attempt }) => {
                self.holder = Some(TakeEmail { customer_id, attempt });
            }
            Event::Released(Released { customer_id, attempt, ordered }) => {
                let request = TakeEmail { customer_id, attempt };
                // Who never had the address says nothing about it.
                let left = self.holder.take_if(|holder| *holder == request);
                self.ordered |= left.is_some() && ordered;
                self.remember(customer_id, attempt);
            }
        }
    }
}
