//! The settings, read once at the start. Flags win over the environment, and a bad value stops the
//! program before it binds a port.

mod auth;
mod clients;
mod live;
mod log;
mod mail;
mod payments;
mod shop;
mod table;

pub use auth::{AuthChoice, AuthSettings};
pub use clients::{ClientSettings, Registration};
pub use live::LiveArgs;
pub use log::{LogChoice, LogSettings};
pub use mail::{MailConfig, MailSettings};
pub use payments::{PaymentChoice, PaymentError, PaymentSettings};
pub use shop::{MAX_UNITS, ShopSettings};
pub use table::table;

use clap::ValueEnum;
use commands::{ShopRules, mail::SmtpUrlError};
use events::Currency;
use ipnet::IpNet;
use sqlx::postgres::PgConnectOptions;
use std::{collections::BTreeSet, iter, net::SocketAddr, path::PathBuf, time::Duration};

/// The command line and the environment, before the settings are checked against each other.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Address and port for HTTP. Port 0 picks a free port.
    #[arg(long, env = "LISTEN_ADDR", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    #[arg(global = true)]
    pub listen: SocketAddr,
    /// Address and port of its own for `/healthz`, `/readyz`, `/metrics` and `/api/v1/admin`, which
    /// the address of the shop then does not have.
    #[arg(long, env = "OPERATIONS_LISTEN", value_name = "ADDR", hide_short_help = true)]
    #[arg(global = true)]
    pub operations_listen: Option<SocketAddr>,
    /// Directory of the embedded log, the private PostgreSQL and the keys.
    #[arg(long, env = "DATA_DIR", default_value = "./data", value_name = "DIR", global = true)]
    #[arg(value_parser = clap::builder::PathBufValueParser::new())]
    pub data_dir: PathBuf,
    /// Number of partitions of a new log, from 1 to 1024. An existing log keeps its number; another
    /// value here stops the program [default: 12].
    #[arg(long, env = "LOG_PARTITIONS", value_name = "N", global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: Option<u32>,
    /// What this process does, as a comma-separated list. A subset needs Kafka and a shared
    /// PostgreSQL [default: all].
    #[arg(long, env = "ROLES", value_delimiter = ',', value_name = "ROLE,..", global = true)]
    pub roles: Vec<Role>,

    /// Where the log is kept.
    #[command(flatten)]
    pub log: LogSettings,
    /// PostgreSQL for the read models and the keys, `postgres://USER:PASSWORD@HOST/DATABASE`.
    /// Without it, the program runs a private PostgreSQL.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true, global = true)]
    #[arg(hide_short_help = true, value_parser = database_url)]
    pub database_url: Option<PgConnectOptions>,
    /// Rebuild read models at the start if an older version of the program built them.
    #[arg(long, env = "REBUILD_ON_UPGRADE", default_value_t = true, value_name = "BOOL")]
    #[arg(hide_short_help = true, global = true, action = clap::ArgAction::Set)]
    pub rebuild_on_upgrade: bool,

    /// Which tokens are accepted.
    #[command(flatten)]
    pub auth: AuthSettings,

    /// Currency of the shop (ISO 4217).
    #[arg(long, env = "SHOP_CURRENCY", default_value = "GBP", value_name = "CODE", global = true)]
    #[arg(hide_short_help = true)]
    pub shop_currency: Currency,
    /// How long an order may stay pending before it expires, in seconds.
    #[arg(long, env = "ORDER_DEADLINE_SECONDS", default_value_t = 900, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub order_deadline_seconds: u64,
    /// Take over from the process that decides the commands of this log, if there is one. Otherwise a
    /// second such process is refused.
    #[arg(long, env = "TAKE_OVER", value_name = "BOOL", global = true, hide_short_help = true)]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), default_value = "false")]
    #[arg(num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub take_over: bool,
    /// How long after a start no order expires, in seconds.
    #[arg(long, env = "EXPIRY_GRACE_SECONDS", default_value_t = 60, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub expiry_grace_seconds: u64,
    /// The rules of the shop.
    #[command(flatten)]
    pub shop: ShopSettings,
    /// Origins from which browsers may call the API, as a comma-separated list; `*` allows all.
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_delimiter = ',', value_name = "ORIGIN,..")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = origin)]
    pub cors_allowed_origins: Vec<String>,
    /// Limits on clients.
    #[command(flatten)]
    pub clients: ClientSettings,
    /// Live orders.
    #[command(flatten)]
    pub live: LiveArgs,

    /// Filter for log lines, such as `info` or `warn,orderlog=debug`
    /// [default: info for `serve`, warn for other commands].
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", global = true)]
    #[arg(hide_short_help = true, value_parser = filter)]
    pub log_filter: Option<String>,
    /// Format of log lines.
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_name = "FORMAT", global = true)]
    #[arg(hide_short_help = true)]
    pub log_format: LogFormat,

    /// OpenTelemetry collector for traces (OTLP over HTTP), such as `http://127.0.0.1:4318`. Without
    /// it, the program sends no traces.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", global = true)]
    #[arg(hide_env_values = true)]
    #[arg(hide_short_help = true, value_parser = text())]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// The mail server and the sender.
    #[command(flatten)]
    pub mail: MailSettings,
    /// The payment gateway.
    #[command(flatten)]
    pub payments: PaymentSettings,
}

