//! The write side under faults: gateways and logs that hang or panic, clocks that step back, and
//! partitions that are reopened at bad moments.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "these tests use the real clock and real tasks")]

mod shop;

use commands::{
    CommandError, Outside, Request, ShardState, WriteSide, gateway::SandboxGateway, mail::NoMailer,
    order, order::Status, product, shard::LEASE,
};
use events::{
    Environment, Fingerprint, Offset, Partition, StreamId,
    environment::System,
    keys::MemoryKeyStore,
    log::{
        AppendError, Batch, BatchReader, Committed, Cursor, EventLog, Lane, LogFault, RawChunk,
        ReadError, RecordReader,
        memory::{Fault, MemoryLog},
    },
};
use futures::future::join_all;
use shop::{Shop, Whim, id, keyed, write_settings};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

const P: Partition = Partition(0);

async fn within<T>(seconds: u64, what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(seconds), future).await.expect(what)
}

fn receive() -> product::Command {
    let reason = events::product::StockReason::Received;
    product::Command::ChangeStock(product::ChangeStock { quantity: 1, reason })
}

#[tokio::test]
async fn slow_payments_do_not_hold_up_orders_that_need_no_payment() {
    let shop = Shop::open(4).await;
    let customer = shop.customer().await;
    let (book, rare) = (shop.product(100, 10_000).await, shop.product(100, 0).await);
    let slow = [(book, 1)];
    join_all((0..1500).map(|_| shop.place(customer, &slow, "pm_card_slow"))).await;
    let refused = within(5, "the order is decided", shop.one(customer, rare)).await;
    assert_eq!(refused.reason(), Some("insufficient-stock"));
}

#[tokio::test]
async fn a_payment_whose_call_panicked_is_taken_all_the_same() {
    let shop = Shop::open(1).await;
    let (customer, book) = (shop.customer().await, shop.product(100, 1).await);
    shop.expect([Whim::Panic]);
    let order = within(5, "the order is decided", shop.one(customer, book)).await;
    assert_eq!(order.status(), Some(Status::Confirmed));
}

#[tokio::test]
async fn a_payment_whose_call_never_returns_is_taken_all_the_same() {
    let shop = Shop::open(1).await;
    let (customer, book) = (shop.customer().await, shop.product(100, 1).await);
    shop.expect([Whim::Hang]);
    shop.hurry();
    let order = within(5, "the order is decided", shop.one(customer, book)).await;
    assert_eq!(order.status(), Some(Status::Confirmed));
}

