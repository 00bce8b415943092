//! What is counted, and the events that each thing leaves in the log.

use events::{
    Currency, Fingerprint, Money, Offset, Partition, Position, Sealed, StreamId, Timestamp,
    customer, email,
    order::{self, Discount, DiscountKind, Line, Mail, PricedLine},
    product::{self, StockReason},
};
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// 2026-01-01, in milliseconds since 1970.
const BEGINNING_MS: u64 = 1_767_225_600_000;

/// Time between two things of a partition.
const PAUSE: Duration = Duration::from_millis(10);

/// How long after an order was placed its close is remembered: the deadline and some more.
const NOT_AFTER: Duration = Duration::from_mins(16);

/// Products of a partition on which reservations and keys are spread.
const PRODUCTS: u64 = 100;

/// The length of the tag that sealing adds to a text.
const SEAL: usize = 16;

/// A kind of thing that the write side keeps in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A registered customer without an order.
    Customer,
    /// The e-mail address of a customer; it is a stream of its own.
    Address,
    /// A registered customer with one order, which is over.
    Ordered,
    /// The same customer after the close of the order was forgotten, as a later event does.
    OrderedLongAgo,
    /// An order that was delivered.
    Delivered,
    /// An order that was shipped and owes nothing.
    Shipped,
    /// An order that is confirmed and still to be shipped.
    Confirmed,
    /// A reservation of a product's units for such an order: one for each of its lines.
    Reservation,
    /// The idempotency key of a command that created no stream.
    Key,
}

/// An event of a made-up history.
pub struct Event {
    /// The stream.
    pub stream: StreamId,
    /// The version that it gives the stream.
    pub version: u64,
    /// Log time.
    pub time: Timestamp,
    /// The command that it comes from.
    pub command_id: Uuid,
    /// The fingerprint of the command's request.
    pub fingerprint: Fingerprint,
    /// The event itself.
    pub body: events::Event,
}

impl Kind {
    /// All kinds, in the sequence of the table.
    pub const ALL: [Self; 9] = [
        Self::Customer,
        Self::Address,
        Self::Ordered,
        Self::OrderedLongAgo,
        Self::Delivered,
        Self::Shipped,
        Self::Confirmed,
        Self::Reservation,
        Self::Key,
    ];

    /// What it is called in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Customer => "customer, registered, no order",
            Self::Address => "e-mail address of a customer",
            Self::Ordered => "customer who ordered once",
            Self::OrderedLongAgo => "customer who ordered once, the close forgotten",
            Self::Delivered => "order, delivered",
            Self::Shipped => "order, shipped, owes nothing",
            Self::Confirmed => "order of two lines, confirmed, to be shipped",
            Self::Reservation => "reservation of a line of such an order, at its product",
            Self::Key => "idempotency key of a command that creates nothing",
        }
    }

    /// The events of thing number `nth` of a partition, with prices in `currency`.
    pub fn history(self, currency: Currency, partition: u64, nth: u64) -> Vec<Event> {
        let thing = Thing::new(currency, partition, nth);
        let (customer, order) = (StreamId::customer(thing.id(0)), StreamId::order(thing.id(0)));
        match self {
            Self::Customer => thing.on(customer, 1, thing.registration()),
            Self::Address => {
                let claimed = email::Claimed { customer_id: thing.id(0), attempt: 1 };
                let events = vec![email::Event::from(claimed).into()];
                thing.on(StreamId::email(thing.random_id(1)), 1, events)
            }
            Self::Ordered => {
                let until = thing.time + NOT_AFTER;
                thing.on(customer, 1, [thing.registration(), thing.one_order(until)].concat())
            }
            Self::OrderedLongAgo => {
                let until = thing.time - NOT_AFTER;
                thing.on(customer, 1, [thing.registration(), thing.one_order(until)].concat())
            }
            Self::Confirmed => thing.on(order, 1, thing.confirmed()),
            Self::Shipped => thing.on(order, 1, [thing.confirmed(), shipped()].concat()),
            Self::Delivered => {
                let delivered = vec![of_order(order::Delivered {})];
                thing.on(order, 1, [thing.confirmed(), shipped(), delivered].concat())
            }
            Self::Reservation => thing.at_product(thing.reserved()),
            Self::Key => {
                let reason = StockReason::Received;
                let received = of_product(product::StockChanged { quantity: 1, reason });
                let mut events = thing.at_product(received);
                if let Some(last) = events.last_mut() {
                    last.command_id = thing.random_id(3);
                    last.fingerprint = Fingerprint(thing.random_id(4).into_bytes());
                }
                events
            }
        }
    }
}