fn text() -> clap::builder::NonEmptyStringValueParser {
    clap::builder::NonEmptyStringValueParser::new()
}

fn filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::builder().parse(text).map(|_| text.to_owned())
}

/// Checks the scheme, which the driver ignores.
fn database_url(text: &str) -> Result<PgConnectOptions, String> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err("a database URL must begin with postgres://".to_owned());
    }
    text.parse().map_err(|error: sqlx::Error| error.to_string())
}

/// `*`, or a scheme and a host as browsers send it. Another spelling would never match.
fn origin(text: &str) -> Result<String, &'static str> {
    let as_sent = |scheme: &str, port: &str| {
        text.strip_prefix(scheme).is_some_and(|host| {
            let plain = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_uppercase();
            let plain = !host.is_empty() && host.bytes().all(plain);
            plain && !host.contains(['/', '*', '@', '?', '#', ',']) && !host.ends_with(port)
        })
    };
    if text == "*" || as_sent("https://", ":443") || as_sent("http://", ":80") {
        return Ok(text.to_owned());
    }
    Err(
        "an origin must be `*`, or http://HOST[:PORT] or https://HOST[:PORT] as browsers send it: in \
         small letters, and without the default port",
    )
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// Decides commands, and owns partitions of the log.
    Command,
    /// Applies events to the read models.
    Projector,
    /// Answers queries.
    Query,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The checked settings, from which [`crate::startup`] builds the program.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address and port for HTTP. Port 0 picks a free port.
    pub listen: SocketAddr,
    /// An address of its own for operations; `None` for the same as the shop's.
    pub operations_listen: Option<SocketAddr>,
    /// The directory of all local data.
    pub data_dir: PathBuf,
    /// Where the log is.
    pub log: LogChoice,
    /// Partitions that the log must have. `None` accepts any number, and creates a log with 12.
    pub partitions: Option<u32>,
    /// The database of the read models; `None` for a private one.
    pub database: Option<PgConnectOptions>,
    /// Whether to rebuild read models that an older version of the program built.
    pub rebuild_on_upgrade: bool,
    /// What this process does; never empty.
    pub roles: BTreeSet<Role>,
    /// Which tokens are accepted.
    pub auth: AuthChoice,
    /// The payment gateway.
    pub payments: PaymentChoice,
    /// The shop's currency.
    pub currency: Currency,
    /// The rules of the shop.
    pub rules: ShopRules,
    /// The most units of one product in an order.
    pub units_per_product: i64,
    /// How long an order may stay pending.
    pub order_deadline: Duration,
    /// Whether to take over from another command node.
    pub take_over: bool,
    /// How long after a start no order expires.
    pub expiry_grace: Duration,
    /// Origins from which browsers may call.
    pub cors_allowed_origins: Vec<String>,
    /// Requests per second of one caller; 0 for no limit.
    pub rate_limit_per_second: u32,
    /// Requests per second from one address; 0 for no limit.
    pub rate_limit_per_address: u32,
    /// Connections from one address; 0 for no limit.
    pub connections_per_address: u32,
    /// Requests under way from one address; 0 for no limit.
    pub requests_per_address: u32,
    /// Who may register customers.
    pub registration: Registration,
    /// Registrations per minute from one address; 0 for no limit.
    pub registrations_per_minute: u32,
    /// Proxies whose forwarding headers are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// The longest silence on a live stream.
    pub live_heartbeat: Duration,
    /// How e-mails are sent.
    pub mail: MailConfig,
}

