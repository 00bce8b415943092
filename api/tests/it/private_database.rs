//! The private PostgreSQL dies beside the program, or left damaged files behind.

use crate::{
    app::{Ground, eventually, ground},
    client::Api,
    program::{Orphan, Program, signal_process},
};
use orderlog::config::LogChoice;
use std::{fs, path::PathBuf};
use uuid::Uuid;

async fn private() -> Ground {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.database = None;
    ground
}

fn folder(ground: &Ground) -> PathBuf {
    ground.config.data_dir.join("postgres")
}

/// The server's process id.
fn server(ground: &Ground) -> u32 {
    let file = fs::read_to_string(folder(ground).join("cluster/postmaster.pid")).unwrap();
    file.lines().next().unwrap().parse().unwrap()
}

/// Waits until the read models show a product.
async fn shown(api: &Api, product: Uuid) {
    eventually("the product is shown", async || {
        let answer = api.get(&format!("/products/{product}")).try_send().await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_database_that_dies_is_started_again() {
    let ground = private().await;
    let _orphan = Orphan(ground.dir.path());
    let program = Program::start(&ground);
    let api = &program.staff;
    let before = api.product(1_000, 10).await;
    shown(api, before).await;

    for deaths in 1..=2 {
        let killed = server(&ground);
        signal_process(killed, "KILL");
        let after = api.product(1_000, 10).await;
        for product in [before, after] {
            shown(api, product).await;
        }
        assert_ne!(server(&ground), killed);
        let counted = format!("orderlog_private_postgres_restarts_total {deaths}");
        eventually("the restart is counted", async || {
            let metrics = api.get("//metrics").send().await.body;
            metrics.as_str()?.contains(&counted).then_some(())
        })
        .await;
    }
    let last = server(&ground);
    assert!(program.stop().success());
    assert!(!fs::exists(format!("/proc/{last}")).unwrap(), "it was left running");
}

/// A supervisor can then start the program anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_database_that_does_not_start_again_ends_the_program_with_69() {
    let ground = private().await;
    let _orphan = Orphan(ground.dir.path());
    let mut program = Program::start(&ground);
    let product = program.staff.product(1_000, 10).await;
    let local = folder(&ground).join("local.conf");
    fs::write(&local, "no_such_setting = 1\n").unwrap();
    signal_process(server(&ground), "KILL");
    let status = eventually("the program ends", async || program.ended()).await;
    assert_eq!(status.code(), Some(69));

    fs::remove_file(&local).unwrap();
    let program = Program::start(&ground);
    shown(&program.staff, product).await;
    assert!(program.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_the_private_database_that_a_power_cut_emptied_are_no_obstacle() {
    let ground = private().await;
    let _orphan = Orphan(ground.dir.path());
    let mut program = Program::start(&ground);
    let product = program.staff.product(1_000, 10).await;
    for file in ["cluster/postmaster.pid", "password"] {
        let killed = server(&ground);
        program.kill();
        signal_process(killed, "KILL");
        fs::write(folder(&ground).join(file), "").unwrap();
        program = Program::start(&ground);
        shown(&program.staff, product).await;
    }
    assert!(program.stop().success());
}
