//! One transaction: checkpoints, rows and parked streams, all or nothing.

use crate::{
    checkpoint::{self, Fenced, Last, Move},
    database,
    facts::Facts,
    lease::Share,
    parked::{self, KeptBack, MAX_PARKED, Refusal, Sieve},
    session::{Lane, Unwritten},
    version::{Version, VersionId},
    worker::Context,
};
use events::{Offset, Partition, log::Cursor};
use sqlx::{PgConnection, Postgres, Transaction};
use std::{collections::BTreeMap, sync::Arc};

/// What a transaction does to one version.
pub(crate) struct Work<'a> {
    version: Arc<Version>,
    pub moves: Vec<Move>,
    /// Where each partition's checkpoint was before, and how many streams it had parked.
    from: BTreeMap<Partition, (Cursor, usize)>,
    facts: Facts<'a>,
    sieve: Sieve,
}

/// How events are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// All of them at once.
    Quick,
    /// Finds the refused events and parks their streams.
    Careful,
}

/// What a transaction has done.
pub(crate) struct Done {
    /// Whether each moved version serves.
    pub serving: BTreeMap<Share, bool>,
    /// The streams that it parked.
    pub parked: Vec<KeptBack>,
}

/// Why a transaction did not commit.
pub(crate) enum Failed {
    Fenced(Fenced),
    /// A retry may help.
    Database(sqlx::Error),
    /// Some of the events are refused, and a retry does not help.
    Refused(String),
    /// So many streams would be parked that a single bad event cannot be the reason.
    TooMany(Share, String),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Refused(problem) => Self::Refused(problem),
            Refusal::Transient(error) => Self::Database(error),
        }
    }
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The work of one transaction, by version.
pub(crate) fn plan<'a>(
    lanes: &BTreeMap<Share, Lane>,
    gathered: &'a BTreeMap<Partition, Unwritten>,
) -> Vec<Work<'a>> {
    let mut plan: BTreeMap<VersionId, Work<'a>> = BTreeMap::new();
    for (&(id, partition), lane) in lanes {
        let Some(gathered) = gathered.get(&partition) else { continue };
        if gathered.cursor.offset <= lane.checkpoint.cursor.offset {
            continue;
        }
        let work = plan.entry(id).or_insert_with(|| Work {
            version: Arc::clone(&lane.version),
            moves: Vec::new(),
            from: BTreeMap::new(),
            facts: Facts::default(),
            sieve: Sieve::new(id),
        });
        work.add((id, partition), lane, gathered);
    }
    plan.into_values().collect()
}

impl<'a> Work<'a> {
    /// Adds what was gathered of a partition after the lane's checkpoint.
    fn add(&mut self, share: Share, lane: &Lane, gathered: &'a Unwritten) {
        let (partition, from) = (share.1, lane.checkpoint.cursor);
        self.from.insert(partition, (from, lane.parked.len()));
        self.sieve.know(partition, &lane.parked);
        let new = |at: Offset| at >= from.offset;
        let mut facts = Facts::default();
        let all = facts.add(&gathered.facts, from.offset);
        let undecodable: Vec<_> =
            gathered.undecodable.iter().filter(|it| new(it.position.offset)).collect();
        let last = all.last().map(Last::of).into_iter();
        let last = last.chain(undecodable.last().map(|it| Last::at(it.position, &it.record)));
        self.moves.push(Move {
            share,
            expected: from.offset,
            to: gathered.cursor,
            last: last.max_by_key(|last| last.offset),
            events: i64::try_from(all.len() + undecodable.len()).unwrap_or(i64::MAX),
        });
        let takes =
            |it: &&crate::facts::Undecodable| self.version.writer.takes(it.record.stream.kind);
        let mut poison = undecodable.into_iter().filter(takes).peekable();
        if poison.peek().is_none() && lane.parked.is_empty() {
            return self.facts.extend(facts);
        }
        let sieve = &mut self.sieve;
        let through = facts.sift(|fact| {
            while let Some(poison) = poison.next_if(|it| it.position < fact.position) {
                sieve.undecodable(poison);
            }
            sieve.lets_through(fact)
        });
        poison.for_each(|poison| sieve.undecodable(poison));
        self.facts.extend(through);
    }

    /// Applies the events and records those that are kept back. Returns the streams that this
    /// parks.
    async fn carry_out(
        &self,
        connection: &mut PgConnection,
        care: Care,
    ) -> Result<Vec<KeptBack>, Failed> {
        let mut sieve = self.sieve.clone();
        let writer = &*self.version.writer;
        match care {
            Care::Quick => {
                let applied = writer.apply(&mut *connection, &self.facts).await;
                applied.map_err(Refusal::from)?;
            }
            Care::Careful => {
                parked::apply_carefully(connection, writer, &self.facts, &mut sieve).await?;
            }
        }
        self.refuse_too_many(&sieve)?;
        for kept_back in sieve.kept_back() {
            let from = self.from.get(&kept_back.share.1).map_or(Cursor::START, |(from, _)| *from);
            if !parked::record(connection, kept_back, from).await? {
                return Err(Failed::Fenced(Fenced));
            }
        }
        Ok(sieve.kept_back().filter(|kept_back| kept_back.reason.is_some()).cloned().collect())
    }

    /// If a partition refuses many streams, its program or its tables are wrong rather than the
    /// events.
    fn refuse_too_many(&self, sieve: &Sieve) -> Result<(), Failed> {
        let mut parked: BTreeMap<_, usize> =
            self.from.iter().map(|(partition, (_, parked))| (*partition, *parked)).collect();
        for kept_back in sieve.kept_back() {
            let Some(reason) = &kept_back.reason else { continue };
            let parked = parked.entry(kept_back.share.1).or_default();
            *parked += 1;
            if *parked > MAX_PARKED {
                let problem = format!("more than {MAX_PARKED} streams would be parked: {reason}");
                return Err(Failed::TooMany(kept_back.share, problem));
            }
        }
        Ok(())
    }
}

/// Moves the checkpoints, which fences the writes that follow, and then writes the rows of each
/// version.
pub(crate) async fn commit(
    context: &Context,
    work: &[Work<'_>],
    care: Care,
) -> Result<Done, Failed> {
    let moves: Vec<Move> = work.iter().flat_map(|work| &work.moves).copied().collect();
    let mut done = Done { serving: BTreeMap::new(), parked: Vec::new() };
    if moves.is_empty() {
        return Ok(done);
    }
    let begun = context.environment.monotonic();
    let (mut tx, serving) = begin(context, &moves).await?;
    done.serving = serving;
    for work in work {
        done.parked.extend(work.carry_out(&mut tx, care).await?);
    }
    tx.commit().await?;
    let took = context.environment.monotonic().saturating_sub(begun);
    metrics::histogram!("projection_transaction_seconds").record(took.as_secs_f64());
    Ok(done)
}

/// Begins a transaction and moves its checkpoints, which fences the writes that follow. Returns
/// whether each moved version serves.
pub(crate) async fn begin(
    context: &Context,
    moves: &[Move],
) -> Result<(Transaction<'static, Postgres>, BTreeMap<Share, bool>), Failed> {
    let mut tx = database::begin(&context.pool).await?;
    let advanced = checkpoint::advance(&mut tx, moves, context.planted).await?;
    let serving = advanced.map_err(Failed::Fenced)?;
    if context.planted.checkpoint_first() {
        tx.commit().await?;
        tx = database::begin(&context.pool).await?;
    }
    Ok((tx, serving))
}
