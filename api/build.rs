//! The examples of the interface are part of the crate: a file that comes or goes has to be
//! noticed.

fn main() {
    println!("cargo:rerun-if-changed=src/openapi/examples");
}
