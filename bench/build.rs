//! The harness contains the whole program, so it must be linked like the program.

#[expect(
    clippy::disallowed_methods,
    reason = "a build script gets its input from Cargo in environment variables"
)]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(argument) = std::env::var("DEP_ORDERLOG_FETCH_LINK") {
        println!("cargo:rustc-link-arg={argument}");
    }
}
