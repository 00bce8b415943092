//! One run of a seed on a new database. A history is written part by part, while faults are
//! injected into the processes that feed the read models.

use crate::{
    PATIENCE,
    check::{Eyes, Seen, Violation},
    cluster::{Cluster, kill},
    doctored::{Doctored, Seen as Looks},
    faults::{Act, Tally, plan},
    fold::Fact,
    process::{Outcome, Process, Wish, World},
    proxy::Struck,
    shop::{Chance, Scribe, story},
};
use events::{
    Event, Partition, StreamId, StreamKind,
    environment::System,
    log::{EventLog, RawRecord, memory::MemoryLog},
};
use projections::{Planted, ProjectorSettings, ReadModel};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// The pause between two reads of the database, unless a fault strikes.
const LOOK: Duration = Duration::from_millis(5);

/// The longest time that a message or client is held, because the other clients may have nothing to
/// do.
const LONGEST_HOLD: Duration = Duration::from_millis(400);

/// A held message or client.
struct Held {
    process: u64,
    token: CancellationToken,
    /// The number of applied events, in total, at which it is released.
    until: Option<i64>,
    deadline: Instant,
}

/// A running operator, and what to do with its request if it is killed.
struct Operator {
    process: Process,
    outcome: oneshot::Receiver<Outcome>,
    wish: (Wish, ReadModel),
    again: bool,
}

pub struct Run<'a> {
    cluster: &'a mut Cluster,
    pub world: World,
    eyes: Eyes,
    chance: Chance,
    scribe: Scribe,
    /// The log as the feeding processes see it.
    doctored: Arc<Doctored>,
    facts: Vec<Fact>,
    pub settings: ProjectorSettings,
    workers: usize,
    longest: u32,
    /// The number of faults that may still be planned in this part.
    budget: u32,
    pub struck: mpsc::UnboundedReceiver<Struck>,
    pub processes: Vec<Process>,
    operator: Option<Operator>,
    held: Vec<Held>,
    ids: u64,
    /// Everything that has happened so far, as text.
    trail: Vec<String>,
    pub tally: Tally,
}

/// One event in this many is poison, the same ones for every reader.
const POISON: u128 = 23;

fn poisonous(_: Partition, raw: &RawRecord) -> Looks {
    let version = u128::from(raw.record.metadata.version);
    let stream = raw.record.stream;
    let is = (stream.id.as_u128() ^ version).is_multiple_of(POISON);
    if is && stream.kind != StreamKind::Writer { Looks::Unknown } else { Looks::Plain }
}

