//! A simulated world on one thread. Its tasks run in any order, and its clock moves on when no task
//! can run. A seed decides both.
//!
//! The simulator needs processes that die or freeze between two polls, on one clock. Published
//! simulation runtimes can do that only by replacing tokio in the whole build. Tokio's channels and
//! locks need no runtime, so this small executor is enough.

use chrono::TimeDelta;
use events::{Environment, Timestamp, environment::to_micros};
use futures::future::BoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, Weak},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use uuid::{Builder, Uuid};

/// The number of a process. Tasks that live as long as the world belong to process 0.
pub type ProcessId = u32;

/// Clients, brokers and the gateway, which are never killed.
pub const OUTSIDE: ProcessId = 0;

/// The most that the clock moves in each step, in µs.
const STEP_MICROS: u64 = 100;

struct Task {
    process: ProcessId,
    /// `None` while it is being polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Waker,
}

struct Inner {
    chance: fastrand::Rng,
    clock: Duration,
    numbers: u64,
    tasks: BTreeMap<u64, Task>,
    /// Ordered by number and not by time of wake-up, because tokio's `watch` wakes tasks in a
    /// random order.
    ready: BTreeSet<u64>,
    timers: BTreeMap<(Duration, u64), Waker>,
    frozen: BTreeSet<ProcessId>,
    dead: BTreeSet<ProcessId>,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A task ran.
    Ran,
    /// No task can run before this time.
    Until(Duration),
    /// No task will ever run again.
    Idle,
}

/// The world.
pub struct World(Mutex<Inner>);

struct TaskWaker {
    world: Weak<World>,
    task: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let Some(world) = self.world.upgrade() else { return };
        let mut inner = world.inner();
        if inner.tasks.contains_key(&self.task) {
            inner.ready.insert(self.task);
        }
    }
}

impl World {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            chance: fastrand::Rng::with_seed(seed),
            clock: Duration::ZERO,
            numbers: 0,
            tasks: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeMap::new(),
            frozen: BTreeSet::new(),
            dead: BTreeSet::new(),
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn clock(&self) -> Duration {
        self.inner().clock
    }

    /// A random number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.inner().chance.u64(..end)
    }

    /// `true` once in `times` times, at random.
    pub fn once_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn spawn(self: &Arc<Self>, process: ProcessId, future: BoxFuture<'static, ()>) {
        let mut inner = self.inner();
        if inner.dead.contains(&process) {
            drop(inner);
            return drop(future);
        }
        inner.numbers += 1;
        let id = inner.numbers;
        let waker = Waker::from(Arc::new(TaskWaker { world: Arc::downgrade(self), task: id }));
        inner.tasks.insert(id, Task { process, future: Some(future), waker });
        inner.ready.insert(id);
    }

    /// Drops every task of the process.
    pub fn kill(&self, process: ProcessId) {
        let mut inner = self.inner();
        inner.dead.insert(process);
        inner.frozen.remove(&process);
        let all = std::mem::take(&mut inner.tasks);
        let (dead, alive) = all.into_iter().partition(|(_, task)| task.process == process);
        inner.tasks = alive;
        let tasks = &inner.tasks;
        let ready = inner.ready.iter().copied().filter(|id| tasks.contains_key(id)).collect();
        inner.ready = ready;
        drop(inner);
        // Dropping the tasks closes their channels, as if a connection were closed.
        drop::<BTreeMap<u64, Task>>(dead);
    }

    /// Stops the process until it is thawed. Its clock goes on.
    pub fn freeze(&self, process: ProcessId) {
        self.inner().frozen.insert(process);
    }

    pub fn thaw(&self, process: ProcessId) {
        self.inner().frozen.remove(&process);
    }

    /// Moves the clock on, at most to `clock`.
    pub fn pass(&self, clock: Duration) {
        let mut inner = self.inner();
        inner.clock = inner.clock.max(clock);
    }

    /// Runs one of the tasks that can run.
    pub fn step(&self) -> Step {
        for waker in self.due() {
            waker.wake();
        }
        let (id, mut future, waker) = match self.take_ready() {
            Ok(taken) => taken,
            Err(idle) => return idle,
        };
        let done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut inner = self.inner();
        if done {
            // The task may have been woken while it ran.
            inner.ready.remove(&id);
            inner.tasks.remove(&id);
        } else if let Some(task) = inner.tasks.get_mut(&id) {
            task.future = Some(future);
            return Step::Ran;
        }
        drop(inner);
        drop(future);
        Step::Ran
    }

    fn due(&self) -> Vec<Waker> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let later = inner.timers.split_off(&(inner.clock, u64::MAX));
        std::mem::replace(&mut inner.timers, later).into_values().collect()
    }

    fn take_ready(&self) -> Result<(u64, BoxFuture<'static, ()>, Waker), Step> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let able: Vec<u64> = inner
            .ready
            .iter()
            .copied()
            .filter(|id| !inner.frozen.contains(&inner.tasks[id].process))
            .collect();
        if able.is_empty() {
            return Err(inner.timers.keys().next().map_or(Step::Idle, |due| Step::Until(due.0)));
        }
        let id = able[inner.chance.usize(..able.len())];
        inner.ready.remove(&id);
        inner.clock += Duration::from_micros(inner.chance.u64(..STEP_MICROS));
        let task = inner.tasks.get_mut(&id).unwrap();
        Ok((id, task.future.take().unwrap(), task.waker.clone()))
    }

    pub fn sleep(self: &Arc<Self>, duration: Duration) -> BoxFuture<'static, ()> {
        let mut inner = self.inner();
        inner.numbers += 1;
        let key = (inner.clock.saturating_add(duration), inner.numbers);
        drop(inner);
        Box::pin(Sleep { world: Arc::clone(self), key })
    }
}

struct Sleep {
    world: Arc<World>,
    key: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.world.inner();
        if inner.clock >= self.key.0 {
            return Poll::Ready(());
        }
        inner.timers.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.world.inner().timers.remove(&self.key);
    }
}

/// The world as one process sees it, with its own wall clock.
pub struct Node {
    pub world: Arc<World>,
    pub process: ProcessId,
    off: Mutex<TimeDelta>,
}

impl Node {
    pub fn new(world: &Arc<World>, process: ProcessId) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), process, off: Mutex::default() })
    }

    /// Moves the wall clock by some seconds.
    pub fn jump(&self, seconds: i64) {
        *self.off.lock().unwrap() += TimeDelta::seconds(seconds);
    }

    /// Sets the wall clock right.
    pub fn set_right(&self) {
        *self.off.lock().unwrap() = TimeDelta::zero();
    }
}

/// The time at which every world begins.
fn beginning() -> Timestamp {
    Timestamp::from_timestamp(1_800_000_000, 0).unwrap()
}

impl Environment for Node {
    fn now(&self) -> Timestamp {
        let passed = TimeDelta::from_std(self.world.clock()).unwrap();
        to_micros(beginning() + passed + *self.off.lock().unwrap())
    }
    fn monotonic(&self) -> Duration {
        self.world.clock()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.world.sleep(duration)
    }
    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 10];
        self.world.inner().chance.fill(&mut bytes);
        let millis = u64::try_from(self.now().timestamp_millis()).unwrap();
        Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }
    fn random(&self) -> u64 {
        self.world.inner().chance.u64(..)
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.world.spawn(self.process, task);
    }
}
