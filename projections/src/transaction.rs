//! One transaction: checkpoints and rows, all or nothing.

use crate::{
    checkpoint::{self, Fenced, Last, Move},
    database,
    facts::Facts,
    lease::Share,
    projection::ApplyError,
    session::{Gathered, Lane},
    version::{Version, VersionId},
    worker::Context,
};
use events::Partition;
use sqlx::{Postgres, Transaction};
use std::{collections::BTreeMap, sync::Arc};

/// What a transaction does to one version.
pub(crate) struct Work<'a> {
    version: Arc<Version>,
    pub moves: Vec<Move>,
    facts: Facts<'a>,
}

/// Why a transaction did not commit.
pub(crate) enum Failed {
    Fenced(Fenced),
    /// Trying again may help.
    Database(sqlx::Error),
    /// Trying again does not help: a stream of this version is not what it must be.
    Stream(Share, String),
    /// Trying again does not help: the database refuses the rows.
    Rows(sqlx::Error),
}

/// What is to be written, by version, of the lanes that `included` names.
pub(crate) fn plan<'a>(
    lanes: &BTreeMap<Share, Lane>,
    gathered: &'a BTreeMap<Partition, Gathered>,
    included: impl Fn(Share) -> bool,
) -> Vec<Work<'a>> {
    let mut plan: BTreeMap<VersionId, Work<'a>> = BTreeMap::new();
    for (&share, lane) in lanes {
        let (id, partition) = share;
        let Some(gathered) = gathered.get(&partition) else { continue };
        let at = lane.checkpoint.cursor.offset;
        if !included(share) || gathered.cursor.offset <= at {
            continue;
        }
        let work = plan.entry(id).or_insert_with(|| Work {
            version: Arc::clone(&lane.version),
            moves: Vec::new(),
            facts: Facts::default(),
        });
        let facts = work.facts.add(&gathered.facts, at);
        work.moves.push(Move {
            share,
            expected: at,
            to: gathered.cursor,
            last: facts.last().map(Last::of),
            events: i64::try_from(facts.len()).unwrap_or(i64::MAX),
        });
    }
    plan.into_values().collect()
}

/// Moves the checkpoints, which fences what follows, and then writes the rows of each version. Tells which of them serve.
pub(crate) async fn commit(
    context: &Context,
    work: &[Work<'_>],
) -> Result<BTreeMap<Share, bool>, Failed> {
    let moves: Vec<Move> = work.iter().flat_map(|work| &work.moves).copied().collect();
    if moves.is_empty() {
        return Ok(BTreeMap::new());
    }
    let begun = context.environment.monotonic();
    let (mut tx, serving) = begin(context, &moves).await?;
    for work in work {
        let applied = work.version.writer.apply(&mut tx, &work.facts).await;
        applied.map_err(|error| failed(work.version.id, error))?;
    }
    tx.commit().await.map_err(Failed::Database)?;
    let took = context.environment.monotonic().saturating_sub(begun);
    metrics::histogram!("projection_transaction_seconds").record(took.as_secs_f64());
    Ok(serving)
}

/// Begins a transaction of rows with what fences them: the moves of their checkpoints. Tells which of them serve.
pub(crate) async fn begin(
    context: &Context,
    moves: &[Move],
) -> Result<(Transaction<'static, Postgres>, BTreeMap<Share, bool>), Failed> {
    let mut tx = database::begin(&context.pool).await.map_err(Failed::Database)?;
    let advanced =
        checkpoint::advance(&mut tx, moves, context.planted).await.map_err(Failed::Database)?;
    let serving = advanced.map_err(Failed::Fenced)?;
    if context.planted.checkpoint_first() {
        tx.commit().await.map_err(Failed::Database)?;
        tx = database::begin(&context.pool).await.map_err(Failed::Database)?;
    }
    Ok((tx, serving))
}

pub(crate) fn failed(id: VersionId, error: ApplyError) -> Failed {
    match error {
        ApplyError::Stream { partition, stream, problem } => {
            Failed::Stream((id, partition), format!("{stream} {problem}"))
        }
        ApplyError::Database(error) if refuses_rows(&error) => Failed::Rows(error),
        ApplyError::Database(error) => Failed::Database(error),
    }
}

/// Whether the rows themselves are at fault: data the database cannot hold (SQLSTATE class 22), a broken constraint (23), a
/// row that is there no more, or one that does not read.
fn refuses_rows(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
        }
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Encode(_) => {
            true
        }
        _ => false,
    }
}
