//! The exit codes, which tell a supervisor whether a restart can help.
//!
//! The codes from 64 on are those of `sysexits.h`. A supervisor restarts on 1, 69 to 71, 74 and 75;
//! 64, 65 and 78 need a person.

use events::{keys::KeyError, log::ConnectError, log::ReadError};
use orderlog::{
    auth::AuthKeyError,
    config::{Config, LogChoice},
    data_dir::DataDirError,
    startup::StartError,
};
use projections::{
    PrepareError,
    database::{DatabaseError, local::LocalError},
};
use std::io;

/// An error without a code of its own. For `audit`: it found a fault.
pub const FAULT: u8 = 1;
/// An invalid command line or setting (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// Stored data is damaged (`EX_DATAERR`).
pub const DATA: u8 = 65;
/// Kafka or PostgreSQL does not answer (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// A part of the program failed (`EX_SOFTWARE`).
pub const SOFTWARE: u8 = 70;
/// The log was lost to this process while it ran (`EX_OSERR`).
pub const LOG_LOST: u8 = 71;
/// The disk fails, is full or is not accessible (`EX_IOERR`).
pub const DISK: u8 = 74;
/// Another process uses the data directory or the address (`EX_TEMPFAIL`).
pub const BUSY: u8 = 75;
/// The settings do not match the environment (`EX_CONFIG`).
pub const CONFIG: u8 = 78;

/// The codes and their meanings, as `--help` and `docs/operating.md` show them.
pub const TABLE: [(u8, &str); 10] = [
    (0, "success"),
    (FAULT, "an error that standard error describes; for `audit`: it found a fault"),
    (USAGE, "invalid command line or setting: nothing was started"),
    (DATA, "the log, the keys or the gateway's journal is damaged: a restart does not help"),
    (UNAVAILABLE, "Kafka or PostgreSQL does not answer: start again later"),
    (SOFTWARE, "a part of the program failed: start again, and report it"),
    (LOG_LOST, "the disk lost a write of the log, which accepts nothing more: start again"),
    (DISK, "the data directory cannot be read or written: disk full, read-only or failing"),
    (BUSY, "another process uses the data directory, the address or the log"),
    (CONFIG, "the settings do not match the log, the keys, the database or the installed programs"),
];

/// The table for `--help`.
pub fn help() -> String {
    let rows = TABLE.map(|(code, meaning)| format!("\n  {code:>2}  {}", meaning.replace('`', "")));
    format!("Exit codes:{}", rows.concat())
}

/// The exit code for the error of a command.
pub fn code_of(error: &anyhow::Error, config: &Config) -> u8 {
    let kept = Kept {
        log: if config.log == LogChoice::Embedded { DISK } else { UNAVAILABLE },
        keys: if config.database.is_none() { DISK } else { UNAVAILABLE },
    };
    error.chain().find_map(|cause| kept.code(cause)).unwrap_or(FAULT)
}

/// The codes for a log and a key store that do not answer, which depend on where they are.
struct Kept {
    log: u8,
    keys: u8,
}

