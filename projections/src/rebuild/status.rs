//! How the versions of the read models are, for those who run the shop.

use super::{Difference, Manner, indexes::Indexes};
use crate::{
    Planted, ReadModel,
    golden::{self, Why},
    parked,
    version::{Verified, VersionId},
};
use events::{Offset, Partition, Position, log::EventLog, log::ReadError};
use sqlx::{FromRow, PgPool};
use std::collections::BTreeMap;

/// How a version is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not caught up for the first time yet.
    Building,
    /// It is complete, and fed.
    Live,
    /// It is of other code than this program's and is not fed by it.
    Stale,
    /// A partition of it cannot go on.
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
    /// Of which read model.
    pub model: ReadModel,
    /// Its number, from 1.
    pub version: u32,
    /// Whether queries see it.
    pub serving: bool,
    /// How it is.
    pub state: State,
    /// Why this program does not feed it; `None` if it does.
    pub stale: Option<String>,
    /// Events it has applied.
    pub events: i64,
    /// Events it has still to apply, as far as they are known: those that other versions have applied, and at least one
    /// where the log goes on.
    pub lag_events: i64,
    /// How long ago the last event was decided that it has applied, in the partition that is furthest behind; 0 when it
    /// has applied all.
    pub lag_seconds: f64,
    /// Streams that it keeps back.
    pub parked_streams: i64,
    /// Events of these: they are among those it has still to apply.
    pub parked_events: i64,
    /// Each partition of it.
    pub partitions: Vec<PartitionStatus>,
    /// How far the rebuild is that makes it; `None` when it is complete.
    pub rebuild: Option<RebuildStatus>,
}

/// How far a rebuild is.
#[derive(Clone, Debug, PartialEq)]
pub struct RebuildStatus {
    /// What happens to it: `filling`, `catching-up`, `verified`, `different` or `paused`.
    pub phase: &'static str,
    /// How it was asked for.
    pub manner: Manner,
    /// Events applied a second since it was begun or resumed.
    pub events_per_second: f64,
    /// When that would bring it to the end of the log; `None` while nothing is known.
    pub seconds_left: Option<f64>,
    /// What came of comparing it: `equal`, `different`, `changed` if other code wrote the serving version, `undeclared` if
    /// other code of the same revision did, or `parked` if one of the two keeps streams back.
    pub verified: Option<&'static str>,
    /// The first rows that differ.
    pub differences: Vec<Difference>,
}

/// A partition of a version.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionStatus {
    /// Which one.
    pub partition: Partition,
    /// The last event applied.
    pub position: Option<Position>,
    /// Why nothing more is applied; `None` while all is well.
    pub stopped: Option<String>,
}

/// Why the versions cannot be shown.
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
struct Row {
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

/// Every version of every read model.
///
/// # Errors
/// When database or log do not answer.
pub async fn status(pool: &PgPool, log: &dyn EventLog) -> Result<Vec<VersionStatus>, StatusError> {
    // Before the checkpoints are read: what they have by then counts.
    let mut ends = BTreeMap::new();
    for partition in (0..log.partitions()).map(Partition) {
        ends.insert(partition, log.end(partition).await?);
    }
    let rows: Vec<Row> = sqlx::query_as(
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
    let standings = golden::noted(pool, Planted::Nothing).await?;
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
        // Checkpoints count them.
        version.events -= version.parked_events;
        version.lag_events += version.parked_events;
    }
    versions.iter_mut().for_each(estimate);
    Ok(versions)
}

/// What its rate says of a rebuild, once all of its partitions are known.
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

fn rebuild(row: &Row) -> RebuildStatus {
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

fn blank(model: ReadModel, why: Option<Why>, row: &Row) -> VersionStatus {
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

fn add(version: &mut VersionStatus, partition: Partition, row: Row, lag: i64) {
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
