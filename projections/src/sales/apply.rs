//! Events to sums.

use super::gather::GatheredSales;
use crate::{
    facts::{Facts, sql_partition},
    projection::{ApplyError, Projection},
    rebuild::gather::Gather,
    sales::Bucket,
};
use async_trait::async_trait;
use events::{Event, StreamKind, Timestamp, order};
use rustc_hash::FxHashMap;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, types::Json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use uuid::Uuid;

/// The tables of one version.
#[derive(Clone)]
pub(crate) struct Sales {
    load: Arc<str>,
    delete: Arc<str>,
    insert: Arc<str>,
    copy: Arc<str>,
    add: Arc<str>,
    add_units: Arc<str>,
}

impl Sales {
    pub fn new(schema: &str) -> Self {
        let load = format!(
            "select order_id, partition, bucket, currency, revenue, discounts, lines \
             from {schema}.sales_order where order_id = any($1)"
        );
        let delete = format!("delete from {schema}.sales_order where order_id = any($1)");
        let insert = format!(
            "insert into {schema}.sales_order \
             (order_id, partition, bucket, currency, revenue, discounts, lines) \
             select id, partition, bucket, currency, revenue, discounts, lines::json \
             from unnest($1::uuid[], $2::integer[], $3::timestamptz[], $4::text[], $5::bigint[], \
             $6::bigint[], $7::text[]) \
             as u(id, partition, bucket, currency, revenue, discounts, lines)"
        );
        let copy = format!(
            "copy {schema}.sales_order \
             (order_id, partition, bucket, currency, revenue, discounts, lines) \
             from stdin (format binary)"
        );
        let add = format!(
            "insert into {schema}.sales as t \
             (bucket, partition, currency, orders, revenue, discounts) \
             select bucket, partition, currency, orders, revenue::numeric, discounts::numeric \
             from unnest($1::timestamptz[], $2::integer[], $3::text[], $4::bigint[], $5::text[], \
             $6::text[]) as u(bucket, partition, currency, orders, revenue, discounts) \
             on conflict (bucket, partition, currency) do update set \
             orders = t.orders + excluded.orders, revenue = t.revenue + excluded.revenue, \
             discounts = t.discounts + excluded.discounts"
        );
        let add_units = format!(
            "insert into {schema}.sales_product as t (bucket, partition, product_id, units) \
             select bucket, partition, product_id, units::numeric \
             from unnest($1::timestamptz[], $2::integer[], $3::uuid[], $4::text[]) \
             as u(bucket, partition, product_id, units) \
             on conflict (bucket, product_id, partition) do update set \
             units = t.units + excluded.units"
        );
        Self {
            load: load.into(),
            delete: delete.into(),
            insert: insert.into(),
            copy: copy.into(),
            add: add.into(),
            add_units: add_units.into(),
        }
    }
}

/// What an order adds to the sums when it is confirmed.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Sale {
    pub order_id: Uuid,
    pub partition: i32,
    pub bucket: Option<Timestamp>,
    pub currency: String,
    pub revenue: i64,
    pub discounts: i64,
    lines: Json<Vec<(Uuid, i64)>>,
}

impl Sale {
    fn of(order_id: Uuid, partition: i32, priced: &order::Priced) -> Self {
        let line = |line: &order::PricedLine| (line.product_id, line.quantity);
        Self {
            order_id,
            partition,
            bucket: None,
            currency: priced.total.currency.code().to_owned(),
            revenue: priced.total.amount,
            discounts: priced.discount.amount,
            lines: Json(priced.lines.iter().map(line).collect()),
        }
    }

    /// The lines as JSON.
    pub fn lines_text(&self) -> String {
        // Ids and numbers always serialise.
        serde_json::to_string(&self.lines.0).unwrap_or_default()
    }
}

/// What a chunk adds to the sums. A row that was once added to stays, even if everything is
/// subtracted again, so that the rows do not depend on how the log is cut into chunks.
#[derive(Default)]
pub(super) struct Sums {
    /// Orders, revenue and discounts by bucket, partition and currency.
    pub money: BTreeMap<(Timestamp, i32, String), (i64, i128, i128)>,
    /// Units by bucket, product and partition.
    pub units: BTreeMap<(Timestamp, Uuid, i32), i128>,
}

