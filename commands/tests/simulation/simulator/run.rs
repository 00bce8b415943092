//! Runs a plan: first with trouble, then without, until all work is finished.

mod acts;

use self::acts::product_stream;
use super::{
    books::{Books, Broken, Status},
    calls::keyed,
    disk::Disk,
    gateway::{Mood, Till},
    network::Network,
    panics::noted,
    plan::{Act, CUSTOMERS, PRODUCTS, Plan},
    post::{PostMood, Postman},
    shop::Shop,
    world::{Node, OUTSIDE, ProcessId, Step, World},
};
use chrono::TimeDelta;
use commands::{
    OrderLimits, Outside, ShardState, ShardStatus, ShopRules, SnapshotStore, WriteSettings,
    WriteSide, product,
};
use events::{
    Currency, Environment, Money, Partition, StreamId,
    log::{EventLog, memory::MemoryLog},
    order::RejectionReason,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

/// Low enough to be reached.
pub const LIMITS: OrderLimits = OrderLimits { open_orders: 6, declined_payments: 4 };

/// The silence after which an older process may take a partition back.
const ABANDONED: Duration = Duration::from_secs(30);

/// The longest time that an order may stay pending.
const LONGEST: Duration = Duration::from_mins(15);

fn currency() -> Currency {
    "GBP".parse().unwrap()
}

fn rules() -> ShopRules {
    ShopRules { limits: LIMITS, ..ShopRules::new(currency()) }
}

/// How long all work may take to finish after the last deadline and the grace period.
const PEACE: Duration = Duration::from_mins(5);

/// An upper bound for the steps of a run. A run that takes more is in an endless loop.
const MAX_STEPS: u64 = 2_000_000;

/// The result of a run.
#[derive(Debug, Default)]
pub struct Report {
    pub broken: Option<Broken>,
    pub steps: u64,
    pub simulated: Duration,
    pub commands: u64,
    /// How often each event type occurred.
    pub events: BTreeMap<String, u64>,
    /// How often each kind of act of the clients and the world occurred.
    pub acts: BTreeMap<String, u64>,
    pub story: Vec<String>,
}

struct Process {
    id: ProcessId,
    node: Arc<Node>,
    write_side: WriteSide,
    /// Whether every earlier process had opened its partitions when this one started. If so, none
    /// of them may take a partition back.
    takes_over: bool,
}

struct Run {
    world: Arc<World>,
    shop: Arc<Shop>,
    outside: Arc<Node>,
    grace: Duration,
    disk: Option<Arc<Disk>>,
    processes: Vec<Process>,
    started: ProcessId,
    steps: u64,
    acts: BTreeMap<String, u64>,
}

/// Runs `plan`. With `story`, keeps a text of everything that happened.
pub fn run(plan: &Plan, story: bool) -> Report {
    let world = World::new(plan.seed);
    let outside = Node::new(&world, OUTSIDE);
    let log = MemoryLog::new(plan.partitions, outside.clone());
    let mut books = Books::new(plan.partitions);
    books.story = story.then(Vec::new);
    let shop = Shop::new(&world, log, books);
    let (processes, grace) = (Vec::new(), plan.grace);
    let disk = world.once_in(2).then(|| Disk::new(&world));
    let (started, steps, acts) = (0, 0, BTreeMap::new());
    let mut run = Run { world, shop, outside, grace, disk, processes, started, steps, acts };
    let (whole, panicked) = noted(|| catch_unwind(AssertUnwindSafe(|| run.whole(plan))));
    let broken = whole.unwrap_or_else(|_| Err("a panic".into())).err();
    let broken = run.shop.broken().or(panicked).or(broken);
    run.end()(broken)
}

impl Run {
    fn end(mut self) -> impl FnOnce(Option<Broken>) -> Report {
        let (steps, simulated) = (self.steps, self.world.clock());
        for id in 0..=self.started {
            self.world.kill(id);
        }
        self.processes.clear();
        move |broken| {
            let mut books = self.shop.books();
            Report {
                broken,
                steps,
                simulated,
                commands: self.shop.calls().len() as u64,
                events: std::mem::take(&mut books.events),
                acts: self.acts,
                story: books.story.take().unwrap_or_default(),
            }
        }
    }

    fn whole(&mut self, plan: &Plan) -> Result<(), Broken> {
        self.start();
        self.furnish()?;
        for planned in &plan.acts {
            self.steps(planned.gap)?;
            self.shop.tell(|| format!("{:?}", planned.act));
            *self.acts.entry(planned.act.kind()).or_default() += 1;
            self.act(&planned.act);
            self.check()?;
        }
        self.peace()?;
        self.come_to_rest()?;
        self.order_in_peace()?;
        self.compare_with_fresh_folds()
    }

    /// Checks the invariants that must hold at any time.
    fn check(&self) -> Result<(), Broken> {
        if let Some(broken) = self.shop.broken() {
            return Err(broken);
        }
        self.check_keys()?;
        for process in &self.processes {
            let status = process.write_side.router.status();
            if let Some(failed) = status.iter().find(|shard| shard.state == ShardState::Failed) {
                return Err(format!("process {}: {failed:?}", process.id));
            }
            // An older process may take back what it has seen to be left alone for long.
            let books = self.shop.books();
            let foreign = |shard: &&ShardStatus| {
                matches!(shard.state, ShardState::Foreign { .. })
                    && books.held(shard.partition) < ABANDONED
            };
            if process.takes_over
                && process.id == self.started
                && let Some(lost) = status.iter().find(foreign)
            {
                return Err(format!("process {} gives way to an older one: {lost:?}", process.id));
            }
        }
        Ok(())
    }

    /// A key may be destroyed only after the log says that its customer is erased, and must be
    /// destroyed once the log says that it is.
    fn check_keys(&self) -> Result<(), Broken> {
        for (id, customer) in &self.shop.books().customers {
            if customer.key_destroyed && !self.shop.forgotten().contains(id) {
                return Err(format!("{id} is erased, but the letters are kept"));
            }
            let gone = self.shop.keys.is_destroyed(*id);
            if (gone && !customer.erased) || (customer.key_destroyed && !gone) {
                return Err(format!(
                    "the key of {id} is destroyed: {gone}, but the customer is {customer:?}"
                ));
            }
        }
        Ok(())
    }

    /// Every owed letter was sent, or was refused with a recorded reason.
    fn check_post(&self) -> Result<(), Broken> {
        let (books, post) = (self.shop.books(), self.shop.post());
        for (id, order) in &books.orders {
            for (mail, letter) in &order.mails {
                let delivered = post.get(&(*id, *mail)).cloned().unwrap_or_default();
                let erased = books.customers.get(&order.customer).is_some_and(|it| it.erased);
                let holds = match letter.code.as_deref() {
                    _ if letter.recorded.is_none() => false,
                    None => !delivered.message_ids.is_empty(),
                    Some("erased") => erased,
                    Some(_) => delivered.refused,
                };
                if !holds {
                    return Err(format!("order {id}: {mail:?} {letter:?}, but {delivered:?}"));
                }
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Step, Broken> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err("the run does not end: too many steps".into());
        }
        let step = self.world.step();
        if step == Step::Ran {
            self.shop.observe();
        }
        self.shop.broken().map_or(Ok(step), Err)
    }

    /// Takes up to `count` steps; fewer if only a long wait is left.
    fn steps(&mut self, count: u32) -> Result<(), Broken> {
        for _ in 0..count {
            match self.step()? {
                Step::Ran => {}
                Step::Idle => break,
                Step::Until(due) => {
                    let far = due > self.world.clock() + Duration::from_secs(2);
                    if far && !self.world.once_in(5) {
                        break;
                    }
                    self.world.pass(due);
                }
            }
        }
        Ok(())
    }

    /// Takes steps until `done`, at most until the time `limit`.
    fn until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> Result<bool, Broken> {
        let mut count = 0_u32;
        loop {
            // The check is more expensive than a step, so do it rarely.
            count += 1;
            let step = self.step()?;
            if (step != Step::Ran || count.is_multiple_of(16)) && done(self) {
                return Ok(true);
            }
            match step {
                Step::Ran if self.world.clock() <= limit => {}
                Step::Until(due) if due <= limit => self.world.pass(due),
                Step::Ran | Step::Until(_) | Step::Idle => return Ok(false),
            }
        }
    }

    fn start(&mut self) {
        self.started += 1;
        let id = self.started;
        let node = Node::new(&self.world, id);
        let environment: Arc<dyn Environment> = node.clone();
        let log: Arc<dyn EventLog> = Arc::new(Network {
            memory: self.shop.log.clone(),
            world: Arc::clone(&self.world),
            process: id,
            weather: Arc::clone(&self.shop.weather),
        });
        let gateway = Arc::new(Till(Arc::clone(&self.shop)));
        let mailer = Arc::new(Postman { shop: Arc::clone(&self.shop), process: id });
        self.shop.note_begin(id);
        let outside = Outside { gateway, keys: Arc::clone(&self.shop.keys) as _, mailer };
        let settings = WriteSettings {
            expiry_grace: self.grace,
            order_deadline: LONGEST,
            snapshots: self.disk.clone().map(|disk| disk as Arc<dyn SnapshotStore>),
            ..WriteSettings::new(environment.uuid(), rules())
        };
        self.shop.tell(|| format!("process {id} is node {}", settings.node));
        let write_side = WriteSide::start(&log, &environment, outside, &settings);
        let (router, payments) = (write_side.router.clone(), write_side.payments.clone());
        self.shop.open_door(id, router, payments);
        let mut before =
            self.processes.iter().flat_map(|process| process.write_side.router.status());
        let takes_over = before.all(|shard| shard.term > 0);
        self.processes.push(Process { id, node, write_side, takes_over });
    }

    fn kill(&mut self, at: usize) {
        let process = self.processes.remove(at);
        self.shop.close_door(process.id);
        self.world.kill(process.id);
    }

    fn stop(&mut self, at: usize) {
        let Process { id, write_side, .. } = self.processes.remove(at);
        self.shop.close_door(id);
        self.world.thaw(id);
        self.shop.client(write_side.stop());
    }

    /// Adds products and customers before any trouble begins.
    fn furnish(&mut self) -> Result<(), Broken> {
        let price = |amount| Money::new(amount, currency());
        for number in 0..PRODUCTS {
            let add = product::Add {
                name: format!("Book {number}").into(),
                description: None,
                category: None,
                price: price(700 * i64::from(number) + 500),
                initial_stock: 2 + i64::from(number) * 3,
            };
            let request = keyed(product_stream(number), product::Command::Add(add), "add");
            self.insist(request);
        }
        for number in 0..CUSTOMERS {
            self.register(number, number);
        }
        let limit = self.world.clock() + Duration::from_mins(1);
        let ready = |run: &Self| {
            run.calls_over() && run.shop.books().customers.values().all(|found| found.registered)
        };
        if self.until(limit, ready)? { Ok(()) } else { Err("the shop did not open in time".into()) }
    }

    /// Whether a partition with streams, which is asked, belongs to another process.
    fn lacks_a_partition(&self) -> bool {
        let router = &self.processes[0].write_side.router;
        let asked: BTreeSet<Partition> =
            self.shop.books().streams().map(|stream| router.partition_of(stream)).collect();
        let lost = |shard: &ShardStatus| {
            matches!(shard.state, ShardState::Foreign { .. }) && asked.contains(&shard.partition)
        };
        router.status().iter().any(lost)
    }

    /// Ends all trouble.
    fn peace(&mut self) -> Result<(), Broken> {
        self.shop.tell(|| "peace".into());
        for partition in (0..self.shop.log.partitions()).map(Partition) {
            self.shop.log.heal(partition);
            if self.world.once_in(2) {
                self.shop.log.deliver_ghosts(partition);
            }
        }
        self.shop.log.set_latency(Duration::ZERO);
        self.shop.weather.set(0, Duration::ZERO);
        self.shop.set_mood(Mood::Calm);
        self.shop.set_post_mood(PostMood::Open);
        self.act(&Act::Thaw);
        self.processes.iter().for_each(|process| process.node.set_right());
        self.check()?;
        self.settle_down()?;
        // A process notices that it lost a partition when it is asked. If the new owner is dead, it
        // takes the partition back, because it is asked again and again.
        if self.processes.len() == 1 {
            for _ in 0..4 {
                let _ = self.states();
                self.settle_down()?;
                if !self.lacks_a_partition() {
                    break;
                }
            }
            if self.lacks_a_partition() {
                return Err("a partition is not taken back".into());
            }
        }
        if self.processes.len() != 1 || !self.serves() {
            while !self.processes.is_empty() {
                self.kill(0);
            }
            self.start();
        }
        self.check()
    }

    /// Lets time pass without trouble.
    fn settle_down(&mut self) -> Result<(), Broken> {
        let limit = self.world.clock() + Duration::from_secs(30);
        self.until(limit, |_| false)?;
        self.world.pass(limit);
        Ok(())
    }

    fn calls_over(&self) -> bool {
        self.shop.calls().iter().all(|call| call.is_over)
    }

    fn is_at_rest(&self) -> bool {
        let pending =
            |books: &Books| books.orders.values().any(|one| one.status == Status::Pending);
        let owing = self.processes.iter().any(|process| process.write_side.owing() > 0);
        let books = self.shop.books();
        !owing && self.calls_over() && !pending(&books) && books.refunds_to_fail == 0
    }

    fn come_to_rest(&mut self) -> Result<(), Broken> {
        for at in 0..self.shop.calls().len() {
            self.shop.client(Arc::clone(&self.shop).insist(at));
        }
        let now = self.processes[0].node.now();
        let deadlines = self.shop.books().orders.values().map(|order| order.deadline).max();
        let last = deadlines.map_or(TimeDelta::zero(), |deadline| deadline - now);
        // Clients that still retry may place more orders. Their deadlines were computed earlier.
        // A clock that was ahead leaves deadlines far ahead; no order waits for those.
        let last = last.to_std().unwrap_or_default().min(LONGEST);
        let wait = last + self.grace + PEACE;
        let limit = self.world.clock() + wait;
        // Both conditions are needed: a partition reports the effects it owes only when it opens.
        if !self.until(limit, |run| run.serves() && run.is_at_rest())? {
            self.check()?;
            let owing = self.processes[0].write_side.owing();
            let over = self.calls_over();
            let status = self.processes[0].write_side.router.status();
            return Err(format!(
                "unfinished: {owing} streams owe effects, all answered: {over}, {status:?}"
            ));
        }
        self.shop.books().at_rest()?;
        for partition in (0..self.shop.log.partitions()).map(Partition) {
            self.shop.log.deliver_ghosts(partition);
        }
        self.shop.observe();
        self.shop.books().at_rest()?;
        self.check_post()?;
        self.check()
    }

    /// Whatever the clocks did before, an order that is placed in peace does not expire.
    fn order_in_peace(&mut self) -> Result<(), Broken> {
        let before: BTreeSet<Uuid> = self.shop.books().orders.keys().copied().collect();
        for customer in 0..CUSTOMERS {
            self.act(&Act::Place {
                customer,
                lines: vec![(customer, 1)],
                method: "visa",
                deadline_s: 900,
                patience_ms: 20_000,
            });
        }
        self.come_to_rest()?;
        let books = self.shop.books();
        let mut placed = books.orders.iter().filter(|(id, _)| !before.contains(id));
        match placed.find(|(_, order)| order.rejection == Some(RejectionReason::Expired)) {
            Some((id, _)) => Err(format!("order {id} was placed in peace and expired")),
            None => Ok(()),
        }
    }

    fn serves(&self) -> bool {
        let status = self.processes[0].write_side.router.status();
        status.iter().all(|shard| shard.state == ShardState::Open)
    }

    /// Checks that a new process recovers the state of the old one, with snapshots and without.
    fn compare_with_fresh_folds(&mut self) -> Result<(), Broken> {
        let running = self.states()?;
        if self.disk.is_some() {
            self.compare_with_fresh_fold(&running)?;
            self.disk = None;
        }
        self.compare_with_fresh_fold(&running)
    }

    fn compare_with_fresh_fold(
        &mut self,
        running: &BTreeMap<StreamId, String>,
    ) -> Result<(), Broken> {
        self.kill(0);
        self.start();
        let limit = self.world.clock() + Duration::from_mins(1);
        if !self.until(limit, Self::serves)? {
            return Err("the process did not open again".into());
        }
        let fresh = self.states()?;
        for (stream, state) in running {
            if fresh.get(stream) != Some(state) {
                let fresh = fresh.get(stream);
                return Err(format!("{stream} is {state}, but a new process recovers {fresh:?}"));
            }
        }
        if self.is_at_rest() {
            Ok(())
        } else {
            Err("a new process owes effects that were carried out".into())
        }
    }

    fn states(&mut self) -> Result<BTreeMap<StreamId, String>, Broken> {
        let streams: Vec<StreamId> = self.shop.books().streams().collect();
        let found = Arc::new(std::sync::Mutex::new(BTreeMap::new()));
        let router = self.processes[0].write_side.router.clone();
        let (wanted, told) = (streams.len(), Arc::clone(&found));
        self.shop.client(async move {
            for stream in streams {
                if let Ok(view) = router.state(stream).await {
                    let told = &told;
                    told.lock().unwrap().insert(stream, format!("{view:?}"));
                }
            }
        });
        let limit = self.world.clock() + Duration::from_mins(1);
        let all = Arc::clone(&found);
        if self.until(limit, move |_| all.lock().unwrap().len() == wanted)? {
            Ok(found.lock().unwrap().clone())
        } else {
            Err("a look is not answered".into())
        }
    }
}
