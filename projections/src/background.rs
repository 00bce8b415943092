//! Work that is to be in nobody's way: threads of a lower priority, and sessions of a lower priority where the server is the
//! private one. It takes what the rest of the machine leaves, which on a quiet machine is all of it.
//!
//! Elsewhere than on Linux a thread has no priority of its own that can be lowered like this; all there is then is that
//! rebuilds [give way](crate::rebuild) by themselves.

use crate::database::{self, PoolSettings};
#[cfg(target_os = "linux")]
use rustix::process::Pid;
use sqlx::{PgConnection, PgPool};
use std::{fs, io};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

/// How much "nicer" than the rest of the program: where both want a core, this gets a tenth of it (`sched(7)`). Not the most
/// there is, as it may hold locks for a moment that others wait for.
///
/// It counts within a group of processes. Where Linux shares the cores out to sessions first (`kernel.sched_autogroup_enabled`)
/// or to containers, it counts for nothing towards other programs; and as PostgreSQL makes each of its processes a session,
/// theirs are groups of one, in which it counts for nothing either. To lower those groups (`/proc/PID/autogroup`) did not make
/// queries quicker in any run: the README tells what does.
const NICER: i32 = 10;

/// Threads of a lower priority. What runs on them ends when it is dropped.
pub(crate) struct Background {
    handle: Handle,
    /// Until it is dropped.
    runtime: Option<Runtime>,
}

impl Background {
    pub fn new() -> io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        // Threads that these start inherit it: it is measured here.
        let nice = nicer_than(None);
        runtime.thread_name("background").on_thread_start(move || set(None, nice)).enable_all();
        // Tasks here work for milliseconds before they rest: what the database has answered is looked at after each.
        runtime.event_interval(1);
        let runtime = runtime.build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Runs this as their runtime's: where it looks for the current one, it finds that.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.handle.enter();
        work()
    }

    /// Runs a task there.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.handle.spawn(task)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // An ordinary drop waits, which no task may do.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A pool for such work, of sessions like those of another one. No connection is opened before it is needed. `server` is the
/// process that serves, if it is on this machine.
pub(crate) fn connect(like: &PgPool, max_connections: u32, server: Option<u32>) -> PgPool {
    let options = like.connect_options().as_ref().clone().application_name("orderlog rebuild");
    database::options(&PoolSettings { max_connections, ..PoolSettings::default() })
        .after_connect(move |session, _| {
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
    // Another server may have come to this address.
    if parent(process) == Some(server) {
        set(Some(process), nicer_than(Some(server)));
    }
    Ok(())
}

/// `man 5 proc`: the second field, which is in parentheses, may hold anything; the fourth is the parent.
fn parent(process: i32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// How nice one of them is to be that runs for `other`, or for this thread.
#[cfg(target_os = "linux")]
fn nicer_than(other: Option<u32>) -> i32 {
    let other = other.and_then(|process| Pid::from_raw(process.cast_signed()));
    rustix::process::getpriority_process(other).unwrap_or_default() + NICER
}

/// Sets how nice a process is, or this thread. What is above the most there is counts as that.
#[cfg(target_os = "linux")]
fn set(process: Option<i32>, nice: i32) {
    let process = process.and_then(Pid::from_raw);
    if let Err(error) = rustix::process::setpriority_process(process, nice) {
        tracing::debug!(error = &error as &dyn std::error::Error, "a priority is not lowered");
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
        let session = async |server| {
            let pool = connect(&like, 1, server);
            let mut session = pool.acquire().await.unwrap();
            let process = sqlx::query_scalar("select pg_backend_pid()");
            nice(Some(process.fetch_one(&mut *session).await.unwrap()))
        };
        assert_eq!(session(Some(server)).await, lower);
        // Of another machine, or another server of this one.
        assert_eq!(session(None).await, usual);
        assert_eq!(session(Some(1)).await, usual);
        assert_eq!(nice(Some(server.cast_signed())), usual);
    }
}
