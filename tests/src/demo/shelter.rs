//! Keeps a run of the demo apart from the machine, and leaves nothing behind.
//!
//! The story runs in namespaces of its own for processes and mounts. Its directory is a tmpfs
//! that only it sees, so that no key of it reaches a disk; its `/dev/shm` likewise. When the
//! first process of the namespace ends, the kernel ends all others and takes the mounts away:
//! after the last step, after Ctrl-C, and after a SIGKILL of either process. A SIGKILL leaves
//! one empty directory, which the next run removes: it is nobody's, since nobody has its lock.
//!
//! The network is the machine's: daemons listen on loopback addresses that are free.

use std::{
    fs::{self, File},
    future::Future,
    io,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{WaitOptions, getpid, set_child_subreaper, wait},
};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::screen::Screen;
use crate::world::WorldError;

/// The argument that makes the program tell the story.
pub const INSIDE: &str = "--inside";
/// The names of the directories begin so.
const PREFIX: &str = "krb-demo-";
/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;
/// Makes the mounts, then becomes the program.
const SET_UP: &str = "mount -t tmpfs -o mode=700,nosuid,nodev krb-demo \"$TMPDIR\" \
                      && mount -t tmpfs -o mode=1777,nosuid,nodev krb-demo /dev/shm && exec \"$0\" \"$1\"";

/// Runs the story in its shelter, from beginning to end or until a signal comes.
pub fn sheltered() -> ExitCode {
    let mut screen = Screen::new();
    let ended = run(&mut screen);
    ended.unwrap_or_else(|error| {
        // where even this can't be printed, the exit code says it
        let _ = screen.plain(&format!("The demo could not run: {error}"));
        ExitCode::FAILURE
    })
}

fn run(screen: &mut Screen) -> Result<ExitCode, WorldError> {
    if !rustix::process::geteuid().is_root() {
        return Err(WorldError::new("starting", "needs root, for mounts, namespaces and owners"));
    }
    remove_stale(&std::env::temp_dir());
    let shelter = Shelter::new()?;
    set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(supervise(shelter.dir.path()))?;
    // whatever was orphaned is our child now: its end is the end of the namespace
    while wait(WaitOptions::empty()).is_ok() {}
    let (dir, said) = (shelter.dir.path().to_owned(), ended.said);
    shelter.dir.close().map_err(|e| WorldError::new(format!("removing {}", dir.display()), e))?;
    screen.chapter(&format!("{said}All processes, mounts and files of this run are gone."))?;
    Ok(ended.code)
}

/// A directory and the lock that says it is in use.
struct Shelter {
    dir: tempfile::TempDir,
    _lock: File,
}

impl Shelter {
    fn new() -> Result<Self, WorldError> {
        let mut builder = tempfile::Builder::new();
        let private = fs::Permissions::from_mode(0o700);
        let dir = builder.prefix(PREFIX).permissions(private).tempdir()?;
        let lock = File::open(dir.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from)?;
        Ok(Self { dir, _lock: lock })
    }
}

struct Ended {
    code: ExitCode,
    said: &'static str,
}

async fn supervise(dir: &Path) -> Result<Ended, WorldError> {
    let interrupted = interruption()?;
    let mut child = start(dir)?;
    tokio::select! {
        biased;
        () = interrupted => {}
        status = child.wait() => {
            let status = status?;
            if status.success() {
                return Ok(Ended { code: ExitCode::SUCCESS, said: "" });
            }
            if status.signal().is_none() {
                return Ok(Ended { code: ExitCode::FAILURE, said: "The demo failed. " });
            }
        }
    }
    let _ = child.kill().await;
    Ok(Ended { code: ExitCode::from(INTERRUPTED), said: "Interrupted. " })
}

/// Ends at the first SIGINT, SIGTERM or SIGHUP from now on.
fn interruption() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}

/// Starts this program again as the first process of its own namespaces. Ctrl-C does not reach
/// it: it is killed whole, not left to fail in the middle of a step.
fn start(dir: &Path) -> io::Result<Child> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid", "--fork"]);
    command.args(["--kill-child", "--mount-proc", "--propagation", "private"]);
    command.args(["sh", "-c", SET_UP]).arg(std::env::current_exe()?).arg(INSIDE);
    command.env("TMPDIR", dir).stdin(std::process::Stdio::null()).process_group(0).spawn()
}

/// Removes directories of runs that were killed. Only empty ones can be: a run's files lie in
/// its own tmpfs.
fn remove_stale(place: &Path) {
    for dir in fs::read_dir(place).into_iter().flatten().flatten() {
        if dir.file_name().to_string_lossy().starts_with(PREFIX) {
            remove_if_unused(&dir.path());
        }
    }
}

/// A directory that can't be removed is left: it hinders nobody.
fn remove_if_unused(dir: &PathBuf) {
    let Ok(file) = File::open(dir) else { return };
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = fs::remove_dir(dir);
    }
}
