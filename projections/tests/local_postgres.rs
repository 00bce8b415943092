//! The private cluster: its life and its accidents, and the pools upon it. Works as root and not.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::future::Future;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::FutureExt;
use projections::database::local::{LocalError, LocalOptions, LocalPostgres, SupervisedPostgres};
use projections::database::{self, PoolSettings};
use sqlx::{ConnectOptions, PgConnection, PgPool};
use tempfile::TempDir;

/// A data directory the server's user can reach, as a temporary one of root's is not.
fn data_dir() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o755);
    folder
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

async fn start(folder: &TempDir) -> LocalPostgres {
    LocalPostgres::start(LocalOptions::for_tests(folder.path())).await.unwrap()
}

async fn session(postgres: &LocalPostgres) -> PgConnection {
    postgres.connect_options().connect().await.unwrap()
}

async fn pool(postgres: &LocalPostgres, settings: PoolSettings) -> PgPool {
    database::connect(postgres.connect_options(), settings).await.unwrap()
}

async fn write_row(postgres: &LocalPostgres) {
    sqlx::raw_sql("create table kept (n int); insert into kept values (7)")
        .execute(&mut session(postgres).await)
        .await
        .unwrap();
}

async fn read_row(postgres: &LocalPostgres) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("select n from kept").fetch_one(&mut session(postgres).await).await
}

fn signal(name: &str, pid: u32) -> bool {
    Command::new("sh")
        .args(["-c", r#"kill -s "$1" "$2" 2>/dev/null"#, "sh", name])
        .arg(pid.to_string())
        .status()
        .unwrap()
        .success()
}

fn alive(pid: u32) -> bool {
    signal("0", pid)
}

async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_root() -> bool {
    // A folder of ours is owned by who we are.
    tempfile::tempdir().unwrap().path().metadata().unwrap().uid() == 0
}

#[tokio::test]
async fn starts_from_nothing() {
    let folder = data_dir();
    let data_dir = folder.path().join("not yet/there's");
    let postgres = LocalPostgres::start(LocalOptions::for_tests(&data_dir)).await.unwrap();
    assert!(!postgres.adopted());
    assert!(postgres.home().starts_with(data_dir.canonicalize().unwrap()));
    let password = data_dir.join("postgres/password").metadata().unwrap();
    assert_eq!(password.permissions().mode() & 0o777, 0o600);
    assert!(!format!("{postgres:?}").contains("password"));

    let pool = database::connect_url(&postgres.url(), PoolSettings::default()).await.unwrap();
    for (name, value) in [
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("password_encryption", "scram-sha-256"),
        ("synchronous_commit", "on"),
        ("timezone", "UTC"),
    ] {
        let found: String = sqlx::query_scalar("select current_setting($1)")
            .bind(name)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(found, value, "{name}");
    }
    let lower: String =
        sqlx::query_scalar("select lower('\u{c9}TUI')").fetch_one(&pool).await.unwrap();
    assert_eq!(lower, "\u{e9}tui", "letters beyond ASCII are letters");

    let wrong = postgres.connect_options().password("guess");
    assert!(wrong.connect().await.is_err(), "the password is asked for");
}

#[tokio::test]
async fn a_stop_and_a_start_keep_the_rows() {
    let folder = data_dir();
    let mut options = LocalOptions::for_tests(folder.path());
    options.durable = true;
    let postgres = LocalPostgres::start(options.clone()).await.unwrap();
    write_row(&postgres).await;
    let (pid, port) = (postgres.process_id(), postgres.connect_options().get_port());
    postgres.stop().await.unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());

    let postgres = LocalPostgres::start(options).await.unwrap();
    assert!(!postgres.adopted());
    assert_ne!(postgres.process_id(), pid);
    assert_eq!(read_row(&postgres).await.unwrap(), 7);
}

#[tokio::test]
async fn a_killed_server_is_started_again() {
    let folder = data_dir();
    let killed = start(&folder).await;
    write_row(&killed).await;
    // Busy sessions outlive the server for a moment and keep its shared memory.
    let mut busy = session(&killed).await;
    let work = tokio::spawn(async move {
        let _ = sqlx::query("select pg_sleep(60)").execute(&mut busy).await;
    });
    assert!(signal("KILL", killed.process_id()));

    let postgres = start(&folder).await;
    assert!(!postgres.adopted());
    assert_ne!(postgres.process_id(), killed.process_id());
    assert_eq!(read_row(&postgres).await.unwrap(), 7);
    work.abort();
}

#[tokio::test]
async fn a_running_server_is_adopted() {
    let folder = data_dir();
    let first = start(&folder).await;
    write_row(&first).await;

    let second = start(&folder).await;
    assert!(second.adopted());
    assert_eq!(second.process_id(), first.process_id());
    assert_eq!(second.url(), first.url());
    assert_eq!(read_row(&second).await.unwrap(), 7);

    second.stop().await.unwrap();
    assert!(session_fails(&first).await, "the adopter is its owner");
}

async fn session_fails(postgres: &LocalPostgres) -> bool {
    postgres.connect_options().connect().await.is_err()
}

#[tokio::test]
async fn attaching_neither_starts_nor_stops() {
    let folder = data_dir();
    let nothing = LocalPostgres::attach(folder.path()).await.unwrap();
    assert!(nothing.is_none());
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);

    let owner = start(&folder).await;
    write_row(&owner).await;
    let guest = LocalPostgres::attach(folder.path()).await.unwrap().unwrap();
    assert_eq!(read_row(&guest).await.unwrap(), 7);
    guest.stop().await.unwrap();
    assert_eq!(read_row(&owner).await.unwrap(), 7);

    owner.stop().await.unwrap();
    let nothing = LocalPostgres::attach(folder.path()).await.unwrap();
    assert!(nothing.is_none());
}