/// Settings that contradict each other, or that need others.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The built-in key pair would be used on an address that others can reach.
    #[error(
        "the built-in key pair is for loopback addresses only, and this is {0}: set AUTH_JWKS_URL \
         or AUTH_PUBLIC_KEY_FILE, or allow it with AUTH_BUILTIN=1"
    )]
    BuiltInBeyondLoopback(SocketAddr),
    /// A key without the issuer and the audience of the tokens.
    #[error("AUTH_PUBLIC_KEY_FILE and AUTH_JWKS_URL need AUTH_ISSUER and AUTH_AUDIENCE: set both")]
    IncompleteAuth,
    /// The address of the key set is not allowed.
    #[error("AUTH_JWKS_URL {0}")]
    KeySetUrl(&'static str),
    /// Processes with different roles share only the log and the database.
    #[error(
        "a process with some of the roles needs KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL: set both, \
         or leave out --roles (ROLES)"
    )]
    RolesApart,
    /// A mail server without a sender.
    #[error("SMTP_URL needs MAIL_FROM: set the sender of the e-mails")]
    MailWithoutSender,
    /// The URL of the mail server is not valid.
    #[error("SMTP_URL: {0}")]
    Smtp(SmtpUrlError),
    /// Settings of the payment gateway.
    #[error(transparent)]
    Payments(#[from] PaymentError),
}

