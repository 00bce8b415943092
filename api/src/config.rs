//! The settings, read once: flags win over the environment, and a bad value stops the program
//! before any port is bound.

mod auth;
mod clients;
mod live;
mod log;
mod mail;
mod payments;

pub use auth::{AuthChoice, AuthSettings};
pub use clients::ClientSettings;
pub use live::LiveArgs;
pub use log::{LogChoice, LogSettings};
pub use mail::{MailConfig, MailSettings};
pub use payments::{PaymentChoice, PaymentError, PaymentSettings};

use clap::ValueEnum;
use commands::mail::SmtpUrlError;
use events::Currency;
use ipnet::IpNet;
use sqlx::postgres::PgConnectOptions;
use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

/// What the command line and the environment say, before they are checked against each other.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    /// Where to listen for HTTP; port 0 picks a free one.
    #[arg(long, env = "LISTEN_ADDR", default_value = "127.0.0.1:8080", value_name = "ADDR")]
    #[arg(global = true)]
    pub listen: SocketAddr,
    /// The embedded log, the private PostgreSQL and the keys live here.
    #[arg(long, env = "DATA_DIR", default_value = "./data", value_name = "DIR", global = true)]
    #[arg(value_parser = clap::builder::PathBufValueParser::new())]
    pub data_dir: PathBuf,
    /// Partitions of the log, fixed when it is created [default: 12].
    #[arg(long, env = "LOG_PARTITIONS", value_name = "N", global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: Option<u32>,
    /// What this process does [default: all].
    #[arg(long, env = "ROLES", value_delimiter = ',', value_name = "ROLE,..", global = true)]
    pub roles: Vec<Role>,

    /// Where the log is kept.
    #[command(flatten)]
    pub log: LogSettings,
    /// PostgreSQL for the read models; unset: a private one.
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true, global = true)]
    #[arg(hide_short_help = true, value_parser = database_url)]
    pub database_url: Option<PgConnectOptions>,
    /// Whether read models that an older program built are built anew at the start.
    #[arg(long, env = "REBUILD_ON_UPGRADE", default_value_t = true, value_name = "BOOL")]
    #[arg(hide_short_help = true, global = true, action = clap::ArgAction::Set)]
    pub rebuild_on_upgrade: bool,

    /// Whose tokens count.
    #[command(flatten)]
    pub auth: AuthSettings,

    /// The shop's currency (ISO 4217).
    #[arg(long, env = "SHOP_CURRENCY", default_value = "GBP", value_name = "CODE", global = true)]
    #[arg(hide_short_help = true)]
    pub shop_currency: Currency,
    /// How long an order may stay pending, in seconds.
    #[arg(long, env = "ORDER_DEADLINE_SECONDS", default_value_t = 900, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub order_deadline_seconds: u64,
    /// How long after a start nothing expires, in seconds.
    #[arg(long, env = "EXPIRY_GRACE_SECONDS", default_value_t = 60, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub expiry_grace_seconds: u64,
    /// Origins of browsers that may call.
    #[arg(long, env = "CORS_ALLOWED_ORIGINS", value_delimiter = ',', value_name = "ORIGIN,..")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = origin)]
    pub cors_allowed_origins: Vec<String>,
    /// How much clients may ask.
    #[command(flatten)]
    pub clients: ClientSettings,
    /// How listening to orders works.
    #[command(flatten)]
    pub live: LiveArgs,

    /// What is logged, in the syntax of tracing's filters [default: info when serving, else warn].
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", global = true)]
    #[arg(hide_short_help = true, value_parser = filter)]
    pub log_filter: Option<String>,
    /// How log lines look.
    #[arg(long, env = "LOG_FORMAT", default_value = "text", value_name = "FORMAT", global = true)]
    #[arg(hide_short_help = true)]
    pub log_format: LogFormat,

    /// The OpenTelemetry collector that traces go to, by OTLP over HTTP; off unless set.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", global = true)]
    #[arg(hide_short_help = true, value_parser = text())]
    pub otel_exporter_otlp_endpoint: Option<String>,
    /// The mail server and the sender.
    #[command(flatten)]
    pub mail: MailSettings,
    /// Who takes the money.
    #[command(flatten)]
    pub payments: PaymentSettings,
}

fn text() -> clap::builder::NonEmptyStringValueParser {
    clap::builder::NonEmptyStringValueParser::new()
}

fn filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    tracing_subscriber::EnvFilter::builder().parse(text).map(|_| text.to_owned())
}

/// The driver does not look at the scheme.
fn database_url(text: &str) -> Result<PgConnectOptions, String> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) {
        return Err("a database URL begins with postgres://".to_owned());
    }
    text.parse().map_err(|error: sqlx::Error| error.to_string())
}

