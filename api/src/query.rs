//! What all queries share: waiting for the read model, single reads, pages of lists, and the headers
//! of answers.

mod page;

pub(crate) use page::{CURSOR_BYTES, foreign_cursor};
pub use page::{Cursors, ListBody, PageParams, PageRequest, limit};

use crate::{
    App,
    causality::{self, Freshness, LOG_POSITION, Prefer, etag, set_header},
    problem::{Kind, Problem},
};
use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use events::{LogPosition, Partition, Position, StreamId, partitioner::partition_of};
use futures::future::try_join_all;
use projections::{QueryError, ReadModel, ReadModels};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// How long a read of one resource waits for the read model to reach the log's end before it
/// answers 404.
const ABSENCE_WAIT: Duration = Duration::from_secs(5);
/// Seconds of `Retry-After` while a read model is being rebuilt, and while it waits for an operator
/// to rebuild it.
const REBUILT_SOON: u64 = 3;
const REBUILT_LATE: u64 = 30;

/// The problem for a failed query. The database's own message is logged and not answered.
pub(crate) fn failed(error: &QueryError) -> Problem {
    match error {
        QueryError::Database(_) if error.is_busy() => {
            tracing::warn!(error = error as &dyn std::error::Error, "a query was given up");
            Problem::unavailable("the read models are busy")
        }
        QueryError::Database(_) => {
            tracing::error!(error = error as &dyn std::error::Error, "a query failed");
            Problem::unavailable("the read models do not answer")
        }
        QueryError::Row { .. } => Problem::internal(error),
        QueryError::Parked { model, stream } => Problem::from(Kind::ProjectionParked)
            .with("projection", model.as_str())
            .with("stream", stream.to_string())
            .retry_after(30),
    }
}

/// The result of a query, and the position that it reflects.
pub struct Found<T> {
    /// The result.
    pub value: T,
    /// The last event applied in each partition before the rows were read. The rows may reflect
    /// later events as well.
    pub position: LogPosition,
}

impl<T> Found<T> {
    /// Another value at the same position.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found { value: change(self.value), position: self.position }
    }
}

/// Runs a query once the read model reflects the position that the caller asks for.
///
/// # Errors
/// `projection-behind` if that takes too long, `unavailable` if the database does not answer.
pub async fn read<T, F>(
    reads: &ReadModels,
    model: ReadModel,
    freshness: &Freshness,
    query: impl FnOnce(ReadModels) -> F,
) -> Result<Found<T>, Problem>
where
    F: Future<Output = Result<T, QueryError>> + Send,
{
    read_joined(reads, &[model], freshness, query).await
}

/// As [`read`], for a query over several read models. Its position is what all of them reflect.
///
/// # Errors
/// As [`read`].
pub async fn read_joined<T, F>(
    reads: &ReadModels,
    models: &[ReadModel],
    freshness: &Freshness,
    query: impl FnOnce(ReadModels) -> F,
) -> Result<Found<T>, Problem>
where
    F: Future<Output = Result<T, QueryError>> + Send,
{
    if let Some(token) = &freshness.at_least {
        if token.iter().any(|at| at.partition.0 >= reads.partitions()) {
            return Err(causality::foreign_position());
        }
        let within = freshness.prefer.query_wait();
        let arrived = models.iter().map(|&model| reads.wait_for(model, token, within));
        try_join_all(arrived).await.map_err(|error| causality::behind(&error))?;
    }
    let positions = models.iter().map(|&model| reads.position(model));
    let positions = try_join_all(positions).await.map_err(|error| failed(&error))?;
    match query(reads.clone()).await {
        Ok(value) => Ok(Found { value, position: in_all(&positions) }),
        Err(error) => {
            Err(built_by_another(reads, models, &error).await.unwrap_or_else(|| failed(&error)))
        }
    }
}

/// The problem for a query that fails because the serving version was built by another program and
/// its tables have another shape. A rebuild mends that.
async fn built_by_another(
    reads: &ReadModels,
    models: &[ReadModel],
    error: &QueryError,
) -> Option<Problem> {
    if !error.is_of_shape() {
        return None;
    }
    let stale = reads.stale().await.ok()?.into_iter().find(|it| models.contains(&it.model))?;
    let (model, reason) = (stale.model, stale.reason);
    tracing::info!(%model, reason, "a query needs a rebuild of its read model");
    let (now, seconds) = if stale.rebuilding {
        ("is being rebuilt for this program", REBUILT_SOON)
    } else {
        ("must be rebuilt for this program", REBUILT_LATE)
    };
    let detail = format!("the read model {model} {now}: {reason}");
    let problem = Problem::new(Kind::Unavailable, detail).retry_after(seconds);
    Some(problem.with("projection", model.as_str()))
}

/// The position that all of `positions` reflect: the least offset of each partition that all of
/// them name.
fn in_all(positions: &[LogPosition]) -> LogPosition {
    let mut least: BTreeMap<Partition, Vec<Position>> = BTreeMap::new();
    for at in positions.iter().flat_map(LogPosition::iter) {
        least.entry(at.partition).or_default().push(at);
    }
    let named = least.into_values().filter(|named| named.len() == positions.len());
    named.filter_map(|named| named.into_iter().min_by_key(|at| at.offset)).collect()
}

