//! The endpoints of administrators.

pub mod parked;
pub mod projections;
pub mod streams;
