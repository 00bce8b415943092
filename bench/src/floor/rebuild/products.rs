//! Folds the events of products to one row per product.

use super::{CopyRows, Fold, file::Stored};
use anyhow::Result;
use events::{
    Event, Money, Timestamp,
    product::{Changed, Event as E},
};
use rustc_hash::FxHashMap;
use uuid::Uuid;

/// The products by id.
#[derive(Default)]
pub struct Products(FxHashMap<Uuid, Product>);

struct Product {
    partition: i32,
    version: i64,
    shown_version: i64,
    listed: bool,
    described: Option<Changed>,
    on_hand: i64,
    reserved: i64,
    shipped: i64,
    discontinued: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Fold for Products {
    fn take(&mut self, stored: &Stored<'_>, event: Event) -> Result<Option<Event>> {
        let Event::Product(event) = event else { return Ok(Some(event)) };
        let product = self.0.entry(stored.stream.id).or_insert_with(|| Product::new(stored));
        product.version = stored.version;
        if !event.is_bookkeeping() {
            (product.shown_version, product.updated_at) = (stored.version, stored.time);
        }
        product.apply(event);
        Ok(None)
    }

    fn rows(&mut self, row: &mut CopyRows) -> Result<u64> {
        for (id, product) in &self.0 {
            product.row(*id, row);
        }
        Ok(self.0.len() as u64)
    }
}

impl Product {
    fn new(stored: &Stored<'_>) -> Self {
        Self {
            partition: stored.partition,
            version: 0,
            shown_version: 0,
            listed: false,
            described: None,
            on_hand: 0,
            reserved: 0,
            shipped: 0,
            discontinued: false,
            created_at: stored.time,
            updated_at: stored.time,
        }
    }

    fn apply(&mut self, event: E) {
        match event {
            E::Added(it) => {
                (self.listed, self.on_hand) = (true, it.initial_stock);
                let (name, description, category) = (it.name, it.description, it.category);
                self.described = Some(Changed { name, description, category, price: it.price });
            }
            E::Changed(changed) => self.described = Some(changed),
            E::StockChanged(changed) => self.on_hand += changed.quantity,
            E::StockReserved(reserved) => self.reserved += reserved.quantity,
            E::StockReleased(released) => self.reserved -= released.quantity,
            E::StockShipped(shipped) => {
                self.reserved -= shipped.quantity;
                self.on_hand -= shipped.quantity;
                self.shipped += shipped.quantity;
            }
            E::Discontinued(_) => self.discontinued = true,
        }
    }

    /// Appends the row, with the columns in the order of the table.
    fn row(&self, id: Uuid, row: &mut CopyRows) {
        let described = self.described.as_ref();
        let price: Option<Money> = described.map(|it| it.price);
        let text = |text: Option<&str>, row: &mut CopyRows| row.optional(text.map(str::as_bytes));
        row.begin(16);
        row.put(id.as_bytes());
        row.put(&self.partition.to_be_bytes());
        row.int(self.version);
        row.int(self.shown_version);
        row.put(&[u8::from(self.listed)]);
        row.put(described.map_or("", |it| &it.name).as_bytes());
        text(described.and_then(|it| it.description.as_deref()), row);
        text(described.and_then(|it| it.category.as_deref()), row);
        row.int(price.map_or(0, |price| price.amount));
        row.put(price.as_ref().map_or("", |price| price.currency.code()).as_bytes());
        row.int(self.on_hand);
        row.int(self.reserved);
        row.int(self.shipped);
        row.put(&[u8::from(self.discontinued)]);
        row.time(self.created_at);
        row.time(self.updated_at);
    }
}
