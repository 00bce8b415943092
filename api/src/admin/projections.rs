//! `/admin/projections`: the versions of the read models.

use crate::{
    App,
    auth::{Access, Caller, Role},
    extract::Params,
    problem::{Kind, Problem},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use events::Position;
use projections::{
    ReadModel,
    rebuild::{self, Difference, RebuildError, RebuildStatus, StatusError, VersionStatus},
};
use serde::Serialize;
use sqlx::PgPool;
use std::sync::Arc;
use utoipa::ToSchema;

/// All versions of all read models.
#[derive(Serialize, ToSchema)]
pub struct VersionsBody {
    /// The versions.
    items: Vec<VersionBody>,
}

/// A version of a read model.
#[derive(Serialize, ToSchema)]
pub struct VersionBody {
    /// Name of the read model.
    #[schema(example = "orders")]
    name: &'static str,
    /// Number of the version.
    version: u32,
    /// Whether queries read from this version.
    serving: bool,
    /// `building`, `live`, `stale` (another program built it, so this node does not feed it) or
    /// `stopped`.
    #[schema(example = "live")]
    state: &'static str,
    /// Why this node does not feed the version; absent if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "a newer program built it")]
    stale: Option<String>,
    /// Number of events not applied yet, as far as known.
    lag_events: i64,
    /// Age of the last applied event, in seconds, in the partition that is furthest behind; 0 if
    /// all events are applied.
    #[schema(example = 0.0)]
    lag_seconds: f64,
    /// Number of parked streams.
    parked_streams: i64,
    /// Number of events of parked streams that are kept back. `lag_events` counts them too.
    parked_events: i64,
    /// The partitions of the log.
    partitions: Vec<PartitionBody>,
    /// Progress of the rebuild that makes this version; null once it is complete.
    rebuild: Option<RebuildBody>,
}

/// How far a version is in one partition of the log.
#[derive(Serialize, ToSchema)]
pub struct PartitionBody {
    /// Number of the partition.
    partition: u32,
    /// Log position of the last event applied.
    #[schema(value_type = Option<String>, example = "3:1042")]
    position: Option<Position>,
    /// Why the version has stopped in this partition; absent if it has not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "the log is another one")]
    stopped: Option<String>,
}

/// Progress of a rebuild.
#[derive(Serialize, ToSchema)]
pub struct RebuildBody {
    /// Number of events applied.
    events_done: i64,
    /// Number of events still to apply, as far as known.
    events_left: i64,
    /// Events applied a second since the rebuild began or was resumed.
    events_per_second: f64,
    /// Estimated seconds until the rebuild reaches the end of the log; null while unknown.
    seconds_left: Option<f64>,
    /// `filling`, `catching-up`, `verified`, `different` (its rows differ from the serving
    /// version's, so it does not serve) or `paused`.
    phase: &'static str,
    /// Whether the version is only compared with the serving one, and never serves.
    verify_only: bool,
    /// Whether the rebuild is throttled to spare the machine.
    throttled: bool,
    /// Result of the comparison with the serving version: `equal`; `different`; `changed` if
    /// another program built the serving version or the difference was accepted; `undeclared` if
    /// another program of the same revision built it; `parked` if one of the two versions has
    /// parked streams; null before the comparison.
    verified: Option<&'static str>,
    /// The first rows that differ.
    differences: Vec<DifferenceBody>,
}

/// A row that differs between the new version and the serving one.
#[derive(Serialize, ToSchema)]
pub struct DifferenceBody {
    /// Name of the table.
    table: String,
    /// Partition of the log that the row belongs to.
    partition: u32,
    /// Key of the row.
    key: String,
    /// Log position of the event that made the rows differ, if it was found.
    #[schema(value_type = Option<String>, example = "3:1042")]
    position: Option<Position>,
}

/// The versions that an operation changed.
#[derive(Serialize, ToSchema)]
pub struct ChangedBody {
    /// Name of the read model.
    #[schema(example = "orders")]
    name: &'static str,
    /// Numbers of the versions that the operation made, changed or dropped.
    versions: Vec<u32>,
}

impl From<VersionStatus> for VersionBody {
    fn from(status: VersionStatus) -> Self {
        let (done, left) = (status.events, status.lag_events);
        let rebuild = status.rebuild.map(|rebuild| RebuildBody::new(rebuild, done, left));
        let partitions = status.partitions.into_iter().map(|it| PartitionBody {
            partition: it.partition.0,
            position: it.position,
            stopped: it.stopped,
        });
        Self {
            name: status.model.as_str(),
            version: status.version,
            serving: status.serving,
            state: status.state.as_str(),
            stale: status.stale,
            lag_events: status.lag_events,
            lag_seconds: status.lag_seconds,
            parked_streams: status.parked_streams,
            parked_events: status.parked_events,
            partitions: partitions.collect(),
            rebuild,
        }
    }
}

impl RebuildBody {
    fn new(rebuild: RebuildStatus, events_done: i64, events_left: i64) -> Self {
        let difference = |it: Difference| DifferenceBody {
            table: it.table,
            partition: it.partition,
            key: it.key,
            position: it.position,
        };
        Self {
            events_done,
            events_left,
            events_per_second: rebuild.events_per_second,
            seconds_left: rebuild.seconds_left,
            phase: rebuild.phase,
            verify_only: rebuild.manner.verify_only,
            throttled: rebuild.manner.gentle,
            verified: rebuild.verified,
            differences: rebuild.differences.into_iter().map(difference).collect(),
        }
    }
}

/// List the versions of every read model, with their progress.
#[utoipa::path(
    get,
    path = "/api/v1/admin/projections",
    tag = "administration",
    operation_id = "list_projections",
    responses((status = 200, description = "The versions.", body = VersionsBody)),
    security(("bearer" = ["admin"])),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    params: Params,
) -> Result<Json<VersionsBody>, Problem> {
    caller.require(Access::AtLeast(Role::Admin))?;
    params.end()?;
    let pool = app.reads()?.pool().clone();
    let log = Arc::clone(&app.log);
    let status = tokio::spawn(async move { rebuild::status(&pool, &*log).await });
    let status = status.await.map_err(|error| Problem::internal(&error))?;
    let status = status.map_err(|error: StatusError| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the status of the read models cannot be read"
        );
        Problem::unavailable("the read models do not answer")
    })?;
    Ok(Json(VersionsBody { items: status.into_iter().map(VersionBody::from).collect() }))
}

