//! Settings of live orders.

/// Settings of live orders.
#[derive(Clone, Debug, clap::Args)]
pub struct LiveArgs {
    /// Longest silence on a live stream of an order, in seconds. Choose less than the idle timeout
    /// of your proxies.
    #[arg(long, env = "LIVE_HEARTBEAT_SECONDS", default_value_t = 15, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=300))]
    pub live_heartbeat_seconds: u64,
}
