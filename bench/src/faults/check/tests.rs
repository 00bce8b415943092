//! The checks find what they must find: each test starts from a correct history and breaks one
//! thing.

use super::{Violations, answers, books::Books, log, log::Event};
use crate::faults::history::{Action, Answer, Command, Exchange, Reply};
use events::{StreamId, StreamKind};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// A history with a product and a confirmed, paid order of two units of it.
#[derive(Clone)]
struct Story {
    events: Vec<Event>,
    exchanges: Vec<Exchange>,
    journal: String,
}

fn command(action: Action, number: u128) -> Command {
    Command {
        action,
        key: format!("key-{number}"),
        id: Uuid::from_u128(number),
        method: Method::POST,
        path: "/".to_owned(),
        body: Value::Null,
    }
}

fn answer(status: u16, etag: u64, body: Value) -> Answer {
    Answer {
        status,
        problem: None,
        etag: Some(etag),
        location: None,
        position: None,
        replayed: false,
        body,
    }
}

impl Story {
    fn new() -> Self {
        let (adds, orders) = (command(Action::Product, 1), command(Action::Order, 2));
        let (product, order) = (adds.stream(), orders.stream());
        let customer = StreamId::customer(Uuid::from_u128(7));
        let (reserved, payment) = (json!({"order_id": order.id, "quantity": 2}), "pay_1");
        let money = json!({"amount": 500});
        let placed = json!({
            "customer_id": customer.id, "lines": [{"product_id": product.id, "quantity": 2}],
        });
        let mut story = Self { events: Vec::new(), exchanges: Vec::new(), journal: String::new() };
        story.append(product, "ProductAdded", &json!({"initial_stock": 3}), Some(adds.id));
        story.append(order, "OrderPlaced", &placed, Some(orders.id));
        story.append(product, "StockReserved", &reserved, None);
        story.append(order, "OrderPriced", &json!({"total": money, "discounts": []}), None);
        let started = json!({"payment_id": payment, "amount": money});
        story.append(order, "PaymentStarted", &started, None);
        story.append(order, "PaymentCaptured", &json!({"amount": money}), None);
        story.append(order, "OrderConfirmed", &json!({}), None);
        story.append(customer, "OrderClosed", &json!({"confirmed": true}), None);
        story.append(order, "OrderCustomerSettled", &json!({}), None);
        story.journal_entry(&json!({"did": "captured", "payment_id": payment, "amount": money}));
        let added = json!({"on_hand": 3, "reserved": 0, "shipped": 0});
        story.answer(adds, answer(201, 1, added));
        let confirmed = json!({"order_id": order.id, "status": "confirmed", "total": money});
        story.answer(orders, answer(201, 5, confirmed));
        story
    }

    fn append(&mut self, stream: StreamId, name: &str, body: &Value, command: Option<Uuid>) {
        let version = self.events.iter().filter(|event| event.stream == stream).count() as u64 + 1;
        self.events.push(Event::made_up(stream, version, name, body.clone(), command));
    }

    fn answer(&mut self, command: Command, answer: Answer) {
        self.exchanges.push(Exchange {
            command,
            replies: vec![Reply::Final(answer)],
            twins: false,
        });
    }

    fn journal_entry(&mut self, entry: &Value) {
        self.journal += &entry.to_string();
        self.journal.push('\n');
    }

    fn check(&self) -> Violations {
        let mut violations = Violations::default();
        log::check_order(&self.events, &mut violations);
        let books = Books::of(&self.events, &mut violations);
        books.check(&mut violations);
        answers::check(&self.exchanges, &self.events, &books, &mut violations);
        books.check_journal(&self.journal, &mut violations);
        violations
    }

    fn product(&self) -> StreamId {
        self.exchanges[0].command.stream()
    }

    fn without(mut self, name: &str) -> Self {
        self.events.retain(|event| event.name != name);
        self
    }
}

#[test]
fn a_correct_history_has_no_violations() {
    assert_eq!(Story::new().check().found, Vec::<String>::new());
}

#[test]
fn an_acknowledged_command_that_is_not_in_the_log_is_lost() {
    let mut story = Story::new();
    let adds = command(Action::Product, 3);
    story.answer(adds, answer(201, 1, json!({"on_hand": 1, "reserved": 0, "shipped": 0})));
    assert_eq!(story.check().lost, 1);
}

#[test]
fn a_command_that_is_in_the_log_twice_is_doubled() {
    let mut story = Story::new();
    let (id, product) = (Uuid::from_u128(3), story.product());
    let action = Action::Stock { product: product.id, quantity: 1 };
    let balance = json!({"on_hand": 4, "reserved": 2, "shipped": 0});
    story.answer(command(action, 3), answer(200, 3, balance));
    story.append(product, "StockChanged", &json!({"quantity": 1}), Some(id));
    assert_eq!(story.check().found, Vec::<String>::new());
    story.append(product, "StockChanged", &json!({"quantity": 1}), Some(id));
    assert_eq!(story.check().doubled, 1);
}

