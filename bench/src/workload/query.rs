//! `query`: reads of orders, products and lists of orders.

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

/// A tenth of them is in the log, about, unless told otherwise.
const EVENTS: u64 = 200_000;

/// Orders in a list.
const PAGE: u32 = 20;

/// Measures reads, of a shop with some orders.
///
/// # Errors
/// When a read fails, or finds nothing.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let events = args.events.unwrap_or(EVENTS) / 10;
    let measured = match args.over {
        Over::Process => through_functions(args, place, events).await?,
        Over::Http => over_http(args, place, events).await?,
    };
    Ok(vec![Line {
        what: "query".to_owned(),
        on: name(place.kind()),
        over: name(args.over),
        clients: Some(usize::from(args.clients)),
        unit: "queries",
        per_second: measured.per_second(),
        measured,
        floor: None,
    }])
}

/// Measures what a caller who holds an order or product saves, and what could be saved at most.
///
/// # Errors
/// When a read is not answered as it must be.
pub async fn run_held(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let (program, known) = over_http_with(args, place, args.events.unwrap_or(EVENTS) / 10).await?;
    let mut lines = Vec::new();
    for how in [How::Whole, How::Held, How::Nothing] {
        let known = Arc::clone(&known);
        let step = move |_| {
            let known = Arc::clone(&known);
            async move { known.get_one(how).await }
        };
        let measured = closed_loop(args.load(), async || Ok(Appended::default()), step).await?;
        lines.push(Line {
            what: format!("held: {}", how.as_str()),
            on: name(place.kind()),
            over: name(Over::Http),
            clients: Some(usize::from(args.clients)),
            unit: "queries",
            per_second: measured.per_second(),
            measured,
            floor: None,
        });
    }
    program.stop().await;
    Ok(lines)
}

/// How one thing is read.
#[derive(Clone, Copy)]
enum How {
    Whole,
    Held,
    Nothing,
}

impl How {
    fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Held => "304",
            Self::Nothing => "no read model asked",
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

/// The whole program, with so many events of orders.
async fn over_http_with(args: &Args, place: &Place, events: u64) -> Result<(Program, Arc<Known>)> {
    let program = Program::start(place).await?;
    let shop = Arc::new(program.shop(args, &place.environment).await?);
    let before = program.appended();
    let orders = place_orders(&shop, events, || program.appended().since(before).events).await?;
    let reads = program.running().app().reads.clone().context("the program answers no queries")?;
    caught_up(&reads, place.partitions()).await?;
    Ok((program, Arc::new(Known { shop, orders })))
}

/// What can be asked for and is there.
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

    /// Asks for something.
    ///
    /// # Errors
    /// When it is not found.
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
        ensure!(found, "what was put in is not found");
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
            How::Held => http.get_held(&path).await,
            How::Nothing => http.get_nothing().await,
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