/// The partition of a stream.
pub fn partition(app: &App, stream: StreamId) -> [Partition; 1] {
    [partition_of(stream, app.log.partitions())]
}

/// All partitions, for a resource whose stream is not known.
pub fn all_partitions(app: &App) -> Vec<Partition> {
    (0..app.log.partitions()).map(Partition).collect()
}

/// Reads one resource, whose stream is in one of `partitions`. If the row is missing, the read
/// model first catches up with the log as it is now: so the `Location` of a new resource works at
/// once.
///
/// # Errors
/// `not-found`, and those of [`read`].
pub async fn read_one<T, F>(
    app: &App,
    model: ReadModel,
    partitions: &[Partition],
    freshness: &Freshness,
    query: impl Fn(ReadModels) -> F,
) -> Result<Found<T>, Problem>
where
    F: Future<Output = Result<Option<T>, QueryError>> + Send,
{
    let reads = app.reads()?;
    let found = read(reads, model, freshness, &query).await?;
    if let Some(value) = found.value {
        return Ok(Found { value, position: found.position });
    }
    let within = freshness.prefer.wait.unwrap_or(ABSENCE_WAIT);
    let ends = partitions.iter().map(|&partition| reads.wait_for_end(model, partition, within));
    try_join_all(ends).await.map_err(|error| causality::behind(&error))?;
    let found = read(reads, model, freshness, &query).await?;
    let value = found.value.ok_or_else(|| Problem::not_found("resource"))?;
    Ok(Found { value, position: found.position })
}

/// A body that shows a version of a resource.
pub trait Versioned: Serialize {
    /// The version shown: the `ETag`.
    fn version(&self) -> u64;
}

/// The answer with the resource of one stream. A caller who has the current version already gets a
/// 304, for which only the version is read; any other gets the body that `show` makes of the row.
///
/// # Errors
/// Those of [`read_one`] and of `show`.
pub async fn get<T, B, V, R>(
    app: &App,
    model: ReadModel,
    stream: StreamId,
    freshness: &Freshness,
    version: impl FnOnce(ReadModels) -> V,
    row: impl Fn(ReadModels) -> R,
    show: impl AsyncFnOnce(T) -> Result<B, Problem>,
) -> Result<Response, Problem>
where
    B: Versioned,
    V: Future<Output = Result<Option<u64>, QueryError>> + Send,
    R: Future<Output = Result<Option<T>, QueryError>> + Send,
{
    if freshness.is_conditional() {
        let current = read(app.reads()?, model, freshness, version).await?;
        if let Some(version) = current.value.filter(|version| freshness.holds(*version)) {
            let response = StatusCode::NOT_MODIFIED.into_response();
            return Ok(versioned(response, freshness, version, &current.position));
        }
    }
    let Found { value, position } =
        read_one(app, model, &partition(app, stream), freshness, row).await?;
    Ok(one(freshness, Found { value: show(value).await?, position }))
}

/// The answer with one resource, or a 304 if the caller has this version already.
pub fn one<B: Versioned>(freshness: &Freshness, found: Found<B>) -> Response {
    let version = found.value.version();
    let response = if freshness.holds(version) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(found.value).into_response()
    };
    versioned(response, freshness, version, &found.position)
}

fn versioned(
    mut response: Response,
    freshness: &Freshness,
    version: u64,
    position: &LogPosition,
) -> Response {
    set_header(&mut response, header::ETAG, &etag(version));
    reflect(&mut response, freshness.prefer, position);
    response
}

/// Marks an answer with an `ETag` as the same for every caller, so that shared caches may store it.
/// They must revalidate it each time, so a cached answer is never older than a caller's
/// `Min-Log-Position` allows.
pub fn for_everybody(mut response: Response) -> Response {
    set_header(&mut response, header::CACHE_CONTROL, "public, no-cache");
    response
}

/// The answer with a list or a report.
pub fn list<B: Serialize>(freshness: &Freshness, found: Found<B>) -> Response {
    let mut response = Json(found.value).into_response();
    reflect(&mut response, freshness.prefer, &found.position);
    response
}

/// Sets the headers that tell which position an answer reflects.
pub(crate) fn reflect(response: &mut Response, prefer: Prefer, position: &LogPosition) {
    set_header(response, LOG_POSITION, &position.to_string());
    prefer.applied(response, false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_from_two_read_models_reflects_what_both_have() {
        let of = |text: &str| text.parse::<LogPosition>().unwrap();
        assert_eq!(in_all(&[of("1:5,2:9,3:7")]), of("1:5,2:9,3:7"));
        assert_eq!(in_all(&[of("1:5,2:9"), of("1:6,2:8,3:7")]), of("1:5,2:8"));
        assert!(in_all(&[of("1:5"), LogPosition::default()]).is_empty());
    }
}
