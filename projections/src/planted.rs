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

#[cfg(feature = "planted")]
impl Planted {
    pub(crate) fn unconditional_checkpoint(self) -> bool {
        self == Self::UnconditionalCheckpoint
    }

    pub(crate) fn checkpoint_first(self) -> bool {
        self == Self::CheckpointFirst
    }
}

#[cfg(not(feature = "planted"))]
impl Planted {
    pub(crate) const fn unconditional_checkpoint(self) -> bool {
        false
    }

    pub(crate) const fn checkpoint_first(self) -> bool {
        false
    }
}
