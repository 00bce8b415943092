//! The log on Apache Kafka.
//!
//! | module | holds |
//! |---|---|
//! | `topic` | creates the topic, and refuses one that would lose history |
//! | `writer` | a lane: one transactional producer on its own thread |
//! | `reader` | a reader of one partition |
//! | `consumers` | the consumers that all readers share |
//! | `record` | conversion of a record to key, headers and payload, and back |
//!
//! Kafka enforces that a partition has one writer: when a lane is taken, the broker refuses every
//! earlier producer with the same transactional id. Readers see committed records only.

mod consumers;
#[cfg(test)]
mod mock;
mod reader;
mod record;
mod topic;
mod writer;

use super::{ConnectError, EventLog, Lane, LogFault, ReadError, RecordReader};
use crate::{Environment, Offset, Partition};
use async_trait::async_trait;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// How long one request to the cluster may take, including its retries.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of a log on Kafka.
#[derive(Clone)]
pub struct KafkaSettings {
    /// The brokers to connect to first: `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// The topic; created if it is missing.
    pub topic: String,
    /// The number of partitions that the topic must have. With `None`, any number is accepted, and
    /// a missing topic is created with [`DEFAULT_PARTITIONS`](Self::DEFAULT_PARTITIONS).
    pub partitions: Option<u32>,
    /// More properties of librdkafka, for TLS and SASL. They cannot override the properties that
    /// the log depends on.
    pub extra: BTreeMap<String, String>,
    /// Clock and random numbers.
    pub environment: Arc<dyn Environment>,
}

impl KafkaSettings {
    /// The topic if none is configured.
    pub const DEFAULT_TOPIC: &'static str = "orderlog.events";

    /// The number of partitions of a new topic if none is configured.
    pub const DEFAULT_PARTITIONS: u32 = 12;

    /// Settings for the default topic on these brokers, without TLS and SASL.
    pub fn new(bootstrap_servers: impl Into<String>, environment: Arc<dyn Environment>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            topic: Self::DEFAULT_TOPIC.to_owned(),
            partitions: None,
            extra: BTreeMap::new(),
            environment,
        }
    }

    /// The properties of all clients. The caller sets its own properties afterwards, so that
    /// `extra` cannot override them.
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (property, value) in &self.extra {
            config.set(property, value);
        }
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", "orderlog")
            .set("log.connection.close", "false")
            // Reconnect to a restarted broker quickly; the library's default backs off up to 10 s.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000");
        config
    }

    /// The properties of all consumers. Most of the library's defaults do not suit a log that must
    /// lose nothing.
    fn consumer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("check.crcs", "true")
            .set("enable.partition.eof", "true");
        config
    }

    /// The name of this log in errors.
    fn log(&self) -> String {
        format!("{} at {}", self.topic, self.bootstrap_servers)
    }

    fn refused(&self, reason: impl Into<String>) -> ConnectError {
        ConnectError::Refused { log: self.log(), reason: reason.into() }
    }

    fn unavailable(&self, source: impl Into<LogFault>) -> ConnectError {
        ConnectError::Unavailable { log: self.log(), source: source.into() }
    }

    fn check(&self) -> Result<(), ConnectError> {
        if self.partitions == Some(0) {
            return Err(self.refused("a log has at least one partition"));
        }
        let protocol = self.extra.get("security.protocol").map(|value| value.to_ascii_lowercase());
        let secured = protocol.is_some_and(|value| value.contains("ssl") || value.contains("sasl"));
        if secured && !cfg!(feature = "tls") {
            return Err(self.refused("TLS and SASL need a build with the feature `tls`"));
        }
        Ok(())
    }
}

/// The log on a Kafka topic.
#[derive(Clone)]
pub struct KafkaLog {
    settings: KafkaSettings,
    partitions: u32,
    /// Asks for the committed ends of partitions; reads no records.
    inquirer: Arc<Inquirer>,
    /// Asks for the ends of partitions including records that may not be visible yet.
    uncommitted: Arc<Inquirer>,
    consumers: Arc<consumers::Consumers>,
}

