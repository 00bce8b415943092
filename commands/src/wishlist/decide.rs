//! How a wishlist decides commands.

use super::{Command, MAX_ITEMS, Refusal, Wishlist};
use crate::aggregate::{Aggregate, At};
use events::{
    Timestamp,
    wishlist::{Cleared, Event, ItemAdded, ItemRemoved},
};
use uuid::Uuid;

impl Aggregate for Wishlist {
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, command: &Command, _now: Timestamp) -> Result<Vec<Event>, Refusal> {
        match *command {
            Command::Add(product_id) => self.add(product_id),
            Command::Remove(product_id) => self.remove(product_id),
            Command::Clear => Ok(self.clear()),
        }
    }

    fn evolve(&mut self, event: &Event, at: At) {
        self.fold(event, at);
    }
}

impl Wishlist {
    fn add(&self, product_id: Uuid) -> Result<Vec<Event>, Refusal> {
        self.refuse_cleared()?;
        if self.items.contains_key(&product_id) {
            return Ok(vec![]);
        }
        if self.items.len() >= MAX_ITEMS {
            return Err(Refusal::Full { most: MAX_ITEMS });
        }
        Ok(vec![ItemAdded { product_id }.into()])
    }

    fn remove(&self, product_id: Uuid) -> Result<Vec<Event>, Refusal> {
        self.refuse_cleared()?;
        if !self.items.contains_key(&product_id) {
            return Ok(vec![]);
        }
        Ok(vec![ItemRemoved { product_id }.into()])
    }

    /// Appends an event also for an empty list, which refuses an addition that comes late.
    fn clear(&self) -> Vec<Event> {
        if self.cleared { vec![] } else { vec![Cleared {}.into()] }
    }

    fn refuse_cleared(&self) -> Result<(), Refusal> {
        if self.cleared { Err(Refusal::Cleared) } else { Ok(()) }
    }
}
