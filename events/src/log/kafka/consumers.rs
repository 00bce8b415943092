//! The consumers that all readers of a process share.
//!
//! A consumer has one position per partition. So each reader leases its partition from the first
//! consumer in which that partition is free. There are as many consumers as there are concurrent
//! readers of one partition. Each leased partition has its own queue.

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

/// The most consumers, and so the most concurrent readers of one partition.
const MAX_CONSUMERS: usize = 16;

fn consumer_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = settings.consumer();
    config
        // librdkafka needs a group id to make a consumer queue. The group is never joined:
        // partitions are assigned manually.
        .set("group.id", "orderlog-readers")
        .set("group.protocol", "classic")
        // New records end the wait at once. The end of a partition is reported only after the wait,
        // so keep it short.
        .set("fetch.wait.max.ms", "100")
        .set("fetch.min.bytes", "1")
        // These limits hold for each partition, because each has its own queue.
        .set("queued.min.messages", "20000")
        .set("queued.max.messages.kbytes", "8192")
        // A full queue is checked again after this time. The library's default of a second starves
        // a fast reader.
        .set("fetch.queue.backoff.ms", "5");
    config
}

/// The consumers of a process.
pub(super) struct Consumers {
    topic: String,
    config: ClientConfig,
    /// The runtime whose threads start consumers. A consumer's own threads inherit the priority of
    /// the thread that starts it, and they later serve other readers. So a consumer must not be
    /// started by its first reader, which may be a rebuild in the background.
    runtime: Handle,
    started: Mutex<Vec<Arc<SharedConsumer>>>,
}

impl Consumers {
    /// Call this in a runtime that lives as long as the log is used.
    pub(super) fn new(settings: &KafkaSettings) -> Self {
        Self {
            topic: settings.topic.clone(),
            config: consumer_config(settings),
            runtime: Handle::current(),
            started: Mutex::default(),
        }
    }

    /// Starts to fetch a partition from an offset.
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

    /// Reserves the partition in the first consumer in which it is free.
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
    // The guarded sets and lists are consistent at any time, so a poisoned lock is harmless.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A consumer and the partitions leased from it.
struct SharedConsumer {
    client: Arc<BaseConsumer<Logging>>,
    leased: Mutex<BTreeSet<i32>>,
    /// Set when the consumer has failed: it gets no new leases, and its readers end.
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
        // This thread serves the consumer's own events. It also drops the consumer last, because
        // closing a consumer blocks.
        thread::Builder::new().name("kafka-consumer".to_owned()).spawn(move || {
            while owner.strong_count() > 0 {
                let event = client.poll(Duration::from_secs(1));
                // A record that arrives here is one that its reader will never see. Other errors
                // are logged by the context and repaired by the library.
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

/// A partition of a consumer, leased to one reader. Dropping it does not block.
pub(super) struct Lease {
    partition: Partition,
    number: i32,
    topic: String,
    consumer: Arc<SharedConsumer>,
    /// `Some` until the lease is dropped.
    queue: Option<PartitionQueue<Logging>>,
    wake: Arc<Notify>,
}

impl Lease {
    /// Starts a lease for a reserved partition. Dropping the lease frees the partition.
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
        // Make the queue before the assignment; otherwise the first records would go to the
        // consumer's own queue.
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

    /// The next entry in the queue.
    pub(super) fn poll(&self) -> Option<KafkaResult<BorrowedMessage<'_>>> {
        self.queue.as_ref()?.poll(Duration::ZERO)
    }

    /// The application's position: after the last record handed over and after the control records
    /// that follow it. `None` before the first record.
    pub(super) fn position(&self) -> KafkaResult<Option<Offset>> {
        let positions = self.consumer.client.position()?;
        let place = positions.find_partition(&self.topic, self.number);
        let place = place.and_then(|place| place.offset().to_raw());
        Ok(place.filter(|&place| place >= 0).map(Offset))
    }

    /// Resolves when an entry is added to the empty queue, also if that happened before this call.
    /// The future may be dropped without losing the wake-up.
    pub(super) fn woken(&self) -> impl Future<Output = ()> + '_ {
        self.wake.notified()
    }

    /// Makes the next [`woken`](Self::woken) resolve at once.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Whether the consumer has failed.
    pub(super) fn is_broken(&self) -> bool {
        self.consumer.is_broken()
    }

    /// Marks the consumer as failed: all its readers end, and new readers get another one.
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
                tracing::debug!(%error, number, "the partition could not be unassigned");
            }
            drop(queue);
            lock(&consumer.leased).remove(&number);
        };
        // Unassigning waits for the library's own thread, so it must not happen here. If no thread
        // can be started, the partition stays reserved in this consumer.
        let started = thread::Builder::new().name("kafka-release".to_owned()).spawn(give_back);
        if let Err(error) = started {
            tracing::warn!(%error, number, "a leased partition could not be freed");
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

    /// Collects the library's log lines.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl ClientContext for Told {
        fn log(&self, _: RDKafkaLogLevel, _: &str, line: &str) {
            lock(&self.0).push(line.to_owned());
        }
    }

    impl ConsumerContext for Told {}

    /// The nice values of the library's threads.
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
        // Lease from the other runtime each time: the caller must not matter.
        let _ours = background.block_on(ours.lease(Partition(0), Offset::START)).unwrap();
        assert!(!niceness().is_empty() && !niceness().contains(&NICE));
        let _aside = usual.block_on(aside.lease(Partition(0), Offset::START)).unwrap();
        assert!(niceness().contains(&NICE));
    }

    /// Tests the workaround in `fetch.c`. With a new librdkafka, check whether it still has the
    /// fault and the same functions.
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
