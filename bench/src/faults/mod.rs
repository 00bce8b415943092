//! Real faults: the real program on a real broker and a real database, all of them killed, paused and cut off while many
//! clients send commands; then the whole history is checked.
//!
//! | module | holds |
//! |---|---|
//! | `args` | the command line |
//! | `world` | what runs: `servers` (broker and database), `process` (the program), each behind a `proxy` |
//! | `traffic`, `history` | the clients; what they asked and were told |
//! | `nemesis` | what goes wrong, and when |
//! | `check` | the judge: reads the log and the read models by other code than the program's |
//!
//! The seed decides what is sent and which faults come, not how the machine schedules them: a run is like another of the
//! same seed, and not its copy.

mod args;
mod check;
mod history;
mod nemesis;
mod process;
mod proxy;
mod servers;
mod traffic;
mod verdict;
mod world;

pub use args::{Args, LogKind};

use anyhow::{Result, bail, ensure};
use fastrand::Rng;
use nemesis::{Fault, Nemesis};
use std::{
    collections::BTreeMap, fs::Permissions, os::unix::fs::PermissionsExt, path::Path, sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use world::World;

/// A shop of this size.
const PRODUCTS: usize = 60;
const CUSTOMERS: usize = 150;

/// Everything that was under way has come to its end within this after the last fault.
const DRAIN: Duration = Duration::from_secs(200);

/// The seed of a run that names none.
fn any_seed() -> u64 {
    Rng::new().u64(..1_000_000)
}

/// Runs it, prints the figures, and fails when anything was found.
///
/// # Errors
/// When the world does not come up, or does something it must not do.
pub async fn run(args: Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(any_seed);
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new()
        .prefix("orderlog-faults-")
        // The database's own account has to get through.
        .permissions(Permissions::from_mode(0o711))
        .disable_cleanup(true)
        .tempdir_in(base)?;
    let dir = folder.path();
    println!("seed {seed}, {:?} log, {} clients, in {}", args.log, args.clients, dir.display());
    let run = async {
        tokio::select! {
            ran = run_in(&args, seed, dir) => ran,
            // Whatever runs is ended with the run.
            signal = interrupted() => bail!("ended by {}", signal?),
        }
    };
    match run.await {
        Ok(()) if args.keep => Ok(()),
        Ok(()) => Ok(std::fs::remove_dir_all(dir)?),
        Err(error) => bail!("seed {seed}: {error:#}; what is left is in {}", dir.display()),
    }
}

/// A request to end, which would leave servers behind if it ended this process at once.
async fn interrupted() -> Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::select! {
        done = tokio::signal::ctrl_c() => done.map(|()| "SIGINT")?,
        _ = terminate.recv() => "SIGTERM",
    })
}

async fn run_in(args: &Args, seed: u64, dir: &Path) -> Result<()> {
    let kinds = kinds(args)?;
    let mut world = World::start(args, seed, dir).await?;
    world.say("everything runs");
    world.traffic.fill(PRODUCTS, CUSTOMERS).await?;
    world.say("the shop is filled");
    let (stop, until) = watch::channel(false);
    let mut clients = JoinSet::new();
    for nth in 0..u64::from(args.clients) {
        clients.spawn(Arc::clone(&world.traffic).client(nth, until.clone()));
    }
    let struck = strike(args, seed, kinds, &mut world).await?;
    let healed = Instant::now();
    stop.send_replace(true);
    while clients.join_next().await.is_some() {}
    world.say("all clients have ended");
    let drained = verdict::drain(&mut world, healed + DRAIN).await;
    let took = healed.elapsed();
    world.say(&format!("drained in {:.1} s", took.as_secs_f64()));
    let verdict = verdict::judge(args, seed, &mut world, drained).await?;
    verdict.print(seed, &struck, took);
    ensure!(verdict.violations.found.is_empty(), "{} violations", verdict.violations.found.len());
    Ok(())
}

fn kinds(args: &Args) -> Result<Vec<Fault>> {
    let all = Fault::all(args.log);
    for name in &args.only {
        ensure!(
            all.iter().any(|kind| kind.to_string() == *name),
            "there is no fault {name}: {all:?}"
        );
    }
    let wanted = |kind: &Fault| args.only.is_empty() || args.only.contains(&kind.to_string());
    Ok(all.into_iter().filter(wanted).collect())
}

/// Faults, until time and commands are enough; how many of each.
async fn strike(
    args: &Args,
    seed: u64,
    kinds: Vec<Fault>,
    world: &mut World,
) -> Result<BTreeMap<Fault, usize>> {
    let end = Instant::now() + args.lasts();
    let mut nemesis = Nemesis::new(seed, kinds);
    let mut struck = BTreeMap::new();
    sleep(Duration::from_secs(5)).await;
    while Instant::now() < end || world.traffic.sent() < args.commands {
        if let Some(fault) = nemesis.strike(world).await? {
            *struck.entry(fault).or_default() += 1;
        }
        world.revive().await?;
        world.ready().await?;
    }
    Ok(struck)
}
