//! The harness is the program too, and is linked like it.

#[expect(clippy::disallowed_methods, reason = "a build reads what Cargo tells it")]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(argument) = std::env::var("DEP_ORDERLOG_FETCH_LINK") {
        println!("cargo:rustc-link-arg={argument}");
    }
}
