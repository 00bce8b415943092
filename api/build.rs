//! What Cargo does not see by itself.

#[expect(clippy::disallowed_methods, reason = "a build reads what Cargo tells it")]
fn main() {
    // The examples of the interface are part of the crate: a file that comes or goes has to be noticed.
    println!("cargo:rerun-if-changed=src/openapi/examples");
    // One function of Kafka's library gives way to ours: see `events/build.rs`.
    if let Ok(argument) = std::env::var("DEP_ORDERLOG_FETCH_LINK") {
        println!("cargo:rustc-link-arg={argument}");
    }
}
