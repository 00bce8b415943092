//! The consumers that all readers of a process share, a partition at a time.
//!
//! A consumer has one position a partition, so each reader leases its partition from the first consumer that has it free:
//! there are as many consumers as readers of one partition at a time. Each leased partition has its own queue.

use super::{KafkaSettings, Logging, partition_number};
use crate::{Offset, Partition, log::LogFault};
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};
use tokio::{runtime::Handle, sync::Notify};

/// The most consumers: readers of one partition at the same time.
const MAX_CONSUMERS: usize = 16;

fn consumer_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = settings.consumer();
    config
        // Without a group there is no consumer queue. Partitions are assigned by hand and the group is never joined.
        .set("group.id", "orderlog-readers")
        .set("group.protocol", "classic")
        // New records end the wait at once. The end of a partition is told after it, so it must not be long.
        .set("fetch.wait.max.ms", "100")
        .set("fetch.min.bytes", "1")
        // For each partition, as each has its own queue.
        .set("queued.min.messages", "20000")
        .set("queued.max.messages.kbytes", "8192")
        // A full queue is looked at again after this; the library's default of a second starves a fast reader.
        .set("fetch.queue.backoff.ms", "5");
    config
}

/// The consumers of a process.
pub(super) struct Consumers {
    topic: String,
    config: ClientConfig,
    /// Whose threads start consumers. A consumer's own threads inherit the priority of the one that starts it, and are used by
    /// others later: never that of whoever happens to need it first, which may be a rebuild in the background.
    runtime: Handle,
    started: Mutex<Vec<Arc<SharedConsumer>>>,
}

impl Consumers {
    /// In a runtime that lives as long as the log is used.
    pub(super) fn new(settings: &KafkaSettings) -> Self {
        Self {
            topic: settings.topic.clone(),
            config: consumer_config(settings),
            runtime: Handle::current(),
            started: Mutex::default(),
        }
    }

    /// Starts to fetch a partition from an offset on.
    pub(super) async fn lease(
        self: &Arc<Self>,
        partition: Partition,
        from: Offset,
    ) -> Result<Lease, LogFault> {
        let consumers = Arc::clone(self);
        let lease = self.runtime.spawn_blocking(move || {
            let number = partition_number(partition)?;
            let consumer = consumers.reserve(number)?;
            Lease::start(consumer, &consumers.topic, partition, number, from)
        });
        lease.await?
    }

    /// The first consumer that has the partition free, with the partition marked as taken.
    fn reserve(&self, partition: i32) -> Result<Arc<SharedConsumer>, LogFault> {
        let mut consumers = lock(&self.started);
        consumers.retain(|consumer| !consumer.is_broken());
        if let Some(free) = consumers.iter().find(|consumer| consumer.reserve(partition)) {
            return Ok(Arc::clone(free));
        }
        if consumers.len() >= MAX_CONSUMERS {
            return Err("too many readers of one partition".into());
        }
        let consumer = SharedConsumer::start(&self.config)?;
        consumer.reserve(partition);
        consumers.push(Arc::clone(&consumer));
        Ok(consumer)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Sets and lists that are whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A consumer and the partitions that are leased from it.
struct SharedConsumer {
    client: Arc<BaseConsumer<Logging>>,
    leased: Mutex<BTreeSet<i32>>,
    /// Set once it cannot be trusted any more: no new leases, and its readers end.
    broken: Arc<AtomicBool>,
}

impl SharedConsumer {
    fn start(config: &ClientConfig) -> Result<Arc<Self>, LogFault> {
        let client: Arc<BaseConsumer<Logging>> = Arc::new(config.create_with_context(Logging)?);
        let shared = Arc::new(Self {
            client: Arc::clone(&client),
            leased: Mutex::default(),
            broken: Arc::default(),
        });
        let broken = Arc::clone(&shared.broken);
        let owner = Arc::downgrade(&shared);
        // Serves the consumer's own events, and is the last to hold it: closing a consumer blocks.
        thread::Builder::new().name("kafka-consumer".to_owned()).spawn(move || {
            while owner.strong_count() > 0 {
                let event = client.poll(Duration::from_secs(1));
                // A record here is one its reader will never see. Other errors are told by the context, and repaired by the
                // library.
                if let Some(Ok(_) | Err(KafkaError::MessageConsumptionFatal(_))) = event {
                    broken.store(true, Relaxed);
                }
            }
        })?;
        Ok(shared)
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Relaxed)
    }

    fn reserve(&self, partition: i32) -> bool {
        lock(&self.leased).insert(partition)
    }
}

/// A partition of a consumer, for one reader. Dropped without blocking.
pub(super) struct Lease {
    partition: Partition,
    number: i32,
    topic: String,
    consumer: Arc<SharedConsumer>,
    /// There until the lease is dropped.
    queue: Option<PartitionQueue<Logging>>,
    wake: Arc<Notify>,
}

impl Lease {
    /// For a partition that is reserved: given back when this is dropped.
    fn start(
        consumer: Arc<SharedConsumer>,
        topic: &str,
        partition: Partition,
        number: i32,
        from: Offset,
    ) -> Result<Self, LogFault> {
        let topic = topic.to_owned();
        let mut lease =
            Self { partition, number, topic, consumer, queue: None, wake: Arc::default() };
        let mut assignment = TopicPartitionList::with_capacity(1);
        assignment.add_partition_offset(&lease.topic, number, rdkafka::Offset::Offset(from.0))?;
        // The queue comes before the assignment, or the first records would go to the consumer's own queue.
        let queue = lease.consumer.client.split_partition_queue(&lease.topic, number);
        let queue = lease.queue.insert(queue.ok_or("the partition has no queue")?);
        let wake = Arc::clone(&lease.wake);
        queue.set_nonempty_callback(move || wake.notify_one());
        lease.consumer.client.incremental_assign(&assignment)?;
        Ok(lease)
    }