#[tokio::test]
async fn a_stale_pid_file_is_no_obstacle() {
    let folder = data_dir();
    let postgres = start(&folder).await;
    let cluster = postgres.home().join("cluster");
    write_row(&postgres).await;
    let dead = postgres.process_id();
    postgres.stop().await.unwrap();

    // After a restart of the machine the id is free, or belongs to another program of the same user.
    let mut another = command_as_owner_of(&cluster, "sleep").arg("600").spawn().unwrap();
    for pid in [dead, another.id()] {
        let text =
            format!("{pid}\n{}\n1700000000\n1\n\n127.0.0.1\n  1  1\nready   \n", cluster.display());
        write_pid_file(&cluster, text);

        assert!(LocalPostgres::attach(folder.path()).await.unwrap().is_none());
        let postgres = start(&folder).await;
        assert!(!postgres.adopted());
        assert_eq!(read_row(&postgres).await.unwrap(), 7);
        postgres.stop().await.unwrap();
    }
    assert!(another.try_wait().unwrap().is_none(), "a stranger was ended");
    another.kill().unwrap();
    another.wait().unwrap();
}

fn command_as_owner_of(path: &Path, program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    if is_root() {
        let owner = path.metadata().unwrap();
        command.uid(owner.uid()).gid(owner.gid());
    }
    command
}

/// Writes the server's file as its owner would.
fn write_pid_file(cluster: &Path, bytes: impl AsRef<[u8]>) {
    let file = cluster.join("postmaster.pid");
    std::fs::write(&file, bytes).unwrap();
    let owner = cluster.metadata().unwrap();
    std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
}

/// A power cut leaves a file that was made and not written, or not in whole.
#[tokio::test]
async fn a_damaged_pid_file_is_no_obstacle() {
    let folder = data_dir();
    let postgres = start(&folder).await;
    let cluster = postgres.home().join("cluster");
    write_row(&postgres).await;
    let pid = postgres.process_id();
    postgres.stop().await.unwrap();

    let rest = format!("\n{}\n1700000000\n1\n\n127.0.0.1\n  1  1\nready   \n", cluster.display());
    let torn = format!("{pid}\n{}", &cluster.to_str().unwrap()[..5]);
    let damaged: [&[u8]; 10] = [
        b"",
        b"\n",
        b"garbage",
        b"-5",
        b"0",
        &[0; 512],
        &[0xff; 512],
        b"99999999999999999999",
        rest.as_bytes(),
        torn.as_bytes(),
    ];
    for bytes in damaged {
        write_pid_file(&cluster, bytes);
        assert!(LocalPostgres::attach(folder.path()).await.unwrap().is_none());
        let postgres = start(&folder).await;
        let text = String::from_utf8_lossy(bytes);
        assert!(!postgres.adopted(), "{text:?}");
        assert_eq!(read_row(&postgres).await.unwrap(), 7, "{text:?}");
        postgres.stop().await.unwrap();
    }
}

