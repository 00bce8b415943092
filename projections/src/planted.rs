//! Known bugs that a test can plant, to show that it finds them. Without the feature `planted`
//! there are none.

use crate::{ReadModel, projection::Projection};
use std::sync::Arc;

/// A bug of a [`Projector`](crate::Projector).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// A checkpoint moves from wherever it is: a second writer is not fenced.
    #[cfg(feature = "planted")]
    UnconditionalCheckpoint,
    /// Checkpoints are committed before the rows.
    #[cfg(feature = "planted")]
    CheckpointFirst,
    /// The projector belongs to another build, which leaves out the addresses of orders without
    /// having raised the revision.
    #[cfg(feature = "planted")]
    OtherRows,
}

impl Planted {
    pub(crate) const fn unconditional_checkpoint(self) -> bool {
        match self {
            #[cfg(feature = "planted")]
            Self::UnconditionalCheckpoint => true,
            _ => false,
        }
    }

    pub(crate) const fn checkpoint_first(self) -> bool {
        match self {
            #[cfg(feature = "planted")]
            Self::CheckpointFirst => true,
            _ => false,
        }
    }

    /// A checksum of the sources that decide what rows say.
    pub(crate) const fn sources(self) -> &'static str {
        match self {
            #[cfg(feature = "planted")]
            Self::OtherRows => "planted",
            _ => env!("ORDERLOG_ROWS"),
        }
    }

    /// The writer of the version in `schema`.
    pub(crate) fn writer(self, model: ReadModel, schema: &str) -> Arc<dyn Projection> {
        match self {
            #[cfg(feature = "planted")]
            Self::OtherRows if model == ReadModel::Orders => {
                Arc::new(other_rows::Forgetful::new(model, schema))
            }
            _ => model.writer(schema),
        }
    }
}

#[cfg(feature = "planted")]
mod other_rows {
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
