//! Sums to answers.

use super::{BestSeller, Bucket, Sold};
use crate::{QueryError, ReadModels};
use events::{Currency, Timestamp};
use sqlx::FromRow;
use uuid::Uuid;

#[derive(FromRow)]
struct SalesRow {
    bucket: Timestamp,
    orders: i64,
    revenue: i64,
    discounts: i64,
}

impl ReadModels {
    /// The sales in each bucket from `from` until before `to`, in one currency. Both are the
    /// beginning of an hour. Buckets without sales are left out. A sum that exceeds 64 bits is
    /// capped.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sales(
        &self,
        (from, to): (Timestamp, Timestamp),
        bucket: Bucket,
        currency: Currency,
    ) -> Result<Vec<Sold>, QueryError> {
        self.ask_costly(move |pool| async move {
            let rows: Vec<SalesRow> = sqlx::query_as(
                "select date_trunc($3, bucket, 'UTC') as bucket, sum(orders)::bigint as orders, \
                 least(sum(revenue), 9223372036854775807)::bigint as revenue, \
                 least(sum(discounts), 9223372036854775807)::bigint as discounts \
                 from read.sales where bucket >= $1 and bucket < $2 and currency = $4 \
                 group by 1 having sum(orders) > 0 order by 1",
            )
            .bind(from)
            .bind(to)
            .bind(bucket.as_str())
            .bind(currency.code())
            .fetch_all(&pool)
            .await?;
            let sold = |SalesRow { bucket, orders, revenue, discounts }| Sold {
                bucket,
                orders,
                revenue,
                discounts,
            };
            Ok(rows.into_iter().map(sold).collect())
        })
        .await
    }

    /// The products with the most units sold from `from` until before `to`, at most `limit`. Both
    /// are the beginning of an hour.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn best_sellers(
        &self,
        (from, to): (Timestamp, Timestamp),
        limit: u32,
    ) -> Result<Vec<BestSeller>, QueryError> {
        let rows: Vec<(Uuid, i64)> = self
            .ask_costly(move |pool| async move {
                Ok(sqlx::query_as(
                    "select product_id, least(sum(units), 9223372036854775807)::bigint as units \
                     from read.sales_product where bucket >= $1 and bucket < $2 \
                     group by product_id having sum(units) > 0 order by units desc, product_id \
                     limit $3",
                )
                .bind(from)
                .bind(to)
                .bind(i64::from(limit))
                .fetch_all(&pool)
                .await?)
            })
            .await?;
        let mut products = self.products_by_id(rows.iter().map(|(id, _)| *id).collect()).await?;
        let best = |(product_id, units)| {
            let name = products.remove(&product_id).map(|product| product.name);
            BestSeller { product_id, name, units }
        };
        Ok(rows.into_iter().map(best).collect())
    }
}
