//! `append`, `hot`, `order`, `hot-order`: commands, and the floor of the log below them.

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

/// Measures a workload of commands, then the floor below it with batches of as many rows as there
/// are clients: the largest that closed loops can make.
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
    let line = Line {
        what: args.workload.map(name).unwrap_or_default(),
        on: name(place.kind()),
        over: name(args.over),
        clients: Some(usize::from(args.clients)),
        unit: unit(args.workload),
        per_second: measured.per_second(),
        measured,
        floor: floor.as_ref().map(|floor| floor.per_second),
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

/// The floor of the log that `place` has; `None` for the log in memory.
async fn floor_line(args: &Args, place: &Place, rows: Rows) -> Result<Option<Line>> {
    match place.kind() {
        LogKind::Embedded => embedded_floor(args, place, rows).await.map(Some),
        LogKind::Kafka => kafka_floor(args, rows).await.map(Some),
        LogKind::Memory => Ok(None),
    }
}

/// Raw `SQLite`.
///
/// # Errors
/// When it fails.
pub async fn embedded_floor(args: &Args, place: &Place, rows: Rows) -> Result<Line> {
    let measured = floor::embedded::run(place.folder(), rows, floor_duration(args)).await?;
    Ok(raw("floor-embedded", "raw sqlite", rows, measured))
}

/// Raw Kafka transactions.
///
/// # Errors
/// When Kafka fails, or is not named.
pub async fn kafka_floor(args: &Args, rows: Rows) -> Result<Line> {
    let servers = args.kafka.as_deref().ok_or_else(|| anyhow::anyhow!("--kafka is not given"))?;
    let topic = format!("orderlog.bench.floor.{}", Uuid::now_v7());
    let measured = floor::kafka::run(servers, &topic, rows, floor_duration(args)).await?;
    Ok(raw("floor-kafka", "raw rdkafka, one lane", rows, measured))
}

fn raw(what: &str, on: &str, rows: Rows, measured: Measured) -> Line {
    Line {
        what: format!("{what}, batches of {}", rows.batch),
        on: on.to_owned(),
        over: "-".to_owned(),
        clients: None,
        unit: "rows",
        per_second: measured.events_per_second(),
        measured,
        floor: None,
    }
}
