//! Identifies the code that decides what rows say, by a checksum of its sources.

#[path = "../events/src/fnv.rs"]
mod fnv;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The events, the code that makes rows of them, the tables, and the versions of the libraries.
const SOURCES: [&str; 4] = ["src", "../events/src", "../migrations/projections", "../Cargo.lock"];

fn main() -> io::Result<()> {
    // The migrations are compiled in, but cargo does not notice a new file among them.
    println!("cargo:rerun-if-changed=../migrations");
    let mut sources = Vec::new();
    for path in SOURCES {
        println!("cargo:rerun-if-changed={path}");
        collect(PathBuf::from(path), &mut sources)?;
    }
    sources.sort();
    let mut code = Vec::new();
    for source in sources {
        code.extend(fs::read(source)?);
    }
    let hash = fnv::fnv1a(code);
    println!("cargo:rustc-env=ORDERLOG_ROWS={hash:016x}");
    Ok(())
}

fn collect(path: PathBuf, sources: &mut Vec<PathBuf>) -> io::Result<()> {
    if !Path::is_dir(&path) {
        sources.push(path);
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(entry?.path(), sources)?;
    }
    Ok(())
}
