//! Rules for the source code, checked by tests.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The largest number of lines of a file.
const MOST_LINES: usize = 600;

/// The crates, and the crates of this workspace that each may use.
const ARROWS: [(&str, &[&str]); 5] = [
    ("events", &[]),
    ("commands", &["events"]),
    ("projections", &["events"]),
    ("api", &["events", "commands", "projections"]),
    ("bench", &["events", "commands", "projections", "orderlog"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The Rust files in a folder and its subfolders, with their text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {}", folder.display());
    found
}

fn program_sources() -> Vec<(PathBuf, String)> {
    ARROWS.iter().flat_map(|(name, _)| sources(&root().join(name).join("src"))).collect()
}

/// The names in a section of a manifest.
fn dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let name = |line: &str| line.split([' ', '.', '=']).next().unwrap_or_default().to_owned();
    manifest
        .lines()
        .skip_while(|line| *line != section)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .map(name)
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .collect()
}

#[test]
fn arrows_between_the_crates_point_down_only() {
    let house: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).chain(["orderlog"]).collect();
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let used = dependencies(&manifest, "[dependencies]");
        let used: BTreeSet<&str> =
            used.iter().map(String::as_str).filter(|used| house.contains(used)).collect();
        assert_eq!(used, allowed.iter().copied().collect(), "{name} uses");
    }
}

#[test]
fn kafka_and_sqlite_stay_behind_the_ports() {
    for (path, text) in program_sources() {
        let within = |folder: &str| path.starts_with(root().join(folder));
        if !within("events/src/log/kafka") && !within("bench") {
            assert!(!text.contains("rdkafka::"), "{path:?} uses rdkafka");
        }
        if !within("events/src/log/embedded") && !within("events/src/keys.rs") && !within("bench") {
            assert!(!text.contains("rusqlite::"), "{path:?} uses rusqlite");
        }
        if !within("projections") && !within("api/src") && !within("bench") {
            assert!(!text.contains("sqlx::"), "{path:?} uses sqlx");
        }
    }
}

#[test]
fn settings_are_read_in_one_place() {
    for (path, text) in program_sources() {
        let here = path.ends_with("api/src/cli/mod.rs");
        let reads = text.contains("env::var(") || text.contains("env::vars");
        assert!(here || !reads, "{} reads the environment", path.display());
    }
}

#[test]
fn what_decides_is_pure() {
    for kind in ["order", "product", "customer", "email", "wishlist"] {
        for (path, text) in sources(&root().join("commands/src").join(kind)) {
            for word in ["async ", ".await", "tokio", "std::time", "std::fs", "::now()"] {
                assert!(!text.contains(word), "{path:?} has {word:?}");
            }
        }
    }
}

/// The write side must run identically under the same seed.
#[test]
fn the_write_side_leaves_nothing_to_chance() {
    for (path, text) in sources(&root().join("commands/src")) {
        for word in ["collections::HashMap", "collections::HashSet", "RandomState"] {
            assert!(!text.contains(word), "{} has {word}", path.display());
        }
        for choice in text.split("select! {").skip(1) {
            let biased = choice.trim_start().starts_with("biased;");
            assert!(biased, "{} has a select! that is not biased", path.display());
        }
    }
}

#[test]
fn files_are_short_and_finished() {
    for (path, text) in program_sources() {
        let tests = path.file_stem().is_some_and(|name| name == "tests");
        let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
        assert!(tests || lines <= MOST_LINES, "{path:?} has {lines} lines");
        for word in ["todo!", "unimplemented!", "dbg!", "TODO", "FIXME", "XXX"] {
            assert!(!text.contains(word), "{path:?} has {word:?}");
        }
    }
}

#[test]
fn what_a_run_leaves_behind_is_not_kept() {
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    let ignored: BTreeSet<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    assert!(ignored.is_superset(&BTreeSet::from(["data", "target"])), "{ignored:?}");
}
