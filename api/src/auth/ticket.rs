//! Tickets, which a browser sends in place of a token where it cannot set headers.
//!
//! A ticket is for one order and one principal. It may be used more than once while it is valid,
//! because a browser that reconnects uses the same URL.

use super::{Principal, Role};
use crate::problem::{Kind, Problem};
use events::{
    Timestamp,
    seal::{Key, Sealed},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// How long a ticket is valid.
pub const TICKET_LIFETIME: Duration = Duration::from_mins(1);
/// What the sealed text is.
const FIELD: &str = "ticket";
/// The most bytes of a ticket.
const MAX_TICKET_BYTES: usize = 16 * 1024;

/// Seals tickets and opens them. A ticket is part of a URL, which others may log, so nobody else can
/// read who it is for.
pub struct Tickets(Key);

/// An issued ticket.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The text of the ticket.
    pub text: String,
    /// When it expires.
    pub expires_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    issuer: String,
    subject: String,
    role: Role,
    /// Seconds since 1970.
    expires: i64,
    /// When the token of the caller expires, in seconds since 1970.
    until: i64,
}

impl Tickets {
    /// Seals with this secret, which all nodes share.
    pub fn new(secret: Key) -> Self {
        Self(secret)
    }

    /// A ticket for `order`. A stream that it opens ends when the caller's token expires, at
    /// `until`.
    ///
    /// # Errors
    /// Never, because the claims always serialise.
    pub fn give(
        &self,
        order: Uuid,
        principal: &Principal,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Ticket, Problem> {
        let expires = (now + TICKET_LIFETIME).min(until).timestamp();
        let claims = Claims {
            issuer: principal.issuer.as_ref().to_owned(),
            subject: principal.subject.as_ref().to_owned(),
            role: principal.role,
            expires,
            until: until.timestamp(),
        };
        let claims = serde_json::to_string(&claims).map_err(|error| Problem::internal(&error))?;
        let sealed = Sealed::seal(&self.0, order, FIELD, &claims);
        let sealed = sealed.map_err(|error| Problem::internal(&error))?;
        // The alphabet of Base64 that needs no escapes in a URL.
        let text = sealed.as_str().replace('+', "-").replace('/', "_");
        Ok(Ticket { text, expires_at: Timestamp::from_timestamp(expires, 0).unwrap_or(now) })
    }

    /// The principal of a ticket for `order`, and when the principal's token expires.
    ///
    /// # Errors
    /// `unauthenticated` if the ticket is forged, expired, or for another order.
    pub fn check(
        &self,
        text: &str,
        order: Uuid,
        now: Timestamp,
    ) -> Result<(Principal, Timestamp), Problem> {
        let refused = |detail: &str| Problem::new(Kind::Unauthenticated, detail);
        let claims = self.open(text, order);
        let claims = claims.ok_or_else(|| refused("the ticket is not valid for this order"))?;
        if now.timestamp() >= claims.expires {
            return Err(refused("the ticket has expired"));
        }
        let Claims { issuer, subject, role, until, .. } = claims;
        let principal = Principal::new(issuer, &subject, role);
        Ok((principal, Timestamp::from_timestamp(until, 0).unwrap_or(now)))
    }

    fn open(&self, text: &str, order: Uuid) -> Option<Claims> {
        let text = Some(text).filter(|text| text.len() <= MAX_TICKET_BYTES)?;
        let sealed = Sealed::from(text.replace('-', "+").replace('_', "/"));
        serde_json::from_str(&sealed.open(&self.0, order, FIELD).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn ann() -> Principal {
        Principal { issuer: "i".into(), subject: "ann".into(), role: Role::Customer }
    }

    #[test]
    fn a_ticket_is_for_one_order_and_a_short_time() {
        let tickets = Tickets::new(Key::new([1; 32]));
        let (order, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let ticket = tickets.give(order, &ann(), at(3600), at(0)).unwrap();
        assert_eq!(ticket.expires_at, at(60));
        for second in [0, 59] {
            let checked = tickets.check(&ticket.text, order, at(second)).unwrap();
            assert_eq!(checked, (ann(), at(3600)));
        }
        for (order, now) in [(order, at(60)), (other, at(0))] {
            let refused = tickets.check(&ticket.text, order, now).unwrap_err();
            assert_eq!(refused.kind(), Kind::Unauthenticated);
        }
        let late = tickets.give(order, &ann(), at(10), at(0)).unwrap();
        assert_eq!(late.expires_at, at(0) + TimeDelta::seconds(10), "not after the token expires");
    }

    #[test]
    fn a_forged_ticket_is_refused() {
        let (ours, other) = (Tickets::new(Key::new([1; 32])), Tickets::new(Key::new([2; 32])));
        let order = Uuid::from_u128(1);
        let ticket = ours.give(order, &ann(), at(3600), at(0)).unwrap().text;
        let theirs = other.give(order, &ann(), at(3600), at(0)).unwrap().text;
        assert!(!ticket.contains("ann") && !ticket.contains("YW5u"), "nobody can read it");
        let mut changed = ticket.clone().into_bytes();
        changed[10] = if changed[10] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let huge = "a".repeat(MAX_TICKET_BYTES + 1);
        for forged in [theirs.as_str(), &changed, &ticket[1..], "", ".", "a.b", &huge] {
            assert!(ours.check(forged, order, at(0)).is_err(), "{forged}");
        }
        assert!(ours.check(&ticket, order, at(0)).is_ok());
    }
}
