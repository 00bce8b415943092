//! Checks customers and addresses: an address has at most one customer, a customer has one first
//! order, also under addresses that others had before, and the limits hold.

use super::{Books, Broken};
use crate::simulator::run::LIMITS;
use chrono::TimeDelta;
use events::{Timestamp, customer::Event, email, order::RejectionReason};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A customer's numbered request for an address.
type Request = (Uuid, u32);

#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what happened, each on its own")]
pub struct Customer {
    pub registered: bool,
    refused: bool,
    pub erased: bool,
    pub key_destroyed: bool,
    /// The current address, and the number of the request that got it.
    pub address: Option<(u32, Uuid)>,
    wanted: Option<(u32, Uuid)>,
    pub order_count: u64,
    /// Whether somebody who had one of the addresses before has ordered.
    returning: bool,
    ever_opened: bool,
    /// When payments were declined.
    declines: Vec<Timestamp>,
    /// The requests whose addresses were left after an order was confirmed.
    left_ordered: BTreeSet<u32>,
    /// Open orders, and whether each of them was the first.
    pub open: BTreeMap<Uuid, bool>,
    /// Orders that are closed here, and until when that is remembered.
    pub closed: BTreeMap<Uuid, Timestamp>,
}

#[derive(Clone, Debug, Default)]
pub struct Email {
    pub holder: Option<Request>,
    released: BTreeSet<Request>,
    /// Whether one of those who had it and released it has ordered.
    ordered: bool,
}

impl Customer {
    fn returns(&mut self, known: bool, returning: bool) -> Result<(), Broken> {
        ensure!(returning == known, "somebody ordered under the address before: {known}");
        self.returning |= returning;
        Ok(())
    }

    fn leave(&mut self) {
        let ordered = self.order_count > 0 || self.returning;
        self.left_ordered.extend(self.address.filter(|_| ordered).map(|(attempt, _)| attempt));
    }

    fn declined_within_hour(&self, now: Timestamp) -> usize {
        let counts = |time: &&Timestamp| **time > now - TimeDelta::hours(1);
        self.declines.iter().filter(counts).count()
    }
}

impl Books {
    pub(super) fn fold_customer(
        &mut self,
        id: Uuid,
        event: &Event,
        now: Timestamp,
    ) -> Result<(), Broken> {
        let mut customer = self.customers.get(&id).cloned().unwrap_or_default();
        let lives = matches!(
            event,
            Event::RegistrationRequested(_)
                | Event::Registered(_)
                | Event::Changed(_)
                | Event::EmailChangeRequested(_)
                | Event::EmailChanged(_)
                | Event::OrderOpened(_)
        );
        ensure!(!(lives && customer.erased), "an event of an erased customer");
        match event {
            Event::RegistrationRequested(requested) => {
                ensure!(customer.address.is_none(), "registered twice");
                customer.address = Some((1, requested.email_id));
            }
            Event::Registered(registered) => {
                customer.registered = true;
                self.holds(id, customer.address)?;
                customer.returns(self.is_known(customer.address), registered.returning)?;
            }
            Event::RegistrationRefused(_) => {
                ensure!(!customer.registered, "a registered customer is refused");
                customer.address = None;
                customer.refused = true;
            }
            Event::Changed(_) => {
                ensure!(customer.registered, "a change of a customer who is not registered");
            }
            Event::EmailChangeRequested(requested) => {
                ensure!(
                    customer.wanted.is_none(),
                    "a second change of the address while one is in progress"
                );
                customer.wanted = Some((requested.attempt, requested.email_id));
            }
            Event::EmailChanged(changed) => {
                let wanted = customer.wanted.take();
                ensure!(wanted == Some((changed.attempt, changed.email_id)), "{wanted:?}");
                self.holds(id, wanted)?;
                customer.leave();
                customer.returns(self.is_known(wanted), changed.returning)?;
                customer.address = wanted;
            }
            Event::EmailChangeRefused(_) => customer.wanted = None,
            Event::EmailSettled(_) => {}
            Event::Erased(_) => {
                ensure!(
                    (customer.address.is_some() || customer.refused) && !customer.erased,
                    "an erasure of a customer who does not exist"
                );
                customer.erased = true;
                customer.leave();
                (customer.address, customer.wanted) = (None, None);
            }
            Event::KeyDestroyed(_) => {
                ensure!(
                    customer.erased && !customer.key_destroyed,
                    "the key must not be destroyed"
                );
                customer.key_destroyed = true;
            }
            Event::OrderOpened(opened) => {
                let order_id = opened.order_id;
                ensure!(customer.registered, "an order of a customer who is not registered");
                ensure!(
                    !customer.closed.contains_key(&order_id),
                    "order {order_id} is closed here"
                );
                let (open, declined) = (customer.open.len(), customer.declined_within_hour(now));
                ensure!(open < LIMITS.open_orders as usize, "{open} orders are open already");
                let most = LIMITS.declined_payments as usize;
                ensure!(declined < most, "{declined} payments were declined within an hour");
                customer.ever_opened = true;
                let had = customer.order_count > 0 || customer.returning;
                let first = !had && customer.open.is_empty();
                ensure!(opened.first == first, "order {order_id} is the first: {first}");
                let again = customer.open.insert(order_id, first);
                ensure!(again.is_none(), "order {order_id} is opened twice");
            }
            Event::OrderClosed(closed) => {
                let order_id = closed.order_id;
                let order = self.orders.get(&order_id).ok_or("an order that does not exist")?;
                let was_open = customer.open.remove(&order_id).is_some();
                let before = customer.closed.insert(order_id, closed.not_after);
                let again = before.is_some_and(|until| now <= until || was_open);
                ensure!(!again, "order {order_id} is closed twice");
                let confirmed = was_open && order.was_confirmed;
                ensure!(
                    closed.confirmed == confirmed,
                    "order {order_id} is confirmed: {confirmed}"
                );
                customer.order_count += u64::from(confirmed);
                let declined = order.rejection == Some(RejectionReason::PaymentDeclined);
                ensure!(closed.declined == declined, "order {order_id} is declined: {declined}");
                customer.declines.extend(declined.then_some(now));
            }
        }
        self.customers.insert(id, customer);
        Ok(())
    }

