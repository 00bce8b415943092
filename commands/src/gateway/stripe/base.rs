//! The address of Stripe's API, and the check that the secret key may be sent there.

use std::str::FromStr;
use url::Url;

/// The address of Stripe's API: `https`, or `http` on loopback for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiBase(pub(super) Url);

/// The secret key must not be sent to this address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be https://HOST[:PORT], or http on loopback")]
pub struct BadApiBase;

impl ApiBase {
    /// Whether requests stay on this machine.
    pub fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    fn is_bare(&self) -> bool {
        let Self(url) = self;
        let has_login = !url.username().is_empty() || url.password().is_some();
        url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !has_login
    }
}

impl Default for ApiBase {
    fn default() -> Self {
        "https://api.stripe.com".parse().expect("a valid address")
    }
}

impl FromStr for ApiBase {
    type Err = BadApiBase;

    fn from_str(text: &str) -> Result<Self, BadApiBase> {
        let base = Self(text.parse().map_err(|_| BadApiBase)?);
        let allowed = match base.0.scheme() {
            "https" => true,
            "http" => base.is_loopback(),
            _ => false,
        };
        if allowed && base.is_bare() { Ok(base) } else { Err(BadApiBase) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_key_goes_to_https_or_to_this_machine() {
        for good in ["https://api.stripe.com", "https://proxy:8443/", "http://127.0.0.1:12111"] {
            assert!(good.parse::<ApiBase>().is_ok(), "{good}");
        }
        for bad in [
            "http://api.stripe.com",
            "https://a:b@api.stripe.com",
            "https://api.stripe.com/v1",
            "https://api.stripe.com/?x=1",
            "ftp://127.0.0.1",
            "api.stripe.com",
            "http://127.0.0.1.example.org",
            "",
        ] {
            assert_eq!(bad.parse::<ApiBase>(), Err(BadApiBase), "{bad}");
        }
        assert!(!ApiBase::default().is_loopback());
        assert!("http://[::1]:1".parse::<ApiBase>().unwrap().is_loopback());
    }
}
