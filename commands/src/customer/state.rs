//! The state of a customer.

use crate::{
    aggregate::{At, Shown},
    closed_orders::ClosedOrders,
};
use chrono::TimeDelta;
use events::{
    Sealed, Timestamp,
    customer::{Changed, Event, OrderClosed},
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// The `attempt` of the registration; changes of address have higher numbers.
pub const REGISTRATION: u32 = 1;

/// How long a declined payment counts towards the customer's limit.
pub(super) const DECLINES_COUNT_FOR: TimeDelta = TimeDelta::hours(1);

/// The most declined payments that a customer remembers, those that count last.
pub const REMEMBERED_DECLINES: usize = 100;

/// The stage of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Requested; the e-mail address is not yet the customer's.
    Pending,
    /// The customer is registered.
    Registered,
    /// The e-mail address belongs to another customer.
    Refused,
    /// The customer has been erased.
    Erased,
}

/// The customer's data. Personal data is sealed with the customer's key.
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
    /// Whether the shop treats the customer as VIP.
    pub vip: bool,
}

/// A registration or a change of address, with the profile that it brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProfileChange {
    pub attempt: u32,
    pub profile: Profile,
}

/// What an order's discounts depend on, as it was when the order was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedOrder {
    /// Whether the customer was VIP.
    pub vip: bool,
    /// Whether the customer had neither a confirmed order nor an open one, and no address under which
    /// somebody had ordered before.
    pub first: bool,
}

/// A customer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    pub(super) status: Option<Status>,
    /// The current profile, with the change it comes from.
    pub(super) current: Option<Arc<ProfileChange>>,
    /// The change that waits for its address.
    pub(super) wanted: Option<Arc<ProfileChange>>,
    /// The address of each change that is over here but not yet released at the address's stream.
    pub(super) leaving: OrdMap<u32, Uuid>,
    /// The number of the last change.
    pub(super) attempts: u32,
    pub(super) order_count: u64,
    pub(super) open: OrdMap<Uuid, OpenedOrder>,
    pub(super) closed: ClosedOrders,
    pub(super) key_destroyed: bool,
    /// Whether somebody had one of the customer's addresses before, and ordered.
    pub(super) returning: bool,
    /// When the gateway declined payments of the customer, in log time; `None` for never, which is
    /// the usual case and takes little room.
    declines: Option<Arc<Vec<Timestamp>>>,
    shown: Shown,
}