impl Sums {
    /// Adds `sale` to its bucket if `times` is 1, or subtracts it if `times` is -1.
    fn add(&mut self, sale: &Sale, bucket: Timestamp, times: i64) {
        let key = (bucket, sale.partition, sale.currency.clone());
        let (orders, revenue, discounts) = self.money.entry(key).or_default();
        *orders += times;
        *revenue += i128::from(sale.revenue) * i128::from(times);
        *discounts += i128::from(sale.discounts) * i128::from(times);
        for &(product_id, quantity) in &sale.lines.0 {
            let units = self.units.entry((bucket, product_id, sale.partition)).or_default();
            *units += i128::from(quantity) * i128::from(times);
        }
    }
}

/// The orders of a chunk that may still change the sums.
#[derive(Default)]
pub(super) struct Open {
    /// By order; `None` for an order that can no longer change a sum.
    pub sales: FxHashMap<Uuid, Option<Sale>>,
    /// Orders whose row has changed.
    pub changed: BTreeSet<Uuid>,
    pub sums: Sums,
}

impl Open {
    pub fn take(&mut self, order_id: Uuid, partition: i32, time: Timestamp, event: &order::Event) {
        use order::Event as E;
        match event {
            E::Priced(priced) => {
                self.put(order_id, Some(Sale::of(order_id, partition, priced)));
            }
            E::Confirmed(_) => self.confirm(order_id, time),
            E::Cancelled(_) => {
                let sale = self.sales.get(&order_id).cloned().flatten();
                if let Some((sale, bucket)) = sale.and_then(|sale| sale.bucket.map(|at| (sale, at)))
                {
                    self.sums.add(&sale, bucket, -1);
                }
                self.put(order_id, None);
            }
            // A shipped order can no longer be cancelled, and a rejected one is never confirmed.
            E::Shipped(_) | E::Rejected(_) => self.put(order_id, None),
            E::Placed(_)
            | E::PaymentStarted(_)
            | E::PaymentCaptured(_)
            | E::PaymentDeclined(_)
            | E::PaymentVoided(_)
            | E::RefundIssued(_)
            | E::RefundFailed(_)
            | E::ProcessingStarted(_)
            | E::Delivered(_)
            | E::CustomerSettled(_)
            | E::StockSettled(_)
            | E::MailSent(_)
            | E::MailRefused(_) => {}
        }
    }

    fn confirm(&mut self, order_id: Uuid, time: Timestamp) {
        let Some(mut sale) = self.sales.get(&order_id).cloned().flatten() else { return };
        let Some(bucket) = Bucket::Hour.begin(time).filter(|_| sale.bucket.is_none()) else {
            return;
        };
        self.sums.add(&sale, bucket, 1);
        sale.bucket = Some(bucket);
        self.put(order_id, Some(sale));
    }

    fn put(&mut self, order_id: Uuid, sale: Option<Sale>) {
        self.sales.insert(order_id, sale);
        self.changed.insert(order_id);
    }
}

#[async_trait]
impl Projection for Sales {
    fn takes(&self, kind: StreamKind) -> bool {
        kind == StreamKind::Order
    }

    async fn apply(
        &self,
        connection: &mut PgConnection,
        facts: &Facts<'_>,
    ) -> Result<(), ApplyError> {
        let mut open = self.open(connection, facts).await?;
        for fact in facts.iter() {
            if let Event::Order(event) = &fact.event {
                let partition = sql_partition(fact.position.partition);
                open.take(fact.record.stream.id, partition, fact.record.time, event);
            }
        }
        self.write_orders(connection, &open).await?;
        self.add(connection, &open.sums).await?;
        Ok(())
    }

    fn gather(&self) -> Box<dyn Gather> {
        Box::new(GatheredSales::new(self.clone()))
    }
}

impl Sales {
    /// Loads the orders that these facts may change and that were priced earlier.
    async fn open(
        &self,
        connection: &mut PgConnection,
        facts: &Facts<'_>,
    ) -> Result<Open, sqlx::Error> {
        let mut open = Open::default();
        let ids = priced_before(facts);
        if ids.is_empty() {
            return Ok(open);
        }
        let sales = self.load(connection, &ids).await?;
        open.sales = sales.into_iter().map(|sale| (sale.order_id, Some(sale))).collect();
        Ok(open)
    }

