//! Disks that are full, read-only, damaged or another's, and clients that mean no good.

mod disk;
mod exit_codes;
mod http;
mod input;
mod kafka;
mod wrong_log;
