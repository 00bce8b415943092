//! Secrets must not be in the log at any log level.

use crate::{
    app::{eventually, ground},
    client::order_paid_by,
    program::{Program, command},
};
use orderlog::config::LogChoice;
use serde_json::json;
use sqlx::ConnectOptions;
use std::fs::File;

/// Secrets given to the program. Each text occurs nowhere else.
const NAME: &str = "Marguerite-Eleonore";
const SURNAME: &str = "Quillfeather";
const EMAIL: &str = "marguerite.quillfeather@example.org";
const NEW_EMAIL: &str = "m.quillfeather@example.net";
const ADDRESS: &str = "17 Larkspur Crescent";
/// The sandbox fails twice on it.
const PAYMENT: &str = "pm_card_error";
const CARD: &str = "4242 4242 4242 4242";
const KEY: &str = "idempotency-key-of-quillfeather";
const BAD_TOKEN: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJsYXJrc3B1ciJ9.bGFya3NwdXI";

/// Settings with secrets. No mail server listens at this address, so every letter fails.
const SETTINGS: [(&str, &str); 4] = [
    ("KAFKA_SASL_PASSWORD", "sasl-larkspur-password"),
    ("KAFKA_SSL_KEY_PASSWORD", "ssl-larkspur-password"),
    ("SMTP_URL", "smtp://shop:smtp-larkspur-password@127.0.0.1:9"),
    ("MAIL_FROM", "orders@shop.example"),
];
/// A gateway at which nobody listens, so every payment fails.
const NO_GATEWAY: [(&str, &str); 2] =
    [("STRIPE_SECRET_KEY", "sk_test_larkspur"), ("STRIPE_API_BASE", "http://127.0.0.1:9")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_a_log_line() {
    no_secret_is_logged(&[], 201).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_a_log_line_while_the_gateway_fails() {
    no_secret_is_logged(&NO_GATEWAY, 202).await;
}

/// Uses every path of a customer's and the program's secrets, at the most verbose log level. An
/// order gets the answer `placed`.
async fn no_secret_is_logged(settings: &[(&str, &str)], placed: u16) {
    let ground = ground(LogChoice::Embedded).await;
    let log = ground.dir.path().join("log-lines");
    let mut serve = command(&ground, &["--log-filter", "trace"]);
    serve.envs(SETTINGS).envs(settings.iter().copied()).stderr(File::create(&log).unwrap());
    let program = Program::start_as(serve);
    let staff = &program.staff;
    let token = program
        .greeting
        .iter()
        .find_map(|line| line.split("token, valid for 24 hours: ").nth(1).map(str::to_owned));

    let person = json!({ "email": EMAIL, "first_name": NAME, "last_name": SURNAME });
    let reader = staff.anonymous().post("/customers", &person).key(KEY).expect(201).await;
    let reader = reader.id("customer_id");
    let path = format!("/customers/{reader}");
    staff.get(&path).expect(200).await;
    staff.get(&format!("/customers?email={EMAIL}")).expect(200).await;
    staff.patch(&path, &json!({ "email": NEW_EMAIL })).expect(200).await;
    staff
        .post(
            "/customers",
            &json!({ "email": NEW_EMAIL, "first_name": NAME, "last_name": SURNAME }),
        )
        .expect(409)
        .await;
    staff.patch(&path, &json!({ "email": ADDRESS })).expect(422).await;
    let book = staff.product(1_000, 10).await;
    let mut wanted = order_paid_by(reader, &[(book, 1)], PAYMENT);
    wanted["shipping_address"] = json!(ADDRESS);
    let id = staff.post("/orders", &wanted).key(KEY).header("prefer", "wait=5");
    let id = id.expect(placed).await.id("order_id");
    staff.get(&format!("/orders/{id}")).expect(200).await;
    eventually("the gateway and the mail server have failed", async || {
        let logged = std::fs::read_to_string(&log).unwrap();
        logged.contains("an effect failed").then_some(())
    })
    .await;
    staff.post("/orders", &order_paid_by(reader, &[(book, 1)], CARD)).expect(422).await;
    let unknown = json!({ (CARD): "larkspur" });
    staff.post("/orders", &unknown).expect(422).await;
    staff.get(&format!("/orders/{id}/history")).expect(200).await;
    let events = format!("/orders/{id}/events");
    let ticket = staff.post(&format!("{events}/ticket"), &json!({})).expect(200).await;
    let ticket = ticket.body["ticket"].as_str().unwrap().to_owned();
    let anonymous = staff.anonymous();
    let mut ear = anonymous.get(&format!("{events}?ticket={ticket}")).open().await;
    assert!(ear.chunk().await.unwrap().is_some());
    drop(ear);
    staff.with_token(BAD_TOKEN).get(&path).expect(401).await;
    // Malformed JSON, which a parser might repeat in its error.
    let broken = format!("{{\"first_name\": \"{SURNAME}\" \"{ADDRESS}\"");
    staff.call(reqwest::Method::PATCH, &path).raw("application/json", broken).expect(400).await;
    assert!(program.stop().success());

    let logged = std::fs::read_to_string(&log).unwrap();
    assert!(logged.contains("DEBUG") && logged.len() > 10_000, "the log must be verbose");
    let database = ground.config.database.as_ref().unwrap().to_url_lossy();
    let password = database.password().unwrap_or("no password").to_owned();
    let secrets = [
        NAME,
        SURNAME,
        EMAIL,
        NEW_EMAIL,
        ADDRESS,
        PAYMENT,
        CARD,
        KEY,
        BAD_TOKEN,
        "bGFya3NwdXI",
        "larkspur",
    ]
    .into_iter()
    .chain(SETTINGS.map(|(_, value)| value))
    .chain(["sasl-larkspur-password", "ssl-larkspur-password", "smtp-larkspur-password"])
    .chain([token.as_deref().unwrap(), &ticket, &password]);
    let lines: Vec<&str> = logged.lines().collect();
    for secret in secrets {
        let found = lines.iter().find(|line| line.to_lowercase().contains(&secret.to_lowercase()));
        assert_eq!(found, None, "{secret} is logged");
    }
}
