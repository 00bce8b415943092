//! Checks the read models against the log and against their rebuilt versions.

use super::{Violations, books::Books, log::Event};
use anyhow::Result;
use sqlx::{AssertSqlSafe, PgPool, Row};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The read models.
pub const MODELS: [&str; 7] =
    ["orders", "products", "customers", "history", "wishlists", "search", "sales"];

/// The first read model that has not applied all `events` events, if there is any.
///
/// # Errors
/// When the database does not answer.
pub async fn behind(pool: &PgPool, events: usize) -> Result<Option<String>> {
    let rows = sqlx::query(
        "select projection, sum(events)::bigint, max(stopped) from control.checkpoint \
         where serving group by projection",
    );
    for row in rows.fetch_all(pool).await? {
        let (model, applied): (String, i64) = (row.get(0), row.get(1));
        if applied != i64::try_from(events)? {
            let stopped: String = row.get::<Option<String>, _>(2).unwrap_or_default();
            return Ok(Some(format!("{model} has applied {applied} of {events} events {stopped}")));
        }
    }
    Ok(None)
}

/// Compares the rows of the serving versions with the totals of the log.
///
/// # Errors
/// When the database does not answer.
pub async fn check(
    pool: &PgPool,
    events: &[Event],
    books: &Books,
    violations: &mut Violations,
) -> Result<()> {
    let orders = books.orders.iter();
    let expected = orders.map(|(id, order)| (*id, format!("{} {:?}", order.status, order.total)));
    let shown = sqlx::query("select order_id, status, total from read.orders").fetch_all(pool);
    let shown = shown.await?.into_iter().map(|row| {
        let (status, total): (String, Option<i64>) = (row.get(1), row.get(2));
        (row.get(0), format!("{status} {total:?}"))
    });
    compare("orders", expected.collect(), shown.collect(), violations);

    let products = books.products.iter().filter(|(_, product)| product.added);
    let expected = products.map(|(id, product)| {
        (*id, format!("{} {} {}", product.on_hand, product.reserved(), product.shipped))
    });
    let shown = sqlx::query("select product_id, on_hand, reserved, shipped from read.products");
    let shown = shown.fetch_all(pool).await?.into_iter().map(|row| {
        let [on_hand, reserved, shipped] = [1, 2, 3].map(|column| row.get::<i64, _>(column));
        (row.get(0), format!("{on_hand} {reserved} {shipped}"))
    });
    compare("products", expected.collect(), shown.collect(), violations);

    let customers = books.customers.iter().filter(|(_, customer)| customer.registered);
    let expected = customers.map(|(id, customer)| (*id, customer.orders.to_string()));
    let shown = sqlx::query("select customer_id, order_count from read.customers").fetch_all(pool);
    let shown = shown.await?.into_iter().map(|row| (row.get(0), row.get::<i64, _>(1).to_string()));
    compare("customers", expected.collect(), shown.collect(), violations);

    check_sales(pool, books, violations).await?;

    let expected = events.iter().map(|event| {
        let Event { partition, offset, version, name, .. } = event;
        (event.id, format!("{name} {version} {partition}:{offset}"))
    });
    let shown = sqlx::query(
        "select event_id, event_type, version, partition, log_offset from read.history",
    );
    let shown = shown.fetch_all(pool).await?.into_iter().map(|row| {
        let (name, version): (String, i64) = (row.get(1), row.get(2));
        let (partition, offset): (i32, i64) = (row.get(3), row.get(4));
        (row.get(0), format!("{name} {version} {partition}:{offset}"))
    });
    compare("history", expected.collect(), shown.collect(), violations);
    Ok(())
}

/// The sales of all hours must add up to the orders that are confirmed and not cancelled.
async fn check_sales(pool: &PgPool, books: &Books, violations: &mut Violations) -> Result<()> {
    let sold = ["confirmed", "processing", "shipped", "delivered"];
    let sold = books.orders.values().filter(|order| sold.contains(&order.status));
    let expected = sold.fold((0, 0), |(orders, revenue), order| {
        (orders + 1, revenue + order.total.unwrap_or_default())
    });
    let shown: (i64, i64) = sqlx::query_as(
        "select coalesce(sum(orders), 0)::bigint, coalesce(sum(revenue), 0)::bigint from read.sales",
    )
    .fetch_one(pool)
    .await?;
    if shown != expected {
        violations.add(format!(
            "sales shows {shown:?} orders and revenue, but the log says {expected:?}"
        ));
    }
    Ok(())
}

fn compare(
    model: &str,
    expected: BTreeMap<Uuid, String>,
    mut shown: BTreeMap<Uuid, String>,
    violations: &mut Violations,
) {
    for (id, expected) in expected {
        let shown = shown.remove(&id);
        if shown.as_ref() != Some(&expected) {
            violations
                .add(format!("{model} shows {shown:?} for {id}, but the log says {expected}"));
        }
    }
    for (id, shown) in shown {
        violations.add(format!("{model} shows {shown} for {id}, which is not in the log"));
    }
}

/// Compares every row of the two latest versions of a read model; the newer one was rebuilt.
///
/// # Errors
/// When the database does not answer.
pub async fn check_rebuilt(pool: &PgPool, model: &str, violations: &mut Violations) -> Result<()> {
    let schemas: Vec<String> = sqlx::query_scalar(
        "select schema_name from control.version where projection = $1 and state = 'live' \
         order by version desc limit 2",
    )
    .bind(model)
    .fetch_all(pool)
    .await?;
    let [new, old] = schemas.as_slice() else {
        violations.add(format!("{model} was not rebuilt: {schemas:?}"));
        return Ok(());
    };
    for (one, other) in [(new, old), (old, new)] {
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
            "select t::text from {one}.{model} t except select t::text from {other}.{model} t \
             limit 5"
        )))
        .fetch_all(pool)
        .await?;
        for row in rows {
            violations.add(format!("{one}.{model} has the row {row}, but {other} does not"));
        }
    }
    Ok(())
}
