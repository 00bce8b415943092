//! The state that all handlers share.

use crate::{
    auth::{Authenticator, Tickets},
    client::Proxies,
    config::{MAX_UNITS, Registration},
    health::Readiness,
    live::{Live, LiveSettings},
    payments::Webhook,
    problem::Problem,
    rate_limit::RateLimiter,
    under_way::UnderWay,
};
use commands::{OrderLimits, Router};
use events::{Currency, Environment, keys::KeyError, keys::KeyStore, log::EventLog, seal::Key};
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use projections::ReadModels;
use std::{ops::Deref, sync::Arc, time::Duration};

/// The settings of the HTTP interface.
#[derive(Clone, Debug)]
pub struct AppSettings {
    /// The currency of the shop.
    pub currency: Currency,
    /// How much a customer may have under way.
    pub limits: OrderLimits,
    /// The most units of one product in an order.
    pub units_per_product: i64,
    /// How long an order may stay pending.
    pub order_deadline: Duration,
    /// Requests a second that one principal may make, with a burst of twice that; 0 for no limit.
    pub rate_limit_per_second: u32,
    /// The same for all callers from one address.
    pub rate_limit_per_address: u32,
    /// The most requests under way from one address; 0 for no limit.
    pub requests_per_address: u32,
    /// Who may register customers.
    pub registration: Registration,
    /// The registrations per minute from one address; 0 for no limit.
    pub registrations_per_minute: u32,
    /// Networks of the proxies whose headers about clients are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins that browsers may call from; `*` for any. If empty, only the shop's own origin.
    pub cors_allowed_origins: Vec<String>,
    /// The settings of listening to orders.
    pub live: LiveSettings,
    /// The longest time that any request may take; longer than the longest `Prefer: wait`.
    pub request_timeout: Duration,
}

impl AppSettings {
    /// The defaults, for a shop with this currency.
    pub fn new(currency: Currency) -> Self {
        Self {
            currency,
            limits: OrderLimits::default(),
            units_per_product: MAX_UNITS,
            order_deadline: Duration::from_mins(15),
            rate_limit_per_second: 1000,
            rate_limit_per_address: 5000,
            requests_per_address: 1000,
            registration: Registration::Anyone,
            registrations_per_minute: 0,
            trusted_proxies: Vec::new(),
            cors_allowed_origins: Vec::new(),
            live: LiveSettings::default(),
            request_timeout: Duration::from_secs(75),
        }
    }
}

/// What the program gives the HTTP interface.
pub struct AppParts {
    /// The settings.
    pub settings: AppSettings,
    /// Routes commands to shards; `None` on a node without the role `command`.
    pub router: Option<Router>,
    /// The read models; `None` on a node without the role `query`.
    pub reads: Option<ReadModels>,
    /// The log, to ask for the end of a partition.
    pub log: Arc<dyn EventLog>,
    /// The keys of personal data, and the shop's secrets.
    pub keys: Arc<dyn KeyStore>,
    /// Clock, ids and tasks.
    pub environment: Arc<dyn Environment>,
    /// Checks tokens.
    pub authenticator: Authenticator,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
    /// Handles the gateway's notices; `None` if it sends none.
    pub webhook: Option<Webhook>,
}

/// The state that all handlers share: the parts, which are read as its own fields, and what is
/// derived from them once.
pub struct App {
    parts: AppParts,
    /// Counts the requests of each principal.
    pub(crate) limiter: RateLimiter,
    /// Counts the requests from each address.
    pub(crate) addresses: RateLimiter,
    /// Counts the requests under way from each address.
    pub(crate) under_way: UnderWay,
    /// Counts the registrations from each address.
    pub(crate) registrations: RateLimiter,
    /// Finds the address of a client behind a proxy.
    pub(crate) proxies: Proxies,
    /// Streams events to listeners; `None` on a node without the role `query`.
    pub(crate) live: Option<Live>,
    /// Whether this node is ready, as last looked at.
    pub(crate) readiness: Readiness,
    /// Issues and checks the tickets of listening browsers.
    pub(crate) tickets: Tickets,
    /// The secret that the cursors of lists are signed with.
    pub(crate) cursor_secret: Key,
    /// The secret for the fingerprints of requests with an idempotency key.
    pub(crate) fingerprint_secret: Key,
    /// The secret for the hashes of e-mail addresses, which name their streams.
    pub(crate) email_secret: Key,
}

impl Deref for App {
    type Target = AppParts;

    fn deref(&self) -> &AppParts {
        &self.parts
    }
}

impl App {
    /// Reads the secrets and builds the state.
    ///
    /// # Errors
    /// If the key store does not give the secrets.
    pub async fn open(parts: AppParts) -> Result<Self, KeyError> {
        let live = parts.reads.clone().map(|reads| {
            let (log, environment) = (Arc::clone(&parts.log), Arc::clone(&parts.environment));
            Live::new(log, reads, environment, parts.settings.live)
        });
        Ok(Self {
            live,
            readiness: Readiness::default(),
            tickets: Tickets::new(parts.keys.secret("ticket").await?),
            limiter: RateLimiter::new("caller", parts.settings.rate_limit_per_second),
            addresses: RateLimiter::new("address", parts.settings.rate_limit_per_address),
            under_way: UnderWay::new(parts.settings.requests_per_address),
            registrations: RateLimiter::per_minute(
                "registrations",
                parts.settings.registrations_per_minute,
            ),
            proxies: Proxies::new(parts.settings.trusted_proxies.clone()),
            cursor_secret: parts.keys.secret("cursor").await?,
            fingerprint_secret: parts.keys.secret("fingerprint").await?,
            email_secret: parts.keys.secret("email").await?,
            parts,
        })
    }

    /// The router to the shards.
    pub(crate) fn router(&self) -> Result<&Router, Problem> {
        self.router.as_ref().ok_or_else(|| Problem::unavailable("this node does not take commands"))
    }

    /// The hub of the listeners.
    pub(crate) fn live(&self) -> Result<&Live, Problem> {
        self.live.as_ref().ok_or_else(|| Problem::unavailable("this node does not answer queries"))
    }

    /// The read models.
    pub(crate) fn reads(&self) -> Result<&ReadModels, Problem> {
        self.reads.as_ref().ok_or_else(|| Problem::unavailable("this node does not answer queries"))
    }
}
