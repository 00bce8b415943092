//! The folder of schemas is part of the crate: a file that comes or goes has to be noticed.

fn main() {
    println!("cargo:rerun-if-changed=schemas");
}
