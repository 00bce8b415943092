//! How an order decides commands.

use super::{Cancel, Command, Detail, Order, Place, Price, Refusal, ReservedLine, Status};
use crate::{
    aggregate::{Aggregate, At},
    pricing::{Discounts, Standing, discounts, subtotal},
};
use chrono::TimeDelta;
use events::{
    Currency, Money, Timestamp,
    order::{
        Cancelled, Confirmed, CustomerSettled, Delivered, Discount, Event, Line, Placed, Priced,
        PricedLine, ProcessingStarted, Rejected, RejectionReason, Shipped, StockSettled,
    },
};
use std::{collections::BTreeSet, sync::Arc};

impl Aggregate for Order {
    type Command = Command;
    type Event = Event;
    type Refusal = Refusal;

    fn decide(&self, command: &Command, now: Timestamp) -> Result<Vec<Event>, Refusal> {
        let Some(status) = self.status else {
            return match command {
                Command::Place(place) => place_order(place, now),
                _ => Err(Refusal::NotFound),
            };
        };
        match command {
            Command::Place(_) => Err(Refusal::AlreadyExists),
            Command::Price(price) => self.price(status, price),
            Command::Reject(rejected) => self.reject(status, rejected),
            Command::StartPayment(start) => self.start_payment(status, start),
            Command::RecordCaptured(captured) => self.record_captured(status, captured),
            Command::RecordDeclined(declined) => self.record_declined(status, declined),
            Command::RecordVoided(voided) => self.record_voided(status, voided),
            Command::Expire => Ok(Self::expire(status)),
            Command::Cancel(cancel) => self.cancel(status, cancel),
            Command::ChangeStatus(to) => self.change_status(status, *to),
            Command::RecordRefund(refund) => self.record_refund(status, refund),
            Command::RecordRefundFailed(failed) => self.record_refund_failed(status, failed),
            Command::RecordCustomerClosed => self.record_customer_closed(status),
            Command::RecordStockClosed => self.record_stock_closed(status),
            Command::RecordMailSent(sent) => Ok(self.record_mail_sent(sent)),
            Command::RecordMailRefused(refused) => Ok(self.record_mail_refused(refused)),
        }
    }

    fn evolve(&mut self, event: &Event, at: At) {
        self.fold(event, at);
    }

    fn compact(&mut self) {
        self.forget();
    }
}

/// How long after its deadline an order may still be opened at its customer and products, so that
/// an outage up to this long does not reject it. Closes are remembered for as long, which bounds
/// the memory of a product.
const OPEN_BEYOND_DEADLINE: TimeDelta = TimeDelta::hours(1);

fn place_order(place: &Place, now: Timestamp) -> Result<Vec<Event>, Refusal> {
    let mut products = BTreeSet::new();
    let valid = |line: &Line| line.quantity >= 1 && products.insert(line.product_id);
    if place.lines.is_empty() || !place.lines.iter().all(valid) {
        return Err(Refusal::InvalidLines);
    }
    let Place { customer_id, lines, payment_method, shipping_address, deadline } = place.clone();
    // The deadline comes from the wall clock. Log time, by which customers and products judge, is
    // never behind the clock, but days ahead of it if the clock was once ahead.
    let not_after = now.max(deadline);
    let not_after = not_after.checked_add_signed(OPEN_BEYOND_DEADLINE).unwrap_or(not_after);
    let placed =
        Placed { customer_id, lines, payment_method, shipping_address, deadline, not_after };
    Ok(vec![placed.into()])
}

/// A rejection for this reason, without details.
pub(crate) fn rejected(reason: RejectionReason) -> Rejected {
    Rejected {
        reason,
        product_id: None,
        available: None,
        requested: None,
        decline_code: None,
        rests_on: Arc::default(),
    }
}

impl Order {
    fn price(&self, status: Status, price: &Price) -> Result<Vec<Event>, Refusal> {
        match (status, self.detail()) {
            (Status::Pending, Some(detail)) if detail.priced.is_some() => Ok(vec![]),
            (Status::Pending, Some(detail)) => priced(detail, price),
            (
                Status::Pending
                | Status::Confirmed
                | Status::Processing
                | Status::Shipped
                | Status::Delivered
                | Status::Cancelled
                | Status::Rejected,
                _,
            ) => Err(Refusal::TooLate { status }),
        }
    }

    /// Allowed only before the price is set; afterwards the payment decides.
    fn reject(&self, status: Status, rejected: &Rejected) -> Result<Vec<Event>, Refusal> {
        let is_priced = self.detail().is_some_and(|detail| detail.priced.is_some());
        match status {
            Status::Pending if !is_priced => Ok(vec![rejected.clone().into()]),
            Status::Rejected => Ok(vec![]),
            Status::Pending
            | Status::Confirmed
            | Status::Processing
            | Status::Shipped
            | Status::Delivered
            | Status::Cancelled => Err(Refusal::TooLate { status }),
        }
    }