/// Two servers on one cluster would destroy it.
#[tokio::test]
async fn a_server_whose_pid_file_was_damaged_or_removed_is_ended_first() {
    for bytes in [Some(""), Some("garbage"), None] {
        let folder = data_dir();
        let unknown = start(&folder).await;
        write_row(&unknown).await;
        let cluster = unknown.home().join("cluster");
        match bytes {
            Some(bytes) => write_pid_file(&cluster, bytes),
            None => std::fs::remove_file(cluster.join("postmaster.pid")).unwrap(),
        }
        let postgres = start(&folder).await;
        assert!(!postgres.adopted());
        assert!(!alive(unknown.process_id()), "{bytes:?}");
        assert_eq!(read_row(&postgres).await.unwrap(), 7, "{bytes:?}");
    }
}

/// As in a container whose first process does not wait for the others.
#[tokio::test]
async fn a_dead_server_that_nobody_waited_for_is_no_obstacle() {
    let folder = data_dir();
    let postgres = start(&folder).await;
    let cluster = postgres.home().join("cluster");
    write_row(&postgres).await;
    postgres.stop().await.unwrap();

    let mut zombie = command_as_owner_of(&cluster, "true").spawn().unwrap();
    let stat = format!("/proc/{}/stat", zombie.id());
    if Path::new("/proc/self/stat").exists() {
        eventually("it is dead", || async {
            std::fs::read_to_string(&stat).unwrap().contains(") Z ")
        })
        .await;
    }
    let id = zombie.id();
    let folder_of = cluster.display();
    let file = format!("{id}\n{folder_of}\n1700000000\n1\n\n127.0.0.1\n  1  1\nready   \n");
    for bytes in [file, format!("{id}\n"), format!("-{id}\n")] {
        write_pid_file(&cluster, &bytes);
        let begun = Instant::now();
        let postgres = start(&folder).await;
        assert!(begun.elapsed() < Duration::from_secs(20), "{bytes:?}");
        assert_eq!(read_row(&postgres).await.unwrap(), 7, "{bytes:?}");
        postgres.stop().await.unwrap();
    }
    zombie.wait().unwrap();
}

#[tokio::test]
async fn a_password_that_was_lost_is_made_anew_with_the_cluster() {
    let damaged: [&[u8]; 5] = [b"", b"\n", &[0; 64], b"\xff\xfe", b"another"];
    let folder = data_dir();
    for (nth, bytes) in damaged.into_iter().enumerate() {
        let postgres = start(&folder).await;
        write_row(&postgres).await;
        let pid = postgres.process_id();
        let running = nth % 2 == 1;
        if !running {
            postgres.stop().await.unwrap();
        }
        let file = folder.path().join("postgres/password");
        std::fs::write(&file, bytes).unwrap();

        let text = String::from_utf8_lossy(bytes);
        let postgres = start(&folder).await;
        assert!(!postgres.adopted(), "{text:?}");
        assert!(read_row(&postgres).await.is_err(), "{text:?}: its rows may be of another log");
        assert!(!alive(pid), "{text:?}");
        assert_ne!(std::fs::read(&file).unwrap(), bytes);
        assert!(postgres.home().join("cluster.old").exists());
        postgres.stop().await.unwrap();
    }
}

/// Its process id after it was started again.
async fn next_process(postgres: &SupervisedPostgres, before: u32) -> u32 {
    let mut process = postgres.process_id();
    let changed = process.wait_for(|pid| *pid != before);
    let pid = tokio::time::timeout(Duration::from_mins(1), changed).await;
    *pid.expect("not started again").unwrap()
}

