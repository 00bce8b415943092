//! How an e-mail address decides commands.

use super::{Claim, Command, Email, Refusal};
use crate::aggregate::{Aggregate, At};
use events::{
    Timestamp,
    email::{Claimed, Event, Released},
};

impl Aggregate for Email {
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, command: &Command, _now: Timestamp) -> Result<Vec<Event>, Refusal> {
        match *command {
            Command::Claim(claim) => self.claim(claim),
            Command::Release(claim) => Ok(self.release(claim)),
        }
    }

    fn evolve(&mut self, event: &Event, _at: At) {
        self.fold(event);
    }
}

impl Email {
    fn claim(&self, claim: Claim) -> Result<Vec<Event>, Refusal> {
        let Claim { customer_id, attempt } = claim;
        match self.holder {
            Some(holder) if holder == claim => return Ok(vec![]),
            _ if self.is_released(claim) => return Err(Refusal::Closed),
            Some(holder) if holder.customer_id != customer_id => return Err(Refusal::Taken),
            Some(holder) if holder.attempt > attempt => return Err(Refusal::Closed),
            Some(_) | None => {}
        }
        Ok(vec![Claimed { customer_id, attempt }.into()])
    }

    fn release(&self, claim: Claim) -> Vec<Event> {
        let Claim { customer_id, attempt } = claim;
        if self.is_released(claim) && self.holder != Some(claim) {
            return vec![];
        }
        vec![Released { customer_id, attempt }.into()]
    }
}
