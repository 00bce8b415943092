//! The acts of clients and the world in a run.

use super::{LIMITS, Run};
use crate::simulator::{
    calls::keyed,
    plan::{ADDRESSES, Act, CUSTOMERS, PRODUCTS, To},
};
use chrono::TimeDelta;
use commands::{customer, order, product};
use events::{
    Environment, Fingerprint, Money, Partition, Sealed, StreamId, log::EventLog, order::Line,
    product::StockReason,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use uuid::Uuid;

impl Run {
    pub(super) fn register(&self, customer: u8, address: u8) {
        let stream = customer_stream(customer);
        // An erased customer has no key, so their data cannot be sealed.
        let Some((email_id, email)) = self.address_of(stream.id, address) else { return };
        let Some(first_name) = self.seal(stream.id, "first_name", "Ada") else { return };
        let Some(last_name) = self.seal(stream.id, "last_name", "Byron") else { return };
        let register = customer::Register { email_id, email, first_name, last_name };
        self.insist(keyed(stream, customer::Command::Register(register), &self.key()));
    }

    pub(super) fn insist(&self, request: commands::Request) {
        let at = self.shop.call(request);
        self.shop.client(Arc::clone(&self.shop).insist(at));
    }

    /// Runs a client that sends a new command once.
    fn once(&self, request: commands::Request, patience_ms: u64) {
        let at = self.shop.call(request);
        let attempt = Arc::clone(&self.shop).attempt(at, Duration::from_millis(patience_ms));
        self.shop.client(attempt);
    }

    /// Seals a text as the API does, with a key that is created when it is first needed.
    fn seal(&self, customer: Uuid, field: &str, text: &str) -> Option<Sealed> {
        let key = self.shop.keys.make(customer).ok()?;
        Some(Sealed::seal(&key, customer, field, text).unwrap())
    }

    fn address_of(&self, customer: Uuid, number: u8) -> Option<(Uuid, Sealed)> {
        let number = number % ADDRESSES;
        let email = self.seal(customer, "email", &format!("address {number}"))?;
        Some((stream_id("address", number), email))
    }

    fn key(&self) -> String {
        format!("key-{}", self.shop.calls().len())
    }

    fn nth_order(&self, nth: u16) -> Option<Uuid> {
        let books = self.shop.books();
        let count = books.orders.len();
        (count > 0).then(|| *books.orders.keys().nth(usize::from(nth) % count).unwrap())
    }

    fn nth_process(&self, nth: u8) -> Option<usize> {
        usize::from(nth).checked_rem(self.processes.len())
    }

    fn partition(&self, nth: u8) -> Partition {
        Partition(u32::from(nth) % self.shop.log.partitions())
    }

    pub(super) fn act(&mut self, act: &Act) {
        let shop = Arc::clone(&self.shop);
        let log = &shop.log;
        match act {
            Act::Kill => {
                if !self.processes.is_empty() {
                    self.kill(0);
                }
            }
            Act::Stop => {
                if !self.processes.is_empty() {
                    self.stop(0);
                }
            }
            Act::Start => {
                if self.processes.len() == 2 {
                    self.kill(0);
                }
                self.start();
            }
            Act::Freeze { process } => {
                if let Some(at) = self.nth_process(*process) {
                    self.world.freeze(self.processes[at].id);
                }
            }
            Act::Thaw => self.processes.iter().for_each(|process| self.world.thaw(process.id)),
            Act::Jump { process, seconds } => {
                if let Some(at) = self.nth_process(*process) {
                    self.processes[at].node.jump(*seconds);
                }
            }
            Act::SetRight { process } => {
                if let Some(at) = self.nth_process(*process) {
                    self.processes[at].node.set_right();
                }
            }
            Act::Faults { partition, faults } => {
                log.inject(self.partition(*partition), faults.iter().copied());
            }
            Act::Hide { partition, looks: Some(looks) } => {
                log.hide_for(self.partition(*partition), *looks);
            }
            Act::Hide { partition, looks: None } => log.hide(self.partition(*partition)),
            Act::Reveal { partition } => log.reveal(self.partition(*partition)),
            Act::Release { partition } => log.release(self.partition(*partition)),
            Act::Ghosts { partition } => log.deliver_ghosts(self.partition(*partition)),
            Act::Latency { ms } => log.set_latency(Duration::from_millis(*ms)),
            Act::Weather { lost_one_in, slow_ms } => {
                shop.weather.set(*lost_one_in, Duration::from_millis(*slow_ms));
            }
            Act::Mood(mood) => shop.set_mood(*mood),
            Act::Post(mood) => shop.set_post_mood(*mood),
            Act::Pass { ms } => self.world.pass(self.world.clock() + Duration::from_millis(*ms)),
            act => self.ask(act),
        }
        shop.observe();
    }

    /// Runs an act of a client.
    fn ask(&self, act: &Act) {
        let shop = Arc::clone(&self.shop);
        let count = shop.calls().len();
        match act {
            Act::Place { customer, lines, method, deadline_s, patience_ms } => {
                let lines: BTreeMap<Uuid, i64> = lines
                    .iter()
                    .map(|&(product, quantity)| (product_stream(product).id, quantity))
                    .collect();
                let line = |(product_id, quantity)| Line { product_id, quantity };
                let place = order::Place {
                    customer_id: customer_stream(*customer).id,
                    lines: lines.into_iter().map(line).collect(),
                    payment_method: (*method).into(),
                    shipping_address: None,
                    deadline: self.outside.now() + TimeDelta::seconds(1 + deadline_s),
                };
                let key = self.key();
                let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, key.as_bytes());
                let request = keyed(StreamId::order(id), order::Command::Place(place), &key);
                self.once(request, *patience_ms);
            }
            Act::Stock { product, quantity, patience_ms } => {
                let reason =
                    if *quantity > 0 { StockReason::Received } else { StockReason::Correction };
                let change = product::ChangeStock { quantity: *quantity, reason };
                let command = product::Command::ChangeStock(change);
                self.once(keyed(product_stream(*product), command, &self.key()), *patience_ms);
            }
            Act::Price { product, amount } => {
                let price = Some(Money::new(*amount, "GBP".parse().unwrap()));
                let change = product::Change { price, ..product::Change::default() };
                let command = product::Command::Change(change);
                self.once(keyed(product_stream(*product), command, &self.key()), 20_000);
            }
            Act::Discontinue { product } => {
                let command = product::Command::Discontinue;
                self.once(keyed(product_stream(*product), command, &self.key()), 20_000);
            }
            Act::Register { address } => self.register(CUSTOMERS + address / 128, *address),
            Act::Readdress { customer, address } => {
                let email = self.address_of(customer_stream(*customer).id, *address);
                let change = customer::Change { email, ..customer::Change::default() };
                let command = customer::Command::Change(change);
                self.once(keyed(customer_stream(*customer), command, &self.key()), 20_000);
            }
            Act::Vip { customer } => {
                let change = customer::Change { vip: Some(true), ..customer::Change::default() };
                let command = customer::Command::Change(change);
                self.once(keyed(customer_stream(*customer), command, &self.key()), 20_000);
            }
            Act::Erase { customer, patience_ms } => {
                let command = customer::Command::Erase;
                self.once(keyed(customer_stream(*customer), command, &self.key()), *patience_ms);
            }
            Act::Repeat { call, twins, patience_ms } => {
                for _ in 0..*twins {
                    let at = usize::from(*call) % count;
                    let patience = Duration::from_millis(*patience_ms);
                    shop.client(Arc::clone(&shop).attempt(at, patience));
                }
            }
            Act::OtherBody { call } => {
                shop.client(Arc::clone(&shop).other_body(usize::from(*call) % count));
            }
            Act::Look { stream } => {
                let streams: Vec<StreamId> = shop.books().streams().collect();
                let stream = streams[usize::from(*stream) % streams.len()];
                shop.client(Arc::clone(&shop).look(stream));
            }
            Act::Cancel { order }
            | Act::Move { order, .. }
            | Act::Wait { order }
            | Act::Straggle { order } => {
                if let Some(order) = self.nth_order(*order) {
                    self.ask_order(act, order);
                }
            }
            _ => {}
        }
    }

    fn ask_order(&self, act: &Act, id: Uuid) {
        let stream = StreamId::order(id);
        match act {
            Act::Cancel { .. } => {
                let cancel = order::Command::Cancel(order::Cancel::default());
                self.once(keyed(stream, cancel, &self.key()), 20_000);
            }
            Act::Move { to, .. } => {
                let to = match to {
                    To::Processing => order::Status::Processing,
                    To::Shipped => order::Status::Shipped,
                    To::Delivered => order::Status::Delivered,
                };
                self.once(keyed(stream, order::Command::ChangeStatus(to), &self.key()), 20_000);
            }
            Act::Wait { .. } => self.shop.client(Arc::clone(&self.shop).wait(stream)),
            _ => self.straggle(id),
        }
    }

    /// Sends the opens of an order at its customer and products again, as a process might that was
    /// replaced but is still alive.
    fn straggle(&self, id: Uuid) {
        let Some((_, router)) = self.shop.door() else { return };
        let order = self.shop.books().orders[&id].clone();
        let not_after = order.not_after;
        let late = |stream, effect: String, command: commands::Command| commands::Request {
            command_id: Uuid::new_v5(&id, effect.as_bytes()),
            fingerprint: Fingerprint::default(),
            command,
            ..keyed(stream, product::Command::ChangeStock(NOTHING), "")
        };
        let mut requests = Vec::new();
        for (&product, &quantity) in &order.lines {
            let reserve = product::Reserve { order_id: id, quantity, not_after };
            let effect = format!("reserve/{product}");
            let command = product::Command::Reserve(reserve).into();
            requests.push(late(StreamId::product(product), effect, command));
        }
        let open = customer::OpenOrder { order_id: id, not_after, limits: LIMITS };
        let open = customer::Command::OpenOrder(open);
        let customer = StreamId::customer(order.customer);
        requests.push(late(customer, "open/customer".into(), open.into()));
        self.shop.client(async move {
            for request in requests {
                // The answer does not matter: the books check the effects.
                let _ = router.try_send(request).await;
            }
        });
    }
}

const NOTHING: product::ChangeStock =
    product::ChangeStock { quantity: 0, reason: StockReason::Correction };

fn stream_id(kind: &str, number: u8) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{kind}/{number}").as_bytes())
}

pub(super) fn product_stream(number: u8) -> StreamId {
    StreamId::product(stream_id("product", number % PRODUCTS))
}

/// Some customers register later or never.
fn customer_stream(number: u8) -> StreamId {
    StreamId::customer(stream_id("customer", number % (CUSTOMERS + 2)))
}
