//! Background work for rebuilds: threads with a lower priority and, where the server is the private
//! one, database sessions with a lower priority. They use the CPU time that the rest of the machine
//! leaves over, which on a quiet machine is all of it.
//!
//! Only Linux lets a program lower the priority of a single thread. On other systems rebuilds only
//! [give way](crate::rebuild) by pausing.

use crate::database::{self, PoolSettings};
#[cfg(target_os = "linux")]
use rustix::process::Pid;
use sqlx::{PgConnection, PgPool};
use std::{fs, io};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::watch,
    task::JoinHandle,
};

/// The nice value that is added to that of the rest of the program. At +10, a thread that competes
/// for a core gets about a tenth of it (`sched(7)`). The value is not the maximum, because a
/// background thread may briefly hold a lock that another thread waits for.
///
/// A nice value counts within a scheduling group. Where Linux first divides the cores between
/// sessions (`kernel.sched_autogroup_enabled`) or containers, it has no effect on other programs.
/// PostgreSQL makes each of its processes a session, so there each process is a group of its own
/// and the value has no effect either. Lowering those groups (`/proc/PID/autogroup`) did not make
/// queries faster in any measurement; `docs/rebuilds.md` says what does.
const NICER: i32 = 10;

/// A runtime whose threads have a lower priority. Dropping it ends the tasks that run on it.
pub(crate) struct Background {
    handle: Handle,
    /// `None` once it is being dropped.
    runtime: Option<Runtime>,
}

impl Background {
    pub fn new() -> io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        // Threads started by these threads inherit their priority, so the value is computed here,
        // once.
        let nice = nicer_than(None);
        runtime.thread_name("background").on_thread_start(move || set(None, nice)).enable_all();
        // Tasks here compute for milliseconds between waits. Poll for the database's answers after
        // each.
        runtime.event_interval(1);
        let runtime = runtime.build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Runs `work` inside this runtime: code that asks for the current runtime finds this one.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.handle.enter();
        work()
    }

    /// Runs a task on this runtime.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.handle.spawn(task)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // An ordinary drop blocks until the tasks have ended, which is not allowed inside a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A pool for background work, with the options of another pool. It opens no connection before one
/// is needed. `server` is the process id of the database server, if that runs on this machine.
pub(crate) fn connect(
    like: &PgPool,
    max_connections: u32,
    server: Option<watch::Receiver<u32>>,
) -> PgPool {
    let options = like.connect_options().as_ref().clone().application_name("orderlog rebuild");
    database::options(&PoolSettings { max_connections, ..PoolSettings::default() })
        .after_connect(move |session, _| {
            let server = server.as_ref().map(|server| *server.borrow());
            Box::pin(async move {
                if let Some(server) = server {
                    lower_session(session, server).await?;
                }
                Ok(())
            })
        })
        .connect_lazy_with(options)
}

async fn lower_session(session: &mut PgConnection, server: u32) -> Result<(), sqlx::Error> {
    let process: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(session).await?;
    // Another server may have taken over this address since.
    if parent(process) == Some(server) {
        set(Some(process), nicer_than(Some(server)));
    }
    Ok(())
}

/// The parent of a process. `man 5 proc`: the second field, which is in parentheses, may contain
/// anything; the fourth is the parent.
fn parent(process: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The nice value for work done on behalf of the process `other`, or of this thread.
#[cfg(target_os = "linux")]
fn nicer_than(other: Option<u32>) -> i32 {
    let other = other.and_then(|process| Pid::from_raw(process.cast_signed()));
    rustix::process::getpriority_process(other).unwrap_or_default() + NICER
}

/// Sets the nice value of a process, or of this thread. The system caps it at its maximum.
#[cfg(target_os = "linux")]
fn set(process: Option<i32>, nice: i32) {
    let process = process.and_then(Pid::from_raw);
    if let Err(error) = rustix::process::setpriority_process(process, nice) {
        tracing::debug!(error = &error as &dyn std::error::Error, "cannot lower a priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn nicer_than(_: Option<u32>) -> i32 {
    NICER
}

#[cfg(not(target_os = "linux"))]
fn set(_: Option<i32>, _: i32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::database::local::LocalPostgres;
    use rustix::process::getpriority_process;

    fn nice(process: Option<i32>) -> i32 {
        getpriority_process(process.and_then(Pid::from_raw)).unwrap()
    }

    #[tokio::test]
    async fn threads_and_sessions_are_of_a_lower_priority_and_the_server_is_not() {
        let usual = nice(None);
        let background = Background::new().unwrap();
        let (told, seen) = tokio::sync::oneshot::channel();
        background.spawn(async {
            let blocking = tokio::task::spawn_blocking(|| nice(None)).await.unwrap();
            told.send((nice(None), blocking)).unwrap();
        });
        let lower = (usual + NICER).min(19);
        assert_eq!(seen.await.unwrap(), (lower, lower));
        assert_eq!(nice(None), usual);

        let postgres = LocalPostgres::throwaway().await.unwrap();
        let server = postgres.process_id();
        let options = postgres.connect_options();
        let like = database::connect(options, PoolSettings::default()).await.unwrap();
        let session = async |server: Option<u32>| {
            let pool = connect(&like, 1, server.map(|server| watch::channel(server).1));
            let mut session = pool.acquire().await.unwrap();
            let process = sqlx::query_scalar("select pg_backend_pid()");
            nice(Some(process.fetch_one(&mut *session).await.unwrap()))
        };
        assert_eq!(session(Some(server)).await, lower);
        // A server on another machine, or another server on this one.
        assert_eq!(session(None).await, usual);
        assert_eq!(session(Some(1)).await, usual);
        assert_eq!(nice(Some(server.cast_signed())), usual);
    }
}
