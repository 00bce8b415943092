//! Starts each part of the program as the settings say.

use super::{StartError, command_node::CommandNode};
use crate::{
    AppSettings,
    auth::{AuthKeyError, AuthKeys, Authenticator, Role, TOKEN_LIFETIME},
    config::{AuthChoice, Config, LogChoice, MailConfig, PaymentChoice, Role as Part},
    data_dir::DataDirError,
    keys::PostgresKeyStore,
    live::LiveSettings,
    payments::Webhook,
    startup::{Ground, auth_key_path},
};
use commands::{
    Outside, SnapshotFiles, WriteSettings, WriteSide,
    gateway::{Gateway, SandboxGateway, stripe::StripeGateway},
    mail::{FileMailer, Mailer, SmtpMailer},
};
use events::{
    Environment, Offset, Partition,
    environment::System,
    keys::{FileKeyStore, KeyStore},
    log::EventLog,
};
use metrics_exporter_prometheus::PrometheusHandle;
use projections::{Progress, Projector, ProjectorSettings, ReadModels};
use std::{fs::File, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};
use tokio::net::{TcpListener, TcpSocket};

/// The most connections in the kernel's queue that wait to be accepted.
const BACKLOG: u32 = 1024;

/// The pause between two checks whether the projector still runs.
const ALIVE_POLL: Duration = Duration::from_secs(1);

/// How often histograms are folded. Without that they grow as long as nobody reads `/metrics`.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// Starts the projector and opens the read models, each if this process has the role for it.
pub(super) async fn start_read_side(
    config: &Config,
    ground: &Ground,
    environment: &Arc<dyn Environment>,
) -> Result<(Option<Projector>, Option<ReadModels>), StartError> {
    let log = ground.log.port();
    let progress = Progress::new(log.partitions());
    let projector = if config.has(Part::Projector) {
        let options = ground.database.options.clone();
        let (log, environment) = (Arc::clone(&log), Arc::clone(environment));
        let rebuild_on_upgrade = config.rebuild_on_upgrade;
        let server = ground.database.server();
        let settings =
            ProjectorSettings { rebuild_on_upgrade, server, ..ProjectorSettings::default() };
        Some(Projector::start(log, options, environment, progress.clone(), settings).await?)
    } else {
        None
    };
    let reads = || ReadModels::new(ground.database.pool.clone(), progress, log);
    Ok((projector, config.has(Part::Query).then(reads)))
}

/// Refuses settings with another currency than that of the products. A read model that cannot be
/// asked now says so itself when it is needed.
pub(super) async fn check_currency(
    config: &Config,
    reads: Option<&ReadModels>,
) -> Result<(), StartError> {
    let configured = config.currency;
    let Some(reads) = reads else { return Ok(()) };
    match reads.other_currency(configured).await {
        Ok(Some(found)) => Err(StartError::OtherCurrency { configured, found }),
        Ok(None) => Ok(()),
        Err(error) => {
            let cause = &error as &dyn std::error::Error;
            tracing::warn!(cause, "the currency of the products is not known yet");
            Ok(())
        }
    }
}

/// A token signed with the built-in key pair. Its subject defaults to the role's name.
///
/// # Errors
/// If signing fails.
pub fn sign(keys: &AuthKeys, role: Role, subject: Option<&str>) -> Result<String, AuthKeyError> {
    sign_for(keys, role, subject, TOKEN_LIFETIME)
}

/// The same, valid for `lifetime` from now.
///
/// # Errors
/// If signing fails.
pub fn sign_for(
    keys: &AuthKeys,
    role: Role,
    subject: Option<&str>,
    lifetime: Duration,
) -> Result<String, AuthKeyError> {
    keys.sign_for(role, subject.unwrap_or(role.as_str()), System::new().now(), lifetime)
}

pub(super) fn bind(address: SocketAddr) -> Result<TcpSocket, StartError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of the previous process may still be closing.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        io::Result::Ok(socket)
    };
    bind().map_err(|source| StartError::Listen { address, source })
}

pub(super) fn listen(
    socket: TcpSocket,
    asked: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let listen = || {
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        io::Result::Ok((listener, address))
    };
    listen().map_err(|source| StartError::Listen { address: asked, source })
}

/// Resolves when the projector has ended by itself. Never, without a projector.
pub(super) async fn projector_died(projector: Option<&Projector>) {
    while projector.is_none_or(|projector| !projector.is_finished()) {
        tokio::time::sleep(ALIVE_POLL).await;
    }
}

pub(super) async fn authenticator(
    config: &Config,
    data_dir: &Path,
    environment: &Arc<dyn Environment>,
) -> Result<(Authenticator, Option<AuthKeys>), StartError> {
    match &config.auth {
        AuthChoice::BuiltIn => {
            let keys = AuthKeys::load_or_create(&auth_key_path(data_dir))?;
            Ok((Authenticator::built_in(&keys), Some(keys)))
        }
        AuthChoice::PublicKey { file, issuer, audience } => {
            let failed = |source| StartError::PublicKey { path: file.clone(), source };
            let pem = std::fs::read(file).map_err(failed)?;
            Ok((Authenticator::from_public_key(&pem, issuer, audience)?, None))
        }
        AuthChoice::KeySet { source, issuer, audience } => {
            let (source, environment) = (source.clone(), Arc::clone(environment));
            let keys = Authenticator::from_key_set(source, issuer, audience, environment)?;
            if !keys.refresh().await {
                tracing::warn!("the issuer's keys were not fetched, tokens get 503 until they are");
            }
            Ok((keys, None))
        }
    }
}

