//! The clients' answers against the log.

use super::{Violations, books::Books, log::Event};
use crate::faults::history::{Answer, Asked, Fate, Reply, Told};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Compares what clients were told with what is in the log.
pub fn check(told: &[Told], events: &[Event], books: &Books, violations: &mut Violations) {
    let mut asked: BTreeMap<Uuid, Vec<&Event>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.asked) {
        asked.entry(event.command).or_default().push(event);
    }
    for told in told {
        let events = asked.remove(&told.command.id).unwrap_or_default();
        Case { told, events: &events, books }.check(violations);
    }
    for (command, events) in asked {
        let Event { name, stream, .. } = events[0];
        violations.add(format!("{name} of {stream} by command {command}, which nobody sent"));
    }
}

struct Case<'a> {
    told: &'a Told,
    /// The events that the command itself appended.
    events: &'a [&'a Event],
    books: &'a Books,
}

impl Case<'_> {
    fn name(&self) -> String {
        let command = &self.told.command;
        format!("key {} ({} {})", command.key, command.method, command.path)
    }

    fn check(&self, violations: &mut Violations) {
        let Self { told, events, .. } = self;
        for reply in &told.replies {
            if let Reply::Wrong(answer) = reply {
                violations.add(format!("{}: no client should get {answer:?}", self.name()));
            }
        }
        if events.len() > 1 {
            violations.doubled(&format!("{}: {} events", self.name(), events.len()));
        }
        let stream = told.command.stream();
        if events.iter().any(|event| event.stream != stream) {
            violations.add(format!("{}: not in {stream}", self.name()));
        }
        self.check_sameness(violations);
        self.check_promises(violations);
        let accepted = || told.replies.iter().any(|reply| matches!(reply, Reply::Accepted));
        match told.fate() {
            Fate::Refused if !events.is_empty() => {
                let replies = &told.replies;
                violations.add(format!("{}: refused, and in the log: {replies:?}", self.name()));
            }
            Fate::Unknown if told.command.creates() && accepted() && events.is_empty() => {
                violations.lost(&format!("{}: accepted, and not in the log", self.name()));
            }
            Fate::Refused | Fate::Unknown => {}
            Fate::Acknowledged => {
                let answer = told.acknowledgement();
                if let Some(wrong) = answer.and_then(|answer| self.mismatch(answer)) {
                    let answer = format!("{answer:?}");
                    violations.lost(&format!("{}: {wrong}: {answer}", self.name()));
                }
            }
        }
    }

    /// Who was told each time that nothing was applied cannot be answered for the second time.
    fn check_promises(&self, violations: &mut Violations) {
        let Self { told, .. } = self;
        let nothing = |reply: &&Reply| matches!(reply, Reply::NotApplied | Reply::NotSent);
        let before = told.replies.iter().take_while(nothing).count();
        if let Some(Reply::Final(answer)) = told.replies.get(before)
            && answer.replayed
            && !told.twins
        {
            violations.add(format!("{}: not applied {before} times, yet {answer:?}", self.name()));
        }
    }

    /// Twins and retries of what was done have one answer.
    fn check_sameness(&self, violations: &mut Violations) {
        let mut done = self.told.answers().filter(|answer| answer.status < 300);
        let Some(first) = done.next() else { return };
        for other in done {
            let decided_anew = self.events.is_empty();
            if !decided_anew && first.essence() != other.essence() {
                violations.add(format!("{}: {first:?} and {other:?}", self.name()));
            }
        }
    }

    /// What the log has against an answer.
    fn mismatch(&self, answer: &Answer) -> Option<String> {
        let id = self.told.command.stream().id;
        match self.told.command.asked {
            Asked::Order => self.order(id, answer),
            Asked::Product => self.only("ProductAdded").or_else(|| self.balance(id, answer)),
            Asked::Stock { product, quantity } => {
                self.only("StockChanged").or_else(|| self.balance(product, answer)).or_else(|| {
                    let changed = &self.events[0].body["quantity"];
                    (*changed != quantity).then(|| format!("{changed} instead of {quantity}"))
                })
            }
            Asked::Register => self.only("RegistrationRequested").or_else(|| {
                let customer = self.books.customers.get(&id)?;
                let right =
                    if answer.status == 201 { customer.registered } else { customer.refused };
                (!right).then(|| "the log has it otherwise".to_owned())
            }),
            Asked::Cancel { order } => self.moved(order, "cancelled", answer),
            Asked::Move { order, to } => self.moved(order, to, answer),
        }
    }

    fn only(&self, name: &str) -> Option<String> {
        match self.events {
            [] => Some(format!("no {name} in the log")),
            [event, ..] => (event.name != name).then(|| format!("{} in the log", event.name)),
        }
    }

    /// The event stands at the version of the answer, and the balances are those of that version.
    fn balance(&self, product: Uuid, answer: &Answer) -> Option<String> {
        let version = self.events[0].version;
        if answer.etag != Some(version) {
            return Some(format!("version {version} in the log"));
        }
        let product = self.books.products.get(&product)?;
        let balance = product.balances.get(usize::try_from(version).ok()?.checked_sub(1)?)?;
        let names = ["on_hand", "reserved", "shipped"];
        let told = names.map(|name| answer.body[name].as_i64().unwrap_or(-1));
        (told != *balance).then(|| format!("{balance:?} in the log"))
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

    /// The order was there at the version of the answer.
    fn status_of(order: &super::books::Order, answer: &Answer) -> Option<String> {
        let version = usize::try_from(answer.etag.unwrap_or_default()).ok()?;
        let then = version.checked_sub(1).and_then(|nth| order.statuses.get(nth));
        let told = answer.body["status"].as_str();
        (then.copied() != told).then(|| format!("{then:?} at that version in the log"))
    }

    /// The command moved the order there, or it was there already.
    fn moved(&self, order: Uuid, to: &str, answer: &Answer) -> Option<String> {
        let Some(order) = self.books.orders.get(&order) else { return Some("no order".into()) };
        if answer.body["status"] != to {
            return Some(format!("{to} was asked for"));
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
