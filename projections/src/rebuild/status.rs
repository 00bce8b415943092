//! The status of the versions of the read models, for operators.

use super::{Difference, Manner, indexes::Indexes};
use crate::{
    ReadModel,
    build::Build,
    golden::{self, Why},
    parked,
    version::{Verified, VersionId},
};
use events::{Offset, Partition, Position, log::EventLog, log::ReadError};
use sqlx::{FromRow, PgPool};
use std::collections::BTreeMap;

/// The state of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not caught up yet.
    Building,
    /// It is complete and fed.
    Live,
    /// Another build made it, so this program does not feed it.
    Stale,
    /// At least one of its partitions has stopped.
    Stopped,
}

impl State {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Stopped => "stopped",
        }
    }
}

/// A version of a read model, as an operator sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionStatus {
    /// The read model.
    pub model: ReadModel,
    /// The number of the version, from 1.
    pub version: u32,
    /// Whether queries read this version.
    pub serving: bool,
    /// Its state.
    pub state: State,
    /// Why this program does not feed it; `None` if it does.
    pub stale: Option<String>,
    /// Number of events applied.
    pub events: i64,
    /// Number of events still to apply, as far as it is known: those that other versions have
    /// applied, and one for each partition where the log has more.
    pub lag_events: i64,
    /// The age of the last event applied, in the partition that is furthest behind; 0 when
    /// everything is applied.
    pub lag_seconds: f64,
    /// Number of parked streams.
    pub parked_streams: i64,
    /// Number of events in these streams. They count among the events still to apply.
    pub parked_events: i64,
    /// Its partitions.
    pub partitions: Vec<PartitionStatus>,
    /// The progress of the rebuild; `None` when the version is complete.
    pub rebuild: Option<RebuildStatus>,
}

/// The progress of a rebuild.
#[derive(Clone, Debug, PartialEq)]
pub struct RebuildStatus {
    /// The phase: `filling`, `catching-up`, `verified`, `different` or `paused`.
    pub phase: &'static str,
    /// The options with which it was requested.
    pub manner: Manner,
    /// Events applied per second since the rebuild was begun or resumed.
    pub events_per_second: f64,
    /// The time to the end of the log at this rate; `None` while there is no rate.
    pub seconds_left: Option<f64>,
    /// The result of the comparison: `equal`, `different`, `changed` if another build wrote the
    /// serving version, `undeclared` if that build has the same revision, or `parked` if one of the
    /// two versions has parked streams.
    pub verified: Option<&'static str>,
    /// The first rows that differ.
    pub differences: Vec<Difference>,
}

/// A partition of a version.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: Partition,
    /// The position of the last event applied.
    pub position: Option<Position>,
    /// Why the partition has stopped; `None` while it is fed.
    pub stopped: Option<String>,
}

