//! Folds the log again: builds read models as they were in the past, rebuilds the rows of one
//! stream, and compares serving read models with the log.
//!
//! Each of these runs in one transaction of a session of its own, with the same code that feeds a
//! version. Its tables are invisible to others until it commits. It holds a few thousand events in
//! memory at a time.

mod audit;
mod fold;
mod stream;

pub use audit::{ModelReport, UnmatchedRow, audit};
pub use stream::{Rebuilt, rebuild_stream};

use crate::{ReadModel, version::VersionId};
use events::{
    LogPosition, Offset, Partition, Position, StreamId, Timestamp,
    log::{EventLog, ReadError, Record},
};
use fold::{End, Scratch};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool, postgres::PgConnectOptions};
use std::{collections::BTreeMap, str::FromStr};

/// A moment in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Every event decided at this time or earlier.
    Time(Timestamp),
    /// Every event up to and including the named ones. A partition that is not named ends at the
    /// time of the latest named event.
    Token(LogPosition),
}

/// The text is neither an RFC 3339 time nor a position.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a moment is a time like 2026-11-20T12:00:00Z, or the value of a Log-Position header")]
pub struct MomentError;

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
            // A second 60 has more nanoseconds than a second.
            let is_plain = time.timestamp_subsec_nanos() < 1_000_000_000;
            return is_plain.then(|| Self::Time(time.to_utc())).ok_or(MomentError);
        }
        text.parse().map(Self::Token).map_err(|_| MomentError)
    }
}

/// Why a fold of the log failed.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The moment is in the future.
    #[error("{0} is in the future")]
    Future(Timestamp),
    /// There is no event at a position of the moment.
    #[error("there is no event at {0}")]
    NoSuchEvent(Position),
    /// Another build wrote the serving version.
    #[error("another build wrote the serving version of {0}")]
    Stale(ReadModel),
    /// The rows of this read model cannot be rebuilt for this stream alone.
    #[error("the rows of {stream} in {model} cannot be rebuilt alone")]
    NotOfStream {
        /// The read model.
        model: ReadModel,
        /// The stream.
        stream: StreamId,
    },
    /// The stream is parked.
    #[error("{0} is parked: retry it instead")]
    Parked(StreamId),
    /// An event of the stream cannot be applied.
    #[error("{stream} cannot be applied: {reason}")]
    Refused {
        /// The stream.
        stream: StreamId,
        /// Why.
        reason: String,
    },
    /// The log ends before the checkpoint.
    #[error("the log ends before the events that were applied: is it another log?")]
    OtherLog,
    /// The log does not answer.
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
    /// The database does not answer, or refuses.
    #[error("the database cannot be used for the fold of the log")]
    Database(#[from] sqlx::Error),
}

/// Where each partition ends at a moment.
pub struct Ends(BTreeMap<Partition, End>);

impl Ends {
    /// The ends of all partitions at `moment`.
    ///
    /// # Errors
    /// When the moment is after `now` or names an event that does not exist, or when the log does
    /// not answer.
    pub async fn of(
        moment: &Moment,
        log: &dyn EventLog,
        now: Timestamp,
    ) -> Result<Self, PastError> {
        let partitions = (0..log.partitions()).map(Partition);
        let token = match moment {
            Moment::Time(time) if *time > now => return Err(PastError::Future(*time)),
            Moment::Time(time) => {
                return Ok(Self(partitions.map(|it| (it, End::Until(*time))).collect()));
            }
            Moment::Token(token) => token,
        };
        let mut latest = None;
        for position in token.iter() {
            latest = latest.max(Some(time_of(log, position).await?));
        }
        let rest = latest.map_or(End::Before(Offset::START), End::Until);
        let mut ends: BTreeMap<_, _> = partitions.map(|it| (it, rest)).collect();
        ends.extend(token.iter().map(|it| (it.partition, End::With(it.offset))));
        Ok(Self(ends))
    }

