//! Where the log is kept: in the data directory, or in Apache Kafka.

use super::text;
use events::log::kafka::KafkaSettings;
use std::collections::BTreeMap;

/// Settings of the log. The other `KAFKA_*` variables are read from the environment only.
#[derive(Clone, Debug, clap::Args)]
pub struct LogSettings {
    /// Apache Kafka brokers, as a comma-separated list. Without it, the program uses the embedded
    /// log.
    #[arg(long, env = "KAFKA_BOOTSTRAP_SERVERS", value_name = "HOST:PORT,..", global = true)]
    #[arg(hide_short_help = true, value_parser = text())]
    pub kafka_bootstrap_servers: Option<String>,
    /// Kafka topic of the log.
    #[arg(long, env = "KAFKA_TOPIC", default_value = KafkaSettings::DEFAULT_TOPIC)]
    #[arg(hide_short_help = true, value_parser = text(), global = true, value_name = "NAME")]
    pub kafka_topic: String,
}

/// Where the log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChoice {
    /// In the data directory.
    Embedded,
    /// In Apache Kafka.
    Kafka {
        /// `host:port`, separated by commas.
        bootstrap_servers: String,
        /// The topic.
        topic: String,
        /// Security properties of librdkafka.
        properties: BTreeMap<String, String>,
    },
}

impl LogSettings {
    /// Takes the security properties from `KAFKA_SECURITY_*`, `KAFKA_SASL_*` and `KAFKA_SSL_*`.
    pub(super) fn choose(
        self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> LogChoice {
        match self.kafka_bootstrap_servers {
            None => LogChoice::Embedded,
            Some(bootstrap_servers) => LogChoice::Kafka {
                bootstrap_servers,
                topic: self.kafka_topic,
                properties: environment.into_iter().filter_map(kafka_property).collect(),
            },
        }
    }
}

/// Turns `KAFKA_SASL_USERNAME` into the property `sasl.username`.
fn kafka_property((name, value): (String, String)) -> Option<(String, String)> {
    let name = name.strip_prefix("KAFKA_")?;
    ["SECURITY_", "SASL_", "SSL_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        .then(|| (name.to_ascii_lowercase().replace('_', "."), value))
}
