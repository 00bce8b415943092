//! Reads the database in one snapshot and compares it with the log.

use crate::fold::{Fact, Rows, rows};
use events::{Offset, Partition, StreamId, StreamKind};
use projections::ReadModel;
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, FromRow, PgConnection,
    postgres::{PgConnectOptions, PgRow},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};
use uuid::Uuid;

/// A broken invariant.
#[derive(Debug)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The observer: its own connection to the database, without a proxy.
pub struct Eyes {
    server: Arc<AtomicU16>,
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    /// What the last comparison found right, by version. The log only grows, so the same digest at
    /// the same places needs no second comparison.
    right: BTreeMap<Version, (String, Places)>,
}

/// Where a version stands: its checkpoints, and its parked streams with the offset of their first
/// event.
type Places = (BTreeMap<Partition, Offset>, BTreeMap<StreamId, Offset>);

/// The rows of a version.
struct Content {
    /// Of all rows, made by the server.
    digest: String,
    /// Not fetched when the last comparison found this digest right.
    rows: Option<Rows>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, FromRow)]
struct Version {
    projection: String,
    number: i32,
    schema_name: String,
    building: bool,
    serving: bool,
}

#[derive(Clone, Debug, FromRow)]
struct Checkpoint {
    projection: String,
    version: i32,
    partition: i32,
    serving: bool,
    next_offset: i64,
    last_offset: Option<i64>,
    events: i64,
    stopped: Option<String>,
    parked: i32,
}

#[derive(Clone, Debug, FromRow)]
struct Parked {
    projection: String,
    version: i32,
    partition: i32,
    stream_kind: i16,
    stream_id: Uuid,
    stream_version: i64,
    first_offset: i64,
    last_offset: i64,
    events: i64,
}

impl Parked {
    fn stream(&self) -> StreamId {
        let kind = StreamKind::from_u8(self.stream_kind as u8).unwrap();
        StreamId { kind, id: self.stream_id }
    }
}

/// The content of the database at one moment.
pub struct Seen {
    versions: Vec<(Version, Content)>,
    checkpoints: Vec<Checkpoint>,
    parked: Vec<Parked>,
    schemas: BTreeSet<String>,
    /// The views and the schemas that they show.
    views: BTreeSet<(String, String)>,
    /// Whether any session waits for a lock.
    pub waiting: bool,
}

const SCHEMAS: &str = "select nspname::text from pg_namespace where nspname ~ '_v[0-9]+$'";

/// Reads the dependencies of views from the catalogue, which is part of the snapshot. The
/// definitions of views would be those of now.
const VIEWS: &str = "select distinct v.relname::text, n.nspname::text from pg_depend d \
    join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid \
    join pg_class v on v.oid = r.ev_class \
    join pg_namespace s on s.oid = v.relnamespace and s.nspname = 'read' \
    join pg_class t on d.refclassid = 'pg_class'::regclass and t.oid = d.refobjid \
    join pg_namespace n on n.oid = t.relnamespace and n.nspname ~ '_v[0-9]+$'";

const WAITING: &str = "select exists (select from pg_stat_activity where \
    datname = current_database() and wait_event_type = 'Lock')";

impl Eyes {
    pub fn new(server: Arc<AtomicU16>, options: PgConnectOptions) -> Self {
        // A frozen client must not block the observer.
        let options = options
            .application_name("the test")
            .options([("lock_timeout", "100ms"), ("statement_timeout", "10s")]);
        Self { server, options, connection: None, right: BTreeMap::new() }
    }

    /// Reads the database. `None` if the server does not answer or the tables do not exist yet.
    pub async fn look(&mut self) -> Option<Seen> {
        let looked = self.try_look().await;
        if let Err(error) = &looked
            && error.as_database_error().is_none()
        {
            self.connection = None;
        }
        looked.ok()
    }

    /// Notes that all of this was compared and is right.
    pub fn found_right(&mut self, seen: &Seen) {
        let of = |(version, content): &(Version, Content)| {
            (version.clone(), (content.digest.clone(), seen.places(version)))
        };
        self.right = seen.versions.iter().map(of).collect();
    }

