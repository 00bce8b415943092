//! The settings of the gateway, whose secrets are never shown.

use super::{SECRET_KEY, WEBHOOK_SECRET, stripe::Stripe};
use crate::{
    app::{eventually, ground},
    client::order,
    program::{Program, bare, command},
};
use orderlog::config::LogChoice;
use std::fs::File;

#[test]
fn a_setting_that_does_not_do_is_64_and_not_shown() {
    for (variables, named) in [
        (vec![("STRIPE_SECRET_KEY", "pk_live_hidden")], "STRIPE_SECRET_KEY"),
        (vec![("STRIPE_SECRET_KEY", "")], "STRIPE_SECRET_KEY"),
        (vec![("STRIPE_WEBHOOK_SECRET", "whsec_hidden")], "STRIPE_SECRET_KEY"),
        (
            vec![("STRIPE_SECRET_KEY", "sk_test_hidden"), ("STRIPE_WEBHOOK_SECRET", "hidden")],
            "STRIPE_WEBHOOK_SECRET",
        ),
        (
            vec![
                ("STRIPE_SECRET_KEY", "sk_test_hidden"),
                ("STRIPE_API_BASE", "https://hidden@api.stripe.com"),
            ],
            "STRIPE_API_BASE",
        ),
    ] {
        let output = bare(&["serve"]).envs(variables.clone()).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{variables:?}: {told}");
        assert!(told.contains(named) && !told.contains("hidden"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

/// The log level is the most verbose one, and Stripe repeats the refused key in its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_log_line_has_a_secret() {
    let ground = ground(LogChoice::Embedded).await;
    let stripe = Stripe::start().await;
    let lines = ground.dir.path().join("stderr");
    let start = |key: &str| {
        let mut command = command(&ground, &["serve"]);
        command
            .env("STRIPE_SECRET_KEY", key)
            .env("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)
            .env("STRIPE_API_BASE", stripe.base())
            .stderr(File::create(&lines).unwrap());
        Program::start_logging(command, "trace")
    };
    let program = start(SECRET_KEY);
    let (book, reader) = (program.staff.product(500, 10).await, program.staff.customer().await);
    let placed = program.staff.post("/orders", &order(reader, &[(book, 1)])).expect(201).await;
    stripe.set_locked(true);
    let body = order(reader, &[(book, 1)]);
    let waits = program.staff.post("/orders", &body).header("prefer", "wait=1").expect(202).await;
    let told = || std::fs::read_to_string(&lines).unwrap();
    eventually("the operator is told", async || {
        told().contains("Stripe refuses the secret key").then_some(())
    })
    .await;
    stripe.set_locked(false);
    for order in [placed.id("order_id"), waits.id("order_id")] {
        eventually("the order is confirmed", async || {
            let shown = program.staff.get(&format!("/orders/{order}")).send().await;
            (shown.body["status"] == "confirmed").then_some(())
        })
        .await;
    }
    assert!(program.stop().success());
    let told = told();
    assert!(told.contains("TRACE"), "nothing was logged");
    for secret in [SECRET_KEY, WEBHOOK_SECRET] {
        let line = told.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}
