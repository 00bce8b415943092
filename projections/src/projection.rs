//! Read models: their names, their tables, and the writers that turn events into rows.

use crate::{
    customers::Customers, facts::Facts, history::History, orders::Orders, products::Products,
    rebuild::gather::Gather, sales::Sales, search::Search, wishlists::Wishlists,
};
use async_trait::async_trait;
use events::{Partition, StreamId, StreamKind};
use sqlx::PgConnection;
use std::{fmt, str::FromStr, sync::Arc};

/// A read model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReadModel {
    /// Orders.
    Orders,
    /// Products.
    Products,
    /// Customers.
    Customers,
    /// Every event of every stream.
    History,
    /// Wishlists.
    Wishlists,
    /// The words of products, for search.
    Search,
    /// Sums of sales.
    Sales,
}

/// No read model has this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no read model with this name")]
pub struct UnknownReadModel;

impl ReadModel {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Orders,
        Self::Products,
        Self::Customers,
        Self::History,
        Self::Wishlists,
        Self::Search,
        Self::Sales,
    ];

    /// The name in tables, commands and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Products => "products",
            Self::Customers => "customers",
            Self::History => "history",
            Self::Wishlists => "wishlists",
            Self::Search => "search",
            Self::Sales => "sales",
        }
    }

    /// Its place in [`ReadModel::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }

    pub(crate) fn template(self) -> Template {
        macro_rules! template {
            ($name:literal, $revision:literal) => {
                Template {
                    revision: $revision,
                    tables: include_str!(concat!(
                        "../../migrations/projections/",
                        $name,
                        "/tables.sql"
                    )),
                    indexes: include_str!(concat!(
                        "../../migrations/projections/",
                        $name,
                        "/indexes.sql"
                    )),
                    views: include_str!(concat!(
                        "../../migrations/projections/",
                        $name,
                        "/views.sql"
                    )),
                }
            };
        }
        match self {
            Self::Orders => template!("orders", 2),
            Self::Products => template!("products", 2),
            Self::Customers => template!("customers", 2),
            Self::History => template!("history", 1),
            Self::Wishlists => template!("wishlists", 1),
            Self::Search => template!("search", 1),
            Self::Sales => template!("sales", 1),
        }
    }

    /// The writer of the version in `schema`.
    pub(crate) fn writer(self, schema: &str) -> Arc<dyn Projection> {
        match self {
            Self::Orders => Arc::new(Orders::new(schema)),
            Self::Products => Arc::new(Products::new(schema)),
            Self::Customers => Arc::new(Customers::new(schema)),
            Self::History => Arc::new(History::new(schema)),
            Self::Wishlists => Arc::new(Wishlists::new(schema)),
            Self::Search => Arc::new(Search::new(schema)),
            Self::Sales => Arc::new(Sales::new(schema)),
        }
    }
}

impl fmt::Display for ReadModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReadModel {
    type Err = UnknownReadModel;

    fn from_str(name: &str) -> Result<Self, UnknownReadModel> {
        Self::ALL.into_iter().find(|model| model.as_str() == name).ok_or(UnknownReadModel)
    }
}

/// The SQL from which a version is made. It runs under the version's own `search_path`.
pub(crate) struct Template {
    /// Raise it by hand whenever the same events give other rows than before.
    pub revision: u32,
    pub tables: &'static str,
    pub indexes: &'static str,
    pub views: &'static str,
}

impl Template {
    /// The statement that makes the key: the first one of the indexes.
    pub fn key(&self) -> &'static str {
        self.indexes.split_inclusive(';').next().unwrap_or_default()
    }

    /// The statements that make the other indexes.
    pub fn rest(&self) -> &'static str {
        &self.indexes[self.key().len()..]
    }

    /// Identifies the code that writes the rows by its revision and a checksum of its tables.
    pub fn fingerprint(&self) -> String {
        let bytes = self.tables.bytes().chain(self.indexes.bytes()).chain(self.views.bytes());
        let hash = events::fnv1a(bytes);
        format!("{}-{hash:016x}", self.revision)
    }
}

/// The revision in a fingerprint. A fingerprint without one counts as older than any revision.
pub(crate) fn revision(fingerprint: &str) -> u32 {
    fingerprint.split_once('-').and_then(|(revision, _)| revision.parse().ok()).unwrap_or_default()
}

/// Turns events into rows, for one version of a read model. The worker owns the transaction and the
/// checkpoint.
#[async_trait]
pub(crate) trait Projection: Send + Sync {
    /// Whether events of streams of this kind change its rows. Only then does an event that cannot
    /// be decoded park its stream in this read model.
    fn takes(&self, _: StreamKind) -> bool {
        true
    }

    /// Writes the changes that `facts` make to the rows.
    async fn apply(
        &self,
        connection: &mut PgConnection,
        facts: &Facts<'_>,
    ) -> Result<(), ApplyError>;

    /// A new, empty collector for the events of one partition, which writes them in bulk.
    fn gather(&self) -> Box<dyn Gather>;
}

/// Why events did not become rows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("the rows could not be written")]
    Database(#[from] sqlx::Error),
    /// The stream is not as it must be; it is parked.
    #[error("{stream} {problem}")]
    Stream { partition: Partition, stream: StreamId, problem: String },
}

/// The error for a row that this program's code cannot have written.
pub(crate) fn unreadable(table: &'static str, problem: impl Into<String>) -> crate::QueryError {
    crate::QueryError::Row { table, problem: problem.into() }
}
