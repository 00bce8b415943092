//! Where a request comes from. What a proxy says about that counts only if the proxy is a known
//! one: anybody can send the same headers.

use axum::{
    extract::ConnectInfo,
    http::{Extensions, HeaderMap, HeaderName},
};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Whom each proxy was asked by, the last one last.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// How the proxy was asked.
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The bits of an IPv6 address that tell one subscriber from another.
const SUBSCRIBER: u128 = !0 << 64;

/// The proxies whose word counts.
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Of these networks; none when empty.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// The address of the client: the peer, or the last one before the known proxies. `None` for a
    /// request that came over no socket.
    pub fn client(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer(extensions)?;
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or("unreadable").rsplit(','));
        for hop in hops {
            if !self.knows(client) {
                break;
            }
            // Beyond what does not read, nothing can be told.
            let Some(address) = address(hop.trim()) else { break };
            client = address;
        }
        Some(client)
    }

    /// Whether the client spoke TLS to a known proxy.
    pub fn is_secure(&self, extensions: &Extensions, headers: &HeaderMap) -> bool {
        peer(extensions).is_some_and(|peer| self.knows(peer))
            && headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https")
    }

    fn knows(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(peer.ip().to_canonical())
}

/// An address as proxies write it: bare, in brackets, with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|it: SocketAddr| it.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// The address as it is counted: of IPv6, everybody has 2^64 to choose from.
pub fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & SUBSCRIBER).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn proxies() -> Proxies {
        Proxies::new(["10.0.0.0/8", "fd00::/8"].map(|it| it.parse().unwrap()).to_vec())
    }

    fn client(peer: &str, forwarded: &[&'static str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        let line = |line: &&'static str| (X_FORWARDED_FOR, HeaderValue::from_static(line));
        let headers: HeaderMap = forwarded.iter().map(line).collect();
        proxies().client(&extensions, &headers).unwrap().to_string()
    }

    #[test]
    fn a_client_cannot_lend_itself_an_address() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        // What the client made up stands before what the proxy added.
        assert_eq!(client("10.0.0.1", &["198.51.100.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["198.51.100.1", "203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn the_last_one_before_the_known_proxies_is_the_client() {
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["203.0.113.9, 10.2.2.2"]), "203.0.113.9");
        assert_eq!(client("fd00::1", &["[2001:db8::7]:443"]), "2001:db8::7");
        assert_eq!(client("10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(client("::ffff:10.0.0.1", &["::ffff:203.0.113.9"]), "203.0.113.9");
        for unreadable in ["unknown", "", "1.2.3", "203.0.113.9, _hidden"] {
            assert_eq!(client("10.0.0.1", &[unreadable]), "10.0.0.1", "{unreadable}");
        }
        assert_eq!(client("10.0.0.1", &["10.0.0.2, 10.0.0.3"]), "10.0.0.2");
    }

    #[test]
    fn a_subscriber_counts_as_one() {
        let counted = |text: &str| counted(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("203.0.113.9"), "203.0.113.9");
    }

    #[test]
    fn only_a_known_proxy_can_say_that_it_was_tls() {
        let mut extensions = Extensions::new();
        let headers: HeaderMap =
            HeaderMap::from_iter([(X_FORWARDED_PROTO, HeaderValue::from_static("https"))]);
        for (peer, secure) in [("10.0.0.1", true), ("203.0.113.9", false)] {
            extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
            assert_eq!(proxies().is_secure(&extensions, &headers), secure);
            assert!(!proxies().is_secure(&extensions, &HeaderMap::new()));
        }
    }
}