/// `*`, or a scheme and a host as browsers send it.
fn origin(text: &str) -> Result<String, &'static str> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain = |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
    if text == "*" || host.is_some_and(|host| plain(host) && !host.contains('/')) {
        return Ok(text.to_owned());
    }
    Err("an origin is `*` or scheme://host[:port]")
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Role {
    /// Decides commands and owns partitions of the log.
    Command,
    /// Feeds the read models.
    Projector,
    /// Answers queries.
    Query,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Checked settings: what [`crate::startup`] goes by.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// The folder of everything that is kept locally.
    pub data_dir: PathBuf,
    /// Where the log is.
    pub log: LogChoice,
    /// Partitions the log must have; `None` takes it as it is and makes a new one with 12.
    pub partitions: Option<u32>,
    /// The read models' database; `None` for a private one.
    pub database: Option<PgConnectOptions>,
    /// Whether read models that an older program built are built anew at the start.
    pub rebuild_on_upgrade: bool,
    /// What this process does; never empty.
    pub roles: BTreeSet<Role>,
    /// Whose tokens count.
    pub auth: AuthChoice,
    /// Who takes the money.
    pub payments: PaymentChoice,
    /// The shop's currency.
    pub currency: Currency,
    /// How long an order may stay pending.
    pub order_deadline: Duration,
    /// How long after a start nothing expires.
    pub expiry_grace: Duration,
    /// Origins of browsers that may call.
    pub cors_allowed_origins: Vec<String>,
    /// Requests a second of one caller; 0 = no limit.
    pub rate_limit_per_second: u32,
    /// Requests a second from one address; 0 = no limit.
    pub rate_limit_per_address: u32,
    /// Proxies whose word about clients counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Whoever listens hears something at least this often.
    pub live_heartbeat: Duration,
    /// How mails go out.
    pub mail: MailConfig,
}

/// Settings that do not go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The built-in key pair is not for the world.
    #[error(
        "the built-in key pair is for loopback only: set AUTH_JWKS_URL or AUTH_PUBLIC_KEY_FILE, or \
         AUTH_BUILTIN=1 to use it on {0} all the same"
    )]
    BuiltInBeyondLoopback(SocketAddr),
    /// A key alone does not say whose tokens count.
    #[error("AUTH_PUBLIC_KEY_FILE and AUTH_JWKS_URL need AUTH_ISSUER and AUTH_AUDIENCE")]
    IncompleteAuth,
    /// The address of a key set is none that is asked.
    #[error("AUTH_JWKS_URL {0}")]
    KeySetUrl(&'static str),
    /// Roles apart meet in the log and in the database only.
    #[error("--roles (ROLES) other than all need KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL")]
    RolesApart,
    /// A shop that writes has an address.
    #[error("SMTP_URL needs MAIL_FROM")]
    MailWithoutSender,
    /// The mail server is not one.
    #[error("SMTP_URL: {0}")]
    Smtp(SmtpUrlError),
    /// Those of the payment gateway.
    #[error(transparent)]
    Payments(#[from] PaymentError),
}

impl Config {
    /// Everything in one process under `data_dir`, on a free port of loopback.
    pub fn embedded(data_dir: impl Into<PathBuf>, currency: Currency) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: data_dir.into(),
            log: LogChoice::Embedded,
            partitions: None,
            database: None,
            rebuild_on_upgrade: true,
            roles: Role::value_variants().iter().copied().collect(),
            auth: AuthChoice::BuiltIn,
            payments: PaymentChoice::Sandbox,
            currency,
            order_deadline: Duration::from_mins(15),
            expiry_grace: Duration::from_mins(1),
            cors_allowed_origins: Vec::new(),
            rate_limit_per_second: 1000,
            rate_limit_per_address: 5000,
            trusted_proxies: Vec::new(),
            live_heartbeat: Duration::from_secs(15),
            mail: MailConfig::default(),
        }
    }

    /// Checks the settings against each other. `environment` is looked through for
    /// `KAFKA_SECURITY_*`, `KAFKA_SASL_*` and `KAFKA_SSL_*`: they name properties of librdkafka,
    /// too many to list.
    ///
    /// # Errors
    /// A [`ConfigError`] for settings that do not go together.
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
            data_dir: settings.data_dir,
            log,
            partitions: settings.partitions,
            database: settings.database_url,
            rebuild_on_upgrade: settings.rebuild_on_upgrade,
            roles,
            auth,
            payments,
            currency: settings.shop_currency,
            order_deadline: Duration::from_secs(settings.order_deadline_seconds),
            expiry_grace: Duration::from_secs(settings.expiry_grace_seconds),
            cors_allowed_origins: settings.cors_allowed_origins,
            rate_limit_per_second: settings.clients.rate_limit_per_second,
            rate_limit_per_address: settings.clients.rate_limit_per_address,
            trusted_proxies: settings.clients.trusted_proxies,
            live_heartbeat: Duration::from_secs(settings.live.live_heartbeat_seconds),
            mail: MailConfig::try_new(settings.mail)?,
        })
    }

    /// Whether the built-in key pair would be used where others can reach it; only serving minds.
    ///
    /// # Errors
    /// [`ConfigError::BuiltInBeyondLoopback`], unless `allowed`.
    pub fn check_exposure(&self, allowed: bool) -> Result<(), ConfigError> {
        if self.auth == AuthChoice::BuiltIn && !self.listen.ip().is_loopback() && !allowed {
            return Err(ConfigError::BuiltInBeyondLoopback(self.listen));
        }
        Ok(())
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

    /// As from a command line, whatever this machine's environment says.
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
