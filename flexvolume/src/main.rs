//! The flexvolume driver: mounts a pod's credential volume and lets the node's agent fill it.
//!
//! Kubelet runs it once a call: `init`, `mount <target> <options>`, `unmount <target>`.
//! It holds nothing, is configured by nothing, talks to nobody but the agent's socket, and
//! never sees key material.
//!
//! What always holds:
//! - exactly one JSON object goes to stdout and nothing to stderr, whatever happens: kubelet
//!   reads both as one text; the exit code is 0;
//! - a `mount` that answers `Failure` leaves nothing mounted: kubelet would take what it finds
//!   for a success half a second later;
//! - nothing is mounted before it is filled, so that a driver that is killed leaves nothing
//!   that looks finished (Linux 5.2 and later);
//! - an `unmount` takes everything off, whoever is away;
//! - `init` touches nothing: kubelet holds a lock of all volumes while it waits for it.
//!
//! What it can't do: before Linux 5.2, undo a mount after it was itself killed in the middle.

use std::{env, panic};

mod agent;
mod call;
mod clock;
mod detached;
mod empty;
mod failure;
mod layers;
mod lock;
mod log;
mod mount;
mod options;
mod reply;
mod run_dir;
mod target;
mod tmpfs;
mod unmount;

use call::Call;
use clock::Deadline;
use failure::Failure;
use reply::Reply;

fn main() {
    panic::set_hook(Box::new(|_| {})); // its text would spoil the answer
    let deadline = Deadline::after(clock::MOUNT_LIMIT);
    guarded(|| answer(&deadline)).print();
}

/// Carries the call out and says how it went.
fn answer(deadline: &Deadline) -> Reply {
    let call = match Call::parse(env::args_os().skip(1)) {
        Ok(call) => call,
        Err(failure) => return refuse("call", &failure),
    };
    match call {
        Call::Init => Reply::Init,
        Call::Other => Reply::NotSupported,
        Call::Mount(target, names) => match mount::mount(&target, &names, deadline) {
            Ok(()) => Reply::Success,
            Err(failure) => refuse(&format!("mount {target}"), &failure),
        },
        Call::Unmount(target) => match unmount::unmount(&target) {
            Ok(()) => Reply::Success,
            Err(failure) => refuse(&format!("unmount {target}"), &failure),
        },
    }
}

/// The reply for a failure, which is noted in the driver's log as well.
fn refuse(tried: &str, failure: &Failure) -> Reply {
    log::note(tried, failure);
    Reply::Failure(failure.to_string())
}

/// What `work` replies; a panic in it becomes a failure like others.
fn guarded(work: impl FnOnce() -> Reply + panic::UnwindSafe) -> Reply {
    panic::catch_unwind(work).unwrap_or_else(|_| refuse("call", &Failure::Defect))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_answered_as_a_failure() {
        let before = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let reply = guarded(|| panic!("a defect"));
        panic::set_hook(before);
        assert_eq!(reply, Reply::Failure(Failure::Defect.to_string()));
    }
}
