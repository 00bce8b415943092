//! Rows to answers.

use super::{
    Order, Status,
    apply::{Payment, ShownOrder},
};
use crate::{
    Page, QueryError, ReadModel, ReadModels,
    projection::unreadable,
    streams::{money, newest_first},
};
use events::{Sealed, StreamId, Timestamp};
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

/// The orders that a list shows. All given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these; empty for all.
    pub statuses: Vec<Status>,
    /// Orders of this customer.
    pub customer_id: Option<Uuid>,
    /// Placed at this moment or later.
    pub placed_from: Option<Timestamp>,
    /// Placed before this moment.
    pub placed_to: Option<Timestamp>,
}

/// The last order of a page; the next page begins after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// When that order was placed.
    pub placed_at: Timestamp,
    /// The id of that order.
    pub order_id: Uuid,
}

impl ReadModels {
    /// The order with this id. If `owner` is given, only an order of this customer is returned.
    ///
    /// # Errors
    /// When the database does not answer, or the order is parked.
    pub async fn order(&self, id: Uuid, owner: Option<Uuid>) -> Result<Option<Order>, QueryError> {
        let parked = self.refuse_parked(ReadModel::Orders, StreamId::order(id)).await;
        let order = self.find_order(id, owner).await?;
        match parked {
            // The first event says who owns the order. To another customer the order does not
            // exist, parked or not.
            Err(QueryError::Parked { .. }) if owner.is_some() && order.is_none() => {
                match self.find_order(id, None).await? {
                    Some(_) => Ok(None),
                    None => parked.map(|()| None),
                }
            }
            parked => parked.map(|()| order),
        }
    }

    async fn find_order(&self, id: Uuid, owner: Option<Uuid>) -> Result<Option<Order>, QueryError> {
        self.ask(move |pool| async move {
            let mut query = ShownOrder::select();
            query.push(" where order_id = ").push_bind(id);
            query.push(" and customer_id = coalesce(").push_bind(owner).push(", customer_id)");
            let row: Option<ShownOrder> = query.build_query_as().fetch_optional(&pool).await?;
            row.map(Order::try_from).transpose()
        })
        .await
    }

    /// The version of the order with this id, as in its `ETag`. If `owner` is given, only an order
    /// of this customer is returned.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn order_version(
        &self,
        id: Uuid,
        owner: Option<Uuid>,
    ) -> Result<Option<u64>, QueryError> {
        // For a parked order, the caller goes on to read the whole order, which reports the error.
        if self.refuse_parked(ReadModel::Orders, StreamId::order(id)).await.is_err() {
            return Ok(None);
        }
        self.ask(move |pool| async move {
            let version = "select shown_version from read.orders \
                           where order_id = $1 and customer_id = coalesce($2, customer_id)";
            let version: Option<i64> =
                sqlx::query_scalar(version).bind(id).bind(owner).fetch_optional(&pool).await?;
            Ok(version.map(i64::unsigned_abs))
        })
        .await
    }

    /// The orders that match `filter`, newest first, after the order `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn orders(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Order, Cursor>, QueryError> {
        let query = matching(filter);
        let after = after.map(|after| (after.placed_at, after.order_id));
        let list = move |pool| async move {
            let order = ["placed_at", "order_id"];
            newest_first::<ShownOrder, _>(&pool, query, order, after, limit).await
        };
        let items = self.ask(list).await?;
        let cursor =
            |order: &Order| Cursor { placed_at: order.placed_at, order_id: order.order_id };
        Ok(Page::of(items, limit, cursor))
    }
}

/// The query contains only the conditions that were asked for, so that the planner sees which index
/// fits. There are at most 16 different texts, and none contains a value.
fn matching(filter: &Filter) -> QueryBuilder<Postgres> {
    let mut query = ShownOrder::select();
    query.push(" where true");
    if !filter.statuses.is_empty() {
        let statuses: Vec<&str> = filter.statuses.iter().map(|status| status.as_str()).collect();
        query.push(" and status = any(").push_bind(statuses).push(")");
    }
    if let Some(customer_id) = filter.customer_id {
        query.push(" and customer_id = ").push_bind(customer_id);
    }
    if let Some(from) = filter.placed_from {
        query.push(" and placed_at >= ").push_bind(from);
    }
    if let Some(to) = filter.placed_to {
        query.push(" and placed_at < ").push_bind(to);
    }
    query
}

impl TryFrom<ShownOrder> for Order {
    type Error = QueryError;

    fn try_from(row: ShownOrder) -> Result<Self, QueryError> {
        let bad = |problem| unreadable("orders", problem);
        let status = row.status.parse().map_err(|_| bad("status"))?;
        let payment = Payment::named(&row.payment).ok_or_else(|| bad("payment"))?;
        let currency = row.currency.as_deref();
        let amount = |amount: Option<i64>| match (amount, currency) {
            (Some(amount), Some(currency)) => money(amount, currency).map(Some),
            _ => Some(None),
        };
        Ok(Self {
            order_id: row.order_id,
            customer_id: row.customer_id,
            status,
            items: row.items.0,
            subtotal: amount(row.subtotal).ok_or_else(|| bad("currency"))?,
            discount: amount(row.discount).ok_or_else(|| bad("currency"))?,
            discounts: row.discounts.0,
            total: amount(row.total).ok_or_else(|| bad("currency"))?,
            payment_method: row.payment_method.into(),
            payment_id: row.payment_id,
            refund: payment.refund(status),
            reason: row.reason,
            sealed_reason: row.sealed_reason.map(Sealed::from),
            shipping_address: row.shipping_address.map(Sealed::from),
            placed_at: row.placed_at,
            updated_at: row.updated_at,
            version: row.shown_version.unsigned_abs(),
        })
    }
}
