//! Builds in what `src/log/kafka/fetch.c` says, where the linker can: with those of Linux.

use std::env;

/// One function of librdkafka gives way to ours.
const WRAP: &str = "-Wl,--wrap=rd_kafka_broker_ApiVersion_supported,--undefined=__wrap_rd_kafka_broker_ApiVersion_supported";

#[expect(clippy::disallowed_methods, reason = "a build reads what Cargo tells it")]
fn main() {
    println!("cargo:rerun-if-changed=src/log/kafka/fetch.c");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|target| target == "linux") {
        cc::Build::new()
            .file("src/log/kafka/fetch.c")
            .warnings_into_errors(true)
            .compile("orderlog_fetch");
        println!("cargo:rustc-link-arg={WRAP}");
        // Arguments of the linker are each package's own: `DEP_ORDERLOG_FETCH_LINK` of those that make programs.
        println!("cargo:link={WRAP}");
    }
}
