//! The books: the state of the shop, folded from the log independently of the aggregates, and the
//! invariants that must hold.

macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}
pub(super) use ensure;

mod customers;
mod orders;
mod products;

use events::{
    Event, Fingerprint, Metadata, Money, Offset, Partition, Recorded, StreamId, StreamKind,
    Timestamp,
    log::{Claim, EventLog, RawRecord, assembler::Assembler, memory::MemoryLog},
};
use orders::Order;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use uuid::Uuid;

pub use customers::{Customer, Email};
pub use orders::{Paid, Status};
pub use products::Product;

/// A description of a broken invariant.
pub type Broken = String;

/// An applied command in the log.
#[derive(Clone, Copy, Debug)]
pub struct Applied {
    pub stream: StreamId,
    /// The version of its last event.
    pub version: u64,
    batch: Uuid,
}

/// The versions of a stream, each with the time at which it was appended.
type Landings = Vec<(Duration, u64)>;

struct Folded {
    assembler: Assembler,
    next: Offset,
    time: Timestamp,
    owner: Option<Uuid>,
    /// When the owner claimed it.
    claimed: Duration,
    /// How long the owner before it was the owner.
    held: Duration,
}

/// The books: everything known from the log and the gateway.
pub struct Books {
    partitions: Vec<Folded>,
    landings: BTreeMap<StreamId, Landings>,
    /// Commands with a client's key that were applied.
    pub applied: BTreeMap<Uuid, Applied>,
    /// Commands whose clients were told that they were not applied.
    pub denied: BTreeSet<Uuid>,
    pub products: BTreeMap<Uuid, Product>,
    pub orders: BTreeMap<Uuid, Order>,
    pub customers: BTreeMap<Uuid, Customer>,
    pub emails: BTreeMap<Uuid, Email>,
    /// The payments at the gateway, by payment id.
    pub payments: BTreeMap<String, Payment>,
    /// How often each event type occurred.
    pub events: BTreeMap<String, u64>,
    /// Every record in order, as text; `None` if the story is not wanted.
    pub story: Option<Vec<String>>,
    /// The refunds that the bank will send back, or has sent back without the log saying so.
    pub refunds_to_fail: u64,
}

/// A payment at the gateway.
#[derive(Clone, Debug)]
pub struct Payment {
    pub order: Uuid,
    pub key: String,
    pub created: Duration,
    pub amount: i64,
    pub method: String,
    /// Whether the payment was confirmed and will be captured or fail by itself.
    pub processing: bool,
    pub ending: Option<commands::gateway::Ending>,
    pub refunded: BTreeMap<String, i64>,
    /// The refund that the bank has sent back.
    pub sent_back: Option<String>,
}

impl Payment {
    /// The money that the shop has from this payment.
    pub fn balance(&self) -> i64 {
        let taken = self.ending == Some(commands::gateway::Ending::Captured);
        (if taken { self.amount } else { 0 }) - self.refunded.values().sum::<i64>()
    }
}

impl Books {
    pub fn new(partitions: u32) -> Self {
        let folded = |partition| Folded {
            assembler: Assembler::new(Partition(partition), 0),
            next: Offset::START,
            time: Timestamp::UNIX_EPOCH,
            owner: None,
            claimed: Duration::ZERO,
            held: Duration::ZERO,
        };
        Self {
            partitions: (0..partitions).map(folded).collect(),
            landings: BTreeMap::new(),
            applied: BTreeMap::new(),
            denied: BTreeSet::new(),
            products: BTreeMap::new(),
            orders: BTreeMap::new(),
            customers: BTreeMap::new(),
            emails: BTreeMap::new(),
            payments: BTreeMap::new(),
            refunds_to_fail: 0,
            events: BTreeMap::new(),
            story: None,
        }
    }

    /// Folds the records that were appended since the last call.
    pub fn observe(&mut self, log: &MemoryLog, clock: Duration) -> Result<(), Broken> {
        for partition in (0..log.partitions()).map(Partition) {
            let at = partition.0 as usize;
            let (records, next) = log.landed(partition, self.partitions[at].next);
            self.partitions[at].next = next;
            for raw in records {
                self.push(partition, raw, clock)?;
            }
        }
        Ok(())
    }

