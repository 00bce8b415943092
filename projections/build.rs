//! The migrations are compiled in, and a new file among them is no source the compiler would notice.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
