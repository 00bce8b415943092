//! The golden slice: a small fixed history that each build folds once. A build may feed a version
//! if it makes the same rows of the slice as the build that began the version.
//!
//! The digest of a build's rows is stored in `control.code`, keyed by a checksum of the build's
//! sources. Each version carries the digest of the build that began it. A stored digest depends on
//! the build alone and never changes, so builds that run at the same time do not conflict: each
//! feeds the versions whose digest equals its own.

mod slice;

pub use slice::events;

use crate::{
    ReadModel,
    build::Build,
    digest::tables,
    facts::Facts,
    parked::{Sieve, apply_carefully},
    past,
    projection::revision,
    version::{self, VersionId},
};
use sqlx::{AssertSqlSafe, Connection, FromRow, PgConnection, PgPool};
use std::collections::{BTreeMap, BTreeSet};

/// Events applied at once. The number is small, so that rows are read back and updated, as in a
/// live feed.
const PIECE: usize = 16;

/// Rows as text must not depend on the server's settings.
const SETTINGS: &str = "set local timezone = 'UTC'; set local datestyle = 'ISO, YMD'; \
    set local intervalstyle = 'iso_8601'; set local bytea_output = 'hex'; \
    set local extra_float_digits = 1";

/// Why this program does not feed a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The version's revision is lower than this program's.
    Older(u32),
    /// The version's revision is higher than this program's.
    Newer(u32),
    /// The version has other tables than this program's, under the same revision.
    Tables,
    /// This program's code makes other rows of the same events, under the same revision.
    Rows,
    /// The version's digest covers events of the slice that this program does not have, so that the
    /// two cannot be compared.
    Slice,
}

impl Why {
    /// Whether a different revision or different tables announce that the code is different.
    pub fn is_declared(self) -> bool {
        matches!(self, Self::Older(_) | Self::Newer(_) | Self::Tables)
    }

    /// The reason in words for an operator.
    pub fn told(self, model: ReadModel) -> String {
        let ours = model.template().revision;
        match self {
            Self::Older(revision) => format!(
                "an older program built it (revision {revision}, this program has {ours}): a \
                 rebuild replaces it"
            ),
            Self::Newer(revision) => format!(
                "a newer program built it (revision {revision}, this program has {ours}), and that \
                 one feeds it"
            ),
            Self::Tables => format!(
                "it has other tables than this program's under the same revision {ours}: a rebuild \
                 replaces it"
            ),
            Self::Rows => format!(
                "this program's code gives other rows under the same revision {ours}: raise the \
                 revision, or rebuild it and accept the difference (orderlog rebuild {model} \
                 --accept)"
            ),
            Self::Slice => format!(
                "a later program of the same revision {ours} built it, and this one cannot tell \
                 whether it gives the same rows: that one feeds it"
            ),
        }
    }
}

/// A version, with the digest that this build makes of the same events.
#[derive(FromRow)]
struct StandingRow {
    projection: String,
    version: i32,
    serving: bool,
    building: bool,
    fingerprint: String,
    golden_events: Option<i32>,
    golden_digest: Option<String>,
    /// This build's digest of the same events, if it is stored.
    ours: Option<String>,
}

impl StandingRow {
    fn why(&self, model: ReadModel) -> Option<Why> {
        let (theirs, template) = (revision(&self.fingerprint), model.template());
        if self.fingerprint != template.fingerprint() {
            return Some(match theirs.cmp(&template.revision) {
                std::cmp::Ordering::Less => Why::Older(theirs),
                std::cmp::Ordering::Equal => Why::Tables,
                std::cmp::Ordering::Greater => Why::Newer(theirs),
            });
        }
        if self.golden_events.is_some_and(|of| of > events()) {
            return Some(Why::Slice);
        }
        let (theirs, ours) = (self.golden_digest.as_ref()?, self.ours.as_ref()?);
        (theirs != ours).then_some(Why::Rows)
    }
}

/// A version, and why this program does not feed it (`None` if it does).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub serving: bool,
    pub building: bool,
    pub why: Option<Why>,
}

/// The standing of all versions, as far as this build's digests are stored.
pub(crate) async fn noted(
    pool: &PgPool,
    build: Build,
) -> Result<BTreeMap<VersionId, Standing>, sqlx::Error> {
    Ok(standings(&rows(pool, build).await?))
}

/// The same, after computing and storing the missing digests for `models`.
pub(crate) async fn known(
    pool: &PgPool,
    build: Build,
    models: &[ReadModel],
) -> Result<BTreeMap<VersionId, Standing>, sqlx::Error> {
    let mut found = rows(pool, build).await?;
    let unknown = |row: &StandingRow| {
        let model: ReadModel = row.projection.parse().ok().filter(|it| models.contains(it))?;
        let of = row.golden_events.unwrap_or_else(events);
        let ours = row.fingerprint == model.template().fingerprint();
        (ours && row.ours.is_none() && of <= events()).then_some((model, of))
    };
    let missing: BTreeSet<(ReadModel, i32)> = found.iter().filter_map(unknown).collect();
    if !missing.is_empty() {
        note(pool, build, &missing).await?;
    }
    let unclaimed = found.iter().any(|row| row.golden_digest.is_none() && row.ours.is_some());
    if !missing.is_empty() || unclaimed {
        claim(pool, build, models).await?;
        found = rows(pool, build).await?;
    }
    Ok(standings(&found))
}

