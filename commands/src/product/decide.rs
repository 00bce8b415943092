//! How a product decides commands.

use super::{Add, Change, ChangeStock, Close, Command, Listing, Product, Refusal, Reserve};
use crate::aggregate::{Aggregate, At};
use events::{
    Timestamp,
    planted::Bug,
    product::{
        Added, Changed, Discontinued, Event, StockChanged, StockReleased, StockReserved,
        StockShipped,
    },
};

impl Aggregate for Product {
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, command: &Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        match command {
            Command::Add(add) => self.add(add),
            Command::Change(change) => self.change(change),
            Command::ChangeStock(change) => self.change_stock(change),
            Command::Discontinue => self.discontinue(),
            Command::Reserve(reserve) => self.reserve_for(reserve, now),
            Command::Release(close) => Ok(self.release(close)),
            Command::Ship(close) => Ok(self.ship(close)),
        }
    }

    fn evolve(&mut self, event: &Event, at: At) {
        self.fold(event, at);
    }
}

impl Product {
    fn listed(&self) -> Result<&Listing, Refusal> {
        self.listing().ok_or(Refusal::NotFound)
    }

    fn add(&self, add: &Add) -> Result<Vec<Event>, Refusal> {
        if self.exists() {
            return Err(Refusal::AlreadyExists);
        }
        if add.initial_stock < 0 {
            return Err(Refusal::InvalidQuantity);
        }
        let Add { name, description, category, price, initial_stock } = add.clone();
        Ok(vec![Added { name, description, category, price, initial_stock }.into()])
    }

    fn change(&self, change: &Change) -> Result<Vec<Event>, Refusal> {
        let listing = self.listed()?;
        let wanted = listing.clone().with(change.clone());
        if wanted == *listing {
            return Ok(vec![]);
        }
        let Listing { name, description, category, price } = wanted;
        Ok(vec![Changed { name, description, category, price }.into()])
    }

    fn change_stock(&self, change: &ChangeStock) -> Result<Vec<Event>, Refusal> {
        self.listed()?;
        let &ChangeStock { quantity, reason } = change;
        let on_hand = self.on_hand.checked_add(quantity).ok_or(Refusal::StockOverflow)?;
        // All of it may be shipped one day, and the total shipped must not overflow either.
        on_hand.checked_add(self.shipped).ok_or(Refusal::StockOverflow)?;
        if on_hand < self.reserved {
            return Err(Refusal::StockBelowReserved { on_hand, reserved: self.reserved });
        }
        Ok(if quantity == 0 { vec![] } else { vec![StockChanged { quantity, reason }.into()] })
    }

    fn discontinue(&self) -> Result<Vec<Event>, Refusal> {
        self.listed()?;
        Ok(if self.discontinued { vec![] } else { vec![Discontinued {}.into()] })
    }

    fn reserve_for(&self, reserve: &Reserve, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        let listing = self.listed()?;
        let &Reserve { order_id, quantity, not_after } = reserve;
        if let Some(&super::Reservation { quantity: reserved, .. }) = self.reservation(order_id) {
            return if reserved == quantity {
                Ok(vec![])
            } else {
                Err(Refusal::AlreadyReserved { reserved })
            };
        }
        if self.closed.refuses(order_id, not_after, now) {
            return Err(Refusal::ReservationClosed);
        }
        if self.discontinued {
            return Err(Refusal::Discontinued);
        }
        if quantity < 1 {
            return Err(Refusal::InvalidQuantity);
        }
        let available = self.available();
        if quantity > available {
            return Err(Refusal::InsufficientStock { available, requested: quantity });
        }
        let Listing { name, price: unit_price, .. } = listing.clone();
        Ok(vec![StockReserved { order_id, quantity, name, unit_price, not_after }.into()])
    }

    /// The reserved units that this close ends the reservation of, 0 if nothing is reserved; `None`
    /// if the order is already closed here.
    fn closing(&self, close: &Close) -> Option<i64> {
        if self.closed.contains(close.order_id) {
            return None;
        }
        let reserved = self.reservation(close.order_id).map(|reservation| reservation.quantity);
        if Bug::CloseAppendsNothing.is_planted() {
            return reserved;
        }
        Some(reserved.unwrap_or(0))
    }

    fn release(&self, close: &Close) -> Vec<Event> {
        let &Close { order_id, not_after } = close;
        let released = |quantity| StockReleased { order_id, quantity, not_after }.into();
        self.closing(close).map(released).into_iter().collect()
    }

    fn ship(&self, close: &Close) -> Vec<Event> {
        let &Close { order_id, not_after } = close;
        let shipped = |quantity| StockShipped { order_id, quantity, not_after }.into();
        self.closing(close).map(shipped).into_iter().collect()
    }
}

impl Listing {
    fn with(self, change: Change) -> Self {
        Self {
            name: change.name.unwrap_or(self.name),
            description: change.description.unwrap_or(self.description),
            category: change.category.unwrap_or(self.category),
            price: change.price.unwrap_or(self.price),
        }
    }
}
