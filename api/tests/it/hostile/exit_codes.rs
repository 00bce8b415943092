//! Error lines and exit codes of the program.

use crate::{
    app::{Ground, data_dir, ground},
    program::{self, Program, output},
};
use orderlog::{config::LogChoice, startup::log_dir};
use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

/// The account `nobody`, which, unlike root, is bound by file permissions.
const NOBODY: u32 = 65_534;

const SERVE: [&str; 3] = ["serve", "--listen", "127.0.0.1:0"];

/// The last line on standard error. Checks the exit code.
fn told(what: &str, output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("orderlog: "), "{what}: {stderr}");
    last.to_owned()
}

fn refused(what: &str, ground: &Ground, args: &[&str], code: i32, named: &[&str]) {
    let told = told(what, &output(ground, args), code);
    assert!(named.iter().all(|word| told.contains(word)), "{what}: {named:?}? {told}");
}

/// A data directory in which the program has run and taken an order.
async fn used() -> Ground {
    let ground = ground(LogChoice::Embedded).await;
    let program = Program::start(&ground);
    program.staff.product(1_000, 10).await;
    program.staff.customer().await;
    assert!(program.stop().success());
    ground
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_65_and_named_and_the_audit_reports_it() {
    let ground = used().await;
    let file = log_dir(&ground.config.data_dir).join("log.sqlite");
    let whole = fs::read(&file).unwrap();
    let name = file.to_str().unwrap();

    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refused("cut", &ground, &SERVE, 65, &[name, "damaged", "docs/operating.md"]);
    refused("cut", &ground, &["events", "order-00000000-0000-0000-0000-000000000000"], 65, &[name]);
    let audit = output(&ground, &["audit"]);
    assert_eq!(audit.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&audit.stdout).contains("the log is damaged"));
    let audit = output(&ground, &["audit", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&audit.stdout).unwrap();
    assert_eq!(report["found"], 1);
    assert!(report["damage"].is_string());

    fs::remove_file(&file).unwrap();
    refused("gone", &ground, &SERVE, 65, &[name, "missing or empty"]);
    assert!(!file.exists(), "the program created a new one");
    fs::write(&file, &whole).unwrap();
    assert!(Program::start(&ground).stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_78_and_what_is_taken_is_75() {
    let ground = used().await;
    let partitions = [&SERVE[..], &["--partitions", "7"]].concat();
    refused("partitions", &ground, &partitions, 78, &["12 partitions, not 7"]);
    let currency = ["serve", "--listen", "127.0.0.1:0", "--shop-currency", "EUR"];
    refused("currency", &ground, &currency, 78, &["SHOP_CURRENCY is EUR", "GBP"]);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refused("address", &ground, &["serve", "--listen", &address], 75, &[&address]);
    refused("address", &ground, &["serve", "--listen", "192.0.2.1:80", "--auth-builtin"], 78, &[]);
    let program = Program::start(&ground);
    refused("data directory", &ground, &SERVE, 75, &["in use"]);
    assert!(program.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_out_of_reach_are_69() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.database = Some("postgres://shop:secret@127.0.0.1:1/shop".parse().unwrap());
    refused("database", &ground, &SERVE, 69, &["127.0.0.1:1"]);
    let (bootstrap_servers, topic) = ("127.0.0.1:1".to_owned(), "orderlog.events".to_owned());
    ground.config.log = LogChoice::Kafka { bootstrap_servers, topic, properties: [].into() };
    refused("Kafka", &ground, &SERVE, 69, &["127.0.0.1:1"]);
}

/// The private database is not needed for this: the keys are checked before the first query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_or_damaged_keys_are_65_and_never_made_anew() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.database = None;
    let _orphan = program::Orphan(ground.dir.path());
    let program = Program::start(&ground);
    program.staff.customer().await;
    assert!(program.stop().success());
    let file = ground.config.data_dir.join("keys.sqlite");
    let whole = fs::read(&file).unwrap();

    fs::remove_file(&file).unwrap();
    refused("gone", &ground, &SERVE, 65, &["keys.sqlite", "missing or empty"]);
    fs::write(&file, b"").unwrap();
    refused("empty", &ground, &SERVE, 65, &["keys.sqlite", "missing or empty"]);
    fs::write(&file, vec![7; whole.len()]).unwrap();
    refused("damaged", &ground, &SERVE, 65, &["key store"]);
    fs::write(&file, &whole).unwrap();
    let journal = ground.config.data_dir.join("sandbox-gateway.jsonl");
    fs::write(&journal, b"nonsense\n").unwrap();
    refused("journal", &ground, &SERVE, 65, &["sandbox-gateway.jsonl", "line 1"]);
    fs::remove_file(&journal).unwrap();
    assert!(Program::start(&ground).stop().success());
}

/// Runs `serve` as an account that is bound by file permissions.
fn serve_as_nobody(ground: &Ground) -> Output {
    let mut command: Command = program::command(ground, &SERVE);
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.output().unwrap()
}

fn is_root() -> bool {
    Path::new("/proc/self").metadata().is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_cannot_be_written_is_74_and_named() {
    let mut ground = used().await;
    let data = ground.config.data_dir.clone();
    let name = data.to_str().unwrap().to_owned();
    let files = [data.clone(), log_dir(&data)];
    for path in &files {
        set_mode(path, 0o555);
    }
    let refused = told("read-only", &serve_as_nobody(&ground), 74);
    assert!(refused.contains(&name), "{refused}");
    for path in &files {
        set_mode(path, 0o755);
    }

    let closed = data_dir();
    set_mode(closed.path(), 0o555);
    ground.config.data_dir = closed.path().join("new");
    let refused = told("not to be made", &serve_as_nobody(&ground), 74);
    assert!(refused.contains(closed.path().to_str().unwrap()), "{refused}");
    set_mode(closed.path(), 0o755);

    let file = closed.path().join("file");
    fs::write(&file, b"").unwrap();
    ground.config.data_dir = file.clone();
    let refused = told("a file", &output(&ground, &SERVE), 74);
    assert!(refused.contains(file.to_str().unwrap()), "{refused}");
    ground.config.data_dir = data;
    assert!(Program::start(&ground).stop().success(), "nothing was broken by it");
}

#[test]
fn the_help_tells_the_codes() {
    let help = program::bare(&["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for code in ["64", "65", "69", "70", "71", "74", "75", "78"] {
        assert!(help.lines().any(|line| line.trim().starts_with(code)), "{code}: {help}");
    }
}
