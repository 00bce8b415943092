//! Applies the events of a parked stream, after a fix.
//!
//! A retry reads the log without a lock. It then locks the checkpoint and applies what it has read.
//! A feed of the same partition either records further events of the stream before that, or finds
//! afterwards that the stream is no longer parked and starts again from the checkpoint.

use super::{Sieve, apply_carefully, store};
use crate::{
    ReadModel, checkpoint, database,
    facts::{Decoded, Fact, Facts, Undecodable},
    lease::Share,
};
use events::{
    Position, StreamId,
    log::{BatchReader, Cursor, EventLog, ReadError},
};
use sqlx::{PgConnection, PgPool};
use std::sync::Arc;

/// Smallest number of events in a transaction, as long as there are more: batches are applied
/// whole.
const PIECE: usize = 1_000;

/// The result of a retry in one version.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryReport {
    /// The read model.
    pub model: ReadModel,
    /// The version of the read model.
    pub version: u32,
    /// The number of events that this retry applied.
    pub applied: u64,
    /// What became of the stream.
    pub result: Retried,
}

/// What a retry did with a parked stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retried {
    /// All events are applied, and the stream is no longer parked.
    Drained,
    /// The stream is still parked.
    Parked {
        /// The first event that is not applied.
        position: Position,
        /// Why it cannot be applied.
        reason: String,
    },
    /// Another build feeds this version, so the retry left it alone.
    Stale,
}

/// Why a retry failed or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// No version has parked this stream.
    #[error("{0} is not parked")]
    NotParked(StreamId),
    /// The log does not answer.
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
    /// The log ends before the events that were kept back.
    #[error("the log ends before the parked events: is it another log?")]
    OtherLog,
    /// The database does not answer, or refuses.
    #[error("the parked stream cannot be changed")]
    Database(#[from] sqlx::Error),
}

/// Applies the events that each version keeps back of `stream`, in order and through this program's
/// upcasters, until one is refused again. It is safe while the versions are fed, and while another
/// retry runs.
///
/// # Errors
/// When the stream is not parked, or the log or the database do not answer. Events that were
/// applied by then stay applied.
pub async fn retry(
    pool: &PgPool,
    log: &Arc<dyn EventLog>,
    stream: StreamId,
) -> Result<Vec<RetryReport>, RetryError> {
    let (pool, log) = (pool.clone(), Arc::clone(log));
    // Runs to its end even if the caller is dropped.
    #[expect(clippy::disallowed_methods, reason = "ends by itself, with the stream")]
    let done = tokio::spawn(async move {
        let parked = store::of_stream(&pool, stream).await?;
        if parked.is_empty() {
            return Err(RetryError::NotParked(stream));
        }
        let mut retried = Vec::new();
        for (share, ours) in parked {
            let (applied, result) =
                if ours { drain(&pool, &*log, share, stream).await? } else { (0, Retried::Stale) };
            let (model, version) = (share.0.model, share.0.number.unsigned_abs());
            tracing::info!(version = %share.0, %stream, applied, ?result, "parked stream retried");
            retried.push(RetryReport { model, version, applied, result });
        }
        Ok(retried)
    });
    done.await.unwrap_or_else(|_| Err(sqlx::Error::WorkerCrashed.into()))
}

async fn drain(
    pool: &PgPool,
    log: &dyn EventLog,
    share: Share,
    stream: StreamId,
) -> Result<(u64, Retried), RetryError> {
    let mut applied = 0;
    loop {
        let row = store::row(&mut *pool.acquire().await?, share, stream).await?;
        let Some(row) = row else { return Ok((applied, Retried::Drained)) };
        let piece = Piece::read(log, &row, stream).await?;
        let mut tx = database::begin(pool).await?;
        // A feed moves the checkpoint first in its transaction, so this lock excludes it.
        checkpoint::lock(&mut tx, share).await?;
        let Some(now) = store::row(&mut tx, share, stream).await? else { continue };
        if now.first != row.first {
            // Another retry applied events meanwhile.
            continue;
        }
        let step = piece.apply(&mut tx, &now, stream).await?;
        tx.commit().await?;
        applied += step.applied;
        match step.refused {
            Some((position, reason)) => {
                return Ok((applied, Retried::Parked { position, reason }));
            }
            None if step.done => return Ok((applied, Retried::Drained)),
            None => {}
        }
    }
}

/// Some events of a stream, as read from the log.
struct Piece {
    facts: Vec<Fact>,
    poison: Option<Undecodable>,
    /// Where the next piece begins.
    next: Cursor,
}

/// The result of applying a piece.
struct Step {
    applied: u64,
    refused: Option<(Position, String)>,
    /// Whether all events that were kept back are applied.
    done: bool,
}

impl Piece {
    /// Reads the events that are kept back: up to the last one, an event that cannot be decoded, or
    /// [`PIECE`] events.
    async fn read(
        log: &dyn EventLog,
        row: &store::RetryRow,
        stream: StreamId,
    ) -> Result<Self, RetryError> {
        let mut piece = Self { facts: Vec::new(), poison: None, next: row.read_from };
        let mut reader = BatchReader::open(log, row.share.1, row.read_from).await?;
        while piece.facts.len() < PIECE && piece.poison.is_none() && piece.next.offset <= row.last {
            let chunk = reader.next().await?;
            let Decoded { facts, undecodable, cursor, at_end } = Decoded::of(chunk);
            let kept_back = |of: StreamId, at: Position| of == stream && at.offset >= row.first;
            let mut poison = undecodable.into_iter();
            piece.poison = poison.find(|it| kept_back(it.record.stream, it.position));
            piece.facts.extend(
                facts.into_iter().filter(|fact| kept_back(fact.record.stream, fact.position)),
            );
            piece.next = cursor;
            if at_end && cursor.offset <= row.last {
                return Err(RetryError::OtherLog);
            }
        }
        if let Some(poison) = &piece.poison {
            piece.facts.retain(|fact| fact.position < poison.position);
        }
        Ok(piece)
    }

    /// Applies the events that `row` keeps back.
    async fn apply(
        mut self,
        connection: &mut PgConnection,
        row: &store::RetryRow,
        stream: StreamId,
    ) -> Result<Step, sqlx::Error> {
        // Events after `row.last` have not been fed yet.
        self.facts.retain(|fact| fact.position.offset <= row.last);
        let poison = self.poison.take().filter(|it| it.position.offset <= row.last);
        let id = row.share.0;
        let writer = id.model.writer(&id.schema());
        let mut sieve = Sieve::new(id);
        if let Some(poison) = &poison {
            sieve.undecodable(poison);
        }
        let facts = Facts::from(&*self.facts);
        apply_carefully(&mut *connection, &*writer, &facts, &mut sieve).await?;
        if let Some(kept_back) = sieve.kept_back().next().cloned() {
            let applied =
                self.facts.iter().filter(|it| it.position.offset < kept_back.first).count();
            store::still_parked(connection, &kept_back, applied).await?;
            let at = Position { partition: row.share.1, offset: kept_back.first };
            let refused = Some((at, kept_back.reason.unwrap_or_default()));
            return Ok(Step { applied: applied as u64, refused, done: false });
        }
        let applied = self.facts.len();
        let done = self.next.offset > row.last;
        if done {
            store::unpark(connection, row.share, stream).await?;
        } else {
            store::go_on_from(connection, row.share, stream, self.next, applied).await?;
        }
        Ok(Step { applied: applied as u64, refused: None, done })
    }
}
