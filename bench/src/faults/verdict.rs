//! After the faults: waits until all work is finished, then checks the whole history.

use super::{
    Args,
    check::{
        Violations, answers,
        books::Books,
        log::{self, Counted},
        tables,
    },
    history::{Exchange, Outcome, Reply},
    nemesis::Fault,
    world::World,
};
use anyhow::{Context, Result};
use fastrand::Rng;
use futures::{StreamExt, stream};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// The number of keys sent again concurrently.
const REPLAYS_AT_ONCE: usize = 64;

/// How often to send a key that gets no answer.
const TRIES: usize = 20;

/// Time between two checks whether all work is finished.
const LOOK: Duration = Duration::from_secs(2);

/// The number of violations to print; the run's folder has all of them.
const NAMED: usize = 20;

/// The result of a run.
pub struct Verdict {
    /// The violations found.
    pub violations: Violations,
    lines: Vec<String>,
}

impl Verdict {
    /// Prints the result on standard output.
    pub fn print(&self, seed: u64, injected: &BTreeMap<Fault, usize>, drain: Duration) {
        let faults: Vec<String> =
            injected.iter().map(|(fault, times)| format!("{fault} {times}")).collect();
        println!();
        println!("seed {seed}");
        println!("faults: {} ({})", injected.values().sum::<usize>(), faults.join(", "));
        self.lines.iter().for_each(|line| println!("{line}"));
        let Violations { found, lost, doubled } = &self.violations;
        println!(
            "lost {lost}, doubled {doubled}, violations {}, drained in {:.1} s",
            found.len(),
            drain.as_secs_f64()
        );
        // Lines are cut here; the run's folder has the whole lines.
        found.iter().take(NAMED).for_each(|one| println!("VIOLATION {one:.300}"));
    }
}

/// Waits until all work in the log is finished and the read models have applied the whole log. If
/// that takes too long, returns what is unfinished.
pub async fn drain(world: &mut World, deadline: Instant) -> Result<Option<String>> {
    loop {
        let left = unfinished(world).await;
        match left {
            Ok(None) => return Ok(None),
            Ok(left) if Instant::now() >= deadline => return Ok(left),
            Err(error) if Instant::now() >= deadline => return Err(error),
            _ => sleep(LOOK).await,
        }
    }
}

async fn read(world: &World) -> Result<Counted> {
    let kafka = world.broker().ok().map(super::servers::Broker::direct);
    Ok(log::count(log::read(kafka, world.log_dir()).await?))
}

async fn connect(world: &World) -> Result<PgPool> {
    let pool = PgPoolOptions::new().max_connections(2);
    Ok(pool.connect(&world.database.direct()?).await?)
}

async fn unfinished(world: &World) -> Result<Option<String>> {
    let counted = read(world).await?;
    let books = Books::of(&counted.events, &mut Violations::default());
    if let Some(what) = books.unfinished() {
        return Ok(Some(what));
    }
    let pool = connect(world).await?;
    let behind = tables::behind(&pool, counted.events.len()).await;
    pool.close().await;
    behind
}

/// Checks the history.
///
/// # Errors
/// When the log or the database cannot be read.
pub async fn judge(
    args: &Args,
    seed: u64,
    world: &mut World,
    drained: Result<Option<String>>,
) -> Result<Verdict> {
    let mut violations = Violations::default();
    match drained {
        Ok(None) => {}
        Ok(Some(left)) => violations.add(format!("not finished in time: {left}")),
        Err(error) => violations.add(format!("not finished in time: {error:#}")),
    }
    let (exchanges, mut differing) = world.traffic.take();
    let silent = replay(args, seed, world, &exchanges).await;
    differing.extend(world.traffic.take().1);
    violations.found.extend(differing.iter().map(|one| format!("a different answer: {one}")));
    violations.found.extend(silent);
    world.say("old keys were sent again");

    let rebuilt = rebuild(world).await;
    if let Err(error) = &rebuilt {
        violations.add(format!("the read models cannot be rebuilt: {error:#}"));
    }
    world.say("read models were rebuilt");
    world.stop().await?;
    violations.found.append(&mut world.complaints);

    let counted = read(world).await?;
    log::check_order(&counted.events, &mut violations);
    let books = Books::of(&counted.events, &mut violations);
    books.check(&mut violations);
    answers::check(&exchanges, &counted.events, &books, &mut violations);
    let journal = std::fs::read_to_string(world.journal()).unwrap_or_default();
    let money = books.check_journal(&journal, &mut violations);
    let pool = connect(world).await?;
    tables::check(&pool, &counted.events, &books, &mut violations).await?;
    if rebuilt.is_ok() {
        for model in tables::MODELS {
            tables::check_rebuilt(&pool, model, &mut violations).await?;
        }
    }
    pool.close().await;
    let audit = world.service().command(&["audit"]).output().await?;
    if !audit.status.success() {
        violations.add(format!("audit: {}", String::from_utf8_lossy(&audit.stdout)));
    }
    let lines = figures(world, &exchanges, &counted, &books, money, &mut violations);
    write(&world.dir, &exchanges, &violations)?;
    Ok(Verdict { violations, lines })
}