    async fn try_look(&mut self) -> Result<Seen, sqlx::Error> {
        let right = std::mem::take(&mut self.right);
        let seen = self.read(&right).await;
        self.right = right;
        seen
    }

    async fn read(
        &mut self,
        right: &BTreeMap<Version, (String, Places)>,
    ) -> Result<Seen, sqlx::Error> {
        let connection = self.connect().await?;
        let begin = "begin isolation level repeatable read read only";
        let mut tx = connection.begin_with(begin).await?;
        let versions: Vec<Version> = fetch(
            &mut tx,
            "select projection, version as number, schema_name, state = 'building' as building, serving \
             from control.version order by projection, version",
        )
        .await?;
        let checkpoints = fetch(
            &mut tx,
            "select projection, version, partition, serving, next_offset, last_offset, events, \
             stopped, parked from control.checkpoint",
        )
        .await?;
        let parked = fetch(
            &mut tx,
            "select projection, version, partition, stream_kind, stream_id, stream_version, \
             first_offset, last_offset, events from control.parked",
        )
        .await?;
        let mut seen = Seen {
            versions: Vec::new(),
            checkpoints,
            parked,
            schemas: BTreeSet::new(),
            views: BTreeSet::new(),
            waiting: false,
        };
        for version in versions {
            let query = rows_of(&version.projection, &version.schema_name);
            let digest: String = sqlx::query_scalar(AssertSqlSafe(format!(
                "select md5(coalesce(string_agg(k || v, ',' order by k, v), '')) \
                 from (select k, v::text from ({query}) q (k, v)) t"
            )))
            .fetch_one(&mut *tx)
            .await?;
            let is_right = right
                .get(&version)
                .is_some_and(|(of, at)| *of == digest && *at == seen.places(&version));
            let mut content = Content { digest, rows: None };
            if !is_right {
                let rows: Vec<(String, Value)> =
                    sqlx::query_as(AssertSqlSafe(query)).fetch_all(&mut *tx).await?;
                content.rows = Some(rows.into_iter().collect());
            }
            seen.versions.push((version, content));
        }
        seen.schemas = sqlx::query_scalar(SCHEMAS).fetch_all(&mut *tx).await?.into_iter().collect();
        seen.views = fetch(&mut tx, VIEWS).await?.into_iter().collect();
        seen.waiting = sqlx::query_scalar(WAITING).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(seen)
    }

    async fn connect(&mut self) -> Result<&mut PgConnection, sqlx::Error> {
        if self.connection.is_none() {
            let options = self.options.clone().port(self.server.load(Ordering::Relaxed));
            self.connection = Some(options.connect().await?);
        }
        Ok(self.connection.as_mut().unwrap())
    }

    /// Ends a session. Does nothing if the server is down.
    pub async fn terminate(&mut self, backend: u32) {
        if let Ok(connection) = self.connect().await {
            let backend = i32::try_from(backend).unwrap();
            let ended = sqlx::query("select pg_terminate_backend($1)").bind(backend);
            if ended.execute(connection).await.is_err() {
                self.connection = None;
            }
        }
    }
}

/// The query for all rows of a version, each with a key.
fn rows_of(model: &str, schema: &str) -> String {
    let one_a_stream =
        |key: &str| format!("select {key}::text, to_jsonb(t) from {schema}.{model} t");
    match model.parse::<ReadModel>().unwrap() {
        ReadModel::Orders => one_a_stream("order_id"),
        ReadModel::Products => one_a_stream("product_id"),
        ReadModel::Customers => one_a_stream("customer_id"),
        ReadModel::History => one_a_stream("event_id"),
        ReadModel::Wishlists => format!(
            "select concat_ws(' ', customer_id, product_id), to_jsonb(t) from {schema}.wishlists t"
        ),
        ReadModel::Search => format!(
            "select product_id::text, to_jsonb(t) - 'name' - 'whole' || jsonb_build_object( \
             'words', (select array_agg(lexeme order by lexeme collate \"C\") from unnest(whole))) \
             from {schema}.search t \
             union all select concat_ws(' ', word, partition), to_jsonb(w) from {schema}.search_word w"
        ),
        ReadModel::Sales => format!(
            "select concat_ws(' ', to_jsonb(bucket), partition), to_jsonb(t) from {schema}.sales t \
             union all select concat_ws(' ', to_jsonb(bucket), partition, product_id), to_jsonb(t) \
             from {schema}.sales_product t \
             union all select order_id::text, to_jsonb(t) from {schema}.sales_order t"
        ),
    }
}

