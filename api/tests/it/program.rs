//! The real program in a process of its own, to be killed, paused and started again.

use crate::{
    app::{Ground, PATIENCE},
    client::Api,
};
use events::{
    environment::System,
    log::{
        EventLog,
        embedded::EmbeddedLog,
        kafka::{KafkaLog, KafkaSettings},
    },
};
use orderlog::config::LogChoice;
use rdkafka::{
    ClientConfig, admin::AdminClient, admin::AdminOptions, client::DefaultClientContext,
};
use sqlx::ConnectOptions;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

/// The program as it was built for this test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_orderlog");

/// A running `orderlog serve`; killed when dropped.
pub struct Program {
    child: Child,
    /// As staff, with the token that the program printed.
    pub staff: Api,
    /// What it printed first.
    pub greeting: Vec<String>,
}

/// A command of the program on a ground, with nothing of this process's environment but `PATH`:
/// PostgreSQL's programs are looked for there.
pub fn command(ground: &Ground, args: &[&str]) -> Command {
    let config = &ground.config;
    let mut command = bare(args);
    command.env("DATA_DIR", &config.data_dir).env("TAKE_OVER", "true");
    if let Some(database) = &config.database {
        command.env("DATABASE_URL", database.to_url_lossy().as_str());
    }
    if let LogChoice::Kafka { bootstrap_servers, topic, .. } = &config.log {
        command.env("KAFKA_BOOTSTRAP_SERVERS", bootstrap_servers).env("KAFKA_TOPIC", topic);
    }
    command
}

/// The program with an empty environment.
pub fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).env_clear().stdin(Stdio::null());
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// Runs a command to its end.
pub fn output(ground: &Ground, args: &[&str]) -> Output {
    command(ground, args).output().unwrap()
}

/// What a command that succeeds prints.
pub fn print_of(ground: &Ground, args: &[&str]) -> String {
    let output = output(ground, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{args:?}: {stderr}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).unwrap()
}

impl Program {
    /// Starts the program and waits for its first lines, which it prints when it serves.
    pub fn start(ground: &Ground) -> Self {
        Self::start_as(command(ground, &[]))
    }

    /// The same with a command of the caller's making.
    pub fn start_as(command: Command) -> Self {
        Self::start_logging(command, "warn")
    }

    /// The same, logging what a filter lets through.
    pub fn start_logging(mut command: Command, filter: &str) -> Self {
        command
            .env("LISTEN_ADDR", "127.0.0.1:0")
            .env("RATE_LIMIT_PER_SECOND", "0")
            .env("RATE_LIMIT_PER_ADDRESS", "0")
            .env("CONNECTIONS_PER_ADDRESS", "0")
            .env("REQUESTS_PER_ADDRESS", "0")
            .env("REGISTRATIONS_PER_MINUTE", "0")
            .env("OPEN_ORDERS_PER_CUSTOMER", "0")
            .env("DECLINED_PAYMENTS_PER_HOUR", "0")
            .env("EXPIRY_GRACE_SECONDS", "0")
            .env("RUST_LOG", filter)
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = lines_of(&mut child);
        let mut greeting = Vec::new();
        while !greeting.last().is_some_and(|line: &String| line.contains("curl ")) {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) => greeting.push(line),
                Err(error) => {
                    let _ = child.kill();
                    panic!("the program did not come up ({error}): {greeting:?}");
                }
            }
        }
        let url = word_with(&greeting, "http://");
        let token = word_with(&greeting, "eyJ");
        Self { child, staff: Api::new(url, Some(token)), greeting }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, which leaves no time for anything.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(self) -> ExitStatus {
        self.end_by("TERM")
    }

    /// Sends a signal and waits for the end.
    pub fn end_by(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal: STOP, CONT, TERM, INT.
    pub fn signal(&self, signal: &str) {
        signal_process(self.child.id(), signal);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process.
pub fn signal_process(pid: u32, signal: &str) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(sent.unwrap().success(), "kill -{signal} {pid}");
}

/// The lines a child prints, read on for as long as it lives so that it never waits for a reader.
fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    lines
}

fn word_with(lines: &[String], start: &str) -> String {
    let mut words = lines.iter().flat_map(|line| line.split(' '));
    words
        .find(|word| word.starts_with(start))
        .unwrap_or_else(|| panic!("{start}? {lines:?}"))
        .to_owned()
}

/// The log of a ground, to read, whoever writes it.
pub async fn open_log(ground: &Ground) -> Arc<dyn EventLog> {
    match &ground.config.log {
        LogChoice::Embedded => {
            let dir = orderlog::startup::log_dir(&ground.config.data_dir);
            Arc::new(EmbeddedLog::open_read_only(&dir).unwrap())
        }
        LogChoice::Kafka { bootstrap_servers, topic, .. } => {
            let settings = KafkaSettings {
                topic: topic.clone(),
                ..KafkaSettings::new(bootstrap_servers.clone(), Arc::new(System::new()))
            };
            Arc::new(KafkaLog::connect(settings).await.unwrap())
        }
    }
}

/// Deletes the topic of a test that is over.
pub async fn delete_topic(log: &LogChoice) {
    let LogChoice::Kafka { bootstrap_servers, topic, .. } = log else { return };
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap_servers).create().unwrap();
    // Left behind, it would only take room.
    let _ = admin.delete_topics(&[topic], &AdminOptions::new()).await;
}

/// Ends a private PostgreSQL that a killed program left behind.
pub struct Orphan<'a>(pub &'a Path);

impl Drop for Orphan<'_> {
    fn drop(&mut self) {
        let found = Command::new("find")
            .arg(self.0)
            .args(["-name", "postmaster.pid", "-exec", "head", "-n", "1", "{}", ";"])
            .output();
        let Ok(found) = found else { return };
        for pid in String::from_utf8_lossy(&found.stdout).lines() {
            let _ = Command::new("kill").args(["-QUIT", pid]).status();
        }
    }
}
