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
    /// Of which read model.
    #[schema(example = "orders")]
    name: &'static str,
    /// Its number.
    version: u32,
    /// Whether queries see it.
    serving: bool,
    /// `building`, `live`, `stale` (of other code, not fed) or `stopped`.
    #[schema(example = "live")]
    state: &'static str,
    /// Why this node does not feed it, where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "a newer program built it")]
    stale: Option<String>,
    /// Events not applied yet, as far as they are known.
    lag_events: i64,
    /// How old the last applied event is in the partition that is furthest behind; 0 when all are
    /// applied.
    #[schema(example = 0.0)]
    lag_seconds: f64,
    /// Streams that cannot be applied, and are kept back.
    parked_streams: i64,
    /// Their events: they are among those not applied yet.
    parked_events: i64,
    /// Each partition.
    partitions: Vec<PartitionBody>,
    /// How far the rebuild is that makes this version; null when it is complete.
    rebuild: Option<RebuildBody>,
}

/// A partition of a version.
#[derive(Serialize, ToSchema)]
pub struct PartitionBody {
    /// Which one.
    partition: u32,
    /// The last event applied.
    #[schema(value_type = Option<String>, example = "3:1042")]
    position: Option<Position>,
    /// Why nothing more is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "the log is another one")]
    stopped: Option<String>,
}

/// How far a rebuild is.
#[derive(Serialize, ToSchema)]
pub struct RebuildBody {
    /// Events applied.
    events_done: i64,
    /// Events to apply still, as far as they are known.
    events_left: i64,
    /// Events applied a second since it was begun or resumed.
    events_per_second: f64,
    /// When that would bring it to the end of the log; null while nothing is known.
    seconds_left: Option<f64>,
    /// `filling`, `catching-up`, `verified`, `different` (its rows are not those that serve, so it
    /// does not serve) or `paused`.
    phase: &'static str,
    /// Whether it is only to be compared with the version that serves.
    verify_only: bool,
    /// Whether it takes little of the machine.
    throttled: bool,
    /// What came of comparing it with the version that serves: `equal`, `different`, `changed` if
    /// other code wrote that or the difference was accepted, `undeclared` if other code of the same
    /// revision wrote it, or `parked` if one of the two keeps streams back; null before.
    verified: Option<&'static str>,
    /// The first rows that differ.
    differences: Vec<DifferenceBody>,
}

/// A row that is not the same in a new version as in the one that serves.
#[derive(Serialize, ToSchema)]
pub struct DifferenceBody {
    /// The table.
    table: String,
    /// The partition of the log that the row belongs to.
    partition: u32,
    /// Its key.
    key: String,
    /// The event that made them differ, if it was found.
    #[schema(value_type = Option<String>, example = "3:1042")]
    position: Option<Position>,
}

/// A version that an operation was about.
#[derive(Serialize, ToSchema)]
pub struct ChangedBody {
    /// Of which read model.
    #[schema(example = "orders")]
    name: &'static str,
    /// The numbers of the versions made, serving again or dropped.
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

/// Every version of every read model, and how far each is.
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
            "the read models cannot be shown"
        );
        Problem::unavailable("the read models cannot be asked")
    })?;
    Ok(Json(VersionsBody { items: status.into_iter().map(VersionBody::from).collect() }))
}

/// Begins to build a read model anew. The new version serves as soon as it has caught up.
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

/// Lets the version serve again that served before.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/rollback",
    tag = "administration",
    operation_id = "roll_back_projection",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "It serves again.", body = ChangedBody),
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

/// Accepts what keeps the rebuilt version from serving.
///
/// Rows that differ from those that serve, or streams that it keeps back.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/accept",
    tag = "administration",
    operation_id = "accept_rebuild",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "It may serve.", body = ChangedBody),
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

/// Gives up the rebuild under way.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/cancel",
    tag = "administration",
    operation_id = "cancel_rebuild",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "It is given up.", body = ChangedBody),
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

/// Holds the rebuild under way up; it keeps what it has.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/pause",
    tag = "administration",
    operation_id = "pause_rebuild",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "It is held up.", body = ChangedBody),
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

/// Lets the rebuild go on that was held up.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/resume",
    tag = "administration",
    operation_id = "resume_rebuild",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "It goes on.", body = ChangedBody),
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

/// Drops the versions that do not serve; there is nothing to go back to afterwards.
#[utoipa::path(
    post,
    path = "/api/v1/admin/projections/{name}/drop",
    tag = "administration",
    operation_id = "drop_old_versions",
    params(("name" = String, Path, description = "The read model")),
    responses(
        (status = 200, description = "They are dropped.", body = ChangedBody),
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
                tracing::error!(error = &error as &dyn std::error::Error, "a rebuild failed");
                Self::unavailable("the read models cannot be changed")
            }
        }
    }
}