impl KafkaLog {
    /// Connects to the cluster. Creates the topic if it is missing, and refuses one that does not
    /// keep history for ever.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] for a topic with unsuitable settings, or for TLS or SASL in a
    /// build without the feature `tls`; [`ConnectError::Damaged`] for a topic that has lost its
    /// beginning; [`ConnectError::Unavailable`] when the cluster does not answer.
    /// [`ConnectError::Damaged`] for one that has lost its beginning; [`ConnectError::Unavailable`]
    /// when the cluster does not answer.
    pub async fn connect(settings: KafkaSettings) -> Result<Self, ConnectError> {
        settings.check()?;
        let inquirer = |isolation| {
            let inquirer = Inquirer::new(&settings, isolation).map(Arc::new);
            inquirer.map_err(|error| settings.unavailable(error))
        };
        let (inquirer, uncommitted) = (inquirer("read_committed")?, inquirer("read_uncommitted")?);
        let partitions = topic::prepare(&settings, &inquirer).await?;
        let consumers = Arc::new(consumers::Consumers::new(&settings));
        Ok(Self { settings, partitions, inquirer, uncommitted, consumers })
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    async fn fence(&self, partition: Partition, lane: usize) -> Result<Box<dyn Lane>, LogFault> {
        Ok(Box::new(writer::KafkaLane::fence(&self.settings, partition, lane).await?))
    }

    async fn read(
        &self,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn RecordReader>, ReadError> {
        let (start, end) = self.inquirer.bounds(partition).await.map_err(ReadError::Unavailable)?;
        if from < start {
            let source = format!("the history before offset {start} is missing").into();
            return Err(ReadError::Damaged { partition, offset: from, source });
        }
        let lease = self.consumers.lease(partition, from).await.map_err(ReadError::Unavailable)?;
        Ok(Box::new(reader::KafkaReader::new(
            lease,
            from,
            end,
            Arc::clone(&self.inquirer),
            Arc::clone(&self.settings.environment),
        )))
    }

    async fn end(&self, partition: Partition) -> Result<Offset, ReadError> {
        let (_, end) = self.inquirer.bounds(partition).await.map_err(ReadError::Unavailable)?;
        Ok(end)
    }

    /// Kafka acknowledges a commit before it writes the commit marker, and readers wait for the
    /// marker. So the last stable offset may still be before a batch that was just acknowledged.
    /// The high watermark is after it.
    async fn acknowledged(&self, partition: Partition) -> Result<Offset, ReadError> {
        let (_, end) = self.uncommitted.bounds(partition).await.map_err(ReadError::Unavailable)?;
        Ok(end)
    }

    /// librdkafka decodes prefetched data on its own threads, megabytes at a time, so background
    /// readers get their own consumers.
    fn in_background(&self) -> Option<Arc<dyn EventLog>> {
        let consumers = Arc::new(consumers::Consumers::new(&self.settings));
        Some(Arc::new(Self { consumers, ..self.clone() }))
    }
}

/// A client that only asks for metadata and for the bounds of partitions.
struct Inquirer {
    topic: String,
    client: BaseConsumer<Logging>,
    environment: Arc<dyn Environment>,
}

impl Inquirer {
    /// `isolation` decides which end is reported: `read_committed` the last stable offset,
    /// `read_uncommitted` the high watermark.
    fn new(settings: &KafkaSettings, isolation: &str) -> Result<Self, KafkaError> {
        // Without a group the client need not be polled.
        let mut config = settings.consumer();
        let client = config.set("isolation.level", isolation).create_with_context(Logging)?;
        let environment = Arc::clone(&settings.environment);
        Ok(Self { topic: settings.topic.clone(), client, environment })
    }

    /// The first offset of a partition, and its end at this isolation level.
    async fn bounds(self: &Arc<Self>, partition: Partition) -> Result<(Offset, Offset), LogFault> {
        let number = partition_number(partition)?;
        insist(&*self.environment, || {
            let inquirer = Arc::clone(self);
            blocking(move || {
                let Self { topic, client, .. } = &*inquirer;
                let bounds = client.fetch_watermarks(topic, number, REQUEST_TIMEOUT);
                if let Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition)) = bounds {
                    // The partition had no leader when the library last refreshed its metadata. A
                    // client that fetches no records refreshes it only every five minutes.
                    client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
                }
                let (start, end) = bounds?;
                Ok((Offset(start), Offset(end)))
            })
        })
        .await
    }
}

