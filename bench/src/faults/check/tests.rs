//! The judge finds what it is there to find: a history in which all is well, and then one thing is not.

use super::{Violations, answers, books::Books, log, log::Event};
use crate::faults::history::{Answer, Asked, Command, Reply, Told};
use events::{StreamId, StreamKind};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// A product, and an order of two of it, paid and confirmed.
#[derive(Clone)]
struct Story {
    events: Vec<Event>,
    told: Vec<Told>,
    journal: String,
}

fn command(asked: Asked, number: u128) -> Command {
    Command {
        asked,
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
        let (adds, orders) = (command(Asked::Product, 1), command(Asked::Order, 2));
        let (product, order) = (adds.stream(), orders.stream());
        let customer = StreamId::customer(Uuid::from_u128(7));
        let (held, payment) = (json!({"order_id": order.id, "quantity": 2}), "pay_1");
        let money = json!({"amount": 500});
        let placed = json!({
            "customer_id": customer.id, "lines": [{"product_id": product.id, "quantity": 2}],
        });
        let mut story = Self { events: Vec::new(), told: Vec::new(), journal: String::new() };
        story.happens(product, "ProductAdded", &json!({"initial_stock": 3}), Some(adds.id));
        story.happens(order, "OrderPlaced", &placed, Some(orders.id));
        story.happens(product, "StockReserved", &held, None);
        story.happens(order, "OrderPriced", &json!({"total": money, "discounts": []}), None);
        let started = json!({"payment_id": payment, "amount": money});
        story.happens(order, "PaymentStarted", &started, None);
        story.happens(order, "PaymentCaptured", &json!({"amount": money}), None);
        story.happens(order, "OrderConfirmed", &json!({}), None);
        story.happens(customer, "OrderClosed", &json!({"confirmed": true}), None);
        story.happens(order, "OrderCustomerSettled", &json!({}), None);
        story.gateway(&json!({"did": "captured", "payment_id": payment, "amount": money}));
        let added = json!({"on_hand": 3, "reserved": 0, "shipped": 0});
        story.tell(adds, answer(201, 1, added));
        let confirmed = json!({"order_id": order.id, "status": "confirmed", "total": money});
        story.tell(orders, answer(201, 5, confirmed));
        story
    }

    fn happens(&mut self, stream: StreamId, name: &str, body: &Value, command: Option<Uuid>) {
        let version = self.events.iter().filter(|event| event.stream == stream).count() as u64 + 1;
        self.events.push(Event::made_up(stream, version, name, body.clone(), command));
    }

    fn tell(&mut self, command: Command, answer: Answer) {
        self.told.push(Told { command, replies: vec![Reply::Final(answer)], twins: false });
    }

    fn gateway(&mut self, entry: &Value) {
        self.journal += &entry.to_string();
        self.journal.push('\n');
    }

    fn judged(&self) -> Violations {
        let mut violations = Violations::default();
        log::check_order(&self.events, &mut violations);
        let books = Books::of(&self.events, &mut violations);
        books.check(&mut violations);
        answers::check(&self.told, &self.events, &books, &mut violations);
        books.check_journal(&self.journal, &mut violations);
        violations
    }

    fn product(&self) -> StreamId {
        self.told[0].command.stream()
    }

    fn without(mut self, name: &str) -> Self {
        self.events.retain(|event| event.name != name);
        self
    }
}

#[test]
fn a_history_in_which_all_is_well_is_left_alone() {
    assert_eq!(Story::new().judged().found, Vec::<String>::new());
}

#[test]
fn what_was_acknowledged_and_is_not_in_the_log_is_lost() {
    let mut story = Story::new();
    let adds = command(Asked::Product, 3);
    story.tell(adds, answer(201, 1, json!({"on_hand": 1, "reserved": 0, "shipped": 0})));
    assert_eq!(story.judged().lost, 1);
}