/// Begin to rebuild a read model.
///
/// The new version is built from the log while the old one serves. It serves once it has caught up
/// and its rows are verified.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/rebuild",
    tag = "administration",
    operation_id = "rebuild_projection",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 202, description = "The rebuild has begun.", body = ChangedBody),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`projection-conflict`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn rebuild(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<ChangedBody>), Problem> {
    let changed = change(&app, &caller, &name, async |pool, model| {
        Ok(vec![rebuild::request(pool, model).await?])
    });
    Ok((StatusCode::ACCEPTED, changed.await?))
}

/// Switch a read model back to the version that served before.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/rollback",
    tag = "administration",
    operation_id = "roll_back_projection",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "The earlier version serves again.", body = ChangedBody),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`projection-conflict`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn rollback(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ChangedBody>, Problem> {
    let back = async |pool: &PgPool, model| Ok(vec![rebuild::rollback(pool, model).await?]);
    change(&app, &caller, &name, back).await
}

/// Accept the differences of a rebuilt version.
///
/// Rows that differ from the serving version's, and parked streams, keep a rebuilt version from
/// serving until they are accepted.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/accept",
    tag = "administration",
    operation_id = "accept_rebuild",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "The new version may serve.", body = ChangedBody),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`projection-conflict`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn accept(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ChangedBody>, Problem> {
    let accept = async |pool: &PgPool, model| Ok(vec![rebuild::accept(pool, model).await?]);
    change(&app, &caller, &name, accept).await
}

/// Cancel a rebuild and drop its version.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/cancel",
    tag = "administration",
    operation_id = "cancel_rebuild",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "The rebuild is cancelled.", body = ChangedBody),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`projection-conflict`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ChangedBody>, Problem> {
    change(&app, &caller, &name, async |pool, model| {
        rebuild::cancel(pool, model).await?;
        Ok(Vec::new())
    })
    .await
}

/// Pause a rebuild, which keeps its progress.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/pause",
    tag = "administration",
    operation_id = "pause_rebuild",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "The rebuild is paused.", body = ChangedBody),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`projection-conflict`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn pause(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ChangedBody>, Problem> {
    change(&app, &caller, &name, async |pool, model| Ok(vec![rebuild::pause(pool, model).await?]))
        .await
}

/// Resume a paused rebuild.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/resume",
    tag = "administration",
    operation_id = "resume_rebuild",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "The rebuild goes on.", body = ChangedBody),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`projection-conflict`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn resume(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ChangedBody>, Problem> {
    change(&app, &caller, &name, async |pool, model| Ok(vec![rebuild::resume(pool, model).await?]))
        .await
}

/// Drop the versions that do not serve.
///
/// A rollback is not possible afterwards.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/drop",
    tag = "administration",
    operation_id = "drop_old_versions",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "The versions are dropped.", body = ChangedBody),
        (status = 404, description = "`not-found`"),
        (status = 409, description = "`projection-conflict`"),
    ),
    security(("bearer" = ["admin"])),
)]
pub async fn drop_old(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ChangedBody>, Problem> {
    change(&app, &caller, &name, async |pool, model| rebuild::drop_old(pool, model).await).await
}

async fn change(
    app: &App,
    caller: &Caller,
    name: &str,
    operation: impl AsyncFnOnce(&PgPool, ReadModel) -> Result<Vec<u32>, RebuildError>,
) -> Result<Json<ChangedBody>, Problem> {
    caller.require(Access::AtLeast(Role::Admin))?;
    let model: ReadModel = name.parse().map_err(|_| Problem::not_found("read model"))?;
    let versions = operation(app.reads()?.pool(), model).await?;
    tracing::info!(model = model.as_str(), ?versions, "an administrator changed the read models");
    Ok(Json(ChangedBody { name: model.as_str(), versions }))
}

impl From<RebuildError> for Problem {
    fn from(error: RebuildError) -> Self {
        match &error {
            RebuildError::UnderWay(_)
            | RebuildError::NotUnderWay(_)
            | RebuildError::NoOther(_)
            | RebuildError::NoneServes(_)
            | RebuildError::Behind(_)
            | RebuildError::Parked(_) => Self::new(Kind::ProjectionConflict, error.to_string()),
            RebuildError::Database(_) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "the versions of a read model cannot be changed");
                Self::unavailable("the read models cannot be changed")
            }
        }
    }
}
