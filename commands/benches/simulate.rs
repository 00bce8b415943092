//! The simulator of the write side as a command: runs seeds until it is stopped or a run fails, or
//! repeats one seed.

#[path = "../tests/simulation/simulator/mod.rs"]
mod simulator;

use clap::Parser;
use simulator::{Plan, Tally, run, search, shrink::explain};
use std::{
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Simulate the write side, one run per seed, until stopped or until an invariant is broken.
#[derive(Parser)]
#[command(bin_name = "cargo bench --bench simulate --")]
struct Args {
    /// Run only this seed; print its history, and the shortest history that fails in the same way.
    #[arg(long)]
    seed: Option<u64>,

    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,

    /// The number of seeds; without it, run until stopped.
    #[arg(long)]
    count: Option<u64>,

    /// Set by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Cargo sets this flag for a benchmark but not for a test of the same file, and a test run must
    // end.
    if !args.bench {
        println!("simulate: runs under `cargo bench` only");
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = args.seed {
        return replay(seed);
    }
    let began = now();
    let last_told = Mutex::new(began);
    let end = args.count.map_or(u64::MAX, |count| args.from.saturating_add(count));
    let (tally, found) = search(args.from..end, |tally| {
        if let Ok(mut last_told) = last_told.lock()
            && last_told.elapsed() >= Duration::from_secs(10)
        {
            *last_told = now();
            tell(tally, began.elapsed());
        }
    });
    tell(&tally, began.elapsed());
    println!("events: {:#?}\nacts: {:#?}", tally.events, tally.acts);
    match found {
        None => ExitCode::SUCCESS,
        Some(found) => {
            println!("{}", explain(found.seed, &found.report));
            ExitCode::FAILURE
        }
    }
}

fn replay(seed: u64) -> ExitCode {
    let report = run(&Plan::of(seed), true);
    println!("{}", report.story.join("\n"));
    if report.broken.is_none() {
        println!("\nseed {seed}: every promise holds");
        return ExitCode::SUCCESS;
    }
    println!("\n{}", explain(seed, &report));
    ExitCode::FAILURE
}

#[expect(clippy::disallowed_methods, reason = "seeds a second are measured in the real world")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn tell(tally: &Tally, took: Duration) {
    let events: u64 = tally.events.values().sum();
    println!(
        "{} seeds, {:.0} seeds/s, {} steps, {} commands, {events} events, {:.0} days simulated",
        tally.runs,
        tally.runs as f64 / took.as_secs_f64(),
        tally.steps,
        tally.commands,
        tally.simulated.as_secs_f64() / 86_400.0,
    );
}
