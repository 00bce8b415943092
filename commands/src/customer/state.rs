//! What a customer is.

use crate::aggregate::{At, ClosedOrders};
use events::{
    Sealed, Timestamp,
    customer::{Changed, Event, OrderClosed},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// The claim that a customer's registration is; a change of address is a later one.
pub const REGISTRATION: u32 = 1;

/// How far a registration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Requested; the e-mail address is not theirs yet.
    Pending,
    /// A customer.
    Registered,
    /// The e-mail address was another's.
    Refused,
    /// They were one of the above but the last, and are forgotten.
    Erased,
}

/// Who a customer is. Personal data is sealed with their key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The stream id of the e-mail address.
    pub email_id: Uuid,
    /// The address.
    pub email: Sealed,
    /// Given name.
    pub first_name: Sealed,
    /// Family name.
    pub last_name: Sealed,
    /// Whether the shop treats them as VIP.
    pub vip: bool,
}

/// A claim of an address, with the profile that comes true with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub attempt: u32,
    pub profile: Profile,
}

/// What an order's discounts depend on, as it was when the order was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedOrder {
    /// Whether the customer was VIP.
    pub vip: bool,
    /// Whether there was no confirmed order and no open one.
    pub first: bool,
}

/// A customer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    pub(super) status: Option<Status>,
    /// What is so now, with the claim it came with.
    pub(super) current: Option<Arc<Claim>>,
    /// What shall be so once the address is theirs.
    pub(super) wanted: Option<Arc<Claim>>,
    /// Claims that are over here and not yet at their address.
    pub(super) leaving: OrdMap<u32, Uuid>,
    /// The number of the last claim.
    pub(super) attempts: u32,
    pub(super) order_count: u64,
    pub(super) open: OrdMap<Uuid, OpenedOrder>,
    pub(super) closed: ClosedOrders,
    pub(super) key_destroyed: bool,
    shown_version: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// The claim that an event with a whole profile tells of.
macro_rules! claim {
    ($event:expr, $attempt:expr, $vip:expr) => {
        Arc::new(Claim {
            attempt: $attempt,
            profile: Profile {
                email_id: $event.email_id,
                email: $event.email.clone(),
                first_name: $event.first_name.clone(),
                last_name: $event.last_name.clone(),
                vip: $vip,
            },
        })
    };
}

impl Customer {
    /// Whether a registration was ever asked for. A customer for whom none was may still have closed orders: placed in vain.
    pub fn exists(&self) -> bool {
        self.status.is_some()
    }

    /// How far the registration is; `None` when none was asked for.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Whether the registration, a change of address or the erasure waits for its end.
    pub fn is_change_pending(&self) -> bool {
        let erasing = self.is_erased() && (self.owes_key() || !self.leaving.is_empty());
        self.status == Some(Status::Pending) || self.wanted.is_some() || erasing
    }

    /// Whether they are erased, or being erased.
    pub fn is_erased(&self) -> bool {
        self.status == Some(Status::Erased)
    }

    /// Whether their key is still to be destroyed.
    pub(super) fn owes_key(&self) -> bool {
        self.is_erased() && !self.key_destroyed
    }

    /// Who they are; while the registration is pending or after it was refused, who they wanted to be; nobody once they are
    /// erased.
    pub fn profile(&self) -> Option<&Profile> {
        self.current.as_deref().map(|claim| &claim.profile)
    }

    /// The number of the claim they live by: after a change of address was answered, that of the change if it was confirmed.
    pub fn claim(&self) -> Option<u32> {
        self.current.as_deref().map(|claim| claim.attempt)
    }

    /// The number of the last claim of an address, answered or not; 0 when there was none.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Confirmed orders.
    pub fn order_count(&self) -> u64 {
        self.order_count
    }

    /// What was said of an order when it was opened here; `None` when it is not open.
    pub fn opened(&self, order_id: Uuid) -> Option<OpenedOrder> {
        self.open.get(&order_id).copied()
    }

    /// The stream version of the last event that changed the customer as shown.
    pub fn shown_version(&self) -> u64 {
        self.shown_version
    }

    /// When the registration was asked for.
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When they last changed as shown.
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    pub(super) fn fold(&mut self, event: &Event, at: At) {
        match event {
            Event::RegistrationRequested(requested) => {
                self.status = Some(Status::Pending);
                self.created_at = at.time;
                self.attempts = REGISTRATION;
                self.current = Some(claim!(requested, REGISTRATION, false));
            }
            Event::Registered(_) => self.status = Some(Status::Registered),
            Event::RegistrationRefused(_) => {
                self.status = Some(Status::Refused);
                self.leave(self.current.clone());
            }
            Event::Changed(changed) => self.rename(changed),
            Event::EmailChangeRequested(requested) => {
                self.attempts = requested.attempt;
                self.wanted = Some(claim!(requested, requested.attempt, requested.vip));
            }
            Event::EmailChanged(changed) => {
                self.wanted = None;
                let left = self.current.replace(claim!(changed, changed.attempt, changed.vip));
                self.leave(left);
            }
            Event::EmailChangeRefused(_) => {
                let refused = self.wanted.take();
                self.leave(refused);
            }
            Event::EmailSettled(settled) => {
                self.leaving.remove(&settled.attempt);
            }
            Event::OrderOpened(opened) => {
                let answer = OpenedOrder { vip: opened.vip, first: opened.first };
                self.open.insert(opened.order_id, answer);
            }
            Event::OrderClosed(closed) => self.close(closed),
            Event::Erased(_) => {
                self.status = Some(Status::Erased);
                let (current, wanted) = (self.current.take(), self.wanted.take());
                self.leave(current);
                self.leave(wanted);
            }
            Event::KeyDestroyed(_) => self.key_destroyed = true,
        }
        self.closed.forget_before(at.time);
        if !event.is_bookkeeping() {
            self.shown_version = at.version;
            self.updated_at = at.time;
        }
    }

    fn rename(&mut self, changed: &Changed) {
        if let Some(claim) = &mut self.current {
            let profile = &mut Arc::make_mut(claim).profile;
            profile.first_name.clone_from(&changed.first_name);
            profile.last_name.clone_from(&changed.last_name);
            profile.vip = changed.vip;
        }
    }

    fn leave(&mut self, claim: Option<Arc<Claim>>) {
        if let Some(claim) = claim {
            self.leaving.insert(claim.attempt, claim.profile.email_id);
        }
    }

    fn close(&mut self, closed: &OrderClosed) {
        self.open.remove(&closed.order_id);
        self.order_count += u64::from(closed.confirmed);
        self.closed.insert(closed.order_id, closed.not_after);
    }
}
