//! Builds of the program, whose code folds the read models.

use crate::{ReadModel, projection::Projection};
use std::sync::Arc;

/// Which program's code folds a read model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// This program's.
    Ours,
    /// Another program's, which leaves out the addresses of orders, under the same revision.
    #[cfg(feature = "planted")]
    Forgetful,
}

impl Build {
    /// A checksum of the sources that decide what rows say.
    pub const fn sources(self) -> &'static str {
        match self {
            Self::Ours => env!("ORDERLOG_ROWS"),
            #[cfg(feature = "planted")]
            Self::Forgetful => "planted",
        }
    }

    /// The writer of the version in `schema`.
    pub fn writer(self, model: ReadModel, schema: &str) -> Arc<dyn Projection> {
        match self {
            #[cfg(feature = "planted")]
            Self::Forgetful if model == ReadModel::Orders => {
                Arc::new(forgetful::Forgetful::new(model, schema))
            }
            _ => model.writer(schema),
        }
    }
}

#[cfg(feature = "planted")]
mod forgetful {
    use crate::{
        ReadModel,
        facts::Facts,
        projection::{ApplyError, Projection},
        rebuild::{applied::Applied, gather::Gather},
    };
    use async_trait::async_trait;
    use events::StreamKind;
    use sqlx::{AssertSqlSafe, PgConnection};
    use std::sync::Arc;

    #[derive(Clone)]
    pub(super) struct Forgetful {
        orders: Arc<dyn Projection>,
        forget: String,
    }

    impl Forgetful {
        pub fn new(model: ReadModel, schema: &str) -> Self {
            let forget = format!("update {schema}.orders set shipping_address = null");
            Self { orders: model.writer(schema), forget }
        }
    }

    #[async_trait]
    impl Projection for Forgetful {
        fn takes(&self, kind: StreamKind) -> bool {
            self.orders.takes(kind)
        }

        async fn apply(
            &self,
            connection: &mut PgConnection,
            facts: &Facts<'_>,
        ) -> Result<(), ApplyError> {
            self.orders.apply(connection, facts).await?;
            sqlx::raw_sql(AssertSqlSafe(self.forget.clone())).execute(connection).await?;
            Ok(())
        }

        fn gather(&self) -> Box<dyn Gather> {
            Box::new(Applied::new(self.clone(), |_| true))
        }
    }
}
