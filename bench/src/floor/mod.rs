//! The floor below the log and the read models: what the storage does with the same rows, and
//! nothing else of ours.

pub mod copy;
pub mod embedded;
pub mod kafka;
pub mod rebuild;

/// What a batch of the floor looks like.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Rows a commit.
    pub batch: usize,
    /// Bytes of an event's body.
    pub body_bytes: usize,
}

impl Rows {
    /// Rows like those of a `StockChanged` event.
    pub const PLAIN_BODY: usize = 40;
}
