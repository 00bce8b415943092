//! A mock broker of librdkafka, reached over loopback, that returns the errors a test asks for.

use super::KafkaSettings;
use crate::environment::System;
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use std::sync::Arc;

/// A mock broker with a topic of one partition.
pub(super) struct Mock {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    pub settings: KafkaSettings,
}

impl Mock {
    pub fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let settings = KafkaSettings::new(cluster.bootstrap_servers(), Arc::new(System::new()));
        cluster.create_topic(&settings.topic, 1, 1).unwrap();
        Self { cluster, settings }
    }
}
