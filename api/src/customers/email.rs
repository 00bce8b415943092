//! Which streams an e-mail address is claimed at.
//!
//! A stream's id is a keyed hash of the address in a normal form. There have been two such forms,
//! and for most addresses they are the same. An address whose two forms differ may have been
//! claimed under the first one, and such a claim still counts.

use crate::{
    App, command,
    problem::{Kind, Problem},
};
use commands::{State, mail::Address};
use events::{StreamId, seal::Key};
use futures::future::try_join_all;
use std::collections::BTreeSet;
use unicode_normalization::UnicodeNormalization;
use uuid::Uuid;

/// The ids of the streams of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EmailIds {
    /// Where it is claimed now. A text that is no address any more keeps its old one.
    pub current: Uuid,
    /// Where it may have been claimed before.
    pub earlier: Vec<Uuid>,
}

impl EmailIds {
    /// The ids of an address, however it is written.
    pub fn of(secret: &Key, email: &str) -> Self {
        let email = email.trim();
        let Ok(address) = email.parse::<Address>() else {
            return Self { current: hash(secret, &first_form(email)), earlier: Vec::new() };
        };
        let identity = address.identity();
        let mut earlier = spellings(email, &address, &identity);
        earlier.remove(&identity);
        let current = hash(secret, &identity);
        Self { current, earlier: earlier.iter().map(|it| hash(secret, it)).collect() }
    }

    /// All of them, the current one first.
    pub fn all(&self) -> Vec<Uuid> {
        std::iter::once(self.current).chain(self.earlier.iter().copied()).collect()
    }
}

fn hash(secret: &Key, normal: &str) -> Uuid {
    uuid::Builder::from_custom_bytes(secret.hmac(&[normal.as_bytes()])).into_uuid()
}

/// The first normal form: composed characters in small letters. Must never change.
fn first_form(text: &str) -> String {
    text.nfc().collect::<String>().to_lowercase()
}

/// The first form of the usual spellings of an address: the local part as given, in capitals and
/// folded, with the domain as given, in Punycode and in Unicode.
fn spellings(email: &str, address: &Address, identity: &str) -> BTreeSet<String> {
    let (local, domain) = email.rsplit_once('@').unwrap_or((email, ""));
    let (folded, punycode) = identity.rsplit_once('@').unwrap_or((identity, ""));
    let domains = [domain.to_owned(), punycode.to_owned(), address.domain_in_unicode()];
    [local.to_owned(), local.to_uppercase(), folded.to_owned()]
        .iter()
        .flat_map(|local| {
            domains.iter().map(move |domain| first_form(&format!("{local}@{domain}")))
        })
        .collect()
}

/// Refuses an address that somebody else than `customer` claimed at one of these streams. The
/// streams themselves decide who gets an address; nobody claims it at an earlier one any more, so
/// what is seen there cannot change against the caller.
///
/// # Errors
/// `email-taken`.
pub(crate) async fn refuse_taken(
    app: &App,
    streams: &[Uuid],
    customer: Uuid,
) -> Result<(), Problem> {
    let looks = streams.iter().map(|&id| command::look(app, StreamId::email(id)));
    let taken = try_join_all(looks).await?.into_iter().any(|view| match &view.state {
        State::Email(email) => email.holder().is_some_and(|it| it.customer_id != customer),
        _ => false,
    });
    if taken { Err(Kind::EmailTaken.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(email: &str) -> EmailIds {
        EmailIds::of(&Key::new([1; 32]), email)
    }

    #[test]
    fn an_address_has_one_id_however_it_is_written() {
        for (one, other) in [
            ("ann@example.org", " Ann@Example.ORG "),
            ("zo\u{eb}@example.org", "ZOE\u{308}@example.org"),
            ("\u{3a3}\u{391}\u{3a3}@x.example", "\u{3c3}\u{3b1}\u{3c3}@x.example"),
            ("ann@b\u{fc}cher.example", "ann@xn--bcher-kva.example"),
        ] {
            assert_eq!(of(one).current, of(other).current, "{one} {other}");
        }
        assert_ne!(of("ann@example.org").current, of("bob@example.org").current);
        let other = EmailIds::of(&Key::new([2; 32]), "ann@example.org");
        assert_ne!(of("ann@example.org"), other);
        assert_eq!(of("ann@example.org").current.get_version_num(), 8);
    }

    /// Streams of addresses that were claimed before keep their names.
    #[test]
    fn the_ids_of_claims_in_old_logs_are_known() {
        let plain = of("Ann@example.org");
        assert!(plain.earlier.is_empty(), "one form is as the other");
        assert_eq!(plain.current, hash(&Key::new([1; 32]), "ann@example.org"));
        let claimed = |text: &str| hash(&Key::new([1; 32]), &first_form(text));
        for (old, asked) in [
            ("\u{3a3}\u{391}\u{3a3}@x.example", "\u{3c3}\u{3b1}\u{3c3}@x.example"),
            ("\u{3c3}\u{3b1}\u{3c3}@x.example", "\u{3a3}\u{391}\u{3a3}@x.example"),
            ("Ann@B\u{fc}cher.example", "ann@xn--bcher-kva.example"),
            ("ann@xn--bcher-kva.example", "ann@b\u{fc}cher.example"),
            ("stra\u{df}e@x.example", "stra\u{df}e@x.example"),
            ("eve\u{200b}@x.example", "eve\u{200b}@x.example"),
        ] {
            assert!(of(asked).all().contains(&claimed(old)), "{old} {asked}");
        }
    }

    #[test]
    fn the_hash_never_changes() {
        let id = hash(&Key::new([1; 32]), &first_form("Zo\u{eb}@Example.org"));
        assert_eq!(id.to_string(), "6fd480dd-51b2-8cba-9852-a5339e413ad4");
    }
}
