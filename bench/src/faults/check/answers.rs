//! Checks the answers that clients got against the log.

use super::{Violations, books::Books, log::Event};
use crate::faults::history::{Action, Answer, Exchange, Outcome, Reply};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Compares the answers with the events in the log.
pub fn check(exchanges: &[Exchange], events: &[Event], books: &Books, violations: &mut Violations) {
    let mut by_command: BTreeMap<Uuid, Vec<&Event>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.by_client) {
        by_command.entry(event.command).or_default().push(event);
    }
    for exchange in exchanges {
        let events = by_command.remove(&exchange.command.id).unwrap_or_default();
        Case { exchange, events: &events, books }.check(violations);
    }
    for (command, events) in by_command {
        let Event { name, stream, .. } = events[0];
        violations.add(format!("{name} of {stream} by command {command}, which no client sent"));
    }
}

struct Case<'a> {
    exchange: &'a Exchange,
    /// The events that the command itself appended.
    events: &'a [&'a Event],
    books: &'a Books,
}

impl Case<'_> {
    fn name(&self) -> String {
        let command = &self.exchange.command;
        format!("key {} ({} {})", command.key, command.method, command.path)
    }

    fn check(&self, violations: &mut Violations) {
        let Self { exchange, events, .. } = self;
        for reply in &exchange.replies {
            if let Reply::Wrong(answer) = reply {
                violations.add(format!("{}: no client should get {answer:?}", self.name()));
            }
        }
        if events.len() > 1 {
            violations.doubled(&format!("{}: {} events", self.name(), events.len()));
        }
        let stream = exchange.command.stream();
        if events.iter().any(|event| event.stream != stream) {
            violations.add(format!("{}: its events are not in {stream}", self.name()));
        }
        self.check_sameness(violations);
        self.check_promises(violations);
        let accepted = || exchange.replies.iter().any(|reply| matches!(reply, Reply::Accepted));
        match exchange.outcome() {
            Outcome::Refused if !events.is_empty() => {
                let replies = &exchange.replies;
                violations.add(format!("{}: refused, but in the log: {replies:?}", self.name()));
            }
            Outcome::Unknown if exchange.command.creates() && accepted() && events.is_empty() => {
                violations.lost(&format!("{}: accepted, but not in the log", self.name()));
            }
            Outcome::Refused | Outcome::Unknown => {}
            Outcome::Acknowledged => {
                let answer = exchange.acknowledgement();
                if let Some(wrong) = answer.and_then(|answer| self.mismatch(answer)) {
                    let answer = format!("{answer:?}");
                    violations.lost(&format!("{}: {wrong}: {answer}", self.name()));
                }
            }
        }
    }

    /// If every earlier attempt was reported as not applied, an answer must not be marked as
    /// replayed.
    fn check_promises(&self, violations: &mut Violations) {
        let Self { exchange, .. } = self;
        let nothing = |reply: &&Reply| matches!(reply, Reply::NotApplied | Reply::NotSent);
        let before = exchange.replies.iter().take_while(nothing).count();
        if let Some(Reply::Final(answer)) = exchange.replies.get(before)
            && answer.replayed
            && !exchange.twins
        {
            violations.add(format!(
                "{}: reported as not applied {before} times, but then {answer:?}",
                self.name()
            ));
        }
    }

    /// Concurrent attempts and retries of an applied command must get the same answer.
    fn check_sameness(&self, violations: &mut Violations) {
        let mut done = self.exchange.answers().filter(|answer| answer.status < 300);
        let Some(first) = done.next() else { return };
        for other in done {
            let decided_anew = self.events.is_empty();
            if !decided_anew && first.essence() != other.essence() {
                violations
                    .add(format!("{}: different answers {first:?} and {other:?}", self.name()));
            }
        }
    }

    /// Describes how the log contradicts an answer.
    fn mismatch(&self, answer: &Answer) -> Option<String> {
        let id = self.exchange.command.stream().id;
        match self.exchange.command.action {
            Action::Order => self.order(id, answer),
            Action::Product => self.only("ProductAdded").or_else(|| self.balance(id, answer)),
            Action::Stock { product, quantity } => {
                self.only("StockChanged").or_else(|| self.balance(product, answer)).or_else(|| {
                    let changed = &self.events[0].body["quantity"];
                    (*changed != quantity)
                        .then(|| format!("a change of {changed} instead of {quantity} in the log"))
                })
            }
            Action::Register => self.only("RegistrationRequested").or_else(|| {
                let customer = self.books.customers.get(&id)?;
                let right =
                    if answer.status == 201 { customer.registered } else { customer.refused };
                (!right).then(|| "the log has the other outcome".to_owned())
            }),
            Action::Cancel { order } => self.moved(order, "cancelled", answer),
            Action::Move { order, to } => self.moved(order, to, answer),
        }
    }

    fn only(&self, name: &str) -> Option<String> {
        match self.events {
            [] => Some(format!("no {name} in the log")),
            [event, ..] => (event.name != name).then(|| format!("{} in the log", event.name)),
        }
    }

    /// The event must have the version of the answer, and the balances must be those of that
    /// version.
    fn balance(&self, product: Uuid, answer: &Answer) -> Option<String> {
        let version = self.events[0].version;
        if answer.etag != Some(version) {
            return Some(format!("version {version} in the log"));
        }
        let product = self.books.products.get(&product)?;
        let balance = product.balances.get(usize::try_from(version).ok()?.checked_sub(1)?)?;
        let names = ["on_hand", "reserved", "shipped"];
        let shown = names.map(|name| answer.body[name].as_i64().unwrap_or(-1));
        (shown != *balance).then(|| format!("{balance:?} in the log"))
    }

    fn order(&self, id: Uuid, answer: &Answer) -> Option<String> {
        if let Some(missing) = self.only("OrderPlaced") {
            return Some(missing);
        }
        let Some(order) = self.books.orders.get(&id) else { return Some("no order".to_owned()) };
        if answer.status != 201 {
            let reason = order.reason.as_deref();
            let same = reason.is_some() && reason == answer.problem.as_deref();
            return (!same).then(|| format!("rejected for {reason:?} in the log"));
        }
        let (ids, total) = (&answer.body["order_id"], answer.body["total"]["amount"].as_i64());
        if ids.as_str() != Some(&id.to_string()) || total != order.total {
            return Some(format!("order {id} of {:?} in the log", order.total));
        }
        Self::status_of(order, answer)
    }

    /// The order must have had the status of the answer at the version of the answer.
    fn status_of(order: &super::books::Order, answer: &Answer) -> Option<String> {
        let version = usize::try_from(answer.etag.unwrap_or_default()).ok()?;
        let then = version.checked_sub(1).and_then(|nth| order.statuses.get(nth));
        let shown = answer.body["status"].as_str();
        (then.copied() != shown).then(|| format!("{then:?} at that version in the log"))
    }

    /// The command must have moved the order to this status, or the order already had it.
    fn moved(&self, order: Uuid, to: &str, answer: &Answer) -> Option<String> {
        let Some(order) = self.books.orders.get(&order) else { return Some("no order".into()) };
        if answer.body["status"] != to {
            return Some(format!("the client asked for {to}"));
        }
        match self.events {
            [] => Self::status_of(order, answer),
            [event, ..] => {
                let nth = usize::try_from(event.version).ok()?.checked_sub(1)?;
                let there = order.statuses.get(nth).copied();
                (there != Some(to)).then(|| format!("{there:?} in the log"))
            }
        }
    }
}