/// Retries until it gets an answer or [`REQUEST_TIMEOUT`] is over: a partition that is new or
/// changes its leader is unreachable for a moment.
async fn insist<T, A>(
    environment: &dyn Environment,
    mut ask: impl FnMut() -> A,
) -> Result<T, LogFault>
where
    A: Future<Output = Result<T, LogFault>>,
{
    let began = environment.monotonic();
    loop {
        let answer = ask().await;
        if answer.is_ok() || environment.monotonic().saturating_sub(began) > REQUEST_TIMEOUT {
            return answer;
        }
        environment.sleep(Duration::from_millis(50)).await;
    }
}

/// Converts to Kafka's partition numbers, which are signed.
fn partition_number(partition: Partition) -> Result<i32, LogFault> {
    Ok(i32::try_from(partition.0)?)
}

/// Runs a blocking call of the library on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogFault> + Send + 'static,
) -> Result<T, LogFault> {
    tokio::task::spawn_blocking(work).await?
}

/// Forwards the library's log lines to our log. Most of its errors are connections that it repairs
/// by itself; important errors are also returned by the calls.
#[derive(Clone, Copy)]
struct Logging;

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match level {
            Emerg | Alert | Critical | Error | Warning => {
                tracing::warn!(facility, message, "kafka client");
            }
            Notice | Info => tracing::info!(facility, message, "kafka client"),
            Debug => tracing::debug!(facility, message, "kafka client"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The library also reports the end of a partition here.
        if !matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            tracing::debug!(%error, reason, "kafka client");
        }
    }
}

impl ConsumerContext for Logging {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::System;
    use mock::Mock;

    fn settings() -> KafkaSettings {
        KafkaSettings::new("127.0.0.1:1", Arc::new(System::new()))
    }

    #[test]
    fn kafka_settings_of_the_log_win_over_extra_ones() {
        let mut settings = settings();
        settings.extra.insert("isolation.level".into(), "read_uncommitted".into());
        settings.extra.insert("sasl.username".into(), "orders".into());
        let config = settings.consumer();
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("sasl.username"), Some("orders"));
    }

    /// If librdkafka 2.12.1 remembers that a partition had no leader, it reports that the partition
    /// does not exist.
    #[tokio::test]
    async fn kafka_partition_that_gets_its_leader_back_is_found_at_once() {
        let Mock { cluster, settings } = Mock::new();
        cluster.partition_leader(&settings.topic, 0, None).unwrap();
        let inquirer = Arc::new(Inquirer::new(&settings, "read_committed").unwrap());
        inquirer.client.fetch_metadata(Some(&settings.topic), REQUEST_TIMEOUT).unwrap();
        let missing = inquirer.client.fetch_watermarks(&settings.topic, 0, REQUEST_TIMEOUT);
        let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownPartition);
        assert_eq!(missing.unwrap_err(), unknown);
        cluster.partition_leader(&settings.topic, 0, Some(1)).unwrap();
        assert_eq!(inquirer.bounds(Partition(0)).await.unwrap(), (Offset(0), Offset(0)));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn kafka_over_tls_is_refused_by_a_build_without_it() {
        let mut settings = settings();
        settings.extra.insert("security.protocol".into(), "SASL_SSL".into());
        let error = settings.check().unwrap_err();
        assert!(matches!(&error, ConnectError::Refused { reason, .. } if reason.contains("tls")));
    }
}
