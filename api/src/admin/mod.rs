//! What an administrator sees and does.

pub mod parked;
pub mod projections;
pub mod streams;
