//! Tests of the whole program, as its clients and operators see it.
//!
//! Scenarios run on the embedded log and, if `KAFKA_BOOTSTRAP_SERVERS` is set, on Apache Kafka too
//! (those test names contain `kafka`). Each scenario has its own app; all share one private
//! PostgreSQL. After each scenario its invariants are checked: see `app::TestApp`.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "tests use the real clock and real tasks")]

mod access;
mod app;
mod bad_input;
mod books;
mod catalogue;
mod client;
mod command_line;
mod crash;
mod customers;
mod discounts;
mod documented;
mod documents;
mod erasure;
mod extending;
mod failover;
mod hostile;
mod keys;
mod limits;
mod live;
mod mail;
mod pages;
mod parking;
mod past;
mod payments;
mod private_database;
mod program;
mod rebuild;
mod sales;
mod secrets;
mod shopping_day;
mod stock;
mod texts;
mod tidy;
mod traces;
mod use_of_broker;
mod wishlist;

/// Runs a scenario on both logs: `on_both_logs!(name_of_the_test)` calls
/// `scenario::name_of_the_test(&app)`.
macro_rules! on_both_logs {
    ($($name:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::app::on_embedded(async |app| scenario::$name(app).await).await;
            }
        )+
        /// The same scenarios on Apache Kafka.
        mod on_kafka {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::app::on_kafka(async |app| super::scenario::$name(app).await).await;
                }
            )+
        }
    };
}
pub(crate) use on_both_logs;
