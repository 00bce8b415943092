//! What an administrator sees and does.

pub mod projections;
pub mod streams;
