//! Creates the topic, and refuses one that would lose history.

use super::{Inquirer, KafkaSettings, Logging, REQUEST_TIMEOUT, blocking, insist};
use crate::{
    Offset, Partition,
    log::{ConnectError, LogFault, MAX_BATCH_BYTES},
};
use rdkafka::{
    admin::{
        AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication,
    },
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
};
use std::{sync::Arc, time::Duration};

/// The topic in which Kafka keeps the outcomes of transactions. It is as important as the log,
/// because it decides which records count.
const TRANSACTIONS: &str = "__transaction_state";

/// How long a new topic may take until its partitions have leaders.
const CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// A topic as the cluster describes it.
#[derive(Debug)]
struct Shape {
    partitions: u32,
    /// The smallest number of replicas of a partition.
    replication: usize,
}

/// Creates the topic if it is missing, and checks it. Returns its number of partitions.
pub(super) async fn prepare(
    settings: &KafkaSettings,
    inquirer: &Arc<Inquirer>,
) -> Result<u32, ConnectError> {
    let unavailable = |error: LogFault| settings.unavailable(error);
    let admin: AdminClient<Logging> = settings
        .client()
        .create_with_context(Logging)
        .map_err(|error| settings.unavailable(error))?;
    let (brokers, found) = inquirer.describe(&settings.topic).await.map_err(unavailable)?;
    let shape = match found {
        Some(shape) => shape,
        None => create(settings, &admin, inquirer, brokers).await.map_err(unavailable)?,
    };
    let config = insist(&*settings.environment, || config_of(&admin, &settings.topic));
    let config = config.await.map_err(unavailable)?;
    check_config(&config).map_err(|reason| settings.refused(reason))?;
    check_partitions(settings, &shape)?;
    for partition in (0..shape.partitions).map(Partition) {
        let (start, _) = inquirer.bounds(partition).await.map_err(unavailable)?;
        if start > Offset::START {
            let reason =
                format!("partition {partition} has lost its records before offset {start}");
            return Err(ConnectError::Damaged { log: settings.log(), reason });
        }
    }
    let mut topics = vec![Found { config, replication: shape.replication, is_log: true }];
    // The cluster creates this topic at the first transaction.
    if let (_, Some(shape)) = inquirer.describe(TRANSACTIONS).await.map_err(unavailable)? {
        let config = insist(&*settings.environment, || config_of(&admin, TRANSACTIONS));
        let config = config.await.map_err(unavailable)?;
        topics.push(Found { config, replication: shape.replication, is_log: false });
    }
    for risk in topics.iter().flat_map(Found::risks) {
        if brokers >= risk.avoidable_from {
            return Err(settings.refused(risk.what));
        }
        tracing::warn!(
            topic = settings.topic,
            brokers,
            risk = risk.what,
            "a risk that so few brokers cannot avoid: if one loses its disk, the log is lost"
        );
    }
    Ok(shape.partitions)
}

impl Inquirer {
    /// The number of brokers, and the shape of a topic if it exists and all its partitions have
    /// leaders.
    async fn describe(self: &Arc<Self>, topic: &str) -> Result<(usize, Option<Shape>), LogFault> {
        let inquirer = Arc::clone(self);
        let topic = topic.to_owned();
        blocking(move || {
            let metadata = inquirer.client.fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let shape = found.and_then(|found| {
                let partitions = found.partitions();
                let led = partitions.iter().all(|partition| partition.leader() >= 0);
                let replicas = partitions.iter().map(|partition| partition.replicas().len());
                Some(Shape {
                    partitions: u32::try_from(partitions.len()).ok()?,
                    replication: replicas.min().filter(|_| led)?,
                })
            });
            Ok((metadata.brokers().len(), shape))
        })
        .await
    }
}

async fn create(
    settings: &KafkaSettings,
    admin: &AdminClient<Logging>,
    inquirer: &Arc<Inquirer>,
    brokers: usize,
) -> Result<Shape, LogFault> {
    let partitions = settings.partitions.unwrap_or(KafkaSettings::DEFAULT_PARTITIONS);
    let replication = brokers.clamp(1, 3);
    let in_sync = if replication == 3 { "2" } else { "1" };
    let topic = NewTopic::new(
        &settings.topic,
        i32::try_from(partitions)?,
        TopicReplication::Fixed(i32::try_from(replication)?),
    )
    .set("cleanup.policy", "delete")
    .set("retention.ms", "-1")
    .set("retention.bytes", "-1")
    .set("min.insync.replicas", in_sync)
    .set("unclean.leader.election.enable", "false")
    .set("message.timestamp.type", "CreateTime")
    .set("max.message.bytes", "2097152");
    let results = admin.create_topics([&topic], &options()).await?;
    for (_, code) in results.into_iter().filter_map(Result::err) {
        // Another process created it first, or it exists but has no leaders yet.
        if code != RDKafkaErrorCode::TopicAlreadyExists {
            return Err(KafkaError::AdminOp(code).into());
        }
    }
    tracing::info!(topic = settings.topic, partitions, replication, "topic created");
    let began = settings.environment.monotonic();
    loop {
        if let (_, Some(shape)) = inquirer.describe(&settings.topic).await? {
            return Ok(shape);
        }
        if settings.environment.monotonic().saturating_sub(began) > CREATION_TIMEOUT {
            return Err("the topic exists but its partitions have no leaders".into());
        }
        settings.environment.sleep(Duration::from_millis(50)).await;
    }
}

