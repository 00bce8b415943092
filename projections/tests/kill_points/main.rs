//! Kills, disconnects, delays and duplicates the processes that feed the read models, at any
//! message to a real `PostgreSQL`, which itself crashes and restarts. The rows must always be the
//! fold of the log up to the checkpoint.
//!
//! A seed decides a run. `KILL_POINTS_SEED=7` runs one seed, `KILL_POINTS_SEEDS=1000` that many.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "tests drive real time and count small things"
)]

mod check;
mod cluster;
#[path = "../read_side/doctored.rs"]
#[allow(dead_code, reason = "shared")]
mod doctored;
mod faults;
mod fold;
mod process;
mod proxy;
mod rebuilds;
mod restarts;
mod run;
#[path = "../read_side/shop.rs"]
#[allow(dead_code, reason = "shared")]
mod shop;
mod sweep;
mod wire;

use cluster::Cluster;
use faults::Tally;
use projections::{Planted, ReadModel};
use run::Run;
use std::{env, time::Duration};

const PATIENCE: Duration = Duration::from_secs(30);

/// The number of seeds by default.
const SEEDS: u64 = 4;

/// The number of seeds within which a planted bug must be found.
const SEEDS_PLANTED: u64 = 40;

/// A bound of a plain run, which ends within a minute or two, and that of a long run.
fn plain_or_long(plain: u32, long: u32) -> u32 {
    if number("KILL_POINTS_SEEDS").is_some() { long } else { plain }
}

/// A plain run takes one message in so many; a long run takes every one.
fn stride(plain: u32) -> u32 {
    plain_or_long(plain, 1)
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_the_fold_of_the_log_at_the_checkpoint_wherever_it_is_killed() {
    let mut cluster = Cluster::start().await;
    let seeds = match number("KILL_POINTS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KILL_POINTS_SEEDS").unwrap_or(SEEDS),
    };
    let begun = std::time::Instant::now();
    let mut tally = Tally::default();
    for seed in seeds {
        let run = Run::new(seed, Planted::Nothing, &mut cluster).await;
        match run.whole(seed).await {
            Ok(of_seed) => {
                println!("seed {seed}: {} faults, at {:?}", of_seed.faults(), begun.elapsed());
                tally += of_seed;
            }
            Err(violation) => panic!(
                "{violation}\nagain: KILL_POINTS_SEED={seed} cargo test --test \
                 kill_points wherever"
            ),
        }
    }
    println!("{tally}\nin {:?}", begun.elapsed());
}

/// The number of messages of a projector to try: those of its start, and then the same ones
/// repeatedly.
fn messages() -> u32 {
    plain_or_long(60, 200)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_killed_at_each_message_in_turn_is_continued_by_the_next() {
    let mut cluster = Cluster::start().await;
    let begun = std::time::Instant::now();
    let tally = Run::new(1, Planted::Nothing, &mut cluster).await.sweep_projector(messages()).await;
    println!(
        "{}\nin {:?}",
        tally.unwrap_or_else(|violation| panic!("{violation}")),
        begun.elapsed()
    );
}

/// Some events are poison, so the kills also hit messages of parking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_killed_at_each_message_beside_poison_is_continued_by_the_next() {
    let mut cluster = Cluster::start().await;
    let mut run = Run::new(3, Planted::Nothing, &mut cluster).await;
    run.poison();
    let tally = run.sweep_projector(messages()).await;
    println!("{}", tally.unwrap_or_else(|violation| panic!("{violation}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_that_is_killed_at_each_message_in_turn_can_be_done_again() {
    let mut cluster = Cluster::start().await;
    let run = Run::new(4, Planted::Nothing, &mut cluster).await;
    let tally = run.sweep_retry(stride(8)).await;
    println!("{}", tally.unwrap_or_else(|violation| panic!("{violation}")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_killed_at_each_message_in_turn_may_try_again() {
    let mut cluster = Cluster::start().await;
    let begun = std::time::Instant::now();
    let run = Run::new(2, Planted::Nothing, &mut cluster).await;
    let tally = run.sweep_operator(ReadModel::Products, stride(12)).await;
    println!(
        "{}\nin {:?}",
        tally.unwrap_or_else(|violation| panic!("{violation}")),
        begun.elapsed()
    );
}

/// The number of kills of a rebuilding projector, each at a message that the seed decides.
fn kills() -> u32 {
    plain_or_long(12, 50).max(number("KILL_POINTS_SEEDS").unwrap_or(0) as u32)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_killed_at_any_message_ends_with_the_rows_that_serve() {
    let mut cluster = Cluster::start().await;
    let (seed, begun) = (number("KILL_POINTS_SEED").unwrap_or(3), std::time::Instant::now());
    let run = Run::new(seed, Planted::Nothing, &mut cluster).await;
    match run.killed_rebuilds(seed, kills()).await {
        Ok(tally) => println!("{tally}\nin {:?}", begun.elapsed()),
        Err(violation) => panic!(
            "{violation}\nagain: KILL_POINTS_SEED={seed} cargo test --test \
             kill_points rebuild"
        ),
    }
}

async fn is_found(planted: Planted) {
    let mut cluster = Cluster::start().await;
    for seed in 0..SEEDS_PLANTED {
        let run = Run::new(seed, planted, &mut cluster).await;
        if let Err(violation) = run.whole(seed).await {
            println!("{planted:?} is found by seed {seed}: {violation}");
            return;
        }
    }
    panic!("{planted:?} was not found within {SEEDS_PLANTED} seeds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unconditional_checkpoint_is_found() {
    is_found(Planted::UnconditionalCheckpoint).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_committed_before_the_rows_is_found() {
    is_found(Planted::CheckpointFirst).await;
}