/// Opens the key store: in the database if one is configured, so that its nodes share the keys,
/// else in the data directory.
///
/// With other keys the log's personal data would be unreadable, and e-mail addresses would get
/// other stream ids. So a data directory keeps the store that it was first used with.
pub(super) async fn open_keys(
    config: &Config,
    ground: &Ground,
) -> Result<Arc<dyn KeyStore>, StartError> {
    let data_dir = ground.data_dir.path();
    let file = data_dir.join("keys.sqlite");
    let elsewhere = data_dir.join("keys-in-database");
    if config.database.is_none() {
        if elsewhere.exists() {
            return Err(StartError::KeysInDatabase(elsewhere));
        }
        let is_there = std::fs::metadata(&file).is_ok_and(|file| file.len() > 0);
        if !is_there && has_history(&*ground.log.port()).await? {
            return Err(StartError::KeysGone(file));
        }
        return Ok(Arc::new(FileKeyStore::open(&file)?));
    }
    if file.exists() {
        return Err(StartError::KeysInFile(file));
    }
    let keys = PostgresKeyStore::open(ground.database.pool.clone()).await?;
    File::create(&elsewhere)
        .map_err(|source| DataDirError::Io { path: data_dir.to_owned(), source })?;
    Ok(Arc::new(keys))
}

/// Whether the log has any record. The keys are made before the first record.
async fn has_history(log: &dyn EventLog) -> Result<bool, StartError> {
    for partition in (0..log.partitions()).map(Partition) {
        let end = log.end(partition).await.map_err(StartError::History)?;
        if end > Offset::START {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes this process the command node of its log. Only a log and a database that processes can share
/// need that: the data directory has a lock of its own.
pub(super) async fn command_node(
    config: &Config,
    ground: &Ground,
    environment: &Arc<dyn Environment>,
) -> Result<Option<CommandNode>, StartError> {
    match &config.log {
        LogChoice::Kafka { topic, .. }
            if config.has(Part::Command) && config.database.is_some() =>
        {
            let (pool, holder) = (ground.database.pool.clone(), environment.uuid());
            CommandNode::take(pool, topic.clone(), holder, config.take_over).await.map(Some)
        }
        _ => Ok(None),
    }
}

pub(super) fn start_write_side(
    config: &Config,
    ground: &Ground,
    environment: &Arc<dyn Environment>,
    keys: &Arc<dyn KeyStore>,
) -> Result<Option<WriteSide>, StartError> {
    if !config.has(Part::Command) {
        return Ok(None);
    }
    let gateway = gateway(config, ground, environment)?;
    let path = ground.data_dir.path().join("snapshots");
    let snapshots = SnapshotFiles::open(&path)
        .map_err(|source| DataDirError::Io { path: path.clone(), source })?;
    let settings = WriteSettings {
        expiry_grace: config.expiry_grace,
        order_deadline: config.order_deadline,
        snapshots: Some(Arc::new(snapshots)),
        ..WriteSettings::new(environment.uuid(), config.rules)
    };
    let mailer = mailer(&config.mail, ground.data_dir.path())?;
    let outside = Outside { gateway, keys: Arc::clone(keys), mailer };
    Ok(Some(WriteSide::start(&ground.log.port(), environment, outside, &settings)))
}

/// The mailer: sends to the mail server, or writes files without one.
fn mailer(config: &MailConfig, data_dir: &Path) -> Result<Arc<dyn Mailer>, StartError> {
    let (folder, sender) = (data_dir.join("mails"), config.sender.clone());
    Ok(match &config.server {
        None => Arc::new(FileMailer::new(&folder, sender)),
        Some(server) => Arc::new(SmtpMailer::try_new(server, &folder, sender, config.give_up)?),
    })
}

fn gateway(
    config: &Config,
    ground: &Ground,
    environment: &Arc<dyn Environment>,
) -> Result<Arc<dyn Gateway>, StartError> {
    Ok(match &config.payments {
        PaymentChoice::Sandbox => {
            let path = ground.data_dir.path().join("sandbox-gateway.jsonl");
            let gateway = SandboxGateway::open(&path, Arc::clone(environment));
            Arc::new(gateway.map_err(|source| StartError::Gateway { path, source })?)
        }
        PaymentChoice::Stripe { secret_key, api_base, .. } => {
            Arc::new(StripeGateway::try_new(api_base, secret_key)?)
        }
    })
}

/// Handles the gateway's notices, if there is a secret to verify them with.
pub(super) fn webhook(config: &Config, write_side: Option<&WriteSide>) -> Option<Webhook> {
    match (&config.payments, write_side) {
        (PaymentChoice::Stripe { webhook_secret: Some(secret), .. }, Some(side)) => {
            Some(Webhook { secret: secret.clone(), payments: side.payments.clone() })
        }
        _ => None,
    }
}

pub(super) fn app_settings(config: &Config, connections: usize) -> AppSettings {
    let live = LiveSettings::default();
    AppSettings {
        limits: config.rules.limits,
        units_per_product: config.units_per_product,
        order_deadline: config.order_deadline,
        rate_limit_per_second: config.rate_limit_per_second,
        rate_limit_per_address: config.rate_limit_per_address,
        requests_per_address: config.requests_per_address,
        registration: config.registration,
        registrations_per_minute: config.registrations_per_minute,
        trusted_proxies: config.trusted_proxies.clone(),
        live: LiveSettings {
            heartbeat: config.live_heartbeat,
            // A listener occupies a connection. A fifth of the connections stay free for requests.
            listeners: live.listeners.min(connections / 5 * 4),
        },
        cors_allowed_origins: config.cors_allowed_origins.clone(),
        ..AppSettings::new(config.currency)
    }
}

pub(super) async fn keep_metrics(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(METRICS_UPKEEP).await;
        metrics.run_upkeep();
    }
}
