//! The stranger: a client of the HTTP interface that means harm and stays below every limit, and
//! what good clients notice of it.
//!
//! | module | holds |
//! |---|---|
//! | [`args`] | the command line |
//! | [`act`] | what the stranger does |
//! | [`shop`] | the shop and its good clients |
//! | [`phase`] | the phases of a run, and what is measured in each |
//! | [`tally`] | what the stranger was told |
//! | [`report`] | the table and the verdict |

pub mod act;
pub mod args;
pub mod phase;
pub mod report;
pub mod shop;
pub mod tally;

pub use args::Args;

use crate::program::Program;
use act::{Act, Stranger};
use anyhow::{Result, ensure};
use clap::ValueEnum;
use phase::{Plan, Stage};
use report::{HEAD, Verdict};
use shop::Shop;
use std::{sync::Arc, time::Duration};
use tally::Tally;

/// How long the good clients trade before anything is measured.
const WARM_UP: Duration = Duration::from_secs(10);

/// Runs the program with its default limits, and the stranger against it. Prints the table and the
/// verdict.
///
/// # Errors
/// When the program ends, or was not ready at some time.
pub async fn run(args: &Args) -> Result<()> {
    let mut stage = prepare(args).await?;
    let verdict = tokio::select! {
        verdict = measure(args, &mut stage) => verdict,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    if stage.program.ended()?.is_none() {
        stage.program.stop().await?;
    }
    ensure!(verdict?.always_ready, "the program was not ready at some time");
    Ok(())
}

async fn prepare(args: &Args) -> Result<Stage> {
    let program = Program::start(args.program.as_deref(), &[]).await?;
    let shop = Arc::new(Shop::fill(&program, args).await?);
    let tokens = [
        program.sign("customer", shop.customer()?).await?,
        program.sign("staff", "employee").await?,
    ];
    // The program makes it when it is asked for the first time, which is no act of the stranger.
    shop.document().await?;
    let cursors = [shop.cursor("products").await?, shop.cursor("orders").await?];
    let tally = Tally::default();
    let stranger = Stranger::new(program.address, tokens, cursors, tally.clone())?;
    Ok(Stage { program, shop, stranger: Arc::new(stranger), tally })
}

async fn measure(args: &Args, stage: &mut Stage) -> Result<Verdict> {
    let acts = if args.only.is_empty() { Act::value_variants() } else { &args.only };
    let warm_up = Plan { what: String::new(), acts: Vec::new(), length: WARM_UP };
    stage.run(args, &warm_up).await?;
    println!("{HEAD}");
    let mut phases = Vec::new();
    for plan in Plan::of(Duration::from_secs(args.seconds), acts) {
        let phase = stage.run(args, &plan).await?;
        println!("{}", phase.markdown());
        phases.push(phase);
    }
    let last = stage.state().await?;
    let verdict = Verdict::on(&phases, &stage.tally.counts(), &last)?;
    println!();
    verdict.lines.iter().for_each(|line| println!("{line}"));
    Ok(verdict)
}
