//! After the faults: everything comes to its end, and the whole history is judged.

use super::{
    Args,
    check::{
        Violations, answers,
        books::Books,
        log::{self, Counted},
        tables,
    },
    history::{Fate, Reply, Told},
    nemesis::Fault,
    world::World,
};
use anyhow::{Context, Result};
use fastrand::Rng;
use futures::{StreamExt, stream};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Keys that are sent once more at a time.
const REPLAYS_AT_ONCE: usize = 64;

/// A key that got no answer is sent again so often.
const TRIES: usize = 20;

/// Between two looks whether everything has come to its end.
const LOOK: Duration = Duration::from_secs(2);

/// Violations that are printed; all are in the run's folder.
const NAMED: usize = 20;

/// What came out.
pub struct Verdict {
    /// What must not be.
    pub violations: Violations,
    lines: Vec<String>,
}

impl Verdict {
    /// Tells on standard output.
    pub fn print(&self, seed: u64, struck: &BTreeMap<Fault, usize>, drain: Duration) {
        let faults: Vec<String> =
            struck.iter().map(|(fault, times)| format!("{fault} {times}")).collect();
        println!();
        println!("seed {seed}");
        println!("faults: {} ({})", struck.values().sum::<usize>(), faults.join(", "));
        self.lines.iter().for_each(|line| println!("{line}"));
        let Violations { found, lost, doubled } = &self.violations;
        println!(
            "lost {lost}, doubled {doubled}, violations {}, drained in {:.1} s",
            found.len(),
            drain.as_secs_f64()
        );
        // The whole lines are in the run's folder.
        found.iter().take(NAMED).for_each(|one| println!("VIOLATION {one:.300}"));
    }
}

/// Waits until nothing is under way in the log and the read models have all of it; what is, if that takes too long.
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
    if let Some(what) = books.unsettled() {
        return Ok(Some(what));
    }
    let pool = connect(world).await?;
    let behind = tables::behind(&pool, counted.events.len()).await;
    pool.close().await;
    behind
}

/// Judges the history.
///
/// # Errors
/// When the judge cannot do its work.
pub async fn judge(
    args: &Args,
    seed: u64,
    world: &mut World,
    drained: Result<Option<String>>,
) -> Result<Verdict> {
    let mut violations = Violations::default();
    match drained {
        Ok(None) => {}
        Ok(Some(left)) => violations.add(format!("not drained in time: {left}")),
        Err(error) => violations.add(format!("not drained in time: {error:#}")),
    }
    let (told, mut differing) = world.traffic.take();
    let silent = replay(args, seed, world, &told).await;
    differing.extend(world.traffic.take().1);
    violations.found.extend(differing.iter().map(|one| format!("another answer: {one}")));
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
    answers::check(&told, &counted.events, &books, &mut violations);
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
    let lines = figures(world, &told, &counted, &books, money, &mut violations);
    write(&world.dir, &told, &violations)?;
    Ok(Verdict { violations, lines })
}

/// Sends acknowledged keys once more; the complaints of those who got no answer at all.
async fn replay(args: &Args, seed: u64, world: &World, told: &[Told]) -> Vec<String> {
    let mut rng = Rng::with_seed(seed);
    let mut chosen: Vec<&Told> =
        told.iter().filter(|told| told.fate() == Fate::Acknowledged).collect();
    rng.shuffle(&mut chosen);
    chosen.truncate(args.replays);
    let traffic = &world.traffic;
    stream::iter(chosen)
        .map(|told| {
            let mut rng = rng.fork();
            let traffic = Arc::clone(traffic);
            async move {
                for _ in 0..TRIES {
                    if traffic.replay(told, &mut rng).await {
                        return None;
                    }
                    sleep(Duration::from_millis(500)).await;
                }
                Some(format!("key {} is not answered again", told.command.key))
            }
        })
        .buffer_unordered(REPLAYS_AT_ONCE)
        .filter_map(async |complaint| complaint)
        .collect()
        .await
}

/// Builds every read model anew beside the serving one, as an operator does.
async fn rebuild(world: &mut World) -> Result<()> {
    for model in tables::MODELS {
        let output = world.service().command(&["rebuild", model]).output().await?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(()).with_context(|| format!("{model}: {told}"))?;
    }
    Ok(())
}

fn figures(
    world: &World,
    told: &[Told],
    counted: &Counted,
    books: &Books,
    [taken, returned]: [i64; 2],
    violations: &mut Violations,
) -> Vec<String> {
    let of = |fate| told.iter().filter(|told| told.fate() == fate).count();
    let (done, refused, unknown) = (of(Fate::Acknowledged), of(Fate::Refused), of(Fate::Unknown));
    let asked = counted.events.iter().filter(|event| event.asked);
    let commands: std::collections::BTreeSet<_> = asked.map(|event| event.command).collect();
    let landed = told
        .iter()
        .filter(|told| told.fate() == Fate::Unknown && commands.contains(&told.command.id))
        .count();
    // A run in which nearly everything failed shows nothing.
    if done * 2 < told.len() {
        violations.add(format!("only {done} of {} commands were acknowledged", told.len()));
    }
    let (requests, replays) = world.traffic.requests();
    let twins = told.iter().filter(|told| told.twins).count();
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
            told.len()
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

/// What was asked and answered, and what is wrong with it, for whoever looks into it.
fn write(dir: &Path, told: &[Told], violations: &Violations) -> Result<()> {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(std::fs::File::create(dir.join("history.txt"))?);
    for Told { command, replies, .. } in told {
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
