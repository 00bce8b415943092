//! Makes the cluster and writes its settings.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::access::Access;
use super::binaries::Binaries;
use super::error::{IoContext, LocalError};
use super::site::{Site, remove_if_there};
use super::{LocalOptions, account};

/// The only user of the cluster.
pub(super) const USER: &str = "orderlog";

/// The program's database.
pub(super) const DATABASE: &str = "orderlog";

/// Values for `LC_CTYPE`, which decides what counts as a letter. The first one that the machine
/// knows is used (`UTF-8` is its name on macOS). Text is compared byte by byte (locale `C`), so
/// that order and digests are the same on every machine.
const LETTERS: [&str; 3] = ["C.UTF-8", "UTF-8", "C"];

/// Settings for read models on a small machine: many small upserts, and data that can be rebuilt.
const SETTINGS: &str = "\
# Written anew at each start. Put settings of your own into local.conf in this folder.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
# No replicas here: without them bulk loads into new tables write no log.
wal_level = minimal
max_wal_senders = 0
max_wal_size = 2GB
min_wal_size = 256MB
checkpoint_timeout = 15min
shared_buffers = 256MB
effective_cache_size = 1GB
work_mem = 16MB
maintenance_work_mem = 128MB
random_page_cost = 1.1
# Statements are short: compiling them costs more than it gains.
jit = off
# Checkpoint rows are updated all the time.
autovacuum_naptime = 15s
autovacuum_vacuum_scale_factor = 0.05
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
default_text_search_config = 'pg_catalog.english'
log_line_prefix = '%m [%p] %q%a '
log_checkpoints = off
log_autovacuum_min_duration = -1
";

/// Settings for databases that exist only for a test. A commit still survives a crash of the
/// server.
const NOT_DURABLE: &str = "\
fsync = off
full_page_writes = off
# Many tests at once share one server.
max_connections = 500
shared_buffers = 64MB
max_wal_size = 256MB
min_wal_size = 80MB
";

/// Runs `initdb`. The cluster gets its name only when it is complete, so that a start that was
/// killed halfway starts over.
pub(super) async fn make(
    site: &Site,
    binaries: &Binaries,
    access: &Access,
    options: &LocalOptions,
) -> Result<(), LocalError> {
    let secret = site.write_secret("initdb.password", access.password())?;
    site.give(&secret)?;
    let mut made = Ok(());
    for letters in LETTERS {
        made = initdb(site, binaries, &secret, letters, options).await;
        if made.is_ok() {
            break;
        }
    }
    remove_if_there(&secret)?;
    made?;
    let (unfinished, cluster) = (site.unfinished(), site.cluster());
    fs::rename(&unfinished, &cluster).doing(|| format!("rename {}", unfinished.display()))
}

async fn initdb(
    site: &Site,
    binaries: &Binaries,
    secret: &std::path::Path,
    letters: &str,
    options: &LocalOptions,
) -> Result<(), LocalError> {
    let folder = site.unfinished();
    if folder.exists() {
        fs::remove_dir_all(&folder).doing(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir(&folder)
        .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)))
        .doing(|| format!("make {}", folder.display()))?;
    site.give(&folder)?;

    let mut command = account::command(binaries.initdb(), site.account.as_ref(), &folder);
    command
        .arg("-D")
        .arg(&folder)
        .args(["--username", USER, "--auth", "scram-sha-256"])
        .args(["--encoding", "UTF8", "--locale", "C", "--lc-ctype", letters])
        .arg("--no-instructions")
        .arg("--pwfile")
        .arg(secret);
    if !options.durable {
        command.arg("--no-sync");
    }
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = tokio::time::timeout(options.start_timeout, output)
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .doing(|| "run initdb")?;
    if output.status.success() {
        return Ok(());
    }
    Err(LocalError::InitDb {
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Writes the settings. They are outside the server's own folder, see [`Site`].
pub(super) fn write_settings(site: &Site, options: &LocalOptions) -> Result<(), LocalError> {
    let mut text = SETTINGS.to_owned();
    if !options.durable {
        text.push_str(NOT_DURABLE);
    }
    text.push_str("include_if_exists = 'local.conf'\n");
    site.write(&site.settings(), &text, 0o644)
}
