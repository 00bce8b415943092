//! The floor below the log and the read models: the raw storage with the same rows, without our own
//! code.

pub mod copy;
pub mod embedded;
pub mod kafka;
pub mod rebuild;

/// The shape of a batch of the floor.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Rows per commit.
    pub batch: usize,
    /// Size of an event's body, in bytes.
    pub body_bytes: usize,
}

impl Rows {
    /// Size of the body of a `StockChanged` event, in bytes.
    pub const PLAIN_BODY: usize = 40;
}