/// Stores this build's digest of the whole slice, unless it is stored already.
pub(crate) async fn ensure_noted(pool: &PgPool, model: ReadModel) -> Result<(), sqlx::Error> {
    let build = Build::Ours;
    let noted: bool = sqlx::query_scalar(
        "select exists (select from control.code where projection = $1 and fingerprint = $2 \
         and sources = $3 and events = $4)",
    )
    .bind(model.as_str())
    .bind(model.template().fingerprint())
    .bind(build.sources())
    .bind(events())
    .fetch_one(pool)
    .await?;
    if noted { Ok(()) } else { note(pool, build, &BTreeSet::from([(model, events())])).await }
}

/// Copies this build's digest into a new version, if it is stored.
pub(crate) async fn mark(connection: &mut PgConnection, id: VersionId) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update control.version v set golden_events = c.events, golden_digest = c.digest \
         from control.code c where c.projection = v.projection and c.fingerprint = v.fingerprint \
         and c.sources = $3 and c.events = $4 and v.projection = $1 and v.version = $2",
    )
    .bind(id.model.as_str())
    .bind(id.number)
    .bind(Build::Ours.sources())
    .bind(events())
    .execute(connection)
    .await?;
    Ok(())
}

/// This build's digest of the first `events` events of the slice. It is computed afresh and not
/// stored.
///
/// # Errors
/// When the database does not answer.
pub async fn digest(pool: &PgPool, model: ReadModel, events: i32) -> Result<String, sqlx::Error> {
    let mut connection = past::session(pool).await?;
    let digest = fold(&mut connection, Build::Ours, model, events).await?;
    connection.close().await?;
    Ok(digest)
}

/// The revision and the checksum of the tables of a read model in this program.
pub fn fingerprint(model: ReadModel) -> String {
    model.template().fingerprint()
}

async fn rows(pool: &PgPool, build: Build) -> Result<Vec<StandingRow>, sqlx::Error> {
    sqlx::query_as(
        "select v.projection, v.version, v.serving, v.state = 'building' as building, \
         v.fingerprint, v.golden_events, v.golden_digest, c.digest as ours \
         from control.version v left join control.code c on c.projection = v.projection \
         and c.fingerprint = v.fingerprint and c.sources = $1 \
         and c.events = coalesce(v.golden_events, $2)",
    )
    .bind(build.sources())
    .bind(events())
    .fetch_all(pool)
    .await
}

fn standings(rows: &[StandingRow]) -> BTreeMap<VersionId, Standing> {
    let standing = |row: &StandingRow| {
        let model: ReadModel = row.projection.parse().ok()?;
        let id = VersionId { model, number: row.version };
        let StandingRow { serving, building, .. } = *row;
        Some((id, Standing { serving, building, why: row.why(model) }))
    };
    rows.iter().filter_map(standing).collect()
}

/// Computes and stores this build's digests for each read model and number of events in `wanted`.
async fn note(
    pool: &PgPool,
    build: Build,
    wanted: &BTreeSet<(ReadModel, i32)>,
) -> Result<(), sqlx::Error> {
    let mut connection = past::session(pool).await?;
    for &(model, events) in wanted {
        let digest = fold(&mut connection, build, model, events).await?;
        tracing::debug!(%model, events, digest, "the digest of the golden slice is stored");
        sqlx::query(
            "insert into control.code (projection, fingerprint, sources, events, digest) \
             values ($1, $2, $3, $4, $5) on conflict do nothing",
        )
        .bind(model.as_str())
        .bind(model.template().fingerprint())
        .bind(build.sources())
        .bind(events)
        .bind(digest)
        .execute(pool)
        .await?;
    }
    connection.close().await
}

/// Gives this build's digest to the versions that have none: new ones, and ones made before digests
/// were stored.
async fn claim(pool: &PgPool, build: Build, models: &[ReadModel]) -> Result<(), sqlx::Error> {
    let names: Vec<_> = models.iter().map(|model| model.as_str()).collect();
    sqlx::query(
        "update control.version v set golden_events = c.events, golden_digest = c.digest \
         from control.code c where c.projection = v.projection and c.fingerprint = v.fingerprint \
         and c.sources = $1 and c.events = $2 and v.projection = any($3) \
         and v.golden_digest is null",
    )
    .bind(build.sources())
    .bind(events())
    .bind(names)
    .execute(pool)
    .await?;
    Ok(())
}

/// Folds the slice into tables that are rolled back afterwards.
async fn fold(
    connection: &mut PgConnection,
    build: Build,
    model: ReadModel,
    events: i32,
) -> Result<String, sqlx::Error> {
    let facts = slice::facts(events);
    let mut tx = connection.begin().await?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *tx).await?;
    let schema = format!("golden_{model}_{backend}");
    version::make_tables(&mut tx, &schema, model.template()).await?;
    let writer = build.writer(model, &schema);
    let mut sieve = Sieve::new(VersionId { model, number: 0 });
    for piece in facts.chunks(PIECE) {
        apply_carefully(&mut tx, &*writer, &Facts::from(piece), &mut sieve).await?;
    }
    let mut lines = Vec::new();
    for table in tables(&mut tx, &schema).await? {
        let query = format!(
            "select count(*), md5(coalesce(string_agg(r, e'\\n' order by r collate \"C\"), '')) \
             from {schema}.{table} t, lateral (select to_jsonb(t)::text as r) s"
        );
        let (count, rows): (i64, String) =
            sqlx::query_as(AssertSqlSafe(query)).fetch_one(&mut *tx).await?;
        lines.push(format!("{table} {count} {rows}"));
    }
    // The digest also covers the parked streams: refusing other events is a change, too.
    lines.extend(
        sieve.kept_back().map(|kept_back| format!("{} {}", kept_back.stream, kept_back.version)),
    );
    let digest = sqlx::query_scalar("select md5($1)").bind(lines.join("\n"));
    let digest: String = digest.fetch_one(&mut *tx).await?;
    tx.rollback().await?;
    Ok(digest)
}
