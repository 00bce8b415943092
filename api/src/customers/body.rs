//! A customer as clients see them.

use crate::problem::Problem;
use chrono::{DateTime, Utc};
use commands::customer::Customer;
use events::{Sealed, seal::Key};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A customer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Customer)]
pub struct CustomerBody {
    /// Their id: the `sub` of their tokens.
    pub customer_id: Uuid,
    /// E-mail address.
    #[schema(example = "ann@example.org")]
    pub email: String,
    /// Given name.
    #[schema(example = "Ann")]
    pub first_name: String,
    /// Family name.
    #[schema(example = "Lee")]
    pub last_name: String,
    /// Whether the shop treats them as VIP.
    pub vip: bool,
    /// Orders that were confirmed.
    pub order_count: u64,
    /// When they registered.
    pub created_at: DateTime<Utc>,
    /// When they last changed as shown here.
    pub updated_at: DateTime<Utc>,
    /// The version shown here: the `ETag`.
    pub version: u64,
}

/// A customer as kept: personal data sealed.
pub struct SealedCustomer {
    customer_id: Uuid,
    email: Sealed,
    first_name: Sealed,
    last_name: Sealed,
    vip: bool,
    order_count: u64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: u64,
}

impl SealedCustomer {
    /// From the aggregate. `None` when they never asked to be one.
    pub fn of_state(customer_id: Uuid, customer: &Customer) -> Option<Self> {
        let profile = customer.profile()?;
        Some(Self {
            customer_id,
            email: profile.email.clone(),
            first_name: profile.first_name.clone(),
            last_name: profile.last_name.clone(),
            vip: profile.vip,
            order_count: customer.order_count(),
            created_at: customer.created_at(),
            updated_at: customer.updated_at(),
            version: customer.shown_version(),
        })
    }

    /// Opens what is sealed.
    ///
    /// # Errors
    /// `internal-error` when the key is not the customer's.
    pub fn open(self, key: &Key) -> Result<CustomerBody, Problem> {
        let open = |sealed: &Sealed, field| {
            let text = sealed.open(key, self.customer_id, field);
            text.map_err(|error| Problem::internal(&error))
        };
        Ok(CustomerBody {
            customer_id: self.customer_id,
            email: open(&self.email, "email")?,
            first_name: open(&self.first_name, "first_name")?,
            last_name: open(&self.last_name, "last_name")?,
            vip: self.vip,
            order_count: self.order_count,
            created_at: self.created_at,
            updated_at: self.updated_at,
            version: self.version,
        })
    }
}

impl From<projections::customers::Customer> for SealedCustomer {
    fn from(row: projections::customers::Customer) -> Self {
        Self {
            customer_id: row.customer_id,
            email: row.email,
            first_name: row.first_name,
            last_name: row.last_name,
            vip: row.vip,
            order_count: row.order_count.unsigned_abs(),
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        }
    }
}
