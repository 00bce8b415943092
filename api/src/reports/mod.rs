//! Reports, for staff.

pub mod sales;
