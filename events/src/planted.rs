//! Known bugs, for a simulator to find: an instrument that has never found anything proves nothing.
//!
//! They exist with the feature `planted` alone, and there only where a test has planted one in its own thread. Without the
//! feature every question is answered `false` before the program is built.

/// A bug that somebody has made before, here or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A command is answered before its batch is in the log.
    AnswerBeforeDurable,
    /// A partition is served as soon as the claim is committed, not when it has been read back.
    ServeBeforeClaimIsRead,
    /// A partition is served without a claim, behind fences alone.
    FenceWithoutClaim,
    /// A process that was overtaken while it reopened a partition takes it back.
    PartitionTakenBack,
    /// A commit that was slow, and may be repeated late, is taken for a clean one.
    SlowCommitTrusted,
    /// What was applied before a restart is not known after it.
    DedupeForgotten,
    /// A snapshot leaves out which commands were applied.
    SnapshotForgetsCommands,
    /// What a failed batch would have changed stays in memory.
    OverlayKept,
    /// Closing what is not open leaves no trace.
    CloseAppendsNothing,
    /// An effect goes by the version of its stream, which moves between two tries.
    EffectNamedByVersion,
    /// A payment under way when its order dies is forgotten.
    PaymentNotSettled,
    /// A letter that is recorded as sent is owed still.
    MailSentTwice,
    /// The end of an erasure is recorded without it.
    KeyKept,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::AnswerBeforeDurable,
        Self::ServeBeforeClaimIsRead,
        Self::FenceWithoutClaim,
        Self::PartitionTakenBack,
        Self::SlowCommitTrusted,
        Self::DedupeForgotten,
        Self::SnapshotForgetsCommands,
        Self::OverlayKept,
        Self::CloseAppendsNothing,
        Self::EffectNamedByVersion,
        Self::PaymentNotSettled,
        Self::MailSentTwice,
        Self::KeyKept,
    ];

    /// Whether this thread has it.
    #[cfg(not(feature = "planted"))]
    pub const fn is_planted(self) -> bool {
        false
    }

    /// Whether this thread has it.
    #[cfg(feature = "planted")]
    pub fn is_planted(self) -> bool {
        switch::PLANTED.get() == Some(self)
    }

    /// Gives it to this thread, until the guard is dropped.
    #[cfg(feature = "planted")]
    #[must_use]
    pub fn plant(self) -> switch::Planted {
        switch::PLANTED.set(Some(self));
        switch::Planted
    }
}

#[cfg(feature = "planted")]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        pub(super) static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Takes the bug away when dropped.
    #[derive(Debug)]
    pub struct Planted;

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
}