async fn fetch<R>(connection: &mut PgConnection, query: &'static str) -> Result<Vec<R>, sqlx::Error>
where
    R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    sqlx::query_as(query).fetch_all(connection).await
}

impl Seen {
    /// The number of applied events of all versions together.
    pub fn events(&self) -> i64 {
        self.checkpoints.iter().map(|checkpoint| checkpoint.events).sum()
    }

    /// The positions of all checkpoints, as text.
    pub fn positions(&self) -> String {
        let of = |it: &Checkpoint| {
            let Checkpoint { projection, version, partition, next_offset, .. } = it;
            format!("{projection}_v{version}/{partition} at {next_offset}")
        };
        let mut all: Vec<_> = self.checkpoints.iter().map(of).collect();
        all.sort();
        all.join(", ")
    }

    /// Whether the read models exist.
    pub fn made(&self) -> bool {
        !self.versions.is_empty()
    }

    pub fn building(&self) -> bool {
        self.versions.iter().any(|(version, _)| version.building)
    }

    /// Whether every version of every read model has applied every event.
    pub fn complete(&self, facts: &[Fact]) -> bool {
        let mut ends = BTreeMap::new();
        for fact in facts {
            let partition = i32::try_from(fact.position.partition.0).unwrap();
            ends.insert(partition, fact.position.offset.0);
        }
        let behind = |checkpoint: &Checkpoint| {
            ends.get(&checkpoint.partition).is_some_and(|end| checkpoint.next_offset <= *end)
        };
        !self.checkpoints.is_empty() && !self.checkpoints.iter().any(behind)
    }

    /// Compares everything with the log.
    pub fn check(&self, facts: &[Fact]) -> Result<(), Violation> {
        self.check_versions()?;
        for checkpoint in &self.checkpoints {
            check_checkpoint(checkpoint, facts)?;
            self.check_parked(checkpoint, facts)?;
        }
        for (version, content) in &self.versions {
            if let Some(rows) = &content.rows {
                self.check_rows(version, rows, facts)?;
            }
        }
        Ok(())
    }

    fn places(&self, version: &Version) -> Places {
        let of = |projection: &str, number: i32| {
            projection == version.projection && number == version.number
        };
        let checkpoints = self
            .checkpoints
            .iter()
            .filter(|at| of(&at.projection, at.version))
            .map(|at| (Partition(at.partition.unsigned_abs()), Offset(at.next_offset)));
        let parked = self.parked.iter().filter(|it| of(&it.projection, it.version));
        let parked = parked.map(|it| (it.stream(), Offset(it.first_offset)));
        (checkpoints.collect(), parked.collect())
    }

    /// The events kept back must be those of the stream in the log, from the parked event up to the
    /// checkpoint.
    fn check_parked(&self, at: &Checkpoint, facts: &[Fact]) -> Result<(), Violation> {
        let here = |it: &&Parked| {
            (&it.projection, it.version, it.partition) == (&at.projection, at.version, at.partition)
        };
        let parked: Vec<_> = self.parked.iter().filter(here).collect();
        if parked.len() as i32 != at.parked {
            return Err(Violation(format!("{at:?}, but the parked streams are {parked:?}")));
        }
        for it in parked {
            let of = |fact: &&Fact| {
                let offset = fact.position.offset.0;
                fact.record.stream == it.stream()
                    && (it.first_offset..at.next_offset).contains(&offset)
            };
            let kept: Vec<_> = facts.iter().filter(of).collect();
            let last = kept.last().map(|fact| fact.position.offset.0);
            let version = kept.first().map(|fact| fact.record.metadata.version as i64);
            let expected = (kept.len() as i64, last, version);
            if expected != (it.events, Some(it.last_offset), Some(it.stream_version)) {
                return Err(Violation(format!("{it:?} at {at:?}, but the log has {expected:?}")));
            }
        }
        Ok(())
    }

