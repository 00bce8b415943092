//! Rows to answers.

use super::{Customer, apply::ShownCustomer};
use crate::{QueryError, ReadModel, ReadModels};
use events::{Sealed, StreamId};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

impl ReadModels {
    /// The customer with this id, registered or erased.
    ///
    /// # Errors
    /// When the database does not answer, or the customer is parked.
    pub async fn customer(&self, id: Uuid) -> Result<Option<Customer>, QueryError> {
        self.refuse_parked(ReadModel::Customers, StreamId::customer(id)).await?;
        let mut query = ShownCustomer::select();
        query.push(" where customer_id = ").push_bind(id);
        self.find_customer(query).await
    }

    /// The registered customer whose address has one of these keyed hashes.
    ///
    /// # Errors
    /// When the database does not answer, or the customer is parked.
    pub async fn customer_by_email(
        &self,
        email_ids: &[Uuid],
    ) -> Result<Option<Customer>, QueryError> {
        // For a moment, two rows can show the same address: one customer has taken it over, and the
        // event that takes it away from the other has not been applied yet.
        let mut query = ShownCustomer::select();
        query.push(" where email_id = any(").push_bind(email_ids.to_vec()).push(")");
        query.push(" order by updated_at desc, customer_id limit 1");
        let found = self.find_customer(query).await?;
        match found {
            Some(found) if self.may_have_parked(ReadModel::Customers).await? => {
                let found = self.customer(found.customer_id).await?;
                Ok(found.filter(|found| email_ids.contains(&found.email_id)))
            }
            found => Ok(found),
        }
    }

    async fn find_customer(
        &self,
        mut query: QueryBuilder<Postgres>,
    ) -> Result<Option<Customer>, QueryError> {
        self.ask(move |pool| async move {
            let row: Option<ShownCustomer> = query.build_query_as().fetch_optional(&pool).await?;
            Ok(row.map(Customer::from))
        })
        .await
    }
}

impl From<ShownCustomer> for Customer {
    fn from(row: ShownCustomer) -> Self {
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
