//! Events to rows. Only the last event of an item in a chunk matters.

use crate::{
    facts::{Facts, sql_partition},
    projection::{ApplyError, Projection},
    rebuild::{applied::Applied, gather::Gather},
};
use async_trait::async_trait;
use events::{Event, StreamKind, Timestamp, wishlist};
use sqlx::{AssertSqlSafe, PgConnection};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// The `wishlists` table of one version.
#[derive(Clone)]
pub(crate) struct Wishlists {
    clear: Arc<str>,
    delete: Arc<str>,
    insert: Arc<str>,
}

/// An item that is on a list.
struct StoredItem {
    partition: i32,
    version: i64,
    added_at: Timestamp,
}

impl Wishlists {
    pub fn new(schema: &str) -> Self {
        let clear = format!("delete from {schema}.wishlists where customer_id = any($1)");
        let delete = format!(
            "delete from {schema}.wishlists t using unnest($1::uuid[], $2::uuid[]) \
             as u(customer_id, product_id) \
             where t.customer_id = u.customer_id and t.product_id = u.product_id"
        );
        let insert = format!(
            "insert into {schema}.wishlists (customer_id, product_id, partition, version, added_at) \
             select * from unnest($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], \
             $5::timestamptz[])"
        );
        Self { clear: clear.into(), delete: delete.into(), insert: insert.into() }
    }
}

#[async_trait]
impl Projection for Wishlists {
    fn takes(&self, kind: StreamKind) -> bool {
        kind == StreamKind::Wishlist
    }

    async fn apply(
        &self,
        connection: &mut PgConnection,
        facts: &Facts<'_>,
    ) -> Result<(), ApplyError> {
        let Changes { cleared, items } = fold(facts);
        if !cleared.is_empty() {
            sqlx::query(AssertSqlSafe(Arc::clone(&self.clear)))
                .bind(cleared)
                .execute(&mut *connection)
                .await?;
        }
        if items.is_empty() {
            return Ok(());
        }
        let (customers, products): (Vec<Uuid>, Vec<Uuid>) = items.keys().copied().unzip();
        sqlx::query(AssertSqlSafe(Arc::clone(&self.delete)))
            .bind(customers)
            .bind(products)
            .execute(&mut *connection)
            .await?;
        let kept = || items.iter().filter_map(|(key, row)| Some((key, row.as_ref()?)));
        sqlx::query(AssertSqlSafe(Arc::clone(&self.insert)))
            .bind(kept().map(|(key, _)| key.0).collect::<Vec<_>>())
            .bind(kept().map(|(key, _)| key.1).collect::<Vec<_>>())
            .bind(kept().map(|(_, row)| row.partition).collect::<Vec<_>>())
            .bind(kept().map(|(_, row)| row.version).collect::<Vec<_>>())
            .bind(kept().map(|(_, row)| row.added_at).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }

    fn gather(&self) -> Box<dyn Gather> {
        Box::new(Applied::new(self.clone(), |_| true))
    }
}

/// What facts change.
#[derive(Default)]
struct Changes {
    /// The customers whose lists are cleared. All other changes come after that.
    cleared: Vec<Uuid>,
    /// The items, by customer and product, as the last fact leaves each: `None` if it was removed.
    items: BTreeMap<(Uuid, Uuid), Option<StoredItem>>,
}

fn fold(facts: &Facts<'_>) -> Changes {
    let Changes { mut cleared, mut items } = Changes::default();
    for fact in facts.iter() {
        let Event::Wishlist(event) = &fact.event else { continue };
        let customer_id = fact.record.stream.id;
        match event {
            wishlist::Event::ItemAdded(added) => {
                let row = StoredItem {
                    partition: sql_partition(fact.position.partition),
                    version: i64::try_from(fact.record.metadata.version).unwrap_or(i64::MAX),
                    added_at: fact.record.time,
                };
                items.insert((customer_id, added.product_id), Some(row));
            }
            wishlist::Event::ItemRemoved(removed) => {
                items.insert((customer_id, removed.product_id), None);
            }
            wishlist::Event::Cleared(_) => {
                cleared.push(customer_id);
                items.retain(|(customer, _), _| *customer != customer_id);
            }
        }
    }
    Changes { cleared, items }
}
