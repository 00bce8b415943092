//! The whole program in this process, on ephemeral ports, with a database and a log of its own.

use crate::{books::Books, client::Api, use_of_broker};
use events::{
    Offset, Partition, StreamKind,
    log::{BatchReader, Cursor, EventLog},
};
use orderlog::{
    auth::Role,
    config::{Config, LogChoice},
    startup::Running,
};
use projections::{ReadModel, database::local::LocalPostgres};
use sqlx::postgres::PgConnectOptions;
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{sync::OnceCell, time::Instant};
use uuid::Uuid;

/// Nothing that is waited for takes longer.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Asked this often whether what is waited for is there.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The running program and what it runs on.
pub struct TestApp {
    running: Running,
    config: Config,
    dir: TempDir,
    /// As staff.
    pub staff: Api,
}

/// A configuration of its own for an app of the caller's.
pub struct Ground {
    pub config: Config,
    pub dir: TempDir,
}

impl Ground {
    /// The same log for another process.
    pub fn beside(&self) -> Self {
        let dir = data_dir();
        let mut config = self.config.clone();
        config.data_dir = dir.path().join("data");
        Self { config, dir }
    }
}

/// Runs a scenario on the embedded log.
pub async fn on_embedded(scenario: impl AsyncFnOnce(&TestApp)) {
    TestApp::start(ground(LogChoice::Embedded).await).await.host(scenario).await;
}

/// Runs a scenario on Kafka, on a topic of its own; says so when there is no Kafka.
pub async fn on_kafka(scenario: impl AsyncFnOnce(&TestApp)) {
    let Some(log) = fresh_topic() else { return };
    TestApp::start(ground(log).await).await.host(scenario).await;
}

/// A topic of its own on the Kafka of the environment; `None`, said plainly, when there is none.
pub fn fresh_topic() -> Option<LogChoice> {
    let Ok(bootstrap_servers) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
        let required = std::env::var("ORDERLOG_REQUIRE_KAFKA").is_ok_and(|value| value == "1");
        assert!(!required, "KAFKA_BOOTSTRAP_SERVERS is not set, and ORDERLOG_REQUIRE_KAFKA is");
        println!("skipped: KAFKA_BOOTSTRAP_SERVERS is not set");
        return None;
    };
    use_of_broker::share();
    let topic = format!("orderlog.it.{}", Uuid::now_v7().simple());
    Some(LogChoice::Kafka { bootstrap_servers, topic, properties: BTreeMap::new() })
}

/// A data directory and a database of its own.
pub async fn ground(log: LogChoice) -> Ground {
    let dir = data_dir();
    let mut config = Config::embedded(dir.path().join("data"), "GBP".parse().unwrap());
    config.log = log;
    config.database = Some(fresh_database().await);
    config.rate_limit_per_second = 0;
    config.rate_limit_per_address = 0;
    config.connections_per_address = 0;
    config.requests_per_address = 0;
    config.expiry_grace = Duration::ZERO;
    config.take_over = true;
    Ground { config, dir }
}

/// A folder that the account of a private PostgreSQL can reach too.
pub fn data_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let open = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("orderlog-it-").permissions(open).tempdir().unwrap()
}

/// An empty database in the PostgreSQL that all tests of this process share.
pub async fn fresh_database() -> PgConnectOptions {
    static POSTGRES: OnceCell<LocalPostgres> = OnceCell::const_new();
    let postgres = POSTGRES.get_or_init(async || LocalPostgres::throwaway().await.unwrap()).await;
    let name = format!("it_{}", Uuid::now_v7().simple());
    postgres.create_database(&name).await.unwrap()
}

/// Waits until `look` finds something.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Where the partitions end.
async fn ends(log: &dyn EventLog) -> Vec<Offset> {
    let ends =
        (0..log.partitions()).map(async |partition| log.end(Partition(partition)).await.unwrap());
    futures::future::join_all(ends).await
}

