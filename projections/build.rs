//! Gives the code that decides what rows say a name of its own: that of its sources.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Events and what becomes of them, the tables, and the libraries that both call.
const DECIDE: [&str; 4] = ["src", "../events/src", "../migrations/projections", "../Cargo.lock"];

fn main() -> io::Result<()> {
    // They are compiled in, and a new file among them is no source the compiler would notice.
    println!("cargo:rerun-if-changed=../migrations");
    let mut sources = Vec::new();
    for path in DECIDE {
        println!("cargo:rerun-if-changed={path}");
        collect(PathBuf::from(path), &mut sources)?;
    }
    sources.sort();
    // FNV-1a: tells versions of the code apart, keeps nobody out.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for source in sources {
        for byte in fs::read(source)? {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
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
