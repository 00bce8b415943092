//! A lane on Kafka: one transactional producer, driven by its own thread because its calls block.
//!
//! - A transaction is never aborted or resumed. After any error the producer is dropped, and the
//!   broker ends its transaction when the lane is fenced next.
//! - Before `commit_transaction` is called, no commit request of this batch has left the process,
//!   and no commit request of an earlier batch is still in flight (each was answered so fast that
//!   it was certainly sent only once). So a batch that fails before that call is certainly not in
//!   the log, and the outcome of a batch that fails in that call is unknown.
//! - All deliveries are awaited before the commit. The call is then one request, and its duration
//!   shows whether the library can have repeated it. The library's own wait inside
//!   `commit_transaction` would take a fixed 100 ms.

use super::{KafkaSettings, Logging, partition_number, record};
use crate::{
    Environment, Offset, Partition,
    log::{AppendError, Batch, Committed, Lane, LogFault},
};
use async_trait::async_trait;
use rdkafka::{
    ClientConfig, ClientContext, Message,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// The broker aborts a transaction that takes longer than this, such as one of a writer that died.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);

/// A record that is not delivered within this time has failed. Shorter than the time-out of the
/// transaction.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// The library repeats a request after 80 % of this at the earliest.
const RETRY_BACKOFF: Duration = Duration::from_secs(1);

/// A commit answered faster than this was requested only once: see [`RETRY_BACKOFF`].
const CLEAN_COMMIT: Duration = Duration::from_millis(800);

/// How often an idle lane polls its producer for events.
const IDLE_SERVICE: Duration = Duration::from_secs(5);

fn producer_config(settings: &KafkaSettings, partition: Partition, lane: usize) -> ClientConfig {
    let millis = |duration: Duration| duration.as_millis().to_string();
    let mut config = settings.client();
    config
        .set("transactional.id", format!("{}-writer-{partition}-{lane}", settings.topic))
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        // The whole batch is handed over before the first record is sent, so there is nothing to
        // wait for.
        .set("linger.ms", "0")
        .set("batch.size", "1000000")
        .set("retry.backoff.ms", millis(RETRY_BACKOFF))
        .set("retry.backoff.max.ms", millis(RETRY_BACKOFF))
        .set("transaction.timeout.ms", millis(TRANSACTION_TIMEOUT))
        .set("message.timeout.ms", millis(DELIVERY_TIMEOUT))
        .set("socket.timeout.ms", "5000");
    config
}

struct Commit {
    batch: Batch,
    answer: oneshot::Sender<Result<Committed, AppendError>>,
}

/// A fenced lane. Dropping it does not block: its thread drops the producer.
pub(super) struct KafkaLane {
    /// Takes one commit at a time, as the port requires. `None` while a commit is in flight, and
    /// after an error.
    commits: Option<mpsc::SyncSender<Commit>>,
}

impl KafkaLane {
    /// Takes the lane. When this returns, the broker has ended the transaction of any earlier
    /// owner.
    pub(super) async fn fence(
        settings: &KafkaSettings,
        partition: Partition,
        lane: usize,
    ) -> Result<Self, LogFault> {
        let number = partition_number(partition)?;
        let config = producer_config(settings, partition, lane);
        let topic = settings.topic.clone();
        let environment = Arc::clone(&settings.environment);
        let (fenced, when_fenced) = oneshot::channel();
        let (commits, waiting) = mpsc::sync_channel(1);
        thread::Builder::new().name(format!("lane-{partition}-{lane}")).spawn(move || {
            let producer = config
                .create_with_context(Deliveries::default())
                .map(|producer| LaneProducer {
                    producer,
                    topic,
                    partition: number,
                    environment,
                    usual_delivery: Duration::ZERO,
                })
                .and_then(LaneProducer::init);
            match producer {
                Ok(producer) => {
                    if fenced.send(Ok(())).is_ok() {
                        producer.serve(&waiting);
                    }
                }
                // If the receiver is gone, the caller has given up and needs no answer.
                Err(error) => drop(fenced.send(Err(error))),
            }
        })?;
        when_fenced.await??;
        Ok(Self { commits: Some(commits) })
    }
}

#[async_trait]
impl Lane for KafkaLane {
    async fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError> {
        let unusable = || AppendError::NotApplied("the lane has failed or is in use".into());
        // Taken out, so that the lane is not used again if this future is dropped.
        let commits = self.commits.take().ok_or_else(unusable)?;
        let (answer, answered) = oneshot::channel();
        commits.try_send(Commit { batch: batch.clone(), answer }).map_err(|_| unusable())?;
        let committed = answered.await.map_err(|error| AppendError::Unknown(error.into()))??;
        self.commits = Some(commits);
        Ok(committed)
    }
}

/// The producer of a lane, on the lane's thread.
struct LaneProducer {
    producer: BaseProducer<Deliveries>,
    topic: String,
    partition: i32,
    environment: Arc<dyn Environment>,
    /// The usual duration of recent deliveries: how long to sleep before the first check.
    usual_delivery: Duration,
}

impl LaneProducer {
    fn init(self) -> Result<Self, KafkaError> {
        self.producer.init_transactions(TRANSACTION_TIMEOUT)?;
        Ok(self)
    }

    fn serve(mut self, commits: &mpsc::Receiver<Commit>) {
        loop {
            match commits.recv_timeout(IDLE_SERVICE) {
                Ok(Commit { batch, answer }) => {
                    let outcome = self.commit(&batch);
                    let failed = outcome.is_err();
                    // The caller may have given up; reopening the partition then shows the outcome.
                    let _ = answer.send(outcome);
                    if failed {
                        return;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => self.producer.poll(Duration::ZERO),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn commit(&mut self, batch: &Batch) -> Result<Committed, AppendError> {
        let offsets = self.produce(batch).map_err(AppendError::NotApplied)?;
        let began = self.environment.monotonic();
        // This time-out is reached only if the coordinator is unreachable. The outcome is then
        // unknown, as after any error.
        self.producer
            .commit_transaction(TRANSACTION_TIMEOUT)
            .map_err(|error| AppendError::Unknown(error.into()))?;
        let took = self.environment.monotonic().saturating_sub(began);
        Ok(Committed { offsets, suspect: took >= CLEAN_COMMIT })
    }

    /// Does everything before the commit: afterwards the records are in the partition, but not
    /// visible.
    fn produce(&mut self, batch: &Batch) -> Result<Vec<Offset>, LogFault> {
        self.producer.begin_transaction()?;
        self.producer.context().expect(batch.records.len());
        let began = self.environment.monotonic();
        for (index, (record, stamp)) in batch.records.iter().zip(batch.stamps()).enumerate() {
            record.stream.with_text(|key| {
                self.send(
                    BaseRecord::with_opaque_to(&self.topic, index)
                        .partition(self.partition)
                        .key(key)
                        .payload(record.body.as_ref())
                        .timestamp(record.time.timestamp_millis())
                        .headers(record::headers(record, &stamp)),
                    began,
                )
            })?;
        }
        self.drain(began)?;
        self.producer.context().take_offsets()
    }

    fn send(
        &self,
        mut record: BaseRecord<'_, str, [u8], usize>,
        began: Duration,
    ) -> Result<(), LogFault> {
        loop {
            record = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, record)) if is_queue_full(&error) => {
                    self.check(began)?;
                    self.producer.poll(Duration::ZERO);
                    thread::sleep(Duration::from_millis(1));
                    record
                }
                Err((error, _)) => return Err(error.into()),
            };
        }
    }

    /// Waits until nothing is in flight. The producer's own `poll` cannot return at the first
    /// event, so this polls without blocking: first at the usual time of a delivery, then in
    /// growing steps.
    fn drain(&mut self, began: Duration) -> Result<(), LogFault> {
        const LEAST: Duration = Duration::from_micros(50);
        const MOST: Duration = Duration::from_millis(5);
        let mut left = self.producer.in_flight_count();
        while left > 0 {
            self.producer.poll(Duration::ZERO);
            let before = std::mem::replace(&mut left, self.producer.in_flight_count());
            if left < before {
                continue;
            }
            let elapsed = self.check(began)?;
            let usual = (self.usual_delivery * 3 / 4).saturating_sub(elapsed);
            thread::sleep(usual.max(elapsed / 8).clamp(LEAST, MOST));
        }
        let took = self.environment.monotonic().saturating_sub(began);
        self.usual_delivery = (self.usual_delivery * 3 + took) / 4;
        Ok(())
    }

    /// The time since the batch was started; an error if it can no longer be delivered.
    fn check(&self, began: Duration) -> Result<Duration, LogFault> {
        self.producer.context().check()?;
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            return Err(format!("the producer has failed with {code}: {reason}").into());
        }
        let elapsed = self.environment.monotonic().saturating_sub(began);
        if elapsed >= TRANSACTION_TIMEOUT {
            return Err("the batch was not delivered in time".into());
        }
        Ok(elapsed)
    }
}

fn is_queue_full(error: &KafkaError) -> bool {
    matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull))
}