    /// The streams that are parked in some version.
    pub fn parked(&self) -> BTreeSet<StreamId> {
        self.parked.iter().map(Parked::stream).collect()
    }

    fn check_versions(&self) -> Result<(), Violation> {
        let versions = || self.versions.iter().map(|(version, _)| version);
        // The migrations have run, but no version exists yet.
        let none = self.versions.is_empty();
        for model in ReadModel::ALL.into_iter().filter(|_| !none) {
            self.check_serving(model)?;
        }
        for version in versions() {
            let of = |checkpoint: &&Checkpoint| {
                checkpoint.projection == version.projection && checkpoint.version == version.number
            };
            if self.checkpoints.iter().filter(of).any(|it| it.serving != version.serving) {
                return Err(Violation(format!("the checkpoints of {version:?} do not match it")));
            }
        }
        let schemas: BTreeSet<_> = versions().map(|version| version.schema_name.clone()).collect();
        if schemas != self.schemas {
            let found = &self.schemas;
            return Err(Violation(format!(
                "the versions have the schemas {schemas:?}, but {found:?} exist"
            )));
        }
        Ok(())
    }

    fn check_serving(&self, model: ReadModel) -> Result<(), Violation> {
        let of = || {
            let versions = self.versions.iter().map(|(version, _)| version);
            versions.filter(|version| version.projection == model.as_str())
        };
        let serving: Vec<_> = of().filter(|version| version.serving).collect();
        let [serving] = serving[..] else {
            let all: Vec<_> = self.versions.iter().map(|(version, _)| version).collect();
            return Err(Violation(format!("of {model}, {serving:?} serve among {all:#?}")));
        };
        let shown = (model.to_string(), serving.schema_name.clone());
        let views: Vec<_> = self.views.iter().filter(|(view, _)| *view == shown.0).collect();
        if views != [&shown] {
            return Err(Violation(format!("{shown:?} serves, but the views show {views:?}")));
        }
        if of().filter(|version| version.building).count() > 1 {
            return Err(Violation(format!("two versions of {model} are being built")));
        }
        Ok(())
    }

    fn check_rows(&self, version: &Version, found: &Rows, facts: &[Fact]) -> Result<(), Violation> {
        let (checkpoints, parked) = self.places(version);
        let expected = rows(version.projection.parse().unwrap(), facts, &checkpoints, &parked);
        if *found == expected {
            return Ok(());
        }
        let keys: BTreeSet<_> = expected.keys().chain(found.keys()).collect();
        let differs = keys.into_iter().find(|key| expected.get(*key) != found.get(*key)).unwrap();
        Err(Violation(format!(
            "{} at {checkpoints:?}: row {differs} is {:#?} but must be {:#?}",
            version.schema_name,
            found.get(differs),
            expected.get(differs)
        )))
    }
}

fn check_checkpoint(checkpoint: &Checkpoint, facts: &[Fact]) -> Result<(), Violation> {
    if checkpoint.stopped.is_some() {
        return Err(Violation(format!("stopped without a reason in the log: {checkpoint:?}")));
    }
    let partition = checkpoint.partition.unsigned_abs();
    let before = facts.iter().filter(|fact| {
        fact.position.partition.0 == partition && fact.position.offset.0 < checkpoint.next_offset
    });
    let (events, last) =
        before.fold((0, None), |(events, _), fact| (events + 1, Some(fact.position.offset.0)));
    if (events, last) != (checkpoint.events, checkpoint.last_offset) {
        let log = format!("{events} events before it, the last at {last:?}");
        return Err(Violation(format!("{checkpoint:?}, but the log has {log}")));
    }
    Ok(())
}