/// Makes a change from an event that contains a whole profile.
macro_rules! profile_change {
    ($event:expr, $attempt:expr, $vip:expr) => {
        Arc::new(ProfileChange {
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
    /// Whether a registration was ever requested. A customer without one may still have closed
    /// orders: those that were placed for an unknown customer.
    pub fn exists(&self) -> bool {
        self.status.is_some()
    }

    /// The stage of the registration; `None` if none was requested.
    pub fn status(&self) -> Option<Status> {
        self.status
    }

    /// Whether a registration, a change of address or an erasure is in progress.
    pub fn is_change_pending(&self) -> bool {
        let erasing = self.is_erased() && (self.owes_key() || !self.leaving.is_empty());
        self.status == Some(Status::Pending) || self.wanted.is_some() || erasing
    }

    /// Whether the customer has been erased. The erasure may still be in progress.
    pub fn is_erased(&self) -> bool {
        self.status == Some(Status::Erased)
    }

    /// Whether the customer's key must still be destroyed.
    pub(super) fn owes_key(&self) -> bool {
        self.is_erased() && !self.key_destroyed
    }

    /// The profile. While the registration is pending, or if it was refused, the requested one;
    /// `None` for an erased customer.
    pub fn profile(&self) -> Option<&Profile> {
        self.current.as_deref().map(|change| &change.profile)
    }

    /// The number of the change that the current profile comes from. After a change of address has
    /// been answered, this is its number if it was confirmed.
    pub fn current_attempt(&self) -> Option<u32> {
        self.current.as_deref().map(|change| change.attempt)
    }

    /// The number of the last change, answered or not; 0 if there was none.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The number of confirmed orders.
    pub fn order_count(&self) -> u64 {
        self.order_count
    }

    /// Whether a further order is not the first one: the customer has a confirmed order or an open
    /// one, or an address under which somebody ordered before.
    pub(super) fn has_ordered(&self) -> bool {
        self.order_count > 0 || !self.open.is_empty() || self.returning
    }

    /// The number of payments that were declined after this moment of log time.
    pub(super) fn declined_since(&self, after: Timestamp) -> usize {
        self.declines.iter().flat_map(|times| times.iter()).filter(|time| **time > after).count()
    }

    /// What was recorded when the order was opened here; `None` if the order is not open.
    pub fn opened(&self, order_id: Uuid) -> Option<OpenedOrder> {
        self.open.get(&order_id).copied()
    }

    /// The version and times that clients see; created when the registration was requested.
    pub fn shown(&self) -> Shown {
        self.shown
    }

    pub(super) fn fold(&mut self, event: &Event, at: At) {
        match event {
            Event::RegistrationRequested(requested) => {
                self.status = Some(Status::Pending);
                self.attempts = REGISTRATION;
                self.current = Some(profile_change!(requested, REGISTRATION, false));
            }
            Event::Registered(registered) => {
                self.status = Some(Status::Registered);
                self.returning |= registered.returning;
            }
            Event::RegistrationRefused(_) => {
                self.status = Some(Status::Refused);
                self.leave(self.current.clone());
            }
            Event::Changed(changed) => self.rename(changed),
            Event::EmailChangeRequested(requested) => {
                self.attempts = requested.attempt;
                self.wanted = Some(profile_change!(requested, requested.attempt, requested.vip));
            }
            Event::EmailChanged(changed) => {
                self.wanted = None;
                self.returning |= changed.returning;
                let left =
                    self.current.replace(profile_change!(changed, changed.attempt, changed.vip));
                self.leave(left);
            }
            Event::EmailChangeRefused(_) => {
                let refused = self.wanted.take();
                self.leave(refused);
            }
            Event::EmailSettled(settled) => {
                remove(&mut self.leaving, &settled.attempt);
            }
            Event::OrderOpened(opened) => {
                let answer = OpenedOrder { vip: opened.vip, first: opened.first };
                self.open.insert(opened.order_id, answer);
            }
            Event::OrderClosed(closed) => self.close(closed, at.time),
            Event::Erased(_) => {
                let before = self.status.replace(Status::Erased);
                let (current, wanted) = (self.current.take(), self.wanted.take());
                // A refused registration has left its address already.
                self.leave(current.filter(|_| before != Some(Status::Refused)));
                self.leave(wanted);
            }
            Event::KeyDestroyed(_) => self.key_destroyed = true,
        }
        self.closed.forget_before(at.time);
        if !event.is_bookkeeping() {
            self.shown.note(at);
        }
    }

    fn rename(&mut self, changed: &Changed) {
        if let Some(change) = &mut self.current {
            let profile = &mut Arc::make_mut(change).profile;
            profile.first_name.clone_from(&changed.first_name);
            profile.last_name.clone_from(&changed.last_name);
            profile.vip = changed.vip;
        }
    }

    fn leave(&mut self, change: Option<Arc<ProfileChange>>) {
        if let Some(change) = change {
            self.leaving.insert(change.attempt, change.profile.email_id);
        }
    }

    fn close(&mut self, closed: &OrderClosed, now: Timestamp) {
        remove(&mut self.open, &closed.order_id);
        self.order_count += u64::from(closed.confirmed);
        self.closed.insert(closed.order_id, closed.not_after);
        self.note_decline(closed.declined.then_some(now), now - DECLINES_COUNT_FOR);
    }

    /// Remembers the time of a decline, and forgets those that no longer count.
    fn note_decline(&mut self, declined: Option<Timestamp>, before: Timestamp) {
        let times = self.declines.iter().flat_map(|times| times.iter().copied());
        let kept: Vec<Timestamp> = times.chain(declined).filter(|time| *time > before).collect();
        let newest = kept.len().saturating_sub(REMEMBERED_DECLINES);
        self.declines = (!kept.is_empty()).then(|| Arc::new(kept[newest..].to_vec()));
    }
}

/// Removes an entry. An emptied tree is made anew, because it would keep the room of a node.
fn remove<K: Ord + Clone, V: Clone>(tree: &mut OrdMap<K, V>, key: &K) {
    tree.remove(key);
    if tree.is_empty() {
        *tree = OrdMap::new();
    }
}