async fn config_of(admin: &AdminClient<Logging>, topic: &str) -> Result<ConfigResource, LogFault> {
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()).await?;
    let config =
        described.into_iter().next().ok_or("the cluster returned no description of the topic")?;
    Ok(config?)
}

fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(REQUEST_TIMEOUT))
        .operation_timeout(Some(REQUEST_TIMEOUT))
}

fn value<'a>(config: &'a ConfigResource, name: &str) -> &'a str {
    config.get(name).and_then(|entry| entry.value.as_deref()).unwrap_or_default()
}

fn check_config(config: &ConfigResource) -> Result<(), String> {
    for (name, wanted) in
        [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")]
    {
        let found = value(config, name);
        if found != wanted {
            return Err(format!(
                "{name} is {found:?} but must be {wanted:?}, else history is lost"
            ));
        }
    }
    let largest = value(config, "max.message.bytes");
    if largest.parse().is_ok_and(|largest: usize| largest < MAX_BATCH_BYTES) {
        return Err(format!(
            "max.message.bytes is {largest} but a batch may have {MAX_BATCH_BYTES} bytes"
        ));
    }
    Ok(())
}

fn check_partitions(settings: &KafkaSettings, shape: &Shape) -> Result<(), ConnectError> {
    match settings.partitions {
        Some(wanted) if wanted != shape.partitions => Err(settings.refused(format!(
            "it has {} partitions but {wanted} are configured; the number can never change",
            shape.partitions
        ))),
        _ => Ok(()),
    }
}

/// A topic on which the log depends.
struct Found {
    config: ConfigResource,
    replication: usize,
    is_log: bool,
}

/// A setting that loses history if one broker loses its data.
#[derive(Debug, PartialEq)]
struct Risk {
    what: String,
    /// The number of brokers from which on it can be avoided. With fewer it is only a warning.
    avoidable_from: usize,
}

impl Found {
    fn risks(&self) -> Vec<Risk> {
        let topic = if self.is_log {
            "the topic".to_owned()
        } else {
            format!("{TRANSACTIONS}, which decides which records count,")
        };
        let in_sync = value(&self.config, "min.insync.replicas");
        let unclean = "unclean.leader.election.enable";
        let risks = [
            (self.replication < 2, 2, format!("{topic} has one replica")),
            (
                value(&self.config, unclean) == "true",
                2,
                format!("{unclean} of {topic} is true: a replica that is behind may become leader"),
            ),
            // With two brokers, 2 would stop the shop as soon as one of them is down.
            (
                in_sync.parse().is_ok_and(|in_sync: usize| in_sync < 2),
                3,
                format!(
                    "min.insync.replicas of {topic} is {in_sync}: one broker alone may acknowledge"
                ),
            ),
        ];
        let found = risks.into_iter().filter(|(found, ..)| *found);
        found.map(|(_, avoidable_from, what)| Risk { what, avoidable_from }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::admin::{ConfigEntry, ConfigSource, OwnedResourceSpecifier};

    fn found(replication: usize, settings: &[(&str, &str)]) -> Found {
        let entry = |&(name, value): &(&str, &str)| ConfigEntry {
            name: name.to_owned(),
            value: Some(value.to_owned()),
            source: ConfigSource::DynamicTopic,
            is_read_only: false,
            is_default: false,
            is_sensitive: false,
        };
        let specifier = OwnedResourceSpecifier::Topic("orders".to_owned());
        let entries = settings.iter().map(entry).collect();
        Found { config: ConfigResource { specifier, entries }, replication, is_log: false }
    }

    /// What is found at fault, with the number of brokers that refuses it.
    fn risks(found: &Found) -> Vec<(&str, usize)> {
        let words = ["one replica", "unclean", "min.insync.replicas"];
        let word = |risk: &Risk| *words.iter().find(|word| risk.what.contains(**word)).unwrap();
        found.risks().iter().map(|risk| (word(risk), risk.avoidable_from)).collect()
    }

    #[test]
    fn a_topic_that_one_broker_can_lose_is_a_risk() {
        let sound = [("min.insync.replicas", "2"), ("unclean.leader.election.enable", "false")];
        assert_eq!(risks(&found(3, &sound)), []);
        assert_eq!(risks(&found(1, &sound)), [("one replica", 2)]);
        let lone = [("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")];
        assert_eq!(risks(&found(3, &lone)), [("unclean", 2), ("min.insync.replicas", 3)]);
    }
}