#[test]
fn a_command_that_is_in_the_log_twice_is_doubled() {
    let mut story = Story::new();
    let (id, product) = (Uuid::from_u128(3), story.product());
    let asked = Asked::Stock { product: product.id, quantity: 1 };
    let told = json!({"on_hand": 4, "reserved": 2, "shipped": 0});
    story.tell(command(asked, 3), answer(200, 3, told));
    story.happens(product, "StockChanged", &json!({"quantity": 1}), Some(id));
    assert_eq!(story.judged().found, Vec::<String>::new());
    story.happens(product, "StockChanged", &json!({"quantity": 1}), Some(id));
    assert_eq!(story.judged().doubled, 1);
}

#[test]
fn what_was_refused_and_is_in_the_log_is_found() {
    let mut story = Story::new();
    story.told[0].replies = vec![Reply::NotApplied, Reply::NotSent];
    assert_eq!(story.judged().found.len(), 1);
    story.told[0].replies.push(Reply::Unknown("no answer".to_owned()));
    assert_eq!(story.judged().found, Vec::<String>::new(), "nobody knew");
}

#[test]
fn an_answer_for_the_second_time_to_who_was_told_that_nothing_was_done_is_found() {
    let mut story = Story::new();
    let Reply::Final(mut answer) = story.told[1].replies.remove(0) else { unreachable!() };
    answer.replayed = true;
    story.told[1].replies = vec![Reply::NotApplied, Reply::Final(answer)];
    assert_eq!(story.judged().found.len(), 1);
    story.told[1].replies.insert(1, Reply::Unknown("no answer".to_owned()));
    assert_eq!(story.judged().found, Vec::<String>::new());
}

#[test]
fn an_event_that_nobody_asked_for_is_found() {
    let mut story = Story::new();
    story.told.remove(0);
    assert_eq!(story.judged().found.len(), 1);
}

#[test]
fn an_answer_that_the_log_contradicts_is_found() {
    for (name, wrong) in [("on_hand", 4), ("reserved", 1), ("shipped", 1)] {
        let mut story = Story::new();
        let Reply::Final(answer) = &mut story.told[0].replies[0] else { unreachable!() };
        answer.body[name] = wrong.into();
        assert_eq!(story.judged().lost, 1, "{name}");
    }
    let mut story = Story::new();
    let Reply::Final(answer) = &mut story.told[1].replies[0] else { unreachable!() };
    answer.body["total"]["amount"] = 499.into();
    assert_eq!(story.judged().lost, 1);
}

#[test]
fn two_answers_to_one_key_are_found() {
    let mut story = Story::new();
    let Reply::Final(mut other) = story.told[1].replies[0].clone() else { unreachable!() };
    other.position = Some("0:1".to_owned());
    story.told[1].replies.push(Reply::Final(other));
    assert_eq!(story.judged().found.len(), 1);
}

#[test]
fn more_sold_than_there_is_is_found() {
    let mut story = Story::new();
    let (product, other) = (story.product(), Uuid::from_u128(9));
    let held = json!({"order_id": other, "quantity": 2});
    story.happens(product, "StockReserved", &held, None);
    let found = story.judged().found;
    assert!(found.iter().any(|one| one.starts_with("sold more than there is")), "{found:?}");
}

#[test]
fn money_that_moved_twice_or_for_nobody_is_found() {
    let mut story = Story::new();
    let twice = json!({"did": "captured", "payment_id": "pay_1", "amount": {"amount": 500}});
    story.gateway(&twice);
    assert_eq!(story.judged().doubled, 1);
    let mut story = Story::new();
    let strange = json!({"did": "captured", "payment_id": "pay_2", "amount": {"amount": 500}});
    story.gateway(&strange);
    assert_eq!(story.judged().found.len(), 2, "of nobody, and the sum is wrong");
}

#[test]
fn an_order_that_did_not_come_to_its_end_is_found() {
    for (missing, said) in
        [("OrderCustomerSettled", "not closed at its customer"), ("StockReserved", "not held")]
    {
        let mut story = Story::new().without(missing);
        // Versions are another matter.
        renumber(&mut story.events);
        let found = story.judged().found;
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
    let found = story.judged().found;
    assert!(found.iter().any(|one| one.contains("has version 3 after 1")), "{found:?}");
}

#[test]
fn torn_and_overtaken_batches_do_not_count() {
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
