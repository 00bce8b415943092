//! `query` and `held`: reads of orders, products and lists of orders.

use super::{
    reading::{Filled, ReadSide, caught_up, place_orders},
    system::Program,
};
use crate::{
    args::{Args, Over, name},
    measure::{Measured, closed_loop},
    observed::Appended,
    place::Place,
    report::Line,
    shop::Shop,
};
use anyhow::{Context, Result, ensure};
use projections::{ReadModels, orders};
use std::sync::Arc;
use uuid::Uuid;

/// The log has about a tenth of this number of events, by default.
const EVENTS: u64 = 200_000;

/// Orders per page.
const PAGE: u32 = 20;

/// Measures reads of a shop with some orders.
///
/// # Errors
/// When a read fails or finds nothing.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let events = args.events.unwrap_or(EVENTS) / 10;
    let measured = match args.over {
        Over::Process => through_functions(args, place, events).await?,
        Over::Http => over_http(args, place, events).await?,
    };
    let line = Line::new("query", name(place.kind()), "queries", measured);
    Ok(vec![line.of_clients(args.over, args.clients)])
}

/// Measures what a conditional read saves for a client that has the current version, and the most
/// that could be saved: a request that asks no read model.
///
/// # Errors
/// When a read gets an unexpected answer.
pub async fn run_held(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let (program, known) = over_http_with(args, place, args.events.unwrap_or(EVENTS) / 10).await?;
    let mut lines = Vec::new();
    for how in [How::Whole, How::NotModified, How::Missing] {
        let known = Arc::clone(&known);
        let step = move |_| {
            let known = Arc::clone(&known);
            async move { known.get_one(how).await }
        };
        let measured = closed_loop(args.load(), async || Ok(Appended::default()), step).await?;
        let what = format!("held: {}", how.as_str());
        let line = Line::new(what, name(place.kind()), "queries", measured);
        lines.push(line.of_clients(Over::Http, args.clients));
    }
    program.stop().await;
    Ok(lines)
}

/// How a single order or product is read.
#[derive(Clone, Copy)]
enum How {
    Whole,
    NotModified,
    Missing,
}

impl How {
    fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::NotModified => "304",
            Self::Missing => "no read model asked",
        }
    }
}

async fn through_functions(args: &Args, place: &Place, events: u64) -> Result<Measured> {
    let Filled { log, shop, orders } = Filled::make(args, place, events).await?;
    let side = ReadSide::start(place, &log.log).await?;
    side.caught_up().await?;
    let known = Arc::new(Known { shop, orders });
    let reads = side.reads.clone();
    let step = move |_| {
        let (reads, known) = (reads.clone(), Arc::clone(&known));
        async move { known.ask(&reads).await }
    };
    let measured = closed_loop(args.load(), async || Ok(Appended::default()), step).await?;
    side.stop().await;
    log.close().await;
    Ok(measured)
}

async fn over_http(args: &Args, place: &Place, events: u64) -> Result<Measured> {
    let (program, known) = over_http_with(args, place, events).await?;
    let step = move |_| {
        let known = Arc::clone(&known);
        async move { known.get().await }
    };
    let measured = closed_loop(args.load(), async || Ok(Appended::default()), step).await?;
    program.stop().await;
    Ok(measured)
}

/// Starts the whole program, with about `events` events of orders.
async fn over_http_with(args: &Args, place: &Place, events: u64) -> Result<(Program, Arc<Known>)> {
    let program = Program::start(place).await?;
    let shop = Arc::new(program.shop(args, &place.environment).await?);
    let before = program.appended();
    let orders = place_orders(&shop, events, || program.appended().since(before).events).await?;
    let reads = program.running().app().reads.clone().context("the program answers no queries")?;
    caught_up(&reads, place.partitions()).await?;
    Ok((program, Arc::new(Known { shop, orders })))
}

/// The orders and products that exist.
pub struct Known {
    /// The shop.
    pub shop: Arc<Shop>,
    /// Its orders.
    pub orders: Vec<Uuid>,
}

impl Known {
    fn order(&self) -> Uuid {
        self.orders[self.shop.roll(self.orders.len())]
    }

    /// Reads a random order, product or list.
    ///
    /// # Errors
    /// When the order or product is not found.
    pub async fn ask(&self, reads: &ReadModels) -> Result<()> {
        let found = match self.shop.roll(6) {
            0..3 => reads.order(self.order(), None).await?.is_some(),
            3..5 => reads.product(self.shop.any_product()).await?.is_some(),
            _ => {
                let customer_id = Some(self.shop.any_customer());
                let filter = orders::Filter { customer_id, ..orders::Filter::default() };
                // A customer may have no order yet.
                reads.orders(&filter, None, PAGE).await?;
                true
            }
        };
        ensure!(found, "an existing order or product was not found");
        Ok(())
    }

    async fn get_one(&self, how: How) -> Result<()> {
        let path = match self.shop.roll(5) {
            0..3 => format!("/orders/{}", self.order()),
            _ => format!("/products/{}", self.shop.any_product()),
        };
        let http = self.shop.http().context("not over HTTP")?;
        match how {
            How::Whole => http.get(&path).await.map(drop),
            How::NotModified => http.get_not_modified(&path).await,
            How::Missing => http.get_missing().await,
        }
    }

    async fn get(&self) -> Result<()> {
        let path = match self.shop.roll(6) {
            0..3 => format!("/orders/{}", self.order()),
            3..5 => format!("/products/{}", self.shop.any_product()),
            _ => format!("/customers/{}/orders?limit={PAGE}", self.shop.any_customer()),
        };
        self.shop.http().context("not over HTTP")?.get(&path).await?;
        Ok(())
    }
}