/// Sends acknowledged keys again. Returns a complaint for each key that got no answer.
async fn replay(args: &Args, seed: u64, world: &World, exchanges: &[Exchange]) -> Vec<String> {
    let mut rng = Rng::with_seed(seed);
    let mut chosen: Vec<&Exchange> =
        exchanges.iter().filter(|exchange| exchange.outcome() == Outcome::Acknowledged).collect();
    rng.shuffle(&mut chosen);
    chosen.truncate(args.replays);
    let traffic = &world.traffic;
    stream::iter(chosen)
        .map(|exchange| {
            let mut rng = rng.fork();
            let traffic = Arc::clone(traffic);
            async move {
                for _ in 0..TRIES {
                    if traffic.replay(exchange, &mut rng).await {
                        return None;
                    }
                    sleep(Duration::from_millis(500)).await;
                }
                Some(format!("key {} got no answer when it was sent again", exchange.command.key))
            }
        })
        .buffer_unordered(REPLAYS_AT_ONCE)
        .filter_map(async |complaint| complaint)
        .collect()
        .await
}

/// Rebuilds every read model beside the serving one, as an operator does.
async fn rebuild(world: &mut World) -> Result<()> {
    for model in tables::MODELS {
        let output = world.service().command(&["rebuild", model]).output().await?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).with_context(|| format!("{model}: {error}"))?;
    }
    Ok(())
}

fn figures(
    world: &World,
    exchanges: &[Exchange],
    counted: &Counted,
    books: &Books,
    [taken, returned]: [i64; 2],
    violations: &mut Violations,
) -> Vec<String> {
    let of = |outcome| exchanges.iter().filter(|exchange| exchange.outcome() == outcome).count();
    let (done, refused, unknown) =
        (of(Outcome::Acknowledged), of(Outcome::Refused), of(Outcome::Unknown));
    let by_client = counted.events.iter().filter(|event| event.by_client);
    let commands: std::collections::BTreeSet<_> = by_client.map(|event| event.command).collect();
    let landed = exchanges
        .iter()
        .filter(|exchange| {
            exchange.outcome() == Outcome::Unknown && commands.contains(&exchange.command.id)
        })
        .count();
    // A run in which most commands failed proves nothing.
    if done * 2 < exchanges.len() {
        violations.add(format!("only {done} of {} commands were acknowledged", exchanges.len()));
    }
    let (requests, replays) = world.traffic.requests();
    let twins = exchanges.iter().filter(|exchange| exchange.twins).count();
    let statuses = books.orders.values().fold(BTreeMap::new(), |mut counts, order| {
        *counts.entry(order.status).or_insert(0usize) += 1;
        counts
    });
    let statuses: Vec<_> =
        statuses.into_iter().map(|(status, count)| format!("{status} {count}")).collect();
    let Counted { events, claims, void } = counted;
    vec![
        format!(
            "commands: sent {}, acknowledged {done}, refused {refused}, unknown {unknown} \
             (of these in the log: {landed})",
            exchanges.len()
        ),
        format!("requests: {requests}, {twins} keys sent twice at once, {replays} old keys again"),
        format!(
            "log: {} events, {claims} openings of partitions, {void} void records; late ends of \
             transactions: {}",
            events.len(),
            world.broker().map_or(0, |broker| broker.proxy.late()),
        ),
        format!("orders: {} ({})", books.orders.len(), statuses.join(", ")),
        format!("money: {taken} taken, {returned} returned, once each"),
    ]
}

/// Writes all commands, replies and violations into the run's folder.
fn write(dir: &Path, exchanges: &[Exchange], violations: &Violations) -> Result<()> {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(std::fs::File::create(dir.join("history.txt"))?);
    for Exchange { command, replies, .. } in exchanges {
        writeln!(
            file,
            "{} {} {} {} {}",
            command.key, command.id, command.method, command.path, command.body
        )?;
        for reply in replies {
            match reply {
                Reply::Unknown(why) => writeln!(file, "    unknown: {why}")?,
                reply => writeln!(file, "    {reply:?}")?,
            }
        }
    }
    file.flush()?;
    std::fs::write(dir.join("violations.txt"), violations.found.join("\n"))?;
    Ok(())
}
