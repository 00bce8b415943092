//! Compiles `src/log/kafka/fetch.c` and links it in. Linux only: other linkers have no `--wrap`.

use std::env;

/// Replaces one function of librdkafka with ours; `fetch.c` explains why.
const WRAP: &str = "-Wl,--wrap=rd_kafka_broker_ApiVersion_supported,--undefined=__wrap_rd_kafka_broker_ApiVersion_supported";

#[expect(
    clippy::disallowed_methods,
    reason = "a build script gets its input from Cargo in environment variables"
)]
fn main() {
    println!("cargo:rerun-if-changed=src/log/kafka/fetch.c");
    // The schemas are compiled in, and the compiler does not notice a new file among them.
    println!("cargo:rerun-if-changed=schemas");
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|target| target == "linux") {
        cc::Build::new()
            .file("src/log/kafka/fetch.c")
            .warnings_into_errors(true)
            .compile("orderlog_fetch");
        println!("cargo:rustc-link-arg={WRAP}");
        // Cargo does not pass linker arguments on to dependent packages. The packages that build
        // programs read this value from `DEP_ORDERLOG_FETCH_LINK` in their own build scripts.
        println!("cargo:link={WRAP}");
    }
}
