//! How an e-mail address decides commands.

use super::{Command, Email, Refusal, ReleaseEmail, TakeEmail};
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
            Command::Take(request) => self.take(request),
            Command::Release(release) => Ok(self.release(release)),
        }
    }

    fn evolve(&mut self, event: &Event, _at: At) {
        self.fold(event);
    }
}

impl Email {
    fn take(&self, request: TakeEmail) -> Result<Vec<Event>, Refusal> {
        let TakeEmail { customer_id, attempt } = request;
        match self.holder {
            Some(holder) if holder == request => return Ok(vec![]),
            _ if self.is_released(request) => return Err(Refusal::Closed),
            Some(holder) if holder.customer_id != customer_id => return Err(Refusal::Taken),
            Some(holder) if holder.attempt > attempt => return Err(Refusal::Closed),
            Some(_) | None => {}
        }
        Ok(vec![Claimed { customer_id, attempt }.into()])
    }

    fn release(&self, release: ReleaseEmail) -> Vec<Event> {
        let ReleaseEmail { request, ordered } = release;
        let TakeEmail { customer_id, attempt } = request;
        if self.is_released(request) && self.holder != Some(request) {
            return vec![];
        }
        vec![Released { customer_id, attempt, ordered }.into()]
    }
}
