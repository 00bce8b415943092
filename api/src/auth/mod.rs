//! Authentication with JSON Web Tokens, and what the roles allow.

mod issuer;
mod key_set;
mod keys;
mod ticket;
mod token;

pub use issuer::{FetchError, KeySetSource};
pub use keys::{AuthKeyError, AuthKeys, TOKEN_LIFETIME};
pub use ticket::{TICKET_LIFETIME, Ticket, Tickets};
pub use token::{AUDIENCE, Admitted, Authenticator, ISSUER};

use crate::problem::{Kind, Problem};
use axum::{extract::FromRequestParts, http::request::Parts};
use events::Timestamp;
use serde::{Deserialize, Serialize};
use std::{str::FromStr, sync::Arc};
use uuid::Uuid;

/// The role of a caller, in ascending order: each role may do all that the roles before it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum Role {
    /// May access their own resources only.
    Customer,
    /// The shop's staff.
    Staff,
    /// Staff who also administer the system.
    Admin,
}

/// There is no role with this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is `customer`, `staff` or `admin`")]
pub struct UnknownRole;

impl Role {
    /// The name in the claim `role`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Staff => "staff",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        let all = [Self::Customer, Self::Staff, Self::Admin];
        all.into_iter().find(|role| role.as_str() == name).ok_or(UnknownRole)
    }
}

impl TryFrom<String> for Role {
    type Error = UnknownRole;

    fn try_from(name: String) -> Result<Self, UnknownRole> {
        name.parse()
    }
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The issuer of the token.
    pub issuer: Arc<str>,
    /// The issuer's id of the caller.
    pub subject: Arc<str>,
    /// The caller's role.
    pub role: Role,
}

impl Principal {
    /// The caller with this subject. A UUID is written in many ways; the caller is the same, for the
    /// rate limits and for idempotency keys too.
    pub fn new(issuer: impl Into<Arc<str>>, subject: &str, role: Role) -> Self {
        let id = Uuid::try_parse(subject).map(|id| id.to_string());
        Self { issuer: issuer.into(), subject: id.as_deref().unwrap_or(subject).into(), role }
    }

    /// The id of the customer, for a token with the role `customer`.
    pub fn customer_id(&self) -> Option<Uuid> {
        Uuid::try_parse(&self.subject).ok().filter(|_| self.role == Role::Customer)
    }
}

/// The caller; `None` without a token. A request with an invalid token never reaches a handler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller(pub Option<Principal>);

/// When the token of a request expires; `None` without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Until(pub Option<Timestamp>);

/// Who may use an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone, also without a token.
    Anyone,
    /// A caller with at least this role.
    AtLeast(Role),
}

impl Caller {
    /// The authenticated caller.
    ///
    /// # Errors
    /// `unauthenticated` without a token.
    pub fn principal(&self) -> Result<&Principal, Problem> {
        self.0.as_ref().ok_or_else(|| Kind::Unauthenticated.into())
    }

    /// Whether the caller is staff or more.
    pub fn is_staff(&self) -> bool {
        self.0.as_ref().is_some_and(|principal| principal.role >= Role::Staff)
    }

    /// Whether the caller is this customer.
    pub fn is_customer(&self, id: Uuid) -> bool {
        self.0.as_ref().and_then(Principal::customer_id) == Some(id)
    }

    /// Requires that the caller may use an operation with this access.
    ///
    /// # Errors
    /// `unauthenticated` without a token, `forbidden` for a lower role.
    pub fn require(&self, access: Access) -> Result<(), Problem> {
        let Access::AtLeast(role) = access else { return Ok(()) };
        if self.principal()?.role >= role {
            return Ok(());
        }
        Err(Problem::new(Kind::Forbidden, format!("requires the role {}", role.as_str())))
    }

    /// Requires that the caller is this customer or staff.
    ///
    /// # Errors
    /// `unauthenticated` without a token, `forbidden` for another customer.
    pub fn require_customer_or_staff(&self, id: Uuid) -> Result<(), Problem> {
        self.principal()?;
        if self.is_staff() || self.is_customer(id) {
            return Ok(());
        }
        Err(Problem::new(Kind::Forbidden, "a customer can do this only for themselves"))
    }

    /// The customer whose resources the caller may access: themselves for a customer, `None` (no
    /// limit) for staff.
    ///
    /// # Errors
    /// `unauthenticated` without a token, `forbidden` for a customer's token whose subject is not
    /// the id of a customer.
    pub fn owner(&self) -> Result<Option<Uuid>, Problem> {
        let principal = self.principal()?;
        if principal.role >= Role::Staff {
            return Ok(None);
        }
        let nobody = || Problem::new(Kind::Forbidden, "the token's subject is not a customer id");
        principal.customer_id().map(Some).ok_or_else(nobody)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = std::convert::Infallible;

    /// The caller as the layer that checks tokens has found.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

impl<S: Sync> FromRequestParts<S> for Until {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, subject: &str) -> Caller {
        Caller(Some(Principal { issuer: "orderlog".into(), subject: subject.into(), role }))
    }

    #[test]
    fn each_role_may_do_what_the_lower_ones_may() {
        let (staff, admin) = (Access::AtLeast(Role::Staff), Access::AtLeast(Role::Admin));
        let kind = |caller: &Caller, access| caller.require(access).map_err(|p| p.kind());
        assert_eq!(kind(&Caller(None), Access::Anyone), Ok(()));
        assert_eq!(kind(&Caller(None), staff), Err(Kind::Unauthenticated));
        assert_eq!(kind(&caller(Role::Customer, "ann"), staff), Err(Kind::Forbidden));
        assert_eq!(kind(&caller(Role::Staff, "sam"), staff), Ok(()));
        assert_eq!(kind(&caller(Role::Staff, "sam"), admin), Err(Kind::Forbidden));
        assert_eq!(kind(&caller(Role::Admin, "amy"), staff), Ok(()));
    }

    #[test]
    fn a_caller_is_the_same_however_their_id_is_written() {
        let id = "0192f3a4-5b6c-7d8e-9f00-0a0b0c0d0e01";
        let of = |subject: &str| Principal::new("i", subject, Role::Customer);
        for other in [id.to_uppercase(), id.replace('-', ""), format!("urn:uuid:{id}")] {
            assert_eq!(of(&other), of(id), "{other}");
        }
        assert_ne!(of("Ann"), of("ann"));
    }

    #[test]
    fn a_role_is_a_text() {
        let of = |json: &str| serde_json::from_str::<Role>(json).ok();
        assert_eq!(of("\"staff\""), Some(Role::Staff));
        for other in ["{\"staff\":null}", "[\"staff\"]", "\"Staff\"", "null", "1"] {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn a_customer_is_limited_to_themselves() {
        let (ann, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let caller = caller(Role::Customer, &ann.to_string());
        assert_eq!(caller.owner().unwrap(), Some(ann));
        assert!(caller.require_customer_or_staff(ann).is_ok());
        assert_eq!(caller.require_customer_or_staff(bob).unwrap_err().kind(), Kind::Forbidden);
    }

    #[test]
    fn a_staff_token_whose_subject_is_a_customer_is_not_that_customer() {
        let ann = Uuid::from_u128(1);
        let caller = caller(Role::Staff, &ann.to_string());
        assert!(!caller.is_customer(ann));
        assert_eq!(caller.owner().unwrap(), None);
    }
}