    /// The orders among these that have a row.
    pub(super) async fn load(
        &self,
        connection: &mut PgConnection,
        orders: &[Uuid],
    ) -> Result<Vec<Sale>, sqlx::Error> {
        let load = sqlx::query_as(AssertSqlSafe(Arc::clone(&self.load)));
        load.bind(orders).fetch_all(connection).await
    }

    /// Deletes the rows of orders.
    pub(super) async fn delete(
        &self,
        connection: &mut PgConnection,
        orders: &[Uuid],
    ) -> Result<(), sqlx::Error> {
        if !orders.is_empty() {
            let delete = sqlx::query(AssertSqlSafe(Arc::clone(&self.delete)));
            delete.bind(orders).execute(connection).await?;
        }
        Ok(())
    }

    /// The statement that copies rows of orders which have none.
    pub(super) fn copy(&self) -> &str {
        &self.copy
    }

    async fn write_orders(
        &self,
        connection: &mut PgConnection,
        open: &Open,
    ) -> Result<(), sqlx::Error> {
        let changed: Vec<Uuid> = open.changed.iter().copied().collect();
        self.delete(connection, &changed).await?;
        let sales: Vec<&Sale> =
            changed.iter().filter_map(|id| open.sales.get(id)?.as_ref()).collect();
        if sales.is_empty() {
            return Ok(());
        }
        sqlx::query(AssertSqlSafe(Arc::clone(&self.insert)))
            .bind(sales.iter().map(|sale| sale.order_id).collect::<Vec<_>>())
            .bind(sales.iter().map(|sale| sale.partition).collect::<Vec<_>>())
            .bind(sales.iter().map(|sale| sale.bucket).collect::<Vec<_>>())
            .bind(sales.iter().map(|sale| sale.currency.as_str()).collect::<Vec<_>>())
            .bind(sales.iter().map(|sale| sale.revenue).collect::<Vec<_>>())
            .bind(sales.iter().map(|sale| sale.discounts).collect::<Vec<_>>())
            .bind(sales.iter().map(|sale| sale.lines_text()).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Adds to the sums in the tables.
    pub(super) async fn add(
        &self,
        connection: &mut PgConnection,
        sums: &Sums,
    ) -> Result<(), sqlx::Error> {
        if sums.money.is_empty() {
            return Ok(());
        }
        let keys = || sums.money.keys();
        let values = || sums.money.values();
        sqlx::query(AssertSqlSafe(Arc::clone(&self.add)))
            .bind(keys().map(|(bucket, ..)| *bucket).collect::<Vec<_>>())
            .bind(keys().map(|(_, partition, _)| *partition).collect::<Vec<_>>())
            .bind(keys().map(|(.., currency)| currency.as_str()).collect::<Vec<_>>())
            .bind(values().map(|(orders, ..)| *orders).collect::<Vec<_>>())
            .bind(values().map(|(_, revenue, _)| revenue.to_string()).collect::<Vec<_>>())
            .bind(values().map(|(.., discounts)| discounts.to_string()).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
        let keys = || sums.units.keys();
        sqlx::query(AssertSqlSafe(Arc::clone(&self.add_units)))
            .bind(keys().map(|(bucket, ..)| *bucket).collect::<Vec<_>>())
            .bind(keys().map(|(.., partition)| *partition).collect::<Vec<_>>())
            .bind(keys().map(|(_, product_id, _)| *product_id).collect::<Vec<_>>())
            .bind(sums.units.values().map(ToString::to_string).collect::<Vec<_>>())
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// The orders that these facts change without having priced them first.
fn priced_before(facts: &Facts<'_>) -> Vec<Uuid> {
    let mut seen: FxHashMap<Uuid, bool> = FxHashMap::default();
    for fact in facts.iter().filter(|fact| fact.record.stream.kind == StreamKind::Order) {
        let Event::Order(event) = &fact.event else { continue };
        let before = matches!(
            event,
            order::Event::Confirmed(_)
                | order::Event::Cancelled(_)
                | order::Event::Shipped(_)
                | order::Event::Rejected(_)
        );
        if before || matches!(event, order::Event::Priced(_)) {
            seen.entry(fact.record.stream.id).or_insert(before);
        }
    }
    let ids = seen.into_iter().filter_map(|(id, before)| before.then_some(id));
    let mut ids: Vec<_> = ids.collect();
    ids.sort_unstable();
    ids
}
