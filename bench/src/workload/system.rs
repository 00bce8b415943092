//! The system under test: the write side alone or the whole program.

use crate::{
    args::{Args, Over},
    measure::metric,
    observed::{Appended, Observed},
    place::{OpenLog, Place},
    shop::{Http, Shop, currency},
};
use anyhow::{Context, Result};
use commands::{
    Outside, ShardState, ShopRules, WriteSettings, WriteSide,
    gateway::{Gateway, SandboxGateway},
    mail::NoMailer,
};
use events::{
    Environment,
    keys::{FileKeyStore, KeyStore},
    log::EventLog,
};
use orderlog::{
    auth::Role,
    config::{Config, LogChoice},
    startup::Running,
};
use projections::database::local::LocalPostgres;
use std::{collections::BTreeMap, sync::Arc};

/// The write side on a log whose appends are counted.
pub struct Writing {
    write_side: WriteSide,
    log: OpenLog,
    observed: Observed,
}

impl Writing {
    /// Opens the log and all its partitions. The sandbox gateway keeps no journal here.
    ///
    /// # Errors
    /// When the log or a partition cannot be opened.
    pub async fn start(place: &Place) -> Result<Self> {
        Self::start_on(place, place.open_log().await?).await
    }

    /// The same with a log that is open already.
    ///
    /// # Errors
    /// When the keys cannot be opened.
    pub async fn start_on(place: &Place, log: OpenLog) -> Result<Self> {
        let observed = Observed::new(Arc::clone(&log.log));
        let gateway: Arc<dyn Gateway> =
            Arc::new(SandboxGateway::in_memory(Arc::clone(&place.environment)));
        let settings = WriteSettings::new(place.environment.uuid(), ShopRules::new("GBP".parse()?));
        let counted: Arc<dyn EventLog> = Arc::new(observed.clone());
        let keys: Arc<dyn KeyStore> =
            Arc::new(FileKeyStore::open(&place.folder().join("keys.sqlite"))?);
        let outside = Outside { gateway, keys, mailer: Arc::new(NoMailer) };
        let write_side = WriteSide::start(&counted, &place.environment, outside, &settings);
        write_side.ready().await;
        Ok(Self { write_side, log, observed })
    }

    /// Fills a shop.
    ///
    /// # Errors
    /// When a product or customer is not accepted.
    pub async fn shop(&self, args: &Args, environment: &Arc<dyn Environment>) -> Result<Shop> {
        let (router, environment) = (self.write_side.router.clone(), Arc::clone(environment));
        Shop::fill(router, environment, None, args.keyed, args.products, args.customers).await
    }

    /// Whether this process serves every partition.
    pub fn is_open(&self) -> bool {
        self.write_side.router.status().iter().all(|shard| shard.state == ShardState::Open)
    }

    /// The number of streams that owe an effect now.
    pub fn owing(&self) -> usize {
        self.write_side.owing()
    }

    /// What was appended so far.
    pub fn appended(&self) -> Appended {
        self.observed.appended()
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn EventLog> {
        &self.log.log
    }

    /// Stops the write side. The log stays open.
    pub async fn stop(self) -> OpenLog {
        self.write_side.stop().await;
        self.log
    }
}

/// The whole program, with a private database.
pub struct Program {
    running: Running,
    postgres: LocalPostgres,
}

impl Program {
    /// Starts the program in this process, on a free loopback port.
    ///
    /// # Errors
    /// When the program does not start.
    pub async fn start(place: &Place) -> Result<Self> {
        Self::start_on(place, place.postgres().await?).await
    }

    /// The same with an existing database.
    ///
    /// # Errors
    /// When the program does not start.
    pub async fn start_on(place: &Place, postgres: LocalPostgres) -> Result<Self> {
        let mut config = Config::embedded(place.folder().join("data"), currency()?);
        config.partitions = Some(place.partitions());
        config.database = Some(postgres.connect_options());
        config.rate_limit_per_second = 0;
        config.rate_limit_per_address = 0;
        config.connections_per_address = 0;
        config.requests_per_address = 0;
        if let Some((servers, topic)) = place.kafka() {
            config.log = LogChoice::Kafka {
                bootstrap_servers: servers.to_owned(),
                topic: topic.to_owned(),
                properties: BTreeMap::new(),
            };
        }
        let running = Running::start(config).await?;
        running.ready().await;
        Ok(Self { running, postgres })
    }

    /// Fills a shop.
    ///
    /// # Errors
    /// When a product or customer is not accepted.
    pub async fn shop(&self, args: &Args, environment: &Arc<dyn Environment>) -> Result<Shop> {
        let router = self
            .running
            .app()
            .router
            .clone()
            .context("the program runs without the command role")?;
        let token =
            self.running.sign(Role::Staff, None).context("the program signs no tokens")??;
        let http = Http::new(self.running.address(), token)?;
        let environment = Arc::clone(environment);
        Shop::fill(router, environment, Some(http), args.keyed, args.products, args.customers).await
    }

    /// What was appended so far, by the program's own metrics, which do not include sizes.
    pub fn appended(&self) -> Appended {
        let metrics = self.running.app().metrics.render();
        Appended {
            batches: metric(&metrics, "orderlog_commit_seconds_count"),
            events: metric(&metrics, "orderlog_events_appended_total"),
            body_bytes: 0,
        }
    }

    /// Stops the program gracefully. Returns the database.
    pub async fn stop(self) -> LocalPostgres {
        self.running.stop().await;
        self.postgres
    }

    /// The running program.
    pub fn running(&self) -> &Running {
        &self.running
    }
}

/// The system under test.
pub enum System {
    /// The write side alone.
    Writing(Box<Writing>),
    /// The whole program.
    Program(Box<Program>),
}

impl System {
    /// Starts the system that `args` asks for.
    ///
    /// # Errors
    /// When the program does not start.
    pub async fn start(args: &Args, place: &Place) -> Result<Self> {
        Ok(match args.over {
            Over::Process => Self::Writing(Box::new(Writing::start(place).await?)),
            Over::Http => Self::Program(Box::new(Program::start(place).await?)),
        })
    }

    /// Fills a shop.
    ///
    /// # Errors
    /// When a product or customer is not accepted.
    pub async fn shop(&self, args: &Args, environment: &Arc<dyn Environment>) -> Result<Shop> {
        match self {
            Self::Writing(writing) => writing.shop(args, environment).await,
            Self::Program(program) => program.shop(args, environment).await,
        }
    }

    /// What was appended so far.
    pub fn appended(&self) -> Appended {
        match self {
            Self::Writing(writing) => writing.appended(),
            Self::Program(program) => program.appended(),
        }
    }

    /// Stops the system.
    pub async fn stop(self) {
        match self {
            Self::Writing(writing) => writing.stop().await.close().await,
            Self::Program(program) => drop(program.stop().await),
        }
    }
}
