//! Names the code that folds events into state: the name is a hash of its sources.

#[path = "../events/src/fnv.rs"]
mod fnv;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    let mut sources = Vec::new();
    for folder in ["src", "../events/src"] {
        println!("cargo:rerun-if-changed={folder}");
        collect(Path::new(folder), &mut sources)?;
    }
    sources.sort();
    let mut code = Vec::new();
    for source in sources {
        code.extend(fs::read(source)?);
    }
    let hash = fnv::fnv1a(code);
    println!("cargo:rustc-env=ORDERLOG_FOLD={hash:016x}");
    Ok(())
}

fn collect(folder: &Path, sources: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else {
            sources.push(path);
        }
    }
    Ok(())
}
