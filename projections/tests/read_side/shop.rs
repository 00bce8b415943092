//! A log of a made-up shop: histories of products, customers, addresses and orders, interleaved by a seed.

use chrono::TimeDelta;
use events::{
    Currency, Environment, Event, Metadata, Money, Offset, Partition, Position, Sealed, StreamId,
    Timestamp,
    customer::{self, OrderClosed, OrderOpened, RegistrationRequested},
    email,
    environment::System,
    log::{Cursor, EventLog, Record, Writer, opening},
    order::{self, Confirmed, Discount, DiscountKind, Line, Placed, PricedLine},
    partitioner::partition_of,
    product::{self, StockReason},
    wishlist::{self, Cleared, ItemAdded, ItemRemoved},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use uuid::Uuid;

/// A small generator of random numbers (splitmix64): the same on every machine.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn id(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.next(), self.next())
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub fn pounds(amount: i64) -> Money {
    Money::new(amount, "GBP".parse::<Currency>().unwrap())
}

pub fn moment(micros: i64) -> Timestamp {
    Timestamp::from_timestamp_micros(1_800_000_000_000_000 + micros).unwrap()
}

fn sealed(text: String) -> Sealed {
    Sealed::from(text)
}

/// Events, each of a stream, in an order that keeps the streams' own.
pub type Story = Vec<(StreamId, Event)>;

/// What is going to happen to one stream.
type Life = (StreamId, VecDeque<Event>);

pub struct Cast {
    pub orders: Vec<Uuid>,
    pub products: Vec<Uuid>,
    pub customers: Vec<Uuid>,
}

/// The lives of a shop with `orders` orders.
pub fn story(seed: u64, orders: usize) -> (Story, Cast) {
    let mut chance = Chance(seed);
    let products: Vec<Uuid> = (0..orders / 10 + 2).map(|_| chance.id()).collect();
    let customers: Vec<Uuid> = (0..orders / 5 + 2).map(|_| chance.id()).collect();
    let mut lives: Vec<Life> = Vec::new();
    let mut events_of: BTreeMap<StreamId, VecDeque<Event>> = BTreeMap::new();
    for (n, &id) in products.iter().enumerate() {
        // The last one was never added: orders are closed at it all the same.
        if n + 1 < products.len() {
            events_of.insert(StreamId::product(id), product_life(&mut chance, n));
        }
    }
    for (n, &id) in customers.iter().enumerate() {
        let address = chance.id();
        let claim: Event =
            email::Event::from(email::Claimed { customer_id: id, attempt: 1 }).into();
        events_of.entry(StreamId::email(address)).or_default().push_back(claim);
        events_of.insert(StreamId::customer(id), customer_life(&mut chance, n, address));
    }
    for &id in &customers {
        events_of.insert(StreamId::wishlist(id), wishlist_life(&mut chance, &products));
    }
    let mut order_ids = Vec::new();
    for _ in 0..orders {
        let id = chance.id();
        order_ids.push(id);
        let customer_id = customers[chance.below(customers.len() as u64) as usize];
        let product_id = products[chance.below(products.len() as u64) as usize];
        let (life, outcome) = order_life(&mut chance, customer_id, product_id);
        lives.push((StreamId::order(id), life));
        let not_after = moment(10);
        let at = |kind: &mut BTreeMap<StreamId, VecDeque<Event>>, stream, event: Event| {
            kind.entry(stream).or_default().push_back(event);
        };
        let opened = OrderOpened { order_id: id, vip: false, first: false, not_after };
        at(&mut events_of, StreamId::customer(customer_id), customer::Event::from(opened).into());
        let closed =
            OrderClosed { order_id: id, confirmed: outcome.confirmed, declined: false, not_after };
        at(&mut events_of, StreamId::customer(customer_id), customer::Event::from(closed).into());
        let name: Arc<str> = "thing".into();
        if events_of.contains_key(&StreamId::product(product_id)) {
            let reserved = product::StockReserved {
                order_id: id,
                quantity: 2,
                name,
                unit_price: pounds(500),
                not_after,
            };
            at(
                &mut events_of,
                StreamId::product(product_id),
                product::Event::from(reserved).into(),
            );
        }
        let quantity = if chance.one_in(4) { 0 } else { 2 };
        let ended = if outcome.shipped {
            product::Event::from(product::StockShipped { order_id: id, quantity, not_after })
        } else {
            product::Event::from(product::StockReleased { order_id: id, quantity, not_after })
        };
        at(&mut events_of, StreamId::product(product_id), ended.into());
    }
    lives.extend(events_of);
    let cast = Cast { orders: order_ids, products, customers };
    (interleave(&mut chance, lives), cast)
}

/// Takes the next event of some stream, again and again.
fn interleave(chance: &mut Chance, mut lives: Vec<Life>) -> Story {
    let mut story = Vec::new();
    while !lives.is_empty() {
        let n = chance.below(lives.len() as u64) as usize;
        let (stream, events) = &mut lives[n];
        // A few at once, as a command may.
        for _ in 0..=chance.below(3) {
            story.extend(events.pop_front().map(|event| (*stream, event)));
        }
        if events.is_empty() {
            lives.swap_remove(n);
        }
    }
    story
}

fn product_life(chance: &mut Chance, n: usize) -> VecDeque<Event> {
    let mut life: VecDeque<product::Event> = VecDeque::new();
    let text =
        (!n.is_multiple_of(3)).then(|| Arc::from("with \"quotes\", a back\\slash and ünïcode"));
    let category = n.is_multiple_of(2).then(|| Arc::from("books"));
    life.push_back(
        product::Added {
            name: format!("product {n}").into(),
            description: text.clone(),
            category: category.clone(),
            price: pounds(500),
            initial_stock: 1_000,
        }
        .into(),
    );
    for _ in 0..chance.below(4) {
        let reason = StockReason::Correction;
        life.push_back(product::StockChanged { quantity: -7, reason }.into());
    }
    if chance.one_in(2) {
        let name = format!("product {n}, revised").into();
        life.push_back(
            product::Changed { name, description: None, category, price: pounds(700) }.into(),
        );
    }
    if n % 5 == 4 {
        life.push_back(product::Discontinued {}.into());
    }
    life.into_iter().map(Event::from).collect()
}

fn customer_life(chance: &mut Chance, n: usize, address: Uuid) -> VecDeque<Event> {
    let mut life: VecDeque<customer::Event> = VecDeque::new();
    life.push_back(
        RegistrationRequested {
            email_id: address,
            email: sealed(format!("email-{n}")),
            first_name: sealed(format!("first-{n}")),
            last_name: sealed(format!("last-{n}")),
        }
        .into(),
    );
    match n % 8 {
        6 => life.push_back(customer::RegistrationRefused {}.into()),
        7 => {}
        _ => life.push_back(customer::Registered { returning: false }.into()),
    }
    if n % 8 < 6 && chance.one_in(2) {
        let (first_name, last_name) = (sealed("changed".into()), sealed("also".into()));
        let vip = true;
        life.push_back(customer::Changed { first_name, last_name, vip }.into());
    }
    if n % 8 < 6 && chance.one_in(3) {
        let (email_id, email) = (chance.id(), sealed("other".into()));
        let (first_name, last_name) = (sealed("new".into()), sealed("name".into()));
        let (attempt, vip) = (2, false);
        let wanted = customer::EmailChangeRequested {
            attempt,
            email_id,
            email: email.clone(),
            first_name: first_name.clone(),
            last_name: last_name.clone(),
            vip,
        };
        life.push_back(wanted.into());
        life.push_back(if chance.one_in(2) {
            customer::EmailChangeRefused { attempt }.into()
        } else {
            let returning = false;
            customer::EmailChanged {
                attempt,
                email_id,
                email,
                first_name,
                last_name,
                vip,
                returning,
            }
            .into()
        });
        life.push_back(customer::EmailSettled { attempt: 1 }.into());
    }
    if n % 8 == 5 {
        life.push_back(customer::Erased {}.into());
        life.push_back(customer::KeyDestroyed {}.into());
    }
    life.into_iter().map(Event::from).collect()
}

/// Products come and go.
fn wishlist_life(chance: &mut Chance, products: &[Uuid]) -> VecDeque<Event> {
    let mut wished = BTreeSet::new();
    let mut life: VecDeque<wishlist::Event> = VecDeque::new();
    for _ in 0..chance.below(8) {
        let product_id = products[chance.below(products.len() as u64) as usize];
        if wished.insert(product_id) {
            life.push_back(ItemAdded { product_id }.into());
        } else {
            wished.remove(&product_id);
            life.push_back(ItemRemoved { product_id }.into());
        }
    }
    if wished.len() % 3 == 2 {
        life.push_back(Cleared {}.into());
    }
    life.into_iter().map(Event::from).collect()
}

struct Outcome {
    confirmed: bool,
    shipped: bool,
}

fn order_life(
    chance: &mut Chance,
    customer_id: Uuid,
    product_id: Uuid,
) -> (VecDeque<Event>, Outcome) {
    let mut life: VecDeque<order::Event> = VecDeque::new();
    let lines: Arc<[Line]> = [Line { product_id, quantity: 2 }].into();
    life.push_back(
        Placed {
            customer_id,
            lines,
            payment_method: "pm_card_visa".into(),
            shipping_address: chance.one_in(2).then(|| sealed("street".into())),
            deadline: moment(900_000_000),
            not_after: moment(4_500_000_000),
        }
        .into(),
    );
    let mut outcome = Outcome { confirmed: false, shipped: false };
    let bookkeeping = |life: &mut VecDeque<order::Event>| {
        life.push_back(order::CustomerSettled {}.into());
        life.push_back(order::StockSettled {}.into());
    };
    if chance.one_in(6) {
        life.push_back(
            order::Rejected {
                reason: order::RejectionReason::InsufficientStock,
                product_id: Some(product_id),
                available: Some(1),
                requested: Some(2),
                decline_code: None,
                rests_on: Arc::default(),
            }
            .into(),
        );
        bookkeeping(&mut life);
        return (life.into_iter().map(Event::from).collect(), outcome);
    }
    let priced = PricedLine {
        product_id,
        name: "thing".into(),
        quantity: 2,
        unit_price: pounds(500),
        line_total: pounds(1000),
    };
    let amount = pounds(900);
    life.push_back(
        order::Priced {
            lines: [priced].into(),
            subtotal: pounds(1000),
            discounts: [Discount { kind: DiscountKind::Vip, amount: pounds(100) }].into(),
            discount: pounds(100),
            total: amount,
            rests_on: Arc::default(),
        }
        .into(),
    );
    let (ordinal, payment_id) = (1, Arc::from("pay_1"));
    life.push_back(order::PaymentStarted { ordinal, payment_id, amount }.into());
    if chance.one_in(5) {
        life.push_back(
            order::Cancelled {
                reason: None,
                plain_reason: Some("second thoughts".into()),
                mail: false,
            }
            .into(),
        );
        life.push_back(order::PaymentCaptured { ordinal, amount }.into());
        let refund_id = "re_1".into();
        if chance.one_in(2) {
            life.push_back(order::RefundIssued { ordinal, refund_id, amount }.into());
            if chance.one_in(2) {
                let (refund_id, code) = (Some("re_1".into()), "expired_card".into());
                let again = true;
                life.push_back(
                    order::RefundFailed { ordinal, refund: 1, refund_id, code, again }.into(),
                );
            }
        }
    } else {
        outcome.confirmed = true;
        life.push_back(order::PaymentCaptured { ordinal, amount }.into());
        life.push_back(Confirmed { mail: true }.into());
        let (mail, message_id) = (order::Mail::Confirmed, "1.confirmed@shop.example".into());
        life.push_back(order::MailSent { mail, message_id }.into());
        if chance.one_in(4) {
            let reason = Some(Sealed::from("c2Vjb25kIHRob3VnaHRz".to_owned()));
            life.push_back(order::Cancelled { reason, plain_reason: None, mail: true }.into());
        } else if chance.one_in(2) {
            outcome.shipped = true;
            life.push_back(order::ProcessingStarted {}.into());
            life.push_back(order::Shipped::default().into());
            life.push_back(order::Delivered {}.into());
        }
    }
    bookkeeping(&mut life);
    (life.into_iter().map(Event::from).collect(), outcome)
}

/// Writes stories into a log, through the writers it demands.
pub struct Scribe {
    log: Arc<dyn EventLog>,
    environment: Arc<dyn Environment>,
    writers: BTreeMap<Partition, Writer>,
    versions: BTreeMap<StreamId, u64>,
    clock: i64,
    /// What ids of events are made from, besides the clock.
    ids: u64,
    /// Every event written, with its position.
    pub written: Vec<(Position, Record)>,
}

impl Scribe {
    pub fn new(log: Arc<dyn EventLog>) -> Self {
        Self {
            log,
            environment: Arc::new(System::new()),
            writers: BTreeMap::new(),
            versions: BTreeMap::new(),
            clock: 0,
            ids: 0,
            written: Vec::new(),
        }
    }

    /// Writes to another log: no event of it has an id that another scribe gives.
    pub fn elsewhere(log: Arc<dyn EventLog>) -> Self {
        Self { ids: 1 << 40, ..Self::new(log) }
    }

    pub fn partition(&self, stream: StreamId) -> Partition {
        partition_of(stream, self.log.partitions())
    }

    /// The record of the stream's next event.
    pub fn record(&mut self, stream: StreamId, event: &Event) -> Record {
        let version = self.versions.entry(stream).or_insert(0);
        *version += 1;
        // Hours go by.
        self.clock += 97_000_000;
        let mut chance = Chance(self.ids | self.clock as u64);
        let metadata = Metadata {
            version: *version,
            schema: event.schema(),
            command_id: chance.id(),
            fingerprint: events::Fingerprint::default(),
            correlation_id: chance.id(),
            causation_id: chance.id(),
        };
        let time = moment(self.clock) + TimeDelta::microseconds(7);
        event.to_record(chance.id(), stream, time, metadata)
    }

    /// Appends one batch to a partition.
    pub async fn append(&mut self, partition: Partition, records: Vec<Record>) -> Vec<Offset> {
        if !self.writers.contains_key(&partition) {
            let (log, environment) = (&*self.log, &*self.environment);
            let node = Uuid::from_u128(1);
            let opened =
                opening::open(log, environment, partition, node, Cursor::START, |_| {}).await;
            self.writers.insert(partition, opened.unwrap().0);
        }
        let writer = self.writers.get_mut(&partition).unwrap();
        let batch = writer.batch(self.environment.uuid(), records);
        let offsets = writer.append(&batch).await.unwrap();
        for (&offset, record) in offsets.iter().zip(batch.records) {
            self.written.push((Position { partition, offset }, record));
        }
        offsets
    }

    /// A record that says nothing, as writers leave behind.
    pub async fn beat(&mut self, partition: Partition) {
        let writer = self.writers.get_mut(&partition).unwrap();
        let batch = writer.beat(&*self.environment);
        writer.append(&batch).await.unwrap();
    }

    /// Writes a story in batches of up to `batch` events.
    pub async fn write(&mut self, story: &[(StreamId, Event)], batch: usize) {
        let mut waiting: BTreeMap<Partition, Vec<Record>> = BTreeMap::new();
        for (stream, event) in story {
            let record = self.record(*stream, event);
            let partition = self.partition(*stream);
            let records = waiting.entry(partition).or_default();
            records.push(record);
            if records.len() >= batch {
                let records = waiting.remove(&partition).unwrap();
                self.append(partition, records).await;
            }
        }
        for (partition, records) in waiting {
            self.append(partition, records).await;
        }
    }
}