#[tokio::test]
async fn a_reopened_partition_does_not_have_an_effect_carried_out_twice_at_the_same_time() {
    let shop = Shop::open(1).await;
    let (customer, book) = (shop.customer().await, shop.product(100, 1).await);
    let order = shop.place(customer, &[(book, 1)], "pm_card_slow").await;
    let capturing = async {
        while shop.captures() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    within(5, "the capture begins", capturing).await;
    shop.log.inject(P, [Fault::Suspect]);
    shop.send(StreamId::product(book), receive()).await.unwrap();
    assert_eq!(shop.final_order(order).await.status(), Some(Status::Confirmed));
    shop.at_rest().await;
    assert_eq!(shop.most_captures(), 1);
}

#[tokio::test]
async fn a_write_side_that_is_dropped_without_a_stop_ends() {
    let mut shop = Shop::open(2).await;
    within(2, "its tasks end", shop.abandon()).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_the_next_attempt_to_open() {
    let mut shop = Shop::open(1).await;
    let book = shop.product(100, 0).await;
    shop.log.inject(P, [Fault::NotApplied; 30]);
    let refused = shop.router().send(keyed(StreamId::product(book), receive(), "a")).await;
    assert!(matches!(refused, Err(CommandError::NotApplied(_))), "{refused:?}");
    let began = Instant::now();
    shop.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_stock_of_a_cancelled_order_is_free_while_the_bank_still_thinks() {
    let shop = Shop::open(1).await;
    let (customer, book) = (shop.customer().await, shop.product(100, 1).await);
    shop.expect([Whim::Hang]);
    let order = shop.place(customer, &[(book, 1)], "pm_card_visa").await;
    let is_captured = async {
        while !shop.hangs() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(5, "the capture begins", is_captured).await;
    let cancel = order::Command::Cancel(order::Cancel::default());
    shop.send(StreamId::order(order), cancel).await.unwrap();
    let is_free = async {
        while shop.stock(book).await.available() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(5, "the unit is free", is_free).await;
    assert_eq!(shop.one(customer, book).await.status(), Some(Status::Confirmed));
}

#[tokio::test]
async fn commands_that_wait_for_a_partition_to_open_are_answered_in_time() {
    let shop = Shop::open(1).await;
    let book = shop.product(100, 0).await;
    shop.log.inject(P, [Fault::NotApplied; 30]);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let _ = shop.router().try_send(keyed(StreamId::product(book), receive(), "a")).await;
    // Wait until the back-off is longer than a command may wait.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let began = Instant::now();
    let refused = shop.router().try_send(keyed(StreamId::product(book), receive(), "a")).await;
    assert!(matches!(refused, Err(CommandError::NotApplied(_))), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

/// One partition saw the clock ahead and the others did not, as after a start that was cut off.
#[tokio::test]
async fn an_order_has_its_time_though_a_clock_was_once_days_ahead() {
    let mut shop = Shop::open(4).await;
    let customer = shop.customer().await;
    shop.set_clock_off(2 * 86_400);
    let book = shop.product(100, 5).await;
    shop.set_clock_off(0);
    // Wait for the grace period after the opening.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(shop.one(customer, book).await.status(), Some(Status::Confirmed));
    shop.restart().await;
    let ahead = shop.router().log_time_ahead();
    assert!(ahead > Duration::from_hours(24), "it is told: {ahead:?}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(shop.one(customer, book).await.status(), Some(Status::Confirmed));
}

#[tokio::test]
async fn a_clock_that_was_once_days_ahead_forgets_no_key() {
    let mut shop = Shop::open(1).await;
    let book = StreamId::product(shop.product(100, 0).await);
    let received = keyed(book, receive(), "a");
    shop.router().send(received.clone()).await.unwrap();
    shop.set_clock_off(3 * 86_400);
    shop.router().send(keyed(book, receive(), "b")).await.unwrap();
    shop.set_clock_off(0);
    shop.restart().await;
    let again = shop.router().send(received).await.unwrap();
    assert!(again.replayed.is_some(), "applied a second time");
    assert_eq!(shop.stock(book.id).await.on_hand(), 2);
}

/// The number of records of a shop's only partition.
async fn records(shop: &Shop) -> usize {
    times(shop).await.len()
}

#[tokio::test]
async fn a_look_on_which_nothing_rests_costs_the_log_no_record() {
    let shop = Shop::open(1).await;
    let (book, order) = (StreamId::product(shop.product(100, 0).await), StreamId::order(id()));
    tokio::time::sleep(LEASE).await;
    let before = records(&shop).await;
    shop.router().glance(book).await.unwrap();
    assert!(!shop.router().was_applied(order, id()).await.unwrap());
    assert_eq!(records(&shop).await, before);
    shop.router().state(book).await.unwrap();
    assert_eq!(records(&shop).await, before + 1, "a beat");
}

/// A newcomer that must read for long does not end what serves meanwhile.
#[tokio::test]
async fn a_process_that_takes_over_reads_first_and_fences_last() {
    let log = Brittle::new();
    let book = StreamId::product(id());
    let side = log.write_side();
    side.ready().await;
    side.router.send(keyed(book, add(), "a")).await.unwrap();
    let term = side.router.status()[0].term;
    log.is_late.store(true, Ordering::SeqCst);
    let newcomer = log.write_side();
    // The newcomer's first read takes a second.
    for key in ["b", "c", "d"] {
        tokio::time::sleep(Duration::from_millis(200)).await;
        side.router.try_send(keyed(book, receive(), key)).await.unwrap();
        assert_eq!(side.router.status()[0].term, term);
    }
    assert_eq!(newcomer.ready().await[0].state, ShardState::Open);
    newcomer.router.send(keyed(book, receive(), "e")).await.unwrap();
    within(2, "it stops", newcomer.stop()).await;
    within(2, "it stops", side.stop()).await;
}

/// The times of all records of the first partition, including claims and beats.
async fn times(shop: &Shop) -> Vec<events::Timestamp> {
    let mut reader = BatchReader::open(&shop.log, P, Cursor::START).await.unwrap();
    let mut times = Vec::new();
    loop {
        let chunk = reader.next().await.unwrap();
        let records = chunk.batches.iter().flat_map(|batch| &batch.records);
        times.extend(records.map(|stored| stored.record.time));
        if chunk.at_end {
            return times;
        }
    }
}

#[tokio::test]
async fn log_time_never_runs_back_though_the_clock_does() {
    let mut shop = Shop::open(1).await;
    let book = shop.product(100, 0).await;
    shop.set_clock_off(-60);
    // Append a beat, then events; then a claim, once with the old state and once with a new one.
    tokio::time::sleep(LEASE).await;
    shop.stock(book).await;
    shop.send(StreamId::product(book), receive()).await.unwrap();
    shop.set_clock_off(30);
    tokio::time::sleep(LEASE).await;
    shop.stock(book).await;
    shop.set_clock_off(0);
    shop.log.inject(P, [Fault::Suspect]);
    shop.send(StreamId::product(book), receive()).await.unwrap();
    shop.send(StreamId::product(book), receive()).await.unwrap();
    shop.restart().await;
    shop.send(StreamId::product(book), receive()).await.unwrap();
    let times = times(&shop).await;
    assert!(times.is_sorted(), "{times:?}");
}

/// A log that a test can tell to panic in a commit, as its library might, or to deliver records
/// long after it has read them.
#[derive(Clone)]
struct Brittle {
    log: MemoryLog,
    breaks: Arc<AtomicBool>,
    is_late: Arc<AtomicBool>,
    /// Whether the next batch seems to land at the beginning, as if the log had lost its records.
    has_lost_its_end: Arc<AtomicBool>,
}

struct BrittleLane(Box<dyn Lane>, Brittle);

#[async_trait::async_trait]
impl Lane for BrittleLane {
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError> {
        assert!(!self.1.breaks.load(Ordering::SeqCst), "the log's library panics");
        let mut committed = self.0.commit(batch).await?;
        if self.1.has_lost_its_end.swap(false, Ordering::SeqCst) {
            committed.offsets = (0..).map(Offset).take(committed.offsets.len()).collect();
        }
        Ok(committed)
    }
}

struct LateReader {
    reader: Box<dyn RecordReader>,
    is_late: Arc<AtomicBool>,
    fetched: Option<RawChunk>,
}

#[async_trait::async_trait]
impl RecordReader for LateReader {
    async fn next(&mut self) -> Result<RawChunk, ReadError> {
        if let Some(fetched) = self.fetched.take() {
            return Ok(fetched);
        }
        let chunk = self.reader.next().await?;
        if chunk.records.is_empty() || !self.is_late.swap(false, Ordering::SeqCst) {
            return Ok(chunk);
        }
        System::new().sleep(Duration::from_secs(1)).await;
        self.fetched = Some(chunk);
        Ok(RawChunk::default())
    }
}

#[async_trait::async_trait]
impl EventLog for Brittle {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }
    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault> {
        let lane = self.log.fence(partition, lane).await?;
        Ok(Box::new(BrittleLane(lane, self.clone())))
    }
    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError> {
        let reader = self.log.read(partition, from).await?;
        Ok(Box::new(LateReader { reader, is_late: Arc::clone(&self.is_late), fetched: None }))
    }
    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        self.log.end(partition).await
    }
}

impl Brittle {
    fn new() -> Self {
        let log = MemoryLog::new(1, Arc::new(System::new()));
        Self {
            log,
            breaks: Arc::default(),
            is_late: Arc::default(),
            has_lost_its_end: Arc::default(),
        }
    }

    fn write_side(&self) -> WriteSide {
        let environment: Arc<dyn Environment> = Arc::new(System::new());
        let log: Arc<dyn EventLog> = Arc::new(self.clone());
        let gateway = Arc::new(SandboxGateway::in_memory(Arc::clone(&environment)));
        let outside = Outside {
            gateway,
            keys: Arc::new(MemoryKeyStore::default()),
            mailer: Arc::new(NoMailer),
        };
        WriteSide::start(&log, &environment, outside, &write_settings(id()))
    }
}

fn add() -> product::Command {
    let price = events::Money::new(100, "GBP".parse().unwrap());
    let (name, description, category) = ("Book".into(), None, None);
    product::Command::Add(product::Add { name, description, category, price, initial_stock: 0 })
}

#[tokio::test]
async fn a_partition_whose_task_panicked_is_seen_to_have_failed() {
    let log = Brittle::new();
    let side = log.write_side();
    assert_eq!(side.ready().await[0].state, ShardState::Open);
    log.breaks.store(true, Ordering::SeqCst);
    let request = keyed(StreamId::product(id()), add(), "a");
    let answer = side.router.try_send(request.clone()).await;
    assert_eq!(answer.unwrap_err(), CommandError::OutcomeUnknown);
    assert_eq!(side.router.status()[0].state, ShardState::Failed);
    let answer = side.router.try_send(request).await;
    assert!(matches!(answer, Err(CommandError::NotApplied(_))), "{answer:?}");
    within(2, "it stops", side.stop()).await;
}

#[tokio::test]
async fn a_batch_that_lands_before_what_was_read_reopens_the_partition() {
    let log = Brittle::new();
    let side = log.write_side();
    side.ready().await;
    let book = StreamId::product(id());
    side.router.send(keyed(book, add(), "a")).await.unwrap();
    let term = side.router.status()[0].term;
    log.has_lost_its_end.store(true, Ordering::SeqCst);
    // The reopening finds the batch in the log, so it is known to be applied.
    side.router.send(keyed(book, receive(), "b")).await.unwrap();
    assert!(side.router.status()[0].term > term, "it goes on as if nothing had happened");
    within(2, "it stops", side.stop()).await;
}

/// A writer that reads its own claim back late may already have a successor, so its lease must
/// begin with the claim.
#[tokio::test]
async fn a_lease_begins_with_the_claim_and_not_when_the_claim_was_read_back() {
    let log = Brittle::new();
    let book = StreamId::product(id());
    let side = log.write_side();
    side.router.send(keyed(book, add(), "a")).await.unwrap();
    side.stop().await;
    // The reader delivers the history and the claim 1 s late each; then 2 s pass.
    log.is_late.store(true, Ordering::SeqCst);
    let late = log.write_side();
    within(5, "it reads", async {
        while log.is_late.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let before = log.end(P).await.unwrap();
    log.is_late.store(true, Ordering::SeqCst);
    within(5, "it claims", async {
        while log.end(P).await.unwrap() == before || log.is_late.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let next = log.write_side();
    next.ready().await;
    next.router.send(keyed(book, receive(), "b")).await.unwrap();
    while late.router.status()[0].state == ShardState::Opening {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(LEASE.checked_sub(Duration::from_millis(700)).unwrap()).await;
    let stale = late.router.state(book).await;
    assert!(matches!(stale, Err(CommandError::NotApplied(_))), "{stale:?}");
}

#[tokio::test]
async fn a_creation_is_known_by_its_key_at_once_and_for_ever() {
    let mut shop = Shop::open(1).await;
    let request = keyed(StreamId::product(id()), add(), "a");
    let twins = join_all((0..3).map(|_| shop.router().try_send(request.clone()))).await;
    let replayed: Vec<_> = twins.into_iter().map(|twin| twin.unwrap().replayed).collect();
    assert_eq!(replayed, [None, Some(1), Some(1)]);
    shop.send(request.stream, receive()).await.unwrap();
    shop.restart().await;
    let again = shop.router().send(request.clone()).await.unwrap();
    assert_eq!((again.replayed, again.view.version), (Some(1), 2));
    let other = Request { fingerprint: Fingerprint([9; 16]), ..request };
    assert_eq!(shop.router().send(other).await.unwrap_err(), CommandError::KeyReused);
}

#[tokio::test]
async fn a_stop_ends_though_commands_keep_coming_and_answers_what_it_took() {
    let mut shop = Shop::open(1).await;
    let book = StreamId::product(shop.product(100, 0).await);
    shop.log.set_latency(Duration::from_millis(5));
    let router = shop.router().clone();
    let senders = (0..50).map(|_| {
        let router = router.clone();
        tokio::spawn(async move {
            let mut applied = 0;
            loop {
                let request = Request { command_id: id(), ..keyed(book, receive(), "") };
                match router.try_send(request).await {
                    Ok(_) => applied += 1,
                    Err(CommandError::NotApplied(_)) => return applied,
                    Err(other) => panic!("{other}"),
                }
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    within(2, "it stops", shop.stop()).await;
    let applied: i64 = join_all(senders).await.into_iter().map(Result::unwrap).sum();
    shop.log.set_latency(Duration::ZERO);
    shop.start().await;
    assert_eq!(shop.stock(book.id).await.on_hand(), applied);
}

/// Each opening leaves a claim in the log for ever and fences the current writer.
#[tokio::test]
async fn a_partition_that_opens_and_then_fails_every_append_backs_off() {
    let shop = Shop::open(1).await;
    let book = StreamId::product(shop.product(100, 0).await);
    shop.log.inject(P, [Fault::NotApplied]);
    shop.log.inject(P, [Fault::Clean, Fault::NotApplied].repeat(5000));
    let refused = join_all((0..50).map(|number| {
        let request = keyed(book, receive(), &number.to_string());
        let router = shop.router();
        async move {
            tokio::time::sleep(Duration::from_millis(number * 7)).await;
            router.send(request).await
        }
    }))
    .await;
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    let term = shop.router().status()[0].term;
    assert!(term < 20, "{term} openings in 3 s");
}

/// Orders whose partition reopens all the time still become final, and no customer pays twice.
#[tokio::test]
async fn orders_reach_an_end_though_appends_fail_all_the_time() {
    let shop = Shop::open(2).await;
    let customer = shop.customer().await;
    let book = shop.product(1000, 30).await;
    let faults = [
        Fault::UnknownLanded,
        Fault::Suspect,
        Fault::UnknownLost,
        Fault::NotApplied,
        Fault::Cut(1),
    ];
    for fault in faults {
        let storm = (0..10)
            .flat_map(|clean| std::iter::repeat_n(Fault::Clean, clean % 4 + 1).chain([fault]));
        let storm: Vec<Fault> = storm.collect();
        shop.log.inject(Partition(0), storm.clone());
        shop.log.inject(Partition(1), storm);
        join_all((0..8).map(|_| shop.one(customer, book))).await;
    }
    shop.at_rest().await;
    let book = shop.stock(book).await;
    assert_eq!((book.on_hand(), book.reserved()), (30, 30));
    assert_eq!(shop.captured(), 30 * 1000 - 300);
}
