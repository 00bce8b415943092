//! Starts the program from its settings, in one straight line, and stops it.

mod command_node;
mod ground;
mod parts;

use crate::{
    App, AppParts,
    auth::{AuthKeyError, AuthKeys, Authenticator, Role},
    config::Config,
    data_dir::DataDirError,
    health::Readiness,
    router,
    server::{Limits, Server},
    telemetry,
};
use command_node::CommandNode;
use commands::{WriteSide, mail::SmtpUrlError};
use events::{
    Currency, Environment,
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
pub use parts::{sign, sign_for};

/// How long a stop waits for the requests under way.
const REQUESTS_END: Duration = Duration::from_secs(10);

/// Why the program did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
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
    /// The key store cannot be opened.
    #[error("the key store cannot be opened")]
    Keys(#[from] KeyError),
    /// The keys are in a file, and the settings say that they are in the database.
    #[error(
        "the keys of this data directory are in the file {}, but DATABASE_URL is set, so the \
         program would use keys in the database: unset DATABASE_URL, or use another data directory",
        .0.display()
    )]
    KeysInFile(PathBuf),
    /// The keys are in a database, and the settings say that they are in a file.
    #[error(
        "the keys of this data directory are in the database that it was used with (as {} says): \
         set DATABASE_URL, or use another data directory",
        .0.display()
    )]
    KeysInDatabase(PathBuf),
    /// The log has events, and the keys that they were written with are missing.
    #[error(
        "the log has events, but the file with its keys, {}, is missing or empty; with new keys \
         names, addresses and idempotency keys would be unreadable: restore the file from a backup",
        .0.display()
    )]
    KeysGone(PathBuf),
    /// The shop has products in another currency than the settings say.
    #[error(
        "SHOP_CURRENCY is {configured}, but this shop has products priced in {found}: set \
         SHOP_CURRENCY={found}, or use another data directory or topic"
    )]
    OtherCurrency {
        /// The currency of the settings.
        configured: Currency,
        /// That of a product.
        found: String,
    },
    /// Tokens cannot be checked.
    #[error("there are no keys to check tokens with")]
    Auth(#[from] AuthKeyError),
    /// The public key file cannot be read.
    #[error("the public key {} cannot be read", path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The journal of the sandbox gateway cannot be read.
    #[error("the sandbox gateway's journal {} cannot be opened", path.display())]
    Gateway {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The address of the mail server is not usable.
    #[error("mail cannot be sent")]
    Mail(#[from] SmtpUrlError),
    /// The payment gateway's client cannot be created.
    #[error(transparent)]
    Stripe(#[from] commands::gateway::stripe::NoClient),
    /// The database does not tell whether another process decides the commands of this log.
    #[error("the database does not tell whether another process decides the commands")]
    CommandNodeUnknown(#[from] sqlx::Error),
    /// Another process decides the commands of this log.
    #[error(
        "another process decides the commands of the log {0}: stop it first, or start this one with \
         --take-over (TAKE_OVER=true)"
    )]
    CommandNode(String),
    /// Metrics cannot be collected.
    #[error("metrics cannot be collected")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Why a running program cannot go on.
#[derive(Debug)]
pub enum Death {
    /// This part has ended by itself.
    Part(&'static str),
    /// The log accepts nothing from this process any more.
    Log,
    /// The private database has ended by itself and cannot be started again.
    Database(LocalError),
}

/// The running program. Dropping it without [`stop`](Self::stop) is a hard stop, which is always
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
    /// [`StartError`]. Everything that was started is stopped again.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let environment: Arc<dyn Environment> = Arc::new(System::new());
        let socket = parts::bind(config.listen)?;
        let operations = config.operations_listen.map(parts::bind).transpose()?;
        let ground = Ground::open(&config, &environment).await?;
        let started = async {
            let data_dir = ground.data_dir.path();
            let authenticator = parts::authenticator(&config, data_dir, &environment);
            let (authenticator, auth_keys) = authenticator.await?;
            let sockets = (socket, operations);
            let parts = Parts::start(&config, &ground, sockets, authenticator, environment).await?;
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

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.parts.address
    }

    /// The address for operations.
    pub fn operations_address(&self) -> SocketAddr {
        self.parts.operations.as_ref().map_or(self.parts.address, |(_, address)| *address)
    }

    /// The absolute path of the data directory.
    pub fn data_dir(&self) -> &Path {
        self.ground.data_dir.path()
    }

    /// The state that the handlers share.
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

    /// A token signed with the built-in key pair; `None` with an identity provider.
    pub fn sign(&self, role: Role, subject: Option<&str>) -> Option<Result<String, AuthKeyError>> {
        self.auth_keys.as_ref().map(|keys| sign(keys, role, subject))
    }

    /// Waits until every partition has been opened, or could not be.
    pub async fn ready(&self) {
        if let Some(side) = &self.parts.write_side {
            side.ready().await;
        }
    }

    /// Resolves when a part has failed for good, so that only another process can go on.
    pub async fn died(&mut self) -> Death {
        tokio::select! {
            death = self.parts.died() => death,
            error = self.ground.database.failed() => Death::Database(error),
        }
    }

    /// Soft stop: accepts no new requests, finishes those under way, leaves no batch unfinished and
    /// gives up the leases.
    pub async fn stop(self) {
        self.ground.data_dir.withdraw();
        self.parts.stop().await;
        self.ground.close().await;
    }
}

/// The running parts.
struct Parts {
    address: SocketAddr,
    app: Arc<App>,
    server: Server,
    /// The server for operations and its address, if they have one of their own.
    operations: Option<(Server, SocketAddr)>,
    write_side: Option<WriteSide>,
    projector: Option<Projector>,
    command_node: Option<CommandNode>,
    /// Ends the tasks that maintain the metrics and the token keys.
    upkeep: DropGuard,
}

impl Parts {
    async fn start(
        config: &Config,
        ground: &Ground,
        (socket, operations): (TcpSocket, Option<TcpSocket>),
        authenticator: Authenticator,
        environment: Arc<dyn Environment>,
    ) -> Result<Self, StartError> {
        let metrics = telemetry::metrics()?;
        let limits = Limits::of_process().per_address(config.connections_per_address);
        let keys = parts::open_keys(config, ground).await?;
        let command_node = parts::command_node(config, ground, &environment).await?;
        let write_side = parts::start_write_side(config, ground, &environment, &keys)?;
        let (projector, reads) = parts::start_read_side(config, ground, &environment).await?;
        parts::check_currency(config, reads.as_ref()).await?;
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
        app.readiness.refresh(&app).await;
        let (listener, address) = parts::listen(socket, config.listen)?;
        let serve = |listener, router| Server::start(listener, router, limits, app.proxies.clone());
        let operations = match operations.zip(config.operations_listen) {
            Some((socket, asked)) => {
                let (listener, address) = parts::listen(socket, asked)?;
                Some((serve(listener, router::operations(Arc::clone(&app))), address))
            }
            None => None,
        };
        let router = if operations.is_some() { router::shop } else { router::routes };
        let server = serve(listener, router(Arc::clone(&app)));
        let upkeep = CancellationToken::new();
        tokio::spawn(upkeep.clone().run_until_cancelled_owned(parts::keep_metrics(metrics)));
        let looking = Readiness::keep_fresh(Arc::clone(&app));
        tokio::spawn(upkeep.clone().run_until_cancelled_owned(looking));
        let keeping = async move { keeping.keep_fresh().await };
        tokio::spawn(upkeep.clone().run_until_cancelled_owned(keeping));
        if let Some(node) = command_node.clone() {
            tokio::spawn(upkeep.clone().run_until_cancelled_owned(node.keep()));
        }
        let upkeep = upkeep.drop_guard();
        Ok(Self { address, app, server, operations, write_side, projector, command_node, upkeep })
    }

    async fn died(&mut self) -> Death {
        let Self { app, server, operations, write_side, projector, .. } = self;
        let operations_died = async {
            match operations {
                Some((server, _)) => server.ended().await,
                None => std::future::pending().await,
            }
        };
        let write_side_died = async {
            match write_side {
                Some(side) => side.died().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = server.ended() => Death::Part("the HTTP server"),
            () = operations_died => Death::Part("the HTTP server for operations"),
            () = write_side_died => Death::Part("the write side"),
            () = parts::projector_died(projector.as_ref()) => Death::Part("the projector"),
            () = app.log.lost() => Death::Log,
        }
    }

    /// Stops from the outside in, so that no part stops before the parts that use it.
    async fn stop(self) {
        if let Some(live) = &self.app.live {
            live.stop();
        }
        self.server.stop(REQUESTS_END).await;
        if let Some((server, _)) = self.operations {
            server.stop(REQUESTS_END).await;
        }
        if let Some(side) = self.write_side {
            side.stop().await;
        }
        if let Some(projector) = self.projector {
            projector.stop().await;
        }
        drop(self.upkeep);
        if let Some(node) = self.command_node {
            node.release().await;
        }
    }
}