/// The broker's delivery reports of the records in flight.
#[derive(Default)]
struct Deliveries(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    /// By index in the batch.
    offsets: Vec<Option<Offset>>,
    failed: Option<KafkaError>,
}

impl Deliveries {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        // The guarded values are consistent at any time, so a poisoned lock is harmless.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, records: usize) {
        *self.pending() = Pending { offsets: vec![None; records], failed: None };
    }

    fn check(&self) -> Result<(), KafkaError> {
        self.pending().failed.clone().map_or(Ok(()), Err)
    }

    /// The offsets of all records, in the order of the batch.
    fn take_offsets(&self) -> Result<Vec<Offset>, LogFault> {
        self.check()?;
        let offsets: Option<Vec<_>> =
            std::mem::take(&mut self.pending().offsets).into_iter().collect();
        // The broker reports a record that it took for a duplicate without its offset.
        let offsets = offsets.ok_or("a record was delivered without its offset")?;
        if !offsets.is_sorted_by(|a, b| a < b) {
            return Err("the records were delivered out of order".into());
        }
        Ok(offsets)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Logging.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Logging.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut pending = self.pending();
        match result {
            Ok(message) if message.offset() >= 0 => {
                if let Some(offset) = pending.offsets.get_mut(index) {
                    *offset = Some(Offset(message.offset()));
                }
            }
            Ok(_) => {}
            Err((error, _)) => pending.failed = Some(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        environment::System,
        log::{contract::record, kafka::mock::Mock},
    };
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    impl Mock {
        async fn fence(&self) -> KafkaLane {
            KafkaLane::fence(&self.settings, Partition(0), 0).await.unwrap()
        }
    }

    fn batch(len: usize) -> Batch {
        Batch { id: System::new().uuid(), term: 1, records: vec![record("late"); len] }
    }

    #[tokio::test]
    async fn kafka_commit_is_clean_and_gives_the_offsets_in_order() {
        let mock = Mock::new();
        let mut lane = mock.fence().await;
        for len in [1, 5_000, 1] {
            let Committed { offsets, suspect } = lane.commit(&batch(len)).await.unwrap();
            assert_eq!(offsets.len(), len);
            assert!(offsets.is_sorted_by(|a, b| a < b) && !suspect);
        }
    }

    #[tokio::test]
    async fn kafka_commit_request_that_was_repeated_is_suspect() {
        let mock = Mock::new();
        let mut lane = mock.fence().await;
        let repeat = RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
        mock.cluster.request_errors(RDKafkaApiKey::EndTxn, &[repeat]);
        let committed = lane.commit(&batch(2)).await.unwrap();
        assert!(committed.suspect);
    }

    #[tokio::test]
    async fn kafka_commit_request_that_failed_leaves_the_outcome_unknown() {
        let mock = Mock::new();
        let mut lane = mock.fence().await;
        let fenced = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH;
        mock.cluster.request_errors(RDKafkaApiKey::EndTxn, &[fenced]);
        let failed = lane.commit(&batch(1)).await;
        assert!(matches!(failed, Err(AppendError::Unknown(_))), "{failed:?}");
        let after = lane.commit(&batch(1)).await;
        assert!(matches!(after, Err(AppendError::NotApplied(_))), "{after:?}");
    }

    #[tokio::test]
    async fn kafka_record_that_is_not_delivered_is_certainly_not_appended() {
        let mock = Mock::new();
        let mut lane = mock.fence().await;
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        mock.cluster.request_errors(RDKafkaApiKey::Produce, &[refused]);
        let failed = lane.commit(&batch(3)).await;
        assert!(matches!(failed, Err(AppendError::NotApplied(_))), "{failed:?}");
    }
}
