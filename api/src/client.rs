//! The address a request comes from. The headers of a proxy count only if the proxy is trusted,
//! because any client can send the same headers.

use crate::App;
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Extensions, HeaderMap, HeaderName, request::Parts},
};
use ipnet::IpNet;
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

/// The address that each proxy was called from; every proxy appends one.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme, `http` or `https`, that the client used to call the proxy.
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The bits of an IPv6 address that identify a subscriber.
const SUBSCRIBER: u128 = !0 << 64;

/// The trusted proxies.
#[derive(Clone)]
pub struct Proxies(Arc<[IpNet]>);

impl Proxies {
    /// Trusts the proxies in these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks.into())
    }

    /// The address of the client: the peer or, behind trusted proxies, the last address that is not
    /// one of theirs. `None` for a request that did not come over a socket.
    pub fn client(&self, extensions: &Extensions, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer(extensions)?;
        let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
        let hops = lines.flat_map(|line| line.to_str().unwrap_or("unreadable").rsplit(','));
        for hop in hops {
            if !self.knows(client) {
                break;
            }
            // Nothing before an unreadable address can be trusted.
            let Some(address) = address(hop.trim()) else { break };
            client = address;
        }
        Some(client)
    }

    /// Whether the client used TLS to call a trusted proxy.
    pub fn is_secure(&self, extensions: &Extensions, headers: &HeaderMap) -> bool {
        peer(extensions).is_some_and(|peer| self.knows(peer))
            && headers.get(X_FORWARDED_PROTO).is_some_and(|scheme| scheme == "https")
    }

    /// Whether this is the address of a trusted proxy.
    pub fn knows(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    Some(peer.ip().to_canonical())
}

/// Parses an address as proxies write it: bare, in brackets, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|it: SocketAddr| it.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

/// The address as the rate limiter counts it. An IPv6 subscriber has 2^64 addresses, which count as
/// one.
pub fn counted(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & SUBSCRIBER).into(),
    }
}

/// The address of the client of a request, as limits count it.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub Option<IpAddr>);

impl FromRequestParts<Arc<App>> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(Self(app.proxies.client(&parts.extensions, &parts.headers).map(counted)))
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
    fn a_client_cannot_forge_its_address() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        // The proxy appends the true address after the forged one.
        assert_eq!(client("10.0.0.1", &["198.51.100.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["198.51.100.1", "203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn the_client_is_the_last_address_before_the_trusted_proxies() {
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
    fn a_subscriber_counts_as_one_address() {
        let counted = |text: &str| counted(text.parse().unwrap()).to_string();
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("203.0.113.9"), "203.0.113.9");
    }

    #[test]
    fn only_a_trusted_proxy_can_say_that_the_client_used_tls() {
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