impl TestApp {
    pub async fn start(ground: Ground) -> Self {
        let Ground { config, dir } = ground;
        let running = Box::pin(Running::start(config.clone())).await.unwrap();
        tokio::time::timeout(PATIENCE, running.ready()).await.expect("the partitions open");
        let token = running.sign(Role::Staff, None).unwrap().unwrap();
        let staff = Api::new(format!("http://{}", running.address()), Some(token));
        Self { running, config, dir, staff }
    }

    /// Runs a scenario, checks what must hold after any, and stops.
    async fn host(self, scenario: impl AsyncFnOnce(&Self)) {
        scenario(&self).await;
        self.finish().await;
    }

    /// Checks what must hold after any scenario, and stops.
    pub async fn finish(self) {
        self.finish_with(Self::journal).await;
    }

    /// The same with the journal of another gateway.
    pub async fn finish_with(self, journal: impl FnOnce(&Self) -> String) {
        let books = self.settled().await;
        books.check();
        books.check_journal(&journal(&self));
        self.compare_read_models(&books).await;
        crate::books::audit_clean(&*self.log()).await;
        let (log, dir) = (self.config.log.clone(), self.dir);
        tokio::time::timeout(PATIENCE, self.running.stop()).await.expect("the program stops");
        drop(dir);
        crate::program::delete_topic(&log).await;
    }

    /// Stops without checking anything: this shop's books cannot balance.
    pub async fn abandon(self) {
        let log = self.config.log.clone();
        tokio::time::timeout(PATIENCE, self.running.stop()).await.expect("the program stops");
        crate::program::delete_topic(&log).await;
    }

    pub fn running(&self) -> &Running {
        &self.running
    }

    pub fn log(&self) -> Arc<dyn EventLog> {
        self.running.log()
    }

    /// Domain events in the log.
    pub async fn events_in_log(&self) -> usize {
        let log = self.log();
        let mut count = 0;
        for partition in (0..log.partitions()).map(Partition) {
            let mut reader = BatchReader::open(&*log, partition, Cursor::START).await.unwrap();
            loop {
                let chunk = reader.next().await.unwrap();
                let records = chunk.batches.iter().flat_map(|batch| &batch.records);
                count += records.filter(|one| one.record.stream.kind != StreamKind::Writer).count();
                if chunk.at_end {
                    break;
                }
            }
        }
        count
    }

    /// A caller with another role.
    pub fn caller(&self, role: Role, subject: &str) -> Api {
        self.staff.with_token(self.running.sign(role, Some(subject)).unwrap().unwrap())
    }

    fn journal(&self) -> String {
        journal(self.running.data_dir())
    }

    /// What the log says once nothing is under way any more.
    pub async fn settled(&self) -> Books {
        settled(&*self.log()).await
    }

    /// Waits until all read models have seen the log as it is now.
    pub async fn caught_up(&self) {
        let reads = self.running.app().reads.clone().unwrap();
        for partition in (0..self.log().partitions()).map(Partition) {
            for model in ReadModel::ALL {
                reads.wait_for_end(model, partition, PATIENCE).await.unwrap();
            }
        }
    }

    async fn compare_read_models(&self, books: &Books) {
        self.caught_up().await;
        books.compare_with_tables(self.running.pool()).await;
    }
}

/// What the sandbox gateway did; empty when it was never asked.
pub fn journal(data_dir: &Path) -> String {
    std::fs::read_to_string(data_dir.join("sandbox-gateway.jsonl")).unwrap_or_default()
}

/// What a log says once nothing is under way any more.
pub async fn settled(log: &dyn EventLog) -> Books {
    eventually("everything under way comes to its end", async || {
        // The partitions are read one after the other: what was read is one state only if nothing came meanwhile.
        let before = ends(log).await;
        let books = Books::read(log).await;
        (books.is_settled() && ends(log).await == before).then_some(books)
    })
    .await
}
