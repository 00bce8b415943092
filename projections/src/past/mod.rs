//! The log folded again: read models as they were, one stream's rows anew, and whether what serves is what the log says.
//!
//! All of it happens in one transaction of a session of its own, with tables that nobody else sees until it commits, through
//! the same code that feeds a version. Memory holds a few thousand events at a time.

mod audit;
mod fold;
mod stream;

pub use audit::{Difference, ModelReport, audit};
pub use stream::{Rebuilt, rebuild_stream};

use crate::{ReadModel, version::VersionId};
use events::{
    LogPosition, Offset, Partition, Position, StreamId, Timestamp,
    log::{EventLog, ReadError, Record},
};
use fold::{End, Scratch};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, PgPool, postgres::PgConnectOptions};
use std::{collections::BTreeMap, str::FromStr};

/// A moment of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Everything decided up to and with this time.
    Time(Timestamp),
    /// Every event up to and with those named; partitions that are not named end at the time of the latest of these.
    Token(LogPosition),
}

/// Neither a time as RFC 3339 has it nor a position.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a moment is a time like 2026-11-20T12:00:00Z, or a Log-Position as it was answered")]
pub struct MomentError;

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Time(time.to_utc()));
        }
        text.parse().map(Self::Token).map_err(|_| MomentError)
    }
}

/// Why the past cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// It has not come yet.
    #[error("{0} is in the future")]
    Future(Timestamp),
    /// A position names none.
    #[error("there is no event at {0}")]
    NoSuchEvent(Position),
    /// Other code writes the serving version.
    #[error("the serving version of {0} was written by other code")]
    Stale(ReadModel),
    /// Rows of this read model are no single stream's.
    #[error("{model} has no rows of {stream} alone")]
    NotOfStream {
        /// Which read model.
        model: ReadModel,
        /// Which stream.
        stream: StreamId,
    },
    /// It is kept back.
    #[error("{0} is parked: try it again instead")]
    Parked(StreamId),
    /// An event of it cannot be applied.
    #[error("{stream} cannot be applied: {reason}")]
    Refused {
        /// Which stream.
        stream: StreamId,
        /// Why.
        reason: String,
    },
    /// The log ends before the checkpoint.
    #[error("the log does not hold what was applied")]
    OtherLog,
    /// The log does not answer.
    #[error("the log cannot be read")]
    Log(#[from] ReadError),
    /// The database does not answer, or refuses.
    #[error("the past cannot be written")]
    Database(#[from] sqlx::Error),
}

/// Where a moment ends each partition.
pub struct Ends(BTreeMap<Partition, End>);

impl Ends {
    /// Of a moment that is not after `now`.
    ///
    /// # Errors
    /// When it is, or names an event that is not there, or the log does not answer.
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

    /// Whether an event belongs to it.
    pub fn include(&self, at: Position, time: Timestamp) -> bool {
        self.0.get(&at.partition).is_some_and(|end| end.includes(at.offset, time))
    }
}

/// The time of the event at a position.
async fn time_of(log: &dyn EventLog, at: Position) -> Result<Timestamp, PastError> {
    // What stands behind the end would be waited for.
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

/// A read model as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Past {
    /// The schema that holds its tables.
    pub schema: String,
    /// Events in it.
    pub events: u64,
    /// Streams that are not whole in it, and why.
    pub refused: Vec<(StreamId, String)>,
}

/// Builds `model` as it was at `moment`, into a schema of its own; another one of the same name gives way. Queries do not
/// see it, and nobody feeds it.
///
/// # Errors
/// When the moment is none of this log's, or log or database do not answer. Then nothing is left of it.
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

/// The moment in letters and digits.
fn name(moment: &Moment) -> String {
    match moment {
        Moment::Time(time) => time.format("%Y%m%dt%H%M%S%6fz").to_string(),
        Moment::Token(token) => {
            let token = token.to_string();
            let hash = token.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            format!("position_{hash:016x}")
        }
    }
}

/// A session of its own, in which statements and transactions may take their time.
pub(crate) async fn session(pool: &PgPool) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = pool.connect_options().as_ref().clone();
    options
        .options([
            ("statement_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            // "drop cascades to" is no news.
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
        for text in ["", "yesterday", "2026-11-20", "3:", "3"] {
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
