//! What all queries share: waiting for the read model, pages, cursors, and the headers of answers.

use crate::{
    App,
    causality::{self, Freshness, LOG_POSITION, Prefer, etag, set_header},
    extract::Params,
    problem::{Kind, Problem},
};
use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use events::{LogPosition, Partition, Position, StreamId, partitioner::partition_of};
use futures::future::try_join_all;
use projections::{Page, QueryError, ReadModel, ReadModels};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, time::Duration};

/// Items of a page, unless the caller sets a limit.
const LIMIT: u32 = 50;
/// The most items of a page.
const LIMIT_MAX: u32 = 200;
/// How long a read of one resource waits for the read model to reach the log's end before it
/// answers 404.
const ABSENCE_WAIT: Duration = Duration::from_secs(5);
/// Seconds of `Retry-After` while a read model is being rebuilt, and while it waits for an operator
/// to rebuild it.
const REBUILT_SOON: u64 = 3;
const REBUILT_LATE: u64 = 30;
/// The most bytes of a cursor. The cursor of a search contains its words.
pub(crate) const CURSOR_BYTES: usize = 4096;

/// The problem for a failed query. The database's own message is logged and not answered.
pub(crate) fn failed(error: &QueryError) -> Problem {
    match error {
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
/// Those of [`read_one`].
pub async fn get<T, B, V, R>(
    app: &App,
    model: ReadModel,
    stream: StreamId,
    freshness: &Freshness,
    version: impl FnOnce(ReadModels) -> V,
    row: impl Fn(ReadModels) -> R,
    show: impl FnOnce(T) -> B,
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
    let found = read_one(app, model, &partition(app, stream), freshness, row).await?;
    Ok(one(freshness, found.map(show)))
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

/// The query parameters of every list.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "describes the parameters in the OpenAPI document")]
pub struct PageParams {
    /// The most items of the page, 1 to 200; 50 if absent
    limit: Option<u32>,
    /// The `next_cursor` of the page before
    cursor: Option<String>,
}

/// A page of a list.
#[derive(Serialize, utoipa::ToSchema)]
pub struct ListBody<B> {
    /// The items.
    pub items: Vec<B>,
    /// The cursor of the next page; null on the last page.
    #[schema(nullable)]
    pub next_cursor: Option<String>,
}

/// The page of a list that a request asks for. `C` is what its cursors contain.
pub struct PageRequest<C> {
    cursors: Cursors,
    /// Where the page begins; `None` for the first page.
    pub after: Option<C>,
    /// The most items of the page.
    pub limit: u32,
}

impl<C: Serialize + DeserializeOwned> PageRequest<C> {
    /// Reads `cursor` and `limit`, for the list of this name with these filters. They are the last
    /// parameters: any other is refused.
    ///
    /// # Errors
    /// `invalid-parameter`.
    pub fn of(
        name: &str,
        filters: &impl std::fmt::Debug,
        mut params: Params,
    ) -> Result<Self, Problem> {
        let cursors = Cursors::of(name, filters);
        let after = cursors.take(&mut params)?;
        let limit = limit(&mut params)?;
        params.end()?;
        Ok(Self { cursors, after, limit })
    }

    /// The page of rows that were read with a limit of one more than this page has.
    pub fn cut<T>(&self, mut rows: Vec<T>, cursor: impl FnOnce(&T) -> C) -> Page<T, C> {
        let more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        let next = rows.last().filter(|_| more).map(cursor);
        Page { items: rows, next }
    }

    /// The body with a page of a read model. `at` makes its cursor into one for clients, `show`
    /// makes its rows into items.
    ///
    /// # Errors
    /// Never for the cursors of this crate, which all serialise.
    pub fn body<T, N, B>(
        &self,
        page: Page<T, N>,
        at: impl FnOnce(N) -> C,
        show: impl FnMut(T) -> B,
    ) -> Result<ListBody<B>, Problem> {
        let next_cursor = page.next.map(|next| self.cursors.give(at(next))).transpose()?;
        Ok(ListBody { items: page.items.into_iter().map(show).collect(), next_cursor })
    }

    /// The answer with the [`body`](Self::body) of a page.
    ///
    /// # Errors
    /// As [`body`](Self::body).
    pub fn answer<T, N, B: Serialize>(
        &self,
        freshness: &Freshness,
        found: Found<Page<T, N>>,
        at: impl FnOnce(N) -> C,
        show: impl FnMut(T) -> B,
    ) -> Result<Response, Problem> {
        let value = self.body(found.value, at, show)?;
        Ok(list(freshness, Found { value, position: found.position }))
    }
}

/// Marks an answer as the same for every caller, so that shared caches may store it. They must
/// revalidate it each time, so a cached answer is never older than a caller's `Min-Log-Position`
/// allows.
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

/// The parameter `limit`: how many items a page has.
///
/// # Errors
/// `invalid-parameter`.
pub fn limit(params: &mut Params) -> Result<u32, Problem> {
    let expected = format!("a number from 1 to {LIMIT_MAX}");
    let limit = params.read("limit", &expected)?.unwrap_or(LIMIT);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::invalid_parameter("limit", &format!("must be {expected}")))
}

/// A cursor as clients get it: where the next page begins, and of which list.
#[derive(Serialize, Deserialize)]
struct ListCursor<C> {
    list: u64,
    at: C,
}

/// Writes and reads the cursors of one list: one path with one set of filters.
pub struct Cursors(u64);

impl Cursors {
    /// For the list of this name with these filters.
    pub fn of(name: &str, filters: &impl std::fmt::Debug) -> Self {
        // FNV-1a tells lists apart and is no protection. A forged cursor shows rows that its
        // caller could read with other filters anyway.
        let text = format!("{name} {filters:?}");
        let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(text.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }

    /// The parameter `cursor` of the request.
    ///
    /// # Errors
    /// `invalid-parameter` if it is malformed or belongs to another list.
    pub fn take<C: DeserializeOwned>(&self, params: &mut Params) -> Result<Option<C>, Problem> {
        let Some(text) = params.one("cursor")? else { return Ok(None) };
        let invalid = |detail| Problem::invalid_parameter("cursor", detail);
        let bytes = Some(&text).filter(|text| text.len() <= CURSOR_BYTES);
        let bytes = bytes.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let cursor = bytes.and_then(|bytes| serde_json::from_slice::<ListCursor<C>>(&bytes).ok());
        match cursor {
            None => Err(invalid("must be the next_cursor of an answer")),
            Some(cursor) if cursor.list != self.0 => {
                Err(invalid("belongs to a list with other filters"))
            }
            Some(cursor) => Ok(Some(cursor.at)),
        }
    }

    /// The text of a cursor.
    ///
    /// # Errors
    /// Never for the cursors of this crate: they serialise.
    pub fn give<C: Serialize>(&self, at: C) -> Result<String, Problem> {
        let cursor = ListCursor { list: self.0, at };
        let json = serde_json::to_vec(&cursor).map_err(|error| Problem::internal(&error))?;
        Ok(URL_SAFE_NO_PAD.encode(json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(cursor: &str) -> Params {
        Params::of(&format!("cursor={cursor}")).unwrap()
    }

    #[test]
    fn a_cursor_works_for_its_list_only() {
        let (mine, other) = (Cursors::of("orders", &("a", 1)), Cursors::of("orders", &("b", 1)));
        let text = mine.give((7_u32, "x")).unwrap();
        let taken = mine.take::<(u32, String)>(&mut params(&text)).unwrap().unwrap();
        assert_eq!(taken, (7, "x".to_owned()));
        let refused = other.take::<(u32, String)>(&mut params(&text)).unwrap_err();
        assert_eq!(refused.kind(), Kind::InvalidParameter);
        for text in ["", "x", "bm90aGluZw", &"a".repeat(600)] {
            assert!(mine.take::<(u32, String)>(&mut params(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_from_two_read_models_reflects_what_both_have() {
        let of = |text: &str| text.parse::<LogPosition>().unwrap();
        assert_eq!(in_all(&[of("1:5,2:9,3:7")]), of("1:5,2:9,3:7"));
        assert_eq!(in_all(&[of("1:5,2:9"), of("1:6,2:8,3:7")]), of("1:5,2:8"));
        assert!(in_all(&[of("1:5"), LogPosition::default()]).is_empty());
    }

    #[test]
    fn a_limit_has_bounds() {
        let of = |query: &str| limit(&mut Params::of(query).unwrap());
        assert_eq!(of("").unwrap(), LIMIT);
        assert_eq!(of("limit=200").unwrap(), 200);
        for query in ["limit=0", "limit=201", "limit=-1", "limit=x", "limit="] {
            assert_eq!(of(query).unwrap_err().kind(), Kind::InvalidParameter, "{query}");
        }
    }
}