    /// Whether somebody ordered under the address before.
    fn is_known(&self, address: Option<(u32, Uuid)>) -> bool {
        address.and_then(|(_, email)| self.emails.get(&email)).is_some_and(|email| email.ordered)
    }

    fn holds(&self, customer: Uuid, address: Option<(u32, Uuid)>) -> Result<(), Broken> {
        let (attempt, email) = address.ok_or("a customer without an address")?;
        let holder = self.emails.get(&email).and_then(|email| email.holder);
        ensure!(holder == Some((customer, attempt)), "the address belongs to {holder:?}");
        Ok(())
    }

    pub(super) fn fold_email(&mut self, id: Uuid, event: &email::Event) -> Result<(), Broken> {
        let email = self.emails.entry(id).or_default();
        match event {
            email::Event::Claimed(claimed) => {
                let request = (claimed.customer_id, claimed.attempt);
                let taken = email.holder.is_some_and(|holder| holder.0 != request.0);
                ensure!(
                    !taken,
                    "the address belongs to {:?}, but {request:?} gets it",
                    email.holder
                );
                ensure!(!email.released.contains(&request), "{request:?} was already released");
                email.holder = Some(request);
            }
            email::Event::Released(released) => {
                let request = (released.customer_id, released.attempt);
                let customer = self.customers.get(&request.0);
                let lives = customer.is_some_and(|found| found.address == Some((request.1, id)));
                ensure!(!lives, "{request:?} is current, but it is released");
                let ordered = customer.is_some_and(|it| it.left_ordered.contains(&request.1));
                ensure!(released.ordered || !ordered, "{request:?} has ordered");
                let never = customer.is_none_or(|it| !it.ever_opened && !it.returning);
                ensure!(!(released.ordered && never), "{request:?} has never ordered");
                email.released.insert(request);
                email.ordered |= email.holder == Some(request) && released.ordered;
                email.holder = email.holder.filter(|holder| *holder != request);
            }
        }
        Ok(())
    }

    pub(super) fn customer_at_rest(&self, id: Uuid, customer: &Customer) -> Result<(), Broken> {
        if customer.registered && !customer.erased {
            self.holds(id, customer.address)?;
        }
        ensure!(
            customer.erased == customer.key_destroyed,
            "customer {id} is erased and has a key, or is not erased and has none"
        );
        let holds = |email: &Email| email.holder.is_some_and(|holder| holder.0 == id);
        let held = self.emails.values().any(holds);
        ensure!(!(customer.erased && held), "customer {id} is erased but has an address");
        ensure!(customer.wanted.is_none(), "customer {id} still waits for an address");
        let orders = self.orders.values().filter(|order| order.customer == id);
        let confirmed = orders.filter(|order| order.was_confirmed).count() as u64;
        let counted = customer.order_count;
        ensure!(
            counted == confirmed,
            "customer {id} counts {counted} orders, but {confirmed} were confirmed"
        );
        Ok(())
    }
}
