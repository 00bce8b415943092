//! Known bugs, planted on demand, for the tests that show that they are found. Without the feature `planted` there are none.

/// A bug of a [`Projector`](crate::Projector).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// Checkpoints move wherever they are: whoever believes to be alone is not stopped.
    #[cfg(feature = "planted")]
    UnconditionalCheckpoint,
    /// Checkpoints are committed before the rows.
    #[cfg(feature = "planted")]
    CheckpointFirst,
}

impl Planted {
    pub(crate) const fn unconditional_checkpoint(self) -> bool {
        match self {
            Self::Nothing => false,
            #[cfg(feature = "planted")]
            Self::UnconditionalCheckpoint => true,
            #[cfg(feature = "planted")]
            Self::CheckpointFirst => false,
        }
    }

    pub(crate) const fn checkpoint_first(self) -> bool {
        match self {
            Self::Nothing => false,
            #[cfg(feature = "planted")]
            Self::UnconditionalCheckpoint => false,
            #[cfg(feature = "planted")]
            Self::CheckpointFirst => true,
        }
    }
}
