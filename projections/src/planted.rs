//! Known bugs that a test can plant, to show that it finds them. Without the feature `planted`
//! there are none.

use crate::build::Build;

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

    /// The build whose code folds the read models.
    pub(crate) const fn build(self) -> Build {
        match self {
            #[cfg(feature = "planted")]
            Self::OtherRows => Build::Forgetful,
            _ => Build::Ours,
        }
    }
}
