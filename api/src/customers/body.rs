//! A customer as an answer shows them.

use crate::{problem::Problem, query::Versioned};
use chrono::{DateTime, Utc};
use commands::customer::Customer;
use events::{Private, Sealed, seal::Key};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A customer.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Customer)]
pub struct CustomerBody {
    /// Id of the customer, which is also the `sub` of their tokens.
    pub customer_id: Uuid,
    /// E-mail address.
    #[schema(value_type = String, example = "ann@example.org")]
    pub email: Private,
    /// Given name.
    #[schema(value_type = String, example = "Ann")]
    pub first_name: Private,
    /// Family name.
    #[schema(value_type = String, example = "Lee")]
    pub last_name: Private,
    /// Whether the customer is a VIP and gets the VIP discount.
    pub vip: bool,
    /// Number of confirmed orders.
    pub order_count: u64,
    /// When the customer registered.
    pub created_at: DateTime<Utc>,
    /// Time of the last change that this document shows.
    pub updated_at: DateTime<Utc>,
    /// Version of the customer as shown here; the same number as in `ETag`.
    pub version: u64,
}

impl Versioned for CustomerBody {
    fn version(&self) -> u64 {
        self.version
    }
}

/// A customer with sealed personal data, as the log and the read model have them.
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
    /// The sealed customer of an aggregate. `None` if nobody registered under this id.
    pub fn of_state(customer_id: Uuid, customer: &Customer) -> Option<Self> {
        let profile = customer.profile()?;
        Some(Self {
            customer_id,
            email: profile.email.clone(),
            first_name: profile.first_name.clone(),
            last_name: profile.last_name.clone(),
            vip: profile.vip,
            order_count: customer.order_count(),
            created_at: customer.shown().created_at,
            updated_at: customer.shown().updated_at,
            version: customer.shown().version,
        })
    }

    /// Decrypts the personal data.
    ///
    /// # Errors
    /// `internal-error` if `key` is not the customer's key.
    pub fn open(self, key: &Key) -> Result<CustomerBody, Problem> {
        let open = |sealed: &Sealed, field| {
            let text = sealed.open(key, self.customer_id, field);
            text.map(Private::from).map_err(|error| Problem::internal(&error))
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
