//! Names the code that folds events into state: the name is a hash of its sources.

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
    // FNV-1a is enough to tell versions of the code apart; it is no protection against forgery.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for source in sources {
        for byte in fs::read(source)? {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
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
