//! The fault harness. It runs the real program on a real broker and a real database, and kills,
//! pauses and disconnects them while many clients send commands. Then it checks the whole history.
//!
//! | module | holds |
//! |---|---|
//! | `args` | the command line |
//! | `world` | all processes of a run: `servers` (broker and database, each behind a `proxy`) and `process` (the program) |
//! | `traffic`, `history` | the clients; their commands and the replies |
//! | `nemesis` | chooses and injects the faults |
//! | `check` | the checks, which read the log and the read models independently of the program's code |
//!
//! The seed decides the commands and the faults, but not how the machine schedules them. So two
//! runs with the same seed are similar, not identical.

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

/// The size of the shop.
const PRODUCTS: usize = 60;
const CUSTOMERS: usize = 150;

/// How long all unfinished work may take to finish after the last fault.
const DRAIN: Duration = Duration::from_secs(200);

/// A random seed.
fn any_seed() -> u64 {
    Rng::new().u64(..1_000_000)
}

/// Does a run, prints the figures, and fails if there is any violation.
///
/// # Errors
/// When a server does not start, or when there are violations.
pub async fn run(args: Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(any_seed);
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::Builder::new()
        .prefix("orderlog-faults-")
        // The database's user account must be able to enter the folder.
        .permissions(Permissions::from_mode(0o711))
        .disable_cleanup(true)
        .tempdir_in(base)?;
    let dir = folder.path();
    println!("seed {seed}, {:?} log, {} clients, in {}", args.log, args.clients, dir.display());
    let run = async {
        tokio::select! {
            ran = run_in(&args, seed, dir) => ran,
            // Dropping the run ends all its processes.
            signal = interrupted() => bail!("ended by {}", signal?),
        }
    };
    match run.await {
        Ok(()) if args.keep => Ok(()),
        Ok(()) => Ok(std::fs::remove_dir_all(dir)?),
        Err(error) => bail!("seed {seed}: {error:#}; data and logs are in {}", dir.display()),
    }
}

/// Waits for a signal to end. Without this handler the signal would end the process and leave
/// servers running.
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
    world.say("all servers and processes are running");
    world.traffic.fill(PRODUCTS, CUSTOMERS).await?;
    world.say("the shop is filled");
    let (stop, until) = watch::channel(false);
    let mut clients = JoinSet::new();
    for nth in 0..u64::from(args.clients) {
        clients.spawn(Arc::clone(&world.traffic).client(nth, until.clone()));
    }
    let injected = inject(args, seed, kinds, &mut world).await?;
    let healed = Instant::now();
    stop.send_replace(true);
    while clients.join_next().await.is_some() {}
    world.say("all clients have ended");
    let drained = verdict::drain(&mut world, healed + DRAIN).await;
    let took = healed.elapsed();
    world.say(&format!("drained in {:.1} s", took.as_secs_f64()));
    let verdict = verdict::judge(args, seed, &mut world, drained).await?;
    verdict.print(seed, &injected, took);
    ensure!(verdict.violations.found.is_empty(), "{} violations", verdict.violations.found.len());
    Ok(())
}

fn kinds(args: &Args) -> Result<Vec<Fault>> {
    let all = Fault::all(args.log);
    for name in &args.only {
        ensure!(
            all.iter().any(|kind| kind.to_string() == *name),
            "there is no fault {name}; the faults are {all:?}"
        );
    }
    let wanted = |kind: &Fault| args.only.is_empty() || args.only.contains(&kind.to_string());
    Ok(all.into_iter().filter(wanted).collect())
}

/// Injects faults until the time is over and enough commands are sent. Returns the number of faults
/// of each kind.
async fn inject(
    args: &Args,
    seed: u64,
    kinds: Vec<Fault>,
    world: &mut World,
) -> Result<BTreeMap<Fault, usize>> {
    let end = Instant::now() + args.lasts();
    let mut nemesis = Nemesis::new(seed, kinds);
    let mut injected = BTreeMap::new();
    sleep(Duration::from_secs(5)).await;
    while Instant::now() < end || world.traffic.sent() < args.commands {
        if let Some(fault) = nemesis.inject(world).await? {
            *injected.entry(fault).or_default() += 1;
        }
        world.revive().await?;
        world.ready().await?;
    }
    Ok(injected)
}