    /// The shard decides when the deadline has passed: log time may be ahead of the clock that it was
    /// made from, and behind it after that clock was set right.
    fn expire(status: Status) -> Vec<Event> {
        match status {
            Status::Pending => vec![rejected(RejectionReason::Expired).into()],
            Status::Confirmed
            | Status::Processing
            | Status::Shipped
            | Status::Delivered
            | Status::Cancelled
            | Status::Rejected => vec![],
        }
    }

    fn cancel(&self, status: Status, cancel: &Cancel) -> Result<Vec<Event>, Refusal> {
        if cancel.by.is_some_and(|customer_id| customer_id != self.customer_id) {
            return Err(Refusal::NotFound);
        }
        match status {
            Status::Pending | Status::Confirmed | Status::Processing => {
                let (reason, mail) = (cancel.reason.clone(), self.was_confirmed);
                Ok(vec![Cancelled { reason, plain_reason: None, mail }.into()])
            }
            Status::Cancelled => Ok(vec![]),
            Status::Shipped | Status::Delivered | Status::Rejected => {
                Err(Refusal::IllegalTransition { from: status, to: Status::Cancelled })
            }
        }
    }

    fn change_status(&self, status: Status, to: Status) -> Result<Vec<Event>, Refusal> {
        let event: Event = match (status, to) {
            (from, to) if from == to => return Ok(vec![]),
            (_, Status::Cancelled) => return self.cancel(status, &Cancel::default()),
            (Status::Confirmed, Status::Processing) => ProcessingStarted {}.into(),
            (Status::Confirmed | Status::Processing, Status::Shipped) => {
                Shipped { mail: true }.into()
            }
            (Status::Shipped, Status::Delivered) => Delivered {}.into(),
            (from, to) => return Err(Refusal::IllegalTransition { from, to }),
        };
        Ok(vec![event])
    }

    fn record_customer_closed(&self, status: Status) -> Result<Vec<Event>, Refusal> {
        match status {
            Status::Pending => Err(Refusal::NotOwed { status }),
            _ if self.closes.customer => Ok(vec![]),
            Status::Confirmed
            | Status::Processing
            | Status::Shipped
            | Status::Delivered
            | Status::Cancelled
            | Status::Rejected => Ok(vec![CustomerSettled {}.into()]),
        }
    }

    fn record_stock_closed(&self, status: Status) -> Result<Vec<Event>, Refusal> {
        match status {
            Status::Pending | Status::Confirmed | Status::Processing => {
                Err(Refusal::NotOwed { status })
            }
            _ if self.closes.stock => Ok(vec![]),
            Status::Shipped | Status::Delivered | Status::Cancelled | Status::Rejected => {
                Ok(vec![StockSettled {}.into()])
            }
        }
    }
}

/// Prices the lines as reserved, in the sequence in which they were ordered. Rejects the order if
/// the lines have several currencies or if the subtotal is too large.
fn priced(detail: &Detail, price: &Price) -> Result<Vec<Event>, Refusal> {
    let lines = reserved_as_asked(&detail.lines, &price.lines)?;
    let units = lines.iter().map(|line| (line.unit_price.amount, line.quantity));
    let (Some(currency), Some(subtotal)) = (common_currency(&lines), subtotal(units)) else {
        let rests_on = Arc::clone(&price.rests_on);
        return Ok(vec![
            Rejected { rests_on, ..rejected(RejectionReason::ValidationFailed) }.into(),
        ]);
    };
    let money = |amount| Money::new(amount, currency);
    let Discounts { parts, discount } =
        discounts(subtotal, Standing { vip: price.vip, first: price.first }, price.discounts);
    let total = money(subtotal - discount);
    let priced = Priced {
        lines: lines.into_iter().map(priced_line).collect(),
        subtotal: money(subtotal),
        discounts: parts
            .into_iter()
            .map(|(kind, amount)| Discount { kind, amount: money(amount) })
            .collect(),
        discount: money(discount),
        total,
        rests_on: Arc::clone(&price.rests_on),
    };
    let confirmed = (total.amount == 0).then(|| Confirmed { mail: true }.into());
    Ok(std::iter::once(priced.into()).chain(confirmed).collect())
}

fn reserved_as_asked<'a>(
    asked: &[Line],
    reserved: &'a [ReservedLine],
) -> Result<Vec<&'a ReservedLine>, Refusal> {
    if asked.len() != reserved.len() {
        return Err(Refusal::InvalidLines);
    }
    let find = |line: &Line| {
        let matches = |found: &&ReservedLine| {
            found.product_id == line.product_id && found.quantity == line.quantity
        };
        reserved.iter().find(matches)
    };
    asked.iter().map(|line| find(line).ok_or(Refusal::InvalidLines)).collect()
}

fn common_currency(lines: &[&ReservedLine]) -> Option<Currency> {
    let currency = lines.first()?.unit_price.currency;
    lines.iter().all(|line| line.unit_price.currency == currency).then_some(currency)
}

/// The line total is at most the subtotal, which fits.
fn priced_line(line: &ReservedLine) -> PricedLine {
    PricedLine {
        product_id: line.product_id,
        name: Arc::clone(&line.name),
        quantity: line.quantity,
        unit_price: line.unit_price,
        line_total: line.unit_price.with(line.unit_price.amount.saturating_mul(line.quantity)),
    }
}
