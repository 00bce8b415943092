//! Checks products: no unit is sold twice, and every reservation belongs to an order.

use super::{Books, Broken, Status};
use events::{Timestamp, product::Event};
use std::collections::BTreeMap;
use uuid::Uuid;

#[derive(Clone, Debug, Default)]
pub struct Product {
    pub price: i64,
    pub on_hand: i64,
    pub shipped: i64,
    pub discontinued: bool,
    /// Reserved units, by order.
    pub held: BTreeMap<Uuid, i64>,
    /// Orders that are closed here and cannot reserve any more, and until when that is remembered.
    pub closed: BTreeMap<Uuid, Timestamp>,
}

impl Product {
    pub fn reserved(&self) -> i64 {
        self.held.values().sum()
    }

    /// Closes an order here, which ends its reservation. A second close is allowed only after the
    /// first one is forgotten, and with quantity 0.
    fn close(
        &mut self,
        order_id: Uuid,
        quantity: i64,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), Broken> {
        let held = self.held.remove(&order_id).unwrap_or(0);
        ensure!(held == quantity, "{held} units were reserved");
        let before = self.closed.insert(order_id, until);
        let again = before.is_some_and(|until| now <= until || held > 0);
        ensure!(!again, "order {order_id} is closed twice");
        Ok(())
    }
}

impl Books {
    pub(super) fn fold_product(
        &mut self,
        id: Uuid,
        event: &Event,
        now: Timestamp,
    ) -> Result<(), Broken> {
        if let Event::Added(added) = event {
            let (price, on_hand) = (added.price.amount, added.initial_stock);
            let before = self.products.insert(id, Product { price, on_hand, ..Product::default() });
            ensure!(before.is_none(), "the product is added twice");
            return Ok(());
        }
        // An order can be closed at a product that was never added.
        let product = self.products.entry(id).or_default();
        match event {
            Event::Added(_) => {}
            Event::Discontinued(_) => product.discontinued = true,
            Event::Changed(changed) => product.price = changed.price.amount,
            Event::StockChanged(changed) => product.on_hand += changed.quantity,
            Event::StockReserved(reserved) => {
                let order_id = reserved.order_id;
                let order = self
                    .orders
                    .get(&order_id)
                    .ok_or("a reservation for an order that does not exist")?;
                let asked = order.lines.get(&id).copied();
                ensure!(asked == Some(reserved.quantity), "the order asked for {asked:?} units");
                ensure!(!product.discontinued, "a reservation of a discontinued product");
                ensure!(!product.closed.contains_key(&order_id), "order {order_id} is closed here");
                ensure!(!order.stock_settled, "order {order_id} is recorded as closed here");
                ensure!(
                    reserved.unit_price.amount == product.price,
                    "the reserved price is not the product's price"
                );
                let before = product.held.insert(order_id, reserved.quantity);
                ensure!(before.is_none(), "a second reservation for order {order_id}");
            }
            Event::StockReleased(released) => {
                let order_id = released.order_id;
                product.close(order_id, released.quantity, released.not_after, now)?;
                let status = self.orders.get(&order_id).map(|order| order.status);
                let dead = status.is_some_and(Status::is_dead);
                ensure!(dead, "order {order_id} is {status:?} but its reservation is released");
            }
            Event::StockShipped(shipped) => {
                let order_id = shipped.order_id;
                product.close(order_id, shipped.quantity, shipped.not_after, now)?;
                let status = self.orders.get(&order_id).map(|order| order.status);
                let left = status.is_some_and(Status::has_left_the_house);
                ensure!(left, "order {order_id} is {status:?} but its stock is shipped");
                product.on_hand -= shipped.quantity;
                product.shipped += shipped.quantity;
            }
        }
        let (on_hand, reserved) = (product.on_hand, product.reserved());
        ensure!(reserved <= on_hand, "oversold: {reserved} units are reserved of {on_hand}");
        Ok(())
    }
}
