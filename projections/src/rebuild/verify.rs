//! Compares a new version with the serving one, after exactly the same events.
//!
//! The checkpoints of the new version are locked, so that it stands still. The serving version is
//! read in a snapshot, in which its rows and checkpoints agree, and is fed meanwhile. The new
//! version is brought to exactly these checkpoints. Then the two are compared by a digest of each
//! table and partition. Only the new version has to wait for this.

use crate::{
    checkpoint::{self, Checkpoint, Last, Move},
    database,
    digest::{row_hash, tables},
    facts::{Decoded, Facts},
    golden,
    planted::Planted,
    progress::rest,
    projection::ApplyError,
    rebuild::{
        culprit,
        difference::{self, Difference},
        indexes, switch,
    },
    version::{Verified, Version, VersionId},
    worker::Context,
};
use events::{
    Partition,
    log::{BatchReader, ReadError},
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// No time limits, because all tables are read whole.
const SETTINGS: &str = "set local statement_timeout = 0; \
    set local idle_in_transaction_session_timeout = 0; \
    set local enable_seqscan = on; set local enable_hashjoin = on; set local enable_mergejoin = on";

const SNAPSHOT: &str = "begin isolation level repeatable read read only";

/// How long the serving version may take to reach the new one.
const LEVEL: Duration = Duration::from_secs(2);

/// Pause between two checks of that.
const POLL: Duration = Duration::from_millis(5);

/// Compares a new version with the serving one. No other task of this process works on the new
/// version meanwhile.
pub(crate) struct Verify {
    pub context: Arc<Context>,
    pub version: Arc<Version>,
    pub stop: CancellationToken,
    /// Signalled when the result is stored.
    pub done: Arc<Notify>,
}

/// Why there is no result yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unknown {
    #[error("the versions of a read model cannot be compared")]
    Database(#[from] sqlx::Error),
    #[error("the log cannot be read for the comparison")]
    Log(#[from] ReadError),
    #[error("the new version cannot apply the events up to the serving version's checkpoints")]
    Apply(#[from] ApplyError),
    #[error("{0}")]
    Early(&'static str),
    #[error("an event between the two checkpoints cannot be decoded")]
    Unreadable,
}

type PartitionCheckpoints = BTreeMap<Partition, Checkpoint>;

impl Verify {
    /// Compares the versions and stores the result. If this fails, the projector starts it again.
    pub async fn run(self) {
        let known = tokio::select! {
            known = self.analyze_and_compare() => known,
            () = self.stop.cancelled() => return,
        };
        let id = self.version.id;
        match known {
            Ok(verified) if !verified.lets_serve() => {
                let verified = verified.as_str();
                tracing::error!(
                    version = %id, verified,
                    "the rows of a rebuilt read model differ from the serving ones"
                );
            }
            Ok(verified) => {
                let verified = verified.as_str();
                tracing::info!(version = %id, verified, "a rebuilt read model was compared");
            }
            Err(error) => {
                tracing::warn!(
                    version = %id, error = &error as &dyn Error,
                    "the versions cannot be compared yet, trying again"
                );
                return;
            }
        }
        self.done.notify_one();
    }

    /// Analyses the tables for the planner and compares them, at the same time unless the rebuild
    /// is gentle: both read all rows.
    async fn analyze_and_compare(&self) -> Result<Verified, Unknown> {
        let analyzed = indexes::analyze(&self.context.pool, self.version.id);
        if self.version.manner.gentle {
            analyzed.await;
            return self.compare().await;
        }
        let ((), known) = futures::join!(analyzed, self.compare());
        known
    }

    async fn compare(&self) -> Result<Verified, Unknown> {
        let (pool, id) = (&self.context.pool, self.version.id);
        let mut new = database::begin(pool).await?;
        sqlx::raw_sql(SETTINGS).execute(&mut *new).await?;
        let Some(serving) = switch::serving(&mut new, id.model).await? else {
            return Err(Unknown::Early("no version serves"));
        };
        let standings = golden::noted(pool, self.context.planted.build()).await?;
        let why = standings.get(&serving).and_then(|standing| standing.why);
        let other =
            why.map(|why| if why.is_declared() { Verified::Changed } else { Verified::Undeclared });
        let from = checkpoint::of(&mut new, id, true).await?;
        // Rows that another build wrote are expected to differ. They are compared only if an
        // operator asked for nothing else, and while that build still feeds its version.
        let asked = other.is_none() || self.version.manner.verify_only;
        if !(asked && comes_level(pool, serving, &from).await?) {
            let Some(other) = other else {
                return Err(Unknown::Early("the serving version is behind the new one"));
            };
            note(&mut new, id, other, &[]).await?;
            new.commit().await?;
            return Ok(other);
        }
        let mut old = database::begin_with(pool, SNAPSHOT).await?;
        sqlx::raw_sql(SETTINGS).execute(&mut *old).await?;
        let to = checkpoint::of(&mut old, serving, false).await?;
        if from.values().chain(to.values()).any(|at| at.parked > 0) {
            note(&mut new, id, Verified::Parked, &[]).await?;
            new.commit().await?;
            return Ok(Verified::Parked);
        }
        match self.bring(&mut new, &from, &to).await {
            // The feed will park the stream.
            Err(Unknown::Unreadable) => {
                new.rollback().await?;
                let mut new = database::begin(pool).await?;
                note(&mut new, id, Verified::Parked, &[]).await?;
                new.commit().await?;
                return Ok(Verified::Parked);
            }
            brought => brought?,
        }
        let (ours, theirs) = if self.version.manner.gentle {
            (digests(&mut new, id).await?, digests(&mut old, serving).await?)
        } else {
            futures::try_join!(digests(&mut new, id), digests(&mut old, serving))?
        };
        if ours == theirs {
            note(&mut new, id, Verified::Equal, &[]).await?;
            new.commit().await?;
            return Ok(Verified::Equal);
        }
        let places = ours.keys().chain(theirs.keys());
        let differing = places.filter(|place| ours.get(*place) != theirs.get(*place));
        let mut found = Vec::new();
        for (table, partition) in differing.collect::<BTreeSet<_>>() {
            let sides = ((&mut *old, serving), (&mut *new, id));
            found.extend(difference::first(sides, table, *partition).await?);
            if found.len() >= difference::SHOWN {
                break;
            }
        }
        found.truncate(difference::SHOWN);
        // Only for the first difference, because it takes a while.
        if let Some(first) = found.first_mut() {
            first.position = culprit::find(&self.context, &mut new, id, first, &to).await?;
        }
        note(&mut new, id, Verified::Different, &found).await?;
        new.commit().await?;
        Ok(Verified::Different)
    }

    /// Applies the events up to the serving version's checkpoints, and moves the new version's
    /// checkpoints there.
    async fn bring(
        &self,
        new: &mut PgConnection,
        from: &PartitionCheckpoints,
        to: &PartitionCheckpoints,
    ) -> Result<(), Unknown> {
        for (&partition, target) in to {
            let at = from
                .get(&partition)
                .ok_or(Unknown::Early("a checkpoint of the new version is missing"))?;
            if at.cursor.offset > target.cursor.offset {
                return Err(Unknown::Early("the new version is ahead of the serving one"));
            }
            if at.cursor.offset < target.cursor.offset {
                self.bring_partition(new, partition, at, target).await?;
            }
        }
        Ok(())
    }

    async fn bring_partition(
        &self,
        new: &mut PgConnection,
        partition: Partition,
        from: &Checkpoint,
        to: &Checkpoint,
    ) -> Result<(), Unknown> {
        let (mut cursor, end) = (from.cursor, to.cursor.offset);
        let (mut last, mut events) = (None, 0);
        let mut reader = BatchReader::open(&*self.context.log, partition, cursor).await?;
        while cursor.offset < end {
            let chunk = reader.next().await?;
            let at_end = chunk.at_end;
            let mut decoded = Decoded::of(chunk);
            decoded.facts.retain(|fact| fact.position.offset < end);
            cursor = decoded.cursor;
            if decoded.undecodable.iter().any(|it| it.position.offset < end) {
                return Err(Unknown::Unreadable);
            }
            if cursor.offset < end && at_end {
                return Err(Unknown::Early("the log ends before the serving version's checkpoint"));
            }
            let mut facts = Facts::default();
            facts.add(&decoded.facts, from.cursor.offset);
            self.version.writer.apply(new, &facts).await?;
            last = decoded.facts.last().map(Last::of).or(last);
            events += i64::try_from(decoded.facts.len()).unwrap_or(i64::MAX);
        }
        let share = (self.version.id, partition);
        let step = Move { share, expected: from.cursor.offset, to: to.cursor, last, events };
        let moved = checkpoint::advance(new, &[step], Planted::Nothing).await?;
        moved.map(drop).map_err(|_| Unknown::Early("another writer moved a checkpoint first"))
    }
}

/// Whether the serving version reaches the new one's checkpoints within [`LEVEL`].
async fn comes_level(
    pool: &PgPool,
    serving: VersionId,
    new: &PartitionCheckpoints,
) -> Result<bool, sqlx::Error> {
    let mut waited = Duration::ZERO;
    loop {
        let mut connection = pool.acquire().await?;
        let found = checkpoint::of(&mut connection, serving, false).await?;
        drop(connection);
        let level = |(partition, new): (&Partition, &Checkpoint)| {
            found.get(partition).is_some_and(|old| old.cursor.offset >= new.cursor.offset)
        };
        if new.iter().all(level) {
            return Ok(true);
        }
        if waited >= LEVEL {
            return Ok(false);
        }
        rest(POLL).await;
        waited += POLL;
    }
}

/// The number of rows and the sum of their hashes, by table and partition.
type Digests = BTreeMap<(String, i32), (i64, String)>;

async fn digests(connection: &mut PgConnection, id: VersionId) -> Result<Digests, sqlx::Error> {
    let mut digests = Digests::new();
    let schema = id.schema();
    for table in tables(connection, &schema).await? {
        let hash = row_hash(connection, &schema, &table).await?;
        let query = format!(
            "select partition, count(*), sum({hash})::text \
             from {schema}.{table} t group by partition"
        );
        let rows: Vec<(i32, i64, String)> =
            sqlx::query_as(AssertSqlSafe(query)).fetch_all(&mut *connection).await?;
        let of = |(partition, count, sum)| ((table.clone(), partition), (count, sum));
        digests.extend(rows.into_iter().map(of));
    }
    Ok(digests)
}

async fn note(
    connection: &mut PgConnection,
    id: VersionId,
    verified: Verified,
    differences: &[Difference],
) -> Result<(), sqlx::Error> {
    let differences = match differences {
        [] => None,
        found => Some(serde_json::to_string(found).unwrap_or_default()),
    };
    sqlx::query(
        "update control.version set verified = $3, differences = $4 \
         where projection = $1 and version = $2",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .bind(verified.as_str())
    .bind(differences)
    .execute(connection)
    .await?;
    Ok(())
}