    /// Whether an event belongs to the moment.
    pub fn include(&self, at: Position, time: Timestamp) -> bool {
        self.0.get(&at.partition).is_some_and(|end| end.includes(at.offset, time))
    }
}

/// The time of the event at a position.
async fn time_of(log: &dyn EventLog, at: Position) -> Result<Timestamp, PastError> {
    // Reading at or after the end would wait for new events.
    if at.partition.0 >= log.partitions() || at.offset >= log.acknowledged(at.partition).await? {
        return Err(PastError::NoSuchEvent(at));
    }
    let mut reader = log.read(at.partition, at.offset).await?;
    loop {
        let chunk = reader.next().await?;
        if let Some(first) = chunk.records.first() {
            let is = |record: &Record| record.stream.kind != events::StreamKind::Writer;
            let found = first.offset == at.offset && is(&first.record);
            return if found { Ok(first.record.time) } else { Err(PastError::NoSuchEvent(at)) };
        }
        if chunk.at_end {
            return Err(PastError::NoSuchEvent(at));
        }
    }
}

/// A read model as it was at a moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// The schema that contains its tables.
    pub schema: String,
    /// The number of events applied.
    pub events: u64,
    /// Streams that could not be applied completely, and why.
    pub refused: Vec<(StreamId, String)>,
}

/// Builds `model` as it was at `moment`, in a schema of its own, which replaces one of the same
/// name. Queries do not use it, and no projector feeds it.
///
/// # Errors
/// When the moment is not one of this log, or the log or the database do not answer. Nothing is
/// left behind then.
pub async fn as_of(
    pool: &PgPool,
    log: &dyn EventLog,
    model: ReadModel,
    moment: &Moment,
    now: Timestamp,
) -> Result<Past, PastError> {
    let ends = Ends::of(moment, log, now).await?;
    let schema = format!("{model}_as_of_{}", name(moment));
    let mut connection = session(pool).await?;
    let mut tx = sqlx::Connection::begin(&mut connection).await?;
    let drop = format!("drop schema if exists {schema} cascade");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *tx).await?;
    let id = VersionId { model, number: 0 };
    let mut scratch = Scratch::create(&mut tx, id, schema).await?;
    for (&partition, &end) in &ends.0 {
        scratch.fold(&mut tx, log, partition, end, |_, _| true).await?;
    }
    tx.commit().await?;
    Ok(Past { events: scratch.events, refused: scratch.refused(), schema: scratch.schema })
}

/// The moment as part of a schema name.
fn name(moment: &Moment) -> String {
    match moment {
        Moment::Time(time) => time.format("%Y%m%dt%H%M%S%6fz").to_string(),
        Moment::Token(token) => {
            let hash = events::fnv1a(token.to_string().bytes());
            format!("position_{hash:016x}")
        }
    }
}

/// Opens a session without time limits for statements and transactions.
pub(crate) async fn session(pool: &PgPool) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = pool.connect_options().as_ref().clone();
    options
        .options([
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            // Hides notices such as "drop cascades to".
            ("client_min_messages", "warning"),
        ])
        .connect()
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_position() {
        let of = |text: &str| text.parse::<Moment>();
        assert!(matches!(of("2026-11-20T12:00:00Z"), Ok(Moment::Time(_))));
        assert_eq!(of("2026-11-20T12:00:00Z"), of("2026-11-20T13:00:00+01:00"));
        assert!(matches!(of("3:17,4:2"), Ok(Moment::Token(_))));
        for text in ["", "yesterday", "2026-11-20", "3:", "3", "2026-11-20T12:00:60Z"] {
            assert_eq!(of(text), Err(MomentError), "{text}");
        }
    }

    #[test]
    fn names_of_moments_differ_and_are_names() {
        let of = |text: &str| name(&text.parse().unwrap());
        assert_eq!(of("2026-11-20T12:00:00.5Z"), "20261120t120000500000z");
        assert_ne!(of("3:17"), of("3:18"));
    }
}