impl Config {
    /// Everything in one process with its data under `data_dir`, on a free loopback port, without
    /// limits on registrations, open orders and declined payments.
    pub fn embedded(data_dir: impl Into<PathBuf>, currency: Currency) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            operations_listen: None,
            data_dir: data_dir.into(),
            log: LogChoice::Embedded,
            partitions: None,
            database: None,
            rebuild_on_upgrade: true,
            roles: Role::value_variants().iter().copied().collect(),
            auth: AuthChoice::BuiltIn,
            payments: PaymentChoice::Sandbox,
            currency,
            rules: ShopRules::new(currency),
            units_per_product: MAX_UNITS,
            order_deadline: Duration::from_mins(15),
            take_over: false,
            expiry_grace: Duration::from_mins(1),
            cors_allowed_origins: Vec::new(),
            rate_limit_per_second: 1000,
            rate_limit_per_address: 5000,
            connections_per_address: 256,
            requests_per_address: 1000,
            registration: Registration::Anyone,
            registrations_per_minute: 0,
            trusted_proxies: Vec::new(),
            live_heartbeat: Duration::from_secs(15),
            mail: MailConfig::default(),
        }
    }

    /// Checks the settings against each other. The variables `KAFKA_SECURITY_*`, `KAFKA_SASL_*` and
    /// `KAFKA_SSL_*` of `environment` become properties of librdkafka, which has too many to list.
    ///
    /// # Errors
    /// A [`ConfigError`] for settings that contradict each other, or that need others.
    pub fn try_new(
        settings: Settings,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let auth = settings.auth.choose()?;
        let payments = PaymentChoice::try_from(&settings.payments)?;
        let mut roles: BTreeSet<Role> = settings.roles.into_iter().collect();
        if roles.is_empty() {
            roles.extend(Role::value_variants());
        }
        let log = settings.log.choose(environment);
        let shared = log != LogChoice::Embedded && settings.database_url.is_some();
        if roles.len() < Role::value_variants().len() && !shared {
            return Err(ConfigError::RolesApart);
        }
        Ok(Self {
            listen: settings.listen,
            operations_listen: settings.operations_listen,
            data_dir: settings.data_dir,
            log,
            partitions: settings.partitions,
            database: settings.database_url,
            rebuild_on_upgrade: settings.rebuild_on_upgrade,
            roles,
            auth,
            payments,
            currency: settings.shop_currency,
            rules: settings.shop.rules(settings.shop_currency),
            units_per_product: settings.shop.units_per_product,
            order_deadline: Duration::from_secs(settings.order_deadline_seconds),
            take_over: settings.take_over,
            expiry_grace: Duration::from_secs(settings.expiry_grace_seconds),
            cors_allowed_origins: settings.cors_allowed_origins,
            rate_limit_per_second: settings.clients.rate_limit_per_second,
            rate_limit_per_address: settings.clients.rate_limit_per_address,
            connections_per_address: settings.clients.connections_per_address,
            requests_per_address: settings.clients.requests_per_address,
            registration: settings.clients.registration,
            registrations_per_minute: settings.clients.registrations_per_minute,
            trusted_proxies: settings.clients.trusted_proxies,
            live_heartbeat: Duration::from_secs(settings.live.live_heartbeat_seconds),
            mail: MailConfig::try_new(settings.mail)?,
        })
    }

    /// Refuses the built-in key pair on an address that others can reach. Only `serve` checks it.
    ///
    /// # Errors
    /// [`ConfigError::BuiltInBeyondLoopback`], unless `allowed`.
    pub fn check_exposure(&self, allowed: bool) -> Result<(), ConfigError> {
        let mut addresses = iter::once(self.listen).chain(self.operations_listen);
        let exposed = addresses.find(|address| !address.ip().is_loopback());
        match exposed.filter(|_| self.auth == AuthChoice::BuiltIn && !allowed) {
            Some(address) => Err(ConfigError::BuiltInBeyondLoopback(address)),
            None => Ok(()),
        }
    }

    /// Whether this process has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Settings,
    }

    /// As from a command line, without the environment of this machine.
    fn settings(flags: &[&str]) -> Settings {
        let command =
            <Cli as clap::CommandFactory>::command().mut_args(|arg| arg.env(None::<&str>));
        let matches = command.get_matches_from([&["orderlog"], flags].concat());
        <Cli as clap::FromArgMatches>::from_arg_matches(&matches).unwrap().settings
    }

    fn config(flags: &[&str]) -> Result<Config, ConfigError> {
        Config::try_new(settings(flags), [])
    }

    #[test]
    fn nothing_configured_is_everything_embedded_on_loopback() {
        let config = config(&[]).unwrap();
        assert_eq!(config.log, LogChoice::Embedded);
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.roles.len(), 3);
        assert_eq!(config.auth, AuthChoice::BuiltIn);
        assert!(config.database.is_none());
        assert_eq!(config.check_exposure(false), Ok(()));
    }

    #[test]
    fn the_built_in_keys_stay_on_loopback_unless_told() {
        let open = config(&["--listen", "0.0.0.0:80"]).unwrap();
        let refused = open.check_exposure(false);
        assert_eq!(refused, Err(ConfigError::BuiltInBeyondLoopback(open.listen)));
        assert_eq!(open.check_exposure(true), Ok(()));
        let inside = config(&["--operations-listen", "10.0.0.1:81"]).unwrap();
        let refused = inside.check_exposure(false);
        let address = inside.operations_listen.unwrap();
        assert_eq!(refused, Err(ConfigError::BuiltInBeyondLoopback(address)));
        let flags = ["--auth-public-key-file=k.pem", "--auth-issuer=i", "--auth-audience=a"];
        let keyed = config(&[&["--listen=0.0.0.0:80"], &flags[..]].concat()).unwrap();
        assert_eq!(keyed.check_exposure(false), Ok(()));
        assert_eq!(config(&flags[..2]).unwrap_err(), ConfigError::IncompleteAuth);
        let jwks = ["--auth-jwks-url=https://i.example/keys", flags[1], flags[2]];
        let keyed = config(&[&["--listen=0.0.0.0:80"], &jwks[..]].concat()).unwrap();
        assert!(matches!(keyed.auth, AuthChoice::KeySet { .. }));
        assert_eq!(config(&jwks[..2]).unwrap_err(), ConfigError::IncompleteAuth);
    }

    #[test]
    fn roles_apart_need_services_that_are_shared() {
        let apart = ["--roles", "command,query"];
        assert_eq!(config(&apart).unwrap_err(), ConfigError::RolesApart);
        let kafka = ["--kafka-bootstrap-servers=k:9092"];
        assert_eq!(config(&[&apart[..], &kafka].concat()).unwrap_err(), ConfigError::RolesApart);
        let database = ["--database-url=postgres://a:b@c/d"];
        let config = config(&[&apart[..], &kafka, &database].concat()).unwrap();
        assert!(config.has(Role::Command) && !config.has(Role::Projector));
    }

    #[test]
    fn security_of_kafka_comes_from_the_environment() {
        let environment = [
            ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("KAFKA_SASL_USERNAME", "shop"),
            ("KAFKA_SSL_CA_LOCATION", "/ca.pem"),
            ("KAFKA_HEAP_OPTS", "-Xmx1g"),
            ("SSL_CERT_FILE", "/other.pem"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config =
            Config::try_new(settings(&["--kafka-bootstrap-servers=k:9092"]), environment).unwrap();
        let LogChoice::Kafka { properties, topic, .. } = config.log else { panic!("not Kafka") };
        assert_eq!(topic, "orderlog.events");
        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(names, ["sasl.username", "security.protocol", "ssl.ca.location"]);
    }
}
