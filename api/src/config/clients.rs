//! Rate limits, and the proxies that tell the addresses of clients.

use ipnet::IpNet;
use std::net::IpAddr;

/// Who may register customers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Registration {
    /// Everybody, without a token.
    Anyone,
    /// Staff and administrators.
    Staff,
}

/// Settings of clients.
#[derive(Clone, Debug, clap::Args)]
pub struct ClientSettings {
    /// Requests per second of one caller, with bursts of twice as many; 0 for no limit.
    #[arg(long, env = "RATE_LIMIT_PER_SECOND", default_value_t = 1000, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rate_limit_per_second: u32,
    /// Requests per second from one address, with bursts of twice as many; 0 for no limit. Counted
    /// before the token is verified.
    #[arg(long, env = "RATE_LIMIT_PER_ADDRESS", default_value_t = 5000, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub rate_limit_per_address: u32,
    /// Connections from one address at the same time; 0 for no limit. A further one ends the
    /// connection of the address that has been idle longest, and is refused while none is idle.
    #[arg(long, env = "CONNECTIONS_PER_ADDRESS", default_value_t = 256, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub connections_per_address: u32,
    /// Requests from one address at the same time, including answers that are not fully sent; 0 for
    /// no limit.
    #[arg(long, env = "REQUESTS_PER_ADDRESS", default_value_t = 1000, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub requests_per_address: u32,
    /// Who may register customers: `anyone`, or `staff` only.
    #[arg(long, env = "REGISTRATION", default_value = "anyone", value_name = "WHO")]
    #[arg(hide_short_help = true, global = true)]
    pub registration: Registration,
    /// Registrations per minute from one address, those of staff apart; 0 for no limit.
    #[arg(long, env = "REGISTRATIONS_PER_MINUTE", default_value_t = 10, value_name = "N")]
    #[arg(hide_short_help = true, global = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub registrations_per_minute: u32,
    /// Addresses or networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted,
    /// as a comma-separated list.
    #[arg(long, env = "TRUSTED_PROXIES", value_delimiter = ',', value_name = "CIDR,..")]
    #[arg(hide_short_help = true, global = true, value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,
}

/// Parses a network or a single address.
fn network(text: &str) -> Result<IpNet, &'static str> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| "must be an IP address or a network such as 10.0.0.0/8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_or_a_network() {
        for (text, is) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("::1", "::1/128"),
            ("fd00::/8", "fd00::/8"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), is);
        }
        for text in ["", "proxy.example", "10.0.0.0/33", "10.0.0.1:80"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}