    fn push(
        &mut self,
        partition: Partition,
        raw: RawRecord,
        clock: Duration,
    ) -> Result<(), Broken> {
        if let Some(story) = &mut self.story {
            let RawRecord { offset, stamp, record } = &raw;
            story.push(format!(
                "{:>12.6} p{partition}@{offset} term {} {}/{} {} v{} {} by {} {}",
                clock.as_secs_f64(),
                stamp.term,
                stamp.index + 1,
                stamp.len,
                record.stream,
                record.metadata.version,
                record.event_type,
                record.metadata.command_id,
                String::from_utf8_lossy(&record.body),
            ));
        }
        let folded = &mut self.partitions[partition.0 as usize];
        let Some(batch) = folded.assembler.push(raw) else { return Ok(()) };
        if let Some(claim) = Claim::of(&batch)
            && folded.owner.replace(claim.node) != Some(claim.node)
        {
            folded.held = clock.saturating_sub(std::mem::replace(&mut folded.claimed, clock));
        }
        for (position, record) in batch.positioned() {
            if record.stream.kind == StreamKind::Writer {
                continue;
            }
            let time = &mut self.partitions[partition.0 as usize].time;
            ensure!(record.time >= *time, "log time runs backwards at {position:?}");
            *time = record.time;
            let recorded = record.decode(position).map_err(|error| error.to_string())?;
            self.fold(&recorded, batch.id, clock).map_err(|broken| {
                format!("{} v{}: {broken}", record.stream, record.metadata.version)
            })?;
        }
        Ok(())
    }

    fn fold(
        &mut self,
        recorded: &Recorded<Event>,
        batch: Uuid,
        clock: Duration,
    ) -> Result<(), Broken> {
        let Recorded { stream, metadata, event, time, .. } = recorded;
        let version = self.version(*stream) + 1;
        ensure!(metadata.version == version, "the version after {} is not contiguous", version - 1);
        self.landings.entry(*stream).or_default().push((clock, version));
        *self.events.entry(event.type_name().to_owned()).or_default() += 1;
        self.note_command(*stream, metadata, batch)?;
        match event {
            Event::Product(event) => self.fold_product(stream.id, event, *time),
            Event::Order(event) => self.fold_order(stream.id, event, clock),
            Event::Customer(event) => self.fold_customer(stream.id, event, *time),
            Event::Email(event) => self.fold_email(stream.id, event),
            // Wishlists are decided like stock changes and owe no effects, so there is nothing to
            // check.
            Event::Wishlist(_) => Ok(()),
        }
    }

    fn note_command(
        &mut self,
        stream: StreamId,
        metadata: &Metadata,
        batch: Uuid,
    ) -> Result<(), Broken> {
        let &Metadata { command_id, version, fingerprint, .. } = metadata;
        if fingerprint == Fingerprint::default() {
            return Ok(());
        }
        ensure!(
            !self.denied.contains(&command_id),
            "command {command_id} is applied, but its client was told that it was not"
        );
        let before = self.applied.insert(command_id, Applied { stream, version, batch });
        let doubled = before.is_some_and(|before| before.batch != batch || before.stream != stream);
        ensure!(!doubled, "command {command_id} is applied twice");
        Ok(())
    }

    /// How long the owner of a partition before the last one was its owner.
    pub fn held(&self, partition: Partition) -> Duration {
        self.partitions[partition.0 as usize].held
    }

    /// The version of a stream's last event.
    pub fn version(&self, stream: StreamId) -> u64 {
        self.landings.get(&stream).and_then(|landings| landings.last()).map_or(0, |last| last.1)
    }

    /// The version that a stream had at a given time.
    pub fn version_at(&self, stream: StreamId, clock: Duration) -> u64 {
        let landings = self.landings.get(&stream).map_or(&[][..], Vec::as_slice);
        let then = landings.partition_point(|landing| landing.0 <= clock);
        then.checked_sub(1).map_or(0, |last| landings[last].1)
    }

    pub fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.landings.keys().copied()
    }

    /// The money that the shop has from an order.
    pub fn balance(&self, order: Uuid) -> i64 {
        let of = self.payments.values().filter(|payment| payment.order == order);
        of.map(Payment::balance).sum()
    }

    /// Checks the invariants that must hold once all work is finished.
    pub fn at_rest(&self) -> Result<(), Broken> {
        for (id, order) in &self.orders {
            let named = |broken| format!("order {id}: {broken}");
            self.order_at_rest(*id, order).map_err(named)?;
        }
        for (id, product) in &self.products {
            let orders = |wanted: fn(Status) -> bool| {
                let of = self.orders.values().filter(move |order| wanted(order.status));
                of.filter_map(|order| order.lines.get(id)).sum::<i64>()
            };
            let (held, shipped) = (orders(Status::holds_stock), orders(Status::has_left_the_house));
            let found = (product.reserved(), product.shipped);
            ensure!(
                found == (held, shipped),
                "product {id} has {found:?}, its orders {:?}",
                (held, shipped)
            );
        }
        for (id, customer) in &self.customers {
            ensure!(customer.open.is_empty(), "customer {id} still has an open order");
            self.customer_at_rest(*id, customer)?;
        }
        Ok(())
    }
}

/// The amount, in the one currency of the shop.
fn amount(money: Money) -> i64 {
    money.amount
}
