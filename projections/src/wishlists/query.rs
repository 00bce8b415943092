//! Rows to answers.

use super::Item;
use crate::{Page, QueryError, ReadModels};
use events::Timestamp;
use sqlx::FromRow;
use uuid::Uuid;

#[derive(FromRow)]
struct WishlistRow {
    product_id: Uuid,
    version: i64,
    added_at: Timestamp,
}

impl ReadModels {
    /// The items of a customer's wishlist, newest first, with a version below `before`, at most
    /// `limit`. An item is left out while this database does not have its product yet.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn wishlist(
        &self,
        customer_id: Uuid,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Page<Item, u64>, QueryError> {
        let before = before.map_or(i64::MAX, |before| i64::try_from(before).unwrap_or(i64::MAX));
        let rows: Vec<WishlistRow> = self
            .ask(move |pool| async move {
                Ok(sqlx::query_as(
                    "select product_id, version, added_at from read.wishlists \
                     where customer_id = $1 and version < $2 order by version desc limit $3",
                )
                .bind(customer_id)
                .bind(before)
                .bind(i64::from(limit) + 1)
                .fetch_all(&pool)
                .await?)
            })
            .await?;
        let page = Page::of(rows, limit, |row| row.version.unsigned_abs());
        let ids = page.items.iter().map(|row| row.product_id).collect();
        let mut products = self.products_by_id(ids).await?;
        let item = |row: WishlistRow| {
            let product = products.remove(&row.product_id)?;
            Some(Item { product, added_at: row.added_at, version: row.version.unsigned_abs() })
        };
        Ok(Page { items: page.items.into_iter().filter_map(item).collect(), next: page.next })
    }
}
