//! Liveness, readiness and metrics.

use crate::{App, problem::Problem};
use axum::{Json, extract::State, http::header, response::IntoResponse};
use commands::{ShardState, ShardStatus};
use projections::{QueryError, StaleModel, StoppedModel};
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use utoipa::ToSchema;

/// How long the database may take to answer.
const DATABASE_TIME: Duration = Duration::from_secs(2);

/// The process is alive.
#[derive(Serialize, ToSchema)]
pub struct HealthBody {
    /// `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// The node is ready; read models that are not in order are listed.
#[derive(Serialize, ToSchema)]
pub struct ReadinessBody {
    /// `ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// Read models that have stopped in a partition.
    stopped: Vec<StoppedBody>,
    /// Read models whose serving version this node does not feed.
    stale: Vec<StaleBody>,
    /// Number of parked streams of each read model that has any.
    #[schema(example = json!({ "orders": 1 }))]
    parked: BTreeMap<&'static str, i64>,
}

/// A read model whose serving version another program built.
#[derive(Serialize, ToSchema)]
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
#[derive(Serialize, ToSchema)]
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

/// Check that the node can take commands and answer queries.
///
/// A partition that is being reopened does not make the node unready. Neither does a read model
/// that has stopped, because every node would report the same; `stopped` lists it. `stale` lists
/// the read models that another program built, and `parked` counts the parked streams.
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
    if let Some(router) = &app.router {
        let shards = router.status();
        if !can_route(&shards) {
            let partitions = shards.iter().map(describe).collect::<Vec<_>>();
            let problem = Problem::unavailable("partitions are not open");
            return Err(problem.with("partitions", partitions));
        }
    }
    if !app.authenticator.has_keys() {
        return Err(Problem::unavailable("there are no keys to check tokens with"));
    }
    let (mut stopped, mut stale, mut parked) = (Vec::new(), Vec::new(), BTreeMap::new());
    if let Some(reads) = &app.reads {
        stopped.extend(in_time(reads.stopped()).await?.into_iter().map(StoppedBody::from));
        stale.extend(in_time(reads.stale()).await?.into_iter().map(StaleBody::from));
        let found = in_time(reads.parked()).await?.into_iter();
        parked.extend(found.map(|(model, streams)| (model.as_str(), streams)));
    }
    Ok(Json(ReadinessBody { status: "ready", stopped, stale, parked }))
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

fn can_route(shards: &[ShardStatus]) -> bool {
    let may_be = |shard: &ShardStatus| match shard.state {
        ShardState::Open => true,
        // The partition was open before and is being reopened.
        ShardState::Opening => shard.term > 0,
        ShardState::Foreign { .. } | ShardState::Failed | ShardState::Stopped => false,
    };
    shards.iter().all(may_be) && shards.iter().any(|shard| shard.state == ShardState::Open)
}

fn describe(shard: &ShardStatus) -> Value {
    let state = match shard.state {
        ShardState::Opening => "opening",
        ShardState::Open => "open",
        ShardState::Foreign { .. } => "foreign",
        ShardState::Failed => "failed",
        ShardState::Stopped => "stopped",
    };
    json!({ "partition": shard.partition, "state": state, "term": shard.term })
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
    fn a_node_stays_ready_while_one_partition_is_reopened() {
        let shard = |state, term| ShardStatus { partition: Partition(0), state, term };
        let open = shard(ShardState::Open, 3);
        assert!(can_route(&[open, shard(ShardState::Opening, 3)]));
        assert!(!can_route(&[open, shard(ShardState::Opening, 0)]));
        assert!(!can_route(&[open, shard(ShardState::Foreign { node: Uuid::nil() }, 3)]));
        assert!(!can_route(&[open, shard(ShardState::Failed, 3)]));
        assert!(!can_route(&[shard(ShardState::Opening, 3)]));
    }
}
