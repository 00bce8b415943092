//! Finds the `PostgreSQL` programs on this machine.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::{Account, command};
use super::error::LocalError;
use crate::database::OLDEST_MAJOR;

/// Where packages install the programs: a parent folder, a prefix of the folders in it, and the
/// folder below each of these.
const USUAL: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/Library/PostgreSQL", "", "bin"),
];

/// The programs of one installed version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    folder: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    pub(super) fn postgres(&self) -> PathBuf {
        self.folder.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.folder.join("initdb")
    }
}

/// The programs to use: those of version `preferred` if there are any (only the version that made a
/// cluster can read it), or else the first usable ones. Each is tried as the account that will run
/// it.
pub(super) fn find(
    folders: &[PathBuf],
    account: Option<&Account>,
    preferred: Option<u32>,
) -> Result<Binaries, LocalError> {
    let mut good: Vec<Binaries> = Vec::new();
    let mut refused = Vec::new();
    for folder in folders {
        match inspect(folder, account) {
            Ok(binaries) if preferred.is_none_or(|major| major == binaries.major) => {
                return Ok(binaries);
            }
            Ok(binaries) => good.push(binaries),
            Err(Some(reason)) => refused.push(format!("{}: {reason}", folder.display())),
            Err(None) => {}
        }
    }
    good.into_iter().next().ok_or_else(|| LocalError::NoBinaries {
        searched: if refused.is_empty() {
            "searched PATH, pg_config and the usual folders".to_owned()
        } else {
            refused.join("; ")
        },
    })
}

/// All folders that may contain the programs, in order of preference, with `last` at the end.
pub(super) fn candidates(last: PathBuf) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    folders.extend(pg_config());
    for (parent, prefix, below) in USUAL {
        folders.extend(versions(Path::new(parent), prefix).map(|folder| folder.join(below)));
    }
    folders.push(last);
    let mut seen = std::collections::HashSet::new();
    folders.retain(|folder| folder.is_absolute() && seen.insert(folder.clone()));
    folders
}

/// The folder that `pg_config` names. `pg_config` is often installed without a server.
fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(folder.trim()))
}

/// The entries of `parent` that begin with `prefix`, the newest version first.
fn versions(parent: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    found.sort_by_key(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Reverse(first_number(&name).unwrap_or(0))
    });
    found.into_iter()
}

/// The programs in a folder. `Err(None)` if there are none; `Err` with a reason if they cannot be
/// used.
fn inspect(folder: &Path, account: Option<&Account>) -> Result<Binaries, Option<String>> {
    let postgres = folder.join("postgres");
    if !postgres.is_file() {
        return Err(None);
    }
    if !folder.join("initdb").is_file() {
        return Err(Some("has no initdb".to_owned()));
    }
    let output = command(&postgres, account, Path::new("/"))
        .arg("--version")
        .output()
        .map_err(|error| Some(format!("cannot be run: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match major_version(&text) {
        Some(major) if major >= OLDEST_MAJOR => Ok(Binaries { folder: folder.to_owned(), major }),
        Some(major) => Err(Some(format!("is version {major}"))),
        None => Err(Some("does not tell its version".to_owned())),
    }
}

/// `postgres (PostgreSQL) 17.2 (Debian 17.2-1)` gives 17.
fn major_version(text: &str) -> Option<u32> {
    first_number(text.split_once("(PostgreSQL)")?.1)
}

fn first_number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty())?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_packages_write_them() {
        for (text, major) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", 15),
            ("postgres (PostgreSQL) 18beta1", 18),
            ("postgres (PostgreSQL) 17devel", 17),
            ("postgres (PostgreSQL) 9.6.24", 9),
        ] {
            assert_eq!(major_version(text), Some(major), "{text}");
        }
        assert_eq!(major_version("no such shim"), None);
    }

    #[test]
    fn folders_of_versions_come_newest_first() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pgsql-9.6", "pgsql-15", "pgsql-17", "other-18"] {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        let names: Vec<_> = versions(parent.path(), "pgsql-")
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["pgsql-17", "pgsql-15", "pgsql-9.6"]);
    }

    #[test]
    fn without_programs_the_error_names_the_ways_out() {
        let error = find(&[], None, None).unwrap_err().to_string();
        for way in ["apt install postgresql", "DATABASE_URL", "docker compose up"] {
            assert!(error.contains(way), "{error}");
        }
    }

    #[test]
    fn programs_that_cannot_serve_are_named_in_the_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("postgres"), "").unwrap();
        let error = find(&[folder.path().to_owned()], None, None).unwrap_err();
        assert!(error.to_string().contains("has no initdb"), "{error}");
    }
}