fn of_order(event: impl Into<order::Event>) -> events::Event {
    event.into().into()
}

fn of_product(event: impl Into<product::Event>) -> events::Event {
    event.into().into()
}

fn of_customer(event: impl Into<customer::Event>) -> events::Event {
    event.into().into()
}

/// Pseudorandom bits, the same in every run (`SplitMix64`).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A text as long as the sealed `text`; nobody opens it.
fn sealed(text: &str) -> Sealed {
    Sealed::from("s".repeat(((text.len() + SEAL) * 4).div_ceil(3)))
}

/// What happens to a confirmed order until it is shipped and owes nothing.
fn shipped() -> Vec<events::Event> {
    vec![
        of_order(order::ProcessingStarted {}),
        of_order(order::Shipped { mail: true }),
        of_order(order::StockSettled {}),
        of_order(letter(Mail::Shipped)),
    ]
}

/// A letter that was sent.
fn letter(mail: Mail) -> order::MailSent {
    order::MailSent { mail, message_id: "0198d0c4-7a1b-7000-8000-000000000000@orderlog".into() }
}

/// One thing: its number among all, and its time.
struct Thing {
    currency: Currency,
    partition: u64,
    nth: u64,
    time: Timestamp,
}

impl Thing {
    fn new(currency: Currency, partition: u64, nth: u64) -> Self {
        let beginning = i64::try_from(BEGINNING_MS).ok().and_then(Timestamp::from_timestamp_millis);
        let elapsed = PAUSE.saturating_mul(u32::try_from(nth).unwrap_or(u32::MAX));
        Self { currency, partition, nth, time: beginning.unwrap_or_default() + elapsed }
    }

    /// Random bits; `of` tells them from others of the same thing.
    fn bits(&self, of: u64) -> u64 {
        mixed(mixed(mixed(self.nth).wrapping_add(self.partition)).wrapping_add(of))
    }

    /// A `UUIDv7`, later for later things, as the program gives out.
    fn id(&self, of: u64) -> Uuid {
        let at = u64::try_from(self.time.timestamp_millis()).unwrap_or_default();
        let bits = self.bits(of);
        Uuid::from_u64_pair(at << 16 | 0x7000 | bits & 0xfff, 1 << 63 | mixed(bits) >> 2)
    }

    /// A `UUIDv5`, which is not in any sequence.
    fn random_id(&self, of: u64) -> Uuid {
        let bits = self.bits(of);
        Uuid::from_u64_pair(bits & !0xf000 | 0x5000, 1 << 63 | mixed(bits) >> 2)
    }

    /// These events on a stream, the first one with version `from`.
    fn on(&self, stream: StreamId, from: u64, events: Vec<events::Event>) -> Vec<Event> {
        (from..)
            .zip(events)
            .map(|(version, body)| Event {
                stream,
                version,
                time: self.time,
                command_id: self.id(100 + version),
                fingerprint: Fingerprint::default(),
                body,
            })
            .collect()
    }

    /// An event at one of the partition's products. The first round over the products adds them.
    fn at_product(&self, event: events::Event) -> Vec<Event> {
        let (product, round) = (self.nth % PRODUCTS, self.nth / PRODUCTS);
        let stream = StreamId::product(Self::new(self.currency, self.partition, product).id(2));
        let mut events = Vec::new();
        if round == 0 {
            events.extend(self.on(stream, 1, vec![self.added()]));
        }
        events.extend(self.on(stream, round + 2, vec![event]));
        events
    }

    fn money(&self, amount: i64) -> Money {
        Money::new(amount, self.currency)
    }

