//! The expected content of the read models.

use super::Books;
use events::Timestamp;
use sqlx::{PgPool, Row};
use std::collections::BTreeMap;
use uuid::Uuid;

impl Books {
    /// Compares the read models with the totals of the log.
    pub async fn compare_with_tables(&self, pool: &PgPool) {
        self.compare_products(pool).await;
        self.compare_orders(pool).await;
        self.compare_search_and_wishlists(pool).await;
        self.compare_sales(pool).await;
        let rows = sqlx::query("select customer_id, order_count from read.customers");
        let shown: BTreeMap<Uuid, i64> = rows
            .fetch_all(pool)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get("customer_id"), row.get("order_count")))
            .collect();
        let registered = self.customers.iter().filter(|(_, it)| it.registered || it.erased);
        let expected: BTreeMap<Uuid, i64> =
            registered.map(|(id, customer)| (*id, customer.orders.cast_signed())).collect();
        assert_eq!(shown, expected, "customers in the read model");
    }

    async fn compare_products(&self, pool: &PgPool) {
        let rows = sqlx::query("select product_id, on_hand, reserved, shipped from read.products");
        let shown: BTreeMap<Uuid, [i64; 3]> = rows
            .fetch_all(pool)
            .await
            .unwrap()
            .iter()
            .map(|row| {
                (
                    row.get("product_id"),
                    [row.get("on_hand"), row.get("reserved"), row.get("shipped")],
                )
            })
            .collect();
        let expected: BTreeMap<Uuid, [i64; 3]> = self
            .products
            .iter()
            .filter(|(_, product)| product.added)
            .map(|(id, product)| (*id, [product.on_hand, product.reserved(), product.shipped]))
            .collect();
        assert_eq!(shown, expected, "products in the read model");
    }

    async fn compare_orders(&self, pool: &PgPool) {
        let rows = sqlx::query("select order_id, status, total from read.orders");
        let shown: BTreeMap<Uuid, (String, Option<i64>)> = rows
            .fetch_all(pool)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get("order_id"), (row.get("status"), row.get("total"))))
            .collect();
        let expected: BTreeMap<Uuid, (String, Option<i64>)> = self
            .orders
            .iter()
            .map(|(id, order)| (*id, (order.status.to_owned(), order.total)))
            .collect();
        assert_eq!(shown, expected, "orders in the read model");
    }

    async fn compare_search_and_wishlists(&self, pool: &PgPool) {
        let found: Vec<Uuid> =
            sqlx::query_scalar("select product_id from read.search order by product_id")
                .fetch_all(pool)
                .await
                .unwrap();
        let sold = self.products.iter().filter(|(_, it)| it.added && !it.discontinued);
        assert!(found.iter().eq(sold.map(|(id, _)| id)), "products that can be found");
        let wished: Vec<(Uuid, Uuid)> =
            sqlx::query_as("select customer_id, product_id from read.wishlists order by 1, 2")
                .fetch_all(pool)
                .await
                .unwrap();
        assert!(wished.iter().eq(&self.wishlists), "wishlists in the read model: {wished:?}");
    }

    /// Compares the sales: the orders confirmed in each hour and not cancelled, and the units of
    /// each product in them.
    async fn compare_sales(&self, pool: &PgPool) {
        let hour = |time: Timestamp| time.format("%Y-%m-%d %H").to_string();
        let mut money: BTreeMap<String, [i64; 3]> = BTreeMap::new();
        let mut units: BTreeMap<(String, Uuid), i64> = BTreeMap::new();
        for order in self.orders.values().filter(|order| !order.is_dead()) {
            let Some(confirmed_at) = order.confirmed_at else { continue };
            let sums = money.entry(hour(confirmed_at)).or_default();
            for (sum, one) in sums.iter_mut().zip([1, order.total.unwrap(), order.discount]) {
                *sum += one;
            }
            for (product, quantity) in &order.lines {
                *units.entry((hour(confirmed_at), *product)).or_default() += quantity;
            }
        }
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
            "select to_char(bucket at time zone 'UTC', 'YYYY-MM-DD HH24'), sum(orders)::bigint, \
             sum(revenue)::bigint, sum(discounts)::bigint from read.sales \
             group by bucket having sum(orders) <> 0",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let shown = rows
            .into_iter()
            .map(|(hour, orders, revenue, discounts)| (hour, [orders, revenue, discounts]));
        assert_eq!(shown.collect::<BTreeMap<_, _>>(), money, "sales in the read model");
        let rows: Vec<(String, Uuid, i64)> = sqlx::query_as(
            "select to_char(bucket at time zone 'UTC', 'YYYY-MM-DD HH24'), product_id, \
             sum(units)::bigint from read.sales_product \
             group by bucket, product_id having sum(units) <> 0",
        )
        .fetch_all(pool)
        .await
        .unwrap();
        let shown = rows.into_iter().map(|(hour, product, units)| ((hour, product), units));
        assert_eq!(shown.collect::<BTreeMap<_, _>>(), units, "units sold in the read model");
    }
}
