//! How a customer decides commands.

use super::{
    Change, CloseOrder, Command, Customer, DECLINES_COUNT_FOR, OpenOrder, Profile, Refusal,
    Register, Status,
};
use crate::{
    OrderLimits,
    aggregate::{Aggregate, At},
};
use events::{
    Timestamp,
    customer::{
        Changed, EmailChangeRefused, EmailChangeRequested, EmailChanged, EmailSettled, Erased,
        Event, KeyDestroyed, OrderClosed, OrderOpened, Registered, RegistrationRefused,
        RegistrationRequested,
    },
};

impl Aggregate for Customer {
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, command: &Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Register(register) => self.register(register),
            Command::ConfirmRegistration { returning } => self.confirm_registration(*returning),
            Command::RefuseRegistration => self.refuse_registration(),
            Command::Change(change) => self.change(change),
            Command::ConfirmEmail { attempt, returning } => {
                self.confirm_email(*attempt, *returning)
            }
            Command::RefuseEmail { attempt } => self.refuse_email(*attempt),
            Command::RecordEmailReleased { attempt } => self.record_email_released(*attempt),
            Command::OpenOrder(open) => self.open_order(open, now),
            Command::CloseOrder(close) => Ok(self.close_order(close)),
            Command::Erase => self.erase(),
            Command::RecordKeyDestroyed => self.record_key_destroyed(),
        }
    }

    fn evolve(&mut self, event: &Event, at: At) {
        self.fold(event, at);
    }
}

impl Customer {
    fn register(&self, register: &Register) -> Result<Vec<Event>, Refusal> {
        match self.status {
            None => {
                let Register { email_id, email, first_name, last_name } = register.clone();
                Ok(vec![RegistrationRequested { email_id, email, first_name, last_name }.into()])
            }
            Some(Status::Pending | Status::Registered | Status::Refused | Status::Erased) => {
                Err(Refusal::AlreadyExists)
            }
        }
    }

    fn confirm_registration(&self, returning: bool) -> Result<Vec<Event>, Refusal> {
        match self.status {
            None => Err(Refusal::NotFound),
            Some(Status::Pending) => Ok(vec![Registered { returning }.into()]),
            Some(Status::Registered) => Ok(vec![]),
            Some(Status::Refused) => Err(Refusal::RegistrationAnswered),
            Some(Status::Erased) => Err(Refusal::Erased),
        }
    }

    fn refuse_registration(&self) -> Result<Vec<Event>, Refusal> {
        match self.status {
            None => Err(Refusal::NotFound),
            Some(Status::Pending) => Ok(vec![RegistrationRefused {}.into()]),
            Some(Status::Refused) => Ok(vec![]),
            Some(Status::Registered) => Err(Refusal::RegistrationAnswered),
            Some(Status::Erased) => Err(Refusal::Erased),
        }
    }

    /// The current profile, if the customer may change it now.
    fn changeable(&self) -> Result<&Profile, Refusal> {
        match self.status {
            None | Some(Status::Refused) => Err(Refusal::NotFound),
            Some(Status::Erased) => Err(Refusal::Erased),
            Some(Status::Pending) => Err(Refusal::ChangeInProgress),
            Some(Status::Registered) if self.wanted.is_some() => Err(Refusal::ChangeInProgress),
            Some(Status::Registered) => self.profile().ok_or(Refusal::NotFound),
        }
    }

    fn change(&self, change: &Change) -> Result<Vec<Event>, Refusal> {
        let current = self.changeable()?;
        let wanted = current.clone().with(change.clone());
        if wanted == *current {
            return Ok(vec![]);
        }
        let same_address = (wanted.email_id, &wanted.email) == (current.email_id, &current.email);
        let Profile { email_id, email, first_name, last_name, vip } = wanted;
        if same_address {
            return Ok(vec![Changed { first_name, last_name, vip }.into()]);
        }
        // This also handles another spelling of the customer's own address: if both have the same
        // stream, the stream accepts the higher number of the same customer.
        let attempt = self.attempts.saturating_add(1);
        let requested =
            EmailChangeRequested { attempt, email_id, email, first_name, last_name, vip };
        Ok(vec![requested.into()])
    }

    fn confirm_email(&self, attempt: u32, returning: bool) -> Result<Vec<Event>, Refusal> {
        if self.current_attempt() == Some(attempt) && self.status == Some(Status::Registered) {
            return Ok(vec![]);
        }
        let Some(wanted) = self.wanted.as_ref().filter(|wanted| wanted.attempt == attempt) else {
            return Err(Refusal::UnknownAttempt { attempt });
        };
        let Profile { email_id, email, first_name, last_name, vip } = wanted.profile.clone();
        let changed =
            EmailChanged { attempt, email_id, email, first_name, last_name, vip, returning };
        Ok(vec![changed.into()])
    }

