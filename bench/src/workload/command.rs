//! `append`, `hot`, `order`, `hot-order`: commands, and the floor of the log.

use super::{floor_duration, system::System};
use crate::{
    args::{Args, LogKind, Workload, name},
    floor::{self, Rows},
    measure::{Load, Measured, closed_loop},
    place::Place,
    report::Line,
    shop::Shop,
};
use anyhow::Result;
use std::sync::Arc;
use uuid::Uuid;

/// Measures a workload of commands, then the floor with one row per client in a batch, which is the
/// largest batch that closed loops can produce.
///
/// # Errors
/// When anything fails.
pub async fn run(args: &Args, place: &Place) -> Result<Vec<Line>> {
    let system = System::start(args, place).await?;
    let shop = Arc::new(system.shop(args, &place.environment).await?);
    let measured = measure(args.workload, args.load(), &system, shop).await?;
    system.stop().await;

    let body_bytes = match measured.appended.mean_body() {
        0 => Rows::PLAIN_BODY,
        observed => observed,
    };
    let rows = Rows { batch: usize::from(args.clients), body_bytes };
    let floor = if args.no_floor { None } else { floor_line(args, place, rows).await? };
    let what = args.workload.map(name).unwrap_or_default();
    let line = Line::new(what, name(place.kind()), unit(args.workload), measured);
    let line = Line {
        floor: floor.as_ref().map(|floor| floor.per_second),
        ..line.of_clients(args.over, args.clients)
    };
    Ok([Some(line), floor].into_iter().flatten().collect())
}

fn unit(workload: Option<Workload>) -> &'static str {
    match workload {
        Some(Workload::Order | Workload::HotOrder) => "orders",
        _ => "commands",
    }
}

async fn measure(
    workload: Option<Workload>,
    load: Load,
    system: &System,
    shop: Arc<Shop>,
) -> Result<Measured> {
    let appended = async || Ok(system.appended());
    closed_loop(load, appended, move |_| {
        let shop = Arc::clone(&shop);
        async move {
            match workload {
                Some(Workload::Hot) => shop.change_stock(shop.hot_product()).await,
                Some(Workload::Order) => shop.order(&shop.two_products()).await.map(drop),
                Some(Workload::HotOrder) => shop.order(&[shop.hot_product()]).await.map(drop),
                _ => shop.change_stock(shop.any_product()).await,
            }
        }
    })
    .await
}

/// Measures the floor of the log in `place`; `None` for the log in memory.
async fn floor_line(args: &Args, place: &Place, rows: Rows) -> Result<Option<Line>> {
    match place.kind() {
        LogKind::Embedded => embedded_floor(args, place, rows).await.map(Some),
        LogKind::Kafka => kafka_floor(args, rows).await.map(Some),
        LogKind::Memory => Ok(None),
    }
}

/// Measures raw `SQLite`.
///
/// # Errors
/// When `SQLite` fails.
pub async fn embedded_floor(args: &Args, place: &Place, rows: Rows) -> Result<Line> {
    let measured = floor::embedded::run(place.folder(), rows, floor_duration(args)).await?;
    Ok(Line::raw(batches("floor-embedded", rows), "raw sqlite", measured))
}

/// Measures raw Kafka transactions.
///
/// # Errors
/// When Kafka fails or no address is given.
pub async fn kafka_floor(args: &Args, rows: Rows) -> Result<Line> {
    let servers = args
        .kafka
        .as_deref()
        .ok_or_else(|| anyhow::anyhow!("floor-kafka needs --kafka HOST:PORT"))?;
    let topic = format!("orderlog.bench.floor.{}", Uuid::now_v7());
    let measured = floor::kafka::run(servers, &topic, rows, floor_duration(args)).await?;
    Ok(Line::raw(batches("floor-kafka", rows), "raw rdkafka, one lane", measured))
}

fn batches(what: &str, rows: Rows) -> String {
    format!("{what}, batches of {}", rows.batch)
}
