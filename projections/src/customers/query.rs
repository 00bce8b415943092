//! Rows to answers.

use super::Customer;
use crate::{QueryError, ReadModel, ReadModels};
use events::{Sealed, StreamId, Timestamp};
use sqlx::FromRow;
use uuid::Uuid;

/// The columns by name: a later version of the view may have more.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select customer_id, shown_version, email_id, email, first_name, last_name, vip, \
             order_count, created_at, \
             updated_at from read.customers ",
            $rest
        )
    };
}

impl ReadModels {
    /// The customer with this id, registered or erased.
    ///
    /// # Errors
    /// When the database does not answer, or the customer is parked.
    pub async fn customer(&self, id: Uuid) -> Result<Option<Customer>, QueryError> {
        self.refuse_parked(ReadModel::Customers, StreamId::customer(id)).await?;
        self.customer_where(select!("where customer_id = $1"), id).await
    }

    /// The registered customer whose address has this keyed hash.
    ///
    /// # Errors
    /// When the database does not answer, or the customer is parked.
    pub async fn customer_by_email(&self, email_id: Uuid) -> Result<Option<Customer>, QueryError> {
        // For a moment, two rows can show the same address: one customer has taken it over, and the
        // event that takes it away from the other has not been applied yet.
        const BY_EMAIL: &str =
            select!("where email_id = $1 order by updated_at desc, customer_id limit 1");
        let found = self.customer_where(BY_EMAIL, email_id).await?;
        match found {
            Some(found) if self.may_have_parked(ReadModel::Customers).await? => {
                let found = self.customer(found.customer_id).await?;
                Ok(found.filter(|found| found.email_id == email_id))
            }
            found => Ok(found),
        }
    }

    async fn customer_where(
        &self,
        query: &'static str,
        id: Uuid,
    ) -> Result<Option<Customer>, QueryError> {
        self.ask(move |pool| async move {
            let row: Option<Row> = sqlx::query_as(query).bind(id).fetch_optional(&pool).await?;
            Ok(row.map(Customer::from))
        })
        .await
    }
}

#[derive(FromRow)]
struct Row {
    customer_id: Uuid,
    shown_version: i64,
    email_id: Uuid,
    email: String,
    first_name: String,
    last_name: String,
    vip: bool,
    order_count: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Row> for Customer {
    fn from(row: Row) -> Self {
        Self {
            customer_id: row.customer_id,
            email_id: row.email_id,
            email: Sealed::from(row.email),
            first_name: Sealed::from(row.first_name),
            last_name: Sealed::from(row.last_name),
            vip: row.vip,
            order_count: row.order_count,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.shown_version.unsigned_abs(),
        }
    }
}