/// Why the status could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The database does not answer.
    #[error("the versions of the read models cannot be read")]
    Database(#[from] sqlx::Error),
    /// The log does not answer.
    #[error("the end of the log cannot be read")]
    Log(#[from] ReadError),
}

#[derive(FromRow)]
struct StatusRow {
    projection: String,
    version: i32,
    building: bool,
    serving: bool,
    paused: bool,
    #[sqlx(flatten)]
    manner: Manner,
    indexes: String,
    verified: Option<String>,
    differences: Option<String>,
    rate_seconds: f64,
    rate_events: i64,
    partition: i32,
    next_offset: i64,
    last_offset: Option<i64>,
    age_seconds: Option<f64>,
    events: i64,
    stopped: Option<String>,
}

/// The status of every version of every read model.
///
/// # Errors
/// When the database or the log do not answer.
pub async fn status(pool: &PgPool, log: &dyn EventLog) -> Result<Vec<VersionStatus>, StatusError> {
    // The ends are read before the checkpoints, so that events which arrive in between do not count
    // as lag.
    let mut ends = BTreeMap::new();
    for partition in (0..log.partitions()).map(Partition) {
        ends.insert(partition, log.end(partition).await?);
    }
    let rows: Vec<StatusRow> = sqlx::query_as(
        "select projection, version, state = 'building' as building, v.serving, \
         paused, gentle, verify_only, indexes, verified, differences, rate_events, \
         extract(epoch from clock_timestamp() - rate_since)::float8 as rate_seconds, partition, next_offset, \
         last_offset, extract(epoch from clock_timestamp() - last_time)::float8 as age_seconds, \
         events, stopped \
         from control.version v join control.checkpoint c using (projection, version) \
         order by projection, version, partition",
    )
    .fetch_all(pool)
    .await?;
    let standings = golden::noted(pool, Build::Ours).await?;
    let mut most: BTreeMap<i32, i64> = BTreeMap::new();
    for row in &rows {
        let most = most.entry(row.partition).or_default();
        *most = row.events.max(*most);
    }
    let mut versions: Vec<VersionStatus> = Vec::new();
    for row in rows {
        let Ok(model) = row.projection.parse() else { continue };
        let number = row.version.unsigned_abs();
        if versions.last().is_none_or(|last| (last.model, last.version) != (model, number)) {
            let standing = standings.get(&VersionId { model, number: row.version });
            let why = standing.and_then(|standing| standing.why);
            versions.push(blank(model, why, &row));
        }
        if let Some(version) = versions.last_mut() {
            let known = most.get(&row.partition).map_or(0, |most| most - row.events);
            let partition = Partition(row.partition.unsigned_abs());
            let more = ends.get(&partition).is_some_and(|end| Offset(row.next_offset) < *end);
            add(version, partition, row, known.max(i64::from(more)));
        }
    }
    let parked = parked::counts(pool).await?;
    for version in &mut versions {
        let number = i32::try_from(version.version).unwrap_or(i32::MAX);
        let id = VersionId { model: version.model, number };
        (version.parked_streams, version.parked_events) =
            parked.get(&id).copied().unwrap_or_default();
        // The checkpoints count parked events as applied.
        version.events -= version.parked_events;
        version.lag_events += version.parked_events;
    }
    versions.iter_mut().for_each(estimate);
    Ok(versions)
}

/// Estimates the rest of a rebuild from its rate, once all partitions are added.
fn estimate(version: &mut VersionStatus) {
    let Some(rebuild) = &mut version.rebuild else { return };
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    let left = version.lag_events as f64;
    if rebuild.phase == "paused" {
        rebuild.events_per_second = 0.0;
    } else if rebuild.events_per_second > 0.0 {
        rebuild.seconds_left = Some(left / rebuild.events_per_second);
    }
}

fn rebuild(row: &StatusRow) -> RebuildStatus {
    let verified = row.verified.as_deref().and_then(Verified::named);
    let phase = match (row.paused, Indexes::named(&row.indexes), verified) {
        (true, ..) => "paused",
        (_, Indexes::None | Indexes::Key, _) => "filling",
        (_, _, None) => "catching-up",
        (_, _, Some(Verified::Different | Verified::Undeclared)) => "different",
        (_, _, Some(_)) => "verified",
    };
    let differences = row.differences.as_deref().map(serde_json::from_str);
    RebuildStatus {
        phase,
        manner: row.manner,
        events_per_second: 0.0,
        seconds_left: None,
        verified: verified.map(Verified::as_str),
        differences: differences.and_then(Result::ok).unwrap_or_default(),
    }
}

fn blank(model: ReadModel, why: Option<Why>, row: &StatusRow) -> VersionStatus {
    let version = row.version.unsigned_abs();
    let state = match (why, row.building) {
        (Some(_), _) => State::Stale,
        (None, true) => State::Building,
        (None, false) => State::Live,
    };
    let serving = row.serving;
    let (events, lag_events, lag_seconds) = (0, 0, 0.0);
    let partitions = Vec::new();
    let rebuild = row.building.then(|| rebuild(row));
    VersionStatus {
        model,
        version,
        serving,
        state,
        stale: why.map(|why| why.told(model)),
        events,
        lag_events,
        lag_seconds,
        parked_streams: 0,
        parked_events: 0,
        partitions,
        rebuild,
    }
}

fn add(version: &mut VersionStatus, partition: Partition, row: StatusRow, lag: i64) {
    if row.stopped.is_some() {
        version.state = State::Stopped;
    }
    version.events += row.events;
    if let Some(rebuild) = &mut version.rebuild {
        #[allow(clippy::cast_precision_loss, reason = "an estimate")]
        let done = (version.events - row.rate_events).max(0) as f64;
        rebuild.events_per_second = done / row.rate_seconds.max(0.001);
    }
    version.lag_events += lag;
    if lag > 0 {
        let age = row.age_seconds.unwrap_or_default();
        version.lag_seconds = version.lag_seconds.max(age).max(0.0);
    }
    let position = row.last_offset.map(|offset| Position { partition, offset: Offset(offset) });
    version.partitions.push(PartitionStatus { partition, position, stopped: row.stopped });
}