    fn refuse_email(&self, attempt: u32) -> Result<Vec<Event>, Refusal> {
        match &self.wanted {
            Some(wanted) if wanted.attempt == attempt => {
                Ok(vec![EmailChangeRefused { attempt }.into()])
            }
            _ if self.is_over(attempt) => Ok(vec![]),
            _ => Err(Refusal::UnknownAttempt { attempt }),
        }
    }

    fn record_email_released(&self, attempt: u32) -> Result<Vec<Event>, Refusal> {
        if self.leaving.contains_key(&attempt) {
            return Ok(vec![EmailSettled { attempt }.into()]);
        }
        if self.is_over(attempt) {
            return Ok(vec![]);
        }
        Err(Refusal::UnknownAttempt { attempt })
    }

    /// Whether the change was requested and answered, and is not the one that the current profile
    /// comes from.
    fn is_over(&self, attempt: u32) -> bool {
        let lives = match self.status {
            None | Some(Status::Refused | Status::Erased) => false,
            Some(Status::Pending | Status::Registered) => self.current_attempt() == Some(attempt),
        };
        let waits = self.wanted.as_ref().is_some_and(|wanted| wanted.attempt == attempt);
        (1..=self.attempts).contains(&attempt) && !lives && !waits
    }

    fn open_order(&self, open: &OpenOrder, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        let &OpenOrder { order_id, not_after, limits } = open;
        // This comes first because the open orders of an erased customer go on.
        if self.opened(order_id).is_some() {
            return Ok(vec![]);
        }
        let vip = match (self.status, self.profile()) {
            (None | Some(Status::Pending | Status::Refused | Status::Erased), _) | (_, None) => {
                return Err(Refusal::NotFound);
            }
            (Some(Status::Registered), Some(profile)) => profile.vip,
        };
        if self.closed.refuses(order_id, not_after, now) {
            return Err(Refusal::OrderClosed);
        }
        self.within(limits, now)?;
        let first = !self.has_ordered();
        Ok(vec![OrderOpened { order_id, vip, first, not_after }.into()])
    }

    /// Whether the customer may open another order at log time `now`.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn within(&self, limits: OrderLimits, now: Timestamp) -> Result<(), Refusal> {
        let reached = |limit: u32, found: usize| limit > 0 && found >= limit as usize;
        let open = self.open.len();
        if reached(limits.open_orders, open) {
            return Err(Refusal::TooManyOpenOrders { open });
        }
        let declined = self.declined_since(now - DECLINES_COUNT_FOR);
        if reached(limits.declined_payments, declined) {
            return Err(Refusal::TooManyDeclinedPayments { declined });
        }
        Ok(())
    }

    /// Counts an order as confirmed only if it is open here. An order is never confirmed without
    /// having been opened, so a close that is repeated after the first one was forgotten is not
    /// counted twice.
    fn close_order(&self, close: &CloseOrder) -> Vec<Event> {
        let &CloseOrder { order_id, confirmed, declined, not_after } = close;
        if self.closed.contains(order_id) {
            return vec![];
        }
        let confirmed = confirmed && self.opened(order_id).is_some();
        vec![OrderClosed { order_id, confirmed, declined, not_after }.into()]
    }

    /// Allowed at any time. If a change of address is in progress, its address is released with the
    /// current one.
    fn erase(&self) -> Result<Vec<Event>, Refusal> {
        match self.status {
            None => Err(Refusal::NotFound),
            // What a refused registration said is personal, too.
            Some(Status::Pending | Status::Registered | Status::Refused) => {
                Ok(vec![Erased {}.into()])
            }
            Some(Status::Erased) => Ok(vec![]),
        }
    }

    fn record_key_destroyed(&self) -> Result<Vec<Event>, Refusal> {
        match self.status {
            None | Some(Status::Pending | Status::Registered | Status::Refused) => {
                Err(Refusal::NotErased)
            }
            Some(Status::Erased) if self.key_destroyed => Ok(vec![]),
            Some(Status::Erased) => Ok(vec![KeyDestroyed {}.into()]),
        }
    }
}

impl Profile {
    fn with(self, change: Change) -> Self {
        let (email_id, email) = change.email.unwrap_or((self.email_id, self.email));
        Self {
            email_id,
            email,
            first_name: change.first_name.unwrap_or(self.first_name),
            last_name: change.last_name.unwrap_or(self.last_name),
            vip: change.vip.unwrap_or(self.vip),
        }
    }
}
