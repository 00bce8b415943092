//! The program with a library of somebody else's loaded first, as agents of monitoring vendors are.

use crate::{
    app::{PATIENCE, ground},
    client::order,
    program::{Program, command},
};
use orderlog::config::LogChoice;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// Compiles a library; the toolchain that built the program is there.
fn library(dir: &Path, source: &str) -> PathBuf {
    let (code, library) = (dir.join("library.c"), dir.join("library.so"));
    fs::write(&code, source).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &code])
        .arg("-ldl")
        .status();
    assert!(compiled.unwrap().success(), "cc");
    library
}

/// Each sync fails once the file `SYNCS_FAIL` is there.
const FAILING_SYNCS: &str = r#"
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>
static int fails(void) { const char *path = getenv("SYNCS_FAIL"); return path && access(path, F_OK) == 0; }
int fsync(int fd) { if (fails()) { errno = EIO; return -1; } return syscall(SYS_fsync, fd); }
int fdatasync(int fd) { if (fails()) { errno = EIO; return -1; } return syscall(SYS_fdatasync, fd); }
"#;

/// After a failed sync the system may have dropped what it could not write, so nothing that this
/// process writes can be believed any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_ends_the_process_with_an_exit_code_of_its_own() {
    let ground = ground(LogChoice::Embedded).await;
    let (library, fault) = (library(ground.dir.path(), FAILING_SYNCS), ground.dir.path().join("f"));
    let mut serve = command(&ground, &[]);
    serve.env("LD_PRELOAD", &library).env("SYNCS_FAIL", &fault);
    let mut program = Program::start_as(serve);
    let (product, reader) =
        (program.staff.product(1_000, 10).await, program.staff.customer().await);
    fs::write(&fault, "").unwrap();
    let api = program.staff.clone();
    let body = order(reader, &[(product, 1)]);
    // Whether it still gets an answer does not matter.
    let refused = tokio::spawn(async move { api.post("/orders", &body).send().await.status });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = program.ended() {
            break status;
        }
        assert!(Instant::now() < deadline, "the program goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_ne!(refused.await.ok(), Some(201));
    assert_eq!(status.code(), Some(71));

    fs::remove_file(&fault).unwrap();
    let program = Program::start(&ground);
    program.staff.post("/orders", &order(reader, &[(product, 1)])).expect(201).await;
    assert!(program.stop().success());
}

/// A constructor runs before the program's allocator has been set up.
const FREES_EARLY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
__attribute__((constructor)) static void begin(void) {
    void *volatile nothing = NULL;
    free(nothing);
    free(malloc(100));
    free(strdup(getenv("PATH") ? getenv("PATH") : ""));
    void *grown = realloc(calloc(10, 10), 100000);
    dlsym(RTLD_NEXT, "no_such_symbol");
    dlerror();
    void *aligned = NULL;
    if (posix_memalign(&aligned, 64, 1000) == 0) free(aligned);
    char *real = realpath("/proc/self/exe", NULL);
    free(real);
    free(grown);
}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_library_that_frees_memory_before_main_does_not_end_the_program() {
    let ground = ground(LogChoice::Embedded).await;
    let library = library(ground.dir.path(), FREES_EARLY);
    let mut serve = command(&ground, &[]);
    serve.env("LD_PRELOAD", &library);
    let program = Program::start_as(serve);
    program.staff.product(1_000, 10).await;
    assert!(program.stop().success());
}