impl<'a> Run<'a> {
    /// Makes a new database, an empty log and the settings of the processes.
    pub async fn new(seed: u64, planted: Planted, cluster: &'a mut Cluster) -> Self {
        let mut chance = Chance(seed ^ 0x6b69_6c6c);
        let partitions = 1 + chance.below(4) as u32;
        let plain: Arc<dyn EventLog> =
            Arc::new(MemoryLog::new(partitions, Arc::new(System::new())));
        let doctored = Arc::new(Doctored::new(Arc::clone(&plain), poisonous));
        doctored.heal();
        let log: Arc<dyn EventLog> = doctored.clone();
        let options = cluster.new_database().await;
        let (sender, struck) = mpsc::unbounded_channel();
        let server = Arc::clone(&cluster.port);
        let world = World { server, options, log, struck: sender };
        let settings = ProjectorSettings {
            groups: 1 + chance.below(3) as u32,
            max_events: 1 + chance.below(40) as usize,
            max_events_apart: 1 + chance.below(60) as usize,
            bulk_tasks: 1 + chance.below(3) as u32,
            // Write after each chunk, after some chunks, or after a whole partition.
            bulk_bytes: [1, 8_000, 64 << 20][chance.below(3) as usize],
            tick: Duration::from_millis(10),
            lease: Duration::from_millis([0, 0, 60][chance.below(3) as usize]),
            close: [3, 30, 2_000][chance.below(3) as usize],
            planted,
            ..ProjectorSettings::default()
        };
        Self {
            eyes: Eyes::new(Arc::clone(&world.server), world.options.clone()),
            scribe: Scribe::new(plain),
            doctored,
            workers: 1 + chance.below(2) as usize,
            longest: [40, 150, 400][chance.below(3) as usize],
            cluster,
            world,
            chance,
            facts: Vec::new(),
            settings,
            budget: 0,
            struck,
            processes: Vec::new(),
            operator: None,
            held: Vec::new(),
            ids: 0,
            trail: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Does the whole run, from an empty database to the end of the history.
    pub async fn whole(mut self, seed: u64) -> Result<Tally, Violation> {
        let orders = 8 + self.chance.below(25) as usize;
        let (story, _) = story(seed, orders);
        let parts = 3 + self.chance.below(6) as usize;
        if self.chance.one_in(2) {
            self.poison();
        }
        for part in story.chunks(story.len() / parts + 1) {
            self.budget = 4;
            if self.chance.one_in(4) {
                self.understand();
            }
            self.write(part).await;
            self.wish().await;
            self.until_complete().await?;
        }
        self.finish(1).await
    }

    /// From now on some events are poison for every feeding process.
    pub fn poison(&mut self) {
        self.doctored.hurt();
        self.trail.push("some events are poison".to_owned());
    }

    /// From now on no event is poison.
    pub fn understand(&mut self) {
        self.doctored.heal();
        self.trail.push("no event is poison any more".to_owned());
    }

    /// Finishes everything without further faults.
    pub async fn finish(mut self, seeds: u64) -> Result<Tally, Violation> {
        self.heal().await?;
        self.tally.seeds = seeds;
        self.tally.events = self.facts.len() as u64;
        Ok(self.tally)
    }

    pub async fn write(&mut self, part: &[(StreamId, Event)]) {
        let batch = 1 + self.chance.below(9) as usize;
        self.scribe.write(part, batch).await;
        self.trail.push(format!("{} events written, in batches of {batch}", part.len()));
        self.facts.extend(self.scribe.written.drain(..).map(Fact::new));
        let begun: BTreeSet<Partition> =
            self.facts.iter().map(|it| it.position.partition).collect();
        for partition in begun {
            if self.chance.one_in(3) {
                self.scribe.beat(partition).await;
            }
        }
    }

    /// Lets the processes continue, and replaces dead ones, until every version has applied every
    /// event.
    pub async fn until_complete(&mut self) -> Result<(), Violation> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.start_processes().await;
            if let Ok(Some(struck)) = timeout(LOOK, self.struck.recv()).await {
                self.carry_out(struck).await;
            }
            self.processes.retain(|process| !process.proxy.is_dead());
            self.follow_operator().await;
            let seen = self.look().await?;
            self.let_go(seen.as_ref());
            let complete = seen.as_ref().is_some_and(|seen| seen.complete(&self.facts));
            if complete && self.operator.is_none() && self.held.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.violation(&match seen {
                    Some(seen) => format!("there is no progress: {}", seen.positions()),
                    None => "the database cannot be read".to_owned(),
                }));
            }
        }
    }

    pub async fn look(&mut self) -> Result<Option<Seen>, Violation> {
        let seen = self.eyes.look().await;
        if let Some(seen) = &seen {
            self.tally.checks += 1;
            seen.check(&self.facts).map_err(|Violation(what)| self.violation(&what))?;
            self.eyes.found_right(seen);
        }
        Ok(seen)
    }

    /// Whether every version has applied every event.
    pub fn has_all(&self, seen: &Seen) -> bool {
        seen.complete(&self.facts)
    }

    /// A violation with everything that led to it.
    fn violation(&self, what: &str) -> Violation {
        let settings = &self.settings;
        let (held, wanted) = (self.held.len(), self.operator.as_ref().map(|it| it.wish));
        let now = format!("{held} held, an operator wants {wanted:?}");
        Violation(format!("{what}\n{now}\n{settings:?}\n{}", self.trail.join("\n")))
    }

    pub async fn start_processes(&mut self) {
        // Some process must make progress while another is held.
        let wanted = if self.held.is_empty() { self.workers } else { 2 };
        while self.processes.len() < wanted || !self.processes.iter().any(|it| it.feeds_all) {
            let mut settings = self.settings.clone();
            let feeds_all = !self.processes.iter().any(|it| it.feeds_all);
            if !feeds_all {
                // The other projectors may feed fewer read models, and may never check their leases
                // again.
                let chance = &mut self.chance;
                settings.models.retain(|_| !chance.one_in(3));
                if chance.one_in(2) {
                    settings.tick = Duration::from_hours(1);
                }
            }
            let faults =
                if self.budget > 0 { plan(&mut self.chance, self.longest) } else { vec![] };
            self.budget = self.budget.saturating_sub(faults.len() as u32);
            self.ids += 1;
            let id = self.ids;
            let how = (&settings.models, settings.tick);
            self.trail.push(format!("projector {id} starts, {how:?}, with {faults:?}"));
            let (mut process, _) = Process::projector(&self.world, id, settings, faults).await;
            process.feeds_all = feeds_all;
            self.processes.push(process);
        }
    }

    /// Starts an operator now and then.
    async fn wish(&mut self) {
        let chance = &mut self.chance;
        let wish = match chance.below(12) {
            0..5 => Wish::Rebuild,
            5..7 => Wish::Rollback,
            7 => Wish::Cancel,
            8 => Wish::Drop,
            9..11 => Wish::Retry,
            _ => return,
        };
        let wish = (wish, ReadModel::ALL[chance.below(ReadModel::ALL.len() as u64) as usize]);
        let faults = plan(chance, 40);
        let again = chance.one_in(2);
        self.ids += 1;
        self.trail.push(format!("operator {} wants {wish:?}, with {faults:?}", self.ids));
        let (process, outcome) = Process::operator(&self.world, self.ids, wish, faults).await;
        self.operator = Some(Operator { process, outcome, wish, again });
    }

    /// An operator that was killed, or does not know the outcome, may try again.
    async fn follow_operator(&mut self) {
        let Some(operator) = &mut self.operator else { return };
        let again = match operator.outcome.try_recv() {
            Ok(Outcome::Done | Outcome::Refused) => false,
            Ok(Outcome::Failed) => operator.again,
            Err(_) if operator.process.proxy.is_dead() => operator.again,
            Err(_) => return,
        };
        let Some(Operator { wish, .. }) = self.operator.take() else { return };
        if again {
            self.ids += 1;
            let (process, outcome) = Process::operator(&self.world, self.ids, wish, vec![]).await;
            self.operator = Some(Operator { process, outcome, wish, again });
        }
    }

    async fn carry_out(&mut self, struck: Struck) {
        let Struck { client, act, statement, backend, held } = struck;
        self.tally.struck(act, statement);
        self.trail
            .push(format!("{act:?} of process {client} at: {statement} (process {backend:?})"));
        match (act, backend) {
            (Act::Hold | Act::Freeze, _) => {
                let until = self
                    .eyes
                    .look()
                    .await
                    .map(|seen| seen.events() + 1 + self.chance.below(60) as i64);
                let deadline = Instant::now() + LONGEST_HOLD;
                self.held.push(Held { process: client, token: held, until, deadline });
                return;
            }
            (Act::Terminate, Some(backend)) => self.eyes.terminate(backend).await,
            (Act::Crash, Some(backend)) => kill(backend),
            (Act::Restart, _) => self.cluster.restart().await,
            _ => {}
        }
        held.cancel();
    }

    fn let_go(&mut self, seen: Option<&Seen>) {
        let now = Instant::now();
        let (processes, operator) = (&self.processes, &self.operator);
        self.held.retain(|held| {
            let gone_on = seen.is_some_and(|seen| {
                seen.waiting || held.until.is_some_and(|until| seen.events() >= until)
            });
            let of = |process: &&Process| process.id == held.process;
            let process = processes.iter().chain(operator.iter().map(|it| &it.process)).find(of);
            let Some(process) = process else { return false };
            if gone_on || now >= held.deadline {
                process.proxy.thaw();
                held.token.cancel();
                return false;
            }
            true
        });
    }

    /// Ends all faults: held processes continue or are dropped, and one projector finishes
    /// everything.
    async fn heal(&mut self) -> Result<(), Violation> {
        for process in &self.processes {
            process.proxy.disarm();
            process.proxy.thaw();
        }
        if self.chance.one_in(2) {
            self.processes.clear();
        }
        self.budget = 0;
        self.workers = 1;
        self.understand();
        self.settings = ProjectorSettings {
            tick: Duration::from_millis(20),
            lease: Duration::from_millis(100),
            planted: self.settings.planted,
            ..ProjectorSettings::default()
        };
        self.ids += 1;
        let settings = self.settings.clone();
        let (mut last, ended) = Process::projector(&self.world, self.ids, settings, vec![]).await;
        last.feeds_all = true;
        self.processes.insert(0, last);
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.until_complete().await?;
            let seen = self.look().await?;
            if seen.is_some_and(|seen| !seen.building() && seen.parked().is_empty()) {
                break;
            }
            self.asked(Wish::Retry, ReadModel::Orders, vec![]).await;
            if Instant::now() >= deadline {
                return Err(self.violation("a rebuild did not finish"));
            }
        }
        self.processes.truncate(1);
        self.processes[0].stop();
        let stopped = timeout(PATIENCE, ended).await;
        stopped.map_err(|_| self.violation("the last projector did not stop"))?.ok();
        self.look().await?.ok_or_else(|| self.violation("the last read of the database failed"))?;
        Ok(())
    }
}