    fn name(&self) -> Arc<str> {
        format!("The Book of Number {:>4}", self.nth % 10_000).into()
    }

    fn added(&self) -> events::Event {
        let added = product::Added {
            name: self.name(),
            description: Some("A book like many others, for those who like many books.".into()),
            category: Some("shelf 7".into()),
            price: self.money(1299),
            initial_stock: 1_000_000_000,
        };
        of_product(added)
    }

    fn registration(&self) -> Vec<events::Event> {
        let requested = customer::RegistrationRequested {
            email_id: self.random_id(1),
            email: sealed(&format!("reader.{:>8}@example.org", self.nth)),
            first_name: sealed("Ada"),
            last_name: sealed("Reader-Lovelace"),
        };
        vec![of_customer(requested), of_customer(customer::Registered { returning: false })]
    }

    /// An order that was opened and closed; the close is remembered until `not_after`.
    fn one_order(&self, not_after: Timestamp) -> Vec<events::Event> {
        let order_id = self.id(5);
        let opened = customer::OrderOpened { order_id, vip: false, first: true, not_after };
        let closed =
            customer::OrderClosed { order_id, confirmed: true, declined: false, not_after };
        vec![of_customer(opened), of_customer(closed)]
    }

    fn reserved(&self) -> events::Event {
        let reserved = product::StockReserved {
            order_id: self.id(5),
            quantity: 1,
            name: self.name(),
            unit_price: self.money(1299),
            not_after: self.time + NOT_AFTER,
        };
        of_product(reserved)
    }

    /// The events of an order of two lines until it is confirmed and its customer knows.
    fn confirmed(&self) -> Vec<events::Event> {
        let (amount, payment_id) = (self.money(2_338), format!("sandbox_{}", self.id(8)));
        let placed = order::Placed {
            customer_id: self.id(5),
            lines: [6, 7].map(|of| Line { product_id: self.id(of), quantity: 1 }).into(),
            payment_method: "pm_card_visa".into(),
            shipping_address: Some(sealed("12 Long Lane, Little Haven, Somewhere AB1 2CD")),
            deadline: self.time + NOT_AFTER,
            not_after: self.time + NOT_AFTER,
        };
        vec![
            of_order(placed),
            of_order(self.priced(amount)),
            of_order(order::PaymentStarted { ordinal: 1, payment_id: payment_id.into(), amount }),
            of_order(order::PaymentCaptured { ordinal: 1, amount }),
            of_order(order::Confirmed { mail: true }),
            of_order(order::CustomerSettled {}),
            of_order(letter(Mail::Confirmed)),
        ]
    }

    fn priced(&self, total: Money) -> order::Priced {
        let price = self.money(1_299);
        let line = |of| PricedLine {
            product_id: self.id(of),
            name: self.name(),
            quantity: 1,
            unit_price: price,
            line_total: price,
        };
        let discount = self.money(260);
        let position = |partition| Position { partition: Partition(partition), offset: Offset(7) };
        order::Priced {
            lines: [6, 7].map(line).into(),
            subtotal: self.money(2_598),
            discounts: [Discount { kind: DiscountKind::FirstOrder, amount: discount }].into(),
            discount,
            total,
            rests_on: [0, 1, 2].map(position).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shop::currency;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn the_versions_of_every_stream_have_no_gap() {
        for kind in Kind::ALL {
            let mut versions = HashMap::new();
            let mut times = Vec::new();
            for event in (0..250).flat_map(|nth| kind.history(currency().unwrap(), 3, nth)) {
                let version = versions.entry(event.stream).or_insert(0);
                assert_eq!(event.version, *version + 1, "{kind:?}");
                *version = event.version;
                times.push(event.time);
            }
            assert!(times.is_sorted(), "{kind:?}");
        }
    }

    #[test]
    fn each_key_is_one_that_the_write_side_remembers() {
        let keys: Vec<Uuid> = (0..250)
            .map(|nth| Kind::Key.history(currency().unwrap(), 0, nth).pop().unwrap().command_id)
            .collect();
        assert!(keys.iter().all(|key| key.get_version_num() == 5));
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
    }
}
