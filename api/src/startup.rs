//! From settings to a program that runs, in one straight line, and back.

mod ground;
mod parts;

use crate::{
    App, AppParts,
    auth::{AuthKeyError, AuthKeys, Authenticator, Role},
    config::Config,
    data_dir::DataDirError,
    server::{Limits, Server},
    telemetry,
};
use commands::{WriteSide, mail::SmtpUrlError};
use events::{
    Environment,
    environment::System,
    keys::KeyError,
    log::{ConnectError, EventLog, ReadError},
};
use projections::{
    Projector,
    database::{DatabaseError, local::LocalError},
};
use sqlx::PgPool;
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpSocket;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use ground::{Database, Ground, OpenLog, auth_key_path, log_dir, open_log, start_postgres};
pub use parts::sign;

/// Requests under way when the program is asked to stop have this long to end.
const REQUESTS_END: Duration = Duration::from_secs(10);

/// Why the program did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be had.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log cannot be opened, or is refused.
    #[error(transparent)]
    Log(#[from] ConnectError),
    /// The log does not answer.
    #[error(transparent)]
    History(ReadError),
    /// The private database cannot be started or stopped.
    #[error(transparent)]
    LocalDatabase(#[from] LocalError),
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The read models cannot be prepared.
    #[error("the read models cannot be prepared")]
    Prepare(#[from] projections::PrepareError),
    /// The projector cannot be started.
    #[error("the projector cannot be started")]
    Projector(#[from] projections::StartError),
    /// Keys or secrets cannot be had.
    #[error("the key store cannot be opened")]
    Keys(#[from] KeyError),
    /// There are keys, but not where they would be looked for.
    #[error(
        "the keys of this data directory are in {}, and with DATABASE_URL they would be looked for \
         in the database: unset it, or use another data directory",
        .0.display()
    )]
    KeysInFile(PathBuf),
    /// The same the other way round.
    #[error(
        "the keys of this data directory are in the database it was used with ({}): set \
         DATABASE_URL, or use another data directory",
        .0.display()
    )]
    KeysInDatabase(PathBuf),
    /// The log was written with keys that are not there any more.
    #[error(
        "the log has history and its keys are gone: {} is missing or empty, and new keys would make \
         names, addresses and idempotency keys unreadable. Put the file back, as it was",
        .0.display()
    )]
    KeysGone(PathBuf),
    /// Tokens cannot be checked.
    #[error("the keys that tokens are checked with cannot be had")]
    Auth(#[from] AuthKeyError),
    /// The public key file cannot be read.
    #[error("the public key {} cannot be read", path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The journal of the sandbox gateway cannot be read.
    #[error("the sandbox gateway's journal {} cannot be opened", path.display())]
    Gateway {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The mail server is not one.
    #[error("mail cannot be sent")]
    Mail(#[from] SmtpUrlError),
    /// The client of the payment gateway cannot be made.
    #[error(transparent)]
    Stripe(#[from] commands::gateway::stripe::NoClient),
    /// Metrics cannot be collected.
    #[error("metrics cannot be collected")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// The running program. Dropping it without [`stop`](Self::stop) ends it hard, which is always
/// safe.
pub struct Running {
    parts: Parts,
    auth_keys: Option<AuthKeys>,
    ground: Ground,
}

impl Running {
    /// Starts everything that `config` asks for.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let environment: Arc<dyn Environment> = Arc::new(System::new());
        let socket = parts::bind(config.listen)?;
        let ground = Ground::open(&config, &environment).await?;
        let started = async {
            let data_dir = ground.data_dir.path();
            let authenticator = parts::authenticator(&config, data_dir, &environment);
            let (authenticator, auth_keys) = authenticator.await?;
            let parts = Parts::start(&config, &ground, socket, authenticator, environment).await?;
            ground.data_dir.announce(parts.address)?;
            Ok((parts, auth_keys))
        };
        match started.await {
            Ok((parts, auth_keys)) => Ok(Self { parts, auth_keys, ground }),
            Err(error) => {
                ground.close().await;
                Err(error)
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.parts.address
    }

    /// The data directory, absolute.
    pub fn data_dir(&self) -> &Path {
        self.ground.data_dir.path()
    }

    /// What the handlers share.
    pub fn app(&self) -> &Arc<App> {
        &self.parts.app
    }

    /// The log.
    pub fn log(&self) -> Arc<dyn EventLog> {
        self.ground.log.port()
    }

    /// The read models' database.
    pub fn pool(&self) -> &PgPool {
        &self.ground.database.pool
    }

    /// A token of the built-in key pair; `None` when tokens are somebody else's.
    pub fn sign(&self, role: Role, subject: Option<&str>) -> Option<Result<String, AuthKeyError>> {
        self.auth_keys.as_ref().map(|keys| sign(keys, role, subject))
    }

    /// Waits until no partition is still being opened.
    pub async fn ready(&self) {
        if let Some(side) = &self.parts.write_side {
            side.ready().await;
        }
    }

    /// Resolves when a part has ended that must not, and says which.
    pub async fn died(&mut self) -> &'static str {
        self.parts.died().await
    }

    /// Stops softly: no new requests, those under way are finished, no batch is left open, leases
    /// are given up.
    pub async fn stop(self) {
        self.ground.data_dir.withdraw();
        self.parts.stop().await;
        self.ground.close().await;
    }
}

/// What runs.
struct Parts {
    address: SocketAddr,
    app: Arc<App>,
    server: Server,
    write_side: Option<WriteSide>,
    projector: Option<Projector>,
    /// Ends the upkeep of metrics and of keys with the rest.
    upkeep: DropGuard,
}

impl Parts {
    async fn start(
        config: &Config,
        ground: &Ground,
        socket: TcpSocket,
        authenticator: Authenticator,
        environment: Arc<dyn Environment>,
    ) -> Result<Self, StartError> {
        let metrics = telemetry::metrics()?;
        let limits = Limits::of_process();
        let keys = parts::open_keys(config, ground).await?;
        let write_side = parts::start_write_side(config, ground, &environment, &keys)?;
        let (projector, reads) = parts::start_read_side(config, ground, &environment).await?;
        let keeping = authenticator.clone();
        let app = App::open(AppParts {
            settings: parts::app_settings(config, limits.connections),
            router: write_side.as_ref().map(|side| side.router.clone()),
            reads,
            log: ground.log.port(),
            keys,
            environment,
            authenticator,
            metrics: metrics.clone(),
            webhook: parts::webhook(config, write_side.as_ref()),
        });
        let app = Arc::new(app.await?);
        let (listener, address) = parts::listen(socket, config.listen)?;
        let router = crate::router::routes(Arc::clone(&app));
        let server = Server::start(listener, router, limits);
        let upkeep = CancellationToken::new();
        tokio::spawn(upkeep.clone().run_until_cancelled_owned(parts::keep_metrics(metrics)));
        let keeping = async move { keeping.keep_fresh().await };
        tokio::spawn(upkeep.clone().run_until_cancelled_owned(keeping));
        let upkeep = upkeep.drop_guard();
        Ok(Self { address, app, server, write_side, projector, upkeep })
    }

    async fn died(&mut self) -> &'static str {
        let Self { server, write_side, projector, .. } = self;
        let write_side_died = async {
            match write_side {
                Some(side) => side.died().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = server.ended() => "the HTTP server",
            () = write_side_died => "the write side",
            () = parts::projector_died(projector.as_ref()) => "the projector",
        }
    }

    /// From the outside in: who is still asked stops first.
    async fn stop(self) {
        if let Some(live) = &self.app.live {
            live.stop();
        }
        self.server.stop(REQUESTS_END).await;
        if let Some(side) = self.write_side {
            side.stop().await;
        }
        if let Some(projector) = self.projector {
            projector.stop().await;
        }
        drop(self.upkeep);
    }
}
