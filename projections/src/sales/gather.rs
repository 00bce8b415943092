//! Gathers sales in memory, to write them in bulk.

use super::apply::{Open, Sale, Sales};
use crate::{
    copy::Copying,
    facts::sql_partition,
    projection::ApplyError,
    rebuild::gather::{Gather, Needs},
};
use async_trait::async_trait;
use events::{
    Event, Position, StreamKind,
    log::{Record, StoredBatch},
};
use rustc_hash::FxHashSet;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// Columns of a row of `sales_order`.
const COLUMNS: usize = 7;

/// About how many bytes of memory a row of the sums takes.
const SUM_BYTES: usize = 96;

/// The sums and open orders of a partition.
pub(super) struct GatheredSales {
    tables: Sales,
    open: Open,
    /// Orders that were looked up in the table.
    recalled: FxHashSet<Uuid>,
    /// Bytes of the lines of orders.
    lines: usize,
}

impl GatheredSales {
    pub fn new(tables: Sales) -> Self {
        Self { tables, open: Open::default(), recalled: FxHashSet::default(), lines: 0 }
    }
}

#[async_trait]
impl Gather for GatheredSales {
    fn needs(&self, kind: StreamKind) -> Needs {
        if kind == StreamKind::Order { Needs::Event } else { Needs::Nothing }
    }

    fn take(
        &mut self,
        at: Position,
        record: &Record,
        event: Option<&Event>,
    ) -> Result<(), ApplyError> {
        if let Some(Event::Order(event)) = event {
            if let events::order::Event::Priced(priced) = event {
                self.lines += priced.lines.len() * size_of::<(Uuid, i64)>();
            }
            let partition = sql_partition(at.partition);
            self.open.take(record.stream.id, partition, record.time, event);
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let Open { sales, changed, sums } = &self.open;
        sales.capacity() * size_of::<(Uuid, Option<Sale>)>()
            + (changed.len() + self.recalled.len()) * 2 * size_of::<Uuid>()
            + (sums.money.len() + sums.units.len()) * SUM_BYTES
            + self.lines
    }

    async fn write(&self, connection: &mut PgConnection) -> Result<(), ApplyError> {
        let (tables, Open { sales, changed, sums }) = (&self.tables, &self.open);
        let old = changed.iter().filter(|id| self.recalled.contains(id)).copied();
        tables.delete(connection, &old.collect::<Vec<_>>()).await?;
        let mut copying = Copying::begin(connection, tables.copy()).await?;
        for sale in changed.iter().filter_map(|id| sales.get(id)?.as_ref()) {
            let rows = &mut copying.rows;
            rows.begin(COLUMNS);
            rows.put(sale.order_id.as_bytes());
            rows.put(&sale.partition.to_be_bytes());
            match sale.bucket {
                Some(bucket) => rows.time(bucket),
                None => rows.null(),
            }
            rows.put(sale.currency.as_bytes());
            rows.put(&sale.revenue.to_be_bytes());
            rows.put(&sale.discounts.to_be_bytes());
            rows.put(sale.lines_text().as_bytes());
            copying.pass_on().await?;
        }
        copying.finish().await?;
        tables.add(connection, sums).await?;
        Ok(())
    }

    fn clear(&mut self) {
        *self = Self::new(self.tables.clone());
    }

    fn recalls(&self) -> bool {
        true
    }

    fn missing(&self, batches: &[StoredBatch]) -> Vec<Uuid> {
        let records = batches.iter().flat_map(|batch| &batch.records).map(|stored| &stored.record);
        let begun = records.filter(|record| {
            let (stream, version) = (record.stream, record.metadata.version);
            stream.kind == StreamKind::Order
                && version > 1
                && !self.open.sales.contains_key(&stream.id)
                && !self.recalled.contains(&stream.id)
        });
        let missing: FxHashSet<Uuid> = begun.map(|record| record.stream.id).collect();
        let mut missing: Vec<Uuid> = missing.into_iter().collect();
        missing.sort_unstable();
        missing
    }

    async fn recall(&mut self, pool: &PgPool, streams: &[Uuid]) -> Result<(), ApplyError> {
        let mut connection = pool.acquire().await?;
        let sales = self.tables.load(&mut connection, streams).await?;
        self.recalled.extend(streams);
        self.open.sales.extend(sales.into_iter().map(|sale| (sale.order_id, Some(sale))));
        Ok(())
    }
}