    /// The partition.
    pub(super) fn partition(&self) -> Partition {
        self.partition
    }

    /// What waits next in the queue.
    pub(super) fn poll(&self) -> Option<KafkaResult<BorrowedMessage<'_>>> {
        self.queue.as_ref()?.poll(Duration::ZERO)
    }

    /// Where the application stands: behind the last record handed over, and behind the control records that followed.
    /// `None` before any.
    pub(super) fn position(&self) -> KafkaResult<Option<Offset>> {
        let positions = self.consumer.client.position()?;
        let place = positions.find_partition(&self.topic, self.number);
        let place = place.and_then(|place| place.offset().to_raw());
        Ok(place.filter(|&place| place >= 0).map(Offset))
    }

    /// Resolves once something was put into an empty queue, be it before this call. Nothing is lost by dropping it.
    pub(super) fn woken(&self) -> impl Future<Output = ()> + '_ {
        self.wake.notified()
    }

    /// Lets the next [`woken`](Self::woken) resolve at once.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether the consumer cannot be trusted any more.
    pub(super) fn is_broken(&self) -> bool {
        self.consumer.is_broken()
    }

    /// Ends all readers of the consumer; others get a new one.
    pub(super) fn give_up(&self) {
        self.consumer.broken.store(true, Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (consumer, queue) = (Arc::clone(&self.consumer), self.queue.take());
        let (topic, number) = (std::mem::take(&mut self.topic), self.number);
        let give_back = move || {
            let mut assignment = TopicPartitionList::with_capacity(1);
            assignment.add_partition(&topic, number);
            if let Err(error) = consumer.client.incremental_unassign(&assignment) {
                tracing::debug!(%error, number, "the partition was not assigned");
            }
            drop(queue);
            lock(&consumer.leased).remove(&number);
        };
        // Waits for the library's own thread, so not here. Without a thread the partition stays taken, and nothing else.
        let started = thread::Builder::new().name("kafka-release".to_owned()).spawn(give_back);
        if let Err(error) = started {
            tracing::warn!(%error, number, "a partition could not be given back");
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::log::kafka::mock::Mock;
    use rdkafka::{ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext};
    use rustix::process::{Pid, getpriority_process, setpriority_process};
    use std::fs::{self, DirEntry};

    /// Keeps what the library tells of its requests.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl ClientContext for Told {
        fn log(&self, _: RDKafkaLogLevel, _: &str, line: &str) {
            lock(&self.0).push(line.to_owned());
        }
    }

    impl ConsumerContext for Told {}

    /// How nice the library's threads are.
    fn niceness() -> Vec<i32> {
        let ours = |thread: &DirEntry| {
            fs::read_to_string(thread.path().join("comm"))
                .is_ok_and(|name| name.starts_with("rdk:"))
        };
        let id = |thread: DirEntry| Pid::from_raw(thread.file_name().to_str()?.parse().ok()?);
        let threads = fs::read_dir("/proc/self/task").unwrap().flatten().filter(ours);
        threads.filter_map(id).filter_map(|id| getpriority_process(Some(id)).ok()).collect()
    }

    #[test]
    fn kafka_readers_are_served_with_the_priority_of_the_runtime_they_were_made_for() {
        const NICE: i32 = 13;
        let Mock { cluster: _cluster, settings } = Mock::new();
        let runtime = |nice| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(1).on_thread_start(move || {
                setpriority_process(None, nice).unwrap();
            });
            builder.build().unwrap()
        };
        let (background, usual) = (runtime(NICE), runtime(0));
        let consumers = |runtime: &tokio::runtime::Runtime| {
            let _entered = runtime.enter();
            Arc::new(Consumers::new(&settings))
        };
        let (aside, ours) = (consumers(&background), consumers(&usual));
        // Whoever asks.
        let _ours = background.block_on(ours.lease(Partition(0), Offset::START)).unwrap();
        assert!(!niceness().is_empty() && !niceness().contains(&NICE));
        let _aside = usual.block_on(aside.lease(Partition(0), Offset::START)).unwrap();
        assert!(niceness().contains(&NICE));
    }

    /// As `fetch.c` has it. A new librdkafka has to be looked at: is the fault still there, are the functions the same?
    #[test]
    fn kafka_is_not_asked_who_leads_with_a_fetch() {
        assert_eq!(rdkafka::util::get_rdkafka_version().1, "2.12.1");
        let Mock { cluster: _cluster, settings } = Mock::new();
        let mut config = consumer_config(&settings);
        config.set("debug", "protocol").set_log_level(RDKafkaLogLevel::Debug);
        let told = Told::default();
        let consumer: BaseConsumer<Told> = config.create_with_context(told.clone()).unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&settings.topic, 0, rdkafka::Offset::Beginning).unwrap();
        consumer.assign(&assignment).unwrap();
        let fetch = (0..300).find_map(|_| {
            let _ = consumer.poll(Duration::from_millis(100));
            let told = std::mem::take(&mut *lock(&told.0));
            told.into_iter().find(|line| line.contains("Sent FetchRequest"))
        });
        let fetch = fetch.expect("a fetch within 30 s");
        assert!(fetch.contains("(v15,"), "{fetch}");
    }
}
