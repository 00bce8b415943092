//! Liveness, readiness and metrics.

use crate::{App, problem::Problem};
use axum::{Json, extract::State, http::header, response::IntoResponse};
use commands::{ShardState, ShardStatus};
use projections::{QueryError, StaleModel, StoppedModel};
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use utoipa::ToSchema;

/// How long the database may take to answer.
const DATABASE_TIME: Duration = Duration::from_secs(2);

/// The pause between two looks at a node that is ready, and at one that is not.
const READY_PAUSE: Duration = Duration::from_secs(1);
const UNREADY_PAUSE: Duration = Duration::from_millis(100);

/// The age at which the result of a look no longer counts: the task that looks hangs or is gone.
const OUTDATED: Duration = Duration::from_secs(15);

/// The process is alive.
#[derive(Serialize, ToSchema)]
pub struct HealthBody {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// The node is ready; partitions and read models that are not in order are listed.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReadinessBody {
    /// `ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// Partitions of which this node takes no commands now.
    closed: Vec<PartitionBody>,
    /// Read models that have stopped in a partition.
    stopped: Vec<StoppedBody>,
    /// Read models whose serving version this node does not feed.
    stale: Vec<StaleBody>,
    /// Number of parked streams of each read model that has any.
    #[schema(example = json!({ "orders": 1 }))]
    parked: BTreeMap<&'static str, i64>,
    /// How far the time of events is ahead of the clock, in seconds: a clock was once wrong.
    log_time_ahead_seconds: u64,
}

/// A partition of the log, as the write side of this node has it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = PartitionState)]
pub struct PartitionBody {
    /// Number of the partition.
    partition: u32,
    /// `opening`, `open`, `foreign` (another process took it), `failed` or `stopped`.
    #[schema(example = "failed")]
    state: &'static str,
    /// Term of this node in the partition; 0 before its first opening.
    term: u64,
}

/// A read model whose serving version another program built.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StaleBody {
    /// Name of the read model.
    #[schema(example = "orders")]
    projection: &'static str,
    /// Number of the serving version.
    version: u32,
    /// Why this node does not feed it.
    #[schema(example = "a newer program built it")]
    reason: String,
    /// Whether this node is rebuilding the read model.
    rebuilding: bool,
}

/// A read model that has stopped.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StoppedBody {
    /// Name of the read model.
    #[schema(example = "orders")]
    projection: &'static str,
    /// Partitions of the log in which it has stopped.
    partitions: Vec<u32>,
    /// Why it has stopped in the first of these partitions.
    #[schema(example = "the log is another one")]
    reason: String,
}

/// Check that the process is alive.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operations",
    responses((status = 200, description = "The process is alive.", body = HealthBody)),
    security(()),
)]
pub async fn healthz() -> Json<HealthBody> {
    Json(HealthBody { status: "ok" })
}

/// The result of the last look at whether the node is ready. The questions behind it are asked in the
/// background, so that they cost the same however often `/readyz` is asked.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<Option<Look>>);

#[derive(Debug)]
struct Look {
    /// When, on the monotonic clock.
    at: Duration,
    found: Result<ReadinessBody, Problem>,
}

impl Readiness {
    /// Looks at the node once.
    pub async fn refresh(&self, app: &App) {
        let found = look(app).await;
        let at = app.environment.monotonic();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Look { at, found });
    }

    /// Looks at the node for as long as it runs.
    pub async fn keep_fresh(app: Arc<App>) {
        loop {
            app.readiness.refresh(&app).await;
            let pause = if app.readiness.get(&app).is_ok() { READY_PAUSE } else { UNREADY_PAUSE };
            app.environment.sleep(pause).await;
        }
    }

    fn get(&self, app: &App) -> Result<ReadinessBody, Problem> {
        let now = app.environment.monotonic();
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(look) if now.saturating_sub(look.at) < OUTDATED => look.found.clone(),
            Some(_) => Err(Problem::unavailable("the node has not looked at itself for too long")),
            None => Err(Problem::unavailable("the node is starting")),
        }
    }
}

/// Check that the node can take commands and answer queries.
///
/// The answer is at most a second or two old. A node is ready once every partition has been opened
/// or could not be, as long as at least one is open: `closed` lists the others. A read model that has
/// stopped does not make the node unready, because every node would report the same; `stopped` lists
/// it. `stale` lists the read models that another program built, and `parked` counts the parked
/// streams.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "The node is ready.", body = ReadinessBody),
        (status = 503, description = "`unavailable`: the node is not ready"),
    ),
    security(()),
)]
pub async fn readyz(State(app): State<Arc<App>>) -> Result<Json<ReadinessBody>, Problem> {
    app.readiness.get(&app).map(Json)
}

