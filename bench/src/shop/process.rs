//! Commands as function calls.

use super::{PATIENCE, Shop};
use anyhow::{Context, Result, bail, ensure};
use commands::{Command, CommandError, Outcome, Request, State, order, product};
use events::{Fingerprint, StreamId, order::Line, product::StockReason};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::time::sleep;
use uuid::Uuid;

/// How long a client waits before it sends a command again that was certainly not applied.
const RETRY: Duration = Duration::from_millis(100);

/// The deadline of an order; the program's default.
pub(super) const DEADLINE: Duration = Duration::from_mins(15);

impl Shop {
    /// Sends a command, and again for a bounded time while it is certainly not applied, as a client
    /// would. A partition is reopened after a slow commit, which may take longer than a command may
    /// wait.
    pub(super) async fn send(
        &self,
        stream: StreamId,
        command: impl Into<Command>,
    ) -> Result<Outcome> {
        let id = self.environment.uuid();
        let request = Request {
            stream,
            command: command.into(),
            // Only an id derived from an idempotency key (UUIDv5) is remembered; other ids are not.
            command_id: if self.keyed { Uuid::new_v5(&id, b"idempotency-key") } else { id },
            fingerprint: Fingerprint(id.into_bytes()),
            expected_version: None,
            correlation_id: id,
            causation_id: id,
            traceparent: None,
        };
        let began = Instant::now();
        loop {
            match self.router.send(request.clone()).await {
                Err(CommandError::NotApplied(_)) if began.elapsed() < PATIENCE => {
                    self.again.fetch_add(1, Relaxed)
                }
                answer => return Ok(answer?),
            };
            sleep(RETRY).await;
        }
    }

    pub(super) async fn change_stock_directly(&self, product: Uuid) -> Result<()> {
        let change = product::ChangeStock { quantity: 1, reason: StockReason::Received };
        let stream = StreamId::product(product);
        let outcome = self.send(stream, product::Command::ChangeStock(change)).await?;
        ensure!(outcome.changed, "a change of stock had no effect");
        Ok(())
    }

    pub(super) async fn order_directly(
        &self,
        customer_id: Uuid,
        lines: Arc<[Line]>,
    ) -> Result<Uuid> {
        let order_id = self.environment.uuid();
        let place = order::Place {
            customer_id,
            lines,
            payment_method: "pm_card_visa".into(),
            shipping_address: None,
            deadline: self.environment.now() + DEADLINE,
        };
        let stream = StreamId::order(order_id);
        self.send(stream, order::Command::from(place)).await?;
        let final_state = self.router.await_final(stream, PATIENCE).await?;
        match final_state.context("an order was still pending after the time limit")?.state {
            State::Order(order) if order.status() == Some(order::Status::Confirmed) => Ok(order_id),
            State::Order(order) => {
                bail!("an order is {:?}, because {:?}", order.status(), order.reason())
            }
            other => bail!("an order is {other:?}"),
        }
    }
}
