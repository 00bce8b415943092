//! Known bugs that tests plant on purpose, to prove that the simulator finds them.
//!
//! They exist only with the feature `planted`, and take effect only in a thread whose test has
//! planted one. Without the feature, [`Bug::is_planted`] is `false` at compile time.

/// A bug that was made before, here or in another project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The shard answers a command before its batch is durable.
    AnswerBeforeDurable,
    /// The shard serves a partition once its claim is committed, without reading the claim back.
    ServeBeforeClaimIsRead,
    /// The shard serves a partition without a claim and relies on Kafka's fencing alone.
    FenceWithoutClaim,
    /// A process that lost a partition while it was reopening it takes the partition back.
    PartitionTakenBack,
    /// The writer trusts a slow commit, whose request may be repeated late.
    SlowCommitTrusted,
    /// The shard forgets at a restart which commands it has applied.
    DedupeForgotten,
    /// A snapshot does not contain the ids of the applied commands.
    SnapshotForgetsCommands,
    /// The changes of a failed batch stay in memory.
    OverlayKept,
    /// A close of an order that is not open appends no event.
    CloseAppendsNothing,
    /// An effect's identity contains the version of its stream, which can change between two tries.
    EffectNamedByVersion,
    /// The payment of a rejected or cancelled order is never settled.
    PaymentNotSettled,
    /// The order still owes an e-mail that is recorded as sent.
    MailSentTwice,
    /// An erasure is recorded as done although the key still exists.
    KeyKept,
}

impl Bug {
    /// All bugs.
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

    /// Whether this thread has the bug.
    #[cfg(not(feature = "planted"))]
    pub const fn is_planted(self) -> bool {
        false
    }

    /// Whether this thread has the bug.
    #[cfg(feature = "planted")]
    pub fn is_planted(self) -> bool {
        switch::PLANTED.get() == Some(self)
    }

    /// Plants the bug in this thread until the guard is dropped.
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

    /// Removes the bug when dropped.
    #[derive(Debug)]
    pub struct Planted;

    impl Drop for Planted {
        fn drop(&mut self) {
            PLANTED.set(None);
        }
    }
}