/// Whether the node is ready.
async fn look(app: &App) -> Result<ReadinessBody, Problem> {
    let shards = app.router.as_ref().map(commands::Router::status).unwrap_or_default();
    if app.router.is_some() && !can_route(&shards) {
        let partitions: Vec<_> = shards.iter().map(|shard| json!(describe(shard))).collect();
        let problem = Problem::unavailable("no partition is open, or some are not opened yet");
        return Err(problem.with("partitions", partitions));
    }
    if !app.authenticator.has_keys() {
        return Err(Problem::unavailable("there are no keys to check tokens with"));
    }
    let closed = shards.iter().filter(|shard| shard.state != ShardState::Open).map(describe);
    let ahead = app.router.as_ref().map(commands::Router::log_time_ahead).unwrap_or_default();
    metrics::gauge!("orderlog_log_time_ahead_seconds").set(ahead.as_secs_f64());
    let mut body = ReadinessBody {
        status: "ready",
        closed: closed.collect(),
        stopped: Vec::new(),
        stale: Vec::new(),
        parked: BTreeMap::new(),
        log_time_ahead_seconds: ahead.as_secs(),
    };
    if let Some(reads) = &app.reads {
        let (stopped, stale, parked) = tokio::try_join!(
            in_time(reads.stopped()),
            in_time(reads.stale()),
            in_time(reads.parked())
        )?;
        body.stopped = stopped.into_iter().map(StoppedBody::from).collect();
        body.stale = stale.into_iter().map(StaleBody::from).collect();
        body.parked = parked.into_iter().map(|(model, count)| (model.as_str(), count)).collect();
    }
    Ok(body)
}

/// The database's answer, if it comes in time.
async fn in_time<T>(question: impl Future<Output = Result<T, QueryError>>) -> Result<T, Problem> {
    let answer = tokio::time::timeout(DATABASE_TIME, question).await;
    let silent = || Problem::unavailable("the database does not answer");
    answer.ok().and_then(Result::ok).ok_or_else(silent)
}

impl From<StoppedModel> for StoppedBody {
    fn from(stopped: StoppedModel) -> Self {
        let partitions = stopped.partitions.into_iter().map(|partition| partition.0).collect();
        Self { projection: stopped.model.as_str(), partitions, reason: stopped.reason }
    }
}

impl From<StaleModel> for StaleBody {
    fn from(stale: StaleModel) -> Self {
        let StaleModel { model, version, reason, rebuilding } = stale;
        Self { projection: model.as_str(), version, reason, rebuilding }
    }
}

/// Whether the node should get requests: it serves a partition, and is not still starting. A
/// partition that cannot be opened is the same on every node, and says nothing about the others.
fn can_route(shards: &[ShardStatus]) -> bool {
    let starting = |shard: &ShardStatus| shard.state == ShardState::Opening && shard.term == 0;
    !shards.iter().any(starting) && shards.iter().any(|shard| shard.state == ShardState::Open)
}

fn describe(shard: &ShardStatus) -> PartitionBody {
    let state = match shard.state {
        ShardState::Opening => "opening",
        ShardState::Open => "open",
        ShardState::Foreign { .. } => "foreign",
        ShardState::Failed => "failed",
        ShardState::Stopped => "stopped",
    };
    PartitionBody { partition: shard.partition.0, state, term: shard.term }
}

/// Get the metrics in the text format of Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "text/plain",
            example = "orderlog_http_requests_total{method=\"GET\",route=\"/readyz\",status=\"200\"} 1"),
    ),
    security(()),
)]
pub async fn metrics(State(app): State<Arc<App>>) -> impl IntoResponse {
    const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, FORMAT)], app.metrics.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::Partition;
    use uuid::Uuid;

    #[test]
    fn a_node_is_ready_while_it_serves_a_partition_and_is_not_starting() {
        let shard = |state, term| ShardStatus { partition: Partition(0), state, term };
        let open = shard(ShardState::Open, 3);
        assert!(can_route(&[open]));
        assert!(can_route(&[open, shard(ShardState::Opening, 3)]));
        assert!(can_route(&[open, shard(ShardState::Foreign { node: Uuid::nil() }, 3)]));
        assert!(can_route(&[open, shard(ShardState::Failed, 0)]));
        assert!(!can_route(&[open, shard(ShardState::Opening, 0)]));
        assert!(!can_route(&[shard(ShardState::Failed, 0), shard(ShardState::Failed, 3)]));
        assert!(!can_route(&[shard(ShardState::Opening, 3)]));
        assert!(!can_route(&[shard(ShardState::Foreign { node: Uuid::nil() }, 3)]));
    }
}
