//! Full, read-only, damaged and foreign disks, and hostile clients.

mod disk;
mod exit_codes;
mod http;
mod input;
mod kafka;
mod preloaded;
mod wrong_log;
