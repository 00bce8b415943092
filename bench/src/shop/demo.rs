//! Orders like those of `orderlog demo`.

use super::{PATIENCE, Shop, process::DEADLINE};
use anyhow::{Context, Result, ensure};
use commands::{State, order};
use events::{StreamId, order::Line};
use std::sync::Arc;
use uuid::Uuid;

impl Shop {
    /// Places order number `number` with one to three products, one or two of each; every 25th is
    /// declined. Waits until the order is confirmed or rejected, and returns its id.
    ///
    /// # Errors
    /// When it is still pending after the time limit.
    pub async fn demo_order(&self, number: u64) -> Result<Uuid> {
        let (number, products) = (usize::try_from(number)?, self.products.len());
        let pick = |nth| self.products[(number * 5 + nth * 7) % products];
        let quantity = 1 + i64::try_from(number % 2)?;
        let line = |nth| Line { product_id: pick(nth), quantity };
        let lines: Arc<[Line]> = (0..=number % 3).map(line).collect();
        let method = if number % 25 == 24 { "pm_card_declined" } else { "pm_card_visa" };
        let order_id = self.environment.uuid();
        let place = order::Place {
            customer_id: self.customers[number % self.customers.len()],
            lines,
            payment_method: method.into(),
            shipping_address: None,
            deadline: self.environment.now() + DEADLINE,
        };
        let stream = StreamId::order(order_id);
        self.send(stream, order::Command::from(place)).await?;
        let final_state = self.router.await_final(stream, PATIENCE).await?;
        let state = final_state.context("an order was still pending after the time limit")?.state;
        ensure!(matches!(state, State::Order(_)), "an order is {state:?}");
        Ok(order_id)
    }
}
