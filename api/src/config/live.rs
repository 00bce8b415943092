//! How listening to orders works.

/// What is said about those who listen.
#[derive(Clone, Debug, clap::Args)]
pub struct LiveArgs {
    /// Whoever listens to an order hears something at least this often, in seconds; below the
    /// idle time of proxies in between.
    #[arg(long, env = "LIVE_HEARTBEAT_SECONDS", default_value_t = 15, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=300))]
    pub live_heartbeat_seconds: u64,
}