#[tokio::test]
async fn a_server_that_dies_is_started_again_and_its_pool_goes_on() {
    let folder = data_dir();
    let postgres = start(&folder).await;
    write_row(&postgres).await;
    let pool = pool(&postgres, PoolSettings::default()).await;
    let port = postgres.connect_options().get_port();
    let postgres = postgres.supervise();
    let mut pid = *postgres.process_id().borrow();

    // A crash, an immediate shutdown, and an administrator's stop.
    for death in ["KILL", "QUIT", "INT"] {
        assert!(signal(death, pid));
        pid = next_process(&postgres, pid).await;
        eventually("the pool answers", || async {
            let row = sqlx::query_scalar("select n from kept").fetch_one(&pool).await;
            row.is_ok_and(|row: i32| row == 7)
        })
        .await;
        let found: i32 = sqlx::query_scalar("select current_setting('port')::int")
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(found, i32::from(port));
    }
    pool.close().await;
    postgres.stop().await.unwrap();
    assert!(!alive(pid));
}

/// An adopted server is no child of this process, so that nobody tells it of the end.
#[tokio::test]
async fn an_adopted_server_that_dies_is_started_again() {
    let folder = data_dir();
    let first = start(&folder).await;
    write_row(&first).await;
    let second = start(&folder).await;
    assert!(second.adopted());
    let options = second.connect_options();
    let supervised = second.supervise();
    assert!(signal("KILL", first.process_id()));

    let pid = next_process(&supervised, first.process_id()).await;
    let mut session = options.connect().await.unwrap();
    let row: i32 = sqlx::query_scalar("select n from kept").fetch_one(&mut session).await.unwrap();
    assert_eq!(row, 7);
    supervised.stop().await.unwrap();
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_supervised_server_that_is_stopped_stays_down() {
    let folder = data_dir();
    let postgres = start(&folder).await;
    let cluster = postgres.home().join("cluster");
    let supervised = postgres.supervise();
    let pid = *supervised.process_id().borrow();
    supervised.stop().await.unwrap();
    assert!(!alive(pid));
    assert!(LocalPostgres::attach(folder.path()).await.unwrap().is_none());

    // Stopped in the middle of a start, too.
    let supervised = start(&folder).await.supervise();
    let pid = *supervised.process_id().borrow();
    assert!(signal("KILL", pid));
    eventually("it is started again", || async {
        let file = std::fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
        file.lines().next().is_some_and(|line| line != pid.to_string())
    })
    .await;
    supervised.stop().await.unwrap();
    assert!(LocalPostgres::attach(folder.path()).await.unwrap().is_none());
    let file = std::fs::read_to_string(cluster.join("postmaster.pid")).unwrap_or_default();
    let left = file.lines().next().and_then(|pid| pid.parse().ok());
    assert!(!left.is_some_and(alive), "the new server was left running");
}

#[tokio::test]
async fn a_server_that_only_waits_for_its_sessions_to_end_is_started_again() {
    let folder = data_dir();
    let postgres = start(&folder).await;
    let mut busy = session(&postgres).await;
    let options = postgres.connect_options();
    let supervised = postgres.supervise();
    let pid = *supervised.process_id().borrow();
    assert!(signal("TERM", pid));
    eventually("new sessions are refused", || async { options.connect().await.is_err() }).await;
    sqlx::query("select 1").execute(&mut busy).await.unwrap();

    next_process(&supervised, pid).await;
    options.connect().await.unwrap();
    supervised.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_be_started_again_is_given_up() {
    let folder = data_dir();
    let postgres = start(&folder).await;
    let home = postgres.home().to_owned();
    let mut supervised = postgres.supervise();
    let pid = *supervised.process_id().borrow();
    std::fs::remove_file(home.join("cluster/PG_VERSION")).unwrap();
    assert!(signal("KILL", pid));

    let failed = tokio::time::timeout(Duration::from_secs(90), supervised.failed()).await;
    let error = failed.expect("not given up");
    assert!(matches!(error, LocalError::Replaced { .. }), "{error}");
    assert!(home.join("cluster").exists(), "only a new start makes another cluster");
    assert!(supervised.failed().now_or_never().is_none(), "told once");
    supervised.stop().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_closed_to_the_servers_user_has_its_cluster_elsewhere() {
    if !is_root() {
        return;
    }
    let closed = tempfile::tempdir().unwrap();
    set_mode(closed.path(), 0o700);
    let elsewhere = data_dir();
    let mut options = LocalOptions::for_tests(closed.path().join("data"));
    options.fallback_dir = elsewhere.path().join("orderlog");

    let postgres = LocalPostgres::start(options.clone()).await.unwrap();
    assert!(postgres.home().starts_with(&options.fallback_dir));
    assert!(options.data_dir.join("postgres/password").exists());
    write_row(&postgres).await;
    let guest = LocalPostgres::attach_with(&options).await.unwrap().unwrap();
    assert_eq!(read_row(&guest).await.unwrap(), 7);

    // A directory made anew at the same path must not meet the rows of its predecessor.
    std::fs::remove_dir_all(&options.data_dir).unwrap();
    let anew = LocalPostgres::start(options).await.unwrap();
    assert_eq!(anew.home(), postgres.home());
    assert!(read_row(&anew).await.is_err());
}

#[tokio::test]
async fn what_root_makes_in_a_users_folder_is_that_users() {
    if !is_root() {
        return;
    }
    let folder = data_dir();
    let home = folder.path().join("postgres");
    let id = Command::new("id").args(["-u", "nobody"]).output().unwrap().stdout;
    let user = String::from_utf8(id).unwrap().trim().parse().unwrap();
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(user), None).unwrap();

    let postgres = start(&folder).await;
    assert_eq!(postgres.home(), home.canonicalize().unwrap());
    for entry in home.read_dir().unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().uid(), user, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn a_cluster_of_another_version_is_put_aside() {
    let folder = data_dir();
    let postgres = start(&folder).await;
    write_row(&postgres).await;
    let home = postgres.home().to_owned();
    postgres.stop().await.unwrap();
    std::fs::write(home.join("cluster/PG_VERSION"), "9\n").unwrap();
    // What a start killed halfway leaves behind.
    std::fs::create_dir(home.join("cluster.new")).unwrap();
    std::fs::write(home.join("cluster.new/half"), "").unwrap();

    let postgres = start(&folder).await;
    assert!(read_row(&postgres).await.is_err());
    assert!(home.join("cluster.old/PG_VERSION").exists());
    assert!(!home.join("cluster.new").exists());
}

#[tokio::test]
async fn what_the_server_says_at_a_failed_start_is_in_the_error() {
    let folder = data_dir();
    let postgres = start(&folder).await;
    let home = postgres.home().to_owned();
    postgres.stop().await.unwrap();
    std::fs::write(home.join("local.conf"), "no_such_setting = 1\n").unwrap();
    set_mode(&home.join("local.conf"), 0o644);

    let error = LocalPostgres::start(LocalOptions::for_tests(folder.path())).await.unwrap_err();
    assert!(matches!(error, LocalError::Exited { .. }), "{error}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn without_programs_the_ways_out_are_named() {
    let folder = data_dir();
    let mut options = LocalOptions::for_tests(folder.path());
    options.bin_dir = Some(folder.path().join("nowhere"));
    let error = LocalPostgres::start(options).await.unwrap_err();
    assert!(matches!(error, LocalError::NoBinaries { .. }), "{error}");
}

#[tokio::test]
#[ignore = "takes the 20 s a server is given to answer and to end"]
async fn a_server_that_does_not_answer_is_ended() {
    let folder = data_dir();
    let hung = start(&folder).await;
    write_row(&hung).await;
    assert!(signal("STOP", hung.process_id()));

    let postgres = start(&folder).await;
    assert!(!postgres.adopted());
    assert_eq!(read_row(&postgres).await.unwrap(), 7);
}

#[tokio::test]
async fn tests_share_a_cluster_that_goes_with_its_handle() {
    let postgres = LocalPostgres::throwaway().await.unwrap();
    let first = postgres.create_database("first").await.unwrap();
    let second = postgres.create_database("second").await.unwrap();
    let mut first = first.connect().await.unwrap();
    let mut second = second.connect().await.unwrap();
    let create = "create table only_here (n int)";
    sqlx::query(create).execute(&mut first).await.unwrap();
    sqlx::query(create).execute(&mut second).await.unwrap();

    for bad in ["", "Upper", "a\"b", "a-b", &"x".repeat(64)] {
        let refused = postgres.create_database(bad).await.unwrap_err();
        assert!(matches!(refused, LocalError::Name(_)), "{bad}");
    }
    let twice = postgres.create_database("first").await.unwrap_err();
    assert!(matches!(twice, LocalError::Sql { .. }), "{twice}");

    let (pid, home) = (postgres.process_id(), postgres.home().to_owned());
    drop(postgres);
    assert!(!alive(pid));
    assert!(!home.exists());
}

/// The other half of `a_killed_test_leaves_no_server_behind`.
#[tokio::test]
#[ignore = "runs only as a child, to be killed"]
async fn holds_a_server_until_killed() {
    let postgres = LocalPostgres::throwaway().await.unwrap();
    let home = postgres.home().display().to_string();
    println!("\nserver {} {home}", postgres.process_id());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_test_leaves_no_server_behind() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "holds_a_server_until_killed"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let (pid, home) = std::io::BufRead::lines(&mut output)
        .map(Result::unwrap)
        .find_map(|line| {
            let (pid, home) = line.strip_prefix("server ")?.split_once(' ')?;
            Some((pid.parse().unwrap(), PathBuf::from(home)))
        })
        .unwrap();
    assert!(alive(pid));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the server is gone with its folder", || async { !alive(pid) && !home.exists() })
        .await;
}

#[tokio::test]
async fn sessions_are_bounded() {
    let postgres = LocalPostgres::throwaway().await.unwrap();
    let settings = PoolSettings {
        application_name: "bounded sessions".to_owned(),
        statement_timeout: Some(Duration::from_millis(1_234)),
        ..PoolSettings::default()
    };
    let pool = pool(&postgres, settings).await;
    for (name, value) in [
        ("application_name", "bounded sessions"),
        ("statement_timeout", "1234ms"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ] {
        let found: String = sqlx::query_scalar("select current_setting($1)")
            .bind(name)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(found, value, "{name}");
    }
    let error =
        database::connect_url("postgres:/\\nonsense", PoolSettings::default()).await.unwrap_err();
    assert!(!error.to_string().contains("nonsense"), "{error}");
}

#[tokio::test]
async fn a_begin_given_up_halfway_leaves_no_transaction_open() {
    let postgres = LocalPostgres::throwaway().await.unwrap();
    let settings = PoolSettings {
        application_name: "impatient".to_owned(),
        max_connections: 2,
        ..PoolSettings::default()
    };
    let pool = pool(&postgres, settings).await;
    let mut observer = session(&postgres).await;
    // Once an idle connection is there, the first poll sends the statement and waits for the answer.
    sqlx::query("select 1").execute(&pool).await.unwrap();
    for _ in 0..20 {
        eventually("a connection is idle", || async { pool.num_idle() > 0 }).await;
        drop(database::begin(&pool).now_or_never());
    }
    let mut in_transaction = 1_i64;
    let deadline = Instant::now() + Duration::from_secs(5);
    while in_transaction > 0 {
        assert!(Instant::now() < deadline, "a transaction was left open");
        in_transaction = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where application_name = 'impatient' and state like 'idle in transaction%'",
        )
        .fetch_one(&mut observer)
        .await
        .unwrap();
    }
    let mut transaction = database::begin(&pool).await.unwrap();
    sqlx::query("create table committed ()").execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    sqlx::query("select from committed").execute(&mut observer).await.unwrap();
}

#[tokio::test]
async fn migrations_run_on_many_nodes_at_once_and_wait_for_locks() {
    let postgres = LocalPostgres::throwaway().await.unwrap();
    let settings =
        PoolSettings { lock_timeout: Duration::from_millis(50), ..PoolSettings::default() };
    let pool = pool(&postgres, settings).await;
    let nodes = (0..4).map(|_| database::migrate(&pool));
    for migrated in futures::future::join_all(nodes).await {
        migrated.unwrap();
    }

    let mut report = database::begin(&pool).await.unwrap();
    sqlx::query("lock table _sqlx_migrations in access exclusive mode")
        .execute(&mut *report)
        .await
        .unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { database::migrate(&pool).await }
    });
    // Longer than one attempt: the server tells that one was given up.
    let mut observer = session(&postgres).await;
    eventually("an attempt waits for the lock", || waits(&postgres)).await;
    sqlx::query("select pg_sleep(0.2)").execute(&mut observer).await.unwrap();
    assert!(!waiting.is_finished());
    report.commit().await.unwrap();
    waiting.await.unwrap().unwrap();
}

async fn waits(postgres: &LocalPostgres) -> bool {
    sqlx::query_scalar("select exists (select from pg_locks where not granted)")
        .fetch_one(&mut session(postgres).await)
        .await
        .unwrap()
}
