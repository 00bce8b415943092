//! The command line, with a running server and without one.

use crate::{
    app::{fresh_database, ground},
    client::order,
    program::{self, Orphan, Program, bare, output, print_of},
};
use orderlog::config::LogChoice;
use serde_json::Value;

/// Arguments, environment, and the text that the error line must contain.
type BadSetting = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str);

#[test]
fn a_bad_setting_is_one_line_and_exit_code_64() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let bad: &[BadSetting] = &[
        (&[], &[("LISTEN_ADDR", "nowhere")], "LISTEN_ADDR"),
        (&["serve", "--partitions", "many"], &[], "--partitions"),
        (&[], &[("SHOP_CURRENCY", "pounds")], "SHOP_CURRENCY"),
        (&[], &[("DATABASE_URL", "mysql://there")], "DATABASE_URL"),
        (&[], &[("ROLES", "command")], "ROLES"),
        (&["--listen", "0.0.0.0:0"], &[], "AUTH_BUILTIN"),
        (&[], &[("RUST_LOG", "a=b=c")], "RUST_LOG"),
        (&[], &[("STRIPE_SECRET_KEY", "pk_test_1")], "STRIPE_SECRET_KEY"),
        (&[], &[("STRIPE_WEBHOOK_SECRET", "whsec_1")], "STRIPE_SECRET_KEY"),
        (&[], &[("STRIPE_SECRET_KEY", "sk_1"), ("STRIPE_API_BASE", "http://a")], "STRIPE_API_BASE"),
        (&["fly"], &[], "fly"),
    ];
    for (args, environment, named) in bad {
        let mut command = bare(args);
        command.env("DATA_DIR", &data).envs(environment.iter().copied());
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(64), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(named), "{told}");
        assert!(output.stdout.is_empty());
    }
    assert!(!data.exists(), "a bad setting left something behind");
}

#[test]
fn the_document_is_printed() {
    let output = bare(&["openapi"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["paths"]["/api/v1/orders"]["post"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_work_beside_a_running_server_and_after_it() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.database = None;
    let _orphan = Orphan(ground.dir.path());
    let server = Program::start(&ground);
    let (product, reader) = (server.staff.product(1_000, 100).await, server.staff.customer().await);
    let placed = server.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
    let stream = format!("order-{}", placed.id("order_id"));

    let token = print_of(&ground, &["token", "--role", "admin"]);
    server.staff.with_token(token.trim()).get("/admin/projections").expect(200).await;
    let demo = print_of(&ground, &["demo", "--orders", "30"]);
    assert!(demo.contains("confirmed"), "{demo}");
    let built = print_of(&ground, &["rebuild", "orders"]);
    assert!(built.contains("version 2 of orders serves"), "{built}");
    let second = output(&ground, &["serve", "--listen", "127.0.0.1:0"]);
    assert!(!second.status.success(), "two servers on one data directory");

    let look = || {
        let told = print_of(&ground, &["events", &stream]);
        let told: Vec<Value> =
            told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told[0]["type"], "OrderPlaced");
        assert!(told.iter().any(|event| event["type"] == "OrderConfirmed"), "{told:?}");
        let audit: Value = serde_json::from_str(&print_of(&ground, &["audit", "--json"])).unwrap();
        assert_eq!(audit["found"], 0);
        assert!(audit["events"].as_u64().unwrap() > 100);
        let shown = print_of(&ground, &["projections"]);
        assert!(
            shown.lines().any(|line| line.starts_with("orders") && line.ends_with("yes")),
            "{shown}"
        );
    };
    look();
    assert!(server.stop().success());

    look();
    let built = print_of(&ground, &["rebuild", "orders", "products"]);
    assert!(built.contains("version 3 of orders serves"), "{built}");
    assert!(built.contains("version 2 of products serves"), "{built}");
    print_of(&ground, &["migrate"]);
    let demo = output(&ground, &["demo"]);
    assert!(!demo.status.success(), "there is no shop to fill");

    let server = Program::start(&ground);
    let shown = server.staff.get(&format!("/orders/{}", placed.id("order_id"))).expect(200).await;
    assert_eq!(shown.body["status"], "confirmed");
    assert!(server.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_found_by_the_audit() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.database = Some(fresh_database().await);
    let server = Program::start(&ground);
    server.staff.product(1_000, 100).await;
    assert!(server.stop().success());
    assert!(print_of(&ground, &["audit"]).contains("nothing is wrong"));

    damage(&orderlog::startup::log_dir(&ground.config.data_dir).join("log.sqlite"));
    let audit = output(&ground, &["audit"]);
    assert_eq!(audit.status.code(), Some(1), "{}", String::from_utf8_lossy(&audit.stderr));
    let told = String::from_utf8(audit.stdout).unwrap();
    assert!(told.contains("\"fault\":\"damaged\""), "{told}");
    drop(program::open_log(&ground).await);
}

/// Changes a letter in the name of the product, as a failing disk might.
fn damage(file: &std::path::Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let found =
        bytes.windows(6).position(|window| window == b"A book").expect("the event is in the file");
    bytes[found] = b'B';
    std::fs::write(file, bytes).unwrap();
}