#[test]
fn a_refused_command_that_is_in_the_log_is_found() {
    let mut story = Story::new();
    story.exchanges[0].replies = vec![Reply::NotApplied, Reply::NotSent];
    assert_eq!(story.check().found.len(), 1);
    story.exchanges[0].replies.push(Reply::Unknown("no answer".to_owned()));
    assert_eq!(story.check().found, Vec::<String>::new(), "an unknown outcome contradicts nothing");
}

#[test]
fn a_replayed_answer_after_attempts_that_were_not_applied_is_found() {
    let mut story = Story::new();
    let Reply::Final(mut answer) = story.exchanges[1].replies.remove(0) else { unreachable!() };
    answer.replayed = true;
    story.exchanges[1].replies = vec![Reply::NotApplied, Reply::Final(answer)];
    assert_eq!(story.check().found.len(), 1);
    story.exchanges[1].replies.insert(1, Reply::Unknown("no answer".to_owned()));
    assert_eq!(story.check().found, Vec::<String>::new());
}

#[test]
fn an_event_of_a_command_that_no_client_sent_is_found() {
    let mut story = Story::new();
    story.exchanges.remove(0);
    assert_eq!(story.check().found.len(), 1);
}

#[test]
fn an_answer_that_the_log_contradicts_is_found() {
    for (name, wrong) in [("on_hand", 4), ("reserved", 1), ("shipped", 1)] {
        let mut story = Story::new();
        let Reply::Final(answer) = &mut story.exchanges[0].replies[0] else { unreachable!() };
        answer.body[name] = wrong.into();
        assert_eq!(story.check().lost, 1, "{name}");
    }
    let mut story = Story::new();
    let Reply::Final(answer) = &mut story.exchanges[1].replies[0] else { unreachable!() };
    answer.body["total"]["amount"] = 499.into();
    assert_eq!(story.check().lost, 1);
}

#[test]
fn two_answers_to_one_key_are_found() {
    let mut story = Story::new();
    let Reply::Final(mut other) = story.exchanges[1].replies[0].clone() else { unreachable!() };
    other.position = Some("0:1".to_owned());
    story.exchanges[1].replies.push(Reply::Final(other));
    assert_eq!(story.check().found.len(), 1);
}

#[test]
fn an_oversold_product_is_found() {
    let mut story = Story::new();
    let (product, other) = (story.product(), Uuid::from_u128(9));
    let reserved = json!({"order_id": other, "quantity": 2});
    story.append(product, "StockReserved", &reserved, None);
    let found = story.check().found;
    assert!(found.iter().any(|one| one.starts_with("oversold")), "{found:?}");
}

#[test]
fn money_taken_twice_or_without_an_order_is_found() {
    let mut story = Story::new();
    let twice = json!({"did": "captured", "payment_id": "pay_1", "amount": {"amount": 500}});
    story.journal_entry(&twice);
    assert_eq!(story.check().doubled, 1);
    let mut story = Story::new();
    let strange = json!({"did": "captured", "payment_id": "pay_2", "amount": {"amount": 500}});
    story.journal_entry(&strange);
    assert_eq!(story.check().found.len(), 2, "the payment has no order, and the sum is wrong");
}

#[test]
fn an_unfinished_order_is_found() {
    for (missing, said) in [
        ("OrderCustomerSettled", "not closed at its customer"),
        ("StockReserved", "the reservations of"),
    ] {
        let mut story = Story::new().without(missing);
        // Renumber the versions, so that the gap itself is no violation.
        renumber(&mut story.events);
        let found = story.check().found;
        assert!(found.iter().any(|one| one.contains(said)), "{found:?}");
    }
}

fn renumber(events: &mut [Event]) {
    let streams: Vec<StreamId> = events.iter().map(|event| event.stream).collect();
    for nth in 0..events.len() {
        let before = streams[..nth].iter().filter(|stream| **stream == streams[nth]).count();
        events[nth].version = before as u64 + 1;
    }
}

#[test]
fn a_gap_in_a_stream_is_found() {
    let story = Story::new().without("OrderPriced");
    let found = story.check().found;
    assert!(found.iter().any(|one| one.contains("has version 3 after 1")), "{found:?}");
}

#[test]
fn torn_batches_and_those_of_a_former_writer_do_not_count() {
    let stream = StreamId::product(Uuid::from_u128(1));
    let writer = StreamId { kind: StreamKind::Writer, id: Uuid::nil() };
    let event = |version: u64| Event::made_up(stream, version, "StockChanged", json!({}), None);
    let whole = event(1).in_batch(1, 10, (0, 1));
    let torn = event(2).in_batch(1, 11, (0, 2));
    let claim = Event::made_up(writer, 2, "WriterClaimed", json!({}), None);
    let claim = claim.in_batch(2, 12, (0, 1));
    let overtaken = event(2).in_batch(1, 13, (0, 1));
    let counted = log::count(vec![vec![whole, torn, claim, overtaken]]);
    assert_eq!((counted.events.len(), counted.claims, counted.void), (1, 1, 2));
}
