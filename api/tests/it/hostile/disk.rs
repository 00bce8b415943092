//! A full disk: commands are refused meanwhile, no acknowledged data is lost, and the program
//! continues afterwards.

use crate::{
    app::{self, Ground, PATIENCE, eventually, ground},
    books::audit_clean,
    client::{Api, order},
    program::{self, Orphan, PROGRAM, Program},
};
use futures::{StreamExt, stream};
use orderlog::config::LogChoice;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tokio::sync::Notify;
use uuid::Uuid;

/// The number of orders before the disk is full, and while it is full.
const BEFORE: usize = 20;
const WHILE: usize = 40;

/// How long the disk stays full after the first refusal: some orders are still in doubt when there is
/// room again.
const IN_DOUBT: Duration = Duration::from_secs(3);

struct Shop {
    product: Uuid,
    reader: Uuid,
    /// Told when an order is refused.
    refused: Notify,
}

impl Shop {
    async fn prepare(api: &Api) -> Self {
        let (product, reader) = (api.product(1_000, 1_000).await, api.customer().await);
        Self { product, reader, refused: Notify::new() }
    }

    /// Places the orders with these numbers, each with its own key. Returns the answers.
    async fn place(&self, api: &Api, numbers: impl Iterator<Item = usize>) -> Vec<(u16, String)> {
        let body = order(self.reader, &[(self.product, 1)]);
        let place = |number: usize| {
            let call = api.post("/orders", &body).key(format!("full-{number}"));
            async move {
                let answer = call.send().await;
                if answer.status == 503 {
                    self.refused.notify_one();
                }
                (answer.status, answer.problem().to_owned())
            }
        };
        stream::iter(numbers).map(place).buffer_unordered(8).collect().await
    }

    /// Waits until an order was refused, and some are still in doubt.
    async fn refuses(&self) {
        let refused = tokio::time::timeout(PATIENCE, self.refused.notified());
        refused.await.expect("the disk is full");
        tokio::time::sleep(IN_DOUBT).await;
    }

    /// Places all orders again until each is acknowledged.
    async fn insist(&self, api: &Api) {
        eventually("every order is taken", async || {
            let answers = self.place(api, 0..BEFORE + WHILE).await;
            answers.iter().all(|(status, _)| *status == 201).then_some(())
        })
        .await;
    }
}

fn assert_refused_plainly(answers: &[(u16, String)]) {
    let refusals = ["command-not-applied", "outcome-unknown", "unavailable"];
    for (status, problem) in answers {
        let plain = *status == 503 && refusals.contains(&&**problem);
        assert!([201, 202].contains(status) || plain, "{status} {problem}");
    }
    assert!(answers.iter().any(|(status, _)| *status == 503), "the disk was not full: {answers:?}");
}

/// Lets the program finish the effects that it owed while the disk was full.
async fn settle(ground: &Ground) {
    app::settled(&*program::open_log(ground).await).await;
}

async fn check_books(ground: &Ground) {
    let log = program::open_log(ground).await;
    let books = app::settled(&*log).await;
    books.check();
    books.check_journal(&app::journal(&ground.config.data_dir));
    assert_eq!(books.count("confirmed"), BEFORE + WHILE, "each key is one order");
    audit_clean(&*log).await;
}

fn run(command: &str, args: &[&str]) -> bool {
    Command::new(command).args(args).status().is_ok_and(|status| status.success())
}

/// Limits the file size of the process, which acts like a full disk and needs no privilege.
fn limit_files(program: &Program, bytes: &str) {
    let (pid, limit) = (program.id().to_string(), format!("--fsize={bytes}:"));
    assert!(run("prlimit", &["--pid", &pid, &limit]), "prlimit {limit}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_grow_refuses_and_goes_on_by_itself_when_it_can() {
    let ground = ground(LogChoice::Embedded).await;
    let mut command = program::command(&ground, &[]);
    let environment: Vec<_> = command
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command = Command::new("sh");
    // Without this trap the system would end the process at the first write beyond the limit.
    command.args(["-c", "trap '' XFSZ; exec \"$0\"", PROGRAM]).env_clear().envs(environment);
    let program = Program::start_as(command);
    let shop = Shop::prepare(&program.staff).await;
    let answers = shop.place(&program.staff, 0..BEFORE).await;
    assert!(answers.iter().all(|(status, _)| *status == 201), "{answers:?}");

    let wal = orderlog::startup::log_dir(&ground.config.data_dir).join("log.sqlite-wal");
    let size = fs::metadata(wal).unwrap().len() + 10_000;
    limit_files(&program, &size.to_string());
    let healing = async {
        shop.refuses().await;
        eventually("it says what it cannot serve", async || {
            let ready = program.staff.get("//readyz").send().await;
            let names = ready.body["closed"].as_array().is_some_and(|closed| !closed.is_empty());
            (names || ready.status == 503).then_some(())
        })
        .await;
        limit_files(&program, "unlimited");
    };
    let placing = shop.place(&program.staff, BEFORE..BEFORE + WHILE);
    let (answers, ()) = tokio::join!(placing, healing);
    assert_refused_plainly(&answers);
    shop.insist(&program.staff).await;
    eventually("it is ready again", async || {
        (program.staff.get("//readyz").send().await.status == 200).then_some(())
    })
    .await;
    settle(&ground).await;
    assert!(program.stop().success());
    check_books(&ground).await;
}

/// A small disk for the test, if the system allows mounting one.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size},mode=0755");
        let path = at.to_str().unwrap();
        run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", path]).then(|| Self(at.to_owned()))
    }

    /// Fills the remaining space.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

/// Log, keys, the gateway's journal and the private PostgreSQL are all on one full disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_and_a_restart_heals_what_it_broke() {
    let mut ground = ground(LogChoice::Embedded).await;
    ground.config.database = None;
    let Some(disk) = Disk::mount(&ground.dir.path().join("disk"), "256m") else {
        println!("skipped: this system lets us mount nothing");
        return;
    };
    ground.config.data_dir = disk.0.join("data");
    let _orphan = Orphan(&disk.0);
    let program = Program::start(&ground);
    let shop = Shop::prepare(&program.staff).await;
    let answers = shop.place(&program.staff, 0..BEFORE).await;
    assert!(answers.iter().all(|(status, _)| *status == 201), "{answers:?}");

    disk.fill();
    let healing = async {
        shop.refuses().await;
        fs::remove_file(disk.ballast()).unwrap();
    };
    let placing = shop.place(&program.staff, BEFORE..BEFORE + WHILE);
    let (answers, ()) = tokio::join!(placing, healing);
    assert_refused_plainly(&answers);
    shop.insist(&program.staff).await;
    // The state of PostgreSQL depends on the moment; the restart must handle every state.
    let reads = program.staff.get("/orders").header("prefer", "wait=1").send().await.status;
    println!("reads before the restart: {reads}");
    program.kill();
    let program = Program::start(&ground);
    let shown: BTreeSet<String> = eventually("all orders are shown", async || {
        let list = program.staff.get("/orders?limit=200&status=confirmed").send().await;
        let items = list.body["items"].as_array()?;
        let ids = items.iter().map(|item| item["order_id"].to_string());
        Some(ids.collect::<BTreeSet<_>>()).filter(|ids| ids.len() == BEFORE + WHILE)
    })
    .await;
    assert_eq!(shown.len(), BEFORE + WHILE);
    settle(&ground).await;
    assert!(program.stop().success());
    check_books(&ground).await;
}
