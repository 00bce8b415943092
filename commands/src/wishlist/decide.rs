//! How a wishlist decides commands.

use super::{Command, MAX_ITEMS, Refusal, Wishlist};
use crate::aggregate::{Aggregate, At};
use events::{
    Timestamp,
    wishlist::{Event, ItemAdded, ItemRemoved},
};
use uuid::Uuid;

impl Aggregate for Wishlist {
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, command: &Command, _now: Timestamp) -> Result<Vec<Event>, Refusal> {
        match *command {
            Command::Add(product_id) => self.add(product_id),
            Command::Remove(product_id) => Ok(self.remove(product_id)),
        }
    }

    fn evolve(&mut self, event: &Event, at: At) {
        self.fold(event, at);
    }
}

impl Wishlist {
    fn add(&self, product_id: Uuid) -> Result<Vec<Event>, Refusal> {
        if self.items.contains_key(&product_id) {
            return Ok(vec![]);
        }
        if self.items.len() >= MAX_ITEMS {
            return Err(Refusal::Full { most: MAX_ITEMS });
        }
        Ok(vec![ItemAdded { product_id }.into()])
    }

    fn remove(&self, product_id: Uuid) -> Vec<Event> {
        if !self.items.contains_key(&product_id) {
            return vec![];
        }
        vec![ItemRemoved { product_id }.into()]
    }
}