impl Kept {
    fn code(&self, error: &(dyn std::error::Error + 'static)) -> Option<u8> {
        if let Some(error) = error.downcast_ref::<StartError>() {
            return self.of_start(error);
        }
        let known = [
            error.downcast_ref().map(|error| self.of_log(error)),
            error.downcast_ref().map(|error| self.of_read(error)),
            error.downcast_ref().map(|error| self.of_keys(error)),
            error.downcast_ref().map(of_data_dir),
            error.downcast_ref().map(of_local),
            error.downcast_ref().map(of_database),
            error.downcast_ref().map(of_prepare),
            error.downcast_ref().map(of_auth),
            error.is::<sqlx::Error>().then_some(UNAVAILABLE),
            error.downcast_ref().map(of_system),
        ];
        known.into_iter().flatten().next()
    }

    fn of_start(&self, error: &StartError) -> Option<u8> {
        Some(match error {
            StartError::DataDir(error) => of_data_dir(error),
            StartError::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => BUSY,
            StartError::CommandNode(_) => BUSY,
            StartError::CommandNodeUnknown(_) => UNAVAILABLE,
            StartError::Log(error) => self.of_log(error),
            StartError::History(error) => self.of_read(error),
            StartError::LocalDatabase(error) => of_local(error),
            StartError::Database(error)
            | StartError::Projector(projections::StartError::Connect(error)) => of_database(error),
            StartError::Prepare(error)
            | StartError::Projector(projections::StartError::Prepare(error)) => of_prepare(error),
            StartError::Keys(error) => self.of_keys(error),
            StartError::Auth(error) => of_auth(error),
            StartError::Gateway { source, .. }
            | StartError::Projector(projections::StartError::Background(source)) => {
                of_system(source)
            }
            StartError::Listen { .. }
            | StartError::Mail(_)
            | StartError::KeysInFile(_)
            | StartError::KeysInDatabase(_)
            | StartError::OtherCurrency { .. }
            | StartError::PublicKey { .. }
            | StartError::Stripe(_) => CONFIG,
            StartError::KeysGone(_) => DATA,
            StartError::Metrics(_) => return None,
        })
    }

    fn of_log(&self, error: &ConnectError) -> u8 {
        match error {
            ConnectError::Damaged { .. } => DATA,
            ConnectError::Refused { .. } => CONFIG,
            ConnectError::InUse { .. } => BUSY,
            ConnectError::Unavailable { .. } => self.log,
        }
    }

    fn of_read(&self, error: &ReadError) -> u8 {
        match error {
            ReadError::Damaged { .. } => DATA,
            ReadError::Unavailable(_) => self.log,
        }
    }

    fn of_keys(&self, error: &KeyError) -> u8 {
        match error {
            KeyError::Damaged(_) => DATA,
            KeyError::Destroyed | KeyError::Unavailable(_) => self.keys,
        }
    }
}

fn of_data_dir(error: &DataDirError) -> u8 {
    match error {
        DataDirError::InUse(_) => BUSY,
        DataDirError::Io { .. } => DISK,
    }
}

fn of_local(error: &LocalError) -> u8 {
    match error {
        LocalError::NoBinaries { .. }
        | LocalError::NoAccount
        | LocalError::Unreachable { .. }
        | LocalError::WrongOwner { .. }
        | LocalError::Name(_) => CONFIG,
        LocalError::Io { .. } | LocalError::InitDb { .. } => DISK,
        _ => UNAVAILABLE,
    }
}

fn of_database(error: &DatabaseError) -> u8 {
    match error {
        DatabaseError::TooOld { .. } | DatabaseError::Url(_) | DatabaseError::Extension(_) => {
            CONFIG
        }
        _ => UNAVAILABLE,
    }
}

fn of_prepare(error: &PrepareError) -> u8 {
    match error {
        PrepareError::Migrate(error) => of_database(error),
        PrepareError::Database(_) => UNAVAILABLE,
        PrepareError::Partitions { .. } => CONFIG,
    }
}

fn of_auth(error: &AuthKeyError) -> u8 {
    match error {
        AuthKeyError::File { .. } => DISK,
        AuthKeyError::Malformed(_) => DATA,
        AuthKeyError::Sign(_) | AuthKeyError::Client(_) => FAULT,
    }
}

fn of_system(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::InvalidData => DATA,
        io::ErrorKind::AddrInUse => BUSY,
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => UNAVAILABLE,
        _ => DISK,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operating_page_shows_the_table() {
        let page = include_str!("../../../docs/operating.md");
        let rows = TABLE.map(|(code, meaning)| format!("| {code} | {meaning} |\n"));
        let table = format!("| exit code | meaning |\n|---|---|\n{}", rows.concat());
        let missing = rows.iter().any(|row| !page.contains(row));
        assert!(!missing, "docs/operating.md must have this table of exit codes:\n\n{table}");
    }

    fn code(error: impl Into<anyhow::Error>) -> u8 {
        let config = Config::embedded("data", "GBP".parse().unwrap());
        code_of(&error.into(), &config)
    }

    #[test]
    fn an_error_has_the_same_code_wherever_it_comes_from() {
        let damaged = || ConnectError::Damaged { log: "l".into(), reason: "r".into() };
        assert_eq!((code(damaged()), code(StartError::Log(damaged()))), (DATA, DATA));
        let in_use = || DataDirError::InUse("data".into());
        assert_eq!((code(in_use()), code(StartError::DataDir(in_use()))), (BUSY, BUSY));
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let wrapped = anyhow::Error::from(full()).context("the data directory cannot be made");
        assert_eq!(
            (code(full()), code_of(&wrapped, &Config::embedded("d", "GBP".parse().unwrap()))),
            (DISK, DISK)
        );
        assert_eq!(code(anyhow::anyhow!("whatever else")), FAULT);
        assert_eq!(code(StartError::KeysInFile("keys".into())), CONFIG);
    }
}
